//! Topics: making, describing, checking, compacting.

use std::collections::BTreeMap;

use bytes::Bytes;
use posthaste::log::{Cleanup, LogError};

use super::{Harness, Member, RETENTION, place, record, spec, unique};

pub(crate) async fn a_topic_is_described<H: Harness>() {
    let harness = H::fresh().await;
    let topic = harness.topic(3).await;
    let found = harness.log().describe(&topic).await.unwrap();
    assert_eq!(found.partitions, 3);
    assert_eq!(found.record_bytes_max, 2 * 1024 * 1024);
}

pub(crate) async fn a_missing_topic_is_named<H: Harness>() {
    let harness = H::fresh().await;
    let log = harness.log();
    let missing = unique("missing").into();
    let error = LogError::NoSuchTopic(bytestring::ByteString::clone(&missing));
    let tp = place(&missing, 0);
    assert_eq!(log.describe(&missing).await, Err(error.clone()));
    assert_eq!(log.bounds(&tp).await, Err(error.clone()));
    let read = log.read(&tp, 0, 1).await.map(|(read, _)| read.len());
    assert_eq!(read, Err(error.clone()));
    let now = posthaste_core::time::Timestamp::from_millis(1);
    assert_eq!(log.offset_at(&tp, now).await, Err(error));
}

pub(crate) async fn topics_are_made_once<H: Harness>() {
    let harness = H::fresh().await;
    let (old, new) = (spec(1, RETENTION), spec(2, Cleanup::Compact));
    let log = harness.log();
    assert_eq!(
        log.create(std::slice::from_ref(&old)).await,
        Ok(vec![old.name.clone()])
    );
    let both = [old.clone(), new.clone()];
    assert_eq!(log.create(&both).await, Ok(vec![new.name.clone()]));
    assert_eq!(log.create(&both).await, Ok(vec![]));
    assert_eq!(log.verify(&both).await, Ok(()));
    assert_eq!(log.describe(&new.name).await.unwrap().partitions, 2);
}

pub(crate) async fn a_topic_that_differs_is_refused<H: Harness>() {
    let harness = H::fresh().await;
    let made = spec(2, RETENTION);
    let log = harness.log();
    log.create(std::slice::from_ref(&made)).await.unwrap();
    let mut wider = made.clone();
    wider.partitions = 4;
    let refused = log.verify(&[wider]).await;
    assert!(
        matches!(
            &refused,
            Err(LogError::WrongSetting { topic, found, wanted, .. })
                if *topic == made.name && found == "2" && wanted == "4"
        ),
        "{refused:?}"
    );
    let mut compacted = made.clone();
    compacted.cleanup = Cleanup::Compact;
    let refused = log.verify(&[compacted]).await;
    assert!(
        matches!(
            &refused,
            Err(LogError::WrongSetting {
                setting: "cleanup.policy",
                ..
            })
        ),
        "{refused:?}"
    );
    assert_eq!(log.verify(&[made]).await, Ok(()));
}

pub(crate) async fn compaction_keeps_the_newest<H: Harness>() {
    let harness = H::fresh().await;
    let topic = harness.topic_like(1, Cleanup::Compact).await;
    let tp = place(&topic, 0);
    let log = harness.log();
    let mut wanted = BTreeMap::new();
    let mut last = 0;
    for round in 0..5_u8 {
        for key in ["a", "b", "c"] {
            let value = Bytes::from(format!("{key}{round}"));
            let answers = log.append(vec![record(&tp, key, value.clone())]).await;
            last = *answers[0].as_ref().unwrap();
            wanted.insert(Bytes::from(key), value);
        }
    }
    let answers = log.append(vec![record(&tp, "b", Bytes::new())]).await;
    assert_eq!(answers, [Ok(last + 1)]);
    wanted.insert(Bytes::from("b"), Bytes::new());

    let harness = harness.reopen().await;
    let mut member = Member::new::<H>(harness.log().follow(&topic).unwrap());
    member
        .until("the end", |m| m.next.get(&tp) == Some(&(last + 2)))
        .await;
    let mut folded = BTreeMap::new();
    for record in &member.records[&tp] {
        folded.insert(record.key.clone(), record.value.clone());
    }
    assert_eq!(folded, wanted, "the last value of each key, tombstones too");
    assert_eq!(harness.log().bounds(&tp).await.map(|b| b.1), Ok(last + 2));
}
