//! Searching: the protocol of Docker Hub's index (`/v1/search`), and where a registry does not speak it, its catalogue
//! (`/v2/_catalog`, an extension that most registries have:
//! <https://distribution.github.io/distribution/spec/api/#listing-repositories>).

use reqwest::header::LINK;
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;

use super::auth::Scope;
use super::client::{Remote, body};
use super::config::{Config, DOCKER_HUB};
use super::credentials::Credentials;
use super::failure::printable;
use super::transport::Transport;
use crate::error::{Class, Error, Result};

/// Docker Hub's index is not where its images are.
const INDEX: &str = "index.docker.io";
/// Most bytes of an answer.
const MAX_ANSWER: u64 = 4 << 20;
/// Names in one answer of a catalogue, and the most answers that are asked for.
const PAGE: usize = 1000;
const PAGES: usize = 100;

/// A repository that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Found {
    /// Its name, as `pull` takes it.
    pub name: String,
    /// What its owner says of it; nothing in a catalogue.
    pub description: String,
    /// How many people like it.
    #[serde(rename = "star_count")]
    pub stars: u64,
    /// The registry vouches for it.
    #[serde(rename = "is_official")]
    pub official: bool,
    /// It is built by the registry.
    #[serde(rename = "is_automated")]
    pub automated: bool,
}

#[derive(Deserialize)]
struct Results {
    results: Vec<Found>,
}

#[derive(Deserialize)]
struct Catalogue {
    repositories: Option<Vec<String>>,
}

/// Looks for `term` at `registry`. At most `limit` repositories come back.
pub(super) fn search(config: &Config, registry: &str, term: &str, limit: usize) -> Result<Vec<Found>> {
    let runtime = super::runtime()?;
    let transport = Transport::new(config);
    let hub = registry == DOCKER_HUB;
    // The Hub's index is anybody's to ask, and another host than the one that the credential is for.
    let kept = match config.docker_config.as_deref().filter(|_| !hub) {
        Some(path) => Credentials::open(path)?.get(registry)?,
        None => None,
    };
    let remote = Remote::new(&transport, config.origin(if hub { INDEX } else { registry })?, kept);
    runtime.block_on(async {
        let found = index(&remote, term, limit).await?;
        match found {
            Some(found) => Ok(found),
            None if hub => Err(no_search(registry)),
            None => catalogue(&remote, registry, term, limit).await,
        }
    })
}

fn no_search(registry: &str) -> Error {
    Error::new(Class::Unsupported, format!("{registry} cannot be searched"))
        .with_hint("it has neither an index nor a catalogue: ask its owner for the names of its images")
}

/// `None` when the registry does not speak the index's protocol.
async fn index(remote: &Remote<'_>, term: &str, limit: usize) -> Result<Option<Vec<Found>>> {
    let mut url = remote.root().await?;
    url.set_path("v1/search");
    url.query_pairs_mut().append_pair("q", term).append_pair("n", &limit.to_string());
    let response = remote.send(Method::GET, &url, &Scope::default(), &|request| request).await?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => return Ok(None),
        _ => return Err(remote.refusal(response, "search", term).await),
    }
    // A registry with a web page may answer anything with that.
    let Ok(Results { results }) = serde_json::from_slice::<Results>(&whole(response).await?) else { return Ok(None) };
    Ok(Some(results.into_iter().take(limit).collect()))
}

async fn catalogue(remote: &Remote<'_>, registry: &str, term: &str, limit: usize) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut last: Option<String> = None;
    for _ in 0..PAGES {
        let mut url = remote.root().await?;
        url.set_path("v2/_catalog");
        url.query_pairs_mut().append_pair("n", &PAGE.to_string());
        if let Some(last) = &last {
            url.query_pairs_mut().append_pair("last", last);
        }
        let response = remote.send(Method::GET, &url, &Scope::default(), &|request| request).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => return Err(no_search(registry)),
            _ => return Err(remote.refusal(response, "search", term).await),
        }
        let more = response.headers().contains_key(LINK);
        let page: Catalogue = serde_json::from_slice(&whole(response).await?)
            .map_err(|e| Error::new(Class::Corrupt, format!("{registry} sends no catalogue: {e}")))?;
        let names = page.repositories.unwrap_or_default();
        let next = names.last().cloned();
        let fitting = names.into_iter().filter(|name| name.contains(term));
        found.extend(fitting.map(|name| Found { name: printable(&format!("{registry}/{name}")), ..Found::default() }));
        if found.len() >= limit || !more || next.is_none() || next == last {
            break;
        }
        last = next;
    }
    found.truncate(limit);
    Ok(found)
}

async fn whole(response: Response) -> Result<Vec<u8>> {
    let url = response.url().clone();
    let too_long = || Error::new(Class::LimitExceeded, format!("{url}: the answer is longer than {MAX_ANSWER} bytes"));
    body(response, MAX_ANSWER).await?.ok_or_else(too_long)
}
