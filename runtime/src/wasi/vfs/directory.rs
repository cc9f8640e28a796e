//! What a guest does with a directory that it holds.
//!
//! Each call is tried with the whole path on one directory of the host, if there is one that `cap_std` can do right by;
//! otherwise the path is walked, and the call made with the last name in the directory that has it.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use cap_fs_ext::{DirExt, FollowSymlinks, OpenOptionsFollowExt, OpenOptionsMaybeDirExt};
use cap_std::fs::{Dir, Metadata, OpenOptions};

use super::error::{Code, Result, is_escape};
use super::file::{Lower, OpenFile, times};
use super::names;
use super::node::{Leaf, Look, MountedFile, Node, Stat, Target, kind};
use super::tree::Part;
use super::union;
use crate::linux::files;
use crate::wasi::bindings::types::DescriptorType as Kind;

/// A directory that a guest holds.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    root: Node,
    node: Node,
    /// `..` leads out of it, as far as the root.
    ambient: bool,
    /// What is not found here is looked for in the root.
    or_root: bool,
}

/// A name in a directory, and what it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

/// How something is opened.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct How {
    pub(crate) follow: bool,
    pub(crate) create: bool,
    pub(crate) exclusive: bool,
    pub(crate) truncate: bool,
    pub(crate) directory: bool,
    pub(crate) read: bool,
    pub(crate) write: bool,
}

impl How {
    fn changes(self) -> bool {
        self.create || self.truncate || self.write
    }

    /// What the host is to be asked for. A file that is opened for nothing is opened for reading, and one that is made
    /// or cut for writing too, because systems want it so.
    fn options(self, follow: bool) -> OpenOptions {
        let mut options = OpenOptions::new();
        options.maybe_dir(true).follow(if follow { FollowSymlinks::Yes } else { FollowSymlinks::No });
        options.read(self.read || !self.write).write(self.changes());
        options
            .create(self.create && !self.exclusive)
            .create_new(self.create && self.exclusive)
            .truncate(self.truncate);
        options
    }
}

/// What was opened.
#[derive(Debug)]
pub(crate) enum Opened {
    File(OpenFile),
    Directory(Directory),
}

impl Directory {
    pub(super) fn root(root: Node) -> Directory {
        Directory { node: root.clone(), root, ambient: false, or_root: false }
    }

    pub(super) fn within(root: Node, node: Node) -> Directory {
        Directory { root, node, ambient: false, or_root: false }
    }

    /// The same directory, left by `..` as a process leaves its working directory.
    pub(crate) fn ambient(self) -> Directory {
        Directory { ambient: true, ..self }
    }

    /// The same directory; what is not found in it is looked for in the root, unless the path begins with a dot.
    pub(crate) fn or_root(self) -> Directory {
        Directory { or_root: true, ..self }
    }

    /// True if nothing can be changed in it.
    pub(crate) fn is_read_only(&self) -> bool {
        self.node.place.part.read_only
    }

    /// Opens what is at `path`.
    ///
    /// # Errors
    /// `exist` for an exclusive creation of what is there; `is-directory` for writing to a directory; `read-only`; and
    /// those of the way.
    pub(crate) fn open(&self, path: &str, how: How) -> Result<Opened> {
        if how.directory && (how.create || how.exclusive || how.truncate) {
            return Err(Code::Invalid);
        }
        if self.or_root && how.create && !how.exclusive {
            // What is in the root is not made here a second time.
            return match self.open(path, How { create: false, ..how }) {
                Err(Code::NoEntry) => self.here_or_in_root(path, |dir| dir.open_here(path, how)),
                other => other,
            };
        }
        self.here_or_in_root(path, |dir| dir.open_here(path, how))
    }

    fn open_here(&self, path: &str, how: How) -> Result<Opened> {
        names::check(path)?;
        let direct = self.direct(path, |node, dir, rest| {
            if node.place.part.read_only && how.changes() {
                return Ok(None);
            }
            if node.place.part.quota.is_some() && how.changes() {
                return Ok(None);
            }
            let file = dir.open_with(rest, &how.options(how.follow))?.into_std();
            self.opened(node, rest, file, how).map(Some)
        });
        match direct {
            Some(Ok(Some(opened))) => return opened,
            Some(Err(e)) => return Err(e),
            Some(Ok(None)) | None => {}
        }
        // What must not be there must not be looked for elsewhere.
        match self.resolve(path, how.follow && !(how.create && how.exclusive))? {
            Target::Dir(_) if how.create && how.exclusive => Err(Code::Exist),
            Target::Dir(_) if how.changes() => Err(Code::IsDirectory),
            Target::Dir(node) => Ok(Opened::Directory(self.child(node))),
            Target::Entry { parent, name, slash, look } => self.open_entry(parent, name, slash, look, how),
        }
    }

