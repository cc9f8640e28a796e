//! The documents of an image: index, manifest and config, from whoever wrote them.
//!
//! OCI (<https://github.com/opencontainers/image-spec/tree/v1.1.1>) and docker's schema 2
//! (<https://distribution.github.io/distribution/spec/manifest-v2-2/>) have the same shape. A document that could be
//! read as two kinds is refused (CVE-2021-41190), as is one that contradicts the media type it was announced with.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Platform;
use crate::digest::Digest;
use crate::error::{Class, Error, Result};

/// Most bytes of an index, a manifest or a config (docker's limit too).
pub const MAX_DOCUMENT: u64 = 4 * 1024 * 1024;

/// Media types of documents.
pub mod media_type {
    /// OCI index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI config.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// Uncompressed OCI layer.
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// Docker's index.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker's manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's config.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

    /// What to ask a registry for.
    pub const MANIFESTS: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];

    /// True for an index, OCI's or docker's.
    pub fn is_index(media_type: &str) -> bool {
        matches!(media_type, OCI_INDEX | DOCKER_LIST)
    }

    /// True for the config of an image with a root filesystem.
    pub fn is_image_config(media_type: &str) -> bool {
        matches!(media_type, OCI_CONFIG | DOCKER_CONFIG)
    }
}

/// A pointer to a blob.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// For an index's entries: what it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Free text.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An index: one image for several platforms.
#[derive(Debug, Clone, PartialEq)]
pub struct Index {
    /// Its entries.
    pub manifests: Vec<Descriptor>,
}

/// A manifest: config and layers of one image.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// Its config.
    pub config: Descriptor,
    /// Its layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// Free text.
    pub annotations: BTreeMap<String, String>,
}

/// What a name in a registry points to.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    /// Several images.
    Index(Index),
    /// One image.
    Manifest(Manifest),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    schema_version: Option<u64>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    fs_layers: Option<serde::de::IgnoredAny>,
    #[serde(default, deserialize_with = "null_is_default")]
    annotations: BTreeMap<String, String>,
}

impl Document {
    /// Parses a document that was announced as `announced` (a descriptor's or an HTTP header's media type), if known.
    ///
    /// # Errors
    /// `Corrupt` when it is neither an index nor a manifest, or not what was announced; `Unsupported` for docker's
    /// schema 1.
    pub fn parse(bytes: &[u8], announced: Option<&str>) -> Result<Self> {
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(Error::new(
                Class::LimitExceeded,
                format!("an image manifest of {} bytes is larger than the allowed {MAX_DOCUMENT}", bytes.len()),
            ));
        }
        let raw: Raw = parse_json("image manifest", bytes)?;
        if raw.schema_version == Some(1) || raw.fs_layers.is_some() {
            return Err(Error::new(Class::Unsupported, "image manifest schema 1 is no longer supported")
                .with_hint("the image is older than 2016; ask its author for a new one, or copy it once with skopeo"));
        }
        let corrupt = |what: &str| Error::new(Class::Corrupt, format!("malformed image manifest: {what}"));
        let inside = raw.media_type.as_deref().filter(|t| !t.is_empty());
        let announced = announced.filter(|t| media_type::MANIFESTS.contains(t));
        if let (Some(inside), Some(announced)) = (inside, announced)
            && inside != announced
        {
            return Err(corrupt(&format!("it was announced as {announced} and says it is {inside}")));
        }
        let document = match (raw.manifests, raw.config, raw.layers) {
            (Some(manifests), None, None) => Document::Index(Index { manifests }),
            (None, Some(config), layers) => Document::Manifest(Manifest {
                config,
                layers: layers.unwrap_or_default(),
                annotations: raw.annotations,
            }),
            (Some(_), _, _) => return Err(corrupt("it is both an index and a manifest")),
            (None, None, _) => return Err(corrupt("it has neither manifests nor a config")),
        };
        match inside.or(announced) {
            Some(claimed) if media_type::is_index(claimed) != matches!(document, Document::Index(_)) => {
                Err(corrupt(&format!("its content is not {claimed}")))
            }
            _ => Ok(document),
        }
    }
}

/// BuildKit's provenance and SBOM entries are for no platform: they describe another entry.
fn is_attestation(entry: &Descriptor) -> bool {
    entry.annotations.contains_key("vnd.docker.reference.type")
        || entry.platform.as_ref().is_some_and(|p| p.os == "unknown" && p.architecture == "unknown")
}

impl Index {
    /// The entries that are images.
    pub fn images(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifests.iter().filter(|entry| !is_attestation(entry))
    }

