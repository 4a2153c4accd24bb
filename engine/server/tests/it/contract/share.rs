//! Several members of one group.

use std::collections::BTreeSet;

use bytestring::ByteString;
use posthaste::log::{CommitError, Start, TopicPartition};

use super::{Harness, Member, both_until, fill, place, unique};

async fn fill_all<H: Harness>(harness: &H, topic: &ByteString, count: usize) {
    for partition in 0..4 {
        fill(harness.log(), &place(topic, partition), count).await;
    }
}

fn halved(one: &Member, two: &Member) -> bool {
    one.assigned.len() == 2 && two.assigned.len() == 2
}

/// The group's members hold each of the four partitions once.
fn assert_split(one: &Member, two: &Member, topic: &ByteString) {
    let held: BTreeSet<&TopicPartition> = one.assigned.keys().chain(two.assigned.keys()).collect();
    let all: Vec<TopicPartition> = (0..4).map(|n| place(topic, n)).collect();
    assert_eq!(held, all.iter().collect());
}

pub(crate) async fn a_second_member_takes_its_share<H: Harness>() {
    let harness = H::fresh().await;
    let topic = harness.topic(4).await;
    fill_all(&harness, &topic, 5).await;
    let group = unique("g");
    let mut one = Member::join(&harness, &group, &[&topic], Start::Earliest);
    one.until("all of it", |m| m.count() == 20).await;

    let mut two = Member::join(&harness, &group, &[&topic], Start::Earliest);
    both_until(&mut one, &mut two, "two revoked", |one, _| {
        one.revoking.len() == 2
    })
    .await;
    let leaving: Vec<_> = one.revoking.keys().cloned().collect();
    tokio::time::timeout(H::QUIET, two.step())
        .await
        .expect_err("assigned while the other member still drains");
    let mut stale = Vec::new();
    for tp in &leaving {
        let epoch = one.assigned[tp].epoch;
        assert_eq!(
            one.commit(tp, 4, "drained").await,
            Ok(()),
            "a commit while draining"
        );
        stale.push((tp.clone(), epoch));
    }
    assert_eq!(one.release(), leaving);
    both_until(&mut one, &mut two, "an even split", halved).await;
    assert_split(&one, &two, &topic);
    for (tp, epoch) in stale {
        assert_eq!(two.assigned[&tp].position, 4);
        assert_eq!(two.assigned[&tp].metadata, "drained");
        assert_ne!(two.assigned[&tp].epoch, epoch);
        assert_eq!(
            one.commit_as(&tp, epoch, 5, "late").await,
            Err(CommitError::Stale)
        );
    }

    fill_all(&harness, &topic, 5).await;
    both_until(&mut one, &mut two, "each its own half", |one, two| {
        one.count() + two.count() >= 20 + 2 + 20
    })
    .await;
    for tp in leaving {
        assert_eq!(two.offsets(&tp), (4..10).collect::<Vec<_>>());
        assert_eq!(one.offsets(&tp), (0..5).collect::<Vec<_>>());
    }
    for tp in one.assigned.keys() {
        assert_eq!(one.offsets(tp), (0..10).collect::<Vec<_>>());
    }
}

pub(crate) async fn a_member_that_leaves_returns_its_share<H: Harness>() {
    let harness = H::fresh().await;
    let topic = harness.topic(4).await;
    let group = unique("g");
    let mut one = Member::join(&harness, &group, &[&topic], Start::Earliest);
    one.until("all partitions", |m| m.assigned.len() == 4).await;
    let mut two = Member::join(&harness, &group, &[&topic], Start::Earliest);
    both_until(&mut one, &mut two, "two revoked", |one, _| {
        one.revoking.len() == 2
    })
    .await;
    one.release();
    both_until(&mut one, &mut two, "an even split", halved).await;

    fill_all(&harness, &topic, 3).await;
    both_until(&mut one, &mut two, "all of it", |one, two| {
        one.count() + two.count() == 12
    })
    .await;
    let left: Vec<_> = two.assigned.keys().cloned().collect();
    assert_eq!(two.commit(&left[0], 2, "kept").await, Ok(()));
    drop(two);
    one.until("everything back", |m| m.assigned.len() == 4)
        .await;
    assert_eq!(one.assigned[&left[0]].position, 2);
    assert_eq!(one.assigned[&left[0]].metadata, "kept");
    assert_eq!(one.assigned[&left[1]].position, 0);
    one.until("what was not committed", |m| m.count() == 6 + 1 + 3)
        .await;
    assert_eq!(one.offsets(&left[0]), [2]);
    assert_eq!(one.offsets(&left[1]), [0, 1, 2]);
}

pub(crate) async fn leaving_amid_a_rebalance_loses_nothing<H: Harness>() {
    let harness = H::fresh().await;
    let topic = harness.topic(4).await;
    fill_all(&harness, &topic, 3).await;
    let group = unique("g");
    let mut one = Member::join(&harness, &group, &[&topic], Start::Earliest);
    one.until("all of it", |m| m.count() == 12).await;
    let mut two = Member::join(&harness, &group, &[&topic], Start::Earliest);
    both_until(&mut one, &mut two, "a rebalance", |one, _| {
        !one.revoking.is_empty()
    })
    .await;
    drop(one);
    two.until("all partitions", |m| m.assigned.len() == 4).await;
    two.until("all of it again", |m| m.count() == 12).await;

    let three = Member::join(&harness, &group, &[&topic], Start::Earliest);
    drop(three);
    fill_all(&harness, &topic, 1).await;
    let patience = tokio::time::timeout(H::PATIENCE, async {
        while two.next.values().filter(|next| **next == 4).count() < 4 {
            two.step().await;
            two.release();
        }
    });
    assert!(patience.await.is_ok(), "a partition stayed with nobody");
}
