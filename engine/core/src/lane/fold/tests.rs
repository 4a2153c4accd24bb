use proptest::prelude::{Just, ProptestConfig, Strategy, prop};
use proptest::{prop_assert_eq, prop_oneof, proptest};
use proto::progress::Entry;

use super::*;

fn deliver(number: u8, endpoint: u8, attempts: u32, due: u64) -> Bytes {
    proto::Deliver {
        delivery_id: vec![number; 16].into(),
        endpoint_id: vec![endpoint; 16].into(),
        attempt: attempts,
        due_ms: due,
        deadline_ms: 99,
        ..Default::default()
    }
    .to_value()
}

fn entry(kind: Kind, offset: u64, attempt: u32, due_ms: u64) -> Entry {
    Entry {
        kind: kind.into(),
        offset,
        attempt,
        due_ms,
        ..Entry::default()
    }
}

/// A fact about something that endpoint 2 holds.
fn held(kind: Kind, offset: u64, attempt: u32, due_ms: u64) -> Entry {
    Entry {
        endpoint_id: vec![2; 16].into(),
        delivery_id: vec![1; 16].into(),
        deadline_ms: 99,
        ..entry(kind, offset, attempt, due_ms)
    }
}

fn facts(owner_epoch: u64, entries: Vec<Entry>) -> Bytes {
    proto::Progress {
        owner_epoch,
        entries,
    }
    .to_value()
}

/// Folds values at rising offsets from where the fold stands.
fn fold(fold: &mut Fold, values: &[Bytes]) -> Vec<Change> {
    let apply = |value| fold.apply(fold.next(), value).unwrap();
    values.iter().map(apply).collect()
}

#[test]
fn a_delivery_is_owed_until_a_fact_settles_it() {
    for kind in [
        Kind::Done,
        Kind::Dead,
        Kind::Cancelled,
        Kind::Expired,
        Kind::Moved,
    ] {
        let mut state = Fold::new(5);
        let values = [deliver(1, 2, 1, 30), facts(9, vec![entry(kind, 5, 0, 0)])];
        let changes = fold(&mut state, &values);
        let owed = Owed {
            delivery: DeliveryId::from_bytes([1; 16]),
            endpoint: EndpointId::from_bytes([2; 16]),
            attempts: 1,
            due: Timestamp::from_millis(30),
            deadline: Timestamp::from_millis(99),
        };
        assert_eq!(
            changes,
            [
                Change::Owed(owed),
                Change::Facts(vec![Fact::Settled(5, owed.endpoint)])
            ]
        );
        assert_eq!((state.len(), state.next(), state.author()), (0, 7, Some(9)));
        let again = fold(&mut state, &[facts(9, vec![entry(Kind::Retry, 5, 4, 50)])]);
        assert_eq!(
            again,
            [Change::Facts(vec![Fact::Absorbed(5)])],
            "settling absorbs all"
        );
    }
}

#[test]
fn a_moved_delivery_stays_where_it_was_once_its_copy_is_settled() {
    let moved = Entry {
        moved_to: 1,
        ..entry(Kind::Moved, 0, 0, 0)
    };
    let records = [deliver(1, 2, 1, 30), deliver(1, 2, 1, 0)];
    let mut state = Fold::new(0);
    fold(&mut state, &records);
    let change = fold(&mut state, &[facts(9, vec![moved.clone()])]);
    let settled = Fact::Settled(0, EndpointId::from_bytes([2; 16]));
    assert_eq!(change, [Change::Facts(vec![settled])]);
    assert!(state.is_owed(EndpointId::from_bytes([2; 16]), 1));
    // The copy failed before the fact was told: as a copy it is settled.
    let mut state = Fold::new(0);
    fold(&mut state, &records);
    let retry = facts(9, vec![held(Kind::Retry, 1, 2, 50)]);
    let change = fold(&mut state, &[retry, facts(9, vec![moved])]);
    assert_eq!(change[1], Change::Facts(vec![Fact::Kept(0)]));
    assert_eq!((state.len(), state.owed(0).is_some()), (1, true));
}

#[test]
fn more_attempts_win_and_of_equals_the_first() {
    let mut state = Fold::new(0);
    fold(&mut state, &[deliver(1, 2, 0, 1)]);
    for (attempt, due, wins) in [(2, 20, true), (1, 10, false), (2, 99, false), (3, 5, true)] {
        let change = fold(
            &mut state,
            &[facts(1, vec![entry(Kind::Retry, 0, attempt, due)])],
        );
        let owed = state.owed(0).unwrap();
        let wanted = if wins {
            Fact::Retry(0, owed)
        } else {
            Fact::Absorbed(0)
        };
        assert_eq!(change, [Change::Facts(vec![wanted])]);
        assert_eq!(
            wins,
            (owed.attempts, owed.due.as_millis()) == (attempt, due)
        );
    }
}

