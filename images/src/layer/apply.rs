//! Writing a layer's entries beneath a directory.
//!
//! Docker's rules, kept so that an image means here what it means there: what an entry finds under its name is
//! replaced unless both are directories; missing parents are made; symlinks on the way are followed inside the root.
//! Files are made with `O_EXCL` first, so an entry never writes through something an earlier entry put there. Calls are
//! counted: for the usual file they are create, write, set time and close.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{self, ErrorKind, Seek, Write};
use std::rc::Rc;

use super::entries::{Entries, corrupt, show};
use super::entry::{Entry, Found, Kind, Mtime, Node};
use super::path::{self, Target};
use super::pipe::Pieces;
use super::{MAX_NOTES, Options, Whiteouts};
use crate::error::{Class, Error, Result};
use crate::os::{self, DirAt};
use crate::tree::{Placing, Room};

/// Most parents kept open between entries.
const MAX_PARENTS: usize = 64;

/// So many zeros are a hole: what filesystems allocate by.
const BLOCK: usize = 4096;

/// What was written.
pub(super) struct Applied {
    pub(super) bytes: u64,
    pub(super) entries: u64,
    pub(super) notes: Vec<String>,
}

/// What a directory gets when all is in it: writing into it changes its time and may need more than its mode allows.
#[derive(Debug, Clone, Copy)]
struct Late {
    mode: Option<u32>,
    mtime: Mtime,
}

struct Apply<'a> {
    options: &'a Options,
    /// Not a layer but somebody's files: no name means a whiteout, and these are the rules.
    placing: Option<&'a Placing>,
    /// Who is asked for space in which mount.
    room: Option<(&'a Room<'a>, u64)>,
    root: Rc<DirAt>,
    parents: HashMap<Vec<u8>, Rc<DirAt>>,
    late: BTreeMap<Vec<u8>, Late>,
    /// Whiteouts made as devices here: a directory that comes after one must be opaque.
    hidden: HashSet<Vec<u8>>,
    /// When whiteouts are carried out: what this layer brought, which its own whiteouts do not touch.
    ours: HashSet<Vec<u8>>,
    own_ids: (u32, u32),
    umask: u32,
    /// New files may get another group than ours by themselves.
    strange_groups: bool,
    done: Applied,
}

/// Unpacks the archive in `pieces` into `root`.
pub(super) fn apply(
    pieces: &mut Pieces,
    root: DirAt,
    options: &Options,
    placing: Option<&Placing>,
    room: Option<(&Room<'_>, u64)>,
) -> Result<Applied> {
    let strange_groups =
        placing.is_some() || options.whiteouts == Some(Whiteouts::Apply) || root.gives_its_group().unwrap_or(true);
    let mut apply = Apply {
        options,
        placing,
        room,
        root: Rc::new(root),
        parents: HashMap::new(),
        late: BTreeMap::new(),
        hidden: HashSet::new(),
        ours: HashSet::new(),
        own_ids: os::own_ids(),
        umask: os::umask(),
        strange_groups,
        done: Applied { bytes: 0, entries: 0, notes: Vec::new() },
    };
    let mut entries = Entries::new(pieces);
    while let Some(entry) = entries.next()? {
        apply.done.entries += 1;
        if apply.done.entries > options.max_entries {
            return Err(limit(format!("layer: more than {} entries", options.max_entries)));
        }
        apply.entry(entry, &mut entries)?;
    }
    apply.finish()?;
    Ok(apply.done)
}

/// Docker's words when `cp` meets something of another kind.
fn replaced(old: &str, path: &[u8], new: &str) -> Error {
    let path = show(path);
    Error::new(Class::InvalidInput, format!("cannot overwrite {old} {path} with {new} {path}"))
}

fn limit(message: String) -> Error {
    Error::new(Class::LimitExceeded, message)
}

/// A failure of the system while `path` was written; what the archive itself caused is the archive's fault.
fn failed(op: &'static str, path: &[u8], error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::NotADirectory | ErrorKind::InvalidFilename => {
            corrupt(format!("layer: {op} {}: {error}", show(path)))
        }
        _ => Error::io(op, String::from_utf8_lossy(path).into_owned(), error),
    }
}

