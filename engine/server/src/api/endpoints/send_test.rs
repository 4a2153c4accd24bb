//! One request to an endpoint now, for whoever mends it: does it arrive, and
//! what is answered?
//!
//! It goes out as a question of `verification` does, through the same wall, and
//! whatever the endpoint's status: while it is paused or disabled it is needed
//! most. It brings no event: nothing is recorded of it, and nothing follows.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use posthaste_core::event::check_event_type;
use posthaste_core::id::generate_test_id;
use posthaste_core::limits::TIMEOUT_MAX;
use posthaste_core::outcome::{Cause, Verdict};
use posthaste_core::rng::Rng;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::find;
use crate::api::Api;
use crate::api::body::Whole;
use crate::api::deliveries::record::Failure;
use crate::api::document::{codes, values};
use crate::api::operations::lane::read_optional;
use crate::api::problem::{Problem, Segments};
use crate::api::verification::{busy, made_up, send};
use crate::clock::random_seed;
use crate::config::format_rfc3339;

/// The type and the body of a test that says neither.
const TYPE: &str = "test";
const BODY: &str = "{\"test\":true}";

/// What to send.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = EndpointTest)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// The type it is sent as; `test` when it is absent.
    event_type: Option<String>,
    /// The body, byte for byte as it stands here. When it is absent, the first
    /// example of that type, or `{"test":true}` where there is none.
    #[schema(value_type = Option<serde_json::Value>)]
    body: Option<Box<RawValue>>,
}

/// What came back.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EndpointTested)]
struct Tested {
    /// Whether it answered 2xx.
    passed: bool,
    /// `null` without a response.
    #[schema(required = true)]
    status: Option<u16>,
    /// `null` when it passed.
    #[schema(required = true)]
    error: Option<Failure>,
    /// From looking its host up to its response.
    duration_us: u64,
    /// The response's first bytes.
    #[schema(required = true)]
    response_excerpt: Option<String>,
    sent: Sent,
}

/// What was sent.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EndpointTestSent)]
struct Sent {
    /// The `webhook-id`, which begins with `test_`.
    #[schema(examples("test_01M8A8SH3159FXXNQ369DY9HAB"))]
    id: String,
    #[serde(rename = "type")]
    event_type: String,
    /// The time that it carries and that was signed.
    #[schema(value_type = values::Time)]
    at: String,
    body: Source,
    /// Of the body.
    bytes: usize,
}

/// Where the body is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = EndpointTestBody)]
#[serde(rename_all = "snake_case")]
enum Source {
    /// The request.
    Given,
    /// The first example of its type.
    Example,
    /// There was neither.
    Default,
}

/// Sends an endpoint one signed request now, and tells what came back.
///
/// It is sent by HTTP/1.1 on a connection of its own, also to an endpoint that is
/// paused or disabled, within the endpoint's own timeout. Its `webhook-id` begins
/// with `test_`. It is no delivery: it is not tried again, not recorded among
/// attempts, and says nothing to the endpoint's breaker.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant}/endpoints/{endpoint}/test",
    operation_id = "test_endpoint",
    tag = "Endpoints",
    request_body = Option<Asked>,
    responses(
        (status = 200, description = "What was sent, and what came back.", body = Tested),
        codes::PayloadTooLarge,
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub async fn send_test(
    State(api): State<Arc<Api>>,
    Segments((tenant, name)): Segments<(String, String)>,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    let endpoint = find(&api, &tenant, &name)?;
    let asked: Asked = read_optional(&body)?;
    let event_type = asked.event_type.as_deref().unwrap_or(TYPE);
    check_event_type(event_type)
        .map_err(|error| Problem::invalid("event_type", error.to_string()))?;
    let (source, body) = body_of(&api, event_type, asked.body);
    let bytes = body.len();
    let now = api.clock.now();
    let id = generate_test_id(now, &mut Rng::new(random_seed()));
    let event = made_up(&endpoint, id, event_type, body, now);
    event.check()?;
    let turn = api.verifications.try_acquire();
    let _turn = turn.map_err(|_| Problem::unavailable(busy()))?;
    let began = Instant::now();
    let attempted = send(&api, &endpoint, &event, TIMEOUT_MAX).await;
    let took = began.elapsed();
    let outcome = attempted.outcome;
    let cause = outcome.cause.map_or("", Cause::code);
    tracing::info!(endpoint = %endpoint.id, id = %event.id, cause, "sent a test");
    let excerpt = String::from_utf8_lossy(&attempted.excerpt);
    let tested = Tested {
        passed: outcome.verdict == Verdict::Delivered,
        status: outcome.status,
        error: Failure::of(cause),
        duration_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        response_excerpt: (!excerpt.is_empty()).then(|| excerpt.into_owned()),
        sent: Sent {
            id: event.id.to_string(),
            event_type: event.event_type.to_string(),
            at: format_rfc3339(now),
            body: source,
            bytes,
        },
    };
    Ok(Json(tested).into_response())
}

/// What to send, and where it is from.
fn body_of(api: &Api, event_type: &str, given: Option<Box<RawValue>>) -> (Source, String) {
    if let Some(given) = given {
        return (Source::Given, given.get().to_owned());
    }
    let known = api.endpoints.catalog().event_types().get(event_type);
    match known.and_then(|known| known.record.examples.first().cloned()) {
        Some(example) => (Source::Example, example),
        None => (Source::Default, BODY.to_owned()),
    }
}
