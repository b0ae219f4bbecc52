//! What pieces run on: a bucket with keys, accounts and scripts, and batches of commands for it.
//!
//! A batch is a ring: its first command names its last as the predecessor, and a filled bucket has the last
//! for its head. So a batch applies as often as one likes.

use bytes::Bytes;
use kvdb::encoding;
use kvdb::error::Result;
use kvdb::kv::memory::Memory;
use kvdb::kv::{
    BucketId, BucketMeta, BucketName, Command, CommandId, DIRECTORY, Effect, Key, Outcome,
    PolicyPatch, Record, Row, Script, ScriptMode, ScriptName, Store, Write, apply, store,
};
use kvdb::storage::{DataDir, State, Tuning};

pub(super) const BATCH: usize = 64;
pub(super) const BUCKET: BucketId = BucketId(7);
pub(super) const NAME: &str = "bench";
pub(super) const TERM: u64 = 3;
pub(super) const NOW: u64 = 1_700_000_000_000;
const SEED: u64 = 42;
const VALUE_BYTES: usize = 256;
const KEYS: usize = 1000;
const ACCOUNTS: usize = 100;
/// Of the ring's first command.
const SEQ: u64 = 1_000_000;

/// A counter, a transfer of the kind that banks are shown with, and one that handles JSON.
pub(super) const SCRIPTS: &[(&str, &str)] = &[
    ("counter", include_str!("scripts/counter.lua")),
    ("transfer", include_str!("scripts/transfer.lua")),
    ("json", include_str!("scripts/json.lua")),
];

pub(super) fn key(number: usize) -> Result<Key> {
    Key::parse(format!("user/{:06}", number % KEYS))
}

pub(super) fn account(number: usize) -> Result<Key> {
    Key::parse(format!("account/{}", number % ACCOUNTS))
}

/// 256 bytes, each another than its neighbours: nothing that compresses to a word.
pub(super) fn value() -> Bytes {
    (0..VALUE_BYTES).map(|index| b'!' + (index * 7 % 90) as u8).collect()
}

/// A set key as the write of a command.
pub(super) fn write(key: &Key, value: Bytes) -> Result<Write> {
    let record = Record { version: 123_456, expires_at: None, content_type: None, value };
    Ok(Write { row: Row::key(key), value: Some(encoding::encode(&record)?.into()) })
}

pub(super) fn command_id(number: usize) -> CommandId {
    CommandId { term: TERM, seq: SEQ + number as u64 }
}

pub(super) fn command(number: usize, prev: CommandId, writes: Vec<Write>) -> Command {
    let (id, effect) = (command_id(number), Effect::Write(writes));
    Command { bucket: BUCKET, prev, id, now: NOW, seed: SEED, effect }
}

/// A batch of PUTs of 256 bytes.
pub(super) fn puts() -> Result<Vec<Command>> {
    ring(|number| Ok(vec![write(&key(number * 13)?, value())?]))
}

/// A batch of transfers: two balances each.
pub(super) fn transfers() -> Result<Vec<Command>> {
    ring(|number| {
        let row = |number| write(&account(number)?, Bytes::from_static(b"1000"));
        Ok(vec![row(number)?, row(number * 3 + 1)?])
    })
}

fn ring(writes: impl Fn(usize) -> Result<Vec<Write>>) -> Result<Vec<Command>> {
    let link = |number| {
        let prev = command_id((number + BATCH - 1) % BATCH);
        Ok(command(number, prev, writes(number)?))
    };
    (0..BATCH).map(link).collect()
}

/// Applies a batch.
pub(super) fn apply_all(store: &mut impl Store, commands: &[Command]) {
    for (index, command) in (100..).zip(commands) {
        let outcome = apply(store, TERM, index, command).expect("the store is sound");
        assert!(matches!(outcome, Outcome::Applied { .. }), "the ring is whole");
    }
}

/// Makes the bucket, with all that pieces look for in it.
fn fill(store: &mut impl Store) -> Result<()> {
    let created = CommandId { term: TERM, seq: 1 };
    let policy = encoding::encode(&PolicyPatch::default().create()?)?;
    let effect = Effect::CreateBucket {
        name: BucketName::parse(NAME)?,
        rows: vec![Write { row: Row::policy(), value: Some(policy.into()) }],
        directory: Vec::new(),
    };
    let (prev, now, seed) = (CommandId::default(), NOW, SEED);
    let creation = Command { bucket: DIRECTORY, prev, id: created, now, seed, effect };
    apply(store, TERM, BUCKET.0, &creation)?;
    let mut writes = Vec::new();
    for number in 0..KEYS {
        writes.push(write(&key(number)?, value())?);
    }
    for number in 0..ACCOUNTS {
        writes.push(write(&account(number)?, Bytes::from_static(b"1000000000"))?);
    }
    for (number, (name, source)) in (1..).zip(SCRIPTS) {
        let script = Script {
            version: number,
            // Any that differ: they name the script among compiled ones.
            sha256: [number as u8; 32],
            source: (*source).to_owned(),
            mode: ScriptMode::default(),
        };
        let row = Row::script(&ScriptName::parse(name)?);
        writes.push(Write { row, value: Some(encoding::encode(&script)?.into()) });
    }
    apply(store, TERM, BUCKET.0 + 1, &command(BATCH - 1, created, writes))?;
    Ok(())
}

/// The bucket in memory.
pub(super) fn memory() -> Result<Memory> {
    let mut memory = Memory::default();
    fill(&mut memory)?;
    Ok(memory)
}

/// What the bucket's meta row says.
pub(super) fn meta(memory: &Memory) -> Result<BucketMeta> {
    Ok(store::meta(memory, BUCKET)?.unwrap_or_default())
}

/// The bucket on disk; the directory goes with it.
pub(super) struct Disk {
    // In the order in which they are to go.
    pub(super) state: State,
    _data: DataDir,
    _directory: tempfile::TempDir,
}

/// The bucket on disk: in a file, as what was written some time ago is.
pub(super) fn disk() -> Result<Disk> {
    let directory = tempfile::tempdir()?;
    let data = DataDir::open(directory.path())?;
    let state = State::open(&data, Tuning::default())?;
    let mut batch = state.batch();
    fill(&mut batch)?;
    batch.commit()?;
    state.flush()?;
    Ok(Disk { state, _data: data, _directory: directory })
}
