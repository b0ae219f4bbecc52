//! What this node answers its peers beside Raft.

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::post;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::link::{
    ANSWERED, Fault, HOPS, METHOD, ORIGIN, PATH, READ_INDEX, ReadIndex, TicketAnswer,
    TicketRequest, copy_end_to_end,
};
use super::{Forwarded, Node, join};
use crate::encoding;
use crate::error::{Error, Result};
use crate::raft::{Answer, NodeId, authenticate};

/// The routes under `/peer/`.
pub(super) fn routes(node: Node) -> Router {
    Router::new()
        .route("/peer/hello", post(hello))
        .route("/peer/adopt", post(adopt))
        .route("/peer/join", post(admit))
        .route(READ_INDEX, post(read_index))
        .route("/peer/clock", post(clock))
        .route("/peer/ticket", post(ticket))
        .route("/peer/tick", post(tick))
        .route("/peer/http", post(forwarded))
        .layer(DefaultBodyLimit::max(encoding::MAX_BYTES))
        .layer(from_fn_with_state(node.shared_identity(), authenticate))
        .with_state(node)
}

/// An answer that carries its error, so that the caller can act on it.
fn answer<T: Serialize>(result: Result<T>) -> Answer {
    let result = result.map_err(Fault::from);
    Ok(encoding::encode(&result)?.into_response())
}

impl Node {
    fn stranger_asks<T: DeserializeOwned>(&self, headers: &HeaderMap, body: &[u8]) -> Result<T> {
        self.identity().check_secret(headers)?;
        encoding::decode("peer request", body)
    }

    /// How far a member must have applied the log. Judged after the quorum has answered: only then is it
    /// known that this node still leads, and knows who the members are.
    async fn read_index_for(&self, from: NodeId) -> Result<ReadIndex> {
        let (index, _) = self.cluster().read_index().await?;
        if !self.cluster().has_member(from) {
            return Err(Error::Forbidden(format!("node {from} is no member of the cluster")));
        }
        Ok(ReadIndex { index, now: self.now_ms() })
    }

    fn member_asks<T: DeserializeOwned>(&self, headers: &HeaderMap, body: &[u8]) -> Result<T> {
        self.identity().check_member(headers)?;
        encoding::decode("peer request", body)
    }
}

async fn hello(State(node): State<Node>, headers: HeaderMap, body: Bytes) -> Answer {
    let (): () = node.stranger_asks(&headers, &body)?;
    answer(Ok(join::hello(&node)))
}

async fn adopt(State(node): State<Node>, headers: HeaderMap, body: Bytes) -> Answer {
    let cluster_id: String = node.stranger_asks(&headers, &body)?;
    answer(join::adopt(&node, &cluster_id))
}

async fn admit(State(node): State<Node>, headers: HeaderMap, body: Bytes) -> Answer {
    let candidate = node.stranger_asks(&headers, &body)?;
    answer(join::admit(&node, candidate).await)
}

async fn read_index(State(node): State<Node>, headers: HeaderMap, body: Bytes) -> Answer {
    let from = node.identity().check_member(&headers)?;
    let (): () = encoding::decode("peer request", &body)?;
    answer(node.read_index_for(from).await)
}

async fn clock(State(node): State<Node>, headers: HeaderMap, body: Bytes) -> Answer {
    let (): () = node.member_asks(&headers, &body)?;
    answer(Ok(node.clock().read().0))
}

async fn tick(State(node): State<Node>, headers: HeaderMap, body: Bytes) -> Answer {
    let request = node.member_asks(&headers, &body)?;
    let ticked = node.own_tick(request).await;
    ticked.as_ref().inspect_err(|error| node.heed(error)).ok();
    answer(ticked)
}

async fn ticket(State(node): State<Node>, headers: HeaderMap, body: Bytes) -> Answer {
    let TicketRequest { method, path_and_query, bucket, credential } =
        node.member_asks(&headers, &body)?;
    let ticket = node.issue_own_ticket(&bucket, &method, &path_and_query, &credential).await;
    // The edge, which heeds errors of calls, does not see this one.
    ticket.as_ref().inspect_err(|failure| node.heed(&failure.error)).ok();
    answer(Ok(TicketAnswer::from(ticket)))
}

async fn forwarded(State(node): State<Node>, headers: HeaderMap, body: Bytes) -> Answer {
    node.identity().check_member(&headers)?;
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let method = Method::from_bytes(text(METHOD).as_bytes())
        .map_err(|_| Error::invalid("a forwarded request without a method"))?;
    let mut own_headers = HeaderMap::new();
    copy_end_to_end(&headers, &mut own_headers);
    let request = Forwarded {
        method,
        path_and_query: text(PATH).to_owned(),
        headers: own_headers,
        body,
        remote_addr: text(ORIGIN).to_owned(),
        hops: text(HOPS).parse().unwrap_or(u8::MAX),
    };
    match node.forward_target() {
        Some(target) => {
            let mut response = target(request).await?.map(axum::body::Body::from);
            response.headers_mut().insert(ANSWERED, HeaderValue::from_static("1"));
            Ok(response)
        }
        None => Err(Error::NoLeader("the node is starting".to_owned()).into()),
    }
}
