//! The files of containers: what they changed, and archives out of and into them.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use wharf_images::snapshot::ChangeKind;
use wharf_images::tree::PathStat;
use wharf_images::{Class, Digest, Reference};

use crate::container::Container;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::linux::archives;
use crate::monitor::client::open_session;
use crate::monitor::protocol;
use crate::state::State;

/// What was found or done.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is done.
    Done,
    /// What a path is.
    Stat(PathStat),
    /// What was left out of an archive.
    Notes(Vec<String>),
}

/// What can be asked of a container's files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// What the writable layer changes.
    Changes,
    /// The whole root filesystem as an archive.
    Export,
    /// The writable layer as a layer of an image.
    Layer,
    /// What a path is.
    Stat { path: String },
    /// A path, and all below it, as an archive with entries of this name.
    Pack { path: String, name: Option<String> },
    /// An archive into a directory.
    Unpack { path: String, keep_kinds: bool, as_user: bool },
}

/// One path that a container changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The path, from the container's root.
    pub path: String,
    /// How.
    pub kind: Kind,
}

/// How a path changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// `C`.
    Changed,
    /// `A`.
    Added,
    /// `D`.
    Deleted,
}

impl From<ChangeKind> for Kind {
    fn from(kind: ChangeKind) -> Self {
        match kind {
            ChangeKind::Added => Kind::Added,
            ChangeKind::Changed => Kind::Changed,
            ChangeKind::Deleted => Kind::Deleted,
        }
    }
}

impl Kind {
    /// Docker's letter.
    pub fn letter(self) -> char {
        match self {
            Kind::Changed => 'C',
            Kind::Added => 'A',
            Kind::Deleted => 'D',
        }
    }
}

/// What an image made of a container is to say of itself.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// Its name, if it gets one.
    pub reference: Option<Reference>,
    /// Who made it.
    pub author: String,
    /// What its history says.
    pub message: String,
    /// Dockerfile instructions that change its config.
    pub changes: Vec<String>,
    /// The container is frozen meanwhile.
    pub pause: bool,
}

impl Engine {
    /// What its writable layer changes, sorted by path. Mount points that Wharf made there are not told of.
    ///
    /// # Errors
    /// `NotFound`; the disk's.
    pub fn changes(&self, name: &str) -> Result<Vec<Change>> {
        let container = self.container(name)?;
        let mut json = Vec::new();
        archives::ask(self, &container.id, &Request::Changes, &mut io::empty(), &mut json)?;
        let found: Vec<Change> = serde_json::from_slice(&json).map_err(|e| wharf_images::Error::json("changes", e))?;
        Ok(without_mount_points(found))
    }

    /// Writes its root filesystem as a tar archive, without what is mounted there.
    ///
    /// # Errors
    /// `NotFound`; the disk's, or `out`'s.
    pub fn export(&self, name: &str, out: &mut dyn Write) -> Result<()> {
        let container = self.container(name)?;
        archives::ask(self, &container.id, &Request::Export, &mut io::empty(), out)?;
        self.tell(&container.event("export"))
    }

    /// What a path in it is. A symlink is not followed, unless the path ends with a slash.
    ///
    /// # Errors
    /// `NotFound`, in docker's words.
    pub fn stat_path(&self, name: &str, path: &str) -> Result<PathStat> {
        let request = Request::Stat { path: some(path)? };
        match self.ask_files(name, path, &request, &mut io::empty(), &mut io::sink())? {
            Outcome::Stat(stat) => Ok(stat),
            Outcome::Done | Outcome::Notes(_) => Err(Error::new(Class::Internal, "the helper told nothing")),
        }
    }

    /// Writes what is at `path` in it as a tar archive; its entries are called `entries`, or else by the path's last name.
    ///
    /// # Errors
    /// `NotFound`, in docker's words; the disk's, or `out`'s.
    pub fn copy_out(&self, name: &str, path: &str, entries: Option<&str>, out: &mut dyn Write) -> Result<()> {
        let request = Request::Pack { path: some(path)?, name: entries.map(str::to_owned) };
        self.ask_files(name, path, &request, &mut io::empty(), out).map(drop)
    }

    /// Unpacks a tar archive (plain, gzip or zstd) into the directory at `path` in it; owners are the archive's, or with
    /// `as_user` the container's user. With `keep_kinds` a directory replaces nothing else, nor the reverse. Returns what
    /// was left out, in words for people.
    ///
    /// # Errors
    /// `NotFound`, in docker's words; `InvalidInput` when it is no directory; the archive's or the disk's.
    pub fn copy_in(
        &self,
        name: &str,
        path: &str,
        archive: &mut dyn Read,
        keep_kinds: bool,
        as_user: bool,
    ) -> Result<Vec<String>> {
        let request = Request::Unpack { path: some(path)?, keep_kinds, as_user };
        match self.ask_files(name, path, &request, archive, &mut io::sink())? {
            Outcome::Notes(notes) => Ok(notes),
            Outcome::Done | Outcome::Stat(_) => Ok(Vec::new()),
        }
    }

    fn ask_files(
        &self,
        name: &str,
        path: &str,
        request: &Request,
        input: &mut dyn Read,
        output: &mut dyn Write,
    ) -> Result<Outcome> {
        let container = self.container(name)?;
        let outcome = archives::ask(self, &container.id, request, input, output).map_err(|e| match e.class() {
            Class::NotFound => Error::new(e.class(), format!("Could not find the file {path} in container {name}")),
            _ => e,
        });
        // Of one that does not run we were the user.
        let released = self.volumes().release(container.volume_names(), "");
        let outcome = outcome?;
        released?;
        let told = match request {
            Request::Pack { .. } => container.event("archive-path"),
            Request::Unpack { .. } => container.event("extract-to-dir"),
            Request::Changes | Request::Export | Request::Layer | Request::Stat { .. } => return Ok(outcome),
        };
        // Its volumes are there as long as somebody looks, whether it runs or not.
        let (mounted, unmounted) = (container.mount_events(), container.unmount_events());
        let events: Vec<_> = mounted.into_iter().chain([told]).chain(unmounted).collect();
        self.containers()?.tell(&container.id, &events)?;
        Ok(outcome)
    }

