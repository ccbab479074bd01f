//! Where operations take place: one namespace with an account at one upstream, and one Webhook with everything that
//! its upstream has.

use serde_json::{Value, json};
use webhook_operator::api::provider::ProviderType;

use super::dialect::Dialect;
use crate::{
    World,
    apiserver::{ApiServer, Id},
    manifests::{self, Account},
};

/// The namespace of everything.
pub(super) const NAMESPACE: &str = "apps";
/// The Webhook that operations are about.
pub(super) const HOOK: &str = "hook";
/// Its URL at the beginning.
pub(super) const URL: &str = "https://hooks.example/apps/hook";

/// The stage.
pub struct Stage {
    /// The world.
    pub world: World,
    /// The upstream.
    pub dialect: &'static Dialect,
}

impl Stage {
    /// A world in which nothing has been applied.
    #[must_use]
    pub fn new(dialect: &'static Dialect, broken: bool) -> Self {
        let mut world = World::new(1);
        if broken {
            world.break_journal();
        }
        (dialect.behave)(world.upstreams());
        Self { world, dialect }
    }

    /// The API server.
    #[must_use]
    pub fn api(&self) -> &ApiServer {
        self.world.api()
    }

    /// `kubectl create`.
    ///
    /// # Panics
    ///
    /// It is there already.
    pub fn create(&self, manifest: &Value) {
        self.api().create(manifest).unwrap();
    }

    /// The provider and its credentials.
    pub fn account(&self) {
        let models = self.world.upstreams();
        let url = match self.dialect.provider {
            ProviderType::Conpeek => models.conpeek().url(),
            ProviderType::Thulium => models.thulium().url(),
            ProviderType::Ricloud => models.ricloud().url(),
            ProviderType::Autocosmos => models.autocosmos().url(),
        };
        for manifest in manifests::provider(NAMESPACE, self.dialect.provider, &url, &Account::demo()) {
            self.create(&manifest);
        }
    }

    /// The Secrets that the Webhook reads.
    pub fn secrets(&self) {
        for (name, data) in [
            (
                "header",
                [("token", "Bearer one"), ("other", "Bearer other")].as_slice(),
            ),
            ("basic", &[("username", "hooks"), ("password", "password-one")]),
            (
                "basic-other",
                &[("username", "others"), ("password", "password-other")],
            ),
            ("secret", &[("secret", "signing-secret-one")]),
            ("secret-other", &[("secret", "signing-secret-other")]),
        ] {
            self.create(&manifests::secret(NAMESPACE, name, data));
        }
    }

    /// Account and Secrets.
    pub fn ground(&self) {
        self.account();
        self.secrets();
    }

    /// A Webhook with everything that the upstream has, with `over` on top of its spec.
    #[must_use]
    pub fn manifest(&self, name: &str, over: &Value) -> Value {
        let header = json!({
            "name": "Authorization", "valueFrom": {"secretKeyRef": {"name": "header", "key": "token"}},
        });
        let mut spec = match self.dialect.provider {
            ProviderType::Conpeek => json!({
                "headers": [{"name": "X-Team", "value": "one"}, header],
                "retry": {"initialDelay": "20s", "maxRetries": 3},
            }),
            ProviderType::Thulium => json!({
                "events": ["TICKET_CREATED", "CUSTOMER_UPDATED"],
                "basicAuthRef": {"name": "basic"},
            }),
            ProviderType::Ricloud => json!({"test": {"mode": "Upstream"}}),
            ProviderType::Autocosmos => json!({
                "headers": [{"name": "X-Team", "value": "one"}, header],
                "secretRef": {"name": "secret"},
                "description": "orders of the shop",
            }),
        };
        // So that a look at the upstream falls into every pause, and several into the silence that follows.
        manifests::overlay(&mut spec, &json!({"url": URL, "interval": "2m"}));
        manifests::overlay(&mut spec, over);
        manifests::webhook(NAMESPACE, name, self.dialect.provider, &spec)
    }

