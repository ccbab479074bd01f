//! Finds out whether a provider's account can be used: from what its calls said, else by reading its list.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};

use super::Memory;
use crate::{
    api::{
        conditions::ProviderReason,
        provider::SecretLocation,
        provider_status::{Finding, ProviderStatus},
    },
    clock::elapsed,
    controller::{
        accounts::AccountProblem,
        context::{Context, ProviderObject},
    },
    domain::{
        provider_status::{self as status, Health, RESYNC, SECRET_RETRY, has_list},
        remote::Look,
        status::Said,
    },
    provider::{
        Account, Credentials, Effect, ErrorClass, Operation, Priority, Provider as _, ProviderError,
        Standing, Upstream, account::FINDING_LIFETIME,
    },
};

/// How long a verification waits for its turn. When the account is that busy, its other calls tell as much.
const TURN_WAIT: Duration = Duration::from_secs(10);
/// How long the list may take, all pages together. The first page that is accepted already verifies.
const LIST_LIMIT: Duration = Duration::from_secs(60);
/// When to ask again whether a call may be made.
const HELD_RETRY: Duration = Duration::from_secs(5);

/// What was found out.
pub(super) struct Examined {
    /// What `Ready` says.
    pub(super) ready: Said<ProviderReason>,
    /// What was learned about the upstream; `None`: there is no account that could know.
    pub(super) findings: Option<Vec<Finding>>,
    /// When to look again.
    pub(super) again: Instant,
    /// The account, if there is one.
    pub(super) account: Option<Arc<Account>>,
}

/// What is known of one account.
#[derive(Default)]
pub(super) struct Known {
    account: Option<Arc<Account>>,
    generation: Option<i64>,
    verdict: Option<Said<ProviderReason>>,
    failures: u32,
    next: Option<Instant>,
}

impl Known {
    /// Takes a new account over. What the old one proved stands as long as the credentials are the same: a Secret
    /// also changes when only its labels do. The spec may have changed the way to the upstream, so where a list
    /// can be read it is read again.
    fn adopt(&mut self, account: &Arc<Account>, provider: &ProviderObject) {
        let generation = provider.metadata().generation;
        let stands = match &self.account {
            Some(old) if Arc::ptr_eq(old, account) => return,
            Some(old) => {
                let same =
                    old.base == account.base && same_credentials(&old.credentials, &account.credentials);
                let unchanged = self.generation == generation || !has_list(account.provider_type);
                same && unchanged && self.is_verified(old)
            }
            // An earlier process verified it. Should that be out of date, the next call tells.
            None => provider
                .status()
                .is_some_and(|status| said_verified(status, generation)),
        };
        *self = Self {
            account: Some(Arc::clone(account)),
            generation,
            verdict: stands.then(status::verified),
            failures: 0,
            next: None,
        };
    }

    fn is_verified(&self, account: &Account) -> bool {
        match account.standing() {
            Standing::Accepted => true,
            Standing::Refused { .. } => false,
            Standing::Unknown => matches!(self.verdict, Some((ProviderReason::Verified, _))),
        }
    }
}

fn said_verified(old: &ProviderStatus, generation: Option<i64>) -> bool {
    old.observed_generation == generation && status::reason_of(old) == Some(ProviderReason::Verified)
}

fn same_credentials(one: &Credentials, other: &Credentials) -> bool {
    use Credentials::{Autocosmos, Conpeek, Ricloud, Thulium};
    match (one, other) {
        (Conpeek { api_key: a }, Conpeek { api_key: b }) => a.expose() == b.expose(),
        (
            Thulium {
                username: a,
                password: p,
            },
            Thulium {
                username: b,
                password: q,
            },
        ) => a == b && p.expose() == q.expose(),
        (Ricloud { token: a }, Ricloud { token: b }) => a.expose() == b.expose(),
        (
            Autocosmos {
                app_key: a,
                app_secret: p,
            },
            Autocosmos {
                app_key: b,
                app_secret: q,
            },
        ) => a == b && p.expose() == q.expose(),
        (Conpeek { .. } | Thulium { .. } | Ricloud { .. } | Autocosmos { .. }, _) => false,
    }
}

