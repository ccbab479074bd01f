//! Names to checked addresses, behind a seam that tests can replace.
//!
//! There is one lookup per connection, and the connection uses the very answer that was checked: a name that
//! changes its answer between a check and a second lookup cannot get through, because there is no second lookup.
//! One refused address refuses the whole name: an answer that mixes public and internal addresses has no honest
//! use here.

use std::{
    io,
    net::{IpAddr, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::sync::Semaphore;

use super::guard::{AddressPolicy, Refused};

/// Looks names up. Implementations need neither check addresses nor bound their own time.
pub trait Resolve: Send + Sync {
    /// All addresses of `name`, in the order in which they should be tried.
    ///
    /// # Errors
    /// Whatever the lookup says; the text is never shown.
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// Lookups that may run at once. Each holds a thread until the system's resolver gives up, long after the caller
/// has: without a bound, a few dead names could use up the runtime's threads.
const MAX_LOOKUPS: usize = 64;

/// The system's resolver (`getaddrinfo`): hosts file, search domains and all.
#[derive(Debug, Clone)]
pub struct SystemResolver {
    permits: Arc<Semaphore>,
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(MAX_LOOKUPS)),
        }
    }
}

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        let permits = Arc::clone(&self.permits);
        let name = name.to_owned();
        Box::pin(async move {
            let permit = permits.acquire_owned().await.map_err(io::Error::other)?;
            let lookup = move || {
                // Moved in, so that it is given back when the thread ends and not when the caller stops waiting.
                let _permit = permit;
                (name.as_str(), 0)
                    .to_socket_addrs()
                    .map(|found| found.map(|addr| addr.ip()).collect())
            };
            tokio::task::spawn_blocking(lookup)
                .await
                .map_err(io::Error::other)?
        })
    }
}

/// Why a name gave no usable address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The lookup failed or found nothing.
    #[error("the name cannot be resolved")]
    Failed,
    /// No answer in time.
    #[error("the resolver does not answer")]
    TimedOut,
    /// At least one of the addresses is refused.
    #[error("the name resolves to {0}")]
    Blocked(Refused),
}

/// Which addresses will do for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// Whatever the policy does not refuse.
    NotRefused,
    /// Only networks on the allow list: for unencrypted HTTP.
    Listed,
}

impl Rule {
    /// Judges one address.
    pub(super) fn check(self, policy: &AddressPolicy, addr: IpAddr) -> Result<(), Refused> {
        match self {
            Self::NotRefused => policy.check(addr),
            Self::Listed => policy.check_listed(addr),
        }
    }
}

/// Looks `name` up within `within` and checks every address of the answer.
pub(super) async fn resolve_checked(
    resolver: &dyn Resolve,
    policy: &AddressPolicy,
    rule: Rule,
    name: &str,
    within: Duration,
) -> Result<Vec<IpAddr>, ResolveError> {
    let found = match tokio::time::timeout(within, resolver.resolve(name)).await {
        Err(_) => return Err(ResolveError::TimedOut),
        Ok(Err(_)) => return Err(ResolveError::Failed),
        Ok(Ok(found)) => found,
    };
    if found.is_empty() {
        return Err(ResolveError::Failed);
    }
    for addr in &found {
        rule.check(policy, *addr).map_err(ResolveError::Blocked)?;
    }
    Ok(found)
}
