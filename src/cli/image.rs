//! What is done to images that are here: `tag`, `rmi`, `history`, `image prune`.

use std::io::Write as _;

use jiff::Timestamp;
use wharf_images::store::{Filters, HistoryItem, Pruned, Removed};
use wharf_images::{Platform, Reference};
use wharf_runtime::engine::Engine;
use wharf_runtime::events::Kind;

use super::context::Context;
use super::failure::{Failure, Result, tell};
use super::images::UNKNOWN;
use super::listing::{Column, Listing};
use super::parse::Parsed;
use super::verb::{FORCE_PROMPT, FORMAT, FORMAT_OBJECT, Flag, Listed, NO_TRUNC, Operands, QUIET, Section, Verb};
use super::{container_prune, image_json, images, inspect, text, units};

/// `--platform` of an image that is here.
pub const PLATFORM: Flag = Flag::value("platform", "string", "Platform of the image (\"os/arch[/variant]\")");

/// The commands of this file.
pub static VERBS: &[Verb] = &[
    Verb {
        names: &["tag", "image tag"],
        about: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
        usage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
        listed: Listed::Other,
        operands: Operands::Exactly(2),
        trailing: false,
        sections: &[],
        run: tag,
    },
    Verb {
        names: &["rmi", "image rm", "image remove"],
        about: "Remove one or more images",
        usage: "[OPTIONS] IMAGE [IMAGE...]",
        listed: Listed::Other,
        operands: Operands::AtLeast(1),
        trailing: false,
        sections: &[Section {
            title: "Options",
            flags: &[
                Flag::switch("force", "Force removal of the image").short('f'),
                Flag::switch("no-prune", "Do not delete untagged parents"),
                Flag::value("platform", "string", "Remove only the given platform variant").not_yet(),
            ],
        }],
        run: remove,
    },
    Verb {
        names: &["history", "image history"],
        about: "Show the history of an image",
        usage: "[OPTIONS] IMAGE",
        listed: Listed::Other,
        operands: Operands::Exactly(1),
        trailing: false,
        sections: &[Section {
            title: "Options",
            flags: &[
                FORMAT,
                Flag::switch("human", "Print sizes and dates in human readable format").short('H').or("true"),
                NO_TRUNC,
                PLATFORM,
                QUIET,
            ],
        }],
        run: history,
    },
    Verb {
        names: &["image prune"],
        about: "Remove unused images",
        usage: "[OPTIONS]",
        listed: Listed::Other,
        operands: Operands::None,
        trailing: false,
        sections: &[Section {
            title: "Options",
            flags: &[
                Flag::switch("all", "Remove all unused images, not just dangling ones").short('a'),
                Flag::list("filter", "Provide filter values (e.g. \"until=<timestamp>\")").of("filter"),
                FORCE_PROMPT,
            ],
        }],
        run: prune,
    },
    Verb {
        names: &["image inspect"],
        about: "Display detailed information on one or more images",
        usage: "[OPTIONS] IMAGE [IMAGE...]",
        listed: Listed::Other,
        operands: Operands::AtLeast(1),
        trailing: false,
        sections: &[Section { title: "Options", flags: &[FORMAT_OBJECT, PLATFORM] }],
        run: |parsed, context| inspect_images(parsed, context, platform(parsed)?),
    },
];

/// A name that the client reads: what is wrong with it the engine does not say.
///
/// # Errors
/// Docker's words.
pub fn reference(name: &str) -> Result<Reference> {
    name.parse::<Reference>().map_err(|e| Failure::new(e.to_string()))
}

/// The value of `--platform`.
///
/// # Errors
/// That it is none.
pub fn platform(parsed: &Parsed) -> Result<Option<Platform>> {
    parsed.read("platform", |text| text.parse::<Platform>().map_err(|e| e.to_string()))
}

fn tag(parsed: &Parsed, context: &Context) -> Result<()> {
    let [source, target] = parsed.operands() else { return Ok(()) };
    let target: Reference = target
        .parse()
        .map_err(|e| Failure::new(format!("Error parsing reference: {target:?} is not a valid repository/tag: {e}")))?;
    Ok(context.engine()?.images()?.tag(source, &target)?)
}

fn remove(parsed: &Parsed, context: &Context) -> Result<()> {
    let engine = context.engine()?;
    let mut failed = false;
    for name in parsed.operands() {
        match engine.remove_image(name, parsed.switch("force")) {
            Ok(removed) => {
                let lines: String = removed.iter().map(|removed| format!("{removed}\n")).collect();
                std::io::stdout().write_all(lines.as_bytes())?;
            }
            // With --force docker is content when the image is not there.
            Err(e) if parsed.switch("force") && e.class() == wharf_images::Class::NotFound => {
                tell(&format!("Error: {e}\n"));
            }
            Err(e) => {
                tell(&Failure::from(e).text("", false));
                failed = true;
            }
        }
    }
    if failed { Err(Failure::Exit(1)) } else { Ok(()) }
}

