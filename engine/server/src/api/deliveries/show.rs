//! One delivery: how it stands, and why.

use std::collections::BTreeMap;

use axum::Json;
use axum::response::{IntoResponse, Response};
use posthaste_core::gate::GateState;
use posthaste_core::id::DeliveryId;
use posthaste_proto as proto;
use proto::progress::Kind;
use serde::Serialize;
use utoipa::ToSchema;

use super::dead::{self, Letter};
use super::lane::{self, InLane, Standing};
use super::list::Place;
use super::record::{Failure, Recorded, Shown, Trace};
use super::{Found, found, of_delivery};
use crate::api::Api;
use crate::api::document::values;
use crate::api::look::{Bound, Budget, turn};
use crate::api::problem::Problem;
use crate::config::{AuditLevel, format_rfc3339_millis};

/// How a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = DeliveryStatus)]
#[serde(rename_all = "snake_case")]
enum Status {
    /// Nothing is on record of it.
    Pending,
    /// It waits for its endpoint and was never attempted.
    Held,
    /// Its last attempt failed, and it comes again.
    Failing,
    Succeeded,
    Dead,
    Canceled,
    /// The log holds too much since its time.
    Unknown,
}

/// A delivery as it is shown.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Delivery {
    id: String,
    tenant: String,
    endpoint: String,
    /// `active`, `disabled`, `held`, `paused` or `deleted`.
    endpoint_status: &'static str,
    event: String,
    #[serde(rename = "type")]
    event_type: String,
    origin: Place,
    status: Status,
    /// The status in words.
    why: String,
    #[schema(value_type = Option<values::Time>)]
    next_attempt_at: Option<String>,
    attempts: u32,
    last_status: Option<u32>,
    error: Option<Failure>,
    lane: Option<Lane>,
    dead_letter: Option<Letter>,
    /// The attempts on record, in the order they were made.
    history: Vec<Shown>,
    scanned: Scanned,
}

/// What the lane says of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliveryInLane)]
struct Lane {
    state: &'static str,
    partition: u32,
    /// Of its record, where it has one.
    offset: Option<u64>,
    reason: Option<&'static str>,
    #[schema(value_type = Option<values::Time>)]
    since: Option<String>,
    #[schema(value_type = Option<values::Time>)]
    due_at: Option<String>,
}

/// Whether all was looked at that says something of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliveryScanned)]
struct Scanned {
    /// What ended the look at attempts before all were seen.
    attempts_ended_by: Option<Bound>,
    lane: bool,
    dead_letters: bool,
}

/// All that was found of a delivery.
struct Evidence {
    trace: Trace,
    /// Not looked at once it is delivered.
    lane: Option<InLane>,
    letter: Option<Letter>,
    letters_complete: bool,
    endpoint: Endpoint,
}

/// Its endpoint, now.
struct Endpoint {
    status: &'static str,
    reason: String,
}

/// The answer.
pub(super) async fn answer(
    api: &Api,
    tenant: Option<&str>,
    id: DeliveryId,
) -> Result<Response, Problem> {
    let _turn = turn(api)?;
    let found = found(api, tenant, id).await?;
    let evidence = gather(api, &found).await?;
    Ok(Json(evidence.shown(api, found)).into_response())
}

async fn gather(api: &Api, found: &Found) -> Result<Evidence, Problem> {
    let mut evidence = Evidence {
        trace: of_delivery(api, found).await?,
        lane: None,
        letter: None,
        letters_complete: true,
        endpoint: endpoint(api, found),
    };
    if evidence.trace.attempts.iter().any(Recorded::is_delivered) {
        return Ok(evidence);
    }
    let begins = found.begins(api.clock.now());
    let wanted = BTreeMap::from([(found.id, found.endpoint)]);
    let (mut of_lane, mut of_dead) = (Budget::new(), Budget::new());
    let (lane, mut letters) = tokio::try_join!(
        lane::look(api, found, &mut of_lane),
        dead::look(api, &wanted, begins, &mut of_dead),
    )?;
    evidence.lane = Some(lane);
    evidence.letter = letters.of.remove(&found.id);
    evidence.letters_complete = letters.complete || evidence.letter.is_some();
    Ok(evidence)
}

fn endpoint(api: &Api, found: &Found) -> Endpoint {
    let registry = api.endpoints.registry().borrow().clone();
    let ix = registry.index(found.endpoint);
    let known = ix.and_then(|ix| Some((registry.endpoint(ix)?, registry.gate(ix))));
    let (status, reason) = match known {
        None => ("deleted", String::new()),
        Some((endpoint, _)) if endpoint.disabled => ("disabled", endpoint.disabled_reason.clone()),
        Some((_, gate)) => match gate.state {
            GateState::Open => ("active", String::new()),
            GateState::Held => ("held", gate.reason.clone()),
            GateState::Paused => ("paused", gate.reason.clone()),
        },
    };
    Endpoint { status, reason }
}

