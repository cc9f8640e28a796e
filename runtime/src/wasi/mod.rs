//! The host's side of WASI 0.2 and 0.3 (<https://github.com/WebAssembly/WASI/tree/main/proposals>), portable.
//!
//! Clocks, random numbers and the streams of what is no socket are wasmtime-wasi's. What makes a container of a guest,
//! and what it waits for, is ours, a module for each.
//!
//! Each interface is linked by itself: the linker has what a guest may import, once. One function is shadowed (see [`io`]).

pub(crate) mod bindings;
mod clocks;
pub(crate) mod eager;
mod ending;
pub(crate) mod environment;
pub(crate) mod filesystem;
pub(crate) mod io;
pub(crate) mod sockets;
pub(crate) mod vfs;

use wasmtime::component::Linker;
use wasmtime_wasi::WasiView;
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView};
use wasmtime_wasi::p2::bindings::clocks::wall_clock;
use wasmtime_wasi::p2::bindings::sockets as network;
use wasmtime_wasi::p2::bindings::{cli, random};
use wasmtime_wasi::p3;
use wasmtime_wasi::random::{WasiRandom, WasiRandomView};
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsView};

use self::environment::{Environment, HasEnvironment};
use self::filesystem::{Files, FilesView};

/// Gives `linker` all that a command may import; sockets only to who needs them.
///
/// # Errors
/// When something is linked twice.
pub(crate) fn add_to_linker<T: WasiView + io::HasIo + HasEnvironment + FilesView + sockets::HasSockets>(
    linker: &mut Linker<T>,
    with_sockets: bool,
) -> wasmtime::Result<()> {
    io::add_to_linker(linker)?;
    command(linker)?;
    bindings::types::add_to_linker::<T, Files<'static>>(linker, T::files)?;
    bindings::preopens::add_to_linker::<T, Files<'static>>(linker, T::files)?;
    if with_sockets {
        network_handle(linker)?;
        sockets::add_to_linker(linker)?;
    }
    Ok(())
}

/// Gives `linker` all that a command of WASI 0.3 may import besides.
///
/// # Errors
/// When something is linked twice, or the engine does not support concurrency.
pub(crate) fn add_p3_to_linker<T: WasiView + HasEnvironment + FilesView + sockets::HasSockets>(
    linker: &mut Linker<T>,
) -> wasmtime::Result<()> {
    p3::clocks::add_to_linker(linker)?;
    p3::random::add_to_linker(linker)?;
    let cli = T::cli;
    p3::bindings::cli::exit::add_to_linker::<T, WasiCli>(linker, cli)?;
    p3::bindings::cli::environment::add_to_linker::<T, Environment>(linker, |state| state.environment())?;
    p3::bindings::cli::stdin::add_to_linker::<T, WasiCli>(linker, cli)?;
    p3::bindings::cli::stdout::add_to_linker::<T, WasiCli>(linker, cli)?;
    p3::bindings::cli::stderr::add_to_linker::<T, WasiCli>(linker, cli)?;
    p3::bindings::cli::terminal_input::add_to_linker::<T, WasiCli>(linker, cli)?;
    p3::bindings::cli::terminal_output::add_to_linker::<T, WasiCli>(linker, cli)?;
    p3::bindings::cli::terminal_stdin::add_to_linker::<T, WasiCli>(linker, cli)?;
    p3::bindings::cli::terminal_stdout::add_to_linker::<T, WasiCli>(linker, cli)?;
    p3::bindings::cli::terminal_stderr::add_to_linker::<T, WasiCli>(linker, cli)?;
    bindings::p3::filesystem::types::add_to_linker::<T, Files<'static>>(linker, T::files)?;
    bindings::p3::filesystem::preopens::add_to_linker::<T, Files<'static>>(linker, T::files)?;
    sockets::p3::add_to_linker(linker)
}

/// Clocks, random numbers, and `wasi:cli`.
fn command<T: WasiView + HasEnvironment>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    wall_clock::add_to_linker::<T, WasiClocks>(linker, T::clocks)?;
    clocks::add_to_linker(linker)?;
    random::random::add_to_linker::<T, WasiRandom>(linker, T::random)?;
    random::insecure::add_to_linker::<T, WasiRandom>(linker, T::random)?;
    random::insecure_seed::add_to_linker::<T, WasiRandom>(linker, T::random)?;
    cli::exit::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    cli::environment::add_to_linker::<T, Environment>(linker, |state| state.environment())?;
    cli::stdin::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    cli::stdout::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    cli::stderr::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    cli::terminal_input::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    cli::terminal_output::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    cli::terminal_stdin::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    cli::terminal_stdout::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    cli::terminal_stderr::add_to_linker::<T, WasiCli>(linker, T::cli)
}

/// What stands for the network as a whole, and means nothing by itself.
fn network_handle<T: WasiView + 'static>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    network::instance_network::add_to_linker::<T, WasiSockets>(linker, WasiSocketsView::sockets)?;
    network::network::add_to_linker::<T, WasiSockets>(
        linker,
        &network::network::LinkOptions::default(),
        WasiSocketsView::sockets,
    )
}
