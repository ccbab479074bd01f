//! What an object remembers of its registration: annotations and status, read together and weighed.

use std::fmt;

use jiff::Timestamp;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};

use super::{hash::HashKey, remote::RemoteId};
use crate::api::{CLAIM_ANNOTATION, CREATE_PENDING, FINALIZER, ID_ANNOTATION, webhook::Webhook};

/// Journal entry of a create (or of a replacement) under way, in the annotation `create-pending`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mark {
    /// Keyed hash of the content (URL and events) that is being posted.
    pub hash: String,
    /// When the mark was made.
    pub time: Timestamp,
    /// The registration that the new one shall replace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<RemoteId>,
    /// The new one is recorded: this one is still to be removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retire: Option<RemoteId>,
    /// What [`made_of`] says of all that is being posted, secrets included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_of: Option<String>,
}

/// Hash of everything that a registration is made of (`wanted`: its hash as it is in the status), bound to the object
/// and the generation of its spec. It says that nothing has to be written again where the process died before it could
/// say so in the status, and it is of no use to anybody else.
#[must_use]
pub fn made_of(key: &HashKey, uid: &str, generation: i64, wanted: &str) -> String {
    key.fingerprint(
        "made of",
        &serde_json::json!([uid, generation, wanted]).to_string(),
    )
}

impl Mark {
    /// Text of the annotation on the object with this uid, sealed: what is to be removed cannot be written there by
    /// somebody who may only edit annotations, nor be copied from another object.
    #[must_use]
    pub fn to_text(&self, key: &HashKey, uid: &str) -> String {
        serde_json::to_string(&Sealed {
            mark: self.clone(),
            seal: self.seal(key, uid),
        })
        .unwrap_or_default()
    }

    fn seal(&self, key: &HashKey, uid: &str) -> String {
        let id = |id: &Option<RemoteId>| id.as_ref().map(|id| id.0.clone()).unwrap_or_default();
        let made_of = self.made_of.as_deref().unwrap_or_default();
        let fields = serde_json::json!([
            uid,
            self.hash,
            self.time,
            id(&self.replaces),
            id(&self.retire),
            made_of
        ]);
        key.fingerprint("mark", &fields.to_string())
    }

    /// Reads the annotation of the object with this uid. A text without its seal is taken for the mark of an unknown
    /// and old create: it makes the operator look, which never harms.
    #[must_use]
    pub fn from_text(text: &str, key: &HashKey, uid: &str) -> Self {
        let empty = |id: &Option<RemoteId>| id.as_ref().is_some_and(|id| id.0.is_empty());
        serde_json::from_str::<Sealed>(text)
            .ok()
            .filter(|sealed| sealed.seal == sealed.mark.seal(key, uid))
            .filter(|Sealed { mark, .. }| !empty(&mark.replaces) && !empty(&mark.retire))
            .map_or_else(Self::unknown, |sealed| sealed.mark)
    }

    /// The mark of an unknown and old create.
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            hash: String::new(),
            time: Timestamp::UNIX_EPOCH,
            replaces: None,
            retire: None,
            made_of: None,
        }
    }
}

/// The annotation's text.
#[derive(Serialize, Deserialize)]
struct Sealed {
    #[serde(flatten)]
    mark: Mark,
    seal: String,
}

/// How a registration became this object's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The operator made it for this object.
    Created,
    /// It was there before.
    Adopted,
}

impl Origin {
    /// Word in the annotation.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Adopted => "adopted",
        }
    }
}

/// How much the recorded id is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The annotation with the proof that this very object recorded it.
    Proven(Origin),
    /// The status, which only the operator writes.
    Status,
    /// An annotation without proof: copied, edited, or older than the key. Only a hint.
    Hint,
}

/// What an object remembers.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Recorded {
    /// The id and how much it is worth.
    pub id: Option<(RemoteId, Trust)>,
    /// A create under way.
    pub mark: Option<Mark>,
    /// The finalizer is set: this object may have written at the upstream.
    pub may_have_written: bool,
    /// Annotation and proof are as they should be for the trusted id.
    pub annotated: bool,
    /// What the registration was made of, as [`made_of`] says, where it was made for this object.
    pub made_of: Option<String>,
}

impl Recorded {
    /// Reads an object.
    #[must_use]
    pub fn read(webhook: &Webhook, key: &HashKey) -> Self {
        let annotation = |name: &str| webhook.annotations().get(name).filter(|text| !text.is_empty());
        let uid = webhook.uid().unwrap_or_default();
        let annotated = annotation(ID_ANNOTATION);
        let proven = annotated.and_then(|id| {
            let mut parts = annotation(CLAIM_ANNOTATION)?.splitn(3, ':');
            let (origin, proof) = (parts.next()?, parts.next()?);
            let origin = [Origin::Created, Origin::Adopted]
                .into_iter()
                .find(|known| known.as_str() == origin)?;
            (proof == key.proof(&uid, id)).then(|| (origin, parts.next().map(str::to_owned)))
        });
        let made_of = proven.as_ref().and_then(|(_, made_of)| made_of.clone());
        let proven = proven.map(|(origin, _)| origin);
        let in_status = webhook
            .status
            .as_ref()
            .and_then(|status| status.id.as_ref())
            .filter(|id| !id.is_empty());
        let id = match (annotated, proven, in_status) {
            (Some(id), Some(origin), _) => Some((id, Trust::Proven(origin))),
            (_, None, Some(id)) => Some((id, Trust::Status)),
            (Some(id), None, None) => Some((id, Trust::Hint)),
            (None, _, _) => None,
        };
        Self {
            id: id.map(|(id, trust)| (RemoteId(id.clone()), trust)),
            mark: annotation(CREATE_PENDING).map(|text| Mark::from_text(text, key, &uid)),
            may_have_written: webhook
                .finalizers()
                .iter()
                .any(|finalizer| finalizer == FINALIZER),
            annotated: proven.is_some(),
            made_of,
        }
    }

