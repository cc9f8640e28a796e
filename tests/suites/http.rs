//! Components that answer HTTP requests, through a published port, as a person with curl sees them.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::http::{Client, get};
use crate::support::registry::free_port;
use crate::support::{Wharf, eventually, images, tool};

/// An instance with the component as the image `web`.
fn with_web() -> Wharf {
    let wharf = Wharf::new();
    wharf.ok(&["wasm", "pack", &images::guest("http"), "-t", "web"]);
    wharf
}

/// Runs it with these flags besides; gives the host's port.
fn serve(wharf: &Wharf, name: &str, flags: &[&str]) -> u16 {
    wharf.ok(&[&["run", "-d", "--name", name, "-p", "127.0.0.1::80"], flags, &["web"]].concat());
    port(wharf, name)
}

fn port(wharf: &Wharf, name: &str) -> u16 {
    let shown = wharf.ok(&["port", name, "80"]);
    let port = shown.lines().next().and_then(|line| line.rsplit(':').next()).and_then(|port| port.parse().ok());
    port.unwrap_or_else(|| panic!("{shown}"))
}

#[test]
fn requests_are_answered_and_logged() {
    let wharf = with_web();
    let port = serve(&wharf, "web", &["-e", "COLOUR=blue"]);
    let mut client = Client::connect(port);
    // One connection, many requests, and each has an instance of its own.
    for _ in 0..3 {
        assert_eq!(client.get("/count").text(), "1\n");
    }
    // The guest must be done with it in a short time, which on a busy machine is not always so.
    eventually("a small answer that leaves whole", Duration::from_secs(30), || {
        let hello = client.get("/hello?secret=1");
        assert_eq!((hello.status, hello.text().as_str()), (200, "Hello, HTTP!\n"));
        (hello.header("content-length") == Some("13")).then_some(())
    });
    let env = client.get("/env").text();
    assert!(env.contains("COLOUR=blue\n") && env.contains("HOSTNAME="), "{env}");
    assert_eq!(client.get("/host").text(), "test\n");
    assert_eq!(client.get("/nothing").status, 404);
    client.get("/log");
    let logs = eventually("the access log", Duration::from_secs(30), || {
        let ran = wharf.run(&["logs", "web"]);
        ran.stdout.contains("GET /log 200 7 ").then_some(ran)
    });
    assert!(logs.stdout.contains("GET /hello 200 13 ") && logs.stdout.contains("GET /nothing 404 "), "{logs}");
    assert!(!logs.stdout.contains("secret"), "what stands behind ? is not logged: {logs}");
    assert!(logs.stdout.contains("to stdout\n") && logs.stderr.contains("to stderr\n"), "{logs}");
    // Its files are the container's, as for any guest.
    assert_eq!(client.get("/read?/etc/passwd").status, 404);
}

#[test]
fn bodies_stream_both_ways() {
    let wharf = with_web();
    let port = serve(&wharf, "web", &[]);
    const CHUNK: usize = 1 << 16;
    const CHUNKS: usize = 1024;
    let chunk = |n: usize| (0..CHUNK).map(|at| (at.wrapping_mul(31) ^ n.wrapping_mul(131)) as u8).collect::<Vec<_>>();
    let echoed = Client::connect(port).post("/echo", (CHUNK * CHUNKS) as u64, |out| {
        (0..CHUNKS).for_each(|n| out.write_all(&chunk(n)).expect("send"));
    });
    assert!(echoed.complete && echoed.status == 200);
    assert_eq!(echoed.body.len(), CHUNK * CHUNKS, "64 MiB come back");
    assert!(echoed.body.chunks(CHUNK).enumerate().all(|(n, part)| part == chunk(n)), "as they went");
    // Half an answer is there before the other half exists.
    let mut client = Client::connect(port);
    let began = Instant::now();
    let paused = client.get("/pause?300");
    assert_eq!(paused.text(), "before\nafter\n");
    assert!(began.elapsed() >= Duration::from_millis(300));
    let zeros = client.get("/zeros?33554432");
    assert!(zeros.complete && zeros.body.len() == 33_554_432 && zeros.body.iter().all(|b| *b == 0));
}

