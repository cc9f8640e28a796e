//! Layers as an attacker would make them. Each is unpacked beside a sentinel that must stay as it was, which
//! [`Ground`] checks whatever the outcome; here it is said what the outcome must be.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use tar::EntryType;

use super::Options;
use super::testing::{Archive, Ground, applied, options};
use crate::error::Class;

/// Unpacks with both ways of whiteouts; both must end in `class`.
fn refused(archive: &Archive, class: Class) {
    for options in [options(), applied()] {
        let error = Ground::new().unpack_bytes(&archive.bytes(), &options).unwrap_err();
        assert_eq!(error.class(), class, "{error}");
    }
}

#[test]
fn dot_dot_leads_nowhere() {
    for name in ["../evil", "../outside/sentinel", "a/../../outside/sentinel", "/../evil", ".."] {
        refused(Archive::new().file(name, 0o644, b"evil"), Class::Corrupt);
        refused(Archive::new().hard_link("x", name), Class::Corrupt);
        refused(Archive::new().dir(name, 0o777), Class::Corrupt);
    }
    refused(Archive::new().pax(&[("path", b"../evil")]).file("good", 0o644, b"evil"), Class::Corrupt);
    refused(
        Archive::new().entry(EntryType::GNULongName, "L", 0o644, "", b"../evil\0").file("good", 0o644, b""),
        Class::Corrupt,
    );
}

#[test]
fn absolute_names_are_inside() {
    let ground = Ground::new();
    let sentinel = ground.outside().join("sentinel");
    ground.unpack(Archive::new().file(sentinel.to_str().unwrap(), 0o644, b"evil")).unwrap();
    assert_eq!(ground.read(sentinel.to_str().unwrap().trim_start_matches('/')), "evil");
}

#[test]
fn symlink_then_write_stays_inside() {
    let ground = Ground::new();
    let outside = ground.outside();
    let outside = outside.to_str().unwrap();
    for target in [outside, "../outside", "/../../../../../../outside", "up/../../outside"] {
        let ground = Ground::new();
        let mut archive = Archive::new();
        archive
            .symlink("link", target)
            .file("link/sentinel", 0o644, b"evil")
            .dir("link/d/", 0o777)
            .symlink("link/s", "/");
        archive.symlink("file", &format!("{target}/sentinel")).file("file", 0o644, b"evil");
        // Whether it is refused or lands inside the root, nothing outside changes.
        let _ = ground.unpack(&archive);
        let _ = ground.unpack_bytes(&archive.bytes(), &applied());
    }
    // A link that stays inside is followed, as docker does.
    let mut archive = Archive::new();
    archive.dir("usr/lib/", 0o755).symlink("lib", "/usr/lib").file("lib/x", 0o644, b"x");
    ground.unpack(&archive).unwrap();
    assert_eq!(ground.read("usr/lib/x"), "x");
}

#[test]
fn symlink_chains_and_rings_stay_inside() {
    let mut chain = Archive::new();
    chain.symlink("a", "b").symlink("b", "c").symlink("c", "../../outside").file("a/sentinel", 0o644, b"evil");
    let _ = Ground::new().unpack(&chain);
    refused(Archive::new().symlink("a", "b").symlink("b", "a").file("a/x", 0o644, b""), Class::Corrupt);
    refused(
        Archive::new()
            .symlink("proc", "/proc/self/root")
            .file("proc/x/y", 0o644, b"")
            .file("proc/x", 0o644, b"")
            .file("proc/x/y", 0o644, b""),
        Class::Corrupt,
    );
}

#[test]
fn a_symlink_cannot_become_the_root() {
    for name in [".", "/", "./", "", "a/.."] {
        refused(Archive::new().symlink(name, "/"), Class::Corrupt);
        refused(Archive::new().symlink(name, "../outside").file("sentinel", 0o644, b"evil"), Class::Corrupt);
        refused(Archive::new().hard_link(name, "x"), Class::Corrupt);
        refused(Archive::new().file(name, 0o644, b"x"), Class::Corrupt);
    }
}

