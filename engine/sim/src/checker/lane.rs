//! What one lane partition says: a second, plain fold of it, from its very
//! first record on.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use posthaste_core::id::OperationId;
use posthaste_core::lane::fold::{Fold, Made};
use posthaste_core::lane::snapshot::{Assembly, SnapshotRef};
use posthaste_proto as proto;
use posthaste_proto::progress::Kind;
use posthaste_proto::{Record as _, RecordType};

mod lines;

pub(super) use lines::held_anew;

use super::Rule;
use super::sources::{Broken, Key, Sources, endpoint_number};
use crate::seen::Seen;

/// A `Deliver` record and what is known about it.
#[derive(Debug)]
struct Owed {
    key: Key,
    deadline_ms: u64,
    /// What the record and the facts since say: where, attempts, due.
    versions: Vec<(u64, u32, u64)>,
    /// Where it was settled; a copy that was dropped, where it stands.
    settled: Option<u64>,
    /// It was once held: its record names no time.
    was_held: bool,
    /// Its ordering key, 0 without one.
    order: u64,
    /// A command settled it.
    commanded: bool,
}

/// One lane partition.
#[derive(Debug, Default)]
pub struct Lane {
    records: BTreeMap<u64, Owed>,
    /// What waits for a time.
    timers: BTreeSet<u64>,
    /// What waits for its endpoint.
    held: BTreeSet<u64>,
    /// Of what waits for a time.
    by_key: BTreeMap<Key, u64>,
    claims: BTreeSet<u64>,
    /// Commands that took effect.
    commands: BTreeSet<Bytes>,
    /// What is owed of each endpoint's ordering key, and where it began.
    lines: BTreeMap<(usize, u64), lines::Line>,
    /// Deliveries that stand again behind the lane's end of then.
    moved: BTreeSet<Key>,
    /// Where the last delivery of each operation's range is from, and how many
    /// each operation has.
    made: BTreeMap<(Bytes, u32), u64>,
    counts: BTreeMap<Bytes, u64>,
}

/// What a new record means.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub(super) seen: Vec<Seen>,
    pub(super) broken: Option<Broken>,
    /// An operation's, and no copy.
    pub(super) made: Option<Key>,
    /// … or one.
    pub(super) copied: bool,
}

impl Lane {
    /// A position owed whose delivery has not ended.
    pub(super) fn open(&self, sources: &mut Sources) -> Option<u64> {
        let mut owed = self.timers.iter().chain(&self.held).copied();
        owed.find(|offset| {
            let key = self.records.get(offset).map(|one| one.key);
            key.is_some_and(|key| !sources.has_ended(key))
        })
    }

    /// What an endpoint holds in a range, with deadlines.
    pub(super) fn held_in(&self, endpoint: usize, range: std::ops::Range<u64>) -> Vec<(Key, u64)> {
        let records = self.held.range(range).map(|offset| &self.records[offset]);
        let own = records.filter(|one| one.key.endpoint == endpoint);
        own.map(|one| (one.key, one.deadline_ms)).collect()
    }

    pub(super) fn is_settled(&self, offset: u64) -> bool {
        self.records
            .get(&offset)
            .is_some_and(|one| one.settled.is_some())
    }

    pub(super) fn deadline(&self, offset: u64) -> u64 {
        self.records.get(&offset).map_or(0, |one| one.deadline_ms)
    }

    /// An owner that has read so far hands a delivery out; answers the number
    /// of its attempt.
    pub(super) fn hand_out(&self, offset: u64, read_to: u64, node_now: u64) -> Result<u32, Broken> {
        let Some(one) = self.records.get(&offset).filter(|_| offset < read_to) else {
            return Err((Rule::FactsTrue, "is no delivery that was read".to_owned()));
        };
        if let Some(settled) = one.settled.filter(|&at| at < read_to) {
            let found = format!("was settled at {settled}, read is {read_to}");
            let rule = match one.commanded {
                true => Rule::CommandsHold,
                false => Rule::NothingAfterSettle,
            };
            return Err((rule, found));
        }
        let read = one.versions.iter().take_while(|(at, ..)| *at < read_to);
        let Some(&(_, attempts, due_ms)) = read.last() else {
            return Err((Rule::FactsTrue, "is not known".to_owned()));
        };
        if node_now < due_ms || node_now >= one.deadline_ms {
            let found = format!(
                "is handed out at {node_now}, due {due_ms}, deadline {}",
                one.deadline_ms
            );
            return Err((Rule::OnTime, found));
        }
        Ok(attempts + 1)
    }

