//! The protocol as a whole: one partition, writers that repeat themselves,
//! owners that are replaced, and replaced owners that go on. Facts get lost
//! with whoever did not write them, and stand twice.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// Steps with trouble, before the world is left in peace.
const STEPS: u64 = 150;

struct World {
    rng: Rng,
    now: Timestamp,
    log: Vec<Bytes>,
    committed: u64,
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
    /// What this node knows to be at an end.
    ended: BTreeSet<u64>,
    /// The last attempt this node made.
    made: BTreeMap<u64, u32>,
}

fn number_of(owed: &Owed) -> u64 {
    u64::from_be_bytes(*owed.delivery.as_bytes().first_chunk().unwrap())
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            now: START,
            log: Vec::new(),
            committed: 0,
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
        let number = if self.deliveries > 0 && self.percent(20) {
            self.rng.below(self.deliveries)
        } else {
            self.deliveries += 1;
            self.deliveries - 1
        };
        let endpoint = u8::try_from(number % 3).unwrap();
        let due = match self.rng.below(3) {
            0 => 0,
            _ => self.now.as_millis() + self.rng.below(15_000),
        };
        let span = if self.percent(10) {
            20_000
        } else {
            72 * 3_600_000
        };
        let deadline = self.now.after(Duration::from_millis(span));
        self.append(deliver(number, endpoint, due, deadline));
    }

    fn node(&mut self) -> Node {
        let seed = self.rng.next_u64();
        let claim = self.append(claim());
        Node {
            owner: Owner::new(self.committed, Rng::new(seed)),
            claim,
            out: BTreeMap::new(),
            burying: BTreeSet::new(),
            ended: BTreeSet::new(),
            made: BTreeMap::new(),
        }
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
            let floor = node.owner.fold().floor();
            node.owner.record(offset, value).unwrap();
            for (at, owed) in node.owner.fold().iter() {
                assert!(
                    before
                        .get(&at)
                        .is_none_or(|attempts| owed.attempts >= *attempts)
                );
            }
            assert!(node.owner.fold().floor() >= floor, "the floor only rises");
            // The acknowledgement of the claim comes when it comes.
            if self.percent(50) || self.log.len() == usize::try_from(offset).unwrap() + 1 {
                node.owner.claimed(node.claim);
            }
        }
    }

    fn act(&mut self, node: &mut Node, actions: Vec<Action>) {
        for action in actions {
            let (Action::Dispatch { offset, .. } | Action::Bury { offset, .. }) = action;
            assert!(
                node.owner.fold().next() > node.claim,
                "before the own claim was read"
            );
            assert!(
                !node.ended.contains(&offset),
                "{offset} is at an end, as the node knows"
            );
            assert!(!node.out.contains_key(&offset), "{offset} is out");
            assert!(!node.burying.contains(&offset), "{offset} is being buried");
            match action {
                Action::Dispatch { offset, owed } => {
                    assert!(owed.due <= self.now && self.now < owed.deadline);
                    assert_eq!(node.owner.fold().owed(offset), Some(&owed));
                    let attempt = owed.attempts + 1;
                    let last = node.made.get(&offset);
                    assert!(
                        last.is_none_or(|last| attempt > *last),
                        "attempts only rise"
                    );
                    node.out.insert(offset, attempt);
                }
                Action::Bury { offset, .. } => {
                    node.burying.insert(offset);
                }
            }
        }
    }

    fn end(&mut self, node: &mut Node, offset: u64) {
        let value = &self.log[usize::try_from(offset).unwrap()];
        let record = proto::Deliver::from_value(value).unwrap();
        let number = u64::from_be_bytes(*record.delivery_id.first_chunk().unwrap());
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
                    self.end(node, offset);
                    ReportEnd::Cancelled
                }
                _ => {
                    self.attempts += 1;
                    node.made.insert(offset, attempt);
                    let well = self.percent(healthy);
                    if well {
                        self.end(node, offset);
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
            let policies = Policies::default();
            let rules = policies.rules("standard", false);
            node.owner
                .report(offset, end, rules, self.now, &mut actions);
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

    /// A fold from the log's start and one from the committed floor owe the
    /// same, but for further copies of what came to an end.
    fn compare(&self) {
        let whole = self.fold_from(0);
        let tail = self.fold_from(self.committed);
        let numbers = |fold: &Fold| -> BTreeSet<u64> {
            fold.iter().map(|(_, owed)| number_of(owed)).collect()
        };
        for number in numbers(&whole).symmetric_difference(&numbers(&tail)) {
            assert!(
                self.ended.contains_key(number),
                "{number} is owed on one side only"
            );
        }
        for (offset, owed) in whole.iter() {
            assert!(tail.owed(offset).is_none_or(|other| other == owed));
        }
    }

    fn fold_from(&self, from: u64) -> Fold {
        let mut fold = Fold::new(from);
        for (offset, value) in (0..).zip(&self.log).skip(usize::try_from(from).unwrap()) {
            fold.apply(offset, value).unwrap();
        }
        fold
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
                self.come_back(node, 60);
                if self.percent(40) {
                    self.flush(node);
                    if self.percent(80) {
                        self.read(node, u64::MAX);
                    }
                }
            }
            if self.percent(10) {
                let floor = owner.owner.fold().floor();
                assert!(floor >= self.committed, "a commit goes back");
                self.committed = floor;
            }
            if self.percent(4) {
                let before = std::mem::replace(&mut owner, self.node());
                if self.percent(50) {
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
        for _ in 0..400 {
            self.read(owner, u64::MAX);
            owner.owner.claimed(owner.claim);
            let due = owner.owner.next_due().unwrap_or(self.now);
            self.now = self.now.after(Duration::from_millis(1)).max(due);
            self.tick(owner);
            self.come_back(owner, 80);
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
        assert!(owner.owner.lines.is_empty());
        self.committed = owner.owner.fold().floor();
        self.compare();
        assert_eq!(self.committed, u64::try_from(self.log.len()).unwrap());
        for number in 0..self.deliveries {
            assert!(self.ended.contains_key(&number), "{number} is lost");
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
