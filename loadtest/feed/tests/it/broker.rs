//! Against librdkafka's mock cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::mocking::MockCluster;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::{feed, summary};

const PARTITIONS: i32 = 4;

fn cluster() -> (
    MockCluster<'static, rdkafka::producer::DefaultProducerContext>,
    String,
) {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("events", PARTITIONS, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    (cluster, brokers)
}

/// Everything in the topic: id to (type, tenant, body, partition).
fn read_all(brokers: &str, count: usize) -> BTreeMap<String, (String, String, Vec<u8>, i32)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "check")
        .create()
        .unwrap();
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset("events", partition, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&all).unwrap();
    let mut read = BTreeMap::new();
    let mut records = 0;
    while records < count {
        let record = consumer
            .poll(Duration::from_secs(30))
            .expect("a record")
            .unwrap();
        let headers = record.headers().expect("headers");
        let header = |name: &str| {
            let found = headers.iter().find(|header| header.key == name);
            String::from_utf8(found.unwrap().value.unwrap().to_vec()).unwrap()
        };
        let body = record.payload().unwrap().to_vec();
        let event = (
            header("webhook-type"),
            header("webhook-tenant"),
            body,
            record.partition(),
        );
        read.insert(header("webhook-id"), event);
        records += 1;
    }
    read
}

#[test]
fn every_event_is_in_the_topic_once_when_it_ends() {
    let (_cluster, brokers) = cluster();
    let output = feed(&[
        "--bootstrap",
        &brokers,
        "--events",
        "2000",
        "--from",
        "50",
        "--endpoints",
        "10",
        "--run",
        "r1",
        "--tenant",
        "acme",
        "--compression",
        "zstd",
    ]);
    let summary = summary(&output);
    assert_eq!(summary["events"], 2_000);
    assert_eq!(summary["bytes"], 2_000 * 1_024);
    let read = read_all(&brokers, 2_000);
    assert_eq!(read.len(), 2_000);
    let mut partitions_of_e3 = std::collections::BTreeSet::new();
    for n in 50..2_050 {
        let (event_type, tenant, body, partition) = &read[&format!("r1-{n}")];
        assert_eq!(
            (&**event_type, &**tenant),
            (&*format!("load.e{}", n % 10), "acme")
        );
        assert_eq!(body.len(), 1_024);
        if n % 10 == 3 {
            partitions_of_e3.insert(*partition);
        }
    }
    assert_eq!(partitions_of_e3.len(), 4);
}

#[test]
fn a_key_keeps_an_endpoint_on_one_partition() {
    let (_cluster, brokers) = cluster();
    let arguments = [
        "--bootstrap",
        &*brokers,
        "--events",
        "300",
        "--spread",
        "key",
    ];
    summary(&feed(&arguments));
    let read = read_all(&brokers, 300);
    let mut of_endpoint = BTreeMap::new();
    for (event_type, _, _, partition) in read.values() {
        assert_eq!(
            of_endpoint.entry(event_type).or_insert(partition),
            &partition
        );
    }
    assert_eq!(of_endpoint.len(), 100);
}

#[test]
fn the_rate_is_kept() {
    let (_cluster, brokers) = cluster();
    let output = feed(&["--bootstrap", &brokers, "--events", "300", "--rate", "500"]);
    assert!(summary(&output)["seconds"].as_f64().unwrap() >= 0.59);
}
