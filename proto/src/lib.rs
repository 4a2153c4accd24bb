//! The wire types Posthaste keeps in the log, and the type byte that stands
//! before each. Nothing here knows what the records mean: that is
//! `posthaste-core`'s part.

use bytes::{BufMut, Bytes, BytesMut};
pub use prost::Message;

mod attempts;
mod generated {
    include!(concat!(env!("OUT_DIR"), "/posthaste.log.rs"));
}
pub use attempts::{AttemptRef, AttemptWriter};
pub use generated::{
    Answer, Answered, ApiKey, Attempt, AttemptBatch, Change, Claim, Command, Dead, DeadCause,
    DeadRange, Deliver, DeliverHead, Endpoint, EventType, Gate, Header, Operation,
    OperationProgress, Origin, Pair, Progress, Reason, Sealed, Secret, SigningScheme, Snapshot,
    Tenant, Verify, command, gate, operation, operation_progress, progress, snapshot,
};

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({})", self.id)
    }
}

/// Portal tokens are signed with what follows from the hash.
impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiKey({})", self.description)
    }
}

impl std::fmt::Debug for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Header({})", self.name)
    }
}

/// The first byte of every record's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordType {
    /// [`Endpoint`] in the endpoints table.
    Endpoint = 1,
    /// [`Deliver`] in the lane.
    Deliver = 2,
    /// [`Progress`] in the lane.
    Progress = 3,
    /// [`Claim`] in the lane.
    Claim = 4,
    /// [`AttemptBatch`] in the attempts topic.
    AttemptBatch = 5,
    /// [`Dead`] in the dead-letter topic.
    Dead = 6,
    /// [`Gate`] in the endpoints table.
    Gate = 7,
    /// [`Snapshot`] in the lane.
    Snapshot = 8,
    /// [`Command`] in the lane.
    Command = 9,
    /// [`DeadRange`] in the dead-letter topic.
    DeadRange = 10,
    /// [`ApiKey`] in the endpoints table.
    ApiKey = 20,
    /// [`Change`] in the topic of changes.
    Change = 21,
    /// [`Operation`] in the endpoints table.
    Operation = 22,
    /// [`OperationProgress`] in the endpoints table.
    OperationProgress = 23,
    /// [`Tenant`] in the endpoints table.
    Tenant = 30,
    /// [`EventType`] in the endpoints table.
    EventType = 31,
    /// [`Answered`] in the endpoints table.
    Answered = 33,
}

/// Why a record's value could not be read.
#[derive(Debug, PartialEq, Eq)]
pub enum RecordError {
    /// The value has no type byte.
    Empty,
    /// The type byte is none this version knows: a newer version wrote it.
    UnknownType(u8),
    /// The type byte is known, the message behind it is not well formed.
    Malformed(String),
}

impl std::fmt::Display for RecordError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => write!(f, "empty record value"),
            Self::UnknownType(byte) => {
                write!(f, "record type {byte} is unknown to this version")
            }
            Self::Malformed(detail) => write!(f, "malformed record: {detail}"),
        }
    }
}

impl std::error::Error for RecordError {}

impl RecordType {
    /// The type of a record's value, without parsing the rest.
    pub fn of(value: &[u8]) -> Result<Self, RecordError> {
        match value.first() {
            None => Err(RecordError::Empty),
            Some(1) => Ok(Self::Endpoint),
            Some(2) => Ok(Self::Deliver),
            Some(3) => Ok(Self::Progress),
            Some(4) => Ok(Self::Claim),
            Some(5) => Ok(Self::AttemptBatch),
            Some(6) => Ok(Self::Dead),
            Some(7) => Ok(Self::Gate),
            Some(8) => Ok(Self::Snapshot),
            Some(9) => Ok(Self::Command),
            Some(10) => Ok(Self::DeadRange),
            Some(20) => Ok(Self::ApiKey),
            Some(21) => Ok(Self::Change),
            Some(22) => Ok(Self::Operation),
            Some(23) => Ok(Self::OperationProgress),
            Some(30) => Ok(Self::Tenant),
            Some(31) => Ok(Self::EventType),
            Some(33) => Ok(Self::Answered),
            Some(&byte) => Err(RecordError::UnknownType(byte)),
        }
    }
}

/// A message that stands in the log behind its type byte.
pub trait Record: Message + Default {
    /// The type byte written before it.
    const TYPE: RecordType;

    /// Type byte and message in one buffer.
    fn to_value(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(1 + self.encoded_len());
        out.put_u8(Self::TYPE as u8);
        self.encode_raw(&mut out);
        out.freeze()
    }

    /// Reads a value written by [`to_value`](Self::to_value). Byte fields share
    /// the buffer of `value`.
    fn from_value(value: &Bytes) -> Result<Self, RecordError> {
        let found = RecordType::of(value)?;
        if found != Self::TYPE {
            return Err(RecordError::Malformed(format!(
                "expected {:?}, found {found:?}",
                Self::TYPE
            )));
        }
        Self::decode(value.slice(1..)).map_err(|error| RecordError::Malformed(error.to_string()))
    }
}

impl Record for Endpoint {
    const TYPE: RecordType = RecordType::Endpoint;
}
impl Record for Deliver {
    const TYPE: RecordType = RecordType::Deliver;
}
/// Reads the head of what a [`Deliver`] wrote; it is never written itself.
impl Record for DeliverHead {
    const TYPE: RecordType = RecordType::Deliver;
}
impl Record for Progress {
    const TYPE: RecordType = RecordType::Progress;
}
impl Record for Claim {
    const TYPE: RecordType = RecordType::Claim;
}
impl Record for AttemptBatch {
    const TYPE: RecordType = RecordType::AttemptBatch;
}
impl Record for Dead {
    const TYPE: RecordType = RecordType::Dead;
}
impl Record for Gate {
    const TYPE: RecordType = RecordType::Gate;
}
impl Record for Snapshot {
    const TYPE: RecordType = RecordType::Snapshot;
}
impl Record for Command {
    const TYPE: RecordType = RecordType::Command;
}
impl Record for DeadRange {
    const TYPE: RecordType = RecordType::DeadRange;
}
impl Record for ApiKey {
    const TYPE: RecordType = RecordType::ApiKey;
}
impl Record for Change {
    const TYPE: RecordType = RecordType::Change;
}
impl Record for Operation {
    const TYPE: RecordType = RecordType::Operation;
}
impl Record for OperationProgress {
    const TYPE: RecordType = RecordType::OperationProgress;
}
impl Record for Tenant {
    const TYPE: RecordType = RecordType::Tenant;
}
impl Record for EventType {
    const TYPE: RecordType = RecordType::EventType;
}
impl Record for Answered {
    const TYPE: RecordType = RecordType::Answered;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_a_foreign_one_is_refused() {
        let claim = Claim {
            instance_id: "one".into(),
            at_ms: 7,
        };
        let value = claim.to_value();
        assert_eq!(RecordType::of(&value), Ok(RecordType::Claim));
        assert_eq!(Claim::from_value(&value), Ok(claim));
        assert!(matches!(
            Progress::from_value(&value),
            Err(RecordError::Malformed(_))
        ));
        assert_eq!(RecordType::of(&[]), Err(RecordError::Empty));
        assert_eq!(RecordType::of(&[99]), Err(RecordError::UnknownType(99)));
    }
}
