//! The mounts of an OCI spec, in two steps: every source is made ready as a detached mount while the host's tree can
//! still be named; then, inside the container's root, each is attached to a target found by descriptor. Between the two
//! lies pivot_root, so a target can lead nowhere but into the container.
//!
//! Sources: fsopen(2), open_tree(2), mount_setattr(2), move_mount(2); the OCI runtime spec's "Mounts" for the options.

#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::Mount;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, chmodat, fstat, fstatfs, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::rootfs::Root;
use super::spec::mounts::SUBPATH;
use crate::error::{Class, Error, Result};
use crate::volume;

/// `MOUNT_ATTR_RDONLY`.
pub(super) const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY;
/// `PROC_SUPER_MAGIC`.
pub(super) const PROC: u64 = 0x9fa0;
/// `SYSFS_MAGIC`.
const SYSFS: u64 = 0x6265_6572;
/// `TMPFS_MAGIC`.
pub(super) const TMPFS: u64 = 0x0102_1994;

/// What the namespaces of the container allow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Situation {
    /// In a user namespace of ours.
    pub user_namespace: bool,
    /// In a network namespace that is not ours to show in /sys.
    pub foreign_network: bool,
    /// The group 5 (`tty`), which devpts gives its terminals to, exists in the user namespace.
    pub tty_group: bool,
}

/// Shows the host's `source`, or what is at `subpath` inside of it, at `target`, which is made if it is missing.
///
/// # Errors
/// The kernel's, naming the path.
pub(super) fn show(root: &Root, source: &Path, subpath: Option<&str>, target: &Path, read_only: bool) -> Result<()> {
    let failed = |e| Error::io("mount", source, e);
    let whole = openat(CWD, source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    let part = match subpath {
        // Whoever wrote into it may have made any part of it a symlink.
        Some(subpath) => Root::of(whole).open(subpath, OFlags::PATH).map_err(failed)?,
        None => whole,
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(&part, "", flags).map_err(failed)?;
    if read_only {
        set_attributes(tree.as_fd(), true, READ_ONLY, 0).map_err(failed)?;
    }
    let directory = FileType::from_raw_mode(fstat(&tree).map_err(failed)?.st_mode) == FileType::Directory;
    attach_tree(root, tree.as_fd(), target, directory)
}

/// Mounts a detached tree at `target`, which is made if it is missing.
///
/// # Errors
/// The kernel's, naming the target.
pub(super) fn attach_tree(root: &Root, tree: BorrowedFd<'_>, target: &Path, directory: bool) -> Result<()> {
    let point = if directory { root.make_dir(target, 0o755)? } else { root.make_file(target)? };
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", &point, "", flags).map_err(|e| Error::io("mount at", target, e))
}

/// A mount ready to be attached.
#[derive(Debug)]
pub(super) struct Prepared<'a> {
    target: &'a Path,
    kind: Kind,
    tree: OwnedFd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A file or directory of the host.
    Bind { directory: bool },
    /// A file system of the kernel: its target must be what its name says, and no link.
    Kernel { magic: u64 },
    /// A tmpfs that was given no mode: it has that of the directory it covers, or the kernel's when there is none.
    Tmpfs { read_only: bool },
    /// Anything else.
    Other,
}

/// The options of a mount, sorted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    set: u64,
    clear: u64,
    /// `set` and `clear` are also for what is mounted below.
    all: bool,
    recursive: bool,
    bind: bool,
    propagation: u64,
    /// The propagation is also that of what is mounted below.
    propagate_all: bool,
    /// A directory beneath the source, to be mounted in its place.
    subpath: Option<String>,
    data: Vec<(String, Option<String>)>,
}

