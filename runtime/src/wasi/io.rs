//! `wasi:io` 0.2: streams and polling.
//!
//! The streams are wasmtime-wasi's but for those of sockets, which are ours and lie in the guest's table as they are. What
//! belongs to a socket is polled without a future: a server asks for all its connections before each answer, and memory
//! taken for each of them would cost more than the answer.

use std::any::Any;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use wasmtime::component::{HasData, Linker, Resource, ResourceTable, ResourceTableError, WasmList};
use wasmtime::{Result, StoreContextMut};
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, DynPollable, InputStream, OutputStream, Pollable, StreamError, StreamResult,
};
use wasmtime_wasi_io::bindings::wasi::io::streams::{Host as _, HostInputStream as _, HostOutputStream as _};
use wasmtime_wasi_io::bindings::wasi::io::{error, poll, streams};

use super::clocks::Timer;
use super::eager::Waits;
use super::sockets::{GuestOutput, Input};
use crate::network::Question;

/// What can be asked whether it is ready, and tells when it is.
pub(super) trait Ready: Pollable {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Asks the kernel too, where it knows whether this is ready. False where only the event loop does.
    fn ask(&self, _owner: u32, _question: &mut Question) -> bool {
        false
    }

    /// When it is ready whatever the kernel says.
    fn at(&self) -> Option<Instant> {
        None
    }

    /// True if it is ready when the kernel says so.
    fn confirm(&mut self) -> bool {
        true
    }
}

/// For asking whether something is ready, without being told later.
pub(super) fn at_once() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// A pollable of something that is [`Ready`]. (A [`Timer`] is its own.)
#[derive(Clone, Copy)]
struct Watch {
    of: u32,
    kind: fn(&mut dyn Any) -> Option<&mut dyn Ready>,
    /// Gives wasmtime-wasi's pollable for the same, for being polled together with what is not ours.
    other: fn(&mut ResourceTable, u32) -> Result<Resource<DynPollable>>,
}

impl Watch {
    fn new<T: Ready>(of: u32) -> Self {
        Watch {
            of,
            kind: |of| of.downcast_mut::<T>().map(|of| of as _),
            other: |table, of| wasmtime_wasi::p2::subscribe(table, Resource::<T>::new_borrow(of)),
        }
    }
}

/// Gives a pollable for what lies in the table.
///
/// # Errors
/// When it does not, or the table is full.
pub(super) fn subscribe<T: Ready>(table: &mut ResourceTable, of: &Resource<T>) -> Result<Resource<DynPollable>> {
    let watch = table.push_child(Watch::new::<T>(of.rep()), of)?;
    Ok(Resource::new_own(watch.rep()))
}

/// How a guest goes on from one poll to the next, if it has its process to itself.
#[derive(Default)]
pub(crate) struct Pace {
    waits: Waits,
    /// So many polls since the event loop had a turn.
    polls: u32,
}

/// The kernel is asked about so many at once. Of more it is better to hear from the event loop, which is told of those
/// that are ready.
const ASKED: usize = 32;

/// After so many polls the event loop has a turn, even if something was always ready: it brings out what was written.
const TURN: u32 = 64;

/// How far a poll has come.
enum Begun {
    /// These are ready.
    Ready(Vec<u32>),
    /// None is, or nobody knows before the event loop has had its turn.
    Waiting(Vec<Watch>),
    /// Some of these are not ours.
    WithOthers(Vec<Resource<DynPollable>>),
}

/// What streams and polling need: the guest's resources, and its pace.
pub(crate) struct Io<'a> {
    pub table: &'a mut ResourceTable,
    pub pace: Option<&'a mut Pace>,
}

/// Whose host functions have streams and polling.
pub(crate) trait HasIo: Send + 'static {
    fn io(&mut self) -> Io<'_>;

    fn table(&self) -> &ResourceTable;
}

struct Data;

impl HasData for Data {
    type Data<'a> = Io<'a>;
}

