//! Manifests and indexes on the wire. They are small, they decide everything, and so they are held to their limit,
//! their digest and their media type before anybody looks at them.

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use reqwest::{Method, Response, StatusCode};

use super::auth::Scope;
use super::client::{Remote, body};
use super::failure::Refusal;
use crate::digest::{Digest, Hasher};
use crate::error::{Class, Error, Result};
use crate::image::document::{MAX_DOCUMENT, media_type};

/// A manifest or an index as it came, checked against its digest.
#[derive(Debug)]
pub(super) struct Fetched {
    pub bytes: Vec<u8>,
    pub media_type: Option<String>,
    pub digest: Digest,
}

/// A repository at an endpoint, and how people call it.
pub(super) struct Repository<'r> {
    pub remote: &'r Remote<'r>,
    /// Its name at the endpoint.
    pub path: String,
    /// Its familiar name.
    pub name: String,
    pub scope: Scope,
}

impl Repository<'_> {
    /// Asks which digest `tag` has. `None`: the registry does not say.
    pub async fn resolve(&self, tag: &str) -> Result<Option<Digest>> {
        let response = self.request(Method::HEAD, tag).await?;
        match response.status() {
            StatusCode::OK => Ok(announced_digest(response.headers())),
            // The GET that follows says why; an answer to HEAD has no body.
            _ => Ok(None),
        }
    }

    /// Fetches the manifest or index that `tag` or `digest` names.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` when the bytes are not what was promised; `LimitExceeded`.
    pub async fn manifest(&self, tag: &str, digest: Option<&Digest>) -> Result<Fetched> {
        let reference = digest.map_or(tag, Digest::as_str);
        let response = self.request(Method::GET, reference).await?;
        if response.status() != StatusCode::OK {
            return Err(self.missing(response, reference).await);
        }
        let promised = announced_digest(response.headers());
        let media_type = content_type(response.headers());
        let bytes = self.read_limited(response, reference).await?;
        let expected = digest.or(promised.as_ref());
        let found = match expected {
            Some(expected) => {
                let mut hasher = Hasher::new(expected.algorithm());
                hasher.update(&bytes);
                hasher.finish()
            }
            None => Digest::of(&bytes),
        };
        if let Some(expected) = expected.filter(|expected| **expected != found) {
            return Err(Error::new(
                Class::Corrupt,
                format!("manifest verification failed for digest {expected}: the bytes have {found}"),
            )
            .with_hint(format!("{} does not send what was asked for", self.remote.endpoint.host)));
        }
        Ok(Fetched { bytes, media_type, digest: found })
    }

    async fn request(&self, method: Method, reference: &str) -> Result<Response> {
        let url = self.remote.url(&self.path, &format!("manifests/{reference}")).await?;
        let accept = media_type::MANIFESTS.join(", ");
        self.remote.send(method, &url, &self.scope, &|request| request.header(ACCEPT, &accept)).await
    }

    async fn missing(&self, response: Response, reference: &str) -> Error {
        if response.status() != StatusCode::NOT_FOUND {
            return self.remote.refusal(response, "pull", &self.name).await;
        }
        let refusal = Refusal::read(response).await;
        let separator = if reference.contains(':') { '@' } else { ':' };
        let text = if refusal.errors.is_empty() { "manifest unknown".to_owned() } else { refusal.text() };
        let error =
            Error::new(Class::NotFound, format!("manifest for {}{separator}{reference} not found: {text}", self.name));
        error.with_hint("check the name and the tag")
    }

    async fn read_limited(&self, response: Response, reference: &str) -> Result<Vec<u8>> {
        body(response, MAX_DOCUMENT).await?.ok_or_else(|| {
            let limit = MAX_DOCUMENT;
            let message = format!("manifest of {}:{reference}: larger than {limit} bytes", self.name);
            Error::new(Class::LimitExceeded, message)
        })
    }
}

/// `Docker-Content-Digest`, where it is a digest that we know.
fn announced_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

fn content_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(text.split(';').next().unwrap_or(text).trim().to_owned())
}
