//! Containers where there is no Linux: the program built with the feature `portable`, which is what Windows and macOS
//! run, and the program for Windows itself, under Wine, where `WHARF_WINDOWS_PROGRAM` is the command that starts it.

// What these tests do not need, others do.
#[allow(dead_code, unused_imports)]
mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use support::wharf::{Ran, program, run, wait};
use support::{eventually, images, skip};
use tempfile::TempDir;

/// Wine takes its time, and so does a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// An instance of its own.
struct Wharf {
    dir: TempDir,
    /// The program for Windows, and what starts it.
    windows: Option<Vec<String>>,
}

impl Wharf {
    fn run(&self, args: &[&str]) -> Ran {
        let mut command = self.command(args);
        if self.windows.is_none() {
            return run(command, &[]);
        }
        // What Wine starts besides keeps pipes of ours open, so they are files.
        let place = |name| self.dir.path().join(name);
        let file = |name| File::create(place(name)).expect("a file");
        let said = |name| std::fs::read_to_string(place(name)).expect("text");
        let line = format!("{command:?}");
        let mut again = 0..5;
        loop {
            let mut child = command.stdout(file("stdout")).stderr(file("stderr")).spawn().expect("wine");
            let code = wait(&mut child, &line);
            let ran = Ran { line: line.clone(), code, stdout: said("stdout"), stderr: said("stderr") };
            // Wine's server has turned the program away before it could begin. It says so, or nothing at all: Wharf never
            // fails without a word.
            let is_silent = ran.code == 1 && ran.stdout.is_empty() && ran.stderr.is_empty();
            let is_away = ran.stderr.starts_with("wine client error:0: recvmsg") || is_silent;
            if !is_away || again.next().is_none() {
                return ran;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = match self.windows.as_deref() {
            Some([starter, rest @ ..]) => {
                let mut command = Command::new(starter);
                command.args(rest);
                command
            }
            _ => Command::new(program()),
        };
        let root = self.path(&self.dir.path().join("root"));
        command.args(args).env("WHARF_ROOT", root).stdin(Stdio::null());
        command
    }

    /// A path of this machine as the program knows it: Wine shows all of it as the drive `Z:`.
    fn path(&self, path: &Path) -> String {
        let path = path.to_str().expect("a plain path");
        if self.windows.is_some() { format!("Z:{}", path.replace('/', "\\")) } else { path.to_owned() }
    }

    fn exits(&self, code: i32, args: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, code, "{ran}");
        ran
    }

    fn ok(&self, args: &[&str]) -> String {
        self.exits(0, args).stdout.trim_end().to_owned()
    }

    fn pack(&self, guest: &str, name: &str) {
        let file = self.path(Path::new(&images::guest(guest)));
        self.ok(&["wasm", "pack", &file, "-t", name]);
    }

    fn state(&self, name: &str) -> String {
        self.ok(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name])
    }

    /// Starts a server in the background and waits until it listens.
    fn serve(&self, name: &str, flags: &[&str], args: &[&str]) {
        self.ok(&[&["run", "-d", "--name", name], flags, &["net"], args].concat());
        eventually("the server listens", PATIENCE, || {
            let logs = self.ok(&["logs", name]);
            assert!(!logs.contains("failed"), "{logs}");
            (logs.contains("listening on") || logs.contains("answering on")).then_some(())
        });
    }
}

impl Drop for Wharf {
    /// Nothing stays: neither a container nor a directory of one.
    fn drop(&mut self) {
        let ids = self.run(&["ps", "-aq"]).stdout;
        for id in ids.lines() {
            self.run(&["rm", "-f", id]);
        }
        if std::thread::panicking() {
            return;
        }
        assert_eq!(self.ok(&["ps", "-aq"]), "");
        for place in ["root/containers", "root/run/containers", "root/run/net"] {
            // A monitor tells of the end before it has tidied up.
            eventually(&format!("{place} is empty"), PATIENCE, || {
                let entries = std::fs::read_dir(self.dir.path().join(place)).into_iter().flatten();
                (entries.count() == 0).then_some(())
            });
        }
    }
}

