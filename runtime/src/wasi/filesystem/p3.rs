//! `wasi:filesystem` 0.3: the same descriptors, whose content comes and goes as the component model's streams.
//!
//! Its calls may wait, and none does: a guest has its process to itself.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wasmtime::StoreContextMut;
use wasmtime::component::{
    Access, Accessor, Destination, FutureReader, Resource, Source, StreamConsumer, StreamProducer, StreamReader,
    StreamResult, VecBuffer,
};
use wasmtime_wasi::p3::bindings::clocks::system_clock::Instant;

use super::{Descriptor, Failure, Files, Result, What, Writer};
use crate::wasi::bindings::p3::filesystem::preopens;
use crate::wasi::bindings::p3::filesystem::types::{
    self, Advice, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry, ErrorCode, Filesize,
    MetadataHashValue, NewTimestamp, OpenFlags, PathFlags,
};
use crate::wasi::bindings::types as p2;
use crate::wasi::bindings::types::HostDescriptor as _;
use crate::wasi::ending::{self, Ending};
use crate::wasi::vfs::{Code, Entry, How, OpenFile, Stat, unix_time};

type End = ending::End<ErrorCode>;
/// What a guest reads, and how that ended.
type Reading<T> = (StreamReader<T>, FutureReader<End>);

/// Bytes that are read at once for a reader who is not a guest.
const CHUNK: usize = 64 * 1024;

impl types::Host for Files<'_> {
    fn convert_error_code(&mut self, failure: Failure) -> wasmtime::Result<ErrorCode> {
        match failure {
            Failure::Code(code) => Ok(code.into()),
            Failure::Trap(error) => Err(error),
        }
    }
}

impl preopens::Host for Files<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        crate::wasi::bindings::preopens::Host::get_directories(self)
    }
}

impl types::HostDescriptor for Files<'_> {
    fn drop(&mut self, fd: Resource<Descriptor>) -> wasmtime::Result<()> {
        p2::HostDescriptor::drop(self, fd)
    }
}

