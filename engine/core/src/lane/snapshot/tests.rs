use proptest::prelude::{ProptestConfig, any, prop};
use proptest::proptest;

use super::*;
use crate::lane::fold::Change;
use crate::limits::SNAPSHOT_PART_BYTES_MAX;

fn deliver(number: u64, endpoint: u8, due: u64, key: &'static [u8]) -> Bytes {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    proto::Deliver {
        delivery_id: id.to_vec().into(),
        endpoint_id: vec![endpoint; 16].into(),
        due_ms: due,
        deadline_ms: 99_000,
        ordering_key: Bytes::from_static(key),
        ..Default::default()
    }
    .to_value()
}

fn loaded(parts: &[Bytes], part0: u64) -> Result<Loaded, RecordError> {
    let mut assembly = Assembly::new(SnapshotRef {
        owner_epoch: 7,
        part0,
        parts: u32::try_from(parts.len()).unwrap(),
    });
    for (offset, part) in (part0..).zip(parts) {
        assembly.push(offset, part);
    }
    assembly.load()
}

#[test]
fn metadata_reads_back_and_foreign_text_is_refused() {
    let at = SnapshotRef {
        owner_epoch: u64::MAX,
        part0: 12,
        parts: 3,
    };
    assert_eq!(at.to_string().parse(), Ok(at));
    for text in [
        "",
        "S1:",
        "S1:1:2",
        "S1:1:2:3:4",
        "S2:1:2:3",
        "S1:1:2:0",
        "S1:1:2:5000",
        "S1:-1:2:3",
        "S1:+1:2:3",
        "S1:1:2:x",
        "1gAAAA",
    ] {
        assert_eq!(text.parse::<SnapshotRef>(), Err(SnapshotRefError), "{text}");
    }
}

#[test]
fn a_large_state_comes_in_parts_of_bounded_size_and_is_the_same() {
    let mut fold = Fold::new(0);
    for number in 0..60_000_u64 {
        let endpoint = u8::try_from(number % 50).unwrap();
        let due = if number % 3 == 0 { 0 } else { number };
        fold.apply(number * 2_000, &deliver(number, endpoint, due, b"k"))
            .unwrap();
    }
    let parts = write(&fold, 7, Vec::new(), SNAPSHOT_PART_BYTES_MAX);
    assert!(parts.len() > 4, "{}", parts.len());
    assert!(
        parts
            .iter()
            .all(|part| part.len() <= SNAPSHOT_PART_BYTES_MAX + 16)
    );
    assert!(loaded(&parts, 3).unwrap().fold == fold);
    // Backwards, twice, and among others.
    let mut assembly = Assembly::new(SnapshotRef {
        owner_epoch: 7,
        part0: 5,
        parts: u32::try_from(parts.len()).unwrap(),
    });
    assembly.push(5, &parts[0]);
    assembly.push(6, &deliver(1, 1, 1, b""));
    for part in parts.iter().rev().chain(&parts) {
        assembly.push(9, part);
    }
    assert!(assembly.load().unwrap().fold == fold);
    assert!(loaded(&parts[1..], 3).is_err(), "the first part is missing");
    assert!(loaded(&parts[..2], 3).is_err());
}

