//! How docker reads the values of its flags, with its error words
//! (<https://docs.docker.com/reference/cli/docker/container/run/>). All functions here are pure but for the two that
//! read files.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wharf_runtime::config::{EndpointConfig, HOST_GATEWAY, NetworkMode};
use wharf_runtime::network::BRIDGE;

use super::failure::{Failure, Result};
use super::mounts;
use super::parse::{Parsed, parse_bool};
use super::units::{parse_duration, parse_size};

/// Says why this is no value of a kind that a flag's help names, if it is none.
///
/// # Errors
/// Docker's words.
pub fn check(kind: &str, text: &str) -> Result<(), String> {
    match kind {
        "bool" if parse_bool(text).is_none() => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
        "int" => integer::<i64>(text).map(drop),
        "uint16" => unsigned::<u16>(text).map(drop),
        "bytes" => bytes(text).map(drop),
        "decimal" => cpus(text).map(drop),
        // That none may be negative is said later.
        "duration" if !text.starts_with('-') => parse_duration(text).map(drop),
        "filter" if !text.is_empty() => filter(text).map(drop),
        "mount" => mounts::mount(text).map(drop),
        "network" => network(text).map(drop),
        "ulimit" => ulimit(text).map(drop),
        _ => Ok(()),
    }
}

/// Looks whether something is named at all.
///
/// # Errors
/// Docker's words.
pub fn not_empty(kind: &str, name: &str) -> Result<()> {
    match name.trim() {
        "" => Err(Failure::new(format!("invalid {kind} name or ID: value is empty"))),
        _ => Ok(()),
    }
}

/// A whole number.
///
/// # Errors
/// Go's words.
pub fn integer<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| {
        let why = if text.parse::<i128>().is_ok() { "value out of range" } else { "invalid syntax" };
        format!("strconv.ParseInt: parsing {text:?}: {why}")
    })
}

/// A whole number that is not negative, which Go reads by another function.
///
/// # Errors
/// Go's words.
pub fn unsigned<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    let words = |why: String| why.replace("ParseInt", "ParseUint");
    integer(text).map_err(|why| {
        if text.starts_with('-') { format!("strconv.ParseUint: parsing {text:?}: invalid syntax") } else { words(why) }
    })
}

/// Bytes, where 0 means no limit.
///
/// # Errors
/// Docker's words.
pub fn bytes(text: &str) -> Result<Option<u64>, String> {
    parse_size(text).map(|bytes| (bytes > 0).then_some(bytes))
}

/// Bytes, or -1 for no limit.
///
/// # Errors
/// Docker's words.
pub fn swap(text: &str) -> Result<i64, String> {
    if text == "-1" {
        return Ok(-1);
    }
    i64::try_from(parse_size(text)?).map_err(|_| format!("invalid size: '{text}'"))
}

/// A number of CPUs, in billionths.
///
/// # Errors
/// Docker's words.
pub fn cpus(text: &str) -> Result<u64, String> {
    let bad = || format!("failed to parse {text} as a rational number");
    // Out of the range that the engine names.
    if let Some(positive) = text.strip_prefix('-') {
        return cpus(positive).map(|cpus| cpus.min(1)).map_err(|_| bad());
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() && fraction.is_empty() || !(whole.chars().chain(fraction.chars()).all(|c| c.is_ascii_digit())) {
        return Err(bad());
    }
    if fraction.trim_end_matches('0').len() > 9 {
        return Err("value is too precise".to_owned());
    }
    format!("{whole}{fraction:0<9.9}").parse().map_err(|_| bad())
}

/// `-e NAME=value`, or `-e NAME` whose value is ours. Where we have none the name stays alone, and what the image says
/// of it is taken away.
///
/// # Errors
/// Docker's words.
pub fn env(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some(("", _)) => Err(format!("invalid environment variable: {text}")),
        Some(_) => Ok(text.to_owned()),
        None if text.is_empty() => Err(format!("invalid environment variable: {text}")),
        None => Ok(std::env::var(text).map_or_else(|_| text.to_owned(), |value| format!("{text}={value}"))),
    }
}

