//! What users do: the table. To explore one more, add a row.

use std::time::Duration;

use serde_json::json;
use webhook_operator::api::{RECONCILE_REQUESTED_AT, TEST_REQUESTED_AT, provider::ProviderType};

use super::{
    dialect::{Dialect, Left},
    stage::{HOOK, NAMESPACE, Stage, hook, secret},
};
use crate::apiserver::Id;

/// Something that a user does.
pub struct Step {
    /// How long after the step before it.
    pub after: Duration,
    /// What.
    pub act: fn(&Stage),
}

/// What is to be explored.
pub struct Operation {
    /// Name in figures and reports.
    pub name: &'static str,
    /// Where it can be done.
    pub at: fn(&Dialect) -> bool,
    /// What is there before, and at rest.
    pub before: &'static [Step],
    /// What is done.
    pub act: &'static [Step],
    /// What becomes of the registrations of Webhooks that are deleted; `None`: as the upstream can.
    pub left: Option<Left>,
    /// It may end before anything was registered.
    pub hasty: bool,
    /// Pairs of faults are explored as well.
    pub pairs: bool,
}

impl Operation {
    /// Whether it can be done there.
    #[must_use]
    pub fn is_for(&self, dialect: &Dialect) -> bool {
        (self.at)(dialect)
    }

    /// What becomes of the registrations of Webhooks that are deleted.
    #[must_use]
    pub fn left(&self, dialect: &Dialect) -> Left {
        self.left.unwrap_or(dialect.delete)
    }
}

const fn at_once(act: fn(&Stage)) -> Step {
    Step {
        after: Duration::ZERO,
        act,
    }
}

const fn after_seconds(seconds: u64, act: fn(&Stage)) -> Step {
    Step {
        after: Duration::from_secs(seconds),
        act,
    }
}

const GROUND: Step = at_once(Stage::ground);
const SETTLED: &[Step] = &[GROUND, at_once(|stage| stage.hook(&json!({})))];

/// A change of something that is settled; the rest of each row says what differs.
const CHANGE: Operation = Operation {
    name: "",
    at: |dialect| dialect.updates,
    before: SETTLED,
    act: &[],
    left: None,
    hasty: false,
    pairs: false,
};

fn anywhere(_: &Dialect) -> bool {
    true
}

fn is(dialect: &Dialect, types: &[ProviderType]) -> bool {
    dialect.updates && types.contains(&dialect.provider)
}

fn with_headers(dialect: &Dialect) -> bool {
    is(dialect, &[ProviderType::Conpeek, ProviderType::Autocosmos])
}

fn with_switch(dialect: &Dialect) -> bool {
    is(dialect, &[ProviderType::Ricloud, ProviderType::Autocosmos])
}

fn thulium(dialect: &Dialect) -> bool {
    is(dialect, &[ProviderType::Thulium])
}

fn ricloud(dialect: &Dialect) -> bool {
    is(dialect, &[ProviderType::Ricloud])
}

fn autocosmos(dialect: &Dialect) -> bool {
    is(dialect, &[ProviderType::Autocosmos])
}

/// The secret of what is there can be had.
fn adoptable(dialect: &Dialect) -> bool {
    dialect.name != "ricloud-secretive"
}

fn new_url(stage: &Stage) {
    stage.edit(&json!({"url": "https://hooks.example/apps/other"}));
}

