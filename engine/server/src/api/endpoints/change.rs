//! Changing endpoints: replace, patch, delete.
//!
//! A caller may name the version a change is based on, by `If-Match` or by
//! `version` in the body; if it is not the present one the answer is 409
//! `version_conflict`. Otherwise the change is made to what is there, and once
//! more if somebody else was quicker.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use posthaste_core::endpoint::Endpoint;
use posthaste_core::event::check_tenant;
use posthaste_core::id::EndpointId;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema as _, ToSchema};

use super::{
    Created, NewEndpoint, Recovery, Shown, check_uid, filled, filter_of, find, headers, make,
    shown, texts,
};
use crate::api::Api;
use crate::api::auth::Caller;
use crate::api::body::{Whole, read_json};
use crate::api::document::codes;
use crate::api::document::values::{IfMatch, nullable};
use crate::api::problem::{Problem, Segments};
use crate::api::signing::Signing;
use crate::control::CommandError;

/// The version of an endpoint, as `If-Match` takes it.
pub(super) fn tag(endpoint: &Endpoint) -> [(HeaderName, String); 1] {
    [(header::ETAG, format!("\"{}\"", endpoint.version))]
}

/// An endpoint as it stands, with its version.
pub(super) fn answer(endpoint: &Endpoint) -> Response {
    (tag(endpoint), Json(shown(endpoint))).into_response()
}

/// Changes what the body names; `null` brings a member's default back (RFC
/// 7396).
#[utoipa::path(
    patch,
    path = "/v1/tenants/{tenant}/endpoints/{endpoint}",
    operation_id = "change_endpoint",
    tag = "Endpoints",
    params(IfMatch),
    request_body = EndpointPatch,
    responses(
        (
            status = 200,
            description = "The endpoint as it is now.",
            body = Shown,
            headers(("etag" = String, description = "Its version, for `if-match`.")),
        ),
        codes::UidTaken,
        codes::VersionConflict,
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub async fn patch(
    State(api): State<Arc<Api>>,
    Segments((tenant, name)): Segments<(String, String)>,
    caller: Caller,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    let mut patch: Map<String, Value> = read_json(&body)?;
    let based = based(&headers, Some(&mut patch))?;
    let filter = match patch.remove("filter") {
        Some(_) => Some(read_json::<Written>(&body)?.filter),
        None => None,
    };
    let patch = Value::Object(patch);
    let place = Place::new(&api, &tenant, &name, based);
    let changed = place
        .change(&caller, |present| {
            let mut settings = NewEndpoint::from(present);
            settings.headers = headers::open(&api, present)?;
            let mut settings = serde_json::to_value(settings)
                .map_err(|error| Problem::malformed(error.to_string()))?;
            merge(&mut settings, &patch);
            let filter = filter.clone().unwrap_or_else(|| filter_of(present));
            remade(&api, present, settings, filter)
        })
        .await?;
    Ok(answer(&changed))
}

/// Replaces all that can be changed, or makes an endpoint of that uid.
#[utoipa::path(
    put,
    path = "/v1/tenants/{tenant}/endpoints/{endpoint}",
    operation_id = "replace_endpoint",
    tag = "Endpoints",
    params(IfMatch),
    request_body = EndpointReplacement,
    responses(
        (
            status = 200,
            description = "The endpoint as it is now.",
            body = Shown,
            headers(("etag" = String, description = "Its version, for `if-match`.")),
        ),
        (
            status = 201,
            description = "A new endpoint of that uid, and its secret.",
            body = Created<'static>,
            headers(("etag" = String, description = "Its version, for `if-match`.")),
        ),
        codes::UidTaken,
        codes::TooManyEndpoints,
        codes::VersionConflict,
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub async fn replace(
    State(api): State<Arc<Api>>,
    Segments((tenant, name)): Segments<(String, String)>,
    caller: Caller,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    check_tenant(&tenant)?;
    let mut settings: Map<String, Value> = read_json(&body)?;
    let based = based(&headers, Some(&mut settings))?;
    settings.remove("filter");
    let filter = read_json::<Written>(&body)?.filter;
    let by_id = name.parse::<EndpointId>().is_ok();
    if !by_id {
        let uid = settings.entry("uid").or_insert_with(|| name.clone().into());
        if uid.as_str() != Some(name.as_str()) {
            let wanted = "expected that of the path, or none; PATCH changes it";
            return Err(Problem::invalid("uid", wanted));
        }
    }
    let settings = Value::Object(settings);
    let is_new = !by_id && based.is_none() && find(&api, &tenant, &name).is_err();
    if is_new {
        return make(&api, tenant, settings_of(settings, filter)?, &caller).await;
    }
    let place = Place::new(&api, &tenant, &name, based);
    let changed = place
        .change(&caller, |present| {
            remade(&api, present, settings.clone(), filter.clone())
        })
        .await?;
    Ok(answer(&changed))
}

/// Deletes an endpoint, by id or uid. What waits for it is cancelled.
#[utoipa::path(
    delete,
    path = "/v1/tenants/{tenant}/endpoints/{endpoint}",
    operation_id = "delete_endpoint",
    tag = "Endpoints",
    params(IfMatch),
    responses(
        (status = 204, description = "It is deleted."),
        codes::VersionConflict,
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub async fn delete(
    State(api): State<Arc<Api>>,
    Segments((tenant, name)): Segments<(String, String)>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let place = Place::named(&api, &tenant, &name, &headers)?;
    let by = caller.by();
    let mut again = place.based.is_none();
    loop {
        let present = place.present()?;
        match api.endpoints.delete(&present, &by).await {
            Err(CommandError::Conflict { .. }) if again => again = false,
            deleted => return deleted.map(|()| StatusCode::NO_CONTENT).map_err(Into::into),
        }
    }
}

/// [`NewEndpoint`] as PUT takes it: with `version`.
enum EndpointReplacement {}

/// [`NewEndpoint`] as PATCH takes it: each member may be absent, or `null`.
enum EndpointPatch {}

impl utoipa::PartialSchema for EndpointReplacement {
    fn schema() -> RefOr<Schema> {
        changing(false)
    }
}

impl ToSchema for EndpointReplacement {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        NewEndpoint::schemas(schemas);
    }
}

impl utoipa::PartialSchema for EndpointPatch {
    fn schema() -> RefOr<Schema> {
        changing(true)
    }
}

impl ToSchema for EndpointPatch {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        NewEndpoint::schemas(schemas);
    }
}

fn changing(is_patch: bool) -> RefOr<Schema> {
    let RefOr::T(Schema::Object(mut object)) = NewEndpoint::schema() else {
        return NewEndpoint::schema();
    };
    object.description = None;
    if is_patch {
        object.required.clear();
        for schema in object.properties.values_mut() {
            *schema = nullable(schema.clone());
        }
    }
    let version = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(0))
        .description(Some("The version it is based on, instead of `if-match`."));
    let version = Schema::Object(version.build());
    object
        .properties
        .insert("version".to_owned(), version.into());
    RefOr::T(Schema::Object(object))
}

