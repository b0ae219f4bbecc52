//! Reads the log when it is opened: cuts a torn tail and refuses damage.
//!
//! After a power cut the last frame may be torn in any way, since a disk writes blocks in the order it likes. It was
//! synced for nobody, and must go. A frame that was synced must not, whatever became of it: cutting it off breaks the
//! promise that made it count for a quorum. Both look alike, a checksum that does not match. What tells one from the
//! other:
//!
//! - A frame is written only when all before it are synced. So a whole frame *behind* a broken one proves that the
//!   broken one was synced: it is damage, and the log is refused. Every frame names its position, so that what lies
//!   about in a recycled file is none.
//! - A segment is begun only when the one before it is synced: all but the newest must be whole.
//! - The position that was last noted as synced ([`super::synced`]): a log that ends before it is damaged.
//!
//! What that leaves: damage to the last frame is taken for a torn one where the power was cut before the kernel had
//! written back the note.

use tracing::warn;

use super::WHAT;
use super::codec;
use super::frame::{self, FRAME_HEAD_BYTES};
use super::log::Log;
use super::segment::{self, Files, Segment, Tail};
use crate::error::{Error, Result};
use crate::mutant::{self, Mutant};

/// Replays all segments into a log, of which everything is on disk then. The segment to go on with, if there is one.
pub(super) fn replay(
    files: &Files,
    starts: &[u64],
    synced: u64,
    log: &mut Log,
) -> Result<Option<Tail>> {
    let (mut end, mut newest) = (0, None::<Tail>);
    for (at, &start) in starts.iter().enumerate() {
        if at > 0 && start != end {
            return Err(damaged(files, start, "the segment before it ends at", end));
        }
        let (segment, bytes) = files.read(start)?;
        log.begun(segment.clone());
        let last = replay_segment(&segment, &bytes, log)?;
        end = last.end;
        if let Some(next) = starts.get(at + 1) {
            must_reach(files, start, end, *next)?;
        } else {
            judge_tail(files, &segment, &bytes, end)?;
            must_reach(files, start, end, synced)?;
            let tail = files.tail(segment)?;
            put_on_disk(&tail, &bytes, &last)?;
            newest = Some(tail);
        }
    }
    if starts.is_empty() {
        must_reach(files, 0, 0, synced)?;
    }
    log.replayed(end)?;
    Ok(newest)
}

/// Where the last whole frame of a segment is.
struct LastFrame {
    start: u64,
    end: u64,
}

/// After a crash of the process the last frame may be whole but not synced, and the next one will say that it is. It is
/// written again: where its sync had failed, the kernel takes what it has in memory for written.
fn put_on_disk(tail: &Tail, bytes: &[u8], last: &LastFrame) -> Result<()> {
    let at = |position: u64| usize::try_from(position - tail.segment.start).unwrap_or(usize::MAX);
    let frame = bytes.get(at(last.start)..at(last.end)).unwrap_or_default();
    tail.rewrite(frame, last.start)?;
    Ok(tail.sync()?)
}

/// Replays the frames of a segment until one is not whole; the last before that.
fn replay_segment(segment: &Segment, bytes: &[u8], log: &mut Log) -> Result<LastFrame> {
    let (mut rest, mut position) = segment::frames(bytes, segment.start);
    let (mut first, mut last) = (true, position);
    while let Some(records) = frame::open(rest, segment.nonce, position) {
        replay_records(records, position + FRAME_HEAD_BYTES as u64, first, log)?;
        let length = FRAME_HEAD_BYTES + records.len();
        last = position;
        position += length as u64;
        rest = rest.get(length..).unwrap_or_default();
        first = false;
    }
    if first {
        let detail = format!("the segment at {} has no head", segment.start);
        return Err(Error::corrupt(WHAT, detail));
    }
    Ok(LastFrame { start: last, end: position })
}

/// The first frame of a segment repeats what the log says; of the oldest, it is all that is left of what was before.
fn replay_records(mut rest: &[u8], at: u64, first: bool, log: &mut Log) -> Result<()> {
    let length = rest.len();
    while !rest.is_empty() {
        let before = rest;
        let position = at + (length - rest.len()) as u64;
        let record = codec::decode(&mut rest)?;
        let bytes = before.get(..before.len() - rest.len()).unwrap_or_default();
        if matches!(record, codec::Record::Head(_)) != first {
            return Err(Error::corrupt(WHAT, format!("a head out of place at {position}")));
        }
        log.replay(record, position, bytes)?;
    }
    Ok(())
}

/// What is behind the last whole frame: nothing, or a torn frame.
fn judge_tail(files: &Files, segment: &Segment, bytes: &[u8], end: u64) -> Result<()> {
    let at = usize::try_from(end - segment.start).unwrap_or(usize::MAX);
    let rest = bytes.get(at..).unwrap_or_default();
    if let Some(behind) = frame::find(rest, segment.nonce, end)
        && !mutant::is(Mutant::SkipCorrupt)
    {
        let detail = format!("{} is damaged at {end}, before", files.path(segment.start).display());
        return Err(Error::corrupt(WHAT, format!("{detail} a whole frame at {behind}")));
    }
    if frame::is_begun(rest, end) {
        let path = files.path(segment.start);
        warn!(path = %path.display(), position = end, "cutting a torn tail off the log");
    }
    Ok(())
}

/// Refuses a log that ends before what was synced.
fn must_reach(files: &Files, start: u64, end: u64, synced: u64) -> Result<()> {
    if end < synced && !mutant::is(Mutant::SkipCorrupt) {
        let path = files.path(start);
        let detail = format!("{} ends at {end}, and was synced up to {synced}", path.display());
        return Err(Error::corrupt(WHAT, detail));
    }
    Ok(())
}

fn damaged(files: &Files, start: u64, what: &str, position: u64) -> Error {
    Error::corrupt(WHAT, format!("{}: {what} {position}", files.path(start).display()))
}
