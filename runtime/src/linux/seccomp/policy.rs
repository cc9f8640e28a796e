//! What a profile means for one architecture: for each system call's number, the rules in order.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall};

use super::syscalls::Arch;
use crate::error::{Class, Error, Result};

/// `SECCOMP_RET_ALLOW`.
pub const ALLOW: u32 = 0x7fff_0000;
/// `SECCOMP_RET_ERRNO`, to be joined with the error's number.
pub const ERRNO: u32 = 0x0005_0000;
/// The kernel returns no error above this (`MAX_ERRNO`).
const MAX_ERRNO: u32 = 4095;

/// How an argument is compared with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Equal,
    /// The argument's bits in this mask equal the value.
    MaskedEqual(u64),
    Greater,
    AtLeast,
}

/// One comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    /// Which argument, 0 to 5.
    pub index: u8,
    pub op: Op,
    pub value: u64,
    /// It must not hold: "less than" is "not at least".
    pub negated: bool,
}

/// An answer, given when all checks hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub checks: Vec<Check>,
    /// A `SECCOMP_RET_*` with its data.
    pub action: u32,
}

/// A profile for one architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The answer for a call without rules, or when none holds.
    pub default: u32,
    /// The answer for numbers above all that the profile mentions.
    pub beyond: u32,
    /// Rules by number. The first that holds answers.
    pub calls: Vec<Vec<Rule>>,
}

impl Policy {
    /// A policy that answers `default` to everything, also to calls that are newer than its author.
    ///
    /// A profile that refuses what it does not know answers those with `ENOSYS`, as runc does: programs then use the
    /// older call, where `EPERM` would make them give up.
    pub fn new(default: u32) -> Policy {
        let permissive = matches!(default & 0xffff_0000, ALLOW | 0x7ffc_0000 | 0x7ff0_0000);
        let beyond = if permissive { default } else { ERRNO | libc::ENOSYS as u32 };
        Policy { default, beyond, calls: Vec::with_capacity(512) }
    }

    /// Adds a rule after those that the call has. What comes after a rule without checks has no effect.
    pub fn add(&mut self, number: u32, rule: Rule) {
        let number = number as usize;
        if self.calls.len() <= number {
            self.calls.resize_with(number + 1, Vec::new);
        }
        let rules = &mut self.calls[number];
        if rules.last().is_none_or(|last| !last.checks.is_empty()) {
            rules.push(rule);
        }
    }

    /// A profile's meaning for `arch`. Calls that the architecture does not have are left out.
    ///
    /// As in runc, two conditions on the same argument in one entry mean either of them, not both.
    ///
    /// # Errors
    /// `InvalidInput` for an argument's number above 5; `Unsupported` for `SCMP_ACT_NOTIFY`.
    pub fn of(profile: &LinuxSeccomp, arch: Arch) -> Result<Policy> {
        let mut policy = Policy::new(action(profile.default_action(), profile.default_errno_ret())?);
        for entry in profile.syscalls().iter().flatten() {
            let action = action(entry.action(), entry.errno_ret())?;
            for name in entry.names() {
                let Some(number) = arch.number(name) else { continue };
                for checks in alternatives(entry)? {
                    policy.add(number, Rule { checks, action });
                }
            }
        }
        Ok(policy)
    }
}

/// The lists of checks of which one must hold.
fn alternatives(entry: &LinuxSyscall) -> Result<Vec<Vec<Check>>> {
    let args = entry.args().as_deref().unwrap_or_default();
    let repeated = args.iter().enumerate().any(|(at, arg)| args[..at].iter().any(|seen| seen.index() == arg.index()));
    let checks = args.iter().map(check).collect::<Result<Vec<_>>>()?;
    Ok(if repeated { checks.into_iter().map(|check| vec![check]).collect() } else { vec![checks] })
}

fn check(arg: &LinuxSeccompArg) -> Result<Check> {
    let index = u8::try_from(arg.index()).ok().filter(|&index| index < 6);
    let Some(index) = index else {
        return Err(invalid(format!("seccomp profile: a system call has no argument {}", arg.index())));
    };
    let value = arg.value();
    let (op, value, negated) = match arg.op() {
        LinuxSeccompOperator::ScmpCmpEq => (Op::Equal, value, false),
        LinuxSeccompOperator::ScmpCmpNe => (Op::Equal, value, true),
        LinuxSeccompOperator::ScmpCmpGt => (Op::Greater, value, false),
        LinuxSeccompOperator::ScmpCmpLe => (Op::Greater, value, true),
        LinuxSeccompOperator::ScmpCmpGe => (Op::AtLeast, value, false),
        LinuxSeccompOperator::ScmpCmpLt => (Op::AtLeast, value, true),
        LinuxSeccompOperator::ScmpCmpMaskedEq => (Op::MaskedEqual(value), arg.value_two().unwrap_or(0), false),
    };
    Ok(Check { index, op, value, negated })
}

/// The kernel's number of an action.
fn action(action: LinuxSeccompAction, data: Option<u32>) -> Result<u32> {
    Ok(match action {
        LinuxSeccompAction::ScmpActAllow => ALLOW,
        LinuxSeccompAction::ScmpActErrno => ERRNO | data.unwrap_or(libc::EPERM as u32).min(MAX_ERRNO),
        LinuxSeccompAction::ScmpActKillProcess => 0x8000_0000,
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => 0,
        LinuxSeccompAction::ScmpActTrap => 0x0003_0000,
        LinuxSeccompAction::ScmpActTrace => 0x7ff0_0000 | data.unwrap_or(libc::EPERM as u32).min(0xffff),
        LinuxSeccompAction::ScmpActLog => 0x7ffc_0000,
        LinuxSeccompAction::ScmpActNotify => {
            return Err(Error::new(Class::Unsupported, "seccomp profile: SCMP_ACT_NOTIFY is not supported")
                .with_hint("Wharf runs no agent that could answer; use another action"));
        }
    })
}

pub fn invalid(message: impl Into<String>) -> Error {
    Error::new(Class::InvalidInput, message)
}
