//! The volumes' records, and which containers refer to them. A volume that a container refers to cannot be forgotten: the
//! database itself refuses, so no race between processes can take it away.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, Transaction};
use wharf_images::Class;
use wharf_images::db::Schema;
use wharf_images::events::{self, Kind, NewEvent};

use super::{Store, from_json, nanoseconds, timestamp, to_json};
use crate::container::Container;
use crate::error::{Error, Result};
use crate::volume::Volume;

/// The tables of this file.
pub const SCHEMA: Schema = Schema {
    component: "volumes",
    steps: &["
        CREATE TABLE volumes (
            name TEXT PRIMARY KEY,
            driver TEXT NOT NULL,
            options TEXT NOT NULL,
            labels TEXT NOT NULL,
            created INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE volume_uses (
            container TEXT NOT NULL REFERENCES containers ON DELETE CASCADE,
            volume TEXT NOT NULL REFERENCES volumes,
            PRIMARY KEY (container, volume)
        ) STRICT, WITHOUT ROWID;
    "],
};

/// A container that refers to a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeUser {
    /// The container's id.
    pub id: String,
    /// Its name.
    pub name: String,
}

const COLUMNS: &str = "SELECT name, driver, options, labels, created FROM volumes";

impl Store {
    /// Records a volume, unless there is one of this name. True if it is new.
    ///
    /// # Errors
    /// The database's.
    pub fn insert_volume(&self, volume: &Volume) -> Result<bool> {
        let (options, labels) = (to_json(&volume.options)?, to_json(&volume.labels)?);
        self.db.write(|tx| {
            let inserted = tx
                .prepare_cached("INSERT OR IGNORE INTO volumes VALUES (?1, ?2, ?3, ?4, ?5)")?
                .execute((&volume.name, &volume.driver, options, labels, nanoseconds(volume.created)))?;
            if inserted == 1 {
                let event = NewEvent::new(Kind::Volume, "create", &volume.name).with("driver", &volume.driver);
                events::emit(tx, &event)?;
            }
            Ok(inserted == 1)
        })
    }

    /// The volume of this name, if there is one.
    ///
    /// # Errors
    /// The database's.
    pub fn volume(&self, name: &str) -> Result<Option<Volume>> {
        self.db.read(|c| {
            let mut select = c.prepare_cached(&format!("{COLUMNS} WHERE name = ?1"))?;
            select.query_row([name], |row| Ok(volume(row))).optional()?.transpose()
        })
    }

    /// All volumes, by name.
    ///
    /// # Errors
    /// The database's.
    pub fn volumes(&self) -> Result<Vec<Volume>> {
        self.db.read(|c| {
            let mut select = c.prepare_cached(&format!("{COLUMNS} ORDER BY name"))?;
            let rows = select.query_map([], |row| Ok(volume(row)))?;
            rows.map(|row| row?).collect()
        })
    }

    /// The containers that refer to each volume that is referred to, by the volume's name.
    ///
    /// # Errors
    /// The database's.
    pub fn volume_users(&self) -> Result<BTreeMap<String, Vec<VolumeUser>>> {
        self.db.read(|c| users(c, "1", &[]))
    }

    /// The containers that refer to this volume.
    ///
    /// # Errors
    /// The database's.
    pub fn users_of_volume(&self, name: &str) -> Result<Vec<VolumeUser>> {
        Ok(self.db.read(|c| users(c, "u.volume = ?1", &[name]))?.remove(name).unwrap_or_default())
    }

    /// Forgets a volume to which no container refers.
    ///
    /// # Errors
    /// `NotFound`; `Conflict`, in docker's words, naming the containers.
    pub fn remove_volume(&self, name: &str) -> Result<()> {
        self.db.write(|tx| {
            if let Some(users) = users(tx, "u.volume = ?1", &[name])?.remove(name) {
                return Err(in_use(name, &users));
            }
            let driver = tx.query_row("DELETE FROM volumes WHERE name = ?1 RETURNING driver", [name], |r| r.get(0));
            let driver: String = driver.optional()?.ok_or_else(|| crate::volume::no_such(name))?;
            Ok(events::emit(tx, &NewEvent::new(Kind::Volume, "destroy", name).with("driver", driver))?)
        })
    }
}

/// Writes down which volumes a container refers to, with its record.
pub(super) fn refer(tx: &Transaction<'_>, container: &Container) -> Result<()> {
    for volume in container.config.mounts.iter().filter_map(|mount| mount.volume()) {
        let referred = tx
            .prepare_cached("INSERT OR IGNORE INTO volume_uses VALUES (?1, ?2)")?
            .execute((&container.id, &volume.name));
        referred.map_err(|e| match e.sqlite_error_code() {
            Some(rusqlite::ErrorCode::ConstraintViolation) => crate::volume::no_such(&volume.name),
            _ => Error::from(e),
        })?;
    }
    Ok(())
}

fn users(c: &Connection, condition: &str, values: &[&str]) -> Result<BTreeMap<String, Vec<VolumeUser>>> {
    let sql = format!(
        "SELECT u.volume, c.id, c.name FROM volume_uses u JOIN containers c ON c.id = u.container WHERE {condition} \
         ORDER BY c.created"
    );
    let mut select = c.prepare_cached(&sql)?;
    let mut rows = select.query(rusqlite::params_from_iter(values))?;
    let mut found: BTreeMap<String, Vec<VolumeUser>> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        found.entry(row.get(0)?).or_default().push(VolumeUser { id: row.get(1)?, name: row.get(2)? });
    }
    Ok(found)
}

fn in_use(name: &str, users: &[VolumeUser]) -> Error {
    let list = |text: fn(&VolumeUser) -> &str| users.iter().map(text).collect::<Vec<_>>().join(", ");
    let message = format!("remove {name}: volume is in use - [{}]", list(|user| &user.id));
    Error::new(Class::Conflict, message).with_hint(format!("remove first what uses it: {}", list(|user| &user.name)))
}

fn volume(row: &Row<'_>) -> Result<Volume> {
    Ok(Volume {
        name: row.get(0)?,
        driver: row.get(1)?,
        options: from_json(row, 2)?,
        labels: from_json(row, 3)?,
        created: timestamp(row.get(4)?)?,
    })
}
