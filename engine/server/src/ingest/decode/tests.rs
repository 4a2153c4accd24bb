use super::*;

fn decode(headers: &[(&str, &str)], body: &str) -> Result<Event, EventError> {
    let headers = headers
        .iter()
        .map(|(name, value)| {
            let value = Bytes::copy_from_slice(value.as_bytes());
            (ByteString::from(*name), value)
        })
        .collect();
    let record = record_of(
        headers,
        Bytes::copy_from_slice(body.as_bytes()),
        Timestamp::from_millis(1),
    );
    decode_from("events", &record)
}

fn decode_from(topic: &str, record: &Record) -> Result<Event, EventError> {
    let tp = TopicPartition {
        topic: topic.into(),
        partition: 3,
    };
    let decoder = Decoder::new(&Config::default()).unwrap();
    decoder.decode(&tp, record)
}

#[test]
fn operational_events_come_from_their_own_topic_alone() {
    let mut event = decode(&[("webhook-type", "a"), ("webhook-tenant", "t")], "{}").unwrap();
    event.tenant = SYSTEM_TENANT.into();
    let headers = crate::config::HeaderNames::default().of(&event);
    let record = record_of(headers, event.body, Timestamp::from_millis(1));
    let read = decode_from("posthaste.operational", &record).unwrap();
    assert_eq!((&read.id, &*read.tenant), (&event.id, SYSTEM_TENANT));
    let refused = decode_from("events", &record).expect_err("reserved");
    assert_eq!(refused, EventError::Reserved);
}

#[test]
fn headers_route_any_body_byte_for_byte() {
    let event = decode(
        &[
            ("webhook-type", "invoice.paid"),
            ("Webhook-Id", "evt_1"),
            ("webhook-tenant", "acme"),
            ("content-type", "text/plain"),
        ],
        "not json at all {",
    )
    .unwrap();
    assert_eq!((&*event.id, &*event.tenant), ("evt_1", "acme"));
    assert_eq!(&event.body[..], b"not json at all {");
    assert_eq!(&*event.content_type, "text/plain");
    let again = crate::config::HeaderNames::default().of(&event);
    assert_eq!(again.len(), 4);
}

#[test]
fn cloudevents_in_both_modes() {
    let binary = decode(
        &[
            ("ce_type", "order.made"),
            ("ce_id", "1"),
            ("ce_source", "/shop"),
            ("webhook-tenant", "acme"),
        ],
        "{\"a\":1}",
    )
    .unwrap();
    assert_eq!((&*binary.event_type, &*binary.id), ("order.made", "1"));
    assert_eq!(&binary.body[..], b"{\"a\":1}");
    let text = r#"{"specversion":"1.0","id":"2","type":"order.made","data":{"b": 2}}"#;
    let structured = decode(
        &[
            (
                "content-type",
                "application/cloudevents+json; charset=utf-8",
            ),
            ("webhook-tenant", "acme"),
        ],
        text,
    )
    .unwrap();
    assert_eq!(&*structured.id, "2");
    assert_eq!(&structured.body[..], text.as_bytes());
    assert!(
        structured
            .content_type
            .starts_with("application/cloudevents+json")
    );
}

