//! The façade: everything the edge asks of a node. It owns the only clock and the only randomness.
//!
//! Writes and script calls go to the executor, on the leader only: [`Error::NotLeader`] means that
//! nothing was proposed. Reads are served by every node.

mod batched;
mod clock;
mod history;
mod join;
mod link;
mod nature;
mod peer;
mod read;
mod run;
mod start;
mod status;
#[cfg(test)]
mod tests;
mod ticket;
mod upkeep;
mod watch;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::sync::watch::{Receiver, Sender};

pub use crate::api::{BucketDigest, Digest, Member, Status};
use crate::error::{Error, Failure, Missing, Result};
use crate::executor::{self, Executor, Nature, Readers, ScriptStats, Stats};
pub use crate::executor::{ScriptCall, Told};
use crate::kv::{
    BucketId, BucketName, Credential, DIRECTORY, Once, Operation, PolicyPatch, ScriptName, grant,
    recorded, store, transaction,
};
use crate::raft::{
    CONNECT_TIMEOUT, Cluster, Leadership as Leads, LogStore, MemberInfo, NodeId, PeerIdentity,
};
use crate::storage::{DataDir, Identity, State};
use batched::Batched;
use clock::Clock;
pub use clock::Skew;
use link::{Hello, Links, ReadIndex, TicketAnswer, TicketRequest};
pub use read::Consistency;
pub use run::DryRun;
use ticket::Tickets;
pub use watch::{Change, Commit, Event, Kind, Reason, Watch};

/// How long a call may wait for its outcome; an election happens in less.
const EXECUTE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a new leader's first calls wait for it to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a leader that was followed by another may take for what it was asked before.
const SUPERSEDED: Duration = Duration::from_millis(500);

/// What may be asked of a bucket.
#[derive(Clone, Debug)]
pub enum Request {
    /// A change that is no script.
    Operation(Operation),
    /// A script call.
    Run(ScriptCall),
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
    /// How many nodes handed it on before.
    pub hops: u8,
}

/// What executes forwarded requests on the leader: the edge.
pub type ForwardTarget =
    Arc<dyn Fn(Forwarded) -> BoxFuture<'static, Result<http::Response<Bytes>>> + Send + Sync>;

/// A node of the cluster. Cheap to clone.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

struct Inner {
    data: DataDir,
    log: LogStore,
    /// Those who read the history take turns.
    history_turns: Arc<Semaphore>,
    /// The identity on disk; locked while it changes.
    stored_identity: Mutex<Identity>,
    identity: Arc<PeerIdentity>,
    state: Arc<State>,
    cluster: Cluster,
    executor: Arc<Executor>,
    readers: Arc<Readers>,
    stats: Arc<Stats>,
    nature: Arc<dyn Nature>,
    ready_term: Receiver<Option<u64>>,
    links: Links,
    /// Who waits for a read index.
    read_indexes: Batched<ReadIndex>,
    tickets: Tickets,
    clock: Arc<Clock>,
    skew: Sender<Option<Skew>>,
    clock_skew_max_ms: i64,
    admin_key: Option<String>,
    peer_addr: String,
    url: String,
    forward_target: OnceLock<ForwardTarget>,
    caught_up: AtomicBool,
    /// Whether the leader said that this node is no member.
    removed: AtomicBool,
    shutting_down: Sender<bool>,
    /// Ends when leadership is handed over.
    handover: Mutex<Option<tokio::task::JoinHandle<()>>>,
    /// Set once, by whatever makes this node unable to go on.
    failure: Sender<Option<String>>,
}

