//! Attempts written one after the other into the bytes of an [`AttemptBatch`],
//! without a message of their own for each: one is written for every request
//! that is made.

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use crate::{AttemptBatch, Record as _};

/// What an [`Attempt`](crate::Attempt) says, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct AttemptRef<'a> {
    /// 16 bytes.
    pub endpoint_id: &'a [u8],
    /// Whose event.
    pub tenant: &'a str,
    /// The `webhook-id`.
    pub event_id: &'a str,
    /// Its type.
    pub event_type: &'a str,
    /// From 1.
    pub number: u32,
    /// Milliseconds since the epoch.
    pub started_ms: u64,
    /// Microseconds.
    pub duration_us: u64,
    /// 0 without a response.
    pub status: u32,
    /// Empty on success.
    pub cause: &'a str,
    /// When the next one is due, where that is known; otherwise 0.
    pub next_due_ms: u64,
    /// The response's first bytes.
    pub response_excerpt: &'a [u8],
    /// Where the event was first read.
    pub origin_topic: &'a str,
    /// … in this partition …
    pub origin_partition: u32,
    /// … at this offset …
    pub origin_offset: u64,
    /// … of a record of this time.
    pub origin_ms: u64,
    /// Empty, or 16 bytes.
    pub generation: &'a [u8],
}

/// A batch that grows.
#[derive(Debug)]
pub struct AttemptWriter {
    value: BytesMut,
    count: usize,
}

enum Field<'a> {
    Bytes(u32, &'a [u8]),
    Number(u32, u64),
}

impl Default for AttemptWriter {
    fn default() -> Self {
        let mut value = BytesMut::new();
        value.put_u8(AttemptBatch::TYPE as u8);
        Self { value, count: 0 }
    }
}

impl AttemptWriter {
    /// Adds one.
    pub fn push(&mut self, attempt: &AttemptRef<'_>) {
        // The numbers of `Attempt` in log.proto; a default is not written.
        let fields = [
            Field::Bytes(1, attempt.endpoint_id),
            Field::Bytes(2, attempt.tenant.as_bytes()),
            Field::Bytes(3, attempt.event_id.as_bytes()),
            Field::Bytes(4, attempt.event_type.as_bytes()),
            Field::Number(5, attempt.number.into()),
            Field::Number(6, attempt.started_ms),
            Field::Number(7, attempt.duration_us),
            Field::Number(8, attempt.status.into()),
            Field::Bytes(9, attempt.cause.as_bytes()),
            Field::Number(10, attempt.next_due_ms),
            Field::Bytes(11, attempt.response_excerpt),
            Field::Bytes(12, attempt.origin_topic.as_bytes()),
            Field::Number(13, attempt.origin_partition.into()),
            Field::Number(14, attempt.origin_offset),
            Field::Number(15, attempt.origin_ms),
            Field::Bytes(16, attempt.generation),
        ];
        let len: usize = fields.iter().map(Field::len).sum();
        // The field `attempts` of the batch.
        encode_key(1, WireType::LengthDelimited, &mut self.value);
        encode_varint(wide(len), &mut self.value);
        fields.iter().for_each(|field| field.put(&mut self.value));
        self.count += 1;
    }

    /// How many it holds.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The record's value; an empty batch is left.
    pub fn take(&mut self) -> Bytes {
        let fresh = Self {
            // The next will be about as large.
            value: BytesMut::with_capacity(self.value.len()),
            count: 0,
        };
        let full = std::mem::replace(self, fresh);
        self.value.put_u8(AttemptBatch::TYPE as u8);
        full.value.freeze()
    }
}

impl Field<'_> {
    fn len(&self) -> usize {
        match *self {
            Self::Bytes(_, []) | Self::Number(_, 0) => 0,
            Self::Bytes(tag, bytes) => {
                key_len(tag) + encoded_len_varint(wide(bytes.len())) + bytes.len()
            }
            Self::Number(tag, number) => key_len(tag) + encoded_len_varint(number),
        }
    }

    fn put(&self, out: &mut BytesMut) {
        match *self {
            Self::Bytes(_, []) | Self::Number(_, 0) => {}
            Self::Bytes(tag, bytes) => {
                encode_key(tag, WireType::LengthDelimited, out);
                encode_varint(wide(bytes.len()), out);
                out.put_slice(bytes);
            }
            Self::Number(tag, number) => {
                encode_key(tag, WireType::Varint, out);
                encode_varint(number, out);
            }
        }
    }
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Attempt;

    #[test]
    fn what_is_written_reads_as_the_message() {
        let delivered = AttemptRef {
            endpoint_id: &[7; 16],
            tenant: "acme",
            event_id: "evt_1",
            event_type: "invoice.paid",
            number: 1,
            started_ms: 1_700_000_000_000,
            duration_us: 812,
            status: 200,
            cause: "",
            next_due_ms: 0,
            response_excerpt: b"",
            origin_topic: "events",
            origin_partition: 0,
            origin_offset: 7,
            origin_ms: 1_699_999_999_990,
            generation: b"",
        };
        let failed = AttemptRef {
            number: 300,
            status: 0,
            cause: "connection_refused",
            next_due_ms: 1_700_000_005_000,
            response_excerpt: &[0xff; 200],
            origin_partition: 300,
            generation: &[9; 16],
            ..delivered
        };
        let mut writer = AttemptWriter::default();
        writer.push(&delivered);
        writer.push(&failed);
        assert_eq!(writer.len(), 2);
        let batch = AttemptBatch::from_value(&writer.take()).unwrap();
        let message = |a: &AttemptRef<'_>| Attempt {
            endpoint_id: Bytes::copy_from_slice(a.endpoint_id),
            tenant: a.tenant.into(),
            event_id: a.event_id.into(),
            event_type: a.event_type.into(),
            number: a.number,
            started_ms: a.started_ms,
            duration_us: a.duration_us,
            status: a.status,
            cause: a.cause.into(),
            next_due_ms: a.next_due_ms,
            response_excerpt: Bytes::copy_from_slice(a.response_excerpt),
            origin_topic: a.origin_topic.into(),
            origin_partition: a.origin_partition,
            origin_offset: a.origin_offset,
            origin_ms: a.origin_ms,
            generation: Bytes::copy_from_slice(a.generation),
        };
        assert_eq!(batch.attempts, [message(&delivered), message(&failed)]);
        assert!(writer.is_empty());
        writer.push(&delivered);
        let again = AttemptBatch::from_value(&writer.take()).unwrap();
        assert_eq!(again.attempts, [message(&delivered)]);
    }
}
