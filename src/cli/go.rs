//! What docker's client sees of an object in a template: values of Go's types, which print otherwise than the JSON that
//! they came as (`{always 0}`), have the names of Go's fields, and have all of them, also those that were left out
//! (<https://pkg.go.dev/fmt>, <https://pkg.go.dev/text/template>).

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use gtmpl_ng::{Number, NumberKind, Value};
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::Value as Json;

use super::units;

/// One of Go's types.
#[derive(Clone, Copy)]
pub enum Kind {
    Text,
    Flag,
    Number,
    /// Nanoseconds.
    Duration,
    Time,
    /// A limit of resources, which prints as it is said on a command line.
    Ulimit,
    Struct(&'static [Field]),
    Pointer(&'static Kind),
    List(&'static Kind),
    Map(&'static Kind),
}

/// A field of a struct.
#[derive(Clone, Copy)]
pub struct Field {
    /// What Go calls it.
    pub name: &'static str,
    /// What JSON calls it.
    pub json: &'static str,
    pub kind: Kind,
    /// Its own fields are fields of the struct too, and in JSON they are nothing else.
    pub embedded: bool,
}

/// An object that docker has too, and its type there.
pub struct Object {
    pub json: Json,
    pub fields: &'static [Field],
}

/// The names under which a struct keeps how it prints, and its JSON: no field has such a name, and what prints it by
/// going through all fields is found out.
const PRINTED: &str = "\u{fdd0}printed";
const WRITTEN: &str = "\u{fdd0}written";
/// How the texts of these begin.
const HIDDEN: char = '\u{fdd0}';

impl Object {
    /// The object as a template sees it first.
    pub fn typed(&self) -> Value {
        see(Kind::Struct(self.fields), &self.json)
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Ordered { kind: Kind::Struct(self.fields), json: &self.json }.serialize(serializer)
    }
}

/// JSON with its fields in the order of the type's, and behind them those that the type does not have.
struct Ordered<'a> {
    kind: Kind,
    json: &'a Json,
}

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.kind, self.json) {
            (Kind::Pointer(kind), json) => Ordered { kind: *kind, json }.serialize(serializer),
            (Kind::Struct(fields), Json::Object(object)) => {
                let fields = flat(fields);
                let mut map = serializer.serialize_map(Some(object.len()))?;
                for field in &fields {
                    if let Some(json) = object.get(field.json) {
                        map.serialize_entry(field.json, &Ordered { kind: field.kind, json })?;
                    }
                }
                for (name, json) in object.iter().filter(|(name, _)| fields.iter().all(|field| field.json != *name)) {
                    map.serialize_entry(name, json)?;
                }
                map.end()
            }
            (Kind::Map(kind), Json::Object(object)) => {
                serializer.collect_map(object.iter().map(|(name, json)| (name, Ordered { kind: *kind, json })))
            }
            (Kind::List(kind), Json::Array(list)) => {
                serializer.collect_seq(list.iter().map(|json| Ordered { kind: *kind, json }))
            }
            (_, json) => json.serialize(serializer),
        }
    }
}

/// The fields as JSON has them.
fn flat(fields: &[Field]) -> Vec<Field> {
    let own = |field: &Field| match (field.embedded, field.kind) {
        (true, Kind::Struct(fields)) => flat(fields),
        _ => vec![*field],
    };
    fields.iter().flat_map(own).collect()
}

/// JSON as a value of the type.
fn see(kind: Kind, json: &Json) -> Value {
    match (kind, json) {
        (Kind::Pointer(_), Json::Null) => nil_pointer(),
        (Kind::Pointer(kind), json) => see(*kind, json),
        (Kind::Text, json) => Value::from(json.as_str().unwrap_or_default()),
        (Kind::Flag, json) => Value::from(json.as_bool().unwrap_or_default()),
        (Kind::Number, json) => match (json.as_i64(), json.as_u64()) {
            (Some(n), _) => Value::from(n),
            (None, n) => Value::from(n.unwrap_or_default()),
        },
        (Kind::Duration, json) => {
            let took = Duration::from_nanos(json.as_u64().unwrap_or_default());
            leaf(units::go_duration(took), json)
        }
        (Kind::Time, json) => leaf(time(json.as_str()), json),
        (Kind::Ulimit, json) => leaf(ulimit(json), json),
        (Kind::Struct(fields), json) => {
            let mut values = HashMap::new();
            let printed = fill(fields, json, &mut values);
            values.insert(PRINTED.to_owned(), hidden(&printed));
            values.insert(WRITTEN.to_owned(), hidden(&text_of(kind, json)));
            Value::Object(values)
        }
        (Kind::List(kind), Json::Array(list)) => Value::Array(list.iter().map(|json| see(*kind, json)).collect()),
        (Kind::List(_), _) => Value::Nil,
        (Kind::Map(kind), Json::Object(map)) => {
            Value::Map(map.iter().map(|(name, json)| (name.clone(), see(*kind, json))).collect())
        }
        (Kind::Map(_), _) => nil_map(),
    }
}

