//! What `wharf images` shows.

use super::ImageStore;
use super::filter::{Filters, created};
use crate::error::Result;
use crate::image::Image;
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
}
