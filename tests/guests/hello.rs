//! The program of `wharf/hello`. Without the standard library it is under a kilobyte, so it starts as fast as anything can.
#![no_std]
#![no_main]

const TEXT: &str = "\
Hello from Wharf!

If you can read this, Wharf works here. To get this far, it
 1. found the image `wharf/hello`, which is built into the program,
 2. compiled its WebAssembly module for this machine, the first time,
 3. made a container of it: a process of its own, behind two walls, and
 4. ran it, and passed on what it wrote to your terminal.

Next, run something bigger, from any registry:
    wharf run -it debian bash
";

#[repr(C)]
struct Vector(*const u8, usize);

#[link(wasm_import_module = "wasi_snapshot_preview1")]
extern "C" {
    fn fd_write(fd: i32, vectors: *const Vector, count: usize, written: *mut usize) -> i32;
    fn proc_exit(code: i32) -> !;
}

#[no_mangle]
extern "C" fn _start() {
    let mut rest = TEXT.as_bytes();
    while !rest.is_empty() {
        let mut written = 0;
        let error = unsafe { fd_write(1, &Vector(rest.as_ptr(), rest.len()), 1, &mut written) };
        if error != 0 || written == 0 {
            unsafe { proc_exit(1) }
        }
        rest = rest.get(written..).unwrap_or(&[]);
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    core::arch::wasm32::unreachable()
}
