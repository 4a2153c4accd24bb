//! Where events go: a URL with event types, secrets, limits and one status.

mod ages;
mod secret;
mod verify;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use posthaste_proto as proto;
use zeroize::Zeroizing;

pub use self::secret::{Held, RemoveError, Sealed, Secret, TooManySecrets};
pub use self::verify::{UNVERIFIED, Verify};
use crate::content::Filter;
use crate::event::check_tenant;
use crate::filter::{PatternError, TypePattern};
use crate::id::EndpointId;
use crate::limits::{
    CONNECT_TIMEOUT_DEFAULT, EVENT_TYPES_MAX, HEADERS_BYTES_MAX, IN_FLIGHT_DEFAULT, IN_FLIGHT_MAX,
    SECRETS_MAX, STANDARD_POLICY, TIMEOUT_DEFAULT, TIMEOUT_MAX,
};
use crate::metadata;
use crate::signature::Scheme;
use crate::time::Timestamp;

/// An endpoint as the registry holds it. Its URL is read by the sender, at
/// attempt time, so that a backlog follows a changed URL.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Its id.
    pub id: EndpointId,
    /// The caller's own name for it; may be empty.
    pub uid: String,
    /// Whose endpoint it is.
    pub tenant: String,
    /// Where to POST.
    pub url: String,
    /// What it is for, in the caller's words.
    pub description: String,
    /// What others want to remember of it.
    pub metadata: BTreeMap<String, String>,
    /// What it wants; empty for everything.
    pub event_types: Vec<TypePattern>,
    /// … but not these …
    pub exclude_event_types: Vec<TypePattern>,
    /// … and of these, by their content.
    pub filter: Option<Filter>,
    /// How its deliveries are signed.
    pub scheme: Scheme,
    /// Newest first; those that are live at attempt time sign, as many as the
    /// scheme has room for.
    pub secrets: Vec<Secret>,
    /// Its requests say the event's type, the attempt's number and why there is a
    /// retry ([`EVENT_HEADERS`](crate::signature::EVENT_HEADERS)).
    pub event_headers: bool,
    /// Sent with every attempt.
    pub headers: Vec<CustomHeader>,
    /// Attempts in flight at once.
    pub max_in_flight: u32,
    /// Attempts that begin within a second; 0 for no bound.
    pub rate_per_second: u32,
    /// Time to connect, TLS included.
    pub connect_timeout: Duration,
    /// Time for a whole attempt.
    pub timeout: Duration,
    /// Offer HTTP/2 by ALPN.
    pub http2: bool,
    /// Names the schedule of its retries. The configuration may not know it.
    pub retry_policy: String,
    /// Give up at once when the receiver answers 400, 404, 405, 413, 415 or 422.
    pub fail_fast_4xx: bool,
    /// How old an event may be when it is attempted; `None` for no bound.
    pub max_age: Option<Duration>,
    /// After how long of nothing but failures it is disabled; `None` for never.
    pub disable_after: Option<Duration>,
    /// Takes no deliveries.
    pub disabled: bool,
    /// Why it was disabled: `failing`, `gone` or [`UNVERIFIED`] where Posthaste did
    /// so, else in an operator's words.
    pub disabled_reason: String,
    /// An operator holds it: what it wants waits in the lane.
    pub paused: bool,
    /// Every delivery goes through the lane.
    pub owned: bool,
    /// One attempt at a time per ordering key, in the order of the lane.
    pub ordered: bool,
    /// After an outage first attempts wait until the backlog is delivered.
    pub fifo: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its present version was made.
    pub updated_at: Timestamp,
    /// Whether its receiver is asked before it gets events.
    pub verify: Verify,
    /// Rises by one with each change; 0 before the first.
    pub version: u64,
    /// How often the table had to repeat it unchanged (see
    /// [`Table::restated`](crate::registry::Table::restated)): its records are
    /// numbered by this and [`version`](Self::version) together.
    pub restated: u64,
}

/// A header the endpoint asked for. The value may be a credential, so it is
/// kept as secrets are.
#[derive(Clone)]
pub struct CustomHeader {
    /// Lower-case name.
    pub name: String,
    /// Its value, as the log holds it.
    pub held: Held,
}

/// What is wrong with an endpoint. Every text names the field and what would
/// be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{param}: {problem}")]
pub struct EndpointError {
    /// The field.
    pub param: &'static str,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl CustomHeader {
    /// What its sealed value is bound to.
    pub fn seal_id(&self) -> String {
        format!("header:{}", self.name)
    }

