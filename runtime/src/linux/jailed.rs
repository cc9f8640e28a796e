//! The task's side of its network: every question goes over the line to the monitor, and descriptors come back.
//!
//! From then on nothing is asked: the guest's reads and writes are one system call each on the descriptor, which may be
//! a connection of the host's or a unix socket to a neighbour. They are tried at once; only what would block waits for
//! the event loop.

#![allow(unsafe_code)]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::{RecvFlags, SendFlags, SocketAddrAny, SocketFlags, acceptfrom_with, recv, send};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::caller::{self, Caller};
use super::line::Line;
use super::process::is_readable;
use super::question::Question;
use super::sockets;
use crate::error::{Class, Error, Result};
use crate::network::line::{Answer, Ask, Source};
use crate::network::packet::{self, HEADER, MOST};
use crate::network::r#virtual::in_family;
use crate::network::{
    Bound, Connected, Connection, Datagrams, Fault, Listener, Lookup, PortBinding, Protocol, SocketOption,
    VirtualNetwork,
};

/// The network of a guest in a jailed process.
pub(super) struct Jailed {
    line: Arc<Mutex<Line>>,
    /// The host, as the guest sees it, once it has joined.
    gateway: OnceLock<IpAddr>,
}

impl Jailed {
    /// Over this line.
    pub fn new(line: Line) -> Self {
        Jailed { line: Arc::new(Mutex::new(line)), gateway: OnceLock::new() }
    }

    /// Asks for the container's place on its network.
    ///
    /// # Errors
    /// What the monitor says.
    pub fn join(&self) -> Result<()> {
        match self.ask(&Ask::Join)? {
            Answer::Joined(place) => {
                if let Some((_, gateway)) = place {
                    self.gateway.get_or_init(|| gateway);
                }
                Ok(())
            }
            Answer::Error(failure) => Err(failure.into()),
            _ => Err(Error::new(Class::Internal, "the monitor gave an answer that was not asked for")),
        }
    }

    /// Asks something, and waits for the answer.
    ///
    /// # Errors
    /// When the monitor is gone.
    pub fn ask(&self, ask: &Ask) -> Result<Answer> {
        lock(&self.line).ask(ask).map(|(answer, _)| answer)
    }

    /// Says what is not answered.
    ///
    /// # Errors
    /// When the monitor is gone.
    pub fn tell(&self, ask: &Ask) -> Result<()> {
        lock(&self.line).tell(ask)
    }

    /// Waits for the word; false when the monitor is gone.
    pub fn may_run(&self) -> bool {
        lock(&self.line).may_run()
    }

    /// Waits for what the monitor says unasked; false when the monitor is gone.
    pub fn hears(&self, word: &Answer) -> bool {
        lock(&self.line).hears(word)
    }

    fn gateway(&self) -> IpAddr {
        self.gateway.get().copied().unwrap_or(Ipv4Addr::LOCALHOST.into())
    }

    fn question(&self, ask: &Ask) -> Result<(Answer, Vec<OwnedFd>), Fault> {
        match lock(&self.line).ask(ask) {
            Ok((Answer::Fault(fault), _)) => Err(fault),
            Ok(answer) => Ok(answer),
            Err(_) => Err(Fault::Unknown),
        }
    }
}

