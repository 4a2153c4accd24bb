//! Changing what is said of tenants, event types and retry policies, by the rules
//! that endpoints are changed by: a caller may name the version a change is based
//! on, and 0 says that there is none yet.

use axum::Json;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use posthaste_core::limits::{DECLARED_TYPES_MAX, RETRY_POLICIES_MAX, TENANTS_MAX};
use posthaste_core::records::{EventType, RecordProblem, RetryPolicy, Tenant, Versioned};
use serde::Serialize;
use serde_json::{Map, Value};

use super::Api;
use super::problem::Problem;
use crate::control::{By, Catalog, CommandError, Kind};

/// A kind of record as the API has it.
pub(super) trait Resource: Kind {
    /// So many there are at most.
    const MOST: usize;
    /// The code of one too many.
    const TOO_MANY: &'static str;
}

impl Resource for Tenant {
    const MOST: usize = TENANTS_MAX;
    const TOO_MANY: &'static str = "too_many_tenants";
}

impl Resource for EventType {
    const MOST: usize = DECLARED_TYPES_MAX;
    const TOO_MANY: &'static str = "too_many_event_types";
}

impl Resource for RetryPolicy {
    const MOST: usize = RETRY_POLICIES_MAX;
    const TOO_MANY: &'static str = "too_many_retry_policies";
}

/// Makes or changes the record of a name; once more if it was changed meanwhile
/// and nothing says what the change is based on. Answers what stands, and
/// whether it is new.
pub(super) async fn change<T: Resource>(
    api: &Api,
    name: &str,
    based: Option<u64>,
    by: &By,
    edit: impl Fn(Option<&T>) -> Result<T, Problem>,
) -> Result<(Versioned<T>, bool), Problem> {
    let mut again = based.is_none();
    loop {
        let catalog = api.endpoints.catalog();
        let present = present::<T>(&catalog, name, based)?;
        let changed = edit(present.as_ref().map(|present| &*present.record))?;
        let is_new = present.is_none();
        match present {
            Some(present) if *present.record == changed => return Ok((present, false)),
            None => check_room::<T>(T::among(&catalog).len())?,
            Some(_) => {}
        }
        let version = T::among(&catalog).version(name);
        match api.endpoints.put_record(changed, version, by).await {
            Err(CommandError::Conflict { .. }) if again => again = false,
            put => return put.map(|put| (put, is_new)).map_err(Into::into),
        }
    }
}

/// Takes the name out of a body that may say it beside the path.
pub(super) fn same_name(settings: &mut Map<String, Value>, name: &str) -> Result<(), Problem> {
    if settings.remove("name").is_some_and(|named| named != *name) {
        let wanted = "expected that of the path, or none: a name is not changed";
        return Err(Problem::invalid("name", wanted));
    }
    Ok(())
}

/// Whether beside so many there may be one more.
pub(super) fn check_room<T: Resource>(count: usize) -> Result<(), Problem> {
    if count < T::MOST {
        return Ok(());
    }
    let most = format!("there are {}: delete some first", T::MOST);
    Err(Problem::conflict(T::TOO_MANY, most))
}

/// Deletes a record that is there; once more if it was changed meanwhile and
/// nothing says what the deletion is based on.
pub(super) async fn delete<T: Resource>(
    api: &Api,
    name: &str,
    based: Option<u64>,
    by: &By,
) -> Result<(), Problem> {
    let mut again = based.is_none();
    loop {
        let catalog = api.endpoints.catalog();
        let Some(present) = present::<T>(&catalog, name, based)? else {
            return Err(Problem::not_found("it is deleted"));
        };
        match api
            .endpoints
            .delete_record::<T>(name, present.version, by)
            .await
        {
            Err(CommandError::Conflict { .. }) if again => again = false,
            deleted => return deleted.map_err(Into::into),
        }
    }
}

/// The record of a name, if it is of the version a change is based on.
pub(super) fn present<T: Resource>(
    catalog: &Catalog,
    name: &str,
    based: Option<u64>,
) -> Result<Option<Versioned<T>>, Problem> {
    let present = T::among(catalog).get(name);
    match (based, &present) {
        (Some(based), Some(present)) if based != present.version => {
            Err(Problem::version_conflict(present.version))
        }
        (Some(based), None) if based != 0 => Err(Problem::not_found("it is deleted")),
        _ => Ok(present),
    }
}

/// A record as it is shown, with its version.
pub(super) fn answer(is_new: bool, version: u64, shown: &impl Serialize) -> Response {
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let tag: [(HeaderName, String); 1] = [(header::ETAG, format!("\"{version}\""))];
    (status, tag, Json(shown)).into_response()
}

impl From<RecordProblem> for Problem {
    fn from(error: RecordProblem) -> Self {
        Self::invalid(error.param, error.problem)
    }
}