/// Wine's server ends with the last of its programs, and whoever comes at that moment is turned away. So one stays, for
/// as long as its input is open: until these tests have ended, however they end.
fn keep_wine(windows: &[String]) {
    static KEPT: OnceLock<Child> = OnceLock::new();
    let [starter, program] = windows else { panic!("not a starter and a program: {windows:?}") };
    let beside = Path::new(program).parent().expect("a path");
    let stays = || {
        let mut command = Command::new(starter);
        command.arg("cmd").current_dir(beside).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("wine");
        let prompt = child.stdout.as_mut().expect("piped").read(&mut [0; 1]);
        prompt.is_ok_and(|read| read > 0).then_some(child)
    };
    KEPT.get_or_init(|| eventually("Wine is up", PATIENCE, stays));
}

/// Does it with each program that can be run here, in an instance with the guest `tools`.
fn everywhere(name: &str, test: impl Fn(&Wharf)) {
    let fresh = |windows| {
        let dir = tempfile::Builder::new().prefix("wharf-").tempdir().expect("a temporary directory");
        let wharf = Wharf { dir, windows };
        wharf.pack("tools-p2", "tools");
        wharf
    };
    test(&fresh(None));
    match std::env::var("WHARF_WINDOWS_PROGRAM") {
        Ok(line) => {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            keep_wine(&words);
            test(&fresh(Some(words)));
        }
        Err(_) => skip(&format!("windows-{name}"), "WHARF_WINDOWS_PROGRAM names no program for Windows"),
    }
}

/// What a server on this port answers, when it does.
fn got(port: u16, path: &str) -> String {
    eventually("it answers", PATIENCE, || {
        let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).ok()?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    })
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port()
}

#[test]
fn programs_run_and_exit_codes_come_through() {
    everywhere("exit-codes", |wharf| {
        assert!(wharf.ok(&["run", "--rm", "wharf/hello"]).starts_with("Hello from Wharf!"));
        assert_eq!(wharf.ok(&["run", "--rm", "tools", "args", "a b", "c"]), "tools\nargs\na b\nc");
        wharf.exits(42, &["run", "--rm", "tools", "exit", "42"]);
        let trapped = wharf.exits(134, &["run", "--rm", "tools", "trap"]);
        assert!(trapped.stderr.contains("unreachable") && trapped.stderr.contains("inner"), "{trapped}");
        let deep = wharf.exits(134, &["run", "--rm", "tools", "recurse"]);
        assert!(deep.stderr.contains("wasm trap"), "{deep}");
        let large = wharf.exits(134, &["run", "--rm", "-m", "64m", "tools", "hog"]);
        assert!(large.stderr.contains("memory limit of 67108864 bytes"), "{large}");
        let both = wharf.exits(0, &["run", "--rm", "tools", "both"]);
        assert_eq!((both.stdout.trim_end(), both.stderr.trim_end()), ("to stdout", "to stderr"));
        let refused = wharf.exits(125, &["run", "--rm", "--cpus", "1", "tools", "args"]);
        assert!(refused.stderr.contains("--cpus cannot be enforced on this system"), "{refused}");
        let terminal = wharf.exits(125, &["run", "--rm", "-t", "tools", "args"]);
        assert!(terminal.stderr.contains("--tty: not supported on this system"), "{terminal}");
        assert_eq!(wharf.ok(&["ps", "-aq"]), "", "neither --rm nor a start that failed leaves anything");
    });
}

#[test]
fn programs_of_wasi_0_3_run_too() {
    everywhere("wasi-0.3", |wharf| {
        for guest in ["command", "service"] {
            wharf.pack(&format!("{guest}-p3"), guest);
        }
        assert_eq!(wharf.ok(&["run", "--rm", "command"]), "Hello, WASI 0.3!");
        wharf.exits(7, &["run", "--rm", "command", "exit", "7"]);
        assert_eq!(wharf.ok(&["run", "--rm", "command", "sleep", "50"]), "slept");
        // Links are not to be had everywhere, nor the kernel's words for what sockets refuse.
        if wharf.windows.is_none() {
            assert_eq!(wharf.ok(&["run", "--rm", "command", "files", "."]), "files are files");
            assert_eq!(wharf.ok(&["run", "--rm", "command", "states"]), "sockets are sockets");
        }
        wharf.ok(&["run", "-d", "--name", "echo", "command", "serve", "80"]);
        eventually("the server listens", PATIENCE, || wharf.ok(&["logs", "echo"]).contains("listening").then_some(()));
        assert_eq!(wharf.ok(&["run", "--rm", "command", "dial", "echo", "80", "300000"]), "300000 bytes came back");
        let port = free_port();
        wharf.ok(&["run", "-d", "--name", "web", "-p", &format!("127.0.0.1:{port}:80"), "service"]);
        let hello = got(port, "/hello");
        assert!(hello.starts_with("HTTP/1.1 200 OK") && hello.contains("Hello, HTTP 0.3!"), "{hello}");
    });
}

