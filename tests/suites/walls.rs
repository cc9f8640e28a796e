//! The second wall of WebAssembly containers: what is said of it is what the kernel says.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::Duration;

use crate::support::{Wharf, eventually, images};

fn with_tools(wharf: Wharf) -> Wharf {
    wharf.ok(&["wasm", "pack", &images::guest("tools-p1"), "-t", "tools"]);
    wharf
}

fn inspect(wharf: &Wharf, name: &str, template: &str) -> String {
    wharf.ok(&["inspect", "-f", template, name])
}

/// The fields of proc_pid_status(5).
fn status(wharf: &Wharf, name: &str) -> BTreeMap<String, String> {
    let pid = inspect(wharf, name, "{{.State.Pid}}");
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let field = |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
    text.lines().filter_map(field).collect()
}

#[test]
fn inspect_shows_the_walls_that_stand() {
    let wharf = with_tools(Wharf::new());
    wharf.ok(&["run", "-d", "--name", "one", "tools", "sleep", "600000"]);
    wharf.ok(&["run", "-d", "--name", "two", "tools", "sleep", "600000"]);
    let told = |template: &str| inspect(&wharf, "one", template);
    let kernel = status(&wharf, "one");
    let bool = |field: &str, value: &str| (kernel[field] == value).to_string();
    assert_eq!(told("{{.Walls.NoNewPrivileges}}"), bool("NoNewPrivs", "1"));
    assert_eq!(told("{{.Walls.Seccomp}}"), bool("Seccomp", "2"));
    assert_eq!(told("{{.Walls.NoNewPrivileges}} {{.Walls.Seccomp}}"), "true true");
    assert_eq!(told("{{join .Walls.Capabilities \" \"}}"), "CAP_DAC_OVERRIDE CAP_FOWNER");
    assert_eq!(u64::from_str_radix(&kernel["CapEff"], 16), Ok(1 << 1 | 1 << 3));
    assert_eq!(kernel["CapPrm"], kernel["CapEff"]);
    assert_eq!(told("{{.Walls.Missing}}"), "[]");
    let machine = wharf.ok(&["info", "-f", "{{.Walls.Landlock}} {{.Walls.LandlockPorts}} {{.Walls.Cgroup}}"]);
    assert_eq!(told("{{.Walls.Landlock}} {{.Walls.LandlockPorts}} {{.Walls.Cgroup}}"), machine);
    assert!(wharf.ok(&["info"]).contains("Second Wall: Landlock"));

    // Each is another user, but where files are concerned; of no group.
    let ids = kernel["Uid"].split_whitespace().collect::<Vec<_>>();
    let user = told("{{.Walls.User}}");
    assert_eq!(ids, [&user, &user, &user, "0"]);
    assert_eq!(kernel["Gid"], kernel["Uid"]);
    assert_eq!(kernel["Groups"], "");
    assert!(user.parse::<u32>().is_ok_and(|user| user >= 0x7000_0000), "{user}");
    assert_ne!(user, inspect(&wharf, "two", "{{.Walls.User}}"));

    // They stand while it runs, and again when it is started again.
    wharf.ok(&["stop", "-t", "0", "one"]);
    assert_eq!(told("{{json .Walls}}"), "null");
    wharf.ok(&["start", "one"]);
    assert_eq!(told("{{.Walls.Seccomp}}"), "true");
    wharf.load(&images::busybox());
    wharf.ok(&["create", "--name", "linux", "busybox"]);
    assert!(!wharf.ok(&["inspect", "linux"]).contains("Walls"));
}

#[test]
fn another_user_sees_the_same_files() {
    let wharf = with_tools(Wharf::new());
    let theirs = wharf.dir().join("theirs");
    std::fs::create_dir(&theirs).expect("mkdir");
    std::fs::write(theirs.join("secret"), "kept").expect("write");
    for path in [theirs.join("secret"), theirs.clone()] {
        std::os::unix::fs::chown(&path, Some(1234), Some(1234)).expect("chown");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("chmod");
    }
    let volume = format!("{}:/data", theirs.display());
    let run = |args: &[&str]| wharf.ok(&[&["run", "--rm", "-v", &volume, "tools"], args].concat());
    assert_eq!(run(&["cat", "/data/secret"]), "kept", "as root in a container of docker's");
    run(&["append", "/data/secret", "!"]);
    run(&["write", "/data/made", "x"]);
    run(&["mkdir", "/data/dir"]);
    let owner = |name: &str| {
        let metadata = std::fs::metadata(theirs.join(name)).expect("a file");
        (metadata.uid(), metadata.gid())
    };
    assert_eq!((owner("secret"), owner("made"), owner("dir")), ((1234, 1234), (0, 0), (0, 0)));
}