/// What of a body must stay as it is written: a number read into a [`Value`] is
/// rounded.
#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    filter: Option<Box<RawValue>>,
}

/// An endpoint to be changed, and the version a change is based on.
pub(in crate::api) struct Place<'a> {
    api: &'a Api,
    tenant: &'a str,
    name: &'a str,
    based: Option<u64>,
}

impl<'a> Place<'a> {
    /// Of a request whose body names no version.
    pub(in crate::api) fn named(
        api: &'a Api,
        tenant: &'a str,
        name: &'a str,
        headers: &HeaderMap,
    ) -> Result<Self, Problem> {
        Ok(Self::new(api, tenant, name, based(headers, None)?))
    }

    fn new(api: &'a Api, tenant: &'a str, name: &'a str, based: Option<u64>) -> Self {
        Self {
            api,
            tenant,
            name,
            based,
        }
    }

    pub(super) fn present(&self) -> Result<Arc<Endpoint>, Problem> {
        let present = find(self.api, self.tenant, self.name)?;
        match self.based {
            Some(based) if based != present.version => {
                Err(Problem::version_conflict(present.version))
            }
            _ => Ok(present),
        }
    }

    /// Changes it; once more if it was changed meanwhile and nothing says what
    /// the change is based on.
    pub(in crate::api) async fn change(
        &self,
        caller: &Caller,
        edit: impl Fn(&Endpoint) -> Result<Endpoint, Problem>,
    ) -> Result<Endpoint, Problem> {
        let by = caller.by();
        let mut again = self.based.is_none();
        loop {
            let present = self.present()?;
            let changed = edit(&present)?;
            if changed.to_proto() == present.to_proto() {
                return Ok(changed);
            }
            match self.api.endpoints.put(&changed, &by).await {
                Err(CommandError::Conflict { .. }) if again => again = false,
                put => return put.map_err(Into::into),
            }
        }
    }
}

