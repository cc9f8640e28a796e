//! The flags of `run` and `create`: docker 28's whole list. What Wharf cannot do yet is listed too, and refused by name.

use super::values;
use super::verb::{Flag, Section};

/// Flags that `run` and `create` share, by heading.
pub const SHARED: [Section; 5] = [
    Section { title: "Options", flags: GENERAL },
    Section { title: "Limits", flags: LIMITS },
    Section { title: "Filesystem", flags: FILESYSTEM },
    Section { title: "Network", flags: NETWORK },
    Section { title: "Security", flags: SECURITY },
];

/// What only `run` has.
pub const RUN: Section = Section {
    title: "Detaching",
    flags: &[
        Flag::switch("detach", "Run container in background and print container ID").short('d'),
        Flag::value("detach-keys", "string", "Override the key sequence for detaching a container"),
        Flag::switch("sig-proxy", "Proxy received signals to the process").or("true"),
    ],
};

const GENERAL: &[Flag] = &[
    Flag::list("annotation", "Add an annotation to the container").of("map"),
    Flag::list("attach", "Attach to STDIN, STDOUT or STDERR").checked(|text| values::stream(text).map(drop)).short('a'),
    Flag::value("cidfile", "string", "Write the container ID to the file"),
    Flag::switch("disable-content-trust", "Skip image verification").or("true").not_yet(),
    Flag::value("entrypoint", "string", "Overwrite the default ENTRYPOINT of the image"),
    Flag::list("env", "Set environment variables").checked(|text| values::env(text).map(drop)).short('e'),
    Flag::list("env-file", "Read in a file of environment variables"),
    Flag::value("health-cmd", "string", "Command to run to check health"),
    Flag::value("health-interval", "duration", "Time between running the check").or("0s"),
    Flag::value("health-http", "path", "HTTP path to ask for to check health (/PATH or :PORT/PATH)"),
    Flag::value("health-retries", "int", "Consecutive failures needed to report unhealthy").or("0"),
    Flag::value("health-start-interval", "duration", "Time between checks at the start").or("0s"),
    Flag::value("health-start-period", "duration", "Time for the container to initialize").or("0s"),
    Flag::value("health-tcp", "port", "TCP port to connect to to check health"),
    Flag::value("health-timeout", "duration", "Maximum time to allow one check to run").or("0s"),
    Flag::switch("init", "Run an init inside the container that forwards signals and reaps processes"),
    Flag::switch("interactive", "Keep STDIN open even if not attached").short('i'),
    Flag::value("isolation", "string", "Container isolation technology").or("default").not_yet(),
    Flag::list("label", "Set meta data on a container").checked(|text| values::label(text).map(drop)).short('l'),
    Flag::list("label-file", "Read in a line delimited file of labels"),
    Flag::value("log-driver", "string", "Logging driver for the container (json-file, local, journald or none)"),
    Flag::list("log-opt", "Log driver options"),
    Flag::value("name", "string", "Assign a name to the container"),
    Flag::switch("no-healthcheck", "Disable any container-specified HEALTHCHECK"),
    Flag::value("platform", "string", "Set platform if the image has several (os/arch[/variant], wasip1/wasm)"),
    Flag::value("pull", "string", "Pull image before running (\"always\", \"missing\", \"never\")").or("missing"),
    Flag::switch("quiet", "Suppress the pull output").short('q'),
    Flag::value("restart", "string", "Restart policy to apply when a container exits").or("no"),
    Flag::switch("rm", "Automatically remove the container when it exits"),
    Flag::value("runtime", "string", "Runtime to use for this container (linux or wasm, as its image needs)"),
    Flag::value("stop-signal", "string", "Signal to stop the container"),
    Flag::value("stop-timeout", "int", "Timeout (in seconds) to stop a container"),
    Flag::switch("tty", "Allocate a pseudo-TTY").short('t'),
    Flag::switch("use-api-socket", "Bind mount Docker API socket and required auth").not_yet(),
    Flag::value("user", "string", "Username or UID (format: <name|uid>[:<group|gid>])").short('u'),
    Flag::value("workdir", "string", "Working directory inside the container").short('w'),
];

