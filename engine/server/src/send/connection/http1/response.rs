//! A response's bytes, understood: its head, and where its body ends (RFC 9112,
//! sections 4 to 7). Knows no socket.

use std::mem::MaybeUninit;

use posthaste_core::limits::{EXCERPT_BYTES_MAX, HEAD_FIELDS_MAX};
use posthaste_core::outcome::Outcome;
use posthaste_core::time::Timestamp;

/// More digits than any chunk's size has that fits a response.
const CHUNK_DIGITS_MAX: u8 = 15;

/// What a head says that matters here.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) outcome: Outcome,
    /// Not an interim response (1xx), after which another follows.
    pub(super) is_final: bool,
    /// Whether the connection may be used again once the body has ended.
    pub(super) keep_alive: bool,
    pub(super) body: Body,
}

/// Why bytes are no head.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeadError {
    Invalid(&'static str),
    TooManyFields,
}

/// What is left of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// Nothing.
    Ended,
    /// So many bytes.
    Length(u64),
    Chunked(Chunk),
    /// All that comes.
    UntilClose,
}

/// Where in a chunked body the next byte stands (RFC 9112, section 7.1). A size
/// is carried until its line has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunk {
    Size {
        value: u64,
        digits: u8,
    },
    /// Blanks behind the size.
    Padding(u64),
    Extension(u64),
    SizeEnd(u64),
    Data(u64),
    DataCr,
    DataEnd,
    /// The first byte of a line behind the last chunk.
    Trailer,
    TrailerLine,
    TrailerLineEnd,
    LastEnd,
}

/// A body that is not what its head announced.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The fields that decide where a body ends and what follows it.
#[derive(Default)]
struct Fields<'a> {
    /// Of all texts that say it; `None` within if they do not agree, or one is no
    /// number.
    length: Option<Option<u64>>,
    /// The last transfer coding is `chunked`; `None` without any coding.
    chunked: Option<bool>,
    close: bool,
    keep_alive: bool,
    retry_after: Option<&'a [u8]>,
}

impl Head {
    /// Reads the head that `bytes` begin with, and says how long it is; `None`
    /// while its end is missing.
    pub(super) fn read(bytes: &[u8], now: Timestamp) -> Result<Option<(usize, Self)>, HeadError> {
        let mut fields = [const { MaybeUninit::uninit() }; HEAD_FIELDS_MAX];
        let mut response = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            bytes,
            &mut fields,
        );
        let end = match parsed {
            Ok(httparse::Status::Complete(end)) => end,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyFields),
            Err(error) => return Err(HeadError::Invalid(text(error))),
        };
        let is_http10 = response.version == Some(0);
        let status = response.code.unwrap_or(0);
        if status < 100 {
            return Err(HeadError::Invalid("a status below 100"));
        }
        let fields = Fields::read(response.headers);
        let body = fields.body(status, is_http10)?;
        let stays = !fields.close && (fields.keep_alive || !is_http10);
        // Both ways of saying how long it is: two readers may see two responses
        // in it (RFC 9112, section 6.1).
        let is_clear = match fields.length {
            None => true,
            Some(length) => length.is_some() && fields.chunked.is_none(),
        };
        let asked = fields.retry_after.and_then(|v| std::str::from_utf8(v).ok());
        let head = Self {
            outcome: Outcome::response(status, asked, now),
            is_final: status >= 200 || status == 101,
            keep_alive: stays && is_clear && body != Body::UntilClose && status != 101,
            body,
        };
        Ok(Some((end, head)))
    }
}

/// Whether a head may have ended, none of whose first `partial` bytes did so:
/// without an empty line there is nothing to read. A drip of single bytes would
/// otherwise cost the square of its length.
pub(super) fn may_end(bytes: &[u8], partial: usize) -> bool {
    let new = &bytes[partial.saturating_sub(3)..];
    partial == 0
        || new.windows(2).any(|two| two == b"\n\n")
        || new.windows(3).any(|three| three == b"\n\r\n")
}

