//! One shape for every error: `application/problem+json` (RFC 9457) with a
//! stable `code` and, where a field is at fault, its `param`.

use std::borrow::Cow;

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use posthaste_core::endpoint::EndpointError;
use posthaste_core::event::EventError;
use posthaste_core::limits::{BODY_BYTES_MAX, REQUEST_BYTES_MAX};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::version::{API_VERSION, VERSION};
use crate::control::CommandError;
use crate::log::{AppendError, LogError};

/// What went wrong with a request.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    param: Option<Cow<'static, str>>,
    detail: String,
    /// The present version of what was to be changed.
    version: Option<u64>,
}

/// What went wrong (RFC 9457).
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Body {
    /// `about:blank`: `code` says what kind it is.
    #[serde(rename = "type")]
    kind: Cow<'static, str>,
    /// What the status means.
    title: Cow<'static, str>,
    status: u16,
    /// The kind of problem: programs go by it.
    pub(super) code: Cow<'static, str>,
    /// What is wrong, and what would be right: for people.
    detail: String,
    /// The field at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    param: Option<Cow<'static, str>>,
    /// The present version of what was to be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    version: Option<u64>,
    /// Names the request, as the header of that name does.
    pub(super) request_id: String,
}

/// The named parts of a route's path; what is none is a [`Problem`] too.
#[derive(Debug)]
pub struct Segments<T>(pub T);

/// A route's query; one that cannot be read is a [`Problem`] too.
#[derive(Debug)]
pub struct Asked<T>(pub T);

impl Problem {
    fn of(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            param: None,
            detail: detail.into(),
            version: None,
        }
    }

    /// What it is, for a program.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// A request that is wrong in one field.
    pub fn invalid(param: &'static str, detail: impl Into<String>) -> Self {
        Self {
            param: Some(param.into()),
            ..Self::of(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail)
        }
    }

    /// An event that does not satisfy its type's schema.
    pub fn not_satisfied(detail: impl Into<String>) -> Self {
        Self {
            param: Some("body".into()),
            ..Self::of(
                StatusCode::UNPROCESSABLE_ENTITY,
                "schema_not_satisfied",
                detail,
            )
        }
    }

    /// The same of a field that goes by another name.
    pub fn about(self, param: &'static str) -> Self {
        Self {
            param: Some(param.into()),
            ..self
        }
    }

    /// The same, with more to be said.
    pub fn with(self, more: &str) -> Self {
        Self {
            detail: format!("{}; {more}", self.detail),
            ..self
        }
    }

    /// A request that cannot be read.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::of(StatusCode::BAD_REQUEST, "malformed", detail)
    }

    /// A request in a version of the API that is not spoken here.
    pub fn unknown_version() -> Self {
        Self {
            param: Some(API_VERSION.into()),
            ..Self::of(
                StatusCode::BAD_REQUEST,
                "unknown_version",
                format!("expected `{VERSION}`, the only version there is, or none"),
            )
        }
    }

    /// A JSON body with something of the wrong kind in it.
    pub fn wrong_json(error: &serde_path_to_error::Error<serde_json::Error>) -> Self {
        let place = error.path().to_string();
        let known = error.path().iter().next().is_some();
        Self {
            param: known.then(|| place.into()),
            ..Self::malformed(error.inner().to_string())
        }
    }

    /// A body over the bound.
    pub fn too_large() -> Self {
        Self {
            param: Some("body".into()),
            ..Self::of(
                StatusCode::PAYLOAD_TOO_LARGE,
                "payload_too_large",
                format!(
                    "the request has more than {REQUEST_BYTES_MAX} bytes; an event's body may have \
                 {BODY_BYTES_MAX}"
                ),
            )
        }
    }

    /// A path whose parts are not text.
    #[expect(clippy::needless_pass_by_value, reason = "it is a `map_err` target")]
    pub fn bad_path(rejection: PathRejection) -> Self {
        Self::malformed(format!("path: {}", rejection.body_text()))
    }

    /// A route that is there, but not for this method.
    pub fn wrong_method(method: &Method) -> Self {
        Self::of(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            format!("`{method}` is not for this route: expected what `allow` lists"),
        )
    }

    /// Nobody we know: the same for all of them.
    pub fn unauthorized() -> Self {
        Self::of(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "expected `authorization: Bearer` and an API key or a portal token that is good",
        )
    }

    /// Somebody whose time is over.
    pub fn expired() -> Self {
        Self {
            code: "token_expired",
            detail: "the portal token has expired: expected a new one".to_owned(),
            ..Self::unauthorized()
        }
    }

    /// Somebody who may not do this.
    pub fn forbidden(wanted: &str) -> Self {
        Self::of(
            StatusCode::FORBIDDEN,
            "forbidden",
            format!("this needs {wanted}"),
        )
    }

    /// Sent here under a name this API does not go by.
    pub fn misdirected() -> Self {
        Self::of(
            StatusCode::MISDIRECTED_REQUEST,
            "misdirected",
            "`host`: expected an address, `localhost` or one of `http.hosts`",
        )
    }

    /// Sent by a page of somebody else's.
    pub fn foreign_origin() -> Self {
        Self::of(
            StatusCode::FORBIDDEN,
            "foreign_origin",
            "`origin`: expected an address, `localhost` or one of `http.hosts`",
        )
    }

    /// Nothing there.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::of(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// It contradicts what is there.
    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::of(StatusCode::CONFLICT, code, detail)
    }

    /// Somebody else changed it first.
    pub fn version_conflict(present: u64) -> Self {
        Self {
            version: Some(present),
            ..Self::conflict(
                "version_conflict",
                format!("it was changed since it was read: its version is {present}"),
            )
        }
    }

    /// The log does not take it just now: try again.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::of(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.detail)
    }
}