    /// Chooses the entry for `platform`, or what this machine likes best. Entries that are `present` come first when
    /// no platform was asked for, so that an image pulled for another platform is still found.
    ///
    /// # Errors
    /// `NotFound`, listing the platforms there are.
    pub fn choose(&self, platform: Option<&Platform>, present: &dyn Fn(&Digest) -> bool) -> Result<&Descriptor> {
        let wanted = match platform {
            Some(platform) => vec![platform.clone().normalised()],
            None => Platform::host_preference(),
        };
        let fitting = || {
            wanted.iter().flat_map(|wanted| {
                self.images().filter(|entry| entry.platform.as_ref().is_some_and(|offered| wanted.accepts(offered)))
            })
        };
        let mut images = self.images();
        // An index of one image that says nothing of its platform: the image's config will tell.
        let only = match (images.next(), images.next()) {
            (Some(entry), None) if entry.platform.is_none() => Some(entry),
            _ => None,
        };
        fitting()
            .find(|entry| present(&entry.digest))
            .or_else(|| match platform {
                None => self.images().find(|entry| present(&entry.digest)),
                Some(_) => None,
            })
            .or_else(|| fitting().next())
            .or(only)
            .ok_or_else(|| self.no_match(&wanted[0]))
    }

    fn no_match(&self, wanted: &Platform) -> Error {
        let offered: Vec<String> = self.images().filter_map(|e| e.platform.as_ref()).map(Platform::to_string).collect();
        let offered = if offered.is_empty() { "none".to_owned() } else { offered.join(", ") };
        Error::new(
            Class::NotFound,
            format!(
                "no matching manifest for {wanted} in the manifest list entries; the image's platforms are: {offered}"
            ),
        )
        .with_hint("choose one of them with --platform")
    }
}

/// An image's config, as far as Wharf reads it. Wasm artifacts fill in little of it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ConfigFile {
    /// RFC 3339.
    pub created: Option<String>,
    /// Who made it.
    pub author: Option<String>,
    /// Docker's comment on the last step.
    pub comment: Option<String>,
    /// Architecture.
    pub architecture: Option<String>,
    /// Operating system.
    pub os: Option<String>,
    /// Variant of the architecture.
    pub variant: Option<String>,
    /// How to run it.
    pub config: Option<RawRunConfig>,
    /// Digests of the uncompressed layers.
    pub rootfs: Option<RootFs>,
    /// How it came about.
    #[serde(deserialize_with = "null_is_default")]
    pub history: Vec<HistoryEntry>,
}

/// `rootfs` of a config.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RootFs {
    /// Digests of the uncompressed layers, lowest first.
    #[serde(deserialize_with = "null_is_default")]
    pub diff_ids: Vec<Digest>,
}

/// One step of an image's history.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct HistoryEntry {
    /// RFC 3339.
    pub created: Option<String>,
    /// The step, as a command.
    pub created_by: Option<String>,
    /// Free text.
    pub comment: Option<String>,
    /// The step made no layer.
    pub empty_layer: bool,
}

/// `config` of a config, with docker's nulls.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RawRunConfig {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
    volumes: Option<BTreeMap<String, serde_json::Value>>,
    labels: Option<BTreeMap<String, String>>,
    stop_signal: Option<String>,
    healthcheck: Option<serde_json::Value>,
    shell: Option<Vec<String>>,
}

impl From<RawRunConfig> for super::RunConfig {
    fn from(raw: RawRunConfig) -> Self {
        super::RunConfig {
            user: raw.user.unwrap_or_default(),
            env: raw.env.unwrap_or_default(),
            entrypoint: raw.entrypoint.unwrap_or_default(),
            cmd: raw.cmd.unwrap_or_default(),
            working_dir: raw.working_dir.unwrap_or_default(),
            exposed_ports: raw.exposed_ports.unwrap_or_default().into_keys().collect(),
            volumes: raw.volumes.unwrap_or_default().into_keys().collect(),
            labels: raw.labels.unwrap_or_default(),
            stop_signal: raw.stop_signal.filter(|s| !s.is_empty()),
            healthcheck: raw.healthcheck.filter(|h| !h.is_null()),
            shell: raw.shell.filter(|s| !s.is_empty()),
        }
    }
}

impl ConfigFile {
    /// Parses an image's config.
    ///
    /// # Errors
    /// `Corrupt` when it is not one.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        parse_json("image config", bytes)
    }

    /// The platform it names.
    pub fn platform(&self) -> Platform {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        Platform { os: text(&self.os), architecture: text(&self.architecture), variant: self.variant.clone() }
            .normalised()
    }
}

fn parse_json<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::json(format!("malformed {what}"), e))
}