fn lock(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch(fd: OwnedFd) -> Result<AsyncFd<OwnedFd>, Fault> {
    // SAFETY: it owns a descriptor of its own, which is not replaced or closed while it is watched.
    unsafe { AsyncFd::register(fd) }.map_err(|e| Fault::from(io::Error::from(e)))
}

/// Does `call`, whether the event loop knows that it is worth it or not: it looks only while the guest waits. What the loop
/// believes wrongly is put right, so that it tells when it is worth to do it again.
fn attempt<T>(fd: &AsyncFd<OwnedFd>, interest: Interest, mut call: impl FnMut() -> Result<T, Errno>) -> io::Result<T> {
    let mut done = None;
    let told = fd.try_io(interest, |_| match done.insert(rustix::io::retry_on_intr(&mut call)) {
        Err(Errno::AGAIN) => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(()),
    });
    // Where the loop has nothing to tell, nothing was called.
    drop(told);
    Ok(done.unwrap_or_else(|| rustix::io::retry_on_intr(call))?)
}

/// Waits until there is something to read. What the event loop tells may have been read since: then it tells again.
fn poll_readable(fd: &AsyncFd<OwnedFd>, cx: &mut Context<'_>) -> Poll<()> {
    while let Ok(mut told) = ready!(fd.poll_read_ready(cx)) {
        if is_readable(fd) {
            break;
        }
        told.clear_ready();
    }
    Poll::Ready(())
}

fn poll_writable(fd: &AsyncFd<OwnedFd>, cx: &mut Context<'_>) -> Poll<()> {
    fd.poll_write_ready(cx).map(drop)
}

/// A stream on a descriptor.
struct Stream {
    fd: AsyncFd<OwnedFd>,
    /// Of the internet: options have an effect.
    inet: bool,
    v6: bool,
}

impl Stream {
    fn new(fd: OwnedFd) -> Result<Self, Fault> {
        let at = sockets::local(&fd);
        let (inet, v6) = (at.is_some(), at.is_some_and(|at| at.is_ipv6()));
        Ok(Stream { fd: watch(fd)?, inet, v6 })
    }
}

impl Connection for Stream {
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        attempt(&self.fd, Interest::READABLE, || {
            recv(&self.fd, &mut *buffer, RecvFlags::DONTWAIT).map(|(_, length)| length)
        })
    }

    fn try_read_more(&self, buffer: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        buffer.reserve(most);
        attempt(&self.fd, Interest::READABLE, || {
            let spare = &mut buffer.spare_capacity_mut()[..most];
            let ((filled, _), length) = recv(&self.fd, spare, RecvFlags::DONTWAIT)?;
            debug_assert_eq!(filled.len(), length);
            Ok(length)
        })
        .inspect(|&length| {
            let filled = buffer.len() + length;
            // SAFETY: the kernel has just written `length` bytes at the beginning of the spare capacity.
            unsafe { buffer.set_len(filled) };
        })
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        attempt(&self.fd, Interest::WRITABLE, || send(&self.fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL))
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        poll_readable(&self.fd, cx)
    }

    fn ask_readable(&self, owner: u32, question: &mut Question) -> bool {
        question.about(owner, &self.fd);
        true
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        poll_writable(&self.fd, cx)
    }

    fn take_error(&self) -> Option<Fault> {
        match sockopt::socket_error(&self.fd) {
            Ok(Ok(())) => None,
            Ok(Err(e)) | Err(e) => Some(sockets::fault(e)),
        }
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let how = match how {
            Shutdown::Read => rustix::net::Shutdown::Read,
            Shutdown::Write => rustix::net::Shutdown::Write,
            Shutdown::Both => rustix::net::Shutdown::Both,
        };
        Ok(rustix::net::shutdown(&self.fd, how)?)
    }

    fn set(&self, option: SocketOption) {
        if self.inet {
            // A value that the kernel does not take leaves the old one, which does no harm.
            let _ = set(self.fd.get_ref(), self.v6, option);
        }
    }
}

/// Prepares a connection that has come in. What fails costs speed, and no more.
fn tune(fd: &OwnedFd, remote: SocketAddr) {
    let _ = sockopt::set_tcp_nodelay(fd, true);
    // Nothing is congested on the loopback, and what paces there (BBR, where it is the host's choice) only takes time. This
    // one is always there (tcp(7), "Congestion control").
    if remote.ip().to_canonical().is_loopback() {
        let _ = sockopt::set_tcp_congestion(fd, "reno");
    }
}

fn set(fd: &OwnedFd, v6: bool, option: SocketOption) -> rustix::io::Result<()> {
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX).min(i32::MAX as usize / 2);
    match option {
        SocketOption::KeepAlive(on) => sockopt::set_socket_keepalive(fd, on),
        SocketOption::KeepAliveIdle(time) => sockopt::set_tcp_keepidle(fd, Duration::from_nanos(time)),
        SocketOption::KeepAliveInterval(time) => sockopt::set_tcp_keepintvl(fd, Duration::from_nanos(time)),
        SocketOption::KeepAliveCount(count) => sockopt::set_tcp_keepcnt(fd, count),
        SocketOption::HopLimit(hops) if v6 => sockopt::set_ipv6_unicast_hops(fd, Some(hops)),
        SocketOption::HopLimit(hops) => sockopt::set_ip_ttl(fd, u32::from(hops)),
        SocketOption::ReceiveBuffer(bytes) => sockopt::set_socket_recv_buffer_size(fd, size(bytes)),
        SocketOption::SendBuffer(bytes) => sockopt::set_socket_send_buffer_size(fd, size(bytes)),
    }
}

