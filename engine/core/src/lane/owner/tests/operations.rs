//! Operations: what they make, also when their owner is replaced in between.

use std::collections::BTreeMap;

use proptest::prelude::ProptestConfig;
use proptest::proptest;

use super::*;
use crate::id::OperationId;
use crate::limits::{OPERATION_HELD_MAX, OPERATION_KEPT, OPERATION_TOLD_EVERY, OPERATIONS_AT_ONCE};
use crate::operation::{Kind as Asked, Known, Operation, Progress, Range, State, Wanted};

const ENDPOINT: u8 = 2;
/// Of each range of the source, every third record is wanted.
const WANTED: u64 = 3;

fn operation(number: u8, kind: Asked, ranges: &[(u64, u64)]) -> Operation {
    let range = |&(from, to)| Range {
        topic: "events".to_owned(),
        partition: 0,
        from,
        to,
        ..Range::default()
    };
    Operation {
        id: OperationId::from_bytes([number; 16]),
        tenant: "acme".to_owned(),
        endpoint: id(ENDPOINT),
        kind,
        wanted: Wanted::Unspecified,
        actor: "local".to_owned(),
        created_at: START,
        ranges: ranges.iter().map(range).collect(),
        span: Default::default(),
        event_types: Vec::new(),
        filter: None,
        any: false,
        rate_per_second: 0,
        dead_cause: String::new(),
        offsets: Vec::new(),
        before: 0,
        version: 1,
    }
}

fn replay(ranges: &[(u64, u64)]) -> Operation {
    operation(7, Asked::Replay, ranges)
}

/// What an operation makes of the source's records from there on.
fn found(operation: &Operation, range: u32, from: u64, to: u64, most: u64) -> Found {
    let next = to.min(from + most);
    let made = |offset| proto::Deliver {
        delivery_id: vec![9; 16].into(),
        endpoint_id: vec![ENDPOINT; 16].into(),
        generation: operation.id.as_bytes().to_vec().into(),
        reason: proto::Reason::Replay.into(),
        deadline_ms: u64::MAX >> 20,
        range,
        range_offset: offset + 1,
        ..Default::default()
    };
    let wanted = (from..next).filter(|offset| offset % WANTED == 0);
    Found::Records {
        deliveries: wanted.map(made).collect(),
        next,
        scanned: next - from,
        skipped: 0,
    }
}

fn known(operation: &Operation, progress: Option<&Progress>) -> Known {
    Known {
        operation: Arc::new(operation.clone()),
        progress: progress.cloned().map(Arc::new),
    }
}

/// An owner whose source, log and table answer at once.
struct Desk {
    lane: Lane,
    operation: Operation,
    told: Vec<Progress>,
    reads: usize,
    forgotten: usize,
    /// What reads answer instead.
    instead: Option<Found>,
}

impl Desk {
    fn new(operation: Operation) -> Self {
        let mut desk = Self {
            lane: Lane::ready(Vec::new()),
            operation,
            told: Vec::new(),
            reads: 0,
            forgotten: 0,
            instead: None,
        };
        desk.ask();
        desk
    }

    fn ask(&mut self) {
        let last = self.told.last();
        let known = known(&self.operation, last);
        self.lane.owner.set_operations([known]);
    }

    fn want(&mut self, wanted: Wanted) {
        self.operation.wanted = wanted;
        self.ask();
        self.run(self.lane.now);
    }

    /// Goes on until it waits for a time; answers for which.
    fn run(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.lane.now = now;
        while self
            .lane
            .owner
            .operations
            .next_due()
            .is_some_and(|at| at <= now)
        {
            let mut actions = Vec::new();
            self.lane.owner.operate(now, &mut actions);
            for action in actions {
                let Action::Operate(task) = action else {
                    panic!("{action:?}");
                };
                self.perform(task);
            }
        }
        self.lane.owner.operations.next_due()
    }

