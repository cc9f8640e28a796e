//! How a connection between containers tells who called whom.
//!
//! Between containers of one network a connection is a pair of unix sockets. The caller's monitor gives the caller's end
//! an abstract name (unix(7)) that holds both addresses; whoever accepts reads it as its peer's name. Only monitors can
//! call: the listening sockets lie in a directory of the instance's user, and a jailed task can make no socket. Random
//! bytes keep others from taking the name first.
//!
//! By the same way a guest's own monitor brings it a listener that it could not have when it began to listen: the kernel's,
//! on the bridge of a network, or the host's. Such a call has a name of its own and carries a descriptor.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketAddrAny, SocketAddrUnix, recvmsg, sendmsg,
};

use crate::network::line::Source;

const PREFIX: &str = "wharf";
/// What is brought, by the name of the call.
const DOORS: [(&str, Source); 2] = [("bridge", Source::Bridge), ("host", Source::Host)];
/// How long what the monitor sends right after it has called may take to be there.
const MOMENT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// A name for the caller's end of a connection from `caller` to `called`.
///
/// # Errors
/// When there is no randomness.
pub(super) fn name(caller: SocketAddr, called: SocketAddr) -> io::Result<SocketAddrUnix> {
    unique(&format!("{caller}/{called}"))
}

/// A name for a call that brings a listener.
///
/// # Errors
/// When there is no randomness.
pub(super) fn door(source: Source) -> io::Result<SocketAddrUnix> {
    let door = DOORS.iter().find(|(_, known)| *known == source);
    unique(door.ok_or(io::ErrorKind::InvalidInput)?.0)
}

fn unique(what: &str) -> io::Result<SocketAddrUnix> {
    let mut random = [0; 8];
    crate::linux::random(&mut random)?;
    let name = format!("{PREFIX}/{:016x}/{what}", u64::from_ne_bytes(random));
    Ok(SocketAddrUnix::new_abstract_name(name.as_bytes())?)
}

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// A container, from its address to one of ours.
    Container(SocketAddr, SocketAddr),
    /// Our monitor, with a listener of this kind.
    Door(Source),
}

/// Sends a descriptor.
///
/// # Errors
/// The kernel's.
pub(super) fn hand_over(way: &OwnedFd, fd: impl AsFd) -> io::Result<()> {
    let fds = [fd.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(way, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Takes a descriptor that was handed over; `None` when there is none.
pub(super) fn take_over(way: &OwnedFd) -> Option<OwnedFd> {
    poll(&mut [PollFd::new(way, PollFlags::IN)], Some(&MOMENT)).ok()?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    recvmsg(way, &mut [IoSliceMut::new(&mut [0])], &mut control, flags).ok()?;
    control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    })
}

/// Who calls; `None` for a caller that is no monitor.
pub(super) fn parse(peer: Option<SocketAddrAny>) -> Option<Caller> {
    let peer = SocketAddrUnix::try_from(peer?).ok()?;
    let name = std::str::from_utf8(peer.abstract_name()?).ok()?;
    let mut parts = name.split('/');
    if parts.next()? != PREFIX {
        return None;
    }
    let (_, caller) = (parts.next()?, parts.next()?);
    match parts.next() {
        None => DOORS.iter().find(|(door, _)| *door == caller).map(|(_, source)| Caller::Door(*source)),
        Some(called) => Some(Caller::Container(caller.parse().ok()?, called.parse().ok()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_addresses_come_through() {
        for (caller, called) in [("172.30.0.2:40000", "172.30.0.3:80"), ("[::1]:1", "[::1]:65535")] {
            let (caller, called) = (caller.parse().unwrap(), called.parse().unwrap());
            let name = name(caller, called).unwrap();
            assert_eq!(parse(Some(name.into())), Some(Caller::Container(caller, called)));
        }
        for stranger in ["", "wharf", "wharf/1/2/3", "other/0/1.2.3.4:1/1.2.3.4:2"] {
            let name = SocketAddrUnix::new_abstract_name(stranger.as_bytes()).unwrap();
            assert_eq!(parse(Some(name.into())), None, "{stranger}");
        }
        assert_eq!(parse(Some(SocketAddrUnix::new_unnamed().into())), None);
        assert_eq!(parse(None), None);
        for source in [Source::Bridge, Source::Host] {
            assert_eq!(parse(Some(door(source).unwrap().into())), Some(Caller::Door(source)));
        }
        assert!(door(Source::Network).is_err());
    }

    #[test]
    fn a_descriptor_is_handed_over() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        hand_over(&ours.into(), &write).unwrap();
        rustix::io::write(take_over(&OwnedFd::from(theirs)).unwrap(), b"x").unwrap();
        assert_eq!(rustix::io::read(&read, &mut [0; 4]).unwrap(), 1);
    }
}
