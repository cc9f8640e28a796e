//! The connections of a guest: the host's own, by tokio, and those that are still being made.

use std::io;
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use crate::network::{Connection, Fault, SocketOption};

/// A connection.
pub(super) struct Stream {
    stream: TcpStream,
    /// It leaves the machine, or could: options have an effect.
    outward: bool,
}

impl Stream {
    /// One of the host's.
    pub fn outward(stream: TcpStream) -> Self {
        // A guest has no way to ask for this, and its answers should not wait for more to send.
        let _ = stream.set_nodelay(true);
        Stream { stream, outward: true }
    }

    /// One between guests.
    pub fn between(stream: TcpStream) -> Self {
        Stream { outward: false, ..Stream::outward(stream) }
    }
}

impl Connection for Stream {
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.try_read(buffer)
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.try_write(bytes)
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_read_ready(cx).map(drop)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_write_ready(cx).map(drop)
    }

    fn take_error(&self) -> Option<Fault> {
        match self.stream.take_error() {
            Ok(None) => None,
            Ok(Some(e)) | Err(e) => Some(Fault::from(e)),
        }
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        SockRef::from(&self.stream).shutdown(how)
    }

    fn set(&self, option: SocketOption) {
        if self.outward {
            // A value that the system does not take leaves the old one, which does no harm.
            let _ = set(&SockRef::from(&self.stream), option);
        }
    }
}

fn set(socket: &SockRef<'_>, option: SocketOption) -> io::Result<()> {
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX).min(i32::MAX as usize / 2);
    let keep_alive = |times: TcpKeepalive| {
        // To set its times switches it on.
        let on = socket.keepalive()?;
        socket.set_tcp_keepalive(&times).and_then(|()| socket.set_keepalive(on))
    };
    match option {
        SocketOption::KeepAlive(on) => socket.set_keepalive(on),
        SocketOption::KeepAliveIdle(time) => keep_alive(TcpKeepalive::new().with_time(Duration::from_nanos(time))),
        SocketOption::KeepAliveInterval(time) => {
            keep_alive(TcpKeepalive::new().with_interval(Duration::from_nanos(time)))
        }
        SocketOption::KeepAliveCount(count) => keep_alive(TcpKeepalive::new().with_retries(count)),
        SocketOption::HopLimit(hops) => match socket.local_addr()?.is_ipv6() {
            true => socket.set_unicast_hops_v6(u32::from(hops)),
            false => socket.set_ttl_v4(u32::from(hops)),
        },
        SocketOption::ReceiveBuffer(bytes) => socket.set_recv_buffer_size(size(bytes)),
        SocketOption::SendBuffer(bytes) => socket.set_send_buffer_size(size(bytes)),
    }
}

/// A connection that is being made. Dropped before, it is not.
pub(super) struct Later {
    slot: Arc<Slot>,
    work: AbortHandle,
}

#[derive(Default)]
struct Slot {
    made: OnceLock<Result<Stream, Fault>>,
    /// The failure has been told.
    told: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

impl Later {
    /// Has the event loop make it.
    pub fn new(making: impl Future<Output = Result<Stream, Fault>> + Send + 'static) -> Self {
        let slot = Arc::<Slot>::default();
        let place = Arc::clone(&slot);
        let work = tokio::spawn(async move {
            let made = making.await;
            let mut waiting = place.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            place.made.get_or_init(|| made);
            waiting.drain(..).for_each(Waker::wake);
        });
        Later { slot, work: work.abort_handle() }
    }

    fn made(&self) -> io::Result<&Stream> {
        match self.slot.made.get() {
            Some(Ok(stream)) => Ok(stream),
            Some(Err(_)) => Err(io::ErrorKind::NotConnected.into()),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn poll(&self, cx: &mut Context<'_>, then: impl FnOnce(&Stream, &mut Context<'_>) -> Poll<()>) -> Poll<()> {
        let mut waiting = self.slot.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match self.slot.made.get() {
            Some(Ok(stream)) => then(stream, cx),
            Some(Err(_)) => Poll::Ready(()),
            None => {
                if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                    waiting.push(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }
}

impl Drop for Later {
    fn drop(&mut self) {
        self.work.abort();
    }
}

impl Connection for Later {
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.made()?.try_read(buffer)
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.made()?.try_write(bytes)
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll(cx, Stream::poll_readable)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll(cx, Stream::poll_writable)
    }

    fn take_error(&self) -> Option<Fault> {
        match self.slot.made.get()? {
            Ok(stream) => stream.take_error(),
            Err(fault) => (!self.slot.told.swap(true, Ordering::Relaxed)).then_some(*fault),
        }
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.made()?.shutdown(how)
    }

    fn set(&self, option: SocketOption) {
        if let Ok(stream) = self.made() {
            stream.set(option);
        }
    }
}
