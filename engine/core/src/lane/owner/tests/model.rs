//! The protocol as a whole: one partition, writers that repeat themselves,
//! owners that are replaced, and replaced owners that go on. Facts get lost
//! with whoever did not write them, and stand twice. Snapshots are written by
//! whoever likes; only the owner commits.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::lane::snapshot::{Assembly, Loaded, SnapshotRef};

/// Steps with trouble, before the world is left in peace.
const STEPS: u64 = 150;

struct World {
    rng: Rng,
    now: Timestamp,
    log: Vec<Bytes>,
    committed: Option<(u64, SnapshotRef)>,
    /// Nothing is parked twice, and whoever is replaced is dead.
    calm: bool,
    /// Deliveries of which the first success counts, by key: numbers, in order.
    in_order: BTreeMap<&'static str, Vec<u64>>,
    /// By number: how often it was delivered, given up or cancelled.
    ended: BTreeMap<u64, u32>,
    deliveries: u64,
    attempts: u64,
}

/// An instance that holds the partition, or believes it does.
struct Node {
    owner: Owner,
    claim: u64,
    /// With a shard, by offset, and the attempt it is for.
    out: BTreeMap<u64, u32>,
    burying: BTreeSet<u64>,
    moving: BTreeMap<u64, Owed>,
    ranges: Vec<(EndpointId, u64, u64)>,
    reads: Vec<(EndpointId, u64, u64)>,
    /// What this node knows to be at an end.
    ended: BTreeSet<u64>,
    /// The last attempt this node made.
    made: BTreeMap<u64, u32>,
}

/// One endpoint's first attempts wait for its backlog, another is ordered.
#[derive(Debug)]
struct Mixed;

const ORDERED: u8 = 2;
const KEYS: [&str; 3] = ["", "a", "b"];

impl Endpoints for Mixed {
    fn settings(&self, endpoint: EndpointId) -> Settings {
        Settings {
            ordered: endpoint == id(ORDERED),
            fifo: endpoint != id(0),
            in_flight: 1,
            ..ACTIVE
        }
    }
}

