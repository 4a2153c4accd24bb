//! `Idempotency-Key` on every POST but that of events, which has its own
//! ([`events`](super::events)): the same request made again is answered as it
//! was, and nothing is done twice.
//!
//! ```text
//!  new key ----------> done, in a task of its own --> answer, kept 24 h
//!  known, answered --> the same answer
//!  known, under way -> 409 in_progress
//!  known, another path, body or `If-Match` -> 422
//! ```
//!
//! A key is its caller's own. A request goes on when its client hangs up, so
//! that whoever comes back finds what came of it. Answers of 5xx are not kept,
//! nor are those to callers who may not do it: the request is then made anew.
//!
//! Who makes a request and what it was answered stands in the endpoints table
//! ([`answers`](posthaste_core::answers)), so that it holds at every instance and
//! over restarts. Answers can show a secret: they are sealed there, and none is
//! logged.

use std::sync::Arc;

use axum::body::{Body, HttpBody as _};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http_body_util::BodyExt as _;
use posthaste_core::answers::{Claim, Refused};
use posthaste_core::endpoint::Sealed;
use posthaste_core::limits::ANSWER_BYTES_MAX;
use posthaste_proto as proto;
use proto::Message as _;
use zeroize::Zeroizing;

use super::auth::Caller;
use super::body::whole;
use super::events::idempotency_key;
use super::problem::{Body as Told, Problem};
use crate::control::{By, Endpoints};
use crate::vault::Vault;

/// It has its own.
const EVENTS: &str = "/v1/tenants/{tenant}/events";
/// Says that an answer was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// What was asked with a key, and answered.
pub(super) struct Once {
    pub(super) endpoints: Endpoints,
    pub(super) vault: Arc<Vault>,
}

/// Whether a call of this route may have a key.
pub(super) fn is_for(method: &Method, route: &str) -> bool {
    method == Method::POST && route != EVENTS
}

/// Stands before every route.
pub(super) async fn once(State(all): State<Arc<Once>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    if !route.is_some_and(|route| is_for(request.method(), route.as_str())) {
        return next.run(request).await;
    }
    match idempotency_key(request.headers()) {
        Ok(None) => next.run(request).await,
        Ok(Some(key)) => answered(all, &key, request, next)
            .await
            .unwrap_or_else(Problem::into_response),
        Err(problem) => problem.into_response(),
    }
}

async fn answered(
    all: Arc<Once>,
    key: &str,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let caller = request.extensions().get::<Caller>();
    let caller = caller.ok_or_else(Problem::unauthorized)?;
    let (by, scope) = (caller.by(), caller.scope());
    let (parts, body) = request.into_parts();
    let body = whole(body).await?;
    let based = parts.headers.get(header::IF_MATCH);
    let asked = [
        parts.uri.path().as_bytes(),
        parts.uri.query().unwrap_or_default().as_bytes(),
        based.map_or(&[], HeaderValue::as_bytes),
        &body,
    ];
    let claim = Claim::new(&scope, key, &asked, by.request, by.at);
    if let Some(sealed) = all.endpoints.answer(&claim)? {
        return all.again(&claim, &sealed);
    }
    let request = Request::from_parts(parts, Body::from(body));
    let task = tokio::spawn(async move {
        // Of two that come at once one is the first, wherever they came.
        if !all.endpoints.claim(&claim, &by).await? {
            return Err(Refused::UnderWay.into());
        }
        let claimed = Claimed {
            all,
            claim,
            by,
            over: false,
        };
        Ok(claimed.keep(next.run(request).await).await)
    });
    task.await
        .map_err(|_| Problem::unavailable("the request ended without an answer"))?
}

/// A key whose request is under way. It is free again unless an answer is kept.
struct Claimed {
    all: Arc<Once>,
    claim: Claim,
    by: By,
    over: bool,
}

impl Drop for Claimed {
    /// The request panicked.
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let (endpoints, claim) = (self.all.endpoints.clone(), self.claim.clone());
        let by = self.by.clone();
        tokio::spawn(async move { endpoints.release(&claim, &by).await });
    }
}

