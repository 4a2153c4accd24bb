//! Operational events: what Posthaste has to say about its own work, as events
//! of a tenant of their own ([`SYSTEM_TENANT`]). Whoever wants to hear them
//! makes an endpoint for that tenant; they are signed, retried and recorded like
//! any others.

use bytes::Bytes;
use bytestring::ByteString;
use posthaste_core::endpoint::Endpoint;
use posthaste_core::event::{Event, JSON, Origin, SYSTEM_TENANT};
use posthaste_core::id::event_id_from;
use posthaste_core::lane::owner::{DisableReason, Notice, NoticeKind};
use posthaste_core::shard::dead_cause_name;
use posthaste_proto as proto;
use serde_json::{Value, json};

use crate::config::{HeaderNames, Topics, format_rfc3339};
use crate::ingest::decode::headers_of;
use crate::log::{NewRecord, TopicPartition};

/// The record of a notice about an endpoint; `delivery` is the one a notice
/// about a delivery is about. `None` for an endpoint that hears operational
/// events itself: news of its failures would fail as well, for ever.
pub(crate) fn record(
    topics: &Topics,
    headers: &HeaderNames,
    notice: &Notice,
    endpoint: &Endpoint,
    delivery: Option<&proto::Deliver>,
) -> Option<NewRecord> {
    if endpoint.tenant == SYSTEM_TENANT {
        return None;
    }
    let (event_type, mut data) = told(notice.kind, delivery);
    data["tenant"] = endpoint.tenant.clone().into();
    data["endpoint_id"] = endpoint.id.to_string().into();
    if !endpoint.uid.is_empty() {
        data["endpoint_uid"] = endpoint.uid.clone().into();
    }
    let body = json!({
        "type": event_type,
        "timestamp": format_rfc3339(notice.at),
        "data": data,
    });
    let body = Bytes::from(body.to_string());
    let mut id = [0; 16];
    blake3::Hasher::new()
        .update(&body)
        .finalize_xof()
        .fill(&mut id);
    let to = TopicPartition {
        topic: topics.operational(),
        partition: 0,
    };
    let event = Event {
        // The same notice, told twice, has the same id.
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
            timestamp: notice.at,
        },
    };
    Some(NewRecord {
        to,
        headers: headers_of(headers, &event),
        key: event.ordering_key,
        value: event.body,
    })
}

fn told(kind: NoticeKind, delivery: Option<&proto::Deliver>) -> (&'static str, Value) {
    match kind {
        NoticeKind::Disabled(reason) => (
            "endpoint.disabled",
            json!({ "reason": disabled_text(reason) }),
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

/// The offset of the delivery a notice is about.
pub(crate) const fn delivery_of(notice: &Notice) -> Option<u64> {
    match notice.kind {
        NoticeKind::Exhausted { offset, .. } => Some(offset),
        NoticeKind::Disabled(_) | NoticeKind::Recovered { .. } | NoticeKind::AuthFailing { .. } => {
            None
        }
    }
}

/// As the endpoint's `disabled_reason` says it.
pub(crate) const fn disabled_text(reason: DisableReason) -> &'static str {
    match reason {
        DisableReason::Failing => "failing",
        DisableReason::Gone => "gone",
    }
}
