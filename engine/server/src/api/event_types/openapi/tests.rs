use serde_json::{Value, json};

use super::*;
use crate::control::Schema;

/// A document with this one webhook, and these components.
fn document(webhook: &Value, components: &Value) -> String {
    let webhooks = json!({ "invoice.paid": webhook });
    json!({"openapi": "3.1.0", "webhooks": webhooks, "components": components}).to_string()
}

fn post(media: &Value) -> Value {
    json!({"post": {"requestBody": {"content": {"application/json": media}}}})
}

/// A document whose one webhook has a body of this schema.
fn with_schema(schema: &str, components: &str) -> String {
    format!(
        r#"{{"openapi": "3.1.1", "components": {components}, "webhooks": {{"a": {{"post":
        {{"requestBody": {{"content": {{"application/json": {{"schema": {schema}}}}}}}}}}}}}}}"#
    )
}

fn schema(schema: &str, components: &str) -> Result<String, String> {
    let json = with_schema(schema, components);
    let declared = Document::read(&json).unwrap().declared(0);
    let declared = declared.map_err(|problem| problem.to_line())?;
    Ok(declared.written.schema.unwrap().get().to_owned())
}

fn declared(json: &str) -> Result<Declared, String> {
    let document = Document::read(json).map_err(|problem| problem.to_line())?;
    document.declared(0).map_err(|problem| problem.to_line())
}

