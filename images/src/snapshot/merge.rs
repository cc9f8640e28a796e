//! Looking at a union without mounting it: for `export`, `diff` and the layers that `commit` writes.
//!
//! Overlayfs's rules (<https://docs.kernel.org/filesystems/overlayfs.html>): the topmost name wins, a whiteout hides the
//! name below, directories merge down to the first that is opaque or meets something else.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use super::ChangeKind::{self, Added, Changed, Deleted};
use super::Rootfs;
use crate::error::{Class, Error, Result};
use crate::layer::entry::{Stat, StatKind};
use crate::layer::write::TarWriter;
use crate::os::{self, DirAt};

/// Directories one upon the other, topmost first.
pub(super) struct Union {
    roots: Vec<DirAt>,
}

/// One directory of a union: the layers that have a part in it.
pub(super) type Parts = Vec<(usize, DirAt)>;

impl Union {
    fn open<'a>(dirs: impl Iterator<Item = &'a Path>) -> Result<Self> {
        let open = |dir: &Path| DirAt::open(dir).map_err(|e| Error::io("open", dir, e));
        Ok(Union { roots: dirs.map(open).collect::<Result<_>>()? })
    }

    /// All that `rootfs` is made of.
    pub(super) fn of(rootfs: &Rootfs) -> Result<Self> {
        match rootfs {
            Rootfs::Dir(dir) => Union::open(std::iter::once(dir.as_path())),
            Rootfs::Overlay { lower, upper, .. } => Union::open(std::iter::once(upper).chain(lower).map(AsRef::as_ref)),
        }
    }

    /// The layers that show at `path`, which has no links in it: those up to the first in which a directory on the way is
    /// opaque or something else.
    pub(super) fn visible(&self, path: &[u8]) -> io::Result<Vec<usize>> {
        let mut among = self.all();
        for (at, _) in path.iter().enumerate().filter(|(_, b)| **b == b'/') {
            among = layers(&self.parts(&path[..at], &among)?);
        }
        Ok(among)
    }

    fn all(&self) -> Vec<usize> {
        (0..self.roots.len()).collect()
    }

    /// The parts of the directory `path` in those of `layers` that show there.
    pub(super) fn parts(&self, path: &[u8], layers: &[usize]) -> io::Result<Parts> {
        let mut parts = Vec::new();
        for &layer in layers {
            match self.roots[layer].at(path) {
                Ok(dir) => {
                    let last = dir.is_opaque()?;
                    parts.push((layer, dir));
                    if last {
                        break;
                    }
                }
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) if e.kind() == ErrorKind::NotADirectory => break,
                Err(e) => return Err(e),
            }
        }
        Ok(parts)
    }
}

pub(super) fn layers(parts: &Parts) -> Vec<usize> {
    parts.iter().map(|(layer, _)| *layer).collect()
}

/// What shows in a directory, by name: the place of the winning part among `parts`, and what it is. Whiteouts are told.
pub(super) fn names(parts: &Parts) -> io::Result<BTreeMap<Vec<u8>, (usize, Stat)>> {
    let mut found = BTreeMap::new();
    for (place, (_, dir)) in parts.iter().enumerate() {
        for name in dir.names()? {
            if let Entry::Vacant(vacant) = found.entry(name) {
                let stat = dir.stat(vacant.key())?;
                vacant.insert((place, stat));
            }
        }
    }
    Ok(found)
}

pub(super) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

pub(super) fn failed(path: &[u8]) -> impl Fn(io::Error) -> Error + '_ {
    move |e| Error::io("read", String::from_utf8_lossy(path).into_owned(), e)
}

/// Writes the whole tree of `rootfs` as a tar archive: sorted, so that the same tree gives the same bytes.
///
/// # Errors
/// The disk's, or `out`'s.
pub fn export(rootfs: &Rootfs, out: &mut dyn Write) -> Result<()> {
    write(&Union::of(rootfs)?, false, &|_| false, &mut TarWriter::new(out))
}

/// Writes the directory `dir` as a tar archive, its own owner and mode first: a backup of a volume.
///
/// # Errors
/// The disk's, or `out`'s.
pub fn export_dir(dir: &Path, out: &mut dyn Write) -> Result<()> {
    let union = Union::open(std::iter::once(dir))?;
    let mut tar = TarWriter::exact(out);
    let root = &union.roots[0];
    let mut own = || tar.entry(b"./", &root.stat(b".")?, b"", false, &root.xattrs()?);
    own().map_err(|e| failed_in(&tar, b".", e))?;
    write(&union, false, &|_| false, &mut tar)
}

/// Writes what the writable layer of `rootfs` changes as an OCI layer, whiteouts included. Empty files and directories at
/// paths (from the root, without a slash before) of which `skip` says so are left out.
///
/// # Errors
/// `Unsupported` for a rootfs that is no union; the disk's, or `out`'s.
pub fn export_changes(rootfs: &Rootfs, skip: &dyn Fn(&[u8]) -> bool, out: &mut dyn Write) -> Result<()> {
    let Rootfs::Overlay { upper, .. } = rootfs else {
        return Err(Error::new(Class::Unsupported, "the copy snapshotter cannot tell a container's changes apart"));
    };
    write(&Union::open(std::iter::once(upper.as_path()))?, true, skip, &mut TarWriter::new(out))
}

