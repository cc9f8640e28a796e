//! Images as one file: `save`, `load` and `import`; and `commit`, which adds one to an image's layers.
//!
//! What is written is both an OCI layout
//! (<https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md>) and what `docker load` reads
//! (`manifest.json`, <https://github.com/moby/docker-image-spec/blob/v1.3.1/spec.md>), so every tool finds what it knows.
//! What is read is either, from a stream, and is taken for hostile: entries are only ever ingested as content, never
//! written under a name of the archive's, and links are refused rather than followed.

mod change;
mod commit;
mod import;
mod load;
mod save;
mod staging;

pub use change::apply as apply_changes;
pub use commit::{Commit, check_commit, commit};
pub use import::{Import, import};
pub use load::{Loaded, load};
pub use save::save;

/// The annotation under which containerd and docker keep a full name.
const IMAGE_NAME: &str = "io.containerd.image.name";

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod tests;
