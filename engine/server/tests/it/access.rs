//! Who gets in, what they may do, and what is known of it afterwards: keys,
//! portal tokens, the trail of changes, versions.

use std::process::Stdio;

use posthaste_core::limits::REQUEST_BYTES_MAX;
use serde_json::{Value, json};

use crate::refusals::program::{Answer, Refused, Server, embedded, eventually, file, posthaste};

const KEYS: &str = "[api]\nauth = \"keys\"\n";
const ACME: &str = "/v1/tenants/acme/endpoints";

/// A server that asks for keys, and the first one, made on its log.
pub(crate) fn start(dir: &std::path::Path) -> (Server, String) {
    let config = keyed(dir);
    let key = first_key(&config);
    (Server::start(&config), key)
}

/// What such a server runs by.
pub(crate) fn keyed(dir: &std::path::Path) -> String {
    format!("{}{KEYS}", embedded(dir))
}

pub(crate) fn first_key(config: &str) -> String {
    let config = file(config);
    let path = config.path().to_str().unwrap();
    let words = [
        "keys", "create", "--scope", "admin", "--json", "--config", path,
    ];
    let made = posthaste(&words).stdin(Stdio::null()).output().unwrap();
    let why = String::from_utf8(made.stderr).unwrap();
    assert!(made.status.success(), "{why}");
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    made["key"].as_str().unwrap().to_owned()
}

pub(crate) fn call(server: &Server, key: &str, method: &str, path: &str, body: &Value) -> Answer {
    let headers = format!("authorization: Bearer {key}\r\nwebhook-type: a\r\n");
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    server.api.call(method, path, &headers, body.as_bytes())
}

pub(crate) fn json_of(answer: &Answer, status: u16) -> Value {
    assert_eq!(answer.status, status, "{}\n{}", answer.head, answer.text);
    serde_json::from_str(&answer.text).unwrap()
}

/// Makes a key, or a portal token, and answers it.
pub(crate) fn made(server: &Server, admin: &str, path: &str, asked: &Value) -> String {
    let made = json_of(&call(server, admin, "POST", path, asked), 201);
    let key = made.get("key").or(made.get("token"));
    key.and_then(Value::as_str).unwrap().to_owned()
}

#[test]
fn the_first_key_is_made_on_the_log_and_no_key_is_ever_written() {
    let dir = tempfile::tempdir().unwrap();
    let (server, key) = start(dir.path());
    let api = server.api;
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(api.call("GET", path, "", b"").status, 200, "{path}");
    }
    for path in [ACME, "/v1/keys", "/v1/no-such", "/elsewhere"] {
        let refused = api.call("GET", path, "", b"");
        let (_, detail) = refused.problem(401, "unauthorized");
        assert!(detail.contains("Bearer"), "{detail}");
        assert!(
            refused.head.contains("www-authenticate: bearer"),
            "{}",
            refused.head
        );
    }
    assert_eq!(call(&server, &key, "GET", ACME, &Value::Null).status, 200);
    call(&server, &key, "GET", "/elsewhere", &Value::Null).problem(404, "not_found");

    let address = format!("http://{}", api.0);
    let words = ["keys", "list", "--server", &address];
    Refused::from(&words).expect(1, &["401 ", "authorization"]);
    let listed = posthaste(&words)
        .env("POSTHASTE_API_KEY", &key)
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let (id, secret) = key.split_at(29);
    assert!(
        listed.contains(id) && !listed.contains(&secret[1..]),
        "{listed}"
    );
    // The log has one holder: the first key comes before the first start.
    let config = file(&embedded(dir.path()));
    let path = config.path().to_str().unwrap();
    Refused::from(&["keys", "list", "--config", path]).expect(1, &["in use", "--config"]);

    // Whoever takes a key for its id has not written it into the log either.
    let path = format!("/v1/keys/{key}");
    call(&server, &key, "DELETE", &path, &Value::Null).problem(404, "not_found");
    let revoke = ["keys", "revoke", id, "--server", &address];
    let revoked = posthaste(&revoke)
        .env("POSTHASTE_API_KEY", &key)
        .output()
        .unwrap();
    assert!(revoked.status.success());
    call(&server, &key, "GET", ACME, &Value::Null).problem(401, "unauthorized");
    let log = server.stop();
    assert!(!log.contains(&secret[1..]), "{log}");
    let refused = |who: &str| {
        let told = format!("\"who\":\"{who}\"");
        log.lines()
            .any(|line| line.contains("call refused") && line.contains(&told))
    };
    assert!(
        refused("nobody") && refused(&format!("{id}, not proved")),
        "{log}"
    );
    let database = std::fs::read(dir.path().join("posthaste.db")).unwrap();
    let stored = |text: &str| {
        database
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    assert!(!stored(&secret[1..]));
}

