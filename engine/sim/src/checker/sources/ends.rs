//! What ends deliveries other than success: dead letters, and endpoints that are
//! disabled.

use posthaste_proto as proto;
use posthaste_proto::Record as _;

use super::{Account, Key, Slot, Sources};
use crate::checker::times;
use crate::seen::Seen;

/// An endpoint that fails for five days may be disabled.
const FAILING_MS: u64 = 120 * 3_600_000;
/// Furthest clocks are off, both ways, where they do not jump.
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
            "failing" => now_ms + SKEW_MS + self.jumps_ms >= known.taken_ms + FAILING_MS,
            _ => false,
        })
    }

    /// An operator's command settled it.
    pub(in crate::checker) fn cancel(&mut self, key: Key) {
        if let Some(account) = self.account(key) {
            account.cancelled = true;
        }
    }

    /// Whether it needs nothing more: delivered, given up or cancelled.
    pub(in crate::checker) fn has_ended(&mut self, key: Key) -> bool {
        self.is_changed(key.endpoint) || self.account(key).is_some_and(|one| one.has_ended())
    }

    /// Whether a record of it stands in the lane.
    pub(in crate::checker) fn is_laned(&mut self, key: Key) -> bool {
        self.account(key).is_some_and(|account| account.laned)
    }

    /// One attempt at a time per ordering key.
    pub(in crate::checker) fn is_ordered(&self, endpoint: usize) -> bool {
        self.endpoints
            .get(endpoint)
            .is_some_and(|known| known.ordered)
    }

    /// First attempts wait until the backlog is delivered.
    pub(in crate::checker) fn is_fifo(&self, endpoint: usize) -> bool {
        self.endpoints.get(endpoint).is_some_and(|known| known.fifo)
    }

    pub(in crate::checker) fn is_dead(&mut self, key: Key) -> bool {
        self.account(key).is_some_and(|account| account.dead)
    }

    /// Deliveries without an end: wanted ones, and those an operator wanted
    /// again.
    pub(in crate::checker) fn unsettled(&self) -> Vec<Key> {
        let mut found = Vec::new();
        for (partition, slots) in self.partitions.iter().enumerate() {
            for (offset, slot) in (0..).zip(slots) {
                let Slot::Event {
                    kind,
                    tenant,
                    accounts,
                    ..
                } = slot
                else {
                    continue;
                };
                let again = accounts.iter().filter(|one| one.generation > 0);
                let wanting = self.wanting[*tenant][*kind].iter().map(|&one| (one, 0));
                for place in wanting.chain(again.map(Account::place)) {
                    let known = accounts.binary_search_by_key(&place, Account::place);
                    let ended = known.is_ok_and(|known| accounts[known].has_ended());
                    let (endpoint, generation) = place;
                    if !ended && !self.endpoints[endpoint].changed {
                        found.push(Key {
                            partition,
                            offset,
                            endpoint,
                            generation,
                        });
                    }
                }
            }
        }
        found
    }

    /// Deliveries of what was published before these ends that an endpoint
    /// wants, as of a generation.
    pub(in crate::checker) fn wanted_below(
        &self,
        endpoint: usize,
        generation: u32,
        ends: &[u64],
    ) -> Vec<Key> {
        let mut found = Vec::new();
        for ((partition, slots), end) in self.partitions.iter().enumerate().zip(ends) {
            let below = (0..*end).zip(slots);
            found.extend(below.filter_map(|(offset, slot)| match slot {
                Slot::Event { kind, tenant, .. } => {
                    let wanting = &self.wanting[*tenant][*kind];
                    wanting.contains(&endpoint).then_some(Key {
                        partition,
                        offset,
                        endpoint,
                        generation,
                    })
                }
                Slot::Hole | Slot::Poison { .. } => None,
            }));
        }
        found
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
        let known = self.endpoints.get(key.endpoint);
        let attempts = known.map_or(0, |known| known.attempts);
        let max_age_ms = known.map_or(0, |known| known.max_age_ms);
        let account = self
            .account(key)
            .ok_or_else(|| format!("{key:?} is none"))?;
        account.dead = true;
        let (seen, fits) = match dead.cause() {
            proto::DeadCause::Exhausted => (Seen::Exhausted, record.attempt >= attempts),
            proto::DeadCause::Expired => {
                let from = times::expires_from(record.deadline_ms, max_age_ms);
                let right = record.deadline_ms == times::deadline_ms(record, max_age_ms);
                let seen = match record.attempt {
                    0 if max_age_ms > 0 => Seen::TooOld,
                    _ => Seen::Expired,
                };
                (seen, dead.at_ms >= from && right)
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
