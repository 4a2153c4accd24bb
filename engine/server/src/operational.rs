//! Operational events: what Posthaste has to say about its own work, as events
//! of a tenant of their own ([`SYSTEM_TENANT`]). Whoever wants to hear them
//! makes an endpoint for that tenant; they are signed, retried and recorded like
//! any others.

use bytes::Bytes;
use bytestring::ByteString;
use posthaste_core::endpoint::Endpoint;
use posthaste_core::event::{Event, JSON, Origin, SYSTEM_TENANT};
use posthaste_core::id::event_id_from;
use posthaste_core::lane::owner::{DisableReason, NoticeKind};
use posthaste_core::operation::{Operation, Progress, State, kind_name};
use posthaste_core::shard::dead_cause_name;
use posthaste_core::time::Timestamp;
use posthaste_proto as proto;
use serde_json::{Value, json};

use crate::config::{Config, HeaderNames, format_rfc3339};
use crate::log::{NewRecord, TopicPartition};

/// Makes their records.
#[derive(Debug, Clone)]
pub(crate) struct Teller {
    topic: ByteString,
    headers: HeaderNames,
}

/// What happened: its event type, and what is said of it besides the endpoint.
pub(crate) type Told = (&'static str, Value);

impl Teller {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            topic: config.topics.operational(),
            headers: config.ingest.headers.clone(),
        }
    }

    /// The record of what happened to an endpoint. `None` for one that hears
    /// operational events itself: news of its failures would fail as well, for
    /// ever.
    pub(crate) fn record(
        &self,
        endpoint: &Endpoint,
        at: Timestamp,
        (event_type, mut data): Told,
    ) -> Option<NewRecord> {
        if endpoint.tenant == SYSTEM_TENANT {
            return None;
        }
        data["tenant"] = endpoint.tenant.clone().into();
        data["endpoint_id"] = endpoint.id.to_string().into();
        if !endpoint.uid.is_empty() {
            data["endpoint_uid"] = endpoint.uid.clone().into();
        }
        let body = json!({
            "type": event_type,
            "timestamp": format_rfc3339(at),
            "data": data,
        });
        let body = Bytes::from(body.to_string());
        let mut id = [0; 16];
        blake3::Hasher::new()
            .update(&body)
            .finalize_xof()
            .fill(&mut id);
        let to = TopicPartition {
            topic: self.topic.clone(),
            partition: 0,
        };
        let event = Event {
            // The same news, told twice, has the same id.
            id: ByteString::from(event_id_from(&id)),
            tenant: ByteString::from_static(SYSTEM_TENANT),
            event_type: ByteString::from_static(event_type),
            content_type: JSON,
            body,
            ordering_key: Bytes::copy_from_slice(endpoint.id.as_bytes()),
            origin: Origin {
                topic: to.topic.clone(),
                partition: 0,
                offset: 0,
                timestamp: at,
            },
        };
        Some(NewRecord {
            to,
            headers: self.headers.of(&event),
            key: event.ordering_key,
            value: event.body,
        })
    }
}

/// What an owner noticed; `delivery` is the one a notice about a delivery is
/// about.
pub(crate) fn noticed(kind: NoticeKind, delivery: Option<&proto::Deliver>) -> Told {
    match kind {
        NoticeKind::Disabled(reason) => (
            "endpoint.disabled",
            json!({ "reason": disabled_text(reason) }),
        ),
        NoticeKind::Down { since } => (
            "endpoint.circuit_opened",
            json!({ "down_since": format_rfc3339(since) }),
        ),
        NoticeKind::Recovered { down_since } => (
            "endpoint.recovered",
            json!({ "down_since": format_rfc3339(down_since) }),
        ),
        NoticeKind::AuthFailing { status } => {
            ("endpoint.auth_failing", json!({ "status": status }))
        }
        NoticeKind::Exhausted {
            attempts, cause, ..
        } => {
            let mut data = json!({ "attempts": attempts, "cause": dead_cause_name(cause.into()) });
            if let Some(delivery) = delivery {
                data["event_id"] = delivery.event_id.clone().into();
                data["event_type"] = delivery.event_type.clone().into();
            }
            ("delivery.exhausted", data)
        }
    }
}

/// What an operation came to, once it is over.
pub(crate) fn ended(operation: &Operation, progress: &Progress) -> Option<Told> {
    let event_type = match progress.state {
        State::Succeeded => "operation.succeeded",
        State::Failed => "operation.failed",
        State::Cancelled => "operation.cancelled",
        State::Unspecified | State::Running | State::Paused => return None,
    };
    let mut data = json!({
        "operation_id": operation.id.to_string(),
        "kind": kind_name(operation.kind),
        "deliveries": progress.count,
        "skipped": progress.skipped,
    });
    if !progress.detail.is_empty() {
        data["detail"] = progress.detail.clone().into();
    }
    Some((event_type, data))
}

/// The offset of the delivery a notice is about.
pub(crate) const fn delivery_of(kind: NoticeKind) -> Option<u64> {
    match kind {
        NoticeKind::Exhausted { offset, .. } => Some(offset),
        NoticeKind::Disabled(_)
        | NoticeKind::Down { .. }
        | NoticeKind::Recovered { .. }
        | NoticeKind::AuthFailing { .. } => None,
    }
}

/// As the endpoint's `disabled_reason` says it.
pub(crate) const fn disabled_text(reason: DisableReason) -> &'static str {
    match reason {
        DisableReason::Failing => "failing",
        DisableReason::Gone => "gone",
    }
}
