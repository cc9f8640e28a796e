//! The network of a container: what it is called, what it may reach, and how a guest's sockets get there.
//!
//! A WebAssembly guest has no kernel to ask for a socket. Its host functions (`wasi:sockets`, `wasi:http`) ask a
//! [`VirtualNetwork`], which is the only way out: it knows the container's address, its own ports, its private loopback
//! and its grants. On Linux the task's process is jailed and cannot make a socket itself, so its `VirtualNetwork`
//! passes each question to the monitor, which opens, binds or connects and passes the descriptor back
//! (`linux/gate.rs`); elsewhere the same questions are answered in the process.
//!
//! Once a connection exists nothing stands between guest and descriptor: no proxy, no copy, no task.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener};
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use serde::{Deserialize, Serialize};

pub mod grants;
pub mod line;
pub mod networks;
pub mod packet;
pub mod ports;
pub(crate) mod publish;
pub(crate) mod recent;
pub mod store;
pub mod r#virtual;

pub use grants::Target;
pub use ports::PortBinding;

pub use crate::linux::Question;

/// The network a container is on when it asks for none by name.
pub const BRIDGE: &str = "bridge";

/// A transport protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Streams.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
}

impl Protocol {
    /// `tcp` or `udp`.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A container's place on a network. It has one while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The network's name.
    pub network: String,
    /// The network's number, by which its sockets are called.
    pub network_id: i64,
    /// The container's address.
    pub address: Ipv4Addr,
    /// The length of the network's prefix.
    pub prefix: u8,
    /// The host, as containers see it.
    pub gateway: Ipv4Addr,
    /// Its IPv6 address, if the network has such addresses.
    pub six: Option<Six>,
    /// Its hardware address.
    pub mac: Mac,
    /// The number of its interface: that of `eth0` is 0.
    pub number: u8,
    /// The network has no way out.
    pub internal: bool,
    /// The names by which others find it, besides its own and its short id.
    pub aliases: Vec<String>,
}

/// A container's IPv6 address on a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Six {
    /// The address.
    pub address: Ipv6Addr,
    /// The length of the network's prefix.
    pub prefix: u8,
    /// The host, as containers see it.
    pub gateway: Ipv6Addr,
}

