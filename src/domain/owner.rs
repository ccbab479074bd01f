//! Names one provider object of either kind.

use crate::api::webhook::{ProviderKind, ProviderRef};

/// Names one provider object of either kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProviderKey {
    /// Which kind.
    pub kind: ProviderKind,
    /// Its namespace; empty for the cluster kind.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ProviderKey {
    /// The provider that a Webhook in `namespace` refers to.
    #[must_use]
    pub fn of(reference: &ProviderRef, namespace: &str) -> Self {
        let namespace = match reference.kind {
            ProviderKind::WebhookProvider => namespace.to_owned(),
            ProviderKind::ClusterWebhookProvider => String::new(),
        };
        Self {
            kind: reference.kind,
            namespace,
            name: reference.name.clone(),
        }
    }

    /// Word of the kind, for messages and metrics.
    #[must_use]
    pub const fn kind_name(&self) -> &'static str {
        match self.kind {
            ProviderKind::WebhookProvider => "WebhookProvider",
            ProviderKind::ClusterWebhookProvider => "ClusterWebhookProvider",
        }
    }
}
