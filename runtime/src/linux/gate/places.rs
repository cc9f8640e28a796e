//! Networks that a wasm container comes to and leaves while it runs.
//!
//! Its guest's sockets stay as they are: what listens on all addresses is reached on a new network as on the others, for
//! the socket that stands for it gets one more name there, and loses it again. Connections that exist are not cut.

use std::net::SocketAddr;
use std::os::fd::AsFd;

use rustix::net::{Shutdown, SocketType, bind, connect, listen, shutdown};

use super::{Gate, Local, Published, bridges, caller, sockets};
use crate::config::EndpointConfig;
use crate::engine::Engine;
use crate::error::Result;
use crate::network::line::Source;
use crate::network::r#virtual::arrange;
use crate::network::{Endpoint, Fault, Protocol, store};

impl Gate {
    /// Puts the container on one more network.
    ///
    /// # Errors
    /// The store's and the kernel's; it is then as it was.
    pub fn connect_to(&mut self, engine: &Engine, place: &EndpointConfig) -> Result<()> {
        if crate::linux::is_root() {
            bridges::settle(engine, &place.network)?;
        }
        self.wanted.push(place.clone());
        let gained = if self.joined { self.gain(engine, place) } else { self.join(engine) };
        if gained.is_err() {
            self.wanted.pop();
        }
        gained
    }

    fn gain(&mut self, engine: &Engine, place: &EndpointConfig) -> Result<()> {
        let own = store::connect(engine.containers()?.db(), &self.id, place)?;
        let network = own.network_id;
        self.places.push(own);
        arrange(&mut self.places, &self.wanted);
        self.appear(network);
        self.move_ports(engine)?;
        self.meet(engine);
        Ok(())
    }

    /// Takes the container from a network.
    ///
    /// # Errors
    /// The store's and the kernel's.
    pub fn disconnect_from(&mut self, engine: &Engine, network: &str) -> Result<()> {
        self.wanted.retain(|place| place.network != network);
        let Some(at) = self.places.iter().position(|own| own.network == network) else { return Ok(()) };
        let gone = self.places.remove(at);
        let network = gone.network_id;
        self.vanish(&gone);
        let unplugged = self.footholds.remove(&network).map_or(Ok(()), |foothold| foothold.give_up());
        store::detach(engine.containers()?.db(), &self.id, Some(network))?;
        self.move_ports(engine)?;
        unplugged
    }

    /// Lets neighbours on this network reach what the guest has.
    fn appear(&mut self, network: i64) {
        let listens = |local: &Local| local.protocol == Protocol::Tcp && !local.files.is_empty();
        let listening = self.bound.iter().filter(|(_, local)| listens(local));
        for (number, address) in listening.map(|(number, local)| (*number, local.address)).collect::<Vec<_>>() {
            for name in self.free_names(address) {
                let Some(first) = self.bound.get(&number).and_then(|local| local.files.first().cloned()) else {
                    continue;
                };
                match self.name_too(&first, &name) {
                    Ok(()) => self.bound.get_mut(&number).into_iter().for_each(|local| local.files.push(name.clone())),
                    Err(fault) => self.notices.push(format!("wharf: neighbours cannot reach {address}: {fault}\n")),
                }
            }
        }
        let mut relays = std::mem::take(&mut self.relays);
        relays.appear(network, self);
        self.relays = relays;
    }

    /// Takes from this network what the guest has there.
    fn vanish(&mut self, place: &Endpoint) {
        let there = format!("{}-", place.network_id);
        for number in self.bound.keys().copied().collect::<Vec<_>>() {
            let own = self.own_name(number);
            let Some(local) = self.bound.get_mut(&number) else { continue };
            local.met.retain(|met| !place.has(*met));
            let (gone, mut kept): (Vec<_>, Vec<_>) =
                std::mem::take(&mut local.files).into_iter().partition(|name| name.starts_with(&there));
            // By one name it must be found all the same: by the guest itself, and by us.
            let named = match (gone.first(), kept.is_empty()) {
                (Some(last), true) => self.name_too(last, &own).map(|()| kept.push(own)),
                _ => Ok(()),
            };
            if let Err(fault) = named {
                self.notices.push(format!("wharf: the guest cannot reach itself any more: {fault}\n"));
            }
            gone.iter().for_each(|name| self.unlink(name));
            if let Some(local) = self.bound.get_mut(&number) {
                local.files = kept;
            }
        }
        for name in self.relays.vanish(place) {
            self.unlink(&name);
        }
    }

