//! Tests of the check of a spec against each upstream: the table of the design, row by row.

use super::*;
use crate::{
    api::webhook::{
        BasicAuthRef, Header, ProviderKind, ProviderRef, Retry, Rotation, SecretPolicy, SecretRef,
    },
    provider::{autocosmos, conpeek, ricloud, thulium},
};

const ALL: [(&str, &Capabilities); 4] = [
    ("Conpeek", &conpeek::CAPABILITIES),
    ("Thulium", &thulium::CAPABILITIES),
    ("Ricloud", &ricloud::CAPABILITIES),
    ("Autocosmos", &autocosmos::CAPABILITIES),
];

/// The smallest spec that the upstream takes.
fn spec(upstream: &str) -> WebhookSpec {
    let provider = ProviderRef {
        kind: ProviderKind::WebhookProvider,
        name: "p".into(),
    };
    let mut spec = WebhookSpec::new(provider, "https://a.example/x");
    match upstream {
        "Conpeek" => spec.target = Some("9".into()),
        "Autocosmos" => spec.target = Some("invitaciones".into()),
        "Thulium" => spec.events = vec!["TICKET_CREATED".into()],
        _ => {}
    }
    spec
}

/// `field kind` of each problem.
fn problems(upstream: &str, spec: &WebhookSpec) -> Vec<String> {
    let (_, can) = ALL.into_iter().find(|(name, _)| *name == upstream).unwrap();
    check(spec, can, upstream)
        .iter()
        .map(|it| format!("{} {:?}", it.field, it.kind))
        .collect()
}

fn changed(upstream: &str, change: impl FnOnce(&mut WebhookSpec)) -> Vec<String> {
    let mut spec = spec(upstream);
    change(&mut spec);
    problems(upstream, &spec)
}

/// The upstreams at which a change is no problem, and that it is that problem at all others.
fn accepted_by(problem: &str, change: impl Fn(&mut WebhookSpec)) -> Vec<&'static str> {
    let fine = |upstream: &str| {
        let found = changed(upstream, &change);
        assert!(found.is_empty() || found == [problem], "{upstream}: {found:?}");
        found.is_empty()
    };
    ALL.into_iter()
        .map(|(upstream, _)| upstream)
        .filter(|upstream| fine(upstream))
        .collect()
}

fn header(name: &str) -> Header {
    Header {
        name: name.into(),
        value: Some("v".into()),
        value_from: None,
    }
}

#[test]
fn the_smallest_spec_of_each_upstream_has_no_problem() {
    for (upstream, _) in ALL {
        assert_eq!(
            problems(upstream, &spec(upstream)),
            Vec::<String>::new(),
            "{upstream}"
        );
    }
}

#[test]
fn a_field_that_the_upstream_lacks_is_refused_and_never_dropped() {
    let unsupported = |field: &str| format!("{field} UnsupportedField");
    let retry = |spec: &mut WebhookSpec| spec.retry = Some(Retry::default());
    assert_eq!(accepted_by(&unsupported("retry"), retry), ["Conpeek"]);
    let auth = |spec: &mut WebhookSpec| spec.basic_auth_ref = Some(BasicAuthRef { name: "s".into() });
    assert_eq!(accepted_by(&unsupported("basicAuthRef"), auth), ["Thulium"]);
    let text = |spec: &mut WebhookSpec| spec.description = Some("x".into());
    assert_eq!(accepted_by(&unsupported("description"), text), ["Autocosmos"]);
    let headers = |spec: &mut WebhookSpec| spec.headers = vec![header("X-A")];
    assert_eq!(
        accepted_by(&unsupported("headers"), headers),
        ["Conpeek", "Autocosmos"]
    );
    let secret = |spec: &mut WebhookSpec| {
        spec.secret_ref = Some(SecretRef {
            name: "s".into(),
            key: "k".into(),
        })
    };
    assert_eq!(
        accepted_by(&unsupported("secretRef"), secret),
        ["Ricloud", "Autocosmos"]
    );
    let events = |spec: &mut WebhookSpec| spec.events = vec!["A".into()];
    assert_eq!(accepted_by(&unsupported("events"), events), ["Thulium"]);
    let off = |spec: &mut WebhookSpec| spec.active = false;
    assert_eq!(
        accepted_by(&unsupported("active"), off),
        ["Ricloud", "Autocosmos"]
    );
    let keep = |spec: &mut WebhookSpec| spec.deletion_policy = DeletionPolicy::Deactivate;
    assert_eq!(
        accepted_by(&unsupported("deletionPolicy"), keep),
        ["Ricloud", "Autocosmos"]
    );
    let test = |spec: &mut WebhookSpec| spec.test.mode = TestMode::Upstream;
    assert_eq!(accepted_by(&unsupported("test.mode"), test), ["Ricloud"]);
}

