//! `wharf wasm`: for people who have a module and no image yet.

use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::path::Path;

use wharf_images::image::RunConfig;
use wharf_images::{Class, Reference};
use wharf_runtime::backend::wasm::Packed;
use wharf_runtime::backend::wasm::capabilities::View;
use wharf_runtime::engine::PullPolicy;
use wharf_runtime::task::Limits;
use wharf_runtime::{ContainerConfig, Error};

use super::container_flags::SHARED;
use super::context::Context;
use super::failure::{Failure, Result, tell};
use super::parse::Parsed;
use super::session::Attachment;
use super::template::{Format, from_json};
use super::verb::{FORMAT_OBJECT, Flag, Listed, Operands, Section, Verb};
use super::{capabilities, container_config, mounts, progress, units, values};

/// The commands of this file.
pub static VERBS: &[Verb] = &[
    Verb {
        names: &["wasm pack"],
        about: "Make an image of a WebAssembly file",
        usage: "[OPTIONS] FILE",
        listed: Listed::Other,
        operands: Operands::Exactly(1),
        trailing: false,
        sections: &[Section {
            title: "Options",
            flags: &[Flag::value("tag", "string", "Name of the image (format: \"name:tag\")").short('t')],
        }],
        run: pack,
    },
    Verb {
        names: &["wasm extract"],
        about: "Write the WebAssembly file that an image was made of",
        usage: "[OPTIONS] IMAGE",
        listed: Listed::Other,
        operands: Operands::Exactly(1),
        trailing: false,
        sections: &[Section {
            title: "Options",
            flags: &[Flag::value("output", "string", "Write to a file, instead of STDOUT").short('o')],
        }],
        run: extract,
    },
    Verb {
        names: &["wasm inspect"],
        about: "Show what a WebAssembly program imports and exports, and what flags of `run` would grant it",
        usage: "[OPTIONS] IMAGE|FILE",
        listed: Listed::Other,
        operands: Operands::Exactly(1),
        trailing: false,
        sections: &{
            let [general, limits, filesystem, network, security] = SHARED;
            let own = Section { title: "Output", flags: &[FORMAT_OBJECT] };
            [own, general, limits, filesystem, network, security]
        },
        run: inspect,
    },
    Verb {
        names: &["wasm run"],
        about: "Run a WebAssembly file in a container of its own, which is removed when it ends",
        usage: "[OPTIONS] FILE [ARG...]",
        listed: Listed::Other,
        operands: Operands::AtLeast(1),
        trailing: true,
        sections: &[Section {
            title: "Options",
            flags: &[
                Flag::list("env", "Set environment variables").short('e'),
                Flag::list("env-file", "Read in a file of environment variables"),
                Flag::value("memory", "bytes", "Memory limit").short('m'),
                Flag::switch("read-only", "Mount the root filesystem as read only"),
                Flag::list("storage-opt", "Limit what the root filesystem may hold (size=BYTES)"),
                Flag::value("timeout", "duration", "End the program after so long (as 500ms, 10s, 2m)"),
                Flag::switch("tty", "Allocate a pseudo-TTY").short('t'),
                Flag::list("volume", "Show a directory or file to the program (HOST:GUEST[:ro]; GUEST may be /)")
                    .short('v'),
                Flag::value("workdir", "string", "Working directory of the program").short('w'),
                Flag::value("detach-keys", "string", "Override the key sequence for detaching a container"),
            ],
        }],
        run,
    },
];

fn pack(parsed: &Parsed, context: &Context) -> Result<()> {
    let path = &parsed.operands()[0];
    let name = parsed.value("tag").map(str::parse::<Reference>).transpose().map_err(wharf_runtime::Error::from)?;
    let packed = made(context, path, name.as_ref()).map_err(|(failure, _)| failure)?;
    if let Some(e) = packed.cannot_run {
        tell(&format!("WARNING: {e}\n"));
        e.hint().inspect(|hint| tell(&format!("{hint}\n")));
    }
    Ok(writeln!(std::io::stdout(), "{}", packed.manifest)?)
}

fn extract(parsed: &Parsed, context: &Context) -> Result<()> {
    let output = parsed.value("output").filter(|path| *path != "-");
    if output.is_none() && std::io::stdout().is_terminal() {
        return Err(
            Failure::new("cowardly refusing to write WebAssembly to a terminal").hint("use the -o flag or redirect")
        );
    }
    let wasm = context.engine()?.extract(&parsed.operands()[0])?;
    match output {
        Some(path) => std::fs::write(path, wasm).map_err(|e| Failure::io("open", path, &e)),
        None => Ok(std::io::stdout().write_all(&wasm)?),
    }
}

