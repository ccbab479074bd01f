//! An account at an upstream: where it is, how to sign in, its budget, and what was learned about it. All
//! Webhooks of one provider object share one [`Account`]; it is made anew when the provider, its credentials or
//! its CA bundle change.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::time::Instant;

use super::{
    autocosmos::SignLog,
    error::ProviderError,
    limiter::{Bucket, Turns},
    transport::Transport,
};
use crate::{
    api::{
        provider::{BodyStyle, ProviderType},
        provider_status::{self, FindingResult, FindingSubject},
    },
    clock::{Clock, elapsed},
    domain::{
        capabilities::{Capabilities, RemovalRule},
        owner::ProviderKey,
        remote::Remote,
    },
    net::SecretText,
};

/// What signs a call, per type of upstream. Its `Debug` shows no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// `apiKey`.
    Conpeek {
        /// Sent bare in `Authorization`.
        api_key: SecretText,
    },
    /// `username`, `password`.
    Thulium {
        /// API user.
        username: String,
        /// Its password.
        password: SecretText,
    },
    /// `token`.
    Ricloud {
        /// Key token.
        token: SecretText,
    },
    /// `appKey`, `appSecret`.
    Autocosmos {
        /// Public half.
        app_key: String,
        /// Key of the request signatures.
        app_secret: SecretText,
    },
}

impl Credentials {
    /// Keys that the credentials Secret of this type must have, in the order of the table in the docs.
    #[must_use]
    pub const fn keys(provider_type: ProviderType) -> &'static [&'static str] {
        match provider_type {
            ProviderType::Conpeek => &["apiKey"],
            ProviderType::Thulium => &["username", "password"],
            ProviderType::Ricloud => &["token"],
            ProviderType::Autocosmos => &["appKey", "appSecret"],
        }
    }

    /// Reads them from a Secret's data.
    ///
    /// # Errors
    ///
    /// The name of the first key that is missing, empty, not UTF-8 or not fit for a header.
    pub fn read(
        provider_type: ProviderType,
        data: &BTreeMap<String, SecretText>,
    ) -> Result<Self, &'static str> {
        let get = |key: &'static str| {
            data.get(key)
                // A line break at the end is what `echo` leaves; one inside could smuggle a header.
                .map(|value| value.expose().trim_end_matches(['\r', '\n']).to_owned())
                .filter(|value| !value.is_empty() && !value.contains(['\r', '\n', '\0']))
                .ok_or(key)
        };
        Ok(match provider_type {
            ProviderType::Conpeek => Self::Conpeek {
                api_key: get("apiKey")?.into(),
            },
            ProviderType::Thulium => Self::Thulium {
                username: get("username")?,
                password: get("password")?.into(),
            },
            ProviderType::Ricloud => Self::Ricloud {
                token: get("token")?.into(),
            },
            ProviderType::Autocosmos => Self::Autocosmos {
                app_key: get("appKey")?,
                app_secret: get("appSecret")?.into(),
            },
        })
    }

    /// What tells two accounts at one base URL apart, as far as it decides which registration is meant: nothing
    /// for Conpeek and Thulium (one system, one set of registrations), the key for the others. Secret.
    #[must_use]
    pub fn scope(&self) -> SecretText {
        match self {
            Self::Conpeek { .. } | Self::Thulium { .. } => SecretText::default(),
            Self::Ricloud { token } => token.clone(),
            Self::Autocosmos { app_key, .. } => app_key.clone().into(),
        }
    }
}

/// How long something learned about an undocumented call is believed.
pub const FINDING_LIFETIME: Duration = Duration::from_secs(3600);

/// What can be learned about an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Finding {
    /// Whether Conpeek's GET works: `Supported`, `Unsupported`.
    ConpeekRead,
    /// How Conpeek wants its body: `Flat`, `Wrapped`.
    ConpeekBodyStyle,
    /// Whether Thulium's PUT by id works.
    ThuliumUpdate,
    /// Whether Thulium's DELETE by id works.
    ThuliumDelete,
}

