//! The same suite over every shape a tree can have, and random operations against the kernel's own union.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tempfile::TempDir;

use super::{Code, Directory, How, OpenFile, Opened, Quota, Source, Vfs};
use crate::wasi::bindings::types::DescriptorType as Kind;

fn dir(path: &Path) -> Dir {
    fs::create_dir_all(path).unwrap();
    Dir::open_ambient_dir(path, ambient_authority()).unwrap()
}

const READ: How =
    How { follow: true, create: false, exclusive: false, truncate: false, directory: false, read: true, write: false };
const WRITE: How = How { write: true, ..READ };
const CREATE: How = How { create: true, truncate: true, ..WRITE };

fn file(opened: Result<Opened, Code>) -> Result<OpenFile, Code> {
    match opened? {
        Opened::File(file) => Ok(file),
        Opened::Directory(_) => Err(Code::IsDirectory),
    }
}

fn directory(opened: Result<Opened, Code>) -> Result<Directory, Code> {
    match opened? {
        Opened::Directory(directory) => Ok(directory),
        Opened::File(_) => Err(Code::NotDirectory),
    }
}

fn read(root: &Directory, path: &str) -> Result<String, Code> {
    let bytes = file(root.open(path, READ))?.read(1 << 16, 0)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn write(root: &Directory, path: &str, text: &str) -> Result<(), Code> {
    let file = file(root.open(path, CREATE))?;
    assert_eq!(file.write(text.as_bytes(), 0)?, text.len());
    Ok(())
}

fn names(root: &Directory, path: &str) -> Result<Vec<String>, Code> {
    let held = directory(root.open(path, How { directory: true, ..READ }))?;
    let mut names: Vec<_> = held.entries()?.into_iter().map(|entry| entry.name).collect();
    names.sort();
    Ok(names)
}

/// Everything below a directory, in words.
fn tree(root: &Directory) -> Vec<String> {
    fn walk(held: &Directory, path: &str, found: &mut Vec<String>) {
        let mut entries = held.entries().unwrap();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        for entry in entries {
            let path = format!("{path}/{}", entry.name);
            let stat = held.stat_at(&entry.name, false).unwrap_or_else(|e| panic!("{path}: {e:?}"));
            assert_eq!(stat.kind, entry.kind, "{path}");
            match stat.kind {
                Kind::Directory => {
                    found.push(format!("{path}/"));
                    walk(&directory(held.open(&entry.name, READ)).unwrap(), &path, found);
                }
                Kind::SymbolicLink => found.push(format!("{path} -> {}", held.read_link(&entry.name).unwrap())),
                _ => found.push(format!("{path}: {}", read(held, &entry.name).unwrap())),
            }
        }
    }
    let mut found = Vec::new();
    walk(root, "", &mut found);
    found
}

/// A tree of one shape. Each holds the same: what `fill` makes.
struct Shape {
    name: &'static str,
    vfs: Vfs,
    place: TempDir,
}

fn fill(root: &Path) {
    fs::create_dir_all(root.join("dir/sub")).unwrap();
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(root.join("etc/name"), "name").unwrap();
    fs::write(root.join("dir/file"), "file").unwrap();
    fs::write(root.join("dir/sub/deep"), "deep").unwrap();
    symlink("/etc/name", root.join("dir/absolute")).unwrap();
    symlink("../etc/name", root.join("dir/relative")).unwrap();
    symlink("sub", root.join("dir/link")).unwrap();
    symlink("../../../../../etc/name", root.join("dir/above")).unwrap();
    symlink("ring2", root.join("ring1")).unwrap();
    symlink("ring1", root.join("ring2")).unwrap();
}

fn layers(at: &Path, lowers: &[&str]) -> Source {
    Source::Layers {
        upper: dir(&at.join("upper")),
        lowers: lowers.iter().map(|name| dir(&at.join(name))).collect(),
        work: dir(&at.join("work")),
    }
}

fn shapes() -> Vec<Shape> {
    let shape = |name, make: &dyn Fn(&Path) -> Vfs| {
        let place = tempfile::tempdir().unwrap();
        Shape { name, vfs: make(place.path()), place }
    };
    vec![
        shape("one directory", &|at| {
            fill(&at.join("root"));
            Vfs::new(Source::Directory(dir(&at.join("root"))), false, None).unwrap()
        }),
        shape("one directory, walked", &|at| {
            fill(&at.join("root"));
            Vfs::new(Source::Directory(dir(&at.join("root"))), false, None).unwrap().walked()
        }),
        shape("a quota", &|at| {
            fill(&at.join("root"));
            let quota = Quota::new(dir(&at.join("root")), &at.join("root"), 1 << 20).unwrap();
            Vfs::new(Source::Directory(dir(&at.join("root"))), false, Some(quota)).unwrap()
        }),
        shape("one layer", &|at| {
            fill(&at.join("lower"));
            Vfs::new(layers(at, &["lower"]), false, None).unwrap()
        }),
        shape("three layers", &|at| {
            fill(&at.join("bottom"));
            fs::write(at.join("bottom/dir/gone"), "").unwrap();
            fs::create_dir_all(at.join("middle/dir")).unwrap();
            crate::linux::files::make_whiteout(&dir(&at.join("middle/dir")), "gone").unwrap();
            fs::write(at.join("middle/dir/file"), "file").unwrap();
            fs::create_dir_all(at.join("top/etc")).unwrap();
            fs::write(at.join("bottom/dir/file"), "older").unwrap();
            Vfs::new(layers(at, &["top", "middle", "bottom"]), false, None).unwrap()
        }),
        shape("layers in the upper one", &|at| {
            fill(&at.join("upper"));
            fs::create_dir_all(at.join("lower")).unwrap();
            Vfs::new(layers(at, &["lower"]), false, None).unwrap()
        }),
        shape("a mount on the way", &|at| {
            fill(&at.join("root"));
            fs::rename(at.join("root/dir"), at.join("dir")).unwrap();
            let mut vfs = Vfs::new(Source::Directory(dir(&at.join("root"))), false, None).unwrap();
            vfs.mount("/dir", Source::Directory(dir(&at.join("dir"))), false, None).unwrap();
            vfs
        }),
        shape("a mount below", &|at| {
            fill(&at.join("root"));
            let mut vfs = Vfs::new(Source::Directory(dir(&at.join("root"))), false, None).unwrap();
            fs::rename(at.join("root/dir/sub"), at.join("sub")).unwrap();
            vfs.mount("/dir/sub", Source::Directory(dir(&at.join("sub"))), false, None).unwrap();
            vfs
        }),
    ]
}

/// Runs `check` on every shape.
fn everywhere(check: impl Fn(&Directory, &Shape)) {
    for shape in shapes() {
        eprintln!("{}", shape.name);
        check(&shape.vfs.directory(), &shape);
    }
}

#[test]
fn what_is_there_is_seen() {
    everywhere(|root, _| {
        assert_eq!(read(root, "dir/file").unwrap(), "file");
        assert_eq!(read(root, "dir/./sub//deep").unwrap(), "deep");
        assert_eq!(names(root, ".").unwrap(), ["dir", "etc", "ring1", "ring2"]);
        assert_eq!(names(root, "dir/").unwrap(), ["above", "absolute", "file", "link", "relative", "sub"]);
        assert_eq!(root.stat_at("dir/sub/deep", true).unwrap().size, 4);
        assert_eq!(root.stat_at("dir", true).unwrap().kind, Kind::Directory);
        assert_eq!(root.stat().unwrap().kind, Kind::Directory);
        assert_eq!(read(root, "dir/missing"), Err(Code::NoEntry));
        assert_eq!(read(root, "dir/file/x"), Err(Code::NotDirectory));
        assert_eq!(read(root, "dir/file/"), Err(Code::NotDirectory));
        assert_eq!(root.stat_at("dir/file/", true), Err(Code::NotDirectory));
        assert_eq!(root.stat_at("", true), Err(Code::NoEntry));
        assert_eq!(read(root, &"n".repeat(300)), Err(Code::NameTooLong));
    });
}

#[test]
fn symlinks_stay_inside_the_root() {
    everywhere(|root, _| {
        for path in ["dir/absolute", "dir/relative", "dir/above", "dir/link/../absolute"] {
            assert_eq!(read(root, path).unwrap(), "name", "{path}");
            assert_eq!(root.stat_at(path, true).unwrap().size, 4, "{path}");
        }
        assert_eq!(read(root, "dir/link/deep").unwrap(), "deep");
        assert_eq!(names(root, "dir/link/").unwrap(), ["deep"]);
        assert_eq!(root.stat_at("dir/link", false).unwrap().kind, Kind::SymbolicLink);
        assert_eq!(root.stat_at("dir/link/", false).unwrap().kind, Kind::Directory);
        assert_eq!(root.read_link("dir/absolute").unwrap(), "/etc/name");
        assert_eq!(root.read_link("dir/file"), Err(Code::Invalid));
        assert_eq!(root.read_link("dir"), Err(Code::Invalid));
        for path in ["ring1", "ring1/x"] {
            assert_eq!(read(root, path), Err(Code::Loop), "{path}");
            assert_eq!(root.stat_at(path, true), Err(Code::Loop), "{path}");
        }
        assert_eq!(file(root.open("dir/link", How { follow: false, ..READ })).err(), Some(Code::Loop));
        // A handle below the root: what is above it is reached by symlinks, not by name.
        let held = directory(root.open("dir", READ)).unwrap();
        assert_eq!(read(&held, "relative").unwrap(), "name");
        assert_eq!(read(&held, "../etc/name"), Err(Code::NotPermitted));
        assert_eq!(read(&held, "sub/../../etc/name"), Err(Code::NotPermitted));
        assert_eq!(read(&held, "sub/../file").unwrap(), "file");
        assert_eq!(read(&held.ambient(), "../etc/name").unwrap(), "name");
        assert_eq!(read(root, "../etc/name"), Err(Code::NotPermitted));
        assert_eq!(read(root, "/etc/name"), Err(Code::NotPermitted));
    });
}

#[test]
fn files_are_made_written_and_removed() {
    everywhere(|root, shape| {
        write(root, "dir/sub/new", "new").unwrap();
        write(root, "dir/file", "changed").unwrap();
        assert_eq!(read(root, "dir/file").unwrap(), "changed");
        let kept = file(root.open("dir/file", READ)).unwrap();
        assert_eq!(file(root.open("dir/file", How { exclusive: true, ..CREATE })).err(), Some(Code::Exist));
        assert_eq!(file(root.open("dir", WRITE)).err(), Some(Code::IsDirectory));
        assert_eq!(file(root.open("dir/x", How { create: true, directory: true, ..WRITE })).err(), Some(Code::Invalid));
        assert_eq!(root.unlink("dir"), Err(Code::IsDirectory));
        assert_eq!(root.unlink("dir/missing"), Err(Code::NoEntry));
        assert_eq!(root.unlink("dir/file/"), Err(Code::NotDirectory));
        root.unlink("dir/file").unwrap();
        assert_eq!(read(root, "dir/file"), Err(Code::NoEntry));
        assert_eq!(kept.read(100, 0).unwrap(), b"changed", "what is open stays");
        root.unlink("dir/link").unwrap();
        assert_eq!(names(root, "dir").unwrap(), ["above", "absolute", "relative", "sub"]);
        write(root, "dir/file", "again").unwrap();
        assert_eq!(read(root, "dir/file").unwrap(), "again");
        if shape.place.path().join("lower").exists() && shape.name == "one layer" {
            assert_eq!(fs::read_to_string(shape.place.path().join("lower/dir/file")).unwrap(), "file");
        }
    });
}

#[test]
fn open_files_read_write_append_and_cut() {
    everywhere(|root, _| {
        let opened = file(root.open("dir/sub/deep", How { write: true, ..READ })).unwrap();
        assert_eq!(opened.append(b"er").unwrap(), 2);
        assert_eq!(opened.write(b"D", 0).unwrap(), 1);
        assert_eq!(opened.read(3, 2).unwrap(), b"epe");
        opened.set_size(2).unwrap();
        assert_eq!(read(root, "dir/sub/deep").unwrap(), "De");
        opened.set_size(4).unwrap();
        assert_eq!(opened.read(10, 0).unwrap(), b"De\0\0");
        assert_eq!(opened.read(10, 4).unwrap(), b"");
        let reader = file(root.open("dir/sub/deep", READ)).unwrap();
        assert_eq!(reader.write(b"x", 0), Err(Code::BadDescriptor));
        assert_eq!(reader.set_size(0), Err(Code::BadDescriptor));
        opened.sync(true).unwrap();
        let held = directory(root.open("dir", READ)).unwrap();
        held.sync().unwrap();
        // Over 4 GiB, sparse.
        if opened.set_size(5 << 30).is_ok() {
            assert_eq!(opened.write(b"end", (5 << 30) - 3).unwrap(), 3);
            assert_eq!(opened.read(10, (5 << 30) - 3).unwrap(), b"end");
            assert_eq!(root.stat_at("dir/sub/deep", true).unwrap().size, 5 << 30);
        }
    });
}

#[test]
fn directories_are_made_and_removed() {
    everywhere(|root, _| {
        root.create_dir("dir/new").unwrap();
        root.create_dir("dir/slash/").unwrap();
        assert_eq!(root.create_dir("dir/new"), Err(Code::Exist));
        assert_eq!(root.create_dir("dir/file"), Err(Code::Exist));
        assert_eq!(root.create_dir("dir/link"), Err(Code::Exist));
        assert_eq!(root.create_dir("dir/missing/x"), Err(Code::NoEntry));
        write(root, "dir/new/x", "").unwrap();
        assert_eq!(root.remove_dir("dir/new"), Err(Code::NotEmpty));
        assert_eq!(root.remove_dir("dir/file"), Err(Code::NotDirectory));
        assert_eq!(root.remove_dir("dir/link"), Err(Code::NotDirectory));
        assert_eq!(root.remove_dir("missing"), Err(Code::NoEntry));
        assert_eq!(root.remove_dir("."), Err(Code::Invalid));
        assert_eq!(root.remove_dir("./"), Err(Code::Invalid));
        let held = directory(root.open("dir/new", READ)).unwrap();
        root.unlink("dir/new/x").unwrap();
        root.remove_dir("dir/new/").unwrap();
        assert_eq!(write(&held, "late", ""), Err(Code::NoEntry));
        assert!(held.entries().map_or_else(|e| e == Code::NoEntry, |entries| entries.is_empty()));
        root.remove_dir("dir/slash").unwrap();
        // What was there from the beginning goes too, and what comes in its place is empty.
        root.unlink("etc/name").unwrap();
        root.remove_dir("etc").unwrap();
        assert_eq!(root.stat_at("etc", true), Err(Code::NoEntry));
        root.create_dir("etc").unwrap();
        assert_eq!(names(root, "etc").unwrap(), [""; 0]);
        write(root, "etc/name", "other").unwrap();
        assert_eq!(read(root, "dir/absolute").unwrap(), "other");
    });
}

#[test]
fn renaming_follows_the_rules() {
    everywhere(|root, _| {
        root.rename("etc/name", root, "etc/other").unwrap();
        assert_eq!(names(root, "etc").unwrap(), ["other"]);
        write(root, "etc/over", "").unwrap();
        root.rename("etc/other", root, "etc/over").unwrap();
        assert_eq!(read(root, "etc/over").unwrap(), "name");
        root.rename("etc/over", root, "etc/over").unwrap();
        let sub = directory(root.open("dir", READ)).unwrap();
        root.create_dir("etc/one").unwrap();
        root.create_dir("etc/one/in").unwrap();
        root.create_dir("etc/two").unwrap();
        root.rename("etc/one/", root, "etc/two/").unwrap();
        assert_eq!(names(root, "etc/two").unwrap(), ["in"]);
        assert_eq!(root.rename("etc/two", root, "etc/two/in/x"), Err(Code::Invalid));
        assert_eq!(root.rename("etc/two/in", root, "etc/two"), Err(Code::NotEmpty));
        root.create_dir("etc/empty").unwrap();
        assert_eq!(root.rename("etc/empty", root, "etc/two"), Err(Code::NotEmpty));
        assert_eq!(root.rename("etc/empty", root, "etc/over"), Err(Code::NotDirectory));
        assert_eq!(root.rename("etc/over", root, "etc/empty"), Err(Code::IsDirectory));
        assert_eq!(root.rename("etc/over", root, "etc/file/"), Err(Code::NotDirectory));
        assert_eq!(root.rename("etc/over/", root, "etc/file"), Err(Code::NotDirectory));
        assert_eq!(root.rename("etc/missing", root, "etc/x"), Err(Code::NoEntry));
        assert_eq!(root.rename("etc/over", root, "missing/x"), Err(Code::NoEntry));
        sub.rename("file", &sub, "moved").unwrap();
        assert_eq!(read(root, "dir/moved").unwrap(), "file");
    });
}

#[test]
fn a_file_has_several_names() {
    everywhere(|root, _| {
        root.link("dir/file", false, root, "dir/second").unwrap();
        let (one, two) = (root.stat_at("dir/file", true).unwrap(), root.stat_at("dir/second", true).unwrap());
        assert_eq!((one.identity, one.links), (two.identity, 2));
        assert_eq!(root.link("dir/file", false, root, "dir/second"), Err(Code::Exist));
        assert_eq!(root.link("dir/missing", false, root, "dir/x"), Err(Code::NoEntry));
        assert_eq!(root.link("dir/sub", false, root, "dir/x"), Err(Code::NotPermitted));
        assert_eq!(root.link("dir/file", false, root, "dir/x/"), Err(Code::NoEntry));
        root.unlink("dir/file").unwrap();
        root.link("dir/second", false, root, "dir/file").unwrap();
        assert_eq!(read(root, "dir/file").unwrap(), "file");
        root.link("dir/link", false, root, "dir/link2").unwrap();
        assert_eq!(root.read_link("dir/link2").unwrap(), "sub");
    });
}

#[test]
fn symlinks_are_made() {
    everywhere(|root, _| {
        root.symlink("sub/deep", "dir/made").unwrap();
        assert_eq!(read(root, "dir/made").unwrap(), "deep");
        assert_eq!(root.symlink("x", "dir/made"), Err(Code::Exist));
        assert_eq!(root.symlink("x", "dir/file"), Err(Code::Exist));
        assert_eq!(root.symlink("/etc/name", "dir/abs"), Err(Code::NotPermitted));
        assert_eq!(root.symlink("x", "dir/slash/"), Err(Code::NoEntry));
        assert_eq!(root.symlink("x", "dir/file/"), Err(Code::NotDirectory));
        assert_eq!(root.symlink("x", "dir/sub/"), Err(Code::Exist));
        root.symlink("missing", "dir/dangling").unwrap();
        assert_eq!(read(root, "dir/dangling"), Err(Code::NoEntry));
        assert_eq!(file(root.open("dir/dangling", How { exclusive: true, ..CREATE })).err(), Some(Code::Exist));
        root.unlink("dir/made").unwrap();
        root.symlink("file", "dir/made").unwrap();
        assert_eq!(read(root, "dir/made").unwrap(), "file");
    });
}

#[test]
fn times_are_set() {
    let then = SystemTime::UNIX_EPOCH + Duration::new(1_234_567, 890_000_000);
    everywhere(|root, _| {
        root.set_times_at("dir/file", true, None, Some(then)).unwrap();
        assert_eq!(root.stat_at("dir/file", true).unwrap().modified, Some(then));
        root.set_times_at("dir/sub", true, Some(then), Some(then)).unwrap();
        assert_eq!(root.stat_at("dir/sub", true).unwrap().modified, Some(then));
        root.set_times_at("dir/absolute", true, None, Some(then)).unwrap();
        assert_eq!(root.stat_at("etc/name", true).unwrap().modified, Some(then));
        root.set_times_at("dir/link", false, None, Some(then)).unwrap();
        assert_eq!(root.stat_at("dir/link", false).unwrap().modified, Some(then));
        let mut reader = file(root.open("dir/sub/deep", READ)).unwrap();
        reader.set_times(None, Some(then)).unwrap();
        assert_eq!(reader.stat().unwrap().modified, Some(then));
        assert_eq!(reader.read(10, 0).unwrap(), b"deep");
        assert_eq!(root.stat_at("dir/sub/deep", true).unwrap().modified, Some(then));
        let held = directory(root.open("etc", READ)).unwrap();
        held.set_times(None, Some(then)).unwrap();
        assert_eq!(root.stat_at("etc", true).unwrap().modified, Some(then));
        assert_eq!(root.set_times_at("dir/none", true, None, None), Err(Code::NoEntry));
    });
}

#[test]
fn a_listing_is_what_was_there_when_it_was_asked_for() {
    everywhere(|root, _| {
        let held = directory(root.open("dir", READ)).unwrap();
        let listing = held.entries().unwrap();
        for entry in listing.iter().filter(|entry| entry.kind != Kind::Directory) {
            held.unlink(&entry.name).unwrap();
            write(&held, &format!("{}-new", entry.name), "").unwrap();
        }
        assert_eq!(listing.len(), 6);
        assert_eq!(held.entries().unwrap().len(), 6, "a handle sees what others change");
    });
}

#[test]
fn a_held_directory_sees_what_is_copied_up() {
    everywhere(|root, _| {
        let held = directory(root.open("dir/sub", READ)).unwrap();
        let etc = directory(root.open("etc", READ)).unwrap();
        write(root, "dir/sub/new", "new").unwrap();
        write(root, "etc/name", "changed").unwrap();
        assert_eq!(read(&held, "new").unwrap(), "new");
        assert_eq!(read(&etc, "name").unwrap(), "changed");
        assert_eq!(held.stat().unwrap().identity, root.stat_at("dir/sub", true).unwrap().identity);
    });
}

#[test]
fn copying_up_keeps_what_it_can() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    fill(&at.join("lower"));
    let original = at.join("lower/dir/sub/deep");
    fs::set_permissions(&original, fs::Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(at.join("lower/dir"), fs::Permissions::from_mode(0o751)).unwrap();
    let kept = rustix::fs::setxattr(&original, "user.color", b"blue", rustix::fs::XattrFlags::empty()).is_ok();
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    fs::File::open(at.join("lower/dir")).unwrap().set_modified(then).unwrap();
    let source = Source::Layers {
        upper: dir(&at.join("upper")),
        lowers: vec![dir(&at.join("lower"))],
        work: dir(&at.join("work")),
    };
    let root = Vfs::new(source, false, None).unwrap().directory();
    file(root.open("dir/sub/deep", WRITE)).unwrap().append(b"er").unwrap();
    let copy = at.join("upper/dir/sub/deep");
    assert_eq!(fs::read_to_string(&copy).unwrap(), "deeper");
    assert_eq!(fs::read_to_string(&original).unwrap(), "deep");
    assert_eq!(fs::metadata(&copy).unwrap().mode() & 0o7777, 0o640);
    let dir = fs::metadata(at.join("upper/dir")).unwrap();
    assert_eq!((dir.mode() & 0o7777, dir.modified().unwrap()), (0o751, then));
    if kept {
        let mut value = [0; 8];
        let length = rustix::fs::getxattr(&copy, "user.color", &mut value[..]).unwrap();
        assert_eq!(&value[..length], b"blue");
    }
    assert_eq!(fs::read_dir(at.join("work")).unwrap().count(), 0);
}

#[test]
fn read_only_is_truly_so() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    fill(&at.join("data"));
    fs::write(at.join("single"), "single").unwrap();
    let mut vfs = Vfs::new(Source::Directory(dir(&at.join("root"))), false, None).unwrap();
    vfs.mount("/data", Source::Directory(dir(&at.join("data"))), true, None).unwrap();
    let single = Source::File { file: fs::File::open(at.join("single")).unwrap(), writable: false };
    vfs.mount("/single", single, true, None).unwrap();
    let root = vfs.directory();
    write(&root, "mine", "mine").unwrap();
    let before = tree(&root);
    let now = Some(SystemTime::now());
    let data = directory(root.open("data", READ)).unwrap();
    let mut reader = file(root.open("data/dir/file", READ)).unwrap();
    for refused in [
        write(&root, "data/dir/file", "x"),
        write(&root, "data/new", "x"),
        write(&data, "new", "x"),
        write(&root, "single", "x"),
        file(root.open("data/dir/file", WRITE)).map(drop),
        file(root.open("data/dir/file", How { truncate: true, ..READ })).map(drop),
        root.create_dir("data/new"),
        root.remove_dir("data/dir/sub"),
        root.unlink("data/dir/file"),
        root.symlink("x", "data/new"),
        root.link("data/dir/file", false, &root, "data/new"),
        root.rename("data/dir/file", &root, "data/dir/other"),
        root.rename("data/dir/file", &root, "data/etc/name"),
        data.rename("dir/file", &data, "etc/name"),
        root.set_times_at("data/dir/file", true, now, now),
        root.set_times_at("data/dir", true, now, now),
        root.set_times_at("data/dir/link", false, now, now),
        root.set_times_at("single", true, now, now),
        data.set_times(now, now),
        reader.set_times(now, now),
    ] {
        assert_eq!(refused, Err(Code::ReadOnly));
    }
    assert_eq!(root.link("mine", false, &root, "data/mine"), Err(Code::ReadOnly));
    assert_eq!(root.link("data/dir/file", false, &root, "linked"), Err(Code::CrossDevice));
    assert_eq!(root.rename("mine", &root, "data/dir/file"), Err(Code::CrossDevice));
    assert_eq!(root.rename("data/dir/file", &root, "mine"), Err(Code::CrossDevice));
    for busy in [
        root.rename("data", &root, "d"),
        root.rename("single", &root, "s"),
        root.remove_dir("data"),
        root.unlink("single"),
    ] {
        assert_eq!(busy, Err(Code::Busy));
    }
    assert_eq!(root.rename("mine", &root, "single"), Err(Code::Busy));
    assert_eq!(reader.write(b"x", 0), Err(Code::BadDescriptor));
    assert_eq!(reader.set_size(0), Err(Code::BadDescriptor));
    assert_eq!(tree(&root), before);
}

