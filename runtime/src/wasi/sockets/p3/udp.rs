//! UDP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use wasmtime::component::{Accessor, Resource};
use wasmtime_wasi::p2::bindings::sockets::network::IpAddressFamily as Family;

use super::{Data, Result, SocketsView, anywhere};
use crate::network::{Datagrams, Fault, SocketOption, VirtualNetwork};
use crate::wasi::bindings::p3::sockets::types::{self, IpAddressFamily, IpSocketAddress};
use crate::wasi::sockets::Options;
use crate::wasi::sockets::udp::{Open, Peer, is_mapped, may_be_peer, target};

/// A UDP socket.
pub struct UdpSocket {
    family: Family,
    open: Option<Open>,
    /// What it is connected to.
    peer: Option<Peer>,
    options: Options,
}

impl UdpSocket {
    /// What it is bound to: if need be from now on, to any port.
    fn bound(&mut self, network: &dyn VirtualNetwork) -> Result<&Open, Fault> {
        if self.open.is_none() {
            self.open = Some(Open::at(anywhere(self.family), self.family, network)?);
        }
        self.open.as_ref().ok_or(Fault::InvalidState)
    }

    fn set(&mut self, option: SocketOption) -> Result<()> {
        Ok(self.options.change(option).map(drop)?)
    }
}

impl SocketsView<'_> {
    fn begin_to_send(
        &mut self,
        this: &Resource<UdpSocket>,
        length: usize,
        given: Option<SocketAddr>,
    ) -> Result<(Arc<dyn Datagrams>, SocketAddr)> {
        let socket = self.table.get_mut(this)?;
        let peer = socket.peer.as_ref().map(|peer| peer.remote);
        let to = target(given, peer, socket.family, length)?;
        // Whoever is not bound has heard nobody by IPv4, and what is refused takes no port.
        if socket.open.is_none() && is_mapped(to) {
            return Err(Fault::InvalidArgument.into());
        }
        let open = socket.bound(&*self.sockets.network)?;
        Ok((Arc::clone(&open.datagrams), to))
    }

    fn begin_to_receive(&mut self, this: &Resource<UdpSocket>) -> Result<(Arc<dyn Datagrams>, Option<SocketAddr>)> {
        let socket = self.table.get(this)?;
        let open = socket.open.as_ref().ok_or(Fault::InvalidState)?;
        Ok((Arc::clone(&open.datagrams), socket.peer.as_ref().map(|peer| peer.remote)))
    }
}

/// The next datagram, from `peer` if there is one.
fn poll_receive(
    datagrams: &dyn Datagrams,
    peer: Option<SocketAddr>,
    cx: &mut Context<'_>,
) -> Poll<Result<(Vec<u8>, SocketAddr), Fault>> {
    loop {
        match datagrams.try_receive() {
            Ok((_, from)) if peer.is_some_and(|peer| peer != from) => {}
            Ok(received) => return Poll::Ready(Ok(received)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready!(datagrams.poll_readable(cx)),
            Err(e) => return Poll::Ready(Err(e.into())),
        }
    }
}

fn poll_send(datagrams: &dyn Datagrams, data: &[u8], to: SocketAddr, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
    loop {
        match datagrams.try_send(data, to) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready!(datagrams.poll_writable(cx)),
            sent => return Poll::Ready(sent.map_err(Fault::from)),
        }
    }
}

impl<T: Send> types::HostUdpSocketWithStore<T> for Data {
    async fn send(
        store: &Accessor<T, Self>,
        this: Resource<UdpSocket>,
        data: Vec<u8>,
        remote: Option<IpSocketAddress>,
    ) -> Result<()> {
        let remote = remote.map(SocketAddr::from);
        let (datagrams, to) = store.with(|mut store| store.get().begin_to_send(&this, data.len(), remote))?;
        Ok(std::future::poll_fn(|cx| poll_send(&*datagrams, &data, to, cx)).await?)
    }

