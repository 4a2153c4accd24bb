//! Why a filter does not pass, for people.

use std::fmt;

use super::scan::{Body, Slot};
use super::value::Value;
use super::{Condition, Node, Operand, Truth, View, header};

/// A condition that keeps an event from passing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Where it stands in the filter, as a JSON pointer.
    pub place: String,
    /// What was found instead.
    pub problem: String,
}

pub(super) fn explain(
    node: &Node,
    event: &View<'_>,
    body: &Body<'_, '_>,
    reasons: &mut Vec<Reason>,
) {
    let truth = node.judge(event, Some(body));
    if truth == Truth::Yes {
        return;
    }
    match node {
        Node::All(nodes) | Node::Any(nodes) => {
            nodes
                .iter()
                .for_each(|node| explain(node, event, body, reasons));
        }
        Node::Not { place, .. } if truth == Truth::No => reasons.push(Reason {
            place: place.to_string(),
            problem: "what it must not be holds".to_owned(),
        }),
        Node::Not { inner, .. } => undecided(inner, event, body, reasons),
        Node::Condition(condition) => reasons.push(condition.reason(event, body)),
    }
}

/// The conditions that could not be decided.
fn undecided(node: &Node, event: &View<'_>, body: &Body<'_, '_>, reasons: &mut Vec<Reason>) {
    if node.judge(event, Some(body)) != Truth::Unknown {
        return;
    }
    match node {
        Node::All(nodes) | Node::Any(nodes) => {
            nodes
                .iter()
                .for_each(|node| undecided(node, event, body, reasons));
        }
        Node::Not { inner, .. } => undecided(inner, event, body, reasons),
        Node::Condition(condition) => reasons.push(condition.reason(event, body)),
    }
}

impl Condition {
    fn reason(&self, event: &View<'_>, body: &Body<'_, '_>) -> Reason {
        let missing = || "is missing".to_owned();
        let is = |value: &Value<'_>| format!("is {value}");
        let found = match &self.operand {
            Operand::Type => is(&Value::text(event.event_type)),
            Operand::Header(name) => header(event, name).as_ref().map_or_else(missing, is),
            Operand::Body(path) => match body.slot(path) {
                Slot::Open => "cannot be read: the body is no JSON up to there".to_owned(),
                Slot::Missing => missing(),
                Slot::Found(value) => is(value),
            },
        };
        Reason {
            place: self.place.to_string(),
            problem: format!("{} {found}", self.operand),
        }
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Type => f.write_str("the type"),
            Self::Header(name) => write!(f, "header `{name}`"),
            Self::Body(path) => write!(f, "`{path}`"),
        }
    }
}
