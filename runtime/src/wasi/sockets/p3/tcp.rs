//! TCP.
//!
//! What the guest's stream holds goes straight to the socket and no further than the socket takes it: its own buffer is
//! the guest's memory.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use wasmtime::StoreContextMut;
use wasmtime::component::{
    Access, Accessor, Destination, FutureReader, Resource, Source, StreamConsumer, StreamProducer, StreamReader,
    StreamResult, VecBuffer,
};
use wasmtime_wasi::p2::bindings::sockets::network::IpAddressFamily as Family;

use super::{Data, Failure, Result, SocketsView, anywhere};
use crate::network::{Bound, Connected, Connection, Fault, Listener, Protocol, SocketOption};
use crate::wasi::bindings::p3::sockets::types::{self, ErrorCode, IpAddressFamily, IpSocketAddress};
use crate::wasi::ending::{self, Ending};
use crate::wasi::sockets::tcp::BACKLOG;
use crate::wasi::sockets::{Options, may_bind, may_connect};

type End = ending::End<ErrorCode>;

/// Bytes that are received at once for a reader who is not a guest.
const CHUNK: usize = 64 * 1024;

/// A TCP socket.
pub struct TcpSocket {
    family: Family,
    state: State,
    options: Options,
    backlog: u32,
}

enum State {
    New,
    Bound(Bound),
    Connecting,
    Connected(Open),
    Listening(Arc<Listening>),
    /// It came in, and was gone before it could be taken.
    Failed(Fault),
    /// It could not be connected.
    Closed,
}

/// An address that connections come in at, also while nobody takes them.
struct Listening {
    bound: Bound,
    listener: Mutex<Box<dyn Listener>>,
}

struct Open {
    /// Given back with the socket.
    _bound: Option<Bound>,
    connection: Arc<dyn Connection>,
    local: SocketAddr,
    remote: SocketAddr,
    /// `send` and `receive` may each be called once.
    is_sending: bool,
    is_receiving: bool,
}

impl TcpSocket {
    fn new(family: Family) -> Self {
        TcpSocket { family, state: State::New, options: Options::default(), backlog: BACKLOG }
    }

    /// The connection is the socket's from now on.
    fn connect(&mut self, connected: Connected, bound: Option<Bound>) {
        let Connected { connection, local, remote } = connected;
        for option in &self.options.set {
            connection.set(*option);
        }
        self.state =
            State::Connected(Open { _bound: bound, connection, local, remote, is_sending: false, is_receiving: false });
    }

    /// Changes an option, of an open connection at once.
    fn set(&mut self, option: SocketOption) -> Result<()> {
        let option = self.options.change(option)?;
        if let State::Connected(open) = &self.state {
            open.connection.set(option);
        }
        Ok(())
    }

    fn open(&mut self) -> Result<&mut Open, Fault> {
        match &mut self.state {
            State::Connected(open) => Ok(open),
            State::Failed(fault) => Err(*fault),
            _ => Err(Fault::InvalidState),
        }
    }

    /// The connection, for the one who sends.
    fn begin_to_send(&mut self) -> Result<Arc<dyn Connection>, Fault> {
        let open = self.open()?;
        match std::mem::replace(&mut open.is_sending, true) {
            true => Err(Fault::InvalidState),
            false => Ok(Arc::clone(&open.connection)),
        }
    }

    /// The connection, for the one who receives.
    fn begin_to_receive(&mut self) -> Result<Arc<dyn Connection>, Fault> {
        let open = self.open()?;
        match std::mem::replace(&mut open.is_receiving, true) {
            true => Err(Fault::InvalidState),
            false => Ok(Arc::clone(&open.connection)),
        }
    }
}

