//! Retry policies: made while the engine runs, and followed.

use serde_json::{Value, json};

use crate::access::{call, json_of, made, start};
use crate::dead::Receiver;
use crate::refusals::program::{Answer, Refused, Server, embedded, eventually};
use crate::tenants::said;

const POLICIES: &str = "/v1/retry_policies";
const SETTINGS: &str = "[egress]\nallow_http = true\nallow = [\"127.0.0.0/8\"]\n\
     [retry_policies.once]\ngaps = [\"1s\"]\n";

fn server(dir: &std::path::Path) -> Server {
    Server::start(&format!("{}{SETTINGS}", embedded(dir)))
}

fn ask(server: &Server, method: &str, name: &str, body: &str) -> Answer {
    let path = match name {
        "" => POLICIES.to_owned(),
        name => format!("{POLICIES}/{name}"),
    };
    server.api.call(method, &path, "", body.as_bytes())
}

/// Makes or changes an endpoint that names a policy.
fn naming(server: &Server, method: &str, policy: &str) -> Answer {
    let path = "/v1/tenants/acme/endpoints";
    let body = json!({"url": "https://example.com/", "uid": "e", "retry_policy": policy});
    let body = body.to_string();
    match method {
        "POST" => server.api.post(path, "", body.as_bytes()),
        _ => {
            let path = format!("{path}/e");
            server.api.call(method, &path, "", body.as_bytes())
        }
    }
}

