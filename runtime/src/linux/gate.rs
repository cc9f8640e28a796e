//! The monitor's side of a wasm container's network: the gate through which every socket of its guests comes, be they
//! the container's own program or execs. They share its address, its loopback and its ports, but what one has bound no
//! other can use or give back.
//!
//! The task is jailed: it can read, write and accept, and make no socket. It asks over its line; the gate, which knows
//! the grants, opens, binds or connects, and passes the descriptor. What it decides on is in the portable part
//! ([`crate::network`]); what is here is where sockets really are:
//!
//! - A *published port* is a listener of the host, bound before the container is reported as started. While no guest
//!   listens the gate accepts and resets, as if nobody were there; when one does, it gets the listener itself.
//! - A *listener on the container's network* is a unix socket below the run directory, named by network, address and
//!   port. A neighbour's monitor (never its task) connects to it and hands its task the connection ([`super::caller`]).
//!   One that is bound to the loopback has a name that only this gate knows.
//! - *Linux containers* of the network are met on its bridge ([`bridge`]).
//! - A container may be on *several networks*, and come to others and leave them while it runs ([`places`]).
//! - *Datagrams* are passed on one by one ([`super::datagrams`]).
//! - *Names* are containers' (from the store), else looked up ([`super::resolver`]).
//!
//! Nothing here blocks: a guest can slow down no one but itself.

mod bridge;
mod places;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{
    Shutdown, SocketAddrUnix, SocketFlags, SocketType, acceptfrom_with, bind, connect, listen, shutdown,
};

use self::bridge::Foothold;
use super::datagrams::Relays;
use super::resolver::{self, Lookup};
use super::supervisor::MAIN;
use super::{caller, network as bridges, sockets};
use crate::config::EndpointConfig;
use crate::container::Container;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::monitor::protocol::Failure;
use crate::network::grants::{Denial, Grants, HOST_NAME, canonical, canonical_name, is_name};
use crate::network::line::{Answer, Ask, Gatekeeper, Source};
use crate::network::r#virtual::{
    PortTable, Route, arrange, called, given, is_internal, look_up, loopback_like, on, own_addresses, reached, route,
    source, towards,
};
use crate::network::{Endpoint, Fault, PortBinding, Protocol, WasmMode, WasmNetwork};
use crate::task::WasmTask;
use crate::{paths, plan};

/// The most sockets that a guest may have bound.
const MOST_BOUND: usize = 4096;
/// The most names it may look up at once.
const MOST_LOOKUPS: usize = 64;
/// A guest that is denied at random fills no log.
const MOST_DENIALS: usize = 256;

/// The gate of one container.
pub(crate) struct Gate {
    network: WasmNetwork,
    id: String,
    names: Vec<String>,
    /// The places on networks that are asked for.
    wanted: Vec<EndpointConfig>,
    /// Names that were given addresses by hand.
    hosts: Vec<(String, String)>,
    dns: Vec<IpAddr>,
    pub(super) grants: Grants,
    /// Those that it has, in the order in which they lead out.
    pub(super) places: Vec<Endpoint>,
    joined: bool,
    /// Its places on its networks' bridges, by the networks' numbers, once it has met Linux containers there.
    footholds: BTreeMap<i64, Foothold>,
    ports: PortTable,
    bound: BTreeMap<u64, Local>,
    next: u64,
    pub(super) published: Vec<Published>,
    /// The guest is a server of ours, which takes all published ports.
    serves: bool,
    /// It is about to take them: who comes may wait for it.
    opening: bool,
    /// The directory of all containers' unix sockets, and our handle of it.
    dir: PathBuf,
    handle: Option<OwnedFd>,
    relays: Relays,
    lookups: BTreeMap<u64, Lookup>,
    denied: BTreeSet<String>,
    notices: Vec<String>,
}

/// A port of the host.
pub(super) struct Published {
    pub binding: PortBinding,
    pub socket: File,
    /// Who has it: the number of a bound address. Nobody: what comes is turned away.
    pub holder: Option<u64>,
    /// The container has no network that leads out: nothing comes.
    shut: bool,
}

/// Handed out to a server of ours, as they were when it began. What comes later it gets as a guest does.
const SERVER: u64 = 0;

