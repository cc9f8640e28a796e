//! Containers that share namespaces with the host or with one another, and where their cgroups lie.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::{Wharf, eventually, images};

const PATIENCE: Duration = Duration::from_secs(60);

/// A container in the background that does nothing.
fn sleeper(wharf: &Wharf, name: &str, flags: &[&str]) -> String {
    let line = ["run", "-d", "--network", "none", "--name", name];
    wharf.ok(&[&line[..], flags, &["busybox", "sleep", "1000"]].concat())
}

/// What a short-lived container prints.
fn prints(wharf: &Wharf, flags: &[&str], line: &str) -> String {
    wharf.ok(&[&["run", "--rm", "--network", "none"], flags, &["busybox", "sh", "-c", line]].concat())
}

/// Why it is refused.
fn refused(wharf: &Wharf, flags: &[&str]) -> String {
    wharf.exits(125, &[&["run", "--rm", "--network", "none"], flags, &["busybox", "true"]].concat()).stderr
}

fn namespace(kind: &str) -> String {
    std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("a namespace").display().to_string()
}

/// The namespace in which a shell of the container is.
fn inside(kind: &str) -> String {
    format!("ls -l /proc/self/ns/{kind} | grep -o '{kind}:.*'")
}

fn inspect(wharf: &Wharf, name: &str, template: &str) -> String {
    wharf.ok(&["inspect", "-f", template, name])
}

#[test]
fn the_hosts_namespaces() {
    let wharf = Wharf::with_busybox();
    for (kind, flags) in [
        ("pid", ["--pid", "host"]),
        ("ipc", ["--ipc", "host"]),
        ("uts", ["--uts", "host"]),
        ("cgroup", ["--cgroupns", "host"]),
    ] {
        assert_eq!(prints(&wharf, &flags, &inside(kind)), namespace(kind), "{kind}");
        assert_ne!(prints(&wharf, &[], &inside(kind)), namespace(kind), "{kind}");
        sleeper(&wharf, kind, &flags);
        assert_eq!(wharf.ok(&["exec", kind, "sh", "-c", &inside(kind)]), namespace(kind), "exec: {kind}");
        wharf.ok(&["rm", "-f", kind]);
    }
    assert_eq!(prints(&wharf, &["--userns", "host"], "id -u"), "0");
    assert_eq!(
        prints(&wharf, &["--uts", "host"], "hostname"),
        wharf.ok(&["run", "--rm", "--network", "host", "busybox", "hostname"])
    );
    let told = refused(&wharf, &["--uts", "host", "-h", "x"]);
    assert!(told.contains("conflicting options: hostname and the UTS mode"), "{told}");

    // Shared memory: the host's, none, and one's own.
    let mark = PathBuf::from(format!("/dev/shm/wharf-{}", std::process::id()));
    std::fs::write(&mark, "of the host").expect("shared memory");
    let look = format!("cat {} 2>&1; true", mark.display());
    assert_eq!(prints(&wharf, &["--ipc", "host"], &look), "of the host");
    assert!(prints(&wharf, &[], &look).contains("No such file"));
    std::fs::remove_file(&mark).expect("shared memory");
    let mounted = "grep -c ' /dev/shm ' /proc/mounts; true";
    assert_eq!(prints(&wharf, &["--ipc", "none"], mounted), "0");
    assert_eq!(prints(&wharf, &["--ipc", "private"], mounted), "1");

    let id = sleeper(&wharf, "all", &["--pid=host", "--ipc=host", "--uts=host", "--cgroupns=host", "--userns=host"]);
    let host = "{{with .HostConfig}}{{.PidMode}} {{.IpcMode}} {{.UTSMode}} {{.CgroupnsMode}} {{.UsernsMode}}{{end}}";
    assert_eq!(inspect(&wharf, &id, host), "host host host host host");
    for (flag, why) in [
        ("--pid=x", "--pid: invalid PID mode"),
        ("--ipc=x", "invalid IPC mode: x"),
        ("--uts=x", "--uts: invalid UTS mode"),
        ("--userns=x", "--userns: invalid USER mode"),
        ("--cgroupns=x", "--cgroupns: invalid CGROUP mode"),
        ("--pid=container:", "--pid: invalid PID mode"),
        ("--pid=container:none", "No such container: none"),
    ] {
        let told = refused(&wharf, &[flag]);
        assert!(told.contains(why), "{flag}: {told}");
    }
}

