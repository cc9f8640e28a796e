//! What the vfs needs of Linux beyond `cap_std`: overlayfs's marks, exchanging two names, metadata that a copy keeps, and
//! reading and writing at an offset in one call. Names are single components, used on an open directory, and never
//! followed.

use std::fs::File;
use std::io::{self, IoSlice};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cap_std::fs::{Dir, FileTypeExt, Metadata, MetadataExt};
use rustix::fs::{
    self as rfs, AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
};
use rustix::io::{Errno, ReadWriteFlags};

use crate::wasi::vfs::unix_time;

/// The xattrs that mean something to overlayfs: those that need privilege, and those anybody may set.
const OPAQUE: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];

/// Opens the directory `name`, which must not be a symlink.
pub(crate) fn open_dir(dir: &Dir, name: &str) -> io::Result<Dir> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = match rfs::openat(dir, name, flags | OFlags::RDONLY, Mode::empty()) {
        // One may be entered that may not be listed.
        Err(Errno::ACCESS) => rfs::openat(dir, name, flags | OFlags::PATH, Mode::empty()),
        other => other,
    };
    Ok(Dir::from_std_file(opened?.into()))
}

/// True for overlayfs's mark of a name that lower layers have and the union has not: a character device 0/0
/// (<https://docs.kernel.org/filesystems/overlayfs.html#whiteouts-and-opaque-directories>).
pub(crate) fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

/// Makes that mark, which needs no privilege since kernel 5.8.
pub(crate) fn make_whiteout(dir: &Dir, name: &str) -> io::Result<()> {
    Ok(rfs::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0)?)
}

