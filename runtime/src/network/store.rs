//! The tables of networks and of the places that containers have on them. One address belongs to one container: a
//! constraint says so, whichever processes ask at once.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rusqlite::{OptionalExtension, Row, Transaction, ffi, params};
use wharf_images::Class;
use wharf_images::db::{Db, Schema};
use wharf_images::events::{self, Kind, NewEvent};

use super::networks::{self, Network};
use super::{BRIDGE, Endpoint, Mac, PortBinding, Six};
use crate::config::EndpointConfig;
use crate::error::{Error, Result};
use crate::state::State;

/// The tables. The default network keeps away from the prefixes that docker takes first.
pub const SCHEMA: Schema = Schema {
    component: "networks",
    steps: &[
        "
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
    ",
        "
        ALTER TABLE endpoints ADD COLUMN number INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE endpoints ADD COLUMN mac TEXT;
        ALTER TABLE endpoints ADD COLUMN address6 BLOB;
        CREATE UNIQUE INDEX endpoints_address6 ON endpoints (network, address6) WHERE address6 IS NOT NULL;
    ",
    ],
};

/// A container's place on a network, and the ports that the host publishes for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The place.
    pub endpoint: Endpoint,
    /// The ports, as they are really bound.
    pub ports: Vec<PortBinding>,
}

const COLUMNS: &str = "e.container, n.name, n.id, e.address, n.prefix, n.gateway, e.aliases, e.ports, e.number, e.mac, \
                       e.address6, n.prefix6, n.gateway6, n.internal \
                       FROM endpoints e JOIN networks n ON n.id = e.network";

/// Gives the container its places on networks: the addresses that are asked for, else the lowest that are free. Its
/// interfaces are numbered in this order. Where networks have IPv6 addresses it gets these too.
///
/// # Errors
/// `NotFound` when there is no such network; `LimitExceeded` when one is full; `Conflict` when an address is taken.
pub fn attach(db: &Db, container: &str, places: &[(&EndpointConfig, &[PortBinding])]) -> Result<Vec<Endpoint>> {
    db.write(|tx| {
        // One that has not been let go belongs to a start that failed half-way.
        detach_in(tx, container, None)?;
        let numbered = (0..=u8::MAX).zip(places);
        numbered.map(|(number, (wanted, ports))| attach_in(tx, container, wanted, number, ports)).collect()
    })
}

/// Gives the container one more place, on the first interface that is free.
///
/// # Errors
/// As [`attach`]; `Conflict` when it has a place on that network.
pub fn connect(db: &Db, container: &str, wanted: &EndpointConfig) -> Result<Endpoint> {
    db.write(|tx| {
        let mut taken = tx.prepare_cached("SELECT number FROM endpoints WHERE container = ?1")?;
        let taken: Vec<u8> = taken.query_map([container], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        let number = (0..u8::MAX).find(|number| !taken.contains(number)).unwrap_or(u8::MAX);
        attach_in(tx, container, wanted, number, &[])
    })
}

fn attach_in(
    tx: &Transaction<'_>,
    container: &str,
    wanted: &EndpointConfig,
    number: u8,
    ports: &[PortBinding],
) -> Result<Endpoint> {
    let network = networks::by_name_in(tx, &wanted.network)?.ok_or_else(|| networks::no_such(&wanted.network))?;
    check(wanted, &network)?;
    let address = match wanted.address {
        Some(address) => address,
        None => free(tx, &network)?,
    };
    let six = match (network.six, wanted.address6) {
        (Some(six), Some(address)) => Some(Six { address, ..six }),
        (Some(six), None) => Some(Six { address: free6(tx, &network, six)?, ..six }),
        (None, _) => None,
    };
    // Nothing comes in by a network that does not lead out. What the container publishes it holds all the same: it may come
    // to another network later, and has then what it asked for.
    let ports = if network.internal { &[] } else { ports };
    let inserted = tx
        .prepare_cached(
            "INSERT INTO endpoints (container, network, address, aliases, ports, number, mac, address6) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            container,
            network.id,
            u32::from(address),
            to_json(&wanted.aliases)?,
            to_json(&ports)?,
            number,
            wanted.mac.map(|mac| mac.to_string()),
            six.map(|six| six.address.octets()),
        ]);
    match inserted {
        Ok(_) => {}
        // Of this container's on the network there is one already, or another has the address.
        Err(rusqlite::Error::SqliteFailure(e, _))
            if matches!(e.extended_code, ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_UNIQUE) =>
        {
            let own = "SELECT 1 FROM endpoints WHERE container = ?1 AND network = ?2";
            let connected = tx.query_row(own, params![container, network.id], |_| Ok(())).optional()?.is_some();
            return Err(Error::new(
                Class::Conflict,
                match connected {
                    true => format!("endpoint already exists in network {}", network.name),
                    false => "Address already in use".to_owned(),
                },
            ));
        }
        Err(e) => return Err(e.into()),
    }
    events::emit(tx, &network.event("connect").with("container", container))?;
    Ok(Endpoint {
        network_id: network.id,
        address,
        prefix: network.prefix,
        gateway: network.gateway,
        six,
        mac: wanted.mac.unwrap_or_else(|| Mac::of(address)),
        number,
        internal: network.internal,
        aliases: wanted.aliases.clone(),
        network: network.name,
    })
}