    pub(super) fn stored(&mut self, offset: u64, value: &Bytes, sources: &mut Sources) -> Stored {
        let mut stored = Stored::default();
        match RecordType::of(value) {
            Ok(RecordType::Deliver) => match proto::Deliver::from_value(value) {
                Ok(record) => self.deliver(offset, &record, sources, &mut stored),
                Err(error) => stored.broken = Some((Rule::FactsTrue, error.to_string())),
            },
            Ok(RecordType::Progress) => match proto::Progress::from_value(value) {
                Ok(record) => {
                    let last = self.claims.last().copied();
                    if last.is_some_and(|last| last > record.owner_epoch) {
                        stored.seen.push(Seen::ZombieFacts);
                    }
                    for entry in &record.entries {
                        self.fact(offset, entry, sources, &mut stored);
                    }
                }
                Err(error) => stored.broken = Some((Rule::FactsTrue, error.to_string())),
            },
            Ok(RecordType::Claim) => {
                self.claims.insert(offset);
            }
            Ok(RecordType::Command) => match proto::Command::from_value(value) {
                Ok(record) => self.command(offset, &record, sources, &mut stored),
                Err(error) => stored.broken = Some((Rule::FactsTrue, error.to_string())),
            },
            Ok(RecordType::Snapshot) => {}
            other => stored.broken = Some((Rule::FactsTrue, format!("{other:?} in the lane"))),
        }
        stored
    }

    fn deliver(
        &mut self,
        offset: u64,
        record: &proto::Deliver,
        sources: &mut Sources,
        stored: &mut Stored,
    ) {
        let known = Key::of_record(record).and_then(|key| Some((key, sources.laned(key)?)));
        let Some((key, (before, failed))) = known else {
            stored.broken = Some((Rule::FactsTrue, "is about no delivery".to_owned()));
            return;
        };
        match record.reason() {
            proto::Reason::Retry if !failed => {
                let found = format!("{key:?} is retried without a failure");
                stored.broken = Some((Rule::RetriesOnlyFailures, found));
            }
            proto::Reason::Moved => {
                stored.seen.push(Seen::Moved);
                self.moved.insert(key);
            }
            proto::Reason::Overflow => stored.seen.push(Seen::Overflowed),
            proto::Reason::Gate => stored.seen.push(Seen::Gated),
            proto::Reason::Owned => stored.seen.push(Seen::Owned),
            proto::Reason::Drain => stored.seen.push(Seen::Drained),
            proto::Reason::Resend => stored.seen.push(Seen::Redriven),
            proto::Reason::Replay => stored.seen.push(Seen::Replayed),
            _ => {}
        }
        if before {
            stored.seen.push(Seen::AppendStoredTwice);
        }
        let held = record.due_ms == 0;
        let follows = self.follows(record);
        stored.made = follows.filter(|follows| *follows).map(|_| key);
        stored.copied = follows == Some(false);
        if stored.copied {
            stored.seen.push(Seen::CopyDropped);
        }
        let dropped = stored.copied || (!held && self.by_key.contains_key(&key));
        self.records.insert(
            offset,
            Owed {
                key,
                deadline_ms: record.deadline_ms,
                versions: vec![(offset, record.attempt, record.due_ms)],
                settled: dropped.then_some(offset),
                was_held: held,
                order: lines::order_of(&record.ordering_key),
                commanded: false,
            },
        );
        self.lined(offset, !dropped);
        if stored.copied {
            return;
        }
        if held {
            self.held.insert(offset);
        } else if !dropped {
            self.by_key.insert(key, offset);
            self.timers.insert(offset);
        }
    }

