//! `logs` and its drivers, `system df -v`, `system prune`.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use crate::support::terminal::Terminal;
use crate::support::{Wharf, images};

const COUNT: &str = "i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); done";

fn counting(wharf: &Wharf, name: &str, options: &[&str]) {
    let mut args = vec!["run", "--name", name, "--network", "none"];
    args.extend(options);
    args.extend(["busybox", "sh", "-c", COUNT]);
    wharf.ok(&args);
}

#[test]
fn logs_are_put_aside_and_read_as_one() {
    let wharf = Wharf::with_busybox();
    let limits = ["--log-opt", "max-size=10k", "--log-opt", "max-file=3", "--log-opt", "compress=true"];
    counting(&wharf, "limited", &limits);
    let log = wharf.ok(&["inspect", "-f", "{{.LogPath}}", "limited"]);
    let dir = std::path::Path::new(&log).parent().expect("a directory");
    let size = |name: &str| std::fs::metadata(dir.join(name)).map(|meta| meta.len()).ok();
    let name = |end: &str| format!("{}{end}", std::path::Path::new(&log).file_name().expect("a name").display());
    assert!(size(&name("")).is_some_and(|n| n <= 10_000) && size(&name(".1")).is_some_and(|n| n <= 10_000));
    assert!(size(&name(".2.gz")).is_some() && size(&name(".3.gz")).is_none() && size(&name(".2")).is_none());
    let lines = wharf.ok(&["logs", "limited"]);
    let lines: Vec<_> = lines.lines().collect();
    let first: usize = lines[0].trim_start_matches("line ").parse().expect("a number");
    assert!(first > 0 && first < 300, "{first}");
    assert_eq!(lines, (first..400).map(|i| format!("line {i}")).collect::<Vec<_>>());
    let tail: Vec<_> = (400 - 150..400).map(|i| format!("line {i}")).collect();
    assert_eq!(wharf.ok(&["logs", "-n", "150", "limited"]), tail.join("\n"));
    // Docker's local driver: the same, with limits of its own.
    counting(&wharf, "local", &["--log-driver", "local"]);
    assert_eq!(wharf.ok(&["logs", "local"]).lines().count(), 400);
    counting(&wharf, "none", &["--log-driver", "none"]);
    let ran = wharf.exits(1, &["logs", "none"]);
    assert_eq!(ran.stderr, "Error: configured logging driver does not support reading\n");
    for (option, why) in [
        ("max-size=x", "invalid size: 'x'"),
        ("max-file=0", "max-file cannot be less than 1"),
        ("compress=true", "compress cannot be true"),
        ("foo=bar", "unknown log opt 'foo' for json-file log driver"),
    ] {
        let ran = wharf.exits(125, &["run", "--log-opt", option, "busybox", "true"]);
        assert!(ran.stderr.contains(why), "{option}: {ran}");
    }
    let ran = wharf.exits(125, &["run", "--log-driver", "syslog", "busybox", "true"]);
    assert!(ran.stderr.contains("plugin \"syslog\" not found"), "{ran}");
}

#[test]
fn logs_follow_through_rotation_and_to_the_end() {
    let wharf = Wharf::with_busybox();
    let script = format!("sleep 1; {COUNT}");
    let limits = ["--log-opt", "max-size=20k", "--log-opt", "max-file=3"];
    let args = [&["run", "-d", "--name", "one", "--network", "none"][..], &limits, &["busybox", "sh", "-c", &script]];
    wharf.ok(&args.concat());
    let mut child = wharf.spawn(&["logs", "-f", "one"]);
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    for i in 0..400 {
        assert_eq!(lines.next().expect("a line").expect("text"), format!("line {i}"));
    }
    assert!(lines.next().is_none());
    assert!(child.wait().expect("wharf ends").success());
}

#[test]
fn details_are_what_the_log_options_name() {
    let wharf = Wharf::with_busybox();
    let options = ["-l", "tier=web app", "-l", "other=x", "-e", "MODE=fast", "--log-opt", "labels=tier,none"];
    let args = [&["run", "--name", "one", "--network", "none"][..], &options, &["--log-opt", "env=MODE"]].concat();
    wharf.ok(&[&args[..], &["busybox", "echo", "said"]].concat());
    assert_eq!(wharf.ok(&["logs", "--details", "one"]), "MODE=fast,tier=web+app said");
    assert_eq!(wharf.ok(&["logs", "one"]), "said");
}

