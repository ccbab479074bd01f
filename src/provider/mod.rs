//! The upstreams. Each file knows the HTTP dialect of one of them and nothing of Kubernetes; its wire types are
//! private to it. To add one: its file, a variant of [`ProviderType`], a page in `docs/providers`, an example.
//!
//! What a call shares with all others (budget, fence, deadline, classes of errors) is in [`Call`].

pub mod account;
pub mod autocosmos;
pub mod conpeek;
pub mod error;
pub mod limiter;
pub mod ricloud;
pub mod thulium;
pub mod transport;
mod wire;

use std::time::Duration;

use opentelemetry::KeyValue;
use tokio::time::Instant;

pub use self::{
    account::{Account, Credentials, Finding, Learned, Standing},
    error::{Effect, ErrorClass, Operation, ProviderError},
    limiter::{Priority, Turn},
    transport::Transport,
};
use self::{
    account::{UNAUTHORIZED_RETRY, lock},
    autocosmos::Autocosmos,
    conpeek::Conpeek,
    ricloud::Ricloud,
    thulium::Thulium,
};
use crate::{
    api::provider::ProviderType,
    domain::{
        capabilities::Capabilities,
        desired::Desired,
        remote::{Look, Remote, RemoteId, Seen, TaskId},
    },
    net::{CheckedUrl, Limit, Method, Request, Response, SecretText, retry_after},
    telemetry::trace::{Span, key},
};

/// Says whether this process may still write: it holds the lease, or there is none.
pub trait Fence: Send + Sync {
    /// How long a call that starts now may last. `None`: no call may start.
    fn remaining(&self) -> Option<Duration>;
}

/// No lease: one replica, or a test.
#[derive(Clone, Copy, Debug)]
pub struct NoFence;

impl Fence for NoFence {
    fn remaining(&self) -> Option<Duration> {
        Some(Duration::MAX)
    }
}

/// Told of every answered or failed request, for metrics and logs.
pub trait Observer: Send + Sync {
    /// One request ended. `code` is the HTTP status or the error class.
    fn request(&self, provider_type: ProviderType, operation: Operation, code: &str, took: Duration);
    /// The budget made a request wait.
    fn throttled(&self, provider_type: ProviderType, waited: Duration);
    /// What the upstream thinks of the credentials has changed.
    fn standing(&self, account: &Account, standing: Standing);
}

/// An observer that looks away.
#[derive(Clone, Copy, Debug)]
pub struct NoObserver;

impl Observer for NoObserver {
    fn request(&self, _: ProviderType, _: Operation, _: &str, _: Duration) {}
    fn throttled(&self, _: ProviderType, _: Duration) {}
    fn standing(&self, _: &Account, _: Standing) {}
}

/// What every call shares.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// Whom to call.
    pub account: &'a Account,
    /// Whether a call may still be made.
    pub fence: &'a dyn Fence,
    /// Whom to tell.
    pub observer: &'a dyn Observer,
    /// When its pass was admitted ([`Account::admit`]). Once the upstream has refused the credentials after this, no
    /// further request is sent.
    pub admitted: Instant,
    /// A shared list counts only if it was begun at or after this.
    pub fresh_after: Instant,
    /// Which attempt in a row this is, from 1.
    pub attempt: u32,
    /// No request is sent after this: what allowed it (the provider's `deletionLimit`) does so only for a time.
    pub not_after: Option<Instant>,
}

/// One request of a dialect, before it is sent.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// What it is for.
    pub operation: Operation,
    /// HTTP method.
    pub method: Method,
    /// What is appended to the base URL: begins with `/`, already percent-encoded, with the query if any.
    pub path: String,
    /// Headers, `Authorization` among them.
    pub headers: Vec<(&'static str, SecretText)>,
    /// JSON body.
    pub body: Option<Vec<u8>>,
    /// Largest answer.
    pub limit: Limit,
}

