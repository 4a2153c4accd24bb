//! An endpoint ready to be sent to: everything that is the same for each of its
//! attempts, read and checked once, so that an attempt parses, formats and
//! copies nothing but its own signature.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT,
};
use http::{Method, Request, Uri, Version};
use hyper::body::{Body, Frame, SizeHint};
use posthaste_core::endpoint::Endpoint;
use posthaste_core::limits::WRITE_BYTES_MAX;
use posthaste_core::outcome::Cause;
use posthaste_core::signature::{EVENT_HEADERS, Piece, Signed, Signer};
use posthaste_core::target::{Host, Scheme, Target};
use posthaste_core::time::Timestamp;
use rustls_pki_types::{DnsName, ServerName};

use super::Attempt;
use super::dial::Route;
use super::egress::Egress;
use super::failure::Failure;

/// Headers of an attempt besides the endpoint's own and the scheme's.
const HEADERS: usize = 5;

const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("posthaste/", env!("CARGO_PKG_VERSION")));
const OCTETS: &str = "application/octet-stream";
const ZERO: HeaderValue = HeaderValue::from_static("0");

/// Bytes of a request besides what varies in length: names, separators, a
/// length.
const FRAME_BYTES: usize = 64;

/// An endpoint's request parts and keys.
pub struct Prepared {
    route: Route,
    /// What every HTTP/1.1 request begins with: its first line and the fields
    /// that are always the same.
    beginning: Vec<u8>,
    custom: Vec<(HeaderName, HeaderValue)>,
    signer: Signer,
    /// The scheme's headers.
    signed: Vec<(HeaderName, Piece)>,
    /// Their length, but for the event's id and type.
    signed_bytes: usize,
    id: [u8; 16],
    id_text: String,
    connect_timeout: Duration,
    timeout: Duration,
    valid_until: Option<Timestamp>,
}

/// An HTTP/1.1 request as it goes over the wire.
pub(super) struct Message {
    /// The head, and a short body.
    head: Vec<u8>,
    /// A long one, uncopied.
    body: Bytes,
}

/// An event's body on its way out, in pieces so that a connection's buffer
/// stays small.
pub(super) struct Payload {
    rest: Bytes,
}

