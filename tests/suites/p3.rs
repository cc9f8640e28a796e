//! Programs of WASI 0.3: the same containers, files, networks and limits as those of 0.2 have, through the component
//! model's own streams and waiting.
//!
//! The guests are `tests/guests/p3/src/command.rs` and `service.rs`, which know nothing of Wharf.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::support::http::{Client, get};
use crate::support::{Wharf, eventually, images};

const PATIENCE: Duration = Duration::from_secs(60);

/// An instance with the guests as the images `command` and `service`.
fn with_guests() -> Wharf {
    let wharf = Wharf::new();
    for guest in ["command", "service"] {
        wharf.ok(&["wasm", "pack", &images::guest(&format!("{guest}-p3")), "-t", guest]);
    }
    wharf
}

/// Starts a server in the background and waits until it listens.
fn serve(wharf: &Wharf, name: &str, args: &[&str]) {
    wharf.ok(&[&["run", "-d", "--name", name, "-p", "127.0.0.1::80"], args].concat());
    eventually("the server listens", PATIENCE, || wharf.ok(&["logs", name]).contains("listening").then_some(()));
}

fn port(wharf: &Wharf, name: &str) -> u16 {
    let shown = wharf.ok(&["port", name, "80"]);
    shown.trim().rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("{shown}"))
}

#[test]
fn a_command_runs_as_any_other() {
    let wharf = with_guests();
    let shown = wharf.ok(&["wasm", "inspect", "command"]);
    for word in ["runs (wasi:cli/run@0.3.", "Runs here: yes", "ip-name-lookup@0.3."] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    assert_eq!(wharf.ok(&["run", "--rm", "command"]), "Hello, WASI 0.3!");
    assert_eq!(wharf.ok(&["run", "--rm", "command", "sleep", "100"]), "slept", "waiting goes on side by side");
    for (word, code) in [(["exit", "7"].as_slice(), 7), (&["exit", "0"], 0), (&["fail"], 1), (&["files", "/no"], 134)] {
        assert_eq!(wharf.run(&[&["run", "--rm", "command"], word].concat()).code, code, "{word:?}");
    }
    let env = wharf.ok(&["run", "--rm", "-e", "COLOUR=blue", "-w", "/work", "command", "env"]);
    assert!(env.starts_with("Some(\"/work\")") && env.contains("COLOUR=blue"), "{env}");
    // What comes in goes out, a megabyte of it.
    let long = "0123456789abcde\n".repeat(1 << 16);
    let mut cat = wharf.command(&["run", "--rm", "-i", "command", "cat"]);
    let mut cat = cat.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().expect("wharf");
    let mut stdin = cat.stdin.take().expect("stdin");
    let told = long.clone();
    let writer = std::thread::spawn(move || stdin.write_all(told.as_bytes()));
    let said = cat.wait_with_output().expect("its output").stdout;
    writer.join().expect("no panic").expect("it reads all");
    assert!(said == long.as_bytes(), "{} bytes of {}", said.len(), long.len());
    // One that computes for ever is paused, told to end, and ended.
    wharf.ok(&["run", "-d", "--name", "spin", "command", "spin"]);
    wharf.ok(&["pause", "spin"]);
    wharf.ok(&["unpause", "spin"]);
    wharf.ok(&["stop", "-t", "1", "spin"]);
    let code = wharf.ok(&["wait", "spin"]);
    assert!(["137", "143"].contains(&code.as_str()), "{code}");
}

#[test]
fn streams_and_tasks_without_end_end_their_guest_alone() {
    let wharf = with_guests();
    for word in ["streams", "tasks"] {
        let ran = wharf.run(&["run", "--rm", "-m", "64m", "command", word]);
        assert!(ran.code == 134 && ran.stderr.contains("wasm"), "{ran}");
    }
}

