//! How a connection between containers tells who called whom.
//!
//! Between containers of one network a connection is a pair of unix sockets. The caller's monitor gives the caller's end
//! an abstract name (unix(7)) that holds both addresses; whoever accepts reads it as its peer's name. Only monitors can
//! call: the listening sockets lie in a directory of the instance's user, and a jailed task can make no socket. Random
//! bytes keep others from taking the name first.

use std::io;
use std::net::SocketAddr;

use rustix::net::{SocketAddrAny, SocketAddrUnix};

const PREFIX: &str = "wharf";

/// A name for the caller's end of a connection from `caller` to `called`.
///
/// # Errors
/// When there is no randomness.
pub(super) fn name(caller: SocketAddr, called: SocketAddr) -> io::Result<SocketAddrUnix> {
    let mut random = [0; 8];
    crate::linux::random(&mut random)?;
    let name = format!("{PREFIX}/{:016x}/{caller}/{called}", u64::from_ne_bytes(random));
    Ok(SocketAddrUnix::new_abstract_name(name.as_bytes())?)
}

/// Who called, and which of our addresses; `None` for a caller that is no monitor.
pub(super) fn parse(peer: Option<SocketAddrAny>) -> Option<(SocketAddr, SocketAddr)> {
    let peer = SocketAddrUnix::try_from(peer?).ok()?;
    let name = std::str::from_utf8(peer.abstract_name()?).ok()?;
    let mut parts = name.split('/');
    if parts.next()? != PREFIX {
        return None;
    }
    let (_, caller, called) = (parts.next()?, parts.next()?, parts.next()?);
    Some((caller.parse().ok()?, called.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_addresses_come_through() {
        for (caller, called) in [("172.30.0.2:40000", "172.30.0.3:80"), ("[::1]:1", "[::1]:65535")] {
            let (caller, called) = (caller.parse().unwrap(), called.parse().unwrap());
            assert_eq!(parse(Some(name(caller, called).unwrap().into())), Some((caller, called)));
        }
        for stranger in ["", "wharf", "wharf/1/2/3", "other/0/1.2.3.4:1/1.2.3.4:2"] {
            let name = SocketAddrUnix::new_abstract_name(stranger.as_bytes()).unwrap();
            assert_eq!(parse(Some(name.into())), None, "{stranger}");
        }
        assert_eq!(parse(Some(SocketAddrUnix::new_unnamed().into())), None);
        assert_eq!(parse(None), None);
    }
}
