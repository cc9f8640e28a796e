//! `network`: the networks of an instance, with docker's words
//! (<https://docs.docker.com/reference/cli/docker/network/>).

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use wharf_runtime::config::EndpointConfig;
use wharf_runtime::engine::{Engine, ListOptions};
use wharf_runtime::error::Class;
use wharf_runtime::events::Kind;
use wharf_runtime::network::networks::{self, Network, NetworkSpec};
use wharf_runtime::network::store::Attachment;
use wharf_runtime::network::{BRIDGE, Endpoint};

use super::container_prune::Filters;
use super::context::Context;
use super::failure::{Failure, Result};
use super::filter::{has_label, matches};
use super::go::Object;
use super::go_types;
use super::lifecycle::for_each;
use super::listing::{Column, Listing, natural};
use super::parse::Parsed;
use super::ports::{held, is_there};
use super::verb::{
    FILTER, FORCE_PROMPT, FORMAT, FORMAT_OBJECT, Flag, Listed, NO_TRUNC, Operands, QUIET, Section, Verb,
};
use super::{container_prune, inspect, ps, text, units, values};

/// The commands of this file.
pub static VERBS: &[Verb] = &[
    Verb {
        names: &["network create"],
        about: "Create a network",
        usage: "[OPTIONS] NETWORK",
        listed: Listed::Other,
        operands: Operands::Exactly(1),
        trailing: false,
        sections: &[Section {
            title: "Options",
            flags: &[
                Flag::switch("attachable", "Enable manual container attachment"),
                Flag::list("aux-address", "Auxiliary IPv4 or IPv6 addresses used by Network driver").of("map"),
                Flag::value("config-from", "string", "The network from which to copy the configuration").not_yet(),
                Flag::switch("config-only", "Create a configuration only network").not_yet(),
                Flag::value("driver", "string", "Driver to manage the Network").short('d').or("bridge"),
                Flag::list("gateway", "IPv4 Gateway for the master subnet").of("strings"),
                Flag::switch("ingress", "Create swarm routing-mesh network").not_yet(),
                Flag::switch("internal", "Restrict external access to the network"),
                Flag::list("ip-range", "Allocate container ip from a sub-range").of("strings"),
                Flag::value("ipam-driver", "string", "IP Address Management Driver").or("default"),
                Flag::list("ipam-opt", "Set IPAM driver specific options").of("map").not_yet(),
                Flag::switch("ipv4", "Enable or disable IPv4 address assignment").or("true"),
                Flag::switch("ipv6", "Enable or disable IPv6 address assignment"),
                Flag::list("label", "Set metadata on a network"),
                Flag::list("opt", "Set driver specific options").short('o').of("map"),
                Flag::value("scope", "string", "Control the network's scope"),
                Flag::list("subnet", "Subnet in CIDR format that represents a network segment").of("strings"),
            ],
        }],
        run: create,
    },
    Verb {
        names: &["network ls", "network list"],
        about: "List networks",
        usage: "[OPTIONS]",
        listed: Listed::Other,
        operands: Operands::None,
        trailing: false,
        sections: &[Section { title: "Options", flags: &[FILTER, FORMAT, NO_TRUNC, QUIET] }],
        run: list,
    },
    Verb {
        names: &["network inspect"],
        about: "Display detailed information on one or more networks",
        usage: "[OPTIONS] NETWORK [NETWORK...]",
        listed: Listed::Other,
        operands: Operands::AtLeast(1),
        trailing: false,
        sections: &[Section {
            title: "Options",
            flags: &[FORMAT_OBJECT, Flag::switch("verbose", "Verbose output for diagnostics").short('v')],
        }],
        run: inspect_networks,
    },
    Verb {
        names: &["network connect"],
        about: "Connect a container to a network",
        usage: "[OPTIONS] NETWORK CONTAINER",
        listed: Listed::Other,
        operands: Operands::Exactly(2),
        trailing: false,
        sections: &[Section {
            title: "Options",
            flags: &[
                Flag::list("alias", "Add network-scoped alias for the container").of("strings"),
                Flag::list("driver-opt", "driver options for the network").of("strings").not_yet(),
                Flag::value("gw-priority", "int", "Highest gw-priority provides the default gateway"),
                Flag::value("ip", "string", "IPv4 address (e.g., \"172.30.100.104\")"),
                Flag::value("ip6", "string", "IPv6 address (e.g., \"2001:db8::33\")"),
                Flag::list("link", "Add link to another container"),
                Flag::list("link-local-ip", "Add a link-local address for the container").of("strings").not_yet(),
            ],
        }],
        run: connect,
    },
    Verb {
        names: &["network disconnect"],
        about: "Disconnect a container from a network",
        usage: "[OPTIONS] NETWORK CONTAINER",
        listed: Listed::Other,
        operands: Operands::Exactly(2),
        trailing: false,
        sections: &[Section {
            title: "Options",
            flags: &[Flag::switch("force", "Force the container to disconnect from a network").short('f')],
        }],
        run: disconnect,
    },
    Verb {
        names: &["network rm", "network remove"],
        about: "Remove one or more networks",
        usage: "NETWORK [NETWORK...]",
        listed: Listed::Other,
        operands: Operands::AtLeast(1),
        trailing: false,
        sections: &[Section {
            title: "Options",
            flags: &[Flag::switch("force", "Do not error if the network does not exist").short('f')],
        }],
        run: rm,
    },
    Verb {
        names: &["network prune"],
        about: "Remove all unused networks",
        usage: "[OPTIONS]",
        listed: Listed::Other,
        operands: Operands::None,
        trailing: false,
        sections: &[Section {
            title: "Options",
            flags: &[Flag::list("filter", "Provide filter values (e.g. \"label=<label>\")").of("filter"), FORCE_PROMPT],
        }],
        run: prune,
    },
];

