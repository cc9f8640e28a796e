//! Serving HTTP: a component that exports `wasi:http/incoming-handler` (WASI 0.2) or `wasi:http/handler` (0.3)
//! (<https://github.com/WebAssembly/wasi-http>) answers the requests that come in on the container's port.
//!
//! Each request gets an instance of its own, so that nothing of one request is seen by another: the pooling allocator
//! gives it memory that still has its pages, reset where they were written. There is a worker thread for each processor,
//! with an event loop of its own; a connection stays where it was accepted. Nothing is shared between workers but the
//! compiled code, the pool and some counters.
//!
//! - [`worker`]: accepts connections and speaks HTTP/1.1 and HTTP/2 on them (hyper), until it is to drain.
//! - [`request`]: one request and its instance, with the limits on both.
//! - [`pulse`]: when a request counts as stuck.
//! - [`body`]: response bodies, counted.
//! - [`log`]: one line for each request.
//!
//! The other direction, a guest's own requests, is [`outgoing`]; [`client`] is its door in WASI 0.3.

mod body;
pub(super) mod client;
mod hooks;
mod log;
mod outgoing;
mod pulse;
mod request;
mod stream;
mod worker;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, watch};
use wasmtime::Engine;
use wasmtime::component::InstancePre;
use wasmtime_wasi::WasiView;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p3::bindings::ServicePre;

pub(super) use self::hooks::Hooks;
use self::log::AccessLog;
use self::pulse::Ticker;
use self::worker::LetsIn;
use super::memory::MemoryLimit;
use super::run::exports;
use crate::error::{Class, Error, Result};
use crate::network::Listener;
use crate::task::HttpTask;

/// What the host functions of one request's instance work on.
pub(super) trait Guest: WasiView + WasiHttpView + 'static {
    /// Its memory's limit.
    fn memory(&mut self) -> &mut MemoryLimit;
}

/// What answers requests in WASI 0.3.
const HANDLER_P3: &str = "wasi:http/handler@0.3.";

/// A component that serves, before its first request.
pub(super) struct Server<T: 'static> {
    shared: Arc<Shared<T>>,
    workers: usize,
}

/// What makes the guests.
enum Handler<T: 'static> {
    /// Of WASI 0.2.
    P2(ProxyPre<T>),
    /// Of WASI 0.3.
    P3(ServicePre<T>),
}

/// What all workers use.
struct Shared<T: 'static> {
    engine: Engine,
    handler: Handler<T>,
    /// Makes a guest's state.
    state: Box<dyn Fn() -> T + Send + Sync>,
    limits: HttpTask,
    /// One for each request that is with a guest.
    permits: Arc<Semaphore>,
    ticker: Ticker,
    log: Arc<AccessLog>,
    /// Open connections, by worker.
    connections: Vec<AtomicUsize>,
}

impl<T: Guest> Server<T> {
    /// A server of this component; `state` makes the state of one request's guest.
    ///
    /// # Errors
    /// `Unsupported` when the component does not serve.
    pub fn new(
        component: InstancePre<T>,
        limits: HttpTask,
        state: impl Fn() -> T + Send + Sync + 'static,
    ) -> Result<Self> {
        let engine = component.engine().clone();
        let handler = match exports(component.component(), HANDLER_P3) {
            true => ServicePre::new(component).map(Handler::P3),
            false => ProxyPre::new(component).map(Handler::P2),
        };
        let handler =
            handler.map_err(|e| Error::new(Class::Unsupported, format!("the component does not serve HTTP: {e:#}")))?;
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let log = Arc::new(AccessLog::new(limits.access_log));
        let shared = Shared {
            engine: engine.clone(),
            handler,
            state: Box::new(state),
            permits: Arc::new(Semaphore::new(limits.concurrency.max(1))),
            limits,
            ticker: Ticker::new(engine, log.clone()),
            log,
            connections: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
        };
        Ok(Server { shared: Arc::new(shared), workers })
    }

    /// The container's port that it answers on.
    pub fn port(&self) -> u16 {
        self.shared.limits.port
    }

    /// Serves what comes in on `listeners`, while `lets_in` says so, and from `neighbours` on the container's network, until
    /// `wait` returns. Then lets the requests that have begun finish. `neighbours` is called in the context of tokio's event loop.
    ///
    /// # Errors
    /// Those of `neighbours`; the system's, when there are no threads or event loops to be had.
    pub fn run<R>(
        self,
        listeners: &[TcpListener],
        lets_in: LetsIn,
        neighbours: impl FnOnce() -> Result<Option<Box<dyn Listener>>>,
        wait: impl FnOnce() -> R,
    ) -> Result<R> {
        let (stop, stopped) = watch::channel(false);
        // The first worker's.
        let mut neighbours = Some(neighbours);
        let mut threads = Vec::with_capacity(self.workers);
        for number in 0..self.workers {
            let copies: std::io::Result<Vec<_>> = listeners.iter().map(TcpListener::try_clone).collect();
            let copies = copies.map_err(|e| Error::os("duplicate a listener", e))?;
            let worker = worker::Worker::new(
                self.shared.clone(),
                number,
                copies,
                lets_in.clone(),
                || neighbours.take().map_or(Ok(None), |listen| listen()),
                stopped.clone(),
            )?;
            let thread = std::thread::Builder::new().name(format!("http-{number}"));
            threads.push(thread.spawn(move || worker.run()).map_err(|e| Error::os("make a thread", e))?);
        }
        let told = self.shared.ticker.start()?;
        let answer = wait();
        // If all workers have died there is nobody to stop.
        let _ = stop.send(true);
        let panicked = threads.into_iter().map(|thread| thread.join().is_err()).filter(|e| *e).count();
        told.stop();
        match panicked {
            0 => Ok(answer),
            _ => Err(Error::new(Class::Internal, "a worker that serves HTTP has died")),
        }
    }
}

impl<T> Shared<T> {
    /// True when another worker has so much less to do that this one had better leave it a connection.
    fn has_too_many(&self, worker: usize) -> bool {
        let load = |w: &AtomicUsize| w.load(Ordering::Relaxed);
        let own = load(&self.connections[worker]);
        self.connections.iter().any(|other| load(other) + 1 < own)
    }
}
