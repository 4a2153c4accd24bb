//! What can be said of an event type: what it means and what its events look
//! like. Events of a type nobody spoke of are delivered like any others.

use posthaste_proto as proto;

use super::{Head, Named, RecordProblem};
use crate::event::check_event_type;
use crate::limits::{DESCRIPTION_BYTES_MAX, EXAMPLE_BYTES_MAX, EXAMPLES_MAX, SCHEMA_BYTES_MAX};
use crate::time::Timestamp;

/// An event type as its record has it. Whether the schema is one, and the
/// examples satisfy it, is judged by whoever writes the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventType {
    /// The type events carry.
    pub name: String,
    /// In people's words.
    pub description: String,
    /// A JSON Schema as it was written; of the body as it is delivered.
    pub schema: Option<String>,
    /// JSON texts of bodies.
    pub examples: Vec<String>,
    /// Not to be built upon any more. It says so and does nothing.
    pub deprecated: bool,
    /// Events that come by HTTP and do not satisfy the schema are refused.
    pub enforce: bool,
    /// When the record was made.
    pub created_at: Timestamp,
}

impl EventType {
    /// Checks the bounds of every field.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn check(&self) -> Result<(), RecordProblem> {
        let problem = |param, problem| Err(RecordProblem { param, problem });
        if let Err(error) = check_event_type(&self.name) {
            return problem("name", error.to_string());
        }
        if self.description.len() > DESCRIPTION_BYTES_MAX {
            return Err(RecordProblem::too_long(
                "description",
                DESCRIPTION_BYTES_MAX,
            ));
        }
        let schema = self.schema.as_deref().unwrap_or_default();
        if schema.len() > SCHEMA_BYTES_MAX {
            return Err(RecordProblem::too_long("schema", SCHEMA_BYTES_MAX));
        }
        let many = self.examples.len();
        if many > EXAMPLES_MAX {
            let wanted = format!("{many} examples: expected at most {EXAMPLES_MAX}");
            return problem("examples", wanted);
        }
        if self
            .examples
            .iter()
            .any(|text| text.len() > EXAMPLE_BYTES_MAX)
        {
            return Err(RecordProblem::too_long("examples", EXAMPLE_BYTES_MAX));
        }
        if self.enforce && self.schema.is_none() {
            let wanted = "there is no schema to enforce: expected `schema`, or `false`";
            return problem("enforce", wanted.to_owned());
        }
        Ok(())
    }
}

impl Named for EventType {
    const PREFIX: &'static str = "y/";
    type Proto = proto::EventType;

    fn record_name(&self) -> &str {
        &self.name
    }

    fn from_proto(record: proto::EventType) -> Result<Self, RecordProblem> {
        let event_type = Self {
            name: record.name,
            description: record.description,
            schema: Some(record.schema).filter(|schema| !schema.is_empty()),
            examples: record.examples,
            deprecated: record.deprecated,
            enforce: record.enforce,
            created_at: Timestamp::from_millis(record.created_at_ms),
        };
        event_type.check()?;
        Ok(event_type)
    }

    fn to_proto(&self, version: u64) -> proto::EventType {
        proto::EventType {
            name: self.name.clone(),
            description: self.description.clone(),
            schema: self.schema.clone().unwrap_or_default(),
            examples: self.examples.clone(),
            deprecated: self.deprecated,
            enforce: self.enforce,
            created_at_ms: self.created_at.as_millis(),
            version,
            deleted: false,
        }
    }

    fn deleted(name: &str, version: u64) -> proto::EventType {
        proto::EventType {
            name: name.to_owned(),
            version,
            deleted: true,
            ..proto::EventType::default()
        }
    }

    fn head(record: &proto::EventType) -> Head<'_> {
        Head {
            name: &record.name,
            version: record.version,
            deleted: record.deleted,
        }
    }
}
