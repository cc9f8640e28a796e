//! Copying a tree with all that makes it what it is: owners, modes, times, xattrs, hard links, devices. Data is shared
//! with the original where the filesystem can (`FICLONE`, ioctl_ficlonerange(2)).

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{self as rfs, AtFlags, FileType, Mode, OFlags, Stat, Timestamps};
use rustix::io::Errno;

use super::{DirAt, own_ids};

struct Copier {
    from: DirAt,
    to: DirAt,
    /// Where a file with several names was copied to first.
    linked: HashMap<(u64, u64), Vec<u8>>,
    own_ids: (u32, u32),
    /// False once the filesystem has refused.
    reflink: bool,
}

/// Makes the empty directory `to` a copy of `from`.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (DirAt::open(from)?, DirAt::open(to)?);
    let mut copier = Copier { from, to, linked: HashMap::new(), own_ids: own_ids(), reflink: true };
    let mut left = vec![Vec::new()];
    let mut dirs = Vec::new();
    while let Some(path) = left.pop() {
        let (from, to) = (copier.from.at(&path)?, copier.to.at(&path)?);
        for name in from.names()? {
            let stat = rfs::statat(&from.0, &name[..], AtFlags::SYMLINK_NOFOLLOW)?;
            let child = if path.is_empty() { name.clone() } else { [&path[..], b"/", &name].concat() };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                to.mkdir(&name, 0o700)?;
                left.push(child);
            } else {
                copier.leaf(&from, &to, &name, child, &stat)?;
            }
        }
        dirs.push((path, rfs::fstat(&from.0)?));
    }
    // What is written into a directory changes its time; children come after their parents in the list.
    for (path, stat) in dirs.iter().rev() {
        let (from, to) = (copier.from.at(path)?, copier.to.at(path)?);
        copier.metadata(&from.readable()?.into(), &to.readable()?.into(), stat)?;
    }
    Ok(())
}

impl Copier {
    fn leaf(&mut self, from: &DirAt, to: &DirAt, name: &[u8], path: Vec<u8>, stat: &Stat) -> io::Result<()> {
        if stat.st_nlink > 1 {
            if let Some(first) = self.linked.get(&(stat.st_dev, stat.st_ino)) {
                let (parent, first_name) = match first.iter().rposition(|b| *b == b'/') {
                    Some(slash) => (&first[..slash], &first[slash + 1..]),
                    None => (&b""[..], &first[..]),
                };
                return to.link(&self.to.at(parent)?, first_name, name);
            }
            self.linked.insert((stat.st_dev, stat.st_ino), path);
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => return self.file(from, to, name, stat),
            FileType::Symlink => rfs::symlinkat(rfs::readlinkat(&from.0, name, Vec::new())?, &to.0, name)?,
            kind => match rfs::mknodat(&to.0, name, kind, Mode::from_raw_mode(stat.st_mode & 0o7777), stat.st_rdev) {
                // Sockets mean nothing without their process, and devices take root.
                Err(Errno::PERM) => return Ok(()),
                other => {
                    other?;
                    rfs::chmodat(&to.0, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
                }
            },
        }
        if (stat.st_uid, stat.st_gid) != self.own_ids {
            to.own(name, stat.st_uid, stat.st_gid)?;
        }
        Ok(rfs::utimensat(&to.0, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn file(&mut self, from: &DirAt, to: &DirAt, name: &[u8], stat: &Stat) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut source: File = rfs::openat(&from.0, name, flags, Mode::empty())?.into();
        let mut copy = to.create(name, 0o600)?;
        let cloned = self.reflink && stat.st_size > 0 && rfs::ioctl_ficlone(&copy, &source).is_ok();
        if !cloned && stat.st_size > 0 {
            self.reflink = false;
            io::copy(&mut source, &mut copy)?;
        }
        self.metadata(&source, &copy, stat)
    }

    /// Gives an open file or directory the owner, xattrs, mode and times of its original.
    fn metadata(&self, from: &File, to: &File, stat: &Stat) -> io::Result<()> {
        if (stat.st_uid, stat.st_gid) != self.own_ids {
            super::own_file(to, stat.st_uid, stat.st_gid)?;
        }
        for (name, value) in super::xattrs(from)? {
            super::set_xattr(to, &name, &value)?;
        }
        super::chmod_file(to, stat.st_mode)?;
        Ok(rfs::futimens(to, &times(stat))?)
    }
}

fn times(stat: &Stat) -> Timestamps {
    let time = |tv_sec, nanoseconds| rfs::Timespec { tv_sec, tv_nsec: nanoseconds as _ };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}
