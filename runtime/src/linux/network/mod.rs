//! The networks of Linux containers: a bridge of the host for each network, a pair of virtual Ethernet devices for each
//! container, one table of the packet filter for each instance.
//!
//! What the kernel has of it is made when it is first needed and can be made again at any time from the store, which alone
//! knows what should be. The instance of the host (`/var/lib/wharf`) keeps its bridges; one with another root removes them
//! soon after the last container that is on them ([`linger`]). What is made or removed for all
//! is made under a lock; an end that misses it (SIGKILL, power) is made good by the next one who looks.
//!
//! A container's devices go with its network namespace, and that with its last process, whatever happens to its monitor.

mod conntrack;
mod conversation;
pub mod firewall;
mod linger;
pub mod links;
mod live;
pub mod names;
pub mod netlink;
mod relay;
mod repair;

use std::borrow::Cow;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Instant;

use rustix::event::PollFlags;
use rustix::io::Errno;
use wharf_images::Digest;
use wharf_images::db::Db;

use self::firewall::{Firewall, Forward, Zone};
pub use self::linger::{linger, remove_unused};
use self::links::Links;
use self::names::{Answerer, Directory};
use self::relay::Relay;
pub use self::repair::{lost, restore, strays, sweep};
use super::sockets;
use crate::config::{ContainerConfig, EndpointConfig, HOST_GATEWAY, NetworkMode};
use crate::container::{BackendKind, Container};
use crate::engine::Engine;
use crate::error::{Class, Error, Result};
use crate::monitor::client;
use crate::monitor::protocol::Request;
use crate::network::networks::{self, Network, Wiring};
use crate::network::store::{self, Attachment};
use crate::network::r#virtual::{look_up, rank};
use crate::network::{BRIDGE, Endpoint, PortBinding, Protocol};
use crate::paths::{self, Paths};
use crate::plan;

/// The places on networks that a Linux container is to have; `None` for one that is never to be connected.
pub fn wanted(container: &Container) -> Option<Cow<'_, [EndpointConfig]>> {
    match (&container.config.network, container.backend()) {
        (_, BackendKind::Wasm)
        | (NetworkMode::None | NetworkMode::Host | NetworkMode::Container(_), BackendKind::Linux) => None,
        (NetworkMode::Default | NetworkMode::Named(_), BackendKind::Linux) => {
            let places = container.config.places();
            // Without root there is no bridge: such a container has its loopback.
            let is_alone = places.is_empty() || container.config.is_on_default_alone();
            (super::is_root() || !is_alone).then_some(places)
        }
    }
}

/// A Linux container's connection to its networks, as its monitor holds it.
#[derive(Debug)]
pub struct Connected {
    ports: Vec<PortBinding>,
    /// The host's side of published ports.
    relay: Relay,
    /// Its places, by the numbers of their interfaces.
    places: Vec<Joined>,
    forwards: Vec<Forward>,
    /// Whom to ask about other names.
    dns: Vec<IpAddr>,
    names: Option<Answerer>,
}

/// Why a connection is to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// Somebody asks for a name, or is answered.
    Names(names::Wake),
    /// Somebody comes to a published port.
    Relay(relay::Wake),
}

/// A place that the container has on a network.
#[derive(Debug)]
struct Joined {
    wanted: EndpointConfig,
    endpoint: Endpoint,
    wiring: Wiring,
}

impl Connected {
    /// Takes the ports that the container publishes. `None` for one that has no network.
    ///
    /// # Errors
    /// `Conflict`, in docker's words, when one is taken; `Unsupported` without root.
    pub fn reserve(container: &Container) -> Result<Option<Self>> {
        let published = plan::published(&container.config, &container.image)?;
        let Some(places) = wanted(container) else { return Ok(None) };
        if !super::is_root() {
            let other = places.iter().find(|place| place.network != BRIDGE);
            let network = other.map_or(BRIDGE, |place| &place.network);
            let message = format!("network {network}: only root can connect Linux containers to a bridge");
            return Err(Error::new(Class::Unsupported, message)
                .with_hint("leave out --network, use --network host or --network none, or run wharf as root"));
        }
        let bound = published.iter().map(sockets::publish).collect::<Result<Vec<_>>>()?;
        let bound: Vec<_> = bound.into_iter().flatten().collect();
        Ok(Some(Connected {
            ports: bound.iter().map(|(binding, _)| binding.clone()).collect(),
            relay: Relay::new(bound),
            places: Vec::new(),
            forwards: Vec::new(),
            dns: container.config.dns.clone(),
            names: None,
        }))
    }

