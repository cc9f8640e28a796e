//! The first wall, broken on purpose: in test builds alone guests may import a function `attack`, which does natively, in
//! the process that hosts the guest, what code would try that has got out of wasmtime's sandbox. The second wall must
//! refuse all of it; without that wall all of it must succeed, or the test would show nothing.

#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::pipe::{PipeFlags, pipe_with};
use wasm_encoder::{
    BlockType, CodeSection, ComponentBuilder, ComponentExportKind, ComponentTypeRef, ComponentValType, EntityType,
    ExportKind, ExportSection, Function, FunctionSection, ImportSection, Module, ModuleArg, PrimitiveValType,
    TypeSection, ValType,
};
use wasmtime::component::{Component, Linker};
use wharf_images::snapshot::Rootfs;

use super::process::{self, SpawnOptions};
use super::wasm_task::WasmBackend;
use crate::backend::wasm::engine::{self, Profile};
use crate::backend::wasm::run;
use crate::task::{Backend, Limits, Stdio, Task, TaskSpec, WasmTask, Workload};

/// What there is to be attacked.
struct Targets {
    /// On the host's loopback.
    port: u16,
    /// The process of another container.
    neighbour: u32,
    /// A file of another container.
    file: PathBuf,
    /// Compiled code that another container runs.
    module: PathBuf,
    /// Where a process is written to leave its cgroup.
    cgroup: &'static str,
    /// A device of the host, among its own files.
    device: PathBuf,
}

static TARGETS: OnceLock<Targets> = OnceLock::new();

type Attack = (&'static str, fn(&Targets) -> io::Result<()>);

const ATTACKS: [Attack; 19] = [
    ("read the host's passwords", |_| File::open("/etc/shadow").map(drop)),
    ("write beside its directory", |to| File::create(to.module.with_extension("made")).map(drop)),
    ("read another container's file", |to| File::open(&to.file).map(drop)),
    ("write another container's file", |to| OpenOptions::new().append(true).open(&to.file).map(drop)),
    ("forge compiled code", |to| OpenOptions::new().append(true).open(&to.module).map(drop)),
    ("open a device of the host", |to| File::open(&to.device).map(drop)),
    ("leave its cgroup", |to| OpenOptions::new().write(true).open(to.cgroup).map(drop)),
    ("connect to the host's loopback", |to| TcpStream::connect(("127.0.0.1", to.port)).map(drop)),
    ("listen on the host", |_| TcpListener::bind("0.0.0.0:0").map(drop)),
    ("make a process", |_| Command::new("/bin/true").status().map(drop)),
    ("execute a program", |_| match Command::new("/nonexistent").exec() {
        // It was looked for: one that is there would run now.
        e if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        e => Err(e),
    }),
    // SAFETY: takes numbers; the process that is traced goes on, and is let go when this one ends.
    ("trace another container", |to| call(unsafe { libc::syscall(libc::SYS_ptrace, 0x4206, to.neighbour, 0, 0) })),
    ("read another container's memory", |to| File::open(format!("/proc/{}/mem", to.neighbour)).map(drop)),
    ("copy another container's memory", |to| {
        // SAFETY: with no vectors nothing is read.
        call(unsafe { libc::syscall(libc::SYS_process_vm_readv, to.neighbour, 0, 0, 0, 0, 0) })
    }),
    // SAFETY: signal 0 only asks whether one could be sent.
    ("signal another container", |to| call(unsafe { libc::syscall(libc::SYS_kill, to.neighbour, 0) })),
    // SAFETY: as above.
    ("signal its monitor", |_| call(unsafe { libc::syscall(libc::SYS_kill, libc::getppid(), 0) })),
    ("map new machine code", |_| {
        let (prot, flags) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, which nobody uses.
        call(unsafe { libc::syscall(libc::SYS_mmap, 0, 4096, prot, flags, -1, 0) })
    }),
    // SAFETY: takes a number.
    ("make a namespace", |_| call(unsafe { libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUTS) })),
    // SAFETY: takes numbers; already root or refused.
    ("become root", |_| call(unsafe { libc::syscall(libc::SYS_setresuid, 0, 0, 0) })),
];

