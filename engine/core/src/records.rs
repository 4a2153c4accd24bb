//! What the endpoints table keeps under names that people give: tenants, event
//! types and retry policies. Their fold.
//!
//! As with endpoints, a record stands only if its version is above the present
//! one, so of two changes of one version the first stands, everywhere alike.
//! Unlike an endpoint's id a name can be used again after it is deleted. So what
//! a deletion leaves keeps the version, and the next record of that name goes on
//! from there: a version never comes twice. Of what was deleted the latest
//! [`GONE_NAMES_MAX`] names are kept so.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use posthaste_proto::Record;

use crate::limits::GONE_NAMES_MAX;
use crate::registry::Applied;

mod event_type;
mod retry_policy;
mod tenant;

pub use event_type::EventType;
pub use retry_policy::RetryPolicy;
pub use tenant::Tenant;

/// What is kept under a name.
pub trait Named: Sized + PartialEq {
    /// Before the name in the table's keys.
    const PREFIX: &'static str;
    /// Its record.
    type Proto: Record;

    /// Its name.
    fn record_name(&self) -> &str;

    /// From its record.
    ///
    /// # Errors
    /// The field that is wrong.
    fn from_proto(record: Self::Proto) -> Result<Self, RecordProblem>;

    /// As its record.
    fn to_proto(&self, version: u64) -> Self::Proto;

    /// The record that deletes a name.
    fn deleted(name: &str, version: u64) -> Self::Proto;

    /// What every record has.
    fn head(record: &Self::Proto) -> Head<'_>;
}

/// What every record has.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// Its name.
    pub name: &'a str,
    /// One more than that of what it changes.
    pub version: u64,
    /// It is gone; only name and version count.
    pub deleted: bool,
}

/// A field of a record that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{param}: {problem}")]
pub struct RecordProblem {
    /// The field.
    pub param: &'static str,
    /// What is wrong and what would be right.
    pub problem: String,
}

/// The fold. Cloning it costs a name and a pointer a record.
#[derive(Debug, Clone)]
pub struct Records<T> {
    slots: BTreeMap<String, Slot<T>>,
    /// Names without a record, the one deleted first in front.
    gone: VecDeque<String>,
}

#[derive(Debug, Clone)]
struct Slot<T> {
    record: Option<Arc<T>>,
    version: u64,
}

/// A record and its version.
#[derive(Debug)]
pub struct Versioned<T> {
    /// The record.
    pub record: Arc<T>,
    /// Of its last change.
    pub version: u64,
}

/// The table's key of a name.
pub fn record_key<T: Named>(name: &str) -> Bytes {
    Bytes::from(format!("{}{name}", T::PREFIX))
}

impl<T> Default for Records<T> {
    fn default() -> Self {
        Self {
            slots: BTreeMap::new(),
            gone: VecDeque::new(),
        }
    }
}

impl<T> Clone for Versioned<T> {
    fn clone(&self) -> Self {
        Self {
            record: Arc::clone(&self.record),
            version: self.version,
        }
    }
}

impl RecordProblem {
    fn too_long(param: &'static str, most: usize) -> Self {
        Self {
            param,
            problem: format!("expected at most {most} bytes"),
        }
    }
}

impl<T: Named> Records<T> {
    /// Folds one record of the table; `None` when it is not about this kind. An
    /// empty value forgets a name and its version.
    ///
    /// # Errors
    /// What cannot be read: it changes nothing.
    pub fn apply(&mut self, key: &[u8], value: &Bytes) -> Result<Option<Applied>, String> {
        let Some(name) = key.strip_prefix(T::PREFIX.as_bytes()) else {
            return Ok(None);
        };
        let name = std::str::from_utf8(name).map_err(|_| "key is not UTF-8".to_owned())?;
        if value.is_empty() {
            self.slots.remove(name);
            self.gone.retain(|gone| gone != name);
            return Ok(Some(Applied::Taken));
        }
        let record = T::Proto::from_value(value).map_err(|e| e.to_string())?;
        let head = T::head(&record);
        if head.name != name {
            return Err(format!("key names `{name}`, the record `{}`", head.name));
        }
        let version = head.version;
        let record = match head.deleted {
            true => None,
            false => Some(T::from_proto(record).map_err(|e| e.to_string())?),
        };
        if let Some(against) = self.against(name, version, record.as_ref()) {
            return Ok(Some(against));
        }
        self.gone.retain(|gone| gone != name);
        if record.is_none() {
            self.gone.push_back(name.to_owned());
        }
        let record = record.map(Arc::new);
        self.slots.insert(name.to_owned(), Slot { record, version });
        Ok(Some(Applied::Taken))
    }

    /// What stands against a record of this version.
    fn against(&self, name: &str, version: u64, record: Option<&T>) -> Option<Applied> {
        let present = self.slots.get(name)?;
        if version > present.version {
            return None;
        }
        let same = version == present.version && record == present.record.as_deref();
        Some(match same {
            true => Applied::Nothing,
            false => Applied::Refused {
                present: present.record.as_ref().map(|_| present.version),
            },
        })
    }

    /// The present state of a key of this kind as a record of its own, to be
    /// written behind one that was refused, as an endpoint's is; `None` for a key
    /// of another kind.
    pub fn restated(&self, key: &[u8]) -> Option<Bytes> {
        let name = std::str::from_utf8(key.strip_prefix(T::PREFIX.as_bytes())?).ok()?;
        let Some(slot) = self.slots.get(name) else {
            return Some(Bytes::new());
        };
        let version = slot.version + 1;
        let record = match &slot.record {
            Some(record) => record.to_proto(version),
            None => T::deleted(name, version),
        };
        Some(record.to_value())
    }

    /// What is kept under a name.
    pub fn get(&self, name: &str) -> Option<Versioned<T>> {
        let slot = self.slots.get(name)?;
        let record = Arc::clone(slot.record.as_ref()?);
        Some(Versioned {
            record,
            version: slot.version,
        })
    }

    /// The version that the next record of this name follows, be it deleted; 0
    /// for a name that never was.
    pub fn version(&self, name: &str) -> u64 {
        self.slots.get(name).map_or(0, |slot| slot.version)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Versioned<T>)> {
        self.slots.iter().filter_map(|(name, slot)| {
            let record = Arc::clone(slot.record.as_ref()?);
            let version = slot.version;
            Some((name.as_str(), Versioned { record, version }))
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.gone.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name that was deleted first, once more than [`GONE_NAMES_MAX`] are
    /// remembered: one to be forgotten, by an empty value.
    pub fn forgettable(&self) -> Option<&str> {
        let full = self.gone.len() > GONE_NAMES_MAX;
        self.gone.front().filter(|_| full).map(String::as_str)
    }
}

#[cfg(test)]
mod tests;
