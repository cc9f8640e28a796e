//! Names and ids: given ones are checked, missing ones made.

use std::hash::{DefaultHasher, Hash, Hasher};

use wharf_images::Class;

use crate::error::{Error, Result};
use crate::linux;

const ADJECTIVES: [&str; 48] = [
    "able", "amber", "bold", "brave", "breezy", "bright", "brisk", "calm", "clear", "crisp", "daring", "deep", "eager",
    "early", "fair", "fleet", "fresh", "gentle", "glad", "golden", "grand", "handy", "hardy", "honest", "keen",
    "lively", "loyal", "lucky", "mellow", "merry", "mighty", "misty", "nimble", "noble", "open", "patient", "plucky",
    "proud", "quick", "quiet", "ready", "rugged", "salty", "sandy", "steady", "sunny", "swift", "tidy",
];

const NOUNS: [&str; 48] = [
    "anchor", "barge", "bay", "beacon", "bell", "boat", "bollard", "brig", "buoy", "cargo", "clipper", "compass",
    "coral", "crane", "crew", "current", "cutter", "deck", "dinghy", "dock", "dory", "ferry", "fleet", "gull",
    "harbour", "helm", "heron", "hull", "island", "jetty", "kelp", "keel", "ketch", "lagoon", "lantern", "lighter",
    "mast", "otter", "pelican", "pier", "pilot", "quay", "reef", "rudder", "sail", "schooner", "tide", "tug",
];

/// A new id: 32 random bytes in hexadecimal.
///
/// # Errors
/// Fails when the system has no randomness.
pub fn new_id() -> Result<String> {
    let mut bytes = [0u8; 32];
    fill(&mut bytes)?;
    let mut id = String::with_capacity(64);
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            id.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
    Ok(id)
}

/// True for what may be such an id.
pub fn is_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A random name; from the second attempt on with a number behind it.
///
/// # Errors
/// Fails when the system has no randomness.
pub fn new_name(attempt: u32) -> Result<String> {
    let mut bytes = [0u8; 8];
    fill(&mut bytes)?;
    let n = u64::from_le_bytes(bytes) as usize;
    let (adjective, noun) = (ADJECTIVES[n % ADJECTIVES.len()], NOUNS[(n >> 16) % NOUNS.len()]);
    Ok(match attempt {
        0 => format!("{adjective}_{noun}"),
        _ => format!("{adjective}_{noun}{}", (n >> 32) % 10_000),
    })
}

fn fill(bytes: &mut [u8]) -> Result<()> {
    linux::random(bytes).map_err(|e| Error::os("get random bytes", e))
}

/// Sixteen hexadecimal digits of `text`, for the name of a file that can be made anew: another Rust may give others.
/// (Sha256 would begin by asking the processor what it can do, which takes 20 us in a virtual machine.)
pub(crate) fn short_hash(text: &str) -> String {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Checks a given container name.
///
/// # Errors
/// `InvalidInput`, in docker's words.
pub fn check(name: &str) -> Result<()> {
    check_shown(name, name)
}

/// Characters of the longest name.
const LONGEST: usize = 255;

/// The same, where the message says `shown`.
///
/// # Errors
/// As [`check`].
pub fn check_shown(name: &str, shown: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    if name.len() > LONGEST {
        let message =
            format!("Invalid container name: it has {} characters, at most {LONGEST} are allowed", name.len());
        return Err(Error::new(Class::InvalidInput, message));
    }
    let rest = bytes.len() > 0 && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if first && rest {
        return Ok(());
    }
    Err(Error::new(
        Class::InvalidInput,
        format!("Invalid container name ({shown}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_pass_the_check_and_differ() {
        for attempt in 0..3 {
            check(&new_name(attempt).unwrap()).unwrap();
        }
        assert_ne!(new_id().unwrap(), new_id().unwrap());
        assert_eq!(new_id().unwrap().len(), 64);
    }

    #[test]
    fn bad_names_are_refused() {
        for bad in ["", "a", "-a", "a b", "a/b", "a\u{1b}[31m", "ä1"] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        for good in ["ab", "web-1.x_2", "0a"] {
            check(good).unwrap();
        }
    }
}
