//! What every command is given: the global flags, and from them the engine.

use std::path::PathBuf;

use wharf_images::registry::Registry;
use wharf_runtime::engine::{Engine, Options};

use super::failure::Result;

/// The global flags of one call. The environment is read only when a command needs what it says.
#[derive(Debug, Default)]
pub struct Context {
    /// `--root`, which isolates an instance completely.
    pub root: Option<PathBuf>,
    /// `--config`: the directory of `config.json` with credentials.
    pub config: Option<PathBuf>,
    /// `--debug`, or a log level of debug.
    pub debug: bool,
}

impl Context {
    /// The engine of this instance.
    ///
    /// # Errors
    /// The engine's: see [`Engine::open`].
    pub fn engine(&self) -> Result<Engine> {
        Ok(Engine::open(Options { root: self.root(), docker_config: self.config.clone(), ..Options::default() })?)
    }

    /// Where the person wants all state to be, if not in the usual places.
    pub fn root(&self) -> Option<PathBuf> {
        let from_environment = || std::env::var_os("WHARF_ROOT").filter(|root| !root.is_empty()).map(PathBuf::from);
        self.root.clone().or_else(from_environment)
    }

    /// Registries as this user reaches them, with the credentials of `--config` if it was given.
    ///
    /// # Errors
    /// `InvalidInput` when a configuration file is malformed.
    pub fn registry(&self) -> Result<Registry> {
        Ok(Registry::from_environment(self.config.as_deref())?)
    }
}
