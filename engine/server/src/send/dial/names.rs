//! Names to addresses, by the operating system, with a short memory.
//!
//! What is remembered is what was answered, not a verdict: the wall judges it
//! at each use.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, PoisonError};

use posthaste_core::limits::{
    LOOKUP_ADDRESSES_MAX, LOOKUP_FAILURE_KEPT, LOOKUP_KEPT, LOOKUP_NAMES_MAX, LOOKUP_TIME_MAX,
    LOOKUPS_MAX,
};
use posthaste_core::outcome::Cause;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// What `getaddrinfo` says of a name that has no address: glibc's two texts,
/// musl's and the BSDs'. std keeps no code of it.
const NO_SUCH_NAME: [&str; 4] = [
    "Name or service not known",
    "No address associated with hostname",
    "Name does not resolve",
    "nodename nor servname provided",
];

/// The look-ups of one process.
pub(in crate::send) struct Names {
    turns: Arc<Semaphore>,
    known: Mutex<HashMap<String, Known>>,
    /// Looks names up as they are written, so that the hosts file and search
    /// domains apply; otherwise only as fully qualified.
    as_written: bool,
}

/// A look-up's end.
type Answer = Result<Arc<[IpAddr]>, Cause>;

struct Known {
    answer: Answer,
    until: Instant,
}

impl Names {
    pub(in crate::send) fn new(as_written: bool) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(LOOKUPS_MAX)),
            known: Mutex::default(),
            as_written,
        }
    }

    /// The addresses of a name, at least one.
    pub(super) async fn look_up(&self, name: &str) -> Answer {
        if let Some(answer) = self.recall(name) {
            return answer;
        }
        let until = Instant::now() + LOOKUP_TIME_MAX;
        let turn = timeout_at(until, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            tracing::debug!(name, "no turn to look a name up");
            return Err(Cause::EgressError);
        };
        // A dot at its end keeps search domains out of it.
        let query = format!("{name}{}", if self.as_written { "" } else { "." });
        let asked = tokio::task::spawn_blocking(move || ask(&query, turn));
        let answer = match timeout_at(until, asked).await {
            Ok(Ok(Ok(addresses))) if !addresses.is_empty() => Ok(addresses.into()),
            Ok(Ok(Ok(_))) => Err(Cause::DnsNxdomain),
            Ok(Ok(Err(error))) => {
                tracing::debug!(name, %error, "look-up failed");
                Err(failure_cause(&error))
            }
            Ok(Err(_)) | Err(_) => {
                tracing::debug!(name, "look-up took too long");
                Err(Cause::DnsError)
            }
        };
        self.remember(name, &answer);
        answer
    }

    fn recall(&self, name: &str) -> Option<Answer> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = known.get(name)?;
        (Instant::now() < entry.until).then(|| entry.answer.clone())
    }

    fn remember(&self, name: &str, answer: &Answer) {
        let kept = match answer {
            Ok(_) => LOOKUP_KEPT,
            Err(_) => LOOKUP_FAILURE_KEPT,
        };
        let entry = Known {
            answer: answer.clone(),
            until: Instant::now() + kept,
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= LOOKUP_NAMES_MAX {
            known.clear();
        }
        known.insert(name.to_owned(), entry);
    }
}

/// Holds its turn until the operating system answers, however long nobody waits
/// any more: what is bounded are the threads.
fn ask(name: &str, _turn: OwnedSemaphorePermit) -> io::Result<Vec<IpAddr>> {
    #[expect(clippy::disallowed_methods, reason = "this is send/dial/names.rs")]
    let found = (name, 0).to_socket_addrs()?;
    Ok(found.map(|at| at.ip()).take(LOOKUP_ADDRESSES_MAX).collect())
}

fn failure_cause(error: &io::Error) -> Cause {
    let text = error.to_string();
    if NO_SUCH_NAME.iter().any(|known| text.contains(known)) {
        Cause::DnsNxdomain
    } else {
        Cause::DnsError
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_is_kept_for_its_time() {
        tokio::time::pause();
        let names = Names::new(true);
        let loopback: Answer = Ok(Arc::from([IpAddr::from([127, 0, 0, 1])]));
        names.remember("kept.test", &loopback);
        names.remember("absent.test", &Err(Cause::DnsNxdomain));
        tokio::time::advance(LOOKUP_FAILURE_KEPT).await;
        assert_eq!(names.recall("kept.test"), Some(loopback));
        assert_eq!(names.recall("absent.test"), None);
        tokio::time::advance(LOOKUP_KEPT).await;
        assert_eq!(names.recall("kept.test"), None);
    }

    #[tokio::test]
    async fn memory_is_bounded() {
        let names = Names::new(true);
        for number in 0..=LOOKUP_NAMES_MAX {
            names.remember(&number.to_string(), &Err(Cause::DnsError));
        }
        assert_eq!(names.known.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_missing_name_is_told_from_a_failed_look_up() {
        let cause = |text: &str| failure_cause(&io::Error::other(text));
        let of = |detail| cause(&format!("failed to lookup address information: {detail}"));
        assert_eq!(of("Name or service not known"), Cause::DnsNxdomain);
        assert_eq!(of("Temporary failure in name resolution"), Cause::DnsError);
    }
}
