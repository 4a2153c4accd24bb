//! Operations from outside: what is asked of endpoints' owners, how it is shown
//! and steered, and what is refused.

use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::dead::Receiver;
use crate::refusals::program::{Refused, Server, embedded, posthaste};

const SETTINGS: &str = "[egress]\nallow_http = true\nallow = [\"127.0.0.0/8\"]\n";
const ENDPOINTS: &str = "/v1/tenants/acme/endpoints";

pub(crate) fn server(dir: &std::path::Path) -> Server {
    Server::start(&format!("{}{SETTINGS}", embedded(dir)))
}

/// A server, a receiver that answers so, and acme's endpoint `billing` that leads
/// to it, as `more` says; its id. The folder is to outlive the server.
pub(crate) fn billing(status: u16, more: Value) -> (Server, Receiver, String, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let receiver = Receiver::start(status);
    let endpoint = created(&server, "billing", receiver.at, more);
    (server, receiver, endpoint, dir)
}

/// The JSON of an answer that must have this status.
#[track_caller]
pub(crate) fn call(server: &Server, method: &str, path: &str, body: Value, status: u16) -> Value {
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let answer = server.api.call(method, path, "", body.as_bytes());
    assert_eq!(answer.status, status, "{path}: {}", answer.text);
    serde_json::from_str(&answer.text).unwrap_or_default()
}

/// Makes an endpoint of acme; its id.
pub(crate) fn created(server: &Server, uid: &str, to: SocketAddr, more: Value) -> String {
    let mut body = json!({ "url": format!("http://{to}/"), "uid": uid });
    let more = more.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(more);
    let made = call(server, "POST", ENDPOINTS, body, 201);
    made["id"].as_str().unwrap().to_owned()
}

pub(crate) fn publish(server: &Server, ids: &[&str]) {
    for id in ids {
        let headers = format!("webhook-type: invoice.paid\r\nwebhook-id: {id}\r\n");
        let path = "/v1/tenants/acme/events";
        let answer = server.api.post(path, &headers, b"{\"n\":1}");
        assert_eq!(answer.status, 202, "{}", answer.text);
    }
}

/// The program with these words; its standard output.
#[track_caller]
pub(crate) fn said(server: &Server, words: &[&str]) -> String {
    let address = format!("http://{}", server.api.0);
    let mut command = posthaste(&[words, &["--server", &address]].concat());
    let output = command.stdin(Stdio::null()).output().unwrap();
    let why = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{words:?}: {why}");
    String::from_utf8(output.stdout).unwrap()
}

fn id_of(operation: &Value) -> &str {
    operation["id"].as_str().unwrap()
}