/// What a container writes must not command the terminal of who reads its log, nor what it calls itself.
#[test]
fn attack_escapes_in_logs_and_labels() {
    let wharf = Wharf::with_busybox();
    let evil = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{1b}[6n";
    wharf.ok(&["run", "--name", "one", "--network", "none", "-l", &format!("x={evil}"), "busybox", "echo", evil]);
    for args in [&["logs", "one"][..], &["ps", "-a", "--format", "table {{.Names}}\t{{.Labels}}"]] {
        let mut terminal = Terminal::start(&wharf.command(args));
        terminal.expect("\\x1b]0;owned\\x07\\x1b[2J\\x1b[6n");
        terminal.wait();
        assert!(!terminal.screen().contains('\u{7}') && !terminal.screen().contains("\u{1b}[2J"), "{args:?}");
    }
    // Where no terminal is, bytes are what they were.
    assert!(wharf.ok(&["logs", "one"]).contains(evil));
}

#[test]
fn df_and_prune_tell_and_take_what_nobody_uses() {
    let wharf = Wharf::with_busybox();
    wharf.load(&images::linux("other:latest", &[images::busybox_layer()], &serde_json::json!({"Cmd": ["sh"]})));
    wharf.ok(&["run", "-d", "--name", "up", "--network", "none", "busybox", "sleep", "1000"]);
    wharf.ok(&["run", "--name", "gone", "--network", "none", "-l", "keep=no", "busybox", "touch", "/x"]);
    let table = wharf.ok(&["system", "df"]);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]);
    assert_eq!(
        (rows[1][..3].to_vec(), rows[2][..3].to_vec()),
        (vec!["Images", "2", "1"], vec!["Containers", "2", "1"])
    );
    assert_eq!(rows[4], ["Build", "Cache", "0", "0", "0B", "0B"]);
    let long = wharf.ok(&["system", "df", "-v"]);
    for part in [
        "Images space usage:\n\nREPOSITORY   TAG       IMAGE ID       CREATED",
        "SHARED SIZE   UNIQUE SIZE   CONTAINERS\n",
        "\nContainers space usage:\n\nCONTAINER ID   IMAGE     COMMAND",
        "\nLocal Volumes space usage:\n\nVOLUME NAME   LINKS     SIZE\n",
        "\nBuild cache usage: 0B\n\nCACHE ID   CACHE TYPE   SIZE      CREATED   LAST USED   USAGE     SHARED",
    ] {
        assert!(long.contains(part), "{part}\n---\n{long}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&wharf.ok(&["system", "df", "-v", "--format", "json"])).expect("JSON");
    assert_eq!(json["Images"].as_array().map(Vec::len), Some(2));
    assert_eq!(json["Images"][0]["UniqueSize"], "0B", "both have the same layer");
    let size = json["Images"][0]["VirtualSize"].as_str().expect("a size");
    assert_eq!(rows[1][3..], [size, "0B", "(0%)"], "which is there once, and in use");

    let no = wharf.run_with(&["system", "prune", "-a"], b"n\n");
    assert!(no.stdout.starts_with("WARNING! This will remove:\n  - all stopped containers\n"), "{no}");
    assert!(no.stdout.ends_with("Are you sure you want to continue? [y/N] "), "{no}");
    assert_eq!(wharf.ok(&["system", "prune", "-f", "--filter", "label=keep=yes"]), "Total reclaimed space: 0B");
    let id = wharf.ok(&["ps", "-aq", "--no-trunc", "--filter", "name=gone"]);
    let pruned = wharf.run_with(&["system", "prune"], b"y\n").stdout;
    assert!(pruned.contains(&format!("Deleted Containers:\n{id}\n\nTotal reclaimed space: ")), "{pruned}");
    let pruned = wharf.ok(&["system", "prune", "-a", "-f"]);
    assert!(pruned.starts_with("Deleted Images:\nuntagged: other:latest\n"), "{pruned}");
    assert_eq!(wharf.ok(&["images", "--format", "{{.Repository}}"]), "busybox");
    assert_eq!(wharf.ok(&["ps", "--format", "{{.Names}}"]), "up");
    wharf.exits(1, &["system", "prune", "-f", "--filter", "foo=bar"]);
    assert_eq!(wharf.ok(&["inspect", "-f", "{{.Wharf.Backend}}", "--type", "image", "busybox"]), "linux");
}

#[test]
fn journald_gets_dockers_fields() {
    let wharf = Wharf::with_busybox();
    let line =
        ["--log-driver", "journald", "--log-opt", "tag={{.Name}}/{{.ID}}", "--log-opt", "labels=of", "-l", "of=me"];
    let program = ["busybox", "sh", "-c", "echo one; echo two >&2"];
    // Nowhere to send it: nothing is made.
    if !Path::new("/run/systemd/journal/socket").exists() {
        for (verb, code) in [("run", 125), ("create", 1)] {
            let refused = wharf.exits(code, &[&[verb], &line[..], &program].concat());
            assert!(refused.stderr.contains("journald is not enabled on this host"), "{refused}");
        }
        assert_eq!(wharf.ok(&["ps", "-aq"]), "");
    }
    let refused = wharf.run(&["create", "--log-driver", "journald", "--log-opt", "tag={{.Nope}}", "busybox"]);
    assert!(refused.code != 0 && refused.stderr.contains("invalid log tag: {{.Nope}}"), "{refused}");

    // A journal of our own, where this container's monitor looks for it.
    let place = wharf.dir().join("journal");
    std::fs::create_dir(&place).expect("a directory");
    let journal = UnixDatagram::bind(place.join("socket")).expect("a socket");
    journal.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let own = wharf.command(&[&["run", "--name", "told", "--network", "none"], &line[..], &program].concat());
    let script = "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal \
                  && mount --bind \"$0\" /run/systemd/journal && exec \"$@\"";
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(&place).arg(own.get_program()).args(own.get_args());
    for (name, value) in own.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let ran = crate::support::wharf::run(command, &[]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "one\n", "two\n"), "{ran}");
    let id = wharf.ok(&["inspect", "-f", "{{.Id}}", "told"]);
    let mut entries: Vec<String> = (0..2)
        .map(|_| {
            let mut bytes = vec![0; 4096];
            let length = journal.recv(&mut bytes).expect("an entry");
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        })
        .collect();
    entries.sort();
    let fields = |priority: u8, message: &str| {
        let short = &id[..12];
        format!(
            "CONTAINER_ID={short}\nCONTAINER_ID_FULL={id}\nCONTAINER_NAME=told\nCONTAINER_TAG=told/{short}\n\
             IMAGE_NAME=busybox\nSYSLOG_IDENTIFIER=told/{short}\nOF=me\nPRIORITY={priority}\nMESSAGE={message}\n"
        )
    };
    assert_eq!(entries, [fields(3, "two"), fields(6, "one")]);
    let logged = wharf.exits(0, &["logs", "told"]);
    assert_eq!((logged.stdout.as_str(), logged.stderr.as_str()), ("one\n", "two\n"));
}
