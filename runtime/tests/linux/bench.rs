//! What the stages of a container's life cost, as medians in microseconds. Quiet machines only.

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
    println!("exec true: {} whole", median(&mut times));
    container.task.delete().unwrap();
}

fn stages(name: &str, plan: &Plan) {
    let mut times: [Vec<u128>; 5] = Default::default();
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
    let [create, start, exit, sum, deleted] = times.each_mut().map(median);
    println!("{name}: create {create}, start {start}, run and exit {exit}; until exit {sum}, with delete {deleted}");
}

fn null() -> Stdio {
    let null = || std::fs::OpenOptions::new().write(true).open("/dev/null").unwrap();
    Stdio::Pipes { stdin: None, stdout: null(), stderr: null() }
}

fn wait(handle: &std::fs::File) {
    let mut fds = [rustix::event::PollFd::new(handle, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut fds, None).unwrap();
}

fn median(times: &mut Vec<u128>) -> u128 {
    times.sort_unstable();
    times[times.len() / 2]
}
