//! A helper process that stands before a container's files: it makes them visible as the container sees them, and carries
//! archives out of them and into them.
//!
//! It is this program executed again, because what it needs (a mount namespace of its own, a user namespace) takes a
//! process with one thread, and must not happen to the process that asks. What it sees:
//!
//! - of a running Linux container, the container's own mounts, by `/proc/PID/root` (proc_pid_root(5));
//! - of all others, the layers mounted as one tree, with the container's bind mounts, for this helper alone.
//!
//! It never steps into the tree, resolves no path of it but by [`wharf_images::tree`], and without root it looks at
//! files as the container's own user namespace shows them. Requests and bytes go over the socket that is its stdin.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cap_std::fs::Dir;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wharf_images::snapshot::{self, Rootfs};
use wharf_images::tree::{PathStat, Placing, Room, Tree};

use super::container::unshare;
use super::mounts;
use super::process::{self, SpawnOptions};
use super::rootfs::{self, Root};
use super::user;
use super::userns::{self, Mappings};
use crate::backend::wasm::tree::quota;
use crate::config::MountKind;
use crate::container::{BackendKind, Container};
use crate::engine::{Engine, Options};
use crate::error::{Class, Error, Result};
use crate::files::{Change, Outcome, Request};
use crate::linux;
use crate::monitor::protocol::{self, Failure, Frame, MAX_FRAME, Reply};
use crate::volume::{Done, Work};

/// The name under which this program executes itself for this.
pub const REEXEC: &str = "wharf-archives";

/// Bytes of an archive in one frame.
const PIECE: usize = 256 * 1024;

/// The helper's answer, after all its bytes.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Done,
    Worked(Done),
    Stat(PathStat),
    Notes(Vec<String>),
    Failed(Failure),
}

/// Has a helper do it. What it reads of an archive comes from `input`, what it writes goes to `output`.
///
/// # Errors
/// What the helper says; `input`'s and `output`'s.
pub(crate) fn ask(
    engine: &Engine,
    id: &str,
    request: &Request,
    input: &mut dyn Read,
    output: &mut dyn Write,
) -> Result<Outcome> {
    let (paths, json) = (engine.paths(), json(request)?);
    let args = [paths.root.as_os_str(), paths.run.as_os_str(), id.as_ref(), json.as_ref()];
    let input = matches!(request, Request::Unpack { .. }).then_some(input);
    match have_done(&args, input, output)? {
        Answer::Done => Ok(Outcome::Done),
        Answer::Stat(stat) => Ok(Outcome::Stat(stat)),
        Answer::Notes(notes) => Ok(Outcome::Notes(notes)),
        Answer::Worked(_) => Err(Error::new(Class::Internal, "the helper told of other work")),
        Answer::Failed(failure) => Err(failure.into()),
    }
}

/// Has a helper do it as root of a user namespace in which all is its own that this user or its subordinate ids own.
///
/// # Errors
/// What the helper says; `output`'s.
pub(crate) fn as_root(work: &Work, output: &mut dyn Write) -> Result<Done> {
    match have_done(&[json(work)?.as_ref()], None, output)? {
        Answer::Worked(done) => Ok(done),
        Answer::Failed(failure) => Err(failure.into()),
        _ => Err(Error::new(Class::Internal, "the helper told of other work")),
    }
}

/// Has trees that this user may not remove removed in the same way, whoever finds them.
pub(crate) fn help_to_remove() {
    if !linux::is_root() {
        snapshot::help_to_remove(remove_as_root);
    }
}

fn remove_as_root(dir: &Path) -> wharf_images::Result<()> {
    match as_root(&Work::Remove { dir: dir.to_owned() }, &mut io::sink()) {
        Ok(_) => Ok(()),
        Err(Error::Image(e)) => Err(e),
        Err(e) => Err(wharf_images::Error::new(e.class(), e.to_string())),
    }
}

fn json(request: &impl Serialize) -> Result<String> {
    serde_json::to_string(request).map_err(|e| wharf_images::Error::json("the helper's request", e).into())
}

