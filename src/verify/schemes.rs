//! What each upstream sends with a delivery, judged with words for what is wrong. The signatures themselves are the
//! providers'.

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::{Timestamp, fmt::rfc2822};

use super::{Candidate, Invalid, Terms, Valid, accept, fitting, judge_age, named, request::Delivery};
use crate::{
    api::provider::SignatureEncoding,
    net::SecretText,
    provider::{
        autocosmos::sign::{self as autocosmos_sign, DeliveryStyle, KNOWN_STYLES, Notification},
        ricloud::sign::{self as ricloud_sign, Refusal, SIGNATURE_HEADER},
    },
};

/// Headers of an Autocosmos delivery.
const HOOK_ID: &str = "Notification-Hook-ID";
const TIMESTAMP: &str = "Notification-Timestamp";
const TOPIC: &str = "Notification-Topic";
const SIGNATURE: &str = "Notification-Signature";

/// A header that has to stand there exactly once.
fn one<'a>(delivery: &'a Delivery, name: &'a str, cure: &str) -> Result<&'a str, Invalid> {
    let mut values = delivery.all(name);
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value),
        (Some(_), Some(_)) => Err(Invalid::new(format!("{name} stands there more than once"))
            .hint("something on the way adds a header of its own, or somebody forges")),
        (None, _) => Err(Invalid::new(format!("{name} is missing")).hint(cure)),
    }
}

pub(super) fn ricloud(
    delivery: &Delivery,
    candidates: &[Candidate],
    terms: &Terms,
) -> Result<Valid, Invalid> {
    let header = one(
        delivery,
        SIGNATURE_HEADER,
        "ricloud sends it with each delivery: something on the way removes it, or this is none of ricloud's",
    )?;
    let judged = |secret: &SecretText, body: &[u8]| ricloud_sign::verify_origin(secret, header, body);
    let fits = |secret: &SecretText, body: &[u8]| judged(secret, body).is_ok();
    if let Some(found) = fitting(candidates, |secret| fits(secret, &delivery.body)) {
        let valid = accept(found, "signed with the secret in")?;
        let signed_at = ricloud_sign::signed_at(header);
        return match signed_at.and_then(|seconds| Timestamp::from_second(seconds).ok()) {
            Some(signed_at) => judge_age(valid, signed_at, terms),
            None => Err(Invalid::new(format!("the time in {SIGNATURE_HEADER} is no time"))),
        };
    }
    let malformed = candidates
        .iter()
        .any(|candidate| judged(&candidate.secret, &delivery.body) == Err(Refusal::Malformed));
    if malformed {
        return Err(Invalid::new(format!(
            "{SIGNATURE_HEADER} is not of the form t=<unix seconds>,s=<base64>"
        )));
    }
    let what = format!("{SIGNATURE_HEADER} is not of this body and {}", named(candidates));
    let invalid = Invalid::new(what);
    match other_body(&delivery.body, |body| {
        fitting(candidates, |secret| fits(secret, body)).is_some()
    }) {
        Some(change) => Err(invalid.hint(format!(
            "it is of the body {change}: the raw bytes are signed, so nothing may touch them before they are verified"
        ))),
        None => Err(invalid.hint(
            "another secret (see `kubectl get webhook`, `secretRef`), or a body that was parsed and written anew on the way",
        )),
    }
}

/// How the body would have to be changed to fit: what terminals and editors do to one.
fn other_body(body: &[u8], fits: impl Fn(&[u8]) -> bool) -> Option<&'static str> {
    let without = body
        .strip_suffix(b"\n")
        .map(|body| body.strip_suffix(b"\r").unwrap_or(body));
    if without.is_some_and(&fits) {
        return Some("without the line break at its end");
    }
    if fits(&[body, b"\n"].concat()) {
        return Some("with a line break at its end");
    }
    let text = std::str::from_utf8(body).ok()?;
    if fits(text.replace("\r\n", "\n").as_bytes()) {
        return Some("with LF instead of CR LF");
    }
    if fits(text.replace("\r\n", "\n").replace('\n', "\r\n").as_bytes()) {
        return Some("with CR LF instead of LF");
    }
    None
}

