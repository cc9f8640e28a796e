//! Images made of WebAssembly files, and files taken out of images, as [`Engine`] offers them.

use jiff::Timestamp;
use wharf_images::{Class, Digest, Reference};

use super::ModuleCache;
use crate::engine::Engine;
use crate::error::{Error, Result};

/// An image made of a file.
#[derive(Debug)]
pub struct Packed {
    /// Its manifest.
    pub manifest: Digest,
    /// Why this Wharf cannot run it, although it is a good image: another may.
    pub cannot_run: Option<Error>,
}

impl Engine {
    /// Makes an image of a module or component, and compiles it so that no `run` waits for that. Without a name, the
    /// same bytes give the same image each time.
    ///
    /// # Errors
    /// `Corrupt` when it is no valid WebAssembly, `LimitExceeded` when it takes too much to compile, `Unsupported` for
    /// compiled code.
    pub fn pack(&self, wasm: &[u8], name: Option<&Reference>) -> Result<Packed> {
        let compiled = ModuleCache::open(&self.paths().root)?.ensure_bytes(wasm, None);
        let cannot_run = match compiled {
            Ok(_) => None,
            Err(e) if e.class() == Class::Unsupported => Some(e),
            Err(e) => return Err(e),
        };
        let created = if name.is_some() { Timestamp::now() } else { Timestamp::UNIX_EPOCH };
        let manifest = wharf_images::pack::pack(self.images()?, wasm, name, created)?;
        Ok(Packed { manifest, cannot_run })
    }

    /// The module or component that an image was made of.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` for an image that is no single module.
    pub fn extract(&self, name: &str) -> Result<Vec<u8>> {
        let images = self.images()?;
        Ok(wharf_images::pack::extract(images, &images.resolve(name, None)?)?)
    }
}
