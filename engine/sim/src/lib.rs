//! The deterministic simulator of the core: a seed gives a world, a world gives
//! a verdict.
//!
//! ```text
//!  seed -> plan -> world: events in virtual time -> checker -> verdict, trace hash
//!                    |
//!      nodes (the real Shard, Owner, Tracker, Table) - log - group - receivers
//! ```
//!
//! Not simulated: commands and redrives, ordered and FIFO endpoints, operational
//! events beyond their count, retention (the log keeps everything, so a fold from
//! its start is always possible), and commit metadata too short for a snapshot's
//! place. Worlds are too small for timers over the caps (a moved record) and for
//! snapshots of more than one part.
//!
//! Real are the state machines of `posthaste-core` and what they write. The log,
//! the group coordinator, the receivers, the clock and the processes are
//! simulated, with every fault of theirs that the design names. What it refuses
//! to do: read a clock, draw a number from anywhere but the seed, or iterate
//! over anything unordered.

pub mod checker;
pub mod group;
pub mod log;
pub mod minimise;
pub mod node;
pub mod plan;
pub mod plant;
pub mod receiver;
pub mod seen;
pub mod trace;
pub mod world;
