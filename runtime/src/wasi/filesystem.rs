//! `wasi:filesystem` on the [vfs](super::vfs).
//!
//! A guest has its process to itself, so every call does its work at once, on the guest's own thread; streams are ready
//! whenever they are asked.

pub(crate) mod p3;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use wasmtime::component::{HasData, Resource, ResourceTable, ResourceTableError};
use wasmtime_wasi::p2::bindings::clocks::wall_clock::Datetime;
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::{
    DynInputStream, DynOutputStream, Error as StreamFailure, InputStream, OutputStream, StreamError, StreamResult,
};

use super::bindings::types::{
    Advice, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry, Filesize, MetadataHashValue, NewTimestamp,
    OpenFlags, PathFlags,
};
use super::bindings::{preopens, types};
use super::vfs::{Code, Directory, Entry, How, OpenFile, Opened, Stat};
use crate::linux::files;

/// The most that an output stream takes at once.
const MOST_WRITTEN: usize = 1 << 20;

/// A directory that the guest begins with, and its name there.
pub(crate) type Preopen = (Directory, String);

/// What the host functions work on.
pub(crate) struct Files<'a> {
    /// The directories.
    pub(crate) preopens: &'a [Preopen],
    /// Where the guest's resources are.
    pub(crate) table: &'a mut ResourceTable,
}

/// A store's data that has them.
pub(crate) trait FilesView {
    /// What the host functions work on.
    fn files(&mut self) -> Files<'_>;
}

impl HasData for Files<'static> {
    type Data<'a> = Files<'a>;
}

/// What a guest holds: an open file or directory, and how it was opened.
#[derive(Debug, Clone)]
pub struct Descriptor {
    what: What,
    flags: DescriptorFlags,
}

#[derive(Debug, Clone)]
enum What {
    File(OpenFile),
    Directory(Directory),
}

impl Descriptor {
    /// A directory to begin with.
    fn begin(directory: Directory) -> Descriptor {
        let changing = if directory.is_read_only() { none() } else { DescriptorFlags::MUTATE_DIRECTORY };
        Descriptor { what: What::Directory(directory), flags: DescriptorFlags::READ | changing }
    }

    /// The file. Calls for files alone have no word for a directory.
    fn file(&self) -> Result<&OpenFile, Code> {
        match &self.what {
            What::File(file) => Ok(file),
            What::Directory(_) => Err(Code::BadDescriptor),
        }
    }

    fn directory(&self) -> Result<&Directory, Code> {
        match &self.what {
            What::Directory(directory) => Ok(directory),
            What::File(_) => Err(Code::NotDirectory),
        }
    }

    fn stat(&self) -> Result<Stat, Code> {
        match &self.what {
            What::File(file) => file.stat(),
            What::Directory(directory) => directory.stat(),
        }
    }

    fn sync(&self, all: bool) -> Result<(), Code> {
        match &self.what {
            What::File(file) => file.sync(all),
            What::Directory(directory) => directory.sync(),
        }
    }
}

/// A directory's names, as they were when it was asked for them.
pub struct Listing(std::vec::IntoIter<Entry>);

/// Why a call failed: in a way that the guest is told, or for good.
#[derive(Debug)]
pub enum Failure {
    /// The guest's to handle.
    Code(Code),
    /// A handle that is none.
    Trap(wasmtime::Error),
}

impl From<Code> for Failure {
    fn from(code: Code) -> Self {
        Failure::Code(code)
    }
}

impl From<ResourceTableError> for Failure {
    fn from(error: ResourceTableError) -> Self {
        Failure::Trap(error.into())
    }
}

type Result<T, E = Failure> = std::result::Result<T, E>;

