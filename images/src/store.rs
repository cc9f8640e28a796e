//! The images of one root directory: which names point to which content. The database is the truth;
//! the layout's `index.json` is written from it, for other tools.
//!
//! A *target* is what a name points to: a manifest, or an index that offers several platforms. A target without a name
//! is a dangling image. A target that was removed is *doomed*: nothing finds it any more, and the next
//! [sweep](crate::gc) forgets it unless a container turns out to have taken it in the meantime.
//!
//! `resolve` is on the way of `run`, so the understood [`Image`] is kept as JSON beside its name: one query, one parse.

mod filter;
mod history;
mod layout;
mod list;
mod remove;
mod sizes;
mod unpack;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use filter::{Filters, LabelFilter};
pub use history::HistoryItem;
pub use list::{Offer, Summary};
pub use remove::{Pruned, Removed, Users};
use rusqlite::{Connection, OptionalExtension, Transaction};
pub use sizes::LayerSizes;

use crate::content::ContentStore;
use crate::db::{Db, Schema};
use crate::digest::Digest;
use crate::error::{Class, Error, Result};
use crate::events::{self, Kind, NewEvent};
use crate::image::document::{Document, MAX_DOCUMENT, media_type};
use crate::image::{Image, Platform};
use crate::reference::Reference;
use crate::snapshot::{self, Snapshots};

/// The tables of this crate.
pub const SCHEMA: Schema = Schema {
    component: "images",
    steps: &[
        "
        CREATE TABLE image_targets (
            target TEXT PRIMARY KEY,
            media_type TEXT NOT NULL,
            size INTEGER NOT NULL,
            added INTEGER NOT NULL,
            doomed INTEGER NOT NULL DEFAULT 0
        ) STRICT;
        CREATE TABLE image_names (
            name TEXT PRIMARY KEY,
            target TEXT NOT NULL REFERENCES image_targets,
            updated INTEGER NOT NULL
        ) STRICT;
        CREATE INDEX image_names_target ON image_names (target);
        -- platform '' is what this machine likes best.
        CREATE TABLE images (
            target TEXT NOT NULL REFERENCES image_targets ON DELETE CASCADE,
            platform TEXT NOT NULL,
            id TEXT NOT NULL,
            manifest TEXT NOT NULL,
            image TEXT NOT NULL,
            PRIMARY KEY (target, platform)
        ) STRICT;
        CREATE INDEX images_id ON images (id);
    ",
        events::TABLE,
        "CREATE TABLE layer_sizes (diff_id TEXT PRIMARY KEY, size INTEGER NOT NULL) STRICT;",
    ],
};

/// Names, content and unpacked layers of one root directory.
#[derive(Clone)]
pub struct ImageStore {
    /// The root directory.
    pub root: PathBuf,
    /// Names and relations.
    pub db: Arc<Db>,
    /// Bytes.
    pub content: ContentStore,
    /// Unpacked layers and containers' writable layers.
    pub snapshots: Arc<dyn Snapshots>,
}

/// One name, or one nameless image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The name, or `None` for an image that has lost its last one.
    pub reference: Option<Reference>,
    /// What it points to.
    pub target: Digest,
    /// When the name was last set, seconds since 1970.
    pub updated: i64,
}

/// How a text found an image.
struct Found {
    /// The full name, when it was found by name.
    name: Option<String>,
    target: Digest,
    /// The image, when the text told which one of the target's.
    image: Option<Image>,
}

impl ImageStore {
    /// Opens the store in `root` with an open database (see [`SCHEMA`]).
    ///
    /// # Errors
    /// Fails when directories cannot be made.
    pub fn open(root: &Path, db: Arc<Db>) -> Result<Self> {
        let content = ContentStore::open(root)?;
        let snapshots = snapshot::open(root)?;
        Ok(ImageStore { root: root.to_owned(), db, content, snapshots })
    }

