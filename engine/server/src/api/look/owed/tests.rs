use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use proto::progress::{Entry, Kind};
use proto::snapshot::{Hold as HeldPiece, Timer};

use super::*;
use crate::clock::Clock;
use crate::log::embedded::EmbeddedLog;
use crate::log::{Cleanup, NewRecord, TopicSpec};

const ENDPOINT: EndpointId = EndpointId::from_bytes([1; 16]);
const STRANGER: EndpointId = EndpointId::from_bytes([2; 16]);
const DUE: u64 = 5_000;

fn id(number: u8) -> DeliveryId {
    DeliveryId::from_bytes([number; 16])
}

fn bytes(id: &[u8; 16]) -> Bytes {
    Bytes::copy_from_slice(id)
}

fn deliver(number: u8, endpoint: EndpointId, due_ms: u64) -> Bytes {
    let record = proto::Deliver {
        delivery_id: bytes(id(number).as_bytes()),
        endpoint_id: bytes(endpoint.as_bytes()),
        due_ms,
        // Few of them fit into one read.
        body: vec![7; LOOK_READ_BYTES / 3].into(),
        ..proto::Deliver::default()
    };
    record.to_value()
}

fn done(offset: Offset) -> Bytes {
    let entry = Entry {
        kind: Kind::Done.into(),
        offset,
        endpoint_id: bytes(ENDPOINT.as_bytes()),
        ..Entry::default()
    };
    let record = proto::Progress {
        owner_epoch: 1,
        entries: vec![entry],
    };
    record.to_value()
}

/// A part of a snapshot of what comes before `upto`, which says that the last of
/// it is held, and, in its first part, that a timer stands before that.
fn snapshot(owner_epoch: u64, upto: Offset, part: u32, parts: u32) -> Bytes {
    let timer = Timer {
        offset: upto - 2,
        delivery_id: bytes(id(99).as_bytes()),
        due_ms: DUE,
        ..Timer::default()
    };
    let hold = HeldPiece {
        cursor: upto - 1,
        last: upto - 1,
        count: 1,
        runs: vec![0, 1],
        ..HeldPiece::default()
    };
    let record = proto::Snapshot {
        owner_epoch,
        upto,
        part,
        parts,
        endpoints: vec![bytes(ENDPOINT.as_bytes())],
        timers: if part == 0 { vec![timer] } else { Vec::new() },
        holds: if part + 1 == parts {
            vec![hold]
        } else {
            Vec::new()
        },
        ..proto::Snapshot::default()
    };
    record.to_value()
}

/// A lane of one partition that begins with these records.
struct Lane {
    _dir: tempfile::TempDir,
    log: EmbeddedLog,
    tp: TopicPartition,
}

impl Lane {
    async fn of(values: Vec<Bytes>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::start();
        let log = EmbeddedLog::open(dir.path(), Arc::new(move || clock.now())).unwrap();
        let tp = TopicPartition {
            topic: ByteString::from_static("lane"),
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
        let lane = Self { _dir: dir, log, tp };
        lane.append(values).await;
        lane
    }

    async fn append(&self, values: Vec<Bytes>) {
        let record = |value| NewRecord {
            to: self.tp.clone(),
            key: Bytes::new(),
            value,
            headers: Vec::new(),
        };
        let written = self
            .log
            .append(values.into_iter().map(record).collect())
            .await;
        assert!(written.iter().all(Result::is_ok));
    }

    async fn owing(&self) -> Owing<'_> {
        let budget = &mut Budget::of_lane();
        let owing = Owing::of(&self.log, self.tp.clone(), ENDPOINT, budget).await;
        owing.unwrap().expect("it is within the bounds")
    }
}

/// Where what waits stands, and whose it is.
async fn all(owing: &Owing<'_>, waits: Waits) -> Vec<(Offset, DeliveryId)> {
    let mut found = Vec::new();
    let take = |record: &Record, owed: Owed| {
        assert_eq!(owed.due.as_millis() > 0, waits == Waits::Scheduled);
        found.push((record.offset, owed.delivery));
        ControlFlow::Continue(())
    };
    let rest = owing.each(waits, 0, &mut Budget::new(), take).await;
    assert_eq!(rest, Ok(None));
    found
}

