//! What `verify` says about deliveries that go wrong as they do in practice.

use super::*;
use crate::provider::{
    autocosmos::sign::{DeliveryStyle, Notification, sign_delivery},
    ricloud::sign::sign,
};

const NOW: i64 = 1_700_000_000;
const SECRET: &str = "a-secret-of-some-length";

fn terms(scheme: Scheme) -> Terms {
    Terms {
        scheme,
        tolerance: Duration::from_secs(600),
        now: Timestamp::from_second(NOW).unwrap(),
    }
}

fn candidate(secret: &str) -> Candidate {
    Candidate {
        name: "F".to_owned(),
        secret: secret.into(),
    }
}

fn delivery(headers: &[(&str, &str)], body: &str) -> Delivery {
    Delivery {
        headers: headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        body: body.as_bytes().to_vec(),
        surplus_bytes: 0,
    }
}

/// A ricloud delivery whose signature is over `signed`, whatever arrives.
fn ricloud(secret: &str, age: i64, signed: &str, arrived: &str) -> Delivery {
    let header = sign(&secret.into(), NOW - age, signed.as_bytes());
    delivery(&[("ricloud-signature", &header)], arrived)
}

fn judged(delivery: &Delivery, secrets: &[&str], scheme: Scheme) -> Result<Valid, Invalid> {
    let candidates: Vec<Candidate> = secrets.iter().map(|secret| candidate(secret)).collect();
    judge(delivery, &candidates, &terms(scheme))
}

fn ricloud_words(delivery: &Delivery, secrets: &[&str]) -> Result<String, String> {
    judged(delivery, secrets, Scheme::Ricloud)
        .map(|valid| [vec![valid.what], valid.notes].concat().join(" / "))
        .map_err(|invalid| [vec![invalid.what], invalid.hints].concat().join(" / "))
}

fn contains(result: Result<String, String>, ok: bool, parts: &[&str]) {
    assert_eq!(result.is_ok(), ok, "{result:?}");
    let (Ok(text) | Err(text)) = result;
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    assert!(!text.contains(SECRET), "{text}");
}

#[test]
fn secrets_as_they_come_out_of_a_shell() {
    let genuine = ricloud(SECRET, 3, "{}", "{}");
    contains(
        ricloud_words(&genuine, &[SECRET]),
        true,
        &["signed with the secret in F, 3 s old"],
    );
    contains(ricloud_words(&genuine, &["other", SECRET]), true, &["F, 3 s old"]);
    for end in ["\n", "\r\n"] {
        let result = ricloud_words(&genuine, &[&format!("{SECRET}{end}")]);
        contains(result, true, &["3 s old", "ends with a line break"]);
    }
    // A secret that really ends with a line break is signed with.
    let odd = format!("{SECRET}\n");
    assert_eq!(
        ricloud_words(&ricloud(&odd, 0, "{}", "{}"), &[&odd]).unwrap(),
        "signed with the secret in F, 0 s old"
    );
    let encoded = STANDARD.encode(SECRET);
    contains(
        ricloud_words(&genuine, &[&encoded]),
        false,
        &["Base64 form", "base64 -d"],
    );
    contains(
        ricloud_words(&genuine, &["x", "y"]),
        false,
        &["any of the 2 secrets", "another secret"],
    );
}

#[test]
fn bodies_that_were_touched() {
    for (signed, arrived, hint) in [
        ("{}", "{}\n", "without the line break at its end"),
        ("{}", "{}\r\n", "without the line break at its end"),
        ("{}\n", "{}", "with a line break at its end"),
        ("{\n}", "{\r\n}", "LF instead of CR LF"),
        ("{\r\n}", "{\n}", "CR LF instead of LF"),
        ("{}", "{ }", "written anew"),
    ] {
        let result = ricloud_words(&ricloud(SECRET, 0, signed, arrived), &[SECRET]);
        contains(result, false, &["not of this body and the secret in F", hint]);
    }
}

#[test]
fn ages() {
    for (age, ok, part) in [
        (600, true, "600 s old"),
        (601, false, "right, but 601 s old, and 600 s are tolerated"),
        (-600, true, "-600 s old"),
        (-601, true, "signed 601 s in the future"),
    ] {
        contains(
            ricloud_words(&ricloud(SECRET, age, "", ""), &[SECRET]),
            ok,
            &[part],
        );
    }
}

#[test]
fn headers_that_are_not_there_or_not_of_the_form() {
    contains(
        ricloud_words(&delivery(&[], ""), &[SECRET]),
        false,
        &["Ricloud-Signature is missing"],
    );
    let header = ("Ricloud-Signature", "t=1,s=AAAA");
    contains(
        ricloud_words(&delivery(&[header, header], ""), &[SECRET]),
        false,
        &["more than once"],
    );
    for value in ["", "sha256=00", "t=x,s=AAAA", "t=1,s=*"] {
        let result = ricloud_words(&delivery(&[("Ricloud-Signature", value)], ""), &[SECRET]);
        contains(result, false, &["not of the form t=<unix seconds>,s=<base64>"]);
    }
}

