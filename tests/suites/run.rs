//! `run` and its relatives as a docker user knows them: exit codes, streams, signals, terminals, limits.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::support::terminal::Terminal;
use crate::support::{Wharf, eventually, images, wharf};

const CTRL_P: &str = "\u{10}";
const CTRL_Q: &str = "\u{11}";

#[test]
fn hello_needs_nothing() {
    let wharf = Wharf::new();
    let hello = wharf.ok(&["run", "--rm", "wharf/hello"]);
    assert!(hello.to_lowercase().contains("hello"), "{hello}");
    assert_eq!(wharf.ok(&["ps", "-aq"]), "", "--rm removes");
}

#[test]
fn debian_says_who_it_is() {
    let wharf = Wharf::new();
    wharf.load(&images::debian());
    let release = wharf.ok(&["run", "--rm", "debian", "cat", "/etc/os-release"]);
    assert!(release.contains("ID=debian"), "{release}");
}

#[test]
fn exit_codes_on_linux() {
    let wharf = Wharf::with_busybox();
    for code in [0, 3, 42, 255] {
        wharf.exits(code, &["run", "--rm", "busybox", "sh", "-c", &format!("exit {code}")]);
    }
    // Wharf's own failures, in docker's numbers.
    wharf.exits(125, &["run", "--rm", "--no-such-flag", "busybox", "true"]);
    wharf.exits(125, &["run", "--rm", "--pull", "never", "no-such-image", "true"]);
    wharf.exits(126, &["run", "--rm", "busybox", "/etc/passwd"]);
    wharf.exits(127, &["run", "--rm", "busybox", "no-such-program"]);
    wharf.exits(127, &["run", "--rm", "busybox", "/no/such/program"]);
    // By signals: killed, and stopped while an init lets it die.
    let killed = wharf.ok(&["run", "-d", "busybox", "sleep", "1000"]);
    wharf.ok(&["kill", &killed]);
    assert_eq!(wharf.ok(&["wait", &killed]), "137");
    let stopped = wharf.ok(&["run", "-d", "--init", "busybox", "sleep", "1000"]);
    wharf.ok(&["stop", &stopped]);
    assert_eq!(wharf.ok(&["wait", &stopped]), "143");
    let row = wharf.ok(&["ps", "-a", "--filter", &format!("id={stopped}"), "--format", "{{.Status}}"]);
    assert!(row.starts_with("Exited (143) "), "{row}");
}

#[test]
fn exit_codes_on_wasm() {
    let wharf = Wharf::new();
    for kind in ["tools-p1", "tools-p2"] {
        wharf.ok(&["wasm", "pack", &images::guest(kind), "-t", "tools"]);
        for code in [0, 3, 42, 255] {
            wharf.exits(code, &["run", "--rm", "tools", "exit", &code.to_string()]);
        }
        let trapped = wharf.exits(134, &["run", "--rm", "tools", "trap"]);
        assert!(trapped.stderr.contains("unreachable"), "a trap says what and where: {trapped}");
        let killed = wharf.ok(&["run", "-d", "tools", "spin"]);
        wharf.ok(&["kill", &killed]);
        assert_eq!(wharf.ok(&["wait", &killed]), "137");
        let stopped = wharf.ok(&["run", "-d", "tools", "spin"]);
        wharf.ok(&["stop", "-t", "1", &stopped]);
        assert_eq!(wharf.ok(&["wait", &stopped]), "143");
    }
    wharf.exits(125, &["run", "--rm", "--no-such-flag", "tools"]);
    wharf.exits(125, &["run", "--rm", "--pull", "never", "no-such-image"]);
    wharf.load(&images::scratch_wasm("scratch", &images::read(&images::guest("tools-p1"))));
    wharf.exits(42, &["run", "--rm", "scratch", "exit", "42"]);
    wharf.exits(127, &["run", "--rm", "--entrypoint", "/no-such.wasm", "scratch"]);
    // What no shell could execute either: cut short after its header.
    let mut cut = images::read(&images::guest("tools-p1"));
    cut.truncate(1000);
    wharf.load(&images::scratch_wasm("cut", &cut));
    let refused = wharf.exits(126, &["run", "--rm", "cut"]);
    assert!(refused.stderr.contains("malformed WebAssembly"), "{refused}");
}

