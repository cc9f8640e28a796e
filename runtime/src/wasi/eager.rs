//! Waiting awake for what comes at once.
//!
//! To go to sleep and be woken takes longer than a neighbour's whole answer: some microseconds each way, and in a virtual
//! machine more, because a processor without work is left to the host. So a guest whose last waits were short waits the
//! next one awake, for a moment only and letting everybody else go first. (The kernel does the same for those who ask:
//! `net.core.busy_poll` in its admin-guide/sysctl/net.)

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// A wait that is over before is short.
const SHORT: Duration = Duration::from_micros(50);

/// So many short waits are slept through after the first that was not short; twice as many after each further one.
const CAUTION: u32 = 16;
/// And never more.
const MOST_CAUTION: u32 = 1 << 12;

/// Runs a future to its end. To be run by an event loop of one thread.
pub(crate) async fn eagerly<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let woken = Arc::new(Woken { is: AtomicBool::new(true), outer: Mutex::new(Waker::noop().clone()) });
    let waker = Waker::from(Arc::clone(&woken));
    let mut waits = Waits::default();
    std::future::poll_fn(|cx| {
        woken.outer().clone_from(cx.waker());
        if woken.is.swap(false, Ordering::AcqRel) {
            waits.end(Instant::now);
            if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Poll::Ready(value);
            }
            waits.begin(Instant::now());
        }
        if waits.is_awake(Instant::now) {
            std::thread::yield_now();
            // The event loop looks at its descriptors and its clock before it comes back to us.
            let _ = pin!(tokio::task::yield_now()).poll(cx);
        }
        Poll::Pending
    })
    .await
}

/// Passes a wake-up on, and remembers it: what wakes us otherwise is only our turn to look.
struct Woken {
    is: AtomicBool,
    outer: Mutex<Waker>,
}

impl Woken {
    fn outer(&self) -> std::sync::MutexGuard<'_, Waker> {
        self.outer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is.store(true, Ordering::Release);
        self.outer().wake_by_ref();
    }
}

/// How long the last waits were, and whether the next is worth staying awake.
#[derive(Debug, Default)]
pub(super) struct Waits {
    begun: Option<Instant>,
    /// So many short waits are still slept through.
    asleep: u32,
    caution: u32,
    /// The present one is not slept through, so far.
    awake: bool,
}

impl Waits {
    pub fn begin(&mut self, now: Instant) {
        self.begun = Some(now);
        self.awake = self.asleep == 0;
    }

    /// Nothing if none has begun.
    pub fn end(&mut self, now: impl FnOnce() -> Instant) {
        let Some(begun) = self.begun.take() else { return };
        if now() - begun > SHORT {
            return;
        }
        match self.awake {
            true => self.caution /= 2,
            false => self.asleep = self.asleep.saturating_sub(1),
        }
    }

    /// True when the wait goes on awake.
    pub fn is_awake(&mut self, now: impl FnOnce() -> Instant) -> bool {
        if self.awake && self.begun.is_some_and(|begun| now() - begun > SHORT) {
            self.awake = false;
            self.caution = (self.caution * 2).clamp(CAUTION, MOST_CAUTION);
            self.asleep = self.caution;
        }
        self.awake
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(waits: &mut Waits, long: Duration) {
        let begun = Instant::now();
        waits.begin(begun);
        waits.is_awake(|| begun + long);
        waits.end(|| begun + long);
    }

    #[test]
    fn only_those_stay_awake_whose_waits_are_short() {
        let mut waits = Waits::default();
        let long = 2 * SHORT;
        wait(&mut waits, long);
        assert!(!waits.awake, "it stayed awake all the time");
        for n in 0..CAUTION {
            assert_eq!(waits.asleep, CAUTION - n);
            wait(&mut waits, Duration::ZERO);
        }
        wait(&mut waits, Duration::ZERO);
        assert!(waits.awake, "short waits are not slept through");
        (0..100).for_each(|_| wait(&mut waits, long));
        assert_eq!(waits.asleep, CAUTION, "it goes on trying though no wait is short");
        (0..=CAUTION).for_each(|_| wait(&mut waits, Duration::ZERO));
        wait(&mut waits, long);
        assert_eq!(waits.asleep, CAUTION, "what was worth it makes bold");
        (0..CAUTION).for_each(|_| wait(&mut waits, Duration::ZERO));
        wait(&mut waits, long);
        assert_eq!(waits.asleep, 2 * CAUTION, "what was not makes cautious");
    }

    #[test]
    fn wake_ups_come_through_from_other_threads_and_clocks() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let sum = eagerly(async {
            std::thread::spawn(move || sender.send(3).unwrap());
            tokio::time::sleep(Duration::from_millis(1)).await;
            receiver.await.unwrap() + tokio::spawn(async { 4 }).await.unwrap()
        });
        assert_eq!(runtime.block_on(sum), 7);
    }
}
