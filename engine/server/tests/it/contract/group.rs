//! One member of a group: where it starts, what it is handed, what it commits.

use std::time::Duration;

use bytes::Bytes;
use posthaste::log::{CREDIT_BYTES, CommitError, Epoch, LogError, Record, Start};

use super::{Harness, Member, fill, place, record, unique};

pub(crate) async fn earliest_starts_at_the_first_record<H: Harness>() {
    let harness = H::fresh().await;
    let topic = harness.topic(2).await;
    let (zero, one) = (place(&topic, 0), place(&topic, 1));
    fill(harness.log(), &zero, 3).await;
    let mut member = Member::join(&harness, &unique("g"), &[&topic], Start::Earliest);
    member
        .until("all of it", |m| m.count() == 3 && m.assigned.len() == 2)
        .await;
    assert_eq!(member.offsets(&zero), [0, 1, 2]);
    assert_eq!(member.next[&zero], 3);
    assert_eq!(member.assigned[&one].position, 0);
    assert_eq!(member.assigned[&one].metadata, "");
    assert_ne!(member.assigned[&zero].epoch, member.assigned[&one].epoch);
}

pub(crate) async fn latest_starts_at_the_end<H: Harness>() {
    let harness = H::fresh().await;
    let topic = harness.topic(1).await;
    let tp = place(&topic, 0);
    fill(harness.log(), &tp, 3).await;
    let mut member = Member::join(&harness, &unique("g"), &[&topic], Start::Latest);
    member.until("assigned", |m| !m.assigned.is_empty()).await;
    assert_eq!(member.assigned[&tp].position, 3);
    fill(harness.log(), &tp, 1).await;
    member.until("the new one", |m| m.count() > 0).await;
    assert_eq!(member.offsets(&tp), [3]);
}

