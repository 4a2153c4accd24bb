use posthaste_core::id::{EndpointId, OperationId};
use posthaste_core::operation::{Kind, Range};
use serde_json::{Value, json};

use super::*;

fn range(partition: u32, from: u64, to: u64) -> Range {
    Range {
        topic: "events".to_owned(),
        partition,
        from,
        to,
        ..Range::default()
    }
}

fn operation(wanted: Wanted) -> Operation {
    Operation {
        id: OperationId::from_bytes([1; 16]),
        tenant: "acme".to_owned(),
        endpoint: EndpointId::from_bytes([2; 16]),
        kind: Kind::Replay,
        wanted,
        actor: "local".to_owned(),
        created_at: Timestamp::from_millis(1_700_000_000_000),
        ranges: vec![range(0, 10, 20), range(1, 0, 30)],
        span: (
            Timestamp::from_millis(1_699_999_000_000),
            Timestamp::default(),
        ),
        event_types: vec!["invoice.*".parse().unwrap()],
        filter: None,
        any: false,
        rate_per_second: 50,
        dead_cause: String::new(),
        offsets: Vec::new(),
        before: 0,
        version: 1,
    }
}

fn progress(state: State, next: &[u64]) -> Progress {
    Progress {
        state,
        owner_epoch: 4,
        at: Timestamp::from_millis(1_700_000_010_000),
        next: next.to_vec(),
        scanned: 9,
        count: 8,
        skipped: 1,
        detail: String::new(),
    }
}

fn shown(wanted: Wanted, progress: Option<Progress>) -> Value {
    let known = Known {
        operation: Arc::new(operation(wanted)),
        progress: progress.map(Arc::new),
    };
    json!(Shown::of(&known))
}

#[test]
fn a_state_is_what_is_wanted_and_what_its_owner_says() {
    use Wanted::{Cancel, Pause, Unspecified as Run};
    let state = |wanted, said: Option<State>| {
        let said = said.map(|state| progress(state, &[]));
        shown(wanted, said)["state"].as_str().unwrap().to_owned()
    };
    for (wanted, said, stands) in [
        (Run, None, "pending"),
        (Pause, None, "paused"),
        (Cancel, None, "cancelling"),
        (Run, Some(State::Running), "running"),
        (Run, Some(State::Paused), "running"),
        (Pause, Some(State::Running), "paused"),
        (Cancel, Some(State::Running), "cancelling"),
        (Cancel, Some(State::Cancelled), "cancelled"),
        (Cancel, Some(State::Succeeded), "succeeded"),
        (Pause, Some(State::Failed), "failed"),
    ] {
        assert_eq!(state(wanted, said), stands, "{wanted:?} {said:?}");
    }
}

#[test]
fn progress_is_by_place_and_goes_on_as_it_did() {
    let none = shown(Wanted::Unspecified, None);
    assert_eq!(none["progress"]["records"], 40);
    assert!(none["progress"]["percent"].is_null() && none["progress"]["eta"].is_null());
    assert_eq!(none["asked"]["event_types"], json!(["invoice.*"]));
    assert_eq!(none["asked"]["rate_per_second"], 50);
    assert_eq!(none["asked"]["until"], Value::Null);
    // A quarter in ten seconds: half a minute is left.
    let quarter = progress(State::Running, &[15, 5]);
    let running = shown(Wanted::Unspecified, Some(quarter));
    assert_eq!(running["progress"]["percent"], 25);
    assert_eq!(running["progress"]["rate"], 0.8);
    let ends = Timestamp::from_millis(1_700_000_040_000);
    assert_eq!(running["progress"]["eta"], format_rfc3339(ends));
    let over = progress(State::Succeeded, &[20, 30]);
    let over = shown(Wanted::Unspecified, Some(over));
    assert_eq!(over["progress"]["percent"], 100);
    assert!(over["progress"]["eta"].is_null());
    assert!(over.get("detail").is_none());
}
