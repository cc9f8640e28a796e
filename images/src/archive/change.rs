//! `--change`: Dockerfile instructions that only touch the config
//! (<https://docs.docker.com/reference/cli/docker/image/import/#change>).

use serde_json::{Map, Value, json};

use crate::error::{Class, Error, Result};

/// Applies instructions to the `config` of an image's config, in docker's JSON.
///
/// # Errors
/// `InvalidInput` for what is no instruction, or none that touches the config.
pub fn apply<S: AsRef<str>>(config: &mut Map<String, Value>, changes: &[S]) -> Result<()> {
    changes.iter().try_for_each(|change| apply_one(config, change.as_ref().trim()))
}

/// Those that change an image's config.
const INSTRUCTIONS: [&str; 11] = [
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "ONBUILD",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

fn apply_one(config: &mut Map<String, Value>, change: &str) -> Result<()> {
    let bad = |why: &str| Error::new(Class::InvalidInput, format!("invalid change {change:?}: {why}"));
    let (instruction, rest) = change.split_once(char::is_whitespace).unwrap_or((change, ""));
    let rest = rest.trim();
    let instruction = instruction.to_ascii_uppercase();
    let unknown = || {
        let word = change.split_whitespace().next().unwrap_or_default();
        Error::new(Class::InvalidInput, format!("{word} is not a valid change command"))
    };
    if !INSTRUCTIONS.contains(&instruction.as_str()) {
        return Err(unknown());
    }
    if rest.is_empty() {
        return Err(bad("it has no argument"));
    }
    match instruction.as_str() {
        "CMD" => set(config, "Cmd", command(rest)),
        "ENTRYPOINT" => set(config, "Entrypoint", command(rest)),
        "USER" => set(config, "User", json!(rest)),
        "STOPSIGNAL" => set(config, "StopSignal", json!(rest)),
        "WORKDIR" => {
            let current =
                config.get("WorkingDir").and_then(Value::as_str).unwrap_or("/").trim_end_matches('/').to_owned();
            let path = if rest.starts_with('/') { rest.to_owned() } else { format!("{current}/{rest}") };
            set(config, "WorkingDir", json!(path));
        }
        "ENV" => {
            for (name, value) in pairs(rest).ok_or_else(|| bad("it should be NAME=value"))? {
                let variables = array(config, "Env");
                variables.retain(|v| v.as_str().and_then(|v| v.split_once('=')).is_none_or(|(n, _)| n != name));
                variables.push(json!(format!("{name}={value}")));
            }
        }
        "LABEL" => {
            for (name, value) in pairs(rest).ok_or_else(|| bad("it should be name=value"))? {
                object(config, "Labels").insert(name, json!(value));
            }
        }
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
                let known = matches!(protocol, "tcp" | "udp" | "sctp");
                if !known || number.parse::<u16>().is_err() {
                    return Err(bad("a port is a number, with /tcp or /udp"));
                }
                object(config, "ExposedPorts").insert(format!("{number}/{protocol}"), json!({}));
            }
        }
        "VOLUME" => {
            let paths = match list(rest) {
                Some(paths) => paths,
                None => rest.split_whitespace().map(str::to_owned).collect(),
            };
            for path in paths {
                object(config, "Volumes").insert(path, json!({}));
            }
        }
        "ONBUILD" => {
            let trigger = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
            if matches!(trigger.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
                return Err(bad(&format!("{trigger} isn't allowed as an ONBUILD trigger")));
            }
            array(config, "OnBuild").push(json!(rest));
        }
        "HEALTHCHECK" => set(config, "Healthcheck", healthcheck(rest).map_err(|why| bad(&why))?),
        _ => return Err(unknown()),
    }
    Ok(())
}

fn set(config: &mut Map<String, Value>, key: &str, value: Value) {
    config.insert(key.to_owned(), value);
}

fn array<'a>(config: &'a mut Map<String, Value>, key: &str) -> &'a mut Vec<Value> {
    let entry = config.entry(key).or_insert_with(|| json!([]));
    if !entry.is_array() {
        *entry = json!([]);
    }
    match entry {
        Value::Array(values) => values,
        _ => unreachable!("made an array above"),
    }
}

fn object<'a>(config: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let entry = config.entry(key).or_insert_with(|| json!({}));
    if !entry.is_object() {
        *entry = json!({});
    }
    match entry {
        Value::Object(values) => values,
        _ => unreachable!("made an object above"),
    }
}

