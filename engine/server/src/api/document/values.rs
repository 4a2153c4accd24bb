//! Values that bodies and parameters are made of, as the document has them.

use posthaste_core::access;
use posthaste_core::limits::{EVENT_TYPE_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX, TENANT_BYTES_MAX};
use posthaste_core::outcome::Cause;
use posthaste_core::shard::DEAD_CAUSES;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{
    AdditionalProperties, AnyOfBuilder, ArrayBuilder, KnownFormat, Object, ObjectBuilder,
    OneOfBuilder, Schema, SchemaFormat, SchemaType, Type,
};
use utoipa::openapi::{Ref, RefOr, Required};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use crate::config::HeaderNames;

/// A text of a pattern.
pub(super) fn text(pattern: &str, example: &str) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(pattern))
        .examples([example])
        .build()
}

/// A part of a path.
pub(super) fn segment() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .build()
}

/// A tenant's name.
pub(super) fn tenant() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(TENANT_BYTES_MAX))
        .pattern(Some("^[!-.0-~]+$"))
        .examples(["acme"])
        .build()
}

/// Of how many items a page is to be: 1 to `MOST`.
pub(in crate::api) fn page_limit<const DEFAULT: usize, const MOST: usize>() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(1))
        .maximum(Some(MOST))
        .default(Some(DEFAULT.into()))
        .description(Some("Items on the page, at most."))
        .build()
}

/// A page of what has that name.
pub(in crate::api) fn page(items: &str) -> RefOr<Schema> {
    let items = ArrayBuilder::new().items(Ref::from_schema_name(items));
    let cursor = ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .description(Some("For the next page; `null` on the last one."));
    let page = ObjectBuilder::new()
        .property("data", items)
        .property("has_more", ObjectBuilder::new().schema_type(Type::Boolean))
        .property("next_cursor", cursor)
        .required("data")
        .required("has_more")
        .required("next_cursor");
    page.into()
}

/// The same, or `null`.
pub(in crate::api) fn nullable(mut schema: RefOr<Schema>) -> RefOr<Schema> {
    let null = || ObjectBuilder::new().schema_type(Type::Null);
    match &mut schema {
        RefOr::T(Schema::Object(object)) => {
            if let SchemaType::Type(kind) = &object.schema_type {
                object.schema_type = SchemaType::from_iter([kind.clone(), Type::Null]);
            }
            schema
        }
        // What an `Option` refers to.
        RefOr::T(Schema::OneOf(_)) => schema,
        _ => OneOfBuilder::new().item(schema).item(null()).into(),
    }
}

/// One of these words.
fn word<'a>(words: impl IntoIterator<Item = &'a str>) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(words))
        .build()
}

/// Values with a name of their own in the document; a field has one by
/// `value_type`.
macro_rules! named {
    ($($(#[doc = $says:literal])+ $name:ident = $schema:expr;)*) => {$(
        $(#[doc = $says])+
        pub(in crate::api) enum $name {}

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let mut schema: Object = $schema;
                let says = [$($says.trim()),+].join(" ");
                schema.description = Some(says);
                RefOr::T(Schema::Object(schema))
            }
        }

        impl ToSchema for $name {}
    )*};
}

named! {
    /// A UTC time, to the second.
    Time = ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
        .examples(["2026-01-31T08:00:00Z"])
        .build();
    /// A number and a unit: `500ms`, `15s`, `10m`, `24h`.
    Duration = text("^[0-9]+(ms|s|m|h)$", "15s");
    /// A UTC time, or how long ago.
    Moment = ObjectBuilder::new()
        .schema_type(Type::String)
        .examples(["2026-01-31T08:00:00Z", "2h"])
        .build();
    /// Types of events: segments separated by dots, of which `*` stands for any one, as the
    /// last for one or more.
    TypePattern = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(EVENT_TYPE_BYTES_MAX))
        .examples(["invoice.*"])
        .build();
    /// What a key is for.
    Scope = word(access::Scope::ALL.map(access::Scope::name));
    /// What a portal token is for.
    Capability = word(access::Capability::ALL.map(access::Capability::name));
    /// Why a delivery was given up.
    DeadCause = word(DEAD_CAUSES.iter().map(|(_, name)| *name).chain(["unknown"]));
    /// Why an attempt failed.
    ErrorCode = word(Cause::ALL.iter().map(|cause| cause.code()));
    /// Conditions on an event's content that all must hold. A member is a path into the
    /// body (`customer.country`, or `/customer/a.b`), `$type` or `$headers.NAME` with a
    /// constant or with operators, or `$and`, `$or`, `$not` with filters.
    Filter = filter();
    /// An event as one JSON object. Where its parts stand is the configuration's
    /// (`[ingest.envelope]`); these are the defaults.
    Envelope = envelope();
}