impl Finding {
    /// How the provider's status calls it.
    #[must_use]
    pub const fn subject(self) -> FindingSubject {
        match self {
            Self::ConpeekRead => FindingSubject::Read,
            Self::ConpeekBodyStyle => FindingSubject::BodyStyle,
            Self::ThuliumUpdate => FindingSubject::Update,
            Self::ThuliumDelete => FindingSubject::Delete,
        }
    }

    /// The reverse of [`Self::subject`]; a subject names at most one finding of one upstream.
    const fn from_subject(subject: FindingSubject) -> Self {
        match subject {
            FindingSubject::Read => Self::ConpeekRead,
            FindingSubject::BodyStyle => Self::ConpeekBodyStyle,
            FindingSubject::Update => Self::ThuliumUpdate,
            FindingSubject::Delete => Self::ThuliumDelete,
        }
    }
}

/// What was learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// The call works.
    Supported,
    /// The call does not work.
    Unsupported,
    /// The body goes at top level.
    Flat,
    /// The body goes under `data`.
    Wrapped,
}

impl Learned {
    /// How the provider's status calls it.
    #[must_use]
    pub const fn result(self) -> FindingResult {
        match self {
            Self::Supported => FindingResult::Works,
            Self::Unsupported => FindingResult::Missing,
            Self::Flat => FindingResult::Flat,
            Self::Wrapped => FindingResult::Wrapped,
        }
    }

