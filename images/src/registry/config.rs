//! `registries.toml`: how this machine and this user reach registries.
//!
//! ```toml
//! [registry."docker.io"]
//! mirrors = ["mirror.example.com", "http://10.0.0.5:5000/hub"]   # tried in this order, then docker.io itself
//!
//! [registry."10.0.0.5:5000"]
//! insecure = true                   # TLS is not verified, and plain HTTP is tried when there is no TLS
//!
//! [registry."registry.gitlab.com"]
//! token-realms = ["gitlab.com"]     # a foreign host that may see the credentials of this registry
//!
//! [registry."registry.corp:5000"]
//! ca = "/etc/ssl/corp.pem"          # trusted besides the system's authorities
//! ```
//!
//! The system's file is read first; the user's replaces its tables registry by registry. Docker's
//! `certs.d/HOST/*.crt` are read too (<https://docs.docker.com/engine/security/certificates/>).

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::retry::Backoff;
use crate::error::{Class, Error, Result};

/// What the configuration says about one registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RegistryConfig {
    /// Hosts that hold copies, best first: `host[:port][/prefix]`, with a scheme if it must be plain HTTP.
    pub mirrors: Vec<String>,
    /// Take any certificate, and plain HTTP where there is no TLS.
    pub insecure: bool,
    /// A PEM file of authorities that are trusted for this registry besides the system's.
    pub ca: Option<PathBuf>,
    /// Foreign hosts (`host[:port]`) whose token service may see this registry's credentials.
    pub token_realms: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    registry: BTreeMap<String, RegistryConfig>,
}

/// Everything that decides how registries are reached.
#[derive(Debug, Clone)]
pub struct Config {
    /// By registry name, as in an image's name (`docker.io`, `localhost:5000`).
    pub registries: BTreeMap<String, RegistryConfig>,
    /// Directories of docker's form: `DIR/HOST[:PORT]/*.crt`.
    pub certs_dirs: Vec<PathBuf>,
    /// Docker's client configuration, with the credentials; `None`: nobody is logged in.
    pub docker_config: Option<PathBuf>,
    /// How many blobs travel at once.
    pub concurrency: usize,
    /// How failed requests are repeated.
    pub backoff: Backoff,
}

impl Default for Config {
    /// No registry has a table, nobody is logged in.
    fn default() -> Self {
        Config {
            registries: BTreeMap::new(),
            certs_dirs: Vec::new(),
            docker_config: None,
            concurrency: 3,
            backoff: Backoff::default(),
        }
    }
}

impl Config {
    /// Reads the files of this machine and this user; `WHARF_REGISTRIES` names a file to be read in their place.
    ///
    /// # Errors
    /// `InvalidInput` when a file is malformed; the disk's errors other than that a file is missing.
    pub fn from_environment() -> Result<Self> {
        let home = env::home_dir().filter(|home| !home.as_os_str().is_empty());
        let files = match env::var_os("WHARF_REGISTRIES") {
            Some(file) => vec![PathBuf::from(file)],
            None => {
                let user = env::var_os("XDG_CONFIG_HOME")
                    .filter(|d| !d.is_empty())
                    .map(PathBuf::from)
                    .or_else(|| home.as_ref().map(|h| h.join(".config")));
                let directories = [Some(PathBuf::from("/etc")), user];
                directories.into_iter().flatten().map(|d| d.join("wharf/registries.toml")).collect()
            }
        };
        let mut config = Config { certs_dirs: vec!["/etc/docker/certs.d".into()], ..Config::default() };
        for file in files {
            config.merge(&file)?;
        }
        config.docker_config = match env::var_os("DOCKER_CONFIG").filter(|d| !d.is_empty()) {
            Some(directory) => Some(PathBuf::from(directory).join("config.json")),
            None => home.map(|h| h.join(".docker/config.json")),
        };
        Ok(config)
    }

