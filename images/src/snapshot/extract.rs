//! Copying one directory of a union to a place outside it: what a volume is first filled with.
//!
//! In two steps, so that a crash between any two calls loses nothing and doubles nothing: [`extract`] copies into a
//! directory that nobody uses yet, [`install`] moves what is there to where it is used and can be called again.

use std::collections::HashMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::merge::{Union, failed, join, layers, names};
use super::{Rootfs, remove_tree};
use crate::error::{Error, Result};
use crate::layer::entry::{Stat, StatKind};
use crate::os::{self, DirAt};

/// Most symlinks on the way to a directory, as in the kernel (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// Copies what is in the directory `path` of `rootfs`, with owners, modes, times, xattrs and hard links, into the empty
/// directory `to`, which gets the directory's own owner, mode and time. Symlinks on the way are followed within the root.
/// False when there is no such directory.
///
/// # Errors
/// The disk's.
pub fn extract(rootfs: &Rootfs, path: &str, to: &Path) -> Result<bool> {
    let union = Union::of(rootfs)?;
    let Some(path) = resolve(&union, path)? else { return Ok(false) };
    let target = DirAt::open(to).map_err(|e| Error::io("open", to, e))?;
    let mut copy = Copy { to: target, linked: HashMap::new(), own_ids: os::own_ids() };
    let mut left = vec![(path.clone(), Vec::new(), union.visible(&path).map_err(failed(&path))?)];
    let mut dirs = Vec::new();
    while let Some((path, below, among)) = left.pop() {
        let parts = union.parts(&path, &among).map_err(failed(&path))?;
        let Some((_, top)) = parts.first() else { continue };
        dirs.push((below.clone(), top.stat(b".").map_err(failed(&path))?, top.xattrs().map_err(failed(&path))?));
        let to = copy.to.at(&below).map_err(failed(&path))?;
        for (name, (place, stat)) in names(&parts).map_err(failed(&path))? {
            let (child, new) = (join(&path, &name), join(&below, &name));
            if stat.kind == StatKind::Dir {
                to.mkdir(&name, 0o700).map_err(failed(&child))?;
                left.push((child, new, layers(&parts)));
            } else {
                copy.leaf(&parts[place].1, &to, &name, new, &stat).map_err(failed(&child))?;
            }
        }
    }
    // What is written into a directory changes its time; children come after their parents in the list.
    for (path, stat, xattrs) in dirs.iter().rev() {
        copy.to.at(path).and_then(|dir| copy.dir(&dir, stat, xattrs)).map_err(failed(path))?;
    }
    Ok(true)
}

/// The directory that `path` means in the union, without links in it; `None` when there is none.
fn resolve(union: &Union, path: &str) -> Result<Option<Vec<u8>>> {
    let split = |path: &[u8]| -> Vec<Vec<u8>> {
        let parts = path.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".");
        parts.map(<[u8]>::to_vec).collect()
    };
    let mut todo: Vec<Vec<u8>> = split(path.as_bytes()).into_iter().rev().collect();
    let mut done: Vec<Vec<u8>> = Vec::new();
    let mut links = 0;
    while let Some(name) = todo.pop() {
        if name == b".." {
            done.pop();
            continue;
        }
        let at = done.join(&b'/');
        let parts = union.visible(&at).and_then(|among| union.parts(&at, &among)).map_err(failed(&at))?;
        let mut found = None;
        for (_, dir) in &parts {
            match dir.stat(&name) {
                Ok(stat) => {
                    found = Some((dir, stat.kind));
                    break;
                }
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(failed(&at)(e)),
            }
        }
        match found {
            Some((_, StatKind::Dir)) => done.push(name),
            Some((dir, StatKind::Symlink)) if links < MAX_LINKS => {
                links += 1;
                let target = dir.read_link(&name).map_err(failed(&at))?;
                if target.starts_with(b"/") {
                    done.clear();
                }
                todo.extend(split(&target).into_iter().rev());
            }
            _ => return Ok(None),
        }
    }
    Ok(Some(done.join(&b'/')))
}

struct Copy {
    to: DirAt,
    /// Where a file with several names was copied to first.
    linked: HashMap<(u64, u64), Vec<u8>>,
    own_ids: (u32, u32),
}