    fn from_proto(record: proto::Header) -> Result<Self, EndpointError> {
        let name = record.name.to_ascii_lowercase();
        let held = match record.sealed {
            Some(sealed) => Held::Sealed(sealed.into()),
            None => match String::from_utf8(record.value.to_vec()) {
                Ok(value) => Held::Clear(Zeroizing::new(value)),
                Err(_) => return Err(wrong_header(&name)),
            },
        };
        Ok(Self { name, held })
    }

    fn to_proto(&self) -> proto::Header {
        let (value, sealed) = self.held.to_proto();
        proto::Header {
            name: self.name.clone(),
            value: value.into_bytes().into(),
            sealed,
        }
    }

    /// Bytes it takes in the log.
    fn bytes(&self) -> usize {
        let value = match &self.held {
            Held::Clear(value) => value.len(),
            Held::Sealed(sealed) => sealed.text.len(),
        };
        self.name.len() + value
    }

    /// Whether name and value can be sent. A sealed value was looked at before
    /// it was sealed.
    fn is_sendable(&self) -> bool {
        let value_ok = match &self.held {
            Held::Clear(value) => value
                .bytes()
                .all(|b| b == b'\t' || b == b' ' || b.is_ascii_graphic()),
            Held::Sealed(_) => true,
        };
        let name_ok =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        value_ok && !self.name.is_empty() && self.name.bytes().all(name_ok)
    }
}

impl fmt::Debug for CustomHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CustomHeader({})", self.name)
    }
}

impl Endpoint {
    /// From its record. Zero in a numeric field means the default.
    pub fn from_proto(record: proto::Endpoint) -> Result<Self, EndpointError> {
        let id = <[u8; 16]>::try_from(record.id.as_ref())
            .map_err(|_| error("id", "expected 16 bytes"))?;
        let event_types = patterns("event_types", &record.event_types)?;
        let exclude_event_types = patterns("exclude_event_types", &record.exclude_event_types)?;
        let headers = record.headers.into_iter().map(CustomHeader::from_proto);
        let endpoint = Self {
            id: EndpointId::from_bytes(id),
            uid: record.uid,
            tenant: record.tenant,
            url: record.url,
            description: record.description,
            metadata: metadata::from_proto(record.metadata),
            event_types,
            exclude_event_types,
            event_headers: record.event_headers,
            filter: filter_from_proto(&record.filter)?,
            scheme: scheme_from_proto(record.signing_scheme)?,
            secrets: record.secrets.into_iter().map(Secret::from_proto).collect(),
            headers: headers.collect::<Result<_, _>>()?,
            max_in_flight: or_default(record.max_in_flight, IN_FLIGHT_DEFAULT),
            rate_per_second: record.rate_per_second,
            connect_timeout: millis_or(record.connect_timeout_ms, CONNECT_TIMEOUT_DEFAULT),
            timeout: millis_or(record.timeout_ms, TIMEOUT_DEFAULT),
            http2: record.http2,
            retry_policy: if record.retry_policy.is_empty() {
                STANDARD_POLICY.to_owned()
            } else {
                record.retry_policy
            },
            fail_fast_4xx: record.fail_fast_4xx,
            max_age: ages::span(record.max_age_ms),
            disable_after: ages::disable_after(record.disable_after_ms),
            disabled: record.disabled,
            disabled_reason: record.disabled_reason,
            paused: record.paused,
            owned: record.owned,
            ordered: record.ordered,
            fifo: record.fifo,
            created_at: Timestamp::from_millis(record.created_at_ms),
            updated_at: Timestamp::from_millis(match record.updated_at_ms {
                0 => record.created_at_ms,
                updated_at_ms => updated_at_ms,
            }),
            verify: Verify::from_proto(record.verify)?,
            version: record
                .version
                .checked_sub(record.restated)
                .ok_or_else(|| error("restated", "expected no more than `version`"))?,
            restated: record.restated,
        };
        endpoint.check()?;
        Ok(endpoint)
    }

