//! Published ports as docker shows them, and `port`.

use std::collections::BTreeMap;
use std::io::Write as _;

use serde_json::{Map, Value, json};
use wharf_runtime::config::EndpointConfig;
use wharf_runtime::container::{BackendKind, Container};
use wharf_runtime::network::ports::{ExposedPort, parse_expose};
use wharf_runtime::network::store::Attachment;
use wharf_runtime::network::{BRIDGE, Endpoint, PortBinding, Protocol, Six};
use wharf_runtime::state::State;

use super::context::Context;
use super::failure::{Failure, Result};
use super::network::{endpoint_id, pseudo_endpoint_id};
use super::parse::Parsed;
use super::verb::{Listed, Operands, Verb};

/// The command of this file.
pub static VERBS: &[Verb] = &[Verb {
    names: &["port", "container port"],
    about: "List port mappings or a specific mapping for the container",
    usage: "CONTAINER [PRIVATE_PORT[/PROTO]]",
    listed: Listed::Other,
    operands: Operands::AtLeast(1),
    trailing: false,
    sections: &[],
    run: port,
}];

fn port(parsed: &Parsed, context: &Context) -> Result<()> {
    let engine = context.engine()?;
    let (name, wanted) = match parsed.operands() {
        [name] => (name, None),
        [name, wanted] => (name, Some(wanted)),
        _ => return Err(Failure::new("a container and one port of it at most can be named")),
    };
    let container = engine.container(name)?;
    let attachments = engine.attachments()?.remove(&container.id).unwrap_or_default();
    let bound = bound(held(&container, &attachments));
    let Some(wanted) = wanted else {
        let line = |b: &&PortBinding| (b.container_port, b.protocol, format!("{} -> {}\n", exposed(b), host(b)));
        let mut lines: Vec<_> = bound.iter().map(line).collect();
        lines.sort();
        let lines: String = lines.into_iter().map(|(_, _, line)| line).collect();
        return Ok(std::io::stdout().write_all(lines.as_bytes())?);
    };
    let number = wanted.split('/').next().unwrap_or_default();
    if let Err(e) = number.parse::<u16>() {
        let overflow = matches!(e.kind(), std::num::IntErrorKind::PosOverflow);
        let why = if overflow { "value out of range" } else { "invalid syntax" };
        let parsing = format!("strconv.ParseUint: parsing {number:?}: {why}");
        return Err(Failure::new(format!("Error: invalid port ({wanted}): {parsing}")));
    }
    let port = parse_expose(wanted).unwrap_or_default();
    let lines: Vec<String> = bound.iter().filter(|b| port.contains(&exposed(b))).map(|b| host(b) + "\n").collect();
    if lines.is_empty() {
        return Err(Failure::new(format!("Error: No public port '{wanted}' published for {name}")));
    }
    Ok(std::io::stdout().write_all(lines.concat().as_bytes())?)
}

/// True while somebody has its places on networks. What has ended keeps them for a moment, and until it starts again if it is
/// to; they are nobody's then.
pub fn is_there(container: &Container) -> bool {
    let state = container.state.state;
    state.is_live() && state != State::Restarting
}

/// Its places on networks.
pub fn held<'a>(container: &Container, attachments: &'a [Attachment]) -> &'a [Attachment] {
    if is_there(container) { attachments } else { &[] }
}

/// The ports that are exposed: there is something to expose them to where a network leads in.
fn exposed_by(container: &Container, attachments: &[Attachment]) -> Vec<ExposedPort> {
    match attachments.iter().any(|attachment| !attachment.endpoint.internal) {
        true => wharf_runtime::plan::exposed(&container.config, &container.image).unwrap_or_default(),
        false => Vec::new(),
    }
}

fn bound(attachments: &[Attachment]) -> Vec<&PortBinding> {
    attachments.iter().flat_map(|attachment| &attachment.ports).collect()
}

fn exposed(binding: &PortBinding) -> ExposedPort {
    ExposedPort { port: binding.container_port, protocol: binding.protocol }
}

/// `0.0.0.0:8080`
fn host(binding: &PortBinding) -> String {
    let text = binding.to_string();
    text.split("->").next().unwrap_or_default().to_owned()
}

/// The PORTS of `ps`: published ones, and those that are only exposed.
pub fn column(container: &Container, attachments: &[Attachment]) -> String {
    let attachments = held(container, attachments);
    let bound = bound(attachments);
    let only_exposed =
        exposed_by(container, attachments).into_iter().filter(|port| !bound.iter().any(|b| exposed(b) == *port));
    displayed(&only_exposed.collect::<Vec<_>>(), &bound)
}

