//! Datagrams to published ports: each sender has a socket of the monitor's, connected to the container, by which the
//! container answers him.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, connect, recv, recvfrom, send, sendto};

use super::Door;
use crate::linux::sockets;
use crate::network::Protocol;

/// Senders at one time; of more, who was silent longest is forgotten.
const MOST: usize = 128;
/// Who has been silent for so long is forgotten: docker's proxy waits as long.
const SILENCE: Duration = Duration::from_secs(90);
/// Datagrams passed on before others have their turn.
const AT_ONCE: usize = 64;
/// The longest datagram.
const LONGEST: usize = 64 * 1024;

/// A sender: the door by which he came, and his address.
type Who = (usize, SocketAddr);

/// Those of one container.
#[derive(Debug, Default)]
pub struct Datagrams(BTreeMap<Who, Exchange>);

/// What can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    Door(usize),
    Container(Who),
}

#[derive(Debug)]
struct Exchange {
    socket: OwnedFd,
    /// When something was said last.
    last: Instant,
}

impl Datagrams {
    /// What to poll for reading.
    pub fn polls<'a>(
        &'a self,
        doors: impl Iterator<Item = (usize, &'a Door)>,
    ) -> impl Iterator<Item = (Wake, BorrowedFd<'a>)> {
        let doors = doors.map(|(at, door)| (Wake::Door(at), door.socket.as_fd()));
        doors.chain(self.0.iter().map(|(who, exchange)| (Wake::Container(*who), exchange.socket.as_fd())))
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.0.values().map(|exchange| exchange.last + SILENCE).min()
    }

    pub fn on_time(&mut self, now: Instant) {
        self.0.retain(|_, exchange| exchange.last + SILENCE > now);
    }

    /// Forgets whoever came by this door.
    pub fn cut(&mut self, door: usize) {
        self.0.retain(|(at, _), _| *at != door);
    }

    pub fn woken(&mut self, wake: Wake, doors: &[Door], may: &dyn Fn(SocketAddr) -> bool) {
        let mut buffer = vec![0; LONGEST];
        for _ in 0..AT_ONCE {
            let more = match wake {
                Wake::Door(at) => self.of_outside(at, &doors[at], &mut buffer, may),
                Wake::Container(who) => self.of_container(who, &doors[who.0], &mut buffer),
            };
            if more.is_none() {
                return;
            }
        }
    }

    fn of_outside(
        &mut self,
        at: usize,
        door: &Door,
        buffer: &mut [u8],
        may: &dyn Fn(SocketAddr) -> bool,
    ) -> Option<()> {
        let (_, length, from) = recvfrom(&door.socket, &mut *buffer, RecvFlags::DONTWAIT).ok()?;
        let from = SocketAddr::try_from(from?).ok()?;
        let Some(to) = door.to else { return Some(()) };
        if !self.0.contains_key(&(at, from)) && may(from) {
            self.begin((at, from), to);
        }
        if let Some(exchange) = self.0.get_mut(&(at, from)) {
            exchange.last = Instant::now();
            let say = || send(&exchange.socket, &buffer[..length], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
            // What it heard of an earlier one is told first.
            if say() == Err(Errno::CONNREFUSED) {
                let _ = say();
            }
        }
        Some(())
    }

    /// Without a socket his datagrams are lost, as datagrams may be.
    fn begin(&mut self, who: Who, to: SocketAddr) {
        if self.0.len() >= MOST
            && let Some(oldest) = self.0.iter().min_by_key(|(_, exchange)| exchange.last).map(|(who, _)| *who)
        {
            self.0.remove(&oldest);
        }
        if let Ok(socket) = sockets::inet(Protocol::Udp, to.ip())
            && connect(&socket, &to).is_ok()
        {
            self.0.insert(who, Exchange { socket, last: Instant::now() });
        }
    }

    fn of_container(&mut self, who: Who, door: &Door, buffer: &mut [u8]) -> Option<()> {
        let exchange = self.0.get_mut(&who)?;
        match recv(&exchange.socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((_, length)) => {
                exchange.last = Instant::now();
                let _ = sendto(&door.socket, &buffer[..length], SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &who.1);
                Some(())
            }
            Err(Errno::AGAIN) => None,
            // Nobody listens in the container, or not yet.
            Err(_) => Some(()),
        }
    }
}
