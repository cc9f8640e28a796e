//! The types of docker's client, field by field in Go's order
//! (<https://pkg.go.dev/github.com/docker/docker/api/types>).

use super::go::{Field, Kind};
use Kind::{Duration, Flag, List, Map, Number, Pointer, Struct, Text, Time, Ulimit};

const TEXTS: Kind = List(&Text);
const TEXT_MAP: Kind = Map(&Text);
/// What sets are made of in Go, in maps of it.
const SET: Kind = Map(&Struct(&[]));
const NUMBER_IF_SET: Kind = Pointer(&Number);
const FLAG_IF_SET: Kind = Pointer(&Flag);

const fn of(name: &'static str, kind: Kind) -> Field {
    named(name, name, kind)
}

const fn named(name: &'static str, json: &'static str, kind: Kind) -> Field {
    Field { name, json, kind, embedded: false }
}

const fn text(name: &'static str) -> Field {
    of(name, Text)
}

const fn texts(name: &'static str) -> Field {
    of(name, TEXTS)
}

const fn number(name: &'static str) -> Field {
    of(name, Number)
}

const fn flag(name: &'static str) -> Field {
    of(name, Flag)
}

const fn embedded(name: &'static str, fields: &'static [Field]) -> Field {
    Field { name, json: "", kind: Struct(fields), embedded: true }
}

pub static CONTAINER: &[Field] = &[
    embedded("ContainerJSONBase", CONTAINER_BASE),
    of("Mounts", List(&Struct(MOUNT_POINT))),
    of("Config", Pointer(&Struct(CONFIG))),
    of("NetworkSettings", Pointer(&Struct(NETWORK_SETTINGS))),
    of("ImageManifestDescriptor", Pointer(&Struct(DESCRIPTOR))),
];

const CONTAINER_BASE: &[Field] = &[
    named("ID", "Id", Text),
    text("Created"),
    text("Path"),
    texts("Args"),
    of("State", Pointer(&Struct(STATE))),
    text("Image"),
    text("ResolvConfPath"),
    text("HostnamePath"),
    text("HostsPath"),
    text("LogPath"),
    text("Name"),
    number("RestartCount"),
    text("Driver"),
    text("Platform"),
    text("MountLabel"),
    text("ProcessLabel"),
    text("AppArmorProfile"),
    texts("ExecIDs"),
    of("HostConfig", Pointer(&Struct(HOST_CONFIG))),
    of("GraphDriver", Struct(GRAPH_DRIVER)),
    of("SizeRw", NUMBER_IF_SET),
    of("SizeRootFs", NUMBER_IF_SET),
];

const STATE: &[Field] = &[
    text("Status"),
    flag("Running"),
    flag("Paused"),
    flag("Restarting"),
    flag("OOMKilled"),
    flag("Dead"),
    number("Pid"),
    number("ExitCode"),
    text("Error"),
    text("StartedAt"),
    text("FinishedAt"),
    of("Health", Pointer(&Struct(HEALTH))),
];

const HEALTH: &[Field] = &[text("Status"), number("FailingStreak"), of("Log", List(&Pointer(&Struct(HEALTH_RESULT))))];
const HEALTH_RESULT: &[Field] = &[of("Start", Time), of("End", Time), number("ExitCode"), text("Output")];
const GRAPH_DRIVER: &[Field] = &[of("Data", TEXT_MAP), text("Name")];

const MOUNT_POINT: &[Field] = &[
    text("Type"),
    text("Name"),
    text("Source"),
    text("Destination"),
    text("Driver"),
    text("Mode"),
    flag("RW"),
    text("Propagation"),
];

const CONFIG: &[Field] = &[
    text("Hostname"),
    text("Domainname"),
    text("User"),
    flag("AttachStdin"),
    flag("AttachStdout"),
    flag("AttachStderr"),
    of("ExposedPorts", SET),
    flag("Tty"),
    flag("OpenStdin"),
    flag("StdinOnce"),
    texts("Env"),
    texts("Cmd"),
    of("Healthcheck", Pointer(&Struct(HEALTH_CONFIG))),
    flag("ArgsEscaped"),
    text("Image"),
    of("Volumes", SET),
    text("WorkingDir"),
    texts("Entrypoint"),
    flag("NetworkDisabled"),
    text("MacAddress"),
    texts("OnBuild"),
    of("Labels", TEXT_MAP),
    text("StopSignal"),
    of("StopTimeout", NUMBER_IF_SET),
    texts("Shell"),
];

