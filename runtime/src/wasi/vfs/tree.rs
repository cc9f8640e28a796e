//! The tree as a whole: what it is made of, and what is mounted where.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use cap_std::fs::Dir;

use super::directory::Directory;
use super::error::{Code, Result};
use super::node::{Look, Node, Target};
use super::quota::Quota;

/// What a part of the tree is made of.
pub(crate) enum Source {
    /// One directory.
    Directory(Dir),
    /// Read-only layers, topmost first, beneath a writable one.
    Layers {
        /// Where changes go.
        upper: Dir,
        /// Topmost first.
        lowers: Vec<Dir>,
        /// An empty directory on the upper one's filesystem, where things are made before they get their names.
        work: Dir,
    },
    /// One file. It stays the file that was opened, whatever happens to its name.
    File {
        /// Opened for what it is to be used for.
        file: File,
        /// It was opened for writing too.
        writable: bool,
    },
}

/// A part of the tree, with one rule for all in it: the root, or a mount.
#[derive(Debug)]
pub(super) struct Part {
    /// `cap_std` may be given whole paths. Only tests want it otherwise.
    pub(super) direct: bool,
    pub(super) read_only: bool,
    pub(super) quota: Option<Quota>,
    pub(super) union: Option<Layers>,
}

/// The layers of a part that is a union.
#[derive(Debug)]
pub(super) struct Layers {
    pub(super) upper: Arc<Dir>,
    pub(super) lowers: Vec<Arc<Dir>>,
    pub(super) work: Arc<Dir>,
}

/// A mount.
#[derive(Debug, Clone)]
pub(super) enum Mounted {
    Directory(Place),
    File { part: Arc<Part>, file: Arc<File>, writable: bool },
}

/// The directories that show as one.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) part: Arc<Part>,
    pub(super) upper: Option<Arc<Dir>>,
    pub(super) lowers: Vec<Arc<Dir>>,
}

/// What is mounted at a name, and below it.
#[derive(Debug, Default, Clone)]
pub(super) struct Point {
    pub(super) mounted: Option<Mounted>,
    pub(super) below: BTreeMap<String, Arc<Point>>,
}

impl Point {
    fn put(&mut self, path: &[&str], mounted: Mounted) {
        match path.split_first() {
            None => *self = Point { mounted: Some(mounted), below: BTreeMap::new() },
            Some((name, rest)) => {
                let below = self.below.entry((*name).to_owned()).or_default();
                let mut changed = Point::clone(below);
                changed.put(rest, mounted);
                *below = Arc::new(changed);
            }
        }
    }
}

/// What a process that hosts the guest has to be let through to.
#[derive(Debug, Clone)]
pub enum Held {
    /// For reading.
    ReadOnly(Arc<Dir>),
    /// For reading and writing.
    ReadWrite(Arc<Dir>),
    /// For reading and writing, and for overlayfs's marks.
    Union(Arc<Dir>),
    /// A file.
    File {
        /// It.
        file: Arc<File>,
        /// For writing too.
        writable: bool,
    },
}

/// The tree that a guest sees.
#[derive(Debug)]
pub(crate) struct Vfs {
    root: Place,
    points: Point,
    held: Vec<Held>,
    /// Those with a limit.
    limited: Vec<Arc<Part>>,
}

impl Vfs {
    /// A tree whose root is `source`, which is no file.
    ///
    /// # Errors
    /// `not-directory` for a file.
    pub(crate) fn new(source: Source, read_only: bool, quota: Option<Quota>) -> Result<Vfs> {
        let mut held = Vec::new();
        match mounted(source, read_only, quota, &mut held) {
            Mounted::Directory(root) => {
                let limited = Vec::from_iter(root.part.quota.is_some().then(|| Arc::clone(&root.part)));
                Ok(Vfs { root, points: Point::default(), held, limited })
            }
            Mounted::File { .. } => Err(Code::NotDirectory),
        }
    }

    /// Mounts `source` at the absolute path `target`, over what is there. Symlinks on the way are followed. The target
    /// need not be there: it shows in its parent's listing all the same.
    ///
    /// # Errors
    /// `not-directory` and `is-directory` when a directory is mounted on a file or the reverse; those of resolving.
    pub(crate) fn mount(&mut self, target: &str, source: Source, read_only: bool, quota: Option<Quota>) -> Result<()> {
        let place = self.place(target)?;
        let file = matches!(source, Source::File { .. });
        if place.is_empty() && file {
            return Err(Code::IsDirectory);
        }
        match self.look(&place)? {
            Look::Dir(_) if file => return Err(Code::IsDirectory),
            Look::Leaf(_) | Look::File(_) if !file => return Err(Code::NotDirectory),
            _ => {}
        }
        // What leads there is to be a directory like others; where it cannot be made, it shows what is mounted and no more.
        let root = self.directory();
        for end in 1..place.len() {
            if !matches!(self.look(&place[..end])?, Look::Nothing { .. }) {
                continue;
            }
            match root.create_dir(&place[..end].join("/")) {
                Ok(()) | Err(Code::Exist) => {}
                Err(Code::ReadOnly | Code::Access | Code::NotPermitted) => break,
                Err(e) => return Err(e),
            }
        }
        let mounted = mounted(source, read_only, quota, &mut self.held);
        if let Mounted::Directory(Place { part, .. }) = &mounted
            && part.quota.is_some()
        {
            self.limited.push(Arc::clone(part));
        }
        match (place.is_empty(), mounted) {
            (true, Mounted::Directory(root)) => {
                self.root = root;
                self.points = Point::default();
            }
            (_, mounted) => self.points.put(&place.iter().map(String::as_str).collect::<Vec<_>>(), mounted),
        }
        Ok(())
    }

