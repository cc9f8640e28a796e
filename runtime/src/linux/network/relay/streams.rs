//! Connections to published ports, each relayed by one of the monitor's to the container.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::sockopt::{
    set_socket_keepalive, set_socket_linger, set_tcp_keepidle, set_tcp_keepintvl, set_tcp_nodelay, socket_error,
};
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketFlags, acceptfrom_with, recv, send, shutdown};

use super::Door;
use crate::linux::sockets;
use crate::network::Protocol;

/// Connections at one time: each has two descriptors, of which a monitor may have 1024. More wait with the kernel.
const MOST: usize = 400;
/// What is read at once, and so the most that is kept for one who is slow.
const PIECE: usize = 64 * 1024;
/// Pieces passed on before others have their turn.
const AT_ONCE: usize = 8;
/// Whoever says nothing for so long is asked whether he is still there: docker's proxy asks as often.
const SILENCE: Duration = Duration::from_secs(15);
/// How long nobody is let in when no connection could be taken.
const REST: Duration = Duration::from_millis(100);

/// Those of one container.
#[derive(Debug, Default)]
pub struct Streams {
    pairs: BTreeMap<u64, Pair>,
    next: u64,
    /// The kernel has no more descriptors for us: nobody is let in until then.
    rest: Option<Instant>,
    /// While there are connections.
    buffer: Vec<u8>,
}

/// What has become possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// Somebody comes to this door.
    Door(usize),
    /// One end of a connection can be read or written.
    End(u64, usize),
}

/// A connection with the outside, and the one with the container that belongs to it.
#[derive(Debug)]
struct Pair {
    door: usize,
    ends: [OwnedFd; 2],
    connected: bool,
    /// What goes from the end of the same number to the other one.
    ways: [Way; 2],
}

#[derive(Debug, Default)]
struct Way {
    /// What the other end did not take yet.
    kept: Vec<u8>,
    /// No more comes.
    ended: bool,
}

const OUTSIDE: usize = 0;
const CONTAINER: usize = 1;

impl Streams {
    /// What to poll, and for what.
    pub fn polls<'a>(
        &'a self,
        doors: impl Iterator<Item = (usize, &'a Door)>,
    ) -> impl Iterator<Item = (Wake, BorrowedFd<'a>, PollFlags)> {
        let open = self.pairs.len() < MOST && self.rest.is_none();
        let doors = doors.filter(move |_| open).map(|(at, door)| (Wake::Door(at), door.socket.as_fd(), PollFlags::IN));
        let ends = self.pairs.iter().flat_map(|(number, pair)| {
            let ends = pair.ends.iter().enumerate();
            ends.map(move |(end, fd)| (Wake::End(*number, end), fd.as_fd(), pair.flags(end)))
        });
        // One of which nothing is wanted would go on telling that it has been hung up.
        doors.chain(ends.filter(|(_, _, flags)| !flags.is_empty()))
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.rest
    }

    pub fn on_time(&mut self, now: Instant) {
        self.rest = self.rest.filter(|until| *until > now);
    }

    /// Cuts off whoever came by this door.
    pub fn cut(&mut self, door: usize) {
        for (_, pair) in self.pairs.extract_if(.., |_, pair| pair.door == door) {
            pair.reset();
        }
    }

    pub fn woken(&mut self, wake: Wake, doors: &[Door], may: &dyn Fn(SocketAddr) -> bool) {
        match wake {
            Wake::Door(at) => self.come(at, &doors[at], may),
            Wake::End(number, end) => self.pass_on(number, end),
        }
    }

    fn come(&mut self, at: usize, door: &Door, may: &dyn Fn(SocketAddr) -> bool) {
        while self.pairs.len() < MOST {
            let (outside, from) = match acceptfrom_with(&door.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok((outside, from)) => (outside, from.and_then(|from| SocketAddr::try_from(from).ok())),
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.rest = Some(Instant::now() + REST);
                    return;
                }
            };
            let to = door.to.filter(|_| from.is_some_and(may));
            let begun = to.and_then(|to| {
                let container = sockets::inet(Protocol::Tcp, to.ip()).ok()?;
                sockets::begin_connect(&container, to).ok()?;
                Some(container)
            });
            let Some(container) = begun else {
                reset(&outside);
                continue;
            };
            // Neither is a failure one that would change anything.
            let _ = set_tcp_nodelay(&outside, true);
            for end in [&outside, &container] {
                let _ = set_socket_keepalive(end, true);
                let _ = set_tcp_keepidle(end, SILENCE).and_then(|()| set_tcp_keepintvl(end, SILENCE));
            }
            let pair = Pair { door: at, ends: [outside, container], connected: false, ways: Default::default() };
            self.pairs.insert(self.next, pair);
            self.next += 1;
        }
    }

    fn pass_on(&mut self, number: u64, end: usize) {
        let Some(pair) = self.pairs.get_mut(&number) else { return };
        self.buffer.resize(PIECE, 0);
        let over = match pair.pass_on(end, &mut self.buffer) {
            Ok(()) => pair.ways.iter().all(|way| way.ended && way.kept.is_empty()),
            Err(_) => {
                pair.reset();
                true
            }
        };
        if over {
            self.pairs.remove(&number);
        }
        if self.pairs.is_empty() {
            self.buffer = Vec::new();
        }
    }
}

impl Pair {
    fn flags(&self, end: usize) -> PollFlags {
        let mut flags = PollFlags::empty();
        if self.connected {
            flags.set(PollFlags::IN, !self.ways[end].ended && self.ways[end].kept.is_empty());
            flags.set(PollFlags::OUT, !self.ways[1 - end].kept.is_empty());
        } else {
            flags.set(PollFlags::OUT, end == CONTAINER);
        }
        flags
    }

    /// Something can be read from this end, or written to it.
    fn pass_on(&mut self, end: usize, buffer: &mut [u8]) -> Result<(), Errno> {
        if !self.connected {
            socket_error(&self.ends[CONTAINER])??;
            self.connected = true;
            return self.forward(OUTSIDE, buffer);
        }
        self.forward(1 - end, buffer)?;
        self.forward(end, buffer)
    }

    /// From this end to the other one.
    fn forward(&mut self, from: usize, buffer: &mut [u8]) -> Result<(), Errno> {
        let (way, to) = (&mut self.ways[from], &self.ends[1 - from]);
        for _ in 0..AT_ONCE {
            if !way.kept.is_empty() {
                let taken = put(to, &way.kept)?;
                way.kept.drain(..taken);
                if !way.kept.is_empty() {
                    return Ok(());
                }
                way.kept = Vec::new();
                if way.ended {
                    return end(to);
                }
            }
            if way.ended {
                return Ok(());
            }
            match recv(&self.ends[from], &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => {
                    way.ended = true;
                    return end(to);
                }
                Ok((_, length)) => {
                    let taken = put(to, &buffer[..length])?;
                    way.kept.extend_from_slice(&buffer[taken..length]);
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Whoever is at either end hears that it was cut off.
    fn reset(&self) {
        self.ends.iter().for_each(reset);
    }
}

/// As much of it as is taken now.
fn put(to: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
    match send(to, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        sent => sent,
    }
}

/// No more comes.
fn end(to: &OwnedFd) -> Result<(), Errno> {
    match shutdown(to, Shutdown::Write) {
        // It has been reset, and reading it tells so.
        Err(Errno::NOTCONN) => Ok(()),
        ended => ended,
    }
}

/// Closed with zero lingering time: the other side hears of a reset (tcp(7)).
fn reset(socket: &OwnedFd) {
    let _ = set_socket_linger(socket, Some(Duration::ZERO));
}