impl Options {
    fn parse(mount: &Mount) -> Options {
        let mut options = Options::default();
        for option in mount.options().iter().flatten() {
            let (set, clear) = match option.as_str() {
                "ro" => (libc::MOUNT_ATTR_RDONLY, 0),
                "rro" => {
                    options.all = true;
                    (libc::MOUNT_ATTR_RDONLY, 0)
                }
                "rw" => (0, libc::MOUNT_ATTR_RDONLY),
                "nosuid" => (libc::MOUNT_ATTR_NOSUID, 0),
                "suid" => (0, libc::MOUNT_ATTR_NOSUID),
                "nodev" => (libc::MOUNT_ATTR_NODEV, 0),
                "dev" => (0, libc::MOUNT_ATTR_NODEV),
                "noexec" => (libc::MOUNT_ATTR_NOEXEC, 0),
                "exec" => (0, libc::MOUNT_ATTR_NOEXEC),
                "noatime" => (libc::MOUNT_ATTR_NOATIME, libc::MOUNT_ATTR__ATIME),
                "strictatime" => (libc::MOUNT_ATTR_STRICTATIME, libc::MOUNT_ATTR__ATIME),
                "relatime" => (libc::MOUNT_ATTR_RELATIME, libc::MOUNT_ATTR__ATIME),
                "atime" => (0, libc::MOUNT_ATTR_NOATIME),
                "nodiratime" => (libc::MOUNT_ATTR_NODIRATIME, 0),
                "nosymfollow" => (libc::MOUNT_ATTR_NOSYMFOLLOW, 0),
                "bind" => {
                    options.bind = true;
                    (0, 0)
                }
                "rbind" => {
                    options.bind = true;
                    options.recursive = true;
                    (0, 0)
                }
                "private" | "rprivate" => (0, 0),
                word @ ("slave" | "rslave") => {
                    options.propagation = libc::MS_SLAVE;
                    options.propagate_all = word == "rslave";
                    (0, 0)
                }
                word @ ("shared" | "rshared") => {
                    options.propagation = libc::MS_SHARED;
                    options.propagate_all = word == "rshared";
                    (0, 0)
                }
                "defaults" | "async" | "diratime" | "symfollow" => (0, 0),
                // What is so without being said.
                "nomand" | "norelatime" | "nostrictatime" => (0, 0),
                other if other.starts_with(SUBPATH) => {
                    options.subpath = Some(other[SUBPATH.len()..].to_owned());
                    (0, 0)
                }
                other => {
                    let (key, value) = match other.split_once('=') {
                        Some((key, value)) => (key, Some(value.to_owned())),
                        None => (other, None),
                    };
                    options.data.push((key.to_owned(), value));
                    (0, 0)
                }
            };
            options.set = options.set & !clear | set;
            options.clear = options.clear & !set | clear;
        }
        options
    }
}

/// True for a bind mount that shall go on sharing what is mounted on the host later: it has to be prepared while this mount
/// namespace still shares its mounts with the host's.
pub(super) fn is_shared(mount: &Mount) -> bool {
    Options::parse(mount).propagation != 0
}

/// Makes a mount's source ready. The host's tree must still be there, and the namespaces it shows be the container's.
///
/// # Errors
/// Names the mount; in docker's words when a bind's source does not exist.
pub(super) fn prepare<'a>(mount: &'a Mount, situation: Situation) -> Result<Vec<Prepared<'a>>> {
    let target = mount.destination().as_path();
    let options = Options::parse(mount);
    let kind = mount.typ().as_deref().unwrap_or("none");
    if options.bind || kind == "bind" {
        let Some(source) = mount.source() else {
            return Err(Error::new(Class::InvalidInput, format!("{}: a bind mount needs a source", target.display())));
        };
        return Ok(vec![bind(source, target, &options)?]);
    }
    match kind {
        "cgroup" | "cgroup2" => cgroups(target, &options),
        "sysfs" if situation.user_namespace && situation.foreign_network => {
            // The kernel shows no sysfs of a network namespace that belongs to another user namespace.
            let options = Options { recursive: true, all: true, ..options };
            let prepared = bind(Path::new("/sys"), target, &options)?;
            Ok(vec![Prepared { kind: Kind::Kernel { magic: SYSFS }, ..prepared }])
        }
        _ => {
            let (goes, attributes) = match kind {
                "proc" => (Kind::Kernel { magic: PROC }, options.set),
                "sysfs" => (Kind::Kernel { magic: SYSFS }, options.set),
                "tmpfs" if !options.data.iter().any(|(key, _)| key == "mode") => {
                    let read_only = options.set & READ_ONLY != 0;
                    (Kind::Tmpfs { read_only }, options.set & !READ_ONLY)
                }
                _ => (Kind::Other, options.set),
            };
            let data = options.data.iter().filter(|(key, _)| key != "gid" || situation.tty_group);
            let source = mount.source().as_deref().and_then(Path::to_str);
            let tree = file_system(kind, source, data, attributes)
                .map_err(|e| Error::io("mount a file system for", target.to_owned(), e))?;
            Ok(vec![Prepared { target, kind: goes, tree }])
        }
    }
}

