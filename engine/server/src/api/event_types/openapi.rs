//! Event types out of an OpenAPI 3.1 document: its `webhooks`.
//!
//! Schemas and examples are taken over as they are written. A reference into the
//! document's components becomes one into the schema's own `$defs`, so that the
//! schema stands alone; any other is refused, and nothing is fetched.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use posthaste_core::limits::{
    IMPORT_DEPTH_MAX, IMPORT_REFERENCES_MAX, IMPORT_SCAN_BYTES_MAX, IMPORT_TYPES_MAX,
    SCHEMA_BYTES_MAX,
};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Written;
use crate::api::problem::Problem;

/// What a reference begins with that can be followed.
const COMPONENTS: &str = "#/components/";
/// The media type of a body whose schema is read.
const JSON: &str = "application/json";

/// A document, read as far as it is needed.
#[derive(Debug, Deserialize)]
pub(super) struct Document<'a> {
    openapi: String,
    #[serde(borrow, default)]
    webhooks: Members<'a>,
    #[serde(borrow, default)]
    components: Components<'a>,
}

/// What references can lead to.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Components<'a> {
    #[serde(borrow)]
    schemas: BTreeMap<String, &'a RawValue>,
    #[serde(borrow)]
    request_bodies: BTreeMap<String, &'a RawValue>,
    #[serde(borrow)]
    examples: BTreeMap<String, &'a RawValue>,
    #[serde(borrow)]
    path_items: BTreeMap<String, &'a RawValue>,
}

/// An object's members, as they stand and in their order.
#[derive(Debug, Default)]
struct Members<'a>(Vec<(String, &'a RawValue)>);

/// What a webhook says of its type.
#[derive(Debug)]
pub(super) struct Declared {
    pub(super) description: String,
    pub(super) deprecated: bool,
    pub(super) written: Written,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PathItem<'a> {
    summary: String,
    description: String,
    #[serde(borrow)]
    post: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Operation<'a> {
    summary: String,
    description: String,
    deprecated: bool,
    #[serde(borrow)]
    request_body: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RequestBody<'a> {
    #[serde(borrow)]
    content: BTreeMap<String, &'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MediaType<'a> {
    #[serde(borrow)]
    schema: Option<&'a RawValue>,
    #[serde(borrow)]
    example: Option<&'a RawValue>,
    #[serde(borrow)]
    examples: Members<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Example<'a> {
    #[serde(borrow)]
    value: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Reference {
    #[serde(rename = "$ref")]
    leads_to: Option<String>,
}

impl<'a> Document<'a> {
    /// From its JSON.
    ///
    /// # Errors
    /// What it lacks, or has too much of.
    pub(super) fn read(json: &'a str) -> Result<Self, Problem> {
        let invalid = |detail: String| Problem::invalid("openapi", detail);
        let document: Self = serde_json::from_str(json).map_err(|e| invalid(e.to_string()))?;
        if !document.openapi.starts_with("3.1.") {
            let shown = document.openapi.escape_default();
            return Err(invalid(format!("`openapi` is `{shown}`: expected 3.1")));
        }
        match document.webhooks.0.len() {
            0 => Err(invalid("expected `webhooks`: there are none".to_owned())),
            many if many > IMPORT_TYPES_MAX => {
                let wanted = format!("{many} webhooks: expected at most {IMPORT_TYPES_MAX}");
                Err(invalid(wanted))
            }
            _ => Ok(document),
        }
    }

    /// The names of its webhooks.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.webhooks.0.iter().map(|(name, _)| name.as_str())
    }

    /// What the webhook in this place says.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn declared(&self, place: usize) -> Result<Declared, Problem> {
        let (_, item) = self.webhooks.0[place];
        let item: PathItem<'_> = self.object("webhooks", item)?;
        let post = item
            .post
            .ok_or_else(|| Problem::invalid("webhooks", "expected `post`: it has none"))?;
        let post: Operation<'_> = self.object("post", post)?;
        let said = [
            post.description,
            post.summary,
            item.description,
            item.summary,
        ];
        let media = self.media(post.request_body)?;
        let schema = media.schema.map(|schema| self.alone(schema)).transpose()?;
        let mut examples: Vec<_> = media.example.into_iter().map(ToOwned::to_owned).collect();
        for (_, example) in media.examples.0 {
            let example: Example<'_> = self.object("examples", example)?;
            examples.extend(example.value.map(ToOwned::to_owned));
        }
        Ok(Declared {
            description: said.into_iter().find(|s| !s.is_empty()).unwrap_or_default(),
            deprecated: post.deprecated,
            written: Written {
                schema,
                examples: Some(examples),
            },
        })
    }

