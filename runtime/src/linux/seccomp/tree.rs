//! The emitter: a policy becomes a BPF program that finds a system call's number by binary search.
//!
//! **Why.** When a filter is installed the kernel runs it once for every system call there is, to learn which ones it
//! always allows (`seccomp_cache_prepare`). A linear chain of 350 comparisons makes that 300 to 650 µs of each start;
//! a balanced tree over *ranges* of numbers with the same answer makes it 25 to 40 µs, and is a fifth of the size.
//!
//! The program reads the architecture and kills on a foreign one, reads the number, walks the tree, and ends in a
//! return or in a block that checks arguments. Blocks and returns stand once and are shared.
//!
//! Code is emitted backwards, last instruction first, so every jump's target is known when the jump is written. A
//! conditional jump reaches 255 instructions; beyond that an unconditional one is put in between.

use super::policy::{Check, Op, Policy, Rule};
use super::syscalls::Arch;

/// `SECCOMP_RET_KILL_PROCESS`.
const KILL_PROCESS: u32 = 0x8000_0000;
/// `__X32_SYSCALL_BIT`: calls of the x32 interface, which filters by number alone would miss.
const X32: u32 = 0x4000_0000;

/// `struct sock_filter` (`linux/filter.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Insn {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when a test holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// Load a word of `struct seccomp_data`.
pub const LOAD: u16 = 0x20;
/// Jump always.
pub const JUMP: u16 = 0x05;
/// Jump when equal.
pub const EQUAL: u16 = 0x15;
/// Jump when greater.
pub const GREATER: u16 = 0x25;
/// Jump when greater or equal.
pub const AT_LEAST: u16 = 0x35;
/// Mask.
pub const AND: u16 = 0x54;
/// Answer.
pub const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
pub const NUMBER: u32 = 0;
/// Where the architecture is.
pub const ARCH: u32 = 4;
/// Where the first argument is; eight bytes each, the lower half first on both of our architectures.
pub const ARGS: u32 = 16;

/// How far a conditional jump is let go, with room for the trampolines that may come between.
const REACH: usize = 250;

/// A place in the program, counted from its end.
type Label = usize;

struct Emitter {
    /// Last instruction first.
    code: Vec<Insn>,
    /// Returns that stand already: answer and place.
    returns: Vec<(u32, Label)>,
}

/// A range of numbers, up to the next one's start, with one answer.
struct Range {
    start: u32,
    leaf: Leaf,
}

#[derive(PartialEq, Eq, Clone, Copy)]
enum Leaf {
    Return(u32),
    Block(Label),
}

/// The program of a policy.
pub fn emit(policy: &Policy, arch: Arch) -> Vec<Insn> {
    let mut emitter = Emitter { code: Vec::with_capacity(256), returns: Vec::with_capacity(8) };
    let ranges = emitter.ranges(policy, arch);
    let tree = emitter.search(&ranges);
    emitter.push_jump_to(tree);
    emitter.push(LOAD, 0, 0, NUMBER);
    let go_on = emitter.here();
    emitter.push(RETURN, 0, 0, KILL_PROCESS);
    let kill = emitter.here();
    emitter.test(EQUAL, arch.audit(), go_on, kill);
    emitter.push(LOAD, 0, 0, ARCH);
    emitter.code.reverse();
    emitter.code
}