impl Node {
    /// Runs a request as one command; only on the leader. [`Error::NotLeader`] means that nothing was
    /// proposed.
    pub async fn execute(
        &self,
        bucket: &BucketName,
        request: Request,
        credential: Credential,
        once: Option<Once>,
    ) -> Told {
        self.ready().await?;
        let deletes = matches!(request, Request::Operation(Operation::DeleteBucket));
        let id = match self.bucket_id(bucket).await {
            Ok(id) => id,
            Err(error) => {
                return self.deleted_before(bucket, once.filter(|_| deletes), error).await;
            }
        };
        let request = match request {
            Request::Operation(operation) => executor::Request::Operation(operation, credential),
            Request::Run(call) => executor::Request::Run(call, credential),
        };
        match self.run(id, request, once.clone()).await {
            // The executor knows buckets by number.
            Err(Failure { error: Error::NotFound { what: Missing::Bucket, .. }, .. }) => {
                let error = Error::not_found(Missing::Bucket, bucket.as_str());
                self.deleted_before(bucket, once.filter(|_| deletes), error).await
            }
            other => other,
        }
    }

    /// What the deletion of a bucket that is gone is answered: what it was answered under the same
    /// `Idempotency-Key`, or that there is none.
    async fn deleted_before(&self, name: &BucketName, once: Option<Once>, error: Error) -> Told {
        let Some(once) = once else { return Err(error.into()) };
        let (view, now) = self.linearizable_view().await?;
        let directory = transaction::read_only(view, DIRECTORY, now)?;
        let mut directory = directory.ok_or(Error::Internal("no directory".to_owned()))?;
        recorded::find(&mut directory, &once.within(name.as_str()))?.ok_or(error.into())
    }

    /// Creates a bucket; only on the leader. The answer's revision is the bucket's first.
    pub async fn create_bucket(
        &self,
        name: BucketName,
        policy: PolicyPatch,
        once: Option<Once>,
    ) -> Told {
        self.ready().await?;
        self.run(DIRECTORY, executor::Request::CreateBucket(name, policy), once).await
    }

    async fn run(&self, bucket: BucketId, request: executor::Request, once: Option<Once>) -> Told {
        let outcome = self.0.executor.execute(bucket, request, once);
        tokio::time::timeout(EXECUTE_TIMEOUT, outcome).await.unwrap_or_else(|_| {
            Err(Error::Unknown(format!("no outcome within {} s", EXECUTE_TIMEOUT.as_secs())).into())
        })
    }

    /// Waits, if this node leads, until it has applied what came before its term.
    async fn ready(&self) -> Result<()> {
        if self.0.ready_term.borrow().is_some() {
            return Ok(());
        }
        let leadership = *self.0.cluster.leadership().borrow();
        if leadership.own_term.is_none() {
            return Err(Error::NotLeader { leader: leadership.leader });
        }
        let mut ready = self.0.ready_term.clone();
        let reached = ready.wait_for(Option::is_some);
        tokio::select! {
            reached = tokio::time::timeout(READY_TIMEOUT, reached) => match reached {
                Ok(Ok(_)) => Ok(()),
                _ => Err(Error::NoLeader("the new leader is not ready yet".to_owned())),
            },
            // It may have handed leadership on, rather than become ready.
            () = self.superseded(self.0.identity.node_id) => Err(Error::NotLeader { leader: None }),
        }
    }

    /// A bucket's number. That there is none is said only after a read index.
    async fn bucket_id(&self, name: &BucketName) -> Result<BucketId> {
        if let Some(id) = store::bucket_id(&self.0.state.latest(), name)? {
            return Ok(id);
        }
        let (view, _) = self.linearizable_view().await?;
        store::bucket_id(&*view, name)?
            .ok_or_else(|| Error::not_found(Missing::Bucket, name.as_str()))
    }

    /// The leader, where it is another node.
    fn leader(&self) -> Result<MemberInfo> {
        match self.0.cluster.leadership().borrow().leader {
            Some(id) if id != self.0.identity.node_id => {
                self.0.cluster.member(id).map_err(|_| {
                    Error::NoLeader("the leader's address is not known yet".to_owned())
                })
            }
            Some(_) => Err(Error::NotLeader { leader: None }),
            None => Err(Error::NoLeader("an election is under way".to_owned())),
        }
    }

    /// Where the leader listens to peers, whether that is this node or another.
    fn leader_addr(&self) -> Option<String> {
        let leader = self.0.cluster.leadership().borrow().leader?;
        self.0.cluster.member(leader).ok().map(|member| member.peer.peer_addr)
    }