fn have_done(args: &[&OsStr], input: Option<&mut dyn Read>, output: &mut dyn Write) -> Result<Answer> {
    let (ours, theirs) = UnixStream::pair().map_err(|e| Error::os("make a socket pair", e))?;
    let mut child = Command::new("/proc/self/exe")
        .arg0(REEXEC)
        .args(args)
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .spawn()
        .map_err(|e| Error::os("execute the helper for files", e))?;
    let talked = talk(&ours, input, output);
    drop(ours);
    child.wait().map_err(|e| Error::os("wait for the helper for files", e))?;
    talked
}

fn talk(stream: &UnixStream, input: Option<&mut dyn Read>, output: &mut dyn Write) -> Result<Answer> {
    if let Some(input) = input {
        send(stream, input)?;
    }
    let mut frame = Vec::new();
    loop {
        let lost = |e| Error::os("hear from the helper for files", e);
        protocol::read_frame(stream, &mut frame).map_err(lost)?;
        match Frame::decode(&frame).map_err(lost)? {
            Some((Frame::Stdout(bytes), _)) => output.write_all(bytes).map_err(|e| Error::os("write", e))?,
            Some((Frame::Reply(json), _)) => return serde_json::from_slice(json).map_err(|e| lost(e.into())),
            _ => return Err(lost(io::ErrorKind::InvalidData.into())),
        }
    }
}

/// Sends an archive. A helper that wants no more says why in its answer.
fn send(mut stream: &UnixStream, input: &mut dyn Read) -> Result<()> {
    let mut frame = vec![0; protocol::HEADER + PIECE];
    loop {
        let n = match input.read(&mut frame[protocol::HEADER..]) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Error::os("read the archive", e)),
        };
        let kind = if n == 0 { Frame::CloseStdin } else { Frame::Stdin(&[]) };
        frame[..protocol::HEADER].copy_from_slice(&kind.header(n));
        match stream.write_all(&frame[..protocol::HEADER + n]) {
            Ok(()) if n > 0 => {}
            _ => return Ok(()),
        }
    }
}

/// The main function of the helper.
pub(crate) fn main(args: &[OsString]) -> i32 {
    let Ok(stdin) = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3) else { return 125 };
    let stream = UnixStream::from(stdin);
    match args {
        [work] => {
            let Some(work) = parsed(work) else { return 125 };
            finish(&stream, serve_work(&work, &stream))
        }
        [root, run, id, request] => {
            let (Some(id), Some(request)) = (id.to_str(), parsed(request)) else { return 125 };
            let engine = Engine::open(Options { root: Some(root.into()), run: Some(run.into()), ..Options::default() });
            finish(&stream, engine.and_then(|engine| serve(engine, id, request, &stream)))
        }
        _ => 125,
    }
}

fn parsed<T: DeserializeOwned>(json: &OsStr) -> Option<T> {
    serde_json::from_str(json.to_str()?).ok()
}

fn serve_work(work: &Work, stream: &UnixStream) -> Result<Option<Answer>> {
    let act = || {
        let mut out = Pieces::to(stream);
        let done = work.directly(&mut out)?;
        out.flush().map_err(|e| Error::os("write", e))?;
        Ok(Some(Answer::Worked(done)))
    };
    match in_new_namespace(&userns::mappings(), || finish(stream, act())) {
        Ok(()) => Ok(None),
        // Where ordinary people get no user namespaces no container has made files of subordinate ids either.
        Err(_) => act(),
    }
}

/// Says how it ended, if a process further down has not said it already.
fn finish(mut stream: &UnixStream, served: Result<Option<Answer>>) -> i32 {
    let answer = match served {
        Ok(Some(answer)) => answer,
        Ok(None) => return 0,
        Err(e) => Answer::Failed(Failure::from(&e)),
    };
    let mut bytes = Vec::new();
    Frame::Reply(&serde_json::to_vec(&answer).unwrap_or_default()).encode(&mut bytes);
    // Who does not listen any more need not know.
    i32::from(stream.write_all(&bytes).is_err())
}