impl Files<'_> {
    fn open(
        &mut self,
        fd: &Resource<Descriptor>,
        path: &str,
        how: How,
        flags: DescriptorFlags,
    ) -> Result<Resource<Descriptor>> {
        let descriptor = match self.table.get(fd)?.directory()?.open(path, how)? {
            Opened::File(file) => {
                let read = if file.is_readable() { DescriptorFlags::READ } else { none() };
                let write = if file.is_writable() { DescriptorFlags::WRITE } else { none() };
                Descriptor { what: What::File(file), flags: read | write | (flags & durable()) }
            }
            Opened::Directory(directory) => {
                let flags = DescriptorFlags::READ | (flags & DescriptorFlags::MUTATE_DIRECTORY);
                Descriptor { what: What::Directory(directory), flags }
            }
        };
        Ok(self.table.push(descriptor)?)
    }

    fn writer(&self, fd: &Resource<Descriptor>, position: Option<u64>) -> Result<Writer> {
        let descriptor = self.table.get(fd)?;
        let file = descriptor.file()?.clone();
        if !file.is_writable() {
            return Err(Code::BadDescriptor.into());
        }
        Ok(Writer { file, position, durable: is_durable(descriptor.flags), failed: false })
    }

    fn output(&mut self, fd: &Resource<Descriptor>, position: Option<u64>) -> Result<Resource<DynOutputStream>> {
        let writer = self.writer(fd, position)?;
        Ok(self.table.push(Box::new(writer) as DynOutputStream)?)
    }

    fn set_both_times(
        &mut self,
        fd: &Resource<Descriptor>,
        accessed: Option<SystemTime>,
        modified: Option<SystemTime>,
    ) -> Result<()> {
        match &mut self.table.get_mut(fd)?.what {
            What::File(file) => file.set_times(accessed, modified)?,
            What::Directory(directory) => directory.set_times(accessed, modified)?,
        }
        Ok(())
    }
}

impl preopens::Host for Files<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        let mut answer = Vec::with_capacity(self.preopens.len());
        for (directory, name) in self.preopens {
            answer.push((self.table.push(Descriptor::begin(directory.clone()))?, name.clone()));
        }
        Ok(answer)
    }
}

impl types::Host for Files<'_> {
    fn convert_error_code(&mut self, failure: Failure) -> wasmtime::Result<Code> {
        match failure {
            Failure::Code(code) => Ok(code),
            Failure::Trap(error) => Err(error),
        }
    }

    fn filesystem_error_code(&mut self, error: Resource<StreamFailure>) -> wasmtime::Result<Option<Code>> {
        let error = self.table.get(&error)?;
        let io = || error.downcast_ref::<std::io::Error>().map(Code::from);
        Ok(error.downcast_ref::<Code>().copied().or_else(io))
    }
}

