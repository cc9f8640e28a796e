//! What the stages of a container's life cost, in microseconds: the median, which needs a quiet machine; the fastest; and
//! the processor time of all processes together, which a busy machine changes least.

#![allow(unsafe_code)]

use std::time::Instant;

use wharf_runtime::linux::LinuxBackend;
use wharf_runtime::task::{Backend, ExecSpec, Stdio};

use super::harness::{Plan, Tree};

const ROUNDS: usize = 200;

pub fn main() {
    let tree = Tree::new();
    let plain = Plan::new(tree.rootfs(), &["/bin/true"]);
    stages("busybox true", &plain);
    let mut host = Plan::new(tree.rootfs(), &["/bin/true"]);
    host.host_network = true;
    stages("host network", &host);
    let mut bare = Plan::new(tree.rootfs(), &["/bin/true"]);
    bare.spec["linux"]["resources"] = serde_json::json!({});
    stages("no device rules", &bare);
    let mut init = Plan::new(tree.rootfs(), &["/bin/true"]);
    init.init = true;
    stages("with init", &init);

    let mut container = Plan::new(tree.rootfs(), &["sleep", "100"]).start().unwrap();
    let args = vec!["/bin/true".to_owned()];
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        let mut task = container.task.exec(&ExecSpec { args: args.clone(), ..ExecSpec::default() }, null()).unwrap();
        task.start().unwrap();
        wait(task.exit_handle());
        task.reap().unwrap();
        task.delete().unwrap();
        times.push(begin.elapsed().as_micros());
    }
    times.sort_unstable();
    println!("exec true: whole {} (fastest {})", times[ROUNDS / 2], times[0]);
    container.task.delete().unwrap();
}

fn stages(name: &str, plan: &Plan) {
    let mut times: [Vec<u128>; 5] = Default::default();
    let before = cpu();
    for _ in 0..ROUNDS {
        let spec = plan.task();
        let begin = Instant::now();
        let mut task = LinuxBackend.create(&spec, null()).unwrap();
        let created = begin.elapsed();
        task.start().unwrap();
        let started = begin.elapsed();
        wait(task.exit_handle());
        task.reap().unwrap().unwrap();
        let exited = begin.elapsed();
        task.delete().unwrap();
        let deleted = begin.elapsed();
        for (times, time) in times.iter_mut().zip([created, started - created, exited - started, exited, deleted]) {
            times.push(time.as_micros());
        }
    }
    let cpu = (cpu() - before) / ROUNDS as u128;
    print!("{name}: cpu {cpu};");
    for (stage, times) in ["create", "start", "run and exit", "until exit", "with delete"].iter().zip(&mut times) {
        times.sort_unstable();
        print!(" {stage} {} (fastest {})", times[ROUNDS / 2], times[0]);
    }
    println!();
}

/// Processor time of ours and of ended children so far, in microseconds.
fn cpu() -> u128 {
    let mut sum = 0;
    for who in [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN] {
        // SAFETY: the struct is all integers and outlives the call.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::getrusage(who, &raw mut usage);
            usage
        };
        sum += [usage.ru_utime, usage.ru_stime]
            .iter()
            .map(|t| t.tv_sec as u128 * 1_000_000 + t.tv_usec as u128)
            .sum::<u128>();
    }
    sum
}

fn null() -> Stdio {
    let null = || std::fs::OpenOptions::new().write(true).open("/dev/null").unwrap();
    Stdio::Pipes { stdin: None, stdout: null(), stderr: null() }
}

fn wait(handle: &std::fs::File) {
    let mut fds = [rustix::event::PollFd::new(handle, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut fds, None).unwrap();
}
