//! `network`: the networks of an instance, with docker's words
//! (<https://docs.docker.com/reference/cli/docker/network/>).

use std::io::{self, Write as _};
use std::net::Ipv4Addr;

use serde_json::{Map, Value, json};
use wharf_runtime::engine::Engine;
use wharf_runtime::error::Class;
use wharf_runtime::network::BRIDGE;
use wharf_runtime::network::networks::{Network, NetworkSpec};

use super::context::Context;
use super::failure::{Failure, Result};
use super::lifecycle::for_each;
use super::listing::{Column, Listing};
use super::parse::Parsed;
use super::verb::{
    FILTER, FORCE_PROMPT, FORMAT, FORMAT_OBJECT, Flag, Listed, NO_TRUNC, Operands, QUIET, Section, Verb,
};
use super::{inspect, ps, text, units, values};

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
                Flag::list("aux-address", "Auxiliary IPv4 or IPv6 addresses used by Network driver")
                    .of("map")
                    .not_yet(),
                Flag::value("driver", "string", "Driver to manage the Network").short('d').or("bridge"),
                Flag::list("gateway", "IPv4 Gateway for the master subnet").of("strings"),
                Flag::switch("internal", "Restrict external access to the network"),
                Flag::list("ip-range", "Allocate container ip from a sub-range").of("strings").not_yet(),
                Flag::switch("ipv6", "Enable or disable IPv6 address assignment").not_yet(),
                Flag::list("label", "Set metadata on a network"),
                Flag::list("opt", "Set driver specific options").short('o').of("map"),
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
        run: |parsed, context| {
            let engine = context.engine()?;
            inspect::show(parsed, |name| Ok(Some(json(&engine, name)?)))
        },
    },
    Verb {
        names: &["network rm", "network remove"],
        about: "Remove one or more networks",
        usage: "[OPTIONS] NETWORK [NETWORK...]",
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

fn create(parsed: &Parsed, context: &Context) -> Result<()> {
    match parsed.value("driver").unwrap_or(BRIDGE) {
        BRIDGE | "" => {}
        driver @ ("host" | "none" | "null") => {
            return Err(Failure::new(format!("only one instance of \"{driver}\" network is allowed")));
        }
        driver => {
            return Err(Failure::new(format!("plugin {driver:?} not found")).hint("The one driver here is bridge."));
        }
    }
    let [subnets, gateways] = ["subnet", "gateway"].map(|flag| {
        let values = parsed.values(flag).flat_map(|value| value.split(',')).collect::<Vec<_>>();
        match values[..] {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            _ => Err(Failure::new(format!("several values of --{flag} are not supported: a network has one"))),
        }
    });
    let spec = NetworkSpec {
        name: parsed.operands()[0].clone(),
        subnet: subnets?.map(subnet).transpose()?,
        gateway: gateways?.map(address).transpose()?,
        internal: parsed.switch("internal"),
        options: values::map(parsed.read_all("opt", values::option)?),
        labels: values::map(parsed.read_all("label", values::label)?),
    };
    let network = context.engine()?.networks().create(&spec)?;
    Ok(writeln!(io::stdout(), "{}", network.uid())?)
}

fn subnet(text: &str) -> Result<(Ipv4Addr, u8)> {
    let parts = text.split_once('/').and_then(|(first, prefix)| Some((first.parse().ok()?, prefix.parse().ok()?)));
    parts.ok_or_else(|| Failure::new(format!("invalid subnet {text}: it must be an IPv4 network as 10.1.0.0/16")))
}

fn address(text: &str) -> Result<Ipv4Addr> {
    text.parse().map_err(|_| Failure::new(format!("invalid gateway {text}: it must be an IPv4 address")))
}

/// A network as tables show it.
struct Row {
    network: Shown,
    no_trunc: bool,
}

/// What there is besides the recorded networks.
enum Shown {
    Recorded(Network),
    /// `host` and `none`, with the driver that docker names.
    Plain(&'static str, &'static str),
}

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
}

static LISTING: Listing<Row> = Listing {
    columns: &[
        Column { field: "ID", header: "NETWORK ID", text: Row::id },
        Column { field: "Name", header: "NAME", text: |row| row.network.name().to_owned() },
        Column { field: "Driver", header: "DRIVER", text: |row| row.network.driver().to_owned() },
        Column { field: "Scope", header: "SCOPE", text: |_| "local".to_owned() },
        Column { field: "IPv4", header: "IPV4", text: |row| row.network.recorded().is_some().to_string() },
        Column { field: "IPv6", header: "IPV6", text: |_| false.to_string() },
        Column { field: "Internal", header: "INTERNAL", text: |row| row.is(|network| network.internal).to_string() },
        Column {
            field: "Labels",
            header: "LABELS",
            text: |row| row.network.recorded().map_or_else(String::new, |network| ps::comma(&network.labels)),
        },
        Column {
            field: "CreatedAt",
            header: "CREATED AT",
            text: |row| row.network.recorded().map_or_else(String::new, |network| units::date(network.created)),
        },
    ],
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
    let filters = parsed.read_all("filter", values::filter)?;
    for (name, _) in &filters {
        if !matches!(name.as_str(), "driver" | "id" | "label" | "name" | "scope" | "type" | "dangling") {
            return Err(Failure::new(format!("invalid filter '{name}'")));
        }
    }
    let engine = context.engine()?;
    let plain = [Shown::Plain("host", "host"), Shown::Plain("none", "null")];
    let recorded = engine.networks().list()?.into_iter().map(Shown::Recorded);
    let mut networks: Vec<Shown> = recorded.chain(plain).filter(|network| fits(network, &filters)).collect();
    networks.sort_by(|a, b| a.name().cmp(b.name()));
    let no_trunc = parsed.switch("no-trunc");
    let rows: Vec<_> = networks.into_iter().map(|network| Row { network, no_trunc }).collect();
    LISTING.print(parsed, &rows, &["ID", "Name", "Driver", "Scope"])
}