    /// Wraps what the host has opened at `rest` in `node`.
    fn opened(&self, node: &Node, rest: &str, file: File, how: How) -> io::Result<Result<Opened>> {
        let metadata = Metadata::from_file(&file)?;
        if !metadata.is_dir() {
            if how.directory {
                return Ok(Err(Code::NotDirectory));
            }
            if is_device(&metadata) {
                return Ok(Err(Code::Access));
            }
            let part = Arc::clone(&node.place.part);
            return Ok(Ok(Opened::File(OpenFile::new(Arc::new(file), part, how.read || !how.write, how.write))));
        }
        if how.write {
            // POSIX's word; not every system says it.
            return Ok(Err(Code::IsDirectory));
        }
        let mut node = node.clone();
        node.place.upper = Some(Arc::new(Dir::from_std_file(file)));
        node.path = format!("{}/{rest}", node.path);
        Ok(Ok(Opened::Directory(self.child(node))))
    }

    fn child(&self, node: Node) -> Directory {
        Directory::within(self.root.clone(), node)
    }

    fn open_entry(&self, parent: Node, name: String, slash: bool, look: Look, how: How) -> Result<Opened> {
        let part = Arc::clone(&parent.place.part);
        match look {
            Look::Nothing { .. } if !how.create => Err(Code::NoEntry),
            Look::Nothing { .. } if slash => Err(Code::IsDirectory),
            Look::Nothing { whiteout } => {
                let dir = self.writable(&parent)?;
                let file = union::charged(&part, || {
                    union::make(&part, &dir, &name, whiteout, |dir, name| {
                        Ok(dir.open_with(name, &how.options(false))?.into_std())
                    })
                })?;
                Ok(Opened::File(OpenFile::new(Arc::new(file), part, how.read || !how.write, how.write)))
            }
            _ if how.create && how.exclusive => Err(Code::Exist),
            Look::Dir(_) if how.changes() => Err(Code::IsDirectory),
            Look::Dir(node) => Ok(Opened::Directory(self.child(node))),
            _ if how.directory || slash => Err(Code::NotDirectory),
            Look::File(file) => open_mounted(file, how),
            Look::Leaf(leaf) if leaf.metadata.is_symlink() => Err(Code::Loop),
            Look::Leaf(leaf) => self.open_leaf(parent, name, leaf, how),
        }
    }

    fn open_leaf(&self, parent: Node, name: String, leaf: Leaf, how: How) -> Result<Opened> {
        let part = Arc::clone(&parent.place.part);
        if how.changes() && part.read_only {
            return Err(Code::ReadOnly);
        }
        if is_device(&leaf.metadata) {
            return Err(Code::Access);
        }
        // It is there: nothing is made, and what another process has put there since is not followed.
        let how = How { create: false, ..how };
        if leaf.upper || !how.changes() {
            let mut options = how.options(false);
            if part.quota.is_some() {
                options.truncate(false);
            }
            let file = Arc::new(leaf.at.open_with(&name, &options)?.into_std());
            if !leaf.upper {
                let lower = Lower { root: self.root.clone(), parent, name };
                return Ok(Opened::File(OpenFile::in_lower_layer(file, part, lower)));
            }
            if how.truncate
                && let Some(quota) = &part.quota
            {
                quota.resize(&file, 0, true, || Ok(file.set_len(0)?))?;
            }
            return Ok(Opened::File(OpenFile::new(file, part, how.read || !how.write, how.write)));
        }
        let dir = self.writable(&parent)?;
        union::copy_up(&part, &leaf, &dir, &name, !how.truncate)?;
        let file = dir.open_with(&name, &How { truncate: false, write: true, ..how }.options(false))?.into_std();
        Ok(Opened::File(OpenFile::new(Arc::new(file), part, how.read || !how.write, how.write)))
    }

    /// What the directory itself is.
    pub(crate) fn stat(&self) -> Result<Stat> {
        self.node()?.stat()
    }

    /// What is at `path`.
    pub(crate) fn stat_at(&self, path: &str, follow: bool) -> Result<Stat> {
        self.here_or_in_root(path, |dir| dir.stat_here(path, follow))
    }