#[test]
fn input_reaches_the_guest() {
    everywhere("input", |wharf| {
        let text: Vec<u8> = (0..200_000u32).flat_map(|n| n.to_le_bytes()).collect();
        let mut child = wharf
            .command(&["run", "-i", "--rm", "tools", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("wharf starts");
        let (mut input, mut output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut back = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                input.write_all(&text).expect("sent");
                drop(input);
            });
            output.read_to_end(&mut back).expect("received");
        });
        assert_eq!(wait(&mut child, "cat"), 0);
        assert!(back == text, "{} of {} bytes came back, or others", back.len(), text.len());
    });
}

#[test]
fn files_are_the_hosts_or_a_volumes() {
    everywhere("files", |wharf| {
        let shared = wharf.dir.path().join("shared");
        std::fs::create_dir(&shared).expect("a directory");
        std::fs::write(shared.join("note"), "from the host").expect("a file");
        let bind = format!("{}:/data", wharf.path(&shared));
        assert_eq!(wharf.ok(&["run", "--rm", "-v", &bind, "tools", "cat", "/data/note"]), "from the host");
        wharf.ok(&["run", "--rm", "-v", &bind, "tools", "write", "/data/answer", "from the guest"]);
        assert_eq!(std::fs::read_to_string(shared.join("answer")).expect("a file"), "from the guest");
        wharf.ok(&["run", "--rm", "-v", &bind, "tools", "mv", "/data/answer", "/data/moved"]);
        wharf.ok(&["run", "--rm", "-v", &bind, "tools", "mkdir", "/data/below"]);
        assert_eq!(wharf.ok(&["run", "--rm", "-v", &bind, "tools", "ls", "/data"]), "below\nmoved\nnote");
        let fixed = format!("{bind}:ro");
        wharf.exits(1, &["run", "--rm", "-v", &fixed, "tools", "write", "/data/note", "x"]);
        let mount = format!("type=bind,source={},target=/data", wharf.path(&shared));
        assert_eq!(wharf.ok(&["run", "--rm", "--mount", &mount, "tools", "cat", "/data/moved"]), "from the guest");
        // Links lead nowhere but inside.
        wharf.exits(1, &["run", "--rm", "-v", &bind, "tools", "cat", "/data/../../../etc/passwd"]);

        let volume = ["run", "--rm", "-v", "data:/data", "tools"];
        wharf.ok(&[&volume[..], &["write", "/data/a", "kept"]].concat());
        wharf.ok(&[&volume[..], &["append", "/data/a", " here"]].concat());
        assert_eq!(wharf.ok(&[&volume[..], &["cat", "/data/a"]].concat()), "kept here");
        assert_eq!(wharf.ok(&["volume", "ls", "-q"]), "data");
        wharf.ok(&["volume", "rm", "data"]);

        wharf.ok(&["create", "--name", "box", "tools", "args"]);
        wharf.ok(&["cp", &wharf.path(&shared.join("note")), "box:/copied"]);
        let out = shared.join("back");
        wharf.ok(&["cp", "box:/copied", &wharf.path(&out)]);
        assert_eq!(std::fs::read_to_string(out).expect("a file"), "from the host");
    });
}

