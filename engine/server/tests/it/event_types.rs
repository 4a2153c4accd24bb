//! Event types: what is said of them, and what their schemas refuse.

use std::sync::Arc;

use bytes::Bytes;
use posthaste::clock::Clock;
use posthaste::log::embedded::EmbeddedLog;
use posthaste::log::{Log as _, NewRecord, TopicPartition};
use serde_json::{Value, json};

use crate::access::{call, json_of, made, start};
use crate::dead::Receiver;
use crate::refusals::program::{Answer, Refused, Server, embedded, eventually};
use crate::tenants::said;

mod import;

const TYPES: &str = "/v1/event_types";
const SETTINGS: &str = "[egress]\nallow_http = true\nallow = [\"127.0.0.0/8\"]\n";

fn server(dir: &std::path::Path) -> Server {
    Server::start(&format!("{}{SETTINGS}", embedded(dir)))
}

fn ask(server: &Server, method: &str, path: &str, body: &str) -> Answer {
    let path = format!("{TYPES}{path}");
    server.api.call(method, &path, "", body.as_bytes())
}

fn publish(server: &Server, headers: &str, body: &str) -> Answer {
    let path = "/v1/tenants/acme/events";
    server.api.post(path, headers, body.as_bytes())
}

#[test]
fn an_event_type_is_made_shown_changed_and_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let started = server(dir.path());
    // No number in it is rounded, and nothing is merged into it.
    let schema = r#"{"properties":{"amount":{"maximum":123456789012345678901234567890}}}"#;
    let example = r#"{"amount":12345678901234567890123456789}"#;
    let new = format!(
        r#"{{"name":"invoice.paid","description":"Paid.","schema":{schema},"examples":[{example}]}}"#
    );
    let first = ask(&started, "POST", "", &new);
    assert!(first.head.contains("etag: \"1\""), "{}", first.head);
    assert!(
        first.text.contains(schema) && first.text.contains(example),
        "{}",
        first.text
    );
    let made = json_of(&first, 201);
    let wanted = ["invoice.paid", "Paid."];
    assert_eq!([&made["name"], &made["description"]], wanted);
    assert_eq!(
        (&made["deprecated"], &made["enforce"]),
        (&json!(false), &json!(false))
    );
    ask(&started, "POST", "", &new).problem(409, "event_type_exists");

    let patched = ask(
        &started,
        "PATCH",
        "/invoice.paid",
        r#"{"deprecated":true,"description":null}"#,
    );
    assert!(
        patched.text.contains(schema) && patched.text.contains(example),
        "{}",
        patched.text
    );
    let patched = json_of(&patched, 200);
    assert_eq!(
        (&patched["deprecated"], &patched["version"]),
        (&json!(true), &json!(2))
    );
    let patch = r#"{"schema":{"properties":{"id":{"const":null}}},"examples":null,"version":2}"#;
    let patched = json_of(&ask(&started, "PATCH", "/invoice.paid", patch), 200);
    assert_eq!(
        patched["schema"],
        json!({"properties": {"id": {"const": null}}})
    );
    assert_eq!(
        (&patched["examples"], &patched["description"]),
        (&json!([]), &json!(""))
    );
    ask(&started, "PATCH", "/invoice.paid", patch).problem(409, "version_conflict");
    let patched = json_of(
        &ask(&started, "PATCH", "/invoice.paid", r#"{"schema":null}"#),
        200,
    );
    assert_eq!(
        (&patched["schema"], &patched["version"]),
        (&Value::Null, &json!(4))
    );

    let put = r#"{"name":"order/made","schema":true}"#;
    assert_eq!(ask(&started, "PUT", "/order%2Fmade", put).status, 201);
    let list = json_of(&ask(&started, "GET", "?limit=1", ""), 200);
    assert_eq!(list["data"][0]["name"], "invoice.paid");
    assert_eq!(list["data"][0].get("schema"), None);
    let next = format!("?cursor={}", list["next_cursor"].as_str().unwrap());
    let list = json_of(&ask(&started, "GET", &next, ""), 200);
    assert_eq!(
        (&list["data"][0]["name"], &list["has_more"]),
        (&json!("order/made"), &json!(false))
    );
    // It is read back from the log as it is.
    started.stop();
    let started = server(dir.path());
    assert_eq!(
        json_of(&ask(&started, "GET", "/invoice.paid", ""), 200),
        patched
    );
    assert_eq!(ask(&started, "DELETE", "/invoice.paid", "").status, 204);
    for method in ["GET", "DELETE"] {
        ask(&started, method, "/invoice.paid", "").problem(404, "not_found");
    }
    ask(&started, "PATCH", "/invoice.paid", "{}").problem(404, "not_found");
    assert_eq!(
        json_of(&ask(&started, "PUT", "/invoice.paid", "{}"), 201)["version"],
        6
    );
    let trail = started
        .api
        .call("GET", "/v1/audit?subject=invoice.paid&limit=2", "", b"");
    let trail = json_of(&trail, 200);
    assert_eq!(trail["data"][0]["action"], "event_type.created");
    assert_eq!(trail["data"][1]["action"], "event_type.deleted");
    started.stop();
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let long = "x".repeat(70_000);
    let cases = [
        (r#"{"schema": 7}"#, "schema", "an object or a boolean"),
        (
            r#"{"schema": {"properties": {"a": {"type": "strin"}}}}"#,
            "schema",
            "`/properties/a/type`",
        ),
        (
            r#"{"schema": {"items": {"pattern": "("}}}"#,
            "schema",
            "`/items/pattern`",
        ),
        (
            r#"{"schema": {"$ref": "https://example.com/a"}}"#,
            "schema",
            "https://example.com/a",
        ),
        (
            r#"{"schema": {"$schema": "http://json-schema.org/draft-07/schema#"}}"#,
            "schema",
            "2020-12",
        ),
        (
            r#"{"schema": {"properties": {"a": {"type": "string"}}}, "examples": [{}, {"a": [1]}]}"#,
            "examples",
            "example 2: at `/a`",
        ),
        (r#"{"enforce": true}"#, "enforce", "no schema"),
        (
            &format!(r#"{{"schema": {{"title": "{long}"}}}}"#),
            "schema",
            "at most 65536",
        ),
        (
            &format!(r#"{{"examples": ["{long}"]}}"#),
            "examples",
            "at most 8192",
        ),
        (
            r#"{"examples": [1,2,3,4,5,6,7,8,9,10,11]}"#,
            "examples",
            "at most 10",
        ),
        (
            &format!(r#"{{"description": "{}"}}"#, &long[..2_000]),
            "description",
            "at most 1024",
        ),
        (r#"{"name": "b"}"#, "name", "that of the path"),
    ];
    for (body, param, word) in cases {
        let (named, detail) = ask(&server, "PUT", "/a", body).problem(422, "invalid");
        assert_eq!(named, param, "{detail}");
        assert!(detail.contains(word), "{detail}");
    }
    for body in [
        "{",
        r#"{"colour": 1}"#,
        r#"{"examples": 1}"#,
        r#"{"deprecated": "yes"}"#,
    ] {
        ask(&server, "PUT", "/a", body).problem(400, "malformed");
    }
    for (method, path, body) in [
        ("POST", "", "{}"),
        ("POST", "", r#"{"name": "a b"}"#),
        ("PUT", "/a%20b", "{}"),
    ] {
        let (named, _) = ask(&server, method, path, body).problem(422, "invalid");
        assert_eq!(named, "name");
    }
    ask(&server, "GET", "/a", "").problem(404, "not_found");
    server.stop();
}

/// Writes an event into the source topic of a log nobody holds.
async fn write(dir: &std::path::Path, id: &str, body: &'static str) {
    let clock = Clock::start();
    let log = EmbeddedLog::open(dir, Arc::new(move || clock.now())).unwrap();
    let header =
        |name: &'static str, value: &str| (name.into(), Bytes::copy_from_slice(value.as_bytes()));
    let record = NewRecord {
        to: TopicPartition {
            topic: "events".into(),
            partition: 0,
        },
        key: Bytes::new(),
        value: Bytes::from_static(body.as_bytes()),
        headers: vec![
            header("webhook-type", "invoice.paid"),
            header("webhook-tenant", "acme"),
            header("webhook-id", id),
        ],
    };
    assert!(log.append(vec![record]).await[0].is_ok());
    log.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_enforced_schema_refuses_events_that_come_by_http() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let receiver = Receiver::start(200);
    let url = format!("http://{}/", receiver.at);
    let started = tokio::task::spawn_blocking(move || {
        let started = server(&path);
        started.api.endpoint("acme", &url);
        enforce_and_publish(&started);
        started.stop();
        path
    });
    let path = started.await.unwrap();
    write(&path, "from-the-log", r#"{"amount": "many"}"#).await;
    let started = tokio::task::spawn_blocking(move || server(&path))
        .await
        .unwrap();
    tokio::task::spawn_blocking(move || {
        eventually("what the log has is delivered", || {
            let taken = receiver.taken();
            taken.contains(&"from-the-log".to_owned()) && taken.len() == 5
        });
        let mut taken = receiver.taken();
        taken.sort();
        assert_eq!(
            taken,
            ["before", "foreign", "from-the-log", "lifted", "right"]
        );
        started.stop();
    })
    .await
    .unwrap();
}

fn enforce_and_publish(server: &Server) {
    let paid = |id: &str| format!("webhook-type: invoice.paid\r\nwebhook-id: {id}\r\n");
    let put = |enforce: bool| {
        let schema = json!({
            "type": "object", "required": ["id", "amount"],
            "properties": {"amount": {"type": "integer"}},
        });
        let body = json!({"schema": schema, "enforce": enforce}).to_string();
        assert!(ask(server, "PUT", "/invoice.paid", &body).status < 300);
    };
    put(false);
    assert_eq!(publish(server, &paid("before"), "{}").status, 202);
    put(true);
    let refused = |headers: &str, body: &str| {
        let refused = publish(server, headers, body);
        let (param, detail) = refused.problem(422, "schema_not_satisfied");
        assert_eq!(param, "body");
        assert!(detail.contains("`invoice.paid`"), "{detail}");
        detail
    };
    let detail = refused(&paid("wrong"), r#"{"amount": "secret words"}"#);
    assert!(
        detail.contains("at `/amount`") && detail.contains("\"id\" is a required"),
        "{detail}"
    );
    assert!(!detail.contains("secret words"), "{detail}");
    assert!(refused(&paid("wrong"), "no JSON").contains("expected JSON"));
    // As it will be delivered: the data of an envelope.
    let envelope = r#"{"type": "invoice.paid", "id": "enveloped", "data": {"id": 1}}"#;
    refused("", envelope);
    // Refused, it is not known by its key.
    let keyed = format!("{}idempotency-key: k\r\n", paid("right"));
    refused(&keyed, "{}");
    assert_eq!(
        publish(server, &keyed, r#"{"id": 1, "amount": 7}"#).status,
        202
    );
    let foreign = "webhook-type: invoice.made\r\nwebhook-id: foreign\r\n";
    assert_eq!(publish(server, foreign, "{}").status, 202);
    put(false);
    assert_eq!(publish(server, &paid("lifted"), "{}").status, 202);
    put(true);
    refused(&paid("again"), "{}");
}

#[test]
fn tenants_read_them_and_only_admin_writes_them() {
    let dir = tempfile::tempdir().unwrap();
    let (server, admin) = start(dir.path());
    json_of(
        &call(&server, &admin, "PUT", "/v1/event_types/a", &json!({})),
        201,
    );
    let key = |scope: &str, tenant: Option<&str>| {
        let asked = json!({"scopes": [scope], "tenant": tenant});
        made(&server, &admin, "/v1/keys", &asked)
    };
    let own = key("admin", Some("acme"));
    let asked = json!({"capabilities": ["read"]});
    let portal = made(&server, &own, "/v1/tenants/acme/portal_sessions", &asked);
    let readers = [own, portal, key("read", None), key("read", Some("acme"))];
    for (reader, reads) in readers
        .iter()
        .map(|key| (key, 200))
        .chain([(&key("publish", None), 403)])
    {
        for path in ["/v1/event_types", "/v1/event_types/a"] {
            let read = call(&server, reader, "GET", path, &Value::Null);
            assert_eq!(read.status, reads, "{}", read.text);
        }
        let body = json!({"name": "b"});
        call(&server, reader, "POST", "/v1/event_types", &body).problem(403, "forbidden");
        for method in ["PUT", "PATCH", "DELETE"] {
            call(&server, reader, method, "/v1/event_types/a", &json!({}))
                .problem(403, "forbidden");
        }
    }
    server
        .api
        .call("GET", TYPES, "", b"")
        .problem(401, "unauthorized");
    server.stop();
}

#[test]
fn the_command_line_says_and_shows_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let example = dir.path().join("example.json");
    std::fs::write(&example, r#"{"amount": 7}"#).unwrap();
    let put = [
        "event-types",
        "put",
        "invoice.paid",
        "--description",
        "Paid.",
        "--enforce",
    ];
    let options = [
        "--schema",
        r#"{"required": ["amount"]}"#,
        "--example",
        example.to_str().unwrap(),
    ];
    let table = said(&server, &[&put[..], &options].concat());
    assert!(
        table.contains("invoice.paid  current  enforced  1        Paid."),
        "{table}"
    );
    let shown = said(&server, &["event-types", "show", "invoice.paid"]);
    assert!(
        shown.contains("schema: {\n  \"required\"") && shown.contains("\"amount\": 7"),
        "{shown}"
    );
    let file = dir.path().join("type.json");
    std::fs::write(&file, r#"{"deprecated": true}"#).unwrap();
    said(
        &server,
        &[
            "event-types",
            "put",
            "order.made",
            "--file",
            file.to_str().unwrap(),
        ],
    );
    let listed = said(&server, &["event-types", "list"]);
    assert!(
        listed.contains("order.made    deprecated  not enforced  1"),
        "{listed}"
    );
    let listed: Value =
        serde_json::from_str(&said(&server, &["event-types", "list", "--json"])).unwrap();
    assert_eq!(listed["data"].as_array().unwrap().len(), 2);
    let address = format!("http://{}", server.api.0);
    let words = [
        "event-types",
        "put",
        "a",
        "--schema",
        "{\"type\": 1}",
        "--server",
        &address,
    ];
    Refused::from(&words).expect(1, &["422", "schema", "at `/type`"]);
    let words = [
        "event-types",
        "put",
        "a",
        "--schema",
        "{",
        "--server",
        &address,
    ];
    Refused::from(&words).expect(2, &["--schema: not JSON"]);
    assert_eq!(
        said(&server, &["event-types", "delete", "order.made"]),
        "deleted order.made\n"
    );
    server.stop();
}
