//! The two streams of a connection.
//!
//! A write goes straight to the socket. What the socket does not take at once stays here, and a task of its own brings
//! it out: the guest may wait for the answer, close, or end, and what it has written arrives all the same, as it would
//! from a kernel's buffer. That task exists only while something is left; the common write needs none. Small writes are
//! gathered meanwhile: a socket of the container's own network counts them by their number (unix(7)), where TCP joins them.

use std::io;
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::sync::Notify;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

use crate::network::{Connection, Question};
use crate::wasi::io::Ready;

/// The most that is written at once, and kept when the socket does not take it.
const PERMIT: usize = 128 * 1024;
/// How much may be left for another write to join it. Few, so that a large one is not cut in small pieces.
const GATHERED: usize = 16 * 1024;
/// The least and the most that a read asks for. Memory for the least is at hand (malloc(3) keeps what is no larger).
const READ: std::ops::RangeInclusive<usize> = 1024..=256 * 1024;

/// How much is still on its way out when the guest is over.
#[derive(Debug, Default)]
pub(crate) struct Lingering {
    count: AtomicUsize,
    less: Notify,
}

impl Lingering {
    /// Waits until everything is out, or the time has passed: a peer that does not read keeps no container alive.
    pub async fn settle(&self, longest: Duration) {
        let settled = async {
            loop {
                let less = self.less.notified();
                if self.count.load(Ordering::Acquire) == 0 {
                    return;
                }
                less.await;
            }
        };
        let _ = tokio::time::timeout(longest, settled).await;
    }

    /// True when nothing is to be waited for.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        // Without an event loop nothing can be brought out any more: the process ends.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        self.count.fetch_add(1, Ordering::AcqRel);
        let lingering = Arc::clone(self);
        runtime.spawn(async move {
            task.await;
            lingering.count.fetch_sub(1, Ordering::AcqRel);
            lingering.less.notify_waiters();
        });
    }
}

fn stream_error(e: io::Error) -> StreamError {
    StreamError::LastOperationFailed(e.into())
}

/// What comes in.
pub(in crate::wasi) struct Input {
    connection: Arc<dyn Connection>,
    /// Shut down, by the other side or by the guest.
    closed: Arc<AtomicBool>,
    /// How much to ask for: what the last reads gave is what memory is taken for.
    size: usize,
}

impl Input {
    pub fn new(connection: Arc<dyn Connection>, closed: Arc<AtomicBool>) -> Self {
        Input { connection, closed, size: *READ.start() }
    }

    /// Reads `size` bytes at most. Empty: there is nothing now.
    pub fn read_to(&mut self, size: usize) -> StreamResult<Vec<u8>> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(StreamError::Closed);
        }
        let mut bytes = Vec::new();
        let most = size.min(self.size);
        if most == 0 {
            return Ok(bytes);
        }
        match self.connection.try_read_more(&mut bytes, most) {
            Ok(0) => {
                self.closed.store(true, Ordering::Relaxed);
                Err(StreamError::Closed)
            }
            Ok(length) => {
                if length == self.size {
                    self.size = (self.size * 4).min(*READ.end());
                } else if length < self.size / 8 {
                    self.size = (self.size / 2).max(*READ.start());
                }
                Ok(bytes)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(bytes),
            Err(e) => {
                self.closed.store(true, Ordering::Relaxed);
                Err(stream_error(e))
            }
        }
    }
}

#[async_trait]
impl InputStream for Input {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        self.read_to(size).map(Bytes::from)
    }
}

#[async_trait]
impl Pollable for Input {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.poll_ready(cx)).await;
    }
}

impl Ready for Input {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.closed.load(Ordering::Relaxed) { Poll::Ready(()) } else { self.connection.poll_readable(cx) }
    }

    fn ask(&self, owner: u32, question: &mut Question) -> bool {
        !self.closed.load(Ordering::Relaxed) && self.connection.ask_readable(owner, question)
    }
}

/// What goes out. The socket has one end of it and the guest's stream the other.
#[derive(Clone)]
pub(super) struct Output {
    writer: Arc<Mutex<Writer>>,
    lingering: Arc<Lingering>,
}

struct Writer {
    connection: Arc<dyn Connection>,
    /// What the socket has not taken yet; a task brings it out.
    left: Bytes,
    /// What was written since then.
    more: BytesMut,
    /// The guest wants all of it out before it writes more.
    flushing: bool,
    state: State,
    /// Who waits for nothing to be left.
    waiting: Vec<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// To be shut down when nothing is left.
    Closing,
    Closed,
    /// It has failed, which has not been told.
    Failed(io::ErrorKind),
}