pub(crate) async fn a_time_starts_at_its_first_record<H: Harness>() {
    let harness = H::fresh().await;
    let topic = harness.topic(1).await;
    let tp = place(&topic, 0);
    for _ in 0..3 {
        fill(harness.log(), &tp, 1).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (read, _) = harness.log().read(&tp, 0, 1 << 20).await.unwrap();
    let start = Start::At(read[1].timestamp);
    let mut member = Member::join(&harness, &unique("g"), &[&topic], start);
    member.until("two records", |m| m.count() == 2).await;
    assert_eq!(member.offsets(&tp), [1, 2]);
}

pub(crate) async fn unset_refuses_to_start<H: Harness>() {
    let harness = H::fresh().await;
    let topic = harness.topic(1).await;
    fill(harness.log(), &place(&topic, 0), 1).await;
    let group = unique("g");
    let mut member = Member::join(&harness, &group, &[&topic], Start::Unset);
    member.until("refused", |m| m.fatal.is_some()).await;
    assert_eq!(
        member.fatal,
        Some(LogError::NoStart {
            group,
            topic_partition: place(&topic, 0)
        })
    );
    assert_eq!(member.count(), 0);
}

pub(crate) async fn the_start_is_committed_before_it_is_announced<H: Harness>() {
    let harness = H::fresh().await;
    let topic = harness.topic(1).await;
    let tp = place(&topic, 0);
    fill(harness.log(), &tp, 2).await;
    let group = unique("g");
    let mut first = Member::join(&harness, &group, &[&topic], Start::Latest);
    first.until("assigned", |m| !m.assigned.is_empty()).await;
    drop(first);
    fill(harness.log(), &tp, 2).await;

    let mut second = Member::join(&harness, &group, &[&topic], Start::Unset);
    second.until("what came since", |m| m.count() == 2).await;
    assert_eq!(second.offsets(&tp), [2, 3]);
}

pub(crate) async fn a_group_resumes_where_it_committed<H: Harness>() {
    let harness = H::fresh().await;
    let topic = harness.topic(2).await;
    let (zero, one) = (place(&topic, 0), place(&topic, 1));
    fill(harness.log(), &zero, 5).await;
    fill(harness.log(), &one, 5).await;
    let group = unique("g");
    let mut member = Member::join(&harness, &group, &[&topic], Start::Earliest);
    member.until("all of it", |m| m.count() == 10).await;
    assert_eq!(member.commit(&zero, 2, "two").await, Ok(()));
    assert_eq!(member.commit(&one, 1, "").await, Ok(()));
    assert_eq!(member.commit(&one, 4, "four").await, Ok(()));
    drop(member);

    let harness = harness.reopen().await;
    let mut member = Member::join(&harness, &group, &[&topic], Start::Unset);
    member.until("the rest", |m| m.count() == 4).await;
    assert_eq!(member.offsets(&zero), [2, 3, 4]);
    assert_eq!(member.offsets(&one), [4]);
    assert_eq!(member.assigned[&zero].position, 2);
    assert_eq!(member.assigned[&zero].metadata, "two");
    assert_eq!(member.assigned[&one].metadata, "four");
}

pub(crate) async fn where_a_group_stands_is_told_to_others<H: Harness>() {
    let harness = H::fresh().await;
    let topic = harness.topic(3).await;
    let (zero, two) = (place(&topic, 0), place(&topic, 2));
    fill(harness.log(), &zero, 5).await;
    fill(harness.log(), &two, 4).await;
    let (group, other) = (unique("g"), unique("g"));
    let stands = async |group: &str| harness.log().committed(group, &topic).await;
    assert_eq!(stands(&group).await, Ok(vec![None; 3]));
    let mut member = Member::join(&harness, &group, &[&topic], Start::Earliest);
    member.until("assigned", |m| m.assigned.len() == 3).await;
    assert_eq!(stands(&group).await, Ok(vec![Some(0); 3]));
    assert_eq!(member.commit(&zero, 2, "holes").await, Ok(()));
    assert_eq!(member.commit(&two, 4, "").await, Ok(()));
    let wanted = vec![Some(2), Some(0), Some(4)];
    assert_eq!(stands(&group).await, Ok(wanted.clone()));
    // Whoever asks is no member, and moves nothing.
    assert_eq!(stands(&other).await, Ok(vec![None; 3]));
    drop(member);
    assert_eq!(stands(&group).await, Ok(wanted));
    let nowhere = unique("topic").into();
    let missing = harness.log().committed(&group, &nowhere).await;
    assert_eq!(missing, Err(LogError::NoSuchTopic(nowhere)));
}

pub(crate) async fn metadata_returns_whole<H: Harness>() {
    let metadata: String = (0..4_000_u32)
        .map(|n| char::from(b'!' + (n % 90) as u8))
        .collect();
    assert_eq!(
        metadata_after_rejoining::<H>(&[(1, &metadata)]).await,
        metadata
    );
}

pub(crate) async fn metadata_changes_without_the_offset<H: Harness>() {
    let commits = [(1, "before"), (1, "after")];
    assert_eq!(metadata_after_rejoining::<H>(&commits).await, "after");
}

/// Commits, leaves, joins again; answers the metadata found.
async fn metadata_after_rejoining<H: Harness>(commits: &[(u64, &str)]) -> String {
    let harness = H::fresh().await;
    let topic = harness.topic(1).await;
    let tp = place(&topic, 0);
    fill(harness.log(), &tp, 2).await;
    let group = unique("g");
    let mut member = Member::join(&harness, &group, &[&topic], Start::Earliest);
    member.until("assigned", |m| !m.assigned.is_empty()).await;
    for (at, metadata) in commits {
        assert_eq!(member.commit(&tp, *at, metadata).await, Ok(()));
    }
    drop(member);
    let mut member = Member::join(&harness, &group, &[&topic], Start::Unset);
    member.until("assigned", |m| !m.assigned.is_empty()).await;
    assert_eq!(member.assigned[&tp].position, 1);
    member.assigned[&tp].metadata.clone()
}

pub(crate) async fn too_much_metadata_is_refused<H: Harness>() {
    let harness = H::fresh().await;
    let topic = harness.topic(1).await;
    let tp = place(&topic, 0);
    let mut member = Member::join(&harness, &unique("g"), &[&topic], Start::Earliest);
    member.until("assigned", |m| !m.assigned.is_empty()).await;
    let long = "m".repeat(5_000);
    assert_eq!(
        member.commit(&tp, 0, &long).await,
        Err(CommitError::MetadataTooLarge)
    );
    assert_eq!(member.commit(&tp, 0, "short").await, Ok(()));
}

pub(crate) async fn a_foreign_epoch_commits_nothing<H: Harness>() {
    let harness = H::fresh().await;
    let topic = harness.topic(1).await;
    let tp = place(&topic, 0);
    fill(harness.log(), &tp, 3).await;
    let group = unique("g");
    let mut member = Member::join(&harness, &group, &[&topic], Start::Earliest);
    member.until("all of it", |m| m.count() == 3).await;
    let stale = Epoch(member.assigned[&tp].epoch.0 + 1_000_000);
    assert_eq!(
        member.commit_as(&tp, stale, 3, "stale").await,
        Err(CommitError::Stale)
    );
    assert_eq!(
        member
            .commit_as(&place(&topic, 9), stale, 3, "elsewhere")
            .await,
        Err(CommitError::Stale)
    );
    drop(member);
    let mut member = Member::join(&harness, &group, &[&topic], Start::Unset);
    member.until("all of it again", |m| m.count() == 3).await;
    assert_eq!(member.assigned[&tp].metadata, "");
}

pub(crate) async fn credit_bounds_what_is_handed_over<H: Harness>() {
    let harness = H::fresh().await;
    let topic = harness.topic(2).await;
    let (full, other) = (place(&topic, 0), place(&topic, 1));
    let value = Bytes::from(vec![b'z'; 64 * 1024]);
    for _ in 0..6 {
        let records = (0..16).map(|_| record(&full, "k", value.clone())).collect();
        assert!(
            harness
                .log()
                .append(records)
                .await
                .iter()
                .all(Result::is_ok)
        );
    }
    let mut member = Member::join(&harness, &unique("g"), &[&topic], Start::Earliest);
    member.returns_credit = false;
    member
        .until("credit used up", |m| {
            bytes(m, &full) + SLACK >= CREDIT_BYTES
        })
        .await;
    member.until_quiet().await;
    let taken = bytes(&member, &full);
    assert!(taken <= CREDIT_BYTES + SLACK, "{taken} bytes handed over");

    fill(harness.log(), &other, 3).await;
    member
        .until("the other partition", |m| m.offsets(&other).len() == 3)
        .await;
    let epoch = member.assigned[&full].epoch;
    member.credit(&full, Epoch(epoch.0 + 1_000_000), CREDIT_BYTES);
    member.until_quiet().await;
    assert_eq!(bytes(&member, &full), taken, "credit of another assignment");

    member.credit(&full, epoch, 1024 * 1024);
    member
        .until("what the credit allows", |m| {
            bytes(m, &full) > taken + 512 * 1024
        })
        .await;
    member.until_quiet().await;
    let more = bytes(&member, &full) - taken;
    assert!(more <= 1024 * 1024 + SLACK, "{more} bytes for 1 MiB");
    member.credit(&full, epoch, 8 * 1024 * 1024);
    member
        .until("the rest", |m| m.offsets(&full).len() == 96)
        .await;
}

/// How far credit may be exceeded, or left unused.
const SLACK: usize = 512 * 1024;

fn bytes(member: &Member, tp: &posthaste::log::TopicPartition) -> usize {
    let records = member.records.get(tp).map_or(&[][..], Vec::as_slice);
    records.iter().map(Record::size).sum()
}

pub(crate) async fn waiting_for_an_event_can_be_given_up<H: Harness>() {
    let harness = H::fresh().await;
    let topic = harness.topic(1).await;
    let tp = place(&topic, 0);
    let mut member = Member::join(&harness, &unique("g"), &[&topic], Start::Earliest);
    member.until("assigned", |m| !m.assigned.is_empty()).await;
    let writing = async {
        for _ in 0..20 {
            fill(harness.log(), &tp, 3).await;
        }
    };
    let listening = async {
        while member.count() < 60 {
            let _ = tokio::time::timeout(Duration::from_millis(1), member.step()).await;
        }
    };
    let both = async { tokio::join!(writing, listening) };
    let heard = tokio::time::timeout(H::PATIENCE, both).await;
    assert!(heard.is_ok(), "an event was lost with its waiter");
    assert_eq!(member.offsets(&tp), (0..60).collect::<Vec<_>>());
}

pub(crate) async fn a_member_hears_what_comes_later<H: Harness>() {
    let harness = H::fresh().await;
    let (one, two) = (harness.topic(1).await, harness.topic(3).await);
    let mut member = Member::join(&harness, &unique("g"), &[&one, &two], Start::Earliest);
    member
        .until("all partitions", |m| m.assigned.len() == 4)
        .await;
    member.until_quiet().await;
    for (n, tp) in [place(&one, 0), place(&two, 2), place(&two, 0)]
        .iter()
        .enumerate()
    {
        fill(harness.log(), tp, 1).await;
        member.until("the new record", |m| m.count() == n + 1).await;
        assert_eq!(member.offsets(tp), [0]);
    }
}

pub(crate) async fn one_group_does_not_move_another<H: Harness>() {
    let harness = H::fresh().await;
    let topic = harness.topic(1).await;
    let tp = place(&topic, 0);
    fill(harness.log(), &tp, 2).await;
    let mut one = Member::join(&harness, &unique("g"), &[&topic], Start::Earliest);
    one.until("all of it", |m| m.count() == 2).await;
    assert_eq!(one.commit(&tp, 2, "mine").await, Ok(()));
    let mut two = Member::join(&harness, &unique("g"), &[&topic], Start::Earliest);
    two.until("all of it", |m| m.count() == 2).await;
    assert_eq!(two.assigned[&tp].metadata, "");
    assert!(one.revoking.is_empty());
}

pub(crate) async fn a_group_whose_place_was_trimmed_stops<H: Harness>() {
    let harness = H::fresh().await;
    let topic = harness.topic(1).await;
    let tp = place(&topic, 0);
    fill(harness.log(), &tp, 4).await;
    let group = unique("g");
    let mut member = Member::join(&harness, &group, &[&topic], Start::Earliest);
    member.until("all of it", |m| m.count() == 4).await;
    assert_eq!(member.commit(&tp, 1, "").await, Ok(()));
    drop(member);
    if !harness.trim(&tp).await {
        return;
    }
    let mut member = Member::join(&harness, &group, &[&topic], Start::Earliest);
    member.until("stopped", |m| m.fatal.is_some()).await;
    assert!(
        matches!(
            &member.fatal,
            Some(LogError::OutOfRange { topic_partition, offset: 1, .. }) if *topic_partition == tp
        ),
        "{:?}",
        member.fatal
    );
    assert_eq!(member.count(), 0, "nothing is skipped silently");
}

pub(crate) async fn joining_an_unknown_topic_fails<H: Harness>() {
    let harness = H::fresh().await;
    let unknown = unique("unknown").into();
    let error = match harness.log().join(
        &unique("g"),
        std::slice::from_ref(&unknown),
        Start::Earliest,
    ) {
        Err(error) => error,
        Ok(consumer) => {
            let mut member = Member::new::<H>(consumer);
            member.until("refused", |m| m.fatal.is_some()).await;
            member.fatal.take().unwrap()
        }
    };
    assert_eq!(error, LogError::NoSuchTopic(unknown));
}

pub(crate) async fn a_follower_reads_everything_and_commits_nothing<H: Harness>() {
    let harness = H::fresh().await;
    let topic = harness.topic(2).await;
    let (zero, one) = (place(&topic, 0), place(&topic, 1));
    fill(harness.log(), &zero, 3).await;
    let mut first = Member::new::<H>(harness.log().follow(&topic).unwrap());
    first
        .until("all of it", |m| m.count() == 3 && m.assigned.len() == 2)
        .await;
    assert_eq!(first.commit(&zero, 3, "").await, Err(CommitError::Stale));
    let mut second = Member::new::<H>(harness.log().follow(&topic).unwrap());
    second.until("all of it", |m| m.count() == 3).await;
    fill(harness.log(), &one, 1).await;
    first.until("the new one", |m| m.count() == 4).await;
    second.until("the new one", |m| m.count() == 4).await;
    assert_eq!(second.offsets(&zero), [0, 1, 2]);
    assert_eq!(second.offsets(&one), [0]);
    assert!(first.revoking.is_empty() && second.revoking.is_empty());
}
