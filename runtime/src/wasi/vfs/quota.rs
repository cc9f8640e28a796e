//! How much a writable layer may hold.
//!
//! A file counts with its length in blocks, and every name with at least one block. All processes that work in the layer
//! count in one [`ledger`], so together they hold no more than the limit. What one of them changes below another's feet, as
//! a file that both truncate, may count twice or not at all, so the layer is walked through and counted anew before anything
//! is refused, and whenever an eighth of the limit has been taken. What is unlinked while it is open counts until it is
//! closed.

mod ledger;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cap_fs_ext::MetadataExt;
use cap_std::fs::{Dir, Metadata};

use self::ledger::{Book, Ledger};
use super::error::{Code, Result};

/// What space is given in.
const BLOCK: u64 = 4096;
/// A process takes at most this much more than it needs, and no more than a 64th of the limit.
const MOST_CREDIT: u64 = 1 << 20;
/// It may use it for so long.
const LEASE: Duration = Duration::from_secs(2);
/// What is taken for is written as fast at least: bytes in a microsecond.
const SLOWEST: u64 = 10;

/// A limit, and what counts against it.
#[derive(Debug)]
pub(crate) struct Quota {
    limit: u64,
    layer: Dir,
    ledger: Ledger,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Taken and not used yet.
    credit: u64,
    /// It may be used until then.
    until: Instant,
    /// The ledger may have a lease of this process.
    leased: bool,
    /// How often a file is open here, and whether it has lost its last name.
    open: HashMap<(u64, u64), (usize, bool)>,
    /// Bytes of files that have.
    nameless: u64,
}

/// What a file of so many bytes counts.
fn cost(bytes: u64) -> u64 {
    bytes.saturating_add(1).checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX)
}

impl Quota {
    /// Lets `layer`, which lies at `at`, hold at most `limit` bytes. What it holds already counts, and may be more.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn new(layer: Dir, at: &Path, limit: u64) -> io::Result<Quota> {
        let ledger = Ledger::open(at)?;
        let state = State { credit: 0, until: Instant::now(), leased: false, open: HashMap::new(), nameless: 0 };
        let quota = Quota { limit, layer, ledger, state: Mutex::new(state) };
        quota.ledger.with(|book| match quota.ledger.is_alone()? {
            true => quota.count(book, 0),
            false => Ok(()),
        })??;
        Ok(quota)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the layer anew. `nameless` is what this process has open without a name.
    fn count(&self, book: &mut Book, nameless: u64) -> io::Result<()> {
        if self.ledger.is_alone()? {
            // Whoever else was there has ended.
            book.forget_others();
            book.nameless = nameless;
        }
        book.counted(walk(&self.layer)?);
        Ok(())
    }

    fn add(&self, state: &mut State, bytes: u64) -> Result<()> {
        let own = state.credit;
        if bytes <= own && Instant::now() < state.until {
            state.credit -= bytes;
            return Ok(());
        }
        state.credit = 0;
        state.leased = true;
        self.ledger.with(|book| {
            self.ledger.end_lease(book, own);
            let exceeds = |book: &Book| book.used.saturating_add(bytes) > self.limit;
            if exceeds(book) || book.taken > self.limit / 8 {
                self.count(book, state.nameless)?;
                if exceeds(book) {
                    return Err(Code::InsufficientSpace);
                }
            }
            let left = self.limit.saturating_sub(book.used).saturating_sub(bytes);
            let mut credit = self.most_credit().min(left / 4);
            let time = LEASE + Duration::from_micros(bytes / SLOWEST);
            if !self.ledger.lease(book, bytes.saturating_add(credit), time) {
                credit = 0;
            }
            (state.credit, state.until) = (credit, Instant::now() + LEASE);
            let taken = bytes.saturating_add(credit);
            (book.used, book.taken) = (book.used.saturating_add(taken), book.taken.saturating_add(taken));
            Ok(())
        })?
    }

    fn most_credit(&self) -> u64 {
        (self.limit / 64).min(MOST_CREDIT)
    }

    /// So much that was taken is there now. Whoever counts anew sees it, and is not to count it twice for long.
    fn done(&self, state: &mut State, bytes: u64) {
        if bytes > self.most_credit() {
            self.settled(state);
        }
    }

    /// Gives back what was used.
    fn give_back(&self, bytes: u64, nameless: bool) {
        if bytes == 0 {
            return;
        }
        // What cannot be given back now is when the layer is counted anew.
        let _ = self.ledger.with(|book| {
            book.used = book.used.saturating_sub(bytes);
            if nameless {
                book.nameless = book.nameless.saturating_sub(bytes);
            }
        });
    }

