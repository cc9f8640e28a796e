//! How long work is shown: docker's plain lines on stderr, so that stdout keeps what scripts read.

use wharf_images::{NoReport, Progress, Reporter};

/// What listens to a pull: nobody when `quiet`.
pub fn reporter(quiet: bool) -> Box<dyn Reporter> {
    if quiet { Box::new(NoReport) } else { Box::new(Lines) }
}

/// A line for each phase of each layer.
struct Lines;

impl Reporter for Lines {
    fn report(&self, progress: Progress<'_>) {
        match progress {
            Progress::Line(line) => eprintln!("{line}"),
            Progress::Phase { id, phase } => eprintln!("{id}: {phase}"),
            // Off a terminal docker does not count bytes either.
            Progress::Bytes { .. } => {}
        }
    }
}
