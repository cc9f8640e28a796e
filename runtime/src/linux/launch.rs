//! The last steps before a program runs, the same for a container's first process and for those that join it: from root
//! in the container's namespaces to the program's user, limits, rights and streams.
//!
//! The order follows from what each step needs: capabilities(7) for the user and the sets, seccomp(2) for the filter,
//! prctl(2) for the signal at the monitor's death, which a change of user clears.

#![allow(unsafe_code)]

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxCapabilities, PosixRlimit, PosixRlimitType, Process};
use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, accessat, fstat, stat};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use rustix::thread::{Gid, Uid};

use super::capabilities::{CapSet, ProcessCaps, own_bounding};
use super::channel::{Channel, Message};
use super::rootfs::Root;
use super::seccomp::Filter;
use super::tty::Terminal;
use super::user::{self, Identity};
use super::{devices, init, process};
use crate::error::{Class, Error, Result};
use crate::task::Stdio;

/// Where programs are looked for when the environment does not say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is to run, as the monitor planned it.
#[derive(Debug)]
pub(super) struct Program<'a> {
    pub process: &'a Process,
    pub user: &'a str,
    /// Names of groups to add, between commas.
    pub groups: &'a str,
    pub filter: Option<&'a Filter>,
    /// Run it under an init of ours.
    pub init: bool,
    /// Only for a container's first process.
    pub first: Option<First>,
}

/// What is done for a container's first process: its console and its working directory are made.
#[derive(Debug, Clone, Copy)]
pub(super) struct First {
    /// Afterwards nothing can be written to the root.
    pub read_only: bool,
}

/// Where its streams go.
#[derive(Debug)]
pub(super) enum Streams {
    Files([OwnedFd; 3]),
    Terminal(Option<(u16, u16)>),
}

impl Streams {
    /// From what the monitor gives.
    ///
    /// # Errors
    /// When the null device, for no stdin, cannot be opened.
    pub fn of(stdio: Stdio) -> Result<Streams> {
        Ok(match stdio {
            Stdio::Pipes { stdin, stdout, stderr } => {
                let stdin = stdin.map_or_else(devices::open_null, |file| Ok(file.into()))?;
                Streams::Files([stdin, stdout.into(), stderr.into()])
            }
            Stdio::Terminal { size } => Streams::Terminal(size),
        })
    }
}

/// This program's own file: device and inode.
#[derive(Debug, Clone, Copy)]
pub(super) struct OwnProgram(u64, u64);

impl OwnProgram {
    /// Looks it up. The host's /proc must still be there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn find() -> Result<OwnProgram> {
        let stat = stat("/proc/self/exe").map_err(|e| Error::io("look at", "/proc/self/exe", e))?;
        Ok(OwnProgram(stat.st_dev, stat.st_ino))
    }
}

/// Lets nobody in the container look into this process, or reach our program's file through it, as long as it has not
/// executed the container's. (CVE-2019-5736. That nobody can write to the file even so is the kernel's doing: it is
/// busy, ETXTBSY, as long as any monitor runs.)
///
/// # Errors
/// The kernel's.
pub(super) fn hide() -> Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|e| Error::os("hide this process", e))
}

