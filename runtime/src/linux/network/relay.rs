//! Published ports whose packets the packet filter does not turn: whoever comes to their sockets is relayed by the monitor,
//! as by docker's `docker-proxy`.
//!
//! The kernel lets nothing of `::1` out, whatever it is turned into, and nothing turns IPv6 into IPv4; so what comes to
//! `::1`, and to any IPv6 address where the container has none, gets to the socket that holds the port. All other packets
//! go to the container before a socket is looked for. The container sees the address of its network's gateway.
//!
//! It runs in the monitor's poll loop and waits for nobody. Bytes are kept only for who is slow to take them, and then
//! nothing more is read for him.

mod datagrams;
mod streams;

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use rustix::event::PollFlags;

use self::datagrams::Datagrams;
use self::streams::Streams;
use crate::network::{PortBinding, Protocol};

/// A published port.
#[derive(Debug)]
struct Door {
    binding: PortBinding,
    /// Held so that nobody else takes the port, too, and reports of who tries are docker's.
    socket: File,
    /// Where it leads; while it leads nowhere, who comes is turned away.
    to: Option<SocketAddr>,
}

/// The published ports of a container.
#[derive(Debug, Default)]
pub struct Relay {
    doors: Vec<Door>,
    streams: Streams,
    datagrams: Datagrams,
}

/// Why the relay is to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    Streams(streams::Wake),
    Datagrams(datagrams::Wake),
}

impl Relay {
    /// Holds these ports, which lead nowhere yet.
    pub fn new(sockets: Vec<(PortBinding, File)>) -> Self {
        let doors = sockets.into_iter().map(|(binding, socket)| Door { binding, socket, to: None }).collect();
        Relay { doors, ..Relay::default() }
    }

    /// Lets every port lead to where this says. Who was led elsewhere is cut off.
    pub fn lead(&mut self, to: impl Fn(&PortBinding) -> Option<SocketAddr>) {
        for (at, door) in self.doors.iter_mut().enumerate() {
            let to = to(&door.binding);
            if door.to != to {
                door.to = to;
                self.streams.cut(at);
                self.datagrams.cut(at);
            }
        }
    }

    /// What to poll, and for what.
    pub fn polls(&self) -> impl Iterator<Item = (Wake, BorrowedFd<'_>, PollFlags)> {
        let streams = self.streams.polls(of(&self.doors, Protocol::Tcp));
        let datagrams = self.datagrams.polls(of(&self.doors, Protocol::Udp));
        let streams = streams.map(|(wake, fd, flags)| (Wake::Streams(wake), fd, flags));
        streams.chain(datagrams.map(|(wake, fd)| (Wake::Datagrams(wake), fd, PollFlags::IN)))
    }

    /// When to call [`Relay::on_time`].
    pub fn deadline(&self) -> Option<Instant> {
        self.streams.deadline().into_iter().chain(self.datagrams.deadline()).min()
    }

    /// Forgets who has long been silent.
    pub fn on_time(&mut self, now: Instant) {
        self.streams.on_time(now);
        self.datagrams.on_time(now);
    }

    /// Does what has become possible. `may` says who may come.
    pub fn woken(&mut self, wake: Wake, may: &dyn Fn(SocketAddr) -> bool) {
        match wake {
            Wake::Streams(wake) => self.streams.woken(wake, &self.doors, may),
            Wake::Datagrams(wake) => self.datagrams.woken(wake, &self.doors, may),
        }
    }
}

/// The doors of this protocol, with their places among all.
fn of(doors: &[Door], protocol: Protocol) -> impl Iterator<Item = (usize, &Door)> {
    doors.iter().enumerate().filter(move |(_, door)| door.binding.protocol == protocol)
}
