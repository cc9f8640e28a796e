//! Health checks as a docker user sees them.

use std::time::Duration;

use serde_json::json;

use crate::support::{Wharf, eventually, images};

const PATIENCE: Duration = Duration::from_secs(60);

fn inspect(wharf: &Wharf, name: &str, template: &str) -> String {
    wharf.ok(&["inspect", "-f", template, name])
}

fn status(wharf: &Wharf, name: &str) -> String {
    wharf.ok(&["ps", "-a", "--filter", &format!("name=^{name}$"), "--format", "{{.Status}}"])
}

fn becomes(wharf: &Wharf, name: &str, health: &str) {
    eventually(health, PATIENCE, || status(wharf, name).ends_with(&format!(" ({health})")).then_some(()));
}

#[test]
fn health_follows_the_probes() {
    let wharf = Wharf::with_busybox();
    let line = ["run", "-d", "--network", "none", "--name", "web", "--health-cmd", "echo seen; test -e /ok"];
    let often = ["--health-interval", "100ms", "--health-retries", "2", "busybox", "sleep", "1000"];
    wharf.ok(&[&line[..], &often].concat());
    becomes(&wharf, "web", "unhealthy");
    wharf.ok(&["exec", "web", "touch", "/ok"]);
    becomes(&wharf, "web", "healthy");
    assert_eq!(wharf.ok(&["ps", "--filter", "health=healthy", "--format", "{{.Names}}"]), "web");
    assert_eq!(wharf.ok(&["ps", "--filter", "health=none", "--format", "{{.Names}}"]), "");
    eventually("five results", PATIENCE, || (inspect(&wharf, "web", "{{len .State.Health.Log}}") == "5").then_some(()));
    let last = inspect(&wharf, "web", "{{with index .State.Health.Log 4}}{{.ExitCode}} {{.Output}}{{end}}");
    assert_eq!(last.trim_end(), "0 seen");
    assert_eq!(inspect(&wharf, "web", "{{.State.Health.FailingStreak}}"), "0");

    let events =
        ["events", "--since", "1h", "--until", "0s", "--filter", "event=health_status", "--format", "{{.Action}}"];
    assert_eq!(wharf.ok(&events), "health_status: unhealthy\nhealth_status: healthy");

    // Frozen it is not asked; a new start begins anew.
    wharf.ok(&["pause", "web"]);
    let before = inspect(&wharf, "web", "{{json .State.Health}}");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(inspect(&wharf, "web", "{{json .State.Health}}"), before);
    wharf.ok(&["unpause", "web"]);
    wharf.ok(&["exec", "web", "rm", "/ok"]);
    wharf.ok(&["restart", "-t", "0", "web"]);
    becomes(&wharf, "web", "unhealthy");
}

#[test]
fn a_probe_that_takes_too_long_has_failed() {
    let wharf = Wharf::with_busybox();
    let line = ["run", "-d", "--network", "none", "--name", "slow", "--health-cmd", "sleep 1000"];
    let soon = ["--health-interval", "100ms", "--health-timeout", "200ms", "--health-retries", "1"];
    wharf.ok(&[&line[..], &soon, &["busybox", "sleep", "1000"]].concat());
    assert!(status(&wharf, "slow").starts_with("Up "));
    becomes(&wharf, "slow", "unhealthy");
    let first = inspect(&wharf, "slow", "{{with index .State.Health.Log 0}}{{.ExitCode}} {{.Output}}{{end}}");
    assert_eq!(first, "-1 Health check exceeded timeout (200ms)");
    // Probes that were given up do not pile up.
    let processes = wharf.ok(&["top", "slow"]);
    assert!(processes.lines().count() <= 4, "{processes}");
}