    /// Finds an image by name, tag, digest, id or unambiguous short id.
    ///
    /// # Errors
    /// `NotFound` ("No such image: x"; also when it is not here for this platform), `InvalidInput` when a short id fits
    /// several.
    pub fn resolve(&self, name: &str, platform: Option<&Platform>) -> Result<Image> {
        let key = platform.map(Platform::to_string).unwrap_or_default();
        if let Ok(reference) = name.parse::<Reference>()
            && let Some(image) = self.db.read(|c| image_by_name(c, &reference.to_string(), &key))?
        {
            return Ok(image);
        }
        let found = self.find(name)?;
        if let Some(image) = found.image
            && platform.is_none_or(|wanted| wanted.accepts(&image.platform))
        {
            return Ok(image);
        }
        if let Some(image) = self.db.read(|c| image_of_target(c, &found.target, &key))? {
            return Ok(image);
        }
        let image = self.read(&found.target, platform).map_err(|error| match platform {
            Some(platform) if error.class() == Class::NotFound => Error::new(
                Class::NotFound,
                format!(
                    "image with reference {name} was found but does not provide the specified platform ({platform})"
                ),
            ),
            _ => error,
        })?;
        self.db.write(|tx| insert_image(tx, &key, &image))?;
        Ok(image)
    }

    /// Reads an image from content, with all that is known of it.
    fn read(&self, target: &Digest, platform: Option<&Platform>) -> Result<Image> {
        let mut image = Image::read(&self.content, target, platform)?;
        self.decide_style(&mut image)?;
        Ok(image)
    }

    /// Points `reference` to `target`, whose blobs are all here. A name that moves leaves its old image dangling.
    /// The caller holds a [`crate::lease::Lease`] since before it brought the blobs.
    ///
    /// # Errors
    /// `NotFound` when a blob is missing.
    pub fn set(&self, reference: &Reference, target: &Digest) -> Result<()> {
        self.bring(Some(reference), target, Arrival::Made)
    }

    /// Records `target`, with a name if there is one, and tells how it came. See [`ImageStore::set`].
    ///
    /// # Errors
    /// `NotFound` when a blob is missing.
    pub fn bring(&self, reference: Option<&Reference>, target: &Digest, how: Arrival) -> Result<()> {
        let recorded = self.prepare_record(target)?;
        self.db.write(|tx| {
            recorded.insert(tx)?;
            if let Some(reference) = reference {
                point(tx, &reference.to_string(), target)?;
            }
            for event in recorded.events(reference, how) {
                events::emit(tx, &event)?;
            }
            Ok::<_, Error>(())
        })?;
        self.write_index()
    }

    /// Tells that an image was pushed or saved, which changes nothing here.
    ///
    /// # Errors
    /// The database's.
    pub fn tell(&self, event: &NewEvent) -> Result<()> {
        self.db.write(|tx| events::emit(tx, event))
    }

    /// Gives the image `source` (as [`ImageStore::resolve`] takes it) another name.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` when the new name has a digest.
    pub fn tag(&self, source: &str, reference: &Reference) -> Result<()> {
        if reference.digest().is_some() {
            return Err(Error::new(Class::InvalidInput, "refusing to create a tag with a digest reference"));
        }
        if reference.familiar_repository() == "sha256" {
            let message = "refusing to create an ambiguous tag using digest algorithm as name";
            return Err(Error::new(Class::InvalidInput, message));
        }
        let found = self.find(source)?;
        let name = reference.to_string();
        self.db.write(|tx| {
            let alive: bool = tx.query_row(
                "SELECT EXISTS (SELECT 1 FROM image_targets WHERE target = ?1 AND doomed = 0)",
                [found.target.as_str()],
                |r| r.get(0),
            )?;
            if !alive {
                return Err(no_such_image(source));
            }
            point(tx, &name, &found.target)?;
            match image_of_target(tx, &found.target, "")? {
                Some(image) => events::emit(tx, &event(&image, "tag", &reference.familiar())),
                None => Ok(()),
            }
        })?;
        self.write_index()
    }

