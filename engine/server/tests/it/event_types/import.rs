//! Event types out of an OpenAPI document.

use serde_json::{Value, json};

use super::{ask, publish, server};
use crate::access::{call, json_of, made, start};
use crate::refusals::program::{Refused, Server};
use crate::tenants::said;

fn document() -> Value {
    let body = |media: Value| {
        let content = json!({"application/json": media});
        json!({"post": {"summary": "Paid.", "requestBody": {"content": content}}})
    };
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Shop", "version": "1"},
        "components": {"schemas": {"Invoice": {
            "type": "object", "required": ["amount"], "properties": {"amount": {"type": "integer"}},
        }}},
        "webhooks": {
            "invoice.paid": body(json!({
                "schema": {"$ref": "#/components/schemas/Invoice"}, "example": {"amount": 7},
            })),
            "invoice.lost": {"post": {"deprecated": true}},
            "no name": {"post": {}},
            "import": {"post": {}},
            "invoice.wrong": body(json!({
                "schema": {"$ref": "#/components/schemas/Invoice"}, "example": {"amount": "much"},
            })),
            "invoice.nowhere": body(json!({"schema": {"$ref": "other.json#/Invoice"}})),
        },
    })
}

fn import(server: &Server, document: &Value, dry_run: bool) -> Value {
    let body = json!({"openapi": document, "dry_run": dry_run}).to_string();
    json_of(&ask(server, "POST", "/import", &body), 200)
}

fn counts(imported: &Value) -> [u64; 4] {
    ["created", "replaced", "unchanged", "refused"].map(|name| imported[name].as_u64().unwrap())
}

#[test]
fn each_webhook_becomes_a_type_or_is_refused_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let tried = import(&server, &document(), true);
    assert_eq!(
        (&tried["dry_run"], counts(&tried)),
        (&json!(true), [2, 0, 0, 4])
    );
    let listed = json_of(&ask(&server, "GET", "", ""), 200);
    assert_eq!(listed["data"], json!([]), "nothing is written");

    let mut imported = import(&server, &document(), false);
    for (name, problem) in [
        ("no name", "name: "),
        ("import", "name: `import` is a route's name"),
        ("invoice.wrong", "examples: example 1: at `/amount`"),
        ("invoice.nowhere", "schema: `other.json#/Invoice`: expected"),
    ] {
        let all = imported["data"].as_array().unwrap();
        let one = all.iter().find(|one| one["name"] == name).unwrap();
        assert_eq!(one["outcome"], "refused");
        let said = one["problem"].as_str().unwrap();
        assert!(said.starts_with(problem), "{said}");
    }
    imported["dry_run"] = true.into();
    assert_eq!(imported, tried, "as it was foreseen");
    let paid = json_of(&ask(&server, "GET", "/invoice.paid", ""), 200);
    assert_eq!(
        paid["schema"],
        json!({
            "$ref": "#/$defs/Invoice",
            "$defs": {"Invoice": document()["components"]["schemas"]["Invoice"]},
        })
    );
    assert_eq!(
        (&paid["description"], &paid["examples"]),
        (&json!("Paid."), &json!([{"amount": 7}]))
    );
    let lost = json_of(&ask(&server, "GET", "/invoice.lost", ""), 200);
    assert_eq!(
        (&lost["deprecated"], &lost["schema"]),
        (&json!(true), &Value::Null)
    );

    // Its schema is enforced from now on, and no import changes that.
    let enforce = r#"{"enforce": true}"#;
    assert_eq!(ask(&server, "PATCH", "/invoice.paid", enforce).status, 200);
    let mut changed = document();
    changed["webhooks"]["invoice.paid"]["post"]["summary"] = "All paid.".into();
    for dry_run in [true, false] {
        assert_eq!(counts(&import(&server, &changed, dry_run)), [0, 1, 1, 4]);
    }
    assert_eq!(counts(&import(&server, &changed, false)), [0, 0, 2, 4]);
    let headers = "webhook-type: invoice.paid\r\n";
    publish(&server, headers, "{}").problem(422, "schema_not_satisfied");
    assert_eq!(publish(&server, headers, r#"{"amount": 7}"#).status, 202);
    changed["webhooks"] = json!({"invoice.paid": {"post": {}}});
    let refused = import(&server, &changed, false);
    let problem = refused["data"][0]["problem"].as_str().unwrap();
    assert!(
        problem.starts_with("enforce: there is no schema"),
        "{problem}"
    );

    for (body, status, code) in [
        (r#"{"openapi": {"openapi": "3.0.3"}}"#, 422, "invalid"),
        (r#"{"openapi": {"openapi": "3.1.0"}}"#, 422, "invalid"),
        (r#"{"openapi": {}, "dryrun": true}"#, 400, "malformed"),
        (r#"{"dry_run": true}"#, 400, "malformed"),
    ] {
        ask(&server, "POST", "/import", body).problem(status, code);
    }
    server.stop();
}

#[test]
fn only_admin_imports() {
    let dir = tempfile::tempdir().unwrap();
    let (server, admin) = start(dir.path());
    let body = json!({"openapi": document(), "dry_run": true});
    let path = "/v1/event_types/import";
    for scope in ["read", "publish"] {
        let key = made(&server, &admin, "/v1/keys", &json!({"scopes": [scope]}));
        call(&server, &key, "POST", path, &body).problem(403, "forbidden");
    }
    let own = json!({"scopes": ["admin"], "tenant": "acme"});
    let own = made(&server, &admin, "/v1/keys", &own);
    call(&server, &own, "POST", path, &body).problem(403, "forbidden");
    assert_eq!(call(&server, &admin, "POST", path, &body).status, 200);
    server.stop();
}

#[test]
fn the_command_line_imports_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let file = dir.path().join("openapi.json");
    let mut good = document();
    let webhooks = good["webhooks"].as_object_mut().unwrap();
    webhooks.retain(|name, _| ["invoice.paid", "invoice.lost"].contains(&name.as_str()));
    std::fs::write(&file, good.to_string()).unwrap();
    let words = ["event-types", "import", file.to_str().unwrap()];
    let tried = said(&server, &[&words[..], &["--dry-run"]].concat());
    assert!(tried.starts_with("type          would be"), "{tried}");
    assert!(tried.contains("invoice.paid  created"), "{tried}");
    let done = said(&server, &words);
    assert!(done.contains("invoice.lost  created"), "{done}");
    let done: Value =
        serde_json::from_str(&said(&server, &[&words[..], &["--json"]].concat())).unwrap();
    assert_eq!(counts(&done), [0, 0, 2, 0]);
    let address = format!("http://{}", server.api.0);
    std::fs::write(&file, "openapi: 3.1.0").unwrap();
    let words = [&words[..], &["--server", &address]].concat();
    Refused::from(&words).expect(2, &["openapi.json: not JSON"]);
    std::fs::write(&file, document().to_string()).unwrap();
    let output = crate::refusals::program::posthaste(&words)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(
        told[0].contains("invoice.wrong    refused    examples: example 1"),
        "{}",
        told[0]
    );
    assert!(told[1].contains("refused event types: 4"), "{}", told[1]);
    server.stop();
}
