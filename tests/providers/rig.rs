//! What the contract tests of ricloud and Autocosmos share: an account at a double, a call, and judging errors.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use upstream_doubles::{Double, Effect as FaultEffect, Fault, RetryAfter, Upstream};
use webhook_operator::{
    api::provider::ProviderType,
    clock::Clock,
    net::{AddressPolicy, HttpClient},
    provider::{Account, Call, Credentials, Effect, ErrorClass, NoFence, NoObserver, ProviderError},
};

/// An account with a budget that no test exhausts and a short timeout, through the real transport.
pub(crate) fn account(provider_type: ProviderType, base: &str, credentials: Credentials) -> Account {
    let policy = AddressPolicy::parse(["127.0.0.0/8"]).unwrap();
    let client = HttpClient::builder(policy).build().unwrap();
    let rate = (10_000, 10_000, 100);
    let mut account = Account::new(
        provider_type,
        base,
        credentials,
        rate,
        Arc::new(client),
        Clock::system(),
    );
    account.timeout = Duration::from_secs(10);
    account
}

/// A call now, for which only lists begun from now on count.
pub(crate) fn call(account: &Account) -> Call<'_> {
    Call {
        account,
        fence: &NoFence,
        observer: &NoObserver,
        admitted: Instant::now(),
        fresh_after: Instant::now(),
        attempt: 1,
        not_after: None,
    }
}

/// Class and effect of the error that was expected.
pub(crate) fn failed<T: std::fmt::Debug>(result: Result<T, ProviderError>) -> (ErrorClass, Effect) {
    let error = result.unwrap_err();
    (error.class, error.effect)
}

/// Every way in which an answer can go missing or wrong, with the class it must have, for a call that changes
/// something (`mutates`) or not.
pub(crate) fn faults(mutates: bool) -> Vec<(Fault, ErrorClass, Effect)> {
    let unknown = if mutates { Effect::Unknown } else { Effect::None };
    let mut slow = Fault::delay(Duration::from_secs(3));
    slow.handled = Some(false);
    vec![
        (
            Fault::new(FaultEffect::ResetBefore),
            ErrorClass::Unreachable,
            unknown,
        ),
        (
            Fault::new(FaultEffect::ResetAfter),
            ErrorClass::Unreachable,
            unknown,
        ),
        (
            Fault::new(FaultEffect::Truncate),
            ErrorClass::Unreachable,
            unknown,
        ),
        (
            Fault::new(FaultEffect::MalformedJson),
            ErrorClass::Unexpected,
            unknown,
        ),
        (
            Fault::new(FaultEffect::HugeBody { bytes: 40 << 20 }),
            ErrorClass::Unexpected,
            unknown,
        ),
        (Fault::new(FaultEffect::Html), ErrorClass::Unexpected, unknown),
        (slow, ErrorClass::Timeout, unknown),
        (Fault::status(500), ErrorClass::Unreachable, unknown),
        (Fault::status(503), ErrorClass::Unreachable, unknown),
        (Fault::status(302), ErrorClass::Unexpected, unknown),
        (Fault::status(422), ErrorClass::Rejected, Effect::None),
    ]
}

/// 429 with `Retry-After` is an error of its own class and makes the whole account wait.
pub(crate) async fn assert_holds<U: Upstream, T: std::fmt::Debug>(
    double: &Double<U>,
    account: &Account,
    ask: impl AsyncFn() -> Result<T, ProviderError>,
) {
    double.set_fault(Fault::retry_after(429, RetryAfter::Seconds(120)).times(1));
    let error = ask().await.unwrap_err();
    assert_eq!(
        (error.class, error.effect),
        (ErrorClass::RateLimited, Effect::None)
    );
    assert_eq!(error.retry_after, Some(Duration::from_secs(120)));
    let held = account.bucket.held_until().expect("the bucket is held") - Instant::now();
    assert!((110..=120).contains(&held.as_secs()), "{held:?}");
    let asked = double.counts().total;
    assert!(
        tokio::time::timeout(Duration::from_millis(300), ask())
            .await
            .is_err(),
        "a call went out"
    );
    assert_eq!(double.counts().total, asked);
}
