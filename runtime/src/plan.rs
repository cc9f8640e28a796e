//! From a container's record to a [`TaskSpec`]: the plan, as data, that a backend executes.

use std::path::PathBuf;

use wharf_images::image::RunConfig;
use wharf_images::snapshot::Rootfs;
use wharf_images::{Class, Image, WasmEntry};

use crate::backend::{Program, modules};
use crate::config::{BindMount, ContainerConfig, IpcMode, MountKind, NetworkMode, PidMode, RequestLimits};
use crate::container::{BackendKind, Container};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::linux::journal;
use crate::monitor::log::LogPolicy;
use crate::network::ports::{self, ExposedPort, PortBinding};
use crate::network::{Protocol, WasmMode, WasmNetwork};
use crate::paths;
use crate::task::{HttpTask, Limits, TaskSpec, WasmMount, WasmTask, Workload};
use crate::{linux, signal};

/// What runs: docker's rules for entrypoint and command.
///
/// # Errors
/// `InvalidInput` when nothing is left to run in a Linux image.
pub fn args(config: &ContainerConfig, image: &Image) -> Result<Vec<String>> {
    // An entrypoint given with the container drops the image's command.
    let (entrypoint, image_cmd) = match &config.entrypoint {
        Some(entrypoint) => (entrypoint.as_slice(), &[][..]),
        None => (image.config.entrypoint.as_slice(), image.config.cmd.as_slice()),
    };
    let cmd = if config.cmd.is_empty() { image_cmd } else { config.cmd.as_slice() };
    let mut args: Vec<String> = entrypoint.iter().chain(cmd).cloned().collect();
    if image.is_wasm() {
        // An image that is nothing but a module names no program: argv[0] is the image's own name.
        if entrypoint.is_empty() && matches!(image.wasm, Some(WasmEntry::Blob(_))) {
            let name = config.image.rsplit('/').next().unwrap_or_default();
            let name = name.split([':', '@']).next().unwrap_or_default();
            args.insert(0, name.to_owned());
        }
    } else if args.is_empty() {
        return Err(Error::new(Class::InvalidInput, "no command specified")
            .with_hint("the image names no command: give one after the image's name"));
    }
    Ok(args)
}

/// The environment, in docker's order: the container's, then what of the image's it does not name. A name alone takes
/// the variable away.
pub fn env(config: &ContainerConfig, image: &Image) -> Vec<String> {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let mut env: Vec<String> = Vec::with_capacity(image.config.env.len() + config.env.len());
    let images = image.config.env.iter().filter(|entry| !config.env.iter().any(|own| name(own) == name(entry)));
    for entry in config.env.iter().chain(images) {
        match env.iter().position(|e| name(e) == name(entry)) {
            Some(at) if entry.contains('=') => env[at].clone_from(entry),
            Some(at) => drop(env.remove(at)),
            None if entry.contains('=') => env.push(entry.clone()),
            None => {}
        }
    }
    env
}

/// What of the config cannot be done for this image is refused; what has no effect is named in a warning.
///
/// # Errors
/// `InvalidInput`, naming the flag.
pub fn check(container: &Container) -> Result<Vec<String>> {
    let config = &container.config;
    if let Some((socket, _)) = &LogPolicy::of(container)?.journal {
        journal::check(socket)?;
    }
    if let Some(signal) = &config.stop_signal {
        signal::parse(signal)?;
    }
    if let Some(score) = config.oom_score_adj.filter(|score| !(-1000..=1000).contains(score)) {
        let message = format!("Invalid value {score}, range for oom score adj is [-1000, 1000]");
        return Err(Error::new(Class::InvalidInput, message));
    }
    let mut warnings = linux::check(config)?;
    check_runtime(container)?;
    if config.cgroup_parent.as_deref().is_some_and(|parent| !is_inner(parent)) {
        return Err(Error::new(Class::InvalidInput, "--cgroup-parent must be the path of a cgroup, as /machines/web"));
    }
    warnings.extend(match container.backend() {
        BackendKind::Linux if config.timeout_ms.is_some() => {
            Err(Error::new(Class::InvalidInput, "--timeout works for WebAssembly images only"))
        }
        BackendKind::Linux if config.requests != RequestLimits::default() => {
            let flags = "--max-requests, --request-memory and --request-timeout";
            Err(Error::new(Class::InvalidInput, format!("{flags} work for WebAssembly images only")))
        }
        BackendKind::Linux if config.storage_size.is_some() => {
            Err(Error::new(Class::InvalidInput, "--storage-opt size works for WebAssembly images only"))
        }
        BackendKind::Linux => check_linux(container),
        BackendKind::Wasm => check_wasm(config),
    }?);
    Ok(warnings)
}

