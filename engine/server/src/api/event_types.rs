//! Event types: what they mean, and what their events look like.
//!
//! A schema and examples are kept as they are written, so that no number in
//! them is rounded. A PATCH that names one replaces all of it: merged, a schema
//! could not say `null`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use posthaste_core::event::check_event_type;
use posthaste_core::records::{EventType, Versioned};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema as Described};

use super::Api;
use super::auth::Caller;
use super::body::{Whole, read_json};
use super::catalog::{answer, change, delete as delete_record, same_name};
use super::document::changes::{Patch, Replacement};
use super::document::codes;
use super::document::values::{self, IfMatch};
use super::endpoints::{based, merge, nothing};
use super::page::{Page, Paging};
use super::problem::{Asked, Problem, Segments};
use crate::config::format_rfc3339;
use crate::control::Schema;

pub(super) mod import;
mod openapi;

/// All that can be said of one.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[schema(as = EventTypeSettings)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// What its events mean, at most 1024 bytes.
    #[serde(default)]
    description: String,
    /// JSON Schema 2020-12 of a body as it is delivered, at most 64 KiB. It refers
    /// only to parts of itself; a PATCH replaces all of it.
    #[serde(default, serialize_with = "nothing")]
    #[schema(value_type = Option<serde_json::Value>)]
    schema: Option<Box<RawValue>>,
    /// Bodies that satisfy the schema: at most 10 of 8 KiB.
    #[serde(default, serialize_with = "nothing")]
    #[schema(value_type = Option<Vec<serde_json::Value>>)]
    examples: Option<Vec<Box<RawValue>>>,
    /// Not to be built upon any more. It says so and does nothing.
    #[serde(default)]
    deprecated: bool,
    /// Whether an event that comes by HTTP and does not satisfy the schema is
    /// refused. Events that come by Kafka never are.
    #[serde(default)]
    enforce: bool,
}

type EventTypeReplacement = Replacement<Settings>;
type EventTypePatch = Patch<Settings>;
type EventTypes = Page<Listed>;

/// A new one, as it is described: what can be said, and its name.
enum NewEventType {}

impl utoipa::PartialSchema for NewEventType {
    fn schema() -> RefOr<Described> {
        let RefOr::T(Described::Object(mut object)) = Settings::schema() else {
            return Settings::schema();
        };
        let name = ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(
                "The type its events carry: visible ASCII, 1 to 256 bytes.",
            ))
            .examples(["invoice.paid"]);
        object.properties.insert("name".to_owned(), name.into());
        object.required.push("name".to_owned());
        RefOr::T(Described::Object(object))
    }
}

impl ToSchema for NewEventType {}

/// What stays as it is written.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
struct Written {
    schema: Option<Box<RawValue>>,
    examples: Option<Vec<Box<RawValue>>>,
}

/// An event type without its schema and examples.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ListedEventType)]
struct Listed {
    /// The type its events carry.
    name: String,
    /// What its events mean.
    description: String,
    /// Not to be built upon any more.
    deprecated: bool,
    /// Whether events that do not satisfy the schema are refused.
    enforce: bool,
    #[schema(value_type = values::Time)]
    created_at: String,
    version: u64,
}

/// An event type, and what its events look like.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventType)]
struct Shown {
    #[serde(flatten)]
    listed: Listed,
    #[schema(value_type = Option<serde_json::Value>, required = true)]
    schema: Option<Box<RawValue>>,
    #[schema(value_type = Vec<serde_json::Value>)]
    examples: Vec<Box<RawValue>>,
}

fn listed(event_type: &Versioned<EventType>) -> Listed {
    let Versioned { record, version } = event_type;
    Listed {
        name: record.name.clone(),
        description: record.description.clone(),
        deprecated: record.deprecated,
        enforce: record.enforce,
        created_at: format_rfc3339(record.created_at),
        version: *version,
    }
}

fn shown(event_type: &Versioned<EventType>) -> Shown {
    let written = Written::from(&*event_type.record);
    Shown {
        listed: listed(event_type),
        schema: written.schema,
        examples: written.examples.unwrap_or_default(),
    }
}

fn absent() -> Problem {
    Problem::not_found("no such event type")
}

