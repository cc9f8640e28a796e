//! The tables of networks and of the places that containers have on them. One address belongs to one container: a
//! constraint says so, whichever processes ask at once.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use rusqlite::{OptionalExtension, Row, Transaction, params};
use wharf_images::Class;
use wharf_images::db::{Db, Schema};

use super::{BRIDGE, Endpoint, PortBinding};
use crate::error::{Error, Result};

/// The tables. The default network keeps away from the prefixes that docker takes first.
pub const SCHEMA: Schema = Schema {
    component: "networks",
    steps: &["
        CREATE TABLE networks (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            driver TEXT NOT NULL,
            address INTEGER NOT NULL,
            prefix INTEGER NOT NULL,
            gateway INTEGER NOT NULL
        ) STRICT;
        INSERT INTO networks (id, name, driver, address, prefix, gateway)
            VALUES (1, 'bridge', 'bridge', 0xac1e0000, 16, 0xac1e0001);
        CREATE TABLE endpoints (
            container TEXT NOT NULL REFERENCES containers ON DELETE CASCADE,
            network INTEGER NOT NULL REFERENCES networks,
            address INTEGER NOT NULL,
            aliases TEXT NOT NULL,
            ports TEXT NOT NULL,
            PRIMARY KEY (container, network),
            UNIQUE (network, address)
        ) STRICT, WITHOUT ROWID;
    "],
};

/// A container's place on a network, and the ports that the host publishes for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The place.
    pub endpoint: Endpoint,
    /// The ports, as they are really bound.
    pub ports: Vec<PortBinding>,
}

const COLUMNS: &str = "e.container, n.name, n.id, e.address, n.prefix, n.gateway, e.aliases, e.ports \
                       FROM endpoints e JOIN networks n ON n.id = e.network";

/// True if there is a network of this name.
///
/// # Errors
/// The database's.
pub fn exists(db: &Db, name: &str) -> Result<bool> {
    if name == BRIDGE {
        return Ok(true);
    }
    db.read(|c| Ok(c.query_row("SELECT 1 FROM networks WHERE name = ?1", [name], |_| Ok(())).optional()?.is_some()))
}

/// Gives the container a place on the network: the lowest address that is free.
///
/// # Errors
/// `NotFound` when there is no such network; `LimitExceeded` when it is full.
pub fn attach(db: &Db, container: &str, network: &str, aliases: &[String], ports: &[PortBinding]) -> Result<Endpoint> {
    db.write(|tx| {
        // One that has not been let go belongs to a start that failed half-way.
        detach_in(tx, container)?;
        let found = tx
            .prepare_cached("SELECT id, address, prefix, gateway FROM networks WHERE name = ?1")?
            .query_row([network], |r| Ok((r.get::<_, i64>(0)?, r.get::<_, i64>(1)?, r.get::<_, u8>(2)?, r.get(3)?)))
            .optional()?;
        let Some((network_id, first, prefix, gateway)) = found else {
            return Err(Error::new(Class::NotFound, format!("network {network} not found")));
        };
        // Behind a taken one (or the gateway) and before a hole.
        let address: i64 = tx
            .prepare_cached(
                "SELECT min(a) + 1 FROM (SELECT ?2 AS a UNION ALL SELECT address FROM endpoints WHERE network = ?1) \
                 WHERE a + 1 <> ?2 AND a + 1 NOT IN (SELECT address FROM endpoints WHERE network = ?1)",
            )?
            .query_row(params![network_id, gateway], |r| r.get(0))?;
        // The last one means all of them (RFC 919).
        if address >= first + (1i64 << (32 - prefix.min(32))) - 1 {
            let message = format!("no available IPv4 addresses on this network's address pools: {network}");
            return Err(Error::new(Class::LimitExceeded, message));
        }
        tx.prepare_cached("INSERT INTO endpoints VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
            container,
            network_id,
            address,
            to_json(&aliases)?,
            to_json(&ports)?
        ])?;
        Ok(Endpoint {
            network: network.to_owned(),
            network_id,
            address: ip(address),
            prefix,
            gateway: ip(gateway),
            aliases: aliases.to_vec(),
        })
    })
}

/// Lets go of the container's places.
///
/// # Errors
/// The database's.
pub fn detach(db: &Db, container: &str) -> Result<()> {
    db.write(|tx| detach_in(tx, container))
}

fn detach_in(tx: &Transaction<'_>, container: &str) -> Result<()> {
    tx.prepare_cached("DELETE FROM endpoints WHERE container = ?1")?.execute([container])?;
    Ok(())
}

/// The places of all containers, by their ids.
///
/// # Errors
/// The database's.
pub fn attachments(db: &Db) -> Result<HashMap<String, Vec<Attachment>>> {
    db.read(|c| {
        let mut statement = c.prepare_cached(&format!("SELECT {COLUMNS} ORDER BY n.id"))?;
        let mut rows = statement.query([])?;
        let mut all: HashMap<String, Vec<Attachment>> = HashMap::new();
        while let Some(row) = rows.next()? {
            all.entry(row.get(0)?).or_default().push(attachment(row)?);
        }
        Ok(all)
    })
}

/// The addresses on a network of the containers with this name, short id or alias.
///
/// # Errors
/// The database's.
pub fn resolve(db: &Db, network_id: i64, name: &str) -> Result<Vec<Ipv4Addr>> {
    db.read(|c| {
        let mut statement = c.prepare_cached(
            "SELECT e.address, e.aliases, c.name, c.id FROM endpoints e JOIN containers c ON c.id = e.container \
             WHERE e.network = ?1 ORDER BY e.address",
        )?;
        let mut rows = statement.query([network_id])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let (own, id): (String, String) = (row.get(2)?, row.get(3)?);
            let aliases: Vec<String> = from_json(row, 1)?;
            let mut names = aliases.iter().map(String::as_str).chain([own.as_str(), &id[..id.len().min(12)]]);
            if names.any(|known| known.eq_ignore_ascii_case(name)) {
                found.push(ip(row.get(0)?));
            }
        }
        Ok(found)
    })
}

