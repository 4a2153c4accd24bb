use bytes::Bytes;
use bytestring::ByteString;
use posthaste_core::limits::{PULLS_MAX, PULLS_TENANT_MAX};

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn event(content_type: &'static str, body: &'static [u8]) -> Event {
    Event {
        id: ByteString::from_static("evt_1"),
        tenant: ByteString::from_static("acme"),
        event_type: ByteString::from_static("a"),
        content_type: ByteString::from_static(content_type),
        body: Bytes::from_static(body),
        ordering_key: Bytes::new(),
        origin: posthaste_core::event::Origin {
            topic: ByteString::from_static("events"),
            partition: 3,
            offset: 9,
            timestamp: NOW,
        },
    }
}

#[test]
fn a_body_is_shown_as_the_json_it_is_or_byte_for_byte() {
    let shown = |content_type, body| {
        let item = Item::of(&event(content_type, body));
        let item = serde_json::to_value(item).unwrap();
        assert_eq!(item["origin"]["offset"], 9);
        assert_eq!(item["time"], "2023-11-14T22:13:20.000Z");
        (item.get("data").cloned(), item.get("data_base64").cloned())
    };
    let json = serde_json::json!({"n": 1});
    for kind in [
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/cloudevents+json",
    ] {
        assert_eq!(shown(kind, b"{\"n\": 1}"), (Some(json.clone()), None));
    }
    // A null is a value.
    assert_eq!(
        shown("application/json", b"null"),
        (Some(serde_json::Value::Null), None)
    );
    for (kind, body) in [
        ("text/plain", &b"1"[..]),
        ("application/json", b"{"),
        ("a/json", b"\xff"),
    ] {
        let wanted = BASE64_STANDARD.encode(body);
        assert_eq!(shown(kind, body), (None, Some(wanted.into())), "{kind}");
    }
    // Digits no number type holds stay.
    let long = event("application/json", b"1.00000000000000000000001");
    let text = serde_json::to_string(&Item::of(&long)).unwrap();
    assert!(text.contains(":1.00000000000000000000001,"), "{text}");
}

#[test]
fn what_cannot_be_asked_is_refused_by_name() {
    let pull = |cursor: Option<&str>, since: Option<&str>| {
        let asked = Pull {
            cursor: cursor.map(ToOwned::to_owned),
            since: since.map(ToOwned::to_owned),
            limit: None,
            wait: None,
        };
        From::read(asked, NOW)
    };
    assert!(matches!(pull(None, None), Ok(From::Now)));
    let hour_ago = NOW.as_millis() - 3_600_000;
    let since = pull(None, Some("1h"));
    assert!(matches!(since, Ok(From::Since(at)) if at.as_millis() == hour_ago));
    for (cursor, since) in [
        (Some("1.1.0"), None),
        (Some("1.1.0"), Some("1h")),
        (None, Some("soon")),
        (None, Some("2999-01-01T00:00:00Z")),
    ] {
        let refused = pull(cursor, since).err().map(|problem| problem.code());
        assert_eq!(refused, Some("invalid"), "{cursor:?} {since:?}");
    }
    assert_eq!(read_wait(None).ok(), Some(Duration::ZERO));
    assert_eq!(
        read_wait(Some("500ms")).ok(),
        Some(Duration::from_millis(500))
    );
    for bad in ["", "5", "31s", "1h", "-1s"] {
        assert_eq!(
            read_wait(Some(bad)).err().map(|p| p.code()),
            Some("invalid"),
            "{bad}"
        );
    }
}

#[test]
fn one_tenant_does_not_take_all_the_room() {
    let pulls = Pulls::new();
    let mut calls = Vec::new();
    let mut refused = 0;
    let tenants = PULLS_MAX / PULLS_TENANT_MAX;
    for number in 0..tenants {
        let tenant = format!("tenant-{number}");
        for _ in 0..=PULLS_TENANT_MAX {
            match pulls.enter(&tenant) {
                Ok(call) => calls.push(call),
                Err(problem) => {
                    assert_eq!(problem.code(), "too_many_pulls");
                    refused += 1;
                }
            }
        }
    }
    assert_eq!((calls.len(), refused), (PULLS_MAX, tenants));
    assert!(pulls.enter("one-more").is_err());
    calls.remove(0);
    assert!(pulls.enter("one-more").is_ok());
    drop(calls);
    let again = (0..PULLS_TENANT_MAX).map(|_| pulls.enter("tenant-0"));
    assert!(again.collect::<Vec<_>>().iter().all(Result::is_ok));
}
