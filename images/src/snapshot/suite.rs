//! What every driver must do, run by each. Layers are real archives unpacked by the real unpacker; a snapshot is looked
//! at as its rootfs says, so an overlay is truly mounted.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_std::ambient_authority;
use cap_std::fs::Dir;

use super::{Rootfs, Snapshots};
use crate::digest::Digest;
use crate::error::Class;
use crate::layer::testing::Archive;
use crate::layer::{Options, unpack};

/// Runs the suite on drivers made by `make` in fresh directories.
pub(crate) fn run(make: impl Fn(&Path) -> Arc<dyn Snapshots>) {
    for test in [
        layers_are_committed_once,
        containers_see_the_union,
        a_layer_may_come_twice,
        copies_are_faithful,
        changes_and_exports,
        keys_are_unique_and_safe,
        sweep_keeps_what_is_used,
    ] {
        let dir = tempfile::TempDir::new().unwrap();
        test(&*make(dir.path()));
    }
}

/// What every driver must do about a restart. `layer_dirs` finds the committed layers' directories below `dir`.
pub(crate) fn restart(make: impl Fn(&Path) -> Arc<dyn Snapshots>, layer_dirs: impl Fn(&Path) -> PathBuf) {
    let dir = tempfile::TempDir::new().unwrap();
    let driver = make(dir.path());
    let restarted = || {
        let mut notes = 0;
        for name in names(layer_dirs(dir.path())) {
            let note = layer_dirs(dir.path()).join(name).join("boot");
            if note.exists() {
                fs::write(note, "another boot").unwrap();
                notes += 1;
            }
        }
        notes
    };
    let chain = commit(&*driver, &three_layers());
    assert_eq!(restarted(), 3);
    assert!(!driver.contains(&chain) && !driver.has_layer(&chain), "a power cut may have damaged them");
    assert_eq!(driver.prepare("c", &chain).unwrap_err().class(), Class::NotFound);
    commit(&*driver, &three_layers());
    driver.settle().unwrap();
    assert_eq!(restarted(), 0);
    assert!(driver.contains(&chain));
    see(&driver.prepare("c", &chain).unwrap(), |root| assert_eq!(fs::read_to_string(root.join("top")).unwrap(), "top"));
}

/// Unpacks and commits `layers` as one chain.
pub(crate) fn commit(driver: &dyn Snapshots, layers: &[Archive]) -> Vec<Digest> {
    let mut chain = Vec::new();
    for layer in layers {
        let bytes = layer.bytes();
        chain.push(Digest::of(&bytes));
        let tree = driver.prepare_layer(&chain).unwrap();
        let dir = Dir::open_ambient_dir(&tree, ambient_authority()).unwrap();
        let options = Options {
            algorithm: chain[0].algorithm(),
            whiteouts: Some(driver.whiteouts()),
            max_bytes: 1 << 30,
            max_entries: 1000,
            privileged: crate::os::own_ids().0 == 0,
        };
        assert_eq!(unpack(&mut &bytes[..], "", &dir, &options).unwrap().diff_id, *chain.last().unwrap());
        driver.commit_layer(&chain, tree).unwrap();
    }
    chain
}

/// Calls `look` with the tree that `rootfs` describes.
pub(crate) fn see<T>(rootfs: &Rootfs, look: impl FnOnce(&Path) -> T) -> T {
    match rootfs {
        Rootfs::Dir(dir) => look(dir),
        // Of nothing below there is no union.
        Rootfs::Overlay { lower, upper, .. } if lower.is_empty() => look(upper),
        Rootfs::Overlay { lower, upper, work } => {
            let mount = crate::os::testing::mount_overlay(lower, upper, work);
            look(&mount.path())
        }
    }
}