/// `name=value`, where the value may be missing.
///
/// # Errors
/// Docker's words.
pub fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    if name.is_empty() {
        return Err(format!("invalid label '{text}': empty name"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// The lines of an `--env-file` or `--label-file`: `NAME=value`, comments and empty lines left out, names checked.
///
/// # Errors
/// Docker's words; those of the file system.
pub fn key_value_file(path: &str) -> Result<Vec<String>> {
    let bytes = std::fs::read(path).map_err(|e| Failure::io("open", path, &e))?;
    key_value_lines(&bytes).map_err(|why| Failure::new(format!("invalid env file ({path}): {why}")))
}

fn key_value_lines(bytes: &[u8]) -> Result<Vec<String>, String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut lines = Vec::new();
    for (n, line) in bytes.split(|b| *b == b'\n').enumerate() {
        let Ok(line) = std::str::from_utf8(line) else {
            let bytes: Vec<_> = line.iter().map(u8::to_string).collect();
            return Err(format!("invalid utf8 bytes at line {}: [{}]", n + 1, bytes.join(" ")));
        };
        let line = line.strip_suffix('\r').unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default();
        if name.is_empty() {
            return Err(format!("no variable name on line '{line}'"));
        }
        if name.contains(char::is_whitespace) {
            return Err(format!("variable '{name}' contains whitespaces"));
        }
        lines.push(line.to_owned());
    }
    Ok(lines)
}

const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `name=soft[:hard]`; -1 is no limit.
///
/// # Errors
/// Docker's words.
pub fn ulimit(text: &str) -> Result<(String, (u64, u64)), String> {
    let Some((name, limits)) = text.split_once('=') else { return Err(format!("invalid ulimit argument: {text}")) };
    if !ULIMITS.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let limit = |text: &str| match text.parse::<i64>() {
        Ok(-1) => Ok(u64::MAX),
        Ok(n) => u64::try_from(n).map_err(|_| format!("invalid ulimit argument: {text}")),
        Err(_) => Err(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")),
    };
    let parts: Vec<_> = limits.split(':').collect();
    let (soft, hard) = match parts[..] {
        [both] => (limit(both)?, limit(both)?),
        [soft, hard] => (limit(soft)?, limit(hard)?),
        _ => {
            return Err(format!("too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`"));
        }
    };
    if soft > hard {
        return Err(format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"));
    }
    Ok((name.to_owned(), (soft, hard)))
}

/// `--sysctl name=value`. Which names a container may set is the engine's affair.
///
/// # Errors
/// Docker's words.
pub fn sysctl(text: &str) -> Result<(String, String), String> {
    option(text).map_err(|_| format!("sysctl '{text}' is not allowed"))
}

/// `--annotation name=value`.
///
/// # Errors
/// Says what is missing.
pub fn option(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("invalid option {text:?}: expected name=value")),
    }
}

/// A capability by its whole name, or `ALL`.
pub fn capability(name: &str) -> String {
    let name = name.trim().to_ascii_uppercase();
    if name == "ALL" || name.starts_with("CAP_") { name } else { format!("CAP_{name}") }
}

/// `--opt` and `--log-opt name=value`, where the value may be missing: the driver's affair.
///
/// # Errors
/// None.
pub fn driver_option(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    Ok((name.to_owned(), value.to_owned()))
}

/// A domain in which names are looked up, or `.` for none.
///
/// # Errors
/// Docker's words.
pub fn domain(text: &str) -> Result<String, String> {
    let domain = text.trim();
    let label = |label: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
        !label.is_empty() && label.chars().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    let plain = domain.strip_suffix('.').unwrap_or(domain);
    let has_letter = plain.contains(|c: char| c.is_ascii_alphabetic());
    if domain == "." || (has_letter && plain.len() < 255 && plain.split('.').all(label)) {
        return Ok(domain.to_owned());
    }
    Err(format!("{text} is not a valid domain"))
}

/// An address.
///
/// # Errors
/// Docker's words.
pub fn ip(text: &str) -> Result<IpAddr, String> {
    text.trim().parse().map_err(|_| format!("IP address is not correctly formatted: {text}"))
}

/// `--add-host NAME:ADDRESS` or `NAME=ADDRESS`; the address may be `host-gateway`.
///
/// # Errors
/// Docker's words.
pub fn extra_host(text: &str) -> Result<(String, String), String> {
    let split = text.split_once('=').or_else(|| text.split_once(':'));
    let Some((name, address)) = split.filter(|(name, _)| !name.is_empty()) else {
        return Err(format!("bad format for add-host: {text:?}"));
    };
    let plain = address.trim_start_matches('[').trim_end_matches(']');
    if plain != HOST_GATEWAY && plain.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("invalid IP address in add-host: {address:?}"));
    }
    Ok((name.to_owned(), plain.to_owned()))
}

