//! Building archives for tests, well formed or not, and a place to unpack them that shows what escapes.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use tar::{EntryType, Header};
use tempfile::TempDir;

use super::{Options, Unpacked, Whiteouts, unpack};
use crate::digest::Algorithm;
use crate::error::Result;

/// An archive under construction. Names are written as given, whatever they are.
pub(crate) struct Archive {
    bytes: Vec<u8>,
    /// What the next entries get.
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: u64,
}

impl Archive {
    pub(crate) fn new() -> Self {
        Archive { bytes: Vec::new(), uid: 0, gid: 0, mtime: 1_000_000_000 }
    }

    pub(crate) fn dir(&mut self, path: &str, mode: u32) -> &mut Self {
        self.entry(EntryType::Directory, path, mode, "", b"")
    }

    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> &mut Self {
        self.entry(EntryType::Regular, path, mode, "", content)
    }

    pub(crate) fn symlink(&mut self, path: &str, target: &str) -> &mut Self {
        self.entry(EntryType::Symlink, path, 0o777, target, b"")
    }

    pub(crate) fn hard_link(&mut self, path: &str, target: &str) -> &mut Self {
        self.entry(EntryType::Link, path, 0o644, target, b"")
    }

    pub(crate) fn device(&mut self, kind: EntryType, path: &str, major: u32, minor: u32) -> &mut Self {
        let mut header = self.header(kind, path, 0o666, "", 0);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        self.raw(header, b"")
    }

    pub(crate) fn entry(&mut self, kind: EntryType, path: &str, mode: u32, link: &str, content: &[u8]) -> &mut Self {
        let header = self.header(kind, path, mode, link, content.len() as u64);
        self.raw(header, content)
    }

    /// PAX records for the next entry.
    pub(crate) fn pax(&mut self, records: &[(&str, &[u8])]) -> &mut Self {
        let mut body = Vec::new();
        for (key, value) in records {
            super::write::pax_record(&mut body, key.as_bytes(), value);
        }
        self.entry(EntryType::XHeader, "pax", 0o644, "", &body)
    }

    pub(crate) fn header(&self, kind: EntryType, path: &str, mode: u32, link: &str, size: u64) -> Header {
        let mut header = Header::new_gnu();
        let fields = header.as_gnu_mut().unwrap();
        fields.name[..path.len()].copy_from_slice(path.as_bytes());
        fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(self.uid);
        header.set_gid(self.gid);
        header.set_mtime(self.mtime);
        header.set_size(size);
        header
    }

    /// A header as it is, checksummed, and content padded to blocks.
    pub(crate) fn raw(&mut self, mut header: Header, content: &[u8]) -> &mut Self {
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// The archive with its end.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }
}

/// A root to unpack into, with something precious beside it.
pub(crate) struct Ground {
    dir: TempDir,
}

impl Ground {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/sentinel"), "precious").unwrap();
        Ground { dir }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    pub(crate) fn outside(&self) -> PathBuf {
        self.dir.path().join("outside")
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    pub(crate) fn unpack(&self, archive: &Archive) -> Result<Unpacked> {
        self.unpack_bytes(&archive.bytes(), &options())
    }

    pub(crate) fn unpack_bytes(&self, bytes: &[u8], options: &Options) -> Result<Unpacked> {
        self.unpack_stream(&mut &*bytes, options)
    }

    pub(crate) fn unpack_stream(&self, stream: &mut dyn Read, options: &Options) -> Result<Unpacked> {
        let root = Dir::open_ambient_dir(self.root(), ambient_authority()).unwrap();
        let unpacked = unpack(stream, "", &root, options);
        self.assert_untouched();
        unpacked
    }

    pub(crate) fn assert_untouched(&self) {
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

pub(crate) fn options() -> Options {
    Options {
        algorithm: Algorithm::Sha256,
        whiteouts: Some(Whiteouts::Overlay),
        max_bytes: 64 << 20,
        max_entries: 10_000,
        privileged: true,
    }
}

pub(crate) fn applied() -> Options {
    Options { whiteouts: Some(Whiteouts::Apply), ..options() }
}
