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
use posthaste_core::endpoint::{Endpoint, Verify};
use posthaste_core::event::check_tenant;
use posthaste_core::id::EndpointId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::ages::{AutoDisable, max_age_of};
use super::{
    Created, NewEndpoint, Recovery, Shown, check_uid, filled, filter_of, find, headers, make,
    shown, texts,
};
use crate::api::Api;
use crate::api::auth::Caller;
use crate::api::body::{Whole, read_json};
use crate::api::document::changes::{Patch, Replacement};
use crate::api::document::codes;
use crate::api::document::values::IfMatch;
use crate::api::problem::{Problem, Segments};
use crate::api::signing::Signing;
use crate::api::verification::{Verification, ask, settle};
use crate::control::CommandError;

type EndpointReplacement = Replacement<NewEndpoint>;
type EndpointPatch = Patch<NewEndpoint>;

/// The version of an endpoint, as `If-Match` takes it.
pub(super) fn tag(endpoint: &Endpoint) -> [(HeaderName, String); 1] {
    [(header::ETAG, format!("\"{}\"", endpoint.version))]
}

/// An endpoint, and what asking its receiver came to, if it was asked.
#[derive(Serialize, ToSchema)]
#[schema(as = EndpointAnswer)]
pub(in crate::api) struct Answered {
    #[serde(flatten)]
    endpoint: Shown,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    verification: Option<Verification>,
}

/// An endpoint as it stands, with its version.
pub(super) fn answer(endpoint: &Endpoint) -> Response {
    answer_asked(endpoint, None)
}

/// … and what asking its receiver came to.
pub(in crate::api) fn answer_asked(
    endpoint: &Endpoint,
    verification: Option<Verification>,
) -> Response {
    let answered = Answered {
        endpoint: shown(endpoint),
        verification,
    };
    (tag(endpoint), Json(answered)).into_response()
}

/// Answers a change; asks the receiver first, if that is one nobody has asked.
async fn answer_changed(
    api: &Api,
    caller: &Caller,
    before: &Endpoint,
    changed: Endpoint,
) -> Response {
    let same = before.url == changed.url && before.verify == changed.verify;
    if same || !changed.is_unverified() {
        return answer(&changed);
    }
    let (changed, verification) = settle(api, caller, changed).await;
    answer_asked(&changed, verification)
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
            body = Answered,
            headers(("etag" = String, description = "Its version, for `if-match`.")),
        ),
        codes::UidTaken,
        codes::UnreadableHeader,
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
    let before = place.present()?;
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
    Ok(answer_changed(&api, &caller, &before, changed).await)
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
            body = Answered,
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
    let before = place.present()?;
    let changed = place
        .change(&caller, |present| {
            remade(&api, present, settings.clone(), filter.clone())
        })
        .await?;
    Ok(answer_changed(&api, &caller, &before, changed).await)
}

/// Lets a disabled endpoint have deliveries again, by id or uid: what it holds
/// first of all. One that asks for a challenge has to answer it before.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant}/endpoints/{endpoint}/enable",
    operation_id = "enable_endpoint",
    tag = "Endpoints",
    params(IfMatch),
    responses(
        (
            status = 200,
            description = "The endpoint as it is now.",
            body = Answered,
            headers(("etag" = String, description = "Its version, for `if-match`.")),
        ),
        codes::NotVerified,
        codes::VersionConflict,
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub async fn enable(
    State(api): State<Arc<Api>>,
    Segments((tenant, name)): Segments<(String, String)>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let place = Place::named(&api, &tenant, &name, &headers)?;
    let before = place.present()?;
    let mut verification = None;
    if before.disabled && before.verify == Verify::Challenge {
        verification = ask(&api, &before).await;
        if let Some(failed) = verification.take_if(|asked| !asked.passed) {
            return Err(failed.into_problem());
        }
    }
    let changed = place
        .change(&caller, |present| {
            let asked = present.url == before.url && present.verify == before.verify;
            match asked || present.verify != Verify::Challenge {
                true => Ok(present.clone().enabled()),
                false => Err(Problem::version_conflict(present.version)),
            }
        })
        .await?;
    Ok(answer_asked(&changed, verification))
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

    /// Based on whatever is there, or on a version of it.
    pub(in crate::api) fn new(
        api: &'a Api,
        tenant: &'a str,
        name: &'a str,
        based: Option<u64>,
    ) -> Self {
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
pub(in crate::api) fn based(
    headers: &HeaderMap,
    body: Option<&mut Map<String, Value>>,
) -> Result<Option<u64>, Problem> {
    let tagged = tagged(headers)?;
    let Some(in_body) = body.and_then(|body| body.remove("version")) else {
        return Ok(tagged);
    };
    let version = in_body.as_u64();
    let fits = version.filter(|version| tagged.is_none_or(|tagged| tagged == *version));
    let wanted = || {
        let wanted = "expected the `version` of an answer, and the one `if-match` names";
        Problem::invalid("version", wanted)
    };
    fits.map(Some).ok_or_else(wanted)
}

fn tagged(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
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
    let changed = filled(api, present.to_proto(), Some(present), new)?;
    Ok(changed.with_trust_of(Some(present)))
}

fn settings_of(settings: Value, filter: Option<Box<RawValue>>) -> Result<NewEndpoint, Problem> {
    let read = serde_path_to_error::deserialize(settings);
    let new: NewEndpoint = read.map_err(|error| Problem::wrong_json(&error))?;
    Ok(NewEndpoint { filter, ..new })
}

/// JSON merge patch (RFC 7396, section 2).
pub(in crate::api) fn merge(target: &mut Value, patch: &Value) {
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
            metadata: Some(endpoint.metadata.clone()),
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
            max_age: max_age_of(endpoint),
            auto_disable: AutoDisable::from(endpoint),
            owned: endpoint.owned,
            rate_per_second: endpoint.rate_per_second,
            ordered: endpoint.ordered,
            recovery: match endpoint.fifo {
                true => Recovery::Fifo,
                false => Recovery::LiveFirst,
            },
            verify: endpoint.verify,
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
