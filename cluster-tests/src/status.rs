//! What a node says of itself.

use serde::Deserialize;

/// The answer of `GET /-/cluster`.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// The node that answered.
    pub node_id: u64,
    /// `leader`, `follower`, `learner` or `candidate`.
    pub state: String,
    /// Who leads, as far as this node knows.
    pub leader: Option<u64>,
    /// The term that it is in.
    pub term: u64,
    /// The end of its log.
    pub last_log_index: Option<u64>,
    /// Committed as far as it knows.
    pub committed_index: Option<u64>,
    /// Applied here.
    pub applied_index: Option<u64>,
    /// Covered by its last snapshot.
    pub snapshot_index: Option<u64>,
    /// The log is gone up to here.
    pub purged_index: Option<u64>,
    /// All members that it knows.
    pub members: Vec<Member>,
}

impl Status {
    /// The ids of the members with a role, in order.
    #[must_use]
    pub fn ids(&self, role: &str) -> Vec<u64> {
        let mut ids: Vec<u64> =
            self.members.iter().filter(|member| member.role == role).map(|m| m.id).collect();
        ids.sort_unstable();
        ids
    }
}

/// A member of the cluster.
#[derive(Clone, Debug, Deserialize)]
pub struct Member {
    /// Its node id.
    pub id: u64,
    /// `voter` or `learner`.
    pub role: String,
}

/// The answer of `GET /-/digest`: one view of a node's own state.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Digest {
    /// The log index that the view stands at.
    pub applied_index: u64,
    /// Of everything.
    pub digest: String,
    /// Of each bucket.
    pub buckets: Vec<BucketDigest>,
}

impl Digest {
    /// A bucket's part.
    ///
    /// # Panics
    /// When there is no such bucket.
    #[must_use]
    pub fn bucket(&self, name: &str) -> &BucketDigest {
        let bucket = self.buckets.iter().find(|bucket| bucket.name == name);
        bucket.unwrap_or_else(|| panic!("no bucket `{name}` in {self:?}"))
    }
}

/// A bucket's part of a digest.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct BucketDigest {
    /// Its name.
    pub name: String,
    /// Its revision.
    pub revision: u64,
    /// Its keys.
    pub keys: u64,
    /// Of its rows.
    pub digest: String,
}
