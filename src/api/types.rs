//! The JSON bodies of requests and answers.

use serde::{Deserialize, Serialize};

use super::error::Applied;

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

/// What `GET /-/cluster` answers: the cluster as the node asked sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The cluster's identity, the same on every member.
    pub cluster_id: String,
    /// The node that answers.
    pub node_id: u64,
    /// `leader`, `follower`, `learner` or `candidate`.
    pub state: String,
    /// The leader's node id, where known.
    pub leader: Option<u64>,
    /// The leader's base URL for clients, where known.
    pub leader_url: Option<String>,
    /// The node's term.
    pub term: u64,
    /// The last entry in its log.
    pub last_log_index: u64,
    /// The last entry that it knows to be on a quorum.
    pub committed_index: u64,
    /// The last entry in its state.
    pub applied_index: u64,
    /// The last entry in its newest snapshot; 0 for none.
    pub snapshot_index: u64,
    /// The last entry purged from its log; 0 for none.
    pub purged_index: u64,
    /// All members.
    pub members: Vec<Member>,
}

/// What `GET /-/digest` answers: the state of the node asked, in one view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// The log entry that the state stands on.
    pub applied_index: u64,
    /// A digest of everything, in hex: equal on all replicas at the same index.
    pub digest: String,
    /// Each bucket.
    pub buckets: Vec<BucketDigest>,
}

/// A bucket's part of a [`Digest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketDigest {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: u64,
    /// Its revision.
    pub revision: u64,
    /// How many keys it has.
    pub keys: u64,
    /// The bytes of its keys and values.
    pub bytes: u64,
    /// A digest of its rows, in hex.
    pub digest: String,
}

/// An error's body where JSON is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// The name of an [`ErrorCode`](super::ErrorCode).
    pub code: String,
    /// One line for people.
    pub message: String,
    /// Whether the same call may be sent again by itself.
    pub retryable: bool,
    /// What became of the call.
    pub applied: Applied,
    /// The Lua stack, shown only to a bucket's owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceback: Option<String>,
}

/// The body of `POST /`, as a form or as JSON. Unknown fields are ignored.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NewBucket {
    /// The name; an unguessable one is made where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The owner's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_key: Option<String>,
    /// The key for writing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_key: Option<String>,
    /// The key for reading.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_key: Option<String>,
    /// Whom to write to about the bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The key that tokens are signed with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<String>,
    /// Seconds that a key lives; 0 is for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_ttl: Option<u64>,
    /// Keys that the bucket may hold; 0 is as many as the node lets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_keys: Option<u64>,
    /// Bytes of keys and values that the bucket may hold; 0 is as many as the node lets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
}

// Holds keys: never logged.
impl std::fmt::Debug for NewBucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewBucket").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What `POST /` answers where JSON is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketCreated {
    /// The bucket's name.
    pub id: String,
}

/// What `GET /BUCKET?policy` answers: the policy without its keys, and how much the bucket holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketInfo {
    /// The bucket's name.
    pub id: String,
    /// Its revision.
    pub revision: u64,
    /// Keys in it; those included whose time is over and that are not swept yet.
    pub keys: u64,
    /// Bytes of keys and values, as they are stored.
    pub bytes: u64,
    /// Scripts in it.
    pub scripts: u64,
    /// Tokens that are out.
    pub tokens: u64,
    /// Seconds that a key lives; 0 is for ever.
    pub default_ttl: u64,
    /// Keys that it may hold; 0 is as many as the node lets it.
    pub max_keys: u64,
    /// Bytes that it may hold; 0 is as many as the node lets it.
    pub max_bytes: u64,
    /// Whom to write to about it.
    pub email: Option<String>,
    /// Whether it has a secret key.
    pub has_secret_key: bool,
    /// Whether it has a write key.
    pub has_write_key: bool,
    /// Whether it has a read key.
    pub has_read_key: bool,
    /// How many signing keys are live: two while one is changed.
    pub signing_keys: usize,
}

/// What `POST /BUCKET/tokens/` answers where JSON is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenMinted {
    /// The token.
    pub access_token: String,
}

/// A token in a list of tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenInfo {
    /// What revokes it.
    pub id: String,
    /// Only keys that begin with this.
    pub prefix: String,
    /// The words for what it permits.
    pub permissions: Vec<String>,
    /// When it ends, in milliseconds since 1970.
    pub expires_at: u64,
}

/// A script in a list of scripts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptInfo {
    /// Its name.
    pub name: String,
    /// The revision of its upload.
    pub version: u64,
    /// The length of its source.
    pub bytes: u64,
    /// The SHA-256 of its source, in hex.
    pub sha256: String,
    /// Whether it may not write, and every node runs it.
    #[serde(default)]
    pub readonly: bool,
    /// `caller`, or `owner` where its scope begins as the whole bucket.
    #[serde(default)]
    pub run_as: String,
}

/// What `GET /BUCKET/scripts/NAME?metrics` answers: of the node that is asked, since it started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScriptMetrics {
    /// Runs, those included that were run again.
    pub calls: u64,
    /// Runs that failed.
    pub errors: u64,
    /// Runs that had to be run again, because what they stood on was lost.
    pub conflicts: u64,
    /// Fuel of all runs.
    pub fuel: u64,
    /// Time of all runs, in seconds.
    pub seconds_total: f64,
    /// Time of the longest run, in seconds.
    pub seconds_max: f64,
}

/// The body of `POST /-/cluster/members`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddMember {
    /// Where the new node listens for peers.
    pub peer_addr: String,
}

/// The body of `POST /-/cluster/leader`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferLeader {
    /// The node id of the voter that is to lead.
    pub to: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_on_the_wire() {
        let detail = ErrorDetail {
            code: "no_leader".to_owned(),
            message: "no leader: election".to_owned(),
            retryable: true,
            applied: Applied::No,
            traceback: None,
        };
        assert_eq!(
            serde_json::to_string(&ErrorBody { error: detail }).unwrap(),
            r#"{"error":{"code":"no_leader","message":"no leader: election","retryable":true,"applied":"no"}}"#
        );
    }

    #[test]
    fn a_new_bucket_ignores_what_it_does_not_know_and_shows_no_key() {
        let new: NewBucket =
            serde_json::from_str(r#"{"id":"b","secret_key":"hunter2","x":1}"#).unwrap();
        assert_eq!(new.id.as_deref(), Some("b"));
        assert!(!format!("{new:?}").contains("hunter2"));
        assert_eq!(serde_json::to_string(&NewBucket::default()).unwrap(), "{}");
    }
}