/// Gets ready to execute, tells the monitor, waits for its word, and executes.
///
/// Only an init of ours comes back from it with a code.
///
/// # Errors
/// What went wrong, to be told to the monitor; [`Error::Exec`] for the program itself.
pub(super) fn run(
    root: &Root,
    program: &Program<'_>,
    streams: Streams,
    own: OwnProgram,
    channel: &Channel,
) -> Result<i32> {
    let spec = program.process;
    let identity = user::find(root, program.user, spec.user(), program.groups)?;
    let arguments = arguments(spec)?;
    let mut environment = spec.env().clone().unwrap_or_default();
    if !environment.iter().any(|variable| variable.starts_with("HOME=")) {
        environment.push(format!("HOME={}", identity.home));
    }

    for limit in spec.rlimits().iter().flatten() {
        set_limit(limit)?;
    }
    if let Some(mask) = spec.user().umask() {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
    }
    let console = take_streams(root, streams, &identity, program.first.is_some())?;
    enter_cwd(root, spec.cwd(), program.first.is_some())?;
    if program.first.is_some_and(|first| first.read_only) {
        root.make_read_only()?;
    }

    let caps = caps(spec.capabilities().as_ref(), identity.uid);
    caps.lower_bounding().map_err(|e| Error::os("lower the bounding set", e))?;
    let no_new_privs = spec.no_new_privileges().unwrap_or(false);
    let install = |when: bool| match program.filter {
        Some(filter) if when => filter.install().map_err(|e| Error::os("install the seccomp filter", e)),
        _ => Ok(()),
    };
    if no_new_privs {
        rustix::thread::set_no_new_privs(true).map_err(|e| Error::os("set no_new_privs", e))?;
    }
    // Without no_new_privs it takes CAP_SYS_ADMIN, which is about to go.
    install(!no_new_privs)?;
    become_user(&identity)?;
    caps.apply().map_err(|e| Error::os("set the capabilities", e))?;
    hide()?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| Error::os("tie this process to the monitor", e))?;
    install(no_new_privs)?;

    let path = find_program(&arguments[0], &environment, own)?;
    let executable = Executable::new(&path, &arguments, &environment)?;
    process::close_on_exec_from(3).map_err(|e| Error::os("close descriptors", e))?;
    channel.send(&Message::Ready(console))?;
    // If the monitor died before its signal could be asked for, this is where it shows.
    if !matches!(channel.receive()?, Some(Message::Go)) {
        return Err(Error::new(Class::Cancelled, "the monitor is gone"));
    }
    if program.init {
        return init::run(channel, || executable.execute());
    }
    Err(executable.execute())
}

fn arguments(process: &Process) -> Result<Vec<String>> {
    let arguments = process.args().clone().unwrap_or_default();
    if arguments.is_empty() {
        return Err(Error::new(Class::InvalidInput, "no command specified"));
    }
    Ok(arguments)
}

/// Sets a limit, as high as we may: raising a hard limit needs CAP_SYS_RESOURCE, which a container on top of another
/// machine's container may lack. Programs cope with lower limits better than with none at all.
fn set_limit(limit: &PosixRlimit) -> Result<()> {
    let resource = resource(limit.typ());
    let hard = rustix::process::getrlimit(resource).maximum;
    let given = |value: u64| (value != RLIM_INFINITY).then_some(value);
    let wanted = |value| Rlimit { current: given(limit.soft().min(value)), maximum: given(value) };
    let clamped = limit.hard().min(hard.unwrap_or(RLIM_INFINITY));
    rustix::process::setrlimit(resource, wanted(limit.hard()))
        .or_else(|_| rustix::process::setrlimit(resource, wanted(clamped)))
        .map_err(|e| Error::os("set a resource limit", e))
}

/// `RLIM_INFINITY` of setrlimit(2), and the OCI spec's way to say unlimited.
const RLIM_INFINITY: u64 = u64::MAX;

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
    }
}

/// Puts the streams at 0, 1 and 2. With a terminal, its master comes back for the monitor.
fn take_streams(root: &Root, streams: Streams, identity: &Identity, first: bool) -> Result<Option<OwnedFd>> {
    let (files, master) = match streams {
        Streams::Files(files) => (files, None),
        Streams::Terminal(size) => {
            let terminal = Terminal::make(root, size)?;
            if first {
                terminal.make_console(root)?;
            }
            terminal.control()?;
            let copy = || terminal.slave.try_clone().map_err(|e| Error::os("copy a descriptor", e));
            ([copy()?, copy()?, copy()?], Some(terminal.master))
        }
    };
    // None of the three may stand where another goes.
    let above = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(|e| Error::os("copy a descriptor", e));
    let files = [above(&files[0])?, above(&files[1])?, above(&files[2])?];
    for (number, file) in files.iter().enumerate() {
        give_to(file, identity);
        // SAFETY: dup2 onto the standard streams, which Rust's library uses by number and never owns.
        if unsafe { libc::dup2(file.as_raw_fd(), number as i32) } < 0 {
            return Err(Error::os("place a standard stream", std::io::Error::last_os_error()));
        }
    }
    Ok(master)
}