#[test]
fn a_single_file_is_mounted() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    fill(&at.join("lower"));
    fs::write(at.join("single"), "single").unwrap();
    let source = Source::Layers {
        upper: dir(&at.join("upper")),
        lowers: vec![dir(&at.join("lower"))],
        work: dir(&at.join("work")),
    };
    let mut vfs = Vfs::new(source, false, None).unwrap();
    let open = || fs::OpenOptions::new().read(true).write(true).open(at.join("single")).unwrap();
    vfs.mount("/etc/name", Source::File { file: open(), writable: true }, false, None).unwrap();
    vfs.mount("/new/place/here", Source::File { file: open(), writable: true }, false, None).unwrap();
    let root = vfs.directory();
    assert_eq!(read(&root, "etc/name").unwrap(), "single");
    assert_eq!(read(&root, "dir/absolute").unwrap(), "single");
    assert_eq!(names(&root, "etc").unwrap(), ["name"]);
    assert_eq!(names(&root, "new/place").unwrap(), ["here"]);
    write(&root, "new/place/here", "cut").unwrap();
    assert_eq!(fs::read_to_string(at.join("single")).unwrap(), "cut");
    file(root.open("etc/name", WRITE)).unwrap().append(b" more").unwrap();
    assert_eq!(fs::read_to_string(at.join("single")).unwrap(), "cut more");
    assert_eq!(fs::read_to_string(at.join("lower/etc/name")).unwrap(), "name");
    assert_eq!(root.unlink("etc/name"), Err(Code::Busy));
    assert_eq!(root.rename("etc", &root, "moved"), Err(Code::Busy));
    assert_eq!(read(&root, "etc/name/"), Err(Code::NotDirectory));
    assert_eq!(root.stat_at("etc/name", true).unwrap().size, 8);
}

