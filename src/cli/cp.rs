//! `cp`: files between a container and this machine, by docker's rules for what a path means
//! (<https://docs.docker.com/reference/cli/docker/container/cp/#corner-cases>).
//!
//! Both sides speak archives: one side packs under the name that the copy is to have, the other unpacks into the
//! directory that is to hold it. Here those are [`Tree`]s of this machine, so that a symlink which somebody swaps in leads
//! out of neither.

use std::io::{self, IsTerminal as _, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SyncSender};

use wharf_images::tree::{PathKind, Placing, Tree, last_name, names_directory};
use wharf_runtime::engine::Engine;
use wharf_runtime::error::Class;

use super::archive::SPECIAL;
use super::context::Context;
use super::failure::{Failure, Result, tell};
use super::parse::Parsed;
use super::verb::{Flag, Listed, Operands, Section, Verb};
use super::{text, units};

/// The command of this file.
pub static VERBS: &[Verb] = &[Verb {
    names: &["cp", "container cp"],
    about: "Copy files/folders between a container and the local filesystem",
    usage: "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n[OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    listed: Listed::Other,
    operands: Operands::Exactly(2),
    trailing: false,
    sections: &[Section {
        title: "Options",
        flags: &[
            Flag::switch("archive", "Archive mode (copy all uid/gid information)").short('a'),
            Flag::switch("follow-link", "Always follow symbol link in SRC_PATH").short('L'),
            Flag::switch(
                "quiet",
                "Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached",
            )
            .short('q'),
        ],
    }],
    run: cp,
}];

/// Most symlinks that are followed to find where a copy goes.
const MOST_LINKS: usize = 40;

/// What is known of the end of a copy, source or destination.
struct End {
    path: String,
    exists: bool,
    is_dir: bool,
}

/// Where an archive is to be unpacked, and what its entries are to be called (`None`: as they are).
struct Plan {
    into: String,
    name: Option<String>,
}

fn cp(parsed: &Parsed, context: &Context) -> Result<()> {
    let [from, to] = parsed.operands() else { return Err(Failure::new("two paths are needed")) };
    if from.is_empty() {
        return Err(Failure::new("source can not be empty"));
    }
    if to.is_empty() {
        return Err(Failure::new("destination can not be empty"));
    }
    let follow = parsed.switch("follow-link");
    let archive = parsed.switch("archive");
    let engine = context.engine()?;
    let copied = match (split(from), split(to)) {
        (Some(_), Some(_)) => return Err(Failure::new("copying between containers is not supported")),
        (None, None) => return Err(Failure::new("must specify at least one container source")),
        (Some((container, path)), None) => from_container(&engine, container, path, to, follow, archive)?,
        (None, Some((container, path))) => to_container(&engine, from, container, path, follow, archive)?,
    };
    if let Some(bytes) = copied
        && !parsed.switch("quiet")
        && io::stderr().is_terminal()
    {
        tell(&format!("Successfully copied {} to {}\n", units::size(bytes), text::visible(to)));
    }
    Ok(())
}

/// Container and path of `CONTAINER:PATH`. Nothing for a local path: an absolute one, or one that begins with a dot.
fn split(operand: &str) -> Option<(&str, &str)> {
    if Path::new(operand).is_absolute() {
        return None;
    }
    operand.split_once(':').filter(|(container, _)| !container.is_empty() && !container.starts_with('.'))
}

/// Docker's table of what a copy means: the kinds of source and destination say where it goes and how it is called.
fn plan(from: &End, to: &End) -> Result<Plan> {
    if to.exists && to.is_dir {
        return Ok(Plan { into: to.path.clone(), name: None });
    }
    if to.exists && from.is_dir {
        return Err(Failure::new("cannot copy directory"));
    }
    if to.path.is_empty() || (!to.exists && !from.is_dir && names_directory(&to.path)) {
        return Err(Failure::new("no such directory"));
    }
    let path = to.path.trim_end_matches("/.").trim_end_matches('/');
    let into = match path.rfind('/') {
        Some(0) => "/",
        Some(slash) => &path[..slash],
        None => ".",
    };
    Ok(Plan { into: into.to_owned(), name: Some(last_name(path).to_owned()) })
}

fn to_container(
    engine: &Engine,
    from: &str,
    container: &str,
    path: &str,
    follow: bool,
    archive: bool,
) -> Result<Option<u64>> {
    let to = container_end(engine, container, path)?;
    if from == "-" {
        if !to.is_dir {
            return Err(Failure::new(format!("destination \"{container}:{path}\" must be a directory")));
        }
        let notes = engine.copy_in(container, &to.path, &mut io::stdin().lock(), true, archive)?;
        told(&notes);
        return Ok(None);
    }
    let (tree, local, is_dir) = local_source(from, follow)?;
    let plan = plan(&End { path: local.clone(), exists: true, is_dir }, &to)?;
    // A link that was followed keeps the name that the person gave.
    let name = plan.name.unwrap_or_else(|| last_name(from).to_owned());
    piped(
        |out| Ok(tree.pack(&local, Some(&name), out)?),
        // Owners are kept: what is 1000's here is 1000's there. With -a all becomes the container's user's, as docker has it.
        |from| {
            told(&engine.copy_in(container, &plan.into, from, true, archive)?);
            Ok(())
        },
    )
    .map(Some)
}

