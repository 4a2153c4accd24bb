//! Secrets of an endpoint: rotate, list, delete; seal all of them anew; and the
//! public keys that receivers verify with. Only the answer that makes a secret
//! shows it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use posthaste_core::endpoint::{Endpoint, Held, RemoveError, Secret};
use posthaste_core::id::{EndpointId, generate_secret_id};
use posthaste_core::limits::{
    PUBLISHED_KEYS_MAX, RESEAL_PAGE_MAX, SECRET_OVERLAP_DEFAULT, SECRET_OVERLAP_MAX,
};
use posthaste_core::rng::Rng;
use posthaste_core::signature::VerifyingKey;
use posthaste_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::auth::Caller;
use super::body::{Whole, read_json};
use super::document::values::IfMatch;
use super::document::{codes, values};
use super::endpoints::{Place, find};
use super::problem::{Problem, Segments};
use super::signing::{AlgorithmName, Imported, secret_text};
use crate::clock::random_seed;
use crate::config::{format_rfc3339, parse_duration};
use crate::control::CommandError;

/// How a secret follows another.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(examples(json!({"overlap": "48h"})))]
#[serde(deny_unknown_fields)]
struct Rotation {
    /// The new secret; one is made when it is absent.
    #[schema(value_type = Option<String>, write_only)]
    secret: Option<Imported>,
    /// Of one that is made here; the newest one's when absent.
    algorithm: Option<AlgorithmName>,
    /// How long the older ones still sign, at most `168h`; `24h` when absent.
    #[schema(value_type = Option<values::Duration>)]
    overlap: Option<String>,
}

/// A secret as it is shown: never itself.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Secret)]
struct Shown {
    id: String,
    #[schema(value_type = values::Time)]
    created_at: String,
    /// `null` for the newest.
    #[schema(value_type = Option<values::Time>)]
    expires_at: Option<String>,
    /// Of a key pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    public_key: Option<String>,
}

/// A new secret, once with its text.
#[derive(Serialize, ToSchema)]
#[schema(as = CreatedSecret)]
struct Made<'a> {
    #[serde(flatten)]
    shown: Shown,
    secret: &'a str,
}

/// What sealing anew came to.
#[derive(Debug, Default, Serialize, ToSchema)]
struct Resealed {
    /// Endpoints sealed by this request.
    resealed: usize,
    /// Endpoints that still have to be.
    left: usize,
    /// Endpoints with a secret that no master key opens; the log names them.
    unreadable: usize,
}

/// A public key (RFC 8037).
#[derive(Debug, Serialize, ToSchema)]
struct Jwk {
    kty: &'static str,
    crv: &'static str,
    alg: &'static str,
    r#use: &'static str,
    kid: String,
    x: String,
}

/// An endpoint's secrets.
#[derive(Debug, Serialize, ToSchema)]
struct Secrets {
    /// Newest first.
    data: Vec<Shown>,
}

/// The public halves of key pairs.
#[derive(Debug, Serialize, ToSchema)]
struct PublishedKeys {
    /// A JWK set.
    keys: Vec<Jwk>,
    /// The same, as Standard Webhooks writes them.
    whpk: Vec<String>,
}

/// An endpoint's new secret, sealed.
pub(super) fn seal(
    api: &Api,
    endpoint: EndpointId,
    text: &str,
    now: Timestamp,
) -> Result<Secret, Problem> {
    let id = generate_secret_id(now, &mut Rng::new(random_seed()));
    let sealed = api.vault.seal(endpoint, &id, text);
    let sealed = sealed.map_err(|error| Problem::unavailable(error.to_string()))?;
    Ok(Secret::new(id, text, Held::Sealed(sealed), now))
}

fn shown(secret: &Secret, made: Timestamp) -> Shown {
    let created = match secret.created_at {
        at if at == Timestamp::default() => made,
        at => at,
    };
    Shown {
        id: secret.id.clone(),
        created_at: format_rfc3339(created),
        expires_at: secret.expires_at.map(format_rfc3339),
        public_key: secret.public.clone(),
    }
}

