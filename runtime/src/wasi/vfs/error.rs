//! Errors of files, in the words of `wasi:filesystem`.

use std::io::{self, ErrorKind};

use wasmtime_wasi::p2::bindings::filesystem::types::ErrorCode as SystemCode;

pub(crate) use crate::wasi::bindings::types::ErrorCode as Code;

pub(crate) type Result<T, E = Code> = std::result::Result<T, E>;

impl From<io::Error> for Code {
    fn from(error: io::Error) -> Code {
        Code::from(&error)
    }
}

impl From<&io::Error> for Code {
    fn from(error: &io::Error) -> Code {
        match error.kind() {
            ErrorKind::NotFound => Code::NoEntry,
            ErrorKind::AlreadyExists => Code::Exist,
            ErrorKind::NotADirectory => Code::NotDirectory,
            ErrorKind::IsADirectory => Code::IsDirectory,
            ErrorKind::DirectoryNotEmpty => Code::NotEmpty,
            ErrorKind::ReadOnlyFilesystem => Code::ReadOnly,
            ErrorKind::StorageFull => Code::InsufficientSpace,
            ErrorKind::QuotaExceeded => Code::Quota,
            ErrorKind::FileTooLarge => Code::FileTooLarge,
            ErrorKind::ResourceBusy => Code::Busy,
            ErrorKind::ExecutableFileBusy => Code::TextFileBusy,
            ErrorKind::Deadlock => Code::Deadlock,
            ErrorKind::CrossesDevices => Code::CrossDevice,
            ErrorKind::TooManyLinks => Code::TooManyLinks,
            ErrorKind::NotSeekable => Code::InvalidSeek,
            ErrorKind::WouldBlock => Code::WouldBlock,
            ErrorKind::Interrupted => Code::Interrupted,
            ErrorKind::OutOfMemory => Code::InsufficientMemory,
            ErrorKind::BrokenPipe => Code::Pipe,
            ErrorKind::Unsupported => Code::Unsupported,
            ErrorKind::InvalidInput => Code::Invalid,
            // What the standard library has no kind for, or one for two: the system's own number says it.
            _ => match SystemCode::from(error) {
                SystemCode::Access => Code::Access,
                SystemCode::NotPermitted => Code::NotPermitted,
                SystemCode::Loop => Code::Loop,
                SystemCode::NameTooLong => Code::NameTooLong,
                SystemCode::IllegalByteSequence => Code::IllegalByteSequence,
                SystemCode::BadDescriptor => Code::BadDescriptor,
                SystemCode::Overflow => Code::Overflow,
                SystemCode::Invalid => Code::Invalid,
                SystemCode::NoEntry => Code::NoEntry,
                _ => Code::Io,
            },
        }
    }
}

/// True when `cap_std` refused to leave the directory: the way leads out of it, or to an absolute symlink, and has to be
/// walked name by name.
pub(super) fn is_escape(error: &io::Error) -> bool {
    error.kind() == ErrorKind::PermissionDenied && error.raw_os_error().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_errors_have_their_words() {
        let of = |number| Code::from(io::Error::from_raw_os_error(number));
        for (number, code) in [
            (libc::ENOENT, Code::NoEntry),
            (libc::EPERM, Code::NotPermitted),
            (libc::EACCES, Code::Access),
            (libc::ELOOP, Code::Loop),
            (libc::EXDEV, Code::CrossDevice),
            (libc::EROFS, Code::ReadOnly),
            (libc::ENAMETOOLONG, Code::NameTooLong),
            (libc::ENOTEMPTY, Code::NotEmpty),
            (libc::EBADF, Code::BadDescriptor),
            (libc::EINVAL, Code::Invalid),
            (libc::ENOSPC, Code::InsufficientSpace),
            (libc::EDQUOT, Code::Quota),
            (libc::EISDIR, Code::IsDirectory),
            (libc::EOVERFLOW, Code::Overflow),
            (libc::ESPIPE, Code::InvalidSeek),
            (libc::EIO, Code::Io),
        ] {
            assert_eq!(of(number), code, "{number}");
        }
    }
}
