//! The words behind the last colon of `-v` and `--volumes-from`: `ro,z`.

use std::str::FromStr;

use crate::config::Propagation;
use crate::error::{Class, Error, Result};

/// What they say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mode {
    /// No writing.
    pub read_only: bool,
    /// Does not fill an empty volume.
    pub no_copy: bool,
    /// Where mounts made later on one side show, if that was said.
    pub propagation: Option<Propagation>,
}

impl FromStr for Mode {
    type Err = Error;

    /// Of each kind of word there can be one.
    fn from_str(text: &str) -> Result<Self> {
        let invalid = || Error::new(Class::InvalidInput, format!("invalid mode: {text}"));
        let mut mode = Mode::default();
        let mut kinds = Vec::new();
        for word in text.split(',').filter(|_| !text.is_empty()) {
            let kind = match word {
                "ro" | "rw" => {
                    mode.read_only = word == "ro";
                    "access"
                }
                // SELinux labels and the Mac's caching do not exist here.
                "z" | "Z" => "label",
                "consistent" | "cached" | "delegated" => "consistency",
                "nocopy" => {
                    mode.no_copy = true;
                    "copy"
                }
                word => {
                    mode.propagation = Some(word.parse().map_err(|()| invalid())?);
                    "propagation"
                }
            };
            if kinds.contains(&kind) {
                return Err(invalid());
            }
            kinds.push(kind);
        }
        Ok(mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_word_is_said_once() {
        let mode = |text: &str| text.parse::<Mode>().map_err(|e| e.to_string());
        assert_eq!(mode(""), Ok(Mode::default()));
        assert_eq!(mode("rw,Z,cached"), Ok(Mode::default()));
        let all = Mode { read_only: true, no_copy: true, propagation: Some(Propagation::Rslave) };
        assert_eq!(mode("nocopy,ro,rslave"), Ok(all));
        for wrong in ["bad", "ro,", ",", "ro,bad", "rw,ro", "ro,ro", "z,Z", "shared,slave", "cached,consistent", "RO"] {
            assert_eq!(mode(wrong), Err(format!("invalid mode: {wrong}")), "{wrong}");
        }
    }
}
