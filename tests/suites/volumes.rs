//! Volumes as a docker user knows them: made, filled, shared, refused, removed; and what a container must not do with them.

use std::os::unix::fs::{FileExt, MetadataExt, chown, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::images::Tar;
use crate::support::{Wharf, eventually, images, tool, wharf};

/// A Wharf with busybox, and with `full`: busybox with a directory of files and two `VOLUME`s, one of them a link.
fn prepared() -> Wharf {
    let wharf = Wharf::with_busybox();
    let mut layer = Tar::default();
    layer.directory("data");
    layer.directory("data/sub");
    layer.directory("real");
    layer.file("data/file", 0o640, b"of the image\n");
    layer.file("data/sub/deep", 0o600, b"deep\n");
    layer.file("real/file", 0o644, b"behind the link\n");
    layer.link("linked", "real");
    let config = json!({"Cmd": ["sh"], "Env": ["PATH=/bin"], "Volumes": {"/data": {}, "/linked/": {}}});
    wharf.load(&images::linux("full:latest", &[images::busybox_layer(), layer.end()], &config));
    wharf
}

fn sh<'a>(rest: &[&'a str], script: &'a str) -> Vec<&'a str> {
    let mut args = vec!["run", "--rm", "--network", "none"];
    args.extend(rest);
    args.extend(["busybox", "sh", "-c", script]);
    args
}

fn content(wharf: &Wharf, volume: &str) -> PathBuf {
    wharf.root().join("volumes").join(volume).join("_data")
}

fn volumes(wharf: &Wharf) -> Vec<String> {
    wharf.ok(&["volume", "ls", "-q"]).lines().map(str::to_owned).collect()
}

#[test]
fn volumes_are_made_listed_and_removed_in_dockers_words() {
    let wharf = Wharf::with_busybox();
    assert_eq!(wharf.ok(&["volume", "create", "--label", "a=1", "--label", "b", "data"]), "data");
    assert_eq!(wharf.ok(&["volume", "create", "data"]), "data", "again is no error");
    let made_up = wharf.ok(&["volume", "create"]);
    assert_eq!(made_up.len(), 64);
    let table = wharf.ok(&["volume", "ls"]);
    assert_eq!(
        table,
        format!(
            "DRIVER    VOLUME NAME\nlocal     {}\nlocal     {}",
            made_up.clone().min("data".into()),
            made_up.clone().max("data".into())
        )
    );
    let object: Value = serde_json::from_str(&wharf.ok(&["volume", "inspect", "data"])).expect("JSON");
    let object = &object[0];
    assert_eq!(
        (&object["Name"], &object["Driver"], &object["Scope"]),
        (&json!("data"), &json!("local"), &json!("local"))
    );
    assert_eq!(object["Labels"], json!({"a": "1", "b": ""}));
    assert_eq!(object["Options"], Value::Null);
    assert_eq!(object["Mountpoint"], json!(content(&wharf, "data").display().to_string()));
    assert_eq!(wharf.ok(&["inspect", "--type", "volume", "-f", "{{.Name}}", "data"]), "data");

    let names = |filter: &str| wharf.ok(&["volume", "ls", "-q", "--filter", filter]);
    assert_eq!(names("label=a=1"), "data");
    assert_eq!(names("label=a=2"), "");
    assert_eq!(names("name=at"), "data");
    assert_eq!(names("driver=none"), "");
    for number in ["10", "9"] {
        wharf.ok(&["volume", "create", &format!("many-{number}")]);
    }
    assert_eq!(names("name=many"), "many-9\nmany-10");
    wharf.ok(&["volume", "rm", "many-9", "many-10"]);
    assert_eq!(names("dangling=true").lines().count(), 2);
    wharf.exits(1, &["volume", "ls", "--filter", "nonsense=1"]);

    wharf.ok(&["create", "--name", "user", "-v", "data:/d", "busybox"]);
    assert_eq!(names("dangling=false"), "data");
    assert_eq!(
        wharf.ok(&["ps", "-a", "--filter", "volume=data", "--format", "{{.Names}} {{.Mounts}} {{.LocalVolumes}}"]),
        "user data 1"
    );
    assert_eq!(wharf.ok(&["ps", "-aq", "--filter", "volume=/d"]).len(), 12);
    assert_eq!(wharf.ok(&["ps", "-aq", "--filter", "volume=other"]), "");
    let refused = wharf.exits(1, &["volume", "rm", "data"]);
    let id = wharf.ids().remove(0);
    assert!(refused.stderr.contains(&format!("remove data: volume is in use - [{id}]")), "{refused}");
    assert!(refused.stderr.contains("user"), "who uses it is named: {refused}");
    let mounts: Value = serde_json::from_str(&wharf.ok(&["inspect", "-f", "{{json .Mounts}}", "user"])).expect("JSON");
    assert_eq!(mounts[0]["Type"], "volume");
    assert_eq!(mounts[0]["Name"], "data");
    assert_eq!(mounts[0]["Destination"], "/d");
    assert_eq!(mounts[0]["Source"], json!(content(&wharf, "data").display().to_string()));
    wharf.ok(&["rm", "-v", "user"]);
    assert_eq!(volumes(&wharf).len(), 2, "rm -v leaves volumes with names of their own");

    let pruned = wharf.ok(&["volume", "prune", "-f"]);
    assert!(pruned.contains(&made_up) && !pruned.contains("data\n"), "{pruned}");
    let pruned = wharf.ok(&["volume", "prune", "-f", "-a", "--filter", "label!=a"]);
    assert_eq!(pruned, "Total reclaimed space: 0B");
    assert_eq!(wharf.ok(&["volume", "rm", "data"]), "data");
    let missing = wharf.exits(1, &["volume", "rm", "data"]);
    assert!(missing.stderr.contains("get data: no such volume"), "{missing}");
    wharf.ok(&["volume", "rm", "-f", "data"]);
    let missing = wharf.exits(1, &["volume", "inspect", "data"]);
    assert!(missing.stderr.contains("get data: no such volume"), "{missing}");
    assert!(wharf.ok(&["system", "df"]).contains("Local Volumes"));
}

