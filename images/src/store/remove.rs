//! Taking names and images away, by docker's rules and in docker's words.
//!
//! The record goes first (a target is doomed in the transaction that takes its last name), the bytes after, under the
//! sweep's lock. If somebody holds a lease, the bytes wait for a later sweep.

use std::collections::HashSet;

use rusqlite::Transaction;

use super::filter::Filters;
use super::{Found, ImageStore};
use crate::digest::Digest;
use crate::error::{Class, Error, Result};
use crate::events::{self, Kind, NewEvent};
use crate::gc;
use crate::image::Image;
use crate::reference::Reference;
use crate::snapshot::chain_id;

/// What removing a name did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// This name is gone ("Untagged: debian:latest").
    Untagged(String),
    /// This content is gone ("Deleted: sha256:...").
    Deleted(Digest),
}

impl std::fmt::Display for Removed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Removed::Untagged(name) => write!(f, "Untagged: {name}"),
            Removed::Deleted(digest) => write!(f, "Deleted: {digest}"),
        }
    }
}

/// What a prune did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Names and images that are gone.
    pub removed: Vec<Removed>,
    /// Bytes freed, of blobs and unpacked layers.
    pub reclaimed: u64,
}

/// The layers of some images, by their diff ids.
type Trees = Vec<Vec<Digest>>;

/// Says which containers need an image, given its id.
pub type Users<'a> = &'a dyn Fn(&Digest) -> Vec<String>;

impl ImageStore {
    /// Removes a name, and with the last one the image. `users` says who needs an image (by id): containers' names.
    ///
    /// # Errors
    /// `Conflict`, in docker's words, when a container needs it and not `force`.
    pub fn remove(&self, name: &str, force: bool, users: Users<'_>) -> Result<Vec<Removed>> {
        let found = self.find(name)?;
        let (mut removed, trees) = self.remove_record(name, &found, force, users)?;
        removed.extend(self.lost_layers(&[trees])?.concat());
        self.write_index()?;
        if removed.iter().any(|r| matches!(r, Removed::Deleted(_))) {
            gc::sweep(self, users)?;
        }
        Ok(removed)
    }

    /// Also gives the layers of what is gone.
    fn remove_record(&self, text: &str, found: &Found, force: bool, users: Users<'_>) -> Result<(Vec<Removed>, Trees)> {
        let ids: Vec<Digest> = self.ids_of(&found.target)?;
        let layers = self.trees_of(&found.target)?;
        let mut names: Vec<String> = Vec::new();
        for id in &ids {
            names.extend(self.names_of(id)?.iter().map(Reference::to_string));
        }
        names.sort();
        names.dedup();
        let all_names: Vec<Reference> = names.iter().filter_map(|name| name.parse().ok()).collect();
        let holders: Vec<String> = ids.iter().flat_map(users).collect();
        let (shown_id, holder) = (ids.first().map_or("", |id| id.short()), holders.first());
        let familiar = |name: &str| name.parse::<Reference>().map_or_else(|_| name.to_owned(), |r| r.familiar());
        let doomed_names = match &found.name {
            Some(name) if names.len() > 1 => vec![name.clone()],
            Some(name) => {
                if let (Some(holder), false) = (holder, force) {
                    return Err(in_use(format!(
                        "unable to remove repository reference {text:?} (must force) - container {holder} is using its \
                         referenced image {shown_id}"
                    )));
                }
                vec![name.clone()]
            }
            None => {
                if names.len() > 1 && !force {
                    return Err(Error::new(
                        Class::Conflict,
                        format!(
                            "conflict: unable to delete {text} (must be forced) - image is referenced in multiple \
                             repositories"
                        ),
                    )
                    .with_hint(format!(
                        "its names are {}",
                        names.iter().map(|n| familiar(n)).collect::<Vec<_>>().join(", ")
                    )));
                }
                if let (Some(holder), false) = (holder, force) {
                    return Err(in_use(format!(
                        "unable to delete {text} (must be forced) - image is being used by container {holder}"
                    )));
                }
                names
            }
        };
        let removed: Vec<Removed> = self.db.write(|tx| {
            let (mut removed, mut left) = (Vec::new(), all_names);
            for name in &doomed_names {
                if tx.execute("DELETE FROM image_names WHERE name = ?1", [name])? > 0 {
                    if let Some(image) = super::image_of_target(tx, &found.target, "")? {
                        events::emit(tx, &super::event(&image, "untag", image.id.as_str()))?;
                    }
                    removed.push(Removed::Untagged(familiar(name)));
                    removed.extend(last_of_repository(name, &mut left, &found.target));
                }
            }
            // What a container still needs stays, nameless. Everything else of this id that has no name goes.
            if holders.is_empty() {
                for id in &ids {
                    let gone = tx.execute(
                        "UPDATE image_targets SET doomed = 1 WHERE doomed = 0
                         AND target IN (SELECT target FROM images WHERE id = ?1)
                         AND NOT EXISTS (SELECT 1 FROM images i JOIN image_names n ON n.target = i.target
                                         WHERE i.id = ?1 OR n.target = image_targets.target)",
                        [id.as_str()],
                    )?;
                    if gone > 0 {
                        deleted(tx, id)?;
                        removed.push(Removed::Deleted(id.clone()));
                    }
                }
            }
            Ok::<_, Error>(removed)
        })?;
        let gone = removed.iter().any(|removed| matches!(removed, Removed::Deleted(_)));
        Ok((removed, if gone { layers } else { Trees::new() }))
    }

