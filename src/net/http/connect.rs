//! How far a connection has come, which the HTTP library does not tell: its resolver, its connector and its TLS
//! sessions are asked from inside, and note it in the call that they work for.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use rustls::{
    NamedGroup,
    client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue},
    pki_types::ServerName,
};
use tokio::time::{Instant, timeout_at};
use tower::{Layer, Service};

use crate::net::{
    error::Phase,
    guard::AddressPolicy,
    resolve::{Resolve, Rule, resolve_checked},
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Values of [`CallState::progress`].
const RESOLVING: u8 = 1;
const RESOLVED: u8 = 2;
/// Told only by clients that connect anew; the others end a slow handshake in [`Phase::Connect`].
const HANDSHAKING: u8 = 3;

/// One call as seen from inside the library, where resolver and connector run.
pub(super) struct CallState {
    until: Instant,
    progress: AtomicU8,
}

impl CallState {
    /// A call that ends at this time.
    pub(super) fn new(until: Instant) -> Self {
        Self {
            until,
            progress: AtomicU8::new(0),
        }
    }

    fn mark(&self, progress: u8) {
        self.progress.store(progress, Ordering::Relaxed);
    }

    /// Where a connection attempt is that ends now.
    fn phase(&self) -> Phase {
        match self.progress.load(Ordering::Relaxed) {
            RESOLVING => Phase::Resolve,
            HANDSHAKING => Phase::Tls,
            _ => Phase::Connect,
        }
    }
}

tokio::task_local! {
    /// Only for time limits and messages. The guard itself does not depend on it.
    pub(super) static CALL: Arc<CallState>;
}

/// Our resolver in the library's terms.
pub(super) struct GuardedResolver {
    pub(super) resolver: Arc<dyn Resolve>,
    pub(super) policy: Arc<AddressPolicy>,
    pub(super) rule: Rule,
    /// Longest time for a lookup.
    pub(super) within: Duration,
}

impl reqwest::dns::Resolve for GuardedResolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let call = CALL.try_with(Arc::clone).ok();
        let (resolver, policy) = (Arc::clone(&self.resolver), Arc::clone(&self.policy));
        let (rule, within) = (self.rule, self.within);
        Box::pin(async move {
            let mark = |progress| {
                if let Some(call) = &call {
                    call.mark(progress);
                }
            };
            mark(RESOLVING);
            let found = resolve_checked(&*resolver, &policy, rule, name.as_str(), within).await?;
            mark(RESOLVED);
            // Port 0: the library puts the URL's in.
            let addrs = found.into_iter().map(|addr| SocketAddr::new(addr, 0));
            Ok(Box::new(addrs) as reqwest::dns::Addrs)
        })
    }
}

/// Remembers no TLS session. It is asked for one when a handshake begins, which nothing else tells.
#[derive(Debug)]
pub(super) struct NoSessions;

impl ClientSessionStore for NoSessions {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, _: Tls13ClientSessionValue) {}

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        // Outside of a call there is nobody to tell.
        let _ = CALL.try_with(|call| call.mark(HANDSHAKING));
        None
    }
}

/// Ends a connection attempt that takes too long, from inside of the connector: the library then knows that the
/// request was never sent, which it could not say if the call were given up from outside.
#[derive(Clone)]
pub(super) struct WatchLayer {
    pub(super) connect_timeout: Duration,
}

impl<S> Layer<S> for WatchLayer {
    type Service = Watch<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Watch {
            inner,
            connect_timeout: self.connect_timeout,
        }
    }
}

#[derive(Clone)]
pub(super) struct Watch<S> {
    inner: S,
    connect_timeout: Duration,
}

/// No connection in time.
#[derive(Debug, thiserror::Error)]
#[error("no connection in time")]
pub(super) struct ConnectTimedOut(pub(super) Phase);

impl<S, R> Service<R> for Watch<S>
where
    S: Service<R, Error = BoxError>,
    S::Future: Send + 'static,
    S::Response: 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<S::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, target: R) -> Self::Future {
        let call = CALL.try_with(Arc::clone).ok();
        let now = Instant::now();
        let limit = now.checked_add(self.connect_timeout).unwrap_or(now);
        let until = call.as_ref().map_or(limit, |call| call.until.min(limit));
        let connecting = self.inner.call(target);
        Box::pin(async move {
            if let Ok(done) = timeout_at(until, connecting).await {
                return done;
            }
            let phase = call.map_or(Phase::Connect, |call| call.phase());
            Err(Box::new(ConnectTimedOut(phase)) as BoxError)
        })
    }
}
