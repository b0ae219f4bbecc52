//! What nodes ask each other beside Raft: introductions, read indexes, clocks, tickets, whole requests.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Forwarded;
use crate::encoding;
use crate::error::{Error, Failure, Missing, Result};
use crate::kv::{BucketName, Credential};
use crate::raft::{MemberInfo, PeerIdentity, http_client};

/// How long a small call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a forwarded request may take: longer than the leader takes to give up on it.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) const METHOD: HeaderName = HeaderName::from_static("x-kvdb-forward-method");
pub(super) const PATH: HeaderName = HeaderName::from_static("x-kvdb-forward-path");
pub(super) const ORIGIN: HeaderName = HeaderName::from_static("x-kvdb-forward-origin");
pub(super) const HOPS: HeaderName = HeaderName::from_static("x-kvdb-forward-hops");

/// On an answer of the leader's edge; without it, what answers is what stands before it.
pub(super) const ANSWERED: HeaderName = HeaderName::from_static("x-kvdb-forward-answered");

/// Where the leader is asked how far a read must have come.
pub(super) const READ_INDEX: &str = "/peer/read-index";

/// How a node introduces itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) node_id: u64,
    pub(super) instance: String,
    pub(super) cluster_id: Option<String>,
    pub(super) peer_addr: String,
    pub(super) url: String,
    /// Where the leader listens to peers, as far as this node knows.
    pub(super) leader_addr: Option<String>,
}

/// What the leader answers a follower that wants to serve a read.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct ReadIndex {
    /// The index to have applied first.
    pub(super) index: u64,
    /// The leader's clock: the time of the read.
    pub(super) now: u64,
}

/// What a follower asks a ticket for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct TicketRequest {
    pub(super) method: String,
    pub(super) path_and_query: String,
    pub(super) bucket: BucketName,
    pub(super) credential: Credential,
}

/// What the leader says to that.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum TicketAnswer {
    /// The ticket.
    Issued(String),
    /// Why there is none, and the revision of the bucket at which that was judged.
    Refused { fault: Fault, revision: Option<u64> },
}

impl From<std::result::Result<String, Failure>> for TicketAnswer {
    fn from(issued: std::result::Result<String, Failure>) -> Self {
        match issued {
            Ok(ticket) => TicketAnswer::Issued(ticket),
            Err(Failure { error, revision }) => {
                TicketAnswer::Refused { fault: error.into(), revision }
            }
        }
    }
}

impl From<TicketAnswer> for std::result::Result<String, Failure> {
    fn from(answer: TicketAnswer) -> Self {
        match answer {
            TicketAnswer::Issued(ticket) => Ok(ticket),
            TicketAnswer::Refused { fault, revision } => {
                Err(Failure { error: fault.into(), revision })
            }
        }
    }
}

/// An error on its way to another node: those that the caller acts on keep their kind.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Fault {
    NotLeader(Option<u64>),
    NoLeader(String),
    Unauthorized(String),
    Forbidden(String),
    NoBucket(String),
    Conflict(String),
    Overloaded(String),
    Other(String),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::NotLeader { leader } => Fault::NotLeader(leader),
            Error::NoLeader(text) => Fault::NoLeader(text),
            Error::Unauthorized(text) => Fault::Unauthorized(text),
            Error::Forbidden(text) => Fault::Forbidden(text),
            Error::NotFound { what: Missing::Bucket, name } => Fault::NoBucket(name),
            Error::Conflict(text) => Fault::Conflict(text),
            Error::Overloaded(text) => Fault::Overloaded(text),
            other => Fault::Other(other.to_string()),
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::NotLeader(leader) => Error::NotLeader { leader },
            Fault::NoLeader(text) | Fault::Other(text) => Error::NoLeader(text),
            Fault::Unauthorized(text) => Error::Unauthorized(text),
            Fault::Forbidden(text) => Error::Forbidden(text),
            Fault::NoBucket(name) => Error::not_found(Missing::Bucket, name),
            Fault::Conflict(text) => Error::Conflict(text),
            Fault::Overloaded(text) => Error::Overloaded(text),
        }
    }
}

/// Calls to other nodes.
pub(super) struct Links {
    identity: Arc<PeerIdentity>,
    calls: reqwest::Client,
    forwards: reqwest::Client,
}

impl Links {
    pub(super) fn new(identity: Arc<PeerIdentity>) -> Result<Self> {
        Ok(Links { identity, calls: http_client()?, forwards: http_client()? })
    }

