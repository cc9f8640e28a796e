//! Mounting what a volume's options name: `type`, `device` and `o`, as for mount(8).
//!
//! Options that are flags of mount(2) become flags, all others go to the file system, as docker's `local` driver does it.
//! What is mounted stays while a container uses the volume and belongs to the host's mount namespace, so all containers
//! share one.

use std::borrow::Cow;
use std::ffi::CString;
use std::net::IpAddr;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use super::resolver;
use crate::error::{Class, Error, Result};

/// File systems of other machines, whose address the kernel wants as a number.
const REMOTE: [&str; 3] = ["nfs", "nfs4", "cifs"];

/// Mounts `device` on `target`, unless something is mounted there.
///
/// # Errors
/// `Unsupported` without root; the kernel's, in docker's words.
pub fn mount(device: &str, target: &Path, kind: &str, options: &[&str]) -> Result<()> {
    if is_mounted(target)? {
        return Ok(());
    }
    if !super::is_root() {
        return Err(Error::new(Class::Unsupported, "only root can mount")
            .with_hint("without root a volume can be a directory of its own, or one of the host: type=none,o=bind"));
    }
    let mut words: Vec<Cow<'_, str>> = options.iter().map(|option| Cow::Borrowed(*option)).collect();
    if REMOTE.contains(&kind) {
        for word in &mut words {
            if let Some(address) = word.strip_prefix("addr=").map(numbered).transpose()? {
                *word = format!("addr={address}").into();
            }
        }
    }
    let (flags, data) = parse(&words);
    let data = CString::new(data).map_err(|_| Error::new(Class::InvalidInput, "an option has a NUL in it"))?;
    rustix::mount::mount(device, target, kind, flags, data.as_c_str()).map_err(|e| {
        let error = Error::new(Class::InvalidInput, failed(device, target, flags, &data.to_string_lossy(), e));
        match e {
            Errno::NODEV => error.with_hint(format!("this kernel knows no file system {kind:?}")),
            Errno::NOTBLK => error.with_hint(format!("{device} is no block device")),
            Errno::INVAL => error.with_hint("see the kernel's log (dmesg) for the option that it refused"),
            _ => error,
        }
    })
}

/// The address of a host by its name, or as it is.
fn numbered(host: &str) -> Result<IpAddr> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let found = resolver::look_up(host).ok().and_then(|found| found.first().copied());
    found.ok_or_else(|| {
        let message = format!("error resolving passed in network volume address: lookup {host}: no such host");
        Error::new(Class::InvalidInput, message).with_hint("give the address itself, or see who the host's servers are")
    })
}

/// What could not be mounted, and why, without the password.
fn failed(device: &str, target: &Path, flags: MountFlags, data: &str, why: Errno) -> String {
    let mut text = format!("failed to mount local volume: mount {device}:{}", target.display());
    if !flags.is_empty() {
        text += &format!(", flags: {:#x}", flags.bits());
    }
    if !data.is_empty() {
        let hidden = |word: &str| if word.starts_with("password=") { "password=********" } else { word }.to_owned();
        text += &format!(", data: {}", data.split(',').map(hidden).collect::<Vec<_>>().join(","));
    }
    let why = why.to_string();
    text + ": " + &why.split(" (os error").next().unwrap_or(&why).to_lowercase()
}

/// Unmounts what is mounted on `target`, if anything is.
///
/// # Errors
/// The kernel's.
pub fn unmount(target: &Path) -> Result<()> {
    while is_mounted(target)? {
        rustix::mount::unmount(target, UnmountFlags::DETACH).map_err(|e| Error::io("unmount", target, e))?;
    }
    Ok(())
}

fn is_mounted(target: &Path) -> Result<bool> {
    match statx(CWD, target, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE) {
        Ok(stat) => Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(Errno::NOENT) => Ok(false),
        Err(e) => Err(Error::io("look at", target, e)),
    }
}

fn parse(options: &[Cow<'_, str>]) -> (MountFlags, String) {
    let mut flags = MountFlags::empty();
    let mut data = Vec::new();
    for option in options {
        let (flag, on) = match &**option {
            "ro" => (MountFlags::RDONLY, true),
            "rw" => (MountFlags::RDONLY, false),
            "nosuid" => (MountFlags::NOSUID, true),
            "suid" => (MountFlags::NOSUID, false),
            "nodev" => (MountFlags::NODEV, true),
            "dev" => (MountFlags::NODEV, false),
            "noexec" => (MountFlags::NOEXEC, true),
            "exec" => (MountFlags::NOEXEC, false),
            "sync" => (MountFlags::SYNCHRONOUS, true),
            "async" => (MountFlags::SYNCHRONOUS, false),
            "dirsync" => (MountFlags::DIRSYNC, true),
            "mand" => (MountFlags::PERMIT_MANDATORY_FILE_LOCKING, true),
            "nomand" => (MountFlags::PERMIT_MANDATORY_FILE_LOCKING, false),
            "noatime" => (MountFlags::NOATIME, true),
            "atime" => (MountFlags::NOATIME, false),
            "nodiratime" => (MountFlags::NODIRATIME, true),
            "diratime" => (MountFlags::NODIRATIME, false),
            "relatime" => (MountFlags::RELATIME, true),
            "norelatime" => (MountFlags::RELATIME, false),
            "strictatime" => (MountFlags::STRICTATIME, true),
            "defaults" => continue,
            other => {
                data.push(other);
                continue;
            }
        };
        flags.set(flag, on);
    }
    (flags, data.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_flags_or_data() {
        let (flags, data) = parse(&["ro", "nosuid", "size=1m", "suid", "uid=7", "defaults"].map(Cow::Borrowed));
        assert_eq!(flags, MountFlags::RDONLY);
        assert_eq!(data, "size=1m,uid=7");
    }

    #[test]
    fn a_tmpfs_is_mounted_once_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        mount("tmpfs", dir.path(), "tmpfs", &["size=64k"]).unwrap();
        std::fs::write(dir.path().join("a"), "x").unwrap();
        mount("tmpfs", dir.path(), "tmpfs", &["size=64k"]).unwrap();
        assert!(dir.path().join("a").exists(), "not mounted over");
        unmount(dir.path()).unwrap();
        unmount(dir.path()).unwrap();
        assert!(!dir.path().join("a").exists());
        let error = mount("nodev", dir.path(), "no-such-fs", &[]).unwrap_err();
        assert!(error.hint().unwrap().contains("no-such-fs"), "{error:?}");
    }

    #[test]
    fn what_fails_is_told_as_docker_does_without_the_password() {
        let told = failed("//h/s", Path::new("/v"), MountFlags::RDONLY, "user=u,password=secret", Errno::NODEV);
        let words =
            "failed to mount local volume: mount //h/s:/v, flags: 0x1, data: user=u,password=********: no such device";
        assert_eq!(told, words);
        let dir = tempfile::tempdir().unwrap();
        // By number there is nobody to ask; a name that is none is not asked for.
        assert_eq!(numbered("192.0.2.1").unwrap(), IpAddr::from([192, 0, 2, 1]));
        assert!(numbered("localhost").unwrap().is_loopback());
        let error = mount(":/x", dir.path(), "nfs", &["addr=no such host"]).unwrap_err().to_string();
        assert!(error.starts_with("error resolving passed in network volume address: lookup no such host"), "{error}");
    }
}
