//! JSON Schemas (2020-12) of event types: compiled once, then asked of each
//! event.
//!
//! A schema refers only to parts of itself: nothing is fetched. Its patterns are
//! matched in linear time, which leaves out look-around and back-references.
//! `format` describes and refuses nothing, as the specification has it.

use std::fmt;

use jsonschema::{Draft, PatternOptions, Validator};
use posthaste_core::limits::{SCHEMA_FLAWS_MAX, SCHEMA_REGEX_BYTES_MAX};
use serde_json::Value;

/// The only dialect.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// A compiled schema.
#[derive(Debug)]
pub struct Schema(Validator);

/// What is wrong with a schema, or with what does not satisfy one, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// A JSON pointer (RFC 6901) into it; empty for the whole.
    pub at: String,
    /// What is wrong. It quotes no value.
    pub problem: String,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, problem } = self;
        match at.as_str() {
            "" => write!(f, "{problem}"),
            at => write!(f, "at `{at}`: {problem}"),
        }
    }
}

impl Schema {
    /// From its JSON.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn compile(text: &str) -> Result<Self, Flaw> {
        let flaw = |at: &str, problem: String| Flaw {
            at: at.to_owned(),
            problem,
        };
        let schema: Value =
            serde_json::from_str(text).map_err(|error| flaw("", format!("not JSON: {error}")))?;
        if !schema.is_object() && !schema.is_boolean() {
            return Err(flaw("", "expected an object or a boolean".to_owned()));
        }
        let dialect = schema.get("$schema").and_then(Value::as_str);
        if dialect.is_some_and(|dialect| dialect.trim_end_matches('#') != DIALECT) {
            return Err(flaw("/$schema", format!("expected `{DIALECT}`, or none")));
        }
        let patterns = PatternOptions::regex().size_limit(SCHEMA_REGEX_BYTES_MAX);
        let built = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .with_pattern_options(patterns)
            .offline()
            .build(&schema);
        built
            .map(Self)
            .map_err(|error| flaw(error.instance_path().as_str(), error.to_string()))
    }

    /// Whether a JSON text satisfies it.
    ///
    /// # Errors
    /// At most [`SCHEMA_FLAWS_MAX`] places that do not; at least one.
    pub fn judge(&self, json: &[u8]) -> Result<(), Vec<Flaw>> {
        let read: Value = serde_json::from_slice(json).map_err(|error| {
            // The error's own words can quote what it met.
            let (line, column) = (error.line(), error.column());
            vec![Flaw {
                at: String::new(),
                problem: format!("expected JSON: it ends at line {line}, column {column}"),
            }]
        })?;
        let flaws = self.0.iter_errors(&read).take(SCHEMA_FLAWS_MAX);
        let flaws: Vec<_> = flaws
            .map(|error| Flaw {
                at: error.instance_path().as_str().to_owned(),
                problem: error.masked().to_string(),
            })
            .collect();
        match flaws.is_empty() {
            true => Ok(()),
            false => Err(flaws),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(schema: &str) -> (String, String) {
        let flaw = Schema::compile(schema).expect_err(schema);
        (flaw.at, flaw.problem)
    }

    #[test]
    fn a_schema_that_is_none_is_refused_with_its_place() {
        for (schema, at, word) in [
            ("{", "", "not JSON"),
            ("7", "", "an object or a boolean"),
            (
                r#"{"properties": {"a": {"type": "strin"}}}"#,
                "/properties/a/type",
                "strin",
            ),
            (r#"{"required": "a"}"#, "/required", "array"),
            (
                r#"{"properties": {"a": {"pattern": "("}}}"#,
                "/properties/a/pattern",
                "regex",
            ),
            (r#"{"pattern": "(?=a)"}"#, "/pattern", "regex"),
            (r#"{"pattern": "(x{1000}){1000}"}"#, "/pattern", "regex"),
            (
                r#"{"$schema": "http://json-schema.org/draft-07/schema#"}"#,
                "/$schema",
                "2020-12",
            ),
        ] {
            let (place, problem) = refused(schema);
            assert_eq!(place, at, "{schema}: {problem}");
            assert!(problem.contains(word), "{schema}: {problem}");
        }
        for foreign in ["http://127.0.0.1:1/a.json", "file:///etc/passwd", "b.json"] {
            let (_, problem) = refused(&format!(r#"{{"$ref": "{foreign}"}}"#));
            assert!(problem.contains("retrieving it failed"), "{problem}");
        }
        assert!(refused(r##"{"$ref": "#/$defs/a"}"##).1.contains("$defs/a"));
    }

    #[test]
    fn what_does_not_satisfy_it_is_named_and_not_quoted() {
        let schema = r#"{
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object", "required": ["id"],
            "properties": {
                "amount": {"type": "integer", "minimum": 0, "const": 5},
                "mail": {"format": "email", "maxLength": 9},
                "lines": {"items": {"type": "object"}, "prefixItems": [true]}
            }
        }"#;
        let schema = Schema::compile(schema).unwrap();
        assert_eq!(
            schema.judge(br#"{"id": 1, "amount": 5, "mail": "no mail"}"#),
            Ok(())
        );
        let flaws = schema
            .judge(br#"{"amount": -417, "mail": "hidden words", "lines": [1, 2]}"#)
            .unwrap_err();
        let mut places: Vec<_> = flaws.iter().map(|flaw| flaw.at.as_str()).collect();
        places.sort_unstable();
        assert_eq!(places, ["", "/amount", "/amount", "/lines/1", "/mail"]);
        let told = flaws.iter().map(ToString::to_string).collect::<String>();
        assert!(told.contains("\"id\" is a required property"), "{told}");
        assert!(!told.contains("417") && !told.contains("hidden"), "{told}");
        let many = Schema::compile(r#"{"items": false}"#).unwrap();
        assert_eq!(
            many.judge(b"[1,2,3,4,5,6,7]").unwrap_err().len(),
            SCHEMA_FLAWS_MAX
        );
        let flaws = schema.judge(b"hidden words").unwrap_err();
        assert_eq!(
            flaws[0].to_string(),
            "expected JSON: it ends at line 1, column 1"
        );
    }

    #[test]
    fn one_that_leads_to_itself_ends() {
        let loops = [
            r##"{"$ref": "#"}"##,
            r##"{"allOf": [{"$ref": "#"}]}"##,
            r##"{"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}"##,
            r##"{"$dynamicAnchor": "x", "allOf": [{"$dynamicRef": "#x"}]}"##,
        ];
        for schema in loops {
            assert_eq!(
                Schema::compile(schema).unwrap().judge(b"{}"),
                Ok(()),
                "{schema}"
            );
        }
        let tree = r##"{"type": "object", "additionalProperties": {"$ref": "#"}}"##;
        let tree = Schema::compile(tree).unwrap();
        let deep = |inner: &str| format!("{}{inner}{}", r#"{"a":"#.repeat(100), "}".repeat(100));
        assert_eq!(tree.judge(deep("{}").as_bytes()), Ok(()));
        let flaws = tree.judge(deep("1").as_bytes()).unwrap_err();
        assert_eq!(flaws[0].at, "/a".repeat(100));
    }
}
