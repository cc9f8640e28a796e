//! The WebAssembly backend: modules become compiled components once ([`cache`]), and each guest runs as one component
//! in its own process ([`run`]).
//!
//! The way of a module:
//!
//! 1. [`inspect`] says whether Wharf can run it, or names what is missing.
//! 2. [`adapt`] turns a preview-1 module into a component, so there is one host surface: WASI's components.
//! 3. [`compile`] does both, and compiles, in a confined child process: a hostile module may cost time and memory.
//! 4. [`cache`] keeps the result in a private directory. Compiled code is machine code that wasmtime trusts, so
//!    nothing that we did not compile is ever loaded (CVE-2026-47218).
//! 5. [`run`] loads it, gives it its directories, arguments and limits, and turns its end into an exit code.

pub mod adapt;
pub mod cache;
pub mod capabilities;
pub mod compile;
pub mod engine;
pub mod hello;
mod http;
pub mod inspect;
mod memory;
pub mod pack;
mod rest;
pub mod run;
pub(crate) mod tree;

pub use cache::{CachedModule, ModuleCache};
pub use pack::Packed;
