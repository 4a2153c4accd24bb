//! Resends: one event again, by its place in the log, whether its endpoint wants
//! it or not.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use posthaste_core::endpoint::Endpoint;
use posthaste_core::operation::{Kind, Operation, Range};
use serde::Deserialize;

use super::replay::check_takes;
use super::{accepted, begin, new};
use crate::api::Api;
use crate::api::auth::Caller;
use crate::api::body::{Whole, read_json};
use crate::api::endpoints::{find, find_any};
use crate::api::filters::topics_of;
use crate::api::problem::{Problem, Segments};
use crate::log::{Offset, TopicPartition};

/// An event's place, and whom to send it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resend {
    /// Its id; where the tenant is named, its uid does too. The path of an
    /// endpoint names it already.
    endpoint_id: Option<String>,
    tenant: Option<String>,
    topic: String,
    partition: u32,
    offset: Offset,
}

/// Sends an event again to an endpoint the body names.
pub async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    let asked: Resend = read_json(&body)?;
    let name = asked.endpoint_id.as_deref().unwrap_or_default();
    let endpoint = find_any(&api, "endpoint_id", asked.tenant.as_deref(), name)?;
    start(&api, &endpoint, asked, &caller).await
}

/// Sends an event again to the endpoint of the path.
pub async fn create_for(
    State(api): State<Arc<Api>>,
    Segments((tenant, name)): Segments<(String, String)>,
    caller: Caller,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    let endpoint = find(&api, &tenant, &name)?;
    let asked: Resend = read_json(&body)?;
    super::replay::refuse_names(asked.endpoint_id.as_ref(), asked.tenant.as_ref())?;
    start(&api, &endpoint, asked, &caller).await
}

async fn start(
    api: &Api,
    endpoint: &Endpoint,
    asked: Resend,
    caller: &Caller,
) -> Result<Response, Problem> {
    check_takes(endpoint)?;
    let place = place_of(api, endpoint, &asked).await?;
    let range = Range {
        topic: place.topic.to_string(),
        partition: place.partition,
        from: asked.offset,
        to: asked.offset + 1,
    };
    let operation = Operation {
        ranges: vec![range],
        any: true,
        ..new(api, endpoint, Kind::Replay, caller)
    };
    begin(api, &operation, &caller.by()).await?;
    Ok(accepted(operation, &[]))
}

/// Where the event is, if it is one of the endpoint's tenant: what else is in
/// the log is not for whoever may send to this endpoint to find out.
async fn place_of(
    api: &Api,
    endpoint: &Endpoint,
    asked: &Resend,
) -> Result<TopicPartition, Problem> {
    let topics = topics_of(api, Some(&endpoint.tenant));
    let Some(topic) = topics.into_iter().find(|topic| **topic == *asked.topic) else {
        let wanted = "expected one of the topics that events are read from";
        return Err(Problem::invalid("topic", wanted));
    };
    let partitions = api.log.describe(&topic).await?.partitions;
    if asked.partition >= partitions {
        let wanted = format!("expected 0 to {}", partitions.saturating_sub(1));
        return Err(Problem::invalid("partition", wanted));
    }
    let place = TopicPartition {
        topic,
        partition: asked.partition,
    };
    let none = || Problem::not_found("no event of the endpoint's tenant is there");
    let (start, end) = api.log.bounds(&place).await?;
    if !(start..end).contains(&asked.offset) {
        return Err(none());
    }
    // At least one record is read.
    let (records, _) = api.log.read(&place, asked.offset, 1).await?;
    let record = records.into_iter().find(|one| one.offset == asked.offset);
    let event = record.and_then(|record| api.decoder.decode(&place, &record).ok());
    event
        .filter(|event| *event.tenant == *endpoint.tenant)
        .map(|_| place)
        .ok_or_else(none)
}