    fn merge(&mut self, path: &Path) -> Result<()> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(Error::io("read", path, e)),
        };
        let file: File = toml::from_str(&text).map_err(|e| {
            Error::new(Class::InvalidInput, format!("{}: {}", path.display(), e.to_string().trim_end()))
        })?;
        self.registries.extend(file.registry);
        Ok(())
    }

    /// The table of `registry`, if there is one.
    pub(super) fn registry(&self, registry: &str) -> Option<&RegistryConfig> {
        self.registries.get(registry)
    }

    /// The authorities' files that are trusted for `host` besides the system's.
    pub(super) fn authorities(&self, host: &str) -> Result<Vec<PathBuf>> {
        let name = if host == DOCKER_HUB_HOST { DOCKER_HUB } else { host };
        let mut files: Vec<PathBuf> = self.registry(name).and_then(|r| r.ca.clone()).into_iter().collect();
        for directory in &self.certs_dirs {
            let directory = directory.join(name);
            let entries = match fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
                Err(e) => return Err(Error::io("read", directory, e)),
            };
            let mut found: Vec<PathBuf> = entries
                .filter_map(|entry| entry.ok().map(|entry| entry.path()))
                .filter(|path| path.extension().is_some_and(|e| e == "crt"))
                .collect();
            found.sort();
            files.extend(found);
        }
        Ok(files)
    }

    /// Where the images of `registry` may be fetched from: its mirrors, then itself.
    pub(super) fn sources(&self, registry: &str) -> Result<Vec<Endpoint>> {
        let mut sources = Vec::new();
        for mirror in self.registry(registry).map(|r| r.mirrors.as_slice()).unwrap_or_default() {
            sources.push(self.mirror(mirror)?);
        }
        sources.push(self.origin(registry)?);
        Ok(sources)
    }

    /// The registry itself.
    pub(super) fn origin(&self, registry: &str) -> Result<Endpoint> {
        let host = if registry == DOCKER_HUB { DOCKER_HUB_HOST } else { registry };
        self.endpoint(registry, host, "", Only::Any)
    }

    fn mirror(&self, text: &str) -> Result<Endpoint> {
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Only::Http, rest),
            Some(("https", rest)) => (Only::Https, rest),
            Some((other, _)) => {
                return Err(Error::new(
                    Class::InvalidInput,
                    format!("mirror {text:?}: {other:?} is neither http nor https"),
                ));
            }
            None => (Only::Any, text),
        };
        let (host, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        self.endpoint(host, host, prefix.trim_matches('/'), scheme)
    }

    fn endpoint(&self, name: &str, host: &str, prefix: &str, only: Only) -> Result<Endpoint> {
        let table = self.registry(name);
        let insecure = table.is_some_and(|r| r.insecure);
        let loopback = is_loopback(host);
        let verified = !insecure && (!loopback || !self.authorities(host)?.is_empty());
        let schemes = match only {
            Only::Http => vec![Scheme::Http],
            // Where a certificate is to be checked, plain HTTP would be the attacker's way round it.
            Only::Any if !verified => vec![Scheme::Https { verify: false }, Scheme::Http],
            Only::Any | Only::Https => vec![Scheme::Https { verify: verified }],
        };
        Ok(Endpoint {
            name: name.to_owned(),
            host: host.to_owned(),
            prefix: prefix.to_owned(),
            schemes,
            token_realms: table.map(|r| r.token_realms.clone()).unwrap_or_default(),
        })
    }
}

/// The name of Docker Hub in images' names.
pub(super) const DOCKER_HUB: &str = "docker.io";
/// The host that serves Docker Hub.
pub(super) const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

/// Which scheme a mirror's address asks for.
enum Only {
    Any,
    Https,
    Http,
}

/// How to speak to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Scheme {
    /// TLS; `verify` is off only for loopback hosts without an authority of their own, and where the user says so.
    Https {
        /// Whether the certificate is checked.
        verify: bool,
    },
    /// No TLS.
    Http,
}

