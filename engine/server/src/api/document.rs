//! What the API says of itself: an OpenAPI 3.1 document, made from the routes.
//!
//! A route comes in by `Routes` alone, and with it its description: one that
//! nobody described does not compile, and none is described that is not there.
//! What all routes have in common is not said at each: what the parts of a path
//! mean (`SEGMENTS`), which key a call needs (`auth::needed`), and which
//! problems everybody can meet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::http::Method;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem, Paths};
use utoipa::openapi::schema::{
    ArrayItems, KnownFormat, Object, Schema, SchemaFormat, SchemaType, Type,
};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    Components, Header, Info, OpenApi, OpenApiBuilder, Ref, RefOr, Required, Response,
};
use utoipa::{PartialSchema as _, ToSchema as _};
use utoipa_axum::router::UtoipaMethodRouter;

use super::Api;
use super::auth::{self, REQUEST_ID};
use super::idempotency;
use super::problem;
use super::version::{API_VERSION, VERSION};

pub(super) mod changes;
pub(super) mod codes;
pub(super) mod page;
pub(super) mod values;

use codes::{
    Forbidden, ForeignOrigin, InProgress, Invalid, Malformed, Misdirected, NotFound,
    PayloadTooLarge, Problems, TokenExpired, Unauthorized, Unavailable,
};

/// The one way to prove who calls.
const BEARER: &str = "bearer";

/// Groups of routes, in the order they are shown.
const TAGS: [(&str, &str); 12] = [
    (
        "Events",
        "Events in by HTTP, where they do not come from Kafka; and look at them.",
    ),
    (
        "Tenants",
        "Owners of endpoints and events: what is said of them.",
    ),
    (
        "Event types",
        "What events mean, and what their bodies look like.",
    ),
    ("Endpoints", "Where a tenant's events go, and how."),
    ("Secrets", "What deliveries are signed with."),
    (
        "Deliveries",
        "Why an event did not arrive: deliveries and their attempts, as far as the log holds them.",
    ),
    ("Filters", "Try a filter before an endpoint has it."),
    (
        "Dead letters",
        "What was given up: look at it, and bring it again.",
    ),
    (
        "Operations",
        "What endpoints' owners are asked for: replays, redrives, cancellations.",
    ),
    ("Access", "API keys, portal tokens, and who changed what."),
    (
        "Keys for receivers",
        "What receivers verify signatures with.",
    ),
    (
        "Instance",
        "One instance: its health, its metrics, and this description.",
    ),
];

/// A part of paths.
struct Segment {
    name: &'static str,
    says: &'static str,
    schema: fn() -> Object,
}

const fn part(name: &'static str, says: &'static str) -> Segment {
    Segment {
        name,
        says,
        schema: values::segment,
    }
}

/// What the parts of paths mean.
const SEGMENTS: [Segment; 9] = [
    Segment {
        name: "tenant",
        says: "A tenant: visible ASCII without `/`, 1 to 128 bytes.",
        schema: values::tenant,
    },
    part(
        "event_type",
        "An event type: visible ASCII, 1 to 256 bytes.",
    ),
    part("endpoint", "An endpoint's id, or its uid."),
    part("event", "An event's id, the `webhook-id`."),
    part("operation", "An operation's id."),
    part("delivery", "A delivery's id."),
    part("attempt", "An attempt's id."),
    part("secret", "A secret's id."),
    part("key", "An API key's id."),
];

const DESCRIPTION: &str = "\
Posthaste delivers domain events as signed webhooks.

Bodies are JSON, durations texts such as `15s`, times UTC such as `2026-01-31T08:00:00Z`. \
What goes wrong is answered as `application/problem+json` (RFC 9457) with a stable `code`; with \
`param` where one field is at fault. Every answer carries a `request-id`, which logs and the \
audit carry too. Any path can be answered 405 `method_not_allowed`, and 400 `unknown_version` where \
`webhook-api-version` asks for another version than answers name in that header.

With `auth = \"keys\"` in `[api]` a call needs `Authorization: Bearer`, with an API key or a \
portal token; each route says for what. On a loopback address, by default, no call needs one.";

/// What an idempotency key does, but for events.
const REPEATED: &str = "\
A request that is repeated with its key within 24 h is answered as it was, whichever instance it comes \
to; with another path, body or `if-match` it is refused.";

