//! Traces: what a pass did, in which order and for how long, as spans of OpenTelemetry; and the id by which a log line
//! is joined to its trace.
//!
//! A span has what is set here by name and nothing else: no event of the log becomes part of it, and no library adds to
//! it. So it holds no path, query, header or body of a call, and no text that an upstream sent. The names of the
//! attributes are in [`key`], and documented in `docs/observability.md`.
//!
//! Every pass has an id, also when no span is kept: then the log lines of one pass still share it. Where [`install`] was
//! not called (unit tests, simulations) nothing of this costs anything.

use std::{borrow::Cow, sync::OnceLock};

use opentelemetry::{
    Context, KeyValue, Value,
    trace::{FutureExt, SpanKind, Status, TraceContextExt, TraceId, Tracer, TracerProvider},
};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

/// Name of the scope in which all spans are made.
const SCOPE: &str = "webhook-operator";

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Names of attributes. Where OpenTelemetry has a convention, it is followed.
pub mod key {
    /// Kind of the object that a pass looks at.
    pub const OBJECT_KIND: &str = "object.kind";
    /// Its namespace; absent for a kind of the cluster.
    pub const NAMESPACE: &str = "k8s.namespace.name";
    /// Its name.
    pub const OBJECT_NAME: &str = "object.name";
    /// Its uid.
    pub const OBJECT_UID: &str = "object.uid";
    /// Its generation when the pass began.
    pub const OBJECT_GENERATION: &str = "object.generation";
    /// Which upstream.
    pub const PROVIDER_TYPE: &str = "provider.type";
    /// Kind of the provider that a Webhook refers to.
    pub const PROVIDER_KIND: &str = "provider.kind";
    /// Its name.
    pub const PROVIDER_NAME: &str = "provider.name";
    /// How a pass or a write to the API server ended.
    pub const OUTCOME: &str = "outcome";
    /// What a call to an upstream is for.
    pub const OPERATION: &str = "upstream.operation";
    /// Which attempt in a row this is, from 1.
    pub const ATTEMPT: &str = "attempt";
    /// Method of a call.
    pub const METHOD: &str = "http.request.method";
    /// Status of an answer.
    pub const STATUS_CODE: &str = "http.response.status_code";
    /// Host that is called, never a path.
    pub const HOST: &str = "server.address";
    /// Port that is called.
    pub const PORT: &str = "server.port";
    /// Class of the error, where there was no answer.
    pub const ERROR: &str = "error.type";
    /// What is written of an object: `metadata` or `status`.
    pub const PART: &str = "object.part";
    /// Verdict on a receiver, as the condition `Tested` calls it.
    pub const TESTED: &str = "tested";
}

/// What a pass is about. Log lines of the pass that do not name it themselves get it from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Kind of the object.
    pub kind: &'static str,
    /// Its namespace; empty for a kind of the cluster.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A span that ends when it is dropped, so also when the work that it measures is given up.
pub struct Span(Context);

impl Span {
    /// A new trace, about `subject`.
    #[must_use]
    pub fn pass(name: &'static str, subject: Subject, mut attributes: Vec<KeyValue>) -> Self {
        attributes.push(KeyValue::new(key::OBJECT_KIND, subject.kind));
        attributes.push(KeyValue::new(key::OBJECT_NAME, subject.name.clone()));
        if !subject.namespace.is_empty() {
            attributes.push(KeyValue::new(key::NAMESPACE, subject.namespace.clone()));
        }
        let parent = Context::new().with_value(subject);
        Self::begin(&parent, name, SpanKind::Internal, attributes)
    }

    /// A part of what runs now: a call to somebody else.
    #[must_use]
    pub fn call(name: impl Into<Cow<'static, str>>, attributes: Vec<KeyValue>) -> Self {
        Self::call_of(&Origin::current(), name, attributes)
    }

    /// A call that a pass has asked for, and that outlives it.
    #[must_use]
    pub fn call_of(origin: &Origin, name: impl Into<Cow<'static, str>>, attributes: Vec<KeyValue>) -> Self {
        Self::begin(&origin.0, name, SpanKind::Client, attributes)
    }

    fn begin(
        parent: &Context,
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
        attributes: Vec<KeyValue>,
    ) -> Self {
        let Some(tracer) = TRACER.get() else {
            return Self(parent.clone());
        };
        let span = tracer
            .span_builder(name)
            .with_kind(kind)
            .with_attributes(attributes)
            .start_with_context(tracer, parent);
        Self(parent.with_span(span))
    }

    /// Sets an attribute.
    pub fn set(&self, key: &'static str, value: impl Into<Value>) {
        self.0.span().set_attribute(KeyValue::new(key, value));
    }

    /// Marks it as failed. `why` is one of a fixed set of words.
    pub fn fail(&self, why: &'static str) {
        self.0.span().set_status(Status::error(why));
    }

    /// Runs `work` within it: spans begun meanwhile are its parts, and log lines written meanwhile belong to its trace.
    pub async fn around<F: Future>(&self, work: F) -> F::Output {
        work.with_context(self.0.clone()).await
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        self.0.span().end();
    }
}

/// What runs now, for work that it leaves to others.
#[derive(Clone)]
pub struct Origin(Context);

impl Origin {
    /// What runs now.
    #[must_use]
    pub fn current() -> Self {
        Self(Context::current())
    }
}

/// Makes spans from now on, for the whole process; the first call counts.
pub fn install(provider: &SdkTracerProvider) {
    let _ = TRACER.set(provider.tracer(SCOPE));
}

/// Tells `read` what runs now: what it is about, and the id of its trace. `None`: nothing does.
pub(super) fn with_current<T>(read: impl FnOnce(Option<&Subject>, Option<TraceId>) -> T) -> T {
    Context::map_current(|context| {
        let id = context.span().span_context().trace_id();
        read(context.get(), Some(id).filter(|id| *id != TraceId::INVALID))
    })
}