impl<U: Send> types::HostDescriptorWithStore<U> for Files<'static> {
    fn read_via_stream(
        mut store: Access<'_, U, Self>,
        fd: Resource<Descriptor>,
        offset: Filesize,
    ) -> wasmtime::Result<Reading<u8>> {
        let file = match &store.get().table.get(&fd)?.what {
            What::File(file) if file.is_readable() => file.clone(),
            What::File(_) => return ended(store, Code::BadDescriptor),
            What::Directory(_) => return ended(store, Code::IsDirectory),
        };
        let (end, ended) = Ending::new();
        let reader = StreamReader::new(&mut store, Reader { file, position: offset, end })?;
        Ok((reader, FutureReader::new(&mut store, ended)?))
    }

    fn write_via_stream(
        store: Access<'_, U, Self>,
        fd: Resource<Descriptor>,
        data: StreamReader<u8>,
        offset: Filesize,
    ) -> wasmtime::Result<FutureReader<End>> {
        write(store, &fd, data, Some(offset))
    }

    fn append_via_stream(
        store: Access<'_, U, Self>,
        fd: Resource<Descriptor>,
        data: StreamReader<u8>,
    ) -> wasmtime::Result<FutureReader<End>> {
        write(store, &fd, data, None)
    }

    fn read_directory(
        mut store: Access<'_, U, Self>,
        fd: Resource<Descriptor>,
    ) -> wasmtime::Result<Reading<DirectoryEntry>> {
        let listed = store.get().table.get(&fd)?.directory().and_then(|directory| directory.entries());
        let entries = match listed {
            Ok(entries) => entries,
            Err(code) => return ended(store, code),
        };
        let entries: Vec<_> = entries.into_iter().map(DirectoryEntry::from).collect();
        let reader = StreamReader::new(&mut store, entries)?;
        Ok((reader, FutureReader::new(&mut store, async { wasmtime::error::Ok(Ok(())) })?))
    }

    async fn advise(
        store: &Accessor<U, Self>,
        fd: Resource<Descriptor>,
        offset: Filesize,
        length: Filesize,
        advice: Advice,
    ) -> Result<()> {
        store.with(|mut store| store.get().advise(fd, offset, length, advice.into()))
    }

    async fn sync_data(store: &Accessor<U, Self>, fd: Resource<Descriptor>) -> Result<()> {
        store.with(|mut store| store.get().sync_data(fd))
    }

    async fn get_flags(store: &Accessor<U, Self>, fd: Resource<Descriptor>) -> Result<DescriptorFlags> {
        store.with(|mut store| store.get().get_flags(fd)).map(Into::into)
    }

    async fn get_type(store: &Accessor<U, Self>, fd: Resource<Descriptor>) -> Result<DescriptorType> {
        store.with(|mut store| store.get().get_type(fd)).map(Into::into)
    }

    async fn set_size(store: &Accessor<U, Self>, fd: Resource<Descriptor>, size: Filesize) -> Result<()> {
        store.with(|mut store| store.get().set_size(fd, size))
    }

    async fn set_times(
        store: &Accessor<U, Self>,
        fd: Resource<Descriptor>,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> Result<()> {
        let (accessed, modified) = (time(accessed)?, time(modified)?);
        store.with(|mut store| store.get().set_both_times(&fd, accessed, modified))
    }

    async fn sync(store: &Accessor<U, Self>, fd: Resource<Descriptor>) -> Result<()> {
        store.with(|mut store| store.get().sync(fd))
    }

    async fn create_directory_at(store: &Accessor<U, Self>, fd: Resource<Descriptor>, path: String) -> Result<()> {
        store.with(|mut store| store.get().create_directory_at(fd, path))
    }

    async fn stat(store: &Accessor<U, Self>, fd: Resource<Descriptor>) -> Result<DescriptorStat> {
        store.with(|mut store| Ok(told(&store.get().table.get(&fd)?.stat()?)))
    }

    async fn stat_at(
        store: &Accessor<U, Self>,
        fd: Resource<Descriptor>,
        flags: PathFlags,
        path: String,
    ) -> Result<DescriptorStat> {
        store.with(|mut store| {
            let directory = store.get().table.get(&fd)?.directory()?;
            Ok(told(&directory.stat_at(&path, follows(flags))?))
        })
    }

    async fn set_times_at(
        store: &Accessor<U, Self>,
        fd: Resource<Descriptor>,
        flags: PathFlags,
        path: String,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> Result<()> {
        let (accessed, modified) = (time(accessed)?, time(modified)?);
        store.with(|mut store| {
            let directory = store.get().table.get(&fd)?.directory()?;
            Ok(directory.set_times_at(&path, follows(flags), accessed, modified)?)
        })
    }

    async fn link_at(
        store: &Accessor<U, Self>,
        fd: Resource<Descriptor>,
        flags: PathFlags,
        path: String,
        new_fd: Resource<Descriptor>,
        new: String,
    ) -> Result<()> {
        store.with(|mut store| store.get().link_at(fd, flags.into(), path, new_fd, new))
    }

    async fn open_at(
        store: &Accessor<U, Self>,
        fd: Resource<Descriptor>,
        path_flags: PathFlags,
        path: String,
        open_flags: OpenFlags,
        flags: DescriptorFlags,
    ) -> Result<Resource<Descriptor>> {
        let (create, truncate) = (open_flags.contains(OpenFlags::CREATE), open_flags.contains(OpenFlags::TRUNCATE));
        let how = How {
            follow: follows(path_flags),
            create,
            exclusive: open_flags.contains(OpenFlags::EXCLUSIVE),
            truncate,
            directory: open_flags.contains(OpenFlags::DIRECTORY),
            read: flags.contains(DescriptorFlags::READ),
            // Who makes a file or empties it may also write to it: so the suite of the standard has it.
            write: flags.contains(DescriptorFlags::WRITE) || create || truncate,
        };
        store.with(|mut store| store.get().open(&fd, &path, how, flags.into()))
    }

    async fn readlink_at(store: &Accessor<U, Self>, fd: Resource<Descriptor>, path: String) -> Result<String> {
        store.with(|mut store| store.get().readlink_at(fd, path))
    }

    async fn remove_directory_at(store: &Accessor<U, Self>, fd: Resource<Descriptor>, path: String) -> Result<()> {
        store.with(|mut store| store.get().remove_directory_at(fd, path))
    }

    async fn rename_at(
        store: &Accessor<U, Self>,
        fd: Resource<Descriptor>,
        path: String,
        new_fd: Resource<Descriptor>,
        new: String,
    ) -> Result<()> {
        store.with(|mut store| store.get().rename_at(fd, path, new_fd, new))
    }

    async fn symlink_at(store: &Accessor<U, Self>, fd: Resource<Descriptor>, to: String, path: String) -> Result<()> {
        store.with(|mut store| store.get().symlink_at(fd, to, path))
    }

    async fn unlink_file_at(store: &Accessor<U, Self>, fd: Resource<Descriptor>, path: String) -> Result<()> {
        store.with(|mut store| store.get().unlink_file_at(fd, path))
    }

    async fn is_same_object(
        store: &Accessor<U, Self>,
        fd: Resource<Descriptor>,
        other: Resource<Descriptor>,
    ) -> wasmtime::Result<bool> {
        store.with(|mut store| store.get().is_same_object(fd, other))
    }

    async fn metadata_hash(store: &Accessor<U, Self>, fd: Resource<Descriptor>) -> Result<MetadataHashValue> {
        store.with(|mut store| store.get().metadata_hash(fd)).map(Into::into)
    }

    async fn metadata_hash_at(
        store: &Accessor<U, Self>,
        fd: Resource<Descriptor>,
        flags: PathFlags,
        path: String,
    ) -> Result<MetadataHashValue> {
        store.with(|mut store| store.get().metadata_hash_at(fd, flags.into(), path)).map(Into::into)
    }
}

/// What is read of nothing.
fn ended<U: Send, T>(mut store: Access<'_, U, Files<'static>>, code: Code) -> wasmtime::Result<Reading<T>>
where
    T: wasmtime::component::Lower + wasmtime::component::Lift + Send + Sync + Unpin + 'static,
{
    let reader = StreamReader::new(&mut store, std::iter::empty())?;
    Ok((reader, FutureReader::new(&mut store, async move { wasmtime::error::Ok(Err(code.into())) })?))
}

fn write<U: Send>(
    mut store: Access<'_, U, Files<'static>>,
    fd: &Resource<Descriptor>,
    mut data: StreamReader<u8>,
    position: Option<Filesize>,
) -> wasmtime::Result<FutureReader<End>> {
    let (mut end, ended) = Ending::new();
    match store.get().writer(fd, position) {
        Ok(writer) => data.pipe(&mut store, Written { writer, end })?,
        Err(Failure::Code(code)) => {
            data.close(&mut store)?;
            end.tell(Err(code.into()));
        }
        Err(Failure::Trap(error)) => return Err(error),
    }
    FutureReader::new(&mut store, ended)
}

/// Reads a file from an offset on.
struct Reader {
    file: OpenFile,
    position: u64,
    end: Ending<ErrorCode>,
}

impl<D> StreamProducer<D> for Reader {
    type Item = u8;
    type Buffer = VecBuffer<u8>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut store: StoreContextMut<'a, D>,
        out: Destination<'a, u8, VecBuffer<u8>>,
        _: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        // It asks whether there is something to read.
        if out.remaining(&mut store) == Some(0) {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let mut out = out.as_direct(store, CHUNK);
        let space = out.remaining();
        let result = match self.file.read(space.len() as u64, self.position) {
            Ok(bytes) if bytes.is_empty() => StreamResult::Dropped,
            Ok(bytes) => {
                space[..bytes.len()].copy_from_slice(&bytes);
                out.mark_written(bytes.len());
                self.position += bytes.len() as u64;
                StreamResult::Completed
            }
            Err(code) => {
                self.end.tell(Err(code.into()));
                StreamResult::Dropped
            }
        };
        Poll::Ready(Ok(result))
    }
}

/// Writes what comes into a file.
struct Written {
    writer: Writer,
    end: Ending<ErrorCode>,
}

impl<D> StreamConsumer<D> for Written {
    type Item = u8;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        store: StoreContextMut<'_, D>,
        source: Source<'_, u8>,
        _: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let mut source = source.as_direct(store);
        let bytes = source.remaining();
        let length = bytes.len();
        let result = match self.writer.put(bytes) {
            Ok(()) => {
                source.mark_read(length);
                StreamResult::Completed
            }
            Err(code) => {
                self.end.tell(Err(code.into()));
                StreamResult::Dropped
            }
        };
        Poll::Ready(Ok(result))
    }
}