    /// All names and all nameless images, newest first.
    ///
    /// # Errors
    /// The database's.
    pub fn records(&self) -> Result<Vec<Record>> {
        self.db.read(|c| {
            let mut statement = c.prepare_cached(
                "SELECT n.name, t.target, coalesce(n.updated, t.added) AS at
                 FROM image_targets t LEFT JOIN image_names n ON n.target = t.target
                 WHERE t.doomed = 0 ORDER BY at DESC, n.name",
            )?;
            let rows = statement
                .query_map([], |r| Ok((r.get::<_, Option<String>>(0)?, r.get::<_, String>(1)?, r.get::<_, i64>(2)?)))?;
            rows.map(|row| {
                let (name, target, updated) = row?;
                let reference = name.map(|n| n.parse()).transpose()?;
                Ok(Record { reference, target: target.parse()?, updated })
            })
            .collect()
        })
    }

    /// When what has this id was last given a name, seconds since 1970.
    ///
    /// # Errors
    /// The database's.
    pub fn last_named(&self, id: &Digest) -> Result<Option<i64>> {
        self.db.read(|c| {
            let sql = "SELECT max(n.updated) FROM image_names n JOIN images i ON i.target = n.target WHERE i.id = ?1";
            Ok(c.prepare_cached(sql)?.query_row([id.as_str()], |r| r.get(0))?)
        })
    }

    /// The media type and the size of a target's document, if the target is still here.
    ///
    /// # Errors
    /// The database's.
    pub fn document(&self, target: &Digest) -> Result<Option<(String, i64)>> {
        self.db.read(|c| {
            let sql = "SELECT media_type, size FROM image_targets WHERE target = ?1";
            let mut statement = c.prepare_cached(sql)?;
            Ok(statement.query_row([target.as_str()], |r| Ok((r.get(0)?, r.get(1)?))).optional()?)
        })
    }

    /// The full names of what has this id, sorted.
    ///
    /// # Errors
    /// The database's.
    pub fn names_of(&self, id: &Digest) -> Result<Vec<Reference>> {
        let names = self.db.read(|c| {
            strings(
                c,
                "SELECT DISTINCT n.name FROM image_names n JOIN images i ON i.target = n.target
                 WHERE i.id = ?1 ORDER BY n.name",
                id.as_str(),
            )
        })?;
        names.iter().map(|n| n.parse()).collect()
    }

