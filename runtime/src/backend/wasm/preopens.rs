//! The directories a guest begins with (`wasi:filesystem/preopens`), each opened once, before the guest, and held as a
//! handle: no path of ours is looked up after that.
//!
//! WASI has no working directory. Its C library strips the leading `/` of an absolute path, and then picks the
//! preopened directory whose name is the longest prefix; so it cannot tell `/x` from `x`. With the working directory
//! `/` that is right. With another one, the relative paths must lead there: it is preopened as `.`, last (the library
//! prefers the last of equals), and so that absolute paths still lead elsewhere, each directory of the root is
//! preopened under its own name. What this cannot give: with a working directory other than `/`, files that lie
//! directly in `/` are found only by programs that look at `initial-cwd` or resolve absolute paths themselves
//! (Go does), and `etc/x` means `/etc/x` if there is a `/etc`.

use std::io;
use std::path::{Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use wasmtime::component::{HasData, Resource, ResourceTable};
use wasmtime_wasi::filesystem::Descriptor;
use wasmtime_wasi::p2::bindings::filesystem::preopens::Host;
use wasmtime_wasi::{FsPerms, OpenMode};
use wharf_images::snapshot::Rootfs;

use crate::error::{Class, Error, Result};
use crate::task::WasmTask;

/// A directory the guest begins with, and its name there.
pub(super) type Preopen = (wasmtime_wasi::filesystem::Dir, String);

/// The most directories of `/` that are preopened under their own names.
const ROOT_ENTRIES: usize = 64;

/// A tree the guest sees: the root, or a mount.
struct Tree {
    dir: Dir,
    /// Where, without slashes at its ends: the root is "".
    target: String,
    read_only: bool,
}

impl Tree {
    fn open(source: &Path, target: String, read_only: bool) -> Result<Self> {
        let dir = Dir::open_ambient_dir(source, ambient_authority()).map_err(|e| match e.kind() {
            io::ErrorKind::NotADirectory => {
                let message = format!("cannot mount {} at /{target}: it is not a directory", source.display());
                Error::new(Class::Unsupported, message)
                    .with_hint("a wasm guest's mounts are directories: mount the one it lies in")
            }
            _ => Error::io("open", source, e),
        })?;
        Ok(Tree { dir, target, read_only })
    }

    fn preopen(&self, name: &str) -> Result<Preopen> {
        let dir = self.dir.try_clone().map_err(|e| Error::os("duplicate a directory", e))?;
        Ok(preopen(dir, name, self.read_only))
    }

    /// The part of `path` beneath this tree.
    fn rest<'p>(&self, path: &'p str) -> Option<&'p str> {
        if self.target.is_empty() {
            return Some(path);
        }
        let rest = path.strip_prefix(&self.target)?;
        if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
    }
}

/// Opens what `task` shows its guest.
///
/// # Errors
/// `Unsupported` for a root filesystem that would have to be mounted and for a mount that is no directory;
/// `InvalidInput` for a target that is no absolute path; the working directory's and the disk's errors.
pub(super) fn open(rootfs: &Rootfs, task: &WasmTask) -> Result<Vec<Preopen>> {
    let mut root = None;
    let mut mounts = Vec::new();
    for mount in &task.mounts {
        let mut tree = Tree::open(&mount.source, normal(&mount.target)?, mount.read_only)?;
        if let Some(subpath) = &mount.subpath {
            tree.dir = tree.dir.open_dir(subpath).map_err(|e| Error::io("open beneath the volume", subpath, e))?;
        }
        if tree.target.is_empty() { root = Some(tree) } else { mounts.push(tree) }
    }
    let root = match root {
        Some(root) => root,
        None => Tree::open(&directory(rootfs)?, String::new(), task.read_only)?,
    };
    // A mount shows in the listing of its parent only when there is a directory, as docker makes it.
    for mount in mounts.iter().filter(|_| !root.read_only) {
        // If it cannot be made the mount works all the same, by its name.
        let _ = root.dir.create_dir_all(&mount.target);
    }

    let cwd = normal(&task.cwd)?;
    let mut preopens = vec![root.preopen("/")?];
    if !cwd.is_empty() {
        root_entries(&root, &mounts, &mut preopens)?;
    }
    for mount in &mounts {
        preopens.push(mount.preopen(&format!("/{}", mount.target))?);
    }
    if !cwd.is_empty() {
        let inside = Tree { dir: enter(&root, &mounts, &cwd)?, target: cwd, read_only: false };
        for mount in &mounts {
            match inside.rest(&mount.target) {
                Some(rest) if !rest.is_empty() => preopens.push(mount.preopen(rest)?),
                _ => {}
            }
        }
        let read_only = innermost(&root, &mounts, &inside.target).read_only;
        preopens.push(preopen(inside.dir, ".", read_only));
    }
    Ok(preopens)
}

