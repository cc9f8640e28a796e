//! `save`: one archive for every reader. The same images give the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use serde_json::{Value, json};

use super::IMAGE_NAME;
use crate::digest::Digest;
use crate::error::{Class, Error, Result};
use crate::image::document::{Document, MAX_DOCUMENT, media_type};
use crate::image::{Image, Layer, Platform};
use crate::lease::Lease;
use crate::reference::Reference;
use crate::store::{self, ImageStore};

/// What is saved of one image.
struct Saved {
    image: Image,
    media_type: String,
    config: Digest,
    /// An image with a root filesystem, which docker's older format can tell of.
    plain: bool,
    names: BTreeSet<Reference>,
}

/// Writes the images `names` (each as [`ImageStore::resolve`] takes it), for `platform`, as one tar archive.
///
/// # Errors
/// `NotFound`; the writer's.
pub fn save(store: &ImageStore, names: &[String], platform: Option<&Platform>, writer: &mut dyn Write) -> Result<()> {
    let _lease = Lease::take(&store.root)?;
    let mut images: BTreeMap<Digest, Saved> = BTreeMap::new();
    for name in names {
        let image = store.resolve(name, platform)?;
        // Named by an id it is saved without names, as docker does.
        let by_id = [&image.id, &image.manifest, &image.target].iter().any(|digest| {
            digest.as_str() == name || digest.hex().starts_with(name.strip_prefix("sha256:").unwrap_or(name))
        });
        let reference = if by_id { None } else { name.parse::<Reference>().ok().filter(|r| r.tag().is_some()) };
        let saved = match images.get_mut(&image.manifest) {
            Some(saved) => saved,
            None => images.entry(image.manifest.clone()).or_insert(read(store, image)?),
        };
        saved.names.extend(reference);
    }
    let mut archive = Archive { builder: tar::Builder::new(writer) };
    archive.directory("blobs/")?;
    archive.directory("blobs/sha256/")?;
    let mut blobs = BTreeSet::new();
    for saved in images.values() {
        blobs.extend([saved.image.manifest.clone(), saved.config.clone()]);
        blobs.extend(saved.image.layers.iter().map(|layer| layer.blob().digest.clone()));
    }
    for digest in &blobs {
        let file = store.content.open_blob(digest)?;
        archive.file(&blob_path(digest), store.content.size(digest)?, file)?;
    }
    let json = |what: &str, value: &Value| serde_json::to_vec(value).map_err(|e| Error::json(what, e));
    archive.bytes("index.json", &json("index.json", &index(store, &images)?)?)?;
    let (manifest, repositories) = docker_documents(&images);
    if !manifest.is_empty() {
        archive.bytes("manifest.json", &json("manifest.json", &Value::Array(manifest))?)?;
    }
    archive.bytes("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    if !repositories.is_empty() {
        archive.bytes("repositories", &json("repositories", &json!(repositories))?)?;
    }
    archive.builder.finish().map_err(write_error)?;
    for saved in images.values() {
        store.tell(&store::event(&saved.image, "save", saved.image.id.as_str()))?;
    }
    Ok(())
}

fn read(store: &ImageStore, image: Image) -> Result<Saved> {
    let bytes = store.content.read(&image.manifest, MAX_DOCUMENT)?;
    let Document::Manifest(manifest) = Document::parse(&bytes, None)? else {
        return Err(Error::new(Class::Corrupt, format!("{} is not a manifest", image.manifest)));
    };
    let value: Value = serde_json::from_slice(&bytes).map_err(|e| Error::json("image manifest", e))?;
    let plain = media_type::is_image_config(&manifest.config.media_type)
        && image.layers.iter().all(|layer| matches!(layer, Layer::Tar(_)));
    Ok(Saved {
        media_type: value["mediaType"].as_str().unwrap_or(media_type::OCI_MANIFEST).to_owned(),
        config: manifest.config.digest,
        plain,
        names: BTreeSet::new(),
        image,
    })
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

fn index(store: &ImageStore, images: &BTreeMap<Digest, Saved>) -> Result<Value> {
    let mut manifests = Vec::new();
    for (digest, saved) in images {
        let entry = json!({
            "mediaType": saved.media_type,
            "digest": digest,
            "size": store.content.size(digest)?,
            "platform": saved.image.platform,
        });
        if saved.names.is_empty() {
            manifests.push(entry.clone());
        }
        for name in &saved.names {
            let mut entry = entry.clone();
            entry["annotations"] = json!({
                IMAGE_NAME: name.to_string(),
                "org.opencontainers.image.ref.name": name.tag(),
            });
            manifests.push(entry);
        }
    }
    Ok(json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests}))
}

/// `manifest.json` and the still older `repositories`.
fn docker_documents(images: &BTreeMap<Digest, Saved>) -> (Vec<Value>, BTreeMap<String, BTreeMap<String, String>>) {
    let mut manifest = Vec::new();
    let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for saved in images.values().filter(|saved| saved.plain) {
        let tags: Vec<String> = saved.names.iter().map(Reference::familiar).collect();
        let layers: Vec<String> = saved.image.layers.iter().map(|layer| blob_path(&layer.blob().digest)).collect();
        manifest.push(json!({
            "Config": blob_path(&saved.config),
            "RepoTags": if tags.is_empty() { Value::Null } else { json!(tags) },
            "Layers": layers,
        }));
        if let Some(top) = saved.image.layers.last() {
            for name in &saved.names {
                let tag = name.tag().unwrap_or_default().to_owned();
                let tags = repositories.entry(name.familiar_repository()).or_default();
                tags.insert(tag, top.blob().digest.hex().to_owned());
            }
        }
    }
    (manifest, repositories)
}

fn write_error(error: io::Error) -> Error {
    let class = if error.kind() == io::ErrorKind::BrokenPipe { Class::Cancelled } else { Class::Internal };
    Error::new(class, format!("the archive cannot be written: {error}"))
}

struct Archive<'a> {
    builder: tar::Builder<&'a mut dyn Write>,
}

impl Archive<'_> {
    fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        // The same images, the same bytes.
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header
    }

    fn directory(&mut self, path: &str) -> Result<()> {
        let mut header = Self::header(tar::EntryType::Directory, 0o755, 0);
        self.builder.append_data(&mut header, path, io::empty()).map_err(write_error)
    }

    fn file(&mut self, path: &str, size: u64, bytes: impl Read) -> Result<()> {
        let mut header = Self::header(tar::EntryType::Regular, 0o644, size);
        self.builder.append_data(&mut header, path, bytes.take(size)).map_err(write_error)
    }

    fn bytes(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        self.file(path, bytes.len() as u64, bytes)
    }
}
