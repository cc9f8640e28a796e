//! A directory of the tree, and how one name leads to the next.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::sync::Arc;
use std::time::SystemTime;

use cap_fs_ext::{FileTypeExt, MetadataExt};
use cap_std::fs::{Dir, FileType, Metadata};

use super::directory::Entry;
use super::error::{Code, Result};
use super::names;
use super::tree::{Mounted, Part, Place, Point};
use crate::linux::files;
use crate::wasi::bindings::types::DescriptorType as Kind;

/// A directory.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    /// A way here from the root: names with slashes before them. The root's is empty.
    pub(super) path: String,
    /// What is mounted below, if anything is.
    pub(super) points: Option<Arc<Point>>,
}

/// What a name leads to.
#[derive(Debug)]
pub(super) enum Look {
    /// Nothing. With a whiteout the name is taken in the upper layer all the same.
    Nothing { whiteout: bool },
    /// A directory.
    Dir(Node),
    /// A file, symlink or whatever else.
    Leaf(Leaf),
    /// A file that is mounted there.
    File(MountedFile),
}

/// What is no directory.
#[derive(Debug)]
pub(super) struct Leaf {
    /// The directory that has it.
    pub(super) at: Arc<Dir>,
    /// That directory is in the upper layer, where it may be changed.
    pub(super) upper: bool,
    pub(super) metadata: Metadata,
}

impl Leaf {
    /// Where it leads, if it is a symlink.
    pub(super) fn read_link(&self, name: &str) -> Result<String> {
        let target = self.at.read_link_contents(name)?;
        target.into_os_string().into_string().map_err(|_| Code::IllegalByteSequence)
    }
}

/// A mounted file.
#[derive(Debug, Clone)]
pub(super) struct MountedFile {
    pub(super) part: Arc<Part>,
    pub(super) file: Arc<File>,
    pub(super) writable: bool,
}

/// Where a path leads.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it lives for one call, and nobody keeps many")]
pub(super) enum Target {
    /// To a directory that the path's end does not name: `.`, `..`, the root.
    Dir(Node),
    /// To a name in a directory.
    Entry {
        parent: Node,
        name: String,
        /// The path ends in a slash: only a directory will do.
        slash: bool,
        look: Look,
    },
}

/// One step of a path that is left to walk.
struct Step {
    name: String,
    /// The guest said it; otherwise a symlink did.
    literal: bool,
}

/// What a guest may know of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) kind: Kind,
    pub(crate) links: u64,
    /// Bytes.
    pub(crate) size: u64,
    pub(crate) accessed: Option<SystemTime>,
    pub(crate) modified: Option<SystemTime>,
    pub(crate) changed: Option<SystemTime>,
    /// Device and inode: what makes it itself.
    pub(crate) identity: (u64, u64),
}

impl Stat {
    pub(super) fn of(metadata: &Metadata) -> Stat {
        Stat {
            kind: kind(metadata.file_type()),
            links: metadata.nlink(),
            size: metadata.len(),
            accessed: metadata.accessed().ok().map(cap_std::time::SystemTime::into_std),
            modified: metadata.modified().ok().map(cap_std::time::SystemTime::into_std),
            changed: files::status_change(metadata),
            identity: (metadata.dev(), metadata.ino()),
        }
    }
}

/// What a file is, in WASI's words.
/// Seconds and nanoseconds since 1970 as systems have them: before that the seconds are negative, and the nanoseconds lead
/// up from them all the same.
pub(crate) fn unix_time(time: SystemTime) -> Option<(i64, u32)> {
    let before = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => return Some((i64::try_from(since.as_secs()).ok()?, since.subsec_nanos())),
        Err(before) => before.duration(),
    };
    let whole = 0i64.checked_sub_unsigned(before.as_secs())?;
    match before.subsec_nanos() {
        0 => Some((whole, 0)),
        part => Some((whole.checked_sub(1)?, 1_000_000_000 - part)),
    }
}

pub(super) fn kind(kind: FileType) -> Kind {
    if kind.is_dir() {
        Kind::Directory
    } else if kind.is_file() {
        Kind::RegularFile
    } else if kind.is_symlink() {
        Kind::SymbolicLink
    } else if kind.is_block_device() {
        Kind::BlockDevice
    } else if kind.is_char_device() {
        Kind::CharacterDevice
    } else if kind.is_fifo() {
        Kind::Fifo
    } else if kind.is_socket() {
        Kind::Socket
    } else {
        Kind::Unknown
    }
}

/// What one layer has under a name.
enum Found {
    Nothing,
    Dir(Dir),
    Other(Metadata),
}

