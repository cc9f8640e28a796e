//! One guest, from its compiled component to its exit code.
//!
//! [`Program::load`] loads and links. [`Program::prepare`] opens the directories, which need not be there before.
//! [`Guest::run`] runs guest code; a caller that has walls to put up does so between the two.
//!
//! Exit codes: the guest's own (`wasi:cli/exit`, 0 to 255), 1 when its `run` returns an error, 134 when it traps (as a
//! native program that aborts: 128 and SIGABRT).

#![allow(unsafe_code)]

use std::io::Write;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::{Component, InstancePre, Linker, ResourceTable, Val};
use wasmtime::{Engine, Store, Trap, WasmBacktrace};
use wasmtime_wasi::{I32Exit, WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi::{p2, p3};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};
use wharf_images::snapshot::Rootfs;

use super::http::{self, Hooks};
use super::memory::MemoryLimit;
use super::rest::{QUIET, Wakes};
use super::tree::{self, Tree};
use super::{cache, engine};
use crate::error::{Class, Error, Result};
use crate::network::{Fault, Listener, Protocol, Unconnected, VirtualNetwork};
use crate::task::WasmTask;
use crate::wasi;
use crate::wasi::eager::eagerly;
use crate::wasi::environment::{Environment, HasEnvironment};
use crate::wasi::filesystem::{Files, FilesView};
use crate::wasi::io::{HasIo, Io, Pace};
use crate::wasi::sockets::{HasSockets, Sockets, SocketsView};
pub use crate::wasi::vfs::Held;

/// The exit code of a guest that trapped.
pub const TRAPPED: i32 = 134;

/// A component for a command, loaded and linked.
pub struct Loaded {
    module: PathBuf,
    component: InstancePre<State>,
}

/// A component, loaded and linked, and the task it has to do, but nothing to work on yet.
pub struct Program {
    runtime: Loop,
    component: InstancePre<State>,
    wasi: WasiCtx,
    wants_network: bool,
}

/// How long what a guest has sent may take to go out when it has ended.
const LINGER: Duration = Duration::from_secs(10);

/// What a program is when it has all it needs.
pub enum Ready {
    /// One guest.
    Command(Guest),
    /// A guest for each request.
    Server(Serving),
}

/// A guest just before its first instruction.
pub struct Guest {
    runtime: Loop,
    store: Store<State>,
    component: InstancePre<State>,
    function: Option<String>,
    is_connected: bool,
}

/// A guest's event loop.
struct Loop {
    runtime: tokio::runtime::Runtime,
    wakes: Arc<Wakes>,
}

/// What the guest's host functions work on.
pub(super) struct State {
    wasi: WasiCtx,
    environment: Arc<Environment>,
    table: ResourceTable,
    pace: Option<Pace>,
    tree: Arc<Tree>,
    memory: MemoryLimit,
    sockets: Sockets,
    http: WasiHttpCtx,
    hooks: Hooks,
}

impl State {
    fn new(
        wasi: WasiCtx,
        environment: Arc<Environment>,
        tree: Arc<Tree>,
        memory: Option<u64>,
        sockets: Sockets,
    ) -> Self {
        let memory = MemoryLimit::new(memory);
        let hooks = Hooks::new(Some(Arc::clone(&sockets.network)));
        let (table, http) = (ResourceTable::new(), WasiHttpCtx::new());
        State { wasi, environment, table, pace: None, tree, memory, sockets, http, hooks }
    }
}

/// The streams of a guest, who has a stdin unless it serves.
fn context(serves: bool) -> WasiCtx {
    let mut wasi = WasiCtx::builder();
    wasi.allow_blocking_current_thread(true).allow_tcp(false).allow_udp(false);
    wasi.stdout(std::io::stdout()).stderr(std::io::stderr());
    if !serves {
        // Nothing is read from stdin, and no thread made for it, before the guest asks.
        wasi.stdin(std::io::stdin());
    }
    wasi.build()
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl HasIo for State {
    fn io(&mut self) -> Io<'_> {
        Io { table: &mut self.table, pace: self.pace.as_mut() }
    }

    fn table(&self) -> &ResourceTable {
        &self.table
    }
}

impl HasEnvironment for State {
    fn environment(&self) -> &Environment {
        &self.environment
    }
}