/// What each call comes to for whom: the columns of [`MATRIX`].
const WHO: [&str; 9] = [
    "admin",
    "publish",
    "read",
    "admin@acme",
    "publish@acme",
    "read@acme",
    "portal read",
    "portal endpoints",
    "nobody",
];
/// 2 for done, as far as the caller may know.
type Row = (&'static str, &'static str, [u16; 9]);
const MATRIX: [Row; 15] = [
    (
        "GET",
        "/v1/tenants/acme/endpoints",
        [2, 403, 2, 2, 403, 2, 2, 2, 401],
    ),
    (
        "POST",
        "/v1/tenants/acme/endpoints",
        [2, 403, 403, 2, 403, 403, 403, 2, 401],
    ),
    (
        "GET",
        "/v1/tenants/acme/endpoints/one",
        [2, 403, 2, 2, 403, 2, 2, 2, 401],
    ),
    (
        "PATCH",
        "/v1/tenants/acme/endpoints/one",
        [2, 403, 403, 2, 403, 403, 403, 2, 401],
    ),
    (
        "PUT",
        "/v1/tenants/acme/endpoints/one",
        [2, 403, 403, 2, 403, 403, 403, 2, 401],
    ),
    (
        "POST",
        "/v1/tenants/acme/endpoints/one/enable",
        [2, 403, 403, 2, 403, 403, 403, 2, 401],
    ),
    (
        "POST",
        "/v1/tenants/acme/events",
        [2, 2, 403, 2, 2, 403, 403, 403, 401],
    ),
    (
        "POST",
        "/v1/tenants/acme/portal_sessions",
        [2, 403, 403, 2, 403, 403, 403, 403, 401],
    ),
    (
        "GET",
        "/v1/tenants/globex/endpoints/one",
        [2, 403, 2, 404, 404, 404, 404, 404, 401],
    ),
    (
        "POST",
        "/v1/tenants/globex/events",
        [2, 2, 403, 404, 404, 404, 404, 404, 401],
    ),
    (
        "GET",
        "/v1/keys",
        [2, 403, 403, 403, 403, 403, 403, 403, 401],
    ),
    (
        "POST",
        "/v1/keys",
        [2, 403, 403, 403, 403, 403, 403, 403, 401],
    ),
    (
        "GET",
        "/v1/audit",
        [2, 403, 403, 403, 403, 403, 403, 403, 401],
    ),
    (
        "GET",
        "/v1/dead_letters",
        [2, 403, 2, 403, 403, 403, 403, 403, 401],
    ),
    (
        "POST",
        "/v1/dead_letters/redrive",
        [2, 403, 403, 403, 403, 403, 403, 403, 401],
    ),
];

fn body_for(path: &str) -> Value {
    match path.rsplit('/').next().unwrap() {
        "endpoints" | "one" => json!({"url": "https://example.com/"}),
        "portal_sessions" => json!({"capabilities": ["read"]}),
        "keys" => json!({"scopes": ["read"]}),
        "redrive" => json!({"all": true, "dry_run": true}),
        _ => json!({}),
    }
}

