//! The v2 side against a tree of ordinary files: which file gets what. The v1 side runs for real in `tests/wall.rs`.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use skip::skip;

use super::*;

#[path = "../../../../tests/support/skip.rs"]
mod skip;

/// A tree that looks like a v2 mount whose root has `controllers`, with the group `wharf/a` and its files in place
/// (only the kernel can make them appear).
fn fake(files: &[&str]) -> (tempfile::TempDir, &'static Layout) {
    let dir = tempfile::tempdir().unwrap();
    let group = dir.path().join("wharf/a");
    fs::create_dir_all(&group).unwrap();
    for at in [dir.path(), &dir.path().join("wharf")] {
        fs::write(at.join("cgroup.subtree_control"), "").unwrap();
    }
    for file in files {
        fs::write(group.join(file), "").unwrap();
    }
    let layout = Box::leak(Box::new(Layout::Unified { base: dir.path().to_owned() }));
    (dir, layout)
}

#[test]
fn limits_reach_their_files() {
    let (dir, layout) = fake(&["memory.max", "memory.swap.max", "pids.max", "cpu.max"]);
    let limits = Limits {
        memory: Some(8 << 20),
        pids: Some(5),
        nano_cpus: Some(500_000_000),
        // io.weight is not there: docker's flag is then without effect, as on a disk without a scheduler.
        blkio_weight: Some(100),
        ..Limits::default()
    };
    Cgroup::create_in(layout, "wharf/a", &limits).unwrap();
    let read = |name: &str| fs::read_to_string(dir.path().join("wharf/a").join(name)).unwrap();
    assert_eq!(read("memory.max"), "8388608");
    assert_eq!(read("memory.swap.max"), "8388608");
    assert_eq!(read("pids.max"), "5");
    assert_eq!(read("cpu.max"), "50000 100000");
    // One write for each controller; in an ordinary file each covers the one before ("+pids" over "+memory").
    for level in ["cgroup.subtree_control", "wharf/cgroup.subtree_control"] {
        assert_eq!(fs::read_to_string(dir.path().join(level)).unwrap(), "+pidsry");
    }
}

#[test]
fn a_limit_without_its_controller_is_refused_by_name() {
    let (_dir, layout) = fake(&["pids.max"]);
    let limits = Limits { pids: Some(5), memory: Some(8 << 20), ..Limits::default() };
    let error = Cgroup::create_in(layout, "wharf/a", &limits).unwrap_err();
    assert_eq!(error.to_string(), "--memory requires cgroup delegation");
    assert_eq!(error.class(), Class::Unsupported);
    assert!(error.hint().is_some());
}

#[test]
fn without_cgroups_only_limits_are_refused() {
    let group = Cgroup::create_in(&Layout::None, "wharf/a", &Limits::default()).unwrap();
    assert!(group.v2_dir().is_none());
    assert_eq!(Usage { at_ns: 0, ..group.usage() }, Usage::default());
    assert!(!group.oom_killed());
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    group.add(child.id()).unwrap();
    group.kill_all().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(9));
    group.remove().unwrap();

    let limits = Limits { pids: Some(5), ..Limits::default() };
    let error = Cgroup::create_in(&Layout::None, "wharf/a", &limits).unwrap_err();
    assert_eq!(error.to_string(), "--pids-limit requires cgroup delegation");
}

#[test]
fn what_a_v2_group_tells() {
    let (dir, layout) = fake(&[]);
    let group = dir.path().join("wharf/a");
    for (file, text) in [
        ("cpu.stat", "usage_usec 1500\nuser_usec 1000\n"),
        ("memory.current", "5000\n"),
        ("memory.max", "max\n"),
        ("memory.stat", "anon 1\ninactive_file 2000\n"),
        ("memory.events", "low 0\noom 1\noom_kill 1\n"),
        ("pids.current", "3\n"),
        ("io.stat", "254:0 rbytes=10 wbytes=20 rios=1\n254:16 rbytes=1 wbytes=2 rios=1\n"),
    ] {
        fs::write(group.join(file), text).unwrap();
    }
    let group = Cgroup::open_in(layout, "wharf/a").unwrap();
    let expected =
        Usage { cpu_ns: 1_500_000, memory: 3000, pids: 3, block_io: (11, 22), memory_limit: None, ..Usage::default() };
    assert_eq!(Usage { at_ns: 0, ..group.usage() }, expected);
    assert!(group.oom_killed());
    let gone = Cgroup::open_in(layout, "wharf/b").unwrap();
    assert!(gone.v2_dir().is_none());
    gone.remove().unwrap();
}

