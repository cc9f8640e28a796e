//! `-v`, `--mount` and `--tmpfs` (<https://docs.docker.com/engine/storage/bind-mounts/>,
//! <https://docs.docker.com/engine/storage/volumes/>).

use std::collections::BTreeMap;
use std::path::Path;

use wharf_runtime::config::{
    BindMount, Mount, MountKind, Origin, Propagation, Recursion, VolumeMount, Written, clean_path,
};
use wharf_runtime::mode::Mode;

use super::parse::parse_bool;
use super::units::parse_size;

/// `-v [HOST:|NAME:]CONTAINER[:OPTIONS]`.
///
/// # Errors
/// Says which part is wrong.
pub fn volume(text: &str) -> Result<Mount, String> {
    let mount = volume_or_root(text)?;
    let is_path = mount.volume().is_none();
    not_root(mount).map_err(|why| wrong_target(text, is_path, &why))
}

/// Docker's way to say what is wrong with the place in the container.
fn wrong_target(text: &str, is_path: bool, why: &str) -> String {
    let kind = if is_path { "bind" } else { "volume" };
    format!("invalid volume specification: '{text}': invalid mount config for type {kind:?}: {why}")
}

/// As [`volume`], where CONTAINER may be `/`: a WebAssembly file that is run has no root filesystem of its own.
///
/// # Errors
/// Says which part is wrong.
pub fn volume_or_root(text: &str) -> Result<Mount, String> {
    let invalid = || format!("invalid volume specification: '{text}'");
    if text.is_empty() {
        return Err("invalid empty volume spec".to_owned());
    }
    let parts = split_drive(text);
    if parts.len() > 1 && parts.len() < 4 && parts.iter().any(|part| part.is_empty()) {
        return Err(format!("invalid spec: {text}: empty section between colons"));
    }
    let (source, target, options) = match parts[..] {
        [target] => ("", target, ""),
        [source, target] if !source.is_empty() => (source, target, ""),
        [source, target, options] if !source.is_empty() => (source, target, options),
        _ => return Err(invalid()),
    };
    if target.is_empty() {
        return Err(invalid());
    }
    let is_path = Path::new(source).is_absolute() || source.starts_with('.');
    // A volume without a name may be anywhere below the root.
    let below_root = format!("/{target}");
    let target = if parts.len() == 1 { &below_root } else { target };
    let target = absolute(target).map_err(|why| wrong_target(text, is_path, &why))?;
    let Mode { read_only, no_copy, propagation } = options.parse().map_err(|e: wharf_runtime::Error| e.to_string())?;
    // What is of the other kind.
    let other = if is_path { no_copy.then_some("VolumeOptions") } else { propagation.map(|_| "BindOptions") };
    if let Some(field) = other {
        return Err(wrong_target(text, is_path, &format!("field {field} must not be specified")));
    }
    let kind = if is_path {
        let bind = bind(source)?;
        MountKind::Bind(BindMount { create_source: true, propagation: propagation.unwrap_or_default(), ..bind })
    } else {
        MountKind::Volume(VolumeMount { name: source.to_owned(), no_copy, ..VolumeMount::default() })
    };
    Ok(Mount { kind, target, read_only, origin: Origin::Volume(options.to_owned()) })
}

/// A `-v` as docker shows it: with the absolute path of its source.
pub fn written(text: &str, mount: &Mount) -> String {
    match (&mount.kind, text.split_once(':')) {
        (MountKind::Bind(bind), Some((_, rest))) if text.starts_with('.') => format!("{}:{rest}", bind.source),
        _ => text.to_owned(),
    }
}

/// Splits at colons, but keeps a Windows drive (`C:\`, and on Windows `C:/`) with its path.
fn split_drive(text: &str) -> Vec<&str> {
    let drive = match text.as_bytes() {
        [drive, b':', b'\\', ..] => drive.is_ascii_alphabetic(),
        [drive, b':', b'/', ..] => drive.is_ascii_alphabetic() && Path::new(text).is_absolute(),
        _ => false,
    };
    let start = if drive { 2 } else { 0 };
    let mut parts: Vec<_> = text[start..].split(':').collect();
    parts[0] = &text[..start + parts[0].len()];
    parts
}