#[test]
fn containers_live_and_end() {
    everywhere("life", |wharf| {
        wharf.ok(&["run", "-d", "--name", "sleeper", "tools", "sleep", "600000"]);
        assert!(wharf.ok(&["ps", "--format", "{{.Names}} {{.Status}}"]).starts_with("sleeper Up "));
        wharf.ok(&["stop", "-t", "5", "sleeper"]);
        assert_eq!(wharf.state("sleeper"), "exited 143");
        wharf.ok(&["start", "sleeper"]);
        wharf.ok(&["kill", "sleeper"]);
        assert_eq!(wharf.state("sleeper"), "exited 137");
        // One that computes and never asks for anything is ended like any other.
        wharf.ok(&["run", "-d", "--name", "spinner", "tools", "spin"]);
        let mut waiter = wharf.command(&["wait", "spinner"]).stdout(Stdio::piped()).spawn().expect("wharf starts");
        let busy = wharf.exits(1, &["rm", "spinner"]);
        assert!(busy.stderr.contains("container is running"), "{busy}");
        wharf.ok(&["kill", "-s", "INT", "spinner"]);
        assert_eq!(wait(&mut waiter, "wait"), 0);
        let mut code = String::new();
        waiter.stdout.take().expect("piped").read_to_string(&mut code).expect("text");
        assert_eq!(code.trim_end(), "130");
        let file = wharf.path(Path::new(&images::guest("tools-p2")));
        let late = wharf.exits(137, &["wasm", "run", "--timeout", "500ms", &file, "spin"]);
        assert!(late.stderr.contains("the time limit (--timeout) was reached"), "{late}");

        wharf.ok(&["run", "--name", "said", "tools", "both"]);
        let logs = wharf.run(&["logs", "said"]);
        assert_eq!((logs.stdout.trim_end(), logs.stderr.trim_end()), ("to stdout", "to stderr"));
        wharf.ok(&["rename", "said", "spoken"]);
        wharf.exits(0, &["start", "-a", "spoken"]);
        assert_eq!(wharf.ok(&["logs", "spoken"]).lines().count(), 2, "the second run is written behind the first");

        wharf.ok(&["run", "-d", "--name", "again", "--restart", "on-failure:2", "tools", "exit", "3"]);
        eventually("it is given up", PATIENCE, || (wharf.state("again") == "exited 3").then_some(()));
        assert_eq!(wharf.ok(&["inspect", "-f", "{{.RestartCount}}", "again"]), "2");
        let refused = wharf.exits(1, &["exec", "again", "x"]);
        assert!(refused.stderr.contains("is not running"), "{refused}");
    });
}

#[test]
fn a_monitor_that_dies_takes_its_guest_along() {
    // Wine's process ids are not this machine's.
    let dir = tempfile::Builder::new().prefix("wharf-").tempdir().expect("a temporary directory");
    let wharf = Wharf { dir, windows: None };
    wharf.pack("tools-p2", "tools");
    let id = wharf.ok(&["run", "-d", "--name", "orphan", "tools", "spin"]);
    let processes = || {
        let all = std::fs::read_dir("/proc").expect("/proc").flatten();
        let line = |dir: &std::fs::DirEntry| std::fs::read_to_string(dir.path().join("cmdline")).unwrap_or_default();
        let pid = |dir: std::fs::DirEntry| dir.file_name().to_string_lossy().parse::<i32>().ok();
        all.filter(|dir| line(dir).contains(&id)).filter_map(pid).collect::<Vec<_>>()
    };
    let guest: i32 = wharf.ok(&["inspect", "-f", "{{.State.Pid}}", "orphan"]).parse().expect("a process id");
    let [monitor] = processes()[..] else { panic!("{:?}", processes()) };
    support::tool(Command::new("kill").args(["-9", &monitor.to_string()]));
    eventually("its death is found", PATIENCE, || (wharf.state("orphan") == "exited 137").then_some(()));
    let alive =
        || std::fs::read_to_string(format!("/proc/{guest}/cmdline")).is_ok_and(|line| line.contains("wharf-task"));
    eventually("the guest's process has ended", PATIENCE, || (!alive()).then_some(()));
    wharf.ok(&["start", "orphan"]);
    assert!(wharf.state("orphan").starts_with("running"));
}

fn echoed(port: u16, data: &[u8]) {
    let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut writer = stream.try_clone().expect("a copy");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            writer.write_all(data).expect("sent");
            writer.shutdown(Shutdown::Write).expect("half closed");
        });
        let mut back = Vec::with_capacity(data.len());
        stream.read_to_end(&mut back).expect("everything comes back");
        assert!(back == data, "{} of {} bytes came back, or others", back.len(), data.len());
    });
}

