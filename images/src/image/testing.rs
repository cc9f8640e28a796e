//! Makes images for the tests of this crate.

use std::io::Write;

use serde_json::{Value, json};

use super::document::media_type;
use crate::content::ContentStore;
use crate::digest::Digest;

/// The smallest module: `(module (func (export "_start")))`.
pub(crate) const MODULE: &[u8] = &[
    0, b'a', b's', b'm', 1, 0, 0, 0, 1, 4, 1, 0x60, 0, 0, 3, 2, 1, 0, 7, 10, 1, 6, b'_', b's', b't', b'a', b'r', b't',
    0, 0, 10, 4, 1, 2, 0, 0x0b,
];

/// The smallest component: `(component)`.
pub(crate) const COMPONENT: &[u8] = &[0, b'a', b's', b'm', 0x0d, 0, 1, 0];

/// A tar stream of regular files, as `(name, bytes)`.
pub(crate) fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Gzip.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A descriptor of bytes that are put into the store.
pub(crate) fn put(content: &ContentStore, media_type: &str, bytes: &[u8]) -> Value {
    let digest = content.put(bytes).unwrap();
    json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
}

/// A manifest of these parts; returns its digest.
pub(crate) fn manifest(content: &ContentStore, config: Value, layers: Vec<Value>, annotations: Value) -> Digest {
    let document = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": config,
        "layers": layers,
        "annotations": annotations,
    });
    content.put(document.to_string().as_bytes()).unwrap()
}

/// An image config for tar layers (given uncompressed).
pub(crate) fn image_config(os: &str, architecture: &str, run: Value, tars: &[&[u8]]) -> Value {
    json!({
        "created": "2024-01-02T03:04:05Z",
        "os": os,
        "architecture": architecture,
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": tars.iter().map(|t| Digest::of(t)).collect::<Vec<_>>()},
        "history": tars.iter().map(|_| json!({"created_by": "COPY . /"})).collect::<Vec<_>>(),
    })
}

/// A whole image of gzipped tar layers for the host's Linux.
pub(crate) fn linux_image(content: &ContentStore, run: Value, layers: &[&[(&str, &[u8])]]) -> Digest {
    let tars: Vec<Vec<u8>> = layers.iter().map(|files| tar_of(files)).collect();
    let slices: Vec<&[u8]> = tars.iter().map(Vec::as_slice).collect();
    let arch = super::Platform::new("linux", std::env::consts::ARCH).architecture;
    let config = image_config("linux", &arch, run, &slices);
    let config = put(content, media_type::OCI_CONFIG, config.to_string().as_bytes());
    let gzip_type = format!("{}+gzip", media_type::OCI_LAYER);
    let layers = tars.iter().map(|tar| put(content, &gzip_type, &gzip(tar))).collect();
    manifest(content, config, layers, json!({}))
}
