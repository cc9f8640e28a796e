use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::layer::testing::Archive;

const KEEPING: Placing = Placing { keep_kinds: true, keep_owners: true, owner: None };

fn tree(dir: &Path) -> Tree {
    Tree::open(dir).unwrap()
}

/// A directory `root` with a secret beside it that no path of the tree may reach.
fn guarded() -> (tempfile::TempDir, Tree) {
    let outer = tempfile::TempDir::new().unwrap();
    let root = outer.path().join("root");
    fs::create_dir_all(root.join("d/sub")).unwrap();
    fs::create_dir(outer.path().join("out")).unwrap();
    fs::write(outer.path().join("out/secret"), "the host's").unwrap();
    fs::write(root.join("d/f"), "inside").unwrap();
    let tree = tree(&root);
    (outer, tree)
}

fn listed(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    let name =
        |entry: io::Result<tar::Entry<'_, &[u8]>>| String::from_utf8_lossy(&entry.unwrap().path_bytes()).into_owned();
    archive.entries().unwrap().map(name).collect()
}

fn packed(tree: &Tree, path: &str, name: Option<&str>) -> Vec<u8> {
    let mut out = Vec::new();
    tree.pack(path, name, &mut out).unwrap();
    out
}

#[test]
fn paths_are_told_of_as_docker_tells() {
    let (outer, tree) = guarded();
    let root = outer.path().join("root");
    symlink("/d", root.join("abs")).unwrap();
    symlink("../../../d/f", root.join("d/up")).unwrap();
    symlink("nowhere", root.join("d/dangling")).unwrap();
    symlink("ring", root.join("ring")).unwrap();
    let kind = |path: &str| tree.stat(path).unwrap().kind;
    assert_eq!(kind("/"), PathKind::Dir);
    assert_eq!(kind("d"), PathKind::Dir);
    assert_eq!(kind("/abs"), PathKind::Symlink);
    assert_eq!(kind("/abs/"), PathKind::Dir);
    assert_eq!(kind("/abs/f"), PathKind::File);
    let target = |path: &str| tree.stat(path).unwrap().link_target;
    assert_eq!(target("/abs").as_deref(), Some("/d"));
    assert_eq!(target("/d/up").as_deref(), Some("/d/f"), "`..` ends at the root");
    assert_eq!(target("/d/dangling").as_deref(), Some("/d/nowhere"));
    let stat = tree.stat("/d/f").unwrap();
    assert_eq!((stat.name.as_str(), stat.size), ("f", 6));
    for missing in ["/x", "/d/f/x", "/x/", "/d/../x"] {
        assert_eq!(tree.stat(missing).unwrap_err().class(), Class::NotFound, "{missing}");
    }
    assert_eq!(tree.stat("/d/f/").unwrap_err().class(), Class::InvalidInput);
    assert!(tree.stat("/ring/").is_err());
}

#[test]
fn archives_have_the_names_that_are_asked_for() {
    let (_outer, tree) = guarded();
    assert_eq!(listed(&packed(&tree, "/d", None)), ["d/", "d/f", "d/sub/"]);
    assert_eq!(listed(&packed(&tree, "/d/.", None)), ["./", "./f", "./sub/"]);
    assert_eq!(listed(&packed(&tree, "/d", Some("new"))), ["new/", "new/f", "new/sub/"]);
    assert_eq!(listed(&packed(&tree, "/d/f", Some("g"))), ["g"]);
}

#[test]
fn what_goes_in_comes_out() {
    let (outer, tree) = guarded();
    let mut archive = Archive::new();
    archive.uid = 1234;
    archive.dir("n", 0o750).file("n/set", 0o4755, b"x").symlink("n/link", "set").hard_link("n/hard", "n/set");
    archive.file("n/.wh.plain", 0o600, b"no whiteout");
    assert_eq!(tree.unpack("/d", &mut &archive.bytes()[..], &KEEPING).unwrap(), Vec::<String>::new());
    let (other, copy) = guarded();
    copy.unpack("/d/sub", &mut &packed(&tree, "/d/n", None)[..], &KEEPING).unwrap();
    assert_eq!(listed(&packed(&copy, "/d/sub/n", None)), listed(&packed(&tree, "/d/n", None)));
    let root = other.path().join("root/d/sub/n");
    let meta = fs::metadata(root.join("set")).unwrap();
    assert_eq!((meta.uid(), meta.permissions().mode() & 0o7777, meta.nlink()), (1234, 0o4755, 2));
    assert_eq!(fs::read(root.join(".wh.plain")).unwrap(), b"no whiteout");
    // For people who are not to get others' files and rights.
    let own = Placing { keep_kinds: true, ..Placing::default() };
    tree.unpack("/d/sub", &mut &archive.bytes()[..], &own).unwrap();
    let placed = outer.path().join("root/d/sub/n/set");
    let meta = fs::metadata(&placed).unwrap();
    assert_eq!((meta.uid(), meta.permissions().mode() & 0o7777), (0, 0o755));
    let given = Placing { owner: Some((7, 8)), ..own };
    tree.unpack("/d/sub", &mut &archive.bytes()[..], &given).unwrap();
    let meta = fs::metadata(&placed).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (7, 8));
}