#[test]
fn hard_links_do_not_lead_out() {
    let ground = Ground::new();
    let sentinel = ground.outside().join("sentinel");
    let sentinel = sentinel.to_str().unwrap();
    assert_eq!(ground.unpack(Archive::new().hard_link("x", sentinel)).unwrap_err().class(), Class::Corrupt);
    // A link to a symlink is a second name of the symlink, and writing to it replaces it.
    let mut archive = Archive::new();
    archive.symlink("s", sentinel).hard_link("x", "s").file("x", 0o644, b"evil");
    ground.unpack(&archive).unwrap();
    assert_eq!(ground.read("x"), "evil");
    let mut through = Archive::new();
    through.symlink("dir", "../outside").hard_link("y", "dir/sentinel");
    assert_eq!(ground.unpack(&through).unwrap_err().class(), Class::Corrupt);
    refused(Archive::new().dir("d/", 0o755).hard_link("x", "d"), Class::Corrupt);
    refused(Archive::new().hard_link("x", "x"), Class::Corrupt);
    refused(Archive::new().hard_link("x", ""), Class::Corrupt);
    refused(Archive::new().file(".wh.w", 0o644, b"").hard_link("x", "w"), Class::Corrupt);
}

#[test]
fn whiteouts_through_symlinks_stay_inside() {
    for target in ["../outside", "/../outside"] {
        let ground = Ground::new();
        let mut archive = Archive::new();
        archive.symlink("link", target).file("link/.wh.sentinel", 0o644, b"").file("link/.wh..wh..opq", 0o644, b"");
        archive.symlink("link2", target).file(".wh.link2", 0o644, b"");
        for options in [options(), applied()] {
            let _ = ground.unpack_bytes(&archive.bytes(), &options);
        }
    }
    let ground = Ground::new();
    let mut absolute = Archive::new();
    let outside = ground.outside();
    absolute.symlink("link", outside.to_str().unwrap()).file("link/.wh.sentinel", 0o644, b"");
    let _ = ground.unpack_bytes(&absolute.bytes(), &applied());
    let _ = ground.unpack(&absolute);
}

#[test]
fn whiteouts_of_dots_are_refused() {
    for name in [".wh.", ".wh..", ".wh...", "a/.wh.", "a/.wh..", "a/.wh...", ".wh.a/../.wh.."] {
        refused(Archive::new().file("a/x", 0o644, b"").file(name, 0o644, b""), Class::Corrupt);
    }
}

#[test]
fn names_that_are_none_are_refused() {
    refused(Archive::new().pax(&[("path", b"a\0b")]).file("x", 0o644, b""), Class::Corrupt);
    refused(Archive::new().pax(&[("linkpath", b"a\0b")]).symlink("x", "y"), Class::Corrupt);
    refused(Archive::new().symlink("x", ""), Class::Corrupt);
    refused(Archive::new().pax(&[("path", "d/".repeat(600).as_bytes())]).file("x", 0o644, b""), Class::LimitExceeded);
    refused(Archive::new().pax(&[("path", "d".repeat(5000).as_bytes())]).file("x", 0o644, b""), Class::LimitExceeded);
}

#[test]
fn a_file_is_no_directory() {
    refused(Archive::new().file("f", 0o644, b"").file("f/x", 0o644, b""), Class::Corrupt);
}

#[test]
fn devices_stay_devices_and_set_id_stays_with_its_owner() {
    let ground = Ground::new();
    let mut archive = Archive::new();
    archive.device(EntryType::Char, "null", 1, 3).device(EntryType::Block, "disk", 8, 0);
    archive.device(EntryType::Char, "whiteout", 0, 0);
    archive.uid = 33;
    archive.file("suid", 0o4755, b"#!");
    let done = ground.unpack(&archive).unwrap();
    let null = fs::symlink_metadata(ground.at("null")).unwrap();
    assert!(null.file_type().is_char_device() && null.rdev() == rustix::fs::makedev(1, 3));
    assert!(fs::symlink_metadata(ground.at("disk")).unwrap().file_type().is_block_device());
    // A device that would be taken for a whiteout is no way to hide what lies below.
    assert!(!ground.at("whiteout").exists());
    assert_eq!(done.notes.len(), 1);
    let suid = fs::metadata(ground.at("suid")).unwrap();
    assert_eq!((suid.uid(), suid.mode() & 0o7777), (33, 0o4755));
    // Content of a device entry is not written into the device.
    let mut written = Archive::new();
    let mut header = written.header(EntryType::Char, "zero", 0o666, "", 0);
    header.set_device_major(1).unwrap();
    header.set_device_minor(5).unwrap();
    written.raw(header, b"").file("zero", 0o644, b"a file now");
    ground.unpack(&written).unwrap();
    assert!(fs::symlink_metadata(ground.at("zero")).unwrap().is_file());
}

