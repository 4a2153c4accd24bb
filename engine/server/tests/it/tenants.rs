//! Tenants: what is said of them, what they have, and who may say it.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::access::{call, json_of, made, start};
use crate::refusals::program::{Answer, Refused, Server, embedded, posthaste};

const TENANTS: &str = "/v1/tenants";

fn server(dir: &std::path::Path) -> Server {
    Server::start(&embedded(dir))
}

/// One request; a body of `null` is none.
fn ask(server: &Server, method: &str, path: &str, headers: &str, body: &Value) -> Answer {
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let path = format!("{TENANTS}{path}");
    server.api.call(method, &path, headers, body.as_bytes())
}

fn shown(server: &Server, tenant: &str) -> Value {
    json_of(
        &ask(server, "GET", &format!("/{tenant}"), "", &Value::Null),
        200,
    )
}

/// The tenants, a page at a time.
fn listed(server: &Server, limit: usize) -> Vec<Value> {
    let (mut at, mut all) = (String::new(), Vec::new());
    loop {
        let page = ask(
            server,
            "GET",
            &format!("?limit={limit}{at}"),
            "",
            &Value::Null,
        );
        let page = json_of(&page, 200);
        all.extend(page["data"].as_array().unwrap().clone());
        match page["next_cursor"].as_str() {
            Some(next) => at = format!("&cursor={next}"),
            None => return all,
        }
    }
}

#[test]
fn a_tenant_is_there_with_its_endpoints_or_with_its_record() {
    let dir = tempfile::tempdir().unwrap();
    let started = server(dir.path());
    ask(&started, "GET", "/acme", "", &Value::Null).problem(404, "not_found");
    started.api.endpoint("acme", "https://example.com/1");
    started.api.endpoint("acme", "https://example.com/2");
    started.api.endpoint("a&b=c", "https://example.com/3");
    let undeclared = json!({
        "tenant": "acme", "name": "", "description": "", "metadata": {}, "endpoints": 2,
        "endpoints_enabled": 2, "created_at": null, "version": 0,
    });
    assert_eq!(shown(&started, "acme"), undeclared);

    let globex = json!({"name": "Globex", "metadata": {"plan": "gold", "crm": "7"}});
    let put = ask(&started, "PUT", "/globex", "", &globex);
    assert!(put.head.contains("etag: \"1\""), "{}", put.head);
    let first = json_of(&put, 201);
    assert_eq!(
        (&first["endpoints"], &first["version"]),
        (&json!(0), &json!(1))
    );
    assert!(
        first["created_at"].as_str().unwrap().ends_with('Z'),
        "{first}"
    );
    // The same again is no change.
    assert_eq!(
        json_of(&ask(&started, "PUT", "/globex", "", &globex), 200),
        first
    );
    // What is said of a tenant says nothing of its endpoints.
    let patch = json!({"description": "ours"});
    let patched = json_of(&ask(&started, "PATCH", "/acme", "", &patch), 200);
    assert_eq!(
        (&patched["endpoints"], &patched["version"]),
        (&json!(2), &json!(1))
    );
    let patch = json!({"metadata": {"plan": null, "since": "2026"}, "name": null});
    let mut patched = json_of(&ask(&started, "PATCH", "/globex", "", &patch), 200);
    assert_eq!(patched["metadata"], json!({"crm": "7", "since": "2026"}));
    assert_eq!(
        (&patched["name"], &patched["version"]),
        (&json!(""), &json!(2))
    );
    patched["version"] = 3.into();
    patched["metadata"] = json!({});
    let put = ask(
        &started,
        "PUT",
        "/globex",
        "if-match: \"2\"\r\n",
        &json!({}),
    );
    assert_eq!(json_of(&put, 200), patched);

    let names = |all: &[Value]| -> Vec<String> {
        let names = all
            .iter()
            .map(|one| one["tenant"].as_str().unwrap().to_owned());
        names.collect()
    };
    let all = listed(&started, 250);
    assert_eq!(names(&all), ["a&b=c", "acme", "globex"]);
    assert_eq!(listed(&started, 1), all);
    assert_eq!(
        (&all[1]["description"], &all[2]),
        (&json!("ours"), &patched)
    );
    // It is read back from the log as it is.
    started.stop();
    let started = server(dir.path());
    assert_eq!(listed(&started, 2), all);
    started.stop();
}