/// A path below the root of a hierarchy that leads nowhere else.
pub(crate) fn is_inner(path: &str) -> bool {
    path.split('/').all(|part| !part.is_empty() && part != "." && part != ".." && !part.contains('\n'))
}

/// The runtime is what the image needs; naming it changes nothing, naming another is an error.
fn check_runtime(container: &Container) -> Result<()> {
    let backend = container.backend().name();
    match container.config.runtime.as_deref() {
        None => Ok(()),
        Some(name) if name == backend => Ok(()),
        Some(name @ ("linux" | "wasm")) => {
            let message = format!("the runtime {name} cannot run this image, which needs {backend}");
            Err(Error::new(Class::InvalidInput, message))
        }
        Some(name) => Err(Error::new(Class::InvalidInput, format!("unknown or invalid runtime name: {name}"))
            .with_hint("there are linux and wasm, and each image has the one it needs")),
    }
}

/// Bytes of the longest name of a host: `HOST_NAME_MAX` (gethostname(2)).
const HOSTNAME: usize = 64;

/// Ports and names need a network to be on, and what a guest may reach is asked for guests only.
fn check_linux(container: &Container) -> Result<Vec<String>> {
    let config = &container.config;
    let guests = [("--allow-net", !config.allow_net.is_empty()), ("--deny-net", !config.deny_net.is_empty())];
    if let Some((flag, _)) = guests.iter().find(|(_, given)| *given) {
        return Err(Error::new(Class::Unsupported, format!("{flag} works for WebAssembly images only")));
    }
    if !linux::is_root() {
        let roots = [
            ("--pid", config.pid != PidMode::Own),
            ("--ipc container:", matches!(config.ipc, IpcMode::Container(_))),
            ("--device-cgroup-rule", !config.device_rules.is_empty()),
        ];
        if let Some((flag, _)) = roots.iter().find(|(_, given)| *given) {
            return Err(Error::new(Class::Unsupported, format!("only root can use {flag}")));
        }
    }
    if let Some(name) = config.hostname.as_deref().filter(|name| name.len() > HOSTNAME) {
        let message = format!("invalid hostname: it has {} bytes, at most {HOSTNAME} are allowed", name.len());
        return Err(Error::new(Class::InvalidInput, message));
    }
    if config.host_uts && config.hostname.is_some() {
        return Err(Error::new(Class::InvalidInput, "conflicting options: hostname and the UTS mode"));
    }
    if matches!(config.network, NetworkMode::Container(_)) {
        check_shared_network(config)?;
    }
    let published = [("--publish", !config.ports.is_empty()), ("--publish-all", config.publish_all)];
    match linux::network::wanted(container) {
        Some(_) => Ok(Vec::new()),
        None if linux::usernet::is_wanted(container) => Ok(Vec::new()),
        None if config.is_on_default_alone() && published.iter().any(|(_, given)| *given) => {
            let message = "publishing ports of Linux containers without root needs the program pasta or slirp4netns";
            Err(Error::new(Class::Unsupported, message).with_hint(linux::usernet::ADVICE))
        }
        // Docker's words for ports that need no publishing.
        None if config.network == NetworkMode::Host && published.iter().any(|(_, given)| *given) => {
            Ok(vec!["Published ports are discarded when using host network mode".to_owned()])
        }
        None => Ok(Vec::new()),
    }
}

