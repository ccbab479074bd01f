//! Tests against a real kube-apiserver, one module each. They are one executable, so that they share one
//! control plane, which takes seconds to start.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of a test fail as the test itself does: by panicking"
)]

mod harness;
mod lease;
mod manifests;
mod raw;
mod schema;
mod served;