/// An image may name any of the host's devices.
#[test]
fn devices_in_an_image_are_no_guests() {
    let wharf = Wharf::new();
    let mut layer = images::Tar::default();
    layer.file("app.wasm", 0o644, &images::read(&images::guest("tools-p1")));
    layer.device("zero", 1, 5);
    wharf.load(&images::wasm_layer("devices", layer, &serde_json::json!({"Entrypoint": ["/app.wasm"]})));
    assert_eq!(wharf.ok(&["run", "--rm", "devices", "ls", "/"]), "app.wasm\nzero");
    for command in [&["cat", "/zero"][..], &["write", "/zero", "x"], &["append", "/zero", "x"]] {
        let refused = wharf.exits(1, &[&["run", "--rm", "devices"], command].concat());
        assert!(refused.stderr.contains("/zero: Permission denied"), "{refused}");
    }
    // Nor those that are mounted.
    let refused = wharf.exits(1, &["run", "--rm", "-v", "/dev:/dev", "devices", "cat", "/dev/zero"]);
    assert!(refused.stderr.contains("/dev/zero: Permission denied"), "{refused}");
    wharf.ok(&["run", "-d", "--name", "one", "devices", "sleep", "600000"]);
    assert_eq!(inspect(&wharf, "one", "{{.Walls.Missing}}"), "[]", "the cgroup refuses them too");
}

/// An instance with the image `odd`, in which are a pipe and a device.
fn with_odd() -> Wharf {
    let wharf = Wharf::new();
    let mut layer = images::Tar::default();
    layer.file("app.wasm", 0o644, &images::read(&images::guest("tools-p1")));
    layer.fifo("fifo");
    layer.device("zero", 1, 5);
    wharf.load(&images::wasm_layer("odd", layer, &serde_json::json!({"Entrypoint": ["/app.wasm"]})));
    wharf
}

/// What an image calls its program is opened by us, who would wait for a fifo's other end for ever.
#[test]
fn a_program_is_a_file() {
    let wharf = with_odd();
    wharf.ok(&["run", "-d", "--name", "host", "odd", "sleep", "600000"]);
    for program in ["/fifo", "/zero"] {
        wharf.exits(127, &["run", "--rm", "--entrypoint", program, "odd"]);
        wharf.exits(126, &["exec", "host", program]);
    }
}

/// A pipe of the image's can be moved by a guest behind its walls; a device is none that it could make.
#[test]
fn special_files_are_moved_and_devices_stay() {
    let wharf = with_odd();
    wharf.ok(&["run", "--name", "mover", "odd", "mv", "/fifo", "/moved"]);
    assert_eq!(wharf.ok(&["diff", "mover"]), "D /fifo\nA /moved");
    let archive = wharf.command(&["export", "mover"]).output().expect("wharf runs").stdout;
    let mut archive = tar::Archive::new(&archive[..]);
    let moved = archive.entries().expect("an archive").map(|entry| entry.expect("an entry"));
    let kinds: Vec<_> =
        moved.filter(|entry| entry.path_bytes().ends_with(b"moved")).map(|entry| entry.header().entry_type()).collect();
    assert_eq!(kinds, [tar::EntryType::Fifo]);
    let refused = wharf.exits(1, &["run", "--name", "thief", "odd", "mv", "/zero", "/mine"]);
    assert!(refused.stderr.contains("Operation not permitted"), "{refused}");
    assert_eq!(wharf.ok(&["diff", "thief"]), "");
}

#[test]
fn open_files_have_a_limit() {
    let wharf = Wharf::new();
    wharf.ok(&["wasm", "pack", &images::guest("net-p2"), "-t", "net"]);
    wharf.ok(&["run", "-d", "--name", "web", "net", "echo", "0.0.0.0:80"]);
    eventually("it listens", Duration::from_secs(60), || {
        wharf.ok(&["logs", "web"]).contains("listening").then_some(())
    });
    let client = |most: &str| wharf.run(&["run", "--rm", "--ulimit", most, "net", "client", "web:80", "1000", "40"]);
    let enough = client("nofile=50");
    assert_eq!((enough.code, enough.stderr.as_str()), (0, ""), "{enough}");
    let too_few = client("nofile=20");
    assert_eq!(too_few.code, 1, "{too_few}");
    let warned = wharf.exits(0, &["create", "--ulimit", "core=0", "net"]);
    assert!(warned.stderr.contains("--ulimit, but for nofile, has no effect"), "{warned}");
}

#[test]
fn without_root_it_is_the_persons_own() {
    let wharf = with_tools(Wharf::of("wharf-test"));
    wharf.ok(&["run", "-d", "--name", "one", "tools", "sleep", "600000"]);
    let kernel = status(&wharf, "one");
    assert_eq!(kernel["Uid"].split_whitespace().next(), Some(&*inspect(&wharf, "one", "{{.Walls.User}}")));
    assert_eq!(inspect(&wharf, "one", "{{.Walls.Capabilities}} {{.Walls.Seccomp}}"), "[] true");
    assert_eq!(kernel["CapEff"], "0".repeat(16));
}
