//! `ps`: the containers, in docker's columns.

use std::collections::BTreeMap;

use jiff::Timestamp;
use wharf_runtime::config::{MountKind, NetworkMode};
use wharf_runtime::container::Container;
use wharf_runtime::engine::{Engine, ListOptions};
use wharf_runtime::health::Verdict;
use wharf_runtime::network::BRIDGE;
use wharf_runtime::network::store::Attachment;
use wharf_runtime::state::State;

use super::context::Context;
use super::failure::{Failure, Result};
use super::filter::{Filters, status};
use super::listing::{Column, Listing};
use super::parse::Parsed;
use super::verb::{FILTER, FORMAT, Flag, Listed, NO_TRUNC, Operands, QUIET, Section, Verb};
use super::{ports, units, values};

/// The command of this file.
pub static VERBS: &[Verb] = &[Verb {
    names: &["ps", "container ls", "container list", "container ps"],
    about: "List containers",
    usage: "[OPTIONS]",
    listed: Listed::Common,
    operands: Operands::None,
    trailing: false,
    sections: &[Section {
        title: "Options",
        flags: &[
            Flag::switch("all", "Show all containers (default shows just running)").short('a'),
            FILTER,
            FORMAT,
            Flag::value("last", "int", "Show n last created containers (includes all states)").short('n').or("-1"),
            Flag::switch("latest", "Show the latest created container (includes all states)").short('l'),
            NO_TRUNC,
            QUIET,
            Flag::switch("size", "Display total file sizes").short('s'),
        ],
    }],
    run: ps,
}];

/// Characters of a command in the table.
const COMMAND: usize = 20;
/// Characters of the mounts in the table.
const MOUNT: usize = 15;

/// A container as the table shows it.
pub struct Row {
    container: Container,
    now: Timestamp,
    no_trunc: bool,
    /// Bytes of its own layer, and of its image if these are to be shown too.
    size: Option<(u64, Option<u64>)>,
    labels: BTreeMap<String, String>,
    attachments: Vec<Attachment>,
}

/// All that is known of containers in lists.
pub static LISTING: Listing<Row> = Listing {
    columns: &[
        Column { field: "ID", header: "CONTAINER ID", text: Row::id },
        Column { field: "Image", header: "IMAGE", text: Row::image },
        Column { field: "Command", header: "COMMAND", text: Row::command },
        Column { field: "CreatedAt", header: "CREATED AT", text: |row| units::date(row.container.created) },
        Column { field: "RunningFor", header: "CREATED", text: |row| units::ago(row.container.created, row.now) },
        Column { field: "Status", header: "STATUS", text: |row| life(&row.container, row.now) },
        Column { field: "Ports", header: "PORTS", text: |row| ports::column(&row.container, &row.attachments) },
        Column { field: "Names", header: "NAMES", text: |row| row.container.name.clone() },
        Column { field: "Size", header: "SIZE", text: Row::size },
        Column { field: "State", header: "STATE", text: |row| status(&row.container).to_owned() },
        Column { field: "Labels", header: "LABELS", text: |row| comma(&row.labels) },
        Column { field: "Mounts", header: "MOUNTS", text: Row::mounts },
        Column { field: "LocalVolumes", header: "LOCAL VOLUMES", text: Row::volumes },
        Column { field: "Networks", header: "NETWORKS", text: |row| networks(&row.container).join(",") },
        Column { field: "Platform", header: "PLATFORM", text: |row| row.container.image.platform.to_string() },
    ],
    kind: "*formatter.ContainerContext",
    labels: |row| Some(&row.labels),
};

const SHOWN: [&str; 8] = ["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names", "Size"];

fn ps(parsed: &Parsed, context: &Context) -> Result<()> {
    let filters = Filters::new(parsed)?;
    let last = match parsed.switch("latest") {
        true => 1,
        false => parsed.read("last", values::integer::<i64>)?.unwrap_or(-1),
    };
    if let Some(format) = parsed.value("format") {
        // Docker looks at this one beforehand, for what it asks for, and has words of its own.
        LISTING.check(format).map_err(|wrong| {
            let what = if wrong.parsing { "parse" } else { "execute" };
            Failure::new(format!("failed to {what} template: {}", wrong.text))
        })?;
    }
    let engine = context.engine()?;
    let all = parsed.switch("all") || last > 0 || filters.want_all();
    let mut containers = engine.list(ListOptions { all })?;
    filters.apply(&engine, &mut containers)?;
    if let Ok(last @ 1..) = usize::try_from(last) {
        containers.truncate(last);
    }
    let now = Timestamp::now();
    let with_size = parsed.switch("size") || parsed.value("format").is_some_and(shows_size);
    let sizes = if with_size { Some(engine.images()?.layer_sizes()?) } else { None };
    let mut attachments = engine.attachments()?;
    let rows = containers.into_iter().map(|container| {
        let attachments = attachments.remove(&container.id).unwrap_or_default();
        let size = match &sizes {
            Some(sizes) => Some((engine.size(&container.id)?, Some(sizes.image(&container.image)))),
            None => None,
        };
        Ok(Row { now, no_trunc: parsed.switch("no-trunc"), size, labels: labels(&container), attachments, container })
    });
    let shown = if parsed.switch("size") { &SHOWN[..] } else { &SHOWN[..7] };
    LISTING.print(parsed, &rows.collect::<Result<Vec<_>>>()?, shown)
}

