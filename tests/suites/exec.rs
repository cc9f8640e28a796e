//! `exec` in WebAssembly containers: another program, with the same files, network, limits and end.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::support::terminal::Terminal;
use crate::support::{Wharf, eventually, images, wharf};

const PATIENCE: Duration = Duration::from_secs(60);

/// A container `host` of an image that has a root filesystem with programs in it, which does nothing by itself.
fn with_host(flags: &[&str]) -> Wharf {
    let wharf = Wharf::new();
    let tools = images::read(&images::guest("tools-p1"));
    let net = images::read(&images::guest("net-p2"));
    let files: [(&str, &[u8]); 5] = [
        ("app.wasm", &tools),
        ("bin/tools.wasm", &tools),
        ("bin/net.wasm", &net),
        ("bin/forged.wasm", b"\x7fELF\x02\x01\x01\xc8 compiled elsewhere"),
        ("etc/motd", b"no program"),
    ];
    let config = json!({"Entrypoint": ["/app.wasm"], "Env": ["PATH=/sbin:/bin", "FIRST=1", "GONE=1"]});
    wharf.load(&images::wasm_files("programs", &files, &config));
    wharf.ok(&[&["run", "-d", "--name", "host"][..], flags, &["programs", "sleep", "600000"]].concat());
    wharf
}

fn waits_for(wharf: &Wharf, name: &str, path: &str, text: &str) {
    eventually(text, PATIENCE, || {
        let ran = wharf.run(&["exec", name, "tools.wasm", "cat", path]);
        (ran.stdout == text).then_some(())
    });
}

#[test]
fn programs_of_the_root_filesystem() {
    let wharf = with_host(&["-e", "SECOND=2"]);
    for program in ["tools.wasm", "/bin/tools.wasm", "bin/tools.wasm"] {
        assert_eq!(wharf.ok(&["exec", "host", program, "args", "two words"]), format!("{program}\nargs\ntwo words"));
    }
    wharf.exits(42, &["exec", "host", "tools.wasm", "exit", "42"]);
    wharf.exits(134, &["exec", "host", "tools.wasm", "trap"]);
    let env = wharf.ok(&["exec", "-e", "SECOND=3", "-e", "GONE", "-e", "NEW=4", "host", "tools.wasm", "env"]);
    let has = |line: &str| env.lines().any(|known| known == line);
    assert!(has("FIRST=1") && has("SECOND=3") && has("NEW=4") && !env.contains("GONE"), "{env}");
    let ran = wharf.run_with(&["exec", "-i", "host", "tools.wasm", "cat"], b"through");
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "through"), "{ran}");
    let both = wharf.exits(0, &["exec", "host", "tools.wasm", "both"]);
    assert_eq!((both.stdout.as_str(), both.stderr.as_str()), ("to stdout\n", "to stderr\n"));

    // The working directory, and what is not there.
    assert_eq!(wharf.ok(&["exec", "-w", "/etc", "host", "tools.wasm", "cat", "motd"]), "no program");
    for cwd in ["/nope", "etc"] {
        let refused = wharf.exits(126, &["exec", "-w", cwd, "host", "tools.wasm", "args"]);
        assert!(refused.stderr.contains(&format!("cwd (\"{cwd}\")")), "{refused}");
    }
    assert_eq!(wharf.ok(&["exec", "host", "tools.wasm", "ls", "/"]), "app.wasm\nbin\netc", "nothing was made");
    for (code, program, why) in [
        (127, "nope.wasm", "no such file in the container"),
        (127, "/bin/nope.wasm", "no such file in the container"),
        (127, "/../../bin/sh", "no such file in the container"),
        (126, "/etc", "permission denied"),
        (126, "etc/motd", "not WebAssembly"),
        (126, "forged.wasm", ".cwasm"),
    ] {
        let refused = wharf.exits(code, &["exec", "host", program]);
        assert!(refused.stderr.contains(why), "{refused}");
    }
    let user = wharf.exits(0, &["exec", "-u", "anna", "host", "tools.wasm", "args"]);
    assert!(user.stderr.contains("--user has no effect"), "{user}");
    wharf.exits(1, &["exec", "--privileged", "host", "tools.wasm", "args"]);
    assert!(wharf.exits(1, &["exec", "host"]).stderr.contains("requires at least 2 arguments"));
    assert_eq!(wharf.ok(&["ps", "--format", "{{.Names}}"]), "host", "nothing of this was its end");
}

#[test]
fn a_terminal_in_a_wasm_exec() {
    let wharf = with_host(&[]);
    let mut shell = Terminal::start(&wharf.command(&["exec", "-it", "host", "tools.wasm", "cat"]));
    shell.send("typed\n");
    // Once as it is typed and once as it comes back, with the line's ends of a terminal.
    shell.expect("typed\r\n");
    shell.expect("typed\r\n");
    shell.send("\u{4}");
    assert_eq!(shell.wait(), 0, "{}", shell.screen());
}

