//! One endpoint, spoken to: requests with credentials, redirects and patience.
//!
//! Credentials belong to the endpoint's own scheme, host and port. A redirect, or an upload's `Location`, may lead to
//! another host (a registry's storage): it is followed without them, never from HTTPS down to HTTP, and not for ever.

use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::header::{AUTHORIZATION, LOCATION};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use tokio::sync::OnceCell;

use super::auth::{Authenticator, Base, Scope};
use super::config::{Endpoint, Scheme};
use super::credentials::Credential;
use super::failure::{Refusal, unreachable};
use super::retry::{is_transient, retry_after};
use super::transport::Transport;
use crate::error::{Class, Error, Result};

/// Most redirects of one request.
const MAX_REDIRECTS: u32 = 10;
/// Most answers to "401" for one request: a first token, and a fresh one if that was just too old.
const MAX_CHALLENGES: u32 = 2;

/// What goes into a request besides method and address; called again for every attempt.
pub(super) type Dress<'r> = &'r (dyn Fn(RequestBuilder) -> RequestBuilder + Send + Sync);

/// An endpoint and what was agreed with it.
pub(super) struct Remote<'a> {
    pub transport: &'a Transport<'a>,
    pub endpoint: Endpoint,
    base: OnceCell<Base>,
    auth: Authenticator,
    reached: AtomicBool,
}

impl<'a> Remote<'a> {
    pub fn new(transport: &'a Transport<'a>, endpoint: Endpoint, credential: Option<Credential>) -> Self {
        let auth = Authenticator::new(credential);
        Remote { transport, endpoint, base: OnceCell::new(), auth, reached: AtomicBool::new(false) }
    }

    /// Finds out how the endpoint is spoken to, where there is a choice.
    pub async fn base(&self) -> Result<&Base> {
        self.base.get_or_try_init(|| self.find_base()).await
    }

    async fn find_base(&self) -> Result<Base> {
        let mut failure = None;
        for scheme in &self.endpoint.schemes {
            let name = if *scheme == Scheme::Http { "http" } else { "https" };
            let url = Url::parse(&format!("{name}://{}/", self.endpoint.host)).map_err(|e| {
                Error::new(Class::InvalidInput, format!("{:?} is no registry's address: {e}", self.endpoint.host))
            })?;
            let base = Base { url, scheme: *scheme };
            if self.endpoint.schemes.len() == 1 {
                return Ok(base);
            }
            let ping = base.url.join("v2/").unwrap_or_else(|_| base.url.clone());
            match self.transport.client(&ping, Some(*scheme))?.get(ping.clone()).send().await {
                Ok(_) => return Ok(base),
                Err(error) => failure = Some(unreachable("Get", &ping, &error)),
            }
        }
        Err(failure.unwrap_or_else(|| Error::new(Class::InvalidInput, "a registry without an address")))
    }

    /// `https://host/v2/`, where a registry says whether it knows us.
    pub async fn root(&self) -> Result<Url> {
        let base = self.base().await?;
        base.url.join("v2/").map_err(|e| Error::new(Class::InvalidInput, format!("{}: {e}", base.url)))
    }

    /// `https://host/v2/NAME/REST`.
    pub async fn url(&self, repository: &str, rest: &str) -> Result<Url> {
        let base = self.base().await?;
        let path = format!("v2/{repository}/{rest}");
        base.url.join(&path).map_err(|e| Error::new(Class::InvalidInput, format!("{path:?} is no address: {e}")))
    }

    /// Sends a request and returns the answer, whatever its status, once neither patience nor a login changes it.
    ///
    /// # Errors
    /// `Unavailable` when there is no answer; `Unauthorized` when the token service refuses; `Forbidden` for redirects
    /// that are not followed.
    pub async fn send(&self, method: Method, url: &Url, scope: &Scope, dress: Dress<'_>) -> Result<Response> {
        let backoff = self.transport.config.backoff;
        let mut failures = 0;
        loop {
            let outcome = self.attempt(&method, url, scope, dress).await?;
            failures += 1;
            let asked = match &outcome {
                Ok(response) if is_transient(response.status()) => retry_after(response.headers()),
                // Who was never there is not waited for: the name or the port is wrong.
                Err((_, error)) if !error.is_connect() || self.reached.load(Ordering::Relaxed) => None,
                _ => {
                    failures = backoff.attempts;
                    None
                }
            };
            if failures >= backoff.attempts {
                return outcome.map_err(|(url, error)| unreachable(&spoken(&method), &url, &error));
            }
            tokio::time::sleep(backoff.pause(failures, asked)).await;
        }
    }

