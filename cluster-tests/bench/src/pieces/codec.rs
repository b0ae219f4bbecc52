//! Bytes of a command, and of entries on their way to a follower.

use std::hint::black_box;

use kvdb::encoding;
use kvdb::error::Result;
use kvdb::kv::Command;
use kvdb::raft::wire::{AppendEntriesRequest, Body, Entry, LogId, Vote};

use super::Running;
use super::fixture::{self, TERM};

fn a_put() -> Result<Command> {
    let prev = fixture::command_id(0);
    Ok(fixture::command(1, prev, vec![fixture::write(&fixture::key(17)?, fixture::value())?]))
}

pub(super) fn encode_command() -> Result<Running> {
    let command = a_put()?;
    Ok(Running::new(move || {
        black_box(encoding::encode(black_box(&command)).expect("it is small"));
    }))
}

pub(super) fn decode_command() -> Result<Running> {
    let bytes = encoding::encode(&a_put()?)?;
    Ok(Running::new(move || {
        let command: Command = encoding::decode("command", black_box(&bytes)).expect("it is sound");
        black_box(command);
    }))
}

/// A batch of commands, encoded once, as a message to a follower.
fn message() -> Result<AppendEntriesRequest> {
    let at = |index| LogId { term: TERM, index };
    let entry = |(index, command)| {
        Ok(Entry { log_id: at(index), body: Body::Command(encoding::encode(&command)?.into()) })
    };
    Ok(AppendEntriesRequest {
        vote: Vote { term: TERM, node: 1, committed: true },
        prev_log_id: Some(at(99_999)),
        entries: (100_000..).zip(fixture::puts()?).map(entry).collect::<Result<_>>()?,
        leader_commit: Some(at(99_990)),
    })
}

pub(super) fn encode_entries() -> Result<Running> {
    let message = message()?;
    Ok(Running::new(move || {
        black_box(encoding::encode(black_box(&message)).expect("it is small"));
    }))
}

pub(super) fn decode_entries() -> Result<Running> {
    let bytes = encoding::encode(&message()?)?;
    Ok(Running::new(move || {
        let message: AppendEntriesRequest =
            encoding::decode("entries", black_box(&bytes)).expect("it is sound");
        black_box(message);
    }))
}
