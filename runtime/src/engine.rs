//! The facade: everything that the command line, the API server and embedders ask for.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, TryLockError};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use wharf_images::db::Db;
use wharf_images::events::NewEvent;
use wharf_images::lease::Lease;
use wharf_images::registry::Registry;
use wharf_images::store::{Filters, Pruned, Removed};
use wharf_images::{Class, Digest, Image, ImageStore, Reference, Reporter};

use crate::backend::modules;
use crate::config::{ContainerConfig, EndpointConfig, NetworkMode};
use crate::container::{BackendKind, Container, Status};
use crate::error::{Error, Result};
pub use crate::linux::session::Session;
use crate::monitor::log::{LogLine, LogOptions, LogReader};
pub use crate::monitor::protocol::ExecState;
use crate::monitor::protocol::{Reply, Request};
use crate::monitor::{ExitRecord, client};
use crate::network::store::{self as network, Attachment};
use crate::network::{BRIDGE, Endpoint, PortBinding, networks};
use crate::paths::{self, Paths};
use crate::restart::RestartPolicy;
use crate::state::{Event, State};
use crate::store::{self, Store};
use crate::task::{ExecSpec, Exit, Limits, Usage};
use crate::{linux, names, plan, signal, volume};

/// Where an instance lives. Two instances with other directories never meet.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `--root`/`WHARF_ROOT`: all state, and the run directory beneath it. `None`: `/var/lib/wharf` and `/run/wharf` as root,
    /// else the XDG data and runtime directories.
    pub root: Option<PathBuf>,
    /// The run directory, if it is to be elsewhere than `root` says.
    pub run: Option<PathBuf>,
    /// `--config`: the directory of docker's `config.json`, with the credentials for pulls. `None`: `DOCKER_CONFIG`, or
    /// `~/.docker`.
    pub docker_config: Option<PathBuf>,
}

/// When `create` asks the registry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Always.
    Always,
    /// When the image is not here.
    #[default]
    Missing,
    /// Never.
    Never,
}

/// What `create` made.
#[derive(Debug, Clone)]
pub struct Created {
    /// The container's id.
    pub id: String,
    /// What the person should know ("Your kernel does not support swap limit capabilities ...").
    pub warnings: Vec<String>,
    /// Its image was not here, and had to be brought.
    pub brought: bool,
}

/// Which streams a client wants. Nothing attached is `--detach`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Attach {
    /// Send our stdin.
    pub stdin: bool,
    /// Receive its stdout (of a terminal: everything).
    pub stdout: bool,
    /// Receive its stderr.
    pub stderr: bool,
    /// The terminal's size as rows and columns, if there is one.
    pub size: Option<(u16, u16)>,
}

/// What `update` changes.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Change {
    /// Limits; `None` leaves them as they are.
    pub limits: Limits,
    /// The restart policy.
    pub restart: Option<RestartPolicy>,
}

impl Change {
    /// Makes the change in what was asked for.
    pub(crate) fn apply(&self, config: &mut ContainerConfig) {
        let (new, limits) = (self.limits.clone(), &mut config.limits);
        // One way to limit CPU time replaces the other.
        if new.nano_cpus.is_some() {
            (limits.cpu_period, limits.cpu_quota) = (None, None);
        }
        if new.cpu_period.is_some() || new.cpu_quota.is_some() {
            limits.nano_cpus = None;
        }
        *limits = Limits {
            memory: new.memory.or(limits.memory),
            memory_swap: new.memory_swap.or(limits.memory_swap),
            memory_reservation: new.memory_reservation.or(limits.memory_reservation),
            nano_cpus: new.nano_cpus.or(limits.nano_cpus),
            cpu_period: new.cpu_period.or(limits.cpu_period),
            cpu_quota: new.cpu_quota.or(limits.cpu_quota),
            cpu_shares: new.cpu_shares.or(limits.cpu_shares),
            cpuset_cpus: new.cpuset_cpus.or(limits.cpuset_cpus.take()),
            cpuset_mems: new.cpuset_mems.or(limits.cpuset_mems.take()),
            pids: new.pids.or(limits.pids),
            blkio_weight: new.blkio_weight.or(limits.blkio_weight),
            oom_kill_disable: new.oom_kill_disable || limits.oom_kill_disable,
        };
        config.restart = self.restart.unwrap_or(config.restart);
    }
}

/// What becomes of a container's places on networks.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Reconnect {
    /// It gets one more.
    Connect(EndpointConfig),
    /// It loses the one on this network.
    Disconnect(String),
}

impl Reconnect {
    /// Only a container with a network of its own can be connected to others.
    fn check(&self, container: &Container) -> Result<()> {
        let conflict = |message: &str| Err(Error::new(Class::Conflict, message));
        match container.config.network {
            NetworkMode::Host | NetworkMode::None | NetworkMode::Container(_) if matches!(self, Reconnect::Disconnect(network) if network != "host") => {
                self.apply(container, &mut Vec::new())
            }
            NetworkMode::Host => {
                conflict("container cannot be disconnected from host network or connected to host network")
            }
            NetworkMode::None => conflict(
                "container cannot be connected to multiple networks with one of the networks in private (none) mode",
            ),
            NetworkMode::Container(_) => conflict(
                "container sharing network namespace with another container or host cannot be connected to any other network",
            ),
            NetworkMode::Default | NetworkMode::Named(_) => {
                self.apply(container, &mut container.config.places().into_owned())
            }
        }
    }

