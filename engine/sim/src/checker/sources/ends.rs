//! What ends deliveries other than success: dead letters, and endpoints that are
//! disabled.

use posthaste_proto as proto;
use posthaste_proto::Record as _;

use super::{Key, Slot, Sources};
use crate::checker::times;
use crate::seen::Seen;

/// An endpoint that fails for five days may be disabled.
const FAILING_MS: u64 = 120 * 3_600_000;
/// Furthest clocks are off, both ways.
const SKEW_MS: u64 = 5_000;

impl Sources {
    /// Whether an owner may disable an endpoint: it said so itself, or took
    /// nothing for five days.
    pub(in crate::checker) fn may_disable(
        &self,
        endpoint: usize,
        reason: &str,
        now_ms: u64,
    ) -> bool {
        let known = self.endpoints.get(endpoint);
        known.is_some_and(|known| match reason {
            "gone" => known.gone,
            "failing" => now_ms + SKEW_MS >= known.taken_ms + FAILING_MS,
            _ => false,
        })
    }

    /// It stands in a dead letter for many.
    pub(in crate::checker) fn bury(&mut self, key: Key) {
        if let Some(account) = self.account(key) {
            account.dead = true;
        }
    }

    pub(in crate::checker) fn dead_stored(&mut self, value: &bytes::Bytes) -> Result<Seen, String> {
        let dead = proto::Dead::from_value(value).map_err(|error| error.to_string())?;
        let Some(record) = &dead.delivery else {
            let origin = dead.origin.unwrap_or_default();
            let partition = usize::try_from(origin.partition).unwrap_or(usize::MAX);
            return match self.slot(partition, origin.offset) {
                Some(Slot::Poison { buried }) => {
                    *buried = true;
                    Ok(Seen::PoisonBuried)
                }
                _ => Err(format!("{origin:?} is buried, and can be read")),
            };
        };
        let key = Key::of_record(record).ok_or("it names no delivery")?;
        let account = self
            .account(key)
            .ok_or_else(|| format!("{key:?} is none"))?;
        account.dead = true;
        let (seen, fits) = match dead.cause() {
            proto::DeadCause::Exhausted => (Seen::Exhausted, record.attempt >= times::ATTEMPTS),
            proto::DeadCause::Expired => {
                let from = times::expires_from(record.deadline_ms);
                (Seen::Expired, dead.at_ms >= from)
            }
            proto::DeadCause::Gone => (Seen::Gone, account.gone),
            _ => (Seen::Gone, false),
        };
        if fits {
            Ok(seen)
        } else {
            Err(format!(
                "{key:?}, {:?} after {}",
                dead.cause(),
                record.attempt
            ))
        }
    }
}
