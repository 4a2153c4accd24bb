//! What others want to remember of a tenant or an endpoint: pairs of texts.

use std::collections::BTreeMap;

use posthaste_proto as proto;

use crate::limits::{METADATA_BYTES_MAX, METADATA_KEY_BYTES_MAX, METADATA_PAIRS_MAX};

/// Checks the bounds of pairs.
///
/// # Errors
/// What is wrong and what would be right.
pub fn check(metadata: &BTreeMap<String, String>) -> Result<(), String> {
    let pairs = metadata.len();
    if pairs > METADATA_PAIRS_MAX {
        return Err(format!(
            "{pairs} pairs: expected at most {METADATA_PAIRS_MAX}"
        ));
    }
    let fits = |key: &&String| (1..=METADATA_KEY_BYTES_MAX).contains(&key.len());
    if let Some(key) = metadata.keys().find(|key| !fits(key)) {
        let shown = key.escape_default();
        return Err(format!(
            "`{shown}`: expected keys of 1 to {METADATA_KEY_BYTES_MAX} bytes"
        ));
    }
    let bytes = metadata
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum::<usize>();
    if bytes > METADATA_BYTES_MAX {
        return Err(format!(
            "{bytes} bytes: expected at most {METADATA_BYTES_MAX} in all"
        ));
    }
    Ok(())
}

/// Pairs as a record has them.
pub fn from_proto(pairs: Vec<proto::Pair>) -> BTreeMap<String, String> {
    let pairs = pairs.into_iter();
    pairs.map(|pair| (pair.key, pair.value)).collect()
}

/// … and for a record.
pub fn to_proto(metadata: &BTreeMap<String, String>) -> Vec<proto::Pair> {
    let pair = |(key, value): (&String, &String)| proto::Pair {
        key: key.clone(),
        value: value.clone(),
    };
    metadata.iter().map(pair).collect()
}
