//! Files out of and into a tree that somebody else may be changing meanwhile: what `cp` and the archive calls of docker's
//! API do to a container's root filesystem, and `cp` to the person's own directories.
//!
//! A path of the tree is walked name by name, and its symlinks are followed by us, inside the tree. What is found is a
//! path without symlinks, and it is opened as one (openat2(2), `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`): who swaps a
//! directory for a symlink in between makes us fail, and leads us nowhere. Files are opened only once they are known to
//! be files: not every device takes being opened lightly.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use serde::{Deserialize, Serialize};

use crate::error::{Class, Error, Result};
use crate::layer;
use crate::layer::entry::{Stat, StatKind};
use crate::layer::write::TarWriter;
use crate::os::{self, DirAt};

/// Most symlinks on one way, as the kernel counts them.
const MOST_LINKS: usize = 40;

/// A tree, by its root.
#[derive(Debug)]
pub struct Tree {
    root: DirAt,
}

/// What a path is: docker's `ContainerPathStat`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathStat {
    /// The last name of the path.
    pub name: String,
    /// Bytes, of a file.
    pub size: u64,
    /// What it is.
    pub kind: PathKind,
    /// Permission bits, set-id bits and the sticky bit.
    pub mode: u32,
    /// Seconds since 1970 of its last change.
    pub mtime: i64,
    /// Of a symlink: where it leads in the end, from the root of the tree.
    pub link_target: Option<String>,
}

/// What a name in a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathKind {
    /// A directory.
    Dir,
    /// A regular file.
    File,
    /// A symlink.
    Symlink,
    /// A device, a fifo, a socket.
    Other,
}

/// How an archive is unpacked into a tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placing {
    /// A directory does not replace another thing, nor another thing a directory.
    pub keep_kinds: bool,
    /// Keep owners, devices and set-id bits, for which we must be root (of a user namespace that maps the owners).
    /// Otherwise all belongs to us.
    pub keep_owners: bool,
    /// Whose everything becomes instead.
    pub owner: Option<(u32, u32)>,
}

/// Whether there is room for something of so many bytes.
pub type Room<'a> = dyn Fn(u64) -> std::io::Result<()> + Sync + 'a;

/// Where a path of the tree leads.
struct Place {
    /// From the root, without symlinks. Empty is the root.
    path: Vec<u8>,
    /// `None` when there is nothing there; its directory exists.
    stat: Option<Stat>,
}

impl Tree {
    /// The tree whose root is `dir`.
    ///
    /// # Errors
    /// The system's.
    pub fn of(dir: &Dir) -> Result<Self> {
        Ok(Tree { root: DirAt::of(dir).map_err(|e| Error::io("open", "/", e))? })
    }