#[test]
fn names_that_are_paths_are_refused_and_make_nothing() {
    let wharf = Wharf::with_busybox();
    for name in ["../x", "..", "a/b", "a", "-x", ".hidden", "x\0y", "é", &"x".repeat(300)] {
        if !name.contains('\0') {
            let refused = wharf.run(&["volume", "create", "--", name]);
            assert_eq!(refused.code, 1, "{refused}");
            assert!(refused.stderr.contains("create "), "{refused}");
        }
    }
    for (flag, value) in [("-v", "a..b/../x:/d"), ("--mount", "src=../x,dst=/d"), ("-v", "x/y:/d")] {
        let refused = wharf.exits(125, &["run", "--rm", flag, value, "busybox", "true"]);
        assert!(refused.stderr.contains("includes invalid characters for a local volume name"), "{refused}");
    }
    wharf.exits(1, &["volume", "rm", "../containers"]);
    wharf.exits(1, &["volume", "import", "../x", "/dev/null"]);
    assert!(!wharf.root().join("x").exists() && !wharf.root().join("volumes").exists(), "nothing was made");
    assert!(volumes(&wharf).is_empty());
    assert_eq!(wharf.ok(&["system", "check"]), "No problems found.");
}

#[test]
fn the_first_use_fills_a_volume_from_the_image() {
    let wharf = prepared();
    let script = "stat -c '%n %a' /data/file /data/sub/deep; cat /data/file";
    let run = |rest: &[&str]| {
        let args = [&["run", "--rm"], rest, &["full", "sh", "-c", script]].concat();
        wharf.run(&args)
    };
    let filled = run(&["-v", "one:/data"]);
    assert_eq!(filled.stdout, "/data/file 640\n/data/sub/deep 600\nof the image\n", "{filled}");
    assert_eq!(std::fs::read_to_string(content(&wharf, "one").join("file")).expect("filled"), "of the image\n");
    // What is there stays, also when the image has more.
    wharf.ok(&[
        "run",
        "--rm",
        "-v",
        "one:/data",
        "full",
        "sh",
        "-c",
        "rm -r /data/file /data/sub; echo own > /data/own",
    ]);
    assert_eq!(wharf.ok(&["run", "--rm", "-v", "one:/data", "full", "ls", "/data"]), "own");
    // Nocopy, in both spellings, and a bind mount fill nothing.
    assert_eq!(wharf.ok(&["run", "--rm", "-v", "two:/data:nocopy", "full", "ls", "/data"]), "");
    assert_eq!(wharf.ok(&["run", "--rm", "--mount", "src=three,dst=/data,volume-nocopy", "full", "ls", "/data"]), "");
    let host = wharf.dir().join("host");
    let bind = format!("{}:/data", host.display());
    assert_eq!(wharf.ok(&["run", "--rm", "-v", &bind, "full", "ls", "/data"]), "");
    assert!(host.is_dir(), "-v makes a missing directory");
    // A named volume at a link of the image is filled with what is behind it.
    assert_eq!(wharf.ok(&["run", "--rm", "-v", "four:/linked", "full", "cat", "/real/file"]), "behind the link");
    assert_eq!(std::fs::read_to_string(content(&wharf, "four").join("file")).expect("filled"), "behind the link\n");
    // Owners are kept.
    let mut layer = Tar::default();
    layer.directory("owned");
    wharf.load(&images::linux("owned:latest", &[images::busybox_layer(), layer.end()], &json!({"Env": ["PATH=/bin"]})));
    wharf.ok(&["run", "--name", "cc", "owned", "sh", "-c", "true"]);
    let owned = wharf.ok(&["run", "--rm", "-v", "five:/owned", "owned", "stat", "-c", "%u %a", "/owned"]);
    assert_eq!(owned, "0 755");
    assert_eq!(std::fs::metadata(content(&wharf, "five")).expect("made").uid(), 0);
}

#[test]
fn anonymous_volumes_live_and_die_with_their_container() {
    let wharf = prepared();
    // By --rm, also when the program fails or cannot be started.
    wharf.exits(3, &["run", "--rm", "-v", "/extra", "full", "sh", "-c", "echo x > /data/x; exit 3"]);
    wharf.exits(127, &["run", "--rm", "full", "no-such-program"]);
    wharf.exits(125, &["run", "--rm", "--name", "-bad", "full", "true"]);
    assert!(volumes(&wharf).is_empty(), "{:?}", volumes(&wharf));

    wharf.ok(&["run", "--name", "cc", "full", "sh", "-c", "echo kept > /data/x; cat /linked/file"]);
    assert_eq!(volumes(&wharf).len(), 2);
    let mounts =
        wharf.ok(&["inspect", "-f", "{{range .Mounts}}{{.Destination}} {{.Type}} {{len .Name}}\n{{end}}", "cc"]);
    assert_eq!(mounts.trim(), "/data volume 64\n/linked volume 64");
    wharf.ok(&["start", "-a", "cc"]);
    // Without -v they stay behind, for prune.
    wharf.ok(&["create", "--name", "dd", "--volumes-from", "cc", "full"]);
    wharf.ok(&["rm", "-v", "cc"]);
    assert_eq!(volumes(&wharf).len(), 2, "another container has taken them over");
    wharf.ok(&["rm", "dd"]);
    let pruned = wharf.ok(&["volume", "prune", "-f"]);
    assert!(pruned.starts_with("Deleted Volumes:\n"), "{pruned}");
    assert!(volumes(&wharf).is_empty());

    // A monitor that is killed takes nothing with it.
    wharf.ok(&["run", "-d", "--rm", "--name", "kk", "full", "sleep", "1000"]);
    assert_eq!(volumes(&wharf).len(), 2);
    let pid = *wharf.monitors().keys().next().expect("a monitor");
    tool(Command::new("kill").args(["-9", &pid.to_string()]));
    eventually("the container is gone", Duration::from_secs(30), || wharf.ok(&["ps", "-aq"]).is_empty().then_some(()));
    assert!(volumes(&wharf).is_empty(), "{:?}", volumes(&wharf));
    assert_eq!(wharf.ok(&["system", "check"]), "No problems found.");
}

