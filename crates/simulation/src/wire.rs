//! The wire between operators and everything else. Every call is counted here, and a [`Course`] decides what becomes
//! of it: it may be delayed or lost, it may meet an object that somebody has just changed, and it may be the last that
//! its process makes.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

/// Who is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// The API server.
    ApiServer,
    /// An upstream, or the receiver of a probe.
    Upstream,
}

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallKind {
    /// Nothing.
    Read,
    /// It opens a watch.
    Watch,
    /// It may change something.
    Write,
}

/// One call.
#[derive(Clone, Debug)]
pub struct Call {
    /// Which process makes it, from 1.
    pub process: usize,
    /// Whom.
    pub peer: Peer,
    /// What it does.
    pub kind: CallKind,
    /// In words, such as `patch webhooks/apps/a/status`.
    pub text: String,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It arrives, and so does its answer.
    Arrives,
    /// The process dies before it is sent.
    DiesBefore,
    /// It has its effect, and the process dies before it has the answer.
    DiesAfter,
    /// It has its effect, and the caller waits for the answer in vain.
    AnswerLost,
    /// It does not arrive, and the caller waits in vain.
    Lost,
    /// It has its effect so much later, whatever has become of the caller, who waits in vain.
    Late(Duration),
    /// Somebody changes the object just before it arrives.
    Conflicts,
    /// It has no effect, and this status is the answer.
    Fails(u16),
    /// Nobody listens: it does not arrive, and the caller knows that.
    Refused,
}

/// How a call goes.
#[derive(Clone, Copy, Debug)]
pub struct Passage {
    /// Time until it arrives.
    pub there: Duration,
    /// What becomes of it.
    pub fate: Fate,
    /// Time until the answer is back.
    pub back: Duration,
}

/// Decides about each call, in their order. The number counts from 0 since the course was set.
pub type Course = Box<dyn FnMut(usize, &Call) -> Passage + Send>;

/// A call that was made.
#[derive(Clone, Debug)]
pub struct Made {
    /// Position since the course was set, from 0.
    pub number: usize,
    /// When it was sent.
    pub at: Instant,
    /// Which process made it, from 1.
    pub process: usize,
    /// The call.
    pub call: Call,
    /// What became of it.
    pub fate: Fate,
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} process {}: {}", self.number, self.process, self.call.text)?;
        match self.fate {
            Fate::Arrives => Ok(()),
            fate => write!(f, " [{fate:?}]"),
        }
    }
}

/// A call without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// The caller has waited long enough.
    InTime,
    /// Nobody listened.
    Refused,
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InTime => "no answer in time",
            Self::Refused => "the connection was refused",
        })
    }
}

/// How long a caller waits for the API server: the read timeout of the operator's client.
const API_SERVER_TIMEOUT: Duration = Duration::from_secs(75);

/// How long calls take when nothing else is said.
const TO_API_SERVER: Duration = Duration::from_millis(1);
const TO_UPSTREAM: Duration = Duration::from_millis(20);
const WATCH_LAG: Duration = Duration::from_millis(5);

/// A course on which everything arrives.
#[must_use]
pub fn calm() -> Course {
    Box::new(|_, call| passage(call, Fate::Arrives))
}

/// A passage of the usual duration.
#[must_use]
pub fn passage(call: &Call, fate: Fate) -> Passage {
    let takes = match call.peer {
        Peer::ApiServer => TO_API_SERVER,
        Peer::Upstream => TO_UPSTREAM,
    };
    Passage {
        there: takes,
        fate,
        back: takes,
    }
}

struct State {
    course: Course,
    lag: Duration,
    next: usize,
    made: Vec<Made>,
    processes: usize,
    active: Instant,
    pending: Instant,
}

/// All lines; clones are the same wire.
#[derive(Clone)]
pub struct Wire {
    state: Arc<Mutex<State>>,
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                course: calm(),
                lag: WATCH_LAG,
                next: 0,
                made: Vec::new(),
                processes: 0,
                active: Instant::now(),
                pending: Instant::now(),
            })),
        }
    }
}

impl Wire {
    /// From here on calls are counted from 0 and go as `course` says.
    pub fn set_course(&self, course: Course) {
        let mut state = self.lock();
        state.course = course;
        state.next = 0;
        state.made.clear();
    }

    /// How long after a change a watch shows it.
    pub fn set_lag(&self, lag: Duration) {
        self.lock().lag = lag;
    }

    /// The calls since the course was set.
    #[must_use]
    pub fn made(&self) -> Vec<Made> {
        self.lock().made.clone()
    }

    /// Those from this number on.
    #[must_use]
    pub fn made_since(&self, number: usize) -> Vec<Made> {
        self.lock().made.get(number..).unwrap_or_default().to_vec()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().made.len()
    }