pub(super) fn autocosmos(
    delivery: &Delivery,
    candidates: &[Candidate],
    terms: &Terms,
    separator: Option<&str>,
    encoding: Option<SignatureEncoding>,
) -> Result<Valid, Invalid> {
    let unsigned = "Autocosmos signs only where the Webhook has a `secretRef`; is it there, something on the way removes the header";
    let given = one(delivery, SIGNATURE, unsigned)?;
    let cure = "it is part of what is signed: something on the way removes it";
    let of = Notification {
        hook_id: one(delivery, HOOK_ID, cure)?,
        timestamp: one(delivery, TIMESTAMP, cure)?,
        topic: match delivery.header(TOPIC) {
            Some(_) => Some(one(delivery, TOPIC, cure)?),
            None => None,
        },
    };
    let style_for = |of, styles: &[DeliveryStyle<'_>]| {
        styles.iter().find_map(|style| {
            let fits = |secret: &SecretText| autocosmos_sign::verify_delivery(secret, of, *style, given);
            Some((fitting(candidates, fits)?, words(*style)))
        })
    };
    if let Some((found, style)) = style_for(of, &asked_for(separator, encoding)) {
        let mut valid = accept(found, "signed with the secret in")?;
        valid.notes.push(format!("the signature is written as {style}"));
        return match time(of.timestamp) {
            Some(signed_at) => judge_age(valid, signed_at, terms),
            None => {
                let note = format!("the form of {TIMESTAMP} is not known, so its age is not judged");
                valid.notes.push(note);
                Ok(valid)
            }
        };
    }
    let invalid = Invalid::new(format!(
        "{SIGNATURE} is not of these headers and {}",
        named(candidates)
    ));
    if let Some((_, style)) = style_for(of, &KNOWN_STYLES) {
        return Err(invalid.hint(format!(
            "it is right when written as {style}: set that in the receiver and in `autocosmos.deliverySignature` of the provider"
        )));
    }
    if let Some((_, style)) = style_for(Notification { topic: None, ..of }, &KNOWN_STYLES) {
        return Err(invalid.hint(format!(
            "it is right without {TOPIC} (as {style}): something on the way adds that header"
        )));
    }
    Err(invalid.hint(
        "another secret (see `secretRef` of the Webhook), headers that were changed on the way, or a separator that is not known here: --separator",
    ))
}

/// The styles in which a signature is accepted.
fn asked_for(separator: Option<&str>, encoding: Option<SignatureEncoding>) -> Vec<DeliveryStyle<'_>> {
    let encodings = match encoding {
        Some(encoding) => vec![encoding],
        None => vec![SignatureEncoding::Base64, SignatureEncoding::Hex],
    };
    match separator {
        Some(separator) => encodings
            .into_iter()
            .map(|encoding| DeliveryStyle { separator, encoding })
            .collect(),
        None => KNOWN_STYLES
            .into_iter()
            .filter(|style| encodings.contains(&style.encoding))
            .collect(),
    }
}

fn words(style: DeliveryStyle<'_>) -> String {
    let encoding = match style.encoding {
        SignatureEncoding::Base64 => "Base64",
        SignatureEncoding::Hex => "Hex",
    };
    match style.separator {
        "" => format!("{encoding}, nothing between the values"),
        separator => format!("{encoding}, separator {separator:?}"),
    }
}

/// A time in the forms that are common: the vendor's is not public.
fn time(text: &str) -> Option<Timestamp> {
    if let Ok(number) = text.parse::<i64>() {
        // Seconds reach 10^11 in the year 5138, milliseconds in 1973.
        return if number.unsigned_abs() < 100_000_000_000 {
            Timestamp::from_second(number).ok()
        } else {
            Timestamp::from_millisecond(number).ok()
        };
    }
    text.parse()
        .ok()
        .or_else(|| Some(rfc2822::parse(text).ok()?.timestamp()))
}

pub(super) fn basic(delivery: &Delivery, candidates: &[Candidate], username: &str) -> Result<Valid, Invalid> {
    let header = one(
        delivery,
        "Authorization",
        "Thulium sends it where the Webhook has a `basicAuthRef`; is it there, something on the way removes the header",
    )?;
    let given = header
        .split_once(' ')
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
        .and_then(|(_, value)| STANDARD.decode(value.trim()).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok());
    let Some((user, password)) = given.as_deref().and_then(|given| given.split_once(':')) else {
        return Err(Invalid::new(
            "Authorization is not of the form Basic <base64 of user:password>",
        ));
    };
    if user != username {
        return Err(Invalid::new(
            "Authorization has another user name than --username",
        ));
    }
    match fitting(candidates, |secret| secret.expose() == password) {
        Some(found) => accept(found, "sent with the password in"),
        None => Err(Invalid::new(format!(
            "the user name is right, the password is not {}",
            named(candidates)
        ))),
    }
}

pub(super) fn header(delivery: &Delivery, candidates: &[Candidate], name: &str) -> Result<Valid, Invalid> {
    let given = one(
        delivery,
        name,
        "Conpeek sends it where `headers` of the Webhook names it; is it there, something on the way removes the header",
    )?;
    match fitting(candidates, |secret| secret.expose() == given) {
        Some(found) => accept(found, "sent with the value in"),
        None => Err(Invalid::new(format!(
            "{name} has another value than {}",
            named(candidates)
        ))),
    }
}
