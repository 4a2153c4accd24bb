//! Endpoints that are down, or gone, from outside: what is owed to them is held,
//! survives a restart, and arrives when they are back; whoever listens hears of
//! it.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::dead::Receiver;
use crate::refusals::program::{Server, embedded, eventually};

const SETTINGS: &str = "[egress]\nallow_http = true\nallow = [\"127.0.0.0/8\"]\n";
const EVENTS: usize = 200;

fn make(server: &Server, tenant: &str, receiver: &Receiver, more: Value) {
    let mut body = more;
    body["url"] = format!("http://{}/hook", receiver.at).into();
    let path = format!("/v1/tenants/{tenant}/endpoints");
    let made = server.api.post(&path, "", body.to_string().as_bytes());
    assert_eq!(made.status, 201, "{}", made.text);
}

fn publish(server: &Server, id: &str) {
    let headers = format!("webhook-type: a.b\r\nwebhook-id: {id}\r\n");
    let taken = server.api.post("/v1/tenants/acme/events", &headers, b"{}");
    assert_eq!(taken.status, 202, "{}", taken.text);
}

/// What Posthaste has told of its own work, the oldest first.
fn told(server: &Server) -> Vec<Value> {
    let ask = |path: &str| {
        let path = format!("/v1/tenants/_posthaste/events{path}");
        let answer = server.api.call("GET", &path, "", b"");
        assert_eq!(answer.status, 200, "{}", answer.text);
        serde_json::from_str::<Value>(&answer.text).unwrap()
    };
    let listed = ask("?limit=100");
    let events = listed["data"].as_array().unwrap().iter().rev();
    let body = |event: &Value| {
        let shown = ask(&format!("/{}", event["id"].as_str().unwrap()));
        serde_json::from_str(shown["body"].as_str().unwrap()).unwrap()
    };
    events.map(body).collect()
}

fn types(told: &[Value]) -> Vec<&str> {
    told.iter()
        .map(|one| one["type"].as_str().unwrap())
        .collect()
}

#[test]
fn what_is_owed_to_an_endpoint_that_is_down_is_held_and_arrives_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let config = format!("{}{SETTINGS}", embedded(dir.path()));
    let receiver = Receiver::start(503);
    let server = Server::start(&config);
    make(&server, "acme", &receiver, json!({}));
    let ids: BTreeSet<_> = (0..EVENTS).map(|n| format!("evt_{n}")).collect();
    ids.iter().for_each(|id| publish(&server, id));
    eventually("it is held", || {
        let held = server.api.metric("posthaste_owner_held_deliveries ");
        held.is_some_and(|held| held > 0.0)
    });
    server.stop();

    // Its successor knows by the snapshot what is owed.
    let server = Server::start(&config);
    eventually("all of it is owed", || {
        let owed = server.api.metric("posthaste_owner_owed_deliveries ");
        owed.is_some_and(|owed| owed >= f64::from(u32::try_from(EVENTS).unwrap()))
    });
    assert!(!server.log().contains("snapshot cannot be read"));
    receiver.status.store(200, Ordering::SeqCst);
    eventually("all of it arrives", || {
        let taken: BTreeSet<_> = receiver.taken().into_iter().collect();
        taken.len() == EVENTS
    });
    eventually("nothing is owed", || {
        server.api.metric("posthaste_owner_owed_deliveries ") == Some(0.0)
    });
    let news = told(&server);
    let wanted = [
        "endpoint.created",
        "endpoint.circuit_opened",
        "endpoint.recovered",
    ];
    assert_eq!(types(&news), wanted, "{news:?}");
    let since = &news[1]["data"]["down_since"];
    assert!(
        since.is_string() && *since == news[2]["data"]["down_since"],
        "{news:?}"
    );
    server.stop();
}

