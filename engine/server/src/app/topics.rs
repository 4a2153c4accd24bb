//! Whether the topics are what the instance can work with, before anything moves.

use std::time::Duration;

use bytestring::ByteString;

use crate::config::{Config, LogUrl};
use crate::log::{Log, LogError, TopicDescription};

const HOUR: Duration = Duration::from_secs(3_600);
/// Least age at which a source topic may lose records: what comes while
/// Posthaste is down for a day is still delivered.
const SOURCE_KEPT_MIN: Duration = HOUR.saturating_mul(24);
/// Below this a long weekend's outage loses events.
const SOURCE_KEPT_WANTED: Duration = HOUR.saturating_mul(96);

/// The source topics' partitions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sources {
    /// Of the first topic.
    pub(crate) first: u32,
    /// Of all.
    pub(crate) all: u32,
}

/// Checks the topics, or makes them where the log is ours.
///
/// # Errors
/// The first topic that is missing, or has a wrong setting.
pub(crate) async fn verify(config: &Config, log: &dyn Log) -> anyhow::Result<Sources> {
    let ours = matches!(config.log, LogUrl::Embedded(_));
    let mut specs = config.topics.specs();
    if ours {
        let sources = config.ingest.topics.iter();
        specs.extend(sources.map(|name| config.topics.source_spec(name)));
    }
    log.verify(&specs).await?;
    let mut sources = Sources { first: 0, all: 0 };
    for name in config.ingest.topics.iter().rev() {
        let name = ByteString::from(name.as_str());
        let topic = log.describe(&name).await.map_err(missing_source)?;
        if !ours {
            check_source(&name, &topic)?;
        }
        sources.first = topic.partitions;
        sources.all += topic.partitions;
    }
    Ok(sources)
}

/// A source topic is somebody else's: it is made only when asked for.
fn missing_source(error: LogError) -> anyhow::Error {
    let missing = matches!(error, LogError::NoSuchTopic(_));
    let error = anyhow::Error::new(error);
    if missing {
        error.context("ingest.topics: expected topics that exist (`--sources` makes these too)")
    } else {
        error
    }
}

/// Refuses a source topic that loses events before they can be delivered, and
/// warns of one that does so soon.
fn check_source(name: &ByteString, topic: &TopicDescription) -> Result<(), LogError> {
    let Some(kept) = topic.retention.filter(|kept| *kept < SOURCE_KEPT_WANTED) else {
        return Ok(());
    };
    if kept < SOURCE_KEPT_MIN {
        return Err(LogError::WrongSetting {
            topic: name.clone(),
            setting: "retention.ms",
            found: kept.as_millis().to_string(),
            wanted: format!("at least {}", SOURCE_KEPT_MIN.as_millis()),
            why: "events would go before they are delivered",
        });
    }
    tracing::warn!(
        topic = %name,
        retention_ms = kept.as_millis(),
        wanted_ms = SOURCE_KEPT_WANTED.as_millis(),
        "the source topic keeps events for a short time: a longer outage loses some"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(retention: Option<Duration>) -> Result<(), String> {
        let topic = TopicDescription {
            partitions: 1,
            record_bytes_max: 1,
            retention,
        };
        check_source(&"orders".into(), &topic).map_err(|error| error.to_string())
    }

    #[test]
    fn a_source_that_forgets_within_a_day_is_refused() {
        let refused = checked(Some(SOURCE_KEPT_MIN - Duration::from_millis(1)));
        assert_eq!(
            refused.expect_err("refused"),
            "topic `orders`: `retention.ms` is 86399999, must be at least 86400000: events would \
             go before they are delivered"
        );
        assert!(checked(Some(Duration::ZERO)).is_err());
        for kept in [Some(SOURCE_KEPT_MIN), Some(SOURCE_KEPT_WANTED), None] {
            assert_eq!(checked(kept), Ok(()));
        }
    }

    #[test]
    fn a_missing_source_is_told_from_our_own_topics() {
        let told = format!(
            "{:#}",
            missing_source(LogError::NoSuchTopic("orders".into()))
        );
        assert!(
            told.contains("ingest.topics") && told.contains("--sources"),
            "{told}"
        );
        assert!(told.contains("topic `orders` does not exist"), "{told}");
        let other = missing_source(LogError::Unreachable("x".to_owned()));
        assert!(matches!(
            other.downcast_ref(),
            Some(LogError::Unreachable(_))
        ));
    }
}
