//! A guest with sockets: its first argument says what it does. Only `std::net` (and poll(2), which `std` does not have),
//! as a program would that was not written for Wharf.
//!
//! - `echo ADDRESS`: sends back what comes, on any number of connections at once.
//! - `client HOST:PORT BYTES [CONNECTIONS]`: sends so many bytes on each and checks what comes back.
//! - `flood HOST:PORT BYTES`: sends so many bytes and reads as many, and prints how many nanoseconds that took.
//! - `pings HOST:PORT COUNT`: the same for so many small requests, one after the other.
//! - `answer ADDRESS`: answers datagrams with their own text and the sender's address.
//! - `ask HOST:PORT TEXT`: sends a datagram and prints the answer.
//! - `own ADDRESS`: connects a socket for datagrams there, and says what its own address is.
//! - `dribble COUNT`: writes so many single bytes to itself before it reads them, without waiting.
//! - `leave ROUNDS`: sends itself datagrams from sockets that it closes at once, and says how many arrive.
//! - `lookup NAME`: prints the name's addresses.
//! - `dial HOST:PORT`: connects, and says what became of it.
//! - `peer ADDRESS`: tells each caller his address, and ends the connection at once.
//! - `wait SECONDS ADDRESS`: listens only after a while, then serves one connection like `peer`.
//! - `twice ADDRESS`: binds an address twice.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Instant;

#[repr(C)]
struct PollFd {
    fd: RawFd,
    events: i16,
    revents: i16,
}

const READ: i16 = 1;
/// WASI's number is its own.
const WRITE: i16 = if cfg!(target_os = "wasi") { 2 } else { 4 };

unsafe extern "C" {
    fn poll(fds: *mut PollFd, count: usize, timeout: i32) -> i32;
}

fn wait(fds: &mut [PollFd]) {
    // SAFETY: the C library writes `revents` of as many structures as there are.
    let ready = unsafe { poll(fds.as_mut_ptr(), fds.len(), -1) };
    assert!(ready > 0, "poll: {}", io::Error::last_os_error());
}

fn would_block(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::WouldBlock
}

struct Echo {
    stream: TcpStream,
    buffer: Vec<u8>,
    sent: usize,
    ended: bool,
}

impl Echo {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Echo { stream, buffer: Vec::new(), sent: 0, ended: false })
    }

    fn events(&self) -> i16 {
        if self.sent < self.buffer.len() { WRITE } else { READ }
    }

    /// True when it is over.
    fn go_on(&mut self, space: &mut [u8]) -> io::Result<bool> {
        loop {
            while self.sent < self.buffer.len() {
                match self.stream.write(&self.buffer[self.sent..]) {
                    Ok(n) => self.sent += n,
                    Err(e) if would_block(&e) => return Ok(false),
                    Err(e) => return Err(e),
                }
            }
            if self.ended {
                self.stream.shutdown(Shutdown::Write)?;
                return Ok(true);
            }
            match self.stream.read(space) {
                Ok(0) => self.ended = true,
                Ok(n) => {
                    self.buffer.clear();
                    self.buffer.extend_from_slice(&space[..n]);
                    self.sent = 0;
                }
                Err(e) if would_block(&e) => return Ok(false),
                Err(e) => return Err(e),
            }
        }
    }
}

/// The C library of these guests has no more than 128 descriptors; further callers wait in the listener's queue.
const MOST: usize = 110;

fn echo(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    println!("listening on {}", listener.local_addr()?);
    let mut connections: Vec<Echo> = Vec::new();
    let mut space = vec![0; 64 * 1024];
    loop {
        let accepts = if connections.len() < MOST { READ } else { 0 };
        let mut fds = vec![PollFd { fd: listener.as_raw_fd(), events: accepts, revents: 0 }];
        fds.extend(connections.iter().map(|c| PollFd { fd: c.stream.as_raw_fd(), events: c.events(), revents: 0 }));
        wait(&mut fds);
        let mut number = 0;
        connections.retain_mut(|connection| {
            number += 1;
            fds[number].revents == 0 || !connection.go_on(&mut space).unwrap_or(true)
        });
        if accepts != 0 && fds[0].revents != 0 {
            while connections.len() < MOST {
                match listener.accept() {
                    Ok((stream, _)) => connections.push(Echo::new(stream)?),
                    Err(e) if would_block(&e) => break,
                    Err(e) => return Err(e),
                }
            }
        }
    }
}

/// The byte at this place of what a client sends: no two stretches are alike for long.
fn pattern(connection: usize, at: u64) -> u8 {
    (at.wrapping_mul(2654435761).rotate_left(13) >> 7) as u8 ^ connection as u8
}

