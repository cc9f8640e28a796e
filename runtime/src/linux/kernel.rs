//! Small settings of the kernel that belong to a container's namespaces: its parameters (sysctl), its loopback
//! interface, its place in line when memory runs out.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, fstatfs, openat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::mounts::PROC;
use super::rootfs::Root;
use crate::error::{Class, Error, Result};

/// Sets kernel parameters, of those that belong to a namespace the container has of its own: all others are the host's.
///
/// # Errors
/// `InvalidInput` for a parameter that is not the container's, the kernel's for a value.
pub(super) fn set_parameters(root: &Root, parameters: &HashMap<String, String>, namespaces: i32) -> Result<()> {
    for (name, value) in parameters {
        if !is_own(name, namespaces) {
            let message = format!("sysctl {name} is not in a namespace of the container: it would be set on the host");
            return Err(Error::new(Class::InvalidInput, message));
        }
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        let failed = |e: Errno| Error::io("set the kernel parameter", &path, e);
        let file = root.open_plain(&path, OFlags::WRONLY).map_err(|e| match e {
            // Docker's words for a parameter that this kernel does not have.
            Errno::NOENT => {
                Error::new(Class::InvalidInput, format!("open {}: no such file or directory", path.display()))
            }
            e => failed(e),
        })?;
        if fstatfs(&file).map_err(failed)?.f_type as u64 != PROC {
            return Err(failed(Errno::NODEV));
        }
        rustix::io::write(&file, value.as_bytes()).map_err(failed)?;
    }
    Ok(())
}

/// The parameters that namespaces(7) names, each with its namespace.
fn is_own(name: &str, namespaces: i32) -> bool {
    let has = |flag| namespaces & flag != 0;
    let safe = !name.contains('/') && !name.split('.').any(str::is_empty);
    let ipc = ["kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem"];
    safe && (name.starts_with("net.") && has(libc::CLONE_NEWNET)
        || (ipc.contains(&name) || name.starts_with("kernel.shm") || name.starts_with("fs.mqueue."))
            && has(libc::CLONE_NEWIPC)
        || name == "kernel.domainname" && has(libc::CLONE_NEWUTS))
}

/// Brings the loopback interface of a new network namespace up: netdevice(7).
///
/// # Errors
/// The kernel's.
pub(super) fn raise_loopback() -> Result<()> {
    let failed = |e: std::io::Error| Error::os("raise the loopback interface", e);
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(|e| failed(e.into()))?;
    // SAFETY: a request of all zeroes is a valid one; its name is short and ends with a zero.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    // A new loopback has no flags that would be lost.
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request outlives the call, and is what SIOCSIFFLAGS reads.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) } != 0 {
        return Err(failed(std::io::Error::last_os_error()));
    }
    Ok(())
}

/// Sets this process's `oom_score_adj`, proc_pid_oom_score_adj(5). The host's /proc must still be there.
///
/// # Errors
/// The kernel's; one that would make a rootless container less likely to be killed is left out.
pub(super) fn adjust_oom_score(adjustment: i32) -> Result<()> {
    const PATH: &str = "/proc/self/oom_score_adj";
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let written = openat(rustix::fs::CWD, PATH, flags, Mode::empty())
        .and_then(|file| rustix::io::write(&file, adjustment.to_string().as_bytes()));
    match written {
        Ok(_) | Err(Errno::ACCESS | Errno::PERM) => Ok(()),
        Err(e) => Err(Error::io("write", PATH, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parameters_of_own_namespaces() {
        let all = libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        for name in ["net.ipv4.ip_forward", "kernel.shmmax", "kernel.sem", "fs.mqueue.msg_max", "kernel.domainname"] {
            assert!(is_own(name, all), "{name}");
            assert!(!is_own(name, libc::CLONE_NEWPID), "{name}");
        }
        for name in ["kernel.panic", "vm.swappiness", "net", "net..x", "net.ipv4/../../kernel/panic", "kernel.semx"] {
            assert!(!is_own(name, all), "{name}");
        }
    }
}
