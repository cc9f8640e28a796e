//! A guest's own HTTP requests (`wasi:http/outgoing-handler`).
//!
//! They go through the container's network like its sockets: names are looked up there, and each address is judged by the
//! grants when it is connected to, whatever name or URI led to it. The `Host` header is written by us from the URI's
//! authority, so the two cannot differ; redirects are answers like any other, and following one is another request that is
//! judged anew.
//!
//! HTTPS is rustls with Mozilla's roots, which are in the program: the jail has no files to read others from.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, spawn};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use super::stream::Stream;
use crate::network::{Connection, Fault, VirtualNetwork};

/// How long anything may take that the guest sets no limit for.
const PATIENCE: Duration = Duration::from_secs(600);

/// An answer, and the work that goes on behind it.
pub type Sent = Result<(Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>), Error>;

/// The host, and the port if one is said. What is no port must not be taken for none, as the parser does.
fn destination(authority: &Authority) -> Option<(&str, Option<u16>)> {
    let host = authority.host();
    let at = authority.as_str().rsplit('@').next()?;
    let port = match at.strip_prefix(host)?.strip_prefix(':').unwrap_or_default() {
        "" => None,
        port => Some(port.parse().ok()?),
    };
    (!host.is_empty()).then_some((host, port))
}

/// Sends a request through a network and waits for the head of the answer.
///
/// # Errors
/// What `wasi:http` calls what went wrong.
pub async fn send(network: Arc<dyn VirtualNetwork>, request: Request<WasiBody>, options: RequestOptions) -> Sent {
    let authority = request.uri().authority().ok_or(Error::HttpRequestUriInvalid)?;
    let secure = request.uri().scheme() == Some(&Scheme::HTTPS);
    let (host, port) = destination(authority).ok_or(Error::HttpRequestUriInvalid)?;
    let port = port.unwrap_or(if secure { 443 } else { 80 });
    let host = host.to_owned();
    let patience = options.connect_timeout.unwrap_or(PATIENCE);
    let connected = timeout(patience, async {
        let stream = Stream(connect(&*network, &host, port).await?);
        match secure {
            true => handshake(encrypt(&host, stream).await?).await,
            false => handshake(stream).await,
        }
    });
    let (mut sender, connection) = connected.await.map_err(|_| Error::ConnectionTimeout)??;
    let patience = options.first_byte_timeout.unwrap_or(PATIENCE);
    let answer = timeout(patience, sender.send_request(to_origin(request)?)).await;
    let answer = answer.map_err(|_| Error::ConnectionReadTimeout)?.map_err(Error::Hyper)?;
    let between = options.between_bytes_timeout.unwrap_or(PATIENCE);
    let answer = answer.map(|body| Download { body, between, late: Box::pin(sleep(between)) }.boxed_unsync());
    Ok((answer, Box::new(connection)))
}

/// The request as its origin reads it: the target has no scheme and no authority (RFC 9112, 3.2.1).
fn to_origin(mut request: Request<WasiBody>) -> Result<Request<WasiBody>, Error> {
    // One that is empty is written as `/`, but is not so by itself.
    let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    *request.uri_mut() = Uri::builder().path_and_query(path).build().map_err(|_| Error::HttpRequestUriInvalid)?;
    Ok(request)
}

async fn connect(network: &dyn VirtualNetwork, host: &str, port: u16) -> Result<Arc<dyn Connection>, Error> {
    let mut last = Error::DestinationNotFound;
    for address in addresses(network, host).await? {
        let refused = match network.connect(None, SocketAddr::new(address, port)) {
            Err(fault) => fault,
            Ok(connected) => {
                poll_fn(|cx| connected.connection.poll_writable(cx)).await;
                match connected.connection.take_error() {
                    None => return Ok(connected.connection),
                    Some(fault) => fault,
                }
            }
        };
        last = error(refused);
    }
    Err(last)
}

