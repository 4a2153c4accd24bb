//! Lists of what one endpoint is owed, in the order it came to its lane.

use std::ops::ControlFlow;

use axum::Json;
use axum::response::{IntoResponse, Response};
use posthaste_core::delivery::event_of;
use posthaste_core::event::check_tenant;
use posthaste_core::limits::{LOOK_PAGE_DEFAULT, LOOK_PAGE_MAX};
use posthaste_core::timers::Owed;
use posthaste_proto as proto;
use posthaste_proto::Record as _;

use super::{Deliveries, Entry, Failure, Listing, Place, Scanned, Status, time};
use crate::api::Api;
use crate::api::endpoints::find_any;
use crate::api::look::owed::{Owing, Waits};
use crate::api::look::{Budget, turn};
use crate::api::page::{no_cursor, read_limit};
use crate::api::problem::Problem;
use crate::config::format_rfc3339_millis;
use crate::log::{Offset, Record};

/// Before the offset in a cursor: those of other lists begin with a digit.
const CURSOR: char = 'o';

impl Status {
    /// What a delivery that stands so is waiting for, where the lane alone says
    /// that it is owed.
    pub(super) fn waits(self) -> Option<Waits> {
        match self {
            Self::Scheduled => Some(Waits::Scheduled),
            Self::Held => Some(Waits::Held),
            Self::Succeeded | Self::Failing | Self::Dead => None,
        }
    }
}

/// One page.
pub(super) async fn page(
    api: &Api,
    listing: &Listing,
    status: Status,
    waits: Waits,
) -> Result<Response, Problem> {
    let limit = read_limit(listing.limit.unwrap_or(LOOK_PAGE_DEFAULT), LOOK_PAGE_MAX)?;
    let from = listing.cursor.as_deref().map_or(Ok(0), read_cursor)?;
    let endpoint = listing.one_endpoint()?;
    let endpoint = find_any(api, "endpoint", listing.tenant.as_deref(), endpoint)?;
    let _turn = turn(api)?;
    let owing = Owing::open(api, endpoint.id).await?;
    let mut data = Vec::new();
    let take = |record: &Record, owed: Owed| {
        let deliver = proto::Deliver::from_value(&record.value).unwrap_or_default();
        if !listing.is_of(&deliver) {
            return ControlFlow::Continue(());
        }
        if data.len() == limit {
            return ControlFlow::Break(());
        }
        data.push(entry(status, &deliver, &owed));
        ControlFlow::Continue(())
    };
    let rest = owing.each(waits, from, &mut Budget::new(), take).await?;
    let answer = Deliveries {
        data,
        has_more: rest.is_some(),
        next_cursor: rest.map(|rest| format!("{CURSOR}{}", rest.from)),
        scanned: Scanned {
            since: None,
            until: format_rfc3339_millis(api.clock.now()),
            ended_by: rest.and_then(|rest| rest.ended_by),
            dead_letters: true,
        },
    };
    Ok(Json(answer).into_response())
}

impl Listing {
    /// The endpoint that has to be named, where nothing is that says of attempts.
    fn one_endpoint(&self) -> Result<&str, Problem> {
        if let Some(tenant) = &self.tenant {
            check_tenant(tenant)?;
        }
        for (param, said) in [
            ("error_code", &self.error_code),
            ("since", &self.since),
            ("until", &self.until),
        ] {
            if said.is_some() {
                let wanted = "expected none beside the status `held` or `scheduled`: it is of \
                              attempts";
                return Err(Problem::invalid(param, wanted));
            }
        }
        self.endpoint.as_deref().ok_or_else(|| {
            let wanted = "expected an endpoint's id, or its uid together with its tenant: what is \
                          `held` or `scheduled` is listed of one endpoint";
            Problem::invalid("endpoint", wanted)
        })
    }

    fn is_of(&self, deliver: &proto::Deliver) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|w| w == found);
        is(&self.event, &deliver.event_id) && is(&self.event_type, &deliver.event_type)
    }
}

fn read_cursor(text: &str) -> Result<Offset, Problem> {
    let offset = text.strip_prefix(CURSOR);
    let offset = offset.and_then(|offset| offset.parse().ok());
    offset.ok_or_else(no_cursor)
}

fn entry(status: Status, deliver: &proto::Deliver, owed: &Owed) -> Entry {
    // The record tells of the attempt it was written after, not of later ones.
    let is_last = deliver.attempt == owed.attempts && deliver.reason() != proto::Reason::Moved;
    let last = is_last.then_some(deliver);
    Entry {
        id: owed.delivery.to_string(),
        tenant: deliver.tenant.clone(),
        endpoint: owed.endpoint.to_string(),
        event: deliver.event_id.clone(),
        event_type: deliver.event_type.clone(),
        status,
        attempts: owed.attempts,
        last_status: last.map(|last| last.last_status).filter(|of| *of > 0),
        error: last.and_then(|last| Failure::of(&last.last_cause)),
        first_attempt_at: None,
        last_attempt_at: None,
        next_attempt_at: time(owed.due.as_millis()),
        dead_letter: None,
        origin: Place::from(&event_of(deliver).origin),
    }
}
