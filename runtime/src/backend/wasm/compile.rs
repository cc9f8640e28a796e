//! Compiling, where a hostile module can do no harm.
//!
//! A module may be made to take hours or all memory to compile, which wasmtime does not count as a vulnerability of
//! its own (<https://docs.wasmtime.dev/security-what-is-considered-a-security-vulnerability.html>), so it is ours.
//! The work is done by a child process with limits: our own program again, as `wharf compile REQUEST`, which reads the
//! module from stdin, writes the compiled component to stdout, and what is wrong with it to stderr as JSON.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;
use wharf_images::wasm::Description;

use super::engine::{self, Profile};
use super::{adapt, inspect, run};
use crate::error::{Class, Error, Result};
use crate::monitor::protocol::Failure;

/// The hidden subcommand that [`child_main`] serves.
pub const SUBCOMMAND: &str = "compile";

/// What one compilation may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of the module.
    pub source: u64,
    /// Bytes of the compiled component.
    pub artifact: u64,
    /// Bytes of address space of the compiling process.
    pub memory: u64,
    /// Seconds of CPU time, of all its threads together.
    pub cpu_seconds: u64,
    /// Seconds from start to end.
    pub wall_seconds: u64,
}

impl Default for Limits {
    /// Room for the largest programs known to be compiled to wasm (interpreters and compilers of 20 to 40 MB), ten times.
    fn default() -> Self {
        Limits { source: 512 << 20, artifact: 4 << 30, memory: 8 << 30, cpu_seconds: 600, wall_seconds: 600 }
    }
}

/// Who compiles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compiler {
    /// A confined child process: this program, called as `PROGRAM compile REQUEST`.
    Child,
    /// This process, without limits: for embedders that trust their modules and are not themselves the `wharf` program.
    InProcess,
}

/// What the child is asked to do; its one argument, as JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    function: Option<String>,
    limits: Limits,
}

/// A component, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// How its guests live, which its code was compiled for.
    pub profile: Profile,
    /// What wasmtime loads.
    pub artifact: Vec<u8>,
}

/// Checks, adapts and compiles a module or component in this process.
///
/// # Errors
/// `Unsupported` when Wharf cannot run it (see [`inspect::check`]), `Corrupt` when it is not valid.
pub fn compile(wasm: &[u8], function: Option<&str>) -> Result<Compiled> {
    let description = Description::read(wasm)?;
    let profile = inspect::check(&description, function)?;
    let adapted;
    let (component, function) = match description {
        Description::Module { .. } => {
            adapted = adapt::adapt(wasm, function)?;
            (adapted.as_slice(), None)
        }
        Description::Component { .. } => (wasm, function),
    };
    let engine = engine::compiler(profile).map_err(|e| internal("wasmtime", &e))?;
    let compiled = Component::new(&engine, component).map_err(|e| {
        Error::new(Class::Corrupt, format!("the module does not compile: {e:#}"))
            .with_hint("the file is damaged, or uses what WebAssembly does not have yet: build or download it again")
    })?;
    run::link(&compiled, profile.concurrent)
        .map_err(|e| Error::new(Class::Unsupported, format!("the component does not fit WASI: {e:#}")))?;
    if let Some(name) = function {
        no_arguments(&compiled, name)?;
    }
    let artifact = compiled.serialize().map_err(|e| internal("serialize the compiled component", &e))?;
    Ok(Compiled { profile, artifact })
}

fn no_arguments(component: &Component, name: &str) -> Result<()> {
    match component.get_export(None, name) {
        Some((ComponentItem::ComponentFunc(f), _)) if f.params().len() == 0 => Ok(()),
        Some((ComponentItem::ComponentFunc(f), _)) => {
            let message = format!("the function {name:?} takes {} arguments", f.params().len());
            let hint = "an entrypoint is called without arguments: the program's own arguments come through WASI";
            Err(Error::new(Class::Unsupported, message).with_hint(hint))
        }
        _ => Err(Error::new(Class::Unsupported, format!("the component's export {name:?} is not a function"))),
    }
}

fn internal(what: &str, e: &wasmtime::Error) -> Error {
    Error::new(Class::Internal, format!("{what}: {e:#}"))
}

/// The child's side of [`spawn`]: the `wharf compile` subcommand, given its one argument. Returns the exit code.
pub fn child_main(request: &str) -> i32 {
    match serve(request) {
        Ok(profile) => exit_code(profile),
        Err(e) => {
            let failure = Failure::from(&e);
            // Nobody is left to be told when this fails; the exit code says enough.
            let _ = serde_json::to_writer(io::stderr(), &failure);
            1
        }
    }
}

/// How the child says which profile it compiled for.
fn exit_code(profile: Profile) -> i32 {
    match (profile.serves, profile.concurrent) {
        (false, false) => 0,
        (true, false) => 2,
        (false, true) => 3,
        (true, true) => 4,
    }
}

