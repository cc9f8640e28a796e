//! A volume's content as a tar archive: `wharf volume export` and `import`.

use std::io::{Read, Write};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use wharf_images::Class;
use wharf_images::layer;

use super::area::{self, Area};
use super::{Storage, Volume, VolumeSpec, Volumes, Work, check};
use crate::error::{Error, Result};
use crate::linux;

impl Volumes<'_> {
    /// Writes the content of a volume, with the owner and mode of its root, as a tar archive.
    ///
    /// # Errors
    /// `NotFound`; the disk's, or `out`'s.
    pub fn export(self, name: &str, out: &mut dyn Write) -> Result<()> {
        let source = self.open(name)?;
        let exported = Work::Export { dir: source.path }.carry_out(out);
        self.release(std::iter::once(name), "")?;
        exported.map(drop)
    }

    /// Makes the tar archive (plain, gzip or zstd) the content of a volume, which is made if it is not there. All of it
    /// comes in, or nothing.
    ///
    /// # Errors
    /// `Conflict` when there is something in the volume; `Unsupported` for one whose content is kept elsewhere; `Corrupt`
    /// when it is no tar archive.
    pub fn import(self, name: &str, from: &mut dyn Read) -> Result<Volume> {
        let spec = VolumeSpec { name: name.to_owned(), ..VolumeSpec::default() };
        check(&spec)?;
        let area = self.area(name);
        let lock = area.make()?;
        let known = self.engine.containers()?.volume(name)?;
        if known.as_ref().is_some_and(|volume| !matches!(volume.storage(), Storage::Own)) {
            return Err(Error::new(
                Class::Unsupported,
                format!("import {name}: the volume's content is kept elsewhere"),
            )
            .with_hint("unpack the archive where the volume's device says"));
        }
        // Of an import that was killed.
        area.unstage()?;
        if !area::is_empty(&area.data())? || area.is_half_full() {
            return Err(Error::new(Class::Conflict, format!("import {name}: the volume is not empty"))
                .with_hint("import into a new volume, or remove this one first"));
        }
        match bring_in(&area, from).and_then(|()| self.record(&spec)) {
            Err(e) => {
                match known {
                    Some(_) => area.unstage()?,
                    None => area.remove(lock)?,
                }
                Err(e.within(&format!("import {name}")))
            }
            imported => imported,
        }
    }
}

/// Makes an archive the content of an empty volume, whose exclusive lock is held.
fn bring_in(area: &Area, from: &mut dyn Read) -> Result<()> {
    let staging = area.staging()?;
    let dir = Dir::open_ambient_dir(&staging, ambient_authority()).map_err(|e| Error::io("open", &staging, e))?;
    layer::unpack_archive(from, &dir, linux::is_root())?;
    drop(dir);
    area.take()
}
