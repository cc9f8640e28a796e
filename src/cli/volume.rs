//! `volume`: the volumes of an instance, with docker's words
//! (<https://docs.docker.com/reference/cli/docker/volume/>), and their content as archives.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};

use serde_json::{Value, json};
use wharf_runtime::engine::Engine;
use wharf_runtime::error::Class;
use wharf_runtime::events::Kind;
use wharf_runtime::volume::{Volume, VolumeSpec};

use super::archive::{self, Partial};
use super::context::Context;
use super::failure::{Failure, Result};
use super::filter::{has_label, matches};
use super::go::Object;
use super::go_types;
use super::images::UNKNOWN;
use super::lifecycle::for_each;
use super::listing::{Column, Listing, natural};
use super::parse::{Parsed, parse_bool};
use super::verb::{FILTER, FORCE_PROMPT, FORMAT, FORMAT_OBJECT, Flag, Listed, Operands, Section, Verb};
use super::{container_prune, inspect, ps, text, units, values};

/// The commands of this file.
pub static VERBS: &[Verb] = &[
    Verb {
        names: &["volume create"],
        about: "Create a volume",
        usage: "[OPTIONS] [VOLUME]",
        listed: Listed::Other,
        operands: Operands::AtMost(1),
        trailing: false,
        sections: &[Section {
            title: "Options",
            flags: &[
                Flag::value("driver", "string", "Specify volume driver name").short('d').or("local"),
                Flag::list("label", "Set metadata for a volume"),
                Flag::value("name", "string", "Specify volume name"),
                Flag::list("opt", "Set driver specific options (type, o, device)").short('o').of("map"),
            ],
        }],
        run: create,
    },
    Verb {
        names: &["volume ls", "volume list"],
        about: "List volumes",
        usage: "[OPTIONS]",
        listed: Listed::Other,
        operands: Operands::None,
        trailing: false,
        sections: &[Section {
            title: "Options",
            flags: &[FILTER, FORMAT, Flag::switch("quiet", "Only display volume names").short('q')],
        }],
        run: list,
    },
    Verb {
        names: &["volume inspect"],
        about: "Display detailed information on one or more volumes",
        usage: "[OPTIONS] VOLUME [VOLUME...]",
        listed: Listed::Other,
        operands: Operands::AtLeast(1),
        trailing: false,
        sections: &[Section { title: "Options", flags: &[FORMAT_OBJECT] }],
        run: inspect_volumes,
    },
    Verb {
        names: &["volume rm", "volume remove"],
        about: "Remove one or more volumes",
        usage: "[OPTIONS] VOLUME [VOLUME...]",
        listed: Listed::Other,
        operands: Operands::AtLeast(1),
        trailing: false,
        sections: &[Section {
            title: "Options",
            flags: &[Flag::switch("force", "Force the removal of one or more volumes").short('f')],
        }],
        run: |parsed, context| {
            let engine = context.engine()?;
            for_each(parsed.operands(), |name| {
                values::not_empty("volume", name)?;
                engine.volumes().remove(name, parsed.switch("force"))?;
                Ok(writeln!(io::stdout(), "{name}")?)
            })
        },
    },
    Verb {
        names: &["volume prune"],
        about: "Remove unused local volumes",
        usage: "[OPTIONS]",
        listed: Listed::Other,
        operands: Operands::None,
        trailing: false,
        sections: &[Section {
            title: "Options",
            flags: &[
                Flag::switch("all", "Remove all unused volumes, not just anonymous ones").short('a'),
                Flag::list("filter", "Provide filter values (e.g. \"label=<label>\")").of("filter"),
                FORCE_PROMPT,
            ],
        }],
        run: prune,
    },
    Verb {
        names: &["volume export"],
        about: "Export the content of a volume as a tar archive (streamed to STDOUT by default)",
        usage: "[OPTIONS] VOLUME",
        listed: Listed::Other,
        operands: Operands::Exactly(1),
        trailing: false,
        sections: &[Section {
            title: "Options",
            flags: &[Flag::value("output", "string", "Write to a file, instead of STDOUT").short('o')],
        }],
        run: export,
    },
    Verb {
        names: &["volume import"],
        about: "Fill an empty volume (made if it is not there) from a tar archive or STDIN",
        usage: "VOLUME [FILE|-]",
        listed: Listed::Other,
        operands: Operands::AtLeast(1),
        trailing: false,
        sections: &[],
        run: import,
    },
];

