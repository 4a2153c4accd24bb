//! What an ordering key owes, and what commands do to a partition.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use posthaste_core::lane::fold::Fold;
use posthaste_proto as proto;
use posthaste_proto::{Record as _, RecordType};
use proto::command::Kind;
use proto::progress::Kind as Fact;

use super::super::sources::{Key, Sources, endpoint_number};
use super::{Lane, Stored};
use crate::seen::Seen;

/// One endpoint's ordering key.
#[derive(Debug)]
pub(super) struct Line {
    /// Its first record ever.
    first: u64,
    /// What is owed.
    owed: BTreeSet<u64>,
}

/// The number of an ordering key, 0 of none.
pub(super) fn order_of(key: &Bytes) -> u64 {
    let number = std::str::from_utf8(key).ok();
    let number = number.and_then(|text| text.strip_prefix('k'));
    let number = number.and_then(|text| text.parse::<u64>().ok());
    number.map_or(0, |number| number + 1)
}

impl Lane {
    /// It is owed from now on, or no longer.
    pub(super) fn lined(&mut self, offset: u64, owed: bool) {
        let Some(one) = self.records.get(&offset) else {
            return;
        };
        let line = self.lines.entry((one.key.endpoint, one.order));
        let line = line.or_insert_with(|| Line {
            first: offset,
            owed: BTreeSet::new(),
        });
        if owed {
            line.owed.insert(offset);
        } else {
            line.owed.remove(&offset);
        }
    }

    /// Whose delivery stands there.
    pub(in crate::checker) fn key(&self, offset: u64) -> Option<Key> {
        self.records.get(&offset).map(|one| one.key)
    }

    /// Where a command settled it, if one did.
    pub(in crate::checker) fn commanded_at(&self, offset: u64) -> Option<u64> {
        let one = self.records.get(&offset)?;
        one.settled.filter(|_| one.commanded)
    }

    /// Its endpoint.
    pub(in crate::checker) fn endpoint(&self, offset: u64) -> Option<usize> {
        self.key(offset).map(|key| key.endpoint)
    }

    /// The number of its ordering key.
    pub(in crate::checker) fn order(&self, offset: u64) -> u64 {
        self.records.get(&offset).map_or(0, |one| one.order)
    }

    /// What stands before it in its line and has no end, as a text: who hands
    /// it out all the same breaks the order. What is too old is never attempted
    /// again, whether or not its dead letter stands yet.
    pub(in crate::checker) fn passes_over(
        &self,
        offset: u64,
        (read_to, node_now): (u64, u64),
        sources: &mut Sources,
    ) -> Option<String> {
        let one = self.records.get(&offset)?;
        if !sources.is_ordered(one.key.endpoint) {
            return None;
        }
        let line = self.lines.get(&(one.key.endpoint, one.order))?;
        let mut before = line.owed.range(..offset).filter(|&&at| at < read_to);
        let first = before.find(|before| {
            let one = &self.records[*before];
            node_now < one.deadline_ms && !sources.has_ended(one.key)
        })?;
        Some(format!("is handed out before {first} of its key has ended"))
    }

    /// Whether a retry fact only lets a delivery wait behind an earlier one of
    /// its key.
    pub(in crate::checker) fn parks(&self, entry: &proto::progress::Entry) -> bool {
        let Some(one) = self.records.get(&entry.offset) else {
            return false;
        };
        let known = one.versions.last().map(|(_, attempts, _)| *attempts);
        let line = self.lines.get(&(one.key.endpoint, one.order));
        one.order != 0
            && known == Some(entry.attempt)
            && line.is_some_and(|line| line.first < entry.offset)
    }

    /// The first position an endpoint was owed as far as was read.
    pub(in crate::checker) fn owes(&self, endpoint: usize, read_to: u64) -> Option<u64> {
        let read = self.records.range(..read_to);
        let mut own = read.filter(|(_, one)| one.key.endpoint == endpoint);
        let owed = own.find(|(_, one)| one.settled.is_none_or(|at| at >= read_to));
        owed.map(|(&offset, _)| offset)
    }

    /// What is owed of an endpoint, in order.
    pub fn owed_of(&self, endpoint: usize) -> Vec<u64> {
        let lines = self.lines.range((endpoint, 0)..=(endpoint, u64::MAX));
        let mut owed: Vec<u64> = lines
            .flat_map(|(_, line)| line.owed.iter().copied())
            .collect();
        owed.sort_unstable();
        owed
    }