/// What belongs to the other container cannot be asked for; in docker's words.
fn check_shared_network(config: &ContainerConfig) -> Result<()> {
    let conflicts = [
        ("hostname and the network mode", config.hostname.is_some()),
        ("dns and the network mode", !config.dns.is_empty()),
        ("custom host-to-IP mapping and the network mode", !config.extra_hosts.is_empty()),
        ("port publishing and the container type network mode", !config.ports.is_empty() || config.publish_all),
        ("port exposing and the container type network mode", !config.expose.is_empty()),
    ];
    if let Some((what, _)) = conflicts.iter().find(|(_, given)| *given) {
        return Err(Error::new(Class::InvalidInput, format!("conflicting options: {what}")));
    }
    let other_sysctl = config.sysctls.keys().find(|name| name.starts_with("net."));
    if let Some(name) = other_sysctl {
        return Err(Error::new(
            Class::InvalidInput,
            format!("sysctl {name:?} not allowed in container network namespace"),
        ));
    }
    if !linux::is_root() {
        return Err(Error::new(Class::Unsupported, "only root can use --network container:"));
    }
    Ok(())
}

fn check_wasm(config: &ContainerConfig) -> Result<Vec<String>> {
    let refused = [
        ("--privileged", config.privileged),
        ("--cap-add", !config.cap_add.is_empty()),
        ("--device", !config.devices.is_empty()),
        ("--device-cgroup-rule", !config.device_rules.is_empty()),
        ("--sysctl", !config.sysctls.is_empty()),
        ("--pid", config.pid != PidMode::Own),
        ("--ipc", config.ipc != IpcMode::Private),
        ("--network container:", matches!(config.network, NetworkMode::Container(_))),
        ("--uts", config.host_uts),
        ("--cgroupns", config.host_cgroups),
    ];
    if let Some((flag, _)) = refused.iter().find(|(_, given)| *given) {
        return Err(Error::new(
            Class::InvalidInput,
            format!("{flag} cannot be used with a WebAssembly image: the guest has no kernel to ask for it"),
        ));
    }
    let idle = [
        ("--user", config.user.is_some()),
        ("--group-add", !config.group_add.is_empty()),
        ("--init", config.init),
        ("--cap-drop", !config.cap_drop.is_empty()),
        ("--security-opt", !config.security_opt.is_empty()),
        ("--shm-size", config.shm_size.is_some()),
        ("--ulimit, but for nofile,", config.ulimits.keys().any(|name| name != "nofile")),
        ("--domainname", config.domainname.is_some()),
        ("--userns", config.host_users),
        ("--dns-option", !config.dns_options.is_empty()),
        ("--dns-search", !config.dns_search.is_empty()),
        ("--oom-score-adj", config.oom_score_adj.is_some()),
        ("--link", config.places().iter().any(|place| !place.links.is_empty())),
        ("--mac-address", config.places().iter().any(|place| place.mac.is_some())),
    ];
    let warning = |(flag, _): &(&str, bool)| format!("{flag} has no effect on a WebAssembly image");
    let mut warnings: Vec<_> = idle.iter().filter(|(_, given)| *given).map(warning).collect();
    if matches!(config.network, NetworkMode::Host | NetworkMode::None) && !config.ports.is_empty() {
        let mode = if config.network == NetworkMode::Host { "host" } else { "none" };
        warnings.push(format!("Published ports are discarded when using {mode} network mode"));
    }
    Ok(warnings)
}

/// The whole plan of a container, and the files to be written before it is executed. A Linux container's bytes need not be
/// made yet, nor those of a wasm container whose compiled module is `known` ([`modules::known`]).
///
/// # Errors
/// What the config asks for and cannot be; the compiler's, for a module that is still to be compiled.
pub(crate) fn task_spec(
    engine: &Engine,
    container: &Container,
    known: Option<Program>,
) -> Result<(TaskSpec, Vec<PlannedFile>)> {
    let mut files = Vec::new();
    let mut rootfs = engine.images()?.snapshots.plan(&container.id, &container.image.diff_ids())?;
    let workload = match container.backend() {
        BackendKind::Linux => {
            Workload::Linux(Box::new(linux::plan::linux_task(engine, container, &mut files, &mut rootfs)?))
        }
        BackendKind::Wasm => Workload::Wasm(Box::new(wasm_task(engine, container, known)?)),
    };
    let limits = container.config.limits.clone();
    Ok((
        TaskSpec { workload, limits, rootfs, ..remains(&container.id, container.config.cgroup_parent.as_deref()) },
        files,
    ))
}

