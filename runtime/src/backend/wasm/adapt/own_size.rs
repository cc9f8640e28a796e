//! A guest sees only the memory that it grew itself.
//!
//! The adapter gets the pages of its state by growing the guest's memory, at the guest's first import call. Allocators
//! which claim at their first use everything up to `memory.size` (wasi-libc's before `__heap_end`, AssemblyScript's)
//! would take those pages too and overwrite them. So the module keeps its own idea of the memory's size, in a global:
//! `memory.size` reads it, `memory.grow` brings it up to date.
//!
//! Where a function reads the size and then goes on to grow, the size stays the true one: there it says where the new
//! pages will lie (AssemblyScript's allocator), which is behind the adapter's. A size that is returned at once, as
//! `sbrk(0)` of wasi-libc does, is the module's own.

use wasm_encoder::{BlockType, ConstExpr, Encode, Function, GlobalType, Instruction, SectionId, ValType};
use wasmparser::types::TypesRef;
use wasmparser::{BinaryReader, FunctionBody, Operator, Parser, Payload};

use super::{AFTER_MEMORY, Edit};

/// The type of the function that grows the memory: `(i32) -> (i32)`.
const GROW_TYPE: [u8; 5] = [0x60, 1, 0x7f, 1, 0x7f];

/// Where, in [`AFTER_MEMORY`], the sections behind the globals begin.
const AFTER_GLOBAL: usize = 2;

impl Edit<'_> {
    /// Hides the adapter's pages from the module. To be called before functions are added.
    pub(super) fn keep_own_size(&mut self, types: TypesRef<'_>) -> wasmparser::Result<()> {
        let mut memory = None;
        let mut bodies = Vec::new();
        for payload in Parser::new(0).parse_all(self.wasm) {
            match payload? {
                // Otherwise the first memory is an import.
                Payload::MemorySection(section) if section.count() == types.memory_count() => {
                    memory = section.into_iter().next().transpose()?;
                }
                Payload::CodeSectionEntry(body) => bodies.push(body),
                _ => {}
            }
        }
        // The adapter links with no memory of 64 bits, and with a shared one each thread would have its own size.
        let Some(memory) = memory.filter(|m| !m.memory64 && !m.shared) else { return Ok(()) };
        let own = Own { size: types.global_count(), grow: types.function_count() };

        let mut changed = false;
        let mut code = Vec::new();
        bodies.len().encode(&mut code);
        for body in &bodies {
            let rewritten = own.rewrite(body)?;
            changed |= rewritten.is_some();
            rewritten.as_deref().unwrap_or(body.as_bytes()).encode(&mut code);
        }
        let Some(section) = self.section(SectionId::Code).filter(|_| changed) else { return Ok(()) };
        *section = code.into();
        self.add_function(types, &GROW_TYPE, &own.grow());
        // The validator takes no minimum of more than 65536 pages.
        let pages = i32::try_from(memory.initial).unwrap_or(i32::MAX);
        self.add_global(&pages_global(pages));
        self.sections.retain(|(id, data)| *id != SectionId::Custom as u8 || !speaks_of_offsets(data));
        Ok(())
    }

    fn add_global(&mut self, global: &[u8]) {
        if self.append(SectionId::Global, global).is_none() {
            self.insert(SectionId::Global, [&[1], global].concat(), &AFTER_MEMORY[AFTER_GLOBAL..]);
        }
    }
}

fn pages_global(pages: i32) -> Vec<u8> {
    let mut global = Vec::new();
    GlobalType { val_type: ValType::I32, mutable: true, shared: false }.encode(&mut global);
    ConstExpr::i32_const(pages).encode(&mut global);
    global
}

/// Debug information and branch hints name places in the code by offset. Wharf reads neither.
fn speaks_of_offsets(custom: &[u8]) -> bool {
    let name = BinaryReader::new(custom, 0).read_string();
    name.is_ok_and(|n| n.starts_with(".debug_") || n.starts_with("metadata.code."))
}

/// The indices of what is added.
struct Own {
    /// The global: how many pages the module believes there are.
    size: u32,
    /// The function that does what `memory.grow` did.
    grow: u32,
}