impl Evidence {
    fn status(&self) -> Status {
        let attempted = !self.trace.attempts.is_empty();
        if self.trace.attempts.iter().any(Recorded::is_delivered) {
            return Status::Succeeded;
        }
        if self.letter.is_some() {
            return Status::Dead;
        }
        match self.lane.as_ref().map(|lane| lane.standing) {
            Some(Standing::Settled(Kind::Done)) => Status::Succeeded,
            Some(Standing::Settled(Kind::Cancelled)) => Status::Canceled,
            Some(Standing::Settled(Kind::Dead | Kind::Expired)) => Status::Dead,
            Some(Standing::Owed(_)) => Status::Failing,
            Some(Standing::Held) if !attempted => Status::Held,
            _ if attempted => Status::Failing,
            Some(Standing::Unknown) => Status::Unknown,
            _ if self.trace.ended_by.is_some() || !self.letters_complete => Status::Unknown,
            _ => Status::Pending,
        }
    }

    /// Some can be made whose record is still on its way.
    fn attempts(&self) -> u32 {
        let recorded = self.trace.attempts.iter().map(|made| made.attempt.number);
        let buried = self.letter.iter().map(|letter| letter.attempts);
        let owed = self.lane.iter().map(|lane| match lane.standing {
            Standing::Owed(owed) => owed.attempts,
            _ => 0,
        });
        recorded.chain(buried).chain(owed).max().unwrap_or(0)
    }

    /// The status in words.
    fn why(&self, status: Status, audit: AuditLevel) -> String {
        let last = self.trace.attempts.last();
        let failure = last.and_then(|last| Failure::of(&last.attempt.cause));
        let failed = failure.map_or_else(String::new, |failure| failure.text.to_owned());
        match status {
            Status::Succeeded => "the endpoint took it".to_owned(),
            Status::Dead => match &self.letter {
                Some(letter) if failed.is_empty() => format!("given up: {}", letter.detail),
                Some(letter) => format!("given up: {}; last: {failed}", letter.detail),
                None => "given up with others of its endpoint: too old".to_owned(),
            },
            Status::Failing if failed.is_empty() => "it failed and comes again".to_owned(),
            Status::Failing => failed,
            Status::Canceled => {
                "cancelled: its endpoint was deleted, or an operator said so".to_owned()
            }
            Status::Held => self.why_held(),
            Status::Pending if audit == AuditLevel::All => {
                "nothing is on record of it: it waits for its first attempt, or its endpoint did \
                 not want it when it came"
                    .to_owned()
            }
            Status::Pending => {
                "nothing is on record of it, where not all attempts are kept (`audit`)".to_owned()
            }
            Status::Unknown => {
                "not known: the log holds too much since its time to look through at once"
                    .to_owned()
            }
        }
    }

    fn why_held(&self) -> String {
        let Endpoint { status, reason } = &self.endpoint;
        match (*status, reason.as_str()) {
            ("active", _) => "it waits for its turn at its endpoint".to_owned(),
            (status, "") => format!("it waits for its endpoint, which is {status}"),
            (status, reason) => format!("it waits for its endpoint, which is {status}: {reason}"),
        }
    }

    fn shown(self, api: &Api, found: Found) -> Delivery {
        let status = self.status();
        let last = self.trace.attempts.last().map(|last| &last.attempt);
        let due = match self.lane.as_ref().map(|lane| lane.standing) {
            Some(Standing::Owed(owed)) => Some(format_rfc3339_millis(owed.due)),
            _ => None,
        };
        Delivery {
            id: found.id.to_string(),
            endpoint: found.endpoint.to_string(),
            endpoint_status: self.endpoint.status,
            origin: Place::from(&found.origin),
            tenant: found.tenant,
            event: found.event_id,
            event_type: found.event_type,
            status,
            why: self.why(status, api.config.audit),
            next_attempt_at: due.clone().filter(|_| status == Status::Failing),
            attempts: self.attempts(),
            last_status: last.map(|last| last.status).filter(|status| *status > 0),
            error: last.and_then(|last| Failure::of(&last.cause)),
            scanned: Scanned {
                attempts_ended_by: self.trace.ended_by,
                lane: !matches!(&self.lane, Some(lane) if lane.standing == Standing::Unknown),
                dead_letters: self.letters_complete,
            },
            lane: self.lane.map(|lane| shown_lane(lane, due)),
            dead_letter: self.letter,
            history: self.trace.attempts.iter().map(Recorded::shown).collect(),
        }
    }
}

fn shown_lane(lane: InLane, due_at: Option<String>) -> Lane {
    Lane {
        state: match lane.standing {
            Standing::Absent => "absent",
            Standing::Owed(_) => "owed",
            Standing::Held => "held",
            Standing::Settled(_) => "settled",
            Standing::Unknown => "unknown",
        },
        partition: lane.partition,
        offset: lane.places.first().copied(),
        reason: lane.reason.and_then(reason_name),
        since: lane.since.map(format_rfc3339_millis),
        due_at,
    }
}

/// Why a delivery is in the lane.
fn reason_name(reason: proto::Reason) -> Option<&'static str> {
    use proto::Reason;
    Some(match reason {
        Reason::Unspecified => return None,
        Reason::Retry => "retry",
        Reason::Overflow => "overflow",
        Reason::Gate => "gate",
        Reason::Owned => "owned",
        Reason::Replay => "replay",
        Reason::Resend => "resend",
        Reason::Moved => "moved",
        Reason::Drain => "drain",
    })
}