pub(crate) fn three_layers() -> Vec<Archive> {
    let mut base = Archive::new();
    base.dir("etc/", 0o755).file("etc/a", 0o644, b"base a").file("etc/b", 0o644, b"base b");
    base.dir("old/", 0o755).file("old/x", 0o644, b"x").dir("kept/", 0o755).file("kept/lower", 0o644, b"lower");
    let mut middle = Archive::new();
    middle.dir("etc/", 0o755).file("etc/a", 0o600, b"middle a").file("etc/.wh.b", 0o644, b"");
    middle.file(".wh.old", 0o644, b"").dir("kept/", 0o711).file("kept/.wh..wh..opq", 0o644, b"");
    middle.file("kept/upper", 0o644, b"upper");
    let mut top = Archive::new();
    top.dir("./", 0o751).file("top", 0o755, b"top").symlink("link", "/etc/a").hard_link("again", "top");
    vec![base, middle, top]
}

fn names(dir: PathBuf) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn layers_are_committed_once(driver: &dyn Snapshots) {
    let layers = three_layers();
    let chain: Vec<Digest> = layers.iter().map(|layer| Digest::of(&layer.bytes())).collect();
    assert!(!driver.contains(&chain) && !driver.has_layer(&chain[..1]));
    assert!(driver.contains(&[]) && driver.has_layer(&[]), "no layers are always there");
    assert_eq!(commit(driver, &layers), chain);
    assert!(driver.contains(&chain) && driver.contains(&chain[..1]) && driver.has_layer(&chain[..2]));
    // The second to unpack a layer finds the first one's and leaves it.
    commit(driver, &layers);
    assert!(driver.contains(&chain));
    assert!(driver.prepare("c", &chain).is_ok());
    assert!(driver.commit_layer(&chain, PathBuf::from("/etc")).is_err(), "only what was prepared is committed");
}

fn containers_see_the_union(driver: &dyn Snapshots) {
    use std::os::unix::fs::PermissionsExt;
    let chain = commit(driver, &three_layers());
    let rootfs = driver.prepare("one", &chain).unwrap();
    assert_eq!(driver.mounts("one").unwrap(), rootfs);
    see(&rootfs, |root| {
        assert_eq!(names(root.to_owned()), ["again", "etc", "kept", "link", "top"]);
        assert_eq!(names(root.join("etc")), ["a"]);
        assert_eq!(names(root.join("kept")), ["upper"]);
        assert_eq!(fs::read_to_string(root.join("etc/a")).unwrap(), "middle a");
        assert_eq!(fs::metadata(root.join("etc/a")).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(root.join("kept")).unwrap().permissions().mode() & 0o7777, 0o711);
        assert_eq!(fs::metadata(root).unwrap().permissions().mode() & 0o7777, 0o751);
        assert_eq!(fs::read_link(root.join("link")).unwrap(), Path::new("/etc/a"));
        fs::write(root.join("etc/a"), "mine").unwrap();
        fs::write(root.join("new"), vec![b'n'; 100_000]).unwrap();
        fs::remove_file(root.join("top")).unwrap();
    });
    let usage = driver.usage("one").unwrap();
    assert!(usage.bytes >= 100_000 && usage.inodes >= 2, "{usage:?}");
    // What one container writes, no other sees.
    let other = driver.prepare("two", &chain).unwrap();
    see(&other, |root| {
        assert_eq!(names(root.to_owned()), ["again", "etc", "kept", "link", "top"]);
        assert_eq!(fs::read_to_string(root.join("etc/a")).unwrap(), "middle a");
    });
    let empty = driver.prepare("none", &[]).unwrap();
    see(&empty, |root| assert!(names(root.to_owned()).is_empty()));
}