    fn perform(&mut self, task: Task) {
        match task {
            Task::Read {
                id,
                range,
                from,
                to,
            } => {
                self.reads += 1;
                let read = found(&self.operation, range, from, to, 100);
                let read = self.instead.take().unwrap_or(read);
                self.lane.owner.operation_read(id, read, self.lane.now);
            }
            Task::Append { id, deliveries } => {
                for deliver in deliveries {
                    self.lane.append(deliver.to_value());
                }
                let last = self.lane.log.len() - 1;
                let last = u64::try_from(last).unwrap();
                self.lane.owner.operation_written(id, last);
            }
            Task::Command { id, command } => {
                self.lane.append(command.to_value());
                let last = self.lane.log.len() - 1;
                let last = u64::try_from(last).unwrap();
                self.lane.owner.operation_written(id, last);
            }
            Task::Tell { id, progress } => {
                self.told.push(progress);
                self.lane.owner.operation_told(id);
            }
            Task::Forget { .. } => self.forgotten += 1,
        }
    }

    fn last(&self) -> &Progress {
        self.told.last().unwrap()
    }

    fn made(&self) -> u64 {
        let made = self.lane.owner.fold().made(self.operation.id);
        made.unwrap().count()
    }

    /// The endpoint takes what it holds.
    fn take(&mut self, most: usize) {
        let Some(hold) = self.lane.owner.fold().hold_of(id(ENDPOINT)) else {
            return;
        };
        let to = hold.cursor() + u64::try_from(most).unwrap();
        let entry = Entry {
            kind: Kind::Passed.into(),
            offset: to,
            endpoint_id: vec![ENDPOINT; 16].into(),
            count: u64::try_from(most).unwrap(),
            ..Entry::default()
        };
        let progress = proto::Progress {
            owner_epoch: 0,
            entries: vec![entry],
        };
        self.lane.append(progress.to_value());
    }
}

#[test]
fn a_replay_makes_what_its_ranges_hold_in_turns_and_says_so() {
    let mut desk = Desk::new(replay(&[(10, 310), (5, 5), (0, 90)]));
    assert_eq!(desk.run(START), None);
    let progress = desk.last();
    assert_eq!(progress.state, State::Succeeded);
    assert_eq!((progress.count, progress.scanned), (130, 390));
    assert_eq!(progress.next, [310, 5, 90]);
    assert_eq!((progress.owner_epoch, desk.reads), (0, 4));
    let hold = desk.lane.owner.fold().hold_of(id(ENDPOINT)).unwrap();
    assert_eq!(hold.count(), 130);
    // The ranges take turns.
    let place = |value: &Bytes| {
        let deliver = proto::Deliver::from_value(value).ok()?;
        Some((deliver.range, deliver.range_offset, deliver.range_after))
    };
    let places: Vec<_> = desk.lane.log.iter().filter_map(place).collect();
    assert_eq!(places[..2], [(0, 13, 0), (0, 16, 13)]);
    assert_eq!(places[32..34], [(0, 109, 106), (2, 1, 0)]);
    // Once the table shows the end it is kept for a while, then forgotten.
    desk.ask();
    let due = desk.run(START).unwrap();
    assert_eq!(due, START.after(OPERATION_KEPT));
    desk.run(due);
    assert_eq!(desk.forgotten, 1);
}

#[test]
fn a_pause_stops_it_and_a_cancel_ends_it() {
    let slow = Operation {
        rate_per_second: 10,
        ..replay(&[(0, 300)])
    };
    let mut desk = Desk::new(slow);
    let due = desk.run(START).unwrap();
    assert_eq!(desk.made(), 2);
    desk.run(due);
    desk.want(Wanted::Pause);
    assert_eq!((desk.last().state, desk.last().count), (State::Paused, 3));
    assert_eq!(desk.run(later(60_000)), None);
    desk.want(Wanted::Unspecified);
    assert_eq!(desk.last().state, State::Running);
    let mut now = later(60_000);
    while desk.made() < 20 {
        now = desk.run(now).unwrap();
    }
    let took = now.since(later(60_000)).as_millis();
    assert!((1_400..=1_700).contains(&took), "{took}");
    desk.want(Wanted::Cancel);
    let (made, last) = (desk.made(), desk.last());
    assert_eq!((last.state, last.count), (State::Cancelled, made));
    assert_eq!(desk.run(later(90_000)), None);
    assert_eq!(desk.made(), made);
}

