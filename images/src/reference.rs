//! Image names with docker's grammar and normalisation
//! (<https://github.com/distribution/reference>): `debian` means `docker.io/library/debian:latest`.
//!
//! A [`Reference`] is checked when it is made. What an archive or an annotation calls a name becomes one here or
//! is refused, so no stranger's text reaches the database, a table or a URL.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::error::{Class, Error, Result};

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DOMAIN: &str = "index.docker.io";
const OFFICIAL_PREFIX: &str = "library/";
const BUILTIN_PREFIX: &str = "wharf/";
const MAX_PATH: usize = 255;
const MAX_TAG: usize = 128;

/// A checked, normalised image name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// The registry's host, with port if given: `docker.io`, `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry: `library/debian`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag; `latest` where neither tag nor digest was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// `docker.io/library/debian`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The same repository, with this tag and no digest.
    ///
    /// # Errors
    /// `InvalidInput` when `tag` is not one.
    pub fn with_tag(&self, tag: &str) -> Result<Self> {
        if !is_tag(tag) {
            return Err(invalid());
        }
        Ok(Reference { domain: self.domain.clone(), path: self.path.clone(), tag: Some(tag.to_owned()), digest: None })
    }

    /// The same repository, with this digest and no tag.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Reference { domain: self.domain.clone(), path: self.path.clone(), tag: None, digest: Some(digest) }
    }

    /// The repository as docker shows it: `debian`, `localhost:5000/x`.
    ///
    /// Parsing it gives the same repository again; where docker's shortening would not (`docker.io/localhost/x`),
    /// the whole name stays.
    pub fn familiar_repository(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.repository();
        }
        let short = match self.path.strip_prefix(OFFICIAL_PREFIX) {
            Some(name) if !name.contains('/') => name,
            _ => &self.path,
        };
        let (domain, path) = split_domain(short);
        if domain == self.domain && path == self.path && !is_hex_id(short) {
            short.to_owned()
        } else {
            self.repository()
        }
    }

    /// The whole name as docker shows it: `debian:latest`.
    pub fn familiar(&self) -> String {
        let mut name = self.familiar_repository();
        self.push_suffix(&mut name);
        name
    }

    /// True for names under `wharf/`, which are built into the program.
    pub fn is_builtin(&self) -> bool {
        self.domain == DEFAULT_DOMAIN && self.path.starts_with(BUILTIN_PREFIX)
    }

    fn push_suffix(&self, name: &mut String) {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(digest.as_str());
        }
    }
}

fn invalid() -> Error {
    Error::new(Class::InvalidInput, "invalid reference format")
}

/// Docker refuses a name that could be taken for an image id.
fn is_hex_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Which part of a name is the registry's host: the part before the first slash, if it has a dot, a colon or a
/// capital, or is `localhost`. All else is a repository on docker.io.
fn split_domain(name: &str) -> (&str, String) {
    let (domain, path) = match name.split_once('/') {
        Some((first, rest))
            if first == "localhost" || first.contains(['.', ':']) || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (if first == LEGACY_DOMAIN { DEFAULT_DOMAIN } else { first }, rest)
        }
        _ => (DEFAULT_DOMAIN, name),
    };
    if domain == DEFAULT_DOMAIN && !path.contains('/') {
        return (domain, format!("{OFFICIAL_PREFIX}{path}"));
    }
    (domain, path.to_owned())
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        // The last colon of a bare IPv6 address is not a port's.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (domain, None),
    };
    if port.is_some_and(|p| p.is_empty() || !p.bytes().all(|b| b.is_ascii_digit())) {
        return false;
    }
    if let Some(address) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
    }
    host.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    })
}

/// `[a-z0-9]+` parts, separated by one `.`, one or two `_`, or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if !component.bytes().next().is_some_and(word) || !component.bytes().next_back().is_some_and(word) {
        return false;
    }
    component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).all(|separator| {
        matches!(separator, "" | "." | "_" | "__") || (!separator.is_empty() && separator.bytes().all(|b| b == b'-'))
    })
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if is_hex_id(text) {
            return Err(Error::new(
                Class::InvalidInput,
                format!("invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"),
            ));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse::<Digest>().map_err(|_| invalid())?)),
            None => (text, None),
        };
        if name.is_empty() {
            return Err(invalid());
        }
        let (domain, rest) = split_domain(name);
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest.as_str(), None),
        };
        if path.chars().any(char::is_uppercase) {
            return Err(Error::new(
                Class::InvalidInput,
                format!("invalid reference format: repository name ({path}) must be lowercase"),
            ));
        }
        if !is_domain(domain) || !path.split('/').all(is_path_component) || tag.is_some_and(|t| !is_tag(t)) {
            return Err(invalid());
        }
        if path.len() > MAX_PATH {
            return Err(Error::new(
                Class::InvalidInput,
                format!("invalid reference format: repository name must not be more than {MAX_PATH} characters"),
            ));
        }
        let tag = match tag {
            None if digest.is_none() => Some("latest".to_owned()),
            tag => tag.map(str::to_owned),
        };
        Ok(Reference { domain: domain.to_owned(), path: path.to_owned(), tag, digest })
    }
}

