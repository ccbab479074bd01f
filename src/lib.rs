//! The library behind the `webhook-operator` binary. The modules in the order in which a newcomer should read
//! them: what users write ([`api`]), what to do about it ([`domain`]), whom to call ([`provider`]), how
//! ([`net`]), what to send to a receiver ([`probe`]), and the thin shell that brings them together ([`controller`]). The rest surrounds it.

pub mod api;
pub mod controller;
pub mod domain;
pub mod net;
pub mod probe;
pub mod provider;

pub mod check;
pub mod cli;
pub mod clock;
pub mod entropy;
pub mod health;
pub mod lease;
pub mod metrics;
pub mod plugin;
pub mod telemetry;
pub mod verify;
pub mod yaml;

#[cfg(all(feature = "break-journal", not(debug_assertions)))]
compile_error!(
    "break-journal makes an operator that registers twice; it is for tests, and no release may have it"
);
