//! Walking through the keys of a list, a stretch at a time.

use bytes::Bytes;

use super::cursor::go_on_behind;
use crate::error::Result;
use crate::kv::{ListRange, Transaction};

/// Most keys, and bytes of keys and rows, that are stepped over at a stretch: some milliseconds' work,
/// after which a list whose client is gone ends.
const STRETCH_STEPS: usize = 4096;
const STRETCH_BYTES: usize = 4 << 20;

/// Where a walk is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Place {
    /// What is left of the range.
    pub(super) range: ListRange,
    /// Keys still to be left out.
    pub(super) skip: usize,
    /// Keys still to be found.
    pub(super) left: usize,
    /// The last key that was found.
    pub(super) last: Option<Bytes>,
}

/// Why a walk stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The stretch was long enough, or who was told of the keys has enough.
    Pause,
    /// As many keys were found as were wanted; there may be others.
    Limit,
    /// There are no more.
    End,
}

/// Walks on. `found` is told each key with its row as it is stored, and says whether it takes more.
pub(super) fn walk(
    txn: &Transaction,
    place: &mut Place,
    mut found: impl FnMut(&Bytes, &[u8]) -> Result<bool>,
) -> Result<Stop> {
    if place.left == 0 {
        return Ok(Stop::Limit);
    }
    let (mut steps, mut bytes, mut stop, mut passed) = (0, 0, Stop::End, None);
    for step in txn.steps(&place.range) {
        let (name, row) = step?;
        steps += 1;
        bytes += name.len() + row.as_ref().map_or(0, Bytes::len);
        let mut goes_on = steps < STRETCH_STEPS && bytes < STRETCH_BYTES;
        match row {
            Some(_) if place.skip > 0 => place.skip -= 1,
            Some(row) => {
                goes_on &= found(&name, &row)?;
                place.left -= 1;
                place.last = Some(name.clone());
            }
            None => {}
        }
        passed = Some(name);
        if place.left == 0 {
            stop = Stop::Limit;
            break;
        }
        if !goes_on {
            stop = Stop::Pause;
            break;
        }
    }
    if let Some(name) = passed {
        go_on_behind(&mut place.range, &name);
    }
    Ok(stop)
}
