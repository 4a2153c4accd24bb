//! Commands by HTTP under `/_sink/`, on the port the webhooks come in on.
//! Values of a query are percent-decoded; an unknown name is refused, so that a
//! misspelt command does not pass for obeyed.

use std::io;
use std::sync::atomic::Ordering;

use serde::Serialize;
use serde_json::json;
use url::form_urlencoded;

use crate::behave::Command;
use crate::request::Request;
use crate::server::Shared;
use crate::tally::report::{Question, Report};
use crate::verify::Signatures;

/// What command paths begin with.
pub(crate) const PREFIX: &str = "/_sink/";
/// Numbers a report may be asked to look for.
pub(crate) const EXPECTED_MAX: u64 = 1 << 32;
/// Endpoints a report lists unless told otherwise.
const ENDPOINTS_DEFAULT: usize = 100;
/// The kernel's `USER_HZ`, which is 100 on every architecture Linux runs on.
const TICK_US: u64 = 10_000;

/// Everything the sink knows.
#[derive(Debug, Serialize)]
pub(crate) struct FullReport {
    #[serde(flatten)]
    tally: Report,
    signatures: Signatures,
    connections: u64,
    bad_requests: u64,
    accept_errors: u64,
}

/// CPU time of the process.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Cpu {
    /// In user space, to 10 ms.
    user_us: u64,
    /// In the kernel, to 10 ms.
    sys_us: u64,
    /// Both, precisely; absent on kernels without scheduler statistics.
    on_cpu_us: Option<u64>,
}

impl FullReport {
    /// Whether everything expected came, and nothing came wrongly signed.
    pub(crate) fn is_clean(&self) -> bool {
        let missing = self.tally.expected.as_ref().map_or(0, |e| e.missing);
        missing == 0 && self.signatures.failed == 0
    }
}

/// The report as of now.
pub(crate) fn report(shared: &Shared, question: &Question) -> FullReport {
    let (tally, signatures) = shared.ledger.report(question);
    FullReport {
        tally,
        signatures,
        connections: shared.connections.load(Ordering::Relaxed),
        bad_requests: shared.bad_requests.load(Ordering::Relaxed),
        accept_errors: shared.accept_errors.load(Ordering::Relaxed),
    }
}

/// A question that lists the usual number of endpoints.
pub(crate) fn question() -> Question {
    Question {
        expected: None,
        endpoints_max: ENDPOINTS_DEFAULT,
    }
}

/// Obeys a command: the status and the JSON to answer.
pub(crate) fn obey(shared: &Shared, request: &Request<'_>) -> (u16, String) {
    let result = match (request.method, &request.path[PREFIX.len()..]) {
        ("GET", "report") => read_question(request.query).map(|q| json!(report(shared, &q))),
        ("GET", "cpu") => cpu().map(|cpu| json!(cpu)).map_err(|e| e.to_string()),
        ("POST", "latency") => Ok(json!(shared.ledger.take_latency())),
        ("POST", "reset") => {
            shared.ledger.reset();
            shared.behaviour.reset();
            Ok(json!({"reset": true}))
        }
        ("POST", "behave") => read_command(request.query)
            .and_then(|command| shared.behaviour.command(command))
            .map(|()| json!({"obeyed": true})),
        _ => {
            let known = "GET report, GET cpu, POST latency, POST reset, POST behave";
            return (
                404,
                json!({"error": format!("expected {known}")}).to_string(),
            );
        }
    };
    match result {
        Ok(answer) => (200, answer.to_string()),
        Err(error) => (400, json!({"error": error}).to_string()),
    }
}

fn read_question(query: &str) -> Result<Question, String> {
    let mut question = question();
    let (mut from, mut to) = (0, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "from" => from = number("from", &value)?,
            "to" => to = Some(number("to", &value)?),
            "endpoints" => {
                let most = number("endpoints", &value)?;
                question.endpoints_max = usize::try_from(most).unwrap_or(usize::MAX);
            }
            _ => return Err(format!("`{name}` is unknown: expected from, to, endpoints")),
        }
    }
    question.expected = to.map(|to| from..to);
    match &question.expected {
        Some(range) if range.start > range.end || range.end - range.start > EXPECTED_MAX => {
            Err(format!("from..to must rise by at most {EXPECTED_MAX}"))
        }
        None if from > 0 => Err("`from` needs `to`".to_owned()),
        _ => Ok(question),
    }
}

fn read_command(query: &str) -> Result<Command, String> {
    let (mut path, mut act, mut requests) = (None, None, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "path" if value.starts_with('/') => path = Some(value.into_owned()),
            "path" => return Err(format!("path `{value}` does not begin with `/`")),
            "do" => act = Some(value.parse()?),
            "for" => requests = Some(number("for", &value)?.max(1)),
            _ => return Err(format!("`{name}` is unknown: expected path, do, for")),
        }
    }
    Ok(Command {
        path,
        act: act.ok_or("`do` is missing")?,
        requests,
    })
}

fn number(name: &str, text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| format!("{name} `{text}` is not a whole number"))
}

/// CPU time the process has used.
///
/// # Errors
/// `/proc` is not there or not in its form.
pub(crate) fn cpu() -> io::Result<Cpu> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (user_us, sys_us) = ticks(&stat)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/self/stat is not read"))?;
    Ok(Cpu {
        user_us,
        sys_us,
        on_cpu_us: on_cpu_us(),
    })
}

/// Fields 14 and 15 of proc_pid_stat(5). The second field is a name in
/// parentheses that may hold anything.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some((next()? * TICK_US, next()? * TICK_US))
}

/// The first field of each thread's schedstat, which is in nanoseconds.
fn on_cpu_us() -> Option<u64> {
    let mut total_ns = 0;
    for task in std::fs::read_dir("/proc/self/task").ok()? {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        total_ns += text.split(' ').next()?.parse::<u64>().ok()?;
    }
    Some(total_ns / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::behave::Act;

    #[test]
    fn a_command_is_read_and_a_misspelt_one_is_not() {
        let command = read_command("path=%2Fe/7&do=status:503&for=3").unwrap();
        assert_eq!(command.path.as_deref(), Some("/e/7"));
        assert_eq!(command.act, Act::Status(503, None));
        assert_eq!(command.requests, Some(3));
        for query in [
            "",
            "path=/e",
            "do=explode",
            "do=ok&fro=3",
            "path=e&do=ok",
            "do=ok&for=x",
        ] {
            assert!(read_command(query).is_err(), "{query}");
        }
    }

    #[test]
    fn a_question_is_read_and_bounded() {
        let asked = read_question("from=10&to=20&endpoints=3").unwrap();
        assert_eq!((asked.expected, asked.endpoints_max), (Some(10..20), 3));
        assert_eq!(read_question(""), Ok(question()));
        for query in ["from=1", "from=2&to=1", "to=4294967297", "until=3", "to=x"] {
            assert!(read_question(query).is_err(), "{query}");
        }
    }

    #[test]
    fn cpu_time_is_read_and_grows() {
        let stat = "1 (a) b) S 1 1 1 0 -1 4194304 1 0 0 0 7 3 0 0 20 0 1 0 1 1 1";
        assert_eq!(ticks(stat), Some((70_000, 30_000)));
        let before = on_cpu_us().unwrap_or(0);
        let mut word = 1_u64;
        for n in 0..5_000_000_u64 {
            word = std::hint::black_box(word.wrapping_mul(31).wrapping_add(n));
        }
        assert!(on_cpu_us().is_none_or(|after| after > before));
        assert!(cpu().is_ok());
    }
}
