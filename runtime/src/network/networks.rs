//! Networks: their records, and where their addresses come from.
//!
//! A network's addresses are chosen here unless the person chooses them, from docker's pools
//! (<https://docs.docker.com/engine/network/#subnet-allocation>). No two networks of an instance have an address in
//! common. Whether the host has some of them elsewhere is asked when the kernel is told of the network.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::{Deserialize, Serialize};
use wharf_images::db::{Db, Schema};
use wharf_images::events::{self, Kind, NewEvent};
use wharf_images::{Class, Digest};

use super::{BRIDGE, Mac, Six};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::linux;
use crate::store::{from_json, nanoseconds, timestamp, to_json};

/// What the tables of [`super::store`] learn about networks.
pub const SCHEMA: Schema = Schema {
    component: "network details",
    steps: &[
        "
        ALTER TABLE networks ADD COLUMN created INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE networks ADD COLUMN internal INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE networks ADD COLUMN movable INTEGER NOT NULL DEFAULT 1;
        ALTER TABLE networks ADD COLUMN options TEXT NOT NULL DEFAULT '{}';
        ALTER TABLE networks ADD COLUMN labels TEXT NOT NULL DEFAULT '{}';
    ",
        "
        ALTER TABLE networks ADD COLUMN range_address INTEGER;
        ALTER TABLE networks ADD COLUMN range_prefix INTEGER;
        ALTER TABLE networks ADD COLUMN address6 BLOB;
        ALTER TABLE networks ADD COLUMN prefix6 INTEGER;
        ALTER TABLE networks ADD COLUMN gateway6 BLOB;
    ",
        "
        ALTER TABLE networks ADD COLUMN range_address6 BLOB;
        ALTER TABLE networks ADD COLUMN range_prefix6 INTEGER;
    ",
        "
        ALTER TABLE networks ADD COLUMN attachable INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE networks ADD COLUMN reserved TEXT NOT NULL DEFAULT '{}';
    ",
    ],
};

/// Characters of the longest name.
const LONGEST: usize = 128;

/// The option that sets the size of a network's packets.
const MTU: &str = "com.docker.network.driver.mtu";

/// Options that ask for what is so anyway. (The name of the bridge is ours: by it we know our own.)
const SO_ALREADY: [(&str, &str); 6] = [
    ("com.docker.network.bridge.default_bridge", "false"),
    ("com.docker.network.bridge.enable_icc", "true"),
    ("com.docker.network.bridge.enable_ip_masquerade", "true"),
    ("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0"),
    ("com.docker.network.bridge.inhibit_ipv4", "false"),
    ("com.docker.network.container_iface_prefix", "eth"),
];

/// A network's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its number.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// `bridge`.
    pub driver: String,
    /// Its first address.
    pub address: Ipv4Addr,
    /// The length of its prefix.
    pub prefix: u8,
    /// The host, as containers see it.
    pub gateway: Ipv4Addr,
    /// The part of its addresses from which containers get theirs, if not all.
    pub range: Option<(Ipv4Addr, u8)>,
    /// Its IPv6 addresses, if it has any: the first, the length of the prefix, and the host as containers see it.
    pub six: Option<Six>,
    /// The part of these from which containers get theirs, if not all.
    pub range6: Option<(Ipv6Addr, u8)>,
    /// When it was made.
    pub created: Timestamp,
    /// Addresses that no container gets, by the names that they were given.
    pub reserved: BTreeMap<String, IpAddr>,
    /// It has no way out.
    pub internal: bool,
    /// It was asked for as one that containers may be put on by hand. Here that holds for all.
    pub attachable: bool,
    /// Its addresses were chosen by us, and may be changed while nobody is on it.
    pub is_movable: bool,
    /// The driver's options.
    pub options: BTreeMap<String, String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// What a container's first process needs to connect itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wiring {
    /// The host's bridge.
    pub bridge: u32,
    /// The device's name on the host.
    pub outer: String,
    /// The device's name in the container.
    pub inner: String,
    /// Its hardware address.
    pub mac: Mac,
    /// The container's address.
    pub address: Ipv4Addr,
    /// The length of the network's prefix.
    pub prefix: u8,
    /// The way out, if this network is the container's.
    pub gateway: Option<Ipv4Addr>,
    /// Its IPv6 address, if there are any on the network.
    pub six: Option<Six>,
    /// What it sends to its own published port comes back to it.
    pub hairpin: bool,
    /// Bytes of the largest packet, if not the usual.
    pub mtu: Option<u32>,
}

