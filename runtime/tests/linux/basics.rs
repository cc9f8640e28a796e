//! What every container can do.

use std::io::Write;
use std::os::unix::fs::symlink;

use serde_json::json;
use wharf_runtime::linux::LinuxBackend;
use wharf_runtime::task::{Backend, ExecSpec, Limits};

use super::harness::{Plan, Test, Tree, sh};

pub const TESTS: &[Test] = &[
    ("exit_codes", exit_codes),
    ("program_errors", program_errors),
    ("signals", signals),
    ("namespaces", namespaces),
    ("file_systems", file_systems),
    ("devices", devices),
    ("descriptors", descriptors),
    ("users", users),
    ("capabilities", capabilities),
    ("limits_are_clamped", limits_are_clamped),
    ("read_only", read_only),
    ("masks", masks),
    ("mounts", mounts),
    ("parameters", parameters),
    ("working_directory", working_directory),
    ("terminal", terminal),
    ("exec", exec),
    ("exec_terminal", exec_terminal),
    ("init_reaps_and_forwards", init_reaps_and_forwards),
    ("pause", pause),
    ("pids_limit", pids_limit),
    ("memory_limit", memory_limit),
    ("host_network", host_network),
    ("monitor_dies", monitor_dies),
    ("directory_as_root", directory_as_root),
];

fn exit_codes() {
    let tree = Tree::new();
    for code in [0, 3, 42, 255] {
        assert_eq!(sh(&tree, &format!("exit {code}")).exit.code, code);
    }
    let output = sh(&tree, "echo out; echo err >&2; cat; echo done");
    assert_eq!((output.out.as_str(), output.err.as_str()), ("out\ndone\n", "err\n"));
}