/// `network inspect`, and `inspect --type network`.
///
/// # Errors
/// As [`inspect::show`].
pub fn inspect_networks(parsed: &Parsed, context: &Context) -> Result<()> {
    let engine = context.engine()?;
    inspect::show(parsed, |name| {
        values::not_empty("network", name)?;
        Ok(Some(Object { json: json(&engine, name)?, fields: go_types::NETWORK }))
    })
}

fn create(parsed: &Parsed, context: &Context) -> Result<()> {
    match parsed.value("driver").unwrap_or(BRIDGE) {
        BRIDGE | "" => {}
        driver @ ("host" | "none" | "null") => {
            return Err(refused(format!("only one instance of \"{driver}\" network is allowed")));
        }
        driver => {
            return Err(refused(format!("plugin {driver:?} not found")).hint("The one driver here is bridge."));
        }
    }
    match parsed.value("ipam-driver").unwrap_or("default") {
        "default" | "" => {}
        driver => {
            return Err(refused(format!("plugin {driver:?} not found")).hint("The one IPAM driver here is default."));
        }
    }
    match parsed.value("scope").unwrap_or("local") {
        "local" | "" => {}
        scope => {
            let message = format!("cannot create a {scope} scoped network");
            return Err(refused(message).hint("The one scope here is local."));
        }
    }
    if !parsed.switch("ipv4") {
        return Err(refused("networks without IPv4 addresses are not supported".to_owned()));
    }
    let name = &parsed.operands()[0];
    if matches!(name.as_str(), BRIDGE | "host" | "none" | "default") {
        return Err(refused(format!("operation is not permitted on predefined {name} network")));
    }
    if ["gateway", "ip-range"].iter().any(|flag| parsed.values(flag).count() > parsed.values("subnet").count()) {
        return Err(Failure::new("every ip-range or gateway must have a corresponding subnet"));
    }
    let nets = of_each_family(parsed, "subnet", |text| {
        block(text).ok_or_else(|| {
            refused(format!("invalid network config:\ninvalid subnet {text}: invalid CIDR block notation"))
                .hint("it must be a network as 10.1.0.0/16")
        })
    })?;
    let gateways = of_each_family(parsed, "gateway", |text| match text.parse() {
        Ok(address) => Ok((address, 0)),
        Err(_) => Err(refused(format!("invalid network config:\ninvalid gateway {text}: invalid address"))),
    })?;
    let ranges = of_each_family(parsed, "ip-range", |text| {
        block(text).ok_or_else(|| {
            refused(format!("invalid network config:\ninvalid ip-range {text}: invalid CIDR block notation"))
        })
    })?;
    within(&nets, &gateways, "gateway", |(address, _)| address.to_string())?;
    within(&nets, &ranges, "range", |(first, prefix)| format!("{first}/{prefix}"))?;
    let reserved: BTreeMap<_, _> = parsed.values("aux-address").map(reserved).collect::<Result<_>>()?;
    for address in reserved.values() {
        let one = match *address {
            IpAddr::V4(address) => (Some((address, 0)), None),
            IpAddr::V6(address) => (None, Some((address, 0))),
        };
        within(&nets, &one, "aux-address", |(address, _)| address.to_string())?;
    }
    let spec = NetworkSpec {
        name: parsed.operands()[0].clone(),
        subnet: nets.0,
        gateway: gateways.0.map(|(address, _)| address),
        range: ranges.0,
        // Who names such a subnet wants its addresses.
        ipv6: parsed.switch("ipv6") || nets.1.is_some() && !parsed.given("ipv6"),
        subnet6: nets.1,
        gateway6: gateways.1.map(|(address, _)| address),
        range6: ranges.1,
        reserved,
        internal: parsed.switch("internal"),
        attachable: parsed.switch("attachable"),
        options: values::map(parsed.read_all("opt", values::driver_option)?),
        labels: values::map(parsed.read_all("label", values::label)?),
    };
    let network = context.engine()?.networks().create(&spec)?;
    Ok(writeln!(io::stdout(), "{}", network.uid())?)
}

