//! The Linux backend on real containers: a busybox root filesystem, run as root.
//!
//! It has its own `main`, for the backend clones its caller, which must have one thread. Arguments are filters on the
//! tests' names; `bench` alone prints what the stages cost. It needs root, and Debian's `busybox-static` and `uidmap`.

#[cfg(all(target_os = "linux", not(feature = "portable")))]
#[path = "linux/mod.rs"]
mod linux;

fn main() {
    #[cfg(all(target_os = "linux", not(feature = "portable")))]
    linux::main();
}
