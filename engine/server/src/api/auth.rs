//! The door: who calls, whether they may, and what is said of those who may not.
//!
//! Every call gets a request id, which its answer, its log lines and what it
//! changed carry. A route that no row of [`NEEDS`] speaks of needs `read` to be
//! looked at and `admin` for everything else. What belongs to no tenant is not
//! for those who were let in for one, but for [`SHARED`], which they may look
//! at; nor may they change what is said of their tenant. Only the [`OPEN`] routes
//! let everybody in: probes and receivers have no keys, metrics name no customer,
//! and what the API can do is no secret.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use posthaste_core::access::{Grant, Need, Stranger};
use posthaste_core::id::RequestId;
use posthaste_core::limits::TENANT_BYTES_MAX;
use posthaste_core::rng::Rng;
use posthaste_core::time::Timestamp;

use super::problem::{Body as Told, Problem};
use super::version::{self, API_VERSION, VERSION};
use super::{Api, host};
use crate::clock::random_seed;
use crate::config::Auth;
use crate::control::By;

/// Names a request in its answer.
pub(super) const REQUEST_ID: &str = "request-id";
/// The parameter of a path that names a tenant.
const TENANT: &str = "tenant";
/// For everybody.
const OPEN: [&str; 6] = [
    "/healthz",
    "/readyz",
    "/metrics",
    "/.well-known/webhook-keys",
    "/v1/openapi.json",
    "/docs",
];
/// What belongs to a tenant, and is said of it.
const TENANTS: &str = "/v1/tenants/{tenant}";
/// No tenant's, and for all of them to see.
const SHARED: &str = "/v1/event_types";

/// What certain calls need: a method, or any, and what a route begins with.
const NEEDS: [(Option<Method>, &str, Need); 13] = [
    // Before the row of what it begins with.
    (
        Some(Method::POST),
        "/v1/tenants/{tenant}/events/{event}",
        Need::Endpoints,
    ),
    (
        Some(Method::POST),
        "/v1/tenants/{tenant}/events",
        Need::Publish,
    ),
    (None, "/v1/keys", Need::Admin),
    (None, "/v1/audit", Need::Admin),
    // They look, and have a body.
    (Some(Method::POST), "/v1/filters/evaluate", Need::Read),
    (Some(Method::POST), "/v1/filters/backtest", Need::Read),
    // They ask endpoints' owners for something.
    (Some(Method::POST), OPERATIONS, Need::Endpoints),
    (Some(Method::POST), "/v1/operations", Need::Endpoints),
    (
        Some(Method::POST),
        "/v1/tenants/{tenant}/deliveries",
        Need::Endpoints,
    ),
    (Some(Method::POST), "/v1/deliveries", Need::Endpoints),
    (Some(Method::POST), "/v1/events", Need::Endpoints),
    (Some(Method::POST), "/v1/replays", Need::Endpoints),
    (Some(Method::POST), "/v1/resends", Need::Endpoints),
];
const OPERATIONS: &str = "/v1/tenants/{tenant}/operations";
/// … and those that change a tenant's endpoints.
const ENDPOINTS: &str = "/v1/tenants/{tenant}/endpoints";

/// Whoever was let in.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Nothing where everybody is let in.
    grant: Option<Grant>,
    request: RequestId,
    at: Timestamp,
}

impl Caller {
    /// The name their changes carry.
    pub fn by(&self) -> By {
        By {
            actor: self.name(),
            request: self.request,
            at: self.at,
        }
    }

    /// Somebody where everybody is let in.
    #[cfg(test)]
    pub(super) fn local(at: Timestamp) -> Self {
        Self {
            grant: None,
            request: By::new("local", at).request,
            at,
        }
    }

    /// Who they are, as far as others are not to be given their answers.
    pub(super) fn scope(&self) -> String {
        let tenant = self.grant.as_ref().and_then(|grant| grant.tenant.as_ref());
        format!("{}\0{}", self.name(), tenant.map_or("", String::as_str))
    }

    /// What they were let in by.
    pub fn grant(&self) -> Option<&Grant> {
        self.grant.as_ref()
    }

