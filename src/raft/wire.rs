//! What goes to disk and to peers in place of openraft's structs, which change between releases.
//!
//! Each type here converts from and to its openraft counterpart. Those that hold a membership come
//! back by `TryFrom`, since bytes can say what no membership may say (a voter without an address).
//! Peers exchange them through [`crate::encoding`]; the log writes a [`Vote`], a [`LogId`] and a
//! [`Body`] in its own layout (see `log_store`), in which a command stays the bytes that
//! its proposer made.
//!
//! Invariants:
//! - The layout of a type never changes: another layout is another type and another version of
//!   [`crate::encoding::FORMAT`] or of the peer protocol. The golden bytes below guard it.
//! - Variants are numbered by position: never reorder them, add at the end.
//!
//! A field that openraft adds to a message breaks the build here, where it must be decided on.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use openraft::raft::{self, StreamAppendError, TransferLeaderError};
use serde::{Deserialize, Serialize};

use super::types::{self, NodeId, Payload, Peer, Term, TypeConfig};
use crate::error::{Error, Result};

/// A position in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogId {
    /// The term of the leader that made the entry.
    pub term: Term,
    /// Its index, from 0.
    pub index: u64,
}

/// A vote, or a leader's claim once it is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// The term.
    pub term: Term,
    /// The node voted for.
    pub node: NodeId,
    /// Whether a quorum granted it.
    pub committed: bool,
}

/// Raft's own order: two nodes' votes in one term do not compare.
impl PartialOrd for Vote {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        types::Vote::from(*self).partial_cmp(&types::Vote::from(*other))
    }
}

/// A log entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it is.
    pub log_id: LogId,
    /// What it holds.
    pub body: Body,
}

/// What a log entry holds.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Nothing: a new leader's first entry.
    Blank,
    /// An encoded [`crate::kv::Command`].
    Command(Bytes),
    /// A change of membership.
    Membership(Membership),
}

// A user's data must not reach a log line.
impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Body::Blank => f.write_str("Blank"),
            Body::Command(bytes) => write!(f, "Command({} bytes)", bytes.len()),
            Body::Membership(membership) => write!(f, "{membership:?}"),
        }
    }
}

/// Voters and learners.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// One set of voters, or two while the voters change.
    pub configs: Vec<BTreeSet<NodeId>>,
    /// Every member; who is in no set of voters is a learner.
    pub nodes: BTreeMap<NodeId, Peer>,
}

/// A membership and the entry that made it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredMembership {
    /// The entry; none before the first.
    pub log_id: Option<LogId>,
    /// The membership.
    pub membership: Membership,
}

/// What a snapshot covers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotMeta {
    /// The last entry applied.
    pub last_log_id: Option<LogId>,
    /// The last membership applied.
    pub last_membership: StoredMembership,
}

/// The answer to a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotResponse {
    /// The answering node's vote.
    pub vote: Vote,
}

/// Entries for a follower; none in a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendEntriesRequest {
    /// The leader's vote.
    pub vote: Vote,
    /// The entry before the first.
    pub prev_log_id: Option<LogId>,
    /// The entries, without a gap.
    pub entries: Vec<Entry>,
    /// Up to where the leader knows entries to be committed.
    pub leader_commit: Option<LogId>,
}

/// The answer to entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppendEntriesResponse {
    /// All are on disk.
    Success,
    /// Those up to here are on disk.
    PartialSuccess(Option<LogId>),
    /// The follower has another entry at `prev_log_id`.
    Conflict,
    /// The follower saw a higher vote.
    HigherVote(Vote),
}

/// The answer to one request of a stream of them; a failure is the stream's last answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamAppendResult {
    /// The logs are equal up to here.
    Matching(Option<LogId>),
    /// The follower has another entry here.
    Conflict(LogId),
    /// The follower saw a higher vote.
    HigherVote(Vote),
}

