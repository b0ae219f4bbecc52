//! The pieces of a call's road, each by itself with the same input every time.
//!
//! They are taken out at the library's public functions, so a piece is what the road runs and no copy of it.
//! Two look at them: `benches/road.rs` takes their time, for people who change one; [`crate::steady`] counts
//! their instructions, which are the same on a noisy machine, and compares them to the table in the
//! repository.
//!
//! A piece that handles a batch counts for as many calls: all figures are per call. What it needs first (a
//! filled state, a node) is made by `start`, and what must come between two runs (waiting for a disk) by
//! `prepare`; neither is counted. A piece is run on one thread, and only that thread's instructions count:
//! where a piece *waits*, others do work of the call meanwhile, so it is counted and not timed.
//!
//! To add one: a function that makes a [`Running`], a row in [`PIECES`], `make bench-baseline`.

mod apply;
mod codec;
mod edge;
mod execute;
mod fixture;
mod log;
mod script;

use kvdb::error::Result;

/// One piece.
pub struct Piece {
    /// What it is called.
    pub name: &'static str,
    /// What it does.
    pub what: &'static str,
    /// How many calls one run is the work of.
    pub calls: u64,
    /// Whether other threads do a part of the work, for which it waits.
    pub waits: bool,
    start: fn() -> Result<Running>,
}

/// A piece that is ready to run.
pub struct Running {
    /// What comes before each run, and is no part of it.
    pub prepare: Option<Box<dyn FnMut()>>,
    /// One run.
    pub run: Box<dyn FnMut()>,
}

impl Running {
    fn new(run: impl FnMut() + 'static) -> Self {
        Running { prepare: None, run: Box::new(run) }
    }
}

impl Piece {
    /// The piece of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Piece> {
        PIECES.iter().find(|piece| piece.name == name)
    }

    /// Makes what it needs.
    ///
    /// # Errors
    /// When the library refuses its input, or the disk fails.
    pub fn start(&self) -> Result<Running> {
        (self.start)()
    }
}

const fn piece(
    name: &'static str,
    what: &'static str,
    calls: usize,
    start: fn() -> Result<Running>,
) -> Piece {
    Piece { name, what, calls: calls as u64, waits: false, start }
}

const fn waiting(name: &'static str, what: &'static str, start: fn() -> Result<Running>) -> Piece {
    Piece { name, what, calls: 1, waits: true, start }
}

/// All pieces, in the order of the road.
pub const PIECES: &[Piece] = &[
    piece("edge_livez", "a request that asks for nothing: taken apart, answered", 1, edge::livez),
    piece("edge_get_stale", "GET of a key from this node's state, the whole edge", 1, edge::stale),
    waiting("edge_get", "GET of a key after a read index: the edge's own thread", edge::get),
    waiting("edge_put", "PUT of 256 bytes: the edge's own thread", edge::put),
    waiting("edge_script", "POST of a transfer: the edge's own thread", edge::script),
    piece("read_key", "a view of the state, the bucket, the grant, a key", 1, execute::read_key),
    piece("execute_put", "PUT run ahead of the log and encoded", BATCH, execute::put),
    piece("overlay", "two keys read and set over what is in flight", BATCH, execute::overlay),
    piece("script_counter", "a counter's script", 1, script::counter),
    piece("script_transfer", "a transfer's script: two reads, two writes", 1, script::transfer),
    piece("script_json", "a script that reads and writes JSON values", 1, script::json),
    piece("encode_command", "a command of a PUT of 256 bytes, to bytes", 1, codec::encode_command),
    piece("decode_command", "the same from bytes", 1, codec::decode_command),
    piece("encode_entries", "entries for a follower, to bytes", BATCH, codec::encode_entries),
    piece("decode_entries", "the same from bytes", BATCH, codec::decode_entries),
    piece("log_append", "entries handed to the log, without the fsync", BATCH, log::append),
    piece("apply_put", "PUTs applied to RocksDB, one batch", BATCH, apply::put_on_disk),
    piece("apply_put_memory", "PUTs applied to the store in memory", BATCH, apply::put_in_memory),
    piece(
        "apply_transfer",
        "transfers applied to RocksDB, one batch",
        BATCH,
        apply::transfer_on_disk,
    ),
    piece(
        "apply_transfer_memory",
        "transfers applied to the store in memory",
        BATCH,
        apply::transfer_in_memory,
    ),
];

/// Commands of a batch: as many as a bucket's turn has at most.
const BATCH: usize = fixture::BATCH;

/// Runs a piece once. What callgrind counts is what happens between entering this and leaving it, so it
/// must stay a function of its own.
#[inline(never)]
pub fn measured(run: &mut dyn FnMut()) {
    run();
    // What follows a tail call would not be within.
    std::hint::black_box(());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_runs() {
        for piece in PIECES {
            let Running { mut prepare, mut run } = piece.start().unwrap();
            for _ in 0..3 {
                prepare.iter_mut().for_each(|prepare| prepare());
                measured(&mut run);
            }
        }
    }

    #[test]
    fn names_are_told_apart() {
        for piece in PIECES {
            assert_eq!(Piece::named(piece.name).unwrap().what, piece.what);
            assert!(!piece.name.contains(char::is_whitespace), "a word in the table");
        }
    }
}