/// An event that comes as JSON: where a header routes it, any.
pub(in crate::api) enum JsonEvent {}

impl PartialSchema for JsonEvent {
    fn schema() -> RefOr<Schema> {
        let any = ObjectBuilder::new()
            .schema_type(SchemaType::AnyValue)
            .description(Some("Any, where `webhook-type` says what it is."));
        AnyOfBuilder::new()
            .item(Ref::from_schema_name(Envelope::name()))
            .item(any)
            .description(Some("An event as JSON."))
            .examples([an_envelope()])
            .into()
    }
}

impl ToSchema for JsonEvent {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((Envelope::name().into_owned(), Envelope::schema()));
    }
}

fn filter() -> Object {
    let itself = || Ref::from_schema_name("Filter");
    let some = || ArrayBuilder::new().items(itself());
    let constant = || {
        let types = [Type::String, Type::Number, Type::Boolean, Type::Null];
        ObjectBuilder::new().schema_type(SchemaType::from_iter(types))
    };
    let mut operators = ObjectBuilder::new();
    for name in ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"] {
        operators = operators.property(name, constant());
    }
    for name in ["$in", "$nin"] {
        operators = operators.property(name, ArrayBuilder::new().items(constant()));
    }
    for name in ["$startsWith", "$endsWith"] {
        operators = operators.property(name, ObjectBuilder::new().schema_type(Type::String));
    }
    let exists = ObjectBuilder::new().schema_type(Type::Boolean);
    let operators = operators
        .property("$exists", exists)
        .additional_properties(Some(AdditionalProperties::FreeForm(false)));
    let condition = OneOfBuilder::new().item(constant()).item(operators).build();
    ObjectBuilder::new()
        .property("$and", some())
        .property("$or", some())
        .property("$not", itself())
        .additional_properties(Some(RefOr::T(Schema::OneOf(condition))))
        .examples([serde_json::json!({"amount": {"$gte": 100}, "customer.country": "CH"})])
        .build()
}

fn an_envelope() -> serde_json::Value {
    serde_json::json!({"type": "invoice.paid", "data": {"amount": 7}})
}

fn envelope() -> Object {
    let words = |says| {
        let text = ObjectBuilder::new().schema_type(Type::String);
        text.description(Some(says))
    };
    let data = ObjectBuilder::new().schema_type(SchemaType::AnyValue);
    let key = ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::String, Type::Number]));
    ObjectBuilder::new()
        .property("type", words("The event's type."))
        .property(
            "id",
            words("Its id, the `webhook-id`; one is made when it is absent."),
        )
        .property(
            "ordering_key",
            key.description(Some("Events of one key can be kept in order.")),
        )
        .property("data", data.description(Some("What is delivered.")))
        .required("type")
        .required("data")
        .examples([an_envelope()])
        .build()
}

/// The headers of an event: by which a repeated request is known, and what
/// routes a body that does not say it itself.
pub(in crate::api) enum EventHeaders {}

impl IntoParams for EventHeaders {
    fn into_params(_in: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let says = "Requests with one key are one event: the answer is given again.";
        let routed =
            |says| format!("{says}, for a body that does not say it (`[ingest.headers]`).");
        let names = HeaderNames::default();
        // An empty one is none, and blanks around one are not it: no bounds.
        let any = || ObjectBuilder::new().schema_type(Type::String).build();
        vec![
            idempotency_key(says),
            header(&names.event_type, &routed("The event's type"), any()),
            header(&names.id, &routed("Its id"), any()),
            header(&names.ordering_key, &routed("Its ordering key"), any()),
        ]
    }
}

/// That header, and what it does.
pub(super) fn idempotency_key(says: &str) -> Parameter {
    // No pattern: blanks around one are not it.
    let schema = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(IDEMPOTENCY_KEY_BYTES_MAX))
        .examples(["invoice-5-paid"]);
    header("idempotency-key", says, schema.build())
}

/// The header that names the version a change is based on.
pub(in crate::api) enum IfMatch {}

impl IntoParams for IfMatch {
    fn into_params(_in: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let says = "The `etag` of an answer: a change of another version is answered 409. \
                    Without it, or with `*`, what is there is changed.";
        vec![header(
            "if-match",
            says,
            text("^(\\*|\"[0-9]+\")$", "\"3\""),
        )]
    }
}

/// A header that can be left out.
fn header(name: &str, says: &str, schema: Object) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(says))
        .schema(Some(schema))
        .build()
}
