use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

const COMMITTED: &str = include_str!("../../../openapi.json");

#[test]
fn what_is_committed_is_what_the_code_says() {
    let same = text() == COMMITTED;
    assert!(
        same,
        "engine/server/openapi.json is not what the code says: read what changes, then renew it \
         with `cargo run -- openapi > engine/server/openapi.json`"
    );
}

/// Each operation, with where it stands.
fn operations_of(document: &Value) -> Vec<(String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        let item = item.as_object().unwrap();
        item.iter()
            .map(move |(method, operation)| (format!("{method} {path}"), operation.clone()))
    });
    operations.collect()
}

fn json() -> Value {
    serde_json::from_str(text()).unwrap()
}

#[test]
fn every_operation_is_described() {
    let document = json();
    let tags: Vec<_> = TAGS.iter().map(|(name, _)| *name).collect();
    let mut ids = BTreeSet::new();
    for (place, operation) in operations_of(&document) {
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id.to_owned()), "{place}: `{id}` is another's");
        let tag = operation["tags"][0].as_str().unwrap();
        assert!(tags.contains(&tag), "{place}: TAGS has no `{tag}`");
        assert!(operation["summary"].is_string(), "{place}");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let name = &parameter["name"];
            assert!(
                parameter["description"].is_string(),
                "{place}: {name} says nothing"
            );
        }
        let answers = operation["responses"].as_object().unwrap();
        assert!(
            answers.keys().any(|status| status.starts_with('2')),
            "{place}"
        );
        for (status, answer) in answers {
            assert_eq!(
                status.parse::<u16>().map(|s| s / 100 < 6),
                Ok(true),
                "{place}: {status}"
            );
            let says = answer["description"].as_str();
            assert!(
                says.is_some_and(|s| !s.is_empty()) || answer["$ref"].is_string(),
                "{place}"
            );
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let document = json();
    let mut open = vec![&document];
    let mut found = 0;
    while let Some(value) = open.pop() {
        if let Some(Value::String(to)) = value.get("$ref") {
            found += 1;
            let there = document.pointer(to.strip_prefix('#').unwrap());
            assert!(there.is_some(), "{to}");
        }
        match value {
            Value::Object(members) => open.extend(members.values()),
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    assert!(found > 50, "{found} references");
}

#[test]
fn what_needs_a_key_says_so() {
    for (place, operation) in operations_of(&json()) {
        let (_, path) = place.split_once(' ').unwrap();
        let is_open = ["/healthz", "/readyz", "/metrics", "/docs"].contains(&path)
            || path.ends_with("/openapi.json")
            || path == "/v1/egress_ips"
            || path.starts_with("/.well-known/");
        assert_eq!(operation["security"].is_null(), is_open, "{place}");
        assert_eq!(operation["responses"]["401"].is_null(), is_open, "{place}");
    }
}