/// Looks at `name` in one directory of one layer, following nothing. `directory` says what it most likely is.
fn find(dir: &Dir, name: &str, directory: bool) -> Result<Found> {
    if directory {
        match files::open_dir(dir, name) {
            Ok(dir) => return Ok(Found::Dir(dir)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Nothing),
            // No directory; or none that we may open, which the next call will say.
            Err(_) => {}
        }
    }
    match dir.symlink_metadata(name) {
        Ok(metadata) if metadata.is_dir() => Ok(Found::Dir(files::open_dir(dir, name)?)),
        Ok(metadata) => Ok(Found::Other(metadata)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Found::Nothing),
        Err(e) => Err(e.into()),
    }
}

impl Node {
    /// The most symlinks on one way, as in Linux.
    pub(super) const MOST_LINKS: usize = 40;

    /// The one directory that this is, with nothing beneath it, beside it or mounted in it: `cap_std` alone does right
    /// by it, whatever the path.
    pub(super) fn plain(&self) -> Option<&Arc<Dir>> {
        let alone = self.points.is_none() && self.place.lowers.is_empty() && self.place.part.direct;
        if alone { self.place.upper.as_ref() } else { None }
    }

    /// What `name` leads to here, following nothing. `directory` says what it most likely is.
    pub(super) fn look(&self, name: &str, directory: bool) -> Result<Look> {
        names::check_length(name)?;
        let point = self.points.as_ref().and_then(|points| points.below.get(name));
        let Some(point) = point else { return self.look_in_layers(name, directory) };
        let path = format!("{}/{name}", self.path);
        let points = (!point.below.is_empty()).then(|| Arc::clone(point));
        let place = match &point.mounted {
            Some(Mounted::File { part, file, writable }) => {
                let (part, file) = (Arc::clone(part), Arc::clone(file));
                return Ok(Look::File(MountedFile { part, file, writable: *writable }));
            }
            Some(Mounted::Directory(place)) => place.clone(),
            // On the way to a mount: what is there, or else a directory that has nothing but that.
            None => match self.look_in_layers(name, true)? {
                Look::Dir(node) => node.place,
                _ => Place { part: Arc::clone(&self.place.part), upper: None, lowers: Vec::new() },
            },
        };
        Ok(Look::Dir(Node { place, path, points }))
    }

    fn look_in_layers(&self, name: &str, directory: bool) -> Result<Look> {
        let union = self.place.part.union.is_some();
        let node = |upper, lowers| {
            let place = Place { part: Arc::clone(&self.place.part), upper, lowers };
            Look::Dir(Node { place, path: format!("{}/{name}", self.path), points: None })
        };
        let mut upper = None;
        if let Some(dir) = &self.place.upper {
            match find(dir, name, directory)? {
                Found::Nothing => {}
                Found::Other(metadata) if union && files::is_whiteout(&metadata) => {
                    return Ok(Look::Nothing { whiteout: true });
                }
                Found::Other(metadata) => {
                    return Ok(Look::Leaf(Leaf { at: Arc::clone(dir), upper: true, metadata }));
                }
                Found::Dir(dir) if self.place.lowers.is_empty() || files::is_opaque(&dir)? => {
                    return Ok(node(Some(Arc::new(dir)), Vec::new()));
                }
                Found::Dir(dir) => upper = Some(Arc::new(dir)),
            }
        }
        let mut lowers = Vec::new();
        for dir in &self.place.lowers {
            match find(dir, name, directory)? {
                Found::Nothing => {}
                Found::Dir(dir) => {
                    let last = files::is_opaque(&dir)?;
                    lowers.push(Arc::new(dir));
                    if last {
                        break;
                    }
                }
                // A directory above hides it and all below it.
                Found::Other(_) if upper.is_some() || !lowers.is_empty() => break,
                Found::Other(metadata) if files::is_whiteout(&metadata) => break,
                Found::Other(metadata) => {
                    return Ok(Look::Leaf(Leaf { at: Arc::clone(dir), upper: false, metadata }));
                }
            }
        }
        match upper.is_none() && lowers.is_empty() {
            true => Ok(Look::Nothing { whiteout: false }),
            false => Ok(node(upper, lowers)),
        }
    }

