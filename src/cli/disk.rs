//! What is on the disk: `system check` and `system df`.

use std::collections::BTreeSet;
use std::io::Write as _;

use wharf_images::gc::check;
use wharf_images::{Digest, ImageStore};
use wharf_runtime::engine::{Engine, ListOptions};

use super::context::Context;
use super::failure::{Failure, Result, tell};
use super::listing::{Column, Listing};
use super::parse::Parsed;
use super::verb::{FORMAT, Flag, Listed, Operands, Section, Verb};
use super::{text, units};

/// The commands of this file.
pub static VERBS: &[Verb] = &[
    Verb {
        names: &["system check"],
        about: "Check that all content is whole and nothing is left over",
        usage: "[OPTIONS]",
        listed: Listed::Other,
        operands: Operands::None,
        trailing: false,
        sections: &[Section {
            title: "Options",
            flags: &[Flag::switch("repair", "Remove what is damaged or left over")],
        }],
        run: check_all,
    },
    Verb {
        names: &["system df"],
        about: "Show disk usage",
        usage: "[OPTIONS]",
        listed: Listed::Other,
        operands: Operands::None,
        trailing: false,
        sections: &[Section {
            title: "Options",
            flags: &[FORMAT, Flag::switch("verbose", "Show detailed information on space usage").short('v').not_yet()],
        }],
        run: df,
    },
];

fn check_all(parsed: &Parsed, context: &Context) -> Result<()> {
    let engine = context.engine()?;
    let images = engine.images()?;
    let mut out = std::io::stdout();
    let problems = if parsed.switch("repair") {
        let swept = engine.sweep()?;
        if swept > 0 {
            writeln!(out, "Removed what {swept} crashed containers left")?;
        }
        let swept = engine.volumes().sweep()?;
        if swept > 0 {
            writeln!(out, "Removed {swept} volumes that were never made or not wholly removed")?;
        }
        check::repair(images, &|id: &Digest| users(&engine, id))?
    } else {
        check::check(images)?
    };
    let strays = engine.strays()?;
    for problem in &problems {
        writeln!(out, "{}", text::visible(&problem.to_string()))?;
    }
    for stray in &strays {
        writeln!(out, "container {}: left over by a crash", text::visible(stray))?;
    }
    let volumes = engine.volumes().strays()?;
    for stray in &volumes {
        writeln!(out, "volume {}: left over by a crash", text::visible(stray))?;
    }
    if problems.is_empty() && strays.is_empty() && volumes.is_empty() {
        return Ok(writeln!(out, "No problems found.")?);
    }
    if !parsed.switch("repair") {
        tell("Run 'wharf system check --repair' to put right what can be.\n");
    }
    Err(Failure::Exit(1))
}

/// The containers that need an image. One that cannot be asked about is taken to be needed.
fn users(engine: &Engine, id: &Digest) -> Vec<String> {
    engine.users_of_image(id).unwrap_or_else(|e| vec![e.to_string()])
}

/// One line of `system df`.
struct Usage {
    kind: &'static str,
    total: usize,
    active: usize,
    size: u64,
    reclaimable: u64,
}

static LISTING: Listing<Usage> = Listing {
    columns: &[
        Column { field: "Type", header: "TYPE", text: |usage| usage.kind.to_owned() },
        Column { field: "TotalCount", header: "TOTAL", text: |usage| usage.total.to_string() },
        Column { field: "Active", header: "ACTIVE", text: |usage| usage.active.to_string() },
        Column { field: "Size", header: "SIZE", text: |usage| units::size(usage.size) },
        Column { field: "Reclaimable", header: "RECLAIMABLE", text: Usage::reclaimable },
    ],
    labels: |_| None,
};

impl Usage {
    fn reclaimable(&self) -> String {
        match self.size {
            0 => units::size(self.reclaimable),
            size => format!("{} ({}%)", units::size(self.reclaimable), self.reclaimable.min(size) * 100 / size),
        }
    }
}

fn df(parsed: &Parsed, context: &Context) -> Result<()> {
    let engine = context.engine()?;
    let rows = [images(&engine, engine.images()?)?, containers(&engine)?, volumes(&engine)?];
    LISTING.print(parsed, &rows, &["Type", "TotalCount", "Active", "Size", "Reclaimable"])
}

fn images(engine: &Engine, store: &ImageStore) -> Result<Usage> {
    let mut seen = BTreeSet::new();
    let mut usage = Usage { kind: "Images", total: 0, active: 0, size: 0, reclaimable: check::reclaimable(store)? };
    for record in store.records()? {
        let Ok(image) = store.resolve(record.target.as_str(), None) else { continue };
        if !seen.insert(image.id.to_string()) {
            continue;
        }
        usage.total += 1;
        usage.size += image.size;
        if engine.users_of_image(&image.id)?.is_empty() {
            usage.reclaimable += image.size;
        } else {
            usage.active += 1;
        }
    }
    Ok(usage)
}

fn containers(engine: &Engine) -> Result<Usage> {
    let mut usage = Usage { kind: "Containers", total: 0, active: 0, size: 0, reclaimable: 0 };
    for container in engine.list(ListOptions { all: true })? {
        let size = engine.size(&container.id)?;
        usage.total += 1;
        usage.size += size;
        if container.state.state.is_live() {
            usage.active += 1;
        } else {
            usage.reclaimable += size;
        }
    }
    Ok(usage)
}

fn volumes(engine: &Engine) -> Result<Usage> {
    let mut usage = Usage { kind: "Local Volumes", total: 0, active: 0, size: 0, reclaimable: 0 };
    for (volume, users) in super::volume::with_users(engine)? {
        let size = engine.volumes().size(&volume.name)?;
        usage.total += 1;
        usage.size += size;
        if users > 0 {
            usage.active += 1;
        } else {
            usage.reclaimable += size;
        }
    }
    Ok(usage)
}
