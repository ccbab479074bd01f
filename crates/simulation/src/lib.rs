//! The whole operator in one process with everything that it talks to: an API server in memory, the four upstreams,
//! and the wire between them, on which any call can be lost, delayed or made the operator's last. Time is virtual, so
//! a run of minutes takes milliseconds, and no run opens a socket.
//!
//! [`World`] holds it all together. What it does with the operator is what the process does: only sockets, signals
//! and the machine's clock are left out.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "only tests run it, and a model that is used wrongly has to stop the test"
)]

pub mod apiserver;
pub mod explore;
pub mod manifests;
mod operator;
pub mod seeds;
mod upstreams;
pub mod wire;
mod world;

pub use operator::{Operator, options};
pub use world::{Rest, World};
