//! One consumer: an OS thread that serves a `BaseConsumer`, one that commits,
//! and the handle that hears from them over a bounded queue.

mod serving;
mod slot;

use std::sync::Arc;

use bytestring::ByteString;
use futures_util::future::BoxFuture;
use rdkafka::consumer::BaseConsumer;
use tokio::sync::{mpsc, oneshot};

use self::serving::Serving;
use super::commits::{self, COMMITS_MAX, Commit};
use super::context::Context;
use super::{KafkaSettings, Threads, client, failure, fetch};
use crate::log::lease::Reader;
use crate::log::{
    CommitError, Epoch, GroupConsumer, GroupEvent, LogError, Offset, Start, TopicPartition,
};

/// Events waiting to be heard. At the bound the thread stops reading.
const EVENTS_MAX: usize = 16;

/// What a consumer is for.
pub(super) enum Plan {
    Join {
        group: String,
        topics: Vec<ByteString>,
        start: Start,
    },
    Follow {
        topic: ByteString,
    },
}

type Native = BaseConsumer<Context>;

/// The end that hears. Dropping it leaves the group.
pub(super) struct Consumer {
    reader: Arc<Reader>,
    events: mpsc::Receiver<GroupEvent>,
    /// A follower commits nothing.
    commits: Option<mpsc::Sender<Commit>>,
    /// Whoever lets go of it last waits for the threads, which end when this
    /// consumer does.
    _threads: Arc<Threads>,
}

/// Starts a consumer and its threads.
pub(super) fn begin(
    settings: &KafkaSettings,
    plan: Plan,
    threads: &Arc<Threads>,
) -> Result<Consumer, LogError> {
    let reader = Arc::new(Reader::default());
    let group = match &plan {
        Plan::Join { group, .. } => group,
        Plan::Follow { .. } => fetch::READER_GROUP,
    };
    let mut native: Native = config(settings, group)
        .create_with_context(Context::default())
        .map_err(|error| failure(&error))?;
    let wakes = Arc::clone(&reader);
    native.set_nonempty_callback(move || wakes.wake());
    let native = Arc::new(native);
    let (out, events) = mpsc::channel(EVENTS_MAX);
    let commits = match plan {
        Plan::Join { .. } => {
            let (commits, asked) = mpsc::channel(COMMITS_MAX);
            let native = Arc::clone(&native);
            threads.start("kafka-commits", move || commits::run(&native, asked))?;
            Some(commits)
        }
        Plan::Follow { .. } => None,
    };
    let serving = Serving::new(native, Arc::clone(&reader), plan, out);
    reader.serve(threads.start("kafka-consumer", move || serving.run())?);
    Ok(Consumer {
        reader,
        events,
        commits,
        _threads: Arc::clone(threads),
    })
}

fn config(settings: &KafkaSettings, group: &str) -> rdkafka::ClientConfig {
    let mut config = client::consumer(settings, group);
    let mut or_default = |key: &str, value: String| {
        if config.get(key).is_none() {
            config.set(key, value);
        }
    };
    or_default("queued.min.messages", "5000".to_owned());
    // A bound for each partition, since each has a queue of its own.
    or_default("queued.max.messages.kbytes", "4096".to_owned());
    or_default("fetch.wait.max.ms", "100".to_owned());
    or_default("fetch.message.max.bytes", "524288".to_owned());
    let session = settings.session_timeout.as_millis();
    or_default("max.poll.interval.ms", session.max(60_000).to_string());
    if !client::broker_assigns(settings) {
        or_default("heartbeat.interval.ms", (session / 5).max(1).to_string());
        config
            .set("session.timeout.ms", session.to_string())
            .set("partition.assignment.strategy", "cooperative-sticky");
        if let Some(instance) = &settings.instance_id {
            config.set("group.instance.id", instance);
        }
    }
    config
}

impl GroupConsumer for Consumer {
    fn next(&mut self) -> BoxFuture<'_, GroupEvent> {
        Box::pin(async {
            let event = self.events.recv().await;
            self.reader.wake();
            event.unwrap_or_else(|| {
                GroupEvent::Fatal(LogError::Other("the consumer has ended".to_owned()))
            })
        })
    }

    fn credit(&self, tp: &TopicPartition, epoch: Epoch, bytes: usize) {
        self.reader.credit(tp, epoch, bytes);
    }

    fn commit(
        &self,
        tp: &TopicPartition,
        epoch: Epoch,
        at: Offset,
        metadata: String,
    ) -> BoxFuture<'static, Result<(), CommitError>> {
        let lease = self.reader.lease(tp, epoch);
        let (Some(lease), Some(commits)) = (lease, &self.commits) else {
            return Box::pin(async { Err(CommitError::Stale) });
        };
        let (answer, answered) = oneshot::channel();
        let commit = Commit {
            lease,
            at,
            metadata,
            answer,
        };
        let asked = commits.try_send(commit);
        Box::pin(async move {
            let failed = |why: &str| Err(CommitError::Failed(why.to_owned()));
            if asked.is_err() {
                return failed("too many commits wait for the coordinator");
            }
            let gone = |_| failed("the consumer has ended");
            answered.await.unwrap_or_else(gone)
        })
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.events.close();
        self.reader.leave();
    }
}
