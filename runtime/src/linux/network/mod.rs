//! The networks of Linux containers: a bridge of the host for each network, a pair of virtual Ethernet devices for each
//! container, one table of the packet filter for each instance.
//!
//! What the kernel has of it is made when it is first needed and can be made again at any time from the store, which alone
//! knows what should be. The instance of the host (`/var/lib/wharf`) keeps its bridges; one with another root removes them
//! with the last container that is on them, so that nothing of it outlives its directory. What is made or removed for all
//! is made under a lock; an end that misses it (SIGKILL, power) is made good by the next one who looks.
//!
//! A container's devices go with its network namespace, and that with its last process, whatever happens to its monitor.

pub mod firewall;
pub mod links;
pub mod names;
pub mod netlink;

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Instant;

use rustix::io::Errno;
use wharf_images::Digest;

use self::firewall::{Firewall, Forward, Zone};
use self::links::{Links, Place};
use self::names::{Answerer, Directory, Wake};
use super::{monitor, sockets};
use crate::config::{HOST_GATEWAY, NetworkMode};
use crate::container::{BackendKind, Container};
use crate::engine::Engine;
use crate::error::{Class, Error, Result};
use crate::monitor::protocol::Request;
use crate::network::networks::{self, Network, Wiring};
use crate::network::{BRIDGE, Endpoint, PortBinding, Protocol};
use crate::paths::{self, Paths};
use crate::plan;

/// The network that a Linux container is to be connected to, if it is to be connected to one.
pub fn wanted(container: &Container) -> Option<&str> {
    match (&container.config.network, container.backend()) {
        (_, BackendKind::Wasm) | (NetworkMode::None | NetworkMode::Host, BackendKind::Linux) => None,
        // Without root there is no bridge: such a container has its loopback.
        (NetworkMode::Default, BackendKind::Linux) => super::is_root().then_some(BRIDGE),
        (NetworkMode::Named(name), BackendKind::Linux) => Some(name),
    }
}

/// A Linux container's connection to its network, as its monitor holds it.
#[derive(Debug)]
pub struct Connected {
    network: String,
    ports: Vec<PortBinding>,
    /// The host's side of published ports: held so that nobody else takes them, and reports of who tries are docker's.
    sockets: Vec<File>,
    endpoint: Option<Endpoint>,
    wiring: Option<Wiring>,
    forwards: Vec<Forward>,
    /// Whom to ask about other names.
    dns: Vec<IpAddr>,
    names: Option<Answerer>,
}

impl Connected {
    /// Takes the ports that the container publishes. `None` for one that has no network.
    ///
    /// # Errors
    /// `Conflict`, in docker's words, when one is taken; `Unsupported` without root.
    pub fn reserve(container: &Container) -> Result<Option<Self>> {
        let published = plan::published(&container.config, &container.image)?;
        let Some(network) = wanted(container) else { return Ok(None) };
        if !super::is_root() {
            let message = format!("network {network}: only root can connect Linux containers to a bridge");
            return Err(Error::new(Class::Unsupported, message)
                .with_hint("use --network host or --network none, or run wharf as root"));
        }
        let (mut ports, mut held) = (Vec::new(), Vec::new());
        for wanted in published {
            // The packet filter forwards IPv4; a port is not claimed for addresses on which nobody would answer.
            let wanted = PortBinding { host_ip: wanted.host_ip.or(Some(Ipv4Addr::UNSPECIFIED.into())), ..wanted };
            if wanted.host_ip.is_some_and(|ip| ip.is_ipv6()) {
                let message = format!("{wanted}: ports of Linux containers are published on IPv4 addresses only");
                return Err(Error::new(Class::Unsupported, message));
            }
            for (binding, socket) in sockets::publish(&wanted)? {
                ports.push(binding);
                held.push(socket);
            }
        }
        let network = network.to_owned();
        Ok(Some(Connected {
            network,
            ports,
            sockets: held,
            endpoint: None,
            wiring: None,
            forwards: Vec::new(),
            dns: container.config.dns.clone(),
            names: None,
        }))
    }

