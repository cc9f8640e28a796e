//! The files of containers: `diff`, `cp`, `export`, `commit`.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Wharf, images, tool};

/// A local tree to copy, and where copies go.
fn local(wharf: &Wharf) -> PathBuf {
    let dir = wharf.dir().join("local");
    fs::create_dir_all(dir.join("src/sub")).expect("a tree");
    fs::write(dir.join("file"), "file\n").expect("a file");
    fs::write(dir.join("src/one"), "one\n").expect("a file");
    fs::write(dir.join("src/sub/two"), "two\n").expect("a file");
    symlink("one", dir.join("src/l")).expect("a link");
    symlink("src", dir.join("lsrc")).expect("a link");
    std::os::unix::fs::chown(dir.join("src/one"), Some(1234), Some(1234)).expect("chown");
    dir
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Names and contents (or link targets) of an archive's entries.
fn entries(archive: &[u8]) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().expect("an archive").map(|entry| {
        let mut entry = entry.expect("an entry");
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let mut content = String::new();
        match entry.link_name_bytes() {
            Some(target) => content = format!("-> {}", String::from_utf8_lossy(&target)),
            None => drop(entry.read_to_string(&mut content)),
        }
        (name, content)
    });
    entries.collect()
}

fn archive_of(wharf: &Wharf, args: &[&str]) -> BTreeMap<String, String> {
    let out = wharf.command(args).output().expect("wharf runs");
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    entries(&out.stdout)
}

fn names(found: &BTreeMap<String, String>) -> Vec<&str> {
    found.keys().map(String::as_str).collect()
}

const CHANGE: &str = "mkdir /d; echo hi >/d/f; chown 1000:1000 /d/f; ln -s /d /ld; ln -s f /d/lf; ln -s nowhere /d/dang; \
                      echo x >>/etc/passwd; rm /bin/wc; touch /ready; sleep 1000";

/// A container that has made its changes, and runs.
fn changed() -> Wharf {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["run", "-d", "--init", "--name", "ca", "--network", "none", "busybox", "sh", "-c", CHANGE]);
    crate::support::eventually("the changes are made", std::time::Duration::from_secs(30), || {
        (wharf.run(&["exec", "ca", "test", "-e", "/ready"]).code == 0).then_some(())
    });
    wharf
}

#[test]
fn mounts_leave_nothing_in_the_containers_layer() {
    // The image has no /etc/hosts and none of the other files that are mounted there.
    let wharf = Wharf::with_busybox();
    let run = |name: &str, script: &str| {
        wharf.ok(&["run", "--name", name, "--network", "none", "busybox", "sh", "-c", script])
    };
    assert!(run("reader", "cat /etc/hosts").starts_with("127.0.0.1\tlocalhost\n"));
    let upper = wharf.ok(&["inspect", "-f", "{{.GraphDriver.Data.UpperDir}}", "reader"]);
    assert_eq!(std::fs::read_dir(&upper).expect("the layer").count(), 0, "{upper}");
    // What is laid below all layers for that is nobody's to change.
    let all = "group\nhostname\nhosts\npasswd\nresolv.conf";
    assert_eq!(run("writer", "touch /etc/mine; rm /etc/resolv.conf 2>/dev/null || ls /etc").replace("mine\n", ""), all);
    assert_eq!(wharf.ok(&["diff", "writer"]), "C /etc\nA /etc/mine");
    assert_eq!(run("next", "ls /etc"), all);
}

#[test]
fn diff_tells_what_docker_tells() {
    let wharf = changed();
    let told = "C /bin\nD /bin/wc\nA /d\nA /d/dang\nA /d/f\nA /d/lf\nC /etc\nC /etc/passwd\nA /ld\nA /ready";
    assert_eq!(wharf.ok(&["diff", "ca"]), told);
    wharf.ok(&["stop", "-t", "0", "ca"]);
    assert_eq!(wharf.ok(&["diff", "ca"]), told);
    wharf.ok(&["create", "--name", "new", "busybox"]);
    assert_eq!(wharf.ok(&["diff", "new"]), "");
    wharf.exits(1, &["diff", "no-such"]);
}

