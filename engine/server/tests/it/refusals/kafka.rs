//! Topics on Kafka that are not what they must be: refused before anything
//! moves, with the topic, the setting and what would be right.

use posthaste::config::Config;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;

use super::program::{Refused, SECRETS, Server, file, posthaste};
use crate::contract::unique;
use crate::kafka::broker;

/// A deployment of its own on the broker.
struct Deployment {
    bootstrap: String,
    prefix: String,
}

impl Deployment {
    fn new(bootstrap: &str) -> Self {
        Self {
            bootstrap: bootstrap.to_owned(),
            prefix: unique("refusals"),
        }
    }

    fn topic(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    fn config(&self) -> String {
        format!("{}start = \"earliest\"\n", self.config_without_start())
    }

    fn config_without_start(&self) -> String {
        let Self { bootstrap, prefix } = self;
        format!(
            "log = \"kafka://{bootstrap}\"\nshards = 1\n{SECRETS}\
             [topics]\nprefix = \"{prefix}\"\nlane_partitions = 2\nsource_partitions = 2\n\
             replication = 1\n[ingest]\ntopics = [\"{prefix}.events\"]\n"
        )
    }

    /// Makes one topic as it must be, but for these settings.
    async fn make(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .create()
            .unwrap();
        let topic = self.topic(name);
        let new = NewTopic::new(&topic, partitions, TopicReplication::Fixed(1));
        let right = [
            ("max.message.bytes", "2097152"),
            ("retention.ms", "2592000000"),
            ("retention.bytes", "-1"),
        ];
        let all = right.iter().chain(settings);
        let new = all.fold(new, |new, (key, value)| new.set(key, value));
        let made = admin.create_topics([&new], &AdminOptions::new()).await;
        made.unwrap().remove(0).unwrap();
    }

    /// `posthaste topics create`, which must work.
    fn create(&self, options: &[&str]) -> String {
        let file = file(&self.config());
        let mut create = posthaste(&["topics", "create", "--config"]);
        let output = create.arg(file.path()).args(options).output().unwrap();
        let why = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{why}");
        String::from_utf8(output.stdout).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_of_ours_with_a_wrong_setting_are_refused() {
    let Some(bootstrap) = broker() else { return };
    type Case = (
        &'static str,
        i32,
        &'static [(&'static str, &'static str)],
        [&'static str; 3],
    );
    let cases: [Case; 8] = [
        (
            "lane",
            3,
            &[],
            ["`partitions` is 3", "must be 2", "a key's records"],
        ),
        (
            "lane",
            2,
            &[("cleanup.policy", "compact")],
            [
                "`cleanup.policy` is compact",
                "must be delete",
                "still needed",
            ],
        ),
        (
            "lane",
            2,
            &[("retention.ms", "3600000")],
            [
                "`retention.ms` is 3600000",
                "must be at least 345600000",
                ": ",
            ],
        ),
        (
            "lane",
            2,
            &[("retention.bytes", "1000000000")],
            ["`retention.bytes` is 1000000000", "must be -1", "by size"],
        ),
        (
            "lane",
            2,
            &[("max.message.bytes", "1000000")],
            [
                "`max.message.bytes` is 1000000",
                "must be at least 2097152",
                "large events",
            ],
        ),
        (
            "endpoints",
            1,
            &[("cleanup.policy", "delete")],
            ["`cleanup.policy` is delete", "must be compact", ": "],
        ),
        (
            "endpoints",
            2,
            &[("cleanup.policy", "compact")],
            ["`partitions` is 2", "must be 1", ": "],
        ),
        (
            "dead",
            16,
            &[("retention.ms", "3600000")],
            [
                "`retention.ms` is 3600000",
                "must be at least 2592000000",
                ": ",
            ],
        ),
    ];
    let mut runs = Vec::new();
    for (name, partitions, settings, words) in cases {
        let deployment = Deployment::new(&bootstrap);
        deployment.make(name, partitions, settings).await;
        runs.push(tokio::task::spawn_blocking(move || {
            let named = format!("topic `{}`", deployment.topic(name));
            let words = [&[&*named][..], &words].concat();
            let file = file(&deployment.config());
            let path = file.path().to_str().unwrap();
            // Making the rest does not make this one right.
            Refused::from(&["topics", "create", "--sources", "--config", path]).expect(1, &words);
            Refused::serve(&deployment.config()).expect(1, &words);
        }));
    }
    for run in runs {
        run.await.unwrap();
    }
}

#[test]
fn topics_that_are_missing_are_named_with_the_way_to_make_them() {
    let Some(bootstrap) = broker() else { return };
    let deployment = Deployment::new(&bootstrap);
    let missing = Refused::serve(&deployment.config());
    let ours = format!("topic `{}` does not exist", deployment.topic("endpoints"));
    missing.expect(1, &[&ours, "`posthaste topics create`"]);
    deployment.create(&[]);
    let source = format!("topic `{}` does not exist", deployment.topic("events"));
    Refused::serve(&deployment.config()).expect(1, &[&source, "ingest.topics", "--sources"]);
    let made = deployment.create(&["--sources"]);
    assert_eq!(made.matches("created").count(), 1, "{made}");
    Server::start(&deployment.config()).stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_forgets_soon_is_refused_or_warned_of() {
    let Some(bootstrap) = broker() else { return };
    let hour = 3_600_000;
    let forgets = Deployment::new(&bootstrap);
    let kept = (23 * hour).to_string();
    forgets.make("events", 3, &[("retention.ms", &kept)]).await;
    let soon = Deployment::new(&bootstrap);
    let kept = (48 * hour).to_string();
    soon.make("events", 3, &[("retention.ms", &kept)]).await;
    let long = Deployment::new(&bootstrap);
    let kept = (96 * hour).to_string();
    long.make("events", 3, &[("retention.ms", &kept)]).await;
    let checked = tokio::task::spawn_blocking(move || {
        forgets.create(&[]);
        let named = format!("topic `{}`", forgets.topic("events"));
        Refused::serve(&forgets.config()).expect(
            1,
            &[
                &named,
                "`retention.ms` is 82800000",
                "at least 86400000",
                "before they are",
            ],
        );
        let warned = |deployment: &Deployment| {
            let made = deployment.create(&["--sources"]);
            // A source is taken with the partitions it has.
            assert!(
                made.lines()
                    .any(|row| row.contains(".events ") && row.contains(" 3 "))
            );
            let log = Server::start(&deployment.config()).stop();
            let named = deployment.topic("events");
            let mut lines = log.lines();
            lines.any(|line| {
                line.contains("\"WARN\"") && line.contains(&named) && line.contains("retention")
            })
        };
        assert!(warned(&soon), "48 h");
        assert!(!warned(&long), "96 h");
    });
    checked.await.unwrap();
}

#[test]
fn a_first_start_must_say_where_it_begins() {
    let Some(bootstrap) = broker() else { return };
    let deployment = Deployment::new(&bootstrap);
    deployment.create(&["--sources"]);
    let config = deployment.config_without_start();
    let group = format!("group `{}.ingest`", deployment.prefix);
    let source = deployment.topic("events");
    Refused::serve(&config).expect(
        64,
        &[
            &group,
            &source,
            "`ingest.start`",
            "\"earliest\", \"latest\" or a time",
        ],
    );
    // Said once, it stands in the log.
    let config = deployment.config();
    let server = Server::start(&config);
    super::program::eventually("every partition has a place", || {
        // Two of the source, and the operational events'.
        server.log().matches("source partition assigned").count() == 3
    });
    server.stop();
    Server::start(&deployment.config_without_start()).stop();
}

/// The names are the ones a deployment has.
#[test]
fn the_names_are_right() {
    let deployment = Deployment::new("127.0.0.1:1");
    let topics = Config::parse(&deployment.config()).unwrap().topics;
    assert_eq!(&*topics.lane(), deployment.topic("lane"));
    assert_eq!(&*topics.endpoints(), deployment.topic("endpoints"));
}
