//! From a record to an event: headers, CloudEvents in both modes, or a JSON
//! envelope with configurable pointers.
//!
//! The body is never parsed for its own sake: headers route without touching
//! it, an envelope is scanned once and its parts are slices of the record.

use bytes::Bytes;
use bytestring::ByteString;
use posthaste_core::event::{Event, EventError, JSON, Origin, SYSTEM_TENANT};
use posthaste_core::limits::ORDERING_KEY_BYTES_MAX;
use posthaste_core::time::Timestamp;

use super::envelope::Envelope;
use crate::config::{Config, ConfigError};
use crate::log::{Record, TopicPartition};

/// Header of a body's type, in Kafka as in HTTP.
const CONTENT_TYPE: &str = "content-type";
/// Structured mode (CloudEvents Kafka binding 1.0, section 3.3).
const CLOUDEVENTS_JSON: &str = "application/cloudevents+json";
/// Binary mode's headers in Kafka; HTTP has `ce-`.
const CE_PREFIXES: [&str; 2] = ["ce_", "ce-"];

/// Reads events out of records, as one deployment has them.
#[derive(Debug, Clone)]
pub struct Decoder {
    type_header: String,
    id_header: String,
    tenant_header: String,
    ordering_header: String,
    default_tenant: Option<ByteString>,
    envelope: Envelope,
    operational: ByteString,
}

/// What routes an event, as far as the record names it.
#[derive(Debug, Default)]
struct Parts {
    id: Option<ByteString>,
    event_type: Option<ByteString>,
    tenant: Option<ByteString>,
    content_type: Option<ByteString>,
    ordering_key: Option<Bytes>,
    body: Option<Bytes>,
}

impl Decoder {
    /// A decoder for this configuration; refuses a pointer that is none.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let operational = config.topics.operational();
        let config = &config.ingest;
        Ok(Self {
            operational,
            type_header: config.headers.event_type.clone(),
            id_header: config.headers.id.clone(),
            tenant_header: config.headers.tenant.clone(),
            ordering_header: config.headers.ordering_key.clone(),
            default_tenant: config.default_tenant.as_deref().map(ByteString::from),
            envelope: Envelope::new(&config.envelope)?,
        })
    }

    /// The event a record holds. An event that names no id gets one from its
    /// position, so that reading it again gives the same.
    pub fn decode(&self, tp: &TopicPartition, record: &Record) -> Result<Event, EventError> {
        self.decode_or(tp, record, positional_id)
    }

    /// As [`decode`](Self::decode), with another way to an id for an event that
    /// names none.
    pub fn decode_or(
        &self,
        tp: &TopicPartition,
        record: &Record,
        id: impl FnOnce(&Origin) -> ByteString,
    ) -> Result<Event, EventError> {
        let origin = Origin {
            topic: tp.topic.clone(),
            partition: tp.partition,
            offset: record.offset,
            timestamp: record.timestamp,
        };
        let mut parts = self.parts(record)?;
        let id = parts.id.take().unwrap_or_else(|| id(&origin));
        // Of several that are missing, the one most often forgotten is named.
        let event_type = parts.event_type.ok_or_else(|| self.no_type())?;
        let tenant = self.tenant(parts.tenant)?;
        let event = Event {
            id,
            tenant,
            event_type,
            content_type: parts.content_type.unwrap_or(JSON),
            body: parts.body.ok_or_else(|| self.no_body())?,
            ordering_key: ordering_key(parts.ordering_key, &record.key),
            origin,
        };
        event.check()?;
        if event.tenant == SYSTEM_TENANT && tp.topic != self.operational {
            return Err(EventError::Reserved);
        }
        Ok(event)
    }

    fn parts(&self, record: &Record) -> Result<Parts, EventError> {
        let mut parts = Parts::default();
        let mut cloud = Parts::default();
        for (name, value) in &record.headers {
            if name.eq_ignore_ascii_case(&self.type_header) {
                parts.event_type = Some(text("type", value)?);
            } else if name.eq_ignore_ascii_case(&self.id_header) {
                parts.id = Some(text("id", value)?);
            } else if name.eq_ignore_ascii_case(&self.tenant_header) {
                parts.tenant = Some(text("tenant", value)?);
            } else if name.eq_ignore_ascii_case(&self.ordering_header) {
                parts.ordering_key = Some(value.clone());
            } else if name.eq_ignore_ascii_case(CONTENT_TYPE) {
                parts.content_type = Some(text("content-type", value)?);
            } else if let Some(attribute) = cloud_attribute(name) {
                match attribute {
                    "type" => cloud.event_type = Some(text("ce type", value)?),
                    "id" => cloud.id = Some(text("ce id", value)?),
                    "tenant" => cloud.tenant = Some(text("ce tenant", value)?),
                    "partitionkey" => cloud.ordering_key = Some(value.clone()),
                    _ => {}
                }
            }
        }
        if parts.event_type.is_some() {
            parts.body = Some(record.value.clone());
            return Ok(parts);
        }
        if cloud.event_type.is_some() {
            return Ok(Parts {
                id: cloud.id,
                event_type: cloud.event_type,
                tenant: cloud.tenant.or(parts.tenant),
                content_type: parts.content_type,
                ordering_key: parts.ordering_key.or(cloud.ordering_key),
                body: Some(record.value.clone()),
            });
        }
        self.parts_in_body(parts, record)
    }

    fn parts_in_body(&self, headers: Parts, record: &Record) -> Result<Parts, EventError> {
        let structured = headers
            .content_type
            .as_deref()
            .is_some_and(|t| t.to_ascii_lowercase().starts_with(CLOUDEVENTS_JSON));
        let scanned = if structured {
            // The whole event is delivered, as its sender framed it.
            Envelope::cloudevents().scan(&record.value)?
        } else {
            self.envelope.scan(&record.value)?
        };
        Ok(Parts {
            id: headers.id.or(scanned.id),
            event_type: scanned.event_type,
            tenant: headers.tenant.or(scanned.tenant),
            content_type: if structured {
                headers.content_type
            } else {
                None
            },
            ordering_key: headers
                .ordering_key
                .or(scanned.ordering_key.map(ByteString::into_bytes)),
            body: scanned.data,
        })
    }

    fn tenant(&self, named: Option<ByteString>) -> Result<ByteString, EventError> {
        named
            .or_else(|| self.default_tenant.clone())
            .ok_or_else(|| EventError::Missing {
                field: "tenant",
                wanted: format!(
                    "header `{}`, the envelope's `{}`, or `ingest.default_tenant`",
                    self.tenant_header,
                    self.envelope.tenant_pointer()
                ),
            })
    }

    fn no_body(&self) -> EventError {
        EventError::Missing {
            field: "body",
            wanted: format!("the envelope's `{}`", self.envelope.data_pointer()),
        }
    }

    fn no_type(&self) -> EventError {
        EventError::Missing {
            field: "type",
            wanted: format!(
                "header `{}`, header `ce_type`, or the envelope's `{}`",
                self.type_header,
                self.envelope.type_pointer()
            ),
        }
    }
}

