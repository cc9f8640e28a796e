//! Layers as they should be: what an image means by its entries.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use tar::EntryType;

use super::testing::{Archive, Ground, applied, options};
use crate::digest::Digest;
use crate::error::Class;
use crate::os::DirAt;

#[test]
fn a_layer_becomes_a_tree() {
    let ground = Ground::new();
    let mut archive = Archive::new();
    archive.dir("etc/", 0o755).file("etc/hosts", 0o640, b"localhost").symlink("bin", "usr/bin");
    archive.file("usr/bin/sh", 0o755, b"#!").hard_link("usr/bin/bash", "usr/bin/sh");
    let done = ground.unpack(&archive).unwrap();
    assert_eq!(done.diff_id, Digest::of(&archive.bytes()));
    assert_eq!((done.entries, done.bytes), (5, 11));
    assert_eq!(ground.read("etc/hosts"), "localhost");
    assert_eq!(fs::metadata(ground.at("etc/hosts")).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(fs::read_link(ground.at("bin")).unwrap(), Path::new("usr/bin"));
    assert_eq!(
        fs::metadata(ground.at("usr/bin/bash")).unwrap().ino(),
        fs::metadata(ground.at("bin/sh")).unwrap().ino()
    );
    assert!(done.notes.is_empty());
}

#[test]
fn owners_modes_and_times_are_kept() {
    let ground = Ground::new();
    let mut archive = Archive::new();
    (archive.uid, archive.gid, archive.mtime) = (1000, 1001, 1_111_111_111);
    archive.dir("./", 0o711).dir("d/", 0o2775).file("d/f", 0o666, b"x").symlink("d/s", "f");
    archive.entry(EntryType::Fifo, "d/p", 0o662, "", b"");
    archive.pax(&[("mtime", b"1222222222.5"), ("uid", b"70000"), ("gid", b"70001")]).file("d/pax", 0o600, b"");
    (archive.uid, archive.gid) = (0, 0);
    archive.file("d/root", 0o600, b"");
    ground.unpack(&archive).unwrap();
    for (path, mode) in [("", 0o711), ("d", 0o2775), ("d/f", 0o666), ("d/s", 0o777), ("d/p", 0o662)] {
        let stat = fs::symlink_metadata(ground.at(path)).unwrap();
        assert_eq!((stat.uid(), stat.gid(), stat.mtime()), (1000, 1001, 1_111_111_111), "{path}");
        assert_eq!(stat.mode() & 0o7777, mode, "{path}");
    }
    let pax = fs::metadata(ground.at("d/pax")).unwrap();
    assert_eq!((pax.uid(), pax.gid(), pax.mtime(), pax.mtime_nsec()), (70000, 70001, 1_222_222_222, 500_000_000));
    assert_eq!(fs::metadata(ground.at("d/root")).unwrap().gid(), 0, "a set-gid directory gives nothing its group");
}

#[test]
fn whiteouts_become_overlayfs_marks() {
    let ground = Ground::new();
    let mut archive = Archive::new();
    archive
        .file("a/.wh.gone", 0o644, b"")
        .dir("b/", 0o755)
        .file("b/.wh..wh..opq", 0o644, b"")
        .file("b/new", 0o644, b"");
    archive.file(".wh.was-file", 0o644, b"").dir("was-file/", 0o755);
    archive.file("was-dir/in", 0o644, b"").file(".wh.was-dir", 0o644, b"");
    archive.file(".wh.implied", 0o644, b"").file("implied/in", 0o644, b"");
    archive.file("stays", 0o644, b"mine").file(".wh.stays", 0o644, b"");
    ground.unpack(&archive).unwrap();
    let gone = fs::symlink_metadata(ground.at("a/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    for (dir, opaque) in [("b", true), ("a", false), ("was-file", true), ("was-dir", true), ("implied", true)] {
        assert_eq!(DirAt::open(&ground.at(dir)).unwrap().is_opaque().unwrap(), opaque, "{dir}");
    }
    assert_eq!(ground.read("stays"), "mine", "a whiteout hides lower layers, not its own");
    assert!(ground.at("was-dir/in").exists());
}

#[test]
fn whiteouts_are_carried_out() {
    let ground = Ground::new();
    let mut lower = Archive::new();
    lower.file("a/gone", 0o644, b"").file("a/stays", 0o644, b"").file("b/x/old", 0o644, b"").file("b/y", 0o644, b"");
    lower.file("tree/deep/file", 0o644, b"").file("file", 0o644, b"lower").file("twice/old", 0o644, b"");
    ground.unpack_bytes(&lower.bytes(), &applied()).unwrap();
    let mut upper = Archive::new();
    // An opaque mark counts for what comes before it too.
    upper.file("b/x/new", 0o644, b"").file("b/.wh..wh..opq", 0o644, b"").file("a/.wh.gone", 0o644, b"");
    upper.file(".wh.tree", 0o644, b"").file("file", 0o644, b"upper").file(".wh.file", 0o644, b"");
    upper.file("twice/new", 0o644, b"").file(".wh.twice", 0o644, b"").file("no/such/.wh.thing", 0o644, b"");
    ground.unpack_bytes(&upper.bytes(), &applied()).unwrap();
    let there = ["a/stays", "b/x/new", "file", "twice/new"];
    let gone = ["a/gone", "b/x/old", "b/y", "tree", "twice/old", "b/.wh..wh..opq", "no"];
    for (paths, exists) in [(&there[..], true), (&gone[..], false)] {
        for path in paths {
            assert_eq!(ground.at(path).exists(), exists, "{path}");
        }
    }
    assert_eq!(ground.read("file"), "upper");
}

#[test]
fn later_entries_replace_earlier_ones() {
    let ground = Ground::new();
    let mut archive = Archive::new();
    archive.file("x", 0o644, b"file").dir("x/", 0o755).file("x/in", 0o644, b"");
    archive.file("y/in", 0o644, b"").file("y", 0o644, b"file").dir("d/", 0o700).dir("d/", 0o755);
    archive
        .file("z", 0o644, b"first")
        .hard_link("zz", "z")
        .file("z", 0o644, b"second")
        .symlink("l", "x")
        .dir("l/", 0o755);
    let done = ground.unpack(&archive).unwrap();
    assert_eq!(done.entries, 12);
    assert!(ground.at("x/in").is_file());
    assert_eq!(ground.read("y"), "file");
    assert_eq!((ground.read("z"), ground.read("zz")), ("second".to_owned(), "first".to_owned()));
    assert_eq!(fs::metadata(ground.at("d")).unwrap().mode() & 0o777, 0o755);
    assert!(fs::symlink_metadata(ground.at("l")).unwrap().is_dir());
    assert_eq!(fs::metadata(ground.at("y")).unwrap().mtime(), 1_000_000_000);
}

#[test]
fn compression_is_told_by_the_bytes() {
    let mut archive = Archive::new();
    archive.file("big", 0o644, &vec![b'z'; 3_000_000]).file("small", 0o644, b"s");
    let plain = archive.bytes();
    let (first, second) = plain.split_at(1_000_001);
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let members = [gzip(first), gzip(second)].concat();
    let frames = [zstd::encode_all(first, 1).unwrap(), zstd::encode_all(second, 1).unwrap()].concat();
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &frames].concat();
    for bytes in [&plain, &gzip(&plain), &members, &frames, &skippable] {
        let ground = Ground::new();
        let done = ground.unpack_bytes(bytes, &options()).unwrap();
        assert_eq!((done.diff_id, done.bytes), (Digest::of(&plain), 3_000_001));
        assert_eq!(fs::metadata(ground.at("big")).unwrap().len(), 3_000_000);
    }
    for damaged in [&members[..members.len() - 9], &frames[..frames.len() - 9], &plain[..2000]] {
        assert_eq!(Ground::new().unpack_bytes(damaged, &options()).unwrap_err().class(), Class::Corrupt);
    }
    let mut flipped = gzip(&plain);
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x10;
    assert_eq!(Ground::new().unpack_bytes(&flipped, &options()).unwrap_err().class(), Class::Corrupt);
    for unknown in [&b"\xfd7zXZ\0...."[..], b"BZh91AY&SY"] {
        assert_eq!(Ground::new().unpack_bytes(unknown, &options()).unwrap_err().class(), Class::Unsupported);
    }
}

#[test]
fn the_diff_id_covers_every_byte() {
    let mut archive = Archive::new();
    archive.file("f", 0o644, b"x");
    let mut bytes = archive.bytes();
    // GNU tar fills whole records of 10 KiB, and others append what they like.
    bytes.extend_from_slice(&[0; 20_000]);
    bytes.extend_from_slice(b"trailer");
    let done = Ground::new().unpack_bytes(&bytes, &options()).unwrap();
    assert_eq!(done.diff_id, Digest::of(&bytes));
    assert_eq!(Ground::new().unpack_bytes(b"", &options()).unwrap().diff_id, Digest::of(b""));
}

#[test]
fn long_names_of_both_kinds() {
    let ground = Ground::new();
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(255));
    let mut archive = Archive::new();
    archive.entry(EntryType::GNULongName, "././@LongLink", 0o644, "", format!("{long}\0").as_bytes());
    archive.file("cut", 0o644, b"gnu");
    let target = format!("{}/{}", "t".repeat(200), "u".repeat(200));
    archive.pax(&[("path", b"pax/link"), ("linkpath", target.as_bytes())]).symlink("cut", "cut");
    archive.entry(EntryType::GNULongLink, "././@LongLink", 0o644, "", format!("{long}\0").as_bytes());
    archive.hard_link("hard", "cut");
    ground.unpack(&archive).unwrap();
    assert_eq!(ground.read(&long), "gnu");
    assert_eq!(ground.read("hard"), "gnu");
    assert_eq!(fs::read_link(ground.at("pax/link")).unwrap(), Path::new(&target));
    let mut too_long = Archive::new();
    too_long.pax(&[("path", "n".repeat(256).as_bytes())]).file("cut", 0o644, b"");
    assert_eq!(Ground::new().unpack(&too_long).unwrap_err().class(), Class::Corrupt);
}

#[test]
fn without_privilege_owners_and_devices_are_left_out() {
    let ground = Ground::new();
    let mut archive = Archive::new();
    archive.file("read-only", 0o444, b"x").dir("closed/", 0o500).file("closed/in", 0o444, b"y");
    (archive.uid, archive.gid) = (1234, 1234);
    archive.file("suid", 0o6755, b"").device(EntryType::Char, "null", 1, 3);
    archive.file(".wh.gone", 0o644, b"").pax(&[("SCHILY.xattr.user.a", b"b")]).file("x", 0o400, b"");
    let bytes = archive.bytes();
    let options = super::Options { privileged: false, ..options() };
    let done = ground.unpack_bytes(&bytes, &options).unwrap();
    let suid = fs::metadata(ground.at("suid")).unwrap();
    assert_eq!((suid.mode() & 0o7777, suid.uid()), (0o755, 0));
    assert!(!ground.at("null").exists());
    assert_eq!(done.notes.len(), 1, "{:?}", done.notes);
    assert_eq!(fs::metadata(ground.at("closed")).unwrap().mode() & 0o7777, 0o500);
}
