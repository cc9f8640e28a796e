//! Can Wharf run this binary? If not: what it asks for that is not there, and what would help.
//!
//! Preview-1 imports are those of the adapter that turns modules into components; component imports are those of
//! WASI 0.2 and 0.3 (<https://github.com/WebAssembly/WASI/tree/main/proposals>).

use std::sync::LazyLock;

use wasi_preview1_component_adapter_provider::WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER as ADAPTER;
use wharf_images::wasm::{CoreImport, Description};

use super::engine::Profile;
use crate::error::{Class, Error, Result};

/// The import module of WASI preview 1.
pub(super) const PREVIEW1: &str = "wasi_snapshot_preview1";

/// A preview-1 command's entry.
pub(super) const START: &str = "_start";

/// The interfaces of WASI that commands get, without version: those of 0.2 and of 0.3.
const INTERFACES: &[&str] = &[
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:http/types",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/ip-name-lookup",
];

/// Those of 0.2 alone.
const INTERFACES_P2: &[&str] = &[
    "wasi:clocks/wall-clock",
    "wasi:http/outgoing-handler",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:sockets/instance-network",
    "wasi:sockets/network",
    "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp",
    "wasi:sockets/udp-create-socket",
];

/// Those of 0.3 alone.
const INTERFACES_P3: &[&str] =
    &["wasi:cli/types", "wasi:clocks/system-clock", "wasi:clocks/types", "wasi:http/client", "wasi:sockets/types"];

/// What helps with a component of another WASI.
const OTHER_WASI: &str = "Wharf has WASI 0.2 and 0.3, and none of their drafts: build it with a present toolchain";

/// How many names an error lists before it stops.
const LISTED: usize = 5;

/// An import that nobody stands behind, and what would help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// As errors call it: `env.proxy_log`, `wasi:keyvalue/store@0.2.0`.
    pub name: String,
    /// What would satisfy it.
    pub hint: &'static str,
}

/// Checks that every import can be satisfied and that there is something to call: `function`, if one was asked for,
/// otherwise what answers HTTP requests or the command's entry. Says how its guests live.
///
/// # Errors
/// `Unsupported`, naming imports that cannot be satisfied or the missing entry; with a hint that says what would help.
pub fn check(description: &Description, function: Option<&str>) -> Result<Profile> {
    let missing = missing(description);
    if let Some(first) = missing.first() {
        let what = match description {
            Description::Module { .. } => "module",
            Description::Component { .. } => "component",
        };
        let names = list(missing.iter().map(|m| &m.name));
        let message = format!("the {what} imports what Wharf does not have: {names}");
        return Err(Error::new(Class::Unsupported, message).with_hint(first.hint));
    }
    match description {
        Description::Module { functions, .. } => core_entry(functions, function).map(|()| Profile::COMMAND),
        Description::Component { imports, exports } => {
            let serves = component_serves(exports, function)?;
            Ok(Profile { serves, concurrent: imports.iter().chain(exports).any(|name| is_p3(name)) })
        }
    }
}

/// The imports that cannot be satisfied, in order.
pub fn missing(description: &Description) -> Vec<Missing> {
    match description {
        Description::Module { imports, .. } => {
            let foreign = imports.iter().filter(|i| !core_provided(i));
            foreign.map(|i| Missing { name: core_name(i), hint: core_hint(i) }).collect()
        }
        Description::Component { imports, .. } => {
            let foreign = imports.iter().filter(|i| !component_provided(i));
            foreign.map(|i| Missing { name: i.clone(), hint: component_hint(i) }).collect()
        }
    }
}

/// A core import as errors call it.
pub fn core_name(import: &CoreImport) -> String {
    format!("{}.{}", import.module, import.name)
}

fn core_provided(import: &CoreImport) -> bool {
    static PROVIDED: LazyLock<Vec<String>> = LazyLock::new(|| match Description::read(ADAPTER) {
        Ok(Description::Module { functions, .. }) => functions,
        _ => Vec::new(),
    });
    import.function && import.module == PREVIEW1 && PROVIDED.contains(&import.name)
}

/// Types and functions imported bare, and interfaces other than WASI's, have nobody behind them.
fn component_provided(name: &str) -> bool {
    let Some((interface, version)) = name.split_once('@') else { return false };
    let own = match version.starts_with("0.2.") {
        true => INTERFACES_P2,
        false if is_p3(name) => INTERFACES_P3,
        false => return false,
    };
    INTERFACES.contains(&interface) || own.contains(&interface)
}

/// True for an interface of WASI 0.3; its drafts are called `0.3.0-rc-…`.
fn is_p3(name: &str) -> bool {
    let version = name.split_once('@').map_or("", |(_, version)| version);
    name.starts_with("wasi:") && version.starts_with("0.3.") && !version.contains('-')
}