#[test]
fn an_operation_is_named_shown_and_steered() {
    let (server, _receiver, endpoint, _dir) = billing(200, json!({}));
    // A paused endpoint takes nothing, so its replay does not end.
    call(
        &server,
        "POST",
        &format!("{ENDPOINTS}/billing/pause"),
        Value::Null,
        200,
    );
    publish(&server, &["a", "b"]);
    let body = json!({
        "endpoint_id": endpoint, "since": "1h", "event_types": ["invoice.*"],
        "filter": {"n": {"$gte": 1}}, "rate": 1,
    });
    let answer = server
        .api
        .post("/v1/replays", "", body.to_string().as_bytes());
    assert_eq!(answer.status, 202, "{}", answer.text);
    let begun: Value = serde_json::from_str(&answer.text).unwrap();
    let id = id_of(&begun).to_owned();
    let place = format!("/v1/tenants/acme/operations/{id}");
    let location = format!("location: {}", place.to_ascii_lowercase());
    assert!(answer.head.contains(&location), "{}", answer.head);
    assert_eq!(begun["truncated"], false);
    for (name, value) in [
        ("kind", json!("replay")),
        ("tenant", json!("acme")),
        ("endpoint", json!(endpoint)),
        ("state", json!("pending")),
        ("actor", json!("local")),
        ("version", json!(1)),
    ] {
        assert_eq!(begun[name], value, "{name}");
    }
    assert_eq!(begun["asked"]["event_types"], json!(["invoice.*"]));
    assert_eq!(begun["asked"]["filter"], json!({"n": {"$gte": 1}}));
    assert_eq!(begun["asked"]["rate_per_second"], 1);
    assert_eq!(begun["progress"]["records"], 2);

    let one = call(&server, "GET", &place, Value::Null, 200);
    assert_eq!(one["asked"], begun["asked"]);
    let steer = |verb: &str| {
        let path = format!("/v1/operations/{id}/{verb}");
        call(&server, "POST", &path, Value::Null, 200)
    };
    let paused = steer("pause");
    assert_eq!(
        (&paused["state"], &paused["version"]),
        (&json!("paused"), &json!(2))
    );
    assert_eq!(steer("pause")["version"], 2, "it is paused already");
    assert_ne!(steer("resume")["state"], "paused");
    let list = |query: &str| {
        let path = format!("/v1/operations?{query}");
        let page = call(&server, "GET", &path, Value::Null, 200);
        page["data"].as_array().unwrap().len()
    };
    for (query, count) in [
        ("", 1),
        ("tenant=acme&kind=replay", 1),
        ("tenant=other", 0),
        ("kind=redrive", 0),
        ("state=failed", 0),
        (&format!("endpoint={endpoint}&limit=1"), 1),
        ("endpoint=ep_01M8A8SGRT3TMFMM1F4JJZHFBM", 0),
    ] {
        assert_eq!(list(query), count, "{query}");
    }
    let table = said(&server, &["operations", "list", "--tenant", "acme"]);
    assert!(table.contains(&id) && table.contains("replay"), "{table}");
    let state = steer("cancel")["state"].clone();
    assert!(state == "cancelling" || state == "cancelled", "{state}");
    let words = ["operations", "show", &id, "--tenant", "acme"];
    let told = said(&server, &words);
    assert!(told.contains("rate_per_second 1"), "{told}");
    let path = format!("/v1/operations/{id}/resume");
    let over = server.api.post(&path, "", b"");
    over.problem(409, "operation_over");
    let trail = format!("/v1/audit?subject={id}");
    let trail = call(&server, "GET", &trail, Value::Null, 200);
    let trail = trail["data"].as_array().unwrap().iter();
    let actions: Vec<_> = trail
        .map(|change| change["action"].as_str().unwrap())
        .collect();
    assert_eq!(
        actions,
        [
            "operation.cancelled",
            "operation.resumed",
            "operation.paused",
            "operation.created"
        ]
    );
    server.stop();
}

#[test]
fn a_dry_run_counts_and_writes_nothing() {
    let wants = json!({ "event_types": ["invoice.*"], "filter": {"n": 1} });
    let (server, _receiver, endpoint, _dir) = billing(200, wants);
    publish(&server, &["a", "b", "c"]);
    let count = |more: Value| {
        let mut body = json!({ "endpoint_id": endpoint, "since": "1h", "dry_run": true });
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let counted = call(&server, "POST", "/v1/replays", body, 200);
        assert_eq!(
            (&counted["exact"], &counted["truncated"]),
            (&json!(true), &json!(false))
        );
        assert_eq!(counted["matched"], counted["estimated"]);
        counted["matched"].as_u64().unwrap()
    };
    assert_eq!(count(json!({})), 3);
    assert_eq!(count(json!({ "event_types": ["order.*"] })), 0);
    assert_eq!(count(json!({ "filter": {"n": 2} })), 0);
    assert_eq!(count(json!({ "until": "30m" })), 0);
    assert_eq!(count(json!({ "mode": "failed" })), 0);
    let words = [
        "replay",
        "--tenant",
        "acme",
        "--endpoint",
        "billing",
        "--since",
        "1h",
        "--dry-run",
    ];
    assert_eq!(said(&server, &words), "3 would be delivered\n");
    let list = call(&server, "GET", "/v1/operations", Value::Null, 200);
    assert_eq!(list["data"], json!([]));
    server.stop();
}

#[track_caller]
fn refused(server: &Server, path: &str, body: &Value, status: u16, code: &str) -> (String, String) {
    let answer = server.api.post(path, "", body.to_string().as_bytes());
    answer.problem(status, code)
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let (server, _receiver, endpoint, _dir) = billing(200, json!({}));
    publish(&server, &["a"]);
    let refused =
        |path: &str, body: &Value, status, code| refused(&server, path, body, status, code);
    for (change, param, wanted) in [
        (
            json!({"since": "1h", "until": "2h"}),
            "since",
            "expected a time before that",
        ),
        (
            json!({"since": "2999-01-01T00:00:00Z"}),
            "since",
            "is in the future",
        ),
        (
            json!({"until": "2999-01-01T00:00:00Z"}),
            "until",
            "is in the future",
        ),
        (json!({"since": "soon"}), "since", "or how long ago"),
        (
            json!({"rate": 0}),
            "rate_per_second",
            "expected 1 to 100000; 500 without it",
        ),
        (
            json!({"rate_per_second": 100_001}),
            "rate_per_second",
            "expected 1 to",
        ),
        (json!({"event_types": ["a..b"]}), "event_types", ""),
        (
            json!({"filter": {"a": {"$x": 1}}}),
            "filter",
            "unknown operator",
        ),
        (
            json!({"mode": "failed", "filter": {}}),
            "filter",
            "expected none",
        ),
        (
            json!({"mode": "failed", "event_types": ["a"]}),
            "event_types",
            "expected none",
        ),
        (
            json!({"endpoint_id": "billing"}),
            "endpoint_id",
            "together with its `tenant`",
        ),
    ] {
        let mut body = json!({ "endpoint_id": endpoint, "since": "1h" });
        body.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        let (found, detail) = refused("/v1/replays", &body, 422, "invalid");
        assert!(
            found == param && detail.contains(wanted),
            "{change}: {found}: {detail}"
        );
    }
    let own = format!("{ENDPOINTS}/billing/replays");
    let named = json!({ "endpoint_id": endpoint, "since": "1h" });
    let (param, _) = refused(&own, &named, 422, "invalid");
    assert_eq!(param, "endpoint_id");
    server.stop();
}

