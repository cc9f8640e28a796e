//! Who may know our secrets, and the tokens got for them.
//!
//! A registry answers 401 and names, in `WWW-Authenticate`, what it wants: the password itself (Basic), or a token
//! from a service at `realm` (<https://distribution.github.io/distribution/spec/auth/token/>). The realm is foreign
//! text: a registry, or whoever stands in front of it, could name his own host and collect passwords. So they go only
//! to realms that [`Endpoint`] trusts; any other is asked as nobody.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::{Mutex, OnceCell};

use super::challenge::{Challenge, parse_challenges};
use super::config::{DOCKER_HUB, Endpoint, Scheme};
use super::credentials::{Credential, Credentials};
use super::failure::{Refusal, unreachable};
use super::retry::{Backoff, is_transient, retry_after};
use super::transport::{Transport, authority};
use crate::error::{Class, Error, Result};

/// A token's life where the service does not say.
const DEFAULT_LIFE: u64 = 60;
/// Most bytes of a token service's answer.
const MAX_ANSWER: usize = 1024 * 1024;

/// What is to be done at a registry: resources and actions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Scope(BTreeMap<String, BTreeSet<String>>);

impl Scope {
    /// One repository.
    pub fn repository(name: &str, actions: &[&str]) -> Self {
        Scope::default().and(name, actions)
    }

    /// Another repository as well.
    pub fn and(mut self, name: &str, actions: &[&str]) -> Self {
        let entry = self.0.entry(format!("repository:{name}")).or_default();
        entry.extend(actions.iter().map(|a| (*a).to_owned()));
        self
    }

    /// Takes in a challenge's scope: a proxy may know the repository by another name.
    fn merge(&mut self, text: &str) {
        for part in text.split_ascii_whitespace() {
            if let Some((resource, actions)) = part.rsplit_once(':') {
                self.0.entry(resource.to_owned()).or_default().extend(actions.split(',').map(str::to_owned));
            }
        }
    }

    fn parameters(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(resource, actions)| {
            let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
            format!("{resource}:{}", actions.join(","))
        })
    }
}

struct Grant {
    header: HeaderValue,
    /// For tokens: until when, and how it was got.
    token: Option<(Instant, Challenge)>,
}

/// What docker's `config.json` gave.
#[derive(Clone, Default)]
struct Found {
    credential: Option<Credential>,
    /// Why a credential helper gave nothing. Most images are public: as docker does, we go on as nobody, and tell it
    /// when the registry wants more.
    trouble: Option<String>,
}

/// The secrets and tokens for one endpoint.
pub(super) struct Authenticator {
    given: Option<Credential>,
    found: OnceCell<Found>,
    grants: Mutex<HashMap<Scope, Grant>>,
}

impl Authenticator {
    /// `given` takes the place of what docker's `config.json` says.
    pub fn new(given: Option<Credential>) -> Self {
        Authenticator { given, found: OnceCell::new(), grants: Mutex::new(HashMap::new()) }
    }

    async fn credential(&self, transport: &Transport<'_>, endpoint: &Endpoint) -> Result<Option<Credential>> {
        if self.given.is_some() {
            return Ok(self.given.clone());
        }
        let look = || async {
            let Some(path) = transport.config.docker_config.clone() else { return Ok(Found::default()) };
            let name = endpoint.name.clone();
            // A helper may take its time.
            let found = tokio::task::spawn_blocking(move || Credentials::open(&path)?.get(&name))
                .await
                .unwrap_or_else(|e| Err(Error::new(Class::Internal, format!("reading credentials: {e}"))));
            match found {
                Ok(credential) => Ok(Found { credential, trouble: None }),
                Err(e) if e.class() == Class::Internal => Ok(Found { credential: None, trouble: Some(e.to_string()) }),
                Err(e) => Err(e),
            }
        };
        self.found.get_or_try_init(look).await.map(|found| found.credential.clone())
    }

    /// The header for a request, if one was agreed on before. An old token is renewed.
    pub async fn header(
        &self,
        transport: &Transport<'_>,
        endpoint: &Endpoint,
        base: &Base,
        scope: &Scope,
    ) -> Result<Option<HeaderValue>> {
        let mut grants = self.grants.lock().await;
        let Some(grant) = grants.get(scope) else { return Ok(None) };
        match &grant.token {
            Some((until, challenge)) if *until <= Instant::now() => {
                let challenge = challenge.clone();
                let grant = self.token(transport, endpoint, base, scope, &challenge).await?;
                let header = grant.header.clone();
                grants.insert(scope.clone(), grant);
                Ok(Some(header))
            }
            _ => Ok(Some(grant.header.clone())),
        }
    }

