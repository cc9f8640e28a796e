//! The container's terminal: a pair from the container's own devpts (pts(4)), so that its programs can name it, with
//! the master handed to the monitor.
//!
//! Nothing is opened by a name that the image could have put something at, and what was opened is checked to be what it
//! should be (CVE-2025-52565).

#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, fstat, fstatfs, makedev, openat};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::{Winsize, tcsetwinsize};

use super::mounts;
use super::rootfs::Root;
use crate::error::{Error, Result};

/// `DEVPTS_SUPER_MAGIC`.
const DEVPTS: u64 = 0x1cd1;

/// Both ends of a terminal.
#[derive(Debug)]
pub(super) struct Terminal {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

impl Terminal {
    /// Makes one in the container, of this size (rows, columns).
    ///
    /// # Errors
    /// The kernel's; `ENODEV` when /dev/pts is not what it should be.
    pub fn make(root: &Root, size: Option<(u16, u16)>) -> Result<Terminal> {
        let failed = |e| Error::io("make a terminal in", "/dev/pts", e);
        let pts = root.open("/dev/pts", OFlags::PATH | OFlags::DIRECTORY).map_err(failed)?;
        if fstatfs(&pts).map_err(failed)?.f_type as u64 != DEVPTS {
            return Err(failed(Errno::NODEV));
        }
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let master = openat(&pts, "ptmx", flags, Mode::empty()).map_err(failed)?;
        check_master(master.as_fd()).map_err(failed)?;
        rustix::pty::unlockpt(&master).map_err(failed)?;
        // By the master, not by a name.
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).map_err(failed)?;
        if let Some((rows, columns)) = size {
            set_size(master.as_fd(), rows, columns)?;
        }
        Ok(Terminal { master, slave })
    }

    /// Puts its slave at /dev/console, for the container's first process.
    ///
    /// # Errors
    /// The kernel's.
    pub fn make_console(&self, root: &Root) -> Result<()> {
        let failed = |e| Error::io("make", "/dev/console", e);
        let target = root.make_file("/dev/console".as_ref())?;
        let slave = mounts::copy(self.slave.as_fd(), "", false).map_err(failed)?;
        mounts::attach(slave.as_fd(), target.as_fd()).map_err(failed)
    }

    /// Makes it this process's controlling terminal. The process must lead a session.
    ///
    /// # Errors
    /// The kernel's.
    pub fn control(&self) -> Result<()> {
        // SAFETY: TIOCSCTTY takes a plain number.
        if unsafe { libc::ioctl(self.slave.as_raw_fd(), libc::TIOCSCTTY as _, 0) } != 0 {
            return Err(Error::os("take the controlling terminal", std::io::Error::last_os_error()));
        }
        Ok(())
    }
}

/// Sets a terminal's size.
///
/// # Errors
/// The kernel's.
pub fn set_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> Result<()> {
    tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })
        .map_err(|e| Error::os("set the terminal's size", e))
}

/// The monitor's side: takes what came over the channel for a master, if it is one.
///
/// # Errors
/// `ENODEV` when it is something else.
pub(super) fn accept_master(fd: OwnedFd) -> Result<File> {
    check_master(fd.as_fd()).map_err(|e| Error::os("take the container's terminal", e))?;
    Ok(File::from(fd))
}

/// A pseudo-terminal's master: a node of the multiplexer's numbers on a devpts, that knows its number.
fn check_master(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let stat = fstat(fd)?;
    let multiplexer =
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == makedev(5, 2);
    let devpts = fstatfs(fd)?.f_type as u64 == DEVPTS;
    // Only a master answers this.
    if multiplexer && devpts && rustix::pty::ptsname(fd, Vec::new()).is_ok() { Ok(()) } else { Err(Errno::NODEV) }
}
