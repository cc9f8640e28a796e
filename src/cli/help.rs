//! Help in docker's layout, made from the tables.

use std::fmt::Write as _;

use super::verb::{Flag, Listed, Takes, Verb};
use super::{GLOBAL, MANAGEMENT, verbs};

/// Columns that help is wrapped to when stdout is not a terminal, as docker does it.
const WIDTH: usize = 80;
/// The narrowest column of explanations; a smaller terminal gets longer lines.
const NARROWEST: usize = 24;

/// `wharf run [OPTIONS] IMAGE [COMMAND] [ARG...]`, for the verb as typed.
pub fn usage(verb: &Verb, spelling: &str) -> String {
    // Further lines are other forms of the same command, each with its own spelling.
    let form = |form: &str| format!("{spelling} {}", form.trim_start()).trim_end().to_owned();
    let forms: Vec<_> = verb.usage.lines().map(form).collect();
    forms.join("\n\t")
}

/// The help of one verb.
pub fn verb(verb: &Verb, spelling: &str) -> String {
    let mut text = format!("Usage:  {}\n\n{}\n", usage(verb, spelling), verb.about);
    if verb.names.len() > 1 {
        // Docker lists the management spellings first and the short one last.
        let names: Vec<_> =
            verb.names[1..].iter().chain(&verb.names[..1]).map(|name| format!("wharf {name}")).collect();
        let _ = write!(text, "\nAliases:\n  {}\n", names.join(", "));
    }
    for section in verb.sections {
        let _ = write!(text, "\n{}:\n{}", section.title, flags(section.flags));
    }
    text
}

/// The help of `wharf` itself.
pub fn top() -> String {
    let mut text =
        "Usage:  wharf [OPTIONS] COMMAND\n\nA daemonless container runtime for WebAssembly and Linux images\n"
            .to_owned();
    let short = |listed| verbs().filter(move |v| v.listed == listed && !v.names[0].contains(' '));
    commands(&mut text, "Common Commands", short(Listed::Common).map(|v| (v.names[0], v.about)).collect());
    let mut groups: Vec<_> = MANAGEMENT.to_vec();
    groups.retain(|(group, _)| members(group).next().is_some());
    commands(&mut text, "Management Commands", groups);
    let mut rest: Vec<_> = short(Listed::Other).map(|v| (v.names[0], v.about)).collect();
    rest.sort_unstable();
    commands(&mut text, "Commands", rest);
    let _ = write!(text, "\nGlobal Options:\n{}", flags(GLOBAL));
    text.push_str("\nRun 'wharf COMMAND --help' for more information on a command.\n");
    text
}

/// The help of a management group: `wharf container`.
pub fn group(group: &str, about: &str) -> String {
    let mut text = format!("Usage:  wharf {group} COMMAND\n\n{about}\n");
    let mut list: Vec<_> = members(group).collect();
    list.sort_unstable();
    commands(&mut text, "Commands", list);
    let _ = write!(text, "\nRun 'wharf {group} COMMAND --help' for more information on a command.\n");
    text
}

/// The verbs of a group: each one's first spelling in it, without the group's name.
pub fn members(group: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    verbs().filter(|verb| verb.listed != Listed::Hidden).filter_map(move |verb| {
        let name = verb.names.iter().find_map(|name| name.strip_prefix(group)?.strip_prefix(' '))?;
        Some((name, verb.about))
    })
}

fn commands(text: &mut String, title: &str, list: Vec<(&str, &str)>) {
    if list.is_empty() {
        return;
    }
    let width = list.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max(11);
    let _ = write!(text, "\n{title}:\n");
    for (name, about) in list {
        let _ = writeln!(text, "  {name:width$} {about}");
    }
}

/// Flags in two columns, sorted by name, explanations wrapped.
fn flags(flags: &[Flag]) -> String {
    let mut list: Vec<_> = flags.iter().filter(|flag| flag.supported).collect();
    list.sort_unstable_by_key(|flag| flag.long);
    let left: Vec<_> = list.iter().map(|flag| left(flag)).collect();
    let indent = left.iter().map(String::len).max().unwrap_or(0) + 3;
    let room = terminal_width().saturating_sub(indent).max(NARROWEST);
    let mut text = String::new();
    for (flag, left) in list.iter().zip(left) {
        let mut help = flag.help.to_owned();
        match (flag.takes, flag.default) {
            (_, None) => {}
            (Takes::Value("string"), Some(default)) => _ = write!(help, " (default \"{default}\")"),
            (_, Some(default)) => _ = write!(help, " (default {default})"),
        }
        for (n, line) in help.lines().flat_map(|line| wrap(line, room)).enumerate() {
            let left = if n == 0 { left.as_str() } else { "" };
            let _ = writeln!(text, "{left:indent$}{line}");
        }
    }
    text
}

fn left(flag: &Flag) -> String {
    let short = flag.short.map_or("   ".to_owned(), |c| format!("-{c},"));
    match flag.takes {
        Takes::Switch => format!("  {short} --{}", flag.long),
        Takes::Value(kind) | Takes::List(kind) => format!("  {short} --{} {kind}", flag.long),
    }
}

/// Breaks a line at spaces so that no part is wider than `room`, where words allow it.
fn wrap(line: &str, room: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = line;
    while rest.chars().count() > room {
        let limit = rest.char_indices().nth(room).map_or(rest.len(), |(at, _)| at);
        let Some(at) = rest[..limit].rfind(' ').filter(|at| !rest[..*at].trim().is_empty()) else { break };
        parts.push(rest[..at].trim_end());
        rest = rest[at..].trim_start();
    }
    parts.push(rest);
    parts
}

/// The terminal's columns when stdout is one, else [`WIDTH`].
fn terminal_width() -> usize {
    wharf_runtime::linux::terminal::stdout_size().map_or(WIDTH, |(_, columns)| usize::from(columns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_break_at_spaces() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("short", 8), ["short"]);
        assert_eq!(wrap("unbreakableword and", 8), ["unbreakableword and"]);
        assert_eq!(wrap("", 8), [""]);
    }
}
