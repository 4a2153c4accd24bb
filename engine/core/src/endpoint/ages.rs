//! How old an event may be for an endpoint, and how long the endpoint may fail.

use std::time::Duration;

use super::{Endpoint, EndpointError, error};
use crate::limits::{DISABLE_AFTER, DISABLE_AFTER_MAX, DISABLE_SPAN_MIN, MAX_AGE_MAX, MAX_AGE_MIN};

impl Endpoint {
    pub(super) fn check_ages(&self) -> Result<(), EndpointError> {
        let hours = |span: Duration| span.as_secs() / 3_600;
        let max_age = self.max_age.unwrap_or(MAX_AGE_MIN);
        if !(MAX_AGE_MIN..=MAX_AGE_MAX).contains(&max_age) {
            let (least, most) = (MAX_AGE_MIN.as_secs(), hours(MAX_AGE_MAX));
            return Err(error("max_age", format!("expected {least}s to {most}h")));
        }
        let after = self.disable_after.unwrap_or(DISABLE_AFTER);
        if !(DISABLE_SPAN_MIN..=DISABLE_AFTER_MAX).contains(&after) {
            let (least, most) = (hours(DISABLE_SPAN_MIN), hours(DISABLE_AFTER_MAX));
            let wanted = format!("expected {least}h to {most}h, or `never`");
            return Err(error("auto_disable.after", wanted));
        }
        Ok(())
    }
}

/// Of a record: 0 is none.
pub(super) fn span(millis: u64) -> Option<Duration> {
    (millis > 0).then(|| Duration::from_millis(millis))
}

/// … and for one.
pub(super) fn millis(span: Option<Duration>) -> u64 {
    let millis = span.map_or(0, |span| span.as_millis());
    u64::try_from(millis).unwrap_or(u64::MAX)
}

/// Of a record: what says nothing has the default, and 0 is never.
pub(super) fn disable_after(millis: Option<u64>) -> Option<Duration> {
    millis.map_or(Some(DISABLE_AFTER), span)
}

/// … and for one.
pub(super) fn disable_after_millis(after: Option<Duration>) -> Option<u64> {
    (after != Some(DISABLE_AFTER)).then(|| millis(after))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::endpoint::sample;
    use crate::metadata;

    #[test]
    fn what_an_older_version_did_not_write_is_as_it_was_then() {
        let mut record = sample(1, "acme", &[]);
        record.created_at_ms = 7;
        let old = Endpoint::from_proto(record.clone()).unwrap();
        assert_eq!(old.updated_at, old.created_at);
        assert_eq!(
            (old.max_age, old.disable_after),
            (None, Some(DISABLE_AFTER))
        );
        record.updated_at_ms = 9;
        record.max_age_ms = 60_000;
        record.metadata = metadata::to_proto(&BTreeMap::from([("crm".into(), "7".into())]));
        let hour_ms = 3_600_000;
        for (written, read, again) in [
            (None, Some(120), None),
            (Some(120 * hour_ms), Some(120), None),
            (Some(0), None, Some(0)),
            (Some(12 * hour_ms), Some(12), Some(12 * hour_ms)),
        ] {
            record.disable_after_ms = written;
            let endpoint = Endpoint::from_proto(record.clone()).unwrap();
            let hours = endpoint.disable_after.map(|after| after.as_secs() / 3_600);
            assert_eq!(hours, read, "{written:?}");
            assert_eq!(endpoint.max_age, Some(Duration::from_secs(60)));
            let back = endpoint.to_proto();
            assert_eq!((back.disable_after_ms, back.updated_at_ms), (again, 9));
            assert_eq!(
                (back.max_age_ms, &back.metadata),
                (60_000, &record.metadata)
            );
        }
    }
}
