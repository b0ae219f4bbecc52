//! What a node says of itself: the cluster as it sees it, and digests of its state.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::Node;
use crate::encoding;
use crate::error::Result;
use crate::kv::store;
use crate::raft::{MemberInfo, applied_index};

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Node id.
    pub id: u64,
    /// `voter` or `learner`.
    pub role: String,
    /// Where its peers reach it.
    pub peer_addr: String,
    /// Where clients reach it: a base URL without a slash at the end.
    pub url: String,
}

impl From<MemberInfo> for Member {
    fn from(member: MemberInfo) -> Self {
        let role = if member.voter { "voter" } else { "learner" }.to_owned();
        let crate::raft::Peer { peer_addr, url, .. } = member.peer;
        Member { id: member.id, role, peer_addr, url }
    }
}

/// The cluster as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The cluster's random name; empty before the node belongs to one.
    pub cluster_id: String,
    /// This node.
    pub node_id: u64,
    /// `leader`, `follower`, `candidate`, `learner` or `shutdown`.
    pub state: String,
    /// The leader's node id.
    pub leader: Option<u64>,
    /// Where clients reach the leader.
    pub leader_url: Option<String>,
    /// The term.
    pub term: u64,
    /// The last entry in this node's log.
    pub last_log_index: u64,
    /// The last entry that it knows to be committed.
    pub committed_index: u64,
    /// The last entry that it has applied.
    pub applied_index: u64,
    /// The last entry in its snapshot.
    pub snapshot_index: u64,
    /// The last entry purged from its log.
    pub purged_index: u64,
    /// All members, by id.
    pub members: Vec<Member>,
}

/// Digests of this node's state at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// The last entry in that state.
    pub applied_index: u64,
    /// A hash over everything below: 32 hexadecimal digits.
    pub digest: String,
    /// Each bucket's, the directory (without a name) first.
    pub buckets: Vec<BucketDigest>,
}

/// Digest of one bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketDigest {
    /// Its name.
    pub name: String,
    /// Its number: the log index of its creation.
    pub id: u64,
    /// Its revision.
    pub revision: u64,
    /// Keys in it.
    pub keys: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// The sum of its rows' hashes: 32 hexadecimal digits.
    pub digest: String,
}

impl Node {
    /// The cluster as this node sees it.
    #[must_use]
    pub fn status(&self) -> Status {
        let standing = self.cluster().standing();
        let members: Vec<Member> =
            self.cluster().members().into_iter().map(Member::from).collect();
        let leader = members.iter().find(|member| Some(member.id) == standing.leader);
        Status {
            cluster_id: self.identity().cluster_id().unwrap_or_default().to_owned(),
            node_id: self.identity().node_id,
            state: standing.state.to_owned(),
            leader: standing.leader,
            leader_url: leader.map(|leader| leader.url.clone()),
            term: standing.term,
            last_log_index: standing.last_log_index,
            committed_index: standing.committed_index,
            applied_index: standing.applied_index,
            snapshot_index: standing.snapshot_index,
            purged_index: standing.purged_index,
            members,
        }
    }

    /// Digests of the local state, all of one moment. Equal on two nodes at the same applied index, or
    /// one of them is damaged.
    pub fn digest(&self) -> Result<Digest> {
        let view = self.state().view();
        let metas = store::buckets(&*view)?;
        let applied_index = applied_index(&*view)?;
        let digest = format!("{:032x}", xxh3_128(&encoding::encode(&metas)?));
        let buckets = metas
            .into_iter()
            .map(|(id, meta)| BucketDigest {
                name: meta.name,
                id: id.0,
                revision: meta.revision,
                keys: meta.keys,
                bytes: meta.bytes,
                digest: format!("{:032x}", meta.digest),
            })
            .collect();
        Ok(Digest { applied_index, digest, buckets })
    }
}
