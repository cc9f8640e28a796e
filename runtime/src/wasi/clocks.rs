//! `wasi:clocks/monotonic-clock` 0.2. The clock is wasmtime-wasi's; what waits for it is ours, so that a server that waits
//! for its connections no longer than a while is as fast as one that waits for ever.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::time::Sleep;
use wasmtime::Result;
use wasmtime::component::{HasData, Linker, Resource};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::clocks::{WasiClocksCtxView, WasiClocksView};
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock;
use wasmtime_wasi::p2::{DynPollable, Pollable};

use super::io::Ready;
use crate::network::Question;

/// Gives `linker` the interface.
///
/// # Errors
/// When it is there already.
pub(super) fn add_to_linker<T: WasiClocksView + 'static>(linker: &mut Linker<T>) -> Result<()> {
    monotonic_clock::add_to_linker::<T, Data>(linker, |state| Clock(state.clocks()))
}

struct Clock<'a>(WasiClocksCtxView<'a>);

struct Data;

impl HasData for Data {
    type Data<'a> = Clock<'a>;
}

impl monotonic_clock::Host for Clock<'_> {
    fn now(&mut self) -> Result<monotonic_clock::Instant> {
        monotonic_clock::Host::now(&mut self.0)
    }

    fn resolution(&mut self) -> Result<monotonic_clock::Duration> {
        monotonic_clock::Host::resolution(&mut self.0)
    }

    fn subscribe_instant(&mut self, when: monotonic_clock::Instant) -> Result<Resource<DynPollable>> {
        let now = self.now()?;
        self.subscribe_duration(when.saturating_sub(now))
    }

    fn subscribe_duration(&mut self, nanoseconds: monotonic_clock::Duration) -> Result<Resource<DynPollable>> {
        let timer = self.0.table.push(Timer::new(Duration::from_nanos(nanoseconds)))?;
        Ok(Resource::new_own(timer.rep()))
    }
}

/// Ready when a time has come. It lies in the guest's table as the pollable that it is: a guest may have very many.
pub(super) struct Timer {
    /// None: it never comes.
    at: Option<Instant>,
    /// The event loop's, if it waits for it.
    sleep: Option<Pin<Box<Sleep>>>,
    /// Who asks without waiting is to hear of what else is ready: before that the event loop has a turn.
    turn: bool,
}

impl Timer {
    fn new(after: Duration) -> Self {
        Timer { at: Instant::now().checked_add(after), sleep: None, turn: after.is_zero() }
    }
}

#[async_trait]
impl Pollable for Timer {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.poll_ready(cx)).await;
    }
}

impl Ready for Timer {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        if std::mem::take(&mut self.turn) && !cx.waker().will_wake(Waker::noop()) {
            let _ = pin!(tokio::task::yield_now()).poll(cx);
            return Poll::Pending;
        }
        // The event loop's own clock goes by milliseconds.
        if at <= Instant::now() {
            return Poll::Ready(());
        }
        self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at.into()))).as_mut().poll(cx)
    }

    fn ask(&self, _owner: u32, _question: &mut Question) -> bool {
        true
    }

    fn at(&self) -> Option<Instant> {
        self.at
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use wasmtime::component::ResourceTable;
    use wasmtime_wasi_io::bindings::wasi::io::poll::{Host as _, HostPollable as _};

    use super::super::io::tests::{borrowed, run};
    use super::super::io::{Io, subscribe};
    use super::*;

    fn timer(table: &mut ResourceTable, after: Duration) -> Resource<DynPollable> {
        Resource::new_own(table.push(Timer::new(after)).unwrap().rep())
    }

    #[test]
    fn a_time_comes_when_it_is_due_and_others_later_or_never() {
        let mut table = ResourceTable::new();
        let due = Duration::from_millis(20);
        let longest = Duration::from_nanos(u64::MAX);
        let timers = [Duration::MAX, due, longest].map(|after| timer(&mut table, after));
        run(async {
            let mut io = Io { table: &mut table, pace: None };
            let begun = Instant::now();
            let ready = io.poll(borrowed(&[&timers[0], &timers[1], &timers[2]])).await.unwrap();
            assert_eq!(ready, [1]);
            assert!(begun.elapsed() >= due);
            for (timer, is) in timers.into_iter().zip([false, true, false]) {
                assert_eq!(io.ready(Resource::new_borrow(timer.rep())).await.unwrap(), is);
                io.drop(timer).unwrap();
            }
        });
        assert!(table.is_empty(), "timers stay behind");
    }

    #[test]
    fn who_does_not_wait_hears_of_what_is_ready_all_the_same() {
        struct Told(Arc<AtomicBool>);

        #[async_trait]
        impl Pollable for Told {
            async fn ready(&mut self) {}
        }

        impl Ready for Told {
            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<()> {
                if self.0.load(Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending }
            }
        }

        let mut table = ResourceTable::new();
        let is = Arc::new(AtomicBool::new(false));
        let told = table.push(Told(Arc::clone(&is))).unwrap();
        let told = subscribe(&mut table, &told).unwrap();
        let now = timer(&mut table, Duration::ZERO);
        run(async {
            // The event loop has something to tell.
            tokio::spawn(async move { is.store(true, Ordering::Relaxed) });
            let mut io = Io { table: &mut table, pace: None };
            assert!(io.ready(Resource::new_borrow(now.rep())).await.unwrap());
            assert!(!io.ready(Resource::new_borrow(told.rep())).await.unwrap());
            let again = timer(io.table, Duration::ZERO);
            assert_eq!(io.poll(borrowed(&[&again, &told])).await.unwrap(), [0, 1]);
        });
    }

    #[cfg(all(target_os = "linux", not(feature = "portable")))]
    #[test]
    fn who_waits_for_a_socket_with_a_timeout_asks_the_kernel() {
        use std::io::Write as _;
        use std::os::unix::net::UnixStream;

        use super::super::io::{Pace, tests::Asked};

        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut table = ResourceTable::new();
        let asked = table.push(Asked(ours)).unwrap();
        let socket = subscribe(&mut table, &asked).unwrap();
        let timers = [Duration::ZERO, Duration::from_secs(1000)].map(|after| timer(&mut table, after));
        let mut pace = Pace::default();
        run(async {
            let mut io = Io { table: &mut table, pace: Some(&mut pace) };
            assert_eq!(io.poll(borrowed(&[&socket, &timers[0]])).await.unwrap(), [1]);
            (&theirs).write_all(b"something").unwrap();
            assert_eq!(io.poll(borrowed(&[&timers[1], &socket])).await.unwrap(), [1]);
        });
    }
}
