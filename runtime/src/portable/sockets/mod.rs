//! The network of a guest, in the process that hosts it.
//!
//! What it decides on is the portable part ([`crate::network`]); what is here is where sockets really are:
//!
//! - A *published port* is a socket of the host that is bound before the container is reported as started. While no
//!   guest listens the socket does not either, so connections are refused. While the container is on no network that leads
//!   out they are closed: a listener cannot be told everywhere to refuse them again.
//! - A listener on the container's networks is a port of the loopback that is known by a file for each of them
//!   ([`super::registry`]) and
//!   behind which only who knows its secret is heard ([`doors`]). One on the guest's own loopback has no file.
//! - *Datagrams* between guests go between such ports too ([`datagrams`]).
//! - *Names* are containers' (from the store), else the system is asked.
//!
//! There is no wall around this process: a guest that breaks its sandbox has the network of its user.

mod datagrams;
mod doors;
mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll};

use socket2::{Domain, Socket, Type};
use tokio::task::JoinHandle;

use self::datagrams::{Inbox, Packets};
use self::doors::{Door, Doors};
use self::stream::{Later, Stream};
use super::hosted::Plan;
use super::{registry, system};
use crate::engine::Engine;
use crate::error::Result;
use crate::network::grants::{Denial, Grants, HOST_NAME, canonical_name, is_name};
use crate::network::r#virtual::{
    PortTable, Route, called, given, host, is_internal, look_up, loopback_like, on, own_addresses, reached, route,
    source, towards,
};
use crate::network::{
    Bound, Connected, Connection, Datagrams, Endpoint, Fault, Listener, Lookup, PortBinding, Protocol, VirtualNetwork,
    WasmMode, WasmNetwork, publish,
};

/// The most sockets that a guest may have bound.
const MOST_BOUND: usize = 4096;
/// A guest that is denied at random fills no log.
const MOST_DENIALS: usize = 256;
/// How many connections may wait to be accepted.
const BACKLOG: i32 = 4096;

/// The network of one guest.
pub(super) struct Sockets(Arc<Shared>);

/// What the sockets of a guest have in common.
struct Shared {
    engine: Engine,
    network: WasmNetwork,
    names: Vec<String>,
    /// Names that were given addresses by hand.
    hosts: Vec<(String, String)>,
    dir: PathBuf,
    /// In the order in which they lead out.
    places: RwLock<Arc<[Endpoint]>>,
    state: Mutex<State>,
}

struct State {
    grants: Grants,
    denied: BTreeSet<String>,
    ports: PortTable,
    bound: BTreeMap<u64, Local>,
    next: u64,
    published: Vec<Published>,
}

/// A port of the host.
struct Published {
    binding: PortBinding,
    /// Unless a guest or a server of ours has it.
    socket: Option<Socket>,
}

/// A local address that the guest has taken.
struct Local {
    protocol: Protocol,
    address: SocketAddr,
    /// The word of the door where its own container calls it.
    word: Option<String>,
    /// Where its neighbours find that: one for each network.
    files: Vec<PathBuf>,
    /// On the host's network: the socket itself.
    real: Option<Socket>,
    /// What it receives, of datagrams.
    inbox: Option<Arc<Inbox>>,
}

/// A socket of the host's that is bound to `at`, and does not listen.
fn hold(protocol: Protocol, at: SocketAddr) -> io::Result<Socket> {
    let kind = if protocol == Protocol::Tcp { Type::STREAM } else { Type::DGRAM };
    let socket = Socket::new(Domain::for_address(at), kind, None)?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    let lingers = protocol == Protocol::Tcp && system::ASKS_FOR_LINGERING_PORTS;
    if lingers {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&at.into())?;
    if lingers {
        // Two that both say so, and do not listen yet, could have the same port.
        socket.set_reuse_address(false)?;
    }
    Ok(socket)
}

