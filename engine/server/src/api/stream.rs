//! Events pulled instead of pushed, for receivers that cannot be called: what an
//! endpoint wants of the source topics, in the order of each partition, from a
//! cursor on that the client keeps. Nothing is kept here, and nothing is
//! delivered or settled by it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use posthaste_core::content::View;
use posthaste_core::endpoint::Endpoint;
use posthaste_core::event::Event;
use posthaste_core::limits::{
    LOOK_TIME_MAX, PULL_BYTES_MAX, PULL_LOOK_EVERY, PULL_PAGE_DEFAULT, PULL_PAGE_MAX, PULL_WAIT_MAX,
};
use posthaste_core::replay::is_for;
use posthaste_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep_until, timeout};
use utoipa::ToSchema;

use super::Api;
use super::dead_letters::read_time;
use super::document::{codes, values};
use super::endpoints::find;
use super::filters::topics_of;
use super::look::{Ahead, Budget, Piece};
use super::page::{no_cursor, read_limit};
use super::problem::{Asked, Problem, Segments};
use crate::config::{format_rfc3339, format_rfc3339_millis, parse_duration};
use crate::log::{Offset, Record};

mod cursor;
mod ends;

use cursor::{Cursor, Standing};
pub(super) use ends::Pulls;

/// From where on, and how many.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Pull {
    /// The `next_cursor` of the answer before.
    #[param(nullable = false)]
    cursor: Option<String>,
    /// Without a cursor: events since then; without either, only what comes from now on.
    #[param(value_type = Option<values::Moment>, nullable = false)]
    since: Option<String>,
    #[param(schema_with = values::page_limit::<PULL_PAGE_DEFAULT, PULL_PAGE_MAX>)]
    limit: Option<usize>,
    /// When there is nothing, wait so long for something to come: at most `30s`.
    #[param(value_type = Option<values::Duration>, nullable = false)]
    wait: Option<String>,
}

/// Events, and where to go on.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PulledEvents)]
struct Pulled {
    /// Those of one partition in its order.
    data: Vec<Item>,
    /// For the next call. Keep it when these events are taken care of: asked with the same
    /// cursor again, they come again.
    next_cursor: String,
    /// Whether more stands there already: ask again at once.
    has_more: bool,
    /// Whether events were gone before they were pulled: the log keeps them for so long alone.
    truncated: bool,
}

/// An event to be pulled.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PulledEvent)]
struct Item {
    /// The `webhook-id` of its deliveries: by it, know what came before.
    id: String,
    #[serde(rename = "type")]
    event_type: String,
    /// The time of its record.
    #[schema(value_type = values::Time)]
    time: String,
    content_type: String,
    /// The body, where it is JSON …
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    data: Option<Box<RawValue>>,
    /// … and where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    data_base64: Option<String>,
    origin: Origin,
}

/// Where an event stands in the log.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventOrigin)]
struct Origin {
    topic: String,
    partition: u32,
    offset: u64,
}

/// Pulls an endpoint's events, instead of having them delivered.
///
/// The same events as a replay would bring: those of the tenant that the endpoint's types and
/// filter let pass, now, whatever its status. A disabled endpoint gets no deliveries and can be
/// pulled. Events come in the order of each partition, at least once; the server keeps no
/// position, the client keeps the cursor.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant}/endpoints/{endpoint}/stream",
    operation_id = "pull_events",
    tag = "Endpoints",
    params(Pull),
    responses(
        (status = 200, description = "Events, or none within the time.", body = Pulled),
        codes::Invalid,
        codes::TooManyPulls,
        codes::Unavailable,
    ),
)]
pub(super) async fn pull(
    State(api): State<Arc<Api>>,
    Segments((tenant, name)): Segments<(String, String)>,
    Asked(asked): Asked<Pull>,
) -> Result<Response, Problem> {
    find(&api, &tenant, &name)?;
    let (api, now, began) = (&*api, api.clock.now(), Instant::now());
    let limit = read_limit(asked.limit.unwrap_or(PULL_PAGE_DEFAULT), PULL_PAGE_MAX)?;
    let until = began + read_wait(asked.wait.as_deref())?;
    let from = From::read(asked, now)?;
    let _call = api.pulls.enter(&tenant)?;
    let names = topics_of(api, Some(&tenant));
    let log = &*api.log;
    let mut topics = api.pulls.topics(api, &names, began).await?;
    let mut standing = match &from {
        From::Cursor(cursor) => cursor.stand(log, &topics).await?,
        From::Since(since) => Standing::since(log, &topics, *since, now).await?,
        From::Now => Standing::at_the_end(&topics),
    };
    loop {
        // As it is by now, if it still is.
        let endpoint = find(api, &tenant, &name)?;
        let is_last = Instant::now() >= until || api.stop.is_cancelled();
        let seen = api.clock.now();
        let data = read(api, &endpoint, &mut standing, limit).await?;
        let has_more = standing.is_behind();
        let cursor = standing.cursor(seen)?;
        if is_last || has_more || standing.truncated || !data.is_empty() {
            let pulled = Pulled {
                data,
                next_cursor: cursor.to_string(),
                has_more,
                truncated: standing.truncated,
            };
            return Ok(Json(pulled).into_response());
        }
        tokio::select! {
            () = sleep_until(until.min(Instant::now() + PULL_LOOK_EVERY)) => {}
            () = api.stop.cancelled() => {}
        }
        // One answer of the log is fresh enough for all who wait.
        let now = Instant::now();
        let fresh = now.checked_sub(PULL_LOOK_EVERY).unwrap_or(now);
        topics = api.pulls.topics(api, &names, fresh).await?;
        standing = cursor.stand(log, &topics).await?;
    }
}

