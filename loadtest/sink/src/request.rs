//! Reads HTTP/1.1 requests off a buffer: just enough of RFC 9112 for a load
//! test's receiver.
//!
//! What it refuses: chunked bodies, heads over [`HEAD_BYTES_MAX`], bodies over
//! [`BODY_BYTES_MAX`], and whatever has two meanings (two different lengths, a
//! length that is no number). It looks at five headers and skips the rest.

#[cfg(test)]
mod tests;

/// Longest request line and headers together; past it the answer is 431.
pub(crate) const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Longest body; past it the answer is 413.
pub(crate) const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;

/// One request, borrowed from the buffer it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    /// `POST` and the like.
    pub(crate) method: &'a str,
    /// The target up to the `?`.
    pub(crate) path: &'a str,
    /// What follows the `?`; empty without one.
    pub(crate) query: &'a str,
    /// `webhook-id`.
    pub(crate) id: Option<&'a str>,
    /// `webhook-timestamp`.
    pub(crate) timestamp: Option<&'a str>,
    /// `webhook-signature`.
    pub(crate) signature: Option<&'a str>,
    /// Whether the connection stays open after the answer: HTTP/1.1 without
    /// `connection: close`.
    pub(crate) keep_alive: bool,
    /// The body, byte for byte.
    pub(crate) body: &'a [u8],
}

/// What stands at the front of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed<'a> {
    /// Not all of a request yet.
    Partial,
    /// A request, and how many bytes of the buffer it takes.
    Complete(Request<'a>, usize),
    /// No request, or one that is refused: answer this status and close.
    Bad(u16),
}

/// Reads the request at the front of `buffer`.
pub(crate) fn parse(buffer: &[u8]) -> Parsed<'_> {
    match parse_or_status(buffer) {
        Ok(Some((request, len))) => Parsed::Complete(request, len),
        Ok(None) => Parsed::Partial,
        Err(status) => Parsed::Bad(status),
    }
}

#[derive(Debug, Default)]
struct Head<'a> {
    length: Option<usize>,
    close: bool,
    id: Option<&'a str>,
    timestamp: Option<&'a str>,
    signature: Option<&'a str>,
}

fn parse_or_status(buffer: &[u8]) -> Result<Option<(Request<'_>, usize)>, u16> {
    let mut at = 0;
    // RFC 9112 section 2.2: empty lines before a request are ignored.
    while buffer[at..].starts_with(b"\r\n") {
        at += 2;
    }
    let Some(first) = line(buffer, &mut at)? else {
        return Ok(None);
    };
    let (method, target, http_1_1) = request_line(first)?;
    let mut head = Head::default();
    loop {
        let Some(field) = line(buffer, &mut at)? else {
            return Ok(None);
        };
        if field.is_empty() {
            break;
        }
        head.field(field)?;
    }
    let length = head.length.unwrap_or(0);
    if length > BODY_BYTES_MAX {
        return Err(413);
    }
    let Some(body) = buffer.get(at..at + length) else {
        return Ok(None);
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let request = Request {
        method,
        path,
        query,
        id: head.id,
        timestamp: head.timestamp,
        signature: head.signature,
        keep_alive: http_1_1 && !head.close,
        body,
    };
    Ok(Some((request, at + length)))
}

/// The line at `at` without its end, moving `at` past it.
fn line<'a>(buffer: &'a [u8], at: &mut usize) -> Result<Option<&'a [u8]>, u16> {
    let rest = &buffer[*at..];
    let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
        return if buffer.len() > HEAD_BYTES_MAX {
            Err(431)
        } else {
            Ok(None)
        };
    };
    *at += end + 1;
    if *at > HEAD_BYTES_MAX {
        return Err(431);
    }
    // A bare LF is what smuggling is made of.
    rest[..end].strip_suffix(b"\r").map(Some).ok_or(400)
}

fn request_line(line: &[u8]) -> Result<(&str, &str, bool), u16> {
    let text = std::str::from_utf8(line).map_err(|_| 400_u16)?;
    let mut parts = text.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(400);
    };
    let http_1_1 = match version {
        "HTTP/1.1" => true,
        "HTTP/1.0" => false,
        _ if version.starts_with("HTTP/") => return Err(505),
        _ => return Err(400),
    };
    let token = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_alphabetic());
    let visible = target.starts_with('/') && target.bytes().all(|byte| byte.is_ascii_graphic());
    if token && visible {
        Ok((method, target, http_1_1))
    } else {
        Err(400)
    }
}

impl<'a> Head<'a> {
    fn field(&mut self, line: &'a [u8]) -> Result<(), u16> {
        let colon = line.iter().position(|&byte| byte == b':').ok_or(400_u16)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        // The length alone rules out nearly every header that does not matter.
        match name.len() {
            0 => return Err(400),
            10 if name.eq_ignore_ascii_case(b"connection") => self.connection(value),
            10 if name.eq_ignore_ascii_case(b"webhook-id") => self.id = Some(text(value)?),
            14 if name.eq_ignore_ascii_case(b"content-length") => self.length(value)?,
            17 if name.eq_ignore_ascii_case(b"webhook-timestamp") => {
                self.timestamp = Some(text(value)?);
            }
            17 if name.eq_ignore_ascii_case(b"webhook-signature") => {
                self.signature = Some(text(value)?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => return Err(501),
            _ => {}
        }
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) {
        for option in value.split(|&byte| byte == b',') {
            self.close |= option.trim_ascii().eq_ignore_ascii_case(b"close");
        }
    }

    fn length(&mut self, value: &[u8]) -> Result<(), u16> {
        // `parse` alone would take a `+`.
        if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return Err(400);
        }
        let length = text(value)?.parse().map_err(|_| 413_u16)?;
        match self.length.replace(length) {
            Some(before) if before != length => Err(400),
            _ => Ok(()),
        }
    }
}

fn text(value: &[u8]) -> Result<&str, u16> {
    std::str::from_utf8(value).map_err(|_| 400)
}