/// A hardware address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Docker's for an endpoint with this address: `02:42:` and the address.
    pub fn of(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Mac([0x02, 0x42, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = String;

    /// Docker's spellings: six pairs of digits, with `:` or `-` between them.
    fn from_str(text: &str) -> Result<Self, String> {
        let pairs: Vec<_> = text.split([':', '-']).collect();
        let byte = |pair: &&str| match pair.bytes().all(|b| b.is_ascii_hexdigit()) && pair.len() == 2 {
            true => u8::from_str_radix(pair, 16).ok(),
            false => None,
        };
        let bytes: Option<Vec<u8>> = pairs.iter().map(byte).collect();
        let mac = bytes.and_then(|bytes| bytes.try_into().ok()).map(Mac);
        mac.ok_or_else(|| format!("{text} is not a valid mac address"))
    }
}

impl TryFrom<String> for Mac {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

impl Endpoint {
    /// True for the addresses of its network.
    pub fn is_neighbour(&self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
        u32::from(address) & mask == u32::from(self.address) & mask
    }
}

/// What a guest's host functions need of its network besides their sockets: the plan's part of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WasmNetwork {
    /// How it is connected.
    pub mode: WasmMode,
    /// The ports that the host publishes. Whoever serves them asks [`VirtualNetwork::published`] for the listeners.
    pub published: Vec<PortBinding>,
    /// What alone may be reached outside of the container's network (`--allow-net`); all, when empty.
    pub allow: Vec<Target>,
    /// What may not be reached (`--deny-net`).
    pub deny: Vec<Target>,
}

/// How a wasm container is connected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum WasmMode {
    /// Loopback only.
    #[default]
    None,
    /// The host's own network.
    Host,
    /// A virtual network, by name.
    Network(String),
}

/// Why a socket cannot do what it was asked: the error codes of `wasi:sockets/network`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// What no other fault says.
    Unknown,
    /// The container has no grant for it.
    AccessDenied,
    /// This network cannot do it.
    NotSupported,
    /// An argument makes no sense.
    InvalidArgument,
    /// Too much memory would be needed.
    OutOfMemory,
    /// Nobody answered in time.
    Timeout,
    /// Not in this state.
    InvalidState,
    /// There are too many sockets.
    NewSocketLimit,
    /// The address is not one of the container's.
    AddressNotBindable,
    /// Another socket has the address, or no port is free.
    AddressInUse,
    /// There is no way to the address.
    RemoteUnreachable,
    /// Nobody listens there.
    ConnectionRefused,
    /// The other side has cut it off.
    ConnectionReset,
    /// It was given up.
    ConnectionAborted,
    /// The datagram is too long.
    DatagramTooLarge,
    /// There is no such name.
    NameUnresolvable,
    /// The name cannot be looked up now.
    TemporaryResolverFailure,
    /// The name cannot be looked up.
    PermanentResolverFailure,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::error::Error for Fault {}

impl From<&io::Error> for Fault {
    fn from(e: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        match e.kind() {
            Kind::AddrInUse => Fault::AddressInUse,
            Kind::AddrNotAvailable => Fault::AddressNotBindable,
            Kind::ConnectionAborted => Fault::ConnectionAborted,
            Kind::ConnectionRefused | Kind::NotFound => Fault::ConnectionRefused,
            Kind::ConnectionReset | Kind::BrokenPipe => Fault::ConnectionReset,
            Kind::InvalidInput => Fault::InvalidArgument,
            Kind::NotConnected => Fault::InvalidState,
            Kind::OutOfMemory => Fault::OutOfMemory,
            Kind::PermissionDenied => Fault::AccessDenied,
            Kind::TimedOut => Fault::Timeout,
            Kind::Unsupported => Fault::NotSupported,
            Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::NetworkDown => Fault::RemoteUnreachable,
            _ => Fault::Unknown,
        }
    }
}

impl From<io::Error> for Fault {
    fn from(e: io::Error) -> Self {
        Fault::from(&e)
    }
}

/// The network of one container, as the host functions of its guest see it: the authority for every socket.
///
/// Nothing here blocks for longer than a question to a neighbouring process takes.
pub trait VirtualNetwork: Send + Sync {
    /// Takes a local address for a socket. Port 0 takes one that is free; `0.0.0.0` and `::` mean all addresses of the
    /// container, never the host's.
    ///
    /// # Errors
    /// `AddressInUse`, `AddressNotBindable`.
    fn bind(&self, protocol: Protocol, local: SocketAddr) -> Result<Bound, Fault>;

    /// Lets connections in on a bound address: from the container itself, from its network, and from the host if the
    /// port is published.
    ///
    /// # Errors
    /// `AddressInUse`.
    fn listen(&self, bound: &Bound, backlog: u32) -> Result<Box<dyn Listener>, Fault>;

    /// Begins a connection; it exists when it is writable and [`Connection::take_error`] gives none.
    ///
    /// # Errors
    /// `AccessDenied` without a grant, `ConnectionRefused`, `RemoteUnreachable`.
    fn connect(&self, from: Option<&Bound>, remote: SocketAddr) -> Result<Connected, Fault>;

    /// Sends and receives datagrams on a bound address.
    ///
    /// # Errors
    /// `NewSocketLimit`.
    fn datagrams(&self, bound: &Bound) -> Result<Arc<dyn Datagrams>, Fault>;

    /// What a bound address is towards `remote`: the container's own address there, if it stands for all of them.
    ///
    /// # Errors
    /// When whoever knows the networks is gone.
    fn towards(&self, bound: &Bound, remote: SocketAddr) -> Result<SocketAddr, Fault>;

    /// Begins to look up a name (never an address in text).
    ///
    /// # Errors
    /// `NameUnresolvable`, `AccessDenied`.
    fn lookup(&self, name: &str) -> Result<Box<dyn Lookup>, Fault>;

    /// The published TCP ports, each with a listener of the host that is non-blocking and listens from now on: for a
    /// server that is ours (`wasi:http`) and accepts by itself. Before this, or [`VirtualNetwork::listen`], connections
    /// to a published port are refused. A port that was handed out is not handed out again.
    ///
    /// # Errors
    /// The system's.
    fn published(&self) -> io::Result<Vec<(PortBinding, TcpListener)>>;

    /// False while nobody is to be let in by these: no network of the container leads in. Whoever can shut them need not
    /// say so.
    fn lets_in(&self) -> bool {
        true
    }
}

/// No network at all: for guests that import none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unconnected;

impl VirtualNetwork for Unconnected {
    fn bind(&self, _: Protocol, _: SocketAddr) -> Result<Bound, Fault> {
        Err(Fault::AccessDenied)
    }

    fn listen(&self, _: &Bound, _: u32) -> Result<Box<dyn Listener>, Fault> {
        Err(Fault::AccessDenied)
    }

    fn connect(&self, _: Option<&Bound>, _: SocketAddr) -> Result<Connected, Fault> {
        Err(Fault::AccessDenied)
    }

    fn datagrams(&self, _: &Bound) -> Result<Arc<dyn Datagrams>, Fault> {
        Err(Fault::AccessDenied)
    }

    fn towards(&self, _: &Bound, _: SocketAddr) -> Result<SocketAddr, Fault> {
        Err(Fault::AccessDenied)
    }

    fn lookup(&self, _: &str) -> Result<Box<dyn Lookup>, Fault> {
        Err(Fault::AccessDenied)
    }

    fn published(&self) -> io::Result<Vec<(PortBinding, TcpListener)>> {
        Ok(Vec::new())
    }
}

/// A local address that a socket has taken. Dropping it gives the address back.
pub struct Bound {
    /// The address, with its real port.
    pub address: SocketAddr,
    /// Its number on its network.
    pub id: u64,
    release: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Bound {
    /// An address that is given back by `release`.
    pub fn new(address: SocketAddr, id: u64, release: impl FnOnce() + Send + Sync + 'static) -> Self {
        Bound { address, id, release: Some(Box::new(release)) }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some(release) = self.release.take() {
            release();
        }
    }
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bound({})", self.address)
    }
}

/// A connection with its two ends' addresses.
pub struct Connected {
    /// Reads and writes.
    pub connection: Arc<dyn Connection>,
    /// Ours.
    pub local: SocketAddr,
    /// Theirs.
    pub remote: SocketAddr,
}

/// A stream, open in both directions until shut down. Reading and writing never block.
pub trait Connection: Send + Sync {
    /// Reads; `Ok(0)` is the end, `WouldBlock` means wait for [`Connection::poll_readable`].
    ///
    /// # Errors
    /// The stream's.
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Reads `most` bytes at most and puts them behind what is in `buffer`, whose memory need not be cleared for it.
    ///
    /// # Errors
    /// As [`Connection::try_read`].
    fn try_read_more(&self, buffer: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        let before = buffer.len();
        buffer.resize(before + most, 0);
        let read = self.try_read(&mut buffer[before..]);
        buffer.truncate(before + *read.as_ref().unwrap_or(&0));
        read
    }

    /// Writes as much as fits.
    ///
    /// # Errors
    /// The stream's.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Waits until reading makes sense.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// Asks the kernel for this stream too whether reading makes sense. False where the kernel cannot be asked.
    fn ask_readable(&self, _owner: u32, _question: &mut Question) -> bool {
        false
    }

    /// Waits until writing makes sense.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// Why it has failed, once.
    fn take_error(&self) -> Option<Fault>;

    /// Ends one direction, or both.
    ///
    /// # Errors
    /// `NotConnected` when it is over already.
    fn shutdown(&self, how: Shutdown) -> io::Result<()>;

    /// Sets an option where it has an effect. (A stream that never leaves the machine has none.)
    fn set(&self, option: SocketOption);
}

/// An option of a socket, with its value. Times are in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketOption {
    /// Send probes when idle.
    KeepAlive(bool),
    /// After so long.
    KeepAliveIdle(u64),
    /// So often.
    KeepAliveInterval(u64),
    /// So many, before giving up.
    KeepAliveCount(u32),
    /// Through so many routers at most.
    HopLimit(u8),
    /// Bytes of the kernel's buffer.
    ReceiveBuffer(u64),
    /// Bytes of the kernel's buffer.
    SendBuffer(u64),
}

