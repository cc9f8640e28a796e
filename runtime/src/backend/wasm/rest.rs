//! Noticing that a guest rests, which is when its process can let go of what it does not need.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::Notify;

/// Who has done nothing for so long rests: soon after its start, most of whose pages nobody needs again, and later when it is
/// likely to go on resting, because to get back what work needs takes half a millisecond.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quiet {
    pub(super) first: Duration,
    pub(super) later: Duration,
}

pub(super) const QUIET: Quiet = Quiet { first: Duration::from_millis(200), later: Duration::from_secs(10) };

/// Who is woken no more often meanwhile has next to nothing to do. (To wait for a moment takes tokio some of these: its clock
/// comes to it by steps.)
const FEW: u32 = 8;

/// Counts how often an event loop of one thread is woken.
#[derive(Default)]
pub(super) struct Wakes {
    count: AtomicU32,
    is_awaited: AtomicBool,
    next: Notify,
}

impl Wakes {
    /// Those of the loop that is being built.
    pub(super) fn of(builder: &mut Builder) -> Arc<Self> {
        let wakes = Arc::new(Wakes::default());
        let counted = Arc::clone(&wakes);
        builder.on_thread_unpark(move || {
            counted.count.fetch_add(1, Ordering::Relaxed);
            if counted.is_awaited.swap(false, Ordering::Relaxed) {
                counted.next.notify_one();
            }
        });
        wakes
    }

    /// Calls `rest` each time that the loop has had nothing to do for so long. Who rests is not woken for this.
    pub(super) async fn await_rest(self: Arc<Self>, quiet: Quiet, rest: impl Fn()) {
        let mut time = quiet.first;
        loop {
            let before = self.count.load(Ordering::Relaxed);
            tokio::time::sleep(time).await;
            if self.count.load(Ordering::Relaxed).wrapping_sub(before) <= FEW {
                rest();
                time = quiet.later;
                self.is_awaited.store(true, Ordering::Relaxed);
                self.next.notified().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_quiet_loop_rests_and_once_until_it_is_woken() {
        const SHORT: Duration = Duration::from_millis(400);
        let quiet = Quiet { first: SHORT, later: 5 * SHORT };
        let mut builder = Builder::new_current_thread();
        let wakes = Wakes::of(builder.enable_time());
        let runtime = builder.build().unwrap();
        let rests = Arc::new(AtomicU32::new(0));
        let there = Arc::clone(&rests);
        runtime.spawn(wakes.await_rest(quiet, move || _ = there.fetch_add(1, Ordering::Relaxed)));
        let rested = || rests.load(Ordering::Relaxed);
        runtime.block_on(async {
            for _ in 0..40 {
                tokio::time::sleep(SHORT / 40).await;
            }
            assert_eq!(rested(), 0, "it was busy");
            tokio::time::sleep(2 * SHORT).await;
            assert_eq!(rested(), 1);
            // The end of the sleep woke it once.
            tokio::time::sleep(SHORT).await;
            assert_eq!(rested(), 1, "it rests as soon as the first time");
            tokio::time::sleep(7 * SHORT).await;
            assert_eq!(rested(), 2);
        });
    }
}
