//! `--security-opt`, and the paths of `/proc` and `/sys` that docker hides from containers.

use std::fs;
use std::path::Path;

use super::invalid;
use crate::error::{Class, Error, Result};

/// Paths that show nothing: docker 28's list.
pub const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Paths that cannot be written.
pub const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What is done about system calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// Docker's profile.
    #[default]
    Default,
    /// Nothing.
    Unconfined,
    /// A profile of the person's own, as JSON.
    Profile(String),
}

/// `--security-opt`s, understood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecurityOptions {
    /// What is done about system calls.
    pub seccomp: Seccomp,
    /// No execve gives new privileges.
    pub no_new_privileges: bool,
    /// `systempaths=unconfined`: nothing is hidden.
    pub unmasked: bool,
}

impl SecurityOptions {
    /// Understands a list of options. A seccomp profile must be its JSON, not a path: [`inline_profiles`].
    ///
    /// # Errors
    /// `InvalidInput` for what is no option; `Unsupported`, by name, for security modules that Wharf does not drive.
    pub fn parse(options: &[String]) -> Result<SecurityOptions> {
        let mut parsed = SecurityOptions::default();
        for option in options {
            let refuse = || invalid(format!("invalid --security-opt: {option:?}"));
            let unsupported = |what: &str| {
                Err(Error::new(Class::Unsupported, format!("--security-opt {option}: {what} is not supported"))
                    .with_hint("leave the option out, or switch the confinement off by name"))
            };
            let (key, value) = match split(option) {
                Some(pair) => pair,
                None if option == "no-new-privileges" => ("no-new-privileges", "true"),
                None => return Err(refuse()),
            };
            match (key, value) {
                ("seccomp", "unconfined") => parsed.seccomp = Seccomp::Unconfined,
                ("seccomp", "builtin") => parsed.seccomp = Seccomp::Default,
                ("seccomp", json) if json.trim_start().starts_with('{') => {
                    parsed.seccomp = Seccomp::Profile(json.to_owned());
                }
                ("no-new-privileges", "true") => parsed.no_new_privileges = true,
                ("no-new-privileges", "false") => parsed.no_new_privileges = false,
                ("systempaths", "unconfined") => parsed.unmasked = true,
                ("apparmor", "unconfined") | ("label", "disable") => {}
                ("apparmor", _) => return unsupported("AppArmor"),
                ("label", _) => return unsupported("SELinux labelling"),
                _ => return Err(refuse()),
            }
        }
        Ok(parsed)
    }
}

/// `key=value`, or docker's older `key:value`.
fn split(option: &str) -> Option<(&str, &str)> {
    option.split_once('=').or_else(|| option.split_once(':'))
}

/// Replaces each `seccomp=FILE` by the file's contents, so that the container's configuration holds all of it and
/// a later change of the file changes nothing. To be called where the person's files are: in the command line.
///
/// # Errors
/// In docker's words when the file cannot be read or is no JSON.
pub fn inline_profiles(options: Vec<String>) -> Result<Vec<String>> {
    options.into_iter().map(inline).collect()
}

fn inline(option: String) -> Result<String> {
    match split(&option) {
        Some(("seccomp", value))
            if !matches!(value, "unconfined" | "builtin") && !value.trim_start().starts_with('{') =>
        {
            let failed = |e: &dyn std::fmt::Display| invalid(format!("opening seccomp profile ({value}) failed: {e}"));
            let text = fs::read_to_string(value).map_err(|e| failed(&e))?;
            let json: serde_json::Value = serde_json::from_str(&text).map_err(|e| failed(&e))?;
            Ok(format!("seccomp={json}"))
        }
        _ => Ok(option),
    }
}

/// The paths that are hidden from a container that asks for this, and those that it can only read: none, if it said so.
pub fn hidden(options: &SecurityOptions, thermal_throttle: &[String]) -> (Vec<String>, Vec<String>) {
    if options.unmasked {
        return (Vec::new(), Vec::new());
    }
    let owned = |paths: &[&str]| paths.iter().map(|&path| path.to_owned()).collect::<Vec<_>>();
    ([owned(&MASKED), thermal_throttle.to_vec()].concat(), owned(&READ_ONLY))
}

/// The directories that docker masks besides [`MASKED`]: each processor's count of thermal throttling, from which
/// another container's work can be inferred. Empty on most virtual machines.
pub fn thermal_throttle() -> Vec<String> {
    const CPUS: &str = "/sys/devices/system/cpu";
    if !Path::new(CPUS).join("cpu0/thermal_throttle").exists() {
        return Vec::new();
    }
    let of = |cpu: u32| format!("{CPUS}/cpu{cpu}/thermal_throttle");
    (0..).map(of).take_while(|path| Path::new(path).exists()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Result<SecurityOptions> {
        SecurityOptions::parse(&options.iter().map(|&option| option.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn what_docker_takes() {
        assert_eq!(parse(&[]).unwrap(), SecurityOptions::default());
        let all = parse(&["seccomp=unconfined", "no-new-privileges", "apparmor=unconfined", "label=disable"]).unwrap();
        let expected =
            SecurityOptions { seccomp: Seccomp::Unconfined, no_new_privileges: true, ..SecurityOptions::default() };
        assert_eq!(all, expected);
        assert!(parse(&["no-new-privileges:true"]).unwrap().no_new_privileges);
        assert!(!parse(&["no-new-privileges=false"]).unwrap().no_new_privileges);
        assert!(parse(&["systempaths=unconfined"]).unwrap().unmasked);
        assert_eq!(parse(&["seccomp={}"]).unwrap().seccomp, Seccomp::Profile("{}".into()));
        assert_eq!(parse(&["seccomp=unconfined", "seccomp=builtin"]).unwrap().seccomp, Seccomp::Default);
    }

    #[test]
    fn what_is_refused() {
        for (option, message) in [
            ("nonsense", "invalid --security-opt: \"nonsense\""),
            ("no-new-privileges=maybe", "invalid --security-opt: \"no-new-privileges=maybe\""),
            ("apparmor=mine", "--security-opt apparmor=mine: AppArmor is not supported"),
            ("label=type:x", "--security-opt label=type:x: SELinux labelling is not supported"),
            // A path that was not inlined is never read here.
            ("seccomp=/etc/profile.json", "invalid --security-opt: \"seccomp=/etc/profile.json\""),
        ] {
            assert_eq!(parse(&[option]).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn profiles_are_taken_in() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "{ \"defaultAction\":\n \"SCMP_ACT_ALLOW\" }").unwrap();
        let option = format!("seccomp={}", file.path().display());
        let inlined = inline_profiles(vec![option, "seccomp=unconfined".into(), "no-new-privileges".into()]).unwrap();
        assert_eq!(
            inlined,
            ["seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\"}", "seccomp=unconfined", "no-new-privileges"]
        );
        let error = inline_profiles(vec!["seccomp=/no/such".into()]).unwrap_err().to_string();
        assert!(error.starts_with("opening seccomp profile (/no/such) failed: "), "{error}");
    }
}