    /// As its record.
    pub fn to_proto(&self) -> proto::Endpoint {
        let millis = |span: Duration| u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
        proto::Endpoint {
            id: self.id.as_bytes().to_vec().into(),
            uid: self.uid.clone(),
            tenant: self.tenant.clone(),
            url: self.url.clone(),
            description: self.description.clone(),
            metadata: metadata::to_proto(&self.metadata),
            event_types: texts(&self.event_types),
            exclude_event_types: texts(&self.exclude_event_types),
            event_headers: self.event_headers,
            signing_scheme: proto::SigningScheme::from(self.scheme).into(),
            secrets: self.secrets.iter().map(Secret::to_proto).collect(),
            headers: self.headers.iter().map(CustomHeader::to_proto).collect(),
            max_in_flight: self.max_in_flight,
            rate_per_second: self.rate_per_second,
            connect_timeout_ms: millis(self.connect_timeout),
            timeout_ms: millis(self.timeout),
            http2: self.http2,
            retry_policy: self.retry_policy.clone(),
            fail_fast_4xx: self.fail_fast_4xx,
            max_age_ms: ages::millis(self.max_age),
            disable_after_ms: ages::disable_after_millis(self.disable_after),
            disabled: self.disabled,
            disabled_reason: self.disabled_reason.clone(),
            paused: self.paused,
            created_at_ms: self.created_at.as_millis(),
            updated_at_ms: self.updated_at.as_millis(),
            owned: self.owned,
            ordered: self.ordered,
            fifo: self.fifo,
            verify: proto::Verify::from(self.verify).into(),
            version: self.version + self.restated,
            restated: self.restated,
            deleted: false,
            filter: self
                .filter
                .as_ref()
                .map_or_else(String::new, |f| f.text().into()),
        }
    }

    /// As the record that deletes it, the change after this version.
    pub fn to_deleted(&self) -> proto::Endpoint {
        proto::Endpoint {
            id: self.id.as_bytes().to_vec().into(),
            tenant: self.tenant.clone(),
            version: self.version + self.restated + 1,
            restated: self.restated,
            deleted: true,
            ..proto::Endpoint::default()
        }
    }

    /// Everything of it that is kept sealed, each with what it is bound to.
    pub fn kept(&self) -> impl Iterator<Item = (String, &Held)> {
        let secrets = self.secrets.iter().map(|s| (s.id.clone(), &s.held));
        secrets.chain(self.headers.iter().map(|h| (h.seal_id(), &h.held)))
    }

    /// The same, to be sealed.
    pub fn kept_mut(&mut self) -> impl Iterator<Item = (String, &mut Held)> {
        let secrets = self.secrets.iter_mut().map(|s| (s.id.clone(), &mut s.held));
        let headers = self.headers.iter_mut();
        secrets.chain(headers.map(|h| (h.seal_id(), &mut h.held)))
    }

    /// Whether first attempts are its owner's, too.
    pub fn is_owned(&self) -> bool {
        self.owned || self.ordered
    }

    /// Whether it wants events of this type.
    pub fn wants(&self, event_type: &str) -> bool {
        let any = |patterns: &[TypePattern]| patterns.iter().any(|p| p.matches(event_type));
        let wanted = self.event_types.is_empty() || any(&self.event_types);
        wanted && !any(&self.exclude_event_types)
    }

    fn check(&self) -> Result<(), EndpointError> {
        check_tenant(&self.tenant).map_err(|e| error("tenant", e.to_string()))?;
        let lists = [
            ("event_types", &self.event_types),
            ("exclude_event_types", &self.exclude_event_types),
        ];
        if let Some((param, _)) = lists.iter().find(|(_, l)| l.len() > EVENT_TYPES_MAX) {
            return Err(error(param, format!("at most {EVENT_TYPES_MAX} patterns")));
        }
        if self.secrets.is_empty() || self.secrets.len() > SECRETS_MAX {
            return Err(error("secrets", format!("expected 1 to {SECRETS_MAX}")));
        }
        if self.max_in_flight == 0 || self.max_in_flight > IN_FLIGHT_MAX {
            return Err(error(
                "max_in_flight",
                format!("expected 1 to {IN_FLIGHT_MAX}"),
            ));
        }
        if self.timeout.is_zero() || self.timeout > TIMEOUT_MAX {
            let max = TIMEOUT_MAX.as_secs();
            return Err(error("timeout", format!("expected up to {max}s")));
        }
        if self.connect_timeout.is_zero() || self.connect_timeout > self.timeout {
            return Err(error("connect_timeout", "expected up to `timeout`"));
        }
        metadata::check(&self.metadata).map_err(|problem| error("metadata", problem))?;
        self.check_ages()?;
        self.check_headers()
    }

    fn check_headers(&self) -> Result<(), EndpointError> {
        let mut bytes = 0;
        for header in &self.headers {
            bytes += header.bytes();
            if refused_header(&header.name) || self.scheme.owns_header(&header.name) {
                return Err(error(
                    "headers",
                    format!(
                        "`{}` cannot be set: Posthaste or the protocol owns it",
                        header.name
                    ),
                ));
            }
            if !header.is_sendable() {
                return Err(wrong_header(&header.name));
            }
        }
        if bytes > HEADERS_BYTES_MAX {
            return Err(error(
                "headers",
                format!("at most {HEADERS_BYTES_MAX} bytes in all"),
            ));
        }
        Ok(())
    }
}

