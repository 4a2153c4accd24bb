use std::sync::atomic::AtomicU64;
use std::time::Instant;

use bytes::Bytes;
use rusqlite::Connection;

use super::super::{Cleanup, GroupEvent};
use super::*;

struct Fixture {
    dir: tempfile::TempDir,
    log: EmbeddedLog,
    now: Arc<AtomicU64>,
}

const HOUR: Duration = Duration::from_secs(3_600);

async fn fixture(cleanup: Cleanup) -> (Fixture, TopicPartition) {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicU64::new(1_700_000_000_000));
    let clock = Arc::clone(&now);
    let clock: Clock = Arc::new(move || Timestamp::from_millis(clock.load(Ordering::Relaxed)));
    let log = EmbeddedLog::open(dir.path(), clock).unwrap();
    let spec = TopicSpec {
        name: "t".into(),
        partitions: 4,
        cleanup,
        record_bytes_max: 1 << 20,
    };
    log.create(&[spec]).await.unwrap();
    let tp = TopicPartition {
        topic: "t".into(),
        partition: 0,
    };
    (Fixture { dir, log, now }, tp)
}

impl Fixture {
    fn pass(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap();
        self.now.fetch_add(millis, Ordering::Relaxed);
    }

    fn count(&self, sql: &str) -> i64 {
        let db = Connection::open(self.dir.path().join("posthaste.db")).unwrap();
        db.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    async fn pages_max(&self, pages: i64) {
        let op = Op::PagesMax(pages);
        assert!(self.log.handle.shared.ops.send(op).await.is_ok());
    }

    async fn starts_at(&self, tp: &TopicPartition, start: Offset) {
        let begun = Instant::now();
        while self.log.bounds(tp).await.unwrap().0 != start {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "{:?}",
                self.log.bounds(tp).await
            );
            self.log.verify(&[]).await.unwrap();
        }
    }
}

