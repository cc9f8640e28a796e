//! The wasmtime engines: one for each way in which guests live.
//!
//! A *command* is one guest in its own process. No epochs and no fuel: kill, pause and time limits are the operating
//! system's, and the checks would cost compiled code a tenth of its speed. Memory keeps wasmtime's default reservation
//! and guard pages, which let loads and stores go unchecked; out-of-bounds accesses, stack overflow and division by zero
//! arrive as signals.
//!
//! A *server*'s guests are many, short and side by side in one process. Each request has an instance of its own, so
//! instances must cost little: they take their memories, tables and stacks from a pool that was reserved beforehand, see
//! the module's first memory by copy-on-write, and give their pages back clean. Compiled code checks epochs, because one
//! guest's loop must not hold up the others.
//!
//! Code compiled for one profile does not load in the other's engine; wasmtime checks that.

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

use crate::linux::NATIVE_UNWIND_INFO;
use crate::task::HttpTask;

/// How a component's guests live.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Profile {
    /// One for each request; else one, in its own process.
    pub serves: bool,
    /// It was built for WASI 0.3, whose calls go on side by side.
    pub concurrent: bool,
}

impl Profile {
    /// A command of WASI 0.2.
    pub const COMMAND: Profile = Profile { serves: false, concurrent: false };
    /// A server of WASI 0.2.
    pub const SERVER: Profile = Profile { serves: true, concurrent: false };

    /// Every profile, the one that is looked for first before the others.
    pub const ALL: [Profile; 4] = [
        Profile::COMMAND,
        Profile::SERVER,
        Profile { serves: false, concurrent: true },
        Profile { serves: true, concurrent: true },
    ];

    /// Changes whenever the profile would compile differently: a part of the module cache's key.
    pub fn key(self) -> &'static str {
        match (self.serves, self.concurrent) {
            (false, false) => "command-2",
            (true, false) => "server-1",
            (false, true) => "concurrent-command-1",
            (true, true) => "concurrent-server-1",
        }
    }

    fn config(self) -> Config {
        let mut config = Config::new();
        config
            .max_wasm_stack(GUEST_STACK)
            .async_stack_size(GUEST_STACK + HOST_STACK)
            // Function names come from the name section; line tables would swell every compiled module.
            .wasm_backtrace_details(WasmBacktraceDetails::Disable)
            .native_unwind_info(NATIVE_UNWIND_INFO)
            // Components of WASI 0.2 call nothing concurrently, and what would keep account of it costs every call.
            .concurrency_support(self.concurrent);
        if self.concurrent {
            config.wasm_component_model_async(true);
        }
        if self.serves {
            config.epoch_interruption(true);
        }
        config
    }
}

/// The most stack a guest may use, in bytes. Native programs have 8 MB by default; interpreters compiled to wasm
/// (CPython asks for 16 MB) need more of it than native code does. Unused stack costs nothing.
const GUEST_STACK: usize = 16 << 20;

/// What host functions may use of the same stack, in bytes.
const HOST_STACK: usize = 1 << 20;

/// Core instances, memories and tables of one component that the pool has room for. Components made of one language have
/// one memory and up to five instances; those that link shared libraries (Python) some dozens of instances.
const CORE_INSTANCES: u32 = 64;
const MEMORIES: u32 = 2;
const TABLES: u32 = 8;
/// Calls of one request that may wait at the same time, where they go on side by side.
const STACKS: u32 = 8;
/// Elements of one table.
const TABLE_ELEMENTS: usize = 100_000;
/// Bytes of wasmtime's own account of an instance.
const INSTANCE_SIZE: usize = 16 << 20;
/// Bytes of a memory and of a table that stay resident between two requests, and are reset by copying what was written
/// instead of being given back to the kernel, which costs a page fault each.
const MEMORY_KEPT: usize = 4 << 20;
const TABLE_KEPT: usize = 64 << 10;
/// Pages of so many instances stay resident when there are no requests.
const WARM: u32 = 8;

/// The engine that compiles for a profile.
///
/// # Errors
/// wasmtime's, when this machine cannot run the profile (no signal handlers, an unknown processor).
pub fn compiler(profile: Profile) -> wasmtime::Result<Engine> {
    Engine::new(&profile.config())
}

/// The engine that runs a command. It has no compiler: to set one up takes longer than to load a small component.
///
/// # Errors
/// As [`compiler`].
pub fn runner(concurrent: bool) -> wasmtime::Result<Engine> {
    Engine::new(Profile { serves: false, concurrent }.config().enable_compiler(false))
}

/// The engine that runs a server's guests.
///
/// # Errors
/// As [`compiler`], and when the pool's address space cannot be reserved.
pub fn server(limits: &HttpTask, concurrent: bool) -> wasmtime::Result<Engine> {
    let guests = u32::try_from(limits.concurrency.max(1)).unwrap_or(u32::MAX);
    let each = |n: u32| guests.saturating_mul(n);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(guests)
        .max_component_instance_size(INSTANCE_SIZE)
        .total_core_instances(each(CORE_INSTANCES))
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_core_instance_size(INSTANCE_SIZE)
        .total_memories(each(MEMORIES))
        .max_memories_per_component(MEMORIES.max(8))
        .total_tables(each(TABLES))
        .max_tables_per_component(CORE_INSTANCES)
        .table_elements(TABLE_ELEMENTS)
        // A guest runs on one stack at a time, unless its calls go on side by side.
        .total_stacks(if concurrent { each(STACKS) } else { guests })
        .linear_memory_keep_resident(MEMORY_KEPT)
        .table_keep_resident(TABLE_KEPT)
        .max_unused_warm_slots(WARM)
        // The kernel knows which pages were written (Linux 6.7, ioctl_pagemap_scan).
        .pagemap_scan(Enabled::Auto);
    let mut config = Profile { serves: true, concurrent }.config();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(config.enable_compiler(false))
}
