//! `search`: against a registry's catalogue, and against a server that speaks the index's protocol.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};

use serde_json::json;

use crate::support::Wharf;
use crate::support::registry::{Registry, free_port};

/// Answers every request with what `answer` says of its path; tells the paths.
fn serve(answer: impl Fn(&str) -> (u16, String) + Send + 'static) -> (u16, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = Vec::new();
            let mut byte = [0];
            // TLS begins with this byte, and there is none here.
            while !head.ends_with(b"\r\n\r\n")
                && head.first() != Some(&0x16)
                && stream.read(&mut byte).is_ok_and(|n| n == 1)
            {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let Some(path) = head.split(' ').nth(1).filter(|path| path.starts_with('/')) else { continue };
            let (status, body) = answer(path);
            let length = body.len();
            let line = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
            // Whoever is gone has heard enough.
            stream.write_all(line.as_bytes()).ok();
            if tell.send(path.to_owned()).is_err() {
                return;
            }
        }
    });
    (port, told)
}

#[test]
fn an_index_is_asked_as_docker_asks_it() {
    let found = |name: &str, description: &str, stars: u64, official: bool| {
        json!({"name": name, "description": description, "star_count": stars, "is_official": official,
               "is_automated": false, "is_trusted": false})
    };
    let long = "A server\nthat serves what is to be served, to whoever wants it served\u{1b}[2J";
    let body = json!({"num_results": 3, "query": "web", "results": [
        found("web", long, 120, true), found("someone/web", "", 7, false), found("other/web-ui", "Pages", 0, false),
    ]});
    let (port, told) = serve(move |path| match path.starts_with("/v1/search") {
        true => (200, body.to_string()),
        false => (200, "{}".to_owned()),
    });
    let wharf = Wharf::new();
    let at = format!("127.0.0.1:{port}");
    let table = wharf.ok(&["search", "--registry", &at, "web"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]);
    assert!(
        lines[1].starts_with("web            A server that serves what is to be served, t\u{2026}   120       [OK]"),
        "{table}"
    );
    assert!(lines[2].starts_with("someone/web ") && lines.len() == 4, "{table}");
    let asked = told.iter().find(|path| path.starts_with("/v1")).expect("a request");
    assert_eq!(asked, "/v1/search?q=web&n=25");
    let json = wharf.ok(&["search", "--format", "json", "--no-trunc", "--limit", "1", "--registry", &at, "a b"]);
    assert!(json.contains(r#""StarCount":"120""#) && !json.contains('\u{1b}') && json.lines().count() == 1, "{json}");
    let asked = told.iter().find(|path| path.starts_with("/v1")).expect("a request");
    assert_eq!(asked, "/v1/search?q=a+b&n=1");
    let names = |filter: &str| wharf.ok(&["search", "--registry", &at, "-f", filter, "--format", "{{.Name}}", "web"]);
    assert_eq!(names("is-official=true"), "web");
    assert_eq!(names("stars=5"), "web\nsomeone/web");
    assert_eq!(names("is-automated=1"), "");
    for (line, why) in [
        (["--limit", "101"], "outside the range of [1, 100]"),
        (["-f", "stars=x"], "invalid filter 'stars=x'"),
        (["-f", "is-official=x"], "invalid filter 'is-official=x'"),
        (["-f", "x=1"], "invalid filter 'x'"),
    ] {
        let told = wharf.run(&[&["search"], &line[..], &["web"]].concat());
        assert!(told.code != 0 && told.stderr.contains(why), "{told}");
    }
    assert!(wharf.exits(1, &["search"]).stderr.contains("requires 1 argument"));
}

#[test]
fn a_registry_without_an_index_is_searched_by_its_catalogue() {
    let registry = Registry::plain();
    let wharf = Wharf::with_busybox();
    for name in ["web", "team/web-ui", "team/database"] {
        let name = registry.name(&format!("{name}:1"));
        wharf.ok(&["tag", "busybox", &name]);
        wharf.ok(&["push", "-q", &name]);
    }
    let names = |args: &[&str]| {
        let line = [&["search", "--format", "{{.Name}}"], args].concat();
        let shown = wharf.ok(&line);
        let mut names: Vec<String> = shown.lines().map(str::to_owned).collect();
        names.sort();
        names
    };
    let both = ["team/web-ui", "web"].map(|name| registry.name(name));
    assert_eq!(names(&["--registry", &registry.host(), "web"]), both);
    assert_eq!(names(&[&registry.name("web")]), both);
    assert_eq!(
        names(&["--registry", &format!("http://{}/", registry.host()), "data"]),
        [registry.name("team/database")]
    );
    assert_eq!(names(&["--registry", &registry.host(), "nothing"]), [] as [&str; 0]);
    // What it says is what `pull` takes.
    wharf.ok(&["rmi", &registry.name("web:1")]);
    wharf.ok(&["pull", &format!("{}:1", both[1])]);
}

#[test]
fn who_cannot_be_asked_says_so() {
    let wharf = Wharf::new();
    let nobody = format!("127.0.0.1:{}", free_port());
    let ran = wharf.exits(1, &["search", "--registry", &nobody, "web"]);
    assert!(ran.stderr.contains("connection refused") && ran.stderr.contains("nothing listens at"), "{ran}");
    let (port, _told) = serve(|_| (404, String::new()));
    let ran = wharf.exits(1, &["search", &format!("127.0.0.1:{port}/web")]);
    assert!(ran.stderr.contains("cannot be searched"), "{ran}");
}
