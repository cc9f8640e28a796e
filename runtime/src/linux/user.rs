//! Who a process in a container is: docker's `--user` looked up in the image's own passwd and group files, see
//! passwd(5) and group(5). Never through the C library, which would ask the host.

use std::io::Read;

use oci_spec::runtime::User;
use rustix::fs::{FileType, OFlags, fstat};

use super::rootfs::Root;
use crate::error::{Class, Error, Result};

/// The most that is read of a passwd or group file, in bytes.
const MAX_FILE: u64 = 16 << 20;
/// What the kernel's ids may be (the upper half is reserved, and docker refuses it).
const MAX_ID: u32 = i32::MAX as u32;

/// A user with everything that the kernel and a program want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// All supplementary groups, the primary one among them (CVE-2022-36109).
    pub groups: Vec<u32>,
    pub home: String,
}

/// Looks up `user` in the container, and the names of groups in `added`, between commas. An empty user is the spec's, which
/// is root when it says nothing.
///
/// # Errors
/// `NotFound` in docker's words when passwd or group lacks a name, `InvalidInput` for a number out of range.
pub(super) fn find(root: &Root, user: &str, spec: &User, added: &str) -> Result<Identity> {
    let given;
    let user = if user.is_empty() && (spec.uid(), spec.gid()) != (0, 0) {
        given = format!("{}:{}", spec.uid(), spec.gid());
        &given
    } else {
        user
    };
    let passwd = read(root, "/etc/passwd")?;
    let group = read(root, "/etc/group")?;
    let mut extra = spec.additional_gids().clone().unwrap_or_default();
    for name in added.split(',').filter(|name| !name.is_empty()) {
        let gid = group.lines().map(fields).find(|entry| entry.len() >= 3 && entry[0] == name);
        let gid = gid.and_then(|entry| entry[2].parse().ok());
        extra.push(gid.ok_or_else(|| not_found("group", name, "group"))?);
    }
    identify(user, &extra, &passwd, &group)
}

