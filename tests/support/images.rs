//! Images that need no network: built here by hand as `docker save` writes them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use sha2::{Digest, Sha256};

/// Busybox's names for itself that the tests use.
const APPLETS: &[&str] = &[
    "cat", "chmod", "chown", "cp", "dd", "echo", "env", "false", "find", "grep", "head", "hostname", "httpd", "id",
    "ip", "kill", "ln", "ls", "mkdir", "mount", "mv", "nc", "nproc", "nslookup", "ps", "pwd", "rm", "sed", "sh",
    "sleep", "stat", "stty", "test", "touch", "trap", "true", "tty", "umount", "wc",
];

/// The archive of `busybox:latest`: Debian's static busybox, with a passwd and a group file.
pub fn busybox() -> Vec<u8> {
    linux("busybox:latest", &[busybox_layer()], &json!({"Cmd": ["sh"], "Env": ["PATH=/bin"]}))
}

/// Its root file system.
pub fn busybox_layer() -> Vec<u8> {
    let busybox = read("/bin/busybox");
    let mut layer = Tar::default();
    for dir in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
        layer.directory(dir);
    }
    layer.file("bin/busybox", 0o755, &busybox);
    for name in APPLETS {
        layer.link(&format!("bin/{name}"), "busybox");
    }
    layer.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nanna:x:1000:1000::/tmp:/bin/sh\n");
    layer.file("etc/group", 0o644, b"root:x:0:\nanna:x:1000:\nsailors:x:2000:anna\n");
    layer.end()
}

/// The archive of `debian:latest`, made by debootstrap.
pub fn debian() -> Vec<u8> {
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    linux("debian:latest", &[debian_layer()], &json!({"Cmd": ["bash"], "Env": [path]}))
}

/// Its root file system.
pub fn debian_layer() -> Vec<u8> {
    read("/var/cache/wharf-tests/debian.tar")
}

/// The archive of `redis:latest`: Debian's server and its client, what they link to, and busybox.
pub fn redis() -> Vec<u8> {
    let programs = ["/usr/bin/redis-server", "/usr/bin/redis-cli"];
    let linked = super::tool(Command::new("ldd").args(programs));
    let libraries = linked.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    let mut files: BTreeSet<&str> = libraries.filter(|name| !name.ends_with(':')).collect();
    files.extend(programs);
    let mut layer = Tar::default();
    for dir in ["data", "lib", "lib64", "lib/x86_64-linux-gnu", "usr", "usr/bin"] {
        layer.directory(dir);
    }
    for file in files {
        layer.file(file.trim_start_matches('/'), 0o755, &read(file));
    }
    let config = json!({
        "Cmd": ["redis-server", "--save", "", "--dir", "/data", "--protected-mode", "no"],
        "Env": ["PATH=/usr/bin:/bin"],
        "ExposedPorts": {"6379/tcp": {}},
    });
    linux("redis:latest", &[busybox_layer(), layer.end()], &config)
}

/// A Linux image of these layers (uncompressed tars) and this configuration (the config's `config` object).
pub fn linux(name: &str, layers: &[Vec<u8>], config: &serde_json::Value) -> Vec<u8> {
    linux_at(name, layers, config, Some("2026-01-01T00:00:00Z"))
}

/// The same, made at this time or at none.
pub fn linux_at(name: &str, layers: &[Vec<u8>], config: &serde_json::Value, created: Option<&str>) -> Vec<u8> {
    archive(name, ("linux", "amd64"), layers, config, created)
}

/// The archive of an image as docker builds it from `FROM scratch` and a wasm file: style C.
pub fn scratch_wasm(name: &str, module: &[u8]) -> Vec<u8> {
    wasm_files(name, &[("app.wasm", module)], &json!({"Entrypoint": ["/app.wasm"]}))
}

/// The same, with these files.
pub fn wasm_files(name: &str, files: &[(&str, &[u8])], config: &serde_json::Value) -> Vec<u8> {
    let mut layer = Tar::default();
    for (path, bytes) in files {
        layer.file(path, 0o644, bytes);
    }
    wasm_layer(name, layer, config)
}