    /// When somebody last called an upstream, or read or wrote an object. Lists and watches do not count.
    #[must_use]
    pub fn active(&self) -> Instant {
        self.lock().active
    }

    /// Something happens that is no call.
    pub fn stir(&self) {
        self.lock().active = Instant::now();
    }

    /// Until when something is on its way that ends without a call: a wait in vain for the API server, or an old view.
    #[must_use]
    pub fn pending(&self) -> Instant {
        self.lock().pending
    }

    /// Until then something is on its way that ends without a call.
    pub fn expect_until(&self, until: Instant) {
        let mut state = self.lock();
        state.pending = state.pending.max(until);
    }

    /// A line for a new process.
    #[must_use]
    pub fn line(&self) -> Line {
        let mut state = self.lock();
        state.processes += 1;
        Line {
            wire: self.clone(),
            process: state.processes,
            alive: Arc::new(watch::Sender::new(true)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// One process's end of the wire.
#[derive(Clone)]
pub struct Line {
    wire: Wire,
    process: usize,
    alive: Arc<watch::Sender<bool>>,
}

impl Line {
    /// Carries a call: `touch` changes its object for [`Fate::Conflicts`], `effect` is what it does and answers.
    /// `Ok(Err)` is the status of [`Fate::Fails`]. The answer to a dead process never comes.
    ///
    /// # Errors
    ///
    /// The caller has waited for the answer in vain, or nobody listened.
    pub(crate) async fn carry<T>(
        &self,
        call: Call,
        touch: impl FnOnce(),
        effect: impl Future<Output = T> + Send + 'static,
    ) -> Result<Result<T, u16>, NoAnswer>
    where
        T: Send + 'static,
    {
        self.alive().await;
        let peer = call.peer;
        let passage = self.enter(call);
        if passage.fate == Fate::DiesBefore {
            self.kill();
        }
        sleep(passage.there).await;
        self.alive().await;
        match passage.fate {
            Fate::Lost => return Err(self.in_vain(peer).await),
            Fate::Late(delay) => {
                let wire = self.wire.clone();
                tokio::spawn(async move {
                    sleep(delay).await;
                    effect.await;
                    wire.stir();
                });
                return Err(self.in_vain(peer).await);
            }
            Fate::Refused => {
                sleep(passage.back).await;
                self.alive().await;
                return Err(NoAnswer::Refused);
            }
            Fate::Fails(status) => {
                sleep(passage.back).await;
                self.alive().await;
                return Ok(Err(status));
            }
            Fate::Conflicts => touch(),
            Fate::Arrives | Fate::DiesBefore | Fate::DiesAfter | Fate::AnswerLost => {}
        }
        let answer = effect.await;
        match passage.fate {
            Fate::DiesAfter => self.kill(),
            Fate::AnswerLost => return Err(self.in_vain(peer).await),
            _ => sleep(passage.back).await,
        }
        self.alive().await;
        Ok(Ok(answer))
    }

    fn enter(&self, call: Call) -> Passage {
        let mut state = self.wire.lock();
        let number = state.next;
        state.next += 1;
        let passage = (state.course)(number, &call);
        if call.peer == Peer::Upstream || call.kind == CallKind::Write {
            state.active = Instant::now();
        }
        let made = Made {
            number,
            at: Instant::now(),
            process: self.process,
            call,
            fate: passage.fate,
        };
        state.made.push(made);
        passage
    }

    async fn in_vain(&self, peer: Peer) -> NoAnswer {
        match peer {
            Peer::ApiServer => {
                let until = Instant::now() + API_SERVER_TIMEOUT;
                self.wire.expect_until(until);
                sleep_until(until).await;
            }
            // Whoever calls an upstream has a time limit of his own.
            Peer::Upstream => std::future::pending().await,
        }
        self.alive().await;
        NoAnswer::InTime
    }

    /// The process is dead from now on: none of its calls has an effect or an answer any more.
    pub fn kill(&self) {
        self.alive.send_replace(false);
    }

    /// Number of the process, from 1.
    #[must_use]
    pub fn process(&self) -> usize {
        self.process
    }

    /// Returns once the process is dead.
    pub async fn cut(&self) {
        let mut alive = self.alive.subscribe();
        // The sender is this line's own.
        let _ = alive.wait_for(|alive| !*alive).await;
    }

    /// Goes on only in a living process.
    async fn alive(&self) {
        if !*self.alive.borrow() {
            std::future::pending::<()>().await;
        }
    }

    /// Until then something is on its way that ends without a call.
    pub(crate) fn expect_until(&self, until: Instant) {
        self.wire.expect_until(until);
    }

    /// How long after a change a watch shows it.
    pub(crate) fn lag(&self) -> Duration {
        self.wire.lock().lag
    }
}