    /// The tree whose root is the directory at `path` of this machine.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path) -> Result<Self> {
        let dir = Dir::open_ambient_dir(path, ambient_authority()).map_err(|e| Error::io("open", path, e))?;
        Tree::of(&dir)
    }

    /// What is at `path`. Its last symlink is followed if the path ends with a slash or a dot.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` for a name that must be a directory and is none.
    pub fn stat(&self, path: &str) -> Result<PathStat> {
        let (place, stat) = self.existing(path, names_directory(path))?;
        self.told(path, &place, &stat).map_err(|e| Error::io("stat", path, e))
    }

    fn told(&self, path: &str, place: &Place, stat: &Stat) -> io::Result<PathStat> {
        let kind = match stat.kind {
            StatKind::Dir => PathKind::Dir,
            StatKind::File => PathKind::File,
            StatKind::Symlink => PathKind::Symlink,
            StatKind::Node(_) | StatKind::Socket | StatKind::Whiteout => PathKind::Other,
        };
        let link_target = match kind {
            PathKind::Symlink => match self.find(&place.path, true) {
                Ok(end) => Some(format!("/{}", String::from_utf8_lossy(&end.path))),
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    let (parent, name) = split(&place.path);
                    let target = self.root.at(parent)?.read_link(name)?;
                    Some(String::from_utf8_lossy(&target).into_owned())
                }
                Err(e) => return Err(e),
            },
            PathKind::Dir | PathKind::File | PathKind::Other => None,
        };
        Ok(PathStat {
            name: last_name(path).to_owned(),
            size: stat.size,
            kind,
            mode: stat.mode,
            mtime: stat.mtime.seconds,
            link_target,
        })
    }

    /// Writes what is at `path`, and all below it, as a tar archive. Its entries are called `name`, or `name/...`; without
    /// a name they have the path's last one (`.` if the path ends so).
    ///
    /// # Errors
    /// As [`Tree::stat`]; the disk's, or `out`'s.
    pub fn pack(&self, path: &str, name: Option<&str>, out: &mut dyn Write) -> Result<()> {
        let (place, stat) = self.existing(path, names_directory(path))?;
        let name = name.unwrap_or_else(|| last_name(path)).as_bytes().to_vec();
        let mut tar = TarWriter::new(out);
        let mut linked: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
        let mut left = vec![(place.path, name, Some(stat))];
        while let Some((at, name, stat)) = left.pop() {
            let failed = |e: io::Error| Error::io("read", String::from_utf8_lossy(&at).into_owned(), e);
            match self.pack_one(&mut tar, &mut linked, &at, &name, stat) {
                Ok(below) => left.extend(below.into_iter().rev().map(|child| {
                    let entry = [&name[..], b"/", &child].concat();
                    (join(&at, &child), entry, None)
                })),
                // It was there a moment ago.
                Err(e) if e.kind() == ErrorKind::NotFound && !linked.is_empty() => {}
                Err(e) => return Err(failed(e)),
            }
        }
        tar.finish().map_err(|e| Error::io("write", "archive", e))
    }

    /// Writes one entry. Returns the names below it, sorted, if it is a directory.
    fn pack_one(
        &self,
        tar: &mut TarWriter<&mut dyn Write>,
        linked: &mut HashMap<(u64, u64), Vec<u8>>,
        at: &[u8],
        entry: &[u8],
        stat: Option<Stat>,
    ) -> io::Result<Vec<Vec<u8>>> {
        let (parent, name) = split(at);
        let dir = self.root.at(parent)?;
        let stat = match stat {
            Some(stat) => stat,
            None => match dir.stat(name) {
                Ok(stat) => stat,
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
                Err(e) => return Err(e),
            },
        };
        match stat.kind {
            // Neither means anything elsewhere.
            StatKind::Socket | StatKind::Whiteout => {}
            StatKind::Dir => {
                let this = if at.is_empty() { self.root.at(b"")? } else { dir.child(name)? };
                tar.entry(&[entry, b"/"].concat(), &stat, b"", false, &this.xattrs()?)?;
                let mut names = this.names()?;
                names.sort_unstable();
                return Ok(names);
            }
            StatKind::Symlink => tar.entry(entry, &stat, &dir.read_link(name)?, false, &[])?,
            StatKind::Node(_) => tar.entry(entry, &stat, b"", false, &[])?,
            StatKind::File => {
                if let Some(first) = stat.linked.and_then(|key| linked.get(&key)) {
                    tar.entry(entry, &stat, first, true, &[])?;
                    return Ok(Vec::new());
                }
                let mut file = match dir.open_file(name) {
                    Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
                    other => other?,
                };
                linked.extend(stat.linked.map(|key| (key, entry.to_vec())));
                // What the open file has, not what had its name before.
                let stat = Stat { size: file.metadata()?.len(), ..stat };
                tar.entry(entry, &stat, b"", false, &os::xattrs(&file)?)?;
                tar.content(&mut file, stat.size)?;
            }
        }
        Ok(Vec::new())
    }

    /// Unpacks a tar archive (plain, gzip or zstd) into the directory at `path`, symlinks in it followed. Nothing is
    /// written outside of that directory. Returns what was left out, in words for people.
    ///
    /// # Errors
    /// `NotFound` when there is nothing at `path`, `InvalidInput` when it is no directory; the archive's or the disk's.
    pub fn unpack(&self, path: &str, reader: &mut dyn Read, placing: &Placing) -> Result<Vec<String>> {
        self.unpack_within(path, reader, placing, None)
    }

    /// The same, where `room` is asked before anything takes space in the tree's own mount: what else is mounted in it
    /// has its own.
    ///
    /// # Errors
    /// As [`Tree::unpack`], and what `room` says.
    pub fn unpack_within(
        &self,
        path: &str,
        reader: &mut dyn Read,
        placing: &Placing,
        room: Option<&Room<'_>>,
    ) -> Result<Vec<String>> {
        let (place, stat) = self.existing(path, true)?;
        if stat.kind != StatKind::Dir {
            return Err(Error::new(Class::InvalidInput, "extraction point is not a directory"));
        }
        let root = self.root.at(&place.path).map_err(|e| Error::io("open", path, e))?;
        let mount = || self.root.mount().map_err(|e| Error::io("look at", "/", e));
        let room = room.map(|room| mount().map(|mount| (room, mount))).transpose()?;
        Ok(layer::place(reader, root, placing, room)?.notes)
    }

    /// Where `path` leads, which must be something.
    fn existing(&self, path: &str, follow: bool) -> Result<(Place, Stat)> {
        if path.contains('\0') {
            return Err(Error::new(Class::InvalidInput, format!("{path:?}: a path has no NUL")));
        }
        let missing = || Error::new(Class::NotFound, format!("{path}: no such file or directory"));
        let mut place = match self.find(path.as_bytes(), follow) {
            Ok(place) => place,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Err(missing()),
            Err(e) => return Err(Error::io("stat", path, e)),
        };
        let stat = place.stat.take().ok_or_else(missing)?;
        if names_directory(path) && stat.kind != StatKind::Dir {
            return Err(Error::new(Class::InvalidInput, format!("{path}: not a directory")));
        }
        Ok((place, stat))
    }

    /// Walks `path` from the root, whatever it begins with.
    fn find(&self, path: &[u8], follow: bool) -> io::Result<Place> {
        // Names still to be walked, the next one last.
        let mut left: Vec<Vec<u8>> = names(path).rev().collect();
        let mut place = Place { path: Vec::new(), stat: None };
        let mut links = 0;
        while let Some(name) = left.pop() {
            if name == b".." {
                place.path = split(&place.path).0.to_vec();
                continue;
            }
            let dir = self.root.at(&place.path)?;
            let stat = match dir.stat(&name) {
                Ok(stat) => stat,
                Err(e) if e.kind() == ErrorKind::NotFound && left.is_empty() => {
                    return Ok(Place { path: join(&place.path, &name), stat: None });
                }
                Err(e) => return Err(e),
            };
            if stat.kind == StatKind::Symlink && (follow || !left.is_empty()) {
                links += 1;
                if links > MOST_LINKS {
                    return Err(io::Error::other("too many levels of symbolic links"));
                }
                let target = dir.read_link(&name)?;
                if target.starts_with(b"/") {
                    place.path.clear();
                }
                left.extend(names(&target).rev());
                continue;
            }
            place.path = join(&place.path, &name);
            place.stat = Some(stat);
        }
        // The last name may have been `..`, or there was none: this is a directory.
        let (parent, name) = split(&place.path);
        let stat = if name.is_empty() { self.root.stat(b".")? } else { self.root.at(parent)?.stat(name)? };
        Ok(Place { stat: Some(stat), ..place })
    }
}

/// The names of a path, without empty ones and dots.
fn names(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    path.split(|b| *b == b'/').filter(|name| !name.is_empty() && *name != b".").map(<[u8]>::to_vec)
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// True for a path that says of itself that it is a directory: `a/`, `a/.`.
pub fn names_directory(path: &str) -> bool {
    path.ends_with('/') || path == "." || path.ends_with("/.")
}

/// The last name of a path as docker has it in archives: `.` of the root, and of a path that ends so.
pub fn last_name(path: &str) -> &str {
    if path == "." || path.ends_with("/.") {
        return ".";
    }
    match path.trim_end_matches('/').rsplit('/').next() {
        Some("") | None => ".",
        Some(name) => name,
    }
}

#[cfg(test)]
mod tests;