const LIMITS: &[Flag] = &[
    Flag::value("blkio-weight", "uint16", "Block IO (relative weight), between 10 and 1000, or 0 to disable").or("0"),
    Flag::list("blkio-weight-device", "Block IO weight (relative device weight)").not_yet(),
    Flag::value("cgroup-parent", "string", "Optional parent cgroup for the container"),
    Flag::value("cpu-count", "int", "CPU count (Windows only)").or("0").not_yet(),
    Flag::value("cpu-percent", "int", "CPU percent (Windows only)").or("0").not_yet(),
    Flag::value("cpu-period", "int", "Limit CPU CFS (Completely Fair Scheduler) period"),
    Flag::value("cpu-quota", "int", "Limit CPU CFS (Completely Fair Scheduler) quota"),
    Flag::value("cpu-rt-period", "int", "Limit CPU real-time period in microseconds").or("0").not_yet(),
    Flag::value("cpu-rt-runtime", "int", "Limit CPU real-time runtime in microseconds").or("0").not_yet(),
    Flag::value("cpu-shares", "int", "CPU shares (relative weight)").short('c'),
    Flag::value("cpus", "decimal", "Number of CPUs"),
    Flag::value("cpuset-cpus", "string", "CPUs in which to allow execution (0-3, 0,1)"),
    Flag::value("cpuset-mems", "string", "MEMs in which to allow execution (0-3, 0,1)"),
    Flag::list("device-read-bps", "Limit read rate (bytes per second) from a device").not_yet(),
    Flag::list("device-read-iops", "Limit read rate (IO per second) from a device").not_yet(),
    Flag::list("device-write-bps", "Limit write rate (bytes per second) to a device").not_yet(),
    Flag::list("device-write-iops", "Limit write rate (IO per second) to a device").not_yet(),
    Flag::value("io-maxbandwidth", "bytes", "Maximum IO bandwidth limit (Windows only)").or("0").not_yet(),
    Flag::value("io-maxiops", "uint", "Maximum IOps limit (Windows only)").or("0").not_yet(),
    Flag::value("kernel-memory", "bytes", "Kernel memory limit").or("0").not_yet(),
    Flag::value("max-requests", "int", "Requests that an HTTP component answers at one time (others wait)").or("100"),
    Flag::value("memory", "bytes", "Memory limit").short('m'),
    Flag::value("memory-reservation", "bytes", "Memory soft limit"),
    Flag::value("memory-swap", "bytes", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap")
        .checked(|text| values::swap(text).map(drop)),
    Flag::value("memory-swappiness", "int", "Tune container memory swappiness (0 to 100)").or("-1").not_yet(),
    Flag::switch("oom-kill-disable", "Disable OOM Killer"),
    Flag::value("oom-score-adj", "int", "Tune host's OOM preferences (-1000 to 1000)"),
    Flag::value("pids-limit", "int", "Tune container pids limit (set -1 for unlimited)"),
    Flag::value("request-memory", "bytes", "Memory limit of each request to an HTTP component").or("256m"),
    Flag::value("request-timeout", "duration", "End a request to an HTTP component that stalls for so long").or("1m"),
    Flag::list("storage-opt", "Storage driver options for the container (size=BYTES, WebAssembly images only)"),
    Flag::list("ulimit", "Ulimit options").of("ulimit"),
];

const FILESYSTEM: &[Flag] = &[
    Flag::list("device", "Add a host device to the container"),
    Flag::list("mount", "Attach a filesystem mount to the container").of("mount"),
    Flag::switch("read-only", "Mount the container's root filesystem as read only"),
    Flag::value("shm-size", "bytes", "Size of /dev/shm"),
    Flag::list("tmpfs", "Mount a tmpfs directory"),
    Flag::list("volume", "Bind mount a volume, or a directory or file of the host").short('v'),
    Flag::value("volume-driver", "string", "Optional volume driver for the container"),
    Flag::list("volumes-from", "Mount volumes from the specified container(s)"),
];

const NETWORK: &[Flag] = &[
    Flag::list("add-host", "Add a custom host-to-IP mapping (host:ip)")
        .checked(|text| values::extra_host(text).map(drop)),
    Flag::list(
        "allow-net",
        "Let a wasm program reach only this outside of its network (HOST[:PORT], 10.0.0.0/8, *.name)",
    ),
    Flag::list("deny-net", "Keep a wasm program from reaching this (HOST[:PORT], 10.0.0.0/8, *.name)"),
    Flag::list("dns", "Set custom DNS servers").checked(|text| values::ip(text).map(drop)),
    Flag::list("dns-option", "Set DNS options").alias("dns-opt"),
    Flag::list("dns-search", "Set custom DNS search domains").checked(|text| values::domain(text).map(drop)),
    Flag::value("domainname", "string", "Container NIS domain name"),
    Flag::list("expose", "Expose a port or a range of ports"),
    Flag::value("hostname", "string", "Container host name").short('h'),
    Flag::value("ip", "string", "IPv4 address"),
    Flag::value("ip6", "string", "IPv6 address"),
    Flag::list("link", "Add link to another container").checked(|text| values::link(text).map(drop)),
    Flag::list("link-local-ip", "Container IPv4/IPv6 link-local addresses").not_yet(),
    Flag::value("mac-address", "string", "Container MAC address"),
    Flag::list("network", "Connect a container to a network (bridge, host, none)").of("network").alias("net"),
    Flag::list("network-alias", "Add network-scoped alias for the container").alias("net-alias"),
    Flag::list("publish", "Publish a container's port(s) to the host").short('p'),
    Flag::switch("publish-all", "Publish all exposed ports to random ports").short('P'),
];

const SECURITY: &[Flag] = &[
    Flag::list("cap-add", "Add Linux capabilities"),
    Flag::list("cap-drop", "Drop Linux capabilities"),
    Flag::value("cgroupns", "string", "Cgroup namespace to use (host|private)").or("private"),
    Flag::list("device-cgroup-rule", "Add a rule to the cgroup allowed devices list"),
    Flag::value("gpus", "gpu-request", "GPU devices to add to the container").not_yet(),
    Flag::list("group-add", "Add additional groups to join"),
    Flag::value("ipc", "string", "IPC mode to use (private|shareable|none|host|container:NAME)").or("private"),
    Flag::value("pid", "string", "PID namespace to use (host|container:NAME)"),
    Flag::switch("privileged", "Give extended privileges to this container"),
    Flag::list("security-opt", "Security Options"),
    Flag::list("sysctl", "Sysctl options").of("map"),
    Flag::value("userns", "string", "User namespace to use (host)"),
    Flag::value("uts", "string", "UTS namespace to use (host)"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// README's table: each flag with what is said of it for Linux and for WebAssembly.
    fn table() -> BTreeMap<&'static str, (&'static str, &'static str)> {
        let readme = include_str!("../../README.md");
        let (_, rest) = readme.split_once("| flags | Linux | WebAssembly |").expect("the table");
        let rows = rest.lines().skip(2).take_while(|line| line.starts_with('|'));
        let mut table = BTreeMap::new();
        for row in rows {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let [flags, linux, wasm] = cells[..] else { panic!("{row}") };
            for flag in flags.split('`').filter_map(|word| word.strip_prefix("--")) {
                assert_eq!(table.insert(flag, (linux, wasm)), None, "--{flag} stands there twice");
            }
        }
        table
    }

    #[test]
    fn readme_says_of_every_flag_what_it_does() {
        let table = table();
        let flags: BTreeMap<&str, bool> = SHARED
            .iter()
            .chain([&RUN])
            .flat_map(|section| section.flags)
            .map(|flag| (flag.long, flag.supported))
            .collect();
        assert_eq!(table.keys().collect::<Vec<_>>(), flags.keys().collect::<Vec<_>>());
        for (flag, said) in table {
            assert_eq!(said != ("refused", "refused"), flags[flag], "--{flag}: {said:?}");
        }
    }
}