#[test]
fn xattrs_that_steer_the_host_are_left_out() {
    let ground = Ground::new();
    let names = [
        "trusted.overlay.redirect",
        "trusted.overlay.opaque",
        "user.overlay.opaque",
        "user.overlay.whiteout",
        "security.selinux",
        "system.posix_acl_access",
        "trusted.x",
        "bogus",
    ];
    let mut archive = Archive::new();
    for (i, name) in names.iter().enumerate() {
        let key = format!("SCHILY.xattr.{name}");
        archive.pax(&[(&key, b"y")]).file(&format!("f{i}"), 0o644, b"");
        archive.pax(&[(&key, b"y")]).dir(&format!("d{i}/"), 0o755);
    }
    archive.pax(&[("SCHILY.xattr.user.fine", b"a\nb")]).file("fine", 0o444, b"");
    let done = ground.unpack(&archive).unwrap();
    assert_eq!(done.notes.len(), 2 * names.len());
    for entry in fs::read_dir(ground.root()).unwrap() {
        let path = entry.unwrap().path();
        let mut list = [0u8; 1000];
        let length = rustix::fs::llistxattr(&path, &mut list[..]).unwrap();
        let expected: &[u8] = if path.ends_with("fine") { b"user.fine\0" } else { b"" };
        assert_eq!(&list[..length], expected, "{}", path.display());
    }
    let mut value = [0u8; 10];
    let length = rustix::fs::getxattr(ground.at("fine"), "user.fine", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"a\nb", "binary values come whole");
}

fn small() -> Options {
    Options { max_bytes: 1 << 20, max_entries: 100, ..options() }
}

#[test]
fn gzip_and_zstd_bombs_stop() {
    // A header that promises little and one that promises all; both as much zeros as it takes.
    let mut honest = Archive::new();
    let header = honest.header(EntryType::Regular, "bomb", 0o644, "", 10 << 30);
    honest.raw(header, b"");
    let honest = honest.bytes();
    let endless = || (&honest[..512]).chain(std::io::repeat(0).take(10 << 30));
    let mut gzip = flate2::read::GzEncoder::new(endless(), flate2::Compression::fast());
    let error = Ground::new().unpack_stream(&mut gzip, &small()).unwrap_err();
    assert_eq!(error.class(), Class::LimitExceeded, "{error}");
    let mut zstd = zstd::stream::read::Encoder::new(endless(), 1).unwrap();
    let error = Ground::new().unpack_stream(&mut zstd, &small()).unwrap_err();
    assert_eq!(error.class(), Class::LimitExceeded, "{error}");
    // Zeros after the archive's end are no content, but no way to keep us busy either.
    let mut trailing = flate2::read::GzEncoder::new(std::io::repeat(0).take(10 << 30), flate2::Compression::fast());
    let error = Ground::new().unpack_stream(&mut trailing, &small()).unwrap_err();
    assert_eq!(error.class(), Class::LimitExceeded, "{error}");
}

