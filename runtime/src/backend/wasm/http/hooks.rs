//! What wasmtime's `wasi:http` asks its host about.

use std::sync::{Arc, LazyLock};

use http::HeaderName;
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, WasiBody, WasiHttpHooks,
};

use super::outgoing::{self, Sent};
use crate::network::VirtualNetwork;

/// One guest's HTTP.
pub struct Hooks {
    /// Where its own requests go out; without one they are refused.
    network: Option<Arc<dyn VirtualNetwork>>,
}

impl Hooks {
    /// With this network.
    pub fn new(network: Option<Arc<dyn VirtualNetwork>>) -> Self {
        Hooks { network }
    }
}

fn is_forbidden(name: &HeaderName) -> bool {
    DEFAULT_FORBIDDEN_HEADERS.contains(name)
}

impl WasiHttpHooks for Hooks {
    // The default makes a filter for each question.
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        is_forbidden(name)
    }

    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        static FILTER: LazyLock<ForbiddenHeaderFilter> = LazyLock::new(|| Arc::new(is_forbidden));
        FILTER.clone()
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _done: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        match &self.network {
            Some(network) => Box::new(outgoing::send(network.clone(), request, options.unwrap_or_default())),
            None => Box::new(std::future::ready(Err(Error::HttpRequestDenied))),
        }
    }
}
