//! What `posthaste dev` shows, as text: a pure function of the board.

use std::time::Duration;

use posthaste_core::time::Timestamp;
use serde_json::{Value, json};

use super::board::{Board, Line, RECENT_MAX, Totals};
use super::row::Row;
use crate::cli::table::plain;

/// What stays the same while it runs.
pub(super) struct Head {
    /// The API's base URL.
    pub(super) api: String,
    /// The data folder.
    pub(super) data: String,
    /// The demo receiver's base URL.
    pub(super) receiver: String,
    /// How this program was called.
    pub(super) program: String,
    /// Whether the API listens where the command line expects it.
    pub(super) api_is_default: bool,
    /// When this run began.
    pub(super) since: Timestamp,
    /// Whether to write colours.
    pub(super) colours: bool,
}

/// Colours, by what they say (ECMA-48, "select graphic rendition").
#[derive(Clone, Copy)]
enum Ink {
    Strong,
    Faint,
    Good,
    Waiting,
    Bad,
}

impl Ink {
    const fn code(self) -> &'static str {
        match self {
            Self::Strong => "1",
            Self::Faint => "2",
            Self::Good => "32",
            Self::Waiting => "33",
            Self::Bad => "31",
        }
    }
}

impl Head {
    fn ink(&self, ink: Ink, text: &str) -> String {
        if self.colours {
            format!("\x1b[{}m{text}\x1b[0m", ink.code())
        } else {
            text.to_owned()
        }
    }

    /// The table's lines, for a screen of at least 80 columns and 24 lines.
    /// `state` is a word for what the program does.
    pub(super) fn frame(&self, board: &Board, now: Timestamp, state: &str) -> Vec<String> {
        let mut lines = self.top(board, now, state);
        lines.push(String::new());
        let head = format!(
            "{:<10}{:>8}{:>11}{:>10}{:>10}{:>9}{:>10}{:>10}",
            "endpoint", "events", "delivered", "verified", "retrying", "bad sig", "last", "median"
        );
        lines.push(self.ink(Ink::Faint, &head));
        lines.extend(board.rows.iter().map(|row| self.row(row)));
        lines.push(String::new());
        let head = format!(
            "{:<10}{:<23}{:<12}{:<9}{:<14}{:>10}",
            "time UTC", "event", "endpoint", "attempt", "answer", "took"
        );
        lines.push(self.ink(Ink::Faint, &head));
        lines.extend(board.recent.iter().map(|line| self.line(line)));
        let missing = RECENT_MAX.saturating_sub(board.recent.len());
        lines.extend(std::iter::repeat_n(String::new(), missing + 1));
        lines.extend(self.hints());
        lines
    }

    fn top(&self, board: &Board, now: Timestamp, state: &str) -> Vec<String> {
        let totals = board.totals();
        let state = format!(
            "{state} {}   {} events published, {} deliveries owed",
            span(now.since(self.since)),
            totals.published,
            totals.owed
        );
        let fact = |name: &str, value: &str| {
            format!(
                "{} {}",
                self.ink(Ink::Faint, &format!("{name:<9}")),
                plain(value)
            )
        };
        vec![
            format!("{}  {state}", self.ink(Ink::Strong, "posthaste dev")),
            fact("API", &self.api),
            fact("log", &format!("{} (embedded, no Kafka needed)", self.data)),
            fact(
                "receiver",
                &format!("{} (verifies every signature)", self.receiver),
            ),
        ]
    }

    fn row(&self, row: &Row) -> String {
        let (last, median) = match row.durations() {
            Some((last, median)) => (millis(last), millis(median)),
            None => ("-".to_owned(), "-".to_owned()),
        };
        let some = |count: u64, width: usize, ink| {
            let text = format!("{count:>width$}");
            if count == 0 {
                text
            } else {
                self.ink(ink, &text)
            }
        };
        format!(
            "{}{:>8}{:>11}{}{}{}{last:>10}{median:>10}",
            fit(&row.endpoint.uid, 10),
            row.events,
            row.delivered,
            some(row.verified, 10, Ink::Good),
            some(row.retrying, 10, Ink::Waiting),
            some(row.refused, 9, Ink::Bad),
        )
    }

