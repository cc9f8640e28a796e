//! `version`, `info` and the `system` group.

use std::io::Write as _;
use std::path::Path;

use jiff::Timestamp;
use serde_json::{Value, json};
use wharf_runtime::engine::ListOptions;
use wharf_runtime::linux::jail;
use wharf_runtime::state::State;
use wharf_runtime::walls::Walls;

use super::container_json;
use super::context::Context;
use super::failure::{Failure, Result};
use super::go::Object;
use super::go_types;
use super::host;
use super::parse::Parsed;
use super::template::{Format, Wrong};
use super::units;
use super::verb::{FORMAT_OBJECT, Listed, Operands, Section, Verb};

/// The version of docker's API whose words and fields this follows.
const API_VERSION: &str = "1.50";

/// The commands of this file.
pub static VERBS: &[Verb] = &[
    Verb {
        names: &["version"],
        about: "Show the Wharf version information",
        usage: "[OPTIONS]",
        listed: Listed::Common,
        operands: Operands::None,
        trailing: false,
        sections: &[Section { title: "Options", flags: &[FORMAT_OBJECT] }],
        run: version,
    },
    Verb {
        names: &["info", "system info"],
        about: "Display system-wide information",
        usage: "[OPTIONS]",
        listed: Listed::Common,
        operands: Operands::None,
        trailing: false,
        sections: &[Section { title: "Options", flags: &[FORMAT_OBJECT] }],
        run: info,
    },
];

fn version(parsed: &Parsed, _: &Context) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let (os, arch) = platform();
    let client = client();
    let details = json!({
        "ApiVersion": API_VERSION, "Arch": arch, "Experimental": "false", "KernelVersion": kernel(),
        "MinAPIVersion": API_VERSION, "Os": os,
    });
    let object = json!({
        "Client": client,
        "Server": {
            "Platform": {"Name": "Wharf"}, "Components": [{"Name": "Engine", "Version": version, "Details": details}],
            "Version": version, "ApiVersion": API_VERSION, "MinAPIVersion": API_VERSION, "GitCommit": "",
            "GoVersion": "", "Os": os, "Arch": arch, "KernelVersion": kernel(), "Experimental": false, "BuildTime": "",
        },
    });
    show(parsed, Object { json: object, fields: go_types::VERSION }, ("version", "system.versionInfo"), |_| {
        format!(
            "Client: Wharf\n Version:           {version}\n API version:       {API_VERSION}\n OS/Arch:           {os}/{arch}\n\n\
             Engine: in this program, no daemon\n Version:          {version}\n OS/Arch:          {os}/{arch}\n \
             Kernel version:   {}\n",
            kernel()
        )
    })
}

/// What docker calls the version of its client.
fn client() -> Value {
    let (os, arch) = platform();
    json!({
        "Version": env!("CARGO_PKG_VERSION"), "ApiVersion": API_VERSION, "DefaultAPIVersion": API_VERSION,
        "GitCommit": "", "GoVersion": "", "Os": os, "Arch": arch, "BuildTime": "", "Context": "default",
    })
}