/// `--aux-address name=address`.
fn reserved(text: &str) -> Result<(String, IpAddr)> {
    let (name, address) = text.split_once('=').unwrap_or((text, ""));
    match address.parse() {
        Ok(address) => Ok((name.to_owned(), address)),
        Err(_) => Err(Failure::new(format!("no matching subnet for aux-address {address}"))
            .hint("it must be a name and an address, as printer=10.1.0.9")),
    }
}

/// What the engine would refuse, and docker's daemon does.
fn refused(message: String) -> Failure {
    wharf_runtime::Error::new(Class::InvalidInput, message).into()
}

/// Checks that what is given for a family lies in the subnet that is given for it.
fn within(nets: &Families, inner: &Families, what: &str, shown: impl Fn((IpAddr, u8)) -> String) -> Result<()> {
    let outside = |address: IpAddr, number| {
        Err(Failure::new(format!("no matching subnet for {what} {}", shown((address, number)))))
    };
    if let Some((address, number)) = inner.0
        && !nets.0.is_some_and(|(net, prefix)| {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            u32::from(net) & mask == u32::from(address) & mask
        })
    {
        return outside(address.into(), number);
    }
    if let Some((address, number)) = inner.1
        && !nets.1.is_some_and(|(net, prefix)| {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            u128::from(net) & mask == u128::from(address) & mask
        })
    {
        return outside(address.into(), number);
    }
    Ok(())
}

/// A network as `10.1.0.0/16`, whose prefix is no longer than an address.
fn block(text: &str) -> Option<(IpAddr, u8)> {
    let (first, prefix) = text.split_once('/')?;
    let (first, prefix): (IpAddr, u8) = (first.parse().ok()?, prefix.parse().ok()?);
    (prefix <= if first.is_ipv4() { 32 } else { 128 }).then_some((first, prefix))
}

/// An address with a number of the IPv4 family, and one of the IPv6 family.
type Families = (Option<(Ipv4Addr, u8)>, Option<(Ipv6Addr, u8)>);

