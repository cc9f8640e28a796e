//! Noticing that a guest rests, which is when its process can let go of what it does not need.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::Notify;

/// Who has done nothing for so long rests.
pub(super) const QUIET: Duration = Duration::from_millis(200);

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

    /// Calls `rest` each time that the loop has had nothing to do for `quiet`. Who rests is not woken for this.
    pub(super) async fn await_rest(self: Arc<Self>, quiet: Duration, rest: impl Fn()) {
        loop {
            let before = self.count.load(Ordering::Relaxed);
            tokio::time::sleep(quiet).await;
            if self.count.load(Ordering::Relaxed).wrapping_sub(before) <= FEW {
                rest();
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
        const SHORT: Duration = Duration::from_millis(200);
        let mut builder = Builder::new_current_thread();
        let wakes = Wakes::of(builder.enable_time());
        let runtime = builder.build().unwrap();
        let rests = Arc::new(AtomicU32::new(0));
        let there = Arc::clone(&rests);
        runtime.spawn(wakes.await_rest(SHORT, move || _ = there.fetch_add(1, Ordering::Relaxed)));
        let rested = || rests.load(Ordering::Relaxed);
        runtime.block_on(async {
            for _ in 0..40 {
                tokio::time::sleep(SHORT / 40).await;
            }
            assert_eq!(rested(), 0, "it was busy");
            tokio::time::sleep(2 * SHORT).await;
            assert_eq!(rested(), 1);
            tokio::time::sleep(2 * SHORT).await;
            assert_eq!(rested(), 2, "the end of the sleep woke it once");
        });
    }
}