#[test]
fn mounts_hide_what_is_below_and_nest() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    fill(&at.join("root"));
    fs::write(at.join("root/dir/sub/hidden"), "").unwrap();
    let mut vfs = Vfs::new(Source::Directory(dir(&at.join("root"))), false, None).unwrap();
    for (target, source) in [("/dir/link", "a"), ("/dir/sub/inner/most", "b"), ("/var", "c")] {
        fs::create_dir_all(at.join(source)).unwrap();
        fs::write(at.join(source).join(source), source).unwrap();
        vfs.mount(target, Source::Directory(dir(&at.join(source))), false, None).unwrap();
    }
    let root = vfs.directory();
    // The first target leads along a symlink.
    assert_eq!(names(&root, "dir/sub").unwrap(), ["a", "inner"]);
    assert_eq!(read(&root, "dir/link/inner/most/b").unwrap(), "b");
    assert_eq!(read(&root, "dir/sub/inner/most/../../a").unwrap(), "a");
    assert!(names(&root, ".").unwrap().contains(&"var".to_owned()));
    assert_eq!(root.rename("dir/sub/a", &root, "dir/sub/inner/most/a"), Err(Code::CrossDevice));
    assert_eq!(root.remove_dir("dir/sub/inner"), Err(Code::Busy));
    let most = directory(root.open("dir/sub/inner/most", READ)).unwrap();
    assert_eq!(read(&most, "../../a"), Err(Code::NotPermitted));
    assert_eq!(read(&most.ambient(), "../../a").unwrap(), "a");
}