/// The values of a flag that may be given once for each family.
fn of_each_family(parsed: &Parsed, flag: &str, read: impl Fn(&str) -> Result<(IpAddr, u8)>) -> Result<Families> {
    let mut found: Families = (None, None);
    for value in parsed.values(flag).flat_map(|value| value.split(',')) {
        let again = match read(value)? {
            (IpAddr::V4(address), number) => found.0.replace((address, number)).is_some(),
            (IpAddr::V6(address), number) => found.1.replace((address, number)).is_some(),
        };
        if again {
            let message = format!("several values of --{flag} are not supported: a network has one of each family");
            return Err(Failure::new(message));
        }
    }
    Ok(found)
}

fn connect(parsed: &Parsed, context: &Context) -> Result<()> {
    let [network, container] = two(parsed)?;
    not_plain(network)?;
    let place = EndpointConfig {
        aliases: parsed.values("alias").flat_map(|value| value.split(',')).map(str::to_owned).collect(),
        address: parsed.read("ip", values::ipv4)?,
        address6: parsed.read("ip6", values::ipv6)?,
        links: parsed.read_all("link", values::link)?,
        gateway_priority: parsed.read("gw-priority", values::integer)?.unwrap_or(0),
        ..EndpointConfig::on(network)
    };
    Ok(context.engine()?.connect(container, &place)?)
}

/// With `--force` docker forgets also what it has of a container that is gone; here there is nothing of one to forget.
fn disconnect(parsed: &Parsed, context: &Context) -> Result<()> {
    let [network, container] = two(parsed)?;
    Ok(context.engine()?.disconnect(container, network)?)
}

/// Refuses the networks that a container has from the start or never.
fn not_plain(network: &str) -> Result<()> {
    let message = match network {
        "host" => "container cannot be disconnected from host network or connected to host network",
        "none" => "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        _ => return Ok(()),
    };
    Err(refused(message.to_owned()))
}

fn two(parsed: &Parsed) -> Result<&[String; 2]> {
    let two: &[String; 2] =
        parsed.operands().first_chunk().ok_or_else(|| Failure::new("a network and a container must be named"))?;
    values::not_empty("network", &two[0])?;
    values::not_empty("container", &two[1])?;
    Ok(two)
}

/// A network as tables show it.
struct Row {
    network: Shown,
    created: Timestamp,
    no_trunc: bool,
}

/// What there is besides the recorded networks.
enum Shown {
    Recorded(Network),
    /// `host` and `none`, with the driver that docker names.
    Plain(&'static str, &'static str),
}

/// Those that are no records, with their drivers.
const PLAIN: [(&str, &str); 2] = [("host", "host"), ("none", "null")];

impl Shown {
    fn name(&self) -> &str {
        match self {
            Shown::Recorded(network) => &network.name,
            Shown::Plain(name, _) => name,
        }
    }

    fn driver(&self) -> &str {
        match self {
            Shown::Recorded(network) => &network.driver,
            Shown::Plain(_, driver) => driver,
        }
    }

    fn id(&self) -> String {
        match self {
            Shown::Recorded(network) => network.uid(),
            Shown::Plain(name, _) => wharf_images::Digest::of(format!("network {name}").as_bytes()).hex().to_owned(),
        }
    }

    fn recorded(&self) -> Option<&Network> {
        match self {
            Shown::Recorded(network) => Some(network),
            Shown::Plain(..) => None,
        }
    }

    /// One of those with which every instance begins.
    fn is_builtin(&self) -> bool {
        matches!(self.name(), BRIDGE | "host" | "none")
    }
}

static LISTING: Listing<Row> = Listing {
    columns: &[
        Column { field: "ID", header: "NETWORK ID", text: Row::id },
        Column { field: "Name", header: "NAME", text: |row| row.network.name().to_owned() },
        Column { field: "Driver", header: "DRIVER", text: |row| row.network.driver().to_owned() },
        Column { field: "Scope", header: "SCOPE", text: |_| "local".to_owned() },
        Column { field: "IPv4", header: "IPV4", text: |row| row.network.recorded().is_some().to_string() },
        Column { field: "IPv6", header: "IPV6", text: |row| row.is(|network| network.six.is_some()).to_string() },
        Column { field: "Internal", header: "INTERNAL", text: |row| row.is(|network| network.internal).to_string() },
        Column {
            field: "Labels",
            header: "LABELS",
            text: |row| row.network.recorded().map_or_else(String::new, |network| ps::comma(&network.labels)),
        },
        Column { field: "CreatedAt", header: "CREATED AT", text: |row| units::exact_date(row.created) },
    ],
    kind: "*network.networkContext",
    labels: |row| row.network.recorded().map(|network| &network.labels),
};

