//! The wasm backend with real guests, in real processes. It has a `main` of its own because the processes it starts are
//! this program again: `compile REQUEST` is the compiler's child, `guest JSON` runs one guest on its stdin and stdout.
//! `measure GUEST ROUNDS` says how long the backend's part of a container's life takes, from fork to exit.

mod bombs;
mod claims;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, pipe_with};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use wharf_images::Digest;
use wharf_images::snapshot::Rootfs;
use wharf_runtime::backend::wasm::compile::{Compiler, Limits, child_main};
use wharf_runtime::backend::wasm::{ModuleCache, run};
use wharf_runtime::error::Class;
use wharf_runtime::linux::process::{self, SpawnOptions};
use wharf_runtime::linux::wasm_task::WasmBackend;
use wharf_runtime::task::{
    Backend, ExecProgram, ExecSpec, Exit, Stdio as TaskStdio, Task, TaskSpec, WasmMount, WasmTask, Workload,
};

type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    ("hello_says_hello", hello_says_hello),
    ("exit_codes_are_exact", exit_codes_are_exact),
    ("arguments_and_environment_arrive", arguments_and_environment_arrive),
    ("stdin_reaches_stdout", stdin_reaches_stdout),
    ("stdout_and_stderr_are_two", stdout_and_stderr_are_two),
    ("a_reader_that_left_ends_the_writer", a_reader_that_left_ends_the_writer),
    ("a_trap_is_134_with_its_functions", a_trap_is_134_with_its_functions),
    ("recursion_ends_in_a_trap", recursion_ends_in_a_trap),
    ("the_memory_limit_holds_and_says_so", the_memory_limit_holds_and_says_so),
    ("what_guests_want_of_the_host_has_an_end", what_guests_want_of_the_host_has_an_end),
    ("an_allocator_may_claim_all_memory", an_allocator_may_claim_all_memory),
    ("sleeping_works", sleeping_works),
    ("files_live_in_the_root_and_in_mounts", files_live_in_the_root_and_in_mounts),
    ("relative_paths_start_at_the_working_directory", relative_paths_start_at_the_working_directory),
    ("hard_workers_find_their_files_right", hard_workers_find_their_files_right),
    ("the_working_directory_comes_before_the_root", the_working_directory_comes_before_the_root),
    ("read_only_is_read_only", read_only_is_read_only),
    ("no_path_leads_out", no_path_leads_out),
    ("no_address_is_reachable", no_address_is_reachable),
    ("a_function_is_an_entry", a_function_is_an_entry),
    ("many_who_want_one_module_compile_it_once", many_who_want_one_module_compile_it_once),
    ("compiled_code_is_never_taken_from_outside", compiled_code_is_never_taken_from_outside),
    ("a_compile_bomb_meets_its_limit", a_compile_bomb_meets_its_limit),
    ("malformed_modules_are_refused", malformed_modules_are_refused),
    ("a_task_waits_runs_and_ends", a_task_waits_runs_and_ends),
    ("a_task_reads_its_stdin", a_task_reads_its_stdin),
    ("a_task_has_its_terminal", a_task_has_its_terminal),
    ("signals_end_a_task", signals_end_a_task),
    ("a_task_that_cannot_load_says_why", a_task_that_cannot_load_says_why),
    ("a_task_does_not_run_without_its_monitor", a_task_does_not_run_without_its_monitor),
    ("a_task_inherits_nothing", a_task_inherits_nothing),
    ("a_task_stands_behind_its_walls", a_task_stands_behind_its_walls),
    ("a_task_works_behind_its_walls", a_task_works_behind_its_walls),
    ("a_task_changes_layers_behind_its_walls", a_task_changes_layers_behind_its_walls),
    ("a_file_can_be_mounted", a_file_can_be_mounted),
    ("a_paused_task_stands_still", a_paused_task_stands_still),
    ("a_task_without_memory_is_killed", a_task_without_memory_is_killed),
    ("execs_run_beside_a_task", execs_run_beside_a_task),
];

pub fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [_, "compile", request] => std::process::exit(child_main(request)),
        [_, "guest", request] => std::process::exit(guest_main(request)),
        [_, "measure", guest, rounds] => return measure(guest, rounds.parse().expect("a number")),
        _ => {}
    }
    // As with cargo's own harness, a word on the command line chooses tests by name.
    let filter = args.get(1).filter(|a| !a.starts_with('-'));
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in TESTS.iter().filter(|(name, _)| filter.is_none_or(|f| name.contains(f.as_str()))) {
        let ok = catch_unwind(AssertUnwindSafe(test)).is_ok();
        println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
        if ok { passed += 1 } else { failed += 1 }
    }
    println!("{passed} passed, {failed} failed");
    std::process::exit(i32::from(failed > 0));
}

/// What `guest` runs.
#[derive(Serialize, Deserialize)]
struct Request {
    task: WasmTask,
    rootfs: Rootfs,
    memory: Option<u64>,
}

fn guest_main(request: &str) -> i32 {
    let request: Request = serde_json::from_str(request).expect("request");
    run::run(&request.task, &request.rootfs, request.memory).unwrap_or_else(|e| {
        eprintln!("{e}");
        e.exit_code()
    })
}