/// The key that is given, or the record's: that never makes an event bad, and of
/// a long one the hash orders as well.
fn ordering_key(given: Option<Bytes>, of_record: &Bytes) -> Bytes {
    if let Some(given) = given.filter(|key| !key.is_empty()) {
        return given;
    }
    if of_record.len() > ORDERING_KEY_BYTES_MAX {
        return Bytes::copy_from_slice(blake3::hash(of_record).as_bytes());
    }
    of_record.clone()
}

fn cloud_attribute(name: &str) -> Option<&str> {
    CE_PREFIXES.iter().find_map(|prefix| {
        let (head, rest) = name.split_at_checked(prefix.len())?;
        head.eq_ignore_ascii_case(prefix).then_some(rest)
    })
}

fn text(field: &'static str, value: &Bytes) -> Result<ByteString, EventError> {
    ByteString::try_from(value.clone()).map_err(|_| EventError::BadCharacter {
        field,
        wanted: "UTF-8",
    })
}

/// An id that depends on the position alone.
fn positional_id(origin: &Origin) -> ByteString {
    let endpoint = posthaste_core::id::EndpointId::from_bytes([0; 16]);
    let id = posthaste_core::delivery::delivery_id(origin, endpoint, b"event");
    ByteString::from(posthaste_core::id::event_id_from(id.as_bytes()))
}

/// The record an HTTP request would be, so that one decoder serves both.
pub fn record_of(headers: Vec<(ByteString, Bytes)>, value: Bytes, now: Timestamp) -> Record {
    Record {
        offset: 0,
        timestamp: now,
        key: Bytes::new(),
        value,
        headers,
    }
}

#[cfg(test)]
mod tests;
