//! From a digest to an understood image.

use std::collections::BTreeMap;

use super::document::{ConfigFile, Document, MAX_DOCUMENT, Manifest, media_type};
use super::{Blob, Image, Layer, Platform, RunConfig, style};
use crate::content::ContentStore;
use crate::digest::Digest;
use crate::error::{Class, Error, Result};

/// Indexes within indexes end somewhere.
const MAX_DEPTH: usize = 4;

struct Located {
    digest: Digest,
    manifest: Manifest,
    annotations: BTreeMap<String, String>,
    offered: Option<Platform>,
}

fn locate(content: &ContentStore, target: &Digest, platform: Option<&Platform>) -> Result<Located> {
    let mut digest = target.clone();
    let mut announced: Option<String> = None;
    let mut annotations = BTreeMap::new();
    let mut offered = None;
    for _ in 0..MAX_DEPTH {
        let bytes = content.read(&digest, MAX_DOCUMENT)?;
        match Document::parse(&bytes, announced.as_deref())? {
            Document::Manifest(manifest) => return Ok(Located { digest, manifest, annotations, offered }),
            Document::Index(index) => {
                let entry = index.choose(platform, &|digest| content.contains(digest))?;
                digest = entry.digest.clone();
                announced = Some(entry.media_type.clone());
                annotations = entry.annotations.clone();
                offered = entry.platform.clone();
            }
        }
    }
    Err(Error::new(Class::Corrupt, format!("{target} holds indexes within indexes, deeper than {MAX_DEPTH}")))
}

/// Pairs layers with their diff_ids. Some wasm tools list one for each layer, others for the tar layers only.
fn layers(manifest: &Manifest, config: &ConfigFile) -> Result<Vec<Layer>> {
    let diff_ids = config.rootfs.as_ref().map_or(&[][..], |r| &r.diff_ids[..]);
    let tars = manifest.layers.iter().filter(|l| style::is_tar_layer(&l.media_type)).count();
    let each = diff_ids.len() == manifest.layers.len();
    if tars > 0 && !each && diff_ids.len() != tars {
        return Err(Error::new(
            Class::Corrupt,
            format!("the image has {tars} layers and its config lists {} of them", diff_ids.len()),
        ));
    }
    let mut of_tars = diff_ids.iter();
    let mut layers = Vec::with_capacity(manifest.layers.len());
    for (position, layer) in manifest.layers.iter().enumerate() {
        let mut blob = Blob {
            media_type: layer.media_type.clone(),
            digest: layer.digest.clone(),
            size: layer.size,
            diff_id: None,
        };
        layers.push(if style::is_tar_layer(&layer.media_type) {
            blob.diff_id = if each { diff_ids.get(position) } else { of_tars.next() }.cloned();
            Layer::Tar(blob)
        } else if style::is_wasm_layer(&layer.media_type) {
            Layer::Wasm(blob)
        } else {
            Layer::Other(blob)
        });
    }
    Ok(layers)
}

/// The config, which only image configs must be well formed: what other tools put there is theirs.
fn config(content: &ContentStore, manifest: &Manifest) -> Result<ConfigFile> {
    let bytes = content.read(&manifest.config.digest, MAX_DOCUMENT)?;
    match ConfigFile::parse(&bytes) {
        Err(error) if media_type::is_image_config(&manifest.config.media_type) => Err(error),
        parsed => Ok(parsed.unwrap_or_default()),
    }
}

impl Image {
    /// Reads the image that `target` (a manifest or an index) names, for `platform` (`None`: what the host likes best).
    ///
    /// # Errors
    /// `NotFound` when no manifest of an index fits or a blob is missing; `Corrupt` when a document is not what it
    /// claims; `Unsupported` when it is no image, or one of a kind that Wharf cannot run.
    pub fn read(content: &ContentStore, target: &Digest, platform: Option<&Platform>) -> Result<Self> {
        let Located { digest, manifest, annotations, offered } = locate(content, target, platform)?;
        let config = config(content, &manifest)?;
        let run = RunConfig::from(config.config.clone().unwrap_or_default());
        let found = style::detect(&manifest, &config, &run, &annotations)?;
        if found.style == super::Style::Linux
            && let Some(odd) = manifest.layers.iter().find(|l| !style::is_tar_layer(&l.media_type))
        {
            return Err(Error::new(
                Class::Unsupported,
                format!("the image has a layer of a kind that wharf does not know: {:?}", odd.media_type),
            ));
        }
        let mut own = config.platform();
        if own.os.is_empty() || own.architecture.is_empty() {
            own = match offered {
                Some(offered) => offered.normalised(),
                None if found.style == super::Style::Linux => Platform::new("linux", std::env::consts::ARCH),
                None => Platform::new("wasi", "wasm"),
            };
        }
        let is_wasm = found.style != super::Style::Linux;
        if let Some(wanted) = platform
            && !wanted.clone().normalised().accepts(&own)
            && !(wanted.is_wasm() && is_wasm && !own.is_wasm())
        {
            return Err(Error::new(
                Class::NotFound,
                format!("the image does not match the specified platform: wanted {wanted}, actual: {own}"),
            ));
        }
        // A config that does not name its layers may be shared by many artifacts; their manifests tell them apart.
        let names_layers = config.rootfs.as_ref().is_some_and(|r| !r.diff_ids.is_empty())
            || manifest.layers.is_empty()
            || manifest.config.media_type == style::WASM_CONFIG;
        Ok(Image {
            id: if names_layers { manifest.config.digest.clone() } else { digest.clone() },
            target: target.clone(),
            manifest: digest,
            platform: own,
            style: found.style,
            style_reason: found.reason,
            layers: layers(&manifest, &config)?,
            wasm: found.wasm,
            config: run,
            created: config.created.filter(|c| !c.is_empty()),
            size: manifest.layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.size)),
        })
    }
}
