//! The few ways in which a monitor opens sockets. All are close-on-exec and never block.

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr, set_tcp_nodelay};
use rustix::net::{
    AddressFamily, SocketAddrAny, SocketFlags, SocketType, bind, connect, getsockname, listen, socket_with,
};

use crate::error::Result;
use crate::network::{Fault, PortBinding, Protocol, publish};

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// How many connections may wait to be accepted; the kernel allows 4096 at most unless told otherwise.
pub(super) const BACKLOG: i32 = 4096;

/// A socket of the internet.
pub(super) fn inet(protocol: Protocol, of: IpAddr) -> io::Result<OwnedFd> {
    let (family, kind) = match (of, protocol) {
        (IpAddr::V4(_), Protocol::Tcp) => (AddressFamily::INET, SocketType::STREAM),
        (IpAddr::V6(_), Protocol::Tcp) => (AddressFamily::INET6, SocketType::STREAM),
        (IpAddr::V4(_), Protocol::Udp) => (AddressFamily::INET, SocketType::DGRAM),
        (IpAddr::V6(_), Protocol::Udp) => (AddressFamily::INET6, SocketType::DGRAM),
    };
    let socket = socket_with(family, kind, FLAGS, None)?;
    if of.is_ipv6() {
        set_ipv6_v6only(&socket, true)?;
    }
    Ok(socket)
}

/// A unix socket of this kind.
pub(super) fn unix(kind: SocketType) -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, kind, FLAGS, None)?)
}

/// A socket of the host that is bound to `at`; streams listen when [`listen`] is called.
pub(super) fn bound(protocol: Protocol, at: SocketAddr) -> io::Result<OwnedFd> {
    let socket = inet(protocol, at.ip())?;
    if protocol == Protocol::Tcp {
        // Old connections that still linger (TIME_WAIT) do not count.
        set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &at)?;
    Ok(socket)
}

/// Begins to connect; the socket is writable when that has come to an end.
pub(super) fn begin_connect(socket: &OwnedFd, to: SocketAddr) -> Result<(), Fault> {
    // A guest has no way to ask for this, and its answers should not wait for more to send.
    let _ = set_tcp_nodelay(socket, true);
    match connect(socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(()),
        Err(e) => Err(fault(e)),
    }
}

/// The socket's own address.
pub(super) fn local(socket: impl AsFd) -> Option<SocketAddr> {
    getsockname(socket).ok().and_then(|any: SocketAddrAny| SocketAddr::try_from(any).ok())
}

/// The kernel's error as the guest hears it.
pub(super) fn fault(e: Errno) -> Fault {
    match e {
        // A unix listener whose queue is full.
        Errno::AGAIN => Fault::ConnectionRefused,
        Errno::MFILE | Errno::NFILE => Fault::NewSocketLimit,
        Errno::AFNOSUPPORT => Fault::RemoteUnreachable,
        other => Fault::from(io::Error::from(other)),
    }
}

/// Binds what is published, on every address it is to be on, and lets streams in. The socket, and what it is really
/// bound to.
///
/// # Errors
/// `Conflict`, in docker's words, when a port is taken.
pub(super) fn publish(wanted: &PortBinding) -> Result<Vec<(PortBinding, File)>> {
    publish::bind(wanted, |at| {
        let socket = bound(wanted.protocol, at)?;
        if wanted.protocol == Protocol::Tcp {
            listen(&socket, BACKLOG)?;
        }
        let port = local(&socket).map_or(at.port(), |at| at.port());
        Ok((File::from(socket), port))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;
    use crate::network::ports::parse_publish;

    #[test]
    fn a_port_is_published_once() {
        let any = parse_publish("127.0.0.1::80").unwrap().remove(0);
        let first = publish(&any).unwrap();
        let port = first[0].0.host_port;
        assert!(port > 0);
        let same = parse_publish(&format!("127.0.0.1:{port}:80")).unwrap().remove(0);
        let taken = publish(&same).unwrap_err();
        assert_eq!(taken.class(), Class::Conflict);
        let at = format!("127.0.0.1:{port}");
        let words = format!("failed to bind host port for {at}: Bind for {at} failed: port is already allocated");
        assert_eq!(taken.to_string(), words);
        // Of a range, the next.
        let range = parse_publish(&format!("127.0.0.1:{port}-{}:80", port.saturating_add(9))).unwrap().remove(0);
        assert!(publish(&range).is_ok_and(|sockets| sockets[0].0.host_port > port));
        drop(first);
        assert!(publish(&same).is_ok(), "it is free again");
    }

    #[test]
    fn both_families_have_the_same_port() {
        let sockets = publish(&parse_publish("80").unwrap().remove(0)).unwrap();
        assert!(sockets.iter().all(|(binding, _)| binding.host_port == sockets[0].0.host_port), "{sockets:?}");
        let foreign = publish(&parse_publish("192.0.2.1:8080:80").unwrap().remove(0)).unwrap_err();
        assert_eq!(foreign.class(), Class::InvalidInput, "{foreign}");
    }
}
