//! A value that conditions compare: from a body, a header, or a filter's own
//! constants.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use serde_json::value::RawValue;

use super::decimal::Decimal;
use crate::limits::{FILTER_ELEMENTS_MAX, FILTER_VALUE_BYTES_MAX};

/// Characters of a text that are shown to people.
const SHOWN_CHARS: usize = 80;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Number(Decimal<'a>),
    Text(Cow<'a, str>),
    /// Its elements; those that are arrays themselves are opaque.
    Array(Vec<Self>),
    /// There, and equal to nothing: an object, or bytes that are no text.
    Opaque,
    /// There, and past the bounds of what is compared.
    TooLong,
}

impl<'a> Value<'a> {
    pub(super) fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    /// From well-formed JSON without spaces around it.
    pub(super) fn read(raw: &'a RawValue) -> Self {
        let text = raw.get();
        if !text.starts_with('[') {
            return Self::scalar(text);
        }
        if text.len() > FILTER_VALUE_BYTES_MAX {
            return Self::TooLong;
        }
        match serde_json::from_str::<Vec<&RawValue>>(text) {
            Ok(elements) if elements.len() <= FILTER_ELEMENTS_MAX => {
                let elements = elements.into_iter();
                Self::Array(
                    elements
                        .map(|element| Self::scalar(element.get()))
                        .collect(),
                )
            }
            Ok(_) => Self::TooLong,
            Err(_) => Self::Opaque,
        }
    }

    fn scalar(text: &'a str) -> Self {
        match text.as_bytes() {
            [b'{' | b'[', ..] => Self::Opaque,
            b"null" => Self::Null,
            b"true" => Self::Bool(true),
            b"false" => Self::Bool(false),
            _ if text.len() > FILTER_VALUE_BYTES_MAX => Self::TooLong,
            [b'"', ..] => string(text),
            _ => Self::Number(Decimal::read(text)),
        }
    }

    /// Holds nothing of the text it was read from.
    pub(super) fn into_owned(self) -> Value<'static> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(value),
            Self::Number(value) => Value::Number(value.into_owned()),
            Self::Text(value) => Value::Text(Cow::Owned(value.into_owned())),
            Self::Array(values) => {
                Value::Array(values.into_iter().map(Value::into_owned).collect())
            }
            Self::Opaque => Value::Opaque,
            Self::TooLong => Value::TooLong,
        }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn equals(&self, other: &Value<'_>) -> bool {
        match (self, other) {
            (Self::Null, Value::Null) => true,
            (Self::Bool(one), Value::Bool(two)) => one == two,
            _ => self.order(other).is_some_and(Ordering::is_eq),
        }
    }

    /// Of two numbers or two texts.
    pub(super) fn order(&self, other: &Value<'_>) -> Option<Ordering> {
        match (self, other) {
            (Self::Number(one), Value::Number(two)) => Some(one.order(two)),
            // The order of UTF-8 bytes is that of code points.
            (Self::Text(one), Value::Text(two)) => Some(one.as_ref().cmp(two.as_ref())),
            _ => None,
        }
    }
}

fn string(text: &str) -> Value<'_> {
    if text.contains('\\') {
        // Half of a surrogate pair is no text.
        return serde_json::from_str(text)
            .map_or(Value::Opaque, |text: String| Value::Text(Cow::Owned(text)));
    }
    let inside = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
    inside.map_or(Value::Opaque, Value::text)
}

/// For people, shortened.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(value) => write!(f, "{value}"),
            Self::Text(text) if text.chars().count() > SHOWN_CHARS => {
                let start: String = text.chars().take(SHOWN_CHARS).collect();
                write!(f, "{start:?}…")
            }
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Array(values) => write!(f, "an array of {}", values.len()),
            Self::Opaque => f.write_str("no string, number, boolean or null"),
            Self::TooLong => f.write_str("too long to be compared"),
        }
    }
}
