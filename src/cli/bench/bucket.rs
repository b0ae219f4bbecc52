//! Where a bench works: the nodes, the bucket, what is in it before, and what must be in it after.

use std::fmt::Write;

use futures::stream::{StreamExt, TryStreamExt};

use super::load::{self, Calls, Kind, PREFIX};
use super::{Bench, Nodes, Work};
use crate::api::{NewBucket, paths};
use crate::bench::http::{Connection, Request};
use crate::bench::{Random, Report};
use crate::cli::{Failure, Server, ask};
use crate::client::{Client, ListOptions};

/// The script that moves amounts between accounts.
const TRANSFER: &str = include_str!("transfer.lua");
/// The script that counts.
const COUNTER: &str = include_str!("../../../deploy/examples/counter.lua");
/// What each account holds at first.
const BALANCE: u64 = 1_000_000;
/// Bytes of keys and values that are written by one transaction, about.
const BATCH_BYTES: u64 = 64 * 1024;
/// Most keys that are written by one transaction.
const BATCH_KEYS: u64 = 200;
/// Transactions under way while keys are loaded.
const LOADERS: usize = 8;
/// Keys of a list that are read at a time.
const PAGE: usize = 1_000;
/// What a shell says of a process that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// What the sum of all keys must be at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sum {
    Unknown,
    /// Nothing is lost or made.
    Exactly(u64),
    /// Each call that was done added one.
    Calls,
}

/// Where a bench works.
pub(super) struct Site {
    pub(super) urls: Vec<String>,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) calls: Calls,
    pub(super) bucket: String,
    /// Whether the bucket is ours to delete.
    own: bool,
    /// The script to upload.
    script: Option<(&'static str, &'static str)>,
    sum: Sum,
    client: Client,
}

/// Ends what [`Site::delete_when_interrupted`] began.
pub(super) struct Guard {
    _alive: tokio::sync::oneshot::Sender<()>,
}

impl Site {
    /// Makes a bucket where none was named.
    pub(super) async fn prepare(server: &Server, bench: &Bench) -> Result<Self, Failure> {
        let given: Vec<_> = server.url.split(',').map(|url| url.trim().to_owned()).collect();
        let admin_key = server.admin_key.as_ref().map(|key| key.expose().to_owned());
        let first = given.first().map(String::as_str).unwrap_or_default();
        // A bucket of our own has no keys, and refuses one that does not fit.
        let key = server.bucket_key.clone().filter(|_| bench.bucket.is_some());
        let client = Client::new(first, key.clone(), admin_key)?;
        let urls = nodes(&client, bench.nodes, given).await?;
        let (kind, script, sum) = work(bench)?;
        let bucket = match &bench.bucket {
            Some(bucket) => bucket.clone(),
            None => client.create_bucket(&NewBucket::default()).await?,
        };
        let value_size = usize::try_from(bench.value_size).unwrap_or_default();
        let calls = Calls {
            kind: in_bucket(kind, &bucket),
            bucket: paths::keys(&bucket),
            keys: bench.keys,
            value_size,
            seed: bench.seed,
            pool: load::pool(value_size, bench.seed),
        };
        let mut headers = vec![("content-type", "text/plain".to_owned())];
        if bench.script.is_some() {
            headers = vec![("content-type", "application/x-www-form-urlencoded".to_owned())];
        }
        if let Some(key) = &key {
            headers.push(("authorization", format!("Bearer {key}")));
        }
        let own = bench.bucket.is_none();
        Ok(Site { urls, headers, calls, bucket, own, script, sum, client })
    }

    /// Uploads and loads what calls need.
    pub(super) async fn fill(&self, bench: &Bench) -> Result<(), Failure> {
        if let Some((name, source)) = self.script {
            self.client.put_script(&self.bucket, name, source.into()).await?;
        }
        let reads = matches!(bench.work, Work::Get | Work::StaleGet | Work::Mixed);
        let plain = bench.script.is_none() && bench.work != Work::Incr;
        let accounts = matches!(self.sum, Sum::Exactly(_));
        if accounts || (plain && (reads || self.own)) {
            self.load(accounts).await.map_err(Failure::Other)?;
        }
        Ok(())
    }

