//! The core's specification: golden scripts in `testscripts`, run on a leader, a log and a state.
//!
//! A script's file name says what it proves. Its commands, and what a line of output means:
//!
//! ```text
//! term N                           entries from here on are of term N
//! create NAME [secret= write= read= signing= ttl=] [HEADER]   entry: a new bucket
//! write BUCKET [HEADER] [version=N] put K=V… del K…  entry: rows of a bucket
//! drop BUCKET [HEADER]             entry: the bucket goes
//!   HEADER is prev=T.S id=T.S now=MS; what is left out is right: the head, the next id, 0
//! nodes ID=INSTANCE…               a membership is recorded
//! fill BUCKET COUNT                entry: keys k000000, k000001, …
//! buckets | rows BUCKET | digest BUCKET              what the state holds
//! begin BUCKET [now=MS]            a transaction on the state and the bucket's overlay, trimmed
//! get K | set K V [ttl=S] | fill COUNT | delete K | clear COUNT | discard | clock | sweep LIMIT  in the transaction
//! list [prefix=] [start=] [end=] [limit=] [reverse] [show=count]             in the transaction
//! upload SCRIPT SOURCE | scripts   in the transaction
//! propose | abandon                ends the transaction, with or without an entry in the log
//! apply [COUNT]                    the log's next entries reach the state; all of them by default
//! lose ID…                         proposed entries that never become part of the log
//! overlay BUCKET | trim BUCKET | reset BUCKET        what is ahead of the state
//! run BUCKET [as=KEY] [now=MS] OPERATION    an operation, proposed and applied:
//!   set K V [type=] [ttl=] [COND] | incr K N [ttl=] [COND] | delete K [COND]
//!   put-script N SOURCE [mode=readonly] | roll-back N VERSION | delete-script N
//!   mint PREFIX [permissions=] [ttl=] | revoke ID
//!   COND is if-match=VERSION, if-match="*" or if-none-match="*"
//! ```
//!
//! A value V or a SOURCE may be given as size=BYTES. A bucket is its name, or its number where it may be gone, or `directory`. After each change the
//! runner checks that counts and digests are those of the rows. `UPDATE_GOLDENFILES=1` rewrites what
//! the scripts expect; read the difference.

mod fuzz;
mod speculation;

use std::collections::{BTreeMap, VecDeque};
use std::error::Error as StdError;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use goldenscript::{Argument, ArgumentConsumer, Context};

use super::memory::Memory;
use super::*;
use crate::encoding;
use crate::error::{Error, Result};

/// Something that entries are applied to.
pub(crate) trait Machine {
    fn apply(&mut self, term: u64, index: u64, command: &Command) -> Result<Outcome>;
    fn record_nodes(&mut self, nodes: Vec<(u64, Bytes)>) -> Result<()>;
    fn view(&self) -> SharedView;
}

impl Machine for Memory {
    fn apply(&mut self, term: u64, index: u64, command: &Command) -> Result<Outcome> {
        apply(self, term, index, command)
    }

    fn record_nodes(&mut self, nodes: Vec<(u64, Bytes)>) -> Result<()> {
        record_nodes(self, nodes)
    }

    fn view(&self) -> SharedView {
        Arc::new(self.clone())
    }
}

#[test]
fn apply_scripts() {
    run_scripts("apply", Memory::default);
}

#[test]
fn transaction_scripts() {
    run_scripts("transaction", Memory::default);
}

#[test]
fn operation_scripts() {
    run_scripts("operation", Memory::default);
}

/// Runs every script of a directory, each on a fresh machine, and names all that differ.
pub(crate) fn run_scripts<M: Machine>(directory: &str, machine: impl Fn() -> M) {
    let directory =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kv/testscripts").join(directory);
    let mut paths: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    let failed: Vec<_> = paths
        .iter()
        .filter(|path| {
            let run = || goldenscript::run(&mut Leader::new(machine()), path).unwrap();
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err()
        })
        .filter_map(|path| path.file_name())
        .collect();
    assert!(failed.is_empty(), "scripts that differ: {failed:?}");
}