    /// Makes the change in what was asked for.
    pub(crate) fn apply(&self, container: &Container, places: &mut Vec<EndpointConfig>) -> Result<()> {
        let Container { id, name, .. } = container;
        match self {
            Reconnect::Connect(place) if places.iter().any(|known| known.network == place.network) => {
                if !container.state.state.is_live() {
                    // It will be there when it starts, as it was first asked for.
                    return Ok(());
                }
                let message = format!("endpoint with name {name} already exists in network {}", place.network);
                return Err(Error::new(Class::Conflict, message));
            }
            Reconnect::Connect(place) => places.push(place.clone()),
            // From there on it is as any other, on no network yet.
            Reconnect::Disconnect(network) if network == "none" && container.config.network == NetworkMode::None => {}
            Reconnect::Disconnect(network) => {
                let Some(at) = places.iter().position(|known| known.network == *network) else {
                    let the = if container.state.state.is_live() { "" } else { "the " };
                    let message = format!("container {id} is not connected to {the}network {network}");
                    return Err(Error::new(Class::Conflict, message));
                };
                places.remove(at);
            }
        }
        Ok(())
    }
}

/// A container (or an exec) that runs.
#[derive(Debug)]
pub struct Started {
    /// The container's id.
    pub id: String,
    /// Warnings of `create`.
    pub warnings: Vec<String>,
    /// The connection to its monitor; `None` when nothing was to be attached.
    pub session: Option<Session>,
}

/// Which containers `list` gives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// Also those that do not run.
    pub all: bool,
}

/// An instance of Wharf. Opening one does nearly nothing; what a call needs is opened by the call.
#[derive(Debug)]
pub struct Engine {
    paths: Paths,
    docker_config: Option<PathBuf>,
    stores: OnceLock<Stores>,
}

struct Stores {
    images: ImageStore,
    containers: Store,
}

impl std::fmt::Debug for Stores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stores")
    }
}

/// A container that is to be: its image is here, nothing is made yet.
pub(crate) struct Designed {
    pub container: Container,
    pub warnings: Vec<String>,
    /// Its image had to be brought: much memory and perhaps threads were used.
    pub brought: bool,
    /// Protects the bytes until the record is written.
    pub protection: Protection,
}

/// Keeps the bytes of a container that is being made from being swept or removed, until its record is written.
#[derive(Debug)]
pub(crate) struct Protection {
    _lease: Lease,
    volumes: Vec<volume::Held>,
}

/// What [`Engine::remove`] does besides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// Kill one that runs first.
    pub force: bool,
    /// Remove the volumes that were made for it alone.
    pub volumes: bool,
}

impl Engine {
    /// Opens an instance. Directories are made when something is first written.
    ///
    /// # Errors
    /// Fails when the environment names no place for it.
    pub fn open(options: Options) -> Result<Self> {
        let paths = Paths::new(options.root.as_deref(), options.run.as_deref())?;
        linux::archives::help_to_remove();
        Ok(Engine { paths, docker_config: options.docker_config, stores: OnceLock::new() })
    }

    /// The same instance anew, with nothing open: for another thread, or a forked child.
    #[must_use]
    pub fn reopened(&self) -> Self {
        Engine { paths: self.paths.clone(), docker_config: self.docker_config.clone(), stores: OnceLock::new() }
    }