    /// The process is about to end, and writes no more.
    pub(crate) fn settle(&self) {
        self.limited.iter().filter_map(|part| part.quota.as_ref()).for_each(Quota::settle);
    }

    /// Where the absolute path `target` leads: names from the root, without links among those that are there.
    fn place(&self, target: &str) -> Result<Vec<String>> {
        let mut names: Vec<String> = Vec::new();
        let mut left: Vec<String> =
            target.rsplit('/').filter(|name| !matches!(*name, "" | ".")).map(str::to_owned).collect();
        let mut links = 0;
        while let Some(name) = left.pop() {
            if name == ".." {
                names.pop();
                continue;
            }
            names.push(name);
            if let Look::Leaf(leaf) = self.look(&names)?
                && leaf.metadata.is_symlink()
            {
                links += 1;
                if links > Node::MOST_LINKS {
                    return Err(Code::Loop);
                }
                let name = names.pop().unwrap_or_default();
                let to = leaf.read_link(&name)?;
                if to.starts_with('/') {
                    names.clear();
                }
                left.extend(to.rsplit('/').filter(|name| !matches!(*name, "" | ".")).map(str::to_owned));
            }
        }
        Ok(names)
    }

    /// What these names lead to, following nothing.
    fn look(&self, names: &[String]) -> Result<Look> {
        let mut here = self.root();
        let Some((last, above)) = names.split_last() else { return Ok(Look::Dir(here)) };
        for name in above {
            match here.look(name, true)? {
                Look::Dir(next) => here = next,
                _ => return Ok(Look::Nothing { whiteout: false }),
            }
        }
        here.look(last, false)
    }

    /// The root directory, as a node to walk from.
    pub(super) fn root(&self) -> Node {
        let points = (!self.points.below.is_empty()).then(|| Arc::new(self.points.clone()));
        Node { place: self.root.clone(), path: String::new(), points }
    }

    /// The same tree, in which every path is walked.
    #[cfg(test)]
    pub(super) fn walked(mut self) -> Vfs {
        let part = Arc::get_mut(&mut self.root.part).expect("nothing is open yet");
        part.direct = false;
        self
    }

    /// A handle of the root.
    pub(crate) fn directory(&self) -> Directory {
        Directory::root(self.root())
    }

    /// Everything that has to stay within reach of the process.
    pub(crate) fn held(&self) -> &[Held] {
        &self.held
    }

    /// The directories that are mounted, by the names in which they are found.
    pub(crate) fn mounts(&self) -> Vec<String> {
        fn walk(point: &Point, path: &str, found: &mut Vec<String>) {
            for (name, point) in &point.below {
                let path = format!("{path}/{name}");
                if matches!(point.mounted, Some(Mounted::Directory(_))) {
                    found.push(path.clone());
                }
                walk(point, &path, found);
            }
        }
        let mut found = Vec::new();
        walk(&self.points, "", &mut found);
        found
    }

    /// Opens the directory at an absolute path for a guest to begin with.
    ///
    /// # Errors
    /// Those of resolving; `not-directory`.
    pub(crate) fn enter(&self, path: &str) -> Result<Directory> {
        let root = self.root();
        match root.resolve(&root, path.trim_start_matches('/'), true, true)? {
            Target::Dir(node) => Ok(Directory::within(root, node)),
            Target::Entry { look: Look::Dir(node), .. } => Ok(Directory::within(root, node)),
            Target::Entry { look: Look::Nothing { .. }, .. } => Err(Code::NoEntry),
            Target::Entry { .. } => Err(Code::NotDirectory),
        }
    }
}

fn mounted(source: Source, read_only: bool, quota: Option<Quota>, held: &mut Vec<Held>) -> Mounted {
    match source {
        Source::Directory(dir) => {
            let dir = Arc::new(dir);
            held.push(if read_only { Held::ReadOnly(Arc::clone(&dir)) } else { Held::ReadWrite(Arc::clone(&dir)) });
            let part = Arc::new(Part { direct: true, read_only, quota, union: None });
            Mounted::Directory(Place { part, upper: Some(dir), lowers: Vec::new() })
        }
        Source::Layers { upper, lowers, work } => {
            let (upper, work) = (Arc::new(upper), Arc::new(work));
            let lowers: Vec<_> = lowers.into_iter().map(Arc::new).collect();
            held.extend(lowers.iter().cloned().map(Held::ReadOnly));
            if read_only {
                held.push(Held::ReadOnly(Arc::clone(&upper)));
            } else {
                held.extend([Held::Union(Arc::clone(&upper)), Held::Union(Arc::clone(&work))]);
            }
            let union = Layers { upper: Arc::clone(&upper), lowers: lowers.clone(), work };
            let part = Arc::new(Part { direct: true, read_only, quota, union: Some(union) });
            Mounted::Directory(Place { part, upper: Some(upper), lowers })
        }
        Source::File { file, writable } => {
            let (file, writable) = (Arc::new(file), writable && !read_only);
            held.push(Held::File { file: Arc::clone(&file), writable });
            let part = Arc::new(Part { direct: true, read_only: !writable, quota, union: None });
            Mounted::File { part, file, writable }
        }
    }
}
