//! The two formats of the page: OpenMetrics, for who asks for it as Prometheus does, and the classic text for all others,
//! which older scrapers and `promtool check metrics` read.
//!
//! They differ in the names of counters above their series (with `_total` only in the classic one) and in what they end
//! with; a reader of one that gets the other loses type and help of the counters.

use std::{collections::BTreeSet, fmt::Write};

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The classic text of Prometheus, 0.0.4.
    Classic,
}

impl Format {
    /// The one that an `Accept` header asks for.
    #[must_use]
    pub fn asked_for(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Classic
        }
    }

    /// Value of `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// `page`, which is OpenMetrics, in this format.
    pub(super) fn write(self, page: String) -> String {
        match self {
            Self::OpenMetrics => page,
            Self::Classic => classic(&page),
        }
    }
}

fn classic(page: &str) -> String {
    let typed = |line: &str| -> Option<(String, String)> {
        let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
        Some((name.to_owned(), kind.to_owned()))
    };
    let counters: BTreeSet<String> = page
        .lines()
        .filter_map(typed)
        .filter_map(|(name, kind)| (kind == "counter").then_some(name))
        .collect();
    let mut out = String::with_capacity(page.len());
    for line in page.lines() {
        let described = ["# HELP ", "# TYPE "]
            .into_iter()
            .find_map(|mark| Some((mark, line.strip_prefix(mark)?.split_once(' ')?)));
        // Writing to a String does not fail.
        let _ = match described {
            Some((mark, (name, rest))) if counters.contains(name) => {
                writeln!(out, "{mark}{name}_total {rest}")
            }
            None if line.starts_with("# UNIT ") || line == "# EOF" => Ok(()),
            Some(_) | None => writeln!(out, "{line}"),
        };
    }
    out
}
