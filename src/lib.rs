//! The library behind the `webhook-operator` binary.

pub mod net;
