//! What is on the disk: `system check` and `system df`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;

use jiff::Timestamp;
use serde_json::json;
use wharf_images::gc::check;
use wharf_images::store::{Filters, Summary};
use wharf_images::{Digest, ImageStore, Layer, Reference};
use wharf_runtime::engine::{Engine, ListOptions};
use wharf_runtime::volume::Volume;

use super::context::Context;
use super::failure::{Failure, Result, tell};
use super::images::{NONE, UNKNOWN, id as image_id};
use super::listing::{Column, Listing};
use super::parse::Parsed;
use super::template::{Format, from_json};
use super::verb::{FORMAT, Flag, Listed, Operands, Section, Verb};
use super::{ps, table, text, units};

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
            flags: &[FORMAT, Flag::switch("verbose", "Show detailed information on space usage").short('v')],
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
        let swept = engine.networks().sweep()?;
        if swept > 0 {
            writeln!(out, "Removed {swept} network interfaces and tables that no network has")?;
        }
        let restored = engine.networks().restore()?;
        if restored > 0 {
            writeln!(out, "Gave {restored} network interfaces and tables back to containers that need them")?;
        }
        let swept = engine.volumes().sweep()?;
        if swept > 0 {
            writeln!(out, "Removed {swept} volumes that were never made or not wholly removed")?;
        }
        let restored = engine.volumes().restore()?;
        if restored > 0 {
            writeln!(out, "Made the directories of {restored} volumes again, empty")?;
        }
        check::repair(images, &|id: &Digest| engine.needers(id))?
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
    let networks = engine.networks().strays()?;
    for stray in &networks {
        writeln!(out, "{}: left over by a crash", text::visible(stray))?;
    }
    let lost = engine.networks().lost()?;
    for lost in &lost {
        writeln!(out, "{}: somebody has removed it, and running containers need it", text::visible(lost))?;
    }
    let volumes = engine.volumes().strays()?;
    for stray in &volumes {
        writeln!(out, "volume {}: left over by a crash", text::visible(stray))?;
    }
    let orphans = engine.volumes().orphans()?;
    for name in &orphans {
        let name = text::visible(name);
        writeln!(out, "volume {name}: no record knows it; 'wharf volume create {name}' makes it a volume again")?;
    }
    let missing = engine.volumes().lost()?;
    for name in &missing {
        writeln!(out, "volume {}: its directory is gone; --repair makes it again, empty", text::visible(name))?;
    }
    if problems.is_empty() && [strays, networks, lost, volumes, orphans, missing].iter().all(Vec::is_empty) {
        return Ok(writeln!(out, "No problems found.")?);
    }
    if !parsed.switch("repair") {
        tell("Run 'wharf system check --repair' to put right what can be.\n");
    }
    Err(Failure::Exit(1))
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
        Column { field: "Size", header: "SIZE", text: |usage| units::sum(usage.size) },
        Column { field: "Reclaimable", header: "RECLAIMABLE", text: Usage::reclaimable },
    ],
    kind: "*formatter.diskUsageImagesContext",
    labels: |_| None,
};

impl Usage {
    fn reclaimable(&self) -> String {
        match self.size {
            0 => units::sum(self.reclaimable),
            size => format!("{} ({}%)", units::sum(self.reclaimable), self.reclaimable.min(size) * 100 / size),
        }
    }
}

fn df(parsed: &Parsed, context: &Context) -> Result<()> {
    let engine = context.engine()?;
    if parsed.switch("verbose") {
        return verbose(parsed, &engine);
    }
    // Nothing is built here.
    let build = Usage { kind: "Build Cache", total: 0, active: 0, size: 0, reclaimable: 0 };
    let rows = [images(&engine, engine.images()?)?, containers(&engine)?, volumes(&engine)?, build];
    LISTING.print(parsed, &rows, &["Type", "TotalCount", "Active", "Size", "Reclaimable"])
}

/// An image in the long list.
struct ImageRow {
    summary: Summary,
    name: Option<Reference>,
    /// Bytes of layers that other images have too.
    shared: u64,
    containers: usize,
    now: Timestamp,
    no_trunc: bool,
}