async fn addresses(network: &dyn VirtualNetwork, host: &str) -> Result<Vec<IpAddr>, Error> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse() {
        return Ok(vec![address]);
    }
    let mut lookup = network.lookup(host).map_err(|fault| match fault {
        // What cannot be a name is nobody's.
        Fault::InvalidArgument => error(Fault::NameUnresolvable),
        fault => error(fault),
    })?;
    poll_fn(|cx| lookup.poll(cx)).await.map_err(error)
}

async fn encrypt(host: &str, stream: Stream) -> Result<TlsStream<Stream>, Error> {
    static CONFIG: LazyLock<Option<Arc<ClientConfig>>> = LazyLock::new(|| {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.into() };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
        Some(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
    });
    let config = CONFIG.clone().ok_or(Error::ConfigurationError)?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(bare.to_owned()).map_err(|_| Error::HttpRequestUriInvalid)?;
    TlsConnector::from(config).connect(name, stream).await.map_err(tls_error)
}

fn tls_error(e: io::Error) -> Error {
    match e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_)) => Error::TlsCertificateError,
        Some(_) => Error::TlsProtocolError,
        None => Error::Tls(e),
    }
}

type Work = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<(http1::SendRequest<WasiBody>, Work), Error> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It must be driven while the head is waited for, and ends with the answer that it brings.
    let driven: AbortOnDropJoinHandle<_> = spawn(connection);
    Ok((sender, Box::pin(async move { driven.await.map_err(Error::Hyper) })))
}

fn error(fault: Fault) -> Error {
    match fault {
        Fault::AccessDenied => Error::DestinationIpProhibited,
        Fault::Timeout => Error::ConnectionTimeout,
        Fault::ConnectionRefused => Error::ConnectionRefused,
        Fault::ConnectionReset | Fault::ConnectionAborted => Error::ConnectionTerminated,
        Fault::RemoteUnreachable => Error::DestinationIpUnroutable,
        Fault::NewSocketLimit | Fault::OutOfMemory => Error::ConnectionLimitReached,
        Fault::NameUnresolvable => Error::DnsError { rcode: Some("NXDOMAIN".to_owned()), info_code: None },
        Fault::TemporaryResolverFailure => Error::DnsTimeout,
        Fault::PermanentResolverFailure => Error::DnsError { rcode: Some("SERVFAIL".to_owned()), info_code: None },
        other => Error::InternalError(Some(other.to_string())),
    }
}

/// The body of an answer, which may not stall.
struct Download {
    body: Incoming,
    between: Duration,
    late: Pin<Box<Sleep>>,
}

impl Body for Download {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending => self.late.as_mut().poll(cx).map(|()| Some(Err(Error::ConnectionReadTimeout))),
            Poll::Ready(frame) => {
                let next = Instant::now() + self.between;
                self.late.as_mut().reset(next);
                Poll::Ready(frame.map(|frame| frame.map_err(Error::Hyper)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_never_empty() {
        let authority = Authority::from_static("a.b");
        for (path, target) in [("", "/"), ("?q", "/?q"), ("/x?q", "/x?q")] {
            // As wasi:http keeps what a guest has set.
            let path = Uri::builder().path_and_query(path).build().unwrap().path_and_query().cloned().unwrap();
            let uri = Uri::builder().scheme("http").authority(authority.clone()).path_and_query(path);
            let body = http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync();
            let request = Request::builder().uri(uri.build().unwrap()).body(body).unwrap();
            assert_eq!(to_origin(request).unwrap().uri().to_string(), target);
        }
    }

    #[test]
    fn a_port_is_a_port() {
        let of = |text: &'static str| {
            let authority = Authority::from_static(text);
            destination(&authority).map(|(host, port)| (host.to_owned(), port))
        };
        let is = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(of("a.b"), is("a.b", None));
        assert_eq!(of("a.b:"), is("a.b", None));
        assert_eq!(of("me@a.b:8080"), is("a.b", Some(8080)));
        assert_eq!(of("[::1]:65535"), is("[::1]", Some(65535)));
        assert_eq!(of("a.b:65536"), None, "not port 80 instead");
    }
}
