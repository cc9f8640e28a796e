//! The counterpart of `os/linux` for every other system: the same names on `cap_std`, whose resolution never leaves the
//! directory it was given. What these systems do not have or the standard library does not reach portably (owners,
//! mode bits, device nodes, overlayfs's marks, xattrs) is left out; only the copy driver is used here.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions};

use crate::layer::entry::{Found, Mtime, Node, Stat, StatKind};
use crate::symlink;

/// A directory; names below are resolved against it.
#[derive(Debug)]
pub(crate) struct DirAt(Dir);

/// A name as text: these systems' names are not bytes.
fn text(name: &[u8]) -> io::Result<&str> {
    std::str::from_utf8(name).map_err(|e| io::Error::new(io::ErrorKind::InvalidFilename, e))
}

impl DirAt {
    /// The mount that it is in: nothing is mounted in a tree here.
    pub(crate) fn mount(&self) -> io::Result<u64> {
        Ok(0)
    }

    /// The directory that `dir` holds.
    pub(crate) fn of(dir: &Dir) -> io::Result<Self> {
        Ok(DirAt(dir.try_clone()?))
    }

    /// The directory `path`. Symlinks on the way are followed if they stay inside.
    pub(crate) fn within(&self, path: &[u8]) -> io::Result<Self> {
        Ok(DirAt(self.0.open_dir(text(path)?)?))
    }

    /// The directory `name`, which must not be a symlink.
    pub(crate) fn child(&self, name: &[u8]) -> io::Result<Self> {
        match self.found(name)? {
            Some(Found::Dir) => self.within(name),
            Some(_) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// What `name` is.
    pub(crate) fn found(&self, name: &[u8]) -> io::Result<Option<Found>> {
        match self.0.symlink_metadata(text(name)?) {
            Ok(metadata) if metadata.is_dir() => Ok(Some(Found::Dir)),
            Ok(metadata) if metadata.is_symlink() => Ok(Some(Found::Symlink)),
            Ok(_) => Ok(Some(Found::Other)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The directory `path` (empty: this one).
    pub(crate) fn at(&self, path: &[u8]) -> io::Result<Self> {
        if path.is_empty() { self.within(b".") } else { self.within(path) }
    }

    /// Opens the directory at `path` by its ambient name.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(DirAt(Dir::open_ambient_dir(path, ambient_authority())?))
    }

    /// Overlayfs's mark is never here.
    pub(crate) fn is_opaque(&self) -> io::Result<bool> {
        Ok(false)
    }

    /// What is known of `name`: owners and modes are made up, as archives ask for some.
    pub(crate) fn stat(&self, name: &[u8]) -> io::Result<Stat> {
        let metadata = self.0.symlink_metadata(text(name)?)?;
        let (kind, mode) = match metadata.file_type() {
            kind if kind.is_dir() => (StatKind::Dir, 0o755),
            kind if kind.is_symlink() => (StatKind::Symlink, 0o777),
            _ => (StatKind::File, 0o644),
        };
        let since = metadata.modified()?.into_std().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mtime = Mtime { seconds: since.as_secs() as i64, nanoseconds: since.subsec_nanos() };
        let size = if kind == StatKind::File { metadata.len() } else { 0 };
        Ok(Stat { kind, mode, uid: 0, gid: 0, size, mtime, linked: None })
    }

    /// Opens the file `name` for reading.
    pub(crate) fn open_file(&self, name: &[u8]) -> io::Result<File> {
        Ok(self.0.open(text(name)?)?.into_std())
    }

    /// Where the symlink `name` points to.
    pub(crate) fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        Ok(self.0.read_link_contents(text(name)?)?.into_os_string().into_encoded_bytes())
    }

    /// Xattrs are not kept.
    pub(crate) fn xattrs(&self) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        Ok(Vec::new())
    }

    /// The names in this directory.
    pub(crate) fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        self.0.entries()?.map(|entry| Ok(entry?.file_name().into_encoded_bytes())).collect()
    }

    /// Makes the file `name`, which must not exist.
    pub(crate) fn create(&self, name: &[u8], _mode: u32) -> io::Result<File> {
        Ok(self.0.open_with(text(name)?, OpenOptions::new().write(true).create_new(true))?.into_std())
    }

    /// Makes the directory `name`, which must not exist.
    pub(crate) fn mkdir(&self, name: &[u8], _mode: u32) -> io::Result<()> {
        self.0.create_dir(text(name)?)
    }

    /// Makes the symlink `name`.
    pub(crate) fn symlink(&self, target: &[u8], name: &[u8]) -> io::Result<()> {
        symlink::make_in(&self.0, text(target)?, text(name)?)
    }

    /// Makes `name` another name of `from_name` in `from`.
    pub(crate) fn link(&self, from: &DirAt, from_name: &[u8], name: &[u8]) -> io::Result<()> {
        from.0.hard_link(text(from_name)?, &self.0, text(name)?)
    }

    /// Devices and fifos are nothing a portable tree holds: the caller leaves out what may not be made.
    pub(crate) fn node(&self, _name: &[u8], _node: Node, _mode: u32) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    /// Overlayfs's mark.
    pub(crate) fn whiteout(&self, _name: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Overlayfs's mark.
    pub(crate) fn set_opaque(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Removes `name` and all below it, following nothing. Missing is no error.
    pub(crate) fn remove_tree(&self, name: &[u8]) -> io::Result<()> {
        match self.found(name)? {
            Some(Found::Dir) => self.0.remove_dir_all(text(name)?),
            Some(_) => self.0.remove_file(text(name)?),
            None => Ok(()),
        }
    }

    /// Mode bits of directories are left as they are.
    pub(crate) fn chmod_dir(&self, _name: &[u8], _mode: u32) -> io::Result<()> {
        Ok(())
    }

    /// Owners are left as they are.
    pub(crate) fn own(&self, _name: &[u8], _uid: u32, _gid: u32) -> io::Result<()> {
        Ok(())
    }

    /// Times of what is not an open file are left as they are.
    pub(crate) fn set_mtime(&self, _name: &[u8], _mtime: Mtime) -> io::Result<()> {
        Ok(())
    }

    /// Xattrs are not taken.
    pub(crate) fn set_xattr(&self, _name: &[u8], _value: &[u8]) -> io::Result<bool> {
        Ok(false)
    }

    /// Owners mean nothing here.
    pub(crate) fn gives_its_group(&self) -> io::Result<bool> {
        Ok(false)
    }
}

/// Owners are left as they are.
pub(crate) fn own_file(_file: &File, _uid: u32, _gid: u32) -> io::Result<()> {
    Ok(())
}

/// Mode bits are left as they are.
pub(crate) fn chmod_file(_file: &File, _mode: u32) -> io::Result<()> {
    Ok(())
}

/// Sets the time of the last change of an open file. Times before 1970 become 1970.
pub(crate) fn set_file_mtime(file: &File, mtime: Mtime) -> io::Result<()> {
    let since = Duration::new(u64::try_from(mtime.seconds).unwrap_or(0), mtime.nanoseconds);
    file.set_modified(UNIX_EPOCH + since)
}

/// Xattrs are not taken.
pub(crate) fn set_xattr(_file: &File, _name: &[u8], _value: &[u8]) -> io::Result<bool> {
    Ok(false)
}

/// Xattrs are not kept.
pub(crate) fn xattrs(_file: &File) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    Ok(Vec::new())
}

/// Owners mean nothing here.
pub(crate) fn own_ids() -> (u32, u32) {
    (0, 0)
}

/// Mode bits mean nothing here.
pub(crate) fn umask() -> u32 {
    0
}

/// There is no portable way to bring a whole tree to the disk.
pub(crate) fn sync_tree(_dir: &Path) -> io::Result<()> {
    Ok(())
}

/// There is no portable way to tell a restart: layers are trusted as they are.
pub(crate) fn boot_id() -> &'static str {
    ""
}

/// What a walk tells of one file or directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meta {
    /// Bytes on disk, as far as this system tells.
    pub(crate) bytes: u64,
    /// Bytes of content; a directory has none.
    pub(crate) content: u64,
}