fn call(result: libc::c_long) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The hole in the first wall.
///
/// # Errors
/// wasmtime's.
pub(crate) fn add_to_linker<T: 'static>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    linker.root().func_wrap("attack", |_, (number,): (u32,)| {
        let (Some((name, attack)), Some(targets)) = (ATTACKS.get(number as usize), TARGETS.get()) else {
            wasmtime::bail!("there is no attack {number}");
        };
        let outcome = attack(targets).map_or_else(|e| e.to_string(), |()| "done".to_owned());
        Ok(writeln!(io::stdout(), "{name}: {outcome}")?)
    })
}

/// A component with two functions: `breakout` makes each attack once, `forever` does not end.
fn guest() -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([ValType::I32], []);
    types.ty().function([], []);
    let mut imports = ImportSection::new();
    imports.import("host", "attack", EntityType::Function(0));
    let mut functions = FunctionSection::new();
    functions.function(1).function(1);
    let mut exports = ExportSection::new();
    exports.export("breakout", ExportKind::Func, 1).export("forever", ExportKind::Func, 2);
    let mut breakout = Function::new([]);
    for number in 0..ATTACKS.len() {
        breakout.instructions().i32_const(number as i32).call(0);
    }
    breakout.instructions().end();
    let mut forever = Function::new([]);
    forever.instructions().loop_(BlockType::Empty).br(0).end().end();
    let mut code = CodeSection::new();
    code.function(&breakout).function(&forever);
    let mut module = Module::new();
    module.section(&types).section(&imports).section(&functions).section(&exports).section(&code);

    let mut component = ComponentBuilder::default();
    let (takes_number, mut ty) = component.type_function(None);
    ty.params([("number", ComponentValType::Primitive(PrimitiveValType::U32))]).result(None);
    let (takes_nothing, mut ty) = component.type_function(None);
    ty.params::<[(&str, ComponentValType); 0], _>([]).result(None);
    let attack = component.import("attack", ComponentTypeRef::Func(takes_number));
    let lowered = component.lower_func(None, attack, []);
    let host = component.core_instantiate_exports(None, [("attack", ExportKind::Func, lowered)]);
    let module = component.core_module(None, &module);
    let instance = component.core_instantiate(None, module, [("host", ModuleArg::Instance(host))]);
    for name in ["breakout", "forever"] {
        let core = component.core_alias_export(None, instance, name, ExportKind::Func);
        let lifted = component.lift_func(None, core, takes_nothing, []);
        component.export(name, ComponentExportKind::Func, lifted, None);
    }
    component.finish()
}

/// A node at `path` of a device that root may open here.
fn make_device(path: &Path) {
    // tun, fuse, loop-control, autofs, kmsg.
    let there = [(10, 200), (10, 229), (10, 237), (10, 235), (1, 11)].into_iter().any(|(major, minor)| {
        let _ = fs::remove_file(path);
        let node = rustix::fs::makedev(major, minor);
        mknodat(CWD, path, FileType::CharacterDevice, Mode::RUSR, node).expect("a node");
        File::open(path).is_ok()
    });
    assert!(there, "this machine has none of the devices");
}

fn spec(dir: &Path, module: &Path, function: &str) -> (TaskSpec, WasmTask) {
    let rootfs = dir.join(function);
    fs::create_dir_all(&rootfs).expect("a root");
    let (module, function) = (module.to_owned(), Some(function.to_owned()));
    let task = WasmTask { module, function, cwd: "/".to_owned(), ..WasmTask::default() };
    let id = crate::names::new_id().expect("an id");
    let spec = TaskSpec {
        cgroup: format!("wharf-test/{id}"),
        id,
        rootfs: Rootfs::Dir(rootfs),
        limits: Limits::default(),
        workload: Workload::Wasm(Box::new(task.clone())),
    };
    (spec, task)
}