fn guests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/guests")
}

fn wasm(name: &str) -> Vec<u8> {
    let path = guests().join(format!("{name}.wasm"));
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A container's worth of places, and a guest in it.
struct Place {
    root: TempDir,
    cache: ModuleCache,
    rootfs: PathBuf,
    task: WasmTask,
    memory: Option<u64>,
}

impl Place {
    fn new(guest: &str) -> Self {
        Self::with(&wasm(guest), None)
    }

    fn with(wasm: &[u8], function: Option<&str>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let cache = ModuleCache::open(root.path()).unwrap();
        let module = cache.ensure_bytes(wasm, function).unwrap_or_else(|e| panic!("{e}")).path;
        let rootfs = root.path().join("rootfs");
        fs::create_dir(&rootfs).unwrap();
        let task = WasmTask {
            module,
            args: vec!["guest".to_owned()],
            cwd: "/".to_owned(),
            function: function.map(str::to_owned),
            ..WasmTask::default()
        };
        Place { root, cache, rootfs, task, memory: None }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut task = self.task.clone();
        task.args.extend(args.iter().map(|a| (*a).to_owned()));
        let request = Request { task, rootfs: Rootfs::Dir(self.rootfs.clone()), memory: self.memory };
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("guest").arg(serde_json::to_string(&request).unwrap());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs it, expects code 0, and gives its stdout.
    fn out(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs it, expects it to fail with `code`, and gives its stderr.
    fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stderr)
    }

    fn mount(&mut self, target: &str, read_only: bool) -> PathBuf {
        let source = self.root.path().join(format!("mount-{}", self.task.mounts.len()));
        fs::create_dir(&source).unwrap();
        self.task.mounts.push(WasmMount {
            source: source.clone(),
            subpath: None,
            target: target.to_owned(),
            read_only,
            size: None,
        });
        source
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Both kinds of the same program: a preview-1 module and a component.
fn both() -> [Place; 2] {
    [Place::new("tools-p1"), Place::new("tools-p2")]
}

fn hello_says_hello() {
    assert!(Place::new("hello").out(&[]).starts_with("Hello from Wharf!\n"));
}

fn exit_codes_are_exact() {
    let bare = Place::new("exit-p1");
    bare.fails(1, &[]);
    bare.fails(4, &["a", "b", "c"]);
    for place in both() {
        for code in [0, 1, 3, 42, 134, 200, 255] {
            assert_eq!(place.run(&["exit", &code.to_string()]).status.code(), Some(code));
        }
    }
    // As everywhere, a code is a byte.
    assert_eq!(Place::new("tools-p1").run(&["exit", "256"]).status.code(), Some(0));
}

fn arguments_and_environment_arrive() {
    for mut place in both() {
        assert_eq!(place.out(&["args", "two words", "ünï"]), "guest\nargs\ntwo words\nünï\n");
        assert_eq!(place.out(&["env"]), "", "nothing of the host's environment");
        place.task.env = vec![("A".into(), "1".into()), ("EMPTY".into(), String::new())];
        assert_eq!(place.out(&["env"]), "A=1\nEMPTY=\n");
    }
}

fn stdin_reaches_stdout() {
    let text: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    for place in both() {
        let mut child = place.command(&["cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = text.clone();
        let writer = std::thread::spawn(move || stdin.write_all(&input).unwrap());
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        assert!(output.status.success() && output.stdout == text, "{} bytes", output.stdout.len());
    }
}

fn stdout_and_stderr_are_two() {
    for place in both() {
        let output = place.run(&["both"]);
        assert_eq!((text(&output.stdout), text(&output.stderr)), ("to stdout\n".into(), "to stderr\n".into()));
    }
}

fn a_reader_that_left_ends_the_writer() {
    for place in both() {
        let mut child = place.command(&["hog"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut first = [0; 3];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        assert!(!child.wait().unwrap().success());
    }
}

fn a_trap_is_134_with_its_functions() {
    for place in both() {
        let stderr = place.fails(134, &["trap"]);
        assert!(stderr.starts_with("wharf: wasm trap: wasm `unreachable` instruction executed"), "{stderr}");
        assert!(stderr.contains("inner") && stderr.contains("outer"), "function names: {stderr}");
        let stderr = place.fails(134, &["panic"]);
        assert!(stderr.contains("as asked") && stderr.contains("unreachable"), "{stderr}");
    }
}

fn recursion_ends_in_a_trap() {
    for place in both() {
        let stderr = place.fails(134, &["recurse"]);
        // Rust keeps its shadow stack below its data, so either it or wasmtime's own stack ends first.
        assert!(stderr.contains("call stack exhausted") || stderr.contains("out of bounds"), "{stderr}");
    }
}

fn the_memory_limit_holds_and_says_so() {
    for mut place in both() {
        place.memory = Some(48 << 20);
        let output = place.run(&["hog"]);
        assert_eq!(output.status.code(), Some(134));
        assert!(text(&output.stdout).ends_with("32 MB\n"), "{}", text(&output.stdout));
        let stderr = text(&output.stderr);
        assert!(stderr.contains("memory limit of 50331648 bytes"), "{stderr}");
        // Less than it has at its start.
        place.memory = Some(1 << 16);
        assert!(place.fails(134, &["args"]).contains("memory limit of 65536 bytes"));
    }
}

/// Handles and buffers are the host's memory, which the guest's limit does not count.
fn what_guests_want_of_the_host_has_an_end() {
    let place = Place::with(&bombs::bytes(), Some("boom"));
    let said = place.fails(134, &[]);
    assert!(said.contains("exceeds limit"), "{said}");
    let place = Place::with(&bombs::handles(), Some("boom"));
    let said = place.fails(134, &[]);
    assert!(said.contains("handle limit exceeded"), "{said}");
    // Within what any container's process has for itself.
    let mut spec = place.spec(&[]);
    spec.limits.memory = Some(16 << 20);
    spec.limits.memory_swap = Some(16 << 20);
    let mut running = create(spec);
    running.task.start().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(running.wait(), Exit { code: 134, oom_killed: false });
}

/// The adapter's state lies in the guest's memory too, but not in what the guest knows of.
fn an_allocator_may_claim_all_memory() {
    for learns in [claims::Learns::FromGrow, claims::Learns::FromSize] {
        let output = Place::with(&claims::module(learns), None).run(&[]);
        let said = (output.status.code(), text(&output.stdout), text(&output.stderr));
        assert_eq!(said, (Some(7), "kept\n".to_owned(), String::new()));
    }
}

fn sleeping_works() {
    for place in both() {
        place.out(&["sleep", "60"]);
    }
}

fn files_live_in_the_root_and_in_mounts() {
    for mut place in both() {
        let data = place.mount("/srv/data", false);
        place.out(&["write", "/here", "root"]);
        place.out(&["write", "/srv/data/there", "mount"]);
        assert_eq!(fs::read_to_string(place.rootfs.join("here")).unwrap(), "root");
        assert_eq!(fs::read_to_string(data.join("there")).unwrap(), "mount");
        assert_eq!(place.out(&["cat", "/here", "/srv/data/there"]), "rootmount");
        assert_eq!(place.out(&["ls", "/"]), "here\nsrv\n");
        place.out(&["mkdir", "/srv/data/d"]);
        place.out(&["mv", "/srv/data/there", "/srv/data/d/there"]);
        assert_eq!(place.out(&["ls", "/srv/data/d"]), "there\n");
        place.out(&["rm", "/srv/data/d/there"]);
        assert!(place.fails(1, &["cat", "/srv/data/d/there"]).contains("No such file"));
    }
}

fn relative_paths_start_at_the_working_directory() {
    for mut place in both() {
        let data = place.mount("/work/data", false);
        fs::create_dir_all(place.rootfs.join("etc")).unwrap();
        fs::write(place.rootfs.join("etc/name"), "absolute").unwrap();
        place.task.cwd = "/work".to_owned();
        place.out(&["write", "file", "relative"]);
        assert_eq!(fs::read_to_string(place.rootfs.join("work/file")).unwrap(), "relative");
        assert_eq!(place.out(&["cat", "./file", "/work/file", "/etc/name"]), "relativerelativeabsolute");
        place.out(&["write", "data/file", "mounted"]);
        assert_eq!(fs::read_to_string(data.join("file")).unwrap(), "mounted");
        assert_eq!(place.out(&["env"]), "PWD=/work\n");
    }
}

/// Programs in Rust and C, for preview 1 and for 0.2, that check every step they take: in a directory, over layers and in
/// a mount, by absolute and by relative paths.
fn hard_workers_find_their_files_right() {
    for guest in ["torture-p1", "torture-p2", "worker-p1"] {
        let mut place = Place::new(guest);
        let layers = place.root.path().join("layers");
        for name in ["lower/old/work", "bottom/old", "upper", "work"] {
            fs::create_dir_all(layers.join(name)).unwrap();
        }
        let union = Rootfs::Overlay {
            lower: vec![layers.join("lower"), layers.join("bottom")],
            upper: layers.join("upper"),
            work: layers.join("work"),
        };
        fs::create_dir_all(place.rootfs.join("old/work")).unwrap();
        let mounted = place.mount("/mounted", false);
        let plain = Rootfs::Dir(place.rootfs.clone());
        /// A root, its limit, and working directories with paths from there.
        type Work<'w> = (&'w Rootfs, Option<u64>, &'w [(&'w str, &'w str)]);
        let work: &[Work<'_>] = &[
            (
                &plain,
                None,
                &[
                    ("/", "/"),
                    ("/", "old/work"),
                    ("/", "/mounted"),
                    ("/old/work", "."),
                    ("/old/work", "/old"),
                    ("/old/work", ".."),
                    ("/old/work", "/mounted"),
                    ("/mounted", "/old"),
                    ("/made", "."),
                ],
            ),
            (&union, None, &[("/", "/old"), ("/", "/mounted"), ("/old/work", "."), ("/old/work", "/old")]),
            (&union, Some(8 << 30), &[("/", "/old/work")]),
            (&plain, Some(8 << 30), &[("/", "/")]),
        ];
        for (root, storage, ways) in work {
            place.task.storage = *storage;
            for (cwd, path) in *ways {
                place.task.cwd = (*cwd).to_owned();
                let mut task = place.task.clone();
                task.args.push((*path).to_owned());
                let request = Request { task, rootfs: (*root).clone(), memory: None };
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.arg("guest").arg(serde_json::to_string(&request).unwrap()).stdin(Stdio::null());
                let output = command.output().unwrap();
                let said = text(&output.stdout) + &text(&output.stderr);
                assert!(output.status.success() && said == "ok\n", "{guest} in {path:?} from {cwd}: {root:?}: {said}");
            }
        }
        assert_eq!(fs::read_dir(mounted).unwrap().count(), 0);
        assert_eq!(fs::read_dir(layers.join("work")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(layers.join("lower/old")).unwrap().count(), 1);
    }
}

fn the_working_directory_comes_before_the_root() {
    for mut place in both() {
        let data = place.mount("/data", false);
        for (path, text) in [("etc/name", "root"), ("work/etc/own", "own"), ("work/data/near", "near")] {
            let path = place.rootfs.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::write(data.join("far"), "far").unwrap();
        place.task.cwd = "/work".to_owned();
        assert_eq!(place.out(&["cat", "etc/own", "/etc/name", "/work/etc/own"]), "ownrootown");
        assert_eq!(place.out(&["cat", "/data/far", "../data/far"]), "farfar", "what is mounted is meant");
        assert_eq!(place.out(&["ls", ".."]), "data\netc\nwork\n");
        place.out(&["write", "/etc/new", "new"]);
        assert!(place.rootfs.join("work/etc/new").exists(), "the library cannot tell it from etc/new");
        assert!(place.fails(1, &["mv", "/etc/name", "/data/name"]).contains("Cross-device"));
    }
}

fn read_only_is_read_only() {
    for mut place in both() {
        let data = place.mount("/data", true);
        fs::write(data.join("file"), "kept").unwrap();
        fs::write(place.rootfs.join("file"), "kept").unwrap();
        let attempts: &[&[&str]] = &[
            &["write", "/data/file", "x"],
            &["append", "/data/file", "x"],
            &["write", "/data/new", "x"],
            &["rm", "/data/file"],
            &["mkdir", "/data/d"],
            &["mv", "/data/file", "/data/other"],
            &["mv", "/file", "/data/file"],
            &["ln", "/file", "/data/link"],
            &["ln", "/data/file", "/link"],
        ];
        for attempt in attempts {
            place.fails(1, attempt);
        }
        assert_eq!(place.out(&["ls", "/data"]), "file\n");
        assert_eq!(place.out(&["cat", "/data/file"]), "kept");
        place.task.read_only = true;
        place.fails(1, &["write", "/file", "x"]);
        assert_eq!(place.out(&["cat", "/file"]), "kept");
    }
}

fn no_path_leads_out() {
    for place in both() {
        let secret = place.root.path().join("secret");
        fs::write(&secret, "secret").unwrap();
        std::os::unix::fs::symlink(&secret, place.rootfs.join("absolute")).unwrap();
        std::os::unix::fs::symlink("../secret", place.rootfs.join("relative")).unwrap();
        std::os::unix::fs::symlink("..", place.rootfs.join("up")).unwrap();
        for path in ["/absolute", "/relative", "/up/secret", "/../secret", "../secret", "/up/", "/etc/../../secret"] {
            place.fails(1, &["cat", path]);
        }
        // As for a process with this root: what is above it is the root.
        assert_eq!(place.out(&["ls", "/up"]), "absolute\nrelative\nup\n");
        place.fails(1, &["write", "/../planted", "x"]);
        assert!(!place.root.path().join("planted").exists());
    }
}

fn no_address_is_reachable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let place = Place::new("tools-p2");
    place.fails(1, &["connect", &address]);
}

fn a_function_is_an_entry() {
    assert_eq!(Place::with(&wasm("library-p1"), Some("greet")).out(&[]), "greetings\n");
}

fn many_who_want_one_module_compile_it_once() {
    let root = tempfile::tempdir().unwrap();
    let blob = guests().join("tools-p1.wasm");
    let digest = Digest::of(&fs::read(&blob).unwrap());
    let compiled: Vec<bool> = std::thread::scope(|scope| {
        let ensure = || {
            let cache = ModuleCache::open(root.path()).unwrap();
            !cache.ensure(&digest, &blob, None).unwrap_or_else(|e| panic!("{e}")).cached
        };
        let all: Vec<_> = (0..8).map(|_| scope.spawn(ensure)).collect();
        all.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(compiled.iter().filter(|c| **c).count(), 1, "{compiled:?}");
}

fn compiled_code_is_never_taken_from_outside() {
    let place = Place::new("exit-p1");
    // What wasmtime has compiled, offered as a module.
    let compiled = fs::read(&place.task.module).unwrap();
    let error = place.cache.ensure_bytes(&compiled, None).unwrap_err();
    assert_eq!(error.class(), Class::Unsupported);
    assert!(error.to_string().contains(".cwasm"), "{error}");

    // A file that others could have written, or a link, in the place of a compiled one.
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&place.task.module, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(place.fails(125, &[]).contains("written by others"));
    let elsewhere = place.root.path().join("elsewhere");
    fs::write(&elsewhere, &compiled).unwrap();
    fs::remove_file(&place.task.module).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &place.task.module).unwrap();
    assert_eq!(place.cache.get(&Digest::of(&wasm("exit-p1"))), None, "a link is no compiled module");
    place.fails(125, &[]);

    // Damaged, or another machine's: refused, removed, compiled anew.
    fs::remove_file(&place.task.module).unwrap();
    fs::write(&place.task.module, &compiled[..compiled.len() / 2]).unwrap();
    assert!(place.fails(125, &[]).contains("not of this machine"));
    place.cache.ensure_bytes(&wasm("exit-p1"), None).unwrap();
    place.fails(1, &[]);
}

fn a_compile_bomb_meets_its_limit() {
    let root = tempfile::tempdir().unwrap();
    let bomb = bomb();
    let refused = |limits: Limits| {
        let cache = ModuleCache::with_compiler(root.path(), Compiler::Child, limits).unwrap();
        let error = cache.ensure_bytes(&bomb, None).unwrap_err();
        assert_eq!(error.class(), Class::LimitExceeded, "{error}");
        error.to_string()
    };
    let limits = Limits::default();
    assert!(refused(Limits { cpu_seconds: 1, ..limits }).contains("1 seconds of CPU time"));
    assert!(refused(Limits { wall_seconds: 1, ..limits }).contains("1 seconds"));
    assert!(refused(Limits { memory: 256 << 20, ..limits }).contains("256 MiB"));
    assert!(refused(Limits { source: 1000, ..limits }).contains("larger than"));
}

/// A valid module of one function so large that its registers take very long to be allocated.
fn bomb() -> Vec<u8> {
    use wasm_encoder::*;
    let mut types = TypeSection::new();
    types.ty().function([], []);
    let mut functions = FunctionSection::new();
    functions.function(0);
    let mut exports = ExportSection::new();
    exports.export("_start", ExportKind::Func, 0);
    let locals = 2000;
    let mut body = Function::new([(locals, ValType::I64)]);
    for round in 0..150_000_u32 {
        body.instructions()
            .local_get(round.wrapping_mul(7919) % locals)
            .local_get(round.wrapping_mul(104_729) % locals)
            .i64_rotl()
            .local_set(round % locals)
            .local_get(round % locals)
            .i32_wrap_i64()
            .if_(BlockType::Empty)
            .end();
    }
    body.instructions().end();
    let mut code = CodeSection::new();
    code.function(&body);
    let mut module = Module::new();
    module.section(&types).section(&functions).section(&exports).section(&code);
    module.finish()
}

fn malformed_modules_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let cache = ModuleCache::open(root.path()).unwrap();
    for name in ["tools-p1", "tools-p2"] {
        let wasm = wasm(name);
        for length in [0, 3, 8, 9, 1000, wasm.len() - 1] {
            let error = cache.ensure_bytes(&wasm[..length], None).unwrap_err();
            assert!(matches!(error.class(), Class::Corrupt | Class::Unsupported), "{name} {length}: {error}");
        }
        // A byte that is not what it should be, in the middle of the code.
        let mut damaged = wasm.clone();
        let middle = damaged.len() / 2;
        damaged[middle..middle + 64].fill(0xff);
        assert!(cache.ensure_bytes(&damaged, None).is_err(), "{name}");
    }
    let left: Vec<_> = fs::read_dir(root.path().join("modules")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|n| n.to_string_lossy().starts_with("lock-")), "{left:?}");
}

// From here on: the backend, with this process in the monitor's place.

/// A task, our ends of its streams, and its spec.
struct Running {
    task: Box<dyn Task>,
    spec: TaskSpec,
    stdin: Option<File>,
    stdout: File,
    stderr: File,
}

fn pipe() -> (File, File) {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    (File::from(read), File::from(write))
}

impl Place {
    fn spec(&self, args: &[&str]) -> TaskSpec {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mut task = self.task.clone();
        task.args.extend(args.iter().map(|a| (*a).to_owned()));
        let id = format!("{:056x}{:08x}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        TaskSpec {
            cgroup: format!("wharf-test/{id}"),
            id,
            rootfs: Rootfs::Dir(self.rootfs.clone()),
            limits: Default::default(),
            workload: Workload::Wasm(Box::new(task)),
        }
    }

    fn create(&self, args: &[&str]) -> Running {
        create(self.spec(args))
    }

    fn start(&self, args: &[&str]) -> Running {
        let mut running = self.create(args);
        running.task.start().unwrap_or_else(|e| panic!("{e}"));
        running
    }
}

fn create(spec: TaskSpec) -> Running {
    let ((stdin, our_stdin), (stdout, their_stdout), (stderr, their_stderr)) = (pipe(), pipe(), pipe());
    let stdio = TaskStdio::Pipes { stdin: Some(stdin), stdout: their_stdout, stderr: their_stderr };
    let task = WasmBackend.create(&spec, stdio).unwrap_or_else(|e| panic!("{e}"));
    Running { task, spec, stdin: Some(our_stdin), stdout, stderr }
}

impl Running {
    fn wait(&mut self) -> Exit {
        wait(&mut *self.task)
    }

    fn stdout(&mut self) -> String {
        let mut all = String::new();
        self.stdout.read_to_string(&mut all).unwrap();
        all
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.task.signal(9);
        wait(&mut *self.task);
        self.task.delete().unwrap();
        let left = Command::new("find").args(["/sys/fs/cgroup", "-name", &self.spec.id]).output().unwrap();
        assert_eq!(text(&left.stdout), "", "cgroups stay");
    }
}

fn wait(task: &mut dyn Task) -> Exit {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(exit) = task.reap().unwrap() {
            return exit;
        }
        assert!(Instant::now() < deadline, "the task does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn a_task_waits_runs_and_ends() {
    let place = Place::new("tools-p1");
    let mut running = place.create(&["exit", "42"]);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(running.task.reap().unwrap(), None, "it waits for its start");
    assert!(Path::new(&format!("/proc/{}", running.task.pid())).exists());
    running.task.start().unwrap();
    assert_eq!(running.wait(), Exit { code: 42, oom_killed: false });
    assert_eq!(running.task.signal(15).unwrap_err().class(), Class::NotFound);
    assert!(running.task.start().is_err(), "once only");
}

fn a_task_reads_its_stdin() {
    let mut running = Place::new("tools-p2").start(&["cat"]);
    let mut stdin = running.stdin.take().unwrap();
    stdin.write_all(b"to and fro").unwrap();
    drop(stdin);
    assert_eq!(running.stdout(), "to and fro");
    assert_eq!(running.wait().code, 0);
}

fn a_task_has_its_terminal() {
    let place = Place::new("tools-p1");
    let spec = place.spec(&["cat"]);
    let mut task = WasmBackend.create(&spec, TaskStdio::Terminal { size: Some((24, 80)) }).unwrap();
    let mut console = task.console().unwrap();
    assert!(task.console().is_none(), "once only");
    assert_eq!(rustix::termios::tcgetwinsize(&console).unwrap().ws_col, 80);
    task.start().unwrap();
    // A line, and Ctrl-D.
    console.write_all(b"typed\n\x04").unwrap();
    let mut screen = Vec::new();
    // When the last slave is closed the master says EIO.
    let _ = console.read_to_end(&mut screen);
    assert_eq!(text(&screen), "typed\r\ntyped\r\n");
    assert_eq!(wait(&mut *task).code, 0);
    // Ctrl-C goes to the guest, whose process leads the terminal's session.
    let mut spin = WasmBackend.create(&place.spec(&["spin"]), TaskStdio::Terminal { size: None }).unwrap();
    let mut console = spin.console().unwrap();
    spin.start().unwrap();
    console.write_all(b"\x03").unwrap();
    assert_eq!(wait(&mut *spin).code, 130);
    task.delete().unwrap();
    spin.delete().unwrap();
}

fn signals_end_a_task() {
    let place = Place::new("tools-p1");
    for (signal, args) in [(15, ["spin"]), (9, ["spin"]), (15, ["wait"])] {
        let mut running = place.start(&args);
        running.task.signal(signal).unwrap();
        assert_eq!(running.wait(), Exit { code: 128 + signal, oom_killed: false });
    }
}

fn a_task_that_cannot_load_says_why() {
    let mut place = Place::new("tools-p1");
    place.task.mounts.push(WasmMount {
        source: "/nonexistent".into(),
        subpath: None,
        target: "/x".into(),
        read_only: false,
        size: None,
    });
    let mut running = place.create(&["args"]);
    let error = running.task.start().unwrap_err();
    assert!(error.to_string().contains("/nonexistent"), "{error}");
    running.wait();
    place.task.mounts.clear();
    place.task.module = "/nonexistent.cwasm".into();
    assert_eq!(place.create(&[]).task.start().unwrap_err().class(), Class::NotFound);
}

fn a_task_does_not_run_without_its_monitor() {
    let place = Place::new("tools-p1");
    let (mut reader, writer) = pipe();
    let spec = place.spec(&["write", "/ran", "x"]);
    // A monitor that makes a task and dies before it starts it.
    let monitor = process::spawn(SpawnOptions::default(), || {
        let running = create(spec.clone());
        std::thread::sleep(Duration::from_millis(50));
        (&writer).write_all(&running.task.pid().to_ne_bytes()).unwrap();
        process::exit_now(0)
    })
    .unwrap();
    let mut pid = [0; 4];
    reader.read_exact(&mut pid).unwrap();
    monitor.wait().unwrap();
    WasmBackend.clean(&spec).unwrap();
    // It is nobody's child now; init may take its time to reap it.
    let status = format!("/proc/{}/status", u32::from_ne_bytes(pid));
    let gone = || fs::read_to_string(&status).map_or(true, |s| s.contains("State:\tZ") || s.contains("State:\tX"));
    let deadline = Instant::now() + Duration::from_secs(5);
    while !gone() {
        assert!(Instant::now() < deadline, "it lives on");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(!place.rootfs.join("ran").exists());
}

fn a_task_inherits_nothing() {
    let place = Place::new("tools-p1");
    let secret = File::open("/etc/passwd").unwrap();
    let running = place.create(&["wait"]);
    std::thread::sleep(Duration::from_millis(100));
    let fds = fs::read_dir(format!("/proc/{}/fd", running.task.pid())).unwrap();
    let open: Vec<_> = fds.map(|fd| fs::read_link(fd.unwrap().path()).unwrap()).collect();
    drop(secret);
    // Its streams, the line to us, its root directory, its compiled component, and a source of randomness.
    let known = |path: &PathBuf| {
        let name = path.to_string_lossy();
        let kinds = ["pipe:", "socket:", "/dev/urandom"];
        kinds.iter().any(|kind| name.starts_with(kind)) || [&place.rootfs, &place.task.module].contains(&path)
    };
    assert!(open.iter().all(known) && open.len() <= 7, "{open:?}");
}

fn a_task_stands_behind_its_walls() {
    let running = Place::new("tools-p1").start(&["wait"]);
    let status = fs::read_to_string(format!("/proc/{}/status", running.task.pid())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
    };
    assert_eq!((field("NoNewPrivs"), field("Seccomp")), ("1".to_owned(), "2".to_owned()));
    let capabilities = u64::from_str_radix(&field("CapEff"), 16).unwrap();
    // Of files, and only where Landlock says which.
    assert_eq!(capabilities & !(1 << 1 | 1 << 3), 0, "{capabilities:x}");
}

/// All that guests do, with the walls up.
fn a_task_works_behind_its_walls() {
    for mut place in both() {
        let data = place.mount("/data", false);
        let read_only = place.mount("/kept", true);
        fs::write(read_only.join("file"), "kept").unwrap();
        let code = |args: &[&str]| {
            let mut running = place.start(args);
            drop(running.stdin.take());
            let exit = running.wait();
            let mut stderr = String::new();
            running.stderr.read_to_string(&mut stderr).unwrap();
            (exit.code, running.stdout(), stderr)
        };
        assert_eq!(code(&["write", "/data/file", "x"]).0, 0);
        assert_eq!(fs::read_to_string(data.join("file")).unwrap(), "x");
        assert_eq!(code(&["write", "/file", "x"]).0, 0);
        assert_eq!(code(&["mv", "/data/file", "/data/other"]).0, 0);
        assert_eq!(code(&["ls", "/data"]).1, "other\n");
        assert_eq!(code(&["rm", "/data/other"]).0, 0);
        assert_eq!(code(&["cat", "/kept/file"]).1, "kept");
        assert_eq!(code(&["write", "/kept/file", "x"]).0, 1);
        assert_eq!(code(&["cat"]).0, 0, "a thread reads stdin");
        assert_eq!(code(&["sleep", "20"]).0, 0);
        let (trapped, _, stderr) = code(&["trap"]);
        assert!(trapped == 134 && stderr.contains("inner"), "{stderr}");
        let (exhausted, _, stderr) = code(&["recurse"]);
        assert!(exhausted == 134 && stderr.contains("wasm trap"), "{stderr}");
    }
}

/// An image's layers lie below the container's own: what changes is copied, and what goes is covered.
fn a_task_changes_layers_behind_its_walls() {
    for place in both() {
        let at = |name: &str| place.root.path().join(name);
        fs::create_dir_all(at("lower/etc/old")).unwrap();
        for (name, text) in [("lower/etc/name", "name"), ("lower/etc/gone", "gone"), ("lower/etc/moved", "moved")] {
            fs::write(at(name), text).unwrap();
        }
        for name in ["bottom/etc", "upper", "work"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        fs::write(at("bottom/etc/deep"), "deep").unwrap();
        let rootfs = Rootfs::Overlay { lower: vec![at("lower"), at("bottom")], upper: at("upper"), work: at("work") };
        let code = |args: &[&str]| {
            let mut running = create(TaskSpec { rootfs: rootfs.clone(), ..place.spec(args) });
            running.task.start().unwrap_or_else(|e| panic!("{e}"));
            let exit = running.wait();
            (exit.code, running.stdout())
        };
        assert_eq!(code(&["append", "/etc/name", "!"]).0, 0);
        assert_eq!(code(&["rm", "/etc/gone"]).0, 0);
        assert_eq!(code(&["mv", "/etc/moved", "/etc/deep"]).0, 0);
        assert_eq!(code(&["write", "/etc/new", "new"]).0, 0);
        assert_eq!(code(&["mkdir", "/etc/gone"]).0, 0, "in place of a whiteout");
        assert_eq!(code(&["cat", "/etc/name", "/etc/deep", "/etc/new"]).1, "name!movednew");
        assert_eq!(code(&["ls", "/etc"]).1, "deep\ngone\nname\nnew\nold\n");
        assert_eq!(fs::read_to_string(at("lower/etc/name")).unwrap(), "name");
        assert_eq!(fs::read_dir(at("lower/etc")).unwrap().count(), 4);
        assert_eq!(fs::read_dir(at("work")).unwrap().count(), 0);
    }
}

fn a_file_can_be_mounted() {
    for mut place in both() {
        let source = place.root.path().join("single");
        fs::write(&source, "single").unwrap();
        for (target, read_only) in [("/etc/kept", true), ("/etc/open", false)] {
            let (source, target) = (source.clone(), target.to_owned());
            place.task.mounts.push(WasmMount { source, subpath: None, target, read_only, size: None });
        }
        let run = |args: &[&str]| place.start(args).wait().code;
        assert_eq!(place.start(&["ls", "/etc"]).stdout(), "kept\nopen\n");
        assert_eq!(run(&["append", "/etc/open", "!"]), 0);
        assert_eq!(run(&["append", "/etc/kept", "!"]), 1);
        assert_eq!(run(&["rm", "/etc/open"]), 1);
        assert_eq!(place.start(&["cat", "/etc/kept"]).stdout(), "single!");
        assert_eq!(fs::read_to_string(&source).unwrap(), "single!");
    }
}

fn a_paused_task_stands_still() {
    let place = Place::new("tools-p1");
    let running = place.start(&["spin"]);
    let used = || running.task.usage().unwrap().cpu_ns;
    std::thread::sleep(Duration::from_millis(50));
    running.task.set_paused(true).unwrap();
    let before = used();
    assert!(before > 0);
    std::thread::sleep(Duration::from_millis(100));
    assert!(used() - before < 5_000_000, "it ran while paused");
    running.task.set_paused(false).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(used() - before > 20_000_000, "it goes on");
}

fn a_task_without_memory_is_killed() {
    let place = Place::new("tools-p1");
    let mut spec = place.spec(&["hog"]);
    spec.limits.memory = Some(24 << 20);
    spec.limits.memory_swap = Some(24 << 20);
    let mut running = create(spec);
    running.task.start().unwrap();
    let exit = running.wait();
    let mut stderr = String::new();
    running.stderr.read_to_string(&mut stderr).unwrap();
    // The guest's own limit, or the kernel's for the whole process: whichever comes first.
    assert!(
        (exit.code == 134 && stderr.contains("memory limit")) || (exit.code == 137 && exit.oom_killed),
        "{exit:?} {stderr}"
    );
}

fn execs_run_beside_a_task() {
    let mut place = Place::new("tools-p1");
    place.task.env = vec![("FIRST".into(), "1".into()), ("GONE".into(), "1".into())];
    let running = place.start(&["wait"]);
    let program = ExecProgram { module: place.task.module.clone(), function: None };
    let exec = |args: &[&str], program: Option<ExecProgram>| {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        let env = vec!["GONE".to_owned(), "SECOND=2".to_owned()];
        let exec = ExecSpec { args, env, program, ..ExecSpec::default() };
        let ((stdout, their_stdout), (_, stderr)) = (pipe(), pipe());
        running
            .task
            .exec(&exec, TaskStdio::Pipes { stdin: None, stdout: their_stdout, stderr })
            .map(|task| (task, stdout))
    };
    assert_eq!(exec(&["x"], None).err().unwrap().class(), Class::Internal, "it must have been looked for");
    let (mut one, mut stdout) = exec(&["x", "env"], Some(program.clone())).unwrap();
    one.start().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(wait(&mut *one).code, 0);
    let mut said = String::new();
    stdout.read_to_string(&mut said).unwrap();
    assert_eq!(said, "FIRST=1\nSECOND=2\n");
    one.delete().unwrap();

    // It lives in the container's cgroup, which dies with the container.
    let (mut spinning, _stdout) = exec(&["x", "spin"], Some(program)).unwrap();
    spinning.start().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(running.task.processes().unwrap(), [running.task.pid(), spinning.pid()]);
    running.task.set_paused(true).unwrap();
    let used = running.task.usage().unwrap().cpu_ns;
    std::thread::sleep(Duration::from_millis(50));
    assert!(running.task.usage().unwrap().cpu_ns - used < 5_000_000, "it ran while paused");
    running.task.set_paused(false).unwrap();
    drop(running);
    assert_eq!(wait(&mut *spinning).code, 137);
    spinning.delete().unwrap();
}

/// Medians, in microseconds, of the stages of a task's life as its monitor sees them.
fn measure(guest: &str, rounds: usize) {
    let place = Place::new(guest);
    let mut stages = vec![Vec::new(); 5];
    for _ in 0..rounds {
        let spec = place.spec(&[]);
        let start = Instant::now();
        let mut running = create(spec);
        let created = start.elapsed();
        running.task.start().unwrap();
        let started = start.elapsed();
        let mut fds = [rustix::event::PollFd::new(running.task.exit_handle(), rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut fds, None).unwrap();
        let ended = start.elapsed();
        assert_eq!(running.task.reap().unwrap().unwrap().code, 0);
        running.task.delete().unwrap();
        let deleted = start.elapsed();
        for (stage, time) in
            stages.iter_mut().zip([created, started - created, ended - started, deleted - ended, ended])
        {
            stage.push(time);
        }
        std::mem::forget(running);
    }
    for (name, mut times) in ["cgroup and fork", "load", "run and exit", "delete", "fork to exit"].iter().zip(stages) {
        times.sort();
        println!("{name:>16} {:>6}", times[rounds / 2].as_micros());
    }
}