/// Lets connections in on such a socket.
fn listening(socket: Socket) -> io::Result<TcpListener> {
    if system::ASKS_FOR_LINGERING_PORTS {
        socket.set_reuse_address(true)?;
    }
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn port_of(socket: &Socket, wanted: SocketAddr) -> SocketAddr {
    socket.local_addr().ok().and_then(|at| at.as_socket()).unwrap_or(wanted)
}

impl Sockets {
    /// The network of a container with this plan. The published ports are bound.
    ///
    /// # Errors
    /// `Conflict`, in docker's words, when one is taken.
    pub fn new(engine: Engine, network: &WasmNetwork, plan: &Plan) -> Result<Self> {
        let mut published = Vec::new();
        for wanted in &network.published {
            let bound = publish::bind(wanted, |at| {
                let socket = hold(wanted.protocol, at)?;
                let port = port_of(&socket, at).port();
                Ok((socket, port))
            })?;
            published.extend(bound.into_iter().map(|(binding, socket)| Published { binding, socket: Some(socket) }));
        }
        let state = State {
            grants: Grants::new(&network.allow, &network.deny),
            denied: BTreeSet::new(),
            ports: PortTable::default(),
            bound: BTreeMap::new(),
            next: 1,
            published,
        };
        Ok(Sockets(Arc::new(Shared {
            dir: registry::directory(&engine)?,
            engine,
            network: network.clone(),
            names: plan.names.clone(),
            hosts: plan.hosts.clone(),
            places: RwLock::new(Arc::new([])),
            state: Mutex::new(state),
        })))
    }

    /// The ports of the host that it has, with what they are really bound to.
    pub fn ports(&self) -> Vec<PortBinding> {
        self.0.state().published.iter().map(|published| published.binding.clone()).collect()
    }

    /// The container's places on its networks from now on, in the order in which they lead out. What is bound is found on
    /// those that are new and no more on those that are gone; connections that exist are not cut.
    ///
    /// # Errors
    /// The disk's, when neighbours do not find all of it.
    pub fn place(&self, places: Vec<Endpoint>) -> io::Result<()> {
        *self.0.places.write().unwrap_or_else(PoisonError::into_inner) = places.into();
        let mut state = self.0.state();
        let mut all_known = Ok(());
        for number in state.bound.keys().copied().collect::<Vec<_>>() {
            if let Some(mut local) = state.bound.remove(&number) {
                all_known = all_known.and(self.0.register(&state, &mut local));
                state.bound.insert(number, local);
            }
        }
        all_known
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn places(&self) -> Arc<[Endpoint]> {
        Arc::clone(&self.places.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// None of its networks has a way out, or in.
    fn is_internal(&self) -> bool {
        is_internal(&self.network.mode, &self.places())
    }

    /// The host, as sockets of this family see it.
    fn gateway(&self, v6: bool) -> IpAddr {
        host(&self.places(), v6).unwrap_or(Ipv4Addr::LOCALHOST.into())
    }

    /// The container's address on the network of this neighbour, for a socket that is bound so.
    fn seen_by(&self, neighbour: SocketAddr, bound: SocketAddr) -> Option<SocketAddr> {
        let places = self.places();
        let own = on(&places, neighbour.ip())?.like(neighbour.ip());
        reached(&places, bound).into_iter().map(|(_, at)| at).find(|at| Some(at.ip()) == own)
    }

    fn file(&self, at: SocketAddr, protocol: Protocol) -> PathBuf {
        registry::file(&self.dir, on(&self.places(), at.ip()).map_or(0, |own| own.network_id), at, protocol)
    }

    /// Makes an address that has a word known to the neighbours on each network, if it is of two families' sockets the
    /// first, and on no other.
    fn register(&self, state: &State, local: &mut Local) -> io::Result<()> {
        let Some(word) = &local.word else { return Ok(()) };
        let mut files: Vec<_> =
            reached(&self.places(), local.address).into_iter().map(|(_, at)| self.file(at, local.protocol)).collect();
        files.retain(|file| !state.bound.values().any(|other| other.files.contains(file)));
        for gone in local.files.extract_if(.., |file| !files.contains(file)) {
            let _ = std::fs::remove_file(gone);
        }
        for file in files {
            if !local.files.contains(&file) {
                registry::write(&file, word)?;
                local.files.push(file);
            }
        }
        Ok(())
    }

    /// Gives back ports of the host that nobody listens on any more.
    fn hold_again(&self, numbers: &[usize]) {
        let mut state = self.state();
        for number in numbers {
            if let Some(Published { binding, socket }) = state.published.get_mut(*number) {
                let at = SocketAddr::new(binding.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), binding.host_port);
                // Somebody else may have been faster: then it is published no more.
                *socket = hold(binding.protocol, at).ok();
            }
        }
    }

    /// Takes the published ports that lead to this address.
    fn take_published(&self, state: &mut State, address: SocketAddr, protocol: Protocol) -> Vec<(usize, Socket)> {
        let wanted = |binding: &PortBinding| (binding.container_port, binding.protocol) == (address.port(), protocol);
        let outward = !address.ip().is_loopback();
        let all = state.published.iter_mut().enumerate();
        all.filter(|(_, published)| outward && wanted(&published.binding))
            .filter_map(|(number, published)| Some((number, published.socket.take()?)))
            .collect()
    }

    fn release(&self, number: u64) {
        let mut state = self.state();
        let Some(local) = state.bound.remove(&number) else { return };
        if local.real.is_none() && self.network.mode != WasmMode::Host {
            state.ports.release(local.protocol, local.address);
        }
        for file in local.files {
            let _ = std::fs::remove_file(file);
        }
    }

    /// The addresses of a name that may be told.
    fn permitted(&self, name: &str, addresses: impl IntoIterator<Item = IpAddr>) -> Result<Vec<IpAddr>, Fault> {
        let mut state = self.state();
        let mut told = Vec::new();
        let mut denied = None;
        for address in addresses {
            match state.grants.check_answer(name, address) {
                Ok(()) => {
                    state.grants.learn(name, address);
                    told.push(address);
                }
                Err(denial) => denied = Some(state.deny(&denial)),
            }
        }
        match denied {
            Some(fault) if told.is_empty() => Err(fault),
            _ => Ok(told),
        }
    }
}

impl State {
    fn deny(&mut self, denial: &Denial) -> Fault {
        if self.denied.len() < MOST_DENIALS && self.denied.insert(denial.target.clone()) {
            // The container's own standard error: its log.
            eprintln!("wharf: {denial}");
        }
        Fault::AccessDenied
    }

    fn port_or_any(&mut self, port: Option<u16>) -> u16 {
        port.unwrap_or_else(|| self.ports.ephemeral())
    }
}

impl VirtualNetwork for Sockets {
    fn bind(&self, protocol: Protocol, local: SocketAddr) -> Result<Bound, Fault> {
        let mut state = self.0.state();
        if state.bound.len() >= MOST_BOUND {
            return Err(Fault::NewSocketLimit);
        }
        let (address, real) = if self.0.network.mode == WasmMode::Host {
            let socket = hold(protocol, local).map_err(Fault::from)?;
            (port_of(&socket, local), Some(socket))
        } else {
            (state.ports.bind(protocol, local, &self.0.places())?, None)
        };
        let number = state.next;
        state.next += 1;
        state.bound.insert(number, Local { protocol, address, word: None, files: Vec::new(), real, inbox: None });
        let shared = Arc::clone(&self.0);
        Ok(Bound::new(address, number, move || shared.release(number)))
    }

    fn listen(&self, bound: &Bound, _backlog: u32) -> Result<Box<dyn Listener>, Fault> {
        let mut state = self.0.state();
        let known = state.bound.get_mut(&bound.id).filter(|l| l.protocol == Protocol::Tcp && l.word.is_none());
        let mut doors = Doors { door: None, published: Vec::new(), bound: bound.address, shared: Arc::clone(&self.0) };
        let real = known.ok_or(Fault::InvalidState)?.real.take();
        let sockets: Vec<(Option<usize>, Socket)> = match real {
            Some(socket) => vec![(None, socket)],
            None => {
                let (door, word) = Door::open()?;
                doors.door = Some(door);
                if let Some(mut local) = state.bound.remove(&bound.id) {
                    local.word = Some(word);
                    let known = self.0.register(&state, &mut local);
                    state.bound.insert(bound.id, local);
                    known.map_err(Fault::from)?;
                }
                let taken = self.0.take_published(&mut state, bound.address, Protocol::Tcp);
                taken.into_iter().map(|(number, socket)| (Some(number), socket)).collect()
            }
        };
        // Should one fail, those that listen are given back with their doors.
        drop(state);
        for (number, socket) in sockets {
            let listener = listening(socket).and_then(tokio::net::TcpListener::from_std).map_err(Fault::from)?;
            doors.published.push((number, listener));
        }
        Ok(Box::new(doors))
    }

    fn connect(&self, from: Option<&Bound>, remote: SocketAddr) -> Result<Connected, Fault> {
        let mut state = self.0.state();
        let local = from.and_then(|bound| state.bound.get_mut(&bound.id));
        let port = local.as_ref().map(|local| local.address.port());
        let real = local.and_then(|local| local.real.take());
        let places = &*self.0.places();
        let later = |local, connection: Later| {
            let connection: Arc<dyn Connection> = Arc::new(connection);
            Ok(Connected { connection, local, remote })
        };
        match route(&self.0.network.mode, places, remote) {
            Route::Own => {
                let listening = state.bound.values().filter(|l| l.protocol == Protocol::Tcp);
                let called = called(listening.map(|l| (l.address, l)), remote);
                let word = called.and_then(|local| local.word.clone()).ok_or(Fault::ConnectionRefused)?;
                let local = source(places, remote.ip(), state.port_or_any(port));
                later(local, Later::new(doors::call(word, local, remote)))
            }
            Route::Neighbour(at) => {
                state.grants.check_neighbour(at).map_err(|denial| state.deny(&denial))?;
                let file = self.0.file(at, Protocol::Tcp);
                let word = std::fs::read_to_string(file).map_err(|_| Fault::ConnectionRefused)?;
                let local = source(places, at.ip(), state.port_or_any(port));
                later(local, Later::new(doors::call(word, local, at)))
            }
            Route::Host(host_port) => {
                state.grants.check_host(host_port).map_err(|denial| state.deny(&denial))?;
                let local = source(places, remote.ip(), state.port_or_any(port));
                later(local, Later::new(outside(None, SocketAddr::new(loopback_like(remote), host_port))))
            }
            Route::Outside => {
                state.grants.check(remote).map_err(|denial| state.deny(&denial))?;
                if self.0.is_internal() {
                    return Err(Fault::RemoteUnreachable);
                }
                let local = match self.0.network.mode {
                    // Which of the host's addresses it is shows only when there is a connection.
                    WasmMode::Host => from.map_or(unspecified(remote), |bound| bound.address),
                    WasmMode::None | WasmMode::Network(_) => source(places, remote.ip(), state.port_or_any(port)),
                };
                later(local, Later::new(outside(real, remote)))
            }
            Route::Nowhere => Err(Fault::RemoteUnreachable),
        }
    }

    fn datagrams(&self, bound: &Bound) -> Result<Arc<dyn Datagrams>, Fault> {
        Ok(Arc::new(Packets::open(&self.0, bound)?))
    }

    fn towards(&self, bound: &Bound, remote: SocketAddr) -> Result<SocketAddr, Fault> {
        Ok(towards(&self.0.network.mode, &self.0.places(), bound.address, remote))
    }

    fn lookup(&self, name: &str) -> Result<Box<dyn Lookup>, Fault> {
        if !is_name(name) {
            return Err(Fault::InvalidArgument);
        }
        let name = canonical_name(name);
        let here = |addresses: Vec<IpAddr>| Ok(Box::new(Answered::Now(Some(addresses))) as Box<dyn Lookup>);
        if name == "localhost" || name.ends_with(".localhost") {
            // RFC 6761, 6.3.
            return here(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let places = &*self.0.places();
        let given = given(&self.0.hosts, places, &name);
        if !given.is_empty() {
            let mut state = self.0.state();
            for address in &given {
                if state.grants.check_answer(&name, *address).is_ok() {
                    state.grants.learn(&name, *address);
                }
            }
            return here(given);
        }
        if let Some(first) = places.first() {
            if self.0.names.iter().any(|n| n.eq_ignore_ascii_case(&name)) {
                return here(own_addresses(places));
            }
            if name == HOST_NAME {
                return here(vec![first.gateway.into()]);
            }
            let find = |own: &Endpoint, name: &str| self.0.engine.resolve(own.network_id, name);
            let found = look_up(places, |own| &own.network, &name, find);
            let found = found.map_err(|_| Fault::TemporaryResolverFailure)?;
            if !found.is_empty() {
                let mut state = self.0.state();
                state.grants.meet(&name, &found).map_err(|denial| state.deny(&denial))?;
                return here(found);
            }
        }
        if self.0.is_internal() {
            return Err(Fault::NameUnresolvable);
        }
        {
            let mut state = self.0.state();
            state.grants.check_name(&name).map_err(|denial| state.deny(&denial))?;
        }
        let shared = Arc::clone(&self.0);
        Ok(Box::new(Answered::Later(tokio::spawn(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await.map_err(|_| Fault::NameUnresolvable)?;
            let addresses: BTreeSet<IpAddr> = found.map(|at| at.ip()).collect();
            shared.permitted(&name, addresses)
        }))))
    }

    fn published(&self) -> io::Result<Vec<(PortBinding, TcpListener)>> {
        let mut state = self.0.state();
        let tcp = state.published.iter_mut().filter(|published| published.binding.protocol == Protocol::Tcp);
        let taken = tcp.filter_map(|published| Some((published.binding.clone(), published.socket.take()?)));
        taken.map(|(binding, socket)| Ok((binding, listening(socket)?))).collect()
    }

    fn lets_in(&self) -> bool {
        !self.0.is_internal()
    }
}

fn unspecified(of: SocketAddr) -> SocketAddr {
    let ip = if of.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    SocketAddr::new(ip, 0)
}

/// Connects on the host's networks, with a socket that is bound already, if there is one.
async fn outside(bound: Option<Socket>, to: SocketAddr) -> Result<Stream, Fault> {
    let socket = match bound {
        Some(socket) => {
            socket.set_nonblocking(true).map_err(Fault::from)?;
            tokio::net::TcpSocket::from_std_stream(socket.into())
        }
        None if to.is_ipv4() => tokio::net::TcpSocket::new_v4().map_err(Fault::from)?,
        None => tokio::net::TcpSocket::new_v6().map_err(Fault::from)?,
    };
    socket.connect(to).await.map(Stream::outward).map_err(Fault::from)
}

/// A name that is looked up: known at once, or when the system has answered.
enum Answered {
    Now(Option<Vec<IpAddr>>),
    Later(JoinHandle<Result<Vec<IpAddr>, Fault>>),
}

impl Lookup for Answered {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<IpAddr>, Fault>> {
        match self {
            Answered::Now(addresses) => Poll::Ready(Ok(addresses.take().unwrap_or_default())),
            Answered::Later(work) => {
                std::pin::Pin::new(work).poll(cx).map(|answer| answer.unwrap_or(Err(Fault::TemporaryResolverFailure)))
            }
        }
    }
}
