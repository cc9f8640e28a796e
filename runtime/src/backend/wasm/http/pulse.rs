//! When a request is stuck, and the clock that tells its guest so.
//!
//! A request lives as long as something happens to it: bytes of its body come in, bytes of its answer go out. If nothing
//! does for the time limit, it is ended, whether its guest computes or waits. So a long download is not cut, and an
//! endless loop is.
//!
//! A guest that computes never comes back to the event loop by itself. The compiled code therefore looks at the engine's
//! epoch at every loop and call, and a thread raises that epoch while there are requests
//! (<https://docs.wasmtime.dev/examples-interrupting-wasm.html>). An idle server has no clock running.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use wasmtime::{Engine, Store, UpdateDeadline};

use super::super::rest::QUIET;
use super::log::AccessLog;
use crate::error::{Error, Result};

/// How often guests that compute let others go on.
const TICK: Duration = Duration::from_millis(10);

/// The request took longer than it may.
#[derive(Debug)]
pub struct Stuck;

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing has happened for the time limit of a request")
    }
}

impl std::error::Error for Stuck {}

/// The sign of life of one request.
#[derive(Debug)]
pub struct Pulse {
    began: Instant,
    limit: Duration,
    /// Milliseconds from the beginning to the last beat.
    last: AtomicU64,
    /// Its guest has ended badly: what was sent is not all.
    broken: AtomicBool,
}

impl Pulse {
    pub fn new(limit: Duration) -> Self {
        Pulse { began: Instant::now(), limit, last: AtomicU64::new(0), broken: AtomicBool::new(false) }
    }

    /// Something has happened.
    pub fn beat(&self) {
        self.last.store(self.elapsed_ms(), Ordering::Relaxed);
    }

    pub fn began(&self) -> Instant {
        self.began
    }

    pub fn break_off(&self) {
        self.broken.store(true, Ordering::Release);
    }

    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The moment at which the request is stuck if nothing happens. `None` is never.
    fn deadline(&self) -> Option<Instant> {
        self.began.checked_add(self.limit.checked_add(Duration::from_millis(self.last.load(Ordering::Relaxed)))?)
    }

    fn is_stuck(&self) -> bool {
        self.deadline().is_some_and(|at| at <= Instant::now())
    }

    /// Waits for `future` as long as the request lives.
    ///
    /// # Errors
    /// [`Stuck`].
    pub async fn keep<F: Future + ?Sized>(&self, mut future: Pin<&mut F>) -> Result<F::Output, Stuck> {
        loop {
            let Some(deadline) = self.deadline() else { return Ok(future.as_mut().await) };
            match tokio::time::timeout_at(deadline.into(), future.as_mut()).await {
                Ok(output) => return Ok(output),
                Err(_) if self.is_stuck() => return Err(Stuck),
                Err(_) => {}
            }
        }
    }

    /// Makes a guest that computes look at the clock: it lets others go on at every tick, and traps when it is stuck.
    pub fn govern<T>(self: &Arc<Self>, store: &mut Store<T>) {
        let pulse = self.clone();
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |_| match pulse.is_stuck() {
            true => Err(Stuck.into()),
            // Tokio's yield looks at sockets and timers before it comes back.
            false => Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now()))),
        });
    }
}

/// The thread that raises the epoch while there are requests.
pub struct Ticker(Arc<Shared>);

struct Shared {
    engine: Engine,
    log: Arc<AccessLog>,
    requests: AtomicUsize,
    over: AtomicBool,
    thread: std::sync::OnceLock<Thread>,
}

/// A ticker that ticks.
pub struct Ticking(Arc<Shared>, JoinHandle<()>);

/// A request that is under way.
pub struct UnderWay(Arc<Shared>);

impl Ticker {
    pub fn new(engine: Engine, log: Arc<AccessLog>) -> Self {
        Ticker(Arc::new(Shared {
            engine,
            log,
            requests: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            thread: std::sync::OnceLock::new(),
        }))
    }

    /// Begins to tick.
    ///
    /// # Errors
    /// The system's.
    pub fn start(&self) -> Result<Ticking> {
        let shared = self.0.clone();
        let thread = std::thread::Builder::new().name("http-clock".to_owned()).spawn(move || tick(&shared));
        let thread = thread.map_err(|e| Error::os("make a thread", e))?;
        // Requests that have come in before are seen at its first look.
        let _ = self.0.thread.set(thread.thread().clone());
        thread.thread().unpark();
        Ok(Ticking(self.0.clone(), thread))
    }

    /// Counts a request, as long as the answer lives.
    pub fn request(&self) -> UnderWay {
        if self.0.requests.fetch_add(1, Ordering::AcqRel) == 0
            && let Some(thread) = self.0.thread.get()
        {
            thread.unpark();
        }
        UnderWay(self.0.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Ticking {
    /// Ends the thread, which writes the last lines of the log.
    pub fn stop(self) {
        self.0.over.store(true, Ordering::Release);
        self.1.thread().unpark();
        // It does nothing that could panic.
        let _ = self.1.join();
    }
}

fn tick(shared: &Shared) {
    let mut rested = false;
    let mut quiet = QUIET.first;
    loop {
        let idle = shared.requests.load(Ordering::Acquire) == 0;
        // A request's line is written before it stops being counted.
        shared.log.flush();
        if shared.over.load(Ordering::Acquire) {
            return;
        }
        if !idle {
            rested = false;
            std::thread::sleep(TICK);
            shared.engine.increment_epoch();
        } else if rested {
            rested = false;
            std::thread::park();
        } else {
            let since = Instant::now();
            std::thread::park_timeout(quiet);
            // Nobody has woken us, or so late that the next look will tell.
            rested = since.elapsed() >= quiet;
            if rested {
                quiet = QUIET.later;
                crate::linux::give_back_memory();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(future)
    }

    #[test]
    fn a_request_without_a_sign_of_life_is_stuck() {
        let pulse = Pulse::new(Duration::from_millis(50));
        let waited = block_on(pulse.keep(std::pin::pin!(std::future::pending::<()>())));
        assert!(waited.is_err() && pulse.is_stuck());
        assert!(pulse.began().elapsed() >= Duration::from_millis(50));
    }

    #[test]
    fn signs_of_life_keep_it_going() {
        let pulse = Pulse::new(Duration::from_millis(500));
        let beats = async {
            for _ in 0..8 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                pulse.beat();
            }
        };
        assert!(block_on(pulse.keep(std::pin::pin!(beats))).is_ok());
        assert!(pulse.began().elapsed() >= Duration::from_millis(800));
    }

    #[test]
    fn no_limit_never_comes() {
        assert!(!Pulse::new(Duration::MAX).is_stuck());
    }
}
