//! The bytes of records, of which a frame holds one or many.
//!
//! Numbers are big endian. Each record begins with its kind:
//!
//! | kind | record | layout |
//! |---|---|---|
//! | 1 | an entry | log id, body |
//! | 2 | a vote | term `u64`, node `u64`, committed `u8` |
//! | 3 | what is committed | log id |
//! | 4 | a truncation | the log id that is the last from here on, if there is one |
//! | 5 | a purge | the log id up to which entries are gone |
//! | 6 | a head | what a segment begins with: vote, committed, purged, last; each if there is one |
//!
//! A log id is term `u64` and index `u64`. What may be missing is one byte, 0 or 1, and as many bytes in either
//! case. A body is kind `u8`, length `u32` and that many bytes: of kind 0 it is empty (blank), of kind 1 a command
//! as its proposer encoded it, of kind 2 a membership in [`crate::encoding`].

use bytes::{Buf, BufMut, Bytes};

use super::WHAT;
use crate::encoding;
use crate::error::{Error, Result};
use crate::raft::wire::{Body, Entry, LogId, Membership, Vote};

/// What the log says besides its entries. Every segment begins with it, so that older ones can go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    /// Entries up to here are gone.
    pub(super) purged: Option<LogId>,
    /// The newest entry, or else what was purged.
    pub(super) last: Option<LogId>,
}

/// A change of the log, as it is on disk.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Record {
    Entry(Entry),
    Vote(Vote),
    Committed(LogId),
    Truncate(Option<LogId>),
    Purge(LogId),
    Head(Head),
}

/// Bytes of an encoded head.
pub(super) const HEAD_BYTES: usize = 1 + (1 + VOTE_BYTES) + 3 * (1 + LOG_ID_BYTES);
const LOG_ID_BYTES: usize = 16;
const VOTE_BYTES: usize = 17;

const ENTRY: u8 = 1;
const VOTE: u8 = 2;
const COMMITTED: u8 = 3;
const TRUNCATE: u8 = 4;
const PURGE: u8 = 5;
const HEAD: u8 = 6;

const BLANK: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// Roughly what an entry takes in memory and in a message.
pub(super) fn size(body: &Body) -> u64 {
    const FRAME: u64 = 64;
    match body {
        Body::Blank => FRAME,
        Body::Command(bytes) => FRAME + bytes.len() as u64,
        Body::Membership(membership) => FRAME * (1 + membership.nodes.len() as u64),
    }
}

/// Puts a record behind what is there.
pub(super) fn encode(record: &Record, to: &mut Vec<u8>) -> Result<()> {
    match record {
        Record::Entry(entry) => encode_entry(entry, to)?,
        Record::Vote(vote) => {
            to.put_u8(VOTE);
            put_vote(vote, to);
        }
        Record::Committed(committed) => {
            to.put_u8(COMMITTED);
            put_log_id(committed, to);
        }
        Record::Truncate(last) => {
            to.put_u8(TRUNCATE);
            put_option(last.as_ref(), LOG_ID_BYTES, put_log_id, to);
        }
        Record::Purge(upto) => {
            to.put_u8(PURGE);
            put_log_id(upto, to);
        }
        Record::Head(head) => {
            to.put_u8(HEAD);
            put_option(head.vote.as_ref(), VOTE_BYTES, put_vote, to);
            for log_id in [head.committed, head.purged, head.last] {
                put_option(log_id.as_ref(), LOG_ID_BYTES, put_log_id, to);
            }
        }
    }
    Ok(())
}

/// Puts an entry's record behind what is there; fails only where it is larger than 4 GB.
pub(super) fn encode_entry(entry: &Entry, to: &mut Vec<u8>) -> Result<()> {
    to.put_u8(ENTRY);
    put_log_id(&entry.log_id, to);
    match &entry.body {
        Body::Blank => put_body(BLANK, &[], to),
        Body::Command(bytes) => put_body(COMMAND, bytes, to),
        Body::Membership(membership) => put_body(MEMBERSHIP, &encoding::encode(membership)?, to),
    }
}

fn put_body(kind: u8, bytes: &[u8], to: &mut Vec<u8>) -> Result<()> {
    let limit = Error::TooLarge { limit: "log entry", max: u64::from(u32::MAX) };
    let length = u32::try_from(bytes.len()).map_err(|_| limit)?;
    to.put_u8(kind);
    to.put_u32(length);
    to.put_slice(bytes);
    Ok(())
}

fn put_log_id(log_id: &LogId, to: &mut Vec<u8>) {
    to.put_u64(log_id.term);
    to.put_u64(log_id.index);
}

fn put_vote(vote: &Vote, to: &mut Vec<u8>) {
    to.put_u64(vote.term);
    to.put_u64(vote.node);
    to.put_u8(u8::from(vote.committed));
}

fn put_option<T>(value: Option<&T>, bytes: usize, put: fn(&T, &mut Vec<u8>), to: &mut Vec<u8>) {
    to.put_u8(u8::from(value.is_some()));
    match value {
        Some(value) => put(value, to),
        None => to.put_bytes(0, bytes),
    }
}

/// Takes the first record off some bytes.
pub(super) fn decode(from: &mut &[u8]) -> Result<Record> {
    Ok(match u8_of(from)? {
        ENTRY => Record::Entry(Entry { log_id: log_id(from)?, body: body(from)? }),
        VOTE => Record::Vote(vote(from)?),
        COMMITTED => Record::Committed(log_id(from)?),
        TRUNCATE => Record::Truncate(option(from, log_id)?),
        PURGE => Record::Purge(log_id(from)?),
        HEAD => Record::Head(Head {
            vote: option(from, vote)?,
            committed: option(from, log_id)?,
            purged: option(from, log_id)?,
            last: option(from, log_id)?,
        }),
        other => return Err(Error::corrupt(WHAT, format!("a record of kind {other}"))),
    })
}

