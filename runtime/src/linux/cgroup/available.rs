//! What a machine has of what limits speak of: more than that cannot be had, and is refused in docker's words.
//! sysfs, `Documentation/ABI/testing/sysfs-devices-system-cpu`.

use std::collections::BTreeSet;

use super::{Layout, validate};
use crate::error::{Class, Error, Result};
use crate::task::Limits;

/// Refuses limits that contradict each other, or ask for what is not here; warns of what is left out. Looks only for what
/// is asked for.
///
/// # Errors
/// `InvalidInput`.
pub(crate) fn check(limits: &Limits) -> Result<Vec<String>> {
    validate(limits)?;
    if let Some(nano) = limits.nano_cpus.filter(|nano| *nano > 0) {
        within(nano, &online("cpu"))?;
    }
    for (given, kind, cpus) in [(&limits.cpuset_cpus, "cpu", true), (&limits.cpuset_mems, "node", false)] {
        if let Some(given) = given.as_deref().filter(|given| !given.is_empty()) {
            among(given, &online(kind), cpus)?;
        }
    }
    // Docker's words.
    let warning = match (limits.oom_kill_disable, Layout::get()) {
        (false, _) => None,
        (true, Layout::Separate { .. }) if limits.memory.is_some_and(|bytes| bytes > 0) => None,
        (true, Layout::Separate { .. }) => Some(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system \
             running out of resources.",
        ),
        (true, _) => Some("Your kernel does not support OomKillDisable. OomKillDisable discarded."),
    };
    Ok(warning.into_iter().map(str::to_owned).collect())
}

/// The numbers of the CPUs or memory nodes that are on, as the kernel lists them: `0-3,8`. Empty when it does not tell.
fn online(kind: &str) -> String {
    let text = std::fs::read_to_string(format!("/sys/devices/system/{kind}/online")).unwrap_or_default();
    text.trim_end().to_owned()
}

fn refuse(message: String) -> Result<()> {
    Err(Error::new(Class::InvalidInput, message))
}

fn within(nano: u64, online: &str) -> Result<()> {
    let Some(there) = numbers(online).filter(|there| !there.is_empty()) else { return Ok(()) };
    let count = there.len();
    if (10_000_000..=count as u64 * 1_000_000_000).contains(&nano) {
        return Ok(());
    }
    refuse(format!("range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available"))
}

fn among(given: &str, online: &str, cpus: bool) -> Result<()> {
    let Some(asked) = numbers(given) else {
        return refuse(format!("invalid value {given} for cpuset {}", if cpus { "cpus" } else { "mems" }));
    };
    match numbers(online) {
        Some(there) if !there.is_empty() && !asked.is_subset(&there) => {
            let what = if cpus { "CPUs" } else { "memory nodes" };
            refuse(format!("requested {what} are not available - requested {given}, available: {online}"))
        }
        _ => Ok(()),
    }
}

/// The numbers of a list as in cpuset(7).
fn numbers(list: &str) -> Option<BTreeSet<u32>> {
    let mut all = BTreeSet::new();
    for part in list.split(',').filter(|part| !part.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (u32, u32) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        // More than any machine has; and an end to what a list can make us do.
        if from > to || to > 1 << 16 {
            return None;
        }
        all.extend(from..=to);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_here_is_refused() {
        assert!(within(1_500_000_000, "0-1").is_ok() && within(2_000_000_000, "0-1").is_ok());
        let error = |outcome: Result<()>| outcome.unwrap_err().to_string();
        let range = "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available";
        assert_eq!(error(within(2_000_000_001, "0-1")), range);
        assert_eq!(error(within(1, "0-1")), range);
        assert!(within(1 << 60, "").is_ok(), "who does not tell is believed");
        assert!(among("1,0", "0-1", true).is_ok() && among("0-1", "0-1", true).is_ok());
        assert_eq!(
            error(among("0-2", "0-1", true)),
            "requested CPUs are not available - requested 0-2, available: 0-1"
        );
        assert_eq!(
            error(among("1", "0", false)),
            "requested memory nodes are not available - requested 1, available: 0"
        );
        for bad in ["x", "2-1", "0-", "0-99999999"] {
            assert_eq!(error(among(bad, "0-1", true)), format!("invalid value {bad} for cpuset cpus"));
        }
    }
}