/// A candidate's request for a vote, or for a promise of one (pre-vote).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteRequest {
    /// The candidate's vote.
    pub vote: Vote,
    /// Its last entry.
    pub last_log_id: Option<LogId>,
    /// Whether the leader handed over to it, so that its lease does not count.
    pub leadership_transfer: bool,
}

/// The answer to a request for a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteResponse {
    /// The voter's vote.
    pub vote: Vote,
    /// Whether it is given.
    pub granted: bool,
    /// The voter's last entry.
    pub last_log_id: Option<LogId>,
}

/// A leader's request that another node should lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferLeaderRequest {
    /// The leader's vote.
    pub from: Vote,
    /// Who is to lead.
    pub to: NodeId,
    /// What it must have on disk first.
    pub last_log_id: Option<LogId>,
}

/// The answer to a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransferLeaderResponse {
    /// An election begins.
    Accepted,
    /// Somebody else leads by now.
    VoteChanged {
        /// The vote in the request.
        expected: Vote,
        /// The node's vote.
        actual: Vote,
    },
    /// The node does not have all entries on disk.
    LogNotFlushed {
        /// The entry in the request.
        expected: Option<LogId>,
        /// The node's last on disk.
        actual: Option<LogId>,
    },
}

impl From<types::LogId> for LogId {
    fn from(id: types::LogId) -> Self {
        LogId { term: id.leader_id.term, index: id.index }
    }
}

impl From<LogId> for types::LogId {
    fn from(id: LogId) -> Self {
        types::log_id(id.term, id.index)
    }
}

impl From<types::Vote> for Vote {
    fn from(vote: types::Vote) -> Self {
        let types::Vote { leader_id, committed } = vote;
        Vote { term: leader_id.term, node: leader_id.voted_for, committed }
    }
}

impl From<Vote> for types::Vote {
    fn from(vote: Vote) -> Self {
        let leader_id = types::LeaderId { term: vote.term, voted_for: vote.node };
        types::Vote { leader_id, committed: vote.committed }
    }
}

impl From<types::Entry> for Entry {
    fn from(entry: types::Entry) -> Self {
        Entry { log_id: entry.log_id.into(), body: entry.payload.into() }
    }
}

impl TryFrom<Entry> for types::Entry {
    type Error = Error;

    fn try_from(entry: Entry) -> Result<Self> {
        Ok(types::Entry { log_id: entry.log_id.into(), payload: entry.body.try_into()? })
    }
}

impl From<types::EntryPayload> for Body {
    fn from(payload: types::EntryPayload) -> Self {
        match payload {
            types::EntryPayload::Blank => Body::Blank,
            types::EntryPayload::Normal(Payload(bytes)) => Body::Command(bytes),
            types::EntryPayload::Membership(membership) => Body::Membership((&membership).into()),
        }
    }
}

impl TryFrom<Body> for types::EntryPayload {
    type Error = Error;

    fn try_from(body: Body) -> Result<Self> {
        Ok(match body {
            Body::Blank => types::EntryPayload::Blank,
            Body::Command(bytes) => types::EntryPayload::Normal(Payload(bytes)),
            Body::Membership(membership) => types::EntryPayload::Membership(membership.try_into()?),
        })
    }
}

impl From<&types::Membership> for Membership {
    fn from(membership: &types::Membership) -> Self {
        Membership {
            configs: membership.get_joint_config().clone(),
            nodes: membership.nodes().map(|(id, peer)| (*id, peer.clone())).collect(),
        }
    }
}

impl TryFrom<Membership> for types::Membership {
    type Error = Error;

    fn try_from(membership: Membership) -> Result<Self> {
        types::Membership::new(membership.configs, membership.nodes)
            .map_err(|e| Error::corrupt("membership", e))
    }
}

impl From<&types::StoredMembership> for StoredMembership {
    fn from(stored: &types::StoredMembership) -> Self {
        StoredMembership {
            log_id: (*stored.log_id()).map(LogId::from),
            membership: stored.membership().into(),
        }
    }
}

impl TryFrom<StoredMembership> for types::StoredMembership {
    type Error = Error;