    /// Who leads.
    #[must_use]
    pub fn leadership(&self) -> Leadership {
        if self.0.cluster.leadership().borrow().own_term.is_some() {
            return Leadership::Own;
        }
        self.leader().map_or(Leadership::Unknown, |leader| Leadership::Other(leader.into()))
    }

    /// Has the leader, which may be this node, check the credential in the bucket's current policy and
    /// issue a single-use ticket for exactly this method, path and query.
    pub async fn issue_ticket(
        &self,
        bucket: &BucketName,
        method: &str,
        path_and_query: &str,
        credential: &Credential,
    ) -> std::result::Result<String, Failure> {
        if self.leadership() == Leadership::Own {
            return self.issue_own_ticket(bucket, method, path_and_query, credential).await;
        }
        let request = TicketRequest {
            method: method.to_owned(),
            path_and_query: path_and_query.to_owned(),
            bucket: bucket.clone(),
            credential: credential.clone(),
        };
        let answer: TicketAnswer = self.ask_leader("/peer/ticket", &request).await?;
        answer.into()
    }

    async fn issue_own_ticket(
        &self,
        bucket: &BucketName,
        method: &str,
        path_and_query: &str,
        credential: &Credential,
    ) -> std::result::Result<String, Failure> {
        let mut txn = self.read(bucket).await?;
        let revision = txn.read_revision();
        grant(&mut txn, credential).map_err(|error| Failure::at(revision, error))?;
        Ok(self.0.tickets.issue(method, path_and_query, credential)?)
    }

    /// Takes a ticket that this node issued; `None` if unknown, used, too old or for another request.
    #[must_use]
    pub fn take_ticket(
        &self,
        nonce: &str,
        method: &str,
        path_and_query: &str,
    ) -> Option<Credential> {
        self.0.tickets.take(nonce, method, path_and_query)
    }

    /// Sends a request to the leader over the peer link and answers what it answered. Once the request
    /// may have been sent, a failure is [`Error::Unknown`]; it is never sent twice.
    /// Nor is it waited for where another leads: the old one may be cut off, and its silence lasts as
    /// long as the connection.
    pub async fn forward(&self, request: Forwarded) -> Result<http::Response<Bytes>> {
        let (leader, began) = (self.leader()?, Instant::now());
        tokio::select! {
            biased;
            answer = self.0.links.forward(&leader, request) => answer,
            () = self.outlived(leader.id, began) => {
                Err(Error::Unknown("another node leads, and the old leader is silent".to_owned()))
            }
        }
    }

    /// Waits until another node leads, and a little longer: where leadership was handed over in order, the
    /// old leader still answers what it has; and one that was never reached is known not to have it.
    async fn outlived(&self, old: NodeId, began: Instant) {
        self.superseded(old).await;
        let unreached = CONNECT_TIMEOUT.saturating_sub(began.elapsed());
        tokio::time::sleep(SUPERSEDED.max(unreached)).await;
    }

    /// Waits until a node other than this leader leads.
    async fn superseded(&self, old: NodeId) {
        let mut leadership = self.0.cluster.leadership();
        let other = |now: &Leads| now.leader.is_some_and(|leader| leader != old);
        if leadership.wait_for(other).await.is_err() {
            // The node is shutting down, and its connections with it.
            std::future::pending::<()>().await;
        }
    }

    /// Asks the leader something that changes nothing; not for longer than it leads.
    async fn ask_leader<Q: Serialize, A: DeserializeOwned>(
        &self,
        path: &str,
        question: &Q,
    ) -> Result<A> {
        let leader = self.leader()?;
        tokio::select! {
            biased;
            answer = self.0.links.ask_member(&leader, path, question) => answer,
            () = self.superseded(leader.id) => Err(Error::NotLeader { leader: None }),
        }
    }

    /// Names what executes the requests that other nodes forward to this one.
    pub fn set_forward_target(&self, target: ForwardTarget) {
        // The first stands: there is one edge.
        let _ = self.0.forward_target.set(target);
    }