#[test]
fn each_credential_opens_what_it_is_for_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (server, admin) = start(dir.path());
    let key = |scope: &str, tenant: Option<&str>| {
        let asked = json!({"scopes": [scope], "tenant": tenant});
        made(&server, &admin, "/v1/keys", &asked)
    };
    let acme = key("admin", Some("acme"));
    let token = |capability: &str| {
        let asked = json!({"capabilities": [capability], "expires_in": "10m"});
        made(&server, &acme, "/v1/tenants/acme/portal_sessions", &asked)
    };
    let credentials = [
        admin.clone(),
        key("publish", None),
        key("read", None),
        acme.clone(),
        key("publish", Some("acme")),
        key("read", Some("acme")),
        token("read"),
        token("endpoints"),
        format!("{}x", &admin[..admin.len() - 1]),
    ];
    for tenant in ["acme", "globex"] {
        let path = format!("/v1/tenants/{tenant}/endpoints/one");
        let body = json!({"url": "https://example.com/"});
        json_of(&call(&server, &admin, "PUT", &path, &body), 201);
    }
    for (method, path, wanted) in MATRIX {
        for ((who, credential), wanted) in WHO.iter().zip(&credentials).zip(wanted) {
            let body = if method == "GET" {
                Value::Null
            } else {
                body_for(path)
            };
            let answer = call(&server, credential, method, path, &body);
            let said = format!("{who}: {method} {path}: {}", answer.text);
            match wanted {
                2 => assert!((200..300).contains(&answer.status), "{said}"),
                401 => _ = answer.problem(401, "unauthorized"),
                403 => _ = answer.problem(403, "forbidden"),
                404 => _ = answer.problem(404, "not_found"),
                _ => unreachable!("{wanted}"),
            }
            assert_eq!(answer.status / 100 == 2, wanted == 2, "{said}");
        }
    }
    // Whether a foreign tenant has an endpoint, or is there at all, does not show.
    let ask = |tenant: &str, name: &str| {
        let path = format!("/v1/tenants/{tenant}/endpoints/{name}");
        let mut said = json_of(&call(&server, &acme, "GET", &path, &Value::Null), 404);
        said["request_id"].take();
        said
    };
    let there = ask("globex", "one");
    for (tenant, name) in [("globex", "two"), ("nowhere", "one"), ("acm%65x", "one")] {
        assert_eq!(ask(tenant, name), there, "{tenant} {name}");
    }
    // However a path spells its own tenant, it is the same one.
    let own = call(
        &server,
        &acme,
        "GET",
        "/v1/tenants/acm%65/endpoints/one",
        &Value::Null,
    );
    assert_eq!(own.status, 200, "{}", own.text);
    server.stop();
}

#[test]
fn a_portal_token_ends_with_its_time_and_with_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let (server, admin) = start(dir.path());
    let sessions = "/v1/tenants/acme/portal_sessions";
    let refused = |asked: Value, wanted: &str| {
        let (param, detail) =
            call(&server, &admin, "POST", sessions, &asked).problem(422, "invalid");
        assert!(
            format!("{param}: {detail}").contains(wanted),
            "{param}: {detail}"
        );
    };
    refused(
        json!({"capabilities": []}),
        "capabilities: expected at least one",
    );
    refused(
        json!({"capabilities": ["admin"]}),
        "expected `read` or `endpoints`",
    );
    let capabilities = json!(["read"]);
    refused(
        json!({"capabilities": capabilities, "expires_in": "25h"}),
        "expires_in: expected up to 24h",
    );
    refused(
        json!({"capabilities": capabilities, "expires_in": "0s"}),
        "expires_in",
    );
    let large = json!({"capabilities": ["x".repeat(REQUEST_BYTES_MAX)]});
    call(&server, &admin, "POST", sessions, &large).problem(413, "payload_too_large");

    let asked = json!({"capabilities": ["read"], "expires_in": "2s"});
    let short = made(&server, &admin, sessions, &asked);
    assert_eq!(call(&server, &short, "GET", ACME, &Value::Null).status, 200);
    eventually("it expires", || {
        call(&server, &short, "GET", ACME, &Value::Null).status == 401
    });
    call(&server, &short, "GET", ACME, &Value::Null).problem(401, "token_expired");

    let key = made(&server, &admin, "/v1/keys", &json!({"scopes": ["admin"]}));
    let asked = json!({"capabilities": ["endpoints"]});
    let token = made(&server, &key, sessions, &asked);
    let endpoint = json!({"url": "https://example.com/", "uid": "theirs"});
    json_of(&call(&server, &token, "POST", ACME, &endpoint), 201);
    let revoke = format!("/v1/keys/{}", &key[..29]);
    assert_eq!(
        call(&server, &admin, "DELETE", &revoke, &Value::Null).status,
        204
    );
    for dead in [&key, &token] {
        call(&server, dead, "GET", ACME, &Value::Null).problem(401, "unauthorized");
    }
    call(&server, &admin, "DELETE", &revoke, &Value::Null).problem(404, "not_found");
    let log = server.stop();
    for secret in [&short, &token, &key] {
        assert!(!log.contains(&secret[40..]), "{log}");
    }
}

