//! The pure core: what to do next, given what is wanted, seen and recorded.
//!
//! Nothing here does I/O, reads a clock or draws a random number: time and seeds are parameters. So every
//! crash point and every answer of an upstream can be enumerated in a plain unit test.
//!
//! * [`capabilities`]: what an upstream can do, as data.
//! * [`check`]: a spec against those capabilities, the same function for the operator and for `check`.
//! * [`desired`]: the wanted registration in normal form; [`remote`]: what an upstream says is there.
//! * [`plan`]: wanted × seen × recorded → the next step; [`retire`]: the same for deletion; [`testing`]: for tests.
//! * [`claim`]: which of several Webhooks holds a registration.
//! * [`recorded`]: what an object remembers of its registration.
//! * [`hash`]: keyed hashes of what was applied, so that secrets are compared without being stored.
//! * [`mint`]: a signing secret from random bytes; [`rotation`]: how one takes the place of another.
//! * [`status`]: what the user sees of all that; [`provider_status`]: the same for providers, and their finalizers.
//! * [`patience`]: how long a deletion is tried.
//! * [`gaps`]: spans in which deliveries cannot have arrived.
//! * [`bounds`]: how long what stands in a status may be.
//! * [`breaker`]: how many removals may go within a window.
//! * [`schedule`]: the fixed phase of read-backs; [`retry`], [`backoff`]: whether and when to try again after a failure.

pub mod backoff;
pub mod bounds;
pub mod breaker;
pub mod capabilities;
pub mod check;
pub mod claim;
pub mod desired;
pub mod gaps;
pub mod hash;
pub mod mint;
pub mod owner;
pub mod patience;
pub mod plan;
pub mod provider_status;
pub mod recorded;
pub mod remote;
pub mod retire;
pub mod retry;
pub mod rotation;
pub mod schedule;
pub mod status;
pub mod testing;
