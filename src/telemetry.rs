//! Logs: one line for each event, on standard error, as JSON or as text.
//!
//! Whatever `--log-filter` asks for, only the operator's own events go below `info`: the libraries underneath
//! print what they carry. Found by reading them: `kube_client::client` prints the whole answer of the apiserver
//! at `warn` when it does not fit the type (a Secret, say), and the text of refusals at `debug`; `kube_runtime`
//! prints decoding errors, which quote values, at `debug`; `reqwest` prints the bytes of a connection at `trace`
//! where that is switched on; `hyper`, `h2` and `axum` print headers or bodies in some versions. A list of what
//! is allowed also holds for the next version and the next library, a list of what is not would not.
//!
//! That the operator's own events hold no secret is for their authors to see to; [`crate::net::SecretText`] helps.
//!
//! [`trace`] has the traces, whose ids stand in the lines of their passes, and [`otlp`] sends them.

mod joined;
pub mod otlp;
pub mod trace;

use std::io::{self, IsTerminal, Write};

use tracing::{Level, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{LevelFilter, Targets},
    fmt::{self, MakeWriter, format::JsonFields},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use self::joined::Joined;

/// The filter when none is given: what an operator of a cluster wants to read every day.
pub const DEFAULT_FILTER: &str = "info,kube=warn,hyper=warn,tower=warn";

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object for each line, for a log collector.
    #[default]
    Json,
    /// Words, for people; coloured on a terminal.
    Text,
}

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error(
        "{spec:?} is no log filter ({source}): give a level such as info, or targets with levels such as info,webhook_operator=debug"
    )]
    Filter {
        /// As given.
        spec: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// A subscriber is installed already.
    #[error("logging was started before")]
    Started(#[from] tracing_subscriber::util::TryInitError),
}

/// Starts logging for the whole process, from `log` records too.
///
/// # Errors
///
/// `filter` is none (see [`DEFAULT_FILTER`] for an example), or logging was started before.
pub fn init(format: LogFormat, filter: &str) -> Result<(), TelemetryError> {
    subscriber(format, filter, io::stderr, io::stderr().is_terminal())?.try_init()?;
    Ok(())
}

/// Checks a filter without starting anything.
///
/// # Errors
///
/// [`TelemetryError::Filter`].
pub fn check_filter(spec: &str) -> Result<(), TelemetryError> {
    parse(spec).map(drop)
}

fn parse(spec: &str) -> Result<EnvFilter, TelemetryError> {
    let builder = EnvFilter::builder()
        .with_regex(false)
        .with_default_directive(LevelFilter::INFO.into());
    builder.parse(spec).map_err(|source| TelemetryError::Filter {
        spec: spec.to_owned(),
        source,
    })
}

fn subscriber<W>(
    format: LogFormat,
    filter: &str,
    writer: W,
    ansi: bool,
) -> Result<impl Subscriber + Send + Sync + 'static, TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = match format {
        LogFormat::Json => {
            let json = fmt::format().json().flatten_event(true);
            // No library's span becomes a part of a line.
            let inner = json.with_current_span(false).with_span_list(false);
            fmt::layer()
                .fmt_fields(JsonFields::new())
                .event_format(Joined { inner, format })
                .with_writer(writer)
                .boxed()
        }
        LogFormat::Text => {
            let inner = fmt::format().with_ansi(ansi);
            fmt::layer()
                .with_ansi(ansi)
                .event_format(Joined { inner, format })
                .with_writer(OneLine(writer))
                .boxed()
        }
    };
    Ok(Registry::default()
        .with(lines)
        .with(parse(filter)?)
        .with(ceiling()))
}

/// What no filter can lift.
fn ceiling() -> Targets {
    Targets::new()
        .with_default(Level::INFO)
        .with_target("webhook_operator", Level::TRACE)
        .with_target("kube_client::client", Level::ERROR)
}