/// A request for a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkSpec {
    /// Its name.
    pub name: String,
    /// Its addresses, as `10.1.0.0/16`; chosen if `None`.
    pub subnet: Option<(Ipv4Addr, u8)>,
    /// The host's address on it; the first if `None`.
    pub gateway: Option<Ipv4Addr>,
    /// The part of its addresses from which containers are to get theirs; all if `None`.
    pub range: Option<(Ipv4Addr, u8)>,
    /// It is to have IPv6 addresses.
    pub ipv6: bool,
    /// Its IPv6 addresses, as `fd00:1::/64`; chosen if `None`.
    pub subnet6: Option<(Ipv6Addr, u8)>,
    /// The host's IPv6 address on it; the first if `None`.
    pub gateway6: Option<Ipv6Addr>,
    /// The part of its IPv6 addresses from which containers are to get theirs; all if `None`.
    pub range6: Option<(Ipv6Addr, u8)>,
    /// Addresses that no container is to get, with names for them.
    pub reserved: BTreeMap<String, IpAddr>,
    /// It is to have no way out.
    pub internal: bool,
    /// Containers may be put on it by hand, which they may anyway.
    pub attachable: bool,
    /// The driver's options.
    pub options: BTreeMap<String, String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Network {
    /// 64 hexadecimal digits, as docker calls networks.
    pub fn uid(&self) -> String {
        uid(self.id, &self.name, nanoseconds(self.created))
    }

    /// An event of this network, with docker's attributes.
    pub fn event(&self, action: &str) -> NewEvent {
        NewEvent::new(Kind::Network, action, self.uid()).with("name", &self.name).with("type", &self.driver)
    }

    /// Bytes of its largest packets, if not the usual.
    pub fn mtu(&self) -> Option<u32> {
        self.options.get(MTU)?.parse().ok()
    }
}

/// How the network with this number, of this name and made then, is called.
pub(super) fn uid(id: i64, name: &str, created: i64) -> String {
    Digest::of(format!("network {id} {name} {created}").as_bytes()).hex().to_owned()
}

const COLUMNS: &str = "SELECT id, name, driver, address, prefix, gateway, created, internal, movable, options, labels, range_address, \
     range_prefix, address6, prefix6, gateway6, range_address6, range_prefix6, attachable, reserved FROM networks";

/// The network of this name, or whose [`Network::uid`] begins so.
///
/// # Errors
/// The database's; `InvalidInput` when several begin so.
pub fn find(db: &Db, name: &str) -> Result<Option<Network>> {
    if let Some(found) = by_name(db, name)? {
        return Ok(Some(found));
    }
    let hex = name.len() >= 2 && name.bytes().all(|b| b.is_ascii_hexdigit());
    let mut found = if hex { all(db)? } else { Vec::new() };
    found.retain(|network| network.uid().starts_with(name));
    if found.len() > 1 {
        return Err(Error::new(
            Class::InvalidInput,
            format!("network {name} is ambiguous ({} matches found on ID prefix)", found.len()),
        ));
    }
    Ok(found.pop())
}

/// The network of exactly this name.
///
/// # Errors
/// The database's.
pub fn by_name(db: &Db, name: &str) -> Result<Option<Network>> {
    db.read(|c| by_name_in(c, name))
}

pub(super) fn by_name_in(c: &Connection, name: &str) -> Result<Option<Network>> {
    let mut select = c.prepare_cached(&format!("{COLUMNS} WHERE name = ?1"))?;
    select.query_row([name], |row| Ok(network(row))).optional()?.transpose()
}

/// All networks, in the order in which they were made.
///
/// # Errors
/// The database's.
pub fn all(db: &Db) -> Result<Vec<Network>> {
    db.read(list)
}

fn list(c: &Connection) -> Result<Vec<Network>> {
    let mut select = c.prepare_cached(&format!("{COLUMNS} ORDER BY id"))?;
    let rows = select.query_map([], |row| Ok(network(row)))?;
    rows.map(|row| row?).collect()
}