    /// Where it keeps its things.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    fn stores(&self) -> Result<&Stores> {
        if let Some(stores) = self.stores.get() {
            return Ok(stores);
        }
        let root = &self.paths.root;
        paths::make_dir(root)?;
        let schemas =
            [wharf_images::store::SCHEMA, store::SCHEMA, store::volumes::SCHEMA, network::SCHEMA, networks::SCHEMA];
        let db = Arc::new(Db::open(root, &schemas)?);
        let images = ImageStore::open(root, Arc::clone(&db))?;
        Ok(self.stores.get_or_init(|| Stores { images, containers: Store::new(db) }))
    }

    /// True once the database has been opened: this process must not fork any more, but to execute another program.
    pub fn is_used(&self) -> bool {
        self.stores.get().is_some()
    }

    /// Closes the database until it is next needed.
    pub(crate) fn close(&mut self) {
        self.stores = OnceLock::new();
    }

    pub(crate) fn containers(&self) -> Result<&Store> {
        Ok(&self.stores()?.containers)
    }

    /// Names, content and snapshots of images.
    ///
    /// # Errors
    /// Fails when the root directory or the database cannot be opened.
    pub fn images(&self) -> Result<&ImageStore> {
        Ok(&self.stores()?.images)
    }

    /// The container that `name` (a name, an id or an unambiguous part of an id) means, its state repaired if its monitor died.
    ///
    /// # Errors
    /// `NotFound` ("No such container: x"), `InvalidInput` when several fit.
    pub fn container(&self, name: &str) -> Result<Container> {
        let container = self.containers()?.find(name)?;
        self.refreshed(container)?.ok_or_else(|| no_such(name))
    }

    /// The containers, newest first, states repaired.
    ///
    /// # Errors
    /// The database's.
    pub fn list(&self, options: ListOptions) -> Result<Vec<Container>> {
        let mut found = Vec::new();
        for container in self.containers()?.list(!options.all)? {
            if let Some(container) = self.refreshed(container)?
                && (options.all || container.state.state.is_live())
            {
                found.push(container);
            }
        }
        Ok(found)
    }

    /// The short ids of the containers that need the image with this id: `rmi` asks.
    ///
    /// # Errors
    /// The database's.
    pub fn users_of_image(&self, image: &wharf_images::Digest) -> Result<Vec<String>> {
        self.containers()?.users_of_image(image)
    }

    /// Who needs an image. When that cannot be learned, somebody is taken to need it.
    pub fn needers(&self, id: &Digest) -> Vec<String> {
        self.users_of_image(id).unwrap_or_else(|e| vec![format!("(unknown: {e})")])
    }

    /// Removes a name of an image, and with the last one the image, and what was compiled of it.
    ///
    /// # Errors
    /// As [`ImageStore::remove`].
    pub fn remove_image(&self, name: &str, force: bool) -> Result<Vec<Removed>> {
        let removed = self.images()?.remove(name, force, &|id| self.needers(id))?;
        if removed.iter().any(|removed| matches!(removed, Removed::Deleted(_))) {
            modules::sweep(self)?;
        }
        Ok(removed)
    }

    /// Removes dangling images, or with `all` every image that no container needs, and what was compiled of images that are
    /// gone.
    ///
    /// # Errors
    /// As [`ImageStore::prune`].
    pub fn prune_images(&self, all: bool, filters: &Filters) -> Result<Pruned> {
        let mut pruned = self.images()?.prune(all, filters, &|id| self.needers(id))?;
        pruned.reclaimed += modules::sweep(self)?;
        Ok(pruned)
    }

    /// Finds the image, or brings it. The second value says whether it was brought.
    ///
    /// # Errors
    /// `NotFound`, the registry's.
    pub fn ensure_image(
        &self,
        name: &str,
        platform: Option<&wharf_images::Platform>,
        pull: PullPolicy,
        reporter: &dyn Reporter,
    ) -> Result<(Image, bool)> {
        let images = self.images()?;
        let absent = match pull {
            PullPolicy::Always => None,
            PullPolicy::Missing | PullPolicy::Never => match images.resolve(name, platform) {
                Ok(image) => return Ok((image, false)),
                Err(e) if e.class() == Class::NotFound => Some(e),
                Err(e) => return Err(e.into()),
            },
        };
        let reference: Reference = name.parse()?;
        if reference.is_builtin() {
            return Ok((modules::install_builtin(images, &reference)?, false));
        }
        if let (PullPolicy::Never, Some(e)) = (pull, absent) {
            return Err(e.into());
        }
        if pull == PullPolicy::Missing {
            reporter.report(wharf_images::Progress::Line(&format!(
                "Unable to find image '{}' locally",
                reference.familiar()
            )));
        }
        let registry = Registry::from_environment(self.docker_config.as_deref())?;
        let image = registry.pull(images, &reference, platform, reporter)?;
        Ok((image, true))
    }

    /// Compiles a wasm image's module, so that no `run` waits for it: to be called when an image has come in. Other images,
    /// and those whose program is a file of their root filesystem, are left as they are.
    ///
    /// # Errors
    /// What the compiler says of the module.
    pub fn compile(&self, image: &Image) -> Result<()> {
        modules::ensure_image(self.images()?, image)
    }

    /// Brings the image, and makes the container's bytes.
    ///
    /// Nothing of it is on the disk yet.
    pub(crate) fn design(
        &self,
        id: String,
        config: &ContainerConfig,
        pull: PullPolicy,
        reporter: &dyn Reporter,
    ) -> Result<Designed> {
        if let Some(name) = &config.name {
            names::check(name)?;
        }
        paths::make_dir(&self.paths.root)?;
        let lease = Lease::take(&self.paths.root)?;
        let mut config = config.clone();
        self.name_networks(&mut config)?;
        // On other networks a neighbour may come later.
        for (other, _) in config.places().iter().filter(|place| place.network == BRIDGE).flat_map(|place| &place.links)
        {
            self.container(other).map_err(|e| e.within(&format!("could not get container for {other}")))?;
        }
        let (image, brought) = self.ensure_image(&config.image, config.platform.as_ref(), pull, reporter)?;
        for other in config.joined() {
            *other = self.container(other)?.id;
        }
        // Whoever takes the name meanwhile is found when the record is written.
        if let Some(name) = &config.name {
            self.containers()?.check_free(name)?;
        }
        config.mounts = volume::resolve(self, &config, &image)?;
        let container = Container {
            args: plan::args(&config, &image)?,
            name: String::new(),
            config,
            created: Timestamp::now(),
            state: Status::default(),
            image,
            id,
        };
        let warnings = plan::check(&container)?;
        let protection = Protection { _lease: lease, volumes: Vec::new() };
        Ok(Designed { container, warnings, brought, protection })
    }

    /// Networks may be asked for by their ids; from here on they are called by their names.
    fn name_networks(&self, config: &mut ContainerConfig) -> Result<()> {
        let name = |given: &mut String| {
            if given != BRIDGE {
                let missing = || networks::no_such(given).with_hint("see `wharf network ls`");
                *given = networks::find(self.containers()?.db(), given)?.ok_or_else(missing)?.name;
            }
            Ok::<_, Error>(())
        };
        if let NetworkMode::Named(network) = &mut config.network {
            name(network)?;
        }
        let places = config.endpoints.as_deref_mut().unwrap_or_default();
        for at in 0..places.len() {
            name(&mut places[at].network)?;
            let network = &places[at].network;
            if places[..at].iter().any(|before| before.network == *network) {
                let message = format!("network {network:?} is specified multiple times");
                return Err(Error::new(Class::InvalidInput, message));
            }
        }
        Ok(())
    }

    /// Makes what a container has on disk, before its record, and the volumes that it names.
    pub(crate) fn make_bytes(&self, container: &Container, protection: &mut Protection) -> Result<()> {
        self.make_tree(container)?;
        if container.image.is_wasm() {
            modules::ensure(self, container)?;
        }
        if container.config.mounts.iter().any(|mount| mount.volume().is_some()) {
            let rootfs = self.images()?.snapshots.mounts(&container.id)?;
            protection.volumes = volume::hold(self, &container.config.mounts, &rootfs)?;
        }
        Ok(())
    }

    /// Takes away all that was made for a container that is not to be: `--rm`, and what could not be made.
    pub(crate) fn discard(&self, container: &Container) -> Result<()> {
        self.volumes().remove_anonymous(&container.config.mounts)?;
        self.remove_bytes(&container.id, None)
    }

    /// The root filesystem and the directory for its other files.
    pub(crate) fn make_tree(&self, container: &Container) -> Result<()> {
        let images = self.images()?;
        images.ensure_unpacked(&container.image, &wharf_images::NoReport)?;
        images.snapshots.prepare(&container.id, &container.image.diff_ids())?;
        paths::make_dir(&self.paths.container(&container.id))
    }

    /// Makes its bytes, then its record.
    pub(crate) fn make(&self, designed: &mut Designed) -> Result<()> {
        let Designed { container, protection, .. } = designed;
        let made = self.make_bytes(container, protection).and_then(|()| self.containers()?.insert(container, false));
        protection.volumes.clear();
        if made.is_err() {
            self.discard(container)?;
        }
        made
    }

    /// Takes away what a container has on disk. Its record is gone already.
    pub(crate) fn remove_bytes(&self, id: &str, lock: Option<File>) -> Result<()> {
        self.images()?.snapshots.remove(id)?;
        paths::remove_dir(&self.paths.container(id))?;
        // Not every system removes a directory in which a file is open.
        drop(lock);
        paths::remove_dir(&self.paths.run_container(id))
    }

    /// Brings the image (pulling as `pull` says), makes the container's bytes, then its record.
    ///
    /// # Errors
    /// `Conflict` when the name is taken; the registry's; `InvalidInput` for a config that cannot be.
    pub fn create(&self, config: &ContainerConfig, pull: PullPolicy, reporter: &dyn Reporter) -> Result<Created> {
        let mut designed = self.design(names::new_id()?, config, pull, reporter)?;
        self.make(&mut designed)?;
        Ok(Created { id: designed.container.id, warnings: designed.warnings, brought: designed.brought })
    }

    /// `create` and `start` in one, the fast way. In a single-threaded process the work is done by a forked child, which
    /// becomes the monitor.
    ///
    /// # Errors
    /// As [`Engine::create`] and [`Engine::start`].
    pub fn run(
        &self,
        config: &ContainerConfig,
        pull: PullPolicy,
        attach: Option<Attach>,
        reporter: &dyn Reporter,
    ) -> Result<Started> {
        if let Some(started) = linux::monitor::fork_run(self, config, pull, attach, reporter) {
            return started;
        }
        let created = self.create(config, pull, reporter)?;
        let mut started = self.start(&created.id, attach).inspect_err(|_| {
            // One that never ran leaves nothing. What cannot be removed now is shown by `ps -a`.
            let _ = self.remove(&created.id, RemoveOptions { volumes: true, force: false });
        })?;
        started.warnings = created.warnings;
        Ok(started)
    }

    /// Starts a created or exited container.
    ///
    /// # Errors
    /// [`crate::Error::Exec`] when its program cannot be executed. Starting what runs is no error and does nothing.
    pub fn start(&self, name: &str, attach: Option<Attach>) -> Result<Started> {
        if let Some(started) = linux::monitor::fork_start(self, name, attach) {
            return started;
        }
        let container = self.startable(name)?;
        if container.state.state.is_live() && self.is_locked(&container.id)? {
            let session = attach.map(|a| self.attach(&container.id, a)).transpose()?;
            return Ok(Started { id: container.id, warnings: Vec::new(), session });
        }
        linux::monitor::spawn_start(self, &container.id, attach)
    }

    /// The container that `name` means, with its state repaired, which must not be paused. What its restart policy wants
    /// to run is not started: that is what the caller is about to do.
    pub(crate) fn startable(&self, name: &str) -> Result<Container> {
        let container = self.containers()?.find(name)?;
        let container = self.repaired(container)?.ok_or_else(|| no_such(name))?;
        if container.state.state == State::Paused {
            let text = "cannot start a paused container, try unpause instead";
            return Err(Error::new(Class::Conflict, text));
        }
        Ok(container)
    }

    /// Connects to a running container.
    ///
    /// # Errors
    /// `Conflict` when it does not run.
    pub fn attach(&self, name: &str, attach: Attach) -> Result<Session> {
        let container = self.running(name)?;
        match container.state.state {
            State::Paused => {
                Err(Error::new(Class::Conflict, "You cannot attach to a paused container, unpause it first"))
            }
            _ => client::open_session(self, &container.id, &Request::Attach(attach)).map(|(_, s)| s),
        }
    }

    /// The execs of a container: those that run, and the last that have ended.
    pub fn execs(&self, container: &Container) -> Vec<ExecState> {
        match container.state.state.is_live() {
            true => linux::monitor::execs(self, &container.id),
            false => Vec::new(),
        }
    }

    /// The exec with this id, of whatever container.
    ///
    /// # Errors
    /// The database's.
    pub fn find_exec(&self, id: &str) -> Result<Option<ExecState>> {
        let running = self.list(ListOptions::default())?;
        Ok(running.iter().flat_map(|container| self.execs(container)).find(|exec| exec.id == id))
    }

    /// Starts another process in a running container. Without `attach` it runs detached.
    ///
    /// In a WebAssembly container it is a wasm file that the container sees, or another image's program, which is brought
    /// if it is not here.
    ///
    /// # Errors
    /// `Conflict` when the container does not run; [`crate::Error::Exec`].
    pub fn exec(&self, name: &str, spec: &ExecSpec, tty: bool, attach: Option<Attach>) -> Result<Started> {
        let container = self.running(name)?;
        if container.state.state == State::Paused {
            return Err(Error::new(
                Class::Conflict,
                format!("Container {} is paused, unpause the container before exec", container.name),
            ));
        }
        let (mut warnings, mut lease) = (Vec::new(), None);
        let spec = match container.backend() {
            BackendKind::Wasm => {
                lease.replace(Lease::take(&self.paths.root)?);
                if spec.user.is_some() {
                    warnings.push("--user has no effect on a WebAssembly image".to_owned());
                }
                modules::executable(self, &container, spec)?
            }
            BackendKind::Linux if spec.tool_image.is_some() => {
                return Err(Error::new(Class::InvalidInput, "--tool-image works for WebAssembly containers only"));
            }
            BackendKind::Linux => spec.clone(),
        };
        let request = Request::Exec { spec, tty, attach };
        let (_, session) = client::open_session(self, &container.id, &request)?;
        drop(lease);
        Ok(Started { id: container.id, warnings, session: attach.map(|_| session) })
    }

    /// The container, which must be running.
    fn running(&self, name: &str) -> Result<Container> {
        let container = self.container(name)?;
        if !container.state.state.is_live() {
            return Err(not_running(&container));
        }
        Ok(container)
    }

    pub(crate) fn ask(&self, container: &Container, request: &Request) -> Result<Reply> {
        match client::ask(self, &container.id, request)? {
            Reply::Error(failure) => Err(failure.into()),
            reply => Ok(reply),
        }
    }

    /// Sends a signal, by name or number.
    ///
    /// # Errors
    /// `Conflict` ("... is not running"), `InvalidInput` for an unknown signal.
    pub fn kill(&self, name: &str, signal: &str) -> Result<()> {
        let signal = signal::parse(signal).map_err(|e| match signal.parse::<i32>() {
            Ok(number) if number > 0 => {
                let system = std::env::consts::OS;
                let message =
                    format!("cannot kill container: {name}: the {system} daemon does not support signal {number}");
                Error::new(Class::InvalidInput, message)
            }
            _ => e,
        })?;
        let container = self.running(name).map_err(|e| e.within(&format!("cannot kill container: {name}")))?;
        if signal == signal::KILL {
            // Who kills wants it dead: the answer comes when it is.
            return self.ended_by(&container, &Request::Kill);
        }
        self.ask(&container, &Request::Signal(signal)).map(drop)
    }

    /// Asks it to stop, and kills it after `timeout` seconds (`None`: the container's own, else 10; negative: never). Waits for its end.
    /// Stopping what does not run is no error.
    ///
    /// # Errors
    /// The monitor's.
    pub fn stop(&self, name: &str, signal: Option<&str>, timeout: Option<i32>) -> Result<()> {
        let container = self.container(name)?;
        if !container.state.state.is_live() {
            return Ok(());
        }
        let config = &container.config;
        let signal = signal.map_or_else(|| container.stop_signal(), signal::parse)?;
        let timeout = timeout.unwrap_or(config.stop_timeout.map_or(10, |t| t as i32));
        self.ended_by(&container, &Request::Stop { signal, timeout: u32::try_from(timeout).ok() })
    }

    /// Asks for its end, which has come when the answer comes.
    fn ended_by(&self, container: &Container, request: &Request) -> Result<()> {
        match self.ask(container, request) {
            // Its monitor ended before it answered: it has stopped, or died and is repaired by the next look.
            Err(e) if e.class() == Class::Unavailable => match self.container(&container.id) {
                Err(e) if e.class() != Class::NotFound => Err(e),
                _ => Ok(()),
            },
            other => other.map(drop),
        }
    }

    /// Stops it as [`Engine::stop`] does, if it runs, and starts it.
    ///
    /// # Errors
    /// As both.
    pub fn restart(&self, name: &str, signal: Option<&str>, timeout: Option<i32>) -> Result<()> {
        let container = self.container(name)?;
        self.stop(&container.id, signal, timeout)?;
        self.start(&container.id, None)?;
        self.tell(&container.event("restart"))
    }

    /// Tells an event that is part of no change of the records: of a container, image, volume or network.
    ///
    /// # Errors
    /// The database's.
    pub fn tell(&self, event: &NewEvent) -> Result<()> {
        Ok(self.images()?.tell(event)?)
    }

    /// Waits for its end and returns its exit code.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn wait(&self, name: &str) -> Result<i32> {
        let container = self.container(name)?;
        if !container.state.state.is_live() {
            return Ok(container.state.exit_code);
        }
        match self.ask(&container, &Request::Wait) {
            Ok(Reply::Exited(code)) => Ok(code),
            Ok(_) => Err(Error::new(Class::Internal, "the monitor gave no exit code")),
            Err(e) if e.class() == Class::Unavailable => Ok(self.container(&container.id)?.state.exit_code),
            Err(e) => Err(e),
        }
    }

    /// Freezes or thaws it.
    ///
    /// # Errors
    /// `Conflict` when it does not run, or is in that state already.
    pub fn set_paused(&self, name: &str, paused: bool) -> Result<()> {
        let container = self.container(name)?;
        let refused = match (container.state.state, paused) {
            (State::Running, true) | (State::Paused, false) => None,
            (State::Paused, true) => Some("is already paused"),
            (State::Restarting | State::Starting, true) => Some("is restarting, wait until the container is running"),
            (_, true) => return Err(not_running(&container)),
            (_, false) => Some("is not paused"),
        };
        if let Some(refused) = refused {
            return Err(Error::new(Class::Conflict, format!("Container {} {refused}", container.id)));
        }
        self.ask(&container, &Request::Pause(paused)).map(drop)
    }

    /// Removes it.
    ///
    /// # Errors
    /// `Conflict`, in docker's words, for a running one.
    pub fn remove(&self, name: &str, options: RemoveOptions) -> Result<()> {
        let container = self.container(name)?;
        if container.state.state.is_live() {
            if !options.force {
                let why = match container.state.state {
                    State::Paused => "paused and must be unpaused first",
                    State::Restarting => "restarting: stop the container before removing or force remove",
                    _ => "running: stop the container before removing or force remove",
                };
                let name = &container.name;
                let text = format!("cannot remove container \"/{name}\": container is {why}");
                return Err(Error::new(Class::Conflict, text));
            }
            match self.kill(&container.id, "KILL") {
                // It has ended by itself meanwhile.
                Err(e) if e.class() == Class::Conflict => {}
                killed => killed?,
            }
        }
        // The monitor of one that has just ended still tidies up; it holds the lock while it does. Where many end at once, the
        // kernel takes down their networks one after the other.
        let mut lock = self.lock(&container.id, LOCK_PATIENCE)?;
        for _ in 0..5 {
            if lock.is_some() || self.container(&container.id)?.state.state.is_live() {
                break;
            }
            lock = self.lock(&container.id, LOCK_PATIENCE)?;
        }
        if lock.is_none() {
            return Err(Error::new(
                Class::Conflict,
                format!("container {} cannot be removed: its monitor does not end", container.name),
            ));
        }
        // It may have been killed while it did.
        self.tidy_locked(&container)?;
        self.containers()?.remove(&container, &[])?;
        if options.volumes {
            self.volumes().remove_anonymous(&container.config.mounts)?;
        }
        self.remove_bytes(&container.id, lock)
    }

    /// Gives it another name.
    ///
    /// # Errors
    /// `Conflict` when the name is taken, `InvalidInput` when it is no name.
    pub fn rename(&self, name: &str, new: &str) -> Result<()> {
        if name.is_empty() || new.is_empty() {
            return Err(Error::new(Class::InvalidInput, "Neither old nor new names may be empty"));
        }
        let container = self.container(name)?;
        let new = new.strip_prefix('/').unwrap_or(new);
        if new == container.name {
            let text = "Renaming a container with the same name as its current name";
            return Err(Error::new(Class::InvalidInput, text));
        }
        names::check_shown(new, &format!("/{new}")).map_err(|e| e.within("Error when allocating new name"))?;
        self.containers()?.rename(&container, new).map_err(|e| match e.class() {
            Class::Conflict => e.within("Error when allocating new name"),
            _ => e,
        })
    }

    /// Reads its log; with `follow`, until the container ends. `f` returns false to stop.
    ///
    /// # Errors
    /// `Unsupported` for a log driver that cannot be read.
    pub fn logs(&self, name: &str, options: &LogOptions, f: &mut dyn FnMut(&LogLine) -> bool) -> Result<()> {
        let container = self.container(name)?;
        if container.config.log.driver == "none" {
            return Err(Error::new(Class::Unsupported, "configured logging driver does not support reading"));
        }
        let path = self.paths.log(&container.id);
        let mut reader = match LogReader::open(&path, options) {
            Ok(reader) => reader,
            // It has never started.
            Err(e) if e.class() == Class::NotFound && !options.follow => return Ok(()),
            Err(e) if e.class() == Class::NotFound => {
                drop(File::options().create(true).append(true).open(&path).map_err(|e| Error::io("open", &path, e))?);
                LogReader::open(&path, options)?
            }
            Err(e) => return Err(e),
        };
        loop {
            // Looked at before reading: what is written until the end is then read before we stop.
            let over = !options.follow || !self.is_locked(&container.id)?;
            while let Some(line) = reader.next()? {
                if !f(&line) {
                    return Ok(());
                }
            }
            if over {
                return Ok(());
            }
            linux::wait_for_change(&path, Duration::from_millis(500));
        }
    }

    /// What it uses now.
    ///
    /// # Errors
    /// `Conflict` when it does not run.
    pub fn usage(&self, name: &str) -> Result<Usage> {
        let container = self.running(name)?;
        match self.ask(&container, &Request::Usage)? {
            Reply::Usage(usage) => Ok(usage),
            _ => Err(Error::new(Class::Internal, "the monitor gave no usage")),
        }
    }

    /// Bytes of its writable layer.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn size(&self, name: &str) -> Result<u64> {
        let container = self.container(name)?;
        Ok(self.images()?.snapshots.usage(&container.id)?.content)
    }

    /// Takes the container's lock, waiting so long for another holder to let go.
    pub(crate) fn lock(&self, id: &str, patience: Duration) -> Result<Option<File>> {
        let path = self.paths.run_container(id);
        paths::make_dir(&path)?;
        let file = linux::open_lock(&path, true).map_err(|e| Error::io("open", &path, e))?;
        let end = Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(TryLockError::WouldBlock) if Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(e)) => return Err(Error::io("lock", &path, e)),
            }
        }
    }

    /// True while a monitor lives. (The house rule: liveness is a held lock, never a pid.)
    fn is_locked(&self, id: &str) -> Result<bool> {
        let path = self.paths.run_container(id);
        let file = match linux::open_lock(&path, false) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(Error::io("open", &path, e)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(e)) => Err(Error::io("lock", &path, e)),
        }
    }

    /// The container as it is now: one whose monitor died is repaired, and gone (`None`) if it was to be removed. If its
    /// restart policy wants it to run, it is started: there is no daemon, so whoever meets it sees to it.
    fn refreshed(&self, container: Container) -> Result<Option<Container>> {
        let Some(container) = self.repaired(container)? else { return Ok(None) };
        if container.state.state != State::Restarting || self.is_locked(&container.id)? {
            return Ok(Some(container));
        }
        // If it cannot be started, its record says why.
        let _ = linux::monitor::spawn_start(self, &container.id, None);
        self.containers()?.get(&container.id)
    }

    /// Takes away what a monitor has left that recorded the end and died before it had tidied up: its socket is still there.
    fn tidy(&self, container: &Container) -> Result<()> {
        if !self.paths.socket(&container.id).exists() {
            return Ok(());
        }
        // One that is just tidying up, or making the container start, holds the lock.
        match self.lock(&container.id, Duration::ZERO)? {
            Some(_lock) => self.tidy_locked(container),
            None => Ok(()),
        }
    }

    /// The same, for whoever holds the container's lock.
    fn tidy_locked(&self, container: &Container) -> Result<()> {
        let socket = self.paths.socket(&container.id);
        if !socket.exists() {
            return Ok(());
        }
        linux::monitor::clean(self, &container.id, container.config.cgroup_parent.as_deref())?;
        linux::network::leave(self, container)?;
        self.release_volumes(container)?;
        match fs::remove_file(&socket) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", socket, e)),
            _ => Ok(()),
        }
    }

    /// The same, but for the start: one that is to be started is `Restarting`, and nobody holds its lock.
    fn repaired(&self, container: Container) -> Result<Option<Container>> {
        if !container.state.state.is_live() {
            self.tidy(&container)?;
            return Ok(Some(container));
        }
        if self.is_locked(&container.id)? {
            return Ok(Some(container));
        }
        let Some(_lock) = self.lock(&container.id, Duration::ZERO)? else { return Ok(Some(container)) };
        // Whoever held the lock may have finished its work in between.
        let Some(mut container) = self.containers()?.get(&container.id)? else { return Ok(None) };
        if !container.state.state.is_live() {
            return Ok(Some(container));
        }
        linux::monitor::clean(self, &container.id, container.config.cgroup_parent.as_deref())?;
        linux::network::leave(self, &container)?;
        linux::network::remove_unused(self)?;
        self.release_volumes(&container)?;
        let record = ExitRecord::read(&self.paths.exit_record(&container.id))?
            .unwrap_or_else(|| ExitRecord { exit: Exit { code: 137, oom_killed: false }, finished: Timestamp::now() });
        if container.config.auto_remove {
            container.state.exit_code = record.exit.code;
            container.state.finished = Some(record.finished);
            let mut before = container.unmount_events();
            before.push(store::died(&container, &container.state));
            self.containers()?.remove(&container, &before)?;
            self.discard(&container)?;
            return Ok(None);
        }
        let status = &container.state;
        if status.state == State::Restarting {
            // Its end is recorded already.
            return Ok(Some(container));
        }
        container.state = if !status.stopped && container.config.restart.wants(record.exit.code, status.restarts) {
            self.record_restart(&container, &record, &[])?
        } else {
            self.record_exit(&container, &record, (&[], &[]))?
        };
        self.detach_network(&container.id)?;
        Ok(Some(container))
    }

    /// Starts what is to run since the system has started: what ran when it went down, and what its restart policy says.
    /// Gives the names, each with what became of it.
    ///
    /// # Errors
    /// The database's.
    pub fn boot(&self) -> Result<Vec<(String, Result<()>)>> {
        let mut started = Vec::new();
        let before: Vec<Container> = self.containers()?.list(false)?.into_iter().rev().collect();
        for container in before {
            // The look repairs, and starts again what was running.
            let dead = container.state.state.is_live() && !self.is_locked(&container.id)?;
            let Some(now) = self.refreshed(container)? else { continue };
            let status = &now.state;
            if status.state == State::Exited && now.config.restart.boots(status.stopped) {
                let outcome = self.start(&now.id, None).map(drop);
                started.push((now.name, outcome));
            } else if dead && status.state.is_live() {
                started.push((now.name, Ok(())));
            }
        }
        Ok(started)
    }

    /// Changes limits (what `change` does not mention stays) and the restart policy, of a running container at once.
    ///
    /// # Errors
    /// `InvalidInput` for limits that contradict each other; the kernel's for what it refuses.
    pub fn update(&self, name: &str, change: &Change) -> Result<()> {
        let container = self.container(name)?;
        if container.config.auto_remove && change.restart.is_some_and(|policy| policy != RestartPolicy::No) {
            let text = "Restart policy cannot be updated because AutoRemove is enabled for the container";
            return Err(Error::new(Class::InvalidInput, text));
        }
        change.limits.check_reservation()?;
        let (own, new) = (&container.config.limits, &change.limits);
        let held = own.memory_swap.and_then(|both| u64::try_from(both).ok()).filter(|both| *both > 0);
        if new.memory_swap.is_none() && held.is_some_and(|both| new.memory.is_some_and(|memory| memory > both)) {
            let why = "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the \
                       same time";
            return Err(Error::new(Class::Conflict, format!("Cannot update container {}: {why}", container.id)));
        }
        if container.state.state.is_live() {
            let mut wanted = container.config.clone();
            change.apply(&mut wanted);
            linux::check_limits(&wanted.limits)?;
            return self.ask(&container, &Request::Update(change.clone())).map(drop);
        }
        let Some(_lock) = self.lock(&container.id, LOCK_PATIENCE)? else {
            return Err(Error::new(Class::Conflict, format!("container {} is being started", container.name)));
        };
        let checked = |config: &mut ContainerConfig| {
            change.apply(config);
            linux::check_limits(&config.limits).map(drop)
        };
        self.containers()?.update(&container, checked).map(drop)
    }

    /// The container has ended: what only it had mounted of its volumes is unmounted.
    pub(crate) fn release_volumes(&self, container: &Container) -> Result<()> {
        self.volumes().release(container.volume_names(), &container.id)
    }

    /// Gives a container its places on networks, with the ports that are published for each.
    pub(crate) fn attach_networks(
        &self,
        id: &str,
        places: &[(&EndpointConfig, &[PortBinding])],
    ) -> Result<Vec<Endpoint>> {
        network::attach(self.containers()?.db(), id, places)
    }

    /// The host's device of a network, where there are such devices.
    pub fn network_device(&self, network: &networks::Network) -> Option<String> {
        linux::network::device(&self.paths, network)
    }

    /// Lets go of the container's places on networks.
    pub(crate) fn detach_network(&self, id: &str) -> Result<()> {
        network::detach(self.containers()?.db(), id, None)
    }

    /// The addresses of the containers with this name on a network, IPv4 first, as of names that others answer for.
    pub(crate) fn resolve(&self, network: i64, name: &str) -> Result<Vec<IpAddr>> {
        let mut found = network::resolve(self.containers()?.db(), network, name)?;
        found.sort_by_key(IpAddr::is_ipv6);
        Ok(found)
    }

    /// The places of all running containers on their networks, by the containers' ids, with the ports that are published.
    ///
    /// # Errors
    /// The database's.
    pub fn attachments(&self) -> Result<HashMap<String, Vec<Attachment>>> {
        network::attachments(self.containers()?.db())
    }

    /// Puts a container on one more network, at once if it runs.
    ///
    /// # Errors
    /// `Conflict`, in docker's words, for one that is on it, or that has no network of its own; `NotFound`.
    pub fn connect(&self, name: &str, place: &EndpointConfig) -> Result<()> {
        self.container(name)?;
        let network = self.networks().get(&place.network)?;
        let place = EndpointConfig { network: network.name, ..place.clone() };
        self.reconnect(name, Reconnect::Connect(place))
    }

    /// Takes a container from a network, at once if it runs.
    ///
    /// # Errors
    /// `Conflict`, in docker's words, for one that is not on it; `NotFound`.
    pub fn disconnect(&self, name: &str, network: &str) -> Result<()> {
        let container = self.container(name)?;
        let network = match self.networks().get(network) {
            // One that is gone may still be asked for, and these two are always there.
            Err(e) if e.class() == Class::NotFound => {
                let plain = matches!(network, "host" | "none");
                if !plain && !container.config.places().iter().any(|place| place.network == network) {
                    return Err(e);
                }
                network.to_owned()
            }
            found => found?.name,
        };
        self.reconnect(name, Reconnect::Disconnect(network))
    }

    fn reconnect(&self, name: &str, change: Reconnect) -> Result<()> {
        let container = self.container(name)?;
        change.check(&container)?;
        if container.state.state.is_live() {
            return self.ask(&container, &Request::Reconnect(change)).map(drop);
        }
        let Some(_lock) = self.lock(&container.id, LOCK_PATIENCE)? else {
            return Err(Error::new(Class::Conflict, format!("container {} is being started", container.name)));
        };
        self.containers()?.set_endpoints(&container, |places| change.apply(&container, places)).map(drop)
    }

    /// Writes the end of a container into its record.
    pub(crate) fn record_exit(
        &self,
        container: &Container,
        record: &ExitRecord,
        also: (&[NewEvent], &[NewEvent]),
    ) -> Result<Status> {
        self.containers()?.advance(container, Event::Exit, also, |status| {
            (status.pid, status.walls) = (None, None);
            status.exit_code = record.exit.code;
            status.oom_killed = record.exit.oom_killed;
            status.finished = Some(record.finished);
        })
    }

    /// Writes the end of a container that is to start again into its record.
    pub(crate) fn record_restart(
        &self,
        container: &Container,
        record: &ExitRecord,
        before: &[NewEvent],
    ) -> Result<Status> {
        self.containers()?.advance(container, Event::Restart, (before, &[]), |status| {
            (status.pid, status.walls) = (None, None);
            status.exit_code = record.exit.code;
            status.oom_killed = record.exit.oom_killed;
            status.finished = Some(record.finished);
            status.restarts += 1;
        })
    }

    /// Things in the directories that no record knows: what a crash at the wrong moment leaves.
    ///
    /// # Errors
    /// The disk's and the database's.
    pub fn strays(&self) -> Result<Vec<String>> {
        let mut strays = self.unknown()?;
        if !strays.is_empty() {
            // One that is just being made or removed holds its lock, but for its first and its last moments.
            std::thread::sleep(Duration::from_millis(50));
            let still = self.unknown()?;
            strays.retain(|id| still.contains(id));
        }
        Ok(strays.into_iter().collect())
    }

    /// What has a directory, no record and no holder of its lock.
    fn unknown(&self) -> Result<BTreeSet<String>> {
        let mut found: BTreeSet<String> = self.images()?.snapshots.keys()?.into_iter().collect();
        for dir in [self.paths.root.join("containers"), self.paths.run.join("containers")] {
            match fs::read_dir(&dir) {
                Ok(entries) => found.extend(entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned())),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::io("read", dir, e)),
            }
        }
        // After the look: what was made meanwhile has a record.
        for id in self.containers()?.ids()? {
            found.remove(&id);
        }
        let mut unknown = BTreeSet::new();
        for id in found {
            if !self.is_locked(&id)? {
                unknown.insert(id);
            }
        }
        Ok(unknown)
    }

    /// Removes what [`Engine::strays`] finds. Returns how many there were.
    ///
    /// # Errors
    /// As [`Engine::strays`].
    pub fn sweep(&self) -> Result<usize> {
        let Some(_sweep) = wharf_images::lease::SweepLock::try_take(&self.paths.root)? else { return Ok(0) };
        let strays = self.strays()?;
        for id in &strays {
            linux::monitor::clean_unrecorded(self, id)?;
            self.remove_bytes(id, None)?;
        }
        Ok(strays.len())
    }
}

/// How long to wait for a monitor that is tidying up.
pub(crate) const LOCK_PATIENCE: Duration = Duration::from_secs(10);

fn no_such(name: &str) -> Error {
    Error::new(Class::NotFound, format!("No such container: {name}"))
}

fn not_running(container: &Container) -> Error {
    Error::new(Class::Conflict, format!("container {} is not running", container.id))
}
