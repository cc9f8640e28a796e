//! Landlock by its three system calls: a process gives up every file, port and peer that it does not name.
//!
//! Raw, because the `landlock` crate costs half as much again and this is three calls and three structures
//! (`landlock(7)`, `linux/landlock.h`). The kernel's ABI version says which rights it knows; newer ones are asked for
//! only where they are, so every kernel since 5.13 gives what it can.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::{FileType, fstat};

const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const REMOVE_DIR: u64 = 1 << 4;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_CHAR: u64 = 1 << 6;
const MAKE_DIR: u64 = 1 << 7;
const MAKE_REG: u64 = 1 << 8;
const MAKE_SOCK: u64 = 1 << 9;
const MAKE_FIFO: u64 = 1 << 10;
const MAKE_SYM: u64 = 1 << 12;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;

/// Rights that make sense on a file that is no directory.
const OF_FILES: u64 = WRITE_FILE | READ_FILE | TRUNCATE;
const READING: u64 = READ_FILE | READ_DIR;
/// Everything but executing, devices, sockets and pipes in the file system, and ioctls on devices.
const WRITING: u64 =
    READING | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SYM | REFER | TRUNCATE;

const OF_UNIONS: u64 = MAKE_CHAR | MAKE_SOCK | MAKE_FIFO;

/// The version of the interface, by which rights a kernel knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Abi(pub u32);

impl Abi {
    /// The kernel's; `None` without Landlock, or where it is switched off.
    pub fn of_kernel() -> Option<Abi> {
        const VERSION: u64 = 1;
        // SAFETY: with this flag the kernel reads no memory; it only answers a number.
        let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0, VERSION) };
        u32::try_from(version).ok().filter(|&version| version > 0).map(Abi)
    }

    /// All rights of the file system that it knows: what is not granted is refused.
    fn files(self) -> u64 {
        let known = match self.0 {
            0 | 1 => 13,
            2 => 14,
            3 | 4 => 15,
            _ => 16,
        };
        (1 << known) - 1
    }

    /// Binding and connecting TCP ports.
    fn ports(self) -> u64 {
        if self.tcp() { 0b11 } else { 0 }
    }

    /// Abstract unix sockets and signals of processes outside.
    fn scopes(self) -> u64 {
        if self.scoped() { 0b11 } else { 0 }
    }

    /// True when it refuses TCP.
    pub fn tcp(self) -> bool {
        self.0 >= 4
    }

    /// True when it refuses abstract sockets and signals.
    pub fn scoped(self) -> bool {
        self.0 >= 6
    }
}

/// `struct landlock_ruleset_attr`.
#[repr(C)]
struct RulesetAttr {
    files: u64,
    ports: u64,
    scopes: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneathAttr {
    allowed: u64,
    parent: i32,
}

/// Confines the calling thread, and those it will make, to these trees and files. Everything else that the ABI knows
/// is refused: other files, all TCP ports, abstract sockets, signals to others. What is open stays open. In `unions`
/// character devices can be made too: overlayfs's whiteouts are such, and what else could be one is the system call
/// filter's to refuse. And pipes and sockets of the file system, which lower layers may have: they lead nowhere without
/// somebody at the other end, who would have to be within the same walls.
///
/// The thread needs `no_new_privs`, or `CAP_SYS_ADMIN`.
///
/// # Errors
/// The kernel's.
pub fn restrict(
    abi: Abi,
    read_only: &[BorrowedFd<'_>],
    read_write: &[BorrowedFd<'_>],
    unions: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let attr = RulesetAttr { files: abi.files(), ports: abi.ports(), scopes: abi.scopes() };
    // SAFETY: `attr` is a `struct landlock_ruleset_attr` and outlives the call, which only reads it. An older kernel
    // takes the longer structure because what it does not know is zero.
    let fd =
        check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attr, size_of_val(&attr), 0) })?;
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
    let ruleset = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let writing = read_write.iter().map(|fd| (fd, WRITING)).chain(unions.iter().map(|fd| (fd, WRITING | OF_UNIONS)));
    let rules = read_only.iter().map(|fd| (fd, READING)).chain(writing);
    for (fd, rights) in rules {
        let directory = FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::Directory;
        let fitting = if directory { rights } else { rights & OF_FILES };
        let attr = PathBeneathAttr { allowed: fitting & abi.files(), parent: fd.as_raw_fd() };
        const PATH_BENEATH: u64 = 1;
        // SAFETY: `attr` is a `struct landlock_path_beneath_attr` and outlives the call, which only reads it.
        check(unsafe {
            libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), PATH_BENEATH, &raw const attr, 0)
        })?;
    }
    // SAFETY: the call takes a descriptor and a number.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) }).map(drop)
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_abi_knows_its_rights() {
        for (abi, files, tcp, scoped) in
            [(1, 0x1fff, false, false), (2, 0x3fff, false, false), (3, 0x7fff, false, false), (4, 0x7fff, true, false)]
                .into_iter()
                .chain([(5, 0xffff, true, false), (6, 0xffff, true, true), (7, 0xffff, true, true)])
        {
            let abi = Abi(abi);
            assert_eq!((abi.files(), abi.tcp(), abi.scoped()), (files, tcp, scoped), "{abi:?}");
        }
        assert_eq!(WRITING & !Abi(3).files(), 0);
        // Nothing that could run a program or make a device.
        assert_eq!(WRITING & (1 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 15), 0);
    }
}
