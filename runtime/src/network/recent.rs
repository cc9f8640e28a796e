//! With whom a socket for datagrams has exchanged some lately.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

/// Correspondents that are remembered for each socket.
const MOST: usize = 1024;

/// The latest correspondents, with what is known of each.
#[derive(Debug)]
pub(crate) struct Recent<T> {
    known: HashMap<SocketAddr, T>,
    order: VecDeque<SocketAddr>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Recent { known: HashMap::new(), order: VecDeque::new() }
    }
}

impl<T> Recent<T> {
    /// What is remembered of it.
    pub(crate) fn get(&self, address: &SocketAddr) -> Option<&T> {
        self.known.get(address)
    }

    /// Remembers it, and forgets the oldest when there are too many.
    pub(crate) fn insert(&mut self, address: SocketAddr, value: T) {
        if self.known.insert(address, value).is_none() {
            self.order.push_back(address);
        }
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}
