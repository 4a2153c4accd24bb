//! How much one lane partition may have: the bounds, where a caller has to know
//! them.

use crate::limits::{SNAPSHOT_PART_BYTES_MAX, TIMERS_MAX, TIMERS_PER_ENDPOINT_MAX};

/// What one lane partition may have. By default what [`limits`](crate::limits)
/// says; a simulation of small worlds takes less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Timers in all; further ones are moved behind the lane's end.
    pub timers: usize,
    /// … and of one endpoint.
    pub timers_per_endpoint: usize,
    /// Bytes of one part of a snapshot.
    pub part_bytes: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            timers: TIMERS_MAX,
            timers_per_endpoint: TIMERS_PER_ENDPOINT_MAX,
            part_bytes: SNAPSHOT_PART_BYTES_MAX,
        }
    }
}