/// Where connections come in. Dropping it ends that.
pub trait Listener: Send {
    /// Waits for a connection.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Connected, Fault>>;

    /// Takes a connection that is there, even if nobody has waited for it.
    fn try_accept(&mut self) -> Poll<Result<Connected, Fault>> {
        self.poll_accept(&mut Context::from_waker(Waker::noop()))
    }

    /// As [`Connection::ask_readable`].
    fn ask_readable(&self, _owner: u32, _question: &mut Question) -> bool {
        false
    }
}

/// A socket for datagrams. Nothing blocks.
pub trait Datagrams: Send + Sync {
    /// Sends one.
    ///
    /// # Errors
    /// `WouldBlock`; `PermissionDenied` is not told: what may not be sent is lost, as behind a firewall.
    fn try_send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()>;

    /// Receives one, with its sender.
    ///
    /// # Errors
    /// `WouldBlock`.
    fn try_receive(&self) -> io::Result<(Vec<u8>, SocketAddr)>;

    /// Waits until one has come.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// As [`Connection::ask_readable`].
    fn ask_readable(&self, _owner: u32, _question: &mut Question) -> bool {
        false
    }

    /// Waits until one can be sent.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()>;
}

/// A name that is being looked up.
pub trait Lookup: Send {
    /// Waits for the addresses. To be called until it is ready, and not again.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<IpAddr>, Fault>>;
}
