//! Manifests and indexes on the wire. They are small, they decide everything, and so they are held to their limit,
//! their digest and their media type before anybody looks at them.

use std::collections::HashSet;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, LINK};
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;

use super::auth::Scope;
use super::client::{Remote, body};
use super::failure::Refusal;
use crate::digest::{Digest, Hasher};
use crate::error::{Class, Error, Result};
use crate::image::document::{MAX_DOCUMENT, media_type};

/// Tags in one answer, and the most answers that are asked for.
const PAGE: usize = 1000;
const PAGES: usize = 100;

#[derive(Deserialize)]
struct Tags {
    tags: Option<Vec<String>>,
}

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

    /// The names of all its tags, page by page.
    ///
    /// # Errors
    /// `NotFound` when there is no such repository; `Corrupt`, `LimitExceeded`.
    pub async fn tags(&self) -> Result<Vec<String>> {
        let (mut tags, mut known) = (Vec::<String>::new(), HashSet::new());
        for _ in 0..PAGES {
            let mut url = self.remote.url(&self.path, "tags/list").await?;
            url.query_pairs_mut().append_pair("n", &PAGE.to_string());
            if let Some(last) = tags.last() {
                url.query_pairs_mut().append_pair("last", last);
            }
            let response = self.remote.send(Method::GET, &url, &self.scope, &|request| request).await?;
            if response.status() != StatusCode::OK {
                return Err(self.remote.refusal(response, "pull", &self.name).await);
            }
            let more = response.headers().contains_key(LINK);
            let bytes = self.read_limited(response, "tags").await?;
            let page: Tags = serde_json::from_slice(&bytes)
                .map_err(|e| Error::new(Class::Corrupt, format!("{}: no list of tags: {e}", self.name)))?;
            let before = tags.len();
            // A registry that knows no pages sends all each time.
            tags.extend(page.tags.unwrap_or_default().into_iter().filter(|tag| known.insert(tag.clone())));
            if !more || tags.len() == before {
                break;
            }
        }
        Ok(tags)
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