/// Headers that belong to the protocol, or that open a cloud's metadata service to whoever sets them.
fn refused_header(name: &str) -> bool {
    const REFUSED: [&str; 15] = [
        "host",
        "content-length",
        "content-type",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "upgrade",
        "te",
        "trailer",
        "expect",
        "accept-encoding",
        "user-agent",
        "metadata",
        "metadata-flavor",
        "x-aliyun-ecs-metadata-token",
    ];
    REFUSED.contains(&name) || name.starts_with("proxy-")
}

fn scheme_from_proto(number: i32) -> Result<Scheme, EndpointError> {
    match proto::SigningScheme::try_from(number) {
        Ok(proto::SigningScheme::Unspecified) => Ok(Scheme::StandardWebhooks),
        Ok(proto::SigningScheme::Stripe) => Ok(Scheme::Stripe),
        Ok(proto::SigningScheme::Github) => Ok(Scheme::Github),
        Ok(proto::SigningScheme::Slack) => Ok(Scheme::Slack),
        Err(_) => Err(error(
            "signing.scheme",
            format!("number {number} is unknown: expected one that this version knows"),
        )),
    }
}

fn patterns(param: &'static str, texts: &[String]) -> Result<Vec<TypePattern>, EndpointError> {
    let read = texts.iter().map(|text| text.parse());
    read.collect::<Result<_, _>>()
        .map_err(|e: PatternError| error(param, e.to_string()))
}

fn texts(patterns: &[TypePattern]) -> Vec<String> {
    patterns.iter().map(ToString::to_string).collect()
}

fn filter_from_proto(text: &str) -> Result<Option<Filter>, EndpointError> {
    if text.is_empty() {
        return Ok(None);
    }
    let filter = Filter::parse(text).map_err(|e| error("filter", e.to_string()))?;
    Ok(Some(filter))
}

impl From<Scheme> for proto::SigningScheme {
    fn from(scheme: Scheme) -> Self {
        match scheme {
            Scheme::StandardWebhooks => Self::Unspecified,
            Scheme::Stripe => Self::Stripe,
            Scheme::Github => Self::Github,
            Scheme::Slack => Self::Slack,
        }
    }
}

fn wrong_header(name: &str) -> EndpointError {
    let problem = format!(
        "`{}`: expected a name of letters, digits, `-` and `_`, and a value of visible ASCII",
        name.escape_default()
    );
    error("headers", problem)
}

fn error(param: &'static str, problem: impl Into<String>) -> EndpointError {
    EndpointError {
        param,
        problem: problem.into(),
    }
}

fn or_default(value: u32, default: u32) -> u32 {
    if value == 0 { default } else { value }
}

fn millis_or(value: u32, default: Duration) -> Duration {
    if value == 0 {
        default
    } else {
        Duration::from_millis(value.into())
    }
}

