//! `stats`: what containers use, once or again and again.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use wharf_runtime::container::Container;
use wharf_runtime::engine::{Engine, ListOptions};
use wharf_runtime::task::Usage;

use super::context::Context;
use super::failure::{Failure, Result};
use super::listing::{Column, Listing};
use super::parse::Parsed;
use super::verb::{FORMAT, Flag, Listed, Operands, Section, Verb};
use super::{system, units};

/// The command of this file.
pub static VERBS: &[Verb] = &[Verb {
    names: &["stats", "container stats"],
    about: "Display a live stream of container(s) resource usage statistics",
    usage: "[OPTIONS] [CONTAINER...]",
    listed: Listed::Other,
    operands: Operands::AtLeast(0),
    trailing: false,
    sections: &[Section {
        title: "Options",
        flags: &[
            Flag::switch("all", "Show all containers (default shows just running)").short('a'),
            FORMAT,
            Flag::switch("no-stream", "Disable streaming stats and only pull the first result"),
            Flag::switch("no-trunc", "Do not truncate output"),
        ],
    }],
    run: stats,
}];

/// CPU time is a difference: so long after the first look follows the second. The kernel counts at each tick of its clock,
/// and between them when a process is given a processor or leaves it.
const MOMENT: Duration = Duration::from_millis(20);
/// But who has a quota may use it up at the beginning of each period and then rest: some of the usual periods.
const PERIODS: Duration = Duration::from_millis(300);
/// Between two tables of a stream.
const INTERVAL: Duration = Duration::from_secs(1);

/// To the first row and column; what is left of a line; what is left of the screen (ECMA-48: CUP, EL, ED).
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";
const CLEAR: &str = "\x1b[2J";

/// A line of the table.
struct Row {
    container: Container,
    /// As the person named it.
    named: String,
    no_trunc: bool,
    usage: Usage,
    /// Hundredths of one CPU.
    cpu: f64,
}

static LISTING: Listing<Row> = Listing {
    columns: &[
        Column { field: "ID", header: "CONTAINER ID", text: Row::id },
        Column { field: "Container", header: "CONTAINER", text: |row| row.named.clone() },
        Column { field: "Name", header: "NAME", text: |row| row.container.name.clone() },
        Column { field: "CPUPerc", header: "CPU %", text: |row| format!("{:.2}%", row.cpu) },
        Column { field: "MemUsage", header: "MEM USAGE / LIMIT", text: Row::memory },
        Column { field: "MemPerc", header: "MEM %", text: Row::memory_share },
        Column { field: "NetIO", header: "NET I/O", text: Row::network },
        Column { field: "BlockIO", header: "BLOCK I/O", text: |row| pair(row.usage.block_io) },
        Column { field: "PIDs", header: "PIDS", text: |row| row.usage.pids.to_string() },
    ],
    kind: "*container.statsContext",
    labels: |row| Some(&row.container.config.labels),
};

const SHOWN: [&str; 8] = ["ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"];

impl Row {
    fn id(&self) -> String {
        if self.no_trunc { self.container.id.clone() } else { self.container.short_id().to_owned() }
    }

    fn has_quota(&self) -> bool {
        let limits = &self.container.config.limits;
        limits.nano_cpus.is_some() || limits.cpu_quota.is_some()
    }

    /// The limit that holds: its own, or the machine's memory. Nothing of what does not run.
    fn limit(&self) -> u64 {
        if self.usage.at_ns == 0 {
            return 0;
        }
        self.usage.memory_limit.unwrap_or_else(system::memory)
    }

    fn memory(&self) -> String {
        format!("{} / {}", units::binary_size(self.usage.memory), units::binary_size(self.limit()))
    }

    // Losing the last of more than 53 bits does not show in two decimals.
    #[allow(clippy::cast_precision_loss)]
    fn memory_share(&self) -> String {
        let limit = self.limit();
        let share = if limit == 0 { 0.0 } else { self.usage.memory as f64 / limit as f64 * 100.0 };
        format!("{share:.2}%")
    }

