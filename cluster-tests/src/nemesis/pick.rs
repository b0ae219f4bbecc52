//! Whom a fault meets.
//!
//! Invariants:
//! - A node is drawn from those that run; who leads is asked when the fault is installed, not before.
//! - A fault that needs a node's disk for itself is drawn where no other has the disk, and claims it.

use std::time::Duration;

use super::{Arena, ask, node};

/// How long to look for a leader: where a quorum is missing by another fault, there will be none.
const LEADER: Duration = Duration::from_secs(8);

/// One of the nodes that run.
pub(super) fn one(arena: &mut Arena) -> Option<u64> {
    let running = arena.cluster.running();
    arena.rng.choice(running)
}

/// This many of the nodes that run, in order.
pub(super) fn some(arena: &mut Arena, count: usize) -> Option<Vec<u64>> {
    let running = arena.cluster.running();
    some_of(&mut arena.rng, running, count)
}

/// This many of the ids, in order.
pub(super) fn some_of(
    rng: &mut fastrand::Rng,
    mut ids: Vec<u64>,
    count: usize,
) -> Option<Vec<u64>> {
    if count == 0 || ids.len() < count {
        return None;
    }
    rng.shuffle(&mut ids);
    ids.truncate(count);
    ids.sort_unstable();
    Some(ids)
}

/// So many nodes that run that the rest is no majority; not all of them, where there are more.
pub(super) fn majority(arena: &mut Arena) -> Option<Vec<u64>> {
    let all = arena.cluster.ids().len();
    let least = all / 2 + 1;
    let most = (all.saturating_sub(1)).max(least);
    let count = arena.rng.usize(least..=most);
    some(arena, count)
}

/// Every node that runs.
pub(super) fn all(arena: &mut Arena) -> Option<Vec<u64>> {
    let running = arena.cluster.running();
    (!running.is_empty()).then_some(running)
}

/// The nodes that run and do not stand still.
pub(super) fn awake(arena: &mut Arena) -> Vec<u64> {
    let mut running = arena.cluster.running();
    running.retain(|id| !node::pid(arena, *id).is_ok_and(node::stands_still));
    running
}

/// The nodes that run and whose disk no fault has. Where nodes have no disks of their own, none has.
pub(super) fn free(arena: &mut Arena) -> Vec<u64> {
    let mut running = arena.cluster.running();
    running.retain(|id| !arena.lab.disk(*id).is_ok_and(|disk| disk.is_claimed()));
    running
}

/// Whoever leads.
pub(super) async fn leader(arena: &mut Arena) -> Result<u64, String> {
    Ok(ask::await_leader(arena, LEADER).await?.node_id)
}

/// Whom a fault meets: drawn before, or whoever leads once it is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whom {
    /// These nodes.
    Nodes(Vec<u64>),
    /// Whoever leads.
    Leader,
}

impl Whom {
    /// The nodes. Whoever leads is settled now, and stays settled.
    pub(super) async fn settle(&mut self, arena: &mut Arena) -> Result<Vec<u64>, String> {
        if *self == Whom::Leader {
            *self = Whom::Nodes(vec![leader(arena).await?]);
        }
        Ok(self.nodes())
    }

    /// The nodes; none while it is not settled who leads.
    pub(super) fn nodes(&self) -> Vec<u64> {
        match self {
            Whom::Nodes(ids) => ids.clone(),
            Whom::Leader => Vec::new(),
        }
    }
}

impl std::fmt::Display for Whom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Whom::Nodes(ids) => f.write_str(&list(ids)),
            Whom::Leader => f.write_str("whoever leads"),
        }
    }
}

/// Ids as a report shows them: `1 3`.
pub(super) fn list(ids: &[u64]) -> String {
    ids.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")
}

/// Splits ids at random, as evenly as can be; the second part is not smaller.
pub(super) fn halves(rng: &mut fastrand::Rng, mut ids: Vec<u64>) -> (Vec<u64>, Vec<u64>) {
    rng.shuffle(&mut ids);
    let mut rest = ids.split_off(ids.len() / 2);
    ids.sort_unstable();
    rest.sort_unstable();
    (ids, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_even_and_complete() {
        let mut rng = fastrand::Rng::with_seed(1);
        let (a, b) = halves(&mut rng, (1..=5).collect());
        assert_eq!((a.len(), b.len()), (2, 3));
        let mut all = [a, b].concat();
        all.sort_unstable();
        assert_eq!(all, vec![1, 2, 3, 4, 5]);
    }

    #[test]
    fn some_are_as_many_as_asked_for_or_none() {
        let mut rng = fastrand::Rng::with_seed(1);
        let two = some_of(&mut rng, vec![3, 1, 2], 2).unwrap();
        assert!(two.len() == 2 && two.is_sorted(), "{two:?}");
        assert_eq!(some_of(&mut rng, vec![3, 1, 2], 3), Some(vec![1, 2, 3]));
        assert_eq!(some_of(&mut rng, vec![3, 1, 2], 4), None);
        assert_eq!(some_of(&mut rng, vec![3, 1, 2], 0), None);
    }
}