#[test]
fn a_second_copy_is_dropped_only_while_the_first_is_owed() {
    let mut state = Fold::new(0);
    let one = deliver(1, 2, 0, 1);
    let changes = fold(&mut state, &[one.clone(), deliver(1, 2, 3, 9)]);
    assert_eq!(changes[1], Change::Duplicate);
    assert_eq!(
        (state.len(), state.owed(0).map(|o| o.attempts)),
        (1, Some(0))
    );
    fold(&mut state, &[facts(1, vec![entry(Kind::Done, 0, 1, 0)])]);
    assert!(matches!(fold(&mut state, &[one])[..], [Change::Owed(_)]));
}

#[test]
fn what_it_cannot_know_changes_nothing() {
    let mut state = Fold::new(0);
    fold(&mut state, &[deliver(1, 2, 0, 1)]);
    let unknown = facts(
        1,
        vec![
            entry(Kind::Unspecified, 0, 0, 0),
            entry(Kind::Done, 77, 0, 0),
        ],
    );
    let absorbed = vec![Fact::Absorbed(0), Fact::Absorbed(77)];
    assert_eq!(fold(&mut state, &[unknown]), [Change::Facts(absorbed)]);
    let newer_kind = Entry {
        kind: 42,
        ..entry(Kind::Done, 0, 0, 0)
    };
    fold(&mut state, &[facts(1, vec![newer_kind])]);
    let short = proto::Deliver {
        delivery_id: vec![1; 15].into(),
        ..Default::default()
    };
    let next = state.next();
    for refused in [
        short.to_value(),
        proto::Dead::default().to_value(),
        proto::DeadRange::default().to_value(),
        proto::Command::default().to_value(),
        Bytes::from_static(&[200]),
        Bytes::new(),
        Bytes::from_static(&[2, 0xff]),
    ] {
        assert!(state.apply(next, &refused).is_err());
        assert_eq!(
            (state.next(), state.len()),
            (next, 1),
            "a refused record changes nothing"
        );
    }
}

#[test]
fn positions_move_over_gaps_and_never_back() {
    let mut state = Fold::new(3);
    state.skip_to(2);
    assert_eq!(state.next(), 3);
    state.skip_to(10);
    assert_eq!(
        state.apply(12, &proto::Claim::default().to_value()),
        Ok(Change::Claim)
    );
    assert_eq!(state.next(), 13);
}

#[test]
#[should_panic(expected = "folded twice")]
fn a_record_is_never_folded_twice() {
    let mut state = Fold::new(3);
    let claim = proto::Claim::default().to_value();
    drop(state.apply(3, &claim));
    drop(state.apply(3, &claim));
}

const E: EndpointId = EndpointId::from_bytes([2; 16]);

#[test]
fn a_held_delivery_is_settled_retried_or_passed() {
    let mut state = Fold::new(0);
    let values: Vec<_> = (0..4).map(|number| deliver(number, 2, 0, 0)).collect();
    let changes = fold(&mut state, &values);
    assert!(
        changes
            .iter()
            .all(|change| matches!(change, Change::Held(head) if head.is_held()))
    );
    assert_eq!((state.len(), state.timers().len()), (4, 0));
    let read = |state: &mut Fold, one: Entry| {
        let Change::Facts(facts) = fold(state, &[facts(1, vec![one])]).remove(0) else {
            panic!("no facts");
        };
        facts[0]
    };
    let unsigned = read(&mut state, entry(Kind::Done, 1, 1, 0));
    assert_eq!(unsigned, Fact::Absorbed(1), "whose it is has to be said");
    assert_eq!(
        read(&mut state, held(Kind::Done, 1, 1, 0)),
        Fact::Settled(1, E)
    );
    assert_eq!(
        read(&mut state, held(Kind::Done, 1, 1, 0)),
        Fact::Absorbed(1)
    );
    let retry = read(&mut state, held(Kind::Retry, 2, 3, 50));
    let owed = state.owed(2).unwrap();
    assert_eq!(retry, Fact::Retry(2, owed));
    assert_eq!(
        (
            owed.attempts,
            owed.due.as_millis(),
            owed.deadline.as_millis()
        ),
        (3, 50, 99)
    );
    assert_eq!(
        read(&mut state, held(Kind::Retry, 2, 3, 60)),
        Fact::Absorbed(2)
    );
    assert!(state.is_owed(E, 0) && !state.is_owed(E, 1) && state.is_owed(E, 2));
    let copy = read(&mut state, held(Kind::Retry, 3, 3, 50));
    assert_eq!(copy, Fact::Settled(3, E), "its copy waits for its time");
    assert_eq!(
        read(&mut state, held(Kind::Passed, 4, 0, 0)),
        Fact::Passed(4, E, 0)
    );
    assert_eq!(
        read(&mut state, held(Kind::Passed, 3, 0, 0)),
        Fact::Absorbed(3)
    );
    assert!(state.hold_of(E).is_none(), "what is passed is gone");
    assert_eq!(
        read(&mut state, held(Kind::Retry, 0, 9, 50)),
        Fact::Absorbed(0)
    );
    assert_eq!(
        read(&mut state, entry(Kind::Done, 2, 4, 0)),
        Fact::Settled(2, E)
    );
    assert!(state.is_empty());
}