/// Everywhere that connections to one address come in.
struct Doors {
    doors: Vec<(Source, AsyncFd<OwnedFd>)>,
    bound: SocketAddr,
    gateway: IpAddr,
    /// Each door is the first to be asked in its turn.
    turn: usize,
}

impl Listener for Doors {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Connected, Fault>> {
        self.accept(Some(cx))
    }

    fn try_accept(&mut self) -> Poll<Result<Connected, Fault>> {
        self.accept(None)
    }

    fn ask_readable(&self, owner: u32, question: &mut Question) -> bool {
        self.doors.iter().for_each(|(_, door)| question.about(owner, door));
        true
    }
}

impl Doors {
    /// Who waits (`cx`) leaves it to the event loop to look at the doors, who does not has them asked.
    fn accept(&mut self, mut cx: Option<&mut Context<'_>>) -> Poll<Result<Connected, Fault>> {
        for n in 0..self.doors.len() {
            let at = (self.turn + n) % self.doors.len();
            loop {
                let (source, door) = &self.doors[at];
                if cx.as_mut().is_some_and(|cx| poll_readable(door, cx).is_pending()) {
                    break;
                }
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                match attempt(door, Interest::READABLE, || acceptfrom_with(door, flags)) {
                    Ok((fd, peer)) => {
                        let caller = if *source == Source::Network { caller::parse(peer.clone()) } else { None };
                        if let Some(Caller::Door(kind)) = caller {
                            self.add(kind, &fd);
                            return self.accept(cx);
                        }
                        if let Some(connected) = self.accepted(*source, fd, peer) {
                            self.turn = at + 1;
                            return Poll::Ready(connected);
                        }
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock && cx.is_none() => break,
                    // The event loop's belief was put right.
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    // One that was given up before it was accepted (accept(2), "Error handling").
                    Err(e) if is_passing(&e) => {}
                    // The container has left that network: this door is shut, the others are not.
                    Err(e) if *source != Source::Network && Errno::from_io_error(&e) == Some(Errno::INVAL) => {
                        self.doors.remove(at);
                        return self.accept(cx);
                    }
                    Err(e) => return Poll::Ready(Err(Fault::from(e))),
                }
            }
        }
        Poll::Pending
    }
}

fn is_passing(e: &io::Error) -> bool {
    let passing = [
        Errno::CONNABORTED,
        Errno::CONNRESET,
        Errno::NETDOWN,
        Errno::NETUNREACH,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
        Errno::PROTO,
        Errno::NOPROTOOPT,
        Errno::NONET,
        Errno::OPNOTSUPP,
    ];
    Errno::from_io_error(e).is_some_and(|e| passing.contains(&e))
}

impl Doors {
    /// Takes in another listener, which the monitor brings.
    fn add(&mut self, kind: Source, way: &OwnedFd) {
        if let Some(door) = caller::take_over(way).and_then(|listener| watch(listener).ok()) {
            self.doors.push((kind, door));
        }
    }

    fn accepted(&self, source: Source, fd: OwnedFd, peer: Option<SocketAddrAny>) -> Option<Result<Connected, Fault>> {
        let (remote, local) = match source {
            Source::Network => match caller::parse(peer)? {
                Caller::Container(caller, called) => (caller, called),
                Caller::Door(_) => return None,
            },
            Source::Host | Source::Bridge => {
                let remote = peer.and_then(|any| SocketAddr::try_from(any).ok())?;
                tune(&fd, remote);
                let own = sockets::local(&fd).filter(|_| source == Source::Bridge);
                (remote, own.unwrap_or(self.bound))
            }
        };
        let family = |at| in_family(at, self.bound.is_ipv6(), self.gateway);
        Some(Stream::new(fd).map(|stream| Connected {
            connection: Arc::new(stream),
            local: family(local),
            remote: family(remote),
        }))
    }
}

/// One socket's datagrams, as packets to and from the monitor.
struct Packets(AsyncFd<OwnedFd>);

impl Datagrams for Packets {
    fn try_send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        let packet = packet::encode(to, bytes);
        attempt(&self.0, Interest::WRITABLE, || send(&self.0, &packet, SendFlags::DONTWAIT | SendFlags::NOSIGNAL))
            .map(drop)
    }

