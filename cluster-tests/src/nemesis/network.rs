//! The network between the nodes, and to their clients: cut, lossy, slow, reset, flapping.
//!
//! Every fault has rules of its own, so that faults lie on top of each other.

mod cut;
mod link;
pub(super) mod probe;
mod rules;

use cut::{Cut, Extent, Shape};
use link::{Flap, SlowLink};
use rules::{Rules, Trouble};

use super::pick::{self, Whom};
use super::{Arena, Fault, Kind, Needs};

/// The kinds.
pub(super) const KINDS: &[Kind] = &[
    kind("partition-leader", "the leader in the minority", |arena| {
        let (ids, count) = shuffled(arena)?;
        let with = arena.rng.usize(0..((count - 1) / 2).max(1));
        cut(Shape::LeaderInMinority(ids, with))
    }),
    kind("partition-minority", "the leader in the majority, a minority cut off", |arena| {
        let (ids, count) = shuffled(arena)?;
        let off = arena.rng.usize(1..=((count - 1) / 2).max(1));
        cut(Shape::LeaderInMajority(ids, off))
    }),
    kind("partition-halves", "two random sides", |arena| {
        let (ids, _) = shuffled(arena)?;
        let (a, b) = pick::halves(&mut arena.rng, ids);
        cut(Shape::Sides(a, b))
    }),
    kind("partition-bridge", "two sides, and one node that hears both", bridge),
    kind("partition-ring", "each hears only its two neighbours", |arena| {
        let (ids, count) = shuffled(arena)?;
        if count < 4 { bridge(arena) } else { cut(Shape::Ring(ids)) }
    }),
    kind("one-way", "one hears the other, which does not hear it", one_way),
    kind("cut-clients", "clients cannot reach a node that its peers reach", |arena| {
        let reset = arena.rng.bool();
        rules(Trouble::CutClients { reset }, arena)
    }),
    kind("loss", "a share of the packets is lost", |arena| {
        let percent = arena.rng.u8(5..=30);
        let clients_too = arena.rng.bool();
        rules(Trouble::Loss { percent, clients_too }, arena)
    }),
    kind("reset", "connections between peers are reset", |arena| {
        let percent = if arena.rng.bool() { 100 } else { arena.rng.u8(5..=20) };
        rules(Trouble::Reset { percent }, arena)
    }),
    kind("flap", "a node's link goes down and up some times", |arena| {
        let id = pick::one(arena)?;
        Some(Box::new(Flap::draw(id, &mut arena.rng)))
    }),
    kind("slow-link", "a node sends slowly", |arena| {
        let id = pick::one(arena)?;
        let kbit = arena.rng.u32(128..=1024);
        Some(Box::new(SlowLink::new(id, kbit)))
    }),
];

type Draw = fn(&mut Arena) -> Option<Box<dyn Fault>>;

const fn kind(name: &'static str, about: &'static str, draw: Draw) -> Kind {
    Kind { name, about, needs: Needs::Namespaces, alone: false, draw }
}

fn cut(shape: Shape) -> Option<Box<dyn Fault>> {
    Some(Box::new(Cut::new(shape)))
}

/// All nodes in a random order, where there are two of them and one runs.
fn shuffled(arena: &mut Arena) -> Option<(Vec<u64>, usize)> {
    let mut ids = arena.cluster.ids();
    arena.rng.shuffle(&mut ids);
    let count = ids.len();
    (count >= 2 && !arena.cluster.running().is_empty()).then_some((ids, count))
}

fn bridge(arena: &mut Arena) -> Option<Box<dyn Fault>> {
    let (mut ids, count) = shuffled(arena)?;
    if count < 3 {
        return None;
    }
    let on = ids.pop()?;
    let (a, b) = pick::halves(&mut arena.rng, ids);
    cut(Shape::Bridge(on, a, b))
}

/// Between two nodes where there are only two; else between one, or the leader, and all others.
fn one_way(arena: &mut Arena) -> Option<Box<dyn Fault>> {
    if arena.cluster.ids().len() < 2 {
        return None;
    }
    let whom = if arena.rng.bool() { Whom::Leader } else { Whom::Nodes(vec![pick::one(arena)?]) };
    let extent = if arena.rng.bool() { Extent::Packets } else { Extent::Calls };
    let heard = arena.rng.bool();
    cut(if heard { Shape::Deaf(whom, extent) } else { Shape::Unheard(whom, extent) })
}

/// One node has this trouble, or a few, or all.
fn rules(trouble: Trouble, arena: &mut Arena) -> Option<Box<dyn Fault>> {
    let running = arena.cluster.running().len();
    if arena.cluster.ids().len() < 2 || running == 0 {
        return None;
    }
    let count = if arena.rng.bool() { 1 } else { arena.rng.usize(1..=running) };
    let ids = pick::some(arena, count)?;
    Some(Box::new(Rules::new(trouble, ids)))
}