    /// Takes the container's places on its networks, whose bridges are made if need be.
    ///
    /// # Errors
    /// The store's and the kernel's.
    pub fn join(&mut self, engine: &Engine, container: &Container) -> Result<Vec<Wiring>> {
        let wanted = wanted(container).unwrap_or_default();
        let links = Links::open().map_err(|e| Error::os("open a netlink socket", e))?;
        let names: Vec<&str> = wanted.iter().map(|place| place.network.as_str()).collect();
        let (networks, new, lock) = ensure(engine, &names, &links)?;
        let ways: Vec<_> = networks.iter().zip(&*wanted).map(|((network, _), place)| Way::of(network, place)).collect();
        let way_out = way_out(&ways);
        let places = wanted.iter().enumerate().map(|(at, place)| match at == way_out.unwrap_or(0) {
            true => (place, self.ports.as_slice()),
            false => (place, &[][..]),
        });
        let endpoints = engine.attach_networks(&container.id, &places.collect::<Vec<_>>())?;
        let endpoints = endpoints.into_iter().zip(networks).zip(&*wanted);
        self.places = endpoints
            .map(|((endpoint, (network, bridge)), wanted)| {
                let hairpin = !self.ports.is_empty();
                let wiring = Wiring { hairpin, ..wire(&container.id, &endpoint, &network, bridge) };
                Joined { wanted: wanted.clone(), endpoint, wiring }
            })
            .collect();
        self.choose_way_out();
        self.write_hosts(engine, container)?;
        drop(lock);
        tell_wasm(engine, &new)?;
        Ok(self.wirings())
    }

    fn wirings(&self) -> Vec<Wiring> {
        self.places.iter().map(|place| place.wiring.clone()).collect()
    }

    /// Says which of its networks leads out, and carries its published ports.
    fn choose_way_out(&mut self) {
        let ways: Vec<_> = self.places.iter().map(Joined::way).collect();
        let way_out = way_out(&ways);
        for (at, place) in self.places.iter_mut().enumerate() {
            place.wiring.gateway = (Some(at) == way_out).then_some(place.endpoint.gateway);
        }
        let leading = way_out.and_then(|at| self.places.get(at)).map(|place| &place.endpoint);
        let forwards = leading.map(|endpoint| self.ports.iter().filter_map(|port| forward(port, endpoint)).collect());
        self.forwards = forwards.unwrap_or_default();
        self.relay.lead(|port| leading.map(|endpoint| destination(port, endpoint)));
    }

    /// Lets go of the published ports: from here on others can have them.
    ///
    /// # Errors
    /// The kernel's.
    pub fn close(&mut self, engine: &Engine) -> Result<()> {
        let withdrawn = withdraw(engine, &self.forwards);
        self.forwards.clear();
        self.relay = Relay::default();
        withdrawn
    }

    /// Answers on these sockets what the container asks about names.
    pub fn answer(&mut self, sockets: (File, File)) {
        self.names = Some(Answerer::new(sockets, &self.dns));
    }

    /// What to poll, and for what.
    pub fn polls(&self) -> impl Iterator<Item = (Wake, BorrowedFd<'_>, PollFlags)> {
        let names = self.names.iter().flat_map(Answerer::polls);
        let names = names.map(|(wake, fd)| (Wake::Names(wake), fd, PollFlags::IN));
        names.chain(self.relay.polls().map(|(wake, fd, flags)| (Wake::Relay(wake), fd, flags)))
    }

    /// When to call [`Connected::on_time`].
    pub fn deadline(&self) -> Option<Instant> {
        self.names.as_ref().and_then(Answerer::deadline).into_iter().chain(self.relay.deadline()).min()
    }

    /// Gives up what took too long.
    pub fn on_time(&mut self, now: Instant) {
        if let Some(names) = &mut self.names {
            names.on_time(now);
        }
        self.relay.on_time(now);
    }

    /// Does what has become possible. For a caller (who gets a child of this process) the engine must have nothing open.
    pub fn woken(&mut self, wake: Wake, engine: &Engine) {
        let wake = match wake {
            Wake::Names(wake) => wake,
            Wake::Relay(wake) => {
                return self.relay.woken(wake, &|from| !is_shut_in(engine, from).unwrap_or(true));
            }
        };
        let Some(names) = &mut self.names else { return };
        let places = &self.places;
        match wake {
            names::Wake::Caller => names.called(|| Neighbours { engine: Open::Anew(engine.reopened()), places }),
            wake => names.woken(wake, &Neighbours { engine: Open::Already(engine), places }),
        }
    }

    /// The places that it has, for a task that takes another one's place.
    ///
    /// # Errors
    /// The disk's.
    pub fn again(&self, engine: &Engine, container: &Container) -> Result<Vec<Wiring>> {
        self.write_hosts(engine, container)?;
        Ok(self.wirings())
    }

