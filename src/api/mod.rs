//! The Kubernetes types of webhook-operator, and nothing else: no behaviour, no client.
//!
//! | module | holds |
//! |---|---|
//! | [`webhook`], [`webhook_delivery`], [`webhook_status`] | kind `Webhook` |
//! | [`provider`], [`provider_settings`], [`provider_status`] | kinds `WebhookProvider` and `ClusterWebhookProvider` |
//! | [`conditions`] | every condition type and reason, and how conditions are merged |
//! | [`duration`] | durations as users write them |
//! | [`unread`] | what of a spec this version cannot read |
//! | [`schema`] | what the derived schemas lack, and the final three CRDs |
//!
//! The constants here are a contract: users' scripts, finalizers on their objects and fields owned by the
//! field manager depend on them. A test holds each of them.

pub mod conditions;
pub mod duration;
pub mod provider;
pub mod provider_settings;
pub mod provider_status;
mod readable;
pub mod schema;
pub mod unread;
pub mod webhook;
pub mod webhook_delivery;
pub mod webhook_status;

pub use duration::ApiDuration;
pub use provider::{
    ClusterWebhookProvider, ClusterWebhookProviderSpec, WebhookProvider, WebhookProviderSpec,
};
pub use provider_status::ProviderStatus;
pub use unread::Unread;
pub use webhook::{Webhook, WebhookSpec};
pub use webhook_status::WebhookStatus;

/// API group of all kinds.
pub const GROUP: &str = "webhook-operator.dev";

/// API version of all kinds.
pub const VERSION: &str = "v1alpha1";

/// Category of all kinds: `kubectl get webhook-operator`.
pub const CATEGORY: &str = "webhook-operator";

/// Field manager of every write of the operator.
pub const FIELD_MANAGER: &str = "webhook-operator";

/// Finalizer on a `Webhook`, set before the first write at the upstream.
pub const FINALIZER: &str = "webhook-operator.dev/webhook";

/// Finalizer on a provider that Webhooks use and on its credentials Secret, so that an account outlives its
/// registrations.
pub const IN_USE_FINALIZER: &str = "webhook-operator.dev/in-use";

/// Annotation on a `Webhook`: any new value asks for a read-back now.
pub const RECONCILE_REQUESTED_AT: &str = "webhook-operator.dev/reconcile-requested-at";

/// Annotation on a `Webhook`: any new value asks for a test now.
pub const TEST_REQUESTED_AT: &str = "webhook-operator.dev/test-requested-at";

/// Annotation on a `Webhook`: any new value asks for a new signing secret now.
pub const ROTATE_REQUESTED_AT: &str = "webhook-operator.dev/rotate-requested-at";

/// Annotation on a provider: any new value lets all held deletions go now.
pub const CONFIRM_DELETIONS: &str = "webhook-operator.dev/confirm-deletions";

/// Annotation on a `Webhook`: the upstream's id, written by the operator because backups drop `status`.
pub const ID_ANNOTATION: &str = "webhook-operator.dev/id";

/// Annotation on a `Webhook`: a registration is being created and its outcome is not recorded yet.
pub const CREATE_PENDING: &str = "webhook-operator.dev/create-pending";

/// Annotation on a `Webhook`: proof that this very object recorded the id in [`ID_ANNOTATION`], as
/// `<created or adopted>:<keyed hash of uid and id>`, and after another colon a keyed hash of what was created, where
/// that is known. A copy of the annotations on another object proves nothing.
pub const CLAIM_ANNOTATION: &str = "webhook-operator.dev/claim";

/// Annotation on a provider: which URLs were left at which targets when their Webhooks went, as keyed hashes. A
/// Webhook may take such a target over although its own URL is another one.
pub const RELEASED_ANNOTATION: &str = "webhook-operator.dev/released";

/// Annotation on the Secret of a signing secret that the operator makes: since when which value is there, as keyed
/// hashes. Written together with the values.
pub const ROTATION_ANNOTATION: &str = "webhook-operator.dev/rotation";

#[cfg(test)]
mod tests {
    use super::*;

    /// A changed name here strands finalizers on users' objects, orphans fields owned by the old manager or
    /// breaks scripts. Whoever changes one on purpose needs a migration first.
    #[test]
    fn names_that_users_depend_on_never_change_silently() {
        assert_eq!(GROUP, "webhook-operator.dev");
        assert_eq!(VERSION, "v1alpha1");
        assert_eq!(CATEGORY, "webhook-operator");
        assert_eq!(FIELD_MANAGER, "webhook-operator");
        assert_eq!(FINALIZER, "webhook-operator.dev/webhook");
        assert_eq!(IN_USE_FINALIZER, "webhook-operator.dev/in-use");
        assert_eq!(
            RECONCILE_REQUESTED_AT,
            "webhook-operator.dev/reconcile-requested-at"
        );
        assert_eq!(TEST_REQUESTED_AT, "webhook-operator.dev/test-requested-at");
        assert_eq!(ROTATE_REQUESTED_AT, "webhook-operator.dev/rotate-requested-at");
        assert_eq!(CONFIRM_DELETIONS, "webhook-operator.dev/confirm-deletions");
        assert_eq!(ID_ANNOTATION, "webhook-operator.dev/id");
        assert_eq!(CREATE_PENDING, "webhook-operator.dev/create-pending");
        assert_eq!(CLAIM_ANNOTATION, "webhook-operator.dev/claim");
        assert_eq!(RELEASED_ANNOTATION, "webhook-operator.dev/released");
        assert_eq!(ROTATION_ANNOTATION, "webhook-operator.dev/rotation");
    }
}