    /// Whether an operation's delivery stands behind the last one of its range.
    fn follows(&mut self, record: &proto::Deliver) -> Option<bool> {
        let made = matches!(
            record.reason(),
            proto::Reason::Replay | proto::Reason::Resend
        );
        if !made || record.range_offset == 0 {
            return None;
        }
        let place = (record.generation.clone(), record.range);
        let last = self.made.get(&place).copied().unwrap_or(0);
        if record.range_after != last || record.range_offset <= last {
            return Some(false);
        }
        self.made.insert(place, record.range_offset);
        *self.counts.entry(record.generation.clone()).or_default() += 1;
        Some(true)
    }

    /// Nothing an endpoint held below is held any longer: each of them ended.
    fn passed(
        &mut self,
        at: u64,
        entry: &proto::progress::Entry,
        sources: &mut Sources,
        stored: &mut Stored,
    ) {
        let own = |offset: &u64| {
            let key = self.records[offset].key;
            endpoint_number(&entry.endpoint_id) == Some(key.endpoint)
        };
        let passed: Vec<u64> = self.held.range(..entry.offset).copied().collect();
        for offset in passed.into_iter().filter(own).collect::<Vec<_>>() {
            let Some(key) = self.settle(offset, at) else {
                continue;
            };
            if !sources.has_ended(key) {
                let found = format!("{key:?} at {offset} is passed, and has no end");
                stored.broken = Some((Rule::FactsTrue, found));
            }
        }
    }

    fn fact(
        &mut self,
        at: u64,
        entry: &proto::progress::Entry,
        sources: &mut Sources,
        stored: &mut Stored,
    ) {
        let offset = entry.offset;
        if entry.kind() == Kind::Passed {
            return self.passed(at, entry, sources, stored);
        }
        let Some(one) = self.records.get_mut(&offset) else {
            stored.broken = Some((Rule::FactsTrue, format!("a fact about {offset}")));
            return;
        };
        let key = one.key;
        let timer = self.timers.contains(&offset);
        let held = self.held.contains(&offset)
            && endpoint_number(&entry.endpoint_id) == Some(key.endpoint);
        let truth = match entry.kind() {
            Kind::Retry => {
                let known = one.versions.last().map_or(0, |(_, attempts, _)| *attempts);
                if held {
                    if self.by_key.contains_key(&key) {
                        self.settle(offset, at);
                        return;
                    }
                    self.held.remove(&offset);
                    self.by_key.insert(key, offset);
                    self.timers.insert(offset);
                } else if !timer || entry.attempt <= known {
                    return stored.seen.push(Seen::RetryAbsorbed);
                }
                return one.versions.push((at, entry.attempt, entry.due_ms));
            }
            Kind::Done => sources.is_delivered(key),
            Kind::Dead => sources.is_dead(key),
            Kind::Cancelled => {
                stored.seen.push(Seen::Cancelled);
                sources.is_changed(key.endpoint)
            }
            // That it was old enough, its dead letter showed.
            Kind::Expired => sources.is_dead(key),
            // Where it stands again it is settled: it stays owed here.
            Kind::Moved if timer && entry.moved_to > 0 && !self.held.contains(&entry.moved_to) => {
                return;
            }
            Kind::Moved => self.moved.contains(&key),
            Kind::Passed | Kind::Unspecified => false,
        };
        if !truth {
            let found = format!("{key:?} is told as {:?}", entry.kind());
            stored.broken = Some((Rule::FactsTrue, found));
        }
        if timer || held {
            self.settle(offset, at);
        } else {
            stored.seen.push(Seen::SettledTwice);
        }
    }

    /// It is owed no longer; whose it was.
    fn settle(&mut self, offset: u64, at: u64) -> Option<Key> {
        let one = self.records.get_mut(&offset)?;
        one.settled = Some(at);
        let key = one.key;
        if self.timers.remove(&offset) {
            self.by_key.remove(&key);
        }
        self.held.remove(&offset);
        self.lined(offset, false);
        Some(key)
    }

