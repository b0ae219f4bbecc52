//! Calls to peers: HTTP/2 over three connections each, so that a snapshot starves no heartbeat.
//!
//! Entries flow on one duplex stream per follower (`/raft/stream`): requests in order out, answers in
//! order back, many under way. openraft resumes a stream that ends. The time that openraft allows for an
//! append is its heartbeat interval, which a busy disk easily exceeds; the bound here is our own.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, future::BoxFuture};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, VoteRequest, VoteResponse,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::auth::PeerIdentity;
use super::frame::{Frames, frame};
use super::pipeline::{Answers, pipeline};
use super::snapshot;
use super::traffic::Traffic;
use super::types::{NodeId, Peer, Snapshot, TypeConfig, Vote};
use super::wire;
use crate::encoding;
use crate::error::{Error, Result};
use crate::storage::{Checkpoint, Pace};

type RpcError = RPCError<TypeConfig>;

/// How long a follower may take to have entries on disk.
const APPEND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a vote or another small call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a connection may take: after it, nothing was sent.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How soon a dead connection is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Between tries to reach a peer that is down.
const BACKOFF: Duration = Duration::from_millis(200);

/// A client for peers: HTTP/2 without negotiation, no proxy of the environment.
pub fn http_client() -> Result<reqwest::Client> {
    reqwest::Client::builder()
        .http2_prior_knowledge()
        .http2_keep_alive_interval(KEEP_ALIVE)
        .http2_keep_alive_timeout(KEEP_ALIVE * 2)
        .http2_initial_stream_window_size(4 << 20)
        .http2_initial_connection_window_size(8 << 20)
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .map_err(|e| Error::Internal(format!("peer client: {e}")))
}

/// Makes connections to peers.
pub(super) struct Network {
    identity: Arc<PeerIdentity>,
    entries: reqwest::Client,
    heartbeats: reqwest::Client,
    snapshots: reqwest::Client,
    pace: Pace,
    traffic: Arc<Traffic>,
}

impl Network {
    /// Connections that speak as this node, count what they send, and send snapshots at a pace.
    pub(super) fn new(
        identity: Arc<PeerIdentity>,
        pace: Pace,
        traffic: Arc<Traffic>,
    ) -> Result<Self> {
        Ok(Network {
            identity,
            entries: http_client()?,
            heartbeats: http_client()?,
            snapshots: http_client()?,
            pace,
            traffic,
        })
    }

    fn link(&self, client: &reqwest::Client, target: NodeId, peer: &Peer) -> Link {
        Link {
            identity: Arc::clone(&self.identity),
            client: client.clone(),
            target,
            peer: peer.clone(),
            refused: None,
            pause: Duration::ZERO,
            pace: self.pace,
            traffic: Arc::clone(&self.traffic),
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: NodeId, peer: &Peer) -> Link {
        Link { pause: BACKOFF, ..self.link(&self.entries, target, peer) }
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, peer: &Peer) -> Link {
        self.link(&self.heartbeats, target, peer)
    }

    async fn new_snapshot_client(&mut self, target: NodeId, peer: &Peer) -> Link {
        self.link(&self.snapshots, target, peer)
    }
}

/// A way to one peer.
pub(crate) struct Link {
    identity: Arc<PeerIdentity>,
    client: reqwest::Client,
    target: NodeId,
    peer: Peer,
    /// When a stream could not be opened last.
    refused: Option<Instant>,
    /// How long to wait after that: openraft's own wait is within the stream, which is not open.
    pause: Duration,
    pace: Pace,
    traffic: Arc<Traffic>,
}

impl Link {
    fn post(&self, path: &str) -> Result<reqwest::RequestBuilder> {
        let url = format!("http://{}{path}", self.peer.peer_addr);
        let headers = self.identity.headers(self.target, &self.peer.instance)?;
        Ok(self.client.post(url).headers(headers))
    }

