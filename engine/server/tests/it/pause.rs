//! An endpoint that is paused: what it wants is held, and delivered once it goes
//! on, from where it is told to.

use serde_json::{Value, json};

use crate::dead::Receiver;
use crate::operations::{call, created, publish, said, server};
use crate::refusals::program::{Server, eventually};

const HELD: &str = "/v1/tenants/acme/endpoints/held";

fn status(server: &Server) -> Value {
    call(server, "GET", HELD, Value::Null, 200)["status"].clone()
}

/// One endpoint to be paused, and one beside it that shows what has come so far.
fn begin(server: &Server) -> (Receiver, Receiver) {
    let (held, beside) = (Receiver::start(200), Receiver::start(200));
    created(server, "held", held.at, json!({}));
    created(server, "beside", beside.at, json!({}));
    (held, beside)
}

fn arrived(receiver: &Receiver, events: &[&str]) {
    eventually("they arrive", || receiver.taken().len() >= events.len());
    assert_eq!(receiver.taken(), events);
}

#[test]
fn what_a_paused_endpoint_wants_waits_until_it_is_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let started = server(dir.path());
    let (held, beside) = begin(&started);
    publish(&started, &["a"]);
    arrived(&held, &["a"]);

    let paused = call(&started, "POST", &format!("{HELD}/pause"), Value::Null, 200);
    assert_eq!(
        (&paused["status"], &paused["version"]),
        (&json!("paused"), &json!(2))
    );
    let again = call(&started, "POST", &format!("{HELD}/pause"), Value::Null, 200);
    assert_eq!(again["version"], 2, "it is paused already");
    publish(&started, &["b", "c"]);
    arrived(&beside, &["a", "b", "c"]);
    let list = said(&started, &["endpoints", "list", "--tenant", "acme"]);
    assert!(list.contains("  paused  "), "{list}");
    // A change of something else leaves it paused, and so does a restart.
    let patched = call(&started, "PATCH", HELD, json!({"description": "x"}), 200);
    assert_eq!(patched["status"], "paused");
    started.stop();
    assert_eq!(held.taken(), ["a"]);
    let started = server(dir.path());
    publish(&started, &["d"]);
    arrived(&beside, &["a", "b", "c", "d"]);
    assert_eq!(
        (held.taken(), status(&started)),
        (vec!["a".into()], json!("paused"))
    );

    let words = ["endpoints", "resume", "--tenant", "acme", "held"];
    assert_eq!(said(&started, &words), "resumed held\n");
    arrived(&held, &["a", "b", "c", "d"]);
    assert_eq!(status(&started), "active");
    publish(&started, &["e"]);
    arrived(&held, &["a", "b", "c", "d", "e"]);

    let trail = call(&started, "GET", "/v1/audit?tenant=acme", Value::Null, 200);
    let trail = trail["data"].as_array().unwrap().iter();
    let actions: Vec<_> = trail
        .map(|change| change["action"].as_str().unwrap())
        .collect();
    assert_eq!(
        actions[..3],
        ["endpoint.resumed", "endpoint.updated", "endpoint.paused"]
    );
    started.stop();
}

#[test]
fn an_operator_disables_with_a_reason_and_each_change_has_a_version() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let (held, beside) = begin(&server);
    let send = |verb: &str, headers: &str, body: &str| {
        let path = format!("{HELD}/{verb}");
        server.api.post(&path, headers, body.as_bytes())
    };
    for verb in ["pause", "resume", "disable", "enable"] {
        let stale = send(verb, "if-match: \"7\"\r\n", "");
        stale.problem(409, "version_conflict");
    }
    let disabled = send(
        "disable",
        "if-match: \"1\"\r\n",
        r#"{"reason": "it moves"}"#,
    );
    assert_eq!(disabled.status, 200, "{}", disabled.text);
    assert!(disabled.head.contains("etag: \"2\""), "{}", disabled.head);
    let shown: Value = serde_json::from_str(&disabled.text).unwrap();
    assert_eq!(
        (&shown["status"], &shown["disabled_reason"]),
        (&json!("disabled"), &json!("it moves"))
    );
    // It says why it is what it is, and wants nothing.
    let again = send("disable", "", "");
    assert!(again.text.contains("it moves"), "{}", again.text);
    publish(&server, &["a"]);
    arrived(&beside, &["a"]);
    let paused = send("pause", "", "");
    assert!(
        paused.text.contains("\"status\":\"disabled\""),
        "{}",
        paused.text
    );
    assert_eq!(send("enable", "", "").status, 200);
    assert_eq!(status(&server), "paused");
    assert_eq!(send("resume", "", "").status, 200);
    publish(&server, &["b"]);
    arrived(&held, &["b"]);
    let words = ["endpoints", "disable", "--tenant", "acme", "held"];
    assert_eq!(said(&server, &words), "disabled held\n");
    let shown = call(&server, "GET", HELD, Value::Null, 200);
    assert_eq!(shown["disabled_reason"], "manual");
    for (verb, body, param, wanted) in [
        (
            "disable",
            json!({"reason": ""}),
            "reason",
            "expected 1 to 256 bytes",
        ),
        (
            "disable",
            json!({"reason": "x".repeat(257)}),
            "reason",
            "1 to 256",
        ),
        (
            "resume",
            json!({"from": "then"}),
            "from",
            "otherwise `held` or `now`",
        ),
        (
            "resume",
            json!({"from": "2999-01-01T00:00:00Z"}),
            "from",
            "in the future",
        ),
    ] {
        let (found, detail) = send(verb, "", &body.to_string()).problem(422, "invalid");
        assert!(
            found == param && detail.contains(wanted),
            "{found}: {detail}"
        );
    }
    server.stop();
}
