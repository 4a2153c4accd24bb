//! Records out of librdkafka's memory into ours. A borrowed message pins the
//! whole fetch it came in, so each is copied at once: one buffer a record, its
//! parts slices of it.

use bytes::BytesMut;
use bytestring::ByteString;
use posthaste_core::time::Timestamp;
use rdkafka::Message as _;
use rdkafka::message::{BorrowedMessage, Headers as _};

use super::unsigned;
use crate::log::{Record, names};

/// Header names kept for reuse; a topic has few.
const NAMES_MAX: usize = 32;

/// Header names seen before: those of one topic repeat with every record.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<ByteString>);

impl Names {
    fn get(&mut self, name: &str) -> ByteString {
        if let Some(known) = self.0.iter().find(|known| **known == name) {
            return known.clone();
        }
        let new = names::shared(name);
        if self.0.len() < NAMES_MAX {
            self.0.push(new.clone());
        }
        new
    }
}

/// The message as a record.
pub(super) fn record(message: &BorrowedMessage<'_>, names: &mut Names) -> Record {
    let key = message.key().unwrap_or_default();
    let value = message.payload().unwrap_or_default();
    // One pass: the library looks each header up from the first on.
    let headers: Vec<(ByteString, &[u8])> = message.headers().map_or_else(Vec::new, |headers| {
        let each = headers.iter();
        each.map(|h| (names.get(h.key), h.value.unwrap_or_default()))
            .collect()
    });
    let header_bytes: usize = headers.iter().map(|(_, value)| value.len()).sum();
    let mut buffer = BytesMut::with_capacity(key.len() + value.len() + header_bytes);
    buffer.extend_from_slice(value);
    buffer.extend_from_slice(key);
    for (_, value) in &headers {
        buffer.extend_from_slice(value);
    }
    let mut rest = buffer.freeze();
    Record {
        offset: unsigned(message.offset()).unwrap_or_default(),
        timestamp: timestamp(message),
        value: rest.split_to(value.len()),
        key: rest.split_to(key.len()),
        headers: headers
            .into_iter()
            .map(|(name, value)| (name, rest.split_to(value.len())))
            .collect(),
    }
}

fn timestamp(message: &BorrowedMessage<'_>) -> Timestamp {
    let millis = message.timestamp().to_millis().unwrap_or_default();
    Timestamp::from_millis(u64::try_from(millis).unwrap_or_default())
}
