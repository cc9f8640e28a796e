//! The body of an answer: whole if the guest has ended with it, else as it comes. It carries what is to happen when the
//! answer has been sent or given up: the line in the log.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;
use wasmtime_wasi_http::Error;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use super::log::AccessLog;
use super::pulse::{Pulse, UnderWay};

/// Chunks that are together no more bytes than this are copied together.
const SMALL: usize = 64 * 1024;

/// What is known of a request; its line is written when this is dropped.
pub struct Entry {
    pub log: Arc<AccessLog>,
    pub method: Method,
    pub uri: Uri,
    pub status: StatusCode,
    pub sent: u64,
    pub pulse: Arc<Pulse>,
    /// Given back after the line was written.
    pub _under_way: UnderWay,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.log.add(&self.method, self.uri.path(), self.status, self.sent, self.pulse.began().elapsed());
    }
}

/// The body of an answer.
pub struct Answer {
    /// What is there already.
    ahead: VecDeque<Frame<Bytes>>,
    /// What the guest still writes.
    rest: Option<HyperOutgoingBody>,
    entry: Entry,
}

/// The guest has ended badly after its answer had begun, so what was sent is not all of it.
#[derive(Debug)]
pub struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the guest has ended before its answer")
    }
}

impl std::error::Error for Broken {}

impl Answer {
    /// A body that is all there.
    pub fn whole(bytes: Bytes, entry: Entry) -> Self {
        let ahead = if bytes.is_empty() { VecDeque::new() } else { VecDeque::from([Frame::data(bytes)]) };
        Answer { ahead, rest: None, entry }
    }

    /// A body that the guest still writes.
    pub fn stream(body: HyperOutgoingBody, entry: Entry) -> Self {
        Answer { ahead: VecDeque::new(), rest: Some(body), entry }
    }

    /// The body of a guest that has ended. What it wrote waits in a channel; taken from there at once, a small answer
    /// has a known length and leaves together with its head.
    pub fn of_ended(mut body: HyperOutgoingBody, entry: Entry) -> Self {
        let mut cx = Context::from_waker(Waker::noop());
        let mut ahead = VecDeque::with_capacity(1);
        let rest = loop {
            match Pin::new(&mut body).poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(frame))) => ahead.push_back(frame),
                Poll::Ready(None) => break None,
                // An error is told again to whoever reads on.
                Poll::Ready(Some(Err(_))) => {
                    entry.pulse.break_off();
                    break Some(body);
                }
                Poll::Pending => break Some(body),
            }
        };
        let mut answer = Answer { ahead, rest, entry };
        answer.join_small();
        answer
    }

    fn join_small(&mut self) {
        let length = |frame: &Frame<Bytes>| frame.data_ref().map(Bytes::len);
        let Some(total) = self.ahead.iter().map(length).sum::<Option<usize>>() else { return };
        if self.ahead.len() < 2 || total > SMALL {
            return;
        }
        let mut joined = BytesMut::with_capacity(total);
        self.ahead.iter().filter_map(Frame::data_ref).for_each(|bytes| joined.extend_from_slice(bytes));
        self.ahead = VecDeque::from([Frame::data(joined.freeze())]);
    }

    fn count(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        self.entry.sent += frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
        frame
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(frame) = self.ahead.pop_front() {
            return Poll::Ready(Some(Ok(self.count(frame))));
        }
        let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
        match Pin::new(rest).poll_frame(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(frame))) => {
                self.entry.pulse.beat();
                Poll::Ready(Some(Ok(self.count(frame))))
            }
            Poll::Ready(Some(Err(_))) => {
                self.rest = None;
                Poll::Ready(Some(Err(Broken)))
            }
            Poll::Ready(None) => {
                self.rest = None;
                // A guest that trapped has closed its stream like one that finished.
                Poll::Ready(self.entry.pulse.is_broken().then_some(Err(Broken)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && self.rest.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.rest {
            Some(_) => SizeHint::default(),
            None => {
                let total = self.ahead.iter().map(|f| f.data_ref().map_or(0, |bytes| bytes.len() as u64)).sum();
                SizeHint::with_exact(total)
            }
        }
    }
}

/// The body of a request, each part of which is a sign of life.
pub struct Upload {
    pub body: Incoming,
    pub pulse: Arc<Pulse>,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_ready() {
            self.pulse.beat();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How often a guest may go on before the head of its answer goes out. Most have written all by then, and a small answer
/// leaves whole.
const TURNS: usize = 8;

/// The body of an answer whose guest must be kept for as long as it is read.
pub struct Held {
    /// What is there already.
    ahead: VecDeque<Result<Frame<Bytes>, Error>>,
    /// What the guest still writes, and what is to go with it.
    rest: Option<(HyperOutgoingBody, oneshot::Sender<Infallible>)>,
}

impl Held {
    /// The body, with what the guest writes of it at once. `read` goes when the guest is not needed any more.
    pub async fn of(mut body: HyperOutgoingBody, read: oneshot::Sender<Infallible>) -> Self {
        let (mut ahead, mut turns) = (VecDeque::new(), 0);
        let is_all = std::future::poll_fn(|cx| {
            loop {
                match Pin::new(&mut body).poll_frame(cx) {
                    Poll::Ready(None) => return Poll::Ready(true),
                    Poll::Ready(Some(frame)) => ahead.push_back(frame),
                    Poll::Pending => break,
                }
                if ahead.len() > TURNS {
                    return Poll::Ready(false);
                }
            }
            turns += 1;
            if turns > TURNS {
                return Poll::Ready(false);
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        });
        let is_all = is_all.await;
        Held { ahead, rest: (!is_all).then_some((body, read)) }
    }
}

impl Body for Held {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match (self.ahead.pop_front(), &mut self.rest) {
            (Some(frame), _) => Poll::Ready(Some(frame)),
            (None, Some((body, _))) => Pin::new(body).poll_frame(cx),
            (None, None) => Poll::Ready(None),
        }
    }
}
