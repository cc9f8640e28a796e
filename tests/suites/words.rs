//! What docker says where: compared with docker's own client, and written down here.

use serde_json::json;

use crate::support::wharf::run;
use crate::support::{Wharf, images};

/// An image whose config and history have this time of creation.
fn made_at(name: &str, created: Option<&str>) -> Vec<u8> {
    let mut layer = images::Tar::default();
    layer.file("x", 0o644, b"hi");
    images::linux_at(name, &[layer.end()], &json!({}), created)
}

#[test]
fn times_of_creation_are_shown_as_docker_shows_them() {
    let wharf = Wharf::new();
    for (name, created) in [
        ("none", None),
        ("zero", Some("0001-01-01T00:00:00Z")),
        ("epoch", Some("1970-01-01T00:00:00Z")),
        ("later", Some("2020-06-01T12:00:00.5Z")),
    ] {
        wharf.load(&made_at(name, created));
    }
    let at = |zone: &str, args: &[&str]| {
        let mut command = wharf.command(args);
        command.env("TZ", zone);
        let ran = run(command, &[]);
        assert_eq!(ran.code, 0, "{ran}");
        ran.stdout
    };
    let since = |name: &str| at("UTC", &["images", "--format", "{{.CreatedSince}}", name]);
    assert_eq!((since("none").as_str(), since("zero").as_str()), ("N/A\n", "N/A\n"));
    assert!(since("epoch").ends_with(" years ago\n"), "{}", since("epoch"));
    let history = |name: &str| at("UTC", &["history", "--format", "{{.CreatedSince}}", name]);
    for name in ["none", "zero", "epoch"] {
        assert_eq!(history(name), "N/A\n", "{name}");
    }

    // Where the person is.
    let time = |zone, args| at(zone, args);
    let images = ["images", "--format", "{{.CreatedAt}}", "later"];
    assert_eq!(time("UTC", &images), "2020-06-01 12:00:00 +0000 UTC\n");
    assert_eq!(time("America/New_York", &images), "2020-06-01 08:00:00 -0400 EDT\n");
    let history = ["history", "--format", "{{.CreatedAt}}", "later"];
    assert_eq!(time("UTC", &history), "2020-06-01T12:00:00Z\n");
    assert_eq!(time("America/New_York", &history), "2020-06-01T08:00:00-04:00\n");
    assert_eq!(at("UTC", &["inspect", "-f", "{{.Created}}", "later"]), "2020-06-01T12:00:00.5Z\n");
}

#[test]
fn a_variable_that_we_do_not_have_is_taken_away() {
    let wharf = Wharf::with_busybox();
    wharf.load(&images::linux(
        "env:latest",
        &[images::busybox_layer()],
        &json!({"Env": ["PATH=/bin", "GIVEN=image", "KEPT=image"], "Cmd": ["env"]}),
    ));
    let file = wharf.dir().join("variables");
    std::fs::write(&file, "KEPT\nGIVEN=file\n").expect("a file");
    let file = file.to_str().expect("plain");
    let env = |args: &[&str]| {
        let mut command = wharf.command(args);
        command.env_remove("GIVEN").env_remove("KEPT").env("OURS", "host");
        let ran = run(command, &[]);
        assert_eq!(ran.code, 0, "{ran}");
        let mut lines: Vec<String> = ran.stdout.lines().map(str::to_owned).collect();
        lines.retain(|line| ["GIVEN", "KEPT", "OURS", "NONE"].iter().any(|name| line.starts_with(name)));
        lines.sort();
        lines
    };
    assert_eq!(env(&["run", "--rm", "-e", "GIVEN", "-e", "OURS", "-e", "NONE", "env"]), ["KEPT=image", "OURS=host"]);
    assert_eq!(env(&["run", "--rm", "--env-file", file, "env"]), ["GIVEN=file", "KEPT=image"], "a file only adds");
    let id = wharf.ok(&["run", "-d", "env", "sleep", "1000"]);
    assert_eq!(env(&["exec", "-e", "GIVEN", "-e", "OURS", &id, "env"]), ["KEPT=image", "OURS=host"]);
    wharf.ok(&["wasm", "pack", &images::guest("tools-p1"), "-t", "tools"]);
    assert_eq!(env(&["run", "--rm", "-e", "GIVEN", "-e", "OURS", "tools", "env"]), ["OURS=host"]);
}

#[test]
fn nobody_need_listen() {
    let wharf = Wharf::with_busybox();
    // Standard error takes nothing: what would have been said is lost, and nothing else.
    let deaf = |args: &[&str]| {
        let mut command = std::process::Command::new("sh");
        let own = wharf.command(args);
        command.args(["-c", "exec \"$0\" \"$@\" 2>/dev/full"]).arg(own.get_program()).args(own.get_args());
        for (name, value) in own.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        run(command, &[]).code
    };
    assert_eq!(deaf(&["rmi", "none-such"]), 1);
    assert_eq!(deaf(&["login", "-u", "anna", "-p", "x", "127.0.0.1:1"]), 1);
    assert_eq!(deaf(&["run", "--rm", "--pull", "never", "none-such"]), 125);
    assert_eq!(deaf(&["wasm", "pack", "/none/such", "-t", "x"]), 1);
}