/// This machine's v1 hierarchies as if there were no v2 tree beside them, and that tree as if there were none of them.
/// `None` on a machine that has only v2, or without root: then the test of this name is on the list of skips.
fn halves(test: &str) -> Option<(&'static Layout, &'static Layout)> {
    let Layout::Separate { hierarchies, unified: Some(unified) } = Layout::get() else {
        skip(&format!("linux::cgroup::{test}"), "this machine does not have cgroups of both versions");
        return None;
    };
    let v1 = Layout::Separate { hierarchies: hierarchies.clone(), unified: None };
    let v2 = Layout::Separate { hierarchies: Vec::new(), unified: Some(unified.clone()) };
    Some((Box::leak(Box::new(v1)), Box::leak(Box::new(v2))))
}

/// A program in a group of its own, both taken away afterwards.
fn run_in(layout: &'static Layout, name: &str, script: &str, test: impl FnOnce(&Cgroup, u32)) {
    let path = format!("wharf-unit/{}-{name}", std::process::id());
    let group = Cgroup::create_in(layout, &path, &Limits::default()).unwrap();
    // It makes no child before it is in the group.
    let script = format!("read go; {script}");
    let mut child = Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap();
    group.add(child.id()).unwrap();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&group, child.id())));
    group.kill_all().unwrap();
    child.wait().unwrap();
    group.remove().unwrap();
    assert!(Cgroup::open_in(layout, &path).unwrap().pids().is_empty());
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn v1_alone_freezes_counts_and_kills() {
    let Some((v1, _)) = halves("v1_alone_freezes_counts_and_kills") else { return };
    run_in(v1, "alone", "while :; do :; done & while :; do :; done", |group, _| {
        assert!(group.v2_dir().is_none());
        let moves_within = |patience: Duration| {
            let (before, begun) = (group.usage().cpu_ns, Instant::now());
            while group.usage().cpu_ns == before && begun.elapsed() < patience {
                std::thread::sleep(Duration::from_millis(20));
            }
            group.usage().cpu_ns > before
        };
        assert!(moves_within(PATIENCE));
        // The shell may take its time to make the second.
        let deadline = Instant::now() + Duration::from_secs(30);
        while group.usage().pids != 2 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(group.usage().pids == 2, "{} processes", group.usage().pids);
        assert!(group.usage().memory > 0);
        // The freezer joins now and takes both processes along.
        group.freeze(true).unwrap();
        assert!(!moves_within(Duration::from_millis(80)), "runs on while frozen");
        group.freeze(false).unwrap();
        assert!(moves_within(PATIENCE), "stays frozen");
        group.freeze(true).unwrap();
    });
}

#[test]
fn the_kernel_takes_the_device_program() {
    let Some((_, v2)) = halves("the_kernel_takes_the_device_program") else { return };
    let dir = tempfile::tempdir().unwrap();
    let told = dir.path().join("told");
    // Waits for the rules, then tries /dev/kmsg, which docker does not list, and /dev/zero, which it does.
    let script = format!(
        "cd {}; until test -e go; do sleep 0.01; done; \
         (head -c1 /dev/zero >/dev/null && echo zero; head -c0 </dev/kmsg && echo kmsg) >out 2>&1; mv out told; sleep 1000",
        dir.path().display()
    );
    run_in(v2, "devices", &script, |group, _| {
        group.limit_devices(&docker_devices()).unwrap();
        fs::write(dir.path().join("go"), "").unwrap();
        let deadline = Instant::now() + PATIENCE;
        while !told.exists() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let text = fs::read_to_string(&told).unwrap();
        assert!(text.starts_with("zero\n") && text.contains("not permitted") && !text.ends_with("kmsg\n"), "{text}");
    });
}