/// Gives `linker` the interfaces.
///
/// # Errors
/// When one is there already.
pub(super) fn add_to_linker<T: HasIo>(linker: &mut Linker<T>) -> Result<()> {
    error::add_to_linker::<T, Data>(linker, T::io)?;
    poll::add_to_linker::<T, Data>(linker, T::io)?;
    streams::add_to_linker::<T, Data>(linker, T::io)?;
    linker.allow_shadowing(true);
    linker.instance(POLLING)?.func_wrap_async(POLL, poll)?;
    let mut streams = linker.instance(STREAMS)?;
    streams.func_wrap(READ, read)?;
    streams.func_wrap(WRITE, write)?;
    linker.allow_shadowing(false);
    Ok(())
}

// What every request of a server calls. What `bindgen!` makes of these takes memory, copies or makes a future before it
// calls anything.
const POLLING: &str = "wasi:io/poll@0.2.12";
const POLL: &str = "poll";
const STREAMS: &str = "wasi:io/streams@0.2.12";
const READ: &str = "[method]input-stream.read";
const WRITE: &str = "[method]output-stream.write";

type Polled<'a> = Box<dyn Future<Output = Result<(Vec<u32>,)>> + Send + 'a>;
type Read = std::result::Result<Vec<u8>, streams::StreamError>;
type Written = std::result::Result<(), streams::StreamError>;

