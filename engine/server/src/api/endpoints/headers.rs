//! The headers an endpoint asks for: their values are kept as secrets are.

use std::collections::BTreeMap;

use posthaste_core::endpoint::{Endpoint, Held};

use crate::api::Api;
use crate::api::problem::Problem;

/// Seals headers' values; one that stays what it was stays sealed as it was.
pub(super) fn seal(
    api: &Api,
    endpoint: &mut Endpoint,
    present: Option<&Endpoint>,
) -> Result<(), Problem> {
    let before = present.map_or(&[][..], |present| &present.headers);
    for header in &mut endpoint.headers {
        let Held::Clear(value) = &header.held else {
            continue;
        };
        let id = header.seal_id();
        let same = before.iter().find(|old| {
            let opened = api.vault.open(endpoint.id, &id, &old.held);
            old.name == header.name && opened.is_ok_and(|old| old == *value)
        });
        header.held = match same {
            Some(old) => old.held.clone(),
            None => {
                let sealed = api.vault.seal(endpoint.id, &id, value);
                Held::Sealed(sealed.map_err(|error| Problem::unavailable(error.to_string()))?)
            }
        };
    }
    Ok(())
}

/// The values of an endpoint's headers, to be changed.
pub(super) fn open(api: &Api, endpoint: &Endpoint) -> Result<BTreeMap<String, String>, Problem> {
    let opened = endpoint.headers.iter().map(|header| {
        let value = api.vault.open(endpoint.id, &header.seal_id(), &header.held);
        let value = value.map_err(|error| {
            let name = &header.name;
            Problem::conflict("unreadable_header", format!("`{name}` is {error}"))
        })?;
        Ok((header.name.clone(), value.to_string()))
    });
    opened.collect()
}
