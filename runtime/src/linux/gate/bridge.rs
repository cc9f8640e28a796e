//! A wasm container on the bridges of its networks, where Linux containers are.
//!
//! Among themselves wasm containers speak over unix sockets, and most never need anything else. So a container comes to the
//! bridge only when somebody of the other kind can be met there: when its guest listens and the network has a bridge, when
//! it calls a Linux container, or when the first Linux container comes to a network on which it listens already.
//!
//! What it has on each is a network namespace (network_namespaces(7)) with a device on the bridge, the container's address,
//! and no process in it: the gate looks in to make a socket and comes back. So the address is never one of the host's. No
//! service of the host answers on it, no port that the host has taken is in the guest's way, and the firewall's rules for
//! Linux containers hold for it as they are. There is no way out of it but to the network's own addresses: what goes
//! further leaves by the host ([`super::Gate`]). It goes with the last descriptor, whatever ends the monitor.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{Shutdown, listen, shutdown};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Gate, Local, on, sockets};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::linux::container::unshare;
use crate::linux::network::{self, Outside};
use crate::network::line::Source;
use crate::network::networks::Wiring;
use crate::network::{Fault, Protocol, WasmMode};

const OWN: &str = "/proc/self/ns/net";

/// The container's end of a cable whose other end is in the bridge.
pub(super) struct Foothold {
    namespace: File,
    home: File,
    /// The name of the host's end.
    outer: String,
    /// What the guest listens on here, by its number, of each family: its process has these too.
    listeners: BTreeMap<u64, Vec<OwnedFd>>,
}

impl Foothold {
    fn gain(wiring: &Wiring) -> Result<Self> {
        let home = own_namespace()?;
        let outside = Outside::open()?;
        unshare(libc::CLONE_NEWNET)?;
        let connected = own_namespace().and_then(|namespace| {
            outside.leave()?.connect(std::slice::from_ref(wiring))?;
            Ok(namespace)
        });
        enter_or_abort(&home);
        let (outer, listeners) = (wiring.outer.clone(), BTreeMap::new());
        connected.map(|namespace| Foothold { namespace, home, outer, listeners })
    }

    /// Makes a socket of the container's address.
    fn make(&self, make: impl FnOnce() -> Result<OwnedFd, Fault>) -> Result<OwnedFd, Fault> {
        enter(&self.namespace).map_err(sockets::fault)?;
        let made = make();
        enter_or_abort(&self.home);
        made
    }

    /// What is bound under this number is free again.
    pub(super) fn close(&mut self, number: u64) {
        self.listeners.remove(&number);
    }

    /// Leaves the bridge. Whoever has a socket there is told of its end.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn give_up(self) -> Result<()> {
        for listener in self.listeners.values().flatten() {
            let _ = shutdown(listener, Shutdown::Both);
        }
        network::unplug(&self.outer)
    }
}

fn own_namespace() -> Result<File> {
    File::open(OWN).map_err(|e| Error::io("open", OWN, e))
}

fn enter(namespace: &File) -> rustix::io::Result<()> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
}

/// Back to the host's network. A monitor that cannot go back must not go on: all it does next would be somewhere else.
fn enter_or_abort(home: &File) {
    if enter(home).is_err() {
        std::process::abort();
    }
}

impl Gate {
    /// Brings to their bridges what the guest has on networks, where there is a bridge and it is not there yet.
    pub fn meet(&mut self, engine: &Engine) {
        if !crate::linux::is_root() || self.network.mode == WasmMode::Host {
            return;
        }
        let mut unmet: BTreeMap<i64, Vec<(u64, SocketAddr)>> = BTreeMap::new();
        for (number, local) in self.bound.iter().filter(|(_, local)| local.asked) {
            for (network, at) in self.on_networks(local.address) {
                if !local.met.contains(&at.ip()) {
                    unmet.entry(network).or_default().push((*number, at));
                }
            }
        }
        for (network, here) in unmet {
            match self.come(engine, network) {
                Ok(true) => here.into_iter().for_each(|(number, at)| self.met_at(number, network, at)),
                Ok(false) => {}
                Err(e) => self.notices.push(format!("wharf: Linux containers cannot reach this one: {e}\n")),
            }
        }
    }

