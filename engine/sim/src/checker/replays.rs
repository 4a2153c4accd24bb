//! What owners were asked for, and whether they did it: exactly once, whoever
//! they were.

use std::collections::BTreeMap;

use posthaste_core::operation::{Kind, Operation, Wanted};
use posthaste_proto as proto;
use proto::operation_progress::State;

use super::Rule;
use super::sources::{Broken, Key, Sources};

/// What was asked of owners.
#[derive(Debug, Default)]
pub struct Replays {
    /// By the generation of what they make.
    asked: BTreeMap<u32, Asked>,
    /// Deliveries made that were no copies.
    made: BTreeMap<Key, u64>,
    /// What dead letters for many gave up.
    buried: Vec<Buried>,
}

#[derive(Debug)]
struct Buried {
    partition: u32,
    from: u64,
    to: u64,
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Asked {
    operation: Operation,
    endpoint: usize,
    told: Option<proto::OperationProgress>,
}

impl Replays {
    /// Something new is asked for.
    pub fn asked(&mut self, operation: Operation, endpoint: usize) {
        let asked = Asked {
            operation,
            endpoint,
            told: None,
        };
        self.asked
            .insert(generation(asked.operation.id.as_bytes()), asked);
    }

    /// What was asked of an endpoint's owner is wanted otherwise; answers the
    /// operations.
    pub fn want(&mut self, endpoint: usize, wanted: Wanted) -> Vec<Operation> {
        let own = self
            .asked
            .values_mut()
            .filter(|one| one.endpoint == endpoint);
        let changed = own.map(|one| {
            one.operation.wanted = wanted;
            one.operation.version += 1;
            one.operation.clone()
        });
        changed.collect()
    }

    /// An owner says how far it is. Of two the newer is believed, and an end
    /// stands.
    pub(super) fn told(&mut self, told: proto::OperationProgress) -> Result<(), Broken> {
        let Some(one) = self.asked.get_mut(&generation(&told.id)) else {
            return Err((Rule::Replays, "progress of nothing".to_owned()));
        };
        let stands = one
            .told
            .as_ref()
            .is_some_and(|known| is_over(known) || known.owner_epoch > told.owner_epoch);
        if !stands {
            one.told = Some(told);
        }
        Ok(())
    }

    /// A delivery stands in the lane that is no copy.
    pub(super) fn made(&mut self, key: Key) {
        *self.made.entry(key).or_default() += 1;
    }

    /// A dead letter for many gave these up.
    pub(super) fn buried(&mut self, letter: &proto::DeadRange, keys: Vec<Key>) {
        self.buried.push(Buried {
            partition: letter.partition,
            from: letter.from,
            to: letter.to,
            keys,
        });
    }

    /// Of what was given up at once, and a redrive was about, one that it did not
    /// bring again, though nobody delivered it.
    fn left_out(&self, generation: u32, asked: &Asked, sources: &mut Sources) -> Option<Key> {
        let named = |one: &&Buried| {
            asked.operation.ranges.iter().any(|range| {
                range.topic == "lane"
                    && range.partition == one.partition
                    && range.from <= one.from
                    && one.to <= range.to
            })
        };
        let buried = self.buried.iter().filter(named);
        let mut keys = buried.flat_map(|one| &one.keys).copied();
        keys.find(|&key| {
            let again = Key { generation, ..key };
            key.endpoint == asked.endpoint
                && !self.made.contains_key(&again)
                && !sources.is_delivered(key)
        })
    }

    /// How many a generation made.
    fn count(&self, generation: u32) -> u64 {
        let own = self
            .made
            .iter()
            .filter(|(key, _)| key.generation == generation);
        own.map(|(_, count)| count).sum()
    }

    /// In the end all is over, and a replay made each delivery once.
    pub(super) fn finish(&self, sources: &mut Sources) -> Result<(), Broken> {
        let broken = |found| Err((Rule::Replays, found));
        for (&generation, one) in &self.asked {
            let kind = one.operation.kind;
            if sources.is_changed(one.endpoint) {
                continue;
            }
            let Some(told) = one.told.as_ref().filter(|told| is_over(told)) else {
                return broken(format!("{kind:?} is not over: {:?}", one.told));
            };
            if told.state() != State::Succeeded {
                return broken(format!("{kind:?} of {} failed: {told:?}", one.endpoint));
            }
            let made = self.count(generation);
            if matches!(kind, Kind::Replay | Kind::Redrive) && told.count != made {
                return broken(format!("{kind:?} tells of {}, and made {made}", told.count));
            }
            if let Some(key) = self.left_out(generation, one, sources) {
                return broken(format!("{key:?} was given up with others, and left out"));
            }
            if kind != Kind::Replay {
                continue;
            }
            let ends: Vec<u64> = one.operation.ranges.iter().map(|range| range.to).collect();
            for key in sources.wanted_below(one.endpoint, generation, &ends) {
                let count = self.made.get(&key).copied().unwrap_or(0);
                if count != 1 {
                    return broken(format!("{key:?} was made {count} times"));
                }
            }
        }
        Ok(())
    }
}

fn is_over(told: &proto::OperationProgress) -> bool {
    matches!(
        told.state(),
        State::Succeeded | State::Cancelled | State::Failed
    )
}

fn generation(id: &[u8]) -> u32 {
    id.last_chunk().copied().map_or(0, u32::from_be_bytes)
}
