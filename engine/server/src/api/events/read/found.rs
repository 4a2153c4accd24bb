//! An event that was found, as it is shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use posthaste_core::content::View;
use posthaste_core::delivery::delivery_id;
use posthaste_core::endpoint::Endpoint;
use posthaste_core::event::Event;
use posthaste_core::id::{DeliveryId, EndpointId};
use posthaste_core::limits::EVENT_SHOWN_BYTES_MAX;

use super::{Found, Header, Item, NotAttempted, Shown};
use crate::api::Api;
use crate::api::deliveries::record::Trace;
use crate::api::deliveries::{add, judge};
use crate::api::look::{CLOCKS_APART, Key};
use crate::config::format_rfc3339_millis;
use crate::log::{LogError, Record, TopicPartition};

impl Found {
    /// Its place in a list: two records are never the same.
    pub(super) fn key(&self, places: &[TopicPartition]) -> Key {
        let origin = &self.event.origin;
        let is_it =
            |tp: &TopicPartition| tp.topic == origin.topic && tp.partition == origin.partition;
        let place = places.iter().position(is_it).unwrap_or(0);
        let place = u128::try_from(place).unwrap_or(0);
        Key {
            at: self.record.timestamp,
            id: (place << 64) | u128::from(origin.offset),
        }
    }

    pub(super) fn item(&self) -> Item {
        let (event, origin) = (&self.event, &self.event.origin);
        Item {
            id: event.id.to_string(),
            tenant: event.tenant.to_string(),
            event_type: event.event_type.to_string(),
            at: format_rfc3339_millis(origin.timestamp),
            topic: origin.topic.to_string(),
            partition: origin.partition,
            offset: origin.offset,
            body_bytes: event.body.len(),
        }
    }

    pub(super) async fn shown(self, api: &Api, trace: Trace) -> Result<Shown, LogError> {
        let mut gathered = BTreeMap::new();
        for found in trace.attempts {
            add(&mut gathered, found);
        }
        let wanting = self.wanting(api).into_iter();
        let not_attempted = wanting.filter(|(id, _)| !gathered.contains_key(id));
        let not_attempted = not_attempted.map(|(id, endpoint)| NotAttempted {
            id: id.to_string(),
            endpoint: endpoint.to_string(),
        });
        let not_attempted = not_attempted.collect();
        let (entries, _) = judge(api, gathered).await?;
        let event = &self.event;
        let (body, body_base64, body_truncated) = cut_body(&event.body, EVENT_SHOWN_BYTES_MAX);
        let key = &event.ordering_key;
        Ok(Shown {
            item: self.item(),
            content_type: event.content_type.to_string(),
            ordering_key: (!key.is_empty()).then(|| String::from_utf8_lossy(key).into_owned()),
            headers: self.headers(),
            body,
            body_base64,
            body_truncated,
            deliveries: entries.into_iter().map(|(_, entry)| entry).collect(),
            not_attempted,
            ended_by: trace.ended_by,
        })
    }

    fn headers(&self) -> Vec<Header> {
        let header = |(name, value): &(bytestring::ByteString, bytes::Bytes)| Header {
            name: name.to_string(),
            value: String::from_utf8_lossy(value).into_owned(),
        };
        self.record.headers.iter().map(header).collect()
    }

    /// Who wants it, as they are now.
    pub(in crate::api::events) fn wanted_by(&self, api: &Api) -> Vec<Arc<Endpoint>> {
        wanted_by(api, &self.event, &self.record)
    }

    /// Its deliveries to those that want it and were there when it came.
    fn wanting(&self, api: &Api) -> Vec<(DeliveryId, EndpointId)> {
        let came = self.event.origin.timestamp.after(CLOCKS_APART);
        let wanted = self.wanted_by(api).into_iter();
        let there = wanted.filter(|endpoint| endpoint.created_at <= came);
        let delivery = |id| (delivery_id(&self.event.origin, id, &[]), id);
        there.map(|endpoint| delivery(endpoint.id)).collect()
    }
}

/// Who wants the event of a record, as they are now.
pub(in crate::api) fn wanted_by(api: &Api, event: &Event, record: &Record) -> Vec<Arc<Endpoint>> {
    let registry = api.endpoints.registry().borrow().clone();
    let mut matched = Vec::new();
    registry.matching(&event.tenant, &event.event_type, &mut matched);
    let view = View {
        event_type: &event.event_type,
        headers: &record.headers,
        body: &event.body,
    };
    registry.sift(&event.tenant, &view, &mut matched);
    let known = matched.into_iter().filter_map(|ix| registry.endpoint(ix));
    known.cloned().collect()
}

/// The first bytes of a body as text, or in base64 where they are none; and
/// whether that is not all of it.
pub(in crate::api) fn cut_body(
    body: &[u8],
    bytes_max: usize,
) -> (Option<String>, Option<String>, bool) {
    let shown = &body[..body.len().min(bytes_max)];
    let text = readable(shown).map(ToOwned::to_owned);
    let base64 = text.is_none().then(|| BASE64_STANDARD.encode(shown));
    (text, base64, shown.len() < body.len())
}

/// The text that bytes are, but for a character that was cut in two.
fn readable(bytes: &[u8]) -> Option<&str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    }
}