    const fn from_result(result: FindingResult) -> Self {
        match result {
            FindingResult::Works => Self::Supported,
            FindingResult::Missing => Self::Unsupported,
            FindingResult::Flat => Self::Flat,
            FindingResult::Wrapped => Self::Wrapped,
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section in this module leaves the data whole, so a panic elsewhere cannot have torn it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was learned about one account's upstream, each with its time.
#[derive(Debug, Default)]
pub struct Findings(Mutex<BTreeMap<Finding, (Learned, Timestamp)>>);

impl Findings {
    /// What is known and still believed at `now`.
    #[must_use]
    pub fn get(&self, finding: Finding, now: Timestamp) -> Option<Learned> {
        lock(&self.0)
            .get(&finding)
            .filter(|(_, since)| elapsed(*since, now) < FINDING_LIFETIME)
            .map(|(learned, _)| *learned)
    }

    /// Remembers something. Learning the same again keeps the old time, so that it is tried anew after an hour.
    pub fn learn(&self, finding: Finding, learned: Learned, now: Timestamp) {
        let mut known = lock(&self.0);
        match known.get(&finding) {
            Some((old, since)) if *old == learned && elapsed(*since, now) < FINDING_LIFETIME => {}
            _ => {
                known.insert(finding, (learned, now));
            }
        }
    }

    /// Forgets one: it stopped being true, or must be tried once more.
    pub fn forget(&self, finding: Finding) {
        lock(&self.0).remove(&finding);
    }

    /// Takes over what an account of the same provider with other credentials had learned.
    pub fn inherit(&self, other: &Self) {
        let theirs = lock(&other.0).clone();
        lock(&self.0).extend(theirs);
    }

    /// Takes over what an earlier process has left in the provider's status.
    pub fn restore(&self, found: &provider_status::Finding) {
        let learned = (Learned::from_result(found.result), found.time.0);
        lock(&self.0).insert(Finding::from_subject(found.subject), learned);
    }

    /// All that is known, for the provider's status.
    #[must_use]
    pub fn snapshot(&self, now: Timestamp) -> Vec<provider_status::Finding> {
        lock(&self.0)
            .iter()
            .filter(|(_, (_, since))| elapsed(*since, now) < FINDING_LIFETIME)
            .map(|(finding, (learned, since))| provider_status::Finding {
                subject: finding.subject(),
                result: learned.result(),
                time: Time(*since),
            })
            .collect()
    }
}

/// How long after a 401 the credentials are tried once more.
pub const UNAUTHORIZED_RETRY: Duration = Duration::from_secs(300);

/// What the calls so far said about the credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Standing {
    /// No call has been answered yet.
    #[default]
    Unknown,
    /// The upstream has accepted a call with these credentials.
    Accepted,
    /// The upstream refused them; the next call may go at this time.
    Refused {
        /// When it said so last. What was admitted before makes no further call.
        since: Instant,
        /// When one more call may be made.
        next_try: Instant,
    },
}

type Listed = Result<Arc<Vec<Remote>>, ProviderError>;

/// Lists of an account, shared by all who ask at the same time.
#[derive(Default)]
pub struct Lists {
    active: tokio::sync::Mutex<Option<(Instant, Listed)>>,
    all: tokio::sync::Mutex<Option<(Instant, Listed)>>,
}

impl Lists {
    /// A list that was begun at or after `not_before`: one that is there already, or a new one by `fetch`. Those
    /// who ask while one is under way share the next.
    ///
    /// # Errors
    ///
    /// What `fetch` returned; those who waited for it get the same.
    pub async fn get<F>(&self, inactive: bool, not_before: Instant, fetch: impl FnOnce() -> F) -> Listed
    where
        F: Future<Output = Result<Vec<Remote>, ProviderError>>,
    {
        let mut slot = if inactive {
            self.all.lock().await
        } else {
            self.active.lock().await
        };
        if let Some((begun, listed)) = slot.as_ref()
            && *begun >= not_before
        {
            return listed.clone();
        }
        let begun = Instant::now();
        let listed = fetch().await.map(Arc::new);
        *slot = Some((begun, listed.clone()));
        listed
    }
}

/// One account. See the module's text.
pub struct Account {
    /// The provider object that it belongs to.
    pub owner: ProviderKey,
    /// Which upstream.
    pub provider_type: ProviderType,
    /// Base URL without a trailing slash; calls append their path to it.
    pub base: String,
    /// What signs the calls.
    pub credentials: Credentials,
    /// Whether calls that the public documents do not show may be made.
    pub undocumented: bool,
    /// Whether the provider limits removals.
    pub limited: bool,
    /// How Conpeek wants its body.
    pub body_style: BodyStyle,
    /// Longest time for one call.
    pub timeout: Duration,
    /// Sends the calls.
    pub transport: Arc<dyn Transport>,
    /// How many passes work at once, most urgent first.
    pub turns: Turns,
    /// Requests per second.
    pub bucket: Bucket,
    /// What was learned.
    pub findings: Findings,
    /// Shared lists.
    pub lists: Lists,
    /// Autocosmos: signatures of the last second, none of which may be sent again.
    pub sign_log: SignLog,
    /// Wall clock.
    pub clock: Clock,
    pub(super) standing: Mutex<Standing>,
}

impl Account {
    /// An account with a budget of `rate` = (requests per second, burst, passes at once).
    #[must_use]
    pub fn new(
        provider_type: ProviderType,
        base: &str,
        credentials: Credentials,
        rate: (u32, u32, u32),
        transport: Arc<dyn Transport>,
        clock: Clock,
    ) -> Self {
        Self {
            owner: ProviderKey::default(),
            provider_type,
            base: base.trim_end_matches('/').to_owned(),
            credentials,
            undocumented: true,
            limited: false,
            body_style: BodyStyle::Auto,
            timeout: Duration::from_secs(20),
            transport,
            turns: Turns::new(rate.2),
            bucket: Bucket::new(rate.0, rate.1),
            findings: Findings::default(),
            lists: Lists::default(),
            sign_log: SignLog::default(),
            clock,
            standing: Mutex::default(),
        }
    }

    /// Whether removing a registration makes a call that deletes or switches off: some upstreams have none.
    #[must_use]
    pub fn can_remove(&self, capabilities: &Capabilities) -> bool {
        match capabilities.removal {
            RemovalRule::LeftInPlace => false,
            RemovalRule::UndocumentedDelete => self.undocumented,
            RemovalRule::DeleteOrSwitchOff => true,
        }
    }

    /// What the calls so far said about the credentials.
    #[must_use]
    pub fn standing(&self) -> Standing {
        *lock(&self.standing)
    }

    /// Whether no pass may call now, because the upstream refused the credentials: until when. Changes nothing, so it
    /// is what a pass asks that still has to wait for its turn.
    #[must_use]
    pub fn refused_until(&self) -> Option<Instant> {
        match self.standing() {
            Standing::Refused { next_try, .. } if Instant::now() < next_try => Some(next_try),
            Standing::Unknown | Standing::Accepted | Standing::Refused { .. } => None,
        }
    }

    /// Whether a pass may call now. After a refusal one is let through every [`UNAUTHORIZED_RETRY`], so this is asked
    /// by those who have their turn.
    ///
    /// # Errors
    ///
    /// When to ask again.
    pub fn admit(&self) -> Result<(), Instant> {
        let mut standing = lock(&self.standing);
        match *standing {
            Standing::Unknown | Standing::Accepted => Ok(()),
            Standing::Refused { since, next_try } if Instant::now() >= next_try => {
                *standing = Standing::Refused {
                    since,
                    next_try: Instant::now() + UNAUTHORIZED_RETRY,
                };
                Ok(())
            }
            Standing::Refused { next_try, .. } => Err(next_try),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, SecretText> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), SecretText::from((*value).to_owned())))
            .collect()
    }