#[test]
fn ports_are_published_and_neighbours_found_by_name() {
    everywhere("sockets", |wharf| {
        wharf.pack("net-p2", "net");
        let port = free_port();
        let spec = format!("127.0.0.1:{port}:80");
        wharf.serve("web", &["-p", &spec], &["echo", "0.0.0.0:80"]);
        assert_eq!(wharf.ok(&["port", "web"]), format!("80/tcp -> 127.0.0.1:{port}"));
        let data: Vec<u8> = (0..1_000_000u32).map(|n| (n * 7 / 3) as u8).collect();
        echoed(port, &data);
        let said = wharf.ok(&["run", "--rm", "net", "client", "web:80", "65536", "20"]);
        assert_eq!(said, "20 connections, 65536 bytes each, all came back");
        let taken = wharf.exits(125, &["run", "--rm", "-p", &spec, "net", "echo", "0.0.0.0:80"]);
        assert!(taken.stderr.contains("port is already allocated"), "{taken}");

        wharf.serve("oracle", &[], &["answer", "0.0.0.0:53"]);
        let answer = wharf.ok(&["run", "--rm", "net", "ask", "oracle:53", "who"]);
        assert!(answer.contains("answered: who from 172.30."), "{answer}");

        // What is denied to a container is denied here too.
        let metadata = wharf.run(&["run", "--rm", "net", "dial", "169.254.169.254:80"]);
        assert!(metadata.stderr.contains("--allow-net 169.254.169.254:80 would allow it"), "{metadata}");
        let alone = wharf.run(&["run", "--rm", "--deny-net", "*", "net", "dial", "web:80"]);
        assert!(alone.stderr.contains("denied"), "{alone}");
        wharf.ok(&["stop", "-t", "1", "web"]);
        assert!(TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).is_err(), "nobody has the port now");
        let gone = wharf.run(&["run", "--rm", "net", "dial", "web:80"]);
        assert!(gone.stdout.contains("failed"), "{gone}");
    });
}

#[test]
fn a_container_is_on_several_networks() {
    everywhere("networks", |wharf| {
        wharf.pack("net-p2", "net");
        let networks = [("one", "10.222.121"), ("two", "10.222.122"), ("far", "10.222.123")];
        for (name, prefix) in networks {
            wharf.ok(&["network", "create", "--subnet", &format!("{prefix}.0/24"), name]);
        }
        wharf.ok(&["network", "create", "--internal", "shut"]);
        let port = free_port();
        let spec = format!("127.0.0.1:{port}:80");
        // Which leads out does not depend on the order: nothing leads in by the first.
        let on = ["--network", "shut", "--network", "name=two,ip=10.222.122.9", "--network", "name=one,alias=first"];
        wharf.serve("hub", &[&on[..], &["-p", &spec]].concat(), &["peer", "0.0.0.0:80"]);
        wharf.serve("oracle", &["--network", "two", "--network", "one"], &["answer", "0.0.0.0:53"]);
        assert!(wharf.run(&["run", "--rm", "--network", "far", "net", "dial", "hub:80"]).stdout.contains("failed"));
        let run = |network: &str, words: &[&str]| {
            wharf.run(&[&["run", "--rm", "--network", network, "net"], words].concat()).stdout
        };
        let address = |name: &str, network: &str| {
            wharf.ok(&["inspect", "-f", &format!("{{{{.NetworkSettings.Networks.{network}.IPAddress}}}}"), name])
        };
        assert_eq!(address("hub", "two"), "10.222.122.9");
        for (network, prefix) in &networks[..2] {
            let own = address("hub", network);
            assert!(own.starts_with(prefix), "{own}");
            for to in ["hub", "hub.two", "hub.one", &own] {
                let said = run(network, &["dial", &format!("{to}:80")]);
                let elsewhere = to.starts_with("hub.") && !to.ends_with(network);
                assert!(said.contains(&format!("you are {prefix}.")) != elsewhere, "{network}, {to}: {said}");
                assert!(said.contains(&format!("connected to {own}:80")) != elsewhere, "{network}, {to}: {said}");
            }
            let answer = run(network, &["ask", "oracle:53", "who"]);
            let expected = format!("{}:53 answered: who from {prefix}.", address("oracle", network));
            assert!(answer.contains(&expected), "{network}: {answer}");
        }
        // An alias is one on its network, and networks are apart, by addresses too.
        assert!(run("one", &["dial", "first:80"]).contains("you are"));
        assert!(run("two", &["dial", "first:80"]).contains("failed"));
        for (from, network) in [("one", "two"), ("two", "one"), ("far", "one")] {
            let said = run(from, &["dial", &format!("{}:80", address("hub", network))]);
            assert!(!said.contains("you are"), "{from}: {said}");
            let said = run(from, &["ask", &format!("{}:53", address("oracle", network)), "who"]);
            assert!(!said.contains("answered"), "{from}: {said}");
        }
        let mut said = String::new();
        let mut outside = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).expect("a connection");
        outside.shutdown(Shutdown::Write).expect("half closed");
        outside.read_to_string(&mut said).expect("an answer");
        assert!(said.contains("you are"), "{said}");
        wharf.ok(&["rm", "-f", "hub", "oracle"]);
        wharf.ok(&["network", "rm", "one", "two", "far", "shut"]);
    });
}