/// Routes, each with what is said of it.
#[derive(Default)]
pub(super) struct Routes {
    router: Router<Arc<Api>>,
    paths: Paths,
    schemas: BTreeMap<String, RefOr<Schema>>,
}

impl Routes {
    /// … and this one: what `routes!` makes of the handlers of one path.
    pub(super) fn with(mut self, route: UtoipaMethodRouter<Arc<Api>>) -> Self {
        let (schemas, paths, handlers) = route;
        let named: Vec<_> = paths.paths.keys().collect();
        // Otherwise each would answer at the other's path too, which nothing says.
        assert_eq!(named.len(), 1, "handlers of one route name one path");
        for (path, item) in paths.paths {
            #[expect(clippy::disallowed_methods, reason = "here they are described")]
            let router = self.router.route(&path, handlers.clone());
            self.router = router;
            self.paths.paths.insert(path, item);
        }
        for (name, schema) in schemas {
            let before = self.schemas.insert(name.clone(), schema.clone());
            // One name in the document is one type.
            assert!(
                before.is_none_or(|before| before == schema),
                "two are `{name}`"
            );
        }
        self
    }

    /// What answers.
    pub(super) fn into_router(self) -> Router<Arc<Api>> {
        self.router
    }

    /// What is said.
    fn into_document(mut self) -> OpenApi {
        let mut problems = Problems::default();
        for (path, item) in &mut self.paths.paths {
            for (method, operation) in operations(item) {
                finish(operation, &method, path, &mut problems);
            }
        }
        let mut components = Components::new();
        components.schemas = self.schemas;
        let problem = problem::Body::name().into_owned();
        components.schemas.insert(problem, problem::Body::schema());
        for schema in components.schemas.values_mut() {
            amend(schema);
        }
        components.responses = problems.into_components();
        components.security_schemes.insert(
            BEARER.to_owned(),
            SecurityScheme::Http(
                HttpBuilder::new()
                    .scheme(HttpAuthScheme::Bearer)
                    .description(Some("An API key (`pk_…`) or a portal token (`pt_…`)."))
                    .build(),
            )
            .into(),
        );
        let mut info = Info::new("Posthaste", env!("CARGO_PKG_VERSION"));
        info.description = Some(DESCRIPTION.to_owned());
        OpenApiBuilder::new()
            .info(info)
            .tags(Some(TAGS.map(|(name, says)| {
                TagBuilder::new().name(name).description(Some(says)).build()
            })))
            .paths(self.paths)
            .components(Some(components))
            .build()
    }
}

/// The document, as it is served and committed.
pub fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let mut text = serde_json::to_string_pretty(&document()).unwrap_or_default();
        text.push('\n');
        text
    });
    &TEXT
}

/// The document of all routes.
fn document() -> OpenApi {
    super::described().into_document()
}

/// The operations of a path.
fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    let all = [
        (Method::GET, item.get.as_mut()),
        (Method::PUT, item.put.as_mut()),
        (Method::POST, item.post.as_mut()),
        (Method::DELETE, item.delete.as_mut()),
        (Method::PATCH, item.patch.as_mut()),
    ];
    all.into_iter()
        .filter_map(|(method, operation)| Some((method, operation?)))
}

/// Adds what is not said at each route.
fn finish(operation: &mut Operation, method: &Method, path: &str, problems: &mut Problems) {
    let segments: Vec<_> = segments(path).map(|name| RefOr::T(segment(name))).collect();
    let mut known = BTreeSet::from([ForeignOrigin::CODE, Misdirected::CODE]);
    if !segments.is_empty() {
        known.extend([Malformed::CODE, NotFound::CODE]);
        let said = operation.parameters.take().unwrap_or_default();
        operation.parameters = Some(segments.into_iter().chain(said).collect());
    }
    if idempotency::is_for(method, path) {
        let key = values::idempotency_key(REPEATED);
        operation
            .parameters
            .get_or_insert_default()
            .push(key.into());
        known.extend([InProgress::CODE, Invalid::CODE, Unavailable::CODE]);
    }
    for parameter in operation.parameters.iter_mut().flatten() {
        describe(parameter);
    }
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        // Where any bytes will do, none will.
        if body.content.contains_key("*/*") {
            body.required = Some(Required::False);
        }
        known.extend([Malformed::CODE, PayloadTooLarge::CODE]);
    }
    if operation.parameters.is_some() {
        known.insert(Malformed::CODE);
    }
    if let Some(need) = auth::needed(method, path) {
        known.extend([Unauthorized::CODE, TokenExpired::CODE, Forbidden::CODE]);
        let none: [&str; 0] = [];
        operation.security = Some(vec![SecurityRequirement::new(BEARER, none)]);
        let said = operation.description.take().filter(|said| !said.is_empty());
        let wanted = format!("Needs {}.", need.wanted());
        let all = said.into_iter().chain([wanted]).collect::<Vec<_>>();
        operation.description = Some(all.join("\n\n"));
    }
    problems.gather(&mut operation.responses, known);
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(response) = response {
            signed(response);
        }
    }
}

