//! Docker's profile format, which is the OCI runtime spec's with conditions: entries that hold only with (or
//! without) a capability, an architecture or a kernel.

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArgBuilder, LinuxSeccompFilterFlag, LinuxSeccompOperator,
    LinuxSyscall,
};
use serde::Deserialize;

use super::policy::invalid;
use super::syscalls::Arch;
use crate::error::Result;
use crate::linux::capabilities::CapSet;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    #[serde(default)]
    syscalls: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    names: Vec<String>,
    /// The older spelling, one name an entry.
    #[serde(default)]
    name: String,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Arg>>,
    #[serde(default)]
    includes: Option<Conditions>,
    #[serde(default)]
    excludes: Option<Conditions>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arg {
    index: usize,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: LinuxSeccompOperator,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Conditions {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
    #[serde(default)]
    min_kernel: Option<String>,
}

/// Reads a profile and keeps the entries that hold for a container with these capabilities, on this architecture and
/// this kernel.
///
/// # Errors
/// `InvalidInput`, in docker's words, for what is no profile.
pub fn resolve(json: &str, granted: CapSet) -> Result<LinuxSeccomp> {
    let system = rustix::system::uname();
    let kernel = version(&system.release().to_string_lossy());
    resolve_for(json, granted, Arch::NATIVE, kernel)
}

fn resolve_for(json: &str, granted: CapSet, arch: Arch, kernel: (u32, u32)) -> Result<LinuxSeccomp> {
    let profile: Profile =
        serde_json::from_str(json).map_err(|e| invalid(format!("decoding seccomp profile failed: {e}")))?;
    let mut syscalls = Vec::new();
    for entry in profile.syscalls.unwrap_or_default() {
        if !entry.includes.as_ref().is_none_or(|conditions| conditions.included(granted, arch, kernel))
            || entry.excludes.as_ref().is_some_and(|conditions| conditions.excluded(granted, arch, kernel))
        {
            continue;
        }
        let mut names = entry.names;
        if !entry.name.is_empty() {
            if !names.is_empty() {
                return Err(invalid(
                    "'name' and 'names' were specified in the seccomp profile, use either 'name' or 'names'",
                ));
            }
            names.push(entry.name);
        }
        let arg = |arg: Arg| {
            let oci = LinuxSeccompArgBuilder::default().index(arg.index).value(arg.value).value_two(arg.value_two);
            oci.op(arg.op).build().map_err(|e| invalid(format!("decoding seccomp profile failed: {e}")))
        };
        let args = entry.args.unwrap_or_default().into_iter().map(arg).collect::<Result<Vec<_>>>()?;
        let mut call = LinuxSyscall::default();
        call.set_names(names)
            .set_action(entry.action)
            .set_errno_ret(entry.errno_ret)
            .set_args(Some(args).filter(|args| !args.is_empty()));
        syscalls.push(call);
    }
    let mut oci = LinuxSeccomp::default();
    oci.set_default_action(profile.default_action)
        .set_default_errno_ret(profile.default_errno_ret)
        .set_flags(profile.flags.filter(|flags| !flags.is_empty()))
        .set_syscalls(Some(syscalls));
    Ok(oci)
}

impl Conditions {
    /// All that are given must hold.
    fn included(&self, granted: CapSet, arch: Arch, kernel: (u32, u32)) -> bool {
        let has = |cap: &String| CapSet::named(cap).is_some_and(|cap| granted.contains(cap));
        let here = |arches: &Vec<String>| arches.is_empty() || arches.iter().any(|name| name == arch.docker());
        self.caps.iter().flatten().all(has)
            && self.arches.as_ref().is_none_or(here)
            && self.min_kernel.as_ref().is_none_or(|least| kernel >= version(least))
    }

    /// One that holds is enough.
    fn excluded(&self, granted: CapSet, arch: Arch, kernel: (u32, u32)) -> bool {
        let has = |cap: &String| CapSet::named(cap).is_some_and(|cap| granted.contains(cap));
        self.caps.iter().flatten().any(has)
            || self.arches.iter().flatten().any(|name| name == arch.docker())
            || self.min_kernel.as_ref().is_some_and(|least| kernel >= version(least))
    }
}

/// `6.18` of `6.18.44-something`.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(json: &str, caps: &[&str], kernel: &str) -> Vec<String> {
        let granted = caps.iter().filter_map(|cap| CapSet::named(cap)).fold(CapSet::EMPTY, CapSet::union);
        let profile = resolve_for(json, granted, Arch::X86_64, version(kernel)).unwrap();
        profile.syscalls().iter().flatten().flat_map(|call| call.names().clone()).collect()
    }

    #[test]
    fn conditions() {
        let json = r#"{
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
            "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
            "syscalls": [
                {"names": ["always"], "action": "SCMP_ACT_ALLOW", "args": null, "comment": "", "includes": {}, "excludes": {}},
                {"name": "old", "action": "SCMP_ACT_ALLOW", "args": []},
                {"names": ["admin"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["user"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["here"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}},
                {"names": ["there"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
                {"names": ["new"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.10"}}
            ]}"#;
        assert_eq!(names(json, &[], "6.9.1-x"), ["always", "old", "user", "here"]);
        assert_eq!(names(json, &["SYS_ADMIN"], "6.10"), ["always", "old", "admin", "here", "new"]);
        assert_eq!(names(json, &[], "7.0"), ["always", "old", "user", "here", "new"]);
    }

    #[test]
    fn what_is_no_profile() {
        let refused = |json| resolve(json, CapSet::EMPTY).unwrap_err().to_string();
        assert!(refused("{}").starts_with("decoding seccomp profile failed: "));
        assert!(refused("[").starts_with("decoding seccomp profile failed: "));
        let both =
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_LOG"}]}"#;
        assert!(refused(both).contains("use either 'name' or 'names'"));
    }
}