#[test]
fn what_cannot_be_is_refused_when_a_container_is_made() {
    let wharf = Wharf::with_busybox();
    let cases: [(&[&str], &str); 9] = [
        (&["--cpus", "1000"], "range of CPUs is from 0.01 to "),
        (&["--cpuset-cpus", "9999"], "requested CPUs are not available - requested 9999, available: 0"),
        (&["--cpuset-mems", "99"], "requested memory nodes are not available - requested 99, available: "),
        (&["--cpuset-cpus", "x"], "invalid value x for cpuset cpus"),
        (&["--stop-signal", "FOO"], "invalid signal: FOO"),
        (&["--oom-score-adj", "5000"], "Invalid value 5000, range for oom score adj is [-1000, 1000]"),
        (&["-m", "1m"], "Minimum memory limit allowed is 6MB"),
        (&["--memory-swap", "64m"], "You should always set the Memory limit when using Memoryswap limit"),
        (&["-m", "10x"], "invalid argument \"10x\" for \"-m, --memory\" flag: invalid suffix: 'x'"),
    ];
    for (flags, words) in cases {
        for verb in ["create", "run"] {
            let ran = wharf.run(&[&[verb], flags, &["busybox", "true"]].concat());
            assert!(ran.code != 0 && ran.stderr.contains(words), "{words}: {ran}");
        }
    }
    assert_eq!(wharf.ok(&["ps", "-aq"]), "", "nothing is left of what was refused");
}

#[test]
fn an_exec_that_does_not_come_to_its_program_exits_as_dockers() {
    let wharf = Wharf::with_busybox();
    let id = wharf.ok(&["run", "-d", "busybox", "sleep", "1000"]);
    for (code, args, words) in [
        (126, &["-w", "/nosuch", &id, "true"][..], "chdir to cwd (\"/nosuch\") set in config.json failed"),
        (126, &["-u", "nosuch", &id, "true"], "unable to find user nosuch: no matching entries in passwd file"),
        (126, &[&id, "/etc"], "exec: \"/etc\": is a directory"),
        (127, &[&id, "nosuch"], "exec: \"nosuch\": executable file not found in $PATH"),
        (1, &["nosuch", "true"], "No such container: nosuch"),
        (7, &[&id, "sh", "-c", "exit 7"], ""),
    ] {
        let ran = wharf.exits(code, &[&["exec"], args].concat());
        assert!(ran.stderr.contains(words), "{ran}");
    }
}

#[test]
fn a_containers_own_size_is_that_of_its_files() {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["run", "--name", "empty", "busybox", "true"]);
    wharf.ok(&["run", "--name", "full", "busybox", "sh", "-c", "mkdir /d && head -c 5000 /dev/zero >/d/f"]);
    let size = |name: &str| wharf.ok(&["ps", "-as", "--filter", &format!("name={name}"), "--format", "{{.Size}}"]);
    assert!(size("empty").starts_with("0B (virtual "), "{}", size("empty"));
    assert!(size("full").starts_with("5kB (virtual "), "{}", size("full"));
}

#[test]
fn quiet_wins_over_a_format() {
    let wharf = Wharf::with_busybox();
    let id = wharf.ok(&["create", "busybox"]);
    let ran = wharf.exits(0, &["ps", "-aq", "--no-trunc", "--format", "{{.Names}}"]);
    assert_eq!(ran.stdout.trim_end(), id);
    assert_eq!(ran.stderr, "WARNING: Ignoring custom format, because both --format and --quiet are set.\n");
}

#[test]
fn errors_cannot_steer_a_terminal() {
    let wharf = Wharf::new();
    let mut evil = b"\x1b]0;owned\x07\x1b[2Jroot:x:0:0\n".repeat(40);
    evil.truncate(1024);
    let loaded = wharf.run_with(&["load"], &evil);
    let imported = wharf.run_with(&["import", "-"], &evil);
    let tagged = wharf.run(&["tag", "x\x1b[2J", "y\x1b[2J"]);
    let run = wharf.run(&["run", "--rm", "--pull", "never", "a\x1b]0;x\x07"]);
    for ran in [loaded, imported, tagged, run] {
        assert_ne!(ran.code, 0, "{ran}");
        assert!(!ran.stderr.contains(['\x1b', '\x07']), "{:?}", ran.stderr);
    }
}