    /// Applies the Webhook.
    pub fn hook(&self, over: &Value) {
        self.create(&self.manifest(HOOK, over));
    }

    /// Changes the spec of the Webhook.
    ///
    /// # Panics
    ///
    /// It is not there.
    pub fn edit(&self, spec: &Value) {
        self.api().patch(&hook(), &json!({"spec": spec})).unwrap();
    }

    /// Sets an annotation of the Webhook.
    ///
    /// # Panics
    ///
    /// It is not there.
    pub fn annotate(&self, name: &str, value: &str) {
        self.api()
            .patch(&hook(), &json!({"metadata": {"annotations": {name: value}}}))
            .unwrap();
    }

    /// Changes what a Secret holds.
    ///
    /// # Panics
    ///
    /// It is not there.
    pub fn edit_secret(&self, name: &str, data: &[(&str, &str)]) {
        let new = manifests::secret(NAMESPACE, name, data);
        self.api()
            .patch(&secret(name), &json!({"data": new["data"]}))
            .unwrap();
    }

    /// `kubectl delete`.
    ///
    /// # Panics
    ///
    /// It is not there.
    pub fn delete(&self, id: &Id) {
        self.api().delete(id).unwrap();
    }

    /// The provider.
    #[must_use]
    pub fn provider(&self) -> Id {
        Id::new(
            "webhookproviders",
            NAMESPACE,
            &manifests::name_of(self.dialect.provider),
        )
    }

    /// The Secret with its credentials.
    #[must_use]
    pub fn credentials(&self) -> Id {
        secret(&format!("{}-account", manifests::name_of(self.dialect.provider)))
    }

    /// Somebody changes the URLs of all registrations at the upstream by hand.
    pub fn edit_by_hand(&self, url: &str) {
        let models = self.world.upstreams();
        match self.dialect.provider {
            ProviderType::Conpeek => {
                for it in models.conpeek().objects() {
                    models
                        .conpeek()
                        .edit(&it.application.to_string(), |it| it.url = Some(url.to_owned()));
                }
            }
            ProviderType::Thulium => {
                for it in models.thulium().objects() {
                    models
                        .thulium()
                        .edit(&it.id.to_string(), |it| url.clone_into(&mut it.subscription_url));
                }
            }
            ProviderType::Ricloud => {
                for it in models.ricloud().objects() {
                    models
                        .ricloud()
                        .edit(&it.id.to_string(), |it| url.clone_into(&mut it.url));
                }
            }
            ProviderType::Autocosmos => {
                for it in models.autocosmos().objects() {
                    models
                        .autocosmos()
                        .edit(&format!("{}/{}", it.app_key, it.topic), |it| {
                            it.callback = Some(url.to_owned());
                        });
                }
            }
        }
    }

    /// Somebody removes all registrations at the upstream.
    pub fn clear_by_hand(&self) {
        let models = self.world.upstreams();
        match self.dialect.provider {
            ProviderType::Conpeek => {
                for it in models.conpeek().objects() {
                    models.conpeek().remove(&it.application.to_string());
                }
            }
            ProviderType::Thulium => {
                for it in models.thulium().objects() {
                    models.thulium().remove(&it.id.to_string());
                }
            }
            ProviderType::Ricloud => {
                for it in models.ricloud().objects() {
                    models.ricloud().remove(&it.id.to_string());
                }
            }
            ProviderType::Autocosmos => {
                for it in models.autocosmos().objects() {
                    models
                        .autocosmos()
                        .remove(&format!("{}/{}", it.app_key, it.topic));
                }
            }
        }
    }
}

/// The Webhook.
#[must_use]
pub(super) fn hook() -> Id {
    Id::new("webhooks", NAMESPACE, HOOK)
}

/// A Secret.
#[must_use]
pub(super) fn secret(name: &str) -> Id {
    Id::new("secrets", NAMESPACE, name)
}
