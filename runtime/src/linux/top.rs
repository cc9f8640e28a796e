//! The processes of a container as ps(1) shows them, by docker's rules: the person's options go to the host's ps, and of
//! what it says the lines with the container's processes are kept. Where there is no ps, the columns of `ps -ef` are read
//! from proc_pid_stat(5) by ourselves.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::container::{BackendKind, Container};
use crate::error::{Class, Error, Result};
use crate::look::Processes;

/// What docker asks ps for when the person does not say.
const DEFAULT: &str = "-ef";

/// The columns of `ps -ef`.
const FULL: [&str; 8] = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];

/// The processes `pids` of a container, some of which are `execs`, with these command lines.
///
/// # Errors
/// What ps says of its options; `Unsupported` for options where there is no ps.
pub(crate) fn processes(
    container: &Container,
    pids: &[u32],
    execs: &BTreeMap<u32, String>,
    options: &[String],
) -> Result<Processes> {
    if container.backend() == BackendKind::Wasm && options.is_empty() {
        return Ok(guests(container, pids, execs));
    }
    let default = [DEFAULT.to_owned()];
    let options = if options.is_empty() { &default[..] } else { options };
    match ask_ps(pids, options)? {
        Some(text) => select(&text, pids),
        None if options == default => Ok(Processes { titles: FULL.map(str::to_owned).into(), rows: full(pids) }),
        None => Err(Error::new(Class::Unsupported, "ps(1) is not installed: its options cannot be used")
            .with_hint("without options `top` works all the same")),
    }
}

/// What ps says; `None` where there is none.
fn ask_ps(pids: &[u32], options: &[String]) -> Result<Option<String>> {
    let failed = |e| Error::os("run ps", e);
    let run = |extra: Option<String>| Command::new("ps").args(options).args(extra).env("LC_ALL", "C").output();
    let list: Vec<String> = pids.iter().map(u32::to_string).collect();
    let output = match run(Some(format!("-q{}", list.join(",")))) {
        Ok(output) => output,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    // Some options do not go with -q; then all processes are listed and ours are picked out.
    let output = if output.status.success() { output } else { run(None).map_err(failed)? };
    if output.status.success() {
        return Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let why = said.lines().next().filter(|line| !line.is_empty()).unwrap_or("ps failed");
    Err(Error::new(Class::InvalidInput, format!("ps: {}", why.trim_start_matches("ps: "))))
}

/// The container's lines of what ps said. A line whose pid is `-` is a thread of the process before it.
fn select(text: &str, pids: &[u32]) -> Result<Processes> {
    let mut lines = text.lines();
    let titles: Vec<String> = lines.next().unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect();
    let Some(at) = titles.iter().position(|title| title == "PID") else {
        return Err(Error::new(Class::InvalidInput, "Couldn't find PID field in ps output"));
    };
    let mut rows = Vec::new();
    let mut ours = false;
    for line in lines {
        let cells = cells(line, titles.len());
        match cells.get(at).map(String::as_str) {
            Some("-") => {}
            Some(pid) => {
                let pid: u32 = pid
                    .parse()
                    .map_err(|_| Error::new(Class::InvalidInput, format!("Unexpected pid '{pid}' in ps output")))?;
                ours = pids.contains(&pid);
            }
            None => continue,
        }
        if ours {
            rows.push(cells);
        }
    }
    Ok(Processes { titles, rows })
}

/// The words of a line; the last column takes all that is left.
fn cells(line: &str, columns: usize) -> Vec<String> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let split = words.len().min(columns.saturating_sub(1));
    let mut cells: Vec<String> = words[..split].iter().map(|&word| word.to_owned()).collect();
    if split < words.len() {
        cells.push(words[split..].join(" "));
    }
    cells
}

/// What is known of a process.
struct Process {
    user: String,
    parent: u32,
    /// The terminal's device number.
    terminal: u64,
    /// CPU time in ticks.
    ticks: u64,
    /// Ticks from the machine's start to its own.
    start: u64,
    name: String,
    arguments: Vec<String>,
}

impl Process {
    /// Reads it; `None` when it has ended.
    fn read(pid: u32) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything; what follows the last one is numbers.
        let (name, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        // Numbered as in proc_pid_stat(5), where the state is the third.
        let field = |n: usize| fields.get(n - 3)?.parse::<u64>().ok();
        let uid = fs::metadata(format!("/proc/{pid}")).ok()?.uid();
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let arguments = arguments.split(|b| *b == 0).map(|word| String::from_utf8_lossy(word).into_owned());
        let mut arguments: Vec<String> = arguments.collect();
        arguments.truncate(arguments.len().saturating_sub(1));
        Some(Process {
            user: user(uid),
            parent: u32::try_from(field(4)?).ok()?,
            terminal: field(7)?,
            ticks: field(14)? + field(15)?,
            start: field(22)?,
            name: name.split_once('(')?.1.to_owned(),
            arguments,
        })
    }

    /// A row of [`FULL`] without its last cell.
    fn cells(&self, pid: u32, clock: &Clock) -> Vec<String> {
        let seconds = self.ticks / clock.ticks;
        let time = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        let lived = clock.up.saturating_sub(self.start / clock.ticks).max(1);
        vec![
            self.user.clone(),
            pid.to_string(),
            self.parent.to_string(),
            (seconds * 100 / lived).min(99).to_string(),
            clock.started(self.start),
            terminal(self.terminal),
            time,
        ]
    }

    fn command(&self) -> String {
        if self.arguments.is_empty() { format!("[{}]", self.name) } else { self.arguments.join(" ") }
    }
}

/// What turns ticks into times.
struct Clock {
    ticks: u64,
    /// Seconds since the machine's start.
    up: u64,
    now: Timestamp,
}

impl Clock {
    fn read() -> Clock {
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let up = uptime.split('.').next().and_then(|text| text.parse().ok()).unwrap_or(0);
        Clock { ticks: rustix::param::clock_ticks_per_second(), up, now: Timestamp::now() }
    }

    /// `STIME`: the hour within the first day, then the day.
    fn started(&self, start: u64) -> String {
        let ago = self.up.saturating_sub(start / self.ticks);
        let then = Timestamp::from_second(self.now.as_second() - ago as i64).unwrap_or(self.now);
        let then = then.to_zoned(TimeZone::try_system().unwrap_or(TimeZone::UTC));
        then.strftime(if ago < 24 * 3600 { "%H:%M" } else { "%b%d" }).to_string()
    }
}

/// The user's name in the host's passwd(5), else the number.
fn user(uid: u32) -> String {
    let own = uid.to_string();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == own).then(|| name.to_owned())
    });
    name.unwrap_or(own)
}

