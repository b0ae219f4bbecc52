//! The bytes of records: raft-log frames them with a type and a checksum.
//!
//! | value | layout, numbers big endian |
//! |---|---|
//! | log id | term `u64`, index `u64` |
//! | vote | term `u64`, node `u64`, committed `u8` |
//! | body | kind `u8`, length `u32`, that many bytes |
//! | mark | offset `u64` |
//!
//! A body of kind 0 is empty (blank), of kind 1 a command as its proposer encoded it, of kind 2 a
//! membership in [`crate::encoding`].

use std::io::{self, Read, Write};

use bytes::Bytes;
use raft_log::codeq::{Decode, Encode};

use crate::encoding;
use crate::raft::wire::{Body, LogId, Membership, Vote};

/// A point of the log before which everything was synced when this was written. It names its own
/// position, so that a copy of it in some command is no mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark(pub(super) u64);

/// The value types of our raft-log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Records;

impl raft_log::Types for Records {
    type LogId = LogId;
    type LogPayload = Body;
    type Vote = Vote;
    type Callback = super::flush::Flush;
    type UserData = Mark;

    fn log_index(id: &LogId) -> u64 {
        id.index
    }

    fn payload_size(body: &Body) -> u64 {
        size(body)
    }
}

/// Roughly what an entry takes in memory and in a message.
pub(super) fn size(body: &Body) -> u64 {
    const FRAME: u64 = 64;
    match body {
        Body::Blank => FRAME,
        Body::Command(bytes) => FRAME + bytes.len() as u64,
        Body::Membership(membership) => FRAME * (1 + membership.nodes.len() as u64),
    }
}

/// Bytes that a body is given room for before it is read.
const BODY_ROOM_MAX: usize = 64 << 10;
const BLANK: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERSHIP: u8 = 2;

impl Encode for LogId {
    fn encode<W: Write>(&self, mut w: W) -> io::Result<usize> {
        Ok(self.term.encode(&mut w)? + self.index.encode(&mut w)?)
    }
}

impl Decode for LogId {
    fn decode<R: Read>(mut r: R) -> io::Result<Self> {
        Ok(LogId { term: u64::decode(&mut r)?, index: u64::decode(&mut r)? })
    }
}

impl Encode for Vote {
    fn encode<W: Write>(&self, mut w: W) -> io::Result<usize> {
        let ids = self.term.encode(&mut w)? + self.node.encode(&mut w)?;
        Ok(ids + u8::from(self.committed).encode(&mut w)?)
    }
}

impl Decode for Vote {
    fn decode<R: Read>(mut r: R) -> io::Result<Self> {
        let (term, node) = (u64::decode(&mut r)?, u64::decode(&mut r)?);
        let committed = match u8::decode(&mut r)? {
            0 => false,
            1 => true,
            other => return Err(invalid(format!("a vote's flag is {other}"))),
        };
        Ok(Vote { term, node, committed })
    }
}

impl Encode for Mark {
    fn encode<W: Write>(&self, w: W) -> io::Result<usize> {
        self.0.encode(w)
    }
}

impl Decode for Mark {
    fn decode<R: Read>(r: R) -> io::Result<Self> {
        Ok(Mark(u64::decode(r)?))
    }
}

impl Encode for Body {
    fn encode<W: Write>(&self, w: W) -> io::Result<usize> {
        match self {
            Body::Blank => encode_body(w, BLANK, &[]),
            Body::Command(bytes) => encode_body(w, COMMAND, bytes),
            Body::Membership(membership) => {
                let bytes = encoding::encode(membership).map_err(io::Error::other)?;
                encode_body(w, MEMBERSHIP, &bytes)
            }
        }
    }
}

fn encode_body<W: Write>(mut w: W, kind: u8, bytes: &[u8]) -> io::Result<usize> {
    let length = u32::try_from(bytes.len()).map_err(|_| invalid("an entry of over 4 GB".into()))?;
    let head = kind.encode(&mut w)? + length.encode(&mut w)?;
    w.write_all(bytes)?;
    Ok(head + bytes.len())
}

impl Decode for Body {
    fn decode<R: Read>(mut r: R) -> io::Result<Self> {
        let (kind, length) = (u8::decode(&mut r)?, u32::decode(&mut r)?);
        // Room for most bodies at once, as a start reads all of the log. Not for any length: a damaged one
        // must not reserve memory.
        let mut bytes = Vec::with_capacity((length as usize).min(BODY_ROOM_MAX));
        if r.take(u64::from(length)).read_to_end(&mut bytes)? < length as usize {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match kind {
            BLANK if bytes.is_empty() => Ok(Body::Blank),
            COMMAND => Ok(Body::Command(Bytes::from(bytes))),
            MEMBERSHIP => decode_membership(&bytes),
            other => Err(invalid(format!("an entry of kind {other} and {length} bytes"))),
        }
    }
}

fn decode_membership(bytes: &[u8]) -> io::Result<Body> {
    let membership = encoding::decode::<Membership>("membership", bytes);
    membership.map(Body::Membership).map_err(|e| invalid(e.to_string()))
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{damage, damaged, fuzz};

    fn bytes(value: &impl Encode) -> Vec<u8> {
        let mut bytes = Vec::new();
        assert_eq!(value.encode(&mut bytes).unwrap(), bytes.len());
        bytes
    }

    #[test]
    fn bytes_of_records_do_not_change() {
        let id = LogId { term: 1, index: 0x0203 };
        assert_eq!(bytes(&id), [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 2, 3]);
        let vote = Vote { term: 1, node: 2, committed: true };
        assert_eq!(bytes(&vote), [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 1]);
        assert_eq!(bytes(&Body::Blank), [0, 0, 0, 0, 0]);
        let command = Body::Command(Bytes::from_static(b"xyz"));
        assert_eq!(bytes(&command), [1, 0, 0, 0, 3, b'x', b'y', b'z']);
        // Format 2, no configs, no nodes, checksum.
        let membership = Body::Membership(Membership::default());
        assert_eq!(bytes(&membership), [2, 0, 0, 0, 7, 2, 0, 0, 124, 13, 197, 252]);
        for body in [Body::Blank, command, membership] {
            assert_eq!(Body::decode(bytes(&body).as_slice()).unwrap(), body);
        }
    }

    #[test]
    fn length_beyond_the_bytes_is_refused_without_reserving_it() {
        let error = Body::decode([1, 0xff, 0xff, 0xff, 0xff, 7].as_slice()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn unknown_kind_is_refused() {
        let error = Body::decode([3, 0, 0, 0, 0].as_slice()).unwrap_err();
        assert!(error.to_string().contains("kind 3"), "{error}");
    }

    #[test]
    fn no_record_harms() {
        let values = (vec(any::<u8>(), 0..60), any::<bool>(), damage(4));
        fuzz(300, values, |(payload, sound, damage)| {
            let body = Body::Command(payload.clone().into());
            let record = if sound { bytes(&body) } else { payload };
            let harmed = damaged(record, &damage);
            if let Ok(body) = Body::decode(harmed.as_slice()) {
                let again = bytes(&body);
                prop_assert!(harmed.starts_with(&again) || matches!(body, Body::Membership(_)));
            }
            if let Ok(vote) = Vote::decode(harmed.as_slice()) {
                prop_assert!(harmed.starts_with(&bytes(&vote)));
            }
            if let Ok(id) = LogId::decode(harmed.as_slice()) {
                prop_assert!(harmed.starts_with(&bytes(&id)));
            }
            let _ = Mark::decode(harmed.as_slice());
            Ok(())
        });
    }
}
