//! What an endpoint is owed, from outside: listed as its lane has it, and asked
//! for by name.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::again::{arrived, succeeded};
use crate::dead::Receiver;
use crate::operations::{call, created, publish, said};
use crate::refusals::program::{Server, embedded, eventually};

const SETTINGS: &str = "[egress]\nallow_http = true\nallow = [\"127.0.0.0/8\"]\n\
     [retry_policies.twice]\ngaps = [\"1s\", \"1h\"]\n\
     [retry_policies.later]\ngaps = [\"1h\"]\n";
const ENDPOINT: &str = "/v1/tenants/acme/endpoints/billing";
const LIST: &str = "/v1/tenants/acme/deliveries?endpoint=billing&status";

fn start(dir: &std::path::Path) -> Server {
    Server::start(&format!("{}{SETTINGS}", embedded(dir)))
}

/// What an operation came to that was asked for.
fn asked(server: &Server, verb: &str, ids: &[&str]) -> u64 {
    let path = format!("{ENDPOINT}/{verb}");
    let begun = call(server, "POST", &path, json!({ "delivery_ids": ids }), 202);
    let over = succeeded(server, &begun);
    assert_eq!(over["asked"]["deliveries"], ids.len(), "{over}");
    over["progress"]["deliveries"].as_u64().unwrap()
}

/// Why it is not done, which names the field.
fn refused(server: &Server, verb: &str, body: &Value, status: u16, code: &str) -> String {
    let path = format!("{ENDPOINT}/{verb}");
    let answer = server.api.post(&path, "", body.to_string().as_bytes());
    let (param, detail) = answer.problem(status, code);
    assert_eq!(param, "delivery_ids", "{detail}");
    detail
}

/// What waits, so many a page.
fn listed(server: &Server, status: &str, limit: usize) -> Vec<Value> {
    let (mut all, mut path) = (Vec::new(), format!("{LIST}={status}&limit={limit}"));
    loop {
        let page = call(server, "GET", &path, Value::Null, 200);
        let data = page["data"].as_array().unwrap();
        assert!(data.len() <= limit, "{page}");
        assert!(data.iter().all(|one| one["status"] == status), "{page}");
        all.extend(data.iter().cloned());
        let Some(next) = page["next_cursor"].as_str() else {
            assert!(page["scanned"]["ended_by"].is_null(), "{page}");
            return all;
        };
        path = format!("{LIST}={status}&limit={limit}&cursor={next}");
    }
}

fn id_of(delivery: &Value) -> &str {
    delivery["id"].as_str().unwrap()
}

fn events(listed: &[Value]) -> Vec<&str> {
    let events = listed.iter().map(|one| one["event"].as_str().unwrap());
    let mut events: Vec<_> = events.collect();
    events.sort_unstable();
    events
}

fn assert_members(one: &Value, wanted: &[(&str, Value)]) {
    for (name, value) in wanted {
        assert_eq!(one[name], *value, "{name}: {one}");
    }
}

