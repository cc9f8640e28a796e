//! `import`: a root filesystem, as a tar stream, becomes an image of one layer.

use std::io::{self, Read};

use serde_json::json;

use super::change;
use crate::content::Writer;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Class, Error, Result};
use crate::image::document::media_type;
use crate::image::{Image, Platform};
use crate::layer::decode::Decoder;
use crate::lease::Lease;
use crate::reference::Reference;
use crate::reporter::Reporter;
use crate::store::{Arrival, ImageStore};

/// What the image is to be.
#[derive(Debug, Clone, Default)]
pub struct Import {
    /// Its name, if it gets one.
    pub reference: Option<Reference>,
    /// Its platform; the host's Linux when `None`.
    pub platform: Option<Platform>,
    /// Dockerfile instructions that fill in its config (`CMD ["/bin/sh"]`).
    pub changes: Vec<String>,
    /// What its history says.
    pub message: String,
}

/// Keeps the bytes as they come, while somebody decompresses them.
struct Tee<'a> {
    source: &'a mut dyn Read,
    writer: Writer,
    failure: Option<Error>,
    start: Vec<u8>,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(buffer)?;
        let missing = 4usize.saturating_sub(self.start.len()).min(n);
        self.start.extend_from_slice(&buffer[..missing]);
        if let Err(error) = self.writer.write(&buffer[..n]) {
            self.failure = Some(error);
            return Err(io::Error::other("the layer cannot be stored"));
        }
        Ok(n)
    }
}

/// Takes in a tar stream (plain, gzip or zstd) and records it as an image. Returns its id.
///
/// # Errors
/// `InvalidInput` when a change is no instruction, `Corrupt` when the stream is no tar archive.
pub fn import(store: &ImageStore, reader: &mut dyn Read, options: &Import, reporter: &dyn Reporter) -> Result<Digest> {
    if options.reference.as_ref().is_some_and(Reference::is_builtin) {
        return Err(Error::new(Class::Forbidden, "names under \"wharf/\" are built into wharf")
            .with_hint("choose another name"));
    }
    let mut run = serde_json::Map::new();
    change::apply(&mut run, &options.changes)?;
    let _lease = Lease::take(&store.root)?;
    let (layer, diff_id, compression) = take_in(store, reader)?;
    let platform = options.platform.clone().unwrap_or_else(|| Platform::new("linux", std::env::consts::ARCH));
    let created = jiff::Timestamp::now().to_string();
    let mut config = json!({
        "created": created,
        "os": platform.os,
        "architecture": platform.architecture,
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": created, "comment": options.message}],
    });
    if let Some(variant) = &platform.variant {
        config["variant"] = json!(variant);
    }
    let config = config.to_string();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": {
            "mediaType": media_type::OCI_CONFIG,
            "digest": store.content.put(config.as_bytes())?,
            "size": config.len(),
        },
        "layers": [{
            "mediaType": format!("{}{compression}", media_type::OCI_LAYER),
            "digest": layer,
            "size": store.content.size(&layer)?,
        }],
    });
    let target = store.content.put(manifest.to_string().as_bytes())?;
    let image = Image::read(&store.content, &target, None)?;
    store.ensure_unpacked(&image, reporter)?;
    store.bring(options.reference.as_ref(), &target, Arrival::Imported)?;
    Ok(image.id)
}

/// Stores the stream as it is; finds its digest, that of the tar inside, and the suffix of its media type.
fn take_in(store: &ImageStore, reader: &mut dyn Read) -> Result<(Digest, Digest, &'static str)> {
    let writer = store.content.anonymous_writer()?;
    let mut tee = Tee { source: reader, writer, failure: None, start: Vec::new() };
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let outcome = hash_inside(&mut tee, &mut hasher);
    if let Some(failure) = tee.failure.take() {
        return Err(failure);
    }
    outcome?;
    // What a decoder leaves after the end of its stream belongs to the layer too.
    io::copy(&mut tee, &mut io::sink()).map_err(stream_error)?;
    let compression = match tee.start[..] {
        [0x1f, 0x8b, ..] => "+gzip",
        [0x28, 0xb5, 0x2f, 0xfd] => "+zstd",
        _ => "",
    };
    Ok((tee.writer.commit()?, hasher.finish(), compression))
}

fn hash_inside(tee: &mut Tee<'_>, hasher: &mut Hasher) -> Result<()> {
    let mut decoder = Decoder::open(tee, "import")?;
    let mut buffer = vec![0u8; 256 * 1024];
    loop {
        match decoder.read(&mut buffer).map_err(stream_error)? {
            0 => return Ok(()),
            n => hasher.update(&buffer[..n]),
        }
    }
}

fn stream_error(error: io::Error) -> Error {
    Error::new(Class::Corrupt, format!("the stream cannot be read: {error}"))
}
