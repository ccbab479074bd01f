//! Every status that is no success, to every request of every call; and what has to hold for each.

use std::time::Duration;

use tokio::time::Instant;
use webhook_operator::{
    net::Response,
    provider::{Effect, ErrorClass, ProviderError, Standing},
};

use super::{
    Bench,
    calls::{Case, KINDS, cases, outcome},
    model::Route,
    with_trouble,
};

/// Every status that is an answer and no success.
pub(super) const STATUSES: std::ops::RangeInclusive<u16> = 300..=599;

/// What an upstream may say with any of them: in each dialect's form of an error, with what must not be passed on.
const COMPLAINT: &str = r#"{"error":"kr0kodil","params":{"url":"kr0kodil"},"errors":[{"message":"subscription_url kr0kodil","code":1}],
 "Errors":{"Callback":["kr0kodil"],"kr0kodil":["x"]},"Status":400}"#;

fn complaint(status: u16) -> Response {
    let headers = [
        ("Content-Type", "application/json"),
        ("Retry-After", "7"),
        ("Location", "https://kr0kodil.example/kr0kodil"),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Response::new(status, headers.to_vec(), COMPLAINT)
}

/// The outcome of each status.
pub(super) async fn outcomes(case: Case, route: &Route) -> Vec<(u16, String)> {
    let mut outcomes = Vec::new();
    for status in STATUSES {
        let (bench, result) = with_trouble(case, route, move |_, _| complaint(status)).await;
        check(&bench, route, status, &result);
        outcomes.push((status, outcome(&result)));
    }
    outcomes
}

/// What holds for any upstream, any request, any status.
#[track_caller]
fn check(bench: &Bench, route: &Route, status: u16, result: &Result<String, ProviderError>) {
    let Case { kind, op, .. } = bench.case;
    let place = format!("{kind:?} {op:?}, {route} answered {status}: {result:?}");
    let said = format!("{result:?} {result:#?}");
    assert!(
        !said.contains("kr0kodil"),
        "passes on what the upstream sent: {place}"
    );
    if let Err(error) = result {
        // A refusal is certain; a failure is not, if the request could change something.
        let certain = matches!(status, 400..=499 | 501) && !matches!(status, 408 | 425);
        let effect = if certain || !route.changes() {
            Effect::None
        } else {
            Effect::Unknown
        };
        assert_eq!(error.effect, effect, "{place}");
        assert!(error.status.is_none_or(|told| told == status), "{place}");
        assert!(!error.message.is_empty() && error.message.len() < 300, "{place}");
    }
    let class = result.as_ref().err().map(|error| error.class);
    match status {
        300..=399 => assert!(matches!(class, Some(ErrorClass::Unexpected) | None), "{place}"),
        401 => {
            assert_eq!(class, Some(ErrorClass::Unauthorized), "{place}");
            assert!(
                matches!(bench.account.standing(), Standing::Refused { .. }),
                "{place}"
            );
        }
        408 | 425 => assert_eq!(class, Some(ErrorClass::Timeout), "{place}"),
        429 => assert_eq!(class, Some(ErrorClass::RateLimited), "{place}"),
        501 | 400..=499 => {}
        _ => assert_eq!(class, Some(ErrorClass::Unreachable), "{place}"),
    }
    if matches!(status, 429 | 503) {
        let asked = Duration::from_secs(7);
        assert_eq!(
            result.as_ref().err().and_then(|error| error.retry_after),
            Some(asked),
            "{place}"
        );
        let held = bench
            .account
            .bucket
            .held_until()
            .map(|until| until - Instant::now());
        assert_eq!(held, Some(asked), "the whole account waits: {place}");
    } else {
        assert_eq!(bench.account.bucket.held_until(), None, "{place}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_refusal_of_a_change_passes_for_the_change() {
    for kind in KINDS {
        for case in cases(kind) {
            let good = Bench::new(case).await.call().await.unwrap();
            for route in Bench::routes(case).await.iter().filter(|route| route.changes()) {
                for status in [300, 400, 403, 404, 405, 409, 418, 422, 500, 503] {
                    let (_, result) = with_trouble(case, route, move |_, _| complaint(status)).await;
                    // What is gone already need not be removed, and where nothing can be deleted it is switched off.
                    let fair = matches!(
                        result.as_deref(),
                        Ok("already gone" | "removed" | "switched off" | "not in use" | "left in place")
                    );
                    assert!(
                        !result.as_ref().is_ok_and(|said| *said == good)
                            || (fair && matches!(status, 400..=499)),
                        "{case:?}, {route} answered {status}: {result:?}"
                    );
                }
            }
        }
    }
}