impl Own {
    /// A function's body (its locals and its code) in the new terms, or `None` if that changes nothing.
    fn rewrite(&self, body: &FunctionBody<'_>) -> wasmparser::Result<Option<Vec<u8>>> {
        let mut changes = Vec::new();
        // The reads that a growth may still follow, as their index in `changes` and how many blocks deeper we are.
        let mut followed: Vec<(usize, i32)> = Vec::new();
        let mut true_size = Vec::new();
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            let from = operators.original_position();
            let operator = operators.read()?;
            let place = from..operators.original_position();
            match operator {
                Operator::MemorySize { mem: 0 } => {
                    followed.push((changes.len(), 0));
                    changes.push((place, Instruction::GlobalGet(self.size)));
                }
                Operator::MemoryGrow { mem: 0 } => {
                    true_size.extend(followed.drain(..).map(|(read, _)| read));
                    changes.push((place, Instruction::Call(self.grow)));
                }
                Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } | Operator::TryTable { .. } => {
                    followed.iter_mut().for_each(|(_, depth)| *depth += 1);
                }
                Operator::End => followed.iter_mut().for_each(|(_, depth)| *depth = (*depth - 1).max(0)),
                // What comes next is not what comes after the read.
                Operator::Else
                | Operator::Br { .. }
                | Operator::BrTable { .. }
                | Operator::Return
                | Operator::Unreachable => followed.retain(|(_, depth)| *depth > 0),
                _ => {}
            }
        }
        for read in true_size.into_iter().rev() {
            changes.remove(read);
        }
        if changes.is_empty() {
            return Ok(None);
        }

        let (start, bytes) = (body.range().start, body.as_bytes());
        let mut rewritten = Vec::with_capacity(bytes.len() + 8 * changes.len());
        let mut done = 0;
        for (place, instruction) in changes {
            rewritten.extend_from_slice(&bytes[done..place.start - start]);
            instruction.encode(&mut rewritten);
            done = place.end - start;
        }
        rewritten.extend_from_slice(&bytes[done..]);
        Ok(Some(rewritten))
    }

    /// Grows the memory. To grow by nothing, which only asks for the size, must not bring what is hidden to light.
    fn grow(&self) -> Function {
        let (pages, before) = (0, 1);
        let mut body = Function::new([(1, ValType::I32)]);
        let mut code = body.instructions();
        code.local_get(pages).memory_grow(0).local_tee(before).i32_const(-1).i32_ne();
        code.local_get(pages).i32_const(0).i32_ne().i32_and().if_(BlockType::Empty);
        code.local_get(before).local_get(pages).i32_add().global_set(self.size).end();
        code.local_get(before).end();
        body
    }
}

#[cfg(test)]
mod tests {
    use wasm_encoder::{
        CodeSection, CustomSection, EntityType, FunctionSection, ImportSection, MemorySection, MemoryType, Module,
        TypeSection,
    };
    use wasmparser::{Validator, WasmFeatures};

    use super::*;

    const MEMORY: MemoryType =
        MemoryType { minimum: 2, maximum: None, memory64: false, shared: false, page_size_log2: None };

    /// A module of one function, with debug information.
    fn module(imported: bool, body: &Function) -> Vec<u8> {
        let mut types = TypeSection::new();
        types.ty().function([], []);
        let mut imports = ImportSection::new();
        let mut memories = MemorySection::new();
        if imported {
            imports.import("env", "memory", EntityType::Memory(MEMORY));
        } else {
            memories.memory(MEMORY);
        }
        let mut functions = FunctionSection::new();
        functions.function(0);
        let mut code = CodeSection::new();
        code.function(body);
        let mut module = Module::new();
        module.section(&types).section(&imports).section(&functions).section(&memories).section(&code);
        for name in [".debug_line", "metadata.code.branch_hint", "producers"] {
            module.section(&CustomSection { name: name.into(), data: (&[0]).into() });
        }
        module.finish()
    }

    fn edited(wasm: &[u8]) -> Vec<u8> {
        let types = Validator::new_with_features(WasmFeatures::default()).validate_all(wasm).unwrap();
        let mut edit = Edit::open(wasm).unwrap();
        edit.keep_own_size(types.as_ref()).unwrap();
        edit.finish()
    }

    /// What its functions do with the memory's size, and the names of its custom sections.
    fn described(wasm: &[u8]) -> (Vec<Vec<String>>, Vec<String>) {
        Validator::new().validate_all(wasm).unwrap();
        let (mut bodies, mut custom) = (Vec::new(), Vec::new());
        for payload in Parser::new(0).parse_all(wasm) {
            match payload.unwrap() {
                Payload::CodeSectionEntry(body) => {
                    let operators = body.get_operators_reader().unwrap().into_iter();
                    let told = operators
                        .map(|o| format!("{:?}", o.unwrap()))
                        .filter(|o| ["Memory", "Global", "Call"].iter().any(|kind| o.starts_with(kind)));
                    bodies.push(told.collect());
                }
                Payload::CustomSection(section) => custom.push(section.name().to_owned()),
                _ => {}
            }
        }
        (bodies, custom)
    }

    #[test]
    fn the_size_is_the_modules_own_but_before_it_grows() {
        let mut body = Function::new([]);
        let mut code = body.instructions();
        code.i32_const(0).if_(BlockType::Empty).memory_size(0).drop().return_().end();
        code.memory_size(0).i32_const(1).if_(BlockType::Empty).return_().end();
        code.memory_grow(0).drop().memory_size(0).drop().end();
        let (bodies, custom) = described(&edited(&module(false, &body)));
        let own = "GlobalGet { global_index: 0 }";
        let function = [own, "MemorySize { mem: 0 }", "Call { function_index: 1 }", own];
        let grow = ["MemoryGrow { mem: 0 }", "GlobalSet { global_index: 0 }"];
        assert_eq!(bodies, [function.map(str::to_owned).to_vec(), grow.map(str::to_owned).to_vec()]);
        assert_eq!(custom, ["producers"]);
    }

    #[test]
    fn nothing_changes_without_a_reason() {
        let mut size = Function::new([]);
        size.instructions().memory_size(0).drop().end();
        let mut nothing = Function::new([]);
        nothing.instructions().end();
        for wasm in [module(true, &size), module(false, &nothing)] {
            assert!(edited(&wasm) == wasm);
        }
    }
}
