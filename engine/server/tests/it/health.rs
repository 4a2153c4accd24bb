//! Whether an endpoint gets its events, asked from outside: by a test of it, by
//! what it did lately, and by how it stands.

use std::sync::atomic::Ordering;

use posthaste::config::{Config, parse_rfc3339};
use posthaste_core::signature::{Scheme, Signer};
use serde_json::{Value, json};

use crate::contract::unique;
use crate::dead::Receiver as Taker;
use crate::kafka::{broker, make};
use crate::operations::{call, created, publish, said, server};
use crate::refusals::program::{Refused, SECRETS, Server, embedded, eventually, posthaste};
use crate::verification::{Receiver, respond};

const ENDPOINTS: &str = "/v1/tenants/acme/endpoints";
const SETTINGS: &str = "[egress]\nallow_http = true\nallow = [\"127.0.0.0/8\"]\n";
const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

fn address(server: &Server) -> String {
    format!("http://{}", server.api.0)
}

#[test]
fn a_test_is_signed_and_told_of_whatever_the_endpoints_status() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let receiver = Receiver::start(|_, stream| respond(stream, 200, "", "thanks"));
    created(&server, "one", receiver.at, json!({"secret": SECRET}));
    let path = format!("{ENDPOINTS}/one/test");
    let example = "{ \"amount\":  1.50 }";
    let kind = format!("{{\"examples\": [{example}, {{}}]}}");
    let known = server
        .api
        .call("PUT", "/v1/event_types/invoice.paid", "", kind.as_bytes());
    assert_eq!(known.status, 201, "{}", known.text);
    let test = |body: &str| -> Value {
        let answer = server.api.post(&path, "", body.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text);
        serde_json::from_str(&answer.text).unwrap()
    };
    for (verb, asked, sent, source, event_type) in [
        ("enable", "", "{\"test\":true}", "default", "test"),
        (
            "pause",
            "{\"event_type\": \"invoice.paid\"}",
            example,
            "example",
            "invoice.paid",
        ),
        (
            "disable",
            "{\"event_type\": \"a.b\", \"body\": [1.0,  2]}",
            "[1.0,  2]",
            "given",
            "a.b",
        ),
    ] {
        call(
            &server,
            "POST",
            &format!("{ENDPOINTS}/one/{verb}"),
            Value::Null,
            200,
        );
        let tested = test(asked);
        assert_eq!(
            (&tested["passed"], &tested["status"], &tested["error"]),
            (&json!(true), &json!(200), &Value::Null),
            "{tested}"
        );
        assert_eq!(tested["response_excerpt"], "thanks");
        let told = &tested["sent"];
        assert_eq!(
            (&told["body"], &told["type"], &told["bytes"]),
            (&json!(source), &json!(event_type), &json!(sent.len()))
        );
        let got = receiver.take();
        let [got] = &got[..] else {
            panic!("one request, {}", got.len());
        };
        assert_eq!(got.body, sent.as_bytes());
        let id = got.header("webhook-id");
        assert!(id.starts_with("test_") && told["id"] == id, "{id} {told}");
        let mut signer = Signer::of(Scheme::StandardWebhooks);
        signer.add(SECRET).unwrap();
        let mut signature = Vec::new();
        let timestamp_s = got.header("webhook-timestamp").parse().unwrap();
        signer.sign_into(id.as_bytes(), timestamp_s, &got.body, &mut signature);
        assert_eq!(got.header("webhook-signature").as_bytes(), signature);
    }
    // It is no delivery, and changes nothing.
    let listed = call(&server, "GET", "/v1/deliveries", Value::Null, 200);
    assert_eq!(listed["data"], json!([]));
    let shown = call(
        &server,
        "GET",
        &format!("{ENDPOINTS}/one"),
        Value::Null,
        200,
    );
    assert_eq!(
        (&shown["status"], &shown["version"]),
        (&json!("disabled"), &json!(3))
    );
    server.stop();
}

