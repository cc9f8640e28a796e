//! The container's root filesystem: mounted where only the container sees it, entered for good, and a safe way to
//! name things in it.
//!
//! An image decides what its paths are, so no path of it is trusted: each is resolved by openat2(2) with the container's
//! root as root and no magic links, and what was found is then used by its descriptor, never by its name again. (Names
//! used twice were runc's CVE-2021-30465 and CVE-2025-52881.)

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, readlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, mount_change,
    move_mount, open_tree, unmount,
};
use wharf_images::snapshot::Rootfs;

use crate::config::clean_path;
use crate::error::{Class, Error, Result};

/// How many links that lead to nowhere are followed one after the other; as many as the kernel follows
/// (path_resolution(7)).
const LINKS: usize = 40;

/// The longest string that fsconfig(2) takes, its zero byte included.
const FSCONFIG_STRING: usize = 256;

/// Makes this mount namespace ours alone: nothing mounted here is seen outside, nor the reverse.
pub(super) fn make_private() -> Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|e| Error::io("make private the mounts below", "/", e))
}

/// Mounts the root filesystem over its own directory (so that no directory need be made for it) and opens it there.
///
/// # Errors
/// The kernel's, naming the directory.
pub(super) fn mount_root(rootfs: &Rootfs, in_user_namespace: bool) -> Result<OwnedFd> {
    let (tree, carrier) = match rootfs {
        Rootfs::Overlay { lower, upper, .. } if lower.is_empty() => (clone_tree(upper)?, upper),
        Rootfs::Overlay { lower, upper, work } => (overlay(lower, upper, work, in_user_namespace)?, upper),
        Rootfs::Dir(path) => (Some(clone_tree(path)?.ok_or_else(|| missing(path))?), path),
    };
    let failed = |e| Error::io("mount the root filesystem", carrier, e);
    if let Some(tree) = tree {
        move_mount(&tree, "", CWD, carrier, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(failed)?;
        return Ok(tree);
    }
    openat(CWD, carrier, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)
}

fn missing(path: &Path) -> Error {
    Error::io("open the root filesystem", path, Errno::NOENT)
}

fn clone_tree(path: &Path) -> Result<Option<OwnedFd>> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    match open_tree(CWD, path, flags) {
        Ok(tree) => Ok(Some(tree)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(Error::io("open the root filesystem", path, e)),
    }
}

/// A detached overlay; `None` when this kernel only knows mount(2), which has then attached it over `upper`.
fn overlay(lower: &[PathBuf], upper: &Path, work: &Path, in_user_namespace: bool) -> Result<Option<OwnedFd>> {
    let short = Short::default();
    let failed = |e| Error::io("mount an overlay with the writable layer", upper, e);
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed)?;
    fsconfig_set_string(&fs, "source", "overlay").map_err(failed)?;
    for layer in lower {
        match fsconfig_set_string(&fs, "lowerdir+", short.name(layer, FSCONFIG_STRING)?) {
            Ok(()) => {}
            // Before Linux 6.8 layers could not be given one by one.
            Err(Errno::INVAL) => return overlay_by_mount(lower, upper, work, in_user_namespace).map(|()| None),
            Err(e) => return Err(Error::io("use the layer", layer, e)),
        }
    }
    let finish = || {
        fsconfig_set_string(&fs, "upperdir", short.name(upper, FSCONFIG_STRING)?).map_err(failed)?;
        fsconfig_set_string(&fs, "workdir", short.name(work, FSCONFIG_STRING)?).map_err(failed)?;
        if in_user_namespace {
            fsconfig_set_flag(&fs, "userxattr").map_err(failed)?;
        }
        // Or a fresh upper directory is given a number that nobody asks for. A kernel that does not know this gives none.
        let _ = fsconfig_set_string(&fs, "uuid", "off");
        fsconfig_create(&fs).map_err(failed)?;
        fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map_err(failed)
    };
    finish().map(Some)
}

/// The old way: all options in one string of at most a page, where colons and commas mean something.
fn overlay_by_mount(lower: &[PathBuf], upper: &Path, work: &Path, in_user_namespace: bool) -> Result<()> {
    // Descriptors' names are short and have no colons.
    let short = Short::default();
    let mut options = b"lowerdir=".to_vec();
    for (n, layer) in lower.iter().enumerate() {
        if n > 0 {
            options.push(b':');
        }
        options.extend_from_slice(short.name(layer, 0)?.as_bytes());
    }
    for (key, path) in [("upperdir", upper), ("workdir", work)] {
        options.extend_from_slice(format!(",{key}=").as_bytes());
        options.extend_from_slice(short.name(path, 0)?.as_bytes());
    }
    if in_user_namespace {
        options.extend_from_slice(b",userxattr");
    }
    let options = std::ffi::CString::new(options).map_err(|_| missing(upper))?;
    mount("overlay", upper, "overlay", MountFlags::empty(), options.as_c_str())
        .map_err(|e| Error::io("mount an overlay with the writable layer", upper, e))
}

/// Short names for directories: a long path becomes a descriptor's entry in /proc, which lives as long as this.
#[derive(Default)]
struct Short(RefCell<Vec<OwnedFd>>);

impl Short {
    fn name(&self, path: &Path, limit: usize) -> Result<OsString> {
        if path.as_os_str().len() < limit {
            return Ok(path.into());
        }
        let fd = openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| Error::io("open the layer", path, e))?;
        let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
        self.0.borrow_mut().push(fd);
        Ok(name.into())
    }
}

