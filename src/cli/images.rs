//! `images`: what is here, in docker's columns.

use std::collections::BTreeMap;

use jiff::Timestamp;
use wharf_images::store::{Filters, Summary};
use wharf_images::{Image, Reference};

use super::context::Context;
use super::failure::Result;
use super::listing::{Column, Listing};
use super::parse::Parsed;
use super::verb::{FILTER, FORMAT, Flag, Listed, NO_TRUNC, Operands, QUIET, Section, Verb};
use super::{image_tree, units, values};

/// The command of this file.
pub static VERBS: &[Verb] = &[Verb {
    names: &["images", "image ls", "image list"],
    about: "List images",
    usage: "[OPTIONS] [REPOSITORY[:TAG]]",
    listed: Listed::Common,
    operands: Operands::AtMost(1),
    trailing: false,
    sections: &[Section {
        title: "Options",
        flags: &[
            Flag::switch("all", "Show all images (default hides intermediate images)").short('a'),
            Flag::switch("digests", "Show digests"),
            FILTER,
            FORMAT,
            NO_TRUNC,
            QUIET,
            Flag::switch("tree", "List multi-platform images as a tree"),
        ],
    }],
    run: images,
}];

/// What stands where there is nothing to say.
pub const NONE: &str = "<none>";
/// The same of an image in a tree.
pub const UNTAGGED: &str = "<untagged>";
/// Docker's word for what it does not know.
pub const UNKNOWN: &str = "N/A";

/// Go's zero time, in seconds since the epoch.
const GO_ZERO: i64 = -62_135_596_800;

/// One name of an image, or a nameless image.
struct Row {
    image: Image,
    name: Option<Reference>,
    created: Option<Timestamp>,
    size: u64,
    now: Timestamp,
    no_trunc: bool,
}

static LISTING: Listing<Row> = Listing {
    columns: &[
        Column { field: "ID", header: "IMAGE ID", text: |row| id(&row.image, row.no_trunc) },
        Column { field: "Repository", header: "REPOSITORY", text: Row::repository },
        Column { field: "Tag", header: "TAG", text: Row::tag },
        Column { field: "Digest", header: "DIGEST", text: |row| row.image.target.to_string() },
        Column { field: "CreatedSince", header: "CREATED", text: |row| row.time(|at| units::ago(at, row.now)) },
        Column { field: "CreatedAt", header: "CREATED AT", text: |row| row.time(units::date) },
        Column { field: "Size", header: "SIZE", text: |row| units::size(row.size) },
        Column { field: "VirtualSize", header: "VIRTUAL SIZE", text: |row| units::sum(row.size) },
        Column { field: "SharedSize", header: "SHARED SIZE", text: |_| UNKNOWN.to_owned() },
        Column { field: "UniqueSize", header: "UNIQUE SIZE", text: |_| UNKNOWN.to_owned() },
        Column { field: "Containers", header: "CONTAINERS", text: |_| UNKNOWN.to_owned() },
        Column { field: "Platform", header: "PLATFORM", text: |row| row.image.platform.to_string() },
    ],
    kind: "*formatter.imageContext",
    labels: |row| Some::<&BTreeMap<String, String>>(&row.image.config.labels),
};

/// An image's id as tables show it.
pub fn id(image: &Image, no_trunc: bool) -> String {
    if no_trunc { image.id.to_string() } else { image.id.short().to_owned() }
}

impl Row {
    fn repository(&self) -> String {
        self.name.as_ref().map_or_else(|| NONE.to_owned(), Reference::familiar_repository)
    }

    fn tag(&self) -> String {
        self.name.as_ref().and_then(Reference::tag).unwrap_or(NONE).to_owned()
    }

    fn time(&self, text: impl Fn(Timestamp) -> String) -> String {
        self.created.map_or_else(|| UNKNOWN.to_owned(), text)
    }
}

/// `--filter`s of images.
///
/// # Errors
/// Docker's words.
pub fn filters(parsed: &Parsed) -> Result<Filters> {
    values::filters(parsed)?;
    Ok(Filters::parse(&parsed.values("filter").filter(|text| !text.is_empty()).collect::<Vec<_>>())?)
}

fn images(parsed: &Parsed, context: &Context) -> Result<()> {
    let mut filters = filters(parsed)?;
    if let Some(operand) = parsed.operands().first() {
        filters.references = vec![pattern(operand)];
    }
    let engine = context.engine()?;
    if parsed.switch("tree") {
        return image_tree::print(parsed, &engine, &filters);
    }
    let now = Timestamp::now();
    let no_trunc = parsed.switch("no-trunc");
    let mut rows = Vec::new();
    for Summary { image, names, created, size } in engine.images()?.list(&filters)? {
        // The year 1 is Go's way to write that there is no time.
        let created = created.filter(|at| *at > GO_ZERO).and_then(|seconds| Timestamp::from_second(seconds).ok());
        let row = |name| Row { image: image.clone(), name, created, size, now, no_trunc };
        if names.is_empty() {
            rows.push(row(None));
        } else {
            rows.extend(names.into_iter().map(|name| row(Some(name))));
        }
    }
    let shown: &[&str] = match parsed.switch("digests") {
        true => &["Repository", "Tag", "Digest", "ID", "CreatedSince", "Size"],
        false => &["Repository", "Tag", "ID", "CreatedSince", "Size"],
    };
    LISTING.print(parsed, &rows, shown)
}

/// The pattern an operand means: a name is taken as docker shows it, anything else as a pattern.
fn pattern(operand: &str) -> String {
    match operand.parse::<Reference>() {
        Ok(name) if operand.contains('@') || operand.rsplit('/').next().is_some_and(|last| last.contains(':')) => {
            name.familiar()
        }
        Ok(name) => name.familiar_repository(),
        Err(_) => operand.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operand_is_a_name_or_a_pattern() {
        for (operand, expected) in [
            ("busybox", "busybox"),
            ("docker.io/library/busybox", "busybox"),
            ("busybox:latest", "busybox:latest"),
            ("localhost:5000/x", "localhost:5000/x"),
            ("localhost:5000/x:1", "localhost:5000/x:1"),
            ("busy*", "busy*"),
        ] {
            assert_eq!(pattern(operand), expected, "{operand}");
        }
    }
}