/// A local address that a guest has taken.
struct Local {
    /// Whose it is: the number of the guest's task.
    guest: u64,
    protocol: Protocol,
    address: SocketAddr,
    /// The names of the unix socket that listens for it: one for each network on which it is reached.
    files: Vec<String>,
    /// The guest has asked for this port, so others may look for it there.
    asked: bool,
    /// The container's addresses at which Linux containers reach it, on bridges.
    met: Vec<IpAddr>,
    /// On the host's network: the socket itself.
    real: Option<OwnedFd>,
}

/// Why the gate is to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// Somebody connects to a published port, and no guest listens.
    Early(usize),
    /// A server answers about a name.
    Lookup(u64),
    /// Datagrams have come.
    Datagrams(super::datagrams::Wake),
}

impl Gate {
    /// The gate of a container with this plan. Nothing is opened.
    pub fn new(engine: &Engine, container: &Container, task: &WasmTask) -> Self {
        let network = &task.network;
        Gate {
            network: network.clone(),
            id: container.id.clone(),
            names: vec![plan::hostname(container).to_owned(), container.short_id().to_owned()],
            wanted: container.config.places().into_owned(),
            hosts: container.config.extra_hosts.clone(),
            dns: container.config.dns.clone(),
            grants: Grants::new(&network.allow, &network.deny),
            places: Vec::new(),
            joined: false,
            footholds: BTreeMap::new(),
            ports: PortTable::default(),
            bound: BTreeMap::new(),
            next: SERVER + 1,
            published: Vec::new(),
            serves: task.http.is_some(),
            opening: false,
            dir: engine.paths().run.join("net"),
            handle: None,
            relays: Relays::default(),
            lookups: BTreeMap::new(),
            denied: BTreeSet::new(),
            notices: Vec::new(),
        }
    }

    /// Binds the published ports.
    ///
    /// # Errors
    /// `Conflict`, in docker's words, when one is taken; nothing is then kept.
    pub fn publish(&mut self) -> Result<()> {
        let mut all = Vec::new();
        for wanted in &self.network.published {
            let sockets = sockets::publish(wanted)?;
            all.extend(sockets.into_iter().map(|(binding, socket)| Published {
                binding,
                socket,
                holder: None,
                shut: false,
            }));
        }
        self.published = all;
        Ok(())
    }

    /// True when the container must have its places on networks before its guest asks.
    pub fn is_wanted(&self) -> bool {
        !self.network.published.is_empty() || self.wanted.iter().any(|place| !place.aliases.is_empty())
    }

    /// Takes the container's places on its networks.
    ///
    /// # Errors
    /// The store's.
    pub fn join(&mut self, engine: &Engine) -> Result<()> {
        if self.joined {
            return Ok(());
        }
        if !self.wanted.is_empty() {
            if super::is_root() {
                self.wanted.iter().try_for_each(|place| bridges::settle(engine, &place.network))?;
            }
            let ports = self.bindings();
            let way_out = bridges::leading(engine, &self.wanted)?.unwrap_or(0);
            let places = self.wanted.iter().enumerate();
            let places: Vec<_> =
                places.map(|(at, place)| (place, if at == way_out { &ports[..] } else { &[] })).collect();
            self.places = engine.attach_networks(&self.id, &places)?;
            arrange(&mut self.places, &self.wanted);
        }
        self.joined = true;
        Ok(())
    }

    /// The published ports, as they are bound.
    fn bindings(&self) -> Vec<PortBinding> {
        self.published.iter().map(|published| published.binding.clone()).collect()
    }

    /// True when none of its networks leads out.
    fn is_internal(&self) -> bool {
        is_internal(&self.network.mode, &self.places)
    }

    /// True when it has a place in the store that must be let go.
    pub fn has_joined(&self) -> bool {
        !self.places.is_empty()
    }

    /// What the person should read in the container's log.
    pub fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    pub(super) fn mode(&self) -> &WasmMode {
        &self.network.mode
    }

    pub(super) fn deny(&mut self, denial: &Denial) -> Fault {
        if self.denied.len() < MOST_DENIALS && self.denied.insert(denial.target.clone()) {
            self.notices.push(format!("wharf: {denial}\n"));
        }
        Fault::AccessDenied
    }