/// True when a container has a place on it.
///
/// # Errors
/// The database's.
pub fn is_used(db: &Db, id: i64) -> Result<bool> {
    db.read(|c| used(c, id))
}

fn used(c: &Connection, id: i64) -> Result<bool> {
    let mut select = c.prepare_cached("SELECT 1 FROM endpoints WHERE network = ?1")?;
    Ok(select.query_row([id], |_| Ok(())).optional()?.is_some())
}

/// What docker calls a container's place on a network, here by its number: 64 hexadecimal digits.
pub fn endpoint_id(container: &str, network: i64) -> String {
    wharf_images::Digest::of(format!("endpoint {container} {network}").as_bytes()).hex().to_owned()
}

/// The name of the container with this address on a network, as a reverse lookup tells it.
///
/// # Errors
/// The database's.
pub fn name_of(db: &Db, network: i64, address: IpAddr) -> Result<Option<String>> {
    by_address(db, network, address, "c.name || '.' || n.name")
}

/// What `wanted` says, as a column, of whoever has this address on a network.
fn by_address(db: &Db, network: i64, address: IpAddr, wanted: &str) -> Result<Option<String>> {
    let select = format!(
        "SELECT {wanted} FROM endpoints e JOIN containers c ON c.id = e.container JOIN networks n ON n.id = e.network \
         WHERE e.network = ?1 AND "
    );
    db.read(|c| {
        let one = |row: &Row<'_>| row.get(0);
        let found = match address {
            IpAddr::V4(address) => c
                .prepare_cached(&format!("{select} e.address = ?2"))?
                .query_row(params![network, u32::from(address)], one)
                .optional()?,
            IpAddr::V6(address) => c
                .prepare_cached(&format!("{select} e.address6 = ?2"))?
                .query_row(params![network, address.octets()], one)
                .optional()?,
        };
        Ok(found)
    })
}

/// The container with this address on a network.
///
/// # Errors
/// The database's.
pub fn holder(db: &Db, network: i64, address: IpAddr) -> Result<Option<String>> {
    by_address(db, network, address, "e.container")
}

/// Records a network. `is_free` tells whether the host has none of these addresses.
///
/// # Errors
/// `Conflict`, in docker's words, when the name or the addresses are taken; `InvalidInput` for what makes no network.
pub fn create(db: &Db, spec: &NetworkSpec, is_free: &dyn Fn(Ipv4Addr, u8) -> bool) -> Result<Network> {
    check(spec)?;
    db.write(|tx| {
        let known = list(tx)?;
        if known.iter().any(|network| network.name == spec.name) {
            return Err(Error::new(Class::Conflict, format!("network with name {} already exists", spec.name)));
        }
        let (address, prefix) = match spec.subnet {
            Some(block) if is_apart(block, &known, is_free) => block,
            Some(_) => {
                let message = "invalid pool request: Pool overlaps with other one on this address space";
                return Err(Error::new(Class::Conflict, message).with_hint("see `wharf network ls` and the host's addresses"));
            }
            None => pools().find(|pool| is_apart(*pool, &known, is_free)).ok_or_else(full)?,
        };
        let gateway = spec.gateway.unwrap_or_else(|| Ipv4Addr::from(u32::from(address) + 1));
        let six = six(spec, &known)?;
        let created = nanoseconds(Timestamp::now());
        tx.prepare_cached(
            "INSERT INTO networks (name, driver, address, prefix, gateway, created, internal, movable, options, labels, \
             range_address, range_prefix, address6, prefix6, gateway6, range_address6, range_prefix6, attachable, reserved) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)",
        )?
        .execute(params![
            spec.name,
            BRIDGE,
            u32::from(address),
            prefix,
            u32::from(gateway),
            created,
            spec.internal,
            spec.subnet.is_none(),
            to_json(&spec.options)?,
            to_json(&spec.labels)?,
            spec.range.map(|(first, prefix)| u32::from(base(first, prefix))),
            spec.range.map(|(_, prefix)| prefix),
            six.map(|six| six.address.octets()),
            six.map(|six| six.prefix),
            six.map(|six| six.gateway.octets()),
            spec.range6.map(|(first, prefix)| base6(first, prefix).octets()),
            spec.range6.map(|(_, prefix)| prefix),
            spec.attachable,
            to_json(&spec.reserved)?,
        ])?;
        let made = one(tx, tx.last_insert_rowid())?;
        events::emit(tx, &made.event("create"))?;
        Ok(made)
    })
}

