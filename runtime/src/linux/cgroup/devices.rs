//! Which devices a container may use. Its root may make device nodes (docker grants `MKNOD`), so this, and not the
//! absence of nodes in its `/dev`, is what keeps it from the host's disks.
//!
//! v1: `devices.allow` and `devices.deny`. v2: a small eBPF program on the cgroup (`BPF_PROG_TYPE_CGROUP_DEVICE`),
//! assembled here and loaded by bpf(2).

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use oci_spec::runtime::{LinuxDeviceCgroup, Spec};
use rustix::io::Errno;

use super::file;

/// Makes nodes, reads and writes, as bits of the kernel's `BPF_DEVCG_ACC_*`.
const MKNOD: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;

/// One rule of what is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRule {
    /// `b` for block, `c` for character devices, `a` for both.
    pub kind: char,
    /// The major number; all when `None`.
    pub major: Option<u32>,
    /// The minor number; all when `None`.
    pub minor: Option<u32>,
    /// What is allowed: some of `r`, `w`, `m`.
    pub access: String,
}

impl DeviceRule {
    fn character(major: u32, minor: Option<u32>) -> DeviceRule {
        DeviceRule { kind: 'c', major: Some(major), minor, access: "rwm".to_owned() }
    }

    /// As v1's files spell it: `c 1:3 rwm`.
    fn line(&self) -> String {
        let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
        format!("{} {}:{} {}", self.kind, number(self.major), number(self.minor), self.access)
    }

    /// As an OCI spec spells it.
    pub fn to_oci(&self) -> LinuxDeviceCgroup {
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_allow(true)
            .set_typ(self.kind.to_string().parse().ok())
            .set_major(self.major.map(i64::from))
            .set_minor(self.minor.map(i64::from))
            .set_access(Some(self.access.clone()));
        rule
    }

    /// The rules of an OCI spec, whose list forbids everything first; `None` when it has none or allows everything.
    ///
    /// Rules that forbid one device after others were allowed are not kept: Wharf writes no such lists.
    pub fn of_spec(spec: &Spec) -> Option<Vec<DeviceRule>> {
        let rules = spec.linux().as_ref()?.resources().as_ref()?.devices().as_ref()?;
        let number = |n: Option<i64>| n.and_then(|n| u32::try_from(n).ok());
        let read = |rule: &LinuxDeviceCgroup| DeviceRule {
            kind: rule.typ().map_or('a', |kind| kind.as_str().chars().next().unwrap_or('a')),
            major: number(rule.major()),
            minor: number(rule.minor()),
            access: rule.access().clone().unwrap_or_else(|| "rwm".to_owned()),
        };
        let allowed: Vec<DeviceRule> = rules.iter().filter(|rule| rule.allow()).map(read).collect();
        let everything = |rule: &DeviceRule| rule.kind == 'a' && rule.major.is_none() && rule.access_bits() == 7;
        (!allowed.iter().any(everything)).then_some(allowed)
    }

    fn access_bits(&self) -> u32 {
        let bit = |c| match c {
            'm' => MKNOD,
            'r' => READ,
            'w' => WRITE,
            _ => 0,
        };
        self.access.chars().map(bit).fold(0, |bits, bit| bits | bit)
    }
}

/// What every docker container may use: nodes of any kind may be made, and only these used.
pub fn docker_devices() -> Vec<DeviceRule> {
    let make = |kind| DeviceRule { kind, major: None, minor: None, access: "m".to_owned() };
    vec![
        make('c'),
        make('b'),
        DeviceRule::character(1, Some(3)), // null
        DeviceRule::character(1, Some(5)), // zero
        DeviceRule::character(1, Some(7)), // full
        DeviceRule::character(1, Some(8)), // random
        DeviceRule::character(1, Some(9)), // urandom
        DeviceRule::character(5, Some(0)), // tty
        DeviceRule::character(5, Some(1)), // console
        DeviceRule::character(5, Some(2)), // ptmx
        DeviceRule::character(136, None),  // pts
    ]
}

/// v1: forbids everything, then allows `rules`.
pub fn write_rules(dir: BorrowedFd<'_>, rules: &[DeviceRule]) -> Result<(), Errno> {
    file::write(dir, "devices.deny", "a")?;
    // Opened once for all: the file takes one rule in each write.
    let allow = file::open_to_write(dir, "devices.allow")?;
    rules.iter().try_for_each(|rule| rustix::io::write(&allow, rule.line().as_bytes()).map(drop))
}

/// One eBPF instruction (`linux/bpf.h`, `struct bpf_insn`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Insn {
    code: u8,
    /// Destination in the low four bits, source in the high.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const LOAD_WORD: u8 = 0x61;
const MOVE_REGISTER: u8 = 0xbf;
const MOVE: u8 = 0xb7;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