fn follows(flags: PathFlags) -> bool {
    flags.contains(PathFlags::SYMLINK_FOLLOW)
}

fn time(time: NewTimestamp) -> Result<Option<SystemTime>, Code> {
    match time {
        NewTimestamp::NoChange => Ok(None),
        NewTimestamp::Now => Ok(Some(SystemTime::now())),
        NewTimestamp::Timestamp(instant) => at(instant).map(Some).ok_or(Code::Overflow),
    }
}

fn at(Instant { seconds, nanoseconds }: Instant) -> Option<SystemTime> {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let second = if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    second?.checked_add(Duration::from_nanos(nanoseconds.into()))
}

fn instant(time: SystemTime) -> Option<Instant> {
    unix_time(time).map(|(seconds, nanoseconds)| Instant { seconds, nanoseconds })
}

fn told(stat: &Stat) -> DescriptorStat {
    DescriptorStat {
        type_: stat.kind.into(),
        link_count: stat.links,
        size: stat.size,
        data_access_timestamp: stat.accessed.and_then(instant),
        data_modification_timestamp: stat.modified.and_then(instant),
        status_change_timestamp: stat.changed.and_then(instant),
    }
}

impl From<Entry> for DirectoryEntry {
    fn from(entry: Entry) -> Self {
        DirectoryEntry { type_: entry.kind.into(), name: entry.name }
    }
}