impl Claimed {
    async fn keep(mut self, response: Response) -> Response {
        let status = response.status();
        let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status);
        let length = response.body().size_hint().exact();
        let short = length.is_some_and(|length| length <= ANSWER_BYTES_MAX as u64);
        let kept = !status.is_server_error() && !refused && short;
        let (response, result) = match kept {
            true => self.answer(response).await,
            false => {
                let freed = self.all.endpoints.release(&self.claim, &self.by).await;
                (response, freed.map_err(|error| error.to_string()))
            }
        };
        self.over = true;
        if let Err(error) = result {
            // Done it is: the answer is good, if only once.
            tracing::warn!(
                error,
                "the log does not take what came of an idempotency key"
            );
        }
        response
    }

    async fn answer(&self, response: Response) -> (Response, Result<(), String>) {
        let (parts, body) = response.into_parts();
        let told = parts.extensions.get::<Told>();
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => {
                let problem = Problem::unavailable("the answer did not come whole");
                return (problem.into_response(), Err(error.to_string()));
            }
        };
        let header = |(name, value): (&HeaderName, &HeaderValue)| proto::Header {
            name: name.as_str().to_owned(),
            value: value.as_bytes().to_vec().into(),
            sealed: None,
        };
        let answer = proto::Answer {
            status: parts.status.as_u16().into(),
            headers: parts.headers.iter().map(header).collect(),
            problem: told.is_some(),
            body: match told {
                Some(told) => serde_json::to_vec(told).unwrap_or_default().into(),
                None => body.clone(),
            },
        };
        let answer = Zeroizing::new(answer.encode_to_vec());
        let kept = async {
            let sealed = self.all.vault.seal_answer(self.claim.id(), &answer);
            let sealed = sealed.map_err(|error| error.to_string())?;
            let kept = self.all.endpoints.keep(&self.claim, sealed, &self.by).await;
            kept.map_err(|error| error.to_string())
        };
        let kept = kept.await;
        (Response::from_parts(parts, Body::from(body)), kept)
    }
}

impl Once {
    /// An answer once more; the problem in one names the request that hears it.
    fn again(&self, claim: &Claim, sealed: &Sealed) -> Result<Response, Problem> {
        let answer = self.vault.open_answer(claim.id(), sealed);
        let answer = answer.map_err(|error| unreadable(&error))?;
        let answer = proto::Answer::decode(&**answer).map_err(|error| unreadable(&error))?;
        let mut response = Response::new(Body::empty());
        let status = u16::try_from(answer.status).unwrap_or_default();
        *response.status_mut() =
            StatusCode::from_u16(status).map_err(|error| unreadable(&error))?;
        for header in answer.headers {
            let name = HeaderName::try_from(header.name);
            let value = HeaderValue::from_bytes(&header.value);
            if let (Ok(name), Ok(value)) = (name, value) {
                response.headers_mut().append(name, value);
            }
        }
        let replayed = HeaderValue::from_static("true");
        response.headers_mut().insert(REPLAYED, replayed);
        if answer.problem {
            let told = serde_json::from_slice::<Told>(&answer.body);
            let told = told.map_err(|error| unreadable(&error))?;
            response.extensions_mut().insert(told);
        } else {
            *response.body_mut() = Body::from(answer.body);
        }
        Ok(response)
    }
}

/// The operator's to mend, and nothing to be done twice for.
fn unreadable(error: &dyn std::fmt::Display) -> Problem {
    tracing::error!(%error, "the answer to an idempotency key cannot be read");
    Problem::unavailable("this was answered before, and its answer cannot be read here")
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Another => Self::invalid(
                "idempotency-key",
                "this key came before with another path, body or `if-match`",
            ),
            Refused::UnderWay => {
                Self::conflict("in_progress", "a request with this key is under way")
            }
            Refused::Full => Self::unavailable(
                "too many idempotency keys within 24 h: try again later, or without a key",
            ),
        }
    }
}

#[cfg(test)]
mod tests;
