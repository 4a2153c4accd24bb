use super::*;
use crate::endpoint::sample as endpoint_sample;
use crate::event::sample;
use crate::id::OperationId;
use crate::operation::{Kind, Range, Wanted};

const PLACE: Place = Place {
    range: 3,
    offset: 41,
};

fn operation() -> Operation {
    Operation {
        id: OperationId::from_bytes([7; 16]),
        tenant: "acme".to_owned(),
        endpoint: EndpointId::from_bytes([1; 16]),
        kind: Kind::Replay,
        wanted: Wanted::Unspecified,
        actor: "local".to_owned(),
        created_at: Timestamp::from_millis(5),
        ranges: Vec::new(),
        span: Default::default(),
        event_types: Vec::new(),
        filter: None,
        any: false,
        rate_per_second: 0,
        dead_cause: String::new(),
        offsets: Vec::new(),
        before: 0,
        version: 1,
    }
}

fn wants(operation: &Operation, tenant: &str, event_type: &str, body: &str) -> bool {
    let mut endpoint = endpoint_sample(1, "acme", &["invoice.*"]);
    endpoint.filter = r#"{"data.amount": {"$gte": 100}}"#.to_owned();
    let endpoint = Endpoint::from_proto(endpoint).unwrap();
    let view = View {
        event_type,
        headers: &[],
        body: body.as_bytes(),
    };
    is_wanted(operation, &endpoint, tenant, &view)
}

