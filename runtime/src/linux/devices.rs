//! The container's /dev: the nodes that every container has, the usual links, and devices of the host that it was given.
//!
//! As root the nodes are made in the container's own tmpfs, so that nothing done to them (chmod, chown) reaches the
//! host's. In a user namespace nobody may make nodes: the host's are bound, which only their real owner can change.
//! Which nodes, see the OCI runtime spec, "Default Devices" (config-linux).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fstat, makedev, mknodat, openat, symlinkat};
use rustix::io::Errno;

use super::mounts;
use super::rootfs::Root;
use crate::error::{Error, Result};

/// Name, major and minor number.
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Name and what it leads to.
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// Devices made ready before the host's tree goes away: for each its place, and the host's node when it must be bound.
#[derive(Debug)]
pub(super) struct Devices<'a> {
    bound: Vec<(PathBuf, OwnedFd)>,
    made: &'a [LinuxDevice],
}

/// Opens what must be taken from the host.
///
/// # Errors
/// Names the device.
pub(super) fn prepare(extra: &[LinuxDevice], user_namespace: bool) -> Result<Devices<'_>> {
    if !user_namespace {
        return Ok(Devices { bound: Vec::new(), made: extra });
    }
    let usual = NODES.iter().map(|(name, ..)| Path::new("/dev").join(name));
    let extra = extra.iter().map(|device| device.path().clone());
    let bound = usual.chain(extra).map(|path| {
        let flags = rustix::mount::OpenTreeFlags::OPEN_TREE_CLONE | rustix::mount::OpenTreeFlags::OPEN_TREE_CLOEXEC;
        match rustix::mount::open_tree(CWD, &path, flags) {
            Ok(tree) => Ok((path, tree)),
            Err(e) => Err(Error::io("use the device", path, e)),
        }
    });
    Ok(Devices { bound: bound.collect::<Result<_>>()?, made: &[] })
}

impl Devices<'_> {
    /// Fills the container's /dev, whose own mount is at `dev`, and opens its null device.
    ///
    /// # Errors
    /// Names the device.
    pub fn make(&self, root: &Root, dev: BorrowedFd<'_>) -> Result<OwnedFd> {
        let failed = |name: &str| {
            let path = Path::new("/dev").join(name);
            move |e: Errno| Error::io("make", path.clone(), e)
        };
        // mknod(2) takes the umask off; docker's nodes are for everyone.
        let umask = rustix::process::umask(Mode::empty());
        if self.bound.is_empty() {
            for (name, major, minor) in NODES {
                mknodat(dev, name, FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(major, minor))
                    .map_err(failed(name))?;
            }
        }
        for (path, tree) in &self.bound {
            let target = root.make_file(path)?;
            mounts::attach(tree.as_fd(), target.as_fd()).map_err(|e| Error::io("make", path, e))?;
        }
        for device in self.made {
            make_node(root, device)?;
        }
        rustix::process::umask(umask);
        for (name, leads_to) in LINKS {
            match symlinkat(leads_to, dev, name) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(failed(name)(e)),
            }
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let null = openat(dev, "null", flags, Mode::empty()).map_err(failed("null"))?;
        if is_null(null.as_fd()) { Ok(null) } else { Err(failed("null")(Errno::NODEV)) }
    }
}

fn make_node(root: &Root, device: &LinuxDevice) -> Result<()> {
    let path = device.path();
    let failed = |e| Error::io("make the device", path, e);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(failed(Errno::INVAL)) };
    let kind = match device.typ() {
        LinuxDeviceType::B => FileType::BlockDevice,
        LinuxDeviceType::P => FileType::Fifo,
        _ => FileType::CharacterDevice,
    };
    let dir = root.make_dir(parent, 0o755)?;
    let mode = Mode::from_raw_mode(device.file_mode().unwrap_or(0o666) & 0o7777);
    match mknodat(&dir, name, kind, mode, makedev(device.major() as u32, device.minor() as u32)) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(()),
        Err(e) => return Err(failed(e)),
    }
    let owner = device.uid().unwrap_or(0);
    let group = device.gid().unwrap_or(0);
    if (owner, group) != (0, 0) {
        let (owner, group) = (rustix::fs::Uid::from_raw(owner), rustix::fs::Gid::from_raw(group));
        rustix::fs::chownat(&dir, name, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
    }
    Ok(())
}

/// True for the null device, whatever its name.
pub(super) fn is_null(fd: BorrowedFd<'_>) -> bool {
    fstat(fd).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == makedev(1, 3)
    })
}

/// The host's null device, for a task without a stdin.
///
/// # Errors
/// When /dev/null is not the null device.
pub(super) fn open_null() -> Result<OwnedFd> {
    let failed = |e| Error::io("open", "/dev/null", e);
    let null = openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    if is_null(null.as_fd()) { Ok(null) } else { Err(failed(Errno::NODEV)) }
}