/// The IPv6 addresses of a network that is to be.
fn six(spec: &NetworkSpec, known: &[Network]) -> Result<Option<Six>> {
    if !spec.ipv6 {
        return Ok(None);
    }
    let apart = |address, prefix| {
        let mut all = known.iter().filter_map(|network| network.six);
        !all.any(|n| overlap6((address, prefix), (n.address, n.prefix))) && linux::network::is_free6(address, prefix)
    };
    let (address, prefix) = match spec.subnet6 {
        Some((address, prefix)) if apart(address, prefix) => (address, prefix),
        Some(_) => {
            let message = "invalid pool request: Pool overlaps with other one on this address space";
            return Err(Error::new(Class::Conflict, message).with_hint("see `wharf network ls`"));
        }
        // Addresses for one place (RFC 4193): of a number that nobody else is likely to have.
        None => {
            let mut number = [0; 7];
            crate::linux::random(&mut number).map_err(|e| Error::os("find a number at random", e))?;
            let mut bytes = [0; 16];
            bytes[0] = 0xfd;
            bytes[1..8].copy_from_slice(&number);
            (Ipv6Addr::from(bytes), 64)
        }
    };
    let gateway = spec.gateway6.unwrap_or_else(|| Ipv6Addr::from_bits(address.to_bits() + 1));
    Ok(Some(Six { address, prefix, gateway }))
}

fn full() -> Error {
    let message = "all predefined address pools have been fully subnetted";
    Error::new(Class::LimitExceeded, message).with_hint("remove networks that are not used, or name a --subnet")
}

fn check(spec: &NetworkSpec) -> Result<()> {
    let invalid = |message: String| Err(Error::new(Class::InvalidInput, message));
    let name = &spec.name;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.len() > LONGEST {
        let length = name.len();
        return invalid(format!("invalid network name: it has {length} characters, at most {LONGEST} are allowed"));
    }
    if name.is_empty() || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(plain) {
        return invalid(format!("invalid network name: {name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"));
    }
    if matches!(name.as_str(), "none" | "host" | "default" | "container") {
        return Err(Error::new(Class::Forbidden, format!("operation is not permitted on predefined {name} network")));
    }
    if let Some((first, prefix)) = spec.subnet {
        if !(1..=30).contains(&prefix) {
            return invalid(format!("invalid subnet {first}/{prefix}: its prefix must have from 1 to 30 bits"));
        }
        if first != base(first, prefix) {
            return invalid(format!("invalid subnet {first}/{prefix}: it should be {}/{prefix}", base(first, prefix)));
        }
        if let Some(gateway) = spec.gateway {
            if base(gateway, prefix) != first {
                return invalid(format!("no matching subnet for gateway {gateway}"));
            }
            // The first address means the network, the last one all that is in it (RFC 919).
            if gateway == first || u32::from(gateway) == u32::from(first) | (u32::MAX >> prefix) {
                let message = format!("failed to allocate gateway ({gateway}): Address already in use");
                return Err(Error::new(Class::Conflict, message));
            }
        }
    } else if let Some(gateway) = spec.gateway {
        return invalid(format!("no matching subnet for gateway {gateway}"));
    }
    if let Some((first, prefix)) = spec.range {
        let within = spec.subnet.is_some_and(|subnet| overlap(subnet, (first, prefix)) && subnet.1 <= prefix);
        if !within || prefix > 32 {
            return invalid(format!("invalid ip-range {first}/{prefix}: it must lie in the network's --subnet"));
        }
    }
    if let Some((first, prefix)) = spec.range6 {
        let within = spec.subnet6.is_some_and(|subnet| overlap6(subnet, (first, prefix)) && subnet.1 <= prefix);
        if !within || prefix > 128 {
            return invalid(format!("invalid ip-range {first}/{prefix}: it must lie in the network's --subnet"));
        }
    }
    if let Some((first, prefix)) = spec.subnet6 {
        if !spec.ipv6 {
            return invalid(format!("subnet {first}/{prefix}: a network has IPv6 addresses only with --ipv6"));
        }
        if !(8..=126).contains(&prefix) {
            return invalid(format!("invalid subnet {first}/{prefix}: its prefix must have from 8 to 126 bits"));
        }
        if base6(first, prefix) != first {
            return invalid(format!("invalid subnet {first}/{prefix}: it should be {}/{prefix}", base6(first, prefix)));
        }
    }
    if let Some(gateway) = spec.gateway6
        && !spec.subnet6.is_some_and(|(first, prefix)| base6(gateway, prefix) == first && gateway != first)
    {
        return invalid(format!("no matching subnet for gateway {gateway}"));
    }
    check_reserved(spec)?;
    for (option, value) in &spec.options {
        match option.as_str() {
            MTU if value.parse::<u32>().is_ok_and(|mtu| (68..=65535).contains(&mtu)) => {}
            MTU => return invalid(format!("invalid value for {MTU}: {value}")),
            option if SO_ALREADY.contains(&(option, value)) => {}
            _ => {
                let so: Vec<_> = SO_ALREADY.iter().map(|(option, value)| format!("{option}={value}")).collect();
                let message = format!("network option {option}={value} is not supported");
                return Err(Error::new(Class::Unsupported, message)
                    .with_hint(format!("the options known here: {MTU}, and what is so anyway: {}", so.join(", "))));
            }
        }
    }
    Ok(())
}

