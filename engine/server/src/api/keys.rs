//! API keys: make, list, revoke. The answer that makes one is the only one that
//! shows it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use posthaste_core::access::{ApiKey, KeyProblem, NewKey};
use posthaste_core::limits::API_KEYS_MAX;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::auth::Caller;
use super::body::{Whole, read_json};
use super::document::{codes, values};
use super::page::{Page, Paging};
use super::problem::{Asked as Query, Problem, Segments};
use crate::config::format_rfc3339;
use crate::control::new_key;

/// What a new key is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewKey, examples(json!({
    "scopes": ["publish"], "tenant": "acme", "description": "billing service",
})))]
#[serde(deny_unknown_fields)]
struct Asked {
    /// At least one.
    #[schema(value_type = Vec<values::Scope>, min_items = 1)]
    scopes: Vec<String>,
    /// The only tenant it is for; for all when absent.
    #[serde(default)]
    tenant: Option<String>,
    /// For people.
    #[serde(default)]
    description: String,
}

/// A key as it is shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Key)]
struct Shown {
    #[schema(examples("pk_01M8A8SGRT3TMFMM1F4JJZHFBM"))]
    id: String,
    #[schema(value_type = Vec<values::Scope>)]
    scopes: Vec<&'static str>,
    /// `null` when it is for all of them.
    tenant: Option<String>,
    description: String,
    #[schema(value_type = values::Time)]
    created_at: String,
}

type Keys = Page<Shown>;

/// A new key, this once with its text.
#[derive(Serialize, ToSchema)]
#[schema(as = CreatedKey)]
struct Created {
    #[serde(flatten)]
    shown: Shown,
    /// What programs send as `Authorization: Bearer`.
    key: String,
}

/// Makes a key.
#[utoipa::path(
    post,
    path = "/v1/keys",
    operation_id = "create_key",
    tag = "Access",
    request_body = Asked,
    responses(
        (status = 201, description = "The key, and its text.", body = Created),
        codes::TooManyKeys,
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    let asked: Asked = read_json(&body)?;
    if api.endpoints.keys().iter().len() >= API_KEYS_MAX {
        let most = format!("there are {API_KEYS_MAX} keys: revoke some first");
        return Err(Problem::conflict("too_many_keys", most));
    }
    let scopes = asked.scopes.iter().map(|scope| scope.parse());
    let scopes = scopes.collect::<Result<_, _>>();
    let new = NewKey {
        scopes: scopes.map_err(|problem: String| Problem::invalid("scopes", problem))?,
        tenant: asked.tenant,
        description: asked.description,
    };
    let (key, text) = new_key(new, api.clock.now())?;
    api.endpoints.put_key(&key, &caller.by()).await?;
    let created = Created {
        shown: shown(&key),
        key: text.expose().to_owned(),
    };
    Ok((StatusCode::CREATED, Json(created)).into_response())
}

/// The keys that are not revoked, oldest first.
#[utoipa::path(
    get,
    path = "/v1/keys",
    operation_id = "list_keys",
    tag = "Access",
    params(Paging),
    responses(
        (status = 200, description = "A page of them.", body = Keys),
        codes::Invalid,
    ),
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Query(paging): Query<Paging>,
) -> Result<Response, Problem> {
    let keys = api.endpoints.keys();
    let page = paging.of(keys.iter().map(|key| (key.id, key)), |key| shown(key))?;
    Ok(Json(page).into_response())
}

/// Revokes a key, and with it the portal tokens made in its name.
#[utoipa::path(
    delete,
    path = "/v1/keys/{key}",
    operation_id = "revoke_key",
    tag = "Access",
    responses(
        (status = 204, description = "It is revoked."),
        codes::Unavailable,
    ),
)]
pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    Segments(id): Segments<String>,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    let absent = || Problem::not_found("no such key");
    let id = id.parse().map_err(|_| absent())?;
    match api.endpoints.revoke_key(id, &caller.by()).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(absent()),
    }
}

fn shown(key: &ApiKey) -> Shown {
    Shown {
        id: key.id.to_string(),
        scopes: key.scopes.iter().map(|scope| scope.name()).collect(),
        tenant: key.tenant.clone(),
        description: key.description.clone(),
        created_at: format_rfc3339(key.created_at),
    }
}

impl From<KeyProblem> for Problem {
    fn from(error: KeyProblem) -> Self {
        Self::invalid(error.param, error.problem)
    }
}