/// What is at a container's path, a symlink at its end followed. What is not there may still be made there.
fn container_end(engine: &Engine, container: &str, path: &str) -> Result<End> {
    if path.is_empty() {
        return Ok(End { path: String::new(), exists: false, is_dir: false });
    }
    let mut path = path.to_owned();
    for _ in 0..2 {
        match engine.stat_path(container, &path) {
            Ok(stat) => match stat.link_target {
                Some(target) => path = target,
                None => return Ok(End { path, exists: true, is_dir: stat.kind == PathKind::Dir }),
            },
            Err(e) if e.class() == Class::NotFound => {
                // Is it the path that is missing, or the container?
                engine.container(container)?;
                break;
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(End { path, exists: false, is_dir: false })
}

/// The tree that a local path is in, its name there, and whether it is a directory.
fn local_source(path: &str, follow: bool) -> Result<(Tree, String, bool)> {
    let failed = |e: &io::Error| Failure::io("lstat", &absolute(path).display().to_string(), e);
    let full = absolute(path);
    let as_given = std::fs::symlink_metadata(&full).map_err(|e| failed(&e))?;
    let names_dir = names_directory(&slashed(path));
    let followed = follow || names_dir;
    let (full, is_dir) = if followed {
        let real = std::fs::canonicalize(&full).map_err(|e| failed(&e))?;
        let is_dir = real.is_dir();
        if names_dir && !is_dir {
            return Err(failed(&io::Error::from(io::ErrorKind::NotADirectory)));
        }
        (real, is_dir)
    } else {
        (full, as_given.is_dir())
    };
    let (parent, name) = match (full.parent(), full.file_name()) {
        (Some(parent), Some(name)) => (parent.to_owned(), name.to_string_lossy().into_owned()),
        _ => (full.clone(), ".".to_owned()),
    };
    Ok((local_tree(&parent)?, name, is_dir))
}

fn local_tree(dir: &Path) -> Result<Tree> {
    Ok(Tree::open(dir)?)
}

/// From the working directory, without dots; symlinks stay.
fn absolute(path: &str) -> PathBuf {
    let joined = std::env::current_dir().unwrap_or_default().join(path);
    let mut clean = PathBuf::new();
    for part in joined.components() {
        match part {
            std::path::Component::CurDir => {}
            // As a shell's logical `cd` has it, and Go's filepath.Clean.
            std::path::Component::ParentDir => drop(clean.pop()),
            part => clean.push(part),
        }
    }
    clean
}

fn from_container(
    engine: &Engine,
    container: &str,
    path: &str,
    to: &str,
    follow: bool,
    archive: bool,
) -> Result<Option<u64>> {
    if to != "-" {
        let full = absolute(to);
        let parent = full.parent().unwrap_or(&full);
        if !parent.is_dir() {
            let parent = parent.display();
            return Err(Failure::new(format!("invalid output path: directory \"{parent}\" does not exist")));
        }
        // The copy would take its place.
        if std::fs::metadata(&full).is_ok_and(|meta| !meta.is_dir() && !meta.is_file()) {
            let text = format!("invalid output path: {full:?} must be a directory or a regular file: got {SPECIAL}");
            return Err(Failure::new(text));
        }
    }
    let mut path = path.to_owned();
    // A link that is followed keeps the name that the person gave.
    let mut name = None;
    let mut stat = engine.stat_path(container, &path)?;
    if follow && let Some(target) = stat.link_target {
        name = Some(last_name(&path).to_owned());
        path = target;
        stat = engine.stat_path(container, &path)?;
    }
    let is_dir = stat.kind == PathKind::Dir;
    if to == "-" {
        engine.copy_out(container, &path, None, &mut io::stdout().lock())?;
        return Ok(None);
    }
    let to = local_end(to)?;
    let plan = plan(&End { path: path.clone(), exists: true, is_dir }, &to)?;
    let name = plan.name.or(name);
    let tree = local_tree(Path::new(&plan.into))?;
    // Docker gives all to whoever copies. With -a, who may keeps the owners.
    let placing = Placing { keep_kinds: true, keep_owners: archive && wharf_runtime::linux::is_root(), owner: None };
    piped(
        |out| Ok(engine.copy_out(container, &path, name.as_deref(), out)?),
        |archive| {
            told(&tree.unpack(".", archive, &placing)?);
            Ok(())
        },
    )
    .map(Some)
}

/// Where a local path leads, symlinks at its end followed even if nothing is there.
fn local_end(path: &str) -> Result<End> {
    let wants_dir = names_directory(&slashed(path));
    let mut full = absolute(path);
    for _ in 0..MOST_LINKS {
        match std::fs::symlink_metadata(&full) {
            Ok(meta) if meta.is_symlink() => {
                let target =
                    std::fs::read_link(&full).map_err(|e| Failure::io("readlink", &full.display().to_string(), &e))?;
                full = full.parent().unwrap_or(Path::new("/")).join(target);
            }
            Ok(meta) => {
                return Ok(End { path: slashed(&full.display().to_string()), exists: true, is_dir: meta.is_dir() });
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let slash = if wants_dir { "/" } else { "" };
                let path = format!("{}{slash}", slashed(&full.display().to_string()));
                return Ok(End { path, exists: false, is_dir: false });
            }
            Err(e) => return Err(Failure::io("lstat", &full.display().to_string(), &e)),
        }
    }
    Err(Failure::new(format!("lstat {path}: too many levels of symbolic links")))
}

/// A path of this system with slashes between its names, which every system understands.
fn slashed(path: &str) -> String {
    path.replace(std::path::MAIN_SEPARATOR, "/")
}

/// Runs writer and reader of an archive side by side; gives the bytes that went from one to the other. The writer's
/// failure counts first: the reader's follows from it.
fn piped(
    write: impl FnOnce(&mut dyn Write) -> Result<()> + Send,
    read: impl FnOnce(&mut dyn Read) -> Result<()>,
) -> Result<u64> {
    let (mut to, from) = handover();
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            write(&mut to)?;
            to.flush()?;
            Ok(to.bytes)
        });
        let outcome = {
            let mut from = from;
            read(&mut from)
        };
        let written = writer.join().unwrap_or_else(|_| Err(Failure::new("copying ended early")));
        match (written, outcome) {
            // It stopped reading, and says why.
            (Err(_), Err(failure)) | (Ok(_), Err(failure)) if !is_cut_short(&failure) => Err(failure),
            (Err(failure), _) => Err(failure),
            (Ok(_), Err(failure)) => Err(failure),
            (Ok(bytes), Ok(())) => Ok(bytes),
        }
    })
}