#[test]
fn a_guest_that_fails_fails_alone() {
    let wharf = with_web();
    let port = serve(&wharf, "web", &["--request-memory", "32m"]);
    let mut client = Client::connect(port);
    for path in ["/trap", "/exit", "/silent", "/alloc?100"] {
        let answer = client.get(path);
        assert_eq!((answer.status, answer.text().as_str()), (500, "500 Internal Server Error\n"), "{path}");
        assert_eq!(client.get("/hello").status, 200, "the connection lives after {path}");
    }
    assert_eq!(client.get("/alloc?8").text(), "8\n");
    let broken = get(port, "/late-trap");
    assert!(broken.status == 200 && broken.text() == "begun\n" && !broken.complete, "{broken:?}");
    // A request is written down when it is over, which its client may see before.
    let late = || {
        let logs = wharf.run(&["logs", "web"]).stderr;
        logs.contains("GET /late-trap: ").then_some(logs)
    };
    let logs = eventually("the last one's end in the log", Duration::from_secs(30), late);
    for told in [
        "GET /trap: wasm trap: wasm `unreachable`",
        "http_guest::inner",
        "GET /exit: the guest exited with code",
        "GET /silent: the guest ended without an answer",
        "its memory limit of 33554432 bytes",
    ] {
        assert!(logs.contains(told), "{told}: {logs}");
    }
    assert_eq!(wharf.ok(&["inspect", "-f", "{{.State.Running}}", "web"]), "true");
}

#[test]
fn a_guest_that_never_ends_is_ended() {
    let wharf = with_web();
    let port = serve(&wharf, "web", &["--request-timeout", "1s"]);
    // Both cores' worth of loops, and others are still answered.
    std::thread::scope(|scope| {
        let spinners: Vec<_> = (0..4).map(|_| scope.spawn(move || get(port, "/spin"))).collect();
        let waiting = scope.spawn(move || get(port, "/slow?30000"));
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(get(port, "/hello").status, 200, "while others compute");
        for spinner in spinners {
            assert_eq!(spinner.join().expect("no panic").status, 504);
        }
        assert_eq!(waiting.join().expect("no panic").status, 504);
    });
    // What gives signs of life is not ended.
    let mut client = Client::connect(port);
    let slowly = client.post("/swallow", 20, |out| {
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(100));
            out.write_all(b"x").expect("send");
        }
    });
    assert!(slowly.status == 200 && slowly.text().starts_with("20 "), "{slowly:?}");
    assert!(wharf.run(&["logs", "web"]).stderr.contains("GET /spin: nothing has happened for the time limit"));
}

#[test]
fn many_at_once_and_a_limit_for_them() {
    let wharf = with_web();
    let port = serve(&wharf, "web", &[]);
    let fine = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                let mut client = Client::connect(port);
                for _ in 0..5 {
                    if client.get("/slow?20").text() == "slow\n" {
                        fine.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(fine.load(Ordering::Relaxed), 500);
    // With a limit of one they stand in line.
    let port = serve(&wharf, "one", &["--max-requests", "1"]);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|_| scope.spawn(move || get(port, "/slow?200"))).collect();
        assert!(all.into_iter().all(|one| one.join().expect("no panic").text() == "slow\n"));
    });
    assert!(began.elapsed() >= Duration::from_millis(800), "{:?}", began.elapsed());
    // The time in line is not their guests' time.
    let port = serve(&wharf, "two", &["--max-requests", "1", "--request-timeout", "2s"]);
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..2).map(|_| scope.spawn(move || get(port, "/slow?1400"))).collect();
        assert!(all.into_iter().all(|one| one.join().expect("no panic").text() == "slow\n"));
    });
    // Who stands in line for longer is told that the server is busy.
    std::thread::scope(|scope| {
        let slow = scope.spawn(move || Client::connect(port).get("/pause?1700"));
        let next = scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            get(port, "/pause?1700")
        });
        std::thread::sleep(Duration::from_millis(600));
        assert_eq!(get(port, "/hello").status, 503);
        assert!([slow, next].into_iter().all(|one| one.join().expect("no panic").text() == "before\nafter\n"));
    });
}