#[test]
fn volumes_from_gives_the_mounts_of_others() {
    let wharf = prepared();
    wharf.ok(&[
        "run",
        "--name",
        "aa",
        "-v",
        "data:/d",
        "--tmpfs",
        "/t",
        "full",
        "sh",
        "-c",
        "echo a > /d/f; echo b > /data/g",
    ]);
    let out =
        wharf.ok(&sh(&["--volumes-from", "aa"], "cat /d/f /data/g /linked/file; echo more > /d/more; test ! -d /t"));
    assert_eq!(out, "a\nb\nbehind the link");
    let ro = wharf.run(&sh(&["--volumes-from", "aa:ro"], "cat /d/more; echo x > /d/x"));
    assert_eq!((ro.stdout.as_str(), ro.code), ("more\n", 1), "{ro}");
    assert!(ro.stderr.contains("Read-only file system"), "{ro}");
    // Its own mount wins.
    assert_eq!(wharf.ok(&sh(&["--volumes-from", "aa", "-v", "other:/d"], "ls /d")), "");
    let missing = wharf.exits(125, &sh(&["--volumes-from", "nobody"], "true"));
    assert!(missing.stderr.contains("No such container: nobody"), "{missing}");
    wharf.exits(125, &sh(&["--volumes-from", "aa:sideways"], "true"));
}

#[test]
fn objects_as_json_are_one_list_on_one_line() {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["volume", "create", "one"]);
    wharf.ok(&["volume", "create", "two"]);
    let names = |args: &[&str]| {
        let ran = wharf.run(args);
        assert_eq!((ran.stdout.lines().count(), ran.code), (1, 1), "{ran}");
        let list: Vec<serde_json::Value> = serde_json::from_str(&ran.stdout).expect("a list");
        list.iter().map(|object| object["Name"].as_str().unwrap_or("?").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&["volume", "inspect", "-f", "json", "one", "nope", "two"]), ["one", "two"]);
    assert_eq!(names(&["inspect", "-f", "json", "one", "bridge", "nope"]), ["one", "bridge"]);
    assert_eq!(names(&["network", "inspect", "-f", "json", "bridge", "nope", "none"]), ["bridge", "none"]);
    assert_eq!(names(&["image", "inspect", "-f", "json", "busybox", "nope"]), ["?"]);
    assert_eq!(names(&["container", "inspect", "-f", "json", "nope"]), [""; 0]);
    // A template is filled in for each.
    assert_eq!(wharf.ok(&["volume", "inspect", "-f", "{{json .Name}}", "one", "two"]), "\"one\"\n\"two\"");
}

#[test]
fn nothing_is_called_nothing() {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["volume", "create", "one"]);
    let refused = |args: &[&str], stdout: &str, words: &str| {
        let ran = wharf.run(args);
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str(), ran.code), (stdout, words, 1), "{args:?}");
    };
    let empty = |kind: &str| format!("invalid {kind} name or ID: value is empty\n");
    refused(&["volume", "rm", "", "one"], "one\n", &empty("volume"));
    refused(&["volume", "rm", "-f", ""], "", &empty("volume"));
    refused(&["volume", "inspect", ""], "[]\n", &empty("volume"));
    refused(&["inspect", "--type", "volume", ""], "[]\n", &empty("volume"));
    refused(&["network", "rm", "-f", ""], "", &empty("network"));
    refused(&["network", "inspect", ""], "[]\n", &empty("network"));
    refused(&["network", "connect", "", "c"], "", &empty("network"));
    refused(&["network", "disconnect", "bridge", ""], "", &empty("container"));
    refused(&["inspect", ""], "[]\n", &empty("container"));
    refused(&["rm", "-f", ""], "", "container name cannot be empty\n");
}

#[test]
fn volumes_with_options_are_not_counted() {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["volume", "create", "own"]);
    wharf.ok(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "memory"]);
    let df = |rest: &[&str]| wharf.ok(&[&["system", "df"], rest].concat());
    assert!(df(&["--format", "{{.Type}}={{.TotalCount}}"]).contains("Local Volumes=1\n"));
    let long = df(&["-v"]);
    assert!(long.contains("\nown ") && !long.contains("\nmemory "), "{long}");
}