const HEALTH_CONFIG: &[Field] = &[
    texts("Test"),
    of("Interval", Duration),
    of("Timeout", Duration),
    of("StartPeriod", Duration),
    of("StartInterval", Duration),
    number("Retries"),
];

const PORTS: Kind = Map(&List(&Struct(&[named("HostIP", "HostIp", Text), text("HostPort")])));

const HOST_CONFIG: &[Field] = &[
    texts("Binds"),
    text("ContainerIDFile"),
    of("LogConfig", Struct(&[text("Type"), of("Config", TEXT_MAP)])),
    text("NetworkMode"),
    of("PortBindings", PORTS),
    of("RestartPolicy", Struct(&[text("Name"), number("MaximumRetryCount")])),
    flag("AutoRemove"),
    text("VolumeDriver"),
    texts("VolumesFrom"),
    of("ConsoleSize", List(&Number)),
    of("Annotations", TEXT_MAP),
    texts("CapAdd"),
    texts("CapDrop"),
    text("CgroupnsMode"),
    named("DNS", "Dns", TEXTS),
    named("DNSOptions", "DnsOptions", TEXTS),
    named("DNSSearch", "DnsSearch", TEXTS),
    texts("ExtraHosts"),
    texts("GroupAdd"),
    text("IpcMode"),
    text("Cgroup"),
    texts("Links"),
    number("OomScoreAdj"),
    text("PidMode"),
    flag("Privileged"),
    flag("PublishAllPorts"),
    flag("ReadonlyRootfs"),
    texts("SecurityOpt"),
    of("StorageOpt", TEXT_MAP),
    of("Tmpfs", TEXT_MAP),
    text("UTSMode"),
    text("UsernsMode"),
    number("ShmSize"),
    of("Sysctls", TEXT_MAP),
    text("Runtime"),
    text("Isolation"),
    embedded("Resources", RESOURCES),
    of("Mounts", List(&Struct(MOUNT))),
    texts("MaskedPaths"),
    texts("ReadonlyPaths"),
    of("Init", FLAG_IF_SET),
];

const WEIGHTS: Kind = List(&Pointer(&Struct(&[text("Path"), number("Weight")])));
const RATES: Kind = List(&Pointer(&Struct(&[text("Path"), number("Rate")])));

const RESOURCES: &[Field] = &[
    named("CPUShares", "CpuShares", Number),
    number("Memory"),
    named("NanoCPUs", "NanoCpus", Number),
    text("CgroupParent"),
    number("BlkioWeight"),
    of("BlkioWeightDevice", WEIGHTS),
    of("BlkioDeviceReadBps", RATES),
    of("BlkioDeviceWriteBps", RATES),
    of("BlkioDeviceReadIOps", RATES),
    of("BlkioDeviceWriteIOps", RATES),
    named("CPUPeriod", "CpuPeriod", Number),
    named("CPUQuota", "CpuQuota", Number),
    named("CPURealtimePeriod", "CpuRealtimePeriod", Number),
    named("CPURealtimeRuntime", "CpuRealtimeRuntime", Number),
    text("CpusetCpus"),
    text("CpusetMems"),
    of("Devices", List(&Struct(&[text("PathOnHost"), text("PathInContainer"), text("CgroupPermissions")]))),
    texts("DeviceCgroupRules"),
    of("DeviceRequests", List(&Struct(DEVICE_REQUEST))),
    number("KernelMemory"),
    number("KernelMemoryTCP"),
    number("MemoryReservation"),
    number("MemorySwap"),
    of("MemorySwappiness", NUMBER_IF_SET),
    of("OomKillDisable", FLAG_IF_SET),
    of("PidsLimit", NUMBER_IF_SET),
    of("Ulimits", List(&Pointer(&Ulimit))),
    named("CPUCount", "CpuCount", Number),
    named("CPUPercent", "CpuPercent", Number),
    number("IOMaximumIOps"),
    number("IOMaximumBandwidth"),
];

const DEVICE_REQUEST: &[Field] =
    &[text("Driver"), number("Count"), texts("DeviceIDs"), of("Capabilities", List(&TEXTS)), of("Options", TEXT_MAP)];

