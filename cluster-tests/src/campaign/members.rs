//! Members and processes made one again. A change of members that was given up half way, since no quorum
//! was left for it, may have been made later: then a node runs that is no member, or a member has no
//! node.

use std::time::Duration;

use crate::launch::ADMIN_KEY;
use crate::nemesis::{self, Arena};
use crate::status::Status;
use crate::wait;

/// How long it may take to find a leader that answers.
const LEADER: Duration = Duration::from_secs(30);
/// How long one change may take.
const CHANGE: Duration = Duration::from_secs(25);

/// What is said of a member that the leader says it has removed, and has not.
pub(super) const STALE: &str = "was removed, and is still a member";

/// Ends nodes that are no members, and removes members that have no node.
pub(super) async fn reconcile(arena: &mut Arena) {
    let told = wait::try_until(LEADER, async || leader(arena).await).await;
    let status = match told {
        Ok(status) => status,
        Err(why) => return arena.troubles.push(format!("nobody tells the members: {why}")),
    };
    let members: Vec<u64> = status.members.iter().map(|member| member.id).collect();
    let nodes = arena.cluster.ids();
    for id in nodes.iter().filter(|id| !members.contains(id)) {
        arena.cluster.destroy(*id);
    }
    for id in members.iter().filter(|id| !nodes.contains(id)) {
        if let Err(why) = remove(arena, status.node_id, *id).await {
            arena.troubles.push(format!("member {id}, which has no node, was not removed: {why}"));
        } else if leader(arena).await.is_ok_and(|now| now.members.iter().any(|m| m.id == *id)) {
            arena.troubles.push(format!("member {id} {STALE}"));
        }
    }
}

/// What a leader says that can commit: it says so of itself, and a follower agrees. Members of a change
/// under way are not settled.
async fn leader(arena: &mut Arena) -> Result<Status, String> {
    let status = nemesis::who_leads(arena).await?;
    let probe = arena.cluster.http.get(arena.cluster.at(status.node_id, "/no-such-bucket/k"));
    let reply = probe.timeout(Duration::from_secs(3)).send().await.map_err(|e| e.reason)?;
    // A 404 comes after a read index: a quorum answers.
    wait::holds(reply.status == 404, || format!("the leader does not serve: {reply}"))?;
    Ok(status)
}

async fn remove(arena: &Arena, leader: u64, id: u64) -> Result<(), String> {
    let url = arena.cluster.at(leader, &format!("/-/cluster/members/{id}"));
    let call = arena.cluster.http.call("DELETE", url).bearer(ADMIN_KEY).timeout(CHANGE);
    let reply = call.send().await.map_err(|failure| failure.reason)?;
    wait::holds(reply.status < 300, || reply.to_string())
}
