//! `--filter` of `ps`, with docker's meaning: values of one name are alternatives, different names must all fit
//! (<https://docs.docker.com/reference/cli/docker/container/ls/#filter>).

use std::collections::{BTreeMap, HashMap};

use regex::Regex;
use wharf_runtime::container::Container;
use wharf_runtime::engine::Engine;
use wharf_runtime::network::PortBinding;
use wharf_runtime::network::ports::{ExposedPort, parse_expose};
use wharf_runtime::plan;
use wharf_runtime::state::State;

use super::failure::{Failure, Result};
use super::parse::{Parsed, parse_bool};
use super::ports::held;
use super::values;

/// The filters of one command line, their names checked.
pub struct Filters(Vec<(String, String)>);

const NAMES: [&str; 14] = [
    "ancestor", "before", "exited", "expose", "health", "id", "is-task", "label", "name", "network", "publish",
    "since", "status", "volume",
];

impl Filters {
    /// Reads `--filter`s.
    ///
    /// # Errors
    /// Docker's words.
    pub fn new(parsed: &Parsed) -> Result<Self> {
        let filters = values::filters(parsed)?;
        for (name, value) in &filters {
            match name.as_str() {
                "exited" => {
                    let message = |_| format!("Error: strconv.Atoi: parsing {value:?}: invalid syntax");
                    let _: i32 = value.parse().map_err(message).map_err(Failure::new)?;
                }
                "status" => drop(value.parse::<State>().map_err(|_| invalid(name, value))?),
                "health" if !["none", "starting", "healthy", "unhealthy"].contains(&value.as_str()) => {
                    return Err(Failure::new(format!("Error: unrecognized filter value for health: {value}")));
                }
                "is-task" => drop(parse_bool(value).ok_or_else(|| invalid(name, &format!("[{value}]")))?),
                "expose" | "publish" => drop(parse_expose(value).map_err(Failure::new)?),
                name if NAMES.contains(&name) => {}
                _ => return Err(Failure::new(format!("Error: invalid filter '{name}'"))),
            }
        }
        Ok(Filters(filters))
    }

    /// Whether a filter asks for containers that do not run.
    pub fn want_all(&self) -> bool {
        self.0.iter().any(|(name, _)| matches!(name.as_str(), "status" | "exited"))
    }