#[test]
fn a_policy_is_made_named_changed_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let started = server(dir.path());
    naming(&started, "POST", "fast").problem(422, "invalid");
    let made = ask(
        &started,
        "PUT",
        "fast",
        r#"{"gaps": ["5s", "90s", "2m"], "description": "Soon."}"#,
    );
    assert!(made.head.contains("etag: \"1\""), "{}", made.head);
    let made = json_of(&made, 201);
    assert!(made["created_at"].as_str().unwrap().ends_with('Z'));
    let wanted = json!({
        "name": "fast", "source": "api", "description": "Soon.", "gaps": ["5s", "90s", "2m"],
        "attempts": 4, "window": "215s", "created_at": made["created_at"], "version": 1,
    });
    assert_eq!(made, wanted);
    assert_eq!(json_of(&ask(&started, "GET", "fast", ""), 200), wanted);
    assert_eq!(naming(&started, "POST", "fast").status, 201);

    let body = r#"{"gaps": ["1h"], "version": 1}"#;
    let changed = json_of(&ask(&started, "PUT", "fast", body), 200);
    assert_eq!(
        (&changed["window"], &changed["version"]),
        (&json!("1h"), &json!(2))
    );
    ask(&started, "PUT", "fast", body).problem(409, "version_conflict");
    let again = json_of(&ask(&started, "PUT", "fast", r#"{"gaps": ["60m"]}"#), 200);
    assert_eq!(again, changed, "nothing is new");
    let (_, detail) = ask(&started, "DELETE", "fast", "").problem(409, "retry_policy_in_use");
    assert!(detail.starts_with("endpoints that name it: 1;"), "{detail}");

    // It is read back from the log as it is.
    started.stop();
    let started = server(dir.path());
    assert_eq!(json_of(&ask(&started, "GET", "fast", ""), 200), changed);
    let strays = "posthaste_control_unknown_policy_endpoints";
    assert_eq!(started.api.metric(strays), Some(0.0));
    assert_eq!(naming(&started, "PATCH", "standard").status, 200);
    assert_eq!(ask(&started, "DELETE", "fast", "").status, 204);
    for method in ["GET", "DELETE"] {
        ask(&started, method, "fast", "").problem(404, "not_found");
    }
    naming(&started, "PATCH", "fast").problem(422, "invalid");
    let trail = started.api.call("GET", "/v1/audit?subject=fast", "", b"");
    let trail = json_of(&trail, 200);
    let actions = trail["data"].as_array().unwrap().iter();
    let actions: Vec<_> = actions.map(|change| change["action"].as_str()).collect();
    let wanted = ["deleted", "updated", "created"].map(|what| format!("retry_policy.{what}"));
    assert_eq!(
        actions,
        wanted.iter().map(|a| Some(&**a)).collect::<Vec<_>>()
    );
    started.stop();
}

#[test]
fn those_of_the_configuration_are_shown_and_stay() {
    let dir = tempfile::tempdir().unwrap();
    let started = Server::start(&embedded(dir.path()));
    let body = r#"{"gaps": ["5s"]}"#;
    for name in ["once", "zero"] {
        assert_eq!(ask(&started, "PUT", name, body).status, 201);
    }
    started.stop();
    // The configuration comes to have one of them, too.
    let started = server(dir.path());
    let listed = json_of(&ask(&started, "GET", "", ""), 200);
    let listed = listed["data"].as_array().unwrap().iter();
    let listed: Vec<_> = listed
        .map(|one| json!([one["name"], one["source"], one["attempts"], one["window"]]))
        .collect();
    assert_eq!(
        listed,
        [
            json!(["once", "configuration", 2, "1s"]),
            json!(["standard", "built_in", 10, "257705s"]),
            json!(["zero", "api", 2, "5s"]),
        ]
    );
    for name in ["once", "standard"] {
        let shown = json_of(&ask(&started, "GET", name, ""), 200);
        assert_eq!(
            (&shown["created_at"], &shown["version"]),
            (&Value::Null, &Value::Null)
        );
        ask(&started, "PUT", name, body).problem(409, "retry_policy_read_only");
        ask(&started, "DELETE", name, "").problem(409, "retry_policy_read_only");
    }
    for name in ["once", "zero"] {
        assert!(naming(&started, "PUT", name).status < 300, "{name}");
    }
    started.stop();
}

#[test]
fn what_is_wrong_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let long = format!(
        r#"{{"gaps": ["1s"], "description": "{}"}}"#,
        "x".repeat(1_025)
    );
    let good = r#"{"gaps": ["1s"]}"#;
    let cases = [
        ("a", r#"{"gaps": []}"#, "gaps", "0 gaps: expected 1 to 30"),
        (
            "a",
            r#"{"gaps": ["1s", "5"]}"#,
            "gaps",
            "`5`: expected a number and a unit",
        ),
        (
            "a",
            r#"{"gaps": ["1s", "10ms"]}"#,
            "gaps",
            "gap 2: 10ms: expected 1s to 24 hours",
        ),
        (
            "a",
            r#"{"gaps": ["24h", "24h", "24h", "1s"]}"#,
            "gaps",
            "at most 72 hours",
        ),
        (
            "a",
            r#"{"gaps": ["1s"], "name": "b"}"#,
            "name",
            "that of the path",
        ),
        ("a", &long, "description", "at most 1024 bytes"),
        ("a%20b", good, "name", "visible ASCII"),
        ("a%2Fb", good, "name", "without `/`"),
    ];
    for (name, body, param, word) in cases {
        let (named, detail) = ask(&server, "PUT", name, body).problem(422, "invalid");
        assert_eq!(named, param, "{detail}");
        assert!(detail.contains(word), "{detail}");
    }
    for body in [
        "{",
        "{}",
        r#"{"gaps": "1s"}"#,
        r#"{"gaps": ["1s"], "attempts": 2}"#,
    ] {
        ask(&server, "PUT", "a", body).problem(400, "malformed");
    }
    ask(&server, "GET", "a", "").problem(404, "not_found");
    for number in 0..100 {
        assert_eq!(ask(&server, "PUT", &format!("n{number}"), good).status, 201);
    }
    ask(&server, "PUT", "a", good).problem(409, "too_many_retry_policies");
    assert_eq!(ask(&server, "PUT", "n7", r#"{"gaps": ["2s"]}"#).status, 200);
    server.stop();
}

#[test]
fn a_running_engine_follows_what_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let ill = Receiver::start(500);
    let put = |body| assert!(ask(&server, "PUT", "own", body).status < 300);
    put(r#"{"gaps": ["1s"]}"#);
    let body = json!({"url": format!("http://{}/", ill.at), "retry_policy": "own"}).to_string();
    let path = "/v1/tenants/acme/endpoints";
    assert_eq!(server.api.post(path, "", body.as_bytes()).status, 201);
    let given_up_after = |event: &str| {
        let headers = format!("webhook-type: t\r\nwebhook-id: {event}\r\n");
        let events = "/v1/tenants/acme/events";
        assert_eq!(server.api.post(events, &headers, b"{}").status, 202);
        let mut attempts = Value::Null;
        eventually("it is given up", || {
            let letters = server.api.call("GET", "/v1/dead_letters", "", b"");
            let letters = json_of(&letters, 200);
            let letters = letters["data"].as_array().unwrap();
            let letter = letters
                .iter()
                .find(|letter| letter["delivery"]["event"] == event);
            attempts = letter.map_or(Value::Null, |letter| letter["delivery"]["attempts"].clone());
            letter.is_some()
        });
        attempts
    };
    assert_eq!(given_up_after("one"), 2);
    put(r#"{"gaps": ["1s", "1s"]}"#);
    assert_eq!(given_up_after("two"), 3);
    server.stop();
}

#[test]
fn only_admin_changes_them() {
    let dir = tempfile::tempdir().unwrap();
    let (server, admin) = start(dir.path());
    let body = json!({"gaps": ["5s"]});
    let path = "/v1/retry_policies/fast";
    assert_eq!(call(&server, &admin, "PUT", path, &body).status, 201);
    let asked = json!({"scopes": ["read"]});
    let reader = made(&server, &admin, "/v1/keys", &asked);
    for path in [POLICIES, path] {
        assert_eq!(
            call(&server, &reader, "GET", path, &Value::Null).status,
            200
        );
    }
    for method in ["PUT", "DELETE"] {
        call(&server, &reader, method, path, &body).problem(403, "forbidden");
    }
    server.stop();
}

#[test]
fn the_command_line_says_and_shows_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let of = |words: &[&str]| said(&server, &[&["retry-policies"], words].concat());
    let put = [
        "put",
        "fast",
        "--gaps",
        "5s,30s,2m",
        "--description",
        "Soon.",
    ];
    let table = of(&put);
    assert!(
        table.contains("fast    api     4         2m 35s  1        Soon."),
        "{table}"
    );
    let file = dir.path().join("policy.json");
    std::fs::write(&file, r#"{"gaps": ["1h"], "version": 1}"#).unwrap();
    of(&["put", "fast", "--file", file.to_str().unwrap()]);
    let listed = of(&["list"]);
    for row in [
        "fast      api            2         1h         2",
        "once      configuration  2         1s         -",
        "standard  built_in       10        71h 35m 5s  -",
    ] {
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(squeezed(&listed).contains(&squeezed(row)), "{listed}");
    }
    assert!(of(&["show", "standard"]).ends_with("gaps: 5s, 5m, 30m, 2h, 5h, 10h, 14h, 20h, 20h\n"));
    let address = format!("http://{}", server.api.0);
    let words = |of: &[&'static str]| [&["retry-policies"], of, &["--server", &address]].concat();
    Refused::from(&words(&["delete", "once"])).expect(1, &["409", "[retry_policies]"]);
    Refused::from(&words(&["put", "a", "--gaps", "5"])).expect(1, &["422", "gaps: `5`"]);
    assert_eq!(of(&["delete", "fast"]), "deleted fast\n");
    server.stop();
}
