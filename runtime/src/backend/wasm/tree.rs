//! The tree that a guest sees, made of its task: every part is opened here, once, before the guest, and held as a handle.
//!
//! A guest begins with the root, preopened as `/`. WASI has no working directory, and its C library cannot say one: it
//! strips the leading `/` of an absolute path and gives the rest to the preopened directory whose name is the longest
//! prefix, so it cannot tell `/x` from `x`. With the working directory `/` that is right. With another one the library is
//! given two directories more than it needs:
//!
//! - `.`, last, which it prefers to `/`: the working directory. It is left by `..` as a process leaves its own, and what
//!   is not found in it is looked for in the root. So `x` is the working directory's if it has one, and else `/x`, and a
//!   new file comes to where its directory is.
//! - each mounted directory under its own name, because what was mounted is meant when `/data/x` is said, even where the
//!   working directory has a `data` of its own.
//!
//! Programs that say where they stand (a component that takes the directory `/`, or Go's library, which joins paths with
//! `PWD` by itself) are never in doubt.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::path::Path;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use wharf_images::snapshot::Rootfs;

use crate::error::{Class, Error, Result};
use crate::task::{WasmMount, WasmTask};
use crate::volume;
use crate::wasi::filesystem::Preopen;
use crate::wasi::vfs::{Code, Directory, Quota, Source, Vfs};

/// The tree, and where the guest begins in it.
pub(crate) struct Tree {
    pub(crate) vfs: Vfs,
    pub(super) preopens: Vec<Preopen>,
}

/// Opens what `task` shows its guest.
///
/// # Errors
/// `InvalidInput` for a target that is no absolute path or does not fit what is mounted; the working directory's and
/// the disk's errors.
pub(crate) fn open(rootfs: &Rootfs, task: &WasmTask) -> Result<Tree> {
    let mut mounts: Vec<(String, &WasmMount)> =
        task.mounts.iter().map(|mount| Ok((normal(&mount.target)?, mount))).collect::<Result<_>>()?;
    // A mount hides those below it that were there before.
    mounts.sort_by_key(|(target, _)| target.matches('/').count());
    let replaced = mounts.iter().any(|(target, _)| target == "/");
    let mut vfs = match replaced {
        // What the mount at the root hides need not be there.
        true => None,
        false => Some(root(rootfs, task)?),
    };
    for (target, mount) in &mounts {
        let (source, quota) = source(mount)?;
        let mounted = match &mut vfs {
            Some(vfs) => vfs.mount(target, source, mount.read_only, quota),
            None => Vfs::new(source, mount.read_only, quota).map(|root| vfs = Some(root)),
        };
        mounted.map_err(|code| refused(mount, code))?;
    }
    let Some(vfs) = vfs else { return Err(Error::new(Class::Internal, "a tree without a root")) };

    let cwd = normal(&task.cwd)?;
    let mut preopens = vec![(vfs.directory(), "/".to_owned())];
    let inside = |path: &str| cwd == path || cwd.starts_with(&format!("{path}/"));
    for path in vfs.mounts().into_iter().filter(|path| !inside(path)) {
        let dir = vfs.enter(&path).map_err(|code| cannot_enter(&path, code))?.ambient();
        // Some programs look for their directory among these names only, and not all begin it with a slash. C libraries do
        // not tell the two apart, so elsewhere the second would be taken for what is in the working directory.
        if cwd == "/" {
            preopens.push((dir.clone(), path[1..].to_owned()));
        }
        preopens.push((dir, path));
    }
    if cwd != "/" {
        let dir = enter(&vfs, &cwd).map_err(|code| cannot_enter(&cwd, code))?;
        preopens.push((dir.ambient().or_root(), ".".to_owned()));
    }
    Ok(Tree { vfs, preopens })
}

fn root(rootfs: &Rootfs, task: &WasmTask) -> Result<Vfs> {
    let (source, upper) = match rootfs {
        Rootfs::Dir(dir) | Rootfs::Overlay { upper: dir, .. } if no_layers(rootfs) => {
            (Source::Directory(directory(dir)?), dir)
        }
        Rootfs::Overlay { lower, upper, work } => {
            let lowers = lower.iter().map(|dir| directory(dir)).collect::<Result<_>>()?;
            (Source::Layers { upper: directory(upper)?, lowers, work: directory(work)? }, upper)
        }
        Rootfs::Dir(dir) => (Source::Directory(directory(dir)?), dir),
    };
    let quota = quota(upper, task.storage)?;
    Vfs::new(source, task.read_only, quota).map_err(|code| cannot_enter("/", code))
}