/// What of the host is seen in a container.
struct Bound {
    source: PathBuf,
    /// A part of the source, to be looked for inside of it.
    subpath: Option<String>,
    target: PathBuf,
    read_only: bool,
}

/// Where the files are.
struct View {
    rootfs: Rootfs,
    binds: Vec<Bound>,
    read_only: bool,
    /// The root and the user namespace of a container that runs.
    live: Option<(OwnedFd, OwnedFd)>,
    /// The container's user as docker spells it; empty is root.
    user: String,
    /// The most bytes that its own layer may hold.
    storage: Option<u64>,
}

impl View {
    /// The ids of the container's user, unless it is root.
    fn user_ids(&self, root: &Root) -> Result<Option<(u32, u32)>> {
        if self.user.is_empty() {
            return Ok(None);
        }
        let identity = user::find(root, &self.user, &oci_spec::runtime::User::default(), "")?;
        Ok(Some((identity.uid, identity.gid)))
    }
}

fn serve(engine: Engine, id: &str, request: Request, stream: &UnixStream) -> Result<Option<Answer>> {
    let container = engine.container(id)?;
    let rootfs = engine.images()?.snapshots.mounts(&container.id)?;
    let live = match request {
        Request::Stat { .. } | Request::Pack { .. } | Request::Unpack { .. } => live(&engine, &container)?,
        Request::Changes | Request::Export | Request::Layer => None,
    };
    if let Request::Changes = request
        && linux::is_root()
    {
        return changes(&engine, &container.id, stream).map(Some);
    }
    let user = match container.backend() {
        BackendKind::Linux => container.config.user.clone().unwrap_or_else(|| container.image.config.user.clone()),
        BackendKind::Wasm => String::new(),
    };
    // Nobody else sees what is mounted, and of one that runs it is there.
    let binds = match request {
        Request::Stat { .. } | Request::Pack { .. } | Request::Unpack { .. } if live.is_none() => {
            binds(&engine, &container)?
        }
        _ => Vec::new(),
    };
    let (read_only, storage) = (container.config.read_only, container.config.storage_size);
    let view = View { rootfs, binds, read_only, live, user, storage };
    let mappings = userns::mappings();
    if mappings.0.is_empty() {
        return act(engine, &container.id, &request, &view, false, true, stream).map(Some);
    }
    in_user_namespace(engine, &container.id, &request, &view, &mappings, stream)
}

/// Root and user namespace of a running Linux container. Their process is named by a number, so its monitor, which has
/// not reaped it, is asked again once both are open: if it is still the same process, it was so all the time.
fn live(engine: &Engine, container: &Container) -> Result<Option<(OwnedFd, OwnedFd)>> {
    if container.backend() != BackendKind::Linux || !container.state.state.is_live() {
        return Ok(None);
    }
    let first = || match engine.ask(container, &protocol::Request::Processes) {
        Ok(Reply::Processes { pids, .. }) => Ok(pids.first().copied()),
        Ok(_) => Err(Error::new(Class::Internal, "the monitor did not name its processes")),
        // It has just ended: its files are seen as those of one that does not run.
        Err(e) if e.class() == Class::Unavailable => Ok(None),
        Err(e) => Err(e),
    };
    let Some(pid) = first()? else { return Ok(None) };
    let open = |name: &str, flags: OFlags| {
        let path = format!("/proc/{pid}/{name}");
        openat(CWD, &path, flags | OFlags::CLOEXEC, Mode::empty())
    };
    let opened = (open("root", OFlags::PATH | OFlags::DIRECTORY), open("ns/user", OFlags::RDONLY));
    if first()? != Some(pid) {
        return Ok(None);
    }
    match opened {
        (Ok(root), Ok(user)) => Ok(Some((root, user))),
        (Err(e), _) | (_, Err(e)) => Err(Error::os("open the container's root", e)),
    }
}

