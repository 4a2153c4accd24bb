//! The pure heart of Posthaste.
//!
//! Everything here is a value or a state machine: inputs go in, outputs come
//! out, `now` is an argument. No clock, no IO, no randomness of its own, no
//! runtime. The server does what these machines say; the simulator runs the
//! same machines under virtual time.

#![warn(missing_docs)]

pub mod access;
pub mod answers;
pub mod base_rtt;
pub mod breaker;
pub mod content;
pub mod delivery;
pub mod endpoint;
pub mod event;
pub mod filter;
pub mod gate;
pub mod id;
pub mod lane;
pub mod limits;
pub mod offsets;
pub mod operation;
pub mod outcome;
pub mod queue;
pub mod rate;
pub mod records;
pub mod registry;
pub mod replay;
pub mod retry;
pub mod rng;
pub mod shard;
pub mod signature;
pub mod target;
pub mod time;
pub mod timers;
pub mod wall;
pub mod window;