fn null_is_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: serde_json::Value, announced: Option<&str>) -> Result<Document> {
        Document::parse(&serde_json::to_vec(&json).unwrap(), announced)
    }

    fn descriptor() -> serde_json::Value {
        serde_json::json!({"mediaType": "x", "size": 1, "digest": Digest::of(b"x")})
    }

    #[test]
    fn a_document_is_one_thing_only() {
        use serde_json::json;
        let d = descriptor();
        for (json, announced) in [
            (json!({}), None),
            (json!({"schemaVersion": 2}), None),
            (json!({"layers": [d]}), None),
            (json!({"manifests": [d], "config": d}), None),
            (json!({"manifests": [], "layers": [d]}), None),
            (json!({"mediaType": media_type::OCI_INDEX, "config": d, "layers": []}), None),
            (json!({"mediaType": media_type::OCI_MANIFEST, "manifests": []}), None),
            (json!({"config": d}), Some(media_type::DOCKER_LIST)),
            (json!({"mediaType": media_type::OCI_MANIFEST, "config": d}), Some(media_type::DOCKER_MANIFEST)),
            (json!({"config": {"digest": "sha256:../../x", "size": 1}}), None),
            (json!({"config": {"digest": Digest::of(b""), "size": -1}}), None),
            (json!([]), None),
        ] {
            let error = parse(json.clone(), announced).expect_err(&json.to_string());
            assert_eq!(error.class(), Class::Corrupt, "{json}");
        }
        assert!(Document::parse(br#"{"manifests":[],"manifests":[]}"#, None).is_err());
        assert!(matches!(parse(json!({"config": d, "layers": null}), None), Ok(Document::Manifest(_))));
        assert!(matches!(parse(json!({"manifests": []}), Some("text/plain")), Ok(Document::Index(_))));
    }

    #[test]
    fn schema_1_is_named() {
        let error = parse(serde_json::json!({"schemaVersion": 1, "fsLayers": []}), None).unwrap_err();
        assert_eq!(error.class(), Class::Unsupported);
        assert!(error.to_string().contains("schema 1"), "{error}");
    }

    #[test]
    fn a_huge_document_is_not_parsed() {
        let error = Document::parse(&vec![b' '; MAX_DOCUMENT as usize + 1], None).unwrap_err();
        assert_eq!(error.class(), Class::LimitExceeded);
    }

    fn index(platforms: &[&str]) -> Index {
        let manifests = platforms
            .iter()
            .map(|p| Descriptor {
                media_type: media_type::OCI_MANIFEST.to_owned(),
                digest: Digest::of(p.as_bytes()),
                size: 1,
                platform: (!p.is_empty()).then(|| {
                    let (os, architecture) = p.split_once('/').unwrap();
                    Platform { os: os.to_owned(), architecture: architecture.to_owned(), variant: None }
                }),
                annotations: BTreeMap::new(),
            })
            .collect();
        Index { manifests }
    }

    #[test]
    fn the_platform_asked_for_wins_and_then_the_hosts() {
        let host = Platform::host_preference()[0].to_string();
        let index = index(&["unknown/unknown", "wasi/wasm", "linux/s390x", &host, "wasip1/wasm"]);
        let choose = |platform: Option<&str>, present: &[&str]| {
            let platform = platform.map(|p| p.parse().unwrap());
            let present: Vec<Digest> = present.iter().map(|p| Digest::of(p.as_bytes())).collect();
            index.choose(platform.as_ref(), &|d| present.contains(d)).map(|e| e.digest.clone())
        };
        let is = |name: &str| Digest::of(name.as_bytes());
        assert_eq!(choose(None, &[]).unwrap(), is(&host));
        assert_eq!(choose(None, &["linux/s390x"]).unwrap(), is("linux/s390x"));
        assert_eq!(choose(None, &["linux/s390x", &host]).unwrap(), is(&host));
        assert_eq!(choose(Some("linux/s390x"), &[&host]).unwrap(), is("linux/s390x"));
        assert_eq!(choose(Some("wasip1/wasm"), &[]).unwrap(), is("wasi/wasm"));
        let error = choose(Some("linux/ppc64le"), &[&host]).unwrap_err();
        assert_eq!(error.class(), Class::NotFound);
        for part in ["linux/ppc64le", "linux/s390x", "wasip1/wasm"] {
            assert!(error.to_string().contains(part), "{error}");
        }
        assert!(!error.to_string().contains("unknown"), "{error}");
    }

    #[test]
    fn a_lonely_entry_without_platform_is_taken() {
        assert!(index(&[""]).choose(None, &|_| false).is_ok());
        assert!(index(&["", ""]).choose(None, &|_| false).is_err());
    }
}
