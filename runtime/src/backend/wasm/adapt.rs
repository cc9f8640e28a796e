//! A preview-1 module becomes a WASI 0.2 component, once, when it enters the module cache.
//!
//! `wit-component` links the module with wasmtime's preview-1 adapter, which is made to look at each descriptor
//! ([`Edit::check_descriptors`]). Four things are changed in the module before:
//!
//! - The adapter passes only success or failure to `wasi:cli/exit.exit`, so every failure would be exit code 1.
//!   The import `wasi_snapshot_preview1.proc_exit` is renamed to `wasi:cli/exit.exit-with-code`, which has the same
//!   core signature (one i32, no result) and keeps the code.
//! - If a function other than the entry is asked for, it becomes the entry: a new `_start` initialises the library
//!   and calls it.
//! - The adapter keeps its state in the module's memory, so a module that exports none is given one.
//! - Of that memory the module sees only what it grew itself ([`own_size`]).
//!
//! Sections are edited as bytes: what is not touched stays as it was, custom sections included.

mod own_size;

use std::borrow::Cow;
use std::ops::Range;

use wasi_preview1_component_adapter_provider::WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER as ADAPTER;
use wasm_encoder::{BlockType, Encode, ExportKind, Instruction, RawSection, SectionId};
use wasmparser::types::TypesRef;
use wasmparser::{BinaryReader, ExternalKind, Imports, Parser, Payload, Validator, WasmFeatures};
use wharf_images::wasm::malformed;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

use super::inspect::{PREVIEW1, START};
use crate::error::{Class, Error, Result};

/// Changes whenever [`adapt`] would make another component of the same module: a part of the module cache's key.
pub const VERSION: &str = "adapter-48.0-3";

/// The world a module lives in besides preview 1, with the version of `wasi:cli` that wasmtime 48 has.
const WORLD: &str = "package wasi:cli@0.2.12;
interface exit { exit-with-code: func(status-code: u8); }
world exit-codes { import exit; }";

const EXIT_MODULE: &str = "wasi:cli/exit@0.2.12";
const EXIT_FUNCTION: &str = "exit-with-code";

/// Makes a component of a preview-1 module. With `function`, that exported function is what the component runs.
///
/// # Errors
/// `Corrupt` when the module is not valid; `Unsupported` when it cannot be linked with the adapter, or when the
/// function takes arguments.
pub fn adapt(module: &[u8], function: Option<&str>) -> Result<Vec<u8>> {
    let types =
        Validator::new_with_features(WasmFeatures::default()).validate_all(module).map_err(|e| malformed(&e))?;
    let mut edit = Edit::open(module).map_err(|e| malformed(&e))?;
    edit.rename_exit().map_err(|e| malformed(&e))?;
    edit.keep_own_size(types.as_ref()).map_err(|e| malformed(&e))?;
    if let Some(name) = function {
        edit.make_entry(name, types.as_ref())?;
    }
    edit.export_memory(types.as_ref()).map_err(|e| malformed(&e))?;
    let mut core = edit.finish();
    encode(&mut core).map_err(|e| Error::new(Class::Unsupported, format!("the module cannot become a component: {e}")))
}

/// What `wit-component` fails with, as text: its error type is another crate's.
fn encode(core: &mut Vec<u8>) -> Result<Vec<u8>, String> {
    let mut resolve = wit_parser::Resolve::default();
    let package = resolve.push_str("command.wit", WORLD).map_err(|e| format!("{e:#}"))?;
    let world = resolve.select_world(&[package], Some("exit-codes")).map_err(|e| format!("{e:#}"))?;
    embed_component_metadata(core, &resolve, world, StringEncoding::UTF8).map_err(|e| format!("{e:#}"))?;
    let mut adapter = Edit::open(ADAPTER).map_err(|e| e.to_string())?;
    adapter.check_descriptors().map_err(|e| e.to_string())?;
    // Not validated here: wasmtime does so when it compiles.
    ComponentEncoder::default()
        .module(core)
        .and_then(|encoder| encoder.adapter(PREVIEW1, &adapter.finish()))
        .and_then(|mut encoder| encoder.encode())
        .map_err(|e| format!("{e:#}"))
}

/// The sections that stand behind the memory section in a module.
const AFTER_MEMORY: [u8; 8] = [
    SectionId::Tag as u8,
    SectionId::Global as u8,
    SectionId::Export as u8,
    SectionId::Start as u8,
    SectionId::Element as u8,
    SectionId::DataCount as u8,
    SectionId::Code as u8,
    SectionId::Data as u8,
];

