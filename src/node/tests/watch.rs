//! Watches over real nodes.

use super::*;
use crate::encoding;
use crate::kv::{Command, CommandId, Effect, Row, Write};
use crate::node::{Commit, Event, Kind, Reason, Watch};
use crate::raft::{Proposal, Proposer, Verdict};

const SOON: Duration = Duration::from_secs(20);

fn name() -> BucketName {
    BucketName::parse("b").unwrap()
}

/// The next event; where a watch stands is skipped.
async fn next(watch: &mut Watch) -> Event {
    loop {
        let event = tokio::time::timeout(SOON, watch.next()).await.expect("an event").unwrap();
        if !matches!(event, Event::At(_)) {
            return event;
        }
    }
}

fn shown(commit: &Commit) -> String {
    let changes = commit.changes.iter().map(|change| {
        let key = change.key.escape_ascii();
        match &change.kind {
            Kind::Set(record) => format!("{key}={}", record.value.escape_ascii()),
            Kind::Delete => format!("-{key}"),
            Kind::Expire => format!("~{key}"),
        }
    });
    changes.collect::<Vec<_>>().join(" ")
}

async fn commits(watch: &mut Watch, count: usize) -> Vec<(u64, String)> {
    let mut commits = Vec::new();
    while commits.len() < count {
        match next(watch).await {
            Event::Commit(commit) => commits.push((commit.revision, shown(&commit))),
            other => panic!("{other:?} after {commits:?}"),
        }
    }
    commits
}

async fn follow(node: &Node, prefix: &'static str, since: Option<u64>) -> Result<Watch> {
    let prefix = Bytes::from_static(prefix.as_bytes());
    let begun = node.watch(&name(), prefix, since, Credential::NONE).await;
    begun.map_err(|failure| failure.error)
}

async fn write(node: &Node, request: Request) -> u64 {
    node.execute(&name(), request, Credential::NONE, None).await.unwrap().revision
}

fn bucket(node: &Node) -> BucketId {
    store::bucket_id(&*node.state().view(), &name()).unwrap().unwrap()
}

/// Proposes an effect that no request has.
async fn apply(node: &Node, effect: Effect) {
    let state = node.state().view();
    let bucket = bucket(node);
    let prev = store::meta(&*state, bucket).unwrap().unwrap().head;
    let term = node.cluster().leadership().borrow().own_term.unwrap();
    let id = CommandId { term, seq: 1 << 60 };
    let command = Command { bucket, prev, id, now: 0, seed: 0, effect };
    let payload = encoding::encode(&command).unwrap().into();
    let (send, verdict) = tokio::sync::oneshot::channel();
    let done = Box::new(move |verdict| send.send(verdict).unwrap());
    let proposer = Proposer::new(node.cluster().raft().clone());
    let propose = move || proposer.propose(vec![Proposal { payload, done }]);
    tokio::task::spawn_blocking(propose).await.unwrap();
    assert!(matches!(verdict.await.unwrap(), Verdict::Applied { .. }));
}

async fn one_node(dir: &TempDir) -> (Node, u64) {
    let node = start(dir, 1).await.remove(0);
    let created = node.create_bucket(name(), PolicyPatch::default(), None).await.unwrap();
    (node, created.revision)
}

#[tokio::test(flavor = "multi_thread")]
async fn history_and_news_are_one_sequence_from_any_revision() {
    let dir = tempfile::tempdir().unwrap();
    let (node, first) = one_node(&dir).await;
    let other = BucketName::parse("other").unwrap();
    node.create_bucket(other.clone(), PolicyPatch::default(), None).await.unwrap();
    let mut from_now = follow(&node, "", None).await.unwrap();
    assert_eq!(from_now.next().await, Ok(Event::At(first)), "where it stands comes first");
    let mut expected = Vec::new();
    for number in 0..40 {
        node.execute(&other, set("a", "x"), Credential::NONE, None).await.unwrap();
        let key = if number % 3 == 0 { "b:1" } else { "a:1" };
        let revision = write(&node, set(key, &number.to_string())).await;
        expected.push((revision, format!("{key}={number}")));
    }
    let delete = Operation::Delete { key: key("a:1"), condition: Condition::Any };
    let revision = write(&node, Request::Operation(delete)).await;
    expected.push((revision, "-a:1".to_owned()));
    assert_eq!(commits(&mut from_now, expected.len()).await, expected);
    for (skipped, since) in
        [(0, 0), (0, first), (1, first + 1), (25, first + 25), (40, revision - 1)]
    {
        let mut watch = follow(&node, "", Some(since)).await.unwrap();
        let told = commits(&mut watch, expected.len() - skipped).await;
        assert_eq!(told, expected[skipped..], "since {since}");
    }
    let mut prefixed = follow(&node, "a:", Some(0)).await.unwrap();
    expected.retain(|(_, change)| change.contains("a:1"));
    assert_eq!(commits(&mut prefixed, expected.len()).await, expected);
    let mut newest = follow(&node, "", Some(revision)).await.unwrap();
    let revision = write(&node, set("z", "1")).await;
    assert_eq!(commits(&mut newest, 1).await, [(revision, "z=1".to_owned())]);
    let future = follow(&node, "", Some(revision + 1)).await.map(drop);
    assert_eq!(future, Err(Error::Behind { revision, asked: revision + 1 }));
    let past = follow(&node, "", Some(first - 1)).await.map(drop);
    assert_eq!(past, Err(Error::RevisionGone { revision }), "another life of the name");
    node.shutdown().await.unwrap();
}

