//! Components that want without end what is not their own memory: the host's.

use wasm_encoder::*;

const U64: ComponentValType = ComponentValType::Primitive(PrimitiveValType::U64);

/// Its function `boom` asks for clocks to wait for, and keeps them all.
pub fn handles() -> Vec<u8> {
    let mut component = ComponentBuilder::default();
    let mut poll = InstanceType::new();
    poll.export("pollable", ComponentTypeRef::Type(TypeBounds::SubResource));
    let poll = component.type_instance(None, &poll);
    let poll = component.import("wasi:io/poll@0.2.0", ComponentTypeRef::Instance(poll));
    let pollable = component.alias_export(poll, "pollable", ComponentExportKind::Type);
    let mut clock = InstanceType::new();
    clock.alias(Alias::Outer { kind: ComponentOuterAliasKind::Type, count: 1, index: pollable });
    clock.export("pollable", ComponentTypeRef::Type(TypeBounds::Eq(0)));
    clock.ty().defined_type().own(1);
    clock.ty().function().params([("when", U64)]).result(Some(ComponentValType::Type(2)));
    clock.export("subscribe-duration", ComponentTypeRef::Func(3));
    let clock = component.type_instance(None, &clock);
    let clock = component.import("wasi:clocks/monotonic-clock@0.2.0", ComponentTypeRef::Instance(clock));
    let subscribe = component.alias_export(clock, "subscribe-duration", ComponentExportKind::Func);
    let lowered = component.lower_func(None, subscribe, []);

    let mut body = Function::new([]);
    body.instructions().loop_(BlockType::Empty).i64_const(0).call(0).drop().br(0).end().end();
    finish(component, lowered, &caller(&[ValType::I64], &[ValType::I32], &body))
}

/// Its function `boom` asks for more random bytes than there is memory.
pub fn bytes() -> Vec<u8> {
    let mut component = ComponentBuilder::default();
    let mut random = InstanceType::new();
    random.ty().defined_type().list(PrimitiveValType::U8);
    random.ty().function().params([("len", U64)]).result(Some(ComponentValType::Type(0)));
    random.export("get-random-bytes", ComponentTypeRef::Func(1));
    let random = component.type_instance(None, &random);
    let random = component.import("wasi:random/random@0.2.0", ComponentTypeRef::Instance(random));
    let get = component.alias_export(random, "get-random-bytes", ComponentExportKind::Func);
    let library = component.core_module(None, &library());
    let library = component.core_instantiate::<[(&str, ModuleArg); 0]>(None, library, []);
    let memory = component.core_alias_export(None, library, "memory", ExportKind::Memory);
    let realloc = component.core_alias_export(None, library, "realloc", ExportKind::Func);
    let options = [CanonicalOption::Memory(memory), CanonicalOption::Realloc(realloc)];
    let lowered = component.lower_func(None, get, options);

    let mut body = Function::new([]);
    body.instructions().i64_const(1 << 60).i32_const(0).call(0).end();
    finish(component, lowered, &caller(&[ValType::I64, ValType::I32], &[], &body))
}

/// A memory, and an allocator that nobody should have to call.
fn library() -> Module {
    let mut types = TypeSection::new();
    types.ty().function([ValType::I32; 4], [ValType::I32]);
    let mut functions = FunctionSection::new();
    functions.function(0);
    let mut memories = MemorySection::new();
    memories.memory(MemoryType { minimum: 1, maximum: None, memory64: false, shared: false, page_size_log2: None });
    let mut exports = ExportSection::new();
    exports.export("memory", ExportKind::Memory, 0).export("realloc", ExportKind::Func, 0);
    let mut body = Function::new([]);
    body.instructions().unreachable().end();
    let mut code = CodeSection::new();
    code.function(&body);
    let mut module = Module::new();
    module.section(&types).section(&functions).section(&memories).section(&exports).section(&code);
    module
}

/// A module whose function `boom` has this body; function 0 is the host's.
fn caller(params: &[ValType], results: &[ValType], body: &Function) -> Module {
    let mut types = TypeSection::new();
    types.ty().function(params.iter().copied(), results.iter().copied());
    types.ty().function([], []);
    let mut imports = ImportSection::new();
    imports.import("host", "call", EntityType::Function(0));
    let mut functions = FunctionSection::new();
    functions.function(1);
    let mut exports = ExportSection::new();
    exports.export("boom", ExportKind::Func, 1);
    let mut code = CodeSection::new();
    code.function(body);
    let mut module = Module::new();
    module.section(&types).section(&imports).section(&functions).section(&exports).section(&code);
    module
}

fn finish(mut component: ComponentBuilder, lowered: u32, caller: &Module) -> Vec<u8> {
    let host = component.core_instantiate_exports(None, [("call", ExportKind::Func, lowered)]);
    let caller = component.core_module(None, caller);
    let instance = component.core_instantiate(None, caller, [("host", ModuleArg::Instance(host))]);
    let (ty, mut function) = component.type_function(None);
    function.params::<[(&str, ComponentValType); 0], _>([]).result(None);
    let boom = component.core_alias_export(None, instance, "boom", ExportKind::Func);
    let boom = component.lift_func(None, boom, ty, []);
    component.export("boom", ComponentExportKind::Func, boom, None);
    component.finish()
}
