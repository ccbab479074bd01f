//! Names to checked addresses, behind a seam that tests can replace.
//!
//! There is one lookup per connection, and the connection uses the very answer that was checked: a name that
//! changes its answer between a check and a second lookup cannot get through, because there is no second lookup.
//! One refused address refuses the whole name: an answer that mixes public and internal addresses has no honest
//! use here.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, ToSocketAddrs},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
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
        Self::with_lookups(MAX_LOOKUPS)
    }
}

impl SystemResolver {
    /// So many lookups at once. Each takes one of the runtime's blocking threads, of which there are 512.
    #[must_use]
    pub fn with_lookups(most: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(most)),
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

/// What a lookup gives to all who wait for it.
type Answer = Result<Vec<IpAddr>, io::ErrorKind>;
type Lookup = Shared<BoxFuture<'static, Answer>>;

/// Looks each name up once at a time; whoever asks meanwhile gets the same answer. Thousands of probes of one dead
/// name so take one lookup, and leave the others to the names of other receivers. Nothing is remembered.
pub struct SharedLookups {
    resolver: Arc<dyn Resolve>,
    running: Arc<Mutex<HashMap<String, Lookup>>>,
}

impl SharedLookups {
    /// In front of this resolver.
    #[must_use]
    pub fn new(resolver: Arc<dyn Resolve>) -> Self {
        Self {
            resolver,
            running: Arc::default(),
        }
    }

    fn lookup(&self, name: &str) -> Lookup {
        let mut running = lock(&self.running);
        if let Some(lookup) = running.get(name) {
            return lookup.clone();
        }
        let (resolver, all, name) = (
            Arc::clone(&self.resolver),
            Arc::clone(&self.running),
            name.to_owned(),
        );
        let key = name.clone();
        // A task of its own: it ends, and makes room, also when nobody waits any more.
        let task = tokio::spawn(async move {
            let found = resolver.resolve(&name).await.map_err(|error| error.kind());
            lock(&all).remove(&name);
            found
        });
        let lookup = async move { task.await.unwrap_or(Err(io::ErrorKind::Other)) };
        let lookup = lookup.boxed().shared();
        running.insert(key, lookup.clone());
        lookup
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section leaves the map whole, so a panic elsewhere cannot have torn it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Resolve for SharedLookups {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        let lookup = self.lookup(name);
        Box::pin(async move { Ok(lookup.await?) })
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Counts lookups; each takes a second.
    #[derive(Default)]
    struct Slow(AtomicUsize);

    impl Resolve for Slow {
        fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            let found = (name == "good.test").then(|| IpAddr::from([192, 0, 2, 1]));
            Box::pin(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                found
                    .map(|addr| vec![addr])
                    .ok_or(io::Error::from(io::ErrorKind::NotFound))
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_looked_up_once_for_all_who_wait_and_anew_for_who_comes_later() {
        let slow = Arc::new(Slow::default());
        let shared = SharedLookups::new(Arc::clone(&slow) as Arc<dyn Resolve>);
        let count = || slow.0.load(Ordering::Relaxed);
        let together = futures::future::join_all((0..100).map(|_| shared.resolve("good.test"))).await;
        assert!(together.iter().all(|found| found.as_ref().unwrap().len() == 1));
        assert_eq!(count(), 1);
        assert!(shared.resolve("good.test").await.is_ok());
        assert_eq!(count(), 2, "nothing is remembered");
        let (bad, good) = tokio::join!(shared.resolve("bad.test"), shared.resolve("good.test"));
        assert_eq!(bad.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(good.is_ok());
        assert_eq!(count(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_leaves_nothing_behind() {
        let shared = SharedLookups::new(Arc::new(Slow::default()));
        let brief = Duration::from_millis(10);
        assert!(
            tokio::time::timeout(brief, shared.resolve("good.test"))
                .await
                .is_err()
        );
        assert_eq!(lock(&shared.running).len(), 1);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(lock(&shared.running).is_empty());
    }
}
