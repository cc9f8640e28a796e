//! A library, not a program: its functions can be entrypoints (`library.wasm#greet`). `greet` works only after
//! `_initialize`, as in a real one whose constructors must run first.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

#[repr(C)]
struct Vector(*const u8, usize);

#[link(wasm_import_module = "wasi_snapshot_preview1")]
extern "C" {
    fn fd_write(fd: i32, vectors: *const Vector, count: usize, written: *mut usize) -> i32;
}

static READY: AtomicBool = AtomicBool::new(false);

#[no_mangle]
extern "C" fn _initialize() {
    READY.store(true, Relaxed);
}

#[no_mangle]
extern "C" fn greet() -> i64 {
    let text: &[u8] = if READY.load(Relaxed) { b"greetings\n" } else { b"not initialised\n" };
    let mut written = 0;
    i64::from(unsafe { fd_write(1, &Vector(text.as_ptr(), text.len()), 1, &mut written) })
}

#[no_mangle]
extern "C" fn add(a: i32, b: i32) -> i32 {
    a.wrapping_add(b)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    core::arch::wasm32::unreachable()
}
