//! Limits as data: which file of which controller gets which value, for v1 and for v2.
//!
//! Nothing here touches the system. Values follow docker's flags, the kernel's `admin-guide/cgroup-v1` and
//! `admin-guide/cgroup-v2`, and the OCI runtime spec's conversions between the two.

use super::layout::Controller;
use crate::error::{Class, Error, Result};
use crate::task::Limits;

/// Docker's smallest memory limit, in bytes.
const SMALLEST_MEMORY: u64 = 6 << 20;
/// The kernel's default CFS period, in microseconds.
const PERIOD: u64 = 100_000;

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Whose file.
    pub controller: Controller,
    /// The file; of several, the first that exists.
    pub files: &'static [&'static str],
    /// What is written.
    pub value: String,
    /// The flag that asked for it, for messages.
    pub flag: &'static str,
    /// Left out without a word when the kernel has no such file, as docker does for swap.
    pub optional: bool,
}

/// Which version's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Separate hierarchies.
    V1,
    /// The unified one.
    V2,
}

/// Refuses limits that contradict each other, in docker's words.
///
/// # Errors
/// `InvalidInput`.
pub fn validate(limits: &Limits) -> Result<()> {
    let refuse = |message: &str| Err(Error::new(Class::InvalidInput, message));
    let memory = limits.memory.filter(|&bytes| bytes > 0);
    let swap = limits.memory_swap.filter(|&bytes| bytes != 0);
    match (memory, swap) {
        (Some(bytes), _) if bytes < SMALLEST_MEMORY => return refuse("Minimum memory limit allowed is 6MB"),
        (None, Some(bytes)) if bytes > 0 => {
            return refuse("You should always set the Memory limit when using Memoryswap limit, see usage");
        }
        (Some(bytes), Some(both)) if both > 0 && (both as u64) < bytes => {
            return refuse("Minimum memoryswap limit should be larger than memory limit, see usage");
        }
        _ => {}
    }
    if limits.nano_cpus.is_some_and(|n| n > 0) {
        if limits.cpu_period.is_some() {
            return refuse("Conflicting options: Nano CPUs and CPU Period cannot both be set");
        }
        if limits.cpu_quota.is_some() {
            return refuse("Conflicting options: Nano CPUs and CPU Quota cannot both be set");
        }
    }
    if limits.cpu_period.is_some_and(|p| p != 0 && !(1_000..=1_000_000).contains(&p)) {
        return refuse("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)");
    }
    if limits.cpu_quota.is_some_and(|q| q > 0 && q < 1_000) {
        return refuse("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    if limits.blkio_weight.is_some_and(|w| w != 0 && !(10..=1000).contains(&w)) {
        return refuse("Range of blkio weight is from 10 to 1000");
    }
    Ok(())
}

/// The writes that put `limits` in force, in order.
pub fn settings(limits: &Limits, version: Version) -> Vec<Setting> {
    let mut plan = Vec::new();
    let mut set = |controller, files, value: String, flag, optional| {
        plan.push(Setting { controller, files, value, flag, optional });
    };
    let v1 = version == Version::V1;
    let max = |bytes: Option<u64>| match bytes {
        Some(bytes) => bytes.to_string(),
        None => if v1 { "-1" } else { "max" }.to_owned(),
    };

    if let Some(memory) = limits.memory {
        let memory = Some(memory).filter(|&bytes| bytes > 0);
        set(
            Controller::Memory,
            if v1 { &["memory.limit_in_bytes"] } else { &["memory.max"] },
            max(memory),
            "memory",
            false,
        );
        // v1 counts memory and swap together, v2 swap alone.
        let both = limits.memory_and_swap().and_then(|both| u64::try_from(both).ok());
        let (files, value): (&'static [_], _) = if v1 {
            (&["memory.memsw.limit_in_bytes"], both)
        } else {
            (&["memory.swap.max"], both.map(|both| both.saturating_sub(memory.unwrap_or(0))))
        };
        set(Controller::Memory, files, max(value), "memory-swap", true);
    }
    // Version 2 has no such thing; [`super::available::check`] has said so.
    if limits.oom_kill_disable && v1 {
        set(Controller::Memory, &["memory.oom_control"], "1".to_owned(), "oom-kill-disable", false);
    }
    if let Some(soft) = limits.memory_reservation.filter(|&bytes| bytes > 0) {
        let files: &[_] = if v1 { &["memory.soft_limit_in_bytes"] } else { &["memory.low"] };
        set(Controller::Memory, files, soft.to_string(), "memory-reservation", false);
    }
    if let Some((quota, period)) = quota_and_period(limits) {
        if v1 {
            set(Controller::Cpu, &["cpu.cfs_period_us"], period.to_string(), "cpus", false);
            let quota = quota.map_or("-1".to_owned(), |quota| quota.to_string());
            set(Controller::Cpu, &["cpu.cfs_quota_us"], quota, "cpus", false);
        } else {
            let quota = quota.map_or("max".to_owned(), |quota| quota.to_string());
            set(Controller::Cpu, &["cpu.max"], format!("{quota} {period}"), "cpus", false);
        }
    }
    if let Some(shares) = limits.cpu_shares.filter(|&shares| shares > 0) {
        if v1 {
            set(Controller::Cpu, &["cpu.shares"], shares.to_string(), "cpu-shares", false);
        } else {
            set(Controller::Cpu, &["cpu.weight"], cpu_weight(shares).to_string(), "cpu-shares", false);
        }
    }
    if let Some(cpus) = limits.cpuset_cpus.as_ref().filter(|cpus| !cpus.is_empty()) {
        set(Controller::Cpuset, &["cpuset.cpus"], cpus.clone(), "cpuset-cpus", false);
    }
    if let Some(mems) = limits.cpuset_mems.as_ref().filter(|mems| !mems.is_empty()) {
        set(Controller::Cpuset, &["cpuset.mems"], mems.clone(), "cpuset-mems", false);
    }
    if let Some(pids) = limits.pids {
        let value = if pids > 0 { pids.to_string() } else { "max".to_owned() };
        set(Controller::Pids, &["pids.max"], value, "pids-limit", false);
    }
    if let Some(weight) = limits.blkio_weight.filter(|&weight| weight > 0) {
        if v1 {
            set(Controller::Blkio, &["blkio.bfq.weight", "blkio.weight"], weight.to_string(), "blkio-weight", true);
        } else {
            set(Controller::Blkio, &["io.bfq.weight"], weight.to_string(), "blkio-weight", true);
            set(Controller::Blkio, &["io.weight"], format!("default {}", io_weight(weight)), "blkio-weight", true);
        }
    }
    plan
}

/// Quota (`None`: no limit) and period in microseconds, if any of the flags was given.
fn quota_and_period(limits: &Limits) -> Option<(Option<u64>, u64)> {
    if let Some(nano) = limits.nano_cpus.filter(|&nano| nano > 0) {
        // The kernel takes no quota below a millisecond.
        return Some((Some((nano.saturating_mul(PERIOD) / 1_000_000_000).max(1_000)), PERIOD));
    }
    let period = limits.cpu_period.filter(|&period| period > 0);
    let quota = limits.cpu_quota.filter(|&quota| quota != 0);
    (period.is_some() || quota.is_some())
        .then(|| (quota.and_then(|quota| u64::try_from(quota).ok()), period.unwrap_or(PERIOD)))
}

/// v1's shares (2 to 262144) on v2's scale (1 to 10000), linearly, as the OCI runtimes agreed.
fn cpu_weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

/// v1's I/O weight (10 to 1000) on v2's scale (1 to 10000).
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9_999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(limits: &Limits, version: Version) -> String {
        settings(limits, version).iter().map(|s| format!("{}={}\n", s.files.join("|"), s.value)).collect()
    }

    fn everything() -> Limits {
        Limits {
            memory: Some(64 << 20),
            memory_swap: None,
            memory_reservation: Some(32 << 20),
            nano_cpus: Some(1_500_000_000),
            cpu_shares: Some(1024),
            cpuset_cpus: Some("0-1".into()),
            cpuset_mems: Some("0".into()),
            pids: Some(100),
            blkio_weight: Some(500),
            ..Limits::default()
        }
    }

    #[test]
    fn everything_on_v1() {
        assert_eq!(
            table(&everything(), Version::V1),
            "memory.limit_in_bytes=67108864\n\
             memory.memsw.limit_in_bytes=134217728\n\
             memory.soft_limit_in_bytes=33554432\n\
             cpu.cfs_period_us=100000\n\
             cpu.cfs_quota_us=150000\n\
             cpu.shares=1024\n\
             cpuset.cpus=0-1\n\
             cpuset.mems=0\n\
             pids.max=100\n\
             blkio.bfq.weight|blkio.weight=500\n"
        );
    }

    #[test]
    fn everything_on_v2() {
        assert_eq!(
            table(&everything(), Version::V2),
            "memory.max=67108864\n\
             memory.swap.max=67108864\n\
             memory.low=33554432\n\
             cpu.max=150000 100000\n\
             cpu.weight=39\n\
             cpuset.cpus=0-1\n\
             cpuset.mems=0\n\
             pids.max=100\n\
             io.bfq.weight=500\n\
             io.weight=default 4950\n"
        );
    }

    #[test]
    fn swap_as_docker_means_it() {
        for (swap, v1, v2) in [
            (None, "20971520", "10485760"),
            (Some(0), "20971520", "10485760"),
            (Some(-1), "-1", "max"),
            (Some(10 << 20), "10485760", "0"),
            (Some(15 << 20), "15728640", "5242880"),
        ] {
            let limits = Limits { memory: Some(10 << 20), memory_swap: swap, ..Limits::default() };
            let value = |version| settings(&limits, version).remove(1).value;
            assert_eq!((value(Version::V1), value(Version::V2)), (v1.to_owned(), v2.to_owned()), "{swap:?}");
        }
    }

    #[test]
    fn zero_and_minus_one_are_no_limit() {
        assert_eq!(table(&Limits::default(), Version::V2), "");
        let pids = |n| table(&Limits { pids: Some(n), ..Limits::default() }, Version::V1);
        assert_eq!((pids(-1), pids(0)), ("pids.max=max\n".into(), "pids.max=max\n".into()));
        let quota = Limits { cpu_quota: Some(-1), ..Limits::default() };
        assert_eq!(table(&quota, Version::V2), "cpu.max=max 100000\n");
        assert_eq!(table(&quota, Version::V1), "cpu.cfs_period_us=100000\ncpu.cfs_quota_us=-1\n");
        // `update --memory 0` takes a limit away again.
        let none = Limits { memory: Some(0), ..Limits::default() };
        assert_eq!(table(&none, Version::V2), "memory.max=max\nmemory.swap.max=max\n");
    }

    #[test]
    fn weights_keep_the_ends_of_their_scales() {
        assert_eq!((cpu_weight(0), cpu_weight(2), cpu_weight(262_144), cpu_weight(u64::MAX)), (1, 1, 10_000, 10_000));
        assert_eq!((io_weight(10), io_weight(1000)), (1, 10_000));
        let tiny = Limits { nano_cpus: Some(1), ..Limits::default() };
        assert_eq!(table(&tiny, Version::V2), "cpu.max=1000 100000\n");
    }

    #[test]
    fn contradictions_are_refused() {
        let refused = |limits: Limits| validate(&limits).unwrap_err().to_string();
        let memory = |bytes| Limits { memory: Some(bytes), ..Limits::default() };
        assert_eq!(refused(memory(1 << 20)), "Minimum memory limit allowed is 6MB");
        assert!(refused(Limits { memory_swap: Some(7 << 20), ..Limits::default() }).starts_with("You should always"));
        assert!(refused(Limits { memory_swap: Some(7 << 20), ..memory(8 << 20) }).starts_with("Minimum memoryswap"));
        let reserved = Limits { memory_reservation: Some(9 << 20), ..memory(8 << 20) };
        assert!(reserved.check_reservation().is_err() && validate(&reserved).is_ok());
        assert!(refused(Limits { cpu_period: Some(10), ..Limits::default() }).contains("1ms"));
        assert!(refused(Limits { blkio_weight: Some(5), ..Limits::default() }).contains("10 to 1000"));
        validate(&everything()).unwrap();
        validate(&Limits { memory_swap: Some(-1), ..memory(8 << 20) }).unwrap();
        validate(&memory(0)).unwrap();
    }
}