/// Lets the container's user open /dev/stdout and the like: a pipe or terminal has an owner as a file has.
fn give_to(file: &OwnedFd, identity: &Identity) {
    let Ok(stat) = fstat(file) else { return };
    if stat.st_uid == identity.uid || devices::is_null(file.as_fd()) {
        return;
    }
    // What may not change hands works all the same for everything but opening it again.
    let kind = FileType::from_raw_mode(stat.st_mode);
    if matches!(kind, FileType::Fifo | FileType::CharacterDevice | FileType::Socket) {
        let _ = rustix::fs::fchown(file, Some(rustix::fs::Uid::from_raw(identity.uid)), None);
    }
}

fn enter_cwd(root: &Root, path: &Path, make: bool) -> Result<()> {
    let failed = |e: Errno| {
        let why = std::io::Error::from(e).to_string();
        let why = why.split(" (os error").next().unwrap_or_default().to_lowercase();
        Error::new(
            Class::InvalidInput,
            format!("chdir to cwd ({:?}) set in config.json failed: {why}", path.display().to_string()),
        )
    };
    let dir = if make {
        root.make_dir(path, 0o755).map_err(|e| match e {
            Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotADirectory => {
                Error::new(Class::InvalidInput, format!("Cannot mkdir: {} is not a directory", path.display()))
            }
            e => e,
        })?
    } else {
        root.open(path, OFlags::PATH | OFlags::DIRECTORY).map_err(failed)?
    };
    rustix::process::fchdir(&dir).map_err(failed)?;
    // CVE-2024-21626: a directory outside the root has no path in it.
    let cwd = rustix::process::getcwd(Vec::new()).map_err(failed)?;
    if cwd.as_bytes().first() == Some(&b'/') { Ok(()) } else { Err(failed(Errno::XDEV)) }
}

/// The sets that a spec asks for, as far as we have them ourselves.
fn caps(spec: Option<&LinuxCapabilities>, uid: u32) -> ProcessCaps {
    let set = |of: fn(&LinuxCapabilities) -> &Option<_>| CapSet::from_oci(spec.and_then(|spec| of(spec).as_ref()));
    let caps = ProcessCaps {
        bounding: set(LinuxCapabilities::bounding),
        effective: set(LinuxCapabilities::effective),
        permitted: set(LinuxCapabilities::permitted),
        inheritable: set(LinuxCapabilities::inheritable),
        ambient: set(LinuxCapabilities::ambient),
    };
    // What execve would do for another user than root; an init of ours does not execute.
    let held = if uid == 0 { CapSet::ALL } else { caps.ambient };
    ProcessCaps { effective: caps.effective.intersection(held), permitted: caps.permitted.intersection(held), ..caps }
        .clamp(own_bounding())
}

fn become_user(identity: &Identity) -> Result<()> {
    let failed = |e: Errno| match e {
        Errno::INVAL => Error::new(
            Class::InvalidInput,
            format!("user {}:{} does not exist in this user namespace", identity.uid, identity.gid),
        )
        .with_hint("give this user a range in /etc/subuid and /etc/subgid and install newuidmap (package uidmap)"),
        e => Error::os("become the container's user", e),
    };
    let groups: Vec<Gid> = identity.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    match rustix::thread::set_thread_groups(&groups) {
        Ok(()) => {}
        // With a single mapping groups cannot be changed: user_namespaces(7). Root has enough in its own.
        Err(Errno::PERM | Errno::INVAL) if (identity.uid, identity.gid) == (0, 0) => {}
        Err(Errno::PERM) => return Err(failed(Errno::INVAL)),
        Err(e) => return Err(failed(e)),
    }
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(failed)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(failed)
}

