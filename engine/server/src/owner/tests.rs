use bytes::Bytes;
use posthaste_core::endpoint::Endpoint;
use posthaste_core::id::EndpointId;
use posthaste_core::registry::{Table, table_key};
use posthaste_proto as proto;
use posthaste_proto::Record as _;
use tokio::time::{sleep, timeout};

use super::*;
use crate::control::By;
use crate::log::embedded::EmbeddedLog;
use crate::log::{NewRecord, TopicPartition};

const LONG: Duration = Duration::from_secs(20);

/// An owner over a log with one lane partition.
struct Fixture {
    _dir: tempfile::TempDir,
    log: Arc<dyn Log>,
    lane: TopicPartition,
    registry: watch::Sender<Arc<Registry>>,
    mailbox: mpsc::Receiver<Vec<Delivery>>,
    _reports: mpsc::Sender<Vec<Report>>,
}

impl Fixture {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::start();
        let time = clock.clone();
        let log = EmbeddedLog::open(dir.path(), Arc::new(move || time.now())).unwrap();
        let log: Arc<dyn Log> = Arc::new(log);
        let topics = Topics {
            lane_partitions: 1,
            ..Topics::default()
        };
        log.verify(&topics.specs()).await.unwrap();
        let config = crate::config::Config::default();
        let endpoints = Endpoints::open(Arc::clone(&log), &config, CancellationToken::new());
        let endpoints = endpoints.await.unwrap();
        let (registry, registry_seen) = watch::channel(Arc::default());
        let (mailbox_in, mailbox) = mpsc::channel(8);
        let (reports, reports_seen) = mpsc::channel(8);
        let lane = topics.lane();
        let room = OwnerRoom::new(Parts {
            consumer: log
                .join(
                    "owner",
                    std::slice::from_ref(&lane),
                    crate::log::Start::Earliest,
                )
                .unwrap(),
            log: Arc::clone(&log),
            topics,
            decode: Arc::new(|_, _| panic!("no operation reads a source here")),
            instance_id: "here".into(),
            registry: registry_seen,
            endpoints,
            mailboxes: vec![mailbox_in],
            reports: reports_seen,
            clock,
            metrics: OwnerMetrics::default(),
        });
        tokio::spawn(room.run(CancellationToken::new(), Duration::from_secs(1)));
        Self {
            _dir: dir,
            log,
            lane: TopicPartition {
                topic: lane,
                partition: 0,
            },
            registry,
            mailbox,
            _reports: reports,
        }
    }

    async fn owe(&self, endpoint: EndpointId, event_id: &str) {
        let record = proto::Deliver {
            delivery_id: vec![1; 16].into(),
            endpoint_id: endpoint.as_bytes().to_vec().into(),
            tenant: "acme".into(),
            event_id: event_id.into(),
            event_type: "a".into(),
            origin: Some(proto::Origin::default()),
            deadline_ms: u64::MAX,
            body: Bytes::from_static(b"{}"),
            ..Default::default()
        };
        let record = NewRecord {
            to: self.lane.clone(),
            key: Bytes::new(),
            value: record.to_value(),
            headers: Vec::new(),
        };
        assert!(self.log.append(vec![record]).await[0].is_ok());
    }

    /// Waits until the lane holds `count` records.
    async fn lane_holds(&self, count: u64) {
        let there = async {
            while self.log.bounds(&self.lane).await.unwrap().1 < count {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LONG, there).await.expect("the lane grows");
    }
}

fn table(id: EndpointId) -> Arc<Registry> {
    let record = proto::Endpoint {
        id: id.as_bytes().to_vec().into(),
        tenant: "acme".into(),
        url: "https://example.com/".into(),
        secrets: vec![proto::Secret {
            id: "s".into(),
            text: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let endpoint = Endpoint::from_proto(record).unwrap();
    let mut table = Table::default();
    let value = endpoint.to_proto().to_value();
    table.apply(&table_key(id), &value).unwrap();
    table.snapshot()
}

#[tokio::test]
async fn a_delivery_waits_for_an_endpoint_that_is_not_read_yet() {
    let mut owner = Fixture::start().await;
    let id = EndpointId::from_bytes([7; 16]);
    owner.owe(id, "evt_1").await;
    // The claim is there: from now on what is due is handed out.
    owner.lane_holds(2).await;
    sleep(TICK_EVERY * 6).await;
    assert!(owner.mailbox.try_recv().is_err());

    owner.registry.send_replace(table(id));
    let handed = timeout(LONG, owner.mailbox.recv()).await;
    let handed = handed.expect("it comes round again").unwrap();
    assert_eq!(handed.len(), 1);
    assert_eq!(&*handed[0].event.id, "evt_1");
    // Nothing but the delivery and the claim: no fact was told of it.
    assert_eq!(owner.log.bounds(&owner.lane).await.unwrap().1, 2);
}

#[tokio::test]
async fn a_disable_never_undoes_a_change_it_has_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::start();
    let time = clock.clone();
    let log = EmbeddedLog::open(dir.path(), Arc::new(move || time.now())).unwrap();
    let log: Arc<dyn Log> = Arc::new(log);
    let config = crate::config::Config::default();
    log.verify(&config.topics.specs()).await.unwrap();
    let opened = Endpoints::open(Arc::clone(&log), &config, CancellationToken::new());
    let endpoints = opened.await.unwrap();
    let writer = Writer {
        log,
        topics: config.topics,
        decode: Arc::new(|_, _| panic!("no operation reads a source here")),
        instance_id: "here".into(),
        clock,
        openings: Arc::new(Semaphore::new(OPENINGS_MAX)),
        endpoints: endpoints.clone(),
    };
    let place = Place {
        partition: 0,
        epoch: Epoch(1),
    };
    let id = EndpointId::from_bytes([7; 16]);
    let registry = table(id);
    let new = registry.endpoint(registry.index(id).unwrap()).unwrap();
    let by = By::system(writer.clock.now());
    let made = endpoints.put(new, &by).await.unwrap();
    let by = By::system(writer.clock.now());
    let moved = Endpoint {
        url: "https://example.org/".into(),
        ..made.clone()
    };
    let moved = endpoints.put(&moved, &by).await.unwrap();
    for (read, disabled) in [(made, false), (moved, true)] {
        let change = Endpoint {
            disabled: true,
            ..read
        };
        timeout(LONG, writer.endpoint(place, change)).await.unwrap();
        let registry = endpoints.registry();
        let registry = registry.borrow();
        let is = registry.endpoint(registry.index(id).unwrap()).unwrap();
        assert_eq!((&*is.url, is.disabled), ("https://example.org/", disabled));
    }
}