#[test]
fn a_test_that_fails_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let receiver = Receiver::start(|_, stream| respond(stream, 503, "", "closed for today"));
    created(
        &server,
        "one",
        receiver.at,
        json!({"timeout": "300ms", "connect_timeout": "300ms"}),
    );
    let path = format!("{ENDPOINTS}/one/test");
    let tested = call(&server, "POST", &path, json!({}), 200);
    let error = &tested["error"];
    assert_eq!(
        (
            &tested["passed"],
            &error["code"],
            &error["blame"],
            &error["text"]
        ),
        (
            &json!(false),
            &json!("http_5xx"),
            &json!("receiver"),
            &json!("the endpoint failed")
        )
    );
    assert_eq!(tested["response_excerpt"], "closed for today");
    receiver.answers(|_, _| ());
    let tested = call(&server, "POST", &path, json!({}), 200);
    assert_eq!(
        (&tested["status"], &tested["error"]["code"]),
        (&Value::Null, &json!("timeout_headers"))
    );
    let took = tested["duration_us"].as_u64().unwrap();
    assert!((300_000..3_000_000).contains(&took), "{took}");
    for (body, status, code, param) in [
        ("{\"event_type\": \"a b\"}", 422, "invalid", "event_type"),
        ("{\"type\": \"a\"}", 400, "malformed", "type"),
    ] {
        let answer = server.api.post(&path, "", body.as_bytes());
        assert_eq!(answer.problem(status, code).0, param, "{}", answer.text);
    }
    let large = format!("{{\"body\": \"{}\"}}", "x".repeat(1024 * 1024));
    let answer = server.api.post(&path, "", large.as_bytes());
    answer.problem(413, "payload_too_large");

    let (at, words) = (
        address(&server),
        ["endpoints", "test", "--tenant", "acme", "one"],
    );
    let failed = [&words[..], &["--server", &at, "--type", "a.b"]].concat();
    receiver.answers(|_, stream| respond(stream, 404, "", ""));
    let refused = posthaste(&failed).output().unwrap();
    let why = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{why}");
    assert!(why.starts_with("posthaste: http_4xx (404) in "), "{why}");
    receiver.answers(|_, stream| respond(stream, 200, "", "thanks"));
    let told = said(&server, &words);
    assert!(told.starts_with("passed: 200 in "), "{told}");
    assert!(told.ends_with("\nresponse  thanks\n"), "{told}");
    server.stop();
}

#[test]
fn a_test_does_not_pass_the_wall() {
    let dir = tempfile::tempdir().unwrap();
    let walled = "[egress]\nallow_http = true\nallow_private_names = true\n";
    let server = Server::start(&format!("{}{walled}", embedded(dir.path())));
    let receiver = Receiver::start(|_, stream| respond(stream, 200, "", ""));
    let url = format!("http://localhost:{}/", receiver.at.port());
    call(
        &server,
        "POST",
        ENDPOINTS,
        json!({"url": url, "uid": "one"}),
        201,
    );
    let tested = call(
        &server,
        "POST",
        &format!("{ENDPOINTS}/one/test"),
        Value::Null,
        200,
    );
    let error = &tested["error"];
    assert_eq!(
        (&error["code"], &error["blame"], &tested["status"]),
        (&json!("blocked_address"), &json!("policy"), &Value::Null)
    );
    assert!(receiver.take().is_empty());
    server.stop();
}

#[test]
fn whoever_asks_is_told_where_deliveries_come_from() {
    let dir = tempfile::tempdir().unwrap();
    let more =
        "[egress]\npublic_ips = [\"192.0.2.7\", \"2001:db8::/64\"]\n[api]\nauth = \"keys\"\n";
    let config = format!("{}{more}", embedded(dir.path()));
    crate::access::first_key(&config);
    let server = Server::start(&config);
    let told = call(&server, "GET", "/v1/egress_ips", Value::Null, 200);
    assert_eq!(told, json!({"data": ["192.0.2.7", "2001:db8::/64"]}));
    server.stop();
    let wrong = format!("{}[egress]\npublic_ips = [\"a\"]\n", embedded(dir.path()));
    let wanted = ["egress.public_ips: `a` is not a block of addresses: expected one such as"];
    Refused::serve(&wrong).expect(64, &wanted);
}

fn get(server: &Server, of: &str) -> Value {
    call(
        server,
        "GET",
        &format!("{ENDPOINTS}/{of}"),
        Value::Null,
        200,
    )
}

/// Asks until it stands so; how it stands.
#[track_caller]
fn stands(server: &Server, uid: &str, state: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let mut found = Value::Null;
    eventually(state, || {
        found = get(server, &format!("{uid}/health"));
        found["state"] == state && is_so(&found)
    });
    found
}

/// Of an answer: deliveries that wait for their time, and for the endpoint.
fn owed(health: &Value) -> (u64, u64) {
    let of = |name: &str| health["owed"][name].as_u64().unwrap();
    (of("scheduled"), of("held"))
}

fn any(_: &Value) -> bool {
    true
}

/// A time in an answer lies between the endpoint's beginning and now.
#[track_caller]
fn is_lately(server: &Server, at: &Value) {
    let at = parse_rfc3339(at.as_str().unwrap()).unwrap();
    let made = get(server, "one")["created_at"]
        .as_str()
        .unwrap()
        .to_owned();
    let now = posthaste::clock::Clock::start().now();
    assert!(
        (parse_rfc3339(&made).unwrap()..=now).contains(&at),
        "{at:?}"
    );
}

