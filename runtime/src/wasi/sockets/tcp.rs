//! `wasi:sockets/tcp` and `tcp-create-socket`.

use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use wasmtime::component::Resource;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress, Network};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, Pollable};

use super::bindings::{tcp, tcp_create_socket};
use super::streams::{GuestOutput, Input, Output};
use super::{Options, Result, Sockets, SocketsView, failed, may_bind, may_connect};
use crate::network::{Bound, Connected, Connection, Fault, Listener, Protocol, Question, SocketOption};
use crate::wasi::io::{Ready, at_once, subscribe};

/// A TCP socket.
pub struct TcpSocket {
    family: IpAddressFamily,
    state: State,
    options: Options,
    backlog: u32,
}

/// Linux's, where Rust's standard library has 128 and Go's asks the kernel.
pub(super) const BACKLOG: u32 = 128;

enum State {
    New,
    /// `start-bind` was called, `finish-bind` not yet.
    Binding(Bound),
    Bound(Bound),
    Connecting {
        bound: Option<Bound>,
        connected: std::result::Result<Connected, Fault>,
    },
    Connected {
        /// Given back with the socket.
        _bound: Option<Bound>,
        connection: Arc<dyn Connection>,
        local: SocketAddr,
        remote: SocketAddr,
        input_closed: Arc<AtomicBool>,
        output: Output,
    },
    /// `start-listen` was called, `finish-listen` not yet.
    Beginning(Bound, Box<dyn Listener>),
    Listening {
        bound: Bound,
        listener: Box<dyn Listener>,
        /// What a poll has found, for the next `accept`.
        next: Option<std::result::Result<Connected, Fault>>,
    },
    /// An operation has failed for good.
    Closed,
}

impl State {
    fn is_in_progress(&self) -> bool {
        matches!(self, State::Binding(_) | State::Connecting { .. } | State::Beginning(..))
    }

    fn take(&mut self) -> State {
        std::mem::replace(self, State::Closed)
    }
}

type Streams = (Input, GuestOutput);

impl TcpSocket {
    fn new(family: IpAddressFamily) -> Self {
        TcpSocket { family, state: State::New, options: Options::default(), backlog: BACKLOG }
    }

    /// The connection is the socket's from now on; gives its streams.
    fn connect(&mut self, connected: Connected, bound: Option<Bound>, sockets: &Sockets) -> Streams {
        let Connected { connection, local, remote } = connected;
        for option in &self.options.set {
            connection.set(*option);
        }
        let input_closed = Arc::new(AtomicBool::new(false));
        let output = Output::new(Arc::clone(&connection), Arc::clone(&sockets.lingering));
        let input = Input::new(Arc::clone(&connection), Arc::clone(&input_closed));
        let streams = (input, GuestOutput(output.clone()));
        self.state = State::Connected { _bound: bound, connection, local, remote, input_closed, output };
        streams
    }

    /// Changes an option, of an open connection at once.
    fn set(&mut self, option: SocketOption) -> Result<()> {
        let option = self.options.change(option).map_err(failed)?;
        if let State::Connected { connection, .. } = &self.state {
            connection.set(option);
        }
        Ok(())
    }
}

#[async_trait]
impl Pollable for TcpSocket {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.poll_ready(cx)).await;
    }
}

impl Ready for TcpSocket {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.state {
            State::Connecting { connected: Ok(connected), .. } => connected.connection.poll_writable(cx),
            State::Listening { listener, next, .. } if next.is_none() => {
                *next = Some(std::task::ready!(listener.poll_accept(cx)));
                Poll::Ready(())
            }
            // Nothing else takes time.
            _ => Poll::Ready(()),
        }
    }

    fn ask(&self, owner: u32, question: &mut Question) -> bool {
        match &self.state {
            State::Listening { listener, next: None, .. } => listener.ask_readable(owner, question),
            _ => false,
        }
    }

    /// A caller may be gone again.
    fn confirm(&mut self) -> bool {
        let State::Listening { listener, next, .. } = &mut self.state else { return true };
        if next.is_none()
            && let Poll::Ready(caller) = listener.try_accept()
        {
            *next = Some(caller);
        }
        next.is_some()
    }
}

impl tcp_create_socket::Host for SocketsView<'_> {
    fn create_tcp_socket(&mut self, family: IpAddressFamily) -> Result<Resource<TcpSocket>> {
        Ok(self.table.push(TcpSocket::new(family))?)
    }
}

impl tcp::Host for SocketsView<'_> {}

impl SocketsView<'_> {
    /// Gives the guest a socket's streams: see `wasi:io`.
    fn streams(
        &mut self,
        (input, output): Streams,
        socket: &Resource<TcpSocket>,
    ) -> Result<(Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let (input, output) = (self.table.push_child(input, socket)?, self.table.push_child(output, socket)?);
        Ok((Resource::new_own(input.rep()), Resource::new_own(output.rep())))
    }
}