#[test]
fn the_streams_stay_apart_and_stdin_arrives() {
    let wharf = Wharf::with_busybox();
    let ran = wharf.exits(0, &["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
    let text = "a line\n".repeat(100_000);
    let ran = wharf.run_with(&["run", "--rm", "-i", "busybox", "cat"], text.as_bytes());
    assert_eq!(ran.code, 0, "{ran}");
    assert!(ran.stdout == text, "700 kB come back as they went: {} bytes", ran.stdout.len());
    let ran = wharf.run_with(&["run", "--rm", "busybox", "cat"], b"unasked");
    assert_eq!(ran.stdout, "", "without -i there is no stdin");
}

#[test]
fn a_detached_life() {
    let wharf = Wharf::with_busybox();
    let script = "for n in 1 2 3; do echo line $n; sleep 0.2; done; sleep 1000";
    let id = wharf.ok(&["run", "-d", "--name", "life", "busybox", "sh", "-c", script]);
    assert_eq!(id.len(), 64, "{id}");

    let mut follower = wharf.spawn(&["logs", "-f", "life"]);
    let mut lines = BufReader::new(follower.stdout.take().expect("piped")).lines();
    for n in 1..=3 {
        assert_eq!(lines.next().expect("a line").expect("readable"), format!("line {n}"));
    }
    assert_eq!(wharf.ok(&["ps", "--format", "{{.Names}} {{.Image}}"]), "life busybox");
    let busy = wharf.exits(1, &["rm", "life"]);
    assert!(busy.stderr.contains("container is running"), "{busy}");

    wharf.ok(&["stop", "-t", "1", "life"]);
    assert!(lines.next().is_none(), "the log's end ends `logs -f`");
    assert_eq!(wharf::wait(&mut follower, "logs -f"), 0);
    assert_eq!(wharf.ok(&["ps", "-q"]), "");
    let row = wharf.ok(&["ps", "-a", "--format", "{{.Names}} {{.Status}}"]);
    assert!(row.starts_with("life Exited (137) "), "{row}");
    assert_eq!(wharf.ok(&["logs", "--tail", "1", "life"]), "line 3");
    assert_eq!(wharf.ok(&["rm", "life"]), "life");
    assert_eq!(wharf.ok(&["ps", "-aq"]), "");
}

#[test]
fn a_container_starts_again() {
    let wharf = Wharf::with_busybox();
    let id = wharf.ok(&["create", "--name", "twice", "busybox", "sh", "-c", "echo x >>/count; wc -l </count; exit 4"]);
    assert_eq!(wharf.ok(&["ps", "-a", "--format", "{{.State}}"]), "created");
    assert_eq!(wharf.exits(4, &["start", "-a", "twice"]).stdout, "1\n");
    assert_eq!(wharf.exits(4, &["start", "-a", &id[..12]]).stdout, "2\n");
    assert_eq!(wharf.ok(&["logs", "twice"]), "1\n2");
    assert_eq!(wharf.ok(&["inspect", "-f", "{{.State.ExitCode}} {{.Name}}", "twice"]), "4 /twice");
}

#[test]
fn names_belong_to_one() {
    let wharf = Wharf::with_busybox();
    let id = wharf.ok(&["create", "--name", "one", "busybox", "true"]);
    let second = wharf.exits(125, &["run", "--name", "one", "busybox", "true"]);
    assert!(second.stderr.contains("already in use") && second.stderr.contains(&id[..12]), "{second}");
    wharf.ok(&["rm", "one"]);
    wharf.ok(&["run", "--rm", "--name", "one", "busybox", "true"]);
}

#[test]
fn typed_signals_reach_the_container() {
    let wharf = Wharf::with_busybox();
    let script = "trap 'echo told; exit 7' TERM; echo ready; while :; do sleep 0.1; done";
    let mut run = wharf.spawn(&["run", "--rm", "busybox", "sh", "-c", script]);
    let mut out = BufReader::new(run.stdout.take().expect("piped"));
    assert_eq!(line(&mut out), "ready\n");
    signal(&run, rustix::process::Signal::TERM);
    assert_eq!(line(&mut out), "told\n");
    assert_eq!(wharf::wait(&mut run, "run"), 7);
}

#[test]
fn a_shell_at_a_terminal() {
    let wharf = Wharf::with_busybox();
    let mut shell = Terminal::start(&wharf.command(&["run", "--rm", "-it", "busybox", "sh"]));
    shell.expect("# ");
    shell.send("tty && stty size\n");
    shell.expect("/dev/");
    shell.expect("24 80");
    shell.resize(40, 132);
    shell.send("sleep 0.5; stty size\n");
    shell.expect("40 132");
    // Ctrl-C interrupts the program in the container, not the client.
    shell.send("sleep 1000; echo interrupted $?\n");
    std::thread::sleep(Duration::from_millis(500));
    shell.send("\u{3}");
    shell.expect("# ");
    shell.send("exit 5\n");
    assert_eq!(shell.wait(), 5, "{}", shell.screen());
}

#[test]
fn detach_keys_leave_it_running() {
    let wharf = Wharf::with_busybox();
    let mut shell = Terminal::start(&wharf.command(&["run", "-it", "--name", "left", "busybox", "sh"]));
    shell.expect("# ");
    shell.send(&format!("{CTRL_P}{CTRL_Q}"));
    assert_eq!(shell.wait(), 0, "{}", shell.screen());
    assert_eq!(wharf.ok(&["ps", "--format", "{{.Names}}"]), "left");
}

#[test]
fn exec_runs_beside() {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["run", "-d", "--name", "host", "--hostname", "ship", "-e", "FIRST=1", "busybox", "sleep", "1000"]);
    assert_eq!(wharf.ok(&["exec", "host", "hostname"]), "ship");
    assert_eq!(wharf.ok(&["exec", "-e", "SECOND=2", "host", "sh", "-c", "echo $FIRST$SECOND"]), "12");
    assert_eq!(wharf.ok(&["exec", "-w", "/tmp", "host", "pwd"]), "/tmp");
    assert_eq!(wharf.ok(&["exec", "-u", "anna", "host", "id", "-u"]), "1000");
    wharf.exits(42, &["exec", "host", "sh", "-c", "exit 42"]);
    wharf.exits(127, &["exec", "host", "no-such-program"]);
    let ran = wharf.run_with(&["exec", "-i", "host", "cat"], b"through");
    assert_eq!(ran.stdout, "through", "{ran}");
    wharf.ok(&["exec", "-d", "host", "touch", "/tmp/done"]);
    eventually("the detached exec's file", Duration::from_secs(10), || {
        (wharf.run(&["exec", "host", "test", "-e", "/tmp/done"]).code == 0).then_some(())
    });
    wharf.ok(&["stop", "-t", "0", "host"]);
    let late = wharf.exits(1, &["exec", "host", "true"]);
    assert!(late.stderr.contains("is not running"), "{late}");
}

#[test]
fn a_terminal_in_exec() {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["run", "-d", "--name", "host", "busybox", "sleep", "1000"]);
    let mut shell = Terminal::start(&wharf.command(&["exec", "-it", "host", "sh"]));
    shell.expect("# ");
    shell.send("stty size; exit 9\n");
    shell.expect("24 80");
    assert_eq!(shell.wait(), 9, "{}", shell.screen());
}

