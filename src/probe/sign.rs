//! What makes a probe look like a delivery of its upstream: the signature and the headers that go with it. The
//! algorithms are the upstreams' own files'.

use jiff::Timestamp;

use super::seconds;
use crate::{
    api::provider::SignatureEncoding,
    net::SecretText,
    provider::{
        autocosmos::sign::{DeliveryStyle, Notification, sign_delivery},
        ricloud::sign as ricloud,
    },
};

/// What a wrongly signed delivery is signed with. No receiver may take it, so it need not be a secret.
const FORGED_SECRET: &str = "this is not the secret, but a check by webhook-operator whether anybody looks";

/// How deliveries are signed. `Debug` shows no secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Signing {
    /// The upstream does not sign (Conpeek, Thulium).
    #[default]
    None,
    /// ricloud: one header over time and body, with the secret that ricloud made.
    Ricloud(SecretText),
    /// Autocosmos: three headers, and a fourth over their values where there is a secret.
    Autocosmos {
        /// The secret of `secretRef`.
        secret: Option<SecretText>,
        /// The topic that the registration hangs on.
        topic: Option<String>,
        /// The provider's `autocosmos.deliverySignature`: what stands between the signed values.
        separator: String,
        /// The same: how the MAC is written.
        encoding: SignatureEncoding,
    },
}

impl Signing {
    /// Whether a receiver can tell a real delivery from a forged one.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        match self {
            Self::None => false,
            Self::Ricloud(_) => true,
            Self::Autocosmos { secret, .. } => secret.is_some(),
        }
    }

    /// The headers of a delivery with this id and body.
    pub(super) fn headers(
        &self,
        now: Timestamp,
        id: &str,
        body: &[u8],
        forged: bool,
    ) -> Vec<(&'static str, String)> {
        let stranger = SecretText::from(FORGED_SECRET);
        let hand = |secret| if forged { &stranger } else { secret };
        match self {
            Self::None => Vec::new(),
            Self::Ricloud(secret) => {
                let value = ricloud::sign(hand(secret), now.as_second(), body);
                vec![(ricloud::SIGNATURE_HEADER, value)]
            }
            Self::Autocosmos {
                secret,
                topic,
                separator,
                encoding,
            } => {
                let timestamp = seconds(now);
                let signature = secret.as_ref().map(|secret| {
                    let of = Notification {
                        hook_id: id,
                        timestamp: &timestamp,
                        topic: topic.as_deref(),
                    };
                    let style = DeliveryStyle {
                        separator,
                        encoding: *encoding,
                    };
                    sign_delivery(hand(secret), of, style)
                });
                let topic = topic.clone().map(|topic| ("Notification-Topic", topic));
                let signature = signature.map(|value| ("Notification-Signature", value));
                let mut headers = vec![("Notification-Hook-ID", id.to_owned())];
                headers.push(("Notification-Timestamp", timestamp));
                headers.extend(topic.into_iter().chain(signature));
                headers
            }
        }
    }
}