#[test]
fn what_is_done_to_an_endpoint_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&format!("{}{SETTINGS}", embedded(dir.path())));
    let receiver = Receiver::start(200);
    // Of those that listen nothing is told.
    make(&server, "_posthaste", &receiver, json!({}));
    make(&server, "acme", &receiver, json!({ "uid": "billing" }));
    let one = "/v1/tenants/acme/endpoints/billing";
    for (method, path, body, status) in [
        ("PATCH", "", "{\"description\": \"x\"}", 200),
        ("PATCH", "", "{\"description\": 1}", 400),
        ("POST", "/secrets/rotate", "{}", 201),
        ("POST", "/pause", "", 200),
        ("POST", "/resume", "", 200),
        ("POST", "/disable", "{\"reason\": \"moves\"}", 200),
        ("POST", "/enable", "", 200),
        ("POST", "/cancel", "", 202),
    ] {
        let done = server
            .api
            .call(method, &format!("{one}{path}"), "", body.as_bytes());
        assert_eq!(done.status, status, "{path}: {}", done.text);
    }
    eventually("the operation has ended", || {
        types(&told(&server)).contains(&"operation.succeeded")
    });
    assert_eq!(server.api.call("DELETE", one, "", b"").status, 204);
    let news = told(&server);
    let wanted = [
        "endpoint.created",
        "endpoint.updated",
        "secret.rotated",
        "endpoint.paused",
        "endpoint.resumed",
        "endpoint.disabled",
        "endpoint.enabled",
        "operation.succeeded",
        "endpoint.deleted",
    ];
    assert_eq!(types(&news), wanted, "{news:?}");
    let versions: Vec<_> = news
        .iter()
        .filter_map(|one| one["data"]["version"].as_u64())
        .collect();
    assert_eq!(versions, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert!(
        news.iter()
            .all(|one| one["data"]["endpoint_uid"] == "billing"),
        "{news:?}"
    );
    assert_eq!(news[5]["data"]["reason"], "moves");
    assert_eq!(news[7]["data"]["kind"], "cancel");
    eventually("the listener hears of all", || {
        receiver.taken().len() == wanted.len()
    });
    server.stop();
}

#[test]
fn an_endpoint_that_is_gone_is_disabled_and_whoever_listens_hears_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&format!("{}{SETTINGS}", embedded(dir.path())));
    let (gone, listener) = (Receiver::start(410), Receiver::start(200));
    make(&server, "acme", &gone, json!({ "uid": "billing" }));
    let wanted = json!({ "event_types": ["endpoint.disabled"] });
    make(&server, "_posthaste", &listener, wanted);
    publish(&server, "evt_1");
    eventually("the listener hears of it", || listener.taken().len() == 1);
    let shown = server
        .api
        .call("GET", "/v1/tenants/acme/endpoints/billing", "", b"");
    let shown: Value = serde_json::from_str(&shown.text).unwrap();
    assert_eq!(shown["status"], "disabled");
    assert_eq!(shown["disabled_reason"], "gone");
    // Enabled, it has what comes.
    let enable = "/v1/tenants/acme/endpoints/billing/enable";
    gone.status.store(200, Ordering::SeqCst);
    assert_eq!(server.api.post(enable, "", b"").status, 200);
    publish(&server, "evt_2");
    eventually("it has deliveries again", || !gone.taken().is_empty());
    // Nobody else speaks for Posthaste.
    let headers = "webhook-type: endpoint.disabled\r\n";
    let refused = server
        .api
        .post("/v1/tenants/_posthaste/events", headers, b"{}");
    assert_eq!(refused.problem(422, "invalid").0, "tenant");
    server.stop();
}

#[test]
fn an_endpoint_that_refuses_our_signature_is_told_of_once() {
    let dir = tempfile::tempdir().unwrap();
    let policy = "[retry_policies.soon]\ngaps = [\"1s\", \"1s\", \"1s\"]\n";
    let config = format!("{}{SETTINGS}{policy}", embedded(dir.path()));
    let server = Server::start(&config);
    let (refusing, listener) = (Receiver::start(401), Receiver::start(200));
    make(
        &server,
        "acme",
        &refusing,
        json!({ "retry_policy": "soon" }),
    );
    let wanted = json!({ "event_types": ["endpoint.auth_failing"] });
    make(&server, "_posthaste", &listener, wanted);
    publish(&server, "evt_1");
    eventually("the listener hears of it", || listener.taken().len() == 1);
    eventually("it is given up", || {
        let letters = server.api.call("GET", "/v1/dead_letters", "", b"");
        let letters: Value = serde_json::from_str(&letters.text).unwrap();
        letters["data"][0]["delivery"]["last_status"] == 401
    });
    assert_eq!(listener.taken().len(), 1, "three retries were refused");
    server.stop();
}
