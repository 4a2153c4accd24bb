//! Appending and reading outside any group.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use posthaste::log::{AppendError, LogError, NewRecord, Record};
use posthaste_core::time::Timestamp;

use super::{Harness, fill, place, record, spec, unique};

pub(crate) async fn what_is_appended_is_read<H: Harness>() {
    let harness = H::fresh().await;
    let tp = place(&harness.topic(2).await, 1);
    let written = vec![
        NewRecord {
            to: tp.clone(),
            key: Bytes::from_static(b"\x00\xffkey"),
            value: Bytes::from_static(b"value"),
            headers: vec![
                ("b".into(), Bytes::from_static(b"2")),
                ("a".into(), Bytes::new()),
                ("b".into(), Bytes::from_static(b"\xfe")),
            ],
        },
        record(&tp, "empty value", Bytes::new()),
        record(&tp, "", "no key"),
    ];
    let answers = harness.log().append(written.clone()).await;
    let offsets: Vec<_> = answers.into_iter().map(|answer| answer.unwrap()).collect();

    let (read, next) = harness.log().read(&tp, 0, 1 << 20).await.unwrap();
    assert_eq!(read.len(), written.len());
    for ((read, written), offset) in read.iter().zip(&written).zip(&offsets) {
        assert_eq!(read.offset, *offset);
        assert_eq!(read.key, written.key);
        assert_eq!(read.value, written.value);
        assert_eq!(read.headers, written.headers);
        assert!(read.timestamp > Timestamp::from_millis(1_500_000_000_000));
    }
    assert_eq!(next, offsets[2] + 1);
    let other = place(&tp.topic, 0);
    assert_eq!(harness.log().bounds(&other).await, Ok((0, 0)));
}

pub(crate) async fn a_value_of_one_mebibyte_is_read<H: Harness>() {
    let harness = H::fresh().await;
    let tp = place(&harness.topic(1).await, 0);
    let value: Vec<u8> = (0..1_048_576_u32).map(|n| (n % 251) as u8).collect();
    let answers = harness
        .log()
        .append(vec![record(&tp, "k", value.clone())])
        .await;
    assert_eq!(answers, [Ok(0)]);
    let (read, _) = harness.log().read(&tp, 0, 1).await.unwrap();
    assert_eq!(
        read.len(),
        1,
        "at least one record, however small the bound"
    );
    assert!(read[0].value == value, "the value changed on its way");
}

pub(crate) async fn answers_keep_the_order_of_each_partition<H: Harness>() {
    let harness = H::fresh().await;
    let topic = harness.topic(3).await;
    let writer = |writer: u32| {
        let harness = &harness;
        let topic = &topic;
        async move {
            let mut offsets = vec![Vec::new(); 3];
            for round in 0..10_u32 {
                let records: Vec<_> = (0..12)
                    .map(|n| record(&place(topic, n % 3), "k", format!("{writer}/{round}/{n}")))
                    .collect();
                for (n, answer) in harness.log().append(records).await.into_iter().enumerate() {
                    offsets[n % 3].push((answer.unwrap(), format!("{writer}/{round}/{n}")));
                }
            }
            offsets
        }
    };
    let answered = join_all((0..4).map(writer)).await;
    for partition in 0..3_u32 {
        let tp = place(&topic, partition);
        let (read, _) = harness.log().read(&tp, 0, 1 << 20).await.unwrap();
        let read: Vec<_> = read.iter().map(|r| (r.offset, text(r))).collect();
        assert_eq!(read.len(), 160, "4 writers, 10 rounds, 4 records each");
        assert!(read.is_sorted_by(|a, b| a.0 < b.0));
        let mut answers = Vec::new();
        for writer in &answered {
            let mine = &writer[partition as usize];
            assert!(mine.is_sorted_by(|a, b| a.0 < b.0), "a writer's order");
            answers.extend(mine.iter().cloned());
        }
        answers.sort();
        assert_eq!(read, answers, "each answer names its own record");
    }
}

fn text(record: &Record) -> String {
    String::from_utf8(record.value.to_vec()).unwrap()
}

pub(crate) async fn a_record_over_the_bound_is_too_large<H: Harness>() {
    let harness = H::fresh().await;
    let mut small = spec(1, super::RETENTION);
    small.record_bytes_max = 64 * 1024;
    harness
        .log()
        .create(std::slice::from_ref(&small))
        .await
        .unwrap();
    let tp = place(&small.name, 0);
    let records = vec![
        record(&tp, "k", "fits"),
        record(&tp, "k", vec![7; 70 * 1024]),
        record(&tp, "k", "fits too"),
    ];
    let answers = harness.log().append(records).await;
    assert_eq!(answers.len(), 3);
    assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
    let Err(AppendError::TooLarge { topic, bytes }) = &answers[1] else {
        panic!("{:?} is not TooLarge", answers[1]);
    };
    assert_eq!(*topic, small.name);
    assert!(*bytes >= 70 * 1024);
}

pub(crate) async fn an_unknown_topic_takes_nothing<H: Harness>() {
    let harness = H::fresh().await;
    let known = place(&harness.topic(1).await, 0);
    let unknown = place(&unique("unknown").into(), 0);
    let outside = place(&known.topic, 1);
    let records = vec![
        record(&unknown, "k", "v"),
        record(&known, "k", "v"),
        record(&outside, "k", "v"),
    ];
    let answers = harness.log().append(records).await;
    assert!(
        matches!(&answers[0], Err(AppendError::Refused(why)) if why.contains(&*unknown.topic)),
        "{:?}",
        answers[0]
    );
    assert_eq!(answers[1], Ok(0));
    assert!(
        matches!(&answers[2], Err(AppendError::Refused(_))),
        "{:?}",
        answers[2]
    );
}