    /// Opens the published ports.
    ///
    /// # Errors
    /// The kernel's.
    pub fn publish(&self, engine: &Engine) -> Result<()> {
        if self.forwards.is_empty() {
            return Ok(());
        }
        // Whoever writes the table anew reads the store under this lock, where our ports are already.
        let _lock = lock(engine.paths(), Lock::Shared)?;
        let table = table(engine.paths());
        let published = Firewall::open(&table).and_then(|firewall| firewall.publish(&self.forwards));
        published.map_err(|e| Error::os("publish ports by nf_tables", e))?;
        conntrack::begin_anew(&self.forwards).map_err(|e| Error::os("forget older exchanges of published ports", e))
    }
}

impl Joined {
    fn way(&self) -> Way<'_> {
        let priority = self.wanted.gateway_priority;
        Way { leads_out: !self.endpoint.internal, priority, name: &self.endpoint.network }
    }

    /// What the container's `/etc/hosts` says of it.
    fn hosts(&self, container: &Container) -> String {
        own_hosts(container, &self.endpoint)
    }
}

/// A network of a container, as a way out.
struct Way<'a> {
    leads_out: bool,
    priority: i64,
    name: &'a str,
}

impl<'a> Way<'a> {
    fn rank(&self) -> impl Ord + use<'a> {
        rank(!self.leads_out, self.priority, self.name)
    }

    fn of(network: &'a Network, wanted: &EndpointConfig) -> Self {
        Way { leads_out: !network.internal, priority: wanted.gateway_priority, name: &network.name }
    }
}

/// Docker's choice of the way out.
fn way_out(ways: &[Way<'_>]) -> Option<usize> {
    let leading = ways.iter().enumerate().filter(|(_, way)| way.leads_out);
    leading.min_by_key(|(_, way)| way.rank()).map(|(at, _)| at)
}

/// Which of a container's places leads out, if any does.
///
/// # Errors
/// The store's; `NotFound` when there is no such network.
pub fn leading(engine: &Engine, places: &[EndpointConfig]) -> Result<Option<usize>> {
    if places.len() < 2 {
        // There is no choice.
        return Ok((!places.is_empty()).then_some(0));
    }
    let networks = of(engine, places)?;
    Ok(way_out(&networks.iter().zip(places).map(|(network, place)| Way::of(network, place)).collect::<Vec<_>>()))
}

/// The networks of these places.
fn of(engine: &Engine, places: &[EndpointConfig]) -> Result<Vec<Network>> {
    let db = engine.containers()?.db();
    let find = |place: &EndpointConfig| {
        networks::by_name(db, &place.network)?.ok_or_else(|| networks::no_such(&place.network))
    };
    places.iter().map(find).collect()
}

/// How a container is connected at this place, which is no way out yet.
fn wire(id: &str, endpoint: &Endpoint, network: &Network, bridge: u32) -> Wiring {
    Wiring {
        bridge,
        outer: outer_name(id, endpoint.number),
        inner: format!("eth{}", endpoint.number),
        mac: endpoint.mac,
        address: endpoint.address,
        prefix: endpoint.prefix,
        gateway: None,
        six: endpoint.six,
        mtu: network.mtu(),
        hairpin: false,
    }
}

/// The names on a container's networks, from the store.
struct Neighbours<'a> {
    engine: Open<'a>,
    places: &'a [Joined],
}

/// The engine: the monitor's own, or that of a child, which must open anew what it needs.
enum Open<'a> {
    Already(&'a Engine),
    Anew(Engine),
}

impl Neighbours<'_> {
    fn db(&self) -> Result<&Db> {
        let engine = match &self.engine {
            Open::Already(engine) => engine,
            Open::Anew(engine) => engine,
        };
        Ok(engine.containers()?.db())
    }
}

impl Directory for Neighbours<'_> {
    fn addresses(&self, name: &str) -> Vec<IpAddr> {
        // What cannot be read now is asked of the host's servers, and again by whoever asked.
        let on = |place: &&Joined, name: &str| {
            let linked = place.wanted.links.iter().find(|(_, alias)| alias.eq_ignore_ascii_case(name));
            let name = linked.map_or(name, |(neighbour, _)| neighbour);
            Ok(self.db().and_then(|db| store::resolve(db, place.endpoint.network_id, name)).unwrap_or_default())
        };
        let mut places: Vec<_> = self.places.iter().collect();
        places.sort_by(|a, b| a.way().rank().cmp(&b.way().rank()));
        look_up(&places, |place| &place.endpoint.network, name, on).unwrap_or_default()
    }

    fn name(&self, address: IpAddr) -> Option<String> {
        let db = self.db().ok()?;
        self.places.iter().find_map(|place| networks::name_of(db, place.endpoint.network_id, address).ok()?)
    }

    fn leads_out(&self) -> bool {
        self.places.iter().any(|place| !place.endpoint.internal)
    }
}

