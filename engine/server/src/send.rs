//! The way out: one connection to one endpoint, and the attempts made on it.
//!
//! ```text
//!  Endpoint --> Prepared ---------------+
//!                  |                    v
//!  Egress ---> Connection::open ---> attempt ---> Attempted (outcome, excerpt)
//!  (wall,       dial: look up,       sign, POST,
//!   names,      judge, connect,      read a bounded
//!   TLS)        TLS                  response
//! ```
//!
//! No address is connected to that the wall has not judged (`dial` is the
//! only door), no redirect is followed, no response is read without a bound on
//! its bytes and its time. The verdict falls with the response's head: a
//! receiver that answers 2xx and then misbehaves has taken the delivery.
//!
//! There is no pool: whoever makes an endpoint's attempts keeps its connection.
//! [`once`] is for those who make a single one.

mod connection;
mod dial;
mod egress;
mod failure;
mod meter;
mod once;
mod prepared;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use posthaste_core::event::Event;
use posthaste_core::outcome::{Cause, Outcome};
use posthaste_core::time::Timestamp;

pub use self::connection::Connection;
pub use self::egress::{Egress, EgressError, EgressSettings};
pub use self::failure::Failure;
pub use self::once::once;
pub use self::prepared::Prepared;

/// An attempt to be made.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// What to bring.
    pub event: &'a Event,
    /// Attempts made before.
    pub retries: u32,
    /// What the last of them came to, where it is known.
    pub last_cause: Option<Cause>,
    /// When it is signed.
    pub now: Timestamp,
}

/// What an attempt came to.
#[derive(Debug)]
pub struct Attempted {
    /// The verdict and why.
    pub outcome: Outcome,
    /// The first bytes of the response's body, as they came; empty if there was
    /// none.
    pub excerpt: Bytes,
}
