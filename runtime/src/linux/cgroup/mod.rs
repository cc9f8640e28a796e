//! Control groups: limits, freezing, counting, and finding every process of a container again.
//!
//! **Why our own.** `cgroups-rs` was weighed and left: it links a D-Bus client for systemd, reads `mountinfo` and
//! makes a directory in every hierarchy for each group. A hierarchy costs about 40 µs of a start (make, enter,
//! remove), so we make as few as will do:
//!
//! - v2: the one directory there is. `CLONE_INTO_CGROUP` ([`Cgroup::v2_dir`]) makes entering it free.
//! - v1 with a v2 tree beside it: the directory in the v2 tree, though it has no controllers. It lists, kills and
//!   freezes processes and counts their CPU time, and is entered at clone too. v1 hierarchies are made only for
//!   limits: memory without a limit can be summed over the processes, and a container without a limit of its own is
//!   never killed for its group's want of memory.
//! - v1 alone: one hierarchy, `memory` if it is there, which lists the processes; the freezer joins at the first pause.
//! - None that we may write (rootless without delegation): nothing. Limits are refused by name, all else works, and
//!   killing goes to the processes that were added.
//!
//! Sources: `cgroups(7)`, the kernel's `admin-guide/cgroup-v1` and `admin-guide/cgroup-v2`.

mod available;
mod devices;
mod file;
mod layout;
mod plan;
mod usage;

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

pub(crate) use available::check as check_limits;
pub use devices::{DeviceRule, docker_devices};
pub use layout::{Controller, Layout};
pub use plan::validate;

use crate::error::{Class, Error, Result};
use crate::task::{Limits, Usage};
use plan::{Setting, Version};

/// How long freezing, killing and removing wait for the kernel before they give up.
const PATIENCE: Duration = Duration::from_secs(5);

/// A control group: the processes of one container.
#[derive(Debug)]
pub struct Cgroup {
    path: String,
    place: Place,
}

/// One directory of ours.
#[derive(Debug)]
struct Group {
    /// `None` for a v2 tree.
    controller: Option<Controller>,
    path: PathBuf,
    dir: OwnedFd,
}

#[derive(Debug)]
enum Place {
    Unified(Group),
    /// Some of the v1 hierarchies, and the v2 tree beside them if there is one. More hierarchies join later.
    Separate {
        layout: &'static Layout,
        groups: RefCell<Vec<Group>>,
        unified: Option<Group>,
    },
    /// No cgroup: the processes that were added, by descriptor.
    None(RefCell<Vec<OwnedFd>>),
}

/// Kills what is in the group `path` and takes it away.
///
/// # Errors
/// `Unavailable` when something stays.
pub fn clear(path: &str) -> Result<()> {
    let cgroup = Cgroup::open(path)?;
    cgroup.kill_all()?;
    cgroup.remove()
}

impl Cgroup {
    /// Makes the group `path` (`wharf/ID`), with `limits` in force. A group that is already there is taken over.
    ///
    /// # Errors
    /// `InvalidInput` for limits that contradict each other, `Unsupported` for one that this machine or this user
    /// cannot set, the kernel's for a value it refuses. Nothing is left behind.
    pub fn create(path: &str, limits: &Limits) -> Result<Cgroup> {
        Cgroup::create_in(Layout::get(), path, limits)
    }

    fn create_in(layout: &'static Layout, path: &str, limits: &Limits) -> Result<Cgroup> {
        validate(limits)?;
        let place = match layout {
            Layout::Unified { base } => {
                let wanted = plan::settings(limits, Version::V2);
                enable_controllers(base, path, &wanted)?;
                Place::Unified(Group::make(None, base, path)?)
            }
            Layout::Separate { hierarchies, unified } => {
                let unified = unified.as_ref().map(|base| Group::make(None, base, path)).transpose()?;
                let mut groups = Vec::new();
                if unified.is_none()
                    && let Some((controller, base)) = hierarchies.first()
                {
                    groups.push(Group::make(Some(*controller), base, path)?);
                }
                Place::Separate { layout, groups: RefCell::new(groups), unified }
            }
            Layout::None => Place::None(RefCell::default()),
        };
        let group = Cgroup { path: path.to_owned(), place };
        match group.put_in_force(limits) {
            Ok(()) => Ok(group),
            Err(error) => {
                // The first error is the one that tells why.
                let _ = group.remove();
                Err(error)
            }
        }
    }

