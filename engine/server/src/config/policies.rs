//! Retry policies as the configuration defines them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use posthaste_core::retry::Policies;
use serde::{Deserialize, Deserializer};

use super::times::parse_duration;

/// The policies endpoints can name: `standard`, and those that are defined.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(try_from = "BTreeMap<String, Defined>")]
pub struct RetryPolicies(pub Arc<Policies>);

/// One policy, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Defined {
    #[serde(deserialize_with = "durations")]
    gaps: Vec<Duration>,
}

impl TryFrom<BTreeMap<String, Defined>> for RetryPolicies {
    type Error = String;

    fn try_from(defined: BTreeMap<String, Defined>) -> Result<Self, String> {
        let mut policies = Policies::default();
        for (name, policy) in defined {
            policies
                .define(&name, policy.gaps)
                .map_err(|error| error.to_string())?;
        }
        Ok(Self(policies.into()))
    }
}

fn durations<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Duration>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    let read: Result<_, _> = texts.iter().map(|text| parse_duration(text)).collect();
    read.map_err(serde::de::Error::custom)
}
