//! What a WebAssembly binary is, read from its first bytes and its import and export sections. Nothing is validated
//! here: that, and compiling, is done where a hostile file can do no harm.
//!
//! - Core modules: <https://webassembly.github.io/spec/core/binary/modules.html>.
//! - Components: <https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md>.

use wasmparser::{Encoding, ExternalKind, Imports, Parser, Payload, TypeRef};

use crate::error::{Class, Error, Result};

/// What the first bytes of a file say it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Magic {
    /// A core module.
    Module,
    /// A component.
    Component,
    /// Code that wasmtime has compiled already (`.cwasm`): never taken from outside.
    Precompiled,
    /// A native program or library.
    Elf,
    /// A script.
    Script,
    /// None of these.
    Other,
}

/// The operating system in an ELF header of wasmtime's compiled code (`e_ident[EI_OSABI]`).
const ELF_OSABI_WASMTIME: u8 = 200;

impl Magic {
    /// How many bytes [`Magic::of`] wants.
    pub const LEN: usize = 8;

    /// Reads the first bytes of a file.
    pub fn of(head: &[u8]) -> Self {
        match head {
            // The layer field tells components (1) from modules (0); the version is the parser's affair.
            [0, b'a', b's', b'm', _, _, 1, 0, ..] => Magic::Component,
            [0, b'a', b's', b'm', ..] => Magic::Module,
            [0x7f, b'E', b'L', b'F', _, _, _, ELF_OSABI_WASMTIME, ..] => Magic::Precompiled,
            [0x7f, b'E', b'L', b'F', ..] => Magic::Elf,
            [b'#', b'!', ..] => Magic::Script,
            _ => Magic::Other,
        }
    }
}

/// One import of a core module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreImport {
    /// The module imported from.
    pub module: String,
    /// The item's name.
    pub name: String,
    /// It is a function; otherwise a memory, table, global or tag.
    pub function: bool,
}

/// A binary's outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Description {
    /// A core module.
    Module {
        /// Its imports, in order.
        imports: Vec<CoreImport>,
        /// The names of the functions it exports.
        functions: Vec<String>,
    },
    /// A component.
    Component {
        /// The names of its imports (`wasi:cli/stdout@0.2.0`).
        imports: Vec<String>,
        /// The names of its exports.
        exports: Vec<String>,
    },
}

impl Description {
    /// Reads the import and export sections of a binary.
    ///
    /// # Errors
    /// `Unsupported` for a precompiled file, `Corrupt` when it is no WebAssembly or ends too early.
    pub fn read(wasm: &[u8]) -> Result<Self> {
        match Magic::of(wasm) {
            Magic::Module => module(wasm),
            Magic::Component => component(wasm),
            other => Err(not_wasm(other)),
        }
        .map_err(|e| match e {
            Fault::Ours(e) => e,
            Fault::Parser(e) => malformed(&e),
        })
    }

    /// The operating system an image of it names: `wasip1` for core modules, `wasip2` for components.
    pub fn os(&self) -> &'static str {
        match self {
            Description::Module { .. } => "wasip1",
            Description::Component { .. } => "wasip2",
        }
    }
}

/// The error for a binary that the parser or validator refuses.
pub fn malformed(e: &wasmparser::BinaryReaderError) -> Error {
    let message = format!("malformed WebAssembly: {} (at byte {})", e.message(), e.offset());
    Error::new(Class::Corrupt, message).with_hint("the file is damaged or cut short: build or download it again")
}

enum Fault {
    Ours(Error),
    Parser(wasmparser::BinaryReaderError),
}

impl From<wasmparser::BinaryReaderError> for Fault {
    fn from(e: wasmparser::BinaryReaderError) -> Self {
        Fault::Parser(e)
    }
}

