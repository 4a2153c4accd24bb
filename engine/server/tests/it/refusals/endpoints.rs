//! What an endpoint can have wrong, by the API and by the command line.

use super::program::{Refused, Server, embedded};

const PATH: &str = "/v1/tenants/acme/endpoints";
/// The URLs that look harmless and are not; see its first lines.
const BAD_URLS: &str = include_str!("../../../../core/testdata/bad_urls.tsv");

/// The rows of a stage at which a URL's text alone decides.
fn bad_urls() -> Vec<String> {
    let rows = BAD_URLS.lines().filter(|line| !line.starts_with('#'));
    rows.map(|line| line.split('\t').collect::<Vec<_>>())
        .filter(|row| matches!(row[2..4], ["refuse", "parse" | "address"]))
        .map(|row| unescape(row[0]))
        .collect()
}

fn unescape(column: &str) -> String {
    let mut text = column.replace("{LONGHOST}", &[&*"l".repeat(60); 5].join("."));
    while let Some(start) = text.find("{A*") {
        let end = start + text[start..].find('}').unwrap();
        let count = text[start + 3..end].parse().unwrap();
        text.replace_range(start..=end, &"a".repeat(count));
    }
    let escapes = [("\\t", "\t"), ("\\n", "\n"), ("\\r", "\r"), ("\\0", "\0")];
    let escapes = escapes.into_iter().chain([("\\s", " "), ("\\b", "\\")]);
    escapes.fold(text, |text, (escape, byte)| text.replace(escape, byte))
}

#[test]
fn urls_that_must_not_be_dialled_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let config = format!("{}[egress]\nallow_http = true\n", embedded(dir.path()));
    let server = Server::start(&config);
    let urls = bad_urls();
    assert!(urls.len() > 250, "{} rows", urls.len());
    for url in urls {
        let body = serde_json::json!({ "url": url }).to_string();
        let answer = server.api.post(PATH, "", body.as_bytes());
        assert_eq!(answer.status, 422, "{url}: {}", answer.text);
        let (param, detail) = answer.problem(422, "invalid");
        assert_eq!(param, "url", "{url}: {detail}");
        assert!(detail.contains("expected"), "{url}: {detail}");
    }
    // What is right is taken.
    server.api.endpoint("acme", "http://example.com/hooks");
    let listed = server.api.call("GET", PATH, "", b"").text;
    assert_eq!(listed.matches("\"url\"").count(), 1, "{listed}");
    server.stop();
}

#[test]
fn the_command_line_says_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&embedded(dir.path()));
    let address = format!("http://{}", server.api.0);
    let create = |more: &[&str]| {
        let words = [
            "endpoints",
            "create",
            "--tenant",
            "acme",
            "--server",
            &address,
        ];
        Refused::from(&[&words, more].concat())
    };
    create(&["--url", "http://example.com/"])
        .expect(1, &["422 ", "url: url scheme is `http`: expected `https`"]);
    create(&["--url", "https://127.0.0.1/"]).expect(1, &["422 ", "url: ", "public addresses"]);
    let good = ["--url", "https://example.com/"];
    create(&[&good[..], &["--types", "a.*b"]].concat()).expect(
        1,
        &["event_types: `a.*b`", "expected dot-separated segments"],
    );
    create(&[&good[..], &["--timeout", "5"]].concat())
        .expect(1, &["timeout: `5`: expected a number and a unit"]);
    create(&[&good[..], &["--retry-policy", "often"]].concat()).expect(
        1,
        &["retry_policy: `often` is unknown", "expected `standard`"],
    );
    create(&[&good[..], &["--header", "x"]].concat())
        .expect(2, &["--header x: expected `name: value`"]);
    create(&[&good[..], &["--secret-file", "/nowhere/secret"]].concat())
        .expect(1, &["--secret-file /nowhere/secret", "No such file"]);
    let nowhere = ["endpoints", "list", "--tenant", "acme", "--server"];
    Refused::from(&[&nowhere[..], &["http://127.0.0.1:1"]].concat()).expect(
        69,
        &[
            "cannot reach the server at http://127.0.0.1:1",
            "`posthaste serve`",
        ],
    );
    Refused::from(&[&nowhere[..], &["127.0.0.1:1"]].concat())
        .expect(2, &["--server 127.0.0.1:1: expected http://HOST:PORT"]);
    server.stop();
}

