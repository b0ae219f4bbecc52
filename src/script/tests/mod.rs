//! What scripts may do, and what they may not: each test runs a script on a real machine.

mod access;
mod api;
mod examples;
mod fuzz;
mod limits;
mod modules;
mod sandbox;
mod text;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{Call, Cost, Limits, Report, Request, Vm, Watch};
use crate::encoding;
use crate::error::{Error, Result};
use crate::kv::keyspace::{self, BucketMeta};
use crate::kv::memory::Memory;
use crate::kv::{
    Answer, BucketId, CommandId, Grant, PolicyPatch, Record, Row, Script, ScriptName, Store, Table,
    Transaction, Write, transaction,
};

const BUCKET: BucketId = BucketId(7);
/// 2026-11-22 13:14:15.678 UTC.
const NOW: u64 = 1_795_353_255_678;

/// A bucket, a machine and a caller.
struct World {
    vm: Vm,
    store: Memory,
    grant: Grant,
    vars: BTreeMap<String, String>,
    request: Request,
    seed: u64,
    now: u64,
    readonly: bool,
    millis: u64,
}

/// What a call did.
#[derive(Debug)]
struct Ran {
    result: Result<Answer>,
    /// Key and new value, `None` where it was deleted.
    writes: Vec<(String, Option<String>)>,
    /// All rows that it wrote.
    rows: Vec<Write>,
    took: Duration,
    cost: Cost,
    log: Vec<String>,
}

struct Clock(Instant);

impl Watch for Clock {
    fn check(&self) -> Result<()> {
        if Instant::now() < self.0 { Ok(()) } else { Err(limits().time_error()) }
    }
}

fn limits() -> Limits {
    Limits {
        fuel: 2_000_000,
        time_ms: 60_000,
        memory_bytes: 32 << 20,
        output_bytes: 1 << 20,
        value_bytes: 1 << 20,
    }
}

fn script(source: &str) -> Script {
    Script {
        version: 3,
        sha256: Sha256::digest(source.as_bytes()).into(),
        mode: Default::default(),
        source: source.to_owned(),
    }
}

fn world() -> World {
    World::new(limits())
}

impl World {
    fn new(limits: Limits) -> Self {
        let mut store = Memory::default();
        let meta = BucketMeta {
            name: "b".to_owned(),
            head: CommandId { term: 1, seq: 1 },
            revision: 41,
            now: NOW,
            ..BucketMeta::default()
        };
        store.put(keyspace::meta_key(BUCKET), encoding::encode(&meta).unwrap().into());
        World {
            millis: limits.time_ms,
            vm: Vm::new(limits).unwrap(),
            store,
            grant: Grant::owner(),
            vars: BTreeMap::new(),
            request: Request::default(),
            seed: 1,
            now: NOW,
            readonly: false,
        }
    }

    fn with(mut self, key: &str, value: &str) -> Self {
        let value = Bytes::copy_from_slice(value.as_bytes());
        let record = Record { version: 12, expires_at: None, content_type: None, value };
        let row = Row { table: Table::Key, name: Bytes::copy_from_slice(key.as_bytes()) };
        self.store.put(row.encode(BUCKET), encoding::encode(&record).unwrap().into());
        self
    }

    /// Uploads a script that others may require.
    fn script(mut self, name: &str, source: &str) -> Self {
        let row = Row::script(&ScriptName::parse(name).unwrap());
        let script = encoding::encode(&script(source)).unwrap();
        self.store.put(row.encode(BUCKET), script.into());
        self
    }

    fn var(mut self, name: &str, value: &str) -> Self {
        self.vars.insert(name.to_owned(), value.to_owned());
        self
    }

    fn call(&self, source: &str) -> Call {
        Call {
            name: ScriptName::parse("test").unwrap(),
            script: Arc::new(script(source)),
            vars: Arc::new(self.vars.clone()),
            request: Arc::new(self.request.clone()),
            grant: self.grant.clone(),
            seed: self.seed,
        }
    }

    fn transaction(&self) -> Transaction {
        let now = self.now;
        let mut txn =
            transaction::read_only(Arc::new(self.store.clone()), BUCKET, now).unwrap().unwrap();
        if self.readonly {
            txn.forbid_writes();
        }
        txn
    }

    fn policy(mut self, patch: PolicyPatch) -> Self {
        let policy = encoding::encode(&patch.create().unwrap()).unwrap();
        self.store.put(Row::policy().encode(BUCKET), policy.into());
        self
    }

    /// Applies what a call wrote.
    fn commit(&mut self, ran: &Ran) {
        for write in &ran.rows {
            let row = write.row.encode(BUCKET);
            match &write.value {
                Some(value) => self.store.put(row, value.clone()),
                None => self.store.delete(row),
            }
        }
    }

    fn run(&mut self, source: &str) -> Ran {
        let call = self.call(source);
        let txn = self.transaction();
        let begun = Instant::now();
        let watch = Rc::new(Clock(begun + Duration::from_millis(self.millis)));
        let Report { txn, result, cost, log } = self.vm.run(&call, txn, watch);
        let took = begun.elapsed();
        let rows = txn.finish().1;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let writes =
            rows.iter()
                .filter(|write| write.row.table == Table::Key)
                .map(|write| {
                    let value = write.value.as_ref().map(|value| {
                        text(&encoding::decode::<Record>("record", value).unwrap().value)
                    });
                    (text(&write.row.name), value)
                })
                .collect();
        Ran { result, writes, rows, took, cost, log }
    }

    /// What it printed; fails where it failed.
    fn prints(&mut self, source: &str) -> String {
        let answer = self.run(source).result.unwrap();
        String::from_utf8(answer.body.to_vec()).unwrap()
    }

    /// The message of a script error.
    fn fails(&mut self, source: &str) -> String {
        match self.run(source).result {
            Err(Error::Script { message, .. }) => message,
            other => panic!("{source}: {other:?}"),
        }
    }

    /// The name of the limit that ended it; nothing may be written.
    fn limited(&mut self, source: &str) -> &'static str {
        let ran = self.run(source);
        assert!(ran.rows.is_empty(), "{source}");
        match ran.result {
            Err(Error::ScriptLimit { limit, .. } | Error::TooLarge { limit, .. }) => limit,
            other => panic!("{source}: {other:?}"),
        }
    }
}

/// The golden form: status, headers, body, writes.
fn golden(ran: &Ran) -> String {
    let mut text = String::new();
    match &ran.result {
        Err(error) => writeln!(text, "error: {error}").unwrap(),
        Ok(answer) => {
            writeln!(text, "{}", answer.status).unwrap();
            for (name, value) in &answer.headers {
                writeln!(text, "{name}: {value}").unwrap();
            }
            writeln!(text, "{}", format!("> {}", answer.body.escape_ascii()).trim_end()).unwrap();
        }
    }
    for (key, value) in &ran.writes {
        writeln!(text, "{key} = {}", value.as_deref().unwrap_or("(deleted)")).unwrap();
    }
    text
}

#[track_caller]
fn expect(ran: &Ran, golden_text: &str) {
    let trimmed: Vec<&str> = golden_text.trim().lines().map(str::trim).collect();
    assert_eq!(golden(ran).trim(), trimmed.join("\n"));
}

/// Counts how often it was asked.
#[derive(Default)]
struct Counting(Cell<u64>);

impl Watch for Counting {
    fn check(&self) -> Result<()> {
        self.0.set(self.0.get() + 1);
        Ok(())
    }
}
