//! Binding what a container publishes, in docker's words when it cannot be.

use std::io;
use std::net::SocketAddr;

use super::PortBinding;
use crate::error::{Class, Error, Result};

/// Binds what is published, on every address it is to be on. `open` makes the socket for an address, and says which port
/// it has. Gives the sockets, each with what it is really bound to.
///
/// # Errors
/// `Conflict`, in docker's words, when a port is taken.
pub(crate) fn bind<S>(
    wanted: &PortBinding,
    mut open: impl FnMut(SocketAddr) -> io::Result<(S, u16)>,
) -> Result<Vec<(PortBinding, S)>> {
    let mut last = None;
    // Any port must be the same one in both families, so what is free in the first may not be in the second.
    let attempts: Vec<u16> = match wanted.host_port {
        0 => vec![0; 16],
        _ => wanted.host_ports().collect(),
    };
    for port in attempts {
        match bind_on(wanted, port, &mut open) {
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
        _ if e.kind() == io::ErrorKind::AddrNotAvailable => error.with_hint("the host must have the address"),
        _ => error,
    }
}

fn bind_on<S>(
    wanted: &PortBinding,
    port: u16,
    open: &mut impl FnMut(SocketAddr) -> io::Result<(S, u16)>,
) -> Result<Vec<(PortBinding, S)>, (SocketAddr, io::Error)> {
    let mut sockets: Vec<(PortBinding, S)> = Vec::new();
    for ip in wanted.host_ips() {
        // The second family takes the first one's port.
        let port = sockets.first().map_or(port, |(binding, _)| binding.host_port);
        let at = SocketAddr::new(ip, port);
        match open(at) {
            Ok((socket, port)) => sockets.push((wanted.bound(ip, port), socket)),
            // A host without IPv6 publishes on IPv4.
            Err(e) if ip.is_ipv6() && !sockets.is_empty() && e.kind() != io::ErrorKind::AddrInUse => {}
            Err(e) => return Err((at, e)),
        }
    }
    Ok(sockets)
}
