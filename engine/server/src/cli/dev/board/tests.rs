use posthaste_core::id::EndpointId;
use posthaste_proto as proto;

use super::*;

pub(in crate::cli::dev) fn endpoint(number: u8, uid: &str, types: &[&str]) -> Endpoint {
    Endpoint::from_proto(proto::Endpoint {
        id: vec![number; 16].into(),
        uid: uid.into(),
        tenant: "demo".into(),
        url: format!("http://127.0.0.1:1/{uid}"),
        event_types: types.iter().map(ToString::to_string).collect(),
        secrets: vec![proto::Secret {
            id: "s1".into(),
            text: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into(),
            ..Default::default()
        }],
        ..Default::default()
    })
    .unwrap()
}

pub(in crate::cli::dev) fn board() -> Board {
    Board::new([
        endpoint(1, "orders", &["order.*"]),
        endpoint(2, FLAKY, &[]),
        endpoint(3, "invoices", &["invoice.*"]),
    ])
}

pub(in crate::cli::dev) fn attempt(endpoint: u8, id: &str, number: u32, status: u32) -> Attempt {
    Attempt {
        endpoint_id: EndpointId::from_bytes([endpoint; 16])
            .as_bytes()
            .to_vec()
            .into(),
        tenant: "demo".into(),
        event_id: id.into(),
        event_type: "order.created".into(),
        number,
        started_ms: 1_750_000_000_000,
        duration_us: 1_500,
        status,
        cause: if status == 200 {
            String::new()
        } else {
            "http_5xx".into()
        },
        ..Attempt::default()
    }
}

#[test]
fn an_event_is_settled_when_every_endpoint_that_wants_it_verified_it() {
    let mut board = board();
    assert!(board.expect("a", "order.created"));
    assert!(board.expect("b", "customer.updated"));
    board.accepted("a");
    assert_eq!(board.totals().owed, 2);
    board.received(0, "a");
    assert_eq!((board.totals().owed, board.settled), (1, 0));
    board.received(1, "a");
    assert_eq!((board.totals().owed, board.settled), (0, 1));
    // The delivery can be faster than the answer to who published.
    board.received(1, "b");
    assert_eq!((board.published, board.settled), (1, 1));
    board.accepted("b");
    assert_eq!((board.published, board.settled), (2, 2));
    assert_eq!(board.totals().verified, 3);
}

#[test]
fn one_event_in_four_trips_the_flaky_endpoint_once() {
    let mut board = board();
    for number in 1..=8 {
        let id = format!("e{number}");
        assert!(board.expect(&id, "order.created"));
        board.accepted(&id);
        assert_eq!(board.received(0, &id), Found::Verified);
        let first = board.received(1, &id);
        assert_eq!(first == Found::Tripped, number % 4 == 0, "{id}");
        if first == Found::Tripped {
            assert_eq!(board.received(1, &id), Found::Verified);
        }
    }
    // What an earlier run published is never failed on purpose.
    assert_eq!(board.received(1, "earlier"), Found::Verified);
    assert_eq!(board.settled, 8);
}

#[test]
fn the_same_delivery_again_is_a_duplicate() {
    let mut board = board();
    board.received(0, "a");
    board.received(0, "a");
    board.received(1, "a");
    assert_eq!((board.rows[0].verified, board.rows[0].duplicates), (1, 1));
    assert_eq!((board.rows[1].verified, board.rows[1].duplicates), (1, 0));
}

#[test]
fn a_retry_is_counted_while_it_lasts_and_once() {
    let mut board = board();
    assert!(!board.attempted(&attempt(2, "a", 1, 503)).verified);
    assert_eq!((board.rows[1].events, board.rows[1].retrying), (1, 1));
    board.attempted(&attempt(2, "a", 2, 503));
    assert_eq!((board.rows[1].events, board.rows[1].retrying), (1, 1));
    board.received(1, "a");
    assert!(board.attempted(&attempt(2, "a", 3, 200)).verified);
    let row = &board.rows[1];
    assert_eq!((row.retrying, row.retried, row.delivered), (0, 1, 1));
    assert_eq!(
        row.durations(),
        Some((Duration::from_micros(1_500), Duration::from_micros(1_500)))
    );
}

#[test]
fn nothing_grows_without_bound() {
    let mut board = board();
    for number in 0..20_000 {
        let id = format!("e{number}");
        let expected = board.expect(&id, "order.created");
        assert_eq!(expected, number < OWED_MAX);
        board.accepted(&id);
        board.attempted(&attempt(1, &id, 1, 503));
    }
    assert_eq!(board.recent.len(), RECENT_MAX);
    assert_eq!(board.owed.len(), OWED_MAX);
    // Forgotten deliveries are no longer counted as retrying.
    assert!(board.rows[0].retrying < 10_000);
    assert_eq!(board.rows[0].events, 20_000);
}