    /// Answers a 401. `refused` is the header that did not do. Returns false when there is nothing to answer with.
    pub async fn respond(
        &self,
        transport: &Transport<'_>,
        endpoint: &Endpoint,
        base: &Base,
        scope: &Scope,
        headers: &HeaderMap,
        refused: Option<&HeaderValue>,
    ) -> Result<bool> {
        // Whoever comes second finds the token that the first one got.
        let mut grants = self.grants.lock().await;
        if let Some(grant) = grants.get(scope)
            && Some(&grant.header) != refused
        {
            return Ok(true);
        }
        let challenges: Vec<Challenge> = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(parse_challenges)
            .collect();
        let grant = if let Some(challenge) = challenges.iter().find(|c| c.scheme == "bearer") {
            self.token(transport, endpoint, base, scope, challenge).await?
        } else if challenges.iter().any(|c| c.scheme == "basic") {
            match self.credential(transport, endpoint).await? {
                // Asking again with the same password changes nothing.
                _ if refused.is_some() => return Ok(false),
                Some(Credential::Password { username, password }) => {
                    Grant { header: basic(&username, &password)?, token: None }
                }
                Some(Credential::IdentityToken(_)) | None => return Ok(false),
            }
        } else {
            return Ok(false);
        };
        grants.insert(scope.clone(), grant);
        Ok(true)
    }

    async fn token(
        &self,
        transport: &Transport<'_>,
        endpoint: &Endpoint,
        base: &Base,
        scope: &Scope,
        challenge: &Challenge,
    ) -> Result<Grant> {
        let realm = challenge.get("realm").unwrap_or_default();
        let url = Url::parse(realm)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| refuse_realm(endpoint, realm, "it is no web address"))?;
        if url.scheme() == "http" && base.url.scheme() == "https" {
            return Err(refuse_realm(endpoint, realm, "it is plain HTTP, and the registry is not"));
        }
        let mut wanted = scope.clone();
        wanted.merge(challenge.get("scope").unwrap_or_default());
        let credential = self.credential(transport, endpoint).await?;
        let trusted = trusts(endpoint, base, &url);
        let withheld = credential.is_some() && !trusted;
        let credential = credential.filter(|_| trusted);
        let scheme = (authority(&url) == authority(&base.url)).then_some(base.scheme);
        let client = transport.client(&url, scheme)?;
        let service = challenge.get("service").unwrap_or_default();
        let mut url = url;
        let request = match &credential {
            Some(Credential::IdentityToken(token)) => {
                let body = refresh_form(url.clone(), service, &wanted, token);
                client.post(url.clone()).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body)
            }
            Some(Credential::Password { username, password }) => {
                add_query(&mut url, service, &wanted, Some(username));
                client.get(url.clone()).header(AUTHORIZATION, basic(username, password)?)
            }
            None => {
                add_query(&mut url, service, &wanted, None);
                client.get(url.clone())
            }
        };
        // Not redirected: that would be yet another host, and no token service needs it.
        let response = patiently(&transport.config.backoff, request).await.map_err(|e| unreachable("Get", &url, &e))?;
        let status = response.status();
        if !status.is_success() {
            let unused =
                if withheld { Some(withheld_hint(endpoint, &url)) } else { self.found.get().and_then(trouble) };
            return Err(denied(endpoint, &url, Refusal::read(response).await, credential.is_some(), unused));
        }
        let answer = read_answer(response, &url).await?;
        let token = answer.token.or(answer.access_token).filter(|t| !t.is_empty()).ok_or_else(|| {
            Error::new(Class::Corrupt, format!("the token service at {} sent no token", authority(&url)))
        })?;
        let mut header = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| {
            Error::new(Class::Corrupt, format!("the token service at {} sent a malformed token", authority(&url)))
        })?;
        header.set_sensitive(true);
        // A day is long enough for a token, and keeps the sum within what a clock can hold.
        let life = answer.expires_in.unwrap_or(DEFAULT_LIFE).clamp(10, 86_400);
        let until = Instant::now() + Duration::from_secs(life).mul_f64(0.8);
        Ok(Grant { header, token: Some((until, challenge.clone())) })
    }

    /// Why the credentials were not used, if that is so: for the message of a refusal.
    pub async fn withheld(&self, transport: &Transport<'_>, endpoint: &Endpoint, base: &Base) -> Option<String> {
        let has = self.credential(transport, endpoint).await.ok().flatten().is_some();
        if let Some(trouble) = self.found.get().and_then(trouble) {
            return Some(trouble);
        }
        let grants = self.grants.lock().await;
        grants.values().filter(|_| has).find_map(|grant| {
            let (_, challenge) = grant.token.as_ref()?;
            let url = Url::parse(challenge.get("realm")?).ok()?;
            (!trusts(endpoint, base, &url)).then(|| withheld_hint(endpoint, &url))
        })
    }
}

/// Where an endpoint was found to answer.
#[derive(Debug, Clone)]
pub(super) struct Base {
    /// `https://host:port/`.
    pub url: Url,
    /// How.
    pub scheme: Scheme,
}

