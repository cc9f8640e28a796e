//! Datagrams between a guest's sockets and the world, each passed on by the monitor.
//!
//! A task never holds a socket of the host's for datagrams: such a descriptor sends wherever it is told, and no filter
//! of system calls sees where that is. Each of a guest's sockets is a pair of packet sockets between task and monitor;
//! the monitor judges every packet and loses what is not allowed, as a firewall does. From outside comes in what was
//! asked for: answers from where something was sent, whatever comes to a published port, and neighbours. Linux
//! containers are neighbours on the network's bridge, where each socket that they may look for has one of the kernel's.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, bind, recv, recvfrom,
    send, sendto, socketpair,
};

use super::gate::{Gate, Published};
use super::sockets;
use crate::engine::Engine;
use crate::network::packet::{self, HEADER, MOST};
use crate::network::recent::Recent;
use crate::network::r#virtual::{Route, covers, route};
use crate::network::{Fault, Protocol};

/// Each socket takes up to five descriptors of the monitor, which may have 1024.
const MOST_SOCKETS: usize = 150;
/// Packets passed on before others have their turn.
const AT_ONCE: usize = 64;

/// All sockets for datagrams of one guest, by the numbers of their addresses.
#[derive(Default)]
pub(super) struct Relays(BTreeMap<u64, Relay>);

/// What has something to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wake {
    number: u64,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Task,
    Inbox,
    Bridge,
    Published(usize),
    Outside(usize),
}

struct Relay {
    local: SocketAddr,
    /// Our end of the pair.
    task: OwnedFd,
    /// On the container's network: the socket, and its name.
    inbox: Option<(OwnedFd, String)>,
    /// On the network's bridge, once there are Linux containers to meet.
    bridge: Option<OwnedFd>,
    /// Which of the published ports are its own.
    published: Vec<usize>,
    /// On the host's networks, by family.
    outside: [Option<OwnedFd>; 2],
    /// The guest asked for the host's network: whatever comes is its own.
    open: bool,
    /// Who may answer.
    sent: Recent<()>,
    /// Who has written to a published port: by the address that the guest sees, which port, and the real address.
    heard: Recent<(usize, SocketAddr)>,
}

