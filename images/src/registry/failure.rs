//! What went wrong, in docker's words where docker has them.

use std::error::Error as StdError;

use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;

use crate::error::{Class, Error};

/// Most bytes of an error's body that are read.
const MAX_BODY: usize = 64 * 1024;

/// An error of the distribution specification
/// (<https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#error-codes>).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ApiError {
    pub code: String,
    pub message: String,
}

/// What a server said when it refused.
#[derive(Debug)]
pub(super) struct Refusal {
    pub status: StatusCode,
    pub errors: Vec<ApiError>,
}

impl Refusal {
    /// Reads the body of a refusal.
    pub async fn read(mut response: Response) -> Self {
        #[derive(Deserialize)]
        struct Body {
            errors: Vec<ApiError>,
        }
        let status = response.status();
        let mut bytes = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_BODY {
                break;
            }
        }
        let errors = serde_json::from_slice::<Body>(&bytes).map(|body| body.errors).unwrap_or_default();
        Refusal { status, errors }
    }

    /// `manifest unknown: manifest unknown`, or the status.
    pub fn text(&self) -> String {
        match self.errors.first() {
            Some(error) => {
                let code = error.code.to_lowercase().replace('_', " ");
                let message = printable(&error.message);
                if message.is_empty() { code } else { format!("{code}: {message}") }
            }
            None => format!("unexpected status {}", self.status),
        }
    }

    /// The refusal of access to a repository, or another refusal.
    pub fn into_error(self, doing: &str, repository: &str) -> Error {
        let text = self.text();
        match self.status.as_u16() {
            401 | 403 => Error::new(
                if self.status == StatusCode::FORBIDDEN { Class::Forbidden } else { Class::Unauthorized },
                format!(
                    "{doing} access denied for {repository}, repository does not exist or may require 'wharf login': {text}"
                ),
            ),
            404 => Error::new(Class::NotFound, format!("{repository}: {text}")),
            429 => Error::new(Class::Unavailable, format!("{repository}: toomanyrequests: {text}"))
                .with_hint("the registry limits how often it is asked: wait, or log in with `wharf login`"),
            500..=599 => Error::new(Class::Unavailable, format!("{repository}: {text}"))
                .with_hint("the registry is in trouble; try again later"),
            _ => Error::new(Class::Internal, format!("{repository}: {text}")),
        }
    }
}

/// Foreign text for a terminal: no control characters, and an end.
pub(super) fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(400).collect()
}

/// The innermost reason, which is the one that says something.
pub(super) fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// A request that got no answer.
pub(super) fn unreachable(method: &str, url: &Url, error: &reqwest::Error) -> Error {
    let host = super::transport::authority(url);
    let reason = innermost(error);
    let lower = reason.to_lowercase();
    let mut shown = url.clone();
    // Signed addresses and upload states are nobody's business.
    shown.set_query(None);
    let (reason, hint) = if error.is_timeout() {
        (
            "i/o timeout".to_owned(),
            format!("{host} does not answer: check the network, a firewall and the proxy settings"),
        )
    } else if lower.contains("refused") {
        (
            "connect: connection refused".to_owned(),
            format!("nothing listens at {host}: check that the registry runs, and its port"),
        )
    } else if lower.contains("certificate") || lower.contains("unknownissuer") {
        let trusted =
            "name its authority as `ca` in registries.toml (or in /etc/docker/certs.d), or set `insecure = true` there";
        (
            format!("tls: failed to verify certificate: {reason}"),
            format!("{host} shows a certificate that is not trusted: {trusted}"),
        )
    } else if lower.contains("invalidcontenttype") || lower.contains("corrupt message") {
        (
            "server gave HTTP response to HTTPS client".to_owned(),
            format!("if {host} is meant to be without TLS, set `insecure = true` for it in registries.toml"),
        )
    } else if error.is_connect() && (lower.contains("no record") || lower.contains("dns") || lower.contains("resol")) {
        (
            format!("lookup {}: no such host", url.host_str().unwrap_or_default()),
            format!("check the spelling of {host} and the name servers in /etc/resolv.conf"),
        )
    } else {
        (printable(&reason), format!("check the network and that {host} is a registry"))
    };
    Error::new(Class::Unavailable, format!("{method} \"{shown}\": {reason}")).with_hint(hint)
}
