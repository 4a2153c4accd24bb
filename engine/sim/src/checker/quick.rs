//! What must be quick: healthy endpoints beside sick ones, a backlog whose
//! endpoint is back, and snapshots behind the lane's end.
//!
//! The first two hold in calm worlds only, where nothing is wrong but
//! receivers: everywhere else their bounds would have to be so wide that
//! nothing could break them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use posthaste_core::limits::SNAPSHOT_EVERY;

use super::sources::Key;
use super::{Checker, Rule};
use crate::plan::{Endpoint, IncidentKind, LogFaults, Plan, START_MS, Script};
use crate::seen::Seen;

/// A healthy receiver is served as if it were alone and took one at a time, and
/// so long after at most: to start, to be read, and to take a detour.
const SLACK_MS: u64 = 5_000;
/// … each with so much for what the node does.
const EACH_MS: u64 = 30;
/// With longer bursts nobody knows whose turn it is.
const BURST_MAX: usize = 20;
/// Of a hundred deliveries, so many may be later (the 99th percentile).
const LATE_PERCENT: u64 = 1;
/// A window is open again within so long after the first success.
const RAMP_MS: u64 = 2_000;
/// With fewer owed for each attempt at once, the end of a backlog is near.
const DEEP: usize = 8;
/// A drain shorter than this says nothing.
const DRAIN_MIN_MS: u64 = 3_000;
/// Of the limit, in percent, so much is used while there is a backlog.
const DRAIN_PERCENT: u64 = 90;
/// Beside its interval a snapshot has time to be written and committed, all of it
/// repeated where the log refuses.
const TAIL_SLACK_MS: u64 = 60_000;

/// An account of times.
#[derive(Debug, Default)]
pub(super) struct Quick {
    calm: bool,
    healthy: Vec<Option<Healthy>>,
    /// When each is due, at the latest.
    due: BTreeMap<Key, u64>,
    served: u64,
    late: u64,
    latest: Option<(Key, u64)>,
    drains: Vec<Option<Drain>>,
    tails: Vec<Tail>,
}

/// A receiver that takes everything within so long.
#[derive(Debug)]
struct Healthy {
    takes_ms: u64,
    free_at: u64,
}

/// An endpoint that was down and has something to catch up.
#[derive(Debug, Default)]
struct Drain {
    limit: u64,
    owed: BTreeSet<Key>,
    in_flight: u64,
    /// Since the window is open again.
    from_ms: Option<u64>,
    at_ms: u64,
    /// Milliseconds times attempts in flight.
    used: u64,
    over: bool,
}

/// What stands in a lane partition and in no committed snapshot: where, and
/// since when.
#[derive(Debug, Default)]
struct Tail {
    news: VecDeque<(u64, u64)>,
    /// Before, nobody could have written one.
    since_ms: u64,
}

impl Tail {
    /// While the log refuses, a snapshot of many parts may never get through.
    fn new(plan: &Plan) -> Self {
        let refuses = plan.log.fail_permille
            + plan.log.unknown_permille
            + plan.log.commit_fail_permille
            + plan.log.commit_slow_permille;
        Self {
            news: VecDeque::new(),
            since_ms: if refuses > 0 { plan.faults_end_ms() } else { 0 },
        }
    }
}

