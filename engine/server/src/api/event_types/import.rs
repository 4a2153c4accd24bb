//! Many event types at once, out of a description of webhooks.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use posthaste_core::records::{EventType, Versioned};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::openapi::{Declared, Document};
use super::{check_name, said};
use crate::api::Api;
use crate::api::auth::Caller;
use crate::api::body::{Whole, read_json};
use crate::api::catalog::{change, check_room};
use crate::api::document::codes;
use crate::api::problem::Problem;
use crate::control::By;

/// What event types are read from.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = EventTypeImport)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct Import {
    /// An OpenAPI 3.1 document with at most 500 `webhooks`. Of each its name is a
    /// type; description or summary, `deprecated`, and of the `application/json`
    /// body of its `post` schema and examples are what is said of it.
    #[schema(value_type = Object)]
    openapi: Box<RawValue>,
    /// Whether only to say what would be done.
    #[serde(default)]
    dry_run: bool,
}

/// What came of an import.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = EventTypesImported)]
pub(in crate::api) struct Imported {
    /// Whether this is only what would have been done.
    dry_run: bool,
    created: usize,
    replaced: usize,
    unchanged: usize,
    refused: usize,
    /// The types, in the order of the document.
    data: Vec<Done>,
}

/// What came of one type.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventTypeImported)]
struct Done {
    name: String,
    outcome: Outcome,
    /// What is wrong with one that is refused, and where: `null` for others.
    #[schema(required = true)]
    problem: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = EventTypeImportOutcome)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Created,
    Replaced,
    Unchanged,
    Refused,
}

impl Imported {
    fn count(&mut self, outcome: Outcome) {
        let count = match outcome {
            Outcome::Created => &mut self.created,
            Outcome::Replaced => &mut self.replaced,
            Outcome::Unchanged => &mut self.unchanged,
            Outcome::Refused => &mut self.refused,
        };
        *count += 1;
    }
}

/// Says of event types what an OpenAPI document says of its webhooks.
///
/// Each type is judged and replaced by itself, as by PUT, and one that is refused
/// keeps nothing from the others; whether its schema is enforced stays as it is.
/// References into the document's components become part of the schema. Repeated,
/// an import changes nothing.
#[utoipa::path(
    post,
    path = "/v1/event_types/import",
    operation_id = "import_event_types",
    tag = "Event types",
    request_body = Import,
    responses(
        (status = 200, description = "What came of each type.", body = Imported),
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub(in crate::api) async fn import(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Whole(body): Whole,
) -> Result<Json<Imported>, Problem> {
    let asked: Import = read_json(&body)?;
    let document = Document::read(asked.openapi.get())?;
    let by = caller.by();
    let mut imported = Imported {
        dry_run: asked.dry_run,
        ..Imported::default()
    };
    for (place, name) in document.names().enumerate() {
        let declared = check_name(name).and_then(|()| document.declared(place));
        let came = match declared {
            Err(problem) => Err(problem),
            Ok(declared) if asked.dry_run => would(&api, name, &declared, imported.created),
            Ok(declared) => put(&api, name, &declared, &by).await,
        };
        let (outcome, problem) = match came {
            Ok(outcome) => (outcome, None),
            Err(problem) if problem.code() == "unavailable" => {
                return Err(problem.with("what was written so far stays: repeat the import"));
            }
            Err(problem) => (Outcome::Refused, Some(problem.to_line())),
        };
        imported.count(outcome);
        imported.data.push(Done {
            name: name.to_owned(),
            outcome,
            problem,
        });
        // Judging schemas takes its time, which others want too.
        tokio::task::yield_now().await;
    }
    Ok(Json(imported))
}

fn wanted(
    api: &Api,
    name: &str,
    declared: &Declared,
    present: Option<&EventType>,
) -> Result<EventType, Problem> {
    let settings = json!({
        "description": declared.description,
        "deprecated": declared.deprecated,
        "enforce": present.is_some_and(|present| present.enforce),
    });
    said(api, name, present, settings, &declared.written)
}

/// What a type would come to, `created` new ones before it.
fn would(api: &Api, name: &str, declared: &Declared, created: usize) -> Result<Outcome, Problem> {
    let catalog = api.endpoints.catalog();
    let event_types = catalog.event_types();
    let present = event_types.get(name);
    let wanted = wanted(
        api,
        name,
        declared,
        present.as_ref().map(|one| &*one.record),
    )?;
    match present {
        Some(Versioned { record, .. }) if *record == wanted => Ok(Outcome::Unchanged),
        Some(_) => Ok(Outcome::Replaced),
        None => {
            check_room::<EventType>(event_types.len() + created)?;
            Ok(Outcome::Created)
        }
    }
}

async fn put(api: &Api, name: &str, declared: &Declared, by: &By) -> Result<Outcome, Problem> {
    let before = api.endpoints.catalog().event_types().version(name);
    let changed = change(api, name, None, by, |present| {
        wanted(api, name, declared, present)
    });
    let (stands, is_new) = changed.await?;
    Ok(match is_new {
        true => Outcome::Created,
        false if stands.version == before => Outcome::Unchanged,
        false => Outcome::Replaced,
    })
}
