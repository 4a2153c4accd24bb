//! What the body of a change is: the members of what is changed, and the version
//! that is based on.

use std::borrow::Cow;
use std::marker::PhantomData;

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use super::values::nullable;

/// What replaces all that is set, as it is described: with the version it is
/// based on.
pub(in crate::api) struct Replacement<T>(PhantomData<T>);

/// What is merged with it: each member may be absent, or `null`.
pub(in crate::api) struct Patch<T>(PhantomData<T>);

impl<T: ToSchema> PartialSchema for Replacement<T> {
    fn schema() -> RefOr<Schema> {
        changing(T::schema(), false)
    }
}

impl<T: ToSchema> PartialSchema for Patch<T> {
    fn schema() -> RefOr<Schema> {
        changing(T::schema(), true)
    }
}

impl<T: ToSchema> ToSchema for Replacement<T> {
    fn name() -> Cow<'static, str> {
        format!("{}Replacement", settled::<T>()).into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        T::schemas(schemas);
    }
}

impl<T: ToSchema> ToSchema for Patch<T> {
    fn name() -> Cow<'static, str> {
        format!("{}Patch", settled::<T>()).into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        T::schemas(schemas);
    }
}

/// What is changed is new no more.
fn settled<T: ToSchema>() -> String {
    T::name().trim_start_matches("New").to_owned()
}

/// What is described, all of it to be replaced or merged with, and the version
/// that is based on.
fn changing(settings: RefOr<Schema>, is_patch: bool) -> RefOr<Schema> {
    let RefOr::T(Schema::Object(mut object)) = settings else {
        return settings;
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