#[test]
fn a_snapshot_that_cannot_be_is_refused() {
    let mut fold = Fold::new(0);
    for offset in 0..4 {
        fold.apply(offset * 9_000, &deliver(offset, 1, offset & 1, b""))
            .unwrap();
    }
    let part =
        proto::Snapshot::from_value(&write(&fold, 7, Vec::new(), SNAPSHOT_PART_BYTES_MAX)[0])
            .unwrap();
    let refused = |change: &dyn Fn(&mut proto::Snapshot)| {
        let mut part = part.clone();
        change(&mut part);
        assert!(loaded(&[part.to_value()], 3).is_err(), "{part:?}");
    };
    assert!(loaded(&[part.to_value()], 3).is_ok());
    refused(&|part| part.endpoints.clear());
    refused(&|part| part.endpoints[0] = Bytes::from_static(b"short"));
    refused(&|part| part.timers[0].offset = u64::MAX);
    refused(&|part| part.timers[1].offset = part.timers[0].offset);
    refused(&|part| part.timers[0].delivery_id = Bytes::new());
    refused(&|part| part.holds[0].last = u64::MAX);
    refused(&|part| part.holds[0].runs = vec![u64::MAX, 2]);
    refused(&|part| part.holds[0].runs = vec![0, u64::MAX]);
    refused(&|part| part.holds[0].runs.push(1));
    refused(&|part| part.holds[0].taken = vec![u64::MAX, u64::MAX]);
    refused(&|part| part.commands = vec![Bytes::from_static(b"x")]);
    refused(&|part| part.owner_epoch = 8);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// At every step: the fold of the log is the snapshot, and the tail from its
    /// `upto` folded on top.
    #[test]
    fn a_fold_from_a_snapshot_is_the_fold_of_the_log(
        steps in prop::collection::vec((0..9_u8, 0..40_u64, 0..3_u8, any::<bool>()), 1..120),
        at in 0..120_usize,
    ) {
        let mut log: Vec<(u64, Bytes)> = Vec::new();
        let mut whole = Fold::new(0);
        let mut restored: Option<Fold> = None;
        for (step, (kind, number, endpoint, flag)) in steps.into_iter().enumerate() {
            if step == at {
                restored = Some(loaded(&write(&whole, 7, Vec::new(), SNAPSHOT_PART_BYTES_MAX), 3).unwrap().fold);
                assert!(restored.as_ref() == Some(&whole));
            }
            let some = log.get(usize::try_from(number).unwrap()).map_or(0, |(offset, _)| *offset);
            let entry = proto::progress::Entry {
                kind: i32::from(kind % 8),
                offset: some,
                attempt: 1 + u32::from(endpoint),
                due_ms: 50,
                endpoint_id: if flag { vec![endpoint; 16].into() } else { Bytes::new() },
                delivery_id: vec![kind; 16].into(),
                deadline_ms: 60,
                order: number / 20,
                count: number / 10,
                moved_to: number % 7,
            };
            let value = match kind {
                0..3 => deliver(number, endpoint, if flag { 0 } else { 5 }, b"k"),
                8 => proto::Command {
                    id: vec![u8::try_from(number / 2).unwrap(); 16].into(),
                    endpoint_id: vec![endpoint; 16].into(),
                    kind: i32::from(endpoint) + 1,
                    offsets: if flag { vec![some] } else { Vec::new() },
                    before: some,
                    at_ms: 3,
                    ..Default::default()
                }
                .to_value(),
                _ => proto::Progress { owner_epoch: 1, entries: vec![entry] }.to_value(),
            };
            let offset = whole.next() + number * 100;
            let change = whole.apply(offset, &value).unwrap();
            if let Some(restored) = &mut restored {
                assert_eq!(restored.apply(offset, &value).unwrap(), change);
                assert!(*restored == whole, "{change:?}");
            }
            if matches!(change, Change::Owed(_) | Change::Held(_)) {
                log.push((offset, value));
            }
        }
    }
}

#[test]
fn what_operations_and_commands_came_to_reads_back_however_small_the_parts() {
    let mut fold = Fold::new(0);
    for number in 0..40_u8 {
        let deliver = proto::Deliver {
            generation: vec![number % 3; 16].into(),
            reason: proto::Reason::Replay.into(),
            range: u32::from(number / 3 % 4),
            range_offset: 1 + u64::from(number / 12),
            range_after: u64::from(number / 12),
            ..proto::Deliver::from_value(&deliver(1, 2, 0, b"")).unwrap()
        };
        fold.apply(fold.next(), &deliver.to_value()).unwrap();
    }
    let operation = crate::id::OperationId::from_bytes([1; 16]);
    assert_eq!(fold.made(operation).unwrap().count(), 13);
    let command = proto::Command {
        id: vec![9; 16].into(),
        endpoint_id: vec![2; 16].into(),
        kind: proto::command::Kind::Cancel.into(),
        ..Default::default()
    };
    fold.apply(fold.next(), &command.to_value()).unwrap();
    assert_eq!(fold.commanded(&[9; 16]), Some(40));
    for part_bytes in [50, SNAPSHOT_PART_BYTES_MAX] {
        let parts = write(&fold, 7, Vec::new(), part_bytes);
        let again = loaded(&parts, fold.next()).unwrap().fold;
        assert!(again == fold);
        assert_eq!(again.made(operation), fold.made(operation));
        assert_eq!(again.commanded(&[9; 16]), Some(40));
    }
}
