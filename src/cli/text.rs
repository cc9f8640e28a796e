//! Text that others wrote, made safe for a terminal: an image label or a log line must not move the cursor, rename the
//! window or type for the person. Also: yes-or-no questions.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, BufRead as _, Write as _};

use super::failure::Result;
use super::parse::Parsed;

/// Names and cells: every control character becomes visible (`\x1b`).
pub fn visible(text: &str) -> Cow<'_, str> {
    escape(text, |_| 0)
}

/// Output of programs: colours, tabs and line ends pass, all other control sequences become visible.
pub fn printable(text: &str) -> Cow<'_, str> {
    escape(text, |rest| match rest.as_bytes() {
        [b'\n' | b'\t' | b'\r', ..] => 1,
        [0x1b, b'[', parameters @ ..] => {
            let n = parameters.iter().take_while(|b| b.is_ascii_digit() || matches!(b, b';' | b':')).count();
            if parameters.get(n) == Some(&b'm') { n + 3 } else { 0 }
        }
        _ => 0,
    })
}

/// Makes control characters visible, but for as many bytes as `passes` says of the text that begins with one.
fn escape(text: &str, passes: impl Fn(&str) -> usize) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let n = if c.is_control() { passes(rest) } else { c.len_utf8() };
        safe.push_str(&rest[..n]);
        if n == 0 {
            match c {
                '\n' => safe.push_str("\\n"),
                '\t' => safe.push_str("\\t"),
                '\r' => safe.push_str("\\r"),
                c => _ = write!(safe, "\\x{:02x}", u32::from(c)),
            }
        }
        rest = &rest[n.max(c.len_utf8())..];
    }
    Cow::Owned(safe)
}

/// Whether what a prune is about to remove may go: `--force`, or a yes to docker's question. `warning` says what that is.
///
/// # Errors
/// The terminal's.
pub fn agreed(parsed: &Parsed, warning: &str) -> Result<bool> {
    if parsed.switch("force") {
        return Ok(true);
    }
    confirm(&question(warning))
}

/// Docker's question.
pub fn question(warning: &str) -> String {
    format!("WARNING! This will remove{warning}\nAre you sure you want to continue?")
}

/// Asks on stdout and reads a line of stdin. Anything but yes is no.
fn confirm(question: &str) -> Result<bool> {
    let mut out = io::stdout();
    write!(out, "{question} [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_show_their_control_characters() {
        assert_eq!(visible("a\x1b[2Jb\nc\u{9b}"), "a\\x1b[2Jb\\nc\\x9b");
        assert!(matches!(visible("plain \u{e9}"), Cow::Borrowed(_)));
    }

    #[test]
    fn logs_keep_colours_only() {
        assert_eq!(printable("\x1b[1;31mred\x1b[0m\tx\r\n"), "\x1b[1;31mred\x1b[0m\tx\r\n");
        assert_eq!(printable("\x1b]0;title\x07"), "\\x1b]0;title\\x07");
        assert_eq!(printable("\x1b[2J\x1b[6n"), "\\x1b[2J\\x1b[6n");
        assert_eq!(printable("\x1b[1"), "\\x1b[1");
        assert_eq!(printable("\x1b"), "\\x1b");
    }
}
