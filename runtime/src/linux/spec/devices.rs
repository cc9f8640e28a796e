//! The devices a container sees besides the six that every container has, and the rules of which it may use.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};
use serde::{Deserialize, Serialize};

use super::{SpecContext, invalid};
use crate::config::ContainerConfig;
use crate::error::{Class, Error, Result};
use crate::linux::cgroup::{DeviceRule, docker_devices};

/// A device of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostDevice {
    /// Its path on the host.
    pub path: String,
    /// A block device, not a character device.
    pub block: bool,
    /// Its major number.
    pub major: u32,
    /// Its minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// `--device HOST[:CONTAINER][:rwm]`, understood.
#[derive(Debug, PartialEq, Eq)]
struct Wanted<'a> {
    host: &'a str,
    container: &'a str,
    access: &'a str,
}

impl Wanted<'_> {
    fn parse(text: &str) -> Result<Wanted<'_>> {
        let refuse = |why: String| Err(invalid(why));
        let is_access = |part: &str| !part.is_empty() && part.chars().all(|c| "rwm".contains(c));
        let parts: Vec<&str> = text.split(':').collect();
        let wanted = match parts[..] {
            [host] => Wanted { host, container: host, access: "rwm" },
            [host, access] if is_access(access) => Wanted { host, container: host, access },
            [host, container] => Wanted { host, container, access: "rwm" },
            [host, container, access] if is_access(access) => Wanted { host, container, access },
            [_, _, access] => return refuse(format!("bad mode specified: {access}")),
            _ => return refuse(format!("bad format for path: {text}")),
        };
        match [wanted.host, wanted.container].into_iter().find(|path| !path.starts_with('/')) {
            Some(relative) => refuse(format!("{relative} is not an absolute path")),
            None => Ok(wanted),
        }
    }
}

/// `--device-cgroup-rule`, as docker has it: `c 42:* rmw`.
fn parse_rule(text: &str) -> Option<DeviceRule> {
    let [kind, numbers, access] = text.split(' ').collect::<Vec<_>>()[..] else { return None };
    let number = |part: &str| match part {
        "*" => Some(None),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok().map(Some),
        _ => None,
    };
    let (major, minor) = numbers.split_once(':')?;
    let kind = ["a", "b", "c"].contains(&kind).then(|| kind.chars().next())??;
    let is_access = (1..=3).contains(&access.len()) && access.chars().all(|c| "rwm".contains(c));
    let (major, minor) = (number(major)?, number(minor)?);
    is_access.then(|| DeviceRule { kind, major, minor, access: access.to_owned() })
}

/// Looks up on the host what the plan must know of devices.
///
/// # Errors
/// In docker's words for a device that is not there.
pub fn look_up(config: &ContainerConfig) -> Result<Vec<HostDevice>> {
    if config.privileged {
        let mut found = Vec::new();
        walk(Path::new("/dev"), &mut found);
        return Ok(found);
    }
    let mut found = Vec::with_capacity(config.devices.len());
    for text in &config.devices {
        let host = Wanted::parse(text)?.host;
        let gather = |reason: String| {
            Error::new(
                Class::InvalidInput,
                format!("error gathering device information while adding custom device {host:?}: {reason}"),
            )
        };
        let meta = fs::metadata(host).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => gather("no such file or directory".to_owned()),
            _ => gather(e.to_string()),
        })?;
        found.push(device(host, &meta).ok_or_else(|| gather("not a device node".to_owned()))?);
    }
    Ok(found)
}

fn device(path: &str, meta: &fs::Metadata) -> Option<HostDevice> {
    let kind = meta.file_type();
    (kind.is_block_device() || kind.is_char_device()).then(|| HostDevice {
        path: path.to_owned(),
        block: kind.is_block_device(),
        major: rustix::fs::major(meta.rdev()),
        minor: rustix::fs::minor(meta.rdev()),
        mode: meta.mode() & 0o777,
        uid: meta.uid(),
        gid: meta.gid(),
    })
}

/// All devices under `/dev` but those that a container has of its own.
fn walk(dir: &Path, found: &mut Vec<HostDevice>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let own = ["pts", "shm", "fd", "mqueue", "console", "tty", "null", "zero", "full", "random", "urandom", "ptmx"];
        if dir == Path::new("/dev") && own.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&path, found),
            Ok(kind) if !kind.is_symlink() => {
                // Gone meanwhile, or of a name that no spec can hold: left out.
                found.extend(entry.metadata().ok().zip(path.to_str()).and_then(|(meta, path)| device(path, &meta)));
            }
            _ => {}
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
}

