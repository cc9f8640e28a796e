//! Where a container's streams meet: its log, and the clients that are attached.
//!
//! A client that does not read holds its container's output back, as docker has it: whoever passes output on waits for
//! it, and for nobody else does anything wait. When the container has ended, a client like that is cut off.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::ChildStdin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::Attach;
use crate::monitor::log::{LogWriter, Stream};
use crate::monitor::protocol::Frame;

/// The streams of one container.
pub(super) struct Hub {
    /// Until the output is over.
    log: Mutex<Option<LogWriter>>,
    clients: Mutex<Vec<Arc<Attached>>>,
    fewer: Condvar,
    stdin: Mutex<Option<ChildStdin>>,
}

/// A client that gets output.
pub(super) struct Attached {
    attach: Attach,
    /// Locked while a frame is written.
    writer: Mutex<TcpStream>,
    /// The same connection, to be cut.
    connection: TcpStream,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Attached {
    fn wants(&self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self.attach.stdout,
            Stream::Stderr => self.attach.stderr,
        }
    }

    fn send(&self, frame: &Frame<'_>) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        if lock(&self.writer).write_all(&bytes).is_err() {
            // It is gone, or has been cut off; whoever reads from it sees to the rest.
            let _ = self.connection.shutdown(Shutdown::Both);
        }
    }
}

impl Hub {
    /// One that writes this log.
    pub fn new(log: LogWriter) -> Self {
        Hub { log: Mutex::new(Some(log)), clients: Mutex::default(), fewer: Condvar::new(), stdin: Mutex::new(None) }
    }

    /// The next task's stdin, if it has one.
    pub fn set_stdin(&self, stdin: Option<ChildStdin>) {
        *lock(&self.stdin) = stdin;
    }

    /// Gives a client the output from now on.
    ///
    /// # Errors
    /// The system's.
    pub fn join(&self, stream: &TcpStream, attach: Attach) -> std::io::Result<Arc<Attached>> {
        let writer = Mutex::new(stream.try_clone()?);
        let attached = Arc::new(Attached { attach, writer, connection: stream.try_clone()? });
        lock(&self.clients).push(Arc::clone(&attached));
        Ok(attached)
    }

    /// The client is gone. Who ran it with `-i` and leaves has closed its stdin (docker's StdinOnce).
    pub fn leave(&self, client: &Arc<Attached>) {
        lock(&self.clients).retain(|other| !Arc::ptr_eq(other, client));
        self.fewer.notify_all();
        if client.attach.stdin {
            self.close_stdin();
        }
    }

    /// Takes input for the task, and waits until it is taken.
    pub fn write_stdin(&self, bytes: &[u8]) {
        let mut stdin = lock(&self.stdin);
        if stdin.as_mut().is_some_and(|stdin| stdin.write_all(bytes).is_err()) {
            // It reads no more.
            *stdin = None;
        }
    }

    /// No more input will come.
    pub fn close_stdin(&self) {
        *lock(&self.stdin) = None;
    }

    /// Passes on what the task writes, until it writes no more.
    pub fn pump(&self, stream: Stream, mut from: impl Read) {
        let mut buffer = vec![0; 32 * 1024];
        loop {
            match from.read(&mut buffer) {
                Ok(n) if n > 0 => self.write(stream, &buffer[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    }

    /// Writes it down and shows it to whoever wants to see it.
    pub fn write(&self, stream: Stream, bytes: &[u8]) {
        // Logged before it is shown: what somebody has seen is not lost. A log that cannot be written stops nobody.
        if let Some(log) = lock(&self.log).as_mut() {
            let _ = log.write(stream, bytes);
        }
        let clients: Vec<_> = lock(&self.clients).iter().filter(|client| client.wants(stream)).cloned().collect();
        for client in clients {
            client.send(&match stream {
                Stream::Stdout => Frame::Stdout(bytes),
                Stream::Stderr => Frame::Stderr(bytes),
            });
        }
    }

    /// The output is over: what is left of a line is written down, and the log is closed.
    pub fn finish(&self) {
        if let Some(mut log) = lock(&self.log).take() {
            let _ = log.finish();
        }
    }

    /// Cuts off every client, which frees whoever waits for one to read.
    pub fn cut(&self) {
        for client in lock(&self.clients).iter() {
            let _ = client.connection.shutdown(Shutdown::Both);
        }
    }

    /// Tells the clients of the end, and waits for them to go, but not for one that never reads.
    pub fn end(&self, code: i32, patience: Duration) {
        let clients: Vec<_> = lock(&self.clients).clone();
        for client in clients {
            let _ = client.connection.set_write_timeout(Some(patience));
            client.send(&Frame::Exit(code));
        }
        let end = Instant::now() + patience;
        let mut clients = lock(&self.clients);
        // A connection that is closed while its other side still sends would be reset, and the last frames lost.
        while !clients.is_empty() && Instant::now() < end {
            let left = end.saturating_duration_since(Instant::now());
            clients = self.fewer.wait_timeout(clients, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
