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
//! Of what waits for its endpoint ([`hold::Hold`]) only the place is known, so
//! that a backlog of days costs kilobytes. Of what waits for a time a timer is
//! kept ([`Timers`](crate::timers::Timers)), under a cap.
//!
//! An owner writes [`snapshot`]s of its fold into the lane and commits the
//! position they tell of. A successor that cannot read one folds the log from
//! its start: facts stand after the delivery they are about and are kept as
//! long, so everything owed is found with all that is known about it.
//!
//! A delivery can stand in the lane twice, after a crash between append and
//! commit. The fold drops a copy of what waits for a time; copies of what is
//! held it cannot tell. Then it is made twice, and the receiver knows it by its
//! `webhook-id`.

pub mod caps;
mod chunks;
pub mod fold;
pub mod hold;
pub mod owner;
pub mod settings;
pub mod snapshot;

use xxhash_rust::xxh3::xxh3_64;

use crate::id::EndpointId;

/// The lane partition of an endpoint, out of a number fixed for the life of
/// the topic.
pub fn partition_of(endpoint: EndpointId, partitions: u32) -> u32 {
    let hash = xxh3_64(endpoint.as_bytes()) % u64::from(partitions.max(1));
    u32::try_from(hash).expect("a remainder fits its divisor")
}