#[test]
fn what_equals_the_default_or_is_empty_is_not_set() {
    for (upstream, _) in ALL {
        let found = changed(upstream, |spec| {
            spec.description = Some(String::new());
            spec.active = true;
            spec.test = TestSpec::default();
        });
        assert_eq!(found, Vec::<String>::new(), "{upstream}");
    }
    assert_eq!(
        changed("Ricloud", |spec| spec.target = Some(String::new())),
        Vec::<String>::new()
    );
    assert_eq!(
        changed("Thulium", |spec| spec.target = Some(String::new())),
        Vec::<String>::new()
    );
}

#[test]
fn targets_have_the_form_of_their_upstream() {
    let table: [(&str, &[&str], &[&str]); 3] = [
        (
            "Conpeek",
            &["1", "18446744073709551615"],
            &["", "0", "09", "-1", "+1", "1.0", "x", "18446744073709551616"],
        ),
        (
            "Autocosmos",
            &["a", "a/b", "é ü", "..."],
            &["", ".", "..", "a\nb"],
        ),
        (
            "Ricloud",
            &["organisation", "key", "key:5"],
            &["key:", "Key", "organisations", " key"],
        ),
    ];
    for (upstream, good, bad) in table {
        for target in good {
            let found = changed(upstream, |spec| spec.target = Some((*target).to_owned()));
            assert_eq!(found, Vec::<String>::new(), "{upstream} {target:?}");
        }
        for target in bad {
            let found = changed(upstream, |spec| spec.target = Some((*target).to_owned()));
            assert_eq!(found, ["target InvalidSpec"], "{upstream} {target:?}");
        }
    }
    assert_eq!(
        changed("Thulium", |spec| spec.target = Some("1".into())),
        ["target UnsupportedField"]
    );
    for upstream in ["Conpeek", "Autocosmos"] {
        assert_eq!(
            changed(upstream, |spec| spec.target = None),
            ["target InvalidSpec"]
        );
    }
}

#[test]
fn a_url_is_absolute_without_user_info_and_no_longer_than_the_upstream_takes() {
    for url in [
        "",
        "/x",
        "a.example/x",
        "ftp://a.example/",
        "https://",
        "https://u@a.example/",
        "https://:p@a.example/",
    ] {
        assert_eq!(
            changed("Ricloud", |spec| spec.url = url.into()),
            ["url InvalidSpec"],
            "{url:?}"
        );
    }
    let long = |length: usize| format!("https://a.example/{}", "é".repeat(length - 18));
    assert_eq!(
        accepted_by("url InvalidSpec", |spec| spec.url = long(2048)),
        ["Conpeek", "Thulium", "Ricloud"]
    );
    assert_eq!(
        accepted_by("url InvalidSpec", |spec| spec.url = long(1024)).len(),
        4
    );
    assert_eq!(
        accepted_by("url InvalidSpec", |spec| spec.url = long(2049)).len(),
        0
    );
}

#[test]
fn thulium_wants_at_least_one_event_in_its_own_spelling() {
    assert_eq!(
        changed("Thulium", |spec| spec.events.clear()),
        ["events InvalidSpec"]
    );
    let found = changed("Thulium", |spec| {
        spec.events = vec!["A_1".into(), "ticket".into()]
    });
    assert_eq!(found, ["events[1] InvalidSpec"]);
}