#[test]
fn what_is_not_in_the_working_directory_is_looked_for_in_the_root() {
    everywhere(|root, shape| {
        root.create_dir("work").unwrap();
        root.create_dir("work/etc").unwrap();
        write(root, "work/etc/own", "own").unwrap();
        write(root, "top", "top").unwrap();
        let dot = shape.vfs.enter("/work").unwrap().ambient().or_root();
        assert_eq!(read(&dot, "etc/own").unwrap(), "own");
        assert_eq!(read(&dot, "etc/name").unwrap(), "name");
        assert_eq!(read(&dot, "../etc/name").unwrap(), "name");
        assert_eq!(read(&dot, "work/etc/own").unwrap(), "own");
        assert_eq!(read(&dot, "etc/none"), Err(Code::NoEntry));
        write(&dot, "dir/new", "in the root").unwrap();
        assert_eq!(read(root, "dir/new").unwrap(), "in the root");
        write(&dot, "new", "here").unwrap();
        assert_eq!(read(root, "work/new").unwrap(), "here");
        write(&dot, "top", "changed").unwrap();
        assert_eq!(read(root, "top").unwrap(), "changed");
        dot.rename("dir/new", &dot, "dir/newer").unwrap();
        assert_eq!(read(root, "dir/newer").unwrap(), "in the root");
        dot.rename("new", &dot, "etc/new").unwrap();
        assert_eq!(read(root, "work/etc/new").unwrap(), "here");
        dot.unlink("dir/newer").unwrap();
        assert_eq!(dot.unlink("dir/newer"), Err(Code::NoEntry));
        dot.create_dir("dir/made").unwrap();
        assert_eq!(names(root, "dir/made").unwrap(), [""; 0]);
    });
}