impl Row {
    fn id(&self) -> String {
        let id = self.network.id();
        if self.no_trunc { id } else { id[..12].to_owned() }
    }

    fn is(&self, what: fn(&Network) -> bool) -> bool {
        self.network.recorded().is_some_and(what)
    }
}

fn list(parsed: &Parsed, context: &Context) -> Result<()> {
    let filters = values::filters(parsed)?;
    for (name, _) in &filters {
        if !matches!(name.as_str(), "driver" | "id" | "label" | "name" | "scope" | "type" | "dangling") {
            return Err(Failure::new(format!("Error: invalid filter '{name}'")));
        }
    }
    let given = |name: &'static str| filters.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str());
    let dangling: Vec<_> = given("dangling").map(dangling).collect::<Result<_>>()?;
    let dangling = match dangling[..] {
        [] => None,
        [one] => Some(one),
        _ => return Err(Failure::new("Error: got more than one value for filter key \"dangling\"")),
    };
    if let Some(kind) = given("type").find(|kind| !matches!(*kind, "builtin" | "custom")) {
        return Err(Failure::new(format!("Error: invalid filter: 'type'='{kind}'")));
    }
    let engine = context.engine()?;
    let plain = PLAIN.map(|(name, driver)| Shown::Plain(name, driver));
    let recorded = engine.networks().list()?.into_iter().map(Shown::Recorded);
    let mut networks: Vec<Shown> = recorded.chain(plain).filter(|network| fits(network, &filters)).collect();
    if let Some(dangling) = dangling {
        let mut kept = Vec::new();
        for network in networks {
            let used = network.is_builtin() || engine.networks().is_used(network.name())?;
            if used != dangling {
                kept.push(network);
            }
        }
        networks = kept;
    }
    networks.sort_by(|a, b| natural(a.name(), b.name()));
    let no_trunc = parsed.switch("no-trunc");
    let row = |network: Shown| Row { created: created(&engine, network.recorded()), network, no_trunc };
    let rows: Vec<_> = networks.into_iter().map(row).collect();
    LISTING.print(parsed, &rows, &["ID", "Name", "Driver", "Scope"])
}

fn fits(network: &Shown, filters: &[(String, String)]) -> bool {
    let values = |name: &'static str| filters.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str());
    let any = |name, test: &dyn Fn(&str) -> bool| values(name).next().is_none() || values(name).any(test);
    any("driver", &|driver| network.driver() == driver)
        && any("id", &|pattern| matches(pattern, &network.id()))
        && any("name", &|pattern| matches(pattern, network.name()))
        && any("scope", &|scope| scope == "local")
        && any("type", &|kind| kind == if network.is_builtin() { "builtin" } else { "custom" })
        && values("label").all(|label| network.recorded().is_some_and(|network| has_label(&network.labels, label)))
}

/// Whether those that nobody uses are asked for, or the others.
fn dangling(value: &str) -> Result<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => {
            let allowed = "must be \"true\" (or \"1\"), or \"false\" (or \"0\")";
            Err(Failure::new(format!("Error: invalid value for filter 'dangling', {allowed}")))
        }
    }
}