/// Why an endpoint cannot be sent to.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("its {0}")]
    Url(#[from] posthaste_core::target::TargetError),
    #[error("its host cannot stand in a certificate: {0}")]
    Name(#[from] rustls_pki_types::InvalidDnsNameError),
    #[error("its url cannot be sent: {0}")]
    Uri(#[from] http::uri::InvalidUri),
    #[error("a header name: {0}")]
    HeaderName(#[from] http::header::InvalidHeaderName),
    #[error("a header value: {0}")]
    HeaderValue(#[from] http::header::InvalidHeaderValue),
    #[error("secret {id}: {error}")]
    Secret {
        id: String,
        error: posthaste_core::signature::KeyError,
    },
    #[error("secret {id}: {error}")]
    Sealed {
        id: String,
        error: crate::vault::OpenError,
    },
    #[error("header {name}: {error}")]
    Header {
        name: String,
        error: crate::vault::OpenError,
    },
    #[error("no secret is live")]
    NoSecret,
}

impl Prepared {
    /// Reads an endpoint as it is at `now`.
    ///
    /// # Errors
    /// [`Cause::InvalidEndpoint`]: its URL, a header or a live secret cannot be
    /// used, or no secret is live. Never a reason to send unsigned.
    pub fn new(endpoint: &Arc<Endpoint>, egress: &Egress, now: Timestamp) -> Result<Self, Failure> {
        Self::read(endpoint, egress, now).map_err(|error| {
            tracing::debug!(endpoint = %endpoint.id, %error, "the endpoint cannot be sent to");
            Failure::of(Cause::InvalidEndpoint)
        })
    }

    /// When to make it anew: the next moment at which a secret begins or ceases
    /// to sign.
    pub fn valid_until(&self) -> Option<Timestamp> {
        self.valid_until
    }

    /// Time for a whole attempt.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whether HTTP/2 is offered, so that attempts may share a connection.
    pub fn wants_http2(&self) -> bool {
        self.route.http2
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    pub(super) fn route(&self) -> &Route {
        &self.route
    }

    fn read(endpoint: &Endpoint, egress: &Egress, now: Timestamp) -> Result<Self, Unusable> {
        let target = Target::parse(&endpoint.url, egress.policy())?;
        let signer = live_keys(endpoint, egress, now)?;
        let custom = endpoint.headers.iter().map(|header| {
            let name = HeaderName::from_bytes(header.name.as_bytes())?;
            let text = egress.open(endpoint.id, &header.seal_id(), &header.held);
            let text = text.map_err(|error| Unusable::Header {
                name: header.name.clone(),
                error,
            })?;
            let mut value = HeaderValue::from_str(&text)?;
            value.set_sensitive(true);
            Ok((name, value))
        });
        let custom = custom.collect::<Result<Vec<_>, Unusable>>()?;
        // Nothing but a URI and a host can stand there.
        let path: Uri = target.path_and_query().parse()?;
        let host = HeaderValue::try_from(target.authority())?;
        let mut beginning = format!("POST {path} HTTP/1.1\r\n").into_bytes();
        field(&mut beginning, HOST.as_str(), host.as_bytes());
        field(&mut beginning, USER_AGENT.as_str(), AGENT.as_bytes());
        for (name, value) in &custom {
            field(&mut beginning, name.as_str(), value.as_bytes());
        }
        let more = match endpoint.event_headers {
            true => EVENT_HEADERS,
            false => &[],
        };
        let headers = endpoint.scheme.headers().iter().chain(more);
        let mut prepared = Self {
            beginning,
            custom,
            signer,
            signed: headers
                .map(|&(name, piece)| (HeaderName::from_static(name), piece))
                .collect(),
            signed_bytes: 0,
            id: *endpoint.id.as_bytes(),
            id_text: endpoint.id.to_string(),
            connect_timeout: endpoint.connect_timeout,
            timeout: endpoint.timeout,
            valid_until: next_change(endpoint, now),
            route: Route {
                url: target.to_string().parse()?,
                tls: server_name(&target)?,
                host: target.host().clone(),
                port: target.port(),
                http2: endpoint.http2,
            },
        };
        prepared.signed_bytes = prepared.measure(now);
        Ok(prepared)
    }

    /// The length of the scheme's headers of an event without id and type.
    fn measure(&self, now: Timestamp) -> usize {
        let nothing = Signed {
            id: b"",
            timestamp_s: now.as_secs(),
            body: b"",
            event_type: "",
            endpoint: &self.id,
            endpoint_text: &self.id_text,
            retries: 1,
            last_cause: None,
        };
        let mut head = Vec::new();
        for (name, piece) in &self.signed {
            field(&mut head, name.as_str(), b"");
            self.signer.write(*piece, &nothing, &mut head);
        }
        head.len()
    }

    fn signed<'a>(&'a self, attempt: Attempt<'a>) -> Signed<'a> {
        Signed {
            id: attempt.event.id.as_bytes(),
            timestamp_s: attempt.now.as_secs(),
            body: &attempt.event.body,
            event_type: &attempt.event.event_type,
            endpoint: &self.id,
            endpoint_text: &self.id_text,
            retries: attempt.retries,
            last_cause: attempt.last_cause,
        }
    }

    /// The signed HTTP/1.1 request of one attempt. Refuses an event whose id or
    /// type cannot be sent, which [`Event::check`] lets nobody make.
    ///
    /// [`Event::check`]: posthaste_core::event::Event::check
    pub(super) fn message(&self, attempt: Attempt<'_>) -> Result<Message, Failure> {
        let event = attempt.event;
        let content_type =
            Some(&*event.content_type).filter(|text| is_field_value(text.as_bytes()));
        let content_type = content_type.unwrap_or(OCTETS).as_bytes();
        let body = &event.body;
        let is_short = body.len() <= WRITE_BYTES_MAX;
        let varying = content_type.len() + event.id.len() + event.event_type.len();
        let copied = if is_short { body.len() } else { 0 };
        let bytes = self.beginning.len() + FRAME_BYTES + self.signed_bytes + varying + copied;
        let mut head = Vec::with_capacity(bytes);
        head.extend_from_slice(&self.beginning);
        field(&mut head, CONTENT_TYPE.as_str(), content_type);
        field(
            &mut head,
            CONTENT_LENGTH.as_str(),
            itoa::Buffer::new().format(body.len()).as_bytes(),
        );
        let signed = self.signed(attempt);
        for (name, piece) in &self.signed {
            let line = head.len();
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            let value = head.len();
            if !self.signer.write(*piece, &signed, &mut head) {
                head.truncate(line);
                continue;
            }
            if is_events_own(*piece) && !is_field_value(&head[value..]) {
                return Err(Failure::of(Cause::InvalidEndpoint));
            }
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        head.extend_from_slice(&body[..copied]);
        Ok(Message {
            head,
            body: if is_short { Bytes::new() } else { body.clone() },
        })
    }

    /// The signed HTTP/2 request of one attempt. Refuses as
    /// [`message`](Self::message) does.
    pub(super) fn request(&self, attempt: Attempt<'_>) -> Result<Request<Payload>, Failure> {
        let event = attempt.event;
        let fields = HEADERS + self.signed.len() + self.custom.len();
        let mut headers = HeaderMap::with_capacity(fields);
        headers.insert(USER_AGENT, AGENT);
        let content_type = shared(event.content_type.as_bytes());
        headers.insert(
            CONTENT_TYPE,
            content_type.unwrap_or(HeaderValue::from_static(OCTETS)),
        );
        if event.body.is_empty() {
            // For a body that is not empty the library says how long it is.
            headers.insert(CONTENT_LENGTH, ZERO);
        }
        let signed = self.signed(attempt);
        for (name, piece) in &self.signed {
            let mut value = Vec::new();
            let value = match piece {
                Piece::Id => shared(event.id.as_bytes()),
                piece if self.signer.write(*piece, &signed, &mut value) => shared(&value.into()),
                _ => continue,
            };
            let value = value.ok_or(Failure::of(Cause::InvalidEndpoint))?;
            headers.insert(name.clone(), value);
        }
        for (name, value) in &self.custom {
            headers.append(name.clone(), value.clone());
        }
        let mut request = Request::new(Payload {
            rest: event.body.clone(),
        });
        *request.method_mut() = Method::POST;
        *request.headers_mut() = headers;
        // Its pseudo-headers are made from it.
        *request.uri_mut() = self.route.url.clone();
        *request.version_mut() = Version::HTTP_2;
        Ok(request)
    }
}

impl Message {
    /// These bytes and nothing else.
    #[cfg(test)]
    pub(super) fn whole(bytes: &[u8]) -> Self {
        Self {
            head: bytes.to_vec(),
            body: Bytes::new(),
        }
    }

    /// What is left to send when so many bytes are sent, or the first part of
    /// it.
    pub(super) fn rest(&self, sent: usize) -> &[u8] {
        match sent.checked_sub(self.head.len()) {
            None => &self.head[sent..],
            Some(sent) => &self.body[sent..],
        }
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let piece = self.rest.len().min(WRITE_BYTES_MAX);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(u64::try_from(self.rest.len()).unwrap_or(u64::MAX))
    }
}

/// Adds a field's line.
fn field(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    head.extend_from_slice(name.as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

/// Whether a header holds what the event's producer wrote.
const fn is_events_own(piece: Piece) -> bool {
    matches!(piece, Piece::Id | Piece::EventType)
}

/// Whether bytes can stand in a field, and end there (RFC 9110, section 5.5).
fn is_field_value(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .all(|&byte| byte == b'\t' || byte >= 0x20 && byte != 0x7f)
}

/// A header value over the same bytes, uncopied; `None` if they cannot be one.
fn shared(bytes: &Bytes) -> Option<HeaderValue> {
    HeaderValue::from_maybe_shared(bytes.clone()).ok()
}

/// What signs at `now`: the live secrets in the endpoint's order.
fn live_keys(endpoint: &Endpoint, egress: &Egress, now: Timestamp) -> Result<Signer, Unusable> {
    let mut signer = Signer::of(endpoint.scheme);
    for secret in endpoint.secrets.iter().filter(|secret| secret.is_live(now)) {
        let id = || secret.id.clone();
        let text = egress
            .open(endpoint.id, &secret.id, &secret.held)
            .map_err(|error| Unusable::Sealed { id: id(), error })?;
        signer
            .add(&text)
            .map_err(|error| Unusable::Secret { id: id(), error })?;
    }
    if signer.is_empty() {
        return Err(Unusable::NoSecret);
    }
    Ok(signer)
}

fn next_change(endpoint: &Endpoint, now: Timestamp) -> Option<Timestamp> {
    let changes = endpoint
        .secrets
        .iter()
        .flat_map(|secret| [Some(secret.not_before), secret.expires_at]);
    changes.flatten().filter(|at| now < *at).min()
}

/// Whom the certificate must name; `None` in the clear. An address is expected
/// as such and never sent as a name.
fn server_name(target: &Target) -> Result<Option<ServerName<'static>>, Unusable> {
    if target.scheme() == Scheme::Http {
        return Ok(None);
    }
    Ok(Some(match target.host() {
        Host::Name(name) => ServerName::DnsName(DnsName::try_from(name.clone())?),
        Host::V4(address) => ServerName::IpAddress(std::net::IpAddr::V4(*address).into()),
        Host::V6(address) => ServerName::IpAddress(std::net::IpAddr::V6(*address).into()),
    }))
}