/// `--network`: a mode or a name, or docker's long form (`name=NET,ip=10.1.0.7,alias=db`). The place that it asks for, too.
///
/// # Errors
/// Docker's words.
pub fn network(text: &str) -> Result<(NetworkMode, EndpointConfig), String> {
    let mut place = EndpointConfig::default();
    if !text.contains('=') {
        place.network = text.to_owned();
    }
    for field in text.split(',').filter(|_| text.contains('=')) {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("invalid field {field}"))?;
        match key.trim().to_lowercase().as_str() {
            "name" => place.network = value.to_owned(),
            "alias" => place.aliases.push(value.to_owned()),
            "ip" => place.address = Some(ipv4(value)?),
            "ip6" => place.address6 = Some(ipv6(value)?),
            "mac-address" => place.mac = Some(value.parse()?),
            "gw-priority" => {
                let priority =
                    value.parse().map_err(|_| format!("invalid gw-priority: {value:?}: it must be a number"))?;
                place.gateway_priority = priority;
            }
            "driver-opt" | "link-local-ip" => return Err(format!("network option {key} is not supported")),
            _ => return Err(format!("invalid field key {key}")),
        }
    }
    // An empty text is refused later, in other words.
    if place.network.is_empty() && !text.is_empty() {
        return Err("network name/id is not specified".to_owned());
    }
    let mode = match place.network.as_str() {
        "default" => NetworkMode::Default,
        "none" => NetworkMode::None,
        "host" => NetworkMode::Host,
        name => match name.strip_prefix("container:") {
            Some(other) => NetworkMode::Container(other.to_owned()),
            None => NetworkMode::Named(name.to_owned()),
        },
    };
    if mode == NetworkMode::Default {
        BRIDGE.clone_into(&mut place.network);
    }
    Ok((mode, place))
}

/// An IPv4 address.
///
/// # Errors
/// Docker's words.
pub fn ipv4(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|_| format!("invalid IPv4 address: {text}"))
}

/// An IPv6 address.
///
/// # Errors
/// Docker's words.
pub fn ipv6(text: &str) -> Result<Ipv6Addr, String> {
    text.parse().map_err(|_| format!("invalid IPv6 address: {text}"))
}

/// `--link`: a container, and the name by which it is to be known.
///
/// # Errors
/// Docker's words.
pub fn link(text: &str) -> Result<(String, String), String> {
    let (container, alias) = text.split_once(':').unwrap_or((text, text));
    let container = container.trim_start_matches('/');
    if container.is_empty() || alias.is_empty() || alias.contains(':') {
        return Err(format!("bad format for links: {text}"));
    }
    Ok((container.to_owned(), alias.trim_start_matches('/').to_owned()))
}

/// `--attach`, in lower case.
///
/// # Errors
/// Docker's words.
pub fn stream(text: &str) -> Result<String, String> {
    let stream = text.to_ascii_lowercase();
    match stream.as_str() {
        "stdin" | "stdout" | "stderr" => Ok(stream),
        _ => Err("valid streams are STDIN, STDOUT and STDERR".to_owned()),
    }
}

/// `--filter name=value`.
///
/// # Errors
/// Docker's words.
pub fn filter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned())),
        None => Err("bad format of filter (expected name=value)".to_owned()),
    }
}

/// All `--filter`s but empty ones, which docker takes for none.
///
/// # Errors
/// As [`filter`].
pub fn filters(parsed: &Parsed) -> Result<Vec<(String, String)>> {
    let given = parsed.read_all("filter", |text| if text.is_empty() { Ok(None) } else { filter(text).map(Some) })?;
    Ok(given.into_iter().flatten().collect())
}