#[test]
fn mounts_keep_dockers_promises() {
    let wharf = Wharf::with_busybox();
    let host = wharf.dir().join("host");
    std::fs::create_dir(&host).expect("mkdir");
    std::fs::write(host.join("f"), "host\n").expect("write");
    let path = host.display().to_string();
    let ro = wharf.run(&sh(&["--mount", &format!("type=bind,src={path},dst=/h,readonly")], "cat /h/f; echo > /h/x"));
    assert_eq!((ro.stdout.as_str(), ro.code), ("host\n", 1), "{ro}");
    // A missing source: `--mount` refuses, `-v` and bind-create-src make it.
    let missing = format!("type=bind,src={path}/missing,dst=/h");
    let refused = wharf.exits(125, &sh(&["--mount", &missing], "true"));
    assert!(refused.stderr.contains("bind source path does not exist"), "{refused}");
    assert!(!host.join("missing").exists());
    wharf.ok(&sh(&["--mount", &format!("{missing},bind-create-src")], "test -d /h"));
    assert!(host.join("missing").is_dir());
    let twice = wharf.exits(125, &sh(&["-v", "aa:/d", "-v", "bb:/d/."], "true"));
    assert!(twice.stderr.contains("Duplicate mount point: /d"), "{twice}");

    // The kernel's processes may be given, another thing in their place not.
    let proc = wharf.exits(125, &sh(&["-v", "aa:/proc"], "true"));
    assert!(proc.stderr.contains("what is mounted there must be of type proc"), "{proc}");
    wharf.ok(&sh(&["-v", "/proc:/proc"], "test -d /proc/1"));

    let root = wharf.ok(&sh(&[], "df / | tail -n 1"));
    assert!(root.starts_with("overlay "), "{root}");
    let tmpfs = "mount | grep ' /t '; stat -c %a /t";
    let out = wharf.ok(&sh(&["--mount", "type=tmpfs,dst=/t,tmpfs-size=64k,tmpfs-mode=1770"], tmpfs));
    assert!(out.starts_with("tmpfs on /t type tmpfs ") && out.contains("size=64k"), "{out}");
    assert!(out.ends_with("1770") && out.contains("noexec"), "{out}");
    let words = "/t:size=128k,mode=700,exec,atime,nostrictatime,norelatime,nomand";
    let out = wharf.ok(&sh(&["--tmpfs", words], tmpfs));
    assert!(out.contains("size=128k") && out.ends_with("700") && !out.contains("noexec"), "{out}");
    for (bad, named) in [("foo", r#"["foo"]"#), ("mode=9,size=1m", r#"["mode" "9"]"#), ("a,uid=b", r#"["uid" "b"]"#)] {
        let refused = wharf.exits(125, &sh(&["--tmpfs", &format!("/t:{bad}")], "true"));
        assert!(refused.stderr.contains(&format!("invalid tmpfs option {named}")), "{refused}");
    }

    // What is mounted below a read-only bind is read-only too, unless told otherwise.
    let below = host.join("missing");
    tool(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&below));
    let write = "echo x > /h/missing/x && echo written";
    let recursive =
        |how: &str| wharf.run(&sh(&["--mount", &format!("type=bind,src={path},dst=/h,readonly{how}")], write)).stdout;
    let outcomes =
        ["", ",bind-recursive=readonly,bind-propagation=rprivate", ",bind-recursive=writable", ",bind-nonrecursive"]
            .map(recursive);
    tool(Command::new("umount").arg(&below));
    assert_eq!(outcomes, ["", "", "written\n", ""]);
}

#[test]
fn what_is_asked_for_one_place_is_settled_as_docker_does() {
    let wharf = Wharf::with_busybox();
    let host = wharf.dir().join("host");
    std::fs::create_dir(&host).expect("mkdir");
    std::fs::write(host.join("f"), "host\n").expect("write");
    let host = host.display().to_string();
    wharf.ok(&sh(&["-v", "aa:/t"], "echo aa > /t/f"));
    wharf.ok(&["create", "--name", "from", "-v", "aa:/t", "busybox"]);
    let (same, bind) = (format!("{host}:/t"), format!("type=bind,src={host},dst=/t"));
    let seen = |flags: &[&str]| wharf.ok(&sh(flags, "cat /t/f; grep ' /t ' /proc/mounts"));
    for (flags, first) in [
        (&["-v", "aa:/t", "-v", "aa:/t"][..], "aa\n"),
        (&["-v", &same, "-v", &same], "host\n"),
        (&["-v", "/t", "-v", "aa:/t"], "aa\n"),
        (&["-v", &same, "-v", "/t"], "host\n"),
        (&["-v", "/t", "--mount", &bind], "host\n"),
        (&["--volumes-from", "from", "-v", "/t"], "aa\n"),
        (&["--volumes-from", "from:ro,z", "-v", "t"], "aa\n"),
        (&["--volumes-from", "from:"], "aa\n"),
    ] {
        let out = seen(flags);
        assert!(out.starts_with(first), "{flags:?}: {out}");
    }
    let memory = |flags: &[&str]| wharf.ok(&sh(flags, "ls /t; grep ' /t ' /proc/mounts"));
    for flags in [
        &["--tmpfs", "/t:size=1m", "--tmpfs", "/t:size=2m"][..],
        &["--mount", "type=tmpfs,dst=/t,tmpfs-size=2m", "--tmpfs", "/t:size=1m"],
        &["--mount", &bind, "--tmpfs", "/t:size=2m", "-v", "/t"],
    ] {
        let out = memory(flags);
        assert!(out.starts_with("tmpfs /t tmpfs ") && out.contains("size=2048k"), "{flags:?}: {out}");
    }
    // Nothing that was replaced has been made.
    assert_eq!(wharf.ok(&["volume", "ls", "-q"]), "aa");
    assert_eq!(wharf.ok(&sh(&["-v", "./../t"], "grep -c ' /t ' /proc/mounts")), "1");
}

#[test]
fn mounts_propagate_as_asked() {
    let wharf = Wharf::with_busybox();
    let shared = wharf.dir().join("shared");
    std::fs::create_dir(&shared).expect("mkdir");
    tool(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&shared));
    tool(Command::new("mount").arg("--make-shared").arg(&shared));
    for dir in ["in", "out"] {
        std::fs::create_dir(shared.join(dir)).expect("mkdir");
    }
    let script =
        "until test -e /s/in/ready; do sleep 0.05; done; echo seen; mount -t tmpfs t /s/out && touch /s/out/here";
    let seen = |how: &str| {
        let bind = format!("{}:/s{how}", shared.display());
        let args = [
            "run",
            "-d",
            "--cap-add",
            "SYS_ADMIN",
            "--security-opt",
            "seccomp=unconfined",
            "-v",
            &bind,
            "busybox",
            "sh",
            "-c",
            script,
        ];
        let id = wharf.ok(&args);
        tool(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(shared.join("in")));
        std::fs::write(shared.join("in/ready"), "").expect("write");
        let ends = || (wharf.ok(&["ps", "-q", "--filter", &format!("id={id}")]).is_empty()).then_some(());
        if how.is_empty() {
            std::thread::sleep(Duration::from_millis(500));
            assert_eq!(wharf.ok(&["logs", &id]), "", "private");
        } else {
            eventually("the container sees the mount", Duration::from_secs(30), ends);
        }
        let out = shared.join("out/here").exists();
        wharf.ok(&["rm", "-f", &id]);
        tool(Command::new("umount").arg(shared.join("in")));
        if out {
            tool(Command::new("umount").arg(shared.join("out")));
        }
        out
    };
    let outcomes = [":rslave", ":rshared", ""].map(seen);
    assert_eq!(outcomes, [false, true, false]);
    // What is shared with nobody has nothing to share, and what only hears of others' mounts tells nobody of its own.
    let refused = |how: &str, what: &str| {
        let (source, point) = (shared.join("in"), shared.display());
        let words = format!("path {} is mounted on {point} but it is not {what}\n", source.display());
        let volume = format!("{}:/shared:{how}", source.display());
        let mount = format!("type=bind,src={},dst=/shared,bind-propagation={how}", source.display());
        for flags in [["-v", &volume], ["--mount", &mount]] {
            let ran =
                wharf.exits(125, &[&["run", "--rm", "--network", "none"][..], &flags, &["busybox", "true"]].concat());
            assert!(ran.stderr.contains(&words), "{ran}");
        }
    };
    let master = wharf.dir().join("master");
    std::fs::create_dir(&master).expect("mkdir");
    tool(Command::new("mount").arg("--bind").arg(&shared).arg(&master));
    tool(Command::new("mount").arg("--make-slave").arg(&shared));
    refused("rshared", "a shared mount");
    wharf.ok(&[
        "run",
        "--rm",
        "--network",
        "none",
        "-v",
        &format!("{}:/in:slave", shared.display()),
        "busybox",
        "true",
    ]);
    tool(Command::new("mount").arg("--make-private").arg(&shared));
    refused("shared", "a shared mount");
    refused("slave", "a shared or slave mount");
    refused("rslave", "a shared or slave mount");
    tool(Command::new("umount").arg("-l").arg(&shared).arg(&master));
}

