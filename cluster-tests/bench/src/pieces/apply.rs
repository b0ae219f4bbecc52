//! A batch of commands applied: what every node does with every entry.

use std::hint::black_box;

use kvdb::error::Result;
use kvdb::kv::Command;

use super::Running;
use super::fixture::{self, apply_all};

pub(super) fn put_on_disk() -> Result<Running> {
    on_disk(fixture::puts()?)
}

pub(super) fn put_in_memory() -> Result<Running> {
    in_memory(fixture::puts()?)
}

pub(super) fn transfer_on_disk() -> Result<Running> {
    on_disk(fixture::transfers()?)
}

pub(super) fn transfer_in_memory() -> Result<Running> {
    in_memory(fixture::transfers()?)
}

fn on_disk(commands: Vec<Command>) -> Result<Running> {
    let disk = fixture::disk()?;
    Ok(Running::new(move || {
        let mut batch = disk.state.batch();
        apply_all(&mut batch, black_box(&commands));
        batch.commit().expect("the disk is sound");
    }))
}

fn in_memory(commands: Vec<Command>) -> Result<Running> {
    let mut memory = fixture::memory()?;
    Ok(Running::new(move || apply_all(&mut memory, black_box(&commands))))
}
