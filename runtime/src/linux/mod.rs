//! Everything Linux-only.

pub mod session;
