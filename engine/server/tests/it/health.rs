//! Whether an endpoint gets its events, asked from outside: by a test of it.

use posthaste_core::signature::{Scheme, Signer};
use serde_json::{Value, json};

use crate::operations::{call, created, said, server};
use crate::refusals::program::{Refused, Server, embedded, posthaste};
use crate::verification::{Receiver, respond};

const ENDPOINTS: &str = "/v1/tenants/acme/endpoints";
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
