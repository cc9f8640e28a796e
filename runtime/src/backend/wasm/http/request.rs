//! One request: a fresh instance, the guest's answer, and what is told when there is none.
//!
//! The guest is polled in the connection's own task until its answer's head is there. Most guests have ended by then, and
//! nothing was spawned, sent to another thread or waited for. One that goes on (it streams, or works after its answer)
//! gets a task of its own.
//!
//! When a client goes away before the head, its guest is dropped; after that it may finish.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use wasmtime::component::Accessor;
use wasmtime::{PoolConcurrencyLimitError, Store};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_http::Error;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::p3::Request as RequestP3;
use wasmtime_wasi_http::p3::bindings::Service;

use super::body::{Answer, Entry, Held, Upload};
use super::pulse::{Pulse, Stuck};
use super::worker::Alive;
use super::{Guest, Handler, Shared};
use crate::backend::wasm::run::report;

/// What a guest's call ends with; its state says why it failed.
type Ended<T> = (wasmtime::Result<()>, Store<T>);
/// A guest that is called.
type Call<T> = Pin<Box<dyn Future<Output = Ended<T>> + Send>>;
/// What a guest sets as its answer.
type Head = Result<Response<HyperOutgoingBody>, ErrorCode>;

/// Why there is no answer.
enum Failure {
    /// The request makes no sense.
    Bad,
    /// There is no instance for it.
    Busy,
    /// Its guest did nothing for too long.
    Stuck,
    /// Its guest ended without an answer; the text is for the log.
    Guest(String),
}

