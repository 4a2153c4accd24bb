//! A request's body, whole and bounded.
//!
//! A server that answers and closes while its client still writes resets the
//! connection, and the answer can be lost with it. So a body over the bound is
//! read on for a while, and thrown away, before it is refused.

use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use posthaste_core::limits::{REQUEST_BYTES_MAX, REQUEST_DRAIN_BYTES_MAX, REQUEST_DRAIN_TIME_MAX};
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// A body of at most [`REQUEST_BYTES_MAX`] bytes.
#[derive(Debug)]
pub struct Whole(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Whole {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        whole(request.into_body()).await.map(Self)
    }
}

/// All of a body, if that is at most [`REQUEST_BYTES_MAX`] bytes.
pub(super) async fn whole(mut body: Body) -> Result<Bytes, Problem> {
    let mut read = BytesMut::new();
    while let Some(data) = next(&mut body).await? {
        if read.len() + data.len() > REQUEST_BYTES_MAX {
            drop(read);
            let drained = tokio::time::timeout(REQUEST_DRAIN_TIME_MAX, drain(body));
            // Refused either way; the client only may not hear of it.
            let _ = drained.await;
            return Err(Problem::too_large());
        }
        if read.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        read.extend_from_slice(&data);
    }
    Ok(read.freeze())
}

/// A body's JSON, and nothing after it.
pub(super) fn read_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let read =
        serde_path_to_error::deserialize(&mut json).map_err(|error| Problem::wrong_json(&error))?;
    json.end()
        .map_err(|error| Problem::malformed(error.to_string()))?;
    Ok(read)
}

/// The next data of a body; nothing at its end.
async fn next(body: &mut Body) -> Result<Option<Bytes>, Problem> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Problem::malformed(format!("the body did not arrive whole: {error}"))
        })?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

async fn drain(mut body: Body) {
    let mut left = REQUEST_DRAIN_BYTES_MAX;
    while let Ok(Some(data)) = next(&mut body).await {
        match left.checked_sub(data.len()) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
