//! Reading and writing the kernel's small files in cgroup directories.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, fstat, mkdir, openat, unlinkat};
use rustix::io::Errno;
use rustix::process::Pid;

/// Opens a directory.
pub fn open_dir(path: &Path) -> Result<OwnedFd, Errno> {
    openat(CWD, path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
}

/// Opens a file for writing; the kernel takes one value in each write.
pub fn open_to_write(dir: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    openat(dir, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Writes `value` in one write, as the kernel wants it.
pub fn write(dir: BorrowedFd<'_>, name: &str, value: &str) -> Result<(), Errno> {
    let file = open_to_write(dir, name)?;
    rustix::io::write(&file, value.as_bytes()).map(drop)
}

/// The whole of a file.
pub fn read(dir: BorrowedFd<'_>, name: &str) -> Result<String, Errno> {
    let file = openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::with_capacity(4096);
    loop {
        if rustix::io::read(&file, rustix::buffer::spare_capacity(&mut bytes))? == 0 {
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
        bytes.reserve(4096);
    }
}

/// A file that holds one number; `None` for `max` and for a file that is not there.
pub fn number(dir: BorrowedFd<'_>, name: &str) -> Option<u64> {
    read(dir, name).ok()?.trim_end().parse().ok()
}

/// The number after `key` in a file of `key number` lines.
pub fn field(dir: BorrowedFd<'_>, name: &str, key: &str) -> Option<u64> {
    let text = read(dir, name).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim_end().parse().ok())
}

/// The processes in the pid namespace of the process `pid`; itself alone when that is ours too.
pub fn in_pid_namespace_of(pid: u32) -> Vec<u32> {
    let namespace = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let theirs = namespace(pid);
    if theirs.is_none() || theirs == namespace(std::process::id()) {
        return vec![pid];
    }
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut found: Vec<u32> = numbers.filter(|&number| namespace(number) == theirs).collect();
    found.sort_unstable();
    found
}

/// The processes of a directory and of all below it.
pub fn pids(dir: BorrowedFd<'_>) -> Vec<Pid> {
    let text = read(dir, "cgroup.procs").unwrap_or_default();
    // A process of another pid namespace shows as 0.
    let mut pids: Vec<Pid> = text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect();
    for name in children(dir) {
        if let Ok(child) = openat(dir, &name, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            pids.extend(self::pids(child.as_fd()));
        }
    }
    pids
}

/// The names of the groups below.
fn children(dir: BorrowedFd<'_>) -> Vec<String> {
    // Such a directory's link count is two, and one for each below it: no need to list its many files.
    if fstat(dir).is_ok_and(|stat| stat.st_nlink <= 2) {
        return Vec::new();
    }
    let Ok(listing) = openat(dir, ".", OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else {
        return Vec::new();
    };
    let mut names = Vec::new();
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(listing, &mut buffer);
    while let Some(Ok(entry)) = entries.next() {
        if entry.file_type().is_dir()
            && let Ok(name) = entry.file_name().to_str()
            && !matches!(name, "." | "..")
        {
            names.push(name.to_owned());
        }
    }
    names
}

/// Makes `base/path` with its parents. With `inherit`, each new level takes its parent's CPUs and memory nodes.
pub fn make_dirs(base: &Path, path: &str, inherit: bool) -> Result<(), Errno> {
    let full = base.join(path);
    match mkdir(&full, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(Errno::NOENT) => {
            let Some((parent, _)) = path.rsplit_once('/') else { return Err(Errno::NOENT) };
            make_dirs(base, parent, inherit)?;
            return make_dirs(base, path, inherit);
        }
        Err(e) => return Err(e),
    }
    if inherit && let Some(parent) = full.parent() {
        let (parent, made) = (open_dir(parent)?, open_dir(&full)?);
        for name in ["cpuset.cpus", "cpuset.mems"] {
            if read(made.as_fd(), name)?.trim_end().is_empty() {
                write(made.as_fd(), name, &read(parent.as_fd(), name)?)?;
            }
        }
    }
    Ok(())
}

/// Removes a group and those below it. One that is gone is no error.
pub fn remove_tree(path: &Path) -> Result<(), Errno> {
    match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // It has processes, or groups below it.
        Err(Errno::BUSY) => {}
        Err(e) => return Err(e),
    }
    for name in children(open_dir(path)?.as_fd()) {
        remove_tree(&path.join(name))?;
    }
    match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}
