//! What one seed draws: the world, its faults and when they strike.
//!
//! Swarm configuration (Groce et al., "Swarm testing", ISSTA 2012): each seed
//! first draws which classes of fault are on, many of them not, so that rare
//! combinations are not averaged away. A plan is plain data: a scenario file is
//! one that was written down.

use posthaste_core::rng::Rng;
use serde::{Deserialize, Serialize};

mod operations;

pub use operations::{Caps, Operation, OperationKind};

/// Virtual time begins here, in milliseconds since the Unix epoch.
pub const START_MS: u64 = 1_700_000_000_000;
const HOUR_MS: u64 = 3_600_000;

/// A world before it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plan {
    /// Of everything that is drawn while it runs.
    pub seed: u64,
    /// Processes.
    pub nodes: usize,
    /// Shards of each.
    pub shards: usize,
    /// Partitions of the source topic.
    pub source_partitions: usize,
    /// Partitions of the lane.
    pub lane_partitions: usize,
    /// Tenants.
    pub tenants: usize,
    /// Event types.
    pub types: usize,
    /// Events published.
    pub events: usize,
    /// They are published, and faults strike, within this time.
    pub span_ms: u64,
    /// Most of them published at once.
    pub burst: usize,
    /// Share of events that go to the first tenant, in percent, besides its
    /// even part.
    pub hot_percent: u64,
    /// Share of source records after which the log has a hole, in percent.
    pub gap_percent: u64,
    /// Source records that cannot be read, in thousandths.
    pub poison_permille: u64,
    /// Furthest a node's clock is off.
    pub skew_ms: u64,
    /// Longest commit metadata the log takes, in characters.
    pub metadata_max: usize,
    /// Lane bodies a node keeps in memory.
    pub bodies_max: usize,
    /// How the log misbehaves.
    pub log: LogFaults,
    /// Where events go.
    pub endpoints: Vec<Endpoint>,
    /// What befalls nodes.
    pub incidents: Vec<Incident>,
    /// What happens to endpoints.
    pub changes: Vec<Change>,
    /// What operators do.
    pub operations: Vec<Operation>,
    /// Retry policies beside the standard one: gaps in seconds.
    pub policies: Vec<Vec<u64>>,
    /// First attempts keep to the node's part of a limit.
    pub shares: bool,
    /// How much a lane partition may have.
    pub caps: Caps,
}

/// How the log misbehaves, while faults last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogFaults {
    /// Longest acknowledgement of an append.
    pub ack_ms: u64,
    /// Longest fetch.
    pub fetch_ms: u64,
    /// Appends refused, in thousandths.
    pub fail_permille: u64,
    /// Appends stored but not acknowledged, in thousandths.
    pub unknown_permille: u64,
    /// Commits that fail, in thousandths.
    pub commit_fail_permille: u64,
    /// Commits that take seconds, in thousandths.
    pub commit_slow_permille: u64,
    /// Reads out of turn that fail, in thousandths.
    pub read_fail_permille: u64,
}

/// An endpoint and its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Endpoint {
    /// Whose.
    pub tenant: usize,
    /// What it wants.
    pub wants: Wants,
    /// Attempts at once.
    pub max_in_flight: u32,
    /// Every delivery goes through the lane.
    pub owned: bool,
    /// One attempt at a time per ordering key.
    pub ordered: bool,
    /// So many ordering keys; 0 for one line.
    pub keys: u64,
    /// First attempts wait until the backlog is delivered.
    pub fifo: bool,
    /// The standard retry policy, or the one of that number, from 1.
    pub policy: usize,
    /// How old an event may be; 0 for no bound.
    pub max_age_ms: u64,
    /// How its receiver behaves.
    pub script: Script,
}

/// What an endpoint wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wants {
    /// Everything, by no pattern.
    All,
    /// One type by its name.
    One(usize),
    /// Everything, by a pattern.
    Wild,
    /// Two patterns that both match everything: named once all the same.
    Twice,
}

