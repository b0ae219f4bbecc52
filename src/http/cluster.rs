//! `/-/…`: the cluster as this node sees it, and its changes, for who holds the admin key.

use axum::response::Response;
use bytes::Bytes;
use http::Method;
use serde::de::DeserializeOwned;

use super::Edge;
use super::answer::{self, Outcome, with_applied};
use super::call::{Call, Payload};
use super::leader::{Route, on_leader};
use super::path::Target;
use crate::api::{AddMember, Applied, TransferLeader};
use crate::error::{Error, Result};

/// Largest body of an admin call, in bytes.
const ADMIN_BODY_BYTES_MAX: usize = 4 << 10;

/// `GET /-/cluster`.
pub(super) fn status(edge: &Edge) -> Outcome {
    Ok(answer::json(&edge.node.status())?)
}

/// `GET /-/digest`: reads all heads, so away from the threads that serve connections. A bucket's name
/// may be all that protects it, so names are for whoever holds the admin key.
pub(super) async fn digest(edge: &Edge, call: &Call) -> Outcome {
    let node = edge.node.clone();
    let digest = tokio::task::spawn_blocking(move || node.digest()).await;
    let mut digest = digest.map_err(|e| Error::Internal(format!("digest: {e}")))??;
    if check_admin(edge, call).is_err() {
        digest.buckets.iter_mut().for_each(|bucket| bucket.name.clear());
    }
    Ok(answer::json(&digest)?)
}

/// Fails unless the call brings the admin key.
pub(super) fn check_admin(edge: &Edge, call: &Call) -> Result<()> {
    let credential = call.credential()?;
    if edge.node.is_admin(&credential) {
        return Ok(());
    }
    if !edge.node.has_admin_key() {
        let none = "nobody may: the node was started without --admin-key";
        return Err(Error::Forbidden(none.to_owned()));
    }
    if credential.is_none() {
        return Err(Error::Forbidden("the admin key is missing".to_owned()));
    }
    Err(Error::Unauthorized("the credential is not the admin key".to_owned()))
}

/// A change of the membership, made on the leader.
pub(super) async fn change(
    edge: &Edge,
    call: &Call,
    payload: &mut Payload,
    target: &Target,
) -> Outcome {
    let run = async |body: Bytes| -> Outcome {
        check_admin(edge, call)?;
        make(edge, target, &body).await?;
        Ok(changed(edge)?)
    };
    let limit = ("a request body", ADMIN_BODY_BYTES_MAX);
    on_leader(edge, call, payload, limit, Route::Proxy, run).await
}

async fn make(edge: &Edge, target: &Target, body: &Bytes) -> Result<()> {
    match target {
        Target::Members => {
            let add: AddMember = parse(body, r#"{"peer_addr":"HOST:PORT"}"#)?;
            edge.node.add_learner(&add.peer_addr).await
        }
        Target::Promote(id) => edge.node.promote(*id).await,
        Target::Member(id) => edge.node.remove(*id).await,
        Target::Leader => {
            let transfer: TransferLeader = parse(body, r#"{"to":NODE_ID}"#)?;
            edge.node.transfer_leader(transfer.to).await
        }
        other => Err(Error::Internal(format!("{} changes no membership", other.label()))),
    }
}

/// `POST /-/cluster/snapshot`: on the node that is asked.
pub(super) async fn snapshot(edge: &Edge, call: &Call) -> Outcome {
    check_admin(edge, call)?;
    edge.node.snapshot().await?;
    Ok(changed(edge)?)
}

fn changed(edge: &Edge) -> Result<Response> {
    Ok(with_applied(answer::json(&edge.node.status())?, Applied::Yes))
}

fn parse<T: DeserializeOwned>(body: &Bytes, expected: &str) -> Result<T> {
    serde_json::from_slice(body)
        .map_err(|e| Error::invalid(format!("the body is JSON, `{expected}`: {e}")))
}

/// Which method changes what.
pub(super) fn method(target: &Target) -> Method {
    if matches!(target, Target::Member(_)) { Method::DELETE } else { Method::POST }
}
