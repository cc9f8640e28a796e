//! Datagrams of a guest. Each of its sockets has an inbox, for what comes from the container itself; a port of the
//! loopback, for its neighbours, who say its secret with every packet; the host's sockets that are published for it; and
//! one of the host's for each family, which is made when something is first sent outside.
//!
//! What may not be sent is lost, as behind a firewall. From outside comes in what was asked for: answers from where
//! something was sent, whatever comes to a published port, and neighbours.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use socket2::Socket;
use tokio::net::UdpSocket;

use super::{Shared, hold, unspecified};
use crate::linux::link::{self, SECRET};
use crate::names;
use crate::network::packet::{self, HEADER, MOST};
use crate::network::recent::Recent;
use crate::network::r#virtual::{Route, covers, loopback_like, route, source};
use crate::network::{Bound, Datagrams, Fault, Protocol, WasmMode};

/// Packets that wait in an inbox.
const MOST_WAITING: usize = 256;

/// What comes from the container itself.
#[derive(Default)]
pub(super) struct Inbox(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    packets: VecDeque<(Vec<u8>, SocketAddr)>,
    reader: Option<Waker>,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lost when nobody reads.
    fn put(&self, data: &[u8], from: SocketAddr) {
        let mut waiting = self.lock();
        if waiting.packets.len() < MOST_WAITING {
            waiting.packets.push_back((data.to_vec(), from));
        }
        if let Some(reader) = waiting.reader.take() {
            reader.wake();
        }
    }
}

/// One socket of the guest.
pub(super) struct Packets {
    shared: Arc<Shared>,
    local: SocketAddr,
    inbox: Arc<Inbox>,
    /// The loopback's port for neighbours, and its secret.
    door: Option<(UdpSocket, String)>,
    /// With the numbers of what they publish.
    published: Vec<(usize, UdpSocket)>,
    /// On the host's networks, by family.
    outside: [OnceLock<UdpSocket>; 2],
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Who may answer.
    sent: Recent<()>,
    /// Who has written to a published port: by the address that the guest sees, which port, and the real address.
    heard: Recent<(usize, SocketAddr)>,
}

fn family(address: SocketAddr) -> usize {
    usize::from(address.is_ipv6())
}

fn watched(socket: Socket) -> Result<UdpSocket, Fault> {
    socket.set_nonblocking(true).map_err(Fault::from)?;
    UdpSocket::from_std(socket.into()).map_err(Fault::from)
}

fn would_block<T>() -> io::Result<T> {
    Err(io::ErrorKind::WouldBlock.into())
}

impl Packets {
    /// The socket of an address that is bound.
    pub fn open(shared: &Arc<Shared>, bound: &Bound) -> Result<Self, Fault> {
        let mut state = shared.state();
        let mut local = match state.bound.remove(&bound.id) {
            Some(local) if local.protocol == Protocol::Udp && local.inbox.is_none() => local,
            Some(other) => {
                state.bound.insert(bound.id, other);
                return Err(Fault::InvalidState);
            }
            None => return Err(Fault::InvalidState),
        };
        let inbox = Arc::clone(local.inbox.insert(Arc::default()));
        let outside = [OnceLock::new(), OnceLock::new()];
        let opened = match local.real.take() {
            Some(real) => watched(real).map(|real| {
                outside[family(bound.address)].get_or_init(|| real);
                None
            }),
            None => open_door().and_then(|(socket, word, secret)| {
                local.word = Some(word);
                shared.register(&state, &mut local).map_err(Fault::from)?;
                Ok((!local.address.ip().is_loopback()).then_some((socket, secret)))
            }),
        };
        state.bound.insert(bound.id, local);
        let door = opened?;
        let mut published = Vec::new();
        for (number, socket) in shared.take_published(&mut state, bound.address, Protocol::Udp) {
            let socket = watched(socket)?;
            // What came before somebody was there is lost.
            while socket.try_recv(&mut [0; 1]).is_ok() {}
            published.push((number, socket));
        }
        drop(state);
        let (shared, known) = (Arc::clone(shared), Mutex::default());
        Ok(Packets { shared, local: bound.address, inbox, door, published, outside, known })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send_outside(&self, data: &[u8], to: SocketAddr) {
        let slot = &self.outside[family(to)];
        if slot.get().is_none()
            && let Ok(socket) = hold(Protocol::Udp, unspecified(to)).map_err(Fault::from).and_then(watched)
        {
            slot.get_or_init(|| socket);
        }
        if let Some(socket) = slot.get() {
            self.known().sent.insert(to, ());
            now(socket, data, to);
        }
    }

    /// What neighbours have sent.
    fn of_door(&self, buffer: &mut [u8]) -> Option<(Vec<u8>, SocketAddr)> {
        let (socket, secret) = self.door.as_ref()?;
        loop {
            let (length, _) = received(socket, buffer)?;
            if let Some((said, packet)) = buffer[..length].split_at_checked(SECRET)
                && link::is_secret(said, secret)
                && let Some((from, data)) = packet::decode(packet)
            {
                return Some((data.to_vec(), from));
            }
        }
    }

    fn of_published(&self, buffer: &mut [u8]) -> Option<(Vec<u8>, SocketAddr)> {
        for (number, socket) in &self.published {
            if let Some((length, real)) = received(socket, buffer)
                && !self.shared.is_internal()
            {
                // The host's loopback is not the guest's, and an IPv4 socket knows no IPv6: both are the host.
                let hidden = real.ip().is_loopback() || real.is_ipv6() && self.local.is_ipv4();
                let shown =
                    if hidden { SocketAddr::new(self.shared.gateway(self.local.is_ipv6()), real.port()) } else { real };
                self.known().heard.insert(shown, (*number, real));
                return Some((buffer[..length].to_vec(), shown));
            }
        }
        None
    }

    fn of_outside(&self, buffer: &mut [u8]) -> Option<(Vec<u8>, SocketAddr)> {
        for socket in self.outside.iter().filter_map(OnceLock::get) {
            while let Some((length, real)) = received(socket, buffer) {
                if self.shared.network.mode == WasmMode::Host {
                    return Some((buffer[..length].to_vec(), real));
                }
                if self.known().sent.get(&real).is_some() {
                    let host = || self.shared.gateway(real.is_ipv6());
                    let ip = if real.ip().is_loopback() { host() } else { real.ip() };
                    return Some((buffer[..length].to_vec(), SocketAddr::new(ip, real.port())));
                }
            }
        }
        None
    }
}

/// A port of the loopback, with its word and its secret.
fn open_door() -> Result<(UdpSocket, String, String), Fault> {
    let socket = hold(Protocol::Udp, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)).map_err(Fault::from)?;
    let socket = watched(socket)?;
    let secret = names::new_id().map_err(|_| Fault::Unknown)?;
    let port = socket.local_addr().map_err(Fault::from)?.port();
    Ok((socket, format!("{port} {secret}"), secret))
}