/// `poll`. Most have their answer at once.
fn poll<T: HasIo>(mut store: StoreContextMut<'_, T>, (pollables,): (Vec<Resource<DynPollable>>,)) -> Polled<'_> {
    match store.data_mut().io().begin(pollables) {
        Ok(Begun::Ready(ready)) => Box::new(std::future::ready(Ok((ready,)))),
        begun => Box::new(async move { Ok((store.data_mut().io().go_on(begun?).await?,)) }),
    }
}

/// `input-stream.read`.
fn read<T: HasIo>(mut store: StoreContextMut<'_, T>, (this, most): (Resource<DynInputStream>, u64)) -> Result<(Read,)> {
    let mut io = store.data_mut().io();
    let read = match io.table.get_mut(&Resource::<Input>::new_borrow(this.rep())) {
        Ok(input) => input.read_to(size(most)),
        Err(_) => io.read(this, most),
    };
    match read {
        Ok(bytes) => Ok((Ok(bytes),)),
        Err(e) => Ok((Err(io.convert_stream_error(e)?),)),
    }
}

/// `output-stream.write`. A socket takes most bytes where they are.
fn write<T: HasIo>(
    mut store: StoreContextMut<'_, T>,
    (this, bytes): (Resource<DynOutputStream>, WasmList<u8>),
) -> Result<(Written,)> {
    let socket = Resource::<GuestOutput>::new_borrow(this.rep());
    let written = match store.data().table().get(&socket) {
        Ok(output) => output.write_from(bytes.as_le_slice(&store)),
        Err(_) => {
            let bytes = bytes.as_le_slice(&store).to_vec();
            store.data_mut().io().write(this, bytes)
        }
    };
    match written {
        Ok(()) => Ok((Ok(()),)),
        Err(e) => Ok((Err(store.data_mut().io().convert_stream_error(e)?),)),
    }
}

impl Io<'_> {
    fn watch(&mut self, pollable: &Resource<DynPollable>) -> Result<Option<Watch>> {
        let entry = self.table.get_any_mut(pollable.rep())?;
        let timer = || entry.is::<Timer>().then(|| Watch::new::<Timer>(pollable.rep()));
        Ok(entry.downcast_ref().copied().or_else(timer))
    }

    fn watched(&mut self, watch: Watch) -> Result<&mut dyn Ready> {
        Ok((watch.kind)(self.table.get_any_mut(watch.of)?).ok_or(ResourceTableError::WrongType)?)
    }

    fn poll_one(&mut self, watch: Watch, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match self.watched(watch) {
            Ok(of) => of.poll_ready(cx).map(Ok),
            Err(e) => Poll::Ready(Err(e)),
        }
    }

    /// Those that are ready. Pending: none is.
    fn poll_all(&mut self, watches: &[Watch], cx: &mut Context<'_>) -> Poll<Result<Vec<u32>>> {
        let mut ready = Vec::new();
        for (n, watch) in watches.iter().enumerate() {
            match self.poll_one(*watch, cx) {
                Poll::Ready(Ok(())) => ready.push(n as u32),
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => {}
            }
        }
        if ready.is_empty() { Poll::Pending } else { Poll::Ready(Ok(ready)) }
    }

    /// Polls as far as nobody else need have a turn.
    fn begin(&mut self, pollables: Vec<Resource<DynPollable>>) -> Result<Begun> {
        let mut watches = Vec::with_capacity(pollables.len());
        for pollable in &pollables {
            watches.extend(self.watch(pollable)?);
        }
        if watches.is_empty() || watches.len() < pollables.len() {
            return Ok(Begun::WithOthers(pollables));
        }
        Ok(self.try_poll(&watches)?.map_or(Begun::Waiting(watches), Begun::Ready))
    }

    async fn go_on(&mut self, begun: Begun) -> Result<Vec<u32>> {
        match begun {
            Begun::Ready(ready) => Ok(ready),
            Begun::Waiting(watches) => self.wait(&watches).await,
            Begun::WithOthers(pollables) => self.poll_with_others(pollables).await,
        }
    }

    /// Those that are ready, if it is not the event loop's turn. None: [wait](Io::wait).
    fn try_poll(&mut self, watches: &[Watch]) -> Result<Option<Vec<u32>>> {
        if let Some(pace) = &mut self.pace {
            pace.polls += 1;
            if pace.polls > TURN {
                return Ok(None);
            }
        }
        self.ask(watches)
    }

    /// Those that are ready, as soon as some are.
    async fn wait(&mut self, watches: &[Watch]) -> Result<Vec<u32>> {
        if let Some(pace) = self.pace.as_mut().filter(|pace| pace.polls > TURN) {
            pace.polls = 0;
            tokio::task::yield_now().await;
            if let Some(ready) = self.ask(watches)? {
                return Ok(ready);
            }
        }
        let ready = poll_fn(|cx| self.poll_all(watches, cx)).await;
        self.waits(|waits| waits.end(Instant::now));
        ready
    }

    /// Those that the kernel says are ready now, or in a moment for which the guest waits awake. To ask it costs less than
    /// to hear of it from the event loop. None: it does not know, or it takes longer.
    fn ask(&mut self, watches: &[Watch]) -> Result<Option<Vec<u32>>> {
        if watches.len() > ASKED || self.pace.is_none() {
            return Ok(None);
        }
        let mut question = Question::with_capacity(watches.len() + 1);
        let mut times = Vec::new();
        for (n, watch) in watches.iter().enumerate() {
            let of = self.watched(*watch)?;
            if !of.ask(n as u32, &mut question) {
                return Ok(None);
            }
            times.extend(of.at().map(|at| (at, n as u32)));
        }
        if question.is_empty() {
            return Ok(None);
        }
        let mut ready = self.answer(&mut question, &times, watches);
        if ready.is_empty() {
            self.waits(|waits| waits.begin(Instant::now()));
        }
        while ready.is_empty() && self.waits(|waits| waits.is_awake(Instant::now)) == Some(true) {
            std::thread::yield_now();
            ready = self.answer(&mut question, &times, watches);
        }
        if ready.is_empty() {
            return Ok(None);
        }
        self.waits(|waits| waits.end(Instant::now));
        Ok(Some(ready))
    }

    fn answer(&mut self, question: &mut Question, times: &[(Instant, u32)], watches: &[Watch]) -> Vec<u32> {
        let mut ready = question.ask();
        ready.retain(|n| self.watched(watches[*n as usize]).is_ok_and(Ready::confirm));
        if !times.is_empty() {
            let now = Instant::now();
            ready.extend(times.iter().filter(|(at, _)| *at <= now).map(|(_, n)| n));
        }
        ready
    }

    /// The same where some are not ours.
    async fn poll_with_others(&mut self, mut pollables: Vec<Resource<DynPollable>>) -> Result<Vec<u32>> {
        let mut made = Vec::new();
        for pollable in &mut pollables {
            if let Some(watch) = self.watch(pollable)? {
                let other = (watch.other)(self.table, watch.of)?;
                *pollable = Resource::new_borrow(other.rep());
                made.push(other);
            }
        }
        let ready = poll::Host::poll(self.table, pollables).await;
        for other in made {
            poll::HostPollable::drop(self.table, other)?;
        }
        ready
    }

    fn waits<T>(&mut self, call: impl FnOnce(&mut Waits) -> T) -> Option<T> {
        self.pace.as_mut().map(|pace| call(&mut pace.waits))
    }

    fn input(&mut self, stream: &Resource<DynInputStream>) -> StreamResult<&mut dyn InputStream> {
        let entry = self.table.get_any_mut(stream.rep())?;
        if entry.is::<Input>() {
            return Ok(entry.downcast_mut::<Input>().ok_or(ResourceTableError::WrongType)?);
        }
        Ok(&mut **entry.downcast_mut::<DynInputStream>().ok_or(ResourceTableError::WrongType)?)
    }

    fn output(&mut self, stream: &Resource<DynOutputStream>) -> StreamResult<&mut dyn OutputStream> {
        let entry = self.table.get_any_mut(stream.rep())?;
        if entry.is::<GuestOutput>() {
            return Ok(entry.downcast_mut::<GuestOutput>().ok_or(ResourceTableError::WrongType)?);
        }
        Ok(&mut **entry.downcast_mut::<DynOutputStream>().ok_or(ResourceTableError::WrongType)?)
    }

    /// Gives a pollable for a stream, which is ours if it is a socket's.
    fn subscribe<Ours: Ready, Theirs: Pollable>(&mut self, this: Resource<Theirs>) -> Result<Resource<DynPollable>> {
        match self.table.get_any_mut(this.rep())?.is::<Ours>() {
            true => subscribe(self.table, &Resource::<Ours>::new_borrow(this.rep())),
            false => wasmtime_wasi::p2::subscribe(self.table, this),
        }
    }
}

