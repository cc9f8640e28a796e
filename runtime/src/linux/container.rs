//! The making of a container, in its first process: from a fresh clone of the monitor to a program about to run.
//!
//! Everything that must be named on the host is opened first; then this process stands in the container's root, and
//! what is left is done there by descriptor.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::process::Signal;
use rustix::thread::{ThreadNameSpaceType, UnshareFlags, move_into_thread_name_spaces};

use super::channel::{Channel, Message};
use super::launch::{self, First, OwnProgram, Program, Streams};
use super::mounts::{self, Situation};
use super::rootfs::{self, Root};
use super::seccomp::Filter;
use super::spec::mounts::SHARED;
use super::userns::{self, Mappings};
use super::{devices, exec, kernel, neighbour, network, process};
use crate::error::{Class, Error, Result};
use crate::task::{LinuxTask, TaskSpec};

/// What the first process needs to know.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub task: &'a TaskSpec,
    pub linux: &'a LinuxTask,
    pub filter: Option<&'a Filter>,
    /// Not empty: in a user namespace of its own.
    pub mappings: &'a Mappings,
    /// The first process of the container whose shared memory it has. Opened by the monitor: a number means nothing in
    /// another pid namespace.
    pub ipc: Option<BorrowedFd<'a>>,
    /// The first process of the container whose network it has, likewise.
    pub network: Option<BorrowedFd<'a>>,
}

/// The namespaces a container is to have of its own, as clone(2)'s flags.
///
pub(super) fn namespaces(linux: &LinuxTask) -> i32 {
    let mut flags = libc::CLONE_NEWNS;
    let all = linux.spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref()).into_iter().flatten();
    // One with a path is another container's.
    for namespace in all.filter(|namespace| namespace.path().is_none()) {
        flags |= match namespace.typ() {
            LinuxNamespaceType::Network if linux.host_network => 0,
            // Decided by who we are.
            LinuxNamespaceType::User => 0,
            kind => kind as i32,
        };
    }
    flags
}

/// The namespaces it shares with another container, likewise.
pub(super) fn joined(linux: &LinuxTask) -> i32 {
    let pid = linux.pid.map_or(0, |_| libc::CLONE_NEWPID);
    pid | linux.ipc.map_or(0, |_| libc::CLONE_NEWIPC) | linux.network.map_or(0, |_| libc::CLONE_NEWNET)
}

