//! `wasi:sockets/udp` and `udp-create-socket`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use wasmtime::component::Resource;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress, Network};
use wasmtime_wasi::p2::{DynPollable, Pollable, SocketError};

use super::bindings::{udp, udp_create_socket};
use super::{Options, SocketsView, failed, fits, is_remote, is_unicast};
use crate::network::packet::MOST;
use crate::network::{Bound, Datagrams, Fault, Protocol, Question, SocketOption, VirtualNetwork};
use crate::wasi::io::{Ready, at_once, subscribe};

type Result<T, E = SocketError> = std::result::Result<T, E>;

/// The most datagrams that one call sends or receives.
const AT_ONCE: usize = 16;

/// A UDP socket.
pub struct UdpSocket {
    family: IpAddressFamily,
    state: State,
    /// What it is connected to, and what its own address is there.
    peer: Option<Peer>,
    options: Options,
}

pub(super) struct Peer {
    pub remote: SocketAddr,
    pub local: SocketAddr,
}

impl UdpSocket {
    fn set(&mut self, option: SocketOption) -> Result<()> {
        self.options.change(option).map(drop).map_err(failed)
    }
}

enum State {
    New,
    /// `start-bind` was called, `finish-bind` not yet.
    Binding(Open),
    Bound(Open),
}

/// What is bound receives, as in the kernel: there may be no streams for it yet.
pub(super) struct Open {
    pub bound: Bound,
    pub datagrams: Arc<dyn Datagrams>,
}

impl Open {
    /// Takes an address for a socket of this family.
    pub fn at(local: SocketAddr, family: IpAddressFamily, network: &dyn VirtualNetwork) -> Result<Self, Fault> {
        if !fits(local.ip(), family) {
            return Err(Fault::InvalidArgument);
        }
        let bound = network.bind(Protocol::Udp, local)?;
        let datagrams = network.datagrams(&bound)?;
        let datagrams = match family {
            IpAddressFamily::Ipv4 => datagrams,
            IpAddressFamily::Ipv6 => Arc::new(Dual { datagrams, heard: AtomicBool::new(false) }),
        };
        Ok(Open { bound, datagrams })
    }
}

/// Datagrams of an IPv6 socket. One that comes by IPv4 has a mapped sender, as with the kernel's: C libraries take no other
/// and abort the guest. From then on such senders may be answered.
struct Dual {
    datagrams: Arc<dyn Datagrams>,
    /// One has come by IPv4.
    heard: AtomicBool,
}

impl Datagrams for Dual {
    fn try_send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        match is_mapped(to) {
            true if !self.heard.load(Ordering::Relaxed) => Err(io::ErrorKind::InvalidInput.into()),
            true => self.datagrams.try_send(bytes, SocketAddr::new(to.ip().to_canonical(), to.port())),
            false => self.datagrams.try_send(bytes, to),
        }
    }

    fn try_receive(&self) -> io::Result<(Vec<u8>, SocketAddr)> {
        let (data, from) = self.datagrams.try_receive()?;
        let IpAddr::V4(ip) = from.ip() else { return Ok((data, from)) };
        self.heard.store(true, Ordering::Relaxed);
        Ok((data, SocketAddr::new(ip.to_ipv6_mapped().into(), from.port())))
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.datagrams.poll_readable(cx)
    }

    fn ask_readable(&self, owner: u32, question: &mut Question) -> bool {
        self.datagrams.ask_readable(owner, question)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.datagrams.poll_writable(cx)
    }
}

impl Peer {
    /// Who may be sent to from there, and is heard alone.
    ///
    /// "The `local-address` may be updated as well, based on the best network path to `remote-address`."
    pub fn of(
        open: &Open,
        remote: SocketAddr,
        family: IpAddressFamily,
        network: &dyn VirtualNetwork,
    ) -> Result<Self, Fault> {
        may_be_peer(remote, family)?;
        Ok(Peer { remote, local: network.towards(&open.bound, remote)? })
    }
}

/// Who may be a peer of a socket of this family.
pub(super) fn may_be_peer(remote: SocketAddr, family: IpAddressFamily) -> Result<(), Fault> {
    if fits(remote.ip(), family) && is_remote(remote) { Ok(()) } else { Err(Fault::InvalidArgument) }
}

/// True for an IPv4 address written as an IPv6 one.
pub(super) fn is_mapped(address: SocketAddr) -> bool {
    address.is_ipv6() && address.ip().to_canonical().is_ipv4()
}