/// What is asked of a place must be possible on the network.
fn check(wanted: &EndpointConfig, network: &Network) -> Result<()> {
    let invalid = |message: String| Err(Error::new(Class::InvalidInput, message));
    if (wanted.address.is_some() || wanted.address6.is_some()) && network.name == BRIDGE {
        return invalid("user specified IP address is supported on user defined networks only".to_owned());
    }
    if let Some(address) = wanted.address {
        let first = u32::from(network.address);
        let last = first + ((1u64 << (32 - u32::from(network.prefix))) - 1) as u32;
        if network.is_movable {
            let text =
                "user specified IP address is supported only when connecting to networks with user configured subnets";
            return invalid(text.to_owned());
        }
        if !(first..=last).contains(&u32::from(address)) {
            return invalid(format!("no configured subnet contains IP address {address}"));
        }
        // The first address means the network, the last one all that is in it.
        let reserved = network.reserved.values().any(|reserved| *reserved == address);
        if reserved || address == network.gateway || [first, last].contains(&u32::from(address)) {
            return Err(Error::new(Class::Conflict, "Address already in use"));
        }
    }
    if let Some(address) = wanted.address6 {
        let contained = |six: Six| networks::base6(address, six.prefix) == six.address && address != six.address;
        if !network.six.is_some_and(contained) {
            return invalid(format!("no configured subnet contains IP address {address}"));
        }
        let reserved = network.reserved.values().any(|reserved| *reserved == address);
        if reserved || network.six.is_some_and(|six| six.gateway == address) {
            return Err(Error::new(Class::Conflict, "Address already in use"));
        }
    }
    Ok(())
}

/// The lowest address that nobody has.
fn free(tx: &Transaction<'_>, network: &Network) -> Result<Ipv4Addr> {
    let (first, prefix) = network.range.unwrap_or((network.address, network.prefix));
    let (first, size) = (i64::from(u32::from(first)), 1i64 << (32 - u32::from(prefix)));
    // The first one of a network means the network, the last one all of it (RFC 919).
    let whole = i64::from(u32::from(network.address));
    let last = whole + (1i64 << (32 - u32::from(network.prefix))) - 1;
    let before = (first - 1).max(whole);
    let reserved = network.reserved.values().filter_map(|address| match address {
        IpAddr::V4(address) => Some(u32::from(*address)),
        IpAddr::V6(_) => None,
    });
    let reserved: Vec<u32> = reserved.chain([u32::from(network.gateway)]).collect();
    // Behind one that is taken or reserved, and before a hole.
    let address: Option<i64> = tx
        .prepare_cached(
            "SELECT min(a) + 1 FROM (SELECT value AS a FROM json_each(?2) UNION ALL SELECT ?3 UNION ALL \
             SELECT address FROM endpoints WHERE network = ?1) WHERE a >= ?3 AND \
             a + 1 NOT IN (SELECT value FROM json_each(?2)) AND \
             a + 1 NOT IN (SELECT address FROM endpoints WHERE network = ?1)",
        )?
        .query_row(params![network.id, to_json(&reserved)?, before], |r| r.get(0))?;
    match address.filter(|address| *address < (first + size).min(last)) {
        Some(address) => Ok(ip(address)),
        None => {
            let message = format!("no available IPv4 addresses on this network's address pools: {}", network.name);
            Err(Error::new(Class::LimitExceeded, message))
        }
    }
}

