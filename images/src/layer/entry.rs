//! The words in which an archive's entry is told to the part that writes it.

/// A time: seconds since 1970 and nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mtime {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

/// A file that is not a file, with major and minor numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Node {
    Fifo,
    Char(u32, u32),
    Block(u32, u32),
}

/// What is found under a name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Dir,
    Symlink,
    Whiteout,
    Other,
}

/// What an entry is. Names of other entries are as the archive spells them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Dir,
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    Node(Node),
}

/// One entry's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// As the archive spells it: not yet to be trusted.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    /// Bytes of content, holes included.
    pub(crate) size: u64,
    /// Permission, setuid, setgid and sticky bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Mtime,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What a tree says of one name in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) kind: StatKind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) mtime: Mtime,
    /// The same for all names of one file, if it has several.
    pub(crate) linked: Option<(u64, u64)>,
}

/// What a name in a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "not every system's trees have all of these")]
pub(crate) enum StatKind {
    File,
    Dir,
    Symlink,
    Node(Node),
    Whiteout,
    /// A socket: it means nothing without its process.
    Socket,
}