fn bind(source: &str) -> Result<BindMount, String> {
    let source = std::path::absolute(source).map_err(|e| format!("cannot make {source} absolute: {e}"))?;
    let Some(source) = source.to_str() else { return Err(format!("{} is not valid UTF-8", source.display())) };
    // One with a drive is clean.
    let source = clean_path(source).unwrap_or_else(|| source.to_owned());
    Ok(BindMount { source, ..BindMount::default() })
}

fn absolute(target: &str) -> Result<String, String> {
    if !target.starts_with('/') {
        return Err(format!("invalid mount path: '{target}' mount path must be absolute"));
    }
    Ok(target.to_owned())
}

fn not_root(mount: Mount) -> Result<Mount, String> {
    if mount.target.trim_end_matches('/').is_empty() {
        return Err("invalid specification: destination can't be '/'".to_owned());
    }
    Ok(mount)
}

/// `--tmpfs PATH[:OPTIONS]`.
///
/// # Errors
/// Docker's words.
pub fn tmpfs(text: &str) -> Result<Mount, String> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let read_only = options.split(',').any(|option| option == "ro");
    let (kind, target) = (MountKind::Tmpfs(options.to_owned()), absolute(target)?);
    not_root(Mount { kind, target, read_only, origin: Origin::Tmpfs })
}

/// What `--mount` says, before it is known what it means.
#[derive(Default)]
struct Fields {
    source: Option<String>,
    written: Written,
    read_only: bool,
    bind: BindMount,
    propagation: Option<String>,
    volume: VolumeMount,
    tmpfs: Vec<String>,
    /// The kinds (`bind`, `volume`, `tmpfs`) whose own options were given.
    own: Vec<&'static str>,
}

/// `--mount type=bind,source=/a,target=/b,readonly`. What is inside the result is docker's daemon's to refuse, not its
/// client's: the two are told in different ways.
///
/// # Errors
/// Docker's words.
pub fn mount(text: &str) -> Result<Result<Mount, String>, String> {
    if text.is_empty() {
        // Go's reader of comma-separated values.
        return Err("EOF".to_owned());
    }
    let mut kind = "volume".to_owned();
    let mut fields = Fields::default();
    for field in csv(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
            None => (field.to_ascii_lowercase(), None),
        };
        match (key.as_str(), value) {
            ("type", Some(value)) => kind = value.to_ascii_lowercase(),
            (key, value) => fields.read(key, value, &field)?,
        }
    }
    if kind.is_empty() {
        return Err("type is required".to_owned());
    }
    if fields.written.target.is_empty() {
        return Err("target is required".to_owned());
    }
    if matches!(kind.as_str(), "image" | "npipe" | "cluster") {
        return Err(format!("type={kind} is not supported yet"));
    }
    if let Some(other) = fields.own.iter().find(|own| **own != kind) {
        return Err(format!("cannot mix '{other}-*' options with mount type '{kind}'"));
    }
    fields.check_recursion()?;
    Ok(fields.mount(&kind).map_err(|why| format!("invalid mount config for type {kind:?}: {why}")))
}

