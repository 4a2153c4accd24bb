//! Filters from outside: what passes is delivered, what does not is not, and
//! both can be told beforehand.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::dead::Receiver;
use crate::refusals::program::{Refused, Server, embedded, eventually, posthaste};

const SETTINGS: &str = "[egress]\nallow_http = true\nallow = [\"127.0.0.0/8\"]\n";
const ENDPOINTS: &str = "/v1/tenants/acme/endpoints";

fn server(dir: &std::path::Path) -> Server {
    Server::start(&format!("{}{SETTINGS}", embedded(dir)))
}

/// The program with these words; its standard output.
fn said(server: &Server, words: &[&str]) -> String {
    let address = format!("http://{}", server.api.0);
    let mut command = posthaste(&[words, &["--server", &address]].concat());
    let output = command.stdin(Stdio::null()).output().unwrap();
    let why = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{words:?}: {why}");
    String::from_utf8(output.stdout).unwrap()
}

fn publish(server: &Server, id: &str, body: &str) {
    let headers = format!("webhook-type: invoice.paid\r\nwebhook-id: {id}\r\n");
    let path = "/v1/tenants/acme/events";
    let answer = server.api.post(path, &headers, body.as_bytes());
    assert_eq!(answer.status, 202, "{}", answer.text);
}

fn asked(server: &Server, path: &str, body: &Value) -> Value {
    let answer = server.api.post(path, "", body.to_string().as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text);
    serde_json::from_str(&answer.text).unwrap()
}

