//! What all processes that work in one writable layer have used of it: numbers in a small file beside the layer, which
//! whoever reads or changes them holds locked (flock(2)).
//!
//! A process takes a little more than it needs, so that it need not look here for every write: its credit. It counts as
//! used. While credit may still be turned into files there is a lease of it here, so that whoever counts the layer anew
//! knows what he may not see yet; a lease that its process does not renew ends by itself, as the process may have ended.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Processes with credit at one time; one more has none, and looks here for every write.
const LEASES: usize = 16;
/// What a credit is counted in when it is to be used up, besides the time that is its own.
const GRACE: Duration = Duration::from_secs(1);
const NUMBERS: usize = 3 + 3 * LEASES;

/// The file, as one process has it open.
#[derive(Debug)]
pub(super) struct Ledger {
    file: File,
    /// Held shared by every process that works in the layer.
    users: File,
    id: u64,
}

/// What is in it.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// What counts against the limit.
    pub(super) used: u64,
    /// How much of it has no name: it was unlinked and is open still.
    pub(super) nameless: u64,
    /// What has been taken since the layer was counted.
    pub(super) taken: u64,
    leases: [Lease; LEASES],
}

#[derive(Debug, Default, Clone, Copy)]
struct Lease {
    id: u64,
    bytes: u64,
    /// In milliseconds since 1970.
    until: u64,
}

impl Ledger {
    /// The ledger of a layer.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn open(layer: &Path) -> io::Result<Ledger> {
        let beside = |what: &str| {
            let mut name = layer.as_os_str().to_owned();
            name.push(what);
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(name)
        };
        // Nobody else has both: the number of the process, and when.
        let id = u64::from(std::process::id()) << 32 | u64::from(now().subsec_nanos()) | 1;
        Ok(Ledger { file: beside(".quota")?, users: beside(".users")?, id })
    }

    /// Changes the numbers.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Book) -> T) -> io::Result<T> {
        self.file.lock()?;
        let done = self.locked(act);
        self.file.unlock()?;
        done
    }

    fn locked<T>(&self, act: impl FnOnce(&mut Book) -> T) -> io::Result<T> {
        let mut file = &self.file;
        let mut bytes = [0; 8 * NUMBERS];
        file.seek(SeekFrom::Start(0))?;
        let mut length = 0;
        while length < bytes.len() {
            match file.read(&mut bytes[length..])? {
                0 => break,
                more => length += more,
            }
        }
        let mut book = Book::of(&bytes);
        let done = act(&mut book);
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&book.bytes())?;
        Ok(done)
    }

    /// With the numbers locked: true when no other process works in the layer. This one is then told as one that does.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn is_alone(&self) -> io::Result<bool> {
        // Changing a lock is two steps (flock(2)), between which nobody comes: he would need the numbers.
        self.users.unlock()?;
        let alone = self.users.try_lock().is_ok();
        if alone {
            self.users.unlock()?;
        }
        self.users.lock_shared()?;
        Ok(alone)
    }

    /// Tells that this process may still write so many bytes that it has taken.
    pub(super) fn lease(&self, book: &mut Book, bytes: u64, time: Duration) -> bool {
        let now = millis(now());
        let Some(free) = book.leases.iter_mut().find(|lease| lease.until < now) else { return false };
        *free = Lease { id: self.id, bytes, until: now.saturating_add(millis(time + GRACE)) };
        true
    }

    /// Tells that it has written all that it has taken but for so many bytes, which it will not.
    pub(super) fn end_lease(&self, book: &mut Book, unused: u64) {
        // Where there is none any more the layer was counted without it.
        for lease in book.leases.iter_mut().filter(|lease| lease.id == self.id) {
            *lease = Lease::default();
            book.used = book.used.saturating_sub(unused);
        }
    }
}

impl Book {
    /// The layer is counted anew, and holds so much: besides there is what processes may still write that they have taken.
    pub(super) fn counted(&mut self, bytes: u64) {
        let now = millis(now());
        self.leases.iter_mut().filter(|lease| lease.until < now).for_each(|lease| *lease = Lease::default());
        let leased = self.leases.iter().fold(0_u64, |sum, lease| sum.saturating_add(lease.bytes));
        self.used = bytes.saturating_add(self.nameless).saturating_add(leased);
        self.taken = 0;
    }

    /// No other process is there.
    pub(super) fn forget_others(&mut self) {
        self.leases = [Lease::default(); LEASES];
    }

    fn of(bytes: &[u8; 8 * NUMBERS]) -> Book {
        let mut numbers = bytes.as_chunks().0.iter().map(|number| u64::from_le_bytes(*number));
        let mut next = || numbers.next().unwrap_or_default();
        let (used, nameless, taken) = (next(), next(), next());
        let mut leases = [Lease::default(); LEASES];
        leases.iter_mut().for_each(|lease| *lease = Lease { id: next(), bytes: next(), until: next() });
        Book { used, nameless, taken, leases }
    }

    fn bytes(&self) -> Vec<u8> {
        let leases = self.leases.iter().flat_map(|lease| [lease.id, lease.bytes, lease.until]);
        [self.used, self.nameless, self.taken].into_iter().chain(leases).flat_map(u64::to_le_bytes).collect()
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