fn bind<'a>(source: &Path, target: &'a Path, options: &Options) -> Result<Prepared<'a>> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if options.recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = match &options.subpath {
        Some(subpath) => beneath(source, subpath)
            .and_then(|dir| open_tree(dir, "", flags | OpenTreeFlags::AT_EMPTY_PATH))
            .map_err(|e| subpath_failed(source, subpath, e))?,
        None => open_tree(CWD, source, flags).map_err(|e| match e {
            Errno::NOENT => Error::new(
                Class::InvalidInput,
                format!(
                    "invalid mount config for type \"bind\": bind source path does not exist: {}",
                    source.display()
                ),
            ),
            e => Error::io("bind", source, e),
        })?,
    };
    change(tree.as_fd(), options.all, options.set, options.clear, 0)
        .and_then(|()| change(tree.as_fd(), options.propagate_all, 0, 0, options.propagation))
        .map_err(|e| Error::io("set the options of the mount", target, e))?;
    let directory = fstat(&tree).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir());
    Ok(Prepared { target, kind: Kind::Bind { directory }, tree })
}

/// What is at `subpath` in the directory `source`, which a container may be writing to at this moment: a link that leads
/// out of it is refused by the kernel while it walks (openat2(2)), so there is no moment in which to swap one in.
fn beneath(source: &Path, subpath: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let dir = openat(CWD, source, flags | OFlags::DIRECTORY, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        match openat2(&dir, subpath, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) if tries < 128 => tries += 1,
            other => return other,
        }
    }
}

fn subpath_failed(source: &Path, subpath: &str, e: Errno) -> Error {
    match e {
        Errno::XDEV => volume::leads_out(subpath),
        Errno::NOENT | Errno::NOTDIR => volume::no_such_subpath(source, subpath),
        e => Error::io("open beneath the volume", subpath, e),
    }
}

/// A new file system, detached. `source` is only what is shown as such.
pub(super) fn file_system<'a>(
    kind: &str,
    source: Option<&str>,
    data: impl IntoIterator<Item = &'a (String, Option<String>)>,
    attributes: u64,
) -> Result<OwnedFd, Errno> {
    let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    if let Some(source) = source {
        fsconfig_set_string(&fs, "source", source)?;
    }
    for (key, value) in data {
        match value {
            Some(value) => fsconfig_set_string(&fs, key.as_str(), value.as_str())?,
            None => fsconfig_set_flag(&fs, key.as_str())?,
        }
    }
    fsconfig_create(&fs)?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::from_bits_retain(attributes as u32))
}

