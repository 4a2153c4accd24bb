//! Names that come with every record: topics and headers. A few are kept for
//! the life of the process, so that no thread counts references to what all
//! threads share.

use std::collections::BTreeSet;
use std::sync::Mutex;

use bytestring::ByteString;

use super::lease::lock;

/// Names kept; a deployment has few. Further ones are copied each time.
const NAMES_MAX: usize = 1_024;
/// Longer names are copied each time.
const NAME_BYTES_MAX: usize = 256;

static KEPT: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// The name, shared with everybody who asks for the same.
pub(super) fn shared(name: &str) -> ByteString {
    let mut kept = lock(&KEPT);
    if let Some(known) = kept.get(name) {
        return ByteString::from_static(known);
    }
    if kept.len() >= NAMES_MAX || name.len() > NAME_BYTES_MAX {
        return ByteString::from(name);
    }
    let known: &'static str = Box::leak(name.into());
    kept.insert(known);
    ByteString::from_static(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_is_the_same_bytes() {
        let (one, two) = (shared("webhook-type"), shared("webhook-type"));
        assert_eq!((&*one, one.as_ptr()), ("webhook-type", two.as_ptr()));
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        assert_ne!(shared(&long).as_ptr(), shared(&long).as_ptr());
        assert_eq!(shared(&long), long.as_str());
    }
}
