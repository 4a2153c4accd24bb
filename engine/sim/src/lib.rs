//! The deterministic simulator of the core: a seed gives a world, a world gives
//! a verdict.
//!
//! ```text
//!  seed -> plan -> world: events in virtual time -> checker -> verdict, trace hash
//!                    |
//!      nodes (the real Shard, Owner, Tracker, Table) - log - group - receivers
//! ```
//!
//! Not simulated: operational events beyond their count, commit metadata too
//! short for a snapshot's place, and retention (the log keeps everything, so a
//! fold from its start is always possible): that the log no longer has what is
//! to be read is the log's own error, and ends the process. Ordering keys are put
//! on lane records here, since events carry none yet. Worlds are too small for
//! the core's own caps on timers and snapshot parts: those of some plans are
//! smaller.
//!
//! Not checked here: K18, that signatures verify with a secret that is live. The
//! core only says when a secret is; what is signed, and with which, is the
//! server's sender, and its tests. K15 holds where an owner hands out; what waits
//! in a shard by then may begin within the longest wait there, and so it is with
//! an operator's pause (K14). K22 and K24 are checked in calm worlds, where only
//! receivers are sick.
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