fn write(
    union: &Union,
    whiteouts: bool,
    skip: &dyn Fn(&[u8]) -> bool,
    tar: &mut TarWriter<&mut dyn Write>,
) -> Result<()> {
    let mut linked: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    let mut left = vec![(Vec::new(), union.all())];
    while let Some((path, among)) = left.pop() {
        let parts = union.parts(&path, &among).map_err(failed(&path))?;
        let mut below = Vec::new();
        if whiteouts && parts.first().is_some_and(|(_, dir)| dir.is_opaque().unwrap_or(false)) {
            let mark = Stat { kind: StatKind::Whiteout, ..parts[0].1.stat(b".").map_err(failed(&path))? };
            tar.entry(&join(&path, b".wh..wh..opq"), &mark, b"", false, &[]).map_err(failed(&path))?;
        }
        for (name, (place, stat)) in names(&parts).map_err(failed(&path))? {
            let child = join(&path, &name);
            let dir = &parts[place].1;
            let empty = match stat.kind {
                StatKind::Dir => dir.child(&name).and_then(|dir| dir.names()).is_ok_and(|names| names.is_empty()),
                _ => stat.size == 0,
            };
            if empty && skip(&child) {
                continue;
            }
            let mut put = || -> io::Result<()> {
                match stat.kind {
                    StatKind::Whiteout if whiteouts => {
                        let mark = join(&path, &[b".wh.", &name[..]].concat());
                        tar.entry(&mark, &stat, b"", false, &[])
                    }
                    StatKind::Whiteout | StatKind::Socket => Ok(()),
                    StatKind::Dir => {
                        let xattrs = dir.child(&name)?.xattrs()?;
                        tar.entry(&[&child[..], b"/"].concat(), &stat, b"", false, &xattrs)
                    }
                    StatKind::Symlink => tar.entry(&child, &stat, &dir.read_link(&name)?, false, &[]),
                    StatKind::Node(_) => tar.entry(&child, &stat, b"", false, &[]),
                    StatKind::File => {
                        if let Some(first) = stat.linked.and_then(|key| linked.get(&key)) {
                            return tar.entry(&child, &stat, first, true, &[]);
                        }
                        linked.extend(stat.linked.map(|key| (key, child.clone())));
                        let mut file = dir.open_file(&name)?;
                        tar.entry(&child, &stat, b"", false, &os::xattrs(&file)?)?;
                        tar.content(&mut file, stat.size)
                    }
                }
            };
            put().map_err(|e| failed_in(tar, &child, e))?;
            if stat.kind == StatKind::Dir {
                below.push((child, layers(&parts)));
            }
        }
        left.extend(below.into_iter().rev());
    }
    tar.finish().map_err(|e| Error::io("write", "archive", e))
}

/// What failed while `path` went into an archive: the reading or the writing.
fn failed_in(tar: &TarWriter<&mut dyn Write>, path: &[u8], e: io::Error) -> Error {
    if tar.has_failed() { Error::io("write", "archive", e) } else { failed(path)(e) }
}

/// What `upper` changes on top of `lower` (topmost first), as `docker diff` tells it: sorted, with a leading slash.
/// With `whole`, `upper` is a whole tree, and what it lacks is deleted.
pub(super) fn changes<'a>(
    upper: &Path,
    lower: impl Iterator<Item = &'a Path>,
    whole: bool,
) -> Result<Vec<(String, ChangeKind)>> {
    let (above, below) = (Union::open(std::iter::once(upper))?, Union::open(lower)?);
    let mut changes = BTreeSet::new();
    let mut left = vec![(Vec::new(), below.all())];
    while let Some((path, among)) = left.pop() {
        let parts = above.parts(&path, &[0]).map_err(failed(&path))?;
        let opaque = parts.first().is_some_and(|(_, dir)| dir.is_opaque().unwrap_or(false));
        let under = below.parts(&path, &among).map_err(failed(&path))?;
        let mut old = names(&under).map_err(failed(&path))?;
        old.retain(|_, (_, stat)| stat.kind != StatKind::Whiteout);
        let mut tell = |name: &[u8], kind| {
            changes.insert((join(&path, name), kind));
        };
        for (name, (_, stat)) in names(&parts).map_err(failed(&path))? {
            let was = old.remove(&name);
            match (stat.kind, &was) {
                (StatKind::Whiteout, None) => {}
                (StatKind::Whiteout, Some(_)) => tell(&name, Deleted),
                (_, None) => tell(&name, Added),
                // A whole tree repeats what has not changed; a link's count of names is no change.
                (_, Some((_, was)))
                    if whole && Stat { linked: None, ..was.clone() } == Stat { linked: None, ..stat.clone() } => {}
                (_, Some(_)) => tell(&name, Changed),
            }
            if stat.kind == StatKind::Dir {
                let both = was.is_some_and(|(_, was)| was.kind == StatKind::Dir);
                left.push((join(&path, &name), if both { layers(&under) } else { Vec::new() }));
            }
        }
        if whole || opaque {
            old.into_keys().for_each(|name| tell(&name, Deleted));
        }
    }
    Ok(changes.into_iter().map(|(path, kind)| (format!("/{}", String::from_utf8_lossy(&path)), kind)).collect())
}
