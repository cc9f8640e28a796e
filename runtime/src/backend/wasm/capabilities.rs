//! What a binary asks for, and what it would be given: the capability view, for people who decide whether to run it.
//!
//! A component reaches the world through its imports only, so they are the whole list of what it can do; what it may do
//! with them is decided by the container's configuration. Nothing is run or compiled for this.

use serde::Serialize;
use wharf_images::image::RunConfig;
use wharf_images::wasm::{CoreImport, Description};

use super::inspect::{self, PREVIEW1, START};
use crate::config::{ContainerConfig, MountKind, NetworkMode};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::network::Protocol;
use crate::plan;

/// What a group of imports is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// Arguments, environment, standard streams, exit.
    Cli,
    /// Time.
    Clocks,
    /// Files.
    Filesystem,
    /// HTTP.
    Http,
    /// Streams and waiting, which reach nothing by themselves.
    Io,
    /// Random numbers.
    Random,
    /// TCP, UDP, names.
    Sockets,
    /// What WASI does not know.
    Unknown,
}

/// What a binary is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It runs, and ends.
    Command,
    /// It answers HTTP requests.
    Server,
    /// It has no entry of its own.
    Library,
}

/// One import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Import {
    /// Its name.
    pub name: String,
    /// What it is about.
    pub group: Group,
    /// Wharf has it.
    pub satisfied: bool,
    /// What would satisfy it, if Wharf does not.
    pub hint: Option<&'static str>,
}

/// What a configuration means for one group that the binary imports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Grant {
    /// The group.
    pub group: Group,
    /// What it may reach.
    pub granted: Vec<String>,
    /// What it may not, and what would change that.
    pub refused: Vec<String>,
}

/// The whole view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct View {
    /// `module` (WASI preview 1) or `component` (WASI 0.2 and 0.3).
    pub kind: &'static str,
    /// What it is for.
    pub role: Role,
    /// What is called: an export, if there is one to call.
    pub entry: Option<String>,
    /// Its imports, in order.
    pub imports: Vec<Import>,
    /// Its exports.
    pub exports: Vec<String>,
    /// What it would get and not get, for each group it imports.
    pub grants: Vec<Grant>,
    /// What was given in vain: it does not ask for it.
    pub unused: Vec<String>,
    /// This Wharf can run it.
    pub runs: bool,
    /// Why not.
    pub why: Option<String>,
    /// What to do about that.
    pub hint: Option<String>,
}

impl Engine {
    /// The capability view of a local image's program, as `config` would run it.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` for an image that is no WebAssembly image; as [`View::of`].
    pub fn capabilities(&self, config: &ContainerConfig) -> Result<View> {
        let images = self.images()?;
        let image = images.resolve(&config.image, config.platform.as_ref())?;
        let wasm = wharf_images::pack::extract(images, &image)?;
        View::of(&wasm, image.wasm_function(), config, &image.config)
    }
}

impl View {
    /// The view of a binary, as `config` would run it from an image that says `image`.
    ///
    /// # Errors
    /// `Corrupt` or `Unsupported` when the bytes are no WebAssembly.
    pub fn of(wasm: &[u8], function: Option<&str>, config: &ContainerConfig, image: &RunConfig) -> Result<View> {
        let description = Description::read(wasm)?;
        let missing = inspect::missing(&description);
        let import = |name: String, group: Group| {
            let hint = missing.iter().find(|m| m.name == name).map(|m| m.hint);
            Import { name, group, satisfied: hint.is_none(), hint }
        };
        let (kind, imports, exports): (_, Vec<_>, _) = match &description {
            Description::Module { imports, functions } => {
                let all = imports.iter().map(|i| import(inspect::core_name(i), core_group(i)));
                ("module", all.collect(), functions.clone())
            }
            Description::Component { imports, exports } => {
                let all = imports.iter().map(|name| import(name.clone(), component_group(name)));
                ("component", all.collect(), exports.clone())
            }
        };
        let (role, entry) = role(&description, function);
        let refusal = inspect::check(&description, function).err();
        let mut view = View {
            kind,
            role,
            entry,
            imports,
            exports,
            grants: Vec::new(),
            unused: Vec::new(),
            runs: refusal.is_none(),
            why: refusal.as_ref().map(Error::to_string),
            hint: refusal.as_ref().and_then(|e| e.hint().map(str::to_owned)),
        };
        view.decide(config, image);
        Ok(view)
    }

