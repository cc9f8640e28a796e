//! Containers of people who are not root, with subordinate ids (user_namespaces(7), subuid(5)) and without.

use crate::support::wharf::run;
use crate::support::{Wharf, images, skip};

/// Nobody's: no account, so no subordinate ids either.
const STRANGER: &str = "54321";
/// The account that `.ci/packages` makes; useradd gives it subordinate ids.
const PERSON: &str = "wharf-test";

/// Some systems keep user namespaces from ordinary people; then there are no rootless Linux containers to test.
fn namespaces_are_for_all(name: &str) -> bool {
    let allowed = |path: &str| std::fs::read_to_string(path).map_or(true, |value| value.trim() != "0");
    let yes = allowed("/proc/sys/kernel/unprivileged_userns_clone") && allowed("/proc/sys/user/max_user_namespaces");
    if !yes {
        skip(name, "this machine keeps user namespaces from ordinary users");
    }
    yes
}

#[test]
fn anybody_runs_hello() {
    for user in [STRANGER, PERSON] {
        let wharf = Wharf::of(user);
        let hello = wharf.ok(&["run", "--rm", "wharf/hello"]);
        assert!(hello.contains("Hello from Wharf"), "{hello}");
    }
}

#[test]
fn a_stranger_has_one_id() {
    if !namespaces_are_for_all("rootless::a_stranger_has_one_id") {
        return;
    }
    let wharf = Wharf::of(STRANGER);
    wharf.load(&images::busybox());
    assert_eq!(wharf.ok(&["run", "--rm", "busybox", "id", "-u"]), "0", "root inside");
    assert_eq!(wharf.ok(&["run", "--rm", "busybox", "sh", "-c", "echo x >/file && cat /file"]), "x");
    wharf.exits(3, &["run", "--rm", "busybox", "sh", "-c", "exit 3"]);
    let id = wharf.ok(&["run", "-d", "busybox", "sleep", "1000"]);
    assert_eq!(wharf.ok(&["exec", &id, "echo", "beside"]), "beside");
    wharf.ok(&["kill", &id]);
    assert_eq!(wharf.ok(&["wait", &id]), "137");
}

#[test]
fn a_person_has_many_ids() {
    if !namespaces_are_for_all("rootless::a_person_has_many_ids") {
        return;
    }
    let ranges = std::fs::read_to_string("/etc/subuid").unwrap_or_default();
    assert!(ranges.contains(&format!("{PERSON}:")), "{PERSON} has no range in /etc/subuid; .ci/packages makes it");
    let wharf = Wharf::of(PERSON);
    wharf.load(&images::busybox());
    assert_eq!(wharf.ok(&["run", "--rm", "-u", "anna", "busybox", "id", "-u"]), "1000");
    let script = "touch /tmp/file && chown 1000:2000 /tmp/file && stat -c %u:%g /tmp/file";
    assert_eq!(wharf.ok(&["run", "--rm", "busybox", "sh", "-c", script]), "1000:2000");
}

#[test]
fn a_person_without_a_root_directory_has_the_xdg_ones() {
    use std::os::unix::fs::PermissionsExt;
    let wharf = Wharf::of(STRANGER);
    let home = wharf.dir().join("home");
    let runtime = home.join("runtime");
    for (runtime_dir, run_dir) in [(Some(&runtime), runtime.join("wharf")), (None, home.join(".local/share/wharf/run"))]
    {
        let command = |args: &[&str]| {
            let mut command = wharf.command(args);
            command.env_remove("WHARF_ROOT").current_dir(&home);
            if let Some(dir) = runtime_dir {
                command.env("XDG_RUNTIME_DIR", dir);
            }
            let ran = run(command, &[]);
            assert_eq!(ran.code, 0, "{ran}");
            ran.stdout
        };
        command(&["create", "--name", "one", "wharf/hello"]);
        assert!(command(&["start", "-a", "one"]).contains("Hello"));
        let state = home.join(".local/share/wharf");
        assert!(state.join("wharf.db").exists() || state.read_dir().is_ok_and(|mut d| d.next().is_some()));
        assert!(run_dir.join("containers").is_dir(), "{}", run_dir.display());
        for dir in [&state, &run_dir] {
            let mode = std::fs::metadata(dir).expect("a directory").permissions().mode();
            assert_eq!(mode & 0o077, 0, "{} is the person's alone", dir.display());
        }
        command(&["rm", "one"]);
    }
    assert!(!wharf.root().join("containers").exists());
}