#[test]
fn a_volume_is_shared_by_wasm_and_linux_at_once() {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["wasm", "pack", &images::guest("tools-p1"), "-t", "tools"]);
    let reader = wharf.ok(&[
        "run",
        "-d",
        "-v",
        "both:/d",
        "busybox",
        "sh",
        "-c",
        "until test -s /d/from-wasm; do sleep 0.05; done; cat /d/from-wasm; echo linux > /d/from-linux",
    ]);
    wharf.ok(&["run", "--rm", "-v", "both:/v", "tools", "write", "/v/from-wasm", "wasm"]);
    assert_eq!(wharf.ok(&["wait", &reader]), "0");
    assert_eq!(wharf.ok(&["logs", &reader]), "wasm");
    assert_eq!(wharf.ok(&["run", "--rm", "-v", "both:/v:ro", "tools", "cat", "/v/from-linux"]), "linux");
    assert_ne!(wharf.run(&["run", "--rm", "-v", "both:/v:ro", "tools", "write", "/v/x", "no"]).code, 0);
    let part = "src=both,dst=/p,volume-subpath=sub";
    wharf.ok(&sh(&["-v", "both:/d"], "mkdir /d/sub; echo part > /d/sub/f; ln -s / /d/out"));
    assert_eq!(wharf.ok(&["run", "--rm", "--mount", part, "tools", "cat", "/p/f"]), "part");
    let out = wharf.run(&["run", "--rm", "--mount", "src=both,dst=/p,volume-subpath=out", "tools", "ls", "/p"]);
    assert_ne!(out.code, 0, "{out}");
}

#[test]
fn read_only_means_read_only() {
    let wharf = Wharf::with_busybox();
    wharf.ok(&sh(&["-v", "data:/rw"], "echo x > /rw/f; mkdir /rw/d; echo y > /rw/d/g"));
    let attempts = [
        "echo x > /ro/new",
        "echo x >> /ro/f",
        "ln /ro/f /ro/hard",
        "ln /ro/f /rw2/hard",
        "ln -s f /ro/soft",
        "mv /ro/f /ro/g",
        "mv /rw2/own /ro/f",
        "mv /ro/f /rw2/",
        "touch -d 2001-01-01 /ro/f",
        "chmod 777 /ro/f",
        "rm -f /ro/f",
        "mkdir /ro/e",
        "mount -o remount,rw /ro",
        "mount -o remount,rw,bind /ro",
        "umount /ro",
        "ln -s /ro/f /rw2/way; echo x > /rw2/way",
        "echo x > /proc/self/cwd/../ro/f",
    ];
    let before = std::fs::metadata(content(&wharf, "data").join("f")).expect("there").modified().expect("a time");
    for attempt in attempts {
        let script = format!("echo own > /rw2/own; ({attempt}) 2>/dev/null && echo DONE; cat /ro/f /ro/d/g");
        let rest = ["-v", "data:/ro:ro", "--tmpfs", "/rw2"];
        let ran = wharf.run(&sh(&rest, &script));
        assert_eq!((ran.code, ran.stdout.as_str()), (0, "x\ny\n"), "{attempt}: {ran}");
    }
    let now = std::fs::metadata(content(&wharf, "data").join("f")).expect("there").modified().expect("a time");
    assert_eq!(before, now);
}