    /// Takes the container's place on the network, whose bridge is made if need be.
    ///
    /// # Errors
    /// The store's and the kernel's.
    pub fn join(&mut self, engine: &Engine, container: &Container) -> Result<Wiring> {
        let links = Links::open().map_err(|e| Error::os("open a netlink socket", e))?;
        let (network, bridge, new, lock) = ensure(engine, &self.network, &links)?;
        let aliases = &container.config.network_aliases;
        let endpoint = engine.attach_network(&container.id, &self.network, aliases, &self.ports)?;
        self.forwards = self.ports.iter().filter_map(|port| forward(port, &endpoint)).collect();
        let connection = Wiring {
            bridge,
            outer: outer_name(&container.id, 0),
            inner: "eth0".to_owned(),
            address: endpoint.address,
            prefix: endpoint.prefix,
            gateway: (!network.internal).then_some(endpoint.gateway),
            mtu: network.mtu(),
            hairpin: !self.ports.is_empty(),
        };
        write_hosts(engine, container, &endpoint)?;
        drop(lock);
        if new {
            tell_wasm(engine, network.id)?;
        }
        self.endpoint = Some(endpoint);
        self.wiring = Some(connection.clone());
        Ok(connection)
    }

    /// Lets go of the published ports: from here on others can have them.
    ///
    /// # Errors
    /// The kernel's.
    pub fn close(&mut self, engine: &Engine) -> Result<()> {
        let withdrawn = withdraw(engine, &self.forwards);
        self.forwards.clear();
        self.sockets.clear();
        withdrawn
    }

    /// Answers on this socket what the container asks about names.
    pub fn answer(&mut self, socket: File) {
        self.names = Some(Answerer::new(socket, &self.dns));
    }

    /// What to poll for reading.
    pub fn polls(&self) -> impl Iterator<Item = (Wake, BorrowedFd<'_>)> {
        self.names.iter().flat_map(Answerer::polls)
    }

    /// When to call [`Connected::on_time`].
    pub fn deadline(&self) -> Option<Instant> {
        self.names.as_ref().and_then(Answerer::deadline)
    }

    /// Gives up what took too long.
    pub fn on_time(&mut self, now: Instant) {
        if let Some(names) = &mut self.names {
            names.on_time(now);
        }
    }

    /// Does what has become possible.
    pub fn woken(&mut self, wake: Wake, engine: &Engine) {
        if let (Some(names), Some(endpoint)) = (&mut self.names, &self.endpoint) {
            names.woken(wake, &Neighbours { engine, network: endpoint.network_id });
        }
    }

    /// The place that it has, for a task that takes another one's place.
    ///
    /// # Errors
    /// The disk's.
    pub fn again(&self, engine: &Engine, container: &Container) -> Result<&Wiring> {
        let (Some(endpoint), Some(wiring)) = (&self.endpoint, &self.wiring) else {
            return Err(Error::new(Class::Internal, "the container has no place on its network"));
        };
        write_hosts(engine, container, endpoint)?;
        Ok(wiring)
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
        published.map_err(|e| Error::os("publish ports by nf_tables", e))
    }
}

/// The names on a network, from the store.
struct Neighbours<'a> {
    engine: &'a Engine,
    network: i64,
}

impl Directory for Neighbours<'_> {
    fn addresses(&self, name: &str) -> Vec<Ipv4Addr> {
        // What cannot be read now is asked of the host's servers, and again by whoever asked.
        self.engine.resolve(self.network, name).unwrap_or_default()
    }

    fn name(&self, address: Ipv4Addr) -> Option<String> {
        let db = self.engine.containers().ok()?.db();
        networks::name_of(db, self.network, address).ok()?
    }
}

