//! Contract tests of the dialects: each provider over real HTTP against the strict double of its upstream, which
//! was written from the same contract and shares no code with the operator. How single answers are read is tested
//! beside each dialect.

mod autocosmos;
mod conpeek;
mod ricloud;
mod rig;
mod thulium;
mod trouble;
