//! What the nodes stand on: a network namespace, an address, a disk image and a clock for each.

/// The machine of a run.
pub struct Lab {}
