//! Looking into containers: `top`, `stats`.

use std::time::Duration;

use crate::support::terminal::Terminal;
use crate::support::{Wharf, eventually, images};

/// An instance with both backends' images.
fn with_both() -> Wharf {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["wasm", "pack", &images::guest("tools-p1"), "-t", "tools"]);
    wharf
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[test]
fn top_shows_what_ps_shows() {
    let wharf = with_both();
    wharf.ok(&["run", "-d", "--name", "two", "--network", "none", "busybox", "sh", "-c", "sleep 1000; true"]);
    let top = eventually("the shell has its child", Duration::from_secs(30), || {
        Some(wharf.ok(&["top", "two"])).filter(|text| text.lines().count() == 3)
    });
    let rows: Vec<_> = top.lines().collect();
    assert_eq!(words(rows[0]), ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
    // Docker's columns are 20 wide.
    assert!(rows[0].starts_with("UID                 PID                 PPID                C"), "{top}");
    assert!(rows[1].starts_with("root  ") && rows[1].ends_with("  sh -c sleep 1000; true"), "{top}");
    assert!(rows[2].ends_with("  sleep 1000"), "{top}");
    let [shell, child] = [rows[1], rows[2]].map(|row| (words(row)[1].to_owned(), words(row)[2].to_owned()));
    assert_eq!(child.1, shell.0, "the host's ids, and who made whom");
    assert_eq!(shell.0, wharf.ok(&["inspect", "-f", "{{.State.Pid}}", "two"]));

    let chosen = wharf.ok(&["top", "two", "-o", "pid,cmd"]);
    assert_eq!(chosen.lines().map(|line| words(line)[0].to_owned()).collect::<Vec<_>>(), ["PID", &shell.0, &child.0]);
    let ran = wharf.exits(1, &["top", "two", "-o", "cmd"]);
    assert_eq!(ran.stderr, "Error: Couldn't find PID field in ps output\n");
    let ran = wharf.exits(1, &["top", "two", "xyz"]);
    assert!(ran.stderr.starts_with("Error: ps: error: "), "{ran}");

    // Where the host has no ps, we read what it would have read.
    let mut command = wharf.command(&["top", "two"]);
    let out = command.env("PATH", "/nonexistent").output().expect("wharf runs");
    // But for C and STIME, which change from one moment to the next.
    let lasting = |text: &str| {
        let row = |line: &str| [&words(line)[..3], &words(line)[5..]].concat().join(" ");
        text.lines().map(row).collect::<Vec<_>>()
    };
    assert_eq!(lasting(&String::from_utf8_lossy(&out.stdout)), lasting(&top));
    let mut command = wharf.command(&["top", "two", "aux"]);
    let out = command.env("PATH", "/nonexistent").output().expect("wharf runs");
    assert!(String::from_utf8_lossy(&out.stderr).contains("ps(1) is not installed"));

    let id = wharf.ok(&["create", "--name", "never", "busybox"]);
    let ran = wharf.exits(1, &["top", "never"]);
    assert_eq!(ran.stderr, format!("Error: Container {id} is not running\n"));
    wharf.exits(1, &["top", "no-such"]);
    wharf.exits(1, &["top"]);
}

#[test]
fn top_shows_a_guest_with_its_memory() {
    let wharf = with_both();
    wharf.ok(&["run", "-d", "--name", "guest", "tools", "spin"]);
    let top = wharf.ok(&["top", "guest"]);
    let rows: Vec<_> = top.lines().map(words).collect();
    assert_eq!(rows[0], ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "RSS", "CMD"]);
    assert_eq!(rows.len(), 2, "{top}");
    assert!(rows[1][7].parse::<u64>().is_ok_and(|kib| kib > 100), "{top}");
    assert_eq!(rows[1][8..], ["tools", "spin"]);
}

#[test]
fn stats_are_the_same_for_both_backends() {
    let wharf = with_both();
    wharf.ok(&["create", "--name", "never", "--annotation", "a.b=c", "busybox"]);
    assert_eq!(wharf.ok(&["inspect", "-f", "{{json .HostConfig.Annotations}}", "never"]), "{\"a.b\":\"c\"}");
    wharf.ok(&["run", "-d", "--name", "linux", "--network", "none", "-m", "64m", "busybox", "sleep", "1000"]);
    let id = wharf.ok(&["run", "-d", "--name", "guest", "tools", "spin"]);
    let table = wharf.ok(&["stats", "--no-stream"]);
    let rows: Vec<_> = table.lines().collect();
    assert_eq!(rows.len(), 3, "{table}");
    assert!(rows[0].starts_with("CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT"), "{table}");
    assert!(rows[0].ends_with("NET I/O   BLOCK I/O   PIDS") || rows[0].contains("MEM %     NET I/O"), "{table}");
    assert!(rows[1].starts_with(&format!("{}   guest ", &id[..12])) && rows[2].contains(" / 64MiB "), "{table}");
    let format = "{{.Name}} {{.CPUPerc}} {{.PIDs}} {{.NetIO}}";
    let all = wharf.ok(&["stats", "--no-stream", "-a", "--format", format]);
    let all: Vec<_> = all.lines().map(words).collect();
    assert_eq!(all.iter().map(|row| row[0]).collect::<Vec<_>>(), ["guest", "linux", "never"]);
    let cpu: f64 = all[0][1].trim_end_matches('%').parse().expect("a number");
    assert!(cpu > 1.0, "it spins: {all:?}");
    assert_eq!(all[1][2..], ["1", "0B", "/", "0B"]);
    assert_eq!(all[2], ["never", "0.00%", "0", "0B", "/", "0B"]);

    let json: serde_json::Value =
        serde_json::from_str(&wharf.ok(&["stats", "--no-stream", "--no-trunc", "--format", "{{json .}}", "guest"]))
            .expect("JSON");
    let fields: Vec<_> = json.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(
        fields,
        ["BlockIO", "CPUPerc", "Container", "ID", "MemPerc", "MemUsage", "Name", "NetIO", "PIDs"],
        "docker's names"
    );
    assert_eq!((json["ID"].as_str(), json["Container"].as_str()), (Some(id.as_str()), Some("guest")));
    let ran = wharf.exits(1, &["stats", "--no-stream", "guest", "no-such"]);
    assert_eq!(ran.stderr, "Error: No such container: no-such\n");
}

