//! The process of a container that serves HTTP: where requests come in, and how it is told to end.
//!
//! WASI has no signals, so those that ask a program to end ask the server to let its requests finish. All threads have
//! them blocked, and the first one reads them from a descriptor (signalfd(2)). Whoever loses patience sends SIGKILL.

use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};

use crate::backend::wasm::run::Serving;
use crate::error::{Error, Result};
use crate::linux::signals::SignalFd;
use crate::network::VirtualNetwork;

/// The signals that mean: come to an end.
const ENDING: [i32; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGHUP];

/// Serves its port until it is asked to end. Gives the exit code of a program that the signal ended: 128 and its number.
///
/// # Errors
/// When the port cannot be had, or no threads.
pub fn serve(serving: Serving, network: Arc<dyn VirtualNetwork>) -> Result<i32> {
    // Before there are threads, which inherit it.
    let mut signals = SignalFd::new(&ENDING).map_err(|e| Error::os("take signals", e))?;
    serving.serve(network, || {
        loop {
            if let Some(signal) = signals.next() {
                return 128 + signal;
            }
            // An error other than EINTR cannot be: the descriptor is ours and open. Then `next` is asked again.
            let _ = poll(&mut [PollFd::new(&signals, PollFlags::IN)], None);
        }
    })
}
