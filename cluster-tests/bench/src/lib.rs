//! KVdb beside its peers: the same load on each, in turn, on one machine.

pub mod pieces;
pub mod steady;