#[test]
fn autocosmos_limits_headers_and_text() {
    let headers = |names: &[&str]| {
        let headers = names.iter().map(|name| header(name)).collect();
        changed("Autocosmos", |spec| spec.headers = headers)
    };
    assert_eq!(headers(&["A", "B", "C"]), Vec::<String>::new());
    assert_eq!(headers(&["A", "B", "C", "D"]), ["headers InvalidSpec"]);
    assert_eq!(
        headers(&["A", "NOTIFICATION-Topic"]),
        ["headers[1].name InvalidSpec"]
    );
    let text = |length| changed("Autocosmos", |spec| spec.description = Some("é".repeat(length)));
    assert_eq!(text(256), Vec::<String>::new());
    assert_eq!(text(257), ["description InvalidSpec"]);
}

#[test]
fn the_source_of_the_secret_is_one_that_the_upstream_knows() {
    let source = |upstream, source| {
        let policy = SecretPolicy {
            source: Some(source),
            rotation: None,
        };
        changed(upstream, |spec| spec.secret_policy = Some(policy))
    };
    let none = Vec::<String>::new();
    // There is nothing to read.
    assert_eq!(
        source("Autocosmos", SecretSource::Existing),
        ["secretPolicy.source InvalidSpec"]
    );
    let named = changed("Autocosmos", |spec| {
        spec.secret_ref = Some(SecretRef {
            name: "s".into(),
            key: "secret".into(),
        });
        spec.secret_policy = Some(SecretPolicy {
            source: Some(SecretSource::Existing),
            rotation: None,
        });
    });
    assert_eq!(named, none);
    assert_eq!(source("Autocosmos", SecretSource::Generate), none);
    assert_eq!(
        source("Autocosmos", SecretSource::Upstream),
        ["secretPolicy.source UnsupportedField"]
    );
    assert_eq!(source("Ricloud", SecretSource::Upstream), none);
    assert_eq!(
        source("Ricloud", SecretSource::Existing),
        ["secretPolicy.source InvalidSpec"]
    );
    assert_eq!(
        source("Ricloud", SecretSource::Generate),
        ["secretPolicy.source InvalidSpec"]
    );
    for upstream in ["Conpeek", "Thulium"] {
        for of in [
            SecretSource::Existing,
            SecretSource::Generate,
            SecretSource::Upstream,
        ] {
            assert_eq!(source(upstream, of), ["secretPolicy.source UnsupportedField"]);
        }
    }
    let rotation: Rotation = serde_yaml::from_str("interval: 1h").unwrap();
    let found = changed("Autocosmos", |spec| {
        spec.secret_policy = Some(SecretPolicy {
            source: Some(SecretSource::Generate),
            rotation: Some(rotation),
        });
    });
    assert_eq!(found, [""; 0]);
}

#[test]
fn tests_that_cannot_be_made_are_refused() {
    let switched_off = |spec: &mut WebhookSpec| {
        spec.test.on_failure = OnTestFailure::Deactivate;
        spec.test.failure_threshold = 5;
    };
    assert_eq!(
        accepted_by("test.onFailure UnsupportedField", switched_off),
        ["Ricloud", "Autocosmos"]
    );
    for (upstream, _) in ALL {
        assert_eq!(
            changed(upstream, |spec| spec.test.check_forgery = true),
            ["test.checkForgery UnsupportedField"],
            "{upstream}"
        );
        assert_eq!(
            changed(upstream, |spec| spec.test.mode = TestMode::None),
            Vec::<String>::new()
        );
    }
}

#[test]
fn a_message_names_the_field_and_no_value() {
    let spec = WebhookSpec {
        target: Some("canary".into()),
        url: "https://user:canary@a.example/".into(),
        events: vec!["canary".into()],
        description: Some("canary".into()),
        headers: vec![Header {
            name: "X".into(),
            value: Some("canary".into()),
            value_from: None,
        }],
        ..spec("Thulium")
    };
    for (upstream, can) in ALL {
        let found = check(&spec, can, upstream);
        assert!(found.len() >= 2, "{upstream}");
        for problem in found {
            let text = problem.to_string();
            assert!(text.starts_with(&format!("spec.{}: ", problem.field)), "{text}");
            assert!(!text.contains("canary"), "{text}");
        }
    }
}
