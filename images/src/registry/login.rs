//! Logging in and out. A credential is kept only after the registry has taken it.

use reqwest::{Method, StatusCode};

use super::auth::Scope;
use super::client::Remote;
use super::config::Config;
use super::credentials::{Credential, Credentials, Saved};
use super::transport::Transport;
use crate::error::{Class, Error, Result};

fn credentials(config: &Config) -> Result<Credentials> {
    let path = config.docker_config.as_deref().ok_or_else(|| {
        Error::new(Class::InvalidInput, "there is no place to keep credentials").with_hint("set HOME or DOCKER_CONFIG")
    })?;
    Credentials::open(path)
}

/// Tries `credential` at `registry`, and keeps it.
pub(super) fn login(config: &Config, registry: &str, credential: &Credential) -> Result<Saved> {
    let mut kept = credentials(config)?;
    let runtime = super::runtime()?;
    let transport = Transport::new(config);
    let remote = Remote::new(&transport, config.origin(registry)?, Some(credential.clone()));
    runtime.block_on(verify(&remote, registry))?;
    drop(runtime);
    kept.save(registry, credential)
}

async fn verify(remote: &Remote<'_>, registry: &str) -> Result<()> {
    let url = remote.root().await?;
    let response = remote.send(Method::GET, &url, &Scope::default(), &|request| request).await?;
    match response.status() {
        StatusCode::OK => Ok(()),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Error::new(
            Class::Unauthorized,
            format!("login attempt to {url} failed with status: {}", response.status()),
        )
        .with_hint("check the user name and the password; some registries want an access token instead")),
        StatusCode::NOT_FOUND => {
            Err(Error::new(Class::NotFound, format!("{registry} is no registry: {url} is not there")))
        }
        status => Err(Error::new(Class::Unavailable, format!("login attempt to {url} failed with status: {status}"))),
    }
}

/// Forgets the credential for `registry`; false when there was none.
pub(super) fn logout(config: &Config, registry: &str) -> Result<bool> {
    credentials(config)?.erase(registry)
}