    /// Writes all keys, many to a transaction.
    async fn load(&self, accounts: bool) -> Result<(), String> {
        let value = if accounts { 10 } else { self.calls.value_size as u64 };
        let batch = (BATCH_BYTES / (value + 64)).clamp(1, BATCH_KEYS);
        let batches = self.calls.keys.div_ceil(batch);
        futures::stream::iter(0..LOADERS as u64)
            .map(|loader| async move {
                let json = [("content-type", "application/json"), self.authorization()];
                let headers = json.get(..1 + usize::from(!self.authorization().1.is_empty()));
                let first = usize::try_from(loader).unwrap_or_default();
                let mut connection =
                    Connection::new(&self.urls, first, headers.unwrap_or_default()).await?;
                for index in (loader..batches).step_by(LOADERS) {
                    let keys = index * batch..self.calls.keys.min((index + 1) * batch);
                    let answer = self.transaction(keys, accounts);
                    connection.call(&answer).await?.expect(200)?;
                }
                Ok::<(), String>(())
            })
            .buffer_unordered(LOADERS)
            .try_collect::<()>()
            .await
            .map_err(|why| format!("the keys could not be loaded: {why}"))
    }

    fn authorization(&self) -> (&'static str, &str) {
        let found = self.headers.iter().find(|(name, _)| *name == "authorization");
        ("authorization", found.map(|(_, value)| value.as_str()).unwrap_or_default())
    }

    fn transaction(&self, keys: std::ops::Range<u64>, accounts: bool) -> Request {
        let mut random = Random::new(self.calls.seed, keys.start);
        let mut text = "{\"txn\":[".to_owned();
        for (index, number) in keys.enumerate() {
            text.push_str(if index == 0 { "{\"set\":\"" } else { ",{\"set\":\"" });
            load::push_key(&mut text, number);
            // Neither keys nor values have anything that JSON escapes. Writing to memory cannot fail.
            let _ = if accounts {
                write!(text, "\",\"value\":{BALANCE}}}")
            } else {
                let value = String::from_utf8_lossy(self.calls.value(&mut random));
                write!(text, "\",\"value\":\"{value}\"}}")
            };
        }
        text.push_str("]}");
        let path = paths::keys(&self.bucket).trim_end_matches('/').to_owned();
        Request { method: "POST", path, body: text.into_bytes() }
    }

    /// What is to be said before it begins.
    pub(super) fn note(&self) -> String {
        let own = if self.own { "a bucket of its own, " } else { "bucket " };
        format!("{own}{}, at {}", self.bucket, self.urls.join(", "))
    }

    /// Whether the sum of all keys is what it must be.
    pub(super) async fn check(&self, report: &Report) -> Result<(), Failure> {
        let (least, most) = match self.sum {
            Sum::Unknown => return Ok(()),
            Sum::Exactly(sum) => (sum, sum),
            Sum::Calls => (report.done, u64::MAX),
        };
        let sum = self.sum_of_keys().await?;
        if (least..=most).contains(&sum) {
            return Ok(());
        }
        let want = if least == most { "must be" } else { "must be at least" };
        let message = format!("WRONG: the sum of all keys is {sum}, and {want} {least}");
        Err(Failure::Other(message))
    }

    async fn sum_of_keys(&self) -> Result<u64, Failure> {
        let mut options = ListOptions {
            prefix: PREFIX.to_owned(),
            values: true,
            limit: Some(PAGE),
            ..ListOptions::default()
        };
        let mut sum: u64 = 0;
        loop {
            let (lines, cursor) = self.client.list(&self.bucket, &options).await?;
            for line in String::from_utf8_lossy(&lines).lines() {
                let value = line.rsplit_once('=').and_then(|(_, value)| value.parse::<u64>().ok());
                let value =
                    value.ok_or_else(|| Failure::Other(format!("WRONG: not an amount: {line}")))?;
                sum = sum.saturating_add(value);
            }
            options.cursor = cursor;
            if options.cursor.is_none() {
                return Ok(sum);
            }
        }
    }