pub(crate) async fn audit_appends_like_any_other<H: Harness>() {
    let harness = H::fresh().await;
    let tp = place(&harness.topic(1).await, 0);
    let answers = harness
        .log()
        .append_audit(vec![record(&tp, "k", "a"), record(&tp, "k", "b")])
        .await;
    assert_eq!(answers, [Ok(0), Ok(1)]);
    assert_eq!(harness.log().bounds(&tp).await, Ok((0, 2)));
}

pub(crate) async fn what_was_acknowledged_outlives_a_restart<H: Harness>() {
    let harness = H::fresh().await;
    let tp = place(&harness.topic(1).await, 0);
    fill(harness.log(), &tp, 5).await;
    let harness = harness.reopen().await;
    assert_eq!(harness.log().bounds(&tp).await, Ok((0, 5)));
    assert_eq!(fill(harness.log(), &tp, 1).await, [5]);
    let (read, next) = harness.log().read(&tp, 0, 1 << 20).await.unwrap();
    let values: Vec<_> = read.iter().map(text).collect();
    assert_eq!(values, ["0", "1", "2", "3", "4", "0"]);
    assert_eq!(next, 6);
}

pub(crate) async fn ten_mebibytes_pass_through_one_partition<H: Harness>() {
    let harness = H::fresh().await;
    let topic = harness.topic(1).await;
    let tp = place(&topic, 0);
    let value = Bytes::from(vec![b'x'; 16 * 1024]);
    for _ in 0..10 {
        let records = (0..64)
            .map(|n| record(&tp, &n.to_string(), value.clone()))
            .collect();
        let answers = harness.log().append(records).await;
        assert!(answers.iter().all(Result::is_ok));
    }
    let mut member = super::Member::new::<H>(harness.log().follow(&topic).unwrap());
    member.until("10 MiB", |m| m.count() == 640).await;
    assert_eq!(member.offsets(&tp), (0..640).collect::<Vec<_>>());
    assert!(member.records[&tp].iter().all(|r| r.value == value));
}

pub(crate) async fn a_read_ends_where_the_log_ends<H: Harness>() {
    let harness = H::fresh().await;
    let tp = place(&harness.topic(1).await, 0);
    fill(harness.log(), &tp, 3).await;
    let (read, next) = harness.log().read(&tp, 3, 1 << 20).await.unwrap();
    assert!(read.is_empty());
    assert_eq!(next, 3);
    let beyond = harness.log().read(&tp, 4, 1 << 20).await;
    assert_eq!(
        beyond.map(|(read, _)| read.len()),
        Err(LogError::OutOfRange {
            topic_partition: tp.clone(),
            offset: 4,
            start: 0,
            end: 3
        })
    );
    let outside = harness.log().read(&place(&tp.topic, 7), 0, 1).await;
    assert!(outside.is_err(), "partition 7 of 1");
}

pub(crate) async fn a_read_stops_near_its_bound<H: Harness>() {
    let harness = H::fresh().await;
    let tp = place(&harness.topic(1).await, 0);
    let value = Bytes::from(vec![b'y'; 10_000]);
    let records = (0..20).map(|_| record(&tp, "k", value.clone())).collect();
    harness.log().append(records).await;
    let mut position = 0;
    let mut reads = 0;
    while position < 20 {
        let (read, next) = harness.log().read(&tp, position, 50_000).await.unwrap();
        assert!(!read.is_empty(), "a read that moves nothing");
        let bytes: usize = read.iter().map(Record::size).sum();
        assert!(bytes <= 70_000, "{bytes} for a bound of 50,000");
        assert_eq!(read[0].offset, position);
        position = next;
        reads += 1;
    }
    assert!(reads >= 3, "200 kB came in {reads} reads of 50 kB");
}

pub(crate) async fn a_time_finds_its_first_offset<H: Harness>() {
    let harness = H::fresh().await;
    let tp = place(&harness.topic(1).await, 0);
    let log = harness.log();
    assert_eq!(log.offset_at(&tp, Timestamp::from_millis(1)).await, Ok(0));
    for _ in 0..5 {
        fill(log, &tp, 2).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (read, _) = log.read(&tp, 0, 1 << 20).await.unwrap();
    assert_eq!(read.len(), 10);
    let first_at = |time: Timestamp| {
        let found = read.iter().find(|record| record.timestamp >= time);
        found.map_or(10, |record| record.offset)
    };
    for record in &read {
        for time in [
            record.timestamp.as_millis() - 1,
            record.timestamp.as_millis(),
            record.timestamp.as_millis() + 1,
        ] {
            let time = Timestamp::from_millis(time);
            assert_eq!(log.offset_at(&tp, time).await, Ok(first_at(time)));
        }
    }
    let later = read[9].timestamp.after(Duration::from_secs(3_600));
    assert_eq!(log.offset_at(&tp, later).await, Ok(10), "later than all");
}

pub(crate) async fn trimmed_offsets_are_out_of_range<H: Harness>() {
    let harness = H::fresh().await;
    let tp = place(&harness.topic(1).await, 0);
    fill(harness.log(), &tp, 4).await;
    if !harness.trim(&tp).await {
        return;
    }
    assert_eq!(harness.log().bounds(&tp).await, Ok((4, 4)));
    let gone = harness.log().read(&tp, 1, 1 << 20).await;
    assert_eq!(
        gone.map(|(read, _)| read.len()),
        Err(LogError::OutOfRange {
            topic_partition: tp.clone(),
            offset: 1,
            start: 4,
            end: 4
        })
    );
    let harness = harness.reopen().await;
    assert_eq!(
        fill(harness.log(), &tp, 1).await,
        [4],
        "offsets never go back, not even in an empty partition"
    );
}