/// The container's own cgroup, as its cgroup namespace shows it: the unified tree, where there is one. A version 1
/// hierarchy is left out: the container stands in few of them, and in others it would see the host's.
fn cgroups<'a>(target: &'a Path, options: &Options) -> Result<Vec<Prepared<'a>>> {
    match file_system("cgroup2", Some("cgroup"), [], options.set) {
        Ok(tree) => Ok(vec![Prepared { target, kind: Kind::Other, tree }]),
        // No such file system, or (rootless) not ours to mount: the container goes without.
        Err(Errno::NODEV | Errno::PERM | Errno::BUSY) => Ok(Vec::new()),
        Err(e) => Err(Error::io("mount a file system for", target.to_owned(), e)),
    }
}

impl Prepared<'_> {
    /// Where it goes.
    pub fn target(&self) -> &Path {
        self.target
    }

    /// The mount's own root.
    pub fn tree(&self) -> BorrowedFd<'_> {
        self.tree.as_fd()
    }

    /// Attaches it, and looks whether it is now what the container sees there.
    ///
    /// # Errors
    /// Names the target; `InvalidInput` when the image has a link where a kernel's file system goes.
    pub fn attach(&self, root: &Root) -> Result<()> {
        self.attached(root).map_err(|e| match self.kind {
            Kind::Bind { directory } => unlike(root, self.target, directory).unwrap_or(e),
            Kind::Tmpfs { .. } | Kind::Other => unlike(root, self.target, true).unwrap_or(e),
            Kind::Kernel { .. } => e,
        })
    }

    fn attached(&self, root: &Root) -> Result<()> {
        let failed = |e| Error::io("mount on", self.target, e);
        let target = match self.kind {
            Kind::Bind { directory: false } => root.make_file(self.target)?,
            Kind::Bind { directory: true } | Kind::Other => root.make_dir(self.target, 0o755)?,
            Kind::Tmpfs { read_only } => {
                let target = match root.open(self.target, OFlags::PATH | OFlags::DIRECTORY) {
                    Err(Errno::NOENT) => root.make_dir(self.target, 0o755)?,
                    covered => {
                        let covered = covered.map_err(failed)?;
                        let mode = Mode::from_raw_mode(fstat(&covered).map_err(failed)?.st_mode);
                        chmodat(&self.tree, ".", mode, AtFlags::empty()).map_err(failed)?;
                        covered
                    }
                };
                if read_only {
                    set_attributes(self.tree.as_fd(), false, READ_ONLY, 0).map_err(failed)?;
                }
                target
            }
            Kind::Kernel { .. } => match root.open_plain(self.target, OFlags::PATH | OFlags::DIRECTORY) {
                Err(Errno::NOENT) => root.make_dir(self.target, 0o755)?,
                Err(Errno::LOOP | Errno::NOTDIR) => {
                    let message = format!("{} is not a directory in this image", self.target.display());
                    return Err(Error::new(Class::InvalidInput, message)
                        .with_hint("an image must not put a link or a file there"));
                }
                other => other.map_err(failed)?,
            },
        };
        attach(self.tree.as_fd(), target.as_fd()).map_err(failed)?;
        let Kind::Kernel { magic } = self.kind else { return Ok(()) };
        let seen = root.open_plain(self.target, OFlags::PATH).and_then(|fd| fstatfs(&fd)).map_err(failed)?;
        if seen.f_type as u64 == magic { Ok(()) } else { Err(tampered(self.target)) }
    }
}

/// What is wrong with a target that a mount failed on, if it is of the other kind than what goes there.
fn unlike(root: &Root, target: &Path, directory: bool) -> Option<Error> {
    let what = |mode| FileType::from_raw_mode(mode) == FileType::Directory;
    // Below a file there is nothing at all.
    let is = match root.open(target, OFlags::PATH) {
        Ok(fd) => what(fstat(&fd).ok()?.st_mode),
        Err(Errno::NOTDIR) => false,
        Err(_) => return None,
    };
    let message = match (directory, is) {
        (true, false) => format!("a directory cannot be mounted on {}: not a directory", target.display()),
        (false, true) => format!("a file cannot be mounted on {}: not a file", target.display()),
        _ => return None,
    };
    let hint = "check that the source is what you think it is, and the target what the image has there";
    Some(Error::new(Class::InvalidInput, message).with_hint(hint))
}