/// Finds the program as the container's user would, in docker's words when it is not there.
fn find_program(name: &str, environment: &[String], own: OwnProgram) -> Result<PathBuf> {
    let quoted = |code, why: String| Error::Exec { code, message: format!("exec: {name:?}: {why}") };
    let usable = |path: &Path| -> Result<(), Errno> {
        let stat = stat(path)?;
        if FileType::from_raw_mode(stat.st_mode).is_dir() {
            return Err(Errno::ISDIR);
        }
        // Our own program, by way of /proc/self/exe, is not the container's to run.
        if (stat.st_dev, stat.st_ino) == (own.0, own.1) || interpreted_by(path, own) {
            return Err(Errno::ACCESS);
        }
        accessat(CWD, path, Access::EXEC_OK, AtFlags::empty())
    };
    if name.contains('/') {
        return match usable(Path::new(name)) {
            Ok(()) => Ok(name.into()),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(quoted(127, format!("stat {name}: no such file or directory"))),
            Err(Errno::ISDIR) => Err(quoted(126, "is a directory".to_owned())),
            Err(_) => Err(quoted(126, "permission denied".to_owned())),
        };
    }
    let path = environment.iter().rev().find_map(|v| v.strip_prefix("PATH=")).unwrap_or(PATH);
    let mut denied = false;
    for dir in path.split(':') {
        let candidate = Path::new(if dir.is_empty() { "." } else { dir }).join(name);
        match usable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::ACCESS) => denied = true,
            Err(_) => {}
        }
    }
    Err(if denied && !name.is_empty() {
        quoted(126, "permission denied".to_owned())
    } else {
        quoted(127, "executable file not found in $PATH".to_owned())
    })
}

/// True for a script of which our own program is the interpreter: `#!/proc/self/exe`. The kernel would start it in the
/// container, where a root of the container could get hold of its file (CVE-2019-5736). What is swapped after this look
/// still cannot be written to: the container's monitor executes that file.
fn interpreted_by(path: &Path, own: OwnProgram) -> bool {
    let mut path = path.to_owned();
    // As deep as the kernel follows interpreters of interpreters: execve(2).
    for _ in 0..5 {
        let mut start = [0; 256];
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let read = rustix::fs::open(&path, flags, Mode::empty()).and_then(|file| rustix::io::read(file, &mut start));
        // What this user may not read, he may not write to either.
        let Ok(length) = read else { return false };
        let Some(line) = start[..length].strip_prefix(b"#!") else { return false };
        let line = line.split(|b| *b == b'\n').next().unwrap_or_default().trim_ascii_start();
        let name = line.split(|b| matches!(b, b' ' | b'\t' | 0)).next().unwrap_or_default();
        path = PathBuf::from(OsStr::from_bytes(name));
        let Ok(stat) = stat(&path) else { return false };
        if (stat.st_dev, stat.st_ino) == (own.0, own.1) {
            return true;
        }
    }
    false
}

/// A call of execve with everything allocated.
struct Executable {
    path: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Executable {
    fn new(path: &Path, arguments: &[String], environment: &[String]) -> Result<Executable> {
        let zero = |_| Error::new(Class::InvalidInput, "a zero byte in the command, its arguments or its environment");
        let all = |texts: &[String]| texts.iter().map(|text| CString::new(text.as_str())).collect::<Result<_, _>>();
        Ok(Executable {
            path: CString::new(path.as_os_str().as_bytes()).map_err(zero)?,
            arguments: all(arguments).map_err(zero)?,
            environment: all(environment).map_err(zero)?,
        })
    }

    /// Comes back only with the reason why not.
    fn execute(&self) -> Error {
        let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
            texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
        };
        let (arguments, environment) = (pointers(&self.arguments), pointers(&self.environment));
        // SAFETY: both are null-terminated arrays of C strings that live as long as `self`.
        unsafe { libc::execve(self.path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
        let error = std::io::Error::last_os_error();
        let path = self.path.to_string_lossy();
        let (code, why) = match error.raw_os_error() {
            // The file was there a moment ago: its interpreter is not.
            Some(libc::ENOENT) => (127, "no such file or directory".to_owned()),
            Some(libc::EACCES) => (126, "permission denied".to_owned()),
            Some(libc::ENOEXEC) => (126, "exec format error".to_owned()),
            Some(libc::E2BIG) => (126, "argument list too long".to_owned()),
            _ => (126, error.to_string()),
        };
        Error::Exec { code, message: format!("exec {path}: {why}") }
    }
}
