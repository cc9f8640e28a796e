//! `wharf wasm`, as a person types it, and what it leaves behind.

use std::fs;
use std::path::PathBuf;

use assert_cmd::Command;
use tempfile::TempDir;

/// An instance of its own, in a directory of its own.
struct Instance(TempDir);

impl Instance {
    fn new() -> Self {
        Instance(tempfile::tempdir().expect("a directory"))
    }

    fn wharf(&self, args: &[&str]) -> Command {
        let mut command = Command::cargo_bin("wharf").expect("wharf");
        command.env("WHARF_ROOT", self.0.path().join("root")).current_dir(self.0.path()).args(args);
        command
    }

    /// Runs it; gives its exit code, stdout and stderr.
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let output = self.wharf(args).output().expect("run");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    fn out(&self, args: &[&str]) -> String {
        let (code, stdout, stderr) = self.run(args);
        assert_eq!(code, 0, "{args:?}: {stderr}");
        stdout
    }

    fn directory(&self, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir(&path).expect("a directory");
        path
    }
}

fn guest(name: &str) -> String {
    format!("{}/tests/guests/{name}.wasm", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_file_runs_with_what_it_was_given() {
    let instance = Instance::new();
    let tools = guest("tools-p2");
    assert!(instance.out(&["wasm", "run", &tools, "args", "-t", "b"]).ends_with("args\n-t\nb\n"));
    assert!(instance.out(&["wasm", "run", "-e", "A=1", &tools, "env"]).contains("A=1\n"));
    instance.wharf(&["wasm", "run", &tools, "cat"]).write_stdin("typed").assert().success().stdout("typed");

    let files = instance.directory("files");
    fs::write(files.join("f"), "kept").expect("write");
    assert_eq!(instance.out(&["wasm", "run", "-v", "./files:/", &tools, "ls", "/"]), "f\n");
    let data = "./files:/data:ro";
    assert_eq!(instance.out(&["wasm", "run", "-v", data, "-w", "/data", &tools, "cat", "f"]), "kept");
    assert_eq!(instance.run(&["wasm", "run", "-v", data, &tools, "write", "/data/f", "x"]).0, 1);
    assert_eq!(fs::read_to_string(files.join("f")).expect("read"), "kept");
    assert_eq!(instance.out(&["ps", "-aq"]), "", "each container is removed");
}

#[test]
fn each_end_has_its_code() {
    let instance = Instance::new();
    let tools = guest("tools-p1");
    let code = |args: &[&str]| instance.run(&[&["wasm", "run"], args].concat()).0;
    assert_eq!(code(&[&tools, "exit", "42"]), 42);
    assert_eq!(code(&[&tools, "trap"]), 134);
    assert_eq!(code(&["--timeout", "200ms", &tools, "spin"]), 137);
    assert_eq!(code(&["-m", "32m", &tools, "hog"]), 134);
    assert_eq!(code(&["nothing.wasm"]), 127);
    assert_eq!(code(&["--nothing", &tools]), 125);
}

#[test]
fn what_is_no_program_is_refused_by_name() {
    let instance = Instance::new();
    fs::write(instance.0.path().join("forged.cwasm"), b"\x7fELF\x02\x01\x01\xc8 compiled elsewhere").expect("write");
    let (code, _, stderr) = instance.run(&["wasm", "run", "forged.cwasm"]);
    assert!(code == 126 && stderr.contains("forged.cwasm: ") && stderr.contains(".wasm file it was"), "{stderr}");
    let (_, _, stderr) = instance.run(&["wasm", "run", &guest("library-p1")]);
    assert!(stderr.contains("no _start") && stderr.contains("greet"), "{stderr}");
}

#[test]
fn an_image_gives_its_file_back() {
    let instance = Instance::new();
    let tools = guest("tools-p1");
    assert!(instance.out(&["wasm", "pack", &tools, "-t", "tools:1"]).starts_with("sha256:"));
    assert_eq!(instance.run(&["run", "--rm", "tools:1", "exit", "7"]).0, 7);
    instance.out(&["wasm", "extract", "tools:1", "-o", "back.wasm"]);
    assert!(fs::read(instance.0.path().join("back.wasm")).expect("read") == fs::read(&tools).expect("read"));
    // It cannot run here, and is a good image all the same.
    let (code, _, stderr) = instance.run(&["wasm", "pack", &guest("library-p1"), "-t", "library"]);
    assert!(code == 0 && stderr.contains("WARNING: the module exports no _start"), "{stderr}");
    assert_eq!(instance.run(&["wasm", "extract", "none"]).0, 1);
}

#[test]
fn a_program_is_inspected_before_it_runs() {
    let instance = Instance::new();
    let tools = guest("tools-p2");
    let view = instance.out(&["wasm", "inspect", "-v", "/srv:/data:ro", "-e", "TOKEN=secret", &tools]);
    for line in ["component, runs (wasi:cli/run@0.2", "/data: read-only, /srv of the host", "HOSTNAME, TOKEN"] {
        assert!(view.contains(line), "{line}: {view}");
    }
    assert!(!view.contains("secret"), "{view}");
    instance.out(&["wasm", "pack", &tools, "-t", "tools"]);
    let json = instance.out(&["wasm", "inspect", "tools", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["Role"], &json["Runs"]), (&"command".into(), &true.into()), "{json}");
    let (code, stdout, _) = instance.run(&["wasm", "inspect", &guest("library-p1")]);
    assert!(code == 0 && stdout.contains("Runs here: no: ") && stdout.contains("FILE.wasm#FUNCTION"), "{stdout}");
    assert_eq!(instance.run(&["wasm", "inspect", "no-such-image"]).0, 1);
    fs::write(instance.0.path().join("text.wasm"), "hello").expect("write");
    let (code, _, stderr) = instance.run(&["wasm", "inspect", "text.wasm"]);
    assert!(code == 1 && stderr.contains("text.wasm: this is not WebAssembly"), "{stderr}");
}