    fn network(&self) -> String {
        pair(self.usage.network.values().fold((0, 0), |sum, n| (sum.0 + n.0, sum.1 + n.1)))
    }
}

fn pair((one, other): (u64, u64)) -> String {
    format!("{} / {}", units::size(one), units::size(other))
}

/// Hundredths of one CPU between two looks.
#[allow(clippy::cast_precision_loss)]
fn cpu(before: &Usage, now: &Usage) -> f64 {
    let time = now.at_ns.saturating_sub(before.at_ns);
    let used = now.cpu_ns.saturating_sub(before.cpu_ns);
    if time == 0 || before.at_ns == 0 { 0.0 } else { used as f64 / time as f64 * 100.0 }
}

fn stats(parsed: &Parsed, context: &Context) -> Result<()> {
    let engine = context.engine()?;
    let stream = !parsed.switch("no-stream");
    let redraw = stream && io::stdout().is_terminal();
    let mut before = BTreeMap::new();
    let first = look(parsed, &engine, &mut before)?;
    let mut pause = if stream || first.iter().any(Row::has_quota) { PERIODS } else { MOMENT };
    let mut out = io::stdout();
    if redraw {
        out.write_all(CLEAR.as_bytes())?;
    }
    loop {
        std::thread::sleep(pause);
        pause = INTERVAL;
        let rows = look(parsed, &engine, &mut before)?;
        let text = LISTING.text(&rows, &SHOWN, parsed.value("format"), false)?;
        out.write_all(if redraw { over(&text) } else { text }.as_bytes())?;
        out.flush()?;
        if !stream {
            return Ok(());
        }
    }
}

/// The text in place of what stood on the screen before.
fn over(text: &str) -> String {
    let lines = text.lines().map(|line| format!("{line}{CLEAR_LINE}\n")).collect::<String>();
    format!("{HOME}{lines}{CLEAR_BELOW}")
}

/// One look at all that is to be shown. `before` has the last look, by id.
fn look(parsed: &Parsed, engine: &Engine, before: &mut BTreeMap<String, Usage>) -> Result<Vec<Row>> {
    let named = parsed.operands();
    let containers = if named.is_empty() {
        engine.list(ListOptions { all: parsed.switch("all") })?
    } else {
        named.iter().map(|name| Ok(engine.container(name)?)).collect::<Result<Vec<_>>>()?
    };
    let usages = engine.usages(&containers).map_err(Failure::from)?;
    let last = std::mem::take(before);
    let mut rows = Vec::with_capacity(containers.len());
    for (n, (container, usage)) in containers.into_iter().zip(usages).enumerate() {
        let usage = usage.unwrap_or_default();
        let cpu = last.get(&container.id).map_or(0.0, |last| cpu(last, &usage));
        before.insert(container.id.clone(), usage.clone());
        let named = named.get(n).map_or_else(|| container.short_id().to_owned(), Clone::clone);
        rows.push(Row { container, named, no_trunc: parsed.switch("no-trunc"), usage, cpu });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_the_share_of_the_time_between_two_looks() {
        let at = |at_ns, cpu_ns| Usage { at_ns, cpu_ns, ..Usage::default() };
        assert_eq!(cpu(&at(1_000, 0), &at(2_000, 500)), 50.0);
        assert_eq!(cpu(&at(1_000, 0), &at(2_000, 2_000)), 200.0);
        // It has just started, or has ended, or was started anew.
        assert_eq!(cpu(&at(0, 0), &at(2_000, 500)), 0.0);
        assert_eq!(cpu(&at(1_000, 500), &at(0, 0)), 0.0);
        assert_eq!(cpu(&at(1_000, 500), &at(2_000, 0)), 0.0);
    }

    #[test]
    fn a_new_table_covers_the_old_one() {
        assert_eq!(over("A\nb\n"), "\x1b[HA\x1b[K\nb\x1b[K\n\x1b[J");
    }
}