#[test]
fn cp_follows_dockers_table() {
    let wharf = changed();
    let dir = local(&wharf);
    for running in [true, false] {
        if !running {
            wharf.ok(&["stop", "-t", "0", "ca"]);
        }
        let n = i32::from(running);
        let path = |name: &str| text(&dir.join(name)).to_owned();
        let into = |from: &str, to: &str| wharf.run(&["cp", &path(from), &format!("ca:/{n}{to}")]);
        let made = |path: &str| archive_of(&wharf, &["cp", &format!("ca:/{n}{path}"), "-"]);
        assert_eq!(wharf.run(&["cp", &path("src"), &format!("ca:/{n}")]).code, 0);
        assert_eq!(into("file", "/new").code, 0);
        assert_eq!(made("/new")["new"], "file\n");
        assert_eq!(into("file", "").code, 0);
        assert_eq!(into("file", "/none/").stderr, "no such directory\n");
        assert!(into("file", "/none/x").stderr.contains(&format!("Could not find the file /{n}/none in container ca")));
        assert_eq!(into("src", "/new").stderr, "cannot copy directory\n");
        assert_eq!(into("src", "/t1").code, 0);
        assert_eq!(into("src", "/t1").code, 0, "now it is there");
        assert_eq!(into("src/.", "/t2").code, 0);
        let below = ["l", "one", "sub/", "sub/two"];
        let expect: Vec<_> = below.iter().map(|name| format!("t2/{name}")).collect();
        assert_eq!(names(&made("/t2"))[1..], expect);
        assert!(made("/t1").contains_key("t1/src/sub/two"));
        assert_eq!(into("lsrc", "/t4").code, 0);
        assert_eq!(made("/t4")["t4"], "-> src");
        assert_eq!(wharf.run(&["cp", "-L", &path("lsrc"), &format!("ca:/{n}/t5")]).code, 0);
        assert_eq!(made("/t5")["t5/sub/two"], "two\n");
        // A link in the container is followed to where the copy goes.
        assert_eq!(wharf.run(&["cp", &path("file"), "ca:/ld"]).code, 0);
        assert_eq!(archive_of(&wharf, &["cp", "ca:/d/file", "-"])["file"], "file\n");
        // And out again.
        let out = dir.join(format!("out{n}"));
        fs::create_dir(&out).expect("a directory");
        let take = |from: &str, to: &str| wharf.run(&["cp", from, text(&out.join(to))]);
        assert_eq!(take("ca:/d", "").code, 0);
        assert_eq!(fs::read_to_string(out.join("d/f")).expect("copied"), "hi\n");
        assert_eq!(fs::metadata(out.join("d/f")).expect("copied").uid(), 0, "whoever copies owns it");
        assert_eq!(take("ca:/d/f", "renamed").code, 0);
        assert_eq!(take("ca:/d", "renamed").stderr, "cannot copy directory\n");
        assert_eq!(take("ca:/d/f", "none/").stderr, "no such directory\n");
        assert!(take("ca:/d/f", "none/x").stderr.starts_with("invalid output path: directory"));
        assert_eq!(take("ca:/ld", "link").code, 0);
        assert_eq!(fs::read_link(out.join("link")).expect("a link"), Path::new("/d"));
        assert_eq!(wharf.run(&["cp", "-L", "ca:/ld", text(&out.join("followed"))]).code, 0);
        assert_eq!(fs::read_to_string(out.join("followed/f")).expect("copied"), "hi\n");
        assert_eq!(wharf.run(&["cp", "-a", "ca:/d/f", text(&out.join("kept"))]).code, 0);
        assert_eq!(fs::metadata(out.join("kept")).expect("copied").uid(), 1000, "-a keeps owners");
    }
    // Owners are kept on the way in.
    wharf.ok(&["start", "ca"]);
    assert_eq!(wharf.ok(&["exec", "ca", "stat", "-c", "%u", "/1/t1/one"]), "1234");
    assert_eq!(wharf.ok(&["exec", "ca", "cat", "/0/t1/one"]), "one", "copied while it did not run");
    // Archives on standard input.
    let mut tar = images::Tar::default();
    tar.file("from/stdin", 0o600, b"piped");
    let archive = tar.end();
    assert_eq!(wharf.run_with(&["cp", "-", "ca:/d"], &archive).code, 0);
    assert_eq!(wharf.ok(&["exec", "ca", "cat", "/d/from/stdin"]), "piped");
    let ran = wharf.run_with(&["cp", "-", "ca:/d/f"], &archive);
    assert_eq!(ran.stderr, "destination \"ca:/d/f\" must be a directory\n");
    for (line, why) in [
        ("cp /a /b", "must specify at least one container source\n"),
        ("cp ca:/a d:/b", "copying between containers is not supported\n"),
        ("cp no-such:/a /tmp", "Error: No such container: no-such\n"),
        ("cp ca:/nope /tmp", "Error: Could not find the file /nope in container ca\n"),
        ("cp /nope/file ca:/", "lstat /nope/file: no such file or directory\n"),
    ] {
        assert_eq!(wharf.exits(1, &line.split(' ').collect::<Vec<_>>()).stderr, why, "{line}");
    }
}

