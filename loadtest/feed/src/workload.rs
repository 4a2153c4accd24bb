//! The canonical workload: what event `n` is. The same number gives the same
//! event in every run of the same name, unless it is stamped with its time.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::ensure;
use clap::Args;

/// Text that bodies are filled from: long enough that no two events of a batch
/// share theirs, so that compression finds little.
const POOL_BYTES: usize = 64 * 1024;
/// Room for everything in a body that is not filling.
const BODY_BYTES_MIN: usize = 256;
/// The longest body the server takes.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// The longest run name, so that ids stay within the server's 256 bytes.
const RUN_BYTES_MAX: usize = 100;

/// What is sent.
#[derive(Debug, Clone, Args)]
pub(crate) struct Workload {
    /// Prefix of event ids, `<run>-<n>`.
    #[arg(long, value_name = "PREFIX", default_value = "load")]
    pub(crate) run: String,
    /// Tenant of all events.
    #[arg(long, default_value = "load")]
    pub(crate) tenant: String,
    /// Endpoints events are spread over.
    #[arg(long, value_name = "E", default_value_t = 100,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) endpoints: u64,
    /// Bytes of an event's body.
    #[arg(long, value_name = "BYTES", default_value_t = 1_024)]
    pub(crate) body_bytes: usize,
    /// Puts the time of sending into bodies, as `sent_ms`.
    #[arg(long)]
    pub(crate) stamp: bool,
    #[arg(skip)]
    pool: Vec<u8>,
}

impl Workload {
    /// Ready to make events.
    ///
    /// # Errors
    /// A name or size the server would refuse.
    pub(crate) fn checked(mut self) -> anyhow::Result<Self> {
        let visible = |text: &str, not: char| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && c != not)
        };
        ensure!(
            visible(&self.run, '.') && self.run.len() <= RUN_BYTES_MAX,
            "--run: expected 1 to {RUN_BYTES_MAX} visible ASCII characters without `.`"
        );
        ensure!(
            visible(&self.tenant, '/') && self.tenant.len() <= RUN_BYTES_MAX,
            "--tenant: expected 1 to {RUN_BYTES_MAX} visible ASCII characters without `/`"
        );
        ensure!(
            (BODY_BYTES_MIN..=BODY_BYTES_MAX).contains(&self.body_bytes),
            "--body-bytes: expected {BODY_BYTES_MIN} to {BODY_BYTES_MAX}"
        );
        self.pool = pool();
        Ok(self)
    }

    /// The endpoint of event `n`.
    pub(crate) fn endpoint(&self, n: u64) -> u64 {
        n % self.endpoints
    }

    /// `webhook-id` of event `n`.
    pub(crate) fn id(&self, n: u64) -> String {
        format!("{}-{n}", self.run)
    }

    /// `webhook-type` of event `n`.
    pub(crate) fn event_type(&self, n: u64) -> String {
        event_type(self.endpoint(n))
    }

    /// Writes the body of event `n`: JSON of exactly `body_bytes` bytes.
    pub(crate) fn body_into(&self, n: u64, out: &mut String) {
        out.clear();
        let (kind, run) = (self.event_type(n), &self.run);
        // Writing to a string does not fail.
        let _ = write!(out, r#"{{"type":"{kind}","data":{{"run":"#);
        out.push_str(&serde_json::Value::from(run.as_str()).to_string());
        let _ = write!(out, r#","n":{n}"#);
        if self.stamp {
            let _ = write!(out, r#","sent_ms":{}"#, now_ms());
        }
        out.push_str(r#","text":""#);
        let filling = self.body_bytes.saturating_sub(out.len() + r#""}}"#.len());
        let start = usize::try_from(n.wrapping_mul(7_919) % 65_536).unwrap_or(0);
        let pool = self.pool.iter().cycle().skip(start).take(filling);
        out.extend(pool.map(|&byte| char::from(byte)));
        out.push_str(r#""}}"#);
    }
}

fn now_ms() -> u128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |span| span.as_millis())
}

/// The one type endpoint `k` wants.
pub(crate) fn event_type(endpoint: u64) -> String {
    format!("load.e{endpoint}")
}

/// Pseudo-random letters and digits (xorshift64, Marsaglia 2003).
fn pool() -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    let mut word = 0x9e37_79b9_7f4a_7c15_u64;
    (0..POOL_BYTES)
        .map(|_| {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            LETTERS[usize::try_from(word >> 58).unwrap_or(0)]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(body_bytes: usize) -> Workload {
        let plain = Workload {
            run: "r\"1\\".to_owned(),
            tenant: "load".to_owned(),
            endpoints: 100,
            body_bytes,
            stamp: false,
            pool: vec![],
        };
        plain.checked().unwrap()
    }

    #[test]
    fn an_event_is_json_of_the_asked_size_and_knows_its_number() {
        for body_bytes in [256, 1_024, 100_000] {
            let workload = workload(body_bytes);
            let mut body = String::new();
            for n in [0, 17, 117, u64::MAX] {
                workload.body_into(n, &mut body);
                assert_eq!(body.len(), body_bytes);
                let json: serde_json::Value = serde_json::from_str(&body).unwrap();
                assert_eq!(json["data"]["n"], n);
                assert_eq!(json["type"], format!("load.e{}", n % 100));
            }
        }
    }

    #[test]
    fn the_same_number_is_the_same_event_and_another_is_not() {
        let (mut one, mut two) = (String::new(), String::new());
        workload(1_024).body_into(5, &mut one);
        workload(1_024).body_into(5, &mut two);
        assert_eq!(one, two);
        workload(1_024).body_into(6, &mut two);
        assert_ne!(one[60..], two[60..]);
    }

    #[test]
    fn a_stamp_is_the_time_and_takes_its_room() {
        let mut stamped = workload(256);
        stamped.stamp = true;
        let mut body = String::new();
        let before = now_ms();
        stamped.body_into(5, &mut body);
        assert_eq!(body.len(), 256);
        let json: serde_json::Value = serde_json::from_str(&body).unwrap();
        let sent = u128::from(json["data"]["sent_ms"].as_u64().unwrap());
        assert!((before..=now_ms()).contains(&sent));
    }

    #[test]
    fn names_the_server_would_refuse_are_refused_here() {
        let refused = |change: fn(&mut Workload)| {
            let mut workload = workload(1_024);
            change(&mut workload);
            workload.checked().is_err()
        };
        assert!(refused(|w| w.run = "a.b".to_owned()));
        assert!(refused(|w| w.run = String::new()));
        assert!(refused(|w| w.tenant = "a/b".to_owned()));
        assert!(refused(|w| w.body_bytes = 10));
        assert!(!refused(|_| ()));
    }
}
