//! Identifiers: 16 bytes inside, prefixed and time-sortable outside.

use std::fmt;
use std::str::FromStr;

use crate::rng::Rng;
use crate::time::Timestamp;

/// Crockford's base 32: no I, L, O, U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// What follows 48 bits of time (the ULID layout).
const RANDOM_BITS: u32 = 80;
/// 128 bits in groups of five.
const TEXT_LEN: usize = 26;

/// An endpoint's id, `ep_` outside.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId([u8; 16]);

/// A delivery's id, `dlv_` outside: the same for every attempt, and for the
/// same source record read twice. It begins with the record's time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId([u8; 16]);

/// An operator's command's id, `cmd_` outside: what is done again in its name
/// is done once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId([u8; 16]);

/// An attempt's id, `atm_` outside: where its record stands, so that it is found
/// without an index. Callers need not know that.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId([u8; 16]);

/// An API key's id, `pk_` outside: the public part of the key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 16]);

/// A request's id, `req_` outside: what it changed carries it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId([u8; 16]);

/// An operation's id, `op_` outside: deliveries made in its name carry it as
/// their generation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId([u8; 16]);

/// Text that is not an id of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid id: expected `{prefix}` and 26 characters of Crockford base 32")]
pub struct IdError {
    /// What the text should begin with.
    pub prefix: &'static str,
}

/// A new event id, for an event that came without one.
pub fn generate_event_id(now: Timestamp, rng: &mut Rng) -> String {
    format!("evt_{}", encode(&time_sortable(now, rng)))
}

/// The `webhook-id` of a request that brings no event: its receiver can tell it
/// from one that does.
pub fn generate_test_id(now: Timestamp, rng: &mut Rng) -> String {
    format!("test_{}", encode(&time_sortable(now, rng)))
}

/// A new secret's id.
pub fn generate_secret_id(now: Timestamp, rng: &mut Rng) -> String {
    format!("sec_{}", encode(&time_sortable(now, rng)))
}

/// An event id from 16 bytes the caller derived.
pub fn event_id_from(bytes: &[u8; 16]) -> String {
    format!("evt_{}", encode(bytes))
}

/// When an event of that id was made, if the id is one of ours that tells: a
/// guess, since others may name theirs like it.
pub fn event_time(id: &str) -> Option<Timestamp> {
    id.strip_prefix("evt_").and_then(decode).map(time_of)
}

/// The time an id begins with.
fn time_of(bytes: [u8; 16]) -> Timestamp {
    let millis = u128::from_be_bytes(bytes) >> RANDOM_BITS;
    Timestamp::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

fn time_sortable(now: Timestamp, rng: &mut Rng) -> [u8; 16] {
    let random = (u128::from(rng.next_u64()) << 64) | u128::from(rng.next_u64());
    with_time(now, random)
}

/// A time, and the lower bits of something else.
fn with_time(at: Timestamp, rest: u128) -> [u8; 16] {
    let id = (u128::from(at.as_millis()) << RANDOM_BITS) | (rest & ((1 << RANDOM_BITS) - 1));
    id.to_be_bytes()
}

fn encode(bytes: &[u8; 16]) -> String {
    let value = u128::from_be_bytes(*bytes);
    (0..TEXT_LEN)
        .rev()
        .map(|group| {
            let index = (value >> (group * 5)) & 31;
            char::from(ALPHABET[usize::try_from(index).unwrap_or(0)])
        })
        .collect()
}

fn decode(text: &str) -> Option<[u8; 16]> {
    if text.len() != TEXT_LEN {
        return None;
    }
    let mut value: u128 = 0;
    for (place, byte) in text.bytes().enumerate() {
        let digit = ALPHABET
            .iter()
            .position(|&c| c == byte.to_ascii_uppercase())?;
        // 26 groups of five are 130 bits: the first may use only three.
        if place == 0 && digit > 7 {
            return None;
        }
        value = (value << 5) | u128::try_from(digit).ok()?;
    }
    Some(value.to_be_bytes())
}

macro_rules! id {
    ($name:ident, $prefix:literal) => {
        impl $name {
            const PREFIX: &'static str = $prefix;

            /// From its 16 bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// Its 16 bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", Self::PREFIX, encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                text.strip_prefix(Self::PREFIX)
                    .and_then(decode)
                    .map(Self)
                    .ok_or(IdError {
                        prefix: Self::PREFIX,
                    })
            }
        }
    };
}
id!(EndpointId, "ep_");
id!(DeliveryId, "dlv_");
id!(CommandId, "cmd_");
id!(AttemptId, "atm_");
id!(KeyId, "pk_");
id!(RequestId, "req_");
id!(OperationId, "op_");

