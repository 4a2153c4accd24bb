use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::clock::Clock;
use crate::log::embedded::EmbeddedLog;
use crate::log::{Cleanup, NewRecord, TopicSpec};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const TOPIC: ByteString = ByteString::from_static("looked-at");
const RECORDS: u64 = 400;

/// A topic of three partitions, one of them empty, with numbered records.
async fn log() -> (tempfile::TempDir, EmbeddedLog, Vec<TopicPartition>) {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::start();
    let log = EmbeddedLog::open(dir.path(), Arc::new(move || clock.now())).unwrap();
    let spec = TopicSpec {
        name: TOPIC,
        partitions: 3,
        cleanup: Cleanup::Delete {
            retention: Duration::from_secs(3_600),
        },
        record_bytes_max: 1024 * 1024,
    };
    log.verify(&[spec]).await.unwrap();
    let places = partitions(&log, &[TOPIC]).await.unwrap();
    write(&log, &places, 0..RECORDS).await;
    (dir, log, places)
}

async fn write(log: &EmbeddedLog, places: &[TopicPartition], numbers: std::ops::Range<u64>) {
    let record = |number: u64| NewRecord {
        // Four of five in the first one.
        to: places[usize::from(number.is_multiple_of(5))].clone(),
        key: Bytes::new(),
        value: Bytes::from([&number.to_be_bytes()[..], &[0; 1_000]].concat()),
        headers: Vec::new(),
    };
    let written = log.append(numbers.map(record).collect()).await;
    assert!(written.iter().all(Result::is_ok));
}

fn budget(bytes: usize) -> Budget {
    Budget {
        bytes,
        ..Budget::new()
    }
}

fn numbers(pieces: &[Piece]) -> Vec<u64> {
    let records = pieces.iter().flat_map(|piece| &piece.records);
    let number = |r: &Record| u64::from_be_bytes(r.value[..8].try_into().unwrap());
    records.map(number).collect()
}

/// All items of the topic, page by page; a look takes so many bytes. Answers how
/// many looks there were.
async fn pages(
    log: &EmbeddedLog,
    places: &[TopicPartition],
    limit: usize,
    bytes: usize,
) -> (Vec<u64>, usize) {
    let mut next = Some(Cursor::open(log, places, NOW, None, None).await.unwrap());
    let (mut seen, mut looks) = (Vec::new(), 0);
    // What comes meanwhile is on none of them.
    write(log, places, RECORDS + 1_000..RECORDS + 1_010).await;
    while let Some(cursor) = next {
        let mut cursor: Cursor = cursor.to_string().parse().unwrap();
        let mut back = cursor.look(log, places);
        let mut budget = budget(if cursor.is_fixed() { usize::MAX } else { bytes });
        looks += usize::from(!cursor.is_fixed());
        let mut items = Vec::new();
        while let Some(pieces) = back.next(&mut budget).await.unwrap() {
            for number in numbers(&pieces) {
                let at = Timestamp::from_millis(number);
                items.push((Key { at, id: 7 }, number));
            }
        }
        cursor.looked(&back).ok().unwrap();
        let (page, rest) = cut(items, cursor, limit);
        assert!(page.len() <= limit && page.is_sorted_by(|a, b| a >= b));
        seen.extend(page);
        next = rest;
    }
    (seen, looks)
}

#[tokio::test]
async fn pages_neither_lose_nor_repeat() {
    let (_dir, log, places) = log().await;
    for (limit, bytes, looks_min) in [(7, usize::MAX, 1), (1_000, 1, 3), (50, 100 * 1_024, 3)] {
        let (mut seen, looks) = pages(&log, &places, limit, bytes).await;
        assert!(looks >= looks_min, "{looks} looks");
        if looks == 1 {
            assert!(seen.is_sorted_by(|a, b| a > b), "newest first");
        }
        seen.retain(|number| *number < RECORDS);
        seen.sort_unstable();
        assert_eq!(seen, (0..RECORDS).collect::<Vec<_>>(), "{limit}, {bytes}");
    }
    log.close();
}

#[tokio::test]
async fn a_look_says_what_ended_it_and_how_far_it_came() {
    let (_dir, log, places) = log().await;
    let cursor = Cursor::open(&log, &places, NOW, None, None).await.unwrap();
    let mut back = cursor.look(&log, &places);
    let first = back.next(&mut budget(1)).await.unwrap().unwrap();
    // The newest of each partition.
    assert!(numbers(&first).contains(&(RECORDS - 1)));
    assert!(back.next(&mut budget(0)).await.unwrap().is_none());
    assert_eq!(back.ended_by, Some(Bound::Bytes));
    assert!(back.reached().is_some());
    let mut late = Budget {
        until: Instant::now(),
        ..Budget::new()
    };
    assert!(back.next(&mut late).await.unwrap().is_none());
    assert_eq!(back.ended_by, Some(Bound::Time));
    while back.next(&mut Budget::new()).await.unwrap().is_some() {}
    assert_eq!((back.ended_by, back.reached()), (None, None));
    let mut ahead = Ahead::open(&log, places, Timestamp::default(), None)
        .await
        .unwrap();
    assert!(ahead.next(&mut budget(0)).await.unwrap().is_none());
    assert_eq!(ahead.ended_by, Some(Bound::Bytes));
    log.close();
}

#[tokio::test]
async fn forward_every_record_of_the_time_is_met_once() {
    let (_dir, log, places) = log().await;
    let mut all = Ahead::open(&log, places.clone(), Timestamp::default(), None)
        .await
        .unwrap();
    let mut times = BTreeMap::new();
    while let Some(pieces) = all.next(&mut Budget::new()).await.unwrap() {
        let records = pieces.iter().flat_map(|piece| &piece.records);
        let seen = numbers(&pieces)
            .into_iter()
            .zip(records.map(|r| r.timestamp));
        for (number, at) in seen {
            assert_eq!(times.insert(number, at), None, "{number} twice");
        }
    }
    assert_eq!((times.len(), all.reached()), (400, None));
    // All of one moment, and nothing else.
    let moment = times[&200];
    let after = moment.after(Duration::from_millis(1));
    let mut of_moment = Ahead::open(&log, places, moment, Some(after))
        .await
        .unwrap();
    let mut found = Vec::new();
    while let Some(pieces) = of_moment.next(&mut Budget::new()).await.unwrap() {
        found.extend(numbers(&pieces));
    }
    found.sort_unstable();
    let wanted = times.iter().filter(|(_, at)| **at == moment);
    assert_eq!(found, wanted.map(|(number, _)| *number).collect::<Vec<_>>());
    log.close();
}

#[test]
fn what_is_no_cursor_is_refused() {
    for text in [
        "",
        "x",
        "1~2",
        "1~2~z.0",
        "1.",
        "1.a",
        "1.1--1",
        "1.18446744073709551615-1",
    ] {
        assert!(text.parse::<Cursor>().is_err(), "{text}");
    }
    for text in ["1", "1.0", "1.5-2-3.7", "1~2~ff.5-0-1"] {
        let read = text.parse::<Cursor>().unwrap();
        assert_eq!(read.to_string(), text);
    }
}
