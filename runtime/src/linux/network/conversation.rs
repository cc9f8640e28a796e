//! Questions about names over TCP (RFC 7766): asked when an answer does not fit into a datagram.
//!
//! That is rare, and a stream may come byte by byte, so each conversation has a process of its own, forked from the monitor,
//! which may wait where the monitor must not. It ends with its time, or with the monitor.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::net::{SocketFlags, acceptfrom_with};
use rustix::process::Signal;

use super::names::{Directory, answer, failure};
use crate::linux::process::{self, Child, SpawnOptions};
use crate::linux::resolver;

/// How long a conversation may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a server may take.
const SERVER: Duration = Duration::from_secs(3);
/// Where servers listen.
const PORT: u16 = 53;

/// Takes the next caller, and talks with him in a process of its own. `directory` makes what it looks names up in: nothing
/// that the monitor has open.
pub(super) fn begin<D: Directory>(
    listener: &File,
    servers: &[IpAddr],
    directory: impl FnOnce() -> D,
) -> io::Result<Child> {
    let caller = acceptfrom_with(listener, SocketFlags::CLOEXEC)?.0;
    process::spawn(SpawnOptions::default(), || {
        let tied = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        // The container's lock and all else that the monitor holds is not this process's.
        if tied.is_err() || rustix::stdio::dup2_stdin(&caller).is_err() || process::close_from(3).is_err() {
            return 1;
        }
        let Ok(caller) = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3) else { return 1 };
        i32::from(talk(caller, servers, &directory()).is_err())
    })
}

fn talk(caller: OwnedFd, servers: &[IpAddr], directory: &dyn Directory) -> io::Result<()> {
    let mut caller = TcpStream::from(caller);
    caller.set_nonblocking(false)?;
    let end = Instant::now() + PATIENCE;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        caller.set_read_timeout(Some(left))?;
        caller.set_write_timeout(Some(left))?;
        let question = hear(&mut caller)?;
        let told = match answer(&question, directory) {
            Some(answer) => Some(answer),
            None if directory.leads_out() => pass_on(&question, servers).or_else(|| failure(&question)),
            None => failure(&question),
        };
        match told {
            Some(told) => say(&mut caller, &told)?,
            None => return Ok(()),
        }
    }
}

/// What the first server says that answers at all.
fn pass_on(question: &[u8], servers: &[IpAddr]) -> Option<Vec<u8>> {
    resolver::servers(servers).into_iter().find_map(|server| {
        let mut server = TcpStream::connect_timeout(&SocketAddr::new(server, PORT), SERVER).ok()?;
        server.set_read_timeout(Some(SERVER)).ok()?;
        server.set_write_timeout(Some(SERVER)).ok()?;
        say(&mut server, question).ok()?;
        hear(&mut server).ok().filter(|told| told.get(..2) == question.get(..2))
    })
}

/// A message: two bytes of its length, and so many (RFC 1035, 4.2.2).
fn hear(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn say(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], message].concat())
}

/// True when the conversation is over; it is then reaped.
pub(super) fn is_over(child: &Child) -> bool {
    !matches!(child.try_wait(), Ok(None))
}

/// What to poll for its end.
pub(super) fn ending(child: &Child) -> std::os::fd::BorrowedFd<'_> {
    child.pidfd().as_fd()
}
