//! What unpacking and snapshots need of Linux, on directory descriptors, so that no name is ever resolved from `/`.
//!
//! Paths of images go through `openat2(2)` with `RESOLVE_IN_ROOT`: symlinks on the way are followed as a process
//! chrooted into the tree would follow them, and never out of it. Final components are always single names used with
//! calls that do not follow (`O_EXCL`, `O_NOFOLLOW`, `AT_SYMLINK_NOFOLLOW`, `mkdirat`, `linkat` without flags).

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;

use cap_std::fs::Dir;
use rustix::fs::{self as rfs, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::layer::entry::{Found, Mtime, Node, Stat, StatKind};

mod copy;
mod probe;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use copy::copy_tree;
pub(crate) use probe::overlay_works;

/// The xattrs that mean something to overlayfs: those that need privilege, and those a user namespace may set.
/// A mount in a user namespace reads the second kind (`userxattr`, kernel 5.11).
const OPAQUE: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];

/// Branches too deep to descend into, moved up beside the tree that is being removed: so neither the stack nor the
/// descriptor table ends before the tree does.
struct Pruned<'a> {
    top: &'a DirAt,
    names: Vec<Vec<u8>>,
    made: u64,
}

impl Pruned<'_> {
    /// How deep is too deep: each level holds a descriptor.
    const DEEP: usize = 64;

    fn prune(&mut self, from: &DirAt, name: &[u8]) -> io::Result<()> {
        // Renaming a directory changes its "..", which takes the right to write to it.
        from.chmod_dir(name, 0o700)?;
        loop {
            let parked = format!(".wharf-pruned-{}-{}", std::process::id(), self.made).into_bytes();
            self.made += 1;
            match rfs::renameat_with(&from.0, name, &self.top.0, &parked[..], rfs::RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
                Ok(()) => {
                    self.names.push(parked);
                    return Ok(());
                }
            }
        }
    }
}

/// A directory; names below are resolved against it.
#[derive(Debug)]
pub(crate) struct DirAt(OwnedFd);

impl DirAt {
    /// The directory that `dir` holds.
    pub(crate) fn of(dir: &Dir) -> io::Result<Self> {
        Ok(DirAt(open_path(dir, ".")?))
    }