    /// The guest is over, and another one may follow in the same place: what it held is free again.
    pub fn clear(&mut self) {
        for number in self.bound.keys().copied().collect::<Vec<_>>() {
            self.release(number);
        }
        for published in &mut self.published {
            published.holder = None;
        }
        self.lookups.clear();
        self.opening = false;
    }

    /// What to poll for reading.
    pub fn polls(&self) -> impl Iterator<Item = (Wake, BorrowedFd<'_>)> {
        let early = self.published.iter().enumerate().filter_map(|(index, published)| {
            let nobodys = published.holder.is_none() && !published.shut && !self.opening;
            let turned_away = nobodys && published.binding.protocol == Protocol::Tcp;
            turned_away.then(|| (Wake::Early(index), published.socket.as_fd()))
        });
        let lookups = self.lookups.iter().map(|(number, lookup)| (Wake::Lookup(*number), lookup.socket()));
        let datagrams = self.relays.polls(&self.published).map(|(wake, fd)| (Wake::Datagrams(wake), fd));
        early.chain(lookups).chain(datagrams)
    }

    /// When to call [`Gate::on_time`].
    pub fn deadline(&self) -> Option<Instant> {
        self.lookups.values().map(Lookup::deadline).min()
    }

    /// Does what has become possible.
    pub fn woken(&mut self, engine: &Engine, wake: Wake) {
        match wake {
            Wake::Early(index) => self.turn_away(index),
            Wake::Lookup(number) => {
                if let Some(result) = self.lookups.get_mut(&number).and_then(Lookup::receive) {
                    self.looked_up(number, result);
                }
            }
            Wake::Datagrams(wake) => {
                let mut relays = std::mem::take(&mut self.relays);
                relays.woken(wake, self, engine);
                self.relays = relays;
            }
        }
    }

    /// Gives up waiting for servers that do not answer.
    pub fn on_time(&mut self, now: Instant) {
        let late: Vec<u64> = self.lookups.iter().filter(|(_, l)| l.deadline() <= now).map(|(n, _)| *n).collect();
        for number in late {
            if let Some(result) = self.lookups.get_mut(&number).and_then(Lookup::on_time) {
                self.looked_up(number, result);
            }
        }
    }

    /// Nobody listens: whoever comes is reset.
    fn turn_away(&mut self, index: usize) {
        let Some(published) = self.published.get(index).filter(|p| p.holder.is_none()) else { return };
        while let Ok((connection, _)) = acceptfrom_with(&published.socket, SocketFlags::CLOEXEC) {
            // Closed with zero lingering time: the other side hears of a reset (tcp(7)).
            let _ = set_socket_linger(&connection, Some(Duration::ZERO));
        }
    }

    /// A guest has ended: what it sent goes its way, and what it held is free again.
    pub fn left(&mut self, engine: &Engine, guest: u64) {
        let held = self.bound.iter().filter(|(_, local)| local.guest == guest);
        let held: Vec<u64> = held.map(|(number, _)| *number).collect();
        self.finish(engine, &held);
        for number in held {
            self.release(number);
        }
    }

    /// Passes on the datagrams that were sent on these sockets before they were closed.
    fn finish(&mut self, engine: &Engine, numbers: &[u64]) {
        let mut relays = std::mem::take(&mut self.relays);
        for number in numbers {
            relays.finish(*number, self, engine);
        }
        self.relays = relays;
    }

    /// What the guest has bound under this number.
    fn of(&self, guest: u64, number: u64) -> Option<&Local> {
        self.bound.get(&number).filter(|local| local.guest == guest)
    }

    fn bind(&mut self, guest: u64, protocol: Protocol, local: SocketAddr) -> Result<(u64, SocketAddr), Fault> {
        if self.bound.len() >= MOST_BOUND {
            return Err(Fault::NewSocketLimit);
        }
        let (address, real) = if self.network.mode == WasmMode::Host {
            let socket = sockets::bound(protocol, local).map_err(Fault::from)?;
            (sockets::local(&socket).unwrap_or(local), Some(socket))
        } else {
            (self.ports.bind(protocol, local, &self.places)?, None)
        };
        let number = self.next;
        self.next += 1;
        let asked = local.port() != 0;
        self.bound.insert(number, Local { guest, protocol, address, files: Vec::new(), asked, met: Vec::new(), real });
        Ok((number, address))
    }