impl SocketsView<'_> {
    fn begin_to_connect(
        &mut self,
        this: &Resource<TcpSocket>,
        remote: SocketAddr,
    ) -> Result<(Connected, Option<Bound>)> {
        let socket = self.table.get_mut(this)?;
        if !matches!(socket.state, State::New | State::Bound(_)) {
            return Err(Fault::InvalidState.into());
        }
        if !may_connect(remote, socket.family) {
            return Err(Fault::InvalidArgument.into());
        }
        let bound = match std::mem::replace(&mut socket.state, State::Connecting) {
            State::Bound(bound) => Some(bound),
            _ => None,
        };
        match self.sockets.network.connect(bound.as_ref(), remote) {
            Ok(connected) => Ok((connected, bound)),
            Err(fault) => {
                socket.state = State::Closed;
                Err(fault.into())
            }
        }
    }

    fn begin_to_listen(&mut self, this: &Resource<TcpSocket>) -> Result<Incoming> {
        let network = &self.sockets.network;
        let socket = self.table.get_mut(this)?;
        let bound = match std::mem::replace(&mut socket.state, State::Closed) {
            State::New => network.bind(Protocol::Tcp, anywhere(socket.family)),
            State::Bound(bound) => Ok(bound),
            other => {
                socket.state = other;
                return Err(Fault::InvalidState.into());
            }
        };
        let bound = bound.inspect_err(|_| socket.state = State::New)?;
        let listener = match network.listen(&bound, socket.backlog) {
            Ok(listener) => listener,
            Err(fault) => {
                socket.state = State::Bound(bound);
                return Err(fault.into());
            }
        };
        let listening = Arc::new(Listening { bound, listener: Mutex::new(listener) });
        socket.state = State::Listening(Arc::clone(&listening));
        Ok(Incoming { listening, family: socket.family, options: socket.options.clone() })
    }
}

impl<T: Send + 'static> types::HostTcpSocketWithStore<T> for Data {
    async fn connect(store: &Accessor<T, Self>, this: Resource<TcpSocket>, remote: IpSocketAddress) -> Result<()> {
        let (connected, bound) = store.with(|mut store| store.get().begin_to_connect(&this, remote.into()))?;
        std::future::poll_fn(|cx| connected.connection.poll_writable(cx)).await;
        let failed = connected.connection.take_error();
        store.with(|mut store| {
            let socket = store.get().table.get_mut(&this)?;
            match failed {
                Some(fault) => {
                    socket.state = State::Closed;
                    Err(fault.into())
                }
                None => {
                    socket.connect(connected, bound);
                    Ok(())
                }
            }
        })
    }

    fn listen(mut store: Access<'_, T, Self>, this: Resource<TcpSocket>) -> Result<StreamReader<Resource<TcpSocket>>> {
        let view = store.getter();
        let incoming = store.get().begin_to_listen(&this)?;
        StreamReader::new(&mut store, Accepted { incoming, view }).map_err(Failure::Trap)
    }

    fn send(
        mut store: Access<'_, T, Self>,
        this: Resource<TcpSocket>,
        mut data: StreamReader<u8>,
    ) -> wasmtime::Result<FutureReader<End>> {
        let connection = store.get().table.get_mut(&this)?.begin_to_send();
        let (mut end, ended) = Ending::new();
        match connection {
            Ok(connection) => data.pipe(&mut store, Sender { connection, end })?,
            Err(fault) => {
                data.close(&mut store)?;
                end.tell(Err(fault.into()));
            }
        }
        FutureReader::new(&mut store, ended)
    }

    fn receive(
        mut store: Access<'_, T, Self>,
        this: Resource<TcpSocket>,
    ) -> wasmtime::Result<(StreamReader<u8>, FutureReader<End>)> {
        let connection = store.get().table.get_mut(&this)?.begin_to_receive();
        let (mut end, ended) = Ending::new();
        let reader = match connection {
            Ok(connection) => StreamReader::new(&mut store, Receiver { connection, end })?,
            Err(fault) => {
                end.tell(Err(fault.into()));
                StreamReader::new(&mut store, std::iter::empty())?
            }
        };
        Ok((reader, FutureReader::new(&mut store, ended)?))
    }
}

/// What a stream's turn is when something was waited for, unless the guest does not want to wait any more.
fn waited(polled: Poll<()>, finish: bool) -> Poll<wasmtime::Result<StreamResult>> {
    match polled {
        Poll::Pending if finish => Poll::Ready(Ok(StreamResult::Cancelled)),
        polled => polled.map(|()| Ok(StreamResult::Completed)),
    }
}

/// Where connections come in.
struct Incoming {
    listening: Arc<Listening>,
    family: Family,
    options: Options,
}

/// The stream of connections.
struct Accepted<T> {
    incoming: Incoming,
    view: for<'a> fn(&'a mut T) -> SocketsView<'a>,
}

