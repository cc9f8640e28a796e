//! Image names with docker's normalisation
//! (<https://github.com/distribution/reference>): `debian` means `docker.io/library/debian:latest`.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::error::{Error, Result};

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

    /// The repository as docker shows it: `debian`, `localhost:5000/x`.
    pub fn familiar_repository(&self) -> String {
        todo!()
    }

    /// The whole name as docker shows it: `debian:latest`.
    pub fn familiar(&self) -> String {
        todo!()
    }

    /// True for names under `wharf/`, which are built into the program.
    pub fn is_builtin(&self) -> bool {
        todo!()
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(_text: &str) -> Result<Self> {
        todo!()
    }
}

impl fmt::Display for Reference {
    /// The full, normalised name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}