fn serve(request: &str) -> Result<Profile> {
    let request: Request = serde_json::from_str(request)
        .map_err(|e| Error::new(Class::InvalidInput, format!("`compile` is not for people: {e}")))?;
    let limits = request.limits;
    crate::linux::compiler::confine(&limits)?;
    let mut wasm = Vec::new();
    io::stdin().lock().take(limits.source + 1).read_to_end(&mut wasm).map_err(|e| Error::os("read the module", e))?;
    if wasm.len() as u64 > limits.source {
        return Err(too_large("the module", limits.source));
    }
    let Compiled { profile, artifact } = compile(&wasm, request.function.as_deref())?;
    if artifact.len() as u64 > limits.artifact {
        return Err(too_large("the compiled module", limits.artifact));
    }
    let mut out = io::stdout().lock();
    out.write_all(&artifact).and_then(|()| out.flush()).map_err(|e| Error::os("write the compiled module", e))?;
    Ok(profile)
}

fn too_large(what: &str, limit: u64) -> Error {
    Error::new(Class::LimitExceeded, format!("{what} is larger than {} MiB", limit >> 20))
}

/// Has `program` compile `source` into `out` under limits, and waits for it. Gives the profile that it found.
///
/// # Errors
/// What [`compile`] says, and `LimitExceeded` when a limit ended the child.
pub(super) fn spawn(
    program: &Path,
    source: File,
    out: File,
    function: Option<&str>,
    limits: &Limits,
) -> Result<Profile> {
    let request = Request { function: function.map(str::to_owned), limits: *limits };
    let request =
        serde_json::to_string(&request).map_err(|e| Error::new(Class::Internal, format!("compile request: {e}")))?;
    let mut child = Command::new(program)
        .arg(SUBCOMMAND)
        .arg(request)
        .env_clear()
        .stdin(source)
        .stdout(out)
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| Error::io("start the compiler", program, e))?;
    let Some(status) = wait(&mut child, Duration::from_secs(limits.wall_seconds))? else {
        return Err(over(&format!("{} seconds", limits.wall_seconds)));
    };
    if let Some(profile) = Profile::ALL.into_iter().find(|p| status.code() == Some(exit_code(*p))) {
        return Ok(profile);
    }
    let mut told = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(64 << 10).read_to_end(&mut told).map_err(|e| Error::os("read from the compiler", e))?;
    }
    Err(failure(&told, status, limits))
}

/// Polls with growing pauses: portable, and compiling takes much longer than the pauses. What the child may say fits
/// into a pipe, so it never blocks on us. `None`: its time was over, and it was killed.
fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let started = Instant::now();
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(status) = child.try_wait().map_err(|e| Error::os("wait for the compiler", e))? {
            return Ok(Some(status));
        }
        if started.elapsed() >= limit {
            child.kill().and_then(|()| child.wait()).map_err(|e| Error::os("end the compiler", e))?;
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

fn over(what: &str) -> Error {
    let message = format!("compiling the module takes more than {what}");
    Error::new(Class::LimitExceeded, message).with_hint("the module is very large, or made to be hard to compile")
}

fn failure(told: &[u8], status: ExitStatus, limits: &Limits) -> Error {
    if let Ok(failure) = serde_json::from_slice::<Failure>(told) {
        return failure.into();
    }
    // No last word: the kernel ended it, or an allocation failed, which aborts.
    let told = String::from_utf8_lossy(told);
    if told.contains("memory allocation of") || told.contains("failed to allocate") {
        return over(&format!("{} MiB of memory", limits.memory >> 20));
    }
    match crate::linux::compiler::ended_by_cpu_limit(status) {
        true => over(&format!("{} seconds of CPU time", limits.cpu_seconds)),
        false => {
            let last: String = told.trim().lines().last().unwrap_or_default().escape_debug().collect();
            Error::new(Class::Internal, format!("the compiler ended with {status}: {last}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_its_class_message_and_hint_on_the_way() {
        let error = Error::new(Class::Unsupported, "no such import").with_hint("build again");
        let told = serde_json::to_vec(&Failure::from(&error)).unwrap();
        let back = failure(&told, ExitStatus::default(), &Limits::default());
        assert_eq!(back.class(), Class::Unsupported);
        assert_eq!((back.to_string().as_str(), back.hint()), ("no such import", Some("build again")));
    }

    #[test]
    fn running_out_of_memory_is_a_limit() {
        let told = b"memory allocation of 4096 bytes failed";
        let error = failure(told, ExitStatus::default(), &Limits::default());
        assert_eq!(error.class(), Class::LimitExceeded);
        assert!(error.to_string().contains("8192 MiB"), "{error}");
    }

    #[test]
    fn compiled_code_from_outside_is_refused() {
        let own = compile(b"\0asm\x0d\0\x01\0", None).unwrap_err();
        assert_eq!(own.class(), Class::Unsupported, "an empty component has no entry: {own}");
        let error = compile(b"\x7fELF\x02\x01\x01\xc8", None).unwrap_err();
        assert!(error.to_string().contains(".cwasm"), "{error}");
    }
}