#[test]
fn no_subpath_leads_out_of_the_volume() {
    let wharf = Wharf::with_busybox();
    let secret = wharf.dir().join("secret");
    std::fs::create_dir(&secret).expect("mkdir");
    std::fs::write(secret.join("f"), "secret").expect("write");
    wharf.ok(&sh(
        &["-v", "data:/d"],
        "mkdir -p /d/a/b; echo in > /d/a/b/f; ln -s a/b /d/inside; ln -s ../../.. /d/a/up",
    ));
    symlink(&secret, content(&wharf, "data").join("out")).expect("link");
    symlink("/proc/self/root", content(&wharf, "data").join("magic")).expect("link");
    let run =
        |subpath: &str| wharf.run(&sh(&["--mount", &format!("src=data,dst=/p,volume-subpath={subpath}")], "cat /p/f"));
    for subpath in ["a/b", "inside", "./a/./b"] {
        let ran = run(subpath);
        assert_eq!((ran.code, ran.stdout.as_str()), (0, "in\n"), "{subpath}: {ran}");
    }
    for subpath in ["..", "../secret", "/etc", "a/../../x", "out", "a/up", "a/up/..", "magic", "magic/etc"] {
        let ran = run(subpath);
        assert_eq!(ran.code, 125, "{subpath}: {ran}");
        assert_eq!(ran.stdout, "");
    }
    // Both kinds of container say so in the same words.
    wharf.ok(&["wasm", "pack", &images::guest("tools-p1"), "-t", "tools"]);
    // (What is not there ends with 127, because docker's client takes it for the program.)
    for (subpath, code, words) in [("a/up", 125, "subpath a/up leads out"), ("missing", 127, "/missing: no such file")]
    {
        let mount = format!("src=data,dst=/p,volume-subpath={subpath}");
        for program in [["busybox", "ls"], ["tools", "ls"]] {
            let ran = wharf.exits(code, &["run", "--rm", "--mount", &mount, program[0], program[1], "/p"]);
            assert!(ran.stderr.contains(words), "{ran}");
        }
    }
    // A container that swaps a directory for a link while others are being started never shows them what is outside.
    let swap = "cd /d; mkdir x; while :; do mv x y; ln -s SECRET x; rm x; mv y x; done"
        .replace("SECRET", &secret.display().to_string());
    let swapper = wharf.ok(&["run", "-d", "-v", "data:/d", "busybox", "sh", "-c", &swap]);
    for _ in 0..30 {
        let ran = wharf.run(&sh(&["--mount", "src=data,dst=/p,volume-subpath=x"], "cat /p/f"));
        assert!(!ran.stdout.contains("secret"), "{ran}");
    }
    wharf.ok(&["rm", "-f", &swapper]);
}

#[test]
fn eight_processes_make_one_volume_and_fill_it_once() {
    let wharf = prepared();
    // One of them fills; whoever comes second must not see half of it, nor fill again what the first has taken out.
    let script = "test -e /data/sub/deep && echo $$ >> /data/list && rm -f /data/file && cat /data/sub/deep";
    for round in 0..3 {
        let volume = format!("shared{round}:/data");
        let mut children: Vec<_> = (0..8)
            .map(|_| wharf.spawn(&["run", "--rm", "--network", "none", "-v", &volume, "full", "sh", "-c", script]))
            .collect();
        for child in &mut children {
            assert_eq!(wharf::wait(child, "a container of eight"), 0);
        }
        let data = content(&wharf, &format!("shared{round}"));
        assert!(!data.join("file").exists(), "filled again");
        assert_eq!(std::fs::read_to_string(data.join("list")).expect("written").lines().count(), 8);
    }
    let mut creators: Vec<_> = (0..8).map(|_| wharf.spawn(&["volume", "create", "parallel"])).collect();
    creators.iter_mut().for_each(|child| assert_eq!(wharf::wait(child, "volume create"), 0));
    // Made and removed at once: each command succeeds or says why, and nothing is left over.
    let mut storm: Vec<_> = (0..24)
        .map(|n| match n % 3 {
            0 => wharf.spawn(&["volume", "create", "storm"]),
            1 => wharf.spawn(&["volume", "rm", "-f", "storm"]),
            _ => wharf.spawn(&["run", "--rm", "--network", "none", "-v", "storm:/s", "busybox", "touch", "/s/x"]),
        })
        .collect();
    for (n, child) in storm.iter_mut().enumerate() {
        let code = wharf::wait(child, "a storm");
        assert!(code == 0 || n % 3 == 1, "number {n} ended with {code}");
    }
    assert_eq!(wharf.ok(&["system", "check"]), "No problems found.");
}

#[test]
fn what_dies_while_filling_is_made_good() {
    let wharf = prepared();
    wharf.ok(&["volume", "create", "data"]);
    // As a process that died in the middle leaves it: an incomplete copy, then a complete one half moved.
    let dir = wharf.root().join("volumes/data");
    std::fs::create_dir(dir.join("filling")).expect("mkdir");
    std::fs::write(dir.join("filling/half"), "x").expect("write");
    let list = || wharf.ok(&["run", "--rm", "-v", "data:/data", "full", "ls", "/data"]);
    assert_eq!(list(), "file\nsub");
    wharf.ok(&["volume", "rm", "data"]);
    wharf.ok(&["volume", "create", "data"]);
    std::fs::create_dir(dir.join("filled")).expect("mkdir");
    std::fs::write(dir.join("filled/rest"), "x").expect("write");
    std::fs::write(dir.join("_data/first"), "x").expect("write");
    assert_eq!(list(), "first\nrest");
    // What no record knows is found, and swept.
    std::fs::create_dir_all(wharf.root().join("volumes/lost/_data")).expect("mkdir");
    std::fs::create_dir_all(wharf.root().join("volumes/.removed-1/_data")).expect("mkdir");
    let found = wharf.exits(1, &["system", "check"]);
    assert!(found.stdout.contains("volume lost: left over") && found.stdout.contains("volume .removed-1"), "{found}");
    wharf.ok(&["system", "check", "--repair"]);
    assert_eq!(wharf.ok(&["system", "check"]), "No problems found.");
    assert_eq!(volumes(&wharf), ["data"]);
}

#[test]
fn content_outlives_a_lost_database() {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["volume", "create", "empty"]);
    wharf.ok(&sh(&["-v", "precious:/d"], "echo kept > /d/f"));
    let database = wharf.root().join("wharf.db");
    for kind in ["-shm", "-wal"] {
        let _ = std::fs::remove_file(wharf.root().join(format!("wharf.db{kind}")));
    }
    std::fs::write(&database, "this is no database, but a text of some length".repeat(100)).expect("written");
    let damaged = wharf.exits(1, &["volume", "ls"]);
    assert!(damaged.stderr.contains(&format!("{} is damaged", database.display())), "{damaged}");
    assert!(damaged.stderr.contains("move it away"), "{damaged}");
    std::fs::remove_file(&database).expect("moved away");
    let found = wharf.exits(1, &["system", "check", "--repair"]);
    assert!(found.stdout.contains("'wharf volume create precious' makes it a volume again"), "{found}");
    assert!(!wharf.root().join("volumes/empty").exists(), "there is nothing in it to keep");
    wharf.ok(&["volume", "create", "precious"]);
    assert_eq!(wharf.ok(&["system", "check"]), "No problems found.");
    wharf.load(&images::busybox());
    assert_eq!(wharf.ok(&sh(&["-v", "precious:/d"], "cat /d/f")), "kept");
}