    fn release(&mut self, number: u64) {
        let Some(local) = self.bound.remove(&number) else { return };
        if local.real.is_none() {
            self.ports.release(local.protocol, local.address);
        }
        let inboxes = self.relays.remove(number);
        local.files.iter().chain(&inboxes).for_each(|file| self.unlink(file));
        self.footholds.values_mut().for_each(|foothold| foothold.close(number));
        for published in self.published.iter_mut().filter(|p| p.holder == Some(number)) {
            published.holder = None;
        }
    }

    fn listen(&mut self, guest: u64, number: u64) -> Result<(Vec<Source>, Vec<File>), Fault> {
        let Some(local) = self.of(guest, number).filter(|l| l.protocol == Protocol::Tcp && l.files.is_empty()) else {
            return Err(Fault::InvalidState);
        };
        if let Some(socket) = &local.real {
            listen(socket, sockets::BACKLOG).map_err(sockets::fault)?;
            return Ok((vec![Source::Host], vec![copy(socket)?]));
        }
        let address = local.address;
        let mut names = self.free_names(address);
        if names.is_empty() {
            names.push(self.own_name(number));
        }
        let socket = sockets::unix(SocketType::STREAM).map_err(Fault::from)?;
        let name = self.at(&names[0]).map_err(|_| Fault::Unknown)?;
        // One of a container that had the address before and whose monitor was killed.
        self.unlink(&names[0]);
        bind(&socket, &name).and_then(|()| listen(&socket, sockets::BACKLOG)).map_err(sockets::fault)?;
        names[1..].iter().try_for_each(|other| self.name_too(&names[0], other))?;
        let (mut kinds, mut files) = (vec![Source::Network], vec![File::from(socket)]);
        for index in self.hand_out(number, address, Protocol::Tcp) {
            kinds.push(Source::Host);
            files.push(self.published[index].socket.try_clone().map_err(Fault::from)?);
        }
        if let Some(local) = self.bound.get_mut(&number) {
            local.files = names;
        }
        Ok((kinds, files))
    }

    /// The names on its networks of a listener that is bound so. Of two families' sockets with one port the first has them.
    fn free_names(&self, bound: SocketAddr) -> Vec<String> {
        let mut names: Vec<_> =
            self.on_networks(bound).into_iter().map(|(_, at)| self.file_of(at, Protocol::Tcp)).collect();
        names.retain(|name| !self.bound.values().any(|local| local.files.contains(name)));
        names
    }

    /// The name of a listener that is on no network.
    fn own_name(&self, number: u64) -> String {
        format!("own-{}-{number}", &self.id[..12])
    }

    /// Gives the published ports that lead to this address to whoever is bound to it.
    fn hand_out(&mut self, number: u64, address: SocketAddr, protocol: Protocol) -> Vec<usize> {
        // Nothing comes into an internal network either.
        let outward = !address.ip().is_loopback() && !self.is_internal();
        let mut handed = Vec::new();
        for (index, published) in self.published.iter_mut().enumerate() {
            let wanted = (published.binding.container_port, published.binding.protocol) == (address.port(), protocol);
            if outward && wanted && published.holder.is_none() && !published.shut {
                published.holder = Some(number);
                handed.push(index);
            }
        }
        handed
    }

    /// Where neighbours reach a socket that is bound so, with the numbers of their networks.
    pub(super) fn on_networks(&self, bound: SocketAddr) -> Vec<(i64, SocketAddr)> {
        reached(&self.places, bound)
    }

    /// The name of the socket that stands for an address of one of our networks.
    pub(super) fn file_of(&self, at: SocketAddr, protocol: Protocol) -> String {
        let network = on(&self.places, at.ip()).map_or(0, |own| own.network_id);
        format!("{network}-{}-{}.{protocol}", at.ip(), at.port())
    }

