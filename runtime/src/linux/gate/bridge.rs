//! A wasm container on the bridge of its network, where Linux containers are.
//!
//! Among themselves wasm containers speak over unix sockets, and most never need anything else. So a container comes to the
//! bridge only when somebody of the other kind can be met there: when its guest listens and the network has a bridge, when
//! it calls a Linux container, or when the first Linux container comes to a network on which it listens already.
//!
//! What it has there is a network namespace (network_namespaces(7)) with a device on the bridge, the container's address,
//! and no process in it: the gate looks in to make a socket and comes back. So the address is never one of the host's. No
//! service of the host answers on it, no port that the host has taken is in the guest's way, and the firewall's rules for
//! Linux containers hold for it as they are. There is no way out of it but to the network's own addresses: what goes
//! further leaves by the host ([`super::Gate`]). It goes with the last descriptor, whatever ends the monitor.

use std::fs::File;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{SocketType, bind, connect, listen};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Gate, Local, caller, sockets};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::linux::container::unshare;
use crate::linux::network::{self, Outside};
use crate::network::networks::Wiring;
use crate::network::{Fault, Protocol, WasmMode};

const OWN: &str = "/proc/self/ns/net";

/// The container's end of a cable whose other end is in the bridge.
pub(super) struct Foothold {
    namespace: File,
    home: File,
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
        connected.map(|namespace| Foothold { namespace, home })
    }

    /// Makes a socket of the container's address.
    fn make(&self, make: impl FnOnce() -> Result<OwnedFd, Fault>) -> Result<OwnedFd, Fault> {
        enter(&self.namespace).map_err(sockets::fault)?;
        let made = make();
        enter_or_abort(&self.home);
        made
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
    /// Brings to the bridge what the guest has on the network, if there is a bridge and it is not there yet.
    pub fn meet(&mut self, engine: &Engine) {
        if !crate::linux::is_root() || !matches!(self.network.mode, WasmMode::Network(_)) {
            return;
        }
        let here = |gate: &Gate, local: &Local| !local.met && local.asked && gate.on_network(local.address).is_some();
        let unmet: Vec<u64> = self.bound.iter().filter(|(_, l)| here(self, l)).map(|(n, _)| *n).collect();
        if unmet.is_empty() {
            return;
        }
        match self.come(engine) {
            Ok(true) => {}
            Ok(false) => return,
            Err(e) => return self.notices.push(format!("wharf: Linux containers cannot reach this one: {e}\n")),
        }
        for number in unmet {
            if let Err(fault) = self.open_door(number) {
                let address = self.bound.get(&number).map(|local| local.address);
                let address = address.map(|address| address.to_string()).unwrap_or_default();
                self.notices.push(format!("wharf: Linux containers cannot reach {address}: {fault}\n"));
            }
        }
    }

    /// Takes a foothold, if the network has a bridge. False if it has none.
    fn come(&mut self, engine: &Engine) -> Result<bool> {
        if self.foothold.is_some() {
            return Ok(true);
        }
        let Some(endpoint) = &self.endpoint else { return Ok(false) };
        let Some((wiring, _lock)) = network::wiring(engine, &self.id, endpoint)? else { return Ok(false) };
        self.foothold = Some(Foothold::gain(&wiring)?);
        Ok(true)
    }

    /// Listens, or waits for datagrams, on the bridge for what is bound under this number.
    fn open_door(&mut self, number: u64) -> Result<(), Fault> {
        let Some(local) = self.bound.get_mut(&number) else { return Ok(()) };
        let (protocol, address, file) = (local.protocol, local.address, local.file.clone());
        let Some(at) = self.on_network(address).filter(|_| protocol == Protocol::Udp || file.is_some()) else {
            return Ok(());
        };
        if protocol == Protocol::Udp {
            let mut relays = std::mem::take(&mut self.relays);
            let met = relays.meet(number, || self.bound_there(Protocol::Udp, at.into()));
            self.relays = relays;
            met?;
        } else if let Some(file) = file {
            let listener = self.bound_there(Protocol::Tcp, at.into())?;
            listen(&listener, sockets::BACKLOG).map_err(sockets::fault)?;
            // To the guest's process, by the way by which neighbours come to it.
            let way = sockets::unix(SocketType::STREAM).map_err(Fault::from)?;
            let to = self.at(&file).map_err(|_| Fault::Unknown)?;
            bind(&way, &caller::door().map_err(Fault::from)?).map_err(sockets::fault)?;
            connect(&way, &to).map_err(sockets::fault)?;
            caller::hand_over(&way, &listener).map_err(Fault::from)?;
        }
        if let Some(local) = self.bound.get_mut(&number) {
            local.met = true;
        }
        Ok(())
    }

    fn bound_there(&self, protocol: Protocol, at: SocketAddr) -> Result<OwnedFd, Fault> {
        let foothold = self.foothold.as_ref().ok_or(Fault::RemoteUnreachable)?;
        foothold.make(|| sockets::bound(protocol, at).map_err(Fault::from))
    }

    /// True when a Linux container has this address of our network, and we are there to call it.
    fn is_across(&mut self, engine: &Engine, at: SocketAddrV4) -> bool {
        let Some(endpoint) = self.endpoint.as_ref().filter(|_| crate::linux::is_root()) else { return false };
        network::is_linux(engine, endpoint.network_id, *at.ip()).unwrap_or(false) && self.come(engine).unwrap_or(false)
    }

    /// Begins a connection to a Linux container, from this port or any.
    ///
    /// # Errors
    /// `ConnectionRefused` when no Linux container has the address.
    pub(super) fn cross(
        &mut self,
        engine: &Engine,
        port: Option<u16>,
        to: SocketAddrV4,
    ) -> Result<(SocketAddr, OwnedFd), Fault> {
        if !self.is_across(engine, to) {
            return Err(Fault::ConnectionRefused);
        }
        let own = self.endpoint.as_ref().map(|endpoint| endpoint.address).ok_or(Fault::RemoteUnreachable)?;
        let from = SocketAddr::new(own.into(), port.unwrap_or(0));
        let socket = self.bound_there(Protocol::Tcp, from)?;
        sockets::begin_connect(&socket, to.into())?;
        Ok((sockets::local(&socket).unwrap_or(from), socket))
    }

    /// A socket to send datagrams to this Linux container from what is bound so; none when it is no Linux container's.
    pub(in crate::linux) fn cross_datagrams(
        &mut self,
        engine: &Engine,
        bound: SocketAddr,
        to: SocketAddrV4,
    ) -> Option<OwnedFd> {
        let from = self.on_network(bound)?;
        let across = self.is_across(engine, to);
        across.then(|| self.bound_there(Protocol::Udp, from.into()).ok()).flatten()
    }
}