static IMAGES: Listing<ImageRow> = Listing {
    columns: &[
        Column { field: "ID", header: "IMAGE ID", text: |row| image_id(&row.summary.image, row.no_trunc) },
        Column { field: "Repository", header: "REPOSITORY", text: ImageRow::repository },
        Column { field: "Tag", header: "TAG", text: ImageRow::tag },
        Column { field: "Digest", header: "DIGEST", text: |row| row.summary.image.target.to_string() },
        Column { field: "CreatedSince", header: "CREATED", text: |row| row.created(|at| units::ago(at, row.now)) },
        Column { field: "CreatedAt", header: "CREATED AT", text: |row| row.created(units::date) },
        Column { field: "VirtualSize", header: "VIRTUAL SIZE", text: |row| units::sum(row.summary.size) },
        Column { field: "Size", header: "SIZE", text: |row| units::size(row.summary.size) },
        Column { field: "SharedSize", header: "SHARED SIZE", text: |row| units::sum(row.shared) },
        Column { field: "UniqueSize", header: "UNIQUE SIZE", text: ImageRow::unique },
        Column { field: "Containers", header: "CONTAINERS", text: |row| row.containers.to_string() },
    ],
    kind: "*formatter.imageContext",
    labels: |_| None,
};

impl ImageRow {
    fn repository(&self) -> String {
        self.name.as_ref().map_or_else(|| NONE.to_owned(), Reference::familiar_repository)
    }

    fn tag(&self) -> String {
        self.name.as_ref().and_then(Reference::tag).unwrap_or(NONE).to_owned()
    }

    fn created(&self, text: impl Fn(Timestamp) -> String) -> String {
        let created = self.summary.created.and_then(|seconds| Timestamp::from_second(seconds).ok());
        created.map_or_else(|| UNKNOWN.to_owned(), text)
    }

    fn unique(&self) -> String {
        units::sum(self.summary.size - self.shared)
    }
}

/// A volume in the long list.
struct VolumeRow {
    volume: Volume,
    mountpoint: String,
    /// How many containers use it.
    users: usize,
    size: u64,
}

static VOLUMES: Listing<VolumeRow> = Listing {
    columns: &[
        Column { field: "Name", header: "VOLUME NAME", text: |row| row.volume.name.clone() },
        Column { field: "Driver", header: "DRIVER", text: |row| row.volume.driver.clone() },
        Column { field: "Scope", header: "SCOPE", text: |_| "local".to_owned() },
        Column { field: "Mountpoint", header: "MOUNTPOINT", text: |row| row.mountpoint.clone() },
        Column { field: "Labels", header: "LABELS", text: |row| ps::comma(&row.volume.labels) },
        Column { field: "Links", header: "LINKS", text: |row| row.users.to_string() },
        Column { field: "Size", header: "SIZE", text: |row| units::sum(row.size) },
        // What docker shows of volumes of a swarm.
        Column { field: "Availability", header: "AVAILABILITY", text: |_| UNKNOWN.to_owned() },
        Column { field: "Group", header: "GROUP", text: |_| UNKNOWN.to_owned() },
        Column { field: "Status", header: "STATUS", text: |_| UNKNOWN.to_owned() },
    ],
    kind: "*formatter.volumeContext",
    labels: |row| Some(&row.volume.labels),
};

