//! Keyed hashes of what was applied. They stand in statuses and annotations where secrets must not, and without
//! the key (a Secret in the operator's namespace) they cannot be used to guess one.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::desired::Desired;

/// The operator's key. Its `Debug` shows nothing of it.
#[derive(Clone)]
pub struct HashKey {
    key: [u8; 32],
    id: String,
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HashKey({})", self.id)
    }
}

/// How a recorded hash relates to what is wanted now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Nothing was recorded.
    Never,
    /// Exactly this was applied.
    Same,
    /// Something else was applied.
    Changed,
    /// It was made with a key that is lost: nobody can tell.
    OtherKey,
}

impl HashKey {
    /// A key from its 32 bytes.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        let id = hex(
            &Sha256::digest([b"webhook-operator key id".as_slice(), &key].concat()),
            4,
        );
        Self { key, id }
    }

    /// Fields are length-prefixed, so that no two lists of fields give the same bytes.
    fn mac(&self, purpose: &str, fields: &[&[u8]]) -> [u8; 32] {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) else {
            // HMAC takes keys of any length; the type only cannot say so.
            return [0; 32];
        };
        for field in std::iter::once(&purpose.as_bytes()).chain(fields) {
            mac.update(&(field.len() as u64).to_be_bytes());
            mac.update(field);
        }
        mac.finalize().into_bytes().into()
    }

    /// Hash of everything that is applied, secrets included: `<key id>:<128 bits>` in hexadecimal.
    #[must_use]
    pub fn applied(&self, want: &Desired) -> String {
        let mut fields: Vec<Vec<u8>> = vec![
            want.url.as_bytes().to_vec(),
            vec![u8::from(want.active)],
            optional(want.target.as_deref()),
            optional(want.description.as_deref()),
            optional(want.secret.as_ref().map(|secret| secret.expose())),
            optional(want.basic_auth.as_ref().map(|auth| auth.username.as_str())),
            optional(want.basic_auth.as_ref().map(|auth| auth.password.expose())),
        ];
        let retry = want.retry.map(|retry| {
            format!(
                "{} {:?} {} {}",
                retry.enabled, retry.initial_delay, retry.max_retries, retry.factor
            )
        });
        fields.push(optional(retry.as_deref()));
        fields.push(want.events.len().to_be_bytes().to_vec());
        fields.extend(want.events.iter().map(|event| event.as_bytes().to_vec()));
        for header in &want.headers {
            fields.push(header.name.as_bytes().to_vec());
            fields.push(header.value.expose().as_bytes().to_vec());
        }
        let fields: Vec<&[u8]> = fields.iter().map(Vec::as_slice).collect();
        format!("{}:{}", self.id, hex(&self.mac("applied", &fields), 16))
    }

    /// How a recorded hash relates to the one of what is wanted now.
    #[must_use]
    pub fn compare(&self, recorded: Option<&str>, wanted: &str) -> Applied {
        match recorded {
            None => Applied::Never,
            Some(recorded) if recorded.split_once(':').is_none_or(|(id, _)| id != self.id) => {
                Applied::OtherKey
            }
            Some(recorded) if recorded == wanted => Applied::Same,
            Some(_) => Applied::Changed,
        }
    }

    /// Hash of the content by which a registration without a known id is found again: URL and set of events.
    #[must_use]
    pub fn content<'a>(&self, url: &str, events: impl IntoIterator<Item = &'a String>) -> String {
        // Scheme and host in lower case, as `same_url` compares them.
        let url = super::remote::normal_url(url);
        let mut fields = vec![url.as_bytes()];
        fields.extend(events.into_iter().map(|event| event.as_bytes()));
        hex(&self.mac("content", &fields), 16)
    }

    /// Proof that this very object (by uid) of this very cluster (by key) recorded this id. It does not survive
    /// being copied to another object, so a copied `id` annotation is only a hint.
    #[must_use]
    pub fn proof(&self, uid: &str, id: &str) -> String {
        hex(&self.mac("claim", &[uid.as_bytes(), id.as_bytes()]), 16)
    }

    /// Hash of any other secret text, to compare two of them without keeping either.
    #[must_use]
    pub fn fingerprint(&self, purpose: &str, text: &str) -> String {
        hex(&self.mac(purpose, &[text.as_bytes()]), 16)
    }
}