/// What a script command comes to; its error is part of a script too.
type Scripted<T> = std::result::Result<T, Box<dyn StdError>>;
type Said = Scripted<String>;

/// A leader that does each thing when the script says so.
struct Leader<M> {
    /// Goes first: its view must not outlive the machine.
    transaction: Option<(BucketId, Transaction)>,
    machine: M,
    term: u64,
    seq: u64,
    index: u64,
    /// Proposed and not yet applied, each with the term it was proposed in.
    log: VecDeque<(u64, Command)>,
    overlays: BTreeMap<BucketId, Overlay>,
    /// Whether the state changed since it was last verified.
    changed: bool,
}

impl<M: Machine> goldenscript::Runner for Leader<M> {
    type Command = goldenscript::Command;

    fn run(&mut self, command: &goldenscript::Command, _: &Context) -> Said {
        let mut args = command.consume_args();
        let said = match command.name.as_str() {
            "term" => self.enter_term(&mut args)?,
            "create" => self.create(&mut args)?,
            "write" => self.write(&mut args)?,
            "drop" => self.drop_bucket(&mut args)?,
            "nodes" => self.nodes(&mut args)?,
            "fill" => self.fill(&mut args)?,
            "buckets" => self.buckets()?,
            "rows" => self.rows(&mut args)?,
            "digest" => self.digest(&mut args)?,
            "begin" => self.begin(&mut args)?,
            "propose" => self.propose()?,
            "abandon" => self.abandon()?,
            "apply" => self.apply_log(&mut args)?,
            "lose" => self.lose(&mut args)?,
            "overlay" | "trim" | "reset" => self.overlay(&command.name, &mut args)?,
            "run" => self.operate(&mut args)?,
            verb => in_transaction(self.open()?, verb, &mut args)?,
        };
        args.reject_next()?;
        Ok(said)
    }

    fn end_command(&mut self, _: &goldenscript::Command, _: &Context) -> Said {
        if std::mem::take(&mut self.changed) {
            store::verify(&*self.machine.view())?;
        }
        Ok(String::new())
    }
}

impl<M: Machine> Leader<M> {
    fn new(machine: M) -> Self {
        Leader {
            transaction: None,
            machine,
            term: 1,
            seq: 0,
            index: 0,
            log: VecDeque::new(),
            overlays: BTreeMap::new(),
            changed: false,
        }
    }

    fn enter_term(&mut self, args: &mut ArgumentConsumer) -> Said {
        let term = next(args)?.parse()?;
        if term <= self.term {
            return Err("terms rise".into());
        }
        (self.term, self.seq) = (term, 0);
        Ok(String::new())
    }

    fn create(&mut self, args: &mut ArgumentConsumer) -> Said {
        let key = |key: Option<&str>| key.map(str::to_owned);
        let patch = PolicyPatch {
            secret_key: key(args.take_key("secret")),
            write_key: key(args.take_key("write")),
            read_key: key(args.take_key("read")),
            signing_key: key(args.take_key("signing")),
            default_ttl: args.take_key("ttl").map(str::parse).transpose()?,
            ..PolicyPatch::default()
        };
        let name = BucketName::parse(next(args)?)?;
        let policy = encoding::encode(&patch.create()?)?;
        let rows = vec![Write { row: Row::policy(), value: Some(policy.into()) }];
        let effect = Effect::CreateBucket { name, rows, directory: Vec::new() };
        let command = self.command(DIRECTORY, effect, args)?;
        self.apply(self.term, &command)
    }

