//! From when on a new endpoint gets events.

use std::time::Duration;

use posthaste_core::endpoint::Endpoint;

use crate::api::Api;
use crate::api::auth::Caller;
use crate::api::operations::lane::past;
use crate::api::operations::replay::{Begun, from_the_past};
use crate::api::problem::Problem;
use crate::config::{LogUrl, format_rfc3339};

/// Until every other instance surely knows a new endpoint: what they route
/// meanwhile its replay has to bring.
const KNOWN_EVERYWHERE: Duration = Duration::from_secs(1);

/// A time in the past as it is meant now; nothing for "from now on".
pub(super) fn read(api: &Api, text: Option<String>) -> Result<Option<String>, Problem> {
    let Some(text) = text.filter(|text| text != "now") else {
        return Ok(None);
    };
    let time = past(&text, "start_at", api.clock.now())?;
    Ok(Some(format_rfc3339(time)))
}

/// Begins the replay of an endpoint that was made just now. Without one the
/// endpoint is not what was asked for, and is taken back.
pub(super) async fn begin(
    api: &Api,
    endpoint: &Endpoint,
    start_at: Option<&str>,
    caller: &Caller,
) -> Result<Option<Begun>, Problem> {
    let Some(start_at) = start_at else {
        return Ok(None);
    };
    if matches!(api.config.log, LogUrl::Kafka(_)) {
        tokio::time::sleep(KNOWN_EVERYWHERE).await;
    }
    match from_the_past(api, endpoint, start_at, caller).await {
        Ok(begun) => Ok(Some(begun)),
        Err(problem) => {
            api.endpoints.delete(endpoint, &caller.by()).await?;
            Err(problem)
        }
    }
}
