//! The configuration file, and what contradicts itself in it.

mod http;
mod policies;
mod secrets;
mod times;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytestring::ByteString;
use posthaste_core::limits::{CHANGES_KEPT, DELIVERY_AGE_MAX};
use serde::Deserialize;

pub use self::http::{HttpConfig, TlsConfig};
pub use self::policies::RetryPolicies;
pub use self::secrets::{KeySource, SecretsConfig};
use self::times::duration;
pub use self::times::{
    format_duration, format_rfc3339, format_rfc3339_millis, parse_duration, parse_rfc3339,
};
use crate::log::{Cleanup, Start, TopicSpec};

mod check;

/// Everything `posthaste serve` can be told. The defaults run on the embedded
/// log with nothing set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the log is: `embedded:DIR` or `kafka://HOST:PORT[,HOST:PORT…]`.
    pub log: LogUrl,
    /// Names this instance in the log; defaults to the host's name and port.
    pub instance_id: String,
    /// Shards, each a thread; 0 for one a core.
    pub shards: usize,
    /// Our own topics.
    pub topics: Topics,
    /// Where events come from.
    pub ingest: IngestConfig,
    /// Where they may go.
    pub egress: EgressConfig,
    /// What seals endpoints' secrets.
    pub secrets: SecretsConfig,
    /// Schedules of retries that endpoints can name.
    pub retry_policies: RetryPolicies,
    /// The API's listener.
    pub http: HttpConfig,
    /// Whom the API lets in.
    pub api: ApiConfig,
    /// Which attempts are recorded.
    pub audit: AuditLevel,
    /// Longest time to finish on SIGTERM.
    #[serde(deserialize_with = "duration")]
    pub drain_deadline: Duration,
    /// Kafka's settings; only with `log = "kafka://…"`.
    pub kafka: KafkaConfig,
}

/// Which log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum LogUrl {
    /// SQLite in a folder.
    Embedded(PathBuf),
    /// Kafka's bootstrap servers, comma-separated.
    Kafka(String),
}

/// Our own topics.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Topics {
    /// Before the names of all of them.
    pub prefix: String,
    /// Partitions of the lane: fixed for the life of the topic.
    pub lane_partitions: u32,
    /// Partitions of a source topic that Posthaste makes itself.
    pub source_partitions: u32,
    /// Replicas of topics Posthaste makes; 0 for as many as there are brokers,
    /// at most 3.
    pub replication: u16,
}

/// Where events come from and how they are read.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IngestConfig {
    /// Source topics.
    pub topics: Vec<String>,
    /// Where the first start begins.
    pub start: StartConfig,
    /// The tenant of events that name none.
    pub default_tenant: Option<String>,
    /// Names of Kafka headers.
    pub headers: HeaderNames,
    /// JSON pointers into an envelope.
    pub envelope: EnvelopePointers,
}

/// Names of the headers that route an event.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeaderNames {
    /// The event's type.
    pub event_type: String,
    /// Its id.
    pub id: String,
    /// Its tenant.
    pub tenant: String,
    /// Its ordering key.
    pub ordering_key: String,
}

/// Where an envelope holds what routes an event (RFC 6901).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnvelopePointers {
    /// The event's type.
    pub event_type: String,
    /// Its id.
    pub id: String,
    /// Its tenant.
    pub tenant: String,
    /// Its ordering key, a string or a number; empty for none.
    pub ordering_key: String,
    /// The body to deliver; empty for the whole envelope.
    pub data: String,
}

/// Where the first start begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct StartConfig(pub Start);

/// Where deliveries may go.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EgressConfig {
    /// Allow `http://` endpoints.
    pub allow_http: bool,
    /// Allow names without a public suffix, such as `localhost`.
    pub allow_private_names: bool,
    /// Addresses that are reachable although they are not public.
    pub allow: Vec<String>,
    /// Addresses that are not reachable although they are public.
    pub deny: Vec<String>,
    /// Further trusted certificate authorities, PEM.
    pub ca_file: Option<PathBuf>,
}

