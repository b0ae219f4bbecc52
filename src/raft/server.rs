//! What peers may ask of this node's Raft, on the peer listener. Every request proves that it comes from
//! a member of this cluster and is meant for this node.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{HeaderMap, StatusCode};
use openraft::async_runtime::WatchReceiver;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::auth::PeerIdentity;
use super::frame::{Frames, frame};
use super::heard::Heard;
use super::snapshot::{Part, Receiver};
use super::state_machine::StateMachine;
use super::traffic::Traffic;
use super::types::{Raft, TypeConfig};
use super::vacancy::Vacancy;
use super::wire;
use crate::encoding;
use crate::error::{Error, Result};

/// What the routes share.
#[derive(Clone)]
struct Server {
    raft: Raft<StateMachine>,
    identity: Arc<PeerIdentity>,
    receiver: Arc<Receiver>,
    heard: Arc<Heard>,
    vacancy: Vacancy,
    traffic: Arc<Traffic>,
}

/// The routes under `/raft/`.
pub(super) fn routes(
    raft: Raft<StateMachine>,
    identity: Arc<PeerIdentity>,
    heard: Arc<Heard>,
    vacancy: Vacancy,
    receiver: Receiver,
    traffic: Arc<Traffic>,
) -> Router {
    let receiver = Arc::new(receiver);
    Router::new()
        .route("/raft/append", post(append))
        .route("/raft/stream", post(stream))
        .route("/raft/vote", post(vote))
        .route("/raft/pre-vote", post(pre_vote))
        .route("/raft/transfer", post(transfer))
        .route("/raft/snapshot", post(install))
        .layer(DefaultBodyLimit::max(encoding::MAX_BYTES))
        .layer(from_fn_with_state(Arc::clone(&identity), authenticate))
        .with_state(Server { raft, identity, receiver, heard, vacancy, traffic })
}

/// Lets only requests of who knows the cluster secret through, before anything of their bodies is read.
pub async fn authenticate(
    State(identity): State<Arc<PeerIdentity>>,
    request: Request,
    next: Next,
) -> Answer {
    identity.check_secret(request.headers())?;
    Ok(next.run(request).await)
}

/// An error as a peer sees it. Peers act on the fact of it; the text is for their log.
pub struct Refusal(Error);

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self.0 {
            Error::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Error::Forbidden(_) => StatusCode::FORBIDDEN,
            Error::Corrupt { .. } | Error::Invalid(_) => StatusCode::BAD_REQUEST,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        tracing::debug!(error = %self.0, "refused a peer");
        (status, self.0.to_string()).into_response()
    }
}

/// A response, or why there is none.
pub type Answer = std::result::Result<Response, Refusal>;

impl Server {
    fn check<T: DeserializeOwned>(&self, headers: &HeaderMap, body: &Bytes) -> Result<T> {
        self.identity.check_member(headers)?;
        encoding::decode("peer request", body)
    }

    fn answer<T: Serialize>(&self, value: &T) -> Answer {
        let body = encoding::encode(value)?;
        self.traffic.sent(body.len());
        Ok(body.into_response())
    }
}

fn stopped(error: impl std::fmt::Display) -> Refusal {
    Refusal(Error::Unknown(error.to_string()))
}

async fn append(State(server): State<Server>, headers: HeaderMap, body: Bytes) -> Answer {
    let request: wire::AppendEntriesRequest = server.check(&headers, &body)?;
    let response = server.raft.append_entries(request.try_into()?).await.map_err(stopped)?;
    use AppendEntriesResponse::{PartialSuccess, Success};
    if matches!(response, Success | PartialSuccess(_)) {
        server.heard.note();
    }
    server.answer(&wire::AppendEntriesResponse::from(response))
}

async fn vote(State(server): State<Server>, headers: HeaderMap, body: Bytes) -> Answer {
    let request: wire::VoteRequest = server.check(&headers, &body)?;
    let response = server.raft.vote(request.into()).await.map_err(stopped)?;
    server.answer(&wire::VoteResponse::from(response))
}

async fn pre_vote(State(server): State<Server>, headers: HeaderMap, body: Bytes) -> Answer {
    let request: wire::VoteRequest = server.check(&headers, &body)?;
    let vote = server.raft.server_metrics().borrow_watched().vote;
    if server.heard.is_back(vote) {
        let vote = vote.into();
        return server.answer(&wire::VoteResponse { vote, granted: false, last_log_id: None });
    }
    let response = server.raft.pre_vote(request.into()).await.map_err(stopped)?;
    server.answer(&wire::VoteResponse::from(response))
}

async fn transfer(State(server): State<Server>, headers: HeaderMap, body: Bytes) -> Answer {
    let request: wire::TransferLeaderRequest = server.check(&headers, &body)?;
    let response = server.raft.handle_transfer_leader(request.into()).await.map_err(stopped)?;
    server.answer(&wire::TransferLeaderResponse::from(response))
}

/// A stream of appends: answered in order, as each is on disk.
async fn stream(State(server): State<Server>, headers: HeaderMap, body: Body) -> Answer {
    let from = server.identity.check_member(&headers)?;
    // It ends with its last answer: until then the leader is heard.
    let stream = Arc::new(server.vacancy.stream(from));
    let asks = Arc::clone(&stream);
    let frames = Frames::new("append request", body.into_data_stream()).map(move |frame| {
        let _until_it_ends = &asks;
        frame
    });
    let answers = server.raft.stream_append(requests(frames)).inspect(move |_| {
        let _until_it_ends = &stream;
    });
    let answers = answers.map(move |answer| match answer {
        Ok(answer) => {
            if answer.is_ok() {
                server.heard.note();
            }
            let frame = frame(&wire::StreamAppendResult::from(answer));
            frame.inspect(|frame| server.traffic.sent(frame.len()))
        }
        Err(fatal) => Err(Error::Internal(fatal.to_string())),
    });
    Ok(Body::from_stream(answers).into_response())
}

/// The requests of a stream, up to the first that is not whole.
fn requests(
    frames: impl Stream<Item = Result<wire::AppendEntriesRequest>> + Send + 'static,
) -> impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + 'static {
    frames.map(|request| request.and_then(AppendEntriesRequest::try_from)).scan(
        (),
        |(), request| {
            if let Err(error) = &request {
                tracing::debug!(%error, "an append stream ended");
            }
            std::future::ready(request.ok())
        },
    )
}

async fn install(State(server): State<Server>, headers: HeaderMap, body: Body) -> Answer {
    let from = server.identity.check_member(&headers)?;
    tracing::info!(from, "receiving a snapshot");
    let parts = Frames::<_, Part>::new("snapshot", body.into_data_stream());
    let received = tokio::select! {
        received = server.receiver.receive(parts) => received,
        () = stops(&server.raft) => Err(Error::Io("this node stops".to_owned())),
    };
    let (vote, snapshot) = received.inspect_err(|error| {
        tracing::warn!(from, %error, "a snapshot was not taken");
    })?;
    let response = server.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
    server.answer(&wire::SnapshotResponse::from(response))
}

/// Waits until Raft has stopped.
async fn stops(raft: &Raft<StateMachine>) {
    let mut metrics = raft.server_metrics();
    while metrics.changed().await.is_ok() {}
}