/// From its first event through an outage and back: `asked` tells of what
/// `serves` does.
fn it_fails_and_comes_back(asked: &Server, serves: &Server) {
    let receiver = Taker::start(200);
    let id = created(asked, "one", receiver.at, json!({}));
    eventually("the other knows it", || {
        let path = format!("{ENDPOINTS}/one");
        serves.api.call("GET", &path, "", b"").status == 200
    });
    let new = stands(asked, "one", "healthy", any);
    assert_eq!((&new["endpoint"], owed(&new)), (&json!(id), (0, 0)));
    assert_eq!(
        (&new["since"], &new["last_success"]),
        (&Value::Null, &Value::Null)
    );
    publish(serves, &["a"]);
    let well = stands(asked, "one", "healthy", |h| h["last_success"].is_object());
    assert_eq!(
        (&well["last_success"]["event"], &well["last_failure"]),
        (&json!("a"), &Value::Null)
    );
    is_lately(asked, &well["since"]);

    receiver.status.store(503, Ordering::SeqCst);
    publish(serves, &["b"]);
    let ill = stands(asked, "one", "failing", |h| owed(h) == (1, 0));
    let last = &ill["last_failure"];
    assert_eq!(
        (
            &last["event"],
            &last["error"]["code"],
            &ill["failed_in_a_row"]
        ),
        (&json!("b"), &json!("http_5xx"), &json!(1))
    );
    assert_eq!(ill["why"], "an attempt failed: the endpoint failed");
    assert_eq!(ill["since"], last["at"]);
    is_lately(asked, &ill["owed"]["oldest_event_at"]);
    assert!(ill["owed"]["next_attempt_at"].is_string(), "{ill}");

    let mut sent = 2;
    eventually("its breaker opens", || {
        sent += 1;
        publish(serves, &[&format!("c-{sent}")]);
        std::thread::sleep(std::time::Duration::from_millis(200));
        get(asked, "one/health")["state"] == "down"
    });
    publish(serves, &["d-1", "d-2"]);
    let down = stands(asked, "one", "down", |h| owed(h).1 > 1);
    is_lately(asked, &down["since"]);
    // Nothing of it is lost.
    let all = sent + 2 - 1;
    stands(asked, "one", "down", |h| owed(h).0 + owed(h).1 == all);
    receiver.status.store(200, Ordering::SeqCst);
    call(
        asked,
        "POST",
        &format!("{ENDPOINTS}/one/retry_now"),
        Value::Null,
        202,
    );
    call(
        asked,
        "POST",
        &format!("{ENDPOINTS}/one/probe"),
        Value::Null,
        202,
    );
    let back = stands(asked, "one", "healthy", |h| owed(h) == (0, 0));
    assert_eq!(back["failed_in_a_row"], 0);
    is_lately(asked, &back["since"]);
    is_lately(asked, &back["last_failure"]["at"]);

    let stats = get(asked, "one/stats?since=1h");
    let of = |name: &str| stats[name].as_u64().unwrap();
    assert_eq!(
        (of("delivered"), of("first_attempts")),
        (all + 1, all + 1),
        "{stats}"
    );
    assert_eq!(stats["errors"]["http_5xx"], of("failed"));
}

#[test]
fn health_follows_an_endpoint_through_an_outage() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    it_fails_and_comes_back(&server, &server);
    server.stop();
}

/// The instance that is asked owns no lane partition.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_the_same_on_an_instance_that_owns_nothing_on_kafka() {
    let Some(bootstrap) = broker() else { return };
    let prefix = unique("health");
    let text = format!(
        "log = \"kafka://{bootstrap}\"\nshards = 1\n{SECRETS}{SETTINGS}\
         [topics]\nprefix = \"{prefix}\"\nlane_partitions = 2\nsource_partitions = 2\n\
         replication = 1\n[ingest]\ntopics = [\"{prefix}.events\"]\nstart = \"earliest\"\n"
    );
    make(bootstrap, &Config::parse(&text).unwrap()).await;
    let run = move || {
        let (serves, asked) = (Server::start(&text), Server::run("api", &text, &[]));
        it_fails_and_comes_back(&asked, &serves);
        asked.stop();
        serves.stop();
    };
    tokio::task::spawn_blocking(run).await.unwrap();
}

