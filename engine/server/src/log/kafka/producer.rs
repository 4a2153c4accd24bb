//! Durable appends: an idempotent producer, and what becomes of each record.
//!
//! A producer that librdkafka declares broken for good is replaced; what it had
//! not acknowledged is answered [`AppendError::Unknown`], and whoever asked
//! appends it again.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;

use super::topics::Topics;
use super::{KafkaSettings, client, failure, partition, unsigned};
use crate::log::lease::lock;
use crate::log::{AppendError, LogError, NewRecord, Offset};

/// Pause while librdkafka's own queue is full.
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(5);
/// Largest record librdkafka takes; each topic has its own, lower bound.
const RECORD_BYTES_MAX: &str = "16777216";

type Native = ThreadedProducer<Reports>;

/// Appends to any topic.
pub(super) struct Producer {
    config: ClientConfig,
    topics: Arc<Topics>,
    native: Mutex<Arc<Native>>,
}

/// Answers of one call to [`Producer::append`]; one not given means unknown.
type Answers = Arc<Mutex<Vec<Option<Result<Offset, AppendError>>>>>;

/// Held by every record of one call that is under way; when the last is gone,
/// the call is answered.
struct Batch {
    answers: Answers,
    _ends_by_drop: oneshot::Sender<Infallible>,
}

/// Travels with one record.
struct Receipt {
    place: usize,
    bytes: usize,
    batch: Arc<Batch>,
}

/// Hears what became of records.
struct Reports;

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        client::told(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client::troubled(&error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Receipt>;

    fn delivery(&self, result: &DeliveryResult<'_>, receipt: Box<Receipt>) {
        let answer = match result {
            Ok(record) => unsigned(record.offset())
                .ok_or_else(|| AppendError::Unknown("the broker gave no offset".to_owned())),
            Err((error, record)) => Err(refusal(error, record.topic(), receipt.bytes)),
        };
        receipt.answer(answer);
    }
}

impl Receipt {
    fn answer(&self, answer: Result<Offset, AppendError>) {
        lock(&self.batch.answers)[self.place] = Some(answer);
    }
}

impl Producer {
    /// For lane, dead letters, endpoints and events.
    pub(super) fn new(settings: &KafkaSettings, topics: Arc<Topics>) -> Result<Self, LogError> {
        Self::with(config(settings, "5", "262144"), topics)
    }

    /// For attempts: its own small buffers, so that they hold nothing else up.
    pub(super) fn small(settings: &KafkaSettings, topics: Arc<Topics>) -> Result<Self, LogError> {
        Self::with(config(settings, "50", "32768"), topics)
    }

    fn with(config: ClientConfig, topics: Arc<Topics>) -> Result<Self, LogError> {
        let native = Native::from_config_and_context(&config, Reports);
        Ok(Self {
            native: Mutex::new(Arc::new(native.map_err(|error| failure(&error))?)),
            config,
            topics,
        })
    }

    /// Appends; answers in the order given.
    pub(super) async fn append(&self, records: Vec<NewRecord>) -> Vec<Result<Offset, AppendError>> {
        let answers: Answers = Arc::new(Mutex::new(vec![None; records.len()]));
        let (end, ended) = oneshot::channel();
        let batch = Arc::new(Batch {
            answers: Arc::clone(&answers),
            _ends_by_drop: end,
        });
        for (place, record) in records.iter().enumerate() {
            let receipt = Receipt {
                place,
                bytes: size(record),
                batch: Arc::clone(&batch),
            };
            match self.topics.check(&record.to, receipt.bytes).await {
                Ok(()) => self.send(record, receipt).await,
                Err(refused) => receipt.answer(Err(refused)),
            }
        }
        drop(batch);
        let _all_receipts_are_gone = ended.await;
        let answers = std::mem::take(&mut *lock(&answers));
        let unknown = || Err(AppendError::Unknown("the producer was replaced".to_owned()));
        let answers: Vec<_> = answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(unknown))
            .collect();
        if answers.iter().any(Result::is_err) {
            self.replace_if_broken();
        }
        answers
    }

    async fn send(&self, record: &NewRecord, receipt: Receipt) {
        let native = Arc::clone(&lock(&self.native));
        let bytes = receipt.bytes;
        let mut waiting = wire(record, receipt);
        loop {
            let (error, unsent) = match native.send(waiting) {
                Ok(()) => return,
                Err(unsent) => unsent,
            };
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                let refused = refusal(&error, &record.to.topic, bytes);
                return unsent.delivery_opaque.answer(Err(refused));
            }
            waiting = unsent;
            tokio::time::sleep(QUEUE_FULL_WAIT).await;
        }
    }

    fn replace_if_broken(&self) {
        let mut native = lock(&self.native);
        let Some((code, reason)) = native.client().fatal_error() else {
            return;
        };
        tracing::error!(%code, reason, "the Kafka producer is broken, replacing it");
        match Native::from_config_and_context(&self.config, Reports) {
            Ok(fresh) => {
                let broken = std::mem::replace(&mut *native, Arc::new(fresh));
                // Its end waits for its threads.
                std::thread::spawn(move || drop(broken));
            }
            Err(error) => tracing::error!(%error, "no new Kafka producer"),
        }
    }
}

fn config(settings: &KafkaSettings, linger_ms: &str, buffer_kib: &str) -> ClientConfig {
    let mut config = client::base(settings);
    let mut or_default = |key: &str, value: &str| {
        if config.get(key).is_none() {
            config.set(key, value);
        }
    };
    or_default("linger.ms", linger_ms);
    or_default("compression.type", "lz4");
    or_default("delivery.timeout.ms", "120000");
    or_default("queue.buffering.max.kbytes", buffer_kib);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("message.max.bytes", RECORD_BYTES_MAX);
    config
}

/// A record as librdkafka takes it. An empty key is none; an empty value is a
/// tombstone.
fn wire(record: &NewRecord, receipt: Receipt) -> BaseRecord<'_, [u8], [u8], Box<Receipt>> {
    let mut wire = BaseRecord::with_opaque_to(&record.to.topic, Box::new(receipt))
        .partition(partition(record.to.partition));
    if !record.key.is_empty() {
        wire = wire.key(&record.key[..]);
    }
    if !record.value.is_empty() {
        wire = wire.payload(&record.value[..]);
    }
    if record.headers.is_empty() {
        return wire;
    }
    let headers = OwnedHeaders::new_with_capacity(record.headers.len());
    let headers = record
        .headers
        .iter()
        .fold(headers, |headers, (name, value)| {
            headers.insert(Header {
                key: name,
                value: Some(&value[..]),
            })
        });
    wire.headers(headers)
}

fn size(record: &NewRecord) -> usize {
    let headers = record.headers.iter();
    let headers: usize = headers.map(|(name, value)| name.len() + value.len()).sum();
    record.key.len() + record.value.len() + headers
}

fn refusal(error: &KafkaError, topic: &str, bytes: usize) -> AppendError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge) => AppendError::TooLarge {
            topic: topic.into(),
            bytes,
        },
        Some(
            RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::PolicyViolation
            | RDKafkaErrorCode::InvalidRecord,
        ) => AppendError::Refused(format!("topic `{topic}`: {error}")),
        _ => AppendError::Unknown(error.to_string()),
    }
}