    fn write(&mut self, args: &mut ArgumentConsumer) -> Said {
        let bucket = self.bucket(next(args)?)?;
        let revision = self.meta(bucket)?.map_or(0, |meta| meta.revision + 1);
        let version = args.take_key("version").map_or(Ok(revision), str::parse)?;
        let mut command =
            self.command(bucket, Effect::DeleteBucket { directory: Vec::new() }, args)?;
        let (mut verb, mut writes) = ("", Vec::new());
        for arg in args.by_ref() {
            match (verb, arg) {
                (_, Argument::Positional(word)) if word == "put" || word == "del" => verb = word,
                ("put", Argument::KeyValue(key, value)) => {
                    let record = record(version, value.clone().into());
                    writes.push(Write { row: Row::key(&parse_key(key)?), value: Some(record) });
                }
                ("del", Argument::Positional(key)) => {
                    writes.push(Write { row: Row::key(&parse_key(key)?), value: None });
                }
                (_, other) => return Err(format!("neither put K=V nor del K: {other}").into()),
            }
        }
        command.effect = Effect::Write(writes);
        self.apply(self.term, &command)
    }

    fn drop_bucket(&mut self, args: &mut ArgumentConsumer) -> Said {
        let bucket = self.bucket(next(args)?)?;
        let command = self.command(bucket, Effect::DeleteBucket { directory: Vec::new() }, args)?;
        self.apply(self.term, &command)
    }

    fn nodes(&mut self, args: &mut ArgumentConsumer) -> Said {
        let mut nodes = Vec::new();
        while let Some((id, instance)) = args.next_key() {
            nodes.push((id.parse()?, Bytes::copy_from_slice(instance.as_bytes())));
        }
        self.changed = true;
        self.machine.record_nodes(nodes)?;
        Ok(String::new())
    }

    fn fill(&mut self, args: &mut ArgumentConsumer) -> Said {
        let first = next(args)?;
        let Some(count) = args.next_pos() else {
            return fill_transaction(self.open()?, first.parse()?);
        };
        let bucket = self.bucket(first)?;
        let record = record(0, Bytes::new());
        let writes = numbered(count.parse()?)
            .map(|key| Write { row: Row::key(&key), value: Some(record.clone()) })
            .collect();
        let command = self.command(bucket, Effect::Write(writes), args)?;
        self.apply(self.term, &command)
    }

    /// A command with what the script says of its header; the rest is as it should be.
    fn command(
        &mut self,
        bucket: BucketId,
        effect: Effect,
        args: &mut ArgumentConsumer,
    ) -> Scripted<Command> {
        let head = self.meta(bucket)?.map_or(CommandId::default(), |meta| meta.head);
        let prev = args.take_key("prev").map_or(Ok(head), parse_id)?;
        let id = match args.take_key("id") {
            Some(id) => parse_id(id)?,
            None => self.next_id(),
        };
        if id.term == self.term {
            self.seq = self.seq.max(id.seq);
        }
        let now = args.take_key("now").map_or(Ok(0), str::parse)?;
        Ok(Command { bucket, prev, id, now, seed: 0, effect })
    }

    fn next_id(&mut self) -> CommandId {
        self.seq += 1;
        CommandId { term: self.term, seq: self.seq }
    }

    fn apply(&mut self, term: u64, command: &Command) -> Said {
        self.index += 1;
        self.changed = true;
        let outcome = self.machine.apply(term, self.index, command)?;
        let became = match outcome {
            Outcome::Applied { revision } => format!("applied, revision {revision}"),
            Outcome::Conflict => "conflict".to_owned(),
        };
        Ok(format!("@{} {} on {}: {became}\n", self.index, command.id, command.prev))
    }

    fn meta(&self, bucket: BucketId) -> Result<Option<BucketMeta>> {
        store::meta(&*self.machine.view(), bucket)
    }

    fn bucket(&self, text: &str) -> Scripted<BucketId> {
        if text == "directory" {
            return Ok(DIRECTORY);
        }
        if let Ok(number) = text.parse() {
            return Ok(BucketId(number));
        }
        let id = store::bucket_id(&*self.machine.view(), &BucketName::parse(text)?)?;
        id.ok_or_else(|| format!("no bucket {text}").into())
    }

