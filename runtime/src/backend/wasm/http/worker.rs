//! One worker: a thread with an event loop, the connections it has accepted, and their requests.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

use super::stream::{Heard, Stream};
use super::{Guest, Shared, request};
use crate::error::{Error, Result};
use crate::network::Listener;

/// A client has so long for the head of a request, or between two.
const HEAD_TIME: Duration = Duration::from_secs(60);
/// How long a worker leaves a connection to one that has less to do.
const COURTESY: Duration = Duration::from_millis(1);
/// How long it waits when the system has no descriptor left.
const EXHAUSTED: Duration = Duration::from_millis(20);
/// Requests of one HTTP/2 connection at a time.
const STREAMS: u32 = 128;
/// Bytes that an HTTP/2 client may send ahead, for one stream and for all.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// A worker before it begins.
pub struct Worker<T: 'static> {
    shared: Arc<Shared<T>>,
    number: usize,
    runtime: Runtime,
    listeners: Vec<TcpListener>,
    lets_in: LetsIn,
    neighbours: Option<Box<dyn Listener>>,
    stop: watch::Receiver<bool>,
}

/// Whether those who call by the listeners are heard; others find the connection closed.
pub type LetsIn = Arc<dyn Fn() -> bool + Send + Sync>;

/// Held by everything that a worker must not leave behind.
pub type Alive = mpsc::Sender<Infallible>;

impl<T: Guest> Worker<T> {
    /// Makes its event loop and takes its copies of the listeners. `neighbours` is called in the event loop's context.
    ///
    /// # Errors
    /// The system's, and those of `neighbours`.
    pub fn new(
        shared: Arc<Shared<T>>,
        number: usize,
        listeners: Vec<StdListener>,
        lets_in: LetsIn,
        neighbours: impl FnOnce() -> Result<Option<Box<dyn Listener>>>,
        stop: watch::Receiver<bool>,
    ) -> Result<Self> {
        let loops = |e| Error::os("make an event loop", e);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(loops)?;
        let here = runtime.enter();
        let listen = |listener: StdListener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        };
        let listeners = listeners.into_iter().map(listen).collect::<io::Result<_>>().map_err(loops)?;
        let neighbours = neighbours()?;
        drop(here);
        Ok(Worker { shared, number, runtime, listeners, lets_in, neighbours, stop })
    }

    /// Serves until it is told to stop, and everything it has begun is over.
    pub fn run(self) {
        let Worker { shared, number, runtime, listeners, lets_in, neighbours, stop } = self;
        runtime.block_on(async {
            let (alive, mut all_over) = mpsc::channel(1);
            for listener in listeners {
                tokio::spawn(accept(shared.clone(), number, listener, lets_in.clone(), stop.clone(), alive.clone()));
            }
            if let Some(listener) = neighbours {
                tokio::spawn(accept_neighbours(shared, number, listener, stop, alive.clone()));
            }
            drop(alive);
            // Nothing is ever sent; it is closed when the last sender is gone.
            let _ = all_over.recv().await;
        });
    }
}

async fn accept<T: Guest>(
    shared: Arc<Shared<T>>,
    number: usize,
    listener: TcpListener,
    lets_in: LetsIn,
    stop: watch::Receiver<bool>,
    alive: Alive,
) {
    let mut stopped = std::pin::pin!(stopped(stop.clone()));
    loop {
        if shared.has_too_many(number) {
            tokio::time::sleep(COURTESY).await;
        }
        let accepted = tokio::select! {
            biased;
            () = stopped.as_mut() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(_) if !lets_in() => {}
            Ok((stream, _)) => {
                // Small chunks of a streamed answer must not wait for each other; where it is not possible, they do.
                let _ = stream.set_nodelay(true);
                tokio::spawn(connection(shared.clone(), number, stream, stop.clone(), alive.clone()));
            }
            // It has been shut (accept(2), `EINVAL`): the container is on no network that leads out. When there is one again
            // the neighbours' listener brings another.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => return,
            // The client has gone already, or there is no descriptor for it; those that end give theirs back.
            Err(_) => tokio::time::sleep(EXHAUSTED).await,
        }
    }
}

/// Connections of the container's own network.
async fn accept_neighbours<T: Guest>(
    shared: Arc<Shared<T>>,
    number: usize,
    mut listener: Box<dyn Listener>,
    stop: watch::Receiver<bool>,
    alive: Alive,
) {
    let mut stopped = std::pin::pin!(stopped(stop.clone()));
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped.as_mut() => return,
            accepted = poll_fn(|cx| listener.poll_accept(cx)) => accepted,
        };
        match accepted {
            Ok(connected) => {
                let stream = Stream(connected.connection);
                tokio::spawn(connection(shared.clone(), number, stream, stop.clone(), alive.clone()));
            }
            Err(_) => tokio::time::sleep(EXHAUSTED).await,
        }
    }
}

async fn connection<T: Guest>(
    shared: Arc<Shared<T>>,
    number: usize,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    stop: watch::Receiver<bool>,
    alive: Alive,
) {
    let count = &shared.connections[number];
    count.fetch_add(1, Ordering::Relaxed);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let service = service_fn(|request| request::answer(shared.clone(), request, alive.clone()));
    let (stream, ear) = Heard::new(stream);
    let mut served = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    // How a connection ends is the client's affair; what its guests did has been logged.
    tokio::select! {
        _ = served.as_mut() => {}
        // hyper's clock runs only when it has seen which version of HTTP the client speaks.
        () = ear.silence(HEAD_TIME) => {}
        () = stopped(stop) => {
            served.as_mut().graceful_shutdown();
            let _ = served.await;
        }
    }
    count.fetch_sub(1, Ordering::Relaxed);
}

/// Waits until the worker is to stop. A sender that is gone says so, too.
async fn stopped(mut stop: watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}
