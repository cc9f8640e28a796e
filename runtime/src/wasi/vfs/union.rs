//! Changing a tree whose lower layers must not change: overlayfs's rules
//! (<https://docs.kernel.org/filesystems/overlayfs.html>).
//!
//! What is to be changed is copied into the upper layer first; what is removed is covered by a whiteout; a directory in
//! place of something older is opaque; a directory that lower layers have a part in cannot be renamed (`cross-device`:
//! programs then copy it). Whatever takes several steps is made in the work directory and gets its name in one step, so
//! that neither another process nor a crash sees half of it.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cap_fs_ext::{FollowSymlinks, MetadataExt, OpenOptionsFollowExt, OpenOptionsMaybeDirExt};
use cap_std::fs::{Dir, Metadata, OpenOptions};

use super::directory::{Directory, is_device, is_mount};
use super::error::{Code, Result};
use super::file::{Lower, times};
use super::node::{Leaf, Look, Node, Target};
use super::tree::{Layers, Part, Place};
use crate::linux::files;

/// The node as it is now. Another call or another process may have copied it up since it was opened, or removed it.
pub(super) fn refresh<'n>(root: &Node, node: &'n Node) -> Result<Cow<'n, Node>> {
    if node.place.lowers.is_empty() || node.path.is_empty() {
        return Ok(Cow::Borrowed(node));
    }
    if let Some(upper) = &node.place.upper {
        if upper.dir_metadata()?.nlink() > 0 {
            return Ok(Cow::Borrowed(node));
        }
        // Removed: it has nothing any more, and takes nothing.
        let place = Place { lowers: Vec::new(), ..node.place.clone() };
        return Ok(Cow::Owned(Node { place, ..node.clone() }));
    }
    let mut found = root.clone();
    for name in node.path.split('/').filter(|name| !name.is_empty()) {
        found = match found.look(name, true)? {
            Look::Dir(next) => next,
            _ => return Err(Code::NoEntry),
        };
    }
    let identity = |node: &Node| -> Result<Option<(u64, u64)>> {
        let Some(lowest) = node.place.lowers.last() else { return Ok(None) };
        let metadata = lowest.dir_metadata()?;
        Ok(Some((metadata.dev(), metadata.ino())))
    };
    if identity(&found)? == identity(node)? { Ok(Cow::Owned(found)) } else { Err(Code::NoEntry) }
}

/// The part's layers: only what has some has whiteouts and files to copy up.
fn layers(part: &Part) -> Result<&Layers> {
    part.union.as_ref().ok_or(Code::ReadOnly)
}

/// True if a lower layer shows something at `name`, once the upper one has nothing there.
fn lower_has(parent: &Node, name: &str) -> Result<bool> {
    let place = Place { upper: None, ..parent.place.clone() };
    let below = Node { place, path: String::new(), points: None };
    Ok(!matches!(below.look(name, false)?, Look::Nothing { .. }))
}

/// A name in the work directory that nothing has. What died before it was used is in nobody's way.
fn temporary<T>(work: &Dir, make: impl Fn(&Dir, &str) -> Result<T>) -> Result<(String, T)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let name = format!("vfs-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        match make(work, &name) {
            Err(Code::Exist) if work.symlink_metadata(&name).is_ok() => {}
            other => return Ok((name, other?)),
        }
    }
}

/// Takes a leftover away. If it stays, it is in nobody's way.
fn discard(work: &Dir, name: &str) {
    let _ = work.remove_file(name).or_else(|_| work.remove_dir_all(name));
}

/// Makes something that is no directory at `name`, in place of a whiteout if there is one.
pub(super) fn make<T>(
    part: &Part,
    dir: &Dir,
    name: &str,
    whiteout: bool,
    make: impl Fn(&Dir, &str) -> Result<T>,
) -> Result<T> {
    if !whiteout {
        return make(dir, name);
    }
    let work = &layers(part)?.work;
    let (made, value) = temporary(work, make)?;
    work.rename(&made, dir, name).inspect_err(|_| discard(work, &made))?;
    Ok(value)
}

/// Makes a directory at `name`. In place of a whiteout it is opaque: what lower layers have there is gone for good.
pub(super) fn make_dir(part: &Part, dir: &Dir, name: &str, whiteout: bool) -> Result<()> {
    if !whiteout {
        return Ok(dir.create_dir(name)?);
    }
    let work = &layers(part)?.work;
    let (made, ()) = temporary(work, |work, made| Ok(work.create_dir(made)?))?;
    let swap = || {
        files::set_opaque(&files::open_dir(work, &made)?)?;
        files::exchange(work, &made, dir, name)
    };
    let swapped = swap();
    discard(work, &made);
    Ok(swapped?)
}

