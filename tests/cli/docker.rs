//! The docker client as judge: what it says of a wrong command line without asking its daemon, we say too, and with
//! the same exit code.

use std::process::Command;

use crate::support::{Wharf, skip};

/// Command lines that the client refuses by itself.
const REFUSED: &[&str] = &[
    "--bad",
    "ps --bad",
    "ps -zq",
    "ps a b",
    "ps --filter foo",
    "ps --format",
    "ps -n x",
    "run",
    "run --name",
    "run -m bad x",
    "run --memory-swap bad x",
    "run --shm-size bad x",
    "run --pids-limit x a",
    "run --cpus x a",
    "run --ulimit x a",
    "run --ulimit foo=1 a",
    "run --ulimit nofile=5:3 a",
    "run -e = a",
    "run -l = a",
    "run -a foo a",
    "run --rm=maybe a",
    "run --sig-proxy=x a",
    "run --stop-timeout x a",
    "run --oom-score-adj x a",
    "run --sysctl foo a",
    "run --mount x a",
    "run --mount type=bind,source=/x,target=/y,foo=bar a",
    "run --pull foo a",
    "run --security-opt foo a",
    "run --env-file /nope a",
    "run --label-file /nope a",
    "run --cidfile /etc/passwd a",
    "run -d -a stdin a",
    "run --group-add",
    "create --cidfile /etc/passwd a",
    "container run -m bad x",
    "exec a",
    "exec -e a=b --env-file /nope c d",
    "start",
    "stop -t x a",
    "kill",
    "wait",
    "rename a",
    "logs",
    "logs a b",
    "logs --tail",
    "inspect",
];

#[test]
fn wrong_command_lines_are_refused_as_docker_refuses_them() {
    if Command::new("docker").arg("--version").output().is_err() {
        return skip("wrong_command_lines_are_refused_as_docker_refuses_them", "the docker client is not installed");
    }
    let wharf = Wharf::new();
    let mut differences = String::new();
    for line in REFUSED {
        let args: Vec<_> = line.split(' ').collect();
        let docker = Command::new("docker")
            .args(&args)
            .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
            .env("DOCKER_CONFIG", wharf.dir())
            .output()
            .expect("docker runs");
        let theirs = String::from_utf8_lossy(&docker.stderr).replace("docker", "wharf");
        let ours = wharf.run(&args);
        if (docker.status.code(), theirs.as_str()) != (Some(ours.code), ours.stderr.as_str()) {
            differences += &format!(
                "--- {line}\ndocker: {:?}\n{theirs}\nwharf: {}\n{}\n",
                docker.status.code(),
                ours.code,
                ours.stderr
            );
        }
    }
    assert_eq!(differences, "");
}
