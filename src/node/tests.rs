//! Real nodes in one process: real log, state, network and threads, and no HTTP edge.

mod compaction;
mod proposals;
mod slow;
mod watch;

use std::net::TcpListener;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::clock::{Machine, Source};
use super::link::Hello;
use super::nature::System;
use super::*;
use crate::config::{Config, Options};
use crate::executor::Nature;
use crate::kv::{Condition, Key, Lifetime, Number};
use crate::storage::Tuning;

const HOUR_MS: i64 = 3_600_000;

/// A wall clock that a test sets, as so many milliseconds ahead of the machine's.
#[derive(Clone, Default)]
struct WallClock(Arc<AtomicI64>, Machine);

impl WallClock {
    fn set_ahead(&self, ms: i64) {
        self.0.store(ms, Ordering::Relaxed);
    }
}

impl Source for WallClock {
    fn wall_ms(&self) -> i64 {
        self.1.wall_ms() + self.0.load(Ordering::Relaxed)
    }

    fn monotonic_ms(&self) -> i64 {
        self.1.monotonic_ms()
    }
}

/// An address nobody listens on, below the ports that outgoing connections are given: one of those
/// could be taken between this and the node's own bind.
fn free_address() -> String {
    loop {
        let port = 11_000 + System::default().seed() % 20_000;
        let address = format!("127.0.0.1:{port}");
        if TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
}

fn config(dir: &TempDir, id: u64, addresses: &[String]) -> Config {
    let mut options = Options::parse("log = \"info\"").unwrap();
    options.data = Some(dir.path().join(id.to_string()));
    options.node_id = Some(id);
    options.peer_listen = Some(addresses[id as usize - 1].clone());
    options.executor_threads = Some(2);
    if addresses.len() > 1 {
        options.join = Some(addresses.join(",").parse().unwrap());
        options.cluster_secret = Some("secret".parse().unwrap());
    }
    Config::settle(options, Options::default()).unwrap()
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn start(dir: &TempDir, size: u64) -> Vec<Node> {
    let right: Vec<_> = (0..size).map(|_| WallClock::default()).collect();
    start_with_clocks(dir, &right).await
}

async fn start_with_clocks(dir: &TempDir, clocks: &[WallClock]) -> Vec<Node> {
    let addresses: Vec<_> = clocks.iter().map(|_| free_address()).collect();
    let mut nodes = Vec::new();
    for (id, wall) in (1..).zip(clocks) {
        let config = config(dir, id, &addresses);
        nodes.push(Node::start_with(&config, Clock::new(wall.clone())).await.unwrap());
    }
    eventually("all ready", || nodes.iter().all(Node::is_ready)).await;
    nodes
}

fn leader(nodes: &[Node]) -> &Node {
    nodes.iter().find(|node| node.leadership() == Leadership::Own).unwrap()
}

fn key(name: &str) -> Key {
    Key::parse(name.to_owned()).unwrap()
}

fn set(name: &str, value: &str) -> Request {
    Request::Operation(Operation::Set {
        key: key(name),
        value: value.to_owned().into(),
        content_type: None,
        lifetime: Lifetime::Default,
        condition: Condition::Any,
    })
}

fn increment(name: &str) -> Request {
    let (by, condition) = (Number::Int(1), Condition::Any);
    Request::Operation(Operation::Increment {
        key: key(name),
        by,
        lifetime: Lifetime::Default,
        condition,
    })
}

async fn value(node: &Node, bucket: &BucketName, name: &str) -> Option<Bytes> {
    let mut txn = node.read(bucket).await.unwrap();
    txn.get(&key(name)).unwrap().map(|record| record.value)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_keeps_what_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = BucketName::parse("b").unwrap();
    let nodes = start(&dir, 1).await;
    let created =
        nodes[0].create_bucket(bucket.clone(), PolicyPatch::default(), None).await.unwrap();
    let taken = nodes[0].create_bucket(bucket.clone(), PolicyPatch::default(), None).await;
    assert!(matches!(taken.unwrap_err().error, Error::Conflict(_)));
    let answer = nodes[0].execute(&bucket, set("k", "v"), Credential::NONE, None).await.unwrap();
    assert_eq!(answer.revision, created.revision + 1);
    assert_eq!(answer.version, Some(created.revision + 1));
    assert_eq!(value(&nodes[0], &bucket, "k").await.unwrap(), "v");
    let missing = BucketName::parse("c").unwrap();
    let refused = nodes[0].execute(&missing, set("k", "v"), Credential::NONE, None).await;
    assert_eq!(refused.unwrap_err().error, Error::not_found(Missing::Bucket, "c"));
    let digest = nodes[0].digest().unwrap();
    nodes[0].shutdown().await.unwrap();
    assert_eq!(digest.buckets[1].keys, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_count_at_pipeline_speed_and_agree() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = BucketName::parse("b").unwrap();
    let nodes = start(&dir, 3).await;
    let leader = leader(&nodes).clone();
    leader.create_bucket(bucket.clone(), PolicyPatch::default(), None).await.unwrap();
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let (leader, bucket) = (leader.clone(), bucket.clone());
            tokio::spawn(async move {
                let mut answers = Vec::new();
                for _ in 0..50 {
                    let ran = leader.execute(&bucket, increment("n"), Credential::NONE, None).await;
                    answers.push(String::from_utf8(ran.unwrap().body.to_vec()).unwrap());
                }
                answers
            })
        })
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.extend(task.await.unwrap());
    }
    let mut numbers: Vec<u64> = answers.iter().map(|answer| answer.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=3200).collect::<Vec<_>>(), "each increment once");
    for node in &nodes {
        assert_eq!(value(node, &bucket, "n").await.unwrap(), "3200", "on every node");
    }
    let digests: Vec<_> = nodes.iter().map(|node| node.digest().unwrap()).collect();
    assert!(digests.iter().all(|digest| digest.buckets == digests[0].buckets));
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_moves_and_the_old_leader_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = BucketName::parse("b").unwrap();
    let nodes = start(&dir, 3).await;
    let old = leader(&nodes).clone();
    old.create_bucket(bucket.clone(), PolicyPatch::default(), None).await.unwrap();
    let to = nodes.iter().find(|node| node.leadership() != Leadership::Own).unwrap();
    old.transfer_leader(to.identity().node_id).await.unwrap();
    eventually("the other leads", || to.leadership() == Leadership::Own).await;
    to.execute(&bucket, set("k", "v"), Credential::NONE, None).await.unwrap();
    let refused = old.execute(&bucket, set("k", "w"), Credential::NONE, None).await;
    let refused = refused.unwrap_err().error;
    assert!(matches!(refused, Error::NotLeader { .. }), "{refused:?}");
    assert_eq!(value(&old, &bucket, "k").await.unwrap(), "v");
}