    fn decide(&mut self, config: &ContainerConfig, image: &RunConfig) {
        let mut groups: Vec<Group> = self.imports.iter().map(|i| i.group).collect();
        groups.sort_unstable();
        groups.dedup();
        let asks = |group: Group| groups.contains(&group);
        if !asks(Group::Filesystem) {
            self.unused.extend(config.mounts.iter().map(|m| format!("{}: it imports no filesystem", m.target)));
        }
        if !asks(Group::Cli) {
            self.unused.extend(config.env.iter().map(|e| format!("{}: it reads no environment", name(e))));
        }
        let is_way_out =
            |name: &str| ["wasi:http/outgoing-handler@", "wasi:http/client@"].iter().any(|i| name.starts_with(i));
        let calls_out = self.imports.iter().any(|i| is_way_out(&i.name));
        let served = if self.role == Role::Server { serving(config, image) } else { Vec::new() };
        if self.role != Role::Server && !asks(Group::Sockets) {
            let published = config.ports.iter().map(|p| format!("port {}: it imports no sockets", p.container_port));
            self.unused.extend(published);
        }
        let grants = groups.into_iter().filter_map(|group| {
            let (mut granted, refused) = match group {
                Group::Cli if self.role == Role::Server => (cli(config, image).0, Vec::new()),
                Group::Cli => cli(config, image),
                Group::Clocks => (texts(&["the time of the host"]), Vec::new()),
                Group::Random => (texts(&["random numbers of the host"]), Vec::new()),
                Group::Filesystem => filesystem(config),
                Group::Http if !calls_out => (Vec::new(), Vec::new()),
                Group::Http | Group::Sockets => network(config),
                Group::Io | Group::Unknown => return None,
            };
            if group == Group::Http {
                granted.splice(0..0, served.iter().cloned());
            }
            Some(Grant { group, granted, refused })
        });
        self.grants = grants.collect();
    }
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|&text| text.to_owned()).collect()
}

fn name(variable: &str) -> &str {
    variable.split('=').next().unwrap_or_default()
}

fn cli(config: &ContainerConfig, image: &RunConfig) -> (Vec<String>, Vec<String>) {
    let mut granted = texts(&["arguments", "standard output and error", "its exit code"]);
    if config.interactive {
        granted.push("standard input".to_owned());
    }
    let mut names: Vec<&str> = image.env.iter().chain(&config.env).map(|e| name(e)).collect();
    names.push("HOSTNAME");
    names.sort_unstable();
    names.dedup();
    let last = |variable: &str| config.env.iter().rev().find(|e| name(e) == variable);
    names.retain(|variable| last(variable).is_none_or(|e| e.contains('=')));
    if !names.is_empty() {
        granted.push(format!("environment: {}", names.join(", ")));
    }
    let refused = if config.interactive { Vec::new() } else { texts(&["standard input (-i gives it)"]) };
    (granted, refused)
}

fn filesystem(config: &ContainerConfig) -> (Vec<String>, Vec<String>) {
    let how = |read_only: bool| if read_only { "read-only" } else { "read and write" };
    let mut granted = vec![format!("/: {}, the container's own", how(config.read_only))];
    granted.extend(config.mounts.iter().map(|mount| match &mount.kind {
        MountKind::Bind(bind) => {
            format!("{}: {}, {} of the host", mount.target, how(mount.read_only), bind.source)
        }
        MountKind::Volume(volume) if volume.name.is_empty() => {
            format!("{}: {}, a new volume", mount.target, how(mount.read_only))
        }
        MountKind::Volume(volume) => {
            format!("{}: {}, the volume {}", mount.target, how(mount.read_only), volume.name)
        }
        MountKind::Tmpfs(_) => format!("{}: {}, gone at its end", mount.target, how(mount.read_only)),
    }));
    (granted, texts(&["all other files of the host (-v gives a directory)"]))
}

