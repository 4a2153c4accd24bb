//! The command line's way to a running server.

use std::path::PathBuf;

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use posthaste_core::limits::{BODY_BYTES_MAX, LIST_PAGE_MAX, REQUEST_BYTES_MAX};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

mod tls;

use tls::Session;
pub(super) use tls::TlsError;

/// Longest answer read.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Where the server is.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Server {
    /// The server's API.
    #[arg(
        long,
        env = "POSTHASTE_SERVER",
        default_value = "http://127.0.0.1:8400",
        global = true
    )]
    server: String,
    /// Authorities to trust besides the system's: PEM; for https:// alone.
    #[arg(long, value_name = "FILE", global = true)]
    ca_file: Option<PathBuf>,
}

impl Server {
    /// The one that listens there.
    pub(crate) fn at(address: std::net::SocketAddr) -> Self {
        Self {
            server: format!("http://{address}"),
            ca_file: None,
        }
    }
}

/// Why the server gave no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// It is not there.
    #[error("cannot reach the server at {server}: {detail}; is `posthaste serve` running there?")]
    Unreachable {
        /// Where.
        server: String,
        /// Why.
        detail: String,
    },
    /// The key is none that a request could carry.
    #[error("POSTHASTE_API_KEY: expected a key as `posthaste keys create` showed it")]
    BadKey,
    /// Its address is not one.
    #[error("--server {0}: expected http://HOST:PORT or https://HOST[:PORT]")]
    BadServer(String),
    /// There can be no TLS session.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// More than it reads.
    #[error("the request has {bytes} bytes; an event's body may have {BODY_BYTES_MAX}")]
    TooLarge {
        /// The request's length.
        bytes: usize,
    },
    /// It refused.
    #[error("{status}: {detail}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// The problem's words.
        detail: String,
    },
}

/// The key to speak with: by the environment, which other users of the machine
/// do not see, as they see the words of a command.
const API_KEY: &str = "POSTHASTE_API_KEY";

/// One connection to the server.
pub(crate) struct Client {
    server: String,
    authority: String,
    authorization: Option<HeaderValue>,
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    pub(crate) async fn connect(server: &Server) -> Result<Self, ClientError> {
        let Server { server, ca_file } = server;
        let server = server.trim_end_matches('/').to_owned();
        let bad = || ClientError::BadServer(server.clone());
        let (authority, tls) = match server.strip_prefix("https://") {
            Some(authority) => (authority, true),
            None => (server.strip_prefix("http://").ok_or_else(bad)?, false),
        };
        let authority: Authority = authority.parse().map_err(|_| bad())?;
        let (host, default) = (authority.host(), tls.then_some(443));
        let port = authority.port_u16().or(default).ok_or_else(bad)?;
        if host.is_empty() || authority.as_str().contains('@') {
            return Err(bad());
        }
        let session = tls.then(|| Session::prepare(host, ca_file.as_deref()));
        let session = session.transpose()?;
        let unreachable = |detail: String| ClientError::Unreachable {
            server: server.clone(),
            detail,
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "the server the operator named, not an endpoint"
        )]
        let stream = TcpStream::connect(format!("{host}:{port}"))
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        let sender = match session {
            None => speak(stream).await,
            Some(session) => {
                let stream = session.begin(stream).await;
                speak(stream.map_err(|error| unreachable(error.to_string()))?).await
            }
        };
        Ok(Self {
            sender: sender.map_err(|error| unreachable(error.to_string()))?,
            server,
            authority: authority.to_string(),
            authorization: authorization()?,
        })
    }

    /// All of a list, page by page.
    pub(crate) async fn all(&mut self, path: &str) -> anyhow::Result<Value> {
        let (mut data, mut at) = (Vec::new(), String::new());
        loop {
            let page = format!("{path}?limit={LIST_PAGE_MAX}{at}");
            let mut page = self.call(Method::GET, &page, &[], Bytes::new()).await?;
            if let Value::Array(items) = page["data"].take() {
                data.extend(items);
            }
            match page["next_cursor"].as_str() {
                Some(next) => at = format!("&cursor={next}"),
                None => return Ok(serde_json::json!({ "data": data })),
            }
        }
    }

    /// One request; the answer's JSON, or what the server said against it.
    pub(crate) async fn call(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> anyhow::Result<Value> {
        if body.len() > REQUEST_BYTES_MAX {
            let bytes = body.len();
            return Err(ClientError::TooLarge { bytes }.into());
        }
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.authority);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let unreachable = |error: hyper::Error| ClientError::Unreachable {
            server: self.server.clone(),
            detail: error.to_string(),
        };
        self.sender.ready().await.map_err(unreachable)?;
        let answer = self
            .sender
            .send_request(request.body(Full::new(body))?)
            .await
            .map_err(unreachable)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
        let body = body.collect().await.map_err(anyhow::Error::from_boxed)?;
        let body = body.to_bytes();
        let value: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(value);
        }
        let detail = value["detail"].as_str().map_or_else(
            || String::from_utf8_lossy(&body).trim().to_owned(),
            ToOwned::to_owned,
        );
        let detail = match value["param"].as_str() {
            Some(param) => format!("{param}: {detail}"),
            None => detail,
        };
        Err(ClientError::Refused { status, detail }.into())
    }
}

/// HTTP/1.1 on that connection.
async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> hyper::Result<SendRequest<Full<Bytes>>> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

fn authorization() -> Result<Option<HeaderValue>, ClientError> {
    let key = std::env::var(API_KEY).unwrap_or_default();
    if key.is_empty() {
        return Ok(None);
    }
    let value = HeaderValue::try_from(format!("Bearer {}", key.trim()));
    let mut value = value.map_err(|_| ClientError::BadKey)?;
    value.set_sensitive(true);
    Ok(Some(value))
}
