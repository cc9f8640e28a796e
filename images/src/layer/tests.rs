//! Layers as they should be, and as an attacker would make them. Each attack runs beside a sentinel outside of the
//! root, which must stay as it was.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use cap_std::ambient_authority;
use tempfile::TempDir;

use super::*;
use crate::layer::testing::Archive;

/// A root to unpack into, with something precious beside it.
struct Ground {
    dir: TempDir,
}

impl Ground {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/sentinel"), "precious").unwrap();
        Ground { dir }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn outside(&self) -> PathBuf {
        self.dir.path().join("outside")
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    fn unpack(&self, archive: &Archive) -> Result<Unpacked> {
        self.unpack_bytes(&archive.bytes(), &options())
    }

    fn unpack_bytes(&self, bytes: &[u8], options: &Options) -> Result<Unpacked> {
        let root = Dir::open_ambient_dir(self.root(), ambient_authority()).unwrap();
        let unpacked = unpack(&mut &*bytes, "", &root, options);
        self.assert_untouched();
        unpacked
    }

    fn assert_untouched(&self) {
        let names = |dir: &Path| {
            let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(self.dir.path()), ["outside", "root"]);
        assert_eq!(names(&self.outside()), ["sentinel"]);
        assert_eq!(fs::read_to_string(self.outside().join("sentinel")).unwrap(), "precious");
        assert_eq!(fs::metadata(self.outside().join("sentinel")).unwrap().nlink(), 1);
    }
}

fn options() -> Options {
    Options { whiteouts: Whiteouts::Overlay, max_bytes: 64 << 20, max_entries: 10_000, privileged: true }
}

fn applied() -> Options {
    Options { whiteouts: Whiteouts::Apply, ..options() }
}

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
