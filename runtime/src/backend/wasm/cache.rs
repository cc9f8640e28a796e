//! Compiled modules, kept in `ROOT/modules`, which only we may enter (0700).
//!
//! A file's name is its key: the digest of the source, what was compiled of it, and everything that decides what
//! comes out ([`Profile::key`], [`VERSION`], wasmtime's version, this machine's kind). So a look-up of a command is one stat
//! (of a server two, for WASI 0.3 three or four) and needs no engine. It cannot know the processor's features: wasmtime checks those when it loads the file, and a file that it
//! refuses (the root directory came from another machine) is removed and compiled anew.
//!
//! What was built for WASI 0.3 says so at the end of its name: whoever is to run it needs another engine.
//!
//! Files are written under another name, synced and renamed: what has its name is whole.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use wharf_images::Digest;

use super::adapt::VERSION;
use super::compile::{self, Compiler, Limits};
use super::engine::Profile;
use crate::error::{Class, Error, Result};
use crate::names;

/// The wasmtime in our dependencies. A test compares it with `Cargo.lock`.
const WASMTIME: &str = "48.0.8";

/// The end of the name of what was built for WASI 0.3.
const CONCURRENT: &str = "-p3";

/// The compiled modules of one root directory.
#[derive(Debug, Clone)]
pub struct ModuleCache {
    dir: PathBuf,
    compiler: Compiler,
    limits: Limits,
}

/// A compiled module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedModule {
    /// Where it is.
    pub path: PathBuf,
    /// How its guests live.
    pub profile: Profile,
    /// It was here already.
    pub cached: bool,
}

impl ModuleCache {
    /// Opens the cache in `root`; the program that compiles is this one.
    ///
    /// # Errors
    /// Fails when the directory cannot be made, and with `Forbidden` when others could write there.
    pub fn open(root: &Path) -> Result<Self> {
        Self::with_compiler(root, Compiler::Child, Limits::default())
    }

    /// Opens the cache in `root` with another compiler or other limits.
    ///
    /// # Errors
    /// As [`ModuleCache::open`].
    pub fn with_compiler(root: &Path, compiler: Compiler, limits: Limits) -> Result<Self> {
        let dir = root.join("modules");
        crate::linux::private::create_dir(&dir)?;
        Ok(ModuleCache { dir, compiler, limits })
    }

    /// The compiled module of this source, if it is here.
    pub fn get(&self, source: &Digest) -> Option<CachedModule> {
        self.get_function(source, None)
    }

    /// As [`ModuleCache::get`], for a module whose entry is one of its functions.
    pub fn get_function(&self, source: &Digest, function: Option<&str>) -> Option<CachedModule> {
        Profile::ALL.into_iter().find_map(|profile| {
            let path = self.dir.join(name(source, function, profile));
            let here = fs::symlink_metadata(&path).is_ok_and(|m| m.is_file());
            here.then_some(CachedModule { path, profile, cached: true })
        })
    }

    /// Compiles the file `blob`, whose digest the caller has checked, unless that was done before. If other processes
    /// want the same, one compiles and the others wait.
    ///
    /// # Errors
    /// What [`compile::compile`] says of the module; `LimitExceeded` when it takes too much to compile.
    pub fn ensure(&self, source: &Digest, blob: &Path, function: Option<&str>) -> Result<CachedModule> {
        if let Some(module) = self.get_function(source, function) {
            return Ok(module);
        }
        let file = File::open(blob).map_err(|e| Error::io("open", blob, e))?;
        let _alone = self.lock(source)?;
        match self.get_function(source, function) {
            Some(module) => Ok(module),
            None => self.fill(source, file, function),
        }
    }

    /// As [`ModuleCache::ensure`], for bytes in memory.
    ///
    /// # Errors
    /// As [`ModuleCache::ensure`].
    pub fn ensure_bytes(&self, wasm: &[u8], function: Option<&str>) -> Result<CachedModule> {
        let digest = Digest::of(wasm);
        if let Some(module) = self.get_function(&digest, function) {
            return Ok(module);
        }
        let blob = self.temporary("source");
        let written = File::create_new(&blob).and_then(|mut file| file.write_all(wasm));
        let module =
            written.map_err(|e| Error::io("write", &blob, e)).and_then(|()| self.ensure(&digest, &blob, function));
        // It may never have been made.
        let _ = fs::remove_file(&blob);
        module
    }

    /// Removes the compiled modules whose source `keep` does not name. Returns the bytes freed.
    ///
    /// # Errors
    /// The disk's.
    pub fn sweep(&self, keep: &dyn Fn(&Digest) -> bool) -> Result<u64> {
        let mut freed = 0;
        let entries = fs::read_dir(&self.dir).map_err(|e| Error::io("read", &self.dir, e))?;
        for entry in entries {
            let entry = entry.map_err(|e| Error::io("read", &self.dir, e))?;
            let name = entry.file_name();
            let Some(source) = name.to_str().and_then(source_of) else { continue };
            if keep(&source) {
                continue;
            }
            let size = entry.metadata().map_or(0, |m| m.len());
            match fs::remove_file(entry.path()) {
                Ok(()) => {
                    freed += size;
                    // Notes of which module an image's name meant last; they may name this one.
                    let _ = fs::remove_dir_all(self.dir.join("last"));
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::io("remove", entry.path(), e)),
            }
        }
        Ok(freed)
    }

    fn fill(&self, source: &Digest, wasm: File, function: Option<&str>) -> Result<CachedModule> {
        let temporary = self.temporary("new");
        let out = File::create_new(&temporary).map_err(|e| Error::io("create", &temporary, e))?;
        let filled = self.compile_into(wasm, &out, &temporary, function).and_then(|profile| {
            let path = self.dir.join(name(source, function, profile));
            out.sync_all().map_err(|e| Error::io("sync", &temporary, e))?;
            fs::rename(&temporary, &path).map_err(|e| Error::io("rename", &temporary, e))?;
            Ok(CachedModule { path, profile, cached: false })
        });
        if filled.is_err() {
            // The first failure is what the caller must hear of.
            let _ = fs::remove_file(&temporary);
        }
        filled
    }