    #[test]
    fn a_missing_key_is_named() {
        for kind in [
            ProviderType::Conpeek,
            ProviderType::Thulium,
            ProviderType::Ricloud,
            ProviderType::Autocosmos,
        ] {
            let mut all: Vec<_> = Credentials::keys(kind).iter().map(|key| (*key, "v")).collect();
            assert!(Credentials::read(kind, &data(&all)).is_ok());
            let dropped = all.pop().unwrap().0;
            assert_eq!(Credentials::read(kind, &data(&all)).unwrap_err(), dropped);
        }
    }

    #[test]
    fn a_line_break_at_the_end_is_cut_and_one_inside_is_refused() {
        let read = |value| Credentials::read(ProviderType::Ricloud, &data(&[("token", value)]));
        let Ok(Credentials::Ricloud { token }) = read("abc\n") else {
            panic!("refused")
        };
        assert_eq!(token.expose(), "abc");
        assert_eq!(read("abc\nX-Evil: 1").unwrap_err(), "token");
        assert_eq!(read("\n").unwrap_err(), "token");
    }

    #[test]
    fn a_finding_is_forgotten_after_an_hour_even_if_confirmed() {
        let findings = Findings::default();
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let at = |minutes: u64| start.saturating_add(Duration::from_secs(minutes * 60)).unwrap();
        findings.learn(Finding::ThuliumDelete, Learned::Unsupported, at(0));
        findings.learn(Finding::ThuliumDelete, Learned::Unsupported, at(30));
        assert_eq!(
            findings.get(Finding::ThuliumDelete, at(59)),
            Some(Learned::Unsupported)
        );
        assert_eq!(findings.get(Finding::ThuliumDelete, at(60)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn lists_asked_for_together_are_fetched_together() {
        use std::sync::atomic::{AtomicU32, Ordering};
        let (lists, fetched) = (Lists::default(), AtomicU32::new(0));
        let ask = || {
            lists.get(false, Instant::now(), || async {
                fetched.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(Vec::new())
            })
        };
        let late = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            futures::future::join(ask(), ask()).await
        };
        let _ = futures::future::join3(ask(), ask(), late).await;
        // The first two share one; the late two must not have a list begun before they asked, and share another.
        assert_eq!(fetched.load(Ordering::Relaxed), 2);
    }
}