impl Connected {
    /// Adds to the container's `/etc/hosts` what could not be known before it had its places: itself, and `--add-host`.
    fn write_hosts(&self, engine: &Engine, container: &Container) -> Result<()> {
        let gateway = self.places.iter().find_map(|place| place.wiring.gateway);
        let gateway = gateway.or(self.places.first().map(|place| place.endpoint.gateway));
        let mut lines = extra_hosts(&container.config, gateway);
        lines.extend(self.places.iter().map(|place| place.hosts(container)));
        append_hosts(engine, container, &lines)
    }
}

/// What `--add-host` says.
pub(super) fn extra_hosts(config: &ContainerConfig, gateway: Option<Ipv4Addr>) -> String {
    let mut lines = String::new();
    for (name, address) in &config.extra_hosts {
        match (address.as_str(), gateway) {
            (HOST_GATEWAY, None) => {}
            (HOST_GATEWAY, Some(gateway)) => lines += &format!("{gateway}\t{name}\n"),
            (address, _) => lines += &format!("{address}\t{name}\n"),
        }
    }
    lines
}

/// What a container's `/etc/hosts` says of itself on a network: its name with its domain, in whichever of the two flags
/// that is, and without.
fn own_hosts(container: &Container, endpoint: &Endpoint) -> String {
    let mut names = plan::hostname(container).to_owned();
    if let Some(domain) = container.config.domainname.as_ref().filter(|domain| !domain.is_empty()) {
        names = format!("{names}.{domain}");
    }
    if let Some((alone, _)) = names.split_once('.') {
        names = format!("{names} {alone}");
    }
    let addresses = [Some(IpAddr::V4(endpoint.address)), endpoint.six.map(|six| six.address.into())];
    addresses.iter().flatten().map(|address| format!("{address}\t{names}\n")).collect()
}

/// What the `/etc/hosts` of a container with this one place says besides loopbacks.
pub(super) fn hosts(container: &Container, endpoint: &Endpoint) -> String {
    extra_hosts(&container.config, Some(endpoint.gateway)) + &own_hosts(container, endpoint)
}

pub(super) fn append_hosts(engine: &Engine, container: &Container, lines: &str) -> Result<()> {
    use std::io::Write;
    let path = engine.paths().container(&container.id).join("hosts");
    let file = File::options().append(true).open(&path);
    file.and_then(|mut file| file.write_all(lines.as_bytes())).map_err(|e| Error::io("write", &path, e))
}

/// Where a published port leads: to an address of its own family if the container has one.
fn destination(port: &PortBinding, endpoint: &Endpoint) -> SocketAddr {
    let container = match (port.host_ip, endpoint.six) {
        (Some(IpAddr::V6(_)), Some(six)) => six.address.into(),
        _ => endpoint.address.into(),
    };
    SocketAddr::new(container, port.container_port)
}

/// What packets for a published port are turned into. `None` for one whose packets cannot be: see [`relay`].
fn forward(port: &PortBinding, endpoint: &Endpoint) -> Option<Forward> {
    let to = destination(port, endpoint);
    let by_six = port.host_ip.is_some_and(|ip| ip.is_ipv6());
    if by_six != to.is_ipv6() || port.host_ip == Some(Ipv6Addr::LOCALHOST.into()) {
        return None;
    }
    let protocol = match port.protocol {
        Protocol::Tcp => libc::IPPROTO_TCP,
        Protocol::Udp => libc::IPPROTO_UDP,
    };
    let host = port.host_ip.filter(|ip| !ip.is_unspecified());
    Some(Forward { protocol: protocol as u8, host, port: port.host_port, to })
}