fn pipe() -> (File, File) {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    (read.into(), write.into())
}

fn start(spec: &TaskSpec) -> (Box<dyn Task>, File) {
    let ((stdout, theirs), (_, stderr)) = (pipe(), pipe());
    let stdio = Stdio::Pipes { stdin: None, stdout: theirs, stderr };
    let mut task = WasmBackend.create(spec, stdio).expect("a task");
    task.start().expect("it starts");
    (task, stdout)
}

fn outcomes(mut stdout: File) -> Vec<(String, String)> {
    let mut said = String::new();
    stdout.read_to_string(&mut said).expect("text");
    let pair = |line: &str| line.split_once(": ").map(|(name, outcome)| (name.to_owned(), outcome.to_owned()));
    let outcomes: Vec<_> = said.lines().filter_map(pair).collect();
    assert_eq!(outcomes.len(), ATTACKS.len(), "{said}");
    outcomes
}

/// The program of the tests has threads, which a process that confines its children must not have: this is run again, alone.
#[test]
fn behind_the_first_wall_stands_the_second() {
    let program = std::env::current_exe().expect("our own program");
    let alone = ["--exact", "linux::escape::alone", "--ignored", "--nocapture", "--test-threads=1"];
    let ran = Command::new(program).args(alone).output().expect("it runs");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains("1 passed"), "{said}\n{}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
#[ignore = "behind_the_first_wall_stands_the_second runs it, in a process of its own"]
fn alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let module = dir.path().join("module.cwasm");
    let engine = engine::compiler(Profile::COMMAND).expect("an engine");
    let compiled = Component::new(&engine, guest()).and_then(|component| component.serialize()).expect("it compiles");
    fs::write(&module, compiled).expect("written");

    let (other, _) = spec(dir.path(), &module, "forever");
    let file = dir.path().join("forever/file");
    fs::write(&file, "theirs").expect("written");
    let (mut neighbour, _stdout) = start(&other);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let cgroups = ["/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/unified/cgroup.procs", "/sys/fs/cgroup/memory/tasks"];
    let (spec, task) = spec(dir.path(), &module, "breakout");
    let device = dir.path().join("breakout/device");
    make_device(&device);
    let targets = Targets {
        port: listener.local_addr().expect("an address").port(),
        neighbour: neighbour.pid(),
        file,
        module: module.clone(),
        device,
        cgroup: cgroups.into_iter().find(|path| Path::new(path).exists()).expect("a cgroup"),
    };
    assert!(TARGETS.set(targets).is_ok());

    // Without the second wall nothing holds.
    let (stdout, theirs) = pipe();
    let child = process::spawn(SpawnOptions::default(), || {
        rustix::stdio::dup2_stdout(&theirs).expect("a standard output");
        run::run(&task, &spec.rootfs, None).unwrap_or(1)
    })
    .expect("a child");
    drop(theirs);
    for (name, outcome) in outcomes(stdout) {
        assert_eq!(outcome, "done", "{name}, without the second wall");
    }
    assert_eq!(child.wait().expect("reaped").code(), 0);

    // With it everything does.
    let (mut broken, stdout) = start(&spec);
    let walls = broken.walls().cloned().expect("walls");
    assert!(walls.landlock.is_some() && walls.seccomp, "this kernel has not all of the wall: {walls:?}");
    for (name, outcome) in outcomes(stdout) {
        let refused = ["Permission denied (os error 13)", "Operation not permitted (os error 1)"];
        assert!(refused.contains(&outcome.as_str()), "{name}: {outcome}");
    }
    broken.delete().expect("deleted");
    neighbour.signal(libc::SIGKILL).expect("it still runs");
    neighbour.delete().expect("deleted");
}
