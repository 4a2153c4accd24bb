//! What the benchmarks share: the canonical workload's events and endpoints,
//! as values. One `[[bench]]` a file; each measures one mechanism of the core.
//!
//! `cargo bench -p posthaste-benches --bench sign -- --quick` runs one of them;
//! `cargo test -p posthaste-benches --benches` runs each once, to see that it
//! still works.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use posthaste_core::delivery::{Delivery, Room, Ticket};
use posthaste_core::event::{Event, JSON, Origin};
use posthaste_core::id::EndpointId;
use posthaste_core::registry::{EndpointIx, Registry, Table, table_key};
use posthaste_core::time::Timestamp;
use posthaste_proto as proto;
use posthaste_proto::Record as _;

/// The tenant of everything.
pub const TENANT: &str = "load";
/// Bytes of a body.
pub const BODY_BYTES: usize = 1_024;
/// Standard Webhooks' example secret.
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// The moment everything happens, in 2025.
pub const NOW: Timestamp = Timestamp::from_millis(1_750_000_000_000);

/// A body of [`BODY_BYTES`] bytes.
pub fn body() -> Bytes {
    let text = (0..BODY_BYTES).map(|n| b'a' + u8::try_from(n % 26).unwrap_or(0));
    text.collect()
}

/// The record of endpoint `k` of the workload, which wants these types.
pub fn endpoint(k: u32, event_types: Vec<String>) -> proto::Endpoint {
    proto::Endpoint {
        id: endpoint_id(k).as_bytes().to_vec().into(),
        uid: format!("e{k}"),
        tenant: TENANT.to_owned(),
        url: format!("https://example.com/e/{k}"),
        event_types,
        secrets: vec![proto::Secret {
            id: "s1".to_owned(),
            text: SECRET.to_owned(),
            ..proto::Secret::default()
        }],
        created_at_ms: NOW.as_millis(),
        ..proto::Endpoint::default()
    }
}

/// Puts an endpoint into the table.
///
/// # Panics
/// The record is none the table takes, so the benchmark is wrong.
pub fn put(table: &mut Table, k: u32, event_types: Vec<String>) {
    let record = endpoint(k, event_types).to_value();
    table
        .apply(&table_key(endpoint_id(k)), &record)
        .expect("the table takes the record");
}

/// So many endpoints, each with the types `types` gives it.
pub fn table(count: u32, types: impl Fn(u32) -> Vec<String>) -> Table {
    let mut table = Table::default();
    for k in 0..count {
        put(&mut table, k, types(k));
    }
    table
}

/// So many endpoints, each wanting one type, `load.e<k>`.
pub fn registry(count: u32) -> Arc<Registry> {
    table(count, |k| vec![format!("load.e{k}")]).snapshot()
}

/// Event `n` of the workload, for endpoint `k`.
pub fn event(n: u64, k: u32, body: &Bytes) -> Event {
    Event {
        id: ByteString::from(format!("load-{n}")),
        tenant: ByteString::from_static(TENANT),
        event_type: ByteString::from(format!("load.e{k}")),
        content_type: JSON,
        body: body.clone(),
        ordering_key: Bytes::new(),
        origin: Origin {
            topic: ByteString::from_static("events"),
            partition: 0,
            offset: n,
            timestamp: NOW,
        },
    }
}

/// The delivery of event `n` to endpoint `k`, from the source.
pub fn delivery(n: u64, k: u32, body: &Bytes) -> Delivery {
    let ticket = Ticket {
        room: Room::Ingest,
        slot: 0,
        epoch: 1,
        offset: n,
    };
    Delivery {
        started: NOW,
        ..Delivery::new(event(n, k, body).into(), EndpointIx(k), 0, ticket)
    }
}

fn endpoint_id(k: u32) -> EndpointId {
    EndpointId::from_bytes(u128::from(k).to_be_bytes())
}