#[test]
fn stats_redraw_in_place_on_a_terminal() {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["run", "-d", "--name", "one", "--network", "none", "busybox", "sleep", "1000"]);
    let mut terminal = Terminal::start(&wharf.command(&["stats"]));
    terminal.expect("\u{1b}[H");
    terminal.expect("NAME");
    terminal.expect("one ");
    terminal.expect("\u{1b}[J");
    // Again, and it notices who comes and goes.
    wharf.ok(&["rm", "-f", "one"]);
    wharf.ok(&["run", "-d", "--name", "another", "--network", "none", "busybox", "sleep", "1000"]);
    terminal.expect("another ");
}

#[test]
fn execs_can_be_looked_at() {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["run", "-d", "--network", "none", "--name", "box", "busybox", "sleep", "1000"]);
    let inspect = |name: &str, template: &str| wharf.ok(&["inspect", "-f", template, name]);
    assert_eq!(inspect("box", "{{json .ExecIDs}}"), "null");
    wharf.ok(&["exec", "-d", "-u", "anna", "box", "sleep", "1001"]);
    let ids: Vec<String> = serde_json::from_str(&inspect("box", "{{json .ExecIDs}}")).expect("a list");
    let [id] = &ids[..] else { panic!("{ids:?}") };
    let shown: serde_json::Value = serde_json::from_str(&inspect(id, "{{json .}}")).expect("an object");
    let container = inspect("box", "{{.Id}}");
    assert_eq!((shown["ID"].as_str(), shown["ContainerID"].as_str()), (Some(id.as_str()), Some(container.as_str())));
    assert_eq!((shown["Running"].as_bool(), shown["ExitCode"].is_null()), (Some(true), true));
    let process = &shown["ProcessConfig"];
    assert_eq!((process["entrypoint"].as_str(), process["user"].as_str()), (Some("sleep"), Some("anna")));
    assert_eq!(process["arguments"], serde_json::json!(["1001"]));
    let pid = shown["Pid"].as_u64().expect("a process");
    assert!(wharf.ok(&["top", "box", "-o", "pid"]).contains(&pid.to_string()));
    // Ended, it is known for a while; it is not among those that run.
    wharf.ok(&[
        "exec",
        "box",
        "sh",
        "-c",
        "kill -9 $(ps | grep -v grep | grep 'sleep 1001' | head -n 1 | sed 's/^ *//;s/ .*//')",
    ]);
    let told = crate::support::eventually("its end", std::time::Duration::from_secs(60), || {
        let shown = inspect(id, "{{.Running}} {{.ExitCode}}");
        (shown != "true <no value>" && shown != "true <nil>").then_some(shown)
    });
    assert_eq!(told, "false 137");
    assert_eq!(inspect("box", "{{json .ExecIDs}}"), "null");
    let none = "ab".repeat(32);
    assert!(wharf.exits(1, &["inspect", &none]).stderr.contains(&format!("No such object: {none}")));
}

#[test]
fn filters_of_ps_are_checked_as_docker_does() {
    let wharf = Wharf::with_busybox();
    let filtered = |filter: &str| wharf.run(&["ps", "-a", "--format", "{{.Names}}", "--filter", filter]);
    for (filter, why) in [
        ("health=well", "unrecognized filter value for health: well"),
        ("is-task=perhaps", "invalid filter 'is-task=[perhaps]'"),
        ("status=gone", "invalid filter 'status=gone'"),
        ("nosuch=1", "invalid filter 'nosuch'"),
    ] {
        let ran = filtered(filter);
        assert!(ran.code == 1 && ran.stderr.contains(why), "{ran}");
    }
    let run = ["run", "-d", "--name", "web", "-p", "127.0.0.1:18443:80", "--expose", "8000-8010/udp", "busybox"];
    wharf.ok(&[&run[..], &["sleep", "1000"]].concat());
    wharf.ok(&["run", "-d", "--name", "other", "--network", "none", "busybox", "sleep", "1000"]);
    let names = |filter: &str| filtered(filter).stdout.trim_end().to_owned();
    assert_eq!(names("publish=18443"), "web");
    assert_eq!(names("publish=18443/udp"), "");
    assert_eq!(names("publish=18000-19000/tcp"), "web");
    assert_eq!(names("expose=8005/udp"), "web");
    assert_eq!(names("expose=8005"), "");
    assert_eq!(names("is-task=0"), "other\nweb");
    assert_eq!(names("is-task=true"), "");
    let told = wharf.exits(125, &["run", "--log-opt", "colour=red", "busybox", "true"]).stderr;
    assert!(told.contains("unknown log opt 'colour' for json-file log driver"), "{told}");
}