/// What we say when a mount is not what we mounted.
fn tampered(target: &Path) -> Error {
    Error::new(Class::Forbidden, format!("{} is not what was mounted there", target.display()))
        .with_hint("something changes the container's directories while it starts")
}

/// Attaches a detached mount to what a descriptor names.
pub(super) fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", target, "", flags)
}

/// A detached copy of the mount that a descriptor stands in, from where it stands.
pub(super) fn copy(of: BorrowedFd<'_>, path: &str, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if path.is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(of, path, flags)
}

/// mount_setattr(2) on a descriptor.
pub(super) fn set_attributes(fd: BorrowedFd<'_>, recursive: bool, set: u64, clear: u64) -> Result<(), Errno> {
    change(fd, recursive, set, clear, 0)
}

fn change(fd: BorrowedFd<'_>, recursive: bool, set: u64, clear: u64, propagation: u64) -> Result<(), Errno> {
    if set == 0 && clear == 0 && propagation == 0 {
        return Ok(());
    }
    let attributes = libc::mount_attr { attr_set: set, attr_clr: clear, propagation, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string and the struct lives, with its size given, through the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)) }
}

/// Hides paths from the container: files behind its null device (`null`, a descriptor of it), directories behind an empty
/// read-only tmpfs. Paths that do not exist need no hiding.
///
/// # Errors
/// Names the path; `Forbidden` when the mask is not what the container sees afterwards (CVE-2025-31133).
pub(super) fn mask(root: &Root, paths: &[String], null: BorrowedFd<'_>) -> Result<()> {
    let mut empty: Option<OwnedFd> = None;
    for path in paths {
        let failed = |e| Error::io("mask", path, e);
        let target = match root.open(path, OFlags::PATH) {
            Ok(target) => target,
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            Err(e) => return Err(failed(e)),
        };
        let directory = FileType::from_raw_mode(fstat(&target).map_err(failed)?.st_mode).is_dir();
        let cover = if directory {
            let cover = match &empty {
                Some(first) => copy(first.as_fd(), "", false),
                None => file_system("tmpfs", Some("tmpfs"), [], READ_ONLY),
            };
            cover.map_err(failed)?
        } else {
            copy(null, "", false).map_err(failed)?
        };
        attach(cover.as_fd(), target.as_fd()).map_err(failed)?;
        let seen = root.open(path, OFlags::PATH).map_err(failed)?;
        let right = if directory {
            let stat = fstatfs(&seen).map_err(failed)?;
            stat.f_type as u64 == TMPFS && super::rootfs::same_file(seen.as_fd(), cover.as_fd())
        } else {
            super::devices::is_null(seen.as_fd())
        };
        if !right {
            return Err(tampered(Path::new(path)));
        }
        if directory && empty.is_none() {
            empty = Some(cover);
        }
    }
    Ok(())
}

/// Makes paths read-only in the container, with what is mounted below them.
///
/// # Errors
/// Names the path.
pub(super) fn protect(root: &Root, paths: &[String]) -> Result<()> {
    for path in paths {
        let failed = |e| Error::io("make read-only", path, e);
        let target = match root.open(path, OFlags::PATH) {
            Ok(target) => target,
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            Err(e) => return Err(failed(e)),
        };
        let cover = copy(target.as_fd(), "", true).map_err(failed)?;
        set_attributes(cover.as_fd(), true, READ_ONLY, 0).map_err(failed)?;
        attach(cover.as_fd(), target.as_fd()).map_err(failed)?;
        let seen = root.open(path, OFlags::PATH).map_err(failed)?;
        let flags = rustix::fs::fstatvfs(&seen).map_err(failed)?.f_flag;
        if !flags.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
            return Err(tampered(Path::new(path)));
        }
    }
    Ok(())
}