    /// The id, unless it is only a hint.
    #[must_use]
    pub fn trusted_id(&self) -> Option<&RemoteId> {
        self.id
            .as_ref()
            .filter(|(_, trust)| *trust != Trust::Hint)
            .map(|(id, _)| id)
    }

    /// Whether the registration was made for this object, as far as that is recorded.
    #[must_use]
    pub fn is_own_making(&self) -> bool {
        matches!(self.id, Some((_, Trust::Proven(Origin::Created))))
    }

    /// Text of the annotation that proves `id`, and says what it was made of where that is known.
    #[must_use]
    pub fn proof_text(
        key: &HashKey,
        uid: &str,
        id: &RemoteId,
        origin: Origin,
        made_of: Option<&str>,
    ) -> String {
        let proof = key.proof(uid, &id.0);
        match made_of {
            Some(made_of) => format!("{origin}:{proof}:{made_of}"),
            None => format!("{origin}:{proof}"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{
        WebhookSpec, WebhookStatus,
        webhook::{ProviderKind, ProviderRef},
    };

    fn key() -> HashKey {
        HashKey::new([7; 32])
    }

    fn webhook(annotations: &[(&str, &str)], status_id: Option<&str>) -> Webhook {
        let provider = ProviderRef {
            kind: ProviderKind::WebhookProvider,
            name: "p".into(),
        };
        let mut webhook = Webhook::new("w", WebhookSpec::new(provider, "https://a.example/"));
        webhook.metadata.uid = Some("uid-1".into());
        webhook.metadata.annotations = Some(
            annotations
                .iter()
                .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
                .collect(),
        );
        webhook.status = Some(WebhookStatus {
            id: status_id.map(str::to_owned),
            ..WebhookStatus::default()
        });
        webhook
    }

    #[test]
    fn a_proven_annotation_beats_the_status_and_a_copied_one_does_not() {
        let mine = Recorded::proof_text(&key(), "uid-1", &RemoteId("5".into()), Origin::Created, None);
        let other = Recorded::proof_text(&key(), "uid-2", &RemoteId("5".into()), Origin::Created, None);
        let read = |proof: &str, status| {
            Recorded::read(
                &webhook(&[(ID_ANNOTATION, "5"), (CLAIM_ANNOTATION, proof)], status),
                &key(),
            )
            .id
        };
        let five = RemoteId("5".into());
        assert_eq!(
            read(&mine, Some("4")),
            Some((five.clone(), Trust::Proven(Origin::Created)))
        );
        assert_eq!(
            read(&other, Some("4")),
            Some((RemoteId("4".into()), Trust::Status))
        );
        assert_eq!(read(&other, None), Some((five.clone(), Trust::Hint)));
        assert_eq!(read("nonsense", None), Some((five, Trust::Hint)));
        assert_eq!(Recorded::read(&webhook(&[], None), &key()).id, None);
    }

    #[test]
    fn what_it_was_made_of_counts_only_beside_its_proof_and_for_its_own_generation() {
        let five = RemoteId("5".into());
        let made = made_of(&key(), "uid-1", 1, "wanted");
        let text = |uid: &str| Recorded::proof_text(&key(), uid, &five, Origin::Created, Some(&made));
        let read = |text: &str| {
            Recorded::read(
                &webhook(&[(ID_ANNOTATION, "5"), (CLAIM_ANNOTATION, text)], None),
                &key(),
            )
        };
        let mine = read(&text("uid-1"));
        assert_eq!(mine.id, Some((five.clone(), Trust::Proven(Origin::Created))));
        assert_eq!(mine.made_of.as_ref(), Some(&made));
        assert_eq!(read(&text("uid-2")).made_of, None);
        for other in [
            made_of(&key(), "uid-2", 1, "wanted"),
            made_of(&key(), "uid-1", 2, "wanted"),
            made_of(&key(), "uid-1", 1, "another"),
        ] {
            assert_ne!(other, made);
        }
    }

    #[test]
    fn a_mark_survives_and_a_spoiled_one_is_old_and_unknown() {
        let mark = Mark {
            hash: "abc".into(),
            time: Timestamp::from_second(1_800_000_000).unwrap(),
            replaces: Some(RemoteId("5".into())),
            retire: None,
            made_of: Some("def".into()),
        };
        let text = mark.to_text(&key(), "uid-1");
        assert_eq!(Mark::from_text(&text, &key(), "uid-1"), mark);
        // Written by somebody else, copied from another object, or edited: what it says to remove does not count.
        let edited = text.replace("\"5\"", "\"6\"");
        assert_ne!(edited, text);
        for (text, uid) in [
            ("2026-01-01T00:00:00Z", "uid-1"),
            (text.as_str(), "uid-2"),
            (edited.as_str(), "uid-1"),
        ] {
            assert_eq!(Mark::from_text(text, &key(), uid), Mark::unknown());
        }
    }
}