fn a_layer_may_come_twice(driver: &dyn Snapshots) {
    let again = || {
        let mut layer = Archive::new();
        layer.file("etc/a", 0o644, b"again").file("etc/.wh.c", 0o644, b"").file("etc/d", 0o644, b"d");
        layer
    };
    let mut between = Archive::new();
    between.file("etc/a", 0o644, b"between").file("etc/c", 0o644, b"c").file("etc/.wh.d", 0o644, b"");
    let mut base = Archive::new();
    base.dir("etc/", 0o755).file("etc/c", 0o644, b"base");
    let chain = commit(driver, &[base, again(), between, again(), again()]);
    let rootfs = driver.prepare("one", &chain).unwrap();
    see(&rootfs, |root| {
        assert_eq!(names(root.join("etc")), ["a", "d"]);
        assert_eq!(fs::read_to_string(root.join("etc/a")).unwrap(), "again");
        fs::write(root.join("etc/new"), "new").unwrap();
    });
    assert!(driver.changes("one").unwrap().contains(&("/etc/new".to_owned(), super::ChangeKind::Added)));
}

fn changes_and_exports(driver: &dyn Snapshots) {
    use super::ChangeKind::{Added, Changed, Deleted};
    let chain = commit(driver, &three_layers());
    let rootfs = driver.prepare("c", &chain).unwrap();
    assert_eq!(driver.changes("c").unwrap(), []);
    see(&rootfs, |root| {
        fs::write(root.join("etc/a"), "changed and longer").unwrap();
        fs::create_dir(root.join("new")).unwrap();
        fs::write(root.join("new/file"), "new").unwrap();
        fs::hard_link(root.join("new/file"), root.join("new/same")).unwrap();
        fs::remove_file(root.join("link")).unwrap();
        fs::remove_dir_all(root.join("kept")).unwrap();
    });
    let expected = [
        ("/etc/a", Changed),
        ("/kept", Deleted),
        ("/link", Deleted),
        ("/new", Added),
        ("/new/file", Added),
        ("/new/same", Added),
    ];
    // Opening a file for writing changes its directory's time in one driver and copies the directory up in the other.
    let mut told = driver.changes("c").unwrap();
    told.retain(|(path, _)| path != "/etc");
    assert_eq!(told, expected.map(|(path, kind)| (path.to_owned(), kind)));

    let export = || {
        let mut tar = Vec::new();
        super::export(&rootfs, &mut tar).unwrap();
        tar
    };
    let tar = export();
    assert_eq!(tar, export(), "the same tree gives the same bytes");
    let ground = crate::layer::testing::Ground::new();
    ground.unpack_bytes(&tar, &crate::layer::testing::options()).unwrap();
    assert_eq!(names(ground.root()), ["again", "etc", "new", "top"]);
    assert_eq!((ground.read("etc/a"), ground.read("new/same")), ("changed and longer".into(), "new".into()));
    assert_eq!(names(ground.at("etc")), ["a"]);
    let mut diff = Vec::new();
    match &rootfs {
        Rootfs::Dir(_) => assert!(super::export_changes(&rootfs, &|_| false, &mut diff).is_err()),
        Rootfs::Overlay { .. } => {
            super::export_changes(&rootfs, &|_| false, &mut diff).unwrap();
            // As a layer on the same chain it makes the same tree.
            let mut longer = chain.clone();
            longer.push(Digest::of(&diff));
            let tree = driver.prepare_layer(&longer).unwrap();
            let dir = Dir::open_ambient_dir(&tree, ambient_authority()).unwrap();
            unpack(&mut &diff[..], "", &dir, &crate::layer::testing::options()).unwrap();
            driver.commit_layer(&longer, tree).unwrap();
            let mut again = Vec::new();
            super::export(&driver.prepare("again", &longer).unwrap(), &mut again).unwrap();
            assert_eq!(again.len(), tar.len());
        }
    }
}