impl Relays {
    /// What to poll for reading.
    pub fn polls<'a>(&'a self, published: &'a [Published]) -> impl Iterator<Item = (Wake, BorrowedFd<'a>)> {
        self.0.iter().flat_map(move |(number, relay)| {
            let wake = move |end| Wake { number: *number, end };
            let task = std::iter::once((wake(End::Task), relay.task.as_fd()));
            let inbox = relay.inbox.iter().map(move |(fd, _)| (wake(End::Inbox), fd.as_fd()));
            let bridge = relay.bridge.iter().map(move |fd| (wake(End::Bridge), fd.as_fd()));
            let ports = relay
                .published
                .iter()
                .filter_map(move |index| Some((wake(End::Published(*index)), published.get(*index)?.socket.as_fd())));
            let outside = relay.outside.iter().enumerate();
            let outside = outside.filter_map(move |(n, fd)| Some((wake(End::Outside(n)), fd.as_ref()?.as_fd())));
            task.chain(inbox).chain(bridge).chain(ports).chain(outside)
        })
    }

    /// Makes the pair for a bound address; the task's end.
    pub fn open(
        &mut self,
        number: u64,
        local: SocketAddr,
        real: Option<OwnedFd>,
        published: Vec<usize>,
        gate: &mut Gate,
    ) -> Result<File, Fault> {
        if self.0.len() >= MOST_SOCKETS {
            return Err(Fault::NewSocketLimit);
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(sockets::fault)?;
        let inbox = match gate.on_network(local) {
            Some(at) if real.is_none() => {
                let file = gate.file_of(at, Protocol::Udp);
                // Of two families' sockets with one port the first has the network.
                if self.0.values().any(|other| other.inbox.as_ref().is_some_and(|(_, taken)| *taken == file)) {
                    None
                } else {
                    let socket = sockets::unix(SocketType::DGRAM).map_err(Fault::from)?;
                    let name = gate.at(&file).map_err(|_| Fault::Unknown)?;
                    gate.unlink(&file);
                    bind(&socket, &name).map_err(sockets::fault)?;
                    Some((socket, file))
                }
            }
            _ => None,
        };
        // What came before somebody was there is lost.
        for port in published.iter().filter_map(|index| gate.published.get(*index)) {
            while recv(&port.socket, &mut [0; 1], RecvFlags::DONTWAIT).is_ok() {}
        }
        let open = real.is_some();
        let mut outside = [None, None];
        outside[family(local)] = real;
        let (sent, heard) = (Recent::default(), Recent::default());
        self.0.insert(number, Relay { local, task: ours, inbox, bridge: None, published, outside, open, sent, heard });
        Ok(theirs.into())
    }

    /// The guest has closed it. Gives the name of its socket on the network, which is to be taken away.
    pub fn remove(&mut self, number: u64) -> Option<String> {
        let (_, file) = self.0.remove(&number)?.inbox?;
        Some(file)
    }

    /// Gives the socket with this number one on the network's bridge too.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn meet(&mut self, number: u64, make: impl FnOnce() -> Result<OwnedFd, Fault>) -> Result<(), Fault> {
        // Of two families' sockets with one port the first has the network.
        match self.0.get_mut(&number).filter(|relay| relay.bridge.is_none() && relay.inbox.is_some()) {
            Some(relay) => make().map(|socket| relay.bridge = Some(socket)),
            None => Ok(()),
        }
    }

    /// Passes on what has come.
    pub fn woken(&mut self, wake: Wake, gate: &mut Gate, engine: &Engine) {
        let mut buffer = vec![0; HEADER + MOST];
        for _ in 0..AT_ONCE {
            let more = match wake.end {
                End::Task => self.of_task(wake.number, &mut buffer, gate, engine),
                End::Inbox => self.of_inbox(wake.number, &mut buffer, gate),
                End::Bridge => self.of_bridge(wake.number, &mut buffer),
                End::Published(index) => self.of_published(wake.number, index, &mut buffer, gate),
                End::Outside(n) => self.of_outside(wake.number, n, &mut buffer, gate),
            };
            if more.is_none() {
                return;
            }
        }
    }

    fn of_task(&mut self, number: u64, buffer: &mut [u8], gate: &mut Gate, engine: &Engine) -> Option<()> {
        let relay = self.0.get_mut(&number)?;
        let length = match recv(&relay.task, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((_, length)) if length > 0 => length.min(buffer.len()),
            Err(Errno::AGAIN | Errno::INTR) => return None,
            // It has closed its end without a word.
            _ => {
                if let Some(file) = self.remove(number) {
                    gate.unlink(&file);
                }
                return None;
            }
        };
        let (to, data) = packet::decode(&buffer[..length])?;
        self.send(number, to, data, gate, engine);
        Some(())
    }

    fn send(&mut self, number: u64, to: SocketAddr, data: &[u8], gate: &mut Gate, engine: &Engine) {
        let Some(relay) = self.0.get_mut(&number) else { return };
        let endpoint = gate.endpoint.as_ref();
        let mode = gate.mode();
        if let Some((index, real)) = relay.heard.get(&to)
            && let Some(port) = gate.published.get(*index)
        {
            let _ = sendto(&port.socket, data, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, real);
            return;
        }
        match route(mode, endpoint, to) {
            Route::Own => {
                let own = endpoint.map(|e| IpAddr::V4(e.address)).filter(|_| !to.ip().is_loopback());
                let from = SocketAddr::new(own.unwrap_or(to.ip()), relay.local.port());
                let there = self.0.values().find(|other| covers(other.local, to));
                if let Some(there) = there {
                    there.deliver(from, data);
                }
            }
            Route::Neighbour(at) => {
                if let Err(denial) = gate.grants.check_neighbour(at.into()) {
                    gate.deny(&denial);
                    return;
                }
                let file = gate.file_of(at, Protocol::Udp);
                let (Some((inbox, _)), Ok(name)) = (&relay.inbox, gate.at(&file)) else { return };
                let sent = sendto(inbox, data, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &name);
                if let Err(Errno::NOENT | Errno::CONNREFUSED) = sent {
                    relay.cross(at, data, gate, engine);
                }
            }
            Route::Host(port) => match gate.grants.check_host(port) {
                Ok(()) => relay.send_outside(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port), data),
                Err(denial) => drop(gate.deny(&denial)),
            },
            Route::Outside => match gate.grants.check(to) {
                Ok(()) if relay.sent.get(&to).is_some() || gate.leads_out(engine, to.ip()) => {
                    relay.send_outside(to, data);
                }
                Ok(()) => {}
                Err(denial) => drop(gate.deny(&denial)),
            },
            Route::Nowhere => {}
        }
    }

    fn of_inbox(&mut self, number: u64, buffer: &mut [u8], gate: &Gate) -> Option<()> {
        let relay = self.0.get(&number)?;
        let (inbox, _) = relay.inbox.as_ref()?;
        let (_, length, from) = recvfrom(inbox, &mut *buffer, RecvFlags::DONTWAIT).ok()?;
        let name = SocketAddrUnix::try_from(from?).ok();
        let path = name.as_ref().and_then(|name| std::str::from_utf8(name.path_bytes()?).ok());
        let file = path.and_then(|path| path.rsplit('/').next());
        // Whoever has no name on our network is no neighbour.
        if let Some(from) = file.and_then(|file| gate.address_of(file, Protocol::Udp)) {
            relay.deliver(from.into(), &buffer[..length]);
        }
        Some(())
    }

    fn of_bridge(&mut self, number: u64, buffer: &mut [u8]) -> Option<()> {
        let relay = self.0.get(&number)?;
        let (length, from) = received(relay.bridge.as_ref()?, buffer)?;
        relay.deliver(from, &buffer[..length]);
        Some(())
    }

    fn of_published(&mut self, number: u64, index: usize, buffer: &mut [u8], gate: &Gate) -> Option<()> {
        let relay = self.0.get_mut(&number)?;
        let socket = &gate.published.get(index)?.socket;
        let (length, real) = received(socket, buffer)?;
        // The host's loopback is not the guest's, and an IPv4 socket knows no IPv6: both are the host, as in docker.
        let host = gate.endpoint.as_ref().map(|e| IpAddr::V4(e.gateway));
        let shown = match host {
            Some(host) if real.ip().is_loopback() || real.is_ipv6() && relay.local.is_ipv4() => {
                SocketAddr::new(host, real.port())
            }
            _ => real,
        };
        relay.heard.insert(shown, (index, real));
        relay.deliver(shown, &buffer[..length]);
        Some(())
    }

    fn of_outside(&mut self, number: u64, n: usize, buffer: &mut [u8], gate: &Gate) -> Option<()> {
        let relay = self.0.get(&number)?;
        let (length, real) = received(relay.outside.get(n)?.as_ref()?, buffer)?;
        if relay.open {
            relay.deliver(real, &buffer[..length]);
        } else if relay.sent.get(&real).is_some() {
            let host = gate.endpoint.as_ref().filter(|_| real.ip().is_loopback());
            let shown = host.map_or(real.ip(), |e| e.gateway.into());
            relay.deliver(SocketAddr::new(shown, real.port()), &buffer[..length]);
        }
        Some(())
    }
}