/// Addresses are reserved in a network's own subnets, each once.
fn check_reserved(spec: &NetworkSpec) -> Result<()> {
    for (at, (name, address)) in spec.reserved.iter().enumerate() {
        let taken = match *address {
            IpAddr::V4(address) => {
                spec.subnet.filter(|subnet| overlap(*subnet, (address, 32))).map(|(first, prefix)| {
                    let first = u32::from(first);
                    let gateway = spec.gateway.map_or(first + 1, u32::from);
                    [first, gateway, first | u32::MAX >> prefix].contains(&u32::from(address))
                })
            }
            IpAddr::V6(address) => spec.subnet6.filter(|subnet| overlap6(*subnet, (address, 128))).map(|(first, _)| {
                let gateway = spec.gateway6.map_or(first.to_bits() + 1, Ipv6Addr::to_bits);
                [first.to_bits(), gateway].contains(&address.to_bits())
            }),
        };
        let Some(taken) = taken else {
            return Err(Error::new(Class::InvalidInput, format!("no matching subnet for aux-address {address}")));
        };
        if taken || spec.reserved.values().take(at).any(|before| before == address) {
            let message = format!("failed to allocate secondary ip address ({name}:{address}): Address already in use");
            return Err(Error::new(Class::Conflict, message));
        }
    }
    Ok(())
}

/// Forgets a network that nobody is on.
///
/// # Errors
/// `Conflict`, in docker's words, naming who is on it; `Forbidden` for the default one.
pub fn remove(db: &Db, network: &Network) -> Result<()> {
    let Network { id, name, .. } = network;
    if name == BRIDGE {
        return Err(Error::new(Class::Forbidden, format!("{name} is a pre-defined network and cannot be removed")));
    }
    db.write(|tx| {
        let mut select = tx.prepare_cached(
            "SELECT c.name, c.id FROM endpoints e JOIN containers c ON c.id = e.container WHERE e.network = ?1 ORDER BY c.created",
        )?;
        let user = |row: &Row<'_>| {
            let (name, container): (String, String) = (row.get(0)?, row.get(1)?);
            Ok(format!("name:{name:?} id:{:?}", &endpoint_id(&container, *id)[..12]))
        };
        let users: Vec<String> = select.query_map([id], user)?.collect::<rusqlite::Result<_>>()?;
        if !users.is_empty() {
            let message = format!("error while removing network: network {name} has active endpoints ({})", users.join(", "));
            return Err(Error::new(Class::Conflict, message).with_hint("stop first the containers that are on it"));
        }
        match tx.execute("DELETE FROM networks WHERE id = ?1", [id])? {
            0 => Err(no_such(name)),
            _ => Ok(events::emit(tx, &network.event("destroy"))?),
        }
    })
}