    /// For each of some removals: those of its layers that no image has any more, topmost first, by the ids of the trees
    /// that they complete. Docker tells of each when the last image goes that had it.
    fn lost_layers(&self, removals: &[Trees]) -> Result<Vec<Vec<Removed>>> {
        if removals.iter().all(Vec::is_empty) {
            return Ok(vec![Vec::new(); removals.len()]);
        }
        let kept: Vec<Image> = self.db.read(|c| {
            let sql = "SELECT i.image FROM images i JOIN image_targets t ON t.target = i.target WHERE t.doomed = 0";
            let mut statement = c.prepare_cached(sql)?;
            let rows = statement.query_map([], |r| r.get::<_, String>(0))?;
            rows.map(|row| super::from_json(&row?)).collect()
        })?;
        let kept: Trees = kept.iter().map(Image::diff_ids).collect();
        let mut known: HashSet<&[Digest]> = kept.iter().flat_map(|image| trees(image)).collect();
        let mut lost: Vec<Vec<Removed>> = Vec::with_capacity(removals.len());
        for images in removals.iter().rev() {
            let own = images.iter().flat_map(|image| trees(image)).filter(|tree| known.insert(tree));
            lost.push(own.filter_map(chain_id).map(Removed::Deleted).collect());
        }
        lost.reverse();
        Ok(lost)
    }

    /// The layers of the images that a target has.
    fn trees_of(&self, target: &Digest) -> Result<Trees> {
        let images = self.db.read(|c| {
            super::strings(c, "SELECT image FROM images WHERE target = ?1 ORDER BY platform", target.as_str())
        })?;
        images.iter().map(|image| Ok(super::from_json(image)?.diff_ids())).collect()
    }

    pub(crate) fn ids_of(&self, target: &Digest) -> Result<Vec<Digest>> {
        let ids = self.db.read(|c| {
            super::strings(
                c,
                "SELECT id FROM images WHERE target = ?1 GROUP BY id ORDER BY min(platform)",
                target.as_str(),
            )
        })?;
        ids.iter().map(|id| id.parse()).collect()
    }

    /// Removes dangling images, or with `all` every image that no container needs.
    ///
    /// # Errors
    /// The database's and the disk's.
    pub fn prune(&self, all: bool, filters: &Filters, users: Users<'_>) -> Result<Pruned> {
        // `dangling=false` is docker's older way to say `all`.
        let all = all || filters.dangling == Some(false);
        let filters = Filters { dangling: (!all).then_some(true), ..filters.clone() };
        let mut pruned = Pruned::default();
        let (mut removals, mut gone): (Vec<Vec<Removed>>, Vec<Trees>) = (Vec::new(), Vec::new());
        for summary in self.list(&filters)? {
            let target = &summary.image.target;
            let needed = self.ids_of(target)?.iter().any(|id| !users(id).is_empty());
            if needed {
                continue;
            }
            for name in summary.names.iter().map(Reference::to_string) {
                let found = Found { name: Some(name.clone()), target: target.clone(), image: None };
                let (removed, trees) = self.remove_record(&name, &found, true, users)?;
                removals.push(removed);
                gone.push(trees);
            }
            // Another document of the same image may have names; this one has none and goes alone.
            if summary.names.is_empty() && self.doom_nameless(target)? {
                removals.push(vec![Removed::Deleted(summary.image.id.clone())]);
                gone.push(vec![summary.image.diff_ids()]);
            }
        }
        // What is left is read once, when all that goes is gone.
        let lost = self.lost_layers(&gone)?;
        pruned.removed = removals.into_iter().zip(lost).flat_map(|(removed, lost)| [removed, lost].concat()).collect();
        self.write_index()?;
        pruned.reclaimed = gc::sweep(self, users)?.unwrap_or(0);
        Ok(pruned)
    }

    fn doom_nameless(&self, target: &Digest) -> Result<bool> {
        self.db.write(|tx| {
            let gone = tx.execute(
                "UPDATE image_targets SET doomed = 1 WHERE target = ?1 AND doomed = 0
                 AND NOT EXISTS (SELECT 1 FROM image_names WHERE target = ?1)",
                [target.as_str()],
            )?;
            if let (1.., Some(image)) = (gone, super::image_of_target(tx, target, "")?) {
                deleted(tx, &image.id)?;
            }
            Ok(gone > 0)
        })
    }
}

/// The trees that an image's layers complete, topmost first.
fn trees(image: &[Digest]) -> impl Iterator<Item = &[Digest]> {
    (1..=image.len()).rev().map(|height| &image[..height])
}

/// With the last tag of a repository docker takes away what it knows the image by there: its digest. `left` are the
/// names that the image still had.
fn last_of_repository(name: &str, left: &mut Vec<Reference>, target: &Digest) -> Option<Removed> {
    let name: Reference = name.parse().ok()?;
    left.retain(|other| *other != name);
    let of_it = |other: &Reference| other.repository() == name.repository();
    let last = name.tag().is_some() && !left.iter().any(of_it);
    last.then(|| Removed::Untagged(format!("{}@{target}", name.familiar_repository())))
}

fn deleted(tx: &Transaction<'_>, id: &Digest) -> Result<()> {
    events::emit(tx, &NewEvent::new(Kind::Image, "delete", id.as_str()).with("name", id.as_str()))
}

fn in_use(message: String) -> Error {
    Error::new(Class::Conflict, format!("conflict: {message}"))
        .with_hint("remove the container first, or use --force to take the name away only")
}
