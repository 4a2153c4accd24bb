//! The problems the API answers with: one row each. At a route stands which of
//! them it can meet, beside what it answers when all is well.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::schema::{AllOfBuilder, ObjectBuilder, Schema, Type};
use utoipa::openapi::{Ref, RefOr, Response, ResponseBuilder, Responses};
use utoipa::{IntoResponses, ToSchema as _};

use super::{response_of, signed};
use crate::api::problem::Body;

/// A kind of problem.
struct Code {
    status: u16,
    code: &'static str,
    /// When it is met.
    says: &'static str,
    /// The field an example is about.
    param: Option<&'static str>,
    detail: &'static str,
}

/// Rows, and for each a type to name at routes.
macro_rules! codes {
    ($($name:ident = $status:literal $code:literal, $says:literal, $param:expr, $detail:literal;)*) => {
        const CODES: &[Code] = &[$(
            Code { status: $status, code: $code, says: $says, param: $param, detail: $detail },
        )*];
        $(
            #[doc = $says]
            pub(in crate::api) enum $name {}

            impl $name {
                pub(super) const CODE: &str = $code;
            }

            impl IntoResponses for $name {
                fn responses() -> BTreeMap<String, RefOr<Response>> {
                    // By its code, for there can be several of one status:
                    // `Problems::gather` puts them together.
                    BTreeMap::from([(Self::CODE.to_owned(), Response::new("").into())])
                }
            }
        )*
    };
}

codes! {
    Malformed = 400 "malformed", "The request cannot be read.",
        Some("timeout"), "invalid type: integer `20`, expected a string";
    Unauthorized = 401 "unauthorized", "No key or token that is good.",
        None, "expected `authorization: Bearer` and an API key or a portal token that is good";
    TokenExpired = 401 "token_expired", "The portal token has expired.",
        None, "the portal token has expired: expected a new one";
    Forbidden = 403 "forbidden", "The key or token is not for this.",
        None, "this needs the scope `admin`";
    ForeignOrigin = 403 "foreign_origin", "Where no key is needed: a page of another origin asked.",
        None, "`origin`: expected an address, `localhost` or one of `http.hosts`";
    NotFound = 404 "not_found", "It is not there, or is another tenant's.",
        None, "no such endpoint";
    VersionConflict = 409 "version_conflict", "It was changed since the version that was named.",
        None, "it was changed since it was read: its version is 4";
    UidTaken = 409 "uid_taken", "The tenant has another endpoint of that uid.",
        None, "the tenant has an endpoint with uid `billing`";
    TooManyEndpoints = 409 "too_many_endpoints", "The tenant has as many endpoints as it may.",
        None, "a tenant has at most 1000 endpoints";
    TooManyOperations = 409 "too_many_operations", "The endpoint, or the whole, has as many operations as it may.",
        None, "ep_01M8A8SGRT3TMFMM1F4JJZHFBM has 16 operations that are not over: wait, or cancel one";
    OperationOver = 409 "operation_over", "The operation is over, or being cancelled.",
        None, "the operation is over: expected one that goes on";
    EndpointDisabled = 409 "endpoint_disabled", "The endpoint takes no deliveries.",
        None, "the endpoint is disabled: enable it first";
    EndpointPaused = 409 "endpoint_paused", "The endpoint gets no deliveries now.",
        None, "the endpoint is paused: resume it first";
    NoEndpoint = 409 "no_endpoint", "No endpoint wants the event, and none was named.",
        None, "no endpoint wants the event: name some in `endpoint_ids`";
    DeliveryHeld = 409 "delivery_held", "The delivery waits for its endpoint, not for a time.",
        None, "dlv_01M8A8SH3159FXXNQ369DY9HAB: waits until its endpoint takes deliveries, and comes then";
    DeliveryNotOwed = 409 "delivery_not_owed", "The delivery is not owed, or not known to be.",
        None, "dlv_01M8A8SH3159FXXNQ369DY9HAB: not owed to the endpoint";
    TooManySecrets = 409 "too_many_secrets", "As many secrets as may be live already are.",
        None, "3 secrets are live, which is as many as may be: delete one, or wait";
    NewestSecret = 409 "newest_secret", "The newest secret stays: rotate first.",
        None, "it is the newest secret: rotate first";
    TenantNotEmpty = 409 "tenant_not_empty", "The tenant has endpoints.",
        None, "it has 3 endpoints: `?endpoints=true` deletes them too";
    TooManyTenants = 409 "too_many_tenants", "As many tenants as may have a record already do.",
        None, "there are 100000: delete some first";
    EventTypeExists = 409 "event_type_exists", "There is an event type of that name.",
        None, "there is an event type `invoice.paid`: PUT and PATCH change it";
    TooManyEventTypes = 409 "too_many_event_types", "As many event types as may have a record already do.",
        None, "there are 2000: delete some first";
    RetryPolicyReadOnly = 409 "retry_policy_read_only", "The retry policy is built in, or the configuration's.",
        None, "`fast` is in [retry_policies] of the configuration: take it out there first";
    RetryPolicyInUse = 409 "retry_policy_in_use", "Endpoints name the retry policy.",
        None, "endpoints that name it: 3; give them another one first";
    TooManyRetryPolicies = 409 "too_many_retry_policies", "As many retry policies as may have a record already do.",
        None, "there are 100: delete some first";
    TooManyKeys = 409 "too_many_keys", "There are as many keys as there may be.",
        None, "there are 10000 keys: revoke some first";
    NoKeys = 409 "no_keys", "Tokens are made in the name of a key, and none was needed here.",
        None, "a token is made in the name of a key: expected `api.auth` to be `keys`";
    UnreadableHeader = 409 "unreadable_header", "A header was sealed under a key that is not here.",
        None, "`authorization` is sealed under a master key that is not among `secrets.keys`";
    NotVerified = 409 "not_verified", "Its receiver did not answer the challenge.",
        None, "its receiver did not answer the challenge: http_4xx (401)";
    NothingToVerify = 409 "nothing_to_verify", "Its receiver is not to be asked.",
        None, "its `verify` is `none`: expected `ping` or `challenge`";
    InProgress = 409 "in_progress", "A request with this key is under way.",
        None, "a request with this key is under way";
    PayloadTooLarge = 413 "payload_too_large", "The body is too large.",
        Some("body"), "the request has more than 1114112 bytes; an event's body may have 1048576";
    Misdirected = 421 "misdirected", "Where no key is needed: it was sent to another name.",
        None, "`host`: expected an address, `localhost` or one of `http.hosts`";
    Invalid = 422 "invalid", "A field, named by `param`, has a value it cannot have.",
        Some("url"), "`http` is not allowed: expected `https`";
    SchemaNotSatisfied = 422 "schema_not_satisfied", "The body does not satisfy its type's schema.",
        Some("body"), "it is no `invoice.paid`: at `/amount`: value is less than the minimum of 0";
    TooManyPulls = 503 "too_many_pulls", "As many calls pull events here as may: try again later.",
        None, "256 calls pull here already: try again later";
    Unavailable = 503 "unavailable", "The log does not take it just now: try again.",
        None, "the log takes too long to answer";
}