/// `[--interval=30s ...] CMD command` or `NONE`; times are nanoseconds in docker's JSON.
fn healthcheck(text: &str) -> Result<Value, String> {
    let mut check = Map::new();
    let mut rest = text;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option.split_once(char::is_whitespace).unwrap_or((option, ""));
        let (name, value) = option.split_once('=').ok_or_else(|| format!("--{option} has no value"))?;
        let key = match name {
            "interval" => "Interval",
            "timeout" => "Timeout",
            "start-period" => "StartPeriod",
            "start-interval" => "StartInterval",
            "retries" => "Retries",
            _ => return Err(format!("unknown option --{name}")),
        };
        let value = if key == "Retries" { value.parse().ok() } else { nanoseconds(value) };
        check.insert(key.to_owned(), json!(value.ok_or_else(|| format!("--{option} is not understood"))?));
        rest = after.trim_start();
    }
    let (kind, program) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let program = program.trim();
    let test = match kind.to_ascii_uppercase().as_str() {
        "NONE" if program.is_empty() => json!(["NONE"]),
        "CMD" if !program.is_empty() => match list(program) {
            Some(words) => json!(std::iter::once("CMD".to_owned()).chain(words).collect::<Vec<_>>()),
            None => json!(["CMD-SHELL", program]),
        },
        _ => return Err("it should be CMD and a command, or NONE".to_owned()),
    };
    check.insert("Test".to_owned(), test);
    Ok(Value::Object(check))
}

/// Go's durations, as far as a health check's go: `1m30s`, `500ms`.
fn nanoseconds(text: &str) -> Option<i64> {
    const UNITS: [(&str, i64); 6] = [
        ("ns", 1),
        ("us", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    let mut rest = text;
    let mut sum: i64 = 0;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
        let factor = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        sum = sum.checked_add(number.parse::<i64>().ok()?.checked_mul(factor)?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(sum)
}

fn list(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok())?
}

/// The exec form is a JSON array; all else is the shell's.
fn command(text: &str) -> Value {
    list(text).map_or_else(|| json!(["/bin/sh", "-c", text]), |words| json!(words))
}

/// `a=b c="d e"`, or the old `a rest of the line`.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let words = words(text)?;
    if !words.first()?.contains('=') {
        let (name, value) = text.split_once(char::is_whitespace)?;
        return Some(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    words
        .iter()
        .map(|word| word.split_once('=').filter(|(name, _)| !name.is_empty()))
        .map(|pair| pair.map(|(name, value)| (name.to_owned(), value.to_owned())))
        .collect()
}

/// Words with single or double quotes and backslashes taken away; `None` when a quote is not closed.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().push(characters.next()?),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_fill_in_the_config() {
        let mut config = Map::new();
        let changes = [
            "CMD [\"/bin/sh\", \"-c\"]",
            "entrypoint run me",
            "ENV A=1 B=\"two words\" C=it\\'s",
            "ENV A=2",
            "ENV OLD style value",
            "LABEL who=me",
            "EXPOSE 80 53/udp",
            "VOLUME [\"/data\"]",
            "VOLUME /a /b",
            "USER 1000:1000",
            "WORKDIR /srv",
            "WORKDIR app",
            "STOPSIGNAL SIGINT",
            "ONBUILD RUN make",
            "HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f http://localhost",
        ];
        apply(&mut config, &changes).unwrap();
        assert_eq!(
            Value::Object(config),
            json!({
                "Cmd": ["/bin/sh", "-c"],
                "Entrypoint": ["/bin/sh", "-c", "run me"],
                "Env": ["B=two words", "C=it's", "A=2", "OLD=style value"],
                "Labels": {"who": "me"},
                "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
                "Volumes": {"/data": {}, "/a": {}, "/b": {}},
                "User": "1000:1000",
                "WorkingDir": "/srv/app",
                "StopSignal": "SIGINT",
                "OnBuild": ["RUN make"],
                "Healthcheck": {
                    "Interval": 90_000_000_000_i64,
                    "Retries": 3,
                    "Test": ["CMD-SHELL", "curl -f http://localhost"],
                },
            })
        );
        for bad in [
            "",
            "CMD",
            "RUN x",
            "EXPOSE many",
            "ENV A=\"open",
            "LABEL =x",
            "EXPOSE 80/xyz",
            "ONBUILD FROM x",
            "HEALTHCHECK",
            "HEALTHCHECK CMD",
            "HEALTHCHECK --interval=x CMD y",
        ] {
            assert_eq!(apply(&mut Map::new(), &[bad]).unwrap_err().class(), Class::InvalidInput, "{bad}");
        }
    }
}
