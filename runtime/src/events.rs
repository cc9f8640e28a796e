//! Reading events: what happened, and what happens now, with docker's filters
//! (<https://docs.docker.com/reference/cli/docker/system/events/#filter>).
//!
//! How they are kept is told in [`wharf_images::events`]. A follower waits for the database's log to change and asks
//! for what has come after the last event it has seen; it holds nothing while it waits.

use std::time::Duration;

use jiff::Timestamp;
pub use wharf_images::events::{Event, Kind, NewEvent};
use wharf_images::events::{after, newest};

use crate::engine::Engine;
use crate::error::{Class, Error, Result};
use crate::linux::Watch;

/// A follower looks at least so often, should the system not tell it of a change.
const LONGEST: Duration = Duration::from_millis(500);

/// So many are read at once.
const BATCH: u32 = 256;

/// Which events are wanted.
#[derive(Debug, Clone, Default)]
pub struct EventOptions {
    /// Also those of the past, from this moment on. With neither `since` nor `until` only what happens from now on.
    pub since: Option<Timestamp>,
    /// Only those until this moment; then it is over.
    pub until: Option<Timestamp>,
    /// Only these.
    pub filter: EventFilter,
}

/// Docker's `--filter`s: values of one name are alternatives, different names must all fit; labels must all fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter(Vec<(String, String)>);

const NAMES: [&str; 13] = [
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "type",
    "volume",
];

impl EventFilter {
    /// Filters by name and value.
    ///
    /// # Errors
    /// `InvalidInput` in docker's words for a name that is no filter.
    pub fn new(filters: Vec<(String, String)>) -> Result<Self> {
        if let Some((name, _)) = filters.iter().find(|(name, _)| !NAMES.contains(&name.as_str())) {
            return Err(Error::new(Class::InvalidInput, format!("invalid filter '{name}'")));
        }
        Ok(EventFilter(filters))
    }

    fn any(&self, name: &str, fits: impl Fn(&str) -> bool) -> bool {
        let mut values = self.0.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).peekable();
        values.peek().is_none() || values.any(fits)
    }

    /// True when the event is wanted.
    pub fn fits(&self, event: &NewEvent) -> bool {
        let attribute = |name: &str| event.attributes.get(name).map_or("", String::as_str);
        let thing = |kind: Kind| {
            self.any(kind.name(), |value| {
                // An event of a network or volume is also about the container that it names.
                let own =
                    event.kind == kind && (event.actor.starts_with(value) || attribute("name").starts_with(value));
                own || (!value.is_empty() && attribute(kind.name()).starts_with(value))
            })
        };
        let action = |value: &str| {
            let variants = ["exec_create", "exec_start", "health_status"].contains(&value);
            event.action == value || (variants && event.action.starts_with(value))
        };
        let image = |value: &str| {
            let name = if event.kind == Kind::Image { attribute("name") } else { attribute("image") };
            let bare =
                |text: &str| text.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map(|(n, _)| n.to_owned());
            [Some(name.to_owned()), bare(name), Some(event.actor.clone()), bare(&event.actor)]
                .into_iter()
                .flatten()
                .any(|known| known == value)
        };
        let label = |text: &str| match text.split_once('=') {
            Some((name, value)) => event.attributes.get(name).is_some_and(|v| v == value),
            None => event.attributes.contains_key(text),
        };
        self.any("event", action)
            && self.any("type", |value| event.kind.name() == value)
            && self.any("scope", |value| value == "local")
            && self.any("image", image)
            && [Kind::Container, Kind::Volume, Kind::Network, Kind::Daemon].into_iter().all(thing)
            // Nothing of a swarm ever happens here.
            && ["config", "node", "plugin", "secret"].iter().all(|name| self.any(name, |_| false))
            && self.0.iter().filter(|(name, _)| name == "label").all(|(_, text)| label(text))
    }
}

impl Engine {
    /// Gives `f` the events that are wanted, in their order, until `until` comes or `f` returns false.
    ///
    /// # Errors
    /// The database's.
    pub fn events(&self, options: &EventOptions, f: &mut dyn FnMut(&NewEvent) -> bool) -> Result<()> {
        let db = &self.images()?.db;
        let mut seen = match (options.since, options.until) {
            (None, None) => db.read(newest)?,
            _ => 0,
        };
        // Made before the first look: what comes after it wakes us.
        let watch = Watch::new(&db.path().with_file_name("wharf.db-wal"));
        loop {
            // Asked before the look: what happened until then is read in it.
            let now = Timestamp::now();
            loop {
                let events = db.read(|c| after(c, seen, BATCH))?;
                for Event { seq, what } in &events {
                    seen = *seq;
                    let timely = options.since.is_none_or(|since| what.time >= since)
                        && options.until.is_none_or(|until| what.time <= until);
                    if timely && options.filter.fits(what) && !f(what) {
                        return Ok(());
                    }
                }
                if events.len() < BATCH as usize {
                    break;
                }
            }
            let left = options.until.map(|until| Duration::try_from(until.duration_since(now)).unwrap_or_default());
            match left {
                Some(Duration::ZERO) => return Ok(()),
                left => watch.wait(left.unwrap_or(LONGEST).min(LONGEST)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(filters: &[(&str, &str)], event: &NewEvent) -> bool {
        let filters = filters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        EventFilter::new(filters.collect()).unwrap().fits(event)
    }

    #[test]
    fn filters_are_dockers() {
        let start = NewEvent::new(Kind::Container, "start", "abcdef")
            .with("image", "debian:12")
            .with("name", "web")
            .with("tier", "front");
        for good in [
            &[][..],
            &[("container", "web")],
            &[("container", "abc")],
            &[("event", "start"), ("event", "die")],
            &[("type", "container"), ("image", "debian")],
            &[("image", "debian:12")],
            &[("label", "tier"), ("label", "tier=front")],
            &[("scope", "local")],
        ] {
            assert!(fits(good, &start), "{good:?}");
        }
        for bad in [
            &[("container", "db")][..],
            &[("event", "die")],
            &[("event", "st")],
            &[("type", "image")],
            &[("image", "deb")],
            &[("label", "tier"), ("label", "tier=back")],
            &[("volume", "data")],
            &[("node", "x")],
        ] {
            assert!(!fits(bad, &start), "{bad:?}");
        }
        let connect = NewEvent::new(Kind::Network, "connect", "net1").with("container", "abcdef").with("name", "none");
        assert!(fits(&[("container", "abcdef")], &connect) && fits(&[("network", "none")], &connect));
        let health = NewEvent::new(Kind::Container, "health_status: healthy", "abcdef");
        assert!(fits(&[("event", "health_status")], &health) && fits(&[("event", "health_status: healthy")], &health));
        assert!(EventFilter::new(vec![("nosuch".to_owned(), String::new())]).is_err());
    }
}