const MOUNT: &[Field] = &[
    text("Type"),
    text("Source"),
    text("Target"),
    flag("ReadOnly"),
    text("Consistency"),
    of("BindOptions", Pointer(&Struct(BIND_OPTIONS))),
    of("VolumeOptions", Pointer(&Struct(VOLUME_OPTIONS))),
    of("ImageOptions", Pointer(&Struct(&[text("Subpath")]))),
    of("TmpfsOptions", Pointer(&Struct(TMPFS_OPTIONS))),
    of("ClusterOptions", Pointer(&Struct(&[]))),
];

const BIND_OPTIONS: &[Field] = &[
    text("Propagation"),
    flag("NonRecursive"),
    flag("CreateMountpoint"),
    flag("ReadOnlyNonRecursive"),
    flag("ReadOnlyForceRecursive"),
];

const VOLUME_OPTIONS: &[Field] = &[
    flag("NoCopy"),
    of("Labels", TEXT_MAP),
    text("Subpath"),
    of("DriverConfig", Pointer(&Struct(&[text("Name"), of("Options", TEXT_MAP)]))),
];

const TMPFS_OPTIONS: &[Field] = &[number("SizeBytes"), number("Mode"), of("Options", List(&TEXTS))];

const NETWORK_SETTINGS: &[Field] = &[
    embedded("NetworkSettingsBase", NETWORK_SETTINGS_BASE),
    embedded("DefaultNetworkSettings", DEFAULT_NETWORK_SETTINGS),
    of("Networks", Map(&Pointer(&Struct(ENDPOINT)))),
];

const ADDRESSES: Kind = List(&Struct(&[text("Addr"), number("PrefixLen")]));

const NETWORK_SETTINGS_BASE: &[Field] = &[
    text("Bridge"),
    text("SandboxID"),
    text("SandboxKey"),
    of("Ports", PORTS),
    flag("HairpinMode"),
    text("LinkLocalIPv6Address"),
    number("LinkLocalIPv6PrefixLen"),
    of("SecondaryIPAddresses", ADDRESSES),
    of("SecondaryIPv6Addresses", ADDRESSES),
];

const DEFAULT_NETWORK_SETTINGS: &[Field] = &[
    text("EndpointID"),
    text("Gateway"),
    text("GlobalIPv6Address"),
    number("GlobalIPv6PrefixLen"),
    text("IPAddress"),
    number("IPPrefixLen"),
    text("IPv6Gateway"),
    text("MacAddress"),
];

const ENDPOINT: &[Field] = &[
    of("IPAMConfig", Pointer(&Struct(&[text("IPv4Address"), text("IPv6Address"), texts("LinkLocalIPs")]))),
    texts("Links"),
    texts("Aliases"),
    text("MacAddress"),
    of("DriverOpts", TEXT_MAP),
    number("GwPriority"),
    text("NetworkID"),
    text("EndpointID"),
    text("Gateway"),
    text("IPAddress"),
    number("IPPrefixLen"),
    text("IPv6Gateway"),
    text("GlobalIPv6Address"),
    number("GlobalIPv6PrefixLen"),
    texts("DNSNames"),
];

pub static EXEC: &[Field] = &[
    text("ID"),
    flag("Running"),
    of("ExitCode", NUMBER_IF_SET),
    of("ProcessConfig", Pointer(&Struct(EXEC_PROCESS))),
    flag("OpenStdin"),
    flag("OpenStderr"),
    flag("OpenStdout"),
    flag("CanRemove"),
    text("ContainerID"),
    text("DetachKeys"),
    number("Pid"),
];

const EXEC_PROCESS: &[Field] = &[
    named("Tty", "tty", Flag),
    named("Entrypoint", "entrypoint", Text),
    named("Arguments", "arguments", TEXTS),
    named("Privileged", "privileged", FLAG_IF_SET),
    named("User", "user", Text),
];

pub static IMAGE: &[Field] = &[
    named("ID", "Id", Text),
    texts("RepoTags"),
    texts("RepoDigests"),
    text("Parent"),
    text("Comment"),
    text("Created"),
    text("Container"),
    of("ContainerConfig", Pointer(&Struct(CONFIG))),
    text("DockerVersion"),
    text("Author"),
    of("Config", Pointer(&Struct(IMAGE_CONFIG))),
    text("Architecture"),
    text("Variant"),
    text("Os"),
    text("OsVersion"),
    number("Size"),
    number("VirtualSize"),
    of("GraphDriver", Struct(GRAPH_DRIVER)),
    of("RootFS", Struct(&[text("Type"), texts("Layers")])),
    of("Metadata", Struct(&[of("LastTagTime", Time)])),
    of("Descriptor", Pointer(&Struct(DESCRIPTOR))),
    of("Manifests", List(&Struct(&[]))),
];