/// tty(4): pseudo-terminals have the majors 136 to 143.
fn terminal(device: u64) -> String {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    match major {
        0 => "?".to_owned(),
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 => format!("tty{minor}"),
        _ => format!("{major}:{minor}"),
    }
}

fn full(pids: &[u32]) -> Vec<Vec<String>> {
    let clock = Clock::read();
    let row = |pid: &u32| {
        let process = Process::read(*pid)?;
        let mut cells = process.cells(*pid, &clock);
        cells.push(process.command());
        Some(cells)
    };
    pids.iter().filter_map(row).collect()
}

/// Each guest is one process, which hosts it: it is shown with the guest's own arguments, and with its memory.
fn guests(container: &Container, pids: &[u32], execs: &BTreeMap<u32, String>) -> Processes {
    let clock = Clock::read();
    let row = |pid: &u32| {
        let mut cells = Process::read(*pid)?.cells(*pid, &clock);
        let resident = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
        let pages: u64 = resident.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
        cells.push(((pages * rustix::param::page_size() as u64) >> 10).to_string());
        cells.push(execs.get(pid).cloned().unwrap_or_else(|| container.args.join(" ")));
        Some(cells)
    };
    let mut titles = FULL.map(str::to_owned).to_vec();
    titles.insert(FULL.len() - 1, "RSS".to_owned());
    Processes { titles, rows: pids.iter().filter_map(row).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_chosen_as_docker_chooses() {
        let text = "UID PID CMD\nroot 1 init\nroot 22 sh -c  x\nroot - thread\nroot 3 other\nroot - its\n\n";
        let found = select(text, &[22]).unwrap();
        assert_eq!(found.titles, ["UID", "PID", "CMD"]);
        assert_eq!(found.rows, [["root", "22", "sh -c x"], ["root", "-", "thread"]]);
        assert_eq!(select("CMD\nsh\n", &[1]).unwrap_err().to_string(), "Couldn't find PID field in ps output");
        assert!(select("PID\nx\n", &[1]).is_err());
    }

    #[test]
    fn we_read_what_ps_reads() {
        let own = std::process::id();
        let rows = full(&[own, u32::MAX]);
        assert_eq!(rows.len(), 1, "what has ended is left out");
        assert_eq!(rows[0].len(), FULL.len());
        assert_eq!(rows[0][1], own.to_string());
        assert_eq!(rows[0][2], std::os::unix::process::parent_id().to_string());
        assert!(rows[0][7].contains("wharf_runtime"), "{:?}", rows[0]);
        assert_eq!(terminal(rustix::fs::makedev(136, 3)), "pts/3");
        assert_eq!(terminal(rustix::fs::makedev(137, 3)), "pts/259");
        assert_eq!(terminal(0), "?");
    }
}