fn inspect(parsed: &Parsed, context: &Context) -> Result<()> {
    let name = &parsed.operands()[0];
    let config = container_config::config(parsed)?;
    // A path is a file, as for `wasm run`; another word is one if there is such a file.
    let view = if Path::new(name).is_file() || name.ends_with(".wasm") {
        let wasm = std::fs::read(name).map_err(|e| Failure::io("open", name, &e))?;
        View::of(&wasm, None, &config, &RunConfig::default()).map_err(|e| about(name, e))?
    } else {
        context.engine()?.capabilities(&config)?
    };
    let text = match parsed.value("format").filter(|format| !format.is_empty()) {
        None => capabilities::text(&view),
        Some("json") => serde_json::to_string(&view).map_err(|e| Failure::new(e.to_string()))? + "\n",
        Some(template) => {
            let value = serde_json::to_value(&view).map_err(|e| Failure::new(e.to_string()))?;
            Format::parse(template)?.render(from_json(value))? + "\n"
        }
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn run(parsed: &Parsed, context: &Context) -> Result<()> {
    let (path, args) = match parsed.operands() {
        [path, args @ ..] => (path, args.to_vec()),
        [] => return Err(Failure::new("no file was named")),
    };
    let mut config = config(parsed, path, args)?;
    // An engine of its own, closed before the next one forks: a process with an open database must not.
    let packed = made(context, path, None).map_err(|(failure, code)| failure.of_program(code))?;
    config.image = packed.manifest.to_string();
    let attachment = Attachment::new(parsed, true, config.tty)?.signals(true);
    let reporter = progress::reporter(true);
    let started = context.engine()?.run(&config, PullPolicy::Never, Some(attachment.request()), &*reporter)?;
    for warning in &started.warnings {
        tell(&format!("WARNING: {warning}\n"));
    }
    match started.session {
        Some(session) => attachment.relay(session),
        None => Err(Failure::new("the container has no streams")),
    }
}

fn config(parsed: &Parsed, path: &str, cmd: Vec<String>) -> Result<ContainerConfig> {
    let timeout = parsed.read("timeout", units::parse_duration)?;
    // Without an image nothing is in its environment but what is said here, as with other runtimes: no HOSTNAME either.
    let mut env = vec!["HOSTNAME".to_owned()];
    env.extend(container_config::env(parsed)?);
    let (volume_flags, mounts) = container_config::volumes(parsed, mounts::volume_or_root)?;
    Ok(ContainerConfig {
        // The program's name: what a shell would have called it by.
        entrypoint: Some(vec![path.to_owned()]),
        cmd,
        env,
        working_dir: parsed.value("workdir").map(str::to_owned),
        interactive: true,
        tty: parsed.switch("tty"),
        auto_remove: true,
        read_only: parsed.switch("read-only"),
        storage_size: container_config::storage(parsed)?,
        mounts,
        volume_flags,
        limits: Limits { memory: parsed.read("memory", values::bytes)?.flatten(), ..Limits::default() },
        timeout_ms: timeout.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX)),
        ..ContainerConfig::default()
    })
}

/// The image of the file at `path`. A failure comes with the exit code that it is if the file was to be run: a file that is
/// not there or cannot be executed is a program's failure, as for an image.
fn made(context: &Context, path: &str, name: Option<&Reference>) -> Result<Packed, (Failure, u8)> {
    let wasm = std::fs::read(path).map_err(|e| {
        let code = if e.kind() == ErrorKind::NotFound { 127 } else { 126 };
        (Failure::io("open", path, &e), code)
    })?;
    let engine = context.engine().map_err(|e| (e, 125))?;
    engine.pack(&wasm, name).map_err(|e| {
        let code = if matches!(e.class(), Class::Corrupt | Class::Unsupported) { 126 } else { 125 };
        (about(path, e), code)
    })
}

/// The error, with the file that it is about.
fn about(path: &str, e: Error) -> Failure {
    let named = Error::new(e.class(), format!("{path}: {e}"));
    match e.hint() {
        Some(hint) => named.with_hint(hint).into(),
        None => named.into(),
    }
}