/// The answers of problems that routes refer to, by name.
#[derive(Default)]
pub(super) struct Problems {
    components: BTreeMap<String, RefOr<Response>>,
}

impl Problems {
    /// Puts a route's problems together, with those it does not name itself: by
    /// status, for an answer has one description a status.
    pub(super) fn gather(&mut self, responses: &mut Responses, mut met: BTreeSet<&'static str>) {
        for row in CODES {
            if responses.responses.remove(row.code).is_some() {
                met.insert(row.code);
            }
        }
        let mut by_status: BTreeMap<u16, Vec<&Code>> = BTreeMap::new();
        for row in CODES.iter().filter(|row| met.contains(row.code)) {
            by_status.entry(row.status).or_default().push(row);
        }
        for (status, rows) in by_status {
            let name = name(&rows);
            let response = response_of(&name);
            self.components
                .entry(name)
                .or_insert_with(|| answer(status, &rows).into());
            responses.responses.insert(status.to_string(), response);
        }
    }

    pub(super) fn into_components(self) -> BTreeMap<String, RefOr<Response>> {
        self.components
    }
}

/// `UidTakenOrVersionConflict`.
fn name(rows: &[&Code]) -> String {
    let camel = |code: &str| -> String {
        let words = code.split('_');
        words
            .flat_map(|word| {
                let (first, rest) = word.split_at(1);
                [first.to_uppercase(), rest.to_owned()]
            })
            .collect()
    };
    let names: Vec<_> = rows.iter().map(|row| camel(row.code)).collect();
    names.join("Or")
}

fn answer(status: u16, rows: &[&Code]) -> Response {
    let says: Vec<_> = rows
        .iter()
        .map(|row| format!("`{}`: {}", row.code, row.says))
        .collect();
    let codes = rows.iter().map(|row| row.code);
    let code = ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(codes));
    let narrowed = ObjectBuilder::new().property("code", code);
    let schema = AllOfBuilder::new()
        .item(Ref::from_schema_name(Body::name()))
        .item(narrowed);
    let title = StatusCode::from_u16(status).ok();
    let title = title.and_then(|status| status.canonical_reason());
    let examples = rows.iter().map(|row| {
        let mut value = serde_json::json!({
            "type": "about:blank",
            "title": title,
            "status": status,
            "code": row.code,
            "detail": row.detail,
            "request_id": "req_01M8A8SGRT3TMFMM1F4JJZHFBM",
        });
        if let Some(param) = row.param {
            value["param"] = param.into();
        }
        if row.code == "version_conflict" {
            value["version"] = 4.into();
        }
        (row.code, ExampleBuilder::new().value(Some(value)).build())
    });
    let content = ContentBuilder::new()
        .schema(Some(Schema::AllOf(schema.build())))
        .examples_from_iter(examples)
        .build();
    let mut response = ResponseBuilder::new()
        .description(says.join("\n\n"))
        .content("application/problem+json", content)
        .build();
    signed(&mut response);
    response
}