    fn try_from(stored: StoredMembership) -> Result<Self> {
        let log_id = stored.log_id.map(types::LogId::from);
        Ok(types::StoredMembership::new(log_id, stored.membership.try_into()?))
    }
}

impl From<&types::SnapshotMeta> for SnapshotMeta {
    fn from(meta: &types::SnapshotMeta) -> Self {
        let types::SnapshotMeta { last_log_id, last_membership } = meta;
        SnapshotMeta {
            last_log_id: last_log_id.map(LogId::from),
            last_membership: last_membership.into(),
        }
    }
}

impl TryFrom<SnapshotMeta> for types::SnapshotMeta {
    type Error = Error;

    fn try_from(meta: SnapshotMeta) -> Result<Self> {
        Ok(types::SnapshotMeta {
            last_log_id: meta.last_log_id.map(types::LogId::from),
            last_membership: meta.last_membership.try_into()?,
        })
    }
}

impl From<raft::SnapshotResponse<TypeConfig>> for SnapshotResponse {
    fn from(response: raft::SnapshotResponse<TypeConfig>) -> Self {
        let raft::SnapshotResponse { vote } = response;
        SnapshotResponse { vote: vote.into() }
    }
}

impl From<SnapshotResponse> for raft::SnapshotResponse<TypeConfig> {
    fn from(response: SnapshotResponse) -> Self {
        raft::SnapshotResponse { vote: response.vote.into() }
    }
}

impl From<raft::AppendEntriesRequest<TypeConfig>> for AppendEntriesRequest {
    fn from(request: raft::AppendEntriesRequest<TypeConfig>) -> Self {
        let raft::AppendEntriesRequest { vote, prev_log_id, entries, leader_commit } = request;
        AppendEntriesRequest {
            vote: vote.into(),
            prev_log_id: prev_log_id.map(LogId::from),
            entries: entries.into_iter().map(Entry::from).collect(),
            leader_commit: leader_commit.map(LogId::from),
        }
    }
}

impl TryFrom<AppendEntriesRequest> for raft::AppendEntriesRequest<TypeConfig> {
    type Error = Error;

    fn try_from(request: AppendEntriesRequest) -> Result<Self> {
        Ok(raft::AppendEntriesRequest {
            vote: request.vote.into(),
            prev_log_id: request.prev_log_id.map(types::LogId::from),
            entries: request
                .entries
                .into_iter()
                .map(types::Entry::try_from)
                .collect::<Result<_>>()?,
            leader_commit: request.leader_commit.map(types::LogId::from),
        })
    }
}

impl From<raft::AppendEntriesResponse<TypeConfig>> for AppendEntriesResponse {
    fn from(response: raft::AppendEntriesResponse<TypeConfig>) -> Self {
        match response {
            raft::AppendEntriesResponse::Success => Self::Success,
            raft::AppendEntriesResponse::PartialSuccess(id) => {
                Self::PartialSuccess(id.map(LogId::from))
            }
            raft::AppendEntriesResponse::Conflict => Self::Conflict,
            raft::AppendEntriesResponse::HigherVote(vote) => Self::HigherVote(vote.into()),
        }
    }
}

impl From<AppendEntriesResponse> for raft::AppendEntriesResponse<TypeConfig> {
    fn from(response: AppendEntriesResponse) -> Self {
        match response {
            AppendEntriesResponse::Success => Self::Success,
            AppendEntriesResponse::PartialSuccess(id) => {
                Self::PartialSuccess(id.map(types::LogId::from))
            }
            AppendEntriesResponse::Conflict => Self::Conflict,
            AppendEntriesResponse::HigherVote(vote) => Self::HigherVote(vote.into()),
        }
    }
}

impl From<raft::StreamAppendResult<TypeConfig>> for StreamAppendResult {
    fn from(result: raft::StreamAppendResult<TypeConfig>) -> Self {
        match result {
            Ok(id) => Self::Matching(id.map(LogId::from)),
            Err(StreamAppendError::Conflict(id)) => Self::Conflict(id.into()),
            Err(StreamAppendError::HigherVote(vote)) => Self::HigherVote(vote.into()),
        }
    }
}

