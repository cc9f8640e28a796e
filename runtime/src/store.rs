//! The containers' records. One row each; a unique name settles races between processes.
//!
//! What images gave is kept once per manifest, because many containers share it. The tables have as few trees as can be:
//! each one is a page that every start and every end of a container writes anew.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use wharf_images::db::{Db, Schema};
use wharf_images::events::{self, Kind, NewEvent};
use wharf_images::{Class, Digest, Image};

use crate::config::{ContainerConfig, EndpointConfig, NetworkMode};
use crate::container::{Container, Status};
use crate::error::{Error, Result};
use crate::health::Health;
use crate::names;
use crate::network::store::tell_places;
use crate::state::{Event, State};

pub mod volumes;

/// The tables of this crate.
pub const SCHEMA: Schema = Schema {
    component: "containers",
    steps: &[
        "
        CREATE TABLE container_images (
            manifest TEXT PRIMARY KEY,
            image TEXT NOT NULL
        ) STRICT;
        CREATE TABLE containers (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            manifest TEXT NOT NULL REFERENCES container_images,
            image_id TEXT NOT NULL,
            config TEXT NOT NULL,
            args TEXT NOT NULL,
            created INTEGER NOT NULL,
            state TEXT NOT NULL,
            pid INTEGER,
            exit_code INTEGER NOT NULL DEFAULT 0,
            started INTEGER,
            finished INTEGER,
            error TEXT,
            oom_killed INTEGER NOT NULL DEFAULT 0
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE module_files (
            manifest TEXT NOT NULL,
            path TEXT NOT NULL,
            digest TEXT NOT NULL,
            PRIMARY KEY (manifest, path)
        ) STRICT;
    ",
        "
        ALTER TABLE containers ADD COLUMN restarts INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE containers ADD COLUMN stopped INTEGER NOT NULL DEFAULT 0;
    ",
        "ALTER TABLE containers ADD COLUMN health TEXT;",
        "ALTER TABLE containers ADD COLUMN walls TEXT;",
    ],
};

/// The records of one instance.
#[derive(Debug, Clone)]
pub struct Store {
    db: Arc<Db>,
}

const COLUMNS: &str = "c.id, c.name, c.manifest, c.config, c.args, c.created, c.state, c.pid, c.exit_code, c.started, \
                       c.finished, c.error, c.oom_killed, c.restarts, c.stopped, c.health, c.walls, \
                       i.image FROM containers c JOIN container_images i USING (manifest)";

impl Store {
    /// The records in `db`.
    pub fn new(db: Arc<Db>) -> Self {
        Store { db }
    }

    /// The database they are in.
    pub(crate) fn db(&self) -> &Db {
        &self.db
    }

    /// Records a new container. Without a given name it gets one that is free.
    ///
    /// # Errors
    /// `Conflict`, in docker's words, when the given name is taken.
    pub fn insert(&self, container: &mut Container, attached: bool) -> Result<()> {
        let given = container.config.name.clone();
        if let Some(name) = &given {
            names::check(name)?;
        }
        let config = compact(&container.config)?;
        let args = to_json(&container.args)?;
        let image = to_json(&container.image)?;
        self.db.write(|tx| {
            tx.prepare_cached("INSERT OR IGNORE INTO container_images VALUES (?1, ?2)")?
                .execute((container.image.manifest.as_str(), image))?;
            for attempt in 0.. {
                container.name = match &given {
                    Some(name) => name.clone(),
                    None => names::new_name(attempt)?,
                };
                let inserted = tx
                    .prepare_cached(
                        "INSERT INTO containers (id, name, manifest, image_id, config, args, created, state) \
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (name) DO NOTHING",
                    )?
                    .execute(params![
                        container.id,
                        container.name,
                        container.image.manifest.as_str(),
                        container.image.id.as_str(),
                        config,
                        args,
                        nanoseconds(container.created),
                        container.state.state.name(),
                    ])?;
                if inserted == 1 {
                    events::emit(tx, &container.event("create"))?;
                    if attached {
                        events::emit(tx, &container.event("attach"))?;
                    }
                    return volumes::refer(tx, container);
                }
                if given.is_some() {
                    let holder: String =
                        tx.query_row("SELECT id FROM containers WHERE name = ?1", [&container.name], |r| r.get(0))?;
                    return Err(name_taken(&container.name, &holder));
                }
            }
            Ok(())
        })
    }

    /// The container that `name` means: a name, an id, or the beginning of exactly one id.
    ///
    /// # Errors
    /// `NotFound` ("No such container: x"); `InvalidInput` when several ids begin so.
    pub fn find(&self, name: &str) -> Result<Container> {
        let name = name.strip_prefix('/').unwrap_or(name);
        self.db.read(|c| {
            if let Some(found) = one(c, "c.name = ?1", name)? {
                return Ok(found);
            }
            let hex = !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
            if !hex {
                return Err(no_such(name));
            }
            let mut ids = c.prepare_cached("SELECT id FROM containers WHERE id >= ?1 AND id < ?1 || 'g' LIMIT 2")?;
            let ids: Vec<String> = ids.query_map([name], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?;
            match &ids[..] {
                [] => Err(no_such(name)),
                [id] => one(c, "c.id = ?1", id)?.ok_or_else(|| no_such(name)),
                _ => Err(Error::new(Class::InvalidInput, format!("Multiple IDs found with provided prefix: {name}"))),
            }
        })
    }

    /// Looks whether a container can have this name.
    ///
    /// # Errors
    /// `Conflict`, in docker's words, when it is taken.
    pub fn check_free(&self, name: &str) -> Result<()> {
        self.db.read(|c| check_free(c, name))
    }

    /// The container with exactly this id, if there is one.
    ///
    /// # Errors
    /// The database's.
    pub fn get(&self, id: &str) -> Result<Option<Container>> {
        self.db.read(|c| one(c, "c.id = ?1", id))
    }

    /// The containers, newest first.
    ///
    /// # Errors
    /// The database's.
    pub fn list(&self, live_only: bool) -> Result<Vec<Container>> {
        let condition = if live_only { "c.state NOT IN ('created', 'exited', 'dead', 'removing')" } else { "1" };
        self.db.read(|c| {
            let sql = format!("SELECT {COLUMNS} WHERE {condition} ORDER BY c.created DESC");
            let mut statement = c.prepare_cached(&sql)?;
            let mut rows = statement.query([])?;
            let mut images: HashMap<String, Image> = HashMap::new();
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let manifest = row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?;
                let image = match images.get(manifest) {
                    Some(image) => image.clone(),
                    None => {
                        let image: Image = from_json(row, 17)?;
                        images.insert(manifest.to_owned(), image.clone());
                        image
                    }
                };
                found.push(container(row, image)?);
            }
            Ok(found)
        })
    }

    /// The short ids of the containers made from the image with this id.
    ///
    /// # Errors
    /// The database's.
    pub fn users_of_image(&self, image: &Digest) -> Result<Vec<String>> {
        self.db.read(|c| {
            let mut statement =
                c.prepare_cached("SELECT substr(id, 1, 12) FROM containers WHERE image_id = ?1 ORDER BY created")?;
            let names = statement.query_map([image.as_str()], |r| r.get(0))?;
            Ok(names.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Takes the container through `event`, with `change` for the rest of its status, and tells of it; `before` and
    /// `after` are told with it. Returns the new status.
    ///
    /// # Errors
    /// `Conflict` when the event cannot happen in its state; `NotFound` when it is gone.
    pub fn advance(
        &self,
        container: &Container,
        event: Event,
        (before, after): (&[NewEvent], &[NewEvent]),
        change: impl FnOnce(&mut Status),
    ) -> Result<Status> {
        let id = container.id.as_str();
        self.db.write(|tx| {
            let mut select = tx.prepare_cached(
                "SELECT id, name, manifest, config, args, created, state, pid, exit_code, started, finished, error, oom_killed, \
                 restarts, stopped, health, walls \
                 FROM containers WHERE id = ?1",
            )?;
            let mut status = select
                .query_row([id], |row| Ok(status(row)))
                .optional()?
                .ok_or_else(|| no_such(id))??;
            status.state = status.state.after(event)?;
            change(&mut status);
            tx.prepare_cached(
                "UPDATE containers SET state = ?2, pid = ?3, exit_code = ?4, started = ?5, finished = ?6, error = ?7, \
                 oom_killed = ?8, restarts = ?9, stopped = ?10, walls = ?11 WHERE id = ?1",
            )?
            .execute(params![
                id,
                status.state.name(),
                status.pid,
                status.exit_code,
                status.started.map(nanoseconds),
                status.finished.map(nanoseconds),
                status.error,
                status.oom_killed,
                status.restarts,
                status.stopped,
                status.walls.as_ref().map(to_json).transpose()?,
            ])?;
            let own = event.told().map(|action| match action {
                "die" => died(container, &status),
                action => container.event(action),
            });
            let volumes = match event {
                Event::Started => container.mount_events(),
                Event::Exit | Event::Restart => container.unmount_events(),
                Event::Start | Event::Failed | Event::Pause | Event::Unpause => Vec::new(),
                Event::Cancel | Event::Remove | Event::RemoveFailed => Vec::new(),
            };
            tell(tx, id, before)?;
            match event {
                // Its places are let go a little later, when what is there of them has been taken away, and silently.
                // Between two runs it keeps them, and is not on its networks.
                Event::Exit | Event::Restart | Event::Failed => tell_places(tx, id, None, "disconnect")?,
                Event::Start => tell_places(tx, id, None, "connect")?,
                Event::Started | Event::Pause | Event::Unpause => {}
                Event::Cancel | Event::Remove | Event::RemoveFailed => {}
            }
            tell(tx, id, volumes.iter().chain(&own).chain(after))?;
            Ok(status)
        })
    }

    /// Notes that somebody has asked for its end, and tells `events`.
    ///
    /// # Errors
    /// The database's.
    pub fn stop_asked(&self, id: &str, events: &[NewEvent]) -> Result<()> {
        self.db.write(|tx| {
            tx.execute("UPDATE containers SET stopped = 1 WHERE id = ?1", [id])?;
            tell(tx, id, events)
        })
    }

    /// Writes down what its health checks say, and tells `events`.
    ///
    /// # Errors
    /// The database's.
    pub fn set_health(&self, id: &str, health: &Health, events: &[NewEvent]) -> Result<()> {
        let health = to_json(health)?;
        self.db.write(|tx| {
            tx.execute("UPDATE containers SET health = ?2 WHERE id = ?1", [id, &health])?;
            tell(tx, id, events)
        })
    }

    /// Changes what was asked for, and tells so: `update`. Returns what is asked for now.
    ///
    /// # Errors
    /// `NotFound` when it is gone; what `change` says.
    pub fn update(
        &self,
        container: &Container,
        change: impl FnOnce(&mut ContainerConfig) -> Result<()>,
    ) -> Result<ContainerConfig> {
        let id = container.id.as_str();
        self.db.write(|tx| {
            let config = change_config(tx, id, change)?;
            tell(tx, id, &[container.event("update")])?;
            Ok(config)
        })
    }

    /// True when a container that runs shares a namespace of the one with this id.
    ///
    /// # Errors
    /// The database's.
    pub fn is_joined(&self, id: &str) -> Result<bool> {
        self.db.read(|c| {
            let mut select = c.prepare_cached(
                "SELECT 1 FROM containers WHERE state NOT IN ('created', 'exited', 'dead', 'removing') \
                 AND instr(config, '{\"Container\":\"' || ?1 || '\"}') LIMIT 1",
            )?;
            Ok(select.query_row([id], |_| Ok(())).optional()?.is_some())
        })
    }

    /// Changes its places on networks as they are asked for. Returns what is asked for now.
    ///
    /// # Errors
    /// `NotFound` when it is gone; what `change` says.
    pub fn set_endpoints(
        &self,
        container: &Container,
        change: impl FnOnce(&mut Vec<EndpointConfig>) -> Result<()>,
    ) -> Result<ContainerConfig> {
        let change = |config: &mut ContainerConfig| {
            let mut places = config.places().into_owned();
            change(&mut places)?;
            config.endpoints = Some(places);
            // Of a container without a network that says how it was made, and no more than that.
            if config.network == NetworkMode::None {
                config.network = NetworkMode::Named("none".to_owned());
            }
            Ok(())
        };
        self.db.write(|tx| change_config(tx, &container.id, change))
    }

    /// Tells events of the container that change nothing in its record.
    ///
    /// # Errors
    /// The database's.
    pub fn tell(&self, id: &str, events: &[NewEvent]) -> Result<()> {
        self.db.write(|tx| tell(tx, id, events))
    }

    /// Gives it another name.
    ///
    /// # Errors
    /// `Conflict` when it is taken.
    pub fn rename(&self, container: &Container, new: &str) -> Result<()> {
        let id = container.id.as_str();
        names::check(new)?;
        self.db.write(|tx| {
            check_free(tx, new)?;
            let old: String = tx.query_row("SELECT name FROM containers WHERE id = ?1", [id], |r| r.get(0))?;
            tx.execute("UPDATE containers SET name = ?2 WHERE id = ?1", [id, new])?;
            tell(tx, id, &[container.event("rename").with("oldName", format!("/{old}"))])
        })
    }

    /// Forgets it, telling `before` and that it is gone. True if it was there.
    ///
    /// # Errors
    /// The database's.
    pub fn remove(&self, container: &Container, before: &[NewEvent]) -> Result<bool> {
        let id = container.id.as_str();
        self.db.write(|tx| {
            tell_places(tx, id, None, "disconnect")?;
            tell(tx, id, before)?;
            tell(tx, id, &[container.event("destroy")])?;
            let gone = tx.prepare_cached("DELETE FROM containers WHERE id = ?1")?.execute([id])?;
            Ok(gone == 1)
        })
    }

    /// The digest of a wasm file in an image's layers, if somebody has asked before.
    ///
    /// # Errors
    /// The database's.
    pub fn module_file(&self, manifest: &Digest, path: &str) -> Result<Option<Digest>> {
        let text: Option<String> = self.db.read(|c| -> Result<_> {
            let mut select = c.prepare_cached("SELECT digest FROM module_files WHERE manifest = ?1 AND path = ?2")?;
            Ok(select.query_row([manifest.as_str(), path], |r| r.get(0)).optional()?)
        })?;
        Ok(text.map(|t| t.parse()).transpose()?)
    }

    /// Remembers the digest of a wasm file in an image's layers, which never change.
    ///
    /// # Errors
    /// The database's.
    pub fn set_module_file(&self, manifest: &Digest, path: &str, digest: &Digest) -> Result<()> {
        self.db.write(|tx| {
            tx.execute(
                "INSERT OR REPLACE INTO module_files VALUES (?1, ?2, ?3)",
                [manifest.as_str(), path, digest.as_str()],
            )?;
            Ok(())
        })
    }

    /// The wasm files whose digests are remembered: their image's manifest, and the digest. Those of manifests that are
    /// not `kept` are forgotten.
    ///
    /// # Errors
    /// The database's.
    pub fn module_files(&self, kept: impl Fn(&Digest) -> bool) -> Result<Vec<Digest>> {
        let all: Vec<(String, String)> = self.db.read(|c| -> Result<_> {
            let mut select = c.prepare("SELECT manifest, digest FROM module_files")?;
            let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })?;
        let mut digests = Vec::new();
        for (manifest, digest) in all {
            if kept(&manifest.parse()?) {
                digests.push(digest.parse()?);
            } else {
                self.db.write(|tx| -> Result<()> {
                    tx.execute("DELETE FROM module_files WHERE manifest = ?1", [&manifest])?;
                    Ok(())
                })?;
            }
        }
        Ok(digests)
    }

    /// All ids.
    ///
    /// # Errors
    /// The database's.
    pub fn ids(&self) -> Result<Vec<String>> {
        self.db.read(|c| {
            let mut statement = c.prepare("SELECT id FROM containers")?;
            let ids = statement.query_map([], |r| r.get(0))?;
            Ok(ids.collect::<rusqlite::Result<_>>()?)
        })
    }
}

fn change_config(
    tx: &Transaction<'_>,
    id: &str,
    change: impl FnOnce(&mut ContainerConfig) -> Result<()>,
) -> Result<ContainerConfig> {
    let mut select = tx.prepare("SELECT config FROM containers WHERE id = ?1")?;
    let mut config: ContainerConfig =
        select.query_row([id], |row| Ok(from_json(row, 0))).optional()?.ok_or_else(|| no_such(id))??;
    change(&mut config)?;
    tx.execute("UPDATE containers SET config = ?2 WHERE id = ?1", (id, compact(&config)?))?;
    Ok(config)
}

/// Tells events of a container, under the name that it has now; of one that is gone there is nothing to tell.
fn tell<'a>(tx: &Transaction<'_>, id: &str, events: impl IntoIterator<Item = &'a NewEvent>) -> Result<()> {
    let mut name = tx.prepare_cached("SELECT name FROM containers WHERE id = ?1")?;
    let Some(name) = name.query_row([id], |r| r.get::<_, String>(0)).optional()? else { return Ok(()) };
    for event in events {
        if event.kind != Kind::Container || event.attributes.get("name") == Some(&name) {
            events::emit(tx, event)?;
        } else {
            events::emit(tx, &event.clone().with("name", &name))?;
        }
    }
    Ok(())
}

/// The event of its end.
pub(crate) fn died(container: &Container, status: &Status) -> NewEvent {
    let lived = status.started.zip(status.finished).map_or(0, |(from, to)| to.duration_since(from).as_secs());
    container.event("die").with("execDuration", lived.max(0).to_string()).with("exitCode", status.exit_code.to_string())
}

fn one(c: &Connection, condition: &str, value: &str) -> Result<Option<Container>> {
    let mut statement = c.prepare_cached(&format!("SELECT {COLUMNS} WHERE {condition}"))?;
    let mut rows = statement.query([value])?;
    match rows.next()? {
        Some(row) => Ok(Some(container(row, from_json(row, 17)?)?)),
        None => Ok(None),
    }
}

fn container(row: &Row<'_>, image: Image) -> Result<Container> {
    Ok(Container {
        id: row.get(0)?,
        name: row.get(1)?,
        image,
        config: from_json(row, 3)?,
        args: from_json(row, 4)?,
        created: timestamp(row.get(5)?)?,
        state: status(row)?,
    })
}

fn status(row: &Row<'_>) -> Result<Status> {
    let time = |i| -> Result<Option<Timestamp>> { row.get::<_, Option<i64>>(i)?.map(timestamp).transpose() };
    Ok(Status {
        state: row.get_ref(6)?.as_str().map_err(rusqlite::Error::from)?.parse::<State>()?,
        pid: row.get(7)?,
        exit_code: row.get(8)?,
        started: time(9)?,
        finished: time(10)?,
        error: row.get(11)?,
        oom_killed: row.get(12)?,
        restarts: row.get(13)?,
        stopped: row.get(14)?,
        health: optional(row, 15)?,
        walls: optional(row, 16)?,
    })
}

/// What a column has as JSON, if it has anything.
fn optional<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<Option<T>> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(None),
        _ => from_json(row, column).map(Some),
    }
}

pub(crate) fn from_json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<T> {
    let text = row.get_ref(column)?.as_str().map_err(rusqlite::Error::from)?;
    serde_json::from_str(text).map_err(|e| wharf_images::Error::json("a container's record", e).into())
}

pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| wharf_images::Error::json("a container's record", e).into())
}