#[test]
fn an_answer_does_not_wait_for_what_is_sent_behind_its_request() {
    let wharf = with_web();
    let port = serve(&wharf, "web", &[]);
    let mut client = Client::connect(port);
    client.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\nGET /ho");
    assert_eq!(client.answer().text(), "Hello, HTTP!\n");
    client.send("st HTTP/1.1\r\nHost: b\r\n\r\n");
    assert_eq!(client.answer().text(), "b\n");
}

#[test]
fn http_2_without_asking_first() {
    let wharf = with_web();
    let port = serve(&wharf, "web", &[]);
    let url = format!("http://127.0.0.1:{port}/hello");
    let mut curl = Command::new("curl");
    let said =
        tool(curl.args(["-sS", "-m", "60", "--http2-prior-knowledge", "-w", "%{http_version} %{http_code}"]).arg(url));
    assert_eq!(said, "Hello, HTTP!\n2 200");
}

#[test]
fn bad_requests_are_refused() {
    let wharf = with_web();
    let port = serve(&wharf, "web", &[]);
    for request in [
        "GET /hello HTTP/1.1\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        "NONSENSE\r\n\r\n",
    ] {
        let mut client = Client::connect(port);
        client.send(request);
        assert_eq!(client.answer().status, 400, "{request:?}");
    }
    let mut old = Client::connect(port);
    old.send("GET /hello HTTP/1.0\r\n\r\n");
    assert_eq!(old.answer().status, 200, "HTTP/1.0 has no Host");
    // Who asks for another host in the target has asked for that (RFC 9112, 3.2.2).
    let mut proxied = Client::connect(port);
    proxied.send("GET http://real.test/host HTTP/1.1\r\nHost: other.test\r\n\r\n");
    assert_eq!(proxied.answer().text(), "real.test\n");
}

#[test]
fn stopping_lets_requests_finish() {
    let wharf = with_web();
    let port = serve(&wharf, "web", &[]);
    std::thread::scope(|scope| {
        let slow = scope.spawn(move || get(port, "/slow?2000"));
        let idle = Client::connect(port);
        std::thread::sleep(Duration::from_millis(500));
        wharf.ok(&["stop", "-t", "30", "web"]);
        assert_eq!(slow.join().expect("no panic").text(), "slow\n");
        drop(idle);
    });
    assert_eq!(wharf.ok(&["wait", "web"]), "143");
    assert!(Client::try_connect(port).is_err(), "nobody listens any more");
    // What does not end in time is ended.
    wharf.ok(&["start", "web"]);
    let again = self::port(&wharf, "web");
    std::thread::scope(|scope| {
        let spin = scope.spawn(move || Client::connect(again).get("/hello"));
        assert_eq!(spin.join().expect("no panic").status, 200);
        scope.spawn(move || {
            let mut client = Client::connect(again);
            client.send("GET /spin HTTP/1.1\r\nHost: test\r\n\r\n");
            std::thread::sleep(Duration::from_secs(2));
        });
        std::thread::sleep(Duration::from_millis(500));
        wharf.ok(&["stop", "-t", "1", "web"]);
    });
    assert_eq!(wharf.ok(&["wait", "web"]), "137");
}

#[test]
fn a_port_in_use_is_named() {
    let wharf = with_web();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let publish = format!("127.0.0.1:{port}:80");
    let refused = wharf.exits(125, &["run", "-d", "-p", &publish, "web"]);
    assert!(refused.stderr.contains(&port.to_string()) && refused.stderr.contains("already"), "{refused}");
}

/// A server on the host's loopback that answers everything with a redirect to where credentials are kept.
struct Redirecting(TcpListener);

impl Redirecting {
    fn new() -> (Self, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        (Redirecting(listener), port)
    }