impl Copy {
    fn leaf(&mut self, from: &DirAt, to: &DirAt, name: &[u8], path: Vec<u8>, stat: &Stat) -> io::Result<()> {
        if let Some(first) = stat.linked.and_then(|key| self.linked.get(&key)) {
            let (parent, first_name) = match first.iter().rposition(|b| *b == b'/') {
                Some(slash) => (&first[..slash], &first[slash + 1..]),
                None => (&b""[..], &first[..]),
            };
            return to.link(&self.to.at(parent)?, first_name, name);
        }
        match stat.kind {
            StatKind::File => {
                let mut source = from.open_file(name)?;
                let mut file = to.create(name, 0o600)?;
                io::copy(&mut source, &mut file)?;
                if self.is_strange(stat) {
                    os::own_file(&file, stat.uid, stat.gid)?;
                }
                for (name, value) in os::xattrs(&source)? {
                    os::set_xattr(&file, &name, &value)?;
                }
                os::chmod_file(&file, stat.mode)?;
                os::set_file_mtime(&file, stat.mtime)?;
            }
            StatKind::Symlink => to.symlink(&from.read_link(name)?, name)?,
            StatKind::Node(node) => match to.node(name, node, stat.mode) {
                // Devices take root.
                Err(e) if e.kind() == ErrorKind::PermissionDenied => return Ok(()),
                other => other?,
            },
            // What is hidden, and what means nothing without its process.
            StatKind::Whiteout | StatKind::Socket | StatKind::Dir => return Ok(()),
        }
        if stat.kind != StatKind::File {
            if self.is_strange(stat) {
                to.own(name, stat.uid, stat.gid)?;
            }
            to.set_mtime(name, stat.mtime)?;
        }
        self.linked.extend(stat.linked.map(|key| (key, path)));
        Ok(())
    }

    fn dir(&self, dir: &DirAt, stat: &Stat, xattrs: &[(Vec<u8>, Vec<u8>)]) -> io::Result<()> {
        if self.is_strange(stat) {
            dir.own(b".", stat.uid, stat.gid)?;
        }
        for (name, value) in xattrs {
            dir.set_xattr(name, value)?;
        }
        dir.chmod_dir(b".", stat.mode)?;
        dir.set_mtime(b".", stat.mtime)
    }

    fn is_strange(&self, stat: &Stat) -> bool {
        (stat.uid, stat.gid) != self.own_ids
    }
}

/// Moves what is in the directory `from` into the directory `to` on the same filesystem, gives `to` the owner and mode of
/// `from`, and removes `from`. What has come to `to` meanwhile stays. Can be called again after a crash.
///
/// # Errors
/// The disk's.
pub fn install(from: &Path, to: &Path) -> Result<()> {
    let failed = |e| Error::io("move into", to, e);
    let dir = DirAt::open(from).map_err(failed)?;
    let target = DirAt::open(to).map_err(failed)?;
    for entry in fs::read_dir(from).map_err(|e| Error::io("read", from, e))? {
        let entry = entry.map_err(|e| Error::io("read", from, e))?;
        let (old, new) = (entry.path(), to.join(entry.file_name()));
        if fs::symlink_metadata(&new).is_ok() {
            continue;
        }
        match fs::rename(&old, &new) {
            Err(e) if e.kind() == ErrorKind::PermissionDenied => {
                let name = entry.file_name().into_encoded_bytes();
                let opened = dir.stat(&name).and_then(|stat| {
                    // Renaming a directory changes its "..", which takes the right to write to it.
                    dir.chmod_dir(&name, stat.mode | 0o700)?;
                    fs::rename(&old, &new)?;
                    target.chmod_dir(&name, stat.mode)
                });
                opened.map_err(|_| failed(e))?;
            }
            other => other.map_err(failed)?,
        }
    }
    let (stat, xattrs) = dir.stat(b".").and_then(|stat| Ok((stat, dir.xattrs()?))).map_err(failed)?;
    let copy = Copy { to: target, linked: HashMap::new(), own_ids: os::own_ids() };
    copy.dir(&copy.to, &stat, &xattrs).map_err(failed)?;
    remove_tree(from)
}

