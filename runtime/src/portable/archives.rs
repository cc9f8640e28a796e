//! The files of containers, where no namespace is needed to see them: a root filesystem is one directory here, and what
//! is mounted is found by its path. Nothing of either resolves a path but [`wharf_images::tree`].

use std::io::{Read, Write};
use std::path::PathBuf;

use wharf_images::snapshot::{self, Rootfs};
use wharf_images::tree::{Placing, Room, Tree};

use crate::backend::wasm::tree::quota;
use crate::config::{Mount, MountKind};
use crate::container::Container;
use crate::engine::Engine;
use crate::error::{Class, Error, Result};
use crate::files::{Change, Outcome, Request, is_mount_point};
use crate::volume::{Done, Work};

/// Does it as who we are: nobody has subordinate ids here.
///
/// # Errors
/// The disk's, `output`'s.
pub(crate) fn as_root(work: &Work, output: &mut dyn Write) -> Result<Done> {
    work.directly(output)
}

/// There is nothing to help with.
pub(crate) fn help_to_remove() {}

/// Does it. What it reads of an archive comes from `input`, what it writes goes to `output`.
///
/// # Errors
/// The disk's, `input`'s and `output`'s; `NotFound`; `Forbidden` for a mount that is read-only.
pub(crate) fn ask(
    engine: &Engine,
    id: &str,
    request: &Request,
    input: &mut dyn Read,
    output: &mut dyn Write,
) -> Result<Outcome> {
    let container = engine.container(id)?;
    let rootfs = engine.images()?.snapshots.mounts(&container.id)?;
    match request {
        Request::Changes => {
            let found = engine.images()?.snapshots.changes(&container.id)?;
            let found: Vec<Change> = found.into_iter().map(|(path, kind)| Change { path, kind: kind.into() }).collect();
            serde_json::to_writer(output, &found).map_err(|e| wharf_images::Error::json("changes", e))?;
        }
        Request::Export => snapshot::export(&rootfs, output)?,
        Request::Layer => snapshot::export_changes(&rootfs, &is_mount_point, output)?,
        Request::Stat { path } => {
            let place = Place::of(engine, &container, &rootfs, path)?;
            return Ok(Outcome::Stat(place.tree()?.stat(&place.path)?));
        }
        Request::Pack { path, name } => {
            let place = Place::of(engine, &container, &rootfs, path)?;
            place.tree()?.pack(&place.path, name.as_deref(), output)?;
        }
        Request::Unpack { path, keep_kinds, .. } => {
            let place = Place::of(engine, &container, &rootfs, path)?;
            if place.read_only {
                let text = format!("container {} is read-only at {path}", container.name);
                return Err(Error::new(Class::Forbidden, text));
            }
            let placing = Placing { keep_kinds: *keep_kinds, keep_owners: false, owner: None };
            let quota = quota(&place.root, container.config.storage_size.filter(|_| place.own))?;
            let room = quota.as_ref().map(|quota| |bytes| quota.room(bytes));
            let room = room.as_ref().map(|room| room as &Room<'_>);
            return Ok(Outcome::Notes(place.tree()?.unpack_within(&place.path, input, &placing, room)?));
        }
    }
    Ok(Outcome::Done)
}

/// Where a path of a container is on this machine.
struct Place {
    root: PathBuf,
    path: String,
    read_only: bool,
    /// It is in the container's own files.
    own: bool,
}

impl Place {
    /// In the innermost mount that has it, else in the root filesystem.
    fn of(engine: &Engine, container: &Container, rootfs: &Rootfs, path: &str) -> Result<Self> {
        let below = |mount: &Mount| path.strip_prefix(mount.target.trim_end_matches('/')).map(str::to_owned);
        let inside = |rest: &String| rest.is_empty() || rest.starts_with('/');
        let mounts = container.config.mounts.iter().filter_map(|m| Some((m, below(m).filter(inside)?)));
        let Some((mount, rest)) = mounts.max_by_key(|(mount, _)| mount.target.len()) else {
            let Rootfs::Dir(root) = rootfs else {
                return Err(Error::new(Class::Unsupported, "the layers of the container are not in one directory"));
            };
            return Ok(Place {
                root: root.clone(),
                path: path.to_owned(),
                read_only: container.config.read_only,
                own: true,
            });
        };
        let (root, fixed) = match &mount.kind {
            MountKind::Bind(bind) => (PathBuf::from(&bind.source), false),
            MountKind::Volume(volume) if volume.subpath.is_none() => {
                let opened = engine.volumes().open(&volume.name)?;
                (opened.path, opened.read_only)
            }
            MountKind::Volume(_) | MountKind::Tmpfs(_) => {
                let text = format!("the files below {} cannot be copied on this system", mount.target);
                return Err(Error::new(Class::Unsupported, text));
            }
        };
        let rest = if rest.is_empty() { "/".to_owned() } else { rest };
        Ok(Place { root, path: rest, read_only: mount.read_only || fixed, own: false })
    }

    fn tree(&self) -> Result<Tree> {
        Ok(Tree::open(&self.root)?)
    }
}
