//! Which dead letters are meant.

use posthaste_core::id::EndpointId;
use posthaste_core::lane::partition_of;
use posthaste_core::shard::DEAD_CAUSES;
use posthaste_core::time::Timestamp;
use posthaste_proto as proto;
use serde::Deserialize;
use utoipa::ToSchema;

use super::scan::Told;
use crate::api::Api;
use crate::api::document::values;
use crate::api::look::{CLOCKS_APART, before};
use crate::api::problem::Problem;
use crate::config::{Topics, parse_duration, parse_rfc3339};

/// What a request says about them; what it does not say is not asked for.
#[derive(Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[schema(as = DeadLetterFilter)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    pub(super) tenant: Option<String>,
    /// An id; a uid where the tenant is named.
    pub(super) endpoint: Option<String>,
    #[schema(value_type = Option<values::DeadCause>)]
    pub(super) cause: Option<String>,
    /// Not before then.
    #[schema(value_type = Option<values::Moment>)]
    pub(super) since: Option<String>,
    /// Before then.
    #[schema(value_type = Option<values::Moment>)]
    pub(super) until: Option<String>,
}

/// A filter that makes sense.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) tenant: Option<String>,
    pub(super) endpoint: Option<EndpointId>,
    pub(super) cause: Option<proto::DeadCause>,
    pub(super) since: Option<Timestamp>,
    pub(super) until: Option<Timestamp>,
}

impl Filter {
    /// Reads it as it was meant at `now`.
    pub(super) fn wanted(self, api: &Api, now: Timestamp) -> Result<Wanted, Problem> {
        let time = |param, text: Option<String>| {
            let read = text.map(|text| read_time(&text, now)).transpose();
            read.map_err(|problem| Problem::invalid(param, problem))
        };
        let tenant = self.tenant;
        let endpoint = self
            .endpoint
            .map(|name| find_endpoint(api, tenant.as_deref(), &name));
        Ok(Wanted {
            endpoint: endpoint.transpose()?,
            tenant,
            cause: self.cause.map(|name| read_cause(&name)).transpose()?,
            since: time("since", self.since)?,
            until: time("until", self.until)?,
        })
    }
}

/// An id says all; also a deleted endpoint has letters.
pub(in crate::api) fn find_endpoint(
    api: &Api,
    tenant: Option<&str>,
    name: &str,
) -> Result<EndpointId, Problem> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    let registry = api.endpoints.registry().borrow().clone();
    let mut of_tenant = tenant.into_iter().flat_map(|t| registry.of_tenant(t));
    let found = of_tenant.find(|endpoint| !name.is_empty() && endpoint.uid == name);
    found.map(|endpoint| endpoint.id).ok_or_else(|| {
        let shown = name.escape_default();
        let wanted = "expected an endpoint's id, or its uid together with its tenant";
        Problem::invalid("endpoint", format!("`{shown}`: {wanted}"))
    })
}

fn read_cause(name: &str) -> Result<proto::DeadCause, Problem> {
    let found = DEAD_CAUSES.iter().find(|(_, known)| *known == name);
    found.map(|(cause, _)| *cause).ok_or_else(|| {
        let names: Vec<_> = DEAD_CAUSES
            .iter()
            .map(|(_, name)| format!("`{name}`"))
            .collect();
        let (shown, wanted) = (name.escape_default(), names.join(", "));
        Problem::invalid("cause", format!("`{shown}`: expected one of {wanted}"))
    })
}

/// A UTC time, or how long before `now`. The error says what would be right.
pub(in crate::api) fn read_time(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Some(time) = parse_rfc3339(text) {
        return Ok(time);
    }
    let ago = parse_duration(text).map_err(|_| {
        let shown = text.escape_default();
        format!(
            "`{shown}`: expected a UTC time such as \"2026-01-31T08:00:00Z\", or how long ago, \
             such as \"2h\""
        )
    })?;
    let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
    Ok(Timestamp::from_millis(now.as_millis().saturating_sub(ago)))
}

