//! Transports of the operator that end at the models of the upstreams, and at a model of receivers.

use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use upstream_doubles::Models;
use webhook_operator::{
    controller::context::Transports,
    net::{
        CheckedUrl, ConnectProblem, HttpError, HttpErrorKind, Method, Phase, Request, Response, SetupError,
    },
    provider::transport::Transport,
};

use crate::wire::{Call, CallKind, Line, NoAnswer, Peer};

/// The way from one process to the upstreams.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) models: Arc<Models>,
    pub(crate) line: Line,
}

impl Transports for Way {
    fn make(&self, _: Option<Vec<u8>>, _: Option<CheckedUrl>) -> Result<Arc<dyn Transport>, SetupError> {
        Ok(Arc::new(self.clone()))
    }

    fn probes(&self) -> Arc<dyn Transport> {
        Arc::new(Receivers(self.line.clone()))
    }
}

/// Every receiver there is: one whose URL begins with `/status/{code}` answers that, all others 200.
struct Receivers(Line);

impl Transport for Receivers {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, HttpError>> {
        let (limit, origin) = (request.time_limit(), request.url().origin());
        async move {
            let late = || HttpError::maybe_sent(HttpErrorKind::Timeout, Phase::Exchange, origin.clone());
            tokio::time::timeout(limit, self.answer(&request))
                .await
                .unwrap_or(None)
                .ok_or_else(late)
        }
        .boxed()
    }
}

impl Receivers {
    async fn answer(&self, request: &Request) -> Option<Response> {
        let call = Call {
            process: self.0.process(),
            peer: Peer::Upstream,
            kind: CallKind::Write,
            text: format!("probe {}", request.url().as_str()),
        };
        let mut path = request.url().path().trim_start_matches('/').split('/');
        let status = match (path.next(), path.next()) {
            (Some("status"), Some(code)) => code.parse().unwrap(),
            _ => 200,
        };
        let carried = self.0.carry(call, || {}, async move { status }).await;
        let status = match carried {
            Ok(Ok(status) | Err(status)) => status,
            Err(_) => return None,
        };
        Some(Response::new(status, Vec::new(), ""))
    }
}

impl Transport for Way {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, HttpError>> {
        let limit = request.time_limit();
        let origin = request.url().origin();
        async move {
            let late = |_| HttpError::maybe_sent(HttpErrorKind::Timeout, Phase::Exchange, origin.clone());
            tokio::time::timeout(limit, self.exchange(&request, &origin))
                .await
                .map_err(late)?
        }
        .boxed()
    }
}

impl Way {
    async fn exchange(&self, request: &Request, origin: &str) -> Result<Response, HttpError> {
        let call = Call {
            process: self.line.process(),
            peer: Peer::Upstream,
            kind: match request.method() {
                Method::Get => CallKind::Read,
                Method::Post | Method::Put | Method::Patch | Method::Delete => CallKind::Write,
            },
            text: format!("{} {}", request.method(), request.url().as_str()),
        };
        let failed = |kind, phase| HttpError::maybe_sent(kind, phase, origin.to_owned());
        let (models, sent) = (Arc::clone(&self.models), as_http(request));
        let exchange = async move { models.exchange(sent).await };
        let answer = match self.line.carry(call, || {}, exchange).await {
            Ok(Ok(Ok(answer))) => answer,
            Ok(Ok(Err(_))) => return Err(failed(HttpErrorKind::Reset, Phase::Exchange)),
            Ok(Err(status)) => return Ok(Response::new(status, Vec::new(), "")),
            Err(NoAnswer::InTime) => return Err(failed(HttpErrorKind::Timeout, Phase::Exchange)),
            Err(NoAnswer::Refused) => {
                let kind = HttpErrorKind::Connect(ConnectProblem::Refused);
                return Err(HttpError::not_sent(kind, Phase::Connect, origin.to_owned()));
            }
        };
        let limit = request.body_limit().bytes();
        if answer.body().len() > limit {
            return Err(failed(HttpErrorKind::BodyTooLarge(limit), Phase::Body));
        }
        let headers = answer.headers().iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        });
        Ok(Response::new(
            answer.status().as_u16(),
            headers.collect(),
            answer.body().to_vec(),
        ))
    }
}

fn as_http(request: &Request) -> http::Request<Bytes> {
    let mut builder = http::Request::builder()
        .method(request.method().as_str())
        .uri(request.url().as_str())
        .header("host", request.url().host());
    for (name, value) in request.exposed_headers() {
        builder = builder.header(name, value);
    }
    let body = request.body_bytes().unwrap_or_default().to_vec();
    builder.body(Bytes::from(body)).unwrap()
}