impl<T: 'static> StreamProducer<T> for Accepted<T> {
    type Item = Resource<TcpSocket>;
    type Buffer = Option<Resource<TcpSocket>>;

    fn poll_produce<'a>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'a, T>,
        mut out: Destination<'a, Self::Item, Self::Buffer>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        // Whoever asks only whether there is one is told yes: to look, it would have to be taken.
        if out.remaining(&mut store) == Some(0) {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let incoming = &self.incoming;
        let polled = incoming.listening.listener.lock().unwrap_or_else(PoisonError::into_inner).poll_accept(cx);
        let connected = match polled {
            Poll::Ready(connected) => connected,
            Poll::Pending => return waited(Poll::Pending, finish),
        };
        let mut socket = TcpSocket { options: incoming.options.clone(), ..TcpSocket::new(incoming.family) };
        match connected {
            Ok(connected) => socket.connect(connected, None),
            // "Synthesize a `tcp-socket` resource that exposes the error when attempting to send or receive on it."
            Err(fault) => socket.state = State::Failed(fault),
        }
        let socket = (self.view)(store.data_mut()).table.push(socket)?;
        out.set_buffer(Some(socket));
        Poll::Ready(Ok(StreamResult::Completed))
    }
}

/// Receives until the other side has sent all.
struct Receiver {
    connection: Arc<dyn Connection>,
    end: Ending<ErrorCode>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if self.end.is_open() {
            // "Any data still in the receive queue will be discarded." Fails when the other side was faster.
            let _ = self.connection.shutdown(Shutdown::Read);
        }
    }
}

impl<T> StreamProducer<T> for Receiver {
    type Item = u8;
    type Buffer = VecBuffer<u8>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'a, T>,
        out: Destination<'a, u8, VecBuffer<u8>>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        // It asks whether there is something.
        if out.remaining(&mut store) == Some(0) {
            return waited(self.connection.poll_readable(cx), finish);
        }
        let mut out = out.as_direct(store, CHUNK);
        loop {
            let result = match self.connection.try_read(out.remaining()) {
                Ok(0) => {
                    self.end.tell(Ok(()));
                    StreamResult::Dropped
                }
                Ok(length) => {
                    out.mark_written(length);
                    StreamResult::Completed
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => match self.connection.poll_readable(cx) {
                    Poll::Ready(()) => continue,
                    Poll::Pending => return waited(Poll::Pending, finish),
                },
                Err(e) => {
                    self.end.tell(Err(Fault::from(e).into()));
                    StreamResult::Dropped
                }
            };
            return Poll::Ready(Ok(result));
        }
    }
}

/// Sends until the guest has sent all.
struct Sender {
    connection: Arc<dyn Connection>,
    end: Ending<ErrorCode>,
}

impl Drop for Sender {
    fn drop(&mut self) {
        // "Closing the stream is equivalent to calling `shutdown(SHUT_WR)`." Fails when the other side was faster.
        let _ = self.connection.shutdown(Shutdown::Write);
    }
}

impl<T> StreamConsumer<T> for Sender {
    type Item = u8;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: StoreContextMut<'_, T>,
        source: Source<'_, u8>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let mut source = source.as_direct(store);
        // It asks whether there is room.
        if source.remaining().is_empty() {
            return waited(self.connection.poll_writable(cx), finish);
        }
        loop {
            let result = match self.connection.try_write(source.remaining()) {
                Ok(length) => {
                    source.mark_read(length);
                    StreamResult::Completed
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => match self.connection.poll_writable(cx) {
                    Poll::Ready(()) => continue,
                    Poll::Pending => return waited(Poll::Pending, finish),
                },
                Err(e) => {
                    self.end.tell(Err(match e.kind() {
                        io::ErrorKind::BrokenPipe => ErrorCode::ConnectionBroken,
                        _ => Fault::from(e).into(),
                    }));
                    StreamResult::Dropped
                }
            };
            return Poll::Ready(Ok(result));
        }
    }
}