#[test]
fn options_reach_the_kernel() {
    let wharf = Wharf::with_busybox();
    let run = |options: &[&str], script: &str| {
        let args = [&["run", "--rm"][..], options, &["busybox", "sh", "-c", script]].concat();
        wharf.ok(&args)
    };
    assert_eq!(run(&["--network", "none"], "ls /sys/class/net"), "lo");
    assert_eq!(run(&["-u", "1000:2000"], "id -u; id -g"), "1000\n2000");
    assert_eq!(run(&["-u", "anna"], "id -G"), "1000 2000");
    assert_eq!(run(&["-w", "/new/dir"], "pwd"), "/new/dir");
    assert_eq!(run(&["-h", "ship"], "hostname"), "ship");
    assert_eq!(
        run(&["--read-only", "--tmpfs", "/scratch"], "touch /x 2>/dev/null || echo no; touch /scratch/x && echo yes"),
        "no\nyes"
    );
    assert_eq!(run(&["--ulimit", "nofile=100:200"], "ulimit -n; ulimit -Hn"), "100\n200");
    assert_eq!(run(&["-e", "A=b", "-e", "A=c"], "echo $A"), "c");
    assert_ne!(run(&["--init"], "echo $$"), "1");
    assert_eq!(run(&["--entrypoint", "echo"], "not run"), "sh -c not run");
}