#[test]
fn a_quota_holds() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    let quota = Quota::new(dir(&at.join("root")), &at.join("root"), 64 << 10).unwrap();
    let root = Vfs::new(Source::Directory(dir(&at.join("root"))), false, Some(quota)).unwrap().directory();
    let big = file(root.open("big", CREATE)).unwrap();
    assert_eq!(big.write(&[1; 40 << 10], 0).unwrap(), 40 << 10);
    assert_eq!(big.write(&[1; 40 << 10], 40 << 10), Err(Code::InsufficientSpace));
    assert_eq!(big.append(&[1; 40 << 10]), Err(Code::InsufficientSpace));
    assert_eq!(big.set_size(1 << 30), Err(Code::InsufficientSpace));
    assert_eq!(big.write(&[2; 4 << 10], 0).unwrap(), 4 << 10, "what is there may be written again");
    // A file without a name takes its space until it is closed.
    root.unlink("big").unwrap();
    let other = file(root.open("other", CREATE)).unwrap();
    assert_eq!(other.write(&[1; 40 << 10], 0), Err(Code::InsufficientSpace));
    drop(big);
    assert_eq!(other.write(&[1; 40 << 10], 0).unwrap(), 40 << 10);
    other.set_size(0).unwrap();
    let many = (0..100).find(|n| root.create_dir(&format!("d{n}")).is_err());
    assert!(many.is_some_and(|n| (10..16).contains(&n)), "{many:?}");
    assert_eq!(root.create_dir("more"), Err(Code::InsufficientSpace));
    root.remove_dir("d0").unwrap();
    root.create_dir("more").unwrap();
    // What others do in the same layer counts too.
    fs::remove_dir(at.join("root/more")).unwrap();
    fs::remove_dir(at.join("root/d1")).unwrap();
    root.create_dir("more").unwrap();
}

