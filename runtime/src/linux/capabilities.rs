//! Capabilities: docker's default set, `--cap-add` and `--cap-drop`, and applying them to the calling thread.
//!
//! Follows `capabilities(7)`, docker's `oci/caps`, and the order runc uses: bounding set while still privileged,
//! ambient cleared, user ids with `KEEPCAPS`, then the sets, then ambient.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities,
};

use crate::error::{Class, Error, Result};

/// Names without `CAP_`; a name's index is its number in `linux/capability.h`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A set of capabilities: bit `n` is capability number `n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CapSet(pub u64);

impl CapSet {
    /// None.
    pub const EMPTY: CapSet = CapSet(0);
    /// All that this program knows by name.
    pub const ALL: CapSet = CapSet((1 << NAMES.len()) - 1);
    /// Docker's default: what root in a container keeps.
    pub const DOCKER: CapSet = CapSet(
        1 << 0 // CHOWN
            | 1 << 1 // DAC_OVERRIDE
            | 1 << 3 // FOWNER
            | 1 << 4 // FSETID
            | 1 << 5 // KILL
            | 1 << 6 // SETGID
            | 1 << 7 // SETUID
            | 1 << 8 // SETPCAP
            | 1 << 10 // NET_BIND_SERVICE
            | 1 << 13 // NET_RAW
            | 1 << 18 // SYS_CHROOT
            | 1 << 27 // MKNOD
            | 1 << 29 // AUDIT_WRITE
            | 1 << 31, // SETFCAP
    );
    /// To send packets of one's own making.
    pub const NET_RAW: CapSet = CapSet(1 << 13);

    /// The set with one capability, by its name with or without `CAP_`, in any case.
    pub fn named(name: &str) -> Option<CapSet> {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        NAMES.iter().position(|known| *known == bare).map(|number| CapSet(1 << number))
    }

    /// True when every capability of `other` is in it.
    pub const fn contains(self, other: CapSet) -> bool {
        self.0 & other.0 == other.0
    }

    /// Those in both.
    #[must_use]
    pub const fn intersection(self, other: CapSet) -> CapSet {
        CapSet(self.0 & other.0)
    }

    /// Those in either.
    #[must_use]
    pub const fn union(self, other: CapSet) -> CapSet {
        CapSet(self.0 | other.0)
    }

    /// Those that `other` has not.
    #[must_use]
    pub const fn without(self, other: CapSet) -> CapSet {
        CapSet(self.0 & !other.0)
    }

    /// Their names with `CAP_`, by number.
    pub fn names(self) -> impl Iterator<Item = String> {
        self.bare_names().map(|name| format!("CAP_{name}"))
    }

    fn bare_names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().enumerate().filter(move |(n, _)| self.0 & (1 << n) != 0).map(|(_, name)| *name)
    }

    /// The capabilities of an OCI spec's set.
    pub fn from_oci(set: Option<&oci_spec::runtime::Capabilities>) -> CapSet {
        // An OCI `Capability` has no number, but prints as its kernel name without the prefix.
        set.into_iter().flatten().filter_map(|cap| CapSet::named(&cap.to_string())).fold(CapSet::EMPTY, CapSet::union)
    }

    /// As an OCI spec's set.
    pub fn to_oci(self) -> oci_spec::runtime::Capabilities {
        self.bare_names().filter_map(|name| name.parse().ok()).collect()
    }
}

/// The capabilities a container gets: the `default`, all for `--privileged`, changed by `add` and `drop`.
///
/// As in docker, what is added wins over what is dropped, except that `add ALL` is everything but what is dropped.
///
/// # Errors
/// `InvalidInput` in docker's words for a name that is no capability.
pub fn wanted(default: CapSet, add: &[String], drop: &[String], privileged: bool) -> Result<CapSet> {
    if privileged {
        return Ok(CapSet::ALL);
    }
    let (add_all, add) = parse(add, "add")?;
    let (drop_all, drop) = parse(drop, "drop")?;
    Ok(match (add_all, drop_all) {
        (true, _) => CapSet::ALL.without(drop),
        (false, true) => add,
        (false, false) => default.without(drop).union(add),
    })
}

