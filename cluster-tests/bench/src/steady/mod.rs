//! Instructions of each piece, counted by callgrind and held against the table in the repository.
//!
//! Time differs from run to run on a machine that others use, by more than what a careless change costs.
//! Instructions do not: each piece runs by itself in a process of its own under callgrind, which counts what
//! its thread executes between entering and leaving [`crate::pieces::measured`], after some runs that warm
//! it up. What is left to chance is small: the seeds of hash maps, and which thread comes first where a piece
//! waits. What an instruction costs is another matter, and no figure here says it: a cache miss, a lock and a
//! system call count little or nothing.
//!
//! The figures are those of a compiler, of the profile `test-release` (our debug assertions included) and of
//! the processor that valgrind shows to programs, on which glibc chooses its `memcpy`: that of any machine
//! with AVX2.

mod callgrind;
mod table;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::pieces::{PIECES, Piece, Running, measured};
pub use callgrind::{Counted, count};
pub use table::{Difference, Table, Verdict, compare, passes};

/// Where the table is.
#[must_use]
pub fn baseline_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.txt")
}

/// Runs of a piece that come first and are not counted: caches fill, buffers grow.
const WARM_UP_RUNS: u64 = 20;
/// Calls that are counted, at least: enough that a garbage collector's rounds even out.
const COUNTED_CALLS: u64 = 400;
/// Runs that are counted, at least.
const COUNTED_RUNS: u64 = 50;

/// How many runs of a piece are counted.
#[must_use]
pub fn counted_runs(piece: &Piece) -> u64 {
    (COUNTED_CALLS / piece.calls).max(COUNTED_RUNS)
}

/// Runs a piece for callgrind to count.
///
/// # Errors
/// When what the piece needs cannot be made.
pub fn run(piece: &Piece) -> kvdb::error::Result<()> {
    let Running { mut prepare, mut run } = piece.start()?;
    for number in 0..WARM_UP_RUNS + counted_runs(piece) {
        prepare.iter_mut().for_each(|prepare| prepare());
        if number < WARM_UP_RUNS {
            run();
        } else {
            measured(&mut run);
        }
    }
    Ok(())
}

/// Counts the pieces whose names hold one of these words, or all pieces; as many at a time as there are
/// processors.
///
/// # Errors
/// When valgrind is not there, or a piece does not run.
pub fn measure(words: &[String]) -> io::Result<Table> {
    let chosen = |piece: &&Piece| {
        words.is_empty() || words.iter().any(|word| piece.name.contains(word.as_str()))
    };
    let pieces: Vec<&Piece> = PIECES.iter().filter(chosen).collect();
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || -> io::Result<()> {
        while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            let counted = count(piece, None)?;
            rows.lock()
                .expect("nobody panics with it")
                .push((piece.name.to_owned(), counted.per_call));
        }
        Ok(())
    };
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("it returns its errors"))
    })?;
    let counted = rows.into_inner().expect("nobody panics with it");
    Ok(Table { made_by: made_by()?, rows: in_order(counted) })
}

/// In the order of the road.
fn in_order(mut rows: Vec<(String, u64)>) -> Vec<(String, u64)> {
    rows.sort_by_key(|(name, _)| PIECES.iter().position(|piece| piece.name == name));
    rows
}

/// What the figures depend on beside the sources.
fn made_by() -> io::Result<String> {
    let version = |program: &str| -> io::Result<String> {
        let output = Command::new(program).arg("--version").output();
        let output = output.map_err(|error| io::Error::other(format!("{program}: {error}")))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    Ok(format!("{}, {}, {}", version(&rustc)?, version("valgrind")?, std::env::consts::ARCH))
}