#[test]
fn what_is_held_is_listed_and_cancelled_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path());
    let receiver = Receiver::start(200);
    let endpoint = created(&server, "billing", receiver.at, json!({}));
    created(&server, "other", receiver.at, json!({}));
    let pause = format!("{ENDPOINT}/pause");
    call(&server, "POST", &pause, Value::Null, 200);
    publish(&server, &["a", "b", "c", "d"]);
    eventually("they are held", || listed(&server, "held", 250).len() == 4);
    let held = listed(&server, "held", 250);
    assert_eq!(events(&held), ["a", "b", "c", "d"]);
    for limit in 1..4 {
        assert_eq!(listed(&server, "held", limit), held, "{limit} a page");
    }
    assert_members(
        &held[0],
        &[
            ("tenant", json!("acme")),
            ("endpoint", json!(endpoint)),
            ("type", json!("invoice.paid")),
            ("attempts", json!(0)),
            ("error", Value::Null),
            ("first_attempt_at", Value::Null),
            ("next_attempt_at", Value::Null),
        ],
    );
    let shown = format!("/v1/deliveries/{}", id_of(&held[0]));
    let shown = call(&server, "GET", &shown, Value::Null, 200);
    assert_members(
        &shown,
        &[
            ("status", json!("held")),
            ("origin", held[0]["origin"].clone()),
        ],
    );
    assert_eq!(listed(&server, "scheduled", 250), [Value::Null; 0]);
    let of_event = format!("/v1/deliveries?endpoint={endpoint}&status=held&event=c");
    let of_event = call(&server, "GET", &of_event, Value::Null, 200);
    assert_eq!(events(of_event["data"].as_array().unwrap()), ["c"]);
    let words = "deliveries list --tenant acme --endpoint billing --status held";
    let table = said(&server, &words.split(' ').collect::<Vec<_>>());
    assert!(
        table.lines().count() == 5 && table.contains(id_of(&held[3])),
        "{table}"
    );

    let none = [Value::Null; 0];
    assert_eq!(listed(&server, "scheduled", 1), none);
    assert_eq!(
        asked(&server, "cancel", &[id_of(&held[1]), id_of(&held[3])]),
        2
    );
    let left = [held[0].clone(), held[2].clone()];
    eventually("the others are left", || {
        listed(&server, "held", 250) == left
    });
    // All or none: the first of these stays owed.
    let both = json!({ "delivery_ids": [id_of(&held[0]), id_of(&held[1])] });
    let detail = refused(&server, "cancel", &both, 409, "delivery_not_owed");
    assert!(
        detail.contains(id_of(&held[1])) && !detail.contains(id_of(&held[0])),
        "{detail}"
    );
    // What an owner wrote when it ended says the same.
    server.stop();
    let server = start(dir.path());
    assert_eq!(listed(&server, "held", 1), left);
    let words = "endpoints cancel --tenant acme billing --follow --delivery";
    let words: Vec<_> = words.split(' ').chain([id_of(&held[0])]).collect();
    assert_eq!(said(&server, &words), "succeeded: 1 deliveries\n");
    let last = held[2]["event"].as_str().unwrap();
    let resume = format!("{ENDPOINT}/resume");
    call(&server, "POST", &resume, Value::Null, 200);
    eventually("one is left, and comes", || receiver.taken().len() >= 5);
    let mut wanted = vec!["a", "b", "c", "d", last];
    wanted.sort_unstable();
    assert_eq!(receiver.taken(), wanted);
    eventually("nothing is held", || {
        listed(&server, "held", 250).is_empty()
    });
    server.stop();
}

#[test]
fn what_waits_for_its_time_is_listed_and_retried_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path());
    let receiver = Receiver::start(503);
    let policy = json!({ "retry_policy": "twice" });
    created(&server, "billing", receiver.at, policy);
    publish(&server, &["a"]);
    let mut all = Vec::new();
    eventually("it waits", || {
        all = listed(&server, "scheduled", 250);
        all.len() == 1
    });
    let [one] = &all[..] else { panic!("{all:?}") };
    assert_members(
        one,
        &[
            ("event", json!("a")),
            ("attempts", json!(1)),
            ("last_status", json!(503)),
            ("last_attempt_at", Value::Null),
        ],
    );
    assert_eq!(one["error"]["code"], "http_5xx");
    assert!(one["next_attempt_at"].is_string(), "{one}");
    assert_eq!(listed(&server, "held", 250), [Value::Null; 0]);
    // The second retry is due an hour later: it comes for being asked for.
    eventually("its retry failed too", || {
        all = listed(&server, "scheduled", 250);
        all.len() == 1 && all[0]["attempts"] == 2
    });
    receiver.status.store(200, Ordering::SeqCst);
    let id = id_of(&all[0]);
    let words = "endpoints retry-now --tenant acme billing --follow --delivery";
    let words: Vec<_> = words.split(' ').chain([id]).collect();
    assert_eq!(said(&server, &words), "succeeded: 1 deliveries\n");
    arrived(&receiver, &["a"]);
    eventually("it is settled", || {
        listed(&server, "scheduled", 250).is_empty()
    });
    for verb in ["cancel", "retry_now"] {
        let body = json!({ "delivery_ids": [id] });
        let detail = refused(&server, verb, &body, 409, "delivery_not_owed");
        assert!(detail.contains(id), "{detail}");
    }
    server.stop();
}