#[test]
fn files_are_shared() {
    let wharf = with_host(&["-v", "data:/data", "--tmpfs", "/scratch"]);
    for dir in ["", "/data", "/scratch"] {
        let path = format!("{dir}/made");
        wharf.ok(&["exec", "-d", "host", "tools.wasm", "write", &path, "by one"]);
        waits_for(&wharf, "host", &path, "by one");
        wharf.ok(&["exec", "host", "tools.wasm", "append", &path, ", by another"]);
        assert_eq!(wharf.ok(&["exec", "host", "tools.wasm", "cat", &path]), "by one, by another");
    }
    // In the container's own layer and in the volume, not in the image.
    assert_eq!(wharf.ok(&["diff", "host"]), "A /made");
    wharf.ok(&["exec", "host", "tools.wasm", "rm", "/etc/motd"]);
    wharf.exits(1, &["exec", "host", "tools.wasm", "cat", "/etc/motd"]);
    // A program that came in with the container's own layer or a volume is one too.
    wharf.ok(&["cp", &images::guest("tools-p2"), "host:/data/mine.wasm"]);
    assert_eq!(wharf.ok(&["exec", "host", "/data/mine.wasm", "args"]), "/data/mine.wasm\nargs");
    wharf.ok(&["exec", "host", "tools.wasm", "write", "/data/mine.wasm", "changed"]);
    wharf.exits(126, &["exec", "host", "/data/mine.wasm", "args"]);
    wharf.ok(&["rm", "-f", "host"]);
    wharf.ok(&["volume", "rm", "data"]);
}

#[test]
fn the_network_is_shared() {
    let wharf = with_host(&["-p", "127.0.0.1::80"]);
    let server = wharf.spawn(&["exec", "host", "net.wasm", "echo", "127.0.0.1:7000"]);
    let alive = |server: &mut std::process::Child| {
        let mut said = [0; 12];
        server.stdout.as_mut().expect("piped").read_exact(&mut said).expect("a line");
        assert_eq!(&said, b"listening on");
    };
    let mut server = server;
    alive(&mut server);
    // The container's own loopback, from another exec, and from nowhere else.
    let line = "3 connections, 65536 bytes each, all came back";
    assert_eq!(wharf.ok(&["exec", "host", "net.wasm", "client", "127.0.0.1:7000", "65536", "3"]), line);
    let taken = wharf.exits(1, &["exec", "host", "net.wasm", "echo", "127.0.0.1:7000"]);
    assert!(taken.stdout.contains("failed"), "{taken}");
    wharf.ok(&["wasm", "pack", &images::guest("net-p2"), "-t", "net"]);
    wharf.exits(1, &["run", "--rm", "net", "client", "host:7000", "1"]);

    // What it had is free when it has ended, however that was.
    server.kill().expect("the client ends");
    server.wait().expect("a child");
    let pid = wharf.ok(&["top", "host"]).lines().find(|line| line.contains("echo")).map(str::to_owned);
    assert!(pid.is_some(), "without a terminal the program goes on, as docker's does");
    wharf.ok(&["restart", "-t", "0", "host"]);
    let mut server = wharf.spawn(&["exec", "host", "net.wasm", "echo", "0.0.0.0:80"]);
    alive(&mut server);
    // The container's published port, and its name.
    let at = wharf.ok(&["port", "host", "80"]);
    let mut stream = TcpStream::connect(at.trim()).expect("the published port");
    stream.write_all(b"hello").expect("sent");
    let mut back = [0; 5];
    stream.read_exact(&mut back).expect("echoed");
    assert_eq!(&back, b"hello");
    assert_eq!(wharf.ok(&["run", "--rm", "net", "client", "host:80", "65536", "3"]), line);
    wharf.ok(&["kill", "host"]);
    assert_eq!(wharf::wait(&mut server, "exec"), 137);
}

#[test]
fn the_containers_end_is_theirs() {
    let wharf = with_host(&[]);
    let mut spinning = wharf.spawn(&["exec", "host", "tools.wasm", "spin"]);
    wharf.ok(&["exec", "-d", "host", "tools.wasm", "spin"]);
    eventually("three processes", PATIENCE, || (wharf.ok(&["top", "host"]).lines().count() == 4).then_some(()));
    let pids = wharf.ok(&["stats", "--no-stream", "--format", "{{.PIDs}}", "host"]);
    assert!(pids.parse::<u32>().is_ok_and(|pids| pids >= 3), "{pids}");

    wharf.ok(&["pause", "host"]);
    let frozen = wharf.exits(1, &["exec", "host", "tools.wasm", "args"]);
    assert!(frozen.stderr.contains("is paused, unpause the container before exec"), "{frozen}");
    wharf.ok(&["unpause", "host"]);
    wharf.ok(&["exec", "host", "tools.wasm", "args"]);

    wharf.ok(&["stop", "-t", "30", "host"]);
    assert_eq!(wharf::wait(&mut spinning, "exec"), 137);
    assert_eq!(wharf.ok(&["inspect", "-f", "{{.State.ExitCode}}", "host"]), "143");
    let late = wharf.exits(1, &["exec", "host", "tools.wasm", "args"]);
    assert!(late.stderr.contains("is not running"), "{late}");
    // An exec's own end, by what it takes, is not the container's.
    wharf.ok(&["start", "host"]);
    let mut alone = wharf.spawn(&["exec", "host", "tools.wasm", "spin"]);
    let spin = || {
        let top = wharf.ok(&["top", "host"]);
        let line = top.lines().find(|line| line.contains("spin"))?;
        // After its user.
        line.split_whitespace().nth(1)?.parse().ok()
    };
    let pid = eventually("it spins", PATIENCE, spin);
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).expect("a pid"), rustix::process::Signal::KILL)
        .expect("killed");
    assert_eq!(wharf::wait(&mut alone, "exec"), 137);
    assert_eq!(wharf.ok(&["ps", "--format", "{{.Names}}"]), "host");
}

