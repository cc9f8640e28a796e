//! `events`: what happens, as it happens, in docker's words and order of fields
//! (<https://docs.docker.com/reference/cli/docker/system/events/>).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};

use jiff::Timestamp;
use serde::Serialize;
use wharf_runtime::events::{EventFilter, EventOptions, Kind, NewEvent};

use super::context::Context;
use super::failure::{Failure, Result};
use super::go::Object;
use super::go_types;
use super::parse::Parsed;
use super::template::{Format, Wrong};
use super::verb::{FORMAT_OBJECT, Flag, Listed, Operands, Section, Verb};
use super::{text, units, values};

/// The command of this file.
pub static VERBS: &[Verb] = &[Verb {
    names: &["events", "system events"],
    about: "Get real time events from the server",
    usage: "[OPTIONS]",
    listed: Listed::Other,
    operands: Operands::None,
    trailing: false,
    sections: &[Section {
        title: "Options",
        flags: &[
            Flag::list("filter", "Filter output based on conditions provided").short('f').of("filter"),
            Flag { short: None, ..FORMAT_OBJECT },
            Flag::value("since", "string", "Show all events created since timestamp"),
            Flag::value("until", "string", "Stream events until this timestamp"),
        ],
    }],
    run: events,
}];

/// How an event is printed.
enum Shape {
    Line,
    Json,
    Template(Box<Format>),
}

fn events(parsed: &Parsed, context: &Context) -> Result<()> {
    let now = Timestamp::now();
    let moment = |flag: &str| match parsed.value(flag) {
        None | Some("") => Ok(None),
        Some(value) => units::parse_moment(value, now).map(Some).map_err(Failure::new),
    };
    let filter = EventFilter::new(values::filters(parsed)?)?;
    let options = EventOptions { since: moment("since")?, until: moment("until")?, filter };
    let shape = match parsed.value("format") {
        None | Some("") => Shape::Line,
        Some("json" | "{{json .}}") => Shape::Json,
        Some(template) => {
            let format = Format::parse(template).map_err(Wrong::of_object)?.of("*events.Message");
            Shape::Template(Box::new(format))
        }
    };
    let mut out = std::io::stdout();
    let terminal = out.is_terminal();
    let mut ended = Ok(());
    context.engine()?.events(&options, &mut |event| {
        ended = print(event, &shape).and_then(|mut line| {
            if terminal {
                line = text::visible(&line).to_string();
            }
            line.push('\n');
            out.write_all(line.as_bytes())?;
            Ok(out.flush()?)
        });
        ended.is_ok()
    })?;
    ended
}

fn print(event: &NewEvent, shape: &Shape) -> Result<String> {
    let message = Message::new(event);
    match shape {
        Shape::Line => Ok(line(event)),
        Shape::Json => serde_json::to_string(&message).map_err(|e| Failure::new(e.to_string())),
        Shape::Template(format) => {
            let json = serde_json::to_value(&message).map_err(|e| Failure::new(e.to_string()))?;
            Ok(format.render(Object { json, fields: go_types::MESSAGE }.typed())?)
        }
    }
}

/// Docker's line: time, type, action, id, and the attributes by name.
fn line(event: &NewEvent) -> String {
    let mut line = format!("{:.9} {} {} {}", event.time, event.kind.name(), event.action, event.actor);
    for (n, (name, value)) in event.attributes.iter().enumerate() {
        let lead = if n == 0 { " (" } else { ", " };
        let _ = write!(line, "{lead}{name}={value}");
    }
    if !event.attributes.is_empty() {
        line.push(')');
    }
    line
}

/// An event as docker's API gives it.
#[derive(Serialize)]
struct Message<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    #[serde(rename = "Type")]
    kind: &'a str,
    #[serde(rename = "Action")]
    action: &'a str,
    #[serde(rename = "Actor")]
    actor: Actor<'a>,
    scope: &'a str,
    time: i64,
    #[serde(rename = "timeNano")]
    nanoseconds: i128,
}

#[derive(Serialize)]
struct Actor<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    #[serde(rename = "Attributes")]
    attributes: &'a BTreeMap<String, String>,
}

impl<'a> Message<'a> {
    fn new(event: &'a NewEvent) -> Self {
        // The fields of docker's first years, which it still gives for these two.
        let old = matches!(event.kind, Kind::Container | Kind::Image);
        let from = event.attributes.get("image").filter(|_| event.kind == Kind::Container);
        Message {
            status: old.then_some(&event.action),
            id: old.then_some(&event.actor),
            from: from.map(String::as_str),
            kind: event.kind.name(),
            action: &event.action,
            actor: Actor { id: &event.actor, attributes: &event.attributes },
            scope: "local",
            time: event.time.as_second(),
            nanoseconds: event.time.as_nanosecond(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn die() -> NewEvent {
        NewEvent {
            time: "2024-05-01T12:00:00.5Z".parse().expect("time"),
            ..NewEvent::new(Kind::Container, "die", "abc").with("image", "debian").with("exitCode", "3")
        }
    }

    #[test]
    fn lines_are_dockers() {
        assert_eq!(line(&die()), "2024-05-01T12:00:00.500000000Z container die abc (exitCode=3, image=debian)");
        let bare = NewEvent { attributes: BTreeMap::new(), ..die() };
        assert_eq!(line(&bare), "2024-05-01T12:00:00.500000000Z container die abc");
    }

    #[test]
    fn json_and_templates_have_dockers_fields() {
        assert_eq!(
            print(&die(), &Shape::Json).expect("json"),
            r#"{"status":"die","id":"abc","from":"debian","Type":"container","Action":"die","Actor":{"ID":"abc","Attributes":{"exitCode":"3","image":"debian"}},"scope":"local","time":1714564800,"timeNano":1714564800500000000}"#
        );
        let format = Format::parse("{{.Type}} {{.Action}} {{.Actor.ID}} {{.Actor.Attributes.exitCode}} {{.Time}}");
        let shape = Shape::Template(Box::new(format.expect("template")));
        assert_eq!(print(&die(), &shape).expect("text"), "container die abc 3 1714564800");
        let network = NewEvent::new(Kind::Network, "create", "n");
        assert!(!print(&network, &Shape::Json).expect("json").contains("status"));
    }
}
