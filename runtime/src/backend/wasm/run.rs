//! One guest, from its compiled component to its exit code.
//!
//! [`Program::load`] loads and links. [`Program::prepare`] opens the directories, which need not be there before.
//! [`Guest::run`] runs guest code; a caller that has walls to put up does so between the two.
//!
//! Exit codes: the guest's own (`wasi:cli/exit`, 0 to 255), 1 when its `run` returns an error, 134 when it traps (as a
//! native program that aborts: 128 and SIGABRT).

#![allow(unsafe_code)]

use std::fs::File;
use std::io::Write;
use std::path::Path;

use wasmtime::component::{Component, InstancePre, Linker, ResourceTable, Val};
use wasmtime::{Engine, Store, Trap, WasmBacktrace};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::p2::bindings::filesystem::preopens as preopens_interface;
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtx, WasiCtxView, WasiView};
use wharf_images::snapshot::Rootfs;

use super::memory::MemoryLimit;
use super::preopens::{self, Preopen, Preopens};
use super::{cache, engine};
use crate::error::{Class, Error, Result};
use crate::task::WasmTask;
use crate::wasi;

/// The exit code of a guest that trapped.
pub const TRAPPED: i32 = 134;

/// A compiled component, loaded and linked, that has nothing to work on yet.
pub struct Program {
    runtime: tokio::runtime::Runtime,
    component: InstancePre<State>,
    wasi: WasiCtx,
}

/// A guest just before its first instruction.
pub struct Guest {
    runtime: tokio::runtime::Runtime,
    store: Store<State>,
    component: InstancePre<State>,
    function: Option<String>,
}

/// What the guest's host functions work on.
pub(super) struct State {
    wasi: WasiCtx,
    table: ResourceTable,
    preopens: Vec<Preopen>,
    memory: MemoryLimit,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// The host's side of WASI 0.2 for commands. Sockets are there and refuse every address.
pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasi::add_to_linker(&mut linker)?;
    preopens_interface::add_to_linker::<_, Preopens<'static>>(&mut linker, |state: &mut State| Preopens {
        list: &state.preopens,
        table: &mut state.table,
    })?;
    Ok(linker)
}

/// Runs one guest in this process, with this process's stdin, stdout and stderr, and gives its exit code.
/// `memory` is its limit in bytes.
///
/// # Errors
/// As [`Program::load`] and [`Program::prepare`].
pub fn run(task: &WasmTask, rootfs: &Rootfs, memory: Option<u64>) -> Result<i32> {
    Ok(Program::load(task)?.prepare(task, rootfs, memory)?.run())
}

impl Program {
    /// Loads the task's component.
    ///
    /// # Errors
    /// `NotFound` when the component is not in the cache; `Forbidden` when others could have written it;
    /// `Unavailable` when it was compiled for another machine (it is then removed).
    pub fn load(task: &WasmTask) -> Result<Self> {
        let engine = engine::runner().map_err(|e| internal(&e))?;
        let component = load(&engine, &task.module)?;
        let component = linker(&engine).and_then(|l| l.instantiate_pre(&component)).map_err(|e| internal(&e))?;

        let mut wasi = WasiCtx::builder();
        wasi.args(&task.args).envs(&task.env).allow_blocking_current_thread(true);
        wasi.allow_tcp(false).allow_udp(false);
        // Nothing is read from stdin, and no thread made for it, before the guest asks.
        wasi.stdin(std::io::stdin()).stdout(std::io::stdout()).stderr(std::io::stderr());
        if task.cwd != "/" {
            wasi.initial_cwd(&task.cwd);
            // The Go runtime takes its working directory from here.
            if task.env.iter().all(|(name, _)| name != "PWD") {
                wasi.env("PWD", &task.cwd);
            }
        }
        // A thread of its own for the guest's clock would cost more than the guest; wasmtime-wasi would make one.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|e| Error::os("make an event loop", e))?;
        Ok(Program { runtime, component, wasi: wasi.build() })
    }

    /// Opens what the guest is to see.
    ///
    /// # Errors
    /// `Unsupported` and others for what cannot be opened.
    pub fn prepare(self, task: &WasmTask, rootfs: &Rootfs, memory: Option<u64>) -> Result<Guest> {
        let Program { runtime, component, wasi } = self;
        let state = State {
            wasi,
            table: ResourceTable::new(),
            preopens: preopens::open(rootfs, task)?,
            memory: MemoryLimit::new(memory),
        };
        let mut store = Store::new(component.engine(), state);
        store.limiter(|state| &mut state.memory);
        Ok(Guest { runtime, store, component, function: task.function.clone() })
    }
}

impl Guest {
    /// The directories it will work in, and whether they are read-only: what a wall around this process must let through.
    pub fn trees(&self) -> impl Iterator<Item = (&File, bool)> {
        let preopens = self.store.data().preopens.iter();
        preopens.map(|(dir, _)| (&*dir.dir, dir.perms == FsPerms::ReadOnly))
    }

    /// Runs it to its end. What went wrong is told on stderr, as a native program's runtime would.
    pub fn run(self) -> i32 {
        let Guest { runtime, mut store, component, function } = self;
        let ended = runtime.block_on(call(&mut store, component, function.as_deref()));
        // The guest is over: if its output cannot be written there is nobody to tell.
        let _ = std::io::stdout().flush();
        let code = match ended {
            Ok(code) => code,
            Err(e) => match e.downcast_ref::<I32Exit>() {
                Some(I32Exit(code)) => code & 0xff,
                None => {
                    let _ = std::io::stderr().write_all(report(&e, &store.data().memory).as_bytes());
                    TRAPPED
                }
            },
        };
        // The process ends now: the kernel takes its memory back at once, where we would do it piece by piece.
        std::mem::forget((runtime, store));
        code
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
        // A preview-1 module's function was made its entry when it was compiled.
        let command = CommandPre::new(component)?.instantiate_async(&mut *store).await?;
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

fn load(engine: &Engine, path: &Path) -> Result<Component> {
    let file = crate::linux::private::open(path)?;
    let named = crate::linux::private::reopen(&file, path);
    // SAFETY: it is machine code that wasmtime trusts. It lies in a directory that only we may enter, under a name that
    // only our compiler's output is given, and the file belongs to us (`private::open` has checked). wasmtime itself
    // checks that its own version, the settings and the processor are those it was made for.
    let loaded = unsafe { Component::deserialize_file(engine, named) };
    loaded.map_err(|e| cache::refused(path, &e))
}

fn internal(e: &wasmtime::Error) -> Error {
    Error::new(Class::Internal, format!("wasmtime: {e:#}"))
}

/// Why a guest ended badly, with its call stack.
fn report(e: &wasmtime::Error, memory: &MemoryLimit) -> String {
    let why = match e.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        None => e.root_cause().to_string(),
    };
    let mut text = format!("wharf: {why}\n");
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