#[test]
fn a_tree_shows_each_image_with_its_platforms() {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["tag", "busybox", "other:1"]);
    let lines = |wharf: &Wharf| -> Vec<Vec<String>> {
        let tree = wharf.ok(&["images", "--tree"]);
        tree.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    };
    let shown = lines(&wharf);
    let names: Vec<&str> = shown.iter().map(|line| line[0].as_str()).collect();
    assert_eq!(names, ["IMAGE", "busybox:latest", "other:1", "\u{2514}\u{2500}"], "{shown:?}");
    assert_eq!(shown[2][1..], shown[3][2..], "the one image is the whole: {shown:?}");
    wharf.ok(&["create", "busybox"]);
    assert_eq!(lines(&wharf)[3].last().map(String::as_str), Some("\u{2714}"));
    let refused = wharf.exits(1, &["images", "--tree", "-q"]);
    assert_eq!(refused.stderr, "--quiet is not yet supported with --tree\n");
}

#[test]
fn what_is_missing_for_a_run_is_127() {
    let wharf = Wharf::with_busybox();
    for (flag, why) in [
        ("--sysctl=net.none=1", "open /proc/sys/net/none: no such file or directory"),
        ("--device=/dev/none", "custom device \"/dev/none\": no such file or directory"),
    ] {
        let ran = wharf.exits(127, &["run", "--rm", flag, "busybox", "true"]);
        assert!(ran.stderr.contains(why), "{ran}");
    }
}

#[test]
fn an_image_says_what_its_document_is_and_when_it_was_named() {
    let wharf = Wharf::with_busybox();
    let shown = || -> serde_json::Value {
        serde_json::from_str(&wharf.ok(&["image", "inspect", "-f", "{{json .}}", "busybox"])).expect("JSON")
    };
    let image = shown();
    let descriptor = &image["Descriptor"];
    assert!(descriptor["mediaType"].as_str().is_some_and(|kind| kind.contains("manifest")), "{descriptor}");
    assert!(descriptor["size"].as_u64().is_some_and(|size| size > 100), "{descriptor}");
    let named = |image: &serde_json::Value| -> jiff::Timestamp {
        image["Metadata"]["LastTagTime"].as_str().and_then(|time| time.parse().ok()).expect("a time")
    };
    let ago = jiff::Timestamp::now().duration_since(named(&image));
    assert!(ago.as_secs() < 600, "{image}");
    // As docker's client prints Go's times: with the fraction.
    wharf.ok(&["network", "create", "timed"]);
    let created = wharf.ok(&["network", "ls", "--filter", "name=timed", "--format", "{{.CreatedAt}}"]);
    assert!(created.split(' ').nth(1).is_some_and(|time| time.contains('.')), "{created}");
}

/// What docker's client shows too, where it is true of us.
#[test]
fn info_says_how_registries_are_reached() {
    let wharf = Wharf::new();
    let config = wharf.dir().join("home/.config/wharf");
    std::fs::create_dir_all(&config).expect("a directory");
    let text =
        "[registry.\"docker.io\"]\nmirrors = [\"mirror.example\"]\n\n[registry.\"plain.example\"]\ninsecure = true\n";
    std::fs::write(config.join("registries.toml"), text).expect("a file");
    let info = wharf.ok(&["info"]);
    for part in [
        " Context:    default\n Debug Mode: false\n",
        " Storage Driver: overlay\n  Backing Filesystem: ",
        " Experimental: false\n Insecure Registries:\n  plain.example\n  ::1/128\n  127.0.0.0/8\n \
         Registry Mirrors:\n  mirror.example\n Live Restore Enabled: true",
    ] {
        assert!(info.contains(part), "{part}: {info}");
    }
}

/// What has been created and could not be started has not exited: it has never run.
#[test]
fn what_has_failed_to_start_is_created() {
    let wharf = Wharf::with_busybox();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let publish = format!("{}:80", taken.local_addr().expect("an address"));
    wharf.ok(&["create", "--name", "late", "-p", &publish, "-v", "/anonymous", "busybox", "sleep", "1000"]);
    assert_eq!(wharf.run(&["start", "late"]).code, 1);
    assert_eq!(wharf.run(&["run", "--name", "none", "--network", "none", "busybox", "/nope"]).code, 127);
    let status = |name: &str| wharf.ok(&["ps", "-a", "--filter", &format!("name={name}"), "--format", "{{.Status}}"]);
    assert_eq!((status("late"), status("none")), ("Created".to_owned(), "Created".to_owned()));
    assert_eq!(wharf.ok(&["ps", "-aq", "--filter", "status=exited"]), "");
    assert_eq!(wharf.ok(&["ps", "-aq", "--filter", "status=created"]).lines().count(), 2);
    let shown = wharf.ok(&["inspect", "-f", "{{.State.Status}} {{.State.StartedAt}} {{.State.Error}}", "late"]);
    assert!(shown.starts_with("created 0001-01-01T00:00:00Z failed to bind"), "{shown}");
    drop(taken);
    wharf.ok(&["start", "late"]);
    assert!(status("late").starts_with("Up "));
    wharf.ok(&["kill", "late"]);
    assert!(status("late").starts_with("Exited (137) "));
    wharf.ok(&["rm", "-v", "late", "none"]);
    assert_eq!(wharf.ok(&["volume", "ls", "-q"]), "");
}