#[test]
fn cp_sees_what_is_mounted() {
    let wharf = Wharf::with_busybox();
    let dir = local(&wharf);
    let bind = format!("{}:/data", text(&dir));
    let read_only = format!("{}:/ro:ro", text(&dir));
    wharf.ok(&[
        "create",
        "--name",
        "ca",
        "--network",
        "none",
        "-v",
        &bind,
        "-v",
        &read_only,
        "busybox",
        "sleep",
        "1000",
    ]);
    for name in ["stopped", "running"] {
        wharf.ok(&["cp", text(&dir.join("file")), &format!("ca:/data/{name}")]);
        assert_eq!(fs::read_to_string(dir.join(name)).expect("on the host"), "file\n");
        assert_eq!(archive_of(&wharf, &["cp", "ca:/data/src/one", "-"])["one"], "one\n");
        let ran = wharf.run(&["cp", text(&dir.join("file")), "ca:/ro/x"]);
        assert!(ran.code == 1 && ran.stderr.to_lowercase().contains("read-only"), "{ran}");
        wharf.ok(&["start", "ca"]);
    }
    wharf.ok(&["run", "-d", "--name", "fixed", "--read-only", "--network", "none", "busybox", "sleep", "1000"]);
    let ran = wharf.run(&["cp", text(&dir.join("file")), "fixed:/x"]);
    assert!(ran.code == 1 && ran.stderr.to_lowercase().contains("read-only"), "{ran}");
}

/// The container swaps what is copied, and what is copied to, for links that lead to the host's root.
#[test]
fn attack_cp_races_with_links() {
    let wharf = Wharf::with_busybox();
    let secret = wharf.dir().join("secret");
    fs::create_dir(&secret).expect("a directory");
    fs::write(secret.join("f"), "the host's").expect("a file");
    let dir = local(&wharf);
    fs::write(dir.join("f"), "overwritten").expect("a file");
    // The link leads to a path that exists on the host only.
    let race = format!(
        "mkdir /real; echo inside >/real/f; ln -s {} /link; touch /ready
         while :; do mv /real /at; mv /at /real; mv /link /at; mv /at /link; done 2>/dev/null",
        text(&secret)
    );
    wharf.ok(&["run", "-d", "--init", "--name", "ca", "--network", "none", "busybox", "sh", "-c", &race]);
    for _ in 0..40 {
        let out = wharf.command(&["cp", "ca:/at/f", "-"]).output().expect("wharf runs");
        assert!(!out.stdout.windows(10).any(|bytes| bytes == b"the host's"), "read the host's file");
        wharf.run(&["cp", text(&dir.join("f")), "ca:/at/f"]);
        wharf.run(&["cp", text(&dir.join("f")), "ca:/at/new"]);
    }
    assert_eq!(fs::read_to_string(secret.join("f")).expect("there"), "the host's");
    assert_eq!(fs::read_dir(&secret).expect("there").count(), 1);
    // The other way: a hostile archive leaves nothing outside of where it was to go.
    let target = dir.join("target");
    fs::create_dir(&target).expect("a directory");
    wharf.ok(&[
        "run",
        "--name",
        "evil",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        &format!("mkdir /e; ln -s {0} /e/out; mkdir /f; mkdir /f/out; echo overwritten >/f/out/f", text(&secret)),
    ]);
    wharf.ok(&["cp", "evil:/e/.", text(&target)]);
    // Now `out` there is a link to the host's; what comes through it must not be written.
    wharf.run(&["cp", "evil:/f/.", text(&target)]);
    assert_eq!(fs::read_to_string(secret.join("f")).expect("there"), "the host's");
}

