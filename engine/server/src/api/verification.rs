//! Asking a receiver whether it wants what an endpoint would send it: a ping,
//! as GitHub sends one, or a challenge, as Slack does.
//!
//! It is one attempt, signed by the endpoint's scheme, through the same wall as
//! every delivery, and bounded in time and bytes. The caller is told what came
//! back by its cause and status; a byte of it never.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use posthaste_core::endpoint::{Endpoint, Verify};
use posthaste_core::event::{Event, JSON, Origin};
use posthaste_core::id::generate_event_id;
use posthaste_core::limits::{CHALLENGE_RANDOM_BYTES, VERIFICATION_TIME_MAX, VERIFICATIONS_MAX};
use posthaste_core::outcome::{Outcome, Verdict};
use posthaste_core::rng::Rng;
use posthaste_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::Api;
use super::auth::Caller;
use super::document::codes;
use super::endpoints::change::Answered;
use super::endpoints::{Place, answer_asked, find};
use super::problem::{Problem, Segments};
use crate::clock::random_seed;
use crate::send::{Attempt, Attempted, once};

/// [`Verify`] as it is written.
#[derive(Deserialize, Serialize, ToSchema)]
#[schema(as = EndpointVerify)]
#[serde(remote = "Verify", rename_all = "snake_case")]
pub(super) enum VerifyName {
    /// It is not asked.
    None,
    /// It gets one event of the type `ping`, as GitHub sends one.
    Ping,
    /// It is disabled until it answers a challenge, as Slack sends one.
    Challenge,
}

/// What asking a receiver came to.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Verification {
    #[serde(with = "VerifyName")]
    #[schema(value_type = VerifyName)]
    kind: Verify,
    /// Whether it took the ping, or answered the challenge.
    pub(super) passed: bool,
    /// Why not, as attempts say it, or `challenge_not_answered`.
    #[schema(required = true)]
    cause: Option<&'static str>,
    /// Of the response, if one came.
    #[schema(required = true)]
    status: Option<u16>,
    /// For people.
    detail: String,
}

/// Asks an endpoint's receiver again.
///
/// A challenge that is answered enables the endpoint, if that was all it waited
/// for.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant}/endpoints/{endpoint}/verify",
    operation_id = "verify_endpoint",
    tag = "Endpoints",
    responses(
        (
            status = 200,
            description = "The endpoint as it is now, and what its receiver answered.",
            body = Answered,
            headers(("etag" = String, description = "Its version, for `if-match`.")),
        ),
        codes::NothingToVerify,
    ),
)]
pub(super) async fn verify(
    State(api): State<Arc<Api>>,
    Segments((tenant, name)): Segments<(String, String)>,
    caller: Caller,
) -> Result<Response, Problem> {
    let endpoint = find(&api, &tenant, &name)?;
    if endpoint.verify == Verify::None {
        let wanted = "its `verify` is `none`: expected `ping` or `challenge`";
        return Err(Problem::conflict("nothing_to_verify", wanted));
    }
    let (endpoint, verification) = settle(&api, &caller, (*endpoint).clone()).await;
    Ok(answer_asked(&endpoint, verification))
}

/// Asks an endpoint's receiver, and enables the endpoint if it is unverified and
/// its receiver answers the challenge. What fails here is told in the answer: it
/// may be the only one that shows a new endpoint's secret.
pub(super) async fn settle(
    api: &Api,
    caller: &Caller,
    endpoint: Endpoint,
) -> (Endpoint, Option<Verification>) {
    let Some(mut verification) = ask(api, &endpoint).await else {
        return (endpoint, None);
    };
    if !verification.passed || !endpoint.is_unverified() {
        return (endpoint, Some(verification));
    }
    let id = endpoint.id.to_string();
    let place = Place::new(api, &endpoint.tenant, &id, None);
    let enabled = place.change(caller, |present| {
        // Of another URL nothing is known.
        let asked = present.is_unverified() && present.url == endpoint.url;
        Ok(match asked {
            true => present.clone().enabled(),
            false => present.clone(),
        })
    });
    match enabled.await {
        Ok(enabled) => (enabled, Some(verification)),
        Err(problem) => {
            let detail = format!("the endpoint answered, and could not be enabled: {problem}");
            verification.fail("not_enabled", detail);
            (endpoint, Some(verification))
        }
    }
}

/// Asks an endpoint's receiver; `None` if it is not to be asked.
pub(super) async fn ask(api: &Api, endpoint: &Endpoint) -> Option<Verification> {
    let kind = endpoint.verify;
    let (event_type, body, challenge) = match kind {
        Verify::None => return None,
        Verify::Ping => ("ping", ping(endpoint), None),
        Verify::Challenge => {
            let challenge = challenge();
            let token = endpoint.id.to_string();
            let body = json!({"token": token, "challenge": challenge, "type": CHALLENGE_TYPE});
            (CHALLENGE_TYPE, body, Some(challenge))
        }
    };
    let Ok(_turn) = api.verifications.try_acquire() else {
        return Some(Verification::busy(kind));
    };
    let now = api.clock.now();
    let id = generate_event_id(now, &mut Rng::new(random_seed()));
    let event = made_up(endpoint, id, event_type, body.to_string(), now);
    let attempted = send(api, endpoint, &event, VERIFICATION_TIME_MAX).await;
    let answered = challenge.is_none_or(|challenge| is_answer(&attempted.excerpt, &challenge));
    let verification = Verification::of(kind, &attempted.outcome, answered);
    tracing::info!(
        endpoint = %endpoint.id,
        kind = kind.name(),
        passed = verification.passed,
        cause = verification.cause.unwrap_or_default(),
        "asked a receiver"
    );
    Some(verification)
}