/// The config as JSON without what is at its default: short, and quick to read back by the hundred.
fn compact(config: &ContainerConfig) -> Result<String> {
    let mut value = serde_json::to_value(config).map_err(|e| wharf_images::Error::json("a container's config", e))?;
    let default = serde_json::to_value(ContainerConfig::default())
        .map_err(|e| wharf_images::Error::json("a container's config", e))?;
    if let (Some(fields), Some(default)) = (value.as_object_mut(), default.as_object()) {
        fields.retain(|name, value| default.get(name) != Some(value));
    }
    Ok(value.to_string())
}

pub(crate) fn nanoseconds(time: Timestamp) -> i64 {
    // i64 nanoseconds reach to the year 2262.
    time.as_nanosecond() as i64
}

pub(crate) fn timestamp(nanoseconds: i64) -> Result<Timestamp> {
    Timestamp::from_nanosecond(i128::from(nanoseconds))
        .map_err(|e| Error::new(Class::Corrupt, format!("a container's record: {e}")))
}

fn check_free(c: &Connection, name: &str) -> Result<()> {
    let mut holders = c.prepare_cached("SELECT id FROM containers WHERE name = ?1")?;
    match holders.query_row([name], |row| row.get::<_, String>(0)).optional()? {
        Some(holder) => Err(name_taken(name, &holder)),
        None => Ok(()),
    }
}

