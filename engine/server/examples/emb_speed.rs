use posthaste::log::{embedded::*, *};
use posthaste_core::time::Timestamp;
use std::sync::Arc;
use std::time::{Duration, Instant};
fn recs(n: usize, from: usize) -> Vec<NewRecord> {
    (0..n)
        .map(|i| NewRecord {
            to: TopicPartition {
                topic: "t".into(),
                partition: ((from + i) % 8) as u32,
            },
            key: vec![1u8; 16].into(),
            value: vec![7u8; 1024].into(),
            headers: vec![],
        })
        .collect()
}
#[tokio::main]
async fn main() {
    let dir = std::path::PathBuf::from(std::env::args().nth(1).unwrap());
    let start = Instant::now();
    let log = EmbeddedLog::open(
        &dir,
        Arc::new(move || Timestamp::from_millis(1_700_000_000_000).after(start.elapsed())),
    )
    .unwrap();
    log.verify(&[TopicSpec {
        name: "t".into(),
        partitions: 8,
        cleanup: Cleanup::Delete {
            retention: Duration::from_secs(360000),
        },
        record_bytes_max: 2 << 20,
    }])
    .await
    .unwrap();
    let mut base = 0.0;
    for batch in [1usize, 100, 1000] {
        let t = Instant::now();
        let mut n = 0;
        while t.elapsed() < Duration::from_secs(4) {
            let a = log.append(recs(batch, n)).await;
            assert!(a.iter().all(Result::is_ok), "{:?}", a[0]);
            n += batch;
        }
        let rate = n as f64 / t.elapsed().as_secs_f64();
        if batch == 1 {
            base = rate
        }
        println!(
            "1 appender, batch {batch}: {rate:.0} rec/s ({:.1}x)",
            rate / base
        );
    }
    for appenders in [64usize, 512] {
        let t = Instant::now();
        let mut tasks = vec![];
        for p in 0..appenders {
            let log = log.clone();
            tasks.push(tokio::spawn(async move {
                let mut n = 0;
                while t.elapsed() < Duration::from_secs(4) {
                    assert!(log.append(recs(1, p)).await[0].is_ok());
                    n += 1;
                }
                n
            }));
        }
        let mut n = 0;
        for task in tasks {
            n += task.await.unwrap();
        }
        let rate = n as f64 / t.elapsed().as_secs_f64();
        println!(
            "{appenders} appenders, batch 1: {rate:.0} rec/s ({:.1}x)",
            rate / base
        );
    }
    let t = Instant::now();
    let mut c = log.follow(&"t".into()).unwrap();
    let mut end = 0;
    for p in 0..8 {
        end += log
            .bounds(&TopicPartition {
                topic: "t".into(),
                partition: p,
            })
            .await
            .unwrap()
            .1;
    }
    let mut n = 0u64;
    while n < end {
        if let GroupEvent::Batch {
            tp, epoch, records, ..
        } = c.next().await
        {
            n += records.len() as u64;
            c.credit(&tp, epoch, records.iter().map(Record::size).sum());
        }
    }
    println!(
        "follow {n} records: {:.0} rec/s",
        n as f64 / t.elapsed().as_secs_f64()
    );
    drop(c);
    log.close();
    println!(
        "disk x{:.2}",
        std::fs::metadata(dir.join("posthaste.db")).unwrap().len() as f64 / (n as f64 * 1040.0)
    );
}
