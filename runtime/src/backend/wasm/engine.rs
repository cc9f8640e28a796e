//! The wasmtime engine for commands: one guest in its own process.
//!
//! No epochs and no fuel: kill, pause and time limits are the operating system's, and the checks would cost compiled
//! code a tenth of its speed. Memory keeps wasmtime's default reservation and guard pages, which let loads and stores
//! go unchecked; out-of-bounds accesses, stack overflow and division by zero arrive as signals.

use wasmtime::{Config, Engine, WasmBacktraceDetails};

/// Changes whenever [`command`] would compile differently: a part of the module cache's key.
pub const PROFILE: &str = "command-1";

/// The most stack a guest may use, in bytes. Native programs have 8 MB by default; interpreters compiled to wasm
/// (CPython asks for 16 MB) need more of it than native code does. Unused stack costs nothing.
const GUEST_STACK: usize = 16 << 20;

/// What host functions may use of the same stack, in bytes.
const HOST_STACK: usize = 1 << 20;

/// The engine that compiles commands.
///
/// # Errors
/// wasmtime's, when this machine cannot run the profile (no signal handlers, an unknown processor).
pub fn compiler() -> wasmtime::Result<Engine> {
    Engine::new(&command())
}

/// The engine that runs them. It has no compiler: to set one up takes longer than to load a small component.
///
/// # Errors
/// As [`compiler`].
pub fn runner() -> wasmtime::Result<Engine> {
    Engine::new(command().enable_compiler(false))
}

fn command() -> Config {
    let mut config = Config::new();
    config
        .max_wasm_stack(GUEST_STACK)
        .async_stack_size(GUEST_STACK + HOST_STACK)
        // Function names come from the name section; line tables would swell every compiled module.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        // Only native debuggers and profilers read it, and registering it costs start-up time.
        .native_unwind_info(false);
    config
}
