use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::clock::Clock;
use crate::log::embedded::EmbeddedLog;
use crate::log::{Cleanup, NewRecord, TopicSpec};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const TOPIC: ByteString = ByteString::from_static("dead");

/// A topic of three partitions, with letters of these times.
async fn log(letters: &[(u32, u64)]) -> (tempfile::TempDir, EmbeddedLog) {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::start();
    let log = EmbeddedLog::open(dir.path(), Arc::new(move || clock.now())).unwrap();
    let spec = TopicSpec {
        name: TOPIC,
        partitions: 3,
        cleanup: Cleanup::Delete {
            retention: std::time::Duration::from_secs(3_600),
        },
        record_bytes_max: 1024 * 1024,
    };
    log.verify(&[spec]).await.unwrap();
    write(&log, letters).await;
    (dir, log)
}

async fn write(log: &EmbeddedLog, letters: &[(u32, u64)]) {
    for &(partition, at_ms) in letters {
        let dead = proto::Dead {
            at_ms,
            record: vec![7; 100 * 1024].into(),
            ..proto::Dead::default()
        };
        append(log, partition, dead.to_value()).await;
    }
}

async fn append(log: &EmbeddedLog, partition: u32, value: Bytes) {
    let record = NewRecord {
        to: TopicPartition {
            topic: TOPIC,
            partition,
        },
        key: Bytes::new(),
        value,
        headers: Vec::new(),
    };
    assert!(log.append(vec![record]).await[0].is_ok());
}

/// Reads pages of `size`, each from the text of the cursor before, to the end.
async fn pages(log: &EmbeddedLog, size: usize, only: Option<u32>) -> Vec<u64> {
    let mut cursor = Some(Cursor::open(log, &TOPIC, NOW, only, None).await.unwrap());
    let mut seen = Vec::new();
    while let Some(at) = cursor {
        let at: Cursor = at.to_string().parse().unwrap();
        assert_eq!(at.asked_at, NOW);
        let mut scan = Scan::from(log, &TOPIC, at).await.unwrap();
        for _ in 0..size {
            if let Some(letter) = scan.next().await.unwrap() {
                seen.push(letter.told.at().as_millis());
            }
        }
        cursor = scan.rest();
    }
    seen
}

#[tokio::test]
async fn partitions_come_as_one_stream_whatever_the_page() {
    let letters = [
        (0, 1),
        (1, 2),
        (0, 3),
        (2, 4),
        (1, 5),
        (0, 6),
        (0, 7),
        (2, 8),
    ];
    let (_dir, log) = log(&letters).await;
    for size in [1, 2, 3, 100] {
        assert_eq!(pages(&log, size, None).await, [1, 2, 3, 4, 5, 6, 7, 8]);
    }
    assert_eq!(pages(&log, 2, Some(0)).await, [1, 3, 6, 7]);
}

#[tokio::test]
async fn it_ends_where_the_topic_ended_when_it_began() {
    let (_dir, log) = log(&[(0, 1), (1, 2)]).await;
    let cursor = Cursor::open(&log, &TOPIC, NOW, None, None).await.unwrap();
    write(&log, &[(0, 3), (2, 4)]).await;
    let mut scan = Scan::from(&log, &TOPIC, cursor).await.unwrap();
    assert!(scan.rest().is_some());
    for at_ms in [1, 2] {
        let letter = scan.next().await.unwrap().unwrap();
        assert_eq!((letter.told.at().as_millis(), letter.offset), (at_ms, 0));
    }
    assert!(scan.next().await.unwrap().is_none());
    assert_eq!(scan.rest(), None);
}

#[tokio::test]
async fn enough_at_once_ends_a_page_and_loses_nothing() {
    let letters: Vec<_> = (1..=9)
        .map(|at| (u32::try_from(at % 3).unwrap(), at))
        .collect();
    let (_dir, log) = log(&letters).await;
    let mut cursor = Some(Cursor::open(&log, &TOPIC, NOW, None, None).await.unwrap());
    let (mut seen, mut rounds) = (Vec::new(), 0);
    while let Some(at) = cursor {
        let mut scan = Scan::from(&log, &TOPIC, at).await.unwrap();
        scan.left = 1;
        while let Some(letter) = scan.next().await.unwrap() {
            seen.push(letter.told.at().as_millis());
        }
        cursor = scan.rest();
        rounds += 1;
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert!(rounds > 1);
}

#[tokio::test]
async fn what_cannot_be_read_is_met_with_what_is_wrong() {
    let (_dir, log) = log(&[]).await;
    append(&log, 1, Bytes::from_static(b"\x63newer")).await;
    let cursor = Cursor::open(&log, &TOPIC, NOW, None, None).await.unwrap();
    let mut scan = Scan::from(&log, &TOPIC, cursor).await.unwrap();
    let letter = scan.next().await.unwrap().unwrap();
    assert_eq!((letter.partition, letter.offset), (1, 0));
    assert!(letter.told.at() > Timestamp::default() && letter.told.whose().is_none());
    let Told::One(dead) = letter.told else {
        panic!("{letter:?}");
    };
    assert!(dead.detail.contains("record type 99"));
}

#[tokio::test]
async fn a_letter_for_many_is_met_as_what_it_is() {
    let (_dir, log) = log(&[(1, 7)]).await;
    let many = proto::DeadRange {
        endpoint_id: vec![3; 16].into(),
        tenant: "acme".to_owned(),
        count: 40,
        at_ms: 5,
        ..Default::default()
    };
    append(&log, 2, many.to_value()).await;
    let cursor = Cursor::open(&log, &TOPIC, NOW, None, None).await.unwrap();
    let mut scan = Scan::from(&log, &TOPIC, cursor).await.unwrap();
    let letter = scan.next().await.unwrap().unwrap();
    assert_eq!(letter.told.whose(), Some(("acme", &[3; 16][..])));
    assert_eq!(letter.told, Told::Many(many), "the oldest comes first");
    let last = scan.next().await.unwrap().unwrap();
    assert!(matches!(last.told, Told::One(_)));
}

#[test]
fn what_is_no_cursor_is_refused() {
    for text in [
        "",
        "7",
        "7.",
        "7.1",
        "7.2-1",
        "7.1-2.",
        "7.a-b",
        "7.1-2,3-4",
        "7.-1-2",
        "x.1-2",
        "7.1-99999999999999999999",
    ] {
        assert_eq!(text.parse::<Cursor>(), Err(NoCursor), "{text}");
    }
    let cursor: Cursor = "7.0-2.3-3".parse().unwrap();
    assert_eq!(cursor.to_string(), "7.0-2.3-3");
}
