//! Filters on an event's content: its type, its headers, and values in its
//! body. Written as JSON, parsed once, judged for every event of their tenant.
//!
//! ```json
//! {"data.amount": {"$gte": 100}, "$type": {"$startsWith": "invoice."}}
//! ```
//!
//! # A filter
//! is an object. All its members must hold; `{}` lets everything pass. A member
//! is one of
//!
//! | member | holds when |
//! |---|---|
//! | `"$and": [filter, …]` | every one passes |
//! | `"$or": [filter, …]` | one passes |
//! | `"$not": filter` | it does not pass |
//! | `path: constant` | as `path: {"$eq": constant}` |
//! | `path: {operator: …, …}` | every operator holds for what the path leads to |
//!
//! # A path
//! is one of
//!
//! | path | leads to |
//! |---|---|
//! | `$type` | the event's type, a string |
//! | `$headers.NAME` | a header of its record, a string |
//! | `/data/items/0` | a value in the body, by JSON pointer (RFC 6901) |
//! | `data.items.0` | the same, names separated by dots |
//!
//! The case of a header's name does not matter, and of several headers the last
//! counts. In a pointer `~1` stands for `/` and `~0` for `~`. A name that holds
//! a dot, or a first one that begins with `$` or `/`, needs the pointer.
//!
//! A name leads to the member of an object, or, when it is a number without
//! leading zeros, to the element of an array, counted from 0. It never leads
//! into all elements of an array at once. Of a member that stands twice in its
//! object the first counts. The body is what is delivered: of an envelope its
//! data.
//!
//! # Operators
//!
//! | operator | holds when the value |
//! |---|---|
//! | `$eq: constant` | is equal |
//! | `$ne: constant` | is not, or is missing: exactly when `$eq` does not hold |
//! | `$gt`, `$gte`, `$lt`, `$lte`: constant | is greater, and so on |
//! | `$in: [constant, …]` | is equal to one |
//! | `$nin: [constant, …]` | is equal to none, or is missing |
//! | `$exists: true` | is there, be it `null`; `false`: is missing |
//! | `$startsWith`, `$endsWith`: string | is a string that does |
//!
//! A constant is a string, a number, `true`, `false` or `null`. Strings have the
//! order of their code points, numbers that of their values, others none.
//! Nothing is equal to something of another kind: `1` is not `"1"`, and a
//! missing value is not `null`. Numbers compare by their exact decimal value,
//! however they are written and however long they are: `100`, `100.0` and `1e2`
//! are equal, `9007199254740993` and `9007199254740992` are not. An object is
//! equal to nothing. An operator holds for an array when it holds for one of its
//! elements (`$ne` and `$nin`: for none does `$eq` or `$in`); arrays and objects
//! inside it are equal to nothing.
//!
//! # What cannot be read
//! A body that is no JSON, as far as it had to be read, and a string, number or
//! array past the bounds of [`limits`](crate::limits), leave a condition
//! undecided, and so is its `$not`. An undecided filter does not pass. What is
//! decided by type and headers alone passes with any body.

use std::cmp::Ordering;

use bytes::Bytes;
use bytestring::ByteString;

mod decimal;
mod explain;
mod parse;
mod path;
mod scan;
mod value;

pub use explain::Reason;
pub use scan::Body;

use path::Path;
use scan::Slot;
use value::Value;

/// A filter, ready to judge.
#[derive(Debug, Clone)]
pub struct Filter {
    text: Box<str>,
    root: Node,
}

/// What filters see of an event.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Its type.
    pub event_type: &'a str,
    /// The headers of the record it came in.
    pub headers: &'a [(ByteString, Bytes)],
    /// Its body, as it is delivered.
    pub body: &'a [u8],
}

/// Whether a filter lets an event pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// That hangs on a body that was not looked at, or cannot be read.
    Unknown,
}

/// Text that is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", at(.place))]
pub struct FilterError {
    /// Where in the filter, as a JSON pointer; empty for the whole.
    pub place: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

fn at(place: &str) -> String {
    match place {
        "" => String::new(),
        place => format!("at `{}`: ", place.escape_debug()),
    }
}

#[derive(Debug, Clone)]
enum Node {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not { place: Box<str>, inner: Box<Self> },
    Condition(Condition),
}

/// One operator on one value.
#[derive(Debug, Clone)]
struct Condition {
    /// Where it stands in the filter, as a JSON pointer.
    place: Box<str>,
    operand: Operand,
    operator: Operator,
}

#[derive(Debug, Clone)]
enum Operand {
    Type,
    /// By its name.
    Header(Box<str>),
    Body(Path),
}

#[derive(Debug, Clone)]
enum Operator {
    Eq(Constant),
    Ne(Constant),
    Than(Bound, Constant),
    In(Vec<Constant>),
    Nin(Vec<Constant>),
    Exists(bool),
    StartsWith(Box<str>),
    EndsWith(Box<str>),
}

type Constant = Value<'static>;

/// On which side of a constant a value must lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Gt,
    Gte,
    Lt,
    Lte,
}

impl Filter {
    /// Reads a filter within its bounds.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let root = parse::parse(text)?;
        let text = text.into();
        Ok(Self { text, root })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Judges an event; its body is read only where type and headers do not
    /// decide, and only as far as needed.
    pub fn judge(&self, event: &View<'_>) -> Truth {
        match self.root.judge(event, None) {
            Truth::Unknown => self
                .root
                .judge(event, Some(&Body::scan([self], event.body))),
            decided => decided,
        }
    }

