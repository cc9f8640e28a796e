//! Everything Linux-only.