/// The same, with this layer.
pub fn wasm_layer(name: &str, layer: Tar, config: &serde_json::Value) -> Vec<u8> {
    archive(name, ("wasi", "wasm"), &[layer.end()], config, Some("2026-01-01T00:00:00Z"))
}

/// The file of a guest that `tests/guests` describes. `tools-p1` and `tools-p2` are one program, as a preview-1 module and
/// as a 0.2 component; its first argument says what it does.
pub fn guest(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests").join(format!("{name}.wasm"));
    file.to_str().expect("a plain path").to_owned()
}

/// Docker's archive format: a config, the layers and a `manifest.json` that names them.
fn archive(
    name: &str,
    (os, architecture): (&str, &str),
    layers: &[Vec<u8>],
    config: &serde_json::Value,
    created: Option<&str>,
) -> Vec<u8> {
    let hex = |bytes: &[u8]| Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>();
    let diff_ids: Vec<_> = layers.iter().map(|layer| format!("sha256:{}", hex(layer))).collect();
    let mut step = json!({"created_by": "a test"});
    let mut config = json!({
        "architecture": architecture,
        "os": os,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    if let Some(created) = created {
        step["created"] = created.into();
        config["created"] = created.into();
    }
    config["history"] = vec![step; layers.len()].into();
    let config = config.to_string();
    let config_name = format!("{}.json", hex(config.as_bytes()));
    let names: Vec<_> = (0..layers.len()).map(|n| format!("{n}/layer.tar")).collect();
    let manifest = json!([{"Config": config_name, "RepoTags": [name], "Layers": names}]).to_string();

    let mut all = Tar::default();
    all.file(&config_name, 0o644, config.as_bytes());
    for (name, layer) in names.iter().zip(layers) {
        all.file(name, 0o644, layer);
    }
    all.file("manifest.json", 0o644, manifest.as_bytes());
    all.end()
}

/// A tar archive in the making.
pub struct Tar {
    entries: tar::Builder<Vec<u8>>,
}

impl Default for Tar {
    fn default() -> Self {
        Tar { entries: tar::Builder::new(Vec::new()) }
    }
}

impl Tar {
    /// A regular file of root's.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entry(tar::EntryType::Regular, path, mode, content, None);
    }

    /// A directory of root's.
    pub fn directory(&mut self, path: &str) {
        self.directory_of_mode(path, if path == "tmp" { 0o1777 } else { 0o755 });
    }

    /// The same, of this mode.
    pub fn directory_of_mode(&mut self, path: &str, mode: u32) {
        self.entry(tar::EntryType::Directory, path, mode, &[], None);
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.entry(tar::EntryType::Symlink, path, 0o777, &[], Some(target));
    }

    /// A character device.
    pub fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.special(tar::EntryType::Char, path, (major, minor));
    }

    /// A fifo.
    pub fn fifo(&mut self, path: &str) {
        self.special(tar::EntryType::Fifo, path, (0, 0));
    }

    fn special(&mut self, kind: tar::EntryType, path: &str, (major, minor): (u32, u32)) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o666);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_767_225_600);
        header.set_size(0);
        header.set_device_major(major).expect("a number");
        header.set_device_minor(minor).expect("a number");
        self.entries.append_data(&mut header, path, &[][..]).expect("memory");
    }

    /// The whole archive.
    pub fn end(self) -> Vec<u8> {
        self.entries.into_inner().expect("memory")
    }

    fn entry(&mut self, kind: tar::EntryType, path: &str, mode: u32, content: &[u8], target: Option<&str>) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_767_225_600);
        header.set_size(content.len() as u64);
        match target {
            Some(target) => self.entries.append_link(&mut header, path, target),
            None => self.entries.append_data(&mut header, path, content),
        }
        .expect("memory");
    }
}

/// The bytes of a file that must be there.
pub fn read(path: &str) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{path}: {e}; .ci/packages installs what the tests need"))
}