/// The one directory that a root filesystem is.
fn directory(rootfs: &Rootfs) -> Result<PathBuf> {
    match rootfs {
        Rootfs::Dir(dir) => Ok(dir.clone()),
        Rootfs::Overlay { lower, upper, .. } if lower.is_empty() => Ok(upper.clone()),
        Rootfs::Overlay { .. } => {
            let message = "the root filesystem is a union of layers, which a wasm guest cannot be shown yet";
            Err(Error::new(Class::Unsupported, message).with_hint("prepare it with the copy snapshot driver"))
        }
    }
}

/// An absolute path without slashes at its ends and without `.`.
fn normal(path: &str) -> Result<String> {
    let bad =
        |why: &str| Err(Error::new(Class::InvalidInput, format!("invalid path {path:?} in the container: {why}")));
    if !path.starts_with('/') {
        return bad("it must be absolute");
    }
    let parts: Vec<_> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    if parts.contains(&"..") {
        return bad("it must not contain `..`");
    }
    Ok(parts.join("/"))
}

fn innermost<'t>(root: &'t Tree, mounts: &'t [Tree], path: &str) -> &'t Tree {
    let beneath = mounts.iter().filter(|m| m.rest(path).is_some());
    beneath.max_by_key(|m| m.target.len()).unwrap_or(root)
}

/// Opens the working directory, which links cannot lead out of its tree. As in docker, it is made when it is missing.
fn enter(root: &Tree, mounts: &[Tree], cwd: &str) -> Result<Dir> {
    let tree = innermost(root, mounts, cwd);
    let rest = match tree.rest(cwd).unwrap_or_default() {
        "" => ".",
        rest => rest,
    };
    let opened = match tree.dir.open_dir(rest) {
        Err(e) if e.kind() == io::ErrorKind::NotFound && !tree.read_only => {
            tree.dir.create_dir_all(rest).and_then(|()| tree.dir.open_dir(rest))
        }
        other => other,
    };
    opened.map_err(|e| {
        let message = format!("cannot enter the working directory /{cwd}: {e}");
        Error::Exec { code: 127, message }
    })
}

fn root_entries(root: &Tree, mounts: &[Tree], preopens: &mut Vec<Preopen>) -> Result<()> {
    let entries = root.dir.entries().map_err(|e| Error::os("read the root directory", e))?;
    for entry in entries.take(ROOT_ENTRIES) {
        let entry = entry.map_err(|e| Error::os("read the root directory", e))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        // A file, or a link that leads out, is not a directory to begin with.
        if mounts.iter().all(|m| m.target != name)
            && let Ok(dir) = root.dir.open_dir(&name)
        {
            preopens.push(preopen(dir, &format!("/{name}"), root.read_only));
        }
    }
    Ok(())
}

fn preopen(dir: Dir, name: &str, read_only: bool) -> Preopen {
    let (perms, mode) = match read_only {
        true => (FsPerms::ReadOnly, OpenMode::READ),
        false => (FsPerms::ReadWrite, OpenMode::READ | OpenMode::WRITE),
    };
    // The guest has this process for itself, so its file operations may block the only thread.
    (wasmtime_wasi::filesystem::Dir::new(dir.into_std_file(), perms, mode, true), name.to_owned())
}

/// Answers `get-directories` with handles that were opened before.
pub(super) struct Preopens<'a> {
    /// The directories.
    pub list: &'a [Preopen],
    /// Where the guest's resources are.
    pub table: &'a mut ResourceTable,
}