    /// The group `path` as another process made it. Where it does not exist, an empty one that answers with nothing.
    ///
    /// # Errors
    /// The kernel's, for a directory that is there and cannot be opened.
    pub fn open(path: &str) -> Result<Cgroup> {
        Cgroup::open_in(Layout::get(), path)
    }

    fn open_in(layout: &'static Layout, path: &str) -> Result<Cgroup> {
        let none = || Place::None(RefCell::default());
        let place = match layout {
            Layout::Unified { base } => Group::open(None, base, path)?.map_or_else(none, Place::Unified),
            Layout::Separate { hierarchies, unified } => {
                let unified = match unified {
                    Some(base) => Group::open(None, base, path)?,
                    None => None,
                };
                let mut groups = Vec::new();
                for (controller, base) in hierarchies {
                    groups.extend(Group::open(Some(*controller), base, path)?);
                }
                if groups.is_empty() && unified.is_none() {
                    none()
                } else {
                    Place::Separate { layout, groups: RefCell::new(groups), unified }
                }
            }
            Layout::None => none(),
        };
        Ok(Cgroup { path: path.to_owned(), place })
    }

    /// The v2 directory, for `CLONE_INTO_CGROUP`. A process cloned into it needs [`Cgroup::enter`] and
    /// [`Cgroup::watch`] instead of [`Cgroup::add`].
    pub fn v2_dir(&self) -> Option<BorrowedFd<'_>> {
        match &self.place {
            Place::Unified(group) | Place::Separate { unified: Some(group), .. } => Some(group.dir.as_fd()),
            Place::Separate { .. } | Place::None(_) => None,
        }
    }

    /// True when there is a group; where no cgroup can be written there is none.
    pub fn is_there(&self) -> bool {
        !matches!(self.place, Place::None(_))
    }

    /// Moves a process into the group.
    ///
    /// # Errors
    /// The kernel's; `NotFound` when it has ended.
    pub fn add(&self, pid: u32) -> Result<()> {
        if let Some(dir) = self.v2_dir() {
            file::write(dir, "cgroup.procs", &pid.to_string()).map_err(|e| self.failed("enter cgroup", e))?;
        }
        if let Place::Separate { groups, .. } = &self.place {
            groups.borrow().iter().try_for_each(|group| group.enter("cgroup.procs", pid))?;
        }
        self.watch(pid)
    }

    /// In a child that was cloned into [`Cgroup::v2_dir`] and has one thread: goes where else it belongs. To move others
    /// the kernel waits until all processors have passed a quiet state, which takes 10 to 20 ms; not so when a thread moves
    /// itself by the file `tasks` of version 1 (`cgroup_procs_write_start` in kernel/cgroup/cgroup.c).
    ///
    /// # Errors
    /// The kernel's.
    pub fn enter(&self) -> Result<()> {
        match &self.place {
            Place::Separate { groups, .. } => groups.borrow().iter().try_for_each(|group| group.enter("tasks", 0)),
            Place::Unified(_) | Place::None(_) => Ok(()),
        }
    }

    /// Where there is no group to be asked: remembers a child as one of it.
    ///
    /// # Errors
    /// `NotFound` when it has ended.
    pub fn watch(&self, pid: u32) -> Result<()> {
        if let Place::None(processes) = &self.place {
            let pid = Pid::from_raw(pid as i32).ok_or_else(|| Error::os("add process", Errno::SRCH))?;
            let handle = pidfd_open(pid, PidfdFlags::empty()).map_err(|e| Error::os("open process", e))?;
            processes.borrow_mut().push(handle);
        }
        Ok(())
    }

    /// Stops every process of the group, or lets them go on. Returns when that has happened.
    ///
    /// # Errors
    /// `Unavailable` when a process does not stop in time; the kernel's.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        if let Some(dir) = self.v2_dir() {
            let value = if frozen { "1" } else { "0" };
            file::write(dir, "cgroup.freeze", value).map_err(|e| self.failed("freeze cgroup", e))?;
            let reached = || file::field(dir, "cgroup.events", "frozen").is_none_or(|now| (now == 1) == frozen);
            return self.wait_until(reached, "the processes do not stop");
        }
        match &self.place {
            Place::Separate { .. } => {
                let group = self.freezer()?;
                let state = if frozen { "FROZEN" } else { "THAWED" };
                let set = || file::write(group.as_fd(), "freezer.state", state);
                set().map_err(|e| self.failed("freeze cgroup", e))?;
                // A process that was forking may stay FREEZING until it is asked again (`freezer-subsystem`).
                let reached = || {
                    file::read(group.as_fd(), "freezer.state").is_ok_and(|now| now.trim_end() == state)
                        || set().is_err()
                };
                self.wait_until(reached, "the processes do not stop")
            }
            Place::None(_) => {
                self.signal_added(if frozen { Signal::STOP } else { Signal::CONT });
                Ok(())
            }
            Place::Unified(_) => Ok(()),
        }
    }

    /// Kills every process of the group and of groups below it, frozen ones too, and waits until they are gone.
    ///
    /// # Errors
    /// `Unavailable` when something stays.
    pub fn kill_all(&self) -> Result<()> {
        if let Place::None(processes) = &self.place {
            self.signal_added(Signal::KILL);
            processes.borrow_mut().clear();
            return Ok(());
        }
        // Since Linux 5.14 the kernel kills a whole tree at once, so nothing can fork away from it.
        let at_once = self.v2_dir().is_some_and(|dir| file::write(dir, "cgroup.kill", "1").is_ok());
        let mut thawed = false;
        let gone = || {
            let pids = self.pids();
            if !at_once {
                for pid in &pids {
                    // A number just read from the group: reuse would need a full turn of all numbers in between.
                    let _ = kill_process(*pid, Signal::KILL);
                }
            }
            if !thawed && !pids.is_empty() {
                self.thaw_quietly();
                thawed = true;
            }
            pids.is_empty()
        };
        self.wait_until(gone, "processes stay after SIGKILL")
    }

    /// What the group uses now. Fields that nothing here can tell are zero.
    pub fn usage(&self) -> Usage {
        usage::read(self)
    }

    /// True when the kernel killed a process of the group because the group's memory ran out.
    pub fn oom_killed(&self) -> bool {
        let killed = match &self.place {
            Place::Unified(group) => file::field(group.dir.as_fd(), "memory.events", "oom_kill"),
            Place::Separate { .. } => {
                self.with(Controller::Memory, |dir| file::field(dir, "memory.oom_control", "oom_kill"))
            }
            Place::None(_) => None,
        };
        killed.is_some_and(|count| count > 0)
    }

    /// Puts other limits in force. What `limits` does not mention stays as it is.
    ///
    /// # Errors
    /// As [`Cgroup::create`].
    pub fn update(&self, limits: &Limits) -> Result<()> {
        validate(limits)?;
        self.put_in_force(limits)
    }

    /// Lets the group's processes use the devices that `rules` allow and no others.
    ///
    /// # Errors
    /// The kernel's. Without a cgroup nothing is done: such a user cannot make device nodes either.
    pub fn limit_devices(&self, rules: &[DeviceRule]) -> Result<()> {
        let failed = |e| self.failed("limit devices", e);
        match &self.place {
            Place::Unified(group) => devices::attach_program(group.dir.as_fd(), rules).map_err(failed),
            Place::Separate { unified, .. } => {
                // The program first: entering a v1 hierarchy waits for every processor to pass a quiet state, some
                // milliseconds when they are busy (`cgroup_threadgroup_rwsem`); a birth into the v2 tree does not.
                let program = |group: &Group| devices::attach_program(group.dir.as_fd(), rules);
                if unified.as_ref().is_some_and(|group| program(group).is_ok()) {
                    Ok(())
                } else if self.join(Controller::Devices)? {
                    let write = |dir: BorrowedFd<'_>| Some(devices::write_rules(dir, rules));
                    self.with(Controller::Devices, write).unwrap_or(Ok(())).map_err(failed)
                } else {
                    Err(Error::new(Class::Unsupported, "this machine has no way to limit a container's devices"))
                }
            }
            Place::None(_) => Ok(()),
        }
    }

    /// Takes the group away, with groups below it. Processes that are left are killed.
    ///
    /// # Errors
    /// Fails when something stays. A group that is gone is no error.
    pub fn remove(&self) -> Result<()> {
        match &self.place {
            Place::Unified(group) => self.remove_group(group),
            Place::Separate { groups, unified, .. } => {
                for group in groups.borrow_mut().drain(..) {
                    self.remove_group(&group)?;
                }
                unified.as_ref().map_or(Ok(()), |group| self.remove_group(group))
            }
            Place::None(processes) => {
                processes.borrow_mut().clear();
                Ok(())
            }
        }
    }

    fn remove_group(&self, group: &Group) -> Result<()> {
        let mut killed = false;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match file::remove_tree(&group.path) {
                Ok(()) => return Ok(()),
                Err(Errno::BUSY) if Instant::now() < deadline => {
                    if !killed {
                        self.kill_group(group);
                        killed = true;
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(e) => return Err(Error::io("remove cgroup", &group.path, e)),
            }
        }
    }

    /// Kills what is in one directory; used when the others may be gone already.
    fn kill_group(&self, group: &Group) {
        self.thaw_quietly();
        for pid in file::pids(group.dir.as_fd()) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Writes what `limits` ask for, making v1 hierarchies as they are needed.
    fn put_in_force(&self, limits: &Limits) -> Result<()> {
        let version = match &self.place {
            Place::Separate { .. } => Version::V1,
            Place::Unified(_) | Place::None(_) => Version::V2,
        };
        let plan = plan::settings(limits, version);
        // Some pairs (memory and memory with swap) must be written in an order that depends on what is in force now:
        // what is refused at first gets a second try after the others.
        let mut again = Vec::new();
        for setting in &plan {
            if self.write(setting)?.is_err() {
                again.push(setting);
            }
        }
        for setting in again {
            self.write(setting)?.map_err(|e| self.refused(setting, e))?;
        }
        Ok(())
    }

    /// Writes one setting. The outer error is final, the inner one the kernel's.
    fn write(&self, setting: &Setting) -> Result<Result<(), Errno>> {
        let done = match &self.place {
            Place::Unified(group) => Some(write_first(group.dir.as_fd(), setting)),
            Place::Separate { .. } => {
                self.join(setting.controller)?;
                self.with(setting.controller, |dir| Some(write_first(dir, setting)))
            }
            Place::None(_) => None,
        };
        match done {
            Some(Err(Errno::NOENT | Errno::ACCESS)) | None if setting.optional => Ok(Ok(())),
            Some(Err(Errno::NOENT | Errno::ACCESS)) | None => {
                Err(Error::new(Class::Unsupported, format!("--{} requires cgroup delegation", setting.flag)).with_hint(
                    "run as root, or let your administrator delegate the controller to you (systemd: Delegate=yes)",
                ))
            }
            Some(result) => Ok(result),
        }
    }

    fn refused(&self, setting: &Setting, error: Errno) -> Error {
        let Setting { flag, value, .. } = setting;
        let class = if error == Errno::BUSY { Class::Conflict } else { Class::InvalidInput };
        let error = std::io::Error::from(error);
        Error::new(class, format!("cannot set --{flag} to {value}: {error}"))
    }

    /// Makes sure that the group stands in a v1 hierarchy, with the processes it has. False when there is none.
    fn join(&self, controller: Controller) -> Result<bool> {
        let Place::Separate { layout: Layout::Separate { hierarchies, .. }, groups, .. } = &self.place else {
            return Ok(false);
        };
        if self.with(controller, |_| Some(())).is_some() {
            return Ok(true);
        }
        let Some((_, base)) = hierarchies.iter().find(|(known, _)| *known == controller) else { return Ok(false) };
        let group = Group::make(Some(controller), base, &self.path)?;
        // A process may fork while its siblings are moved; its children appear where it was. Look until none is new.
        let mut moved = Vec::new();
        loop {
            let new: Vec<Pid> = self.pids().into_iter().filter(|pid| !moved.contains(pid)).collect();
            if new.is_empty() {
                break;
            }
            for pid in new {
                // One that ended meanwhile needs no moving.
                let _ = group.enter("cgroup.procs", pid.as_raw_nonzero().get() as u32);
                moved.push(pid);
            }
        }
        groups.borrow_mut().push(group);
        Ok(true)
    }

    fn freezer(&self) -> Result<OwnedFd> {
        let unsupported = || Error::new(Class::Unsupported, "pausing needs the freezer cgroup, which is not mounted");
        if !self.join(Controller::Freezer)? {
            return Err(unsupported());
        }
        self.with(Controller::Freezer, |dir| dir.try_clone_to_owned().ok()).ok_or_else(unsupported)
    }

    /// Lets frozen processes run, so that a signal reaches them. Says nothing: most are not frozen.
    fn thaw_quietly(&self) {
        if let Some(dir) = self.v2_dir() {
            let _ = file::write(dir, "cgroup.freeze", "0");
        }
        self.with(Controller::Freezer, |dir| file::write(dir, "freezer.state", "THAWED").ok());
    }

    /// Asks the directory of one controller, if the group stands in it.
    fn with<T>(&self, controller: Controller, ask: impl FnOnce(BorrowedFd<'_>) -> Option<T>) -> Option<T> {
        match &self.place {
            Place::Unified(group) => ask(group.dir.as_fd()),
            Place::Separate { groups, .. } => {
                let groups = groups.borrow();
                let group = groups.iter().find(|group| group.controller == Some(controller))?;
                ask(group.dir.as_fd())
            }
            Place::None(_) => None,
        }
    }

    /// The ids of the container's processes, that of its task first: the group's, or where there is no group those in the
    /// task's pid namespace.
    pub fn processes(&self, task: u32) -> Vec<u32> {
        let mut found: Vec<u32> = self.pids().iter().map(|pid| pid.as_raw_nonzero().get() as u32).collect();
        if found.is_empty() {
            found = file::in_pid_namespace_of(task);
        }
        found.retain(|pid| *pid != task);
        found.insert(0, task);
        found
    }

    /// All processes of the group and of groups below it.
    pub fn pids(&self) -> Vec<Pid> {
        match (&self.place, self.v2_dir()) {
            (_, Some(dir)) => file::pids(dir),
            (Place::Separate { groups, .. }, None) => {
                groups.borrow().first().map(|group| file::pids(group.dir.as_fd())).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }

    fn signal_added(&self, signal: Signal) {
        if let Place::None(processes) = &self.place {
            for process in processes.borrow().iter() {
                // One that has ended needs none.
                let _ = pidfd_send_signal(process, signal);
            }
        }
    }

    fn wait_until(&self, mut reached: impl FnMut() -> bool, otherwise: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut pause = Duration::from_micros(20);
        while !reached() {
            if Instant::now() > deadline {
                return Err(Error::new(Class::Unavailable, format!("cgroup {}: {otherwise}", self.path)));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
        Ok(())
    }

    fn failed(&self, op: &'static str, error: Errno) -> Error {
        Error::io(op, &self.path, error)
    }
}

impl Group {
    fn make(controller: Option<Controller>, base: &Path, path: &str) -> Result<Group> {
        let made = base.join(path);
        let failed = |e| Error::io("make cgroup", &made, e);
        // v1's cpuset takes no process until it was told its CPUs and nodes, level by level.
        let inherit = controller == Some(Controller::Cpuset);
        file::make_dirs(base, path, inherit).map_err(failed)?;
        let dir = file::open_dir(&made).map_err(failed)?;
        Ok(Group { controller, path: made, dir })
    }

    fn open(controller: Option<Controller>, base: &Path, path: &str) -> Result<Option<Group>> {
        let path = base.join(path);
        match file::open_dir(&path) {
            Ok(dir) => Ok(Some(Group { controller, path, dir })),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(Error::io("open cgroup", path, e)),
        }
    }

    /// `file` moves the process with this number, or the caller if it is 0.
    fn enter(&self, file: &str, pid: u32) -> Result<()> {
        file::write(self.dir.as_fd(), file, &pid.to_string()).map_err(|e| Error::io("enter cgroup", &self.path, e))
    }
}

/// Writes to the first of the setting's files that exists.
fn write_first(dir: BorrowedFd<'_>, setting: &Setting) -> Result<(), Errno> {
    let mut result = Err(Errno::NOENT);
    for file in setting.files {
        result = file::write(dir, file, &setting.value);
        if result != Err(Errno::NOENT) {
            break;
        }
    }
    result
}

/// Hands controllers down from `base` to the parent of `path`: those that limits need, and memory and pids for their
/// numbers. What the kernel refuses shows when a limit's file is missing, and is named there.
fn enable_controllers(base: &Path, path: &str, settings: &[Setting]) -> Result<()> {
    let mut wanted = vec!["memory", "pids"];
    wanted.extend(settings.iter().filter_map(|setting| setting.controller.v2()));
    wanted.sort_unstable();
    wanted.dedup();
    let parent = Path::new(path).parent().unwrap_or(Path::new(""));
    let enabled = |dir: BorrowedFd<'_>| {
        let text = file::read(dir, "cgroup.subtree_control").unwrap_or_default();
        wanted.iter().all(|name| text.split_whitespace().any(|known| known == *name))
    };
    // On all starts but the first they are.
    if file::open_dir(&base.join(parent)).is_ok_and(|dir| enabled(dir.as_fd())) {
        return Ok(());
    }
    let failed = |e| Error::io("make cgroup", base.join(parent), e);
    if !parent.as_os_str().is_empty() {
        file::make_dirs(base, &parent.to_string_lossy(), false).map_err(failed)?;
    }
    let mut at = base.to_owned();
    for step in std::iter::once(None).chain(parent.components().map(Some)) {
        at.extend(step);
        let dir = file::open_dir(&at).map_err(failed)?;
        for name in &wanted {
            // One by one: a write of several is refused whole when one is.
            let _ = file::write(dir.as_fd(), "cgroup.subtree_control", &format!("+{name}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