fn info(parsed: &Parsed, context: &Context) -> Result<()> {
    let engine = context.engine()?;
    let containers = engine.list(ListOptions { all: true })?;
    let count = |state: State| containers.iter().filter(|container| container.state.state == state).count();
    let (running, paused) = (count(State::Running), count(State::Paused));
    let (os, _) = platform();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let offered = jail::offered();
    let mut object = json!({
        "ID": id(&engine.paths().root),
        "Containers": containers.len(),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": containers.len() - running - paused,
        "Images": engine.images()?.records()?.len(),
        "LoggingDriver": "json-file",
        "KernelVersion": kernel(),
        "OperatingSystem": operating_system(),
        "OSType": os,
        "Architecture": std::env::consts::ARCH,
        "NCPU": cpus,
        "MemTotal": memory(),
        "DockerRootDir": engine.paths().root.display().to_string(),
        "Name": file("/proc/sys/kernel/hostname"),
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "Backends": ["linux", "wasm"],
        "Walls": container_json::walls(&offered),
        "Debug": context.debug,
    });
    // Beside the others: the macro that makes them takes only so many.
    let rest = json!({
        "Driver": "overlay",
        "DriverStatus": host::filesystem(&engine.paths().root).map(|name| [["Backing Filesystem".to_owned(), name]]),
        "Plugins": {
            "Volume": ["local"], "Network": ["bridge", "host", "null"], "Authorization": null,
            "Log": ["journald", "json-file", "local"],
        },
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": cgroup_version(),
        "SystemTime": Timestamp::now().to_string(),
        "OSVersion": os_release("VERSION_ID").unwrap_or_default(),
        "IndexServerAddress": "https://index.docker.io/v1/",
        "GenericResources": null,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Labels": [],
        "ExperimentalBuild": false,
        "Runtimes": {"linux": {"path": ""}, "wasm": {"path": ""}},
        "DefaultRuntime": "linux",
        "Swarm": {
            "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "",
            "RemoteManagers": null,
        },
        "LiveRestoreEnabled": true,
        "Isolation": "",
        "InitBinary": "",
        "SecurityOptions": security_options(),
        "Warnings": null,
        "RegistryConfig": host::registries()?,
    });
    if let (Value::Object(object), Value::Object(rest)) = (&mut object, rest) {
        object.extend(rest);
        object.extend(host::limits());
        let mut client = client();
        (client["Debug"], client["Plugins"], client["Warnings"]) = (context.debug.into(), json!([]), Value::Null);
        if let Value::Object(client) = &mut client {
            client.remove("ApiVersion");
        }
        object.insert("ClientInfo".to_owned(), client);
    }
    show(parsed, Object { json: object, fields: go_types::INFO }, ("", "system.dockerInfo"), |info| {
        let text = |field: &str| match &info[field] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let mut out = format!(
            "Client: Wharf\n Version:    {}\n Context:    default\n Debug Mode: {}\n\nServer:\n",
            text("ServerVersion"),
            text("Debug")
        );
        for (label, field) in [
            ("Containers", "Containers"),
            (" Running", "ContainersRunning"),
            (" Paused", "ContainersPaused"),
            (" Stopped", "ContainersStopped"),
            ("Images", "Images"),
            ("Server Version", "ServerVersion"),
            ("Storage Driver", "Driver"),
        ] {
            out += &format!(" {label}: {}\n", text(field));
        }
        for status in info["DriverStatus"].as_array().into_iter().flatten() {
            out +=
                &format!("  {}: {}\n", status[0].as_str().unwrap_or_default(), status[1].as_str().unwrap_or_default());
        }
        for (label, field) in [
            ("Logging Driver", "LoggingDriver"),
            ("Cgroup Driver", "CgroupDriver"),
            ("Cgroup Version", "CgroupVersion"),
        ] {
            out += &format!(" {label}: {}\n", text(field));
        }
        out += " Plugins:\n  Volume: local\n  Network: bridge host null\n  Log: journald json-file local\n Swarm: inactive\n";
        out += " Runtimes: linux wasm\n Default Runtime: linux\n Security Options:\n";
        for option in security_options() {
            out += &option
                .split(',')
                .zip(["  ", "   "])
                .map(|(part, indent)| format!("{indent}{}\n", label(part)))
                .collect::<String>();
        }
        for (label, field) in [
            ("Kernel Version", "KernelVersion"),
            ("Operating System", "OperatingSystem"),
            ("OSType", "OSType"),
            ("Architecture", "Architecture"),
            ("CPUs", "NCPU"),
        ] {
            out += &format!(" {label}: {}\n", text(field));
        }
        out + &format!(
            " Total Memory: {}\n Name: {}\n ID: {}\n Wharf Root Dir: {}\n Backends: linux wasm\n{} Debug Mode: {}\n \
             Experimental: {}\n{} Live Restore Enabled: {}\n",
            units::binary_size(memory()),
            text("Name"),
            text("ID"),
            text("DockerRootDir"),
            second_wall(&offered),
            text("Debug"),
            text("ExperimentalBuild"),
            host::registry_lines(&info["RegistryConfig"]),
            text("LiveRestoreEnabled")
        )
    })
}

