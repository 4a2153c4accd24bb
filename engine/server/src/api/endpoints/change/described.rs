//! What a change's body is, for the API's description: a new endpoint's members,
//! with the version it is based on.

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema as _, ToSchema};

use crate::api::document::values::nullable;
use crate::api::endpoints::NewEndpoint;

/// [`NewEndpoint`] as PUT takes it: with `version`.
pub(super) enum EndpointReplacement {}

/// [`NewEndpoint`] as PATCH takes it: each member may be absent, or `null`.
pub(super) enum EndpointPatch {}

impl utoipa::PartialSchema for EndpointReplacement {
    fn schema() -> RefOr<Schema> {
        changing(false)
    }
}

impl ToSchema for EndpointReplacement {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        NewEndpoint::schemas(schemas);
    }
}

impl utoipa::PartialSchema for EndpointPatch {
    fn schema() -> RefOr<Schema> {
        changing(true)
    }
}

impl ToSchema for EndpointPatch {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        NewEndpoint::schemas(schemas);
    }
}

fn changing(is_patch: bool) -> RefOr<Schema> {
    let RefOr::T(Schema::Object(mut object)) = NewEndpoint::schema() else {
        return NewEndpoint::schema();
    };
    object.description = None;
    if is_patch {
        let example = serde_json::json!({"timeout": "20s", "description": null});
        object.examples = vec![example];
        object.required.clear();
        for schema in object.properties.values_mut() {
            *schema = nullable(schema.clone());
        }
    }
    let version = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(0))
        .description(Some("The version it is based on, instead of `if-match`."));
    let version = Schema::Object(version.build());
    object
        .properties
        .insert("version".to_owned(), version.into());
    RefOr::T(Schema::Object(object))
}