/// Lets a new secret sign, and the older ones for a while beside it. The answer
/// is the only one that shows it.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant}/endpoints/{endpoint}/secrets/rotate",
    operation_id = "rotate_secret",
    tag = "Secrets",
    params(IfMatch),
    request_body = Option<Rotation>,
    responses(
        (status = 201, description = "The new secret.", body = Made<'static>),
        codes::TooManySecrets,
        codes::VersionConflict,
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub async fn rotate(
    State(api): State<Arc<Api>>,
    Segments((tenant, name)): Segments<(String, String)>,
    caller: Caller,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    let endpoint = find(&api, &tenant, &name)?;
    let asked: Rotation = match body.is_empty() {
        true => Rotation::default(),
        false => read_json(&body)?,
    };
    let overlap = overlap(asked.overlap.as_deref())?;
    let algorithm = asked
        .algorithm
        .unwrap_or_else(|| AlgorithmName::of(&endpoint));
    let text = secret_text("algorithm", endpoint.scheme, algorithm, asked.secret)?;
    let now = api.clock.now();
    let secret = seal(&api, endpoint.id, &text, now)?;
    let made = Made {
        shown: shown(&secret, endpoint.created_at),
        secret: &text,
    };
    let place = Place::named(&api, &tenant, &name, &headers)?;
    place
        .change(&caller, |present| {
            let mut changed = present.clone();
            let rotated = changed.rotate(secret.clone(), overlap, now);
            rotated.map_err(|full| Problem::conflict("too_many_secrets", full.to_string()))?;
            Ok(changed)
        })
        .await?;
    Ok((StatusCode::CREATED, Json(made)).into_response())
}

fn overlap(asked: Option<&str>) -> Result<Duration, Problem> {
    let Some(text) = asked else {
        return Ok(SECRET_OVERLAP_DEFAULT);
    };
    let overlap = parse_duration(text).map_err(|problem| Problem::invalid("overlap", problem))?;
    if overlap > SECRET_OVERLAP_MAX {
        let hours = SECRET_OVERLAP_MAX.as_secs() / 3_600;
        let problem = format!("`{text}`: expected \"0s\" to \"{hours}h\"");
        return Err(Problem::invalid("overlap", problem));
    }
    Ok(overlap)
}

/// The secrets of an endpoint that are not over, newest first.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant}/endpoints/{endpoint}/secrets",
    operation_id = "list_secrets",
    tag = "Secrets",
    responses((status = 200, description = "All of them.", body = Secrets)),
)]
pub async fn list(
    State(api): State<Arc<Api>>,
    Segments((tenant, name)): Segments<(String, String)>,
) -> Result<Response, Problem> {
    let endpoint = find(&api, &tenant, &name)?;
    let now = api.clock.now();
    let live = endpoint.secrets.iter().filter(|secret| secret.is_live(now));
    let data = live.map(|s| shown(s, endpoint.created_at)).collect();
    Ok(Json(Secrets { data }).into_response())
}

/// Takes a secret back before it expires.
#[utoipa::path(
    delete,
    path = "/v1/tenants/{tenant}/endpoints/{endpoint}/secrets/{secret}",
    operation_id = "delete_secret",
    tag = "Secrets",
    params(IfMatch),
    responses(
        (status = 204, description = "It signs no more."),
        codes::NewestSecret,
        codes::VersionConflict,
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub async fn delete(
    State(api): State<Arc<Api>>,
    Segments((tenant, name, id)): Segments<(String, String, String)>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let place = Place::named(&api, &tenant, &name, &headers)?;
    place
        .change(&caller, |present| {
            let mut changed = present.clone();
            let removed = changed.remove_secret(&id);
            removed.map_err(|error| match error {
                RemoveError::Unknown => Problem::not_found(error.to_string()),
                RemoveError::Newest => Problem::conflict("newest_secret", error.to_string()),
            })?;
            Ok(changed)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Seals a page of endpoints' secrets under the first master key: those that are
/// in the clear, or under another.
#[utoipa::path(
    post,
    path = "/v1/secrets/reseal",
    operation_id = "reseal_secrets",
    tag = "Secrets",
    responses(
        (status = 200, description = "How far it came: call until nothing is left.", body = Resealed),
        codes::Unavailable,
    ),
)]
pub async fn reseal(State(api): State<Arc<Api>>, caller: Caller) -> Result<Response, Problem> {
    let registry = Arc::clone(&api.endpoints.registry().borrow());
    let mut answer = Resealed::default();
    let mut page = Vec::new();
    for endpoint in registry.endpoints() {
        if api.vault.is_current(endpoint) {
            continue;
        }
        if page.len() < RESEAL_PAGE_MAX {
            page.push(Endpoint::clone(endpoint));
        } else {
            answer.left += 1;
        }
    }
    let by = caller.by();
    for mut endpoint in page {
        if let Err(error) = api.vault.reseal(&mut endpoint) {
            tracing::error!(endpoint = %endpoint.id, %error, "its secrets cannot be sealed anew");
            answer.unreadable += 1;
            continue;
        }
        match api.endpoints.put(&endpoint, &by).await {
            Ok(_) => answer.resealed += 1,
            // The next page has it again, as it is then.
            Err(CommandError::Conflict { .. }) => answer.left += 1,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Json(answer).into_response())
}

/// The public halves of all key pairs that sign now: as a JWK set, and as
/// Standard Webhooks writes them. Past [`PUBLISHED_KEYS_MAX`] the newest
/// endpoints' are left out; an endpoint's own secrets show theirs.
#[utoipa::path(
    get,
    path = "/.well-known/webhook-keys",
    operation_id = "get_published_keys",
    tag = "For receivers",
    responses((status = 200, description = "The keys.", body = PublishedKeys)),
)]
pub async fn published(State(api): State<Arc<Api>>) -> Response {
    let registry = Arc::clone(&api.endpoints.registry().borrow());
    let now = api.clock.now();
    let secrets = registry.endpoints().flat_map(|endpoint| &endpoint.secrets);
    let live = secrets.filter(|secret| secret.is_live(now));
    let mut keys = BTreeMap::new();
    for text in live.filter_map(|secret| secret.public.as_ref()) {
        if keys.len() >= PUBLISHED_KEYS_MAX {
            break;
        }
        let key = VerifyingKey::parse(text).ok();
        if let Some(jwk) = key.and_then(|key| key.jwk()) {
            keys.insert(jwk, text);
        }
    }
    let whpk = keys.values().map(|text| (*text).clone()).collect();
    let keys = keys
        .keys()
        .map(|jwk| Jwk {
            kty: "OKP",
            crv: "Ed25519",
            alg: "EdDSA",
            r#use: "sig",
            kid: jwk.kid.clone(),
            x: jwk.x.clone(),
        })
        .collect();
    let body = Json(PublishedKeys { keys, whpk });
    ([(header::CACHE_CONTROL, "public, max-age=60")], body).into_response()
}