/// Keeps an event that holds line breaks on one line, so that a text from outside cannot look like an event.
struct OneLine<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for OneLine<W> {
    type Writer = OneLineWriter<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        OneLineWriter(self.0.make_writer())
    }
}

struct OneLineWriter<W>(W);

impl<W: Write> Write for OneLineWriter<W> {
    /// The layer hands over one whole event, with its line end, in one call.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let body = event.strip_suffix(b"\n").unwrap_or(event);
        let mut line = Vec::with_capacity(event.len());
        for &byte in body {
            match byte {
                b'\n' => line.extend_from_slice(b"\\n"),
                b'\r' => line.extend_from_slice(b"\\r"),
                _ => line.push(byte),
            }
        }
        line.push(b'\n');
        self.0.write_all(&line)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use k8s_openapi::api::core::v1::Secret;
    use kube::{Api, Client, client::Body};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Captured {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    /// What is logged while `work` runs.
    fn logged(format: LogFormat, filter: &str, work: impl FnOnce()) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = subscriber(format, filter, move || writer.clone(), false).unwrap();
        tracing::subscriber::with_default(subscriber, work);
        captured.text()
    }

    /// Reads a Secret whose answer does not fit the type, and is refused another with a telling text.
    fn read_broken_secrets() {
        let service = tower::service_fn(|request: http::Request<Body>| async move {
            let (code, body) = if request.uri().path().ends_with("broken") {
                (
                    200,
                    r#"{"kind":"Secret","data":{"token":"c2VjcmV0LXZhbHVl","n":1}}"#,
                )
            } else {
                (
                    422,
                    r#"{"kind":"Status","status":"Failure","code":422,"message":"Invalid value: c2VjcmV0LXZhbHVl"}"#,
                )
            };
            let answer = http::Response::builder()
                .status(code)
                .body(Body::from(body.as_bytes().to_vec()));
            Ok::<_, std::convert::Infallible>(answer.unwrap())
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let secrets: Api<Secret> = Api::namespaced(Client::new(service, "default"), "default");
            secrets.get("broken").await.unwrap_err();
            secrets.get("refused").await.unwrap_err();
        });
    }

    #[test]
    fn no_filter_makes_the_kubernetes_client_print_answers() {
        // Without the ceiling both leak: if not, this test would prove nothing.
        let captured = Captured::default();
        let writer = captured.clone();
        let lines = fmt::layer().with_writer(move || writer.clone());
        let bare = Registry::default().with(lines).with(EnvFilter::new("trace"));
        tracing::subscriber::with_default(bare, read_broken_secrets);
        assert_eq!(
            captured.text().matches("c2VjcmV0LXZhbHVl").count(),
            2,
            "{}",
            captured.text()
        );

        for filter in [
            "trace",
            "kube_client=trace,kube_client::client=trace",
            "info,[HTTP]=trace",
            DEFAULT_FILTER,
        ] {
            for format in [LogFormat::Json, LogFormat::Text] {
                let text = logged(format, filter, || {
                    read_broken_secrets();
                    tracing::info!("still logging");
                });
                assert!(!text.contains("c2VjcmV0LXZhbHVl"), "{filter}: {text}");
                assert!(
                    filter.starts_with("kube_client") || text.contains("still logging"),
                    "{filter}: {text}"
                );
            }
        }
    }

    #[test]
    fn libraries_stay_at_info_and_the_operator_may_say_all() {
        let text = logged(LogFormat::Text, "trace,hyper=trace,reqwest=trace", || {
            tracing::trace!("own");
            tracing::trace!(target: "hyper::proto::h1::io", "LEAK");
            tracing::trace!(target: "reqwest::connect::verbose", "LEAK");
            tracing::debug!(target: "h2::codec::framed_read", "LEAK");
            tracing::debug!(target: "rustls::client::hs", "LEAK");
            tracing::trace!(target: "tower::buffer::worker", "LEAK");
            tracing::trace!(target: "axum::rejection", "LEAK");
            tracing::debug!(target: "a_library_of_tomorrow", "LEAK");
            tracing::warn!(target: "kube_client::client", "LEAK");
            tracing::info!(target: "hyper_util", "fine");
            tracing::error!(target: "kube_client::client::builder", "fine");
        });
        assert!(!text.contains("LEAK"), "{text}");
        assert_eq!(text.lines().count(), 3, "{text}");
    }

