//! The wasm backend with real guests: see [`wasm`]. A build for other systems has another backend, tested as a program.

#[cfg(all(target_os = "linux", not(feature = "portable")))]
#[path = "wasm/mod.rs"]
mod wasm;

fn main() {
    #[cfg(all(target_os = "linux", not(feature = "portable")))]
    wasm::main();
}
