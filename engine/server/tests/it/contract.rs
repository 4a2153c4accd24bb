//! What every [`Log`] must do: one function a clause, run on every
//! implementation.
//!
//! An implementation gives a [`Harness`] and writes `contract!(ItsHarness);`
//! in a module of its own: one test a clause stands there afterwards. Further
//! arguments become attributes of each test
//! (`contract!(ItsHarness, ignore = "needs a broker");`).
//!
//! Clauses share logs and run side by side: they use topics and groups of
//! their own, and look at nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use posthaste::log::{
    Cleanup, Epoch, GroupConsumer, GroupEvent, Log, LogError, NewRecord, Offset, Record,
    RevokeToken, Start, TopicPartition, TopicSpec,
};

pub(crate) mod append;
pub(crate) mod group;
pub(crate) mod share;
pub(crate) mod topics;

macro_rules! contract {
    (@each [$harness:ty] $attributes:tt $($room:ident::$clause:ident)*) => {
        $(contract! { @one [$harness] $attributes $room $clause })*
    };
    (@one [$harness:ty] [$($attribute:meta),*] $room:ident $clause:ident) => {
        $(#[$attribute])*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $clause() {
            if <$harness as $crate::contract::Harness>::available() {
                $crate::contract::$room::$clause::<$harness>().await;
            }
        }
    };
    ($harness:ty $(, $attribute:meta)* $(,)?) => {
        contract! { @each [$harness] [$($attribute),*]
            append::what_is_appended_is_read
            append::a_value_of_one_mebibyte_is_read
            append::answers_keep_the_order_of_each_partition
            append::a_record_over_the_bound_is_too_large
            append::an_unknown_topic_takes_nothing
            append::audit_appends_like_any_other
            append::what_was_acknowledged_outlives_a_restart
            append::ten_mebibytes_pass_through_one_partition
            append::a_read_ends_where_the_log_ends
            append::a_read_stops_near_its_bound
            append::a_time_finds_its_first_offset
            append::trimmed_offsets_are_out_of_range
            group::earliest_starts_at_the_first_record
            group::latest_starts_at_the_end
            group::a_time_starts_at_its_first_record
            group::unset_refuses_to_start
            group::the_start_is_committed_before_it_is_announced
            group::a_group_resumes_where_it_committed
            group::metadata_returns_whole
            group::metadata_changes_without_the_offset
            group::too_much_metadata_is_refused
            group::a_foreign_epoch_commits_nothing
            group::credit_bounds_what_is_handed_over
            group::waiting_for_an_event_can_be_given_up
            group::a_member_hears_what_comes_later
            group::one_group_does_not_move_another
            group::where_a_group_stands_is_told_to_others
            group::a_group_whose_place_was_trimmed_stops
            group::joining_an_unknown_topic_fails
            group::a_follower_reads_everything_and_commits_nothing
            share::a_second_member_takes_its_share
            share::a_member_that_leaves_returns_its_share
            share::leaving_amid_a_rebalance_loses_nothing
            topics::a_topic_is_described
            topics::a_missing_topic_is_named
            topics::topics_are_made_once
            topics::a_topic_that_differs_is_refused
            topics::compaction_keeps_the_newest
        }
    };
}

/// One implementation, ready to be asked.
pub(crate) trait Harness: Sized {
    /// Longest wait for something that must come.
    const PATIENCE: Duration;
    /// Wait after which nothing more is expected.
    const QUIET: Duration;

    /// Whether there is a log to test with; where there is none the clauses
    /// pass unasked.
    fn available() -> bool {
        true
    }

    /// A log to test with. It may be shared with other clauses.
    async fn fresh() -> Self;

    /// The log.
    fn log(&self) -> &dyn Log;

    /// Closes this process's end of the log and opens it again.
    async fn reopen(self) -> Self;

    /// Makes the log drop every record the partition holds now; false where
    /// that cannot be brought about.
    async fn trim(&self, tp: &TopicPartition) -> bool;

    /// A new topic that loses nothing while the test runs.
    async fn topic(&self, partitions: u32) -> ByteString {
        self.topic_like(partitions, RETENTION).await
    }

