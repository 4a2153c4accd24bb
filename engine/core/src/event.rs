//! What comes in: an immutable fact with an id, a tenant, a type and a body.

use bytes::Bytes;
use bytestring::ByteString;

use crate::limits::{
    BODY_BYTES_MAX, EVENT_ID_BYTES_MAX, EVENT_TYPE_BYTES_MAX, ORDERING_KEY_BYTES_MAX,
    TENANT_BYTES_MAX,
};
use crate::time::Timestamp;

/// The content type of a body that came without one.
pub const JSON: ByteString = ByteString::from_static("application/json");

/// The tenant of operational events, which are about Posthaste itself: its
/// endpoints are made like any others, its events only by Posthaste.
pub const SYSTEM_TENANT: &str = "_posthaste";

/// An event. Cloning it shares the buffers.
#[derive(Debug, Clone)]
pub struct Event {
    /// The `webhook-id`: the same for every attempt, the receiver's key against
    /// duplicates.
    pub id: ByteString,
    /// Whose event it is.
    pub tenant: ByteString,
    /// Its type, dot-separated segments.
    pub event_type: ByteString,
    /// The body's content type.
    pub content_type: ByteString,
    /// The body, delivered byte for byte.
    pub body: Bytes,
    /// An ordered endpoint gets events of one key one after the other; empty for
    /// none, which stands for a key like any other.
    pub ordering_key: Bytes,
    /// Where it was first read.
    pub origin: Origin,
}

/// Where an event was first read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The source topic.
    pub topic: ByteString,
    /// Its partition.
    pub partition: u32,
    /// Its offset.
    pub offset: u64,
    /// The record's time.
    pub timestamp: Timestamp,
}

/// What is wrong with an event. Every text names the field and what would be
/// right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// A field that must be there is missing or empty.
    #[error("the event has no {field}: expected {wanted}")]
    Missing {
        /// Which field.
        field: &'static str,
        /// Where it was looked for.
        wanted: String,
    },
    /// A field is longer than allowed.
    #[error("the event's {field} has {bytes} bytes, at most {max} are allowed")]
    TooLong {
        /// Which field.
        field: &'static str,
        /// How long it is.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// A field holds a character it must not.
    #[error("the event's {field} must be {wanted}")]
    BadCharacter {
        /// Which field.
        field: &'static str,
        /// What it may hold.
        wanted: &'static str,
    },
    /// The tenant is not for everybody's events.
    #[error("the event's tenant may not be `{SYSTEM_TENANT}`: its events are Posthaste's own")]
    Reserved,
    /// The record is not in the form it claims.
    #[error("{0}")]
    Malformed(String),
}

impl Event {
    /// Checks the bounds of every field. The id may not hold a `.`, which
    /// separates the parts of what is signed (Standard Webhooks).
    pub fn check(&self) -> Result<(), EventError> {
        check_text(
            "id",
            &self.id,
            EVENT_ID_BYTES_MAX,
            "visible ASCII without `.`",
            |b| b.is_ascii_graphic() && b != b'.',
        )?;
        check_event_type(&self.event_type)?;
        check_tenant(&self.tenant)?;
        check_length("ordering key", &self.ordering_key, ORDERING_KEY_BYTES_MAX)?;
        check_length("body", &self.body, BODY_BYTES_MAX)
    }
}

/// Checks a tenant's name: visible ASCII without `/`, 1 to 128 bytes.
pub fn check_tenant(tenant: &str) -> Result<(), EventError> {
    check_text(
        "tenant",
        tenant,
        TENANT_BYTES_MAX,
        "visible ASCII without `/`",
        |b| b.is_ascii_graphic() && b != b'/',
    )
}

/// Checks an event's type: visible ASCII, 1 to 256 bytes.
pub fn check_event_type(event_type: &str) -> Result<(), EventError> {
    check_text(
        "type",
        event_type,
        EVENT_TYPE_BYTES_MAX,
        "visible ASCII",
        |b| b.is_ascii_graphic(),
    )
}

fn check_text(
    field: &'static str,
    text: &str,
    max: usize,
    wanted: &'static str,
    allowed: impl Fn(u8) -> bool,
) -> Result<(), EventError> {
    if text.is_empty() {
        return Err(EventError::Missing {
            field,
            wanted: format!("{wanted}, 1 to {max} bytes"),
        });
    }
    check_length(field, text.as_bytes(), max)?;
    if !text.bytes().all(allowed) {
        return Err(EventError::BadCharacter { field, wanted });
    }
    Ok(())
}

fn check_length(field: &'static str, value: &[u8], max: usize) -> Result<(), EventError> {
    let bytes = value.len();
    if bytes > max {
        return Err(EventError::TooLong { field, bytes, max });
    }
    Ok(())
}

#[cfg(test)]
pub(crate) fn sample(id: &str, tenant: &str, event_type: &str) -> Event {
    Event {
        id: id.into(),
        tenant: tenant.into(),
        event_type: event_type.into(),
        content_type: JSON,
        body: Bytes::from_static(b"{}"),
        ordering_key: Bytes::new(),
        origin: Origin {
            topic: ByteString::from_static("events"),
            partition: 0,
            offset: 0,
            timestamp: Timestamp::from_millis(1),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_is_checked_by_name() {
        assert_eq!(sample("evt_1", "acme", "invoice.paid").check(), Ok(()));
        let text = |event: Event| event.check().expect_err("refused").to_string();
        assert!(text(sample("", "acme", "a")).contains("no id"));
        assert!(text(sample("a.b", "acme", "a")).contains("id must be"));
        assert!(text(sample("a", "ac/me", "a")).contains("tenant must be"));
        assert!(text(sample("a", "acme", &"x".repeat(300))).contains("type has 300 bytes"));
        let mut event = sample("a", "acme", "a");
        event.body = vec![0; BODY_BYTES_MAX + 1].into();
        assert!(text(event).contains("body has 1048577 bytes"));
        let mut event = sample("a", "acme", "a");
        event.ordering_key = vec![0xff; ORDERING_KEY_BYTES_MAX].into();
        assert_eq!(event.check(), Ok(()), "any bytes");
        event.ordering_key = vec![b'k'; ORDERING_KEY_BYTES_MAX + 1].into();
        assert!(text(event).contains("ordering key has 257 bytes, at most 256"));
    }
}