impl fmt::Display for Reference {
    /// The full, normalised name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut name = self.repository();
        self.push_suffix(&mut name);
        f.write_str(&name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_normalised_as_docker_does() {
        let digest = format!("sha256:{HEX}");
        for (given, full, familiar) in [
            ("debian", "docker.io/library/debian:latest", "debian:latest"),
            ("debian:12", "docker.io/library/debian:12", "debian:12"),
            ("library/debian", "docker.io/library/debian:latest", "debian:latest"),
            ("docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
            ("index.docker.io/library/debian:x", "docker.io/library/debian:x", "debian:x"),
            ("user/app", "docker.io/user/app:latest", "user/app:latest"),
            ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
            ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
            ("localhost:5000/app:1", "localhost:5000/app:1", "localhost:5000/app:1"),
            ("ghcr.io/a/b/c:v1.2-x_y", "ghcr.io/a/b/c:v1.2-x_y", "ghcr.io/a/b/c:v1.2-x_y"),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
            ("[fe80::1]/x", "[fe80::1]/x:latest", "[fe80::1]/x:latest"),
            ("MyHost/x", "MyHost/x:latest", "MyHost/x:latest"),
            ("a--b__c/d.e", "docker.io/a--b__c/d.e:latest", "a--b__c/d.e:latest"),
            ("docker.io/localhost/x", "docker.io/localhost/x:latest", "docker.io/localhost/x:latest"),
            (&format!("debian@{digest}"), &format!("docker.io/library/debian@{digest}"), &format!("debian@{digest}")),
            (
                &format!("debian:12@{digest}"),
                &format!("docker.io/library/debian:12@{digest}"),
                &format!("debian:12@{digest}"),
            ),
        ] {
            let reference: Reference = given.parse().unwrap_or_else(|e| panic!("{given}: {e}"));
            assert_eq!(reference.to_string(), full);
            assert_eq!(reference.familiar(), familiar);
        }
    }

    #[test]
    fn bad_names_are_refused() {
        for bad in [
            "",
            ":",
            "@",
            "/",
            "a/",
            "/a",
            "a//b",
            "a b",
            "debian:",
            "debian:-x",
            "debian:a b",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a._b",
            "../etc/passwd",
            "a/../b",
            "host.example:port/x",
            "host.example:/x",
            ".example/x",
            "-host.example/x",
            "[::1/x",
            "[zz]/x",
            "debian@sha256:abc",
            "debian@md5:d41d8cd98f00b204e9800998ecf8427e",
            "a\u{1b}[31m",
            "naïve",
            // The first part has a dot, so it is a host, and hosts have no `__`.
            "a__b.c/d",
            "a:b:c",
            "sha256:abc@x",
        ] {
            let error = bad.parse::<Reference>().expect_err(bad);
            assert_eq!(error.class(), Class::InvalidInput, "{bad}");
            assert_eq!(error.to_string(), "invalid reference format", "{bad}");
        }
    }

    #[test]
    fn refusals_use_dockers_words() {
        let message = |name: &str| name.parse::<Reference>().unwrap_err().to_string();
        assert_eq!(message("Debian"), "invalid reference format: repository name (library/Debian) must be lowercase");
        assert_eq!(message("ghcr.io/A/b:X"), "invalid reference format: repository name (A/b) must be lowercase");
        assert_eq!(
            message(HEX),
            format!("invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings")
        );
        assert_eq!(
            message(&format!("x.io/{}", "a".repeat(256))),
            "invalid reference format: repository name must not be more than 255 characters"
        );
        assert!(format!("x.io/{}", "a".repeat(255)).parse::<Reference>().is_ok());
        assert!(format!("a:{}", "t".repeat(128)).parse::<Reference>().is_ok());
        assert_eq!(message(&format!("a:{}", "t".repeat(129))), "invalid reference format");
    }

    #[test]
    fn only_dockers_wharf_is_built_in() {
        assert!("wharf/hello".parse::<Reference>().unwrap().is_builtin());
        for other in ["hello", "wharf", "example.com/wharf/hello", "wharfs/hello"] {
            assert!(!other.parse::<Reference>().unwrap().is_builtin(), "{other}");
        }
    }

    proptest! {
        #[test]
        fn a_name_survives_being_written_and_read(
            domain in "(docker\\.io|localhost|localhost:[1-9][0-9]{0,4}|[a-z]{1,5}(\\.[a-z]{1,4}){1,2}(:[0-9]{1,4})?)",
            path in "([a-z0-9]{1,4}(([._]|__|-{1,2})[a-z0-9]{1,4}){0,2}/){0,3}[a-z0-9]{1,6}",
            tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,12}"),
            with_digest in any::<bool>(),
        ) {
            let mut text = format!("{domain}/{path}");
            if let Some(tag) = &tag { text = format!("{text}:{tag}"); }
            if with_digest { text = format!("{text}@sha256:{HEX}"); }
            let reference: Reference = text.parse().unwrap();
            prop_assert_eq!(&reference, &reference.to_string().parse().unwrap());
            prop_assert_eq!(&reference, &reference.familiar().parse().unwrap());
        }

        #[test]
        fn any_text_is_answered(text in ".{0,80}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(&reference, &reference.to_string().parse().unwrap());
            }
        }
    }
}