/// The object of the network with this name, if there is one.
///
/// # Errors
/// The engine's.
pub fn object(context: &Context, name: &str) -> Result<Option<Object>> {
    match json(&context.engine()?, name) {
        Ok(json) => Ok(Some(Object { json, fields: go_types::NETWORK })),
        Err(e) if e.class() == Class::NotFound => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// When a network was made. Those with which every instance begins are as old as the instance.
fn created(engine: &Engine, network: Option<&Network>) -> Timestamp {
    let own = network.map(|network| network.created).filter(|created| *created > Timestamp::UNIX_EPOCH);
    let of_instance = || {
        let root = std::fs::metadata(&engine.paths().root).ok()?;
        Timestamp::try_from(root.created().or_else(|_| root.modified()).ok()?).ok()
    };
    own.or_else(of_instance).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The ids of all networks, by their names.
///
/// # Errors
/// The engine's.
pub fn ids(engine: &Engine) -> wharf_runtime::Result<BTreeMap<String, String>> {
    let plain = PLAIN.map(|(name, driver)| Shown::Plain(name, driver));
    let all = engine.networks().list()?.into_iter().map(Shown::Recorded).chain(plain);
    Ok(all.map(|network| (network.name().to_owned(), network.id())).collect())
}

/// What docker calls a container's place on a network: 64 hexadecimal digits.
pub fn endpoint_id(container: &str, endpoint: &Endpoint) -> String {
    networks::endpoint_id(container, endpoint.network_id)
}

/// The same on a network that gives no address.
pub fn pseudo_endpoint_id(container: &str, network: &str) -> String {
    wharf_images::Digest::of(format!("endpoint {container} {network}").as_bytes()).hex().to_owned()
}

fn json(engine: &Engine, name: &str) -> wharf_runtime::Result<Value> {
    let plain = PLAIN.map(|(name, driver)| Shown::Plain(name, driver));
    if let Some(shown) = plain.iter().find(|shown| shown.name() == name || shown.id() == name) {
        return plain_json(engine, shown);
    }
    let network = engine.networks().get(name)?;
    let mut containers = Map::new();
    for (id, attachments) in engine.attachments()? {
        let here = |attachment: &&Attachment| attachment.endpoint.network_id == network.id;
        if !attachments.iter().any(|attachment| here(&attachment)) {
            continue;
        }
        let container = engine.container(&id)?;
        for endpoint in held(&container, &attachments).iter().filter(here).map(|attachment| &attachment.endpoint) {
            let object = json!({
                "Name": container.name,
                "EndpointID": endpoint_id(&id, endpoint),
                "MacAddress": endpoint.mac,
                "IPv4Address": format!("{}/{}", endpoint.address, endpoint.prefix),
                "IPv6Address": endpoint.six.map_or_else(String::new, |six| format!("{}/{}", six.address, six.prefix)),
            });
            containers.insert(id.clone(), object);
        }
    }
    Ok(json!({
        "Name": network.name,
        "Id": network.uid(),
        "Created": created(engine, Some(&network)).to_string(),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": true,
        "EnableIPv6": network.six.is_some(),
        "IPAM": {
            "Driver": "default",
            "Options": {},
            "Config": pools(&network),
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": false,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": false,
        "Containers": containers,
        "Options": options(engine, &network),
        "Labels": network.labels,
    }))
}

/// What was asked for; of the network that every instance begins with docker says how it is.
fn options(engine: &Engine, network: &Network) -> BTreeMap<String, String> {
    let mut options = network.options.clone();
    if network.name == BRIDGE {
        let device = engine.network_device(network);
        let own = [
            ("bridge.default_bridge", Some("true")),
            ("bridge.enable_icc", Some("true")),
            ("bridge.enable_ip_masquerade", Some("true")),
            ("bridge.host_binding_ipv4", Some("0.0.0.0")),
            ("bridge.name", device.as_deref()),
            ("driver.mtu", Some("1500")),
        ];
        let named =
            |(name, value): (&str, Option<&str>)| Some((format!("com.docker.network.{name}"), value?.to_owned()));
        options.extend(own.into_iter().filter_map(named));
    }
    options
}

/// `host` or `none`, which is as old as the network that every instance begins with.
fn plain_json(engine: &Engine, shown: &Shown) -> wharf_runtime::Result<Value> {
    let mut containers = Map::new();
    for container in engine.list(ListOptions { all: false })?.into_iter().filter(is_there) {
        if ps::networks(&container).iter().any(|network| network == shown.name()) {
            let object = json!({
                "Name": container.name, "EndpointID": pseudo_endpoint_id(&container.id, shown.name()),
                "MacAddress": "", "IPv4Address": "", "IPv6Address": "",
            });
            containers.insert(container.id, object);
        }
    }
    Ok(json!({
        "Name": shown.name(), "Id": shown.id(), "Created": created(engine, None).to_string(),
        "Scope": "local", "Driver": shown.driver(), "EnableIPv4": true, "EnableIPv6": false,
        "IPAM": {"Driver": "default", "Options": null, "Config": null}, "Internal": false, "Attachable": false,
        "Ingress": false, "ConfigFrom": {"Network": ""}, "ConfigOnly": false, "Containers": containers,
        "Options": {}, "Labels": {},
    }))
}

/// A network's addresses, of each family.
fn pools(network: &Network) -> Vec<Value> {
    let mut four = json!({"Subnet": format!("{}/{}", network.address, network.prefix), "Gateway": network.gateway});
    if let Some((first, prefix)) = network.range {
        four["IPRange"] = format!("{first}/{prefix}").into();
    }
    let mut six =
        network.six.map(|six| json!({"Subnet": format!("{}/{}", six.address, six.prefix), "Gateway": six.gateway}));
    if let (Some(six), Some((first, prefix))) = (&mut six, network.range6) {
        six["IPRange"] = format!("{first}/{prefix}").into();
    }
    let mut pools: Vec<Value> = std::iter::once(four).chain(six).collect();
    for (name, address) in &network.reserved {
        // The first pool is of IPv4.
        if let Some(pool) = pools.get_mut(usize::from(address.is_ipv6())) {
            pool["AuxiliaryAddresses"][name] = address.to_string().into();
        }
    }
    pools
}

fn rm(parsed: &Parsed, context: &Context) -> Result<()> {
    let engine = context.engine()?;
    for_each(parsed.operands(), |name| {
        values::not_empty("network", name)?;
        if matches!(name, "host" | "none") {
            return Err(refused(format!("{name} is a pre-defined network and cannot be removed")));
        }
        match engine.networks().remove(name) {
            Err(e) if e.class() == Class::NotFound && parsed.switch("force") => Ok(()),
            other => {
                other?;
                Ok(writeln!(io::stdout(), "{name}")?)
            }
        }
    })
}

fn prune(parsed: &Parsed, context: &Context) -> Result<()> {
    let filters = Filters::new(values::filters(parsed)?, Timestamp::now())?;
    if !text::agreed(parsed, " all custom networks not used by at least one container.")? {
        return Ok(());
    }
    let removed = remove_unused(&context.engine()?, &filters)?;
    Ok(write!(io::stdout(), "{}", removed_text(&removed))?)
}

/// Removes the networks that no container uses and that fit, and tells so; also what a crash has left in the kernel. Gives
/// their names.
///
/// # Errors
/// The engine's.
pub fn remove_unused(engine: &Engine, filters: &Filters) -> Result<Vec<String>> {
    // A container that does not run refers to its network by its configuration.
    let mut named = Vec::new();
    for container in engine.list(ListOptions { all: true })? {
        named.extend(ps::networks(&container));
    }
    let mut removed = Vec::new();
    for network in engine.networks().list()? {
        let used = network.name == BRIDGE || named.contains(&network.name);
        if used || !filters.fit(network.created, &network.labels) {
            continue;
        }
        match engine.networks().remove(&network.name) {
            // A container has come meanwhile.
            Err(e) if e.class() == Class::Conflict => continue,
            other => other?,
        }
        removed.push(network.name);
    }
    engine.networks().sweep()?;
    container_prune::told(engine, Kind::Network, 0)?;
    Ok(removed)
}

/// The list of what a prune removed, and a line after it; nothing when there was nothing.
pub fn removed_text(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!("Deleted Networks:\n{}\n\n", names.join("\n")) }
}
