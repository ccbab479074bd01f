//! How findings are printed: for people, for programs, and as annotations of a GitHub workflow.

use std::io::{self, Write};

use serde_json::json;

use super::{Severity, Verdict};

/// How findings are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A line for each finding: file, line, field, what to do.
    #[default]
    Text,
    /// One JSON object: `findings` (`severity`, `file`, `line`, `kind`, `object`, `field`, `message`), `checked`,
    /// `others`, `skippedRules`.
    Json,
    /// Workflow commands, which GitHub shows beside the lines they are about.
    Github,
}

/// Prints a verdict.
///
/// # Errors
///
/// `out` cannot be written.
pub fn print(verdict: &Verdict, format: Format, out: &mut impl Write) -> io::Result<()> {
    match format {
        Format::Text => text(verdict, out),
        Format::Json => json(verdict, out),
        Format::Github => github(verdict, out),
    }
}

const fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Note => "note",
    }
}

fn text(verdict: &Verdict, out: &mut impl Write) -> io::Result<()> {
    for finding in &verdict.findings {
        writeln!(
            out,
            "{}:{}: {}: {} {}: {}{}",
            finding.file,
            finding.line,
            word(finding.severity),
            finding.kind,
            finding.object,
            if finding.field.is_empty() {
                String::new()
            } else {
                format!("{}: ", finding.field)
            },
            finding.message
        )?;
    }
    let errors = verdict
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .count();
    writeln!(
        out,
        "{} checked, {errors} {}; {} of other kinds passed over",
        objects(verdict.checked),
        if errors == 1 { "error" } else { "errors" },
        objects(verdict.others)
    )?;
    if verdict.checked > 0 {
        writeln!(
            out,
            "not judged offline, because they compare with what was there before:"
        )?;
        for rule in &verdict.skipped_rules {
            writeln!(out, "  {rule}")?;
        }
    }
    Ok(())
}

fn objects(count: usize) -> String {
    format!("{count} {}", if count == 1 { "object" } else { "objects" })
}

fn json(verdict: &Verdict, out: &mut impl Write) -> io::Result<()> {
    let findings: Vec<_> = verdict
        .findings
        .iter()
        .map(|finding| {
            json!({
                "severity": word(finding.severity),
                "file": finding.file,
                "line": finding.line,
                "kind": finding.kind,
                "object": finding.object,
                "field": finding.field,
                "message": finding.message,
            })
        })
        .collect();
    let whole = json!({
        "findings": findings,
        "checked": verdict.checked,
        "others": verdict.others,
        "skippedRules": verdict.skipped_rules,
    });
    writeln!(out, "{whole:#}")
}

fn github(verdict: &Verdict, out: &mut impl Write) -> io::Result<()> {
    for finding in &verdict.findings {
        let command = match finding.severity {
            Severity::Error => "error",
            Severity::Note => "notice",
        };
        let title = format!("{} {}", finding.kind, finding.object);
        let message = if finding.field.is_empty() {
            finding.message.clone()
        } else {
            format!("{}: {}", finding.field, finding.message)
        };
        writeln!(
            out,
            "::{command} file={},line={},title={}::{}",
            property(&finding.file),
            finding.line,
            property(&title),
            escaped(&message)
        )?;
    }
    Ok(())
}

/// A value after the `::` of a workflow command.
fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A value of a property of a workflow command.
fn property(text: &str) -> String {
    escaped(text).replace(':', "%3A").replace(',', "%2C")
}
