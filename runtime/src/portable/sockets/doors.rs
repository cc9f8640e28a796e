//! Where connections come in to a listening guest: from the host by its published ports, from its neighbours and itself
//! by a *door*.
//!
//! A door is a port of the loopback. Whoever calls says the door's secret and both addresses; the door answers with a
//! proof, so that a caller whose file is out of date trusts no stranger who has got the port since.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::Shared;
use super::stream::Stream;
use crate::linux::link::{self, SECRET};
use crate::names;
use crate::network::r#virtual::in_family;
use crate::network::{Connected, Fault, Listener};

/// How long caller and door may take to know each other.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections that may wait to be accepted.
const BACKLOG: usize = 1024;

/// A caller, with his address and the one that he called.
type Caller = (TcpStream, SocketAddr, SocketAddr);

/// A door that is open. Dropped, it is closed.
pub(super) struct Door {
    callers: mpsc::Receiver<Caller>,
    work: AbortHandle,
}

impl Door {
    /// Opens one. Gives it with its word: `PORT SECRET PROOF`.
    pub fn open() -> Result<(Self, String), Fault> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Fault::from)?;
        let port = listener.local_addr().map_err(Fault::from)?.port();
        listener.set_nonblocking(true).map_err(Fault::from)?;
        let listener = TcpListener::from_std(listener).map_err(Fault::from)?;
        let secret = names::new_id().map_err(|_| Fault::Unknown)?;
        let proof = names::new_id().map_err(|_| Fault::Unknown)?;
        let word = format!("{port} {secret} {proof}");
        let (tell, callers) = mpsc::channel(BACKLOG);
        let work = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    // Too many descriptors are open: some will be closed.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                let (tell, secret, proof) = (tell.clone(), secret.clone(), proof.clone());
                tokio::spawn(async move {
                    if let Ok(Ok(caller)) = timeout(PATIENCE, greet(stream, &secret, &proof)).await {
                        let _ = tell.send(caller).await;
                    }
                });
            }
        });
        Ok((Door { callers, work: work.abort_handle() }, word))
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.work.abort();
    }
}

async fn greet(mut stream: TcpStream, secret: &str, proof: &str) -> io::Result<Caller> {
    let mut said = [0; SECRET];
    stream.read_exact(&mut said).await?;
    if !link::is_secret(&said, secret) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut text = vec![0; usize::from(stream.read_u8().await?)];
    stream.read_exact(&mut text).await?;
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let text = std::str::from_utf8(&text).map_err(|_| invalid())?;
    let (from, called) = text.split_once('/').ok_or_else(invalid)?;
    let (from, called) = (from.parse().map_err(|_| invalid())?, called.parse().map_err(|_| invalid())?);
    stream.write_all(proof.as_bytes()).await?;
    Ok((stream, from, called))
}

/// Calls at a door, in the name of `from`.
pub(super) async fn call(word: String, from: SocketAddr, to: SocketAddr) -> Result<Stream, Fault> {
    let called = async {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let (rest, proof) = word.rsplit_once(' ').ok_or_else(refused)?;
        let (port, secret) = link::parse(rest).ok_or_else(refused)?;
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        let names = format!("{from}/{to}");
        let mut hello = secret.as_bytes().to_vec();
        hello.push(names.len() as u8);
        hello.extend(names.as_bytes());
        stream.write_all(&hello).await?;
        let mut said = [0; SECRET];
        stream.read_exact(&mut said).await?;
        if link::is_secret(&said, proof) { Ok(stream) } else { Err(refused()) }
    };
    match timeout(PATIENCE, called).await {
        Ok(Ok(stream)) => Ok(Stream::between(stream)),
        // Whatever is there, it is no neighbour that listens.
        Ok(Err(_)) => Err(Fault::ConnectionRefused),
        Err(_) => Err(Fault::Timeout),
    }
}

/// Everywhere that connections to one address come in.
pub(super) struct Doors {
    pub door: Option<Door>,
    /// The host's listeners, each with the number of what it publishes.
    pub published: Vec<(Option<usize>, TcpListener)>,
    pub bound: SocketAddr,
    pub shared: Arc<Shared>,
}

impl Listener for Doors {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Connected, Fault>> {
        for (_, listener) in &self.published {
            match listener.poll_accept(cx) {
                // No network leads in: it is closed.
                Poll::Ready(Ok(_)) if self.shared.is_internal() => cx.waker().wake_by_ref(),
                Poll::Ready(Ok((stream, remote))) => {
                    return Poll::Ready(Ok(self.connected(Stream::outward(stream), self.bound, remote)));
                }
                // One that was given up before it was accepted.
                Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::ConnectionAborted => cx.waker().wake_by_ref(),
                Poll::Ready(Err(e)) => return Poll::Ready(Err(Fault::from(e))),
                Poll::Pending => {}
            }
        }
        let Some(door) = &mut self.door else { return Poll::Pending };
        match door.callers.poll_recv(cx) {
            Poll::Ready(Some((stream, remote, local))) => {
                Poll::Ready(Ok(self.connected(Stream::between(stream), local, remote)))
            }
            Poll::Ready(None) => Poll::Ready(Err(Fault::ConnectionAborted)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Doors {
    fn connected(&self, stream: Stream, local: SocketAddr, remote: SocketAddr) -> Connected {
        let family = |at| in_family(at, self.bound.is_ipv6(), self.shared.gateway(false));
        Connected { connection: Arc::new(stream), local: family(local), remote: family(remote) }
    }
}

impl Drop for Doors {
    fn drop(&mut self) {
        let numbers: Vec<usize> = self.published.drain(..).filter_map(|(number, _)| number).collect();
        // The host's ports are bound again, and refuse connections until somebody listens.
        self.shared.hold_again(&numbers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_door_opens_to_its_word_only() {
        run(async {
            let (mut door, word) = Door::open().unwrap();
            let (from, to) = (at("172.30.0.2:40000"), at("172.30.0.3:80"));
            let zeros = "0".repeat(SECRET);
            let (port, proof) = (word.split_once(' ').unwrap().0, word.rsplit_once(' ').unwrap().1);
            let guessed = format!("{port} {zeros} {proof}");
            assert_eq!(call(guessed, from, to).await.err(), Some(Fault::ConnectionRefused));
            call(word, from, to).await.unwrap_or_else(|fault| panic!("{fault}"));
            let (_, caller, called) = door.callers.recv().await.unwrap();
            assert_eq!((caller, called), (from, to));
            assert!(door.callers.try_recv().is_err(), "the stranger was not let in");
        });
    }

    #[test]
    fn who_has_got_the_port_since_is_not_trusted() {
        run(async {
            let stranger = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let (secret, proof) = (names::new_id().unwrap(), names::new_id().unwrap());
            let word = format!("{} {secret} {proof}", stranger.local_addr().unwrap().port());
            let answers = tokio::spawn(async move {
                let (mut stream, _) = stranger.accept().await.unwrap();
                stream.write_all("0".repeat(SECRET).as_bytes()).await.unwrap();
                stream
            });
            assert_eq!(call(word, at("127.0.0.1:1"), at("127.0.0.1:2")).await.err(), Some(Fault::ConnectionRefused));
            drop(answers.await);
        });
    }
}