    /// A new topic.
    async fn topic_like(&self, partitions: u32, cleanup: Cleanup) -> ByteString {
        let spec = spec(partitions, cleanup);
        let made = self.log().create(std::slice::from_ref(&spec)).await;
        assert_eq!(made, Ok(vec![spec.name.clone()]));
        spec.name
    }
}

/// Records go after an hour.
pub(crate) const RETENTION: Cleanup = Cleanup::Delete {
    retention: Duration::from_secs(3_600),
};

/// A topic of a new name.
pub(crate) fn spec(partitions: u32, cleanup: Cleanup) -> TopicSpec {
    TopicSpec {
        name: unique("topic").into(),
        partitions,
        cleanup,
        record_bytes_max: 2 * 1024 * 1024,
    }
}

/// A name nobody used before, on a broker that outlives the test as well.
pub(crate) fn unique(what: &str) -> String {
    let number = getrandom::u64().expect("the system has random numbers");
    format!("it-{what}-{number:016x}")
}

pub(crate) fn place(topic: &ByteString, partition: u32) -> TopicPartition {
    TopicPartition {
        topic: topic.clone(),
        partition,
    }
}

pub(crate) fn record(to: &TopicPartition, key: &str, value: impl Into<Bytes>) -> NewRecord {
    NewRecord {
        to: to.clone(),
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: value.into(),
        headers: Vec::new(),
    }
}

/// Appends `count` numbered values and answers their offsets.
pub(crate) async fn fill(log: &dyn Log, to: &TopicPartition, count: usize) -> Vec<Offset> {
    let records = (0..count).map(|n| record(to, "k", n.to_string())).collect();
    log.append(records)
        .await
        .into_iter()
        .map(|answer| answer.expect("the append succeeds"))
        .collect()
}

/// What a member was told an assignment begins with.
#[derive(Debug, Clone)]
pub(crate) struct Assigned {
    pub(crate) epoch: Epoch,
    pub(crate) position: Offset,
    pub(crate) metadata: String,
}

/// A member that keeps what it hears, and checks what must hold of every event.
pub(crate) struct Member {
    consumer: Box<dyn GroupConsumer>,
    patience: Duration,
    quiet: Duration,
    epochs: BTreeSet<Epoch>,
    /// Gives back at once what each batch took.
    pub(crate) returns_credit: bool,
    pub(crate) assigned: BTreeMap<TopicPartition, Assigned>,
    pub(crate) next: BTreeMap<TopicPartition, Offset>,
    pub(crate) records: BTreeMap<TopicPartition, Vec<Record>>,
    pub(crate) revoking: BTreeMap<TopicPartition, RevokeToken>,
    pub(crate) fatal: Option<LogError>,
}

impl Member {
    pub(crate) fn join<H: Harness>(
        harness: &H,
        group: &str,
        topics: &[&ByteString],
        start: Start,
    ) -> Self {
        let topics: Vec<ByteString> = topics.iter().copied().cloned().collect();
        let consumer = harness.log().join(group, &topics, start);
        Self::new::<H>(consumer.expect("the group takes a member"))
    }

    pub(crate) fn new<H: Harness>(consumer: Box<dyn GroupConsumer>) -> Self {
        Self {
            consumer,
            patience: H::PATIENCE,
            quiet: H::QUIET,
            epochs: BTreeSet::new(),
            returns_credit: true,
            assigned: BTreeMap::new(),
            next: BTreeMap::new(),
            records: BTreeMap::new(),
            revoking: BTreeMap::new(),
            fatal: None,
        }
    }