    /// Keeps what fits. `before` and `since` name containers, which the engine finds.
    ///
    /// # Errors
    /// The engine's.
    pub fn apply(&self, engine: &Engine, containers: &mut Vec<Container>) -> Result<()> {
        for (name, value) in &self.0 {
            match name.as_str() {
                "before" => {
                    let limit = engine.container(value)?.created;
                    containers.retain(|container| container.created < limit);
                }
                "since" => {
                    let limit = engine.container(value)?.created;
                    containers.retain(|container| container.created > limit);
                }
                _ => {}
            }
        }
        // An image may be named in any way; its id settles what a text cannot.
        let ancestors: Vec<_> = self.values("ancestor").collect();
        let ids: Vec<_> = match ancestors.is_empty() {
            true => Vec::new(),
            false => {
                let images = engine.images()?;
                ancestors.iter().filter_map(|name| images.resolve(name, None).ok()).map(|image| image.id).collect()
            }
        };
        let published: Vec<ExposedPort> = ports(self.values("publish"));
        let exposed: Vec<ExposedPort> = ports(self.values("expose"));
        let attachments = if published.is_empty() { HashMap::new() } else { engine.attachments()? };
        let by_network = self.values("network").next().is_some();
        let network_ids = if by_network { super::network::ids(engine)? } else { BTreeMap::new() };
        containers.retain(|container| {
            let is_published = |port: &PortBinding| {
                published.iter().any(|wanted| (wanted.port, wanted.protocol) == (port.host_port, port.protocol))
            };
            // As in docker, one of both will do.
            let asked = !published.is_empty() || !exposed.is_empty();
            let of_ports = || {
                let places = attachments.get(&container.id).map_or(&[][..], |places| held(container, places));
                places.iter().flat_map(|place| &place.ports).any(is_published)
                    || plan::exposed(&container.config, &container.image)
                        .is_ok_and(|ports| ports.iter().any(|port| exposed.contains(port)))
            };
            if asked && !of_ports() {
                return false;
            }
            let ancestor = ancestors.is_empty()
                || ids.contains(container.image_id())
                || ancestors.contains(&container.config.image.as_str());
            ancestor && self.fits(container, &network_ids)
        });
        Ok(())
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// `network_ids` are those of networks, by their names.
    fn fits(&self, container: &Container, network_ids: &BTreeMap<String, String>) -> bool {
        let any = |name: &str, test: &dyn Fn(&str) -> bool| {
            let mut values = self.values(name).peekable();
            values.peek().is_none() || values.any(test)
        };
        let status = |value: &str| value == status(container);
        let exited = |value: &str| {
            matches!(container.state.state, State::Exited | State::Dead)
                && value == container.state.exit_code.to_string()
        };
        let networks = super::ps::networks(container);
        let has_id = |network: &String, value: &str| network_ids.get(network).is_some_and(|id| id.starts_with(value));
        let network = |value: &str| networks.iter().any(|network| network == value || has_id(network, value));
        let mounted =
            |value: &str| container.config.mounts.iter().any(|mount| mount.target == value || source(mount) == value);
        any("id", &|value| container.id.starts_with(value))
            && any("name", &|value| matches_container(value, &container.name))
            && any("status", &status)
            && any("exited", &exited)
            && any("network", &network)
            && any("volume", &mounted)
            // No container is a task of a swarm.
            && any("is-task", &|value| parse_bool(value) == Some(false))
            && any("health", &|value| value == container.state.health.as_ref().map_or("none", |health| health.status.name()))
            && self.values("label").all(|label| has_label(&container.labels(), label))
    }
}

/// Whether a label is there: `name`, or `name=value`.
pub fn has_label(labels: &BTreeMap<String, String>, label: &str) -> bool {
    match label.split_once('=') {
        Some((name, value)) => labels.get(name).is_some_and(|v| v == value),
        None => labels.contains_key(label),
    }
}

/// The state in docker's word: it knows no `starting`, and what has never run has not exited.
pub fn status(container: &Container) -> &'static str {
    match container.state.state {
        State::Starting => State::Created.name(),
        State::Exited if container.state.started.is_none() => State::Created.name(),
        state => state.name(),
    }
}

fn source(mount: &wharf_runtime::config::Mount) -> &str {
    match &mount.kind {
        wharf_runtime::config::MountKind::Bind(bind) => &bind.source,
        wharf_runtime::config::MountKind::Volume(volume) => &volume.name,
        wharf_runtime::config::MountKind::Tmpfs(_) => "",
    }
}

/// Whether a filter's value fits a name: in docker it is a regular expression, and fits somewhere in it. What is none fits
/// nothing but itself.
pub fn matches(pattern: &str, name: &str) -> bool {
    pattern == name || Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(name))
}

/// The same of a container's name, which in docker begins with a slash and may be asked for with it.
fn matches_container(pattern: &str, name: &str) -> bool {
    matches(pattern, name) || matches(pattern, &format!("/{name}"))
}

/// The ports of filters that were read before.
fn ports<'a>(values: impl Iterator<Item = &'a str>) -> Vec<ExposedPort> {
    values.filter_map(|value| parse_expose(value).ok()).flatten().collect()
}

fn invalid(name: &str, value: &str) -> Failure {
    Failure::new(format!("Error: invalid filter '{name}={value}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_regular_expressions() {
        assert!(matches("we", "web1") && matches("^web[0-9]$", "web1") && matches("", "web1"));
        assert!(matches("(a|b)1$", "web1") && matches("w.b", "web1"));
        assert!(!matches("^eb", "web1") && !matches("web$", "web1") && !matches("/web", "web1"));
        // One that is wrong.
        assert!(!matches("[", "web1") && matches("web[", "web["));
    }

    #[test]
    fn names_of_containers_match_with_and_without_their_slash() {
        assert!(matches_container("^/web1$", "web1") && matches_container("^web1$", "web1"));
        assert!(matches_container("/web", "web1") && matches_container("^/?web", "web1"));
        assert!(!matches_container("b/", "web1"));
    }
}