/// True of what an archive says that ends too early.
fn is_cut_short(failure: &Failure) -> bool {
    failure.text("", false).contains("cut short")
}

/// A pipe between two threads: what one has written is handed over in pieces, and not copied by the system.
fn handover() -> (Writing, Reading) {
    let (to, from) = mpsc::sync_channel(PIECES);
    (Writing { to, piece: Vec::with_capacity(PIECE), bytes: 0 }, Reading { from, piece: Vec::new(), at: 0 })
}

const PIECE: usize = 256 * 1024;
/// So many pieces may wait for their reader.
const PIECES: usize = 4;

struct Writing {
    to: SyncSender<Vec<u8>>,
    piece: Vec<u8>,
    /// All that was written.
    bytes: u64,
}

impl Write for Writing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        self.bytes += taken as u64;
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.to.send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

struct Reading {
    from: Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() {
            // Without a writer it is the end.
            let Ok(piece) = self.from.recv() else { return Ok(0) };
            (self.piece, self.at) = (piece, 0);
        }
        let taken = buffer.len().min(self.piece.len() - self.at);
        buffer[..taken].copy_from_slice(&self.piece[self.at..self.at + taken]);
        self.at += taken;
        Ok(taken)
    }
}

fn told(notes: &[String]) {
    for note in notes {
        tell(&format!("WARNING: {}\n", text::visible(note)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_are_told_apart() {
        assert_eq!(split("c:/a:b"), Some(("c", "/a:b")));
        assert_eq!(split("c:"), Some(("c", "")));
        for local in ["/a:b", "./a:b", "../a:b", "a", "-", ":/a"] {
            assert_eq!(split(local), None, "{local}");
        }
    }

    #[test]
    fn copies_are_planned_as_docker_plans_them() {
        let end = |path: &str, exists, is_dir| End { path: path.to_owned(), exists, is_dir };
        let (file, dir) = (end("f", true, false), end("d", true, true));
        let planned = |from: &End, to: End| match plan(from, &to) {
            Ok(plan) => format!("{} as {}", plan.into, plan.name.as_deref().unwrap_or("it is")),
            Err(failure) => failure.text("", false).trim_end().to_owned(),
        };
        assert_eq!(planned(&file, end("/x", true, true)), "/x as it is");
        assert_eq!(planned(&dir, end("/x", true, true)), "/x as it is");
        assert_eq!(planned(&dir, end("/x/f", true, false)), "cannot copy directory");
        assert_eq!(planned(&file, end("/x/f", true, false)), "/x as f");
        assert_eq!(planned(&dir, end("/x/n", false, false)), "/x as n");
        assert_eq!(planned(&dir, end("/n/", false, false)), "/ as n");
        assert_eq!(planned(&file, end("/n/", false, false)), "no such directory");
        assert_eq!(planned(&file, end("/n", false, false)), "/ as n");
    }
}
