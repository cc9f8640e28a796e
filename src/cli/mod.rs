//! The command line: it parses, calls the engine, and prints. It decides nothing that an embedder or the API would
//! have to decide too.
//!
//! To add a command: write a [`verb::Verb`] in the file of its group and list that file's `VERBS` in [`TABLE`].
//! Parsing, help, completion and "did you mean" follow from the table.

mod archive;
mod boot;
mod capabilities;
mod complete;
mod container_config;
mod container_flags;
mod container_json;
mod container_prune;
mod context;
mod cp;
mod disk;
mod events;
mod failure;
mod files;
mod filter;
mod go;
mod go_types;
mod help;
mod host;
mod image;
mod image_json;
mod image_tree;
mod images;
mod inspect;
mod lifecycle;
mod listing;
mod login;
mod logs;
mod mount_json;
mod mounts;
mod network;
mod parse;
mod ports;
mod progress;
mod ps;
mod pull;
mod push;
mod run;
mod search;
mod session;
mod stats;
mod suggest;
mod system;
mod system_prune;
mod table;
mod template;
mod text;
mod top;
mod units;
mod update;
mod values;
mod verb;
mod volume;
mod wasm;

use std::io::Write as _;
use std::path::PathBuf;

use context::Context;
use failure::{Failure, Result};
use parse::{Parsed, Request};
use verb::{Flag, Verb};

/// Every command.
static TABLE: &[&[Verb]] = &[
    run::VERBS,
    ps::VERBS,
    lifecycle::VERBS,
    update::VERBS,
    logs::VERBS,
    top::VERBS,
    ports::VERBS,
    files::VERBS,
    cp::VERBS,
    stats::VERBS,
    pull::VERBS,
    push::VERBS,
    login::VERBS,
    search::VERBS,
    inspect::VERBS,
    images::VERBS,
    image::VERBS,
    archive::VERBS,
    system::VERBS,
    network::VERBS,
    boot::VERBS,
    system_prune::VERBS,
    volume::VERBS,
    events::VERBS,
    disk::VERBS,
    container_prune::VERBS,
    wasm::VERBS,
    complete::VERBS,
];

/// The management groups: `wharf container ls`.
static MANAGEMENT: &[(&str, &str)] = &[
    ("container", "Manage containers"),
    ("image", "Manage images"),
    ("network", "Manage networks"),
    ("system", "Manage Wharf"),
    ("volume", "Manage volumes"),
    ("wasm", "Work with WebAssembly modules"),
];

/// The flags before the verb.
static GLOBAL: &[Flag] = &[
    Flag::value("config", "string", "Location of client config files (default \"~/.docker\")"),
    Flag::switch("debug", "Enable debug mode").short('D'),
    Flag::value("host", "list", "").short('H').not_yet(),
    Flag::value("context", "string", "").short('c').or("default").not_yet(),
    Flag::value("log-level", "string", "Set the logging level (\"debug\", \"info\", \"warn\", \"error\", \"fatal\")")
        .short('l')
        .or("info"),
    Flag::value("root", "string", "Directory of images, containers and state; isolates an instance (env WHARF_ROOT)"),
    Flag::switch("version", "Print version information and quit").short('v'),
];

/// All verbs, in the order of the table.
fn verbs() -> impl Iterator<Item = &'static Verb> {
    TABLE.iter().flat_map(|group| group.iter())
}

/// Runs the command line of this process. Gives the code to exit with.
pub fn main() -> u8 {
    let mut args = Vec::new();
    for arg in std::env::args_os().skip(1) {
        match arg.into_string() {
            Ok(arg) => args.push(arg),
            Err(arg) => {
                let failure = Failure::new(format!("argument {} is not valid UTF-8", arg.display()));
                return finish(&failure, "wharf", false);
            }
        }
    }
    run(args)
}

fn run(args: Vec<String>) -> u8 {
    let mut args = args.into_iter().peekable();
    let mut context = Context::default();
    let (verb, name) = match find(&mut args, &mut context) {
        Ok(Found::Verb(verb, name)) => (verb, name),
        Ok(Found::Text(text)) => return print(&text),
        Ok(Found::Bare(text)) => {
            failure::tell(&text);
            return 0;
        }
        Err(failure) => return finish(&failure, "wharf", false),
    };
    let runs = matches!(verb.names[0], "run" | "wasm run");
    let spelling = format!("wharf {name}");
    let outcome = match Parsed::parse(verb, &name, args) {
        Ok(Request::Help) => return print(&help::verb(verb, &spelling)),
        Ok(Request::Run(parsed)) => (verb.run)(&parsed, &context),
        Err(failure) => Err(failure),
    };
    match outcome {
        Ok(()) => 0,
        Err(failure) => finish(&failure, &spelling, runs),
    }
}

/// Says why, and with which code.
fn finish(failure: &Failure, spelling: &str, runs: bool) -> u8 {
    failure::tell(&failure.text(spelling, runs));
    failure.code(runs)
}

fn print(text: &str) -> u8 {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => 0,
        Err(e) => finish(&e.into(), "wharf", false),
    }
}