impl types::HostDescriptor for Files<'_> {
    fn read_via_stream(&mut self, fd: Resource<Descriptor>, offset: Filesize) -> Result<Resource<DynInputStream>> {
        let file = match &self.table.get(&fd)?.what {
            What::File(file) if file.is_readable() => file.clone(),
            What::File(_) => return Err(Code::BadDescriptor.into()),
            What::Directory(_) => return Err(Code::IsDirectory.into()),
        };
        Ok(self.table.push(Box::new(Reader { file, position: offset }) as DynInputStream)?)
    }

    fn write_via_stream(&mut self, fd: Resource<Descriptor>, offset: Filesize) -> Result<Resource<DynOutputStream>> {
        self.output(&fd, Some(offset))
    }

    fn append_via_stream(&mut self, fd: Resource<Descriptor>) -> Result<Resource<DynOutputStream>> {
        self.output(&fd, None)
    }

    fn advise(&mut self, fd: Resource<Descriptor>, offset: Filesize, length: Filesize, advice: Advice) -> Result<()> {
        let advice = match advice {
            Advice::Normal => files::Advice::Normal,
            Advice::Sequential => files::Advice::Sequential,
            Advice::Random => files::Advice::Random,
            Advice::WillNeed => files::Advice::WillNeed,
            Advice::DontNeed => files::Advice::DontNeed,
            Advice::NoReuse => files::Advice::NoReuse,
        };
        Ok(self.table.get(&fd)?.file()?.advise(offset, length, advice)?)
    }

    fn sync_data(&mut self, fd: Resource<Descriptor>) -> Result<()> {
        Ok(self.table.get(&fd)?.sync(false)?)
    }

    fn sync(&mut self, fd: Resource<Descriptor>) -> Result<()> {
        Ok(self.table.get(&fd)?.sync(true)?)
    }

    fn get_flags(&mut self, fd: Resource<Descriptor>) -> Result<DescriptorFlags> {
        Ok(self.table.get(&fd)?.flags)
    }

    fn get_type(&mut self, fd: Resource<Descriptor>) -> Result<DescriptorType> {
        match &self.table.get(&fd)?.what {
            What::File(file) => Ok(file.stat()?.kind),
            What::Directory(_) => Ok(DescriptorType::Directory),
        }
    }

    fn set_size(&mut self, fd: Resource<Descriptor>, size: Filesize) -> Result<()> {
        Ok(self.table.get(&fd)?.file()?.set_size(size)?)
    }

    fn set_times(&mut self, fd: Resource<Descriptor>, accessed: NewTimestamp, modified: NewTimestamp) -> Result<()> {
        let (accessed, modified) = (time(accessed)?, time(modified)?);
        self.set_both_times(&fd, accessed, modified)
    }

    fn read(&mut self, fd: Resource<Descriptor>, length: Filesize, offset: Filesize) -> Result<(Vec<u8>, bool)> {
        let bytes = self.table.get(&fd)?.file()?.read(length, offset)?;
        let end = bytes.is_empty() && length > 0;
        Ok((bytes, end))
    }

    fn write(&mut self, fd: Resource<Descriptor>, bytes: Vec<u8>, offset: Filesize) -> Result<Filesize> {
        let descriptor = self.table.get(&fd)?;
        let written = descriptor.file()?.write(&bytes, offset)?;
        if is_durable(descriptor.flags) {
            descriptor.sync(true)?;
        }
        Ok(written as Filesize)
    }

    fn read_directory(&mut self, fd: Resource<Descriptor>) -> Result<Resource<Listing>> {
        let entries = self.table.get(&fd)?.directory()?.entries()?;
        Ok(self.table.push(Listing(entries.into_iter()))?)
    }

    fn create_directory_at(&mut self, fd: Resource<Descriptor>, path: String) -> Result<()> {
        Ok(self.table.get(&fd)?.directory()?.create_dir(&path)?)
    }

    fn stat(&mut self, fd: Resource<Descriptor>) -> Result<DescriptorStat> {
        Ok(told(&self.table.get(&fd)?.stat()?))
    }

    fn stat_at(&mut self, fd: Resource<Descriptor>, flags: PathFlags, path: String) -> Result<DescriptorStat> {
        Ok(told(&self.table.get(&fd)?.directory()?.stat_at(&path, follows(flags))?))
    }

    fn set_times_at(
        &mut self,
        fd: Resource<Descriptor>,
        flags: PathFlags,
        path: String,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> Result<()> {
        let directory = self.table.get(&fd)?.directory()?;
        Ok(directory.set_times_at(&path, follows(flags), time(accessed)?, time(modified)?)?)
    }

    fn link_at(
        &mut self,
        fd: Resource<Descriptor>,
        flags: PathFlags,
        path: String,
        new_fd: Resource<Descriptor>,
        new: String,
    ) -> Result<()> {
        let (old_directory, new_directory) = (self.table.get(&fd)?.directory()?, self.table.get(&new_fd)?.directory()?);
        // Not every system can link to where a symlink leads, so none does.
        if follows(flags) {
            return Err(Code::Invalid.into());
        }
        Ok(old_directory.link(&path, false, new_directory, &new)?)
    }

    fn open_at(
        &mut self,
        fd: Resource<Descriptor>,
        path_flags: PathFlags,
        path: String,
        open_flags: OpenFlags,
        flags: DescriptorFlags,
    ) -> Result<Resource<Descriptor>> {
        let how = How {
            follow: follows(path_flags),
            create: open_flags.contains(OpenFlags::CREATE),
            exclusive: open_flags.contains(OpenFlags::EXCLUSIVE),
            truncate: open_flags.contains(OpenFlags::TRUNCATE),
            directory: open_flags.contains(OpenFlags::DIRECTORY),
            read: flags.contains(DescriptorFlags::READ),
            write: flags.contains(DescriptorFlags::WRITE),
        };
        self.open(&fd, &path, how, flags)
    }

    fn readlink_at(&mut self, fd: Resource<Descriptor>, path: String) -> Result<String> {
        Ok(self.table.get(&fd)?.directory()?.read_link(&path)?)
    }

    fn remove_directory_at(&mut self, fd: Resource<Descriptor>, path: String) -> Result<()> {
        Ok(self.table.get(&fd)?.directory()?.remove_dir(&path)?)
    }

    fn rename_at(
        &mut self,
        fd: Resource<Descriptor>,
        path: String,
        new_fd: Resource<Descriptor>,
        new: String,
    ) -> Result<()> {
        let (old_directory, new_directory) = (self.table.get(&fd)?.directory()?, self.table.get(&new_fd)?.directory()?);
        Ok(old_directory.rename(&path, new_directory, &new)?)
    }

    fn symlink_at(&mut self, fd: Resource<Descriptor>, to: String, path: String) -> Result<()> {
        Ok(self.table.get(&fd)?.directory()?.symlink(&to, &path)?)
    }

    fn unlink_file_at(&mut self, fd: Resource<Descriptor>, path: String) -> Result<()> {
        Ok(self.table.get(&fd)?.directory()?.unlink(&path)?)
    }

    fn is_same_object(&mut self, fd: Resource<Descriptor>, other: Resource<Descriptor>) -> wasmtime::Result<bool> {
        let identity = |fd| self.table.get(fd).map(|held: &Descriptor| held.stat().map(|stat| stat.identity));
        let (one, other) = (identity(&fd)?, identity(&other)?);
        Ok(matches!((one, other), (Ok(one), Ok(other)) if one == other))
    }

    fn metadata_hash(&mut self, fd: Resource<Descriptor>) -> Result<MetadataHashValue> {
        Ok(hash(self.table.get(&fd)?.stat()?.identity))
    }

    fn metadata_hash_at(
        &mut self,
        fd: Resource<Descriptor>,
        flags: PathFlags,
        path: String,
    ) -> Result<MetadataHashValue> {
        Ok(hash(self.table.get(&fd)?.directory()?.stat_at(&path, follows(flags))?.identity))
    }

    fn drop(&mut self, fd: Resource<Descriptor>) -> wasmtime::Result<()> {
        self.table.delete(fd)?;
        Ok(())
    }
}