const IMAGE_CONFIG: &[Field] = &[
    embedded("ImageConfig", OCI_CONFIG),
    embedded(
        "DockerOCIImageConfigExt",
        &[of("Healthcheck", Pointer(&Struct(HEALTH_CONFIG))), texts("OnBuild"), texts("Shell")],
    ),
];

const OCI_CONFIG: &[Field] = &[
    text("User"),
    of("ExposedPorts", SET),
    texts("Env"),
    texts("Entrypoint"),
    texts("Cmd"),
    of("Volumes", SET),
    text("WorkingDir"),
    of("Labels", TEXT_MAP),
    text("StopSignal"),
    flag("ArgsEscaped"),
];

const DESCRIPTOR: &[Field] = &[
    named("MediaType", "mediaType", Text),
    named("Digest", "digest", Text),
    named("Size", "size", Number),
    named("URLs", "urls", TEXTS),
    named("Annotations", "annotations", TEXT_MAP),
    named("Data", "data", List(&Number)),
    named("Platform", "platform", Pointer(&Struct(&[]))),
    named("ArtifactType", "artifactType", Text),
];

pub static NETWORK: &[Field] = &[
    text("Name"),
    named("ID", "Id", Text),
    of("Created", Time),
    text("Scope"),
    text("Driver"),
    flag("EnableIPv4"),
    flag("EnableIPv6"),
    of("IPAM", Struct(&[text("Driver"), of("Options", TEXT_MAP), of("Config", List(&Struct(POOL)))])),
    flag("Internal"),
    flag("Attachable"),
    flag("Ingress"),
    of("ConfigFrom", Struct(&[text("Network")])),
    flag("ConfigOnly"),
    of("Containers", Map(&Struct(NETWORK_MEMBER))),
    of("Options", TEXT_MAP),
    of("Labels", TEXT_MAP),
    of("Peers", List(&Struct(&[]))),
    of("Services", Map(&Struct(&[]))),
];

const POOL: &[Field] =
    &[text("Subnet"), text("IPRange"), text("Gateway"), named("AuxAddress", "AuxiliaryAddresses", TEXT_MAP)];
const NETWORK_MEMBER: &[Field] =
    &[text("Name"), text("EndpointID"), text("MacAddress"), text("IPv4Address"), text("IPv6Address")];

pub static VOLUME: &[Field] = &[
    of("ClusterVolume", Pointer(&Struct(&[]))),
    text("CreatedAt"),
    text("Driver"),
    of("Labels", TEXT_MAP),
    text("Mountpoint"),
    text("Name"),
    of("Options", TEXT_MAP),
    text("Scope"),
    of("Status", TEXT_MAP),
    of("UsageData", Pointer(&Struct(&[number("RefCount"), number("Size")]))),
];

pub static MESSAGE: &[Field] = &[
    named("Status", "status", Text),
    named("ID", "id", Text),
    named("From", "from", Text),
    text("Type"),
    text("Action"),
    of("Actor", Struct(&[text("ID"), of("Attributes", TEXT_MAP)])),
    named("Scope", "scope", Text),
    named("Time", "time", Number),
    named("TimeNano", "timeNano", Number),
];

pub static VERSION: &[Field] = &[of("Client", Struct(CLIENT_VERSION)), of("Server", Pointer(&Struct(SERVER_VERSION)))];

const CLIENT_VERSION: &[Field] = &[
    of("Platform", Pointer(&Struct(&[text("Name")]))),
    text("Version"),
    named("APIVersion", "ApiVersion", Text),
    text("DefaultAPIVersion"),
    text("GitCommit"),
    text("GoVersion"),
    text("Os"),
    text("Arch"),
    text("BuildTime"),
    text("Context"),
];

