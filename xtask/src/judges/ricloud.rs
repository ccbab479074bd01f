//! The client that ricloud's vendor published (PyPI `ricloud`, AGPL: installed beside the test, never part of this
//! project) judges signatures of the operator and of the double, by its verifier and by its own receiver; and the
//! operator judges what that client signs.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use upstream_doubles::sign::{ricloud_signature, verify_ricloud};
use webhook_operator::{
    net::SecretText,
    provider::ricloud::sign::{Refusal, sign, verify},
};

use super::{Outcome, python::Environment};
use crate::progress::Failure;

/// The client's last version, with a web framework of its time: it cannot be imported with a later one.
const PACKAGES: [&str; 3] = ["ricloud==3.2.0", "flask==2.0.3", "werkzeug==2.0.3"];
const ENVIRONMENT: &str = "ricloud-3.2.0";
const PROGRAM: &str = include_str!("ricloud.py");

/// The id of an event, which ricloud appends to the URL.
const EVENT: &str = "6f1c2f0e-3b57-4a6e-9d0a-5f2b8f1f7c11";

#[derive(Serialize)]
struct Case {
    secret: String,
    header: String,
    body: String,
    event: &'static str,
}

#[derive(Debug, Deserialize)]
struct Answer {
    verifier: String,
    receiver: u16,
    signed: String,
}

/// Asks the client about every case, and compares.
pub(super) fn run() -> Result<Outcome, Failure> {
    let environment = match Environment::new(ENVIRONMENT, &PACKAGES)? {
        Ok(environment) => environment,
        Err(missing) => return Ok(Outcome::Missing(missing)),
    };
    let now = Timestamp::now().as_second();
    let cases = cases(now);
    let lines: Vec<String> = cases
        .iter()
        .map(serde_json::to_string)
        .collect::<Result<_, _>>()?;
    let output = environment.run(PROGRAM, lines.join("\n"))?;
    let answers: Vec<Answer> = output
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    if answers.len() != cases.len() {
        return Err(Failure::new(format!(
            "{} cases, {} answers",
            cases.len(),
            answers.len()
        )));
    }
    let mut valid = 0;
    for (case, answer) in cases.iter().zip(&answers) {
        compare(case, answer, now)?;
        valid += usize::from(answer.verifier == "valid");
    }
    if valid == 0 || valid == cases.len() {
        return Err(Failure::new(format!(
            "all {} cases ended alike, which shows nothing",
            cases.len()
        )));
    }
    Ok(Outcome::Agrees(format!(
        "{} deliveries, {valid} of them genuine, by its verifier and its receiver; {} signatures of its own",
        cases.len(),
        cases.len()
    )))
}

fn compare(case: &Case, answer: &Answer, now: i64) -> Result<(), Failure> {
    let secret = SecretText::from(case.secret.as_str());
    let body = case.body.as_bytes();
    let ours = match verify(&secret, &case.header, body, now) {
        Ok(()) => "valid",
        Err(Refusal::Malformed) => "malformed",
        Err(Refusal::Mismatch) => "mismatch",
        Err(Refusal::Stale) => "stale",
    };
    let about = || format!("header {:?}, body {:?}", case.header, case.body);
    if ours != answer.verifier {
        return Err(Failure::new(format!(
            "we say {ours}, it says {}: {}",
            answer.verifier,
            about()
        )));
    }
    if (ours == "valid") != verify_ricloud(&case.secret, &case.header, body, now).is_ok() {
        return Err(Failure::new(format!(
            "the double does not say {ours}: {}",
            about()
        )));
    }
    // Its receiver fails on a malformed header instead of refusing it, so: anything but success.
    if (ours == "valid") != (answer.receiver == 200) {
        return Err(Failure::new(format!(
            "we say {ours}, its receiver answers {}: {}",
            answer.receiver,
            about()
        )));
    }
    // Signed moments ago, by the same clock.
    if verify(&secret, &answer.signed, body, now).is_err() {
        return Err(Failure::new(format!(
            "we refuse what it signs itself: {}, {}",
            answer.signed,
            about()
        )));
    }
    Ok(())
}

/// Secrets, bodies, ages (away from the limit, for clocks go on), signed by the operator and by the double; and what
/// is done to them on the way.
fn cases(now: i64) -> Vec<Case> {
    let secrets = [
        "rc-demo-secret-0123456789",
        "k",
        "żółw \u{1f422} =+/ ",
        &"long".repeat(64),
    ];
    let bodies = [
        r#"{"id":"a","type":"webhook_config","action":"test"}"#,
        r#"{"type":"task","action":"failed","data":{"error":"żółw"}}"#,
        "{\"type\": \"poll\",\r\n \"action\": \"created\"}\n",
    ];
    let mut cases = Vec::new();
    for secret in secrets {
        for body in bodies {
            let mut add = |secret: &str, header: String, body: &str| {
                cases.push(Case {
                    secret: secret.to_owned(),
                    header,
                    body: body.to_owned(),
                    event: EVENT,
                });
            };
            for age in [0, 1, 300, 570, 660, 86_400, -300, -86_400] {
                add(secret, sign(&secret.into(), now - age, body.as_bytes()), body);
                add(
                    secret,
                    ricloud_signature(secret, now - age, body.as_bytes()),
                    body,
                );
            }
            let genuine = sign(&secret.into(), now, body.as_bytes());
            add("another", genuine.clone(), body);
            add(&format!("{secret}\n"), genuine.clone(), body);
            add(secret, genuine.clone(), &format!("{body} "));
            add(
                secret,
                genuine.replace(&format!("t={now}"), &format!("t={}", now - 1)),
                body,
            );
            for malformed in ["", "t=1", "t=x,s=AAAA", "t=,s="] {
                add(secret, malformed.to_owned(), body);
            }
        }
    }
    cases
}
