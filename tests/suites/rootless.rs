//! Containers of people who are not root, with subordinate ids (user_namespaces(7), subuid(5)) and without.

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