#[cfg(test)]
pub(crate) fn sample(number: u8, tenant: &str, event_types: &[&str]) -> proto::Endpoint {
    proto::Endpoint {
        id: vec![number; 16].into(),
        tenant: tenant.into(),
        url: format!("https://example.com/{number}"),
        event_types: event_types.iter().map(ToString::to_string).collect(),
        secrets: vec![proto::Secret {
            id: "s1".into(),
            text: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl Fn(&mut proto::Endpoint)) -> EndpointError {
        let mut record = sample(1, "acme", &[]);
        change(&mut record);
        Endpoint::from_proto(record).expect_err("refused")
    }

    #[test]
    fn the_record_reads_back_with_defaults() {
        let endpoint = Endpoint::from_proto(sample(1, "acme", &["invoice.*"])).unwrap();
        assert_eq!(endpoint.max_in_flight, IN_FLIGHT_DEFAULT);
        assert_eq!(endpoint.timeout, TIMEOUT_DEFAULT);
        assert_eq!(endpoint.retry_policy, STANDARD_POLICY);
        assert!(endpoint.wants("invoice.paid") && !endpoint.wants("order.paid"));
        let mut record = sample(1, "acme", &["invoice.*"]);
        record.exclude_event_types = vec!["*.draft".into()];
        record.event_headers = true;
        let endpoint = Endpoint::from_proto(record).unwrap();
        assert!(endpoint.wants("invoice.paid") && !endpoint.wants("invoice.draft"));
        let again = Endpoint::from_proto(endpoint.to_proto()).unwrap();
        assert_eq!(again.to_proto(), endpoint.to_proto());
        // Which policies there are is the configuration's matter.
        let mut record = sample(1, "acme", &[]);
        (record.retry_policy, record.fail_fast_4xx) = ("fast".into(), true);
        let again = Endpoint::from_proto(record).unwrap().to_proto();
        assert_eq!((&*again.retry_policy, again.fail_fast_4xx), ("fast", true));
        let mut record = sample(1, "acme", &[]);
        (record.paused, record.disabled_reason) = (true, "moving house".into());
        let again = Endpoint::from_proto(record).unwrap().to_proto();
        assert_eq!(
            (again.paused, &*again.disabled_reason),
            (true, "moving house")
        );
        let mut record = sample(1, "acme", &[]);
        record.filter = r#"{ "a": 1.50 }"#.into();
        let again = Endpoint::from_proto(record).unwrap().to_proto();
        assert_eq!(again.filter, r#"{ "a": 1.50 }"#);
    }

    #[test]
    fn each_field_is_refused_by_name() {
        assert_eq!(refused(|e| e.tenant.clear()).param, "tenant");
        assert_eq!(refused(|e| e.secrets.clear()).param, "secrets");
        assert_eq!(refused(|e| e.max_in_flight = 1_000).param, "max_in_flight");
        assert_eq!(refused(|e| e.timeout_ms = 31_000).param, "timeout");
        for wrong_ms in [999, 720 * 3_600_000 + 1] {
            assert_eq!(refused(|e| e.max_age_ms = wrong_ms).param, "max_age");
        }
        for wrong_ms in [12 * 3_600_000 - 1, 720 * 3_600_000 + 1] {
            let refused = refused(|e| e.disable_after_ms = Some(wrong_ms));
            assert_eq!(refused.param, "auto_disable.after");
            assert_eq!(refused.problem, "expected 12h to 720h, or `never`");
        }
        let long = vec![proto::Pair {
            key: "k".into(),
            value: "v".repeat(8 * 1_024),
        }];
        let refused_pairs = refused(|e| e.metadata.clone_from(&long));
        assert_eq!(refused_pairs.param, "metadata");
        assert_eq!(
            refused(|e| e.event_types = vec!["a..b".into()]).param,
            "event_types"
        );
        assert_eq!(refused(|e| e.filter = "{\"a\":[]}".into()).param, "filter");
        let header = |name: &str, value: &'static [u8]| proto::Header {
            name: name.into(),
            value: bytes::Bytes::from_static(value),
            sealed: None,
        };
        for bad in [
            header("Host", b"x"),
            header("webhook-id", b"x"),
            header("x-a", b"a\r\nb: c"),
        ] {
            assert_eq!(refused(|e| e.headers.push(bad.clone())).param, "headers");
        }
    }

    #[test]
    fn a_scheme_reads_back_and_owns_its_headers() {
        use proto::SigningScheme::{Github, Slack, Stripe, Unspecified};
        let owned = ["stripe-signature", "x-github-event", "x-slack-retry-num"];
        for (place, number) in [Stripe, Github, Slack, Unspecified].into_iter().enumerate() {
            let mut record = sample(1, "acme", &[]);
            record.signing_scheme = number.into();
            let endpoint = Endpoint::from_proto(record.clone()).unwrap();
            assert_eq!(endpoint.to_proto().signing_scheme, i32::from(number));
            for (other, name) in owned.into_iter().enumerate() {
                let mut endpoint = endpoint.clone();
                endpoint.headers.push(CustomHeader {
                    name: name.to_owned(),
                    held: Held::Clear(Zeroizing::new("x".to_owned())),
                });
                assert_eq!(endpoint.check().is_err(), place == other, "{name}");
            }
        }
        assert_eq!(refused(|e| e.signing_scheme = 99).param, "signing.scheme");
    }

    #[test]
    fn debug_shows_no_secret() {
        let mut record = sample(1, "acme", &[]);
        record.headers.push(proto::Header {
            name: "authorization".into(),
            value: bytes::Bytes::from_static(b"Bearer hunter2"),
            sealed: None,
        });
        let shown = format!("{:?}", Endpoint::from_proto(record).unwrap());
        assert!(
            !shown.contains("hunter2") && !shown.contains("MfKQ9r8"),
            "{shown}"
        );
    }
}