#[test]
fn what_is_not_there_and_what_takes_nothing_is_refused() {
    let (server, _receiver, endpoint, _dir) = billing(200, json!({}));
    publish(&server, &["a"]);
    let refused =
        |path: &str, body: &Value, status, code| refused(&server, path, body, status, code);
    let place = |topic: &str, partition: u32, offset: u64| {
        json!({
            "endpoint_id": endpoint, "topic": topic, "partition": partition, "offset": offset,
        })
    };
    let (param, _) = refused(
        "/v1/resends",
        &place("posthaste.lane", 0, 0),
        422,
        "invalid",
    );
    assert_eq!(param, "topic");
    let (param, detail) = refused("/v1/resends", &place("events", 999, 0), 422, "invalid");
    assert!(
        param == "partition" && detail.contains("expected 0 to "),
        "{detail}"
    );
    refused(
        "/v1/resends",
        &place("events", 0, 1 << 40),
        404,
        "not_found",
    );

    for (query, param, wanted) in [
        ("kind=joke", "kind", "expected one of `replay`"),
        ("state=done", "state", "expected one of `pending`"),
        ("endpoint=billing", "endpoint", "expected an endpoint's id"),
        ("limit=0", "limit", "expected 1 to"),
        ("cursor=x", "cursor", "expected the `next_cursor`"),
    ] {
        let answer = server
            .api
            .call("GET", &format!("/v1/operations?{query}"), "", b"");
        let (found, detail) = answer.problem(422, "invalid");
        assert!(
            found == param && detail.contains(wanted),
            "{found}: {detail}"
        );
    }
    for path in [
        "/v1/operations/op_01M8A8SGRT3TMFMM1F4JJZHFBM/cancel",
        "/v1/operations/nonsense/pause",
        "/v1/tenants/acme/endpoints/other/replays",
        "/v1/tenants/other/endpoints/billing/cancel",
    ] {
        refused(path, &json!({ "since": "1h" }), 404, "not_found");
    }
    call(
        &server,
        "POST",
        &format!("{ENDPOINTS}/billing/disable"),
        Value::Null,
        200,
    );
    for verb in ["replays", "retry_now", "probe"] {
        let body = match verb {
            "replays" => json!({ "since": "1h" }),
            _ => json!({}),
        };
        let path = format!("{ENDPOINTS}/billing/{verb}");
        refused(&path, &body, 409, "endpoint_disabled");
    }
    let address = format!("http://{}", server.api.0);
    let words = [
        "replay",
        "--endpoint",
        &endpoint,
        "--since",
        "1h",
        "--server",
        &address,
    ];
    Refused::from(&words).expect(1, &["409 ", "enable it first"]);
    server.stop();
}

#[test]
fn a_tenants_own_credential_reaches_the_tenants_operations_alone() {
    let (server, _receiver, _, _dir) = billing(200, json!({}));
    let path = format!("{ENDPOINTS}/billing/replays");
    let body = json!({ "since": "1h" });
    let begun = call(&server, "POST", &path, body, 202);
    let id = id_of(&begun);
    for (tenant, status) in [("acme", 200), ("other", 404)] {
        let path = format!("/v1/tenants/{tenant}/operations/{id}");
        call(&server, "GET", &path, Value::Null, status);
    }
    let list = |tenant: &str| {
        let path = format!("/v1/tenants/{tenant}/operations");
        let page = call(&server, "GET", &path, Value::Null, 200);
        page["data"].as_array().unwrap().len()
    };
    assert_eq!((list("acme"), list("other")), (1, 0));
    server.stop();
}