impl<S, T> FromRequestParts<S> for Segments<T>
where
    S: Send + Sync,
    T: serde::de::DeserializeOwned + Send,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(segments)| Self(segments))
            .map_err(Problem::bad_path)
    }
}

impl<S, T> FromRequestParts<S> for Asked<T>
where
    S: Send + Sync,
    T: serde::de::DeserializeOwned + Send,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let query = Query::try_from_uri(&parts.uri);
        query
            .map(|Query(asked)| Self(asked))
            .map_err(|error| Problem::malformed(format!("query: {}", error.body_text())))
    }
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Self {
        Self::unavailable(error.to_string())
    }
}

impl From<EventError> for Problem {
    fn from(error: EventError) -> Self {
        let detail = error.to_string();
        match error {
            EventError::TooLong { field: "body", .. } => Self {
                param: Some("body".into()),
                ..Self::of(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", detail)
            },
            EventError::Missing { field, .. }
            | EventError::TooLong { field, .. }
            | EventError::BadCharacter { field, .. } => Self::invalid(field, detail),
            EventError::Reserved => Self::invalid("tenant", detail),
            EventError::Malformed(_) => Self::malformed(detail),
        }
    }
}

impl From<EndpointError> for Problem {
    fn from(error: EndpointError) -> Self {
        Self::invalid(error.param, error.problem)
    }
}

impl From<AppendError> for Problem {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::TooLarge { .. } => Self {
                param: Some("body".into()),
                ..Self::of(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "payload_too_large",
                    error.to_string(),
                )
            },
            AppendError::Unknown(_) | AppendError::Refused(_) => {
                Self::unavailable(error.to_string())
            }
        }
    }
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Append(error) => error.into(),
            CommandError::NotYetVisible => Self::unavailable(error.to_string()),
            CommandError::Conflict { present: None } => Self::not_found("it is deleted"),
            CommandError::Conflict {
                present: Some(present),
            } => Self::version_conflict(present),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            kind: "about:blank".into(),
            title: self.status.canonical_reason().unwrap_or("error").into(),
            status: self.status.as_u16(),
            code: self.code.into(),
            detail: self.detail,
            param: self.param,
            version: self.version,
            request_id: String::new(),
        };
        let kind = HeaderValue::from_static("application/problem+json");
        let mut response = self.status.into_response();
        // Whoever signs the answer with its request's id writes it.
        response.extensions_mut().insert(body);
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, scheme);
        }
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            let wait = HeaderValue::from_static("1");
            response.headers_mut().insert(header::RETRY_AFTER, wait);
        }
        response
    }
}
