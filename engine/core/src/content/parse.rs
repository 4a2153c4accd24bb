//! From JSON to a filter, with the place of whatever is wrong.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::path::{Path, escape};
use super::value::Value;
use super::{Bound, Condition, Constant, FilterError, Node, Operand, Operator};
use crate::limits::{FILTER_BYTES_MAX, FILTER_DEPTH_MAX, FILTER_NODES_MAX};

const OPERATORS: &str = "`$eq`, `$ne`, `$gt`, `$gte`, `$lt`, `$lte`, `$in`, `$nin`, `$exists`, \
                         `$startsWith` or `$endsWith`";
const CONSTANT: &str = "expected a string, a number, `true`, `false` or `null`";

pub(super) fn parse(text: &str) -> Result<Node, FilterError> {
    if text.len() > FILTER_BYTES_MAX {
        return wrong("", format!("expected at most {FILTER_BYTES_MAX} bytes"));
    }
    let raw: &RawValue = match serde_json::from_str(text) {
        Ok(raw) => raw,
        Err(error) => return wrong("", format!("expected JSON: {error}")),
    };
    Parser { nodes: 0 }.filter(raw, "", 0)
}

fn wrong<T>(place: &str, problem: impl Into<String>) -> Result<T, FilterError> {
    Err(FilterError {
        place: place.to_owned(),
        problem: problem.into(),
    })
}

fn below(place: &str, name: &str) -> String {
    format!("{place}/{}", escape(name))
}

struct Parser {
    nodes: usize,
}

impl Parser {
    fn count(&mut self, place: &str) -> Result<(), FilterError> {
        self.nodes += 1;
        if self.nodes > FILTER_NODES_MAX {
            let most =
                format!("expected at most {FILTER_NODES_MAX} paths, operators and constants");
            return wrong(place, most);
        }
        Ok(())
    }

    fn filter(&mut self, raw: &RawValue, place: &str, depth: usize) -> Result<Node, FilterError> {
        if depth > FILTER_DEPTH_MAX {
            let most = format!("expected at most {FILTER_DEPTH_MAX} filters inside each other");
            return wrong(place, most);
        }
        let wanted = "expected an object, such as {\"data.amount\": {\"$gte\": 100}}";
        let mut nodes = Vec::new();
        for (name, raw) in members(raw, place, wanted)? {
            let place = below(place, &name);
            self.count(&place)?;
            match name.as_str() {
                "$and" => nodes.push(Node::All(self.filters(raw, &place, depth)?)),
                "$or" => nodes.push(Node::Any(self.filters(raw, &place, depth)?)),
                "$not" => nodes.push(Node::Not {
                    inner: Box::new(self.filter(raw, &place, depth + 1)?),
                    place: place.into(),
                }),
                path => self.conditions(&operand(path, &place)?, raw, &place, &mut nodes)?,
            }
        }
        Ok(Node::All(nodes))
    }

    fn filters(
        &mut self,
        raw: &RawValue,
        place: &str,
        depth: usize,
    ) -> Result<Vec<Node>, FilterError> {
        let filters = elements(raw, place, "expected an array of filters")?;
        let filters = filters.into_iter().zip(0..);
        filters
            .map(|(raw, number)| self.filter(raw, &format!("{place}/{number}"), depth + 1))
            .collect()
    }

    fn conditions(
        &mut self,
        operand: &Operand,
        raw: &RawValue,
        place: &str,
        nodes: &mut Vec<Node>,
    ) -> Result<(), FilterError> {
        let mut push = |operator, place: String| {
            nodes.push(Node::Condition(Condition {
                place: place.into(),
                operand: operand.clone(),
                operator,
            }));
        };
        if !raw.get().starts_with('{') {
            let constant = self.constant(operand, raw, place)?;
            push(Operator::Eq(constant), place.to_owned());
            return Ok(());
        }
        let operators = members(raw, place, CONSTANT)?;
        if operators.is_empty() {
            return wrong(place, format!("expected an operator: {OPERATORS}"));
        }
        for (name, raw) in operators {
            let place = below(place, &name);
            self.count(&place)?;
            let operator = self.operator(operand, &name, raw, &place)?;
            push(operator, place);
        }
        Ok(())
    }