/// What guests stand behind on this machine, besides wasmtime's sandbox.
fn second_wall(walls: &Walls) -> String {
    let landlock = walls.landlock.map(|version| {
        let more = [(walls.tcp, ", ports"), (walls.scoped, ", peers")].map(|(has, what)| if has { what } else { "" });
        format!("Landlock {version} (files{}{})", more[0], more[1])
    });
    let others = [(walls.seccomp, "seccomp"), (walls.no_new_privileges, "no_new_privs"), (walls.cgroup, "cgroup")];
    let others = others.iter().filter(|(has, _)| *has).map(|(_, name)| (*name).to_owned());
    let parts: Vec<String> = landlock.into_iter().chain(others).collect();
    let parts = if parts.is_empty() { "none".to_owned() } else { parts.join(" ") };
    let missing = walls.missing.iter().map(|what| format!("  WARNING: {what}\n"));
    std::iter::once(format!(" Second Wall: {parts}\n")).chain(missing).collect()
}

/// Prints the object as the flag `--format` says, else as `text` lays it out.
/// Docker's client calls its template and the object's type so.
fn show(
    parsed: &Parsed,
    object: Object,
    (template, kind): (&str, &'static str),
    text: impl Fn(&Value) -> String,
) -> Result<()> {
    let text = match parsed.value("format") {
        None | Some("") => text(&object.json),
        Some("json") => Format::parse("{{json .}}")?.render_object(&object)? + "\n",
        Some(format) => match Format::parse(format).map_err(Wrong::of_object)?.of(kind).render_struct(&object) {
            Ok(text) => text + "\n",
            Err(wrong) => {
                writeln!(std::io::stdout())?;
                let place = wrong.text.replacen("template: :", &format!("template: {template}:"), 1);
                return Err(Failure::new(place.replacen("executing \"\"", &format!("executing {template:?}"), 1)));
            }
        },
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// The host in Go's words: `linux`, `amd64`.
fn platform() -> (&'static str, &'static str) {
    let os = match std::env::consts::OS {
        "macos" => "darwin",
        os => os,
    };
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        arch => arch,
    };
    (os, arch)
}

fn kernel() -> String {
    file("/proc/sys/kernel/osrelease")
}

/// The first line of a file of the system; empty where it has none.
fn file(path: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

/// `PRETTY_NAME` of os-release(5).
fn operating_system() -> String {
    os_release("PRETTY_NAME").unwrap_or_else(|| std::env::consts::OS.to_owned())
}

/// A field of os-release(5).
fn os_release(field: &str) -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix('='))?;
    Some(value.trim_matches('"').to_owned())
}

/// An id of the instance, the same as long as it stays where it is: docker's is a UUID too.
fn id(root: &Path) -> String {
    let digest = wharf_images::Digest::of(format!("instance {}", root.display()).as_bytes());
    let hex = digest.hex();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..32]].join("-")
}

/// Which of the kernel's two ways to limit processes is in use.
fn cgroup_version() -> &'static str {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "2" } else { "1" }
}

/// What stands around a Linux container, as docker lists it.
fn security_options() -> Vec<&'static str> {
    let rootless = (!wharf_runtime::linux::is_root()).then_some("name=rootless");
    ["name=seccomp,profile=builtin", "name=cgroupns"].into_iter().chain(rootless).collect()
}

/// `name=seccomp` is shown as `seccomp`, `profile=builtin` as `Profile: builtin`.
fn label(part: &str) -> String {
    match part.split_once('=') {
        Some(("profile", profile)) => format!("Profile: {profile}"),
        Some((_, name)) => name.to_owned(),
        None => part.to_owned(),
    }
}

/// Bytes of memory, by proc_meminfo(5); 0 where it is not known.
pub fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().map_or(0, |kib| kib << 10)
}