fn core_hint(import: &CoreImport) -> &'static str {
    match (import.module.as_str(), import.name.as_str()) {
        (PREVIEW1, name) if name.starts_with("sock_") => {
            "preview 1 has no sockets of its own, and this is one runtime's extension (WasmEdge): \
             build for wasm32-wasip2, whose sockets are standard"
        }
        ("wasi_unstable", _) => {
            "it was built for WASI preview 0, of 2019: build it again with a present toolchain for wasm32-wasip1"
        }
        ("wasi", "thread-spawn") => "it was built with threads (wasi-threads): build for wasm32-wasip1, without them",
        ("env", "memory") => {
            "it wants its memory from outside, as programs with threads do: link it without --import-memory \
             and --shared-memory"
        }
        ("env", name) if name.starts_with("proxy_") => {
            "it is a filter for a proxy such as Envoy (proxy-wasm), not a program: it runs there"
        }
        ("env", name)
            if name.contains("emscripten") || name.starts_with("__syscall") || name.starts_with("invoke_") =>
        {
            "it was built by Emscripten for JavaScript: build it with -sSTANDALONE_WASM, or with wasi-sdk"
        }
        ("gojs" | "go", _) => "it was built with GOOS=js: build it with GOOS=wasip1",
        ("wbg" | "__wbindgen_placeholder__", _) => {
            "it was built for JavaScript (wasm-bindgen): build it for wasm32-wasip1 or wasm32-wasip2"
        }
        _ => {
            "Wharf gives modules WASI preview 1, and components WASI 0.2 and 0.3: build for wasm32-wasip1 or wasm32-wasip2"
        }
    }
}

fn core_entry(functions: &[String], function: Option<&str>) -> Result<()> {
    let entry = function.unwrap_or(START);
    if functions.iter().any(|f| f == entry) {
        return Ok(());
    }
    let (message, hint) = match function {
        Some(name) => {
            let message = format!("the module exports no function {name:?}");
            (message, format!("it exports {}", list(functions.iter())))
        }
        None => {
            let message = "the module exports no _start: it is a library, not a program".to_owned();
            let hint = match functions {
                [] => "build it as a command".to_owned(),
                some => {
                    format!("name a function as the entrypoint, FILE.wasm#FUNCTION; it exports {}", list(some.iter()))
                }
            };
            (message, hint)
        }
    };
    Err(Error::new(Class::Unsupported, message).with_hint(hint))
}

fn component_hint(name: &str) -> &'static str {
    if name.starts_with("wasi:") && name.contains("@0.3") {
        OTHER_WASI
    } else if name.starts_with("wasi:keyvalue/")
        || name.starts_with("wasi:blobstore/")
        || name.starts_with("wasi:config/")
    {
        "it is an interface of runtimes such as wasmCloud and Spin, not of WASI 0.2 or 0.3: run it there, or compose a \
         component in that gives it, with `wac plug`"
    } else {
        "Wharf gives components the interfaces of WASI 0.2 and 0.3 (cli, clocks, filesystem, http, io, random, sockets); \
         other imports must be composed in, for example with `wac plug`"
    }
}

/// True for what answers requests, false for what runs.
fn component_serves(exports: &[String], function: Option<&str>) -> Result<bool> {
    let has = |prefix: &str| exports.iter().any(|e| e.starts_with(prefix));
    let has_p3 = |interface: &str| exports.iter().any(|e| is_p3(e) && e.starts_with(interface));
    if let Some(name) = function {
        if exports.iter().any(|e| e == name) {
            return Ok(false);
        }
        let message = format!("the component exports no function {name:?}");
        return Err(Error::new(Class::Unsupported, message).with_hint(format!("it exports {}", list(exports.iter()))));
    }
    if has("wasi:http/incoming-handler@0.2.") || has_p3("wasi:http/handler@") {
        return Ok(true);
    }
    if has("wasi:cli/run@0.2.") || has_p3("wasi:cli/run@") {
        return Ok(false);
    }
    let (message, hint) = if has("wasi:http/incoming-handler@") || has("wasi:http/handler@") {
        ("the component answers HTTP requests of another WASI than 0.2 and 0.3", OTHER_WASI.to_owned())
    } else if has("wasi:cli/run@") {
        ("the component is a command of another WASI than 0.2 and 0.3", OTHER_WASI.to_owned())
    } else {
        let hint = match exports {
            [] => "it exports nothing".to_owned(),
            some => format!("it exports {}", list(some.iter())),
        };
        ("the component exports no wasi:cli/run: it is a library, not a program", hint)
    };
    Err(Error::new(Class::Unsupported, message).with_hint(hint))
}