#[test]
fn bombs_of_headers_stop() {
    let mut many = Archive::new();
    for i in 0..200 {
        many.file(&format!("f{i}"), 0o644, b"");
    }
    assert_eq!(Ground::new().unpack_bytes(&many.bytes(), &small()).unwrap_err().class(), Class::LimitExceeded);
    // An extension header is read into memory: it must not be large.
    for kind in [EntryType::XHeader, EntryType::XGlobalHeader, EntryType::GNULongName, EntryType::GNULongLink] {
        let mut archive = Archive::new();
        let header = archive.header(kind, "x", 0o644, "", 1 << 40);
        archive.raw(header, b"");
        refused(&archive, Class::LimitExceeded);
    }
    let mut forever = Archive::new();
    for _ in 0..10_000 {
        forever.entry(EntryType::XGlobalHeader, "g", 0o644, "", b"");
    }
    assert_eq!(Ground::new().unpack_bytes(&forever.bytes(), &small()).unwrap_err().class(), Class::LimitExceeded);
}

#[test]
fn sparse_bombs_are_refused() {
    let mut gnu = Archive::new();
    let mut header = gnu.header(EntryType::GNUSparse, "sparse", 0o644, "", 0);
    header.as_gnu_mut().unwrap().realsize.copy_from_slice(b"77777777777\0");
    gnu.raw(header, b"");
    refused(&gnu, Class::Unsupported);
    let mut pax = Archive::new();
    pax.pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"9000000000000000000")]).file("x", 0o644, b"0\n");
    refused(&pax, Class::Unsupported);
}

#[test]
fn sizes_that_lie_are_noticed() {
    let mut short = Archive::new();
    let header = short.header(EntryType::Regular, "f", 0o644, "", 4096);
    short.raw(header, b"only this");
    let bytes = short.bytes();
    assert_eq!(Ground::new().unpack_bytes(&bytes[..1024], &options()).unwrap_err().class(), Class::Corrupt);
    refused(Archive::new().pax(&[("size", b"99999999999999999999")]).file("f", 0o644, b""), Class::Corrupt);
    refused(Archive::new().pax(&[("size", b"18446744073709551615")]).file("f", 0o644, b""), Class::LimitExceeded);
    refused(Archive::new().pax(&[("uid", b"-1")]).file("f", 0o644, b""), Class::Corrupt);
    refused(Archive::new().pax(&[("uid", b"4294967296")]).file("f", 0o644, b""), Class::Corrupt);
    let mut damaged = Archive::new().file("f", 0o644, b"").bytes();
    damaged[0] ^= 1;
    assert_eq!(Ground::new().unpack_bytes(&damaged, &options()).unwrap_err().class(), Class::Corrupt);
}

#[test]
fn another_layer_has_another_diff_id() {
    let one = Ground::new().unpack(Archive::new().file("f", 0o644, b"1")).unwrap();
    let two = Ground::new().unpack(Archive::new().file("f", 0o644, b"2")).unwrap();
    assert_ne!(one.diff_id, two.diff_id);
}

#[test]
fn trees_too_deep_for_the_stack_are_removed() {
    let ground = Ground::new();
    let mut archive = Archive::new();
    // Each link leads deep into the last one's depths: names stay short, the tree does not.
    let deep = "d/".repeat(400);
    archive.pax(&[("path", format!("0/{deep}").as_bytes())]).dir("x/", 0o000);
    for i in 1..6 {
        archive
            .pax(&[("path", format!("{i}").as_bytes()), ("linkpath", format!("{}/{deep}", i - 1).as_bytes())])
            .symlink("x", "y");
        archive.pax(&[("path", format!("{i}/{deep}").as_bytes())]).dir("x/", 0o000);
    }
    let _ = ground.unpack(&archive);
    archive.file("0", 0o644, b"replaced");
    let _ = ground.unpack(&archive);
    crate::os::remove_tree(&ground.root()).unwrap();
    fs::create_dir(ground.root()).unwrap();
    ground.assert_untouched();
}

#[test]
fn errors_are_fit_for_a_terminal() {
    let error = Ground::new().unpack(Archive::new().file("../\x1b[2J", 0o644, b"")).unwrap_err();
    assert!(!error.to_string().contains('\x1b'), "{error:?}");
    let mut sink = Vec::new();
    write!(sink, "{error}").unwrap();
    assert!(error.to_string().contains("\\x1b"));
}
