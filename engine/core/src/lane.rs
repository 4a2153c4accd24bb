//! The lane: an endpoint-keyed log of facts about everything a first attempt
//! did not finish.
//!
//! [`fold::Fold`] is the state the facts add up to, the same on every instance;
//! [`owner::Owner`] is the one instance's part that makes attempts happen and
//! writes facts about them. Facts take effect when they are read back, also our
//! own: the state is a fold of the log and nothing else. A fact may stand twice
//! and come from an owner that has been replaced; the fold is monotone, so that
//! costs duplicates at worst.

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