impl Fields {
    fn mount(self, kind: &str) -> Result<Mount, String> {
        let mut written = self.written;
        let kind = match (kind, self.source.as_deref()) {
            ("bind", Some(source)) => {
                if !Path::new(source).is_absolute() && !source.starts_with('.') {
                    return Err(format!("invalid mount path: '{source}' mount path must be absolute"));
                }
                let word = self.propagation.as_deref().unwrap_or_default();
                let propagation = match word.parse() {
                    Ok(propagation) => propagation,
                    Err(()) if word.is_empty() => Propagation::default(),
                    Err(()) => return Err(format!("invalid propagation mode: {word}")),
                };
                let clean = bind(source)?.source;
                // Docker's client makes it absolute.
                written.source = if source.starts_with('.') { clean.clone() } else { source.to_owned() };
                MountKind::Bind(BindMount { source: clean, propagation, ..self.bind })
            }
            ("bind", None) => return Err("field Source must not be empty".to_owned()),
            ("tmpfs", None) => MountKind::Tmpfs(self.tmpfs.join(",")),
            ("tmpfs", Some(_)) => return Err("field Source must not be specified".to_owned()),
            ("volume", source) => {
                let subpath = self.volume.subpath.filter(|subpath| !subpath.is_empty());
                if subpath.is_some() && source.is_none() {
                    return Err("must not set Subpath when using anonymous volumes".to_owned());
                }
                if subpath.as_ref().is_some_and(|subpath| !stays_within(subpath)) {
                    return Err("subpath must be a relative path within the volume".to_owned());
                }
                MountKind::Volume(VolumeMount { name: source.unwrap_or_default().to_owned(), subpath, ..self.volume })
            }
            _ => return Err("mount type unknown".to_owned()),
        };
        let target = absolute(&written.target)?;
        not_root(Mount { kind, target, read_only: self.read_only, origin: Origin::Mount(written) })
    }

    /// Looks whether all is said that docker wants to be said along with `bind-recursive`.
    fn check_recursion(&self) -> Result<(), String> {
        let word = match self.bind.recursion {
            Recursion::Enabled | Recursion::Disabled => return Ok(()),
            Recursion::Writable => "writable",
            Recursion::ReadOnly => "readonly",
        };
        let requires = |other: &str| {
            Err(format!("option 'bind-recursive={word}' requires '{other}' to be specified in conjunction"))
        };
        if !self.read_only {
            return requires("readonly");
        }
        if self.bind.recursion == Recursion::ReadOnly && self.propagation.as_deref() != Some("rprivate") {
            return requires("bind-propagation=rprivate");
        }
        Ok(())
    }