impl Output {
    pub fn new(connection: Arc<dyn Connection>, lingering: Arc<Lingering>) -> Self {
        let (left, more) = (Bytes::new(), BytesMut::new());
        let writer = Writer { connection, left, more, flushing: false, state: State::Open, waiting: Vec::new() };
        Output { writer: Arc::new(Mutex::new(writer)), lingering }
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        lock(&self.writer)
    }

    /// Nothing more will be written; what was arrives first.
    pub fn shut_down(&self) {
        let mut writer = self.lock();
        if writer.state == State::Open {
            writer.state = State::Closing;
            writer.close_if_empty();
        }
    }
}

fn lock(writer: &Mutex<Writer>) -> MutexGuard<'_, Writer> {
    writer.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Writer {
    /// Gives the socket what it takes. Pending: something is left.
    fn bring_out(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.left.is_empty() {
                if self.more.is_empty() {
                    break;
                }
                self.left = self.more.split().freeze();
            }
            match self.connection.try_write(&self.left) {
                Ok(length) => self.left.advance(length),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready!(self.connection.poll_writable(cx)),
                Err(e) => self.fail(e.kind()),
            }
        }
        self.flushing = false;
        self.close_if_empty();
        Poll::Ready(())
    }

    /// Nothing will go out any more.
    fn fail(&mut self, kind: io::ErrorKind) {
        (self.left, self.more) = (Bytes::new(), BytesMut::new());
        self.state = match (self.state, kind) {
            // The other side has closed: that is told as the end of the stream.
            (State::Closing, _) | (_, io::ErrorKind::BrokenPipe) => State::Closed,
            (_, kind) => State::Failed(kind),
        };
    }

    /// How much may be written now.
    fn permit(&self) -> usize {
        match self.left.len() + self.more.len() {
            0 => PERMIT,
            _ if self.flushing => 0,
            left => GATHERED.saturating_sub(left),
        }
    }

    fn close_if_empty(&mut self) {
        if self.state == State::Closing && self.left.is_empty() {
            self.state = State::Closed;
            // Fails when the other side was faster.
            let _ = self.connection.shutdown(Shutdown::Write);
        }
    }

    /// The error to tell, once; then it is closed.
    fn check(&mut self) -> StreamResult<()> {
        match self.state {
            State::Open => Ok(()),
            State::Closing | State::Closed => Err(StreamError::Closed),
            State::Failed(kind) => {
                self.state = State::Closed;
                Err(stream_error(kind.into()))
            }
        }
    }
}

/// The guest's end of the stream: dropping it is the end of what it writes.
pub(in crate::wasi) struct GuestOutput(pub(super) Output);

impl GuestOutput {
    /// Writes what was permitted.
    pub fn write_from(&self, bytes: &[u8]) -> StreamResult<()> {
        let mut writer = self.0.lock();
        writer.check()?;
        if bytes.len() > writer.permit() {
            return Err(StreamError::trap("write was not permitted by check-write"));
        }
        if !writer.left.is_empty() {
            writer.more.extend_from_slice(bytes);
            return Ok(());
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            match writer.connection.try_write(rest) {
                Ok(length) => rest = &rest[length..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => {
                    writer.fail(e.kind());
                    rest = &[];
                }
            }
        }
        if !rest.is_empty() {
            writer.left = Bytes::copy_from_slice(rest);
            let writer = Arc::clone(&self.0.writer);
            self.0.lingering.spawn(async move {
                std::future::poll_fn(|cx| lock(&writer).bring_out(cx)).await;
                lock(&writer).waiting.drain(..).for_each(Waker::wake);
            });
        }
        match writer.state {
            State::Failed(_) => writer.check(),
            _ => Ok(()),
        }
    }
}

impl Drop for GuestOutput {
    fn drop(&mut self) {
        self.0.shut_down();
    }
}

#[async_trait]
impl OutputStream for GuestOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.write_from(&bytes)
    }

    fn flush(&mut self) -> StreamResult<()> {
        // Everything is on its way, and check-write waits until it is out.
        let mut writer = self.0.lock();
        writer.check()?;
        writer.flushing = !writer.left.is_empty();
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        let mut writer = self.0.lock();
        writer.check()?;
        Ok(writer.permit())
    }
}

#[async_trait]
impl Pollable for GuestOutput {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.poll_ready(cx)).await;
    }
}

impl Ready for GuestOutput {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut writer = self.0.lock();
        if writer.left.is_empty() {
            return Poll::Ready(());
        }
        if !writer.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            writer.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }
}
