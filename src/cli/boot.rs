//! What runs when the system starts: `system boot` starts it, `system unit` prints a systemd unit that calls it.

use std::io::Write as _;

use super::context::Context;
use super::failure::{Failure, Result, tell};
use super::parse::Parsed;
use super::verb::{Listed, Operands, Verb};

const fn system(name: &'static [&'static str], about: &'static str, run: fn(&Parsed, &Context) -> Result<()>) -> Verb {
    let (listed, operands) = (Listed::Other, Operands::None);
    Verb { names: name, about, usage: "", listed, operands, trailing: false, sections: &[], run }
}

/// The commands of this file.
pub static VERBS: &[Verb] = &[
    system(&["system boot"], "Start the containers that restart policies want to run", boot),
    system(&["system unit"], "Print a systemd unit that calls 'system boot' when the system starts", unit),
];

fn boot(_: &Parsed, context: &Context) -> Result<()> {
    let mut failed = false;
    for (name, outcome) in context.engine()?.boot()? {
        match outcome {
            Ok(()) => writeln!(std::io::stdout(), "{name}")?,
            Err(e) => {
                tell(&Failure::from(e).text("", false));
                tell(&format!("Error: failed to start container: {name}\n"));
                failed = true;
            }
        }
    }
    if failed { Err(Failure::Exit(1)) } else { Ok(()) }
}

fn unit(_: &Parsed, context: &Context) -> Result<()> {
    let program = std::env::current_exe().map_err(|e| Failure::new(format!("cannot find this program: {e}")))?;
    let root = context.root().map(std::path::absolute).transpose()?;
    let text = text(&program.display().to_string(), root.map(|root| root.display().to_string()).as_deref());
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// systemd.service(5): nothing stays running but the containers, each in a cgroup of its own; when the system goes down
/// their monitors are told to end like all processes, and stop them.
fn text(program: &str, root: Option<&str>) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%"));
    format!(
        "[Unit]\n\
         Description=Wharf containers\n\
         After=local-fs.target network-online.target\n\
         Wants=network-online.target\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         KillMode=process\n\
         Delegate=yes\n\
         ExecStart={}{} system boot\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        quoted(program),
        root.map(|root| format!(" --root {}", quoted(root))).unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_paths_are_quoted() {
        let unit = text("/opt/my wharf", Some("/srv/100%"));
        assert!(unit.contains("\nExecStart=\"/opt/my wharf\" --root \"/srv/100%%\" system boot\n"), "{unit}");
    }
}