/// True for who is on an internal network, which has no way out by ports that others publish either.
fn is_shut_in(engine: &Engine, who: SocketAddr) -> Result<bool> {
    if who.ip().is_loopback() {
        return Ok(false);
    }
    let internal = networks::all(engine.containers()?.db())?.into_iter().filter(|network| network.internal);
    let links = Links::open().map_err(|e| Error::os("open a netlink socket", e))?;
    for network in internal {
        let here = match who {
            SocketAddr::V4(who) => networks::overlap((network.address, network.prefix), (*who.ip(), 32)),
            // An address of the link says nothing but on which link it is.
            SocketAddr::V6(who) if who.ip().is_unicast_link_local() => {
                let bridge = links.index(&bridge_name(engine.paths(), network.id));
                bridge.map_err(|e| Error::os("look for a bridge", e))? == Some(who.scope_id())
            }
            SocketAddr::V6(who) => {
                network.six.is_some_and(|six| networks::overlap6((six.address, six.prefix), (*who.ip(), 128)))
            }
        };
        if here {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes away what the kernel has of a container's networks, and its places on them. Called at its end, and for one whose
/// monitor has died.
///
/// # Errors
/// The store's and the kernel's.
pub fn leave(engine: &Engine, container: &Container) -> Result<()> {
    if !super::is_root() {
        return Ok(());
    }
    if container.config.places().is_empty() {
        return Ok(());
    }
    // What a wasm container had of a bridge went with its monitor: see `linux/gate/bridge.rs`.
    for attachment in
        engine.attachments()?.remove(&container.id).filter(|_| wanted(container).is_some()).unwrap_or_default()
    {
        let forwards: Vec<_> = attachment.ports.iter().filter_map(|port| forward(port, &attachment.endpoint)).collect();
        withdraw(engine, &forwards)?;
    }
    if wanted(container).is_some() && engine.containers()?.is_joined(&container.id)? {
        // Its network namespace lives on with another container, which must not keep addresses that are free now.
        let links = Links::open().map_err(|e| Error::os("open a netlink socket", e))?;
        let names = links.names().map_err(|e| Error::os("list network interfaces", e))?;
        let prefix = &outer_name(&container.id, 0);
        let prefix = &prefix[..prefix.len() - 1];
        for name in names.iter().filter(|name| name.starts_with(prefix)) {
            links.remove(name).map_err(|e| Error::os("remove a device", e))?;
        }
    }
    engine.detach_network(&container.id)
}

/// How a wasm container is connected to the bridge of its network, if the network has one. With it comes the lock under
/// which nobody removes the bridge.
///
/// # Errors
/// The store's and the kernel's.
pub fn wiring(engine: &Engine, id: &str, endpoint: &Endpoint) -> Result<Option<(Wiring, File)>> {
    let links = Links::open().map_err(|e| Error::os("open a netlink socket", e))?;
    let name = bridge_name(engine.paths(), endpoint.network_id);
    let bridge = || links.index(&name).map_err(|e| Error::os("look for a bridge", e));
    if bridge()?.is_none() {
        return Ok(None);
    }
    let shared = lock(engine.paths(), Lock::Shared)?;
    let (Some(bridge), Some(network)) = (bridge()?, networks::by_name(engine.containers()?.db(), &endpoint.network)?)
    else {
        return Ok(None);
    };
    Ok(Some((wire(id, endpoint, &network, bridge), shared)))
}

/// Takes a container's device from its bridge, and with it both of its ends.
///
/// # Errors
/// The kernel's.
pub fn unplug(outer: &str) -> Result<()> {
    let removed = Links::open().and_then(|links| links.remove(outer).map(drop));
    removed.map_err(|e| Error::os("take the container from its network", e))
}

/// True when this address of a network is a Linux container's.
///
/// # Errors
/// The store's.
pub fn is_linux(engine: &Engine, network: i64, address: IpAddr) -> Result<bool> {
    let containers = engine.containers()?;
    let Some(id) = networks::holder(containers.db(), network, address)? else { return Ok(false) };
    Ok(containers.get(&id)?.is_some_and(|container| container.backend() == BackendKind::Linux))
}

/// True when packets of the host's to this address would go into a network of this instance. What cannot be told is so.
pub fn leads_inside(paths: &Paths, to: IpAddr) -> bool {
    let prefix = bridge_prefix(paths);
    let way = Links::open().and_then(|links| links.way(to));
    way.map_or(true, |way| way.is_some_and(|name| name.starts_with(&prefix)))
}

/// Tells the wasm containers of these networks that they have bridges now. No lock may be held: they take it.
fn tell_wasm(engine: &Engine, networks: &[i64]) -> Result<()> {
    if networks.is_empty() {
        return Ok(());
    }
    let mut ids = Vec::new();
    for (id, attachments) in engine.attachments()? {
        let here = attachments.iter().any(|attachment| networks.contains(&attachment.endpoint.network_id));
        if here && is_of(engine, &id, BackendKind::Wasm)? {
            ids.push(id);
        }
    }
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    // One that cannot be told now looks by itself.
    let _ = client::ask_all(engine, &ids, &Request::Bridged);
    Ok(())
}

fn withdraw(engine: &Engine, forwards: &[Forward]) -> Result<()> {
    if forwards.is_empty() {
        return Ok(());
    }
    let table = table(engine.paths());
    let withdrawn = Firewall::open(&table).and_then(|firewall| firewall.withdraw(forwards));
    withdrawn.map_err(|e| Error::os("withdraw ports by nf_tables", e))?;
    conntrack::forget(forwards).map_err(|e| Error::os("forget the exchanges of withdrawn ports", e))
}

/// Removes what the kernel has of a network. The lock is held.
fn remove_bridge(engine: &Engine, network: &Network) -> Result<()> {
    let failed = |e| Error::os("remove a bridge", e);
    let links = Links::open().map_err(failed)?;
    links.remove(&bridge_name(engine.paths(), network.id)).map_err(failed)?;
    let prefix = bridge_prefix(engine.paths());
    if !links.names().map_err(failed)?.iter().any(|name| name.starts_with(&prefix)) {
        return remove_table(engine.paths());
    }
    Ok(())
}

fn remove_table(paths: &Paths) -> Result<()> {
    let removed = Firewall::open(&table(paths)).and_then(|firewall| firewall.remove());
    removed.map_err(|e| Error::os("remove a table of nf_tables", e))
}

/// Takes away what the kernel has of a network that is removed. Its record is gone already.
///
/// # Errors
/// The kernel's.
pub fn forget(engine: &Engine, network: &Network) -> Result<()> {
    if !super::is_root() {
        return Ok(());
    }
    let _lock = lock(engine.paths(), Lock::Exclusive)?;
    remove_bridge(engine, network)
}

/// A container's first process, in the host's network namespace.
#[derive(Debug)]
pub struct Outside(Links);

/// The same, in a network namespace of its own that is not connected yet.
#[derive(Debug)]
pub struct Unconnected {
    /// The host's links, still.
    host: Links,
    own: File,
}

impl Outside {
    /// Opens what it will need of the host.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> Result<Self> {
        Links::open().map(Outside).map_err(|e| Error::os("open a netlink socket", e))
    }

    /// It is now in a namespace of its own. (To be called while the host's /proc is still there.)
    ///
    /// # Errors
    /// The kernel's.
    pub fn leave(self) -> Result<Unconnected> {
        let path = "/proc/self/ns/net";
        Ok(Unconnected { host: self.0, own: File::open(path).map_err(|e| Error::io("open", path, e))? })
    }
}

impl Unconnected {
    /// Connects it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn connect(self, wirings: &[Wiring]) -> Result<()> {
        wirings.iter().try_for_each(|wiring| make_pair(&self.host, &self.own, wiring))?;
        Links::open().and_then(|links| links.settle(wirings)).map_err(not_connected)
    }
}

/// In the network namespace of a container whose packets a program sends on to wherever they say: none of them is for the
/// host's loopback.
///
/// # Errors
/// The kernel's.
pub fn keep_loopback() -> Result<()> {
    firewall::keep_loopback().map_err(|e| {
        Error::new(Class::Unsupported, format!("the packet filter (nf_tables) cannot be set up: {e}"))
            .with_hint("without it the host's loopback would not be its own: use --network host or --network none")
    })
}

/// Settles a device that is there already, and whose other end nobody but a program has.
///
/// # Errors
/// The kernel's.
pub fn settle_alone(wiring: &Wiring) -> Result<()> {
    Links::open().and_then(|links| links.settle_alone(wiring)).map_err(not_connected)
}

fn not_connected(e: Errno) -> Error {
    Error::os("connect the container to its network", e)
}

/// Makes the devices of a place, for a container with this network namespace.
fn make_pair(host: &Links, own: &File, wiring: &Wiring) -> Result<()> {
    let pair = host.make_pair(wiring, own.as_fd()).or_else(|e| match e {
        // Of a namespace that ends at this moment.
        Errno::EXIST => {
            host.remove(&wiring.outer)?;
            host.make_pair(wiring, own.as_fd())
        }
        e => Err(e),
    });
    pair.map_err(not_connected)
}

/// A network with the number of its bridge.
type Bridged = (Network, u32);

/// The networks, with their bridges in place (by number) and the firewall's table; and the numbers of the networks whose
/// bridges are new. With them comes the lock under which nobody removes them until the container has its places.
fn ensure(engine: &Engine, names: &[&str], links: &Links) -> Result<(Vec<Bridged>, Vec<i64>, File)> {
    let table = table(engine.paths());
    let mut new = Vec::new();
    loop {
        let shared = lock(engine.paths(), Lock::Shared)?;
        let firewall = Firewall::open(&table).map_err(no_filter)?;
        let found = find(engine, names, links)?;
        let ready: Option<Vec<_>> = found.iter().map(|(network, index)| Some((network.clone(), (*index)?))).collect();
        if let Some(ready) = ready
            && firewall.exists().map_err(no_filter)?
        {
            return Ok((ready, new, shared));
        }
        drop(shared);
        let _lock = lock(engine.paths(), Lock::Exclusive)?;
        // Which addresses are free is a question to the whole host, so those who choose stand in one line.
        let _host = lock_file(Path::new("/run/wharf-network.lock"), Lock::Exclusive)?;
        for (network, index) in find(engine, names, links)? {
            if index.is_none() {
                new.push(network.id);
            }
            let network = place(engine, network, links)?;
            make(&network, &bridge_name(engine.paths(), network.id), links)?;
        }
        firewall.write(&zones(engine)?, &forwards(engine)?).map_err(no_filter)?;
    }
}

/// The networks of these names, with their bridges' numbers.
fn find(engine: &Engine, names: &[&str], links: &Links) -> Result<Vec<(Network, Option<u32>)>> {
    let db = engine.containers()?.db();
    let one = |name: &&str| {
        let network = networks::by_name(db, name)?.ok_or_else(|| networks::no_such(name))?;
        let index = links.index(&bridge_name(engine.paths(), network.id));
        Ok((network, index.map_err(|e| Error::os("look for a bridge", e))?))
    };
    names.iter().map(one).collect()
}

fn no_filter(e: Errno) -> Error {
    Error::new(Class::Unsupported, format!("the packet filter (nf_tables) cannot be set up: {e}"))
        .with_hint("bridges need a kernel with nf_tables: use --network host or --network none")
}

fn make(network: &Network, bridge: &str, links: &Links) -> Result<()> {
    let failed = |e| Error::os("make a bridge", e);
    let Network { gateway, prefix, .. } = network;
    links.make_bridge(bridge, *gateway, *prefix, network.mtu()).map_err(failed)?;
    set("/proc/sys/net/ipv4/ip_forward", "1")?;
    // For the answers to connections that this host makes to 127.0.0.1; see the firewall's chain `raw`.
    set(&format!("/proc/sys/net/ipv4/conf/{bridge}/route_localnet"), "1")?;
    let own = format!("/proc/sys/net/ipv6/conf/{bridge}");
    if !Path::new(&own).exists() {
        return match network.six {
            None => Ok(()),
            Some(_) => Err(Error::new(Class::Unsupported, "this kernel has no IPv6")),
        };
    }
    // What containers say of routes is not believed (CVE-2020-13401), and where they have no such addresses the host has
    // none among them either.
    set(&format!("{own}/accept_ra"), "0")?;
    let Some(six) = network.six else { return set(&format!("{own}/disable_ipv6"), "1") };
    forward_six()?;
    links.add_address6(bridge, six.gateway, six.prefix).map_err(failed)
}

/// Lets the host pass on IPv6. Where it learns its own way out from its neighbours it goes on doing so, which a host that
/// passes on does not do unless told (`accept_ra` 2, <https://docs.kernel.org/networking/ip-sysctl.html>).
fn forward_six() -> Result<()> {
    const ALL: &str = "/proc/sys/net/ipv6/conf/all/forwarding";
    if fs::read(ALL).is_ok_and(|value| value.starts_with(b"1")) {
        return Ok(());
    }
    let dir = "/proc/sys/net/ipv6/conf";
    for interface in fs::read_dir(dir).map_err(|e| Error::io("read", dir, e))?.flatten() {
        let path = interface.path().join("accept_ra");
        if fs::read(&path).is_ok_and(|value| value.starts_with(b"1")) {
            // An interface may go at any time.
            let _ = fs::write(&path, "2");
        }
    }
    set(ALL, "1")
}

/// Sets a switch of the kernel's, unless it is set so.
fn set(path: &str, value: &str) -> Result<()> {
    if fs::read(path).is_ok_and(|now| now.starts_with(value.as_bytes())) {
        return Ok(());
    }
    fs::write(path, value).map_err(|e| Error::io("write", path, e))
}

/// Gives the network other addresses if the host has some of them elsewhere. Nobody may be on it then.
fn place(engine: &Engine, network: Network, links: &Links) -> Result<Network> {
    let failed = |e| Error::os("list the host's addresses", e);
    let own = links.index(&bridge_name(engine.paths(), network.id)).map_err(failed)?;
    let taken: Vec<_> =
        links.addresses().map_err(failed)?.into_iter().filter(|(_, _, index)| Some(*index) != own).collect();
    let is_free = |first: Ipv4Addr, prefix: u8| {
        !taken.iter().any(|(ip, length, _)| networks::overlap((first, prefix), (*ip, *length)))
    };
    if is_free(network.address, network.prefix) {
        return Ok(network);
    }
    let db = engine.containers()?.db();
    if !network.is_movable || networks::is_used(db, network.id)? {
        let message = format!(
            "network {}: its addresses {}/{} are the host's too",
            network.name, network.address, network.prefix
        );
        return Err(Error::new(Class::Conflict, message).with_hint("make a network with another --subnet"));
    }
    networks::relocate(db, network.id, &is_free)
}

/// Before a container comes to a network without needing its bridge: if it is the first, the network is to have no
/// addresses of the host's, or the bridge could not be made when it is needed and the addresses are given.
///
/// # Errors
/// The store's and the kernel's.
pub fn settle(engine: &Engine, name: &str) -> Result<()> {
    let db = engine.containers()?.db();
    let Some(network) = networks::by_name(db, name)? else { return Ok(()) };
    let links = Links::open().map_err(|e| Error::os("open a netlink socket", e))?;
    let bridge =
        links.index(&bridge_name(engine.paths(), network.id)).map_err(|e| Error::os("look for a bridge", e))?;
    let fits = bridge.is_some() || !network.is_movable || is_free(network.address, network.prefix);
    if fits || networks::is_used(db, network.id)? {
        return Ok(());
    }
    let _lock = lock(engine.paths(), Lock::Exclusive)?;
    match place(engine, network, &links) {
        // Somebody was faster.
        Err(e) if e.class() == Class::Conflict => Ok(()),
        placed => placed.map(drop),
    }
}

/// True when the host has none of these addresses.
pub fn is_free(first: Ipv4Addr, prefix: u8) -> bool {
    let addresses = Links::open().and_then(|links| links.addresses());
    addresses.is_ok_and(|all| !all.iter().any(|(ip, length, _)| networks::overlap((first, prefix), (*ip, *length))))
}

/// The same of IPv6.
pub fn is_free6(first: Ipv6Addr, prefix: u8) -> bool {
    let addresses = Links::open().and_then(|links| links.addresses6());
    addresses.is_ok_and(|all| !all.iter().any(|own| networks::overlap6((first, prefix), *own)))
}

fn zones(engine: &Engine) -> Result<Vec<Zone>> {
    let networks = networks::all(engine.containers()?.db())?;
    let zone = |network: &Network| Zone {
        bridge: bridge_name(engine.paths(), network.id),
        network: network.address,
        prefix: network.prefix,
        six: network.six.map(|six| (six.address, six.prefix)),
        internal: network.internal,
    };
    Ok(networks.iter().map(zone).collect())
}

/// The published ports of all Linux containers.
fn forwards(engine: &Engine) -> Result<Vec<Forward>> {
    let mut all = Vec::new();
    for (_, attachments) in attached(engine)? {
        let ports = attachments.iter().flat_map(|a| a.ports.iter().map(move |port| (port, &a.endpoint)));
        all.extend(ports.filter_map(|(port, endpoint)| forward(port, endpoint)));
    }
    Ok(all)
}

/// The places of all Linux containers, with their ids.
fn attached(engine: &Engine) -> Result<Vec<(String, Vec<Attachment>)>> {
    let mut attached = Vec::new();
    for (id, places) in engine.attachments()? {
        if is_of(engine, &id, BackendKind::Linux)? {
            attached.push((id, places));
        }
    }
    Ok(attached)
}

/// True for a container of this backend.
fn is_of(engine: &Engine, id: &str, backend: BackendKind) -> Result<bool> {
    Ok(engine.containers()?.get(id)?.is_some_and(|container| container.backend() == backend))
}

/// How the lock of an instance's networks is held.
#[derive(Debug, Clone, Copy)]
enum Lock {
    /// Nobody may remove or rewrite.
    Shared,
    /// Nobody else may do anything.
    Exclusive,
}

fn lock(paths: &Paths, how: Lock) -> Result<File> {
    paths::make_dir(&paths.run)?;
    lock_file(&paths.run.join("network.lock"), how)
}

fn lock_file(path: &Path, how: Lock) -> Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(|e| Error::io("open", path, e))?;
    match how {
        Lock::Shared => file.lock_shared(),
        Lock::Exclusive => file.lock(),
    }
    .map_err(|e| Error::io("lock", path, e))?;
    Ok(file)
}

