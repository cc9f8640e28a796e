//! What the kernel has of an instance's networks against what its records say: too much after a crash, and too little
//! where somebody else has taken it away.

use std::fs;
use std::path::Path;

use super::firewall::Firewall;
use super::links::Links;
use super::{
    Lock, attached, bridge_name, forwards, is_lasting, linger, lock, make, no_filter, outer_name, remove_table, table,
    tell_wasm, zones,
};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::linux::is_root;
use crate::network::networks::{self, Network};
use crate::network::store::Attachment;

/// What the kernel has of this instance's networks and no record knows.
struct Strays {
    bridges: Vec<String>,
    /// The firewall, when no bridge is left for it.
    table: Option<String>,
}

impl Strays {
    /// To be asked under the lock: who makes or removes a bridge does the same with the table a moment later.
    fn of(engine: &Engine) -> Result<Self> {
        let db = engine.containers()?.db();
        let forgotten = !is_lasting(engine.paths()) && linger::is_forgotten(engine.paths());
        let mut known = Vec::new();
        for network in networks::all(db)? {
            if !forgotten || networks::is_used(db, network.id)? {
                known.push(bridge_name(engine.paths(), network.id));
            }
        }
        let (kept, bridges): (Vec<_>, _) =
            linger::bridges(engine.paths())?.into_iter().partition(|name| known.contains(name));
        let table = table(engine.paths());
        // A kernel without nf_tables has none.
        let exists = || Firewall::open(&table).and_then(|firewall| firewall.exists()).unwrap_or(false);
        let table = (kept.is_empty() && exists()).then_some(table);
        Ok(Strays { bridges, table })
    }
}

/// Names what the kernel has of this instance's networks and no record knows.
///
/// # Errors
/// The store's and the kernel's.
pub fn strays(engine: &Engine) -> Result<Vec<String>> {
    if !is_root() {
        return Ok(Vec::new());
    }
    let _lock = lock(engine.paths(), Lock::Shared)?;
    let Strays { bridges, table } = Strays::of(engine)?;
    let bridges = bridges.into_iter().map(|name| format!("network interface {name}"));
    Ok(bridges.chain(table.map(|name| format!("nf_tables table {name}"))).collect())
}

/// What running Linux containers need and somebody else has taken from the kernel.
struct Lost {
    /// Devices that are connected to nothing: their names, their networks, and whether ports are published for them.
    unplugged: Vec<(String, Network, bool)>,
    /// The firewall.
    table: Option<String>,
}

impl Lost {
    /// To be asked under the lock.
    fn of(engine: &Engine) -> Result<Self> {
        let networks = networks::all(engine.containers()?.db())?;
        let (mut unplugged, mut is_used) = (Vec::new(), false);
        for (id, places) in attached(engine)? {
            is_used |= !places.is_empty();
            let publishes = places.iter().any(|place| !place.ports.is_empty());
            for Attachment { endpoint, .. } in places {
                let outer = outer_name(&id, endpoint.number);
                let device = Path::new("/sys/class/net").join(&outer);
                let bridge = bridge_name(engine.paths(), endpoint.network_id);
                let is_plugged = fs::read_link(device.join("master")).is_ok_and(|master| master.ends_with(bridge));
                // One that begins or ends has no device.
                if !is_plugged && device.exists() {
                    let network = networks.iter().find(|network| network.id == endpoint.network_id).cloned();
                    unplugged.extend(network.map(|network| (outer, network, publishes)));
                }
            }
        }
        let table = table(engine.paths());
        let has_rules = || Firewall::open(&table).and_then(|firewall| firewall.has_rules()).map_err(no_filter);
        let table = (is_used && !has_rules()?).then_some(table);
        Ok(Lost { unplugged, table })
    }
}

/// Names what running containers need and somebody else has taken from the kernel.
///
/// # Errors
/// The store's and the kernel's.
pub fn lost(engine: &Engine) -> Result<Vec<String>> {
    if !is_root() {
        return Ok(Vec::new());
    }
    let _lock = lock(engine.paths(), Lock::Shared)?;
    let Lost { unplugged, table } = Lost::of(engine)?;
    let cut_off = unplugged.iter().map(|(device, network, _)| format!("{device} on the bridge of {}", network.name));
    Ok(cut_off.chain(table.map(|name| format!("the rules of nf_tables table {name}"))).collect())
}

/// Gives containers back what [`lost`] finds. Returns how much it was.
///
/// # Errors
/// As [`lost`].
pub fn restore(engine: &Engine) -> Result<usize> {
    if !is_root() {
        return Ok(0);
    }
    let exclusive = lock(engine.paths(), Lock::Exclusive)?;
    let Lost { unplugged, table } = Lost::of(engine)?;
    let links = Links::open().map_err(|e| Error::os("open a netlink socket", e))?;
    let failed = |e| Error::os("connect a container to its bridge again", e);
    let mut new = Vec::new();
    for (outer, network, publishes) in &unplugged {
        let name = bridge_name(engine.paths(), network.id);
        if links.index(&name).map_err(failed)?.is_none() {
            make(network, &name, &links)?;
            new.push(network.id);
        }
        if let Some(bridge) = links.index(&name).map_err(failed)? {
            links.plug(outer, bridge, *publishes).map_err(failed)?;
        }
    }
    if let Some(name) = &table {
        let firewall = Firewall::open(name).map_err(no_filter)?;
        firewall.write(&zones(engine)?, &forwards(engine)?).map_err(no_filter)?;
    }
    drop(exclusive);
    tell_wasm(engine, &new)?;
    Ok(unplugged.len() + usize::from(table.is_some()))
}

/// Removes what [`strays`] finds. Returns how many there were.
///
/// # Errors
/// As [`strays`].
pub fn sweep(engine: &Engine) -> Result<usize> {
    if !is_root() {
        return Ok(0);
    }
    let _lock = lock(engine.paths(), Lock::Exclusive)?;
    let Strays { bridges, table } = Strays::of(engine)?;
    let links = Links::open().map_err(|e| Error::os("open a netlink socket", e))?;
    for name in &bridges {
        links.remove(name).map_err(|e| Error::os("remove a bridge", e))?;
    }
    if table.is_some() {
        remove_table(engine.paths())?;
    }
    Ok(bridges.len() + usize::from(table.is_some()))
}
