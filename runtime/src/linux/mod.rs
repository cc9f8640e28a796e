//! Everything Linux-only.

pub mod capabilities;
pub mod cgroup;
pub mod process;
pub mod session;
pub mod terminal;