    fn stat_here(&self, path: &str, follow: bool) -> Result<Stat> {
        names::check(path)?;
        let direct = self.direct(path, |_, dir, rest| {
            let metadata = if follow { dir.metadata(rest) } else { dir.symlink_metadata(rest) };
            Ok(Stat::of(&metadata?))
        });
        if let Some(answer) = direct {
            return answer;
        }
        match self.resolve(path, follow)? {
            Target::Dir(node) => node.stat(),
            Target::Entry { look: Look::Nothing { .. }, .. } => Err(Code::NoEntry),
            Target::Entry { look: Look::Dir(node), .. } => node.stat(),
            Target::Entry { slash: true, .. } => Err(Code::NotDirectory),
            Target::Entry { look: Look::Leaf(leaf), .. } => Ok(Stat::of(&leaf.metadata)),
            Target::Entry { look: Look::File(file), .. } => mounted_file(file, false).stat(),
        }
    }

    /// What shows in it, as it is now.
    pub(crate) fn entries(&self) -> Result<Vec<Entry>> {
        self.node()?.entries()
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// `exist`, `read-only`, and those of the way.
    pub(crate) fn create_dir(&self, path: &str) -> Result<()> {
        self.here_or_in_root(path, |dir| dir.create_dir_here(path))
    }

    fn create_dir_here(&self, path: &str) -> Result<()> {
        names::check(path)?;
        if let Some(answer) = self.direct_change(path, |dir, rest| dir.create_dir(rest)) {
            return answer;
        }
        match self.resolve(path, false)? {
            Target::Entry { parent, name, look: Look::Nothing { whiteout }, .. } => {
                let part = &parent.place.part;
                let dir = self.writable(&parent)?;
                union::charged(part, || union::make_dir(part, &dir, &name, whiteout))
            }
            _ => Err(Code::Exist),
        }
    }

    /// Removes a directory, which must be empty.
    pub(crate) fn remove_dir(&self, path: &str) -> Result<()> {
        self.here_or_in_root(path, |dir| dir.remove_dir_here(path))
    }

    fn remove_dir_here(&self, path: &str) -> Result<()> {
        names::check(path)?;
        if let Some(answer) = self.direct_change(path, |dir, rest| dir.remove_dir(rest)) {
            return answer;
        }
        match self.resolve(path, false)? {
            // `x/..` has x in it; `.` is nothing that could be removed, the root's neither.
            Target::Dir(_) if path.trim_end_matches('/').ends_with("..") => Err(Code::NotEmpty),
            Target::Dir(_) => Err(Code::Invalid),
            Target::Entry { parent, .. } if parent.place.part.read_only => Err(Code::ReadOnly),
            Target::Entry { look: Look::Nothing { .. }, .. } => Err(Code::NoEntry),
            Target::Entry { parent, name, look: Look::Dir(node), .. } => {
                if is_mount(&parent, &name) {
                    return Err(Code::Busy);
                }
                if path.ends_with("/.") {
                    return Err(Code::Invalid);
                }
                if !node.entries()?.is_empty() {
                    return Err(Code::NotEmpty);
                }
                let dir = self.writable(&parent)?;
                union::remove_dir(&parent, &dir, &name, &node)
            }
            Target::Entry { .. } => Err(Code::NotDirectory),
        }
    }

    /// Removes a file or symlink.
    pub(crate) fn unlink(&self, path: &str) -> Result<()> {
        self.here_or_in_root(path, |dir| dir.unlink_here(path))
    }

    fn unlink_here(&self, path: &str) -> Result<()> {
        names::check(path)?;
        if let Some(answer) = self.direct_change(path, |dir, rest| dir.remove_file_or_symlink(rest)) {
            // Linux's word for a directory; others have others.
            return match answer {
                Err(Code::NotPermitted | Code::Access) if self.stat_here(path, false)?.kind == Kind::Directory => {
                    Err(Code::IsDirectory)
                }
                answer => answer,
            };
        }
        match self.resolve(path, false)? {
            Target::Dir(_) => Err(Code::IsDirectory),
            Target::Entry { parent, .. } if parent.place.part.read_only => Err(Code::ReadOnly),
            Target::Entry { look: Look::Nothing { .. }, .. } => Err(Code::NoEntry),
            Target::Entry { look: Look::Dir(_), .. } => Err(Code::IsDirectory),
            Target::Entry { slash: true, .. } => Err(Code::NotDirectory),
            Target::Entry { look: Look::File(_), .. } => Err(Code::Busy),
            Target::Entry { parent, name, look: Look::Leaf(leaf), .. } => {
                let dir = self.writable(&parent)?;
                union::unlink(&parent, &dir, &name, &leaf)
            }
        }
    }

    /// Where the symlink at `path` leads.
    pub(crate) fn read_link(&self, path: &str) -> Result<String> {
        self.here_or_in_root(path, |dir| dir.read_link_here(path))
    }

    fn read_link_here(&self, path: &str) -> Result<String> {
        names::check(path)?;
        match self.resolve(path, false)? {
            Target::Entry { look: Look::Nothing { .. }, .. } => Err(Code::NoEntry),
            Target::Entry { name, look: Look::Leaf(leaf), slash: false, .. } if leaf.metadata.is_symlink() => {
                leaf.read_link(&name)
            }
            Target::Entry { look: Look::Leaf(_) | Look::File(_), slash: true, .. } => Err(Code::NotDirectory),
            _ => Err(Code::Invalid),
        }
    }

    /// Makes a symlink at `path` that leads to `to`.
    ///
    /// # Errors
    /// `not-permitted` for an absolute `to`, as the specification says; `exist`, `read-only`, and those of the way.
    pub(crate) fn symlink(&self, to: &str, path: &str) -> Result<()> {
        if to.starts_with('/') {
            return Err(Code::NotPermitted);
        }
        if to.is_empty() {
            return Err(Code::NoEntry);
        }
        if to.contains('\0') {
            return Err(Code::Invalid);
        }
        self.here_or_in_root(path, |dir| dir.symlink_here(to, path))
    }

    fn symlink_here(&self, to: &str, path: &str) -> Result<()> {
        names::check(path)?;
        match self.resolve(path, false)? {
            Target::Entry { look: Look::Nothing { .. }, slash: true, .. } => Err(Code::NoEntry),
            // POSIX's word for the slash; Linux looks at the name first.
            Target::Entry { look: Look::Leaf(_) | Look::File(_), slash: true, .. } => Err(Code::NotDirectory),
            Target::Entry { parent, name, look: Look::Nothing { whiteout }, .. } => {
                let part = &parent.place.part;
                let dir = self.writable(&parent)?;
                union::charged(part, || {
                    union::make(part, &dir, &name, whiteout, |dir, name| Ok(union::symlink(dir, to, name)?))
                })
            }
            _ => Err(Code::Exist),
        }
    }

    /// Gives the file at `path` another name, `new` in `new_dir`.
    ///
    /// # Errors
    /// `cross-device` between parts of the tree; `not-permitted` for a directory; `exist`, `read-only`, and those of
    /// the way.
    pub(crate) fn link(&self, path: &str, follow: bool, new_dir: &Directory, new: &str) -> Result<()> {
        names::check(path)?;
        names::check(new)?;
        let (from, to) = self.pair(path, new_dir, new);
        let (parent, name, leaf) = match from.resolve(path, follow)? {
            Target::Dir(_) => return Err(Code::NotPermitted),
            Target::Entry { look: Look::Nothing { .. }, .. } => return Err(Code::NoEntry),
            Target::Entry { slash: true, look: Look::Leaf(_) | Look::File(_), .. } => return Err(Code::NotDirectory),
            Target::Entry { look: Look::File(_), .. } => return Err(Code::CrossDevice),
            Target::Entry { look: Look::Dir(_), .. } => return Err(Code::NotPermitted),
            Target::Entry { parent, name, look: Look::Leaf(leaf), .. } => (parent, name, leaf),
        };
        let (new_parent, new_name, whiteout) = match to.resolve(new, false)? {
            Target::Entry { slash: true, look: Look::Nothing { .. }, .. } => return Err(Code::NoEntry),
            Target::Entry { parent, name, look: Look::Nothing { whiteout }, .. } => (parent, name, whiteout),
            _ => return Err(Code::Exist),
        };
        let part = &parent.place.part;
        if new_parent.place.part.read_only {
            return Err(Code::ReadOnly);
        }
        if !Arc::ptr_eq(part, &new_parent.place.part) {
            return Err(Code::CrossDevice);
        }
        let dir = from.writable(&parent)?;
        if !leaf.upper {
            union::copy_up(part, &leaf, &dir, &name, true)?;
        }
        let new_dir = to.writable(&new_parent)?;
        union::make(part, &new_dir, &new_name, whiteout, |to, to_name| Ok(dir.hard_link(&name, to, to_name)?))
    }

    /// Gives what is at `path` the name `new` in `new_dir`, in place of what has it.
    ///
    /// # Errors
    /// `cross-device` between parts of the tree, and for a directory that read-only layers have; `invalid` for a
    /// directory into itself; `not-empty`, `busy` for what something is mounted at, `read-only`, and those of the way.
    pub(crate) fn rename(&self, path: &str, new_dir: &Directory, new: &str) -> Result<()> {
        names::check(path)?;
        names::check(new)?;
        let (from, to) = self.pair(path, new_dir, new);
        if let (Some((node, rest)), Some((new_node, new_rest))) = (from.quick(path), to.quick(new))
            && let (Some(dir), Some(new_dir)) = (node.plain(), new_node.plain())
            && Arc::ptr_eq(&node.place.part, &new_node.place.part)
            && !node.place.part.read_only
            && node.place.part.quota.is_none()
        {
            match dir.rename(rest, new_dir, new_rest) {
                Err(e) if is_escape(&e) => {}
                other => return Ok(other?),
            }
        }
        union::rename(&from, from.resolve(path, false)?, &to, to.resolve(new, false)?)
    }

    /// Sets the directory's own times; `None` leaves one as it is.
    pub(crate) fn set_times(&self, accessed: Option<SystemTime>, modified: Option<SystemTime>) -> Result<()> {
        let node = self.node()?;
        self.set_node_times(&node, accessed, modified)
    }

    fn set_node_times(&self, node: &Node, accessed: Option<SystemTime>, modified: Option<SystemTime>) -> Result<()> {
        let dir = self.writable(node)?;
        Ok(union::readable(&dir)?.set_times(times(accessed, modified))?)
    }

    /// Sets the times of what is at `path`.
    pub(crate) fn set_times_at(
        &self,
        path: &str,
        follow: bool,
        accessed: Option<SystemTime>,
        modified: Option<SystemTime>,
    ) -> Result<()> {
        self.here_or_in_root(path, |dir| dir.set_times_here(path, follow, accessed, modified))
    }

    fn set_times_here(
        &self,
        path: &str,
        follow: bool,
        accessed: Option<SystemTime>,
        modified: Option<SystemTime>,
    ) -> Result<()> {
        names::check(path)?;
        match self.resolve(path, follow)? {
            Target::Dir(node) | Target::Entry { look: Look::Dir(node), .. } => {
                self.set_node_times(&node, accessed, modified)
            }
            Target::Entry { look: Look::Nothing { .. }, .. } => Err(Code::NoEntry),
            Target::Entry { slash: true, .. } => Err(Code::NotDirectory),
            Target::Entry { look: Look::File(file), .. } => mounted_file(file, true).set_times(accessed, modified),
            Target::Entry { parent, name, look: Look::Leaf(leaf), .. } => {
                let dir = self.writable(&parent)?;
                if !leaf.upper {
                    union::copy_up(&parent.place.part, &leaf, &dir, &name, true)?;
                }
                Ok(files::set_times(&dir, &name, accessed, modified)?)
            }
        }
    }

    /// Brings it to the disk.
    pub(crate) fn sync(&self) -> Result<()> {
        if let Some(dir) = &self.node()?.place.upper {
            union::readable(dir)?.sync_all()?;
        }
        Ok(())
    }

    /// The node, as it is now: another call or another process may have copied it up, or removed it.
    fn node(&self) -> Result<Cow<'_, Node>> {
        union::refresh(&self.root, &self.node)
    }

