//! What operators do, and the worlds that only some seeds draw: each from
//! numbers of its own, so that a new class leaves the others as they are.

use posthaste_core::rng::Rng;
use serde::{Deserialize, Serialize};

use super::{Incident, IncidentKind, LogFaults, Plan, Script, below, pick};

/// What an operator wants of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// When, after the start.
    pub at_ms: u64,
    /// Of which endpoint.
    pub endpoint: usize,
    /// What.
    pub kind: OperationKind,
    /// The answer is lost and it is asked for again, with the same id, after so
    /// long; 0 where it is not.
    #[serde(default)]
    pub again_ms: u64,
}

/// What an operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// Everything before is cancelled.
    Cancel,
    /// So many of a hundred that are owed are.
    CancelSome(u64),
    /// Everything is cancelled before this part of what is owed, in percent.
    SkipTo(u64),
    /// Every timer falls due.
    RetryNow,
    /// So many of a hundred do.
    RetrySome(u64),
    /// One attempt, whatever the breaker says.
    Probe,
    /// Its dead letters are delivered again.
    Redrive,
    /// Its owner delivers its events again, so many a second; 0 for as fast as
    /// may be.
    Replay(u32),
    /// Its owner delivers its dead letters again.
    OwnerRedrives,
    /// Its owner cancels what is owed.
    OwnerCancels,
    /// Its owner lets every timer fall due.
    OwnerRetries,
    /// What its owner was asked for stands still.
    Halt,
    /// … and goes on.
    GoOn,
    /// Its gate is closed.
    Pause,
    /// … and opened.
    Resume,
}

impl Plan {
    /// When nothing happens any more that was not caused by something else.
    pub fn last_ms(&self) -> u64 {
        let operations = self.operations.iter();
        let last = operations.map(|one| one.at_ms + one.again_ms).max();
        self.faults_end_ms()
            .max(super::START_MS + last.unwrap_or(0))
    }
}

/// How much a lane partition may have; 0 for what the core says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Caps {
    /// Timers in all.
    pub timers: usize,
    /// … and of one endpoint.
    pub timers_per_endpoint: usize,
    /// Bytes of one part of a snapshot.
    pub part_bytes: usize,
}

impl Plan {
    /// Furthest a clock may have jumped, one way.
    pub fn jumps_ms(&self) -> u64 {
        let jump = |incident: &Incident| match incident.kind {
            IncidentKind::Jump(by) => by.unsigned_abs(),
            _ => 0,
        };
        self.incidents.iter().map(jump).sum()
    }

    /// What else this seed draws.
    pub(super) fn draw_more(&mut self) {
        let mut rng = Rng::new(self.seed ^ 0x0de5_1611);
        let r = &mut rng;
        self.draw_lines(r);
        self.draw_operations(r);
        self.shares = r.below(2) == 0;
        if r.below(3) == 0 {
            self.caps = Caps {
                timers: pick(r, &[0, 20, 60]),
                timers_per_endpoint: pick(r, &[0, 3, 15]),
                part_bytes: pick(r, &[0, 300, 2_000]),
            };
        }
        if r.below(5) == 0 {
            self.draw_jumps(r);
        }
        self.draw_owners(&mut Rng::new(self.seed ^ 0x0e_0a7e5));
        self.draw_ages(&mut Rng::new(self.seed ^ 0xa6e5));
        if r.below(5) == 0 {
            self.calm(r);
        }
    }

    /// Ordered and fifo endpoints, and policies.
    fn draw_lines(&mut self, r: &mut Rng) {
        self.policies = vec![vec![1, 2, 4], vec![30], vec![60; 12]];
        let (ordered, fifo, named) = (
            pick(r, &[0, 0, 20, 100]),
            pick(r, &[0, 0, 30]),
            pick(r, &[0, 0, 40]),
        );
        let span_ms = self.span_ms;
        for endpoint in &mut self.endpoints {
            endpoint.ordered = r.below(100) < ordered;
            endpoint.keys = pick(r, &[0, 1, 3, 20]);
            endpoint.fifo = r.below(100) < fifo;
            if r.below(100) < named {
                endpoint.policy = 1 + below(r, 3);
            }
            if endpoint.ordered && endpoint.keys > 1 && r.below(3) == 0 {
                endpoint.script = Script::BadKey(r.below(span_ms), pick(r, &[500, 404]));
            }
        }
    }