    async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        path: &str,
        request: &Q,
        timeout: Duration,
    ) -> std::result::Result<A, RpcError> {
        let body = encoding::encode(request).map_err(unreachable)?;
        self.traffic.sent(body.len());
        let request = self.post(path).map_err(unreachable)?.timeout(timeout).body(body);
        let response = accepted(request.send().await)?;
        let bytes = response.bytes().await.map_err(broken)?;
        encoding::decode("peer answer", &bytes).map_err(unreachable)
    }

    async fn open_stream<S>(&self, requests: S) -> std::result::Result<reqwest::Response, RpcError>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        let traffic = Arc::clone(&self.traffic);
        let frames = requests.map(move |request| {
            let frame = frame(&wire::AppendEntriesRequest::from(request));
            frame.inspect(|frame| traffic.sent(frame.len())).map_err(std::io::Error::other)
        });
        let request = self.post("/raft/stream").map_err(unreachable)?;
        let sent = request.body(reqwest::Body::wrap_stream(frames)).send();
        match tokio::time::timeout(APPEND_TIMEOUT, sent).await {
            Ok(response) => accepted(response),
            Err(_) => Err(unreachable("no answer to a stream")),
        }
    }
}

fn unreachable(error: impl std::fmt::Display) -> RpcError {
    RPCError::Unreachable(Unreachable::from_string(error))
}

/// A call that was under way broke off: worth another try at once.
fn broken(error: impl std::fmt::Display) -> RpcError {
    RPCError::Network(NetworkError::from_string(error))
}

/// The answer to a call, unless the peer is not there or refuses us.
fn accepted(
    response: reqwest::Result<reqwest::Response>,
) -> std::result::Result<reqwest::Response, RpcError> {
    match response {
        Ok(response) if response.status().is_success() => Ok(response),
        Ok(response) => Err(unreachable(format!("the peer answered {}", response.status()))),
        // With the causes: "error sending request" alone tells nobody why.
        Err(error) => Err(unreachable(causes(&error))),
    }
}

/// An error with what caused it.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Reads a stream's answers; ends it where one is overdue. A quiet stream may stay quiet.
fn answers<B, E>(
    body: B,
    answers: Answers,
) -> impl Stream<Item = std::result::Result<StreamAppendResult<TypeConfig>, RpcError>> + Send + use<B, E>
where
    B: Stream<Item = std::result::Result<Bytes, E>> + Send + Unpin,
    E: std::fmt::Display,
{
    let frames = Frames::<_, wire::StreamAppendResult>::new("append answer", body);
    futures::stream::unfold(Some((frames, answers)), |state| async move {
        let (mut frames, answers) = state?;
        answers.done();
        loop {
            match tokio::time::timeout(APPEND_TIMEOUT / 4, frames.next()).await {
                Ok(Some(Ok(answer))) => {
                    let answer = answer.into();
                    if answers.came(&answer).await {
                        return Some((Ok(answer), Some((frames, answers))));
                    }
                }
                Ok(Some(Err(error))) => return Some((Err(broken(error)), None)),
                Ok(None) => return None,
                Err(_) if answers.age() > APPEND_TIMEOUT => {
                    return Some((Err(unreachable("an append is overdue")), None));
                }
                Err(_) => {}
            }
        }
    })
}

