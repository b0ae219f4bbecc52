//! Consensus: openraft's traits implemented over our log, our wire and our state machine.
//!
//! Nothing outside this module names openraft. Its structs change between releases, so they are
//! never written or sent as they are: [`wire`] holds what goes to disk and to peers.

pub mod log_store;
#[cfg(test)]
mod testing;
pub mod types;
pub mod wire;