/// Writes on whichever node leads; what was acknowledged.
async fn keep_writing(nodes: Vec<Node>, writer: u64) -> Vec<(u64, String)> {
    let (mut acknowledged, mut number) = (Vec::new(), 0);
    while number < 60 {
        for node in &nodes {
            let key = format!("{writer}:{number}");
            let written = node.execute(&name(), set(&key, "v"), Credential::NONE, None).await;
            match written.map_err(|failure| failure.error) {
                Ok(answer) => acknowledged.push((answer.revision, format!("{key}=v"))),
                Err(Error::Unknown(_)) => {}
                Err(Error::NotLeader { .. } | Error::NoLeader(_)) => continue,
                Err(error) => panic!("{error}"),
            }
            number += 1;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_tells_the_same_while_writers_race_and_leadership_moves() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = start(&dir, 3).await;
    let old = leader(&nodes).clone();
    let created = old.create_bucket(name(), PolicyPatch::default(), None).await.unwrap().revision;
    let mut watches = Vec::new();
    for node in &nodes {
        eventually("the bucket is there", || {
            store::bucket_id(&*node.state().view(), &name()).unwrap().is_some()
        })
        .await;
        watches.push(follow(node, "", None).await.unwrap());
    }
    let writers: Vec<_> =
        (0..8).map(|writer| tokio::spawn(keep_writing(nodes.clone(), writer))).collect();
    let to = nodes.iter().find(|node| node.leadership() != Leadership::Own).unwrap();
    old.transfer_leader(to.identity().node_id).await.unwrap();
    let mut acknowledged = Vec::new();
    for writer in writers {
        let writes = tokio::time::timeout(SOON, writer).await.expect("writes");
        acknowledged.extend(writes.unwrap());
    }
    let last = write(leader(&nodes), set("end", "v")).await;
    let mut told = Vec::new();
    for watch in &mut watches {
        told.push(commits(watch, (last - created) as usize).await);
    }
    assert_eq!((told[0].first().unwrap().0, told[0].last().unwrap().0), (created + 1, last));
    assert!(told.iter().all(|own| *own == told[0]), "the same on every node");
    assert!(acknowledged.len() > 100);
    for write in acknowledged {
        assert_eq!(told[0].iter().filter(|told| **told == write).count(), 1, "{write:?}");
    }
    for node in &nodes {
        let mut behind = follow(node, "", Some(0)).await.unwrap();
        assert_eq!(commits(&mut behind, told[0].len()).await, told[0], "and from the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_left_behind_goes_on_in_the_log_until_that_is_purged() {
    let dir = tempfile::tempdir().unwrap();
    let (node, first) = one_node(&dir).await;
    let mut watch = follow(&node, "", None).await.unwrap();
    let mut lost = follow(&node, "", None).await.unwrap();
    assert_eq!(watch.next().await, Ok(Event::At(first)));
    assert_eq!(lost.next().await, Ok(Event::At(first)));
    // More than the feed holds.
    let large = "v".repeat(1 << 20);
    for number in 0..12 {
        write(&node, set(&number.to_string(), &large)).await;
    }
    let told = commits(&mut watch, 12).await;
    assert!(told.iter().map(|(revision, _)| *revision).eq(first + 1..=first + 12));
    let revision = write(&node, set("k", "v")).await;
    assert_eq!(commits(&mut watch, 1).await, [(revision, "k=v".to_owned())]);

    node.snapshot().await.unwrap();
    eventually("purged", || node.status().purged_index == node.status().applied_index).await;
    let gone = follow(&node, "", Some(revision - 1)).await.map(drop);
    assert_eq!(gone, Err(Error::RevisionGone { revision }));
    let gone = follow(&node, "", Some(0)).await.map(drop);
    assert_eq!(gone, Err(Error::RevisionGone { revision }));
    // The entry that says that the log is ours is not purged once there is a newer one.
    let revision = write(&node, set("k", "w")).await;
    assert_eq!(next(&mut lost).await, Event::End(Reason::Slow, first));
    assert_eq!(commits(&mut watch, 1).await, [(revision, "k=w".to_owned())]);
    let mut kept = follow(&node, "", Some(revision - 1)).await.unwrap();
    assert_eq!(commits(&mut kept, 1).await, [(revision, "k=w".to_owned())]);
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_swept_has_expired() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _) = one_node(&dir).await;
    let mut watch = follow(&node, "", None).await.unwrap();
    let written = write(&node, set("k", "v")).await;
    let writes = vec![Write { row: Row::key(&key("k")), value: None }];
    apply(&node, Effect::Sweep(writes)).await;
    let told = [(written, "k=v".to_owned()), (written + 1, "~k".to_owned())];
    assert_eq!(commits(&mut watch, 2).await, told);
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_shut_out_is_told_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let (node, first) = one_node(&dir).await;
    let mut stranger = follow(&node, "", None).await.unwrap();
    let written = write(&node, set("k", "v")).await;
    assert_eq!(commits(&mut stranger, 1).await, [(written, "k=v".to_owned())]);
    let closed = PolicyPatch { read_key: Some("r".to_owned()), ..PolicyPatch::default() };
    let policy = Row::policy();
    let value = encoding::encode(&closed.create().unwrap()).unwrap();
    let record = store::row(&*node.state().view(), bucket(&node), &Row::key(&key("k"))).unwrap();
    let secret = Write { row: Row::key(&key("secret")), value: record };
    apply(&node, Effect::Write(vec![secret, Write { row: policy, value: Some(value.into()) }]))
        .await;
    assert_eq!(next(&mut stranger).await, Event::End(Reason::Revoked, written));
    let refused = follow(&node, "", None).await.map(drop);
    assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
    let reader = Credential::new("r");
    let mut reader = node.watch(&name(), Bytes::new(), Some(first), reader).await.unwrap();
    let told = commits(&mut reader, 2).await;
    assert_eq!(told[1], (written + 1, "secret=v".to_owned()));
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_watch_says_where_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    let (node, first) = one_node(&dir).await;
    let mut watch = follow(&node, "a:", None).await.unwrap();
    watch.at_every = Duration::from_millis(1);
    assert_eq!(watch.next().await, Ok(Event::At(first)));
    let revision = write(&node, set("b:1", "v")).await;
    let reached = async { while watch.next().await != Ok(Event::At(revision)) {} };
    tokio::time::timeout(SOON, reached).await.expect("what is not under the prefix counts");
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_bucket_or_of_the_node_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _) = one_node(&dir).await;
    let mut watch = follow(&node, "", None).await.unwrap();
    let written = write(&node, set("k", "v")).await;
    write(&node, Request::Operation(Operation::DeleteBucket)).await;
    let end = loop {
        match next(&mut watch).await {
            Event::Commit(commit) => assert_eq!(commit.revision, written),
            end => break end,
        }
    };
    assert!(matches!(end, Event::End(Reason::Deleted, _)), "{end:?}");
    let missing = follow(&node, "", None).await.map(drop);
    assert_eq!(missing, Err(Error::not_found(Missing::Bucket, "b")));

    node.create_bucket(name(), PolicyPatch::default(), None).await.unwrap();
    let again = follow(&node, "", Some(written)).await.map(drop);
    assert!(matches!(again, Err(Error::RevisionGone { .. })), "of the bucket before: {again:?}");
    let mut watch = follow(&node, "", Some(0)).await.unwrap();
    let waiting = tokio::spawn(async move { next(&mut watch).await });
    node.begin_shutdown();
    assert!(matches!(waiting.await.unwrap(), Event::End(Reason::Shutdown, _)));
    node.shutdown().await.unwrap();
}
