//! `load`: images out of an archive, docker's or OCI's.

use std::io::Read;

use serde::Deserialize;
use serde_json::json;

use super::IMAGE_NAME;
use super::staging::{Staged, Staging};
use crate::digest::Digest;
use crate::error::{Class, Error, Result};
use crate::image::Image;
use crate::image::document::{ConfigFile, Descriptor, Document, MAX_DOCUMENT, media_type};
use crate::lease::Lease;
use crate::reference::Reference;
use crate::reporter::Reporter;
use crate::store::{Arrival, ImageStore};

const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// One thing that `load` brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its name, if the archive has one for it.
    pub reference: Option<Reference>,
    /// The image's id.
    pub id: Digest,
}

/// One item of docker's `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// Reads an archive (plain, gzip or zstd) and records its images. Either all of them are recorded or, when the archive
/// is refused, none.
///
/// # Errors
/// `Corrupt` when something is not what it claims or tries to be more than it may; `InvalidInput` when a name is none;
/// `Unsupported` for docker's format of before 2016.
pub fn load(store: &ImageStore, reader: &mut dyn Read, reporter: &dyn Reporter) -> Result<Vec<Loaded>> {
    let _lease = Lease::take(&store.root)?;
    let staging = Staging::read(&store.content, reader, reporter)?;
    let items: Vec<Item> = match staging.documents.get("manifest.json") {
        Some(bytes) => serde_json::from_slice(bytes).map_err(|e| Error::json("the archive's manifest.json", e))?,
        None => Vec::new(),
    };
    let found = if let Some(index) = staging.documents.get("index.json") {
        from_layout(store, index, &items)?
    } else if staging.documents.contains_key("manifest.json") {
        items.iter().map(|item| from_docker(store, &staging, item)).collect::<Result<_>>()?
    } else {
        let why = if staging.documents.contains_key("repositories") {
            Error::new(Class::Unsupported, "the archive was written by a docker older than 1.10")
        } else {
            Error::new(Class::InvalidInput, "the archive has neither an index.json nor a manifest.json: it is no image")
                .with_hint("a root filesystem is taken in with `import`")
        };
        return Err(why);
    };
    let mut loaded = Vec::new();
    let mut images = Vec::new();
    for (target, names) in &found {
        let image = Image::read(&store.content, target, None)?;
        store.ensure_unpacked(&image, reporter)?;
        images.push((target, names, image.id));
    }
    for (target, names, id) in images {
        if names.is_empty() {
            store.bring(None, target, Arrival::Loaded)?;
            loaded.push(Loaded { reference: None, id: id.clone() });
        }
        for name in names {
            store.bring(Some(name), target, Arrival::Loaded)?;
            loaded.push(Loaded { reference: Some(name.clone()), id: id.clone() });
        }
    }
    Ok(loaded)
}

type Found = Vec<(Digest, Vec<Reference>)>;

/// A name that an archive gives. It may not pose as an image that is built into the program.
fn archive_name(text: &str) -> Result<Reference> {
    let reference: Reference = text.parse().map_err(|_| {
        Error::new(Class::InvalidInput, format!("refusing the archive: {text:?} is not an image's name"))
    })?;
    if reference.digest().is_some() {
        return Err(Error::new(Class::InvalidInput, format!("refusing the archive: the name {text:?} has a digest")));
    }
    if reference.is_builtin() {
        return Err(Error::new(
            Class::Forbidden,
            format!("refusing the archive: names under {:?} are built into wharf", "wharf/"),
        )
        .with_hint("save the image again under another name"));
    }
    Ok(reference)
}

fn from_layout(store: &ImageStore, index: &[u8], items: &[Item]) -> Result<Found> {
    let Document::Index(index) = Document::parse(index, None)? else {
        return Err(Error::new(Class::Corrupt, "the archive's index.json is not an index"));
    };
    let mut found: Found = Vec::new();
    for entry in index.images() {
        let announced = store.content.size(&entry.digest)?;
        if announced != entry.size {
            return Err(Error::new(
                Class::Corrupt,
                format!("{} has {announced} bytes and the archive's index says {}", entry.digest, entry.size),
            ));
        }
        let mut names: Vec<Reference> = match entry_name(entry) {
            Some(name) => vec![archive_name(name)?],
            None => docker_names(store, entry, items)?,
        };
        match found.iter_mut().find(|(target, _)| *target == entry.digest) {
            Some((_, known)) => known.append(&mut names),
            None => found.push((entry.digest.clone(), names)),
        }
    }
    for (_, names) in &mut found {
        names.sort();
        names.dedup();
    }
    Ok(found)
}

/// The name in an entry's annotations. A lone tag (as docker writes beside the full name) is no name.
fn entry_name(entry: &Descriptor) -> Option<&String> {
    let full = |name: &&String| name.contains(['/', ':']);
    entry.annotations.get(IMAGE_NAME).or_else(|| entry.annotations.get(REF_NAME).filter(full))
}

/// The names that `manifest.json` gives to the image of an entry without one.
fn docker_names(store: &ImageStore, entry: &Descriptor, items: &[Item]) -> Result<Vec<Reference>> {
    if items.is_empty() {
        return Ok(Vec::new());
    }
    let id = Image::read(&store.content, &entry.digest, None)?.id;
    let is_it = |item: &&Item| item.config.contains(id.hex());
    let tags = items.iter().filter(is_it).flat_map(|item| item.repo_tags.iter().flatten());
    tags.map(|tag| archive_name(tag)).collect()
}

/// Makes a manifest of an item of `manifest.json`.
fn from_docker(store: &ImageStore, staging: &Staging, item: &Item) -> Result<(Digest, Vec<Reference>)> {
    let corrupt = |message: String| Error::new(Class::Corrupt, message);
    let names = item.repo_tags.iter().flatten().map(|tag| archive_name(tag)).collect::<Result<Vec<_>>>()?;
    let config_file = staging.file(&item.config)?;
    let stem = item.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
    if stem.len() == 64 && stem != config_file.digest.hex() {
        return Err(corrupt(format!("the config {:?} has the digest {}", item.config, config_file.digest)));
    }
    let config = ConfigFile::parse(&store.content.read(&config_file.digest, MAX_DOCUMENT)?)?;
    let diff_ids = config.rootfs.map(|rootfs| rootfs.diff_ids).unwrap_or_default();
    let layers: Vec<&Staged> = item.layers.iter().flatten().map(|name| staging.file(name)).collect::<Result<_>>()?;
    if layers.len() != diff_ids.len() {
        return Err(corrupt(format!(
            "the archive has {} layers and its config lists {}",
            layers.len(),
            diff_ids.len()
        )));
    }
    let mut descriptors = Vec::new();
    for (layer, diff_id) in layers.iter().zip(&diff_ids) {
        let media_type = match layer.start[..] {
            [0x1f, 0x8b, ..] => format!("{}+gzip", media_type::OCI_LAYER),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => format!("{}+zstd", media_type::OCI_LAYER),
            _ if layer.digest != *diff_id && diff_id.algorithm() == layer.digest.algorithm() => {
                return Err(corrupt(format!("a layer has the digest {} and the config says {diff_id}", layer.digest)));
            }
            _ => media_type::OCI_LAYER.to_owned(),
        };
        descriptors.push(json!({"mediaType": media_type, "digest": layer.digest, "size": layer.size}));
    }
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": {"mediaType": media_type::OCI_CONFIG, "digest": config_file.digest, "size": config_file.size},
        "layers": descriptors,
    });
    Ok((store.content.put(manifest.to_string().as_bytes())?, names))
}