/// Whom the API lets in.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiConfig {
    /// Without it: [`Auth::None`] on a loopback address, [`Auth::Keys`] on any
    /// other.
    pub auth: Option<Auth>,
}

/// How a caller proves who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// By an API key or a portal token.
    Keys,
    /// Not at all: whoever reaches the listener may do everything.
    None,
}

/// Which attempts are recorded in the attempts topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuditLevel {
    /// Every one.
    All,
    /// Those that failed.
    Failures,
    /// None.
    None,
}

/// Kafka's settings.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaConfig {
    /// Time after which a silent member loses its partitions.
    #[serde(deserialize_with = "duration")]
    pub session_timeout: Duration,
    /// Static membership: a stable name of this instance.
    pub group_instance_id: Option<String>,
    /// librdkafka settings, such as `"sasl.mechanism"`.
    pub settings: std::collections::BTreeMap<String, String>,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {error}: expected a configuration file")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It is not TOML, or holds an unknown key or a value of the wrong kind.
    #[error("{path}: {detail}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line, key and what would be right.
        detail: String,
    },
    /// A value does not fit, alone or beside another.
    #[error("{key}: {problem}")]
    Invalid {
        /// The key.
        key: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
}

/// Values may be passwords: only their names are shown.
impl std::fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaConfig")
            .field("session_timeout", &self.session_timeout)
            .field("group_instance_id", &self.group_instance_id)
            .field("settings", &self.settings.keys())
            .finish()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            log: LogUrl::Embedded(PathBuf::from("posthaste-data")),
            instance_id: String::new(),
            shards: 0,
            topics: Topics::default(),
            ingest: IngestConfig::default(),
            egress: EgressConfig::default(),
            secrets: SecretsConfig::default(),
            retry_policies: RetryPolicies::default(),
            http: HttpConfig::default(),
            api: ApiConfig::default(),
            audit: AuditLevel::All,
            drain_deadline: Duration::from_secs(25),
            kafka: KafkaConfig::default(),
        }
    }
}

impl Default for Topics {
    fn default() -> Self {
        Self {
            prefix: "posthaste".to_owned(),
            lane_partitions: 64,
            source_partitions: 8,
            replication: 0,
        }
    }
}

impl Default for IngestConfig {
    fn default() -> Self {
        Self {
            topics: vec!["events".to_owned()],
            start: StartConfig(Start::Unset),
            default_tenant: None,
            headers: HeaderNames::default(),
            envelope: EnvelopePointers::default(),
        }
    }
}

impl Default for HeaderNames {
    fn default() -> Self {
        Self {
            event_type: "webhook-type".to_owned(),
            id: "webhook-id".to_owned(),
            tenant: "webhook-tenant".to_owned(),
            ordering_key: "webhook-ordering-key".to_owned(),
        }
    }
}

impl Default for EnvelopePointers {
    fn default() -> Self {
        Self {
            event_type: "/type".to_owned(),
            id: "/id".to_owned(),
            tenant: "/tenant".to_owned(),
            ordering_key: "/ordering_key".to_owned(),
            data: "/data".to_owned(),
        }
    }
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            session_timeout: Duration::from_secs(15),
            group_instance_id: None,
            settings: std::collections::BTreeMap::new(),
        }
    }
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
            path: path.to_owned(),
            error,
        })?;
        let config = Self::parse(&text).map_err(|error| match error {
            ConfigError::Malformed { detail, .. } => ConfigError::Malformed {
                path: path.to_owned(),
                detail,
            },
            other => other,
        })?;
        Ok(config)
    }

    /// Reads and checks the text of a file.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| ConfigError::Malformed {
            path: PathBuf::from("configuration"),
            detail: told(text, error),
        })?;
        config.check()?;
        Ok(config)
    }

    /// How callers of the API prove who they are.
    pub fn auth(&self) -> Auth {
        let unset = match self.http.listen.ip().is_loopback() {
            true => Auth::None,
            false => Auth::Keys,
        };
        self.api.auth.unwrap_or(unset)
    }

    /// How many shards to run.
    pub fn shard_count(&self) -> usize {
        match self.shards {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        }
    }
}

