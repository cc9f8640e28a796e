//! Whether a bind mount can have the propagation that is asked for: of what is not shared with others there is nothing to
//! share (mount_namespaces(7)). The kernel makes such a mount all the same, and nothing ever shows; docker refuses it, in
//! the words used here.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::config::{BindMount, Propagation};
use crate::error::{Class, Error, Result};

/// Where this process's mounts are listed, proc_pid_mountinfo(5).
const MOUNTS: &str = "/proc/self/mountinfo";

/// Looks at the mount that has the source.
///
/// # Errors
/// `InvalidInput` when that has not what it takes.
pub(super) fn check(bind: &BindMount) -> Result<()> {
    let (needs, what): (&[&str], _) = match bind.propagation {
        Propagation::Rprivate | Propagation::Private => return Ok(()),
        Propagation::Rshared | Propagation::Shared => (&["shared:"], "a shared mount"),
        Propagation::Rslave | Propagation::Slave => (&["shared:", "master:"], "a shared or slave mount"),
    };
    let source = Path::new(&bind.source);
    // One that is not there is somebody else's to refuse.
    let Ok(real) = source.canonicalize() else { return Ok(()) };
    let text = fs::read(MOUNTS).map_err(|e| Error::io("read", MOUNTS, e))?;
    match holding(&text, &real) {
        Some((point, fields)) if !needs.iter().any(|need| fields.iter().any(|field| field.starts_with(need))) => {
            let message = format!("path {} is mounted on {} but it is not {what}", source.display(), point.display());
            Err(Error::new(Class::InvalidInput, message)
                .with_hint(format!("make it one first, by mount --make-shared {}", point.display())))
        }
        _ => Ok(()),
    }
}

/// The mount that a path is on, and its optional fields: of those above it, the nearest, and there the topmost.
fn holding<'a>(text: &'a [u8], path: &Path) -> Option<(PathBuf, Vec<&'a str>)> {
    let mounts = text.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ').skip(4);
        let point = PathBuf::from(plain(fields.next()?));
        let optional = fields.skip(1).take_while(|field| *field != b"-");
        path.starts_with(&point).then(|| (point, optional.filter_map(|field| str::from_utf8(field).ok()).collect()))
    });
    mounts.max_by_key(|(point, _): &(PathBuf, _)| point.components().count())
}

/// Without the escapes of spaces and the like: `\` and three octal digits.
fn plain(field: &[u8]) -> OsString {
    let mut parts = field.split(|byte| *byte == b'\\');
    let mut bytes = parts.next().unwrap_or_default().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at(part.len().min(3));
        bytes.extend(str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, 8).ok()));
        bytes.extend(rest);
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    const TEXT: &[u8] = b"1 0 8:1 / / rw - ext4 /dev/vda rw\n\
        2 1 8:1 / /a\\040b rw shared:7 - tmpfs tmpfs rw\n\
        3 1 8:1 / /data rw master:3 propagate_from:2 - tmpfs tmpfs rw\n\
        4 3 8:1 / /data rw - tmpfs - rw\n";

    #[test]
    fn a_path_is_on_the_nearest_and_topmost_mount() {
        let of = |path: &str| {
            let (point, fields) = holding(TEXT, Path::new(path)).unwrap();
            (point.display().to_string(), fields.join(" "))
        };
        assert_eq!(of("/a b/c"), ("/a b".to_owned(), "shared:7".to_owned()));
        assert_eq!(of("/a"), ("/".to_owned(), String::new()));
        assert_eq!(of("/data/x"), ("/data".to_owned(), String::new()));
        assert_eq!(of("/database"), ("/".to_owned(), String::new()));
        assert_eq!(plain(b"\\134x\\040"), OsStr::from_bytes(b"\\x "));
    }
}