/// One command of a leader whose clock is ahead would end every key that is to live for less.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_clock_is_off_stamps_nothing_and_hands_over() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = BucketName::parse("b").unwrap();
    let clocks: Vec<_> = (0..3).map(|_| WallClock::default()).collect();
    clocks[2].set_ahead(HOUR_MS);
    let nodes = start_with_clocks(&dir, &clocks).await;
    let wrong = &nodes[2];
    eventually("it knows", || wrong.clock_skew().is_skewed).await;
    assert!((wrong.clock_skew().offset_ms - HOUR_MS).abs() < 5000, "{:?}", wrong.clock_skew());
    assert!(nodes[..2].iter().all(|node| !node.clock_skew().is_skewed));
    let good = || nodes[..2].iter().find(|node| node.leadership() == Leadership::Own);
    eventually("a good clock leads", || good().is_some()).await;
    good().unwrap().create_bucket(bucket.clone(), PolicyPatch::default(), None).await.unwrap();

    good().unwrap().transfer_leader(3).await.unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(20) && good().is_none() {
        let wrote = wrong.execute(&bucket, set("k", "v"), Credential::NONE, None).await;
        assert!(wrote.is_err(), "{wrote:?}");
    }
    eventually("a good clock leads again", || good().is_some()).await;
    eventually("and is ready", || good().is_some_and(|node| node.0.ready_term.borrow().is_some()))
        .await;
    good().unwrap().execute(&bucket, set("k", "w"), Credential::NONE, None).await.unwrap();
    let stamped = nodes[0].read(&bucket).await.unwrap().now();
    let right = i64::try_from(stamped).unwrap() - Machine::default().wall_ms();
    assert!(right.abs() < 60_000, "no command has the wrong time: {right} ms");

    clocks[2].set_ahead(0);
    eventually("set right, it is good again", || !wrong.clock_skew().is_skewed).await;
    wrong.read(&bucket).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_one_wall_clock_moves_no_time_but_that_of_a_node_alone() {
    let dir = tempfile::tempdir().unwrap();
    let clocks: Vec<_> = (0..3).map(|_| WallClock::default()).collect();
    let nodes = start_with_clocks(&dir, &clocks).await;
    let away = |node: &Node| node.now_ms().abs_diff(Machine::default().wall_ms() as u64);
    clocks[0].set_ahead(HOUR_MS);
    // A node that follows does so within the same rounds.
    let (alone, dir) = (WallClock::default(), tempfile::tempdir().unwrap());
    let single = start_with_clocks(&dir, std::slice::from_ref(&alone)).await;
    alone.set_ahead(HOUR_MS);
    eventually("alone, it follows", || away(&single[0]) > 3_000_000).await;
    assert!(nodes.iter().all(|node| away(node) < 60_000 && !node.clock_skew().is_skewed));
    clocks.iter().for_each(|clock| clock.set_ahead(HOUR_MS));
    eventually("all follow", || nodes.iter().all(|node| away(node) > 3_000_000)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_reads_need_no_leader_and_say_their_age() {
    let (dir, begun) = (tempfile::tempdir().unwrap(), Instant::now());
    let bucket = BucketName::parse("b").unwrap();
    let nodes = start(&dir, 3).await;
    let leader = leader(&nodes).clone();
    // Older than that: what nobody hears counts from the start of the process.
    let hears = |node: &Node| node.state_age() < Duration::from_secs(1);
    let hear = || begun.elapsed() > Duration::from_secs(3) && nodes.iter().all(hears);
    eventually("all hear each other", hear).await;
    leader.create_bucket(bucket.clone(), PolicyPatch::default(), None).await.unwrap();
    let wrote = leader.execute(&bucket, set("k", "v"), Credential::NONE, None).await.unwrap();
    let stale = Consistency { stale: true, min_revision: Some(wrote.revision) };
    for node in &nodes {
        let (mut txn, age) = node.read_with(&bucket, stale).await.unwrap();
        assert_eq!(txn.get(&key("k")).unwrap().unwrap().value, "v");
        assert!(age.unwrap() < Duration::from_secs(5), "{age:?}");
    }
    let last = nodes.iter().find(|node| node.leadership() != Leadership::Own).unwrap();
    for node in &nodes {
        if node.identity().node_id != last.identity().node_id {
            node.shutdown().await.unwrap();
        }
    }
    let old = || last.read_stale(&bucket).unwrap().1 > Duration::from_secs(2);
    eventually("its state gets old", old).await;
    let (mut txn, age) = last.read_with(&bucket, stale).await.unwrap();
    assert_eq!(txn.get(&key("k")).unwrap().unwrap().value, "v");
    assert!(age.unwrap() > Duration::from_secs(2), "{age:?}");
    assert!(last.read(&bucket).await.is_err(), "nobody leads");
    let missing = BucketName::parse("c").unwrap();
    let refused = last.read_stale(&missing).map(|_| ());
    assert_eq!(refused.unwrap_err(), Error::not_found(Missing::Bucket, "c"));
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_wait_for_the_revision_that_they_ask_for() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = BucketName::parse("b").unwrap();
    let nodes = start(&dir, 1).await;
    let created =
        nodes[0].create_bucket(bucket.clone(), PolicyPatch::default(), None).await.unwrap();
    assert_eq!(nodes[0].state_age(), Duration::ZERO, "alone, it knows all there is");
    for stale in [false, true] {
        let revision = nodes[0].read(&bucket).await.unwrap().read_revision();
        let ask = |min_revision| {
            let (node, bucket) = (nodes[0].clone(), bucket.clone());
            let consistency = Consistency { stale, min_revision: Some(min_revision) };
            async move {
                let read = node.read_with(&bucket, consistency).await;
                read.map(|(txn, age)| (txn.read_revision(), age.is_some()))
            }
        };
        assert_eq!(ask(created.revision).await, Ok((revision, stale)));
        let (asked, begun) = (revision + 2, Instant::now());
        assert_eq!(ask(asked).await, Err(Error::Behind { revision, asked }));
        assert!(begun.elapsed() >= Duration::from_secs(2), "it waited");
        let waiting = tokio::spawn(ask(asked));
        for value in ["1", "2"] {
            assert!(!waiting.is_finished());
            nodes[0].execute(&bucket, set("k", value), Credential::NONE, None).await.unwrap();
        }
        assert_eq!(waiting.await.unwrap(), Ok((asked, stale)), "woken");
    }
    let stale = Consistency { stale: true, min_revision: Some(1) };
    let missing = nodes[0].read_with(&BucketName::parse("c").unwrap(), stale).await;
    assert_eq!(missing.map(|_| ()), Err(Error::Behind { revision: 0, asked: 1 }));
}

/// Without its log a node would vote again where it has voted.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_removed_is_not_ready() {
    let dir = TempDir::new().unwrap();
    let nodes = start(&dir, 3).await;
    let leader = leader(&nodes);
    let own = leader.status().node_id;
    let removed = nodes.iter().find(|node| node.status().node_id != own).unwrap();
    let id = removed.status().node_id;
    leader.remove(id).await.unwrap();
    eventually("it is told", || !removed.is_ready()).await;
    let bucket = BucketName::parse("b").unwrap();
    assert!(matches!(
        removed.read(&bucket).await,
        Err(Error::NoLeader(_) | Error::NotLeader { .. })
    ));
    let others = nodes.iter().filter(|node| node.status().node_id != id);
    assert!(others.into_iter().all(Node::is_ready), "the others are");
}

#[tokio::test(flavor = "multi_thread")]
async fn state_without_a_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir, 1, &[free_address()]);
    let node = Node::start(&config).await.unwrap();
    eventually("ready", || node.is_ready()).await;
    let bucket = BucketName::parse("b").unwrap();
    node.create_bucket(bucket.clone(), PolicyPatch::default(), None).await.unwrap();
    node.shutdown().await.unwrap();
    let data = dir.path().join("1");
    // The directory stays locked as long as anybody has the node.
    let copy = dir.path().join("copy");
    copy_all(&data, &copy);
    std::fs::remove_dir_all(copy.join("log")).unwrap();
    let data = DataDir::open(&copy).unwrap();
    let state = State::open(&data, Tuning::default()).unwrap();
    for _ in 0..2 {
        let log = LogStore::open(&data.log()).unwrap();
        let refused = start::refuse_amnesia(&state, &log);
        assert!(matches!(refused, Err(Error::Corrupt { what: "raft log", .. })), "{refused:?}");
        log.close().unwrap();
    }
}

