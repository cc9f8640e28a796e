//! Another process in a running container: setns(2) into all its namespaces by the pidfd of its first process, and then
//! what every process goes through ([`launch`]).
//!
//! A process enters a pid namespace only by birth, so the one that joins makes another, the monitor's child by
//! `CLONE_PARENT`, and ends. Nothing of ours is opened or executed inside: the container may have put anything anywhere.

use std::os::fd::{BorrowedFd, OwnedFd};

use oci_spec::runtime::{Process, Spec};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::thread::ThreadNameSpaceType;

use super::capabilities::CapSet;
use super::channel::{Channel, Message};
use super::launch::{self, OwnProgram, Program, Streams};
use super::process::{self, SpawnOptions};
use super::rootfs::Root;
use super::seccomp::Filter;
use crate::error::{Class, Error, Result};
use crate::task::ExecSpec;

/// What the joining process needs to know.
#[derive(Debug)]
pub(super) struct Join<'a> {
    /// The container's first process.
    pub pidfd: BorrowedFd<'a>,
    /// The namespaces to join.
    pub namespaces: i32,
    pub process: &'a Process,
    pub user: &'a str,
    pub groups: &'a str,
    pub filter: Option<&'a Filter>,
}

/// What `make` makes in these namespaces of the process `first`. A process of ours joins them to make it, and ends.
///
/// # Errors
/// The kernel's; what `make` says; `Unavailable` when that process has ended.
pub(super) fn fetch(
    first: BorrowedFd<'_>,
    namespaces: ThreadNameSpaceType,
    make: impl FnOnce() -> Result<OwnedFd>,
) -> Result<OwnedFd> {
    let (ours, theirs) = Channel::pair()?;
    let (mut ours, mut theirs) = (Some(ours), Some(theirs));
    let child = process::spawn(SpawnOptions::default(), || {
        drop(ours.take());
        let Some(channel) = theirs.take() else { return 1 };
        let made = launch::hide().and_then(|()| {
            rustix::thread::move_into_thread_name_spaces(first, namespaces)
                .map_err(|e| Error::os("join the container", e))?;
            make()
        });
        channel.tell(made.and_then(|made| channel.send(&Message::Fetched(made))).map(|()| 0))
    });
    let child = child.map_err(|e| Error::os("make a process to join the container", e))?;
    drop(theirs);
    let heard = ours.as_ref().map_or(Ok(None), Channel::receive);
    child.wait().map_err(|e| Error::os("reap", e))?;
    match heard? {
        Some(Message::Fetched(made)) => Ok(made),
        Some(Message::Failed(error)) => Err(error),
        _ => Err(Error::new(Class::Unavailable, "the container has ended")),
    }
}

/// The process that `exec` asks for: the container's own, with what is asked for in its place.
///
/// # Errors
/// `InvalidInput` when nothing is to be run.
pub(super) fn process(spec: &Spec, exec: &ExecSpec) -> Result<Process> {
    let mut process =
        spec.process().clone().ok_or_else(|| Error::new(Class::InvalidInput, "the container has no process"))?;
    let environment = exec.environment(process.env().clone().unwrap_or_default());
    // HOME is not among them, unless somebody set it: it follows the user.
    process.set_env(Some(environment)).set_args(Some(exec.args.clone()));
    if let Some(cwd) = &exec.cwd {
        process.set_cwd(cwd.into());
    }
    if exec.privileged {
        let mut caps = process.capabilities().clone().unwrap_or_default();
        let all = || Some(CapSet::ALL.to_oci());
        caps.set_bounding(all()).set_effective(all()).set_permitted(all());
        process.set_capabilities(Some(caps));
    }
    Ok(process)
}

/// What goes wrong between the container and the program exits with docker's 126, and is told in the same words.
fn before_the_program(error: Error) -> Error {
    match error.class() {
        Class::InvalidInput | Class::NotFound if !matches!(error, Error::Exec { .. }) => {
            Error::Exec { code: 126, message: error.to_string() }
        }
        _ => error,
    }
}

/// The child's part: joins, makes the process that runs, and ends. Comes back with the code to exit with.
pub(super) fn joining_process(join: &Join<'_>, streams: Streams, channel: &Channel) -> Result<i32> {
    enter(join, channel).and_then(|own| {
        let options = SpawnOptions { sibling: true, ..SpawnOptions::default() };
        let (announced, announcing) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| Error::os("make a pipe", e))?;
        let mut announcing = Some(announcing);
        let inner = process::spawn(options, || {
            // The monitor must know whom it hears: an end that came first would never be reaped, and the container's own
            // end waits for it.
            drop(announcing.take());
            let _ = rustix::io::read(&announced, &mut [0]);
            channel.tell(inside(join, streams, own, channel))
        })
        .map_err(|e| Error::os("make a process in the container", e))?;
        let pid = inner.pid();
        channel.send(&Message::Made(pid, inner.into_pidfd()))?;
        drop(announcing);
        Ok(0)
    })
}

fn enter(join: &Join<'_>, channel: &Channel) -> Result<OwnProgram> {
    process::default_signals();
    let own = OwnProgram::find()?;
    channel.wait_until_placed()?;
    // Before anything of the container can look at us.
    launch::hide()?;
    let namespaces = ThreadNameSpaceType::from_bits_retain(join.namespaces as u32);
    rustix::thread::move_into_thread_name_spaces(join.pidfd, namespaces)
        .map_err(|e| Error::os("join the container", e))?;
    Ok(own)
}

fn inside(join: &Join<'_>, streams: Streams, own: OwnProgram, channel: &Channel) -> Result<i32> {
    rustix::process::setsid().map_err(|e| Error::os("start a session", e))?;
    let root = Root::here()?;
    let program = Program {
        process: join.process,
        user: join.user,
        groups: join.groups,
        filter: join.filter,
        init: false,
        first: None,
    };
    launch::run(&root, &program, streams, own, channel).map_err(before_the_program)
}
