//! Verbs that make and start containers, and those that attach to them: `create`, `run`, `start`, `attach`, `exec`.

use std::fs::File;
use std::io::Write as _;

use wharf_runtime::engine::PullPolicy;
use wharf_runtime::state::State;
use wharf_runtime::task::ExecSpec;

use super::container_config::{config, env, pull_policy};
use super::container_flags::{RUN, SHARED};
use super::context::Context;
use super::failure::{Failure, Result, tell};
use super::lifecycle::for_each;
use super::parse::Parsed;
use super::session::Attachment;
use super::values;
use super::verb::{Flag, Listed, Operands, Section, Verb};
use super::{progress, session};

const DETACH_KEYS: Flag = Flag::value("detach-keys", "string", "Override the key sequence for detaching a container");

/// The commands of this file.
pub static VERBS: &[Verb] = &[
    Verb {
        names: &["run", "container run"],
        about: "Create and run a new container from an image",
        usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
        listed: Listed::Common,
        operands: Operands::AtLeast(1),
        trailing: true,
        sections: &{
            let [general, limits, filesystem, network, security] = SHARED;
            [general, RUN, limits, filesystem, network, security]
        },
        run,
    },
    Verb {
        names: &["exec", "container exec"],
        about: "Execute a command in a running container",
        usage: "[OPTIONS] CONTAINER COMMAND [ARG...]",
        listed: Listed::Common,
        // Two, but one with a tool image.
        operands: Operands::AtLeast(0),
        trailing: true,
        sections: &[Section {
            title: "Options",
            flags: &[
                Flag::switch("detach", "Detached mode: run command in the background").short('d'),
                DETACH_KEYS,
                Flag::list("env", "Set environment variables").checked(|text| values::env(text).map(drop)).short('e'),
                Flag::list("env-file", "Read in a file of environment variables"),
                Flag::switch("interactive", "Keep STDIN open even if not attached").short('i'),
                Flag::switch("privileged", "Give extended privileges to the command"),
                Flag::value(
                    "tool-image",
                    "string",
                    "Run the program of another WebAssembly image, with ARG... as for run",
                ),
                Flag::switch("tty", "Allocate a pseudo-TTY").short('t'),
                Flag::value("user", "string", "Username or UID (format: \"<name|uid>[:<group|gid>]\")").short('u'),
                Flag::value("workdir", "string", "Working directory inside the container").short('w'),
            ],
        }],
        run: exec,
    },
    Verb {
        names: &["create", "container create"],
        about: "Create a new container",
        usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
        listed: Listed::Other,
        operands: Operands::AtLeast(1),
        trailing: true,
        sections: &SHARED,
        run: create,
    },
    Verb {
        names: &["start", "container start"],
        about: "Start one or more stopped containers",
        usage: "[OPTIONS] CONTAINER [CONTAINER...]",
        listed: Listed::Other,
        operands: Operands::AtLeast(1),
        trailing: false,
        sections: &[Section {
            title: "Options",
            flags: &[
                Flag::switch("attach", "Attach STDOUT/STDERR and forward signals").short('a'),
                Flag::value("checkpoint", "string", "Restore from this checkpoint").not_yet(),
                Flag::value("checkpoint-dir", "string", "Use a custom checkpoint storage directory").not_yet(),
                DETACH_KEYS,
                Flag::switch("interactive", "Attach container's STDIN").short('i'),
            ],
        }],
        run: start,
    },
    Verb {
        names: &["attach", "container attach"],
        about: "Attach local standard input, output, and error streams to a running container",
        usage: "[OPTIONS] CONTAINER",
        listed: Listed::Other,
        operands: Operands::Exactly(1),
        trailing: false,
        sections: &[Section {
            title: "Options",
            flags: &[
                DETACH_KEYS,
                Flag::switch("no-stdin", "Do not attach STDIN"),
                Flag::switch("sig-proxy", "Proxy all received signals to the process").or("true"),
            ],
        }],
        run: attach,
    },
];

fn run(parsed: &Parsed, context: &Context) -> Result<()> {
    let config = config(parsed)?;
    let pull = pull_policy(parsed)?;
    let attachment = match parsed.switch("detach") {
        true => None,
        false => {
            let attachment = Attachment::new(parsed, config.interactive, config.tty)?;
            Some(attachment.streams(config.attach).signals(parsed.switch("sig-proxy")))
        }
    };
    let cidfile = cidfile(parsed)?;
    let reporter = progress::reporter(parsed.switch("quiet"));
    let request = attachment.as_ref().map(Attachment::request);
    let started = match context.engine()?.run(&config, pull, request, &*reporter) {
        Ok(started) => started,
        Err(e) => {
            cidfile.map_or(Ok(()), CidFile::discard)?;
            return Err(e.into());
        }
    };
    drop(reporter);
    warn(&started.warnings);
    cidfile.map_or(Ok(()), |file| file.write(&started.id))?;
    match (attachment, started.session) {
        (Some(attachment), Some(session)) => attachment.relay(session),
        _ => Ok(writeln!(std::io::stdout(), "{}", started.id)?),
    }
}