/// The same of its IPv6 addresses.
fn free6(tx: &Transaction<'_>, network: &Network, six: Six) -> Result<Ipv6Addr> {
    let mut select = tx.prepare_cached("SELECT address6 FROM endpoints WHERE network = ?1 AND address6 IS NOT NULL")?;
    let taken = select.query_map([network.id], |row| row.get::<_, [u8; 16]>(0).map(u128::from_be_bytes))?;
    let taken: HashSet<u128> = taken.collect::<rusqlite::Result<_>>()?;
    let (first, prefix) = network.range6.unwrap_or((six.address, six.prefix));
    let (first, size) = (first.to_bits(), 1u128 << (128 - u32::from(prefix)));
    // The first one of a network means its routers (RFC 4291, 2.6.1).
    let mut reserved = vec![six.address.to_bits(), six.gateway.to_bits()];
    reserved.extend(network.reserved.values().filter_map(|address| match address {
        IpAddr::V6(address) => Some(address.to_bits()),
        IpAddr::V4(_) => None,
    }));
    // The last one may be the last of all.
    let mut addresses = first..=first + (size - 1);
    let free = addresses.find(|address| !taken.contains(address) && !reserved.contains(address));
    free.map(Ipv6Addr::from_bits).ok_or_else(|| {
        let message = format!("no available IPv6 addresses on this network's address pools: {}", network.name);
        Error::new(Class::LimitExceeded, message)
    })
}

/// Lets go of the container's places, or of the one on this network.
///
/// # Errors
/// The database's.
pub fn detach(db: &Db, container: &str, network: Option<i64>) -> Result<()> {
    db.write(|tx| detach_in(tx, container, network))
}

fn detach_in(tx: &Transaction<'_>, container: &str, network: Option<i64>) -> Result<()> {
    // Where it has come to an end, that was told with it.
    let mut select = tx.prepare_cached("SELECT state FROM containers WHERE id = ?1")?;
    let state: Option<String> = select.query_row([container], |row| row.get(0)).optional()?;
    let ended = |state: State| !state.is_live() || state == State::Restarting;
    if !state.is_some_and(|state| state.parse().is_ok_and(ended)) {
        tell_places(tx, container, network, "disconnect")?;
    }
    tx.prepare_cached("DELETE FROM endpoints WHERE container = ?1 AND (?2 IS NULL OR network = ?2)")?
        .execute(params![container, network])?;
    Ok(())
}

/// Writes down which ports are published for the container's place on a network.
///
/// # Errors
/// The database's.
pub fn set_ports(db: &Db, container: &str, network: i64, ports: &[PortBinding]) -> Result<()> {
    db.write(|tx| {
        let set = "UPDATE endpoints SET ports = ?3 WHERE container = ?1 AND network = ?2";
        tx.execute(set, params![container, network, to_json(&ports)?])?;
        Ok(())
    })
}

/// Writes down that the ports are published for the first of these places, which are in the order in which they lead out,
/// if it does.
///
/// # Errors
/// The database's.
pub fn move_ports(db: &Db, container: &str, places: &[Endpoint], ports: &[PortBinding]) -> Result<()> {
    let mut all = places.iter().enumerate();
    all.try_for_each(|(at, own)| {
        let leads = at == 0 && !own.internal;
        set_ports(db, container, own.network_id, if leads { ports } else { &[] })
    })
}

/// Tells of the container's places on networks, or on this one, that they are taken (`connect`) or let go (`disconnect`).
pub(crate) fn tell_places(tx: &Transaction<'_>, container: &str, network: Option<i64>, action: &str) -> Result<()> {
    let mut select = tx.prepare_cached(
        "SELECT n.id, n.name, n.created, n.driver FROM endpoints e JOIN networks n ON n.id = e.network \
         WHERE e.container = ?1 AND (?2 IS NULL OR e.network = ?2) ORDER BY e.number",
    )?;
    let mut rows = select.query(params![container, network])?;
    while let Some(row) = rows.next()? {
        let (name, driver): (String, String) = (row.get(1)?, row.get(3)?);
        let event = NewEvent::new(Kind::Network, action, networks::uid(row.get(0)?, &name, row.get(2)?))
            .with("container", container)
            .with("name", name)
            .with("type", driver);
        events::emit(tx, &event)?;
    }
    Ok(())
}

/// The places of all containers, by their ids.
///
/// # Errors
/// The database's.
pub fn attachments(db: &Db) -> Result<HashMap<String, Vec<Attachment>>> {
    db.read(|c| {
        let mut statement = c.prepare_cached(&format!("SELECT {COLUMNS} ORDER BY e.number"))?;
        let mut rows = statement.query([])?;
        let mut all: HashMap<String, Vec<Attachment>> = HashMap::new();
        while let Some(row) = rows.next()? {
            all.entry(row.get(0)?).or_default().push(attachment(row)?);
        }
        Ok(all)
    })
}

