//! Datagrams between a guest's sockets and the world, each passed on by the monitor.
//!
//! A task never holds a socket of the host's for datagrams: such a descriptor sends wherever it is told, and no filter
//! of system calls sees where that is. Each of a guest's sockets is a pair of packet sockets between task and monitor;
//! the monitor judges every packet and loses what is not allowed, as a firewall does. From outside comes in what was
//! asked for: answers from where something was sent, whatever comes to a published port, and neighbours. Linux
//! containers are neighbours on the network's bridge, where each socket that they may look for has one of the kernel's.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
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
use crate::network::r#virtual::{Route, covers, host, loopback_like, on, route, source};
use crate::network::{Endpoint, Fault, Protocol};

/// On one network each socket takes up to six descriptors of the monitor, which may have 1024.
const MOST_SOCKETS: usize = 150;
/// Packets passed on before others have their turn.
const AT_ONCE: usize = 64;
/// More packets than the kernel keeps for one socket.
const MOST_WAITING: usize = 1024;

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
    /// At this address of the container.
    Inbox(IpAddr),
    Bridge(IpAddr),
    Published(usize),
    Outside(usize),
}

struct Relay {
    local: SocketAddr,
    /// Our end of the pair.
    task: OwnedFd,
    /// On the container's networks, by its addresses there: the socket, and its name.
    inboxes: BTreeMap<IpAddr, (OwnedFd, String)>,
    /// On the networks' bridges, once there are Linux containers to meet.
    bridges: BTreeMap<IpAddr, OwnedFd>,
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
            let inboxes = relay.inboxes.iter().map(move |(own, (fd, _))| (wake(End::Inbox(*own)), fd.as_fd()));
            let bridges = relay.bridges.iter().map(move |(own, fd)| (wake(End::Bridge(*own)), fd.as_fd()));
            let ports = relay
                .published
                .iter()
                .filter_map(move |index| Some((wake(End::Published(*index)), published.get(*index)?.socket.as_fd())));
            let outside = relay.outside.iter().enumerate();
            let outside = outside.filter_map(move |(n, fd)| Some((wake(End::Outside(n)), fd.as_ref()?.as_fd())));
            task.chain(inboxes).chain(bridges).chain(ports).chain(outside)
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
        let mut inboxes = BTreeMap::new();
        if real.is_none() {
            for (_, at) in gate.on_networks(local) {
                if let Some(inbox) = self.inbox(at, gate)? {
                    inboxes.insert(at.ip(), inbox);
                }
            }
        }
        // What came before somebody was there is lost.
        for port in published.iter().filter_map(|index| gate.published.get(*index)) {
            while recv(&port.socket, &mut [0; 1], RecvFlags::DONTWAIT).is_ok() {}
        }
        let open = real.is_some();
        let mut outside = [None, None];
        outside[family(local)] = real;
        let (sent, heard, bridges) = (Recent::default(), Recent::default(), BTreeMap::new());
        self.0.insert(number, Relay { local, task: ours, inboxes, bridges, published, outside, open, sent, heard });
        Ok(theirs.into())
    }

    /// A socket for this address of a network, and its name. Of two families' sockets with one port the first has it.
    fn inbox(&self, at: SocketAddr, gate: &mut Gate) -> Result<Option<(OwnedFd, String)>, Fault> {
        let file = gate.file_of(at, Protocol::Udp);
        if self.0.values().flat_map(|other| other.inboxes.values()).any(|(_, taken)| *taken == file) {
            return Ok(None);
        }
        let socket = sockets::unix(SocketType::DGRAM).map_err(Fault::from)?;
        let name = gate.at(&file).map_err(|_| Fault::Unknown)?;
        gate.unlink(&file);
        bind(&socket, &name).map_err(sockets::fault)?;
        Ok(Some((socket, file)))
    }

    /// The container has come to this network.
    pub fn appear(&mut self, network: i64, gate: &mut Gate) {
        let all: Vec<_> = self.0.iter().filter(|(_, relay)| !relay.open).map(|(n, relay)| (*n, relay.local)).collect();
        for (number, local) in all {
            for (_, at) in gate.on_networks(local).into_iter().filter(|(reached, _)| *reached == network) {
                // Without one its datagrams there are lost, as datagrams may be.
                if let Ok(Some(inbox)) = self.inbox(at, gate)
                    && let Some(relay) = self.0.get_mut(&number)
                {
                    relay.inboxes.insert(at.ip(), inbox);
                }
            }
        }
    }

    /// The container has left this network. Gives the names of its sockets there, which are to be taken away.
    pub fn vanish(&mut self, place: &Endpoint) -> Vec<String> {
        let mut gone = Vec::new();
        for relay in self.0.values_mut() {
            for (own, _) in place.addresses() {
                relay.bridges.remove(&own);
                gone.extend(relay.inboxes.remove(&own).map(|(_, file)| file));
            }
        }
        gone
    }

    /// A published port leads to the socket with this number.
    pub fn publish(&mut self, number: u64, index: usize) {
        if let Some(relay) = self.0.get_mut(&number) {
            relay.published.push(index);
        }
    }

    /// A published port leads nowhere any more.
    pub fn withdraw(&mut self, index: usize) {
        for relay in self.0.values_mut().filter(|relay| relay.published.contains(&index)) {
            relay.published.retain(|own| *own != index);
            relay.heard = Recent::default();
        }
    }

    /// The guest has closed it. Gives the names of its sockets on networks, which are to be taken away.
    pub fn remove(&mut self, number: u64) -> Vec<String> {
        let inboxes = self.0.remove(&number).map(|relay| relay.inboxes).unwrap_or_default();
        inboxes.into_values().map(|(_, file)| file).collect()
    }

    /// Gives the socket with this number one at this address on a bridge too. False when there is no such socket yet.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn meet(
        &mut self,
        number: u64,
        own: IpAddr,
        make: impl FnOnce() -> Result<OwnedFd, Fault>,
    ) -> Result<bool, Fault> {
        let Some(relay) = self.0.get_mut(&number) else { return Ok(false) };
        // Of two families' sockets with one port the first has the network.
        if relay.inboxes.contains_key(&own) && !relay.bridges.contains_key(&own) {
            relay.bridges.insert(own, make()?);
        }
        Ok(true)
    }

    /// Passes on what the guest has sent on a socket that it sends nothing more on.
    pub fn finish(&mut self, number: u64, gate: &mut Gate, engine: &Engine) {
        let mut buffer = vec![0; HEADER + MOST];
        for _ in 0..MOST_WAITING {
            if self.of_task(number, &mut buffer, gate, engine).is_none() {
                return;
            }
        }
    }

    /// Passes on what has come.
    pub fn woken(&mut self, wake: Wake, gate: &mut Gate, engine: &Engine) {
        let mut buffer = vec![0; HEADER + MOST];
        for _ in 0..AT_ONCE {
            let more = match wake.end {
                End::Task => self.of_task(wake.number, &mut buffer, gate, engine),
                End::Inbox(own) => self.of_inbox(wake.number, own, &mut buffer, gate),
                End::Bridge(own) => self.of_bridge(wake.number, own, &mut buffer),
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
                self.remove(number).iter().for_each(|file| gate.unlink(file));
                return None;
            }
        };
        let (to, data) = packet::decode(&buffer[..length])?;
        self.send(number, to, data, gate, engine);
        Some(())
    }

    fn send(&mut self, number: u64, to: SocketAddr, data: &[u8], gate: &mut Gate, engine: &Engine) {
        let Some(relay) = self.0.get_mut(&number) else { return };
        if let Some((index, real)) = relay.heard.get(&to)
            && let Some(port) = gate.published.get(*index)
        {
            let _ = sendto(&port.socket, data, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, real);
            return;
        }
        match route(gate.mode(), &gate.places, to) {
            Route::Own => {
                let from = source(&gate.places, to.ip(), relay.local.port());
                let there = self.0.values().find(|other| covers(other.local, to));
                if let Some(there) = there {
                    there.deliver(from, data);
                }
            }
            Route::Neighbour(at) => {
                if let Err(denial) = gate.grants.check_neighbour(at) {
                    gate.deny(&denial);
                    return;
                }
                let file = gate.file_of(at, Protocol::Udp);
                let own = on(&gate.places, at.ip()).and_then(|own| own.like(at.ip()));
                let inbox = own.and_then(|own| relay.inboxes.get(&own));
                let (Some(own), Some((inbox, _)), Ok(name)) = (own, inbox, gate.at(&file)) else { return };
                let sent = sendto(inbox, data, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &name);
                if let Err(Errno::NOENT | Errno::CONNREFUSED) = sent {
                    relay.cross(own, at, data, gate, engine);
                }
            }
            Route::Host(port) => match gate.grants.check_host(port) {
                Ok(()) => relay.send_outside(SocketAddr::new(loopback_like(to), port), data),
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

    fn of_inbox(&mut self, number: u64, own: IpAddr, buffer: &mut [u8], gate: &Gate) -> Option<()> {
        let relay = self.0.get(&number)?;
        let (inbox, _) = relay.inboxes.get(&own)?;
        let network = on(&gate.places, own)?.network_id;
        let (_, length, from) = recvfrom(inbox, &mut *buffer, RecvFlags::DONTWAIT).ok()?;
        let name = SocketAddrUnix::try_from(from?).ok();
        let path = name.as_ref().and_then(|name| std::str::from_utf8(name.path_bytes()?).ok());
        let file = path.and_then(|path| path.rsplit('/').next());
        // Whoever has no name on our network is no neighbour.
        if let Some(from) = file.and_then(|file| address_of(file, network)) {
            relay.deliver(from, &buffer[..length]);
        }
        Some(())
    }

    fn of_bridge(&mut self, number: u64, own: IpAddr, buffer: &mut [u8]) -> Option<()> {
        let relay = self.0.get(&number)?;
        let (length, from) = received(relay.bridges.get(&own)?, buffer)?;
        relay.deliver(from, &buffer[..length]);
        Some(())
    }

    fn of_published(&mut self, number: u64, index: usize, buffer: &mut [u8], gate: &Gate) -> Option<()> {
        let relay = self.0.get_mut(&number)?;
        let socket = &gate.published.get(index)?.socket;
        let (length, real) = received(socket, buffer)?;
        // The host's loopback is not the guest's, and an IPv4 socket knows no IPv6: both are the host, as in docker.
        let shown = match host(&gate.places, relay.local.is_ipv6()) {
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
            let host = host(&gate.places, real.is_ipv6()).filter(|_| real.ip().is_loopback());
            relay.deliver(SocketAddr::new(host.unwrap_or(real.ip()), real.port()), &buffer[..length]);
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
    fn cross(&mut self, own: IpAddr, to: SocketAddr, data: &[u8], gate: &mut Gate, engine: &Engine) {
        if !self.bridges.contains_key(&own) {
            let socket = gate.cross_datagrams(engine, self.local, to);
            self.bridges.extend(socket.map(|socket| (own, socket)));
        }
        if let Some(socket) = self.bridges.get(&own) {
            let _ = sendto(socket, data, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &to);
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

/// The address of this network that a socket of this name stands for.
fn address_of(file: &str, network: i64) -> Option<SocketAddr> {
    let rest = file.strip_suffix(Protocol::Udp.name())?.strip_suffix('.')?;
    let mut parts = rest.split('-');
    if parts.next()?.parse() != Ok(network) {
        return None;
    }
    Some(SocketAddr::new(parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
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