    fn operator(
        &mut self,
        operand: &Operand,
        name: &str,
        raw: &RawValue,
        place: &str,
    ) -> Result<Operator, FilterError> {
        let constant = |parser: &mut Self| parser.constant(operand, raw, place);
        Ok(match name {
            "$eq" => Operator::Eq(constant(self)?),
            "$ne" => Operator::Ne(constant(self)?),
            "$gt" => Operator::Than(Bound::Gt, ordered(constant(self)?, place)?),
            "$gte" => Operator::Than(Bound::Gte, ordered(constant(self)?, place)?),
            "$lt" => Operator::Than(Bound::Lt, ordered(constant(self)?, place)?),
            "$lte" => Operator::Than(Bound::Lte, ordered(constant(self)?, place)?),
            "$in" => Operator::In(self.constants(operand, raw, place)?),
            "$nin" => Operator::Nin(self.constants(operand, raw, place)?),
            "$exists" => match Value::read(raw) {
                Value::Bool(wanted) => Operator::Exists(wanted),
                _ => return wrong(place, "expected `true` or `false`"),
            },
            "$startsWith" => Operator::StartsWith(text(raw, place)?),
            "$endsWith" => Operator::EndsWith(text(raw, place)?),
            "$not" | "$and" | "$or" => {
                let right = format!("expected `{name}` around the path, as in {{\"{name}\": …}}");
                return wrong(place, right);
            }
            name if name.starts_with('$') => {
                return wrong(place, format!("unknown operator: expected {OPERATORS}"));
            }
            name => {
                let shown = name.escape_debug();
                return wrong(
                    place,
                    format!("expected an operator; the path to a member goes on by `.{shown}`"),
                );
            }
        })
    }

    fn constants(
        &mut self,
        operand: &Operand,
        raw: &RawValue,
        place: &str,
    ) -> Result<Vec<Constant>, FilterError> {
        let constants = elements(raw, place, "expected an array of constants")?;
        let constants = constants.into_iter().zip(0..);
        constants
            .map(|(raw, number)| self.constant(operand, raw, &format!("{place}/{number}")))
            .collect()
    }

    fn constant(
        &mut self,
        operand: &Operand,
        raw: &RawValue,
        place: &str,
    ) -> Result<Constant, FilterError> {
        self.count(place)?;
        let constant = Value::read(raw).into_owned();
        match (operand, &constant) {
            (_, Value::Array(_)) => wrong(place, format!("{CONSTANT}; for one of several `$in`")),
            (_, Value::Opaque | Value::TooLong) => wrong(place, CONSTANT),
            (Operand::Type | Operand::Header(_), other) if other.as_text().is_none() => {
                wrong(place, "expected a string: types and headers are strings")
            }
            _ => Ok(constant),
        }
    }
}

fn operand(path: &str, place: &str) -> Result<Operand, FilterError> {
    if path == "$type" {
        return Ok(Operand::Type);
    }
    if let Some(name) = path.strip_prefix("$headers.") {
        let named = !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic());
        if !named {
            return wrong(place, "expected a header's name in visible ASCII");
        }
        return Ok(Operand::Header(name.to_ascii_lowercase().into()));
    }
    if path.starts_with('$') {
        return wrong(
            place,
            "expected a path into the body, `$type`, `$headers.NAME`, `$and`, `$or` or `$not`; \
             of a member whose name begins with `$` the JSON pointer, such as `/$id`",
        );
    }
    let path = Path::parse(path);
    path.map(Operand::Body)
        .or_else(|problem| wrong(place, problem))
}

/// Only these have an order.
fn ordered(constant: Constant, place: &str) -> Result<Constant, FilterError> {
    match constant {
        Value::Number(_) | Value::Text(_) => Ok(constant),
        _ => wrong(place, "expected a number or a string"),
    }
}

fn text(raw: &RawValue, place: &str) -> Result<Box<str>, FilterError> {
    match Value::read(raw) {
        Value::Text(text) => Ok(text.into()),
        _ => wrong(place, "expected a string"),
    }
}

fn elements<'a>(
    raw: &'a RawValue,
    place: &str,
    wanted: &str,
) -> Result<Vec<&'a RawValue>, FilterError> {
    match serde_json::from_str::<Vec<_>>(raw.get()) {
        Ok(elements) if !elements.is_empty() => Ok(elements),
        _ => wrong(place, format!("{wanted}, one at least")),
    }
}

/// An object's members as they stand, none of them twice.
fn members<'a>(
    raw: &'a RawValue,
    place: &str,
    wanted: &str,
) -> Result<Vec<(String, &'a RawValue)>, FilterError> {
    let Ok(Members(members)) = serde_json::from_str(raw.get()) else {
        return wrong(place, wanted);
    };
    for (number, (name, _)) in members.iter().enumerate() {
        if members[..number].iter().any(|(before, _)| before == name) {
            return wrong(&below(place, name), "stands twice: expected it once");
        }
    }
    Ok(members)
}

struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_map(Self(Vec::new()))
    }
}

impl<'de: 'a, 'a> Visitor<'de> for Members<'a> {
    type Value = Self;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some(member) = map.next_entry::<String, &'de RawValue>()? {
            self.0.push(member);
        }
        Ok(self)
    }
}