    /// Asks whoever listens at an address; both know the cluster secret, no more.
    pub(super) async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        address: &str,
        path: &str,
        question: &Q,
    ) -> Result<A> {
        self.call(address, path, self.identity.introduction()?, question).await
    }

    /// Asks a member of the cluster.
    pub(super) async fn ask_member<Q: Serialize, A: DeserializeOwned>(
        &self,
        member: &MemberInfo,
        path: &str,
        question: &Q,
    ) -> Result<A> {
        let headers = self.identity.headers(member.id, &member.peer.instance)?;
        self.call(&member.peer.peer_addr, path, headers, question).await
    }

    async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        address: &str,
        path: &str,
        headers: HeaderMap,
        question: &Q,
    ) -> Result<A> {
        let sent = self
            .calls
            .post(format!("http://{address}{path}"))
            .headers(headers)
            .timeout(CALL_TIMEOUT)
            .body(encoding::encode(question)?)
            .send();
        let unreachable = |e| Error::NoLeader(format!("{address} is not reachable: {e}"));
        let response = sent.await.map_err(unreachable)?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(unreachable)?;
        if !status.is_success() {
            let text = String::from_utf8_lossy(&bytes);
            return Err(Error::NoLeader(format!("{address} answered {status}: {text}")));
        }
        // Nothing was proposed by asking: what cannot be read is as good as no answer.
        let answer: std::result::Result<A, Fault> = encoding::decode("peer answer", &bytes)
            .map_err(|error| Error::NoLeader(format!("{address}: {error}")))?;
        answer.map_err(Error::from)
    }

    /// Hands a whole request to the leader, once.
    pub(super) async fn forward(
        &self,
        leader: &MemberInfo,
        request: Forwarded,
    ) -> Result<http::Response<Bytes>> {
        let mut headers = self.identity.headers(leader.id, &leader.peer.instance)?;
        copy_end_to_end(&request.headers, &mut headers);
        for (name, value) in [
            (METHOD, request.method.as_str()),
            (PATH, request.path_and_query.as_str()),
            (ORIGIN, request.remote_addr.as_str()),
            (HOPS, &request.hops.to_string()),
        ] {
            let value = HeaderValue::from_str(value)
                .map_err(|_| Error::invalid("the request cannot be forwarded"))?;
            headers.insert(name, value);
        }
        let sent = self
            .forwards
            .post(format!("http://{}/peer/http", leader.peer.peer_addr))
            .headers(headers)
            .timeout(FORWARD_TIMEOUT)
            .body(request.body)
            .send();
        let response = sent.await.map_err(|error| lost(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.map_err(|error| lost(&error))?;
        if !headers.contains_key(ANSWERED) {
            return Err(not_run(status));
        }
        let mut answer = http::Response::new(body);
        *answer.status_mut() = status;
        copy_end_to_end(&headers, answer.headers_mut());
        Ok(answer)
    }
}

/// What a lost connection says about a forwarded request.
fn lost(error: &reqwest::Error) -> Error {
    if error.is_connect() {
        return Error::NoLeader("the leader is not reachable".to_owned());
    }
    Error::Unknown("the leader was lost while it had the request".to_owned())
}

/// What an answer says that is not of the leader's edge: a peer that refuses has run nothing.
fn not_run(status: StatusCode) -> Error {
    if status.is_client_error() || status == StatusCode::SERVICE_UNAVAILABLE {
        return Error::NoLeader(format!("the leader does not take requests: {status}"));
    }
    Error::Unknown(format!("the leader answered {status}"))
}

/// Copies the headers that are meant for the other end, not for the next hop (RFC 9110, 7.6.1).
pub(super) fn copy_end_to_end(from: &HeaderMap, to: &mut HeaderMap) {
    let next_hop = [CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE];
    for (name, value) in from {
        let internal = name.as_str().starts_with("x-kvdb-forward-")
            || name.as_str().starts_with("x-kvdb-peer");
        if !internal && !next_hop.contains(name) && name.as_str() != "keep-alive" {
            to.append(name, value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_edge_did_not_answer_is_not_the_clients() {
        for status in [400, 401, 403, 404, 413, 431, 503] {
            let error = not_run(StatusCode::from_u16(status).unwrap());
            assert!(matches!(error, Error::NoLeader(_)), "{status}");
        }
        for status in [200, 302, 500, 502] {
            let error = not_run(StatusCode::from_u16(status).unwrap());
            assert!(matches!(error, Error::Unknown(_)), "{status}");
        }
    }

    #[test]
    fn marks_between_nodes_stay_there() {
        let (mut from, mut to) = (HeaderMap::new(), HeaderMap::new());
        from.insert(ANSWERED, HeaderValue::from_static("1"));
        from.insert("etag", HeaderValue::from_static("1"));
        copy_end_to_end(&from, &mut to);
        assert_eq!(to.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["etag"]);
    }
}
