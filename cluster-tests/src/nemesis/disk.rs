//! Disks that stall, fill up, become read-only, are slow, or fail.
//!
//! A node may exit on such a fault, and most do: what counts is that it acknowledges nothing that is not on
//! disk. Undoing starts it again.
//!
//! Invariants:
//! - One fault has a disk at a time: it is claimed for as long.

mod broken;
mod traced;

use std::time::Duration;

use broken::{Full, ReadOnly, Stall};
use traced::{Injection, Traced};

use super::{Arena, Fault, Kind, Needs, node, pick};

/// The kinds.
pub(super) const KINDS: &[Kind] = &[
    kind("disk-stall", "a disk answers nothing for seconds", Needs::Disks, |arena| {
        let id = one(arena)?;
        let stall = Duration::from_millis(arena.rng.u64(1000..=5000));
        Some(Box::new(Stall::new(id, stall)))
    }),
    kind("disk-full", "a disk is full", Needs::Disks, |arena| {
        Some(Box::new(Full::new(one(arena)?)))
    }),
    kind(
        "disk-read-only",
        "a file system meets an error and is read-only",
        Needs::Disks,
        |arena| Some(Box::new(ReadOnly::new(one(arena)?))),
    ),
    kind("disk-slow", "each sync takes long", Needs::Tracing, |arena| {
        let delay = Duration::from_millis(arena.rng.u64(50..=300));
        traced(arena, Injection::Slow(delay))
    }),
    kind("disk-eio-once", "a sync fails, the next would not", Needs::Tracing, |arena| {
        traced(arena, Injection::FailOnce)
    }),
    kind("disk-eio", "every sync fails", Needs::Tracing, |arena| traced(arena, Injection::Fail)),
];

type Draw = fn(&mut Arena) -> Option<Box<dyn Fault>>;

const fn kind(name: &'static str, about: &'static str, needs: Needs, draw: Draw) -> Kind {
    Kind { name, about, needs, alone: false, draw }
}

fn one(arena: &mut Arena) -> Option<u64> {
    let free = pick::free(arena);
    arena.rng.choice(free)
}

fn traced(arena: &mut Arena, injection: Injection) -> Option<Box<dyn Fault>> {
    let mut awake = pick::awake(arena);
    awake.retain(|id| node::pid(arena, *id).is_ok_and(|pid| node::tracer(pid).is_none()));
    let id = arena.rng.choice(awake)?;
    Some(Box::new(Traced::new(id, injection)))
}