#[test]
fn the_local_driver_mounts_what_its_options_say() {
    let wharf = Wharf::with_busybox();
    let host = wharf.dir().join("host");
    std::fs::create_dir(&host).expect("mkdir");
    let device = format!("device={}", host.display());
    wharf.ok(&["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, "bound"]);
    wharf.ok(&sh(&["-v", "bound:/d"], "echo bound > /d/f"));
    assert_eq!(std::fs::read_to_string(host.join("f")).expect("written"), "bound\n");
    wharf.ok(&["volume", "rm", "bound"]);
    assert!(host.join("f").exists(), "the host's directory stays");

    wharf.ok(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=100k,uid=1000", "mem"]);
    let first = wharf.ok(&["run", "-d", "-v", "mem:/m", "busybox", "sh", "-c", "echo shared > /m/f; sleep 1000"]);
    eventually("it has written", Duration::from_secs(30), || content(&wharf, "mem").join("f").exists().then_some(()));
    assert_eq!(wharf.ok(&sh(&["-v", "mem:/x"], "cat /x/f; stat -c %u /x")), "shared\n1000");
    assert!(content(&wharf, "mem").join("f").exists(), "one user is left");
    wharf.ok(&["rm", "-f", &first]);
    assert!(!content(&wharf, "mem").join("f").exists(), "unmounted with its last user");
    wharf.ok(&["volume", "rm", "mem"]);

    let errors: [(&[&str], &str); 6] = [
        (&["-o", "type=ext4"], "missing required option: \"device\""),
        (&["-o", "type="], "missing required option: \"device\""),
        (&["-o", "device=/x"], "missing required option: \"type\""),
        (&["-o", "foo=bar"], "invalid option: \"foo\""),
        (&["-o", "size=1g"], "quota size requested but no quota support"),
        (&["-d", "elsewhere"], "plugin \"elsewhere\" not found"),
    ];
    for (options, error) in errors {
        let refused = wharf.exits(1, &[&["volume", "create"], options, &["bad"]].concat());
        assert!(refused.stderr.contains(error), "{refused}");
    }
    wharf.ok(&["volume", "create", "-o", "type=no-such-fs", "-o", "device=none", "strange"]);
    let refused = wharf.exits(125, &sh(&["-v", "strange:/d"], "true"));
    assert!(
        refused.stderr.contains("failed to mount local volume") && refused.stderr.contains("no-such-fs"),
        "{refused}"
    );
    let far = ["-o", "type=nfs", "-o", "device=:/x", "-o", "o=addr=localhost,soft,bogus"];
    wharf.ok(&[&["volume", "create"][..], &far, &["far"]].concat());
    let refused = wharf.exits(125, &sh(&["-v", "far:/d"], "true"));
    assert!(refused.stderr.contains(", data: addr=127.0.0.1,soft,bogus: "), "{refused}");
    let inline =
        format!("dst=/d,src=inline,volume-opt=type=none,volume-opt=o=bind,volume-opt={device},volume-label=l=1");
    assert_eq!(wharf.ok(&sh(&["--mount", &inline], "cat /d/f")), "bound");
    assert_eq!(wharf.ok(&["volume", "ls", "-q", "--filter", "label=l=1"]), "inline");
}

#[test]
fn content_travels_as_an_archive() {
    let wharf = prepared();
    let script = "echo one > /d/a; mkdir /d/b; echo two > /d/b/.wh.c; ln -s a /d/l; ln /d/a /d/h; chown -R 70:80 /d; chmod 2750 /d";
    let script = script.replace("chown -R 70:80 /d; ", "");
    wharf.ok(&sh(&["-v", "from:/d"], &script));
    let data = content(&wharf, "from");
    for name in ["", "a", "b", "b/.wh.c"] {
        chown(data.join(name), Some(70), Some(80)).expect("chown");
    }
    let archive = wharf.dir().join("x.tar");
    let archive = archive.to_str().expect("UTF-8");
    wharf.ok(&["volume", "export", "from", "-o", archive]);
    // As an import that was killed leaves it.
    std::fs::create_dir_all(wharf.root().join("volumes/to/filling/half")).expect("mkdir");
    assert_eq!(wharf.ok(&["volume", "import", "to", archive]), "to");
    let look = "cd /d; ls -a; cat b/.wh.c l; stat -c '%a %u %g %h' . a";
    assert_eq!(wharf.ok(&sh(&["-v", "to:/d"], look)), wharf.ok(&sh(&["-v", "from:/d"], look)));
    let bytes = images::read(archive);
    let again = wharf.run_with(&["volume", "import", "to"], &bytes);
    assert_eq!(again.code, 1, "{again}");
    assert!(again.stderr.contains("the volume is not empty"), "{again}");
    // Damaged or hostile: nothing comes in, nothing is recorded, and nothing is left.
    wharf.ok(&["volume", "create", "was-empty"]);
    for bad in [&bytes[..bytes.len() / 3], b"no archive at all", b"", &escape()[..]] {
        for name in ["bad", "was-empty"] {
            let refused = wharf.run_with(&["volume", "import", name], bad);
            assert_eq!(refused.code, 1, "{refused}");
            let lead = format!("Error: import {name}: archive: ");
            assert!(refused.stderr.starts_with(&lead) && !refused.stderr.contains("layer"), "{refused}");
        }
        assert_eq!(std::fs::read_dir(content(&wharf, "was-empty")).expect("a volume").count(), 0);
    }
    assert_eq!(volumes(&wharf), ["from", "to", "was-empty"]);
    assert!(!wharf.root().join("volumes/bad").exists());
    assert_eq!(wharf.ok(&["system", "check"]), "No problems found.");
    wharf.exits(1, &["volume", "export", "nothing", "-o", archive]);
    assert_eq!(images::read(archive), bytes, "what could not be exported overwrites nothing");
}

#[test]
fn an_archive_keeps_times_and_holes() {
    let wharf = prepared();
    let dir = wharf.dir().join("files");
    std::fs::create_dir(&dir).expect("mkdir");
    let at = |second: i64, nanosecond| match second {
        ..0 => UNIX_EPOCH - Duration::from_secs(second.unsigned_abs()) + Duration::from_nanos(nanosecond),
        _ => UNIX_EPOCH + Duration::from_secs(second.unsigned_abs()) + Duration::from_nanos(nanosecond),
    };
    let times =
        [("old", at(-1000, 250_000_000)), ("new", at(1_600_000_000, 123_456_789)), ("whole", at(1_600_000_000, 0))];
    for (name, time) in times {
        let file = std::fs::File::create(dir.join(name)).expect("a file");
        file.set_modified(time).expect("a time");
    }
    let sparse = std::fs::File::create(dir.join("sparse")).expect("a file");
    sparse.write_all_at(b"in the middle", 10 << 20).expect("write");
    sparse.set_len(20 << 20).expect("its length");
    let device = format!("device={}", dir.display());
    wharf.ok(&["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, "from"]);
    let archive = wharf.dir().join("x.tar");
    let archive = archive.to_str().expect("UTF-8");
    wharf.ok(&["volume", "export", "from", "-o", archive]);
    wharf.ok(&["volume", "import", "to", archive]);
    let to = content(&wharf, "to");
    for (name, time) in times {
        assert_eq!(std::fs::metadata(to.join(name)).and_then(|stat| stat.modified()).expect("a time"), time, "{name}");
    }
    let stat = std::fs::metadata(to.join("sparse")).expect("a file");
    assert!(stat.len() == 20 << 20 && stat.blocks() * 512 < 1 << 20, "{} bytes on disk", stat.blocks() * 512);
    let same = std::fs::read(to.join("sparse")).expect("a file") == std::fs::read(dir.join("sparse")).expect("a file");
    assert!(same, "the content is another one");

    let mut full = wharf.command(&["volume", "export", "from"]);
    full.stdout(std::fs::File::create("/dev/full").expect("/dev/full")).stderr(std::process::Stdio::piped());
    let full = full.output().expect("wharf");
    assert_eq!(String::from_utf8_lossy(&full.stderr), "Error: write archive: No space left on device (os error 28)\n");
    let link = wharf.dir().join("link");
    symlink(archive, &link).expect("a link");
    wharf.exits(1, &["volume", "export", "from", "-o", link.to_str().expect("UTF-8")]);
}

#[test]
fn a_volume_at_two_places_is_filled_from_where_there_is_something() {
    let wharf = prepared();
    let list = |first: &str, second: &str| {
        wharf.ok(&["run", "--rm", "--network", "none", "-v", first, "-v", second, "full", "ls", "/data"])
    };
    assert_eq!(list("one:/nothing", "one:/data"), "file\nsub");
    assert_eq!(list("two:/data", "two:/nothing"), "file\nsub");
    assert_eq!(list("three:/nothing", "three:/data:nocopy"), "");
}

#[test]
fn a_lost_directory_is_told_of_and_made_again() {
    let wharf = Wharf::with_busybox();
    for name in ["kept", "lost"] {
        wharf.ok(&["create", "--name", name, "-v", &format!("{name}:/d"), "busybox", "ls", "/d"]);
    }
    std::fs::remove_dir_all(wharf.root().join("volumes/lost")).expect("removed");
    let found = wharf.exits(1, &["system", "check"]);
    assert_eq!(found.stdout, "volume lost: its directory is gone; --repair makes it again, empty\n");
    wharf.ok(&["system", "df"]);
    wharf.ok(&["system", "check", "--repair"]);
    assert_eq!(wharf.ok(&["system", "check"]), "No problems found.");
    assert_eq!(wharf.ok(&["start", "-a", "lost"]), "");
    std::fs::remove_dir_all(wharf.root().join("volumes/lost")).expect("removed");
    wharf.ok(&["rm", "lost"]);
    assert!(wharf.ok(&["volume", "prune", "-af"]).starts_with("Deleted Volumes:\nlost\n"));
}

#[test]
fn who_hears_of_the_end_finds_the_volumes_free() {
    let wharf = Wharf::with_busybox();
    let mounted = || images::read("/proc/self/mounts").windows(12).any(|part| part == b"volumes/mem/");
    wharf.ok(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "mem"]);
    for _ in 0..5 {
        wharf.ok(&sh(&["-v", "/made/up", "-v", "mem:/m"], "true"));
        assert_eq!((volumes(&wharf), mounted()), (vec!["mem".to_owned()], false));
        wharf.ok(&["run", "-d", "--network", "none", "--name", "box", "-v", "mem:/m", "busybox", "sleep", "1000"]);
        assert!(mounted());
        wharf.ok(&["stop", "-t", "0", "box"]);
        assert!(!mounted());
        wharf.ok(&["rm", "box"]);
    }
    // Whoever looks into one that does not run is its user meanwhile.
    wharf.ok(&["create", "--name", "box", "-v", "mem:/m", "busybox", "true"]);
    let (from, to) = (wharf.dir().join("note"), wharf.dir().join("back"));
    std::fs::write(&from, "a line").expect("a file");
    wharf.ok(&["cp", from.to_str().expect("UTF-8"), "box:/m/note"]);
    wharf.ok(&["cp", "box:/bin/busybox", to.to_str().expect("UTF-8")]);
    wharf.ok(&["export", "box", "-o", to.to_str().expect("UTF-8")]);
    wharf.ok(&["commit", "box"]);
    assert!(!mounted());
}

/// An archive with an entry above its root.
fn escape() -> Vec<u8> {
    let mut tar = Tar::default();
    tar.file("up/outside", 0o644, b"x");
    let mut bytes = tar.end();
    bytes[..10].copy_from_slice(b"../outside");
    let sum: u32 =
        bytes[..512].iter().enumerate().map(|(n, b)| if (148..156).contains(&n) { 32 } else { u32::from(*b) }).sum();
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    bytes
}