/// The most that the calls take which write, and wait until it is out.
const BLOCKING: u64 = 4096;

impl error::Host for Io<'_> {}

impl error::HostError for Io<'_> {
    fn to_debug_string(&mut self, this: Resource<error::Error>) -> Result<String> {
        self.table.to_debug_string(this)
    }

    fn drop(&mut self, this: Resource<error::Error>) -> Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl poll::Host for Io<'_> {
    async fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> Result<Vec<u32>> {
        let begun = self.begin(pollables)?;
        self.go_on(begun).await
    }
}

impl poll::HostPollable for Io<'_> {
    async fn ready(&mut self, this: Resource<DynPollable>) -> Result<bool> {
        match self.watch(&this)? {
            Some(watch) => match self.poll_one(watch, &mut at_once()) {
                Poll::Ready(asked) => asked.map(|()| true),
                Poll::Pending => Ok(false),
            },
            None => self.table.ready(this).await,
        }
    }

    async fn block(&mut self, this: Resource<DynPollable>) -> Result<()> {
        match self.watch(&this)? {
            Some(watch) => match self.try_poll(&[watch])? {
                Some(_) => Ok(()),
                None => self.wait(&[watch]).await.map(drop),
            },
            None => self.table.block(this).await,
        }
    }

    fn drop(&mut self, this: Resource<DynPollable>) -> Result<()> {
        let entry = self.table.get_any_mut(this.rep())?;
        if entry.is::<Timer>() {
            self.table.delete(Resource::<Timer>::new_own(this.rep()))?;
        } else if entry.is::<Watch>() {
            self.table.delete(Resource::<Watch>::new_own(this.rep()))?;
        } else {
            poll::HostPollable::drop(self.table, this)?;
        }
        Ok(())
    }
}