    fn draw_operations(&mut self, r: &mut Rng) {
        if r.below(2) == 0 {
            return;
        }
        for _ in 0..r.below(10) {
            let at_ms = r.below(self.span_ms + self.span_ms / 4);
            let endpoint = below(r, self.endpoints.len());
            let again_ms = pick(r, &[0, 1_000, self.span_ms / 4, self.span_ms / 2]);
            let mut push = |at_ms, kind| {
                self.operations.push(Operation {
                    at_ms,
                    endpoint,
                    kind,
                    again_ms,
                });
            };
            match r.below(8) {
                0 => push(at_ms, OperationKind::Cancel),
                1 => push(at_ms, OperationKind::CancelSome(pick(r, &[10, 60]))),
                2 => push(at_ms, OperationKind::SkipTo(pick(r, &[10, 60]))),
                3 => push(at_ms, OperationKind::RetryNow),
                4 => push(at_ms, OperationKind::RetrySome(pick(r, &[10, 60]))),
                5 => push(at_ms, OperationKind::Probe),
                // Days later, when there are any.
                6 => push(
                    at_ms + pick(r, &[0, 80]) * super::HOUR_MS,
                    OperationKind::Redrive,
                ),
                _ => {
                    push(at_ms, OperationKind::Pause);
                    let until = at_ms + pick(r, &[2_000, 30_000, 600_000]);
                    push(until, OperationKind::Resume);
                }
            }
        }
    }

    /// What owners are asked for.
    fn draw_owners(&mut self, r: &mut Rng) {
        if r.below(2) == 0 {
            return;
        }
        for _ in 0..1 + r.below(4) {
            let at_ms = r.below(self.span_ms + self.span_ms / 4);
            let endpoint = below(r, self.endpoints.len());
            let again_ms = pick(r, &[0, 0, 1_000, self.span_ms / 2]);
            let mut push = |at_ms, kind| {
                self.operations.push(Operation {
                    at_ms,
                    endpoint,
                    kind,
                    again_ms,
                });
            };
            match r.below(8) {
                0 => push(at_ms, OperationKind::OwnerCancels),
                1 => push(at_ms, OperationKind::OwnerRetries),
                2 => push(
                    at_ms + pick(r, &[0, 80]) * super::HOUR_MS,
                    OperationKind::OwnerRedrives,
                ),
                kind => {
                    push(at_ms, OperationKind::Replay(pick(r, &[0, 5, 20, 100])));
                    if kind < 5 {
                        let wait = 1 + r.below(5_000);
                        push(at_ms + wait, OperationKind::Halt);
                        push(at_ms + wait + r.below(20_000), OperationKind::GoOn);
                    }
                }
            }
        }
    }

    /// Endpoints that take no old events.
    fn draw_ages(&mut self, r: &mut Rng) {
        let aged = pick(r, &[0, 0, 0, 50]);
        for endpoint in &mut self.endpoints {
            let age_ms = pick(r, &[2_000, 30_000, 600_000, 5 * super::HOUR_MS]);
            endpoint.max_age_ms = if r.below(100) < aged { age_ms } else { 0 };
        }
    }

    fn draw_jumps(&mut self, r: &mut Rng) {
        for _ in 0..=r.below(3) {
            let by = pick(
                r,
                &[-3_600_000, -60_000, -2_000, 90_000, 1_800_000, 3_600_000],
            );
            self.incidents.push(Incident {
                at_ms: r.below(self.span_ms),
                node: below(r, self.nodes),
                kind: IncidentKind::Jump(by),
            });
        }
    }

    /// Nothing goes wrong but receivers: what must be quick must be quick.
    fn calm(&mut self, r: &mut Rng) {
        self.incidents.clear();
        self.changes.clear();
        self.operations.clear();
        self.log = LogFaults::default();
        self.bodies_max = 1 << 20;
        self.skew_ms = 0;
        self.caps = Caps::default();
        for endpoint in &mut self.endpoints {
            endpoint.max_age_ms = 0;
        }
        if r.below(2) == 0 {
            self.catch_up(r);
        }
    }

    /// Few endpoints, of which one is down for the first half: what it missed
    /// takes it seconds.
    fn catch_up(&mut self, r: &mut Rng) {
        let until = self.span_ms / 2;
        self.endpoints.truncate(3);
        self.events = self.events.clamp(200, 600);
        self.hot_percent = 90;
        self.gap_percent = 0;
        self.poison_permille = 0;
        let first = &mut self.endpoints[0];
        *first = super::Endpoint {
            max_in_flight: pick(r, &[2, 3]),
            script: Script::Back(until, 200),
            ..super::Endpoint::default()
        };
        self.shares = false;
    }
}