#[test]
fn export_is_the_whole_tree() {
    let wharf = changed();
    let found = archive_of(&wharf, &["export", "ca"]);
    assert_eq!(found["d/f"], "hi\n");
    assert_eq!(found["ld"], "-> /d");
    assert!(found["etc/passwd"].ends_with("x\n") && !found.contains_key("bin/wc") && found.contains_key("bin/sh"));
    let file = wharf.dir().join("export.tar");
    wharf.ok(&["export", "-o", text(&file), "ca"]);
    assert_eq!(entries(&fs::read(&file).expect("written")), found);
    let ran = wharf.exits(1, &["export", "-o", text(&wharf.dir().join("none")), "no-such"]);
    assert_eq!(ran.stderr, "Error: No such container: no-such\n");
    assert!(!wharf.dir().join("none").exists());
    assert_eq!(wharf.run_with(&["import", "-", "again"], &fs::read(&file).expect("written")).code, 0);
    assert_eq!(wharf.ok(&["run", "--rm", "--network", "none", "again", "/bin/cat", "/d/f"]), "hi");
}

#[test]
fn commit_makes_an_image_of_a_container() {
    let wharf = changed();
    let id = wharf.ok(&[
        "commit",
        "-a",
        "me",
        "-m",
        "why",
        "-c",
        "CMD [\"cat\", \"/d/f\"]",
        "-c",
        "ENV X=1",
        "ca",
        "mine:v1",
    ]);
    assert_eq!(
        wharf.ok(&["inspect", "-f", "{{.Id}} {{json .Config.Cmd}}", "mine:v1"]),
        format!("{id} [\"cat\",\"/d/f\"]")
    );
    assert_eq!(wharf.ok(&["ps", "--format", "{{.State}}"]), "running", "it goes on");
    let run = |args: &[&str]| wharf.ok(&[&["run", "--rm", "--network", "none"], args].concat());
    assert_eq!(run(&["mine:v1"]), "hi");
    assert_eq!(run(&["mine:v1", "stat", "-c", "%u", "/d/f"]), "1000");
    assert!(run(&["mine:v1", "env"]).contains("X=1"));
    assert_eq!(run(&["mine:v1", "sh", "-c", "test -e /bin/wc || echo gone"]), "gone");
    let history = wharf.ok(&["history", "--format", "{{.Comment}}|{{.CreatedBy}}", "--no-trunc", "mine:v1"]);
    assert!(history.starts_with(&format!("why|sh -c {CHANGE}")), "{history}");
    // Saved and loaded it is the same image.
    let archive = wharf.dir().join("mine.tar");
    wharf.ok(&["save", "-o", text(&archive), "mine:v1"]);
    wharf.ok(&["rmi", "mine:v1"]);
    wharf.ok(&["load", "-i", text(&archive)]);
    assert_eq!(wharf.ok(&["inspect", "-f", "{{.Id}}", "mine:v1"]), id);
    let ran = wharf.exits(1, &["commit", "-c", "RUN x", "ca"]);
    assert!(ran.stderr.contains("RUN is not a valid change command"), "{ran}");
    wharf.exits(1, &["commit", "no-such", "x"]);
    wharf.exits(1, &["commit", "ca", "BAD NAME"]);
    assert_eq!(wharf.ok(&["system", "check"]), "No problems found.");
}

#[test]
fn files_of_wasm_containers() {
    let wharf = Wharf::new();
    let dir = local(&wharf);
    wharf.load(&images::scratch_wasm("app:latest", &images::read(&images::guest("tools-p1"))));
    wharf.ok(&["run", "--name", "wa", "app", "write", "/made", "by the guest"]);
    assert_eq!(wharf.ok(&["diff", "wa"]), "A /made");
    assert_eq!(archive_of(&wharf, &["cp", "wa:/made", "-"])["made"], "by the guest");
    wharf.ok(&["cp", text(&dir.join("file")), "wa:/copied"]);
    assert_eq!(archive_of(&wharf, &["export", "wa"])["copied"], "file\n");
    wharf.ok(&["commit", "-c", "CMD [\"cat\", \"/copied\"]", "wa", "app:v2"]);
    assert_eq!(wharf.ok(&["run", "--rm", "app:v2"]), "file");
    // An image that is its module and nothing else has no place for files.
    wharf.ok(&["wasm", "pack", &images::guest("tools-p1"), "-t", "tools"]);
    wharf.ok(&["run", "--name", "packed", "tools", "write", "/made", "by the guest"]);
    assert_eq!(wharf.ok(&["diff", "packed"]), "A /made");
    let ran = wharf.exits(1, &["commit", "packed"]);
    assert!(ran.stderr.contains("holds its module and nothing else"), "{ran}");
}