/// Where a call begins.
enum From {
    Cursor(Cursor),
    Since(Timestamp),
    Now,
}

impl From {
    fn read(asked: Pull, now: Timestamp) -> Result<Self, Problem> {
        let Pull { cursor, since, .. } = asked;
        let wrong = |detail: String| Problem::invalid("since", detail);
        match (cursor, since) {
            (Some(_), Some(_)) => Err(wrong("expected none beside `cursor`".to_owned())),
            (Some(cursor), None) => {
                let read = cursor.parse().map_err(|_| no_cursor());
                read.map(Self::Cursor)
            }
            (None, Some(since)) => {
                let since = read_time(&since, now).map_err(wrong)?;
                if since > now {
                    let (then, now) = (format_rfc3339(since), format_rfc3339(now));
                    return Err(wrong(format!(
                        "{then} is in the future: expected a time before {now}"
                    )));
                }
                Ok(Self::Since(since))
            }
            (None, None) => Ok(Self::Now),
        }
    }
}

fn read_wait(text: Option<&str>) -> Result<Duration, Problem> {
    let Some(text) = text else {
        return Ok(Duration::ZERO);
    };
    let wait = parse_duration(text)
        .ok()
        .filter(|wait| *wait <= PULL_WAIT_MAX);
    wait.ok_or_else(|| {
        let most = PULL_WAIT_MAX.as_secs();
        let wanted = format!("expected a time such as \"20s\", at most {most}s");
        Problem::invalid("wait", wanted)
    })
}

/// What is read of the log for one answer.
struct Page<'a> {
    api: &'a Api,
    endpoint: &'a Endpoint,
    limit: usize,
    data: Vec<Item>,
    bytes: usize,
}

/// The endpoint's events from there on, and where that led.
async fn read(
    api: &Api,
    endpoint: &Endpoint,
    standing: &mut Standing,
    limit: usize,
) -> Result<Vec<Item>, Problem> {
    if !standing.is_behind() {
        return Ok(Vec::new());
    }
    let Ok(Ok(_turn)) = timeout(LOOK_TIME_MAX, api.pulls.reads.acquire()).await else {
        let busy = "too much is pulled here just now: try again";
        return Err(Problem::too_many_pulls(busy));
    };
    let mut page = Page {
        api,
        endpoint,
        limit,
        data: Vec::new(),
        bytes: 0,
    };
    let first = standing.turn.min(standing.stretches.len());
    let (behind, ahead) = standing.stretches.split_at(first);
    let mut ahead = Ahead::over(&*api.log, ahead.iter().chain(behind).cloned());
    let mut budget = Budget::new();
    'look: while let Some(pieces) = ahead.next(&mut budget).await? {
        for piece in &pieces {
            let end = page.take(piece);
            let all = ahead.next_of(&piece.tp);
            let mut parts = standing.stretches.iter_mut().enumerate();
            let Some((number, part)) = parts.find(|(_, part)| part.tp == piece.tp) else {
                continue;
            };
            // What of this was not taken, and the other pieces, are read again.
            part.next = end.or(all).unwrap_or(part.next);
            if end.is_some() {
                standing.turn = number + 1;
                break 'look;
            }
        }
    }
    standing.truncated |= ahead.truncated();
    Ok(page.data)
}

impl Page<'_> {
    /// Takes what the endpoint wants of these; answers the offset of the first
    /// record that has no room, if there is one.
    fn take(&mut self, piece: &Piece) -> Option<Offset> {
        for record in &piece.records {
            let Some(event) = self.wanted(piece, record) else {
                continue;
            };
            let bytes = self.bytes + event.body.len();
            let is_full = self.data.len() >= self.limit || bytes > PULL_BYTES_MAX;
            if is_full && !self.data.is_empty() {
                return Some(record.offset);
            }
            self.bytes = bytes;
            self.data.push(Item::of(&event));
        }
        None
    }

    /// The event that a record holds, if the endpoint wants it.
    fn wanted(&self, piece: &Piece, record: &Record) -> Option<Event> {
        let event = self.api.decoder.decode(&piece.tp, record).ok()?;
        let view = View {
            event_type: &event.event_type,
            headers: &record.headers,
            body: &event.body,
        };
        is_for(self.endpoint, &event.tenant, &view).then_some(event)
    }
}

impl Item {
    fn of(event: &Event) -> Self {
        let origin = &event.origin;
        let data = json(event);
        Self {
            id: event.id.to_string(),
            event_type: event.event_type.to_string(),
            time: format_rfc3339_millis(origin.timestamp),
            content_type: event.content_type.to_string(),
            data_base64: data.is_none().then(|| BASE64_STANDARD.encode(&event.body)),
            data,
            origin: Origin {
                topic: origin.topic.to_string(),
                partition: origin.partition,
                offset: origin.offset,
            },
        }
    }
}

/// The body as the JSON it is and says it is.
fn json(event: &Event) -> Option<Box<RawValue>> {
    let kind = event.content_type.split(';').next().unwrap_or_default();
    let kind = kind.trim().to_ascii_lowercase();
    let says_so = kind.ends_with("/json") || kind.ends_with("+json");
    let is_so = || serde_json::from_slice::<&RawValue>(&event.body).ok();
    says_so.then(is_so)?.map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests;
