//! What every command is given: the global flags, and from them the engine.

use std::path::PathBuf;

use wharf_images::registry::{self, Registry};
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
        let from_environment = || std::env::var_os("WHARF_ROOT").filter(|root| !root.is_empty()).map(PathBuf::from);
        Ok(Engine::open(Options { root: self.root.clone().or_else(from_environment), run: None })?)
    }

    /// Registries as this user reaches them, with the credentials of `--config` if it was given.
    ///
    /// # Errors
    /// `InvalidInput` when a configuration file is malformed.
    pub fn registry(&self) -> Result<Registry> {
        let mut config = registry::Config::from_environment()?;
        config.docker_config = self.config_dir().map(|directory| directory.join("config.json"));
        Ok(Registry::new(config))
    }

    /// The directory of docker's `config.json`: `--config`, `DOCKER_CONFIG`, or `~/.docker`.
    pub fn config_dir(&self) -> Option<PathBuf> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        self.config.clone().or_else(|| set("DOCKER_CONFIG")).or_else(|| Some(std::env::home_dir()?.join(".docker")))
    }
}