/// Gives a network other addresses, which neither another network nor (so `is_free` says) the host has. Nobody may be on
/// it.
///
/// # Errors
/// `Conflict` when somebody has come; `LimitExceeded`.
pub fn relocate(db: &Db, id: i64, is_free: &dyn Fn(Ipv4Addr, u8) -> bool) -> Result<Network> {
    db.write(|tx| {
        if used(tx, id)? {
            return Err(Error::new(
                Class::Conflict,
                "the network's addresses cannot be changed while containers are on it",
            ));
        }
        let mut others = list(tx)?;
        others.retain(|other| other.id != id);
        let (address, prefix) = pools().find(|pool| is_apart(*pool, &others, is_free)).ok_or_else(full)?;
        let gateway = u32::from(address) + 1;
        tx.execute(
            "UPDATE networks SET address = ?2, prefix = ?3, gateway = ?4 WHERE id = ?1",
            params![id, u32::from(address), prefix, gateway],
        )?;
        one(tx, id)
    })
}

fn one(tx: &Transaction<'_>, id: i64) -> Result<Network> {
    tx.query_row(&format!("{COLUMNS} WHERE id = ?1"), [id], |row| Ok(network(row)))?
}

fn network(row: &Row<'_>) -> Result<Network> {
    // Written by us from 32 bits.
    let ip = |column| row.get::<_, i64>(column).map(|number| Ipv4Addr::from(number as u32));
    let ip6 = |column| row.get::<_, [u8; 16]>(column).map(Ipv6Addr::from);
    let range: Option<u8> = row.get(12)?;
    let prefix6: Option<u8> = row.get(14)?;
    let range6: Option<u8> = row.get(17)?;
    Ok(Network {
        id: row.get(0)?,
        name: row.get(1)?,
        driver: row.get(2)?,
        address: ip(3)?,
        prefix: row.get(4)?,
        gateway: ip(5)?,
        created: timestamp(row.get(6)?)?,
        internal: row.get(7)?,
        is_movable: row.get(8)?,
        options: from_json(row, 9)?,
        labels: from_json(row, 10)?,
        range: range.map(|prefix| Ok::<_, Error>((ip(11)?, prefix))).transpose()?,
        six: prefix6.map(|prefix| Ok::<_, Error>(Six { address: ip6(13)?, prefix, gateway: ip6(15)? })).transpose()?,
        range6: range6.map(|prefix| Ok::<_, Error>((ip6(16)?, prefix))).transpose()?,
        attachable: row.get(18)?,
        reserved: from_json(row, 19)?,
    })
}

/// No network is called so.
pub fn no_such(name: &str) -> Error {
    Error::new(Class::NotFound, format!("network {name} not found"))
}

/// True when two networks have an address in common.
pub fn overlap(a: (Ipv4Addr, u8), b: (Ipv4Addr, u8)) -> bool {
    let shorter = a.1.min(b.1);
    base(a.0, shorter) == base(b.0, shorter)
}

/// The first address of the network in which `address` lies.
pub fn base(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32_u32.saturating_sub(u32::from(prefix))).unwrap_or(0);
    Ipv4Addr::from(u32::from(address) & mask)
}

/// The same of IPv6 networks.
pub fn overlap6(a: (Ipv6Addr, u8), b: (Ipv6Addr, u8)) -> bool {
    let shorter = a.1.min(b.1);
    base6(a.0, shorter) == base6(b.0, shorter)
}

/// The first address of the IPv6 network in which `address` lies.
pub fn base6(address: Ipv6Addr, prefix: u8) -> Ipv6Addr {
    let mask = u128::MAX.checked_shl(128_u32.saturating_sub(u32::from(prefix))).unwrap_or(0);
    Ipv6Addr::from_bits(address.to_bits() & mask)
}

/// True for addresses that none of these networks has, nor (so `is_free` says) the host.
fn is_apart(block: (Ipv4Addr, u8), networks: &[Network], is_free: &dyn Fn(Ipv4Addr, u8) -> bool) -> bool {
    !networks.iter().any(|other| overlap(block, (other.address, other.prefix))) && is_free(block.0, block.1)
}

