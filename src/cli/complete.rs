//! `wharf completion`: the tables as a clap command tree, for clap_complete's generators. Only here is it built.

use std::io::Write as _;

use clap::{Arg, ArgAction, Command};
use clap_complete::{Shell, generate};

use super::context::Context;
use super::failure::{Failure, Result};
use super::parse::Parsed;
use super::verb::{Flag, Listed, Operands, Takes, Verb};
use super::{GLOBAL, MANAGEMENT, help, verbs};

/// The command of this file.
pub static VERBS: &[Verb] = &[Verb {
    names: &["completion"],
    about: "Generate the autocompletion script for a shell (bash, zsh, fish or powershell)",
    usage: "bash|zsh|fish|powershell",
    listed: Listed::Other,
    operands: Operands::Exactly(1),
    trailing: false,
    sections: &[],
    run: completion,
}];

fn completion(parsed: &Parsed, _: &Context) -> Result<()> {
    let name = &parsed.operands()[0];
    let shell = match name.as_str() {
        "bash" => Shell::Bash,
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        "powershell" => Shell::PowerShell,
        _ => {
            return Err(Failure::new(format!("unknown shell: {name:?}"))
                .hint("Known shells are bash, zsh, fish and powershell."));
        }
    };
    let mut script = Vec::new();
    generate(shell, &mut tree(), "wharf", &mut script);
    Ok(std::io::stdout().write_all(&script)?)
}

/// The whole tree: every verb by its first spelling, and the management groups with theirs.
fn tree() -> Command {
    let top = verbs().filter(|verb| verb.listed != Listed::Hidden && !verb.names[0].contains(' '));
    let groups = MANAGEMENT.iter().map(|(group, about)| {
        let members = help::members(group).filter_map(|(name, _)| {
            let spelling = format!("{group} {name}");
            let verb = verbs().find(|verb| verb.names.contains(&spelling.as_str()))?;
            Some(command(verb, name))
        });
        Command::new(*group).about(*about).subcommands(members)
    });
    Command::new("wharf")
        .disable_version_flag(true)
        .args(args(GLOBAL.iter()))
        .subcommands(top.map(|verb| command(verb, verb.names[0])))
        .subcommands(groups)
}

fn command(verb: &'static Verb, name: &'static str) -> Command {
    // `-h` can be a verb's own flag; help is in every table anyway.
    Command::new(name).about(verb.about).disable_help_flag(true).args(args(verb.flags()))
}

fn args(flags: impl Iterator<Item = &'static Flag>) -> impl Iterator<Item = Arg> {
    flags.filter(|flag| flag.supported).map(|flag| {
        let arg = Arg::new(flag.long).long(flag.long).help(flag.help.lines().next().unwrap_or_default());
        let arg = match flag.short {
            Some(short) => arg.short(short),
            None => arg,
        };
        match flag.takes {
            Takes::Switch => arg.action(ArgAction::SetTrue),
            Takes::Value(_) => arg.action(ArgAction::Set),
            Takes::List(_) => arg.action(ArgAction::Append),
        }
    })
}
