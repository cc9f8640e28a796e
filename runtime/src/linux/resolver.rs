//! Names that are not containers': looked up outside of the jail, in the monitor's own loop.
//!
//! The C library's `getaddrinfo` blocks, may start threads, and in a static program reads plugins; a child for each
//! lookup would be a process for two packets. So the monitor asks by itself: `/etc/hosts`, then the servers of
//! `/etc/resolv.conf` (or `--dns`) over UDP from a socket in its poll loop (RFC 1035; hosts(5), resolv.conf(5)). An answer
//! counts if it comes from the server asked, with our random number and our question; the kernel picks the port (RFC
//! 5452). Not done: search domains, and asking again over TCP for an answer too long for a datagram (what fits is used).

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags, connect, recv, send};
use rustix::pipe::{PipeFlags, pipe_with};

use super::sockets;
use crate::network::grants::canonical_name;
use crate::network::{Fault, Protocol};

/// How long a server may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often each server is asked.
const ATTEMPTS: usize = 2;
/// More addresses than these of one name are left out.
const MOST: usize = 64;
const DNS_PORT: u16 = 53;
const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The addresses that `/etc/hosts` gives the name.
pub(super) fn hosts(name: &str) -> Vec<IpAddr> {
    fs::read_to_string(HOSTS).map(|text| in_hosts(&text, name)).unwrap_or_default()
}

fn in_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let named = |line: &&str| {
        let mut names = line.split('#').next().unwrap_or_default().split_whitespace().skip(1);
        names.any(|n| n.eq_ignore_ascii_case(name))
    };
    let address = |line: &str| line.split_whitespace().next()?.parse().ok();
    text.lines().filter(named).filter_map(address).collect()
}

/// The servers to ask; the host itself when none is named.
pub(super) fn servers(given: &[IpAddr]) -> Vec<IpAddr> {
    let mut servers = given.to_vec();
    if servers.is_empty() {
        servers = fs::read_to_string(RESOLV_CONF).map(|text| in_resolv_conf(&text)).unwrap_or_default();
    }
    if servers.is_empty() {
        servers.push(Ipv4Addr::LOCALHOST.into());
    }
    // resolv.conf(5): MAXNS.
    servers.truncate(3);
    servers
}

fn in_resolv_conf(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then(|| words.next()?.parse().ok()).flatten()
    };
    text.lines().filter_map(server).collect()
}