#[test]
fn what_a_webhook_says_is_read() {
    let components = json!({
        "pathItems": {"Paid": {
            "summary": "of the item",
            "post": {
                "summary": "of the operation", "deprecated": true,
                "requestBody": {"$ref": "#/components/requestBodies/Paid"},
            },
        }},
        "requestBodies": {"Paid": {"content": {
            "text/plain": {"schema": false},
            "application/json": {
                "schema": {"type": "object"},
                "examples": {
                    "small": {"value": {"amount": 1}},
                    "large": {"$ref": "#/components/examples/Large"},
                    "elsewhere": {"externalValue": "https://example.com/large.json"},
                },
            },
        }}},
        "examples": {"Large": {"summary": "much", "value": {"amount": 9}}},
    });
    let webhook = json!({"$ref": "#/components/pathItems/Paid"});
    let read = declared(&document(&webhook, &components)).unwrap();
    assert_eq!(
        (&*read.description, read.deprecated),
        ("of the operation", true)
    );
    assert_eq!(read.written.schema.unwrap().get(), r#"{"type":"object"}"#);
    let mut examples: Vec<_> = read.written.examples.unwrap();
    examples.sort_by_key(|example| example.get().to_owned());
    let examples: Vec<_> = examples.iter().map(|example| example.get()).collect();
    assert_eq!(examples, [r#"{"amount":1}"#, r#"{"amount":9}"#]);

    let webhook = json!({"description": "of the item", "post": {}});
    let read = declared(&document(&webhook, &json!({}))).unwrap();
    assert_eq!(
        (&*read.description, read.deprecated),
        ("of the item", false)
    );
    assert!(read.written.schema.is_none());
    let one = post(&json!({"example": [7]}));
    let read = declared(&document(&one, &json!({}))).unwrap();
    assert_eq!(read.written.examples.unwrap()[0].get(), "[7]");
}

#[test]
fn a_schema_takes_what_it_refers_to_with_it() {
    let components = r##"{"schemas": {
        "Invoice": {"properties": {
            "lines": {"items": {"$ref": "#/components/schemas/Line"}},
            "payer": {"$ref": "#/components/schemas/Person"}}},
        "Line": {"maximum": 123456789012345678901234567890,
            "oneOf": [true, {"$ref": "#/components/schemas/Invoice"}]},
        "Person": {"type": "string"},
        "Other": {}}}"##;
    let whole = schema(r##"{"$ref": "#/components/schemas/Invoice"}"##, components).unwrap();
    let wanted = [
        r##"{"$ref":"#/$defs/Invoice","$defs":{"Invoice":{"properties":{"##,
        r##""lines":{"items":{"$ref":"#/$defs/Line"}},"payer":{"$ref":"#/$defs/Person"}}},"##,
        r##""Line":{"maximum":123456789012345678901234567890,"##,
        r##""oneOf":[true,{"$ref":"#/$defs/Invoice"}]},"Person":{"type":"string"}}}"##,
    ];
    assert_eq!(whole, wanted.concat());
    let compiled = Schema::compile(&whole).unwrap();
    assert!(compiled.judge(br#"{"payer": "me"}"#).is_ok());
    assert!(compiled.judge(br#"{"payer": 7}"#).is_err());
    // A part of a component, and two of one last name beside its own.
    let components = r##"{"schemas": {
        "A": {"properties": {"b/c": {"title": "one"}}, "allOf": [{"title": "two"}]},
        "B": {"properties": {"b/c": {"title": "three"}}}}}"##;
    let several = r##"{"$defs": {"b_1c": {"title": "own"}}, "anyOf": [
        {"$ref": "#/components/schemas/A/properties/b~1c"},
        {"$ref": "#/components/schemas/A/allOf/0"},
        {"$ref": "#/components/schemas/B/properties/b~1c"},
        {"$ref": "#/components/schemas/A/properties/b~1c"}]}"##;
    let whole: Value = serde_json::from_str(&schema(several, components).unwrap()).unwrap();
    let titles = json!({
        "b_1c": {"title": "own"}, "b_1c_2": {"title": "one"}, "0": {"title": "two"},
        "b_1c_3": {"title": "three"},
    });
    assert_eq!(whole["$defs"], titles);
    let leads: Vec<_> = whole["anyOf"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["$ref"])
        .collect();
    assert_eq!(
        leads,
        [
            "#/$defs/b_1c_2",
            "#/$defs/0",
            "#/$defs/b_1c_3",
            "#/$defs/b_1c_2"
        ]
    );
}

#[test]
fn what_only_looks_like_a_reference_stays() {
    let nowhere = r##"{"$ref":"#/components/schemas/Nowhere"}"##;
    for same in [
        format!(
            r#"{{"const":{nowhere},"default":{nowhere},"enum":[{nowhere}],"examples":[{nowhere}]}}"#
        ),
        r#"{"properties":{"$ref":{"type":"string"},"const":{"minimum":1.10}}}"#.to_owned(),
        "true".to_owned(),
        "7".to_owned(),
        r#"{"items":7,"allOf":7,"properties":7,"$ref":7}"#.to_owned(),
    ] {
        assert_eq!(schema(&same, "{}"), Ok(same.clone()));
    }
    // … and where a schema is to stand, under whatever name, it is one.
    for keyword in [
        r#"{"properties":{"const":REF}}"#,
        r#"{"not":{"prefixItems":[true,REF]}}"#,
        r#"{"$defs":{"a":REF}}"#,
        r#"{"patternProperties":{"^a":{"if":REF}}}"#,
    ] {
        let refused = schema(&keyword.replace("REF", nowhere), "{}").unwrap_err();
        assert_eq!(
            refused,
            "schema: `#/components/schemas/Nowhere` leads nowhere"
        );
    }
}

#[test]
fn what_cannot_be_followed_is_refused() {
    let refused = |reference: &str| {
        let reference = json!({ "$ref": reference }).to_string();
        schema(&reference, r#"{"schemas": {"A": {"not": {}}}}"#).unwrap_err()
    };
    for foreign in [
        "https://example.com/a.json",
        "a.json#/components/schemas/A",
        "#",
        "#a",
        "#/$defs/a",
        "#/paths/~1a/post",
    ] {
        assert!(
            refused(foreign).ends_with("begins with `#/components/`"),
            "{foreign}"
        );
    }
    for nowhere in [
        "schemas/B",
        "schemas/A/allOf",
        "schemas/A/not/0",
        "schemas",
        "links/A",
    ] {
        let nowhere = format!("#/components/{nowhere}");
        assert!(refused(&nowhere).ends_with("leads nowhere"), "{nowhere}");
    }
    let components = json!({"pathItems": {
        "A": {"$ref": "#/components/pathItems/B"}, "B": {"$ref": "#/components/pathItems/A"},
    }});
    let webhook = json!({"$ref": "#/components/pathItems/A"});
    let said = declared(&document(&webhook, &components)).unwrap_err();
    assert_eq!(said, "webhooks: its references lead to each other");
    let said = declared(&document(&json!({"get": {}}), &json!({}))).unwrap_err();
    assert_eq!(said, "webhooks: expected `post`: it has none");
    let said = declared(&document(&json!({"post": 7}), &json!({}))).unwrap_err();
    assert!(
        said.starts_with("post: invalid type: integer `7`"),
        "{said}"
    );
}

#[test]
fn what_is_too_deep_or_too_large_ends() {
    let deep = |levels: usize| format!("{}{{}}{}", r#"{"not":"#.repeat(levels), "}".repeat(levels));
    assert!(schema(&deep(IMPORT_DEPTH_MAX), "{}").is_ok());
    for levels in [IMPORT_DEPTH_MAX + 1, 1_000] {
        let said = schema(&deep(levels), "{}").unwrap_err();
        assert!(said.contains("at most 128 schemas in each other"), "{said}");
    }
    assert!(schema(&deep(100_000), "{}").is_err());
    let title = "x".repeat(SCHEMA_BYTES_MAX / 4);
    let part =
        |next: usize| format!(r##"{{"title": "{title}", "$ref": "#/components/schemas/{next}"}}"##);
    let parts: Vec<_> = (0..9)
        .map(|number| format!(r#""{number}": {}"#, part(number + 1)))
        .collect();
    let components = format!(r#"{{"schemas": {{{}}}}}"#, parts.join(","));
    let said = schema(&part(0), &components).unwrap_err();
    assert!(said.contains("more than 65536 bytes"), "{said}");
    // Each level is looked through again.
    let filler = "x".repeat(IMPORT_SCAN_BYTES_MAX / 64);
    let said = schema(
        &deep(100).replacen("{}", &format!(r#"{{"title":"{filler}"}}"#), 1),
        "{}",
    );
    assert!(said.unwrap_err().contains("too large"));
}

#[test]
fn a_document_that_is_none_is_refused() {
    let many: Vec<_> = (0..=IMPORT_TYPES_MAX)
        .map(|n| format!(r#""{n}": {{}}"#))
        .collect();
    for (json, wanted) in [
        ("[]".to_owned(), "struct Document"),
        ("{}".to_owned(), "missing field `openapi`"),
        (
            r#"{"openapi": "3.0.3", "paths": {}}"#.to_owned(),
            "is `3.0.3`: expected 3.1",
        ),
        (r#"{"openapi": "3.1.0"}"#.to_owned(), "expected `webhooks`"),
        (
            r#"{"openapi": "3.1.0", "webhooks": {}}"#.to_owned(),
            "expected `webhooks`",
        ),
        (
            r#"{"openapi": "3.1.0", "webhooks": 7}"#.to_owned(),
            "expected an object",
        ),
        (
            format!(
                r#"{{"openapi": "3.1.0", "webhooks": {{{}}}}}"#,
                many.join(",")
            ),
            "501 webhooks: expected at most 500",
        ),
    ] {
        let said = Document::read(&json).unwrap_err().to_line();
        assert!(
            said.starts_with("openapi: ") && said.contains(wanted),
            "{said}"
        );
    }
}