    /// A name for a bucket whose creator chose none: 22 unguessable characters.
    #[must_use]
    pub fn random_bucket_name(&self) -> BucketName {
        nature::random_bucket_name()
    }

    /// Whether this is the admin key; false where none is configured.
    #[must_use]
    pub fn is_admin(&self, credential: &Credential) -> bool {
        self.0.admin_key.as_ref().is_some_and(|key| credential.is(key))
    }

    /// Whether an admin key is configured.
    #[must_use]
    pub fn has_admin_key(&self) -> bool {
        self.0.admin_key.is_some()
    }

    /// Adds the node listening at a peer address as a learner. Leader only, as are the next three.
    pub async fn add_learner(&self, peer_addr: &str) -> Result<()> {
        let hello: Hello = self.0.links.ask(peer_addr, "/peer/hello", &()).await.map_err(|e| {
            Error::Conflict(format!("no node to add at {peer_addr}: start it first ({e})"))
        })?;
        let cluster_id = join::admit(self, hello).await?;
        let adopted = self.0.links.ask(peer_addr, "/peer/adopt", &cluster_id).await;
        adopted.map_err(|e| Error::Unknown(format!("{peer_addr} is a learner, but is gone: {e}")))
    }

    /// Makes a learner a voter.
    pub async fn promote(&self, id: u64) -> Result<()> {
        self.0.cluster.promote(id).await
    }

    /// Removes a member; its id never returns.
    pub async fn remove(&self, id: u64) -> Result<()> {
        self.0.cluster.remove(id).await
    }

    /// Hands leadership to a voter.
    pub async fn transfer_leader(&self, to: u64) -> Result<()> {
        self.0.cluster.transfer_leader(to).await
    }

    /// Takes a snapshot on this node now and purges the log behind it.
    pub async fn snapshot(&self) -> Result<()> {
        self.0.cluster.snapshot().await
    }

    /// Whether this node has caught up once, is a member still, and is not shutting down.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.caught_up.load(Ordering::Relaxed)
            && !*self.0.shutting_down.borrow()
            && self.0.failure.borrow().is_none()
            && !self.0.removed.load(Ordering::Relaxed)
    }

    /// How this node's clock compares with the voters'; no difference, where no majority's is known.
    #[must_use]
    pub fn clock_skew(&self) -> Skew {
        self.0.skew.borrow().unwrap_or_default()
    }

    fn now_ms(&self) -> u64 {
        self.0.clock.now_ms()
    }

    fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// What a script was called for on this node.
    #[must_use]
    pub fn script_stats(&self, bucket: BucketId, name: &ScriptName) -> ScriptStats {
        self.0.stats.of(bucket, name)
    }

    fn seed(&self) -> u64 {
        self.0.nature.seed()
    }

    fn readers(&self) -> &Readers {
        &self.0.readers
    }

    fn random_name(&self) -> String {
        nature::random_name()
    }

    fn identity(&self) -> &PeerIdentity {
        &self.0.identity
    }

    fn shared_identity(&self) -> Arc<PeerIdentity> {
        Arc::clone(&self.0.identity)
    }

    fn cluster(&self) -> &Cluster {
        &self.0.cluster
    }

    fn state(&self) -> &State {
        &self.0.state
    }

    fn links(&self) -> &Links {
        &self.0.links
    }

    fn peer_addr(&self) -> &str {
        &self.0.peer_addr
    }

    fn url(&self) -> &str {
        &self.0.url
    }

    fn forward_target(&self) -> Option<ForwardTarget> {
        self.0.forward_target.get().cloned()
    }

    /// The identity as it is on disk.
    fn storage_identity(&self) -> Result<Identity> {
        Ok(self.0.stored_identity.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Looks at the identity on disk and changes it, as one step.
    fn update_identity<T>(&self, change: impl FnOnce(&mut Identity) -> Result<T>) -> Result<T> {
        let mut identity = self.0.stored_identity.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = identity.clone();
        let result = change(&mut changed)?;
        if changed != *identity {
            self.0.data.set_identity(&changed)?;
            *identity = changed;
        }
        Ok(result)
    }
}
