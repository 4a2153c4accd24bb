//! Whether the values of a configuration fit, alone and beside each other.

use std::path::PathBuf;

use posthaste_core::wall::Cidr;

use super::{Auth, Config, ConfigError, LogUrl};

/// Longest name of a topic, and what it may hold besides letters and digits
/// (Kafka's `Topic.java`).
const TOPIC_BYTES_MAX: usize = 249;

type Checked = Result<(), ConfigError>;

impl Config {
    /// Whether the values fit, alone and beside each other.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_topics()?;
        self.check_log()?;
        if self.drain_deadline.is_zero() {
            return invalid("drain_deadline", "expected a time such as \"25s\"");
        }
        for name in &self.http.hosts {
            if !is_host(name) {
                let shown = name.escape_default();
                return invalid(
                    "http.hosts",
                    format!("`{shown}`: expected a name such as \"posthaste.internal\", no port"),
                );
            }
        }
        for text in &self.egress.public_ips {
            if let Err(error) = text.parse::<Cidr>() {
                return invalid("egress.public_ips", error.to_string());
            }
        }
        if self.auth() == Auth::None && !self.http.listen.ip().is_loopback() {
            return invalid(
                "api.auth",
                "`none` lets everybody in who reaches `http.listen`: expected a loopback address \
                 there, or `keys`",
            );
        }
        Ok(())
    }

    fn check_topics(&self) -> Checked {
        if self.ingest.topics.is_empty() {
            return invalid("ingest.topics", "expected at least one topic");
        }
        if self.topics.lane_partitions == 0 || self.topics.source_partitions == 0 {
            return invalid("topics", "partition counts begin at 1");
        }
        let ours = self.topics.specs();
        if !ours.iter().all(|spec| is_topic(&spec.name)) {
            let prefix = self.topics.prefix.escape_default();
            return invalid("topics.prefix", format!("`{prefix}`: {TOPIC_WANTED}"));
        }
        for (place, name) in self.ingest.topics.iter().enumerate() {
            let shown = name.escape_default();
            if !is_topic(name) {
                return invalid("ingest.topics", format!("`{shown}`: {TOPIC_WANTED}"));
            }
            if ours.iter().any(|spec| *spec.name == **name) {
                return invalid(
                    "ingest.topics",
                    format!(
                        "`{shown}` is one of Posthaste's own topics: expected a topic of events, \
                         or another `topics.prefix`"
                    ),
                );
            }
            if self.ingest.topics[..place].contains(name) {
                return invalid("ingest.topics", format!("`{shown}` stands twice"));
            }
        }
        Ok(())
    }

    fn check_log(&self) -> Checked {
        if matches!(self.log, LogUrl::Embedded(_)) && !self.kafka.settings.is_empty() {
            return invalid(
                "kafka.settings",
                "has no effect on the embedded log; set `log`",
            );
        }
        Ok(())
    }
}

const TOPIC_WANTED: &str = "expected a topic's name: 1 to 249 letters, digits, `.`, `_` and `-`";

fn invalid(key: &'static str, problem: impl Into<String>) -> Checked {
    Err(ConfigError::Invalid {
        key,
        problem: problem.into(),
    })
}

fn is_topic(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=TOPIC_BYTES_MAX).contains(&name.len())
        && !matches!(name, "." | "..")
        && name.bytes().all(allowed)
}

impl TryFrom<String> for LogUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wanted =
            || format!("`{text}`: expected `embedded:DIR` or `kafka://HOST:PORT[,HOST:PORT...]`");
        if let Some(servers) = text.strip_prefix("kafka://") {
            return match servers.split(',').all(is_server) {
                true => Ok(Self::Kafka(servers.to_owned())),
                false => Err(wanted()),
            };
        }
        match text.strip_prefix("embedded:") {
            Some(dir) if !dir.is_empty() => Ok(Self::Embedded(PathBuf::from(dir))),
            _ => Err(wanted()),
        }
    }
}

/// `HOST:PORT`, with an IPv6 address in brackets.
fn is_server(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let in_brackets = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host_fits = match in_brackets {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_host(host),
    };
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    host_fits && digits && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_host(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !name.is_empty() && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Config::parse(text).expect_err("refused").to_string()
    }

    #[test]
    fn every_contradiction_is_named() {
        let own = refused("[ingest]\ntopics = [\"events\", \"posthaste.lane\"]");
        assert!(own.contains("ingest.topics: `posthaste.lane` is one of Posthaste's own"));
        assert!(refused("[ingest]\ntopics = [\"a\", \"a\"]").contains("`a` stands twice"));
        let odd = refused("[ingest]\ntopics = [\"my events\"]");
        assert!(odd.contains("ingest.topics: `my events`: expected a topic's name"));
        assert!(refused("[topics]\nprefix = \"a/b\"").contains("topics.prefix: `a/b`"));
        assert!(refused("[topics]\nlane_partitions = 0").contains("begin at 1"));
        let port = refused("[http]\nhosts = [\"a:1\"]");
        assert!(
            port.contains("http.hosts: `a:1`: expected a name"),
            "{port}"
        );
        let ips = refused("[egress]\npublic_ips = [\"192.0.2.7\", \"192.0.2.9/24\"]");
        assert!(
            ips.contains("egress.public_ips: `192.0.2.9/24`") && ips.contains("`192.0.2.0/24`"),
            "{ips}"
        );
        assert!(refused("[http.tls]\ncert = \"a\"").contains("missing field `key`"));
        assert!(refused("drain_deadline = \"0s\"").contains("drain_deadline: expected"));
    }

    #[test]
    fn servers_have_a_host_and_a_port() {
        for good in ["a:9092", "a.b-c_d:1,10.0.0.1:2", "[::1]:9092"] {
            let url = LogUrl::try_from(format!("kafka://{good}"));
            assert_eq!(url, Ok(LogUrl::Kafka(good.to_owned())));
        }
        for bad in [
            "", "a", "a:", ":1", "a:0", "a:70000", "a:+1", "a:1,", "a b:1", "[a]:1", "::1:9",
        ] {
            let refused = LogUrl::try_from(format!("kafka://{bad}")).expect_err(bad);
            assert!(
                refused.contains("expected `embedded:DIR` or `kafka://HOST:PORT"),
                "{bad}"
            );
        }
    }
}
