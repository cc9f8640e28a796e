//! How large layers are on the disk. Their descriptors tell the size of what travels, which is mostly compressed; docker
//! shows what its files take, and so the number is noted when a layer is unpacked.

use std::collections::{HashMap, HashSet};

use super::ImageStore;
use crate::digest::Digest;
use crate::error::Result;
use crate::image::{Image, Layer};

/// Bytes of the files of each layer that was ever unpacked here, by diff_id.
#[derive(Debug, Clone, Default)]
pub struct LayerSizes(HashMap<String, u64>);

impl LayerSizes {
    /// Bytes of a layer's files; of one that was not unpacked, and of what is no root filesystem, the bytes as stored.
    pub fn layer(&self, layer: &Layer) -> u64 {
        let diff_id = layer.blob().diff_id.as_ref();
        diff_id.and_then(|diff_id| self.0.get(diff_id.as_str())).copied().unwrap_or(layer.blob().size)
    }

    /// The sum of an image's layers: docker's SIZE.
    pub fn image(&self, image: &Image) -> u64 {
        image.layers.iter().fold(0, |sum, layer| sum.saturating_add(self.layer(layer)))
    }
}

impl ImageStore {
    /// The sizes of all layers: one look into the database, none into the layers.
    ///
    /// # Errors
    /// The database's.
    pub fn layer_sizes(&self) -> Result<LayerSizes> {
        let rows: rusqlite::Result<_> = self.db.read(|c| {
            c.prepare_cached("SELECT diff_id, size FROM layer_sizes")?
                .query_map([], |r| Ok((r.get::<_, String>(0)?, r.get::<_, i64>(1)?.cast_unsigned())))?
                .collect()
        });
        Ok(LayerSizes(rows?))
    }

    /// Notes the size of a layer, which its diff_id names for good.
    pub(super) fn note_size(&self, diff_id: &Digest, size: u64) -> Result<()> {
        self.db.write(|tx| {
            tx.execute("INSERT OR REPLACE INTO layer_sizes VALUES (?1, ?2)", (diff_id.as_str(), size.cast_signed()))?;
            Ok(())
        })
    }

    /// Forgets the sizes of layers that no image has any more.
    pub(crate) fn forget_sizes(&self, kept: &[Vec<Digest>]) -> Result<()> {
        let kept: HashSet<&str> = kept.iter().flatten().map(Digest::as_str).collect();
        let known = self.layer_sizes()?.0.into_keys().filter(|diff_id| !kept.contains(diff_id.as_str()));
        let gone: Vec<String> = known.collect();
        if gone.is_empty() {
            return Ok(());
        }
        self.db.write(|tx| {
            let mut delete = tx.prepare_cached("DELETE FROM layer_sizes WHERE diff_id = ?1")?;
            for diff_id in &gone {
                delete.execute([diff_id])?;
            }
            Ok(())
        })
    }
}
