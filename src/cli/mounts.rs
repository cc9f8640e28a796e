//! `-v`, `--mount` and `--tmpfs` (<https://docs.docker.com/engine/storage/bind-mounts/>).

use std::path::Path;

use wharf_runtime::config::{Mount, MountKind};

use super::units::parse_size;

const NO_VOLUMES: &str = "named and anonymous volumes are not supported yet: give a path of the host (/dir or ./dir)";

/// `-v HOST:CONTAINER[:OPTIONS]`.
///
/// # Errors
/// Says which part is wrong.
pub fn volume(text: &str) -> Result<Mount, String> {
    volume_or_root(text).and_then(not_root)
}

/// As [`volume`], where CONTAINER may be `/`: a WebAssembly file that is run has no root filesystem of its own.
///
/// # Errors
/// Says which part is wrong.
pub fn volume_or_root(text: &str) -> Result<Mount, String> {
    let parts = split_drive(text);
    let (source, target, options) = match parts[..] {
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        [_] => return Err(NO_VOLUMES.to_owned()),
        _ => return Err(format!("invalid volume specification: '{text}'")),
    };
    if source.is_empty() || target.is_empty() {
        return Err(format!("invalid volume specification: '{text}'"));
    }
    if !Path::new(source).is_absolute() && !source.starts_with('.') {
        return Err(NO_VOLUMES.to_owned());
    }
    let mut read_only = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            // SELinux labels and the Mac's caching do not exist here; rprivate is what we do.
            "rw" | "z" | "Z" | "rprivate" | "consistent" | "cached" | "delegated" => {}
            "private" | "shared" | "rshared" | "slave" | "rslave" => {
                return Err(format!("bind propagation {option} is not supported yet"));
            }
            _ => return Err(format!("invalid volume specification: '{text}': invalid mode: {option}")),
        }
    }
    bind(source, target, read_only)
}

/// Splits at colons, but keeps a Windows drive (`C:\`) with its path.
fn split_drive(text: &str) -> Vec<&str> {
    let start = if matches!(text.as_bytes(), [drive, b':', b'\\', ..] if drive.is_ascii_alphabetic()) { 2 } else { 0 };
    let mut parts: Vec<_> = text[start..].split(':').collect();
    parts[0] = &text[..start + parts[0].len()];
    parts
}

fn bind(source: &str, target: &str, read_only: bool) -> Result<Mount, String> {
    let source = std::path::absolute(source).map_err(|e| format!("cannot make {source} absolute: {e}"))?;
    let Some(source) = source.to_str() else { return Err(format!("{} is not valid UTF-8", source.display())) };
    Ok(Mount { kind: MountKind::Bind(source.to_owned()), target: absolute(target)?, read_only })
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
    not_root(Mount { kind: MountKind::Tmpfs(options.to_owned()), target: absolute(target)?, read_only })
}