    fn buckets(&self) -> Said {
        let mut said = String::new();
        for (id, meta) in store::buckets(&*self.machine.view())? {
            let BucketMeta { name, head, revision, now, counts, digest: _ } = meta;
            let Counts { keys, bytes, .. } = counts;
            let name = if id == DIRECTORY { "directory" } else { &name };
            let counts = format!("{keys} keys, {bytes} bytes");
            writeln!(
                said,
                "{} {name}: head {head}, revision {revision}, now {now}, {counts}",
                id.0
            )?;
        }
        Ok(said)
    }

    fn rows(&self, args: &mut ArgumentConsumer) -> Said {
        let bucket = self.bucket(next(args)?)?;
        let (start, end) = (keyspace::rows_start(bucket), keyspace::rows_end(bucket));
        let mut said = String::new();
        for pair in self.machine.view().scan(&start, &end, false) {
            let (key, value) = pair?;
            said += &show_row(&Row::decode(&key)?.1, &value)?;
        }
        Ok(if said.is_empty() { "no rows".to_owned() } else { said })
    }

    fn digest(&self, args: &mut ArgumentConsumer) -> Said {
        let meta = self.meta(self.bucket(next(args)?)?)?.ok_or("no such bucket")?;
        Ok(format!("{:032x}", meta.digest))
    }

    fn begin(&mut self, args: &mut ArgumentConsumer) -> Said {
        let bucket = self.bucket(next(args)?)?;
        let now = args.take_key("now").map_or(Ok(0), str::parse)?;
        self.begin_at(bucket, now)?;
        Ok(String::new())
    }

    fn begin_at(&mut self, bucket: BucketId, now: u64) -> Scripted<()> {
        if self.transaction.is_some() {
            return Err("a transaction is open".into());
        }
        let view = self.machine.view();
        let meta = store::meta(&*view, bucket)?.ok_or("no such bucket")?;
        let mut overlay = self.overlays.remove(&bucket).unwrap_or_default();
        overlay.trim(&meta);
        self.transaction = Some((bucket, Transaction::new(view, bucket, overlay, now)));
        Ok(())
    }

    fn open(&mut self) -> Scripted<&mut Transaction> {
        self.transaction.as_mut().map(|(_, txn)| txn).ok_or_else(|| "no transaction".into())
    }

    fn propose(&mut self) -> Said {
        let (bucket, txn) = self.transaction.take().ok_or("no transaction")?;
        let now = txn.now();
        let (mut overlay, writes, delta) = txn.finish();
        let changes = show_writes(&writes);
        let (prev, id) = (overlay.head(), self.next_id());
        overlay.push(id, now, &writes, delta);
        let revision = overlay.revision();
        self.overlays.insert(bucket, overlay);
        let effect = Effect::Write(writes);
        self.log.push_back((self.term, Command { bucket, prev, id, now, seed: 0, effect }));
        Ok(format!("{id} on {prev}, revision {revision}, now {now}: {changes}"))
    }

    fn abandon(&mut self) -> Said {
        let (bucket, txn) = self.transaction.take().ok_or("no transaction")?;
        self.overlays.insert(bucket, txn.finish().0);
        Ok(String::new())
    }

    fn apply_log(&mut self, args: &mut ArgumentConsumer) -> Said {
        let count = args.next_pos().map_or(Ok(self.log.len()), str::parse)?;
        let mut said = String::new();
        for _ in 0..count {
            let (term, command) = self.log.pop_front().ok_or("the log has no more entries")?;
            said += &self.apply(term, &command)?;
        }
        Ok(said)
    }

    fn lose(&mut self, args: &mut ArgumentConsumer) -> Said {
        while let Some(id) = args.next_pos() {
            let (id, before) = (parse_id(id)?, self.log.len());
            self.log.retain(|(_, command)| command.id != id);
            if self.log.len() == before {
                return Err(format!("{id} is not in the log").into());
            }
        }
        Ok(String::new())
    }