    fn name(&self) -> String {
        match &self.grant {
            None => "local".to_owned(),
            Some(grant) if grant.portal => format!("{} by portal", grant.key),
            Some(grant) => grant.key.to_string(),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(Problem::unauthorized)
    }
}

/// Why a call is not let through.
struct Refusal {
    problem: Problem,
    who: String,
}

/// Lets a call through, or not, and signs the answer with its request's id.
pub(super) async fn guard(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let at = api.clock.now();
    let id = RequestId::generate(at, &mut Rng::new(random_seed()));
    let method = request.method().clone();
    let (route, tenant) = (route_of(&request), tenant_of(request.uri().path()));
    let (who, mut response) = match admit(&api, request, id, at).await {
        Ok((who, request)) => (who, next.run(request).await),
        Err(refusal) => (refusal.who, refusal.problem.into_response()),
    };
    let status = response.status();
    if let Some(mut told) = response.extensions_mut().remove::<Told>() {
        if status.is_client_error() {
            let route = route.as_ref().map_or("none", MatchedPath::as_str);
            tracing::warn!(
                who, %method, route, tenant, %status, code = &*told.code, request_id = %id,
                "call refused"
            );
        }
        told.request_id = id.to_string();
        response.headers_mut().remove(header::CONTENT_LENGTH);
        *response.body_mut() = Body::from(serde_json::to_vec(&told).unwrap_or_default());
    }
    if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    let version = HeaderValue::from_static(VERSION);
    response.headers_mut().insert(API_VERSION, version);
    response
}

/// Of a path only its route and its tenant are logged: other parts of it can be
/// what somebody took for an id, such as a whole key.
fn route_of(request: &Request) -> Option<MatchedPath> {
    request.extensions().get().cloned()
}

fn tenant_of(path: &str) -> Option<String> {
    let behind = path.strip_prefix("/v1/tenants/")?;
    let tenant = behind.split('/').next()?.chars();
    Some(tenant.take(TENANT_BYTES_MAX).collect())
}

/// Who calls, and the call with that in it.
async fn admit(
    api: &Api,
    request: Request,
    id: RequestId,
    at: Timestamp,
) -> Result<(String, Request), Refusal> {
    let (mut parts, body) = request.into_parts();
    let mut caller = Caller {
        grant: None,
        request: id,
        at,
    };
    if api.config.auth() == Auth::None {
        host::check(&parts, &api.config.http.hosts).map_err(|problem| {
            let who = caller.name();
            Refusal { problem, who }
        })?;
    }
    if api.config.auth() == Auth::Keys && !OPEN.contains(&parts.uri.path()) {
        let grant = identify(api, &parts.headers, at)?;
        caller.grant = Some(grant.clone());
        if let Err(problem) = judge(&grant, &mut parts).await {
            let who = caller.name();
            return Err(Refusal { problem, who });
        }
    }
    let who = caller.name();
    if let Err(problem) = version::check(&parts.headers) {
        return Err(Refusal { problem, who });
    }
    parts.extensions.insert(caller);
    Ok((who, Request::from_parts(parts, body)))
}

fn identify(api: &Api, headers: &HeaderMap, now: Timestamp) -> Result<Grant, Refusal> {
    let refused = |problem, claimed: Option<String>| Refusal {
        problem,
        who: claimed.map_or_else(|| "nobody".to_owned(), |key| format!("{key}, not proved")),
    };
    let credential = bearer(headers).ok_or_else(|| refused(Problem::unauthorized(), None))?;
    api.endpoints.keys().admit(credential, now).map_err(|who| {
        let Stranger { claimed, expired } = who;
        let problem = match expired {
            true => Problem::expired(),
            false => Problem::unauthorized(),
        };
        refused(problem, claimed.map(|key| key.to_string()))
    })
}

/// What follows `Bearer` (RFC 6750) in the one header of authorization.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let only = values.next().filter(|_| values.next().is_none())?;
    let (scheme, credential) = only.to_str().ok()?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(credential.trim_start_matches(' '))
}