/// Adds the fields' values, and tells how the struct prints.
fn fill(fields: &[Field], json: &Json, values: &mut HashMap<String, Value>) -> String {
    let mut printed = Vec::new();
    for field in fields {
        let value = match (field.embedded, field.kind) {
            (true, Kind::Struct(own)) => {
                fill(own, json, values);
                see(field.kind, json)
            }
            (_, kind) => match (kind, json.get(field.json)) {
                (_, Some(json)) => see(kind, json),
                // It may be asked for keys, which the engine does not allow of what was never made.
                (Kind::Map(_), None) => Value::Map(HashMap::new()),
                (_, None) => see(kind, &Json::Null),
            },
        };
        printed.push(self::printed(&value));
        values.insert(field.name.to_owned(), value);
    }
    format!("{{{}}}", printed.join(" "))
}

fn hidden(text: &str) -> Value {
    Value::String(format!("{HIDDEN}{text}"))
}

/// A value that is one thing to a template, and prints otherwise than it is written.
fn leaf(printed: String, json: &Json) -> Value {
    let fields = [(PRINTED, hidden(&printed)), (WRITTEN, hidden(&json.to_string()))];
    Value::Object(fields.map(|(name, value)| (name.to_owned(), value)).into())
}

fn text_of(kind: Kind, json: &Json) -> String {
    // What is JSON can be written.
    serde_json::to_string(&Ordered { kind, json }).unwrap_or_default()
}

/// Where nothing is pointed at: it is false, and has no fields.
fn nil_pointer() -> Value {
    Value::Object(HashMap::new())
}

/// A map that was never made: like an empty one, but for its JSON. The engine knows no such thing, and makes no zero
/// with a sign of its own.
fn nil_map() -> Value {
    Value::Number(Number::signed(0))
}

fn is_nil_map(value: &Value) -> bool {
    matches!(value, Value::Number(n) if matches!(n.kind(), NumberKind::Signed(0)))
}

/// How a time prints that Go read.
fn time(text: Option<&str>) -> String {
    let text = text.unwrap_or("0001-01-01T00:00:00Z");
    match (text.split_once('T'), text.strip_suffix('Z')) {
        (Some((date, _)), Some(utc)) => format!("{date} {} +0000 UTC", &utc[date.len() + 1..]),
        _ => text.to_owned(),
    }
}

fn ulimit(json: &Json) -> String {
    let number = |name: &str| json[name].as_i64().unwrap_or_default();
    format!("{}={}:{}", json["Name"].as_str().unwrap_or_default(), number("Soft"), number("Hard"))
}

/// The text kept in a struct under this name.
fn kept<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    match value {
        Value::Object(fields) => match fields.get(name) {
            Some(Value::String(text)) => text.strip_prefix(HIDDEN),
            _ => None,
        },
        _ => None,
    }
}

/// Whether this is a struct, or prints like one: it has no length, and no keys.
pub fn is_struct(value: &Value) -> bool {
    kept(value, PRINTED).is_some()
}

/// The JSON of what has one of its own.
pub fn written(value: &Value) -> Option<&str> {
    let nil = is_nil_map(value) || matches!(value, Value::Object(fields) if fields.is_empty());
    if nil { Some("null") } else { kept(value, WRITTEN) }
}

/// Whether this is how a struct keeps something, which only a walk through all its fields finds.
pub fn is_hidden(value: &Value) -> bool {
    matches!(value, Value::String(text) if text.starts_with(HIDDEN))
}

/// Whether this is a list or a map that was never made.
pub fn is_nil(value: &Value) -> bool {
    matches!(value, Value::Nil) || is_nil_map(value)
}