impl streams::Host for Io<'_> {
    fn convert_stream_error(&mut self, error: StreamError) -> Result<streams::StreamError> {
        self.table.convert_stream_error(error)
    }
}

impl streams::HostInputStream for Io<'_> {
    fn read(&mut self, this: Resource<DynInputStream>, most: u64) -> StreamResult<Vec<u8>> {
        Ok(self.input(&this)?.read(size(most))?.into())
    }

    async fn blocking_read(&mut self, this: Resource<DynInputStream>, most: u64) -> StreamResult<Vec<u8>> {
        Ok(self.input(&this)?.blocking_read(size(most)).await?.into())
    }

    fn skip(&mut self, this: Resource<DynInputStream>, most: u64) -> StreamResult<u64> {
        Ok(self.input(&this)?.skip(size(most))? as u64)
    }

    async fn blocking_skip(&mut self, this: Resource<DynInputStream>, most: u64) -> StreamResult<u64> {
        Ok(self.input(&this)?.blocking_skip(size(most)).await? as u64)
    }

    fn subscribe(&mut self, this: Resource<DynInputStream>) -> Result<Resource<DynPollable>> {
        Io::subscribe::<Input, _>(self, this)
    }

    async fn drop(&mut self, this: Resource<DynInputStream>) -> Result<()> {
        match self.table.get_any_mut(this.rep())?.is::<Input>() {
            true => self.table.delete(Resource::<Input>::new_own(this.rep())).map(drop)?,
            false => self.table.delete(this)?.cancel().await,
        }
        Ok(())
    }
}

impl streams::HostOutputStream for Io<'_> {
    fn check_write(&mut self, this: Resource<DynOutputStream>) -> StreamResult<u64> {
        Ok(self.output(&this)?.check_write()? as u64)
    }

    fn write(&mut self, this: Resource<DynOutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        self.output(&this)?.write(bytes.into())
    }

    async fn blocking_write_and_flush(&mut self, this: Resource<DynOutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        if bytes.len() as u64 > BLOCKING {
            return Err(StreamError::trap("blocking-write-and-flush takes no more than 4096 bytes"));
        }
        self.output(&this)?.blocking_write_and_flush(bytes.into()).await
    }

    fn write_zeroes(&mut self, this: Resource<DynOutputStream>, length: u64) -> StreamResult<()> {
        self.output(&this)?.write_zeroes(size(length))
    }

    async fn blocking_write_zeroes_and_flush(
        &mut self,
        this: Resource<DynOutputStream>,
        length: u64,
    ) -> StreamResult<()> {
        if length > BLOCKING {
            return Err(StreamError::trap("blocking-write-zeroes-and-flush takes no more than 4096 bytes"));
        }
        self.output(&this)?.blocking_write_and_flush(vec![0; size(length)].into()).await
    }

    fn flush(&mut self, this: Resource<DynOutputStream>) -> StreamResult<()> {
        self.output(&this)?.flush()
    }

    async fn blocking_flush(&mut self, this: Resource<DynOutputStream>) -> StreamResult<()> {
        let output = self.output(&this)?;
        output.flush()?;
        output.write_ready().await.map(drop)
    }

    fn splice(
        &mut self,
        this: Resource<DynOutputStream>,
        from: Resource<DynInputStream>,
        most: u64,
    ) -> StreamResult<u64> {
        let most = size(most).min(self.output(&this)?.check_write()?);
        if most == 0 {
            return Ok(0);
        }
        let bytes = self.input(&from)?.read(most)?;
        let length = bytes.len() as u64;
        self.output(&this)?.write(bytes)?;
        Ok(length)
    }

    async fn blocking_splice(
        &mut self,
        this: Resource<DynOutputStream>,
        from: Resource<DynInputStream>,
        most: u64,
    ) -> StreamResult<u64> {
        let most = size(most).min(self.output(&this)?.write_ready().await?);
        if most == 0 {
            return Ok(0);
        }
        let bytes = self.input(&from)?.blocking_read(most).await?;
        let length = bytes.len() as u64;
        self.output(&this)?.blocking_write_and_flush(bytes).await?;
        Ok(length)
    }

    fn subscribe(&mut self, this: Resource<DynOutputStream>) -> Result<Resource<DynPollable>> {
        Io::subscribe::<GuestOutput, _>(self, this)
    }

    async fn drop(&mut self, this: Resource<DynOutputStream>) -> Result<()> {
        match self.table.get_any_mut(this.rep())?.is::<GuestOutput>() {
            true => self.table.delete(Resource::<GuestOutput>::new_own(this.rep())).map(drop)?,
            false => self.table.delete(this)?.cancel().await,
        }
        Ok(())
    }
}

