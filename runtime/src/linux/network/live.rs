//! Networks that a running container comes to and leaves: done by its monitor, which holds what it has.
//!
//! A device is made on the host with its other end in the container's network namespace; what must be said from within is
//! said by a child that enters it for that.

use std::fs::{self, File};
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::links::Links;
use super::{Connected, Joined, append_hosts, ensure, make_pair, tell_wasm, wire, withdraw};
use crate::config::EndpointConfig;
use crate::container::Container;
use crate::engine::Engine;
use crate::error::{Class, Error};
use crate::linux::process::{self, SpawnOptions};
use crate::network::networks::Wiring;
use crate::network::store;

impl Connected {
    /// Puts the container, whose network namespace this is, on one more network.
    ///
    /// # Errors
    /// The store's and the kernel's; it is then as it was.
    pub fn connect(
        &mut self,
        engine: &Engine,
        container: &Container,
        own: &File,
        wanted: &EndpointConfig,
    ) -> Result<(), Error> {
        let links = Links::open().map_err(|e| Error::os("open a netlink socket", e))?;
        let (networks, new, lock) = ensure(engine, &[&wanted.network], &links)?;
        let db = engine.containers()?.db();
        let endpoint = store::connect(db, &container.id, wanted)?;
        let network_id = endpoint.network_id;
        let wired = networks.into_iter().next().map(|(network, bridge)| {
            let hairpin = !self.ports.is_empty();
            Wiring { hairpin, ..wire(&container.id, &endpoint, &network, bridge) }
        });
        let Some(wiring) = wired else { return Err(Error::new(Class::Internal, "a network was lost")) };
        let made = make_pair(&links, own, &wiring).and_then(|()| {
            let place = Joined { wanted: wanted.clone(), endpoint, wiring: wiring.clone() };
            append_hosts(engine, container, &place.hosts(container))?;
            self.places.push(place);
            self.settle(engine, container, own)
        });
        drop(lock);
        if let Err(error) = made {
            self.places.retain(|place| place.endpoint.network_id != network_id);
            // The first error is the one that tells why.
            let _ = links.remove(&wiring.outer);
            let _ = store::detach(db, &container.id, Some(network_id));
            let _ = self.settle(engine, container, own);
            return Err(error);
        }
        tell_wasm(engine, &new)
    }

    /// Takes the container from a network.
    ///
    /// # Errors
    /// The store's and the kernel's.
    pub fn disconnect(
        &mut self,
        engine: &Engine,
        container: &Container,
        own: &File,
        network: &str,
    ) -> Result<(), Error> {
        let Some(at) = self.places.iter().position(|place| place.endpoint.network == network) else { return Ok(()) };
        let place = self.places.remove(at);
        let links = Links::open().map_err(|e| Error::os("open a netlink socket", e))?;
        links.remove(&place.wiring.outer).map_err(|e| Error::os("take the container from its network", e))?;
        store::detach(engine.containers()?.db(), &container.id, Some(place.endpoint.network_id))?;
        remove_hosts(engine, container, &place.hosts(container))?;
        self.settle(engine, container, own)
    }

    /// Makes the namespace's devices, and the published ports, as the places are now.
    fn settle(&mut self, engine: &Engine, container: &Container, own: &File) -> Result<(), Error> {
        let before = self.forwards.clone();
        self.choose_way_out();
        let wirings = self.wirings();
        let settle = || {
            let links = Links::open()?;
            wirings.iter().try_for_each(|wiring| links.settle_again(wiring))?;
            let way_out = wirings.iter().find(|wiring| wiring.gateway.is_some());
            way_out.map_or(Ok(()), |wiring| links.lead_out(wiring))
        };
        within(own, settle).map_err(|e| Error::os("set up the container's network", e))?;
        if self.forwards == before {
            return Ok(());
        }
        withdraw(engine, &before)?;
        let db = engine.containers()?.db();
        for place in &self.places {
            let ports = if place.wiring.gateway.is_some() { self.ports.as_slice() } else { &[] };
            store::set_ports(db, &container.id, place.endpoint.network_id, ports)?;
        }
        self.publish(engine)
    }
}

/// Does something in a network namespace, by a child that enters it.
fn within(namespace: &File, act: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    let kind = Some(LinkNameSpaceType::Network);
    let child = process::spawn(SpawnOptions::default(), || {
        match move_into_link_name_space(namespace.as_fd(), kind).and_then(|()| act()) {
            Ok(()) => 0,
            Err(e) => e.raw_os_error(),
        }
    });
    let ended = child.and_then(|child| child.wait()).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    match ended.code() {
        0 => Ok(()),
        code => Err(Errno::from_raw_os_error(code)),
    }
}

/// Takes these lines out of the container's `/etc/hosts`, in place: what is mounted there is this file.
fn remove_hosts(engine: &Engine, container: &Container, lines: &str) -> Result<(), Error> {
    let path = engine.paths().container(&container.id).join("hosts");
    let failed = |e| Error::io("rewrite", &path, e);
    let text = fs::read_to_string(&path).map_err(failed)?;
    let kept: String =
        text.split_inclusive('\n').filter(|line| !lines.split_inclusive('\n').any(|l| l == *line)).collect();
    fs::write(&path, kept).map_err(failed)
}