/// Docker's long form: each image, container and volume.
fn verbose(parsed: &Parsed, engine: &Engine) -> Result<()> {
    let format = parsed.value("format").filter(|format| !format.is_empty() && *format != "table");
    // Whoever asks for a form of his own gets the whole ids.
    let images = image_rows(engine, format.is_some())?;
    let containers = ps::with_own_sizes(engine, format.is_some())?;
    let volume = |(volume, users): (Volume, usize)| -> Result<VolumeRow> {
        let size = engine.volumes().size(&volume.name)?;
        let mountpoint = engine.volumes().mountpoint(&volume.name).display().to_string();
        Ok(VolumeRow { volume, mountpoint, users, size })
    };
    let volumes = local_volumes(engine)?.map(volume).collect::<Result<Vec<_>>>()?;
    let mut out = std::io::stdout();
    if let Some(format) = format {
        let all = json!({
            "Images": IMAGES.objects(&images),
            "Containers": ps::LISTING.objects(&containers),
            "Volumes": VOLUMES.objects(&volumes),
            "BuildCache": [],
        });
        let text = match format {
            "json" => all.to_string(),
            template => Format::parse(template)?.of("*formatter.diskUsageContext").render(from_json(all))?,
        };
        return Ok(writeln!(out, "{text}")?);
    }
    let shown = ["Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers"];
    writeln!(out, "Images space usage:\n\n{}", IMAGES.text(&images, &shown, None, false)?)?;
    let shown = ["ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names"];
    writeln!(out, "Containers space usage:\n\n{}", ps::LISTING.text(&containers, &shown, None, false)?)?;
    let shown = ["Name", "Links", "Size"];
    writeln!(out, "Local Volumes space usage:\n\n{}", VOLUMES.text(&volumes, &shown, None, false)?)?;
    let header = ["CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "LAST USED", "USAGE", "SHARED"].map(str::to_owned);
    Ok(write!(out, "Build cache usage: 0B\n\n{}", table::layout(&[header.into()]))?)
}

fn image_rows(engine: &Engine, no_trunc: bool) -> Result<Vec<ImageRow>> {
    let now = Timestamp::now();
    let (found, sizes) = (engine.images()?.list(&Filters::default())?, engine.images()?.layer_sizes()?);
    // A layer that two images have is shared by both.
    let mut users: BTreeMap<String, usize> = BTreeMap::new();
    for summary in &found {
        for digest in summary.image.layers.iter().map(|layer| &layer.blob().digest).collect::<BTreeSet<_>>() {
            *users.entry(digest.to_string()).or_default() += 1;
        }
    }
    let mut rows = Vec::new();
    for summary in found {
        let shared = |layer: &&Layer| users.get(layer.blob().digest.as_str()).is_some_and(|n| *n > 1);
        let shared = summary.image.layers.iter().filter(shared).map(|layer| sizes.layer(layer)).sum();
        let containers = engine.users_of_image(&summary.image.id)?.len();
        let names: Vec<_> = summary.names.iter().cloned().map(Some).collect();
        for name in if names.is_empty() { vec![None] } else { names } {
            rows.push(ImageRow { summary: summary.clone(), name, shared, containers, now, no_trunc });
        }
    }
    Ok(rows)
}

fn images(engine: &Engine, store: &ImageStore) -> Result<Usage> {
    let (mut seen, sizes) = (BTreeSet::new(), store.layer_sizes()?);
    let mut usage = Usage { kind: "Images", total: 0, active: 0, size: 0, reclaimable: check::reclaimable(store)? };
    // A layer counts once, and is in use if any image that has it is.
    let mut layers: BTreeMap<String, (u64, bool)> = BTreeMap::new();
    for record in store.records()? {
        let Ok(image) = store.resolve(record.target.as_str(), None) else { continue };
        if !seen.insert(image.id.to_string()) {
            continue;
        }
        let used = !engine.users_of_image(&image.id)?.is_empty();
        usage.total += 1;
        usage.active += usize::from(used);
        for layer in &image.layers {
            let (_, in_use) = layers.entry(layer.blob().digest.to_string()).or_insert((sizes.layer(layer), false));
            *in_use |= used;
        }
    }
    for (size, in_use) in layers.into_values() {
        usage.size += size;
        usage.reclaimable += if in_use { 0 } else { size };
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

/// The volumes whose bytes are ours, as docker takes it: with options they are elsewhere.
fn local_volumes(engine: &Engine) -> Result<impl Iterator<Item = (Volume, usize)>> {
    Ok(super::volume::with_users(engine)?.into_iter().filter(|(volume, _)| volume.options.is_empty()))
}

fn volumes(engine: &Engine) -> Result<Usage> {
    let mut usage = Usage { kind: "Local Volumes", total: 0, active: 0, size: 0, reclaimable: 0 };
    for (volume, users) in local_volumes(engine)? {
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