#[test]
fn pipes_and_sockets_of_lower_layers_are_copied_up_and_devices_are_not() {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    for name in ["upper", "work", "lower/d"] {
        fs::create_dir_all(at.join(name)).unwrap();
    }
    let special = [("pipe", FileType::Fifo, 0), ("socket", FileType::Socket, 0)];
    let device = ("device", FileType::CharacterDevice, makedev(1, 3));
    for (name, kind, number) in special.into_iter().chain([device]) {
        for name in [format!("lower/{name}"), format!("lower/{name}-2"), format!("lower/d/{name}")] {
            mknodat(CWD, at.join(name), kind, Mode::from_raw_mode(0o640), number).unwrap();
        }
    }
    let changed = |name: &str| fs::symlink_metadata(at.join("lower").join(name)).unwrap().modified().unwrap();
    let root = Vfs::new(layers(at, &["lower"]), false, None).unwrap().directory();
    let upper = |name: &str| fs::symlink_metadata(at.join("upper").join(name)).unwrap();
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    for (name, kind, _) in special {
        let is_kind = |metadata: &fs::Metadata| FileType::from_raw_mode(metadata.mode()) == kind;
        let (second, deep, before) = (format!("{name}-2"), format!("d/{name}"), changed(name));
        root.rename(&deep, &root, &format!("moved-{name}")).unwrap();
        let moved = upper(&format!("moved-{name}"));
        assert!(is_kind(&moved) && moved.mode() & 0o777 == 0o640, "{name}: {:o}", moved.mode());
        assert_eq!(moved.modified().unwrap(), changed(&deep), "{name}: it is the same to who looks at it");
        assert_eq!(root.stat_at(&deep, false).err(), Some(Code::NoEntry), "{name}");
        root.link(&second, false, &root, &format!("linked-{name}")).unwrap();
        assert!(is_kind(&upper(&format!("linked-{name}"))) && upper(&second).nlink() == 2, "{name}");
        root.set_times_at(name, false, None, Some(long_ago)).unwrap();
        assert!(is_kind(&upper(name)) && upper(name).modified().unwrap() == long_ago, "{name}");
        assert_eq!(changed(name), before, "{name}: the layer is as it was");
    }
    let refused = Err(Code::NotPermitted);
    assert_eq!(root.rename("d/device", &root, "moved"), refused);
    assert_eq!(root.link("device", false, &root, "linked"), refused);
    assert_eq!(root.set_times_at("device", false, None, Some(long_ago)), refused);
    assert!(root.stat_at("d/device", false).is_ok() && root.stat_at("moved", false).is_err());
    assert_eq!(fs::read_dir(at.join("work")).unwrap().count(), 0, "nothing is left over");
    // It can be removed, as anything of a lower layer.
    root.unlink("d/device").unwrap();
    assert_eq!(root.stat_at("d/device", false).err(), Some(Code::NoEntry));
}

