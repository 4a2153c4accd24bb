//! Portal sessions: a short-lived token for what a tenant's own people may do to
//! their endpoints, in the name of the key that asked for it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use posthaste_core::access::{Capability, portal_token};
use posthaste_core::event::check_tenant;
use posthaste_core::limits::{PORTAL_TIME_DEFAULT, PORTAL_TIME_MAX};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::auth::Caller;
use super::body::{Whole, read_json};
use super::document::{codes, values};
use super::problem::{Problem, Segments};
use crate::config::{format_rfc3339, parse_duration};

/// What a token is to be for.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewPortalSession, examples(json!({
    "capabilities": ["endpoints"], "expires_in": "1h",
})))]
#[serde(deny_unknown_fields)]
struct Asked {
    /// At least one.
    #[schema(value_type = Vec<values::Capability>, min_items = 1)]
    capabilities: Vec<String>,
    /// At most `24h`; `1h` when absent.
    #[serde(default)]
    #[schema(value_type = Option<values::Duration>)]
    expires_in: Option<String>,
}

/// A session; its token is not kept.
#[derive(Serialize, ToSchema)]
#[schema(as = PortalSession)]
struct Session {
    /// What is sent as `Authorization: Bearer`.
    token: String,
    tenant: String,
    #[schema(value_type = Vec<values::Capability>)]
    capabilities: Vec<&'static str>,
    #[schema(value_type = values::Time)]
    expires_at: String,
}

/// Opens a session.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant}/portal_sessions",
    operation_id = "create_portal_session",
    tag = "Access",
    request_body = Asked,
    responses(
        (status = 201, description = "The session.", body = Session),
        codes::NoKeys,
        codes::Invalid,
    ),
)]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    Segments(tenant): Segments<String>,
    caller: Caller,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    check_tenant(&tenant)?;
    let asked: Asked = read_json(&body)?;
    let capabilities = read(&asked.capabilities)?;
    let expires_in = lifetime(asked.expires_in.as_deref())?;
    let key = caller.grant().ok_or_else(|| {
        let wanted = "a token is made in the name of a key: expected `api.auth` to be `keys`";
        Problem::conflict("no_keys", wanted)
    })?;
    let keys = api.endpoints.keys();
    let key = keys.get(key.key).ok_or_else(Problem::unauthorized)?;
    let expires_at = api.clock.now().after(expires_in);
    let token = portal_token(key, &tenant, &capabilities, expires_at);
    let session = Session {
        token: token.expose().to_owned(),
        tenant,
        capabilities: capabilities.iter().map(|one| one.name()).collect(),
        expires_at: format_rfc3339(expires_at),
    };
    Ok((StatusCode::CREATED, Json(session)).into_response())
}

fn read(names: &[String]) -> Result<Vec<Capability>, Problem> {
    let read = names.iter().map(|name| name.parse::<Capability>());
    let read = read.collect::<Result<Vec<_>, _>>();
    let mut read = read.map_err(|problem| Problem::invalid("capabilities", problem))?;
    read.sort_unstable();
    read.dedup();
    if read.is_empty() {
        let wanted = "expected at least one of `read` and `endpoints`";
        return Err(Problem::invalid("capabilities", wanted));
    }
    Ok(read)
}

fn lifetime(text: Option<&str>) -> Result<Duration, Problem> {
    let Some(text) = text else {
        return Ok(PORTAL_TIME_DEFAULT);
    };
    let wrong = |problem: String| Problem::invalid("expires_in", problem);
    let span = parse_duration(text).map_err(wrong)?;
    let most = PORTAL_TIME_MAX.as_secs() / 3_600;
    match span.is_zero() || span > PORTAL_TIME_MAX {
        true => Err(wrong(format!("expected up to {most}h"))),
        false => Ok(span),
    }
}