#[test]
fn kinds_are_kept_if_so_asked() {
    let (_outer, tree) = guarded();
    let mut file_on_dir = Archive::new();
    file_on_dir.file("sub", 0o644, b"");
    let error = tree.unpack("/d", &mut &file_on_dir.bytes()[..], &KEEPING).unwrap_err();
    assert_eq!(error.to_string(), "cannot overwrite directory \"sub\" with non-directory \"sub\"");
    let mut dir_on_file = Archive::new();
    dir_on_file.dir("f", 0o755);
    let error = tree.unpack("/d", &mut &dir_on_file.bytes()[..], &KEEPING).unwrap_err();
    assert_eq!(error.to_string(), "cannot overwrite non-directory \"f\" with directory \"f\"");
    tree.unpack("/d", &mut &dir_on_file.bytes()[..], &Placing::default()).unwrap();
    assert_eq!(tree.stat("/d/f").unwrap().kind, PathKind::Dir);
    let error = tree.unpack("/d/x", &mut &dir_on_file.bytes()[..], &KEEPING).unwrap_err();
    assert_eq!(error.class(), Class::NotFound);
}

#[test]
fn attack_links_lead_nowhere() {
    let (outer, tree) = guarded();
    let out = outer.path().join("out");
    symlink(&out, outer.path().join("root/d/away")).unwrap();
    symlink("../../../../../../../../../../etc/passwd", outer.path().join("root/d/passwd")).unwrap();
    assert!(tree.stat("/d/away/secret").is_err());
    assert!(tree.pack("/d/away/", None, &mut Vec::new()).is_err());
    assert!(tree.pack("/d/passwd", Some("p"), &mut Vec::new()).is_ok(), "the link itself");
    assert!(tree.unpack("/d/away", &mut &Archive::new().bytes()[..], &KEEPING).is_err());
    // An archive that plants a link and then writes through it.
    let mut archive = Archive::new();
    archive.symlink("l", out.to_str().unwrap()).file("l/secret", 0o644, b"overwritten");
    let _ = tree.unpack("/d", &mut &archive.bytes()[..], &KEEPING);
    assert_eq!(fs::read(out.join("secret")).unwrap(), b"the host's");
    for name in ["../x", "/../x", "a/../../x"] {
        let mut archive = Archive::new();
        archive.file(name, 0o644, b"");
        assert!(tree.unpack("/d", &mut &archive.bytes()[..], &KEEPING).is_err(), "{name}");
    }
    assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 2, "nothing came to lie beside the root");
}

/// Somebody in the container swaps a directory for a symlink that leads out, as fast as it can, while we read and write
/// below it.
#[test]
fn attack_swapped_links_lead_nowhere() {
    let (outer, tree) = guarded();
    let root = outer.path().join("root");
    let out = outer.path().join("out");
    fs::create_dir(root.join("real")).unwrap();
    fs::write(root.join("real/secret"), "inside").unwrap();
    symlink(&out, root.join("link")).unwrap();
    let stop = AtomicBool::new(false);
    let mut archive = Archive::new();
    archive.dir("in", 0o755).file("in/secret", 0o644, b"overwritten").file("secret", 0o600, b"overwritten");
    archive.entry(tar::EntryType::Fifo, "in/fifo", 0o666, "", b"");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (at, real, link) = (root.join("at"), root.join("real"), root.join("link"));
            while !stop.load(Ordering::Relaxed) {
                let _ = fs::rename(&real, &at);
                let _ = fs::rename(&at, &real);
                let _ = fs::rename(&link, &at);
                let _ = fs::rename(&at, &link);
            }
        });
        for _ in 0..400 {
            let mut read = Vec::new();
            // It may fail in any way; it may not leave the tree.
            let _ = tree.pack("/at", Some("x"), &mut read);
            let _ = tree.pack("/", Some("x"), &mut read);
            assert!(!read.windows(10).any(|bytes| bytes == b"the host's"), "read what is outside");
            let _ = tree.unpack("/at", &mut &archive.bytes()[..], &KEEPING);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::read(out.join("secret")).unwrap(), b"the host's");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1, "wrote outside");
}

/// What is not a file any more is not opened: a fifo would never answer.
#[test]
fn attack_a_fifo_in_place_of_a_file() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    let (outer, tree) = guarded();
    let name = outer.path().join("root/d/f");
    let stat = tree.root.at(b"d").unwrap().stat(b"f").unwrap();
    fs::remove_file(&name).unwrap();
    mknodat(CWD, &name, FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
    let mut out = Vec::new();
    let mut tar = TarWriter::new(&mut out as &mut dyn Write);
    let error = tree.pack_one(&mut tar, &mut HashMap::new(), b"d/f", b"f", Some(stat)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
}
