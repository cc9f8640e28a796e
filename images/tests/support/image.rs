//! Stores and images for tests.

#![allow(dead_code, reason = "not every test needs all of it")]

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use wharf_images::db::Db;
use wharf_images::{Digest, ImageStore, Reference, store};

/// Opens a store in `root`.
pub fn open_store(root: &Path) -> ImageStore {
    let db = Arc::new(Db::open(root, &[store::SCHEMA]).unwrap());
    ImageStore::open(root, db).unwrap()
}

/// A tar archive of one file.
pub fn tar(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    archive.append_data(&mut header, name, bytes).unwrap();
    archive.into_inner().unwrap()
}

/// The same, compressed.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that do not compress, told by a seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// This machine's, in images' words.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The documents and blobs of an image.
pub struct TestImage {
    /// The manifest.
    pub manifest: Vec<u8>,
    /// The config, then the layers.
    pub blobs: Vec<Vec<u8>>,
}

impl TestImage {
    /// An image with one layer for each file.
    pub fn new(files: &[(&str, &[u8])]) -> Self {
        TestImage::made(architecture(), &|bytes| Digest::of(bytes), files)
    }

    /// The same for another architecture, or with digests of another kind.
    pub fn made(architecture: &str, digest: &dyn Fn(&[u8]) -> Digest, files: &[(&str, &[u8])]) -> Self {
        let tars: Vec<Vec<u8>> = files.iter().map(|(name, bytes)| tar(name, bytes)).collect();
        let diff_ids: Vec<String> = tars.iter().map(|t| digest(t).to_string()).collect();
        let config = serde_json::json!({
            "architecture": architecture, "os": "linux", "config": {"Cmd": ["/bin/true"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = serde_json::to_vec(&config).unwrap();
        let layers: Vec<Vec<u8>> = tars.iter().map(|t| gzip(t)).collect();
        let descriptor = |media_type: &str, bytes: &[u8]| serde_json::json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()});
        let layer = "application/vnd.oci.image.layer.v1.tar+gzip";
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers.iter().map(|l| descriptor(layer, l)).collect::<Vec<_>>(),
        });
        let blobs = std::iter::once(config).chain(layers).collect();
        TestImage { manifest: serde_json::to_vec(&manifest).unwrap(), blobs }
    }

    /// The manifest's digest.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    /// Puts it into a store under a name.
    pub fn record(&self, store: &ImageStore, name: &Reference) {
        for bytes in self.blobs.iter().chain([&self.manifest]) {
            store.content.put(bytes).unwrap();
        }
        store.set(name, &self.digest()).unwrap();
    }
}
