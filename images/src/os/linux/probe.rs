//! Finding out whether this user can mount an overlay: the rules differ by kernel, distribution and filesystem, so it
//! is tried. Root mounts it detached (`fsopen(2)`), where nobody sees it; others try in a child with a user namespace
//! of its own (user_namespaces(7); overlayfs allows it since kernel 5.11).

#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::fs as rfs;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};
use rustix::thread::UnshareFlags;

use super::DirAt;

/// What the child says instead of starting a program: the mount worked.
const WORKED: Errno = Errno::CANCELED;

/// True when overlays of directories in `dir` can be mounted, and the marks they need can be set.
pub(crate) fn overlay_works(dir: &Path) -> bool {
    let scratch = dir.join(format!("probe-{}", std::process::id()));
    let works = attempt(&scratch).is_ok();
    // What is left behind of a failed attempt is empty and harmless.
    let _ = super::remove_tree(&scratch);
    works
}

fn attempt(scratch: &Path) -> io::Result<()> {
    for name in ["lower", "upper", "work"] {
        std::fs::create_dir_all(scratch.join(name))?;
    }
    let marks = DirAt::open(scratch)?;
    marks.set_opaque()?;
    marks.whiteout(b"whiteout")?;
    let paths = Paths::of(scratch)?;
    match mount(&paths, false) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => in_user_namespace(paths),
        other => other,
    }
}

/// The directories of an overlay, ready for use between fork and exec, where nothing may be allocated.
struct Paths {
    lower: CString,
    upper: CString,
    work: CString,
}

impl Paths {
    fn of(scratch: &Path) -> io::Result<Self> {
        let path =
            |name| CString::new(scratch.join(name).as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput);
        Ok(Paths { lower: path("lower")?, upper: path("upper")?, work: path("work")? })
    }
}

/// Makes the overlay without attaching it anywhere; it goes with its descriptor.
fn mount(paths: &Paths, user_xattr: bool) -> io::Result<()> {
    let context = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, c"lowerdir", &*paths.lower)?;
    fsconfig_set_string(&context, c"upperdir", &*paths.upper)?;
    fsconfig_set_string(&context, c"workdir", &*paths.work)?;
    if user_xattr {
        fsconfig_set_flag(&context, c"userxattr")?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    Ok(())
}

fn in_user_namespace(paths: Paths) -> io::Result<()> {
    let (uid, gid) = super::own_ids();
    let maps = [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {uid} 1")), ("gid_map", format!("0 {gid} 1"))];
    let maps = maps.map(|(name, text)| Ok((CString::new(format!("/proc/self/{name}"))?, text)));
    let maps: Vec<(CString, String)> = maps.into_iter().collect::<io::Result<_>>()?;
    let mut command = Command::new("/proc/self/exe");
    let attempt = move || {
        // SAFETY: the child of a fork has one thread, as these flags demand, and shares no memory with its parent.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)? };
        for (path, text) in &maps {
            let file = rfs::open(&**path, rfs::OFlags::WRONLY | rfs::OFlags::CLOEXEC, rfs::Mode::empty())?;
            rustix::io::write(file, text.as_bytes())?;
        }
        mount(&paths, true)?;
        Err(WORKED.into())
    };
    // SAFETY: the closure makes system calls on memory prepared before the fork, and allocates nothing.
    unsafe { command.pre_exec(attempt) };
    match command.spawn() {
        Err(e) if Errno::from_io_error(&e) == Some(WORKED) => Ok(()),
        Err(e) => Err(e),
        // It cannot have started: the closure never succeeds.
        Ok(mut child) => {
            child.kill()?;
            child.wait()?;
            Err(io::ErrorKind::Other.into())
        }
    }
}
