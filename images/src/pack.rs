//! A WebAssembly file as an image and back: the CNCF's artifact form, style A, the one that Wharf writes
//! (<https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/>).

use std::path::Path;

use jiff::Timestamp;
use serde_json::json;

use crate::digest::Digest;
use crate::error::{Class, Error, Result};
use crate::image::document::media_type::OCI_MANIFEST;
use crate::image::{Image, WASM_CONFIG, WASM_LAYER, WasmEntry};
use crate::lease::Lease;
use crate::reference::Reference;
use crate::reporter::NoReport;
use crate::store::{Arrival, ImageStore};
use crate::wasm::Description;

/// Makes an image of a module or component, with this name or none. `created` is what its config says; the same bytes and time give
/// the same image.
///
/// # Errors
/// `Corrupt` or `Unsupported` when the bytes are no WebAssembly that could ever run; the disk's.
pub fn pack(store: &ImageStore, wasm: &[u8], name: Option<&Reference>, created: Timestamp) -> Result<Digest> {
    let description = Description::read(wasm)?;
    let _lease = Lease::take(&store.root)?;
    let layer = store.content.put(wasm)?;
    let component = match &description {
        Description::Component { imports, exports } => {
            json!({ "imports": imports, "exports": exports, "target": null })
        }
        Description::Module { .. } => serde_json::Value::Null,
    };
    let mut config = json!({
        "created": created.to_string(),
        "architecture": "wasm",
        "os": description.os(),
        "layerDigests": [layer],
    });
    if !component.is_null() {
        config["component"] = component;
    }
    let config = config.to_string();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": { "mediaType": WASM_CONFIG, "digest": store.content.put(config.as_bytes())?, "size": config.len() },
        "layers": [{ "mediaType": WASM_LAYER, "digest": layer, "size": wasm.len() }],
    });
    let manifest = store.content.put(manifest.to_string().as_bytes())?;
    store.bring(name, &manifest, Arrival::Imported)?;
    Ok(manifest)
}

/// The greatest module that is taken out of a root filesystem, in bytes.
const MAX_PROGRAM: u64 = 1 << 30;

/// The wasm program of an image: the module that is its layer, or the file of its root filesystem that it names.
///
/// # Errors
/// `InvalidInput` for an image that is no WebAssembly image; `NotFound` when it has no such file.
pub fn extract(store: &ImageStore, image: &Image) -> Result<Vec<u8>> {
    match &image.wasm {
        Some(WasmEntry::Blob(digest)) => store.content.read(digest, store.content.size(digest)?),
        Some(WasmEntry::File { path, .. }) => {
            store.ensure_unpacked(image, &NoReport)?;
            let absolute = Path::new("/").join(&image.config.working_dir).join(path);
            store.read_start(&image.diff_ids(), &absolute, MAX_PROGRAM)?.ok_or_else(|| {
                Error::new(Class::NotFound, format!("the image names {path} as its program, and has no such file"))
            })
        }
        None => Err(Error::new(Class::InvalidInput, "the image is not a WebAssembly image")),
    }
}
