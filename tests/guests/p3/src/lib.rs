//! Guests of WASI 0.3, each of which is an example of this package.
