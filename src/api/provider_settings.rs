//! What both kinds of providers share: product, address, limits and the products' own settings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    ApiDuration, Unread,
    schema::{base_url, duration_between, http_url, immutable},
};

/// What both kinds of providers share.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderSettings {
    /// The product at the upstream. Immutable.
    // Any one, where it cannot be read: ask `type_name`, or `unread` first.
    #[serde(rename = "type")]
    #[schemars(extend("x-kubernetes-validations" = [immutable("type")]))]
    pub type_: ProviderType,

    /// Where the upstream's API is: an absolute http or https URL without user info, query and fragment, up
    /// to 2048 characters. Required for Conpeek and for Thulium (`https://<system>.thulium.com/api`; `/api`
    /// is added when the path is empty). Default: `https://ricloud-api.reincubate.com` for Ricloud,
    /// `https://api.autocosmos.com.ar` for Autocosmos. `http:` only towards a network that the operator was
    /// started to allow. Immutable, adding and removing included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 2048),
        extend("x-kubernetes-validations" = base_url("baseUrl", "https://api.example.com"))
    )]
    pub base_url: Option<String>,

    /// How fast the upstream is called, shared by all Webhooks of this provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,

    /// Longest time one call to the upstream may take: a duration from 1s to 60s. Default: 20s.
    #[serde(default = "default_timeout")]
    #[schemars(extend("x-kubernetes-validations" = [duration_between("timeout", "1s", "60s")]))]
    pub timeout: ApiDuration,

    /// HTTP proxy for calls to the upstream: an absolute http or https URL without user info, up to 2048
    /// characters. Tests of a Webhook by the operator never use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 2048),
        extend("x-kubernetes-validations" = http_url("proxyUrl", "http://proxy.example.com:3128"))
    )]
    pub proxy_url: Option<String>,

    /// Whether calls may be made that the upstream's public documents do not show: reading back from
    /// Conpeek, changing and deleting by id at Thulium. Default: Allow.
    #[serde(default)]
    pub undocumented_calls: UndocumentedCalls,

    /// Settings of Conpeek; only with type Conpeek.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conpeek: Option<ConpeekSettings>,

    /// Settings of Autocosmos; only with type Autocosmos.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autocosmos: Option<AutocosmosSettings>,

    /// Holds back removals (calls that delete or switch off) when there are too many at once: of deleted
    /// Webhooks, of Webhooks with `active: false`, and of registrations that are replaced. Left out: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_limit: Option<DeletionLimit>,

    /// Stops all calls to the upstream for the Webhooks of this provider. Default: false.
    #[serde(default)]
    pub suspend: bool,

    /// What of the whole spec this version of the operator cannot read, and so has left out. Empty: the spec is whole.
    #[serde(skip)]
    pub unread: Vec<Unread>,
}

/// Products at the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema)]
pub enum ProviderType {
    /// conpeek.com: one webhook for each application.
    Conpeek,
    /// thulium.com: a list of webhooks for each system.
    Thulium,
    /// ricloud by Reincubate: a list of webhook configurations for each account.
    Ricloud,
    /// autocosmos.com: one webhook for each application and topic.
    Autocosmos,
}

impl ProviderType {
    /// Every type.
    pub const ALL: [Self; 4] = [Self::Conpeek, Self::Thulium, Self::Ricloud, Self::Autocosmos];

    /// The word in manifests and metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Conpeek => "Conpeek",
            Self::Thulium => "Thulium",
            Self::Ricloud => "Ricloud",
            Self::Autocosmos => "Autocosmos",
        }
    }

    /// Address of the product's public API where it has one for everybody. Source: the upstreams' documents.
    #[must_use]
    pub const fn default_base_url(self) -> Option<&'static str> {
        match self {
            Self::Conpeek | Self::Thulium => None,
            Self::Ricloud => Some("https://ricloud-api.reincubate.com"),
            Self::Autocosmos => Some("https://api.autocosmos.com.ar"),
        }
    }
}

/// How fast an upstream is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Calls a second in the long run, from 1 to 100000. Default: 5; for Autocosmos 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub requests_per_second: Option<i32>,

    /// Calls that may be made at once after a pause, from 1 to 100000. Default: 10; for Autocosmos 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub burst: Option<i32>,

    /// Calls that may be under way at the same time, from 1 to 1000. Default: 4; for Autocosmos 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_concurrent: Option<i32>,
}

/// A [`RateLimit`] with every value decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EffectiveRateLimit {
    /// Calls a second in the long run, at least 1.
    pub requests_per_second: u32,
    /// Calls that may be made at once after a pause, at least 1.
    pub burst: u32,
    /// Calls that may be under way at the same time, at least 1.
    pub max_concurrent: u32,
}

/// Whether calls may be made that public documents do not show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum UndocumentedCalls {
    /// They may.
    #[default]
    Allow,
    /// They may not.
    Deny,
}

/// Settings of Conpeek.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConpeekSettings {
    /// How the body of a registration is sent. `Flat`: its fields directly. `Wrapped`: inside one more
    /// object. `Auto`: the operator learns what the upstream takes. Default: Auto.
    #[serde(default)]
    pub body_style: BodyStyle,
}

/// How bodies look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum BodyStyle {
    /// Learned from the upstream.
    #[default]
    Auto,
    /// The fields directly.
    Flat,
    /// The fields inside one more object.
    Wrapped,
}