impl tcp::HostTcpSocket for SocketsView<'_> {
    fn start_bind(
        &mut self,
        this: Resource<TcpSocket>,
        network: Resource<Network>,
        local: IpSocketAddress,
    ) -> Result<()> {
        self.table.get(&network)?;
        let socket = self.table.get_mut(&this)?;
        if socket.state.is_in_progress() {
            return Err(ErrorCode::ConcurrencyConflict.into());
        }
        if !matches!(socket.state, State::New) {
            return Err(ErrorCode::InvalidState.into());
        }
        let local = SocketAddr::from(local);
        if !may_bind(local, socket.family) {
            return Err(ErrorCode::InvalidArgument.into());
        }
        socket.state = State::Binding(self.sockets.network.bind(Protocol::Tcp, local).map_err(failed)?);
        Ok(())
    }

    fn finish_bind(&mut self, this: Resource<TcpSocket>) -> Result<()> {
        let socket = self.table.get_mut(&this)?;
        match socket.state.take() {
            State::Binding(bound) => socket.state = State::Bound(bound),
            other => {
                socket.state = other;
                return Err(ErrorCode::NotInProgress.into());
            }
        }
        Ok(())
    }

    fn start_connect(
        &mut self,
        this: Resource<TcpSocket>,
        network: Resource<Network>,
        remote: IpSocketAddress,
    ) -> Result<()> {
        self.table.get(&network)?;
        let socket = self.table.get_mut(&this)?;
        if socket.state.is_in_progress() {
            return Err(ErrorCode::ConcurrencyConflict.into());
        }
        if !matches!(socket.state, State::New | State::Bound(_)) {
            return Err(ErrorCode::InvalidState.into());
        }
        let remote = SocketAddr::from(remote);
        if !may_connect(remote, socket.family) {
            return Err(ErrorCode::InvalidArgument.into());
        }
        let bound = match socket.state.take() {
            State::Bound(bound) => Some(bound),
            _ => None,
        };
        // A failure is told by finish-connect, as that of a connection that takes its time.
        let connected = self.sockets.network.connect(bound.as_ref(), remote);
        socket.state = State::Connecting { bound, connected };
        Ok(())
    }

    fn finish_connect(
        &mut self,
        this: Resource<TcpSocket>,
    ) -> Result<(Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let socket = self.table.get_mut(&this)?;
        let (bound, connected) = match socket.state.take() {
            State::Connecting { bound, connected } => (bound, connected),
            other => {
                socket.state = other;
                return Err(ErrorCode::NotInProgress.into());
            }
        };
        let connected = connected.map_err(failed)?;
        if connected.connection.poll_writable(&mut at_once()).is_pending() {
            socket.state = State::Connecting { bound, connected: Ok(connected) };
            return Err(ErrorCode::WouldBlock.into());
        }
        if let Some(fault) = connected.connection.take_error() {
            return Err(failed(fault));
        }
        let (input, output) = socket.connect(connected, bound, self.sockets);
        self.streams((input, output), &this)
    }

    fn start_listen(&mut self, this: Resource<TcpSocket>) -> Result<()> {
        let socket = self.table.get_mut(&this)?;
        if socket.state.is_in_progress() {
            return Err(ErrorCode::ConcurrencyConflict.into());
        }
        match socket.state.take() {
            State::Bound(bound) => match self.sockets.network.listen(&bound, socket.backlog) {
                Ok(listener) => socket.state = State::Beginning(bound, listener),
                Err(fault) => {
                    socket.state = State::Bound(bound);
                    return Err(failed(fault));
                }
            },
            other => {
                socket.state = other;
                return Err(ErrorCode::InvalidState.into());
            }
        }
        Ok(())
    }

    fn finish_listen(&mut self, this: Resource<TcpSocket>) -> Result<()> {
        let socket = self.table.get_mut(&this)?;
        match socket.state.take() {
            State::Beginning(bound, listener) => socket.state = State::Listening { bound, listener, next: None },
            other => {
                socket.state = other;
                return Err(ErrorCode::NotInProgress.into());
            }
        }
        Ok(())
    }

    fn accept(
        &mut self,
        this: Resource<TcpSocket>,
    ) -> Result<(Resource<TcpSocket>, Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let socket = self.table.get_mut(&this)?;
        let State::Listening { listener, next, .. } = &mut socket.state else {
            return Err(ErrorCode::InvalidState.into());
        };
        let connected = match next.take().map_or_else(|| listener.try_accept(), Poll::Ready) {
            Poll::Ready(connected) => connected,
            Poll::Pending => return Err(ErrorCode::WouldBlock.into()),
        };
        let mut accepted = TcpSocket::new(socket.family);
        accepted.options = socket.options.clone();
        let streams = accepted.connect(connected.map_err(failed)?, None, self.sockets);
        let accepted = self.table.push(accepted)?;
        let (input, output) = self.streams(streams, &accepted)?;
        Ok((accepted, input, output))
    }

    fn local_address(&mut self, this: Resource<TcpSocket>) -> Result<IpSocketAddress> {
        match &self.table.get(&this)?.state {
            State::Bound(bound) | State::Beginning(bound, _) | State::Listening { bound, .. } => {
                Ok(bound.address.into())
            }
            State::Connected { local, .. } => Ok((*local).into()),
            State::New | State::Binding(_) | State::Connecting { .. } | State::Closed => {
                Err(ErrorCode::InvalidState.into())
            }
        }
    }

    fn remote_address(&mut self, this: Resource<TcpSocket>) -> Result<IpSocketAddress> {
        match &self.table.get(&this)?.state {
            State::Connected { remote, .. } => Ok((*remote).into()),
            _ => Err(ErrorCode::InvalidState.into()),
        }
    }

    fn is_listening(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<bool> {
        Ok(matches!(self.table.get(&this)?.state, State::Listening { .. }))
    }

    fn address_family(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<IpAddressFamily> {
        Ok(self.table.get(&this)?.family)
    }

    fn set_listen_backlog_size(&mut self, this: Resource<TcpSocket>, value: u64) -> Result<()> {
        let socket = self.table.get_mut(&this)?;
        if value == 0 {
            return Err(ErrorCode::InvalidArgument.into());
        }
        match socket.state {
            State::New | State::Binding(_) | State::Bound(_) => {}
            // "The platform does not support changing the backlog size after the initial listen."
            State::Beginning(..) | State::Listening { .. } => return Err(ErrorCode::NotSupported.into()),
            State::Connecting { .. } | State::Connected { .. } | State::Closed => {
                return Err(ErrorCode::InvalidState.into());
            }
        }
        socket.backlog = u32::try_from(value).unwrap_or(u32::MAX);
        Ok(())
    }

    fn keep_alive_enabled(&mut self, this: Resource<TcpSocket>) -> Result<bool> {
        Ok(self.table.get(&this)?.options.keep_alive)
    }

    fn set_keep_alive_enabled(&mut self, this: Resource<TcpSocket>, value: bool) -> Result<()> {
        self.table.get_mut(&this)?.set(SocketOption::KeepAlive(value))
    }

    fn keep_alive_idle_time(&mut self, this: Resource<TcpSocket>) -> Result<u64> {
        Ok(self.table.get(&this)?.options.idle)
    }

    fn set_keep_alive_idle_time(&mut self, this: Resource<TcpSocket>, value: u64) -> Result<()> {
        self.table.get_mut(&this)?.set(SocketOption::KeepAliveIdle(value))
    }

    fn keep_alive_interval(&mut self, this: Resource<TcpSocket>) -> Result<u64> {
        Ok(self.table.get(&this)?.options.interval)
    }

    fn set_keep_alive_interval(&mut self, this: Resource<TcpSocket>, value: u64) -> Result<()> {
        self.table.get_mut(&this)?.set(SocketOption::KeepAliveInterval(value))
    }

    fn keep_alive_count(&mut self, this: Resource<TcpSocket>) -> Result<u32> {
        Ok(self.table.get(&this)?.options.count)
    }

    fn set_keep_alive_count(&mut self, this: Resource<TcpSocket>, value: u32) -> Result<()> {
        self.table.get_mut(&this)?.set(SocketOption::KeepAliveCount(value))
    }

    fn hop_limit(&mut self, this: Resource<TcpSocket>) -> Result<u8> {
        Ok(self.table.get(&this)?.options.hop_limit)
    }

    fn set_hop_limit(&mut self, this: Resource<TcpSocket>, value: u8) -> Result<()> {
        self.table.get_mut(&this)?.set(SocketOption::HopLimit(value))
    }

    fn receive_buffer_size(&mut self, this: Resource<TcpSocket>) -> Result<u64> {
        Ok(self.table.get(&this)?.options.receive_buffer)
    }

    fn set_receive_buffer_size(&mut self, this: Resource<TcpSocket>, value: u64) -> Result<()> {
        self.table.get_mut(&this)?.set(SocketOption::ReceiveBuffer(value))
    }

    fn send_buffer_size(&mut self, this: Resource<TcpSocket>) -> Result<u64> {
        Ok(self.table.get(&this)?.options.send_buffer)
    }

    fn set_send_buffer_size(&mut self, this: Resource<TcpSocket>, value: u64) -> Result<()> {
        self.table.get_mut(&this)?.set(SocketOption::SendBuffer(value))
    }

    fn subscribe(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, &this)
    }

    fn shutdown(&mut self, this: Resource<TcpSocket>, how: tcp::ShutdownType) -> Result<()> {
        let State::Connected { connection, input_closed, output, .. } = &self.table.get(&this)?.state else {
            return Err(ErrorCode::InvalidState.into());
        };
        if matches!(how, tcp::ShutdownType::Receive | tcp::ShutdownType::Both) {
            input_closed.store(true, Ordering::Relaxed);
            // Fails when the other side was faster.
            let _ = connection.shutdown(Shutdown::Read);
        }
        if matches!(how, tcp::ShutdownType::Send | tcp::ShutdownType::Both) {
            output.shut_down();
        }
        Ok(())
    }

    fn drop(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