/// Whether what a caller was granted covers the call.
async fn judge(grant: &Grant, parts: &mut Parts) -> Result<(), Problem> {
    let Some(route) = parts.extensions.get::<MatchedPath>().cloned() else {
        // There is no such route, which whoever was let in may hear.
        return Ok(());
    };
    let looks = [Method::GET, Method::HEAD].contains(&parts.method);
    let shared = looks && route.as_str().starts_with(SHARED);
    if let Some(own) = grant.tenant.as_ref().filter(|_| !shared) {
        let params = RawPathParams::from_request_parts(parts, &()).await;
        let params = params.map_err(|_| Problem::malformed("path: expected UTF-8"))?;
        let named = params.iter().find(|(name, _)| *name == TENANT);
        let named = named.filter(|_| route.as_str().starts_with(TENANTS));
        match named {
            None => return Err(Problem::forbidden("a credential that is for no one tenant")),
            // Whether another tenant is there is not for this one to know.
            Some((_, tenant)) if tenant != own => {
                return Err(Problem::not_found("no such tenant"));
            }
            Some(_) if !looks && route.as_str() == TENANTS => {
                return Err(Problem::forbidden("a credential that is for no one tenant"));
            }
            Some(_) => {}
        }
    }
    let need = need(&parts.method, route.as_str());
    match grant.may(need) {
        true => Ok(()),
        false => Err(Problem::forbidden(need.wanted())),
    }
}

/// What a call needs; nothing where everybody is let in.
pub(super) fn needed(method: &Method, route: &str) -> Option<Need> {
    (!OPEN.contains(&route)).then(|| need(method, route))
}

fn need(method: &Method, route: &str) -> Need {
    let row = NEEDS.iter().find(|(only, begins, _)| {
        route.starts_with(begins) && only.as_ref().is_none_or(|only| only == method)
    });
    let looks = [Method::GET, Method::HEAD].contains(method);
    match row {
        Some((_, _, need)) => *need,
        None if looks => Need::Read,
        None if route.starts_with(ENDPOINTS) => Need::Endpoints,
        None => Need::Admin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nothing_is_said_of_needs_the_most() {
        let cases = [
            ("GET", "/v1/tenants/{tenant}/endpoints", Need::Read),
            ("HEAD", "/v1/dead_letters", Need::Read),
            ("POST", "/v1/tenants/{tenant}/events", Need::Publish),
            ("POST", "/v1/tenants/{tenant}/endpoints", Need::Endpoints),
            (
                "PATCH",
                "/v1/tenants/{tenant}/endpoints/{endpoint}",
                Need::Endpoints,
            ),
            (
                "POST",
                "/v1/tenants/{tenant}/endpoints/{endpoint}/pause",
                Need::Endpoints,
            ),
            (
                "POST",
                "/v1/tenants/{tenant}/operations/{operation}/cancel",
                Need::Endpoints,
            ),
            (
                "POST",
                "/v1/tenants/{tenant}/events/{event}/replay",
                Need::Endpoints,
            ),
            (
                "POST",
                "/v1/tenants/{tenant}/deliveries/{delivery}/retry",
                Need::Endpoints,
            ),
            ("GET", "/v1/tenants/{tenant}/operations", Need::Read),
            ("POST", "/v1/replays", Need::Endpoints),
            ("POST", "/v1/dead_letters/redrive", Need::Admin),
            ("POST", "/v1/tenants/{tenant}/portal_sessions", Need::Admin),
            ("GET", "/v1/keys", Need::Admin),
            ("GET", "/v1/audit", Need::Admin),
            ("POST", "/v1/whatever_comes", Need::Admin),
            ("OPTIONS", "/v1/keys", Need::Admin),
        ];
        for (method, route, wanted) in cases {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(need(&method, route), wanted, "{method} {route}");
        }
    }

    #[test]
    fn one_bearer_is_read() {
        let read = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_static(value));
            }
            bearer(&headers).map(ToOwned::to_owned)
        };
        assert_eq!(read(&["Bearer a"]).as_deref(), Some("a"));
        assert_eq!(read(&["bearer  a"]).as_deref(), Some("a"));
        for none in [&[][..], &["a"], &["Basic a"], &["Bearer a", "Bearer b"]] {
            assert_eq!(read(none), None, "{none:?}");
        }
    }
}
