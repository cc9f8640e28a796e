//! Everything Linux-only.

pub mod capabilities;
pub mod cgroup;
pub mod session;
pub mod terminal;