/// The container's root, once this process stands in it, and what is found below it.
#[derive(Debug)]
pub(super) struct Root(OwnedFd);

impl Root {
    /// Makes the mounted root this process's root, and takes the host's tree away.
    ///
    /// # Errors
    /// The kernel's.
    pub fn enter(tree: OwnedFd) -> Result<Root> {
        // pivot_root(2), "pivot_root(".", ".")": the old root lands on top of the new one, and is unmounted from there.
        rustix::process::fchdir(&tree)
            .and_then(|()| rustix::process::pivot_root(".", "."))
            .and_then(|()| unmount(".", UnmountFlags::DETACH))
            .and_then(|()| rustix::process::chdir("/"))
            .map_err(|e| Error::os("enter the container's root", e))?;
        Ok(Root(tree))
    }

    /// The root that this tree has, for a process that stays outside of it.
    pub fn of(tree: OwnedFd) -> Root {
        Root(tree)
    }

    /// A descriptor of it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn tree(&self) -> std::io::Result<OwnedFd> {
        self.0.try_clone()
    }

    /// The root of the container whose mount namespace this process has joined.
    ///
    /// # Errors
    /// The kernel's.
    pub fn here() -> Result<Root> {
        openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map(Root)
            .map_err(|e| Error::io("open", "/", e))
    }

    /// Opens what is at `path` in the container, following its links within the container.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(&self, path: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.open_with(path.as_ref(), flags, ResolveFlags::empty())
    }

    /// The same, following no links at all.
    ///
    /// # Errors
    /// The kernel's; `ELOOP` for a link.
    pub fn open_plain(&self, path: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.open_with(path.as_ref(), flags, ResolveFlags::NO_SYMLINKS)
    }

    fn open_with(&self, path: &Path, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
        let resolve = resolve | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mut tries = 0;
        loop {
            // The kernel says EAGAIN when a rename elsewhere makes it unsure of having stayed within.
            match openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) if tries < 128 => tries += 1,
                other => return other,
            }
        }
    }

    /// The directory at `path`, made with its parents where they are missing. Where a link leads to nowhere in the container
    /// that place is made.
    ///
    /// # Errors
    /// The kernel's, naming the path; `InvalidInput` for one that is not plain.
    pub fn make_dir(&self, path: &Path, mode: u32) -> Result<OwnedFd> {
        self.make_dir_by(path, mode, LINKS)
    }

    fn make_dir_by(&self, path: &Path, mode: u32, links: usize) -> Result<OwnedFd> {
        let failed = |e| Error::io("make a directory in the container", path, e);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.open(path, flags) {
            Err(Errno::NOENT) => {}
            other => return other.map_err(failed),
        }
        let mut at = PathBuf::from("/");
        let mut dir = self.open("/", flags).map_err(failed)?;
        for name in plain(path)? {
            let parent = at.clone();
            at.push(name);
            dir = match self.open(&at, flags) {
                // One step below a descriptor: nothing to follow.
                Err(Errno::NOENT) => match mkdirat(&dir, name, Mode::from_raw_mode(mode)) {
                    Ok(()) => openat(&dir, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()),
                    Err(Errno::EXIST) if links > 0 => {
                        let link = readlinkat(&dir, name, Vec::new()).map_err(failed)?;
                        let there = parent.join(OsStr::from_bytes(link.as_bytes()));
                        let there = there.to_str().and_then(clean_path).ok_or_else(|| failed(Errno::EXIST))?;
                        Ok(self.make_dir_by(Path::new(&there), mode, links - 1)?)
                    }
                    Err(e) => Err(e),
                },
                other => other,
            }
            .map_err(failed)?;
        }
        Ok(dir)
    }

    /// What is at `path`, or an empty file made there, with its parent directories.
    ///
    /// # Errors
    /// As [`Root::make_dir`].
    pub fn make_file(&self, path: &Path) -> Result<OwnedFd> {
        let failed = |e| Error::io("make a file in the container", path, e);
        match self.open(path, OFlags::PATH) {
            Err(Errno::NOENT) => {}
            other => return other.map_err(failed),
        }
        let names = plain(path)?;
        let Some((name, parents)) = names.split_last() else { return Err(failed(Errno::ISDIR)) };
        let parent = self.make_dir(&parents.iter().collect::<PathBuf>(), 0o755)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        openat(&parent, *name, flags, Mode::from_raw_mode(0o644)).map_err(failed)?;
        openat(&parent, *name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).map_err(failed)
    }

    /// Makes everything mounted at the root itself read-only; what is mounted below stays as it is.
    ///
    /// # Errors
    /// The kernel's.
    pub fn make_read_only(&self) -> Result<()> {
        super::mounts::set_attributes(self.0.as_fd(), false, super::mounts::READ_ONLY, 0)
            .map_err(|e| Error::io("make read-only", "/", e))
    }
}

/// The names of a path with nothing odd about them.
fn plain(path: &Path) -> Result<Vec<&OsStr>> {
    path.components()
        .filter_map(|component| match component {
            Component::RootDir | Component::CurDir => None,
            Component::Normal(name) => Some(Ok(name)),
            Component::ParentDir | Component::Prefix(_) => Some(Err(Error::new(
                Class::InvalidInput,
                format!("{}: a path in the container must not have `..` in it", path.display()),
            ))),
        })
        .collect()
}

/// True when both descriptors are of the same file.
pub(super) fn same_file(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> bool {
    matches!((fstat(a), fstat(b)), (Ok(a), Ok(b)) if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}