/// A format that shows the size asks for it, as docker has it: by its name, or as one of all fields.
fn shows_size(format: &str) -> bool {
    format.contains(".Size") || format.contains("json .}") || format.contains("json . ")
}

/// All containers with the sizes of their own layers.
///
/// # Errors
/// The engine's.
pub fn with_own_sizes(engine: &Engine, no_trunc: bool) -> Result<Vec<Row>> {
    let now = Timestamp::now();
    let mut attachments = engine.attachments()?;
    let row = |container: Container| {
        let attachments = attachments.remove(&container.id).unwrap_or_default();
        let size = Some((engine.size(&container.id)?, None));
        Ok(Row { now, no_trunc, size, labels: labels(&container), attachments, container })
    };
    engine.list(ListOptions { all: true })?.into_iter().map(row).collect()
}

impl Row {
    fn id(&self) -> String {
        if self.no_trunc { self.container.id.clone() } else { self.container.short_id().to_owned() }
    }

    fn image(&self) -> String {
        let image = &self.container.config.image;
        match image.strip_prefix("sha256:") {
            Some(hex) if !self.no_trunc => hex.chars().take(12).collect(),
            _ => image.clone(),
        }
    }

    fn command(&self) -> String {
        // As docker's daemon: what has spaces in quotes, but for the program, and nothing escaped.
        let words = self.container.args.iter().enumerate().map(|(place, word)| match place > 0 && word.contains(' ') {
            true => format!("'{word}'"),
            false => word.clone(),
        });
        let command = words.collect::<Vec<_>>().join(" ");
        format!("{:?}", if self.no_trunc { command } else { ellipsis(&command, COMMAND) })
    }

    /// The writable layer's, and with the image's.
    fn size(&self) -> String {
        match self.size {
            None => "0B".to_owned(),
            Some((own, None)) => units::size(own),
            Some((own, Some(image))) => format!("{} (virtual {})", units::size(own), units::size(own + image)),
        }
    }

    fn volumes(&self) -> String {
        let mounts = &self.container.config.mounts;
        mounts.iter().filter_map(|mount| mount.volume()).count().to_string()
    }

    fn mounts(&self) -> String {
        let mounts = self.container.config.mounts.iter();
        let sources = mounts.filter_map(|mount| match &mount.kind {
            MountKind::Bind(bind) => Some(bind.source.as_str()),
            MountKind::Volume(volume) => Some(volume.name.as_str()),
            MountKind::Tmpfs(_) => None,
        });
        let sources = sources.map(|source| if self.no_trunc { source.to_owned() } else { ellipsis(source, MOUNT) });
        sources.collect::<Vec<_>>().join(",")
    }
}

/// The image's labels and the container's own.
pub fn labels(container: &Container) -> BTreeMap<String, String> {
    let mut labels = container.image.config.labels.clone();
    labels.extend(container.config.labels.clone());
    labels
}

/// The names of the networks it is on, or is to be on.
pub fn networks(container: &Container) -> Vec<String> {
    match &container.config.network {
        NetworkMode::None | NetworkMode::Host => vec![network(container)],
        _ => container.config.places().iter().map(|place| place.network.clone()).collect(),
    }
}

/// How it was to be connected when it was made.
pub fn network(container: &Container) -> String {
    let mode = match &container.config.network {
        NetworkMode::Default => BRIDGE,
        NetworkMode::None => "none",
        NetworkMode::Host => "host",
        NetworkMode::Named(name) => name,
        NetworkMode::Container(other) => return format!("container:{other}"),
    };
    mode.to_owned()
}