const SERVER_VERSION: &[Field] = &[
    of("Platform", Struct(&[text("Name")])),
    of("Components", List(&Struct(&[text("Name"), text("Version"), of("Details", TEXT_MAP)]))),
    text("Version"),
    named("APIVersion", "ApiVersion", Text),
    text("MinAPIVersion"),
    text("GitCommit"),
    text("GoVersion"),
    text("Os"),
    text("Arch"),
    text("KernelVersion"),
    flag("Experimental"),
    text("BuildTime"),
];

const COMMIT: Kind = Struct(&[text("ID"), text("Expected")]);
const RUNTIME: Kind = Struct(&[
    embedded(
        "Runtime",
        &[
            named("Path", "path", Text),
            named("Args", "runtimeArgs", TEXTS),
            named("Type", "runtimeType", Text),
            named("Options", "options", TEXT_MAP),
        ],
    ),
    named("Status", "status", TEXT_MAP),
]);

pub static INFO: &[Field] = &[
    text("ID"),
    number("Containers"),
    number("ContainersRunning"),
    number("ContainersPaused"),
    number("ContainersStopped"),
    number("Images"),
    text("Driver"),
    of("DriverStatus", List(&TEXTS)),
    of("SystemStatus", List(&TEXTS)),
    of("Plugins", Struct(&[texts("Volume"), texts("Network"), texts("Authorization"), texts("Log")])),
    flag("MemoryLimit"),
    flag("SwapLimit"),
    flag("KernelMemory"),
    flag("KernelMemoryTCP"),
    named("CPUCfsPeriod", "CpuCfsPeriod", Flag),
    named("CPUCfsQuota", "CpuCfsQuota", Flag),
    flag("CPUShares"),
    flag("CPUSet"),
    flag("PidsLimit"),
    flag("IPv4Forwarding"),
    flag("Debug"),
    number("NFd"),
    flag("OomKillDisable"),
    number("NGoroutines"),
    text("SystemTime"),
    text("LoggingDriver"),
    text("CgroupDriver"),
    text("CgroupVersion"),
    number("NEventsListener"),
    text("KernelVersion"),
    text("OperatingSystem"),
    text("OSVersion"),
    text("OSType"),
    text("Architecture"),
    text("IndexServerAddress"),
    of("RegistryConfig", Pointer(&Struct(REGISTRIES))),
    number("NCPU"),
    number("MemTotal"),
    of("GenericResources", List(&Struct(&[]))),
    text("DockerRootDir"),
    named("HTTPProxy", "HttpProxy", Text),
    named("HTTPSProxy", "HttpsProxy", Text),
    text("NoProxy"),
    text("Name"),
    texts("Labels"),
    flag("ExperimentalBuild"),
    text("ServerVersion"),
    of("Runtimes", Map(&RUNTIME)),
    text("DefaultRuntime"),
    of("Swarm", Struct(SWARM)),
    flag("LiveRestoreEnabled"),
    text("Isolation"),
    text("InitBinary"),
    of("ContainerdCommit", COMMIT),
    of("RuncCommit", COMMIT),
    of("InitCommit", COMMIT),
    texts("SecurityOptions"),
    text("ProductLicense"),
    of("DefaultAddressPools", List(&Struct(&[text("Base"), number("Size")]))),
    of("FirewallBackend", Pointer(&Struct(&[text("Driver"), of("Info", List(&TEXTS))]))),
    texts("CDISpecDirs"),
    of("Containerd", Pointer(&Struct(&[text("Address")]))),
    texts("Warnings"),
    texts("ServerErrors"),
    of("ClientInfo", Pointer(&Struct(CLIENT_INFO))),
];

const REGISTRIES: &[Field] =
    &[texts("InsecureRegistryCIDRs"), of("IndexConfigs", Map(&Pointer(&Struct(REGISTRY)))), texts("Mirrors")];
const REGISTRY: &[Field] = &[text("Name"), texts("Mirrors"), flag("Secure"), flag("Official")];

const SWARM: &[Field] = &[
    text("NodeID"),
    text("NodeAddr"),
    text("LocalNodeState"),
    flag("ControlAvailable"),
    text("Error"),
    of("RemoteManagers", List(&Struct(&[text("NodeID"), text("Addr")]))),
    number("Nodes"),
    number("Managers"),
    of("Cluster", Pointer(&Struct(&[]))),
    texts("Warnings"),
];

const CLIENT_INFO: &[Field] =
    &[flag("Debug"), embedded("clientVersion", CLIENT_VERSION), of("Plugins", List(&Struct(&[]))), texts("Warnings")];