fn key_of(number: u64) -> &'static str {
    KEYS[usize::try_from(number / 3 % 3).unwrap()]
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            now: START,
            log: Vec::new(),
            committed: None,
            calm: seed.is_multiple_of(4),
            in_order: BTreeMap::new(),
            ended: BTreeMap::new(),
            deliveries: 0,
            attempts: 0,
        }
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.rng.below(100) < chance
    }

    fn append(&mut self, value: Bytes) -> u64 {
        self.log.push(value);
        u64::try_from(self.log.len() - 1).unwrap()
    }

    /// A writer parks a delivery, now and then one that stands there already.
    fn park(&mut self) {
        let number = if !self.calm && self.deliveries > 0 && self.percent(20) {
            self.rng.below(self.deliveries)
        } else {
            self.deliveries += 1;
            self.deliveries - 1
        };
        let endpoint = u8::try_from(number % 3).unwrap();
        let held = endpoint == ORDERED || self.percent(50);
        let due = if held {
            0
        } else {
            self.now.as_millis() + self.rng.below(15_000)
        };
        let span = if self.percent(10) {
            20_000
        } else {
            72 * 3_600_000
        };
        let deadline = self.now.after(Duration::from_millis(span));
        let value = deliver(number, endpoint, due, deadline);
        let mut record = proto::Deliver::from_value(&value).unwrap();
        record.ordering_key = Bytes::from_static(key_of(number).as_bytes());
        self.append(record.to_value());
    }

    fn node(&mut self) -> Node {
        let seed = self.rng.next_u64();
        let claim = self.append(claim());
        Node {
            owner: Owner::load(self.load(), Arc::new(Mixed), Rng::new(seed)),
            claim,
            out: BTreeMap::new(),
            burying: BTreeSet::new(),
            moving: BTreeMap::new(),
            ranges: Vec::new(),
            reads: Vec::new(),
            ended: BTreeSet::new(),
            made: BTreeMap::new(),
        }
    }

    /// The committed snapshot; without one, the log's start. Now and then it
    /// cannot be read.
    fn load(&mut self) -> Loaded {
        let lost = self.percent(10);
        let Some((upto, at)) = self.committed.filter(|_| !lost) else {
            return Loaded {
                fold: Fold::new(0),
                standings: Vec::new(),
            };
        };
        let mut assembly = Assembly::new(at);
        for (offset, value) in (0..).zip(&self.log).skip(at.part0.to_usize()) {
            if assembly.push(offset, value) {
                break;
            }
        }
        let loaded = assembly.load().unwrap();
        assert_eq!(loaded.fold.next(), upto);
        loaded
    }

    fn read(&mut self, node: &mut Node, most: u64) {
        for _ in 0..most {
            let offset = node.owner.fold().next();
            let Some(value) = self.log.get(usize::try_from(offset).unwrap()) else {
                return;
            };
            let before = node
                .owner
                .fold()
                .iter()
                .map(|(at, owed)| (at, owed.attempts));
            let before: BTreeMap<_, _> = before.collect();
            node.owner.record(offset, value, self.now).unwrap();
            for (at, owed) in node.owner.fold().iter() {
                assert!(
                    before
                        .get(&at)
                        .is_none_or(|attempts| owed.attempts >= *attempts)
                );
            }
            // The acknowledgement of the claim comes when it comes.
            if self.percent(50) || self.log.len() == usize::try_from(offset).unwrap() + 1 {
                node.owner.claimed(node.claim);
            }
        }
    }

    fn act(&mut self, node: &mut Node, actions: Vec<Action>) {
        assert!(
            actions.is_empty() || node.owner.fold().next() > node.claim,
            "before the own claim was read"
        );
        for action in actions {
            match action {
                Action::Dispatch { offset, owed } => {
                    self.untouched(node, offset);
                    assert!(owed.due <= self.now && self.now < owed.deadline);
                    assert!(node.owner.fold().is_owed(owed.endpoint, offset));
                    let attempt = owed.attempts + 1;
                    let last = node.made.get(&offset);
                    assert!(
                        last.is_none_or(|last| attempt > *last),
                        "attempts only rise"
                    );
                    if owed.endpoint == id(ORDERED) {
                        let key = key_of(self.number_at(offset));
                        let other = node.out.keys().find(|other| {
                            let number = self.number_at(**other);
                            number % 3 == u64::from(ORDERED) && key_of(number) == key
                        });
                        assert_eq!(other, None, "{offset}: its key is out");
                    }
                    node.out.insert(offset, attempt);
                }
                Action::Bury { offset, .. } => {
                    self.untouched(node, offset);
                    node.burying.insert(offset);
                }
                Action::Move { offset, owed } => {
                    self.untouched(node, offset);
                    node.moving.insert(offset, owed);
                }
                Action::BuryRange(range) => {
                    node.ranges.push((range.endpoint, range.from, range.to));
                }
                Action::Read { endpoint, from, to } => node.reads.push((endpoint, from, to)),
                Action::Snapshot { .. } | Action::Commit { .. } => {}
                Action::Operate(_) => panic!("nobody asked for anything"),
                Action::Gate { .. } | Action::Notify(_) => {}
                Action::Disable { .. } => panic!("nothing fails for so long"),
            }
        }
    }

    fn untouched(&self, node: &Node, offset: u64) {
        assert!(
            !node.ended.contains(&offset),
            "{offset} is at an end, as the node knows"
        );
        assert!(!node.out.contains_key(&offset), "{offset} is out");
        assert!(!node.burying.contains(&offset), "{offset} is being buried");
        assert!(
            !node.moving.contains_key(&offset),
            "{offset} is being moved"
        );
    }

    fn number_at(&self, offset: u64) -> u64 {
        let record = proto::DeliverHead::from_value(&self.log[offset.to_usize()]).unwrap();
        u64::from_be_bytes(*record.delivery_id.first_chunk().unwrap())
    }

    /// Reads that the owner asked for come back, whole or in part.
    fn pages(&mut self, node: &mut Node) {
        for (endpoint, from, to) in std::mem::take(&mut node.reads) {
            if self.percent(30) {
                node.reads.push((endpoint, from, to));
                continue;
            }
            let next = if self.percent(20) {
                from + self.rng.below(to - from)
            } else {
                to
            };
            let records: Vec<_> = (from..next)
                .map(|offset| (offset, self.log[offset.to_usize()].clone()))
                .collect();
            let records = records.iter().map(|(offset, value)| (*offset, value));
            let mut actions = Vec::new();
            node.owner
                .page(endpoint, next, records, self.now, &mut actions);
            self.act(node, actions);
        }
    }

    /// Somebody's snapshot; the owner's is committed.
    fn snapshot(&mut self, node: &Node, commits: bool) {
        if !node.owner.is_ready() {
            return;
        }
        let upto = node.owner.fold().next();
        let parts = node.owner.snapshot();
        for _ in 0..self.rng.below(3) {
            self.park();
        }
        let mut part0 = None;
        for part in &parts {
            let offset = self.append(part.clone());
            part0.get_or_insert(offset);
        }
        if commits {
            let at = SnapshotRef {
                owner_epoch: node.claim,
                part0: part0.unwrap(),
                parts: u32::try_from(parts.len()).unwrap(),
            };
            self.committed = Some((upto, at));
        }
    }

    fn end(&mut self, node: &mut Node, offset: u64) {
        let number = self.number_at(offset);
        *self.ended.entry(number).or_default() += 1;
        node.ended.insert(offset);
    }

    /// Some of what is out comes back, `healthy` percent of it well.
    fn come_back(&mut self, node: &mut Node, healthy: u64) {
        for (offset, attempt) in node.out.clone() {
            if !self.percent(50) {
                continue;
            }
            node.out.remove(&offset);
            let end = match self.rng.below(100) {
                0..5 => ReportEnd::Bounced,
                5 => {
                    // Its shard knows of no deletion either: a bounce.
                    ReportEnd::Cancelled
                }
                _ => {
                    self.attempts += 1;
                    node.made.insert(offset, attempt);
                    let well = self.percent(healthy);
                    if well {
                        self.end(node, offset);
                        self.succeed(offset);
                    }
                    let status = if well {
                        200
                    } else {
                        500 + u16::from(attempt % 2 == 0)
                    };
                    ReportEnd::Attempted(Outcome::response(status, None, self.now))
                }
            };
            let mut actions = Vec::new();
            node.owner.report(offset, end, self.now, &mut actions);
            self.act(node, actions);
        }
        for offset in node.burying.clone() {
            if self.percent(50) {
                node.burying.remove(&offset);
                self.end(node, offset);
                node.owner.buried(offset);
            }
        }
    }

    /// A first success of an ordered endpoint.
    fn succeed(&mut self, offset: u64) {
        let number = self.number_at(offset);
        if number % 3 == u64::from(ORDERED) {
            let order = self.in_order.entry(key_of(number)).or_default();
            if !order.contains(&number) {
                order.push(number);
            }
        }
    }

    fn others_come_back(&mut self, node: &mut Node) {
        for (endpoint, from, to) in std::mem::take(&mut node.ranges) {
            for offset in from..to {
                if node.owner.fold().is_owed(endpoint, offset) && self.is_held_by(endpoint, offset)
                {
                    self.end(node, offset);
                }
            }
            node.owner.range_buried(endpoint);
        }
        for (offset, owed) in std::mem::take(&mut node.moving) {
            let value = &self.log[offset.to_usize()];
            let mut record = proto::Deliver::from_value(value).unwrap();
            (record.due_ms, record.attempt) = (0, owed.attempts);
            self.append(record.to_value());
            node.ended.insert(offset);
            node.owner
                .moved(offset, u64::try_from(self.log.len() - 1).unwrap());
        }
    }

    fn is_held_by(&self, endpoint: EndpointId, offset: u64) -> bool {
        let head = Head::read(&self.log[offset.to_usize()]);
        head.is_ok_and(|head| head.is_held() && head.owed.endpoint == endpoint)
    }

    fn tick(&mut self, node: &mut Node) {
        let mut actions = Vec::new();
        node.owner.tick(self.now, &mut actions);
        self.act(node, actions);
    }

    fn flush(&mut self, node: &mut Node) {
        if let Some(progress) = node.owner.take_facts() {
            let value = progress.to_value();
            if self.percent(10) {
                self.append(value.clone());
            }
            self.append(value);
        }
    }

    /// A fold of the whole log, and one from the committed snapshot on.
    fn compare(&mut self) {
        let mut whole = Fold::new(0);
        self.fold_on(&mut whole);
        let mut tail = self.load().fold;
        self.fold_on(&mut tail);
        assert!(whole == tail, "{whole:?}\n{tail:?}");
    }

    /// Where a delivery stands in the lane, and what the lane says of it.
    fn story(&self, number: u64) -> Vec<(u64, Kind, u64)> {
        let mut places = Vec::new();
        let mut story = Vec::new();
        for (at, value) in (0..).zip(&self.log) {
            if proto::Deliver::from_value(value).is_ok() && self.number_at(at) == number {
                places.push(at);
                story.push((at, Kind::Unspecified, at));
            }
            let Ok(progress) = proto::Progress::from_value(value) else {
                continue;
            };
            for entry in progress.entries {
                let passed = entry.kind() == Kind::Passed
                    && entry.endpoint_id.first().map(|id| u64::from(*id)) == Some(number % 3)
                    && places.iter().any(|place| *place < entry.offset);
                if passed || places.contains(&entry.offset) {
                    story.push((at, entry.kind(), entry.offset));
                }
            }
        }
        story.truncate(12);
        story
    }

    fn fold_on(&self, fold: &mut Fold) {
        for (offset, value) in (0..).zip(&self.log).skip(fold.next().to_usize()) {
            fold.apply(offset, value).unwrap();
        }
    }

    fn trouble(&mut self) -> Node {
        let mut owner = self.node();
        let mut zombies: Vec<Node> = Vec::new();
        for step in 0..STEPS {
            let passed = self.rng.below(2_000);
            self.now = self.now.after(Duration::from_millis(passed));
            if self.percent(50) {
                self.park();
            }
            for node in std::iter::once(&mut owner).chain(&mut zombies) {
                if self.percent(80) {
                    let most = 1 + self.rng.below(6);
                    self.read(node, most);
                }
                self.tick(node);
                self.pages(node);
                self.come_back(node, 60);
                self.others_come_back(node);
                if self.percent(40) {
                    self.flush(node);
                    if self.percent(80) {
                        self.read(node, u64::MAX);
                    }
                }
            }
            if self.percent(6) {
                self.snapshot(&owner, true);
            }
            if let Some(zombie) = zombies.first()
                && self.percent(5)
            {
                self.snapshot(zombie, false);
            }
            if self.percent(4) {
                let before = std::mem::replace(&mut owner, self.node());
                if !self.calm && self.percent(50) {
                    zombies.push(before);
                }
            }
            if !zombies.is_empty() && self.percent(10) {
                zombies.remove(0);
            }
            if step % 10 == 0 {
                self.compare();
            }
        }
        owner
    }

    fn peace(&mut self, owner: &mut Node) {
        for _ in 0..2_000 {
            self.read(owner, u64::MAX);
            owner.owner.claimed(owner.claim);
            let due = owner.owner.next_due().unwrap_or(self.now);
            self.now = self.now.after(Duration::from_millis(1)).max(due);
            self.tick(owner);
            self.pages(owner);
            self.come_back(owner, 80);
            self.others_come_back(owner);
            self.flush(owner);
            if owner.owner.fold().is_empty() && owner.owner.is_drained() {
                break;
            }
        }
        self.read(owner, u64::MAX);
        assert!(
            owner.owner.fold().is_empty(),
            "{} still owed",
            owner.owner.fold().len()
        );
        assert!(owner.owner.is_drained() && owner.owner.overlay.is_empty());
        self.tick(owner);
        self.now = self.now.after(Duration::from_secs(2));
        self.tick(owner);
        assert!(
            owner
                .owner
                .lines
                .values()
                .all(|line| line.out == 0 && line.busy.is_empty())
        );
        assert_eq!((owner.owner.reads, owner.owner.moves), (0, 0));
        self.compare();
        for (key, order) in &self.in_order {
            assert!(!self.calm || order.is_sorted(), "{key}: {order:?}");
        }
        for number in 0..self.deliveries {
            assert!(
                self.ended.contains_key(&number),
                "{number} is lost: {:?}",
                self.story(number)
            );
        }
    }
}

#[test]
fn nothing_is_lost_whoever_owns_the_lane() {
    let (mut deliveries, mut attempts, mut ends) = (0, 0, 0);
    for seed in 0..400 {
        let run = || {
            let mut world = World::new(seed);
            let mut owner = world.trouble();
            world.peace(&mut owner);
            world
        };
        let world = std::panic::catch_unwind(run).unwrap_or_else(|_| panic!("seed {seed}"));
        deliveries += world.deliveries;
        attempts += world.attempts;
        ends += world
            .ended
            .values()
            .map(|&ends| u64::from(ends))
            .sum::<u64>();
    }
    assert!(
        deliveries > 20_000 && attempts > deliveries,
        "the model did nothing"
    );
    // Copies and zombies cost duplicates; the model must have made some.
    assert!(ends > deliveries);
}
