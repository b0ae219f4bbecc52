//! Becoming part of a cluster: join first, then found.
//!
//! The same command line runs on every node. A fresh node asks all addresses that it was given. If one
//! of them belongs to a cluster, it asks to be admitted there, as a learner. If all of them answer, all
//! are fresh, and this node has the lowest id, it founds the cluster with all of them as voters: it
//! first has every other node adopt the new cluster's id, so a node is never in two clusters, and
//! nothing is acknowledged by fewer nodes than were asked for. Otherwise it waits and asks again.
//!
//! A node id is given to one data directory, once: the directory bucket remembers every id with the
//! instance that used it. A node whose disk was replaced has lost its votes, so it comes with a new id.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Node;
use super::link::Hello;
use crate::error::{Error, Result};
use crate::kv::{DIRECTORY, Row, store};
use crate::raft::{NodeId, Peer};

/// Between two rounds of questions.
const ROUND: Duration = Duration::from_millis(200);
/// Rounds between two log lines about waiting.
const ROUNDS_PER_LINE: u32 = 25;

/// Makes this node part of a cluster, however long that takes; returns at once where it is already.
pub(super) async fn enter_cluster(node: &Node, addresses: &[String]) -> Result<()> {
    let identity = node.storage_identity()?;
    if identity.founding && node.cluster().is_founded().await? {
        // Interrupted after the last step that matters.
        return end_founding(node);
    }
    if identity.founding || (identity.cluster_id.is_none() && addresses.is_empty()) {
        return found(node, addresses, BTreeMap::new()).await;
    }
    let mut round = 0;
    // Another node's founding may adopt this one meanwhile.
    while node.identity().cluster_id().is_none() {
        match join_or_found(node, addresses).await {
            Ok(()) => break,
            // Nothing that waiting mends.
            Err(error @ Error::Conflict(_)) => return Err(error),
            Err(error) if round % ROUNDS_PER_LINE == ROUNDS_PER_LINE - 1 => {
                tracing::info!(reason = %error, "waiting to enter a cluster");
            }
            Err(_) => {}
        }
        round += 1;
        tokio::time::sleep(ROUND).await;
    }
    Ok(())
}

/// One round: asks every address, and does what the answers allow.
async fn join_or_found(node: &Node, addresses: &[String]) -> Result<()> {
    let mut fresh = BTreeMap::new();
    let mut missing = None;
    for address in addresses {
        match node.links().ask::<_, Hello>(address, "/peer/hello", &()).await {
            Ok(hello) if hello.cluster_id.is_some() => match ask_to_join(node, &hello).await {
                Ok(()) => return Ok(()),
                Err(error @ Error::Conflict(_)) => return Err(error),
                Err(error) => missing = Some(error),
            },
            Ok(hello) => add_distinct(&mut fresh, address, hello)?,
            Err(error) => missing = Some(error),
        }
    }
    match (missing, fresh.first_key_value()) {
        (Some(error), _) => Err(error),
        (None, Some((lowest, _))) if *lowest == node.identity().node_id => {
            found(node, addresses, fresh).await
        }
        _ => Err(Error::NoLeader("the node with the lowest id founds the cluster".to_owned())),
    }
}

fn add_distinct(fresh: &mut BTreeMap<NodeId, Hello>, address: &str, hello: Hello) -> Result<()> {
    let id = hello.node_id;
    match fresh.insert(id, hello) {
        None => Ok(()),
        Some(other) => Err(Error::Conflict(format!(
            "{address} and {} both have node id {id}: give each node its own",
            other.peer_addr
        ))),
    }
}

/// Asks to be admitted to the cluster of a member: its leader, where the member knows one.
async fn ask_to_join(node: &Node, member: &Hello) -> Result<()> {
    let address = member.leader_addr.as_ref().unwrap_or(&member.peer_addr);
    let cluster_id: String = node.links().ask(address, "/peer/join", &hello(node)).await?;
    adopt(node, &cluster_id)?;
    tracing::info!(cluster_id, "joined as a learner; `kvdb cluster promote` makes it a voter");
    Ok(())
}

/// Founds a cluster of this node and those that said hello; repeats what was interrupted.
async fn found(node: &Node, addresses: &[String], hellos: BTreeMap<NodeId, Hello>) -> Result<()> {
    let cluster_id = begin_founding(node)?;
    let own = (node.identity().node_id, peer(hello(node)));
    let mut voters: BTreeMap<_, _> =
        hellos.into_values().map(|hello| (hello.node_id, peer(hello))).chain([own]).collect();
    while voters.len() < addresses.len() {
        match ask_all(node, addresses).await {
            Ok(all) => voters = all,
            Err(error) => {
                tracing::info!(reason = %error, "founding the cluster again");
                tokio::time::sleep(ROUND).await;
            }
        }
    }
    have_adopted(node, &voters, &cluster_id).await?;
    node.cluster().found(voters).await?;
    tracing::info!(cluster_id, "founded the cluster");
    end_founding(node)
}