#[test]
fn it_waits_for_the_endpoint_to_take_what_is_held() {
    let mut desk = Desk::new(replay(&[(0, 30_000)]));
    let due = desk.run(START).unwrap();
    let held = |desk: &Desk| {
        desk.lane
            .owner
            .fold()
            .hold_of(id(ENDPOINT))
            .unwrap()
            .count()
    };
    assert_eq!(held(&desk), OPERATION_HELD_MAX);
    assert!(due.since(START).as_millis() <= 200);
    // It says why, and keeps nothing in memory.
    desk.run(START.after(OPERATION_TOLD_EVERY));
    let detail = &desk.last().detail;
    let wanted = "waits: the endpoint has yet to take what is held for it";
    assert_eq!(detail, wanted);
    desk.take(1_000);
    desk.run(later(5_000));
    assert_eq!(held(&desk), OPERATION_HELD_MAX - 1_000);
    desk.take(1_100);
    desk.run(later(6_000));
    assert_eq!(held(&desk), OPERATION_HELD_MAX);
    for second in 7..20 {
        desk.take(3_000);
        desk.run(later(second * 1_000));
    }
    assert_eq!(
        (desk.last().state, desk.last().count),
        (State::Succeeded, 10_000)
    );
    assert_eq!(desk.last().detail, "");
}

#[test]
fn nothing_is_made_for_an_endpoint_that_takes_nothing() {
    let disabled = Settings {
        standing: Standing::Disabled,
        ..ACTIVE
    };
    let paused = Settings {
        gate: (GateState::Paused, START),
        ..ACTIVE
    };
    for (settings, why) in [(disabled, "disabled"), (paused, "paused")] {
        let mut desk = Desk::new(replay(&[(0, 90)]));
        desk.lane.settings(ENDPOINT, settings);
        // Nothing but a change of the endpoint lets it go on.
        assert_eq!(desk.run(START), None);
        let detail = format!("waits: the endpoint is {why}");
        assert_eq!((desk.last().count, &desk.last().detail), (0, &detail));
        desk.lane.settings(ENDPOINT, ACTIVE);
        desk.run(later(1_000));
        let last = desk.last();
        assert_eq!(
            (last.state, last.count, &*last.detail),
            (State::Succeeded, 30, "")
        );
    }
}

#[test]
fn a_source_is_read_again_and_what_it_has_lost_is_said() {
    let mut desk = Desk::new(replay(&[(0, 90)]));
    desk.instead = Some(Found::Unreadable);
    let due = desk.run(START).unwrap();
    assert_eq!(due, later(100));
    desk.instead = Some(Found::Unreadable);
    assert_eq!(desk.run(due), Some(later(300)));
    desk.instead = Some(Found::Passed(30));
    desk.run(later(300));
    let last = desk.last();
    assert_eq!(
        (last.state, last.count, last.skipped),
        (State::Succeeded, 20, 30)
    );
    assert_eq!(last.detail, "30 records are no longer in the log");
    let mut desk = Desk::new(replay(&[(0, 90)]));
    desk.instead = Some(Found::Never("no such topic".to_owned()));
    desk.run(START);
    assert_eq!(desk.last().state, State::Failed);
    assert_eq!(desk.last().detail, "no such topic");
}

#[test]
fn an_endpoint_that_is_gone_ends_it() {
    for (standing, wait) in [(Standing::Deleted, 0), (Standing::Unknown, 60_000)] {
        let mut desk = Desk::new(replay(&[(0, 90)]));
        let gone = Settings { standing, ..ACTIVE };
        desk.lane.settings(ENDPOINT, gone);
        desk.run(later(wait));
        assert_eq!(desk.last().state, State::Failed, "{standing:?}");
        assert_eq!(desk.last().count, 0);
    }
}