#[cfg(all(test, target_os = "linux", not(feature = "portable")))]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
    use std::path::PathBuf;

    use super::*;

    fn union(dir: &Path) -> (Rootfs, [PathBuf; 2]) {
        let [low, high] = ["low", "high"].map(|name| dir.join(name));
        fs::create_dir_all(low.join("data/kept")).unwrap();
        fs::create_dir_all(high.join("data")).unwrap();
        let rootfs = Rootfs::Overlay {
            lower: vec![high.clone(), low.clone()],
            upper: dir.join("upper"),
            work: dir.join("work"),
        };
        fs::create_dir(dir.join("upper")).unwrap();
        (rootfs, [low, high])
    }

    #[test]
    fn a_directory_of_a_union_comes_out_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (rootfs, [low, high]) = union(dir.path());
        fs::write(low.join("data/a"), "old").unwrap();
        fs::write(low.join("data/gone"), "x").unwrap();
        fs::write(low.join("data/kept/b"), "b").unwrap();
        fs::hard_link(low.join("data/kept/b"), low.join("data/c")).unwrap();
        fs::write(high.join("data/a"), "new").unwrap();
        symlink("/nowhere", high.join("data/link")).unwrap();
        DirAt::open(&high.join("data")).unwrap().whiteout(b"gone").unwrap();
        chown(high.join("data/a"), Some(7), Some(8)).unwrap();
        chown(high.join("data"), Some(70), Some(80)).unwrap();
        fs::set_permissions(high.join("data"), fs::Permissions::from_mode(0o2750)).unwrap();
        let (staged, to) = (dir.path().join("staged"), dir.path().join("to"));
        fs::create_dir(&staged).unwrap();
        fs::create_dir(&to).unwrap();
        assert!(extract(&rootfs, "/data", &staged).unwrap());
        install(&staged, &to).unwrap();
        assert!(!staged.exists());
        let mut names: Vec<_> = fs::read_dir(&to).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["a", "c", "kept", "link"]);
        assert_eq!(fs::read_to_string(to.join("a")).unwrap(), "new");
        let stat = |name: &str| fs::symlink_metadata(to.join(name)).unwrap();
        assert_eq!((stat("a").uid(), stat("a").gid()), (7, 8));
        assert_eq!((stat("").uid(), stat("").gid(), stat("").mode() & 0o7777), (70, 80, 0o2750));
        assert_eq!(stat("c").ino(), stat("kept/b").ino());
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("/nowhere"));
    }

    #[test]
    fn links_lead_within_the_root_only() {
        let dir = tempfile::tempdir().unwrap();
        let (rootfs, [low, high]) = union(dir.path());
        fs::write(low.join("data/a"), "a").unwrap();
        fs::write(dir.path().join("secret"), "s").unwrap();
        symlink("/data", high.join("absolute")).unwrap();
        symlink("../../../../data/./", high.join("up")).unwrap();
        symlink("ring", high.join("ring")).unwrap();
        symlink(dir.path(), high.join("out")).unwrap();
        let extract = |path: &str| {
            let to = tempfile::tempdir().unwrap();
            let found = extract(&rootfs, path, to.path()).unwrap();
            (found, to.path().join("a").exists())
        };
        assert_eq!(extract("/absolute"), (true, true));
        assert_eq!(extract("up"), (true, true));
        assert_eq!(extract("/up/../data"), (true, true));
        for nothing in ["/ring", "/out", "/none", "/data/a", "/data/a/b"] {
            assert_eq!(extract(nothing), (false, false), "{nothing}");
        }
    }

    #[test]
    fn an_opaque_directory_hides_what_is_below() {
        let dir = tempfile::tempdir().unwrap();
        let (rootfs, [low, high]) = union(dir.path());
        fs::write(low.join("data/a"), "a").unwrap();
        DirAt::open(&high.join("data")).unwrap().set_opaque().unwrap();
        let to = tempfile::tempdir().unwrap();
        assert!(extract(&rootfs, "/data", to.path()).unwrap());
        assert_eq!(fs::read_dir(to.path()).unwrap().count(), 0);
    }

    #[test]
    fn moving_goes_on_after_a_crash_and_keeps_what_came_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir(&from).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("a"), "image").unwrap();
        fs::write(from.join("b"), "image").unwrap();
        fs::write(to.join("a"), "own").unwrap();
        install(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("a")).unwrap(), "own");
        assert_eq!(fs::read_to_string(to.join("b")).unwrap(), "image");
    }
}
