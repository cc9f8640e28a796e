//! Decompressing on one thread and writing files on another: the two halves of unpacking take about the same time.
//! Buffers go round, so the memory is fixed: [`BUFFERS`] times [`BUFFER`].

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::stream_error;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Class, Error, Result};

const BUFFERS: usize = 8;
const BUFFER: usize = 256 << 10;

/// Sends all of `source` through `worker`, which runs on a thread of its own, and returns the digest of the whole
/// with what `worker` made of it. The source is read to its end even if the worker does not need it all.
pub(super) fn run<T: Send>(
    source: &mut dyn Read,
    algorithm: Algorithm,
    limit: u64,
    worker: impl FnOnce(&mut Pieces) -> Result<T> + Send,
) -> Result<(Digest, T)> {
    let (full, pieces) = sync_channel(BUFFERS);
    let (empty, back) = sync_channel::<Vec<u8>>(BUFFERS + 2);
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new()
            .name("unpack".to_owned())
            .spawn_scoped(scope, move || {
                let mut pieces = Pieces { pieces, empty, current: Vec::new(), position: 0 };
                let made = worker(&mut pieces)?;
                pieces.drain();
                Ok(made)
            })
            .map_err(|e| Error::new(Class::Internal, format!("cannot start a thread: {e}")))?;
        let read = feed(source, algorithm, limit, &full, &back);
        drop(full);
        let made = worker.join().unwrap_or_else(|_| Err(Error::new(Class::Internal, "unpacking a layer panicked")));
        // A damaged stream shows on both sides; the reading side knows why.
        let digest = read?;
        let made = made?;
        // The worker left early only with an error, which was returned above.
        let digest = digest.ok_or_else(|| Error::new(Class::Internal, "a layer's reader ended early"))?;
        Ok((digest, made))
    })
}

/// Reads, hashes and sends; `None` when the worker has gone.
fn feed(
    source: &mut dyn Read,
    algorithm: Algorithm,
    limit: u64,
    full: &SyncSender<Vec<u8>>,
    back: &Receiver<Vec<u8>>,
) -> Result<Option<Digest>> {
    let mut hasher = Hasher::new(algorithm);
    let mut total = 0u64;
    loop {
        let mut buffer = back.try_recv().unwrap_or_default();
        buffer.resize(BUFFER, 0);
        let mut filled = 0;
        while filled < BUFFER {
            match source.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(stream_error(e)),
            }
        }
        if filled == 0 {
            return Ok(Some(hasher.finish()));
        }
        total += filled as u64;
        if total > limit {
            return Err(Error::new(Class::LimitExceeded, format!("layer: it unpacks to more than {limit} bytes")));
        }
        hasher.update(&buffer[..filled]);
        buffer.truncate(filled);
        if full.send(buffer).is_err() {
            return Ok(None);
        }
    }
}

/// The worker's end.
pub(super) struct Pieces {
    pieces: Receiver<Vec<u8>>,
    empty: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    position: usize,
}

impl Pieces {
    fn drain(&mut self) {
        while let Ok(buffer) = self.pieces.recv() {
            let _ = self.empty.try_send(buffer);
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.fill_buf()?;
        let n = piece.len().min(buffer.len());
        buffer[..n].copy_from_slice(&piece[..n]);
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.current.len() {
            let next = self.pieces.recv().unwrap_or_default();
            let used = std::mem::replace(&mut self.current, next);
            if used.capacity() > 0 {
                let _ = self.empty.try_send(used);
            }
            self.position = 0;
        }
        Ok(&self.current[self.position..])
    }

    fn consume(&mut self, n: usize) {
        self.position = (self.position + n).min(self.current.len());
    }
}
