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
            // The extra details are log options like `labels` and `tag`, of which json-file here keeps none.
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
    let timestamps = parsed.switch("timestamps");
    let safe = (io::stdout().is_terminal(), io::stderr().is_terminal());
    let mut lost = None;
    context.engine()?.logs(&parsed.operands()[0], &options, &mut |line| {
        let written = match line.stream {
            Stream::Stdout => write(&mut io::stdout(), line, timestamps, safe.0),
            Stream::Stderr => write(&mut io::stderr(), line, timestamps, safe.1),
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

fn write(to: &mut dyn io::Write, line: &LogLine, timestamps: bool, terminal: bool) -> io::Result<()> {
    let shown = if terminal { text::printable(&line.text) } else { line.text.as_str().into() };
    if timestamps {
        write!(to, "{:.9} ", line.time)?;
    }
    to.write_all(shown.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(timestamps: bool, terminal: bool) -> String {
        let line = LogLine {
            text: "a\x1b[2Jb\n".to_owned(),
            stream: Stream::Stdout,
            time: "2024-05-01T10:00:00.5Z".parse().expect("time"),
        };
        let mut out = Vec::new();
        write(&mut out, &line, timestamps, terminal).expect("write");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn lines_are_as_docker_prints_them() {
        assert_eq!(written(false, false), "a\x1b[2Jb\n");
        assert_eq!(written(true, false), "2024-05-01T10:00:00.500000000Z a\x1b[2Jb\n");
        assert_eq!(written(false, true), "a\\x1b[2Jb\n");
    }

    #[test]
    fn tails_read() {
        assert_eq!([tail(None), tail(Some("all")), tail(Some("-1")), tail(Some("5"))], [None, None, None, Some(5)]);
    }
}