    /// Opens the directory at `path` by its ambient name; the last component must not be a symlink.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(DirAt(open_path(rfs::CWD, path)?))
    }

    /// The directory `path`, as a process whose root this is would find it.
    pub(crate) fn within(&self, path: &[u8]) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            match rfs::openat2(&self.0, path, flags, Mode::empty(), resolve) {
                Ok(fd) => return Ok(DirAt(fd)),
                // A rename somewhere on this machine raced with the walk: openat2(2) asks to try again.
                Err(Errno::AGAIN | Errno::INTR) => {}
                // Symlinks in a ring lead to no directory.
                Err(Errno::LOOP) => return Err(io::ErrorKind::NotADirectory.into()),
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// The directory `path` (empty: this one), with no symlink anywhere in it. Opening each directory of a walk so keeps
    /// one descriptor however deep the tree is.
    pub(crate) fn at(&self, path: &[u8]) -> io::Result<Self> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match rfs::openat2(&self.0, path, flags, Mode::empty(), resolve) {
            Err(Errno::LOOP) => Err(io::ErrorKind::NotADirectory.into()),
            other => Ok(DirAt(other?)),
        }
    }

    /// The directory `name`, which must not be a symlink.
    pub(crate) fn child(&self, name: &[u8]) -> io::Result<Self> {
        Ok(DirAt(open_path(&self.0, name)?))
    }

    /// The mount that it is in.
    pub(crate) fn mount(&self) -> io::Result<u64> {
        Ok(rfs::statx(&self.0, "", AtFlags::EMPTY_PATH, rfs::StatxFlags::MNT_ID)?.stx_mnt_id)
    }

    /// What `name` is.
    pub(crate) fn found(&self, name: &[u8]) -> io::Result<Option<Found>> {
        let stat = match rfs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Found::Dir,
            FileType::Symlink => Found::Symlink,
            FileType::CharacterDevice if stat.st_rdev == 0 => Found::Whiteout,
            _ => Found::Other,
        }))
    }

    /// All that is known of `name`, or with `.` of this directory.
    pub(crate) fn stat(&self, name: &[u8]) -> io::Result<Stat> {
        let stat = rfs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let (major, minor) = (rfs::major(stat.st_rdev), rfs::minor(stat.st_rdev));
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => StatKind::Dir,
            FileType::Symlink => StatKind::Symlink,
            FileType::CharacterDevice if stat.st_rdev == 0 => StatKind::Whiteout,
            FileType::CharacterDevice => StatKind::Node(Node::Char(major, minor)),
            FileType::BlockDevice => StatKind::Node(Node::Block(major, minor)),
            FileType::Fifo => StatKind::Node(Node::Fifo),
            FileType::Socket => StatKind::Socket,
            _ => StatKind::File,
        };
        Ok(Stat {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: if kind == StatKind::File { stat.st_size as u64 } else { 0 },
            mtime: Mtime { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 },
            linked: (stat.st_nlink > 1 && kind != StatKind::Dir).then_some((stat.st_dev, stat.st_ino)),
            kind,
        })
    }

    /// Opens the regular file `name` for reading. What was put there instead meanwhile is not even opened: a fifo would
    /// make us wait, and a device may do anything.
    pub(crate) fn open_file(&self, name: &[u8]) -> io::Result<File> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = rfs::openat(&self.0, name, flags, Mode::empty())?;
        if FileType::from_raw_mode(rfs::fstat(&found)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no longer a file"));
        }
        let path = format!("/proc/self/fd/{}", found.as_raw_fd());
        Ok(rfs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?.into())
    }

    /// Where the symlink `name` points to.
    pub(crate) fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        Ok(rfs::readlinkat(&self.0, name, Vec::new())?.into_bytes())
    }

    /// The xattrs that belong to this directory wherever it is.
    pub(crate) fn xattrs(&self) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        xattrs(&self.readable()?.into())
    }

    /// The names in this directory.
    pub(crate) fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        for entry in rfs::Dir::new(self.readable()?)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        Ok(names)
    }

    /// Makes the file `name`, which must not exist.
    pub(crate) fn create(&self, name: &[u8], mode: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rfs::openat(&self.0, name, flags, Mode::from_raw_mode(mode & 0o777))?.into())
    }

    /// Makes the directory `name`, which must not exist.
    pub(crate) fn mkdir(&self, name: &[u8], mode: u32) -> io::Result<()> {
        Ok(rfs::mkdirat(&self.0, name, Mode::from_raw_mode(mode & 0o777))?)
    }

    /// Makes the symlink `name`.
    pub(crate) fn symlink(&self, target: &[u8], name: &[u8]) -> io::Result<()> {
        Ok(rfs::symlinkat(target, &self.0, name)?)
    }

    /// Makes `name` another name of `from_name` in `from`; a symlink is linked itself, not what it points to.
    pub(crate) fn link(&self, from: &DirAt, from_name: &[u8], name: &[u8]) -> io::Result<()> {
        Ok(rfs::linkat(&from.0, from_name, &self.0, name, AtFlags::empty())?)
    }

    /// Makes the device or fifo `name`.
    pub(crate) fn node(&self, name: &[u8], node: Node, mode: u32) -> io::Result<()> {
        let (kind, device) = match node {
            Node::Fifo => (FileType::Fifo, 0),
            Node::Char(major, minor) => (FileType::CharacterDevice, rfs::makedev(major, minor)),
            Node::Block(major, minor) => (FileType::BlockDevice, rfs::makedev(major, minor)),
        };
        rfs::mknodat(&self.0, name, kind, Mode::from_raw_mode(mode & 0o777), device)?;
        // The umask took bits away. If the name was given to a symlink since, this fails and follows nothing.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let node = rfs::openat(&self.0, name, flags, Mode::empty())?;
        let path = format!("/proc/self/fd/{}", node.as_raw_fd());
        match FileType::from_raw_mode(rfs::fstat(&node)?.st_mode) {
            FileType::Symlink => Err(Errno::LOOP.into()),
            _ => Ok(rfs::chmod(path, Mode::from_raw_mode(mode & 0o7777))?),
        }
    }

    /// Makes `name` hide what the layers below have there: a character device 0/0, which needs no privilege since
    /// kernel 5.8 (<https://docs.kernel.org/filesystems/overlayfs.html#whiteouts-and-opaque-directories>).
    pub(crate) fn whiteout(&self, name: &[u8]) -> io::Result<()> {
        Ok(rfs::mknodat(&self.0, name, FileType::CharacterDevice, Mode::empty(), 0)?)
    }

    /// Makes this directory hide all that the layers below have in it.
    pub(crate) fn set_opaque(&self) -> io::Result<()> {
        let dir = self.readable()?;
        match rfs::fsetxattr(&dir, OPAQUE[0], b"y", XattrFlags::empty()) {
            Err(Errno::PERM) => Ok(rfs::fsetxattr(&dir, OPAQUE[1], b"y", XattrFlags::empty())?),
            other => Ok(other?),
        }
    }

    /// True when this directory hides all that the layers below have in it.
    pub(crate) fn is_opaque(&self) -> io::Result<bool> {
        let dir = self.readable()?;
        let mut value = [0u8; 1];
        Ok(OPAQUE.iter().any(|name| matches!(rfs::fgetxattr(&dir, *name, &mut value[..]), Ok(1)) && value[0] == b'y'))
    }

    /// Removes `name`, which is not a directory.
    pub(crate) fn unlink(&self, name: &[u8]) -> io::Result<()> {
        Ok(rfs::unlinkat(&self.0, name, AtFlags::empty())?)
    }

    /// Removes `name` and all below it, following nothing, whatever its modes and however deep it is.
    pub(crate) fn remove_tree(&self, name: &[u8]) -> io::Result<()> {
        match self.unlink(name) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) => {}
        }
        let mut pruned = Pruned { top: self, names: Vec::new(), made: 0 };
        self.remove_dir(name, 0, &mut pruned)?;
        while let Some(name) = pruned.names.pop() {
            self.remove_dir(&name, 0, &mut pruned)?;
        }
        Ok(())
    }

    /// One level of [`DirAt::remove_tree`].
    fn remove_dir(&self, name: &[u8], depth: usize, pruned: &mut Pruned<'_>) -> io::Result<()> {
        match rfs::unlinkat(&self.0, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        if depth == Pruned::DEEP {
            return pruned.prune(self, name);
        }
        match self.child(name)?.empty(depth, pruned) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                self.chmod_dir(name, 0o700)?;
                self.child(name)?.empty(depth, pruned)?;
            }
            other => other?,
        }
        match rfs::unlinkat(&self.0, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Removes all that is in this directory.
    fn empty(&self, depth: usize, pruned: &mut Pruned<'_>) -> io::Result<()> {
        for child in self.names()? {
            match rfs::unlinkat(&self.0, &child[..], AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR | Errno::PERM) => self.remove_dir(&child, depth + 1, pruned)?,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Sets the mode of the directory `name`.
    pub(crate) fn chmod_dir(&self, name: &[u8], mode: u32) -> io::Result<()> {
        let child = self.child(name)?;
        // fchmod(2) refuses O_PATH descriptors and chmod of "." needs search permission; this is the inode itself.
        let path = format!("/proc/self/fd/{}", child.0.as_raw_fd());
        Ok(rfs::chmod(path, Mode::from_raw_mode(mode & 0o7777))?)
    }

    /// Gives `name` to `uid` and `gid`, not following a symlink.
    pub(crate) fn own(&self, name: &[u8], uid: u32, gid: u32) -> io::Result<()> {
        Ok(rfs::chownat(&self.0, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Sets the time of the last change of `name`, not following a symlink.
    pub(crate) fn set_mtime(&self, name: &[u8], mtime: Mtime) -> io::Result<()> {
        Ok(rfs::utimensat(&self.0, name, &timestamps(mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Sets an xattr of this directory. Says whether the filesystem took it.
    pub(crate) fn set_xattr(&self, name: &[u8], value: &[u8]) -> io::Result<bool> {
        set_xattr(self.readable()?, name, value)
    }

    /// True when files made here get this directory's group instead of ours.
    pub(crate) fn gives_its_group(&self) -> io::Result<bool> {
        Ok(rfs::fstat(&self.0)?.st_mode & 0o2000 != 0)
    }

    /// A descriptor for calls that refuse `O_PATH`.
    fn readable(&self) -> io::Result<OwnedFd> {
        Ok(rfs::openat(&self.0, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
    }
}

fn open_path(at: impl AsFd, path: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    Ok(rfs::openat(at, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

fn timestamps(mtime: Mtime) -> Timestamps {
    let time = rfs::Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Gives an open file to `uid` and `gid`.
pub(crate) fn own_file(file: &File, uid: u32, gid: u32) -> io::Result<()> {
    Ok(rfs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?)
}

/// Sets the mode of an open file.
pub(crate) fn chmod_file(file: &File, mode: u32) -> io::Result<()> {
    Ok(rfs::fchmod(file, Mode::from_raw_mode(mode & 0o7777))?)
}

/// Sets the time of the last change of an open file.
pub(crate) fn set_file_mtime(file: &File, mtime: Mtime) -> io::Result<()> {
    Ok(rfs::futimens(file, &timestamps(mtime))?)
}

/// Sets an xattr of an open file. Says whether it was taken: a filesystem may know none, and some need privilege.
pub(crate) fn set_xattr(file: impl AsFd, name: &[u8], value: &[u8]) -> io::Result<bool> {
    match rfs::fsetxattr(file, name, value, XattrFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// The xattrs of an open file that belong to it wherever it is: file capabilities and the user's own.
pub(crate) fn xattrs(file: &File) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut list = vec![0; 1 << 16];
    let length = match rfs::flistxattr(file, &mut list[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let mut found = Vec::new();
    for name in list[..length].split(|b| *b == 0) {
        if name == b"security.capability" || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay.")) {
            let mut value = vec![0; 1 << 16];
            let length = rfs::fgetxattr(file, name, &mut value[..])?;
            value.truncate(length);
            found.push((name.to_vec(), value));
        }
    }
    Ok(found)
}

/// Our effective user and group: what new files get by themselves.
pub(crate) fn own_ids() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// The mode bits that this process's umask takes from new files.
pub(crate) fn umask() -> u32 {
    // umask(2) can only be read by setting it, which other threads would notice.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0o777)
}

/// Brings everything written below `dir` to the disk.
pub(crate) fn sync_tree(dir: &Path) -> io::Result<()> {
    Ok(rfs::syncfs(File::open(dir)?)?)
}

/// What tells this run of the machine from all others (random(4)). Empty if the kernel does not say.
pub(crate) fn boot_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default())
}

/// What a walk tells of one file or directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meta {
    /// Bytes on disk.
    pub(crate) bytes: u64,
    /// Bytes of content; a directory has none.
    pub(crate) content: u64,
}

/// Tells `visit` of `root` and of everything below it, following nothing. A file with several names is told of once.
pub(crate) fn walk(root: &Path, visit: &mut dyn FnMut(&Meta)) -> io::Result<()> {
    let root = DirAt::open(root)?;
    let mut linked = HashSet::new();
    let mut left = vec![Vec::new()];
    let mut tell = |stat: &rfs::Stat| {
        let several = stat.st_nlink > 1 && FileType::from_raw_mode(stat.st_mode) != FileType::Directory;
        if !several || linked.insert((stat.st_dev, stat.st_ino)) {
            let dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let content = if dir { 0 } else { stat.st_size.unsigned_abs() };
            visit(&Meta { bytes: stat.st_blocks as u64 * 512, content });
        }
    };
    tell(&rfs::fstat(&root.0)?);
    while let Some(path) = left.pop() {
        let dir = match root.at(&path) {
            Ok(dir) => dir,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        for name in dir.names()? {
            let Ok(stat) = rfs::statat(&dir.0, &name[..], AtFlags::SYMLINK_NOFOLLOW) else { continue };
            tell(&stat);
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                left.push(if path.is_empty() { name } else { [&path[..], b"/", &name].concat() });
            }
        }
    }
    Ok(())
}

/// Removes the tree at `path`, whatever its modes and however deep it is. Missing is no error.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    DirAt::open(parent)?.remove_tree(name.as_bytes())
}

/// Makes a directory with exactly this mode.
pub(crate) fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::create_dir(path)?;
    Ok(rfs::chmod(path, Mode::from_raw_mode(mode))?)
}

/// Makes a directory with the mode and owner of `like`.
pub(crate) fn make_dir_like(path: &Path, like: &Path) -> io::Result<()> {
    std::fs::create_dir(path)?;
    make_alike(path, like)
}

/// Makes a directory that is there as if it had been made now with the mode and owner of `like`.
pub(crate) fn renew_dir_like(path: &Path, like: &Path) -> io::Result<()> {
    make_alike(path, like)?;
    let now = rfs::Timespec { tv_sec: 0, tv_nsec: rfs::UTIME_NOW };
    let times = rfs::Timestamps { last_access: now, last_modification: now };
    Ok(rfs::utimensat(rfs::CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn make_alike(path: &Path, like: &Path) -> io::Result<()> {
    let (like, now) = (std::fs::symlink_metadata(like)?, std::fs::symlink_metadata(path)?);
    if (like.uid(), like.gid()) != (now.uid(), now.gid()) {
        std::os::unix::fs::lchown(path, Some(like.uid()), Some(like.gid()))?;
    }
    if like.mode() != now.mode() {
        rfs::chmod(path, Mode::from_raw_mode(like.mode() & 0o7777))?;
    }
    Ok(())
}

/// True when nothing about `path` was changed after `file` was written: its entries, its mode, its attributes. Nobody can
/// set the time that tells (`st_ctime`, inode(7)).
pub(crate) fn is_unchanged_since(path: &Path, file: &Path) -> io::Result<bool> {
    let (path, file) = (std::fs::symlink_metadata(path)?, std::fs::symlink_metadata(file)?);
    Ok((path.ctime(), path.ctime_nsec()) <= (file.ctime(), file.ctime_nsec()))
}

/// Lets nobody else look into a directory: layers hold set-id programs and other users' secrets.
pub(crate) fn make_private(dir: &Path) -> io::Result<()> {
    Ok(rfs::chmod(dir, Mode::from_raw_mode(0o700))?)
}

/// Says of a directory that those in it have nothing to do with each other (`FS_TOPDIR_FL`, ioctl_iflags(2)). Ext4 then
/// gives each of them a place of its own instead of one beside its parent: trees that are written at once do not wait for
/// each other, and nothing is put where much was just removed, by us or by others. Without a journal ext4 looks at each
/// inode that was freed in the last minutes before it dares to use another, for each new file again (`recently_deleted`
/// in fs/ext4/ialloc.c): that makes a file of 20 us one of 400 us.
pub(crate) fn spread(dir: &Path) {
    // A hint; where there is no such thing nothing is lost.
    let _ = File::open(dir).and_then(|dir| {
        let flags = rfs::ioctl_getflags(&dir)?;
        Ok(rfs::ioctl_setflags(&dir, flags | rfs::IFlags::TOPDIR)?)
    });
}

/// Fills `bytes` from the kernel. Not by the getrandom crate: in a static program it keeps /dev/urandom open, and a forked
/// child that closes what it inherits would be left with a number that means nothing.
pub(crate) fn random(bytes: &mut [u8]) -> io::Result<()> {
    // Up to 256 bytes come whole: getrandom(2).
    rustix::rand::getrandom(bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(())
}
