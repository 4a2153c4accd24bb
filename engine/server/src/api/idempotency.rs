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
//! All this is this process's memory. A request that is repeated at another
//! instance, or after a restart, is made again there: where that matters, give
//! what is made a `uid`, a name or a version to be based on. Answers that show a
//! secret are kept like the others; none is written anywhere, or logged, and
//! each is wiped when it is forgotten.

use std::sync::Arc;

use axum::body::{Body, HttpBody as _};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http_body_util::BodyExt as _;
use posthaste_core::limits::ANSWER_BYTES_MAX;
use posthaste_core::time::Timestamp;
use zeroize::Zeroizing;

use super::auth::Caller;
use super::body::whole;
use super::events::idempotency_key;
use super::problem::{Body as Told, Problem};
use crate::clock::Clock;

mod answers;

use answers::{Answer, Answers, Claim, Refused};

/// It has its own.
const EVENTS: &str = "/v1/tenants/{tenant}/events";
/// Says that an answer was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// What was asked with a key, and answered.
pub(super) struct Once {
    answers: Answers,
    clock: Clock,
}

impl Once {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            answers: Answers::default(),
            clock,
        }
    }
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
    let caller = caller.ok_or_else(Problem::unauthorized)?.scope();
    let (parts, body) = request.into_parts();
    let body = whole(body).await?;
    let based = parts.headers.get(header::IF_MATCH);
    let claim = Claim::of(
        &caller,
        key,
        &[
            parts.uri.path().as_bytes(),
            parts.uri.query().unwrap_or_default().as_bytes(),
            based.map_or(&[], HeaderValue::as_bytes),
            &body,
        ],
    );
    let now = all.clock.now();
    if let Some(answer) = all.answers.begin(&claim, now)? {
        return Ok(again(&answer));
    }
    let under_way = UnderWay { all, claim, now };
    let request = Request::from_parts(parts, Body::from(body));
    let task = tokio::spawn(async move { under_way.keep(next.run(request).await).await });
    task.await
        .map_err(|_| Problem::unavailable("the request ended without an answer"))
}

/// A key whose request is under way. It is free again unless an answer is kept.
struct UnderWay {
    all: Arc<Once>,
    claim: Claim,
    now: Timestamp,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.all.answers.release(&self.claim);
    }
}

impl UnderWay {
    async fn keep(self, response: Response) -> Response {
        let status = response.status();
        let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status);
        let length = response.body().size_hint().exact();
        let short = length.is_some_and(|length| length <= ANSWER_BYTES_MAX as u64);
        if status.is_server_error() || refused || !short {
            return response;
        }
        let (parts, body) = response.into_parts();
        let Ok(body) = body.collect().await else {
            return Problem::unavailable("the answer did not come whole").into_response();
        };
        let body = body.to_bytes();
        let answer = Answer {
            status,
            headers: parts.headers.clone(),
            told: parts.extensions.get::<Told>().cloned(),
            body: Zeroizing::new(body.to_vec()),
        };
        self.all.answers.keep(&self.claim, answer, self.now);
        Response::from_parts(parts, Body::from(body))
    }
}

/// An answer once more; the problem in one names the request that hears it.
fn again(answer: &Answer) -> Response {
    let mut response = Response::new(Body::from(answer.body.to_vec()));
    *response.status_mut() = answer.status;
    response.headers_mut().clone_from(&answer.headers);
    let replayed = HeaderValue::from_static("true");
    response.headers_mut().insert(REPLAYED, replayed);
    if let Some(told) = &answer.told {
        response.extensions_mut().insert(told.clone());
    }
    response
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