struct Client {
    stream: TcpStream,
    number: usize,
    sent: u64,
    received: u64,
}

impl Client {
    fn go_on(&mut self, total: u64, space: &mut [u8]) -> io::Result<bool> {
        while self.sent < total {
            let length = (space.len() as u64).min(total - self.sent) as usize;
            for (n, byte) in space[..length].iter_mut().enumerate() {
                *byte = pattern(self.number, self.sent + n as u64);
            }
            match self.stream.write(&space[..length]) {
                Ok(n) => self.sent += n as u64,
                Err(e) if would_block(&e) => break,
                Err(e) => return Err(e),
            }
            if self.sent == total {
                self.stream.shutdown(Shutdown::Write)?;
            }
            if self.sent - self.received > 1 << 20 {
                break;
            }
        }
        loop {
            match self.stream.read(space) {
                Ok(0) if self.received == total => return Ok(true),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    for (i, byte) in space[..n].iter().enumerate() {
                        assert_eq!(*byte, pattern(self.number, self.received + i as u64), "a byte has changed");
                    }
                    self.received += n as u64;
                }
                Err(e) if would_block(&e) => return Ok(false),
                Err(e) => return Err(e),
            }
        }
    }
}

fn client(address: &str, total: u64, count: usize) -> io::Result<()> {
    let mut clients = Vec::new();
    for number in 0..count {
        let stream = TcpStream::connect(address)?;
        stream.set_nonblocking(true)?;
        clients.push(Client { stream, number, sent: 0, received: 0 });
    }
    let mut space = vec![0; 64 * 1024];
    while !clients.is_empty() {
        let events = |c: &Client| if c.sent < total && c.sent - c.received <= 1 << 20 { READ | WRITE } else { READ };
        let mut fds: Vec<_> =
            clients.iter().map(|c| PollFd { fd: c.stream.as_raw_fd(), events: events(c), revents: 0 }).collect();
        wait(&mut fds);
        let mut number = 0;
        let mut failed = None;
        clients.retain_mut(|client| {
            number += 1;
            if fds[number - 1].revents == 0 {
                return true;
            }
            match client.go_on(total, &mut space) {
                Ok(over) => !over,
                Err(e) => {
                    failed = Some(e);
                    false
                }
            }
        });
        if let Some(e) = failed {
            return Err(e);
        }
    }
    println!("{count} connections, {total} bytes each, all came back");
    Ok(())
}

fn flood(address: &str, total: usize) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    let mut space = vec![7; 256 * 1024];
    // What was still to be made is made now.
    stream.write_all(&[7])?;
    stream.read_exact(&mut [0])?;
    stream.set_nonblocking(true)?;
    let start = Instant::now();
    let (mut sent, mut back) = (0, 0);
    while back < total {
        let events = if sent < total { READ | WRITE } else { READ };
        wait(&mut [PollFd { fd: stream.as_raw_fd(), events, revents: 0 }]);
        if sent < total {
            match stream.write(&space[..(total - sent).min(64 * 1024)]) {
                Ok(length) => sent += length,
                Err(e) if would_block(&e) => {}
                Err(e) => return Err(e),
            }
        }
        match stream.read(&mut space) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => back += length,
            Err(e) if would_block(&e) => {}
            Err(e) => return Err(e),
        }
    }
    println!("{}", start.elapsed().as_nanos());
    Ok(())
}

fn pings(address: &str, count: usize) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut start = Instant::now();
    for n in 0..=count {
        stream.write_all(&[7; 64])?;
        stream.read_exact(&mut [0; 64])?;
        if n == 0 {
            // The first one made what was still to be made.
            start = Instant::now();
        }
    }
    println!("{}", start.elapsed().as_nanos());
    Ok(())
}

fn answer(address: &str) -> io::Result<()> {
    let socket = UdpSocket::bind(address)?;
    println!("answering on {}", socket.local_addr()?);
    let mut space = vec![0; 65536];
    loop {
        let (length, from) = socket.recv_from(&mut space)?;
        let text = format!("{} from {from}", String::from_utf8_lossy(&space[..length]));
        socket.send_to(text.as_bytes(), from)?;
    }
}

fn dribble(count: usize) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut writer = TcpStream::connect(listener.local_addr()?)?;
    let (mut reader, _) = listener.accept()?;
    writer.set_nonblocking(true)?;
    for _ in 0..count {
        assert_eq!(writer.write(b".")?, 1);
    }
    writer.shutdown(Shutdown::Write)?;
    let mut text = String::new();
    reader.read_to_string(&mut text)?;
    println!("{} arrived", text.len());
    Ok(())
}

