//! The capability view as text: what a WebAssembly program is, what it imports, what it would get.

use std::fmt::Write as _;

use wharf_runtime::backend::wasm::capabilities::{Grant, Group, Import, Role, View};

use super::table;
use super::text::visible;

/// The whole view. Names come from the file: no control character reaches the terminal.
pub fn text(view: &View) -> String {
    let mut text = String::new();
    let role = match view.role {
        Role::Command => "runs",
        Role::Server => "serves HTTP",
        Role::Library => "a library: it has no entry of its own",
    };
    let entry = view.entry.as_ref().map(|entry| format!(" ({})", visible(entry))).unwrap_or_default();
    let _ = writeln!(text, "Kind:      {}, {role}{entry}", kind(view));
    let exports = if view.exports.is_empty() { "nothing".to_owned() } else { view.exports.join(", ") };
    let _ = writeln!(text, "Exports:   {}", visible(&exports));
    let can = if view.runs { "yes" } else { "no" };
    let _ = writeln!(text, "Runs here: {can}{}", view.why.as_ref().map(|w| format!(": {w}")).unwrap_or_default());
    if let Some(hint) = &view.hint {
        let _ = writeln!(text, "           {hint}");
    }
    imports(&mut text, view);
    let list = |grants: fn(&Grant) -> &[String]| {
        let rows = view.grants.iter().flat_map(move |grant| {
            grants(grant).iter().map(|what| vec![format!("  {}", name(grant.group)), what.clone()])
        });
        rows.collect::<Vec<_>>()
    };
    section(&mut text, "Granted:", list(|grant| &grant.granted));
    section(&mut text, "Refused:", list(|grant| &grant.refused));
    section(&mut text, "Given in vain:", view.unused.iter().map(|what| vec![format!("  {what}")]).collect());
    text
}

fn kind(view: &View) -> &'static str {
    match view.kind {
        "module" => "module (WASI preview 1)",
        other => other,
    }
}

fn imports(text: &mut String, view: &View) {
    let mut groups: Vec<Group> = view.imports.iter().map(|import| import.group).collect();
    groups.sort_unstable();
    groups.dedup();
    let rows = groups.into_iter().map(|group| {
        let names: Vec<_> = view.imports.iter().filter(|i| i.group == group).map(short).collect();
        vec![format!("  {}", name(group)), names.join(", ")]
    });
    section(text, "Imports:", rows.collect());
    let missing = view.imports.iter().filter_map(|i| Some(vec![format!("  {}", i.name), i.hint?.to_owned()]));
    section(text, "Missing:", missing.collect());
}

/// The group says the module of preview 1 and WASI's packages; what is unknown keeps its whole name.
fn short(import: &Import) -> &str {
    let name = import.name.as_str();
    if import.group == Group::Unknown {
        return name;
    }
    let name = name.strip_prefix("wasi_snapshot_preview1.").unwrap_or(name);
    name.split_once('/').map_or(name, |(_, interface)| interface)
}

fn section(text: &mut String, title: &str, rows: Vec<Vec<String>>) {
    if !rows.is_empty() {
        let _ = write!(text, "\n{title}\n{}", table::layout(&rows));
    }
}

fn name(group: Group) -> &'static str {
    match group {
        Group::Cli => "cli",
        Group::Clocks => "clocks",
        Group::Filesystem => "filesystem",
        Group::Http => "http",
        Group::Io => "io",
        Group::Random => "random",
        Group::Sockets => "sockets",
        Group::Unknown => "unknown",
    }
}