    #[test]
    fn the_filter_is_obeyed_below_the_ceiling() {
        let text = logged(LogFormat::Text, DEFAULT_FILTER, || {
            tracing::info!("shown");
            tracing::debug!("hidden");
            tracing::info!(target: "kube_runtime::watcher", "hidden");
            tracing::warn!(target: "kube_runtime::watcher", "shown");
        });
        assert_eq!(
            (text.matches("shown").count(), text.matches("hidden").count()),
            (2, 0),
            "{text}"
        );
    }

    #[test]
    fn a_line_break_from_outside_stays_on_its_line() {
        let hostile = "x\r\n2026-01-01T00:00:00Z ERROR forged\u{1b}[31m";
        for format in [LogFormat::Json, LogFormat::Text] {
            let text = logged(format, "info", || {
                tracing::info!(name = hostile, "first {hostile}");
                tracing::info!("second");
            });
            assert_eq!(text.lines().count(), 2, "{text}");
            assert!(!text.contains('\u{1b}') && !text.contains('\r'), "{text:?}");
        }
    }

    #[test]
    fn json_lines_are_flat() {
        let text = logged(LogFormat::Json, "info", || {
            tracing::info!(namespace = "shop", "applied")
        });
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(
            (&line["message"], &line["namespace"]),
            (&"applied".into(), &"shop".into())
        );
        assert_eq!(line["level"], "INFO");
        assert!(line["timestamp"].is_string());
    }

    #[test]
    fn lines_of_a_pass_name_its_object_and_its_trace_and_each_field_once() {
        use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
        // No span is kept, and there are ids all the same.
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::AlwaysOff)
            .build();
        trace::install(&provider);
        let subject = trace::Subject {
            kind: "Webhook",
            namespace: "shop".to_owned(),
            name: "or\"ders".to_owned(),
        };
        let work = || {
            let span = trace::Span::pass("webhook pass", subject.clone(), Vec::new());
            futures::executor::block_on(span.around(async {
                tracing::info!("first");
                tracing::info!(name = "own", "second");
            }));
            tracing::info!("outside");
        };
        let text = logged(LogFormat::Json, "info", work);
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let id = lines[0]["trace_id"].as_str().unwrap();
        assert!(id.len() == 32 && id != "0".repeat(32), "{text}");
        assert_eq!(
            (&lines[0]["kind"], &lines[0]["namespace"], &lines[0]["name"]),
            (&"Webhook".into(), &"shop".into(), &"or\"ders".into())
        );
        assert_eq!(
            (&lines[1]["name"], &lines[1]["trace_id"]),
            (&"own".into(), &id.into())
        );
        assert_eq!(
            text.lines().nth(1).unwrap().matches("\"name\"").count(),
            1,
            "{text}"
        );
        assert!(
            lines[2].get("trace_id").is_none() && lines[2].get("name").is_none(),
            "{text}"
        );

        let text = logged(LogFormat::Text, "info", work);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].contains(" kind=Webhook namespace=shop name=or\"ders trace_id="),
            "{text}"
        );
        assert!(
            lines[1].contains("name=\"own\"") && lines[1].matches("name=").count() == 1,
            "{text}"
        );
        assert!(lines[2].ends_with("outside"), "{text}");
    }

    #[test]
    fn a_bad_filter_is_named() {
        let error = check_filter("info,kube=loud").unwrap_err().to_string();
        assert!(
            error.starts_with(r#""info,kube=loud" is no log filter"#) && error.contains("debug"),
            "{error}"
        );
        assert!(check_filter(DEFAULT_FILTER).is_ok());
    }
}
