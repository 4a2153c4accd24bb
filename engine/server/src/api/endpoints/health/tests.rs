use posthaste_core::id::{AttemptId, DeliveryId};
use posthaste_proto as proto;

use super::*;

fn endpoint() -> Endpoint {
    let record = proto::Endpoint {
        id: vec![1; 16].into(),
        tenant: "acme".to_owned(),
        url: "https://example.com/".to_owned(),
        secrets: vec![proto::Secret {
            id: "sec_1".to_owned(),
            text: "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD".to_owned(),
            ..Default::default()
        }],
        ..Default::default()
    };
    Endpoint::from_proto(record).unwrap()
}

fn attempt(at_ms: u64, cause: &str) -> record::Recorded {
    record::Recorded {
        id: AttemptId::at(0, at_ms, 0),
        delivery: DeliveryId::from_bytes([1; 16]),
        attempt: proto::Attempt {
            started_ms: at_ms,
            cause: cause.to_owned(),
            ..Default::default()
        },
    }
}

/// Attempts, each delivered or not.
fn trail(made: &[(u64, bool)]) -> Trail {
    let mut trail = Trail::default();
    for &(at_ms, delivered) in made {
        trail.add(attempt(at_ms, if delivered { "" } else { "http_5xx" }));
    }
    trail
}

fn gate(state: GateState, at_ms: u64) -> Gate {
    Gate {
        state,
        at: Timestamp::from_millis(at_ms),
        ..Gate::OPEN
    }
}

fn owed(failing: u64) -> evidence::Owed {
    evidence::Owed {
        failing,
        ..Default::default()
    }
}

#[test]
fn what_holds_an_endpoint_counts_before_what_it_did() {
    let well = trail(&[(10, true)]);
    let open = gate(GateState::Open, 0);
    let held = gate(GateState::Held, 20);
    let state = |endpoint: &Endpoint, gate: &Gate, trail: &Trail| {
        judge(endpoint, gate, trail, None, Recorded::All)
    };
    let mut it = endpoint();
    assert_eq!(state(&it, &open, &well), State::Healthy);
    assert_eq!(state(&it, &held, &well), State::Down);
    assert_eq!(state(&it, &held, &Trail::default()), State::Down);
    assert_eq!(
        state(&it, &gate(GateState::Paused, 20), &well),
        State::Paused
    );
    // It took one since: what is held goes first.
    assert_eq!(
        state(&it, &held, &trail(&[(10, true), (21, true)])),
        State::Healthy
    );
    let sometimes = trail(&[(21, true), (22, false)]);
    assert_eq!(state(&it, &held, &sometimes), State::Failing);
    it.paused = true;
    assert_eq!(state(&it, &held, &well), State::Paused);
    it.disabled = true;
    assert_eq!(state(&it, &held, &well), State::Disabled);
    it.disabled_reason = "gone".to_owned();
    assert_eq!(why(State::Disabled, &it, &well), "it is disabled: gone");
}

#[test]
fn an_endpoint_is_what_its_last_attempt_was_or_what_it_is_owed() {
    let (it, open) = (endpoint(), gate(GateState::Open, 0));
    let (some, none) = (owed(1), owed(0));
    for (made, owed, recorded, wanted) in [
        (
            &[(1, false), (2, true)][..],
            Some(&some),
            Recorded::All,
            State::Healthy,
        ),
        (
            &[(2, true), (3, false)],
            Some(&none),
            Recorded::All,
            State::Failing,
        ),
        (&[], Some(&some), Recorded::All, State::Failing),
        (&[], Some(&none), Recorded::All, State::Healthy),
        (&[], None, Recorded::All, State::Unknown),
        // Whatever was delivered since is not on record.
        (
            &[(3, false)],
            Some(&none),
            Recorded::Failures,
            State::Healthy,
        ),
        (
            &[(3, false)],
            Some(&some),
            Recorded::Failures,
            State::Failing,
        ),
        (&[], None, Recorded::None, State::Unknown),
    ] {
        let state = judge(&it, &open, &trail(made), owed, recorded);
        assert_eq!(state, wanted, "{made:?} {owed:?} {recorded:?}");
    }
}

#[test]
fn a_state_began_with_the_first_attempt_of_its_kind() {
    let turned = |made: &[(u64, bool)], reached: Option<u64>| {
        let mut trail = trail(made);
        trail.reached = reached.map(Timestamp::from_millis);
        let at = trail.turned().map(Timestamp::as_millis);
        (at, trail.failed_in_a_row())
    };
    // In the order they are met: those of one partition before another's.
    let down = [(9, false), (3, true), (7, false), (5, false), (1, false)];
    assert_eq!(turned(&down, Some(0)), (Some(5), 3));
    let up = [(9, true), (7, true), (3, false)];
    assert_eq!(turned(&up, Some(0)), (Some(7), 0));
    let all = [(9, false), (8, false)];
    assert_eq!(turned(&all, None), (Some(8), 2));
    assert_eq!(
        turned(&all, Some(5)),
        (None, 2),
        "further back than was looked"
    );
    assert_eq!(turned(&[], None), (None, 0));
}

#[test]
fn a_gate_says_since_when_only_what_it_says() {
    let at = Some(Timestamp::from_millis(20));
    let held = gate(GateState::Held, 20);
    assert_eq!(said_at(&held, State::Down), at);
    assert_eq!(said_at(&held, State::Paused), None);
    assert_eq!(said_at(&gate(GateState::Paused, 20), State::Paused), at);
    assert_eq!(said_at(&Gate::PAUSED, State::Paused), None);
}