/// Finds out how the provider is, with a call where one is due.
///
/// # Errors
///
/// When the API server failed.
pub(super) async fn examine(
    ctx: &Context,
    provider: &ProviderObject,
    memory: &mut Memory,
) -> Result<Examined, kube::Error> {
    let settings = provider.settings();
    let location = provider.credentials();
    let mut again = Instant::now() + RESYNC;
    let (mut account, mut problem) = (None, None);
    // What it says of itself comes first: it may say more than can be read.
    let suspended = settings.suspend && settings.unread.is_empty();
    if !suspended {
        match ctx.accounts.get(ctx, provider).await {
            Ok(found) => account = Some(found),
            Err(AccountProblem::Kube(kube::Error::Api(answer))) if answer.is_forbidden() => {
                again = Instant::now() + SECRET_RETRY;
                problem = Some((ProviderReason::SecretNotFound, forbidden(&location)));
            }
            Err(AccountProblem::Kube(error)) => return Err(error),
            Err(AccountProblem::Refused(reason, message)) => {
                if matches!(
                    reason,
                    ProviderReason::SecretNotFound | ProviderReason::KeyMissing
                ) {
                    again = Instant::now() + SECRET_RETRY;
                }
                problem = Some((reason, message));
            }
        }
    }
    let (mut standing, mut findings) = (Standing::Unknown, None);
    let known = &mut memory.known;
    if let Some(account) = &account {
        known.adopt(account, provider);
        verify(ctx, account, known).await;
        standing = account.standing();
        let now = ctx.clock.now();
        let snapshot = account.findings.snapshot(now);
        // They are taken out of the status when they are no longer believed.
        for finding in &snapshot {
            let left = FINDING_LIFETIME.saturating_sub(elapsed(finding.time.0, now));
            again = again.min(Instant::now() + left + Duration::from_secs(1));
        }
        findings = Some(snapshot);
        again = known
            .next
            .filter(|_| !known.is_verified(account))
            .map_or(again, |next| again.min(next));
    }
    let ready = status::ready(Health {
        suspended,
        problem,
        standing,
        verdict: known.verdict.clone(),
        provider_type: settings.type_,
        credentials: &location,
    });
    Ok(Examined {
        ready,
        findings,
        again,
        account,
    })
}

/// Nobody sees the operator's log who has to grant it the right.
fn forbidden(location: &SecretLocation) -> String {
    let SecretLocation { namespace, name } = location;
    format!(
        "the operator may not read the credentials Secret {name:?} in namespace {namespace:?} (or what spec.caBundleRef names); grant it the right to get it"
    )
}

/// Reads the list once where that is due, and remembers what came of it.
async fn verify(ctx: &Context, account: &Arc<Account>, known: &mut Known) {
    let due = known.next.is_none_or(|next| Instant::now() >= next);
    if !has_list(account.provider_type) || known.is_verified(account) || !due {
        return;
    }
    // The upstream asked everybody to wait: that says nothing about the credentials.
    if let Some(until) = account
        .bucket
        .held_until()
        .filter(|until| *until > Instant::now())
    {
        known.next = Some(until);
        return;
    }
    let priority = if known.failures == 0 {
        Priority::Change
    } else {
        Priority::ReadBack
    };
    let Ok(turn) = timeout(TURN_WAIT, account.turns.take(priority)).await else {
        known.next = Some(Instant::now() + TURN_WAIT);
        return;
    };
    if known.is_verified(account) {
        return;
    }
    if let Err(next) = account.admit() {
        known.next = Some(next);
        return;
    }
    let outcome = read_list(ctx, account, known.failures).await;
    drop(turn);
    match outcome {
        Ok(()) => note_success(known),
        Err(_) if account.standing() == Standing::Accepted => note_success(known),
        Err(error) => note_failure(known, account, &error),
    }
}

async fn read_list(ctx: &Context, account: &Arc<Account>, failures: u32) -> Result<(), ProviderError> {
    let call = ctx.call(account, Instant::now(), failures);
    let upstream = Upstream::from(account.provider_type);
    let look = Look::All { inactive: false };
    let listed = timeout(LIST_LIMIT, Box::pin(upstream.look(&call, &look))).await;
    listed.unwrap_or_else(|_| {
        let message = format!("the upstream did not answer within {} s", LIST_LIMIT.as_secs());
        Err(ProviderError::new(
            ErrorClass::Timeout,
            Operation::List,
            Effect::None,
            message,
        ))
    })?;
    Ok(())
}

fn note_success(known: &mut Known) {
    known.failures = 0;
    known.next = None;
    known.verdict = Some(status::verified());
}

fn note_failure(known: &mut Known, account: &Account, error: &ProviderError) {
    let Some(verdict) = status::judge(error) else {
        known.next = Some(Instant::now() + HELD_RETRY);
        return;
    };
    known.failures = known.failures.saturating_add(1);
    let delay = status::recheck(error, known.failures, super::seed(&account.owner));
    tracing::debug!(provider = ?account.owner, %error, ?delay, "verification failed");
    known.verdict = Some(verdict);
    known.next = Some(Instant::now() + delay);
}