#[test]
fn mounts_go_where_the_image_has_something_else() {
    let wharf = Wharf::with_busybox();
    let make = "mkdir -p -m 700 /priv && mkdir /data && ln -s ../srv/there /data/gone && ln -s gone/too /data/further";
    wharf.ok(&["run", "--name", "base", "--network", "none", "busybox", "sh", "-c", make]);
    wharf.ok(&["commit", "base", "odd"]);
    let run = |options: &[&str], script: &str| {
        wharf.ok(&[&["run", "--rm", "--network", "none"][..], options, &["odd", "sh", "-c", script]].concat())
    };
    // A tmpfs has the mode of what it covers, unless it is told another, or there is nothing.
    for (tmpfs, mode) in [("/priv", "700"), ("/priv:size=1m,ro", "700"), ("/priv:mode=711", "711"), ("/new", "1777")] {
        let path = tmpfs.split(':').next().unwrap();
        let said = run(&["--tmpfs", tmpfs], &format!("stat -c %a {path}; touch {path}/x || echo no"));
        let expected = if tmpfs.contains("ro") { format!("{mode}\nno") } else { mode.to_owned() };
        assert_eq!(said, expected, "{tmpfs}");
    }
    assert_eq!(run(&["--mount", "type=tmpfs,dst=/priv"], "stat -c %a /priv"), "700");
    // A link to nowhere leads to a directory that is made for it.
    assert_eq!(run(&["-v", "one:/data/gone"], "touch /data/gone/x; ls /srv/there"), "x");
    assert_eq!(run(&["-v", "two:/data/further"], "touch /data/further/y; ls /srv/there/too"), "y");
    // What Wharf puts into a root that is not to be written to is not written to either.
    for file in ["hosts", "hostname", "resolv.conf"] {
        for network in ["none", "bridge", "host"] {
            let said = wharf.run(&[
                "run",
                "--rm",
                "--read-only",
                "--network",
                network,
                "odd",
                "touch",
                &format!("/etc/{file}"),
            ]);
            assert!(said.code == 1 && said.stderr.contains("Read-only file system"), "{said}");
        }
    }
}

#[test]
fn who_runs_again_has_not_failed() {
    let wharf = Wharf::with_busybox();
    let state = || wharf.ok(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.State.FinishedAt}}", "box"]);
    wharf.ok(&["run", "-d", "--name", "box", "--network", "none", "busybox", "sleep", "1000"]);
    assert_eq!(state(), "running 0 0001-01-01T00:00:00Z");
    wharf.ok(&["stop", "-t", "0", "box"]);
    let stopped = state();
    let ended = stopped.strip_prefix("exited 137 ").expect("the signal's exit code");
    wharf.ok(&["start", "box"]);
    assert_eq!(state(), format!("running 0 {ended}"), "docker tells when it last ended");
}