/// An Autocosmos delivery signed in a style, with the topic signed or not.
fn autocosmos(separator: &str, encoding: SignatureEncoding, timestamp: &str, topic_signed: bool) -> Delivery {
    let of = Notification {
        hook_id: "h",
        timestamp,
        topic: topic_signed.then_some("t"),
    };
    let signature = sign_delivery(&SECRET.into(), of, DeliveryStyle { separator, encoding });
    let headers = [
        ("Notification-Hook-ID", "h"),
        ("Notification-Timestamp", timestamp),
        ("Notification-Topic", "t"),
        ("Notification-Signature", &signature),
    ];
    delivery(&headers, "{}")
}

fn autocosmos_words(
    delivery: &Delivery,
    separator: Option<&str>,
    encoding: Option<SignatureEncoding>,
) -> Result<String, String> {
    let scheme = Scheme::Autocosmos {
        separator: separator.map(str::to_owned),
        encoding,
    };
    judged(delivery, &[SECRET], scheme)
        .map(|valid| [vec![valid.what], valid.notes].concat().join(" / "))
        .map_err(|invalid| [vec![invalid.what], invalid.hints].concat().join(" / "))
}

#[test]
fn autocosmos_styles_are_found_or_insisted_on() {
    let time = "2023-11-14T22:13:00Z";
    let piped = autocosmos("|", SignatureEncoding::Hex, time, true);
    contains(
        autocosmos_words(&piped, None, None),
        true,
        &["20 s old", "Hex, separator \"|\""],
    );
    contains(autocosmos_words(&piped, Some("|"), None), true, &["Hex"]);
    contains(
        autocosmos_words(&piped, Some(""), None),
        false,
        &[
            "right when written as Hex, separator \"|\"",
            "autocosmos.deliverySignature",
        ],
    );
    contains(
        autocosmos_words(&piped, None, Some(SignatureEncoding::Base64)),
        false,
        &["right when written as Hex"],
    );
    let odd = autocosmos("--", SignatureEncoding::Base64, time, true);
    contains(
        autocosmos_words(&odd, Some("--"), None),
        true,
        &["separator \"--\""],
    );
    contains(autocosmos_words(&odd, None, None), false, &["--separator"]);
    let added = autocosmos("", SignatureEncoding::Base64, time, false);
    contains(
        autocosmos_words(&added, None, None),
        false,
        &["right without Notification-Topic"],
    );
}

#[test]
fn autocosmos_times_of_every_common_form_are_judged() {
    for (old, fresh) in [
        ("2023-11-14T22:03:19Z", "2023-11-14T22:03:20Z"),
        ("2023-11-14T19:03:19-03:00", "2023-11-14T19:03:20-03:00"),
        ("Tue, 14 Nov 2023 22:03:19 GMT", "Tue, 14 Nov 2023 22:03:20 GMT"),
        ("1699999399", "1699999400"),
        ("1699999399000", "1699999400000"),
    ] {
        let of = |time| autocosmos_words(&autocosmos("", SignatureEncoding::Base64, time, true), None, None);
        contains(of(old), false, &["601 s old"]);
        contains(of(fresh), true, &["600 s old"]);
    }
    let unknown = autocosmos("", SignatureEncoding::Base64, "yesterday", true);
    contains(
        autocosmos_words(&unknown, None, None),
        true,
        &["its age is not judged"],
    );
}

#[test]
fn upstreams_that_do_not_sign() {
    let basic = |value: &str, secret: &str| {
        let scheme = Scheme::Basic {
            username: "u".to_owned(),
        };
        judged(&delivery(&[("authorization", value)], ""), &[secret], scheme)
            .map_err(|invalid| invalid.what)
            .map(|valid| valid.what)
    };
    let value = format!("basic {}", STANDARD.encode(format!("u:{SECRET}")));
    contains(basic(&value, SECRET), true, &["the password in F"]);
    contains(
        basic(&value, "x"),
        false,
        &["the user name is right, the password is not"],
    );
    contains(
        basic(&format!("Basic {}", STANDARD.encode("v:x")), "x"),
        false,
        &["another user name"],
    );
    for value in ["Bearer x", "Basic", "Basic *", "Basic eA=="] {
        contains(basic(value, "x"), false, &["not of the form Basic"]);
    }
    let header = |name: &str, secret: &str| {
        let scheme = Scheme::Header {
            name: name.to_owned(),
        };
        judged(&delivery(&[("X-Token", SECRET)], ""), &[secret], scheme)
            .map_err(|invalid| invalid.what)
            .map(|valid| valid.what)
    };
    contains(header("x-token", SECRET), true, &["the value in F"]);
    contains(
        header("x-token", "x"),
        false,
        &["x-token has another value than the secret in F"],
    );
    contains(header("x-other", SECRET), false, &["x-other is missing"]);
}
