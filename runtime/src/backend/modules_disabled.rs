//! What `modules` offers when the wasm backend is not built in.

use wharf_images::{Class, Image, ImageStore, Reference};

use super::Program;
use crate::container::Container;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::task::ExecSpec;

fn absent() -> Error {
    Error::new(Class::Unsupported, "this wharf was built without the wasm backend")
}

pub(crate) fn compiled(_: &Engine, _: &Container) -> Result<Program> {
    Err(absent())
}

pub(crate) fn known(_: &Engine, _: &Container) -> Result<Option<Program>> {
    Ok(None)
}

pub(crate) fn ensure(_: &Engine, _: &Container) -> Result<()> {
    Err(absent())
}

pub(crate) fn executable(_: &Engine, _: &Container, _: &ExecSpec) -> Result<ExecSpec> {
    Err(absent())
}

pub(crate) fn sweep(_: &Engine) -> Result<u64> {
    Ok(0)
}

pub(crate) fn ensure_image(_: &ImageStore, _: &Image) -> Result<()> {
    Ok(())
}

pub(crate) fn install_builtin(_: &ImageStore, _: &Reference) -> Result<Image> {
    Err(absent())
}