/// Takes the id of an interrupted founding or a new one, unless another founder was quicker.
fn begin_founding(node: &Node) -> Result<String> {
    let fresh = node.random_name();
    let cluster_id = node.update_identity(|identity| match &identity.cluster_id {
        Some(own) if identity.founding => Ok(own.clone()),
        Some(_) => Err(Error::NoLeader("another node founds the cluster".to_owned())),
        None => {
            identity.cluster_id = Some(fresh.clone());
            identity.founding = true;
            Ok(fresh)
        }
    })?;
    node.identity().set_cluster_id(&cluster_id)?;
    Ok(cluster_id)
}

fn end_founding(node: &Node) -> Result<()> {
    node.update_identity(|identity| {
        identity.founding = false;
        Ok(())
    })
}

async fn ask_all(node: &Node, addresses: &[String]) -> Result<BTreeMap<NodeId, Peer>> {
    let mut voters = BTreeMap::new();
    for address in addresses {
        let hello: Hello = node.links().ask(address, "/peer/hello", &()).await?;
        voters.insert(hello.node_id, peer(hello));
    }
    if voters.len() < addresses.len() {
        return Err(Error::Conflict("two addresses lead to the same node id".to_owned()));
    }
    Ok(voters)
}

/// Has every voter adopt the cluster's id, each until it has.
async fn have_adopted(
    node: &Node,
    voters: &BTreeMap<NodeId, Peer>,
    cluster_id: &str,
) -> Result<()> {
    let others = voters.iter().filter(|(id, _)| **id != node.identity().node_id);
    for (_, Peer { peer_addr, .. }) in others {
        let id = cluster_id.to_owned();
        while let Err(error) = node.links().ask::<_, ()>(peer_addr, "/peer/adopt", &id).await {
            if let Error::Conflict(reason) = error {
                return Err(Error::Conflict(format!("{peer_addr}: {reason}")));
            }
            tracing::info!(peer_addr, %error, "waiting for a node to enter the cluster");
            tokio::time::sleep(ROUND).await;
        }
    }
    Ok(())
}

fn peer(hello: Hello) -> Peer {
    Peer { peer_addr: hello.peer_addr, url: hello.url, instance: hello.instance }
}

/// How this node introduces itself.
pub(super) fn hello(node: &Node) -> Hello {
    let identity = node.identity();
    Hello {
        node_id: identity.node_id,
        instance: identity.instance.clone(),
        cluster_id: identity.cluster_id().map(str::to_owned),
        peer_addr: node.peer_addr().to_owned(),
        url: node.url().to_owned(),
        leader_addr: node.leader_addr(),
    }
}

/// Enters a cluster: on disk first, so that it is never in two.
pub(super) fn adopt(node: &Node, cluster_id: &str) -> Result<()> {
    node.update_identity(|identity| match &identity.cluster_id {
        Some(own) if own != cluster_id => {
            Err(Error::Conflict("the node belongs to another cluster already".to_owned()))
        }
        _ => {
            identity.cluster_id = Some(cluster_id.to_owned());
            Ok(())
        }
    })?;
    node.identity().set_cluster_id(cluster_id)
}

/// Admits a node as a learner; the cluster's id. Only the leader can.
pub(super) async fn admit(node: &Node, candidate: Hello) -> Result<String> {
    let cluster_id = node
        .identity()
        .cluster_id()
        .ok_or_else(|| Error::NoLeader("this node is in no cluster itself".to_owned()))?;
    let id = candidate.node_id;
    if candidate.cluster_id.as_deref().is_some_and(|id| id != cluster_id) {
        return Err(Error::Conflict(format!(
            "node {id} belongs to another cluster: start it on an empty data directory"
        )));
    }
    let (index, _) = node.cluster().read_index().await?;
    node.cluster().applied(index).await?;
    if let Some(instance) = instance_of(node, id)? {
        if instance == candidate.instance.as_bytes() && node.cluster().member(id).is_ok() {
            return Ok(cluster_id.to_owned());
        }
        return Err(used(id));
    }
    let instance = candidate.instance.clone();
    node.cluster().add_learner(id, peer(candidate)).await?;
    // Two candidates may have come with one id: the first one's entry counts.
    match instance_of(node, id)? {
        Some(admitted) if admitted == instance.as_bytes() => Ok(cluster_id.to_owned()),
        _ => Err(used(id)),
    }
}

/// The data directory that a node id was given to.
fn instance_of(node: &Node, id: NodeId) -> Result<Option<bytes::Bytes>> {
    store::row(&*node.state().view(), DIRECTORY, &Row::node(id))
}

fn used(id: NodeId) -> Error {
    Error::Conflict(format!(
        "node id {id} was used by another data directory or was removed: node ids are never used \
         again, choose a new one and an empty data directory"
    ))
}
