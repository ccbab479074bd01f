//! The upstreams, each in the forms that its public documents leave open.

use upstream_doubles::{ConpeekBehaviour, Models, RicloudBehaviour, ThuliumBehaviour, Verdict};
use webhook_operator::api::provider::ProviderType;

/// What becomes of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// It is removed.
    Nothing,
    /// It stays, switched off.
    SwitchedOff,
    /// It stays as it was.
    AsItWas,
}

/// An upstream in one form.
#[derive(Debug)]
pub struct Dialect {
    /// Name in figures and reports.
    pub name: &'static str,
    /// Its type.
    pub provider: ProviderType,
    /// What `deletionPolicy: Delete` ends with.
    pub delete: Left,
    /// An existing registration can be changed.
    pub updates: bool,
    /// It can be read. Otherwise it is written again now and then.
    pub reads: bool,
    /// Sets its double.
    pub behave: fn(&Models),
}

/// All of them.
pub const DIALECTS: &[Dialect] = &[
    Dialect {
        name: "conpeek",
        provider: ProviderType::Conpeek,
        delete: Left::AsItWas,
        updates: true,
        reads: true,
        behave: |_| {},
    },
    Dialect {
        name: "conpeek-documented",
        provider: ProviderType::Conpeek,
        delete: Left::AsItWas,
        updates: true,
        reads: false,
        behave: |models| {
            models
                .conpeek()
                .change_behaviour(|behaviour| *behaviour = ConpeekBehaviour::documented());
        },
    },
    Dialect {
        name: "thulium",
        provider: ProviderType::Thulium,
        delete: Left::Nothing,
        updates: true,
        reads: true,
        behave: |_| {},
    },
    Dialect {
        name: "thulium-documented",
        provider: ProviderType::Thulium,
        delete: Left::AsItWas,
        updates: false,
        reads: true,
        behave: |models| {
            models
                .thulium()
                .change_behaviour(|behaviour| *behaviour = ThuliumBehaviour::documented());
        },
    },
    Dialect {
        name: "ricloud",
        provider: ProviderType::Ricloud,
        delete: Left::Nothing,
        updates: true,
        reads: true,
        behave: |_| {},
    },
    Dialect {
        name: "ricloud-documented",
        provider: ProviderType::Ricloud,
        delete: Left::SwitchedOff,
        updates: true,
        reads: true,
        behave: |models| {
            models.ricloud().change_behaviour(|behaviour| {
                *behaviour = RicloudBehaviour {
                    verdict: Verdict::AlwaysValid,
                    ..RicloudBehaviour::documented()
                };
            });
        },
    },
    Dialect {
        name: "ricloud-secretive",
        provider: ProviderType::Ricloud,
        delete: Left::Nothing,
        updates: true,
        reads: true,
        behave: |models| {
            models
                .ricloud()
                .change_behaviour(|behaviour| behaviour.secret_in_reads = false);
        },
    },
    Dialect {
        name: "autocosmos",
        provider: ProviderType::Autocosmos,
        delete: Left::SwitchedOff,
        updates: true,
        reads: true,
        behave: |_| {},
    },
];