impl Quick {
    pub(super) fn new(plan: &Plan) -> Self {
        let calm = plan.incidents.is_empty()
            && plan.changes.is_empty()
            && plan.operations.is_empty()
            && plan.log == LogFaults::default()
            && plan.skew_ms == 0;
        // Of a long burst, which is spread over partitions, the first may be last.
        let in_turn = calm && plan.burst <= BURST_MAX;
        let healthy = |endpoint: &Endpoint| match endpoint.script {
            Script::Healthy(takes_ms) if in_turn => Some(takes_ms),
            Script::BadKey(..) if in_turn => Some(20),
            _ => None,
        };
        let healthy = |endpoint| {
            healthy(endpoint).map(|takes_ms| Healthy {
                takes_ms: takes_ms + EACH_MS,
                free_at: START_MS,
            })
        };
        let drain = |endpoint: &Endpoint| {
            let back = matches!(endpoint.script, Script::Back(..)) && calm;
            back.then(|| Drain {
                limit: u64::from(endpoint.max_in_flight),
                ..Drain::default()
            })
        };
        Self {
            calm,
            healthy: plan.endpoints.iter().map(healthy).collect(),
            drains: plan.endpoints.iter().map(drain).collect(),
            tails: (0..plan.lane_partitions).map(|_| Tail::new(plan)).collect(),
            ..Self::default()
        }
    }
}

impl Checker {
    /// An event was published. `first`: whether it is of an endpoint's first
    /// ordering key.
    pub fn published(
        &mut self,
        partition: usize,
        event: std::sync::Arc<posthaste_core::event::Event>,
        (tenant, kind): (usize, usize),
        first: impl Fn(usize) -> bool,
    ) {
        if self.quick.calm {
            for endpoint in self.sources.wanting(tenant, kind).to_vec() {
                let key = Key::of(&event.origin, endpoint);
                self.wanted(key, first(endpoint));
            }
        }
        self.sources.published(partition, event, tenant, kind);
    }

    /// Something was published for an endpoint. `bad`: of a key whose attempts
    /// may fail.
    fn wanted(&mut self, key: Key, bad: bool) {
        if let Some(healthy) = self.quick.healthy[key.endpoint].as_mut().filter(|_| !bad) {
            healthy.free_at = healthy.free_at.max(self.now_ms) + healthy.takes_ms;
            self.quick.due.insert(key, healthy.free_at + SLACK_MS);
        }
    }

    /// Its receiver took it.
    pub(super) fn served(&mut self, key: Key) {
        let Some(due) = self.quick.due.remove(&key) else {
            return;
        };
        self.quick.served += 1;
        if self.now_ms > due {
            self.quick.late += 1;
            self.quick.latest = Some((key, self.now_ms - due));
        }
    }

    /// A shard takes the fault to be on its own side, and uses a tenth of its
    /// slots: nobody is served as usual.
    pub fn suspects_itself(&mut self) {
        self.quick.due.clear();
        self.quick.late = 0;
        self.quick.calm = false;
    }

    /// Faults have ended: who was healthy all the time has everything that was
    /// due by now, but for one in a hundred.
    pub fn healed(&mut self) {
        let now_ms = self.now_ms;
        let quick = &mut self.quick;
        let overdue = quick.due.iter().filter(|(_, due)| **due < now_ms);
        let (mut all, mut late, mut latest) = (quick.served, quick.late, quick.latest);
        for (&key, &due) in overdue {
            all += 1;
            late += 1;
            latest = Some((key, now_ms - due));
        }
        if quick.calm && quick.served > 0 {
            self.seen.note(Seen::ServedQuickly);
        }
        if late > 0 && late * 100 > all * LATE_PERCENT && self.quick.calm {
            let found = format!("{late} of {all} are late, {latest:?} ms");
            self.broken(Rule::HealthyQuick, found);
        }
    }

    /// A delivery is held for its endpoint, or needs nothing more.
    pub(super) fn backlog(&mut self, key: Key, more: bool) {
        self.drain(key.endpoint, |drain| {
            match more {
                true => drain.owed.insert(key),
                false => drain.owed.remove(&key),
            };
        });
    }

    /// An attempt at an endpoint begins, or ends, with what.
    pub(super) fn flies(&mut self, endpoint: usize, begins: bool, delivered: bool) {
        let now_ms = self.now_ms;
        self.drain(endpoint, |drain| {
            drain.in_flight = match begins {
                true => drain.in_flight + 1,
                false => drain.in_flight.saturating_sub(1),
            };
            if delivered && drain.from_ms.is_none() {
                drain.from_ms = Some(now_ms + RAMP_MS);
            }
        });
    }

