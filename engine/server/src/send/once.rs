//! One attempt by somebody who is no shard, on a connection of its own: through
//! the same wall, signed and bounded as any other.

use std::sync::Arc;
use std::time::Duration;

use posthaste_core::endpoint::Endpoint;
use posthaste_core::outcome::Cause;
use tokio::time::{Instant, timeout_at};

use super::connection::http1::Http1;
use super::dial::dial;
use super::egress::Egress;
use super::failure::Failure;
use super::meter::{Meter, Metered};
use super::prepared::Prepared;
use super::{Attempt, Attempted};

/// Makes one attempt over HTTP/1.1, `within` a time or the endpoint's own where
/// that is shorter. Unlike a [`Connection`](super::Connection) it is tied to no
/// thread.
pub async fn once(
    egress: &Egress,
    endpoint: &Endpoint,
    attempt: Attempt<'_>,
    within: Duration,
) -> Attempted {
    let made = make(egress, endpoint, attempt, within).await;
    made.unwrap_or_else(Attempted::from)
}

async fn make(
    egress: &Egress,
    endpoint: &Endpoint,
    attempt: Attempt<'_>,
    within: Duration,
) -> Result<Attempted, Failure> {
    let endpoint = Arc::new(Endpoint {
        http2: false,
        ..endpoint.clone()
    });
    let prepared = Prepared::new(&endpoint, egress, attempt.now)?;
    let request = prepared.message(attempt)?;
    let began = Instant::now();
    let deadline = began + within.min(prepared.timeout());
    let until = deadline.min(began + prepared.connect_timeout());
    let dialled = timeout_at(until, dial(egress, prepared.route(), until)).await;
    let dialled = dialled.map_err(|_| Failure::of(Cause::TimeoutConnect))??;
    let meter = Meter::plain(Some(dialled.wire));
    let _owed = meter.begin();
    let mut line = Http1::new(Metered::new(dialled.stream, Arc::clone(&meter)));
    let attempted = line.attempt(&request, attempt.now, deadline, &meter).await;
    attempted.map_err(|broken| Failure::of(broken.cause))
}