/// True for the instance of the host, whose bridges stay when nobody is on them.
fn is_lasting(paths: &Paths) -> bool {
    paths.root == Path::new(LASTING)
}

const LASTING: &str = "/var/lib/wharf";

/// Tells instances apart in names that the whole host shares: empty for the host's own.
fn mark(paths: &Paths) -> String {
    if is_lasting(paths) {
        return String::new();
    }
    Digest::of(paths.root.as_os_str().as_encoded_bytes()).hex()[..6].to_owned()
}

/// The name of the instance's table.
fn table(paths: &Paths) -> String {
    format!("wharf{}", mark(paths))
}

/// How the names of the instance's bridges begin; at most 15 bytes are an interface's name.
fn bridge_prefix(paths: &Paths) -> String {
    if is_lasting(paths) { "wharf".to_owned() } else { format!("wh{}-", mark(paths)) }
}

/// The host's device of a network, which is made when it is first needed; `None` for who may not make any.
pub fn device(paths: &Paths, network: &Network) -> Option<String> {
    super::is_root().then(|| bridge_name(paths, network.id))
}

fn bridge_name(paths: &Paths, network: i64) -> String {
    format!("{}{}", bridge_prefix(paths), network - 1)
}

/// The name of a container's device on the host.
fn outer_name(id: &str, number: u8) -> String {
    // At most 15 bytes are an interface's name: a 37th network would be one too many.
    let digit = char::from_digit(u32::from(number), 36).unwrap_or('z');
    format!("wv{}{digit}", &id[..id.len().min(12)])
}
