//! How an image came about, as its config tells it.

use super::ImageStore;
use crate::digest::Digest;
use crate::error::Result;
use crate::image::document::{ConfigFile, Document, HistoryEntry, MAX_DOCUMENT};
use crate::image::{Image, Layer};

/// One step, as `wharf history` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryItem {
    /// The image's id for the last step; earlier steps have none here.
    pub id: Option<Digest>,
    /// When, RFC 3339.
    pub created: Option<String>,
    /// The step, as a command.
    pub created_by: String,
    /// Bytes of the layer as it is unpacked; 0 for a step that made none.
    pub size: u64,
    /// Free text.
    pub comment: String,
    /// The image's names, for the last step.
    pub tags: Vec<String>,
}

impl ImageStore {
    /// The config of an image, as far as Wharf reads it. Wasm artifacts of some styles have none worth reading.
    ///
    /// # Errors
    /// `NotFound` when its documents are not here.
    pub fn config_file(&self, image: &Image) -> Result<ConfigFile> {
        let manifest = self.content.read(&image.manifest, MAX_DOCUMENT)?;
        match Document::parse(&manifest, None)? {
            Document::Manifest(manifest) => {
                let bytes = self.content.read(&manifest.config.digest, MAX_DOCUMENT)?;
                Ok(ConfigFile::parse(&bytes).unwrap_or_default())
            }
            Document::Index(_) => Ok(ConfigFile::default()),
        }
    }

    /// An image's history, newest step first.
    ///
    /// # Errors
    /// `NotFound` when its documents are not here.
    pub fn history(&self, image: &Image) -> Result<Vec<HistoryItem>> {
        let config = self.config_file(image)?;
        let sizes = self.layer_sizes()?;
        let mut layers = image.layers.iter();
        let mut items: Vec<HistoryItem> = config
            .history
            .into_iter()
            .map(|step: HistoryEntry| HistoryItem {
                id: None,
                created: step.created,
                created_by: step.created_by.unwrap_or_default(),
                size: if step.empty_layer { 0 } else { layers.next().map_or(0, |layer| sizes.layer(layer)) },
                comment: step.comment.unwrap_or_default(),
                tags: Vec::new(),
            })
            .collect();
        // Layers that no step tells of: wasm artifacts, and configs without a history.
        items.extend(layers.map(|layer| HistoryItem {
            id: None,
            created: image.created.clone(),
            created_by: match layer {
                Layer::Tar(_) => "<missing>".to_owned(),
                Layer::Wasm(blob) | Layer::Other(blob) => blob.media_type.clone(),
            },
            size: sizes.layer(layer),
            comment: if image.is_wasm() { image.style.description().to_owned() } else { String::new() },
            tags: Vec::new(),
        }));
        items.reverse();
        if let Some(last) = items.first_mut() {
            last.id = Some(image.id.clone());
            last.tags = self.names_of(&image.id)?.iter().map(|r| r.familiar()).collect();
        }
        Ok(items)
    }
}
