//! Tests against a real kube-apiserver, one module each. They are one executable, so that they share one
//! control plane, which takes seconds to start.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of a test fail as the test itself does: by panicking"
)]

mod account_end;
mod audit;
mod breaker;
mod budget;
mod changes;
mod chaos_runs;
mod check;
mod collector;
mod conflicts;
mod deletes;
mod examples;
mod failures;
mod generate;
mod gitops;
mod ha;
mod harness;
mod hops;
mod identity;
mod idle_rights;
mod kubectl;
mod lease;
mod left_behind;
mod logs;
mod manifests;
mod memory;
mod operator;
mod plugin;
mod probes;
mod quiet;
mod raw;
mod reasons;
mod registers;
mod right;
mod rights;
mod rotation;
mod schema;
mod secrets;
mod served;
mod stop;
mod traces;
mod verdicts;
mod words;
mod world;