/// As docker's client writes them (its `formatter.DisplayablePorts`): neighbours that keep their numbers as one range,
/// first those, then the ports whose number is another on the host.
fn displayed(only_exposed: &[ExposedPort], bound: &[&PortBinding]) -> String {
    type Port = (u16, String, u16, Protocol);
    let mut all: Vec<Port> = only_exposed.iter().map(|port| (port.port, String::new(), 0, port.protocol)).collect();
    all.extend(bound.iter().map(|b| (b.container_port, ip(b), b.host_port, b.protocol)));
    all.sort();
    let range = |ip: &str, protocol: Protocol, first: u16, last: u16| {
        let ports = if first == last { first.to_string() } else { format!("{first}-{last}") };
        let host = if ip.is_empty() { String::new() } else { format!("{}->", joined(ip, &ports)) };
        format!("{host}{ports}/{protocol}")
    };
    let (mut shown, mut elsewhere) = (Vec::new(), Vec::new());
    let mut open: Vec<(String, Protocol, u16, u16)> = Vec::new();
    for (port, ip, host_port, protocol) in all {
        if !ip.is_empty() && host_port != port {
            elsewhere.push(format!("{}->{port}/{protocol}", joined(&ip, &host_port.to_string())));
            continue;
        }
        match open.iter_mut().find(|group| group.0 == ip && group.1 == protocol) {
            None => open.push((ip, protocol, port, port)),
            Some(group) if group.3.checked_add(1) == Some(port) => group.3 = port,
            Some(group) => {
                shown.push(range(&group.0, group.1, group.2, group.3));
                (group.2, group.3) = (port, port);
            }
        }
    }
    shown.extend(open.iter().map(|(ip, protocol, first, last)| range(ip, *protocol, *first, *last)));
    shown.extend(elsewhere);
    shown.join(", ")
}

/// `0.0.0.0:80`, `[::]:80`
fn joined(ip: &str, ports: &str) -> String {
    if ip.contains(':') { format!("[{ip}]:{ports}") } else { format!("{ip}:{ports}") }
}

/// `{"80/tcp": [{"HostIp": ..., "HostPort": ...}]}`
fn by_port<'a>(
    bindings: impl IntoIterator<Item = &'a PortBinding>,
    ip: impl Fn(&PortBinding) -> String,
) -> Map<String, Value> {
    let mut all: Map<String, Value> = Map::new();
    for binding in bindings {
        let port = match (binding.host_port, binding.host_port_last) {
            (0, _) => String::new(),
            (first, Some(last)) => format!("{first}-{last}"),
            (port, None) => port.to_string(),
        };
        let entry = json!({"HostIp": ip(binding), "HostPort": port});
        match all.get_mut(&exposed(binding).to_string()) {
            Some(Value::Array(list)) => list.push(entry),
            _ => drop(all.insert(exposed(binding).to_string(), json!([entry]))),
        }
    }
    all
}

fn ip(binding: &PortBinding) -> String {
    binding.host_ip.map_or_else(String::new, |ip| ip.to_string())
}

/// `HostConfig.PortBindings`: as asked for.
pub fn asked(container: &Container) -> Value {
    by_port(&container.config.ports, ip).into()
}

/// `Config.ExposedPorts`: what is published is exposed too.
pub fn all_exposed(container: &Container) -> Map<String, Value> {
    let mut ports = wharf_runtime::plan::exposed(&container.config, &container.image).unwrap_or_default();
    ports.extend(container.config.ports.iter().map(exposed));
    ports.into_iter().map(|port| (port.to_string(), json!({}))).collect()
}

/// The addresses that were asked for.
fn ipam(place: &EndpointConfig) -> Value {
    let mut asked = Map::new();
    if let Some(address) = place.address {
        asked.insert("IPv4Address".to_owned(), address.to_string().into());
    }
    if let Some(address) = place.address6 {
        asked.insert("IPv6Address".to_owned(), address.to_string().into());
    }
    if asked.is_empty() { Value::Null } else { asked.into() }
}

/// A place on a network as it was asked for, without what it has while the container runs.
fn asked_place(place: &EndpointConfig) -> Value {
    let links: Vec<String> = place.links.iter().map(|(name, alias)| format!("{name}:{alias}")).collect();
    // Those on the default network are the container's.
    let links = Some(links).filter(|links| !links.is_empty() && place.network != BRIDGE);
    json!({
        "IPAMConfig": ipam(place), "Links": links, "Aliases": Some(&place.aliases).filter(|names| !names.is_empty()),
        "MacAddress": "", "DriverOpts": null, "GwPriority": place.gateway_priority, "NetworkID": "", "EndpointID": "",
        "Gateway": "", "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "", "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0, "DNSNames": null,
    })
}

/// The same with what `attached` has of `container`.
fn held_place(mut place: Value, container: &Container, attached: &Endpoint) -> Value {
    let mut names: Vec<&str> = vec![&container.name];
    names.extend(attached.aliases.iter().map(String::as_str));
    names.push(container.short_id());
    place["DNSNames"] = json!(names);
    place["Aliases"] = json!(Some(&attached.aliases).filter(|names| !names.is_empty()));
    place["EndpointID"] = endpoint_id(&container.id, attached).into();
    for (field, value) in addresses(attached) {
        place[field] = value;
    }
    place
}