#[test]
fn who_stops_reading_hears_no_complaint() {
    let wharf = Wharf::with_busybox();
    let script = "echo one; sleep 1; echo two; sleep 1; echo three";
    wharf.ok(&["run", "-d", "--name", "box", "--network", "none", "busybox", "sleep", "1000"]);
    let run = ["run", "--rm", "--network", "none", "busybox"];
    for command in [&run[..], &["exec", "box"]] {
        let mut client = wharf.command(&[command, &["sh", "-c", script]].concat());
        let mut client = client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("wharf");
        let mut first = [0; 4];
        client.stdout.take().expect("piped").read_exact(&mut first).expect("a line");
        let ended = client.wait_with_output().expect("its end");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!((&first, ended.status.code(), &*said), (b"one\n", Some(141), ""), "{command:?}");
    }
}

#[test]
fn memory_has_an_end() {
    let wharf = Wharf::with_busybox();
    let eater = "dd if=/dev/zero of=/dev/null bs=200M count=1";
    let ran = wharf.run(&["run", "--name", "eater", "-m", "50m", "--memory-swap", "50m", "busybox", "sh", "-c", eater]);
    assert_eq!(ran.code, 137, "{ran}");
    assert_eq!(wharf.ok(&["inspect", "-f", "{{.State.OOMKilled}}", "eater"]), "true");
}

#[test]
fn a_fork_bomb_is_contained() {
    let wharf = Wharf::with_busybox();
    let script = "n=0; while [ $n -lt 50 ]; do sleep 5 & n=$((n+1)); done; echo made $n";
    let ran = wharf.run(&["run", "--rm", "--pids-limit", "20", "busybox", "sh", "-c", script]);
    assert!(!ran.stdout.contains("made 50"), "{ran}");
    assert!(ran.stderr.contains("fork"), "{ran}");
}

#[test]
fn a_wasm_file_needs_no_image() {
    let wharf = Wharf::new();
    let tools = images::guest("tools-p1");
    wharf.exits(7, &["wasm", "run", &tools, "exit", "7"]);
    let shared = wharf.dir().join("shared");
    std::fs::create_dir(&shared).expect("a directory");
    let volume = format!("{}:/data", shared.display());
    wharf.ok(&["wasm", "run", "-v", &volume, &tools, "write", "/data/file", "written"]);
    assert_eq!(std::fs::read_to_string(shared.join("file")).expect("the guest's file"), "written");
    wharf.exits(1, &["wasm", "run", "-v", &format!("{volume}:ro"), &tools, "write", "/data/file", "again"]);
    let ran = wharf.run(&["wasm", "run", "--timeout", "500ms", &tools, "spin"]);
    assert_ne!(ran.code, 0, "an endless loop ends: {ran}");
    assert_eq!(wharf.ok(&["wasm", "run", &tools, "env"]), "", "only what was said");
    assert_eq!(wharf.ok(&["wasm", "run", "-e", "HOSTNAME=mine", "-e", "A=b c", &tools, "env"]), "HOSTNAME=mine\nA=b c");
}

#[test]
fn wasm_streams_and_arguments() {
    let wharf = Wharf::new();
    wharf.ok(&["wasm", "pack", &images::guest("tools-p2"), "-t", "tools"]);
    let ran = wharf.exits(0, &["run", "--rm", "tools", "both"]);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("to stdout\n", "to stderr\n"));
    let ran = wharf.run_with(&["run", "--rm", "-i", "tools", "cat"], b"through");
    assert_eq!(ran.stdout, "through", "{ran}");
    let environment = wharf.ok(&["run", "--rm", "-e", "A=b", "tools", "env"]);
    assert!(environment.lines().any(|l| l == "A=b"), "{environment}");
    let hog = wharf.run(&["run", "--rm", "-m", "64m", "tools", "hog"]);
    assert_ne!(hog.code, 0, "memory has an end: {hog}");
    assert!(!hog.stdout.contains("128 MB"), "{hog}");
}

fn line(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).expect("a line");
    line
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
    rustix::process::kill_process(pid, signal).expect("a living process");
}
