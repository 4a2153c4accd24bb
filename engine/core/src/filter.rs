//! Which event types an endpoint wants: exact, or with `*` segments.

use std::fmt;
use std::str::FromStr;

use crate::limits::EVENT_TYPE_BYTES_MAX;

/// A pattern over dot-separated segments. `*` stands for exactly one segment;
/// as the last segment it stands for one or more. So `invoice.*` matches
/// `invoice.paid` and `invoice.line.added`, `*.paid` matches `invoice.paid`,
/// and `*` alone matches everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TypePattern {
    /// This type alone.
    Exact(String),
    /// Has at least one `*` segment.
    Wild(String),
}

/// Text that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an event type pattern: expected dot-separated segments of visible ASCII, each \
     plain or a whole `*`, for example `invoice.paid` or `invoice.*`"
)]
pub struct PatternError(pub String);

impl TypePattern {
    /// Whether the type is wanted.
    pub fn matches(&self, event_type: &str) -> bool {
        match self {
            Self::Exact(text) => text == event_type,
            Self::Wild(text) => wild_matches(text, event_type),
        }
    }
}

fn wild_matches(pattern: &str, event_type: &str) -> bool {
    let mut wanted = pattern.split('.').peekable();
    let mut found = event_type.split('.');
    while let Some(segment) = wanted.next() {
        let Some(have) = found.next() else {
            return false;
        };
        if segment == "*" && wanted.peek().is_none() {
            return true;
        }
        if segment != "*" && segment != have {
            return false;
        }
    }
    found.next().is_none()
}

impl FromStr for TypePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let plain = |segment: &str| {
            !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_graphic() && b != b'*')
        };
        let well_formed = text.len() <= EVENT_TYPE_BYTES_MAX
            && text
                .split('.')
                .all(|segment| segment == "*" || plain(segment));
        if !well_formed {
            return Err(PatternError(text.chars().take(80).collect()));
        }
        Ok(if text.contains('*') {
            Self::Wild(text.to_owned())
        } else {
            Self::Exact(text.to_owned())
        })
    }
}

impl fmt::Display for TypePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) | Self::Wild(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_match_as_documented() {
        for (pattern, event_type, wanted) in [
            ("invoice.paid", "invoice.paid", true),
            ("invoice.paid", "invoice.paid.late", false),
            ("invoice.*", "invoice.paid", true),
            ("invoice.*", "invoice.line.added", true),
            ("invoice.*", "invoice", false),
            ("invoice.*", "invoices.paid", false),
            ("*.paid", "invoice.paid", true),
            ("*.paid", "invoice.line.paid", false),
            ("a.*.c", "a.b.c", true),
            ("a.*.c", "a.b.d", false),
            ("*", "anything.at.all", true),
        ] {
            let parsed: TypePattern = pattern.parse().unwrap();
            assert_eq!(
                parsed.matches(event_type),
                wanted,
                "{pattern} / {event_type}"
            );
        }
    }

    #[test]
    fn half_a_segment_is_no_pattern() {
        for text in ["", "invoice.", ".paid", "inv*", "a..b", "a b"] {
            assert!(text.parse::<TypePattern>().is_err(), "{text}");
        }
    }
}