    /// The same without patience: for bodies that must not simply be sent again.
    pub async fn send_once(&self, method: Method, url: &Url, scope: &Scope, dress: Dress<'_>) -> Result<Response> {
        let outcome = self.attempt(&method, url, scope, dress).await?;
        outcome.map_err(|(url, error)| unreachable(&spoken(&method), &url, &error))
    }

    /// One attempt, through redirects and challenges.
    async fn attempt(
        &self,
        method: &Method,
        url: &Url,
        scope: &Scope,
        dress: Dress<'_>,
    ) -> Result<Result<Response, (Url, reqwest::Error)>> {
        let base = self.base().await?;
        let mut url = url.clone();
        let (mut redirects, mut challenges) = (0, 0);
        loop {
            let own = url.origin() == base.url.origin();
            let client = self.transport.client(&url, own.then_some(base.scheme))?;
            let mut request = dress(client.request(method.clone(), url.clone()));
            let header = if own { self.auth.header(self.transport, &self.endpoint, base, scope).await? } else { None };
            if let Some(header) = &header {
                request = request.header(AUTHORIZATION, header.clone());
            }
            let response = match request.send().await {
                Ok(response) => response,
                Err(error) => return Ok(Err((url, error))),
            };
            self.reached.store(true, Ordering::Relaxed);
            let status = response.status();
            if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
                redirects += 1;
                url = self.redirect(method, &url, &response, redirects)?;
            } else if status == StatusCode::UNAUTHORIZED && own && challenges < MAX_CHALLENGES {
                challenges += 1;
                let headers = response.headers();
                let header = header.as_ref();
                if !self.auth.respond(self.transport, &self.endpoint, base, scope, headers, header).await? {
                    return Ok(Ok(response));
                }
            } else {
                return Ok(Ok(response));
            }
        }
    }

    fn redirect(&self, method: &Method, from: &Url, response: &Response, count: u32) -> Result<Url> {
        let host = &self.endpoint.host;
        let refuse = |why: &str| Err(Error::new(Class::Forbidden, format!("{host} redirects {why}")));
        if count > MAX_REDIRECTS {
            return refuse(&format!("more than {MAX_REDIRECTS} times"));
        }
        let keeps_method = matches!(response.status().as_u16(), 307 | 308);
        if !keeps_method && !matches!(*method, Method::GET | Method::HEAD) {
            return refuse("an upload in a way that would lose it");
        }
        let Some(to) = location(from, response) else { return refuse("to nowhere") };
        check_downgrade(host, from, &to)?;
        Ok(to)
    }

    /// The refusal in `response` as an error: `doing` is "pull" or "push", `what` the repository's familiar name.
    pub async fn refusal(&self, response: Response, doing: &str, what: &str) -> Error {
        let refusal = Refusal::read(response).await;
        let denied = matches!(refusal.status.as_u16(), 401 | 403);
        let error = refusal.into_error(doing, what);
        if denied {
            let withheld = match self.base().await {
                Ok(base) => self.auth.withheld(self.transport, &self.endpoint, base).await,
                Err(_) => None,
            };
            let hint = withheld.unwrap_or_else(|| format!("log in with `wharf login {}`", self.endpoint.name));
            return error.with_hint(hint);
        }
        error
    }
}

/// The body of an answer; `None` when it is longer than `limit`.
pub(super) async fn body(mut response: Response, limit: u64) -> Result<Option<Vec<u8>>> {
    if response.content_length().is_some_and(|length| length > limit) {
        return Ok(None);
    }
    let url = response.url().clone();
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| unreachable("Get", &url, &e))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > limit {
            return Ok(None);
        }
    }
    Ok(Some(bytes))
}

/// Where `Location` leads: relative or absolute, and only to the web.
pub(super) fn location(from: &Url, response: &Response) -> Option<Url> {
    let text = response.headers().get(LOCATION)?.to_str().ok()?;
    from.join(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

/// What was asked for over TLS is not fetched without it.
pub(super) fn check_downgrade(host: &str, from: &Url, to: &Url) -> Result<()> {
    if from.scheme() == "https" && to.scheme() == "http" {
        let to = super::transport::authority(to);
        return Err(Error::new(Class::Forbidden, format!("{host} redirects from HTTPS to plain HTTP at {to}"))
            .with_hint("a proxy in front of the registry may lack `X-Forwarded-Proto: https`"));
    }
    Ok(())
}

/// Docker writes methods as Go's functions are called.
fn spoken(method: &Method) -> String {
    let lower = method.as_str().to_lowercase();
    let mut chars = lower.chars();
    chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect()
}
