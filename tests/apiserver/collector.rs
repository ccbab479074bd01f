//! A collector of traces on loopback: takes OTLP over HTTP as the specification says, keeps all it gets, and decodes it
//! with the message types of the OpenTelemetry project.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode, header},
    routing::post,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{Span, status::StatusCode as SpanStatus},
};
use prost::Message;
use tokio::net::TcpListener;

use crate::world::SOON;

/// What it got.
#[derive(Clone, Default)]
struct Received(Arc<Mutex<Vec<(HeaderMap, Bytes)>>>);

impl Received {
    fn all(&self) -> Vec<(HeaderMap, Bytes)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A collector. It ends with the runtime of the test that started it.
pub(crate) struct Collector {
    address: SocketAddr,
    received: Received,
}

/// One span, read.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) name: String,
    /// Id of the trace, in hex as a log line has it.
    pub(crate) trace: String,
    pub(crate) id: Vec<u8>,
    /// Empty for the first of a trace.
    pub(crate) parent: Vec<u8>,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) failed: bool,
    /// Begin and end, in nanoseconds.
    pub(crate) time: (u64, u64),
}

impl Told {
    fn read(span: Span) -> Self {
        let failed = span
            .status
            .is_some_and(|status| status.code() == SpanStatus::Error);
        Self {
            name: span.name,
            trace: span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect(),
            id: span.span_id,
            parent: span.parent_span_id,
            attributes: texts(span.attributes),
            failed,
            time: (span.start_time_unix_nano, span.end_time_unix_nano),
        }
    }

    /// An attribute; empty where it has none.
    pub(crate) fn attribute(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("an attribute that is neither text nor number: {other:?}"),
    };
    attributes
        .into_iter()
        .map(|attribute| (attribute.key, text(attribute.value)))
        .collect()
}

impl Collector {
    /// At any free port.
    pub(crate) async fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// At this address.
    pub(crate) async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("listen on loopback");
        let address = listener.local_addr().expect("it has an address");
        let received = Received::default();
        let kept = received.clone();
        let take = move |headers: HeaderMap, body: Bytes| async move {
            if headers.get(header::CONTENT_TYPE).map(|kind| kind.as_bytes())
                != Some(b"application/x-protobuf")
            {
                return (StatusCode::UNSUPPORTED_MEDIA_TYPE, Vec::new());
            }
            kept.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((headers, body));
            (
                StatusCode::OK,
                ExportTraceServiceResponse::default().encode_to_vec(),
            )
        };
        let router = Router::new().route("/v1/traces", post(take));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, received }
    }

    /// What `--otlp-endpoint` is given.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Bodies as they came, as far as they are text.
    pub(crate) fn raw(&self) -> String {
        let all = self.received.all();
        all.iter()
            .map(|(_, body)| String::from_utf8_lossy(body))
            .collect()
    }

    /// Values of a header, one for each request.
    pub(crate) fn headers(&self, name: &str) -> Vec<String> {
        let all = self.received.all();
        all.iter()
            .filter_map(|(headers, _)| Some(headers.get(name)?.to_str().ok()?.to_owned()))
            .collect()
    }

    fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        let all = self.received.all();
        all.into_iter()
            .map(|(_, body)| ExportTraceServiceRequest::decode(body).expect("a request of OTLP"))
            .collect()
    }

    /// All spans so far.
    pub(crate) fn spans(&self) -> Vec<Told> {
        self.requests()
            .into_iter()
            .flat_map(|request| request.resource_spans)
            .flat_map(|resource| resource.scope_spans)
            .flat_map(|scope| scope.spans)
            .map(Told::read)
            .collect()
    }

    /// What the spans say of the process that they come from.
    pub(crate) fn resource(&self) -> BTreeMap<String, String> {
        let request = self.requests().into_iter().next().expect("it got something");
        let resource = request
            .resource_spans
            .into_iter()
            .next()
            .and_then(|spans| spans.resource);
        texts(resource.expect("spans of a resource").attributes)
    }

    /// Waits for spans.
    pub(crate) async fn wait(&self, what: &str, met: impl Fn(&[Told]) -> bool) -> Vec<Told> {
        let waited = tokio::time::timeout(SOON, async {
            loop {
                let spans = self.spans();
                if met(&spans) {
                    return spans;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        match waited.await {
            Ok(spans) => spans,
            Err(_) => panic!("waited {SOON:?} for {what}: {:#?}", self.spans()),
        }
    }
}
