//! A guest's memory limit inside its process: linear memories and tables, all of them together.
//!
//! The cgroup bounds the process as a whole and kills it; this bounds what the guest itself asks for, so that it is
//! told (`memory.grow` gives -1, as the specification has it) and so that there is a limit where there are no cgroups.

use wasmtime::{ResourceLimiter, Result};

/// What one element of a table takes, in bytes.
const ELEMENT: u64 = size_of::<usize>() as u64;

/// Counts what the guest's memories and tables take.
#[derive(Debug, Default)]
pub(super) struct MemoryLimit {
    limit: Option<u64>,
    used: u64,
    refused: bool,
}

impl MemoryLimit {
    pub fn new(limit: Option<u64>) -> Self {
        MemoryLimit { limit, used: 0, refused: false }
    }

    /// What to tell a person whose guest has ended badly, if a request was refused before.
    pub fn reached(&self) -> Option<String> {
        let limit = self.limit.filter(|_| self.refused)?;
        Some(format!("it had asked for more than its memory limit of {limit} bytes"))
    }

    fn grow(&mut self, by: u64) -> bool {
        let wanted = self.used.saturating_add(by);
        if self.limit.is_some_and(|limit| wanted > limit) {
            self.refused = true;
            return false;
        }
        self.used = wanted;
        true
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        // Beyond its own maximum it fails anyway, and must not be counted.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        Ok(self.grow(desired.saturating_sub(current) as u64))
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        Ok(self.grow((desired.saturating_sub(current) as u64).saturating_mul(ELEMENT)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_and_tables_share_one_limit() {
        let mut limit = MemoryLimit::new(Some(1000));
        assert!(limit.memory_growing(0, 600, None).unwrap());
        assert!(limit.table_growing(0, 50, None).unwrap());
        assert_eq!(limit.reached(), None);
        assert!(!limit.memory_growing(0, 1, None).unwrap());
        assert!(limit.reached().unwrap().contains("1000 bytes"));
    }

    #[test]
    fn what_fails_by_itself_is_not_counted() {
        let mut limit = MemoryLimit::new(Some(1000));
        assert!(!limit.memory_growing(0, 900, Some(800)).unwrap());
        assert!(limit.memory_growing(0, 1000, Some(1000)).unwrap());
    }

    #[test]
    fn without_a_limit_all_is_granted() {
        let mut limit = MemoryLimit::new(None);
        assert!(limit.memory_growing(0, usize::MAX, None).unwrap());
        assert!(limit.table_growing(0, usize::MAX, None).unwrap());
    }
}