/// What all files of a directory hold.
fn held(at: &Path) -> u64 {
    let entries = fs::read_dir(at).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| if entry.path().is_dir() { held(&entry.path()) } else { entry.metadata().unwrap().len() }).sum()
}

#[test]
fn a_quota_holds_for_all_processes_together() {
    const LIMIT: u64 = 8 << 20;
    let place = tempfile::tempdir().unwrap();
    let at = place.path().join("root");
    fs::create_dir(&at).unwrap();
    // As a process has it: files of its own, and so locks of its own.
    let open = || {
        let quota = Quota::new(dir(&at), &at, LIMIT).unwrap();
        Vfs::new(Source::Directory(dir(&at)), false, Some(quota)).unwrap().directory()
    };
    // One who took some and is never heard of again, and one who is there and does nothing.
    let idle = [open(), open()];
    idle.iter().enumerate().for_each(|(n, root)| write(root, &format!("idle{n}"), "x").unwrap());
    let fill = |out: &OpenFile, piece: usize| {
        let mut full = 0;
        // Others may give something back: it is tried again.
        while full < 3 {
            match out.append(&vec![1; piece]) {
                Ok(_) => assert!(held(&at) <= LIMIT, "{}", held(&at)),
                Err(Code::InsufficientSpace) => full += 1,
                Err(code) => panic!("{code:?}"),
            }
        }
    };
    for round in 0..3 {
        let writers = [(0, 5_000), (1, 64 << 10), (2, 300)];
        let writers = writers.map(|(n, piece)| (file(open().open(&format!("{round}-{n}"), CREATE)).unwrap(), piece));
        std::thread::scope(|scope| {
            for (out, piece) in &writers {
                scope.spawn(|| fill(out, *piece));
            }
        });
        drop(writers);
        let full = held(&at);
        assert!((LIMIT - LIMIT / 16..=LIMIT).contains(&full), "{round}: {full}");
        // Who has been told that there is no room is told that there is when there is.
        let root = open();
        (0..3).for_each(|n| root.unlink(&format!("{round}-{n}")).unwrap());
        let whole = file(root.open("whole", CREATE)).unwrap();
        whole.set_size(LIMIT - LIMIT / 16).unwrap();
        // While it is open it counts, whoever asks.
        root.unlink("whole").unwrap();
        let refused = file(open().open("more", CREATE)).unwrap().set_size(LIMIT / 8);
        assert_eq!(refused, Err(Code::InsufficientSpace));
        drop(whole);
        file(open().open("more", CREATE)).unwrap().set_size(LIMIT / 2).unwrap();
        root.unlink("more").unwrap();
    }
}

#[test]
fn a_symlink_swapped_in_by_the_host_leads_nowhere() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path().to_owned();
    fs::create_dir_all(at.join("root/a/b")).unwrap();
    fs::write(at.join("root/a/b/file"), "inside").unwrap();
    fs::create_dir_all(at.join("outside/b")).unwrap();
    fs::write(at.join("outside/b/file"), "outside").unwrap();
    let source = || Source::Directory(dir(&at.join("root")));
    let trees = [Vfs::new(source(), false, None).unwrap(), Vfs::new(source(), false, None).unwrap().walked()];
    let over = Arc::new(AtomicBool::new(false));
    let (done, swapped) = (Arc::clone(&over), at.clone());
    let swapper = std::thread::spawn(move || {
        while !done.load(Ordering::Relaxed) {
            fs::rename(swapped.join("root/a"), swapped.join("real")).unwrap();
            symlink(swapped.join("outside"), swapped.join("root/a")).unwrap();
            fs::remove_file(swapped.join("root/a")).unwrap();
            fs::rename(swapped.join("real"), swapped.join("root/a")).unwrap();
        }
    });
    let mut seen = 0;
    for round in 0..4000 {
        let root = trees[round % 2].directory();
        if let Ok(text) = read(&root, "a/b/file") {
            assert_eq!(text, "inside");
            seen += 1;
        }
        let _ = write(&root, "a/b/planted", "x");
        let _ = root.unlink("a/b/planted");
        let _ = root.rename("a/b/file", &root, "a/b/file2");
        let _ = root.rename("a/b/file2", &root, "a/b/file");
    }
    over.store(true, Ordering::Relaxed);
    swapper.join().unwrap();
    assert!(seen > 0);
    assert_eq!(fs::read_dir(at.join("outside/b")).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(at.join("outside/b/file")).unwrap(), "outside");
}

/// A mounted overlay; unmounted when dropped.
struct Overlay(PathBuf);

