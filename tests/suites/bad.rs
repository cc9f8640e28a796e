//! Bad input: what cannot be run or mounted is refused in words that help, with the right exit code, and leaves nothing.

use std::path::PathBuf;

use wasm_encoder::{
    CodeSection, Component, ComponentExportKind, ComponentExportSection, ComponentImportSection, ComponentTypeRef,
    ComponentTypeSection, EntityType, ExportKind, ExportSection, Function, FunctionSection, ImportSection,
    InstanceType, MemorySection, MemoryType, Module, TypeSection,
};

use crate::support::images::{self, Tar};
use crate::support::{Wharf, wharf::Ran};

/// A preview-1 command that would end at once, if somebody stood behind these imports.
fn module(imports: &[(&str, &str)]) -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([], []);
    let mut foreign = ImportSection::new();
    for (module, name) in imports {
        foreign.import(module, name, EntityType::Function(0));
    }
    let mut functions = FunctionSection::new();
    functions.function(0);
    let mut memories = MemorySection::new();
    memories.memory(MemoryType { minimum: 1, maximum: None, memory64: false, shared: false, page_size_log2: None });
    let mut exports = ExportSection::new();
    exports.export("memory", ExportKind::Memory, 0);
    exports.export("_start", ExportKind::Func, imports.len() as u32);
    let mut body = Function::new([]);
    body.instructions().end();
    let mut code = CodeSection::new();
    code.function(&body);
    let mut module = Module::new();
    module.section(&types).section(&foreign).section(&functions).section(&memories).section(&exports).section(&code);
    module.finish()
}

/// A component that imports and exports an instance of these names.
fn component(import: &str, export: &str) -> Vec<u8> {
    let mut types = ComponentTypeSection::new();
    types.instance(&InstanceType::new());
    let mut imports = ComponentImportSection::new();
    imports.import(import, ComponentTypeRef::Instance(0));
    let mut exports = ComponentExportSection::new();
    exports.export(export, ComponentExportKind::Instance, 0, None);
    let mut component = Component::new();
    component.section(&types).section(&imports).section(&exports);
    component.finish()
}

/// Has the bytes run in each way there is, and gives what was said. None of them may leave anything.
fn refused(wharf: &Wharf, wasm: &[u8]) -> Vec<Ran> {
    let file = wharf.dir().join("bad.wasm");
    std::fs::write(&file, wasm).expect("a file");
    let mut said = vec![wharf.exits(126, &["wasm", "run", file.to_str().expect("a plain path")])];
    wharf.load(&images::scratch_wasm("bad", wasm));
    said.push(wharf.exits(126, &["run", "--rm", "bad"]));
    said.push(wharf.exits(126, &["run", "-d", "-p", "127.0.0.1::80", "bad"]));
    assert_eq!(wharf.ok(&["ps", "-aq"]), "", "a container that never ran is not kept");
    said
}

#[test]
fn imports_that_nobody_satisfies_are_named() {
    let wharf = Wharf::new();
    let modules: [(&[(&str, &str)], &str); 6] = [
        (
            &[("wasi_snapshot_preview1", "sock_open"), ("wasi_snapshot_preview1", "sock_connect")],
            "build for wasm32-wasip2",
        ),
        (&[("wasi", "thread-spawn")], "wasi-threads"),
        (&[("env", "proxy_log")], "proxy-wasm"),
        (&[("wasi_unstable", "fd_write")], "preview 0"),
        (&[("wasi_nn", "load")], "build for wasm32-wasip1 or wasm32-wasip2"),
        (&[("__wbindgen_placeholder__", "__wbindgen_throw")], "wasm-bindgen"),
    ];
    for (imports, helps) in modules {
        for ran in refused(&wharf, &module(imports)) {
            for (module, name) in imports {
                assert!(ran.stderr.contains(&format!("{module}.{name}")), "{ran}");
            }
            assert!(ran.stderr.contains(helps), "{ran}");
        }
    }
    // The same program without them runs.
    let file = wharf.dir().join("good.wasm");
    std::fs::write(&file, module(&[])).expect("a file");
    wharf.ok(&["wasm", "run", file.to_str().expect("a plain path")]);
}

#[test]
fn components_of_another_wasi_are_refused_with_the_reason() {
    let wharf = Wharf::new();
    for (import, export, helps) in [
        ("wasi:http/types@0.3.0-rc-2026-01-06", "wasi:http/handler@0.3.0-rc-2026-01-06", "none of their drafts"),
        ("wasi:cli/stdout@0.3.0-draft", "wasi:cli/run@0.3.0", "build it with a present toolchain"),
        ("wasi:io/poll@0.3.0", "wasi:cli/run@0.3.0", "Wharf has WASI 0.2 and 0.3"),
        ("wasi:keyvalue/store@0.2.0", "wasi:cli/run@0.2.0", "wac plug"),
    ] {
        for ran in refused(&wharf, &component(import, export)) {
            assert!(ran.stderr.contains(import) && ran.stderr.contains(helps), "{ran}");
        }
    }
}

