//! The canonical workload, no knobs: real Kafka to engine to sink, in turn with
//! `wrk` to the same sink. Prints deliveries a second over `wrk`'s POSTs a
//! second, and CPU of a delivery over CPU of a POST.
//!
//! Needs `wrk`, and a broker: the one `POSTHASTE_TEST_KAFKA` names, or Java 17
//! and Maven to start one.

use posthaste_rig::scenario::{Rig, canonical};

/// Events a run.
const EVENTS: u64 = 300_000;
/// Runs of each, in turn.
const PAIRS: u32 = 5;

fn main() -> anyhow::Result<()> {
    let pairs = canonical::run(&Rig::kafka()?, EVENTS, PAIRS)?;
    canonical::conclude(&pairs);
    Ok(())
}