/// The addresses that a network may be given: docker's pools, and behind them many small ones.
fn pools() -> impl Iterator<Item = (Ipv4Addr, u8)> {
    let large = (17..=31).map(|b| (Ipv4Addr::new(172, b, 0, 0), 16));
    let middle = (0..=255).step_by(16).map(|c| (Ipv4Addr::new(192, 168, c, 0), 20));
    let small = (0..=255).map(|c| (Ipv4Addr::new(10, 201, c, 0), 24));
    large.chain(middle).chain(small)
}

/// The networks of an instance.
#[derive(Debug, Clone, Copy)]
pub struct Networks<'a> {
    engine: &'a Engine,
}

impl Engine {
    /// Its networks.
    pub fn networks(&self) -> Networks<'_> {
        Networks { engine: self }
    }
}

impl Networks<'_> {
    fn db(&self) -> Result<&Db> {
        Ok(self.engine.containers()?.db())
    }

    /// Makes a network. The kernel hears of it when the first container is connected.
    ///
    /// # Errors
    /// As docker's: `Conflict` for a name or addresses that are taken, `InvalidInput`, `LimitExceeded`.
    pub fn create(self, spec: &NetworkSpec) -> Result<Network> {
        create(self.db()?, spec, &linux::network::is_free)
    }

    /// All networks but `host` and `none`, which have nothing to tell.
    ///
    /// # Errors
    /// The database's.
    pub fn list(self) -> Result<Vec<Network>> {
        all(self.db()?)
    }

    /// The network that `name` (a name, or the beginning of an id) means.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn get(self, name: &str) -> Result<Network> {
        find(self.db()?, name)?.ok_or_else(|| no_such(name))
    }

    /// True if somebody is on the network that `name` means.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn is_used(self, name: &str) -> Result<bool> {
        is_used(self.db()?, self.get(name)?.id)
    }

    /// Removes a network that nobody is on.
    ///
    /// # Errors
    /// `Conflict`, `Forbidden` for the default one; the kernel's.
    pub fn remove(self, name: &str) -> Result<()> {
        let network = self.get(name)?;
        remove(self.db()?, &network)?;
        linux::network::forget(self.engine, &network)
    }

    /// What the kernel has and no record knows: what a crash at the wrong moment leaves.
    ///
    /// # Errors
    /// The database's and the kernel's.
    pub fn strays(self) -> Result<Vec<String>> {
        linux::network::strays(self.engine)
    }

    /// What running containers need and somebody else has taken from the kernel.
    ///
    /// # Errors
    /// The database's and the kernel's.
    pub fn lost(self) -> Result<Vec<String>> {
        linux::network::lost(self.engine)
    }

    /// Gives containers back what [`Networks::lost`] finds. Returns how much it was.
    ///
    /// # Errors
    /// As [`Networks::lost`].
    pub fn restore(self) -> Result<usize> {
        linux::network::restore(self.engine)
    }

    /// Removes what [`Networks::strays`] finds. Returns how many there were.
    ///
    /// # Errors
    /// As [`Networks::strays`].
    pub fn sweep(self) -> Result<usize> {
        linux::network::sweep(self.engine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn db(dir: &std::path::Path) -> Db {
        let schemas = [wharf_images::store::SCHEMA, crate::store::SCHEMA, super::super::store::SCHEMA, SCHEMA];
        Db::open(dir, &schemas).unwrap()
    }

    fn spec(name: &str) -> NetworkSpec {
        NetworkSpec { name: name.to_owned(), ..NetworkSpec::default() }
    }

    #[test]
    fn networks_have_no_address_in_common() {
        let dir = tempfile::tempdir().unwrap();
        let db = db(dir.path());
        let host = |first: Ipv4Addr, prefix| !overlap((first, prefix), (Ipv4Addr::new(172, 17, 9, 1), 24));
        let one = create(&db, &spec("one"), &host).unwrap();
        assert_eq!((one.address, one.gateway), (Ipv4Addr::new(172, 18, 0, 0), Ipv4Addr::new(172, 18, 0, 1)));
        let two = create(&db, &spec("two"), &host).unwrap();
        assert_eq!(two.address, Ipv4Addr::new(172, 19, 0, 0));
        let within = NetworkSpec { subnet: Some((Ipv4Addr::new(172, 18, 4, 0), 24)), ..spec("three") };
        assert_eq!(create(&db, &within, &host).unwrap_err().class(), Class::Conflict);
        assert_eq!(create(&db, &spec("two"), &host).unwrap_err().to_string(), "network with name two already exists");
        let all = (0..400).map_while(|n| create(&db, &spec(&format!("n{n}")), &host).ok()).count();
        assert_eq!(all, 14 - 2 - 1 + 16 + 256, "the default network has one of the pools");
        assert_eq!(create(&db, &spec("full"), &host).unwrap_err().class(), Class::LimitExceeded);
    }

    #[test]
    fn bad_requests_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let db = db(dir.path());
        let refuse = |spec: NetworkSpec| create(&db, &spec, &|_, _| true).unwrap_err().to_string();
        for name in ["", "-x", "a b", "a/b", "host", "none"] {
            refuse(spec(name));
        }
        let subnet = |text: &str, prefix| NetworkSpec { subnet: Some((text.parse().unwrap(), prefix)), ..spec("x") };
        assert_eq!(refuse(subnet("10.0.0.1", 24)), "invalid subnet 10.0.0.1/24: it should be 10.0.0.0/24");
        let long = "invalid subnet 10.0.0.0/31: its prefix must have from 1 to 30 bits";
        assert_eq!(refuse(subnet("10.0.0.0", 31)), long);
        refuse(subnet("10.0.0.0", 33));
        refuse(NetworkSpec { ipv6: true, subnet6: Some(("fd00::".parse().unwrap(), 129)), ..spec("x") });
        refuse(subnet("0.0.0.0", 0));
        let far = NetworkSpec { gateway: Some(Ipv4Addr::new(10, 1, 0, 1)), ..subnet("10.0.0.0", 24) };
        assert_eq!(refuse(far), "no matching subnet for gateway 10.1.0.1");
        for last in [0, 255] {
            let taken = NetworkSpec { gateway: Some(Ipv4Addr::new(10, 0, 0, last)), ..subnet("10.0.0.0", 24) };
            let words = format!("failed to allocate gateway (10.0.0.{last}): Address already in use");
            assert_eq!(refuse(taken), words);
        }
        let subnet6 = |text: &str, range: (&str, u8)| NetworkSpec {
            ipv6: true,
            subnet6: Some((text.parse().unwrap(), 64)),
            range6: Some((range.0.parse().unwrap(), range.1)),
            ..spec("x")
        };
        for range in [("fd00:2::", 120), ("fd00::", 48), ("fd00:1::", 129)] {
            let expected = format!("invalid ip-range {}/{}: it must lie in the network's --subnet", range.0, range.1);
            assert_eq!(refuse(subnet6("fd00:1::", range)), expected);
        }
        let option = NetworkSpec { options: BTreeMap::from([("foo".to_owned(), "bar".to_owned())]), ..spec("x") };
        assert_eq!(refuse(option), "network option foo=bar is not supported");
    }

    #[test]
    fn names_and_ids_lead_to_networks_and_the_default_stays() {
        let dir = tempfile::tempdir().unwrap();
        let db = db(dir.path());
        let made = create(&db, &NetworkSpec { internal: true, ..spec("back") }, &|_, _| true).unwrap();
        assert_eq!(find(&db, "back").unwrap(), Some(made.clone()));
        assert_eq!(find(&db, &made.uid()[..12]).unwrap(), Some(made.clone()));
        assert_eq!(find(&db, "zz").unwrap(), None);
        let bridge = by_name(&db, BRIDGE).unwrap().unwrap();
        assert_eq!(remove(&db, &bridge).unwrap_err().class(), Class::Forbidden);
        // Not to where the host is, nor to where another network is.
        assert_eq!((bridge.address, made.address), (Ipv4Addr::new(172, 30, 0, 0), Ipv4Addr::new(172, 17, 0, 0)));
        let moved = relocate(&db, bridge.id, &|first, _| first != bridge.address).unwrap();
        assert_eq!((moved.gateway, moved.prefix), (Ipv4Addr::new(172, 18, 0, 1), 16));
        assert_eq!(relocate(&db, bridge.id, &|_, _| false).unwrap_err().class(), Class::LimitExceeded);
        remove(&db, &made).unwrap();
        assert_eq!(remove(&db, &made).unwrap_err().class(), Class::NotFound);
        assert_eq!(all(&db).unwrap().len(), 1);
    }
}
