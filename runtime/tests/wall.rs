//! The walls against the real kernel: see [`wall`]. A build for other systems has none of them.

#[cfg(all(target_os = "linux", not(feature = "portable")))]
#[path = "wall/mod.rs"]
mod wall;

fn main() -> std::process::ExitCode {
    #[cfg(all(target_os = "linux", not(feature = "portable")))]
    return wall::main();
    #[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
    std::process::ExitCode::SUCCESS
}