/// Of a parameter whose schema a function makes, only that is described.
fn describe(parameter: &mut RefOr<Parameter>) {
    if let RefOr::T(parameter) = parameter
        && parameter.description.is_none()
        && let Some(RefOr::T(Schema::Object(schema))) = &mut parameter.schema
    {
        parameter.description = schema.description.take();
    }
}

/// Says what utoipa does not see: what is read into a `u32` can be more than its
/// `int32`; and answers, which, unlike bodies, do not forbid other members, have
/// `null` where there is nothing.
fn amend(schema: &mut RefOr<Schema>) {
    let RefOr::T(schema) = schema else {
        return;
    };
    match schema {
        Schema::Object(object) => {
            let signed = SchemaFormat::KnownFormat(KnownFormat::Int32);
            if object.minimum.is_some() && object.format == Some(signed) {
                object.format = None;
                object.maximum.get_or_insert(u32::MAX.into());
            }
            if object.additional_properties.is_none() {
                let written = object.properties.iter().filter(|(_, is)| can_be_null(is));
                let written: Vec<_> = written.map(|(name, _)| name.clone()).collect();
                object.required.extend(written);
                object.required.sort_unstable();
                object.required.dedup();
            }
            object.properties.values_mut().for_each(amend);
        }
        Schema::Array(array) => {
            if let ArrayItems::RefOrSchema(items) = &mut array.items {
                amend(items);
            }
        }
        Schema::OneOf(one) => one.items.iter_mut().for_each(amend),
        Schema::AllOf(all) => all.items.iter_mut().for_each(amend),
        _ => {}
    }
}

fn can_be_null(schema: &RefOr<Schema>) -> bool {
    let RefOr::T(schema) = schema else {
        return false;
    };
    match schema {
        Schema::Object(object) => match &object.schema_type {
            SchemaType::Type(one) => *one == Type::Null,
            SchemaType::Array(several) => several.contains(&Type::Null),
            SchemaType::AnyValue => false,
        },
        Schema::OneOf(one) => one.items.iter().any(can_be_null),
        _ => false,
    }
}

/// The names in a path, in their order.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

/// A part of a path. One that [`SEGMENTS`] does not know has no description,
/// which a test does not let pass.
fn segment(name: &str) -> Parameter {
    let known = SEGMENTS.iter().find(|known| known.name == name);
    let schema = known.map_or(values::segment as fn() -> Object, |known| known.schema);
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(known.map(|known| known.says))
        .schema(Some(schema()))
        .build()
}

/// Every answer is signed with its request's id.
fn signed(response: &mut Response) {
    let id = values::text(
        "^req_[0-9A-HJKMNP-TV-Z]{26}$",
        "req_01M8A8SGRT3TMFMM1F4JJZHFBM",
    );
    let mut header = Header::new(RefOr::T(Schema::Object(id)));
    header.description = Some("Names the request.".to_owned());
    response
        .headers
        .insert(REQUEST_ID.to_owned(), header.into());
    let version = values::text(&format!("^{VERSION}$"), VERSION);
    let mut header = Header::new(RefOr::T(Schema::Object(version)));
    header.description = Some("The version of the API.".to_owned());
    response
        .headers
        .insert(API_VERSION.to_owned(), header.into());
}

/// A reference to what stands in the components.
fn response_of(name: &str) -> RefOr<Response> {
    RefOr::Ref(Ref::from_response_name(name))
}

#[cfg(test)]
mod tests;