/// Without a pid namespace of its own nothing dies with the first process by itself.
#[test]
fn all_processes_end_with_the_first() {
    let wharf = Wharf::with_busybox();
    let line = ["run", "-d", "--network", "none", "--pid", "host", "--name", "many", "busybox", "sh", "-c"];
    wharf.ok(&[&line[..], &["sleep 12345 & sleep 12345 & exec sleep 1000"]].concat());
    let left = || {
        let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
        let of = |line: Vec<u8>| line == b"sleep\x0012345\0";
        processes.filter(|p| std::fs::read(p.path().join("cmdline")).is_ok_and(of)).count()
    };
    eventually("both", PATIENCE, || (left() == 2).then_some(()));
    wharf.ok(&["exec", "-d", "many", "sleep", "12345"]);
    wharf.ok(&["kill", "many"]);
    wharf.ok(&["wait", "many"]);
    assert_eq!(left(), 0);
}

#[test]
fn processes_of_another_container() {
    let wharf = Wharf::with_busybox();
    sleeper(&wharf, "first", &[]);
    let seen = prints(&wharf, &["--pid", "container:first"], "ps");
    assert!(seen.contains("sleep 1000"), "{seen}");
    let id = sleeper(&wharf, "second", &["--pid", "container:first", "--restart", "no"]);
    let of_first = wharf.ok(&["exec", "first", "sh", "-c", &inside("pid")]);
    assert_eq!(wharf.ok(&["exec", "second", "sh", "-c", &inside("pid")]), of_first);
    assert!(wharf.ok(&["exec", "second", "ps"]).matches("sleep 1000").count() >= 2);
    // It is known by its id: another name changes nothing. What ends the one ends the other.
    wharf.ok(&["rename", "first", "renamed"]);
    assert!(inspect(&wharf, &id, "{{.HostConfig.PidMode}}").starts_with("container:"));
    wharf.ok(&["kill", "renamed"]);
    assert_eq!(wharf.ok(&["wait", "second"]), "137");
    let told = wharf.exits(1, &["start", "second"]).stderr;
    assert!(told.contains("failed to join PID namespace: container") && told.contains("is not running"), "{told}");
    wharf.ok(&["start", "renamed"]);
    wharf.ok(&["start", "second"]);
    wharf.ok(&["rm", "-f", "renamed"]);
    assert_eq!(wharf.ok(&["wait", "second"]), "137");
    assert!(wharf.exits(1, &["start", "second"]).stderr.contains("No such container"));
}

/// A container whose monitor was killed has a number in its record, which may be anybody's.
#[test]
fn a_dead_container_cannot_be_joined() {
    let wharf = Wharf::with_busybox();
    let id = sleeper(&wharf, "dead", &["--ipc", "shareable"]);
    let monitor = wharf.monitors().into_iter().find(|(_, of)| *of == id).expect("a monitor").0;
    let monitor = i32::try_from(monitor).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
    rustix::process::kill_process(monitor, rustix::process::Signal::KILL).expect("a living process");
    for flag in ["--pid", "--ipc"] {
        let told = eventually("a refusal", PATIENCE, || {
            let ran = wharf.run(&["run", "--rm", "--network", "none", flag, "container:dead", "busybox", "true"]);
            (ran.code == 125).then_some(ran.stderr)
        });
        assert!(told.contains("is not running") || told.contains("has ended"), "{told}");
    }
}