    /// The directory in which things of `node` can be changed.
    pub(super) fn writable(&self, node: &Node) -> Result<Arc<Dir>> {
        if node.place.part.read_only {
            return Err(Code::ReadOnly);
        }
        match &node.place.upper {
            Some(dir) => Ok(Arc::clone(dir)),
            None => union::copy_up_dir(node),
        }
    }

    pub(super) fn resolve(&self, path: &str, follow: bool) -> Result<Target> {
        self.node()?.resolve(&self.root, path, follow, self.ambient)
    }

    /// Calls `act` on this directory, and on the root if it finds nothing here and that is where to look next.
    fn here_or_in_root<T>(&self, path: &str, act: impl Fn(&Directory) -> Result<T>) -> Result<T> {
        match act(self) {
            Err(e @ (Code::NoEntry | Code::NotDirectory)) if self.or_root && !starts_with_dot(path) => {
                // If the root has nothing either, the first error is the one to tell.
                match act(&Directory::root(self.root.clone())) {
                    Err(Code::NoEntry) => Err(e),
                    other => other,
                }
            }
            other => other,
        }
    }

    /// The directories that the two paths of a call start in: for those that are looked for in the root too, the one
    /// that has the first path, and then for the second the one that has its parent, preferably the same.
    fn pair(&self, path: &str, new_dir: &Directory, new: &str) -> (Directory, Directory) {
        let root = || Directory::root(self.root.clone());
        let has = |dir: &Directory, path: &str| dir.stat_here(path, false).is_ok();
        let in_root = self.or_root && !starts_with_dot(path) && !has(self, path) && has(&root(), path);
        let above = |path: &str| path.trim_end_matches('/').rsplit_once('/').map(|(parent, _)| parent.to_owned());
        let has_above = |dir: &Directory| above(new).is_none_or(|parent| has(dir, &parent));
        let new_in_root =
            new_dir.or_root && !starts_with_dot(new) && has_above(&root()) && (in_root || !has_above(new_dir));
        let pick = |dir: &Directory, in_root: bool| if in_root { root() } else { dir.clone() };
        (pick(self, in_root), pick(new_dir, new_in_root))
    }