/// Sends now or never: there is always room, but for a moment.
fn now(socket: &UdpSocket, data: &[u8], to: SocketAddr) {
    // Not `try_send_to`, which would first wait for the event loop to say that a new socket can be written to.
    let _ = socket2::SockRef::from(socket).send_to(data, &to.into());
}

/// A datagram and its sender. An error about an earlier one is no datagram, and there may be more.
fn received(socket: &UdpSocket, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
    loop {
        match socket.try_recv_from(buffer) {
            Ok(received) => return Some(received),
            Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused) => {}
            Err(_) => return None,
        }
    }
}

impl Datagrams for Packets {
    fn try_send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        let heard = self.known().heard.get(&to).copied();
        if let Some((number, real)) = heard
            && let Some((_, socket)) = self.published.iter().find(|(n, _)| *n == number)
        {
            now(socket, bytes, real);
            return Ok(());
        }
        let mut state = self.shared.state();
        match route(&self.shared.network.mode, &self.shared.places(), to) {
            Route::Own => {
                let from = source(&self.shared.places(), to.ip(), self.local.port());
                let there = state.bound.values().find(|l| l.inbox.is_some() && covers(l.address, to));
                if let Some(inbox) = there.and_then(|local| local.inbox.as_ref()) {
                    inbox.put(bytes, from);
                }
            }
            Route::Neighbour(at) => {
                if let Err(denial) = state.grants.check_neighbour(at) {
                    state.deny(&denial);
                    return Ok(());
                }
                let word = std::fs::read_to_string(self.shared.file(at, Protocol::Udp)).ok();
                let there = word.as_deref().and_then(link::parse);
                let own = self.shared.seen_by(at, self.local);
                if let (Some((socket, _)), Some((port, secret)), Some(from)) = (&self.door, there, own) {
                    let mut packet = secret.as_bytes().to_vec();
                    packet.extend(packet::encode(from, bytes));
                    now(socket, &packet, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
                }
            }
            Route::Host(port) => match state.grants.check_host(port) {
                Ok(()) => self.send_outside(bytes, SocketAddr::new(loopback_like(to), port)),
                Err(denial) => drop(state.deny(&denial)),
            },
            Route::Outside => match state.grants.check(to) {
                Ok(()) if self.shared.is_internal() => {}
                Ok(()) => self.send_outside(bytes, to),
                Err(denial) => drop(state.deny(&denial)),
            },
            Route::Nowhere => {}
        }
        Ok(())
    }

    fn try_receive(&self) -> io::Result<(Vec<u8>, SocketAddr)> {
        if let Some(packet) = self.inbox.lock().packets.pop_front() {
            return Ok(packet);
        }
        let mut buffer = vec![0; SECRET + HEADER + MOST];
        let found = self.of_door(&mut buffer).or_else(|| self.of_published(&mut buffer));
        found.or_else(|| self.of_outside(&mut buffer)).map_or_else(would_block, Ok)
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        {
            let mut waiting = self.inbox.lock();
            if !waiting.packets.is_empty() {
                return Poll::Ready(());
            }
            waiting.reader = Some(cx.waker().clone());
        }
        let door = self.door.iter().map(|(socket, _)| socket);
        let published = self.published.iter().map(|(_, socket)| socket);
        let outside = self.outside.iter().filter_map(OnceLock::get);
        // All are asked, so that each of them wakes.
        let ready = door.chain(published).chain(outside).filter(|socket| socket.poll_recv_ready(cx).is_ready()).count();
        if ready > 0 { Poll::Ready(()) } else { Poll::Pending }
    }

    fn poll_writable(&self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

impl Drop for Packets {
    fn drop(&mut self) {
        let numbers: Vec<usize> = self.published.drain(..).map(|(number, _)| number).collect();
        self.shared.hold_again(&numbers);
    }
}