fn create(parsed: &Parsed, context: &Context) -> Result<()> {
    // Docker tells what is wrong on the line as `run` does, and what the engine says as all others do.
    let wrong =
        |failure: Failure| Failure::Usage { text: failure.text(&parsed.spelling, true), code: failure.code(true) };
    let config = config(parsed).map_err(|failure| if failure.is_engines() { failure } else { wrong(failure) })?;
    let pull = pull_policy(parsed).map_err(wrong)?;
    let cidfile = cidfile(parsed)?;
    let reporter = progress::reporter(parsed.switch("quiet"));
    let created = match context.engine()?.create(&config, pull, &*reporter) {
        Ok(created) => created,
        Err(e) => {
            cidfile.map_or(Ok(()), CidFile::discard)?;
            return Err(e.into());
        }
    };
    drop(reporter);
    warn(&created.warnings);
    cidfile.map_or(Ok(()), |file| file.write(&created.id))?;
    Ok(writeln!(std::io::stdout(), "{}", created.id)?)
}

fn start(parsed: &Parsed, context: &Context) -> Result<()> {
    let engine = context.engine()?;
    if !parsed.switch("attach") && !parsed.switch("interactive") {
        let mut failed = Vec::new();
        let outcome = for_each(parsed.operands(), |name| {
            engine.start(name, None).inspect_err(|_| failed.push(name.to_owned()))?;
            Ok(writeln!(std::io::stdout(), "{name}")?)
        });
        if !failed.is_empty() {
            tell(&format!("Error: failed to start containers: {}\n", failed.join(", ")));
        }
        return outcome;
    }
    let [name] = parsed.operands() else {
        return Err(Failure::new("you cannot start and attach multiple containers at once"));
    };
    let container = engine.container(name)?;
    let stdin = parsed.switch("interactive") && container.config.interactive;
    let attachment = Attachment::new(parsed, stdin, container.config.tty)?.signals(true);
    match engine.start(name, Some(attachment.request()))?.session {
        Some(session) => attachment.relay(session),
        // It was running already.
        None => attachment.clone().relay(engine.attach(name, attachment.request())?),
    }
}

fn attach(parsed: &Parsed, context: &Context) -> Result<()> {
    let engine = context.engine()?;
    let name = &parsed.operands()[0];
    let container = engine.container(name)?;
    let refused = match container.state.state {
        State::Running | State::Starting => None,
        State::Paused => Some("paused container, unpause it first"),
        State::Restarting => Some("restarting container, wait until it is running"),
        State::Created | State::Exited | State::Removing | State::Dead => Some("stopped container, start it first"),
    };
    if let Some(refused) = refused {
        return Err(Failure::new(format!("You cannot attach to a {refused}")));
    }
    let stdin = container.config.interactive && !parsed.switch("no-stdin");
    let attachment = Attachment::new(parsed, stdin, container.config.tty)?;
    let attachment = attachment.signals(parsed.switch("sig-proxy")).told();
    let session = engine.attach(name, attachment.request())?;
    attachment.relay(session)
}

fn exec(parsed: &Parsed, context: &Context) -> Result<()> {
    let tool_image = parsed.value("tool-image").filter(|image| !image.is_empty());
    parsed.expect(Operands::AtLeast(if tool_image.is_none() { 2 } else { 1 }))?;
    let (name, args) = match parsed.operands() {
        [name, args @ ..] => (name, args.to_vec()),
        [] => return Err(Failure::new("no container was named")),
    };
    let tty = parsed.switch("tty");
    let spec = ExecSpec {
        args,
        env: env(parsed)?,
        user: parsed.value("user").map(str::to_owned),
        cwd: parsed.value("workdir").map(str::to_owned),
        privileged: parsed.switch("privileged"),
        tool_image: tool_image.map(str::to_owned),
        program: None,
    };
    let attachment = match parsed.switch("detach") {
        true => None,
        false => Some(Attachment::new(parsed, parsed.switch("interactive"), tty)?.told()),
    };
    let request = attachment.as_ref().map(Attachment::request);
    let engine = context.engine()?;
    if let Some(image) = tool_image {
        // Brought here, where somebody sees how that goes.
        engine.ensure_image(image, None, PullPolicy::Missing, &*progress::reporter(false))?;
    }
    let started = engine.exec(name, &spec, tty, request)?;
    warn(&started.warnings);
    match (attachment, started.session) {
        (Some(attachment), Some(session)) => attachment.relay(session),
        _ => session::exit(0),
    }
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        tell(&format!("WARNING: {warning}\n"));
    }
}

/// The file of `--cidfile`, made before the container is, so that no other container's file is overwritten.
struct CidFile {
    path: String,
    file: File,
}

fn cidfile(parsed: &Parsed) -> Result<Option<CidFile>> {
    let Some(path) = parsed.value("cidfile").filter(|path| !path.is_empty()) else { return Ok(None) };
    match File::create_new(path) {
        Ok(file) => Ok(Some(CidFile { path: path.to_owned(), file })),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Err(Failure::new(format!(
            "container ID file found, make sure the other container isn't running or delete {path}"
        ))),
        Err(e) => Err(Failure::io("failed to create the container ID file: open", path, &e)),
    }
}

impl CidFile {
    fn write(mut self, id: &str) -> Result<()> {
        self.file.write_all(id.as_bytes()).map_err(|e| Failure::io("write", &self.path, &e))
    }

    fn discard(self) -> Result<()> {
        drop(self.file);
        std::fs::remove_file(&self.path).map_err(|e| Failure::io("remove", &self.path, &e))
    }
}
