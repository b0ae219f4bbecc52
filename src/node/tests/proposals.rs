//! Many commands as one message, on a real node: each has its outcome, once.

use super::*;
use crate::encoding;
use crate::kv::{Command, CommandId, Effect};
use crate::raft::{Proposal, Proposer, Verdict};

const SOON: Duration = Duration::from_secs(20);

/// Commands in a row that change nothing, with these terms.
async fn propose(node: &Node, terms: [u64; 4]) -> Vec<Verdict> {
    let name = BucketName::parse("b").unwrap();
    let view = node.state().view();
    let bucket = store::bucket_id(&*view, &name).unwrap().unwrap();
    let mut prev = store::meta(&*view, bucket).unwrap().unwrap().head;
    let (sender, mut verdicts) = tokio::sync::mpsc::unbounded_channel();
    let mut proposals = Vec::new();
    for (number, term) in terms.into_iter().enumerate() {
        let id = CommandId { term, seq: (1 << 60) + number as u64 };
        let command =
            Command { bucket, prev, id, now: 0, seed: 0, effect: Effect::Write(Vec::new()) };
        prev = id;
        let (payload, sender) = (encoding::encode(&command).unwrap().into(), sender.clone());
        let done = Box::new(move |verdict| sender.send((number, verdict)).unwrap());
        proposals.push(Proposal { payload, done });
    }
    drop(sender);
    let proposer = Proposer::new(node.cluster().raft().clone());
    tokio::task::spawn_blocking(move || proposer.propose(proposals)).await.unwrap();
    let mut told = Vec::new();
    while let Some((number, verdict)) =
        tokio::time::timeout(SOON, verdicts.recv()).await.expect("an outcome")
    {
        assert_eq!(number, told.len(), "outcomes in their order, each once");
        told.push(verdict);
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_of_a_message_has_its_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&dir, 1).await.remove(0);
    let name = BucketName::parse("b").unwrap();
    let first = node.create_bucket(name, PolicyPatch::default(), None).await.unwrap().revision;
    let term = node.cluster().leadership().borrow().own_term.unwrap();

    // What was executed in another term is appended and changes nothing; nor does what stands on it.
    let told = propose(&node, [term, term + 1, term, term]).await;
    let applied = Verdict::Applied { revision: first + 1 };
    let conflict = Verdict::Conflict;
    assert_eq!(told, [applied, conflict.clone(), conflict.clone(), conflict]);

    node.cluster().shutdown().await.unwrap();
    let told = propose(&node, [term; 4]).await;
    assert!(told.iter().all(|verdict| matches!(verdict, Verdict::Unknown(_))), "{told:?}");
    assert_eq!(told.len(), 4);
}