/// What a container that does not run would have mounted of the host. Its tmpfs would be empty.
fn binds(engine: &Engine, container: &Container) -> Result<Vec<Bound>> {
    let mut binds = Vec::new();
    for mount in &container.config.mounts {
        let (source, subpath, fixed) = match &mount.kind {
            MountKind::Bind(bind) => (PathBuf::from(&bind.source), None, false),
            MountKind::Volume(volume) => {
                let opened = engine.volumes().open(&volume.name)?;
                (opened.path, volume.subpath.clone(), opened.read_only)
            }
            MountKind::Tmpfs(_) => continue,
        };
        binds.push(Bound {
            source,
            subpath,
            target: PathBuf::from(&mount.target),
            read_only: mount.read_only || fixed,
        });
    }
    Ok(binds)
}

/// Does it in a child that is root of a user namespace: the running container's, else one with the same users.
fn in_user_namespace(
    engine: Engine,
    id: &str,
    request: &Request,
    view: &View,
    mappings: &Mappings,
    stream: &UnixStream,
) -> Result<Option<Answer>> {
    let engine = engine.reopened();
    let all_owners = mappings.0.iter().map(|map| map.size()).sum::<u32>() > 1;
    if let Some((_, user)) = &view.live {
        move_into_thread_name_spaces(user.as_fd(), ThreadNameSpaceType::USER)
            .map_err(|e| Error::os("join the container's user namespace", e))?;
        return act(engine, id, request, view, true, all_owners, stream).map(Some);
    }
    in_new_namespace(mappings, || {
        let engine = engine.reopened();
        finish(stream, act(engine, id, request, view, true, all_owners, stream).map(Some))
    })
    .map(|()| None)
}

/// Runs `body` in a child that is root of a user namespace of its own.
fn in_new_namespace(mappings: &Mappings, body: impl FnOnce() -> i32) -> Result<()> {
    let (ours, theirs) = UnixStream::pair().map_err(|e| Error::os("make a socket pair", e))?;
    let mut theirs = Some(theirs);
    let mut ours = Some(ours);
    let options = SpawnOptions { namespaces: libc::CLONE_NEWUSER | libc::CLONE_NEWNS, ..SpawnOptions::default() };
    let child = process::spawn(options, || {
        drop(ours.take());
        let mut word = [0];
        let told = theirs.take().map(|mut line| line.read_exact(&mut word));
        if !matches!(told, Some(Ok(()))) {
            return 125;
        }
        body()
    })
    .map_err(|e| Error::os("make a user namespace", e))?;
    drop(theirs.take());
    userns::write(child.pid(), mappings)?;
    if let Some(mut line) = ours.take() {
        line.write_all(b"g").map_err(|e| Error::os("start the helper for files", e))?;
    }
    child.wait().map_err(|e| Error::os("wait for the helper for files", e))?;
    Ok(())
}