/// Writes `piece`, but passes over what is zeros: somebody's files were perhaps sparse before they became an archive.
fn write_with_holes(file: &mut File, piece: &[u8]) -> io::Result<()> {
    let is_hole = |block: &&[u8]| block.iter().all(|b| *b == 0);
    let mut rest = piece;
    while !rest.is_empty() {
        let hole: usize = rest.chunks(BLOCK).take_while(is_hole).map(<[u8]>::len).sum();
        let data: usize = rest[hole..].chunks(BLOCK).take_while(|block| !is_hole(block)).map(<[u8]>::len).sum();
        if hole > 0 {
            file.seek_relative(hole as i64)?;
        }
        file.write_all(&rest[hole..hole + data])?;
        rest = &rest[hole + data..];
    }
    Ok(())
}

impl Apply<'_> {
    fn entry(&mut self, entry: Entry, entries: &mut Entries<&mut Pieces>) -> Result<()> {
        let target = match self.options.whiteouts {
            Some(_) => path::target(&entry.path)?,
            None => path::plain(&entry.path)?,
        };
        let path = match target {
            Target::Path(path) => path,
            Target::Root => return self.root_entry(entry),
            Target::Whiteout(path) => return self.whiteout(&path),
            Target::Opaque(path) => return self.opaque(&path),
            Target::Nothing => return Ok(()),
        };
        let parent = self.parent(&path)?;
        self.claim(&path);
        match &entry.kind {
            Kind::File => self.file(&parent, &path, &entry, entries),
            Kind::Dir => self.dir(&parent, &path, &entry),
            Kind::Symlink(target) => self.symlink(&parent, &path, target, &entry),
            Kind::HardLink(target) => self.hard_link(&parent, &path, target),
            Kind::Node(node) => self.node(&parent, &path, *node, &entry),
        }
    }

    /// The root's own entry: its metadata. A root that is not a directory would replace the directory by a symlink.
    fn root_entry(&mut self, entry: Entry) -> Result<()> {
        if entry.kind != Kind::Dir {
            return Err(corrupt(format!("layer: the root ({}) is not a directory", show(&entry.path))));
        }
        self.late.insert(Vec::new(), Late { mode: Some(entry.mode), mtime: entry.mtime });
        let root = Rc::clone(&self.root);
        self.own(&root, b".", b"", &entry)?;
        self.dir_xattrs(&root, b"", &entry)
    }

    fn file(&mut self, parent: &DirAt, path: &[u8], entry: &Entry, entries: &mut Entries<&mut Pieces>) -> Result<()> {
        if entry.size > self.options.max_bytes - self.done.bytes {
            let most = self.options.max_bytes;
            return Err(limit(format!("layer: more than {most} bytes with {} ({} bytes)", show(path), entry.size)));
        }
        self.done.bytes += entry.size;
        let mode = self.mode(entry);
        // Setting user xattrs asks for the right to write, which the mode of the end may not give.
        let first_mode = if entry.xattrs.is_empty() { mode } else { mode | 0o600 };
        let mut file = self.fresh(parent, path, |name| parent.create(name, first_mode))?;
        // What had the name before counts no more.
        self.need(parent, path, entry.size)?;
        if self.options.whiteouts.is_some() {
            entries.content(|piece| file.write_all(piece).map_err(|e| failed("write", path, e)))?;
        } else {
            entries.content(|piece| write_with_holes(&mut file, piece).map_err(|e| failed("write", path, e)))?;
            // A hole at the end was only passed over.
            file.set_len(entry.size).map_err(|e| failed("write", path, e))?;
        }
        if let Some((uid, gid)) = self.owner(entry) {
            os::own_file(&file, uid, gid).map_err(|e| self.own_failed(path, uid, gid, e))?;
        }
        for (name, value) in &entry.xattrs {
            if !self.allows(name) || !os::set_xattr(&file, name, value).map_err(|e| failed("set xattr of", path, e))? {
                self.note(|| format!("{}: xattr {} left out", show(path), show(name)));
            }
        }
        if self.needs_chmod(mode) || first_mode != mode {
            os::chmod_file(&file, mode).map_err(|e| failed("chmod", path, e))?;
        }
        os::set_file_mtime(&file, entry.mtime).map_err(|e| failed("set time of", path, e))
    }

    /// Asks for the space of something new.
    fn need(&self, parent: &DirAt, path: &[u8], bytes: u64) -> Result<()> {
        match self.room {
            Some((room, mount)) if parent.mount().map_err(|e| failed("look at", path, e))? == mount => {
                room(bytes).map_err(|e| failed("write", path, e))
            }
            _ => Ok(()),
        }
    }

    fn dir(&mut self, parent: &DirAt, path: &[u8], entry: &Entry) -> Result<()> {
        let (_, name) = path::split(path);
        let mode = self.mode(entry);
        let existed = match parent.mkdir(name, mode | 0o700) {
            Ok(()) => {
                self.need(parent, path, 0)?;
                false
            }
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                let found = parent.found(name).map_err(|e| failed("look at", path, e))?;
                if found != Some(Found::Dir) {
                    if self.keeps_kinds() {
                        return Err(replaced("non-directory", path, "directory"));
                    }
                    self.fresh(parent, path, |name| parent.mkdir(name, mode | 0o700))?;
                    if self.hidden.remove(path) {
                        // The directory below stays hidden.
                        let dir = parent.child(name).map_err(|e| failed("open", path, e))?;
                        dir.set_opaque().map_err(|e| failed("make opaque", path, e))?;
                    }
                }
                found == Some(Found::Dir)
            }
            Err(e) => return Err(failed("create", path, e)),
        };
        let late_mode = existed || self.needs_chmod(mode) || mode & 0o700 != 0o700;
        self.late.insert(path.to_vec(), Late { mode: late_mode.then_some(mode), mtime: entry.mtime });
        if existed || self.owner(entry).is_some() {
            self.own(parent, name, path, entry)?;
        }
        if entry.xattrs.is_empty() {
            return Ok(());
        }
        let dir = parent.child(name).map_err(|e| failed("open", path, e))?;
        self.dir_xattrs(&dir, path, entry)
    }

    fn symlink(&mut self, parent: &DirAt, path: &[u8], target: &[u8], entry: &Entry) -> Result<()> {
        if target.is_empty() || target.contains(&0) {
            return Err(corrupt(format!("layer: symlink {} points to {}", show(path), show(target))));
        }
        self.fresh(parent, path, |name| parent.symlink(target, name))?;
        self.need(parent, path, 0)?;
        self.own_and_date(parent, path, entry)
    }

    fn hard_link(&mut self, parent: &DirAt, path: &[u8], target: &[u8]) -> Result<()> {
        let target = path::clean(target)?;
        let missing =
            || corrupt(format!("layer: hard link {} to {}, which it does not have", show(path), show(&target)));
        if target.is_empty() || target == path {
            return Err(missing());
        }
        let (from, from_name) = path::split(&target);
        let from = match self.existing(from) {
            Ok(from) => from,
            Err(e) if e.kind() == ErrorKind::NotFound => return Err(missing()),
            Err(e) => return Err(failed("open", from, e)),
        };
        if from.found(from_name).map_err(|e| failed("look at", &target, e))? == Some(Found::Whiteout) {
            return Err(missing());
        }
        match self.fresh(parent, path, |name| parent.link(&from, from_name, name)) {
            Err(Error::Io { source, .. })
                if matches!(
                    source.kind(),
                    ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::IsADirectory
                ) =>
            {
                Err(missing())
            }
            other => other,
        }
    }

    fn node(&mut self, parent: &DirAt, path: &[u8], node: Node, entry: &Entry) -> Result<()> {
        if node == Node::Char(0, 0) {
            self.note(|| format!("{}: device 0/0 left out, it means a whiteout", show(path)));
            return Ok(());
        }
        if node != Node::Fifo && !self.options.privileged {
            self.note(|| format!("{}: device left out, it takes root", show(path)));
            return Ok(());
        }
        let mode = self.mode(entry);
        match self.fresh(parent, path, |name| parent.node(name, node, mode)) {
            // Root of a user namespace cannot make devices; the container gets its own /dev anyway.
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::PermissionDenied => {
                self.note(|| format!("{}: device left out, this user may not make it", show(path)));
                Ok(())
            }
            Err(e) => Err(e),
            Ok(()) => {
                self.need(parent, path, 0)?;
                self.own_and_date(parent, path, entry)
            }
        }
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<()> {
        let (parent_path, name) = path::split(path);
        match self.options.whiteouts {
            Some(Whiteouts::Overlay) => {
                let parent = self.parent(path)?;
                match parent.whiteout(name) {
                    Ok(()) => {
                        self.hidden.insert(path.to_vec());
                        Ok(())
                    }
                    // A whiteout hides the layers below, not what its own layer has under this name.
                    Err(e) if e.kind() == ErrorKind::AlreadyExists => match parent.found(name) {
                        Ok(Some(Found::Dir)) => self.opaque(path),
                        Ok(_) => Ok(()),
                        Err(e) => Err(failed("look at", path, e)),
                    },
                    Err(e) => Err(failed("create whiteout", path, e)),
                }
            }
            Some(Whiteouts::Apply) => {
                let parent = match self.existing(parent_path) {
                    Ok(parent) => parent,
                    Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
                    Err(e) => return Err(failed("open", parent_path, e)),
                };
                if !self.ours.contains(path) {
                    self.forget(path);
                    return parent.remove_tree(name).map_err(|e| failed("remove", path, e));
                }
                match parent.found(name) {
                    Ok(Some(Found::Dir)) => self.opaque(path),
                    Ok(_) => Ok(()),
                    Err(e) => Err(failed("look at", path, e)),
                }
            }
            None => Ok(()),
        }
    }

    fn opaque(&mut self, path: &[u8]) -> Result<()> {
        match self.options.whiteouts {
            Some(Whiteouts::Overlay) => {
                let dir = self.dir_at(path)?;
                dir.set_opaque().map_err(|e| failed("make opaque", path, e))
            }
            Some(Whiteouts::Apply) => match self.existing(path) {
                Ok(dir) => self.remove_lower(&dir, path),
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(()),
                Err(e) => Err(failed("open", path, e)),
            },
            None => Ok(()),
        }
    }

    /// Removes from `dir` what lower layers left there, also within directories that both have.
    fn remove_lower(&mut self, dir: &DirAt, path: &[u8]) -> Result<()> {
        let mut left = vec![path.to_vec()];
        self.parents.clear();
        while let Some(at) = left.pop() {
            let below = if at == path { None } else { Some(self.dir_at(&at)?) };
            let here = below.as_deref().unwrap_or(dir);
            for name in here.names().map_err(|e| failed("list", &at, e))? {
                let child = path::join(&at, &name);
                if !self.ours.contains(&child) {
                    here.remove_tree(&name).map_err(|e| failed("remove", &child, e))?;
                } else if here.found(&name).map_err(|e| failed("look at", &child, e))? == Some(Found::Dir) {
                    left.push(child);
                }
            }
        }
        Ok(())
    }

    /// Notes that this layer brought `path`, and so all above it.
    fn claim(&mut self, path: &[u8]) {
        let mut path = path;
        if self.options.whiteouts == Some(Whiteouts::Apply) {
            while !path.is_empty() && self.ours.insert(path.to_vec()) {
                (path, _) = path::split(path);
            }
        }
    }

    /// The directories' modes and times, children before parents.
    fn finish(&mut self) -> Result<()> {
        for (path, late) in std::mem::take(&mut self.late).into_iter().rev() {
            let (parent_path, name) = path::split(&path);
            let name = if path.is_empty() { b"." } else { name };
            let parent = match self.existing(parent_path) {
                Ok(parent) => parent,
                // Something replaced it later.
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
                Err(e) => return Err(failed("open", parent_path, e)),
            };
            let set = match late.mode {
                Some(mode) => parent.chmod_dir(name, mode),
                None => Ok(()),
            };
            match set.and_then(|()| parent.set_mtime(name, late.mtime)) {
                Err(e) if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    return Err(failed("set mode and time of", &path, e));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes something under the last name of `path`, after clearing away what was there.
    fn fresh<T>(&mut self, parent: &DirAt, path: &[u8], make: impl Fn(&[u8]) -> io::Result<T>) -> Result<T> {
        let (_, name) = path::split(path);
        let made = match make(name) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                let is_dir = |found| found == Some(Found::Dir);
                if self.keeps_kinds() && parent.found(name).is_ok_and(is_dir) {
                    return Err(replaced("directory", path, "non-directory"));
                }
                self.forget(path);
                parent.remove_tree(name).map_err(|e| failed("replace", path, e))?;
                make(name)
            }
            other => other,
        };
        made.map_err(|e| failed("create", path, e))
    }

    /// Something is removed: nothing that was known of it, or through it, holds any more.
    fn forget(&mut self, path: &[u8]) {
        self.parents.clear();
        let below = |key: &[u8]| key.starts_with(path) && key.get(path.len()).is_none_or(|b| *b == b'/');
        let gone: Vec<Vec<u8>> =
            self.late.range(path.to_vec()..).take_while(|(k, _)| k.starts_with(path)).map(|(k, _)| k.clone()).collect();
        for key in gone.iter().filter(|key| below(key)) {
            self.late.remove(key);
        }
    }

    /// The directory that is to hold `path`, made with its parents if it is missing.
    fn parent(&mut self, path: &[u8]) -> Result<Rc<DirAt>> {
        self.dir_at(path::split(path).0)
    }

    /// The directory `path`, made with its parents if it is missing.
    fn dir_at(&mut self, path: &[u8]) -> Result<Rc<DirAt>> {
        match self.existing(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) if e.kind() == ErrorKind::NotADirectory && self.hidden.contains(path) => {}
            other => return other.map_err(|e| failed("open", path, e)),
        }
        let parent = self.parent(path)?;
        let (_, name) = path::split(path);
        match parent.mkdir(name, 0o755) {
            // A symlink that leads nowhere, or a whiteout, stands in the way.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                self.fresh(&parent, path, |name| parent.mkdir(name, 0o755))?;
            }
            other => other.map_err(|e| failed("create", path, e))?,
        }
        if self.hidden.remove(path) {
            let dir = parent.child(name).map_err(|e| failed("open", path, e))?;
            dir.set_opaque().map_err(|e| failed("make opaque", path, e))?;
        }
        self.existing(path).map_err(|e| failed("open", path, e))
    }

    /// The directory `path` if it is there.
    fn existing(&mut self, path: &[u8]) -> io::Result<Rc<DirAt>> {
        if path.is_empty() {
            return Ok(Rc::clone(&self.root));
        }
        if let Some(dir) = self.parents.get(path) {
            return Ok(Rc::clone(dir));
        }
        let dir = Rc::new(self.root.within(path)?);
        if self.parents.len() >= MAX_PARENTS {
            self.parents.clear();
        }
        self.parents.insert(path.to_vec(), Rc::clone(&dir));
        Ok(dir)
    }

    /// The mode an entry gets. Set-id bits mean nothing without the owner they speak of.
    fn mode(&self, entry: &Entry) -> u32 {
        if self.options.privileged { entry.mode } else { entry.mode & 0o1777 }
    }

    /// True when a file made with `mode` does not have it yet.
    fn needs_chmod(&self, mode: u32) -> bool {
        mode & (0o7000 | self.umask) != 0
    }

    fn keeps_kinds(&self) -> bool {
        self.placing.is_some_and(|placing| placing.keep_kinds)
    }

    /// Whose an entry is.
    fn ids(&self, entry: &Entry) -> (u32, u32) {
        self.placing.and_then(|placing| placing.owner).unwrap_or((entry.uid, entry.gid))
    }

    /// Whom an entry is to be given to, unless a new file is theirs already.
    fn owner(&self, entry: &Entry) -> Option<(u32, u32)> {
        let ids = self.ids(entry);
        (self.options.privileged && (self.strange_groups || ids != self.own_ids)).then_some(ids)
    }

    fn own(&self, parent: &DirAt, name: &[u8], path: &[u8], entry: &Entry) -> Result<()> {
        if !self.options.privileged {
            return Ok(());
        }
        let (uid, gid) = self.ids(entry);
        parent.own(name, uid, gid).map_err(|e| self.own_failed(path, uid, gid, e))
    }

    fn own_and_date(&self, parent: &DirAt, path: &[u8], entry: &Entry) -> Result<()> {
        let (_, name) = path::split(path);
        if self.owner(entry).is_some() {
            self.own(parent, name, path, entry)?;
        }
        parent.set_mtime(name, entry.mtime).map_err(|e| failed("set time of", path, e))
    }

    /// In a user namespace an unmapped owner is EINVAL (user_namespaces(7)).
    fn own_failed(&self, path: &[u8], uid: u32, gid: u32, error: io::Error) -> Error {
        if !matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::PermissionDenied) {
            return failed("chown", path, error);
        }
        Error::new(Class::Forbidden, format!("layer: cannot give {} to {uid}:{gid}: {error}", show(path)))
            .with_hint("this user needs a range of ids in /etc/subuid and /etc/subgid, and newuidmap (package uidmap)")
    }

    fn dir_xattrs(&mut self, dir: &DirAt, path: &[u8], entry: &Entry) -> Result<()> {
        for (name, value) in &entry.xattrs {
            if !self.allows(name) || !dir.set_xattr(name, value).map_err(|e| failed("set xattr of", path, e))? {
                self.note(|| format!("{}: xattr {} left out", show(path), show(name)));
            }
        }
        Ok(())
    }

    /// The xattrs an image may set: file capabilities and the user's own. Overlayfs's would rewire the union, trusted
    /// ones speak to the host, and security labels are the host's to give.
    fn allows(&self, name: &[u8]) -> bool {
        (name == b"security.capability" && self.options.privileged)
            || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if self.done.notes.len() < MAX_NOTES {
            self.done.notes.push(text());
        }
    }
}
