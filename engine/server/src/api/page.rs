//! Lists a page at a time. A page's cursor is the id of its last item, or its
//! name in base64: items that come and go in between move no other ones.

use std::borrow::Cow;
use std::fmt::Display;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use posthaste_core::limits::{LIST_PAGE_DEFAULT, LIST_PAGE_MAX};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};

use super::document::values::{self, page_limit};
use super::problem::Problem;

/// Which page.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    #[param(schema_with = page_limit::<LIST_PAGE_DEFAULT, LIST_PAGE_MAX>)]
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    #[param(nullable = false)]
    cursor: Option<String>,
}

/// A page of a list.
#[derive(Debug, Serialize)]
pub(super) struct Page<T> {
    pub(super) data: Vec<T>,
    pub(super) has_more: bool,
    pub(super) next_cursor: Option<String>,
}

impl Paging {
    /// Of a list whose query says more.
    pub(super) fn new(limit: Option<usize>, cursor: Option<String>) -> Self {
        Self { limit, cursor }
    }

    /// The page of all items, which come in any order: theirs is that of their
    /// ids, oldest first. Only those on the page are shown.
    pub(super) fn of<I, S, T>(
        &self,
        items: impl Iterator<Item = (I, S)>,
        show: impl Fn(S) -> T,
    ) -> Result<Page<T>, Problem>
    where
        I: Ord + Copy + Display + FromStr,
    {
        let after = self.cursor.as_deref().map(str::parse::<I>).transpose();
        let after = after.map_err(|_| no_cursor())?;
        self.after(after, items, |id| id.to_string(), show)
    }

    /// The page of items that have names, in the order of these.
    pub(super) fn by_name<'a, S, T>(
        &self,
        items: impl Iterator<Item = (&'a str, S)>,
        show: impl Fn(S) -> T,
    ) -> Result<Page<T>, Problem> {
        let read = |cursor: &str| String::from_utf8(BASE64URL.decode(cursor).ok()?).ok();
        let after = self
            .cursor
            .as_deref()
            .map(|cursor| read(cursor).ok_or_else(no_cursor));
        let after = after.transpose()?;
        let items: Vec<_> = items
            .filter(|(name, _)| after.as_deref().is_none_or(|a| *name > a))
            .collect();
        self.after(None, items.into_iter(), |name| BASE64URL.encode(name), show)
    }

    fn after<I: Ord + Copy, S, T>(
        &self,
        after: Option<I>,
        items: impl Iterator<Item = (I, S)>,
        cursor: impl Fn(I) -> String,
        show: impl Fn(S) -> T,
    ) -> Result<Page<T>, Problem> {
        let limit = read_limit(self.limit.unwrap_or(LIST_PAGE_DEFAULT), LIST_PAGE_MAX)?;
        let behind = |(id, _): &(I, S)| after.is_none_or(|after| *id > after);
        let mut items: Vec<_> = items.filter(behind).collect();
        items.sort_unstable_by_key(|(id, _)| *id);
        let has_more = items.len() > limit;
        items.truncate(limit);
        let last = items.last().map(|(id, _)| cursor(*id));
        Ok(Page {
            data: items.into_iter().map(|(_, item)| show(item)).collect(),
            has_more,
            next_cursor: last.filter(|_| has_more),
        })
    }
}

/// Described under a name of its own, where a route says which list it is by an
/// alias: `type Keys = Page<Shown>`.
impl<T: ToSchema> utoipa::PartialSchema for Page<T> {
    fn schema() -> RefOr<Schema> {
        values::page(&T::name())
    }
}

impl<T: ToSchema> ToSchema for Page<T> {
    fn name() -> Cow<'static, str> {
        format!("{}Page", T::name()).into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(schemas);
    }
}

/// How many a page is to hold.
pub(super) fn read_limit(limit: usize, most: usize) -> Result<usize, Problem> {
    if (1..=most).contains(&limit) {
        return Ok(limit);
    }
    Err(Problem::invalid("limit", format!("expected 1 to {most}")))
}

pub(super) fn no_cursor() -> Problem {
    Problem::invalid("cursor", "expected the `next_cursor` of an answer")
}

/// Of a tenant that the path names nothing else says it.
pub(super) fn only_by_path(tenant: Option<&String>) -> Result<(), Problem> {
    let detail = "the path names the tenant: expected none beside it";
    match tenant {
        Some(_) => Err(Problem::invalid("tenant", detail)),
        None => Ok(()),
    }
}