/// A module as its sections.
struct Edit<'a> {
    wasm: &'a [u8],
    sections: Vec<(u8, Cow<'a, [u8]>)>,
    /// How many functions have been added.
    added: u32,
}

impl<'a> Edit<'a> {
    fn open(wasm: &'a [u8]) -> wasmparser::Result<Self> {
        let mut sections = Vec::new();
        for payload in Parser::new(0).parse_all(wasm) {
            if let Some((id, range)) = payload?.as_section() {
                sections.push((id, Cow::Borrowed(&wasm[range])));
            }
        }
        Ok(Edit { wasm, sections, added: 0 })
    }

    fn finish(self) -> Vec<u8> {
        let mut module = wasm_encoder::Module::new();
        for (id, data) in &self.sections {
            module.section(&RawSection { id: *id, data });
        }
        module.finish()
    }

    fn section(&mut self, id: SectionId) -> Option<&mut Cow<'a, [u8]>> {
        self.sections.iter_mut().find(|(i, _)| *i == id as u8).map(|(_, data)| data)
    }

    /// Where an item's bytes are, between its own offset and the next one's.
    fn items(offsets: &[usize], end: usize) -> impl Iterator<Item = Range<usize>> {
        let ends = offsets.iter().skip(1).copied().chain([end]);
        offsets.iter().copied().zip(ends).map(|(from, to)| from..to)
    }

    fn rename_exit(&mut self) -> wasmparser::Result<()> {
        let wasm = self.wasm;
        for payload in Parser::new(0).parse_all(wasm) {
            let Payload::ImportSection(section) = payload? else { continue };
            let end = section.range().end;
            let mut offsets = Vec::new();
            let mut renamed = Vec::new();
            let count = section.count();
            for item in section.into_iter_with_offsets() {
                let (offset, group) = item?;
                offsets.push(offset);
                renamed.push(matches!(&group, Imports::Single(_, i) if (i.module, i.name) == (PREVIEW1, "proc_exit")));
            }
            if !renamed.contains(&true) {
                return Ok(());
            }
            let mut data = Vec::with_capacity(end - offsets[0] + 64);
            count.encode(&mut data);
            for (range, renamed) in Self::items(&offsets, end).zip(renamed) {
                let item = &wasm[range];
                if renamed {
                    EXIT_MODULE.encode(&mut data);
                    EXIT_FUNCTION.encode(&mut data);
                    // Behind the two names stands the type, which stays.
                    let mut reader = BinaryReader::new(item, 0);
                    reader.read_string()?;
                    reader.read_string()?;
                    data.extend_from_slice(&item[reader.original_position()..]);
                } else {
                    data.extend_from_slice(item);
                }
            }
            if let Some(section) = self.section(SectionId::Import) {
                *section = Cow::Owned(data);
            }
        }
        Ok(())
    }

    /// Makes an exported function what `_start` calls.
    fn make_entry(&mut self, name: &str, types: TypesRef<'_>) -> Result<()> {
        let mut target = None;
        let mut initialize = None;
        let mut offsets = Vec::new();
        let mut kept = Vec::new();
        let mut end = 0;
        for payload in Parser::new(0).parse_all(self.wasm) {
            let Payload::ExportSection(section) = payload.map_err(|e| malformed(&e))? else { continue };
            end = section.range().end;
            for item in section.into_iter_with_offsets() {
                let (offset, export) = item.map_err(|e| malformed(&e))?;
                let function = matches!(export.kind, ExternalKind::Func | ExternalKind::FuncExact);
                offsets.push(offset);
                kept.push(export.name != START);
                match export.name {
                    n if n == name && function => target = Some(export.index),
                    "_initialize" if function => initialize = Some(export.index),
                    _ => {}
                }
            }
        }
        let target = target.ok_or_else(|| missing(name))?;
        if name == START {
            return Ok(());
        }
        let ty = types[types.core_function_at(target)].unwrap_func();
        if !ty.params().is_empty() {
            let message = format!("the function {name:?} takes {} arguments", ty.params().len());
            let hint = "an entrypoint is called without arguments: the program's own arguments come through WASI";
            return Err(Error::new(Class::Unsupported, message).with_hint(hint));
        }

        let mut body = wasm_encoder::Function::new([]);
        if let Some(initialize) = initialize.filter(|i| *i != target) {
            body.instruction(&Instruction::Call(initialize));
        }
        body.instruction(&Instruction::Call(target));
        for _ in ty.results() {
            body.instruction(&Instruction::Drop);
        }
        body.instruction(&Instruction::End);

        // `() -> ()`: a function type (0x60) with no parameters and no results.
        let start = self.add_function(types, &[0x60, 0, 0], &body).ok_or_else(|| missing(name))?;
        let mut exports = Vec::new();
        (kept.iter().filter(|k| **k).count() + 1).encode(&mut exports);
        for (range, kept) in Self::items(&offsets, end).zip(&kept) {
            if *kept {
                exports.extend_from_slice(&self.wasm[range]);
            }
        }
        START.encode(&mut exports);
        ExportKind::Func.encode(&mut exports);
        start.encode(&mut exports);
        if let Some(section) = self.section(SectionId::Export) {
            *section = Cow::Owned(exports);
        }
        Ok(())
    }

    /// The adapter says of no buffers at all that they are read or written, whatever the descriptor; preview 1 has `badf`
    /// for one that is none. So those functions ask another one first, which does nothing but look.
    fn check_descriptors(&mut self) -> wasmparser::Result<()> {
        const LOOKS: &str = "fd_fdstat_set_rights";
        const BAD_DESCRIPTOR: i32 = 8;
        const I32: u8 = 0x7f;
        const I64: u8 = 0x7e;
        // The type that each has: descriptor, buffers, how many; the offset of some; where the result goes.
        let plain: &[u8] = &[0x60, 4, I32, I32, I32, I32, 1, I32];
        let at_offset: &[u8] = &[0x60, 5, I32, I32, I32, I64, I32, 1, I32];
        let all = [("fd_read", plain), ("fd_write", plain), ("fd_pread", at_offset), ("fd_pwrite", at_offset)];
        let types = Validator::new_with_features(WasmFeatures::default()).validate_all(self.wasm)?;
        let (mut offsets, mut exports, mut end) = (Vec::new(), Vec::new(), 0);
        for payload in Parser::new(0).parse_all(self.wasm) {
            let Payload::ExportSection(section) = payload? else { continue };
            end = section.range().end;
            for item in section.into_iter_with_offsets() {
                let (offset, export) = item?;
                offsets.push(offset);
                exports.push(export);
            }
        }
        let looks = exports.iter().find(|export| export.name == LOOKS).map(|export| export.index);
        let mut section = Vec::new();
        exports.len().encode(&mut section);
        for (range, export) in Self::items(&offsets, end).zip(exports) {
            let ty = all.iter().find(|(name, _)| *name == export.name).map(|(_, ty)| *ty);
            let (Some(ty), Some(looks)) = (ty, looks) else {
                section.extend_from_slice(&self.wasm[range]);
                continue;
            };
            let mut body = wasm_encoder::Function::new([]);
            for instruction in [
                Instruction::LocalGet(2),
                Instruction::I32Eqz,
                Instruction::If(BlockType::Empty),
                Instruction::LocalGet(0),
                Instruction::I64Const(0),
                Instruction::I64Const(0),
                Instruction::Call(looks),
                Instruction::I32Const(BAD_DESCRIPTOR),
                Instruction::I32Eq,
                Instruction::If(BlockType::Empty),
                Instruction::I32Const(BAD_DESCRIPTOR),
                Instruction::Return,
                Instruction::End,
                Instruction::End,
            ] {
                body.instruction(&instruction);
            }
            for parameter in 0..u32::from(ty[1]) {
                body.instruction(&Instruction::LocalGet(parameter));
            }
            body.instruction(&Instruction::Call(export.index)).instruction(&Instruction::End);
            export.name.encode(&mut section);
            ExportKind::Func.encode(&mut section);
            self.add_function(types.as_ref(), ty, &body).unwrap_or(export.index).encode(&mut section);
        }
        if let Some(exports) = self.section(SectionId::Export) {
            *exports = Cow::Owned(section);
        }
        Ok(())
    }

    /// Exports the first memory, as `memory`, unless one is exported; a module without memory gets one.
    fn export_memory(&mut self, types: TypesRef<'_>) -> wasmparser::Result<()> {
        for payload in Parser::new(0).parse_all(self.wasm) {
            let Payload::ExportSection(section) = payload? else { continue };
            for export in section {
                if export?.kind == ExternalKind::Memory {
                    return Ok(());
                }
            }
        }
        if types.memory_count() == 0 {
            // One memory, with limits of the simplest kind: a minimum of one page.
            self.insert(SectionId::Memory, vec![1, 0, 1], &AFTER_MEMORY);
        }
        let mut export = Vec::new();
        "memory".encode(&mut export);
        ExportKind::Memory.encode(&mut export);
        0_u32.encode(&mut export);
        // There is an export section: the entry is in it.
        self.append(SectionId::Export, &export);
        Ok(())
    }

    /// Adds a function of a new type, and gives its index. `None` when the module has no functions of its own.
    fn add_function(&mut self, types: TypesRef<'_>, ty: &[u8], body: &wasm_encoder::Function) -> Option<u32> {
        let mut index = Vec::new();
        (types.core_type_count_in_module() + self.added).encode(&mut index);
        let mut code = Vec::new();
        body.encode(&mut code);
        self.append(SectionId::Type, ty)?;
        self.append(SectionId::Function, &index)?;
        self.append(SectionId::Code, &code)?;
        self.added += 1;
        Some(types.function_count() + self.added - 1)
    }

    /// Adds a section before the first of those that stand behind it.
    fn insert(&mut self, id: SectionId, data: Vec<u8>, behind: &[u8]) {
        let before = self.sections.iter().position(|(id, _)| behind.contains(id));
        self.sections.insert(before.unwrap_or(self.sections.len()), (id as u8, data.into()));
    }

    /// Adds an item to a section that is a counted list. `None` when there is no such section.
    fn append(&mut self, id: SectionId, item: &[u8]) -> Option<()> {
        let section = self.section(id)?;
        let mut reader = BinaryReader::new(section, 0);
        let count = reader.read_var_u32().ok()?;
        let mut data = Vec::with_capacity(section.len() + item.len() + 1);
        (count + 1).encode(&mut data);
        data.extend_from_slice(&section[reader.original_position()..]);
        data.extend_from_slice(item);
        *section = Cow::Owned(data);
        Some(())
    }
}

