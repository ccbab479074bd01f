//! Tells a person at a terminal what is being done, for how long already, and
//! how long it took last time.

use std::{
    io::{self, IsTerminal, Write},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::cache;

/// Between two lines of a silent task where standard error is no terminal.
const TICK_PLAIN: Duration = Duration::from_secs(30);
/// Between two refreshes of the line on a terminal.
const TICK_TERMINAL: Duration = Duration::from_secs(1);

/// A piece of work whose duration is shown on standard error and remembered in
/// the cache folder once it succeeds. Dropped without [`Task::done`] or
/// [`Task::given_up`], it counts as failed.
#[derive(Debug)]
pub struct Task {
    label: String,
    key: String,
    started: Instant,
    ticker: Option<(Sender<()>, JoinHandle<()>)>,
    finished: bool,
}

impl Task {
    /// Starts work that prints nothing itself: the elapsed time is shown while
    /// it goes on. `label` is for people, `key` names it in the cache.
    pub fn silent(label: impl Into<String>, key: impl Into<String>) -> Self {
        let mut task = Self::talking(label, key);
        let (stop, stopped) = mpsc::channel();
        let label = task.label.clone();
        let started = task.started;
        let ticker = thread::spawn(move || tick(&label, started, &stopped));
        task.ticker = Some((stop, ticker));
        task
    }

    /// Starts work that prints its own lines: only begin and end are shown.
    pub fn talking(label: impl Into<String>, key: impl Into<String>) -> Self {
        let (label, key) = (label.into(), key.into());
        match cache::last_duration(&key) {
            Some(last) => eprintln!("{label} (took {} last time)", human(last)),
            None => eprintln!("{label}"),
        }
        Self {
            label,
            key,
            started: Instant::now(),
            ticker: None,
            finished: false,
        }
    }

    /// Ends the work as a success and remembers how long it took.
    pub fn done(mut self) -> Duration {
        let took = self.started.elapsed();
        self.end("done");
        cache::remember_duration(&self.key, took);
        took
    }

    /// Ends work that could not be done and does not have to be.
    pub fn given_up(mut self) {
        self.end("given up");
    }

    fn end(&mut self, how: &str) {
        if let Some((stop, ticker)) = self.ticker.take() {
            drop(stop);
            let _ = ticker.join();
        }
        eprintln!("{}: {how} in {}", self.label, human(self.started.elapsed()));
        self.finished = true;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if !self.finished {
            self.end("FAILED");
        }
    }
}

fn tick(label: &str, started: Instant, stopped: &mpsc::Receiver<()>) {
    let terminal = io::stderr().is_terminal();
    let every = if terminal { TICK_TERMINAL } else { TICK_PLAIN };
    while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
        let elapsed = human(started.elapsed());
        if terminal {
            eprint!("\r\x1b[K{label}: {elapsed} so far");
            let _ = io::stderr().flush();
        } else {
            eprintln!("{label}: {elapsed} so far");
        }
    }
    if terminal {
        eprint!("\r\x1b[K");
    }
}

/// A duration as a person says it: `0.4 s`, `42 s`, `4 min 58 s`, `2 h 5 min`.
pub fn human(duration: Duration) -> String {
    let secs = duration.as_secs();
    match secs {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..60 => format!("{secs} s"),
        60..3600 => format!("{} min {} s", secs / 60, secs % 60),
        _ => format!("{} h {} min", secs / 3600, secs % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_said() {
        for (secs, text) in [
            (0.42, "0.4 s"),
            (42.0, "42 s"),
            (298.0, "4 min 58 s"),
            (7500.0, "2 h 5 min"),
        ] {
            assert_eq!(human(Duration::from_secs_f64(secs)), text);
        }
    }
}
