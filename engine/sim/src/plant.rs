//! Bugs put into a node on purpose, where it meets the core: each must be
//! caught by the checker. The core itself carries none.

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// A record that was not appended closes its ticket.
    CloseOnFailedAppend,
    /// A ticket is closed when its record is sent, not when it is stored.
    CloseBeforeAck,
    /// The position after the newest record is committed.
    CommitHighest,
    /// A partition's last commit is sent again after it is gone.
    CommitDeadEpoch,
    /// Every other commit goes back a little.
    CommitBackwards,
    /// Commit metadata says that everything read is settled.
    MetadataLies,
    /// Of a lane partition everything read is committed, not what the snapshot
    /// tells of.
    LaneCommitHighest,
    /// Tickets of an assignment that is gone close positions of the next.
    StaleTickets,
    /// A record that cannot be read is passed over.
    SkipPoison,
    /// Holes in the log are not told to the tracker.
    GapsStall,
    /// Ingest starts before the endpoints table is read.
    RegistryLate,
    /// Deliveries go to another tenant's endpoint.
    OtherTenant,
    /// An endpoint of the last deliveries matched is left out.
    ForgetEndpoint,
    /// An attempt is made twice.
    SendTwice,
    /// A retry has another `webhook-id`.
    NewEventId,
    /// A retry has another body.
    NewBody,
    /// The window of every endpoint is 256.
    WideWindow,
    /// Shards never hear of changed endpoints.
    StaleRegistry,
    /// Attempts are counted anew from each assignment on.
    ResetAttempts,
    /// A bounce counts as an attempt.
    BounceCounts,
    /// Lane deliveries are handed out an hour early.
    EarlyRetries,
    /// Lane deliveries are attempted after their deadline.
    LateRetries,
    /// Retry facts name half the time to wait.
    ShortRetries,
    /// Attempts begin before the owner has read its own claim.
    BeforeClaim,
    /// A failed attempt is told as done.
    FailureIsDone,
    /// A dead letter's fact is told before the letter is stored.
    DeadBeforeAck,
    /// Some reports to owners are lost.
    DropReports,
    /// Some ends of attempts are never told to the shard.
    ForgetSlots,
    /// Some records to append are lost.
    LoseAppends,
    /// A revoked partition is given back at once, whatever is open.
    ReleaseEarly,
    /// What was settled is handed out once more.
    HandOutSettled,
    /// A lane delivery's attempt skips a number.
    SkipNumbers,
    /// Lane deliveries go to the next endpoint.
    OtherEndpoint,
    /// A success is taken for a failure.
    SuccessFails,
    /// Dead letters say that the delivery was too old.
    WrongCause,
    /// A lane partition is read from its snapshot's own offset on, not from the
    /// position that the snapshot tells of.
    ResumeAtSnapshot,
    /// The parts of a snapshot are passed over.
    ForgetSnapshot,
    /// A snapshot is committed before the log has acknowledged its parts.
    CommitBeforeParts,
    /// A timer over the caps is told as moved, and is not.
    DropMoves,
    /// Bodies are kept whatever the budget says.
    KeepAllBodies,
    /// A retry fact adds an attempt to those known, instead of saying how many
    /// they are.
    FactsAdd,
    /// Commands are passed over.
    LoseCommands,
    /// A command that stands twice takes effect twice.
    CommandsTwice,
    /// Deliveries of one ordering key are handed out without waiting for each
    /// other.
    IgnoreKeys,
    /// A gate that is closed is opened at once.
    OpenGates,
    /// Shards never hear of gates.
    IgnoreGates,
    /// First attempts have the whole limit, whatever part the node reads.
    IgnoreShare,
    /// One attempt at a time in a shard.
    OneAtATime,
    /// Every endpoint has one attempt at a time.
    Narrow,
    /// Events are never too old.
    IgnoreAges,
    /// Reports reach owners every two seconds.
    SlowReports,
    /// Snapshots are never written.
    NoSnapshots,
    /// Copies of what an operation made count as others.
    TakeCopies,
    /// Snapshots do not say what operations made.
    ForgetMade,
    /// A replay passes over some events.
    SkipReplayed,
    /// A replay's deliveries are taken for written when they are sent.
    MadeBeforeAck,
}

impl Plant {
    /// All of them.
    pub const ALL: [Self; 56] = [
        Self::CloseOnFailedAppend,
        Self::CloseBeforeAck,
        Self::CommitHighest,
        Self::CommitDeadEpoch,
        Self::CommitBackwards,
        Self::MetadataLies,
        Self::LaneCommitHighest,
        Self::StaleTickets,
        Self::SkipPoison,
        Self::GapsStall,
        Self::RegistryLate,
        Self::OtherTenant,
        Self::ForgetEndpoint,
        Self::SendTwice,
        Self::NewEventId,
        Self::NewBody,
        Self::WideWindow,
        Self::StaleRegistry,
        Self::ResetAttempts,
        Self::BounceCounts,
        Self::EarlyRetries,
        Self::LateRetries,
        Self::ShortRetries,
        Self::BeforeClaim,
        Self::FailureIsDone,
        Self::DeadBeforeAck,
        Self::DropReports,
        Self::ForgetSlots,
        Self::LoseAppends,
        Self::ReleaseEarly,
        Self::HandOutSettled,
        Self::SkipNumbers,
        Self::OtherEndpoint,
        Self::SuccessFails,
        Self::WrongCause,
        Self::ResumeAtSnapshot,
        Self::ForgetSnapshot,
        Self::CommitBeforeParts,
        Self::DropMoves,
        Self::KeepAllBodies,
        Self::FactsAdd,
        Self::LoseCommands,
        Self::CommandsTwice,
        Self::IgnoreKeys,
        Self::OpenGates,
        Self::IgnoreGates,
        Self::IgnoreShare,
        Self::OneAtATime,
        Self::Narrow,
        Self::IgnoreAges,
        Self::SlowReports,
        Self::NoSnapshots,
        Self::TakeCopies,
        Self::ForgetMade,
        Self::SkipReplayed,
        Self::MadeBeforeAck,
    ];
}