impl types::HostTcpSocket for SocketsView<'_> {
    fn create(&mut self, family: IpAddressFamily) -> Result<Resource<TcpSocket>> {
        Ok(self.table.push(TcpSocket::new(family.into()))?)
    }

    fn bind(&mut self, this: Resource<TcpSocket>, local: IpSocketAddress) -> Result<()> {
        let socket = self.table.get_mut(&this)?;
        if !matches!(socket.state, State::New) {
            return Err(Fault::InvalidState.into());
        }
        let local = SocketAddr::from(local);
        if !may_bind(local, socket.family) {
            return Err(Fault::InvalidArgument.into());
        }
        socket.state = State::Bound(self.sockets.network.bind(Protocol::Tcp, local)?);
        Ok(())
    }

    fn get_local_address(&mut self, this: Resource<TcpSocket>) -> Result<IpSocketAddress> {
        match &self.table.get(&this)?.state {
            State::Bound(bound) => Ok(bound.address.into()),
            State::Listening(listening) => Ok(listening.bound.address.into()),
            State::Connected(open) => Ok(open.local.into()),
            State::New | State::Connecting | State::Failed(_) | State::Closed => Err(Fault::InvalidState.into()),
        }
    }

    fn get_remote_address(&mut self, this: Resource<TcpSocket>) -> Result<IpSocketAddress> {
        match &self.table.get(&this)?.state {
            State::Connected(open) => Ok(open.remote.into()),
            _ => Err(Fault::InvalidState.into()),
        }
    }

    fn get_is_listening(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<bool> {
        Ok(matches!(self.table.get(&this)?.state, State::Listening(_)))
    }

    fn get_address_family(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<IpAddressFamily> {
        Ok(self.table.get(&this)?.family.into())
    }

    fn set_listen_backlog_size(&mut self, this: Resource<TcpSocket>, value: u64) -> Result<()> {
        let socket = self.table.get_mut(&this)?;
        if value == 0 {
            return Err(Fault::InvalidArgument.into());
        }
        match socket.state {
            State::New | State::Bound(_) => {}
            // "The platform does not support changing the backlog size after the initial listen."
            State::Listening(_) => return Err(Fault::NotSupported.into()),
            State::Connecting | State::Connected(_) | State::Failed(_) | State::Closed => {
                return Err(Fault::InvalidState.into());
            }
        }
        socket.backlog = u32::try_from(value).unwrap_or(u32::MAX);
        Ok(())
    }

    fn get_keep_alive_enabled(&mut self, this: Resource<TcpSocket>) -> Result<bool> {
        Ok(self.table.get(&this)?.options.keep_alive)
    }

    fn set_keep_alive_enabled(&mut self, this: Resource<TcpSocket>, value: bool) -> Result<()> {
        self.table.get_mut(&this)?.set(SocketOption::KeepAlive(value))
    }

    fn get_keep_alive_idle_time(&mut self, this: Resource<TcpSocket>) -> Result<u64> {
        Ok(self.table.get(&this)?.options.idle)
    }

    fn set_keep_alive_idle_time(&mut self, this: Resource<TcpSocket>, value: u64) -> Result<()> {
        self.table.get_mut(&this)?.set(SocketOption::KeepAliveIdle(value))
    }

    fn get_keep_alive_interval(&mut self, this: Resource<TcpSocket>) -> Result<u64> {
        Ok(self.table.get(&this)?.options.interval)
    }

    fn set_keep_alive_interval(&mut self, this: Resource<TcpSocket>, value: u64) -> Result<()> {
        self.table.get_mut(&this)?.set(SocketOption::KeepAliveInterval(value))
    }

    fn get_keep_alive_count(&mut self, this: Resource<TcpSocket>) -> Result<u32> {
        Ok(self.table.get(&this)?.options.count)
    }

    fn set_keep_alive_count(&mut self, this: Resource<TcpSocket>, value: u32) -> Result<()> {
        self.table.get_mut(&this)?.set(SocketOption::KeepAliveCount(value))
    }

    fn get_hop_limit(&mut self, this: Resource<TcpSocket>) -> Result<u8> {
        Ok(self.table.get(&this)?.options.hop_limit)
    }

    fn set_hop_limit(&mut self, this: Resource<TcpSocket>, value: u8) -> Result<()> {
        self.table.get_mut(&this)?.set(SocketOption::HopLimit(value))
    }

    fn get_receive_buffer_size(&mut self, this: Resource<TcpSocket>) -> Result<u64> {
        Ok(self.table.get(&this)?.options.receive_buffer)
    }

    fn set_receive_buffer_size(&mut self, this: Resource<TcpSocket>, value: u64) -> Result<()> {
        self.table.get_mut(&this)?.set(SocketOption::ReceiveBuffer(value))
    }

    fn get_send_buffer_size(&mut self, this: Resource<TcpSocket>) -> Result<u64> {
        Ok(self.table.get(&this)?.options.send_buffer)
    }

    fn set_send_buffer_size(&mut self, this: Resource<TcpSocket>, value: u64) -> Result<()> {
        self.table.get_mut(&this)?.set(SocketOption::SendBuffer(value))
    }

    fn drop(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