#[test]
fn shared_memory_of_another_container() {
    let wharf = Wharf::with_busybox();
    sleeper(&wharf, "donor", &["--ipc", "shareable", "--shm-size", "1m"]);
    wharf.ok(&["exec", "donor", "sh", "-c", "echo here >/dev/shm/note"]);
    let join = ["--ipc", "container:donor"];
    let of_donor = wharf.ok(&["exec", "donor", "sh", "-c", &inside("ipc")]);
    assert_eq!(prints(&wharf, &join, &format!("cat /dev/shm/note; {}", inside("ipc"))), format!("here\n{of_donor}"));
    prints(&wharf, &join, "echo back >/dev/shm/note");
    assert_eq!(wharf.ok(&["exec", "donor", "cat", "/dev/shm/note"]), "back");
    // Unless it has one of its own.
    let own = [&join[..], &["--tmpfs", "/dev/shm"]].concat();
    assert!(prints(&wharf, &own, "cat /dev/shm/note 2>&1; true").contains("No such file"));

    sleeper(&wharf, "private", &[]);
    let told = refused(&wharf, &["--ipc", "container:private"]);
    assert!(told.contains("failed to join IPC namespace: container"), "{told}");
    assert!(told.contains("non-shareable IPC (hint: use IpcMode:shareable for the donor container)"), "{told}");

    // What lies at its /dev/shm is the donor's to choose, but only memory is shared.
    sleeper(&wharf, "odd", &["--ipc", "shareable", "--privileged"]);
    let change = "umount /dev/shm && rm -r /dev/shm && ln -s /proc /dev/shm";
    wharf.ok(&["exec", "--privileged", "odd", "sh", "-c", change]);
    let told = refused(&wharf, &["--ipc", "container:odd"]);
    assert!(told.contains("/dev/shm"), "{told}");
    let change = "rm /dev/shm && mkdir /dev/shm && mount -t proc proc /dev/shm";
    wharf.ok(&["exec", "--privileged", "odd", "sh", "-c", change]);
    let told = refused(&wharf, &["--ipc", "container:odd"]);
    assert!(told.contains("has something else than memory at /dev/shm"), "{told}");
}

/// The directories of a container's cgroup, in whatever hierarchies there are.
fn cgroups(path: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(root).expect("cgroups").flatten().map(|entry| entry.path());
    hierarchies.chain([root.to_owned()]).map(|base| base.join(path)).filter(|dir| dir.is_dir()).collect()
}

#[test]
fn a_cgroup_below_another() {
    let wharf = Wharf::with_busybox();
    let parent = format!("wharf-parent-{}", std::process::id());
    let id = sleeper(&wharf, "below", &["--cgroup-parent", &format!("/{parent}/web"), "-m", "64m"]);
    let of = |id: &str| cgroups(&format!("{parent}/web/{id}"));
    assert!(!of(&id).is_empty() && cgroups(&format!("wharf/{id}")).is_empty());
    assert_eq!(inspect(&wharf, "below", "{{.HostConfig.CgroupParent}}"), format!("/{parent}/web"));
    assert!(!wharf.ok(&["top", "below"]).is_empty());
    wharf.ok(&["pause", "below"]);
    wharf.ok(&["unpause", "below"]);
    // Whoever finds it without its monitor finds its processes there.
    let pid = inspect(&wharf, "below", "{{.State.Pid}}");
    let monitor = wharf.monitors().into_iter().find(|(_, of)| *of == id).expect("a monitor").0;
    let monitor = i32::try_from(monitor).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
    rustix::process::kill_process(monitor, rustix::process::Signal::KILL).expect("a living process");
    eventually("the end", PATIENCE, || (inspect(&wharf, "below", "{{.State.Status}}") == "exited").then_some(()));
    assert!(!Path::new(&format!("/proc/{pid}/root/bin")).exists());
    assert_eq!(of(&id), Vec::<PathBuf>::new());
    wharf.ok(&["start", "below"]);
    assert!(!of(&id).is_empty());
    wharf.ok(&["rm", "-f", "below"]);
    assert_eq!(of(&id), Vec::<PathBuf>::new());
    for dir in [cgroups(&format!("{parent}/web")), cgroups(&parent)].concat() {
        std::fs::remove_dir(dir).expect("nothing is left in it");
    }
    for bad in ["../out", "a/../../b", "a//b", "."] {
        let told = refused(&wharf, &["--cgroup-parent", bad]);
        assert!(told.contains("--cgroup-parent must be the path of a cgroup"), "{bad}: {told}");
    }
}