impl FilesView for State {
    fn files(&mut self) -> Files<'_> {
        Files { preopens: &self.tree.preopens, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.hooks }
    }
}

impl http::Guest for State {
    fn memory(&mut self) -> &mut MemoryLimit {
        &mut self.memory
    }
}

impl HasSockets for State {
    fn virtual_sockets(&mut self) -> SocketsView<'_> {
        SocketsView { sockets: &self.sockets, table: &mut self.table }
    }
}

/// The host's side of WASI for commands.
fn linker(component: &Component, concurrent: bool) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(component.engine());
    wasi::add_to_linker(&mut linker, imports(component, "wasi:sockets/"))?;
    if concurrent {
        wasi::add_p3_to_linker(&mut linker)?;
    }
    #[cfg(test)]
    crate::linux::escape::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// Links a component. Few programs import `wasi:http`, and it is as large as half of the rest: it is linked for those
/// that turn out to miss something.
///
/// # Errors
/// What is missing then.
pub(super) fn link(component: &Component, concurrent: bool) -> wasmtime::Result<InstancePre<State>> {
    let mut linker = linker(component, concurrent)?;
    if let Ok(linked) = linker.instantiate_pre(component) {
        return Ok(linked);
    }
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    if concurrent {
        http::client::add_to_linker(&mut linker)?;
    }
    linker.instantiate_pre(component)
}

/// Runs one guest in this process, with this process's stdin, stdout and stderr, and gives its exit code.
/// `memory` is its limit in bytes.
///
/// # Errors
/// As [`Program::load`] and [`Program::prepare`]; `Unsupported` for a server, which has no end.
pub fn run(task: &WasmTask, rootfs: &Rootfs, memory: Option<u64>) -> Result<i32> {
    match Program::load(task, None)?.prepare(task, rootfs, memory, Arc::new(Unconnected))? {
        Ready::Command(guest) => Ok(guest.run()),
        Ready::Server(_) => Err(Error::new(Class::Unsupported, "the component serves HTTP and does not run")),
    }
}

impl Loaded {
    /// Loads a compiled component that is probably to run.
    ///
    /// # Errors
    /// `NotFound` when the component is not in the cache; `Forbidden` when others could have written it;
    /// `Unavailable` when it was compiled for another machine (it is then removed).
    pub fn load(module: &Path) -> Result<Self> {
        let concurrent = cache::is_concurrent(module);
        let engine = engine::runner(concurrent).map_err(|e| internal(&e))?;
        let component = link(&load(&engine, module)?, concurrent).map_err(|e| internal(&e))?;
        Ok(Loaded { module: module.to_owned(), component })
    }
}

impl Program {
    /// Loads the task's component, if it is not `loaded` already.
    ///
    /// # Errors
    /// As [`Loaded::load`].
    pub fn load(task: &WasmTask, loaded: Option<Loaded>) -> Result<Self> {
        let component = match (&task.http, loaded) {
            (None, Some(loaded)) if loaded.module == task.module => loaded.component,
            (None, _) => Loaded::load(&task.module)?.component,
            (Some(limits), _) => {
                let concurrent = cache::is_concurrent(&task.module);
                let engine = engine::server(limits, concurrent).map_err(|e| internal(&e))?;
                link(&load(&engine, &task.module)?, concurrent).map_err(|e| internal(&e))?
            }
        };
        let wants_network = imports(component.component(), "wasi:sockets/")
            || imports(component.component(), "wasi:http/")
            || task.http.is_some();
        // A thread of its own for the guest's clock would cost more than the guest; wasmtime-wasi would make one.
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time();
        if wants_network {
            runtime.enable_io();
        }
        let wakes = Wakes::of(&mut runtime);
        let runtime = runtime.build().map_err(|e| Error::os("make an event loop", e))?;
        Ok(Program { runtime: Loop { runtime, wakes }, component, wasi: context(task.http.is_some()), wants_network })
    }

    /// True when the program can use a network: it imports one, or it serves.
    pub fn wants_network(&self) -> bool {
        self.wants_network
    }

