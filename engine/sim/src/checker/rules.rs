//! The rules: what each says, and where the design has it.

use std::fmt;

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Every delivery ends with the receiver, as a dead letter, or cancelled.
    NoLoss,
    /// Nothing is committed past an open delivery.
    CommitBelowOpen,
    /// Commits of one assignment do not go back.
    CommitMonotone,
    /// A commit carries a live assignment.
    CommitLive,
    /// Commit metadata says less than the truth or the truth.
    MetadataTrue,
    /// A fold that starts where it was committed owes what is owed.
    FoldResumes,
    /// A fold is the same with facts told twice, and with those of two owners the
    /// other way round.
    FactsCommute,
    /// Numbers of attempts rise, and none is skipped or made twice.
    NumbersRise,
    /// Nothing is handed out whose settlement was read.
    NothingAfterSettle,
    /// Nothing is attempted early, nor after its deadline.
    OnTime,
    /// Attempts at once to one endpoint stay within its limit.
    InFlight,
    /// Nothing is sent to an endpoint known as disabled or gone.
    NothingAfterCancel,
    /// Every bound of a shard and of a partition holds.
    Budgets,
    /// A position closes only when all its deliveries are settled.
    CloseSettled,
    /// Every attempt of a delivery carries the same event.
    SameEvent,
    /// Everything settles once faults have ended.
    AllSettles,
    /// Then all is committed, holes included, and nothing is in flight.
    LagZero,
    /// A lane record that says an attempt failed is about one that did.
    RetriesOnlyFailures,
    /// A receiver acknowledges a delivery twice only after a disruption.
    Duplicates,
    /// Retries are due when the schedule says.
    RetryTimes,
    /// Only attempts spend attempts.
    HeldSpendsNothing,
    /// Events reach their tenant's endpoints alone.
    Tenants,
    /// Exactly the endpoints that want an event are matched.
    Matching,
    /// Facts about deliveries are true.
    FactsTrue,
    /// Dead letters have the cause they name.
    DeadTrue,
    /// No attempt begins before the owner has read its own claim.
    ClaimFirst,
    /// Of one ordering key one attempt at a time, in the order of the lane.
    Ordered,
    /// Nobody sends past a gate.
    GateHolds,
    /// A fifo endpoint's gate stays closed until its backlog is drained.
    FifoDrains,
    /// What an operator cancelled is not attempted.
    CommandsHold,
    /// Sick endpoints cost healthy ones no time.
    HealthyQuick,
    /// An endpoint that is back catches up as fast as it may.
    DrainsFully,
    /// What was read long ago stands in a snapshot.
    TailBounded,
    /// What owners are asked for is done, and each delivery of it made once.
    Replays,
}

/// Each rule, its numbers in `delivery-log.md` 11 (K) and
/// `testing-and-overload.md` 5.4 (T), and its name.
pub const RULES: [(Rule, &str, &str); 34] = [
    (Rule::NoLoss, "K1 T1", "no delivery is lost"),
    (
        Rule::CommitBelowOpen,
        "K2 T2",
        "no commit past an open delivery",
    ),
    (
        Rule::CommitMonotone,
        "K3 T3",
        "commits of one assignment do not go back",
    ),
    (
        Rule::CommitLive,
        "K4 T3",
        "a commit carries a live assignment",
    ),
    (
        Rule::MetadataTrue,
        "K5 K6 T5",
        "commit metadata is a part of the truth",
    ),
    (
        Rule::FoldResumes,
        "K7 T6",
        "a resumed fold owes what is owed",
    ),
    (
        Rule::FactsCommute,
        "K8 T6",
        "facts told twice or in another order change nothing",
    ),
    (
        Rule::NumbersRise,
        "K9 T7",
        "numbers of attempts rise one by one",
    ),
    (
        Rule::NothingAfterSettle,
        "K10 T9",
        "nothing is handed out once its end was read",
    ),
    (
        Rule::OnTime,
        "K11 T9 T15",
        "no attempt early or after its deadline",
    ),
    (
        Rule::InFlight,
        "K13 T10",
        "attempts at once stay within the limit",
    ),
    (
        Rule::NothingAfterCancel,
        "K15 T9",
        "nothing is sent to an endpoint known as gone",
    ),
    (Rule::Budgets, "K16 T21", "every bound holds"),
    (
        Rule::CloseSettled,
        "K17 T4",
        "a position closes only when settled",
    ),
    (
        Rule::SameEvent,
        "K19 T27",
        "id and body are the same in every attempt",
    ),
    (
        Rule::AllSettles,
        "K21 T33",
        "everything settles once faults have ended",
    ),
    (
        Rule::LagZero,
        "K20 K23 T11",
        "then all is committed and nothing is in flight",
    ),
    (
        Rule::RetriesOnlyFailures,
        "K26 K28",
        "only failures cost lane records",
    ),
    (
        Rule::Duplicates,
        "K27 T18 T19",
        "no duplicate without a disruption",
    ),
    (
        Rule::RetryTimes,
        "T15",
        "retries are due when the schedule says",
    ),
    (
        Rule::HeldSpendsNothing,
        "T16",
        "only attempts spend attempts",
    ),
    (
        Rule::Tenants,
        "T24",
        "events reach their tenant's endpoints alone",
    ),
    (
        Rule::Matching,
        "K1 T25",
        "exactly who wants an event is matched",
    ),
    (Rule::FactsTrue, "K1 T8", "facts about deliveries are true"),
    (
        Rule::DeadTrue,
        "K1 T8",
        "dead letters have the cause they name",
    ),
    (
        Rule::ClaimFirst,
        "6.5",
        "no attempt before the own claim is read",
    ),
    (
        Rule::Ordered,
        "K12 T17",
        "one attempt at a time per ordering key, in lane order",
    ),
    (Rule::GateHolds, "K14 T9", "nobody sends past a gate"),
    (
        Rule::FifoDrains,
        "6.5",
        "a fifo gate stays closed until the backlog is drained",
    ),
    (
        Rule::CommandsHold,
        "K15 T9",
        "what was cancelled is not attempted",
    ),
    (
        Rule::HealthyQuick,
        "K22 T20",
        "sick endpoints cost healthy ones no time",
    ),
    (
        Rule::DrainsFully,
        "K24 T33",
        "an endpoint that is back catches up as fast as it may",
    ),
    (
        Rule::TailBounded,
        "K25 T36",
        "what was read long ago stands in a snapshot",
    ),
    (
        Rule::Replays,
        "12",
        "what owners are asked for is done, each delivery once",
    ),
];

/// A rule was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// When, after the start.
    pub at_ms: u64,
    /// What was found.
    pub found: String,
}

impl Rule {
    /// Its numbers and its name.
    pub fn row(self) -> (&'static str, &'static str) {
        let row = RULES.iter().find(|(rule, ..)| *rule == self);
        row.map_or(("", ""), |(_, numbers, name)| (numbers, name))
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (numbers, name) = self.rule.row();
        write!(f, "[{numbers}] {name}: {} ({} ms)", self.found, self.at_ms)
    }
}
