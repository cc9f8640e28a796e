//! A real stack: a WebAssembly front and a Linux database on one network, with a volume that both have. The front is
//! `tests/guests/front.rs`, the database is Debian's Redis; neither knows of Wharf.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::{Wharf, eventually, images};

const PATIENCE: Duration = Duration::from_secs(60);

/// Status and body of an answer.
fn request(at: &str, method: &str, path: &str, body: &str) -> (u16, Vec<u8>) {
    let asked = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(at)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: front\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = asked().expect("an answer");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("the end of the head");
    let head = String::from_utf8_lossy(&answer[..end]);
    let status = head.split_whitespace().nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, answer[end + 4..].to_vec())
}

#[test]
fn a_wasm_front_and_a_linux_database() {
    let wharf = Wharf::new();
    wharf.load(&images::redis());
    wharf.load(&images::busybox());
    wharf.ok(&["wasm", "pack", &images::guest("front-p2"), "-t", "front"]);
    for network in ["app", "other"] {
        wharf.ok(&["network", "create", network]);
    }
    wharf.ok(&["volume", "create", "shared"]);
    let on = ["--network", "app", "-v", "shared:/data"];
    wharf.ok(&[&["run", "-d", "--name", "db"][..], &on, &["redis"]].concat());
    let listen = ["0.0.0.0:80", "db:6379", "/data"];
    wharf.ok(&[&["run", "-d", "--name", "front", "-p", "127.0.0.1::80"][..], &on, &["front"], &listen].concat());
    let cli = |args: &[&str]| wharf.run(&[&["exec", "db", "redis-cli"][..], args].concat()).stdout.trim().to_owned();
    eventually("the database answers", PATIENCE, || (cli(&["ping"]) == "PONG").then_some(()));
    let at = wharf.ok(&["port", "front", "80"]);
    let get = |path: &str| {
        let (status, body) = request(&at, "GET", path, "");
        assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
        body
    };
    eventually("the front listens", PATIENCE, || wharf.ok(&["logs", "front"]).contains("listening").then_some(()));

    // From outside through the front to the database, and what both sides have of it.
    for n in 1..=3 {
        assert_eq!(get("/count"), n.to_string().as_bytes());
    }
    assert_eq!(cli(&["get", "count"]), "3");
    assert_eq!(request(&at, "GET", "/nothing", "").0, 404);
    let long = "x".repeat(1 << 20);
    assert_eq!(request(&at, "POST", "/long", &long).0, 200);
    assert_eq!(cli(&["strlen", "long"]), "1048576");
    assert!(get("/long") == long.as_bytes(), "all of it comes back");
    // A Linux container asks the front, by its name.
    let fetch = |network: &str, path: &str| {
        let script = format!("printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' | nc -w 5 front 80 | tail -n 1");
        wharf.run(&["run", "--rm", "--network", network, "busybox", "sh", "-c", &script])
    };
    let fetched = fetch("app", "/count");
    assert_eq!(fetched.stdout, "4", "{fetched}");
    // The database knows its caller by the front's own address.
    let front = wharf.ok(&["inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "front"]);
    wharf.ok(&["exec", "db", "redis-cli", "acl", "setuser", "default", "off"]);
    let refused = request(&at, "GET", "/count", "");
    assert!(refused.0 == 502 && String::from_utf8_lossy(&refused.1).contains("NOAUTH"), "{refused:?}");
    wharf.ok(&["restart", "-t", "1", "db"]);
    eventually("the database is back", PATIENCE, || (cli(&["ping"]) == "PONG").then_some(()));
    let seen = std::thread::scope(|scope| {
        let monitor =
            scope.spawn(|| wharf.run(&["exec", "db", "busybox", "timeout", "3", "redis-cli", "monitor"]).stdout);
        eventually("a monitor of the database", PATIENCE, || {
            cli(&["client", "list"]).contains("cmd=monitor").then_some(())
        });
        assert_eq!(get("/count"), b"1", "nothing was saved");
        monitor.join().expect("a monitor")
    });
    assert!(seen.contains(&format!("{front}:")) && seen.contains("\"INCR\" \"count\""), "{seen}");

    // What one writes into the volume the other reads.
    assert_eq!(cli(&["save"]), "OK");
    assert!(get("/files/dump.rdb").starts_with(b"REDIS"));
    assert_eq!(request(&at, "POST", "/files/note", "from wasm\n").0, 200);
    assert_eq!(wharf.ok(&["exec", "db", "cat", "/data/note"]), "from wasm");

    // Whoever is on another network sees neither.
    let lost = fetch("other", "/count");
    assert!(lost.stdout.is_empty() && lost.stderr.contains("bad address"), "{lost}");
    let db = wharf.ok(&["inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "db"]);
    let stranger =
        ["run", "-d", "--name", "stranger", "--network", "other", "-p", "127.0.0.1::80", "front", "0.0.0.0:80"];
    for database in ["db:6379".to_owned(), format!("{db}:6379")] {
        wharf.ok(&[&stranger[..], &[&database, "/"]].concat());
        eventually("it listens", PATIENCE, || wharf.ok(&["logs", "stranger"]).contains("listening").then_some(()));
        let (status, why) = request(&wharf.ok(&["port", "stranger", "80"]), "GET", "/count", "");
        assert_eq!(status, 502, "{database}: {}", String::from_utf8_lossy(&why));
        wharf.ok(&["rm", "-f", "stranger"]);
    }
}
