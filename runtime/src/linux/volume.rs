//! Mounting what a volume's options name: `type`, `device` and `o`, as for mount(8).
//!
//! Options that are flags of mount(2) become flags, all others go to the file system, as docker's `local` driver does it.
//! What is mounted stays while a container uses the volume and belongs to the host's mount namespace, so all containers
//! share one.

use std::ffi::CString;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::error::{Class, Error, Result};

/// Mounts `device` on `target`, unless something is mounted there.
///
/// # Errors
/// `Unsupported` without root; the kernel's.
pub fn mount(device: &str, target: &Path, kind: &str, options: &[&str]) -> Result<()> {
    if is_mounted(target)? {
        return Ok(());
    }
    if !super::is_root() {
        return Err(Error::new(Class::Unsupported, "only root can mount")
            .with_hint("without root a volume can be a directory of its own, or one of the host: type=none,o=bind"));
    }
    let (flags, data) = parse(options);
    let data = CString::new(data).map_err(|_| Error::new(Class::InvalidInput, "an option has a NUL in it"))?;
    rustix::mount::mount(device, target, kind, flags, data.as_c_str()).map_err(|e| {
        let error = Error::new(Class::InvalidInput, e.to_string());
        match e {
            Errno::NODEV => error.with_hint(format!("this kernel knows no file system {kind:?}")),
            Errno::NOTBLK => error.with_hint(format!("{device} is no block device")),
            Errno::INVAL => error.with_hint("see the kernel's log (dmesg) for the option that it refused"),
            _ => error,
        }
    })
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

fn parse(options: &[&str]) -> (MountFlags, String) {
    let mut flags = MountFlags::empty();
    let mut data = Vec::new();
    for &option in options {
        let (flag, on) = match option {
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
        let (flags, data) = parse(&["ro", "nosuid", "size=1m", "suid", "uid=7", "defaults"]);
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
}