    fn try_receive(&self) -> io::Result<(Vec<u8>, SocketAddr)> {
        let mut buffer = vec![0; HEADER + MOST];
        let length = attempt(&self.0, Interest::READABLE, || {
            recv(&self.0, buffer.as_mut_slice(), RecvFlags::DONTWAIT).map(|(_, length)| length)
        })?;
        match packet::decode(&buffer[..length.min(HEADER + MOST)]) {
            Some((from, data)) => Ok((data.to_vec(), from)),
            None => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        poll_readable(&self.0, cx)
    }

    fn ask_readable(&self, owner: u32, question: &mut Question) -> bool {
        question.about(owner, &self.0);
        true
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        poll_writable(&self.0, cx)
    }
}

/// A name that is looked up: known at once, or when it comes over a pipe.
enum Answered {
    Now(Option<Vec<IpAddr>>),
    Later(AsyncFd<OwnedFd>, Vec<u8>),
}

impl Lookup for Answered {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<IpAddr>, Fault>> {
        let (fd, text) = match self {
            Answered::Now(addresses) => return Poll::Ready(Ok(addresses.take().unwrap_or_default())),
            Answered::Later(fd, text) => (fd, text),
        };
        loop {
            let mut part = [0; 4096];
            match attempt(fd, Interest::READABLE, || rustix::io::read(&*fd, &mut part)) {
                Ok(0) => {
                    let answer = serde_json::from_slice(text).unwrap_or(Err(Fault::TemporaryResolverFailure));
                    return Poll::Ready(answer);
                }
                Ok(length) => text.extend_from_slice(&part[..length]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready!(poll_readable(fd, cx)),
                Err(_) => return Poll::Ready(Err(Fault::TemporaryResolverFailure)),
            }
        }
    }
}

fn single(descriptors: Vec<OwnedFd>) -> Result<OwnedFd, Fault> {
    descriptors.into_iter().next().ok_or(Fault::Unknown)
}

impl VirtualNetwork for Jailed {
    fn bind(&self, protocol: Protocol, local: SocketAddr) -> Result<Bound, Fault> {
        match self.question(&Ask::Bind { protocol, local })? {
            (Answer::Bound(number, address), _) => {
                let line = Arc::clone(&self.line);
                // A monitor that is gone has nothing to give back.
                Ok(Bound::new(address, number, move || drop(lock(&line).tell(&Ask::Release(number)))))
            }
            _ => Err(Fault::Unknown),
        }
    }

    fn listen(&self, bound: &Bound, _backlog: u32) -> Result<Box<dyn Listener>, Fault> {
        let (Answer::Listening(kinds), descriptors) = self.question(&Ask::Listen(bound.id))? else {
            return Err(Fault::Unknown);
        };
        let doors = kinds.into_iter().zip(descriptors).map(|(kind, fd)| Ok((kind, watch(fd)?)));
        let doors = doors.collect::<Result<_, Fault>>()?;
        Ok(Box::new(Doors { doors, bound: bound.address, gateway: self.gateway(), turn: 0 }))
    }

    fn connect(&self, from: Option<&Bound>, remote: SocketAddr) -> Result<Connected, Fault> {
        match self.question(&Ask::Connect { from: from.map(|bound| bound.id), to: remote })? {
            (Answer::Connected(local), descriptors) => {
                let stream = Stream::new(single(descriptors)?)?;
                Ok(Connected { connection: Arc::new(stream), local, remote })
            }
            _ => Err(Fault::Unknown),
        }
    }

    fn datagrams(&self, bound: &Bound) -> Result<Arc<dyn Datagrams>, Fault> {
        match self.question(&Ask::Datagrams(bound.id))? {
            (Answer::Datagrams, descriptors) => Ok(Arc::new(Packets(watch(single(descriptors)?)?))),
            _ => Err(Fault::Unknown),
        }
    }

    fn towards(&self, bound: &Bound, remote: SocketAddr) -> Result<SocketAddr, Fault> {
        match self.question(&Ask::Towards { from: bound.id, to: remote })? {
            (Answer::Towards(local), _) => Ok(local),
            _ => Err(Fault::Unknown),
        }
    }