#[test]
fn every_change_is_told_with_its_actor_newest_first() {
    let dir = tempfile::tempdir().unwrap();
    let (server, admin) = start(dir.path());
    let asked = json!({"scopes": ["admin"], "tenant": "acme", "description": "billing"});
    let acme = made(&server, &admin, "/v1/keys", &asked);
    let asked = json!({"capabilities": ["endpoints"]});
    let portal = made(&server, &acme, "/v1/tenants/acme/portal_sessions", &asked);
    let one = "/v1/tenants/acme/endpoints/one";
    let url = json!({"url": "https://example.com/"});
    let first = call(&server, &acme, "PUT", one, &url);
    let id = json_of(&first, 201)["id"].clone();
    json_of(
        &call(&server, &portal, "PATCH", one, &json!({"description": "x"})),
        200,
    );
    // What changes nothing is no change, and what is refused is none either.
    json_of(
        &call(&server, &portal, "PATCH", one, &json!({"description": "x"})),
        200,
    );
    call(&server, &portal, "PATCH", one, &json!({"url": "x"})).problem(422, "invalid");
    assert_eq!(
        call(&server, &admin, "DELETE", one, &Value::Null).status,
        204
    );

    let page = |query: &str| {
        let path = format!("/v1/audit{query}");
        json_of(&call(&server, &admin, "GET", &path, &Value::Null), 200)
    };
    let told = |page: &Value| {
        let data = page["data"].as_array().unwrap().iter();
        let line = |c: &Value| {
            let text = |name: &str| c[name].as_str().unwrap_or("-").to_owned();
            format!("{} {} {}", text("actor"), text("action"), c["version"])
        };
        data.map(line).collect::<Vec<_>>()
    };
    let (admin_id, acme_id) = (&admin[..29], &acme[..29]);
    let all = [
        format!("{admin_id} endpoint.deleted 3"),
        format!("{acme_id} by portal endpoint.updated 2"),
        format!("{acme_id} endpoint.created 1"),
        format!("{admin_id} key.created null"),
        "operator key.created null".to_owned(),
    ];
    let whole = page("");
    assert_eq!(
        (told(&whole), &whole["has_more"]),
        (all.to_vec(), &json!(false))
    );
    let created = &whole["data"][2];
    assert_eq!(
        (&created["subject"], &created["tenant"]),
        (&id, &json!("acme"))
    );
    let request = created["request_id"].as_str().unwrap().to_ascii_lowercase();
    assert!(
        first.head.contains(&format!("request-id: {request}")),
        "{}",
        first.head
    );

    let (mut cursor, mut paged) = (String::new(), Vec::new());
    loop {
        let page = page(&format!("?limit=2{cursor}"));
        assert!(page["data"].as_array().unwrap().len() <= 2);
        paged.extend(told(&page));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(paged, all);
    assert_eq!(told(&page("?tenant=acme")).len(), 4);
    assert_eq!(
        told(&page(&format!("?subject={}", id.as_str().unwrap()))).len(),
        3
    );
    call(&server, &admin, "GET", "/v1/audit?limit=0", &Value::Null).problem(422, "invalid");
    server.stop();
}

#[test]
fn a_change_names_the_version_it_is_based_on() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&embedded(dir.path()));
    let one = "/v1/tenants/acme/endpoints/one";
    let settings = json!({
        "url": "https://example.com/", "description": "billing", "event_types": ["a.*"],
        "headers": {"x-a": "1", "x-b": "2"}, "timeout": "9s", "max_in_flight": 3,
    });
    let send = |method: &str, headers: &str, body: Value| {
        server
            .api
            .call(method, one, headers, body.to_string().as_bytes())
    };
    let made = send("PUT", "", settings.clone());
    assert!(made.head.contains("etag: \"1\""), "{}", made.head);
    let first = json_of(&made, 201);
    assert!(first["secret"].as_str().unwrap().starts_with("whsec_"));
    // The same again is the same endpoint, and no change.
    let mut again = json_of(&send("PUT", "", settings), 200);
    assert_eq!((&again["id"], &again["version"]), (&first["id"], &json!(1)));

    let patch = json!({"description": null, "headers": {"x-a": null, "x-c": "3"}, "version": 1});
    let patched = json_of(&send("PATCH", "", patch.clone()), 200);
    again["description"] = json!("");
    again["headers"] = json!(["x-b", "x-c"]);
    again["version"] = json!(2);
    assert_eq!(patched, again, "nothing else has changed");

    let late = send("PATCH", "", patch);
    late.problem(409, "version_conflict");
    assert_eq!(json_of(&late, 409)["version"], 2);
    for (method, body) in [
        ("PATCH", json!({"max_in_flight": 4})),
        ("PUT", json!({"url": "https://example.com/"})),
        ("DELETE", Value::Null),
    ] {
        send(method, "if-match: \"1\"\r\n", body).problem(409, "version_conflict");
    }
    send("PATCH", "if-match: 2\r\n", json!({})).problem(422, "invalid");
    let timeout = json_of(
        &send("PATCH", "if-match: \"2\"\r\n", json!({"timeout": null})),
        200,
    );
    assert_eq!(
        (&timeout["timeout"], &timeout["version"]),
        (&json!("15000ms"), &json!(3))
    );
    let replaced = json_of(
        &send("PUT", "", json!({"url": "https://example.com/2"})),
        200,
    );
    assert_eq!(
        (&replaced["max_in_flight"], &replaced["version"]),
        (&json!(10), &json!(4))
    );
    assert_eq!(replaced["id"], first["id"]);

    let (param, _) = send("PATCH", "", json!({"url": null})).problem(400, "malformed");
    assert_eq!(param, "");
    let (_, detail) = send("PATCH", "", json!({"colour": "red"})).problem(400, "malformed");
    assert!(detail.contains("unknown field `colour`"), "{detail}");
    let (param, _) = send("PATCH", "", json!({"secret": "whsec_x"})).problem(422, "invalid");
    assert_eq!(param, "secret");
    let (param, _) = send(
        "PUT",
        "",
        json!({"url": "https://example.com/", "uid": "two"}),
    )
    .problem(422, "invalid");
    assert_eq!(param, "uid");
    let absent = "/v1/tenants/acme/endpoints/ep_00000000000000000000000000";
    let body = br#"{"url": "https://example.com/"}"#;
    server
        .api
        .call("PUT", absent, "", body)
        .problem(404, "not_found");
    assert_eq!(
        send("DELETE", "if-match: \"4\"\r\n", Value::Null).status,
        204
    );
    send("PATCH", "", json!({})).problem(404, "not_found");
    server.stop();
}

