//! One scan over a JSON envelope for the few values that route it.
//!
//! `serde_json` walks the text once and skips what nobody asked for; values
//! come out as slices of the record, so the body is delivered as it was
//! written. No tree is built.

use std::collections::BTreeMap;

use bytes::Bytes;
use bytestring::ByteString;
use posthaste_core::event::EventError;
use serde_json::value::RawValue;

use crate::config::{ConfigError, EnvelopePointers};

/// Where an envelope holds what routes it.
#[derive(Debug, Clone)]
pub(super) struct Envelope {
    event_type: Pointer,
    id: Pointer,
    tenant: Pointer,
    ordering_key: Pointer,
    data: Pointer,
}

/// What one scan found.
#[derive(Debug)]
pub(super) struct Scanned {
    pub(super) event_type: Option<ByteString>,
    pub(super) id: Option<ByteString>,
    pub(super) tenant: Option<ByteString>,
    pub(super) ordering_key: Option<ByteString>,
    pub(super) data: Option<Bytes>,
}

/// A JSON pointer (RFC 6901) over object members; empty for the whole.
#[derive(Debug, Clone)]
struct Pointer {
    text: String,
    members: Vec<String>,
}

type Object<'a> = BTreeMap<std::borrow::Cow<'a, str>, &'a RawValue>;

impl Envelope {
    pub(super) fn new(pointers: &EnvelopePointers) -> Result<Self, ConfigError> {
        let read = |key, text: &str| {
            Pointer::new(text).map_err(|problem| ConfigError::Invalid { key, problem })
        };
        Ok(Self {
            event_type: read("ingest.envelope.event_type", &pointers.event_type)?,
            id: read("ingest.envelope.id", &pointers.id)?,
            tenant: read("ingest.envelope.tenant", &pointers.tenant)?,
            ordering_key: read("ingest.envelope.ordering_key", &pointers.ordering_key)?,
            data: read("ingest.envelope.data", &pointers.data)?,
        })
    }

    /// Structured-mode CloudEvents: the attributes stand at the top, the whole
    /// is the body. `tenant` is our extension attribute, `partitionkey` one of
    /// CloudEvents' own.
    pub(super) fn cloudevents() -> Self {
        let member = |name: &str| Pointer {
            text: format!("/{name}"),
            members: vec![name.to_owned()],
        };
        Self {
            event_type: member("type"),
            id: member("id"),
            tenant: member("tenant"),
            ordering_key: member("partitionkey"),
            data: Pointer {
                text: String::new(),
                members: vec![],
            },
        }
    }

    pub(super) fn scan(&self, record: &Bytes) -> Result<Scanned, EventError> {
        let text = std::str::from_utf8(record).map_err(|_| {
            EventError::Malformed("the record has no routing headers and is not UTF-8".to_owned())
        })?;
        let whole: &RawValue = serde_json::from_str(text).map_err(|error| {
            EventError::Malformed(format!(
                "the record has no routing headers and is not JSON: {error}"
            ))
        })?;
        let top = object(whole).ok_or_else(|| {
            EventError::Malformed(
                "the record has no routing headers and is not a JSON object".to_owned(),
            )
        })?;
        let data = if self.data.members.is_empty() {
            Some(record.clone())
        } else {
            let found = self.data.find(&top);
            found.map(|raw| record.slice_ref(raw.get().as_bytes()))
        };
        Ok(Scanned {
            event_type: self.event_type.string(&top)?,
            id: self.id.string(&top)?,
            tenant: self.tenant.string(&top)?,
            ordering_key: self.ordering_key.text(&top)?,
            data,
        })
    }

    pub(super) fn type_pointer(&self) -> &str {
        &self.event_type.text
    }

    pub(super) fn tenant_pointer(&self) -> &str {
        &self.tenant.text
    }

    pub(super) fn data_pointer(&self) -> &str {
        &self.data.text
    }
}

impl Pointer {
    fn new(text: &str) -> Result<Self, String> {
        let wanted = || {
            format!("`{text}`: expected a JSON pointer such as \"/data\", or \"\" for the whole")
        };
        if text.is_empty() {
            return Ok(Self {
                text: String::new(),
                members: vec![],
            });
        }
        let rest = text.strip_prefix('/').ok_or_else(wanted)?;
        Ok(Self {
            text: text.to_owned(),
            members: rest
                .split('/')
                .map(|member| member.replace("~1", "/").replace("~0", "~"))
                .collect(),
        })
    }

    fn find<'a>(&self, top: &Object<'a>) -> Option<&'a RawValue> {
        let (first, rest) = self.members.split_first()?;
        let mut value = *top.get(first.as_str())?;
        for member in rest {
            value = object(value)?.get(member.as_str()).copied()?;
        }
        Some(value)
    }

    fn string(&self, top: &Object<'_>) -> Result<Option<ByteString>, EventError> {
        self.read(top, "a string", |text| serde_json::from_str(text).ok())
    }

    /// As [`string`](Self::string); a number stands as it is written.
    fn text(&self, top: &Object<'_>) -> Result<Option<ByteString>, EventError> {
        self.read(top, "a string or a number", |text| {
            let number = serde_json::from_str::<serde_json::Number>(text);
            let number = number.ok().map(|_| text.to_owned());
            number.or_else(|| serde_json::from_str(text).ok())
        })
    }

    fn read(
        &self,
        top: &Object<'_>,
        wanted: &str,
        read: impl FnOnce(&str) -> Option<String>,
    ) -> Result<Option<ByteString>, EventError> {
        let found = self.find(top).map(RawValue::get);
        let Some(text) = found.filter(|text| *text != "null") else {
            return Ok(None);
        };
        let read = read(text).ok_or_else(|| {
            EventError::Malformed(format!("the envelope's `{}` must be {wanted}", self.text))
        })?;
        Ok(Some(ByteString::from(read)))
    }
}

fn object(raw: &RawValue) -> Option<Object<'_>> {
    serde_json::from_str(raw.get()).ok()
}