/// Makes a symlink.
pub(super) fn symlink(dir: &Dir, to: &str, name: &str) -> io::Result<()> {
    files::symlink(dir, to, name)
}

/// Makes something that takes a name and no more, if the quota allows it.
pub(super) fn charged<T>(part: &Part, make: impl FnOnce() -> Result<T>) -> Result<T> {
    let Some(quota) = &part.quota else { return make() };
    quota.charge(0)?;
    make().inspect_err(|_| quota.refund(0))
}

/// Removes what is no directory.
pub(super) fn unlink(parent: &Node, dir: &Dir, name: &str, leaf: &Leaf) -> Result<()> {
    if leaf.upper {
        match lower_has(parent, name)? {
            false => dir.remove_file(name)?,
            true => {
                // In one step: the lower layer's must not show in between.
                let work = &layers(&parent.place.part)?.work;
                let (made, ()) = temporary(work, |work, made| Ok(files::make_whiteout(work, made)?))?;
                work.rename(&made, dir, name).inspect_err(|_| discard(work, &made))?;
            }
        }
        removed(&parent.place.part, &leaf.metadata);
        return Ok(());
    }
    Ok(files::make_whiteout(dir, name)?)
}

/// Tells the quota that a name is gone.
fn removed(part: &Part, metadata: &Metadata) {
    if let Some(quota) = &part.quota
        && metadata.nlink() <= 1
    {
        quota.removed(metadata);
    }
}

/// Removes a directory in which nothing shows.
pub(super) fn remove_dir(parent: &Node, dir: &Dir, name: &str, node: &Node) -> Result<()> {
    let part = &parent.place.part;
    let covers = lower_has(parent, name)?;
    match &node.place.upper {
        Some(_) if !covers => dir.remove_dir(name)?,
        None => files::make_whiteout(dir, name)?,
        // It may hold whiteouts of its own.
        Some(_) => {
            let work = &layers(part)?.work;
            let (made, ()) = temporary(work, |work, made| Ok(files::make_whiteout(work, made)?))?;
            let swapped = files::exchange(work, &made, dir, name);
            discard(work, &made);
            swapped?;
        }
    }
    if let (Some(quota), Some(_)) = (&part.quota, &node.place.upper) {
        quota.refund(0);
    }
    Ok(())
}

/// Copies what lies in a lower layer to `name` in `dir` of the upper one, with all that makes it what it is; its content
/// only if `data` says so. Nothing happens if another process was faster.
pub(super) fn copy_up(part: &Part, leaf: &Leaf, dir: &Dir, name: &str, data: bool) -> Result<()> {
    let work = &layers(part)?.work;
    let size = if data { leaf.metadata.len() } else { 0 };
    if let Some(quota) = &part.quota {
        quota.charge(size)?;
    }
    let copy = || -> Result<()> {
        let (made, ()) = temporary(work, |work, made| copy(leaf, name, work, made, data))?;
        let before = dir.dir_metadata()?;
        let linked = match work.hard_link(&made, dir, name) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
            other => other,
        };
        discard(work, &made);
        linked?;
        keep_times(dir, &before)
    };
    let copied = copy();
    if let Some(quota) = &part.quota {
        match copied {
            Ok(()) => quota.charged(size),
            Err(_) => quota.refund(size),
        }
    }
    copied
}

fn copy(leaf: &Leaf, name: &str, work: &Dir, made: &str, data: bool) -> Result<()> {
    let metadata = &leaf.metadata;
    if metadata.is_symlink() {
        files::symlink(work, &leaf.read_link(name)?, made)?;
        files::copy_named_attributes(metadata, work, made);
        return Ok(());
    }
    if !metadata.is_file() {
        return make_special(leaf, name, work, made);
    }
    let mut from = leaf.at.open_with(name, OpenOptions::new().read(true).follow(FollowSymlinks::No))?.into_std();
    let mut to = work.open_with(made, OpenOptions::new().write(true).create_new(true))?.into_std();
    let fill = || -> io::Result<()> {
        if data {
            io::copy(&mut from, &mut to)?;
        }
        files::copy_attributes(&from, &to)?;
        let std = |time: io::Result<cap_std::time::SystemTime>| time.ok().map(cap_std::time::SystemTime::into_std);
        to.set_times(times(std(metadata.accessed()), std(metadata.modified())))
    };
    let mut fill = fill;
    fill().inspect_err(|_| discard(work, made))?;
    Ok(())
}