impl Call<'_> {
    /// Sends one request and returns any answer, whatever its status. Waits for the budget first.
    ///
    /// # Errors
    ///
    /// What kept an answer from coming, or [`ErrorClass::Held`].
    pub async fn send(&self, exchange: Exchange) -> Result<Response, ProviderError> {
        self.wait_for_budget(exchange.operation).await;
        self.transmit(exchange).await
    }

    /// As [`Self::send`], and an answer other than 2xx is an error of the class that its status has everywhere.
    ///
    /// # Errors
    ///
    /// As [`Self::send`] and [`ProviderError::from_status`].
    pub async fn send_ok(&self, exchange: Exchange) -> Result<Response, ProviderError> {
        let operation = exchange.operation;
        let response = self.send(exchange).await?;
        match self.refusal(operation, &response) {
            Some(error) => Err(error),
            None => Ok(response),
        }
    }

    /// The error that the status of an answer stands for, unless the dialect knows better. `None`: 2xx.
    #[must_use]
    pub fn refusal(&self, operation: Operation, response: &Response) -> Option<ProviderError> {
        let wait = retry_after(response, self.account.clock.now());
        ProviderError::from_status(operation, response.status(), wait)
    }

    /// Waits for the rate limit and for the end of a hold. A dialect that signs with the time calls this first,
    /// signs, then calls [`Self::transmit`].
    pub async fn wait_for_budget(&self, _operation: Operation) {
        let waited = self.account.bucket.take().await;
        if waited > Duration::from_millis(1) {
            self.observer.throttled(self.account.provider_type, waited);
        }
    }

    /// Sends at once. The fence is asked right before, and the call is no longer than what is left of it.
    ///
    /// # Errors
    ///
    /// As [`Self::send`].
    pub async fn transmit(&self, exchange: Exchange) -> Result<Response, ProviderError> {
        let Exchange {
            operation,
            method,
            path,
            headers,
            body,
            limit,
        } = exchange;
        let account = self.account;
        let url = CheckedUrl::parse(&format!("{}{path}", account.base)).map_err(|problem| {
            let message = format!("the address to {operation} at is no URL ({problem}); correct the provider's baseUrl or the Webhook's target");
            ProviderError::new(ErrorClass::Rejected, operation, Effect::None, message)
        })?;
        let Some(left) = self.fence.remaining() else {
            let message = "this replica no longer leads; the other one goes on";
            return Err(ProviderError::new(
                ErrorClass::Held,
                operation,
                Effect::None,
                message,
            ));
        };
        if self.not_after.is_some_and(|latest| Instant::now() > latest) {
            let message = "it had to wait for too long to be counted still; it is counted again";
            return Err(ProviderError::new(
                ErrorClass::Held,
                operation,
                Effect::None,
                message,
            ));
        }
        if let Standing::Refused { since, .. } = account.standing()
            && since > self.admitted
        {
            let message = "the upstream has just refused the credentials to another call; nothing was sent";
            return Err(ProviderError::new(
                ErrorClass::Unauthorized,
                operation,
                Effect::None,
                message,
            ));
        }
        let span = self.span(operation, method, &url);
        let mut request = Request::new(method, url)
            .limit(limit)
            .timeout(account.timeout.min(left));
        for (name, value) in headers {
            request = request.secret_header(name, value);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let began = Instant::now();
        let answer = span.around(account.transport.send(request)).await;
        let answer = answer.map_err(|error| ProviderError::from_http(operation, &error));
        self.tell(operation, method, &answer, began.elapsed(), &span);
        answer
    }

    /// The span of one request. Of its address it has the host, because the rest may be a secret.
    fn span(&self, operation: Operation, method: Method, url: &CheckedUrl) -> Span {
        let attributes = vec![
            KeyValue::new(key::PROVIDER_TYPE, self.account.provider_type.as_str()),
            KeyValue::new(key::OPERATION, operation.as_str()),
            KeyValue::new(key::METHOD, method.as_str()),
            KeyValue::new(key::HOST, url.host().to_owned()),
            KeyValue::new(key::PORT, i64::from(url.port())),
            KeyValue::new(key::ATTEMPT, i64::from(self.attempt)),
        ];
        Span::call(format!("upstream {operation}"), attributes)
    }

    /// Tells metrics, log and trace how a request ended.
    fn tell(
        &self,
        operation: Operation,
        method: Method,
        answer: &Result<Response, ProviderError>,
        took: Duration,
        span: &Span,
    ) {
        let (kind, method) = (self.account.provider_type, method.as_str());
        let upstream = kind.as_str();
        match answer {
            Ok(response) => {
                let status = response.status();
                self.observer
                    .request(kind, operation, status.to_string().as_str(), took);
                span.set(key::STATUS_CODE, i64::from(status));
                tracing::debug!(upstream, %operation, method, status, ?took, "upstream answered");
                if status >= 400 {
                    span.fail("refused");
                }
                self.note(response);
            }
            Err(error) => {
                let class = error.class.as_str();
                self.observer.request(kind, operation, class, took);
                span.set(key::ERROR, class);
                span.fail(class);
                tracing::debug!(upstream, %operation, method, %error, ?took, "upstream did not answer");
            }
        }
    }

    /// One line of the log for a change that was asked for, once its answer is understood: `Ok(true)` for one that was
    /// made, `Ok(false)` where there was nothing to change.
    fn log_change(&self, operation: Operation, id: Option<&RemoteId>, outcome: Result<bool, &ProviderError>) {
        let upstream = self.account.provider_type.as_str();
        let id = id.map(|id| id.0.as_str());
        match outcome {
            Ok(true) => tracing::info!(upstream, %operation, id, "changed at the upstream"),
            Err(error) if error.effect == Effect::Unknown => {
                tracing::info!(upstream, %operation, id, %error, "a change was sent to the upstream, and whether it took effect is not known yet");
            }
            Ok(false) | Err(_) => {}
        }
    }

    /// What any answer says about the account as a whole.
    fn note(&self, response: &Response) {
        match response.status() {
            429 | 503 => {
                let wait = retry_after(response, self.account.clock.now());
                if let Some(wait) = wait {
                    self.account.bucket.hold(Instant::now() + wait);
                }
            }
            200..=299 => self.set_standing(Standing::Accepted),
            _ => {}
        }
    }

    /// Tells the account that the upstream refused its credentials. The dialects call it, because they know
    /// whether a 401 or 403 means that.
    pub fn credentials_refused(&self) {
        let since = Instant::now();
        self.set_standing(Standing::Refused {
            since,
            next_try: since + UNAUTHORIZED_RETRY,
        });
    }

    fn set_standing(&self, new: Standing) {
        let old = std::mem::replace(&mut *lock(&self.account.standing), new);
        if std::mem::discriminant(&old) != std::mem::discriminant(&new) {
            self.observer.standing(self.account, new);
        }
    }
}