fn no_layers(rootfs: &Rootfs) -> bool {
    match rootfs {
        Rootfs::Dir(_) => true,
        Rootfs::Overlay { lower, .. } => lower.is_empty(),
    }
}

/// The count of what a container's own layer holds, if that has a limit.
///
/// # Errors
/// The disk's.
pub(crate) fn quota(dir: &Path, limit: Option<u64>) -> Result<Option<Quota>> {
    let Some(limit) = limit else { return Ok(None) };
    Quota::new(directory(dir)?, dir, limit).map(Some).map_err(|e| Error::io("count what is in", dir, e))
}

fn directory(path: &Path) -> Result<Dir> {
    Dir::open_ambient_dir(path, ambient_authority()).map_err(|e| Error::io("open", path, e))
}

/// What is mounted: a directory, or a file opened for as much as it is good for.
fn source(mount: &WasmMount) -> Result<(Source, Option<Quota>)> {
    let path = &mount.source;
    if let Some(subpath) = &mount.subpath {
        let failed = |e: std::io::Error| match e.kind() {
            // cap-std's own refusal has no number of the system's.
            ErrorKind::PermissionDenied if e.raw_os_error().is_none() => volume::leads_out(subpath),
            ErrorKind::NotFound | ErrorKind::NotADirectory => volume::no_such_subpath(path, subpath),
            _ => Error::io("open beneath the volume", subpath, e),
        };
        return match directory(path)?.open_dir(subpath) {
            Err(e) if e.kind() == ErrorKind::NotADirectory => {
                let mut options = cap_std::fs::OpenOptions::new();
                let file =
                    directory(path)?.open_with(subpath, options.read(true).write(!mount.read_only)).map_err(failed)?;
                Ok((Source::File { file: file.into_std(), writable: !mount.read_only }, None))
            }
            opened => Ok((Source::Directory(opened.map_err(failed)?), None)),
        };
    }
    match Dir::open_ambient_dir(path, ambient_authority()) {
        Ok(dir) => return Ok((Source::Directory(dir), quota(path, mount.size)?)),
        Err(e) if e.kind() == ErrorKind::NotADirectory => {}
        Err(e) => return Err(Error::io("open", path, e)),
    }
    let failed = |e| Error::io("open", path, e);
    let kind = path.metadata().map_err(failed)?.file_type();
    if !kind.is_file() {
        let message = format!("cannot mount {}: it is neither a file nor a directory", path.display());
        return Err(Error::new(Class::Unsupported, message)
            .with_hint("a wasm guest has no devices, and no sockets but its own"));
    }
    if !mount.read_only
        && let Ok(file) = OpenOptions::new().read(true).write(true).open(path)
    {
        return Ok((Source::File { file, writable: true }, None));
    }
    Ok((Source::File { file: File::open(path).map_err(failed)?, writable: false }, None))
}

fn refused(mount: &WasmMount, code: Code) -> Error {
    let (source, target) = (mount.source.display(), &mount.target);
    match code {
        Code::NotDirectory | Code::IsDirectory => Error::new(
            Class::InvalidInput,
            format!("cannot mount {source} at {target}: one is a directory and the other is not"),
        )
        .with_hint("check if the specified host path exists and is the expected type"),
        _ => Error::new(Class::InvalidInput, format!("cannot mount {source} at {target}: {}", code.message())),
    }
}

/// An absolute path with one slash before each name.
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
    Ok(format!("/{}", parts.join("/")))
}

/// Opens the working directory. As in docker, it is made when it is missing.
fn enter(vfs: &Vfs, cwd: &str) -> std::result::Result<Directory, Code> {
    match vfs.enter(cwd) {
        Err(Code::NoEntry) => {}
        other => return other,
    }
    let root = vfs.directory();
    for (end, _) in cwd.match_indices('/').skip(1).chain([(cwd.len(), "")]) {
        match root.create_dir(&cwd[1..end]) {
            Ok(()) | Err(Code::Exist) => {}
            // It is not there, and cannot be.
            Err(Code::ReadOnly) => return Err(Code::NoEntry),
            Err(e) => return Err(e),
        }
    }
    vfs.enter(cwd)
}

