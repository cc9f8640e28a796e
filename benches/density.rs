//! What an idle container costs in memory: proportional set sizes (proc(5), `smaps_rollup`), so that shared pages count
//! once. Judged for one alone, which pays for every page of the program that it uses, and for each of twenty, who share
//! them; the peer is measured by the same measure.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, ExitCode, Stdio};
use std::time::Duration;

use support::fixtures::{Wharf, images};
use support::{Report, peers};

const MANY: usize = 20;

fn main() -> ExitCode {
    let mut report = Report::default();
    let wharf = Wharf::with_busybox();
    let tools = images::guest("tools-p1");
    wharf.ok(&["wasm", "pack", &tools, "-t", "tools"]);
    // Guests count in milliseconds.
    let sleep = ["sleep", "86400000"];
    let wasm = [&["run", "-d", "tools"][..], &sleep].concat();
    let linux = ["run", "-d", "--network", "none", "busybox", "sleep", "86400"];

    let wasmtime = peers::wasmtime(wharf.dir(), &tools, &sleep);
    let start = || wasmtime().stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("wasmtime starts");
    let mut peers: Vec<Child> = (0..MANY).map(|_| start()).collect();
    settle();
    let sum: f64 = peers.iter().map(|peer| pss(peer.id())).sum();
    println!("wasmtime run of the same idle module, each of {MANY}: {:.2} MB\n", sum / MANY as f64);
    for peer in &mut peers {
        peer.kill().and_then(|()| peer.wait()).expect("a child");
    }

    for count in [1, MANY] {
        let sizes = |args: &[&str], whole: bool| {
            for _ in 0..count {
                wharf.ok(args);
            }
            settle();
            let monitors: Vec<u32> = wharf.monitors().into_keys().collect();
            assert_eq!(monitors.len(), count, "monitors of {args:?}");
            let below = |pid| if whole { below(pid).into_iter().map(pss).sum() } else { 0.0 };
            let sum: f64 = monitors.into_iter().map(|monitor| pss(monitor) + below(monitor)).sum();
            wharf.sweep();
            sum / count as f64
        };
        let monitor = sizes(&linux, false);
        let container = sizes(&wasm, true);
        println!("each of {count}: the monitor of a Linux container, MB");
        report.judge("a monitor, MB", monitor, 1.0, 1.0);
        println!("each of {count}: an idle wasm container, monitor and task together, MB");
        report.judge("an idle wasm container, MB", container, 3.0, 1.5);
    }
    report.end()
}

/// What has just started is not idle yet.
fn settle() {
    std::thread::sleep(Duration::from_millis(500));
}

/// The proportional set size of a process, in megabytes (of 1000 kB as the kernel counts them).
fn pss(pid: u32) -> f64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("a living process");
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).expect("a Pss line");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1000.0
}

/// The processes below a process.
fn below(pid: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for process in fs::read_dir("/proc").expect("/proc").flatten() {
        let Ok(child) = process.file_name().to_string_lossy().parse() else { continue };
        let Ok(stat) = fs::read_to_string(process.path().join("stat")) else { continue };
        // The second field is a name in parentheses, which may hold anything.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        children.entry(parent.unwrap_or(0)).or_default().push(child);
    }
    let mut all = Vec::new();
    let mut todo = vec![pid];
    while let Some(next) = todo.pop() {
        let found = children.remove(&next).unwrap_or_default();
        all.extend(&found);
        todo.extend(found);
    }
    all
}
