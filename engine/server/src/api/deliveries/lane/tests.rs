use bytes::Bytes;

use super::*;

const ID: DeliveryId = DeliveryId::from_bytes([9; 16]);
const OTHER: DeliveryId = DeliveryId::from_bytes([8; 16]);
const ENDPOINT: EndpointId = EndpointId::from_bytes([1; 16]);
const STRANGER: EndpointId = EndpointId::from_bytes([2; 16]);
const DUE: u64 = 5_000;

fn bytes(id: &[u8; 16]) -> Bytes {
    Bytes::copy_from_slice(id)
}

fn deliver(id: DeliveryId, endpoint: EndpointId, due_ms: u64) -> Bytes {
    let record = proto::Deliver {
        delivery_id: bytes(id.as_bytes()),
        endpoint_id: bytes(endpoint.as_bytes()),
        attempt: u32::from(due_ms > 0),
        due_ms,
        reason: proto::Reason::Gate.into(),
        ..proto::Deliver::default()
    };
    record.to_value()
}

/// A fact about an offset of the endpoint's.
fn fact(kind: Kind, offset: Offset) -> proto::progress::Entry {
    proto::progress::Entry {
        kind: kind.into(),
        offset,
        endpoint_id: bytes(ENDPOINT.as_bytes()),
        ..proto::progress::Entry::default()
    }
}

fn facts(entries: Vec<proto::progress::Entry>) -> Bytes {
    let record = proto::Progress {
        owner_epoch: 1,
        entries,
    };
    record.to_value()
}

fn cancel(endpoint: EndpointId) -> Bytes {
    let record = proto::Command {
        id: Bytes::from_static(&[7; 16]),
        endpoint_id: bytes(endpoint.as_bytes()),
        kind: proto::command::Kind::Cancel.into(),
        ..proto::Command::default()
    };
    record.to_value()
}

/// Where it stands after these records, the first of which is at offset 100.
fn standing(values: Vec<Bytes>) -> Standing {
    let mut follower = Follower::new(ID, ENDPOINT);
    for (value, offset) in values.into_iter().zip(100..) {
        follower.record(&Record {
            offset,
            timestamp: Timestamp::from_millis(offset),
            key: Bytes::new(),
            value,
            headers: Vec::new(),
        });
    }
    follower.standing()
}

#[test]
fn it_stands_as_the_folds_rules_say() {
    let held = || deliver(ID, ENDPOINT, 0);
    let owed = || deliver(ID, ENDPOINT, DUE);
    let settled = Standing::Settled;
    assert_eq!(standing(vec![]), Standing::Absent);
    assert_eq!(
        standing(vec![deliver(OTHER, ENDPOINT, 0)]),
        Standing::Absent
    );
    assert_eq!(standing(vec![held()]), Standing::Held);
    for kind in [Kind::Done, Kind::Dead, Kind::Cancelled, Kind::Expired] {
        let end = facts(vec![fact(kind, 100)]);
        assert_eq!(standing(vec![held(), end.clone()]), settled(kind));
        assert_eq!(standing(vec![owed(), end.clone()]), settled(kind));
        // What is said of others changes nothing.
        let others = deliver(OTHER, ENDPOINT, 0);
        assert_eq!(standing(vec![others, held(), end]), Standing::Held);
    }
    assert_eq!(standing(vec![held(), cancel(STRANGER)]), Standing::Held);
    assert_eq!(
        standing(vec![held(), cancel(ENDPOINT)]),
        settled(Kind::Cancelled)
    );
    assert_eq!(
        standing(vec![owed(), cancel(ENDPOINT)]),
        settled(Kind::Cancelled)
    );
    // The cursor passes it with others that expired.
    let passed = proto::progress::Entry {
        count: 16,
        ..fact(Kind::Passed, 101)
    };
    assert_eq!(
        standing(vec![held(), facts(vec![passed])]),
        settled(Kind::Expired)
    );
    // Records of a newer version, and broken ones, are passed over.
    let strange = vec![
        held(),
        Bytes::from_static(&[99, 1]),
        Bytes::from_static(&[3, 1]),
    ];
    assert_eq!(standing(strange), Standing::Held);
}

#[test]
fn what_is_settled_is_not_held_with_others_around_it() {
    let held = || deliver(OTHER, ENDPOINT, 0);
    let values = vec![
        held(),
        deliver(ID, ENDPOINT, DUE),
        held(),
        facts(vec![fact(Kind::Done, 101)]),
    ];
    assert_eq!(standing(values), Standing::Settled(Kind::Done));
}

#[test]
fn a_retry_is_owed_when_it_says() {
    let retry = proto::progress::Entry {
        attempt: 2,
        due_ms: DUE + 1,
        delivery_id: bytes(ID.as_bytes()),
        ..fact(Kind::Retry, 100)
    };
    for first in [deliver(ID, ENDPOINT, DUE), deliver(ID, ENDPOINT, 0)] {
        let Standing::Owed(owed) = standing(vec![first, facts(vec![retry.clone()])]) else {
            panic!("it is owed");
        };
        assert_eq!((owed.due.as_millis(), owed.attempts), (DUE + 1, 2));
    }
}

#[test]
fn moved_it_stands_where_it_went() {
    let moved = proto::progress::Entry {
        moved_to: 101,
        ..fact(Kind::Moved, 100)
    };
    let first = vec![
        deliver(ID, ENDPOINT, DUE),
        deliver(ID, ENDPOINT, 0),
        facts(vec![moved]),
    ];
    assert_eq!(standing(first.clone()), Standing::Held);
    let end = [facts(vec![fact(Kind::Done, 101)])];
    assert_eq!(
        standing([&first[..], &end].concat()),
        Standing::Settled(Kind::Done)
    );
}