/// May the token service at `realm` see the endpoint's credentials?
fn trusts(endpoint: &Endpoint, base: &Base, realm: &Url) -> bool {
    let at = authority(realm);
    let listed = endpoint.token_realms.iter().any(|t| t.eq_ignore_ascii_case(&at));
    if realm.scheme() == "http" {
        // The registry itself is plain here. Another port is another server, perhaps another user's.
        return base.url.scheme() == "http" && (listed || at == authority(&base.url));
    }
    let sibling = endpoint.name == DOCKER_HUB && at == "auth.docker.io";
    // A certificate vouches for the host whatever the port; without one only the very same server will do.
    let same_host = match base.scheme {
        Scheme::Https { verify: true } => realm.host_str() == base.url.host_str(),
        Scheme::Https { verify: false } | Scheme::Http => at == authority(&base.url),
    };
    listed || sibling || same_host
}

fn trouble(found: &Found) -> Option<String> {
    let trouble = found.trouble.as_ref()?;
    Some(format!("{trouble}\ncredsStore and credHelpers in docker's config.json name the helpers"))
}

fn withheld_hint(endpoint: &Endpoint, realm: &Url) -> String {
    let at = authority(realm);
    format!(
        "the credentials for {} were not sent to the token service at {at}, a foreign host; if it is the right one, \
         put `token-realms = [\"{at}\"]` under [registry.\"{}\"] in registries.toml",
        endpoint.name, endpoint.name
    )
}

fn refuse_realm(endpoint: &Endpoint, realm: &str, why: &str) -> Error {
    let realm = super::failure::printable(realm);
    Error::new(Class::Forbidden, format!("{} names a token service at {realm:?}: {why}", endpoint.host))
        .with_hint("the registry is set up wrongly, or somebody is in between")
}

fn denied(endpoint: &Endpoint, url: &Url, refusal: Refusal, known: bool, unused: Option<String>) -> Error {
    let at = authority(url);
    match refusal.status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST if known => {
            Error::new(Class::Unauthorized, format!("{}: unauthorized: incorrect username or password", endpoint.name))
                .with_hint(format!("log in again with `wharf login {}`", endpoint.name))
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let hint = unused.unwrap_or_else(|| format!("log in with `wharf login {}`", endpoint.name));
            Error::new(Class::Unauthorized, format!("{}: unauthorized: authentication required", endpoint.name))
                .with_hint(hint)
        }
        _ => Error::new(Class::Unavailable, format!("the token service at {at}: {}", refusal.text())),
    }
}

fn basic(username: &str, password: &str) -> Result<HeaderValue> {
    let mut header = HeaderValue::try_from(format!("Basic {}", BASE64.encode(format!("{username}:{password}"))))
        .map_err(|_| Error::new(Class::InvalidInput, "a user name or password that HTTP cannot carry"))?;
    header.set_sensitive(true);
    Ok(header)
}

fn add_query(url: &mut Url, service: &str, scope: &Scope, account: Option<&str>) {
    let mut query = url.query_pairs_mut();
    if !service.is_empty() {
        query.append_pair("service", service);
    }
    for scope in scope.parameters() {
        query.append_pair("scope", &scope);
    }
    if let Some(account) = account {
        query.append_pair("account", account);
    }
}

/// A form's body; a query is written the same way.
fn refresh_form(mut carrier: Url, service: &str, scope: &Scope, token: &str) -> String {
    carrier.set_query(None);
    carrier
        .query_pairs_mut()
        .append_pair("grant_type", "refresh_token")
        .append_pair("service", service)
        .append_pair("client_id", "wharf")
        .append_pair("scope", &scope.parameters().collect::<Vec<_>>().join(" "))
        .append_pair("refresh_token", token);
    carrier.query().unwrap_or_default().to_owned()
}

/// Sends a request again while the other side is in trouble.
async fn patiently(backoff: &Backoff, request: RequestBuilder) -> reqwest::Result<Response> {
    let mut failures = 0;
    loop {
        let Some(again) = request.try_clone() else { return request.send().await };
        let answer = again.send().await;
        failures += 1;
        let asked = match &answer {
            Ok(response) if is_transient(response.status()) => retry_after(response.headers()),
            Err(error) if !error.is_connect() => None,
            _ => return answer,
        };
        if failures >= backoff.attempts {
            return answer;
        }
        tokio::time::sleep(backoff.pause(failures, asked)).await;
    }
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

async fn read_answer(mut response: Response, url: &Url) -> Result<Answer> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| unreachable("Get", url, &e))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_ANSWER {
            return Err(Error::new(
                Class::LimitExceeded,
                format!("the token service at {} sends too much", authority(url)),
            ));
        }
    }
    serde_json::from_slice(&bytes).map_err(|e| Error::json(format!("the token service at {}", authority(url)), e))
}
