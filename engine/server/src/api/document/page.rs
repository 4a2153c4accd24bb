//! The document as a page for people: made from it, with no script and nothing
//! from any other place.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::schema::{Components, Schema};
use utoipa::openapi::{OpenApi, RefOr, Required, Response};

use super::{document, operations};

const STYLE: &str = include_str!("page.css");

/// The page, and what a browser may do with it.
struct Page {
    html: String,
    policy: String,
}

static PAGE: LazyLock<Page> = LazyLock::new(|| {
    let style = BASE64.encode(Sha256::digest(STYLE));
    Page {
        html: page(document()).into_string(),
        policy: format!(
            "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'"
        ),
    }
});

/// This description, for people.
#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "get_description_page",
    tag = "Instance",
    responses((status = 200, description = "The page.", body = String, content_type = "text/html")),
)]
pub(in crate::api) async fn docs() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, PAGE.policy.as_str()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, PAGE.html.as_str())
}

fn page(mut document: OpenApi) -> Markup {
    let components = document.components.take().unwrap_or_default();
    let tags = document.tags.take().unwrap_or_default();
    let says = document.info.description.take().unwrap_or_default();
    let mut all = Vec::new();
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            all.push((method.to_string(), path.as_str(), &*operation));
        }
    }
    let of = |tag: &str| {
        let has = |operation: &Operation| operation.tags.iter().flatten().any(|one| one == tag);
        let chosen: Vec<_> = all.iter().filter(|(.., one)| has(one)).collect();
        chosen
    };
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Posthaste API" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                nav {
                    strong { "Posthaste API" }
                    @for tag in &tags { a href={ "#" (anchor(&tag.name)) } { (tag.name) } }
                    a href="#types" { "Types" }
                }
                main {
                    h1 { "Posthaste API " small { (document.info.version) } }
                    (text(&says))
                    p { a href="/v1/openapi.json" { "The same for programs" } " (OpenAPI 3.1)" }
                    @for tag in &tags {
                        section {
                            h2 id=(anchor(&tag.name)) { (tag.name) }
                            (text(tag.description.as_deref().unwrap_or_default()))
                            @for (method, path, operation) in of(&tag.name) {
                                (one(method, path, operation, &components))
                            }
                        }
                    }
                    section {
                        h2 id="types" { "Types" }
                        @for (name, schema) in &components.schemas { (named(name, schema)) }
                    }
                }
            }
        }
    }
}

/// An operation.
fn one(method: &str, path: &str, operation: &Operation, components: &Components) -> Markup {
    let id = operation.operation_id.as_deref().unwrap_or_default();
    html! {
        details.operation {
            summary {
                span.method.{ "is-" (method.to_lowercase()) } { (method) }
                code.path { (broken(path)) }
                span.summary { (inline(operation.summary.as_deref().unwrap_or_default())) }
            }
            div.body id=(id) {
                (text(operation.description.as_deref().unwrap_or_default()))
                (parameters(operation))
                (body(operation, components))
                h4 { "Answers" }
                table {
                    @for (status, response) in &operation.responses.responses {
                        (answer(status, response, components))
                    }
                }
            }
        }
    }
}

fn parameters(operation: &Operation) -> Markup {
    let all = operation.parameters.iter().flatten();
    let all: Vec<_> = all
        .filter_map(|parameter| match parameter {
            RefOr::T(parameter) => Some(parameter),
            RefOr::Ref(_) => None,
        })
        .collect();
    html! {
        @if !all.is_empty() {
            h4 { "Parameters" }
            table {
                @for parameter in all {
                    tr {
                        td {
                            code { (parameter.name) }
                            @if parameter.required == Required::True { (must()) }
                        }
                        td.kind { (place(&parameter.parameter_in)) ", " (kind(&value(&parameter.schema))) }
                        td { (text(parameter.description.as_deref().unwrap_or_default())) }
                    }
                }
            }
        }
    }
}

fn place(place: &ParameterIn) -> &'static str {
    match place {
        ParameterIn::Path => "path",
        ParameterIn::Query => "query",
        ParameterIn::Header => "header",
        _ => "elsewhere",
    }
}

fn body(operation: &Operation, components: &Components) -> Markup {
    let Some(RefOr::T(body)) = &operation.request_body else {
        return html! {};
    };
    html! {
        h4 { "Body" }
        (text(body.description.as_deref().unwrap_or_default()))
        @for (media, content) in &body.content {
            @if let RefOr::T(content) = content {
                @let schema = value(&content.schema);
                p { code { (media) } ": " (kind(&schema)) }
                @if let Some(example) = example(&schema, components) { pre tabindex="0" { (example) } }
            }
        }
    }
}

/// The first example of what a schema refers to.
fn example(schema: &Value, components: &Components) -> Option<String> {
    let found = refers(schema).and_then(|name| components.schemas.get(name))?;
    let found = value(found);
    let example = found.pointer("/examples/0").or(found.get("example"))?;
    serde_json::to_string_pretty(example).ok()
}