impl RaftNetworkV2<TypeConfig> for Link {
    type SnapshotData = Arc<Checkpoint>;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> std::result::Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        let request = wire::AppendEntriesRequest::from(request);
        let answer: wire::AppendEntriesResponse =
            self.call("/raft/append", &request, APPEND_TIMEOUT).await?;
        Ok(answer.into())
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _: RPCOption,
    ) -> BoxFuture<
        's,
        std::result::Result<
            BoxStream<'s, std::result::Result<StreamAppendResult<TypeConfig>, RpcError>>,
            RpcError,
        >,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        Box::pin(async move {
            if let Some(refused) = self.refused.take() {
                tokio::time::sleep(self.pause.saturating_sub(refused.elapsed())).await;
            }
            let (requests, given) = pipeline(input);
            match self.open_stream(requests).await {
                Ok(response) => {
                    let body = Box::pin(response.bytes_stream());
                    Ok(answers(body, given).boxed())
                }
                Err(error) => {
                    self.refused = Some(Instant::now());
                    Err(error)
                }
            }
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> std::result::Result<VoteResponse<TypeConfig>, RpcError> {
        let request = wire::VoteRequest::from(request);
        let answer: wire::VoteResponse = self.call("/raft/vote", &request, CALL_TIMEOUT).await?;
        Ok(answer.into())
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> std::result::Result<VoteResponse<TypeConfig>, RpcError> {
        let request = wire::VoteRequest::from(request);
        let answer: wire::VoteResponse =
            self.call("/raft/pre-vote", &request, CALL_TIMEOUT).await?;
        Ok(answer.into())
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<Arc<Checkpoint>>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> std::result::Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let send = async {
            let body = snapshot::send(vote, snapshot, self.pace).map_err(unreachable)?;
            let request = self.post("/raft/snapshot").map_err(unreachable)?.body(body);
            let bytes = accepted(request.send().await)?.bytes().await.map_err(broken)?;
            let answer: wire::SnapshotResponse =
                encoding::decode("snapshot answer", &bytes).map_err(unreachable)?;
            Ok(answer.into())
        };
        tokio::select! {
            answer = send => answer.map_err(|error: RpcError| error.into()),
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        _: RPCOption,
    ) -> std::result::Result<openraft::raft::TransferLeaderResponse<TypeConfig>, RpcError> {
        let request = wire::TransferLeaderRequest::from(request);
        let answer: wire::TransferLeaderResponse =
            self.call("/raft/transfer", &request, CALL_TIMEOUT).await?;
        Ok(answer.into())
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(BACKOFF)))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::channel::mpsc::unbounded;

    use super::super::testing::append;
    use super::super::types::log_id;
    use super::*;

    /// An answer's bytes.
    fn answer(index: u64) -> std::result::Result<Bytes, std::io::Error> {
        let matching: StreamAppendResult<TypeConfig> = Ok(Some(log_id(1, index)));
        Ok(frame(&wire::StreamAppendResult::from(matching)).unwrap())
    }

    /// A paused leader that another had followed went on with old answers of its followers in its sockets. The first
    /// one committed an entry, and the word of that, made for the other follower, was taken for answered by that one's
    /// old answer: it confirmed a read that came after the pause.
    #[test]
    fn openraft_gets_no_answer_that_it_would_take_for_a_later_one() {
        let (openraft, input) = unbounded();
        let (mut requests, given) = pipeline(input);
        let (follower, body) = unbounded();
        let mut answers = Box::pin(answers(body, given));
        openraft.unbounded_send(append(0, 1)).unwrap();
        openraft.unbounded_send(append(1, 1)).unwrap();
        assert!(requests.next().now_or_never().is_some());
        assert!(requests.next().now_or_never().is_some());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _guard = runtime.enter();
        follower.unbounded_send(answer(1)).unwrap();
        assert!(answers.next().now_or_never().is_none(), "not to the word of a commit behind it");
        follower.unbounded_send(answer(1)).unwrap();
        assert!(
            matches!(answers.next().now_or_never(), Some(Some(Ok(Ok(Some(id))))) if id == log_id(1, 1))
        );
        // openraft looks at it until it asks for the next one.
        openraft.unbounded_send(append(1, 2)).unwrap();
        assert!(requests.next().now_or_never().is_none());
        assert!(answers.next().now_or_never().is_none());
        assert!(requests.next().now_or_never().is_some());
        drop(answers);
        assert!(requests.next().now_or_never().unwrap().is_none(), "the stream is over");
    }
}
