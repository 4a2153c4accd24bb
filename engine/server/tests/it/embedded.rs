//! The log on SQLite, held to the contract, and to what only it promises.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use posthaste::log::embedded::{Clock, EmbeddedLog};
use posthaste::log::{Log, LogError, Start, TopicPartition};
use posthaste_core::time::Timestamp;
use tempfile::TempDir;

use crate::contract::{Harness, Member, RETENTION, fill, place, record, spec};

struct EmbeddedHarness {
    dir: TempDir,
    log: EmbeddedLog,
    /// Milliseconds the clock was put forward.
    skipped: Arc<AtomicU64>,
    clock: Clock,
}

contract!(EmbeddedHarness);

impl Harness for EmbeddedHarness {
    const PATIENCE: Duration = Duration::from_secs(20);
    const QUIET: Duration = Duration::from_millis(300);

    async fn fresh() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let skipped = Arc::new(AtomicU64::new(0));
        let clock = clock(Arc::clone(&skipped));
        let log = EmbeddedLog::open(dir.path(), Arc::clone(&clock)).unwrap();
        Self {
            dir,
            log,
            skipped,
            clock,
        }
    }

    fn log(&self) -> &dyn Log {
        &self.log
    }

    async fn reopen(self) -> Self {
        self.log.close();
        let log = EmbeddedLog::open(self.dir.path(), Arc::clone(&self.clock)).unwrap();
        Self { log, ..self }
    }

    async fn trim(&self, tp: &TopicPartition) -> bool {
        self.skipped.fetch_add(2 * 3_600_000, Ordering::Relaxed);
        let (_, end) = self.log.bounds(tp).await.unwrap();
        let started = Instant::now();
        while self.log.bounds(tp).await.unwrap().0 < end {
            // Whatever the writer does makes it look at the clock.
            self.log.verify(&[]).await.unwrap();
            assert!(started.elapsed() < Self::PATIENCE, "nothing was trimmed");
        }
        true
    }
}

fn clock(skipped: Arc<AtomicU64>) -> Clock {
    let started = Instant::now();
    Arc::new(move || {
        let skipped = Duration::from_millis(skipped.load(Ordering::Relaxed));
        Timestamp::from_millis(1_700_000_000_000).after(started.elapsed() + skipped)
    })
}

fn copy(from: &Path, to: &Path) {
    for file in ["posthaste.db", "posthaste.db-wal"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
}

#[tokio::test]
async fn what_was_acknowledged_outlives_a_kill() {
    let harness = EmbeddedHarness::fresh().await;
    let tp = place(&harness.topic(1).await, 0);
    for round in 0..5 {
        fill(&harness.log, &tp, 3).await;
        // The files as a process killed at this moment leaves them.
        let crashed = tempfile::tempdir().unwrap();
        copy(harness.dir.path(), crashed.path());
        let log = EmbeddedLog::open(crashed.path(), Arc::clone(&harness.clock)).unwrap();
        let acknowledged = 3 * (round + 1);
        assert_eq!(log.bounds(&tp).await, Ok((0, acknowledged)));
        let (read, next) = log.read(&tp, 0, 1 << 20).await.unwrap();
        assert_eq!(read.len() as u64, acknowledged);
        assert_eq!(next, acknowledged);
        assert_eq!(fill(&log, &tp, 1).await, [acknowledged]);
    }
}

#[tokio::test]
async fn a_folder_has_one_holder() {
    let harness = EmbeddedHarness::fresh().await;
    let dir = harness.dir.path();
    let Err(LogError::Other(why)) = EmbeddedLog::open(dir, Arc::clone(&harness.clock)) else {
        panic!("two logs hold one folder");
    };
    assert!(
        why.contains(dir.to_str().unwrap()) && why.contains("in use"),
        "{why}"
    );
    harness.log.close();
    assert!(EmbeddedLog::open(dir, Arc::clone(&harness.clock)).is_ok());
}

#[tokio::test]
async fn a_damaged_file_is_named() {
    let harness = EmbeddedHarness::fresh().await;
    harness.log.close();
    let file = harness.dir.path().join("posthaste.db");
    std::fs::write(&file, vec![b'?'; 64 * 1024]).unwrap();
    let opened = EmbeddedLog::open(harness.dir.path(), Arc::clone(&harness.clock));
    let Err(LogError::Other(why)) = opened else {
        panic!("damage was not noticed");
    };
    assert!(
        why.contains(file.to_str().unwrap()) && why.contains("damaged"),
        "{why}"
    );
}

#[tokio::test]
async fn closing_tells_those_who_still_listen() {
    let harness = EmbeddedHarness::fresh().await;
    let topic = harness.topic(1).await;
    let mut member = Member::new::<EmbeddedHarness>(harness.log.follow(&topic).unwrap());
    member.until("assigned", |m| m.assigned.len() == 1).await;
    harness.log.close();
    member.until("told", |m| m.fatal.is_some()).await;
    let answers = harness
        .log
        .append(vec![record(&place(&topic, 0), "k", "v")])
        .await;
    assert!(answers[0].is_err());
}

#[tokio::test]
async fn settings_that_may_change_do() {
    let harness = EmbeddedHarness::fresh().await;
    let mut wanted = spec(1, RETENTION);
    harness.log.verify(&[wanted.clone()]).await.unwrap();
    wanted.record_bytes_max = 10;
    harness.log.verify(&[wanted.clone()]).await.unwrap();
    let harness = harness.reopen().await;
    let found = harness.log.describe(&wanted.name).await.unwrap();
    assert_eq!(found.record_bytes_max, 10);
}

#[tokio::test]
async fn members_that_come_and_go_leave_an_even_split() {
    let harness = EmbeddedHarness::fresh().await;
    let topic = harness.topic(8).await;
    let mut one = Member::join(&harness, "g", &[&topic], Start::Earliest);
    for round in 0..30 {
        let passing = Member::join(&harness, "g", &[&topic], Start::Earliest);
        if round % 3 == 0 {
            drop(passing);
        } else {
            // Left while partitions are on their way to it.
            let mut passing = passing;
            let _ = tokio::time::timeout(Duration::from_millis(round), async {
                tokio::join!(one.step(), passing.step())
            })
            .await;
        }
        one.release();
    }
    let mut two = Member::join(&harness, "g", &[&topic], Start::Earliest);
    let sharing = async {
        while one.assigned.len() != 4 || two.assigned.len() != 4 {
            tokio::select! {
                () = one.step() => {}
                () = two.step() => {}
            }
            one.release();
            two.release();
        }
    };
    let shared = tokio::time::timeout(EmbeddedHarness::PATIENCE, sharing).await;
    let held = (one.assigned.len(), two.assigned.len());
    assert!(shared.is_ok(), "{held:?} of 8 partitions are held");
    let both: std::collections::BTreeSet<_> =
        one.assigned.keys().chain(two.assigned.keys()).collect();
    assert_eq!(both.len(), 8, "a partition is held twice");
}