#[test]
fn a_cgroup_below_another_is_found_though_its_container_was_never_recorded() {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["wasm", "pack", &images::guest("tools-p1"), "-t", "tools"]);
    // So that a guest's process could be begun before anything is known of the container.
    wharf.ok(&["run", "--rm", "tools", "args"]);
    let parent = format!("wharf-unrecorded-{}", std::process::id());
    for line in [["busybox", "sleep", "1000"], ["tools", "sleep", "1000000"]] {
        // Nothing can be recorded while we write.
        let mut database = rusqlite::Connection::open(wharf.root().join("wharf.db")).expect("the database");
        let writing = database.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).expect("a turn");
        let flags = ["run", "-d", "--network", "none", "--cgroup-parent", &parent];
        let mut run = wharf.spawn(&[&flags[..], &line].concat());
        let below = || -> Vec<PathBuf> {
            let inside =
                cgroups(&parent).into_iter().flat_map(|dir| std::fs::read_dir(dir).expect("cgroups").flatten());
            inside.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
        };
        eventually("a cgroup", PATIENCE, || (!below().is_empty()).then_some(()));
        let monitor = eventually("a monitor", PATIENCE, || wharf.monitors().into_keys().next());
        let monitor = i32::try_from(monitor).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
        rustix::process::kill_process(monitor, rustix::process::Signal::KILL).expect("a living process");
        eventually("the end of a monitor", PATIENCE, || wharf.monitors().is_empty().then_some(()));
        drop(writing);
        assert_ne!(crate::support::wharf::wait(&mut run, "run"), 0);
        assert!(!below().is_empty(), "it is left over");
        assert_eq!(wharf.ok(&["ps", "-aq"]), "");
        wharf.run(&["system", "check", "--repair"]);
        assert_eq!(below(), Vec::<PathBuf>::new(), "{line:?}");
        assert_eq!(wharf.ok(&["system", "check"]), "No problems found.");
    }
    drop(wharf);
    for dir in cgroups(&parent) {
        std::fs::remove_dir(dir).expect("nothing is left in it");
    }
}

#[test]
fn devices_by_rule() {
    let wharf = Wharf::with_busybox();
    // A number that no driver has: it may be opened, which fails, or may not even be tried.
    let open = "busybox mknod /node c 240 77 && cat /node 2>&1; true";
    assert!(prints(&wharf, &[], open).contains("Operation not permitted"));
    assert!(prints(&wharf, &["--device-cgroup-rule", "c 240:* rmw"], open).contains("No such device or address"));
    assert!(prints(&wharf, &["--device-cgroup-rule", "c 240:78 rmw"], open).contains("Operation not permitted"));
    let told = refused(&wharf, &["--device-cgroup-rule", "c 240 r"]);
    assert!(told.contains("invalid device cgroup format 'c 240 r'"), "{told}");
}

#[test]
fn nobody_is_killed_for_want_of_memory() {
    let wharf = Wharf::with_busybox();
    let line =
        ["run", "-d", "--network", "none", "--name", "box", "-m", "32m", "--oom-kill-disable", "busybox", "sleep"];
    let ran = wharf.run(&[&line[..], &["1000"]].concat());
    assert_eq!(ran.code, 0, "{ran}");
    let mut control =
        cgroups(&format!("wharf/{}", ran.stdout.trim_end())).into_iter().map(|dir| dir.join("memory.oom_control"));
    match control.find(|file| file.exists()) {
        Some(file) => {
            let text = std::fs::read_to_string(file).expect("a file of the cgroup");
            assert!(text.contains("oom_kill_disable 1"), "{text}");
            assert_eq!(ran.stderr, "");
        }
        None => assert!(ran.stderr.contains("OomKillDisable discarded"), "{ran}"),
    }
    assert_eq!(inspect(&wharf, "box", "{{.HostConfig.OomKillDisable}}"), "true");
}