    /// Deletes the bucket, if it is ours.
    pub(super) async fn delete(&self) -> Result<(), Failure> {
        if self.own {
            self.client.delete_bucket(&self.bucket).await?;
        }
        Ok(())
    }

    /// Deletes the bucket, if it is ours, and ends the process on SIGINT, until the guard is dropped.
    pub(super) fn delete_when_interrupted(&self) -> Option<Guard> {
        if !self.own {
            return None;
        }
        let (alive, over) = tokio::sync::oneshot::channel();
        let (client, bucket) = (self.client.clone(), self.bucket.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime else { return };
            let interrupted = runtime.block_on(async {
                tokio::select! {
                    signal = tokio::signal::ctrl_c() => signal.is_ok(),
                    _ = over => false,
                }
            });
            if interrupted {
                if let Err(error) = runtime.block_on(client.delete_bucket(&bucket)) {
                    ask::note(&format!("the bucket {bucket} is still there: {error}"));
                }
                std::process::exit(INTERRUPTED);
            }
        });
        Some(Guard { _alive: alive })
    }
}

/// Who is asked.
async fn nodes(client: &Client, nodes: Nodes, given: Vec<String>) -> Result<Vec<String>, Failure> {
    match nodes {
        Nodes::Given => Ok(given),
        Nodes::Leader => {
            let leader = client.status().await?.leader_url;
            let leader = leader.ok_or_else(|| Failure::Other("nobody leads now".to_owned()))?;
            Ok(vec![leader])
        }
        Nodes::All => {
            let members = client.status().await?.members;
            Ok(members.into_iter().map(|member| member.url).collect())
        }
    }
}

/// What calls do, the script to upload, and what the sum will be.
type Job = (Kind, Option<(&'static str, &'static str)>, Sum);

fn work(bench: &Bench) -> Result<Job, Failure> {
    let Some(name) = bench.script.as_deref() else {
        let own_counters = bench.work == Work::Incr && bench.bucket.is_none();
        let sum = if own_counters { Sum::Calls } else { Sum::Unknown };
        return Ok((Kind::Plain(bench.work, bench.reads), None, sum));
    };
    let mut args = bench.args.iter().map(|arg| ask::pair(arg)).collect::<Result<Vec<_>, _>>()?;
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let (source, defaults, sum) = match (&bench.bucket, name) {
        (Some(_), _) => (None, vec![], Sum::Unknown),
        (None, "transfer") if bench.keys < 2 => {
            return Err(Failure::Usage("a transfer needs two accounts: --keys 2".to_owned()));
        }
        (None, "transfer") => (
            Some(("transfer", TRANSFER)),
            vec![pair("from", "{key}"), pair("to", "{key2}"), pair("n", "{number}")],
            Sum::Exactly(bench.keys * BALANCE),
        ),
        (None, "counter") => {
            (Some(("counter", COUNTER)), vec![pair("counter", "{key}")], Sum::Calls)
        }
        (None, other) => {
            let message = format!(
                "`{other}` is no built-in script (transfer, counter): name the bucket that has it with --bucket"
            );
            return Err(Failure::Usage(message));
        }
    };
    if args.is_empty() {
        args = defaults;
    }
    Ok((Kind::Script(name.to_owned(), load::template(&args)), source, sum))
}

/// A script's name becomes its path.
fn in_bucket(kind: Kind, bucket: &str) -> Kind {
    match kind {
        Kind::Script(name, parts) => Kind::Script(paths::script(bucket, &name), parts),
        plain @ Kind::Plain(..) => plain,
    }
}
