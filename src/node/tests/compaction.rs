//! When snapshots are taken, and what remains of the log, on real nodes.

use super::*;

/// Nodes with a small log.
async fn start_small(dir: &TempDir, size: u64, change: impl Fn(&mut Config)) -> Vec<Node> {
    let addresses: Vec<_> = (0..size).map(|_| free_address()).collect();
    let mut nodes = Vec::new();
    for id in 1..=size {
        let mut config = config(dir, id, &addresses);
        change(&mut config);
        nodes.push(Node::start(&config).await.unwrap());
    }
    eventually("all ready", || nodes.iter().all(Node::is_ready)).await;
    nodes
}

#[tokio::test(flavor = "multi_thread")]
async fn each_replica_takes_its_snapshot_at_another_index() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = start_small(&dir, 3, |config| config.snapshot_entries = 300).await;
    let bucket = BucketName::parse("b").unwrap();
    let leader = leader(&nodes).clone();
    leader.create_bucket(bucket.clone(), PolicyPatch::default(), None).await.unwrap();
    let taken = || nodes.iter().map(|node| node.status().snapshot_index > 0).collect::<Vec<_>>();
    for (index, expected) in [
        (60, [false, false, false]),
        (100, [false, true, false]),
        (200, [true, true, false]),
        (280, [true, true, true]),
    ] {
        while leader.status().applied_index < index {
            leader.execute(&bucket, increment("n"), Credential::NONE, None).await.unwrap();
        }
        let applied = || nodes.iter().all(|node| node.status().applied_index >= index);
        eventually("applied by all", applied).await;
        eventually(&format!("at {index}: {expected:?}"), || taken() == expected).await;
    }
    assert!(nodes.iter().all(|node| node.status().snapshot_index < 300));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_large_values_is_purged_for_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = start_small(&dir, 1, |config| config.log_bytes_max = 1 << 20).await;
    let bucket = BucketName::parse("b").unwrap();
    nodes[0].create_bucket(bucket.clone(), PolicyPatch::default(), None).await.unwrap();
    let value = "v".repeat(64 << 10);
    for number in 0..64 {
        let write = set(&format!("k{number}"), &value);
        nodes[0].execute(&bucket, write, Credential::NONE, None).await.unwrap();
    }
    let kept = || {
        let status = nodes[0].status();
        status.last_log_index - status.purged_index
    };
    eventually("sixteen values at most", || kept() <= 16).await;
    assert!(kept() >= 4, "and not all: {}", kept());
    assert_eq!(super::value(&nodes[0], &bucket, "k0").await.unwrap().len(), value.len());
    nodes[0].shutdown().await.unwrap();
}