fn size(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use wasmtime_wasi::async_trait;
    use wasmtime_wasi_io::bindings::wasi::io::poll::{Host as _, HostPollable as _};

    use super::*;

    /// Ready when it is set.
    struct Flag(Arc<AtomicBool>);

    #[async_trait]
    impl Pollable for Flag {
        async fn ready(&mut self) {
            poll_fn(|cx| self.poll_ready(cx)).await;
        }
    }

    impl Ready for Flag {
        fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
            if self.0.load(Ordering::Relaxed) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    }

    struct Sleep(Duration);

    #[async_trait]
    impl Pollable for Sleep {
        async fn ready(&mut self) {
            tokio::time::sleep(self.0).await;
        }
    }

    /// A stream that nothing comes from.
    struct Silent;

    #[async_trait]
    impl Pollable for Silent {
        async fn ready(&mut self) {
            std::future::pending().await
        }
    }

    impl InputStream for Silent {
        fn read(&mut self, _: usize) -> StreamResult<bytes::Bytes> {
            Ok(bytes::Bytes::new())
        }
    }

    #[test]
    fn nobody_waits_for_nothing() {
        let mut table = ResourceTable::new();
        let from = table.push(Box::new(Silent) as DynInputStream).unwrap().rep();
        let pipe = wasmtime_wasi::p2::pipe::MemoryOutputPipe::new(10);
        let to = table.push(Box::new(pipe) as DynOutputStream).unwrap().rep();
        run(async {
            let mut io = Io { table: &mut table, pace: None };
            let streams = || (Resource::new_borrow(to), Resource::new_borrow(from));
            let (this, other) = streams();
            assert_eq!(io.splice(this, other, 10).unwrap(), 0);
            let (this, other) = streams();
            assert_eq!(io.blocking_splice(this, other, 0).await.unwrap(), 0);
        });
    }

    struct Host {
        table: ResourceTable,
    }

    impl HasIo for Host {
        fn io(&mut self) -> Io<'_> {
            Io { table: &mut self.table, pace: None }
        }

        fn table(&self) -> &ResourceTable {
            &self.table
        }
    }

    #[test]
    fn what_every_request_calls_is_in_the_place_of_the_others() {
        let mut linker = Linker::<Host>::new(&wasmtime::Engine::default());
        poll::add_to_linker::<Host, Data>(&mut linker, Host::io).unwrap();
        streams::add_to_linker::<Host, Data>(&mut linker, Host::io).unwrap();
        let why = "wasmtime-wasi's interface has another version or name";
        assert!(linker.instance(POLLING).unwrap().func_wrap_async(POLL, super::poll).is_err(), "{why}");
        let mut streams = linker.instance(STREAMS).unwrap();
        assert!(streams.func_wrap(READ, read).is_err(), "{why}");
        assert!(streams.func_wrap(WRITE, write).is_err(), "{why}");
    }

    pub fn run<T>(test: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(10), test).await.expect("it waits for ever") })
    }

    pub fn borrowed(pollables: &[&Resource<DynPollable>]) -> Vec<Resource<DynPollable>> {
        pollables.iter().map(|pollable| Resource::new_borrow(pollable.rep())).collect()
    }

    #[test]
    fn ours_are_polled_by_themselves_and_with_others() {
        let mut table = ResourceTable::new();
        let set: [Arc<AtomicBool>; 3] = Default::default();
        let flags: Vec<_> = set.iter().map(|set| table.push(Flag(Arc::clone(set))).unwrap()).collect();
        let watch = |table: &mut ResourceTable, flag: &Resource<Flag>| subscribe(table, flag).unwrap();
        let ours: Vec<_> = flags.iter().map(|flag| watch(&mut table, flag)).collect();
        let sleep = table.push(Sleep(Duration::from_secs(100))).unwrap();
        let other = wasmtime_wasi::p2::subscribe(&mut table, Resource::<Sleep>::new_borrow(sleep.rep())).unwrap();
        run(async {
            let mut io = Io { table: &mut table, pace: None };
            assert!(io.poll(Vec::new()).await.is_err(), "nobody could be woken");
            assert!(!io.ready(Resource::new_borrow(ours[1].rep())).await.unwrap());
            set[1].store(true, Ordering::Relaxed);
            assert!(io.ready(Resource::new_borrow(ours[1].rep())).await.unwrap());
            io.block(Resource::new_borrow(ours[1].rep())).await.unwrap();
            assert_eq!(io.poll(borrowed(&[&ours[0], &ours[1], &ours[2], &ours[1]])).await.unwrap(), [1, 3]);
            let mut ready = io.poll(borrowed(&[&other, &ours[0], &ours[1], &other, &ours[1]])).await.unwrap();
            ready.sort_unstable();
            assert_eq!(ready, [2, 4]);
            for pollable in ours {
                poll::HostPollable::drop(&mut io, pollable).unwrap();
            }
            poll::HostPollable::drop(&mut io, other).unwrap();
        });
        flags.into_iter().for_each(|flag| table.delete(flag).map(drop).unwrap());
        table.delete(sleep).unwrap();
        assert!(table.is_empty());
    }

    /// What only the kernel is to be asked about.
    #[cfg(all(target_os = "linux", not(feature = "portable")))]
    pub struct Asked(pub std::os::unix::net::UnixStream);

    #[cfg(all(target_os = "linux", not(feature = "portable")))]
    #[async_trait]
    impl Pollable for Asked {
        async fn ready(&mut self) {}
    }

    #[cfg(all(target_os = "linux", not(feature = "portable")))]
    impl Ready for Asked {
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<()> {
            panic!("the kernel was not asked")
        }

        fn ask(&self, owner: u32, question: &mut Question) -> bool {
            question.about(owner, &self.0);
            true
        }
    }

    #[cfg(all(target_os = "linux", not(feature = "portable")))]
    #[test]
    fn the_event_loop_has_its_turn_though_something_is_always_ready() {
        use std::os::unix::net::UnixStream;

        let (ours, theirs) = UnixStream::pair().unwrap();
        std::io::Write::write_all(&mut &theirs, b"something").unwrap();
        let mut table = ResourceTable::new();
        let asked = table.push(Asked(ours)).unwrap();
        let pollable = subscribe(&mut table, &asked).unwrap();
        let mut pace = Pace::default();
        run(async {
            let written = Arc::new(AtomicBool::new(false));
            let task = Arc::clone(&written);
            tokio::spawn(async move { task.store(true, Ordering::Relaxed) });
            let mut io = Io { table: &mut table, pace: Some(&mut pace) };
            for _ in 0..=TURN {
                assert_eq!(io.poll(borrowed(&[&pollable])).await.unwrap(), [0]);
            }
            assert!(written.load(Ordering::Relaxed), "what was written stays where it is");
        });
    }
}
