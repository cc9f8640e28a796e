//! What stands between Wharf and a registry in real life: a slow line that breaks. Bytes go through unread.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A line to a server. It lasts as long as the test.
pub struct Proxy {
    port: u16,
    line: Arc<Line>,
}

#[derive(Default)]
struct Line {
    /// Bytes a second from the server, for each connection; 0: as fast as they come.
    rate: AtomicU64,
    /// After so many more bytes to the server the connection breaks, once.
    left: AtomicU64,
}

impl Proxy {
    /// A line to the server at `127.0.0.1:PORT`, fast and reliable.
    pub fn to(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let line = Arc::new(Line { rate: AtomicU64::new(0), left: AtomicU64::new(u64::MAX) });
        let shared = line.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)) else { continue };
                let (back, forth) = (client.try_clone().expect("dup"), server.try_clone().expect("dup"));
                let (up, down) = (shared.clone(), shared.clone());
                std::thread::spawn(move || pass(back, forth, |n| up.may_go_up(n)));
                std::thread::spawn(move || pass(server, client, |n| down.wait(n)));
            }
        });
        Proxy { port, line }
    }

    /// This name at the server, by way of the line.
    pub fn name(&self, rest: &str) -> String {
        format!("127.0.0.1:{}/{rest}", self.port)
    }

    /// Lets so many bytes a second come from the server on each connection; 0: all.
    pub fn throttle(&self, rate: u64) {
        self.line.rate.store(rate, Ordering::Relaxed);
    }

    /// Breaks the connection on which the `bytes`th byte from now on is sent to the server.
    pub fn break_after(&self, bytes: u64) {
        self.line.left.store(bytes, Ordering::Relaxed);
    }
}

impl Line {
    fn may_go_up(&self, bytes: u64) -> bool {
        let take = |left: u64| (left != u64::MAX).then(|| if left > bytes { left - bytes } else { u64::MAX });
        match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(before) => before > bytes,
            Err(_) => true,
        }
    }

    fn wait(&self, bytes: u64) -> bool {
        if let Some(pause) = (bytes * 1_000_000).checked_div(self.rate.load(Ordering::Relaxed)) {
            std::thread::sleep(Duration::from_micros(pause));
        }
        true
    }
}

/// Passes bytes on while `may` says so; then both sides are cut off.
fn pass(mut from: TcpStream, mut to: TcpStream, may: impl Fn(u64) -> bool) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if !may(n as u64) || to.write_all(&buffer[..n]).is_err() {
            from.shutdown(Shutdown::Both).ok();
            break;
        }
    }
    to.shutdown(Shutdown::Both).ok();
}