    /// Time went on at an endpoint that catches up: whether it gets what it can
    /// take is judged where its backlog ends.
    fn drain(&mut self, endpoint: usize, change: impl FnOnce(&mut Drain)) {
        let now_ms = self.now_ms;
        let Some(drain) = self.quick.drains[endpoint].as_mut() else {
            return;
        };
        let mut judged = None;
        if let Some(from_ms) = drain.from_ms.filter(|_| !drain.over) {
            let deep = DEEP * usize::try_from(drain.limit).unwrap_or(usize::MAX);
            let since = drain.at_ms.max(from_ms);
            drain.used += drain.in_flight * now_ms.saturating_sub(since);
            if drain.owed.len() <= deep {
                drain.over = true;
                judged = Some((drain.used, drain.limit, now_ms.saturating_sub(from_ms)));
            }
        }
        drain.at_ms = now_ms;
        change(drain);
        let Some((used, limit, took_ms)) = judged.filter(|(.., took)| *took >= DRAIN_MIN_MS) else {
            return;
        };
        self.seen.note(Seen::CaughtUp);
        if self.quick.calm && used * 100 < limit * took_ms * DRAIN_PERCENT {
            let found = format!(
                "endpoint {endpoint} had {used} ms of attempts in {took_ms} ms, limit {limit}"
            );
            self.broken(Rule::DrainsFully, found);
        }
    }

    /// A lane partition has news.
    pub(super) fn tail_grows(&mut self, partition: usize, offset: u64) {
        let now_ms = self.now_ms;
        self.quick.tails[partition].news.push_back((offset, now_ms));
    }

    /// A snapshot of everything before is committed.
    pub(super) fn tail_cut(&mut self, partition: usize, upto: u64) {
        let news = &mut self.quick.tails[partition].news;
        while news.front().is_some_and(|(offset, _)| *offset < upto) {
            news.pop_front();
        }
    }

    /// Whoever is to write snapshots is another from now on.
    pub fn lane_taken(&mut self, partition: usize) {
        let tail = &mut self.quick.tails[partition];
        tail.since_ms = tail.since_ms.max(self.now_ms);
    }

    /// An owner hands out: what it read long ago stands in a snapshot.
    pub(super) fn tail(&mut self, partition: usize) {
        let tail = &self.quick.tails[partition];
        let Some(&(offset, at_ms)) = tail.news.front() else {
            return;
        };
        let every = u64::try_from(SNAPSHOT_EVERY.as_millis()).unwrap_or(u64::MAX);
        let most = tail.since_ms.max(at_ms) + every + TAIL_SLACK_MS + self.stands_ms;
        if self.now_ms > most {
            let old = self.now_ms - at_ms;
            let found = format!("lane {partition}/{offset} is in no snapshot after {old} ms");
            self.broken(Rule::TailBounded, found);
        }
    }

    /// In the end all news stand in a snapshot.
    pub fn tails_end(&mut self, partition: usize, late: bool) {
        let tail = &self.quick.tails[partition];
        if let Some((offset, _)) = tail.news.front().filter(|_| !late) {
            let found = format!("lane {partition}/{offset} is in no snapshot in the end");
            self.broken(Rule::TailBounded, found);
        }
    }
}

/// How long clocks and nodes may stand still, as far as they are concerned, and
/// what a slow log takes.
pub(super) fn stands_ms(plan: &Plan) -> u64 {
    let stands = plan.incidents.iter().map(|incident| match incident.kind {
        IncidentKind::Jump(by) => by.unsigned_abs(),
        IncidentKind::Pause(ms) | IncidentKind::Cut(ms) => ms,
        _ => 0,
    });
    stands.sum::<u64>() + (plan.log.ack_ms + plan.log.fetch_ms) * 20
}