    /// The published ports lead in by the network that leads out, and nowhere when there is none.
    fn move_ports(&mut self, engine: &Engine) -> Result<()> {
        if self.published.is_empty() {
            return Ok(());
        }
        match self.is_internal() {
            true => self.shut_ports(),
            false => self.open_ports(),
        }
        store::move_ports(engine.containers()?.db(), &self.id, &self.places, &self.bindings())
    }

    pub(super) fn shut_ports(&mut self) {
        for (index, port) in self.published.iter_mut().enumerate() {
            match port.binding.protocol {
                Protocol::Tcp => {
                    let _ = shutdown(&port.socket, Shutdown::Read);
                    // One that the kernel has chosen is given back by that; nobody else is to take it.
                    rebind(port);
                }
                Protocol::Udp => self.relays.withdraw(index),
            }
            (port.holder, port.shut) = (None, true);
        }
    }

    fn open_ports(&mut self) {
        for port in self.published.iter_mut().filter(|port| port.shut) {
            port.shut = port.binding.protocol == Protocol::Tcp && !listen_again(port);
            if port.shut {
                self.notices.push(format!("wharf: {} is not published again: the port is taken\n", port.binding));
            }
        }
        let all: Vec<(u64, SocketAddr, Protocol)> =
            self.bound.iter().map(|(number, local)| (*number, local.address, local.protocol)).collect();
        for (number, address, protocol) in all {
            let listens = self.bound.get(&number).is_some_and(|local| !local.files.is_empty());
            if protocol == Protocol::Tcp && !listens {
                continue;
            }
            for index in self.hand_out(number, address, protocol) {
                let brought = match protocol {
                    Protocol::Udp => {
                        self.relays.publish(number, index);
                        Ok(())
                    }
                    Protocol::Tcp => self.published[index]
                        .socket
                        .try_clone()
                        .map_err(Fault::from)
                        .and_then(|socket| self.bring(number, Source::Host, socket)),
                };
                if let Err(fault) = brought {
                    self.notices.push(format!("wharf: {} is not published: {fault}\n", self.published[index].binding));
                }
            }
        }
    }

    /// Brings a listener to the guest's process, by the way by which neighbours come to what it has bound under this number.
    pub(super) fn bring(&mut self, number: u64, source: Source, listener: impl AsFd) -> Result<(), Fault> {
        let file = self.bound.get(&number).and_then(|local| local.files.first().cloned());
        let file = file.ok_or(Fault::InvalidState)?;
        let way = sockets::unix(SocketType::STREAM).map_err(Fault::from)?;
        let to = self.at(&file).map_err(|_| Fault::Unknown)?;
        bind(&way, &caller::door(source).map_err(Fault::from)?).map_err(sockets::fault)?;
        connect(&way, &to).map_err(sockets::fault)?;
        caller::hand_over(&way, listener).map_err(Fault::from)
    }
}

/// Opens a published port again. By another socket: whoever still watches the one that was shut hears for good that it is.
fn listen_again(port: &mut Published) -> bool {
    let Some(at) = port.binding.host_ip.map(|ip| SocketAddr::new(ip, port.binding.host_port)) else { return false };
    let Ok(socket) = sockets::bound(Protocol::Tcp, at) else { return false };
    let listens = listen(&socket, sockets::BACKLOG).is_ok();
    if listens {
        port.socket = socket.into();
    }
    listens
}

/// Binds a socket that does not listen any more to its port, if it is not bound. True when it is.
fn rebind(port: &Published) -> bool {
    let binding = &port.binding;
    let at = binding.host_ip.map(|ip| SocketAddr::new(ip, binding.host_port));
    // One that is bound already takes no other address, and has its own.
    let _ = at.map(|at| bind(&port.socket, &at));
    sockets::local(&port.socket).is_some_and(|local| local.port() == binding.host_port)
}