#[test]
fn the_images_check_counts_unless_refused() {
    let wharf = Wharf::with_busybox();
    let root = wharf.ok(&["create", "--network", "none", "busybox", "true"]);
    let tar = wharf.dir().join("root.tar");
    wharf.ok(&["export", "-o", tar.to_str().expect("a path"), &root]);
    let change = "HEALTHCHECK --interval=100ms CMD true";
    wharf.ok(&["import", "--change", change, tar.to_str().expect("a path"), "checked"]);
    let line = ["run", "-d", "--network", "none", "--name"];
    wharf.ok(&[&line[..], &["one", "checked", "sleep", "1000"]].concat());
    wharf.ok(&[&line[..], &["two", "--no-healthcheck", "checked", "sleep", "1000"]].concat());
    becomes(&wharf, "one", "healthy");
    assert!(!status(&wharf, "two").contains('('));
    let refused = wharf.exits(125, &["run", "--no-healthcheck", "--health-cmd", "true", "checked", "true"]);
    assert!(refused.stderr.contains("--no-healthcheck conflicts with --health-* options"), "{refused}");
}

const OFTEN: [&str; 4] = ["--health-interval", "100ms", "--health-retries", "2"];

fn last_probe(wharf: &Wharf, name: &str) -> String {
    let template = "{{$log := .State.Health.Log}}{{with index $log 0}}{{.ExitCode}} {{.Output}}{{end}}";
    inspect(wharf, name, template)
}

