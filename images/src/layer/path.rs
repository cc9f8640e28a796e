//! Names in archives are claims. Here they become relative paths without `..`, or errors; whether a component on the
//! way is a symlink is the kernel's business (see `os`).

use super::entries::{corrupt, show};
use crate::error::{Class, Error, Result};

/// Linux's `PATH_MAX`: no longer name can be used by a program in the container.
const MAX_PATH: usize = 4096;
/// Deeper trees serve only to exhaust whoever walks them.
const MAX_DEPTH: usize = 512;

/// The prefix of whiteouts and the name that makes a directory opaque
/// (<https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md#whiteouts>).
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const AUFS: &[u8] = b".wh..wh.";

/// What an entry's name asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The root directory itself.
    Root,
    /// This path, cleaned.
    Path(Vec<u8>),
    /// That this path be hidden.
    Whiteout(Vec<u8>),
    /// That all in this directory (empty: the root) be hidden.
    Opaque(Vec<u8>),
    /// Aufs's own records: nothing.
    Nothing,
}

/// Cleans `path` as docker does: relative to the root whatever it begins with; `..` is taken back lexically.
pub(super) fn clean(path: &[u8]) -> Result<Vec<u8>> {
    if path.contains(&0) {
        return Err(corrupt(format!("layer: {} contains a NUL", show(path))));
    }
    if path.len() > MAX_PATH {
        return Err(Error::new(Class::LimitExceeded, format!("layer: a name of {} bytes", path.len())));
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop().ok_or_else(|| corrupt(format!("layer: {} leads out of it", show(path))))?;
            }
            part => parts.push(part),
        }
    }
    if parts.len() > MAX_DEPTH {
        return Err(Error::new(Class::LimitExceeded, format!("layer: a path {} directories deep", parts.len())));
    }
    Ok(parts.join(&b'/'))
}

/// Cleans the `path` of an archive that is no layer: every name means itself.
pub(super) fn plain(path: &[u8]) -> Result<Target> {
    let path = clean(path)?;
    Ok(if path.is_empty() { Target::Root } else { Target::Path(path) })
}

/// Cleans `path` and tells what it asks for.
pub(super) fn target(path: &[u8]) -> Result<Target> {
    let path = clean(path)?;
    if path.is_empty() {
        return Ok(Target::Root);
    }
    let (parent, name) = split(&path);
    if name == OPAQUE {
        return Ok(Target::Opaque(parent.to_vec()));
    }
    if name.starts_with(AUFS) {
        return Ok(Target::Nothing);
    }
    let Some(hidden) = name.strip_prefix(WHITEOUT) else { return Ok(Target::Path(path)) };
    if matches!(hidden, b"" | b"." | b"..") {
        return Err(corrupt(format!("layer: {} is a whiteout of nothing", show(&path))));
    }
    Ok(Target::Whiteout(join(parent, hidden)))
}

/// Parent (empty for the root) and last component.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// `parent/name`.
pub(super) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        for (given, cleaned) in [
            (&b"./a//b/"[..], &b"a/b"[..]),
            (b"/etc/passwd", b"etc/passwd"),
            (b"a/../b", b"b"),
            (b"./", b""),
            (b"/", b""),
            (b"", b""),
        ] {
            assert_eq!(clean(given).unwrap(), cleaned);
        }
        for bad in [&b"../a"[..], b"/../a", b"a/../../b", b"..", b"a\0b"] {
            assert!(clean(bad).is_err(), "{}", show(bad));
        }
        assert_eq!(clean(&[b'a'; 5000]).unwrap_err().class(), Class::LimitExceeded);
        assert_eq!(clean(&b"a/".repeat(600)).unwrap_err().class(), Class::LimitExceeded);
    }

    #[test]
    fn whiteouts_name_one_thing() {
        assert_eq!(target(b"a/.wh.b").unwrap(), Target::Whiteout(b"a/b".to_vec()));
        assert_eq!(target(b".wh..b").unwrap(), Target::Whiteout(b".b".to_vec()));
        assert_eq!(target(b"a/.wh..wh..opq").unwrap(), Target::Opaque(b"a".to_vec()));
        assert_eq!(target(b".wh..wh.plnk").unwrap(), Target::Nothing);
        for bad in [&b".wh."[..], b".wh..", b".wh...", b"a/.wh.."] {
            assert_eq!(target(bad).unwrap_err().class(), Class::Corrupt, "{}", show(bad));
        }
    }
}