    fn read(&mut self, key: &str, value: Option<&str>, field: &str) -> Result<(), String> {
        let switch = || boolean(value).ok_or_else(|| format!("invalid value for {key}: {}", value.unwrap_or_default()));
        match key {
            "readonly" | "ro" => return switch().map(|on| self.read_only = on),
            "bind-nonrecursive" => {
                self.own.push("bind");
                return switch().map(|on| {
                    self.bind.recursion = if on { Recursion::Disabled } else { Recursion::Enabled };
                });
            }
            "bind-create-src" | "bind-create-host-path" => {
                self.own.push("bind");
                return switch().map(|on| self.bind.create_source = on);
            }
            "volume-nocopy" => {
                self.own.push("volume");
                return switch().map(|on| self.volume.no_copy = on);
            }
            _ => {}
        }
        let Some(value) = value else { return Err(format!("invalid field '{field}' must be a key=value pair")) };
        let invalid = || format!("invalid value for {key}: {value}");
        for kind in ["bind", "volume", "tmpfs"] {
            if key.strip_prefix(kind).is_some_and(|rest| rest.starts_with('-')) {
                self.own.push(kind);
            }
        }
        match key {
            "source" | "src" => self.source = Some(value.to_owned()).filter(|source| !source.is_empty()),
            "target" | "dst" | "destination" => self.written.target = value.to_owned(),
            // The Mac's caching does not exist here.
            "consistency" => self.written.consistency = value.to_ascii_lowercase(),
            "bind-propagation" => self.propagation = Some(value.to_owned()),
            "bind-recursive" => {
                self.bind.recursion = match value {
                    "enabled" => Recursion::Enabled,
                    "disabled" => Recursion::Disabled,
                    "writable" => Recursion::Writable,
                    "readonly" => Recursion::ReadOnly,
                    _ => {
                        let words = r#"must be "enabled", "disabled", "writable", or "readonly""#;
                        return Err(format!("{} ({words})", invalid()));
                    }
                };
            }
            "volume-subpath" => self.volume.subpath = Some(value.to_owned()),
            "volume-driver" => self.volume.driver = value.to_owned(),
            "volume-label" => put(&mut self.volume.labels, value),
            "volume-opt" => put(&mut self.volume.options, value),
            "tmpfs-size" => {
                let size = parse_size(value).map_err(|_| format!("invalid value for {key}: {value}"))?;
                self.tmpfs.push(format!("size={size}"));
            }
            "tmpfs-mode" => {
                u32::from_str_radix(value, 8).map_err(|_| invalid())?;
                self.tmpfs.push(format!("mode={value}"));
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
        Ok(())
    }
}

fn put(map: &mut BTreeMap<String, String>, pair: &str) {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    map.insert(name.to_owned(), value.to_owned());
}

/// True for a path in a volume, if no part of it is a link; who opens it sees to it that links do not lead out either.
fn stays_within(subpath: &str) -> bool {
    let deeper = |depth: usize, part: &str| match part {
        "" | "." => Some(depth),
        ".." => depth.checked_sub(1),
        _ => Some(depth + 1),
    };
    !subpath.starts_with('/') && subpath.split('/').try_fold(0, deeper).is_some()
}

/// The fields of a line of comma-separated values: a field may be quoted, so that it can have commas (RFC 4180). What is
/// wrong is said in the words of Go's package.
fn csv(line: &str) -> Result<Vec<String>, String> {
    let wrong =
        |rest: &str, why: &str| Err(format!("parse error on line 1, column {}: {why}", line.len() - rest.len() + 1));
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let field;
        if let Some(mut quoted) = rest.strip_prefix('"') {
            const STRAY: &str = "extraneous or missing \" in quoted-field";
            let mut text = String::new();
            loop {
                let Some(end) = quoted.find('"') else { return wrong("", STRAY) };
                text.push_str(&quoted[..end]);
                let quote = &quoted[end..];
                quoted = &quote[1..];
                match quoted.strip_prefix('"') {
                    Some(more) => {
                        text.push('"');
                        quoted = more;
                    }
                    None if quoted.is_empty() || quoted.starts_with(',') => break,
                    None => return wrong(quote, STRAY),
                }
            }
            (field, rest) = (text, quoted);
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            if let Some(quote) = rest[..end].find('"') {
                return wrong(&rest[quote..], "bare \" in non-quoted-field");
            }
            (field, rest) = (rest[..end].to_owned(), &rest[end..]);
        }
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return Ok(fields),
        }
    }
}