#[test]
fn a_container_comes_to_networks_and_leaves_them_while_it_runs() {
    everywhere("reconnect", |wharf| {
        wharf.pack("net-p2", "net");
        wharf.pack("http", "http");
        for (name, prefix) in [("one", "10.222.124"), ("two", "10.222.125")] {
            wharf.ok(&["network", "create", "--subnet", &format!("{prefix}.0/24"), name]);
        }
        wharf.ok(&["network", "create", "--internal", "shut"]);
        let (port, web) = (free_port(), free_port());
        wharf.serve("hub", &["--network", "one", "-p", &format!("127.0.0.1:{port}:80")], &["peer", "0.0.0.0:80"]);
        wharf.serve("oracle", &["--network", "one"], &["answer", "0.0.0.0:53"]);
        wharf.ok(&["run", "-d", "--name", "site", "--network", "one", "-p", &format!("127.0.0.1:{web}:80"), "http"]);
        let found = |network: &str, words: &[&str]| {
            let said = wharf.run(&[&["run", "--rm", "--network", network, "net"], words].concat()).stdout;
            said.contains("you are") || said.contains("answered: who")
        };
        let (hub, oracle, alias) = (["dial", "hub:80"], ["ask", "oracle:53", "who"], ["dial", "second:80"]);
        let leads_in = || {
            // What is let in by nobody is closed without a word.
            let mut said = String::new();
            let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port)));
            let _ = stream.and_then(|mut stream| {
                stream.shutdown(Shutdown::Write)?;
                stream.read_to_string(&mut said)
            });
            let mut answer = [0; 4];
            let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], web)));
            let answered = stream.and_then(|mut stream| {
                stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
                stream.read_exact(&mut answer)
            });
            assert_eq!(said.starts_with("you are"), answered.is_ok(), "both lead in, or none");
            answered.is_ok()
        };
        got(web, "/");
        assert!(found("one", &hub) && found("one", &oracle) && leads_in());
        assert!(!found("two", &hub) && !found("two", &oracle));

        wharf.ok(&["network", "connect", "--alias", "second", "--ip", "10.222.125.7", "two", "hub"]);
        wharf.ok(&["network", "connect", "two", "oracle"]);
        for network in ["one", "two"] {
            assert!(found(network, &hub) && found(network, &oracle), "{network}");
        }
        assert!(found("two", &alias) && !found("one", &alias));
        let address = "{{.NetworkSettings.Networks.two.IPAddress}}";
        assert_eq!(wharf.ok(&["inspect", "-f", address, "hub"]), "10.222.125.7");
        let again = wharf.exits(1, &["network", "connect", "two", "hub"]);
        assert!(again.stderr.contains("already exists in network two"), "{again}");

        wharf.ok(&["network", "disconnect", "one", "hub"]);
        wharf.ok(&["network", "disconnect", "one", "oracle"]);
        assert!(!found("one", &hub) && !found("one", &oracle));
        assert!(found("two", &hub) && found("two", &oracle));
        assert!(leads_in(), "by the other network");

        // On none that leads out nothing leads in either; and one has all its places again after a new start.
        wharf.ok(&["network", "connect", "shut", "hub"]);
        for name in ["hub", "site"] {
            wharf.ok(&["network", "disconnect", if name == "hub" { "two" } else { "one" }, name]);
        }
        assert!(!leads_in() && found("shut", &hub));
        let gone = wharf.exits(1, &["network", "disconnect", "two", "hub"]);
        assert!(gone.stderr.contains("is not connected to network two"), "{gone}");
        wharf.ok(&["network", "connect", "one", "hub"]);
        wharf.ok(&["network", "connect", "one", "site"]);
        assert!(leads_in() && found("one", &hub));
        wharf.ok(&["restart", "-t", "1", "hub"]);
        eventually("it listens again", PATIENCE, || found("one", &hub).then_some(()));
        assert!(found("shut", &hub) && leads_in());
        wharf.ok(&["rm", "-f", "hub", "oracle", "site"]);
        wharf.ok(&["network", "rm", "one", "two", "shut"]);
    });
}

