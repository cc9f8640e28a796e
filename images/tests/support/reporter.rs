//! A reporter that remembers.

use std::sync::Mutex;

use wharf_images::{Progress, Reporter};

/// What was reported, as lines.
#[derive(Default)]
pub struct Heard(Mutex<Vec<String>>);

impl Heard {
    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// True when some line contains `text`.
    pub fn has(&self, text: &str) -> bool {
        self.lines().iter().any(|line| line.contains(text))
    }
}

impl Reporter for Heard {
    fn report(&self, progress: Progress<'_>) {
        let line = match progress {
            Progress::Line(line) => line.to_owned(),
            Progress::Phase { id, phase } => format!("{id}: {phase}"),
            Progress::Bytes { .. } => return,
        };
        self.0.lock().unwrap().push(line);
    }
}