impl Topics {
    /// Partitions of the dead-letter topic.
    pub const DEAD_PARTITIONS: u32 = 16;

    /// The endpoints table.
    pub fn endpoints(&self) -> ByteString {
        self.name("endpoints")
    }

    /// The lane.
    pub fn lane(&self) -> ByteString {
        self.name("lane")
    }

    /// Attempts, for people to look at.
    pub fn attempts(&self) -> ByteString {
        self.name("attempts")
    }

    /// Dead letters.
    pub fn dead(&self) -> ByteString {
        self.name("dead")
    }

    /// Operational events, on their way to whoever subscribed to them.
    pub fn operational(&self) -> ByteString {
        self.name("operational")
    }

    /// Who changed what in the endpoints table.
    pub fn changes(&self) -> ByteString {
        self.name("changes")
    }

    fn name(&self, topic: &str) -> ByteString {
        ByteString::from(format!("{}.{topic}", self.prefix))
    }

    /// What our own topics must be.
    pub fn specs(&self) -> Vec<TopicSpec> {
        const DAY: Duration = Duration::from_secs(24 * 3_600);
        let spec = |name, partitions, cleanup| TopicSpec {
            name,
            partitions,
            cleanup,
            record_bytes_max: 2 * 1024 * 1024,
        };
        let keep = |retention| Cleanup::Delete { retention };
        vec![
            spec(self.endpoints(), 1, Cleanup::Compact),
            spec(
                self.lane(),
                self.lane_partitions,
                keep(DELIVERY_AGE_MAX + DAY),
            ),
            spec(self.attempts(), self.lane_partitions, keep(7 * DAY)),
            spec(self.dead(), Self::DEAD_PARTITIONS, keep(30 * DAY)),
            spec(self.operational(), 1, keep(7 * DAY)),
            spec(self.changes(), 1, keep(CHANGES_KEPT)),
        ]
    }

    /// What a source topic is when Posthaste makes it.
    pub fn source_spec(&self, name: &str) -> TopicSpec {
        TopicSpec {
            name: ByteString::from(name),
            partitions: self.source_partitions,
            cleanup: Cleanup::Delete {
                retention: Duration::from_secs(7 * 24 * 3_600),
            },
            record_bytes_max: 2 * 1024 * 1024,
        }
    }
}

impl TryFrom<String> for StartConfig {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "earliest" => Ok(Self(Start::Earliest)),
            "latest" => Ok(Self(Start::Latest)),
            _ => parse_rfc3339(&text)
                .map(|time| Self(Start::At(time)))
                .ok_or_else(|| {
                    format!(
                        "`{text}`: expected \"earliest\", \"latest\" or a time such as \
                         \"2026-01-31T08:00:00Z\""
                    )
                }),
        }
    }
}

/// What the parser says, on one line: where, in which key, and what.
fn told(text: &str, mut error: toml::de::Error) -> String {
    // Without its input it names the key instead of drawing the line.
    error.set_input(None);
    let said = error.to_string();
    let said = said.trim_end().replace('\n', " ");
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else {
        return said;
    };
    let number = before.matches('\n').count();
    let line = text.lines().nth(number).unwrap_or_default().trim();
    // The value may be a password.
    let key = match line.split_once('=') {
        Some((key, _)) => format!(", `{}`", key.trim()),
        None if line.starts_with('[') => format!(", `{line}`"),
        None => String::new(),
    };
    format!("line {}{key}: {said}", number + 1)
}

#[cfg(test)]
mod tests;
