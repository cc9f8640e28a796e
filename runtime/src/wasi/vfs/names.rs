//! Names as a guest may spell them. WASI's separator is `/` alone, and a name is whatever stands between two; the host's
//! system may think otherwise.

use super::error::{Code, Result};

/// The longest name, in bytes, as on every system that we know.
const LONGEST: usize = 255;

/// Names that Windows gives to devices, with any extension.
const DEVICES: [&str; 4] = ["CON", "PRN", "AUX", "NUL"];

/// Refuses a path that no directory can resolve, and names that the host would take for something else than one name.
pub(super) fn check(path: &str) -> Result<()> {
    if path.is_empty() {
        return Err(Code::NoEntry);
    }
    // The specification's word for what leaves the base directory.
    if path.starts_with('/') {
        return Err(Code::NotPermitted);
    }
    if path.contains('\0') {
        return Err(Code::Invalid);
    }
    if std::path::is_separator('\\') && !path.split('/').all(fits_windows) {
        return Err(Code::Invalid);
    }
    Ok(())
}

/// Refuses one name that is too long, which names of no file (a mount's, a whiteout's) never meet the system for.
pub(super) fn check_length(name: &str) -> Result<()> {
    if name.len() > LONGEST { Err(Code::NameTooLong) } else { Ok(()) }
}

/// True if `name` names a file of its own on Windows: no drive, stream, separator or device, and nothing that the system
/// strips from the end.
/// <https://learn.microsoft.com/en-us/windows/win32/fileio/naming-a-file>
fn fits_windows(name: &str) -> bool {
    if matches!(name, "" | "." | "..") {
        return true;
    }
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let numbered = |prefix: &str| {
        stem.strip_prefix(prefix)
            .is_some_and(|n| n.chars().count() == 1 && n.contains(|c: char| "123456789¹²³".contains(c)))
    };
    !name.contains(|c: char| c.is_ascii_control() || "\\:*?\"<>|".contains(c))
        && !name.ends_with([' ', '.'])
        && !DEVICES.contains(&stem.as_str())
        && !numbered("COM")
        && !numbered("LPT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_nothing_resolves() {
        assert_eq!(check(""), Err(Code::NoEntry));
        assert_eq!(check("/etc"), Err(Code::NotPermitted));
        assert_eq!(check("a\0b"), Err(Code::Invalid));
        assert_eq!(check("a/../b/"), Ok(()));
    }

    #[test]
    fn names_that_windows_takes_for_something_else() {
        for name in [
            "..\\..\\x",
            "C:",
            "C:x",
            "a:stream",
            "nul",
            "NUL.txt",
            "con ",
            "com1",
            "LPT9.log",
            "a ",
            "a.",
            "a*",
            "\u{1}",
        ] {
            assert!(!fits_windows(name), "{name:?}");
        }
        for name in ["..", ".", "", ".hidden", "a b", "console", "com", "com10", "nul_", "日本"] {
            assert!(fits_windows(name), "{name:?}");
        }
    }
}