#[test]
fn an_event_is_for_whoever_wants_its_type_and_content() {
    let mut record = endpoint_sample(1, "acme", &["invoice.*"]);
    record.filter = r#"{"amount": {"$gte": 100}}"#.to_owned();
    record.exclude_event_types = vec!["invoice.draft".to_owned()];
    // Whether it takes deliveries is another question.
    (record.disabled, record.paused) = (true, true);
    let endpoint = Endpoint::from_proto(record).unwrap();
    for (tenant, event_type, body, wanted) in [
        ("acme", "invoice.paid", r#"{"amount": 100}"#, true),
        ("other", "invoice.paid", r#"{"amount": 100}"#, false),
        ("acme", "user.made", r#"{"amount": 100}"#, false),
        ("acme", "invoice.draft", r#"{"amount": 100}"#, false),
        ("acme", "invoice.paid", r#"{"amount": 99}"#, false),
        ("acme", "invoice.paid", "{", false),
    ] {
        let view = View {
            event_type,
            headers: &[],
            body: body.as_bytes(),
        };
        let found = is_for(&endpoint, tenant, &view);
        assert_eq!(found, wanted, "{tenant} {event_type} {body}");
    }
}

#[test]
fn what_operation_and_endpoint_want_is_brought_again() {
    const LARGE: &str = r#"{"data":{"amount":100}}"#;
    const SMALL: &str = r#"{"data":{"amount":99}}"#;
    let all = operation();
    assert!(wants(&all, "acme", "invoice.paid", LARGE));
    assert!(!wants(&all, "other", "invoice.paid", LARGE));
    assert!(!wants(&all, "acme", "user.created", LARGE));
    assert!(!wants(&all, "acme", "invoice.paid", SMALL));
    // What a body that cannot be read does not pass at first it does not later.
    assert!(!wants(&all, "acme", "invoice.paid", "{"));
    let some = Operation {
        event_types: vec!["invoice.paid".parse().unwrap()],
        filter: Some(Filter::parse(r#"{"data.amount": 100}"#).unwrap()),
        ..operation()
    };
    assert!(wants(&some, "acme", "invoice.paid", LARGE));
    assert!(!wants(&some, "acme", "invoice.sent", LARGE));
    assert!(!wants(
        &some,
        "acme",
        "invoice.paid",
        r#"{"data":{"amount":101}}"#
    ));
    let any = Operation {
        any: true,
        ..operation()
    };
    assert!(wants(&any, "acme", "user.created", SMALL));
    assert!(!wants(&any, "other", "user.created", SMALL));
}

#[test]
fn a_replayed_event_begins_anew_under_the_operations_name() {
    let event = sample("a", "acme", "invoice.paid");
    let now = Timestamp::from_millis(1_000);
    let once = replayed(&operation(), &event, PLACE, now);
    assert_eq!((once.range, once.range_offset), (3, 42));
    assert_eq!((once.attempt, once.due_ms, once.first_at_ms), (0, 0, 1_000));
    assert_eq!(once.deadline_ms, 1_000 + 72 * 3_600_000);
    assert_eq!(once.reason(), Reason::Replay);
    assert_eq!(once.generation[..], [7; 16]);
    let first = delivery_id(&event.origin, operation().endpoint, &[]);
    assert_ne!(once.delivery_id[..], first.as_bytes()[..]);
    let any = Operation {
        any: true,
        ..operation()
    };
    let named = replayed(&any, &event, PLACE, now);
    assert_eq!(named.reason(), Reason::Resend);
    assert_eq!(named.delivery_id, once.delivery_id);
}

#[test]
fn dead_letters_of_the_endpoint_cause_and_time_are_revived() {
    let now = Timestamp::from_millis(1_000);
    let letter = proto::Dead {
        cause: proto::DeadCause::Exhausted.into(),
        delivery: Some(replayed(
            &operation(),
            &sample("a", "acme", "b"),
            PLACE,
            now,
        )),
        at_ms: 500,
        ..Default::default()
    };
    let revive = |operation: &Operation, letter: &proto::Dead| {
        revived(operation, letter.clone(), PLACE, now)
            .map(|it| it.map(|it| (it.range_offset, it.reason())))
    };
    let found = Ok(Some((42, Reason::Resend)));
    assert_eq!(revive(&operation(), &letter), found);
    let at = Timestamp::from_millis;
    for (since, until, wanted) in [(500, 501, true), (501, 900, false), (1, 500, false)] {
        let timed = Operation {
            span: (at(since), at(until)),
            ..operation()
        };
        assert_eq!(revive(&timed, &letter) == found, wanted, "{since}");
    }
    for (cause, wanted) in [("exhausted", true), ("expired", false)] {
        let of_cause = Operation {
            dead_cause: cause.to_owned(),
            ..operation()
        };
        assert_eq!(revive(&of_cause, &letter) == found, wanted, "{cause}");
    }
    let other = Operation {
        endpoint: EndpointId::from_bytes([2; 16]),
        ..operation()
    };
    assert_eq!(revive(&other, &letter), Ok(None));
    let oversize = proto::Dead {
        cause: proto::DeadCause::Oversize.into(),
        ..letter
    };
    assert_eq!(revive(&operation(), &oversize), Err(NothingLeft));
    assert_eq!(revive(&other, &oversize), Ok(None));
}

#[test]
fn only_what_was_given_up_with_others_is_taken_out_of_the_lane_again() {
    let now = Timestamp::from_millis(1_000);
    let record = replayed(&operation(), &sample("a", "acme", "b"), PLACE, now);
    let redrive = Operation {
        ranges: vec![Range::default(); 4],
        ..operation()
    };
    let again = held_again(&redrive, record.clone(), PLACE, now).unwrap();
    assert_eq!((again.range, again.range_offset), (3, 42));
    let timed = proto::Deliver {
        due_ms: 5,
        ..record.clone()
    };
    assert_eq!(held_again(&redrive, timed, PLACE, now), None);
    let other = proto::Deliver {
        endpoint_id: vec![2; 16].into(),
        ..record.clone()
    };
    assert_eq!(held_again(&redrive, other, PLACE, now), None);
    let mut left_out = redrive;
    left_out.ranges[3].except = vec![7, 40];
    assert!(held_again(&left_out, record.clone(), PLACE, now).is_some());
    left_out.ranges[3].except.push(PLACE.offset);
    assert_eq!(held_again(&left_out, record, PLACE, now), None);
}