/// `volume inspect`, and `inspect --type volume`.
///
/// # Errors
/// As [`inspect::show`].
pub fn inspect_volumes(parsed: &Parsed, context: &Context) -> Result<()> {
    let engine = context.engine()?;
    inspect::show(parsed, |name| {
        values::not_empty("volume", name)?;
        Ok(Some(json(&engine, &engine.volumes().get(name)?)))
    })
}

fn create(parsed: &Parsed, context: &Context) -> Result<()> {
    let name = match (parsed.value("name").unwrap_or_default(), parsed.operands().first()) {
        ("", operand) => operand.map_or("", String::as_str),
        (name, None) => name,
        (name, Some(operand)) if name == operand => name,
        _ => {
            return Err(Failure::new(
                "conflicting options: cannot specify a volume-name through both --name and as a positional arg",
            ));
        }
    };
    let spec = VolumeSpec {
        name: name.to_owned(),
        driver: parsed.value("driver").unwrap_or_default().to_owned(),
        options: values::map(parsed.read_all("opt", values::driver_option)?),
        labels: values::map(parsed.read_all("label", values::label)?),
    };
    let volume = context.engine()?.volumes().create(&spec)?;
    Ok(writeln!(io::stdout(), "{}", volume.name)?)
}

/// A volume as tables show it.
struct Row {
    volume: Volume,
    mountpoint: String,
}

static LISTING: Listing<Row> = Listing {
    columns: &[
        Column { field: "Name", header: "VOLUME NAME", text: |row| row.volume.name.clone() },
        Column { field: "Driver", header: "DRIVER", text: |row| row.volume.driver.clone() },
        Column { field: "Scope", header: "SCOPE", text: |_| "local".to_owned() },
        Column { field: "Mountpoint", header: "MOUNTPOINT", text: |row| row.mountpoint.clone() },
        Column { field: "Labels", header: "LABELS", text: |row| ps::comma(&row.volume.labels) },
        // What `system df -v` shows,
        Column { field: "Links", header: "LINKS", text: |_| UNKNOWN.to_owned() },
        Column { field: "Size", header: "SIZE", text: |_| UNKNOWN.to_owned() },
        // and what docker shows of volumes of a swarm.
        Column { field: "Availability", header: "AVAILABILITY", text: |_| UNKNOWN.to_owned() },
        Column { field: "Group", header: "GROUP", text: |_| UNKNOWN.to_owned() },
        Column { field: "Status", header: "STATUS", text: |_| UNKNOWN.to_owned() },
    ],
    kind: "*formatter.volumeContext",
    labels: |row| Some(&row.volume.labels),
};

fn list(parsed: &Parsed, context: &Context) -> Result<()> {
    let filters = Filters::new(parsed, &["dangling", "driver", "label", "name"])?;
    let engine = context.engine()?;
    let mut rows = Vec::new();
    for (volume, users) in with_users(&engine)? {
        if filters.fit(&volume, users) {
            rows.push(Row { mountpoint: engine.volumes().mountpoint(&volume.name).display().to_string(), volume });
        }
    }
    rows.sort_by(|a, b| natural(&a.volume.name, &b.volume.name));
    LISTING.print(parsed, &rows, &["Driver", "Name"])
}

/// The volumes, and how many containers refer to each.
///
/// # Errors
/// The engine's.
pub fn with_users(engine: &Engine) -> Result<Vec<(Volume, usize)>> {
    let users = engine.volumes().users()?;
    let volumes = engine.volumes().list()?.into_iter();
    Ok(volumes
        .map(|volume| {
            let count = users.get(&volume.name).map_or(0, Vec::len);
            (volume, count)
        })
        .collect())
}

/// The filters of one command line, their names checked.
pub struct Filters(Vec<(String, String)>);

impl Filters {
    fn new(parsed: &Parsed, names: &[&str]) -> Result<Self> {
        Filters::of(parsed.read_all("filter", values::filter)?, names)
    }

    /// These filters, of which only some names are known.
    ///
    /// # Errors
    /// Docker's words.
    pub fn of(filters: Vec<(String, String)>, names: &[&str]) -> Result<Self> {
        for (name, value) in &filters {
            if !names.contains(&name.as_str()) {
                return Err(Failure::new(format!("Error: invalid filter '{name}'")));
            }
            if matches!(name.as_str(), "dangling" | "all") && parse_bool(value).is_none() {
                return Err(Failure::new(format!("Error: invalid filter '{name}=[{value}]'")));
            }
        }
        Ok(Filters(filters))
    }

