//! What runs: arguments, environment, working directory, resource limits and kernel parameters.

use std::collections::HashMap;

use oci_spec::runtime::{PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process};
use wharf_images::Image;

use super::invalid;
use super::security::SecurityOptions;
use crate::config::{ContainerConfig, NetworkMode};
use crate::error::Result;

/// Docker's `PATH` where the image has none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub fn process(config: &ContainerConfig, image: &Image, host: &str, security: &SecurityOptions) -> Result<Process> {
    let cwd = match config.working_dir.as_deref().filter(|dir| !dir.is_empty()) {
        Some(dir) => dir,
        None => image.config.working_dir.as_str(),
    };
    if !cwd.is_empty() && !cwd.starts_with('/') {
        return Err(invalid(format!("the working directory '{cwd}' is invalid, it needs to be an absolute path")));
    }
    let mut process = Process::default();
    process
        .set_terminal(Some(config.tty))
        .set_args(Some(args(config, image)?))
        .set_env(Some(env(config, image, host)))
        .set_cwd(if cwd.is_empty() { "/" } else { cwd }.into())
        .set_rlimits(rlimits(config)?)
        .set_no_new_privileges(Some(security.no_new_privileges))
        .set_oom_score_adj(config.oom_score_adj);
    Ok(process)
}

/// Entrypoint and command. A new entrypoint takes the image's command away with the image's entrypoint.
fn args(config: &ContainerConfig, image: &Image) -> Result<Vec<String>> {
    let mut args = match &config.entrypoint {
        // `--entrypoint ""` clears it.
        Some(entrypoint) => entrypoint.iter().filter(|arg| entrypoint.len() > 1 || !arg.is_empty()).cloned().collect(),
        None => image.config.entrypoint.clone(),
    };
    if config.cmd.is_empty() && config.entrypoint.is_none() {
        args.extend(image.config.cmd.iter().cloned());
    } else {
        args.extend(config.cmd.iter().cloned());
    }
    if args.is_empty() { Err(invalid("no command specified")) } else { Ok(args) }
}

/// Docker's own variables, then the person's, then the image's; each name once, and `NAME` without a value takes one
/// away. `HOME` is set where the user is looked up.
fn env(config: &ContainerConfig, image: &Image, host: &str) -> Vec<String> {
    let mut env = vec![format!("PATH={PATH}"), format!("HOSTNAME={host}")];
    if config.tty {
        env.push("TERM=xterm".to_owned());
    }
    fn name(variable: &str) -> &str {
        variable.split_once('=').map_or(variable, |(name, _)| name)
    }
    let own = |variable: &&String| !config.env.iter().any(|given| name(given) == name(variable));
    for variable in config.env.iter().chain(image.config.env.iter().filter(own)) {
        let place = env.iter().position(|known| name(known) == name(variable));
        match (place, variable.contains('=')) {
            (Some(at), true) => env[at] = variable.clone(),
            (None, true) => env.push(variable.clone()),
            (Some(at), false) => drop(env.remove(at)),
            (None, false) => {}
        }
    }
    env
}

/// The numbers go into the process, the names come back.
pub fn put_groups(process: &mut Process, groups: &[String]) -> Vec<String> {
    let (numbers, names): (Vec<_>, Vec<_>) =
        groups.iter().map(|group| group.parse::<u32>().map_err(|_| group)).partition(Result::is_ok);
    let numbers: Vec<u32> = numbers.into_iter().flatten().collect();
    if !numbers.is_empty() {
        let mut user = process.user().clone();
        user.set_additional_gids(Some(numbers));
        process.set_user(user);
    }
    names.into_iter().filter_map(Result::err).cloned().collect()
}

fn rlimits(config: &ContainerConfig) -> Result<Option<Vec<PosixRlimit>>> {
    let mut limits = Vec::with_capacity(config.ulimits.len());
    for (name, &(soft, hard)) in &config.ulimits {
        let typ = rlimit(name).ok_or_else(|| invalid(format!("invalid ulimit type: {name}")))?;
        if soft > hard {
            let message = format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}");
            return Err(invalid(message));
        }
        let limit = PosixRlimitBuilder::default().typ(typ).soft(soft).hard(hard).build();
        limits.push(limit.map_err(|e| invalid(format!("ulimit {name}: {e}")))?);
    }
    Ok(super::non_empty(limits))
}

fn rlimit(name: &str) -> Option<PosixRlimitType> {
    Some(match name {
        "core" => PosixRlimitType::RlimitCore,
        "cpu" => PosixRlimitType::RlimitCpu,
        "data" => PosixRlimitType::RlimitData,
        "fsize" => PosixRlimitType::RlimitFsize,
        "locks" => PosixRlimitType::RlimitLocks,
        "memlock" => PosixRlimitType::RlimitMemlock,
        "msgqueue" => PosixRlimitType::RlimitMsgqueue,
        "nice" => PosixRlimitType::RlimitNice,
        "nofile" => PosixRlimitType::RlimitNofile,
        "nproc" => PosixRlimitType::RlimitNproc,
        "rss" => PosixRlimitType::RlimitRss,
        "rtprio" => PosixRlimitType::RlimitRtprio,
        "rttime" => PosixRlimitType::RlimitRttime,
        "sigpending" => PosixRlimitType::RlimitSigpending,
        "stack" => PosixRlimitType::RlimitStack,
        _ => return None,
    })
}

/// Kernel parameters that belong to the container's own namespaces (docker's list).
fn allowed(name: &str) -> bool {
    const EXACT: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    EXACT.contains(&name) || name.starts_with("net.") || name.starts_with("fs.mqueue.")
}

/// The kernel's parameters. `last_group` is the last that the container knows.
pub fn sysctls(config: &ContainerConfig, last_group: u32) -> Result<Option<HashMap<String, String>>> {
    let mut all = HashMap::new();
    let host_network = config.network == NetworkMode::Host;
    let joined = matches!(config.network, NetworkMode::Container(_));
    if !host_network && !joined {
        // As docker: any user may bind low ports and ping in a network of its own.
        all.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        all.insert("net.ipv4.ping_group_range".to_owned(), format!("0 {last_group}"));
    }
    for (name, value) in &config.sysctls {
        // A path in disguise would reach parameters that are not in the list.
        let plain = |part: &str| !part.is_empty() && part != ".." && !part.contains('\0');
        if !allowed(name) || !name.split(['/', '.']).all(plain) {
            return Err(invalid(format!("sysctl '{name}={value}' is not allowed"))
                .with_hint("only parameters of the container's own namespaces can be set: net.*, fs.mqueue.*, kernel.msg*, kernel.shm*, kernel.sem"));
        }
        if host_network && name.starts_with("net.") {
            return Err(invalid(format!("sysctl {name:?} not allowed in host network namespace")));
        }
        all.insert(name.clone(), value.clone());
    }
    Ok(Some(all).filter(|map| !map.is_empty()))
}