#[test]
fn a_layers_limit_is_one_for_all_who_write_to_it() {
    const LIMIT: u64 = 4 << 20;
    let wharf = Wharf::new();
    wharf.ok(&["wasm", "pack", &images::guest("tools-p1"), "-t", "tools"]);
    let flags = ["run", "-d", "--name", "full", "--storage-opt", "size=4m", "--network", "none"];
    wharf.ok(&[&flags[..], &["tools", "sleep", "1000000"]].concat());
    // Two at a time, each time others, until there is no room for more.
    let piece = "x".repeat(30_000);
    for n in [0, 1] {
        wharf.ok(&["exec", "--tool-image", "tools", "full", "write", &format!("/written-{n}"), ""]);
    }
    let refused = std::thread::scope(|scope| {
        let writers = [0, 1].map(|n| {
            let (wharf, piece) = (&wharf, &piece);
            scope.spawn(move || {
                let path = format!("/written-{n}");
                let append = ["exec", "--tool-image", "tools", "full", "append", &path, piece];
                (0..200).map(|_| wharf.run(&append)).find(|ran| ran.code != 0)
            })
        });
        writers.map(|writer| writer.join().expect("a writer").expect("no room at last"))
    });
    refused.iter().for_each(|ran| assert!(ran.stderr.contains("No space left on device"), "{ran}"));
    let held = || -> u64 {
        let out = wharf.command(&["cp", "full:/", "-"]).output().expect("wharf runs");
        let mut archive = tar::Archive::new(&out.stdout[..]);
        archive.entries().expect("an archive").map(|entry| entry.expect("an entry").size()).sum()
    };
    assert!((LIMIT - 200_000..=LIMIT).contains(&held()), "{}", held());
}

#[test]
fn what_is_copied_in_keeps_within_a_layers_limit() {
    let wharf = Wharf::new();
    wharf.ok(&["wasm", "pack", &images::guest("tools-p1"), "-t", "tools"]);
    let flags = ["create", "--name", "small", "--storage-opt", "size=4m", "-v", "vast:/vast", "--network", "none"];
    wharf.ok(&[&flags[..], &["tools", "sleep", "1000000"]].concat());
    let file = |name: &str, megabytes: usize| {
        let path = wharf.dir().join(name);
        std::fs::write(&path, vec![b'x'; megabytes << 20]).expect("a file");
        path.display().to_string()
    };
    let (three, eight) = (file("three", 3), file("eight", 8));
    let refused = |source: &str, target: &str| {
        let ran = wharf.exits(1, &["cp", source, target]);
        assert!(ran.stderr.contains("No space left on device"), "{ran}");
    };
    // As long as it does not run, and while it does.
    for _ in 0..2 {
        refused(&eight, "small:/eight");
        wharf.ok(&["cp", &three, "small:/three"]);
        // What it replaces gives its space back, and what has no room takes none.
        wharf.ok(&["cp", &three, "small:/three"]);
        refused(&three, "small:/more");
        wharf.ok(&["cp", &eight, "small:/vast/eight"]);
        wharf.ok(&["start", "small"]);
    }
    let many = wharf.dir().join("many");
    std::fs::create_dir(&many).expect("a directory");
    (0..600).for_each(|n| std::fs::write(many.join(n.to_string()), "").expect("a file"));
    refused(many.to_str().expect("plain"), "small:/many");
}

/// Root may give a file the name of a device.
#[test]
fn nothing_but_a_file_is_written_over() {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["create", "--name", "made", "--network", "none", "busybox", "true"]);
    let at = |name: &str| wharf.dir().join(name).to_str().expect("plain").to_owned();
    let (fifo, link, dir) = (at("fifo"), at("link"), at("dir"));
    tool(Command::new("mkfifo").arg(&fifo));
    symlink("elsewhere", &link).expect("a link");
    fs::create_dir(&dir).expect("a directory");
    for (path, what) in
        [(&fifo, "a device, a pipe or a socket"), (&link, "a symbolic link directly"), (&dir, "a directory")]
    {
        let wrong = format!("cannot write to {what}");
        assert!(wharf.exits(1, &["save", "-o", path, "busybox"]).stderr.contains(&wrong), "{path}");
        assert!(wharf.exits(1, &["export", "-o", path, "made"]).stderr.contains(&wrong), "{path}");
    }
    let told = wharf.exits(1, &["cp", "made:/bin/busybox", &fifo]).stderr;
    assert!(told.contains("must be a directory or a regular file"), "{told}");
    let kinds = [&fifo, &link, &dir].map(|path| fs::symlink_metadata(path).expect("still there").file_type());
    assert!(kinds[0].is_fifo() && kinds[1].is_symlink() && kinds[2].is_dir());
}
