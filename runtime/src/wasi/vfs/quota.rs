//! How much a writable layer may hold.
//!
//! A file counts with its length in blocks, and every name with at least one block. The count begins with a walk through
//! the layer and goes on with what this process does to it. Another process may work in the same layer, so the walk is
//! made again before anything is refused, and whenever this process has added an eighth of the limit: together they can
//! exceed it by no more than an eighth each. What is unlinked while it is open counts until it is closed.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cap_fs_ext::MetadataExt;
use cap_std::fs::{Dir, Metadata};

use super::error::{Code, Result};

/// What space is given in.
const BLOCK: u64 = 4096;

/// A limit, and what counts against it.
#[derive(Debug)]
pub(crate) struct Quota {
    limit: u64,
    layer: Dir,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: u64,
    /// Added since the layer was walked.
    added: u64,
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
    /// Lets `layer` hold at most `limit` bytes. What it holds already counts, and may be more.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn new(layer: Dir, limit: u64) -> io::Result<Quota> {
        let used = walk(&layer)?;
        Ok(Quota { limit, layer, state: Mutex::new(State { used, ..State::default() }) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, state: &mut State, bytes: u64) -> Result<()> {
        let exceeds = |state: &State| state.used.saturating_add(bytes) > self.limit;
        if exceeds(state) || state.added > self.limit / 8 {
            state.used = walk(&self.layer)?.saturating_add(state.nameless);
            state.added = 0;
            if exceeds(state) {
                return Err(Code::InsufficientSpace);
            }
        }
        state.used = state.used.saturating_add(bytes);
        state.added = state.added.saturating_add(bytes);
        Ok(())
    }

    /// Counts a new file of so many bytes.
    ///
    /// # Errors
    /// `insufficient-space`.
    pub(super) fn charge(&self, bytes: u64) -> Result<()> {
        self.add(&mut self.state(), cost(bytes))
    }

    /// Takes it back.
    pub(super) fn refund(&self, bytes: u64) {
        let mut state = self.state();
        state.used = state.used.saturating_sub(cost(bytes));
    }

    /// Counts that `file` will be at least `size` bytes long, or with `exact` that long, and has `act` make it so.
    pub(super) fn resize(&self, file: &File, size: u64, exact: bool, act: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut state = self.state();
        let before = file.metadata()?.len();
        let after = if exact { size } else { size.max(before) };
        let more = cost(after).saturating_sub(cost(before));
        if more > 0 {
            self.add(&mut state, more)?;
        }
        match act() {
            Ok(()) => state.used = state.used.saturating_sub(cost(before).saturating_sub(cost(after))),
            Err(e) => {
                state.used = state.used.saturating_sub(more);
                return Err(e);
            }
        }
        Ok(())
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
                state.used = state.used.saturating_sub(bytes);
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
            }
            None => state.used = state.used.saturating_sub(bytes),
        }
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