impl HasData for Preopens<'static> {
    type Data<'a> = Preopens<'a>;
}

impl Host for Preopens<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        let mut answer = Vec::with_capacity(self.list.len());
        for (dir, name) in self.list {
            answer.push((self.table.push(Descriptor::Dir(dir.clone()))?, name.clone()));
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::network::WasmNetwork;
    use crate::task::WasmMount;

    fn task(cwd: &str, mounts: &[(&Path, &str, bool)]) -> WasmTask {
        let mount = |(source, target, read_only): &(&Path, &str, bool)| WasmMount {
            source: source.to_path_buf(),
            subpath: None,
            target: (*target).to_owned(),
            read_only: *read_only,
        };
        WasmTask {
            module: PathBuf::new(),
            args: vec![],
            env: vec![],
            cwd: cwd.to_owned(),
            mounts: mounts.iter().map(mount).collect(),
            read_only: false,
            timeout_ms: None,
            function: None,
            network: WasmNetwork::default(),
            http: None,
        }
    }

    fn names(preopens: &[Preopen]) -> Vec<&str> {
        preopens.iter().map(|(_, name)| name.as_str()).collect()
    }

    #[test]
    fn the_root_alone_when_nothing_is_asked_for() {
        let root = tempfile::tempdir().unwrap();
        let preopens = open(&Rootfs::Dir(root.path().to_owned()), &task("/", &[])).unwrap();
        assert_eq!(names(&preopens), ["/"]);
    }

    #[test]
    fn a_working_directory_comes_last_and_mounts_are_seen_from_it() {
        let root = tempfile::tempdir().unwrap();
        let data = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        let mounts = [(data.path(), "/work/data/", true)];
        let preopens = open(&Rootfs::Dir(root.path().to_owned()), &task("/work", &mounts)).unwrap();
        let mut found = names(&preopens);
        assert_eq!(found.pop(), Some("."));
        assert_eq!(found.pop(), Some("data"));
        assert_eq!(found.pop(), Some("/work/data"));
        found.sort_unstable();
        assert_eq!(found, ["/", "/etc", "/work"]);
        assert!(root.path().join("work/data").is_dir(), "the mount point is made");
        assert_eq!(preopens.iter().filter(|(dir, _)| dir.perms == FsPerms::ReadOnly).count(), 2);
    }

    #[test]
    fn a_working_directory_in_a_read_only_mount_is_read_only() {
        let root = tempfile::tempdir().unwrap();
        let data = tempfile::tempdir().unwrap();
        fs::create_dir(data.path().join("in")).unwrap();
        let rootfs = Rootfs::Dir(root.path().to_owned());
        let preopens = open(&rootfs, &task("/data/in", &[(data.path(), "/data", true)])).unwrap();
        let (dir, name) = preopens.last().unwrap();
        assert_eq!((name.as_str(), dir.perms), (".", FsPerms::ReadOnly));
        let missing = open(&rootfs, &task("/data/out", &[(data.path(), "/data", true)])).err().unwrap();
        assert_eq!(missing.exit_code(), 127);
    }

    #[test]
    fn a_mount_can_be_the_root() {
        let other = tempfile::tempdir().unwrap();
        let rootfs = Rootfs::Dir("/nonexistent".into());
        let preopens = open(&rootfs, &task("/", &[(other.path(), "/", false)])).unwrap();
        assert_eq!(names(&preopens), ["/"]);
    }

    #[test]
    fn what_cannot_be_shown_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let here = || root.path().to_owned();
        let union = Rootfs::Overlay { lower: vec![here()], upper: here(), work: here() };
        assert_eq!(open(&union, &task("/", &[])).err().unwrap().class(), Class::Unsupported);
        let alone = Rootfs::Overlay { lower: vec![], upper: here(), work: here() };
        open(&alone, &task("/", &[])).unwrap();
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        let error = open(&alone, &task("/", &[(&file, "/f", false)])).err().unwrap();
        assert!(error.to_string().contains("not a directory"), "{error}");
        for bad in ["work", "/a/../b"] {
            assert_eq!(open(&alone, &task(bad, &[])).err().unwrap().class(), Class::InvalidInput);
        }
    }
}
