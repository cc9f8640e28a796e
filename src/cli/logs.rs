//! `logs`: what a container has said, each stream to its own.

use std::io::{self, IsTerminal as _, Write as _};

use jiff::Timestamp;
use wharf_runtime::monitor::log::{LogLine, LogOptions, Stream};

use super::context::Context;
use super::failure::{Failure, Result};
use super::parse::Parsed;
use super::verb::{Flag, Listed, Operands, Section, Verb};
use super::{text, units};

/// The command of this file.
pub static VERBS: &[Verb] = &[Verb {
    names: &["logs", "container logs"],
    about: "Fetch the logs of a container",
    usage: "[OPTIONS] CONTAINER",
    listed: Listed::Other,
    operands: Operands::Exactly(1),
    trailing: false,
    sections: &[Section {
        title: "Options",
        flags: &[
            Flag::switch("details", "Show extra details provided to logs"),
            Flag::switch("follow", "Follow log output").short('f'),
            Flag::value(
                "since",
                "string",
                "Show logs since timestamp (e.g. \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\" for 42 minutes)",
            ),
            Flag::value("tail", "string", "Number of lines to show from the end of the logs").short('n').or("all"),
            Flag::switch("timestamps", "Show timestamps").short('t'),
            Flag::value(
                "until",
                "string",
                "Show logs before a timestamp (e.g. \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\" for 42 minutes)",
            ),
        ],
    }],
    run: logs,
}];

fn logs(parsed: &Parsed, context: &Context) -> Result<()> {
    let now = Timestamp::now();
    let moment = |flag: &str| match parsed.value(flag) {
        None | Some("") => Ok(None),
        Some(value) => match units::parse_moment(value, now) {
            Ok(moment) => Ok(Some(moment)),
            Err(why) => Err(Failure::new(format!("invalid value for \"{flag}\": {why}"))),
        },
    };
    let options = LogOptions {
        follow: parsed.switch("follow"),
        tail: tail(parsed.value("tail")),
        since: moment("since")?,
        until: moment("until")?,
    };
    let shown = Shown { timestamps: parsed.switch("timestamps"), details: parsed.switch("details") };
    let safe = (io::stdout().is_terminal(), io::stderr().is_terminal());
    let mut lost = None;
    context.engine()?.logs(&parsed.operands()[0], &options, &mut |line| {
        let written = match line.stream {
            Stream::Stdout => write(&mut io::stdout(), line, shown, safe.0),
            Stream::Stderr => write(&mut io::stderr(), line, shown, safe.1),
        };
        lost = written.err();
        lost.is_none()
    })?;
    // A line without an end is held back by stdout until now.
    lost.map_or_else(|| io::stdout().flush(), Err).map_err(Failure::from)
}

/// `all`, anything that is no number, and negative numbers are all lines, as docker has it.
fn tail(text: Option<&str>) -> Option<usize> {
    text?.parse().ok()
}

/// What is shown before a line.
#[derive(Debug, Clone, Copy)]
struct Shown {
    timestamps: bool,
    /// What log options wrote into the entry: labels and variables.
    details: bool,
}

fn write(to: &mut dyn io::Write, line: &LogLine, shown: Shown, terminal: bool) -> io::Result<()> {
    let said = if terminal { text::printable(&line.text) } else { line.text.as_str().into() };
    if shown.timestamps {
        write!(to, "{:.9} ", line.time)?;
    }
    if shown.details {
        let pairs = line.attributes.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value)));
        write!(to, "{} ", pairs.collect::<Vec<_>>().join(","))?;
    }
    to.write_all(said.as_bytes())
}

/// Go's `url.QueryEscape`, which docker uses here.
fn escape(text: &str) -> String {
    let byte = |b: u8| match b {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(b).to_string(),
        b' ' => "+".to_owned(),
        _ => format!("%{b:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(timestamps: bool, details: bool, terminal: bool) -> String {
        let line = LogLine {
            text: "a\x1b[2Jb\n".to_owned(),
            stream: Stream::Stdout,
            time: "2024-05-01T10:00:00.5Z".parse().expect("time"),
            attributes: [("a".to_owned(), "1 2".to_owned()), ("b".to_owned(), "\x1b".to_owned())].into(),
        };
        let mut out = Vec::new();
        write(&mut out, &line, Shown { timestamps, details }, terminal).expect("write");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn lines_are_as_docker_prints_them() {
        assert_eq!(written(false, false, false), "a\x1b[2Jb\n");
        assert_eq!(written(true, false, false), "2024-05-01T10:00:00.500000000Z a\x1b[2Jb\n");
        assert_eq!(written(true, true, false), "2024-05-01T10:00:00.500000000Z a=1+2,b=%1B a\x1b[2Jb\n");
        assert_eq!(written(false, false, true), "a\\x1b[2Jb\n");
    }

    #[test]
    fn tails_read() {
        assert_eq!([tail(None), tail(Some("all")), tail(Some("-1")), tail(Some("5"))], [None, None, None, Some(5)]);
    }
}