#[test]
fn what_is_held_behind_another_is_not_retried_but_goes_when_that_is_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path());
    let receiver = Receiver::start(503);
    let ordered = json!({ "ordered": true, "retry_policy": "later" });
    created(&server, "billing", receiver.at, ordered);
    publish(&server, &["a", "b"]);
    let one = |status: &str| {
        let mut all = Vec::new();
        eventually("one stands so", || {
            all = listed(&server, status, 250);
            all.len() == 1
        });
        all.remove(0)
    };
    let (first, next) = (one("scheduled"), one("held"));
    let both = json!({ "delivery_ids": [id_of(&first), id_of(&next)] });
    let detail = refused(&server, "retry_now", &both, 409, "delivery_held");
    assert!(
        detail.contains(id_of(&next)) && !detail.contains(id_of(&first)),
        "{detail}"
    );
    receiver.status.store(200, Ordering::SeqCst);
    assert_eq!(asked(&server, "cancel", &[id_of(&first)]), 1);
    arrived(&receiver, &[next["event"].as_str().unwrap()]);
    server.stop();
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path());
    let receiver = Receiver::start(200);
    let endpoint = created(&server, "billing", receiver.at, json!({}));
    for (query, param, wanted) in [
        ("status=held", "endpoint", "of one endpoint"),
        (
            "status=scheduled&endpoint=billing",
            "endpoint",
            "together with its `tenant`",
        ),
        (
            "status=held&error_code=http_5xx&endpoint=x",
            "error_code",
            "expected none",
        ),
        ("status=held&since=1h&endpoint=x", "since", "expected none"),
        ("status=held&until=1h&endpoint=x", "until", "expected none"),
        (
            "status=held&tenant=a/b&endpoint=x",
            "tenant",
            "tenant must be",
        ),
        (
            "status=held&endpoint=x&limit=0",
            "limit",
            "expected 1 to 250",
        ),
        (
            "status=held&endpoint=x&cursor=1.0",
            "cursor",
            "the `next_cursor`",
        ),
        ("cursor=o1", "cursor", "the `next_cursor`"),
    ] {
        let path = format!("/v1/deliveries?{query}");
        let answer = server.api.call("GET", &path, "", b"");
        let (found, detail) = answer.problem(422, "invalid");
        assert!(
            found == param && detail.contains(wanted),
            "{query}: {found}: {detail}"
        );
    }
    for path in [
        format!("/v1/tenants/other/deliveries?status=held&endpoint={endpoint}"),
        "/v1/tenants/acme/deliveries?status=held&endpoint=none".to_owned(),
        "/v1/deliveries?status=held&endpoint=ep_01M8A8SGRT3TMFMM1F4JJZHFBM".to_owned(),
    ] {
        let answer = server.api.call("GET", &path, "", b"");
        answer.problem(404, "not_found");
    }
    let many = vec!["dlv_01M8A8SH3159FXXNQ369DY9HAB"; 101];
    for (body, wanted) in [
        (json!({ "delivery_ids": [] }), "expected 1 to 100"),
        (json!({ "delivery_ids": many }), "expected 1 to 100"),
        (json!({ "delivery_ids": ["x"] }), "expected `dlv_`"),
        (
            json!({ "delivery_ids": [many[0]], "before": "1h" }),
            "none beside `before`",
        ),
    ] {
        let detail = refused(&server, "cancel", &body, 422, "invalid");
        assert!(detail.contains(wanted), "{body}: {detail}");
    }
    server.stop();
}