#[test]
fn a_component_is_asked_by_http() {
    let wharf = Wharf::new();
    wharf.ok(&["wasm", "pack", &images::guest("http"), "-t", "web"]);
    let data = wharf.dir().join("data");
    std::fs::create_dir(&data).expect("a directory");
    let mount = format!("{}:/data", data.display());
    let line = ["run", "-d", "--name", "web", "-v", &mount, "--health-http", "/read?/data/ok"];
    wharf.ok(&[&line[..], &OFTEN, &["web"]].concat());
    becomes(&wharf, "web", "unhealthy");
    assert_eq!(last_probe(&wharf, "web"), "1 HTTP/1.1 404 Not Found");
    std::fs::write(data.join("ok"), "well").expect("a file");
    becomes(&wharf, "web", "healthy");
    let events =
        ["events", "--since", "1h", "--until", "0s", "--filter", "event=health_status", "--format", "{{.Action}}"];
    assert_eq!(wharf.ok(&events), "health_status: unhealthy\nhealth_status: healthy");
    assert_eq!(inspect(&wharf, "web", "{{json .Config.Healthcheck.Test}}"), r#"["HTTP","/read?/data/ok"]"#);

    // It computes for ever, or answers elsewhere.
    let soon = ["--health-interval", "100ms", "--health-timeout", "200ms", "--health-retries", "1"];
    for (name, path, told) in [
        ("slow", "/slow?30000", "-1 Health check exceeded timeout (200ms)"),
        ("wrong", ":81/hello", "1 port 81: nothing listens"),
    ] {
        wharf.ok(&[&["run", "-d", "--name", name, "--health-http", path][..], &soon, &["web"]].concat());
        becomes(&wharf, name, "unhealthy");
        assert_eq!(last_probe(&wharf, name), told);
    }
}

#[test]
fn a_guest_is_asked_by_tcp() {
    let wharf = Wharf::new();
    wharf.ok(&["wasm", "pack", &images::guest("net-p2"), "-t", "net"]);
    let line = ["run", "-d", "--health-tcp", "80", "--network"];
    for network in ["none", "bridge"] {
        wharf.ok(&[&line[..], &[network, "--name", network], &OFTEN, &["net", "echo", "0.0.0.0:80"]].concat());
        becomes(&wharf, network, "healthy");
        assert_eq!(last_probe(&wharf, network), "0 port 80: connected");
    }
    // One that listens too late, and on its loopback only, is ill first and well then.
    let late = ["net", "wait", "2", "127.0.0.1:80"];
    wharf.ok(&[&line[..], &["none", "--name", "late"], &OFTEN, &late].concat());
    becomes(&wharf, "late", "unhealthy");
    assert_eq!(last_probe(&wharf, "late"), "1 port 80: nothing listens");
    // It serves one connection: the first check that reaches it is its last.
    assert_eq!(wharf.ok(&["wait", "late"]), "0");
}

/// Whether it has a network, the host's or none, and whose it is.
#[test]
fn a_linux_container_is_asked_without_a_program_of_its_own() {
    let check = |wharf: &Wharf, network: &str, port: &str| {
        let line = ["run", "-d", "--network", network, "--name", network];
        let server = ["busybox", "httpd", "-f", "-p", port, "-h", "/etc"];
        let place = format!(":{port}/passwd");
        wharf.ok(&[&line[..], &["--health-http", &place], &OFTEN, &server].concat());
        becomes(wharf, network, "healthy");
        assert_eq!(last_probe(wharf, network), "0 HTTP/1.1 200 OK");
        wharf.ok(&["rm", "-f", network]);
        wharf.ok(&[&line[..], &["--health-tcp", "1"], &OFTEN, &server].concat());
        becomes(wharf, network, "unhealthy");
        assert_eq!(last_probe(wharf, network), "1 port 1: nothing listens");
        wharf.ok(&["rm", "-f", network]);
    };
    let wharf = Wharf::with_busybox();
    check(&wharf, "none", "80");
    check(&wharf, "bridge", "80");
    check(&wharf, "host", "18431");
    let other = Wharf::of("wharf-test");
    other.load(&images::busybox());
    check(&other, "none", "80");
}

#[test]
fn one_question_at_a_time_and_no_odd_ones() {
    let wharf = Wharf::new();
    let told = wharf.exits(125, &["run", "--health-cmd", "true", "--health-tcp", "1", "x"]).stderr;
    assert!(told.contains("conflicting options: cannot specify both --health-cmd and --health-tcp"), "{told}");
    let told = wharf.exits(125, &["run", "--health-tcp", "1", "--no-healthcheck", "x"]).stderr;
    assert!(told.contains("--no-healthcheck conflicts with --health-* options"), "{told}");
    for (flag, value, why) in [
        ("health-http", "/a b", "expected /PATH or :PORT/PATH"),
        ("health-http", "http://x/", "expected /PATH or :PORT/PATH"),
        ("health-tcp", "70000", "expected a number from 1 to 65535"),
    ] {
        let told = wharf.exits(125, &["run", &format!("--{flag}={value}"), "x"]).stderr;
        assert!(told.contains(&format!("for \"--{flag}\" flag: invalid")) && told.contains(why), "{told}");
    }
}

#[test]
fn a_guest_is_asked_by_another_program() {
    let wharf = Wharf::new();
    let tools = images::read(&images::guest("tools-p1"));
    let files: [(&str, &[u8]); 2] = [("app.wasm", &tools), ("bin/tools.wasm", &tools)];
    let check = json!({"Test": ["CMD", "/bin/tools.wasm", "cat", "/ok"], "Interval": 100_000_000, "Retries": 1});
    let config = json!({"Entrypoint": ["/app.wasm"], "Env": ["PATH=/bin"], "Healthcheck": check});
    wharf.load(&images::wasm_files("programs", &files, &config));
    wharf.ok(&["run", "-d", "--name", "image", "programs", "sleep", "600000"]);
    let own = ["run", "-d", "--name", "own", "--health-cmd", " tools.wasm  cat /ok", "--health-interval", "100ms"];
    wharf.ok(&[&own[..], &["--health-retries", "1", "programs", "sleep", "600000"]].concat());
    for name in ["image", "own"] {
        becomes(&wharf, name, "unhealthy");
        let said = inspect(&wharf, name, "{{with index .State.Health.Log 0}}{{.ExitCode}} {{.Output}}{{end}}");
        assert!(said.starts_with("1 /ok: "), "{said}");
        wharf.ok(&["exec", name, "tools.wasm", "write", "/ok", "x"]);
        becomes(&wharf, name, "healthy");
    }
    // What is not there is an answer too.
    wharf.ok(&["wasm", "pack", &images::guest("tools-p1"), "-t", "alone"]);
    let line = ["run", "-d", "--name", "alone", "--health-cmd", "true", "--health-interval", "100ms"];
    wharf.ok(&[&line[..], &["--health-retries", "1", "alone", "sleep", "600000"]].concat());
    becomes(&wharf, "alone", "unhealthy");
    let said = inspect(&wharf, "alone", "{{with index .State.Health.Log 0}}{{.Output}}{{end}}");
    assert!(said.contains("without a root filesystem"), "{said}");
}