/// Labels as tables show them.
pub fn comma(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

/// At most `limit` characters, the last one an ellipsis when some are left out.
fn ellipsis(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars().take(limit - 1).chain(['\u{2026}']).collect()
}

/// Docker's STATUS: `Up 3 seconds`, `Exited (0) 2 minutes ago`.
fn life(container: &Container, now: Timestamp) -> String {
    let state = &container.state;
    let up = || state.started.map_or_else(String::new, |started| units::elapsed(started, now));
    let ended = || state.finished.map_or_else(String::new, |finished| units::ago(finished, now));
    match state.state {
        State::Created | State::Starting => "Created".to_owned(),
        // It has failed to start.
        State::Exited if state.started.is_none() => "Created".to_owned(),
        State::Running => match state.health.as_ref().map(|health| health.status) {
            None => format!("Up {}", up()),
            Some(Verdict::Starting) => format!("Up {} (health: starting)", up()),
            Some(verdict) => format!("Up {} ({})", up(), verdict.name()),
        },
        State::Paused => format!("Up {} (Paused)", up()),
        State::Restarting => format!("Restarting ({}) {}", state.exit_code, ended()),
        State::Removing => "Removal In Progress".to_owned(),
        State::Exited => format!("Exited ({}) {}", state.exit_code, ended()),
        State::Dead => "Dead".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_images::{Digest, Image, Platform, Style};
    use wharf_runtime::ContainerConfig;
    use wharf_runtime::config::{Mount, Origin};
    use wharf_runtime::container::Status;

    fn digest(text: &str) -> Digest {
        text.parse().expect("digest")
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("time")
    }

    /// A container of the first of May at noon; the table is drawn two minutes later.
    fn container(name: &str, state: State, exit_code: i32) -> Container {
        let id = digest(&format!("sha256:{}", "ab".repeat(32)));
        Container {
            id: "0123456789abcdef".repeat(4),
            name: name.to_owned(),
            config: ContainerConfig {
                image: "busybox:1.36".to_owned(),
                labels: BTreeMap::from([("own".to_owned(), "1".to_owned())]),
                mounts: vec![Mount {
                    kind: MountKind::bind("/a/long/way/to/data"),
                    target: "/data".to_owned(),
                    read_only: false,
                    origin: Origin::default(),
                }],
                ..ContainerConfig::default()
            },
            image: Image {
                id: id.clone(),
                target: id.clone(),
                manifest: id,
                platform: Platform { os: "linux".to_owned(), architecture: "amd64".to_owned(), variant: None },
                style: Style::Linux,
                style_reason: String::new(),
                layers: Vec::new(),
                wasm: None,
                config: wharf_images::image::RunConfig::default(),
                created: None,
                size: 4_260_000,
            },
            args: ["sh", "-c", "while true; do date; sleep 1; done"].map(str::to_owned).to_vec(),
            created: at("2024-05-01T12:00:00Z"),
            state: Status {
                state,
                exit_code,
                started: Some(at("2024-05-01T12:00:30Z")),
                finished: Some(at("2024-05-01T12:01:15Z")),
                ..Status::default()
            },
        }
    }

    fn rows(no_trunc: bool) -> Vec<Row> {
        let states = [
            ("web", State::Running, 0),
            ("job", State::Exited, 137),
            ("new", State::Created, 0),
            ("ice", State::Paused, 0),
        ];
        let row = |(name, state, code)| {
            let container = container(name, state, code);
            let labels = labels(&container);
            let now = at("2024-05-01T12:02:00Z");
            Row { now, no_trunc, size: Some((12, Some(4_260_000))), labels, attachments: Vec::new(), container }
        };
        states.map(row).into()
    }

    fn text(format: Option<&str>, no_trunc: bool) -> String {
        LISTING.text(&rows(no_trunc), &SHOWN, format, false).expect("text")
    }

    #[test]
    fn the_table_is_dockers() {
        insta::assert_snapshot!(text(None, false));
    }

    #[test]
    fn nothing_is_cut_when_not_wanted() {
        insta::assert_snapshot!(text(Some("{{.ID}} {{.Command}} {{.Mounts}}"), true));
    }

    #[test]
    fn a_row_as_json_has_dockers_fields() {
        insta::assert_snapshot!(text(Some("json"), false).lines().next().expect("a line"));
    }

    #[test]
    fn labels_are_found_by_name() {
        assert_eq!(text(Some("{{.Names}}={{.Label \"own\"}}"), false), "web=1\njob=1\nnew=1\nice=1\n");
    }

    #[test]
    fn long_texts_end_in_an_ellipsis() {
        assert_eq!(ellipsis("docker-entrypoint.sh nginx", COMMAND), "docker-entrypoint.s\u{2026}");
        assert_eq!(ellipsis("short", COMMAND), "short");
    }
}