/// How it is connected, and what may go out: as `network::grants` decides it.
fn network(config: &ContainerConfig) -> (Vec<String>, Vec<String>) {
    let mut granted = match &config.network {
        NetworkMode::None => return (Vec::new(), texts(&["every address but its own loopback (--network none)"])),
        NetworkMode::Host => texts(&["the host's own network"]),
        NetworkMode::Default => texts(&["containers on its network"]),
        NetworkMode::Named(name) => vec![format!("containers on the network {name}")],
        NetworkMode::Container(other) => vec![format!("the network of the container {other}")],
    };
    let mut refused = Vec::new();
    // On the host's network too.
    match config.allow_net.is_empty() {
        true => granted.push("all other hosts".to_owned()),
        false => {
            granted.extend(config.allow_net.iter().map(|target| format!("{target} (--allow-net)")));
            refused.push("all other hosts (no --allow-net lists them)".to_owned());
        }
    }
    if config.network == NetworkMode::Host {
        refused.push("the host's loopback (--allow-net ADDRESS would allow it)".to_owned());
    } else {
        refused.push("the host itself (--allow-net host.docker.internal would allow it)".to_owned());
    }
    refused.push("link-local addresses (--allow-net ADDRESS would allow one)".to_owned());
    refused.extend(config.deny_net.iter().map(|target| format!("{target} (--deny-net)")));
    (granted, refused)
}

/// The port that a server answers on, and where the host publishes it.
fn serving(config: &ContainerConfig, image: &RunConfig) -> Vec<String> {
    let Ok(port) = plan::http_port(config, image) else { return Vec::new() };
    let published = config.ports.iter().filter(|p| p.protocol == Protocol::Tcp && p.container_port == port);
    let mut granted = vec![format!("requests on port {port}")];
    granted.extend(published.map(|binding| format!("requests on the host's {binding}")));
    granted
}

fn role(description: &Description, function: Option<&str>) -> (Role, Option<String>) {
    let (exports, entries): (_, &[(&str, Role)]) = match description {
        Description::Module { functions, .. } => (functions, &[(START, Role::Command)]),
        Description::Component { exports, .. } => (
            exports,
            &[
                ("wasi:http/incoming-handler@", Role::Server),
                ("wasi:http/handler@", Role::Server),
                ("wasi:cli/run@", Role::Command),
            ],
        ),
    };
    let called = |entry: &str| match entry.strip_suffix('@') {
        Some(_) => exports.iter().find(|e| e.starts_with(entry)),
        None => exports.iter().find(|e| *e == entry),
    };
    if let Some(function) = function {
        return (Role::Command, called(function).cloned());
    }
    let found = entries.iter().find_map(|(entry, role)| Some((*role, called(entry)?.clone())));
    found.map_or((Role::Library, None), |(role, entry)| (role, Some(entry)))
}

fn component_group(name: &str) -> Group {
    let package = name.strip_prefix("wasi:").and_then(|rest| rest.split('/').next());
    match package {
        Some("cli") => Group::Cli,
        Some("clocks") => Group::Clocks,
        Some("filesystem") => Group::Filesystem,
        Some("http") => Group::Http,
        Some("io") => Group::Io,
        Some("random") => Group::Random,
        Some("sockets") => Group::Sockets,
        _ => Group::Unknown,
    }
}