    /// A command takes effect where it stands, once.
    pub(super) fn command(
        &mut self,
        at: u64,
        record: &proto::Command,
        sources: &mut Sources,
        stored: &mut Stored,
    ) {
        if !self.commands.insert(record.id.clone()) {
            return stored.seen.push(Seen::CommandRepeated);
        }
        let endpoint = endpoint_number(&record.endpoint_id).unwrap_or(usize::MAX);
        let kind = record.kind();
        let owed = self.owed_of(endpoint);
        let listed = |offset: &u64| record.offsets.is_empty() || record.offsets.contains(offset);
        let mut took = 0;
        for offset in owed.into_iter().filter(|&offset| offset < at) {
            match kind {
                Kind::Cancel if listed(&offset) => {}
                Kind::SkipTo if offset < record.before => {}
                Kind::RetryNow if listed(&offset) => {
                    took += u64::from(self.hasten(offset, at, record.at_ms));
                    continue;
                }
                _ => continue,
            }
            took += 1;
            if let Some(one) = self.records.get_mut(&offset) {
                one.commanded = true;
            }
            if let Some(key) = self.settle(offset, at) {
                sources.cancel(key);
            }
        }
        if took > 0 || kind == Kind::Probe {
            stored.seen.push(match kind {
                Kind::RetryNow => Seen::Hastened,
                Kind::Probe => Seen::Probed,
                _ => Seen::Commanded,
            });
        }
    }

    fn hasten(&mut self, offset: u64, at: u64, due_ms: u64) -> bool {
        if !self.timers.contains(&offset) {
            return false;
        }
        let Some(one) = self.records.get_mut(&offset) else {
            return false;
        };
        let Some(&(_, attempts, before)) = one.versions.last() else {
            return false;
        };
        if before > due_ms {
            one.versions.push((at, attempts, due_ms));
        }
        before > due_ms
    }

    /// Facts of two owners that stand side by side could stand the other way
    /// round: the same is owed. Where a delivery stands twice, which copy is
    /// left depends on their order.
    pub(super) fn swapped(&self, records: &[(u64, Bytes)]) -> Result<(), String> {
        let mut copies: BTreeMap<Key, u32> = BTreeMap::new();
        for one in self.records.values() {
            *copies.entry(one.key).or_default() += 1;
        }
        let author = |value: &Bytes| match RecordType::of(value) {
            Ok(RecordType::Progress) => {
                let facts = proto::Progress::from_value(value);
                facts.ok().map(|facts| facts.owner_epoch)
            }
            _ => None,
        };
        let authors: Vec<_> = records.iter().map(|(_, value)| author(value)).collect();
        let mut order: Vec<usize> = (0..records.len()).collect();
        let mut place = 1;
        while place < order.len() {
            let (one, other) = (authors[place - 1], authors[place]);
            let both = one.is_some() && other.is_some() && one != other;
            if both && !follows(&records[place - 1].1, &records[place].1) {
                order.swap(place - 1, place);
                place += 1;
            }
            place += 1;
        }
        if copies.values().any(|&count| count > 1) || order.is_sorted() {
            return Ok(());
        }
        let mut fold = Fold::new(0);
        for (place, (offset, _)) in order.into_iter().zip(records) {
            let folded = fold.apply(*offset, &records[place].1);
            folded.map_err(|error| error.to_string())?;
        }
        let attempts = |offset: &u64| {
            let known = self.records[offset].versions.last();
            (*offset, known.map_or(0, |(_, attempts, _)| *attempts))
        };
        let told: Vec<_> = fold
            .iter()
            .map(|(offset, owed)| (offset, owed.attempts))
            .collect();
        if told.iter().copied().eq(self.timers.iter().map(attempts)) {
            return Ok(());
        }
        Err(format!("with facts swapped timers are {told:?}"))
    }
}

/// Whether facts may be told because of others: a timer that was held before
/// is only told of by who knows that.
fn follows(first: &Bytes, second: &Bytes) -> bool {
    let entries = |value| {
        proto::Progress::from_value(value).map_or_else(|_| Vec::new(), |facts| facts.entries)
    };
    let second = entries(second);
    // What was moved depends on what is told of where it went.
    let moves = |entry: &proto::progress::Entry| entry.kind() == Fact::Moved;
    if entries(first).iter().chain(&second).any(moves) {
        return true;
    }
    let about = |first: &proto::progress::Entry| {
        let from_hold = first.kind() == Fact::Retry && !first.endpoint_id.is_empty();
        let mut others = second.iter();
        from_hold && others.any(|one| one.offset == first.offset || one.kind() == Fact::Passed)
    };
    entries(first).iter().any(about)
}

/// Whose delivery a record is, if it is the first of it and held.
pub(in crate::checker) fn held_anew(value: &Bytes, sources: &mut Sources) -> Option<Key> {
    let record = proto::Deliver::from_value(value).ok()?;
    let key = Key::of_record(&record).filter(|_| record.due_ms == 0)?;
    (!sources.is_laned(key) && !sources.has_ended(key)).then_some(key)
}
