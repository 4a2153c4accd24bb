//! Situations a run must have reached (FoundationDB's CODE_PROBE): a workload
//! that stops reaching one has become weak, whatever it finds.

/// A situation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Seen {
    AppendFailed,
    AppendUnknown,
    AppendStoredTwice,
    DuplicateDropped,
    Held,
    PageRead,
    GateClosed,
    SnapshotLoaded,
    SnapshotMissing,
    AutoDisabled,
    RangeExpired,
    ToldDisabled,
    ToldRecovered,
    ToldExhausted,
    CommitFailed,
    CommitFenced,
    CommitLate,
    CommitRewound,
    CommitStale,
    MetadataTooLarge,
    MetadataUsed,
    DoneAgain,
    HoleSkipped,
    PoisonBuried,
    IntakeBlocked,
    Overflowed,
    Gated,
    Owned,
    Drained,
    DrainedClean,
    Killed,
    KilledInFlight,
    AppendedPosthumously,
    Paused,
    PutOut,
    Zombie,
    ZombieFacts,
    Lost,
    Cut,
    RevokedInFlight,
    ReleasedOpen,
    ReleasedClean,
    ReportAfterRelease,
    Bounced,
    BodyRead,
    BodyReadFailed,
    Expired,
    TooOld,
    Exhausted,
    Gone,
    RetryAfter,
    TimedOut,
    ResetAfterTaken,
    Cancelled,
    DisabledWhileQueued,
    Deleted,
    Forgotten,
    RetryAbsorbed,
    SettledTwice,
    SettledWhileQueued,
    Duplicate,
    DeadThenDelivered,
    Parked,
    FifoOpened,
    Moved,
    Redriven,
    Commanded,
    Hastened,
    Probed,
    CommandRepeated,
    PausedByOperator,
    Jumped,
    SnapshotInParts,
    ServedQuickly,
    CaughtUp,
    Replayed,
    CopyDropped,
    SourceUnreadable,
    Halted,
}