#[test]
fn an_envelope_delivers_its_data_as_it_was_written() {
    let event = decode(
        &[],
        r#" {"tenant":"acme","data": { "z" : 1.50, "a":"\u00e9" },"type":"a.b","id":"x"}"#,
    )
    .unwrap();
    assert_eq!(&event.body[..], br#"{ "z" : 1.50, "a":"\u00e9" }"#);
    assert_eq!((&*event.tenant, &*event.event_type), ("acme", "a.b"));
}

fn key_of(headers: &[(&str, &str)], record_key: &[u8], body: &str) -> Bytes {
    let headers = headers.iter().map(|(name, value)| {
        let value = Bytes::copy_from_slice(value.as_bytes());
        (ByteString::from(*name), value)
    });
    let body = Bytes::copy_from_slice(body.as_bytes());
    let mut record = record_of(headers.collect(), body, Timestamp::from_millis(1));
    record.key = Bytes::copy_from_slice(record_key);
    decode_from("events", &record).unwrap().ordering_key
}

#[test]
fn the_ordering_key_is_the_one_given_or_the_records() {
    let given = ("webhook-ordering-key", "k1");
    let headers = [("webhook-type", "a"), ("webhook-tenant", "t"), given];
    assert_eq!(key_of(&headers, b"of the record", ""), "k1");
    assert_eq!(key_of(&headers[..2], b"\xff\x00", ""), &b"\xff\x00"[..]);
    assert_eq!(key_of(&headers[..2], b"", ""), "");
    let empty = [headers[0], headers[1], ("webhook-ordering-key", "")];
    assert_eq!(key_of(&empty, b"of the record", ""), "of the record");

    let binary = [
        ("ce_type", "a"),
        ("ce_tenant", "t"),
        ("ce_partitionkey", "k2"),
    ];
    assert_eq!(key_of(&binary, b"r", ""), "k2");
    assert_eq!(key_of(&[&binary[..], &[given]].concat(), b"r", ""), "k1");
    let structured = [("content-type", "application/cloudevents+json")];
    let text = r#"{"type":"a","tenant":"t","partitionkey":"k3","ordering_key":"no"}"#;
    assert_eq!(key_of(&structured, b"r", text), "k3");

    let envelope = |key: &str| {
        let body = format!(r#"{{"type":"a","tenant":"t","data":1,"ordering_key":{key}}}"#);
        key_of(&[], b"r", &body)
    };
    assert_eq!(envelope("\"k\\u0034\""), "k4");
    assert_eq!(
        envelope("12345678901234567890123"),
        "12345678901234567890123"
    );
    assert_eq!(envelope("null"), "r");
    let body = r#"{"type":"a","tenant":"t","data":1,"ordering_key":"no"}"#;
    assert_eq!(key_of(&[given], b"r", body), "k1");
}

#[test]
fn a_long_ordering_key_is_refused_and_a_long_record_key_is_not() {
    let long = "x".repeat(ORDERING_KEY_BYTES_MAX + 1);
    let headers = [("webhook-type", "a"), ("webhook-tenant", "t")];
    let given = [&headers[..], &[("webhook-ordering-key", &*long)]].concat();
    let refused = decode(&given, "").expect_err("refused").to_string();
    assert!(refused.contains("ordering key has 257 bytes"), "{refused}");
    let hashed = key_of(&headers, long.as_bytes(), "");
    assert_eq!(hashed.len(), 32);
    let other = key_of(&headers, long.replace('x', "y").as_bytes(), "");
    assert_ne!(hashed, other);
    let list = r#"{"type":"a","tenant":"t","data":1,"ordering_key":[]}"#;
    let refused = decode(&[], list).expect_err("refused").to_string();
    assert!(refused.contains("`/ordering_key` must be a string or a number"));
}

#[test]
fn an_event_without_an_id_gets_the_same_one_each_time() {
    let headers = [("webhook-type", "a"), ("webhook-tenant", "t")];
    let first = decode(&headers, "{}").unwrap();
    assert_eq!(first.id, decode(&headers, "{}").unwrap().id);
    assert!(first.id.starts_with("evt_"));
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    let refused = |headers: &[(&str, &str)], body: &str| {
        decode(headers, body).expect_err("refused").to_string()
    };
    assert!(refused(&[], "{").contains("JSON"));
    assert!(refused(&[], "[1]").contains("object"));
    assert!(refused(&[], r#"{"id":"1"}"#).contains("no type"));
    assert!(refused(&[], r#"{"type":"a"}"#).contains("no tenant"));
    let no_body = refused(&[], r#"{"type":"a","tenant":"t"}"#);
    assert!(no_body.contains("no body: expected the envelope's `/data`"));
    assert!(refused(&[], r#"{"type":7,"tenant":"t"}"#).contains("`/type`"));
    let type_only = [("webhook-type", "a b"), ("webhook-tenant", "t")];
    assert!(refused(&type_only, "").contains("type must be"));
}
