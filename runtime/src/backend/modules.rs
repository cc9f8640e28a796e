//! Which compiled module a wasm container runs, and how it comes to be compiled before anybody waits for it.

mod exec;

use std::path::{Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use jiff::Timestamp;
use wharf_images::digest::{Algorithm, Hasher};
use wharf_images::lease::SweepLock;
use wharf_images::snapshot::Rootfs;
use wharf_images::{Class, Digest, Image, ImageStore, Reference, WasmEntry};

pub(crate) use self::exec::executable;
use super::Program;
use super::wasm::cache::{CachedModule, ModuleCache};
use super::wasm::hello;
use crate::container::Container;
use crate::engine::Engine;
use crate::error::{Error, Result};

/// The compiled module of a container whose bytes are made.
///
/// # Errors
/// As [`ensure`].
pub(crate) fn compiled(engine: &Engine, container: &Container) -> Result<Program> {
    if let Some(program) = known(engine, container)? {
        return Ok(program);
    }
    let cache = ModuleCache::open(&engine.paths().root)?;
    let (source, blob) = source(engine, container)?;
    let module = match cache.get_function(&source, function(&container.image)) {
        Some(module) => module,
        None => compile(&cache, &source, blob, engine, container)?,
    };
    Ok(program(module))
}

/// The same, as far as it is known without the container's root filesystem: `None` when its module is still to be found
/// there or to be compiled, and for a Linux container.
///
/// # Errors
/// The database's and the disk's.
pub(crate) fn known(engine: &Engine, container: &Container) -> Result<Option<Program>> {
    let source = match &container.image.wasm {
        None => None,
        Some(WasmEntry::Blob(digest)) => Some(digest.clone()),
        Some(WasmEntry::File { path, .. }) => {
            engine.containers()?.module_file(&container.image.manifest, entry(container, path))?
        }
    };
    let Some(source) = source else { return Ok(None) };
    let cache = ModuleCache::open(&engine.paths().root)?;
    Ok(cache.get_function(&source, function(&container.image)).map(program))
}

fn program(module: CachedModule) -> Program {
    Program { serves: module.profile.serves, path: module.path }
}

/// Compiles the container's module, unless that was done before.
///
/// # Errors
/// What the compiler says of the module; `NotFound` when the image has no such file.
pub(crate) fn ensure(engine: &Engine, container: &Container) -> Result<()> {
    compiled(engine, container).map(drop).map_err(|e| match e.class() {
        Class::Corrupt | Class::Unsupported | Class::LimitExceeded => not_executable(&e),
        _ => e,
    })
}

/// What a shell calls "cannot execute": docker's 126.
fn not_executable(e: &Error) -> Error {
    let hint = e.hint().map(|hint| format!("\n{hint}")).unwrap_or_default();
    Error::Exec { code: 126, message: format!("{e}{hint}") }
}

/// Compiles an image's module when the image comes in, so that no `run` waits for it. Images whose program is a file of
/// their root filesystem are compiled when the first container is made.
///
/// # Errors
/// As [`ensure`].
pub(crate) fn ensure_image(images: &ImageStore, image: &Image) -> Result<()> {
    if let Some(WasmEntry::Blob(digest)) = &image.wasm {
        ModuleCache::open(&images.root)?.ensure(digest, &images.content.path(digest), None)?;
    }
    Ok(())
}

/// Removes what was compiled of images that are gone. Whoever needs one of them all the same (a file that `exec` ran)
/// compiles it again. Returns the bytes freed: none while somebody brings images or makes containers.
///
/// # Errors
/// The database's and the disk's.
pub(crate) fn sweep(engine: &Engine) -> Result<u64> {
    let Some(_alone) = SweepLock::try_take(&engine.paths().root)? else { return Ok(0) };
    let content = &engine.images()?.content;
    let files = engine.containers()?.module_files(|manifest| content.contains(manifest))?;
    ModuleCache::open(&engine.paths().root)?.sweep(&|source| content.contains(source) || files.contains(source))
}

/// Puts an image that is built into the program where any other image is.
///
/// # Errors
/// `NotFound` when no such image is built in.
pub(crate) fn install_builtin(images: &ImageStore, reference: &Reference) -> Result<Image> {
    let unknown = || {
        Error::new(Class::NotFound, format!("No such image: {}: it is not built into wharf", reference.familiar()))
            .with_hint("the built-in image is wharf/hello")
    };
    let (path, tag) = (reference.path(), reference.tag());
    if path != hello::NAME || tag.is_some_and(|t| t != "latest") {
        return Err(unknown());
    }
    wharf_images::pack::pack(images, hello::WASM, Some(reference), Timestamp::UNIX_EPOCH)?;
    let image = images.resolve(&reference.to_string(), None)?;
    ensure_image(images, &image)?;
    Ok(image)
}

/// The module's file: an entrypoint given with the container names another than the image's.
fn entry<'c>(container: &'c Container, path: &'c str) -> &'c str {
    let given = container.config.entrypoint.as_ref().and_then(|e| e.first());
    given.map_or(path, |p| p.split('#').next().unwrap_or_default())
}

fn function(image: &Image) -> Option<&str> {
    match &image.wasm {
        Some(WasmEntry::File { function, .. }) => function.as_deref(),
        _ => None,
    }
}

/// The digest of the source, and where its bytes are if they are a blob.
fn source(engine: &Engine, container: &Container) -> Result<(Digest, Option<PathBuf>)> {
    let images = engine.images()?;
    match &container.image.wasm {
        Some(WasmEntry::Blob(digest)) => Ok((digest.clone(), Some(images.content.path(digest)))),
        Some(WasmEntry::File { path, .. }) => {
            let path = entry(container, path);
            let manifest = &container.image.manifest;
            if let Some(digest) = engine.containers()?.module_file(manifest, path)? {
                return Ok((digest, None));
            }
            let mut file = open_file(&images.snapshots.mounts(&container.id)?, path)?;
            let mut hasher = Hasher::new(Algorithm::Sha256);
            let mut buffer = vec![0; 256 * 1024];
            loop {
                match std::io::Read::read(&mut file, &mut buffer).map_err(|e| Error::io("read", path, e))? {
                    0 => break,
                    n => hasher.update(&buffer[..n]),
                }
            }
            let digest = hasher.finish();
            engine.containers()?.set_module_file(manifest, path, &digest)?;
            Ok((digest, None))
        }
        None => Err(Error::new(Class::Internal, "the image has no wasm program")),
    }
}

fn compile(
    cache: &ModuleCache,
    source: &Digest,
    blob: Option<PathBuf>,
    engine: &Engine,
    container: &Container,
) -> Result<CachedModule> {
    let function = function(&container.image);
    if let Some(blob) = blob {
        return cache.ensure(source, &blob, function);
    }
    let Some(WasmEntry::File { path, .. }) = &container.image.wasm else {
        return Err(Error::new(Class::Internal, "the image has no wasm program"));
    };
    let path = entry(container, path);
    let mut file = open_file(&engine.images()?.snapshots.mounts(&container.id)?, path)?;
    let mut wasm = Vec::new();
    std::io::Read::read_to_end(&mut file, &mut wasm).map_err(|e| Error::io("read", path, e))?;
    cache.ensure_bytes(&wasm, function)
}

/// Opens a file of a container's root filesystem before anything is mounted: the topmost layer that has it wins.
fn open_file(rootfs: &Rootfs, path: &str) -> Result<cap_std::fs::File> {
    let dirs: Vec<&Path> = match rootfs {
        Rootfs::Overlay { lower, upper, .. } => {
            std::iter::once(upper.as_path()).chain(lower.iter().map(PathBuf::as_path)).collect()
        }
        Rootfs::Dir(dir) => vec![dir],
    };
    let relative = path.trim_start_matches('/');
    for dir in dirs {
        let root = Dir::open_ambient_dir(dir, ambient_authority()).map_err(|e| Error::io("open", dir, e))?;
        // To open something else may wait for ever, or do something.
        if root.metadata(relative).is_ok_and(|m| m.is_file())
            && let Ok(file) = root.open(relative)
        {
            return Ok(file);
        }
    }
    Err(Error::Exec { code: 127, message: format!("exec: \"{path}\": no such file in the image") })
}
