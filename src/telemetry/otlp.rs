//! Sends traces to a collector, by OTLP over HTTP (protobuf), where `--otlp-endpoint` asks for it.
//!
//! Nothing waits for it: spans go into a queue of the SDK (2048 of them; what does not fit is dropped), and a thread of
//! its own sends them in batches. A collector that is away costs one warning, then attempts that lie further and further
//! apart, up to five minutes; spans that come meanwhile are dropped. At the end of the process what is queued is sent,
//! within three seconds.
//!
//! Requests go through the operator's own HTTP client: same bounds, no redirects, no proxy of the environment. Its
//! address guard lets them go anywhere but to the metadata addresses of clouds, because who starts the operator names the
//! collector, and no manifest can. Headers that a collector wants are the SDK's `OTEL_EXPORTER_OTLP_HEADERS`; sampling
//! and the size of queue and batches are its `OTEL_TRACES_SAMPLER` and `OTEL_BSP_*`.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use opentelemetry::KeyValue;
use opentelemetry_http::{Bytes, HttpClient as Exchange, HttpError};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchSpanProcessor, Sampler, SdkTracerProvider},
};
use tokio::{runtime::Handle, task::spawn_blocking};

use super::trace;
use crate::{
    domain::backoff,
    net::{
        AddressPolicy, AllowListError, CheckedUrl, HttpClient, Method, Request, SecretText, SetupError,
        UrlProblem, is_transport_header,
    },
};

/// Where OTLP over HTTP takes traces, below the endpoint.
const PATH: [&str; 2] = ["v1", "traces"];

/// Longest time of one request.
const LIMIT: Duration = Duration::from_secs(5);

/// Longest time at the end of the process. Below what is left of a pod's grace after the drain.
const FLUSH: Duration = Duration::from_secs(3);

/// Failures in a row after which the collector counts as away: one batch with the retries that the exporter makes.
const TRIES: u32 = 4;

