//! Platforms: what an index offers, what this machine runs, what a person asks for.
//!
//! The spelling and the equivalences (`x86_64` is `amd64`, `arm64/v8` is `arm64`) are those of
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/image-index.md#platform-variants> and of docker's
//! `--platform`. For wasm the names in the wild disagree (`wasi/wasm`, `wasi/wasm32`, `wasip1/wasm`), so they are
//! compared loosely.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Class, Error, Result};

/// An operating system and architecture, as in an index (`linux/amd64`, `wasip1/wasm`, `linux/arm/v7`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Platform {
    /// `linux`, `wasip1`, `wasip2`, `wasi`.
    pub os: String,
    /// `amd64`, `arm64`, `wasm`.
    pub architecture: String,
    /// `v7`, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// A platform without a variant.
    pub fn new(os: &str, architecture: &str) -> Self {
        Platform { os: os.to_owned(), architecture: architecture.to_owned(), variant: None }.normalised()
    }

    /// The platforms this machine runs, best first: the host's own, then wasm.
    pub fn host_preference() -> Vec<Platform> {
        let mut platforms = Vec::with_capacity(4);
        if std::env::consts::OS == "linux" {
            platforms.push(Platform::new("linux", std::env::consts::ARCH));
        }
        platforms.extend(["wasip2", "wasip1", "wasi"].map(|os| Platform::new(os, "wasm")));
        platforms
    }

    /// True for WebAssembly.
    pub fn is_wasm(&self) -> bool {
        matches!(self.architecture.as_str(), "wasm" | "wasm32")
    }

    /// True when an image for `offered` is what `self` asks for.
    pub fn accepts(&self, offered: &Platform) -> bool {
        let offered = offered.clone().normalised();
        if self.is_wasm() && offered.is_wasm() {
            // `wasi` leaves open which one.
            return self.os == offered.os || self.os == "wasi" || offered.os == "wasi" && self.os == "wasip1";
        }
        self.os == offered.os
            && self.architecture == offered.architecture
            && self.effective_variant() == offered.effective_variant()
    }

    fn effective_variant(&self) -> Option<&str> {
        self.variant.as_deref().or(match self.architecture.as_str() {
            "arm" => Some("v7"),
            _ => None,
        })
    }

    /// One spelling for what is the same.
    #[must_use]
    pub(super) fn normalised(mut self) -> Self {
        self.os.make_ascii_lowercase();
        self.architecture.make_ascii_lowercase();
        if self.os == "macos" {
            "darwin".clone_into(&mut self.os);
        }
        let (architecture, variant) = match self.architecture.as_str() {
            "x86_64" | "x86-64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "armhf" => ("arm", Some("v7")),
            "armel" => ("arm", Some("v6")),
            "i386" | "x86" => ("386", None),
            "powerpc64le" => ("ppc64le", None),
            "wasm32" => ("wasm", None),
            _ => ("", None),
        };
        if !architecture.is_empty() {
            architecture.clone_into(&mut self.architecture);
            self.variant = self.variant.or(variant.map(str::to_owned));
        }
        let plain = match self.architecture.as_str() {
            "amd64" => Some("v1"),
            "arm64" => Some("v8"),
            _ => Some(""),
        };
        if self.variant.as_deref() == plain || self.variant.as_deref() == Some("") {
            self.variant = None;
        }
        self
    }
}

const SYSTEMS: [&str; 8] = ["linux", "windows", "darwin", "macos", "freebsd", "wasi", "wasip1", "wasip2"];
const ARCHITECTURES: [&str; 19] = [
    "amd64", "arm64", "arm", "386", "ppc64le", "s390x", "riscv64", "mips64le", "loong64", "wasm", "wasm32", "x86_64",
    "x86-64", "aarch64", "armhf", "armel", "i386", "x86", "ppc64",
];

impl FromStr for Platform {
    type Err = Error;

    /// `os/arch`, `os/arch/variant`, or one of os and arch alone.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::new(Class::InvalidInput, format!("{text:?}: {why}: invalid argument"))
                .with_hint("a platform is written os/arch[/variant], such as linux/amd64 or wasip1/wasm")
        };
        let unknown = || wrong("unknown operating system or architecture");
        let lower = text.to_ascii_lowercase();
        let parts: Vec<&str> = lower.split('/').collect();
        let known = |list: &[&str], part: &str| list.contains(&part);
        let word = |part: &&str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        if !parts.iter().all(word) {
            return Err(unknown());
        }
        let host_arch = std::env::consts::ARCH;
        let (os, architecture, variant) = match parts[..] {
            [os] if known(&SYSTEMS, os) => (os, if os.starts_with("wasi") { "wasm" } else { host_arch }, None),
            [arch @ ("wasm" | "wasm32")] => ("wasi", arch, None),
            [arch] if known(&ARCHITECTURES, arch) => ("linux", arch, None),
            [os, arch] => (os, arch, None),
            [os, arch, variant] => (os, arch, Some(variant.to_owned())),
            [_, _, _, _, ..] => return Err(wrong("cannot parse platform specifier")),
            _ => return Err(unknown()),
        };
        Ok(Platform { os: os.to_owned(), architecture: architecture.to_owned(), variant }.normalised())
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_platform_are_one() {
        for (text, shown) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("LINUX/AMD64/v1", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm/v7", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("wasm", "wasi/wasm"),
            ("wasi/wasm32", "wasi/wasm"),
            ("wasip1", "wasip1/wasm"),
            ("arm64", "linux/arm64"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), shown, "{text}");
        }
        for bad in ["", "/", "linux/", "a/b/c/d", "nonsense", "linux/amd 64", "linux/\u{1b}[0m"] {
            assert_eq!(bad.parse::<Platform>().unwrap_err().class(), Class::InvalidInput, "{bad}");
        }
    }

    #[test]
    fn a_platform_accepts_what_it_means() {
        for (wanted, offered, fits) in [
            ("linux/amd64", "linux/amd64", true),
            ("linux/amd64", "linux/amd64/v3", false),
            ("linux/amd64", "linux/arm64", false),
            ("linux/arm64", "linux/arm64/v8", true),
            ("linux/arm", "linux/arm/v7", true),
            ("linux/arm/v6", "linux/arm/v7", false),
            ("wasi/wasm", "wasip2/wasm", true),
            ("wasip1/wasm", "wasi/wasm32", true),
            ("wasip1/wasm", "wasip2/wasm", false),
            ("wasip2/wasm", "wasi/wasm", false),
        ] {
            let [a, b] = [wanted, offered].map(|p| p.parse::<Platform>().unwrap());
            assert_eq!(a.accepts(&b), fits, "{wanted} and {offered}");
        }
    }

    #[test]
    fn the_host_comes_before_wasm() {
        let platforms = Platform::host_preference();
        assert!(platforms.iter().any(Platform::is_wasm));
        assert_eq!(platforms[0].is_wasm(), std::env::consts::OS != "linux");
    }
}
