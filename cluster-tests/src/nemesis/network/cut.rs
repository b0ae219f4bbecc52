//! Nodes that do not hear each other.
//!
//! A cut is a set of ordered pairs: the second does not hear the first. The receiver's rules drop what the
//! sender sent; the sender learns nothing of it.
//!
//! Invariants:
//! - Clients reach every node, on both sides.
//! - It is confirmed by pings that do not come back on every pair, and one that does where a pair is not cut.

use std::fmt;

use super::probe::{self, End};
use crate::lab::{Filter, Network, PEER_PORT};
use crate::nemesis::pick::{self, Whom};
use crate::nemesis::{Arena, Evidence, Fault, Task};

/// How often pings are sent until the rules have dropped one.
const ATTEMPTS: usize = 3;

/// Who does not hear whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Some on one side, the others on the other.
    Sides(Vec<u64>, Vec<u64>),
    /// Whoever leads, with fewer than half beside it; who these are is drawn from the rest, in this order.
    LeaderInMinority(Vec<u64>, usize),
    /// Whoever leads is with the majority; so many of these, in this order, are not.
    LeaderInMajority(Vec<u64>, usize),
    /// The first sees both sides, which do not see each other.
    Bridge(u64, Vec<u64>, Vec<u64>),
    /// Each sees only its neighbours, in this order.
    Ring(Vec<u64>),
    /// The others do not hear these; all that these send, or only the calls that they begin.
    Unheard(Whom, Extent),
    /// These do not hear the others.
    Deaf(Whom, Extent),
}

/// What is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// Every packet: no connection works, but what is sent on an open one still arrives on one side.
    Packets,
    /// Packets to the port for peers: calls in one direction fail, those in the other work.
    Calls,
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Extent::Packets { "packets" } else { "calls" })
    }
}

/// A cut that can be put in and taken away.
pub(super) struct Cut {
    shape: Shape,
    filter: Filter,
}

impl Cut {
    pub(super) fn new(shape: Shape) -> Self {
        Cut { shape, filter: Filter::default() }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use pick::list;
        match &self.shape {
            Shape::Sides(a, b) => write!(f, "cut {} | {}", list(a), list(b)),
            Shape::LeaderInMinority(_, with) => write!(f, "cut the leader and {with} off"),
            Shape::LeaderInMajority(_, off) => write!(f, "cut {off} off from the leader's side"),
            Shape::Bridge(on, a, b) => write!(f, "cut {} | {}, {on} sees both", list(a), list(b)),
            Shape::Ring(ids) => write!(f, "a ring {}", list(ids)),
            Shape::Unheard(whom, extent) => write!(f, "{extent} of {whom} arrive nowhere"),
            Shape::Deaf(whom, extent) => write!(f, "{extent} of others do not arrive at {whom}"),
        }
    }
}

impl Shape {
    /// Finds out who leads, where that matters. What was settled stays settled.
    async fn settle(&mut self, arena: &mut Arena) -> Result<(), String> {
        match self {
            Shape::LeaderInMinority(ids, with) => {
                let leader = pick::leader(arena).await?;
                let mut rest = without(ids, leader);
                let mut minority: Vec<u64> = rest.drain(..(*with).min(rest.len())).collect();
                minority.push(leader);
                minority.sort_unstable();
                rest.sort_unstable();
                *self = Shape::Sides(minority, rest);
            }
            Shape::LeaderInMajority(ids, off) => {
                let leader = pick::leader(arena).await?;
                let mut rest = without(ids, leader);
                let mut minority: Vec<u64> = rest.drain(..(*off).min(rest.len())).collect();
                rest.push(leader);
                minority.sort_unstable();
                rest.sort_unstable();
                *self = Shape::Sides(minority, rest);
            }
            Shape::Unheard(whom, _) | Shape::Deaf(whom, _) => {
                whom.settle(arena).await?;
            }
            Shape::Sides(..) | Shape::Bridge(..) | Shape::Ring(_) => {}
        }
        Ok(())
    }

    /// The pairs of which the second does not hear the first. It must be settled.
    fn pairs(&self, all: &[u64]) -> Vec<(u64, u64)> {
        let across = |a: &[u64], b: &[u64]| -> Vec<(u64, u64)> {
            a.iter().flat_map(|a| b.iter().map(|b| (*a, *b))).filter(|(a, b)| a != b).collect()
        };
        match self {
            Shape::Sides(a, b) | Shape::Bridge(_, a, b) => [across(a, b), across(b, a)].concat(),
            Shape::Ring(ids) => {
                let mut pairs = across(ids, ids);
                pairs.retain(|(a, b)| !are_neighbours(ids, *a, *b));
                pairs
            }
            Shape::Unheard(whom, _) => across(&whom.nodes(), all),
            Shape::Deaf(whom, _) => across(all, &whom.nodes()),
            Shape::LeaderInMinority(..) | Shape::LeaderInMajority(..) => Vec::new(),
        }
    }

    /// Whether the other direction is open.
    fn one_way(&self) -> Option<Extent> {
        match self {
            Shape::Unheard(_, extent) | Shape::Deaf(_, extent) => Some(*extent),
            _ => None,
        }
    }
}

fn without(ids: &[u64], id: u64) -> Vec<u64> {
    ids.iter().copied().filter(|other| *other != id).collect()
}

fn are_neighbours(ring: &[u64], a: u64, b: u64) -> bool {
    let place = |id| ring.iter().position(|other| *other == id).unwrap_or(0);
    let apart = place(a).abs_diff(place(b));
    apart == 1 || apart == ring.len() - 1
}