/// Every situation and what it is.
pub const ALL: [(Seen, &str); 79] = [
    (Seen::AppendFailed, "an append was refused"),
    (
        Seen::AppendUnknown,
        "an append was stored, but not acknowledged",
    ),
    (
        Seen::AppendStoredTwice,
        "a delivery stands in the lane twice",
    ),
    (Seen::DuplicateDropped, "an owner dropped a second copy"),
    (Seen::Held, "a delivery was held for its endpoint"),
    (Seen::PageRead, "an owner read what an endpoint holds"),
    (Seen::GateClosed, "an owner closed a gate"),
    (Seen::SnapshotLoaded, "a successor loaded a snapshot"),
    (
        Seen::SnapshotMissing,
        "a successor folded the lane from its start",
    ),
    (Seen::AutoDisabled, "an owner disabled an endpoint"),
    (Seen::RangeExpired, "what was held expired in one range"),
    (
        Seen::ToldDisabled,
        "a tenant was told of a disabled endpoint",
    ),
    (Seen::ToldRecovered, "a tenant was told of a recovery"),
    (
        Seen::ToldExhausted,
        "a tenant was told of an exhausted delivery",
    ),
    (Seen::CommitFailed, "a commit failed on the way"),
    (Seen::CommitFenced, "a member that was put out committed"),
    (Seen::CommitLate, "a former reader's commit arrived late"),
    (
        Seen::CommitRewound,
        "a commit went behind its predecessor's",
    ),
    (
        Seen::CommitStale,
        "a commit was refused at home for its epoch",
    ),
    (Seen::MetadataTooLarge, "the log refused long metadata"),
    (
        Seen::MetadataUsed,
        "a successor knew settled offsets from metadata",
    ),
    (Seen::DoneAgain, "a record read again was known as settled"),
    (Seen::HoleSkipped, "the log had a hole"),
    (
        Seen::PoisonBuried,
        "an unreadable record became a dead letter",
    ),
    (Seen::IntakeBlocked, "a shard gave a delivery back"),
    (
        Seen::Overflowed,
        "a full or slow queue sent a delivery to the lane",
    ),
    (
        Seen::Gated,
        "an open breaker or a closed gate sent a delivery to the lane",
    ),
    (Seen::Owned, "an owned endpoint's delivery went to the lane"),
    (
        Seen::Drained,
        "a stopping node sent what waited to the lane",
    ),
    (Seen::DrainedClean, "a node stopped with nothing left"),
    (Seen::Killed, "a node was killed"),
    (
        Seen::KilledInFlight,
        "a node was killed with attempts in flight",
    ),
    (
        Seen::AppendedPosthumously,
        "a dead node's append was stored",
    ),
    (Seen::Paused, "a node stood still"),
    (Seen::PutOut, "a member was put out for its silence"),
    (Seen::Zombie, "a member that was put out made an attempt"),
    (Seen::ZombieFacts, "a former owner wrote facts"),
    (Seen::Lost, "a node lost a partition without warning"),
    (Seen::Cut, "a node could not reach the log"),
    (
        Seen::RevokedInFlight,
        "a partition was asked back mid-flight",
    ),
    (
        Seen::ReleasedOpen,
        "a partition was given back with work open",
    ),
    (
        Seen::ReleasedClean,
        "a partition was given back settled and committed",
    ),
    (
        Seen::ReportAfterRelease,
        "a report came for a partition that was gone",
    ),
    (Seen::Bounced, "a shard had no room for an owner's delivery"),
    (Seen::BodyRead, "an owner read a body from the log"),
    (Seen::BodyReadFailed, "an owner could not read a body"),
    (Seen::Expired, "a delivery expired"),
    (Seen::TooOld, "an event was too old for a first attempt"),
    (Seen::Exhausted, "a retry schedule ended"),
    (Seen::Gone, "a receiver answered 410"),
    (Seen::RetryAfter, "a receiver asked to be left alone"),
    (Seen::TimedOut, "an attempt timed out"),
    (
        Seen::ResetAfterTaken,
        "a receiver took an event and broke the connection",
    ),
    (Seen::Cancelled, "a delivery was cancelled"),
    (
        Seen::DisabledWhileQueued,
        "an endpoint was disabled while deliveries were under way",
    ),
    (Seen::Deleted, "an endpoint was deleted"),
    (Seen::Forgotten, "a group's offsets were gone"),
    (Seen::RetryAbsorbed, "a retry fact came second"),
    (Seen::SettledTwice, "a settled delivery was settled again"),
    (
        Seen::SettledWhileQueued,
        "a delivery was settled by another owner while it waited for its attempt",
    ),
    (Seen::Duplicate, "a receiver acknowledged a delivery twice"),
    (
        Seen::DeadThenDelivered,
        "a delivery that was given up arrived all the same",
    ),
    (
        Seen::Parked,
        "a delivery waited as a timer behind the failing head of its key",
    ),
    (
        Seen::FifoOpened,
        "a fifo endpoint's gate opened after its backlog was drained",
    ),
    (Seen::Moved, "a timer over the caps was moved"),
    (Seen::Redriven, "a dead letter was delivered again"),
    (Seen::Commanded, "a command cancelled deliveries"),
    (Seen::Hastened, "a command made timers fall due"),
    (Seen::Probed, "a command let one attempt out"),
    (Seen::CommandRepeated, "a command stood twice"),
    (Seen::PausedByOperator, "an operator paused an endpoint"),
    (Seen::Jumped, "a clock jumped"),
    (
        Seen::SnapshotInParts,
        "a successor loaded a snapshot of several parts",
    ),
    (
        Seen::ServedQuickly,
        "healthy endpoints were served in a calm world",
    ),
    (Seen::CaughtUp, "an endpoint that was down caught up"),
    (Seen::Replayed, "an owner delivered events again"),
    (
        Seen::CopyDropped,
        "a copy of what an owner made was dropped",
    ),
    (
        Seen::SourceUnreadable,
        "what was to be delivered again could not be read",
    ),
    (Seen::Halted, "what an owner was asked for stood still"),
];

/// How often each was reached.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    counts: std::collections::BTreeMap<Seen, u64>,
}

impl Counts {
    /// Reached once more.
    pub fn note(&mut self, seen: Seen) {
        *self.counts.entry(seen).or_default() += 1;
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        for (&seen, &count) in &other.counts {
            *self.counts.entry(seen).or_default() += count;
        }
    }

    /// How often.
    pub fn of(&self, seen: Seen) -> u64 {
        self.counts.get(&seen).copied().unwrap_or(0)
    }

    /// What was never reached.
    pub fn unseen(&self) -> Vec<&'static str> {
        let unseen = ALL.iter().filter(|(seen, _)| self.of(*seen) == 0);
        unseen.map(|(_, name)| *name).collect()
    }
}