    fn find(&self, text: &str) -> Result<Found> {
        if let Ok(digest) = text.parse::<Digest>() {
            return self.find_digest(text, &digest, None);
        }
        // A whole id is no name, and all else that is none is no short id either.
        if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return self.find_prefix(text);
        }
        let reference = text.parse::<Reference>()?;
        let name = reference.to_string();
        let target = self.db.read(|c| {
            c.prepare_cached("SELECT target FROM image_names WHERE name = ?1")?
                .query_row([&name], |r| r.get::<_, String>(0))
                .optional()
        })?;
        if let Some(target) = target {
            return Ok(Found { name: Some(name), target: target.parse()?, image: None });
        }
        if let Some(digest) = reference.digest() {
            return self.find_digest(text, digest, Some(&reference));
        }
        self.find_prefix(text)
    }

    /// An image by its id, its manifest or its target; with a name, only if the repository has it.
    fn find_digest(&self, text: &str, digest: &Digest, named: Option<&Reference>) -> Result<Found> {
        let rows = self.db.read(|c| {
            matches(
                c,
                "SELECT i.target, i.image FROM images i JOIN image_targets t ON t.target = i.target
                 WHERE t.doomed = 0 AND (i.id = ?1 OR i.manifest = ?1 OR i.target = ?1)
                 ORDER BY i.target = ?1 DESC, i.platform = '' DESC, t.added DESC",
                digest.as_str(),
            )
        })?;
        for (target, image) in rows {
            if let Some(reference) = named {
                let names = self.db.read(|c| names_of_target(c, &target))?;
                let repository = reference.repository();
                let same = |name: &String| name.parse::<Reference>().is_ok_and(|r| r.repository() == repository);
                if (target != *digest && image.manifest != *digest) || !names.iter().any(same) {
                    continue;
                }
            }
            let by_target = target == *digest;
            return Ok(Found { name: None, target, image: (!by_target).then_some(image) });
        }
        Err(no_such_image(text))
    }

    fn find_prefix(&self, text: &str) -> Result<Found> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if hex.is_empty() || hex.len() > 64 || !hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(no_such_image(text));
        }
        let mut rows = self.db.read(|c| {
            matches(
                c,
                "SELECT i.target, i.image FROM images i JOIN image_targets t ON t.target = i.target
                 WHERE t.doomed = 0 AND (i.id GLOB ?1 OR i.target GLOB ?1)
                 ORDER BY i.platform = '' DESC, t.added DESC",
                &format!("sha256:{hex}*"),
            )
        })?;
        if rows.is_empty() {
            return Err(no_such_image(text));
        }
        let (target, image) = rows.swap_remove(0);
        if rows.iter().any(|(other, of)| of.id != image.id && *other != target) {
            return Err(Error::new(Class::InvalidInput, format!("multiple IDs found with provided prefix: {text}"))
                .with_hint("write more digits of the id"));
        }
        Ok(Found { name: None, target, image: Some(image) })
    }

    /// Reads what will be recorded of a target, and checks that all of it is here.
    fn prepare_record(&self, target: &Digest) -> Result<NewTarget> {
        let bytes = self.content.read(target, MAX_DOCUMENT)?;
        let best = self.read(target, None)?;
        let mut images = Vec::new();
        let media_type = match Document::parse(&bytes, None)? {
            Document::Manifest(_) => announced_type(&bytes).unwrap_or(media_type::OCI_MANIFEST.to_owned()),
            Document::Index(index) => {
                for entry in index.images().filter(|e| self.content.contains(&e.digest)) {
                    if let Some(platform) = &entry.platform {
                        images.push((platform.to_string(), self.read(target, Some(platform))?));
                    }
                }
                announced_type(&bytes).unwrap_or(media_type::OCI_INDEX.to_owned())
            }
        };
        images.push((String::new(), best));
        for (_, image) in &images {
            for layer in &image.layers {
                let blob = layer.blob();
                if self.content.size(&blob.digest)? != blob.size {
                    return Err(Error::new(
                        Class::Corrupt,
                        format!("{} is not of the {} bytes that its manifest says", blob.digest, blob.size),
                    ));
                }
            }
        }
        Ok(NewTarget { target: target.clone(), media_type, size: bytes.len() as u64, images })
    }
}

/// How an image came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// From a registry.
    Pulled,
    /// Out of an archive.
    Loaded,
    /// Out of a root filesystem or a module.
    Imported,
    /// It was made here.
    Made,
}

/// What an event says of an image: its labels, and the name it is about.
pub fn event(image: &Image, action: &str, name: &str) -> NewEvent {
    NewEvent::new(Kind::Image, action, image.id.as_str()).and(image.config.labels.clone()).with("name", name)
}

/// The same of what concerns a registry: its actor is the name.
pub fn by_name(image: &Image, action: &str, name: &Reference) -> NewEvent {
    let event = event(image, action, &name.familiar_repository());
    NewEvent { actor: name.familiar(), ..event }
}

struct NewTarget {
    target: Digest,
    media_type: String,
    size: u64,
    /// By platform.
    images: Vec<(String, Image)>,
}

impl NewTarget {
    /// Docker's events: a pull is told by the name, all else by the id.
    fn events(&self, reference: Option<&Reference>, how: Arrival) -> Vec<NewEvent> {
        let Some((_, image)) = self.images.last() else { return Vec::new() };
        let tag = || reference.map(|reference| event(image, "tag", &reference.familiar()));
        let by_id = |action| Some(event(image, action, image.id.as_str()));
        let events = match how {
            Arrival::Pulled => [None, reference.map(|name| by_name(image, "pull", name))],
            Arrival::Loaded => [None, by_id("load")],
            Arrival::Imported => [tag(), by_id("import")],
            Arrival::Made => [tag(), None],
        };
        events.into_iter().flatten().collect()
    }