/// A switch within `--mount`: alone it is on.
fn boolean(value: Option<&str>) -> Option<bool> {
    value.map_or(Some(true), parse_bool)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_bind(mount: &Mount, source: &str, target: &str, read_only: bool) -> bool {
        matches!(&mount.kind, MountKind::Bind(bind) if bind.source == source)
            && mount.target == target
            && mount.read_only == read_only
    }

    #[test]
    fn volumes_read() {
        assert!(is_bind(&volume("/a:/b").expect("volume"), "/a", "/b", false));
        assert!(is_bind(&volume("/a:/b:ro,z").expect("volume"), "/a", "/b", true));
        let here = std::env::current_dir().expect("cwd");
        assert!(is_bind(&volume("./x:/b").expect("volume"), &here.join("x").display().to_string(), "/b", false));
        let MountKind::Bind(shared) = volume("/a:/b:rshared").expect("volume").kind else { panic!("a bind") };
        assert_eq!((shared.propagation, shared.create_source), (Propagation::Rshared, true));
        let named = |text: &str| match volume(text).expect("volume") {
            Mount { kind: MountKind::Volume(volume), read_only, .. } => (volume.name, volume.no_copy, read_only),
            other => panic!("{other:?}"),
        };
        assert_eq!(named("data:/d"), ("data".to_owned(), false, false));
        assert_eq!(named("data:/d:ro,nocopy"), ("data".to_owned(), true, true));
        assert_eq!(named("/d"), (String::new(), false, false));
        assert_eq!(volume("d/e").expect("volume").target, "/d/e");
        let written = |text: &str| super::written(text, &volume(text).expect("volume"));
        assert_eq!(written("./x/../y:/b/:ro"), format!("{}:/b/:ro", here.join("y").display()));
        assert_eq!((written("/a/../c:/b"), written("d/")), ("/a/../c:/b".to_owned(), "d/".to_owned()));
        assert!(is_bind(&volume("/a/../c//./d/:/b/").expect("volume"), "/c/d", "/b/", false));
        let errors = [
            (
                "/a:b",
                "invalid volume specification: '/a:b': invalid mount config for type \"bind\": invalid mount path: 'b' mount path must be absolute",
            ),
            (
                "data:b",
                "invalid volume specification: 'data:b': invalid mount config for type \"volume\": invalid mount path: 'b' mount path must be absolute",
            ),
            ("/a:/b:shared,slave", "invalid mode: shared,slave"),
            ("/a:/b:bad", "invalid mode: bad"),
            ("/a:/b:rw,ro", "invalid mode: rw,ro"),
            ("v:/b:z,Z", "invalid mode: z,Z"),
            ("/a:/b:ro,bad", "invalid mode: ro,bad"),
            (
                "/a:/b:nocopy",
                "invalid volume specification: '/a:/b:nocopy': invalid mount config for type \"bind\": field VolumeOptions \
                 must not be specified",
            ),
            (
                "v:/b:shared",
                "invalid volume specification: 'v:/b:shared': invalid mount config for type \"volume\": field BindOptions \
                 must not be specified",
            ),
            ("/a:/b:ro:x", "invalid volume specification: '/a:/b:ro:x'"),
            (":/b", "invalid spec: :/b: empty section between colons"),
            ("", "invalid empty volume spec"),
            (
                "/a:/",
                "invalid volume specification: '/a:/': invalid mount config for type \"bind\": invalid specification: destination can't be '/'",
            ),
        ];
        for (text, error) in errors {
            assert_eq!(volume(text), Err(error.to_owned()), "{text}");
        }
    }

    #[test]
    fn mounts_read() {
        let mount = |text: &str| super::mount(text).and_then(|mount| mount);
        assert!(is_bind(&mount("type=bind,source=/a,target=/b").expect("mount"), "/a", "/b", false));
        assert!(is_bind(&mount("type=bind,src=/a,dst=/b,readonly").expect("mount"), "/a", "/b", true));
        assert!(is_bind(&mount("type=bind,src=/a,dst=/b,ro=false").expect("mount"), "/a", "/b", false));
        let tmpfs = mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770").expect("mount");
        assert_eq!(tmpfs.kind, MountKind::Tmpfs("size=1048576,mode=1770".to_owned()));
        let bind = mount("type=bind,src=/a,dst=/b,bind-propagation=rslave,bind-recursive=writable,ro,bind-create-src");
        let MountKind::Bind(bind) = bind.expect("mount").kind else { panic!("a bind") };
        assert_eq!((bind.propagation, bind.recursion), (Propagation::Rslave, Recursion::Writable));
        assert!(bind.create_source);
        let volume = "src=data,dst=/d,volume-nocopy,volume-subpath=a/b,volume-label=x=1,volume-driver=local,\
                      volume-opt=type=nfs,\"volume-opt=o=addr=1.2.3.4,rw\"";
        let MountKind::Volume(volume) = mount(volume).expect("mount").kind else { panic!("a volume") };
        assert_eq!((volume.name.as_str(), volume.no_copy, volume.subpath.as_deref()), ("data", true, Some("a/b")));
        assert_eq!((volume.driver.as_str(), volume.labels["x"].as_str()), ("local", "1"));
        assert_eq!((volume.options["type"].as_str(), volume.options["o"].as_str()), ("nfs", "addr=1.2.3.4,rw"));
        assert_eq!(mount("src=v,dst=/b,volume-subpath="), mount("src=v,dst=/b"));
        assert_eq!(mount("type=tmpfs,src=,dst=/b"), mount("type=tmpfs,dst=/b"));
        let bind = mount("type=bind,src=/a/../c/,dst=/b/,consistency=Cached").expect("mount");
        assert!(is_bind(&bind, "/c", "/b/", false));
        let [source, target, consistency] = ["/a/../c/", "/b/", "cached"].map(str::to_owned);
        assert_eq!(bind.origin, Origin::Mount(Written { source, target, consistency }));
        assert!(stays_within("a/../b") && !stays_within("a/../../b") && !stays_within("/a"));
        let read_only = mount("type=bind,src=/a,dst=/b,bind-recursive=readonly,ro=t,bind-propagation=rprivate");
        let MountKind::Bind(bind) = read_only.expect("mount").kind else { panic!("a bind") };
        assert_eq!((bind.propagation, bind.recursion), (Propagation::Rprivate, Recursion::ReadOnly));
        let errors = [
            (
                "type=bind,src=/a,dst=/b,bind-recursive=readonly",
                "option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction",
            ),
            (
                "type=bind,src=/a,dst=/b,bind-recursive=readonly,readonly",
                "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction",
            ),
            (
                "type=bind,src=/a,dst=/b,bind-recursive=writable",
                "option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction",
            ),
            ("type=,src=a,dst=/b", "type is required"),
            ("type=bind,src=/a,dst=", "target is required"),
            ("src=\"/a\",dst=/b", "parse error on line 1, column 5: bare \" in non-quoted-field"),
            ("\"src=a\"x,dst=/b", "parse error on line 1, column 7: extraneous or missing \" in quoted-field"),
            ("", "EOF"),
            ("x", "invalid field 'x' must be a key=value pair"),
            ("type=bind,foo=bar", "unexpected key 'foo' in 'foo=bar'"),
            ("type=bind,source=/a", "target is required"),
            ("type=bind,target=/a", "invalid mount config for type \"bind\": field Source must not be empty"),
            ("type=foo,target=/a", "invalid mount config for type \"foo\": mount type unknown"),
            (
                "type=bind,src=a,dst=/b",
                "invalid mount config for type \"bind\": invalid mount path: 'a' mount path must be absolute",
            ),
            (
                "type=bind,src=/a,dst=/b,bind-propagation=x",
                "invalid mount config for type \"bind\": invalid propagation mode: x",
            ),
            ("type=bind,src=/a,dst=/b,ro=maybe", "invalid value for ro: maybe"),
            ("type=bind,src=/a,dst=/b,volume-nocopy", "cannot mix 'volume-*' options with mount type 'bind'"),
            ("dst=/b,tmpfs-size=1m", "cannot mix 'tmpfs-*' options with mount type 'volume'"),
            (
                "src=v,dst=/b,volume-subpath=../x",
                "invalid mount config for type \"volume\": subpath must be a relative path within the volume",
            ),
            (
                "dst=/b,volume-subpath=a",
                "invalid mount config for type \"volume\": must not set Subpath when using anonymous volumes",
            ),
            (
                "src=v,dst=/b,\"volume-opt=a",
                "parse error on line 1, column 27: extraneous or missing \" in quoted-field",
            ),
        ];
        for (text, error) in errors {
            assert_eq!(mount(text), Err(error.to_owned()), "{text}");
        }
    }

    #[test]
    fn tmpfs_reads() {
        let mount = tmpfs("/t:size=64m,mode=1777").expect("tmpfs");
        assert_eq!((mount.kind, mount.target.as_str()), (MountKind::Tmpfs("size=64m,mode=1777".to_owned()), "/t"));
        assert!(tmpfs("t").is_err());
    }
}