    fn overlay(&mut self, verb: &str, args: &mut ArgumentConsumer) -> Said {
        let bucket = self.bucket(next(args)?)?;
        let meta = self.meta(bucket)?.ok_or("no such bucket")?;
        let overlay = self.overlays.entry(bucket).or_default();
        match verb {
            "trim" => overlay.trim(&meta),
            "reset" => *overlay = Overlay::default(),
            _ => {}
        }
        let ahead = if overlay.is_empty() { "nothing ahead" } else { "ahead" };
        let (head, revision, now) = (overlay.head(), overlay.revision(), overlay.now());
        Ok(format!("{ahead}: head {head}, revision {revision}, now {now}"))
    }

    fn operate(&mut self, args: &mut ArgumentConsumer) -> Said {
        let bucket = self.bucket(next(args)?)?;
        let credential = args.take_key("as").map_or(Credential::NONE, Credential::new);
        let operation = parse_operation(args)?;
        let now = args.take_key("now").map_or(Ok(0), str::parse)?;
        self.begin_at(bucket, now)?;
        let answer = match operation.run(self.open()?, &credential, 7) {
            Ok(answer) => answer,
            Err(error) => {
                self.abandon()?;
                return Err(refusal(error));
            }
        };
        let version = answer.version.map_or("none".to_owned(), |version| version.to_string());
        let proposed = self.propose()?;
        let (_, changes) = proposed.split_once(": ").unwrap_or_default();
        let told =
            format!("{} \"{}\" version {version}", answer.status, answer.body.escape_ascii());
        Ok(format!("{told}; {changes}\n{}", self.apply_log(args)?))
    }
}

fn in_transaction(txn: &mut Transaction, verb: &str, args: &mut ArgumentConsumer) -> Said {
    let mut said = String::new();
    match verb {
        "get" => {
            let key = parse_key(next(args)?)?;
            let name = key.bytes();
            match txn.get(&key).map_err(refusal)? {
                Some(record) => said = show_record(name, &record),
                None => said = format!("{} is absent", name.escape_ascii()),
            }
        }
        "set" => {
            let key = parse_key(next(args)?)?;
            let lifetime = lifetime(args)?;
            txn.set(&key, value(args)?.into(), None, lifetime).map_err(refusal)?;
        }
        "delete" => {
            let was_there = txn.delete(&parse_key(next(args)?)?).map_err(refusal)?;
            said = if was_there { "was there" } else { "was not there" }.to_owned();
        }
        "clear" => {
            for key in numbered(next(args)?.parse()?) {
                txn.delete(&key).map_err(refusal)?;
            }
        }
        "upload" => {
            let (name, source) = (ScriptName::parse(next(args)?)?, value(args)?);
            let mode = ScriptMode::default();
            let script = Script { version: txn.revision(), sha256: [0; 32], source, mode };
            txn.put_row(Row::script(&name), Some(encoding::encode(&script)?.into()))?;
        }
        "scripts" => {
            for (name, script) in txn.scripts().map_err(refusal)? {
                writeln!(said, "{} = {} @{}", name.escape_ascii(), script.source, script.version)?;
            }
        }
        "list" => said = list(txn, args)?,
        "discard" => txn.discard(),
        "sweep" => {
            let more = txn.sweep(next(args)?.parse()?)?;
            said = if more { "there is more" } else { "that was all" }.to_owned();
        }
        "clock" => {
            let (now, reads, writes) = (txn.now(), txn.read_revision(), txn.revision());
            said = format!("now {now}, reads revision {reads}, writes revision {writes}");
            if txn.has_lapsed() || txn.will_lapse()? {
                said += &format!(", lapsed {}, will lapse {}", txn.has_lapsed(), txn.will_lapse()?);
            }
        }
        other => return Err(format!("no command {other}").into()),
    }
    Ok(said)
}

