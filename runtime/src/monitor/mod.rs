//! The per-container process: what it says and writes. How it runs is the operating system's affair.

pub mod log;
pub mod protocol;
