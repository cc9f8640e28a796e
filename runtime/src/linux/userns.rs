//! The user namespace of a container that is not made by root, see user_namespaces(7).
//!
//! With ranges in /etc/subuid and /etc/subgid, and the set-user-ID helpers newuidmap(1) and newgidmap(1) that may write
//! them, the container has 0 (us) and as many users as the range is long. Without, it has one user: 0, who is us.

use std::path::{Path, PathBuf};
use std::process::Command;

use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};
use rustix::process::{getegid, geteuid};

use crate::error::{Class, Error, Result};

const FOR_USERS: &str = "newuidmap";
const FOR_GROUPS: &str = "newgidmap";

/// How the users, and how the groups, of a container that this user makes map to the host's.
pub type Mappings = (Vec<LinuxIdMapping>, Vec<LinuxIdMapping>);

/// What this user may have. For root, who needs no user namespace, nothing.
pub fn mappings() -> Mappings {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    if uid == 0 {
        return Mappings::default();
    }
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let name = user_name(&read("/etc/passwd"), uid);
    let range = |path| sub_range(&read(path), name.as_deref(), uid);
    let helpers = program(FOR_USERS).is_some() && program(FOR_GROUPS).is_some();
    match (range("/etc/subuid"), range("/etc/subgid")) {
        (Some(users), Some(groups)) if helpers => (map(uid, Some(users)), map(gid, Some(groups))),
        _ => (map(uid, None), map(gid, None)),
    }
}

fn map(own: u32, range: Option<(u32, u32)>) -> Vec<LinuxIdMapping> {
    let build = |container, (host, size)| {
        LinuxIdMappingBuilder::default().container_id(container).host_id(host).size(size).build().ok()
    };
    build(0u32, (own, 1)).into_iter().chain(range.and_then(|range| build(1, range))).collect()
}

/// True when `id` is one of the container's.
pub(super) fn maps(mappings: &[LinuxIdMapping], id: u32) -> bool {
    mappings.iter().any(|map| id.checked_sub(map.container_id()).is_some_and(|offset| offset < map.size()))
}

/// Writes the maps of a child that was cloned into a new user namespace and waits there.
///
/// # Errors
/// The kernel's, or what a helper said.
pub(super) fn write(pid: u32, (users, groups): &Mappings) -> Result<()> {
    let write = |name: &str, text: &str| {
        let path = format!("/proc/{pid}/{name}");
        std::fs::write(&path, text).map_err(|e| Error::io("write", path, e))
    };
    // user_namespaces(7): the kernel takes a map of oneself from anybody, and any map from root.
    if geteuid().is_root() || (is_own(users, geteuid().as_raw()) && is_own(groups, getegid().as_raw())) {
        if !geteuid().is_root() {
            // Without this an unprivileged process may not map a group.
            write("setgroups", "deny")?;
        }
        write("uid_map", &lines(users))?;
        return write("gid_map", &lines(groups));
    }
    run(FOR_USERS, pid, users)?;
    run(FOR_GROUPS, pid, groups)
}

fn is_own(mappings: &[LinuxIdMapping], own: u32) -> bool {
    matches!(mappings, [map] if (map.host_id(), map.size()) == (own, 1))
}

fn lines(mappings: &[LinuxIdMapping]) -> String {
    mappings.iter().map(|map| format!("{} {} {}\n", map.container_id(), map.host_id(), map.size())).collect()
}

fn run(helper: &str, pid: u32, mappings: &[LinuxIdMapping]) -> Result<()> {
    let Some(path) = program(helper) else {
        return Err(Error::new(Class::Unsupported, format!("{helper} is not installed")).with_hint("install uidmap"));
    };
    let numbers = mappings.iter().flat_map(|map| [map.container_id(), map.host_id(), map.size()]);
    let arguments = std::iter::once(pid).chain(numbers).map(|number| number.to_string());
    let output = Command::new(&path).args(arguments).output().map_err(|e| Error::io("run", &path, e))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(Class::Forbidden, said.trim()).with_hint(
        "the helper must be set-user-ID root, and /etc/subuid and /etc/subgid must name a range of this user",
    ))
}

/// The set-user-ID helpers stand where the system keeps its programs; PATH is not asked what to trust.
/// A program of the system's.
pub(super) fn program(name: &str) -> Option<PathBuf> {
    ["/usr/bin", "/bin", "/usr/local/bin"].iter().map(|dir| Path::new(dir).join(name)).find(|path| path.is_file())
}

fn user_name(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// subuid(5): `name-or-id:first:count`. The first range of the user that is not empty.
fn sub_range(text: &str, name: Option<&str>, uid: u32) -> Option<(u32, u32)> {
    let own = uid.to_string();
    text.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let who = fields.next()?;
        if who != own && Some(who) != name {
            return None;
        }
        let range: (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (range.1 > 0).then_some(range)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_by_name_and_by_number() {
        let text = "al:100000:65536\n1001:165536:65536\nzero:1:0\n";
        assert_eq!(sub_range(text, Some("al"), 1000), Some((100_000, 65536)));
        assert_eq!(sub_range(text, None, 1001), Some((165_536, 65536)));
        assert_eq!(sub_range(text, Some("bo"), 1002), None);
        assert_eq!(sub_range(text, Some("zero"), 5), None);
        assert_eq!(sub_range("garbage\nal:x:1\n", Some("al"), 1), None);
    }

    #[test]
    fn maps_as_written() {
        let single = map(1000, None);
        assert_eq!(lines(&single), "0 1000 1\n");
        assert!(is_own(&single, 1000) && !is_own(&single, 1001));
        let ranges = map(1000, Some((100_000, 65536)));
        assert_eq!(lines(&ranges), "0 1000 1\n1 100000 65536\n");
        assert!(!is_own(&ranges, 1000));
        assert!(maps(&ranges, 0) && maps(&ranges, 65536) && !maps(&ranges, 65537) && !maps(&single, 1));
    }

    #[test]
    fn names_by_number() {
        let passwd = "root:x:0:0::/root:\nal:x:1000:1000::/home/al:\n";
        assert_eq!(user_name(passwd, 1000).as_deref(), Some("al"));
        assert_eq!(user_name(passwd, 7), None);
    }
}