    fn line(&self, line: &Line) -> String {
        let ink = if line.verified {
            Ink::Good
        } else {
            Ink::Waiting
        };
        let attempt = format!("{:<9}", line.number);
        let attempt = if line.number > 1 {
            self.ink(Ink::Strong, &attempt)
        } else {
            attempt
        };
        format!(
            "{:<10}{}{}{attempt}{}{:>10}",
            clock(line.at),
            fit(&line.event_type, 23),
            fit(&line.endpoint, 12),
            self.ink(ink, &fit(&line.answer(), 14)),
            millis(line.took),
        )
    }

    fn hints(&self) -> [String; 4] {
        let program = plain(&self.program);
        let server = if self.api_is_default {
            String::new()
        } else {
            format!(" --server {}", self.api)
        };
        let hint = |name: &str, text: &str| {
            format!("{} {text}", self.ink(Ink::Faint, &format!("{name:<9}")))
        };
        let publish = format!(
            "{program} publish{server} --tenant demo --type order.created --data '{{\"id\":1}}'"
        );
        let list = format!("{program} endpoints list{server} --tenant demo");
        [
            hint(
                "flaky",
                "fails the first attempt of every 4th event on purpose: see it retried",
            ),
            hint("publish", &publish),
            hint("look", &list),
            hint(
                "stop",
                "Ctrl-C; what is owed stays in the log, the next start delivers it",
            ),
        ]
    }

    /// What runs, where no table is shown.
    pub(super) fn started(&self) -> String {
        format!(
            "posthaste dev: API {}, log in {}, receiver {}",
            self.api,
            plain(&self.data),
            self.receiver
        )
    }

    /// … for machines.
    pub(super) fn started_json(&self) -> Value {
        json!({
            "kind": "started",
            "api": self.api,
            "data": self.data,
            "receiver": self.receiver,
        })
    }
}

impl Line {
    fn answer(&self) -> String {
        match (self.status, self.cause.as_str()) {
            (status, "") if self.verified => format!("{status} verified"),
            (status, "") => format!("{status} delivered"),
            (0, cause) => cause.to_owned(),
            (status, cause) => format!("{status} {cause}"),
        }
    }

    /// One plain line.
    pub(super) fn text(&self) -> String {
        plain(&format!(
            "{}Z  {:<20}  {:<8}  attempt {}  {:<12}  {}",
            clock(self.at),
            self.event_type,
            self.endpoint,
            self.number,
            self.answer(),
            millis(self.took),
        ))
    }

    /// … for machines.
    pub(super) fn json(&self) -> Value {
        json!({
            "kind": "attempt",
            "at_ms": self.at.as_millis(),
            "event": self.event_id,
            "type": self.event_type,
            "endpoint": self.endpoint,
            "attempt": self.number,
            "status": self.status,
            "cause": self.cause,
            "verified": self.verified,
            "duration_us": u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX),
        })
    }
}

impl Totals {
    /// How the run went, in sentences.
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "{} events published; {} deliveries made, {} verified, {} after a retry; {} still owed",
            self.published, self.delivered, self.verified, self.retried, self.owed
        );
        if self.owed > 0 {
            text.push_str(
                "\nwhat is owed stays in the log: the next start with this folder delivers it",
            );
        }
        if self.duplicates > 0 {
            text.push_str(&format!(
                "\n{} requests repeated what was verified before",
                self.duplicates
            ));
        }
        if self.refused > 0 {
            text.push_str(&format!(
                "\n{} requests had a signature that is not right",
                self.refused
            ));
        }
        text
    }

    /// … for machines.
    pub(super) fn json(&self) -> Value {
        json!({
            "kind": "summary",
            "published": self.published,
            "delivered": self.delivered,
            "verified": self.verified,
            "retried": self.retried,
            "duplicates": self.duplicates,
            "refused": self.refused,
            "owed": self.owed,
        })
    }
}

/// Exactly so many columns; what others wrote cannot steer the terminal.
fn fit(text: &str, width: usize) -> String {
    let text = plain(text);
    if text.chars().count() < width {
        return format!("{text:<width$}");
    }
    let kept: String = text.chars().take(width.saturating_sub(2)).collect();
    format!("{kept}\u{2026} ")
}

fn millis(span: Duration) -> String {
    format!("{:.1} ms", span.as_secs_f64() * 1_000.0)
}

/// The time of day, UTC.
fn clock(at: Timestamp) -> String {
    span(Duration::from_secs(at.as_secs() % 86_400))
}

fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    format!(
        "{:02}:{:02}:{:02}",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60
    )
}

#[cfg(test)]
mod tests;
