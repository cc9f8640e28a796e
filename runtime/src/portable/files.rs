//! See `linux/files.rs`. Here layers are copied into one directory before a guest sees them, so there is no union
//! whose marks would have to be read or made.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::time::SystemTime;

use cap_fs_ext::{DirExt, SystemTimeSpec};
use cap_std::fs::{Dir, Metadata};

fn unsupported<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Opens the directory `name`, which must not be a symlink.
pub(crate) fn open_dir(dir: &Dir, name: &str) -> io::Result<Dir> {
    dir.open_dir_nofollow(name)
}

/// There are none.
pub(crate) fn is_whiteout(_: &Metadata) -> bool {
    false
}

/// Refuses.
pub(crate) fn make_whiteout(_: &Dir, _: &str) -> io::Result<()> {
    unsupported()
}

/// There are none.
pub(crate) fn is_opaque(_: &Dir) -> io::Result<bool> {
    Ok(false)
}

/// Refuses.
pub(crate) fn set_opaque(_: &Dir) -> io::Result<()> {
    unsupported()
}

/// Sets times from 1970 on; `cap_std` panics at those before. `None` leaves one as it is.
pub(crate) fn set_times(
    dir: &Dir,
    name: &str,
    accessed: Option<SystemTime>,
    modified: Option<SystemTime>,
) -> io::Result<()> {
    if [accessed, modified].into_iter().flatten().any(|time| time < SystemTime::UNIX_EPOCH) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let spec =
        |time: Option<SystemTime>| time.map(|time| SystemTimeSpec::Absolute(cap_std::time::SystemTime::from_std(time)));
    dir.set_symlink_times(name, spec(accessed), spec(modified))
}

/// Makes a symlink.
pub(crate) fn symlink(dir: &Dir, to: &str, name: &str) -> io::Result<()> {
    dir.symlink(to, name)
}

/// Refuses.
pub(crate) fn rename_leaving_whiteout(_: &Dir, _: &str, _: &Dir, _: &str) -> io::Result<()> {
    unsupported()
}

/// Refuses.
pub(crate) fn exchange(_: &Dir, _: &str, _: &Dir, _: &str) -> io::Result<()> {
    unsupported()
}

/// Refuses.
pub(crate) fn make_special(_: &Dir, _: &str, _: &Metadata, _: &Dir, _: &str) -> io::Result<()> {
    unsupported()
}

/// Gives an open file the rights of another.
pub(crate) fn copy_attributes(from: &File, to: &File) -> io::Result<()> {
    to.set_permissions(from.metadata()?.permissions())
}

/// Leaves them as they are.
pub(crate) fn copy_named_attributes(_: &Metadata, _: &Dir, _: &str) {}

/// The standard library does not know.
pub(crate) fn status_change(metadata: &Metadata) -> Option<SystemTime> {
    metadata.modified().ok().map(cap_std::time::SystemTime::into_std)
}

/// Reads at most `most` bytes at `offset` behind those that `into` has. None is the end of the file. A guest has one
/// thread, so nobody else moves the file's position.
pub(crate) fn read_at(mut file: &File, into: &mut Vec<u8>, most: usize, offset: u64) -> io::Result<usize> {
    file.seek(SeekFrom::Start(offset))?;
    file.take(most as u64).read_to_end(into)
}

/// Writes at `offset`; says how much of it.
pub(crate) fn write_at(mut file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    file.seek(SeekFrom::Start(offset))?;
    file.write(bytes)
}

/// Writes at the end; says how much of it.
pub(crate) fn append(mut file: &File, bytes: &[u8]) -> io::Result<usize> {
    file.seek(SeekFrom::End(0))?;
    file.write(bytes)
}

/// How a program says it will use a file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Advice {
    Normal,
    Sequential,
    Random,
    WillNeed,
    DontNeed,
    NoReuse,
}

/// Nobody wants to know.
pub(crate) fn advise(_: &File, _: u64, _: u64, _: Advice) -> io::Result<()> {
    Ok(())
}
