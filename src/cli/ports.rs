//! Published ports as docker shows them, and `port`.

use std::collections::BTreeMap;
use std::io::Write as _;

use serde_json::{Map, Value, json};
use wharf_runtime::config::EndpointConfig;
use wharf_runtime::container::Container;
use wharf_runtime::network::ports::{ExposedPort, parse_expose};
use wharf_runtime::network::store::Attachment;
use wharf_runtime::network::{PortBinding, Protocol};

use super::context::Context;
use super::failure::{Failure, Result};
use super::network::endpoint_id;
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
    let bound = bound(&attachments);
    let Some(wanted) = wanted else {
        let mut lines: Vec<String> = bound.iter().map(|b| format!("{} -> {}\n", exposed(b), host(b))).collect();
        lines.sort();
        return Ok(std::io::stdout().write_all(lines.concat().as_bytes())?);
    };
    let port = match parse_expose(wanted).unwrap_or_default()[..] {
        [port] => port,
        _ => return Err(Failure::new(format!("Error: invalid port ({wanted}): one port was expected"))),
    };
    let lines: Vec<String> = bound.iter().filter(|b| exposed(b) == port).map(|b| host(b) + "\n").collect();
    if lines.is_empty() {
        return Err(Failure::new(format!("Error: No public port '{wanted}' published for {name}")));
    }
    Ok(std::io::stdout().write_all(lines.concat().as_bytes())?)
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
    if !container.state.state.is_live() {
        return String::new();
    }
    let bound = bound(attachments);
    let only_exposed = wharf_runtime::plan::exposed(&container.config, &container.image).unwrap_or_default();
    let only_exposed = only_exposed.into_iter().filter(|port| !bound.iter().any(|b| exposed(b) == *port));
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
pub fn all_exposed(container: &Container) -> Value {
    let mut ports = wharf_runtime::plan::exposed(&container.config, &container.image).unwrap_or_default();
    ports.extend(container.config.ports.iter().map(exposed));
    ports.into_iter().map(|port| (port.to_string(), json!({}))).collect::<Map<_, _>>().into()
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
    asked.into()
}

/// `NetworkSettings`. `ids` are those of networks, by their names.
pub fn network_settings(container: &Container, attachments: &[Attachment], ids: &BTreeMap<String, String>) -> Value {
    let mut ports = by_port(bound(attachments), ip);
    if container.state.state.is_live() {
        let only_exposed = wharf_runtime::plan::exposed(&container.config, &container.image).unwrap_or_default();
        for port in only_exposed {
            ports.entry(port.to_string()).or_insert(Value::Null);
        }
    }
    let mut networks = Map::new();
    let places = container.config.places();
    for Attachment { endpoint, .. } in attachments {
        let own = [container.name.clone(), container.short_id().to_owned()];
        let names: Vec<&String> = own.iter().chain(&endpoint.aliases).collect();
        let wanted = places.iter().find(|place| place.network == endpoint.network);
        let links = wanted.map(|place| place.links.iter().map(|(name, alias)| format!("{name}:{alias}")).collect());
        let links: Vec<String> = links.unwrap_or_default();
        networks.insert(
            endpoint.network.clone(),
            json!({
                "Aliases": if endpoint.aliases.is_empty() { Value::Null } else { json!(endpoint.aliases) },
                "MacAddress": endpoint.mac,
                "NetworkID": ids.get(&endpoint.network),
                "EndpointID": endpoint_id(&container.id, endpoint),
                "Gateway": endpoint.gateway,
                "IPAddress": endpoint.address,
                "IPPrefixLen": endpoint.prefix,
                "GlobalIPv6Address": endpoint.six.map_or_else(String::new, |six| six.address.to_string()),
                "GlobalIPv6PrefixLen": endpoint.six.map_or(0, |six| six.prefix),
                "IPv6Gateway": endpoint.six.map_or_else(String::new, |six| six.gateway.to_string()),
                "IPAMConfig": wanted.map(ipam),
                "Links": links,
                "GwPriority": wanted.map_or(0, |place| place.gateway_priority),
                "DNSNames": names,
            }),
        );
    }
    // Those on which it is to be when it runs.
    for network in super::ps::networks(container) {
        // One that is gone has none.
        let id = ids.get(&network).map_or("", String::as_str);
        let empty = json!({
            "Aliases": null, "MacAddress": "", "NetworkID": id, "EndpointID": "", "Gateway": "", "IPAddress": "",
            "IPPrefixLen": 0, "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "IPv6Gateway": "", "IPAMConfig": null,
            "Links": null, "GwPriority": 0, "DNSNames": null,
        });
        networks.entry(network).or_insert(empty);
    }
    let first = attachments.first().map(|attachment| &attachment.endpoint);
    let text = |f: fn(&wharf_runtime::network::Endpoint) -> String| first.map_or_else(String::new, f);
    json!({
        "Ports": ports,
        "Gateway": text(|e| e.gateway.to_string()),
        "IPAddress": text(|e| e.address.to_string()),
        "IPPrefixLen": first.map_or(0, |e| e.prefix),
        "MacAddress": text(|e| e.mac.to_string()),
        "EndpointID": first.map_or_else(String::new, |e| endpoint_id(&container.id, e)),
        "GlobalIPv6Address": text(|e| e.six.map_or_else(String::new, |six| six.address.to_string())),
        "GlobalIPv6PrefixLen": first.and_then(|e| e.six).map_or(0, |six| six.prefix),
        "IPv6Gateway": text(|e| e.six.map_or_else(String::new, |six| six.gateway.to_string())),
        "Networks": networks,
    })
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