#[test]
fn lists_come_in_pages() {
    let dir = tempfile::tempdir().unwrap();
    let (server, admin) = start(dir.path());
    for number in 0..5 {
        let path = format!("{ACME}/e{number}");
        let body = json!({"url": "https://example.com/"});
        json_of(&call(&server, &admin, "PUT", &path, &body), 201);
    }
    // A change moves no endpoint to another page.
    json_of(
        &call(
            &server,
            &admin,
            "PATCH",
            &format!("{ACME}/e0"),
            &json!({"ordered": true}),
        ),
        200,
    );
    let (mut at, mut seen) = (String::new(), Vec::new());
    loop {
        let path = format!("{ACME}?limit=2{at}");
        let page = json_of(&call(&server, &admin, "GET", &path, &Value::Null), 200);
        let uids = page["data"].as_array().unwrap().iter();
        seen.extend(uids.map(|e| e["uid"].as_str().unwrap().to_owned()));
        assert_eq!(page["has_more"], page["next_cursor"].is_string());
        match page["next_cursor"].as_str() {
            Some(next) => at = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["e0", "e1", "e2", "e3", "e4"]);
    for wrong in ["limit=0", "limit=251", "cursor=x"] {
        let path = format!("/v1/keys?{wrong}");
        call(&server, &admin, "GET", &path, &Value::Null).problem(422, "invalid");
    }
    let path = format!("{ACME}?page=2");
    call(&server, &admin, "GET", &path, &Value::Null).problem(400, "malformed");
    server.stop();
}
