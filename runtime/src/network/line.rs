//! What a task asks its monitor about the network, and the answers: the words of [`VirtualNetwork`](super::VirtualNetwork)
//! for two processes. Descriptors travel beside an answer, in its order.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{Fault, PortBinding, Protocol};
use crate::monitor::protocol::Failure;
use crate::walls::Walls;

/// What a task says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Ask {
    /// Everything is loaded, the process stands behind these walls, and the guest runs as soon as [`Answer::Go`] was said. Not
    /// answered.
    Ready(Walls),
    /// It could not be loaded; the process ends. Not answered.
    Failed(Failure),
    /// The guest can use sockets: give it its place on the network.
    Join,
    /// Take a local address.
    Bind {
        /// For this protocol.
        protocol: Protocol,
        /// The address; port 0 is any.
        local: SocketAddr,
    },
    /// The address with this number is free again. Not answered.
    Release(u64),
    /// Let connections in on it.
    Listen(u64),
    /// Connect.
    Connect {
        /// The local address, if one was taken.
        from: Option<u64>,
        /// Where to.
        to: SocketAddr,
    },
    /// Send and receive datagrams on it.
    Datagrams(u64),
    /// Say what a local address is towards another one.
    Towards {
        /// The local address.
        from: u64,
        /// The other one.
        to: SocketAddr,
    },
    /// Look a name up.
    Lookup(String),
    /// Hand out the published listeners.
    Published,
}

/// What the monitor answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// Said unasked: the root filesystem is there.
    Placed,
    /// Said unasked, once: the guest may run when it is ready.
    Go,
    /// The container's address, if it has one, and its host's.
    Joined(Option<(IpAddr, IpAddr)>),
    /// Taken, under this number.
    Bound(u64, SocketAddr),
    /// A stream, with our address. One descriptor.
    Connected(SocketAddr),
    /// Where connections come in. One descriptor for each.
    Listening(Vec<Source>),
    /// A packet socket: see [`super::packet`]. One descriptor.
    Datagrams,
    /// What the local address is there.
    Towards(SocketAddr),
    /// The name's addresses.
    Addresses(Vec<IpAddr>),
    /// They come over this descriptor, as JSON (`Result<Vec<IpAddr>, Fault>`), and then its end.
    Later,
    /// The published listeners. One descriptor for each.
    Published(Vec<PortBinding>),
    /// It cannot be.
    Fault(Fault),
    /// The container cannot run at all.
    Error(Failure),
}

/// What a listening descriptor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// The host's: whoever connects is called by his own address.
    Host,
    /// The container's network and itself: the caller's addresses are the name of his socket.
    Network,
    /// The container's own address on its network's bridge.
    Bridge,
}

/// Whoever answers a task: the monitor, which knows the container's grants.
pub trait Gatekeeper {
    /// Answers; `None` for what is not answered.
    fn answer(&mut self, ask: Ask) -> Option<(Answer, Vec<File>)>;
}

/// Nobody: there is no network.
pub struct Nobody;

impl Gatekeeper for Nobody {
    fn answer(&mut self, ask: Ask) -> Option<(Answer, Vec<File>)> {
        match ask {
            Ask::Release(_) | Ask::Failed(_) | Ask::Ready(_) => None,
            Ask::Join => Some((Answer::Joined(None), Vec::new())),
            Ask::Published => Some((Answer::Published(Vec::new()), Vec::new())),
            Ask::Bind { .. }
            | Ask::Listen(_)
            | Ask::Connect { .. }
            | Ask::Datagrams(_)
            | Ask::Towards { .. }
            | Ask::Lookup(_) => Some((Answer::Fault(Fault::AccessDenied), Vec::new())),
        }
    }
}