fn record(to: &TopicPartition, key: &str, bytes: usize) -> NewRecord {
    NewRecord {
        to: to.clone(),
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: vec![b'v'; bytes].into(),
        headers: Vec::new(),
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_passes() {
    let (fixture, tp) = fixture(Cleanup::Delete { retention: HOUR }).await;
    let large = || record(&tp, "k", 1 << 19);
    assert_eq!(fixture.log.append(vec![large()]).await, [Ok(0)]);
    fixture.pages_max(80).await;
    let answers = fixture.log.append(vec![large(), large()]).await;
    for answer in &answers {
        assert!(
            matches!(answer, Err(AppendError::Unknown(why)) if why.contains("is full")),
            "{answer:?}"
        );
    }
    assert_eq!(fixture.log.bounds(&tp).await, Ok((0, 1)));
    fixture.pages_max(1 << 20).await;
    let answers = fixture.log.append(vec![large(), large()]).await;
    assert_eq!(answers, [Ok(1), Ok(2)]);
    let (read, next) = fixture.log.read(&tp, 0, 1 << 24).await.unwrap();
    assert_eq!((read.len(), next), (3, 3));
}

#[tokio::test]
async fn compaction_deletes_what_it_replaces() {
    let (fixture, tp) = fixture(Cleanup::Compact).await;
    let other = TopicPartition {
        partition: 1,
        ..tp.clone()
    };
    let keys = ["a", "b", "a", "a"];
    let records = keys.map(|key| record(&tp, key, 10)).to_vec();
    fixture.log.append(records).await;
    fixture
        .log
        .append(vec![record(&tp, "b", 0), record(&other, "a", 1)])
        .await;
    assert_eq!(fixture.count("SELECT count(*) FROM records"), 3);
    let (read, next) = fixture.log.read(&tp, 0, 1 << 20).await.unwrap();
    let offsets: Vec<_> = read.iter().map(|r| r.offset).collect();
    assert_eq!((offsets, next), (vec![3, 4], 5));
    assert!(read[1].value.is_empty(), "a tombstone stays");
    fixture.pass(1_000 * HOUR);
    fixture.log.verify(&[]).await.unwrap();
    assert_eq!(fixture.log.bounds(&tp).await, Ok((0, 5)));
    let keyless = fixture.log.append(vec![record(&tp, "", 1)]).await;
    assert!(matches!(&keyless[..], [Err(AppendError::Refused(_))]));
}

#[tokio::test]
async fn age_takes_the_oldest_and_no_others() {
    let (fixture, tp) = fixture(Cleanup::Delete { retention: HOUR }).await;
    let other = TopicPartition {
        partition: 3,
        ..tp.clone()
    };
    let many = || (0..700).map(|_| record(&tp, "k", 10)).collect();
    fixture.log.append(many()).await;
    fixture.pass(HOUR / 2);
    fixture.log.append(many()).await;
    fixture.log.append(vec![record(&other, "k", 10)]).await;
    fixture.pass(HOUR / 2);
    fixture.log.verify(&[]).await.unwrap();
    assert_eq!(
        fixture.log.bounds(&tp).await,
        Ok((0, 1_400)),
        "an hour, not more"
    );
    fixture.pass(Duration::from_secs(61));
    fixture.starts_at(&tp, 700).await;
    assert_eq!(fixture.log.bounds(&other).await, Ok((0, 1)));
    fixture.pass(HOUR);
    fixture.starts_at(&tp, 1_400).await;
    fixture.starts_at(&other, 1).await;
    assert_eq!(fixture.count("SELECT count(*) FROM records"), 0);
    assert_eq!(
        fixture.log.append(vec![record(&tp, "k", 1)]).await,
        [Ok(1_400)]
    );
}

#[tokio::test]
async fn room_that_became_free_is_given_back() {
    let (fixture, tp) = fixture(Cleanup::Delete { retention: HOUR }).await;
    for _ in 0..12 {
        let records = (0..8).map(|_| record(&tp, "k", 1_000_000)).collect();
        assert!(fixture.log.append(records).await.iter().all(Result::is_ok));
    }
    let pages = fixture.count("PRAGMA page_count");
    assert!(pages > 8_192, "{pages} pages");
    fixture.pass(2 * HOUR);
    fixture.starts_at(&tp, 96).await;
    let begun = Instant::now();
    while fixture.count("PRAGMA page_count") > pages / 2 {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "the file kept its size"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn partitions_take_turns() {
    let (fixture, tp) = fixture(Cleanup::Delete { retention: HOUR }).await;
    let mut records = Vec::new();
    for partition in 0..4 {
        let to = TopicPartition {
            partition,
            ..tp.clone()
        };
        records.extend((0..600).map(|_| record(&to, "k", 10)));
    }
    fixture.log.append(records).await;
    let mut consumer = fixture.log.follow(&tp.topic).unwrap();
    let mut turns = Vec::new();
    while turns.len() < 12 {
        if let GroupEvent::Batch { tp, records, .. } = consumer.next().await {
            assert!(records.len() <= 256);
            turns.push(tp.partition);
        }
    }
    assert_eq!(turns, [0, 1, 2, 3].repeat(3));
}

#[tokio::test]
async fn a_member_that_never_drains_loses_the_partition() {
    let (fixture, tp) = fixture(Cleanup::Delete { retention: HOUR }).await;
    let topics = [tp.topic.clone()];
    let mut slow = fixture.log.join("g", &topics, Start::Earliest).unwrap();
    for _ in 0..4 {
        assert!(matches!(slow.next().await, GroupEvent::Assigned { .. }));
    }
    let begun = Instant::now();
    let mut next = fixture.log.join("g", &topics, Start::Earliest).unwrap();
    let GroupEvent::Revoking { tp, epoch, done } = slow.next().await else {
        panic!("nothing is asked back");
    };
    let (first, mut taken) = (next.next().await, Vec::new());
    assert!(begun.elapsed() >= Duration::from_secs(5));
    for event in [first, next.next().await] {
        if let GroupEvent::Assigned { tp, .. } = event {
            taken.push(tp);
        }
    }
    assert!(taken.contains(&tp));
    let late = slow.commit(&tp, epoch, 1, String::new()).await;
    assert_eq!(late, Err(super::super::CommitError::Stale));
    drop(done);
}