#[test]
fn what_is_held_is_counted_after_a_restart_too() {
    let dir = tempfile::tempdir().unwrap();
    let first = server(dir.path());
    let receiver = Taker::start(200);
    created(&first, "one", receiver.at, json!({}));
    call(
        &first,
        "POST",
        &format!("{ENDPOINTS}/one/pause"),
        Value::Null,
        200,
    );
    publish(&first, &["a", "b", "c"]);
    let paused = stands(&first, "one", "paused", |h| owed(h) == (0, 3));
    is_lately(&first, &paused["since"]);
    is_lately(&first, &paused["owed"]["oldest_event_at"]);
    first.stop();
    // Its owner left a snapshot.
    let second = server(dir.path());
    publish(&second, &["d"]);
    let again = stands(&second, "one", "paused", |h| owed(h) == (0, 4));
    let oldest = |health: &Value| health["owed"]["oldest_event_at"].clone();
    assert_eq!(
        (oldest(&again), &again["since"]),
        (oldest(&paused), &paused["since"])
    );
    let disable = format!("{ENDPOINTS}/one/disable");
    call(
        &second,
        "POST",
        &disable,
        json!({"reason": "it moves"}),
        200,
    );
    let disabled = stands(&second, "one", "disabled", any);
    assert_eq!(disabled["why"], "it is disabled: it moves");
    is_lately(&second, &disabled["since"]);

    let words = ["endpoints", "health", "--tenant", "acme", "one"];
    let run = posthaste(&[&words[..], &["--server", &address(&second)]].concat()).output();
    let run = run.unwrap();
    let (told, why) = (
        String::from_utf8(run.stdout).unwrap(),
        String::from_utf8(run.stderr).unwrap(),
    );
    assert_eq!(run.status.code(), Some(1), "{why}");
    assert_eq!(
        why,
        "posthaste: one is disabled: it is disabled: it moves\n"
    );
    assert!(
        told.contains("\nowed          0 scheduled, 4 held\n"),
        "{told}"
    );
    call(
        &second,
        "POST",
        &format!("{ENDPOINTS}/one/enable"),
        Value::Null,
        200,
    );
    call(
        &second,
        "POST",
        &format!("{ENDPOINTS}/one/resume"),
        json!({}),
        200,
    );
    stands(&second, "one", "healthy", |h| owed(h) == (0, 0));
    assert!(said(&second, &words).contains("  healthy"));
    second.stop();
}

#[test]
fn figures_are_of_one_endpoint_and_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let (good, strict) = (Taker::start(200), Taker::start(422));
    created(&server, "good", good.at, json!({}));
    created(&server, "strict", strict.at, json!({"fail_fast_4xx": true}));
    publish(&server, &["a", "b", "c"]);
    let mut stats = Value::Null;
    eventually("all is on record", || {
        stats = get(&server, "good/stats");
        stats["attempts"] == 3 && get(&server, "strict/stats")["attempts"] == 3
    });
    let figures = |stats: &Value| {
        ["delivered", "failed", "first_attempts"].map(|n| stats[n].as_u64().unwrap())
    };
    assert_eq!(figures(&stats), [3, 0, 3]);
    assert_eq!(
        (&stats["statuses"]["2xx"], &stats["errors"]),
        (&json!(3), &json!({}))
    );
    let of = |name: &str| stats["duration_us"][name].as_u64().unwrap();
    assert!(
        0 < of("p50") && of("p50") <= of("p95") && of("p99") == of("max"),
        "{stats}"
    );
    let buckets = stats["buckets"].as_array().unwrap();
    assert_eq!((buckets.len(), &buckets[23]["delivered"]), (24, &json!(3)));
    assert!(
        buckets.iter().all(|bucket| bucket["complete"] == true),
        "{stats}"
    );
    assert_eq!(
        stats["scanned"],
        json!({"since": null, "ended_by": null, "recorded": "all"})
    );
    let refused = get(&server, "strict/stats?since=1h");
    assert_eq!(figures(&refused), [0, 3, 3]);
    assert_eq!(
        (&refused["statuses"]["4xx"], &refused["errors"]),
        (&json!(3), &json!({"http_4xx": 3}))
    );
    let ago = get(&server, "strict/stats?since=1ms");
    assert_eq!(
        (figures(&ago), &ago["duration_us"]),
        ([0, 0, 0], &Value::Null)
    );
    for (query, status, code) in [
        ("since=then", 422, "invalid"),
        ("since=2999-01-01T00:00:00Z", 422, "invalid"),
        ("until=1h", 400, "malformed"),
    ] {
        let path = format!("{ENDPOINTS}/good/stats?{query}");
        server.api.call("GET", &path, "", b"").problem(status, code);
    }
    let told = said(
        &server,
        &[
            "endpoints",
            "stats",
            "--tenant",
            "acme",
            "good",
            "--since",
            "2h",
        ],
    );
    assert!(
        told.contains("\nattempts   3: 3 delivered, 0 failed\n"),
        "{told}"
    );
    assert!(told.contains("█| at most 3 in 1/24\n"), "{told}");
    server.stop();
}