fn program_errors() {
    let tree = Tree::new();
    std::fs::write(tree.lower("plain"), "x").unwrap();
    std::fs::write(tree.lower("bin/text"), "#!/bin/nothing\n").unwrap();
    std::fs::write(tree.lower("bin/junk"), "\u{1}\u{2}\u{3}").unwrap();
    for name in ["bin/text", "bin/junk"] {
        std::fs::set_permissions(tree.lower(name), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    for (program, code, words) in [
        ("nope", 127, "exec: \"nope\": executable file not found in $PATH"),
        ("/no/such", 127, "exec: \"/no/such\": stat /no/such: no such file or directory"),
        ("/plain", 126, "exec: \"/plain\": permission denied"),
        ("/etc", 126, "exec: \"/etc\": is a directory"),
        ("text", 127, "exec /bin/text: no such file or directory"),
        ("junk", 126, "exec /bin/junk: exec format error"),
    ] {
        let error = Plan::new(tree.rootfs(), &[program]).run().expect_err(program);
        assert_eq!((error.exit_code(), error.to_string().as_str()), (code, words));
    }
}

fn signals() {
    let tree = Tree::new();
    let mut container =
        Plan::script(&tree, "trap 'exit 9' TERM; echo up; while true; do sleep 0.01; done").start().unwrap();
    container.expect("up");
    container.task.signal(libc::SIGTERM).unwrap();
    assert_eq!(container.finish().exit.code, 9);
    let mut container = Plan::new(tree.rootfs(), &["sleep", "100"]).start().unwrap();
    assert!(container.task.reap().unwrap().is_none());
    container.task.signal(libc::SIGKILL).unwrap();
    let exit = container.finish().exit;
    assert_eq!((exit.code, exit.oom_killed), (137, false));
    assert!(container.task.signal(libc::SIGTERM).is_err());
    // Rust ignores SIGPIPE; a container's programs must not inherit that.
    let none = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n";
    let plan = Plan::new(tree.rootfs(), &["grep", "-E", "SigIgn|SigBlk", "/proc/self/status"]);
    assert_eq!(plan.run().unwrap().out, none);
}

fn namespaces() {
    let tree = Tree::new();
    let host = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
    let output =
        sh(&tree, "for n in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$n; done; echo $$; hostname");
    let lines: Vec<&str> = output.out.lines().collect();
    for (line, name) in lines.iter().zip(["cgroup", "ipc", "mnt", "net", "pid", "uts"]) {
        assert!(line.starts_with(name) && *line != host(name).to_str().unwrap(), "{line}");
    }
    assert_eq!(lines[6..], ["1", "box"]);
    assert_eq!(sh(&tree, "cat /proc/self/cgroup | grep ^0").out, "0::/\n");
    assert!(sh(&tree, "ip addr show lo").out.contains("127.0.0.1/8"));
}

fn file_systems() {
    let tree = Tree::new();
    let output = sh(&tree, "mount");
    for line in [
        "overlay on / type overlay (rw",
        "proc on /proc type proc (rw,nosuid,nodev,noexec",
        "tmpfs on /dev type tmpfs (rw,nosuid",
        "devpts on /dev/pts type devpts (rw,nosuid,noexec",
        "sysfs on /sys type sysfs (ro,nosuid,nodev,noexec",
        "mqueue on /dev/mqueue type mqueue (rw,nosuid,nodev,noexec",
        "tmpfs on /dev/shm type tmpfs (rw,nosuid,nodev,noexec",
    ] {
        let found = output.out.lines().any(|l| {
            l.split_once(" on ").is_some_and(|(_, l)| {
                line.ends_with(l.get(..line.len() - line.find(" on ").unwrap() - 4).unwrap_or("-"))
            })
        });
        assert!(found, "{line} in {}", output.out);
    }
    assert!(!output.out.contains("/work/"), "{}", output.out);
    assert_eq!(sh(&tree, "echo x > /new && cat /new").out, "x\n");
    assert_eq!(std::fs::read_to_string(tree.upper("new")).unwrap(), "x\n");
    // The host's directories are gone, and nothing is propagated to it.
    assert_eq!(sh(&tree, "ls /").out, "bin\ndev\netc\nnew\nproc\nroot\nsys\ntmp\n");
}

fn devices() {
    let tree = Tree::new();
    let output = sh(&tree, "for d in null zero full random urandom tty; do stat -c '%n %t:%T %a' /dev/$d; done");
    let expected = "/dev/null 1:3 666\n/dev/zero 1:5 666\n/dev/full 1:7 666\n/dev/random 1:8 666\n\
                    /dev/urandom 1:9 666\n/dev/tty 5:0 666\n";
    assert_eq!(output.out, expected);
    assert_eq!(sh(&tree, "head -c 3 /dev/zero | wc -c; echo x > /dev/null; echo out > /dev/stdout").out, "3\nout\n");
    // Another node can be made, and cannot be used.
    let output = sh(&tree, "mknod /dev/kmsg2 c 1 11 && cat /dev/kmsg2; mknod /tmp/k c 1 1 && cat /tmp/k");
    assert!(output.err.matches("Operation not permitted").count() == 2, "{output:?}");
    let before = std::fs::metadata("/dev/null").map(|m| std::os::unix::fs::MetadataExt::mode(&m)).unwrap();
    assert_eq!(sh(&tree, "chmod 600 /dev/null").exit.code, 0);
    assert_eq!(std::fs::metadata("/dev/null").map(|m| std::os::unix::fs::MetadataExt::mode(&m)).unwrap(), before);
}

fn descriptors() {
    let tree = Tree::new();
    // One that somebody forgot to mark close-on-exec.
    let leak = std::fs::File::open("/etc/hostname").or_else(|_| std::fs::File::open("/etc/passwd")).unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    assert_eq!(Plan::new(tree.rootfs(), &["ls", "/proc/self/fd"]).run().unwrap().out, "0\n1\n2\n3\n");
    let mut plan = Plan::new(tree.rootfs(), &["ls", "/proc/1/fd", "/proc/self/fd"]);
    plan.init = true;
    let output = plan.run().unwrap();
    // The init has none; what runs under it sees its own three and the directory.
    assert!(output.out.ends_with("/proc/self/fd:\n0\n1\n2\n3\n"), "{output:?}");
    assert!(output.out.starts_with("/proc/1/fd:\n\n"), "{output:?}");
    let container = Plan::new(tree.rootfs(), &["sleep", "100"]).start().unwrap();
    let args = ["ls", "/proc/self/fd"].map(str::to_owned).to_vec();
    assert_eq!(container.exec(&ExecSpec { args, ..ExecSpec::default() }).unwrap().out, "0\n1\n2\n3\n");
}

fn users() {
    let tree = Tree::new();
    let ids = |user: &str| {
        let mut plan = Plan::script(&tree, "id -u; id -g; id -G; echo $HOME; echo w > /dev/stdout");
        plan.user = user.to_owned();
        plan.run().unwrap().out.lines().collect::<Vec<_>>().join("|")
    };
    assert_eq!(ids(""), "0|0|0|/root|w");
    assert_eq!(ids("bob"), "1000|100|100 63|/home/bob|w");
    assert_eq!(ids("1000:63"), "1000|63|63|/home/bob|w");
    assert_eq!(ids("4242"), "4242|0|0|/|w");
    let mut plan = Plan::script(&tree, "true");
    plan.user = "eve".to_owned();
    let error = plan.run().unwrap_err();
    assert_eq!(error.to_string(), "unable to find user eve: no matching entries in passwd file");
    // A passwd that leads out of the image is looked for in the image.
    std::fs::remove_file(tree.lower("etc/passwd")).unwrap();
    symlink("/../../../../etc/passwd2", tree.lower("etc/passwd")).unwrap();
    std::fs::write(tree.lower("etc/passwd2"), "eve:x:7:7::/eve:/bin/sh\n").unwrap();
    plan.spec["process"]["args"] = json!(["id", "-u"]);
    assert_eq!(plan.run().unwrap().out, "7\n");
    // One that never ends does not hold us up.
    std::fs::remove_file(tree.lower("etc/passwd")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        tree.lower("etc/passwd"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    plan.user = "0".to_owned();
    plan.spec["process"]["args"] = json!(["echo", "on"]);
    assert_eq!(plan.run().unwrap().out, "on\n");
}

fn capabilities() {
    let tree = Tree::new();
    let status = |plan: &Plan| plan.run().unwrap().out.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut plan = Plan::script(&tree, "grep -E 'Cap|NoNewPrivs' /proc/self/status");
    let docker = "00000000a80425fb";
    let none = "0000000000000000";
    let all = format!("CapInh: {none} CapPrm: {docker} CapEff: {docker} CapBnd: {docker} CapAmb: {none} NoNewPrivs: 0");
    assert_eq!(status(&plan), all);
    plan.init = true;
    assert_eq!(status(&plan), all);
    plan.init = false;
    plan.user = "bob".to_owned();
    let user = format!("CapInh: {none} CapPrm: {none} CapEff: {none} CapBnd: {docker} CapAmb: {none} NoNewPrivs: 0");
    assert_eq!(status(&plan), user);
    plan.spec["process"]["noNewPrivileges"] = json!(true);
    assert!(status(&plan).ends_with("NoNewPrivs: 1"));
}

fn limits_are_clamped() {
    let tree = Tree::new();
    let mut plan = Plan::script(&tree, "ulimit -n; ulimit -Hn; ulimit -c");
    let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    plan.spec["process"]["rlimits"] = json!([
        {"type": "RLIMIT_NOFILE", "soft": 512, "hard": 1u64 << 30},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}
    ]);
    let output = plan.run().unwrap().out;
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!((lines[0], lines[2]), ("512", "0"));
    assert!([hard, 1 << 30].contains(&lines[1].parse().unwrap()), "{output}");
}

fn read_only() {
    let tree = Tree::new();
    let mut plan = Plan::script(&tree, "echo x > /a; echo x > /dev/shm/a && echo shm; mkdir /work/x");
    plan.spec["root"]["readonly"] = json!(true);
    plan.spec["process"]["cwd"] = json!("/work/dir");
    let output = plan.run().unwrap();
    assert_eq!(output.out, "shm\n");
    assert_eq!(output.err.matches("Read-only file system").count(), 2, "{output:?}");
}

fn masks() {
    let tree = Tree::new();
    assert_eq!(
        sh(&tree, "cat /proc/kcore /proc/keys /proc/timer_list | wc -c; ls /sys/firmware /proc/scsi | wc -l")
            .out
            .lines()
            .next(),
        Some("0")
    );
    assert_eq!(sh(&tree, "ls -A /sys/firmware").out, "");
    let output = sh(&tree, "echo 1 > /proc/sys/kernel/panic; touch /sys/firmware/x");
    assert_eq!(output.err.matches("Read-only file system").count(), 2, "{output:?}");
}

fn mounts() {
    let tree = Tree::new();
    let data = Tree::new();
    std::fs::write(data.lower("file"), "hello").unwrap();
    let mut plan = Plan::script(
        &tree,
        "cat /deep/er/file /one; echo x > /deep/er/new; echo x > /ro/new; echo x > /one; \
                                        echo x > /scratch/y && stat -f -c %T /scratch",
    );
    let list = plan.spec["mounts"].as_array_mut().unwrap();
    let bind = |target: &str, source: std::path::PathBuf, mode: &str| json!({"destination": target, "type": "bind", "source": source, "options": ["rbind", "rprivate", mode]});
    list.push(bind("/deep/er", data.lower(""), "rw"));
    list.push(bind("/ro", data.lower(""), "ro"));
    list.push(bind("/one", data.lower("file"), "ro"));
    list.push(json!({"destination": "/scratch", "type": "tmpfs", "source": "tmpfs",
        "options": ["nosuid", "nodev", "size=1m"]}));
    let output = plan.run().unwrap();
    assert_eq!(output.out, "hellohellotmpfs\n", "{output:?}");
    assert_eq!(output.err.matches("Read-only file system").count(), 2, "{output:?}");
    assert_eq!(std::fs::read_to_string(data.lower("new")).unwrap(), "x\n");

    let list = plan.spec["mounts"].as_array_mut().unwrap();
    list.push(bind("/x", "/no/such/source".into(), "rw"));
    let error = plan.run().unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid mount config for type \"bind\": bind source path does not exist: /no/such/source"
    );
}

fn parameters() {
    let tree = Tree::new();
    let mut plan = Plan::script(&tree, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmax");
    plan.spec["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "7", "kernel.shmmax": "12345678"});
    assert_eq!(plan.run().unwrap().out, "7\n12345678\n");
    plan.spec["linux"]["sysctl"] = json!({"kernel.panic": "1"});
    assert!(plan.run().unwrap_err().to_string().contains("kernel.panic is not in a namespace"));
}

fn working_directory() {
    let tree = Tree::new();
    let mut plan = Plan::script(&tree, "pwd; stat -c %a .");
    plan.spec["process"]["cwd"] = json!("/made/for/it");
    assert_eq!(plan.run().unwrap().out, "/made/for/it\n755\n");
    let container = Plan::new(tree.rootfs(), &["sleep", "100"]).start().unwrap();
    let args = vec!["pwd".to_owned()];
    let exec = ExecSpec { args, cwd: Some("/tmp".to_owned()), ..ExecSpec::default() };
    assert_eq!(container.exec(&exec).unwrap().out, "/tmp\n");
    let error = container.exec(&ExecSpec { cwd: Some("/none".to_owned()), ..exec }).unwrap_err();
    assert_eq!(error.to_string(), "chdir to cwd (\"/none\") set in config.json failed: no such file or directory");
}

fn terminal() {
    let tree = Tree::new();
    let mut plan =
        Plan::script(&tree, "tty; stty size; test -c /dev/console && echo console; echo x > /dev/tty; cat; exit $?");
    plan.tty = true;
    let mut container = plan.start().unwrap();
    let seen = container.expect("x\r\n");
    assert_eq!(seen, "/dev/pts/0\r\n24 80\r\nconsole\r\nx\r\n");
    container.pipes[0].write_all(b"hi\n").unwrap();
    container.expect("hi\r\nhi\r\n");
    container.pipes[0].write_all(&[3]).unwrap();
    // The kernel spares process 1, the shell; ^C ends `cat`.
    assert_eq!(container.finish().exit.code, 130);
}

fn exec() {
    let tree = Tree::new();
    let mut plan = Plan::script(&tree, "echo up > /tmp/up; export MINE=1; sleep 100");
    plan.spec["process"]["env"].as_array_mut().unwrap().push(json!("A=1"));
    let container = plan.start().unwrap();
    let output =
        container.sh("hostname; echo $A; for n in cgroup ipc mnt net pid uts; do readlink /proc/1/ns/$n; done");
    let own =
        container.sh("hostname; echo $A; for n in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$n; done");
    assert_eq!(output.out, own.out);
    assert!(output.out.starts_with("box\n1\n"), "{output:?}");
    assert_eq!(container.sh("exit 7").exit.code, 7);
    assert!(container.sh("grep CapEff /proc/self/status").out.contains("00000000a80425fb"));
    assert_eq!(container.sh("cat /proc/self/cgroup").out, container.sh("cat /proc/1/cgroup").out);
    let args = |list: &[&str]| list.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
    let bob = ExecSpec {
        args: args(&["sh", "-c", "id -u; echo $HOME $A $B; grep CapEff /proc/self/status"]),
        user: Some("bob".to_owned()),
        env: vec!["A=2".to_owned(), "B=3".to_owned()],
        ..ExecSpec::default()
    };
    assert_eq!(container.exec(&bob).unwrap().out, "1000\n/home/bob 2 3\nCapEff:\t0000000000000000\n");
    let error = container.exec(&ExecSpec { args: args(&["nope"]), ..ExecSpec::default() }).unwrap_err();
    assert_eq!((error.exit_code(), error.to_string().contains("not found in $PATH")), (127, true));
    let privileged =
        ExecSpec { args: args(&["grep", "CapEff", "/proc/self/status"]), privileged: true, ..ExecSpec::default() };
    assert!(container.exec(&privileged).unwrap().out.contains("01fffeffffff"), "all that the test has");
    let mut ended = Plan::new(tree.rootfs(), &["true"]).start().unwrap();
    ended.finish();
    assert!(ended.exec(&bob).is_err());
}

fn exec_terminal() {
    let tree = Tree::new();
    let container = Plan::new(tree.rootfs(), &["sleep", "100"]).start().unwrap();
    let args = ["sh", "-c", "tty; stty size; test -e /dev/console || echo none"].map(str::to_owned).to_vec();
    let stdio = wharf_runtime::task::Stdio::Terminal { size: Some((10, 20)) };
    let mut task = container.task.exec(&ExecSpec { args, ..ExecSpec::default() }, stdio).unwrap();
    let mut console = task.console().expect("console");
    task.start().unwrap();
    assert_eq!(super::harness::expect(&mut console, "none\r\n"), "/dev/pts/0\r\n10 20\r\nnone\r\n");
    task.delete().unwrap();
}

fn init_reaps_and_forwards() {
    let tree = Tree::new();
    let mut plan = Plan::script(
        &tree,
        "trap 'exit 5' TERM; (sh -c 'sleep 0.05 & exec true' &) ; sleep 0.3; ps -o stat | grep -c Z; echo up; \
         while true; do sleep 0.01; done",
    );
    plan.init = true;
    let mut container = plan.start().unwrap();
    assert_eq!(container.expect("up"), "0\nup\n");
    container.task.signal(libc::SIGTERM).unwrap();
    assert_eq!(container.finish().exit.code, 5);
    let mut plan = Plan::script(&tree, "kill -9 $$");
    plan.init = true;
    assert_eq!(plan.run().unwrap().exit.code, 137);
    let mut plan = Plan::new(tree.rootfs(), &["nope"]);
    plan.init = true;
    assert_eq!(plan.run().unwrap_err().exit_code(), 127);
    // Typed signals go to the program alone, once.
    let mut plan =
        Plan::script(&tree, "echo $$; trap 'echo int; exit 8' INT; echo up; while true; do sleep 0.01; done");
    (plan.init, plan.tty) = (true, true);
    let mut container = plan.start().unwrap();
    container.expect("up");
    container.pipes[0].write_all(&[3]).unwrap();
    container.expect("int");
    assert_eq!(container.finish().exit.code, 8);
}

fn pause() {
    let tree = Tree::new();
    let mut container =
        Plan::script(&tree, "i=0; while true; do i=$((i+1)); echo $i; sleep 0.01; done").start().unwrap();
    container.expect("3\n");
    container.task.set_paused(true).unwrap();
    let usage = container.task.usage().unwrap().cpu_ns;
    std::thread::sleep(std::time::Duration::from_millis(60));
    assert_eq!(container.task.usage().unwrap().cpu_ns, usage);
    container.task.set_paused(false).unwrap();
    container.expect("9\n");
}

fn pids_limit() {
    let tree = Tree::new();
    let mut plan = Plan::script(&tree, "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 5 & done; echo started; wait");
    plan.limits = Limits { pids: Some(8), ..Limits::default() };
    let mut container = plan.start().unwrap();
    super::harness::expect(&mut container.pipes[1], "fork");
    // A bomb: what stays of it is killed by delete.
    let mut plan = Plan::script(&tree, "b() { b | b & b; }; b");
    plan.limits = Limits { pids: Some(30), ..Limits::default() };
    let container = plan.start().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    drop(container);
}

fn memory_limit() {
    let tree = Tree::new();
    let mut plan = Plan::script(&tree, "head -c 200m /dev/zero > /dev/shm/x");
    plan.spec["mounts"][6]["options"] = json!(["nosuid", "nodev", "noexec", "mode=1777"]);
    plan.limits = Limits { memory: Some(16 << 20), memory_swap: Some(16 << 20), ..Limits::default() };
    let mut container = Plan { init: true, ..plan }.start().unwrap();
    let exit = container.finish().exit;
    assert_eq!((exit.code, exit.oom_killed), (137, true));
}

fn host_network() {
    let tree = Tree::new();
    let mut plan = Plan::script(&tree, "readlink /proc/self/ns/net");
    plan.host_network = true;
    let host = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(plan.run().unwrap().out.trim(), host.to_str().unwrap());
}

fn monitor_dies() {
    use wharf_runtime::linux::process::{SpawnOptions, spawn};
    let tree = Tree::new();
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let plan = Plan::new(tree.rootfs(), &["sleep", "100"]);
    let spec = plan.task();
    for started in [false, true] {
        let monitor = spawn(SpawnOptions::default(), || {
            let null = || std::fs::OpenOptions::new().write(true).open("/dev/null").unwrap();
            let stdio = wharf_runtime::task::Stdio::Pipes { stdin: None, stdout: null(), stderr: null() };
            let mut task = LinuxBackend.create(&spec, stdio).unwrap();
            if started {
                task.start().unwrap();
            }
            rustix::io::write(&write, &task.pid().to_ne_bytes()).unwrap();
            loop {
                std::thread::park();
            }
        })
        .unwrap();
        let mut pid = [0; 4];
        rustix::io::read(&read, &mut pid).unwrap();
        let pid = i32::from_ne_bytes(pid);
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        monitor.signal(libc::SIGKILL).unwrap();
        monitor.wait().unwrap();
        let timeout = rustix::event::Timespec { tv_sec: 5, tv_nsec: 0 };
        let ended = rustix::event::poll(
            &mut [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)],
            Some(&timeout),
        );
        assert_eq!(ended.unwrap(), 1, "the container outlives its monitor (started: {started})");
        LinuxBackend.clean(&spec).unwrap();
        LinuxBackend.clean(&spec).unwrap();
    }
}

fn directory_as_root() {
    let tree = Tree::new();
    let rootfs = wharf_images::snapshot::Rootfs::Dir(tree.lower(""));
    assert_eq!(
        Plan::new(rootfs, &["sh", "-c", "echo x > /y; ls /"]).run().unwrap().out,
        "bin\ndev\netc\nproc\nroot\nsys\ntmp\ny\n"
    );
    assert!(tree.lower("y").exists());
}