/// All of them.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        name: "create",
        at: anywhere,
        before: &[GROUND],
        act: &[at_once(|stage| stage.hook(&json!({})))],
        pairs: true,
        ..CHANGE
    },
    Operation {
        name: "apply everything",
        at: anywhere,
        before: &[],
        act: &[
            at_once(|stage| stage.hook(&json!({}))),
            after_seconds(1, Stage::ground),
        ],
        ..CHANGE
    },
    Operation {
        name: "create switched off",
        at: with_switch,
        before: &[GROUND],
        act: &[at_once(|stage| stage.hook(&json!({"active": false})))],
        ..CHANGE
    },
    Operation {
        name: "update url",
        act: &[at_once(new_url)],
        ..CHANGE
    },
    Operation {
        name: "update interval",
        at: anywhere,
        act: &[at_once(|stage| stage.edit(&json!({"interval": "3m"})))],
        ..CHANGE
    },
    Operation {
        name: "update events",
        at: thulium,
        act: &[at_once(|stage| {
            stage.edit(&json!({"events": ["TICKET_CREATED", "RECORDING_READY"]}));
        })],
        ..CHANGE
    },
    Operation {
        name: "update basic auth",
        at: thulium,
        act: &[at_once(|stage| {
            stage.edit(&json!({"basicAuthRef": {"name": "basic-other"}}));
        })],
        ..CHANGE
    },
    Operation {
        name: "remove basic auth",
        at: thulium,
        act: &[at_once(|stage| stage.edit(&json!({"basicAuthRef": null})))],
        ..CHANGE
    },
    Operation {
        name: "update headers",
        at: with_headers,
        act: &[at_once(|stage| {
            stage.edit(&json!({"headers": [{"name": "X-Team", "value": "two"}]}));
        })],
        ..CHANGE
    },
    Operation {
        name: "update retry",
        at: |dialect| is(dialect, &[ProviderType::Conpeek]),
        act: &[at_once(|stage| {
            stage.edit(&json!({"retry": {"enabled": false, "maxRetries": 5}}));
        })],
        ..CHANGE
    },
    Operation {
        name: "update description",
        at: autocosmos,
        act: &[at_once(|stage| {
            stage.edit(&json!({"description": "orders of both shops"}))
        })],
        ..CHANGE
    },
    Operation {
        name: "update secret reference",
        at: autocosmos,
        act: &[at_once(|stage| {
            stage.edit(&json!({"secretRef": {"name": "secret-other"}}));
        })],
        ..CHANGE
    },
    Operation {
        name: "secret changed",
        at: autocosmos,
        act: &[at_once(|stage| {
            stage.edit_secret("secret", &[("secret", "signing-secret-two")]);
        })],
        ..CHANGE
    },
    Operation {
        name: "basic auth changed",
        at: thulium,
        act: &[at_once(|stage| {
            stage.edit_secret("basic", &[("username", "hooks"), ("password", "password-two")]);
        })],
        ..CHANGE
    },
    Operation {
        name: "headers changed",
        at: with_headers,
        act: &[at_once(|stage| {
            stage.edit_secret("header", &[("token", "Bearer two")])
        })],
        ..CHANGE
    },
    Operation {
        name: "written secret moved",
        at: ricloud,
        act: &[at_once(|stage| {
            stage.edit(&json!({"secretRef": {"name": "elsewhere"}}))
        })],
        ..CHANGE
    },
    Operation {
        name: "written secret deleted",
        at: ricloud,
        act: &[at_once(|stage| stage.delete(&secret(&format!("{HOOK}-signing"))))],
        ..CHANGE
    },
    Operation {
        name: "deactivate",
        at: with_switch,
        act: &[at_once(|stage| stage.edit(&json!({"active": false})))],
        ..CHANGE
    },
    Operation {
        name: "reactivate",
        at: with_switch,
        before: &[GROUND, at_once(|stage| stage.hook(&json!({"active": false})))],
        act: &[at_once(|stage| stage.edit(&json!({"active": true})))],
        ..CHANGE
    },
    Operation {
        name: "adopt",
        at: adoptable,
        before: &[
            GROUND,
            at_once(|stage| {
                stage.create(&stage.manifest(
                    "earlier",
                    &json!({"deletionPolicy": "Orphan", "basicAuthRef": null}),
                ));
            }),
            after_seconds(30, |stage| {
                stage.delete(&Id::new("webhooks", NAMESPACE, "earlier"))
            }),
        ],
        // A password cannot be read: what was adopted with one has to be written, which not every Thulium takes.
        act: &[at_once(|stage| stage.hook(&json!({"basicAuthRef": null})))],
        ..CHANGE
    },
    Operation {
        name: "test",
        at: ricloud,
        act: &[at_once(|stage| stage.annotate(TEST_REQUESTED_AT, "now"))],
        ..CHANGE
    },
    Operation {
        name: "reconcile",
        at: anywhere,
        act: &[at_once(|stage| stage.annotate(RECONCILE_REQUESTED_AT, "now"))],
        ..CHANGE
    },
    Operation {
        name: "changed by hand",
        at: |dialect| dialect.updates && dialect.reads,
        act: &[at_once(|stage| {
            stage.edit_by_hand("https://hooks.example/by-hand");
            stage.annotate(RECONCILE_REQUESTED_AT, "now");
        })],
        ..CHANGE
    },
    Operation {
        name: "removed by hand",
        at: |dialect| dialect.reads,
        act: &[at_once(|stage| {
            stage.clear_by_hand();
            stage.annotate(RECONCILE_REQUESTED_AT, "now");
        })],
        ..CHANGE
    },
    Operation {
        name: "update while creating",
        before: &[GROUND],
        act: &[
            at_once(|stage| stage.hook(&json!({}))),
            Step {
                after: Duration::from_millis(45),
                act: new_url,
            },
        ],
        ..CHANGE
    },
    Operation {
        name: "delete while creating",
        at: anywhere,
        before: &[GROUND],
        act: &[
            at_once(|stage| stage.hook(&json!({}))),
            Step {
                after: Duration::from_millis(45),
                act: |stage| stage.delete(&hook()),
            },
        ],
        hasty: true,
        ..CHANGE
    },
    Operation {
        name: "delete",
        at: anywhere,
        act: &[at_once(|stage| stage.delete(&hook()))],
        pairs: true,
        ..CHANGE
    },
    Operation {
        name: "delete: deactivate",
        at: with_switch,
        before: &[
            GROUND,
            at_once(|stage| stage.hook(&json!({"deletionPolicy": "Deactivate"}))),
        ],
        act: &[at_once(|stage| stage.delete(&hook()))],
        left: Some(Left::SwitchedOff),
        pairs: true,
        ..CHANGE
    },
    Operation {
        name: "delete: orphan",
        at: anywhere,
        before: &[
            GROUND,
            at_once(|stage| stage.hook(&json!({"deletionPolicy": "Orphan"}))),
        ],
        act: &[at_once(|stage| stage.delete(&hook()))],
        left: Some(Left::AsItWas),
        pairs: true,
        ..CHANGE
    },
    Operation {
        name: "provider deleted first",
        at: anywhere,
        act: &[
            at_once(|stage| stage.delete(&stage.provider())),
            after_seconds(2, |stage| stage.delete(&hook())),
        ],
        ..CHANGE
    },
    Operation {
        name: "namespace deleted",
        at: anywhere,
        act: &[at_once(|stage| {
            stage.delete(&Id::new("namespaces", "", NAMESPACE))
        })],
        ..CHANGE
    },
    Operation {
        name: "suspend and resume",
        at: anywhere,
        act: &[
            at_once(|stage| stage.edit(&json!({"suspend": true}))),
            after_seconds(2, |stage| stage.edit(&json!({"suspend": false}))),
        ],
        ..CHANGE
    },
];