fn leave(rounds: usize) -> io::Result<()> {
    let here = UdpSocket::bind("127.0.0.1:0")?;
    let (mut space, mut arrived) = ([0; 10], 0);
    for _ in 0..rounds {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        for _ in 0..10 {
            socket.send_to(b"bye", here.local_addr()?)?;
        }
        drop(socket);
        for _ in 0..10 {
            let mut fds = [PollFd { fd: here.as_raw_fd(), events: READ, revents: 0 }];
            // SAFETY: as in `wait`.
            if unsafe { poll(fds.as_mut_ptr(), 1, 1000) } == 0 {
                break;
            }
            here.recv_from(&mut space)?;
            arrived += 1;
        }
    }
    println!("{arrived} arrived");
    Ok(())
}

/// Any address of the family of this one.
fn any_like(other: SocketAddr) -> &'static str {
    if other.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }
}

fn ask(address: &str, text: &str) -> io::Result<()> {
    let to = address.to_socket_addrs()?.min_by_key(SocketAddr::is_ipv6).ok_or(io::ErrorKind::NotFound)?;
    let socket = UdpSocket::bind(any_like(to))?;
    socket.send_to(text.as_bytes(), to)?;
    let mut space = [0; 2048];
    let mut fds = [PollFd { fd: socket.as_raw_fd(), events: READ, revents: 0 }];
    // SAFETY: as in `wait`.
    if unsafe { poll(fds.as_mut_ptr(), 1, 3000) } == 0 {
        println!("no answer");
        return Ok(());
    }
    let (length, from) = socket.recv_from(&mut space)?;
    println!("{} answered: {}", from, String::from_utf8_lossy(&space[..length]));
    Ok(())
}

fn peer(listener: &TcpListener) -> io::Result<()> {
    let (mut stream, from) = listener.accept()?;
    // Dropped right after: not a byte of it may be lost.
    let _ = write!(stream, "you are {from}, I am {}{}", stream.local_addr()?, "!".repeat(200_000));
    Ok(())
}

pub fn run(args: &[&str]) -> io::Result<()> {
    match args {
        ["echo", address] => echo(address),
        ["client", address, bytes] => client(address, bytes.parse().expect("a number"), 1),
        ["client", address, bytes, count] => {
            client(address, bytes.parse().expect("a number"), count.parse().expect("a number"))
        }
        ["flood", address, bytes] => flood(address, bytes.parse().expect("a number")),
        ["pings", address, count] => pings(address, count.parse().expect("a number")),
        ["answer", address] => answer(address),
        ["ask", address, text] => ask(address, text),
        ["own", address] => {
            let to: SocketAddr = address.parse().expect("an address");
            let socket = UdpSocket::bind(any_like(to))?;
            socket.connect(to)?;
            println!("{} towards {}", socket.local_addr()?.ip(), socket.peer_addr()?);
            Ok(())
        }
        ["leave", rounds] => leave(rounds.parse().expect("a number")),
        ["dribble", count] => dribble(count.parse().expect("a number")),
        ["lookup", name] => {
            for address in (*name, 0).to_socket_addrs()? {
                println!("{}", address.ip());
            }
            Ok(())
        }
        ["dial", address] => {
            let stream = TcpStream::connect(*address)?;
            println!("connected to {} from {}", stream.peer_addr()?, stream.local_addr()?);
            let mut text = String::new();
            stream.take(40).read_to_string(&mut text)?;
            println!("{text}");
            Ok(())
        }
        ["peer", address] => {
            let listener = TcpListener::bind(*address)?;
            println!("listening on {}", listener.local_addr()?);
            loop {
                peer(&listener)?;
            }
        }
        ["wait", seconds, address] => {
            std::thread::sleep(std::time::Duration::from_secs(seconds.parse().expect("a number")));
            let listener = TcpListener::bind(*address)?;
            println!("listening on {}", listener.local_addr()?);
            peer(&listener)
        }
        ["twice", address] => {
            let first = TcpListener::bind(*address)?;
            let second = TcpListener::bind(first.local_addr()?);
            println!("{:?}", second.map(|_| ()).map_err(|e| e.kind()));
            drop(first);
            TcpListener::bind(*address).map(drop)
        }
        _ => panic!("unknown arguments: {args:?}"),
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if let Err(e) = run(&args) {
        println!("failed: {:?}: {e}", e.kind());
        std::process::exit(1);
    }
}
