use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::clock::Clock;
use crate::log::embedded::EmbeddedLog;
use crate::log::{Cleanup, NewRecord, TopicSpec};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const OURS: EndpointId = EndpointId::from_bytes([1; 16]);
const THEIRS: EndpointId = EndpointId::from_bytes([2; 16]);

/// A lane partition that is written by hand.
struct Lane {
    _dir: tempfile::TempDir,
    log: EmbeddedLog,
    tp: TopicPartition,
}

impl Lane {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::start();
        let log = EmbeddedLog::open(dir.path(), Arc::new(move || clock.now())).unwrap();
        let tp = TopicPartition {
            topic: "lane".into(),
            partition: 0,
        };
        let spec = TopicSpec {
            name: tp.topic.clone(),
            partitions: 1,
            cleanup: Cleanup::Delete {
                retention: Duration::from_secs(3_600),
            },
            record_bytes_max: 1024 * 1024,
        };
        log.verify(&[spec]).await.unwrap();
        Self { _dir: dir, log, tp }
    }

    async fn write(&self, value: Bytes) -> Offset {
        let record = NewRecord {
            to: self.tp.clone(),
            key: Bytes::new(),
            value,
            headers: Vec::new(),
        };
        self.log.append(vec![record]).await.remove(0).unwrap()
    }

    async fn folded(&self) -> Fold {
        match folded(&self.log, &self.tp, NOW).await.unwrap() {
            Folded::Known(fold) => *fold,
            other => panic!("{other:?}"),
        }
    }

    /// The same, of every record and no snapshot.
    async fn without_snapshots(&self) -> Fold {
        let (records, next) = self.log.read(&self.tp, 0, usize::MAX).await.unwrap();
        let mut fold = Fold::new(0);
        for record in records {
            fold.apply(record.offset, &record.value).unwrap();
        }
        assert_eq!(fold.next(), next);
        fold
    }
}

fn deliver(number: u8, endpoint: EndpointId, due_ms: u64) -> Bytes {
    proto::Deliver {
        delivery_id: vec![number; 16].into(),
        endpoint_id: endpoint.as_bytes().to_vec().into(),
        due_ms,
        deadline_ms: 99_000,
        attempt: 1,
        ..Default::default()
    }
    .to_value()
}

fn settled(offset: u64, endpoint: EndpointId) -> Bytes {
    let entry = proto::progress::Entry {
        kind: proto::progress::Kind::Done.into(),
        offset,
        endpoint_id: endpoint.as_bytes().to_vec().into(),
        ..Default::default()
    };
    proto::Progress {
        owner_epoch: 1,
        entries: vec![entry],
    }
    .to_value()
}

/// Two parts of the state below offset 3: a timer at 0, and two held.
fn snapshot() -> [Bytes; 2] {
    let part = |part: u32, endpoint: EndpointId| proto::Snapshot {
        owner_epoch: 7,
        upto: 3,
        part,
        parts: 2,
        endpoints: vec![endpoint.as_bytes().to_vec().into()],
        ..Default::default()
    };
    let mut timers = part(0, THEIRS);
    timers.timers.push(proto::snapshot::Timer {
        offset: 0,
        delivery_id: vec![10; 16].into(),
        attempt: 1,
        due_ms: 5_000,
        deadline_ms: 99_000,
        ..Default::default()
    });
    let mut holds = part(1, OURS);
    holds.holds.push(proto::snapshot::Hold {
        cursor: 1,
        last: 2,
        count: 2,
        runs: vec![0, 1],
        ..Default::default()
    });
    [timers.to_value(), holds.to_value()]
}

#[tokio::test]
async fn the_state_is_the_same_with_a_snapshot_and_without() {
    let lane = Lane::new().await;
    assert!(lane.folded().await.is_empty());
    lane.write(deliver(10, THEIRS, 5_000)).await;
    lane.write(deliver(11, OURS, 0)).await;
    lane.write(deliver(12, OURS, 0)).await;
    assert_eq!(lane.folded().await.len(), 3);
    // What comes between a snapshot and its parts, and behind them.
    let [first, second] = snapshot();
    lane.write(settled(1, OURS)).await;
    lane.write(first).await;
    lane.write(deliver(13, THEIRS, 0)).await;
    assert_eq!(
        lane.folded().await,
        lane.without_snapshots().await,
        "half of it"
    );
    lane.write(second).await;
    lane.write(settled(0, THEIRS)).await;
    lane.write(deliver(14, OURS, 6_000)).await;
    let fold = lane.folded().await;
    assert_eq!(fold, lane.without_snapshots().await);
    assert_eq!((fold.len(), fold.hold_of(OURS).unwrap().count()), (3, 1));
    lane.log.close();
}

#[tokio::test]
async fn the_last_whole_snapshot_is_gone_on_from() {
    let lane = Lane::new().await;
    // Nothing of what the snapshot tells stands in the log any more.
    for _ in 0..3 {
        lane.write(deliver(9, OURS, 1)).await;
    }
    let [first, second] = snapshot();
    lane.write(first.clone()).await;
    lane.write(second).await;
    for number in 0..200 {
        lane.write(settled(1_000 + number, OURS)).await;
    }
    // A later one whose other part never came.
    lane.write(first).await;
    let fold = lane.folded().await;
    assert_eq!(fold.hold_of(OURS).unwrap().count(), 2);
    assert_eq!(fold.owed(0).unwrap().endpoint, THEIRS);
    // What this version cannot read may settle anything.
    lane.write(Bytes::from_static(&[99])).await;
    let unreadable = folded(&lane.log, &lane.tp, NOW).await.unwrap();
    assert!(matches!(unreadable, Folded::Unreadable));
    lane.log.close();
}

#[tokio::test]
async fn the_first_in_line_is_the_first_that_is_held() {
    let lane = Lane::new().await;
    for (number, endpoint, due_ms) in [(1, OURS, 0), (2, THEIRS, 0), (3, OURS, 7), (4, OURS, 0)] {
        lane.write(deliver(number, endpoint, due_ms)).await;
    }
    let first = async |fold: &Fold| {
        let hold = fold.hold_of(OURS).unwrap();
        let first = first_held(&lane.log, &lane.tp, OURS, hold).await.unwrap();
        first.map(|delivery| delivery.as_bytes()[0])
    };
    assert_eq!(first(&lane.folded().await).await, Some(1));
    lane.write(settled(0, OURS)).await;
    assert_eq!(first(&lane.folded().await).await, Some(4));
    lane.write(settled(3, OURS)).await;
    assert_eq!(first(&lane.folded().await).await, None);
    lane.log.close();
}

#[tokio::test]
async fn a_lane_that_holds_too_much_is_not_guessed_at() {
    let lane = Lane::new().await;
    for number in 0..9 {
        lane.write(deliver(number, OURS, 0)).await;
    }
    let bytes = |bytes: usize| Budget {
        bytes,
        ..Budget::new()
    };
    for budgets in [[bytes(1), Budget::new()], [Budget::new(), bytes(0)]] {
        let folded = within(&lane.log, &lane.tp, NOW, budgets).await.unwrap();
        assert!(
            matches!(folded, Folded::EndedBy(Bound::Bytes)),
            "{folded:?}"
        );
    }
    lane.log.close();
}