fn command(id: u8, kind: proto::command::Kind, offsets: &[u64], before: u64) -> Bytes {
    proto::Command {
        id: vec![id; 16].into(),
        endpoint_id: vec![2; 16].into(),
        kind: kind.into(),
        offsets: offsets.to_vec(),
        before,
        at_ms: 7,
        ..Default::default()
    }
    .to_value()
}

#[test]
fn commands_take_effect_once_and_on_their_endpoint_alone() {
    use proto::command::Kind as C;
    let mut state = Fold::new(0);
    let values = [
        deliver(1, 2, 0, 50),
        deliver(2, 3, 0, 50),
        deliver(3, 2, 0, 0),
        deliver(4, 3, 0, 0),
        deliver(5, 2, 0, 60),
        deliver(6, 2, 0, 0),
    ];
    fold(&mut state, &values);
    let count = |state: &mut Fold, value: Bytes| match fold(state, &[value]).remove(0) {
        Change::Commanded(done) => Some(done.count),
        Change::Nothing => None,
        other => panic!("{other:?}"),
    };
    assert_eq!(count(&mut state, command(1, C::RetryNow, &[], 0)), Some(2));
    assert_eq!(state.owed(0).unwrap().due.as_millis(), 7);
    assert_eq!(
        state.owed(1).unwrap().due.as_millis(),
        50,
        "not that endpoint's"
    );
    assert_eq!(
        count(&mut state, command(2, C::Cancel, &[0, 1, 2, 77], 0)),
        Some(2)
    );
    assert!(!state.is_owed(E, 0) && !state.is_owed(E, 2) && state.len() == 4);
    fold(&mut state, &[deliver(7, 2, 0, 0)]);
    assert_eq!(
        count(&mut state, command(2, C::Cancel, &[4], 0)),
        None,
        "it is known"
    );
    assert_eq!(count(&mut state, command(3, C::SkipTo, &[], 5)), Some(1));
    assert!(!state.is_owed(E, 4) && state.is_owed(E, 5));
    assert_eq!(count(&mut state, command(4, C::Cancel, &[], 0)), Some(2));
    assert_eq!((state.len(), state.hold_of(E)), (2, None));
    fold(&mut state, &[deliver(8, 2, 0, 0)]);
    assert_eq!(count(&mut state, command(4, C::Cancel, &[], 0)), None);
    assert_eq!(state.len(), 3, "what came later is not cancelled by a copy");
}

const OFFSETS: u64 = 5;

fn one_fact() -> impl Strategy<Value = Entry> {
    let kind = prop_oneof![5 => Just(Kind::Retry), 1 => Just(Kind::Done), 1 => Just(Kind::Dead)];
    (kind, 0..OFFSETS + 4, 0..6_u32, 0..9_u64).prop_map(|(kind, offset, attempt, due)| {
        let mut one = held(kind, offset, attempt, due);
        one.delivery_id = vec![u8::try_from(offset).unwrap(); 16].into();
        one
    })
}

/// What is owed, without the due times, which the first of equals decides.
fn canon(state: &Fold) -> (Vec<(u64, u32)>, Vec<u64>) {
    let timers = state.iter().map(|(offset, owed)| (offset, owed.attempts));
    let hold = |&offset: &u64| state.hold_of(E).is_some_and(|hold| hold.contains(offset));
    (timers.collect(), (0..99).filter(hold).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Two owners at once, in any order and with records standing twice: the
    /// same is owed in the end.
    #[test]
    fn interleaving_and_repetition_do_not_matter(
        ours in prop::collection::vec(one_fact(), 0..12),
        theirs in prop::collection::vec(one_fact(), 0..12),
        order in prop::collection::vec(prop::bool::ANY, 24),
        twice in prop::collection::vec(prop::bool::ANY, 24),
    ) {
        let mut plain = Fold::new(0);
        let mut mixed = Fold::new(0);
        for number in 0..u8::try_from(OFFSETS).unwrap() {
            fold(&mut plain, &[deliver(number, 1, 0, 1)]);
            fold(&mut mixed, &[deliver(number, 1, 0, 1)]);
        }
        for number in 5..8 {
            fold(&mut plain, &[deliver(number, 2, 0, 0)]);
            fold(&mut mixed, &[deliver(number, 2, 0, 0)]);
        }
        for one in ours.iter().chain(&theirs) {
            fold(&mut plain, &[facts(1, vec![one.clone()])]);
        }
        let (mut ours, mut theirs) = (ours.into_iter(), theirs.into_iter());
        for (first, twice) in order.into_iter().zip(twice) {
            let next = if first {
                ours.next().or_else(|| theirs.next())
            } else {
                theirs.next().or_else(|| ours.next())
            };
            if let Some(one) = next {
                fold(&mut mixed, &vec![facts(2, vec![one]); 1 + usize::from(twice)]);
            }
        }
        prop_assert_eq!(canon(&plain), canon(&mixed));
    }
}
