//! Verbs that act on each container named: `stop`, `restart`, `kill`, `pause`, `unpause`, `wait`, `rm`, `rename`.

use std::io::Write as _;

use wharf_runtime::engine::{Engine, RemoveOptions};
use wharf_runtime::error::Class;

use super::context::Context;
use super::failure::{Failure, Result, tell};
use super::parse::Parsed;
use super::values;
use super::verb::{Flag, Listed, Operands, Section, Verb};

const SIGNAL: Flag = Flag::value("signal", "string", "Signal to send to the container").short('s');
const TIMEOUT: Flag =
    Flag::value("timeout", "int", "Seconds to wait before killing the container").short('t').alias("time");

const fn on_each(
    names: &'static [&'static str],
    about: &'static str,
    usage: &'static str,
    sections: &'static [Section],
    run: fn(&Parsed, &Context) -> Result<()>,
) -> Verb {
    Verb { names, about, usage, listed: Listed::Other, operands: Operands::AtLeast(1), trailing: false, sections, run }
}

/// The commands of this file.
pub static VERBS: &[Verb] = &[
    on_each(
        &["stop", "container stop"],
        "Stop one or more running containers",
        "[OPTIONS] CONTAINER [CONTAINER...]",
        &[Section { title: "Options", flags: &[SIGNAL, TIMEOUT] }],
        stop,
    ),
    on_each(
        &["restart", "container restart"],
        "Restart one or more containers",
        "[OPTIONS] CONTAINER [CONTAINER...]",
        &[Section { title: "Options", flags: &[SIGNAL, TIMEOUT] }],
        restart,
    ),
    on_each(
        &["kill", "container kill"],
        "Kill one or more running containers",
        "[OPTIONS] CONTAINER [CONTAINER...]",
        &[Section { title: "Options", flags: &[SIGNAL.or("KILL")] }],
        kill,
    ),
    on_each(
        &["pause", "container pause"],
        "Pause all processes within one or more containers",
        "CONTAINER [CONTAINER...]",
        &[],
        |parsed, context| on_named(parsed, context, |engine, name| Ok(engine.set_paused(name, true)?)),
    ),
    on_each(
        &["unpause", "container unpause"],
        "Unpause all processes within one or more containers",
        "CONTAINER [CONTAINER...]",
        &[],
        |parsed, context| on_named(parsed, context, |engine, name| Ok(engine.set_paused(name, false)?)),
    ),
    on_each(
        &["wait", "container wait"],
        "Block until one or more containers stop, then print their exit codes",
        "CONTAINER [CONTAINER...]",
        &[],
        wait,
    ),
    on_each(
        &["rm", "container rm", "container remove"],
        "Remove one or more containers",
        "[OPTIONS] CONTAINER [CONTAINER...]",
        &[Section {
            title: "Options",
            flags: &[
                Flag::switch("force", "Force the removal of a running container (uses SIGKILL)").short('f'),
                Flag::switch("link", "Remove the specified link").short('l'),
                Flag::switch("volumes", "Remove anonymous volumes associated with the container").short('v'),
            ],
        }],
        rm,
    ),
    Verb {
        names: &["rename", "container rename"],
        about: "Rename a container",
        usage: "CONTAINER NEW_NAME",
        listed: Listed::Other,
        operands: Operands::Exactly(2),
        trailing: false,
        sections: &[],
        run: |parsed, context| {
            let [name, new] = parsed.operands() else { return Err(Failure::new("two names are needed")) };
            if new.is_empty() {
                return Err(Failure::new("Error: Neither old nor new names may be empty"));
            }
            let failed = format!("Error: failed to rename container named {name}");
            context.engine()?.rename(name, new).map_err(|e| Failure::from(e).hint(failed))
        },
    },
];

/// Does one thing to each name. What fails is told at once and does not stop the rest; the exit code is then 1.
///
/// # Errors
/// [`Failure::Exit`] after failures, or the loss of stdout.
pub fn for_each(names: &[String], mut act: impl FnMut(&str) -> Result<()>) -> Result<()> {
    let mut outcome = Ok(());
    for name in names {
        match act(name) {
            Ok(()) => {}
            // Nobody reads on, or a single code is asked for: no use to go on.
            Err(end @ Failure::Exit(_)) => return Err(end),
            Err(failure) => {
                tell(&failure.text("", false));
                // One name alone keeps its own code (127 of a program not found).
                outcome = Err(Failure::Exit(if names.len() == 1 { failure.code(false) } else { 1 }));
            }
        }
    }
    outcome
}

/// The same, printing each name that it was done to.
fn on_named(parsed: &Parsed, context: &Context, act: impl Fn(&Engine, &str) -> Result<()>) -> Result<()> {
    let engine = context.engine()?;
    for_each(parsed.operands(), |name| {
        act(&engine, name)?;
        Ok(writeln!(std::io::stdout(), "{name}")?)
    })
}

fn stop(parsed: &Parsed, context: &Context) -> Result<()> {
    let timeout = parsed.read("timeout", values::integer)?;
    let engine = context.engine()?;
    let signal = parsed.value("signal");
    // Each may take all of its grace time: nobody wants to wait for one after the other.
    std::thread::scope(|scope| {
        let stops: Vec<_> = parsed
            .operands()
            .iter()
            .map(|name| {
                let engine = &engine;
                scope.spawn(move || engine.stop(name, signal, timeout))
            })
            .collect();
        let mut stops = stops.into_iter();
        for_each(parsed.operands(), |name| match stops.next().map(|stop| stop.join()) {
            Some(Ok(outcome)) => {
                outcome?;
                Ok(writeln!(std::io::stdout(), "{name}")?)
            }
            Some(Err(_)) | None => Err(Failure::new(format!("cannot stop {name}: its thread ended early"))),
        })
    })
}

fn restart(parsed: &Parsed, context: &Context) -> Result<()> {
    let timeout = parsed.read("timeout", values::integer)?;
    on_named(parsed, context, |engine, name| Ok(engine.restart(name, parsed.value("signal"), timeout)?))
}

fn kill(parsed: &Parsed, context: &Context) -> Result<()> {
    let signal = parsed.value("signal").filter(|signal| !signal.is_empty()).unwrap_or("KILL");
    on_named(parsed, context, |engine, name| Ok(engine.kill(name, signal)?))
}

fn wait(parsed: &Parsed, context: &Context) -> Result<()> {
    let engine = context.engine()?;
    for_each(parsed.operands(), |name| Ok(writeln!(std::io::stdout(), "{}", engine.wait(name)?)?))
}

fn rm(parsed: &Parsed, context: &Context) -> Result<()> {
    let engine = context.engine()?;
    let force = parsed.switch("force");
    if parsed.switch("link") {
        // There are no links to remove: a container's own name is the only one that can be meant.
        return for_each(parsed.operands(), |name| {
            engine.container(name)?;
            let text = "Conflict, cannot remove the default link name of the container";
            Err(wharf_runtime::Error::new(Class::Conflict, text).into())
        });
    }
    let options = RemoveOptions { force, volumes: parsed.switch("volumes") };
    for_each(parsed.operands(), |name| {
        if name.is_empty() {
            return Err(Failure::new("container name cannot be empty"));
        }
        match engine.remove(name, options) {
            Ok(()) => Ok(writeln!(std::io::stdout(), "{name}")?),
            // `rm -f` has reached its aim when there is nothing to remove: docker says so and goes on.
            Err(e) if force && e.class() == Class::NotFound => {
                tell(&format!("Error: {e}\n"));
                Ok(())
            }
            Err(e) => Err(e.into()),
        }
    })
}