fn attachment(row: &Row<'_>) -> Result<Attachment> {
    Ok(Attachment {
        endpoint: Endpoint {
            network: row.get(1)?,
            network_id: row.get(2)?,
            address: ip(row.get(3)?),
            prefix: row.get(4)?,
            gateway: ip(row.get(5)?),
            aliases: from_json(row, 6)?,
        },
        ports: from_json(row, 7)?,
    })
}

fn ip(number: i64) -> Ipv4Addr {
    // Written by us from 32 bits.
    Ipv4Addr::from(number as u32)
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| wharf_images::Error::json("a network's record", e).into())
}

fn from_json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<T> {
    let text = row.get_ref(column)?.as_str().map_err(rusqlite::Error::from)?;
    serde_json::from_str(text).map_err(|e| wharf_images::Error::json("a network's record", e).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn db(dir: &std::path::Path) -> Db {
        let db = Db::open(dir, &[crate::store::SCHEMA, SCHEMA]).unwrap();
        db.write(|tx| {
            tx.execute("INSERT OR IGNORE INTO container_images VALUES ('m', 'i')", [])?;
            for n in 0..300 {
                let values = "(?1, ?2, 'm', 'i', '{}', '[]', 0, 'created')";
                let sql = format!(
                    "INSERT OR IGNORE INTO containers (id, name, manifest, image_id, config, args, created, state) VALUES {values}"
                );
                tx.execute(&sql, [format!("{n:064}"), format!("name{n}")])?;
            }
            Ok::<_, Error>(())
        })
        .unwrap();
        db
    }

    fn id(n: usize) -> String {
        format!("{n:064}")
    }

    #[test]
    fn addresses_are_given_once_and_holes_are_filled() {
        let dir = tempfile::tempdir().unwrap();
        let db = db(dir.path());
        let take = |n: usize| attach(&db, &id(n), BRIDGE, &[], &[]).unwrap().address;
        assert_eq!(take(0), Ipv4Addr::new(172, 30, 0, 2));
        assert_eq!(take(1), Ipv4Addr::new(172, 30, 0, 3));
        assert_eq!(take(2), Ipv4Addr::new(172, 30, 0, 4));
        detach(&db, &id(1)).unwrap();
        assert_eq!(take(3), Ipv4Addr::new(172, 30, 0, 3));
        detach(&db, &id(0)).unwrap();
        assert_eq!(take(4), Ipv4Addr::new(172, 30, 0, 2));
        assert_eq!(take(4), Ipv4Addr::new(172, 30, 0, 2), "taken anew, not twice");
        db.write(|tx| Ok::<_, Error>(tx.execute("DELETE FROM containers WHERE id = ?1", [id(4)]).map(drop)?)).unwrap();
        assert_eq!(take(5), Ipv4Addr::new(172, 30, 0, 2), "a removed container gives its address back");
        assert_eq!(attach(&db, &id(9), "nope", &[], &[]).unwrap_err().to_string(), "network nope not found");
    }

    #[test]
    fn many_processes_at_once_never_share_an_address() {
        let dir = tempfile::tempdir().unwrap();
        drop(db(dir.path()));
        let addresses = std::thread::scope(|scope| {
            let takers: Vec<_> = (0..4)
                .map(|taker| {
                    let dir = dir.path();
                    scope.spawn(move || {
                        let db = Db::open(dir, &[crate::store::SCHEMA, SCHEMA]).unwrap();
                        (0..20)
                            .map(|n| attach(&db, &id(taker * 20 + n), BRIDGE, &[], &[]).unwrap().address)
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            takers.into_iter().flat_map(|t| t.join().unwrap()).collect::<std::collections::BTreeSet<_>>()
        });
        assert_eq!(addresses.len(), 80);
    }

    #[test]
    fn a_small_network_runs_full() {
        let dir = tempfile::tempdir().unwrap();
        let db = db(dir.path());
        db.write(|tx| {
            Ok::<_, Error>(
                tx.execute("INSERT INTO networks VALUES (9, 's', 'bridge', 0x0a000000, 30, 0x0a000001)", [])
                    .map(drop)?,
            )
        })
        .unwrap();
        assert!(exists(&db, "s").unwrap() && !exists(&db, "t").unwrap());
        assert_eq!(attach(&db, &id(0), "s", &[], &[]).unwrap().address, Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(attach(&db, &id(1), "s", &[], &[]).unwrap_err().class(), Class::LimitExceeded);
    }

    #[test]
    fn names_aliases_and_ids_lead_to_addresses() {
        let dir = tempfile::tempdir().unwrap();
        let db = db(dir.path());
        let ports = crate::network::ports::parse_publish("8080:80").unwrap();
        let own = attach(&db, &id(7), BRIDGE, &["web".to_owned()], &ports).unwrap();
        for name in ["name7", "WEB", "000000000000"] {
            assert_eq!(resolve(&db, 1, name).unwrap(), [own.address], "{name}");
        }
        assert!(resolve(&db, 1, "name8").unwrap().is_empty() && resolve(&db, 2, "web").unwrap().is_empty());
        assert_eq!(attachments(&db).unwrap()[&id(7)], [Attachment { endpoint: own, ports }]);
    }
}
