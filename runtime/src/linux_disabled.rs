//! What [`crate::linux`] offers on systems that have no Linux backend: the same names, all `Unsupported`.

pub mod session {
    //! See `linux/session.rs`.

    use crate::error::Result;

    /// A connection over which streams flow. None can be made here.
    #[derive(Debug)]
    pub enum Session {}

    /// What the relay does besides copying.
    #[derive(Debug, Clone, Default)]
    pub struct Relay {
        /// Our stdin is copied to the container's.
        pub stdin: bool,
        /// The container has a terminal.
        pub tty: bool,
        /// Signals sent to us go to the container.
        pub signals: bool,
        /// The bytes that detach.
        pub detach_keys: Vec<u8>,
    }

    /// How a relay ended.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Outcome {
        /// It ended with this exit code.
        Exited(i32),
        /// The person typed the detach keys.
        Detached,
    }

    impl Session {
        /// Copies until the end.
        ///
        /// # Errors
        /// None: there is no session to call it on.
        pub fn relay(self, _options: &Relay) -> Result<Outcome> {
            match self {}
        }
    }
}

pub mod terminal {
    //! See `linux/terminal.rs`.

    use crate::error::{Class, Error, Result};

    /// Not known here.
    pub fn stdout_size() -> Option<(u16, u16)> {
        None
    }

    /// Raw mode; not to be had here.
    #[derive(Debug)]
    pub enum RawMode {}

    impl RawMode {
        /// Refuses.
        ///
        /// # Errors
        /// `Unsupported`.
        pub fn enter() -> Result<Self> {
            Err(Error::new(Class::Unsupported, "attaching to a terminal is not supported on this system yet"))
        }
    }
}