/// Tells `visit` of `root` and of everything below it, following nothing.
pub(crate) fn walk(root: &Path, visit: &mut dyn FnMut(&Meta)) -> io::Result<()> {
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path)?;
        let content = if metadata.is_dir() { 0 } else { metadata.len() };
        visit(&Meta { bytes: content, content });
        if metadata.is_dir() {
            for entry in fs::read_dir(&path)? {
                left.push(entry?.path());
            }
        }
    }
    Ok(())
}

/// Removes the tree at `path`. Missing is no error.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Makes a directory.
pub(crate) fn make_dir(path: &Path, _mode: u32) -> io::Result<()> {
    fs::create_dir(path)
}

/// Makes a directory.
pub(crate) fn make_dir_like(path: &Path, _like: &Path) -> io::Result<()> {
    fs::create_dir(path)
}

/// The directory stays as it is.
pub(crate) fn renew_dir_like(_path: &Path, _like: &Path) -> io::Result<()> {
    Ok(())
}

/// Not every system keeps the time that would tell.
pub(crate) fn is_unchanged_since(_path: &Path, _file: &Path) -> io::Result<bool> {
    Ok(false)
}

/// The directory keeps the rights it inherits from the user's own.
pub(crate) fn make_private(_dir: &Path) -> io::Result<()> {
    Ok(())
}

/// Where files go on the disk cannot be said in a portable way.
pub(crate) fn spread(_dir: &Path) {}

/// Overlayfs is Linux's.
pub(crate) fn overlay_works(_dir: &Path) -> bool {
    false
}

/// Makes the empty directory `to` a copy of `from`. `fs::copy` shares data where the system can (APFS, ReFS).
pub(crate) fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    let to = Dir::open_ambient_dir(to, ambient_authority())?;
    let from = Dir::open_ambient_dir(from, ambient_authority())?;
    let mut left = vec![(from, to)];
    while let Some((from, to)) = left.pop() {
        for entry in from.entries()? {
            let entry = entry?;
            let (name, kind) = (entry.file_name(), entry.file_type()?);
            if kind.is_dir() {
                to.create_dir(&name)?;
                left.push((from.open_dir(&name)?, to.open_dir(&name)?));
            } else if kind.is_symlink() {
                let target = from.read_link_contents(&name)?;
                symlink::make_in(&to, target, name)?;
            } else {
                from.copy(&name, &to, &name)?;
            }
        }
    }
    Ok(())
}

/// Fills `bytes` from the system's source of randomness.
pub(crate) fn random(bytes: &mut [u8]) -> io::Result<()> {
    getrandom::fill(bytes).map_err(io::Error::other)
}