    /// Opens what the guest is to see. `memory` bounds the container, and with that each request; `network` is where its
    /// sockets are.
    ///
    /// # Errors
    /// `InvalidInput` and others for what cannot be opened, or does not fit.
    pub fn prepare(
        self,
        task: &WasmTask,
        rootfs: &Rootfs,
        memory: Option<u64>,
        network: Arc<dyn VirtualNetwork>,
    ) -> Result<Ready> {
        let Program { runtime, component, wasi, wants_network: is_connected } = self;
        let sockets = Sockets { network, lingering: Arc::default() };
        let tree = Arc::new(tree::open(rootfs, task)?);
        let environment = Arc::new(Environment::of(task));
        if let Some(limits) = &task.http {
            let memory = memory.map_or(limits.memory, |memory| memory.min(limits.memory));
            let shared = tree.clone();
            let state =
                move || State::new(context(true), environment.clone(), shared.clone(), Some(memory), sockets.clone());
            let server = http::Server::new(component, limits.clone(), state)?;
            return Ok(Ready::Server(Serving { server, tree }));
        }
        let mut state = State::new(wasi, environment, tree, memory, sockets);
        state.pace = is_connected.then(Pace::default);
        let mut store = Store::new(component.engine(), state);
        store.limiter(|state| &mut state.memory);
        Ok(Ready::Command(Guest { runtime, store, component, function: task.function.clone(), is_connected }))
    }
}

impl Ready {
    /// What it will work in: what a wall around this process must let through.
    pub fn held(&self) -> &[Held] {
        match self {
            Ready::Command(guest) => guest.store.data().tree.vfs.held(),
            Ready::Server(serving) => serving.tree.vfs.held(),
        }
    }
}

impl Guest {
    /// Runs it to its end. What went wrong is told on stderr, as a native program's runtime would.
    pub fn run(self) -> i32 {
        let Guest { runtime: Loop { runtime, wakes }, mut store, component, function, is_connected } = self;
        runtime.spawn(wakes.await_rest(QUIET, crate::linux::give_back_memory));
        let called = call(&mut store, component, function.as_deref());
        let ended = match is_connected {
            true => runtime.block_on(eagerly(called)),
            false => runtime.block_on(called),
        };
        let lingering = &store.data().sockets.lingering;
        if !lingering.is_empty() {
            runtime.block_on(lingering.settle(LINGER));
        }
        // The guest is over: if its output cannot be written there is nobody to tell.
        let _ = std::io::stdout().flush();
        let code = match ended {
            Ok(code) => code,
            Err(e) => match e.downcast_ref::<I32Exit>() {
                Some(I32Exit(code)) => code & 0xff,
                None => {
                    let _ = write!(std::io::stderr(), "wharf: {}", report(&e, &store.data().memory));
                    TRAPPED
                }
            },
        };
        store.data().tree.vfs.settle();
        // The process ends now: the kernel takes its memory back at once, where we would do it piece by piece.
        std::mem::forget((runtime, store));
        code
    }
}

/// Connections from the container's network that may wait for the server.
const BACKLOG: u32 = 128;

/// A component that serves HTTP, before its first request.
pub struct Serving {
    server: http::Server<State>,
    tree: Arc<Tree>,
}

impl Serving {
    /// The container's port that it answers on.
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// Serves what comes in on `listeners`, and from `neighbours` on the container's network, until `wait` returns. Gives
    /// what it gave when the last request has been answered.
    ///
    /// # Errors
    /// The system's, when there are no threads to be had.
    pub fn run<R>(
        self,
        listeners: &[TcpListener],
        neighbours: impl FnOnce() -> Result<Option<Box<dyn Listener>>>,
        wait: impl FnOnce() -> R,
    ) -> Result<R> {
        self.server.run(listeners, Arc::new(|| true), neighbours, wait)
    }

    /// Serves the container's port until `wait` returns. Gives what it gave when the last request has been answered.
    ///
    /// # Errors
    /// When the port cannot be had, or no threads.
    pub fn serve<R>(self, network: Arc<dyn VirtualNetwork>, wait: impl FnOnce() -> R) -> Result<R> {
        let port = self.port();
        let published = network.published().map_err(|e| Error::os("take the published ports", e))?;
        let ours = published.into_iter().filter(|(binding, _)| binding.container_port == port);
        let listeners: Vec<TcpListener> = ours.map(|(_, listener)| listener).collect();
        let taken = |e: Fault| Error::new(Class::Unavailable, format!("serve the container's port {port}: {e}"));
        // Of both families.
        let address = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
        let bound = network.bind(Protocol::Tcp, address).map_err(taken)?;
        let neighbours = || network.listen(&bound, BACKLOG).map(Some).map_err(taken);
        let gate = Arc::clone(&network);
        self.server.run(&listeners, Arc::new(move || gate.lets_in()), neighbours, wait)
    }
}

