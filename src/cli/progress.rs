//! How long work is shown: a bar for each layer on a terminal, docker's plain lines off it.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use super::failure::tell;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use wharf_images::{NoReport, Progress, Reporter};

/// What listens to a pull on the way of another command: nobody when `quiet`; else stderr shows it, so that stdout
/// keeps what scripts read.
pub fn reporter(quiet: bool) -> Box<dyn Reporter> {
    choose(quiet, std::io::stderr().is_terminal(), ProgressDrawTarget::stderr, |line| tell(&format!("{line}\n")))
}

/// The same for commands whose output the progress is.
pub fn on_stdout(quiet: bool) -> Box<dyn Reporter> {
    choose(quiet, std::io::stdout().is_terminal(), ProgressDrawTarget::stdout, |line| {
        // A reader that has gone does not stop a pull.
        let _ = writeln!(std::io::stdout(), "{line}");
    })
}

fn choose(quiet: bool, terminal: bool, target: fn() -> ProgressDrawTarget, print: fn(&str)) -> Box<dyn Reporter> {
    match (quiet, terminal) {
        (true, _) => Box::new(NoReport),
        (false, true) => Box::new(Bars { drawn: MultiProgress::with_draw_target(target()), parts: Mutex::default() }),
        (false, false) => Box::new(Lines(print)),
    }
}

/// A line for each phase of each layer. Off a terminal docker does not count bytes either.
struct Lines(fn(&str));

impl Reporter for Lines {
    fn report(&self, progress: Progress<'_>) {
        match progress {
            Progress::Line(line) => self.0(line),
            Progress::Phase { id, phase } => self.0(&format!("{id}: {phase}")),
            Progress::Bytes { .. } => {}
        }
    }
}

/// One line for each layer, drawn anew as it goes on.
struct Bars {
    drawn: MultiProgress,
    parts: Mutex<HashMap<String, ProgressBar>>,
}

impl Bars {
    fn part(&self, id: &str) -> ProgressBar {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || self.drawn.add(ProgressBar::no_length().with_style(style(STILL)).with_prefix(id.to_owned()));
        parts.entry(id.to_owned()).or_insert_with(new).clone()
    }
}

const STILL: &str = "{prefix}: {msg}";
const MOVING: &str = "{prefix}: {msg} [{bar:50}] {decimal_bytes}/{decimal_total_bytes}";

/// The style of one of the templates above, which are well formed.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

impl Reporter for Bars {
    fn report(&self, progress: Progress<'_>) {
        match progress {
            // A bar too, or it would be drawn above the layers that came before it.
            Progress::Line(line) => {
                let bar = self.drawn.add(ProgressBar::no_length().with_style(style("{msg}")));
                bar.finish_with_message(line.to_owned());
            }
            Progress::Phase { id, phase } => {
                let part = self.part(id);
                part.set_style(style(STILL));
                part.set_message(phase.to_owned());
                part.tick();
            }
            Progress::Bytes { id, phase, current, total } => {
                let part = self.part(id);
                if part.message() != phase || part.length() != total {
                    part.set_style(style(MOVING));
                    part.set_message(phase.to_owned());
                    if let Some(total) = total {
                        part.set_length(total);
                    }
                }
                part.set_position(current);
            }
        }
    }
}

impl Drop for Bars {
    /// What was drawn stays.
    fn drop(&mut self) {
        for part in self.parts.lock().unwrap_or_else(PoisonError::into_inner).values() {
            part.abandon();
        }
    }
}