fn log_id(from: &mut &[u8]) -> Result<LogId> {
    Ok(LogId { term: u64_of(from)?, index: u64_of(from)? })
}

fn vote(from: &mut &[u8]) -> Result<Vote> {
    Ok(Vote { term: u64_of(from)?, node: u64_of(from)?, committed: flag(from)? })
}

fn body(from: &mut &[u8]) -> Result<Body> {
    let (kind, length) = (u8_of(from)?, u32_of(from)? as usize);
    let (bytes, rest) = from.split_at_checked(length).ok_or_else(too_short)?;
    *from = rest;
    match kind {
        BLANK if bytes.is_empty() => Ok(Body::Blank),
        COMMAND => Ok(Body::Command(Bytes::copy_from_slice(bytes))),
        MEMBERSHIP => encoding::decode::<Membership>("membership", bytes).map(Body::Membership),
        other => Err(Error::corrupt(WHAT, format!("an entry of kind {other} and {length} bytes"))),
    }
}

fn option<T>(from: &mut &[u8], take: fn(&mut &[u8]) -> Result<T>) -> Result<Option<T>> {
    let there = flag(from)?;
    let value = take(from)?;
    Ok(there.then_some(value))
}

fn flag(from: &mut &[u8]) -> Result<bool> {
    match u8_of(from)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Error::corrupt(WHAT, format!("a flag is {other}"))),
    }
}

fn u8_of(from: &mut &[u8]) -> Result<u8> {
    from.try_get_u8().map_err(|_| too_short())
}

fn u32_of(from: &mut &[u8]) -> Result<u32> {
    from.try_get_u32().map_err(|_| too_short())
}

fn u64_of(from: &mut &[u8]) -> Result<u64> {
    from.try_get_u64().map_err(|_| too_short())
}

fn too_short() -> Error {
    Error::corrupt(WHAT, "a record ends before it is whole")
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{damage, damaged, fuzz};

    const ID: LogId = LogId { term: 1, index: 0x0203 };

    fn bytes(record: &Record) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(record, &mut bytes).unwrap();
        bytes
    }

    fn entry(body: Body) -> Record {
        Record::Entry(Entry { log_id: ID, body })
    }

    #[test]
    fn bytes_of_records_do_not_change() {
        let id = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 2, 3];
        let vote = Vote { term: 1, node: 2, committed: true };
        let vote_bytes = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 1];
        let head = Head { vote: Some(vote), committed: None, purged: None, last: Some(ID) };
        let none = [0; 17];
        let present = |bytes: &[u8]| [&[1], bytes].concat();
        let head_bytes = [&[6][..], &present(&vote_bytes), &none, &none, &present(&id)].concat();
        // Format 2, no configs, no nodes, checksum.
        let membership = [2, 0, 0, 0, 7, 2, 0, 0, 124, 13, 197, 252];
        for (record, expected) in [
            (entry(Body::Blank), [&[1][..], &id, &[0, 0, 0, 0, 0]].concat()),
            (
                entry(Body::Command(Bytes::from_static(b"xyz"))),
                [&[1][..], &id, &[1, 0, 0, 0, 3, b'x', b'y', b'z']].concat(),
            ),
            (entry(Body::Membership(Membership::default())), [&[1][..], &id, &membership].concat()),
            (Record::Vote(vote), [&[2][..], &vote_bytes].concat()),
            (Record::Committed(ID), [&[3][..], &id].concat()),
            (Record::Truncate(Some(ID)), [&[4][..], &present(&id)].concat()),
            (Record::Truncate(None), [&[4][..], &none].concat()),
            (Record::Purge(ID), [&[5][..], &id].concat()),
            (Record::Head(head), head_bytes),
        ] {
            assert_eq!(bytes(&record), expected, "{record:?}");
            let mut rest = expected.as_slice();
            assert_eq!(decode(&mut rest).unwrap(), record);
            assert!(rest.is_empty());
        }
        assert_eq!(bytes(&Record::Head(Head::default())).len(), HEAD_BYTES);
    }

    #[test]
    fn length_beyond_the_bytes_and_unknown_kinds_are_refused() {
        let mut long = bytes(&entry(Body::Command(Bytes::from_static(b"x"))));
        *long.get_mut(18).unwrap() = 0xff;
        for (bytes, said) in [
            (long.as_slice(), "ends before"),
            (&[9], "kind 9"),
            (&[4, 2], "flag is 2"),
            (&[], "ends before"),
        ] {
            let error = decode(&mut &*bytes).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn no_record_harms() {
        let values = (vec(any::<u8>(), 0..60), any::<bool>(), damage(4));
        fuzz(300, values, |(payload, sound, damage)| {
            let record =
                if sound { bytes(&entry(Body::Command(payload.clone().into()))) } else { payload };
            let harmed = damaged(record, &damage);
            let mut rest = harmed.as_slice();
            if let Ok(record) = decode(&mut rest)
                && !matches!(&record, Record::Entry(Entry { body: Body::Membership(_), .. }))
            {
                let read = harmed.len() - rest.len();
                let again = bytes(&record);
                prop_assert_eq!(read, again.len());
            }
            Ok(())
        });
    }
}