/// The addresses of a name, waited for.
///
/// # Errors
/// As of a lookup.
pub(super) fn look_up(name: &str) -> Result<Vec<IpAddr>, Fault> {
    let known = hosts(name);
    if !known.is_empty() {
        return Ok(known);
    }
    let (mut lookup, _answer) = Lookup::begin(name, &[])?;
    loop {
        let left = lookup.deadline().saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let over = match poll(&mut [PollFd::new(&lookup.socket, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => lookup.on_time(),
            Ok(_) | Err(rustix::io::Errno::INTR) => lookup.receive(),
            Err(_) => Some(Err(Fault::TemporaryResolverFailure)),
        };
        if let Some(result) = over {
            return result;
        }
    }
}

/// A name being looked up.
#[derive(Debug)]
pub(super) struct Lookup {
    /// In the form in which names are compared.
    pub name: String,
    question: Name,
    /// Where the answer goes.
    answer: OwnedFd,
    servers: Vec<IpAddr>,
    /// Counts through the servers.
    attempt: usize,
    socket: OwnedFd,
    /// The numbers of the questions that are open.
    open: Vec<(u16, RecordType)>,
    found: Vec<IpAddr>,
    deadline: Instant,
}

impl Lookup {
    /// Begins; the descriptor is where the task reads the answer.
    ///
    /// # Errors
    /// `NameUnresolvable` for what is no name; the system's.
    pub fn begin(name: &str, servers_given: &[IpAddr]) -> Result<(Self, OwnedFd), Fault> {
        let name = canonical_name(name);
        let mut question = Name::from_ascii(&name).map_err(|_| Fault::NameUnresolvable)?;
        question.set_fqdn(true);
        let (theirs, answer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(sockets::fault)?;
        let servers = servers(servers_given);
        let socket = ask_from(servers[0])?;
        let deadline = Instant::now() + PATIENCE;
        let mut lookup = Lookup {
            name,
            question,
            answer,
            servers,
            attempt: 0,
            socket,
            open: Vec::new(),
            found: Vec::new(),
            deadline,
        };
        lookup.ask();
        Ok((lookup, theirs))
    }

    /// Readable when an answer has come.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// When to call [`Lookup::on_time`].
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    fn ask(&mut self) {
        self.open.clear();
        for kind in [RecordType::A, RecordType::AAAA] {
            let mut id = [0; 2];
            if crate::linux::random(&mut id).is_err() {
                continue;
            }
            let id = u16::from_ne_bytes(id);
            let mut message = Message::new(id, MessageType::Query, OpCode::Query);
            message.metadata.recursion_desired = true;
            message.add_query(Query::query(self.question.clone(), kind));
            // What cannot be sent is not answered, which is waited for.
            if let Ok(bytes) = message.to_vec() {
                let _ = send(&self.socket, &bytes, SendFlags::NOSIGNAL);
            }
            self.open.push((id, kind));
        }
    }

    /// Takes what has come. Some: it is over.
    pub fn receive(&mut self) -> Option<Result<Vec<IpAddr>, Fault>> {
        let mut bytes = [0; 4096];
        loop {
            match recv(&self.socket, &mut bytes, RecvFlags::DONTWAIT) {
                Ok((_, length)) => self.read(&bytes[..length.min(4096)]),
                Err(rustix::io::Errno::AGAIN) => break,
                // Nobody is there: the next one.
                Err(_) => return self.next_server(),
            }
            if self.open.is_empty() {
                return self.end();
            }
        }
        None
    }

    fn read(&mut self, bytes: &[u8]) {
        let Ok(message) = Message::from_vec(bytes) else { return };
        let [query] = message.queries.as_slice() else { return };
        let Some(at) = self.open.iter().position(|open| *open == (message.metadata.id, query.query_type())) else {
            return;
        };
        if message.metadata.message_type != MessageType::Response || !query.name().eq_ignore_root(&self.question) {
            return;
        }
        match message.metadata.response_code {
            ResponseCode::NoError => {
                // The server has followed aliases: every address in the answer is the name's.
                for record in &message.answers {
                    match &record.data {
                        RData::A(a) => self.found.push(IpAddr::V4(a.0)),
                        RData::AAAA(aaaa) => self.found.push(IpAddr::V6(aaaa.0)),
                        _ => {}
                    }
                }
            }
            ResponseCode::NXDomain => {}
            // It cannot answer: another may.
            _ => return,
        }
        self.open.remove(at);
    }

    /// To be called when [`Lookup::deadline`] has passed. Some: it is over.
    pub fn on_time(&mut self) -> Option<Result<Vec<IpAddr>, Fault>> {
        if !self.found.is_empty() {
            return self.end();
        }
        self.next_server()
    }

    fn next_server(&mut self) -> Option<Result<Vec<IpAddr>, Fault>> {
        loop {
            self.attempt += 1;
            if self.attempt >= self.servers.len() * ATTEMPTS {
                return Some(Err(Fault::TemporaryResolverFailure));
            }
            if let Ok(socket) = ask_from(self.servers[self.attempt % self.servers.len()]) {
                self.socket = socket;
                self.deadline = Instant::now() + PATIENCE;
                self.ask();
                return None;
            }
        }
    }

    fn end(&mut self) -> Option<Result<Vec<IpAddr>, Fault>> {
        let mut found = std::mem::take(&mut self.found);
        found.truncate(MOST);
        // IPv4 first: it is what every network of containers has.
        found.sort_by_key(IpAddr::is_ipv6);
        Some(if found.is_empty() { Err(Fault::NameUnresolvable) } else { Ok(found) })
    }

    /// Tells the task. (It may have lost interest.)
    pub fn tell(self, result: &Result<Vec<IpAddr>, Fault>) {
        if let Ok(bytes) = serde_json::to_vec(result) {
            // At most some kilobytes: they fit the pipe.
            let _ = std::fs::File::from(self.answer).write_all(&bytes);
        }
    }
}

pub(super) fn ask_from(server: IpAddr) -> Result<OwnedFd, Fault> {
    let socket = sockets::inet(Protocol::Udp, server).map_err(Fault::from)?;
    // Connected: only this server's packets come in, and that nobody is there is told.
    connect(&socket, &SocketAddr::new(server, DNS_PORT)).map_err(sockets::fault)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_servers_are_read() {
        let text = "127.0.0.1 localhost\n10.0.0.1\tdb DB.example.org # db2\n::1 db\n# 1.1.1.1 db\nx db\n";
        let found: Vec<IpAddr> = ["10.0.0.1", "::1"].map(|ip| ip.parse().unwrap()).into();
        assert_eq!(in_hosts(text, "Db"), found);
        assert!(in_hosts(text, "db2").is_empty());
        let text = "# x\nnameserver 10.0.0.53\nsearch a b\nnameserver fe80::1%eth0\nnameserver ::1\n";
        assert_eq!(in_resolv_conf(text), ["10.0.0.53", "::1"].map(|ip| ip.parse::<IpAddr>().unwrap()));
    }
}
