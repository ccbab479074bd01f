//! `webhook-operator verify`: judges one delivery as a receiver has to, and says in words what is wrong with it.
//!
//! For people who debug a receiver, so it tries what goes wrong in practice: a line break at the end of the secret or
//! the body, a secret still in Base64, another way of writing the signature. [`request`] reads the delivery,
//! `schemes` knows what each upstream sends, [`command`] is the command line around them. What is signed and how
//! stands with the providers; no secret is ever part of a message.

pub mod command;
pub mod request;
mod schemes;

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;

use crate::{api::provider::SignatureEncoding, net::SecretText, verify::request::Delivery};

/// How a delivery shows where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// ricloud: `Ricloud-Signature` over time and body.
    Ricloud,
    /// Autocosmos: `Notification-Signature` over up to three headers.
    Autocosmos {
        /// What stands between the signed values; `None`: any of the known ones.
        separator: Option<String>,
        /// How the signature is written; `None`: either way.
        encoding: Option<SignatureEncoding>,
    },
    /// Thulium, which signs nothing: Basic authentication by this user; the secret is the password.
    Basic {
        /// User name.
        username: String,
    },
    /// Conpeek, which signs nothing: a header of this name; the secret is its value.
    Header {
        /// Name of the header, in any case.
        name: String,
    },
}

/// By what a delivery is judged.
#[derive(Clone, Debug)]
pub struct Terms {
    /// What is looked at.
    pub scheme: Scheme,
    /// How old a signature may be. Times in the future are accepted, as ricloud's own client accepts them.
    pub tolerance: Duration,
    /// What counts as now.
    pub now: Timestamp,
}

/// A secret that may be the right one.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What to call it in messages: the file it was read from.
    pub name: String,
    /// The secret.
    pub secret: SecretText,
}

/// A delivery that is to be accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Valid {
    /// In words, with the name of the candidate that fits.
    pub what: String,
    /// What is worth knowing beyond that.
    pub notes: Vec<String>,
}

/// A delivery that is to be refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// What is wrong, in words.
    pub what: String,
    /// Likely causes, each with its cure.
    pub hints: Vec<String>,
}

impl Invalid {
    fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            hints: Vec::new(),
        }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

/// Judges a delivery by the first of the candidates that fits.
///
/// # Errors
///
/// What is wrong with the delivery, or with the secrets.
pub fn judge(delivery: &Delivery, candidates: &[Candidate], terms: &Terms) -> Result<Valid, Invalid> {
    match &terms.scheme {
        Scheme::Ricloud => schemes::ricloud(delivery, candidates, terms),
        Scheme::Autocosmos { separator, encoding } => {
            schemes::autocosmos(delivery, candidates, terms, separator.as_deref(), *encoding)
        }
        Scheme::Basic { username } => schemes::basic(delivery, candidates, username),
        Scheme::Header { name } => schemes::header(delivery, candidates, name),
    }
}

/// How a candidate had to be read to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Exact,
    WithoutLineBreak,
    Decoded,
}

/// The candidate that fits, exactly as it is if there is one, else in the readings that are often meant.
fn fitting(candidates: &[Candidate], fits: impl Fn(&SecretText) -> bool) -> Option<(&Candidate, Reading)> {
    [Reading::Exact, Reading::WithoutLineBreak, Reading::Decoded]
        .into_iter()
        .find_map(|reading| {
            let candidate = candidates
                .iter()
                .find(|candidate| read(&candidate.secret, reading).is_some_and(|secret| fits(&secret)))?;
            Some((candidate, reading))
        })
}

fn read(secret: &SecretText, reading: Reading) -> Option<SecretText> {
    let text = secret.expose();
    let without = text
        .strip_suffix("\r\n")
        .or_else(|| text.strip_suffix('\n'))
        .unwrap_or(text);
    match reading {
        Reading::Exact => Some(secret.clone()),
        Reading::WithoutLineBreak => (without.len() < text.len()).then(|| without.to_owned().into()),
        Reading::Decoded => {
            let decoded = String::from_utf8(STANDARD.decode(without).ok()?).ok()?;
            (!decoded.is_empty()).then(|| decoded.into())
        }
    }
}

/// Accepts for a candidate that fits, unless what fits is only the decoded text: that one is not in the file.
fn accept(found: (&Candidate, Reading), what: &str) -> Result<Valid, Invalid> {
    let (candidate, reading) = found;
    let name = &candidate.name;
    match reading {
        Reading::Exact | Reading::WithoutLineBreak => Ok(Valid {
            what: format!("{what} {name}"),
            notes: (reading == Reading::WithoutLineBreak)
                .then(|| format!("{name} ends with a line break that is not part of the secret; a receiver that reads it has to cut it off"))
                .into_iter()
                .collect(),
        }),
        Reading::Decoded => Err(Invalid::new(format!("{name} is not the secret, but its Base64 form")).hint(
            "`kubectl get secret -o yaml` shows values in Base64; decode it (base64 -d), or read it from the mounted Secret",
        )),
    }
}

/// The candidates in a message: `the secret in F` or `any of the 2 secrets`.
fn named(candidates: &[Candidate]) -> String {
    match candidates {
        [one] => format!("the secret in {}", one.name),
        many => format!("any of the {} secrets", many.len()),
    }
}

/// Judges the age of a signature that is right otherwise; adds it to the verdict.
fn judge_age(mut valid: Valid, signed_at: Timestamp, terms: &Terms) -> Result<Valid, Invalid> {
    let age = terms.now.as_second().saturating_sub(signed_at.as_second());
    let tolerance = terms.tolerance.as_secs();
    if age >= 0 && age.unsigned_abs() > tolerance {
        return Err(Invalid::new(format!(
            "the signature is right, but {age} s old, and {tolerance} s are tolerated"
        ))
        .hint("a repetition of an old delivery, or a wrong clock; to judge one that was kept, give its time with --at"));
    }
    if age < 0 && age.unsigned_abs() > tolerance {
        valid.notes.push(format!(
            "it was signed {} s in the future: one of the clocks is wrong",
            age.unsigned_abs()
        ));
    }
    valid.what = format!("{}, {age} s old", valid.what);
    Ok(valid)
}

#[cfg(test)]
mod tests;
