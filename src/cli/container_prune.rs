//! `container prune`: removes the containers that do not run
//! (<https://docs.docker.com/reference/cli/docker/container/prune/>).

use std::collections::BTreeMap;
use std::io::Write as _;

use jiff::Timestamp;
use wharf_runtime::engine::{Engine, ListOptions, RemoveOptions};
use wharf_runtime::error::Class;
use wharf_runtime::events::{Kind, NewEvent};

use super::context::Context;
use super::failure::{Failure, Result};
use super::filter::has_label;
use super::parse::Parsed;
use super::verb::{FORCE_PROMPT, Flag, Listed, Operands, Section, Verb};
use super::{text, units, values};

/// The command of this file.
pub static VERBS: &[Verb] = &[Verb {
    names: &["container prune"],
    about: "Remove all stopped containers",
    usage: "[OPTIONS]",
    listed: Listed::Other,
    operands: Operands::None,
    trailing: false,
    sections: &[Section {
        title: "Options",
        flags: &[Flag::list("filter", "Provide filter values (e.g. \"until=<timestamp>\")").of("filter"), FORCE_PROMPT],
    }],
    run: prune,
}];

/// Which containers go, or networks.
#[derive(Debug, Default)]
pub struct Filters {
    until: Option<Timestamp>,
    labels: Vec<String>,
    not_labels: Vec<String>,
}

impl Filters {
    /// Reads `until=`, `label=` and `label!=`.
    ///
    /// # Errors
    /// Docker's words.
    pub fn new(filters: Vec<(String, String)>, now: Timestamp) -> Result<Self> {
        let mut read = Filters::default();
        for (name, value) in filters {
            match name.as_str() {
                "label" => read.labels.push(value),
                "label!" => read.not_labels.push(value),
                "until" if read.until.is_some() => {
                    return Err(Failure::new("more than one until filter specified"));
                }
                "until" => read.until = Some(units::parse_moment(&value, now).map_err(Failure::new)?),
                _ => return Err(Failure::new(format!("Error: invalid filter '{name}'"))),
            }
        }
        Ok(read)
    }

    /// Whether something that was made then and has these labels goes.
    pub fn fit(&self, created: Timestamp, labels: &BTreeMap<String, String>) -> bool {
        self.until.is_none_or(|until| created < until)
            && self.labels.iter().all(|label| has_label(labels, label))
            && !self.not_labels.iter().any(|label| has_label(labels, label))
    }
}

/// Removes what does not run and fits, and tells so. Gives the ids, and the bytes that were freed.
///
/// # Errors
/// The engine's.
pub fn containers(engine: &Engine, filters: &Filters) -> Result<(Vec<String>, u64)> {
    let (mut removed, mut freed) = (Vec::new(), 0);
    for container in engine.list(ListOptions { all: true })? {
        if container.state.state.is_live() || !filters.fit(container.created, &container.labels()) {
            continue;
        }
        let size = engine.size(&container.id)?;
        match engine.remove(&container.id, RemoveOptions::default()) {
            Ok(()) => {
                removed.push(container.id);
                freed += size;
            }
            // Somebody else removed or started it in this moment.
            Err(e) if matches!(e.class(), Class::NotFound | Class::Conflict) => {}
            Err(e) => return Err(e.into()),
        }
    }
    told(engine, Kind::Container, freed)?;
    Ok((removed, freed))
}

/// Tells that things of a kind were pruned, and how many bytes that has freed.
///
/// # Errors
/// The database's.
pub fn told(engine: &Engine, kind: Kind, freed: u64) -> Result<()> {
    Ok(engine.tell(&NewEvent::new(kind, "prune", "").with("reclaimed", freed.to_string()))?)
}

fn prune(parsed: &Parsed, context: &Context) -> Result<()> {
    let filters = Filters::new(values::filters(parsed)?, Timestamp::now())?;
    if !text::agreed(parsed, " all stopped containers.")? {
        return Ok(());
    }
    let engine = context.engine()?;
    let (removed, freed) = containers(&engine, &filters)?;
    let mut out = std::io::stdout();
    if !removed.is_empty() {
        writeln!(out, "Deleted Containers:\n{}\n", removed.join("\n"))?;
    }
    Ok(writeln!(out, "Total reclaimed space: {}", units::sum(freed))?)
}