/// Where a datagram of so many bytes is to go: to who is named, or to the peer.
pub(super) fn target(
    given: Option<SocketAddr>,
    peer: Option<SocketAddr>,
    family: IpAddressFamily,
    length: usize,
) -> Result<SocketAddr, Fault> {
    let to = match (given, peer) {
        (Some(given), Some(peer)) if given != peer => return Err(Fault::InvalidArgument),
        (Some(to), _) | (None, Some(to)) => to,
        (None, None) => return Err(Fault::InvalidArgument),
    };
    let meant = SocketAddr::new(to.ip().to_canonical(), to.port());
    // To a mapped address only an answer goes: see `Dual`.
    match family == IpAddressFamily::Ipv6 && is_mapped(to) {
        true => may_be_peer(meant, IpAddressFamily::Ipv4)?,
        false => may_be_peer(to, family)?,
    }
    // Neither broadcast nor multicast is part of the container's network.
    if !is_unicast(meant.ip()) {
        return Err(Fault::AccessDenied);
    }
    if length > MOST { Err(Fault::DatagramTooLarge) } else { Ok(to) }
}

/// Where datagrams come from.
pub struct Incoming {
    datagrams: Arc<dyn Datagrams>,
    remote: Option<SocketAddr>,
}

/// Where datagrams go to.
pub struct Outgoing {
    datagrams: Arc<dyn Datagrams>,
    family: IpAddressFamily,
    remote: Option<SocketAddr>,
    /// How many the last `check-send` has permitted.
    permit: usize,
    /// The last one did not fit.
    full: bool,
}

#[async_trait]
impl Pollable for UdpSocket {
    // Nothing takes time.
    async fn ready(&mut self) {}
}

impl Ready for UdpSocket {
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

#[async_trait]
impl Pollable for Incoming {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.poll_ready(cx)).await;
    }
}

impl Ready for Incoming {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.datagrams.poll_readable(cx)
    }

    fn ask(&self, owner: u32, question: &mut Question) -> bool {
        self.datagrams.ask_readable(owner, question)
    }
}

#[async_trait]
impl Pollable for Outgoing {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.poll_ready(cx)).await;
    }
}

impl Ready for Outgoing {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.full { self.datagrams.poll_writable(cx) } else { Poll::Ready(()) }
    }
}

impl udp_create_socket::Host for SocketsView<'_> {
    fn create_udp_socket(&mut self, family: IpAddressFamily) -> Result<Resource<UdpSocket>> {
        Ok(self.table.push(UdpSocket { family, state: State::New, peer: None, options: Options::default() })?)
    }
}

impl udp::Host for SocketsView<'_> {}