    /// How a request's body looks as JSON; nothing where nothing is said of that.
    fn media(&self, body: Option<&'a RawValue>) -> Result<MediaType<'a>, Problem> {
        let Some(body) = body else {
            return Ok(MediaType::default());
        };
        let body: RequestBody<'_> = self.object("requestBody", body)?;
        let json = body.content.get(JSON);
        json.map_or_else(|| Ok(MediaType::default()), |json| read("content", json))
    }

    /// An object, or what stands where it refers to.
    fn object<T: Deserialize<'a>>(
        &self,
        param: &'static str,
        mut raw: &'a RawValue,
    ) -> Result<T, Problem> {
        for _ in 0..IMPORT_REFERENCES_MAX {
            let Reference { leads_to } = read(param, raw)?;
            let Some(leads_to) = leads_to else {
                return read(param, raw);
            };
            raw = self.find(param, &leads_to)?;
        }
        Err(Problem::invalid(param, "its references lead to each other"))
    }

    /// Where a reference leads.
    fn find(&self, param: &'static str, reference: &str) -> Result<&'a RawValue, Problem> {
        let shown = reference.escape_default();
        let Some(path) = reference.strip_prefix(COMPONENTS) else {
            let wanted = format!("`{shown}`: expected a reference that begins with `{COMPONENTS}`");
            return Err(Problem::invalid(param, wanted));
        };
        let nowhere = || Problem::invalid(param, format!("`{shown}` leads nowhere"));
        // As a JSON pointer writes them (RFC 6901).
        let mut steps = path
            .split('/')
            .map(|step| step.replace("~1", "/").replace("~0", "~"));
        let kind = match steps.next().as_deref() {
            Some("schemas") => &self.components.schemas,
            Some("requestBodies") => &self.components.request_bodies,
            Some("examples") => &self.components.examples,
            Some("pathItems") => &self.components.path_items,
            _ => return Err(nowhere()),
        };
        let name = steps.next().ok_or_else(nowhere)?;
        let mut found = *kind.get(&name).ok_or_else(nowhere)?;
        for step in steps {
            found = below(found, &step).ok_or_else(nowhere)?;
        }
        Ok(found)
    }

    /// A schema with all it refers to in its own `$defs`.
    fn alone(&self, schema: &'a RawValue) -> Result<Box<RawValue>, Problem> {
        let mut copy = Copy {
            document: self,
            out: String::new(),
            names: BTreeMap::new(),
            waiting: VecDeque::new(),
            left: IMPORT_SCAN_BYTES_MAX,
        };
        copy.whole(schema)?;
        RawValue::from_string(copy.out).map_err(|e| Problem::invalid("schema", e.to_string()))
    }
}

/// The member of an object, or the item of a list, of that name.
fn below<'a>(raw: &'a RawValue, step: &str) -> Option<&'a RawValue> {
    if raw.get().starts_with('[') {
        let items: Vec<&RawValue> = serde_json::from_str(raw.get()).ok()?;
        return items.get(step.parse::<usize>().ok()?).copied();
    }
    let members: Members<'_> = serde_json::from_str(raw.get()).ok()?;
    let mut members = members.0.into_iter();
    members.find_map(|(name, value)| (name == step).then_some(value))
}

fn read<'a, T: Deserialize<'a>>(param: &'static str, raw: &'a RawValue) -> Result<T, Problem> {
    serde_json::from_str(raw.get()).map_err(|error| Problem::invalid(param, error.to_string()))
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Each;

        impl<'de> Visitor<'de> for Each {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        from.deserialize_map(Each)
    }
}

/// Where a schema has schemas in it. What else it has, such as the values of
/// `const` and `default`, can look like one and is none.
#[derive(Clone, Copy)]
enum Holds {
    One,
    List,
    Named,
}

/// The keywords of JSON Schema 2020-12 that apply schemas (core, section 10, and
/// validation, section 8).
fn holds(keyword: &str) -> Option<Holds> {
    Some(match keyword {
        "additionalProperties"
        | "contains"
        | "contentSchema"
        | "else"
        | "if"
        | "items"
        | "not"
        | "propertyNames"
        | "then"
        | "unevaluatedItems"
        | "unevaluatedProperties" => Holds::One,
        "allOf" | "anyOf" | "oneOf" | "prefixItems" => Holds::List,
        "$defs" | "dependentSchemas" | "patternProperties" | "properties" => Holds::Named,
        _ => return None,
    })
}