fn no_such(name: &str) -> Error {
    Error::new(Class::NotFound, format!("No such container: {name}"))
}

fn name_taken(name: &str, holder: &str) -> Error {
    Error::new(
        Class::Conflict,
        format!(
            "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". You have to remove (or \
             rename) that container to be able to reuse that name."
        ),
    )
}

#[cfg(test)]
mod tests {
    use wharf_images::{Platform, Style};

    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let (places, details) = (crate::network::store::SCHEMA, crate::network::networks::SCHEMA);
        let schemas = [wharf_images::store::SCHEMA, SCHEMA, volumes::SCHEMA, places, details];
        let db = Db::open(dir.path(), &schemas).unwrap();
        (dir, Store::new(Arc::new(db)))
    }

    const NONE: (&[NewEvent], &[NewEvent]) = (&[], &[]);

    fn new(name: Option<&str>) -> Container {
        let digest = Digest::of(b"image");
        Container {
            id: names::new_id().unwrap(),
            name: String::new(),
            config: ContainerConfig {
                image: "debian".to_owned(),
                name: name.map(str::to_owned),
                ..ContainerConfig::default()
            },
            image: Image {
                id: digest.clone(),
                target: digest.clone(),
                manifest: digest,
                platform: Platform { os: "linux".to_owned(), architecture: "amd64".to_owned(), variant: None },
                style: Style::Linux,
                style_reason: String::new(),
                layers: Vec::new(),
                wasm: None,
                config: wharf_images::image::RunConfig::default(),
                created: None,
                size: 0,
            },
            args: vec!["true".to_owned()],
            created: Timestamp::now(),
            state: Status::default(),
        }
    }

    #[test]
    fn a_record_reads_back_and_is_found_by_name_and_prefix() {
        let (_dir, store) = store();
        let mut web = new(Some("web"));
        store.insert(&mut web, false).unwrap();
        for name in ["web", "/web", &web.id, &web.id[..12], &web.id[..1]] {
            let found = store.find(name).unwrap();
            assert_eq!((found.id, found.config, found.image), (web.id.clone(), web.config.clone(), web.image.clone()));
        }
        for name in ["", "nosuch", "g", "%", &format!("{}0", web.id)] {
            assert_eq!(store.find(name).unwrap_err().class(), Class::NotFound, "{name}");
        }
        assert_eq!(store.users_of_image(&web.image.id).unwrap(), [web.short_id()]);
    }

    #[test]
    fn a_prefix_of_two_ids_is_ambiguous_and_a_name_wins_over_an_id() {
        let (_dir, store) = store();
        let mut ids = Vec::new();
        for digit in ["0", "1"] {
            let mut c = new(None);
            c.id = format!("abc{}{digit}", "0".repeat(60));
            store.insert(&mut c, false).unwrap();
            ids.push(c.id);
        }
        assert_eq!(store.find("abc").unwrap_err().class(), Class::InvalidInput);
        let mut named = new(Some("abc"));
        store.insert(&mut named, false).unwrap();
        assert_eq!(store.find("abc").unwrap().id, named.id);
        assert_eq!(store.find(&ids[1]).unwrap().id, ids[1]);
    }

    #[test]
    fn names_are_unique_and_missing_ones_made() {
        let (_dir, store) = store();
        store.insert(&mut new(Some("web")), false).unwrap();
        let taken = store.insert(&mut new(Some("web")), false).unwrap_err();
        assert_eq!(taken.class(), Class::Conflict);
        assert!(taken.to_string().contains("\"/web\" is already in use"));
        let mut other = new(None);
        store.insert(&mut other, false).unwrap();
        assert_eq!(store.rename(&other, "web").unwrap_err().class(), Class::Conflict);
        store.rename(&other, "db").unwrap();
        assert_eq!(store.find("db").unwrap().id, other.id);
    }

    #[test]
    fn events_change_the_state_and_impossible_ones_change_nothing() {
        let (_dir, store) = store();
        let mut c = new(None);
        store.insert(&mut c, false).unwrap();
        assert!(store.advance(&c, Event::Started, NONE, |_| ()).is_err());
        store.advance(&c, Event::Start, NONE, |_| ()).unwrap();
        store.advance(&c, Event::Started, NONE, |s| s.pid = Some(7)).unwrap();
        assert_eq!(store.list(true).unwrap().len(), 1);
        store.advance(&c, Event::Exit, NONE, |s| s.exit_code = 3).unwrap();
        assert_eq!(store.list(true).unwrap().len(), 0);
        let found = store.get(&c.id).unwrap().unwrap();
        assert_eq!((found.state.state, found.state.exit_code, found.state.pid), (State::Exited, 3, Some(7)));
        assert!(store.remove(&c, &[]).unwrap());
        assert!(!store.remove(&c, &[]).unwrap());
    }
}
