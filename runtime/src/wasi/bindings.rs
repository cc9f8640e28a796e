//! What `bindgen!` makes of the interfaces that Wharf implements by itself. Streams, errors and clocks are those of
//! wasmtime-wasi, so that its streams and ours are of one kind.
//!
//! The functions are not `async`: a guest has its process to itself, so a call on a file may block it, and a call that
//! needs no future costs less.

#![allow(missing_docs)]

wasmtime::component::bindgen!({
    path: "wit",
    world: "wharf:host/filesystem",
    imports: { default: trappable },
    require_store_data_send: true,
    trappable_error_type: {
        "wasi:filesystem/types.error-code" => crate::wasi::filesystem::Failure,
    },
    with: {
        "wasi:clocks/wall-clock": wasmtime_wasi::p2::bindings::clocks::wall_clock,
        "wasi:filesystem/types.descriptor": crate::wasi::filesystem::Descriptor,
        "wasi:filesystem/types.directory-entry-stream": crate::wasi::filesystem::Listing,
        "wasi:io/error": wasmtime_wasi_io::bindings::wasi::io::error,
        "wasi:io/poll": wasmtime_wasi_io::bindings::wasi::io::poll,
        "wasi:io/streams": wasmtime_wasi_io::bindings::wasi::io::streams,
    },
});

pub use self::wasi::filesystem::{preopens, types};
