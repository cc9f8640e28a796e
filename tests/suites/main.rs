//! The promises that only the whole program can keep, tested through it.
//!
//! One program for all of them: each further one would link everything again.

#[path = "../support/mod.rs"]
mod support;

mod attacks;
mod bad;
mod bridge;
mod crash;
mod credentials;
mod docker;
mod events;
mod exec;
mod files;
mod flags;
mod health;
mod http;
mod interrupted;
mod logs;
mod look;
mod namespaces;
mod networks;
mod p3;
mod parity;
mod privileges;
mod prune;
mod real;
mod registry;
mod relay;
mod restart;
mod rootless;
mod run;
mod search;
mod six;
mod sockets;
mod stack;
mod storm;
mod tour;
mod tutorial;
mod volumes;
mod walls;
mod words;