/// Settings of Autocosmos.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AutocosmosSettings {
    /// How deliveries are signed, for tests by the operator; the vendor's rule is not public.
    #[serde(default)]
    pub delivery_signature: DeliverySignature,
}

/// How Autocosmos deliveries are signed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliverySignature {
    /// What stands between the signed values, up to 8 characters. Default: nothing.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub separator: String,

    /// How the signature is written: `Base64` or `Hex`. Default: Base64.
    #[serde(default)]
    pub encoding: SignatureEncoding,
}

/// How a signature is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum SignatureEncoding {
    /// Standard Base64 with padding.
    #[default]
    Base64,
    /// Lower-case hexadecimal digits.
    Hex,
}

/// Limit of removals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeletionLimit {
    /// Removals that go through within the window, from 0 to 100000; with 0 each one waits. Further ones are
    /// held until the annotation `webhook-operator.dev/confirm-deletions` on the provider has a new value; that
    /// the window passes, or that the limit is raised, does not let go what is held already.
    #[schemars(range(min = 0, max = 100_000))]
    pub count: i32,

    /// Length of the window, which moves with the time: a duration from 1s to 8784h. What was removed counts up to a
    /// thirtieth longer, at least 4s.
    #[schemars(extend("x-kubernetes-validations" = [duration_between("deletionLimit.window", "1s", "8784h")]))]
    pub window: ApiDuration,
}

impl ProviderSettings {
    /// Settings with everything but the type at its default.
    #[must_use]
    pub fn new(type_: ProviderType) -> Self {
        Self {
            type_,
            base_url: None,
            rate_limit: None,
            timeout: default_timeout(),
            proxy_url: None,
            undocumented_calls: UndocumentedCalls::default(),
            conpeek: None,
            autocosmos: None,
            deletion_limit: None,
            suspend: false,
            unread: Vec::new(),
        }
    }

    /// Whether this field of the spec, or a part of it, cannot be read.
    #[must_use]
    pub fn is_unread(&self, field: &str) -> bool {
        self.unread.iter().any(|unread| unread.is_in(field))
    }

    /// The type's name, for metrics and traces; `unknown` where it cannot be read.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        if self.is_unread("type") {
            "unknown"
        } else {
            self.type_.as_str()
        }
    }

    /// The base URL as given, else the type's own. `None` only for a spec that the schema refuses.
    #[must_use]
    pub fn base_url(&self) -> Option<&str> {
        self.base_url.as_deref().or_else(|| self.type_.default_base_url())
    }

    /// The rate limit with every value that was left out at its default, which is lower for Autocosmos.
    #[must_use]
    pub fn rate_limit(&self) -> EffectiveRateLimit {
        let (rate, burst, concurrent) = match self.type_ {
            ProviderType::Autocosmos => (1, 1, 1),
            ProviderType::Conpeek | ProviderType::Thulium | ProviderType::Ricloud => (5, 10, 4),
        };
        let given = self.rate_limit.unwrap_or_default();
        let at_least_one = |value: Option<i32>, default: u32| {
            value.map_or(default, |v| u32::try_from(v).unwrap_or(1).max(1))
        };
        EffectiveRateLimit {
            requests_per_second: at_least_one(given.requests_per_second, rate),
            burst: at_least_one(given.burst, burst),
            max_concurrent: at_least_one(given.max_concurrent, concurrent),
        }
    }

    /// How Conpeek bodies are sent.
    #[must_use]
    pub fn body_style(&self) -> BodyStyle {
        self.conpeek.unwrap_or_default().body_style
    }

    /// How Autocosmos deliveries are signed.
    #[must_use]
    pub fn delivery_signature(&self) -> DeliverySignature {
        self.autocosmos.clone().unwrap_or_default().delivery_signature
    }
}

const fn default_timeout() -> ApiDuration {
    ApiDuration::from_secs(20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_depends_on_the_type() {
        let mut settings = ProviderSettings::new(ProviderType::Autocosmos);
        settings.rate_limit = Some(RateLimit {
            burst: Some(7),
            ..RateLimit::default()
        });
        let limit = settings.rate_limit();
        assert_eq!(
            (limit.requests_per_second, limit.burst, limit.max_concurrent),
            (1, 7, 1)
        );
        assert_eq!(settings.base_url(), Some("https://api.autocosmos.com.ar"));
        settings.base_url = Some("https://api.autocosmos.com.mx".to_owned());
        assert_eq!(settings.base_url(), Some("https://api.autocosmos.com.mx"));
        assert_eq!(
            ProviderSettings::new(ProviderType::Ricloud).base_url(),
            Some("https://ricloud-api.reincubate.com")
        );
        assert_eq!(ProviderSettings::new(ProviderType::Thulium).base_url(), None);
    }

    /// A schema older than the code may have let it through; a limiter of zero would wait for ever.
    #[test]
    fn limits_are_at_least_one() {
        let mut settings = ProviderSettings::new(ProviderType::Conpeek);
        settings.rate_limit = Some(RateLimit {
            requests_per_second: Some(0),
            burst: Some(-5),
            max_concurrent: Some(i32::MIN),
        });
        let limit = settings.rate_limit();
        assert_eq!(
            (limit.requests_per_second, limit.burst, limit.max_concurrent),
            (1, 1, 1)
        );
    }
}
