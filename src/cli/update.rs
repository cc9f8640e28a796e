//! `update`: other limits and another restart policy, for containers that are there already.

use std::io::Write as _;

use wharf_runtime::engine::Change;
use wharf_runtime::task::Limits;

use super::container_config::limits;
use super::context::Context;
use super::failure::{Failure, Result};
use super::lifecycle::for_each;
use super::parse::Parsed;
use super::values;
use super::verb::{Flag, Listed, Operands, Section, Verb};

/// The command of this file.
pub static VERBS: &[Verb] = &[Verb {
    names: &["update", "container update"],
    about: "Update configuration of one or more containers",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    listed: Listed::Other,
    operands: Operands::AtLeast(1),
    trailing: false,
    sections: &[Section {
        title: "Options",
        flags: &[
            Flag::value("blkio-weight", "uint16", "Block IO (relative weight), between 10 and 1000, or 0 to disable"),
            Flag::value("cpu-period", "int", "Limit CPU CFS (Completely Fair Scheduler) period"),
            Flag::value("cpu-quota", "int", "Limit CPU CFS (Completely Fair Scheduler) quota"),
            Flag::value("cpu-rt-period", "int", "Limit the CPU real-time period in microseconds").not_yet(),
            Flag::value("cpu-rt-runtime", "int", "Limit the CPU real-time runtime in microseconds").not_yet(),
            Flag::value("cpu-shares", "int", "CPU shares (relative weight)").short('c'),
            Flag::value("cpus", "decimal", "Number of CPUs"),
            Flag::value("cpuset-cpus", "string", "CPUs in which to allow execution (0-3, 0,1)"),
            Flag::value("cpuset-mems", "string", "MEMs in which to allow execution (0-3, 0,1)"),
            Flag::value("memory", "bytes", "Memory limit").short('m'),
            Flag::value("memory-reservation", "bytes", "Memory soft limit"),
            Flag::value("memory-swap", "bytes", "Swap limit equal to memory plus swap: -1 to enable unlimited swap")
                .checked(|text| values::swap(text).map(drop)),
            Flag::value("pids-limit", "int", "Tune container pids limit (set -1 for unlimited)"),
            Flag::value("restart", "string", "Restart policy to apply when a container exits"),
        ],
    }],
    run: update,
}];

fn update(parsed: &Parsed, context: &Context) -> Result<()> {
    let restart = parsed.value("restart").map(str::parse).transpose()?;
    // Unlike at `create`, no limit is not the same as nothing said.
    let pids = parsed.read("pids-limit", values::integer::<i64>)?.map(|n| if n > 0 { n } else { -1 });
    let limits = Limits { pids, ..limits(parsed)? };
    if restart.is_none() && limits == Limits::default() {
        return Err(Failure::new("you must provide one or more flags when using this command"));
    }
    let change = Change { limits, restart };
    let engine = context.engine()?;
    for_each(parsed.operands(), |name| {
        engine.update(name, &change)?;
        Ok(writeln!(std::io::stdout(), "{name}")?)
    })
}