/// Adds to the container's `/etc/hosts` what could not be known before it had its place: itself, and `--add-host`.
fn write_hosts(engine: &Engine, container: &Container, endpoint: &Endpoint) -> Result<()> {
    use std::io::Write;
    let path = engine.paths().container(&container.id).join("hosts");
    let mut lines = String::new();
    for (name, address) in &container.config.extra_hosts {
        let address = match address.as_str() {
            HOST_GATEWAY => endpoint.gateway.to_string(),
            address => address.to_owned(),
        };
        lines += &format!("{address}\t{name}\n");
    }
    lines += &format!("{}\t{}\n", endpoint.address, plan::hostname(container));
    let file = File::options().append(true).open(&path);
    file.and_then(|mut file| file.write_all(lines.as_bytes())).map_err(|e| Error::io("write", &path, e))
}

/// What packets for a published port are turned into.
fn forward(port: &PortBinding, endpoint: &Endpoint) -> Option<Forward> {
    let host = match port.host_ip {
        Some(IpAddr::V4(ip)) => (!ip.is_unspecified()).then_some(ip),
        Some(IpAddr::V6(_)) => return None,
        None => None,
    };
    let protocol = match port.protocol {
        Protocol::Tcp => libc::IPPROTO_TCP,
        Protocol::Udp => libc::IPPROTO_UDP,
    };
    let to = SocketAddrV4::new(endpoint.address, port.container_port);
    Some(Forward { protocol: protocol as u8, host, port: port.host_port, to })
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
    let Some(network) = wanted(container) else { return leave_virtual(engine, container) };
    for attachment in engine.attachments()?.remove(&container.id).unwrap_or_default() {
        let forwards: Vec<_> = attachment.ports.iter().filter_map(|port| forward(port, &attachment.endpoint)).collect();
        withdraw(engine, &forwards)?;
    }
    engine.detach_network(&container.id)?;
    if is_lasting(engine.paths()) { Ok(()) } else { remove_unused(engine, network) }
}

/// Takes away a wasm container's places, and the bridges on which it was the last. (What it had of a bridge went with its
/// monitor: see `linux/gate/bridge.rs`.)
fn leave_virtual(engine: &Engine, container: &Container) -> Result<()> {
    let (NetworkMode::Default | NetworkMode::Named(_), BackendKind::Wasm) =
        (&container.config.network, container.backend())
    else {
        return Ok(());
    };
    engine.detach_network(&container.id)?;
    let name = match &container.config.network {
        NetworkMode::Named(name) => name,
        _ => BRIDGE,
    };
    let links = Links::open().map_err(|e| Error::os("open a netlink socket", e))?;
    let Some(network) = networks::by_name(engine.containers()?.db(), name)? else { return Ok(()) };
    let bridge =
        links.index(&bridge_name(engine.paths(), network.id)).map_err(|e| Error::os("look for a bridge", e))?;
    if bridge.is_none() || is_lasting(engine.paths()) { Ok(()) } else { remove_unused(engine, name) }
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
    let wiring = Wiring {
        bridge,
        outer: outer_name(id, 0),
        inner: "eth0".to_owned(),
        address: endpoint.address,
        prefix: endpoint.prefix,
        gateway: None,
        mtu: network.mtu(),
        hairpin: false,
    };
    Ok(Some((wiring, shared)))
}