#[test]
fn an_endpoint_gets_what_passes_its_filter() {
    let dir = tempfile::tempdir().unwrap();
    let (large, all) = (Receiver::start(200), Receiver::start(200));
    let started = server(dir.path());
    // Both filters are told apart only by exact numbers.
    let filter = r#"{"data.amount": {"$gt": 123456789012345678901234567890}}"#;
    let file = dir.path().join("filter.json");
    std::fs::write(&file, filter).unwrap();
    let url = format!("http://{}/", large.at);
    let create = ["endpoints", "create", "--tenant", "acme", "--url"];
    let filtered = [&url, "--uid", "large", "--filter", file.to_str().unwrap()];
    said(&started, &[&create[..], &filtered].concat());
    let url = format!("http://{}/", all.at);
    said(&started, &[&create[..], &[&url, "--uid", "all"]].concat());

    let shown = started.api.call("GET", ENDPOINTS, "", b"").text;
    assert!(shown.contains(&format!("\"filter\":{filter}")), "{shown}");
    assert!(shown.contains("\"filter\":null"), "{shown}");
    // It is read back from the log as it is.
    started.stop();
    let started = server(dir.path());

    publish(
        &started,
        "less",
        r#"{"data":{"amount":123456789012345678901234567890}}"#,
    );
    publish(
        &started,
        "more",
        r#"{"data":{"amount":123456789012345678901234567891}}"#,
    );
    publish(&started, "missing", r#"{"data":{}}"#);
    publish(&started, "text", "no JSON at all");
    publish(&started, "last", r#"{"data":{"amount":1e40}}"#);
    eventually("all arrive", || {
        all.taken().len() == 5 && large.taken().len() == 2
    });
    assert_eq!(large.taken(), ["last", "more"]);
    let undecided = "posthaste_ingest_undecided_events_total ";
    assert_eq!(started.api.metric(undecided), Some(1.0));
    started.stop();
    assert_eq!(large.taken(), ["last", "more"]);
}

#[test]
fn a_filter_can_be_tried_on_one_event() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let evaluate = |filter: Value| {
        let event = json!({
            "type": "invoice.paid", "headers": {"X-Plan": "gold"}, "body": {"amount": 42}
        });
        let body = json!({ "filter": filter, "event": event });
        asked(&server, "/v1/filters/evaluate", &body)
    };
    let passes = json!({
        "amount": {"$lt": 50}, "$type": "invoice.paid", "$headers.x-plan": "gold"
    });
    assert_eq!(evaluate(passes), json!({ "matched": true, "failed": [] }));
    assert_eq!(
        evaluate(json!({ "amount": {"$gte": 100, "$ne": 7}, "vip": true })),
        json!({ "matched": false, "failed": [
            { "place": "/amount/$gte", "problem": "`/amount` is 42" },
            { "place": "/vip", "problem": "`/vip` is missing" },
        ]})
    );
    let words = ["filters", "evaluate", "--type", "a", "--filter"];
    let passes = [
        &words[..],
        &[r#"{"$type": "a", "/b": 1.0}"#, "--body", r#"{"b":1}"#],
    ];
    assert_eq!(said(&server, &passes.concat()), "it passes\n");
    let fails = [&words[..], &[r#"{"$headers.x": "1"}"#, "--header", "x: 2"]];
    assert_eq!(
        said(&server, &fails.concat()),
        "it does not pass:\n\ncondition    event\n/$headers.x  header `x` is \"2\"\n"
    );
    server.stop();
}

#[test]
fn a_filter_can_be_tried_on_what_came() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    for number in 0..6 {
        publish(
            &server,
            &format!("e{number}"),
            &format!(r#"{{"n":{number}}}"#),
        );
    }
    publish(&server, "text", "?");
    let backtest = |more: Value| {
        let mut body = json!({ "filter": {"n": {"$gte": 4}}, "tenant": "acme" });
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        asked(&server, "/v1/filters/backtest", &body)
    };
    let found = backtest(json!({ "event_types": ["invoice.*"], "since": "2h" }));
    let counts = ["matched", "scanned", "undecided", "malformed"].map(|name| found[name].as_u64());
    assert_eq!(counts, [Some(2), Some(7), Some(1), Some(0)]);
    assert_eq!(found["estimated_per_hour"], 1);
    assert!(found["ended_by"].is_null(), "{found}");
    let samples = found["samples"].as_array().unwrap();
    let mut ids: Vec<_> = samples.iter().map(|s| s["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["e4", "e5"]);
    assert_eq!(samples[0]["topic"], "events");
    assert_eq!(backtest(json!({ "tenant": "other" }))["scanned"], 0);
    assert_eq!(
        backtest(json!({ "until": "1h", "since": "2h" }))["scanned"],
        0
    );
    let limited = backtest(json!({ "limit": 1 }));
    assert_eq!(limited["samples"].as_array().unwrap().len(), 1);
    assert_eq!(limited["matched"], 2);

    let words = ["filters", "backtest", "--filter", r#"{"n": 5}"#];
    let told = said(&server, &words);
    assert!(
        told.starts_with("1 of 7 events pass, about 1 an hour\n"),
        "{told}"
    );
    assert!(told.contains("1 have a body it cannot read\n"), "{told}");
    assert!(told.contains("  e5  "), "{told}");
    server.stop();
}

#[test]
fn what_is_wrong_with_a_filter_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let refused = |path: &str, body: &Value| {
        let answer = server.api.post(path, "", body.to_string().as_bytes());
        answer.problem(422, "invalid")
    };
    let wrong = json!({ "a": {"$gtee": 1} });
    let endpoint = json!({ "url": "https://example.com/", "filter": wrong });
    let event = json!({ "body": 1 });
    for (path, body) in [
        (ENDPOINTS, endpoint),
        (
            "/v1/filters/evaluate",
            json!({ "filter": wrong, "event": event }),
        ),
        ("/v1/filters/backtest", json!({ "filter": wrong })),
    ] {
        let (param, detail) = refused(path, &body);
        assert_eq!(param, "filter", "{path}: {detail}");
        assert!(
            detail.contains("at `/a/$gtee`: unknown operator"),
            "{detail}"
        );
    }
    for (name, value) in [
        ("since", json!("yesterday")),
        ("since", json!("2999-01-01T00:00:00Z")),
        ("event_types", json!(["a..b"])),
        ("limit", json!(1_000)),
        ("tenant", json!("a/b")),
    ] {
        let (param, detail) = refused(
            "/v1/filters/backtest",
            &json!({ "filter": {}, name: value }),
        );
        assert_eq!(param, name, "{detail}");
        assert!(
            detail.contains("expected") || detail.contains("must be"),
            "{detail}"
        );
    }
    let address = format!("http://{}", server.api.0);
    let words = ["filters", "evaluate", "--server", &address, "--filter"];
    let words = |filter| Refused::from(&[&words[..], &[filter]].concat());
    words("{\"a\"").expect(2, &["--filter: not JSON"]);
    words("no-such-file").expect(1, &["--filter no-such-file: expected JSON or a file"]);
    words("{\"a\": []}").expect(1, &["422 ", "filter: at `/a`: expected a string"]);
    server.stop();
}