/// A place's addresses.
fn addresses(at: &Endpoint) -> [(&'static str, Value); 7] {
    let six = |text: fn(Six) -> String| Value::from(at.six.map_or_else(String::new, text));
    [
        ("MacAddress", at.mac.to_string().into()),
        ("Gateway", at.gateway.to_string().into()),
        ("IPAddress", at.address.to_string().into()),
        ("IPPrefixLen", at.prefix.into()),
        ("IPv6Gateway", six(|six| six.gateway.to_string())),
        ("GlobalIPv6Address", six(|six| six.address.to_string())),
        ("GlobalIPv6PrefixLen", at.six.map_or(0, |six| six.prefix).into()),
    ]
}

/// `NetworkSettings`. `ids` are those of networks, by their names.
pub fn network_settings(container: &Container, attachments: &[Attachment], ids: &BTreeMap<String, String>) -> Value {
    let live = is_there(container);
    let attachments = held(container, attachments);
    let mut ports = by_port(bound(attachments), ip);
    for port in exposed_by(container, attachments) {
        ports.entry(port.to_string()).or_insert(Value::Null);
    }
    // Those on which it is, and those on which it is to be when it runs.
    let mut places = container.config.places().into_owned();
    let known = |name: &str, places: &[EndpointConfig]| places.iter().any(|place| place.network == name);
    for name in super::ps::networks(container).into_iter().chain(attachments.iter().map(|a| a.endpoint.network.clone()))
    {
        if !known(&name, &places) {
            places.push(EndpointConfig::on(name));
        }
    }
    let mut networks = Map::new();
    for place in &places {
        let mut object = asked_place(place);
        // It is docker's too from the first start on; a network that is gone has none.
        if container.state.started.is_some() {
            object["NetworkID"] = ids.get(&place.network).map_or("", String::as_str).into();
        }
        match attachments.iter().find(|attachment| attachment.endpoint.network == place.network) {
            Some(attachment) => object = held_place(object, container, &attachment.endpoint),
            // `host` and `none` have no addresses.
            None if live && matches!(place.network.as_str(), "host" | "none") => {
                object["EndpointID"] = pseudo_endpoint_id(&container.id, &place.network).into();
            }
            None => {}
        }
        networks.insert(place.network.clone(), object);
    }
    let mut settings = json!({
        "Bridge": "", "SandboxID": "", "SandboxKey": "", "Ports": ports, "HairpinMode": false,
        "LinkLocalIPv6Address": "", "LinkLocalIPv6PrefixLen": 0, "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null, "EndpointID": "", "Gateway": "", "IPAddress": "", "IPPrefixLen": 0,
        "MacAddress": "", "IPv6Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "Networks": networks,
    });
    // Docker has these of the default network alone.
    if let Some(Attachment { endpoint, .. }) = attachments.iter().find(|a| a.endpoint.network == BRIDGE) {
        settings["EndpointID"] = endpoint_id(&container.id, endpoint).into();
        for (field, value) in addresses(endpoint) {
            settings[field] = value;
        }
    }
    if let (BackendKind::Linux, true, Some(pid)) = (container.backend(), live, container.state.pid) {
        settings["SandboxID"] = container.id.as_str().into();
        settings["SandboxKey"] = format!("/proc/{pid}/ns/net").into();
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_runtime::network::ports::parse_publish;

    #[test]
    fn ports_stand_as_docker_has_them() {
        let bound = |texts: &[&str]| -> Vec<PortBinding> {
            let all = texts.iter().flat_map(|text| parse_publish(text).expect("ports"));
            all.map(|b| b.bound(b.host_ip.unwrap_or([0, 0, 0, 0].into()), b.host_port)).collect()
        };
        let shown = |exposed: &[&str], published: &[&str]| {
            let exposed: Vec<_> = exposed.iter().flat_map(|text| parse_expose(text).expect("ports")).collect();
            displayed(&exposed, &bound(published).iter().collect::<Vec<_>>())
        };
        assert_eq!(shown(&[], &[]), "");
        assert_eq!(
            shown(&["7000"], &["8080:80", "127.0.0.1:9000-9001:9000-9001/udp", "32768:81"]),
            "7000/tcp, 127.0.0.1:9000-9001->9000-9001/udp, 0.0.0.0:8080->80/tcp, 0.0.0.0:32768->81/tcp"
        );
        assert_eq!(
            shown(&["1-3", "5/udp", "6/udp", "9"], &["80:80", "[::1]:80:80"]),
            "1-3/tcp, 9/tcp, 5-6/udp, 0.0.0.0:80->80/tcp, [::1]:80->80/tcp"
        );
    }
}