#[test]
fn a_tenant_with_endpoints_is_deleted_only_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    for number in 0..3 {
        server
            .api
            .endpoint("acme", &format!("https://example.com/{number}"));
    }
    server.api.endpoint("globex", "https://example.com/");
    let put = ask(&server, "PUT", "/acme", "", &json!({"name": "Acme"}));
    json_of(&put, 201);
    let delete = |query: &str, headers: &str| {
        ask(
            &server,
            "DELETE",
            &format!("/acme{query}"),
            headers,
            &Value::Null,
        )
    };
    let (_, detail) = delete("", "").problem(409, "tenant_not_empty");
    assert!(
        detail.contains("3 endpoints") && detail.contains("?endpoints=true"),
        "{detail}"
    );
    delete("?endpoints=true", "if-match: \"7\"\r\n").problem(409, "version_conflict");
    delete("?endpoints=perhaps", "").problem(400, "malformed");
    assert_eq!(shown(&server, "acme")["endpoints"], 3);

    let deleted = delete("?endpoints=true", "if-match: \"1\"\r\n");
    assert_eq!(deleted.status, 204, "{}", deleted.text);
    ask(&server, "GET", "/acme", "", &Value::Null).problem(404, "not_found");
    delete("?endpoints=true", "").problem(404, "not_found");
    assert_eq!(shown(&server, "globex")["endpoints"], 1);
    // Each of them is a change of its own, by one request.
    let trail = json_of(
        &server
            .api
            .call("GET", "/v1/audit?tenant=acme&limit=4", "", b""),
        200,
    );
    let trail = trail["data"].as_array().unwrap();
    let actions: Vec<_> = trail
        .iter()
        .map(|change| change["action"].as_str().unwrap())
        .collect();
    let endpoint = "endpoint.deleted";
    assert_eq!(actions, ["tenant.deleted", endpoint, endpoint, endpoint]);
    assert_eq!(trail[0]["subject"], "acme");
    assert!(
        trail
            .iter()
            .all(|change| change["request_id"] == trail[0]["request_id"])
    );
    // A tenant of that name is another one, and nobody takes it for the old one.
    let again = json_of(&ask(&server, "PUT", "/acme", "", &json!({})), 201);
    assert_eq!(again["version"], 3);
    // Endpoints alone can go as well.
    let gone = ask(
        &server,
        "DELETE",
        "/globex?endpoints=true",
        "",
        &Value::Null,
    );
    assert_eq!(gone.status, 204);
    server.stop();
}

#[test]
fn what_is_wrong_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let refused = |method: &str, path: &str, body: Value| ask(&server, method, path, "", &body);
    let long = "x".repeat(2_000);
    let pairs: serde_json::Map<_, _> = (0..51).map(|n| (n.to_string(), "".into())).collect();
    for (body, param) in [
        (json!({"name": long}), "name"),
        (json!({"description": long}), "description"),
        (json!({"metadata": {"": "x"}}), "metadata"),
        (json!({"metadata": {&long: "x"}}), "metadata"),
        (json!({"metadata": {"k": "x".repeat(9_000)}}), "metadata"),
        (json!({"metadata": pairs}), "metadata"),
        (json!({"version": "1"}), "version"),
    ] {
        let (named, detail) = refused("PUT", "/acme", body).problem(422, "invalid");
        assert_eq!(named, param);
        assert!(detail.contains("expected"), "{detail}");
    }
    for body in [
        json!({"colour": 1}),
        json!({"metadata": {"k": 1}}),
        json!([]),
    ] {
        refused("PUT", "/acme", body).problem(400, "malformed");
    }
    let (named, _) = refused("PUT", "/a%20b", json!({})).problem(422, "invalid");
    assert_eq!(named, "tenant");
    refused("PATCH", "/acme", json!({})).problem(404, "not_found");
    refused("PUT", "/acme", json!({"version": 4})).problem(404, "not_found");
    assert_eq!(refused("PUT", "/acme", json!({"version": 0})).status, 201);
    let late = refused("PUT", "/acme", json!({"version": 0, "name": "A"}));
    late.problem(409, "version_conflict");
    assert_eq!(json_of(&late, 409)["version"], 1);
    refused("GET", "?cursor=%2A", Value::Null).problem(422, "invalid");
    refused("GET", "?limit=0", Value::Null).problem(422, "invalid");
    refused("POST", "", json!({})).problem(405, "method_not_allowed");
    server.stop();
}