/// What the words up to the verb ask for.
enum Found {
    /// This verb, spelled like this.
    Verb(&'static Verb, String),
    /// Nothing but this text on stdout.
    Text(String),
    /// Nothing is asked for: docker says what there is on stderr, where no script takes it for an answer.
    Bare(String),
}

/// Reads global flags and finds the verb.
fn find(args: &mut impl Iterator<Item = String>, context: &mut Context) -> Result<Found> {
    while let Some(arg) = args.next() {
        if !arg.starts_with('-') {
            return lookup(arg, args);
        }
        if let Some(found) = global(&arg, args, context)? {
            return Ok(found);
        }
    }
    Ok(Found::Bare(help::top()))
}

/// Takes one global flag.
fn global(arg: &str, args: &mut impl Iterator<Item = String>, context: &mut Context) -> Result<Option<Found>> {
    let (name, value) = match arg.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (arg, None),
    };
    if matches!(name, "-h" | "--help") {
        return Ok(Some(Found::Text(help::top())));
    }
    let flag = GLOBAL.iter().find(|flag| {
        name.strip_prefix("--").is_some_and(|long| long == flag.long)
            || flag.short.is_some_and(|c| name.strip_prefix('-').is_some_and(|short| short.chars().eq([c])))
    });
    let Some(flag) = flag else {
        let what = if name.starts_with("--") { "flag" } else { "shorthand flag" };
        return Err(usage_error(&format!("unknown {what}: {name}")));
    };
    let mut take = || match value.clone().or_else(|| args.next()) {
        Some(value) => Ok(value),
        None => Err(usage_error(&format!("flag needs an argument: {name}"))),
    };
    match flag.long {
        "debug" => context.debug = value.as_deref() != Some("false"),
        "version" => return Ok(Some(Found::Text(format!("{}\n", version_line())))),
        "root" => context.root = Some(PathBuf::from(take()?)),
        "config" => context.config = Some(PathBuf::from(take()?)),
        "log-level" => context.debug |= take()? == "debug",
        "context" if take()? == "default" => {}
        _ => {
            return Err(usage_error(&format!("{} is not supported: there is no daemon to connect to", flag.display())));
        }
    }
    Ok(None)
}

/// Finds the verb of one word, or of a management group and one more.
fn lookup(word: String, args: &mut impl Iterator<Item = String>) -> Result<Found> {
    if word == "help" {
        return match args.next() {
            None => Ok(Found::Text(help::top())),
            Some(topic) => match lookup(topic.clone(), args) {
                Ok(Found::Verb(verb, name)) => Ok(Found::Text(help::verb(verb, &format!("wharf {name}")))),
                Ok(Found::Text(text) | Found::Bare(text)) => Ok(Found::Text(text)),
                Err(_) => Err(Failure::Usage { text: format!("unknown help topic: {topic}\n"), code: 1 }),
            },
        };
    }
    let Some((group, about)) = MANAGEMENT.iter().find(|(group, _)| *group == word) else {
        return match verbs().find(|verb| verb.names.contains(&word.as_str())) {
            Some(verb) => Ok(Found::Verb(verb, word)),
            None => Err(unknown_command(&word, "")),
        };
    };
    match args.next() {
        None => Ok(Found::Bare(help::group(group, about))),
        Some(sub) if matches!(sub.as_str(), "--help" | "-h" | "help") => Ok(Found::Text(help::group(group, about))),
        Some(sub) => {
            let name = format!("{group} {sub}");
            match verbs().find(|verb| verb.names.contains(&name.as_str())) {
                Some(verb) => Ok(Found::Verb(verb, name)),
                None => Err(unknown_command(&sub, group)),
            }
        }
    }
}

fn unknown_command(word: &str, group: &str) -> Failure {
    let spelling = if group.is_empty() { "wharf".to_owned() } else { format!("wharf {group}") };
    let mut text = format!("wharf: unknown command: {spelling} {word}\n");
    if let Some(meant) = suggest::nearest(word, candidates(group)) {
        text.push_str(&format!("\nDid you mean: {meant}\n"));
    }
    if !group.is_empty() {
        text.push_str(&format!("\nUsage:  {spelling}\n"));
    }
    text.push_str(&format!("\nRun '{spelling} --help' for more information\n"));
    Failure::Usage { text, code: 1 }
}

/// The words that could have stood where an unknown one does.
fn candidates(group: &str) -> Vec<&'static str> {
    if group.is_empty() {
        let groups = MANAGEMENT.iter().map(|(group, _)| *group);
        let names = verbs().flat_map(|verb| verb.names).copied().filter(|name| !name.contains(' '));
        return groups.chain(names).collect();
    }
    verbs().flat_map(|verb| verb.names).filter_map(|name| name.strip_prefix(group)?.strip_prefix(' ')).collect()
}

fn usage_error(message: &str) -> Failure {
    let text =
        format!("{message}\n\nUsage:  wharf [OPTIONS] COMMAND [ARG...]\n\nRun 'wharf --help' for more information\n");
    Failure::Usage { text, code: 125 }
}

/// `Wharf version 0.1.0`.
fn version_line() -> String {
    format!("Wharf version {}", env!("CARGO_PKG_VERSION"))
}