impl<'a> Fields<'a> {
    fn read(headers: &[httparse::Header<'a>]) -> Self {
        let mut fields = Self::default();
        for header in headers {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("content-length") {
                for text in header.value.split(|&b| b == b',') {
                    let here = length(text.trim_ascii());
                    let agrees = fields.length.is_none_or(|before| before == here);
                    fields.length = Some(here.filter(|_| agrees));
                }
            } else if is("transfer-encoding") {
                let last = tokens(header.value).last();
                fields.chunked = Some(last.is_some_and(|t| t.eq_ignore_ascii_case(b"chunked")));
            } else if is("connection") {
                for token in tokens(header.value) {
                    fields.close |= token.eq_ignore_ascii_case(b"close");
                    fields.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            } else if is("retry-after") {
                fields.retry_after.get_or_insert(header.value);
            }
        }
        fields
    }

    /// RFC 9112, section 6.3.
    fn body(&self, status: u16, is_http10: bool) -> Result<Body, HeadError> {
        if matches!(status, 100..=199 | 204 | 304) {
            return Ok(Body::Ended);
        }
        match (self.chunked, self.length) {
            (Some(_), _) if is_http10 => Err(HeadError::Invalid("a transfer coding in HTTP/1.0")),
            (Some(true), _) => Ok(Body::Chunked(Chunk::FIRST)),
            (Some(false), _) | (None, None) => Ok(Body::UntilClose),
            (None, Some(None)) => Err(HeadError::Invalid("its length")),
            (None, Some(Some(0))) => Ok(Body::Ended),
            (None, Some(Some(bytes))) => Ok(Body::Length(bytes)),
        }
    }
}

impl Body {
    pub(super) fn has_ended(self) -> bool {
        self == Self::Ended
    }

    /// Takes what belongs to it from the beginning of `bytes` and answers how
    /// much that was. Keeps the body's beginning in `excerpt`.
    pub(super) fn take(&mut self, bytes: &[u8], excerpt: &mut Vec<u8>) -> Result<usize, Malformed> {
        let mut taken = 0;
        loop {
            let rest = &bytes[taken..];
            if rest.is_empty() {
                return Ok(taken);
            }
            match self {
                Self::Ended => return Ok(taken),
                Self::UntilClose => {
                    keep(rest, excerpt);
                    return Ok(bytes.len());
                }
                Self::Length(left) | Self::Chunked(Chunk::Data(left)) => {
                    let here = usize::try_from(*left).map_or(rest.len(), |n| n.min(rest.len()));
                    keep(&rest[..here], excerpt);
                    taken += here;
                    *left -= u64::try_from(here).unwrap_or(*left);
                    match self {
                        Self::Length(0) => *self = Self::Ended,
                        Self::Chunked(Chunk::Data(0)) => *self = Self::Chunked(Chunk::DataCr),
                        _ => {}
                    }
                }
                Self::Chunked(at) => {
                    *self = at.step(rest[0])?.map_or(Self::Ended, Self::Chunked);
                    taken += 1;
                }
            }
        }
    }
}

impl Chunk {
    const FIRST: Self = Self::Size {
        value: 0,
        digits: 0,
    };

    /// What stands behind a byte that is not data; `None` at the body's end.
    fn step(self, byte: u8) -> Result<Option<Self>, Malformed> {
        Ok(Some(match (self, byte) {
            (Self::Size { value, digits }, _)
                if byte.is_ascii_hexdigit() && digits < CHUNK_DIGITS_MAX =>
            {
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                Self::Size {
                    value: value * 16 + u64::from(digit),
                    digits: digits + 1,
                }
            }
            (Self::Size { value, digits: 1.. } | Self::Padding(value), b' ' | b'\t') => {
                Self::Padding(value)
            }
            (Self::Size { value, digits: 1.. } | Self::Padding(value), b';') => {
                Self::Extension(value)
            }
            (
                Self::Size { value, digits: 1.. } | Self::Padding(value) | Self::Extension(value),
                b'\r',
            ) => Self::SizeEnd(value),
            (Self::Extension(value), 0x20.. | b'\t') => Self::Extension(value),
            (Self::SizeEnd(0) | Self::TrailerLineEnd, b'\n') => Self::Trailer,
            (Self::SizeEnd(value), b'\n') => Self::Data(value),
            (Self::DataCr, b'\r') => Self::DataEnd,
            (Self::DataEnd, b'\n') => Self::FIRST,
            (Self::Trailer, b'\r') => Self::LastEnd,
            (Self::TrailerLine, b'\r') => Self::TrailerLineEnd,
            (Self::Trailer | Self::TrailerLine, 0x20.. | b'\t') => Self::TrailerLine,
            (Self::LastEnd, b'\n') => return Ok(None),
            _ => return Err(Malformed),
        }))
    }
}

/// Keeps what there is room for.
fn keep(bytes: &[u8], excerpt: &mut Vec<u8>) {
    let room = EXCERPT_BYTES_MAX - excerpt.len();
    excerpt.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

/// The members of a comma-separated list.
fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let members = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    members.filter(|member| !member.is_empty())
}

/// Digits and nothing else.
fn length(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(text).ok().filter(|_| digits)?;
    text.parse().ok()
}

const fn text(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::Status | httparse::Error::Version => "its first line",
        httparse::Error::HeaderName => "a field's name",
        httparse::Error::HeaderValue => "a field's value",
        _ => "its head",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunked_body_is_read_strictly() {
        let read = |text: &str| {
            let (mut body, mut excerpt) = (Body::Chunked(Chunk::FIRST), Vec::new());
            let taken = body.take(text.as_bytes(), &mut excerpt);
            taken.map(|taken| (text[taken..].to_owned(), body.has_ended(), excerpt))
        };
        let ended =
            |rest: &str, body: &str| Ok((String::from(rest), true, body.as_bytes().to_vec()));
        assert_eq!(read("2;x=y\r\nok\r\n0\r\n\r\nHTTP"), ended("HTTP", "ok"));
        assert_eq!(read("00002 \t\r\nok\r\n0\r\na: b\r\n\r\n"), ended("", "ok"));
        assert_eq!(read("2\r\no"), Ok((String::new(), false, b"o".to_vec())));
        for bad in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "2\nok",
            "2 2\r\nok",
            "2;a\nb\r\nok",
            "2\r\nok0\r\n",
            "2\r\nok\n0\r\n",
            "0\r\na: b\n\r\n",
            "1000000000000000\r\n",
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
