//! How long work tells of its progress, without knowing who listens.

/// One step of long work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress<'a> {
    /// A line about the whole work ("latest: Pulling from library/debian").
    Line(&'a str),
    /// A part (a layer, by short digest) is in this phase ("Downloading", "Extracting", "Pull complete").
    Phase {
        /// Which part.
        id: &'a str,
        /// Docker's word for the phase.
        phase: &'a str,
    },
    /// A part has come this far within its phase.
    Bytes {
        /// Which part.
        id: &'a str,
        /// Docker's word for the phase.
        phase: &'a str,
        /// Bytes done.
        current: u64,
        /// Bytes in all, if known.
        total: Option<u64>,
    },
}

/// Listens to long work. Called from worker threads.
pub trait Reporter: Send + Sync {
    /// Takes note of one step.
    fn report(&self, progress: Progress<'_>);
}

/// Listens to nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoReport;

impl Reporter for NoReport {
    fn report(&self, _: Progress<'_>) {}
}
