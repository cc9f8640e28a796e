//! How a command fails: what the person reads, and the exit code. The one table of exit codes is here.
//!
//! Docker's codes: 125 when `run` itself (or the parsing of any flag) fails, 126 and 127 when the program cannot be
//! executed or found, 1 for other failures, else the program's own
//! (<https://docs.docker.com/engine/containers/run/#exit-status>).

use std::fmt::Write as _;
use std::io::{self, Write as _};

use super::text;

/// `Result` with [`Failure`].
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a command did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// The command line is wrong. `lead` says how the message begins and `usage` what follows it.
    Usage {
        /// The whole text for stderr.
        text: String,
        /// 125 for flags, 1 for operands, as docker does it.
        code: u8,
    },
    /// The command line is right and the work failed.
    Work {
        /// What happened.
        message: String,
        /// What to do next.
        hint: Option<String>,
        /// True when the engine said so: docker's `Error: ` stands before it.
        engine: bool,
        /// 126 or 127 when the container's program is at fault.
        exec: Option<u8>,
    },
    /// Everything has been said: only the exit code is left (a container's own, or 1 after a partial failure).
    Exit(u8),
}

/// Tells the person something on stderr. When nobody listens there either, there is nobody to tell.
pub fn tell(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// The exit code when nobody reads our output any more: 128 + SIGPIPE.
const BROKEN_PIPE: u8 = 141;

impl Failure {
    /// A failure that the command line found by itself.
    pub fn new(message: impl Into<String>) -> Self {
        Failure::Work { message: message.into(), hint: None, engine: false, exec: None }
    }

    /// The same, with advice on a line of its own.
    #[must_use]
    pub fn hint(mut self, advice: impl Into<String>) -> Self {
        if let Failure::Work { hint, .. } = &mut self {
            *hint = Some(advice.into());
        }
        self
    }

    /// The same, as a failure of the program that was to run: 126 if it cannot be executed, 127 if it is not there.
    #[must_use]
    pub fn of_program(mut self, code: u8) -> Self {
        if let Failure::Work { exec, .. } = &mut self {
            *exec = Some(code);
        }
        self
    }

    /// Whether the engine said so.
    pub fn is_engines(&self) -> bool {
        matches!(self, Failure::Work { engine: true, .. })
    }

    /// An operation on a file that failed, in Go's words as docker prints them: `open x: no such file or directory`.
    pub fn io(op: &str, path: &str, source: &io::Error) -> Self {
        Failure::new(format!("{op} {path}: {}", io_words(source)))
    }

    /// What stderr gets: `spelling` is the command as typed (`wharf run`), `runs` is true for `run`, whose errors
    /// docker prefixes with the program's name. Empty when everything has been said.
    pub fn text(&self, spelling: &str, runs: bool) -> String {
        match self {
            Failure::Usage { text, .. } => text.clone(),
            Failure::Exit(_) => String::new(),
            Failure::Work { message, hint, engine, .. } => {
                let lead = if runs {
                    "wharf: "
                } else if *engine {
                    "Error: "
                } else {
                    ""
                };
                let mut text = format!("{lead}{}\n", printable(message));
                if let Some(hint) = hint {
                    let _ = writeln!(text, "{}", printable(hint));
                }
                if runs {
                    let _ = write!(text, "\nRun '{spelling} --help' for more information\n");
                }
                text
            }
        }
    }

    /// The exit code.
    pub fn code(&self, runs: bool) -> u8 {
        match self {
            Failure::Usage { code, .. } | Failure::Exit(code) => *code,
            Failure::Work { exec: Some(code), .. } => *code,
            Failure::Work { engine: true, message, .. } if runs => code_of_words(message),
            Failure::Work { .. } if runs => 125,
            Failure::Work { .. } => 1,
        }
    }
}

/// Docker's client reads in the words of a failed `run` whose fault it is: what is missing is taken for the program,
/// also where it is a device or a part of a volume.
fn code_of_words(message: &str) -> u8 {
    let says = |words: &[&str]| words.iter().any(|words| message.contains(words));
    if says(&["executable file not found", "no such file or directory"]) {
        127
    } else if says(&["permission denied", "is a directory"]) {
        126
    } else {
        125
    }
}

/// A message may quote what strangers wrote: a name, a registry's answer. It cannot move a terminal's cursor.
fn printable(message: &str) -> String {
    message.split('\n').map(text::visible).collect::<Vec<_>>().join("\n")
}

/// An I/O error in the words of Go's `syscall` package, which docker prints: lower case, no number.
fn io_words(e: &io::Error) -> String {
    let text = e.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

impl From<wharf_runtime::Error> for Failure {
    fn from(e: wharf_runtime::Error) -> Self {
        if let wharf_runtime::Error::Output(e) = e {
            return e.into();
        }
        let exec = match &e {
            wharf_runtime::Error::Exec { code, .. } => u8::try_from(*code).ok(),
            _ => None,
        };
        Failure::Work { message: e.to_string(), hint: e.hint().map(str::to_owned), engine: true, exec }
    }
}

impl From<wharf_images::Error> for Failure {
    fn from(e: wharf_images::Error) -> Self {
        Failure::Work { message: e.to_string(), hint: e.hint().map(str::to_owned), engine: true, exec: None }
    }
}

/// An error of writing our output; of all else say what was tried with [`Failure::io`].
impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        if e.kind() == io::ErrorKind::BrokenPipe {
            Failure::Exit(BROKEN_PIPE)
        } else {
            Failure::new(format!("write: {}", io_words(&e)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_runtime::error::Class;

    #[test]
    fn exit_codes_are_dockers() {
        let not_found = || wharf_runtime::Error::new(Class::NotFound, "No such image: x");
        let exec = || wharf_runtime::Error::Exec { code: 127, message: "no such program".to_owned() };
        assert_eq!(Failure::from(not_found()).code(true), 125);
        assert_eq!(Failure::from(not_found()).code(false), 1);
        assert_eq!(Failure::from(exec()).code(true), 127);
        assert_eq!(Failure::from(exec()).code(false), 127);
        let gathering = || wharf_runtime::Error::new(Class::InvalidInput, "\"/dev/x\": no such file or directory");
        assert_eq!(Failure::from(gathering()).code(true), 127);
        assert_eq!(Failure::from(gathering()).code(false), 1);
        assert_eq!(Failure::new("open x: no such file or directory").code(true), 125);
        assert_eq!(Failure::Exit(42).code(true), 42);
        let broken_pipe = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(Failure::from(broken_pipe()).code(false), 141);
        assert_eq!(Failure::from(wharf_runtime::Error::Output(broken_pipe())).code(true), 141);
    }

    #[test]
    fn texts_are_dockers() {
        let e = wharf_runtime::Error::new(Class::NotFound, "No such container: x").with_hint("Look at `wharf ps -a`.");
        let e = Failure::from(e);
        assert_eq!(e.text("wharf start", false), "Error: No such container: x\nLook at `wharf ps -a`.\n");
        assert_eq!(
            e.text("wharf run", true),
            "wharf: No such container: x\nLook at `wharf ps -a`.\n\nRun 'wharf run --help' for more information\n"
        );
        let missing = io::Error::from_raw_os_error(2);
        let e = Failure::io("open", "/nope", &missing);
        assert_eq!(e.text("wharf exec", false), "open /nope: no such file or directory\n");
    }
}
