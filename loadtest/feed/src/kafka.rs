//! Fills a Kafka topic: large batches, idempotent, acknowledged by all replicas.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, ValueEnum};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use crate::progress::Progress;
use crate::workload::Workload;
use crate::{Run, Sent};

/// Time for the broker to answer about the topic.
const BROKER_TIME_MAX: Duration = Duration::from_secs(30);
/// Pause while the producer's queue is full.
const FULL_PAUSE: Duration = Duration::from_millis(1);
/// Pause between looks at what is acknowledged.
const ACK_PAUSE: Duration = Duration::from_millis(2);

/// Where and how events are written.
#[derive(Debug, Args)]
pub(crate) struct Topic {
    /// The topic to fill.
    #[arg(long, default_value = "events")]
    topic: String,
    /// Make the topic with so many partitions if it does not exist.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=10_000))]
    partitions: Option<i32>,
    /// How events are spread over partitions.
    #[arg(long, value_enum, default_value_t = Spread::RoundRobin)]
    spread: Spread,
    /// Compression of batches.
    #[arg(long, value_enum, default_value_t = Codec::None)]
    compression: Codec,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Spread {
    /// Every endpoint's events on all partitions.
    RoundRobin,
    /// By key, which is the endpoint: all its events on one partition.
    Key,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Codec {
    None,
    Zstd,
}

/// Counts what the broker acknowledged.
#[derive(Debug, Default)]
struct Acks {
    acknowledged: AtomicU64,
    failed: AtomicU64,
    first_failure: Mutex<Option<KafkaError>>,
}

/// The producer's context.
#[derive(Clone)]
struct Counting(Arc<Acks>);

impl ClientContext for Counting {}

impl ProducerContext for Counting {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => self.0.acknowledged.fetch_add(1, Ordering::Relaxed),
            Err((error, _)) => {
                let first = &self.0.first_failure;
                let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert_with(|| error.clone());
                self.0.failed.fetch_add(1, Ordering::Relaxed)
            }
        };
    }
}

/// Writes the events and waits for every acknowledgement. The client retries by
/// itself without writing twice, so none is sent again.
///
/// # Errors
/// There is no such topic, or the broker did not acknowledge an event.
pub(crate) fn fill(brokers: &str, topic: &Topic, run: &Run<'_>) -> anyhow::Result<Sent> {
    let Run {
        workload,
        numbers,
        progress,
        ..
    } = run;
    let acks = Arc::new(Acks::default());
    let producer = producer(brokers, topic, &acks)?;
    let partitions = partitions(brokers, topic, &producer)?;
    let pace = run.pace();
    let (mut body, mut events) = (String::new(), 0);
    for n in numbers.clone() {
        pace.wait_for(events);
        if run.is_over() || acks.failed.load(Ordering::Relaxed) > 0 {
            break;
        }
        workload.body_into(n, &mut body);
        let (k, turn) = (workload.endpoint(n), n / workload.endpoints);
        // `n % partitions` alone would give an endpoint few of them.
        let partition = i32::try_from((k + turn) % partitions).unwrap_or(0);
        let key = format!("e{k}");
        let record = BaseRecord::<str, str>::to(&topic.topic)
            .payload(&body)
            .headers(headers(workload, n));
        let record = match topic.spread {
            Spread::RoundRobin => record.partition(partition),
            Spread::Key => record.key(&key),
        };
        send(&producer, record)?;
        events += 1;
        progress.set(acks.acknowledged.load(Ordering::Relaxed));
    }
    acks.wait_for(events, progress)?;
    Ok(Sent { events, retried: 0 })
}

fn producer(
    brokers: &str,
    topic: &Topic,
    acks: &Arc<Acks>,
) -> anyhow::Result<ThreadedProducer<Counting>> {
    let codec = match topic.compression {
        Codec::None => "none",
        Codec::Zstd => "zstd",
    };
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.codec", codec)
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "20")
        .set("batch.size", "1000000")
        .set("batch.num.messages", "10000")
        .set("queue.buffering.max.messages", "200000")
        .set("queue.buffering.max.kbytes", "262144")
        .set("message.timeout.ms", "120000")
        .create_with_context(Counting(Arc::clone(acks)))
        .context("kafka producer")
}

fn headers(workload: &Workload, n: u64) -> OwnedHeaders {
    let (event_type, id) = (workload.event_type(n), workload.id(n));
    let header = |key, value| Header { key, value };
    OwnedHeaders::new_with_capacity(3)
        .insert(header("webhook-type", Some(&event_type)))
        .insert(header("webhook-id", Some(&id)))
        .insert(header("webhook-tenant", Some(&workload.tenant)))
}

fn send(
    producer: &ThreadedProducer<Counting>,
    mut record: BaseRecord<'_, str, str>,
) -> anyhow::Result<()> {
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                std::thread::sleep(FULL_PAUSE);
            }
            Err((error, _)) => return Err(error).context("an event could not be queued"),
        }
    }
}

/// The topic's partitions, after making it if that was asked.
fn partitions(
    brokers: &str,
    topic: &Topic,
    producer: &ThreadedProducer<Counting>,
) -> anyhow::Result<u64> {
    if let Some(wanted) = topic.partitions {
        create(brokers, &topic.topic, wanted)?;
    }
    let start = std::time::Instant::now();
    loop {
        let metadata = producer
            .client()
            .fetch_metadata(Some(&topic.topic), BROKER_TIME_MAX)
            .with_context(|| format!("no answer from {brokers}"))?;
        let found = metadata
            .topics()
            .first()
            .map_or(0, |t| t.partitions().len());
        if found > 0 {
            return u64::try_from(found).context("partitions");
        }
        // A new topic is not known to every broker at once.
        if topic.partitions.is_none() || start.elapsed() > BROKER_TIME_MAX {
            bail!(
                "topic `{}` does not exist: --partitions N makes it",
                topic.topic
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn create(brokers: &str, name: &str, partitions: i32) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .context("kafka admin client")?;
    let new = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
    let options = AdminOptions::new().operation_timeout(Some(BROKER_TIME_MAX));
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let results = runtime.block_on(admin.create_topics([&new], &options))?;
    match results.first() {
        Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
        Some(Err((_, code))) => Err(anyhow!("topic `{name}` could not be made: {code}")),
        None => Err(anyhow!("topic `{name}`: the broker gave no answer")),
    }
}

impl Acks {
    /// Waits until so many events are acknowledged, or one is not. The client
    /// reports every event within its `message.timeout.ms`.
    fn wait_for(&self, total: u64, progress: &Progress) -> anyhow::Result<()> {
        loop {
            let failed = self.failed.load(Ordering::Relaxed);
            let acknowledged = self.acknowledged.load(Ordering::Relaxed);
            progress.set(acknowledged);
            if failed > 0 {
                let first = self.first_failure.lock();
                let first = first.unwrap_or_else(PoisonError::into_inner).clone();
                let first = first.map_or_else(String::new, |error| error.to_string());
                bail!("{failed} events were not acknowledged, the first because: {first}");
            }
            if acknowledged >= total {
                return Ok(());
            }
            std::thread::sleep(ACK_PAUSE);
        }
    }
}