    fn met_at(&mut self, number: u64, network: i64, at: SocketAddr) {
        match self.open_door(number, network, at) {
            Ok(true) => {
                if let Some(local) = self.bound.get_mut(&number) {
                    local.met.push(at.ip());
                }
            }
            // It does not listen there, or not yet.
            Ok(false) => {}
            Err(fault) => self.notices.push(format!("wharf: Linux containers cannot reach {at}: {fault}\n")),
        }
    }

    /// Takes a foothold on this network, if it has a bridge. False if it has none.
    fn come(&mut self, engine: &Engine, network: i64) -> Result<bool> {
        if self.footholds.contains_key(&network) {
            return Ok(true);
        }
        let Some(own) = self.places.iter().find(|own| own.network_id == network) else { return Ok(false) };
        let Some((wiring, _lock)) = network::wiring(engine, &self.id, own)? else { return Ok(false) };
        self.footholds.insert(network, Foothold::gain(&wiring)?);
        Ok(true)
    }

    /// Listens, or waits for datagrams, on a network's bridge for what is bound under this number. False for what neither
    /// listens nor waits there.
    fn open_door(&mut self, number: u64, network: i64, at: SocketAddr) -> Result<bool, Fault> {
        let Some(Local { protocol, files, .. }) = self.bound.get(&number) else { return Ok(false) };
        match *protocol {
            Protocol::Udp => {
                let mut relays = std::mem::take(&mut self.relays);
                let met = relays.meet(number, at.ip(), || self.bound_there(network, Protocol::Udp, at));
                self.relays = relays;
                met
            }
            Protocol::Tcp if !files.contains(&self.file_of(at, Protocol::Tcp)) => Ok(false),
            Protocol::Tcp => {
                let listener = self.bound_there(network, Protocol::Tcp, at)?;
                listen(&listener, sockets::BACKLOG).map_err(sockets::fault)?;
                self.bring(number, Source::Bridge, &listener)?;
                if let Some(foothold) = self.footholds.get_mut(&network) {
                    foothold.listeners.entry(number).or_default().push(listener);
                }
                Ok(true)
            }
        }
    }

    fn bound_there(&self, network: i64, protocol: Protocol, at: SocketAddr) -> Result<OwnedFd, Fault> {
        let foothold = self.footholds.get(&network).ok_or(Fault::RemoteUnreachable)?;
        foothold.make(|| sockets::bound(protocol, at).map_err(Fault::from))
    }

    /// Our network and address there when a Linux container has this one, and we are there to call it.
    fn across(&mut self, engine: &Engine, at: SocketAddr) -> Option<(i64, IpAddr)> {
        let own = on(&self.places, at.ip()).filter(|_| crate::linux::is_root())?;
        let (network, address) = (own.network_id, own.like(at.ip())?);
        let is_there = network::is_linux(engine, network, at.ip()).unwrap_or(false);
        (is_there && self.come(engine, network).unwrap_or(false)).then_some((network, address))
    }

    /// Begins a connection to a Linux container, from this port or any.
    ///
    /// # Errors
    /// `ConnectionRefused` when no Linux container has the address.
    pub(super) fn cross(
        &mut self,
        engine: &Engine,
        port: Option<u16>,
        to: SocketAddr,
    ) -> Result<(SocketAddr, OwnedFd), Fault> {
        let (network, own) = self.across(engine, to).ok_or(Fault::ConnectionRefused)?;
        let from = SocketAddr::new(own, port.unwrap_or(0));
        let socket = self.bound_there(network, Protocol::Tcp, from)?;
        sockets::begin_connect(&socket, to)?;
        Ok((sockets::local(&socket).unwrap_or(from), socket))
    }

    /// A socket to send datagrams to this Linux container of a network from what is bound so; none when it is no Linux
    /// container's.
    pub(in crate::linux) fn cross_datagrams(
        &mut self,
        engine: &Engine,
        bound: SocketAddr,
        to: SocketAddr,
    ) -> Option<OwnedFd> {
        let (network, own) = self.across(engine, to)?;
        let (_, from) = self.on_networks(bound).into_iter().find(|(_, at)| at.ip() == own)?;
        self.bound_there(network, Protocol::Udp, from).ok()
    }
}