impl Wanted {
    /// The one partition they are in, when there is only one.
    pub(super) fn partition(&self) -> Option<u32> {
        let endpoint = self.endpoint?;
        Some(partition_of(endpoint, Topics::DEAD_PARTITIONS))
    }

    /// Nothing written before then can be among them.
    pub(super) fn read_from(&self) -> Option<Timestamp> {
        Some(before(self.since?, CLOCKS_APART))
    }

    /// Whether a letter is one of them.
    pub(super) fn matches(&self, letter: &Told) -> bool {
        let (whose, at) = (letter.whose(), letter.at());
        let of_tenant = |tenant: &String| whose.is_some_and(|(of, _)| of == *tenant);
        let of_endpoint = |id: &EndpointId| whose.is_some_and(|(_, of)| of == id.as_bytes());
        self.tenant.as_ref().is_none_or(of_tenant)
            && self.endpoint.as_ref().is_none_or(of_endpoint)
            && self.cause.is_none_or(|cause| letter.cause() == cause)
            && self.since.is_none_or(|since| since <= at)
            && self.until.is_none_or(|until| at < until)
    }
}

#[cfg(test)]
mod tests {
    use posthaste_core::shard::dead_cause_name;

    use super::*;

    fn dead(tenant: &str, endpoint: u8, cause: proto::DeadCause, at_ms: u64) -> Told {
        Told::One(Box::new(proto::Dead {
            cause: cause.into(),
            delivery: Some(proto::Deliver {
                tenant: tenant.into(),
                endpoint_id: vec![endpoint; 16].into(),
                ..Default::default()
            }),
            at_ms,
            ..Default::default()
        }))
    }

    fn many(tenant: &str, endpoint: u8, cause: proto::DeadCause, at_ms: u64) -> Told {
        Told::Many(proto::DeadRange {
            cause: cause.into(),
            endpoint_id: vec![endpoint; 16].into(),
            tenant: tenant.into(),
            at_ms,
            ..Default::default()
        })
    }

    #[test]
    fn each_condition_must_hold() {
        use proto::DeadCause::{Gone, Poison};
        let time = |millis| Some(Timestamp::from_millis(millis));
        let wanted = Wanted {
            tenant: Some("acme".into()),
            endpoint: Some(EndpointId::from_bytes([1; 16])),
            cause: Some(Gone),
            since: time(10),
            until: time(20),
        };
        for letter in [dead, many] {
            assert!(wanted.matches(&letter("acme", 1, Gone, 10)));
            assert!(wanted.matches(&letter("acme", 1, Gone, 19)));
            for other in [
                letter("bcme", 1, Gone, 10),
                letter("acme", 2, Gone, 10),
                letter("acme", 1, Poison, 10),
                letter("acme", 1, Gone, 9),
                letter("acme", 1, Gone, 20),
            ] {
                assert!(!wanted.matches(&other), "{other:?}");
                assert!(Wanted::default().matches(&other));
            }
        }
        let nothing = Told::One(Box::default());
        assert!(!wanted.matches(&nothing) && Wanted::default().matches(&nothing));
    }

    #[test]
    fn times_and_causes_are_read() {
        let now = Timestamp::from_millis(1_800_000_000_000);
        let at = |text| read_time(text, now).map(Timestamp::as_millis);
        assert_eq!(at("2h"), Ok(1_800_000_000_000 - 7_200_000));
        assert_eq!(at("1970-01-01T00:00:01Z"), Ok(1_000));
        assert!(at("yesterday").is_err_and(|said| said.contains("how long ago")));
        for (cause, name) in DEAD_CAUSES {
            assert_eq!(read_cause(name).ok(), Some(cause));
            assert_eq!(dead_cause_name(cause), name);
        }
        assert!(read_cause("bored").is_err());
    }
}