/// True when a directory hides all that lower layers have in it.
pub(crate) fn is_opaque(dir: &Dir) -> io::Result<bool> {
    let mut value = [0];
    for name in OPAQUE {
        match rfs::fgetxattr(dir, name, &mut value[..]) {
            Ok(_) if value == *b"y" => return Ok(true),
            Err(Errno::OPNOTSUPP | Errno::BADF) => return Ok(false),
            Ok(_) | Err(Errno::NODATA | Errno::RANGE) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(false)
}

/// Makes a directory hide all that lower layers have in it.
pub(crate) fn set_opaque(dir: &Dir) -> io::Result<()> {
    match rfs::fsetxattr(dir, OPAQUE[0], b"y", XattrFlags::empty()) {
        Err(Errno::PERM) => Ok(rfs::fsetxattr(dir, OPAQUE[1], b"y", XattrFlags::empty())?),
        other => Ok(other?),
    }
}

/// Sets times, also those before 1970, which `cap_std` panics at. `None` leaves one as it is.
pub(crate) fn set_times(
    dir: &Dir,
    name: &str,
    accessed: Option<SystemTime>,
    modified: Option<SystemTime>,
) -> io::Result<()> {
    let times = Timestamps { last_access: timespec(accessed)?, last_modification: timespec(modified)? };
    Ok(rfs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn timespec(time: Option<SystemTime>) -> io::Result<Timespec> {
    let Some(time) = time else { return Ok(Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }) };
    let (tv_sec, tv_nsec) = unix_time(time).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(Timespec { tv_sec, tv_nsec: tv_nsec.into() })
}

/// Makes a symlink, wherever it leads.
pub(crate) fn symlink(dir: &Dir, to: &str, name: &str) -> io::Result<()> {
    Ok(rfs::symlinkat(to, dir, name)?)
}

/// Renames, and leaves a whiteout under the old name, in one step.
pub(crate) fn rename_leaving_whiteout(dir: &Dir, name: &str, new_dir: &Dir, new_name: &str) -> io::Result<()> {
    Ok(rfs::renameat_with(dir, name, new_dir, new_name, RenameFlags::WHITEOUT)?)
}

/// Makes two names change places in one step.
pub(crate) fn exchange(dir: &Dir, name: &str, other: &Dir, other_name: &str) -> io::Result<()> {
    Ok(rfs::renameat_with(dir, name, other, other_name, RenameFlags::EXCHANGE)?)
}

/// Gives an open file or directory owner, mode and xattrs of another, as far as this process may.
pub(crate) fn copy_attributes(from: &File, to: &File) -> io::Result<()> {
    let stat = rfs::fstat(from)?;
    let own = rfs::fstat(to)?;
    if (stat.st_uid, stat.st_gid) != (own.st_uid, own.st_gid) {
        // Only the superuser gives files away; without, the copy is ours.
        let _ = rfs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    }
    copy_xattrs(from, to)?;
    Ok(rfs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?)
}

/// Gives what has no content the owner and times of another, as far as this process may.
pub(crate) fn copy_named_attributes(metadata: &Metadata, dir: &Dir, name: &str) {
    let ids = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
    let _ = rfs::chownat(dir, name, Some(ids.0), Some(ids.1), AtFlags::SYMLINK_NOFOLLOW);
    let time = |tv_sec, nanoseconds: i64| rfs::Timespec { tv_sec, tv_nsec: nanoseconds as _ };
    let times = rfs::Timestamps {
        last_access: time(metadata.atime(), metadata.atime_nsec()),
        last_modification: time(metadata.mtime(), metadata.mtime_nsec()),
    };
    let _ = rfs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW);
}

/// Makes a pipe, or a socket that nobody will listen on, like `name` in `from`.
pub(crate) fn make_special(from: &Dir, name: &str, like: &Metadata, dir: &Dir, made: &str) -> io::Result<()> {
    let mode = Mode::from_raw_mode(like.mode() & 0o7777);
    if !like.file_type().is_fifo() {
        // It cannot be opened, so its mode is what the process lets new files have.
        rfs::mknodat(dir, made, FileType::Socket, mode, 0)?;
        copy_named_attributes(like, dir, made);
        return Ok(());
    }
    rfs::mknodat(dir, made, FileType::Fifo, mode, 0)?;
    let open = |dir: &Dir, name: &str| {
        // Without waiting for another end (fifo(7)).
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rfs::openat(dir, name, flags, Mode::empty()).map(File::from)
    };
    copy_attributes(&open(from, name)?, &open(dir, made)?)?;
    copy_named_attributes(like, dir, made);
    Ok(())
}

fn copy_xattrs(from: &File, to: &File) -> io::Result<()> {
    let mut names = vec![0; 1 << 16];
    let length = match rfs::flistxattr(from, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let mut value = Vec::new();
    for name in names[..length].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        value.resize(1 << 16, 0);
        let Ok(length) = rfs::fgetxattr(from, name, &mut value[..]) else { continue };
        match rfs::fsetxattr(to, name, &value[..length], XattrFlags::empty()) {
            Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS | Errno::INVAL) | Ok(()) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// When a file's metadata were changed last.
pub(crate) fn status_change(metadata: &Metadata) -> Option<SystemTime> {
    let seconds = u64::try_from(metadata.ctime()).ok()?;
    UNIX_EPOCH.checked_add(Duration::new(seconds, u32::try_from(metadata.ctime_nsec()).ok()?))
}

/// Reads at most `most` bytes at `offset` behind those that `into` has. None is the end of the file.
pub(crate) fn read_at(file: &File, into: &mut Vec<u8>, most: usize, offset: u64) -> io::Result<usize> {
    into.reserve_exact(most);
    loop {
        match rustix::io::pread(file, rustix::buffer::spare_capacity(into), offset) {
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Writes at `offset`; says how much of it.
pub(crate) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    Ok(rustix::io::pwrite(file, bytes, offset)?)
}

/// Writes at the end; says how much of it.
pub(crate) fn append(file: &File, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::io::pwritev2(file, &[IoSlice::new(bytes)], 0, ReadWriteFlags::APPEND)?)
}

/// How a program says it will use a file.
pub(crate) use rustix::fs::Advice;

/// Tells the kernel.
pub(crate) fn advise(file: &File, offset: u64, length: u64, advice: Advice) -> io::Result<()> {
    Ok(rfs::fadvise(file, offset, std::num::NonZeroU64::new(length), advice)?)
}