impl DeliveryId {
    /// Of an event of that time, told from others of it by a hash, of which the
    /// last 80 bits count.
    pub fn derived(at: Timestamp, hash: [u8; 16]) -> Self {
        Self(with_time(at, u128::from_be_bytes(hash)))
    }

    /// The time of its event.
    pub fn time(&self) -> Timestamp {
        time_of(self.0)
    }
}

impl AttemptId {
    /// Of the attempt of that index in the batch that stands there.
    pub fn at(partition: u32, offset: u64, index: u32) -> Self {
        let place = (u128::from(partition) << 96) | (u128::from(offset) << 32) | u128::from(index);
        Self(place.to_be_bytes())
    }

    /// The partition of the attempts topic, the batch's offset, the index.
    pub fn place(&self) -> (u32, u64, u32) {
        let place = u128::from_be_bytes(self.0);
        // Each is as wide as what it is read into.
        (
            u32::try_from(place >> 96).unwrap_or(u32::MAX),
            u64::try_from((place >> 32) & u128::from(u64::MAX)).unwrap_or(u64::MAX),
            u32::try_from(place & u128::from(u32::MAX)).unwrap_or(u32::MAX),
        )
    }
}

/// Ids that are made: a delivery's is derived, an attempt's is its place.
macro_rules! generated {
    ($($name:ident)*) => {$(
        impl $name {
            /// A new id: 48 bits of time, then 80 random bits.
            pub fn generate(now: Timestamp, rng: &mut Rng) -> Self {
                Self(time_sortable(now, rng))
            }
        }
    )*};
}
generated!(EndpointId CommandId KeyId RequestId OperationId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_reads_back_and_sorts_by_time() {
        let mut rng = Rng::new(1);
        let early = EndpointId::generate(Timestamp::from_millis(1_000), &mut rng);
        let late = EndpointId::generate(Timestamp::from_millis(1_001), &mut rng);
        assert!(early.to_string() < late.to_string());
        assert_eq!(early.to_string().parse(), Ok(early));
        assert_eq!(early.to_string().to_lowercase().parse(), Ok(early));
    }

    #[test]
    fn an_attempts_id_is_its_place() {
        for place in [
            (0, 0, 0),
            (63, 1 << 40, 255),
            (u32::MAX, u64::MAX, u32::MAX),
        ] {
            let (partition, offset, index) = place;
            let id = AttemptId::at(partition, offset, index);
            let read: AttemptId = id.to_string().parse().unwrap();
            assert_eq!(read.place(), place);
        }
    }

    #[test]
    fn an_events_id_tells_its_time_where_it_is_ours() {
        let now = Timestamp::from_millis(1_800_000_000_123);
        let id = generate_event_id(now, &mut Rng::new(1));
        assert_eq!(event_time(&id), Some(now));
        assert_eq!(event_time("evt_1"), None);
        assert_eq!(event_time("invoice-7"), None);
    }

    #[test]
    fn foreign_text_is_refused() {
        for text in [
            "",
            "ep_",
            "dlv_00000000000000000000000000",
            "ep_0000000000000000000000000U",
            "ep_80000000000000000000000000",
        ] {
            assert!(text.parse::<EndpointId>().is_err(), "{text}");
        }
    }
}