/// The names in a list, and whether `ALL` was among them.
fn parse(names: &[String], verb: &str) -> Result<(bool, CapSet)> {
    let mut all = false;
    let mut set = CapSet::EMPTY;
    for name in names {
        if name.eq_ignore_ascii_case("ALL") || name.eq_ignore_ascii_case("CAP_ALL") {
            all = true;
            continue;
        }
        let Some(cap) = CapSet::named(name) else {
            let upper = name.to_ascii_uppercase();
            let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
            let message = format!("invalid Cap{}: unknown capability: {full:?}", capitalised(verb));
            return Err(Error::new(Class::InvalidInput, message)
                .with_hint("see capabilities(7) for the names; the prefix CAP_ may be left out"));
        };
        set = set.union(cap);
    }
    Ok((all, set))
}

fn capitalised(verb: &str) -> String {
    verb[..1].to_ascii_uppercase() + &verb[1..]
}

/// The five sets of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProcessCaps {
    /// No execve gives more than these.
    pub bounding: CapSet,
    /// In force.
    pub effective: CapSet,
    /// What `effective` may be raised to.
    pub permitted: CapSet,
    /// Kept over execve of a file that inherits.
    pub inheritable: CapSet,
    /// Kept over execve of an ordinary file by a non-root user.
    pub ambient: CapSet,
}

impl ProcessCaps {
    /// As docker asks runc for: `granted` for root; for another user the same bounding set and nothing in force, so
    /// that only a file with capabilities (or set-user-ID root) gives it any.
    ///
    /// Inheritable stays empty, also for root (CVE-2022-24769).
    pub fn docker(granted: CapSet, root: bool) -> ProcessCaps {
        let held = if root { granted } else { CapSet::EMPTY };
        ProcessCaps { bounding: granted, effective: held, permitted: held, ..ProcessCaps::default() }
    }

    /// Only what `limit` (our own bounding set) has: the kernel would refuse the rest.
    #[must_use]
    pub fn clamp(self, limit: CapSet) -> ProcessCaps {
        ProcessCaps {
            bounding: self.bounding.intersection(limit),
            effective: self.effective.intersection(limit),
            permitted: self.permitted.intersection(limit),
            inheritable: self.inheritable.intersection(limit),
            ambient: self.ambient.intersection(limit),
        }
    }

    /// First half, while still privileged: lowers the bounding set and makes the capabilities survive the change of
    /// user that follows. Makes system calls only; nothing is allocated.
    ///
    /// # Errors
    /// The kernel's.
    pub fn lower_bounding(&self) -> io::Result<()> {
        let own = own_bounding();
        for number in 0..NAMES.len() {
            let cap = CapSet(1 << number);
            if own.contains(cap) && !self.bounding.contains(cap) {
                remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(cap.0))?;
            }
        }
        set_keep_capabilities(true)?;
        Ok(())
    }

    /// Second half, as the container's user: sets what is in force, then ambient. Call it last before execve.
    ///
    /// # Errors
    /// The kernel's, for a capability that this process does not have: [`ProcessCaps::clamp`] first.
    pub fn apply(&self) -> io::Result<()> {
        clear_ambient_capability_set().or_else(unless_unknown)?;
        set_capabilities(
            None,
            CapabilitySets {
                effective: CapabilitySet::from_bits_retain(self.effective.0),
                permitted: CapabilitySet::from_bits_retain(self.permitted.0),
                inheritable: CapabilitySet::from_bits_retain(self.inheritable.0),
            },
        )?;
        set_keep_capabilities(false)?;
        for number in 0..NAMES.len() {
            let cap = CapSet(1 << number);
            if self.ambient.contains(cap) {
                // Ambient needs permitted and inheritable; what lacks them is left out, as runc does.
                let _ = configure_capability_in_ambient_set(CapabilitySet::from_bits_retain(cap.0), true);
            }
        }
        Ok(())
    }
}

