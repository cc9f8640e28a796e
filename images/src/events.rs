//! Events: what happened to containers, images, volumes and networks, under docker's names
//! (<https://docs.docker.com/reference/cli/docker/system/events/>).
//!
//! An event is a row written in the transaction that makes the change: there is no event without its change and no
//! change without its event, and the rows' numbers are the order in which the changes became true. Whoever follows
//! asks for the rows after the last one it has seen, so between history and live nothing is missed and nothing comes
//! twice. The newest [`KEPT`] are kept.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{Connection, Transaction};

use crate::error::{Class, Error, Result};

/// So many events are kept at least.
pub const KEPT: i64 = 16 * 1024;

/// Old ones are forgotten when so many more have come.
const BATCH: i64 = 256;

/// The table, as a step of this crate's schema.
pub(crate) const TABLE: &str = "
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY,
        time INTEGER NOT NULL,
        kind TEXT NOT NULL,
        action TEXT NOT NULL,
        actor TEXT NOT NULL,
        attributes TEXT NOT NULL
    ) STRICT;
";

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A volume.
    Volume,
    /// A network.
    Network,
    /// The instance itself.
    Daemon,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 5] = [Kind::Container, Kind::Image, Kind::Volume, Kind::Network, Kind::Daemon];

    /// Docker's word.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Container => "container",
            Kind::Image => "image",
            Kind::Volume => "volume",
            Kind::Network => "network",
            Kind::Daemon => "daemon",
        }
    }
}

/// An event that is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// What it is about.
    pub kind: Kind,
    /// Docker's word: `start`, `health_status: healthy`.
    pub action: String,
    /// The id of what it is about.
    pub actor: String,
    /// What else is known: labels, names, exit codes.
    pub attributes: BTreeMap<String, String>,
    /// When it happened.
    pub time: Timestamp,
}

impl NewEvent {
    /// It happens now.
    pub fn new(kind: Kind, action: impl Into<String>, actor: impl Into<String>) -> Self {
        let attributes = BTreeMap::new();
        NewEvent { kind, action: action.into(), actor: actor.into(), attributes, time: Timestamp::now() }
    }

    /// The same with one more attribute.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.insert(name.into(), value.into());
        self
    }

    /// The same with more attributes.
    #[must_use]
    pub fn and(mut self, attributes: impl IntoIterator<Item = (String, String)>) -> Self {
        self.attributes.extend(attributes);
        self
    }
}

/// An event that was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its number: greater than that of any event before it.
    pub seq: i64,
    /// What happened.
    pub what: NewEvent,
}

/// Tells an event, in the transaction that makes it true.
///
/// # Errors
/// The database's.
pub fn emit(tx: &Transaction<'_>, event: &NewEvent) -> Result<()> {
    let attributes = serde_json::to_string(&event.attributes).map_err(|e| Error::json("an event", e))?;
    tx.prepare_cached("INSERT INTO events (time, kind, action, actor, attributes) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute((
            // i64 nanoseconds reach to the year 2262.
            event.time.as_nanosecond() as i64,
            event.kind.name(),
            &event.action,
            &event.actor,
            attributes,
        ))?;
    let seq = tx.last_insert_rowid();
    if seq % BATCH == 0 {
        tx.execute("DELETE FROM events WHERE seq <= ?1", [seq - KEPT])?;
    }
    Ok(())
}

/// The number of the newest event; 0 before the first.
///
/// # Errors
/// The database's.
pub fn newest(c: &Connection) -> Result<i64> {
    Ok(c.query_row("SELECT coalesce(max(seq), 0) FROM events", [], |r| r.get(0))?)
}

/// The first events after number `seq`, in their order: at most `limit`.
///
/// # Errors
/// The database's; `Corrupt` for a row that nobody wrote so.
pub fn after(c: &Connection, seq: i64, limit: u32) -> Result<Vec<Event>> {
    let mut select = c.prepare_cached(
        "SELECT seq, time, kind, action, actor, attributes FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2",
    )?;
    let mut rows = select.query((seq, limit))?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        let bad = || Error::new(Class::Corrupt, "an event's record cannot be read");
        let kind = row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?;
        let attributes = row.get_ref(5)?.as_str().map_err(rusqlite::Error::from)?;
        events.push(Event {
            seq: row.get(0)?,
            what: NewEvent {
                time: Timestamp::from_nanosecond(i128::from(row.get::<_, i64>(1)?)).map_err(|_| bad())?,
                kind: Kind::ALL.into_iter().find(|k| k.name() == kind).ok_or_else(bad)?,
                action: row.get(3)?,
                actor: row.get(4)?,
                attributes: serde_json::from_str(attributes).map_err(|e| Error::json("an event", e))?,
            },
        });
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{Db, Schema};

    const SCHEMA: Schema = Schema { component: "events", steps: &[TABLE] };

    fn tell(db: &Db, action: &str) {
        db.write(|tx| emit(tx, &NewEvent::new(Kind::Volume, action, "data").with("driver", "local"))).unwrap();
    }

    #[test]
    fn events_read_back_in_order_and_only_after_what_was_seen() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path(), &[SCHEMA]).unwrap();
        assert_eq!(db.read(newest).unwrap(), 0);
        ["create", "mount", "destroy"].into_iter().for_each(|action| tell(&db, action));
        let seen = db.read(|c| after(c, 0, 2)).unwrap();
        assert_eq!(seen.iter().map(|e| e.what.action.as_str()).collect::<Vec<_>>(), ["create", "mount"]);
        assert_eq!(seen[0].what.attributes["driver"], "local");
        let rest = db.read(|c| after(c, seen[1].seq, 9)).unwrap();
        assert_eq!(rest.len(), 1);
        assert_eq!((rest[0].what.action.as_str(), rest[0].seq), ("destroy", db.read(newest).unwrap()));
    }

    #[test]
    fn a_change_that_fails_tells_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path(), &[SCHEMA]).unwrap();
        let failed = db.write(|tx| {
            emit(tx, &NewEvent::new(Kind::Volume, "create", "x"))?;
            Err::<(), _>(Error::new(Class::Conflict, "no"))
        });
        assert!(failed.is_err());
        assert_eq!(db.read(|c| after(c, 0, 9)).unwrap(), []);
    }

    #[test]
    fn the_oldest_are_forgotten_and_numbers_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path(), &[SCHEMA]).unwrap();
        let event = NewEvent::new(Kind::Image, "pull", "x");
        db.write(|tx| (0..KEPT + 3 * BATCH).try_for_each(|_| emit(tx, &event))).unwrap();
        let count: i64 =
            db.read(|c| Ok::<_, Error>(c.query_row("SELECT count(*) FROM events", [], |r| r.get(0))?)).unwrap();
        assert!((KEPT..KEPT + BATCH).contains(&count), "{count}");
        assert_eq!(db.read(newest).unwrap(), KEPT + 3 * BATCH);
    }
}