    fn lookup(&self, name: &str) -> Result<Box<dyn Lookup>, Fault> {
        match self.question(&Ask::Lookup(name.to_owned()))? {
            (Answer::Addresses(addresses), _) => Ok(Box::new(Answered::Now(Some(addresses)))),
            (Answer::Later, descriptors) => Ok(Box::new(Answered::Later(watch(single(descriptors)?)?, Vec::new()))),
            _ => Err(Fault::Unknown),
        }
    }

    fn published(&self) -> io::Result<Vec<(PortBinding, TcpListener)>> {
        match self.question(&Ask::Published).map_err(io::Error::other)? {
            (Answer::Published(bindings), descriptors) => {
                Ok(bindings.into_iter().zip(descriptors.into_iter().map(TcpListener::from)).collect())
            }
            _ => Err(io::Error::other("the monitor gave an answer that was not asked for")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{ErrorKind, Write};
    use std::os::unix::net::UnixStream;
    use std::task::Waker;

    use super::*;

    fn run<T>(test: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(10), test).await.expect("it waits for ever") })
    }

    fn nobody() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[test]
    fn what_has_come_is_read_whether_the_event_loop_has_told_of_it_or_not() {
        run(async {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let stream = Stream::new(ours.into()).unwrap();
            let mut space = [0; 10];
            theirs.write_all(b"one").unwrap();
            assert_eq!(stream.try_read(&mut space).unwrap(), 3, "nobody has waited, and the loop has not looked");
            for _ in 0..3 {
                theirs.write_all(b"more").unwrap();
                poll_fn(|cx| stream.poll_readable(cx)).await;
                assert_eq!(stream.try_read(&mut space).unwrap(), 4);
                assert_eq!(stream.try_read(&mut space).unwrap_err().kind(), ErrorKind::WouldBlock);
                assert!(stream.poll_readable(&mut nobody()).is_pending(), "who waits would go round for ever");
            }
        });
    }

    #[test]
    fn what_was_read_before_the_event_loop_told_of_it_is_not_told() {
        run(async {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let stream = Stream::new(ours.into()).unwrap();
            let mut space = [0; 10];
            for _ in 0..3 {
                assert!(stream.poll_readable(&mut nobody()).is_pending());
                theirs.write_all(b"some").unwrap();
                assert_eq!(stream.try_read(&mut space).unwrap(), 4);
                tokio::time::sleep(Duration::from_millis(1)).await;
                assert!(stream.poll_readable(&mut nobody()).is_pending(), "a guest is woken for nothing");
                theirs.write_all(b"more").unwrap();
                poll_fn(|cx| stream.poll_readable(cx)).await;
                assert_eq!(stream.try_read(&mut space).unwrap(), 4);
            }
        });
    }

    #[test]
    fn nothing_is_paced_on_the_loopback() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = || {
            let theirs = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (ours, remote) = listener.accept().unwrap();
            (OwnedFd::from(ours), remote, theirs)
        };
        let (near, remote, _theirs) = connect();
        tune(&near, remote);
        assert_eq!(sockopt::tcp_congestion(&near).unwrap(), "reno");
        let (far, _, _theirs) = connect();
        let before = sockopt::tcp_congestion(&far).unwrap();
        tune(&far, SocketAddr::from(([192, 0, 2, 1], 5)));
        assert_eq!(sockopt::tcp_congestion(&far).unwrap(), before);
        assert!(sockopt::tcp_nodelay(&near).unwrap() && sockopt::tcp_nodelay(&far).unwrap());
    }

    #[test]
    fn callers_are_accepted_whether_the_event_loop_has_told_of_them_or_not() {
        run(async {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let bound = listener.local_addr().unwrap();
            let doors = vec![(Source::Host, watch(listener.into()).unwrap())];
            let mut doors = Doors { doors, bound, gateway: Ipv4Addr::LOCALHOST.into(), turn: 0 };
            assert!(doors.try_accept().is_pending());
            let first = std::net::TcpStream::connect(bound).unwrap();
            let Poll::Ready(Ok(caller)) = doors.try_accept() else { panic!("a guest that never waits meets nobody") };
            assert_eq!(caller.remote, first.local_addr().unwrap());
            for _ in 0..3 {
                assert!(doors.poll_accept(&mut nobody()).is_pending());
                let next = std::net::TcpStream::connect(bound).unwrap();
                let caller = poll_fn(|cx| doors.poll_accept(cx)).await.unwrap();
                assert_eq!(caller.remote, next.local_addr().unwrap());
            }
        });
    }
}
