//! Which version of the API is spoken. The path names the major one; a date tells
//! changes apart that are visible to programs. There is one so far: a program that
//! names it will be understood when there are more, and one that names another is
//! told so, not misunderstood.

use axum::http::HeaderMap;

use super::problem::Problem;

/// Names it, in requests that care and in every answer.
pub(super) const API_VERSION: &str = "webhook-api-version";
/// The only one.
pub(super) const VERSION: &str = "2026-11-26";

/// Whether a request is in the version that is spoken here.
pub(super) fn check(headers: &HeaderMap) -> Result<(), Problem> {
    match headers
        .get_all(API_VERSION)
        .iter()
        .all(|one| one == VERSION)
    {
        true => Ok(()),
        false => Err(Problem::unknown_version()),
    }
}
