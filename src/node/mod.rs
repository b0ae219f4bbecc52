//! The façade. (skeleton of the public surface)
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;

pub use crate::api::{BucketDigest, Digest, Member, Status};
use crate::config::Config;
use crate::error::Result;
use crate::kv::{
    Answer, BucketName, Credential, Operation, PolicyRequest, ScriptName, Transaction,
};
use crate::script;

/// What may be asked of a bucket's executor.
#[derive(Clone, Debug)]
pub enum Request {
    /// A change that is no script.
    Operation(Operation),
    /// A script call.
    Run(ScriptCall),
}

/// A script call as it came in; the script itself is read in the transaction.
#[derive(Clone, Debug)]
pub struct ScriptCall {
    /// Which script.
    pub name: ScriptName,
    /// `kvdb.var`, `remote_addr` included.
    pub vars: BTreeMap<String, String>,
    /// `kvdb.req`.
    pub request: script::Request,
}

/// Who leads, as far as this node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// This node.
    Own,
    /// Another.
    Other(Member),
    /// Nobody known.
    Unknown,
}

/// A request as a follower hands it to the leader.
#[derive(Clone, Debug)]
pub struct Forwarded {
    /// Method.
    pub method: http::Method,
    /// Path and query as sent.
    pub path_and_query: String,
    /// Headers as sent, credentials included.
    pub headers: http::HeaderMap,
    /// Whole body.
    pub body: Bytes,
    /// The client's address.
    pub remote_addr: String,
    /// How many nodes forwarded it before.
    pub hops: u8,
}

/// Runs a request that a peer handed on, as if it had come to this node's public listener.
pub type ForwardTarget =
    Arc<dyn Fn(Forwarded) -> BoxFuture<'static, Result<http::Response<Bytes>>> + Send + Sync>;

/// A node of the cluster.
#[derive(Clone)]
pub struct Node {
    _inner: Arc<()>,
}

impl Node {
    /// Opens the data, joins or starts the cluster and serves peers; returns before it is ready.
    pub async fn start(_config: &Config) -> Result<Node> {
        todo!()
    }
    /// Sets what runs the requests that peers hand on; until then they are answered `Overloaded`.
    pub fn set_forward_target(&self, _target: ForwardTarget) {
        todo!()
    }
    /// Not ready from now on; hands leadership to another voter in the background. Requests are still
    /// served. Idempotent.
    pub fn begin_shutdown(&self) {
        todo!()
    }
    /// Waits until leadership is handed over (bounded), then stops Raft and the executors, and
    /// flushes the state. Call it once no request is under way.
    pub async fn shutdown(&self) -> Result<()> {
        todo!()
    }
    /// Runs a request as one command; only on the leader. `Err(NotLeader)` means that nothing was proposed.
    pub async fn execute(
        &self,
        _bucket: &BucketName,
        _request: Request,
        _credential: Credential,
    ) -> Result<Answer> {
        todo!()
    }
    /// Creates a bucket; only on the leader. The answer's revision is the bucket's first.
    pub async fn create_bucket(&self, _name: BucketName, _policy: PolicyRequest) -> Result<Answer> {
        todo!()
    }
    /// 22 unguessable characters.
    pub fn random_bucket_name(&self) -> BucketName {
        todo!()
    }
    /// A linearizable view of a bucket, on any node (ReadIndex); authority is then judged in it by
    /// `txn.policy()?.grant(&credential)?`. Its revision is `read_revision()`.
    pub async fn read(&self, _bucket: &BucketName) -> Result<Transaction> {
        todo!()
    }
    /// Who leads.
    pub fn leadership(&self) -> Leadership {
        todo!()
    }
    /// Has the leader (over the peer link, or this node) check the credential in the bucket's current policy and
    /// issue a single-use ticket for exactly this method, path and query.
    pub async fn issue_ticket(
        &self,
        _bucket: &BucketName,
        _method: &str,
        _path_and_query: &str,
        _credential: &Credential,
    ) -> Result<String> {
        todo!()
    }
    /// Takes a ticket that this node issued; `None` if unknown, used, expired or for another request.
    pub fn take_ticket(
        &self,
        _nonce: &str,
        _method: &str,
        _path_and_query: &str,
    ) -> Option<Credential> {
        todo!()
    }
    /// Sends a request to the leader over the peer link and answers what it answered. After the request may have
    /// been sent, a failure is `Error::Unknown` for methods that write; it never sends twice.
    pub async fn forward(&self, _request: Forwarded) -> Result<http::Response<Bytes>> {
        todo!()
    }
    /// Caught up once and not shutting down.
    pub fn is_ready(&self) -> bool {
        todo!()
    }
    /// Members, leader, indexes.
    pub fn status(&self) -> Status {
        todo!()
    }
    /// Digests of the local state.
    pub fn digest(&self) -> Result<Digest> {
        todo!()
    }
    /// Whether this is the admin key (constant time); false where none is configured.
    pub fn is_admin(&self, _credential: &Credential) -> bool {
        todo!()
    }
    /// Adds the node listening there as a learner. Leader only (`NotLeader` otherwise), as are the next three.
    pub async fn add_learner(&self, _peer_addr: &str) -> Result<()> {
        todo!()
    }
    /// Makes a learner a voter.
    pub async fn promote(&self, _id: u64) -> Result<()> {
        todo!()
    }
    /// Removes a member; its id never returns.
    pub async fn remove(&self, _id: u64) -> Result<()> {
        todo!()
    }
    /// Hands leadership to a voter.
    pub async fn transfer_leader(&self, _to: u64) -> Result<()> {
        todo!()
    }
    /// Takes a snapshot on this node now and purges the log behind it.
    pub async fn snapshot(&self) -> Result<()> {
        todo!()
    }
}
