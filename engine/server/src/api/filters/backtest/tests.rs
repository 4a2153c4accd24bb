use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::config::Config;
use crate::log::embedded::EmbeddedLog;
use crate::log::{Cleanup, NewRecord, TopicSpec};

const TOPIC: ByteString = ByteString::from_static("events");
const START_MS: u64 = 1_700_000_000_000;
const HOUR: u64 = 3_600_000;
/// Of each body.
const BODY_BYTES: usize = 10_000;

struct Events {
    log: EmbeddedLog,
    now: Arc<AtomicU64>,
    _dir: tempfile::TempDir,
}

impl Events {
    async fn kept(retention_hours: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = Arc::new(AtomicU64::new(START_MS));
        let clock = Arc::clone(&now);
        let clock = move || Timestamp::from_millis(clock.load(Ordering::Relaxed));
        let log = EmbeddedLog::open(dir.path(), Arc::new(clock)).unwrap();
        let spec = TopicSpec {
            name: TOPIC,
            partitions: 2,
            cleanup: Cleanup::Delete {
                retention: Duration::from_millis(retention_hours * HOUR),
            },
            record_bytes_max: 1024 * 1024,
        };
        log.verify(&[spec]).await.unwrap();
        Self {
            log,
            now,
            _dir: dir,
        }
    }

    async fn append(&self, partition: u32, headers: &[(&'static str, &'static str)], body: String) {
        let headers = headers.iter().map(|&(name, value)| {
            let value = Bytes::from_static(value.as_bytes());
            (ByteString::from_static(name), value)
        });
        let record = NewRecord {
            to: TopicPartition {
                topic: TOPIC,
                partition,
            },
            key: Bytes::new(),
            value: body.into(),
            headers: headers.collect(),
        };
        assert!(self.log.append(vec![record]).await[0].is_ok());
    }

    /// An event an hour in each partition: of the even hours they match.
    async fn fill(&self, hours: u64) {
        for hour in 0..hours {
            self.now.store(START_MS + hour * HOUR, Ordering::Relaxed);
            let amount = if hour % 2 == 0 { 100 } else { 1 };
            let padding = "x".repeat(BODY_BYTES);
            let body = format!(r#"{{"amount":{amount},"padding":"{padding}"}}"#);
            for (partition, tenant) in [(0, "acme"), (1, "other")] {
                let headers = [("webhook-type", "invoice.paid"), ("webhook-tenant", tenant)];
                self.append(partition, &headers, body.clone()).await;
            }
        }
    }

    async fn run(&self, wanted: &Wanted, hours: std::ops::Range<u64>, budget: Budget) -> Report {
        let decoder = Decoder::new(&Config::default()).unwrap();
        let range = Range {
            since: Timestamp::from_millis(START_MS + hours.start * HOUR),
            until: Timestamp::from_millis(START_MS + hours.end * HOUR),
        };
        run(&self.log, &decoder, &[TOPIC], range, wanted, budget)
            .await
            .unwrap()
    }
}

fn wanted(filter: &str) -> Wanted {
    Wanted {
        filters: vec![Filter::parse(filter).unwrap()],
        tenant: None,
        event_types: vec![],
        samples: 3,
    }
}

fn budget(bytes: usize) -> Budget {
    Budget {
        bytes,
        until: Instant::now() + Duration::from_secs(60),
    }
}

#[tokio::test]
async fn it_counts_what_passes_within_the_time_asked_for() {
    let events = Events::kept(1_000).await;
    events.fill(10).await;
    let large = wanted(r#"{"amount": {"$gte": 100}}"#);
    let report = events.run(&large, 0..10, budget(1 << 30)).await;
    assert_eq!((report.matched, report.scanned), (10, 20));
    assert_eq!((report.ended_by, report.estimated_per_hour), (None, 1));
    assert_eq!(report.samples.len(), 3);
    let sample = &report.samples[0];
    assert_eq!((sample.offset, &*sample.event_type), (0, "invoice.paid"));
    assert_eq!(sample.at, "2023-11-14T22:13:20Z");

    let report = events.run(&large, 3..6, budget(1 << 30)).await;
    assert_eq!((report.matched, report.scanned), (2, 6));
    let reached = report.partitions.iter().map(|p| (p.from, p.next, p.to));
    assert_eq!(reached.collect::<Vec<_>>(), [(3, 6, 6), (3, 6, 6)]);

    let acme = Wanted {
        tenant: Some("acme".into()),
        event_types: vec![vec!["invoice.*".parse().unwrap()]],
        ..wanted(r#"{"$headers.webhook-tenant": {"$exists": true}}"#)
    };
    let report = events.run(&acme, 0..10, budget(1 << 30)).await;
    assert_eq!((report.matched, report.scanned), (10, 10));
    let none = Wanted {
        event_types: vec![vec!["order.*".parse().unwrap()]],
        ..acme
    };
    assert_eq!(events.run(&none, 0..10, budget(1 << 30)).await.scanned, 0);
}

#[tokio::test]
async fn what_is_no_event_and_what_cannot_be_read_is_told_apart() {
    let events = Events::kept(1_000).await;
    let routed = [("webhook-type", "a"), ("webhook-tenant", "acme")];
    events.append(0, &routed, "no JSON".to_owned()).await;
    events.append(0, &[], "no event".to_owned()).await;
    events.append(1, &routed, r#"{"a":1}"#.to_owned()).await;
    let report = events
        .run(&wanted(r#"{"a": 1}"#), 0..1, budget(1 << 30))
        .await;
    let counts = (report.matched, report.scanned, report.undecided);
    assert_eq!((counts, report.malformed), ((1, 2, 1), 1));
}

#[tokio::test]
async fn a_bound_ends_it_and_it_says_how_far_it_came() {
    let events = Events::kept(1_000).await;
    events.fill(100).await;
    let all = wanted("{}");
    let report = events.run(&all, 0..100, budget(60 * BODY_BYTES)).await;
    assert_eq!(report.ended_by, Some(Bound::Bytes));
    assert!((30..120).contains(&report.scanned), "{}", report.scanned);
    for part in &report.partitions {
        assert!(part.from < part.next && part.next < part.to, "{part:?}");
    }
    let read: u64 = report.partitions.iter().map(|part| part.next).sum();
    assert_eq!(report.scanned, read);
    // Two an hour, of the hours that were read.
    assert_eq!(report.estimated_per_hour, 2);
    let late = Budget {
        until: Instant::now(),
        ..budget(1 << 30)
    };
    let decoder = Decoder::new(&Config::default()).unwrap();
    let range = Range {
        since: Timestamp::from_millis(START_MS),
        until: Timestamp::from_millis(START_MS + HOUR),
    };
    match run(&events.log, &decoder, &[TOPIC], range, &all, late).await {
        Ok(report) => assert_eq!((report.ended_by, report.scanned), (Some(Bound::Time), 0)),
        Err(error) => assert!(error.to_string().contains("too long"), "{error}"),
    }
}

#[tokio::test]
async fn what_the_topic_keeps_no_more_is_not_counted_as_quiet() {
    let events = Events::kept(24).await;
    events.fill(100).await;
    let report = events.run(&wanted("{}"), 0..100, budget(1 << 30)).await;
    let first = report.partitions[0].from;
    assert!(first > 50 && report.scanned < 100, "from {first}");
    assert_eq!((report.ended_by, report.estimated_per_hour), (None, 2));
}