impl types::HostDirectoryEntryStream for Files<'_> {
    fn read_directory_entry(&mut self, listing: Resource<Listing>) -> Result<Option<DirectoryEntry>> {
        let next = self.table.get_mut(&listing)?.0.next();
        Ok(next.map(|entry| DirectoryEntry { type_: entry.kind, name: entry.name }))
    }

    fn drop(&mut self, listing: Resource<Listing>) -> wasmtime::Result<()> {
        self.table.delete(listing)?;
        Ok(())
    }
}

fn follows(flags: PathFlags) -> bool {
    flags.contains(PathFlags::SYMLINK_FOLLOW)
}

fn none() -> DescriptorFlags {
    DescriptorFlags::empty()
}

/// The flags that ask for writes to be on the disk when they return.
fn durable() -> DescriptorFlags {
    DescriptorFlags::FILE_INTEGRITY_SYNC | DescriptorFlags::DATA_INTEGRITY_SYNC | DescriptorFlags::REQUESTED_WRITE_SYNC
}

fn is_durable(flags: DescriptorFlags) -> bool {
    flags & durable() != none()
}

fn time(time: NewTimestamp) -> Result<Option<SystemTime>, Code> {
    match time {
        NewTimestamp::NoChange => Ok(None),
        NewTimestamp::Now => Ok(Some(SystemTime::now())),
        NewTimestamp::Timestamp(Datetime { seconds, nanoseconds }) => {
            let since = Duration::from_secs(seconds).checked_add(Duration::from_nanos(nanoseconds.into()));
            since.and_then(|since| UNIX_EPOCH.checked_add(since)).map(Some).ok_or(Code::Overflow)
        }
    }
}