impl Relay {
    /// To the guest; lost when it does not read.
    fn deliver(&self, from: SocketAddr, data: &[u8]) {
        let _ = send(&self.task, &packet::encode(from, data), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }

    /// To a Linux container; lost if none has the address.
    fn cross(&mut self, to: SocketAddrV4, data: &[u8], gate: &mut Gate, engine: &Engine) {
        if self.bridge.is_none() {
            self.bridge = gate.cross_datagrams(engine, self.local, to);
        }
        if let Some(socket) = &self.bridge {
            let _ = sendto(socket, data, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &SocketAddr::from(to));
        }
    }

    fn send_outside(&mut self, to: SocketAddr, data: &[u8]) {
        let slot = &mut self.outside[family(to)];
        if slot.is_none() {
            *slot = sockets::inet(Protocol::Udp, to.ip()).ok();
        }
        if let Some(socket) = slot {
            self.sent.insert(to, ());
            let _ = sendto(socket, data, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &to);
        }
    }
}

/// Where sockets of this address's family are kept.
fn family(address: SocketAddr) -> usize {
    usize::from(address.is_ipv6())
}

/// A datagram of the host's and its sender. An error about an earlier one is no datagram, and there may be more.
fn received(socket: impl AsFd, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
    loop {
        match recvfrom(&socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((_, length, from)) => {
                return Some((length, from.and_then(|any: SocketAddrAny| SocketAddr::try_from(any).ok())?));
            }
            Err(Errno::CONNREFUSED | Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}
