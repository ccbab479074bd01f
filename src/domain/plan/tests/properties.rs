//! Properties that hold for any want at any upstream.

use proptest::prelude::*;

use super::*;

fn any_header() -> impl Strategy<Value = Header> {
    ("X-[A-Za-z]{1,6}", "[ -~]{0,12}").prop_map(|(name, value)| Header {
        name,
        value: value.into(),
    })
}

fn any_url() -> impl Strategy<Value = String> {
    "(https?|HTTPS)://[A-Za-z]{1,8}\\.example(:[0-9]{1,4})?(/[A-Za-z0-9%é]{0,6}){0,3}(\\?[A-Za-z=]{0,6})?"
}

fn any_want(can: &'static Capabilities) -> impl Strategy<Value = Desired> {
    let retry = (any::<bool>(), 1_u64..90_000, 0_u32..21, 1_u32..11);
    let headers = prop::collection::vec(any_header(), 0..4);
    let events = prop::collection::btree_set("[A-Z_]{1,6}", 1..4);
    (
        any_url(),
        events,
        headers,
        prop::option::of(retry),
        any::<(bool, bool, bool)>(),
    )
        .prop_map(
            move |(url, events, mut headers, retry, (active, auth, described))| {
                let mut names = BTreeSet::new();
                headers.retain(|header| names.insert(header.name.to_ascii_lowercase()));
                headers.truncate(can.max_headers);
                let retry = retry
                    .filter(|_| can.retry)
                    .map(|(enabled, millis, max_retries, factor)| Retry {
                        enabled,
                        initial_delay: Duration::from_millis(millis),
                        max_retries,
                        factor,
                    });
                Desired {
                    target: (can.identity == Identity::ByTarget).then(|| "9".to_owned()),
                    url,
                    events: if can.events { events } else { BTreeSet::new() },
                    description: (described && can.max_description > 0).then(|| "text".to_owned()),
                    active: active || !can.switch,
                    secret: None,
                    basic_auth: (auth && can.basic_auth).then(|| BasicAuth {
                        username: "u".into(),
                        password: "p".into(),
                    }),
                    headers,
                    retry,
                }
            },
        )
}

/// The registration as this upstream shows it: headers in another order and case, the delay in whole seconds.
fn as_shown(can: &Capabilities, want: &Desired, id: &str) -> Remote {
    let retry = want.retry.unwrap_or_default();
    let seconds = u64::try_from(retry.initial_delay.as_millis().div_ceil(1000)).unwrap();
    let header = |it: &Header| Header {
        name: it.name.to_ascii_uppercase(),
        value: it.value.clone(),
    };
    Remote {
        events: can.events.then(|| want.events.clone()),
        description: (can.max_description > 0).then(|| want.description.clone().unwrap_or_default()),
        headers: (can.max_headers > 0).then(|| want.headers.iter().rev().map(header).collect()),
        retry: can.retry.then(|| Retry {
            initial_delay: Duration::from_secs(seconds),
            ..retry
        }),
        basic_auth_user: can.basic_auth.then(|| {
            want.basic_auth
                .as_ref()
                .map(|auth| auth.username.clone())
                .unwrap_or_default()
        }),
        state: can.switch.then_some(if want.active {
            State::Valid
        } else {
            State::Deactivated
        }),
        ..Remote::new(id, normal_url(&want.url))
    }
}

fn any_dialect_and_want() -> impl Strategy<Value = (&'static Capabilities, Desired)> {
    let all = [
        &thulium::CAPABILITIES,
        &ricloud::CAPABILITIES,
        &conpeek::CAPABILITIES,
        &autocosmos::CAPABILITIES,
    ];
    prop::sample::select(all.to_vec()).prop_flat_map(|can| (Just(can), any_want(can)))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_settled_object_is_done_under_every_policy(
        (can, want) in any_dialect_and_want(),
        drift in prop::sample::select(vec![DriftPolicy::Correct, DriftPolicy::Report]),
        adoption in prop::sample::select(vec![AdoptionPolicy::Never, AdoptionPolicy::IfMatching, AdoptionPolicy::Always]),
        reactivate in any::<bool>(),
        replace in any::<bool>(),
    ) {
        let case = Case::settled(can);
        let id = case.recorded.trusted_id().unwrap().0.clone();
        let on_deactivation =
            if reactivate { OnUpstreamDeactivation::Reactivate } else { OnUpstreamDeactivation::Report };
        let case = Case { want, drift, adoption, on_deactivation, replace, ..case };
        let shown = as_shown(can, &case.want, &id);
        let says = if case.want.active { "done []" } else { "done [] off by Spec" };
        prop_assert_eq!(case.reads(shown).says(), says);
    }

    #[test]
    fn what_an_upstream_shows_of_a_want_does_not_differ_from_it((can, want) in any_dialect_and_want()) {
        prop_assert_eq!(differences(&want, &as_shown(can, &want, "1")), Vec::<&str>::new());
    }

    #[test]
    fn the_normal_form_of_a_url_is_its_own_normal_form_and_the_same_url(url in prop_oneof![any_url(), any::<String>()]) {
        let normal = normal_url(&url);
        prop_assert_eq!(normal_url(&normal), normal.clone());
        prop_assert!(same_url(&url, &normal));
        prop_assert_eq!(key().content(&url, &BTreeSet::new()), key().content(&normal, &BTreeSet::new()));
    }
}
