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
use posthaste_core::event::Event;
use posthaste_core::limits::WRITE_BYTES_MAX;
use posthaste_core::outcome::Cause;
use posthaste_core::signature::{Signer, SigningKey};
use posthaste_core::target::{Host, Scheme, Target};
use posthaste_core::time::Timestamp;
use rustls_pki_types::{DnsName, ServerName};

use super::dial::Route;
use super::egress::Egress;
use super::failure::Failure;

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Headers of an attempt besides the endpoint's own.
const HEADERS: usize = 8;

const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("posthaste/", env!("CARGO_PKG_VERSION")));
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const ZERO: HeaderValue = HeaderValue::from_static("0");

/// An endpoint's request parts and keys.
pub struct Prepared {
    route: Route,
    /// For HTTP/1.1: path and query alone.
    origin_form: Uri,
    host: HeaderValue,
    custom: Vec<(HeaderName, HeaderValue)>,
    signer: Signer,
    /// Length of the signature header, which is the same for all attempts.
    signature_bytes: usize,
    connect_timeout: Duration,
    timeout: Duration,
    valid_until: Option<Timestamp>,
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
        let signer = Signer::new(live_keys(endpoint, now)?);
        let mut probe = Vec::new();
        signer.sign_into(b"", 0, b"", &mut probe);
        let custom = endpoint.headers.iter().map(|header| {
            let name = HeaderName::from_bytes(header.name.as_bytes())?;
            let mut value = HeaderValue::from_bytes(&header.value)?;
            value.set_sensitive(true);
            Ok((name, value))
        });
        Ok(Self {
            origin_form: target.path_and_query().parse()?,
            host: HeaderValue::try_from(target.authority())?,
            custom: custom.collect::<Result<_, Unusable>>()?,
            signer,
            signature_bytes: probe.len(),
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
        })
    }

    /// The signed request of one attempt made at `now`. Refuses an event whose
    /// id cannot be sent, which [`Event::check`] lets nobody make.
    pub(super) fn request(
        &self,
        event: &Event,
        now: Timestamp,
        http2: bool,
    ) -> Result<Request<Payload>, Failure> {
        let mut headers = HeaderMap::with_capacity(HEADERS + self.custom.len());
        if !http2 {
            headers.insert(HOST, self.host.clone());
        }
        headers.insert(USER_AGENT, AGENT);
        let content_type = shared(event.content_type.as_bytes());
        headers.insert(CONTENT_TYPE, content_type.unwrap_or(OCTETS));
        if event.body.is_empty() {
            // For a body that is not empty the library says how long it is.
            headers.insert(CONTENT_LENGTH, ZERO);
        }
        let seconds = now.as_secs();
        let mut signature = Vec::with_capacity(self.signature_bytes);
        let id = event.id.as_bytes();
        self.signer
            .sign_into(id, seconds, &event.body, &mut signature);
        let sendable = |value: Option<_>| value.ok_or(Failure::of(Cause::InvalidEndpoint));
        headers.insert(WEBHOOK_ID, sendable(shared(id))?);
        headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(seconds));
        headers.insert(WEBHOOK_SIGNATURE, sendable(shared(&signature.into()))?);
        for (name, value) in &self.custom {
            headers.append(name.clone(), value.clone());
        }
        let mut request = Request::new(Payload {
            rest: event.body.clone(),
        });
        *request.method_mut() = Method::POST;
        *request.headers_mut() = headers;
        if http2 {
            // Its pseudo-headers are made from it.
            *request.uri_mut() = self.route.url.clone();
            *request.version_mut() = Version::HTTP_2;
        } else {
            *request.uri_mut() = self.origin_form.clone();
        }
        Ok(request)
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

/// A header value over the same bytes, uncopied; `None` if they cannot be one.
fn shared(bytes: &Bytes) -> Option<HeaderValue> {
    HeaderValue::from_maybe_shared(bytes.clone()).ok()
}

/// The secrets that sign at `now`, in the endpoint's order.
fn live_keys(endpoint: &Endpoint, now: Timestamp) -> Result<Vec<SigningKey>, Unusable> {
    let live = endpoint.secrets.iter().filter(|secret| secret.is_live(now));
    let keys = live.map(|secret| {
        SigningKey::parse(&secret.text).map_err(|error| Unusable::Secret {
            id: secret.id.clone(),
            error,
        })
    });
    let keys: Vec<_> = keys.collect::<Result<_, _>>()?;
    if keys.is_empty() {
        return Err(Unusable::NoSecret);
    }
    Ok(keys)
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