#[test]
fn what_is_cut_short_or_damaged_is_refused() {
    let wharf = Wharf::new();
    for guest in ["tools-p1", "tools-p2"] {
        let whole = images::read(&images::guest(guest));
        let mut damaged = whole.clone();
        let middle = whole.len() / 2;
        damaged[middle..middle + 64].fill(0xff);
        // After the header, in the middle, before the last byte.
        for wasm in [&whole[..9], &whole[..middle], &whole[..whole.len() - 1], &damaged] {
            for ran in refused(&wharf, wasm) {
                let words = ["malformed WebAssembly", "does not compile"];
                assert!(words.iter().any(|words| ran.stderr.contains(words)), "{ran}");
                assert!(ran.stderr.contains("build or download it again"), "{ran}");
            }
        }
    }
    // What is no WebAssembly at all.
    let run = |name: &str, bytes: &[u8]| {
        let file = wharf.dir().join(name);
        std::fs::write(&file, bytes).expect("a file");
        wharf.run(&["wasm", "run", file.to_str().expect("a plain path")])
    };
    for (name, bytes) in [("empty.wasm", &b""[..]), ("text.wasm", b"hello\n"), ("script.wasm", b"#!/bin/sh\nexit 0\n")]
    {
        let ran = run(name, bytes);
        assert!(ran.code == 126 && ran.stderr.contains("not WebAssembly"), "{ran}");
    }
    let missing = wharf.exits(127, &["wasm", "run", "/nothing.wasm"]);
    assert!(missing.stderr.contains("open /nothing.wasm: no such file or directory"), "{missing}");
    assert_eq!(wharf.ok(&["ps", "-aq"]), "");
}

#[test]
fn an_image_of_another_machine_is_refused() {
    let wharf = Wharf::new();
    // A file of ARM's where ours is expected: the image says nothing of it.
    let mut layer = Tar::default();
    let mut program = images::read("/bin/busybox");
    program[18] = 0xb7;
    layer.file("program", 0o755, &program);
    wharf.load(&images::linux("foreign", &[layer.end()], &serde_json::json!({"Cmd": ["/program"]})));
    let ran = wharf.exits(126, &["run", "--rm", "--network", "none", "foreign"]);
    assert!(ran.stderr.to_lowercase().contains("exec format error"), "{ran}");
    assert_eq!(wharf.ok(&["ps", "-aq"]), "");
    // One that says so.
    let ran = wharf.exits(125, &["run", "--rm", "--pull", "never", "--platform", "linux/s390x", "foreign"]);
    assert!(ran.stderr.contains("linux/s390x"), "{ran}");
    assert_eq!(wharf.ok(&["ps", "-aq"]), "");
}

#[test]
fn mounts_that_cannot_be_are_refused_and_leave_nothing() {
    let wharf = Wharf::with_busybox();
    wharf.load(&images::scratch_wasm("tools", &images::read(&images::guest("tools-p1"))));
    let (file, directory) = (wharf.dir().join("file"), wharf.dir().join("directory"));
    std::fs::write(&file, "x").expect("a file");
    std::fs::create_dir(&directory).expect("a directory");
    let (file, directory) = (file.display(), directory.display());
    let nothing = || {
        assert_eq!(wharf.ok(&["ps", "-aq"]), "");
        assert_eq!(std::fs::read_dir(wharf.dir().join("directory")).expect("a directory").count(), 0);
    };
    let refused = |image: &str, mount: &str, told: &str| {
        let ran = wharf.exits(125, &["run", "--rm", "--network", "none", "-v", mount, image, "ls", "/"]);
        assert!(ran.stderr.contains(told), "{ran}");
        nothing();
    };
    let place = |volume: &str| PathBuf::from(wharf.ok(&["volume", "inspect", "-f", "{{.Mountpoint}}", volume]));
    wharf.ok(&["volume", "create", "spoilt"]);
    std::fs::remove_dir(place("spoilt")).expect("rmdir");
    std::fs::write(place("spoilt"), "no directory").expect("a file");
    for image in ["busybox", "tools"] {
        refused(image, &format!("{file}/below:/data"), "Not a directory");
        refused(image, "spoilt:/data", "Not a directory");
        let missing = ["run", "--rm", "--mount", "type=bind,src=/nothing,dst=/data", image, "ls", "/"];
        let ran = wharf.exits(125, &missing);
        assert!(ran.stderr.contains("bind source path does not exist: /nothing"), "{ran}");
        nothing();
    }
    refused(
        "busybox",
        &format!("{directory}:/etc/passwd"),
        "a directory cannot be mounted on /etc/passwd: not a directory",
    );
    refused(
        "busybox",
        &format!("{directory}:/etc/passwd/below"),
        "cannot be mounted on /etc/passwd/below: not a directory",
    );
    refused("busybox", &format!("{file}:/etc"), "a file cannot be mounted on /etc: not a file");
    // A WebAssembly program's tree is of Wharf's own making: a mount stands at its place, whatever was there.
    for (source, target) in [(directory.to_string(), "/app.wasm"), (file.to_string(), "/app.wasm/below")] {
        let ran = wharf.run(&["run", "--rm", "-v", &format!("{source}:{target}"), "tools", "ls", "/"]);
        assert!(ran.code == 0 || ran.stderr.contains(target), "{ran}");
        nothing();
    }
}

#[test]
fn a_port_in_use_is_refused_to_every_kind_and_leaves_nothing() {
    let wharf = Wharf::with_busybox();
    for guest in ["http", "net-p2"] {
        wharf.ok(&["wasm", "pack", &images::guest(guest), "-t", guest]);
    }
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = holder.local_addr().expect("an address");
    let spec = format!("{at}:80");
    for program in [&["http"][..], &["net-p2", "echo", "0.0.0.0:80"], &["busybox", "sleep", "1"]] {
        for how in [&["run", "-d"][..], &["run", "--rm"]] {
            let ran = wharf.exits(125, &[how, &["-p", &spec], program].concat());
            assert!(ran.stderr.contains(&format!("{at} failed: port is already allocated")), "{ran}");
            assert_eq!(wharf.ok(&["ps", "-aq"]), "", "{ran}");
        }
    }
}
