//! The doubles over real HTTP, one module per upstream and concern.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

mod admin;
mod autocosmos;
mod common;
mod conpeek;
mod faults;
mod lifecycle;
mod receiver;
mod ricloud;
mod thulium;
