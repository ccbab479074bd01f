//! Log lines that name what they belong to: the trace of the pass in which they were written, and its object where the
//! line does not name it itself.

use std::fmt::{self, Write};

use tracing::{Event, Subscriber};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use super::{LogFormat, trace};

/// A format with the fields `kind`, `namespace`, `name` and `trace_id` at the end of each line of a pass.
pub(super) struct Joined<F> {
    pub(super) inner: F,
    pub(super) format: LogFormat,
}

impl<S, N, F> FormatEvent<S, N> for Joined<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.inner.format_event(ctx, Writer::new(&mut line), event)?;
        let line = line.trim_end_matches('\n');
        let tail = tail(self.format, event)?;
        match self.format {
            LogFormat::Json => {
                let object = line.strip_suffix('}').unwrap_or(line);
                writeln!(writer, "{object}{tail}}}")
            }
            LogFormat::Text => writeln!(writer, "{line}{tail}"),
        }
    }
}

/// What is added. A field that the event has itself is not added: a JSON object has each name once.
fn tail(format: LogFormat, event: &Event<'_>) -> Result<String, fmt::Error> {
    let own = event.metadata().fields();
    trace::with_current(|subject, id| {
        let id = id.map(|id| id.to_string());
        let fields = [
            ("kind", subject.map(|subject| subject.kind)),
            ("namespace", subject.map(|subject| subject.namespace.as_str())),
            ("name", subject.map(|subject| subject.name.as_str())),
            ("trace_id", id.as_deref()),
        ];
        let mut tail = String::new();
        for (name, value) in fields {
            let Some(value) = value.filter(|value| !value.is_empty() && own.field(name).is_none()) else {
                continue;
            };
            match format {
                LogFormat::Json => write!(tail, ",\"{name}\":{}", serde_json::Value::from(value))?,
                LogFormat::Text => write!(tail, " {name}={value}")?,
            }
        }
        Ok(tail)
    })
}