/// Event types by name, without their schemas and examples.
#[utoipa::path(
    get,
    path = "/v1/event_types",
    operation_id = "list_event_types",
    tag = "Event types",
    params(Paging),
    responses(
        (status = 200, description = "A page of them.", body = EventTypes),
        codes::Invalid,
    ),
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Asked(paging): Asked<Paging>,
) -> Result<Response, Problem> {
    let catalog = api.endpoints.catalog();
    let page = paging.by_name(catalog.event_types().iter(), |one| listed(&one))?;
    Ok(Json(page).into_response())
}

/// An event type.
#[utoipa::path(
    get,
    path = "/v1/event_types/{event_type}",
    operation_id = "get_event_type",
    tag = "Event types",
    responses(
        (
            status = 200,
            description = "The event type.",
            body = Shown,
            headers(("etag" = String, description = "Its version, for `if-match`.")),
        ),
    ),
)]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    Segments(name): Segments<String>,
) -> Result<Response, Problem> {
    let catalog = api.endpoints.catalog();
    let found = catalog.event_types().get(&name).ok_or_else(absent)?;
    Ok(answer(false, found.version, &shown(&found)))
}

/// Makes an event type.
#[utoipa::path(
    post,
    path = "/v1/event_types",
    operation_id = "create_event_type",
    tag = "Event types",
    request_body = NewEventType,
    responses(
        (
            status = 201,
            description = "The event type.",
            body = Shown,
            headers(("etag" = String, description = "Its version, for `if-match`.")),
        ),
        codes::EventTypeExists,
        codes::TooManyEventTypes,
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    let (mut settings, written) = read(&body)?;
    let name = settings.remove("name");
    let name = name.as_ref().and_then(Value::as_str);
    let name = name.ok_or_else(|| Problem::invalid("name", "expected the type's name"))?;
    check_name(name)?;
    let exists = || {
        let detail = format!("there is an event type `{name}`: PUT and PATCH change it");
        Problem::conflict("event_type_exists", detail)
    };
    if api.endpoints.catalog().event_types().get(name).is_some() {
        return Err(exists());
    }
    let settings = Value::Object(settings);
    let by = caller.by();
    let made = change(&api, name, Some(0), &by, |present| {
        said(&api, name, present, settings.clone(), &written)
    });
    let (made, _) = made.await.map_err(|problem| match problem.code() {
        // Another instance was quicker.
        "version_conflict" => exists(),
        _ => problem,
    })?;
    Ok(answer(true, made.version, &shown(&made)))
}