/// How a receiver behaves until faults end; afterwards all but the last two
/// answer in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Script {
    /// Takes everything within so many milliseconds.
    Healthy(u64),
    /// Takes everything, but so late.
    Slow(u64),
    /// Answers this status to so many of a hundred.
    Flaky(u64, u16),
    /// Answers this status, or refuses connections for 0, from then to then.
    Down(u64, u64, u16),
    /// Does not answer from then to then.
    Hang(u64, u64),
    /// Takes so many of a hundred and breaks the connection.
    ResetAfter(u64),
    /// Good and bad in turn, so long each.
    Flapping(u64),
    /// Takes so many a second, answers 429 and that `Retry-After` to others.
    Limited(u64, u32),
    /// Answers 410 from then on.
    Gone(u64),
    /// Refuses connections until then, and takes everything within so long after.
    Back(u64, u64),
    /// From then on answers this status to the first ordering key.
    BadKey(u64, u16),
    /// Refuses connections for ever.
    Dead,
}

/// Something that befalls a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Incident {
    /// When, after the start.
    pub at_ms: u64,
    /// Which node; for an outage all.
    pub node: usize,
    /// What.
    pub kind: IncidentKind,
}

/// What befalls a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentKind {
    /// Dies at once and starts again after so long.
    Kill(u64),
    /// Stands still for so long.
    Pause(u64),
    /// Cannot reach the log for so long.
    Cut(u64),
    /// Stops gracefully and starts again after so long.
    Drain(u64),
    /// All nodes die and start again after so long.
    Outage(u64),
    /// The same, and the groups' offsets are gone by then.
    Amnesia(u64),
    /// Its clock goes forward or back by so many milliseconds.
    Jump(i64),
}

/// Something that happens to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// When, after the start.
    pub at_ms: u64,
    /// Which.
    pub endpoint: usize,
    /// What.
    pub kind: ChangeKind,
}

/// What happens to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It takes no deliveries.
    Disable,
    /// It takes them again.
    Enable,
    /// It is gone.
    Delete,
    /// So many attempts at once.
    Limit(u32),
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            seed: 0,
            nodes: 1,
            shards: 1,
            source_partitions: 2,
            lane_partitions: 2,
            tenants: 1,
            types: 1,
            events: 100,
            span_ms: 20_000,
            burst: 1,
            hot_percent: 0,
            gap_percent: 0,
            poison_permille: 0,
            skew_ms: 0,
            metadata_max: 4_096,
            bodies_max: 1 << 20,
            log: LogFaults::default(),
            endpoints: vec![Endpoint::default()],
            incidents: Vec::new(),
            changes: Vec::new(),
            operations: Vec::new(),
            policies: Vec::new(),
            shares: false,
            caps: Caps::default(),
        }
    }
}

impl Default for LogFaults {
    fn default() -> Self {
        Self {
            ack_ms: 10,
            fetch_ms: 5,
            fail_permille: 0,
            unknown_permille: 0,
            commit_fail_permille: 0,
            commit_slow_permille: 0,
            read_fail_permille: 0,
        }
    }
}

impl Default for Endpoint {
    fn default() -> Self {
        Self {
            tenant: 0,
            wants: Wants::All,
            max_in_flight: 10,
            owned: false,
            ordered: false,
            keys: 0,
            fifo: false,
            policy: 0,
            max_age_ms: 0,
            script: Script::Healthy(20),
        }
    }
}