impl From<p2::DescriptorType> for DescriptorType {
    fn from(kind: p2::DescriptorType) -> Self {
        use p2::DescriptorType as Kind;
        match kind {
            Kind::Unknown => DescriptorType::Other(None),
            Kind::BlockDevice => DescriptorType::BlockDevice,
            Kind::CharacterDevice => DescriptorType::CharacterDevice,
            Kind::Directory => DescriptorType::Directory,
            Kind::Fifo => DescriptorType::Fifo,
            Kind::SymbolicLink => DescriptorType::SymbolicLink,
            Kind::RegularFile => DescriptorType::RegularFile,
            Kind::Socket => DescriptorType::Socket,
        }
    }
}

impl From<Advice> for p2::Advice {
    fn from(advice: Advice) -> Self {
        match advice {
            Advice::Normal => p2::Advice::Normal,
            Advice::Sequential => p2::Advice::Sequential,
            Advice::Random => p2::Advice::Random,
            Advice::WillNeed => p2::Advice::WillNeed,
            Advice::DontNeed => p2::Advice::DontNeed,
            Advice::NoReuse => p2::Advice::NoReuse,
        }
    }
}

impl From<PathFlags> for p2::PathFlags {
    fn from(flags: PathFlags) -> Self {
        if follows(flags) { p2::PathFlags::SYMLINK_FOLLOW } else { p2::PathFlags::empty() }
    }
}

/// Each flag of a descriptor in both versions' words.
const FLAGS: [(DescriptorFlags, p2::DescriptorFlags); 6] = [
    (DescriptorFlags::READ, p2::DescriptorFlags::READ),
    (DescriptorFlags::WRITE, p2::DescriptorFlags::WRITE),
    (DescriptorFlags::FILE_INTEGRITY_SYNC, p2::DescriptorFlags::FILE_INTEGRITY_SYNC),
    (DescriptorFlags::DATA_INTEGRITY_SYNC, p2::DescriptorFlags::DATA_INTEGRITY_SYNC),
    (DescriptorFlags::REQUESTED_WRITE_SYNC, p2::DescriptorFlags::REQUESTED_WRITE_SYNC),
    (DescriptorFlags::MUTATE_DIRECTORY, p2::DescriptorFlags::MUTATE_DIRECTORY),
];

impl From<DescriptorFlags> for p2::DescriptorFlags {
    fn from(flags: DescriptorFlags) -> Self {
        let none = p2::DescriptorFlags::empty();
        FLAGS.into_iter().filter(|(new, _)| flags.contains(*new)).fold(none, |all, (_, old)| all | old)
    }
}