#[test]
fn a_tenant_sees_itself_and_changes_nothing_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (server, admin) = start(dir.path());
    let key = |scope: &str| {
        let asked = json!({"scopes": [scope], "tenant": "acme"});
        made(&server, &admin, "/v1/keys", &asked)
    };
    let own = key("admin");
    let asked = json!({"capabilities": ["endpoints"]});
    let portal = made(&server, &own, "/v1/tenants/acme/portal_sessions", &asked);
    for tenant in ["acme", "globex"] {
        let path = format!("/v1/tenants/{tenant}");
        json_of(
            &call(&server, &admin, "PUT", &path, &json!({"name": tenant})),
            201,
        );
    }
    for credential in [&own, &key("read"), &portal] {
        let ask =
            |method: &str, path: &str, body: Value| call(&server, credential, method, path, &body);
        let seen = json_of(&ask("GET", "/v1/tenants/acme", Value::Null), 200);
        assert_eq!(seen["name"], "acme");
        for method in ["PUT", "PATCH", "DELETE"] {
            let body = json!({"name": "x"});
            ask(method, "/v1/tenants/acme", body.clone()).problem(403, "forbidden");
            ask(method, "/v1/tenants/globex", body).problem(404, "not_found");
        }
        // Whether a foreign one is there does not show.
        for foreign in ["/v1/tenants/globex", "/v1/tenants/nowhere"] {
            let (_, detail) = ask("GET", foreign, Value::Null).problem(404, "not_found");
            assert_eq!(detail, "no such tenant");
        }
        ask("GET", "/v1/tenants", Value::Null).problem(403, "forbidden");
    }
    let publisher = made(&server, &admin, "/v1/keys", &json!({"scopes": ["publish"]}));
    call(&server, &publisher, "GET", "/v1/tenants", &Value::Null).problem(403, "forbidden");
    let reader = made(&server, &admin, "/v1/keys", &json!({"scopes": ["read"]}));
    assert_eq!(
        call(&server, &reader, "GET", "/v1/tenants", &Value::Null).status,
        200
    );
    call(&server, &reader, "PUT", "/v1/tenants/acme", &json!({})).problem(403, "forbidden");
    server.stop();
}

/// The program with these words, at that server; its standard output.
pub(crate) fn said(server: &Server, words: &[&str]) -> String {
    let address = format!("http://{}", server.api.0);
    let output = posthaste(&[words, &["--server", &address]].concat())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let why = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{words:?}: {why}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_command_line_says_and_shows_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    server.api.endpoint("acme", "https://example.com/");
    let put = ["tenants", "put", "acme", "--name", "Acme Inc."];
    let options = ["--description", "who pays", "--metadata", "plan=gold"];
    let table = said(&server, &[&put[..], &options].concat());
    assert!(
        table.starts_with("tenant  name       endpoints  enabled  created"),
        "{table}"
    );
    assert!(
        table.contains("acme    Acme Inc.  1          1        20"),
        "{table}"
    );
    let shown = said(&server, &["tenants", "show", "acme"]);
    assert!(
        shown.contains("\nwho pays\n") && shown.contains("plan      gold"),
        "{shown}"
    );

    let file = dir.path().join("globex.json");
    std::fs::write(&file, r#"{"name": "Globex", "version": 0}"#).unwrap();
    let file = file.to_str().unwrap();
    said(&server, &["tenants", "put", "globex", "--file", file]);
    let listed: Value =
        serde_json::from_str(&said(&server, &["tenants", "list", "--json"])).unwrap();
    assert_eq!(listed["data"].as_array().unwrap().len(), 2);
    assert_eq!(said(&server, &["tenants", "list"]).lines().count(), 3);
    let address = format!("http://{}", server.api.0);
    let refused = |words: &[&str], code, why: &[&str]| {
        Refused::from(&[words, &["--server", &address]].concat()).expect(code, why);
    };
    refused(
        &["tenants", "put", "globex", "--file", file],
        1,
        &["409", "its version is 1"],
    );
    refused(&["tenants", "delete", "acme"], 1, &["409", "1 endpoints"]);
    refused(
        &["tenants", "put", "acme", "--file", "nowhere"],
        1,
        &["--file nowhere"],
    );
    assert_eq!(
        said(&server, &["tenants", "delete", "acme", "--endpoints"]),
        "deleted acme\n"
    );
    refused(&["tenants", "show", "acme"], 1, &["404", "no such tenant"]);
    server.stop();
}