impl Fault for Cut {
    fn install<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, Evidence> {
        Box::pin(async move {
            self.shape.settle(arena).await?;
            let all = arena.cluster.ids();
            let pairs = self.shape.pairs(&all);
            if pairs.is_empty() {
                return Err("there is no pair to cut".to_owned());
            }
            let extent = self.shape.one_way();
            self.put_rules(&pairs, extent);
            self.filter.install()?;
            match extent {
                None => self.confirm_cut(&pairs, &all).await,
                Some(extent) => self.confirm_one_way(&pairs, extent).await,
            }
        })
    }

    fn undo<'a>(&'a mut self, _arena: &'a mut Arena) -> Task<'a, ()> {
        Box::pin(async move { self.filter.remove() })
    }
}

impl Cut {
    fn put_rules(&mut self, pairs: &[(u64, u64)], extent: Option<Extent>) {
        self.filter.clear();
        for (from, to) in pairs {
            let port = match extent {
                Some(Extent::Calls) => format!("tcp dport {PEER_PORT} "),
                _ => String::new(),
            };
            let rule = format!("ip saddr {} {port}counter drop", Network::address(*from));
            self.filter.input(*to, rule);
            if extent.is_some() {
                // Drops nothing: it shows that the other direction is open.
                self.filter.input(*from, format!("ip saddr {} counter", Network::address(*to)));
            }
        }
    }

    /// Nothing comes through on any pair; something does on a pair that is not cut, where there is one.
    async fn confirm_cut(&self, pairs: &[(u64, u64)], all: &[u64]) -> Result<Evidence, String> {
        let dropped = self.drops(pairs).await?;
        let open = all.iter().flat_map(|a| all.iter().map(|b| (*a, *b)));
        let open = open.into_iter().find(|(a, b)| a < b && !pairs.contains(&(*a, *b)));
        let passes = match open {
            None => String::new(),
            Some((a, b)) if probe::passes(End::Node(a), End::Node(b)).await? => {
                format!("; {a} and {b} hear each other")
            }
            Some((a, b)) => format!("; {a} and {b} are silent too, by another fault"),
        };
        Ok(format!("no ping on {} pairs, {dropped} packets dropped{passes}", pairs.len()))
    }

    /// How many packets the rules dropped, where they do and no ping comes back. Another fault may drop
    /// them before our rules see them, for a while.
    async fn drops(&self, pairs: &[(u64, u64)]) -> Result<u64, String> {
        for _ in 0..ATTEMPTS {
            let silent = probe::silent(pairs).await?;
            if let Some((from, to)) = pairs.iter().find(|pair| !silent.contains(pair)) {
                return Err(format!("a ping from {from} to {to} came back"));
            }
            let dropped = self.filter.counted_in_all()?;
            if dropped > 0 {
                return Ok(dropped);
            }
        }
        Err("no packet came as far as these rules: another fault drops them before".to_owned())
    }

    /// What goes one way is dropped, what goes the other arrives.
    async fn confirm_one_way(
        &self,
        pairs: &[(u64, u64)],
        extent: Extent,
    ) -> Result<Evidence, String> {
        let (from, to) = *pairs.first().ok_or("there is no pair")?;
        let hears = match extent {
            // No ping comes back either way: the answers of one direction are dropped as the questions
            // of the other are. What arrives is counted.
            Extent::Packets => probe::silent(&[(from, to), (to, from)]).await?.is_empty(),
            Extent::Calls => probe::reaches(End::Node(from), to, PEER_PORT).await?,
        };
        if hears {
            return Err(format!("node {to} still hears node {from}"));
        }
        let dropped = self.filter.counted(to)?;
        if dropped == 0 {
            return Err(format!("node {to} dropped nothing of node {from}"));
        }
        let back = match extent {
            Extent::Packets => self.filter.counted(from)? > 0,
            Extent::Calls => probe::reaches(End::Node(to), from, PEER_PORT).await?,
        };
        let back = if back { "hears" } else { "by another fault does not hear" };
        Ok(format!("{to} dropped {dropped} packets of {from}, which {back} {to}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_cut_both_ways() {
        let shape = Shape::Sides(vec![1], vec![2, 3]);
        assert_eq!(shape.pairs(&[1, 2, 3]), [(1, 2), (1, 3), (2, 1), (3, 1)]);
    }

    #[test]
    fn a_bridge_hears_everybody() {
        let pairs = Shape::Bridge(3, vec![1, 2], vec![4, 5]).pairs(&[1, 2, 3, 4, 5]);
        assert_eq!(pairs.len(), 8);
        assert!(pairs.iter().all(|(a, b)| *a != 3 && *b != 3));
    }

    #[test]
    fn in_a_ring_each_hears_two() {
        let pairs = Shape::Ring(vec![3, 1, 5, 2, 4]).pairs(&[1, 2, 3, 4, 5]);
        for id in 1..=5 {
            assert_eq!(pairs.iter().filter(|(_, to)| *to == id).count(), 2, "{id}: {pairs:?}");
        }
        assert!(!pairs.contains(&(3, 4)) && !pairs.contains(&(1, 5)));
    }

    #[test]
    fn one_way_is_one_way() {
        let whom = Whom::Nodes(vec![2]);
        assert_eq!(Shape::Unheard(whom.clone(), Extent::Calls).pairs(&[1, 2, 3]), [(2, 1), (2, 3)]);
        assert_eq!(Shape::Deaf(whom, Extent::Calls).pairs(&[1, 2, 3]), [(1, 2), (3, 2)]);
    }
}
