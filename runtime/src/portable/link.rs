//! Connections between our own processes: TCP on the loopback, and a secret that only they know. It is all that every
//! system's standard library has for this.
//!
//! Whoever offers a connection listens on a free port and makes a *word*, `PORT SECRET`, which it gives away where only
//! we can read it: in the environment of a child, or in a file of the run directory. Whoever calls says the secret first;
//! a caller that does not is not heard.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Class, Error, Result};
use crate::names;

/// Characters of a secret: 32 random bytes in hexadecimal.
pub(super) const SECRET: usize = 64;

/// The variable in which a child of ours finds the word of the one that made it.
pub(super) const VARIABLE: &str = "WHARF_LINK";

/// How long a caller may take to say the secret.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest message.
const MOST: usize = 64 << 20;

/// A place where a connection can be had.
#[derive(Debug)]
pub(super) struct Offer {
    listener: TcpListener,
    secret: String,
    word: String,
}

impl Offer {
    /// Listens on a port that is free.
    pub fn new() -> Result<Self> {
        let failed = |e| Error::os("listen on the loopback", e);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        let secret = names::new_id()?;
        let word = format!("{} {secret}", listener.local_addr().map_err(failed)?.port());
        Ok(Offer { listener, secret, word })
    }

    /// What a caller must know.
    pub fn word(&self) -> &str {
        &self.word
    }

    /// Writes the word into a file, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<()> {
        let temporary = path.with_extension("tmp");
        std::fs::write(&temporary, &self.word).map_err(|e| Error::io("write", &temporary, e))?;
        std::fs::rename(&temporary, path).map_err(|e| Error::io("rename", &temporary, e))
    }

    /// Waits for a child that was given the word to call.
    pub fn accept(&self, child: &mut Child) -> Result<TcpStream> {
        let failed = |e| Error::os("wait for a process of ours", e);
        self.listener.set_nonblocking(true).map_err(failed)?;
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    if let Some(stream) = self.heard(stream) {
                        return Ok(stream);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if let Some(status) = child.try_wait().map_err(failed)? {
                        let text = format!("a process of ours ended at its start: {status}");
                        return Err(Error::new(Class::Internal, text));
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(e) => return Err(failed(e)),
            }
        }
    }

    /// Gives every caller that knows the secret to `f`, each in a thread of its own, as long as this process lives.
    pub fn serve(self, f: impl Fn(TcpStream) + Clone + Send + Sync + 'static) {
        std::thread::spawn(move || {
            let Offer { listener, secret, .. } = self;
            while let Ok((stream, _)) = listener.accept() {
                let (f, secret) = (f.clone(), secret.clone());
                std::thread::spawn(move || {
                    if let Some(stream) = greeted(stream, &secret) {
                        f(stream);
                    }
                });
            }
        });
    }

    fn heard(&self, stream: TcpStream) -> Option<TcpStream> {
        greeted(stream, &self.secret)
    }
}

fn greeted(mut stream: TcpStream, secret: &str) -> Option<TcpStream> {
    // On some systems it is as its listener.
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut said = [0; SECRET];
    stream.read_exact(&mut said).ok()?;
    stream.set_read_timeout(None).ok()?;
    stream.set_nodelay(true).ok()?;
    is_secret(&said, secret).then_some(stream)
}

/// Compares in a time that tells nothing of where they differ.
pub(super) fn is_secret(said: &[u8], secret: &str) -> bool {
    said.len() == secret.len() && said.iter().zip(secret.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

/// The port and the secret of a word.
pub(super) fn parse(word: &str) -> Option<(u16, &str)> {
    let (port, secret) = word.split_once(' ')?;
    (secret.len() == SECRET).then_some((port.parse().ok()?, secret))
}

/// Connects to whoever has given this word away.
pub(super) fn call(word: &str) -> io::Result<TcpStream> {
    let (port, secret) = parse(word).ok_or(io::ErrorKind::InvalidInput)?;
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.write_all(secret.as_bytes())?;
    Ok(stream)
}

/// Connects to the process that made this one.
pub(super) fn call_parent() -> io::Result<TcpStream> {
    let word = std::env::var(VARIABLE).map_err(|_| io::ErrorKind::NotFound)?;
    call(&word)
}

/// Sends a message.
pub(super) fn send<T: Serialize>(mut stream: &TcpStream, message: &T) -> Result<()> {
    let json = serde_json::to_vec(message).map_err(|e| wharf_images::Error::json("a message", e))?;
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend(json);
    stream.write_all(&bytes).map_err(|e| Error::os("speak to a process of ours", e))
}

/// Waits for a message; `None` when the other side has ended.
pub(super) fn receive<T: DeserializeOwned>(mut stream: &TcpStream) -> Result<Option<T>> {
    let mut length = [0; 8];
    if stream.read_exact(&mut length).is_err() {
        return Ok(None);
    }
    let length = usize::try_from(u64::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > MOST {
        return Err(Error::new(Class::Corrupt, "a message between our processes is too long"));
    }
    let mut json = vec![0; length];
    if stream.read_exact(&mut json).is_err() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&json).map_err(|e| wharf_images::Error::json("a message", e))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_knows_the_secret_is_heard() {
        let offer = Offer::new().unwrap();
        let (port, secret) = parse(offer.word()).map(|(port, secret)| (port, secret.to_owned())).unwrap();
        let word = offer.word().to_owned();
        let (tell, told) = std::sync::mpsc::channel();
        offer.serve(move |stream| tell.send(receive::<String>(&stream).unwrap()).unwrap());
        let wrong = call(&format!("{port} {}", "0".repeat(SECRET))).unwrap();
        let _ = send(&wrong, &"from a stranger");
        send(&call(&word).unwrap(), &"from a friend").unwrap();
        assert_eq!(told.recv().unwrap().as_deref(), Some("from a friend"));
        assert!(is_secret(secret.as_bytes(), &secret) && !is_secret(b"", &secret));
        assert!(parse("80").is_none() && parse("80 short").is_none() && parse(&format!("x {secret}")).is_none());
    }

    #[test]
    fn a_child_that_ends_without_a_call_is_not_waited_for() {
        let program = std::env::current_exe().unwrap();
        let mut child =
            std::process::Command::new(program).arg("--list").stdout(std::process::Stdio::null()).spawn().unwrap();
        assert_eq!(Offer::new().unwrap().accept(&mut child).unwrap_err().class(), Class::Internal);
    }
}