/// Writes the container's devices and its rules into the spec.
///
/// A user namespace's root cannot make nodes and needs no rules; its devices are bind mounts, which the backend makes
/// where it cannot make nodes.
pub fn put(linux: &mut Linux, config: &ContainerConfig, context: &SpecContext) -> Result<()> {
    let mut devices = Vec::new();
    let mut rules = docker_devices();
    if config.privileged {
        devices.extend(context.devices.iter().map(|host| node(host, &host.path)));
        rules = vec![DeviceRule { kind: 'a', major: None, minor: None, access: "rwm".to_owned() }];
    } else {
        for text in &config.devices {
            let wanted = Wanted::parse(text)?;
            let Some(host) = context.devices.iter().find(|host| host.path == wanted.host) else {
                return Err(invalid(format!(
                    "error gathering device information while adding custom device {:?}: no such file or directory",
                    wanted.host
                )));
            };
            devices.push(node(host, wanted.container));
            rules.push(DeviceRule {
                kind: if host.block { 'b' } else { 'c' },
                major: Some(host.major),
                minor: Some(host.minor),
                access: wanted.access.to_owned(),
            });
        }
    }
    for text in &config.device_rules {
        let rule = parse_rule(text).ok_or_else(|| invalid(format!("invalid device cgroup format '{text}'")))?;
        rules.push(rule);
    }
    if !context.rootless() {
        let mut deny = LinuxDeviceCgroup::default();
        deny.set_allow(false).set_access(Some("rwm".to_owned()));
        let mut all = vec![deny];
        all.extend(rules.iter().map(DeviceRule::to_oci));
        let mut resources = LinuxResources::default();
        resources.set_devices(Some(all));
        linux.set_resources(Some(resources));
    } else {
        linux.set_resources(None);
    }
    linux.set_devices(super::non_empty(devices));
    Ok(())
}

fn node(host: &HostDevice, path: &str) -> LinuxDevice {
    let mut device = LinuxDevice::default();
    device
        .set_path(path.into())
        .set_typ(if host.block { LinuxDeviceType::B } else { LinuxDeviceType::C })
        .set_major(host.major.into())
        .set_minor(host.minor.into())
        .set_file_mode(Some(host.mode))
        .set_uid(Some(host.uid))
        .set_gid(Some(host.gid));
    device
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifications() {
        let wanted = |host, container, access| Wanted { host, container, access };
        assert_eq!(Wanted::parse("/dev/fuse").unwrap(), wanted("/dev/fuse", "/dev/fuse", "rwm"));
        assert_eq!(Wanted::parse("/dev/sda:r").unwrap(), wanted("/dev/sda", "/dev/sda", "r"));
        assert_eq!(Wanted::parse("/dev/sda:/dev/xvdc").unwrap(), wanted("/dev/sda", "/dev/xvdc", "rwm"));
        assert_eq!(Wanted::parse("/dev/sda:/dev/xvdc:rw").unwrap(), wanted("/dev/sda", "/dev/xvdc", "rw"));
        for (text, message) in [
            ("", " is not an absolute path"),
            ("fuse", "fuse is not an absolute path"),
            ("/dev/sda:xvdc", "xvdc is not an absolute path"),
            ("/dev/sda:/x:q", "bad mode specified: q"),
            ("/dev/sda:/x:r:w", "bad format for path: /dev/sda:/x:r:w"),
        ] {
            assert_eq!(Wanted::parse(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn rules() {
        let rule = |text| parse_rule(text).map(|rule| (rule.kind, rule.major, rule.minor, rule.access));
        assert_eq!(rule("c 42:* rmw"), Some(('c', Some(42), None, "rmw".to_owned())));
        assert_eq!(rule("a *:* r"), Some(('a', None, None, "r".to_owned())));
        for bad in ["", "c", "c 1:3", "d 1:3 r", "c 1 r", "c 1:x r", "c +1:3 r", "c 1:3 q", "c 1:3 rrrr", "c 1:3 r w"] {
            assert_eq!(rule(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_hosts_devices() {
        let config = ContainerConfig { devices: vec!["/dev/null:/dev/x:r".into()], ..ContainerConfig::default() };
        let found = look_up(&config).unwrap();
        assert_eq!((found[0].block, found[0].major, found[0].minor), (false, 1, 3));
        let missing = ContainerConfig { devices: vec!["/dev/none".into()], ..ContainerConfig::default() };
        let message = look_up(&missing).unwrap_err().to_string();
        assert_eq!(
            message,
            "error gathering device information while adding custom device \"/dev/none\": no such file or directory"
        );
        let file = ContainerConfig { devices: vec!["/proc/version".into()], ..ContainerConfig::default() };
        assert!(look_up(&file).unwrap_err().to_string().ends_with("not a device node"));
    }
}