fn list<T: AsRef<str>>(names: impl ExactSizeIterator<Item = T>) -> String {
    let count = names.len();
    let mut text = String::new();
    for (i, name) in names.take(LISTED).enumerate() {
        if i > 0 {
            text.push_str(", ");
        }
        // Names come from the file: no control character reaches a terminal.
        text.extend(name.as_ref().escape_debug());
    }
    match count {
        0 => text.push_str("nothing"),
        n if n > LISTED => text.push_str(&format!(" and {} more", n - LISTED)),
        _ => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(imports: &[(&str, &str)], functions: &[&str]) -> Description {
        let import = |(module, name): &(&str, &str)| CoreImport {
            module: (*module).to_owned(),
            name: (*name).to_owned(),
            function: *name != "memory",
        };
        Description::Module {
            imports: imports.iter().map(import).collect(),
            functions: functions.iter().map(|f| (*f).to_owned()).collect(),
        }
    }

    fn component(imports: &[&str], exports: &[&str]) -> Description {
        let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        Description::Component { imports: owned(imports), exports: owned(exports) }
    }

    fn refused(description: &Description, function: Option<&str>) -> (String, String) {
        let error = check(description, function).unwrap_err();
        assert_eq!(error.class(), Class::Unsupported);
        (error.to_string(), error.hint().unwrap_or_default().to_owned())
    }

    #[test]
    fn what_the_adapter_has_is_satisfied() {
        for name in ["fd_write", "proc_exit", "path_open", "sock_shutdown", "poll_oneoff", "random_get"] {
            check(&module(&[(PREVIEW1, name)], &[START]), None).unwrap();
        }
    }

    #[test]
    fn each_known_foreign_import_is_named_and_explained() {
        for (import, word) in [
            ((PREVIEW1, "sock_open"), "WasmEdge"),
            (("wasi_unstable", "fd_write"), "preview 0"),
            (("wasi", "thread-spawn"), "threads"),
            (("env", "memory"), "--import-memory"),
            (("env", "proxy_log"), "Envoy"),
            (("env", "emscripten_notify_memory_growth"), "Emscripten"),
            (("gojs", "runtime.wasmExit"), "GOOS=wasip1"),
            (("wbg", "__wbg_log"), "wasm-bindgen"),
            (("env", "frobnicate"), "wasm32-wasip1"),
        ] {
            let (message, hint) = refused(&module(&[(PREVIEW1, "fd_write"), import], &[START]), None);
            assert!(message.contains(&format!("{}.{}", import.0, import.1)), "{message}");
            assert!(hint.contains(word), "{hint}");
            assert!(!message.contains("fd_write") || import.1 == "fd_write", "{message}");
        }
    }

    #[test]
    fn a_library_says_what_it_exports() {
        let (message, hint) = refused(&module(&[], &["add", "mul"]), None);
        assert!(message.contains("_start") && hint.contains("add, mul"), "{message}: {hint}");
        let (message, _) = refused(&module(&[], &["add"]), Some("sub"));
        assert!(message.contains("\"sub\""), "{message}");
        check(&module(&[], &["add"]), Some("add")).unwrap();
    }

    #[test]
    fn components_are_classified_by_their_exports() {
        check(&component(&["wasi:cli/stdout@0.2.3"], &["wasi:cli/run@0.2.0"]), None).unwrap();
        let both = ["wasi:cli/run@0.2.0", "wasi:http/incoming-handler@0.2.0"];
        assert_eq!(check(&component(&["wasi:http/types@0.2.0"], &both), None).unwrap(), Profile::SERVER);
        let concurrent = |serves| Profile { serves, concurrent: true };
        let of = |imports, exports| check(&component(imports, exports), None).unwrap();
        assert_eq!(of(&["wasi:http/types@0.3.0"], &["wasi:http/handler@0.3.0"]), concurrent(true));
        assert_eq!(of(&["wasi:io/poll@0.2.0", "wasi:cli/stdout@0.3.1"], &["wasi:cli/run@0.3.2"]), concurrent(false));
        assert_eq!(of(&["wasi:cli/stdout@0.3.1"], &["wasi:cli/run@0.2.0"]), concurrent(false));
        for draft in ["wasi:http/handler@0.3.0-rc-2026-01-06", "wasi:cli/run@0.3.0-draft", "wasi:cli/run@0.4.0"] {
            assert!(refused(&component(&[], &[draft]), None).1.contains("drafts"), "{draft}");
        }
        let (message, hint) = refused(&component(&["wasi:io/poll@0.3.0"], &["wasi:cli/run@0.3.0"]), None);
        assert!(message.contains("wasi:io/poll@0.3.0") && hint.contains("drafts"), "{message}: {hint}");
        assert!(refused(&component(&[], &["a:b/c"]), None).1.contains("a:b/c"));
        let (message, hint) = refused(&component(&["wasi:keyvalue/store@0.2.0"], &["wasi:cli/run@0.2.0"]), None);
        assert!(message.contains("wasi:keyvalue/store@0.2.0") && hint.contains("wac plug"), "{message}: {hint}");
        check(&component(&[], &["greet"]), Some("greet")).unwrap();
    }

    #[test]
    fn names_cannot_speak_to_the_terminal_and_lists_end() {
        let (message, _) = refused(&module(&[("env", "\x1b[2J")], &[START]), None);
        assert!(!message.contains('\x1b'), "{message}");
        let many: Vec<String> = (0..9).map(|n| format!("f{n}")).collect();
        let text = list(many.iter());
        assert!(text.ends_with("f4 and 4 more"), "{text}");
    }
}
