//! HTTP clients, one for each way to speak to a host. They live as long as one pull or push.
//!
//! Redirects are not followed here: [`super::client`] follows them itself, because it must know for every hop whether
//! the host may see credentials.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use reqwest::{Certificate, Client, Url, redirect};

use super::config::{Config, Scheme, is_loopback};
use crate::error::{Class, Error, Result};

/// How long a connection may take to be there, TLS included.
const CONNECT: Duration = Duration::from_secs(30);
/// How long a server may be silent.
const SILENCE: Duration = Duration::from_secs(60);

#[derive(PartialEq, Eq, Hash, Clone)]
struct Kind {
    scheme: Scheme,
    authorities: Vec<PathBuf>,
    loopback: bool,
}

/// The clients made so far.
pub(super) struct Transport<'a> {
    pub config: &'a Config,
    clients: Mutex<HashMap<Kind, Client>>,
}

impl<'a> Transport<'a> {
    pub fn new(config: &'a Config) -> Self {
        Transport { config, clients: Mutex::new(HashMap::new()) }
    }

    /// The client for `url`. `scheme` says how the endpoint was reached; `None`: as the configuration of its host says.
    pub fn client(&self, url: &Url, scheme: Option<Scheme>) -> Result<Client> {
        let host = authority(url);
        let scheme = match (scheme, url.scheme()) {
            (_, "http") => Scheme::Http,
            (Some(scheme @ Scheme::Https { .. }), _) => scheme,
            _ => self.config.origin(&host)?.schemes[0],
        };
        let authorities = match scheme {
            Scheme::Https { verify: true } => self.config.authorities(&host)?,
            _ => Vec::new(),
        };
        let kind = Kind { scheme, authorities, loopback: is_loopback(&host) };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&kind) {
            return Ok(client.clone());
        }
        let client = build(&kind, &host)?;
        clients.insert(kind, client.clone());
        Ok(client)
    }
}

/// `host` or `host:port`, as images' names spell it.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

fn build(kind: &Kind, host: &str) -> Result<Client> {
    install_crypto();
    let localhost = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)].map(|ip| SocketAddr::new(ip, 0));
    let mut builder = Client::builder()
        .user_agent(concat!("wharf/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT)
        .read_timeout(SILENCE)
        .http2_adaptive_window(true)
        .tcp_nodelay(true)
        // Without asking a name server (RFC 6761, section 6.3).
        .resolve_to_addrs("localhost", &localhost);
    if kind.loopback {
        builder = builder.no_proxy();
    }
    match kind.scheme {
        // No TLS: the system's authorities need not be there, and are not read.
        Scheme::Http => builder = builder.tls_certs_only([]),
        Scheme::Https { verify: false } => builder = builder.tls_certs_only([]).tls_danger_accept_invalid_certs(true),
        Scheme::Https { verify: true } => {
            for path in &kind.authorities {
                let pem = fs::read(path).map_err(|e| Error::io("read", path, e))?;
                let certificates = Certificate::from_pem_bundle(&pem)
                    .map_err(|e| Error::new(Class::InvalidInput, format!("{}: {e}", path.display())))?;
                builder = builder.tls_certs_merge(certificates);
            }
        }
    }
    builder.build().map_err(|e| {
        Error::new(Class::Unavailable, format!("cannot verify {host}: {}", super::failure::innermost(&e))).with_hint(
            "install the system's certificate authorities (ca-certificates), or name a file of them in SSL_CERT_FILE \
             or as `ca` in registries.toml",
        )
    })
}

/// reqwest is built without a provider of cryptography; ours is ring, unless the program has chosen one.
fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
