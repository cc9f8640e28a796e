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

/// The same of WASI 0.3, whose functions may wait: for streams, connections and names. Those that never do are not `async`,
/// but for what the interfaces declare so.
pub mod p3 {
    wasmtime::component::bindgen!({
        path: "wit/p3",
        world: "wharf:host/concurrent",
        imports: {
            "wasi:filesystem/types.[method]descriptor.read-via-stream": store | trappable,
            "wasi:filesystem/types.[method]descriptor.write-via-stream": store | trappable,
            "wasi:filesystem/types.[method]descriptor.append-via-stream": store | trappable,
            "wasi:filesystem/types.[method]descriptor.read-directory": store | trappable,
            "wasi:sockets/types.[method]tcp-socket.listen": store | trappable,
            "wasi:sockets/types.[method]tcp-socket.send": store | trappable,
            "wasi:sockets/types.[method]tcp-socket.receive": store | trappable,
            default: trappable,
        },
        require_store_data_send: true,
        trappable_error_type: {
            "wasi:filesystem/types.error-code" => crate::wasi::filesystem::Failure,
            "wasi:sockets/types.error-code" => crate::wasi::sockets::p3::Failure,
        },
        with: {
            "wasi:clocks": wasmtime_wasi::p3::bindings::clocks,
            "wasi:filesystem/types.descriptor": crate::wasi::filesystem::Descriptor,
            "wasi:sockets/types.tcp-socket": crate::wasi::sockets::p3::TcpSocket,
            "wasi:sockets/types.udp-socket": crate::wasi::sockets::p3::UdpSocket,
        },
    });

    pub use self::wasi::{filesystem, sockets};
}