    /// Makes an image of it: its own image's layers, and what it changed as one more. Returns the image's id.
    ///
    /// # Errors
    /// `Unsupported` for an image that has no root filesystem to add to; `InvalidInput` for a change that is none.
    pub fn commit(&self, name: &str, commit: &Commit) -> Result<Digest> {
        let container = self.container(name)?;
        let images = self.images()?;
        let request = wharf_images::archive::Commit {
            reference: commit.reference.clone(),
            author: commit.author.clone(),
            message: commit.message.clone(),
            created_by: container.args.join(" "),
            config: config(&container),
            changes: commit.changes.clone(),
        };
        // What can be refused is refused before anything stands still.
        wharf_images::archive::check_commit(&container.image, &request)?;
        let frozen = commit.pause && container.state.state == State::Running;
        let held = frozen.then(|| open_session(self, &container.id, &protocol::Request::Hold)).transpose()?;
        let made = wharf_images::archive::commit(images, &container.image, &request, &mut |out| match archives::ask(
            self,
            &container.id,
            &Request::Layer,
            &mut io::empty(),
            out,
        ) {
            Ok(_) => Ok(()),
            Err(Error::Image(e)) => Err(e),
            Err(e) => Err(wharf_images::Error::new(e.class(), e.to_string())),
        });
        let told = made.map_err(Error::from).and_then(|id| {
            let told = container.event("commit").with("comment", &commit.message).with("imageID", id.as_str());
            let reference = commit.reference.as_ref().map(Reference::familiar).unwrap_or_default();
            self.tell(&told.with("imageRef", reference))?;
            Ok(id)
        });
        if held.is_some() {
            // It may have been killed meanwhile, which is no failure of ours.
            match self.set_paused(&container.id, false) {
                Err(e) if !matches!(e.class(), Class::Conflict | Class::NotFound | Class::Unavailable) => {
                    return Err(e);
                }
                _ => {}
            }
        }
        told
    }
}

/// The config of an image made of a container: what the container was given counts for more than its image's.
fn config(container: &Container) -> serde_json::Map<String, serde_json::Value> {
    use serde_json::json;

    let (own, image) = (&container.config, &container.image.config);
    let mut config = serde_json::Map::new();
    let mut set = |key: &str, value: serde_json::Value| {
        config.insert(key.to_owned(), value);
    };
    if let Some(user) = &own.user {
        set("User", json!(user));
    }
    if !own.env.is_empty() {
        set("Env", json!(crate::plan::env(own, &container.image)));
    }
    if let Some(entrypoint) = &own.entrypoint {
        set("Entrypoint", json!(entrypoint));
        set("Cmd", json!(own.cmd));
    } else if !own.cmd.is_empty() {
        set("Cmd", json!(own.cmd));
    }
    if let Some(dir) = &own.working_dir {
        set("WorkingDir", json!(dir));
    }
    if !own.labels.is_empty() {
        let mut labels = image.labels.clone();
        labels.extend(own.labels.clone());
        set("Labels", json!(labels));
    }
    if let Some(signal) = &own.stop_signal {
        set("StopSignal", json!(signal));
    }
    config
}

fn some(path: &str) -> Result<String> {
    if path.is_empty() {
        return Err(Error::new(Class::InvalidInput, "bad parameter: path cannot be empty"));
    }
    Ok(path.to_owned())
}

/// True of the paths (without a slash before) that Wharf makes in a root filesystem to mount over them. Docker has a layer
/// of its own for these, which nobody is told of.
pub(crate) fn is_mount_point(path: &[u8]) -> bool {
    matches!(path, b"dev" | b"etc/hostname" | b"etc/hosts" | b"etc/resolv.conf" | b"proc" | b"sys")
        || path.starts_with(b"dev/")
}

/// Leaves out what was only made to be mounted over, and directories that changed only by that.
fn without_mount_points(mut changes: Vec<Change>) -> Vec<Change> {
    let ours = |path: &str| is_mount_point(path.trim_start_matches('/').as_bytes());
    let before = changes.len();
    changes.retain(|change| change.kind != Kind::Added || !ours(&change.path));
    if changes.len() < before {
        for dir in ["/dev", "/etc"] {
            let below = format!("{dir}/");
            if !changes.iter().any(|change| change.path.starts_with(&below)) {
                changes.retain(|change| change.path != dir);
            }
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(list: &[(&str, Kind)]) -> Vec<Change> {
        list.iter().map(|(path, kind)| Change { path: (*path).to_owned(), kind: *kind }).collect()
    }

    #[test]
    fn what_we_mount_over_is_nobodys_change() {
        use Kind::{Added, Changed};
        let made = changes(&[("/dev", Changed), ("/dev/pts", Added), ("/etc", Changed), ("/etc/hosts", Added)]);
        assert_eq!(without_mount_points(made), []);
        let also = changes(&[("/etc", Changed), ("/etc/hosts", Added), ("/etc/motd", Added), ("/srv", Added)]);
        let told = changes(&[("/etc", Changed), ("/etc/motd", Added), ("/srv", Added)]);
        assert_eq!(without_mount_points(also), told);
        // A file that the image has, and the container changed, is its own.
        let own = changes(&[("/etc", Changed), ("/etc/hosts", Changed)]);
        assert_eq!(without_mount_points(own.clone()), own);
    }
}