/// The addresses on a network of the containers with this name, short id, alias or host name, beginning with any of them: who
/// takes the first is not always sent to the same one.
///
/// # Errors
/// The database's.
pub fn resolve(db: &Db, network_id: i64, name: &str) -> Result<Vec<IpAddr>> {
    db.read(|c| {
        let mut statement = c.prepare_cached(
            "SELECT e.address, e.aliases, c.name, c.id, e.address6, json_extract(c.config, '$.hostname') \
             FROM endpoints e JOIN containers c ON c.id = e.container WHERE e.network = ?1 ORDER BY e.address",
        )?;
        let mut rows = statement.query([network_id])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let (own, id): (String, String) = (row.get(2)?, row.get(3)?);
            let aliases: Vec<String> = from_json(row, 1)?;
            let host: Option<String> = row.get(5)?;
            let names = aliases.iter().map(String::as_str).chain([own.as_str(), &id[..id.len().min(12)]]);
            let mut names = names.chain(host.as_deref());
            if names.any(|known| known.eq_ignore_ascii_case(name)) {
                let six = row.get::<_, Option<[u8; 16]>>(4)?;
                found.push([Some(IpAddr::V4(ip(row.get(0)?))), six.map(IpAddr::from)]);
            }
        }
        let mut turn = [0; 2];
        // Without a number at random the order is always the same one.
        if found.len() > 1 && crate::linux::random(&mut turn).is_ok() {
            let first = usize::from(u16::from_ne_bytes(turn)) % found.len();
            found.rotate_left(first);
        }
        Ok(found.into_iter().flatten().flatten().collect())
    })
}