fn not_wasm(magic: Magic) -> Fault {
    let (class, message) = match magic {
        Magic::Precompiled => {
            let message = "this is code that wasmtime has already compiled (.cwasm), and running it could do anything: \
                           Wharf runs only what it has compiled itself";
            let hint = "give the .wasm file it was compiled from";
            return Fault::Ours(Error::new(Class::Unsupported, message).with_hint(hint));
        }
        Magic::Elf => (Class::Unsupported, "this is a native program, not WebAssembly"),
        Magic::Script => (Class::Unsupported, "this is a script, not WebAssembly"),
        Magic::Module | Magic::Component | Magic::Other => {
            (Class::Corrupt, "this is not WebAssembly: it does not begin with \\0asm")
        }
    };
    Fault::Ours(Error::new(class, message))
}

fn module(wasm: &[u8]) -> Result<Description, Fault> {
    let mut imports = Vec::new();
    let mut functions = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::ImportSection(section) => {
                for group in section {
                    core_imports(group?, &mut imports)?;
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export?;
                    if matches!(export.kind, ExternalKind::Func | ExternalKind::FuncExact) {
                        functions.push(export.name.to_owned());
                    }
                }
            }
            _ => {}
        }
    }
    Ok(Description::Module { imports, functions })
}

fn core_imports(group: Imports<'_>, imports: &mut Vec<CoreImport>) -> Result<(), Fault> {
    let mut add = |module: &str, name: &str, ty: TypeRef| {
        let function = matches!(ty, TypeRef::Func(_) | TypeRef::FuncExact(_));
        imports.push(CoreImport { module: module.to_owned(), name: name.to_owned(), function });
    };
    match group {
        Imports::Single(_, import) => add(import.module, import.name, import.ty),
        Imports::Compact1 { module, items } => {
            for item in items {
                let item = item?;
                add(module, item.name, item.ty);
            }
        }
        Imports::Compact2 { module, ty, names } => {
            for name in names {
                add(module, name?, ty);
            }
        }
    }
    Ok(())
}

fn component(wasm: &[u8]) -> Result<Description, Fault> {
    let mut imports = Vec::new();
    let mut exports = Vec::new();
    // Modules and components nested inside have imports and exports of their own, which are no outside.
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                return Err(not_wasm(Magic::Other));
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(Description::Component { imports, exports })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY_MODULE: &[u8] = b"\0asm\x01\0\0\0";
    const EMPTY_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

    #[test]
    fn the_first_bytes_tell() {
        assert_eq!(Magic::of(EMPTY_MODULE), Magic::Module);
        assert_eq!(Magic::of(EMPTY_COMPONENT), Magic::Component);
        assert_eq!(Magic::of(b"\x7fELF\x02\x01\x01\xc8"), Magic::Precompiled);
        assert_eq!(Magic::of(b"\x7fELF\x02\x01\x01\0"), Magic::Elf);
        assert_eq!(Magic::of(b"#!/bin/sh"), Magic::Script);
        assert_eq!(Magic::of(b""), Magic::Other);
    }

    #[test]
    fn empty_binaries_have_no_outside() {
        let module = Description::read(EMPTY_MODULE).unwrap();
        assert_eq!(module, Description::Module { imports: vec![], functions: vec![] });
        assert_eq!(module.os(), "wasip1");
        let component = Description::read(EMPTY_COMPONENT).unwrap();
        assert_eq!(component, Description::Component { imports: vec![], exports: vec![] });
        assert_eq!(component.os(), "wasip2");
    }

    #[test]
    fn what_is_no_wasm_is_refused_by_name() {
        let precompiled = Description::read(b"\x7fELF\x02\x01\x01\xc8rest").unwrap_err();
        assert_eq!(precompiled.class(), Class::Unsupported);
        assert!(precompiled.to_string().contains(".cwasm"), "{precompiled}");
        assert_eq!(Description::read(b"hello").unwrap_err().class(), Class::Corrupt);
        // An import section that announces more than there is.
        let cut = [EMPTY_MODULE, &[2, 40, 1]].concat();
        let error = Description::read(&cut).unwrap_err();
        assert_eq!(error.class(), Class::Corrupt);
        assert!(error.to_string().contains("at byte"), "{error}");
    }
}
