//! openraft's type configuration, and short names for the types that follow from it.
//!
//! An entry's data is a [`Payload`]: a command that was encoded once, by its proposer. The log, the
//! network and every follower pass the same bytes on; only the state machine decodes them.
//!
//! One leader per term (`leader_id_std`): a term alone names a leader, and a committed log id is
//! `(term, index)`.

use std::fmt;

use bytes::Bytes;
use openraft::RaftTypeConfig;
use openraft::type_config::alias;
use openraft::vote::RaftLeaderId;
use serde::{Deserialize, Serialize};

use crate::kv::Outcome;

/// A node's number, unique for ever in a cluster.
pub type NodeId = u64;
/// A term's number.
pub type Term = u64;

/// openraft's configuration of types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

impl RaftTypeConfig for TypeConfig {
    type D = Payload;
    type R = Response;
    type NodeId = NodeId;
    type Node = Peer;
    type Term = Term;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = EntryPayload;
    type Entry = Entry;
    type AsyncRuntime = Runtime;
    type Responder<T>
        = openraft::impls::OneshotResponder<TypeConfig, T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

type Runtime = openraft::impls::TokioRuntime;

/// Who leads: a term and the node voted for in it.
pub type LeaderId = openraft::impls::leader_id_std::LeaderId<Term, NodeId>;
/// Who led when an entry was made: its term, since a term has one leader.
pub type CommittedLeaderId = <LeaderId as RaftLeaderId>::Committed;
/// A position in the log: term and index.
pub type LogId = alias::LogIdOf<TypeConfig>;
/// A vote: a leader id, and whether a quorum granted it.
pub type Vote = openraft::impls::Vote<LeaderId>;
/// A log entry: its id, and a command, a membership or nothing.
pub type Entry = openraft::Entry<CommittedLeaderId, EntryPayload>;
/// What an entry holds.
pub type EntryPayload = openraft::EntryPayload<Payload, NodeId, Peer>;
/// Voters and learners.
pub type Membership = openraft::Membership<NodeId, Peer>;
/// A membership and the log id that made it.
pub type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot covers.
pub type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
/// A snapshot with its data.
pub type Snapshot<D> = alias::SnapshotOf<TypeConfig, D>;
/// A handle on consensus with the state machine `SM`.
pub type Raft<SM> = openraft::Raft<TypeConfig, SM>;
/// Why a write was not applied, or not for certain.
pub type ClientWriteError = openraft::errors::ClientWriteError<TypeConfig>;
/// What became of one of many writes.
pub type WriteResult = openraft::raft::WriteResult<TypeConfig>;
/// To be called when a write is on disk.
pub type IOFlushed = openraft::storage::IOFlushed<TypeConfig>;

/// The log id at an index of a term.
#[must_use]
pub fn log_id(term: Term, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term), index)
}

/// An encoded [`crate::kv::Command`].
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload(pub Bytes);

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Payload(Bytes::from(bytes))
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

// A user's data must not reach a log line.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({self})")
    }
}

/// What applying an entry answers: nothing for an entry that holds no command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response(pub Option<Outcome>);

/// Where a member is reached. Kept in the membership, so that every node knows all the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Peer {
    /// Host and port of its peer listener.
    pub peer_addr: String,
    /// The URL that clients reach it at.
    pub url: String,
    /// Made at random with its data directory: another disk under the same node id is another
    /// instance.
    pub instance: String,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.peer_addr, self.url)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use openraft::impls::OneshotResponder;

    use super::*;
    use crate::raft::log_store::LogStore;
    use crate::raft::testing::{Machine, NoNetwork};

    #[test]
    fn payload_shows_only_its_length() {
        let payload = Payload::from(b"secret".to_vec());
        assert_eq!(format!("{payload} {payload:?}"), "6 bytes Payload(6 bytes)");
    }

    /// A running node of its own on a log in a directory.
    async fn node(log: LogStore) -> Raft<Machine> {
        let config = openraft::Config { heartbeat_interval: 50, ..Default::default() };
        let raft =
            Raft::new(1, Arc::new(config), NoNetwork, log, Machine::default()).await.unwrap();
        if !raft.is_initialized().await.unwrap() {
            raft.initialize(BTreeMap::from([(1, Peer::default())])).await.unwrap();
        }
        // Metrics name the leader a moment before it leads.
        while raft.as_leader().is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        raft
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_task_proposes_in_order_and_each_is_told_its_outcome() {
        let dir = tempfile::tempdir().unwrap();
        let log = LogStore::open(dir.path()).unwrap();
        let raft = node(log.clone()).await;
        let term = raft.as_leader().unwrap().term();
        let mut outcomes = Vec::new();
        let before = log.fsyncs();
        for _ in 0..1_000 {
            let (responder, outcome) = OneshotResponder::new_pair();
            raft.write(Payload::from(vec![0; 300]))
                .with_leader(CommittedLeaderId::new(term))
                .responder(responder)
                .await
                .unwrap();
            outcomes.push(outcome);
        }
        let mut last = 0;
        for outcome in outcomes {
            let answer = outcome.await.unwrap().unwrap();
            assert!(answer.log_id.index > last);
            last = answer.log_id.index;
            assert_eq!(answer.data.0, Some(Outcome::Applied { revision: last }));
        }
        let fsyncs = log.fsyncs() - before;
        assert!(fsyncs < 250, "{fsyncs} syncs for 1000 writes");
        raft.shutdown().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn node_leads_again_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        for round in 1..4 {
            let log = LogStore::open(dir.path()).unwrap();
            assert_eq!(log.is_empty().unwrap(), round == 1);
            let raft = node(log.clone()).await;
            let written = raft.client_write(Payload::default()).await;
            assert!(written.is_ok(), "round {round}: {written:?}");
            raft.shutdown().await.unwrap();
            log.close().unwrap();
        }
    }
}