    /// Walks `path` from here, in the tree of `root`. The symlink at its end is followed if `follow` says so, or if a
    /// slash comes after it. Only an `ambient` handle may be left by `..`: the specification confines a path to the
    /// directory that it starts in. Symlinks may lead anywhere in the tree.
    pub(super) fn resolve(&self, root: &Node, path: &str, follow: bool, ambient: bool) -> Result<Target> {
        let mut slash = false;
        let mut left = Vec::new();
        push(&mut left, path, true, &mut slash);
        let mut way = vec![self.clone()];
        let mut links = 0;
        while let Some(step) = left.pop() {
            if step.name == ".." {
                if way.len() > 1 {
                    way.pop();
                } else if step.literal && !ambient {
                    return Err(Code::NotPermitted);
                } else {
                    way = vec![parent(root, &way[0].path)?];
                }
                continue;
            }
            let last = left.is_empty();
            let here = way.last().ok_or(Code::Io)?;
            let look = here.look(&step.name, !last || slash)?;
            match look {
                Look::Dir(node) if !last => way.push(node),
                Look::Leaf(leaf) if leaf.metadata.is_symlink() && (!last || follow || slash) => {
                    links += 1;
                    if links > Self::MOST_LINKS {
                        return Err(Code::Loop);
                    }
                    let to = leaf.read_link(&step.name)?;
                    if to.is_empty() {
                        return Err(Code::NoEntry);
                    }
                    if to.starts_with('/') {
                        way = vec![root.clone()];
                    }
                    push(&mut left, &to, false, &mut slash);
                }
                look if last => {
                    let parent = way.pop().ok_or(Code::Io)?;
                    return Ok(Target::Entry { parent, name: step.name, slash, look });
                }
                Look::Nothing { .. } => return Err(Code::NoEntry),
                _ => return Err(Code::NotDirectory),
            }
        }
        Ok(Target::Dir(way.pop().ok_or(Code::Io)?))
    }

    /// What shows here, by name: the winning layer's, without whiteouts, with mounts.
    pub(super) fn entries(&self) -> Result<Vec<Entry>> {
        let mut found = Vec::new();
        let union = !self.place.lowers.is_empty();
        let mut seen = HashSet::new();
        let mut mounts = BTreeMap::new();
        for (name, point) in self.points.iter().flat_map(|points| &points.below) {
            let kind = match &point.mounted {
                Some(Mounted::File { .. }) => Kind::RegularFile,
                _ => Kind::Directory,
            };
            mounts.insert(name.clone(), kind);
        }
        for dir in self.place.upper.iter().chain(&self.place.lowers) {
            for entry in dir.entries()? {
                let entry = entry?;
                // A name that is no text cannot be said in WASI.
                let Ok(name) = entry.file_name().into_string() else { continue };
                if mounts.contains_key(&name) || (union && !seen.insert(name.clone())) {
                    continue;
                }
                let kind = kind(entry.file_type()?);
                let whiteout = || entry.metadata().is_ok_and(|metadata| files::is_whiteout(&metadata));
                if self.place.part.union.is_some() && kind == Kind::CharacterDevice && whiteout() {
                    continue;
                }
                found.push(Entry { name, kind });
            }
        }
        found.extend(mounts.into_iter().map(|(name, kind)| Entry { name, kind }));
        Ok(found)
    }

    /// What this directory is.
    pub(super) fn stat(&self) -> Result<Stat> {
        let Some(dir) = self.place.upper.as_ref().or(self.place.lowers.first()) else {
            // It is there only because something is mounted below.
            return Ok(Stat {
                kind: Kind::Directory,
                links: 1,
                size: 0,
                accessed: None,
                modified: None,
                changed: None,
                identity: (0, self.path.bytes().fold(5381, |hash: u64, b| hash.wrapping_mul(33) ^ u64::from(b))),
            });
        };
        let mut stat = Stat::of(&dir.dir_metadata()?);
        // A directory stays itself when it is copied up.
        if let Some(lowest) = self.place.lowers.last() {
            let metadata = lowest.dir_metadata()?;
            stat.identity = (metadata.dev(), metadata.ino());
        }
        Ok(stat)
    }
}

/// Puts the steps of `path` on top of those that are left.
fn push(left: &mut Vec<Step>, path: &str, literal: bool, slash: &mut bool) {
    let names = path.rsplit('/');
    if left.is_empty() {
        *slash |= path.ends_with('/') || path == "." || path.ends_with("/.");
    }
    left.extend(names.filter(|n| !matches!(*n, "" | ".")).map(|n| Step { name: n.to_owned(), literal }));
}

/// The directory above the one at `path`, wherever symlinks on that way lead.
fn parent(root: &Node, path: &str) -> Result<Node> {
    match root.resolve(root, path, true, true)? {
        Target::Entry { parent, .. } => Ok(parent),
        Target::Dir(node) if node.path.is_empty() => Ok(node),
        Target::Dir(node) => parent(root, &node.path),
    }
}