/// Replaces all that is said of an event type, or says it for the first time.
#[utoipa::path(
    put,
    path = "/v1/event_types/{event_type}",
    operation_id = "replace_event_type",
    tag = "Event types",
    params(IfMatch),
    request_body = EventTypeReplacement,
    responses(
        (
            status = 200,
            description = "The event type as it is now.",
            body = Shown,
            headers(("etag" = String, description = "Its version, for `if-match`.")),
        ),
        (
            status = 201,
            description = "What is said of it for the first time.",
            body = Shown,
            headers(("etag" = String, description = "Its version, for `if-match`.")),
        ),
        codes::TooManyEventTypes,
        codes::VersionConflict,
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub(super) async fn replace(
    State(api): State<Arc<Api>>,
    Segments(name): Segments<String>,
    caller: Caller,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    check_name(&name)?;
    let (mut settings, written) = read(&body)?;
    let based = based(&headers, Some(&mut settings))?;
    same_name(&mut settings, &name)?;
    let settings = Value::Object(settings);
    let by = caller.by();
    let changed = change(&api, &name, based, &by, |present| {
        said(&api, &name, present, settings.clone(), &written)
    });
    let (changed, is_new) = changed.await?;
    Ok(answer(is_new, changed.version, &shown(&changed)))
}

/// Changes what is said of an event type, where the body names it.
///
/// JSON merge patch (RFC 7396): `null` takes a member back. A schema and examples
/// are replaced as a whole.
#[utoipa::path(
    patch,
    path = "/v1/event_types/{event_type}",
    operation_id = "change_event_type",
    tag = "Event types",
    params(IfMatch),
    request_body = EventTypePatch,
    responses(
        (
            status = 200,
            description = "The event type as it is now.",
            body = Shown,
            headers(("etag" = String, description = "Its version, for `if-match`.")),
        ),
        codes::VersionConflict,
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub(super) async fn patch(
    State(api): State<Arc<Api>>,
    Segments(name): Segments<String>,
    caller: Caller,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    let whole: Map<String, Value> = read_json(&body)?;
    let named = |member: &str| whole.contains_key(member);
    let (mut patch, written) = read(&body)?;
    let based = based(&headers, Some(&mut patch))?;
    let patch = Value::Object(patch);
    let by = caller.by();
    let changed = change(&api, &name, based, &by, |present: Option<&EventType>| {
        let present = present.ok_or_else(absent)?;
        let mut settings = serde_json::to_value(Settings::from(present))
            .map_err(|error| Problem::malformed(error.to_string()))?;
        merge(&mut settings, &patch);
        let mut stays = Written::from(present);
        if named("schema") {
            stays.schema.clone_from(&written.schema);
        }
        if named("examples") {
            stays.examples.clone_from(&written.examples);
        }
        said(&api, &name, Some(present), settings, &stays)
    });
    let (changed, _) = changed.await?;
    Ok(answer(false, changed.version, &shown(&changed)))
}

/// Forgets what was said of an event type; its events are delivered as before.
#[utoipa::path(
    delete,
    path = "/v1/event_types/{event_type}",
    operation_id = "delete_event_type",
    tag = "Event types",
    params(IfMatch),
    responses(
        (status = 204, description = "It is forgotten."),
        codes::VersionConflict,
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    Segments(name): Segments<String>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let based = based(&headers, None)?;
    if api.endpoints.catalog().event_types().get(&name).is_none() {
        return Err(absent());
    }
    delete_record::<EventType>(&api, &name, based, &caller.by()).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn check_name(name: &str) -> Result<(), Problem> {
    if name == "import" {
        let kept = "`import` is a route's name: expected another";
        return Err(Problem::invalid("name", kept));
    }
    check_event_type(name).map_err(|error| Problem::invalid("name", error.to_string()))
}

/// The members of a body, without those that stay as they are written.
fn read(body: &[u8]) -> Result<(Map<String, Value>, Written), Problem> {
    let mut members: Map<String, Value> = read_json(body)?;
    members.remove("schema");
    members.remove("examples");
    Ok((members, read_json(body)?))
}

fn said(
    api: &Api,
    name: &str,
    present: Option<&EventType>,
    settings: Value,
    written: &Written,
) -> Result<EventType, Problem> {
    let read = serde_path_to_error::deserialize(settings);
    let settings: Settings = read.map_err(|error| Problem::wrong_json(&error))?;
    let text = |json: &RawValue| json.get().to_owned();
    let examples = written.examples.iter().flatten();
    let record = EventType {
        name: name.to_owned(),
        description: settings.description,
        schema: written.schema.as_deref().map(text),
        examples: examples.map(|example| text(example)).collect(),
        deprecated: settings.deprecated,
        enforce: settings.enforce,
        created_at: present.map_or_else(|| api.clock.now(), |present| present.created_at),
    };
    record.check()?;
    check_schema(&record)?;
    Ok(record)
}

/// Whether its schema is one, and its examples satisfy it.
fn check_schema(event_type: &EventType) -> Result<(), Problem> {
    let Some(text) = &event_type.schema else {
        return Ok(());
    };
    let schema =
        Schema::compile(text).map_err(|flaw| Problem::invalid("schema", flaw.to_string()))?;
    for (number, example) in event_type.examples.iter().enumerate() {
        if let Err(flaws) = schema.judge(example.as_bytes()) {
            let flaws: Vec<_> = flaws.iter().map(ToString::to_string).collect();
            let detail = format!("example {}: {}", number + 1, flaws.join("; "));
            return Err(Problem::invalid("examples", detail));
        }
    }
    Ok(())
}

impl From<&EventType> for Settings {
    fn from(event_type: &EventType) -> Self {
        Self {
            description: event_type.description.clone(),
            schema: None,
            examples: None,
            deprecated: event_type.deprecated,
            enforce: event_type.enforce,
        }
    }
}

impl From<&EventType> for Written {
    fn from(event_type: &EventType) -> Self {
        let raw = |text: &String| RawValue::from_string(text.clone()).ok();
        Self {
            schema: event_type.schema.as_ref().and_then(raw),
            examples: Some(event_type.examples.iter().filter_map(raw).collect()),
        }
    }
}
