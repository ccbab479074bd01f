//! What a run under trouble is made of: users who keep changing their minds, trouble at upstreams, apiserver and
//! operator, and a judge who compares what is registered with what is wanted.
//!
//! | module | holds |
//! |---|---|
//! | [`fleet`] | the Webhooks as their users want them, and what the users do next; pure and seeded |
//! | [`user`] | the users' hands: namespace, accounts, apply, delete, look |
//! | [`trouble`] | which faults the upstreams show, and how often each struck |
//! | [`judge`] | registrations against Webhooks: missing, doubled, left over, different, not Ready; pure |
//! | [`calls`] | what the upstreams were asked for: creates, updates, removals |
//! | [`storm`] | the run: everything at once, then quiet, then everything deleted, then quiet again |
//! | [`soak`] | the other run: one process for long, with users and faults all the time |
//! | [`vitals`] | memory, open files, threads and tasks of a process, and whether they grow |
//! | [`amnesia`] | the other run: what the operator wrote down is taken away, and must not matter |
//!
//! Nothing here is the operator's own code: manifests are written and statuses are read as JSON, and what a
//! registration has to look like is worked out anew from the contracts. The servers are the caller's, who hands in
//! a [`Stage`]: `cargo xtask chaos` runs the release binary for minutes, a test the same in small.
//!
//! A seed fixes what users and trouble *want* to do. When it happens is up to real processes, so a run with the same
//! seed resembles the first one and does not repeat it.

pub mod amnesia;
pub mod calls;
pub mod fleet;
pub mod judge;
pub mod soak;
pub mod storm;
pub mod trouble;
pub mod user;
pub mod vitals;

use std::time::Duration;

use self::vitals::Vitals;

/// The processes of a run, which are the caller's.
pub trait Stage {
    /// Starts the operator and returns at once; there is none.
    ///
    /// # Errors
    /// It cannot be started.
    fn start(&self) -> impl Future<Output = Result<(), Error>>;

    /// Ends the operator by SIGKILL and waits until it is gone. What it was before that.
    ///
    /// # Errors
    /// It ended by itself, which an operator must not do.
    fn kill(&self) -> impl Future<Output = Result<Life, Error>>;

    /// Waits until the operator works.
    ///
    /// # Errors
    /// It does not after a minute, or it ended.
    fn working(&self) -> impl Future<Output = Result<(), Error>>;

    /// What the operator holds now.
    ///
    /// # Errors
    /// It does not run, or does not answer.
    fn vitals(&self) -> impl Future<Output = Result<Vitals, Error>>;

    /// Ends the apiserver and starts it again after a moment: the first time as a crash, then in order.
    ///
    /// # Errors
    /// It does not come back.
    fn restart_apiserver(&self, crash: bool) -> impl Future<Output = Result<(), Error>>;

    /// Tells people how far it is.
    fn tell(&self, text: &str);
}

/// What was measured of one process of the operator before its end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Life {
    /// Most memory it had resident, in KiB; 0 where that is not measured.
    pub peak_kib: u64,
    /// Whether it came as far as working.
    pub worked: bool,
}

/// Why a run cannot go on. What a run finds wrong with the operator is not an error but its result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The apiserver refuses what a user wants.
    #[error("{what}: {source}")]
    Refused {
        /// What was asked of it.
        what: String,
        /// Its answer.
        source: Box<kube::Error>,
    },
    /// The apiserver cannot be reached for too long.
    #[error("{what}: no answer for {} s: {source}", after.as_secs())]
    NoAnswer {
        /// What was asked of it.
        what: String,
        /// How long it was asked.
        after: Duration,
        /// The last failure.
        source: Box<kube::Error>,
    },
    /// A process of the stage.
    #[error("{0}")]
    Stage(String),
    /// Something does not fit into JSON or out of it.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
}