/// The child's part: comes back with the code to exit with when an init of ours ran the program, and else with why it was
/// not executed.
pub(super) fn first_process(plan: &Plan<'_>, namespaces: i32, streams: Streams, channel: &Channel) -> Result<i32> {
    let spec = &plan.linux.spec;
    let rootless = !plan.mappings.0.is_empty();
    // Set again at the end, for a change of user clears it; until then it covers the making.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| Error::os("tie this process to the monitor", e))?;
    process::default_signals();
    let own = OwnProgram::find()?;
    if rootless {
        channel.wait_until_placed()?;
    }
    rustix::process::setsid().map_err(|e| Error::os("start a session", e))?;
    let outside = plan.linux.connected.then(network::Outside::open).transpose()?;
    unshare(namespaces & !(libc::CLONE_NEWPID | libc::CLONE_NEWUSER | libc::CLONE_NEWCGROUP))?;
    let memory = plan.ipc.map(join_memory).transpose()?;
    if let Some(process) = plan.network {
        move_into_thread_name_spaces(process, ThreadNameSpaceType::NETWORK)
            .map_err(|e| Error::os("join the other container's network", e))?;
    }
    let unconnected = outside.map(network::Outside::leave).transpose()?;
    if plan.linux.relayed {
        kernel::raise_loopback()?;
        network::keep_loopback()?;
        // Before it hides: who connects it finds its namespaces by its number.
        channel.send(&Message::Apart)?;
        for place in channel.wait_until_connected()? {
            network::settle_alone(&place)?;
            send_names(channel)?;
        }
    }
    if !rootless {
        channel.wait_until_placed()?;
    }
    // Only now is this process where its cgroup namespace shall begin.
    unshare(namespaces & libc::CLONE_NEWCGROUP)?;
    launch::hide()?;
    if let Some(adjustment) = spec.process().as_ref().and_then(|process| process.oom_score_adj()) {
        kernel::adjust_oom_score(adjustment)?;
    }

    let situation = Situation {
        user_namespace: rootless,
        foreign_network: plan.linux.host_network,
        tty_group: !rootless || userns::maps(&plan.mappings.1, 5),
    };
    // Before the mounts become our own: those that go on being shared. What they are mounted on is private by then.
    let mut shared = BTreeMap::new();
    for (place, mount) in spec.mounts().iter().flatten().enumerate().filter(|(_, mount)| mounts::is_shared(mount)) {
        shared.insert(place, mounts::prepare(mount, situation)?);
    }
    rootfs::make_private()?;
    let linux = spec.linux().as_ref();
    let extra = linux.and_then(|linux| linux.devices().as_deref()).unwrap_or_default();
    let devices = devices::prepare(extra, rootless)?;
    let mut prepared = Vec::new();
    for (place, mount) in spec.mounts().iter().flatten().enumerate() {
        match shared.remove(&place) {
            Some(mounts) => prepared.extend(mounts),
            None => prepared.extend(mounts::prepare(mount, situation)?),
        }
    }
    let tree = rootfs::mount_root(&plan.task.rootfs, rootless)?;
    let root = Root::enter(tree)?;

    let mut null = None;
    for mount in &prepared {
        mount.attach(&root)?;
        if mount.target() == Path::new("/dev") {
            null = Some(devices.make(&root, mount.tree())?);
        }
    }
    let covered = prepared.iter().any(|mount| mount.target() == Path::new(SHARED));
    if let Some(tree) = memory.filter(|_| !covered) {
        mounts::attach_tree(&root, tree.as_fd(), Path::new(SHARED), true)?;
    }
    drop(prepared);
    names(spec, namespaces)?;
    match unconnected {
        Some(unconnected) => {
            unconnected.connect(&channel.wait_until_connected()?)?;
            send_names(channel)?;
        }
        None if plan.linux.relayed => {}
        None if namespaces & libc::CLONE_NEWNET != 0 => kernel::raise_loopback()?,
        None => {}
    }
    if let Some(parameters) = linux.and_then(|linux| linux.sysctl().as_ref()) {
        kernel::set_parameters(&root, parameters, namespaces)?;
    }
    if let Some(masked) = linux.and_then(|linux| linux.masked_paths().as_deref()) {
        let null = null.as_ref().ok_or_else(|| Error::new(Class::InvalidInput, "masked paths need a /dev"))?;
        mounts::mask(&root, masked, null.as_fd())?;
    }
    if let Some(paths) = linux.and_then(|linux| linux.readonly_paths().as_deref()) {
        mounts::protect(&root, paths)?;
    }

    let process = spec.process().as_ref().ok_or_else(|| Error::new(Class::InvalidInput, "no process to run"))?;
    let program = Program {
        process,
        user: &plan.linux.user,
        groups: groups(spec),
        filter: plan.filter,
        init: plan.linux.init,
        first: Some(First { read_only: spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false) }),
    };
    launch::run(&root, &program, streams, own, channel)
}

/// Lets the monitor answer what is asked about names in this network namespace.
fn send_names(channel: &Channel) -> Result<()> {
    let (datagrams, streams) = network::names::sockets()?;
    channel.send(&Message::Names(datagrams))?;
    channel.send(&Message::Names(streams))
}

/// Joins the ipc namespace of another container, of which this is the first process. Gives its shared memory, to be mounted.
fn join_memory(process: BorrowedFd<'_>) -> Result<OwnedFd> {
    let tree = exec::fetch(process, ThreadNameSpaceType::MOUNT, neighbour::shared_memory)?;
    move_into_thread_name_spaces(process, ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION)
        .map_err(|e| Error::os("join the other container's ipc namespace", e))?;
    Ok(tree)
}

pub(super) fn unshare(flags: i32) -> Result<()> {
    if flags == 0 {
        return Ok(());
    }
    // SAFETY: CLONE_FILES, which the caution is about, is none of the namespaces.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::from_bits_retain(flags as u32)) }
        .map_err(|e| Error::os("make the container's namespaces", e))
}

fn names(spec: &Spec, namespaces: i32) -> Result<()> {
    if namespaces & libc::CLONE_NEWUTS == 0 {
        return Ok(());
    }
    if let Some(name) = spec.hostname().as_deref().filter(|name| !name.is_empty()) {
        rustix::system::sethostname(name.as_bytes()).map_err(|e| Error::os("set the host name", e))?;
    }
    if let Some(name) = spec.domainname().as_deref().filter(|name| !name.is_empty()) {
        rustix::system::setdomainname(name.as_bytes()).map_err(|e| Error::os("set the domain name", e))?;
    }
    Ok(())
}

/// The names of the groups to add.
pub(super) fn groups(spec: &Spec) -> &str {
    let annotations = spec.annotations().as_ref();
    annotations.and_then(|map| map.get(super::spec::GROUPS)).map(String::as_str).unwrap_or_default()
}
