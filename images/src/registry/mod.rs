//! Registries: pull and push by the OCI distribution specification
//! (<https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md>).
//!
//! The face is synchronous; a tokio runtime lives only inside a call, and all its threads have ended when the call
//! returns, because the caller may fork.
//!
//! Who does what: [`config`](Config) says how registries are reached, [`Credentials`] who we are there; `transport`
//! makes HTTP clients, `client` speaks to one endpoint (logins, redirects, patience) and `auth` decides who may know a
//! secret; `manifest` and `fetch` bring things, `board` lets unpackers read along, `pull` and `push` put it together.

mod auth;
mod board;
mod challenge;
mod client;
mod config;
mod credentials;
mod failure;
mod fetch;
mod login;
mod manifest;
mod pull;
mod push;
mod retry;
mod search;
mod transport;
mod upload;

#[doc(hidden)]
pub use challenge::{Challenge, parse_challenges};
pub use config::{Config, RegistryConfig};
pub use credentials::{Credential, Credentials, Saved};
pub use retry::Backoff;
pub use search::Found;

use std::path::Path;

use crate::error::{Class, Error, Result};
use crate::image::{Image, Platform};
use crate::reference::Reference;
use crate::reporter::Reporter;
use crate::store::ImageStore;

/// Registries as this user may reach them: `registries.toml`, docker's `config.json`, certificates.
#[derive(Debug)]
pub struct Registry {
    config: Config,
}

impl Registry {
    /// Reads the configuration. Does no network work. `docker` is the directory of docker's `config.json`, where it is
    /// not `DOCKER_CONFIG` or `~/.docker`.
    ///
    /// # Errors
    /// `InvalidInput` when a configuration file is malformed.
    pub fn from_environment(docker: Option<&Path>) -> Result<Self> {
        let mut config = Config::from_environment()?;
        if let Some(directory) = docker {
            config.docker_config = Some(directory.join("config.json"));
        }
        Ok(Registry::new(config))
    }

    /// Registries as `config` says.
    pub fn new(config: Config) -> Self {
        Registry { config }
    }

    /// Pulls an image, unpacks it and records its name.
    ///
    /// # Errors
    /// `NotFound`, `Unauthorized`, `Unavailable`, `Corrupt`.
    pub fn pull(
        &self,
        store: &ImageStore,
        name: &Reference,
        platform: Option<&Platform>,
        reporter: &dyn Reporter,
    ) -> Result<Image> {
        pull::pull(&self.config, store, name, platform, reporter)
    }

    /// The tags of the repository that `name` is in, as its registry lists them.
    ///
    /// # Errors
    /// As [`Registry::pull`].
    pub fn tags(&self, name: &Reference, reporter: &dyn Reporter) -> Result<Vec<String>> {
        pull::tags(&self.config, name, reporter)
    }

    /// Pushes an image; returns the digest and size of what the tag then names.
    ///
    /// # Errors
    /// As [`Registry::pull`].
    pub fn push(&self, store: &ImageStore, name: &Reference, reporter: &dyn Reporter) -> Result<(crate::Digest, u64)> {
        push::push(&self.config, store, name, reporter)
    }

    /// Looks for repositories at `registry` (`docker.io`, `localhost:5000`): in its index, or where it has none among the
    /// names in its catalogue.
    ///
    /// # Errors
    /// `Unavailable`, `Unauthorized`; `Unsupported` for a registry that has neither.
    pub fn search(&self, registry: &str, term: &str, limit: usize) -> Result<Vec<Found>> {
        search::search(&self.config, registry, term, limit)
    }

    /// Tries a credential at `registry` (`docker.io`, `localhost:5000`) and, when it is taken, keeps it where docker
    /// keeps it.
    ///
    /// # Errors
    /// `Unauthorized` when it is refused; as [`Registry::pull`]; the disk's or a credential helper's.
    pub fn login(&self, registry: &str, credential: &Credential) -> Result<Saved> {
        login::login(&self.config, registry, credential)
    }

    /// The credential that is kept for `registry`.
    ///
    /// # Errors
    /// As [`Credentials::get`].
    pub fn credential(&self, registry: &str) -> Result<Option<Credential>> {
        self.config.docker_config.as_deref().map_or(Ok(None), |path| Credentials::open(path)?.get(registry))
    }

    /// Forgets the credential for `registry`. False when there was none.
    ///
    /// # Errors
    /// The disk's or a credential helper's.
    pub fn logout(&self, registry: &str) -> Result<bool> {
        login::logout(&self.config, registry)
    }
}

/// The event loop of one call. What blocks runs on threads beside it, which end with it.
fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::new(Class::Internal, format!("cannot start the network's event loop: {e}")))
}
