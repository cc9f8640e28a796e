//! What a group uses, in docker's sense of the numbers.

use std::fs;
use std::os::fd::BorrowedFd;

use rustix::process::Pid;

use super::layout::Controller;
use super::{Cgroup, Place, file};
use crate::linux::system::process_cpu_ns;
use crate::task::Usage;

/// v1 writes "no limit" as a number near 2^63.
const UNLIMITED: u64 = 1 << 62;

/// The usage of `group`.
pub fn read(group: &Cgroup) -> Usage {
    loop {
        let at_ns = tick();
        let usage = Usage { at_ns, ..now_used(group) };
        if tick() == at_ns {
            return usage;
        }
    }
}

/// When the kernel's clock ticked last, which is when it last counted the time of those who compute all the while: to
/// relate that to a finer clock would make more or less of it.
fn tick() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn now_used(group: &Cgroup) -> Usage {
    match &group.place {
        Place::Unified(_) => Usage {
            cpu_ns: cpu(group),
            memory: group.with(Controller::Memory, |dir| memory(dir, "memory.current", "inactive_file")).unwrap_or(0),
            memory_limit: group.with(Controller::Memory, |dir| file::number(dir, "memory.max")),
            pids: group
                .with(Controller::Pids, |dir| file::number(dir, "pids.current"))
                .unwrap_or_else(|| threads(group)),
            block_io: group.with(Controller::Blkio, io_stat).unwrap_or((0, 0)),
            ..Usage::default()
        },
        Place::Separate { .. } | Place::None(_) => separate(group),
    }
}

/// v1: from the hierarchies that were made, the rest summed over the processes.
fn separate(group: &Cgroup) -> Usage {
    let pids = group.pids();
    let memory = |dir: BorrowedFd<'_>| memory(dir, "memory.usage_in_bytes", "total_inactive_file");
    let limit = |dir: BorrowedFd<'_>| file::number(dir, "memory.limit_in_bytes").filter(|&bytes| bytes < UNLIMITED);
    Usage {
        cpu_ns: if group.v2_dir().is_some() { cpu(group) } else { pids.iter().map(|pid| process_cpu(*pid)).sum() },
        memory: group.with(Controller::Memory, memory).unwrap_or_else(|| pids.iter().map(|pid| resident(*pid)).sum()),
        memory_limit: group.with(Controller::Memory, limit),
        pids: group.with(Controller::Pids, |dir| file::number(dir, "pids.current")).unwrap_or_else(|| threads(group)),
        block_io: pids.iter().map(|pid| process_io(*pid)).fold((0, 0), |sum, io| (sum.0 + io.0, sum.1 + io.1)),
        ..Usage::default()
    }
}

/// v2 counts CPU time whether or not the controller is there.
fn cpu(group: &Cgroup) -> u64 {
    group.v2_dir().and_then(|dir| file::field(dir, "cpu.stat", "usage_usec")).unwrap_or(0) * 1000
}

/// Without the page cache that the kernel would give back first, as `docker stats` shows it.
fn memory(dir: BorrowedFd<'_>, file: &str, cache: &str) -> Option<u64> {
    let used = file::number(dir, file)?;
    Some(used.saturating_sub(file::field(dir, "memory.stat", cache).unwrap_or(0)))
}

/// Threads, as `docker stats` counts PIDS.
fn threads(group: &Cgroup) -> u64 {
    let count = |pid: &Pid| {
        let dir = format!("/proc/{}/task", pid.as_raw_nonzero());
        fs::metadata(dir).map_or(0, |meta| std::os::unix::fs::MetadataExt::nlink(&meta).saturating_sub(2))
    };
    group.pids().iter().map(count).sum()
}

fn io_stat(dir: BorrowedFd<'_>) -> Option<(u64, u64)> {
    let text = file::read(dir, "io.stat").ok()?;
    let sum = |key: &str| text.split_whitespace().filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok()).sum();
    Some((sum("rbytes="), sum("wbytes=")))
}

fn proc_file(pid: Pid, name: &str) -> String {
    fs::read_to_string(format!("/proc/{}/{name}", pid.as_raw_nonzero())).unwrap_or_default()
}

/// Bytes of memory that are its own: resident and not shared (`proc_pid_statm(5)`).
fn resident(pid: Pid) -> u64 {
    let text = proc_file(pid, "statm");
    let mut pages = text.split(' ').skip(1).map(|field| field.parse::<u64>().unwrap_or(0));
    let (resident, shared) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0));
    resident.saturating_sub(shared) * rustix::param::page_size() as u64
}

/// CPU time of a process and of its children that it waited for (`proc_pid_stat(5)`, fields 16 and 17).
fn process_cpu(pid: Pid) -> u64 {
    let text = proc_file(pid, "stat");
    // The name in parentheses may hold spaces and parentheses; what follows the last one has none.
    let Some((_, fields)) = text.rsplit_once(')') else { return 0 };
    let ticks: u64 = fields.split_whitespace().skip(13).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    let children = ticks * (1_000_000_000 / rustix::param::clock_ticks_per_second());
    process_cpu_ns(pid.as_raw_pid()).unwrap_or(0) + children
}

/// Bytes that a process and its waited-for children had read from and written to devices (`proc_pid_io(5)`).
fn process_io(pid: Pid) -> (u64, u64) {
    let text = proc_file(pid, "io");
    let of = |key| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok()).unwrap_or(0);
    (of("read_bytes:"), of("write_bytes:"))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;

    #[test]
    fn cpu_time_is_counted_finer_than_by_ticks() {
        let shell = Command::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn();
        let mut shell = shell.unwrap();
        let pid = Pid::from_child(&shell);
        let before = process_cpu(pid);
        std::thread::sleep(Duration::from_millis(50));
        let used = process_cpu(pid) - before;
        shell.kill().and_then(|()| shell.wait()).unwrap();
        assert!(used > 0);
        assert_ne!(used % 1_000_000, 0, "{used} ns are ticks of what proc_pid_stat(5) counts by");
    }
}