fn fits(network: &Shown, filters: &[(String, String)]) -> bool {
    let values = |name: &'static str| filters.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str());
    let any = |name, test: &dyn Fn(&str) -> bool| values(name).next().is_none() || values(name).any(test);
    let builtin = matches!(network.name(), BRIDGE | "host" | "none");
    any("driver", &|driver| network.driver() == driver)
        && any("id", &|id| network.id().starts_with(id))
        && any("name", &|part| network.name().contains(part))
        && any("scope", &|scope| scope == "local")
        && any("type", &|kind| kind == if builtin { "builtin" } else { "custom" })
        && any("dangling", &|_| !builtin)
        && values("label").all(|label| {
            network.recorded().is_some_and(|network| match label.split_once('=') {
                Some((name, value)) => network.labels.get(name).is_some_and(|v| v == value),
                None => network.labels.contains_key(label),
            })
        })
}

/// The object of the network with this name, if there is one.
///
/// # Errors
/// The engine's.
pub fn object(context: &Context, name: &str) -> Result<Option<Value>> {
    match json(&context.engine()?, name) {
        Ok(object) => Ok(Some(object)),
        Err(e) if e.class() == Class::NotFound => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn json(engine: &Engine, name: &str) -> wharf_runtime::Result<Value> {
    let plain = |shown: Shown| {
        json!({
            "Name": shown.name(), "Id": shown.id(), "Scope": "local", "Driver": shown.driver(), "EnableIPv6": false,
            "IPAM": {"Driver": "default", "Options": null, "Config": null}, "Internal": false, "Attachable": false,
            "Ingress": false, "Containers": {}, "Options": {}, "Labels": {},
        })
    };
    match name {
        "host" => return Ok(plain(Shown::Plain("host", "host"))),
        "none" => return Ok(plain(Shown::Plain("none", "null"))),
        _ => {}
    }
    let network = engine.networks().get(name)?;
    let mut containers = Map::new();
    for (id, attachments) in engine.attachments()? {
        for endpoint in attachments.iter().map(|a| &a.endpoint).filter(|e| e.network_id == network.id) {
            let container = engine.container(&id)?;
            let object = json!({
                "Name": container.name,
                "EndpointID": wharf_images::Digest::of(format!("endpoint {id} {}", network.id).as_bytes()).hex(),
                "MacAddress": endpoint.mac(),
                "IPv4Address": format!("{}/{}", endpoint.address, endpoint.prefix),
                "IPv6Address": "",
            });
            containers.insert(id.clone(), object);
        }
    }
    Ok(json!({
        "Name": network.name,
        "Id": network.uid(),
        "Created": network.created.to_string(),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": true,
        "EnableIPv6": false,
        "IPAM": {
            "Driver": "default",
            "Options": {},
            "Config": [{"Subnet": format!("{}/{}", network.address, network.prefix), "Gateway": network.gateway}],
        },
        "Internal": network.internal,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": false,
        "Containers": containers,
        "Options": network.options,
        "Labels": network.labels,
    }))
}

fn rm(parsed: &Parsed, context: &Context) -> Result<()> {
    let engine = context.engine()?;
    for_each(parsed.operands(), |name| {
        if matches!(name, "host" | "none") {
            return Err(Failure::new(format!("{name} is a pre-defined network and cannot be removed")));
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
    let filters = parsed.read_all("filter", values::filter)?;
    if let Some((name, _)) = filters.iter().find(|(name, _)| name != "label") {
        return Err(Failure::new(format!("invalid filter '{name}'")));
    }
    let warning = "WARNING! This will remove all custom networks not used by at least one container.\n\
                   Are you sure you want to continue?";
    if !parsed.switch("force") && !text::confirm(warning)? {
        return Ok(());
    }
    let engine = context.engine()?;
    // A container that does not run refers to its network by its configuration.
    let mut named = Vec::new();
    for container in engine.list(wharf_runtime::engine::ListOptions { all: true })? {
        named.push(ps::network(&container).to_owned());
    }
    let mut removed = Vec::new();
    for network in engine.networks().list()? {
        if network.name == BRIDGE || named.contains(&network.name) || !fits(&Shown::Recorded(network.clone()), &filters)
        {
            continue;
        }
        match engine.networks().remove(&network.name) {
            // A container has come meanwhile.
            Err(e) if e.class() == Class::Conflict => continue,
            other => other?,
        }
        removed.push(network.name);
    }
    if removed.is_empty() {
        return Ok(());
    }
    Ok(writeln!(io::stdout(), "Deleted Networks:\n{}\n", removed.join("\n"))?)
}