/// Makes a pipe or a socket like that in the lower layer. A device is nothing that a guest, or any program without
/// privilege, can make.
fn make_special(leaf: &Leaf, name: &str, work: &Dir, made: &str) -> Result<()> {
    if is_device(&leaf.metadata) {
        return Err(Code::NotPermitted);
    }
    Ok(files::make_special(&leaf.at, name, &leaf.metadata, work, made).inspect_err(|_| discard(work, made))?)
}

/// A directory that was copied up, or got a copy, has not changed for those who look at it.
fn keep_times(dir: &Dir, before: &Metadata) -> Result<()> {
    let std = |time: io::Result<cap_std::time::SystemTime>| time.ok().map(cap_std::time::SystemTime::into_std);
    Ok(readable(dir)?.set_times(times(std(before.accessed()), std(before.modified())))?)
}

/// A handle of the directory for what takes more than one that names are looked up in.
pub(super) fn readable(dir: &Dir) -> io::Result<File> {
    Ok(dir.open_with(".", OpenOptions::new().read(true).maybe_dir(true))?.into_std())
}

/// The upper layer's directory of `node`, which lies in lower ones: made now, with those above it.
pub(super) fn copy_up_dir(node: &Node) -> Result<Arc<Dir>> {
    let part = &node.place.part;
    let layers = layers(part)?;
    let place = Place { part: Arc::clone(part), upper: Some(Arc::clone(&layers.upper)), lowers: layers.lowers.clone() };
    let mut here = Node { place, path: String::new(), points: None };
    let mut dir = Arc::clone(&layers.upper);
    for name in node.path.split('/').filter(|name| !name.is_empty()) {
        let Look::Dir(mut next) = here.look(name, true)? else { return Err(Code::ReadOnly) };
        if next.place.upper.is_none() {
            let from = next.place.lowers.first().ok_or(Code::ReadOnly)?;
            next.place.upper = Some(Arc::new(charged(part, || copy_one_dir(&layers.work, from, &dir, name))?));
        }
        dir = next.place.upper.clone().ok_or(Code::Io)?;
        here = next;
    }
    Ok(dir)
}

fn copy_one_dir(work: &Dir, from: &Dir, parent: &Dir, name: &str) -> Result<Dir> {
    let (made, ()) = temporary(work, |work, made| Ok(work.create_dir(made)?))?;
    let fill = || -> Result<()> {
        let to = files::open_dir(work, &made)?;
        files::copy_attributes(&readable(from)?, &readable(&to)?)?;
        keep_times(&to, &from.dir_metadata()?)?;
        let before = parent.dir_metadata()?;
        work.rename(&made, parent, name)?;
        keep_times(parent, &before)
    };
    match fill() {
        Err(Code::Exist | Code::NotEmpty) => discard(work, &made),
        other => other.inspect_err(|_| discard(work, &made))?,
    }
    Ok(files::open_dir(parent, name)?)
}

/// Copies up a file that is open, and opens the copy.
pub(super) fn copy_up_and_open(lower: &Lower) -> Result<File> {
    let parent = refresh(&lower.root, &lower.parent)?;
    let dir = match &parent.place.upper {
        Some(dir) => Arc::clone(dir),
        None => copy_up_dir(&parent)?,
    };
    match parent.look(&lower.name, false)? {
        Look::Leaf(leaf) if !leaf.upper => copy_up(&parent.place.part, &leaf, &dir, &lower.name, true)?,
        Look::Leaf(_) => {}
        _ => return Err(Code::NoEntry),
    }
    let options = OpenOptions::new().read(true).follow(FollowSymlinks::No).clone();
    Ok(dir.open_with(&lower.name, &options)?.into_std())
}

/// One end of a renaming.
struct End {
    parent: Node,
    name: String,
    slash: bool,
    look: Look,
}

impl End {
    fn of(target: Target) -> Result<End> {
        match target {
            // `.`, `..` and the root are names of nothing that could be moved.
            Target::Dir(_) => Err(Code::Busy),
            Target::Entry { parent, name, slash, look } => Ok(End { parent, name, slash, look }),
        }
    }
}