/// Kernels without ambient capabilities answer `EINVAL`; there is nothing to clear then.
fn unless_unknown(error: rustix::io::Errno) -> rustix::io::Result<()> {
    if error == rustix::io::Errno::INVAL { Ok(()) } else { Err(error) }
}

/// Our own bounding set: the most that we can give.
pub fn own_bounding() -> CapSet {
    let held = |number: &usize| {
        rustix::thread::capability_is_in_bounding_set(CapabilitySet::from_bits_retain(1 << number)).unwrap_or(false)
    };
    CapSet((0..NAMES.len()).filter(held).fold(0, |bits, number| bits | 1 << number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> CapSet {
        names.iter().map(|name| CapSet::named(name).expect(name)).fold(CapSet::EMPTY, CapSet::union)
    }

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn numbers_are_the_kernels() {
        for (name, number) in [("CHOWN", 0), ("cap_sys_admin", 21), ("SYSLOG", 34), ("CAP_CHECKPOINT_RESTORE", 40)] {
            assert_eq!(CapSet::named(name), Some(CapSet(1 << number)), "{name}");
        }
        assert_eq!(CapSet::named("CAP_"), None);
        assert_eq!(CapSet::named("CAP_CAP_KILL"), None);
    }

    #[test]
    fn dockers_fourteen() {
        let names: Vec<_> = CapSet::DOCKER.names().collect();
        assert_eq!(
            names.join(" "),
            "CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID CAP_SETPCAP \
             CAP_NET_BIND_SERVICE CAP_NET_RAW CAP_SYS_CHROOT CAP_MKNOD CAP_AUDIT_WRITE CAP_SETFCAP"
        );
    }

    #[test]
    fn add_drop_and_all() {
        let docker = CapSet::DOCKER;
        let cases: [(&[&str], &[&str], CapSet); 8] = [
            (&[], &[], docker),
            (&["sys_admin"], &[], docker.union(set(&["SYS_ADMIN"]))),
            (&[], &["CAP_CHOWN", "kill"], docker.without(set(&["CHOWN", "KILL"]))),
            (&[], &["ALL"], CapSet::EMPTY),
            (&["NET_ADMIN"], &["all"], set(&["NET_ADMIN"])),
            (&["ALL"], &[], CapSet::ALL),
            (&["ALL"], &["SYS_ADMIN"], CapSet::ALL.without(set(&["SYS_ADMIN"]))),
            (&["CHOWN"], &["CHOWN"], docker),
        ];
        for (add, drop, expected) in cases {
            assert_eq!(wanted(docker, &list(add), &list(drop), false).unwrap(), expected, "add {add:?} drop {drop:?}");
        }
        assert_eq!(wanted(docker, &[], &list(&["ALL"]), true).unwrap(), CapSet::ALL);
    }

    #[test]
    fn unknown_names_are_refused_by_name() {
        let error = wanted(CapSet::DOCKER, &list(&["fly"]), &[], false).unwrap_err();
        assert_eq!(error.to_string(), "invalid CapAdd: unknown capability: \"CAP_FLY\"");
        assert_eq!(error.class(), Class::InvalidInput);
        let error = wanted(CapSet::DOCKER, &[], &list(&["CAP_"]), false).unwrap_err();
        assert_eq!(error.to_string(), "invalid CapDrop: unknown capability: \"CAP_\"");
    }

    #[test]
    fn a_user_other_than_root_holds_nothing() {
        let caps = ProcessCaps::docker(CapSet::DOCKER, false);
        assert_eq!((caps.bounding, caps.effective, caps.permitted), (CapSet::DOCKER, CapSet::EMPTY, CapSet::EMPTY));
        let caps = ProcessCaps::docker(CapSet::ALL, true).clamp(CapSet::DOCKER);
        assert_eq!((caps.bounding, caps.effective, caps.inheritable), (CapSet::DOCKER, CapSet::DOCKER, CapSet::EMPTY));
    }

    #[test]
    fn oci_round_trip() {
        assert_eq!(CapSet::from_oci(Some(&CapSet::ALL.to_oci())), CapSet::ALL);
        assert_eq!(CapSet::from_oci(None), CapSet::EMPTY);
    }
}
