//! How far each blob is, for whoever unpacks it while it still arrives: the unpacker reads the very file that is being
//! written (out of the page cache, so this costs a copy and no disk access) and waits where the bytes end. So neither
//! waits for the other longer than it must, a slow unpacker never stalls a connection, and an interrupted download's
//! first part is unpacked without being fetched again.

use std::fs::File;
use std::io::{self, Read};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::content::ContentStore;
use crate::digest::Digest;
use crate::error::{Class, Error, Result};
use crate::reporter::{Progress, Reporter};

/// How far one blob is.
#[derive(Default)]
pub(super) struct Slot {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The file that is being written, if it is.
    file: Option<File>,
    written: u64,
    end: Option<End>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The blob is in the content store, verified.
    Whole,
    /// It will not come.
    Failed,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Bytes arrive in `file`; `written` are here already.
    pub fn arriving(&self, file: File, written: u64) {
        self.set(|state| {
            state.file = Some(file);
            state.written = written;
        });
    }

    /// So many bytes are here now (fewer than before, after a restart).
    pub fn written(&self, written: u64) {
        self.set(|state| state.written = written);
    }

    /// It is in the content store.
    pub fn whole(&self) {
        self.set(|state| {
            state.end.get_or_insert(End::Whole);
        });
    }

    /// It will not come. What is whole stays so.
    pub fn fail(&self) {
        self.set(|state| {
            state.end.get_or_insert(End::Failed);
        });
    }

    /// Waits until it is in the content store.
    pub fn wait_whole(&self) -> Result<()> {
        let state = self.changed.wait_while(self.lock(), |state| state.end.is_none());
        match state.unwrap_or_else(PoisonError::into_inner).end {
            Some(End::Whole) => Ok(()),
            _ => Err(given_up()),
        }
    }

    /// Waits until there is something to read, and reads along.
    pub fn follow<'s>(
        &'s self,
        content: &ContentStore,
        digest: &'s Digest,
        size: u64,
        reporter: &'s dyn Reporter,
    ) -> Result<Follow<'s>> {
        let state = self.changed.wait_while(self.lock(), |state| state.end.is_none() && state.file.is_none());
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        let file = match (state.file.take(), state.end) {
            (_, Some(End::Failed)) => return Err(given_up()),
            (Some(file), _) => file,
            (None, _) => content.open_blob(digest)?,
        };
        Ok(Follow { slot: self, file, position: 0, told: 0, id: digest.short(), size, reporter })
    }
}

fn given_up() -> Error {
    Error::new(Class::Cancelled, "the download was given up")
}

/// Reads a blob while it arrives.
pub(super) struct Follow<'s> {
    slot: &'s Slot,
    file: File,
    position: u64,
    told: u64,
    id: &'s str,
    size: u64,
    reporter: &'s dyn Reporter,
}

/// Progress of the extraction is told about so often during a blob.
const STEPS: u64 = 40;

impl Read for Follow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let waiting = |state: &mut State| state.end.is_none() && state.written <= self.position;
            let state = self.slot.changed.wait_while(self.slot.lock(), waiting);
            let (written, end) = state.map(|s| (s.written, s.end)).unwrap_or_else(|e| {
                let state = e.into_inner();
                (state.written, state.end)
            });
            let available = match end {
                Some(End::Whole) => u64::MAX,
                Some(End::Failed) => return Err(io::Error::other(given_up())),
                None => written - self.position,
            };
            let limit = usize::try_from(available).unwrap_or(usize::MAX).min(buffer.len());
            let n = self.file.read(&mut buffer[..limit])?;
            if n == 0 && limit > 0 && end.is_none() {
                // The download begins anew, and has emptied the file a moment ago.
                std::thread::yield_now();
                continue;
            }
            self.position += n as u64;
            if end.is_some() && self.position - self.told > self.size / STEPS {
                self.told = self.position;
                let (id, current, total) = (self.id, self.position, Some(self.size));
                self.reporter.report(Progress::Bytes { id, phase: "Extracting", current, total });
            }
            return Ok(n);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::*;
    use crate::reporter::NoReport;

    fn followed(slot: &Slot) -> io::Result<Vec<u8>> {
        let digest = Digest::of(b"");
        let store = ContentStore::open(tempfile::tempdir().unwrap().path()).unwrap();
        let mut follow = slot.follow(&store, &digest, 10, &NoReport).map_err(io::Error::other)?;
        let mut bytes = Vec::new();
        follow.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn a_reader_sees_all_bytes_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut file = File::create(&path).unwrap();
        let slot = Slot::default();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| followed(&slot).unwrap());
            file.write_all(b"01234").unwrap();
            slot.arriving(File::open(&path).unwrap(), 5);
            std::thread::sleep(Duration::from_millis(30));
            file.set_len(0).unwrap();
            slot.written(0);
            std::fs::write(&path, b"01").unwrap();
            slot.written(2);
            std::thread::sleep(Duration::from_millis(10));
            std::fs::write(&path, b"0123456789").unwrap();
            slot.written(10);
            slot.whole();
            assert_eq!(reader.join().unwrap(), b"0123456789");
        });
    }

    #[test]
    fn a_reader_of_what_fails_is_told() {
        let slot = Slot::default();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| followed(&slot));
            slot.fail();
            assert!(reader.join().unwrap().is_err());
        });
        slot.whole();
        assert!(slot.wait_whole().is_err(), "failed first");
        let slot = Slot::default();
        slot.whole();
        slot.fail();
        assert!(slot.wait_whole().is_ok(), "what is whole stays so");
    }
}