#[test]
fn commands_end_with_what_they_came_to_whoever_reads_them() {
    for (kind, offsets, before, wanted) in [
        (Asked::Cancel, vec![], 2, 2),
        (Asked::Cancel, vec![], 0, 0),
        (Asked::Cancel, vec![0, 2], 0, 2),
        (Asked::RetryNow, vec![], 0, 3),
        (Asked::RetryNow, vec![1], 0, 1),
        (Asked::Probe, vec![], 0, 0),
    ] {
        let owed = (0..3).map(|n| deliver(n, ENDPOINT, 9_999_999_999_999, later(99_999)));
        let asked = Operation {
            offsets,
            before,
            ..operation(7, kind, &[])
        };
        let mut desk = Desk::new(asked);
        desk.lane = Lane::ready(owed.collect());
        desk.ask();
        desk.run(START);
        let last = desk.last();
        assert_eq!(
            (last.state, last.count),
            (State::Succeeded, wanted),
            "{kind:?}"
        );
        // A successor to whom nobody said so reads the command, and writes none.
        let log = desk.lane.log.clone();
        let records = log.len();
        desk.lane = Lane::ready(log);
        desk.told.clear();
        desk.ask();
        desk.run(START);
        assert_eq!(
            (desk.last().state, desk.last().count),
            (State::Succeeded, wanted)
        );
        assert_eq!(desk.lane.log.len(), records + 1, "its claim alone");
    }
}

#[test]
fn so_many_are_carried_out_at_once() {
    let mut lane = Lane::ready(Vec::new());
    let all = (1..=OPERATIONS_AT_ONCE + 2).map(|number| {
        let number = u8::try_from(number).unwrap();
        known(&operation(number, Asked::Replay, &[(0, 30)]), None)
    });
    lane.owner.set_operations(all);
    let mut actions = Vec::new();
    lane.owner.operate(START, &mut actions);
    let reading = |action: &Action| match action {
        Action::Operate(Task::Read { id, .. }) => Some(*id),
        _ => None,
    };
    let mut reading: Vec<_> = actions.iter().filter_map(reading).collect();
    assert_eq!(reading.len(), OPERATIONS_AT_ONCE);
    let first = reading.remove(0);
    lane.owner.operation_read(first, Found::Unreadable, START);
    actions.clear();
    lane.owner.operate(START, &mut actions);
    let started = actions
        .iter()
        .filter(|action| matches!(action, Action::Operate(Task::Read { .. })));
    assert_eq!(started.count(), 1);
}

/// A node that takes its time.
struct Node {
    owner: Owner,
    claim: u64,
    tasks: Vec<Task>,
}

/// Owners of one lane that come, go, and stay although they were replaced.
struct World {
    rng: Rng,
    now: Timestamp,
    log: Vec<Bytes>,
    saved: Option<(u64, Vec<Bytes>)>,
    operation: Operation,
    progress: Option<Progress>,
}

impl World {
    fn append(&mut self, value: Bytes) -> u64 {
        self.log.push(value);
        u64::try_from(self.log.len() - 1).unwrap()
    }

    fn node(&mut self) -> Node {
        let claim = self.append(claim());
        let world = Arc::new(super::World::default());
        let loaded = match self.saved.take() {
            Some((part0, parts)) => {
                let first = proto::Snapshot::from_value(&parts[0]).unwrap();
                let mut assembly =
                    crate::lane::snapshot::Assembly::new(crate::lane::snapshot::SnapshotRef {
                        owner_epoch: first.owner_epoch,
                        part0,
                        parts: first.parts,
                    });
                for (offset, part) in (part0..).zip(&parts) {
                    assembly.push(offset, part);
                }
                assembly.load().unwrap()
            }
            None => Loaded {
                fold: Fold::new(0),
                standings: Vec::new(),
            },
        };
        let mut owner = Owner::load(loaded, world, Rng::new(1));
        owner.set_operations([known(&self.operation, self.progress.as_ref())]);
        owner.claimed(claim);
        Node {
            owner,
            claim,
            tasks: Vec::new(),
        }
    }

    fn step(&mut self, node: &mut Node) {
        match self.rng.below(4) {
            0 => {
                for _ in 0..self.rng.below(20) {
                    let offset = node.owner.fold().next();
                    let Some(value) = self.log.get(offset.to_usize()) else {
                        break;
                    };
                    node.owner.record(offset, value, self.now).unwrap();
                }
            }
            1 => {
                let mut actions = Vec::new();
                node.owner.operate(self.now, &mut actions);
                for action in actions {
                    if let Action::Operate(task) = action {
                        node.tasks.push(task);
                    }
                }
            }
            2 if !node.tasks.is_empty() => {
                let place = self.rng.below(u64::try_from(node.tasks.len()).unwrap());
                let task = node.tasks.swap_remove(place.to_usize());
                self.perform(node, task);
            }
            _ => self.now = self.now.after(Duration::from_millis(self.rng.below(300))),
        }
    }