fn list(txn: &mut Transaction, args: &mut ArgumentConsumer) -> Said {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let range = ListRange {
        prefix: args.take_key("prefix").map(bytes).unwrap_or_default(),
        start: args.take_key("start").map(bytes),
        end: args.take_key("end").map(bytes),
        reverse: args.next_pos().is_some_and(|word| word == "reverse"),
    };
    let limit = args.take_key("limit").map_or(Ok(usize::MAX), str::parse)?;
    let quiet = args.take_key("show").is_some_and(|what| what == "count");
    let found = txn.list(&range, limit).map_err(refusal)?;
    if quiet || found.is_empty() {
        return Ok(format!("{} keys", found.len()));
    }
    Ok(found.iter().map(|(name, record)| show_record(name, record)).collect())
}

fn fill_transaction(txn: &mut Transaction, count: usize) -> Said {
    for key in numbered(count) {
        txn.set(&key, Bytes::new(), None, Lifetime::Unlimited).map_err(refusal)?;
    }
    Ok(String::new())
}

fn numbered(count: usize) -> impl Iterator<Item = Key> {
    (0..count).map(|number| Key::parse(format!("k{number:06}")).expect("a legal key"))
}

fn parse_operation(args: &mut ArgumentConsumer) -> Scripted<Operation> {
    let condition = match (args.take_key("if-match"), args.take_key("if-none-match")) {
        (Some("*"), None) => Condition::Present,
        (Some(version), None) => Condition::Version(version.parse()?),
        (None, Some("*")) => Condition::Absent,
        (None, None) => Condition::Any,
        other => return Err(format!("no such condition: {other:?}").into()),
    };
    let (verb, name) = (next(args)?, next(args)?);
    Ok(match verb {
        "set" => Operation::Set {
            key: parse_key(name)?,
            value: value(args)?.into(),
            content_type: args.take_key("type").map(str::to_owned),
            lifetime: lifetime(args)?,
            condition,
        },
        "incr" => {
            let by = Number::parse(next(args)?.as_bytes())?;
            let lifetime = lifetime(args)?;
            Operation::Increment { key: parse_key(name)?, by, lifetime, condition }
        }
        "delete" => Operation::Delete { key: parse_key(name)?, condition },
        "put-script" => {
            let mode = ScriptMode {
                readonly: args.take_key("mode").is_some_and(|mode| mode == "readonly"),
                as_owner: false,
            };
            Operation::PutScript { name: ScriptName::parse(name)?, source: value(args)?, mode }
        }
        "roll-back" => {
            let version = next(args)?.parse()?;
            Operation::RollBack { name: ScriptName::parse(name)?, version }
        }
        "mint" => {
            let words = args.take_key("permissions").unwrap_or("read").split(',');
            let (permissions, execute) = policy::parse_permissions(words)?;
            let ttl = args.take_key("ttl").map_or(Ok(60), str::parse)?;
            let prefix = Bytes::copy_from_slice(name.as_bytes());
            Operation::MintToken(TokenRequest { prefix, permissions, execute, ttl })
        }
        "revoke" => Operation::RevokeToken { id: name.to_owned() },
        "delete-script" => Operation::DeleteScript { name: ScriptName::parse(name)? },
        other => return Err(format!("no operation {other}").into()),
    })
}

fn lifetime(args: &mut ArgumentConsumer) -> Scripted<Lifetime> {
    match args.take_key("ttl") {
        Some(seconds) => Ok(Lifetime::of_seconds(seconds.parse()?)?),
        None => Ok(Lifetime::Default),
    }
}

fn next<'a>(args: &mut ArgumentConsumer<'a>) -> Scripted<&'a str> {
    args.next_pos().ok_or_else(|| "an argument is missing".into())
}