fn prune(parsed: &Parsed, context: &Context) -> Result<()> {
    let filters = images::filters(parsed)?;
    let all = parsed.switch("all") || filters.dangling == Some(false);
    let what = match all {
        true => "all images without at least one container associated to them",
        false => "all dangling images",
    };
    if !text::agreed(parsed, &format!(" {what}."))? {
        return Ok(());
    }
    let pruned = remove_unused(&context.engine()?, all, &filters)?;
    let mut out = removed_text(&pruned.removed);
    out.push_str(&format!("Total reclaimed space: {}\n", units::sum(pruned.reclaimed)));
    Ok(std::io::stdout().write_all(out.as_bytes())?)
}

/// Removes the images that nobody needs and that fit, dangling ones or all, and tells so.
///
/// # Errors
/// The engine's.
pub fn remove_unused(engine: &Engine, all: bool, filters: &Filters) -> Result<Pruned> {
    let pruned = engine.prune_images(all, filters)?;
    container_prune::told(engine, Kind::Image, pruned.reclaimed)?;
    Ok(pruned)
}

/// The list of what a prune removed, and a line after it; nothing when there was nothing.
pub fn removed_text(all: &[Removed]) -> String {
    if all.is_empty() {
        return String::new();
    }
    let line = |removed: &Removed| match removed {
        Removed::Untagged(name) => format!("untagged: {name}\n"),
        Removed::Deleted(id) => format!("deleted: {id}\n"),
    };
    format!("Deleted Images:\n{}\n", all.iter().map(line).collect::<String>())
}

/// The objects of images, and of nothing else.
///
/// # Errors
/// As [`inspect::show`].
pub fn inspect_images(parsed: &Parsed, context: &Context, platform: Option<Platform>) -> Result<()> {
    inspect::show(parsed, |name| {
        let engine = context.engine()?;
        let images = engine.images()?;
        Ok(Some(image_json::image(images, &images.resolve(name, platform.as_ref())?)?))
    })
}

/// Characters of a step in the table.
const STEP: usize = 45;

/// One step of a history.
struct Row {
    step: HistoryItem,
    now: Timestamp,
    no_trunc: bool,
    human: bool,
}

static HISTORY: Listing<Row> = Listing {
    columns: &[
        Column { field: "ID", header: "IMAGE", text: Row::id },
        Column { field: "CreatedSince", header: "CREATED", text: Row::since },
        Column { field: "CreatedAt", header: "CREATED AT", text: Row::created_at },
        Column { field: "CreatedBy", header: "CREATED BY", text: Row::created_by },
        Column { field: "Size", header: "SIZE", text: Row::size },
        Column { field: "Comment", header: "COMMENT", text: |row| text::visible(&row.step.comment).into_owned() },
    ],
    kind: "*image.historyContext",
    labels: |_| None,
};

impl Row {
    fn id(&self) -> String {
        match &self.step.id {
            None => "<missing>".to_owned(),
            Some(id) if self.no_trunc => id.to_string(),
            Some(id) => id.short().to_owned(),
        }
    }

    fn since(&self) -> String {
        match self.created() {
            Some(at) if self.human => units::ago(at, self.now),
            Some(at) => units::rfc3339(at),
            None => UNKNOWN.to_owned(),
        }
    }

    fn created_at(&self) -> String {
        self.created().map_or_else(|| UNKNOWN.to_owned(), units::rfc3339)
    }

    /// When the step was made. Docker takes the epoch and all before it for "not known", for builds that are to be
    /// reproduced write that.
    fn created(&self) -> Option<Timestamp> {
        self.step.created.as_deref()?.parse().ok().filter(|at: &Timestamp| at.as_second() > 0)
    }

    /// The step on one line; an image can have put anything there.
    fn created_by(&self) -> String {
        let line = self.step.created_by.replace(['\t', '\n'], " ");
        let line = text::visible(&line).into_owned();
        if self.no_trunc || line.chars().count() <= STEP {
            return line;
        }
        line.chars().take(STEP - 1).chain(['\u{2026}']).collect()
    }

    fn size(&self) -> String {
        if self.human { units::size(self.step.size) } else { self.step.size.to_string() }
    }
}

fn history(parsed: &Parsed, context: &Context) -> Result<()> {
    let engine = context.engine()?;
    let images = engine.images()?;
    let image = images.resolve(&parsed.operands()[0], platform(parsed)?.as_ref())?;
    let (now, no_trunc, human) = (Timestamp::now(), parsed.switch("no-trunc"), parsed.switch("human"));
    let steps = images.history(&image)?.into_iter();
    let rows: Vec<Row> = steps.map(|step| Row { step, now, no_trunc, human }).collect();
    let created = if human { "CreatedSince" } else { "CreatedAt" };
    HISTORY.print(parsed, &rows, &["ID", created, "CreatedBy", "Size", "Comment"])
}