fn cannot_enter(path: &str, code: Code) -> Error {
    Error::Exec { code: 127, message: format!("cannot enter the working directory {path}: {}", code.message()) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    fn task(cwd: &str, mounts: &[(&Path, &str, bool)]) -> WasmTask {
        let mount = |(source, target, read_only): &(&Path, &str, bool)| WasmMount {
            source: source.to_path_buf(),
            subpath: None,
            target: (*target).to_owned(),
            read_only: *read_only,
            size: None,
        };
        WasmTask { cwd: cwd.to_owned(), mounts: mounts.iter().map(mount).collect(), ..WasmTask::default() }
    }

    fn names(tree: &Tree) -> Vec<&str> {
        tree.preopens.iter().map(|(_, name)| name.as_str()).collect()
    }

    fn list(tree: &Tree, preopen: usize) -> Vec<String> {
        let mut names: Vec<_> = tree.preopens[preopen].0.entries().unwrap().into_iter().map(|e| e.name).collect();
        names.sort();
        names
    }

    #[test]
    fn the_root_and_what_is_mounted_by_both_names() {
        let root = tempfile::tempdir().unwrap();
        let tree = open(&Rootfs::Dir(root.path().to_owned()), &task("/", &[])).unwrap();
        assert_eq!(names(&tree), ["/"]);
        let data = tempfile::tempdir().unwrap();
        let tree = open(&Rootfs::Dir(root.path().to_owned()), &task("/", &[(data.path(), "/a/b", true)])).unwrap();
        assert_eq!(names(&tree), ["/", "a/b", "/a/b"]);
        assert_eq!(list(&tree, 0), ["a"]);
        assert_eq!(tree.preopens[0].0.create_dir("a/c"), Ok(()), "what leads to a mount is a directory");
        assert_eq!(fs::read_dir(root.path().join("a")).unwrap().count(), 1, "the mount itself leaves nothing behind");
    }

    #[test]
    fn a_working_directory_comes_last_and_is_made() {
        let root = tempfile::tempdir().unwrap();
        let data = tempfile::tempdir().unwrap();
        fs::write(root.path().join("in-root"), "").unwrap();
        let mounts = [(data.path(), "/work/data/", true)];
        let tree = open(&Rootfs::Dir(root.path().to_owned()), &task("/work", &mounts)).unwrap();
        assert_eq!(names(&tree), ["/", "/work/data", "."]);
        assert!(root.path().join("work").is_dir());
        assert_eq!(list(&tree, 2), ["data"]);
        let dot = &tree.preopens[2].0;
        assert_eq!(dot.stat_at("in-root", false).unwrap().links, 1, "what is not here is looked for in the root");
        assert_eq!(dot.create_dir("data/x"), Err(Code::ReadOnly));
    }

    #[test]
    fn a_working_directory_in_a_read_only_mount_is_read_only() {
        let root = tempfile::tempdir().unwrap();
        let data = tempfile::tempdir().unwrap();
        fs::create_dir(data.path().join("in")).unwrap();
        let rootfs = Rootfs::Dir(root.path().to_owned());
        let tree = open(&rootfs, &task("/data/in", &[(data.path(), "/data", true)])).unwrap();
        assert_eq!(names(&tree), ["/", "."]);
        assert!(tree.preopens[1].0.is_read_only());
        let missing = open(&rootfs, &task("/data/out", &[(data.path(), "/data", true)])).err().unwrap();
        assert_eq!(missing.exit_code(), 127);
    }

    #[test]
    fn a_mount_can_be_the_root() {
        let other = tempfile::tempdir().unwrap();
        let rootfs = Rootfs::Dir("/nonexistent".into());
        let tree = open(&rootfs, &task("/", &[(other.path(), "/", false)])).unwrap();
        assert_eq!(names(&tree), ["/"]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let rootfs = Rootfs::Dir(root.path().to_owned());
        let (file, dir) = (root.path().join("file"), root.path().join("dir"));
        fs::write(&file, "").unwrap();
        fs::create_dir(&dir).unwrap();
        for (source, target) in [(&file, "/dir"), (&dir, "/file"), (&file, "/")] {
            let error = open(&rootfs, &task("/", &[(source, target, false)])).err().unwrap();
            assert_eq!(error.class(), Class::InvalidInput, "{target}: {error}");
        }
        open(&rootfs, &task("/", &[(&file, "/dir/other", false)])).unwrap();
        let error = open(&rootfs, &task("/", &[(Path::new("/dev/null"), "/null", false)])).err().unwrap();
        assert_eq!(error.class(), Class::Unsupported);
        for bad in ["work", "/a/../b"] {
            assert_eq!(open(&rootfs, &task(bad, &[])).err().unwrap().class(), Class::InvalidInput);
        }
        let missing = PathBuf::from("/nonexistent");
        assert!(open(&rootfs, &task("/", &[(&missing, "/x", false)])).is_err());
    }
}