fn value(args: &mut ArgumentConsumer) -> Scripted<String> {
    match args.take_key("size") {
        Some(size) => Ok("x".repeat(size.parse()?)),
        None => next(args).map(str::to_owned),
    }
}

fn parse_key(text: &str) -> Result<Key> {
    Key::parse(text.to_owned())
}

fn parse_id(text: &str) -> Scripted<CommandId> {
    let (term, seq) = text.split_once('.').ok_or("an id is TERM.SEQ")?;
    Ok(CommandId { term: term.parse()?, seq: seq.parse()? })
}

fn record(version: u64, value: Bytes) -> Bytes {
    let record = Record { version, expires_at: None, content_type: None, value };
    encoding::encode(&record).expect("small").into()
}

/// An error with the name of its kind, which decides the status at the edge.
fn refusal(error: Error) -> Box<dyn StdError> {
    let debug = format!("{error:?}");
    let kind = debug.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    format!("{kind}: {error}").into()
}

fn show_record(name: &[u8], record: &Record) -> String {
    let Record { version, expires_at, content_type, value } = record;
    let content_type = content_type.as_ref().map(|t| format!(" ({t})")).unwrap_or_default();
    let until = expires_at.map(|at| format!(" until {at}")).unwrap_or_default();
    format!("{} = {} @{version}{content_type}{until}\n", name.escape_ascii(), value.escape_ascii())
}

fn show_name(row: &Row) -> String {
    let name = row.name.escape_ascii();
    match row.table {
        Table::Key => name.to_string(),
        Table::Script => format!("script:{name}"),
        Table::Policy => "policy".to_owned(),
        Table::Bucket => format!("bucket:{name}"),
        Table::Node => format!("node:{}", row.name.last().copied().unwrap_or_default()),
        Table::Expiry => match Row::expiring(&row.name) {
            Ok((at, of)) => format!("expiry:{at}:{}", show_name(&of)),
            Err(error) => error.to_string(),
        },
        Table::Token => format!("token:{name}"),
        Table::Readonly => format!("readonly:{name}"),
        Table::Recorded => format!("recorded:{name}"),
        Table::ScriptVersion => match row.name.rsplit_once_zero() {
            Some((script, version)) => format!("version:{}:{version}", script.escape_ascii()),
            None => format!("version:{name}"),
        },
    }
}

/// A version's name in parts.
trait RsplitOnceZero {
    fn rsplit_once_zero(&self) -> Option<(&[u8], u64)>;
}

impl RsplitOnceZero for Bytes {
    fn rsplit_once_zero(&self) -> Option<(&[u8], u64)> {
        let (rest, version) = self.split_last_chunk::<8>()?;
        Some((rest.strip_suffix(&[0])?, u64::from_be_bytes(*version)))
    }
}

fn show_writes(writes: &[Write]) -> String {
    let verb = |write: &Write| if write.value.is_some() { "put" } else { "del" };
    let changes = writes.iter().map(|write| format!("{} {}", verb(write), show_name(&write.row)));
    match writes.len() {
        0 => "nothing".to_owned(),
        1..=10 => changes.collect::<Vec<_>>().join(", "),
        many => format!("{many} writes"),
    }
}

fn show_row(row: &Row, value: &Bytes) -> Result<String> {
    let name = show_name(row);
    Ok(match row.table {
        Table::Key => show_record(&row.name, &encoding::decode("record", value)?),
        Table::Script => {
            let Script { version, source, .. } = encoding::decode("script", value)?;
            format!("{name} = {} @{version}\n", source.escape_default())
        }
        Table::Policy => format!("{name}\n"),
        Table::Bucket => {
            let BucketId(id) = encoding::decode("directory row", value)?;
            format!("{name} = {id}\n")
        }
        Table::Node => format!("{name} = {}\n", value.escape_ascii()),
        Table::Expiry | Table::Token | Table::Recorded | Table::ScriptVersion | Table::Readonly => {
            format!("{name}\n")
        }
    })
}