impl From<StreamAppendResult> for raft::StreamAppendResult<TypeConfig> {
    fn from(result: StreamAppendResult) -> Self {
        match result {
            StreamAppendResult::Matching(id) => Ok(id.map(types::LogId::from)),
            StreamAppendResult::Conflict(id) => Err(StreamAppendError::Conflict(id.into())),
            StreamAppendResult::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote.into())),
        }
    }
}

impl From<raft::VoteRequest<TypeConfig>> for VoteRequest {
    fn from(request: raft::VoteRequest<TypeConfig>) -> Self {
        let raft::VoteRequest { vote, last_log_id, leadership_transfer } = request;
        VoteRequest {
            vote: vote.into(),
            last_log_id: last_log_id.map(LogId::from),
            leadership_transfer,
        }
    }
}

impl From<VoteRequest> for raft::VoteRequest<TypeConfig> {
    fn from(request: VoteRequest) -> Self {
        raft::VoteRequest {
            vote: request.vote.into(),
            last_log_id: request.last_log_id.map(types::LogId::from),
            leadership_transfer: request.leadership_transfer,
        }
    }
}

impl From<raft::VoteResponse<TypeConfig>> for VoteResponse {
    fn from(response: raft::VoteResponse<TypeConfig>) -> Self {
        let raft::VoteResponse { vote, vote_granted, last_log_id } = response;
        VoteResponse {
            vote: vote.into(),
            granted: vote_granted,
            last_log_id: last_log_id.map(LogId::from),
        }
    }
}

impl From<VoteResponse> for raft::VoteResponse<TypeConfig> {
    fn from(response: VoteResponse) -> Self {
        raft::VoteResponse {
            vote: response.vote.into(),
            vote_granted: response.granted,
            last_log_id: response.last_log_id.map(types::LogId::from),
        }
    }
}

impl From<raft::TransferLeaderRequest<TypeConfig>> for TransferLeaderRequest {
    fn from(request: raft::TransferLeaderRequest<TypeConfig>) -> Self {
        TransferLeaderRequest {
            from: (*request.from_leader()).into(),
            to: *request.to_node_id(),
            last_log_id: request.last_log_id().copied().map(LogId::from),
        }
    }
}

impl From<TransferLeaderRequest> for raft::TransferLeaderRequest<TypeConfig> {
    fn from(request: TransferLeaderRequest) -> Self {
        let last_log_id = request.last_log_id.map(types::LogId::from);
        raft::TransferLeaderRequest::new(request.from.into(), request.to, last_log_id)
    }
}

impl From<raft::TransferLeaderResponse<TypeConfig>> for TransferLeaderResponse {
    fn from(response: raft::TransferLeaderResponse<TypeConfig>) -> Self {
        match response {
            Ok(()) => Self::Accepted,
            Err(TransferLeaderError::VoteChanged { expected, actual }) => {
                Self::VoteChanged { expected: expected.into(), actual: actual.into() }
            }
            Err(TransferLeaderError::LogNotFlushed { expected, actual }) => Self::LogNotFlushed {
                expected: expected.map(LogId::from),
                actual: actual.map(LogId::from),
            },
        }
    }
}

impl From<TransferLeaderResponse> for raft::TransferLeaderResponse<TypeConfig> {
    fn from(response: TransferLeaderResponse) -> Self {
        match response {
            TransferLeaderResponse::Accepted => Ok(()),
            TransferLeaderResponse::VoteChanged { expected, actual } => {
                Err(TransferLeaderError::VoteChanged {
                    expected: expected.into(),
                    actual: actual.into(),
                })
            }
            TransferLeaderResponse::LogNotFlushed { expected, actual } => {
                Err(TransferLeaderError::LogNotFlushed {
                    expected: expected.map(types::LogId::from),
                    actual: actual.map(types::LogId::from),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests;