#[test]
fn containers_meet_by_ipv6() {
    everywhere("six", |wharf| {
        wharf.pack("net-p2", "net");
        for (name, subnet) in [("six", "fd00:226:1::/64"), ("far", "fd00:226:2::/64")] {
            wharf.ok(&["network", "create", "--ipv6", "--subnet", subnet, name]);
        }
        let on = ["--network", "six"];
        wharf.serve("web", &["--network", "name=six,ip6=fd00:226:1::77"], &["peer", "[::]:80"]);
        wharf.serve("four", &on, &["peer", "0.0.0.0:80"]);
        wharf.serve("oracle", &on, &["answer", "[::]:53"]);
        let shown = |name: &str, field: &str| {
            let field = format!("{{{{.NetworkSettings.Networks.six.{field}}}}}");
            wharf.ok(&["inspect", "-f", &field, name])
        };
        assert_eq!(shown("web", "GlobalIPv6Address"), "fd00:226:1::77");
        let (four, oracle) = (shown("four", "GlobalIPv6Address"), shown("oracle", "GlobalIPv6Address"));
        let run = |network: &str, words: &[&str]| {
            wharf.run(&[&["run", "--rm", "--network", network, "net"], words].concat()).stdout
        };
        let said = run("six", &["dial", "[fd00:226:1::77]:80"]);
        assert!(said.contains("connected to [fd00:226:1::77]:80 from [fd00:226:1::"), "{said}");
        assert!(said.contains("you are [fd00:226:1::"), "{said}");
        let web = shown("web", "IPAddress");
        assert!(run("six", &["dial", "web:80"]).contains(&format!("connected to {web}:80")), "by IPv4 too");
        assert_eq!(run("six", &["lookup", "web"]).trim().replace("\r\n", "\n"), format!("{web}\nfd00:226:1::77"));
        assert!(run("six", &["dial", &format!("[{four}]:80")]).contains("failed"), "it listens on IPv4 only");
        let answer = run("six", &["ask", &format!("[{oracle}]:53"), "who"]);
        assert!(answer.contains(&format!("[{oracle}]:53 answered: who from [fd00:226:1::")), "{answer}");
        // Networks are apart, and what is denied is denied.
        assert!(!run("far", &["ask", &format!("[{oracle}]:53"), "who"]).contains("answered"));
        let alone = ["run", "--rm", "--network", "six", "--deny-net", "fd00:226:1::/64", "net", "dial"];
        let alone = wharf.run(&[&alone[..], &["[fd00:226:1::77]:80"]].concat());
        assert!(alone.stdout.contains("PermissionDenied") && alone.stderr.contains("--deny-net"), "{alone}");
        wharf.ok(&["rm", "-f", "web", "four", "oracle"]);
        wharf.ok(&["network", "rm", "six", "far"]);
    });
}

#[test]
fn a_component_serves_http_until_it_is_stopped() {
    everywhere("http", |wharf| {
        wharf.pack("http", "http");
        let port = free_port();
        wharf.ok(&["run", "-d", "--name", "site", "-p", &format!("127.0.0.1:{port}:80"), "http"]);
        let answer = got(port, "/nowhere");
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        wharf.ok(&["stop", "-t", "10", "site"]);
        assert_eq!(wharf.state("site"), "exited 143");
        assert!(wharf.ok(&["logs", "site"]).contains("GET /nowhere 404"));
    });
}