impl Plan {
    /// The plan of a seed, of about `deliveries` deliveries.
    pub fn draw(seed: u64, deliveries: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x5eed_5eed_5eed_5eed);
        let r = &mut rng;
        let tenants = pick(r, &[1, 1, 2, 3, 8]);
        let types = pick(r, &[1, 2, 5]);
        let span_ms = pick(r, &[5_000, 20_000, 60_000, 600_000]);
        let mut plan = Self {
            seed,
            nodes: 1 + below(r, 5),
            shards: 1 + below(r, 3),
            source_partitions: 1 + below(r, 16),
            lane_partitions: pick(r, &[1, 2, 4, 8]),
            tenants,
            types,
            span_ms,
            burst: pick(r, &[1, 1, 20, 600]),
            hot_percent: pick(r, &[0, 0, 50, 90]),
            gap_percent: pick(r, &[0, 0, 1, 20]),
            poison_permille: pick(r, &[0, 0, 2, 30]),
            skew_ms: pick(r, &[0, 0, 50, 2_000]),
            metadata_max: pick(r, &[4_096, 4_096, 400, 60, 8]),
            bodies_max: pick(r, &[1 << 20, 1 << 20, 4_096, 0]),
            log: LogFaults::draw(r),
            ..Self::default()
        };
        let count: usize = pick(r, &[1, 2, 5, 5, 20, 20, 60, 300]);
        let sick = pick(r, &[0, 10, 50, 50, 100]);
        let owned = pick(r, &[0, 0, 10, 100]);
        plan.endpoints = (0..count)
            .map(|_| Endpoint::draw(r, &plan, sick, owned))
            .collect();
        let fan_out = u64::try_from(count.div_ceil(tenants)).unwrap_or(1);
        let events = (deliveries / 2 + r.below(deliveries)) / fan_out.max(1);
        plan.events = usize::try_from(events.clamp(4, 10_000)).unwrap_or(4);
        plan.draw_incidents(r);
        plan.draw_changes(r);
        plan.draw_more();
        plan
    }

    fn draw_incidents(&mut self, r: &mut Rng) {
        let on: Vec<bool> = (0..5).map(|_| r.below(2) == 0).collect();
        let quiet = r.below(4) == 0;
        for _ in 0..r.below(8) {
            let kind = match r.below(5) {
                0 if on[0] => IncidentKind::Kill(pick(r, &[100, 3_000, 30_000])),
                1 if on[1] => IncidentKind::Pause(pick(r, &[300, 8_000, 15_000, 60_000])),
                2 if on[2] => IncidentKind::Cut(pick(r, &[300, 8_000, 15_000, 60_000])),
                3 if on[3] => IncidentKind::Drain(pick(r, &[100, 5_000])),
                _ => continue,
            };
            self.incidents.push(Incident {
                at_ms: r.below(self.span_ms + self.span_ms / 4),
                node: below(r, self.nodes),
                kind,
            });
        }
        if quiet {
            self.incidents.clear();
        } else if on[4] && r.below(3) == 0 {
            let at_ms = r.below(self.span_ms);
            let hours = pick(r, &[1, 5, 20, 74]) * HOUR_MS;
            let kind = if r.below(2) == 0 {
                IncidentKind::Amnesia(pick(r, &[60_000, hours]))
            } else {
                IncidentKind::Outage(hours)
            };
            self.incidents.push(Incident {
                at_ms,
                node: 0,
                kind,
            });
        }
    }

    fn draw_changes(&mut self, r: &mut Rng) {
        if r.below(2) == 0 {
            return;
        }
        for _ in 0..r.below(6) {
            let kind = match r.below(5) {
                0 | 1 => ChangeKind::Disable,
                2 => ChangeKind::Enable,
                3 => ChangeKind::Delete,
                _ => ChangeKind::Limit(1 + u32::try_from(r.below(20)).unwrap_or(0)),
            };
            self.changes.push(Change {
                at_ms: r.below(self.span_ms),
                endpoint: below(r, self.endpoints.len()),
                kind,
            });
        }
    }

    /// When nothing new goes wrong any more.
    pub fn faults_end_ms(&self) -> u64 {
        let incidents = self.incidents.iter().map(Incident::end_ms).max();
        START_MS + self.span_ms.max(incidents.unwrap_or(0)) + 5_000
    }
}