/// Does what is asked for, in the namespaces it is to be done in.
fn act(
    engine: Engine,
    id: &str,
    request: &Request,
    view: &View,
    in_user_namespace: bool,
    all_owners: bool,
    stream: &UnixStream,
) -> Result<Answer> {
    let mut out = Pieces::to(stream);
    match request {
        Request::Changes => return changes(&engine, id, stream),
        Request::Export => snapshot::export(&view.rootfs, &mut out)?,
        Request::Layer => snapshot::export_changes(&view.rootfs, &crate::files::is_mount_point, &mut out)?,
        Request::Stat { path } => return Ok(Answer::Stat(tree(&root(view, in_user_namespace)?)?.stat(path)?)),
        Request::Pack { path, name } => {
            tree(&root(view, in_user_namespace)?)?.pack(path, name.as_deref(), &mut out)?;
        }
        Request::Unpack { path, keep_kinds, as_user } => {
            let quota = quota(own_layer(&view.rootfs), view.storage)?;
            let room = quota.as_ref().map(|quota| |bytes| quota.room(bytes));
            let room = room.as_ref().map(|room| room as &Room<'_>);
            let root = root(view, in_user_namespace)?;
            // An owner whom the container's user namespace does not know cannot be given anything.
            let owner = if *as_user && all_owners { view.user_ids(&root)? } else { None };
            let placing = Placing { keep_kinds: *keep_kinds, keep_owners: all_owners, owner };
            let mut archive = Archive { stream, frame: Vec::new(), at: 0, over: false };
            return Ok(Answer::Notes(tree(&root)?.unpack_within(path, &mut archive, &placing, room)?));
        }
    }
    out.flush().map_err(|e| Error::os("write", e))?;
    Ok(Answer::Done)
}

/// Where a container's own files are.
fn own_layer(rootfs: &Rootfs) -> &Path {
    match rootfs {
        Rootfs::Dir(dir) | Rootfs::Overlay { upper: dir, .. } => dir,
    }
}

fn changes(engine: &Engine, id: &str, stream: &UnixStream) -> Result<Answer> {
    let found = engine.images()?.snapshots.changes(id)?;
    let mut out = Pieces::to(stream);
    let found: Vec<Change> = found.into_iter().map(|(path, kind)| Change { path, kind: kind.into() }).collect();
    serde_json::to_writer(&mut out, &found).map_err(|e| wharf_images::Error::json("changes", e))?;
    out.flush().map_err(|e| Error::os("write", e))?;
    Ok(Answer::Done)
}

fn tree(root: &Root) -> Result<Tree> {
    let root = root.tree().map_err(|e| Error::os("duplicate a descriptor", e))?;
    Ok(Tree::of(&Dir::from_std_file(File::from(root)))?)
}

/// The container's root: its own if it runs, else mounted for this process alone.
fn root(view: &View, in_user_namespace: bool) -> Result<Root> {
    if let Some((root, _)) = &view.live {
        return Ok(Root::of(root.try_clone().map_err(|e| Error::os("duplicate a descriptor", e))?));
    }
    if !in_user_namespace {
        unshare(libc::CLONE_NEWNS)?;
    }
    rootfs::make_private()?;
    let root = Root::of(rootfs::mount_root(&view.rootfs, in_user_namespace)?);
    for bound in &view.binds {
        mounts::show(&root, &bound.source, bound.subpath.as_deref(), &bound.target, bound.read_only)?;
    }
    if view.read_only {
        root.make_read_only()?;
    }
    Ok(root)
}

/// Sends what is written to it in frames.
struct Pieces<'a> {
    stream: &'a UnixStream,
    /// The next one, with room for its header.
    frame: Vec<u8>,
}

impl<'a> Pieces<'a> {
    fn to(stream: &'a UnixStream) -> Self {
        let mut frame = Vec::with_capacity(protocol::HEADER + PIECE);
        frame.resize(protocol::HEADER, 0);
        Pieces { stream, frame }
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(protocol::HEADER + PIECE - self.frame.len());
        self.frame.extend_from_slice(&bytes[..taken]);
        if self.frame.len() == protocol::HEADER + PIECE {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        const { assert!(PIECE <= MAX_FRAME) };
        let length = self.frame.len() - protocol::HEADER;
        if length == 0 {
            return Ok(());
        }
        self.frame[..protocol::HEADER].copy_from_slice(&Frame::Stdout(&[]).header(length));
        let sent = self.stream.write_all(&self.frame);
        self.frame.truncate(protocol::HEADER);
        sent
    }
}

/// Reads the archive that the other side sends.
struct Archive<'a> {
    stream: &'a UnixStream,
    frame: Vec<u8>,
    at: usize,
    /// Who reads on after the end must not wait for more.
    over: bool,
}

impl Read for Archive<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.frame.len() {
            if self.over {
                return Ok(0);
            }
            protocol::read_frame(self.stream, &mut self.frame)?;
            match Frame::decode(&self.frame)? {
                Some((Frame::Stdin(_), _)) => self.at = protocol::HEADER,
                Some((Frame::CloseStdin, _)) => {
                    self.over = true;
                    self.at = self.frame.len();
                }
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        let n = buffer.len().min(self.frame.len() - self.at);
        buffer[..n].copy_from_slice(&self.frame[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