    fn compile_into(&self, mut source: File, out: &File, path: &Path, function: Option<&str>) -> Result<Profile> {
        match &self.compiler {
            Compiler::Child => {
                let program = std::env::current_exe().map_err(|e| Error::os("find our own program", e))?;
                let out = out.try_clone().map_err(|e| Error::io("open", path, e))?;
                compile::spawn(&program, source, out, function, &self.limits)
            }
            Compiler::InProcess => {
                let mut wasm = Vec::new();
                std::io::Read::read_to_end(&mut source, &mut wasm).map_err(|e| Error::os("read the module", e))?;
                let compiled = compile::compile(&wasm, function)?;
                (&*out).write_all(&compiled.artifact).map_err(|e| Error::io("write", path, e))?;
                Ok(compiled.profile)
            }
        }
    }

    /// One compiles, the others wait. A few lock files serve all digests: they are never removed, so no one can hold
    /// a lock on a file that another has already replaced.
    fn lock(&self, source: &Digest) -> Result<File> {
        let path = self.dir.join(format!("lock-{}", &source.hex()[..1]));
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| Error::io("open", &path, e))?;
        file.lock().map_err(|e| Error::io("lock", &path, e))?;
        Ok(file)
    }

    fn temporary(&self, what: &str) -> PathBuf {
        use std::sync::atomic::{AtomicU64, Ordering};
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!("{what}-{}-{count}.tmp", std::process::id()))
    }
}

/// True for a compiled module that wants an engine for WASI 0.3.
pub(super) fn is_concurrent(module: &Path) -> bool {
    module.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with(CONCURRENT))
}

/// The error for a compiled module that wasmtime refuses to load, which is removed so that the next `ensure` makes it anew.
pub(super) fn refused(path: &Path, why: &wasmtime::Error) -> Error {
    let message = format!("the compiled module {} is not of this machine: {why:#}", path.display());
    match fs::remove_file(path) {
        Ok(()) => {
            Error::new(Class::Unavailable, message).with_hint("it was removed: run again, and it is compiled anew")
        }
        Err(e) => Error::io("remove", path, e),
    }
}

fn name(source: &Digest, function: Option<&str>, profile: Profile) -> String {
    let function = function.unwrap_or_default();
    let (profile, mark) = (profile.key(), if profile.concurrent { CONCURRENT } else { "" });
    let kind = format!("{profile} {VERSION} {WASMTIME} {} {} {function}", std::env::consts::ARCH, std::env::consts::OS);
    let algorithm = source.algorithm().name();
    format!("{algorithm}-{}-{}{mark}.cwasm", source.hex(), names::short_hash(&kind))
}

/// The digest in a name that [`name`] has made.
fn source_of(name: &str) -> Option<Digest> {
    let mut parts = name.strip_suffix(".cwasm")?.split('-');
    let (algorithm, hex) = (parts.next()?, parts.next()?);
    format!("{algorithm}:{hex}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/guests/exit-p1.wasm");

    fn cache(root: &Path) -> ModuleCache {
        ModuleCache::with_compiler(root, Compiler::InProcess, Limits::default()).unwrap()
    }

    #[test]
    fn the_key_names_the_wasmtime_that_is_linked() {
        let lock = include_str!("../../../../Cargo.lock");
        assert!(lock.contains(&format!("name = \"wasmtime\"\nversion = \"{WASMTIME}\"")), "update WASMTIME");
    }

    #[test]
    fn names_lead_back_to_their_source() {
        let digest = Digest::of(b"x");
        let mut names = Vec::new();
        for profile in Profile::ALL {
            let name = name(&digest, None, profile);
            assert_eq!(source_of(&name).as_ref(), Some(&digest));
            assert_eq!(is_concurrent(Path::new(&name)), profile.concurrent, "{name}");
            names.push(name);
        }
        names.push(name(&digest, Some("main"), Profile::COMMAND));
        assert!(names.iter().all(|one| names.iter().filter(|other| *other == one).count() == 1), "{names:?}");
        assert_eq!(source_of("lock-a"), None);
    }

    #[test]
    fn a_module_is_compiled_once_and_swept_when_nobody_needs_it() {
        let root = tempfile::tempdir().unwrap();
        let cache = cache(root.path());
        let wasm = fs::read(EXIT).unwrap();
        let digest = Digest::of(&wasm);
        assert_eq!(cache.get(&digest), None);
        let first = cache.ensure_bytes(&wasm, None).unwrap();
        assert!(!first.cached);
        assert_eq!(cache.get(&digest).map(|m| m.path), Some(first.path));
        assert!(cache.ensure(&digest, Path::new(EXIT), None).unwrap().cached);
        assert_eq!(cache.sweep(&|d| *d == digest).unwrap(), 0);
        assert!(cache.sweep(&|_| false).unwrap() > 0);
        assert_eq!(cache.get(&digest), None);
        let left: Vec<_> = fs::read_dir(root.path().join("modules")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.iter().all(|n| n.to_string_lossy().starts_with("lock-")), "{left:?}");
    }

    #[test]
    fn a_refused_module_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let cache = cache(root.path());
        let forged = b"\x7fELF\x02\x01\x01\xc8 not ours";
        let error = cache.ensure_bytes(forged, None).unwrap_err();
        assert!(error.to_string().contains(".cwasm"), "{error}");
        assert_eq!(cache.get(&Digest::of(forged)), None);
    }
}