fn core_group(import: &CoreImport) -> Group {
    if import.module != PREVIEW1 {
        return Group::Unknown;
    }
    match import.name.split('_').next().unwrap_or_default() {
        "fd" | "path" => Group::Filesystem,
        "sock" => Group::Sockets,
        "clock" => Group::Clocks,
        "random" => Group::Random,
        "poll" | "sched" => Group::Io,
        "args" | "environ" | "proc" => Group::Cli,
        _ => Group::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Mount, Origin};

    fn guest(name: &str) -> Vec<u8> {
        let path = format!("{}/../tests/guests/{name}.wasm", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    fn view(wasm: &[u8], config: &ContainerConfig) -> View {
        View::of(wasm, None, config, &RunConfig::default()).expect("a view")
    }

    fn grant(view: &View, group: Group) -> &Grant {
        view.grants.iter().find(|g| g.group == group).expect("a grant")
    }

    #[test]
    fn the_flags_decide_what_is_granted() {
        let (kind, target, origin) = (MountKind::bind("/srv"), "/data".to_owned(), Origin::default());
        let mount = Mount { kind, target, read_only: true, origin };
        let config = ContainerConfig {
            env: ["TOKEN=secret", "GONE=1", "GONE"].map(str::to_owned).to_vec(),
            mounts: vec![mount],
            read_only: true,
            network: NetworkMode::None,
            ..ContainerConfig::default()
        };
        let view = view(&guest("tools-p2"), &config);
        assert_eq!((view.kind, view.role, view.runs), ("component", Role::Command, true), "{view:?}");
        assert!(view.entry.as_deref().is_some_and(|e| e.starts_with("wasi:cli/run@0.2.")), "{view:?}");
        let files = grant(&view, Group::Filesystem);
        assert_eq!(files.granted[0], "/: read-only, the container's own");
        assert_eq!(files.granted[1], "/data: read-only, /srv of the host");
        let cli = grant(&view, Group::Cli);
        assert!(cli.granted.iter().any(|g| g == "environment: HOSTNAME, TOKEN"), "{cli:?}");
        assert!(!format!("{view:?}").contains("secret"), "values are nobody's affair");
    }

    #[test]
    fn a_server_says_where_it_answers_and_what_it_may_ask() {
        let published = "127.0.0.1:8080:80".to_owned();
        let config = ContainerConfig {
            ports: crate::network::ports::parse_publish(&published).expect("a port"),
            allow_net: vec!["example.com:443".parse().expect("a target")],
            ..ContainerConfig::default()
        };
        let view = view(&guest("http"), &config);
        assert_eq!((view.role, view.runs), (Role::Server, true), "{view:?}");
        let http = grant(&view, Group::Http);
        assert_eq!(http.granted[0], "requests on port 80");
        assert!(http.granted[1].contains("127.0.0.1:8080"), "{http:?}");
        assert!(http.granted.iter().any(|g| g == "example.com:443 (--allow-net)"), "{http:?}");
        assert!(http.refused.iter().any(|r| r.contains("link-local")), "{http:?}");
    }

    #[test]
    fn what_has_no_use_is_named() {
        let (kind, target, origin) = (MountKind::bind("/srv"), "/data".to_owned(), Origin::default());
        let mount = Mount { kind, target, read_only: true, origin };
        let config = ContainerConfig { mounts: vec![mount], ..ContainerConfig::default() };
        let view = view(&guest("exit-p1"), &config);
        assert_eq!((view.kind, view.entry.as_deref()), ("module", Some("_start")));
        assert!(view.unused.iter().any(|u| u.starts_with("/data: ")), "{view:?}");
    }

    #[test]
    fn what_cannot_be_satisfied_says_what_would() {
        use wasm_encoder::{EntityType, ImportSection, Module, TypeSection};
        let mut types = TypeSection::new();
        types.ty().function([], []);
        let mut imports = ImportSection::new();
        imports.import(PREVIEW1, "sock_open", EntityType::Function(0));
        imports.import("env", "proxy_log", EntityType::Function(0));
        let mut module = Module::new();
        module.section(&types).section(&imports);
        let view = view(&module.finish(), &ContainerConfig::default());
        assert_eq!((view.role, view.runs), (Role::Library, false));
        assert!(view.imports.iter().all(|i| !i.satisfied), "{view:?}");
        assert!(view.imports[0].hint.is_some_and(|h| h.contains("wasm32-wasip2")), "{view:?}");
        assert!(view.imports[1].hint.is_some_and(|h| h.contains("Envoy")), "{view:?}");
        assert_eq!(view.imports[0].group, Group::Sockets);
    }
}