impl Overlay {
    fn mount(at: &Path, lowers: &[PathBuf]) -> Overlay {
        let merged = at.join("merged");
        for name in ["merged", "kernel-upper", "kernel-work"] {
            fs::create_dir_all(at.join(name)).unwrap();
        }
        let lowers: Vec<_> = lowers.iter().map(|lower| lower.display().to_string()).collect();
        let options = format!(
            "lowerdir={},upperdir={},workdir={},redirect_dir=off,index=off,metacopy=off",
            lowers.join(":"),
            at.join("kernel-upper").display(),
            at.join("kernel-work").display()
        );
        let mounted =
            Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&merged).status().unwrap();
        assert!(mounted.success(), "these tests run where overlays can be mounted");
        Overlay(merged)
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Something a guest does.
#[derive(Debug, Clone)]
enum Act {
    Write(String),
    Append(String),
    Make(String),
    Symlink(String, String),
    Link(String, String),
    Rename(String, String),
    Unlink(String),
    RemoveDir(String),
    Read(String),
    List(String),
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4).prop_map(|names| names.join("/"))
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => path().prop_map(Act::Write),
        2 => path().prop_map(Act::Append),
        3 => path().prop_map(Act::Make),
        1 => (path(), path()).prop_map(|(to, at)| Act::Symlink(to, at)),
        2 => (path(), path()).prop_map(|(from, to)| Act::Link(from, to)),
        4 => (path(), path()).prop_map(|(from, to)| Act::Rename(from, to)),
        3 => path().prop_map(Act::Unlink),
        3 => path().prop_map(Act::RemoveDir),
        1 => path().prop_map(Act::Read),
        1 => path().prop_map(Act::List),
    ]
}

fn perform(root: &Directory, act: &Act) -> Result<String, Code> {
    let done = |result: Result<(), Code>| result.map(|()| String::new());
    match act {
        Act::Write(path) => done(write(root, path, path)),
        Act::Append(path) => done(file(root.open(path, WRITE)).and_then(|file| file.append(b"+").map(drop))),
        Act::Make(path) => done(root.create_dir(path)),
        Act::Symlink(to, path) => done(root.symlink(to, path)),
        Act::Link(path, new) => done(root.link(path, false, root, new)),
        Act::Rename(path, new) => done(root.rename(path, root, new)),
        Act::Unlink(path) => done(root.unlink(path)),
        Act::RemoveDir(path) => done(root.remove_dir(path)),
        Act::Read(path) => read(root, path),
        Act::List(path) => names(root, path).map(|names| names.join(" ")),
    }
}

/// Gives a lower layer a random content, by doing things in it.
fn layer(at: &Path, acts: &[Act]) {
    let root = Vfs::new(Source::Directory(dir(at)), false, None).unwrap().directory();
    for act in acts {
        let _ = perform(&root, act);
    }
}

#[test]
fn random_operations_end_as_in_the_kernels_overlay() {
    let acts = |n| prop::collection::vec(act(), n);
    let strategy = (acts(12..13), acts(12..13), acts(1..40));
    let config = Config { cases: 60, failure_persistence: None, max_shrink_iters: 400, ..Config::default() };
    let run = |(bottom, top, acts): (Vec<Act>, Vec<Act>, Vec<Act>)| {
        let place = tempfile::tempdir().unwrap();
        let at = place.path();
        layer(&at.join("bottom"), &bottom);
        layer(&at.join("top"), &top);
        let lowers = [at.join("top"), at.join("bottom")];
        let overlay = Overlay::mount(at, &lowers);
        let source = Source::Layers {
            upper: dir(&at.join("upper")),
            lowers: lowers.iter().map(|lower| dir(lower)).collect(),
            work: dir(&at.join("work")),
        };
        let ours = Vfs::new(source, false, None).unwrap();
        let theirs = Vfs::new(Source::Directory(dir(&overlay.0)), false, None).unwrap();
        for act in &acts {
            let (mine, kernel) = (perform(&ours.directory(), act), perform(&theirs.directory(), act));
            prop_assert_eq!(mine, kernel, "{:?}", act);
        }
        prop_assert_eq!(tree(&ours.directory()), tree(&theirs.directory()));
        // The kernel reads what we have written.
        drop((ours, theirs, overlay));
        fs::rename(at.join("upper"), at.join("ours")).unwrap();
        fs::remove_dir_all(at.join("kernel-upper")).unwrap();
        fs::rename(at.join("ours"), at.join("kernel-upper")).unwrap();
        let source = Source::Layers {
            upper: dir(&at.join("kernel-upper")),
            lowers: lowers.iter().map(|lower| dir(lower)).collect(),
            work: dir(&at.join("work")),
        };
        let ours = tree(&Vfs::new(source, false, None).unwrap().directory());
        let overlay = Overlay::mount(at, &lowers);
        let theirs = Vfs::new(Source::Directory(dir(&overlay.0)), false, None).unwrap();
        prop_assert_eq!(ours, tree(&theirs.directory()));
        Ok(())
    };
    // Found by chance once: two names of one file in a lower layer.
    let [b, c] = ["b", "c"].map(|name| name.to_owned());
    let two_names = vec![Act::Write(c.clone()), Act::Link(c.clone(), b.clone())];
    run((vec![], two_names, vec![Act::Rename(b.clone(), b.clone()), Act::Rename(b, c)])).unwrap();
    TestRunner::new(config).run(&strategy, run).unwrap();
}

#[test]
fn random_operations_end_the_same_walked_or_not() {
    let strategy = prop::collection::vec(act(), 1..80);
    let config = Config { cases: 100, failure_persistence: None, ..Config::default() };
    let run = |acts: Vec<Act>| {
        let place = tempfile::tempdir().unwrap();
        let open = |name| Vfs::new(Source::Directory(dir(&place.path().join(name))), false, None).unwrap();
        let (direct, walked) = (open("direct"), open("walked").walked());
        for act in &acts {
            let (direct, walked) = (perform(&direct.directory(), act), perform(&walked.directory(), act));
            prop_assert_eq!(direct, walked, "{:?}", act);
        }
        prop_assert_eq!(tree(&direct.directory()), tree(&walked.directory()));
        Ok(())
    };
    TestRunner::new(config).run(&strategy, run).unwrap();
}