/// `--mount type=bind,source=/a,target=/b,readonly`.
///
/// # Errors
/// Docker's words.
pub fn mount(text: &str) -> Result<Mount, String> {
    let (mut kind, mut source, mut target) = ("volume", None, None);
    let mut read_only = false;
    let mut tmpfs_options = Vec::new();
    for field in text.split(',') {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (field, None),
        };
        let (key, value) = match (key.to_ascii_lowercase().as_str(), value) {
            ("readonly" | "ro", value) => {
                read_only =
                    boolean(value).ok_or_else(|| format!("invalid value for {key}: {}", value.unwrap_or("")))?;
                continue;
            }
            (key, Some(value)) => (key.to_owned(), value),
            (_, None) => return Err(format!("invalid field '{field}' must be a key=value pair")),
        };
        match key.as_str() {
            "type" => kind = value,
            "source" | "src" => source = Some(value),
            "target" | "dst" | "destination" => target = Some(value),
            "tmpfs-size" => tmpfs_options.push(format!("size={}", parse_size(value)?)),
            "tmpfs-mode" => {
                u32::from_str_radix(value, 8).map_err(|_| format!("invalid value for {key}: {value}"))?;
                tmpfs_options.push(format!("mode={value}"));
            }
            "bind-propagation" if value == "rprivate" => {}
            "consistency" => {}
            "bind-propagation" | "bind-nonrecursive" | "bind-recursive" | "bind-create-src" | "volume-nocopy"
            | "volume-label" | "volume-driver" | "volume-opt" | "volume-subpath" => {
                return Err(format!("{key} is not supported yet"));
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    let Some(target) = target else { return Err("target is required".to_owned()) };
    match (kind.to_ascii_lowercase().as_str(), source) {
        ("bind", Some(source)) => bind(source, target, read_only).and_then(not_root),
        ("bind", None) => Err("source is required when type is bind".to_owned()),
        ("tmpfs", None) => {
            not_root(Mount { kind: MountKind::Tmpfs(tmpfs_options.join(",")), target: absolute(target)?, read_only })
        }
        ("tmpfs", Some(_)) => Err("source must not be set when type is tmpfs".to_owned()),
        ("volume", _) => Err("type=volume is not supported yet: use type=bind or type=tmpfs".to_owned()),
        (other @ ("image" | "npipe" | "cluster"), _) => Err(format!("type={other} is not supported yet")),
        (other, _) => Err(format!("mount type unknown: {other:?}")),
    }
}

/// A switch within `--mount`: alone it is on.
fn boolean(value: Option<&str>) -> Option<bool> {
    match value {
        None | Some("1" | "true" | "True" | "TRUE") => Some(true),
        Some("0" | "false" | "False" | "FALSE") => Some(false),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_bind(mount: &Mount, source: &str, target: &str, read_only: bool) -> bool {
        mount.kind == MountKind::Bind(source.to_owned()) && mount.target == target && mount.read_only == read_only
    }

    #[test]
    fn volumes_read() {
        assert!(is_bind(&volume("/a:/b").expect("volume"), "/a", "/b", false));
        assert!(is_bind(&volume("/a:/b:ro,z").expect("volume"), "/a", "/b", true));
        let here = std::env::current_dir().expect("cwd");
        let mount = volume("./x:/b").expect("volume");
        assert_eq!(mount.kind, MountKind::Bind(here.join("x").display().to_string()));
        let errors = [
            ("/data", NO_VOLUMES),
            ("data:/data", NO_VOLUMES),
            ("/a:b", "invalid mount path: 'b' mount path must be absolute"),
            ("/a:/b:bad", "invalid volume specification: '/a:/b:bad': invalid mode: bad"),
            ("/a:/b:ro:x", "invalid volume specification: '/a:/b:ro:x'"),
            ("/a:/", "invalid specification: destination can't be '/'"),
            ("/a:/b:rshared", "bind propagation rshared is not supported yet"),
        ];
        for (text, error) in errors {
            assert_eq!(volume(text), Err(error.to_owned()), "{text}");
        }
    }

    #[test]
    fn mounts_read() {
        assert!(is_bind(&mount("type=bind,source=/a,target=/b").expect("mount"), "/a", "/b", false));
        assert!(is_bind(&mount("type=bind,src=/a,dst=/b,readonly").expect("mount"), "/a", "/b", true));
        assert!(is_bind(&mount("type=bind,src=/a,dst=/b,ro=false").expect("mount"), "/a", "/b", false));
        let tmpfs = mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770").expect("mount");
        assert_eq!(tmpfs.kind, MountKind::Tmpfs("size=1048576,mode=1770".to_owned()));
        let errors = [
            ("x", "invalid field 'x' must be a key=value pair"),
            ("type=bind,foo=bar", "unexpected key 'foo' in 'foo=bar'"),
            ("type=bind,source=/a", "target is required"),
            ("type=bind,target=/a", "source is required when type is bind"),
            ("type=foo,target=/a", "mount type unknown: \"foo\""),
            ("target=/a", "type=volume is not supported yet: use type=bind or type=tmpfs"),
            ("type=bind,src=/a,dst=/b,ro=maybe", "invalid value for ro: maybe"),
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
