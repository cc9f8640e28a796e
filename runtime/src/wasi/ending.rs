//! How a stream of WASI 0.3 has ended, for the future that tells it.

use tokio::sync::oneshot;

/// What the guest hears.
pub(super) type End<E> = Result<(), E>;

/// Tells it, once: that it ended well, if nobody has said otherwise when this is dropped.
pub(super) struct Ending<E>(Option<oneshot::Sender<End<E>>>);

impl<E> Ending<E> {
    /// With the future.
    pub fn new() -> (Self, oneshot::Receiver<End<E>>) {
        let (end, ended) = oneshot::channel();
        (Ending(Some(end)), ended)
    }

    /// Tells it now.
    pub fn tell(&mut self, how: End<E>) {
        if let Some(end) = self.0.take() {
            // The guest may have dropped its future: it does not care.
            let _ = end.send(how);
        }
    }

    /// True until it was told.
    pub fn is_open(&self) -> bool {
        self.0.is_some()
    }
}

impl<E> Drop for Ending<E> {
    fn drop(&mut self) {
        self.tell(Ok(()));
    }
}