    /// A socket's address by a short name: its path may have only 107 bytes (unix(7)).
    pub(super) fn at(&mut self, file: &str) -> Result<SocketAddrUnix> {
        let handle = match self.handle.take() {
            Some(handle) => handle,
            None => {
                paths::make_dir(&self.dir)?;
                rustix::fs::open(&self.dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                    .map_err(|e| Error::io("open", &self.dir, e))?
            }
        };
        let name = format!("/proc/self/fd/{}/{file}", handle.as_raw_fd());
        self.handle = Some(handle);
        SocketAddrUnix::new(name.as_bytes()).map_err(|e| Error::os("name a socket", e))
    }

    /// Gives a socket of our directory another name besides.
    fn name_too(&mut self, file: &str, other: &str) -> Result<(), Fault> {
        self.unlink(other);
        let Some(handle) = &self.handle else { return Err(Fault::Unknown) };
        rustix::fs::linkat(handle, file, handle, other, AtFlags::empty()).map_err(sockets::fault)
    }

    pub(super) fn unlink(&self, file: &str) {
        if let Some(handle) = &self.handle {
            let _ = rustix::fs::unlinkat(handle, file, AtFlags::empty());
        }
    }

    fn connect(
        &mut self,
        engine: &Engine,
        guest: u64,
        from: Option<u64>,
        to: SocketAddr,
    ) -> Result<(SocketAddr, OwnedFd), Fault> {
        let bound = from.and_then(|number| self.of(guest, number));
        let port = bound.map(|l| l.address.port());
        if let Some(real) = bound.and_then(|l| l.real.as_ref()) {
            let socket = real.try_clone().map_err(Fault::from)?;
            self.grants.check(to).map_err(|denial| self.deny(&denial))?;
            sockets::begin_connect(&socket, to)?;
            return Ok((sockets::local(&socket).unwrap_or(to), socket));
        }
        match route(&self.network.mode, &self.places, to) {
            Route::Own => {
                let listening = self.bound.values().filter(|l| l.protocol == Protocol::Tcp);
                let called = called(listening.map(|l| (l.address, l)), to);
                let file = called.and_then(|l| l.files.first().cloned()).ok_or(Fault::ConnectionRefused)?;
                let port = self.port_or_any(port);
                let local = source(&self.places, to.ip(), port);
                Ok((local, self.call(&file, local, to)?))
            }
            Route::Neighbour(at) => {
                self.grants.check_neighbour(at).map_err(|denial| self.deny(&denial))?;
                let file = self.file_of(at, Protocol::Tcp);
                let own = self.port_or_any(port);
                let local = source(&self.places, at.ip(), own);
                match self.call(&file, local, at) {
                    // No wasm container listens there.
                    Err(Fault::ConnectionRefused) => self.cross(engine, port, at),
                    called => Ok((local, called?)),
                }
            }
            Route::Host(host_port) => {
                self.grants.check_host(host_port).map_err(|denial| self.deny(&denial))?;
                self.connect_outside(to, SocketAddr::new(loopback_like(to), host_port))
            }
            Route::Outside => {
                self.grants.check(to).map_err(|denial| self.deny(&denial))?;
                if !self.leads_out(engine, to.ip()) {
                    return Err(Fault::RemoteUnreachable);
                }
                self.connect_outside(to, to)
            }
            Route::Nowhere => Err(Fault::RemoteUnreachable),
        }
    }

    /// True when there is a way to this address beyond the network: not out of an internal one, nor into another one.
    pub(super) fn leads_out(&self, engine: &Engine, to: IpAddr) -> bool {
        let into_another = || super::is_root() && bridges::leads_inside(engine.paths(), canonical(to));
        !self.is_internal() && (self.network.mode == WasmMode::Host || !into_another())
    }

    fn port_or_any(&mut self, port: Option<u16>) -> u16 {
        port.unwrap_or_else(|| self.ports.ephemeral())
    }

    /// Begins to connect to whatever of the guest listens on this port, as from its own loopback: to see whether it is well.
    ///
    /// # Errors
    /// `ConnectionRefused` when nothing does.
    pub fn call_guest(&mut self, port: u16) -> Result<OwnedFd, Fault> {
        let listens = |local: &&Local| local.protocol == Protocol::Tcp && local.address.port() == port;
        let called = self.bound.values().filter(listens).find(|local| !local.files.is_empty() || local.real.is_some());
        let Some(Local { address, files, .. }) = called else { return Err(Fault::ConnectionRefused) };
        let ip = if address.ip().is_unspecified() { loopback_like(*address) } else { address.ip() };
        let (to, file) = (SocketAddr::new(ip, port), files.first().cloned());
        match file {
            Some(file) => {
                let port = self.ports.ephemeral();
                self.call(&file, source(&self.places, ip, port), to)
            }
            None => {
                let socket = sockets::inet(Protocol::Tcp, ip).map_err(Fault::from)?;
                sockets::begin_connect(&socket, to)?;
                Ok(socket)
            }
        }
    }

    /// Connects to a unix socket of our directory in the name of `local`.
    fn call(&mut self, file: &str, local: SocketAddr, to: SocketAddr) -> Result<OwnedFd, Fault> {
        let socket = sockets::unix(SocketType::STREAM).map_err(Fault::from)?;
        let name = caller::name(local, to).map_err(Fault::from)?;
        let at = self.at(file).map_err(|_| Fault::Unknown)?;
        bind(&socket, &name).and_then(|()| connect(&socket, &at)).map_err(sockets::fault)?;
        Ok(socket)
    }

    /// Connects to `real`, which the guest calls `to`.
    fn connect_outside(&mut self, to: SocketAddr, real: SocketAddr) -> Result<(SocketAddr, OwnedFd), Fault> {
        let socket = sockets::inet(Protocol::Tcp, real.ip()).map_err(Fault::from)?;
        sockets::begin_connect(&socket, real)?;
        let local = sockets::local(&socket);
        let shown = match self.network.mode {
            WasmMode::Host => local.unwrap_or(to),
            WasmMode::None | WasmMode::Network(_) => source(&self.places, to.ip(), local.map_or(0, |at| at.port())),
        };
        Ok((shown, socket))
    }

    fn datagrams(&mut self, guest: u64, number: u64) -> Result<File, Fault> {
        let own = |l: &&mut Local| l.guest == guest && l.protocol == Protocol::Udp;
        let Some(local) = self.bound.get_mut(&number).filter(own) else {
            return Err(Fault::InvalidState);
        };
        let (address, real) = (local.address, local.real.take());
        let handed = self.hand_out(number, address, Protocol::Udp);
        let mut relays = std::mem::take(&mut self.relays);
        let opened = relays.open(number, address, real, handed, self);
        self.relays = relays;
        opened
    }

    fn lookup(&mut self, engine: &Engine, name: &str) -> Result<(Answer, Vec<File>), Fault> {
        if !is_name(name) {
            return Err(Fault::InvalidArgument);
        }
        let name = canonical_name(name);
        let here = |addresses: Vec<IpAddr>| Ok((Answer::Addresses(addresses), Vec::new()));
        if name == "localhost" || name.ends_with(".localhost") {
            // RFC 6761, 6.3.
            return here(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let given = given(&self.hosts, &self.places, &name);
        if !given.is_empty() {
            for address in &given {
                if self.grants.check_answer(&name, *address).is_ok() {
                    self.grants.learn(&name, *address);
                }
            }
            return here(given);
        }
        if let Some(first) = self.places.first() {
            if self.names.iter().any(|n| n.eq_ignore_ascii_case(&name)) {
                return here(own_addresses(&self.places));
            }
            if name == HOST_NAME {
                return here(vec![first.gateway.into()]);
            }
        }
        let found = look_up(&self.places, |own| &own.network, &name, |own, name| engine.resolve(own.network_id, name));
        let found = found.map_err(|_| Fault::TemporaryResolverFailure)?;
        if !found.is_empty() {
            self.grants.meet(&name, &found).map_err(|denial| self.deny(&denial))?;
            return here(found);
        }
        if self.is_internal() {
            return Err(Fault::NameUnresolvable);
        }
        self.grants.check_name(&name).map_err(|denial| self.deny(&denial))?;
        let known = resolver::hosts(&name);
        if !known.is_empty() {
            return here(self.permitted(&name, known)?);
        }
        if self.lookups.len() >= MOST_LOOKUPS {
            return Err(Fault::TemporaryResolverFailure);
        }
        let (lookup, answer) = Lookup::begin(&name, &self.dns)?;
        let number = self.next;
        self.next += 1;
        self.lookups.insert(number, lookup);
        Ok((Answer::Later, vec![answer.into()]))
    }

    /// The addresses of a name that may be told.
    fn permitted(&mut self, name: &str, addresses: Vec<IpAddr>) -> Result<Vec<IpAddr>, Fault> {
        let mut told = Vec::new();
        let mut denied = None;
        for address in addresses {
            match self.grants.check_answer(name, address) {
                Ok(()) => {
                    self.grants.learn(name, address);
                    told.push(address);
                }
                Err(denial) => denied = Some(self.deny(&denial)),
            }
        }
        match denied {
            Some(fault) if told.is_empty() => Err(fault),
            _ => Ok(told),
        }
    }

    fn looked_up(&mut self, number: u64, result: Result<Vec<IpAddr>, Fault>) {
        let Some(lookup) = self.lookups.remove(&number) else { return };
        let name = lookup.name.clone();
        let result = result.and_then(|addresses| self.permitted(&name, addresses));
        lookup.tell(&result);
    }

    fn hand_out_all(&mut self) -> Result<(Vec<PortBinding>, Vec<File>), Fault> {
        let mut all = (Vec::new(), Vec::new());
        if self.is_internal() {
            self.shut_ports();
        }
        for published in &mut self.published {
            if published.holder.is_none() && !published.shut && published.binding.protocol == Protocol::Tcp {
                all.1.push(published.socket.try_clone().map_err(Fault::from)?);
                all.0.push(published.binding.clone());
                published.holder = Some(SERVER);
            }
        }
        Ok(all)
    }

    fn answer(&mut self, engine: &Engine, guest: u64, ask: Ask) -> Result<Option<(Answer, Vec<File>)>, Fault> {
        let alone = |answer| Ok(Some((answer, Vec::new())));
        match ask {
            Ask::Failed(_) => Ok(None),
            Ask::Ready(_) => {
                self.opening |= self.serves && guest == MAIN;
                Ok(None)
            }
            Ask::Join => alone(match self.join(engine) {
                Ok(()) => Answer::Joined(self.places.first().map(|e| (e.address.into(), e.gateway.into()))),
                Err(e) => Answer::Error(Failure::from(&e)),
            }),
            Ask::Bind { protocol, local } => {
                let (number, address) = self.bind(guest, protocol, local)?;
                alone(Answer::Bound(number, address))
            }
            Ask::Release(number) => {
                if self.of(guest, number).is_some() {
                    self.finish(engine, &[number]);
                    self.release(number);
                }
                Ok(None)
            }
            Ask::Listen(number) => {
                let (kinds, files) = self.listen(guest, number)?;
                self.meet(engine);
                Ok(Some((Answer::Listening(kinds), files)))
            }
            Ask::Connect { from, to } => {
                let (local, socket) = self.connect(engine, guest, from, to)?;
                Ok(Some((Answer::Connected(local), vec![socket.into()])))
            }
            Ask::Datagrams(number) => {
                let socket = self.datagrams(guest, number)?;
                self.meet(engine);
                Ok(Some((Answer::Datagrams, vec![socket])))
            }
            Ask::Towards { from, to } => {
                let local = self.of(guest, from).ok_or(Fault::InvalidState)?;
                alone(Answer::Towards(towards(&self.network.mode, &self.places, local.address, to)))
            }
            Ask::Lookup(name) => self.lookup(engine, &name).map(Some),
            // Only the container's own program can be a server of ours.
            Ask::Published if guest != MAIN => alone(Answer::Published(Vec::new())),
            Ask::Published => {
                self.opening = false;
                let (bindings, files) = self.hand_out_all()?;
                Ok(Some((Answer::Published(bindings), files)))
            }
        }
    }
}

fn copy(socket: &OwnedFd) -> Result<File, Fault> {
    Ok(socket.try_clone().map_err(Fault::from)?.into())
}

impl Drop for Gate {
    /// Takes the unix sockets away, and stops listening: the task may hold its copies of the ports for a moment yet.
    fn drop(&mut self) {
        for published in self.published.iter().filter(|p| p.binding.protocol == Protocol::Tcp) {
            let _ = shutdown(&published.socket, Shutdown::Read);
        }
        self.clear();
    }
}

/// A gate at work: with the store, which knows other containers' names.
pub(crate) struct Desk<'a> {
    pub gate: &'a mut Gate,
    pub engine: &'a Engine,
    /// Who asks: the number of his task.
    pub guest: u64,
}

impl Gatekeeper for Desk<'_> {
    fn answer(&mut self, ask: Ask) -> Option<(Answer, Vec<File>)> {
        self.gate.answer(self.engine, self.guest, ask).unwrap_or_else(|fault| Some((Answer::Fault(fault), Vec::new())))
    }
}
