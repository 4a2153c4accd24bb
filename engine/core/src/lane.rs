//! The lane: an endpoint-keyed log of facts about everything a first attempt
//! did not finish.
//!
//! [`fold::Fold`] is the state the facts add up to, the same on every instance;
//! [`owner::Owner`] is the one instance's part that makes attempts happen and
//! writes facts about them. Facts take effect when they are read back, also our
//! own: the state is a fold of the log and nothing else. A fact may stand twice
//! and come from an owner that has been replaced; the fold is monotone, so that
//! costs duplicates at worst.
//!
//! An owner commits the lowest offset that is still owed ([`fold::Fold::floor`]),
//! and its successor folds from there. That loses nothing: facts stand after
//! the delivery they are about, so everything owed is found with all that is
//! known about it, and what lies below is settled. It can resurrect a copy: if a
//! delivery stands in the lane twice, the fold drops the second while it owes
//! the first; a successor that starts between them sees the second alone, and
//! facts about the first do not settle it. So such a delivery may be made again,
//! and two instances may owe different copies of it. Each settles the copy it
//! owes, none is settled without a success, a dead letter or a cancellation, and
//! the receiver knows a copy by its `webhook-id`. Copies come from crashes
//! between append and commit only. The price of a low floor is reading: one
//! delivery that is owed for 72 hours makes a successor fold 72 hours of lane.

pub mod fold;
pub mod owner;

use xxhash_rust::xxh3::xxh3_64;

use crate::id::EndpointId;

/// The lane partition of an endpoint, out of a number fixed for the life of
/// the topic.
pub fn partition_of(endpoint: EndpointId, partitions: u32) -> u32 {
    let hash = xxh3_64(endpoint.as_bytes()) % u64::from(partitions.max(1));
    u32::try_from(hash).expect("a remainder fits its divisor")
}