    /// Listens until `done`; fails the test when that takes too long.
    pub(crate) async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let patience = self.patience;
        let listening = async {
            while !done(self) {
                self.step().await;
            }
        };
        let heard = tokio::time::timeout(patience, listening).await;
        assert!(heard.is_ok(), "{what}: not within {patience:?}");
    }

    /// Listens until nothing has come for a while.
    pub(crate) async fn until_quiet(&mut self) {
        let quiet = self.quiet;
        while tokio::time::timeout(quiet, self.step()).await.is_ok() {}
    }

    /// Hears one event. Cancel-safe, as [`GroupConsumer::next`] is.
    pub(crate) async fn step(&mut self) {
        match self.consumer.next().await {
            GroupEvent::Assigned {
                tp,
                epoch,
                position,
                metadata,
            } => self.take(tp, epoch, position, metadata),
            GroupEvent::Batch {
                tp,
                epoch,
                records,
                next,
            } => self.read(tp, epoch, records, next),
            GroupEvent::Revoking { tp, epoch, done } => {
                assert_eq!(self.assigned[&tp].epoch, epoch, "{tp} revoked");
                self.revoking.insert(tp, done);
            }
            GroupEvent::Lost { tp, epoch } => {
                assert_eq!(self.assigned[&tp].epoch, epoch, "{tp} lost");
                self.forget(&tp);
            }
            GroupEvent::Fatal(error) => self.fatal = Some(error),
        }
    }

    fn take(&mut self, tp: TopicPartition, epoch: Epoch, position: Offset, metadata: String) {
        assert!(self.epochs.insert(epoch), "{epoch:?} is used twice");
        let begun = Assigned {
            epoch,
            position,
            metadata,
        };
        self.next.insert(tp.clone(), position);
        let before = self.assigned.insert(tp, begun);
        assert!(before.is_none(), "assigned twice: {before:?}");
    }

    fn read(&mut self, tp: TopicPartition, epoch: Epoch, records: Vec<Record>, next: Offset) {
        assert!(!self.revoking.contains_key(&tp), "a batch after Revoking");
        assert_eq!(self.assigned[&tp].epoch, epoch, "a batch of {tp}");
        let mut position = self.next[&tp];
        let mut bytes = 0;
        for record in &records {
            assert!(record.offset >= position, "{tp} goes back");
            position = record.offset + 1;
            bytes += record.size();
        }
        assert!(next >= position, "{tp}: next {next} lies inside the batch");
        if self.returns_credit {
            self.consumer.credit(&tp, epoch, bytes);
        }
        self.next.insert(tp.clone(), next);
        self.records.entry(tp).or_default().extend(records);
    }

    fn forget(&mut self, tp: &TopicPartition) {
        self.assigned.remove(tp);
        self.next.remove(tp);
        self.revoking.remove(tp);
    }

    /// Lets go of everything that is being revoked; answers what it was.
    pub(crate) fn release(&mut self) -> Vec<TopicPartition> {
        let released: Vec<_> = self.revoking.keys().cloned().collect();
        for tp in &released {
            self.forget(tp);
        }
        released
    }

    pub(crate) fn credit(&self, tp: &TopicPartition, epoch: Epoch, bytes: usize) {
        self.consumer.credit(tp, epoch, bytes);
    }

    /// Commits under the assignment held now.
    pub(crate) async fn commit(
        &self,
        tp: &TopicPartition,
        at: Offset,
        metadata: &str,
    ) -> Result<(), posthaste::log::CommitError> {
        self.commit_as(tp, self.assigned[tp].epoch, at, metadata)
            .await
    }

    pub(crate) async fn commit_as(
        &self,
        tp: &TopicPartition,
        epoch: Epoch,
        at: Offset,
        metadata: &str,
    ) -> Result<(), posthaste::log::CommitError> {
        self.consumer.commit(tp, epoch, at, metadata.into()).await
    }

    /// The offsets handed over for one partition.
    pub(crate) fn offsets(&self, tp: &TopicPartition) -> Vec<Offset> {
        let records = self.records.get(tp).map_or(&[][..], Vec::as_slice);
        records.iter().map(|record| record.offset).collect()
    }

    /// Records handed over, all partitions together.
    pub(crate) fn count(&self) -> usize {
        self.records.values().map(Vec::len).sum()
    }
}

/// Listens on both members until `done`.
pub(crate) async fn both_until(
    one: &mut Member,
    two: &mut Member,
    what: &str,
    done: impl Fn(&Member, &Member) -> bool,
) {
    let patience = one.patience;
    let listening = async {
        while !done(one, two) {
            tokio::select! {
                () = one.step() => {}
                () = two.step() => {}
            }
        }
    };
    let heard = tokio::time::timeout(patience, listening).await;
    assert!(heard.is_ok(), "{what}: not within {patience:?}");
}