    /// A commit names a snapshot that stands, of what was folded up to there;
    /// with the records since it owes what is owed.
    pub(super) fn resumes(
        &self,
        at: u64,
        metadata: &str,
        records: &[(u64, Bytes)],
    ) -> Result<(), Broken> {
        let broken = |found: String| (Rule::FoldResumes, found);
        let place: SnapshotRef = metadata
            .parse()
            .map_err(|error| broken(format!("the commit of {at} says `{metadata}`: {error}")))?;
        let mut assembly = Assembly::new(place);
        for (offset, value) in records.iter().filter(|(offset, _)| *offset >= place.part0) {
            if assembly.push(*offset, value) {
                break;
            }
        }
        let mut fold = assembly
            .load()
            .map_err(|error| broken(format!("the commit of {at} names {place}: {error}")))?
            .fold;
        if fold.next() != at {
            let found = format!("the commit of {at} names {place}, of {}", fold.next());
            return Err(broken(found));
        }
        for (offset, value) in records.iter().filter(|(offset, _)| *offset >= at) {
            let folded = fold.apply(*offset, value);
            folded.map_err(|error| broken(error.to_string()))?;
        }
        self.same(&fold)
            .map_err(|found| broken(format!("from {place} on, {found}")))
    }

    /// Whether a fold owes what is owed.
    fn same(&self, fold: &Fold) -> Result<(), String> {
        let timers: Vec<u64> = fold.iter().map(|(offset, _)| offset).collect();
        if !timers.iter().eq(&self.timers) {
            return Err(format!("timers are {timers:?}, not {:?}", self.timers));
        }
        for (offset, owed) in fold.iter() {
            let known = self.records[&offset].versions.last();
            let told = (owed.attempts, owed.due.as_millis());
            let known = known.map(|&(_, attempts, due_ms)| (attempts, due_ms));
            if known != Some(told) {
                return Err(format!("of {offset} it says {told:?}, not {known:?}"));
            }
        }
        for (id, count) in &self.counts {
            let id = id.as_ref().try_into().map_err(|_| "an id".to_owned())?;
            let known = fold.made(OperationId::from_bytes(id));
            if known.map(Made::count) != Some(*count) {
                return Err(format!("an operation made {known:?}, not {count}"));
            }
        }
        for (offset, one) in self.records.iter().filter(|(_, one)| one.was_held) {
            let endpoint = crate::node::endpoint_id(one.key.endpoint);
            let owed = self.held.contains(offset) || self.timers.contains(offset);
            if fold.is_owed(endpoint, *offset) != owed {
                return Err(format!("of {offset} it is not known that owed is {owed}"));
            }
        }
        Ok(())
    }

    /// Compares with the core's fold of the same records, and with one that
    /// hears every fact once more.
    /// `read`: how the fold is told of a record.
    pub(super) fn compare(
        &self,
        records: &[(u64, Bytes)],
        read: impl Fn(&Fold, u64, &Bytes) -> Bytes,
    ) -> Result<(), Broken> {
        let mut fold = Fold::new(records.first().map_or(0, |(offset, _)| *offset));
        let apply = |fold: &mut Fold, offset, value: &Bytes| {
            let value = read(fold, offset, value);
            fold.apply(offset, &value)
                .map(|_| ())
                .map_err(|error| (Rule::FoldResumes, error.to_string()))
        };
        for (offset, value) in records {
            apply(&mut fold, *offset, value)?;
        }
        let differs = |rule| move |found| (rule, found);
        self.same(&fold).map_err(differs(Rule::FoldResumes))?;
        let is_facts = |value: &&Bytes| RecordType::of(value) == Ok(RecordType::Progress);
        let facts = records.iter().map(|(_, value)| value).filter(is_facts);
        for (next, value) in (fold.next()..).zip(facts) {
            apply(&mut fold, next, value)?;
        }
        self.same(&fold).map_err(differs(Rule::FactsCommute))?;
        self.swapped(records).map_err(differs(Rule::FactsCommute))
    }
}