    /// Answers one request; gives its head.
    fn answer(&self) -> String {
        self.0.set_nonblocking(true).expect("an option");
        let accepted = eventually("a request of a guest", Duration::from_secs(30), || self.0.accept().ok());
        let mut stream = accepted.0;
        stream.set_nonblocking(false).expect("an option");
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).expect("a request") == 1 {
            head.push(byte[0]);
        }
        let answer = "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 4\r\n\r\nover";
        stream.write_all(answer.as_bytes()).expect("an answer");
        String::from_utf8_lossy(&head).into_owned()
    }

    /// Fails when somebody has connected.
    fn is_untouched(&self) {
        self.0.set_nonblocking(true).expect("an option");
        assert!(self.0.accept().is_err(), "a guest has reached the host's loopback");
    }
}

#[test]
fn requests_of_guests_obey_the_grants() {
    let wharf = with_web();
    let (host, port) = Redirecting::new();
    let web = serve(&wharf, "web", &[]);
    let mut client = Client::connect(web);
    for place in [
        "127.0.0.1",
        "localhost",
        "127.1.2.3",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "169.254.169.254",
        "[::ffff:169.254.169.254]",
        "[fe80::1]",
        "user@127.0.0.1",
        "2130706433",
        "0x7f.1",
        "host.docker.internal",
    ] {
        let answer = client.get(&format!("/get?http://{place}:{port}/"));
        assert_eq!(answer.status, 502, "{place}: {}", answer.text());
    }
    host.is_untouched();
    let logs = wharf.run(&["logs", "web"]).stderr;
    assert!(logs.contains("--allow-net 169.254.169.254:") && logs.contains("would allow it"), "{logs}");

    // A grant for the host opens it, and a redirect is an answer like any other.
    let granted = serve(&wharf, "granted", &["--allow-net", &format!("host.docker.internal:{port}")]);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| host.answer());
        let answer = get(granted, &format!("/get?http://host.docker.internal:{port}/path?query"));
        assert_eq!((answer.status, answer.text().as_str()), (302, "over"));
        let head = asked.join().expect("no panic");
        assert!(head.starts_with("GET /path?query HTTP/1.1\r\n"), "{head}");
        assert!(head.to_lowercase().contains(&format!("host: host.docker.internal:{port}\r\n")), "{head}");
    });
    assert_eq!(get(granted, "/get?http://169.254.169.254/").status, 502);

    // Containers of one network ask each other by name.
    let answer = get(web, "/get?http://granted/hello");
    assert_eq!((answer.status, answer.text().as_str()), (200, "Hello, HTTP!\n"));
}

#[test]
fn published_ports_go_and_come_with_the_way_out() {
    let wharf = with_web();
    wharf.ok(&["network", "create", "--internal", "shut"]);
    let port = serve(&wharf, "web", &[]);
    let is_open = || Client::try_connect(port).is_ok();
    let answers = || get(port, "/hello").status == 200;
    assert!(answers());
    for left in ["shut", "none"] {
        if left == "shut" {
            wharf.ok(&["network", "connect", "shut", "web"]);
        }
        wharf.ok(&["network", "disconnect", "bridge", "web"]);
        assert!(!is_open(), "it is on no network that leads out: {left}");
        wharf.ok(&["network", "connect", "bridge", "web"]);
        // By whichever of its threads takes the connection.
        assert!((0..20).all(|_| answers()), "published again: {left}");
        if left == "shut" {
            wharf.ok(&["network", "disconnect", "shut", "web"]);
        }
    }
    // One that begins without a way out.
    let port = free_port();
    let spec = format!("127.0.0.1:{port}:80");
    wharf.ok(&["run", "-d", "--name", "held", "--network", "shut", "-p", &spec, "web"]);
    assert!(Client::try_connect(port).is_err());
    wharf.ok(&["network", "connect", "bridge", "held"]);
    assert_eq!(get(port, "/hello").status, 200);
    wharf.ok(&["network", "disconnect", "bridge", "held"]);
    wharf.ok(&["restart", "-t", "1", "held"]);
    assert!(Client::try_connect(port).is_err());
}
