//! Exits with its number of arguments as code (the program's name counts too), and nothing else.
#![no_std]
#![no_main]

#[link(wasm_import_module = "wasi_snapshot_preview1")]
extern "C" {
    fn args_sizes_get(count: *mut usize, bytes: *mut usize) -> i32;
    fn proc_exit(code: i32) -> !;
}

#[no_mangle]
extern "C" fn _start() {
    let (mut count, mut bytes) = (0, 0);
    unsafe {
        args_sizes_get(&mut count, &mut bytes);
        proc_exit(count as i32)
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    core::arch::wasm32::unreachable()
}
