//! Resends: one event again, by its place in the log, whether its endpoint wants
//! it or not.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use posthaste_core::endpoint::Endpoint;
use posthaste_core::operation::{Kind, Operation, Range};
use serde::Deserialize;
use utoipa::ToSchema;

use super::replay::check_takes;
use super::{Accepted, accepted, begin, new};
use crate::api::Api;
use crate::api::auth::Caller;
use crate::api::body::{Whole, read_json};
use crate::api::document::codes;
use crate::api::endpoints::{find, find_any};
use crate::api::filters::topics_of;
use crate::api::problem::{Problem, Segments};
use crate::log::{Offset, TopicPartition};

/// An event's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::api) struct Place {
    pub(in crate::api) topic: String,
    pub(in crate::api) partition: u32,
    pub(in crate::api) offset: Offset,
}

/// An event's place, and whom to send it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Resend {
    /// Its id; where the tenant is named, its uid does too. The path of an
    /// endpoint names it already.
    endpoint_id: Option<String>,
    tenant: Option<String>,
    /// The source topic, …
    topic: String,
    /// … its partition, …
    partition: u32,
    /// … and the event's offset there.
    #[schema(value_type = u64)]
    offset: Offset,
}

/// Sends an event again to an endpoint the body names.
#[utoipa::path(
    post,
    path = "/v1/resends",
    operation_id = "resend_event",
    tag = "Operations",
    request_body = Resend,
    responses(
        Accepted,
        codes::NotFound,
        codes::TooManyOperations,
        codes::EndpointDisabled,
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    let asked: Resend = read_json(&body)?;
    let name = asked.endpoint_id.as_deref().unwrap_or_default();
    let endpoint = find_any(&api, "endpoint_id", asked.tenant.as_deref(), name)?;
    start(&api, &endpoint, &asked.place(), &caller).await
}

/// Sends an event again to the endpoint of the path.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant}/endpoints/{endpoint}/resends",
    operation_id = "resend_event_to_endpoint",
    tag = "Operations",
    request_body = Resend,
    responses(
        Accepted,
        codes::TooManyOperations,
        codes::EndpointDisabled,
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub async fn create_for(
    State(api): State<Arc<Api>>,
    Segments((tenant, name)): Segments<(String, String)>,
    caller: Caller,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    let endpoint = find(&api, &tenant, &name)?;
    let asked: Resend = read_json(&body)?;
    super::replay::refuse_names(asked.endpoint_id.as_ref(), asked.tenant.as_ref())?;
    start(&api, &endpoint, &asked.place(), &caller).await
}

/// Sends the event there again, if it is one of the endpoint's tenant.
pub(in crate::api) async fn start(
    api: &Api,
    endpoint: &Endpoint,
    place: &Place,
    caller: &Caller,
) -> Result<Response, Problem> {
    check_takes(endpoint)?;
    check_place(api, endpoint, place).await?;
    let operation = of(api, endpoint, place, caller);
    begin(api, &operation, &caller.by()).await?;
    Ok(accepted(operation, &[]))
}

/// The resend of one event.
pub(in crate::api) fn of(
    api: &Api,
    endpoint: &Endpoint,
    place: &Place,
    caller: &Caller,
) -> Operation {
    Operation {
        ranges: vec![Range {
            topic: place.topic.clone(),
            partition: place.partition,
            from: place.offset,
            to: place.offset + 1,
            ..Range::default()
        }],
        any: true,
        ..new(api, endpoint, Kind::Replay, caller)
    }
}

impl Resend {
    fn place(self) -> Place {
        Place {
            topic: self.topic,
            partition: self.partition,
            offset: self.offset,
        }
    }
}

/// Whether an event of the endpoint's tenant is there: what else is in the log is
/// not for whoever may send to this endpoint to find out.
async fn check_place(api: &Api, endpoint: &Endpoint, asked: &Place) -> Result<(), Problem> {
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
        .map(|_| ())
        .ok_or_else(none)
}