/// It would ask to be let in again, as a node that never was, for ever.
#[tokio::test(flavor = "multi_thread")]
async fn identity_of_before_the_cluster_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&config(&dir, 1, &[free_address()])).await.unwrap();
    eventually("ready", || node.is_ready()).await;
    let identity = node.storage_identity().unwrap();
    let old = Identity { cluster_id: None, ..identity.clone() };
    start::refuse_old_identity(&identity, &node.0.log).unwrap();
    let refused = start::refuse_old_identity(&old, &node.0.log);
    assert!(matches!(refused, Err(Error::Corrupt { what: "IDENTITY", .. })), "{refused:?}");
    node.shutdown().await.unwrap();
}

/// One flipped bit in what a leader's port answered ended every follower that a client then asked: bytes
/// of a peer were taken for damage of the own disk.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_from_a_peer_is_no_damage_of_this_node() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let garbage = axum::Router::new().fallback(async || "garbage");
    tokio::spawn(axum::serve(listener, garbage).into_future());
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&config(&dir, 1, &[free_address()])).await.unwrap();
    eventually("ready", || node.is_ready()).await;
    let answer = node.links().ask::<_, Hello>(&address, "/peer/hello", &()).await;
    assert!(matches!(answer, Err(Error::NoLeader(_))), "{answer:?}");
    node.heed(&Error::corrupt("peer answer", "checksum does not match"));
    assert!(node.is_ready(), "goes on");
    node.heed(&Error::corrupt(crate::storage::DAMAGED, "block checksum mismatch"));
    assert!(!node.is_ready(), "the disk is damaged");
    node.shutdown().await.unwrap();
}

fn copy_all(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (from, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if from.is_dir() {
            copy_all(&from, &to.join(name));
        } else {
            std::fs::copy(&from, to.join(name)).unwrap();
        }
    }
}