/// A file of the host that the container mounts.
#[derive(Debug)]
pub(crate) struct PlannedFile {
    pub path: PathBuf,
    pub bytes: Vec<u8>,
}

impl PlannedFile {
    pub fn write(&self) -> Result<()> {
        std::fs::write(&self.path, &self.bytes).map_err(|e| Error::io("write", &self.path, e))
    }
}

/// As much of a plan as finds what a dead monitor left.
pub(crate) fn remains(id: &str, cgroup_parent: Option<&str>) -> TaskSpec {
    TaskSpec {
        id: id.to_owned(),
        rootfs: Rootfs::Dir(PathBuf::new()),
        limits: Limits::default(),
        cgroup: format!("{}/{id}", cgroup_parent.unwrap_or("wharf")),
        workload: Workload::Wasm(Box::default()),
    }
}

fn wasm_task(engine: &Engine, container: &Container, known: Option<Program>) -> Result<WasmTask> {
    let (config, image) = (&container.config, &container.image);
    let working_dir = config.working_dir.as_deref().unwrap_or(&image.config.working_dir);
    let mut env: Vec<(String, String)> = env(config, image)
        .iter()
        .map(|e| e.split_once('=').map_or((e.clone(), String::new()), |(n, v)| (n.to_owned(), v.to_owned())))
        .collect();
    // Unless somebody has said something else, or that there is to be none.
    let told = |e: &String| e.split('=').next() == Some("HOSTNAME");
    if !config.env.iter().chain(&image.config.env).any(told) {
        env.push(("HOSTNAME".to_owned(), hostname(container).to_owned()));
    }
    let program = known.map_or_else(|| modules::compiled(engine, container), Ok)?;
    Ok(WasmTask {
        module: program.path,
        args: container.args.clone(),
        env,
        cwd: if working_dir.is_empty() { "/".to_owned() } else { working_dir.to_owned() },
        mounts: wasm_mounts(engine, container)?,
        read_only: config.read_only,
        storage: config.storage_size,
        open_files: config.ulimits.get("nofile").map(|(soft, _)| *soft),
        timeout_ms: config.timeout_ms,
        function: match &image.wasm {
            Some(WasmEntry::File { function, .. }) => function.clone(),
            _ => None,
        },
        network: wasm_network(container)?,
        http: if program.serves { Some(http_task(container)?) } else { None },
    })
}

/// The limits of a request, unless the container has others.
const REQUEST_TIMEOUT_MS: u64 = 60_000;
const REQUEST_MEMORY: u64 = 256 << 20;
const REQUESTS: usize = 100;

fn http_task(container: &Container) -> Result<HttpTask> {
    let config = &container.config;
    let limits = &config.requests;
    Ok(HttpTask {
        port: http_port(config, &container.image.config)?,
        timeout_ms: Some(limits.timeout_ms.unwrap_or(REQUEST_TIMEOUT_MS)).filter(|ms| *ms > 0),
        memory: limits.memory.unwrap_or(REQUEST_MEMORY),
        concurrency: limits.concurrency.unwrap_or(REQUESTS),
        access_log: config.log.driver != "none",
    })
}

/// The port that a component which serves HTTP answers on, as it says nothing of ports itself: the first TCP port that is
/// exposed, else the first that is published, else 80.
///
/// # Errors
/// As [`published`].
pub fn http_port(config: &ContainerConfig, image: &RunConfig) -> Result<u16> {
    let exposed = all_exposed(config, image)?.into_iter().find(|e| e.protocol == Protocol::Tcp).map(|e| e.port);
    let published = || config.ports.iter().find(|p| p.protocol == Protocol::Tcp).map(|p| p.container_port);
    Ok(exposed.or_else(published).unwrap_or(80))
}

fn wasm_network(container: &Container) -> Result<WasmNetwork> {
    let config = &container.config;
    Ok(WasmNetwork {
        mode: match (&config.network, config.places().first()) {
            (NetworkMode::Host, _) => WasmMode::Host,
            (_, Some(place)) => WasmMode::Network(place.network.clone()),
            (_, None) => WasmMode::None,
        },
        published: match &config.network {
            NetworkMode::Default | NetworkMode::Named(_) => published(config, &container.image)?,
            // The host's network needs no publishing, and without one there is nobody to publish for.
            NetworkMode::None | NetworkMode::Host | NetworkMode::Container(_) => Vec::new(),
        },
        allow: config.allow_net.clone(),
        deny: config.deny_net.clone(),
    })
}