    /// Why the event does not pass: each condition that keeps it from passing.
    /// Empty when it passes.
    pub fn explain(&self, event: &View<'_>) -> Vec<Reason> {
        let body = Body::scan([self], event.body);
        let mut reasons = Vec::new();
        explain::explain(&self.root, event, &body, &mut reasons);
        reasons
    }

    fn paths<'f>(&'f self, out: &mut Vec<&'f Path>) {
        self.root.paths(out);
    }
}

/// Takes out of `items` those whose filter does not let the event pass. The
/// body is scanned once at most, for all of them together. Answers whether a
/// filter stayed undecided because the body could not be read.
pub fn retain<'f, T>(
    items: &mut Vec<T>,
    event: &View<'_>,
    filter_of: impl Fn(&T) -> Option<&'f Filter>,
) -> bool {
    let mut open = Vec::new();
    items.retain(|item| {
        let Some(filter) = filter_of(item) else {
            return true;
        };
        let truth = filter.root.judge(event, None);
        if truth == Truth::Unknown {
            open.push(filter);
        }
        truth != Truth::No
    });
    if open.is_empty() {
        return false;
    }
    let body = Body::scan(open, event.body);
    let mut undecided = false;
    items.retain(|item| {
        let Some(filter) = filter_of(item) else {
            return true;
        };
        // What type and headers decided stays decided.
        let truth = filter.root.judge(event, Some(&body));
        undecided |= truth == Truth::Unknown;
        truth == Truth::Yes
    });
    undecided
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

impl std::ops::Not for Truth {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Unknown => Self::Unknown,
        }
    }
}

impl Node {
    /// Kleene's logic: what is unknown decides nothing, and spoils nothing that
    /// is decided without it.
    fn judge(&self, event: &View<'_>, body: Option<&Body<'_, '_>>) -> Truth {
        match self {
            Self::All(nodes) => first(nodes, Truth::No, event, body),
            Self::Any(nodes) => first(nodes, Truth::Yes, event, body),
            Self::Not { inner, .. } => !inner.judge(event, body),
            Self::Condition(condition) => condition.judge(event, body),
        }
    }

    fn paths<'f>(&'f self, out: &mut Vec<&'f Path>) {
        match self {
            Self::All(nodes) | Self::Any(nodes) => nodes.iter().for_each(|node| node.paths(out)),
            Self::Not { inner, .. } => inner.paths(out),
            Self::Condition(condition) => {
                if let Operand::Body(path) = &condition.operand {
                    out.push(path);
                }
            }
        }
    }
}

/// `decisive` as soon as one of them is; otherwise its opposite, or unknown.
fn first(nodes: &[Node], decisive: Truth, event: &View<'_>, body: Option<&Body<'_, '_>>) -> Truth {
    let mut rest = !decisive;
    for node in nodes {
        let truth = node.judge(event, body);
        if truth == decisive {
            return decisive;
        }
        if truth == Truth::Unknown {
            rest = Truth::Unknown;
        }
    }
    rest
}

impl Condition {
    fn judge(&self, event: &View<'_>, body: Option<&Body<'_, '_>>) -> Truth {
        match &self.operand {
            Operand::Type => self.operator.judge(Some(&Value::text(event.event_type))),
            Operand::Header(name) => self.operator.judge(header(event, name).as_ref()),
            Operand::Body(path) => match body.map_or(&Slot::Open, |body| body.slot(path)) {
                Slot::Open => Truth::Unknown,
                Slot::Missing => self.operator.judge(None),
                Slot::Found(value) => self.operator.judge(Some(value)),
            },
        }
    }
}

fn header<'a>(event: &View<'a>, name: &str) -> Option<Value<'a>> {
    let mut named = event.headers.iter().rev();
    let (_, value) = named.find(|(found, _)| found.eq_ignore_ascii_case(name))?;
    Some(std::str::from_utf8(value).map_or(Value::Opaque, Value::text))
}

impl Operator {
    fn judge(&self, value: Option<&Value<'_>>) -> Truth {
        match (self, value) {
            (Self::Exists(wanted), _) => (value.is_some() == *wanted).into(),
            (_, Some(Value::TooLong)) => Truth::Unknown,
            (Self::Ne(_) | Self::Nin(_), None) => Truth::Yes,
            (_, None) => Truth::No,
            (Self::Ne(_) | Self::Nin(_), Some(Value::Array(elements))) => {
                elements.iter().all(|value| self.holds(value)).into()
            }
            (_, Some(Value::Array(elements))) => {
                elements.iter().any(|value| self.holds(value)).into()
            }
            (_, Some(value)) => self.holds(value).into(),
        }
    }

    /// For one value that is there and is no array.
    fn holds(&self, value: &Value<'_>) -> bool {
        match self {
            Self::Eq(constant) => value.equals(constant),
            Self::Ne(constant) => !value.equals(constant),
            Self::Than(bound, constant) => value
                .order(constant)
                .is_some_and(|order| bound.takes(order)),
            Self::In(constants) => constants.iter().any(|constant| value.equals(constant)),
            Self::Nin(constants) => !constants.iter().any(|constant| value.equals(constant)),
            Self::Exists(wanted) => *wanted,
            Self::StartsWith(start) => value.as_text().is_some_and(|t| t.starts_with(&**start)),
            Self::EndsWith(end) => value.as_text().is_some_and(|t| t.ends_with(&**end)),
        }
    }
}

impl Bound {
    fn takes(self, order: Ordering) -> bool {
        match self {
            Self::Gt => order.is_gt(),
            Self::Gte => order.is_ge(),
            Self::Lt => order.is_lt(),
            Self::Lte => order.is_le(),
        }
    }
}

#[cfg(test)]
mod tests;
