//! Registries: pull and push by the OCI distribution specification
//! (<https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md>).
//! The face is synchronous; a tokio runtime lives only inside a call.

use crate::error::Result;
use crate::image::{Image, Platform};
use crate::reference::Reference;
use crate::reporter::Reporter;
use crate::store::ImageStore;

/// Registries as this user may reach them: `registries.toml`, docker's `config.json`, certificates.
#[derive(Debug)]
pub struct Registry {}

impl Registry {
    /// Reads the configuration. Does no network work.
    ///
    /// # Errors
    /// `InvalidInput` when a configuration file is malformed.
    pub fn from_environment() -> Result<Self> {
        Ok(Registry {})
    }

    /// Pulls an image, unpacks it and records its name.
    ///
    /// # Errors
    /// `NotFound`, `Unauthorized`, `Unavailable`, `Corrupt`.
    pub fn pull(
        &self,
        _store: &ImageStore,
        _name: &Reference,
        _platform: Option<&Platform>,
        _reporter: &dyn Reporter,
    ) -> Result<Image> {
        todo!()
    }

    /// Pushes an image; returns the manifest's digest and size.
    ///
    /// # Errors
    /// As [`Registry::pull`].
    pub fn push(
        &self,
        _store: &ImageStore,
        _name: &Reference,
        _reporter: &dyn Reporter,
    ) -> Result<(crate::Digest, u64)> {
        todo!()
    }
}