/// Tells "nothing" from "empty".
fn optional(text: Option<&str>) -> Vec<u8> {
    text.map_or_else(Vec::new, |text| [b"=", text.as_bytes()].concat())
}

fn hex(bytes: &[u8], count: usize) -> String {
    bytes
        .iter()
        .take(count)
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::desired::{BasicAuth, Header, Retry};

    fn key(byte: u8) -> HashKey {
        HashKey::new([byte; 32])
    }

    fn base() -> Desired {
        Desired {
            url: "https://a.example/x".into(),
            active: true,
            ..Desired::default()
        }
    }

    #[test]
    fn every_field_changes_the_hash() {
        let secret = |text: &str| text.to_owned().into();
        let header = |name: &str, value: &str| Header {
            name: name.into(),
            value: secret(value),
        };
        let variants = [
            base(),
            Desired {
                url: "https://a.example/y".into(),
                ..base()
            },
            Desired {
                active: false,
                ..base()
            },
            Desired {
                target: Some(String::new()),
                ..base()
            },
            Desired {
                target: Some("t".into()),
                ..base()
            },
            Desired {
                description: Some("t".into()),
                ..base()
            },
            Desired {
                secret: Some(secret("t")),
                ..base()
            },
            Desired {
                basic_auth: Some(BasicAuth {
                    username: "u".into(),
                    password: secret("p"),
                }),
                ..base()
            },
            Desired {
                basic_auth: Some(BasicAuth {
                    username: "up".into(),
                    password: secret(""),
                }),
                ..base()
            },
            Desired {
                retry: Some(Retry::default()),
                ..base()
            },
            Desired {
                events: BTreeSet::from(["a".into(), "b".into()]),
                ..base()
            },
            Desired {
                events: BTreeSet::from(["ab".into()]),
                ..base()
            },
            Desired {
                headers: vec![header("a", "b")],
                ..base()
            },
            Desired {
                headers: vec![header("ab", "")],
                ..base()
            },
        ];
        let hashes: BTreeSet<_> = variants.iter().map(|want| key(1).applied(want)).collect();
        assert_eq!(hashes.len(), variants.len());
    }

    #[test]
    fn a_lost_key_is_told_from_a_change() {
        let recorded = key(1).applied(&base());
        let compare = |byte, recorded: Option<&String>, want: &Desired| {
            key(byte).compare(recorded.map(String::as_str), &key(byte).applied(want))
        };
        assert_eq!(compare(1, Some(&recorded), &base()), Applied::Same);
        assert_eq!(
            compare(
                1,
                Some(&recorded),
                &Desired {
                    active: false,
                    ..base()
                }
            ),
            Applied::Changed
        );
        assert_eq!(compare(2, Some(&recorded), &base()), Applied::OtherKey);
        assert_eq!(
            compare(2, Some(&"garbage".to_owned()), &base()),
            Applied::OtherKey
        );
        assert_eq!(compare(1, None, &base()), Applied::Never);
    }

    #[test]
    fn a_proof_holds_for_one_object_and_id() {
        let proof = key(1).proof("uid-1", "5");
        assert_ne!(proof, key(1).proof("uid-2", "5"));
        assert_ne!(proof, key(1).proof("uid-1", "6"));
        assert_ne!(proof, key(2).proof("uid-1", "5"));
    }

    #[test]
    fn content_ignores_the_case_of_the_host_as_the_comparison_does() {
        let events = [String::from("A")];
        assert_eq!(
            key(1).content("https://A.example/x", &events),
            key(1).content("https://a.example/x", &events)
        );
        assert_ne!(
            key(1).content("https://a.example/x", &events),
            key(1).content("https://a.example/X", &events)
        );
        assert_ne!(
            key(1).content("https://a.example/x", &events),
            key(1).content("https://a.example/x", &[])
        );
    }

    #[test]
    fn nothing_of_the_key_is_printed() {
        assert!(!format!("{:?}", HashKey::new([0x61; 32])).contains("aaaa"));
    }
}