    fn perform(&mut self, node: &mut Node, task: Task) {
        match task {
            Task::Read {
                id,
                range,
                from,
                to,
            } => {
                let most = 1 + self.rng.below(40);
                let read = match self.rng.below(10) {
                    0 => Found::Unreadable,
                    _ => found(&self.operation, range, from, to, most),
                };
                node.owner.operation_read(id, read, self.now);
            }
            Task::Append { id, deliveries } => {
                // Some are not acknowledged, though they may stand: again, with
                // all behind them.
                let mut rest = &deliveries[..];
                let mut last = 0;
                while !rest.is_empty() {
                    let mut done = 0;
                    let mut broken = false;
                    for deliver in rest {
                        let (stands, heard) = match self.rng.below(12) {
                            0 => (false, false),
                            1 => (true, false),
                            _ => (true, true),
                        };
                        if stands {
                            last = self.append(deliver.to_value());
                        }
                        broken |= !heard;
                        done += usize::from(!broken);
                    }
                    rest = &rest[done..];
                }
                node.owner.operation_written(id, last);
            }
            Task::Tell { id, progress } => {
                let newer =
                    |last: &Progress| !last.is_ended() && last.owner_epoch <= progress.owner_epoch;
                if self.progress.as_ref().is_none_or(newer) {
                    self.progress = Some(progress);
                    let now = known(&self.operation, self.progress.as_ref());
                    node.owner.set_operations([now]);
                }
                node.owner.operation_told(id);
            }
            Task::Command { .. } | Task::Forget { .. } => panic!("{task:?}"),
        }
    }

    /// Each wanted record is made once, and the count is that.
    fn judge(&self) {
        let mut fold = Fold::new(0);
        let (mut made, mut copies) = (BTreeMap::new(), Vec::new());
        for (offset, value) in (0..).zip(&self.log) {
            match fold.apply(offset, value).unwrap() {
                Change::Held(_) => {
                    let deliver = proto::Deliver::from_value(value).unwrap();
                    let place = (deliver.range, deliver.range_offset - 1);
                    *made.entry(place).or_insert(0) += 1;
                }
                Change::Duplicate => copies.push(offset),
                _ => {}
            }
        }
        // None of them is found where what is held is read.
        let endpoint = id(ENDPOINT);
        assert!(copies.iter().all(|&copy| !fold.is_owed(endpoint, copy)));
        let ranges = (0..).zip(&self.operation.ranges);
        let wanted = ranges.flat_map(|(number, range)| {
            let offsets = (range.from..range.to).filter(|offset| offset % WANTED == 0);
            offsets.map(move |offset| ((number, offset), 1))
        });
        let wanted: BTreeMap<_, _> = wanted.collect();
        assert_eq!(made, wanted);
        let progress = self.progress.as_ref().unwrap();
        assert_eq!(progress.state, State::Succeeded);
        assert_eq!(progress.count, u64::try_from(wanted.len()).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn each_record_is_made_once_whoever_owns_the_lane(seed: u64) {
        let mut world = World {
            rng: Rng::new(seed),
            now: START,
            log: Vec::new(),
            saved: None,
            operation: replay(&[(3, 120), (0, 0), (50, 130)]),
            progress: None,
        };
        let mut nodes = vec![world.node()];
        for step in 0..20_000 {
            if world.progress.as_ref().is_some_and(Progress::is_ended) {
                break;
            }
            let newest = nodes.len() - 1;
            let place = world.rng.below(u64::try_from(nodes.len()).unwrap()).to_usize();
            match world.rng.below(400) {
                // The oldest dies.
                0 if newest > 0 => drop(nodes.remove(0)),
                // Another takes over, and does not end the one before it.
                1 | 2 if step < 15_000 => {
                    let node = world.node();
                    nodes.push(node);
                }
                3..8 if nodes[newest].owner.is_ready() => {
                    let parts = nodes[newest].owner.snapshot();
                    let part0 = parts.iter().map(|part| world.append(part.clone()));
                    let part0 = part0.collect::<Vec<_>>()[0];
                    assert!(part0 > nodes[newest].claim);
                    world.saved = Some((part0, parts));
                }
                _ => world.step(&mut nodes[place]),
            }
        }
        world.judge();
    }
}