fn missing(name: &str) -> Error {
    Error::new(Class::Unsupported, format!("the module defines and exports no function {name:?}"))
}

#[cfg(test)]
mod tests {
    use wharf_images::wasm::Description;

    use super::*;

    fn guest(name: &str) -> Vec<u8> {
        let path = format!("{}/../tests/guests/{name}.wasm", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    #[test]
    fn a_module_becomes_a_command_that_keeps_its_exit_code() {
        let component = adapt(&guest("exit-p1"), None).unwrap();
        let Description::Component { imports, exports } = Description::read(&component).unwrap() else {
            panic!("not a component")
        };
        assert!(imports.iter().any(|i| i == EXIT_MODULE), "{imports:?}");
        assert!(exports.iter().any(|e| e.starts_with("wasi:cli/run@0.2.")), "{exports:?}");
    }

    #[test]
    fn the_adapter_is_valid_with_its_checks() {
        let mut adapter = Edit::open(ADAPTER).unwrap();
        adapter.check_descriptors().unwrap();
        assert_eq!(adapter.added, 4);
        Validator::new().validate_all(&adapter.finish()).unwrap();
    }

    #[test]
    fn editing_nothing_changes_nothing() {
        let wasm = guest("exit-p1");
        assert!(Edit::open(&wasm).unwrap().finish() == wasm);
    }

    #[test]
    fn a_function_can_be_the_entry() {
        let component = adapt(&guest("library-p1"), Some("greet")).unwrap();
        Validator::new().validate_all(&component).unwrap();
        let error = adapt(&guest("library-p1"), Some("add")).unwrap_err();
        assert!(error.to_string().contains("takes 2 arguments"), "{error}");
        assert!(adapt(&guest("library-p1"), Some("none")).is_err());
    }

    #[test]
    fn a_module_without_memory_is_given_one() {
        use wasm_encoder::{CodeSection, ExportSection, Function, FunctionSection, Module, TypeSection};
        let mut types = TypeSection::new();
        types.ty().function([], []);
        let mut functions = FunctionSection::new();
        functions.function(0);
        let mut exports = ExportSection::new();
        exports.export(START, ExportKind::Func, 0);
        let mut body = Function::new([]);
        body.instruction(&Instruction::End);
        let mut code = CodeSection::new();
        code.function(&body);
        let mut module = Module::new();
        module.section(&types).section(&functions).section(&exports).section(&code);
        let component = adapt(&module.finish(), None).unwrap();
        Validator::new().validate_all(&component).unwrap();
    }

    #[test]
    fn damaged_modules_are_refused_wherever_they_are_cut() {
        let wasm = guest("exit-p1");
        for length in (8..wasm.len()).step_by(wasm.len() / 40) {
            let error = adapt(&wasm[..length], None).unwrap_err();
            assert!(matches!(error.class(), Class::Corrupt | Class::Unsupported), "{length}: {error}");
        }
    }
}