#[tokio::test]
async fn without_a_snapshot_the_lane_says_it_from_its_start() {
    let lane = Lane::of(vec![
        deliver(0, ENDPOINT, 0),
        deliver(1, STRANGER, 0),
        deliver(2, ENDPOINT, DUE),
        deliver(3, ENDPOINT, DUE),
        deliver(4, ENDPOINT, 0),
        // One part of two: its owner came no further.
        snapshot(1, 2, 0, 2),
        deliver(6, ENDPOINT, 0),
        deliver(7, STRANGER, DUE),
        done(2),
        done(4),
        Bytes::from_static(&[99, 1]),
    ])
    .await;
    let owing = lane.owing().await;
    assert_eq!(all(&owing, Waits::Held).await, [(0, id(0)), (6, id(6))]);
    assert_eq!(all(&owing, Waits::Scheduled).await, [(3, id(3))]);
    let scheduled = owing.scheduled().map(|(owed, at)| (owed.delivery, at));
    assert_eq!(scheduled.collect::<Vec<_>>(), [(id(3), 3)]);
    lane.log.close();
}

#[tokio::test]
async fn the_last_whole_snapshot_counts_and_what_came_since_its_upto() {
    let lane = Lane::of(vec![
        deliver(0, ENDPOINT, 0),
        deliver(1, ENDPOINT, 0),
        deliver(2, ENDPOINT, 0),
        // Not in the snapshot, which was on its way.
        deliver(3, ENDPOINT, DUE),
        snapshot(1, 2, 0, 1),
        snapshot(1, 3, 0, 2),
        // Another owner's, of which a part is missing.
        snapshot(2, 4, 0, 2),
        snapshot(1, 3, 1, 2),
        deliver(8, ENDPOINT, 0),
        done(3),
    ])
    .await;
    let owing = lane.owing().await;
    // The snapshot says that nothing of the first is owed, and of the second
    // something that the log does not.
    assert_eq!(all(&owing, Waits::Held).await, [(2, id(2)), (8, id(8))]);
    assert_eq!(all(&owing, Waits::Scheduled).await, [(1, id(99))]);
    lane.append(vec![done(1), done(2)]).await;
    let owing = lane.owing().await;
    assert_eq!(all(&owing, Waits::Held).await, [(8, id(8))]);
    assert_eq!(all(&owing, Waits::Scheduled).await, []);
    lane.log.close();
}

#[tokio::test]
async fn a_look_goes_on_where_it_ended() {
    let held = (0..9).map(|number| deliver(number, ENDPOINT, 0));
    let timers = (9..12).map(|number| deliver(number, ENDPOINT, DUE));
    let lane = Lane::of(held.chain(timers).collect()).await;
    let owing = lane.owing().await;
    for (waits, wanted) in [(Waits::Held, 0..9), (Waits::Scheduled, 9..12)] {
        for spent in [false, true] {
            let (mut from, mut seen, mut looks) = (0, Vec::new(), 0);
            loop {
                let mut budget = Budget::new();
                if spent {
                    // One read is what it takes.
                    budget.bytes = 1;
                }
                let before = seen.len();
                let take = |record: &Record, _: Owed| {
                    if !spent && seen.len() == before + 2 {
                        return ControlFlow::Break(());
                    }
                    seen.push(record.offset);
                    ControlFlow::Continue(())
                };
                let rest = owing.each(waits, from, &mut budget, take).await.unwrap();
                looks += 1;
                let Some(rest) = rest else { break };
                assert_eq!(rest.ended_by, spent.then_some(Bound::Bytes));
                from = rest.from;
            }
            assert_eq!(seen, wanted.clone().collect::<Vec<_>>());
            assert!(looks > 1);
        }
    }
    let mut nothing = Budget::of_lane();
    nothing.bytes = 1;
    let owing = Owing::of(&lane.log, lane.tp.clone(), ENDPOINT, &mut nothing).await;
    assert!(owing.unwrap().is_err(), "too much was read");
    lane.log.close();
}