fn insn(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Insn {
    Insn { code, registers: source << 4 | destination, offset, immediate }
}

/// The program: answers 1 when some rule covers the access, else 0.
///
/// The context (`struct bpf_cgroup_dev_ctx`) has access << 16 | type, major and minor. They are kept in registers 2
/// (type), 3 (access), 4 and 5; 6 is scratch.
fn program(rules: &[DeviceRule]) -> Vec<Insn> {
    let mut code = vec![
        insn(LOAD_WORD, 2, 1, 0, 0),
        insn(MOVE_REGISTER, 3, 2, 0, 0),
        insn(AND, 2, 0, 0, 0xffff),
        insn(SHIFT_RIGHT, 3, 0, 0, 16),
        insn(LOAD_WORD, 4, 1, 4, 0),
        insn(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules {
        let mut checks = Vec::new();
        match rule.kind {
            'b' => checks.push(insn(JUMP_UNLESS_EQUAL, 2, 0, 0, 1)),
            'c' => checks.push(insn(JUMP_UNLESS_EQUAL, 2, 0, 0, 2)),
            _ => {}
        }
        let beyond = !rule.access_bits() & (MKNOD | READ | WRITE);
        if beyond != 0 {
            checks.push(insn(MOVE_REGISTER, 6, 3, 0, 0));
            checks.push(insn(AND, 6, 0, 0, beyond as i32));
            checks.push(insn(JUMP_UNLESS_EQUAL, 6, 0, 0, 0));
        }
        for (register, number) in [(4, rule.major), (5, rule.minor)] {
            checks.extend(number.map(|number| insn(JUMP_UNLESS_EQUAL, register, 0, 0, number as i32)));
        }
        let body = checks.len() + 2;
        for (at, check) in checks.iter_mut().enumerate() {
            if check.code == JUMP_UNLESS_EQUAL {
                check.offset = (body - at - 1) as i16;
            }
        }
        code.extend(checks);
        code.extend([insn(MOVE, 0, 0, 0, 1), insn(EXIT, 0, 0, 0, 0)]);
    }
    code.extend([insn(MOVE, 0, 0, 0, 0), insn(EXIT, 0, 0, 0, 0)]);
    code
}

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Programs of the groups above (a container manager's around us) keep running too.
const ALLOW_MULTI: u32 = 2;

/// The part of `union bpf_attr` that `BPF_PROG_LOAD` reads here.
#[repr(C)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// The part that `BPF_PROG_ATTACH` reads.
#[repr(C)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// v2: attaches the program to the cgroup. It goes when the cgroup goes.
pub fn attach_program(dir: BorrowedFd<'_>, rules: &[DeviceRule]) -> Result<(), Errno> {
    let code = program(rules);
    let load = LoadAttr {
        prog_type: PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: code.len() as u32,
        insns: code.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
    };
    let fd = bpf(PROG_LOAD, &load)?;
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
    let program = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let attach = AttachAttr {
        target_fd: dir.as_raw_fd() as u32,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type: ATTACH_CGROUP_DEVICE,
        attach_flags: ALLOW_MULTI,
    };
    bpf(PROG_ATTACH, &attach).map(drop)
}

fn bpf<T>(command: libc::c_long, attr: &T) -> Result<libc::c_long, Errno> {
    // SAFETY: `attr` is a prefix of `union bpf_attr` of the given size; the kernel only reads it and what it points to,
    // and both outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr as *const T, size_of::<T>()) };
    if result < 0 {
        return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL));
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the few instructions that `program` uses.
    fn allows(code: &[Insn], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut r = [0u64; 7];
        let mut at = 0usize;
        loop {
            let Insn { code, registers, offset, immediate } = code[at];
            let (d, s) = (usize::from(registers & 15), usize::from(registers >> 4));
            at += 1;
            match code {
                LOAD_WORD => r[d] = u64::from(context[offset as usize / 4]),
                MOVE_REGISTER => r[d] = r[s],
                MOVE => r[d] = immediate as u64,
                AND => r[d] &= immediate as u64,
                SHIFT_RIGHT => r[d] >>= immediate,
                JUMP_UNLESS_EQUAL if r[d] != immediate as u64 => at += offset as usize,
                JUMP_UNLESS_EQUAL => {}
                EXIT => return r[0] == 1,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn dockers_rules_as_a_program() {
        let code = program(&docker_devices());
        let (block, character) = (1, 2);
        assert!(allows(&code, character, READ | WRITE, 1, 3), "/dev/null");
        assert!(allows(&code, character, READ, 136, 7), "a pts");
        assert!(allows(&code, block, MKNOD, 254, 0), "mknod of a disk");
        assert!(!allows(&code, block, READ, 254, 0), "reading a disk");
        assert!(!allows(&code, block, MKNOD | WRITE, 254, 0), "both at once");
        assert!(!allows(&code, character, READ, 1, 1), "/dev/mem");
        assert!(!allows(&code, block, READ, 1, 3), "a block device of /dev/null's number");
    }

    #[test]
    fn lines_of_v1() {
        let lines: Vec<_> = docker_devices().iter().map(DeviceRule::line).collect();
        assert_eq!(lines[0], "c *:* m");
        assert_eq!(lines[2], "c 1:3 rwm");
        assert_eq!(lines[10], "c 136:* rwm");
    }
}
