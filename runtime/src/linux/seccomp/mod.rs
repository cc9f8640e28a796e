//! System call filters (`seccomp(2)`): docker's default profile, profiles of the person's own, and one for our own
//! jailed processes.
//!
//! `libseccomp` is a C library, and `seccompiler` makes linear programs, which cost a start half a millisecond to
//! install. So filters are made here: a profile becomes a [`policy::Policy`] (data), and that a program with a binary
//! search in it (`tree`). Nothing is kept on disk; making the default one takes a few tens of microseconds.
//!
//! A 32-bit program cannot run under these filters: calls of a foreign architecture, and of x32, kill the process.

#![allow(unsafe_code)]

mod docker;
pub(in crate::linux) mod policy;
pub mod profile;
pub(in crate::linux) mod syscalls;
mod tree;

use std::io;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompFilterFlag, Spec};

use self::policy::Policy;
use self::syscalls::Arch;
use self::tree::Insn;
use crate::error::{Class, Error, Result};
use crate::linux::capabilities::CapSet;

/// Annotation of a spec whose process runs under a profile that Wharf knows by name.
pub const ANNOTATION: &str = "wharf.seccomp";
/// The annotation's value for docker's default profile.
pub const DEFAULT: &str = "default";

/// The kernel takes no longer program (`BPF_MAXINSNS`).
const LONGEST: usize = 4096;

/// A program, ready to be installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    program: Vec<Insn>,
    flags: libc::c_ulong,
}

/// Docker's default profile for a container whose bounding set is `granted`.
pub fn docker_default(granted: CapSet) -> Filter {
    Filter { program: tree::emit(&docker::policy(granted, Arch::NATIVE), Arch::NATIVE), flags: 0 }
}

/// A profile, as a filter for this machine.
///
/// # Errors
/// `InvalidInput` for a profile that makes no sense, or too long a program; `Unsupported` for actions that Wharf has
/// not.
pub fn compile(profile: &LinuxSeccomp) -> Result<Filter> {
    Filter::of(&Policy::of(profile, Arch::NATIVE)?, flags(profile)?)
}

/// The filter that a spec asks for: its own profile, or the one that its annotation names. `None` for unconfined.
///
/// # Errors
/// As [`compile`].
pub fn of_spec(spec: &Spec) -> Result<Option<Filter>> {
    if let Some(profile) = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref()) {
        return compile(profile).map(Some);
    }
    match spec.annotations().as_ref().and_then(|map| map.get(ANNOTATION)).map(String::as_str) {
        Some(DEFAULT) => {
            let capabilities = spec.process().as_ref().and_then(|process| process.capabilities().as_ref());
            let bounding = capabilities.and_then(|sets| sets.bounding().as_ref());
            Ok(Some(docker_default(CapSet::from_oci(bounding))))
        }
        Some(other) => Err(Error::new(Class::InvalidInput, format!("unknown seccomp profile {other:?}"))),
        None => Ok(None),
    }
}

fn flags(profile: &LinuxSeccomp) -> Result<libc::c_ulong> {
    let mut flags = 0;
    for flag in profile.flags().iter().flatten() {
        flags |= match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => libc::SECCOMP_FILTER_FLAG_TSYNC,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            // Only of use with SCMP_ACT_NOTIFY, which is refused.
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0,
        };
    }
    Ok(flags)
}

impl Filter {
    /// A policy as a filter for this machine.
    pub(in crate::linux) fn of(policy: &Policy, flags: libc::c_ulong) -> Result<Filter> {
        let program = tree::emit(policy, Arch::NATIVE);
        if program.len() > LONGEST {
            let message =
                format!("seccomp profile: its program has {} instructions, more than {LONGEST}", program.len());
            return Err(policy::invalid(message));
        }
        Ok(Filter { program, flags })
    }

    /// Installs it on the calling thread, for good. Async-signal-safe: one system call, nothing is allocated, so it
    /// may be called between fork and execve.
    ///
    /// The thread needs `CAP_SYS_ADMIN` in its user namespace, or `no_new_privs`. With the former, install it before
    /// capabilities are dropped: the default profile lets `capset`, `prctl`, `setuid` and `execve` through.
    ///
    /// # Errors
    /// The kernel's: `EACCES` without those, `EINVAL` where the kernel has no seccomp.
    pub fn install(&self) -> io::Result<()> {
        let program = libc::sock_fprog {
            // At most 4096, checked when it was made.
            len: self.program.len() as u16,
            filter: self.program.as_ptr().cast_mut().cast(),
        };
        // SAFETY: `program` points to `len` instructions of `struct sock_filter`'s layout that outlive the call; the
        // kernel copies them and writes nothing.
        let result =
            unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, self.flags, &raw const program) };
        match result {
            0 => Ok(()),
            // With TSYNC, a thread that could not follow.
            1.. => Err(io::Error::from_raw_os_error(libc::ESRCH)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// How many instructions it has.
    pub fn len(&self) -> usize {
        self.program.len()
    }

    /// Never: a filter has at least a return.
    pub fn is_empty(&self) -> bool {
        self.program.is_empty()
    }
}

#[cfg(test)]
mod tests;