/// A time as WASI says it, which knows none before 1970.
fn datetime(time: SystemTime) -> Option<Datetime> {
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    Some(Datetime { seconds: since.as_secs(), nanoseconds: since.subsec_nanos() })
}

fn told(stat: &Stat) -> DescriptorStat {
    DescriptorStat {
        type_: stat.kind,
        link_count: stat.links,
        size: stat.size,
        data_access_timestamp: stat.accessed.and_then(datetime),
        data_modification_timestamp: stat.modified.and_then(datetime),
        status_change_timestamp: stat.changed.and_then(datetime),
    }
}

/// What makes a file itself, in 128 bits. C libraries take one half for the inode's number, so it must not change with
/// the content; the bits of the host's own numbers are mixed, so that they do not tell them (the finalizer of
/// MurmurHash3, <https://github.com/aappleby/smhasher>).
fn hash((device, inode): (u64, u64)) -> MetadataHashValue {
    let mix = |mut bits: u64| {
        bits = (bits ^ bits >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        bits = (bits ^ bits >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        bits ^ bits >> 33
    };
    let lower = mix(inode ^ mix(device.wrapping_add(0x9e37_79b9_7f4a_7c15)));
    MetadataHashValue { lower, upper: mix(lower ^ device) }
}

/// Reads a file from an offset on.
struct Reader {
    file: OpenFile,
    position: u64,
}

#[wasmtime_wasi::async_trait]
impl Pollable for Reader {
    async fn ready(&mut self) {}
}

#[wasmtime_wasi::async_trait]
impl InputStream for Reader {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if size == 0 {
            return Ok(Bytes::new());
        }
        let bytes =
            self.file.read(size as u64, self.position).map_err(|code| StreamError::LastOperationFailed(code.into()))?;
        if bytes.is_empty() {
            return Err(StreamError::Closed);
        }
        self.position += bytes.len() as u64;
        Ok(bytes.into())
    }

    async fn blocking_read(&mut self, size: usize) -> StreamResult<Bytes> {
        self.read(size)
    }
}

/// Writes to a file from an offset on, or always at its end.
struct Writer {
    file: OpenFile,
    position: Option<u64>,
    durable: bool,
    /// A write failed: there is nothing more to write to.
    failed: bool,
}

impl Writer {
    fn put(&mut self, mut bytes: &[u8]) -> Result<(), Code> {
        while !bytes.is_empty() {
            let written = match &mut self.position {
                Some(position) => {
                    let written = self.file.write(bytes, *position)?;
                    *position += written as u64;
                    written
                }
                None => self.file.append(bytes)?,
            };
            bytes = &bytes[written..];
        }
        if self.durable { self.file.sync(true) } else { Ok(()) }
    }

    fn open(&self) -> StreamResult<()> {
        if self.failed { Err(StreamError::Closed) } else { Ok(()) }
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Writer {
    async fn ready(&mut self) {}
}

#[wasmtime_wasi::async_trait]
impl OutputStream for Writer {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.open()?;
        self.put(&bytes).map_err(|code| {
            self.failed = true;
            StreamError::LastOperationFailed(code.into())
        })
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.open()
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.open().map(|()| MOST_WRITTEN)
    }

    async fn blocking_write_and_flush(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.write(bytes)
    }
}