/// Slack's, and the type of the event it is sent as.
const CHALLENGE_TYPE: &str = "url_verification";
/// GitHub sends one of its maxims; receivers look whether it is there.
const ZEN: &str = "Responsive is better than fast.";

/// What a ping says: the members of GitHub's that are ours to fill.
fn ping(endpoint: &Endpoint) -> serde_json::Value {
    let events: Vec<_> = endpoint
        .event_types
        .iter()
        .map(ToString::to_string)
        .collect();
    let id = endpoint.id.to_string();
    json!({
        "zen": ZEN,
        "hook_id": id,
        "hook": {
            "id": id,
            "name": endpoint.uid,
            "active": !endpoint.disabled,
            "events": if events.is_empty() { vec!["*".to_owned()] } else { events },
            "config": { "url": endpoint.url, "content_type": "json" },
        },
    })
}

/// Nobody guesses it, and nothing in it needs to be escaped.
fn challenge() -> String {
    let mut random = [0; CHALLENGE_RANDOM_BYTES];
    getrandom::fill(&mut random).expect("the operating system gives randomness");
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An event that comes from no log, and goes into none.
pub(super) fn made_up(
    endpoint: &Endpoint,
    id: String,
    event_type: &str,
    body: String,
    now: Timestamp,
) -> Event {
    Event {
        id: id.into(),
        tenant: endpoint.tenant.as_str().into(),
        event_type: event_type.into(),
        content_type: JSON,
        body: body.into(),
        ordering_key: Bytes::new(),
        origin: Origin {
            topic: "".into(),
            partition: 0,
            offset: 0,
            timestamp: now,
        },
    }
}

/// Makes one attempt to bring it, signed at its own time.
pub(super) async fn send(
    api: &Api,
    endpoint: &Endpoint,
    event: &Event,
    within: Duration,
) -> Attempted {
    let attempt = Attempt {
        event,
        retries: 0,
        last_cause: None,
        now: event.origin.timestamp,
    };
    once(&api.egress, endpoint, attempt, within).await
}

/// Why none is asked now.
pub(super) fn busy() -> String {
    format!("{VERIFICATIONS_MAX} receivers are being asked: try again later")
}

/// Whether a response's body answers a challenge, in one of the three forms that
/// Slack takes: the text alone, `challenge=…`, or `{"challenge": "…"}`. An object
/// with more in it might be the request thrown back, which says nothing.
fn is_answer(body: &[u8], challenge: &str) -> bool {
    let Ok(text) = std::str::from_utf8(body) else {
        return false;
    };
    let text = text.trim();
    let object = || serde_json::from_str::<BTreeMap<String, String>>(text);
    let in_json = || {
        object().is_ok_and(|o| o.len() == 1 && o.get("challenge").is_some_and(|c| c == challenge))
    };
    text == challenge || text.strip_prefix("challenge=") == Some(challenge) || in_json()
}

impl Verification {
    fn of(kind: Verify, outcome: &Outcome, answered: bool) -> Self {
        let passed = outcome.verdict == Verdict::Delivered && answered;
        let (cause, detail) = match outcome.cause {
            Some(cause) => (Some(cause.code()), cause.text()),
            None if answered => (None, "the endpoint answered"),
            None => (
                Some("challenge_not_answered"),
                "the endpoint did not answer with the challenge: expected it as the response's \
                 whole body, as text, as `challenge=...`, or as JSON {\"challenge\": \"...\"}",
            ),
        };
        Self {
            kind,
            passed,
            cause,
            status: outcome.status,
            detail: detail.to_owned(),
        }
    }

    fn busy(kind: Verify) -> Self {
        Self {
            kind,
            passed: false,
            cause: Some("busy"),
            status: None,
            detail: busy(),
        }
    }

    fn fail(&mut self, cause: &'static str, detail: String) {
        (self.passed, self.cause, self.detail) = (false, Some(cause), detail);
    }

    /// Why an endpoint cannot be enabled.
    pub(super) fn into_problem(self) -> Problem {
        let status = self.status.map(|status| format!(" {status}"));
        let (cause, status) = (self.cause.unwrap_or_default(), status.unwrap_or_default());
        let detail = format!(
            "its receiver was asked first ({cause}{status}): {}",
            self.detail
        );
        Problem::conflict("not_verified", detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_answered_in_three_forms_and_no_others() {
        let challenge = "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P";
        let is = |body: &str| is_answer(body.as_bytes(), challenge);
        for good in [
            challenge.to_owned(),
            format!("{challenge}\r\n"),
            format!("challenge={challenge}"),
            format!("{{\"challenge\":\"{challenge}\"}}"),
            format!(" {{ \"challenge\" : \"\\u0033{}\" }}\n", &challenge[1..]),
        ] {
            assert!(is(&good), "{good}");
        }
        for bad in [
            String::new(),
            "ok".to_owned(),
            challenge[1..].to_owned(),
            challenge.to_lowercase(),
            format!("\"{challenge}\""),
            format!("[\"{challenge}\"]"),
            format!("the challenge is {challenge}"),
            format!("challenge={challenge}&ok=true"),
            format!("token=x&challenge={challenge}"),
            format!("{{\"challenge\":[\"{challenge}\"]}}"),
            // The request, thrown back.
            format!(
                "{{\"token\":\"ep_1\",\"challenge\":\"{challenge}\",\"type\":\"url_verification\"}}"
            ),
            format!("{{\"challenge\":\"{challenge}\""),
        ] {
            assert!(!is(&bad), "{bad}");
        }
        assert!(!is_answer(b"\xff", challenge));
    }

    #[test]
    fn challenges_differ_and_need_no_escape() {
        let (one, other) = (challenge(), challenge());
        assert_ne!(one, other);
        assert!(one.len() == 2 * CHALLENGE_RANDOM_BYTES);
        assert!(one.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }
}
