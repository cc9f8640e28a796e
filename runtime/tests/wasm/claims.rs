//! Preview-1 modules whose allocators take for granted that all of the memory is theirs.

use wasm_encoder::*;

const I: ValType = ValType::I32;
const PREVIEW1: &str = "wasi_snapshot_preview1";
/// The functions, in this order.
const ENVIRONMENT: u32 = 0;
const WRITE: u32 = 1;
const EXIT: u32 = 2;
const CLAIM: u32 = 3;
const GROW: u32 = 4;
const START: u32 = 5;
/// Where the text lies that is printed, behind the vector that names it.
const TEXT: &str = "kept\n";
const TEXT_AT: i32 = 16;
const RESULT_AT: i32 = 64;
const HEAP: i32 = 1024;

/// How an allocator learns where the memory lies that it grew.
#[derive(Clone, Copy)]
pub enum Learns {
    /// `memory.grow` tells it. To grow by nothing says where the memory ends, as `sbrk` of wasi-libc.
    FromGrow,
    /// It read the size before, as AssemblyScript's.
    FromSize,
}

/// A module that calls an import, overwrites everything from its heap's start to the memory's end, grows the memory
/// twice and overwrites that too, then prints "kept" and exits with code 7.
pub fn module(learns: Learns) -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([I, I], [I]);
    types.ty().function([I; 4], [I]);
    types.ty().function([I], []);
    types.ty().function([], [I]);
    types.ty().function([I], [I]);
    types.ty().function([], []);
    let mut imports = ImportSection::new();
    imports.import(PREVIEW1, "environ_sizes_get", EntityType::Function(0));
    imports.import(PREVIEW1, "fd_write", EntityType::Function(1));
    imports.import(PREVIEW1, "proc_exit", EntityType::Function(2));
    let mut functions = FunctionSection::new();
    functions.function(3).function(4).function(5);
    let mut memories = MemorySection::new();
    memories.memory(MemoryType { minimum: 2, maximum: None, memory64: false, shared: false, page_size_log2: None });
    let mut exports = ExportSection::new();
    exports.export("memory", ExportKind::Memory, 0).export("_start", ExportKind::Func, START);
    let mut code = CodeSection::new();
    code.function(&claim(learns)).function(&grow(learns)).function(&start());
    let mut vector = Vec::from(TEXT_AT.to_le_bytes());
    vector.extend((TEXT.len() as i32).to_le_bytes());
    let mut data = DataSection::new();
    data.active(0, &ConstExpr::i32_const(0), vector);
    data.active(0, &ConstExpr::i32_const(TEXT_AT), TEXT.bytes());
    let mut module = Module::new();
    module.section(&types).section(&imports).section(&functions).section(&memories).section(&exports);
    module.section(&code).section(&data);
    module.finish()
}

/// Where the memory ends.
fn claim(learns: Learns) -> Function {
    let mut body = Function::new([]);
    let mut code = body.instructions();
    match learns {
        Learns::FromGrow => code.i32_const(0).call(GROW),
        Learns::FromSize => code.memory_size(0).i32_const(16).i32_shl(),
    };
    code.end();
    body
}

/// Grows the memory by as many pages, and says where they are.
fn grow(learns: Learns) -> Function {
    let mut body = Function::new([(1, I)]);
    let mut code = body.instructions();
    match learns {
        Learns::FromGrow => {
            code.local_get(0).i32_eqz().if_(BlockType::Empty);
            code.memory_size(0).i32_const(16).i32_shl().return_().end();
            code.local_get(0).memory_grow(0)
        }
        Learns::FromSize => code.memory_size(0).local_get(0).memory_grow(0).drop(),
    };
    code.i32_const(16).i32_shl().end();
    body
}

fn start() -> Function {
    let mut body = Function::new([]);
    let mut code = body.instructions();
    code.i32_const(RESULT_AT).i32_const(RESULT_AT).call(ENVIRONMENT).drop();
    code.i32_const(HEAP).i32_const(0xaa).call(CLAIM).i32_const(HEAP).i32_sub().memory_fill(0);
    for pages in [3, 1] {
        code.i32_const(pages).call(GROW).i32_const(0xbb).i32_const(pages << 16).memory_fill(0);
    }
    code.i32_const(1).i32_const(0).i32_const(1).i32_const(RESULT_AT).call(WRITE).drop();
    code.i32_const(7).call(EXIT).end();
    body
}