/// A file's text; nothing when there is no such file.
fn read(root: &Root, path: &str) -> Result<String> {
    // Without NONBLOCK an image's FIFO would hold us up.
    let Ok(fd) = root.open(path, OFlags::RDONLY | OFlags::NONBLOCK) else { return Ok(String::new()) };
    let failed = |e: std::io::Error| Error::io("read in the container", path, e);
    if FileType::from_raw_mode(fstat(&fd).map_err(|e| failed(e.into()))?.st_mode) != FileType::RegularFile {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    std::fs::File::from(fd).take(MAX_FILE).read_to_end(&mut bytes).map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn identify(user: &str, extra: &[u32], passwd: &str, group: &str) -> Result<Identity> {
    let (user, group_name) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let number = id(user)?;
    let wanted = if user.is_empty() { Some(0) } else { number };
    // name:password:uid:gid:comment:home:shell
    let entry = passwd
        .lines()
        .map(fields)
        .find(|entry| entry.len() >= 4 && (entry[0] == user || wanted.is_some_and(|n| entry[2].parse() == Ok(n))));
    let (name, uid, primary, home) = match (&entry, wanted) {
        (Some(entry), _) => {
            let bad = || Error::new(Class::InvalidInput, format!("the image's passwd has a bad entry for {user:?}"));
            let uid = entry[2].parse().map_err(|_| bad())?;
            let gid = entry[3].parse().map_err(|_| bad())?;
            (entry[0], uid, gid, entry.get(5).copied().unwrap_or_default())
        }
        (None, Some(number)) => (user, number, 0, ""),
        (None, None) => return Err(not_found("user", user, "passwd")),
    };
    // name:password:gid:members
    let mut groups = group.lines().map(fields).filter(|entry| entry.len() >= 3);
    let (gid, mut all) = match group_name {
        None => {
            let member = |entry: &Vec<&str>| entry.get(3).is_some_and(|list| list.split(',').any(|m| m == name));
            (primary, groups.filter(member).filter_map(|entry| entry[2].parse().ok()).collect::<Vec<u32>>())
        }
        Some(wanted) => {
            let number = id(wanted)?;
            let found = groups.find(|e| e[0] == wanted || number.is_some_and(|n| e[2].parse() == Ok(n)));
            let gid = found.and_then(|entry| entry[2].parse().ok()).or(number);
            (gid.ok_or_else(|| not_found("group", wanted, "group"))?, Vec::new())
        }
    };
    all.insert(0, gid);
    all.extend_from_slice(extra);
    let mut groups = Vec::with_capacity(all.len());
    for gid in all {
        if !groups.contains(&gid) {
            groups.push(gid);
        }
    }
    let home = if home.is_empty() { "/" } else { home };
    Ok(Identity { uid, gid, groups, home: home.to_owned() })
}

fn fields(line: &str) -> Vec<&str> {
    line.trim().split(':').collect()
}

/// The number that `text` is, if it is one.
fn id(text: &str) -> Result<Option<u32>> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse() {
        Ok(number) if number <= MAX_ID => Ok(Some(number)),
        _ => Err(Error::new(Class::InvalidInput, format!("uids and gids must be in range 0-{MAX_ID}: {text}"))),
    }
}

fn not_found(what: &str, name: &str, file: &str) -> Error {
    Error::new(Class::NotFound, format!("unable to find {what} {name}: no matching entries in {file} file"))
        .with_hint("give the number instead, or choose a name that the image has")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# comment\nbob:x:1000:100:Bob:/home/bob:/bin/sh\nodd:x:7:8\n\
                          7:x:77:77::/seven:\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:\nwheel:x:10:bob,root\naudio:x:63:al,bob\n";

    fn who(user: &str) -> (u32, u32, Vec<u32>, String) {
        let found = identify(user, &[], PASSWD, GROUP).unwrap();
        (found.uid, found.gid, found.groups, found.home)
    }

    #[test]
    fn as_docker_does() {
        assert_eq!(who(""), (0, 0, vec![0, 10], "/root".into()));
        assert_eq!(who("root"), who(""));
        assert_eq!(who("bob"), (1000, 100, vec![100, 10, 63], "/home/bob".into()));
        assert_eq!(who("1000"), who("bob"));
        assert_eq!(who("bob:wheel"), (1000, 10, vec![10], "/home/bob".into()));
        assert_eq!(who("bob:4242"), (1000, 4242, vec![4242], "/home/bob".into()));
        assert_eq!(who("4242"), (4242, 0, vec![0], "/".into()));
        assert_eq!(who("4242:63"), (4242, 63, vec![63], "/".into()));
        assert_eq!(who(":users"), (0, 100, vec![100], "/root".into()));
        assert_eq!(who("odd"), (7, 8, vec![8], "/".into()));
        assert_eq!(who("bob:"), who("bob"));
    }

    #[test]
    fn groups_added_come_last_and_once() {
        assert_eq!(identify("bob", &[63, 5], PASSWD, GROUP).unwrap().groups, [100, 10, 63, 5]);
    }

    #[test]
    fn dockers_words() {
        let error = |user| identify(user, &[], PASSWD, GROUP).unwrap_err();
        assert_eq!(error("eve").to_string(), "unable to find user eve: no matching entries in passwd file");
        assert_eq!(error("bob:x").to_string(), "unable to find group x: no matching entries in group file");
        assert_eq!(error("2147483648").class(), Class::InvalidInput);
        assert_eq!(error("1:99999999999999999999").class(), Class::InvalidInput);
        assert_eq!(error("-1").class(), Class::NotFound);
        assert_eq!(identify("bob", &[], "", "").unwrap_err().class(), Class::NotFound);
        assert_eq!(identify("0", &[], "", "").unwrap().groups, [0]);
    }
}
