//! What the kernel remembers of exchanges of datagrams with published ports (conntrack).
//!
//! An exchange keeps the translation with which it began for as long as somebody sends, whatever the firewall says by
//! then. So a sender that does not stop would reach a container that has gone, or whoever gets its address next, and never
//! the container that publishes the port now. Streams need none of this: whoever is reached by a wrong one resets it.

use std::net::IpAddr;

use rustix::io::Errno;
use rustix::net::netlink;

use super::firewall::Forward;
use super::netlink::{Attributes, REQUEST, Requests, Socket};

// The names and numbers of linux/netfilter/nfnetlink_conntrack.h, and of net/netfilter/nf_internals.h.
/// `NFNL_SUBSYS_CTNETLINK`, `IPCTNL_MSG_CT_DELETE`.
const DELETE: u16 = 1 << 8 | 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const SOURCE_FOUR: u16 = 1;
const SOURCE_SIX: u16 = 3;
const NUMBER: u16 = 1;
const DESTINATION_PORT: u16 = 3;
const STATUS: u16 = 3;
const FILTER: u16 = 25;
const STATUS_MASK: u16 = 26;
const BY_SOURCE: u32 = 1;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_DESTINATION_PORT: u32 = 1 << 5;
/// `IPS_SRC_NAT`, `IPS_DST_NAT`.
const TRANSLATED: u32 = 0x10 | 0x20;

/// Forgets the exchanges with these containers, whose ports are published no more.
///
/// # Errors
/// The kernel's; one before 6.8 cannot choose what it forgets, and forgets nothing.
pub(super) fn forget(forwards: &[Forward]) -> Result<(), Errno> {
    let mut containers: Vec<IpAddr> = of_datagrams(forwards).map(|forward| forward.to.ip()).collect();
    containers.sort_unstable();
    containers.dedup();
    let mut requests = Requests::default();
    for container in &containers {
        requests.add(DELETE, REQUEST, &header(*container), |a| {
            a.nest(TUPLE_REPLY, |tuple| {
                tuple.nest(TUPLE_IP, |ip| {
                    match container {
                        IpAddr::V4(source) => ip.put(SOURCE_FOUR, &source.octets()),
                        IpAddr::V6(source) => ip.put(SOURCE_SIX, &source.octets()),
                    };
                });
                protocol(tuple, None);
            });
            flags(a, 0, BY_SOURCE | BY_PROTOCOL);
        });
    }
    ask(&requests, containers.len())
}

/// Forgets the exchanges that began with these ports while nobody published them: they would never be translated.
///
/// # Errors
/// As [`forget`].
pub(super) fn begin_anew(forwards: &[Forward]) -> Result<(), Errno> {
    let mut requests = Requests::default();
    let asked = of_datagrams(forwards).map(|forward| {
        requests.add(DELETE, REQUEST, &header(forward.to.ip()), |a| {
            a.nest(TUPLE_ORIGINAL, |tuple| protocol(tuple, Some(forward.port)));
            a.big(STATUS, 0).big(STATUS_MASK, TRANSLATED);
            flags(a, BY_PROTOCOL | BY_DESTINATION_PORT, 0);
        });
    });
    let count = asked.count();
    ask(&requests, count)
}

fn of_datagrams(forwards: &[Forward]) -> impl Iterator<Item = &Forward> {
    forwards.iter().filter(|forward| i32::from(forward.protocol) == libc::IPPROTO_UDP)
}

fn ask(requests: &Requests, count: usize) -> Result<(), Errno> {
    if count == 0 {
        return Ok(());
    }
    match Socket::open(Some(netlink::NETFILTER))?.ask(requests) {
        // An older kernel looks for one exchange and finds none.
        Ok(_) | Err((_, Errno::NOENT | Errno::INVAL | Errno::OPNOTSUPP)) => Ok(()),
        Err((_, e)) => Err(e),
    }
}

/// `struct nfgenmsg`.
fn header(address: IpAddr) -> [u8; 4] {
    [if address.is_ipv4() { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }, 0, 0, 0]
}

/// UDP, and a destination's port.
fn protocol(tuple: &mut Attributes<'_>, to: Option<u16>) {
    tuple.nest(TUPLE_PROTOCOL, |protocol| {
        protocol.put(NUMBER, &[libc::IPPROTO_UDP as u8]);
        if let Some(to) = to {
            protocol.put(DESTINATION_PORT, &to.to_be_bytes());
        }
    });
}

/// What of each direction is compared.
fn flags(a: &mut Attributes<'_>, original: u32, reply: u32) {
    a.nest(FILTER, |filter| {
        filter.number(1, original).number(2, reply);
    });
}
