//! Serves a component at an address, without a container around it, until its stdin ends: for profiling.
//!
//!     serve FILE.wasm 127.0.0.1:8080 [CONCURRENCY]

use std::io::Read;
use std::net::TcpListener;
use std::sync::Arc;

use wharf_images::snapshot::Rootfs;
use wharf_runtime::backend::wasm::ModuleCache;
use wharf_runtime::backend::wasm::compile::{Compiler, Limits};
use wharf_runtime::backend::wasm::run::{Program, Ready};
use wharf_runtime::network::Unconnected;
use wharf_runtime::task::{HttpTask, WasmTask};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, file, address, rest @ ..] = args.as_slice() else {
        return Err("usage: serve FILE.wasm ADDRESS [CONCURRENCY]".into());
    };
    let root = std::env::temp_dir().join(format!("serve-{}", std::process::id()));
    std::fs::create_dir_all(root.join("rootfs"))?;
    let cache = ModuleCache::with_compiler(&root, Compiler::InProcess, Limits::default())?;
    let module = cache.ensure_bytes(&std::fs::read(file)?, None)?.path;
    let limits = HttpTask {
        port: 80,
        timeout_ms: Some(2000),
        memory: 64 << 20,
        concurrency: rest.first().map_or(Ok(100), |n| n.parse())?,
        access_log: std::env::var_os("QUIET").is_none(),
    };
    let task = WasmTask { module, cwd: "/".to_owned(), http: Some(limits), ..WasmTask::default() };
    let (program, rootfs) = (Program::load(&task, None)?, Rootfs::Dir(root.join("rootfs")));
    let Ready::Server(serving) = program.prepare(&task, &rootfs, None, Arc::new(Unconnected))? else {
        return Err("the component does not serve HTTP".into());
    };
    serving.run(
        &[TcpListener::bind(address)?],
        || Ok(None),
        || {
            // However it ends.
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
        },
    )?;
    std::fs::remove_dir_all(root)?;
    Ok(())
}