#[test]
fn where_names_are_looked_up() {
    let wharf = Wharf::with_busybox();
    let flags = ["--dns-search", "a.example", "--dns-search", "b.example", "--dns-option", "timeout:1"];
    let line = [&["run", "--rm"], &flags[..], &["busybox", "cat", "/etc/resolv.conf"]].concat();
    let text = wharf.ok(&line);
    assert_eq!(text, "nameserver 127.0.0.11\nsearch a.example b.example\noptions ndots:0 timeout:1");
    let host = ["run", "--rm", "--network", "host", "--dns", "192.0.2.7", "--dns-search", ".", "--dns-opt", "rotate"];
    let text = wharf.ok(&[&host[..], &["busybox", "cat", "/etc/resolv.conf"]].concat());
    assert_eq!(text, "nameserver 192.0.2.7\noptions rotate");
}

#[test]
fn the_runtime_is_the_images() {
    let wharf = Wharf::with_busybox();
    assert_eq!(prints(&wharf, &["--runtime", "linux"], "echo ran"), "ran");
    let told = refused(&wharf, &["--runtime", "wasm"]);
    assert!(told.contains("the runtime wasm cannot run this image, which needs linux"), "{told}");
    let told = refused(&wharf, &["--runtime", "runsc"]);
    assert!(told.contains("unknown or invalid runtime name: runsc"), "{told}");
}

#[test]
fn a_guest_has_no_namespaces() {
    let wharf = Wharf::new();
    wharf.ok(&["wasm", "pack", &images::guest("tools-p1"), "-t", "tools"]);
    for flag in ["--pid=host", "--ipc=shareable", "--uts=host", "--cgroupns=host", "--device-cgroup-rule=c 1:3 r"] {
        let name = flag.split('=').next().expect("a name");
        let told = wharf.exits(125, &["run", "--rm", flag, "tools", "args"]).stderr;
        assert!(told.contains(&format!("{name} cannot be used with a WebAssembly image")), "{told}");
    }
    for flag in ["--userns=host", "--dns-option=rotate", "--dns-search=a.example"] {
        let name = flag.split('=').next().expect("a name");
        let ran = wharf.exits(0, &["run", "--rm", flag, "tools", "args"]);
        assert!(ran.stderr.contains(&format!("WARNING: {name} has no effect on a WebAssembly image")), "{ran}");
    }
    let id = wharf.ok(&["run", "-d", "--name", "guest", "tools", "sleep", "100000"]);
    wharf.load(&images::busybox());
    let told = refused(&wharf, &["--pid", "container:guest"]);
    assert!(told.contains("has no namespaces to join"), "{told}");
    let parent = format!("wharf-guests-{}", std::process::id());
    wharf.ok(&["run", "--rm", "--cgroup-parent", &parent, "--runtime", "wasm", "tools", "args"]);
    assert!(!cgroups(&parent).is_empty() && cgroups(&format!("{parent}/{id}")).is_empty());
    for dir in cgroups(&parent) {
        // The client need not wait until the guest's own is gone from it.
        eventually("nothing is left in it", Duration::from_secs(30), || std::fs::remove_dir(&dir).ok());
    }
}

#[test]
fn other_users_share_what_is_theirs_to_share() {
    let wharf = Wharf::of("wharf-test");
    wharf.load(&images::busybox());
    for (kind, flags) in [("ipc", ["--ipc", "host"]), ("uts", ["--uts", "host"])] {
        assert_eq!(prints(&wharf, &flags, &inside(kind)), namespace(kind), "{kind}");
    }
    for flag in ["--pid=host", "--ipc=container:x", "--device-cgroup-rule=c 1:3 r"] {
        let told = refused(&wharf, &[flag]);
        assert!(told.contains("only root can use") || told.contains("No such container"), "{flag}: {told}");
    }
}