/// Why traces cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// A setting of the environment, most probably.
    #[error("traces cannot be sent: {0}; see the variables OTEL_EXPORTER_OTLP_*")]
    Exporter(#[from] ExporterBuildError),
    /// No HTTP client.
    #[error("no HTTP client for traces: {0}")]
    Client(#[from] SetupError),
    /// The policy of this file is none.
    #[error("no address policy for traces: {0}")]
    Policy(#[from] AllowListError),
    /// The path cannot be appended.
    #[error("--otlp-endpoint: {0}")]
    Endpoint(#[from] UrlProblem),
}

/// The traces of this process. [`Traces::end`] sends what is left.
pub struct Traces {
    provider: SdkTracerProvider,
    sends: bool,
}

/// Reads `--otlp-endpoint`: the base address of a collector.
///
/// # Errors
///
/// What is wrong with it, and what is right.
pub fn endpoint(text: &str) -> Result<CheckedUrl, String> {
    let url = CheckedUrl::parse(text).map_err(|problem| {
        format!("{problem}; give the collector's address, such as http://collector.monitoring:4318, and its credentials in OTEL_EXPORTER_OTLP_HEADERS")
    })?;
    if url.query().is_some() {
        return Err(
            "it has a query; give credentials of the collector in OTEL_EXPORTER_OTLP_HEADERS".to_owned(),
        );
    }
    Ok(url)
}

/// Gives passes their ids, and sends their traces to `endpoint`, if there is one. Within a runtime.
///
/// # Errors
///
/// See [`OtlpError`].
pub fn start(endpoint: Option<&CheckedUrl>) -> Result<Traces, OtlpError> {
    let provider = match endpoint {
        // Ids are made all the same; spans are not.
        None => SdkTracerProvider::builder()
            .with_sampler(Sampler::AlwaysOff)
            .build(),
        Some(endpoint) => {
            tracing::info!(endpoint = %endpoint.origin(), "sending traces");
            SdkTracerProvider::builder()
                .with_resource(resource())
                .with_span_processor(BatchSpanProcessor::builder(exporter(endpoint)?).build())
                .build()
        }
    };
    trace::install(&provider);
    Ok(Traces {
        provider,
        sends: endpoint.is_some(),
    })
}

impl Traces {
    /// Sends what is queued, within three seconds.
    pub async fn end(self) {
        if !self.sends {
            return;
        }
        // It blocks. What it could not send is told by the sender, and a task that did not end is of no consequence.
        let provider = self.provider;
        let _ = spawn_blocking(move || provider.shutdown_with_timeout(FLUSH)).await;
    }
}

fn resource() -> Resource {
    let host = hostname::get().map_or_else(|_| String::new(), |name| name.to_string_lossy().into_owned());
    Resource::builder()
        .with_service_name("webhook-operator")
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", host),
        ])
        .build()
}

fn exporter(endpoint: &CheckedUrl) -> Result<SpanExporter, OtlpError> {
    // Everything is allowed; what the guard refuses even then are the metadata addresses of clouds.
    let policy = AddressPolicy::parse(["0.0.0.0/0", "::/0"])?;
    let whole = format!("/{}", PATH.join("/"));
    let url = if endpoint.path().ends_with(&whole) {
        endpoint.clone()
    } else {
        endpoint.with_segments(PATH)?
    };
    let sender = Sender {
        client: HttpClient::builder(policy).build()?,
        url: url.clone(),
        runtime: Handle::current(),
        health: Mutex::default(),
    };
    Ok(SpanExporter::builder()
        .with_http()
        .with_http_client(sender)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(url.as_str())
        .build()?)
}

/// The exporter's way to the collector.
#[derive(Debug)]
struct Sender {
    client: HttpClient,
    url: CheckedUrl,
    runtime: Handle,
    health: Mutex<Health>,
}

/// How the collector has answered so far.
#[derive(Debug, Default)]
struct Health {
    /// Failures in a row.
    failures: u32,
    /// No request before this.
    held: Option<Instant>,
}

/// The collector is given time: nothing was sent.
#[derive(Debug, thiserror::Error)]
#[error("the collector is away; the next attempt is later")]
struct Held;

impl Health {
    fn may_send(&self, now: Instant) -> bool {
        self.held.is_none_or(|until| until <= now)
    }

    /// Notes a success. Whether that is news.
    fn took(&mut self) -> bool {
        std::mem::take(self).failures >= TRIES
    }

    /// Notes a failure. Whether it is the one that makes the collector count as away.
    fn failed(&mut self, now: Instant, seed: u64) -> bool {
        self.failures = self.failures.saturating_add(1);
        if let Some(beyond) = self.failures.checked_sub(TRIES) {
            self.held = Some(now + backoff::delay(beyond.saturating_add(1), seed));
        }
        self.failures == TRIES
    }
}

#[async_trait]
impl Exchange for Sender {
    async fn send_bytes(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
        if !self.health().may_send(Instant::now()) {
            return Err(Box::new(Held));
        }
        let request = self.read(request);
        let client = self.client.clone();
        // The exporter's thread belongs to no runtime, and connections need one.
        let answer = self
            .runtime
            .spawn(async move { client.send(request).await })
            .await?;
        self.note(match &answer {
            Ok(answer) if answer.is_success() => None,
            Ok(answer) => Some(format!("it answers {}", answer.status())),
            Err(error) => Some(error.to_string()),
        });
        let answer = answer?;
        let mut read = http::Response::builder().status(answer.status());
        if let Some(wait) = answer.header("retry-after") {
            read = read.header("retry-after", wait);
        }
        Ok(read.body(Bytes::copy_from_slice(answer.body()))?)
    }
}

impl Sender {
    fn health(&self) -> MutexGuard<'_, Health> {
        // A panic elsewhere leaves it whole: each change is one assignment after another.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how the collector answered, and tells what is news.
    fn note(&self, trouble: Option<String>) {
        let endpoint = self.url.origin();
        let Some(error) = trouble else {
            if self.health().took() {
                tracing::info!(endpoint, "the collector takes traces again");
            }
            return;
        };
        if self.health().failed(Instant::now(), fastrand::u64(..)) {
            tracing::warn!(
                endpoint,
                error,
                "traces cannot be sent and are dropped until the collector takes them; see that it is there, takes OTLP over HTTP (usually at port 4318, not at 4317 of gRPC), and that a NetworkPolicy lets the operator reach it"
            );
        }
    }

    /// The exporter's request as one of ours.
    fn read(&self, request: http::Request<Bytes>) -> Request {
        let (head, body) = request.into_parts();
        let mut ours = Request::new(Method::Post, self.url.clone())
            .timeout(LIMIT)
            .body(body.to_vec());
        for (name, value) in &head.headers {
            if let Ok(value) = value.to_str()
                && !is_transport_header(name.as_str())
            {
                ours = ours.secret_header(name.as_str(), SecretText::from(value.to_owned()));
            }
        }
        ours
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, channel},
    };

    use opentelemetry::trace::{Span as _, Tracer as _, TracerProvider as _};
    use opentelemetry_sdk::{error::OTelSdkResult, trace::SpanData};

    use super::*;

    /// An exporter that stands still until the other end is dropped, and counts what it gets.
    #[derive(Debug)]
    struct Stuck {
        until: Mutex<Receiver<()>>,
        sent: Arc<AtomicUsize>,
    }

    impl opentelemetry_sdk::trace::SpanExporter for Stuck {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            let _ = self.until.lock().unwrap().recv();
            self.sent.fetch_add(batch.len(), Ordering::Relaxed);
            Ok(())
        }
    }

    #[test]
    fn a_full_queue_drops_spans_and_holds_up_nobody() {
        let (go, until) = channel();
        let sent = Arc::new(AtomicUsize::new(0));
        let stuck = Stuck {
            until: Mutex::new(until),
            sent: Arc::clone(&sent),
        };
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(stuck).build())
            .build();
        let tracer = provider.tracer("test");
        // If one of these waited, it would wait for ever.
        for _ in 0..10_000 {
            tracer.start("span").end();
        }
        drop(go);
        provider.shutdown().unwrap();
        let sent = sent.load(Ordering::Relaxed);
        // What the queue holds, and the batch that was on its way.
        assert!((2048..=2048 + 512).contains(&sent), "{sent}");
    }

    #[test]
    fn a_collector_that_is_away_is_told_once_and_tried_less_and_less() {
        let (mut health, began) = (Health::default(), Instant::now());
        let told: Vec<bool> = (0..10).map(|_| health.failed(began, 7)).collect();
        assert_eq!(told.iter().filter(|told| **told).count(), 1, "{told:?}");
        assert_eq!(told.iter().position(|told| *told), Some(3));
        let mut health = Health::default();
        let mut waits = Vec::new();
        for failure in 1..=30 {
            health.failed(began, 7);
            assert_eq!(health.may_send(began), failure < TRIES, "{failure}");
            waits.extend(health.held.map(|until| until - began));
        }
        // 1 s, doubled; the jitter of the longest may go either way.
        assert!(waits.iter().take(8).is_sorted(), "{waits:?}");
        assert!(
            waits.iter().skip(9).all(|wait| *wait >= backoff::MAX / 2),
            "{waits:?}"
        );
        assert!(waits.iter().all(|wait| *wait <= backoff::MAX), "{waits:?}");
        assert!(health.may_send(began + Duration::from_secs(300)));
        assert!(health.took(), "that it is back is news");
        assert!(!health.took() && health.may_send(began));
        // A hiccup that a retry gets over is none.
        assert!(!health.failed(began, 7) && !health.took());
    }

    #[test]
    fn an_endpoint_is_an_address_and_holds_no_credentials() {
        assert!(endpoint("http://collector.monitoring:4318").is_ok());
        assert!(endpoint("https://collector.example.com/otlp").is_ok());
        for (text, says) in [
            ("collector:4318", "http://"),
            ("grpc://collector:4317", "http://"),
            ("http://user:word@collector:4318", "OTEL_EXPORTER_OTLP_HEADERS"),
            (
                "https://collector.example.com/?key=x",
                "OTEL_EXPORTER_OTLP_HEADERS",
            ),
        ] {
            let message = endpoint(text).unwrap_err();
            assert!(
                message.contains(says) && !message.contains("word"),
                "{text}: {message}"
            );
        }
    }
}