/// Renames, also over layers. The order of the checks is Linux's.
pub(super) fn rename(from_dir: &Directory, from: Target, to_dir: &Directory, to: Target) -> Result<()> {
    let (from, to) = (End::of(from)?, End::of(to)?);
    let part = Arc::clone(&from.parent.place.part);
    if !Arc::ptr_eq(&part, &to.parent.place.part) {
        return Err(Code::CrossDevice);
    }
    if part.read_only {
        return Err(Code::ReadOnly);
    }
    match &from.look {
        Look::Nothing { .. } => return Err(Code::NoEntry),
        Look::Leaf(_) | Look::File(_) if from.slash || to.slash => return Err(Code::NotDirectory),
        _ => {}
    }
    if let Look::Dir(node) = &from.look
        && (to.parent.path == node.path || to.parent.path.starts_with(&format!("{}/", node.path)))
    {
        return Err(Code::Invalid);
    }
    if let Look::Dir(node) = &to.look
        && (from.parent.path == node.path || from.parent.path.starts_with(&format!("{}/", node.path)))
    {
        return Err(Code::NotEmpty);
    }
    if is_mount(&from.parent, &from.name) || is_mount(&to.parent, &to.name) {
        return Err(Code::Busy);
    }
    match (&from.look, &to.look) {
        (Look::Dir(_), Look::Leaf(_) | Look::File(_)) => return Err(Code::NotDirectory),
        (Look::Leaf(_) | Look::File(_), Look::Dir(_)) => return Err(Code::IsDirectory),
        _ => {}
    }
    match &from.look {
        Look::Leaf(leaf) => rename_leaf(from_dir, &from, leaf, to_dir, &to),
        Look::Dir(node) => rename_dir(from_dir, &from, node, to_dir, &to),
        _ => Err(Code::Busy),
    }
}

fn rename_leaf(from_dir: &Directory, from: &End, leaf: &Leaf, to_dir: &Directory, to: &End) -> Result<()> {
    let part = &from.parent.place.part;
    let same = |a: &Metadata, b: &Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    // Two names of one file: both stay (rename(2)). In a lower layer they are two files, as they are to the kernel's overlay,
    // for the first write to one of them would part them.
    let one_name = from.name == to.name && from.parent.path == to.parent.path;
    if let Look::Leaf(other) = &to.look
        && same(&leaf.metadata, &other.metadata)
        && (one_name || leaf.upper && other.upper)
    {
        return Ok(());
    }
    let dir = from_dir.writable(&from.parent)?;
    if !leaf.upper {
        copy_up(part, leaf, &dir, &from.name, true)?;
    }
    let new_dir = to_dir.writable(&to.parent)?;
    match lower_has(&from.parent, &from.name)? {
        true => files::rename_leaving_whiteout(&dir, &from.name, &new_dir, &to.name)?,
        false => dir.rename(&from.name, &new_dir, &to.name)?,
    }
    if let Look::Leaf(other) = &to.look
        && other.upper
    {
        removed(part, &other.metadata);
    }
    Ok(())
}

fn rename_dir(from_dir: &Directory, from: &End, node: &Node, to_dir: &Directory, to: &End) -> Result<()> {
    // The same directory by the same name.
    if let Look::Dir(other) = &to.look
        && other.path == node.path
    {
        return Ok(());
    }
    if !node.place.lowers.is_empty() {
        return Err(Code::CrossDevice);
    }
    if let Look::Dir(other) = &to.look
        && !other.entries()?.is_empty()
    {
        return Err(Code::NotEmpty);
    }
    let (dir, new_dir) = (from_dir.writable(&from.parent)?, to_dir.writable(&to.parent)?);
    let covers = lower_has(&to.parent, &to.name)?;
    if covers {
        files::set_opaque(node.place.upper.as_deref().ok_or(Code::CrossDevice)?)?;
    }
    let uncovers = lower_has(&from.parent, &from.name)?;
    // What is in the way, and cannot be replaced by a directory: a whiteout, or a directory of whiteouts.
    let blocked = match &to.look {
        Look::Nothing { whiteout } => *whiteout,
        Look::Dir(other) => covers && other.place.upper.is_some(),
        _ => false,
    };
    match (blocked, uncovers) {
        (false, false) => dir.rename(&from.name, &new_dir, &to.name)?,
        (false, true) => files::rename_leaving_whiteout(&dir, &from.name, &new_dir, &to.name)?,
        (true, _) => {
            let work = &layers(&from.parent.place.part)?.work;
            if uncovers && let Look::Dir(_) = &to.look {
                // The directory of whiteouts makes room for one of them.
                let (made, ()) = temporary(work, |work, made| Ok(files::make_whiteout(work, made)?))?;
                let swapped = files::exchange(work, &made, &new_dir, &to.name);
                discard(work, &made);
                swapped?;
            }
            files::exchange(&dir, &from.name, &new_dir, &to.name)?;
            if !uncovers {
                let (made, ()) = temporary(work, |work, made| Ok(dir.rename(&from.name, work, made)?))?;
                discard(work, &made);
            }
        }
    }
    if let (Some(quota), Look::Dir(_)) = (&from.parent.place.part.quota, &to.look) {
        quota.refund(0);
    }
    Ok(())
}
