//! Any bytes as a manifest or index, and as the config of a good manifest.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_images::Image;
use wharf_images::content::ContentStore;

fuzz_target!(|bytes: &[u8]| {
    let root = tempfile::TempDir::new().unwrap();
    let content = ContentStore::open(root.path()).unwrap();
    let blob = content.put(bytes).unwrap();
    let _ = Image::read(&content, &blob, None);
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{blob}","size":{}}},"layers":[]}}"#,
        bytes.len()
    );
    let manifest = content.put(manifest.as_bytes()).unwrap();
    let _ = Image::read(&content, &manifest, None);
});