impl Incident {
    /// When it is over, after the start.
    pub fn end_ms(&self) -> u64 {
        self.at_ms
            + match self.kind {
                IncidentKind::Kill(ms)
                | IncidentKind::Pause(ms)
                | IncidentKind::Cut(ms)
                | IncidentKind::Outage(ms)
                | IncidentKind::Amnesia(ms) => ms,
                IncidentKind::Drain(ms) => ms + 30_000,
                IncidentKind::Jump(_) => 0,
            }
    }
}

impl LogFaults {
    fn draw(r: &mut Rng) -> Self {
        Self {
            ack_ms: pick(r, &[2, 10, 100, 1_000]),
            fetch_ms: pick(r, &[2, 10, 100, 2_000]),
            fail_permille: pick(r, &[0, 0, 20, 200]),
            unknown_permille: pick(r, &[0, 0, 20, 200]),
            commit_fail_permille: pick(r, &[0, 0, 50, 500]),
            commit_slow_permille: pick(r, &[0, 0, 50, 300]),
            read_fail_permille: pick(r, &[0, 0, 100, 500]),
        }
    }
}

impl Endpoint {
    fn draw(r: &mut Rng, plan: &Plan, sick_percent: u64, owned_percent: u64) -> Self {
        let script = if r.below(100) < sick_percent {
            Script::draw(r, plan.span_ms)
        } else {
            Script::Healthy(pick(r, &[1, 5, 20, 50, 400]))
        };
        Self {
            tenant: below(r, plan.tenants),
            wants: match r.below(6) {
                0 | 1 => Wants::All,
                2 => Wants::Wild,
                3 => Wants::Twice,
                _ => Wants::One(below(r, plan.types)),
            },
            max_in_flight: pick(r, &[1, 2, 10, 10, 64]),
            owned: r.below(100) < owned_percent,
            script,
            ..Self::default()
        }
    }
}

impl Script {
    fn draw(r: &mut Rng, span_ms: u64) -> Self {
        let from = r.below(span_ms);
        let until = from + r.below(span_ms * 2);
        let status = pick(r, &[0, 400, 404, 500, 503, 301]);
        match r.below(11) {
            0 => Self::Slow(pick(r, &[900, 2_000, 9_000, 14_000])),
            1 | 2 => Self::Flaky(pick(r, &[5, 30, 80]), pick(r, &[500, 503, 404])),
            3 | 4 => Self::Down(from, until, status),
            5 => Self::Hang(from, until),
            6 => Self::ResetAfter(pick(r, &[5, 50])),
            7 => Self::Flapping(pick(r, &[500, 5_000, 40_000])),
            8 => Self::Limited(pick(r, &[1, 10, 50]), pick(r, &[0, 1, 60])),
            9 => Self::Gone(from),
            _ => Self::Dead,
        }
    }
}

/// A number below a bound.
pub fn below(r: &mut Rng, bound: usize) -> usize {
    usize::try_from(r.below(u64::try_from(bound).unwrap_or(u64::MAX))).unwrap_or(0)
}

fn pick<T: Copy>(r: &mut Rng, of: &[T]) -> T {
    of[below(r, of.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_its_seeds_and_reads_back() {
        for seed in 0..200 {
            let plan = Plan::draw(seed, 1_000);
            assert_eq!(plan, Plan::draw(seed, 1_000));
            let text = toml::to_string(&plan).unwrap();
            assert_eq!(toml::from_str::<Plan>(&text).unwrap(), plan, "{text}");
        }
    }

    #[test]
    fn many_seeds_leave_a_class_of_fault_out() {
        let plans: Vec<_> = (0..400).map(|seed| Plan::draw(seed, 1_000)).collect();
        let without = |test: fn(&Plan) -> bool| plans.iter().filter(|plan| test(plan)).count();
        assert!(without(|plan| plan.incidents.is_empty()) > 80);
        assert!(without(|plan| plan.log.fail_permille == 0) > 150);
        assert!(without(|plan| plan.changes.is_empty()) > 150);
    }
}
