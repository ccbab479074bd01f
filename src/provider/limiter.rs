//! The provider's budget: how many passes work at once, in which order, and how many requests leave a second.
//!
//! A pass that needs the upstream first waits for a [`Turn`], most urgent first. What it looks at and what it
//! then writes are so never separated by the whole queue. Within its turn each request takes one token of the
//! [`Bucket`]. A slow or dead upstream so holds at most its own turns and delays nobody else.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

/// How urgent a pass is; the smaller goes first, equal ones in the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// The spec, a Secret or the provider changed, or the object is being deleted.
    Change,
    /// A test runs or was asked for.
    Test,
    /// A scheduled read-back.
    ReadBack,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section below leaves the data whole, so a panic elsewhere cannot have torn it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Queue {
    free: u32,
    arrivals: u64,
    waiting: BinaryHeap<Waiter>,
}

struct Waiter {
    order: Reverse<(Priority, u64)>,
    grant: oneshot::Sender<Turn>,
}

impl PartialEq for Waiter {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Waiter {}
impl PartialOrd for Waiter {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Waiter {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order.cmp(&other.order)
    }
}

/// A semaphore that serves the most urgent first.
#[derive(Clone)]
pub struct Turns(Arc<Mutex<Queue>>);

impl Turns {
    /// `at_once` passes may work at the same time (at least one).
    #[must_use]
    pub fn new(at_once: u32) -> Self {
        Self(Arc::new(Mutex::new(Queue {
            free: at_once.max(1),
            ..Queue::default()
        })))
    }

    /// Waits for a turn. Dropping the future gives the place in the queue up.
    pub async fn take(&self, priority: Priority) -> Turn {
        let receiver = {
            let mut queue = lock(&self.0);
            if queue.free > 0 {
                queue.free -= 1;
                return Turn {
                    turns: Some(self.clone()),
                };
            }
            let (grant, receiver) = oneshot::channel();
            queue.arrivals += 1;
            let order = Reverse((priority, queue.arrivals));
            queue.waiting.push(Waiter { order, grant });
            receiver
        };
        // The sender is dropped only with the queue itself, which this call keeps alive.
        receiver.await.unwrap_or(Turn { turns: None })
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        lock(&self.0).waiting.len()
    }

    fn give_back(&self) {
        loop {
            let next = {
                let mut queue = lock(&self.0);
                match queue.waiting.pop() {
                    Some(next) => next,
                    None => {
                        queue.free += 1;
                        return;
                    }
                }
            };
            match next.grant.send(Turn {
                turns: Some(self.clone()),
            }) {
                Ok(()) => return,
                // Nobody waits there any more. Its turn must not run `Drop`: this loop hands it on.
                Err(mut unwanted) => unwanted.turns = None,
            }
        }
    }
}

/// The right to work; given back when dropped.
#[must_use = "the turn ends when this is dropped"]
pub struct Turn {
    turns: Option<Turns>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.turns.take() {
            turns.give_back();
        }
    }
}

struct Level {
    tokens: f64,
    at: Instant,
    held_until: Option<Instant>,
}

/// A token bucket. Each taker reserves the next free place, so they go in the order of arrival.
pub struct Bucket {
    per_second: f64,
    burst: f64,
    level: Mutex<Level>,
}

impl Bucket {
    /// `per_second` requests on average, `burst` at once after a quiet time (both at least one).
    #[must_use]
    pub fn new(per_second: u32, burst: u32) -> Self {
        let burst = f64::from(burst.max(1));
        Self {
            per_second: f64::from(per_second.max(1)),
            burst,
            level: Mutex::new(Level {
                tokens: burst,
                at: Instant::now(),
                held_until: None,
            }),
        }
    }

    /// Waits for one token and for the end of a hold. Returns how long that took.
    pub async fn take(&self) -> Duration {
        let began = Instant::now();
        let ready = {
            let mut level = lock(&self.level);
            let gained = (began - level.at).as_secs_f64() * self.per_second;
            level.tokens = (level.tokens + gained).min(self.burst) - 1.0;
            level.at = began;
            began + Duration::from_secs_f64((-level.tokens / self.per_second).max(0.0))
        };
        if ready > began {
            sleep_until(ready).await;
        }
        // A hold that begins while this one sleeps counts as well.
        while let Some(until) = self.held_until() {
            sleep_until(until).await;
        }
        began.elapsed()
    }

    /// No token before `until` (the upstream asked to wait). A shorter hold does not end a longer one.
    pub fn hold(&self, until: Instant) {
        let mut level = lock(&self.level);
        if level.held_until.is_none_or(|held| held < until) {
            level.held_until = Some(until);
        }
    }

    /// The end of the hold, while one lasts.
    #[must_use]
    pub fn held_until(&self) -> Option<Instant> {
        lock(&self.level)
            .held_until
            .filter(|until| *until > Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_most_urgent_goes_first_and_equal_ones_in_order() {
        let turns = Turns::new(1);
        let first = turns.take(Priority::ReadBack).await;
        let (done, mut finished) = tokio::sync::mpsc::unbounded_channel();
        for (name, priority) in [
            ("a", Priority::ReadBack),
            ("b", Priority::Change),
            ("c", Priority::Test),
            ("d", Priority::Change),
        ] {
            let (turns, done) = (turns.clone(), done.clone());
            tokio::spawn(async move {
                let _turn = turns.take(priority).await;
                done.send(name).unwrap();
            });
            tokio::task::yield_now().await;
        }
        assert_eq!(turns.waiting(), 4);
        drop(first);
        let mut order = Vec::new();
        for _ in 0..4 {
            order.push(finished.recv().await.unwrap());
        }
        assert_eq!(order, ["b", "d", "c", "a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_taker_that_gave_up_costs_no_turn() {
        let turns = Turns::new(1);
        let first = turns.take(Priority::Change).await;
        let gone = tokio::time::timeout(Duration::from_secs(1), turns.take(Priority::Change)).await;
        assert!(gone.is_err());
        drop(first);
        let next = tokio::time::timeout(Duration::from_secs(1), turns.take(Priority::Change)).await;
        assert!(next.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_kept_after_the_burst() {
        let bucket = Bucket::new(5, 10);
        let began = Instant::now();
        for _ in 0..60 {
            bucket.take().await;
        }
        assert_eq!(began.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_stops_all_and_the_longer_one_counts() {
        let bucket = Bucket::new(1000, 1000);
        let began = Instant::now();
        bucket.hold(began + Duration::from_secs(30));
        bucket.hold(began + Duration::from_secs(5));
        bucket.take().await;
        assert_eq!(began.elapsed().as_secs(), 30);
        assert!(bucket.held_until().is_none());
    }
}