fn answer(status: &str, response: &RefOr<Response>, components: &Components) -> Markup {
    let response = match response {
        RefOr::T(response) => Some(response),
        RefOr::Ref(to) => {
            let name = to.ref_location.rsplit('/').next().unwrap_or_default();
            match components.responses.get(name) {
                Some(RefOr::T(response)) => Some(response),
                _ => None,
            }
        }
    };
    html! {
        @if let Some(response) = response {
            tr {
                td { code { (status) } }
                td {
                    (text(&response.description))
                    @if status.starts_with('2') {
                        @for (media, content) in &response.content {
                            @if let RefOr::T(content) = content {
                                p { code { (media) } ": " (kind(&value(&content.schema))) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A type of the components.
fn named(name: &str, schema: &RefOr<Schema>) -> Markup {
    html! {
        details {
            summary { code { (name) } }
            div.body id={ "type-" (name) } {
                @if let RefOr::T(schema) = schema { (members(schema)) }
            }
        }
    }
}

fn members(schema: &Schema) -> Markup {
    let whole = value(schema);
    let says = |schema: &Value| text(schema["description"].as_str().unwrap_or_default());
    html! {
        (says(&whole))
        @match schema {
            Schema::Object(object) if !object.properties.is_empty() => {
                table {
                    @for (name, member) in &object.properties {
                        @let member = value(member);
                        tr {
                            td {
                                code { (name) }
                                @if object.required.contains(name) { (must()) }
                            }
                            td.kind { (kind(&member)) }
                            td { (says(&member)) (says(&member["oneOf"][0])) }
                        }
                    }
                }
            }
            Schema::AllOf(all) => @for item in &all.items {
                @match item {
                    RefOr::T(item) => (members(item)),
                    RefOr::Ref(_) => p { "All of " (kind(&value(item))) ", and:" },
                }
            },
            _ => p { (kind(&whole)) },
        }
        @if let Some(example) = whole.pointer("/examples/0").filter(|one| one.is_object()) {
            pre tabindex="0" { (serde_json::to_string_pretty(example).unwrap_or_default()) }
        }
    }
}

fn must() -> Markup {
    html! { sup.must title="required" { "*" } }
}

/// What a schema lets be, in a few words.
fn kind(schema: &Value) -> Markup {
    let list = |key: &str| schema[key].as_array().into_iter().flatten();
    html! {
        @if let Some(name) = refers(schema) {
            a href={ "#type-" (name) } { (name) }
        } @else if schema["enum"].is_array() {
            @for (at, word) in list("enum").enumerate() {
                @if at > 0 { " | " }
                code { (word.as_str().unwrap_or_default()) }
            }
        } @else if let Some(items) = schema.get("items") {
            "list of " (kind(items))
        } @else if schema["oneOf"].is_array() {
            @for (at, one) in list("oneOf").enumerate() {
                @if at > 0 { " or " }
                (kind(one))
            }
        } @else if let Some(one) = schema["type"].as_str() {
            (one) (bounds(schema))
        } @else if schema["type"].is_array() {
            @for (at, one) in list("type").enumerate() {
                @if at > 0 { " or " }
                (one.as_str().unwrap_or_default())
            }
            (bounds(schema))
        } @else {
            "any JSON"
        }
    }
}

/// What a number or a text must keep to.
fn bounds(schema: &Value) -> Markup {
    let shown = |key: &str| schema.get(key).map(ToString::to_string);
    html! {
        @if let (Some(least), Some(most)) = (shown("minimum"), shown("maximum")) {
            ", " (least) " to " (most)
        }
        @if let Some(most) = shown("maxLength") { ", at most " (most) " characters" }
        @if let Some(default) = shown("default") { ", default " code { (default) } }
        @if let Some(example) = schema.pointer("/examples/0").filter(|one| one.is_string()) {
            ", such as " code { (example.as_str().unwrap_or_default()) }
        }
    }
}

fn refers(schema: &Value) -> Option<&str> {
    schema["$ref"]
        .as_str()?
        .strip_prefix("#/components/schemas/")
}

fn value(part: &impl Serialize) -> Value {
    serde_json::to_value(part).unwrap_or_default()
}

fn anchor(name: &str) -> String {
    name.to_lowercase().replace(' ', "-")
}

/// A path that can be broken behind its slashes.
fn broken(path: &str) -> Markup {
    html! {
        @for part in path.split_inclusive('/') { (part) wbr; }
    }
}

/// Paragraphs, with `code` in them.
fn text(markdown: &str) -> Markup {
    html! {
        @for paragraph in markdown.split("\n\n").filter(|one| !one.is_empty()) {
            p { (inline(paragraph)) }
        }
    }
}

fn inline(text: &str) -> Markup {
    html! {
        @for (at, part) in text.split('`').enumerate() {
            @if at % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_every_operation_and_needs_nothing_else() {
        let document: Value = value(&document());
        let mut shown = 0;
        for item in document["paths"].as_object().unwrap().values() {
            for operation in item.as_object().unwrap().values() {
                let id = operation["operationId"].as_str().unwrap();
                assert!(PAGE.html.contains(&format!(r#"id="{id}""#)), "{id}");
                shown += 1;
            }
        }
        assert!(shown > 25, "{shown} operations");
        for other in [
            "src=",
            "url(",
            "@import",
            "<script",
            "<link",
            "style=",
            "href=\"http",
        ] {
            assert!(!PAGE.html.contains(other), "{other}");
        }
        for link in PAGE.html.split("href=\"#").skip(1) {
            let (to, _) = link.split_once('"').unwrap();
            assert!(
                PAGE.html.contains(&format!(r#"id="{to}""#)),
                "#{to} leads nowhere"
            );
        }
    }

    #[test]
    fn what_is_said_is_text() {
        assert_eq!(
            text("a `<b>` & c\n\nd").into_string(),
            "<p>a <code>&lt;b&gt;</code> &amp; c</p><p>d</p>"
        );
    }
}
