//! `Idempotency-Key` on the management API's POSTs: nothing is done twice, and a
//! secret that was shown is shown again, and stands nowhere in the clear.

use std::collections::BTreeSet;
use std::io::Read as _;

use serde_json::{Value, json};

use crate::access::{json_of, keyed, made, start};
use crate::refusals::program::{Answer, Server};

const ENDPOINTS: &str = "/v1/tenants/acme/endpoints";

fn post(server: &Server, credential: &str, key: &str, path: &str, body: &Value) -> Answer {
    let headers = format!("authorization: Bearer {credential}\r\nidempotency-key: {key}\r\n");
    server.api.post(path, &headers, body.to_string().as_bytes())
}

fn is_replayed(answer: &Answer) -> bool {
    answer.head.contains("idempotency-replayed: true")
}

#[test]
fn a_repeat_gets_the_same_answer_with_its_secret() {
    let dir = tempfile::tempdir().unwrap();
    let (server, admin) = start(dir.path());
    let endpoint = json!({"url": "https://example.com/", "uid": "one"});
    let cases = [
        (ENDPOINTS, endpoint, "secret"),
        (
            "/v1/tenants/acme/endpoints/one/secrets/rotate",
            json!({}),
            "secret",
        ),
        ("/v1/keys", json!({"scopes": ["read"]}), "key"),
        (
            "/v1/tenants/acme/portal_sessions",
            json!({"capabilities": ["read"]}),
            "token",
        ),
        ("/v1/event_types", json!({"name": "a"}), "name"),
    ];
    let (mut secrets, mut answers) = (Vec::new(), Vec::new());
    for (number, (path, body, member)) in cases.iter().enumerate() {
        let key = format!("k{number}");
        let first = post(&server, &admin, &key, path, body);
        let again = post(&server, &admin, &key, path, body);
        assert_eq!(first.status, 201, "{path}: {}", first.text);
        assert_eq!(
            (first.status, &first.text),
            (again.status, &again.text),
            "{path}"
        );
        assert_eq!(
            (is_replayed(&first), is_replayed(&again)),
            (false, true),
            "{path}"
        );
        let etag = |answer: &Answer| answer.head.contains("etag: ");
        assert_eq!(etag(&first), etag(&again), "{path}");
        answers.push(first.text.clone());
        let secret = json_of(&first, 201)[*member].as_str().unwrap().to_owned();
        if *member != "name" {
            secrets.push(secret);
        }
    }
    // Each was done once.
    let headers = format!("authorization: Bearer {admin}\r\n");
    let all = |path: &str| {
        let list = json_of(&server.api.call("GET", path, &headers, b""), 200);
        list["data"].as_array().unwrap().len()
    };
    assert_eq!((all(ENDPOINTS), all("/v1/keys")), (1, 2));
    assert_eq!(all(&format!("{ENDPOINTS}/one/secrets")), 2);
    // A refusal is the same one, told to the request that hears it.
    let wrong = json!({"scopes": ["everything"]});
    let first = post(&server, &admin, "wrong", "/v1/keys", &wrong);
    let again = post(&server, &admin, "wrong", "/v1/keys", &wrong);
    first.problem(422, "invalid");
    let of = |answer: &Answer| json_of(answer, 422);
    assert_eq!(
        (&of(&first)["detail"], is_replayed(&again)),
        (&of(&again)["detail"], true)
    );
    let id = of(&again)["request_id"]
        .as_str()
        .unwrap()
        .to_ascii_lowercase();
    assert!(again.head.contains(&id), "{}", again.head);
    let log = server.stop();
    let server = Server::start(&keyed(dir.path()));
    for (number, (path, body, _)) in cases.iter().enumerate() {
        let again = post(&server, &admin, &format!("k{number}"), path, body);
        assert_eq!(
            (again.status, &again.text),
            (201, &answers[number]),
            "{path}"
        );
    }
    let log = log + &server.stop();
    let database = std::fs::read(dir.path().join("posthaste.db")).unwrap();
    for secret in secrets {
        let hidden = &secret[secret.len() - 20..];
        assert!(!log.contains(hidden));
        assert!(!database.windows(20).any(|part| part == hidden.as_bytes()));
    }
}

#[test]
fn a_key_is_its_callers_own_and_for_one_request() {
    let dir = tempfile::tempdir().unwrap();
    let (server, admin) = start(dir.path());
    let other = made(&server, &admin, "/v1/keys", &json!({"scopes": ["admin"]}));
    let acme = made(
        &server,
        &admin,
        "/v1/keys",
        &json!({"scopes": ["admin"], "tenant": "acme"}),
    );
    let token = || {
        let asked = json!({"capabilities": ["endpoints"]});
        made(&server, &acme, "/v1/tenants/acme/portal_sessions", &asked)
    };
    let body = json!({"url": "https://example.com/"});
    let make = |credential: &str| {
        let made = post(&server, credential, "same", ENDPOINTS, &body);
        json_of(&made, 201)["id"].as_str().unwrap().to_owned()
    };
    let (mine, portal) = (make(&admin), make(&token()));
    assert_eq!(make(&admin), mine);
    // A portal's tokens are one caller.
    assert_eq!(make(&token()), portal);
    let made: BTreeSet<_> = [&admin, &other, &acme].map(|key| make(key)).into();
    assert!(
        made.len() == 3 && !made.contains(&portal),
        "{made:?} {portal}"
    );

    let another = json!({"url": "https://example.com/2"});
    let elsewhere = "/v1/tenants/globex/endpoints";
    for (path, body) in [
        (ENDPOINTS, &another),
        (elsewhere, &body),
        ("/v1/keys", &body),
    ] {
        let (param, detail) = post(&server, &admin, "same", path, body).problem(422, "invalid");
        assert_eq!(param, "idempotency-key");
        assert!(detail.contains("another path, body"), "{detail}");
    }
    // Nobody is answered who may not ask any more, or never might.
    post(
        &server,
        &other,
        "new",
        "/v1/keys",
        &json!({"scopes": ["read"]}),
    );
    let id = &other[..29];
    let headers = format!("authorization: Bearer {admin}\r\n");
    let revoked = server
        .api
        .call("DELETE", &format!("/v1/keys/{id}"), &headers, b"");
    assert_eq!(revoked.status, 204);
    post(&server, &other, "same", ENDPOINTS, &body).problem(401, "unauthorized");
    post(&server, &acme, "same", elsewhere, &body).problem(404, "not_found");
    post(&server, &acme, "same", "/v1/keys", &body).problem(403, "forbidden");
    server.stop();
}

#[test]
fn of_many_at_once_one_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let (server, admin) = start(dir.path());
    let headers = format!("authorization: Bearer {admin}\r\nidempotency-key: k\r\n");
    let body = br#"{"url": "https://example.com/"}"#;
    let all: Vec<_> = (0..16)
        .map(|_| server.api.begin("POST", ENDPOINTS, &headers, body))
        .collect();
    let mut made = BTreeSet::new();
    for mut stream in all {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        match head.get(9..12) {
            Some("201") => _ = made.insert(text.to_owned()),
            Some("409") => assert!(text.contains("in_progress"), "{text}"),
            _ => panic!("{answer}"),
        }
    }
    assert_eq!(made.len(), 1, "{made:?}");
    let headers = format!("authorization: Bearer {admin}\r\n");
    let list = json_of(&server.api.call("GET", ENDPOINTS, &headers, b""), 200);
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    server.stop();
}