/// The version a change is based on: `If-Match: "3"`, or `version` in the body,
/// which is taken out of it.
fn based(
    headers: &HeaderMap,
    body: Option<&mut Map<String, Value>>,
) -> Result<Option<u64>, Problem> {
    let in_body = body.and_then(|body| body.remove("version"));
    if let Some(version) = in_body {
        let version = version.as_u64();
        let wanted = || Problem::invalid("version", "expected the `version` of an answer");
        return version.map(Some).ok_or_else(wanted);
    }
    let Some(tag) = headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    let tag = tag.to_str().unwrap_or_default().trim();
    if tag == "*" {
        return Ok(None);
    }
    let quoted = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
    let wanted = || {
        Problem::invalid(
            "if-match",
            "expected the `etag` of an answer, such as \"3\"",
        )
    };
    let version = quoted.and_then(|version| version.parse().ok());
    version.map(Some).ok_or_else(wanted)
}

/// An endpoint with these settings instead of its own. Its secrets stay.
fn remade(
    api: &Api,
    present: &Endpoint,
    settings: Value,
    filter: Option<Box<RawValue>>,
) -> Result<Endpoint, Problem> {
    let mut new = settings_of(settings, filter)?;
    if new.secret.take().is_some() {
        let wanted = "it is not changed like this: expected none; `secrets/rotate` takes it";
        return Err(Problem::invalid("secret", wanted));
    }
    if new.signing.take().is_some_and(|one| !one.is_of(present)) {
        let wanted = "it is not changed like this: expected the endpoint's own, or none; \
                      `secrets/rotate` takes another algorithm";
        return Err(Problem::invalid("signing", wanted));
    }
    if new.start_at.take().is_some() {
        let wanted = "only a new endpoint has it: expected none; a replay brings past events";
        return Err(Problem::invalid("start_at", wanted));
    }
    check_uid(api, &present.tenant, &new.uid, Some(present.id))?;
    filled(api, present.to_proto(), Some(present), new)
}

fn settings_of(settings: Value, filter: Option<Box<RawValue>>) -> Result<NewEndpoint, Problem> {
    let read = serde_path_to_error::deserialize(settings);
    let new: NewEndpoint = read.map_err(|error| Problem::wrong_json(&error))?;
    Ok(NewEndpoint { filter, ..new })
}

/// JSON merge patch (RFC 7396, section 2).
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else {
        return;
    };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name).or_insert(Value::Null), value);
        }
    }
}

impl From<&Endpoint> for NewEndpoint {
    /// All members but the headers, which are sealed, so that a patch leaves
    /// alone what it does not name.
    fn from(endpoint: &Endpoint) -> Self {
        let millis = |span: std::time::Duration| Some(format!("{}ms", span.as_millis()));
        Self {
            url: endpoint.url.clone(),
            uid: endpoint.uid.clone(),
            description: endpoint.description.clone(),
            event_types: texts(&endpoint.event_types),
            exclude_event_types: texts(&endpoint.exclude_event_types),
            event_headers: endpoint.event_headers,
            filter: None,
            secret: None,
            signing: Some(Signing::from(endpoint)),
            start_at: None,
            headers: BTreeMap::new(),
            max_in_flight: endpoint.max_in_flight,
            timeout: millis(endpoint.timeout),
            connect_timeout: millis(endpoint.connect_timeout),
            http2: endpoint.http2,
            retry_policy: endpoint.retry_policy.clone(),
            fail_fast_4xx: endpoint.fail_fast_4xx,
            owned: endpoint.owned,
            rate_per_second: endpoint.rate_per_second,
            ordered: endpoint.ordered,
            recovery: match endpoint.fifo {
                true => Recovery::Fifo,
                false => Recovery::LiveFirst,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of RFC 7396, appendix A.
    #[test]
    fn a_merge_is_the_one_of_the_rfc() {
        for (target, patch, wanted) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (
                r#"{"a":{"b":"c"}}"#,
                r#"{"a":{"b":"d","c":null}}"#,
                r#"{"a":{"b":"d"}}"#,
            ),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
            (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
            (r#"{"a":"foo"}"#, "null", "null"),
            (r#"{"a":"foo"}"#, r#""bar""#, r#""bar""#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
            ("[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ] {
            let json = |text| serde_json::from_str::<Value>(text).unwrap();
            let mut merged = json(target);
            merge(&mut merged, &json(patch));
            assert_eq!(merged, json(wanted), "{target} {patch}");
        }
    }
}
