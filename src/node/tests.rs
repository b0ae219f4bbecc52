//! Real nodes in one process: real log, state, network and threads, and no HTTP edge.

mod watch;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::link::Hello;
use super::nature::System;
use super::*;
use crate::config::{Config, Options};
use crate::kv::{Condition, Key, Number};
use crate::storage::Tuning;

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
    let addresses: Vec<_> = (0..size).map(|_| free_address()).collect();
    let mut nodes = Vec::new();
    for id in 1..=size {
        nodes.push(Node::start(&config(dir, id, &addresses)).await.unwrap());
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
        condition: Condition::Any,
    })
}

fn increment(name: &str) -> Request {
    let (by, condition) = (Number::Int(1), Condition::Any);
    Request::Operation(Operation::Increment { key: key(name), by, condition })
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
    let created = nodes[0].create_bucket(bucket.clone(), PolicyRequest::default()).await.unwrap();
    let taken = nodes[0].create_bucket(bucket.clone(), PolicyRequest::default()).await;
    assert!(matches!(taken, Err(Error::Conflict(_))));
    let answer = nodes[0].execute(&bucket, set("k", "v"), Credential::NONE).await.unwrap();
    assert_eq!(answer.revision, created.revision + 1);
    assert_eq!(answer.version, Some(created.revision + 1));
    assert_eq!(value(&nodes[0], &bucket, "k").await.unwrap(), "v");
    let missing = BucketName::parse("c").unwrap();
    let refused = nodes[0].execute(&missing, set("k", "v"), Credential::NONE).await;
    assert_eq!(refused, Err(Error::not_found(Missing::Bucket, "c")));
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
    leader.create_bucket(bucket.clone(), PolicyRequest::default()).await.unwrap();
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let (leader, bucket) = (leader.clone(), bucket.clone());
            tokio::spawn(async move {
                let mut answers = Vec::new();
                for _ in 0..50 {
                    let ran = leader.execute(&bucket, increment("n"), Credential::NONE).await;
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
    old.create_bucket(bucket.clone(), PolicyRequest::default()).await.unwrap();
    let to = nodes.iter().find(|node| node.leadership() != Leadership::Own).unwrap();
    old.transfer_leader(to.identity().node_id).await.unwrap();
    eventually("the other leads", || to.leadership() == Leadership::Own).await;
    to.execute(&bucket, set("k", "v"), Credential::NONE).await.unwrap();
    let refused = old.execute(&bucket, set("k", "w"), Credential::NONE).await;
    assert!(matches!(refused, Err(Error::NotLeader { .. })), "{refused:?}");
    assert_eq!(value(&old, &bucket, "k").await.unwrap(), "v");
}

/// Without its log a node would vote again where it has voted.
#[tokio::test(flavor = "multi_thread")]
async fn state_without_a_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir, 1, &[free_address()]);
    let node = Node::start(&config).await.unwrap();
    eventually("ready", || node.is_ready()).await;
    let bucket = BucketName::parse("b").unwrap();
    node.create_bucket(bucket.clone(), PolicyRequest::default()).await.unwrap();
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