impl Emitter {
    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) {
        self.code.push(Insn { code, jt, jf, k });
    }

    /// The instruction emitted last.
    fn here(&self) -> Label {
        self.code.len() - 1
    }

    /// How many instructions an instruction emitted now must skip to get to `label`.
    fn distance(&self, label: Label) -> usize {
        self.code.len() - 1 - label
    }

    /// `label`, or a jump to it that is in reach.
    fn near(&mut self, label: Label) -> Label {
        if self.distance(label) <= REACH {
            return label;
        }
        let skip = self.distance(label);
        self.push(JUMP, 0, 0, skip as u32);
        self.here()
    }

    /// Makes what is emitted before now go on at `label`.
    fn push_jump_to(&mut self, label: Label) {
        let skip = self.distance(label);
        if skip > 0 {
            self.push(JUMP, 0, 0, skip as u32);
        }
    }

    fn test(&mut self, code: u16, k: u32, then: Label, otherwise: Label) {
        let then = self.near(then);
        let otherwise = self.near(otherwise);
        let (jt, jf) = (self.distance(then) as u8, self.distance(otherwise) as u8);
        self.push(code, jt, jf, k);
    }

    /// A return of `answer` in reach: one that stands already, else a new one (no longer than a jump to it).
    fn answer(&mut self, answer: u32) -> Label {
        let known = self.returns.iter().rev().find(|(known, _)| *known == answer).map(|(_, label)| *label);
        if let Some(label) = known
            && self.distance(label) <= REACH
        {
            return label;
        }
        self.push(RETURN, 0, 0, answer);
        let label = self.here();
        self.returns.push((answer, label));
        label
    }

    /// The blocks, and which numbers lead where.
    fn ranges(&mut self, policy: &Policy, arch: Arch) -> Vec<Range> {
        let mut ranges: Vec<Range> = Vec::with_capacity(128);
        let add = |ranges: &mut Vec<Range>, start, leaf| {
            if ranges.last().is_none_or(|last| last.leaf != leaf) {
                ranges.push(Range { start, leaf });
            }
        };
        for (number, rules) in policy.calls.iter().enumerate() {
            let leaf = match rules.as_slice() {
                [] => Leaf::Return(policy.default),
                [Rule { checks, action }, ..] if checks.is_empty() => Leaf::Return(*action),
                rules => {
                    // The calls of one profile entry (clone and clone3 in some) share a block.
                    let same = policy.calls[..number].iter().position(|earlier| earlier.as_slice() == rules);
                    let shared = same.and_then(|same| ranges.iter().rev().find(|range| range.start <= same as u32));
                    match shared {
                        Some(range) => range.leaf,
                        None => Leaf::Block(self.block(rules, policy.default)),
                    }
                }
            };
            add(&mut ranges, number as u32, leaf);
        }
        add(&mut ranges, policy.calls.len() as u32, Leaf::Return(policy.beyond));
        if arch == Arch::X86_64 {
            add(&mut ranges, X32, Leaf::Return(KILL_PROCESS));
        }
        ranges
    }

    /// The rules of one call, tried in order; `default` when none holds.
    fn block(&mut self, rules: &[Rule], default: u32) -> Label {
        let mut next = self.answer(default);
        for rule in rules.iter().rev() {
            let mut hit = self.answer(rule.action);
            for check in rule.checks.iter().rev() {
                hit = self.check(check, hit, next);
            }
            next = hit;
        }
        next
    }

    /// One comparison of a 64-bit argument, half by half.
    fn check(&mut self, check: &Check, then: Label, otherwise: Label) -> Label {
        let low = ARGS + 8 * u32::from(check.index);
        let high = low + 4;
        let (value_high, value_low) = ((check.value >> 32) as u32, check.value as u32);
        let (then, otherwise) = if check.negated { (otherwise, then) } else { (then, otherwise) };
        match check.op {
            Op::Equal => {
                self.half(low, EQUAL, value_low, then, otherwise);
                let low = self.here();
                self.half(high, EQUAL, value_high, low, otherwise);
            }
            Op::MaskedEqual(mask) => {
                let (mask_high, mask_low) = ((mask >> 32) as u32, mask as u32);
                self.test(EQUAL, value_low, then, otherwise);
                self.push(AND, 0, 0, mask_low);
                self.push(LOAD, 0, 0, low);
                // Mostly the mask is of low bits only; the upper half then says nothing.
                if mask_high != 0 || value_high != 0 {
                    let low = self.here();
                    self.test(EQUAL, value_high, low, otherwise);
                    self.push(AND, 0, 0, mask_high);
                    self.push(LOAD, 0, 0, high);
                }
            }
            Op::Greater => self.ordered(GREATER, high, low, value_high, value_low, then, otherwise),
            Op::AtLeast => self.ordered(AT_LEAST, high, low, value_high, value_low, then, otherwise),
        }
        self.here()
    }

    fn half(&mut self, offset: u32, code: u16, value: u32, then: Label, otherwise: Label) {
        self.test(code, value, then, otherwise);
        self.push(LOAD, 0, 0, offset);
    }

    /// Upper halves decide; when they are equal the lower ones do.
    #[allow(clippy::too_many_arguments)]
    fn ordered(&mut self, code: u16, high: u32, low: u32, value_high: u32, value_low: u32, then: Label, other: Label) {
        self.half(low, code, value_low, then, other);
        let equal = self.here();
        self.test(EQUAL, value_high, equal, other);
        let not_greater = self.here();
        self.half(high, GREATER, value_high, then, not_greater);
    }

    fn search(&mut self, ranges: &[Range]) -> Label {
        match ranges {
            [] => self.answer(KILL_PROCESS),
            [Range { leaf: Leaf::Return(answer), .. }] => self.answer(*answer),
            [Range { leaf: Leaf::Block(label), .. }] => *label,
            ranges => {
                let (left, right) = ranges.split_at(ranges.len() / 2);
                let upper = self.search(right);
                let lower = self.search(left);
                self.test(AT_LEAST, right[0].start, upper, lower);
                self.here()
            }
        }
    }
}