    /// The directory, and the rest of `path` from there, that one call on the host does right by. What a slash at the end
    /// means to each call, `cap_std` does not always know.
    fn quick<'p>(&self, path: &'p str) -> Option<(Cow<'_, Node>, &'p str)> {
        if path.ends_with('/') || path.ends_with("/.") {
            return None;
        }
        let (mut node, mut rest) = (Cow::Borrowed(&self.node), path);
        while node.plain().is_none() {
            let (name, more) = rest.split_once('/')?;
            if matches!(name, "" | "." | "..") || more.trim_start_matches('/').is_empty() {
                return None;
            }
            let here = if matches!(node, Cow::Borrowed(_)) { self.node().ok()? } else { node };
            match here.look(name, true) {
                Ok(Look::Dir(next)) => node = Cow::Owned(next),
                _ => return None,
            }
            rest = more.trim_start_matches('/');
        }
        Some((node, rest))
    }

    /// Makes one call on the host with all of the path, if that is right; `None` says that it has to be walked.
    fn direct<T>(&self, path: &str, call: impl FnOnce(&Node, &Dir, &str) -> io::Result<T>) -> Option<Result<T>> {
        let (node, rest) = self.quick(path)?;
        match call(&node, node.plain()?, rest) {
            Err(e) if is_escape(&e) => None,
            other => Some(other.map_err(Code::from)),
        }
    }

    /// The same for a call that changes something: read-only trees and those with a quota look at it more closely.
    fn direct_change(&self, path: &str, call: impl FnOnce(&Dir, &str) -> io::Result<()>) -> Option<Result<()>> {
        let (node, rest) = self.quick(path)?;
        let Part { read_only: false, quota: None, .. } = &*node.place.part else { return None };
        match call(node.plain()?, rest) {
            Err(e) if is_escape(&e) => None,
            other => Some(other.map_err(Code::from)),
        }
    }
}

/// True for what is said of the directory itself, or of the one above: nothing that an absolute path becomes.
fn starts_with_dot(path: &str) -> bool {
    matches!(path.split('/').next(), Some("." | ".."))
}

/// True if something is mounted at `name` in `parent`, or below it.
pub(super) fn is_mount(parent: &Node, name: &str) -> bool {
    parent.points.as_ref().is_some_and(|points| points.below.contains_key(name))
}

/// True for what leads to the host's hardware: an image may name any, and guests have none.
pub(super) fn is_device(metadata: &Metadata) -> bool {
    matches!(kind(metadata.file_type()), Kind::BlockDevice | Kind::CharacterDevice)
}

/// Another opening of a mounted file.
fn mounted_file(file: MountedFile, write: bool) -> OpenFile {
    OpenFile::new(file.file, file.part, true, write && file.writable)
}

fn open_mounted(mounted: MountedFile, how: How) -> Result<Opened> {
    if how.changes() && !mounted.writable {
        return Err(Code::ReadOnly);
    }
    if how.truncate {
        mounted_file(mounted.clone(), true).set_size(0)?;
    }
    Ok(Opened::File(OpenFile::new(mounted.file, mounted.part, how.read || !how.write, how.write)))
}