#[test]
fn its_files_are_the_containers() {
    let wharf = with_guests();
    let host = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(host.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("chmod");
    let bind = format!("{}:/data", host.path().display());
    for flags in [["-v", bind.as_str()], ["-v", "volume:/data"], ["--tmpfs", "/data"]] {
        let ran = wharf.ok(&[&["run", "--rm"], flags.as_slice(), &["command", "files", "/data"]].concat());
        assert_eq!(ran, "files are files", "{flags:?}");
    }
    assert_eq!(wharf.ok(&["run", "--rm", "command", "files", "."]), "files are files", "its own layer");
    assert_eq!(std::fs::read_dir(host.path()).expect("a listing").count(), 0, "it cleans up");
    let old = wharf.ok(&["run", "--rm", "-v", &bind, "command", "before-1970", "/data"]);
    assert_eq!(old, "-2.500000000 -3.500000000");
    let read_only = wharf.ok(&["run", "--rm", "-v", &format!("{bind}:ro"), "command", "read-only", "/data"]);
    let refused = "Some(ErrorCode::ReadOnly) Some(ErrorCode::ReadOnly) Some(ErrorCode::NotPermitted)";
    assert_eq!(read_only, refused, "what is read-only, and what leads out");
    let full = wharf.ok(&["run", "--rm", "--storage-opt", "size=1m", "command", "fill", ".", "3000000"]);
    assert_eq!(full, "Err(ErrorCode::InsufficientSpace)");
    assert_eq!(wharf.ok(&["run", "--rm", "--storage-opt", "size=4m", "command", "fill", ".", "3000000"]), "Ok(())");
}

#[test]
fn its_sockets_are_the_containers() {
    let wharf = with_guests();
    assert_eq!(wharf.ok(&["run", "--rm", "command", "states"]), "sockets are sockets");
    assert_eq!(wharf.ok(&["run", "--rm", "--network", "none", "command", "states"]), "sockets are sockets");
    wharf.ok(&["network", "create", "net"]);
    serve(&wharf, "echo", &["--network", "net", "command", "serve", "80"]);
    serve(&wharf, "upper", &["--network", "net", "command", "udp-serve", "80"]);
    let dialled = |flags: &[&str]| {
        let ran = wharf.run(&[&["run", "--rm"], flags, &["command", "dial", "echo", "80", "20000000"]].concat());
        (ran.code, ran.stdout, ran.stderr)
    };
    let port = port(&wharf, "echo");
    std::thread::scope(|scope| {
        // From the host and from another container, at once.
        let host: Vec<_> = (0..8u8)
            .map(|n| {
                scope.spawn(move || {
                    let sent: Vec<u8> = (0..1 << 20).map(|at: usize| (at as u8).wrapping_mul(n)).collect();
                    let mut back = Vec::new();
                    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("a connection");
                    let mut other = stream.try_clone().expect("a copy");
                    let reader = std::thread::spawn(move || {
                        std::io::Read::read_to_end(&mut other, &mut back).expect("it ends");
                        back
                    });
                    stream.write_all(&sent).expect("it takes all");
                    stream.shutdown(std::net::Shutdown::Write).expect("half a close");
                    assert!(reader.join().expect("no panic") == sent, "as it went");
                })
            })
            .collect();
        assert_eq!(dialled(&["--network", "net"]).1, "20000000 bytes came back\n");
        host.into_iter().for_each(|client| client.join().expect("no panic"));
    });
    let udp = wharf.ok(&["run", "--rm", "--network", "net", "command", "udp", "upper", "80", "datagrams too"]);
    assert_eq!(udp, "DATAGRAMS TOO");
    // What its flags do not grant it does not get.
    let (code, _, why) = dialled(&["--network", "none"]);
    assert!(code == 2 && why.contains("echo: "), "{code} {why}");
    for denied in ["echo:80", "echo", "*:80"] {
        let (code, _, why) = dialled(&["--network", "net", "--deny-net", denied]);
        assert!(code == 2 && why.contains("AccessDenied") && why.contains("--deny-net forbids it"), "{code} {why}");
    }
    assert_eq!(dialled(&["--network", "net", "--deny-net", "echo:81"]).0, 0);
    let host = wharf.run(&["run", "--rm", "command", "dial", "169.254.169.254", "80", "1"]);
    assert!(host.code == 2 && host.stderr.contains("AccessDenied"), "{host}");
}

#[test]
fn a_service_answers() {
    let wharf = with_guests();
    let flags = ["run", "-d", "--name", "web", "-p", "127.0.0.1::80", "--request-timeout", "2s", "service"];
    wharf.ok(&flags);
    let port = port(&wharf, "web");
    let mut client = Client::connect(port);
    for _ in 0..3 {
        assert_eq!(client.get("/count").text(), "1\n", "each request has an instance of its own");
    }
    eventually("a small answer that leaves whole", PATIENCE, || {
        let hello = client.get("/hello");
        assert_eq!((hello.status, hello.text().as_str()), (200, "Hello, HTTP 0.3!\n"));
        (hello.header("content-length") == Some("17")).then_some(())
    });
    assert_eq!(client.get("/host").text(), "test\n");
    assert_eq!(client.get("/nothing").status, 404);
    let began = Instant::now();
    assert_eq!(client.get("/pause?300").text(), "first\nlast\n");
    assert!(began.elapsed() >= Duration::from_millis(300));
    let zeros = client.get("/zeros?33554432");
    assert!(zeros.complete && zeros.body.len() == 33_554_432 && zeros.body.iter().all(|b| *b == 0));
    const LENGTH: usize = 16 << 20;
    let sent: Vec<u8> = (0..LENGTH).map(|at| (at ^ (at >> 11)) as u8).collect();
    let echoed = Client::connect(port).post("/echo", LENGTH as u64, |out| out.write_all(&sent).expect("send"));
    assert!(echoed.complete && echoed.body == sent, "{} bytes came back", echoed.body.len());
    // One that fails fails alone.
    for (path, status) in [("/trap", 500), ("/error", 500), ("/spin", 504), ("/slow?30000", 504)] {
        assert_eq!(get(port, path).status, status, "{path}");
    }
    assert_eq!(get(port, "/slow?10").text(), "slow\n");
    // Its own requests go where its network leads.
    assert_eq!(get(port, "/fetch?http://web/hello").text(), "Hello, HTTP 0.3!\n");
    assert_eq!(get(port, "/fetch?http://web").text(), "the root\n", "without a path");
    let nobody = get(port, "/fetch?http://nobody.invalid/");
    assert!(nobody.status == 502 && nobody.text().contains("Dns"), "{nobody:?}");
    assert_eq!(get(port, "/fetch?http://169.254.169.254/").text(), "ErrorCode::DestinationIpProhibited\n");
    let logs = wharf.run(&["logs", "web"]);
    assert!(logs.stdout.contains("GET /hello 200 17 "), "{logs}");
    assert!(logs.stderr.contains("GET /error: the guest answered with an error: "), "{logs}");
    // What has begun is answered before it ends.
    let slow = std::thread::spawn(move || get(port, "/slow?1000"));
    std::thread::sleep(Duration::from_millis(300));
    wharf.ok(&["stop", "web"]);
    assert_eq!(slow.join().expect("no panic").text(), "slow\n");
}
