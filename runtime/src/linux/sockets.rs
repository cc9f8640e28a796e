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

use crate::error::{Class, Error, Result};
use crate::network::{Fault, PortBinding, Protocol};

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
    let mut last = None;
    // Any port must be the same one in both families, so what is free in the first may not be in the second.
    let attempts: Vec<u16> = match wanted.host_port {
        0 => vec![0; 16],
        _ => wanted.host_ports().collect(),
    };
    for port in attempts {
        match publish_on(wanted, port) {
            Ok(sockets) => return Ok(sockets),
            Err((at, e)) if e.kind() == io::ErrorKind::AddrInUse => last = Some((at, e)),
            Err((at, e)) => return Err(refused(wanted, at, &e)),
        }
    }
    match last {
        Some((at, _)) => Err(Error::new(Class::Conflict, wanted.taken(at))
            .with_hint("another program or container has the port: publish another one, or end it")),
        None => Err(Error::new(Class::InvalidInput, format!("no port to publish for {wanted}"))),
    }
}

fn refused(wanted: &PortBinding, at: SocketAddr, e: &io::Error) -> Error {
    let class = match e.kind() {
        io::ErrorKind::PermissionDenied => Class::Forbidden,
        _ => Class::InvalidInput,
    };
    let text = e.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text).to_lowercase();
    let message = format!("failed to bind host port for {at}/{}: {text}", wanted.protocol);
    let error = Error::new(class, message);
    match class {
        Class::Forbidden => error.with_hint("ports below 1024 are root's: publish a higher one"),
        _ => error.with_hint("the host must have the address"),
    }
}

fn publish_on(wanted: &PortBinding, port: u16) -> Result<Vec<(PortBinding, File)>, (SocketAddr, io::Error)> {
    let mut sockets: Vec<(PortBinding, File)> = Vec::new();
    for ip in wanted.host_ips() {
        // The second family takes the first one's port.
        let port = sockets.first().map_or(port, |(binding, _)| binding.host_port);
        let at = SocketAddr::new(ip, port);
        let opened = bound(wanted.protocol, at).and_then(|socket| {
            if wanted.protocol == Protocol::Tcp {
                listen(&socket, BACKLOG)?;
            }
            Ok(socket)
        });
        match opened {
            Ok(socket) => {
                let port = local(&socket).map_or(port, |at| at.port());
                sockets.push((wanted.bound(ip, port), socket.into()));
            }
            // A host without IPv6 publishes on IPv4.
            Err(e) if ip.is_ipv6() && !sockets.is_empty() && e.kind() != io::ErrorKind::AddrInUse => {}
            Err(e) => return Err((at, e)),
        }
    }
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use super::*;
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