/// True when this address of a network is a Linux container's.
///
/// # Errors
/// The store's.
pub fn is_linux(engine: &Engine, network: i64, address: Ipv4Addr) -> Result<bool> {
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

/// Tells the wasm containers of a network that it has a bridge now. No lock may be held: they take it.
fn tell_wasm(engine: &Engine, network: i64) -> Result<()> {
    let mut ids = Vec::new();
    for (id, attachments) in engine.attachments()? {
        let here = attachments.iter().any(|attachment| attachment.endpoint.network_id == network);
        if here && engine.containers()?.get(&id)?.is_some_and(|container| container.backend() == BackendKind::Wasm) {
            ids.push(id);
        }
    }
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    // One that cannot be told now looks by itself.
    let _ = monitor::ask_all(engine, &ids, &Request::Bridged);
    Ok(())
}

fn withdraw(engine: &Engine, forwards: &[Forward]) -> Result<()> {
    if forwards.is_empty() {
        return Ok(());
    }
    let table = table(engine.paths());
    let withdrawn = Firewall::open(&table).and_then(|firewall| firewall.withdraw(forwards));
    withdrawn.map_err(|e| Error::os("withdraw ports by nf_tables", e))
}

/// Removes the bridge of a network that nobody is on, and with the last bridge the firewall's table.
fn remove_unused(engine: &Engine, network: &str) -> Result<()> {
    let _lock = lock(engine.paths(), Lock::Exclusive)?;
    let Some(network) = networks::by_name(engine.containers()?.db(), network)? else { return Ok(()) };
    if networks::is_used(engine.containers()?.db(), network.id)? {
        return Ok(());
    }
    remove_bridge(engine, &network)
}

/// Removes what the kernel has of a network. The lock is held.
fn remove_bridge(engine: &Engine, network: &Network) -> Result<()> {
    let failed = |e| Error::os("remove a bridge", e);
    let links = Links::open().map_err(failed)?;
    links.remove(&bridge_name(engine.paths(), network.id)).map_err(failed)?;
    let prefix = bridge_prefix(engine.paths());
    let table = table(engine.paths());
    if !links.names().map_err(failed)?.iter().any(|name| name.starts_with(&prefix)) {
        let removed = Firewall::open(&table).and_then(|firewall| firewall.remove());
        return removed.map_err(|e| Error::os("remove a table of nf_tables", e));
    }
    Ok(())
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

/// What the kernel has of this instance's networks and no record knows.
///
/// # Errors
/// The store's and the kernel's.
pub fn strays(engine: &Engine) -> Result<Vec<String>> {
    let failed = |e| Error::os("list network interfaces", e);
    let known: Vec<String> = networks::all(engine.containers()?.db())?
        .iter()
        .map(|network| bridge_name(engine.paths(), network.id))
        .collect();
    let prefix = bridge_prefix(engine.paths());
    let names = Links::open().and_then(|links| links.names()).map_err(failed)?;
    Ok(names.into_iter().filter(|name| name.starts_with(&prefix) && !known.contains(name)).collect())
}

/// Removes what [`strays`] finds. Returns how many there were.
///
/// # Errors
/// As [`strays`].
pub fn sweep(engine: &Engine) -> Result<usize> {
    let _lock = lock(engine.paths(), Lock::Exclusive)?;
    let strays = strays(engine)?;
    let links = Links::open().map_err(|e| Error::os("open a netlink socket", e))?;
    for name in &strays {
        links.remove(name).map_err(|e| Error::os("remove a bridge", e))?;
    }
    Ok(strays.len())
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
    pub fn connect(self, wiring: &Wiring) -> Result<()> {
        connect(&self.host, &self.own, wiring)
    }
}

fn connect(host: &Links, own: &File, wiring: &Wiring) -> Result<()> {
    let failed = |e: Errno| Error::os("connect the container to its network", e);
    let pair = host.make_pair(wiring, own.as_fd()).or_else(|e| match e {
        // Of a namespace that ends at this moment.
        Errno::EXIST => {
            host.remove(&wiring.outer)?;
            host.make_pair(wiring, own.as_fd())
        }
        e => Err(e),
    });
    pair.map_err(failed)?;
    let place = Place { address: wiring.address, prefix: wiring.prefix, gateway: wiring.gateway };
    Links::open().and_then(|links| links.settle(&wiring.inner, place)).map_err(failed)
}

/// The network, with its bridge in place (by number; and true if it is new) and the firewall's table. With it comes the lock under which nobody
/// removes them until the container has its place.
fn ensure(engine: &Engine, name: &str, links: &Links) -> Result<(Network, u32, bool, File)> {
    let db = engine.containers()?.db();
    let table = table(engine.paths());
    let mut new = false;
    loop {
        let shared = lock(engine.paths(), Lock::Shared)?;
        let network = networks::by_name(db, name)?.ok_or_else(|| networks::no_such(name))?;
        let bridge = bridge_name(engine.paths(), network.id);
        let index = links.index(&bridge).map_err(|e| Error::os("look for a bridge", e))?;
        let firewall = Firewall::open(&table).map_err(no_filter)?;
        if let Some(index) = index
            && firewall.exists().map_err(no_filter)?
        {
            return Ok((network, index, new, shared));
        }
        drop(shared);
        let _lock = lock(engine.paths(), Lock::Exclusive)?;
        // Which addresses are free is a question to the whole host, so those who choose stand in one line.
        let _host = lock_file(Path::new("/run/wharf-network.lock"), Lock::Exclusive)?;
        let network = place(engine, network, links)?;
        new |= index.is_none();
        make(&network, &bridge, links)?;
        firewall.write(&zones(engine)?, &forwards(engine)?).map_err(no_filter)?;
    }
}

fn no_filter(e: Errno) -> Error {
    Error::new(Class::Unsupported, format!("the packet filter (nf_tables) cannot be set up: {e}"))
        .with_hint("bridges need a kernel with nf_tables: use --network host or --network none")
}

fn make(network: &Network, bridge: &str, links: &Links) -> Result<()> {
    let failed = |e| Error::os("make a bridge", e);
    let Network { gateway, prefix, .. } = network;
    links.make_bridge(bridge, *gateway, *prefix, network.mtu()).map_err(failed)?;
    set("/proc/sys/net/ipv4/ip_forward")?;
    // For the answers to connections that this host makes to 127.0.0.1; see the firewall's chain `raw`.
    set(&format!("/proc/sys/net/ipv4/conf/{bridge}/route_localnet"))?;
    Ok(())
}

/// Sets a switch of the kernel's, unless it is set.
fn set(path: &str) -> Result<()> {
    if fs::read(path).is_ok_and(|value| value.starts_with(b"1")) {
        return Ok(());
    }
    fs::write(path, "1").map_err(|e| Error::io("write", path, e))
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
    let free = networks::pools().find(|(first, prefix)| is_free(*first, *prefix));
    let (first, prefix) =
        free.ok_or_else(|| Error::new(Class::LimitExceeded, "all predefined address pools are used"))?;
    networks::relocate(db, network.id, first, prefix)
}

/// True when the host has none of these addresses.
pub fn is_free(first: Ipv4Addr, prefix: u8) -> bool {
    let addresses = Links::open().and_then(|links| links.addresses());
    addresses.is_ok_and(|all| !all.iter().any(|(ip, length, _)| networks::overlap((first, prefix), (*ip, *length))))
}

fn zones(engine: &Engine) -> Result<Vec<Zone>> {
    let networks = networks::all(engine.containers()?.db())?;
    let zone = |network: &Network| Zone {
        bridge: bridge_name(engine.paths(), network.id),
        network: network.address,
        prefix: network.prefix,
        internal: network.internal,
    };
    Ok(networks.iter().map(zone).collect())
}

/// The published ports of all Linux containers.
fn forwards(engine: &Engine) -> Result<Vec<Forward>> {
    let mut all = Vec::new();
    for (id, attachments) in engine.attachments()? {
        let linux = engine.containers()?.get(&id)?.is_some_and(|container| container.backend() == BackendKind::Linux);
        if linux {
            let ports = attachments.iter().flat_map(|a| a.ports.iter().map(move |port| (port, &a.endpoint)));
            all.extend(ports.filter_map(|(port, endpoint)| forward(port, endpoint)));
        }
    }
    Ok(all)
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

fn bridge_name(paths: &Paths, network: i64) -> String {
    format!("{}{}", bridge_prefix(paths), network - 1)
}

/// The name of a container's device on the host.
fn outer_name(id: &str, number: u8) -> String {
    format!("wv{}{number}", &id[..id.len().min(12)])
}
