//! From a plan that breaks a rule to a smaller one that breaks the same: faults
//! go first, then events, then nodes.

use crate::checker::{Rule, Violation};
use crate::plan::{Caps, LogFaults, OperationKind, Plan, Script};
use crate::plant::Plant;
use crate::world::run;

/// Runs spent on making one plan smaller.
const RUNS_MAX: usize = 400;

/// A smaller plan and what it breaks.
#[derive(Debug, Clone)]
pub struct Minimised {
    /// The plan.
    pub plan: Plan,
    /// What it breaks.
    pub violation: Violation,
    /// Runs it took.
    pub runs: usize,
}

struct Search {
    plan: Plan,
    plant: Option<Plant>,
    rule: Rule,
    violation: Violation,
    runs: usize,
}

/// Makes a plan smaller; `None` when it breaks nothing.
pub fn minimise(plan: &Plan, plant: Option<Plant>) -> Option<Minimised> {
    let violation = run(plan, plant).violation?;
    let mut search = Search {
        plan: plan.clone(),
        plant,
        rule: violation.rule,
        violation,
        runs: 1,
    };
    // One that goes may let another go.
    loop {
        let before = search.plan.clone();
        search.faults();
        search.events();
        search.nodes();
        if search.plan == before || search.runs >= RUNS_MAX {
            break;
        }
    }
    Some(Minimised {
        plan: search.plan,
        violation: search.violation,
        runs: search.runs,
    })
}

impl Search {
    /// Keeps a changed plan if it breaks the same rule.
    fn attempt(&mut self, change: impl FnOnce(&mut Plan)) -> bool {
        let mut plan = self.plan.clone();
        change(&mut plan);
        if plan == self.plan || self.runs >= RUNS_MAX {
            return false;
        }
        self.runs += 1;
        match run(&plan, self.plant).violation {
            Some(violation) if violation.rule == self.rule => {
                self.plan = plan;
                self.violation = violation;
                true
            }
            _ => false,
        }
    }

    fn faults(&mut self) {
        self.attempt(|plan| plan.incidents.clear());
        self.attempt(|plan| plan.changes.clear());
        for place in (0..self.plan.incidents.len()).rev() {
            self.attempt(|plan| {
                plan.incidents.remove(place);
            });
        }
        for place in (0..self.plan.changes.len()).rev() {
            self.attempt(|plan| {
                plan.changes.remove(place);
            });
        }
        self.attempt(|plan| plan.operations.clear());
        for place in (0..self.plan.operations.len()).rev() {
            // One that is paused for ever settles nothing.
            if self.plan.operations[place].kind != OperationKind::Resume {
                self.attempt(|plan| {
                    plan.operations.remove(place);
                });
            }
        }
        self.attempt(|plan| plan.caps = Caps::default());
        self.attempt(|plan| plan.shares = false);
        let calm = LogFaults::default();
        self.attempt(|plan| plan.log = calm);
        self.attempt(|plan| plan.log.fail_permille = 0);
        self.attempt(|plan| plan.log.unknown_permille = 0);
        self.attempt(|plan| plan.log.commit_fail_permille = 0);
        self.attempt(|plan| plan.log.commit_slow_permille = 0);
        self.attempt(|plan| plan.log.read_fail_permille = 0);
        self.attempt(|plan| plan.log.ack_ms = calm.ack_ms);
        self.attempt(|plan| plan.log.fetch_ms = calm.fetch_ms);
        self.attempt(|plan| plan.gap_percent = 0);
        self.attempt(|plan| plan.poison_permille = 0);
        self.attempt(|plan| plan.skew_ms = 0);
        self.attempt(|plan| plan.metadata_max = 4_096);
        self.attempt(|plan| plan.bodies_max = 1 << 20);
        self.attempt(|plan| heal(&mut plan.endpoints));
        for place in 0..self.plan.endpoints.len().min(40) {
            self.attempt(|plan| heal(&mut plan.endpoints[place..=place]));
            self.attempt(|plan| plan.endpoints[place].owned = false);
            self.attempt(|plan| plan.endpoints[place].ordered = false);
            self.attempt(|plan| plan.endpoints[place].fifo = false);
            self.attempt(|plan| plan.endpoints[place].policy = 0);
        }
    }

    fn events(&mut self) {
        while self.plan.events > 1 && self.attempt(|plan| plan.events = plan.events.div_ceil(2)) {}
        self.attempt(|plan| plan.events = plan.events.saturating_sub(1).max(1));
        self.attempt(|plan| plan.burst = 1);
        // From the end: what stays keeps its number.
        loop {
            let half = self.plan.endpoints.len().div_ceil(2);
            let fits = |plan: &Plan| {
                plan.changes.iter().all(|one| one.endpoint < half)
                    && plan.operations.iter().all(|one| one.endpoint < half)
            };
            let smaller = half < self.plan.endpoints.len() && fits(&self.plan);
            if !smaller || !self.attempt(|plan| plan.endpoints.truncate(half)) {
                break;
            }
        }
    }

    fn nodes(&mut self) {
        while self.plan.nodes > 1 {
            let fewer = self.plan.nodes - 1;
            let fewer_nodes = |plan: &mut Plan| {
                plan.nodes = fewer;
                plan.incidents.retain(|one| one.node < fewer);
            };
            if !self.attempt(fewer_nodes) {
                break;
            }
        }
        self.attempt(|plan| plan.shards = 1);
        self.attempt(|plan| plan.lane_partitions = 1);
        while self.plan.source_partitions > 1
            && self.attempt(|plan| plan.source_partitions = plan.source_partitions.div_ceil(2))
        {
        }
    }
}

fn heal(endpoints: &mut [crate::plan::Endpoint]) {
    for endpoint in endpoints {
        endpoint.script = Script::Healthy(20);
    }
}