/// A schema as it is written out.
struct Copy<'d, 'a> {
    document: &'d Document<'a>,
    out: String,
    /// What is referred to, by the names it has in `$defs`.
    names: BTreeMap<String, String>,
    /// Of these, what is not written yet.
    waiting: VecDeque<(String, &'a RawValue)>,
    /// Bytes that may still be looked through.
    left: usize,
}

impl<'a> Copy<'_, 'a> {
    fn whole(&mut self, schema: &'a RawValue) -> Result<(), Problem> {
        if !schema.get().starts_with('{') {
            self.out.push_str(schema.get());
            return Ok(());
        }
        let members: Members<'a> = self.scan(schema)?;
        let (defs, members): (Vec<_>, Vec<_>) =
            members.0.into_iter().partition(|(name, _)| name == "$defs");
        let mut own = Vec::new();
        for (_, defs) in defs {
            own.extend(self.scan::<Members<'a>>(defs)?.0);
        }
        for (name, _) in &own {
            self.names.insert(format!("#/$defs/{name}"), name.clone());
        }
        self.waiting.extend(own);
        self.out.push('{');
        for (at, (name, value)) in members.into_iter().enumerate() {
            self.member(at, &name, value, 0)?;
        }
        if !self.waiting.is_empty() {
            if self.out.len() > 1 {
                self.out.push(',');
            }
            self.out.push_str("\"$defs\":{");
            let mut at = 0;
            while let Some((name, value)) = self.waiting.pop_front() {
                self.key(at, &name);
                self.schema(value, 1)?;
                at += 1;
            }
            self.out.push('}');
        }
        self.out.push('}');
        Ok(())
    }

    fn schema(&mut self, raw: &'a RawValue, depth: usize) -> Result<(), Problem> {
        if depth > IMPORT_DEPTH_MAX {
            let wanted = format!("expected at most {IMPORT_DEPTH_MAX} schemas in each other");
            return Err(Problem::invalid("schema", wanted));
        }
        if self.out.len() > SCHEMA_BYTES_MAX {
            let wanted = format!(
                "with what it refers to it has more than {SCHEMA_BYTES_MAX} bytes: expected no more"
            );
            return Err(Problem::invalid("schema", wanted));
        }
        if !raw.get().starts_with('{') {
            self.out.push_str(raw.get());
            return Ok(());
        }
        let members: Members<'a> = self.scan(raw)?;
        self.out.push('{');
        for (at, (name, value)) in members.0.into_iter().enumerate() {
            self.member(at, &name, value, depth)?;
        }
        self.out.push('}');
        Ok(())
    }

    fn member(
        &mut self,
        at: usize,
        name: &str,
        value: &'a RawValue,
        depth: usize,
    ) -> Result<(), Problem> {
        self.key(at, name);
        let text = value.get();
        match holds(name) {
            None if name == "$ref" && text.starts_with('"') => self.reference(value),
            Some(Holds::One) => self.schema(value, depth + 1),
            Some(Holds::List) if text.starts_with('[') => {
                let items: Vec<&'a RawValue> = self.scan(value)?;
                self.out.push('[');
                for (at, item) in items.into_iter().enumerate() {
                    if at > 0 {
                        self.out.push(',');
                    }
                    self.schema(item, depth + 1)?;
                }
                self.out.push(']');
                Ok(())
            }
            Some(Holds::Named) if text.starts_with('{') => {
                let members: Members<'a> = self.scan(value)?;
                self.out.push('{');
                for (at, (name, schema)) in members.0.into_iter().enumerate() {
                    self.key(at, &name);
                    self.schema(schema, depth + 1)?;
                }
                self.out.push('}');
                Ok(())
            }
            // No place for schemas, or not as the keyword has them, which whoever
            // judges the whole will say.
            None | Some(_) => {
                self.out.push_str(text);
                Ok(())
            }
        }
    }

    /// A reference, to the same thing in `$defs`.
    fn reference(&mut self, value: &'a RawValue) -> Result<(), Problem> {
        let reference: String = read("schema", value)?;
        let found = self.document.find("schema", &reference)?;
        let name = match self.names.get(&reference) {
            Some(name) => name.clone(),
            None => {
                let name = self.free_name(&reference);
                self.names.insert(reference, name.clone());
                self.waiting.push_back((name.clone(), found));
                name
            }
        };
        self.json(&format!("#/$defs/{name}"));
        Ok(())
    }

    /// The last part of a reference, as far as it needs no escapes, and a number
    /// where another has that name.
    fn free_name(&self, reference: &str) -> String {
        let last = reference.rsplit('/').next().unwrap_or_default();
        let plain = |c: char| match c.is_ascii_alphanumeric() || "._-".contains(c) {
            true => c,
            false => '_',
        };
        let name: String = last.chars().map(plain).collect();
        let is_free = |name: &String| !self.names.values().any(|taken| taken == name);
        let numbered = (2..).map(|number: u32| format!("{name}_{number}"));
        let mut names = std::iter::once(name.clone()).chain(numbered);
        names.find(is_free).unwrap_or(name)
    }

    fn key(&mut self, at: usize, name: &str) {
        if at > 0 {
            self.out.push(',');
        }
        self.json(name);
        self.out.push(':');
    }

    fn json(&mut self, text: &(impl Serialize + ?Sized)) {
        // Texts always can be written.
        let json = serde_json::to_string(text).unwrap_or_default();
        self.out.push_str(&json);
    }

    /// Looks through what stands there, as long as that may go on.
    fn scan<T: Deserialize<'a>>(&mut self, raw: &'a RawValue) -> Result<T, Problem> {
        let left = self.left.checked_sub(raw.get().len());
        self.left = left.ok_or_else(|| {
            let wanted = "with what it refers to it is too large: expected less";
            Problem::invalid("schema", wanted)
        })?;
        read("schema", raw)
    }
}

#[cfg(test)]
mod tests;