    /// Gives back what was taken and not used, because nothing more will be.
    pub(super) fn settle(&self) {
        self.settled(&mut self.state());
    }

    fn settled(&self, state: &mut State) {
        // Most containers write nothing, and a ledger that did not change need not be written at their end.
        if !std::mem::take(&mut state.leased) {
            return;
        }
        let credit = std::mem::take(&mut state.credit);
        let _ = self.ledger.with(|book| {
            self.ledger.end_lease(book, credit);
        });
    }

    /// Counts a new file of so many bytes.
    ///
    /// # Errors
    /// `insufficient-space`.
    pub(super) fn charge(&self, bytes: u64) -> Result<()> {
        self.add(&mut self.state(), cost(bytes))
    }

    /// The same for who writes past the tree of the guest.
    ///
    /// # Errors
    /// `StorageFull`, as the kernel would say it; the ledger's.
    pub(crate) fn room(&self, bytes: u64) -> io::Result<()> {
        self.charge(bytes).map_err(|code| match code {
            Code::InsufficientSpace => io::Error::new(io::ErrorKind::StorageFull, "No space left on device"),
            other => io::Error::other(format!("{other:?}")),
        })
    }

    /// What was counted by [`Quota::charge`] is there now.
    pub(super) fn charged(&self, bytes: u64) {
        self.done(&mut self.state(), cost(bytes));
    }

    /// Takes it back.
    pub(super) fn refund(&self, bytes: u64) {
        self.give_back(cost(bytes), false);
    }

    /// Counts that `file` will be at least `size` bytes long, or with `exact` that long, and has `act` make it so.
    pub(super) fn resize<T>(&self, file: &File, size: u64, exact: bool, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let mut state = self.state();
        let before = cost(file.metadata()?.len());
        let after = if exact { cost(size) } else { cost(size).max(before) };
        if after == before {
            drop(state);
            return act();
        }
        if after > before {
            self.add(&mut state, after - before)?;
        }
        let done = act();
        match &done {
            Ok(_) if after > before => self.done(&mut state, after - before),
            Ok(_) => self.give_back(before - after, false),
            Err(_) => self.give_back(after.saturating_sub(before), false),
        }
        done
    }

    /// A file was opened.
    pub(super) fn opened(&self, file: &File) {
        if let Ok(identity) = identity(file) {
            self.state().open.entry(identity).or_default().0 += 1;
        }
    }

    /// An opening has ended.
    pub(super) fn closed(&self, file: &File) {
        let Ok(identity) = identity(file) else { return };
        let mut state = self.state();
        let Some((times, nameless)) = state.open.get_mut(&identity) else { return };
        *times -= 1;
        let (left, nameless) = (*times, *nameless);
        if left == 0 {
            state.open.remove(&identity);
            if nameless {
                let bytes = cost(file.metadata().map_or(0, |metadata| metadata.len()));
                state.nameless = state.nameless.saturating_sub(bytes);
                self.give_back(bytes, true);
            }
        }
    }

    /// The last name of a file is gone.
    pub(super) fn removed(&self, metadata: &Metadata) {
        let mut state = self.state();
        let bytes = if metadata.is_file() { cost(metadata.len()) } else { cost(0) };
        match state.open.get_mut(&(metadata.dev(), metadata.ino())) {
            Some((_, nameless)) => {
                *nameless = true;
                state.nameless = state.nameless.saturating_add(bytes);
                let _ = self.ledger.with(|book| book.nameless = book.nameless.saturating_add(bytes));
            }
            None => self.give_back(bytes, false),
        }
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        self.settle();
    }
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    let metadata = Metadata::from_file(file)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// What all below `layer` counts. What vanishes meanwhile counts nothing.
fn walk(layer: &Dir) -> io::Result<u64> {
    let mut linked = HashSet::new();
    let mut used: u64 = 0;
    let mut left = vec![layer.try_clone()?];
    while let Some(dir) = left.pop() {
        for entry in dir.entries()? {
            let entry = entry?;
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                left.extend(entry.open_dir().ok());
            } else if metadata.nlink() > 1 && !linked.insert((metadata.dev(), metadata.ino())) {
                continue;
            }
            used = used.saturating_add(cost(if metadata.is_file() { metadata.len() } else { 0 }));
        }
    }
    Ok(used)
}