impl From<p2::DescriptorFlags> for DescriptorFlags {
    fn from(flags: p2::DescriptorFlags) -> Self {
        let none = DescriptorFlags::empty();
        FLAGS.into_iter().filter(|(_, old)| flags.contains(*old)).fold(none, |all, (new, _)| all | new)
    }
}

impl From<p2::MetadataHashValue> for MetadataHashValue {
    fn from(p2::MetadataHashValue { lower, upper }: p2::MetadataHashValue) -> Self {
        MetadataHashValue { lower, upper }
    }
}

impl From<Code> for ErrorCode {
    fn from(code: Code) -> Self {
        match code {
            Code::Access => ErrorCode::Access,
            // There is no word for it any more.
            Code::WouldBlock => ErrorCode::Other(Some("would-block".to_owned())),
            Code::Already => ErrorCode::Already,
            Code::BadDescriptor => ErrorCode::BadDescriptor,
            Code::Busy => ErrorCode::Busy,
            Code::Deadlock => ErrorCode::Deadlock,
            Code::Quota => ErrorCode::Quota,
            Code::Exist => ErrorCode::Exist,
            Code::FileTooLarge => ErrorCode::FileTooLarge,
            Code::IllegalByteSequence => ErrorCode::IllegalByteSequence,
            Code::InProgress => ErrorCode::InProgress,
            Code::Interrupted => ErrorCode::Interrupted,
            Code::Invalid => ErrorCode::Invalid,
            Code::Io => ErrorCode::Io,
            Code::IsDirectory => ErrorCode::IsDirectory,
            Code::Loop => ErrorCode::Loop,
            Code::TooManyLinks => ErrorCode::TooManyLinks,
            Code::MessageSize => ErrorCode::MessageSize,
            Code::NameTooLong => ErrorCode::NameTooLong,
            Code::NoDevice => ErrorCode::NoDevice,
            Code::NoEntry => ErrorCode::NoEntry,
            Code::NoLock => ErrorCode::NoLock,
            Code::InsufficientMemory => ErrorCode::InsufficientMemory,
            Code::InsufficientSpace => ErrorCode::InsufficientSpace,
            Code::NotDirectory => ErrorCode::NotDirectory,
            Code::NotEmpty => ErrorCode::NotEmpty,
            Code::NotRecoverable => ErrorCode::NotRecoverable,
            Code::Unsupported => ErrorCode::Unsupported,
            Code::NoTty => ErrorCode::NoTty,
            Code::NoSuchDevice => ErrorCode::NoSuchDevice,
            Code::Overflow => ErrorCode::Overflow,
            Code::NotPermitted => ErrorCode::NotPermitted,
            Code::Pipe => ErrorCode::Pipe,
            Code::ReadOnly => ErrorCode::ReadOnly,
            Code::InvalidSeek => ErrorCode::InvalidSeek,
            Code::TextFileBusy => ErrorCode::TextFileBusy,
            Code::CrossDevice => ErrorCode::CrossDevice,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_are_told_and_taken() {
        for (seconds, nanoseconds) in [(0, 0), (1, 5), (-1, 0), (-1, 999_999_999), (-2, 1), (1 << 40, 7)] {
            let time = at(Instant { seconds, nanoseconds }).unwrap();
            let back = instant(time).unwrap();
            assert_eq!((back.seconds, back.nanoseconds), (seconds, nanoseconds));
        }
        assert_eq!(at(Instant { seconds: -1, nanoseconds: 0 }), UNIX_EPOCH.checked_sub(Duration::from_secs(1)));
        assert!(at(Instant { seconds: i64::MAX, nanoseconds: u32::MAX }).is_none());
    }

    #[test]
    fn flags_are_the_same_in_both_versions() {
        let all = FLAGS.into_iter().fold(DescriptorFlags::empty(), |all, (new, _)| all | new);
        assert_eq!(DescriptorFlags::from(p2::DescriptorFlags::from(all)), all);
        let one = p2::DescriptorFlags::MUTATE_DIRECTORY;
        assert_eq!(p2::DescriptorFlags::from(DescriptorFlags::from(one)), one);
    }
}