    /// Values of one name are alternatives, but all labels must fit; different names must all fit.
    fn fit(&self, volume: &Volume, users: usize) -> bool {
        let any = |name: &str, test: &dyn Fn(&str) -> bool| {
            let mut values = self.values(name).peekable();
            values.peek().is_none() || values.any(test)
        };
        let has = |label: &str| has_label(&volume.labels, label);
        any("name", &|pattern| matches(pattern, &volume.name))
            && any("driver", &|driver| volume.driver == driver)
            && any("dangling", &|value| parse_bool(value) == Some(users == 0))
            && self.values("label").all(has)
            && !self.values("label!").any(has)
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// The object of the volume with this name, if there is one.
///
/// # Errors
/// The engine's.
pub fn object(context: &Context, name: &str) -> Result<Option<Object>> {
    let engine = context.engine()?;
    match engine.volumes().get(name) {
        Ok(volume) => Ok(Some(json(&engine, &volume))),
        Err(e) if e.class() == Class::NotFound => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn json(engine: &Engine, volume: &Volume) -> Object {
    let null_or = |map: &BTreeMap<String, String>| if map.is_empty() { Value::Null } else { json!(map) };
    let json = json!({
        "CreatedAt": volume.created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "Driver": volume.driver,
        "Labels": null_or(&volume.labels),
        "Mountpoint": engine.volumes().mountpoint(&volume.name).display().to_string(),
        "Name": volume.name,
        "Options": null_or(&volume.options),
        "Scope": "local",
    });
    Object { json, fields: go_types::VOLUME }
}

fn prune(parsed: &Parsed, context: &Context) -> Result<()> {
    let filters = Filters::new(parsed, &["all", "label", "label!"])?;
    let all = parsed.switch("all") || filters.values("all").any(|value| parse_bool(value) == Some(true));
    let which = if all { "all local volumes" } else { "anonymous local volumes" };
    if !text::agreed(parsed, &format!(" {which} not used by at least one container."))? {
        return Ok(());
    }
    let (removed, freed) = remove_unused(&context.engine()?, all, &filters)?;
    let mut out = io::stdout();
    if !removed.is_empty() {
        writeln!(out, "Deleted Volumes:\n{}\n", removed.join("\n"))?;
    }
    Ok(writeln!(out, "Total reclaimed space: {}", units::sum(freed))?)
}

/// Removes the volumes that no container uses and that fit, the anonymous ones or all, and tells so. Gives their names, and the bytes
/// that were freed.
///
/// # Errors
/// The engine's.
pub fn remove_unused(engine: &Engine, all: bool, filters: &Filters) -> Result<(Vec<String>, u64)> {
    let (mut removed, mut freed) = (Vec::new(), 0);
    for (volume, users) in with_users(engine)? {
        if users > 0 || !(all || volume.is_anonymous()) || !filters.fit(&volume, users) {
            continue;
        }
        let size = engine.volumes().size(&volume.name)?;
        match engine.volumes().remove(&volume.name, true) {
            // A container has come to use it meanwhile.
            Err(e) if e.class() == Class::Conflict => continue,
            other => other?,
        }
        removed.push(volume.name);
        freed += size;
    }
    container_prune::told(engine, Kind::Volume, freed)?;
    Ok((removed, freed))
}

fn export(parsed: &Parsed, context: &Context) -> Result<()> {
    let name = &parsed.operands()[0];
    let engine = context.engine()?;
    match parsed.value("output").filter(|path| *path != "-") {
        Some(path) => {
            // Not before it is known that there is something to write.
            engine.volumes().get(name)?;
            let (partial, mut file) = Partial::create(path, "export volume")?;
            engine.volumes().export(name, &mut file)?;
            partial.finish()
        }
        None if io::stdout().is_terminal() => {
            Err(Failure::new("cowardly refusing to save to a terminal").hint("Use the -o flag or redirect"))
        }
        None => Ok(engine.volumes().export(name, &mut io::BufWriter::new(io::stdout().lock()))?),
    }
}

fn import(parsed: &Parsed, context: &Context) -> Result<()> {
    let engine = context.engine()?;
    let volumes = engine.volumes();
    let (name, path) = match parsed.operands() {
        [name] => (name, None),
        [name, path] => (name, Some(path.as_str())),
        _ => return Err(Failure::new("a volume and at most one archive can be named")),
    };
    if matches!(path, None | Some("-")) && io::stdin().is_terminal() {
        return Err(
            Failure::new("cowardly refusing to read an archive from a terminal").hint("Name a file or redirect")
        );
    }
    let volume = volumes.import(name, &mut *archive::source(path)?)?;
    Ok(writeln!(io::stdout(), "{}", volume.name)?)
}