/// A member of a new endpoint, the `param` an answer names, and what it says
/// would be right.
type Case = (&'static str, &'static str, &'static str);

/// Values that cannot be.
const INVALID: [Case; 21] = [
    (
        "\"event_types\": [\"a.\"]",
        "event_types",
        "expected dot-separated segments",
    ),
    (
        "\"timeout\": \"5 minutes\"",
        "timeout",
        "expected a number and a unit",
    ),
    ("\"timeout\": \"31s\"", "timeout", "expected up to 30s"),
    (
        "\"connect_timeout\": \"20s\"",
        "connect_timeout",
        "expected up to `timeout`",
    ),
    (
        "\"max_in_flight\": 257",
        "max_in_flight",
        "expected 1 to 256",
    ),
    (
        "\"retry_policy\": \"often\"",
        "retry_policy",
        "`often` is unknown: expected `standard`; PUT /v1/retry_policies/NAME makes more",
    ),
    (
        "\"headers\": {\"Host\": \"a\"}",
        "headers",
        "`host` cannot be set",
    ),
    (
        "\"headers\": {\"x y\": \"a\"}",
        "headers",
        "expected a name of letters",
    ),
    ("\"secret\": \"\"", "secret", "expected `whsec_` and base64"),
    (
        "\"secret\": \"whsec_c2VjcmV0\"",
        "secret",
        "expected 24 to 64",
    ),
    (
        "\"secret\": \"whsec_!!hunter2!!\"",
        "secret",
        "not base64: expected",
    ),
    ("\"secret\": \"whsk_aHVudGVyMg==\"", "secret", "expected 64"),
    (
        "\"signing\": {\"scheme\": \"stripe\"}, \"secret\": \"hunter2\"",
        "secret",
        "expected 8 to 256",
    ),
    (
        "\"signing\": {\"scheme\": \"slack\", \"algorithm\": \"ed25519\"}",
        "signing.algorithm",
        "`slack` signs with `hmac_sha256` alone",
    ),
    (
        "\"signing\": {\"scheme\": \"github\"}, \"headers\": {\"X-GitHub-Event\": \"a\"}",
        "headers",
        "`x-github-event` cannot be set",
    ),
    ("\"max_age\": \"0s\"", "max_age", "expected 1s to 720h"),
    ("\"max_age\": \"721h\"", "max_age", "expected 1s to 720h"),
    (
        "\"max_age\": \"a day\"",
        "max_age",
        "expected a number and a unit",
    ),
    (
        "\"auto_disable\": {\"after\": \"0h\"}",
        "auto_disable.after",
        "expected 12h to 720h, or `never`",
    ),
    (
        "\"auto_disable\": {\"after\": \"Never\"}",
        "auto_disable.after",
        "expected a number and a unit, such as \"500ms\" or \"25s\", or `never`",
    ),
    (
        "\"metadata\": {\"\": \"a\"}",
        "metadata",
        "expected keys of 1 to 64 bytes",
    ),
];

/// JSON of the wrong kind.
const WRONG_KIND: [Case; 8] = [
    (
        "\"max_in_flight\": \"ten\"",
        "max_in_flight",
        "expected u32",
    ),
    (
        "\"event_types\": [\"a\", 7]",
        "event_types[1]",
        "expected a string",
    ),
    (
        "\"headers\": {\"x-a\": 7}",
        "headers.x-a",
        "expected a string",
    ),
    (
        "\"metadata\": {\"crm\": 7}",
        "metadata.crm",
        "expected a string",
    ),
    (
        "\"auto_disable\": {\"min_failures\": 7}",
        "auto_disable.min_failures",
        "unknown field `min_failures`, expected `after`",
    ),
    (
        "\"secret\": [\"whsec_hunter2\"]",
        "secret",
        "expected a string",
    ),
    (
        "\"signing\": {\"scheme\": \"svix\"}",
        "signing.scheme",
        "expected one of `standard_webhooks`, `stripe`, `github`, `slack`",
    ),
    (
        "\"secrets\": \"whsec_hunter2\"",
        "secrets",
        "unknown field `secrets`, expected one of",
    ),
];

#[test]
fn every_bad_field_is_named_and_no_secret_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&embedded(dir.path()));
    let post = |fields: &str| {
        let body = format!("{{\"url\": \"https://example.com/\", {fields}}}");
        server.api.post(PATH, "", body.as_bytes())
    };
    for (fields, param, wanted) in INVALID {
        let answer = post(fields);
        let (found, detail) = answer.problem(422, "invalid");
        assert_eq!(found, param, "{fields}: {detail}");
        assert!(detail.contains(wanted), "{fields}: {detail}");
        for secret in ["hunter2", "c2VjcmV0", "aHVudGVyMg"] {
            assert!(!answer.text.contains(secret), "{}", answer.text);
        }
    }
    for (fields, param, wanted) in WRONG_KIND {
        let answer = post(fields);
        let (found, detail) = answer.problem(400, "malformed");
        assert_eq!(found, param, "{fields}: {detail}");
        assert!(detail.contains(wanted), "{fields}: {detail}");
        assert!(!answer.text.contains("hunter2"), "{}", answer.text);
    }
    let (_, detail) = server.api.post(PATH, "", b"{}").problem(400, "malformed");
    assert!(detail.contains("missing field `url`"), "{detail}");
    let (_, detail) = server
        .api
        .post(PATH, "", b"{} {}")
        .problem(400, "malformed");
    assert!(detail.contains("line 1"), "{detail}");
    assert!(!server.log().contains("hunter2"), "{}", server.log());
    let listed = server.api.call("GET", PATH, "", b"").text;
    assert!(
        listed.starts_with("{\"data\":[],"),
        "none was made: {listed}"
    );
    let log = server.stop();
    assert!(!log.contains("hunter2"), "{log}");
}

#[test]
fn a_policy_that_is_taken_back_is_warned_of_and_the_standard_serves() {
    let dir = tempfile::tempdir().unwrap();
    let config = embedded(dir.path());
    let strays = "posthaste_control_unknown_policy_endpoints";
    let server = Server::start(&format!("{config}[retry_policies.fast]\ngaps = [\"5s\"]\n"));
    let body = b"{\"url\": \"https://example.com/\", \"retry_policy\": \"fast\"}";
    assert_eq!(server.api.post(PATH, "", body).status, 201);
    assert_eq!(server.api.metric(strays), Some(0.0));
    server.stop();
    let server = Server::start(&config);
    assert_eq!(server.api.metric(strays), Some(1.0));
    let listed = server.api.call("GET", PATH, "", b"").text;
    assert!(listed.contains("\"retry_policy\":\"fast\""), "{listed}");
    let log = server.stop();
    let warned = |line: &str| line.contains("\"WARN\"") && line.contains("`standard` serves them");
    assert!(log.lines().any(warned), "{log}");
}
