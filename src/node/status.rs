//! What a node says of itself: the cluster as it sees it, and digests of its state.

use xxhash_rust::xxh3::xxh3_128;

use super::Node;
use crate::api::{BucketDigest, Digest, Member, Status};
use crate::encoding;
use crate::error::Result;
use crate::kv::store;
use crate::mutant::{self, Mutant};
use crate::raft::{MemberInfo, applied_index};

impl From<MemberInfo> for Member {
    fn from(member: MemberInfo) -> Self {
        let role = if member.voter { "voter" } else { "learner" }.to_owned();
        let crate::raft::Peer { peer_addr, url, .. } = member.peer;
        Member { id: member.id, role, peer_addr, url }
    }
}

impl Node {
    /// The cluster as this node sees it.
    #[must_use]
    pub fn status(&self) -> Status {
        let standing = self.cluster().standing();
        let members: Vec<Member> = self.cluster().members().into_iter().map(Member::from).collect();
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

    /// Entries appended to the log since the start, and syncs that it took.
    #[must_use]
    pub fn log_activity(&self) -> (u64, u64) {
        (self.0.log.appended_entries(), self.0.log.fsyncs())
    }

    /// Messages of Raft sent to peers since the start, and their bytes.
    #[must_use]
    pub fn peer_traffic(&self) -> (u64, u64) {
        self.cluster().traffic()
    }

    /// Digests of the local state, all of one moment. Equal on two nodes at the same applied index, or
    /// one of them is damaged.
    pub fn digest(&self) -> Result<Digest> {
        let view = self.state().view();
        let mut metas = store::buckets(&*view)?;
        if mutant::is(Mutant::LyingDigest) {
            metas.iter_mut().for_each(|(_, meta)| meta.digest = 0);
        }
        let applied_index = applied_index(&*view)?;
        let digest = format!("{:032x}", xxh3_128(&encoding::encode(&metas)?));
        let buckets = metas
            .into_iter()
            .map(|(id, meta)| BucketDigest {
                name: meta.name,
                id: id.0,
                revision: meta.revision,
                keys: meta.counts.keys,
                bytes: meta.counts.bytes,
                digest: format!("{:032x}", meta.digest),
            })
            .collect();
        Ok(Digest { applied_index, digest, buckets })
    }
}