/// Without root there may be no cgroup by which execs are found.
#[test]
fn without_root_the_end_is_theirs_too() {
    let wharf = Wharf::of("wharf-test");
    wharf.ok(&["wasm", "pack", &images::guest("tools-p1"), "-t", "tools"]);
    wharf.ok(&["run", "-d", "--name", "host", "tools", "sleep", "600000"]);
    let exec = ["exec", "--tool-image", "tools", "host"];
    assert_eq!(wharf.ok(&[&exec[..], &["args", "x"]].concat()), "tools\nargs\nx");
    let mut spinning = wharf.spawn(&[&exec[..], &["spin"]].concat());
    eventually("two processes", PATIENCE, || (wharf.ok(&["top", "host"]).lines().count() == 3).then_some(()));
    let top = wharf.ok(&["top", "host"]);
    let pids: Vec<&str> = top.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
    wharf.ok(&["kill", "host"]);
    assert_eq!(wharf::wait(&mut spinning, "exec"), 137);
    // Their clients are told before they are gone.
    for pid in pids {
        let process = std::path::Path::new("/proc").join(pid);
        eventually("the end of a process", PATIENCE, || (!process.exists()).then_some(()));
    }
}

#[test]
fn programs_of_other_images() {
    let wharf = Wharf::new();
    wharf.ok(&["wasm", "pack", &images::guest("hello"), "-t", "hello"]);
    wharf.ok(&["wasm", "pack", &images::guest("tools-p2"), "-t", "tools"]);
    wharf.ok(&["wasm", "pack", &images::guest("http"), "-t", "server"]);
    wharf.ok(&["run", "-d", "--name", "host", "-v", "data:/data", "tools", "sleep", "600000"]);
    let refused = wharf.exits(127, &["exec", "host", "tools.wasm", "args"]);
    assert!(refused.stderr.contains("--tool-image"), "{refused}");
    let tool = |args: &[&str]| wharf.ok(&[&["exec", "--tool-image", "tools", "host"], args].concat());
    assert_eq!(tool(&["args", "x"]), "tools\nargs\nx");
    tool(&["write", "/data/x", "kept"]);
    assert_eq!(tool(&["cat", "/data/x"]), "kept");
    assert!(wharf.ok(&["exec", "--tool-image", "hello", "host"]).starts_with("Hello"));
    assert!(
        wharf.ok(&["exec", "--tool-image", "wharf/hello", "host"]).starts_with("Hello"),
        "as any image, it is brought"
    );
    let serves = wharf.exits(126, &["exec", "--tool-image", "server", "host"]);
    assert!(serves.stderr.contains("serves HTTP"), "{serves}");

    // Its program lies among its files; what it sees are the container's.
    let tools = images::read(&images::guest("tools-p1"));
    let config = json!({"Entrypoint": ["/app.wasm"], "Cmd": ["args", "by default"]});
    wharf.load(&images::wasm_files("files", &[("app.wasm", &tools), ("own", b"")], &config));
    for _ in 0..2 {
        assert_eq!(wharf.ok(&["exec", "--tool-image", "files", "host"]), "/app.wasm\nargs\nby default");
    }
    assert_eq!(wharf.ok(&["exec", "--tool-image", "files", "host", "ls", "/"]), "data");

    // A server has execs as any container has.
    wharf.ok(&["run", "-d", "--name", "web", "server"]);
    assert_eq!(wharf.ok(&["exec", "--tool-image", "tools", "web", "args"]), "tools\nargs");

    // Not between the kinds.
    wharf.load(&images::busybox());
    let linux = wharf.exits(1, &["exec", "--tool-image", "busybox", "host", "true"]);
    assert!(linux.stderr.contains("is no WebAssembly image"), "{linux}");
    wharf.ok(&["run", "-d", "--name", "linux", "--network", "none", "busybox", "sleep", "1000"]);
    let linux = wharf.exits(1, &["exec", "--tool-image", "tools", "linux", "args"]);
    assert!(linux.stderr.contains("WebAssembly containers only"), "{linux}");
}