/// How a registration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is gone now.
    Removed,
    /// It was gone before.
    AlreadyGone,
    /// It could only be switched off, and is.
    SwitchedOff,
    /// The upstream has no way to remove it: it is still there.
    LeftInPlace,
}

impl Removal {
    /// Whether it changed anything.
    const fn is_made(&self) -> bool {
        match self {
            Self::Removed | Self::SwitchedOff => true,
            Self::AlreadyGone | Self::LeftInPlace => false,
        }
    }
}

/// How a test at the upstream goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestProgress {
    /// Not done yet.
    Running,
    /// Done: the registration's own state has the verdict.
    Done,
    /// The task is not known (any more).
    Vanished,
}

/// What makes use of a registration (ricloud's `target`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Usage {
    /// The default of the organisation.
    Organisation,
    /// The key that calls.
    OwnKey,
    /// Another key.
    Key(String),
}

/// One upstream's dialect. All methods make at most one change at the upstream. What an upstream cannot do it leaves
/// out: the capabilities keep it from being asked for.
#[allow(
    async_fn_in_trait,
    reason = "the set is closed: calls go through the enum below, never through dyn"
)]
pub trait Provider {
    /// What this upstream can do.
    fn capabilities(&self) -> &'static Capabilities;

    /// Reads. A `404` for an id is `Seen::One(None)`; an upstream that cannot be read is `Seen::CannotKnow`.
    async fn look(&self, call: &Call<'_>, look: &Look) -> Result<Seen, ProviderError>;

    /// Makes a registration. The answer is what the upstream said is there now, as far as it said.
    async fn create(&self, call: &Call<'_>, want: &Desired) -> Result<Remote, ProviderError>;

    /// Makes an existing one equal to `want`, switched on or off included. `there`: what was read before, where it
    /// could be read.
    async fn update(
        &self,
        call: &Call<'_>,
        id: &RemoteId,
        there: Option<&Remote>,
        want: &Desired,
    ) -> Result<Remote, ProviderError>;

    /// Switches a registration off and keeps it (`deletionPolicy: Deactivate`). `want`: what was registered, as
    /// far as it can still be resolved.
    async fn switch_off(
        &self,
        _call: &Call<'_>,
        _id: &RemoteId,
        _want: Option<&Desired>,
    ) -> Result<Removal, ProviderError> {
        Err(ProviderError::no_such_call(Operation::Switch))
    }

    /// Removes a registration as far as the upstream can.
    async fn remove(
        &self,
        call: &Call<'_>,
        id: &RemoteId,
        want: Option<&Desired>,
    ) -> Result<Removal, ProviderError>;

    /// Starts the upstream's own test.
    async fn start_test(&self, _call: &Call<'_>, _id: &RemoteId) -> Result<TaskId, ProviderError> {
        Err(ProviderError::no_such_call(Operation::Test))
    }

    /// Asks how it goes.
    async fn poll_test(&self, _call: &Call<'_>, _task: &TaskId) -> Result<TestProgress, ProviderError> {
        Err(ProviderError::no_such_call(Operation::Poll))
    }

    /// Whether `usage` already uses the registration.
    async fn is_used(&self, _call: &Call<'_>, _id: &RemoteId, _usage: &Usage) -> Result<bool, ProviderError> {
        Err(ProviderError::no_such_call(Operation::Use))
    }

    /// Makes `usage` use the registration.
    async fn use_it(&self, _call: &Call<'_>, _id: &RemoteId, _usage: &Usage) -> Result<(), ProviderError> {
        Err(ProviderError::no_such_call(Operation::Use))
    }

    /// Makes `usage` stop using the registration, if it still does.
    async fn stop_using(
        &self,
        _call: &Call<'_>,
        _id: &RemoteId,
        _usage: &Usage,
    ) -> Result<(), ProviderError> {
        Err(ProviderError::no_such_call(Operation::Use))
    }
}

/// The dialects. One match per method, so that the compiler asks for each new one.
#[derive(Clone, Copy, Debug)]
pub enum Upstream {
    /// Conpeek.
    Conpeek(Conpeek),
    /// Thulium.
    Thulium(Thulium),
    /// ricloud.
    Ricloud(Ricloud),
    /// Autocosmos.
    Autocosmos(Autocosmos),
}

impl From<ProviderType> for Upstream {
    fn from(provider_type: ProviderType) -> Self {
        match provider_type {
            ProviderType::Conpeek => Self::Conpeek(Conpeek),
            ProviderType::Thulium => Self::Thulium(Thulium),
            ProviderType::Ricloud => Self::Ricloud(Ricloud),
            ProviderType::Autocosmos => Self::Autocosmos(Autocosmos),
        }
    }
}

macro_rules! each {
    ($self:ident, $dialect:ident => $call:expr) => {
        match $self {
            Upstream::Conpeek($dialect) => $call,
            Upstream::Thulium($dialect) => $call,
            Upstream::Ricloud($dialect) => $call,
            Upstream::Autocosmos($dialect) => $call,
        }
    };
}

impl Provider for Upstream {
    fn capabilities(&self) -> &'static Capabilities {
        each!(self, dialect => dialect.capabilities())
    }
    async fn look(&self, call: &Call<'_>, look: &Look) -> Result<Seen, ProviderError> {
        each!(self, dialect => dialect.look(call, look).await)
    }
    async fn create(&self, call: &Call<'_>, want: &Desired) -> Result<Remote, ProviderError> {
        let made = each!(self, dialect => dialect.create(call, want).await);
        let id = made.as_ref().ok().map(|remote| &remote.id);
        call.log_change(Operation::Create, id, made.as_ref().map(|_| true));
        made
    }
    async fn update(
        &self,
        call: &Call<'_>,
        id: &RemoteId,
        there: Option<&Remote>,
        want: &Desired,
    ) -> Result<Remote, ProviderError> {
        let updated = each!(self, dialect => dialect.update(call, id, there, want).await);
        call.log_change(Operation::Update, Some(id), updated.as_ref().map(|_| true));
        updated
    }
    async fn switch_off(
        &self,
        call: &Call<'_>,
        id: &RemoteId,
        want: Option<&Desired>,
    ) -> Result<Removal, ProviderError> {
        let switched = each!(self, dialect => dialect.switch_off(call, id, want).await);
        call.log_change(
            Operation::Switch,
            Some(id),
            switched.as_ref().map(Removal::is_made),
        );
        switched
    }
    async fn remove(
        &self,
        call: &Call<'_>,
        id: &RemoteId,
        want: Option<&Desired>,
    ) -> Result<Removal, ProviderError> {
        let removed = each!(self, dialect => dialect.remove(call, id, want).await);
        call.log_change(
            Operation::Delete,
            Some(id),
            removed.as_ref().map(Removal::is_made),
        );
        removed
    }
    async fn start_test(&self, call: &Call<'_>, id: &RemoteId) -> Result<TaskId, ProviderError> {
        each!(self, dialect => dialect.start_test(call, id).await)
    }
    async fn poll_test(&self, call: &Call<'_>, task: &TaskId) -> Result<TestProgress, ProviderError> {
        each!(self, dialect => dialect.poll_test(call, task).await)
    }
    async fn is_used(&self, call: &Call<'_>, id: &RemoteId, usage: &Usage) -> Result<bool, ProviderError> {
        each!(self, dialect => dialect.is_used(call, id, usage).await)
    }
    async fn use_it(&self, call: &Call<'_>, id: &RemoteId, usage: &Usage) -> Result<(), ProviderError> {
        let used = each!(self, dialect => dialect.use_it(call, id, usage).await);
        call.log_change(Operation::Use, Some(id), used.as_ref().map(|()| true));
        used
    }
    async fn stop_using(&self, call: &Call<'_>, id: &RemoteId, usage: &Usage) -> Result<(), ProviderError> {
        let ended = each!(self, dialect => dialect.stop_using(call, id, usage).await);
        call.log_change(Operation::Use, Some(id), ended.as_ref().map(|()| true));
        ended
    }
}