    fn insert(&self, tx: &Transaction<'_>) -> Result<()> {
        tx.execute(
            "INSERT INTO image_targets (target, media_type, size, added) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (target) DO UPDATE SET doomed = 0",
            (self.target.as_str(), &self.media_type, self.size as i64, now()),
        )?;
        tx.execute("DELETE FROM images WHERE target = ?1", [self.target.as_str()])?;
        for (platform, image) in &self.images {
            insert_image(tx, platform, image)?;
        }
        Ok(())
    }
}

fn announced_type(bytes: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Announced {
        media_type: Option<String>,
    }
    serde_json::from_slice::<Announced>(bytes).ok()?.media_type.filter(|t| !t.is_empty())
}

fn insert_image(tx: &Transaction<'_>, platform: &str, image: &Image) -> Result<()> {
    let json = serde_json::to_string(image).map_err(|e| Error::json("image record", e))?;
    tx.execute(
        "INSERT OR REPLACE INTO images (target, platform, id, manifest, image) VALUES (?1, ?2, ?3, ?4, ?5)",
        (image.target.as_str(), platform, image.id.as_str(), image.manifest.as_str(), json),
    )?;
    Ok(())
}

/// Sets a name. When the same image was known under another document, that one is not left dangling.
fn point(tx: &Transaction<'_>, name: &str, target: &Digest) -> Result<()> {
    let old: Option<String> =
        tx.query_row("SELECT target FROM image_names WHERE name = ?1", [name], |r| r.get(0)).optional()?;
    tx.execute(
        "INSERT INTO image_names (name, target, updated) VALUES (?1, ?2, ?3)
         ON CONFLICT (name) DO UPDATE SET target = excluded.target, updated = excluded.updated",
        (name, target.as_str(), now()),
    )?;
    if let Some(old) = old.filter(|old| old != target.as_str()) {
        tx.execute(
            "UPDATE image_targets SET doomed = 1 WHERE target = ?1
             AND NOT EXISTS (SELECT 1 FROM image_names WHERE target = ?1)
             AND NOT EXISTS (SELECT 1 FROM images WHERE target = ?1
                             AND id NOT IN (SELECT id FROM images WHERE target = ?2))",
            (old, target.as_str()),
        )?;
    }
    Ok(())
}

fn from_json(json: &str) -> Result<Image> {
    serde_json::from_str(json).map_err(|e| Error::json("image record", e))
}

fn image_by_name(c: &Connection, name: &str, platform: &str) -> Result<Option<Image>> {
    c.prepare_cached(
        "SELECT i.image FROM image_names n JOIN images i ON i.target = n.target WHERE n.name = ?1 AND i.platform = ?2",
    )?
    .query_row([name, platform], |r| Ok(r.get_ref(0)?.as_str().map(from_json)?))
    .optional()?
    .transpose()
}

fn image_of_target(c: &Connection, target: &Digest, platform: &str) -> Result<Option<Image>> {
    c.prepare_cached("SELECT image FROM images WHERE target = ?1 AND platform = ?2")?
        .query_row([target.as_str(), platform], |r| Ok(r.get_ref(0)?.as_str().map(from_json)?))
        .optional()?
        .transpose()
}

/// The rows of a query for `(target, image)`.
fn matches(c: &Connection, sql: &str, parameter: &str) -> Result<Vec<(Digest, Image)>> {
    let mut statement = c.prepare_cached(sql)?;
    let rows = statement.query_map([parameter], |r| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?)))?;
    rows.map(|row| {
        let (target, image) = row?;
        Ok((target.parse()?, from_json(&image)?))
    })
    .collect()
}

fn strings(c: &Connection, sql: &str, parameter: &str) -> rusqlite::Result<Vec<String>> {
    c.prepare_cached(sql)?.query_map([parameter], |r| r.get(0))?.collect()
}

fn names_of_target(c: &Connection, target: &Digest) -> rusqlite::Result<Vec<String>> {
    strings(c, "SELECT name FROM image_names WHERE target = ?1 ORDER BY name", target.as_str())
}

fn no_such_image(text: &str) -> Error {
    let shown = match text.parse::<Reference>() {
        Ok(reference) if text.parse::<Digest>().is_err() => reference.familiar(),
        _ => text.to_owned(),
    };
    Error::new(Class::NotFound, format!("No such image: {shown}"))
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