/// Answers a request. Whatever its guest does, the connection lives on.
pub async fn answer<T: Guest>(
    shared: Arc<Shared<T>>,
    request: Request<Incoming>,
    alive: Alive,
) -> Result<Response<Answer>, Infallible> {
    let pulse = Arc::new(Pulse::new(shared.limits.timeout()));
    let mut entry = Entry {
        log: shared.log.clone(),
        method: request.method().clone(),
        uri: request.uri().clone(),
        status: StatusCode::OK,
        sent: 0,
        pulse: pulse.clone(),
        _under_way: shared.ticker.request(),
    };
    let failure = match attempt(&shared, request, &pulse).await {
        Ok((response, going_on)) => {
            let (parts, body) = response.into_parts();
            entry.status = parts.status;
            let body = match going_on {
                None => Answer::of_ended(body, entry),
                Some((call, permit)) => {
                    let under_way = shared.ticker.request();
                    let name = name(&entry);
                    tokio::spawn(async move {
                        finish(call, &pulse, &name).await;
                        drop((under_way, permit, alive));
                    });
                    Answer::stream(body, entry)
                }
            };
            return Ok(Response::from_parts(parts, body));
        }
        Err(failure) => failure,
    };
    entry.status = match failure {
        Failure::Bad => StatusCode::BAD_REQUEST,
        Failure::Busy => StatusCode::SERVICE_UNAVAILABLE,
        Failure::Stuck => StatusCode::GATEWAY_TIMEOUT,
        Failure::Guest(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    match failure {
        Failure::Bad => {}
        Failure::Busy => tell(&format!("{}: no instance is free", name(&entry))),
        Failure::Stuck => tell(&format!("{}: {Stuck}", name(&entry))),
        Failure::Guest(why) => tell(&format!("{}: {why}", name(&entry))),
    }
    Ok(plain(entry))
}

/// A request as messages call it. Its path holds no control characters: hyper refuses them.
fn name(entry: &Entry) -> String {
    format!("{} {}", entry.method, entry.uri.path())
}

/// Says it where the guest's own errors are.
fn tell(message: &str) {
    // When nobody reads the container's output there is nobody to tell.
    let _ = writeln!(std::io::stderr().lock(), "wharf: {}", message.trim_end());
}

/// An answer of our own: its status in words. What happened is for the log, not for strangers.
fn plain(entry: Entry) -> Response<Answer> {
    let status = entry.status;
    let mut response = Response::new(Answer::whole(Bytes::from(format!("{status}\n")), entry));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

type GoingOn<T> = Option<(Call<T>, OwnedSemaphorePermit)>;

async fn attempt<T: Guest>(
    shared: &Arc<Shared<T>>,
    mut request: Request<Incoming>,
    pulse: &Arc<Pulse>,
) -> Result<(Response<HyperOutgoingBody>, GoingOn<T>), Failure> {
    has_host(&mut request)?;
    let permit = match shared.permits.clone().try_acquire_owned() {
        Ok(permit) => permit,
        Err(_) => match pulse.keep(std::pin::pin!(shared.permits.clone().acquire_owned())).await {
            // Its guest has the whole time, however long it stood in line.
            Ok(Ok(permit)) => {
                pulse.beat();
                permit
            }
            Ok(Err(_)) | Err(Stuck) => return Err(Failure::Busy),
        },
    };
    let (mut call, mut head) = begin(shared, request, pulse).map_err(|e| Failure::Guest(format!("{e:#}")))?;
    let mut ended = None;
    let first = pulse
        .keep(std::pin::pin!(poll_fn(|cx| {
            if ended.is_none()
                && let Poll::Ready(result) = call.as_mut().poll(cx)
            {
                ended = Some(result);
            }
            // Its sender goes away with the store: once the call is over there is an answer, or never.
            match Pin::new(&mut head).poll(cx) {
                Poll::Ready(answer) => Poll::Ready(answer.ok()),
                Poll::Pending if ended.is_some() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })))
        .await;
    match (first, ended) {
        (Ok(Some(Ok(response))), None) => Ok((response, Some((call, permit)))),
        (Ok(Some(Ok(response))), Some((Ok(()), _))) => Ok((response, None)),
        (Ok(Some(Ok(response))), Some((Err(e), store))) => {
            pulse.break_off();
            let why = failed(&e, store);
            tell(&match why {
                Failure::Guest(why) => why,
                _ => e.to_string(),
            });
            Ok((response, None))
        }
        (Ok(Some(Err(code))), _) => Err(Failure::Guest(format!("the guest answered with an error: {code:?}"))),
        (Ok(None), Some((Err(e), store))) => Err(failed(&e, store)),
        (Ok(None), _) => Err(Failure::Guest("the guest ended without an answer".to_owned())),
        (Err(Stuck), _) => Err(Failure::Stuck),
    }
}

/// RFC 9112, 3.2: a request of HTTP/1.1 without one `Host` is bad. One of HTTP/1.0 need not have any.
fn has_host(request: &mut Request<Incoming>) -> Result<(), Failure> {
    let hosts = request.headers().get_all(HOST).iter().count();
    match (request.version(), hosts) {
        (_, 2..) => Err(Failure::Bad),
        (_, 1) => request.headers()[HOST].to_str().map(drop).map_err(|_| Failure::Bad),
        (Version::HTTP_11, _) => Err(Failure::Bad),
        (Version::HTTP_2, _) if request.uri().authority().is_none() => Err(Failure::Bad),
        (Version::HTTP_2, _) => Ok(()),
        (_, _) => {
            request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
            Ok(())
        }
    }
}

/// Makes an instance and calls it. Nothing of it runs before it is polled.
fn begin<T: Guest>(
    shared: &Arc<Shared<T>>,
    request: Request<Incoming>,
    pulse: &Arc<Pulse>,
) -> wasmtime::Result<(Call<T>, oneshot::Receiver<Head>)> {
    let mut store = Store::new(&shared.engine, (shared.state)());
    store.limiter(|state| state.memory());
    pulse.govern(&mut store);
    let (answer, head) = oneshot::channel();
    let upload = request.map(|body| Upload { body, pulse: pulse.clone() });
    let call: Call<T> = match &shared.handler {
        Handler::P2(component) => {
            let mut http = store.data_mut().http();
            let request = http.new_incoming_request(Scheme::Http, upload)?;
            let out = http.new_response_outparam(answer)?;
            let component = component.clone();
            Box::pin(async move {
                let called = async {
                    let guest = component.instantiate_async(&mut store).await?;
                    guest.wasi_http_incoming_handler().call_handle(&mut store, request, out).await
                };
                (called.await, store)
            })
        }
        Handler::P3(component) => {
            let component = component.clone();
            Box::pin(async move {
                let called = async {
                    let guest = component.instantiate_async(&mut store).await?;
                    store.run_concurrent(async |store| handle(&guest, store, upload, answer).await).await?
                };
                (called.await, store)
            })
        }
    };
    Ok((call, head))
}

/// Has a guest of WASI 0.3 answer, and go on for as long as somebody reads the answer or it has something to do.
async fn handle<T: Guest>(
    guest: &Service,
    store: &Accessor<T>,
    upload: Request<Upload>,
    answer: oneshot::Sender<Head>,
) -> wasmtime::Result<()> {
    let host = upload.headers().get(HOST).and_then(|host| host.to_str().ok()?.parse().ok());
    let (mut request, sent) = store.with(|mut store| {
        let (request, sent) = RequestP3::from_http(store.data_mut().http().hooks, upload);
        (request, Box::into_pin(Box::new(sent) as Box<dyn Future<Output = Result<(), Error>> + Send>))
    });
    request.scheme = Some(http::uri::Scheme::HTTP);
    request.authority = request.authority.or(host);
    let response = match guest.handle(store, request).await? {
        Ok(response) => store.with(|store| response.into_http(store, sent))?,
        Err(code) => wasmtime::bail!("the guest answered with an error: {code:?}"),
    };
    let (head, body) = response.into_parts();
    let (read, over) = oneshot::channel();
    let body = Held::of(body, read).await;
    // A client that has gone reads nothing: the body goes with the answer.
    let _ = answer.send(Ok(Response::from_parts(head, body.boxed_unsync())));
    // Nothing is ever sent; it is closed when the body is gone.
    let _ = over.await;
    poll_fn(|cx| store.poll_no_interesting_tasks(cx)).await;
    Ok(())
}

/// What a guest's failure means for its request.
fn failed<T: Guest>(e: &wasmtime::Error, mut store: Store<T>) -> Failure {
    if e.is::<Stuck>() {
        Failure::Stuck
    } else if e.is::<PoolConcurrencyLimitError>() {
        Failure::Busy
    } else if let Some(I32Exit(code)) = e.downcast_ref::<I32Exit>() {
        Failure::Guest(format!("the guest exited with code {code} and no answer"))
    } else {
        Failure::Guest(report(e, store.data_mut().memory()))
    }
}

/// Lets a guest whose answer has begun come to its end.
async fn finish<T: Guest>(mut call: Call<T>, pulse: &Pulse, name: &str) {
    let why = match pulse.keep(call.as_mut()).await {
        Ok((Ok(()), _)) => return,
        Ok((Err(e), store)) => {
            // Said before the guest's streams close, which would look like the end of the answer.
            pulse.break_off();
            match failed(&e, store) {
                Failure::Guest(why) => why,
                _ => e.to_string(),
            }
        }
        Err(Stuck) => {
            pulse.break_off();
            Stuck.to_string()
        }
    };
    drop(call);
    tell(&format!("{name}: {why}"));
}