/// A host that serves a registry's images: the registry, or a mirror of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Under which name its credentials and its configuration are kept.
    pub name: String,
    /// `host[:port]`.
    pub host: String,
    /// What stands before the repository's name there.
    pub prefix: String,
    /// How to speak to it, best first.
    pub schemes: Vec<Scheme>,
    /// Foreign hosts that may see its credentials.
    pub token_realms: Vec<String>,
}

impl Endpoint {
    /// The repository's name at this host.
    pub fn repository(&self, path: &str) -> String {
        if self.prefix.is_empty() { path.to_owned() } else { format!("{}/{path}", self.prefix) }
    }
}

/// True for `localhost`, `127.0.0.0/8` and `[::1]`, with or without a port.
pub(super) fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        None => authority.split(':').next().unwrap_or(authority),
    };
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Config {
        Config { registries: toml::from_str::<File>(text).unwrap().registry, ..Config::default() }
    }

    #[test]
    fn mirrors_come_before_the_origin() {
        let config = parse("[registry.\"docker.io\"]\nmirrors = [\"m.example\", \"http://10.0.0.5:5000/hub/\"]");
        let sources = config.sources("docker.io").unwrap();
        let hosts: Vec<_> = sources.iter().map(|s| (s.name.as_str(), s.host.as_str())).collect();
        assert_eq!(
            hosts,
            [("m.example", "m.example"), ("10.0.0.5:5000", "10.0.0.5:5000"), ("docker.io", "registry-1.docker.io")]
        );
        assert_eq!(sources[0].schemes, [Scheme::Https { verify: true }]);
        assert_eq!(sources[1].schemes, [Scheme::Http]);
        assert_eq!(sources[1].repository("library/debian"), "hub/library/debian");
        assert!(config.mirror("ftp://x").is_err());
    }

    #[test]
    fn only_loopback_and_insecure_registries_may_be_plain() {
        let config = parse("[registry.\"10.0.0.5:5000\"]\ninsecure = true");
        let both = [Scheme::Https { verify: false }, Scheme::Http];
        for host in ["localhost:5000", "LOCALHOST", "127.3.2.1:80", "[::1]:5000", "10.0.0.5:5000"] {
            assert_eq!(config.origin(host).unwrap().schemes, both, "{host}");
        }
        for host in ["docker.io", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.5:5001", "[::2]:1"] {
            assert_eq!(config.origin(host).unwrap().schemes, [Scheme::Https { verify: true }], "{host}");
        }
    }

    #[test]
    fn an_authority_switches_verification_on_for_loopback() {
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path().join("localhost:5000");
        fs::create_dir(&host).unwrap();
        fs::write(host.join("ca.crt"), "").unwrap();
        fs::write(host.join("client.key"), "").unwrap();
        let config = Config { certs_dirs: vec![dir.path().to_owned()], ..Config::default() };
        assert_eq!(config.authorities("localhost:5000").unwrap(), [host.join("ca.crt")]);
        assert_eq!(config.origin("localhost:5000").unwrap().schemes, [Scheme::Https { verify: true }]);
        assert_eq!(config.origin("localhost:5001").unwrap().schemes[0], Scheme::Https { verify: false });
    }

    #[test]
    fn the_users_file_replaces_tables_and_mistakes_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (system, user) = (dir.path().join("a.toml"), dir.path().join("b.toml"));
        fs::write(&system, "[registry.a]\ninsecure = true\n[registry.b]\nca = \"/x\"").unwrap();
        fs::write(&user, "[registry.a]\nmirrors = [\"m\"]").unwrap();
        let mut config = Config::default();
        config.merge(&system).unwrap();
        config.merge(&user).unwrap();
        config.merge(&dir.path().join("missing.toml")).unwrap();
        assert!(!config.registries["a"].insecure);
        assert_eq!(config.registries["b"].ca.as_deref(), Some(Path::new("/x")));
        fs::write(&user, "[registry.a]\ninsecur = true").unwrap();
        let error = config.merge(&user).unwrap_err();
        assert_eq!(error.class(), Class::InvalidInput);
        assert!(error.to_string().contains("b.toml") && error.to_string().contains("insecur"), "{error}");
    }
}
