//! A volume's content as a tar archive: `wharf volume export` and `import`.

use std::io::{Read, Write};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use wharf_images::Class;
use wharf_images::digest::Algorithm;
use wharf_images::layer::{self, Options};

use super::{Storage, Volume, VolumeSpec, Volumes, Work, area, check};
use crate::error::{Error, Result};
use crate::linux;

/// The media type of a tar archive: which compression it has is told by its first bytes.
const TAR: &str = "application/x-tar";

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
        let _lock = area.make()?;
        let known = self.engine.containers()?.volume(name)?;
        if known.as_ref().is_some_and(|volume| !matches!(volume.storage(), Storage::Own)) {
            return Err(Error::new(
                Class::Unsupported,
                format!("import {name}: the volume's content is kept elsewhere"),
            )
            .with_hint("unpack the archive where the volume's device says"));
        }
        if !area::is_empty(&area.data())? || area.is_half_full() {
            return Err(Error::new(Class::Conflict, format!("import {name}: the volume is not empty"))
                .with_hint("import into a new volume, or remove this one first"));
        }
        let staging = area.staging()?;
        let dir = Dir::open_ambient_dir(&staging, ambient_authority()).map_err(|e| Error::io("open", &staging, e))?;
        // It is the person's own archive: what fits on the disk is welcome.
        let options = Options {
            algorithm: Algorithm::Sha256,
            whiteouts: None,
            max_bytes: u64::MAX,
            max_entries: u64::MAX,
            privileged: linux::is_root(),
        };
        if let Err(e) = layer::unpack(from, TAR, &dir, &options) {
            crate::paths::remove_dir(&staging)?;
            return Err(Error::new(e.class(), format!("import {name}: {e}")));
        }
        drop(dir);
        area.take()?;
        self.record(&spec)
    }
}