/// Instantiates and calls the entry; a guest that exits by itself, or traps, comes back as an error.
async fn call(
    store: &mut Store<State>,
    component: InstancePre<State>,
    function: Option<&str>,
) -> wasmtime::Result<i32> {
    let named = function.filter(|f| component.component().get_export_index(None, f).is_some());
    let Some(name) = named else {
        if exports(component.component(), RUN_P3) {
            let command = p3::bindings::CommandPre::new(component)?.instantiate_async(&mut *store).await?;
            let answer = store.run_concurrent(async |store| command.wasi_cli_run().call_run(store).await).await??;
            return Ok(i32::from(answer.is_err()));
        }
        // A preview-1 module's function was made its entry when it was compiled.
        let command = p2::bindings::CommandPre::new(component)?.instantiate_async(&mut *store).await?;
        let answer = command.wasi_cli_run().call_run(&mut *store).await?;
        return Ok(i32::from(answer.is_err()));
    };
    let instance = component.instantiate_async(&mut *store).await?;
    let Some(function) = instance.get_func(&mut *store, name) else {
        wasmtime::bail!("the component's export {name:?} is not a function");
    };
    let mut results = vec![Val::Bool(false); function.ty(&*store).results().len()];
    function.call_async(&mut *store, &[], &mut results).await?;
    Ok(i32::from(matches!(results.first(), Some(Val::Result(Err(_))))))
}

/// A command's entry in WASI 0.3.
const RUN_P3: &str = "wasi:cli/run@0.3.";

/// True when what it exports has a name that begins so.
pub(super) fn exports(component: &Component, prefix: &str) -> bool {
    let kind = component.component_type();
    kind.exports(component.engine()).any(|(name, _)| name.starts_with(prefix))
}

/// True when its guest imports an interface whose name begins so. (Its compiled type says that, without a look at its code.)
fn imports(component: &Component, prefix: &str) -> bool {
    let kind = component.component_type();
    kind.imports(component.engine()).any(|(name, _)| name.starts_with(prefix))
}

fn load(engine: &Engine, path: &Path) -> Result<Component> {
    let file = crate::linux::private::open(path)?;
    let named = crate::linux::private::reopen(&file, path);
    // SAFETY: it is machine code that wasmtime trusts. It lies in a directory that only we may enter, under a name that
    // only our compiler's output is given, and the file belongs to us (`private::open` has checked). wasmtime itself
    // checks that its own version, the settings and the processor are those it was made for.
    let loaded = unsafe { Component::deserialize_file(engine, &named) }.or_else(|e| {
        // Not every system maps a file as code (Wine does not): then its bytes are read.
        let bytes = std::fs::read(&named).map_err(|_| e)?;
        // SAFETY: as above; it is the same file.
        unsafe { Component::deserialize(engine, bytes) }
    });
    loaded.map_err(|e| cache::refused(path, &e))
}

fn internal(e: &wasmtime::Error) -> Error {
    Error::new(Class::Internal, format!("wasmtime: {e:#}"))
}

/// Why a guest ended badly, with its call stack, after `wharf: `.
pub(super) fn report(e: &wasmtime::Error, memory: &MemoryLimit) -> String {
    let why = match e.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        None => e.root_cause().to_string(),
    };
    let mut text = format!("{why}\n");
    if let Some(limit) = memory.reached() {
        text.push_str(&format!("wharf: {limit}\n"));
    }
    if let Some(backtrace) = e.downcast_ref::<WasmBacktrace>() {
        text.push_str(&backtrace.to_string());
        text.push('\n');
    }
    // Function names come from the file: no control character reaches a terminal.
    text.replace(|c: char| c.is_control() && c != '\n', "\u{fffd}")
}
