//! Reports: a page for each run, and an index of them.
//!
//! A run is written as three files into a directory of its name: `index.html`, which is read;
//! `run.json` and `history.jsonl`, from which [`read_run`] makes the same
//! [`Run`](crate::history::Run) again, so that a history can be judged anew without its cluster. A
//! campaign keeps only a [`Summary`] of each run and writes the index from them: hours of histories do
//! not fit into memory.
//!
//! The page is one file without scripts or anything from elsewhere, so that it can be mailed, printed
//! and opened in ten years. Its drawings are SVG, sized by pixels and not by operations.
//!
//! The parts, each on those above it:
//! - `html`: markup from text, and figures as words; `words`: a call in a few words.
//! - `stats`: calls counted; `groups`: kinds of faults by what they strike.
//! - `summary`: what a campaign remembers of a run, and the totals.
//! - `axis`, `lanes`, `plot`, `fragment`: the drawings.
//! - `page`, `sections`, `index`: the pages; `files`: what is on disk.
//!
//! Invariants:
//! - Text reaches a page only through the escaping of `html`.
//! - A page is bounded: what grows with a run is binned, merged or cut, and a cut says so. Only
//!   what a violation says is always shown in full.
//! - Only what holds is a pass: a run in which something is unknown, or which nobody judged, is not
//!   headed `Everything held`.

mod axis;
mod files;
mod fragment;
mod groups;
mod html;
mod index;
mod lanes;
mod page;
mod plot;
mod sections;
mod stats;
mod summary;
#[cfg(test)]
mod tests;
mod words;

pub use files::{read_run, write_index, write_run};
pub use summary::{FaultCount, Summary, Totals, Violation};