/// The ports that are to be published: those named, and with `--publish-all` every exposed one that is not among them.
///
/// # Errors
/// `InvalidInput` when the image exposes what is no port.
pub fn published(config: &ContainerConfig, image: &Image) -> Result<Vec<PortBinding>> {
    let mut ports = config.ports.clone();
    if config.publish_all {
        for exposed in exposed(config, image)? {
            if !ports.iter().any(|p| (p.container_port, p.protocol) == (exposed.port, exposed.protocol)) {
                ports.push(PortBinding::any(exposed));
            }
        }
    }
    Ok(ports)
}

/// The ports that the image and the container expose, each once.
///
/// # Errors
/// As [`published`].
pub fn exposed(config: &ContainerConfig, image: &Image) -> Result<Vec<ExposedPort>> {
    all_exposed(config, &image.config)
}

fn all_exposed(config: &ContainerConfig, image: &RunConfig) -> Result<Vec<ExposedPort>> {
    let mut exposed = config.expose.clone();
    for text in &image.exposed_ports {
        exposed.extend(ports::parse_expose(text).map_err(|e| Error::new(Class::InvalidInput, e))?);
    }
    exposed.sort_unstable();
    exposed.dedup();
    Ok(exposed)
}

/// Makes the directory that a bind mount asks to be made.
pub(crate) fn ensure_source(bind: &BindMount) -> Result<()> {
    if !bind.create_source {
        return Ok(());
    }
    std::fs::create_dir_all(&bind.source).or_else(|e| match e.kind() {
        // A file, or something else that can be mounted.
        std::io::ErrorKind::AlreadyExists => Ok(()),
        _ => Err(Error::io("create the source of a bind mount", &bind.source, e)),
    })
}

fn wasm_mounts(engine: &Engine, container: &Container) -> Result<Vec<WasmMount>> {
    let mut mounts = Vec::with_capacity(container.config.mounts.len());
    for (number, mount) in container.config.mounts.iter().enumerate() {
        let mut size = None;
        let source = match &mount.kind {
            MountKind::Bind(bind) => {
                ensure_source(bind)?;
                PathBuf::from(&bind.source)
            }
            MountKind::Volume(volume) => {
                let source = engine.volumes().open(&volume.name)?;
                let (target, subpath) = (mount.target.clone(), volume.subpath.clone());
                let read_only = mount.read_only || source.read_only;
                mounts.push(WasmMount { source: source.path, subpath, target, read_only, size: None });
                continue;
            }
            MountKind::Tmpfs(options) => {
                size = tmpfs_size(options)?;
                let dir = engine.paths().container(&container.id).join(format!("tmpfs-{number}"));
                paths::make_dir(&dir)?;
                dir
            }
        };
        let (target, read_only) = (mount.target.clone(), mount.read_only);
        mounts.push(WasmMount { source, subpath: None, target, read_only, size });
    }
    Ok(mounts)
}

/// The `size` among a tmpfs's options, in bytes: the last, with tmpfs(5)'s suffixes `k`, `m` and `g`.
fn tmpfs_size(options: &str) -> Result<Option<u64>> {
    let Some(size) = options.split(',').rev().find_map(|option| option.strip_prefix("size=")) else { return Ok(None) };
    let digits = size.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match size[digits.len()..].to_ascii_lowercase().as_str() {
        "" => Some(0),
        "k" => Some(10),
        "m" => Some(20),
        "g" => Some(30),
        _ => None,
    };
    let bytes = shift.and_then(|shift| digits.parse::<u64>().ok()?.checked_mul(1 << shift));
    bytes.map(Some).ok_or_else(|| {
        Error::new(Class::InvalidInput, format!("invalid size of a tmpfs: {size:?}"))
            .with_hint("give a number of bytes, or one with the suffix k, m or g")
    })
}

/// The container's host name: given, or the short id.
pub fn hostname(container: &Container) -> &str {
    container.config.hostname.as_deref().unwrap_or_else(|| container.short_id())
}