fn attachment(row: &Row<'_>) -> Result<Attachment> {
    let address = ip(row.get(3)?);
    let mac: Option<String> = row.get(9)?;
    let six = match row.get::<_, Option<[u8; 16]>>(10)? {
        Some(own) => {
            Some(Six { address: own.into(), prefix: row.get(11)?, gateway: row.get::<_, [u8; 16]>(12)?.into() })
        }
        None => None,
    };
    Ok(Attachment {
        endpoint: Endpoint {
            network: row.get(1)?,
            network_id: row.get(2)?,
            address,
            prefix: row.get(4)?,
            gateway: ip(row.get(5)?),
            six,
            mac: mac.and_then(|mac| mac.parse().ok()).unwrap_or_else(|| Mac::of(address)),
            number: row.get(8)?,
            internal: row.get(13)?,
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

    const SCHEMAS: [Schema; 4] = [wharf_images::store::SCHEMA, crate::store::SCHEMA, SCHEMA, networks::SCHEMA];

    fn db(dir: &std::path::Path) -> Db {
        let db = Db::open(dir, &SCHEMAS).unwrap();
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

    fn take(db: &Db, container: usize, wanted: &EndpointConfig) -> Result<Endpoint> {
        attach(db, &id(container), &[(wanted, &[])]).map(|mut all| all.remove(0))
    }

    #[test]
    fn addresses_are_given_once_and_holes_are_filled() {
        let dir = tempfile::tempdir().unwrap();
        let db = db(dir.path());
        let take = |n: usize| take(&db, n, &EndpointConfig::on(BRIDGE)).unwrap().address;
        assert_eq!(take(0), Ipv4Addr::new(172, 30, 0, 2));
        assert_eq!(take(1), Ipv4Addr::new(172, 30, 0, 3));
        assert_eq!(take(2), Ipv4Addr::new(172, 30, 0, 4));
        detach(&db, &id(1), None).unwrap();
        assert_eq!(take(3), Ipv4Addr::new(172, 30, 0, 3));
        detach(&db, &id(0), None).unwrap();
        assert_eq!(take(4), Ipv4Addr::new(172, 30, 0, 2));
        assert_eq!(take(4), Ipv4Addr::new(172, 30, 0, 2), "taken anew, not twice");
        db.write(|tx| Ok::<_, Error>(tx.execute("DELETE FROM containers WHERE id = ?1", [id(4)]).map(drop)?)).unwrap();
        assert_eq!(take(5), Ipv4Addr::new(172, 30, 0, 2), "a removed container gives its address back");
        let nope = super::tests::take(&db, 9, &EndpointConfig::on("nope"));
        assert_eq!(nope.unwrap_err().to_string(), "network nope not found");
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
                        let db = Db::open(dir, &SCHEMAS).unwrap();
                        (0..20)
                            .map(|n| take(&db, taker * 20 + n, &EndpointConfig::on(BRIDGE)).unwrap().address)
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
                tx.execute(
                    "INSERT INTO networks (id, name, driver, address, prefix, gateway) \
                            VALUES (9, 's', 'bridge', 0x0a000000, 30, 0x0a000001)",
                    [],
                )
                .map(drop)?,
            )
        })
        .unwrap();
        let small = EndpointConfig::on("s");
        assert_eq!(take(&db, 0, &small).unwrap().address, Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(take(&db, 1, &small).unwrap_err().class(), Class::LimitExceeded);
    }

    #[test]
    fn names_aliases_and_ids_lead_to_addresses() {
        let dir = tempfile::tempdir().unwrap();
        let db = db(dir.path());
        let ports = crate::network::ports::parse_publish("8080:80").unwrap();
        let wanted = EndpointConfig { aliases: vec!["web".to_owned()], ..EndpointConfig::on(BRIDGE) };
        let own = attach(&db, &id(7), &[(&wanted, &ports)]).unwrap().remove(0);
        for name in ["name7", "WEB", "000000000000"] {
            assert_eq!(resolve(&db, 1, name).unwrap(), [own.address], "{name}");
        }
        let named = "UPDATE containers SET config = '{\"hostname\":\"Host\"}'";
        db.write(|tx| Ok::<_, Error>(tx.execute(named, [])?)).unwrap();
        assert_eq!(resolve(&db, 1, "host").unwrap(), [own.address]);
        assert!(resolve(&db, 1, "name8").unwrap().is_empty() && resolve(&db, 2, "web").unwrap().is_empty());
        assert_eq!(attachments(&db).unwrap()[&id(7)], [Attachment { endpoint: own, ports }]);
    }

    #[test]
    fn of_several_with_one_name_any_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let db = db(dir.path());
        let wanted = EndpointConfig { aliases: vec!["web".to_owned()], ..EndpointConfig::on(BRIDGE) };
        let mut all: Vec<IpAddr> = (0..3).map(|n| take(&db, n, &wanted).unwrap().address.into()).collect();
        let mut first = HashSet::new();
        for _ in 0..200 {
            let mut found = resolve(&db, 1, "web").unwrap();
            first.insert(found[0]);
            found.sort();
            assert_eq!(found, all);
        }
        assert_eq!(first, all.drain(..).collect());
    }

    #[test]
    fn addresses_that_are_asked_for_are_given_or_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let db = db(dir.path());
        let spec = networks::NetworkSpec {
            name: "own".to_owned(),
            subnet: Some((Ipv4Addr::new(10, 9, 0, 0), 24)),
            gateway: Some(Ipv4Addr::new(10, 9, 0, 254)),
            range: Some((Ipv4Addr::new(10, 9, 0, 248), 29)),
            ipv6: true,
            subnet6: Some((Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 0), 64)),
            range6: Some((Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 0x100), 125)),
            ..networks::NetworkSpec::default()
        };
        networks::create(&db, &spec, &|_, _| true).unwrap();
        let at =
            |last: u8| EndpointConfig { address: Some(Ipv4Addr::new(10, 9, 0, last)), ..EndpointConfig::on("own") };
        let own = take(&db, 0, &at(7)).unwrap();
        assert_eq!((own.address, own.mac.to_string().as_str()), (Ipv4Addr::new(10, 9, 0, 7), "02:42:0a:09:00:07"));
        assert_eq!(own.six.unwrap().address.to_string(), "fd00:9::100");
        for (refused, words) in [
            (at(7), "Address already in use"),
            (at(254), "Address already in use"),
            (at(0), "Address already in use"),
            (at(255), "Address already in use"),
            (
                EndpointConfig { network: BRIDGE.to_owned(), ..at(9) },
                "user specified IP address is supported on user defined networks only",
            ),
        ] {
            assert_eq!(take(&db, 1, &refused).unwrap_err().to_string(), words);
        }
        // From the range, but for the gateway; and then it is full.
        let last = |n| take(&db, n, &EndpointConfig::on("own")).map(|e| e.address.octets()[3]);
        assert_eq!((1..7).map(|n| last(n).unwrap()).collect::<Vec<_>>(), [248, 249, 250, 251, 252, 253]);
        assert_eq!(last(8).unwrap_err().class(), Class::LimitExceeded);
        // A second place of the same container, and none twice.
        assert_eq!(connect(&db, &id(0), &EndpointConfig::on(BRIDGE)).unwrap().number, 1);
        assert_eq!(connect(&db, &id(0), &EndpointConfig::on(BRIDGE)).unwrap_err().class(), Class::Conflict);
        let places =
            |db: &Db| attachments(db).unwrap()[&id(0)].iter().map(|a| a.endpoint.network.clone()).collect::<Vec<_>>();
        assert_eq!(places(&db), ["own", BRIDGE]);
        detach(&db, &id(0), Some(own.network_id)).unwrap();
        assert_eq!(places(&db), [BRIDGE]);
    }
}