/// `--security-opt`s. A seccomp profile given by its file is read: its JSON takes the file's place.
///
/// # Errors
/// Docker's words.
pub fn security_opts<'a>(options: impl Iterator<Item = &'a str>) -> Result<Vec<String>> {
    options
        .map(|option| {
            let (name, value) = match option.split_once(['=', ':']) {
                Some((name, value)) => (name, Some(value)),
                None => (option, None),
            };
            match (name, value) {
                ("seccomp", Some("unconfined" | "builtin")) => Ok(option.to_owned()),
                ("seccomp", Some(path)) => match std::fs::read_to_string(path) {
                    Ok(profile) => Ok(format!("seccomp={profile}")),
                    Err(e) => {
                        let why = Failure::io("open", path, &e).text("", false);
                        Err(Failure::new(format!("opening seccomp profile ({path}) failed: {}", why.trim_end())))
                    }
                },
                ("no-new-privileges", None | Some("true" | "false"))
                | ("apparmor" | "label" | "systempaths" | "mask" | "unmask", Some(_))
                | ("disable", None) => Ok(option.to_owned()),
                _ => Err(Failure::new(format!("Invalid --security-opt: {option:?}"))),
            }
        })
        .collect()
}

/// The bytes of a detach sequence: `ctrl-p,ctrl-q`. Empty text is docker's default.
///
/// # Errors
/// Docker's words.
pub fn detach_keys(text: &str) -> Result<Vec<u8>, String> {
    let text = if text.is_empty() { "ctrl-p,ctrl-q" } else { text };
    let key = |key: &str| match key.as_bytes() {
        [one] => Some(*one),
        _ => match key.strip_prefix("ctrl-").map(str::as_bytes)? {
            [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
            b"@" => Some(0),
            b"[" => Some(27),
            b"\\" => Some(28),
            b"]" => Some(29),
            b"^" => Some(30),
            b"_" => Some(31),
            _ => None,
        },
    };
    let keys = text.split(',').map(|name| key(name).ok_or_else(|| format!("Unknown character: '{name}'")));
    keys.collect::<Result<_, _>>().map_err(|why| format!("invalid detach keys ({text}): {why}"))
}

/// Pairs as a map; the last of a name counts.
pub fn map(pairs: Vec<(String, String)>) -> BTreeMap<String, String> {
    pairs.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read() {
        assert_eq!(integer::<u32>("12"), Ok(12));
        assert_eq!(integer::<u8>("x"), Err(r#"strconv.ParseInt: parsing "x": invalid syntax"#.to_owned()));
        assert_eq!(integer::<u8>("300"), Err(r#"strconv.ParseInt: parsing "300": value out of range"#.to_owned()));
        assert_eq!(bytes("0"), Ok(None));
        assert_eq!(bytes("1k"), Ok(Some(1024)));
        assert_eq!(swap("-1"), Ok(-1));
        assert_eq!(swap("1g"), Ok(1 << 30));
        assert_eq!(swap("-2"), Err("invalid size: '-2'".to_owned()));
    }

    #[test]
    fn cpus_are_exact() {
        assert_eq!(cpus("1.5"), Ok(1_500_000_000));
        assert_eq!(cpus(".000000001"), Ok(1));
        assert_eq!(cpus("2"), Ok(2_000_000_000));
        assert_eq!(cpus("0.1230000000000"), Ok(123_000_000));
        assert_eq!(cpus("0.0000000001"), Err("value is too precise".to_owned()));
        assert_eq!(cpus("-2"), Ok(1));
        for bad in ["x", "", ".", "-x", "1.x"] {
            assert_eq!(cpus(bad), Err(format!("failed to parse {bad} as a rational number")));
        }
    }

    #[test]
    fn variables_come_from_us_when_they_have_no_value() {
        assert_eq!(env("A=b=c"), Ok("A=b=c".to_owned()));
        assert_eq!(env("A="), Ok("A=".to_owned()));
        assert_eq!(env("="), Err("invalid environment variable: =".to_owned()));
        assert_eq!(env(""), Err("invalid environment variable: ".to_owned()));
        assert_eq!(env("NO_SUCH_VARIABLE_ANYWHERE"), Ok("NO_SUCH_VARIABLE_ANYWHERE".to_owned()));
        let path = std::env::var("PATH").expect("cargo sets PATH");
        assert_eq!(env("PATH"), Ok(format!("PATH={path}")));
    }

    #[test]
    fn files_of_variables_read() {
        let read = |text: &str| key_value_lines(text.as_bytes());
        assert_eq!(read("\u{feff}A=1\r\n# note\n\n  B=x y \nC"), Ok(vec!["A=1".into(), "B=x y ".into(), "C".into()]));
        assert_eq!(read("A B=1"), Err("variable 'A B' contains whitespaces".to_owned()));
        assert_eq!(read("=1"), Err("no variable name on line '=1'".to_owned()));
        assert!(key_value_lines(b"A=1\nB=\xff").is_err_and(|e| e.contains("invalid utf8 bytes at line 2")));
    }

    #[test]
    fn ulimits_read() {
        assert_eq!(ulimit("nofile=5:10"), Ok(("nofile".to_owned(), (5, 10))));
        assert_eq!(ulimit("core=-1"), Ok(("core".to_owned(), (u64::MAX, u64::MAX))));
        let errors = [
            ("x", "invalid ulimit argument: x"),
            ("foo=1", "invalid ulimit type: foo"),
            ("nofile=5:3", "ulimit soft limit must be less than or equal to hard limit: 5 > 3"),
            ("nofile=a", r#"strconv.ParseInt: parsing "a": invalid syntax"#),
            ("nofile=1:2:3", "too many limit value arguments - 1:2:3, can only have up to two, `soft[:hard]`"),
        ];
        for (text, error) in errors {
            assert_eq!(ulimit(text), Err(error.to_owned()), "{text}");
        }
    }

    #[test]
    fn names_and_values_read() {
        assert_eq!(label("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(label("a"), Ok(("a".to_owned(), String::new())));
        assert_eq!(label("="), Err("invalid label '=': empty name".to_owned()));
        assert_eq!(sysctl("net.core.somaxconn=5"), Ok(("net.core.somaxconn".to_owned(), "5".to_owned())));
        assert_eq!(sysctl("net.core.somaxconn"), Err("sysctl 'net.core.somaxconn' is not allowed".to_owned()));
        assert_eq!(filter("Name = x"), Ok(("name".to_owned(), "x".to_owned())));
        assert_eq!(filter("x"), Err("bad format of filter (expected name=value)".to_owned()));
        assert_eq!(stream("STDIN"), Ok("stdin".to_owned()));
        assert!(stream("foo").is_err());
        assert_eq!(network("none").map(|n| n.0), Ok(NetworkMode::None));
        assert_eq!(network("web").map(|n| n.0), Ok(NetworkMode::Named("web".to_owned())));
        assert_eq!(network("container:x").map(|n| n.0), Ok(NetworkMode::Container("x".to_owned())));
        for nameless in ["alias=zz", "name=,alias=zz"] {
            assert_eq!(network(nameless), Err("network name/id is not specified".to_owned()));
        }
    }

    #[test]
    fn detach_keys_read() {
        assert_eq!(detach_keys(""), Ok(vec![16, 17]));
        assert_eq!(detach_keys("ctrl-@,a,ctrl-]"), Ok(vec![0, b'a', 29]));
        assert!(detach_keys("ctrl-zz").is_err());
    }

    #[test]
    fn security_options_are_checked() {
        let check = |option: &str| security_opts(std::iter::once(option));
        assert!(check("no-new-privileges").is_ok() && check("seccomp=unconfined").is_ok());
        let text = |option: &str| check(option).map_or_else(|e| e.text("", false), |_| String::new());
        assert_eq!(text("foo"), "Invalid --security-opt: \"foo\"\n");
        assert_eq!(
            text("seccomp=/no/file"),
            "opening seccomp profile (/no/file) failed: open /no/file: no such file or directory\n"
        );
    }
}
