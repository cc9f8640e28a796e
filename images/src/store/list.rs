//! What `wharf images` shows.

use super::ImageStore;
use super::filter::{Filters, created};
use crate::digest::Digest;
use crate::error::Result;
use crate::image::document::{Document, MAX_DOCUMENT};
use crate::image::{Image, Layer, Platform};
use crate::reference::Reference;

/// One image with its names.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The image, for the platform that this machine likes best.
    pub image: Image,
    /// Its names that the filters let through; none for a dangling image.
    pub names: Vec<Reference>,
    /// When it was created, seconds since 1970, if it says.
    pub created: Option<i64>,
    /// Bytes of its layers as they are unpacked.
    pub size: u64,
}

impl ImageStore {
    /// The images that `filters` let through, newest first.
    ///
    /// # Errors
    /// `NotFound` when a filter names an image that is not here.
    pub fn list(&self, filters: &Filters) -> Result<Vec<Summary>> {
        let moment = |name: &Option<String>| -> Result<Option<jiff::Timestamp>> {
            match name {
                Some(name) => Ok(created(&self.resolve(name, None)?)),
                None => Ok(None),
            }
        };
        let (before, since) = (moment(&filters.before)?, moment(&filters.since)?);
        let sizes = self.layer_sizes()?;
        let mut summaries: Vec<Summary> = Vec::new();
        let rows = self.db.read(|c| {
            super::matches(
                c,
                "SELECT t.target, i.image FROM image_targets t JOIN images i ON i.target = t.target
                 WHERE t.doomed = 0 AND i.platform = ?1",
                "",
            )
        })?;
        for (target, image) in rows {
            let all = self.db.read(|c| super::names_of_target(c, &target))?;
            let all: Vec<Reference> = all.iter().map(|n| n.parse()).collect::<Result<_>>()?;
            let at = created(&image);
            let by_age = before.is_none_or(|limit| at.is_some_and(|at| at < limit))
                && since.is_none_or(|limit| at.is_some_and(|at| at > limit));
            if filters.dangling.is_some_and(|wanted| wanted != all.is_empty()) || !by_age || !filters.fits(&image) {
                continue;
            }
            let had_names = !all.is_empty();
            let names: Vec<Reference> = all.into_iter().filter(|name| filters.names(name)).collect();
            if names.is_empty() && (had_names || !filters.references.is_empty()) {
                continue;
            }
            let size = sizes.image(&image);
            summaries.push(Summary { image, names, created: at.map(|at| at.as_second()), size });
        }
        summaries.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.names.cmp(&b.names)));
        Ok(summaries)
    }

    /// What a target has for each platform: one image, or those of an index. Some of an index may not be here.
    ///
    /// # Errors
    /// The disk's and the database's.
    pub fn offers(&self, target: &Digest) -> Result<Vec<Offer>> {
        let sizes = self.layer_sizes()?;
        let here = |image: Image| -> Result<Offer> {
            // The artifact of a module may have no config of its own.
            let config = if image.id == image.manifest { 0 } else { self.content.size(&image.id).unwrap_or(0) };
            let (mut content, mut unpacked) = (self.content.size(&image.manifest)?.saturating_add(config), 0_u64);
            for layer in &image.layers {
                content = content.saturating_add(layer.blob().size);
                if matches!(layer, Layer::Tar(_)) {
                    unpacked = unpacked.saturating_add(sizes.layer(layer));
                }
            }
            let (manifest, platform) = (image.manifest.clone(), image.platform.clone());
            Ok(Offer { manifest, platform, image: Some(image), content, unpacked })
        };
        match Document::parse(&self.content.read(target, MAX_DOCUMENT)?, None)? {
            Document::Manifest(_) => Ok(vec![here(self.read(target, None)?)?]),
            Document::Index(index) => index
                .images()
                .map(|entry| {
                    let platform = entry.platform.clone().unwrap_or_else(|| Platform::new("unknown", "unknown"));
                    match self.content.contains(&entry.digest) {
                        true => here(self.read(target, Some(&platform))?),
                        false => {
                            Ok(Offer { manifest: entry.digest.clone(), platform, image: None, content: 0, unpacked: 0 })
                        }
                    }
                })
                .collect(),
        }
    }
}

/// What a target has for a platform.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The manifest.
    pub manifest: Digest,
    /// For what it is.
    pub platform: Platform,
    /// The image, if it is here.
    pub image: Option<Image>,
    /// Bytes of it as they travel.
    pub content: u64,
    /// Bytes of its layers as they are unpacked.
    pub unpacked: u64,
}