fn copies_are_faithful(driver: &dyn Snapshots) {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let mut layer = Archive::new();
    layer.dir("d/", 0o2750).file("d/suid", 0o4755, b"#!").hard_link("linked", "d/suid");
    (layer.uid, layer.gid, layer.mtime) = (1234, 2345, 1_234_567_890);
    layer.pax(&[("SCHILY.xattr.user.colour", b"green"), ("SCHILY.xattr.security.capability", CAP_NET_RAW)]);
    layer.file("d/owned", 0o2711, &[7; 300_000]).symlink("s", "d").dir("closed/", 0o000);
    layer.entry(tar::EntryType::Fifo, "fifo", 0o622, "", b"");
    let chain = commit(driver, &[layer, Archive::new()]);
    let rootfs = driver.prepare("c", &chain).unwrap();
    see(&rootfs, |root| {
        let stat = |path: &str| fs::symlink_metadata(root.join(path)).unwrap();
        assert_eq!(stat("d").mode() & 0o7777, 0o2750);
        assert_eq!(stat("d/suid").mode() & 0o7777, 0o4755);
        assert_eq!((stat("d/suid").gid(), stat("d/suid").ino()), (0, stat("linked").ino()));
        assert_eq!((stat("d/owned").mode() & 0o7777, stat("d/owned").len()), (0o2711, 300_000));
        for path in ["d/owned", "s", "fifo", "closed"] {
            assert_eq!((stat(path).uid(), stat(path).gid(), stat(path).mtime()), (1234, 2345, 1_234_567_890), "{path}");
        }
        assert_eq!(stat("d").mtime(), 1_000_000_000, "times of directories come after their contents");
        assert!(stat("fifo").file_type().is_fifo());
        assert_eq!((stat("fifo").mode() & 0o777, stat("closed").mode() & 0o777), (0o622, 0));
        let file = fs::File::open(root.join("d/owned")).unwrap();
        let mut xattrs = crate::os::xattrs(&file).unwrap();
        xattrs.sort();
        let expected = [("security.capability", CAP_NET_RAW), ("user.colour", b"green")];
        assert_eq!(xattrs, expected.map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())));
    });
}

/// `cap_net_raw+ep`, with a byte that looks like the end of a PAX record (capabilities(7), `vfs_cap_data` revision 2).
const CAP_NET_RAW: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, b'\n', 0, 0, 0, 0, 0, 0, 0];

fn keys_are_unique_and_safe(driver: &dyn Snapshots) {
    let chain = commit(driver, &three_layers());
    assert_eq!(driver.mounts("c").unwrap_err().class(), Class::NotFound);
    assert_eq!(driver.usage("c").unwrap_err().class(), Class::NotFound);
    driver.prepare("c", &chain).unwrap();
    assert_eq!(driver.prepare("c", &chain).unwrap_err().class(), Class::Conflict);
    assert_eq!(driver.prepare("d", &[Digest::of(b"unknown")]).unwrap_err().class(), Class::NotFound);
    for bad in ["", ".", "..", "a/b", "../x", ".hidden", "a\0b", &"x".repeat(200)] {
        assert_eq!(driver.prepare(bad, &chain).unwrap_err().class(), Class::InvalidInput, "{bad:?}");
        assert!(driver.remove(bad).is_err(), "{bad:?}");
    }
    assert_eq!(driver.keys().unwrap(), ["c"]);
    driver.remove("c").unwrap();
    driver.remove("c").unwrap();
    assert!(driver.keys().unwrap().is_empty());
    driver.prepare("c", &chain).unwrap();
}

fn sweep_keeps_what_is_used(driver: &dyn Snapshots) {
    let chain = commit(driver, &three_layers());
    driver.prepare("c", &chain).unwrap();
    let abandoned = driver.prepare_layer(&chain[..1]).unwrap();
    fs::write(abandoned.join("half"), "unpacked").unwrap();
    assert!(driver.sweep(&[]).unwrap() > 0);
    assert!(!abandoned.exists(), "what a dead process was unpacking goes");
    assert!(driver.contains(&chain), "a container's layers stay");
    driver.remove("c").unwrap();
    driver.sweep(&[chain[..2].to_vec()]).unwrap();
    assert!(driver.contains(&chain[..2]) && !driver.contains(&chain));
    assert!(driver.sweep(&[]).unwrap() > 0);
    assert!(!driver.has_layer(&chain[..1]));
}