impl udp::HostUdpSocket for SocketsView<'_> {
    fn start_bind(
        &mut self,
        this: Resource<UdpSocket>,
        network: Resource<Network>,
        local: IpSocketAddress,
    ) -> Result<()> {
        self.table.get(&network)?;
        let socket = self.table.get_mut(&this)?;
        match socket.state {
            State::New => {}
            State::Binding(_) => return Err(ErrorCode::ConcurrencyConflict.into()),
            State::Bound(_) => return Err(ErrorCode::InvalidState.into()),
        }
        let open = Open::at(local.into(), socket.family, &*self.sockets.network).map_err(failed)?;
        socket.state = State::Binding(open);
        Ok(())
    }

    fn finish_bind(&mut self, this: Resource<UdpSocket>) -> Result<()> {
        let socket = self.table.get_mut(&this)?;
        match std::mem::replace(&mut socket.state, State::New) {
            State::Binding(open) => socket.state = State::Bound(open),
            other => {
                socket.state = other;
                return Err(ErrorCode::NotInProgress.into());
            }
        }
        Ok(())
    }

    fn stream(
        &mut self,
        this: Resource<UdpSocket>,
        remote: Option<IpSocketAddress>,
    ) -> Result<(Resource<Incoming>, Resource<Outgoing>)> {
        // "Implementations may trap if the streams returned by a previous invocation haven't been dropped yet."
        if self.table.iter_children(&this)?.any(|child| child.is::<Incoming>() || child.is::<Outgoing>()) {
            return Err(SocketError::trap(wasmtime::format_err!("the socket's streams have not been dropped yet")));
        }
        let socket = self.table.get_mut(&this)?;
        let State::Bound(open) = &socket.state else {
            return Err(ErrorCode::InvalidState.into());
        };
        let remote = remote.map(SocketAddr::from);
        let peer = |remote| Peer::of(open, remote, socket.family, &*self.sockets.network).map_err(failed);
        socket.peer = remote.map(peer).transpose()?;
        let incoming = Incoming { datagrams: Arc::clone(&open.datagrams), remote };
        let datagrams = Arc::clone(&open.datagrams);
        let outgoing = Outgoing { datagrams, family: socket.family, remote, permit: 0, full: false };
        Ok((self.table.push_child(incoming, &this)?, self.table.push_child(outgoing, &this)?))
    }

    fn local_address(&mut self, this: Resource<UdpSocket>) -> Result<IpSocketAddress> {
        let socket = self.table.get(&this)?;
        match &socket.state {
            State::Bound(Open { bound, .. }) => {
                Ok(socket.peer.as_ref().map_or(bound.address, |peer| peer.local).into())
            }
            State::New | State::Binding(_) => Err(ErrorCode::InvalidState.into()),
        }
    }

    fn remote_address(&mut self, this: Resource<UdpSocket>) -> Result<IpSocketAddress> {
        let peer = self.table.get(&this)?.peer.as_ref();
        peer.map(|peer| peer.remote.into()).ok_or_else(|| ErrorCode::InvalidState.into())
    }

    fn address_family(&mut self, this: Resource<UdpSocket>) -> wasmtime::Result<IpAddressFamily> {
        Ok(self.table.get(&this)?.family)
    }

    fn unicast_hop_limit(&mut self, this: Resource<UdpSocket>) -> Result<u8> {
        Ok(self.table.get(&this)?.options.hop_limit)
    }

    fn set_unicast_hop_limit(&mut self, this: Resource<UdpSocket>, value: u8) -> Result<()> {
        self.table.get_mut(&this)?.set(SocketOption::HopLimit(value))
    }

    fn receive_buffer_size(&mut self, this: Resource<UdpSocket>) -> Result<u64> {
        Ok(self.table.get(&this)?.options.receive_buffer)
    }

    fn set_receive_buffer_size(&mut self, this: Resource<UdpSocket>, value: u64) -> Result<()> {
        self.table.get_mut(&this)?.set(SocketOption::ReceiveBuffer(value))
    }

    fn send_buffer_size(&mut self, this: Resource<UdpSocket>) -> Result<u64> {
        Ok(self.table.get(&this)?.options.send_buffer)
    }

    fn set_send_buffer_size(&mut self, this: Resource<UdpSocket>, value: u64) -> Result<()> {
        self.table.get_mut(&this)?.set(SocketOption::SendBuffer(value))
    }

    fn subscribe(&mut self, this: Resource<UdpSocket>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, &this)
    }

    fn drop(&mut self, this: Resource<UdpSocket>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl udp::HostIncomingDatagramStream for SocketsView<'_> {
    fn receive(&mut self, this: Resource<Incoming>, most: u64) -> Result<Vec<udp::IncomingDatagram>> {
        let stream = self.table.get(&this)?;
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(AT_ONCE);
        let mut received = Vec::new();
        while received.len() < most {
            match stream.datagrams.try_receive() {
                Ok((_, from)) if stream.remote.is_some_and(|remote| remote != from) => {}
                Ok((data, from)) => received.push(udp::IncomingDatagram { data, remote_address: from.into() }),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => break,
                // Told with the next call, which receives nothing.
                Err(_) if !received.is_empty() => break,
                Err(e) => return Err(failed(Fault::from(e))),
            }
        }
        Ok(received)
    }

    fn subscribe(&mut self, this: Resource<Incoming>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, &this)
    }

    fn drop(&mut self, this: Resource<Incoming>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl Outgoing {
    fn send(&mut self, datagram: udp::OutgoingDatagram) -> Result<()> {
        let given = datagram.remote_address.map(SocketAddr::from);
        let to = target(given, self.remote, self.family, datagram.data.len()).map_err(failed)?;
        match self.datagrams.try_send(&datagram.data, to) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                self.full = true;
                Err(ErrorCode::WouldBlock.into())
            }
            Err(e) => Err(failed(Fault::from(e))),
        }
    }
}

impl udp::HostOutgoingDatagramStream for SocketsView<'_> {
    fn check_send(&mut self, this: Resource<Outgoing>) -> Result<u64> {
        let stream = self.table.get_mut(&this)?;
        stream.full = stream.full && stream.datagrams.poll_writable(&mut at_once()).is_pending();
        stream.permit = if stream.full { 0 } else { AT_ONCE };
        Ok(stream.permit as u64)
    }

    fn send(&mut self, this: Resource<Outgoing>, datagrams: Vec<udp::OutgoingDatagram>) -> Result<u64> {
        let stream = self.table.get_mut(&this)?;
        if datagrams.is_empty() {
            return Ok(0);
        }
        if datagrams.len() > stream.permit {
            return Err(SocketError::trap(wasmtime::format_err!("send was not permitted by check-send")));
        }
        stream.permit = 0;
        let mut sent = 0;
        for datagram in datagrams {
            match stream.send(datagram) {
                Ok(()) => sent += 1,
                // "If at least one datagram has been sent successfully, this function never returns an error."
                Err(_) if sent > 0 || stream.full => break,
                Err(e) => return Err(e),
            }
        }
        Ok(sent)
    }

    fn subscribe(&mut self, this: Resource<Outgoing>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, &this)
    }

    fn drop(&mut self, this: Resource<Outgoing>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