/// A value as Go prints it inside another.
pub fn printed(value: &Value) -> String {
    if let Some(text) = kept(value, PRINTED) {
        return text.to_owned();
    }
    match value {
        // A list that was never made; what JSON has of it is `NoValue`.
        Value::Nil => "[]".to_owned(),
        Value::NoValue => "<nil>".to_owned(),
        Value::Object(fields) if fields.is_empty() => "<nil>".to_owned(),
        value if is_nil_map(value) => "map[]".to_owned(),
        Value::Array(list) => format!("[{}]", list.iter().map(printed).collect::<Vec<_>>().join(" ")),
        Value::Object(map) | Value::Map(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(name, _)| *name);
            let mut text = String::from("map[");
            for (at, (name, value)) in entries.into_iter().enumerate() {
                // A `String` takes all that is written.
                let _ = write!(text, "{}{name}:{}", if at > 0 { " " } else { "" }, printed(value));
            }
            text + "]"
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::go_types;
    use crate::cli::template::Format;
    use serde_json::json;

    /// As the docker client prints the same, but for what nothing can be learned from: where in its memory something is.
    #[test]
    fn structs_print_as_gos() {
        let json = json!({
            "Id": "abc",
            "Name": "/x",
            "State": {"Status": "running", "Running": true, "Pid": 12, "Health": {"Status": "healthy", "Log": [
                {"Start": "2026-11-21T22:01:01.013184552Z", "End": "2026-11-21T22:01:01Z", "ExitCode": 0, "Output": "ok"},
            ]}},
            "HostConfig": {
                "RestartPolicy": {"MaximumRetryCount": 0, "Name": "always"}, "CapAdd": null,
                "Ulimits": [{"Name": "nofile", "Hard": 200, "Soft": 100}],
                "PortBindings": {"80/tcp": [{"HostPort": "8080", "HostIp": ""}]},
            },
            "Config": {"Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_500_000_000}, "Volumes": null},
            "NetworkSettings": {"Ports": {"53/udp": null, "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}},
            "Backend": "linux",
        });
        let object = Object { json, fields: go_types::CONTAINER };
        let shown = |template: &str| {
            Format::parse(template).and_then(|format| format.render_object(&object)).map_err(|wrong| wrong.text)
        };
        for (template, want) in [
            ("{{.HostConfig.RestartPolicy}}", "{always 0}"),
            ("{{json .HostConfig.RestartPolicy}}", r#"{"Name":"always","MaximumRetryCount":0}"#),
            ("{{.ID}} {{.HostConfig.RestartPolicy}}", "abc {always 0}"),
            // There is no such field in Go, so all is shown as it came.
            ("{{.Id}} {{.HostConfig.RestartPolicy}}", "abc map[MaximumRetryCount:0 Name:always]"),
            ("{{.Backend}} {{.State.ExitCode}}", "template"),
            ("{{.NetworkSettings.Ports}}", "map[53/udp:[] 80/tcp:[{0.0.0.0 8080}]]"),
            ("{{range $port, $to := .NetworkSettings.Ports}}{{$port}}{{$to}}{{end}}", "53/udp[]80/tcp[{0.0.0.0 8080}]"),
            ("{{.HostConfig.Ulimits}}", "[nofile=100:200]"),
            ("{{.Config.Healthcheck}}|{{.Config.Healthcheck.Interval}}", "{[CMD true] 1.5s 0s 0s 0s 0}|1.5s"),
            ("{{json .Config.Healthcheck}}", r#"{"Test":["CMD","true"],"Interval":1500000000}"#),
            ("{{(index .State.Health.Log 0).Start}}", "2026-11-21 22:01:01.013184552 +0000 UTC"),
            ("{{with .State}}{{.Status}}{{.ExitCode}}{{.Error}}|{{end}}", "running0|"),
            ("{{.HostConfig.CapAdd}}{{json .HostConfig.CapAdd}}{{len .HostConfig.CapAdd}}", "[]null0"),
            ("{{.Config.Volumes}}{{json .Config.Volumes}}{{.Config.Labels.nope}}", "map[]null<no value>"),
            ("{{if .Config.Volumes}}yes{{else}}no{{end}}{{range $x, $y := .HostConfig.Tmpfs}}{{$x}}{{end}}", "no"),
            ("{{.HostConfig.Init}}{{if .HostConfig.Init}}yes{{end}}", "<nil>"),
            ("{{len .HostConfig.RestartPolicy}}{{index .HostConfig.RestartPolicy \"Name\"}}", "2always"),
            (
                "{{range $name, $value := .HostConfig.RestartPolicy}}{{$name}}{{$value}} {{end}}",
                "MaximumRetryCount0 Namealways ",
            ),
            ("{{- .Name -}} / {{ .State.Pid | printf \"%d}}\" -}} /", "/x/ 12}}/"),
            (
                "{{print .HostConfig.RestartPolicy}}{{$all := .HostConfig.RestartPolicy}}{{$all}}",
                "{always 0}{always 0}",
            ),
        ] {
            match shown(template) {
                Ok(text) => assert_eq!(text, want, "{template}"),
                Err(text) => assert!(text.starts_with(want), "{template}: {text}"),
            }
        }
        let wrong = shown("{{.Name}}{{.State.Nope}}").expect_err("no field");
        assert!(wrong.contains(r#":1:17: executing "" at <.State.Nope>: map has no entry for key "Nope""#), "{wrong}");
    }

    #[test]
    fn json_has_gos_order_and_keeps_what_go_does_not_know() {
        let json = json!({"Wharf": 1, "Options": null, "Name": "v", "Driver": "local", "Labels": {"b": "1", "a": "2"}});
        let text = serde_json::to_string(&Object { json, fields: go_types::VOLUME }).expect("JSON");
        assert_eq!(text, r#"{"Driver":"local","Labels":{"a":"2","b":"1"},"Name":"v","Options":null,"Wharf":1}"#);
    }
}