    async fn receive(store: &Accessor<T, Self>, this: Resource<UdpSocket>) -> Result<(Vec<u8>, IpSocketAddress)> {
        let (datagrams, peer) = store.with(|mut store| store.get().begin_to_receive(&this))?;
        let (data, from) = std::future::poll_fn(|cx| poll_receive(&*datagrams, peer, cx)).await?;
        Ok((data, from.into()))
    }
}

impl types::HostUdpSocket for SocketsView<'_> {
    fn create(&mut self, family: IpAddressFamily) -> Result<Resource<UdpSocket>> {
        let socket = UdpSocket { family: family.into(), open: None, peer: None, options: Options::default() };
        Ok(self.table.push(socket)?)
    }

    fn bind(&mut self, this: Resource<UdpSocket>, local: IpSocketAddress) -> Result<()> {
        let socket = self.table.get_mut(&this)?;
        if socket.open.is_some() {
            return Err(Fault::InvalidState.into());
        }
        socket.open = Some(Open::at(local.into(), socket.family, &*self.sockets.network)?);
        Ok(())
    }

    fn connect(&mut self, this: Resource<UdpSocket>, remote: IpSocketAddress) -> Result<()> {
        let network = &*self.sockets.network;
        let socket = self.table.get_mut(&this)?;
        let (family, remote) = (socket.family, remote.into());
        // What is refused takes no port.
        may_be_peer(remote, family)?;
        socket.peer = Some(Peer::of(socket.bound(network)?, remote, family, network)?);
        Ok(())
    }

    fn disconnect(&mut self, this: Resource<UdpSocket>) -> Result<()> {
        match self.table.get_mut(&this)?.peer.take() {
            Some(_) => Ok(()),
            None => Err(Fault::InvalidState.into()),
        }
    }

    fn get_local_address(&mut self, this: Resource<UdpSocket>) -> Result<IpSocketAddress> {
        let socket = self.table.get(&this)?;
        let open = socket.open.as_ref().ok_or(Fault::InvalidState)?;
        Ok(socket.peer.as_ref().map_or(open.bound.address, |peer| peer.local).into())
    }

    fn get_remote_address(&mut self, this: Resource<UdpSocket>) -> Result<IpSocketAddress> {
        let peer = self.table.get(&this)?.peer.as_ref();
        Ok(peer.map(|peer| peer.remote.into()).ok_or(Fault::InvalidState)?)
    }

    fn get_address_family(&mut self, this: Resource<UdpSocket>) -> wasmtime::Result<IpAddressFamily> {
        Ok(self.table.get(&this)?.family.into())
    }

    fn get_unicast_hop_limit(&mut self, this: Resource<UdpSocket>) -> Result<u8> {
        Ok(self.table.get(&this)?.options.hop_limit)
    }

    fn set_unicast_hop_limit(&mut self, this: Resource<UdpSocket>, value: u8) -> Result<()> {
        self.table.get_mut(&this)?.set(SocketOption::HopLimit(value))
    }

    fn get_receive_buffer_size(&mut self, this: Resource<UdpSocket>) -> Result<u64> {
        Ok(self.table.get(&this)?.options.receive_buffer)
    }

    fn set_receive_buffer_size(&mut self, this: Resource<UdpSocket>, value: u64) -> Result<()> {
        self.table.get_mut(&this)?.set(SocketOption::ReceiveBuffer(value))
    }

    fn get_send_buffer_size(&mut self, this: Resource<UdpSocket>) -> Result<u64> {
        Ok(self.table.get(&this)?.options.send_buffer)
    }

    fn set_send_buffer_size(&mut self, this: Resource<UdpSocket>, value: u64) -> Result<()> {
        self.table.get_mut(&this)?.set(SocketOption::SendBuffer(value))
    }

    fn drop(&mut self, this: Resource<UdpSocket>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
