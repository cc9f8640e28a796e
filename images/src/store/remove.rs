//! Taking names and images away, by docker's rules and in docker's words.
//!
//! The record goes first (a target is doomed in the transaction that takes its last name), the bytes after, under the
//! sweep's lock. If somebody holds a lease, the bytes wait for a later sweep.

use rusqlite::Transaction;

use super::filter::Filters;
use super::{Found, ImageStore};
use crate::digest::Digest;
use crate::error::{Class, Error, Result};
use crate::events::{self, Kind, NewEvent};
use crate::gc;
use crate::reference::Reference;

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

/// Says which containers need an image, given its id.
pub type Users<'a> = &'a dyn Fn(&Digest) -> Vec<String>;

impl ImageStore {
    /// Removes a name, and with the last one the image. `users` says who needs an image (by id): containers' names.
    ///
    /// # Errors
    /// `Conflict`, in docker's words, when a container needs it and not `force`.
    pub fn remove(&self, name: &str, force: bool, users: Users<'_>) -> Result<Vec<Removed>> {
        let found = self.find(name)?;
        let removed = self.remove_record(name, &found, force, users)?;
        self.write_index()?;
        if removed.iter().any(|r| matches!(r, Removed::Deleted(_))) {
            gc::sweep(self, users)?;
        }
        Ok(removed)
    }

    fn remove_record(&self, text: &str, found: &Found, force: bool, users: Users<'_>) -> Result<Vec<Removed>> {
        let ids: Vec<Digest> = self.ids_of(&found.target)?;
        let mut names: Vec<String> = Vec::new();
        for id in &ids {
            names.extend(self.names_of(id)?.iter().map(Reference::to_string));
        }
        names.sort();
        names.dedup();
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
        self.db.write(|tx| {
            let mut removed = Vec::new();
            for name in &doomed_names {
                if tx.execute("DELETE FROM image_names WHERE name = ?1", [name])? > 0 {
                    if let Some(image) = super::image_of_target(tx, &found.target, "")? {
                        events::emit(tx, &super::event(&image, "untag", image.id.as_str()))?;
                    }
                    removed.push(Removed::Untagged(familiar(name)));
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
            Ok(removed)
        })
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
        for summary in self.list(&filters)? {
            let target = &summary.image.target;
            let needed = self.ids_of(target)?.iter().any(|id| !users(id).is_empty());
            if needed {
                continue;
            }
            for name in summary.names.iter().map(Reference::to_string) {
                let found = Found { name: Some(name.clone()), target: target.clone(), image: None };
                pruned.removed.extend(self.remove_record(&name, &found, true, users)?);
            }
            // Another document of the same image may have names; this one has none and goes alone.
            if summary.names.is_empty() && self.doom_nameless(target)? {
                pruned.removed.push(Removed::Deleted(summary.image.id.clone()));
            }
        }
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

fn deleted(tx: &Transaction<'_>, id: &Digest) -> Result<()> {
    events::emit(tx, &NewEvent::new(Kind::Image, "delete", id.as_str()).with("name", id.as_str()))
}

fn in_use(message: String) -> Error {
    Error::new(Class::Conflict, format!("conflict: {message}"))
        .with_hint("remove the container first, or use --force to take the name away only")
}
