//! The emitted programs, run by an interpreter, against what profiles say when read straight.

use oci_spec::runtime::{
    LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompOperator, LinuxSyscall,
};
use proptest::prelude::*;

use super::policy::ALLOW;
use super::tree::{AND, ARCH, ARGS, AT_LEAST, EQUAL, GREATER, JUMP, LOAD, NUMBER, RETURN};
use super::*;

const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0000 + 38;
const KILL: u32 = 0x8000_0000;

/// What the kernel would answer.
fn run(program: &[Insn], arch: u32, number: u32, args: [u64; 6]) -> u32 {
    let load = |offset| match offset {
        NUMBER => number,
        ARCH => arch,
        offset => {
            let word = (offset - ARGS) / 4;
            (args[word as usize / 2] >> (32 * (word % 2))) as u32
        }
    };
    let (mut accumulator, mut at) = (0u32, 0);
    loop {
        let Insn { code, jt, jf, k } = program[at];
        at += 1;
        let test = |holds| usize::from(if holds { jt } else { jf });
        match code {
            LOAD => accumulator = load(k),
            AND => accumulator &= k,
            JUMP => at += k as usize,
            EQUAL => at += test(accumulator == k),
            GREATER => at += test(accumulator > k),
            AT_LEAST => at += test(accumulator >= k),
            RETURN => return k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn native(filter: &Filter, number: u32, args: [u64; 6]) -> u32 {
    run(&filter.program, Arch::NATIVE.audit(), number, args)
}

/// A profile read straight: entry by entry, name by name.
fn naive(profile: &LinuxSeccomp, number: u32, args: [u64; 6]) -> u32 {
    let default = profile.default_action().number(profile.default_errno_ret());
    if Arch::NATIVE == Arch::X86_64 && number >= 0x4000_0000 {
        return KILL;
    }
    let known = |name: &String| Arch::NATIVE.number(name);
    let entries = || profile.syscalls().iter().flatten();
    for entry in entries().filter(|entry| entry.names().iter().filter_map(known).any(|n| n == number)) {
        let list = entry.args().clone().unwrap_or_default();
        let holds = |arg: &LinuxSeccompArg| {
            let actual = args[arg.index()];
            match arg.op() {
                LinuxSeccompOperator::ScmpCmpNe => actual != arg.value(),
                LinuxSeccompOperator::ScmpCmpLt => actual < arg.value(),
                LinuxSeccompOperator::ScmpCmpLe => actual <= arg.value(),
                LinuxSeccompOperator::ScmpCmpEq => actual == arg.value(),
                LinuxSeccompOperator::ScmpCmpGe => actual >= arg.value(),
                LinuxSeccompOperator::ScmpCmpGt => actual > arg.value(),
                LinuxSeccompOperator::ScmpCmpMaskedEq => actual & arg.value() == arg.value_two().unwrap_or(0),
            }
        };
        let twice = (0..6).any(|index| list.iter().filter(|arg| arg.index() == index).count() > 1);
        if if twice { list.iter().any(holds) } else { list.iter().all(holds) } {
            return entry.action().number(entry.errno_ret());
        }
    }
    let last = entries().flat_map(|entry| entry.names().iter().filter_map(known)).max();
    let permissive =
        matches!(profile.default_action(), LinuxSeccompAction::ScmpActAllow | LinuxSeccompAction::ScmpActLog);
    if permissive || last.is_some_and(|last| number <= last) { default } else { ENOSYS }
}

trait Number {
    fn number(self, data: Option<u32>) -> u32;
}

impl Number for LinuxSeccompAction {
    /// By the kernel's header, not by the code under test.
    fn number(self, data: Option<u32>) -> u32 {
        match self {
            LinuxSeccompAction::ScmpActAllow => 0x7fff_0000,
            LinuxSeccompAction::ScmpActErrno => 0x0005_0000 | data.unwrap_or(1),
            LinuxSeccompAction::ScmpActLog => 0x7ffc_0000,
            LinuxSeccompAction::ScmpActTrap => 0x0003_0000,
            LinuxSeccompAction::ScmpActKillProcess => 0x8000_0000,
            other => panic!("{other:?}"),
        }
    }
}

fn actions() -> impl Strategy<Value = LinuxSeccompAction> {
    prop::sample::select(vec![
        LinuxSeccompAction::ScmpActAllow,
        LinuxSeccompAction::ScmpActErrno,
        LinuxSeccompAction::ScmpActLog,
        LinuxSeccompAction::ScmpActTrap,
        LinuxSeccompAction::ScmpActKillProcess,
    ])
}

/// Values near each other and near the borders of 32 bits, so that comparisons meet.
fn values() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..4,
        (u64::from(u32::MAX) - 1)..=(u64::from(u32::MAX) + 2),
        Just(u64::MAX),
        Just(1 << 63),
        any::<u64>()
    ]
}

fn arg() -> impl Strategy<Value = LinuxSeccompArg> {
    let ops = prop::sample::select(vec![
        LinuxSeccompOperator::ScmpCmpNe,
        LinuxSeccompOperator::ScmpCmpLt,
        LinuxSeccompOperator::ScmpCmpLe,
        LinuxSeccompOperator::ScmpCmpEq,
        LinuxSeccompOperator::ScmpCmpGe,
        LinuxSeccompOperator::ScmpCmpGt,
        LinuxSeccompOperator::ScmpCmpMaskedEq,
    ]);
    (0usize..3, values(), values(), ops).prop_map(|(index, value, two, op)| {
        LinuxSeccompArgBuilder::default().index(index).value(value).value_two(two).op(op).build().unwrap()
    })
}

fn entry() -> impl Strategy<Value = LinuxSyscall> {
    let names = prop::collection::vec(prop::sample::select(some_names()), 1..20);
    (names, actions(), prop::option::of(1u32..100), prop::collection::vec(arg(), 0..4)).prop_map(
        |(names, action, errno, args)| {
            let mut call = LinuxSyscall::default();
            call.set_names(names).set_action(action).set_errno_ret(errno).set_args(Some(args));
            call
        },
    )
}

/// Names spread over the whole range, some of them not of this architecture.
fn some_names() -> Vec<String> {
    [
        "read",
        "write",
        "mmap",
        "clone",
        "openat",
        "mount",
        "kill",
        "fork",
        "bpf",
        "clone3",
        "mseal",
        "nonsense",
        "ptrace",
        "getxattrat",
        "epoll_wait",
        "socket",
        "futex",
        "io_uring_setup",
        "execve",
        "fchmodat2",
        "open",
        "statx",
    ]
    .map(str::to_owned)
    .to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn the_tree_answers_as_the_profile_reads(
        entries in prop::collection::vec(entry(), 0..40),
        default in actions(),
        args in prop::array::uniform6(values()),
    ) {
        let mut profile = LinuxSeccomp::default();
        profile.set_default_action(default).set_syscalls(Some(entries));
        let filter = compile(&profile).unwrap();
        for number in (0..600).chain([0x3fff_ffff, 0x4000_0000, 0x4000_0001, u32::MAX]) {
            prop_assert_eq!(native(&filter, number, args), naive(&profile, number, args), "call {}", number);
        }
        prop_assert_eq!(run(&filter.program, 0x4000_0003, 1, args), KILL, "a 32-bit call");
    }
}

fn default_answer(granted: CapSet, name: &str, args: [u64; 6]) -> u32 {
    native(&docker_default(granted), Arch::NATIVE.number(name).unwrap(), args)
}

#[test]
fn dockers_profile_says_what_docker_says() {
    let docker = CapSet::DOCKER;
    let none = [0; 6];
    for name in ["read", "openat", "execve", "futex", "chroot", "setuid", "capset", "statx", "ptrace", "setxattrat"] {
        assert_eq!(default_answer(docker, name, none), ALLOW, "{name}");
    }
    for name in [
        "mount",
        "umount2",
        "keyctl",
        "add_key",
        "request_key",
        "bpf",
        "unshare",
        "setns",
        "reboot",
        "swapon",
        "init_module",
        "kexec_load",
        "io_uring_setup",
        "userfaultfd",
        "open_by_handle_at",
        "pivot_root",
    ] {
        assert_eq!(default_answer(docker, name, none), EPERM, "{name}");
    }
    assert_eq!(default_answer(docker, "clone3", none), ENOSYS);
    assert_eq!(default_answer(docker.without(CapSet::named("SYS_CHROOT").unwrap()), "chroot", none), EPERM);
    // Newer than the profile: the program falls back.
    assert_eq!(native(&docker_default(docker), 469, none), ENOSYS);
    assert_eq!(native(&docker_default(docker), 2000, none), ENOSYS);

    let admin = docker.union(CapSet::named("SYS_ADMIN").unwrap());
    for name in ["mount", "clone3", "setns", "bpf"] {
        assert_eq!(default_answer(admin, name, none), ALLOW, "{name}");
    }
    assert_eq!(default_answer(admin, "clone", [0x1000_0000, 0, 0, 0, 0, 0]), ALLOW);
}

#[test]
fn dockers_profile_looks_at_arguments() {
    let answer = |name, first| default_answer(CapSet::DOCKER, name, [first, 0, 0, 0, 0, 0]);
    assert_eq!(answer("clone", 0x0125_0f00), ALLOW, "a thread");
    for namespace in [0x0002_0000u64, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
        assert_eq!(answer("clone", 17 | namespace), EPERM, "clone {namespace:#x}");
    }
    for (family, allowed) in [
        (0, false),
        (1, true),
        (2, true),
        (10, true),
        (12, false),
        (16, true),
        (17, true),
        (38, false),
        (40, false),
        (44, true),
        (46, false),
        (1 << 32 | 2, false),
    ] {
        assert_eq!(answer("socket", family), if allowed { ALLOW } else { EPERM }, "socket family {family}");
    }
    for (personality, allowed) in
        [(0, true), (8, true), (0x20000, true), (0x20008, true), (0xffff_ffff, true), (0x40000, false)]
    {
        assert_eq!(answer("personality", personality), if allowed { ALLOW } else { EPERM }, "{personality:#x}");
    }
}

#[test]
fn the_default_program_is_small_and_shallow() {
    let filter = docker_default(CapSet::DOCKER);
    assert!(filter.len() < 250, "{} instructions", filter.len());
    let steps = |number| {
        let (mut at, mut steps) = (0, 0);
        loop {
            let Insn { code, jt, jf, k } = filter.program[at];
            at += 1;
            steps += 1;
            match code {
                JUMP => at += k as usize,
                EQUAL if steps == 2 => at += usize::from(jt),
                AT_LEAST => at += usize::from(if number >= k { jt } else { jf }),
                LOAD if steps > 3 => return steps,
                RETURN => return steps,
                _ => {}
            }
        }
    };
    let deepest = (0..470).map(steps).max();
    assert!(deepest < Some(16), "{deepest:?} steps");
}

#[test]
fn the_same_profile_for_the_other_architecture() {
    let program = tree::emit(&docker::policy(CapSet::DOCKER, Arch::Aarch64), Arch::Aarch64);
    let answer = |name| run(&program, Arch::Aarch64.audit(), Arch::Aarch64.number(name).unwrap(), [0; 6]);
    assert_eq!((answer("openat"), answer("mount"), answer("clone3")), (ALLOW, EPERM, ENOSYS));
    assert_eq!(run(&program, Arch::X86_64.audit(), 0, [0; 6]), KILL);
}

#[test]
fn profiles_that_cannot_be() {
    let mut profile = LinuxSeccomp::default();
    profile.set_default_action(LinuxSeccompAction::ScmpActNotify);
    assert!(compile(&profile).unwrap_err().to_string().contains("SCMP_ACT_NOTIFY is not supported"));
    let arg = LinuxSeccompArgBuilder::default().index(6usize).build().unwrap();
    let mut call = LinuxSyscall::default();
    call.set_names(vec!["read".to_owned()]).set_args(Some(vec![arg]));
    profile.set_default_action(LinuxSeccompAction::ScmpActAllow).set_syscalls(Some(vec![call]));
    assert_eq!(compile(&profile).unwrap_err().to_string(), "seccomp profile: a system call has no argument 6");
}
