//! `kvdb bench`: load for a cluster, and what it made of it.
//!
//! Without `--bucket` it works in a bucket of its own, which is gone at the end, however it ends short of `kill -9`.
//! Every answer is checked, and where the sum of all keys is known, that too.

mod bucket;
mod load;
mod show;

use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use clap::{Args, ValueEnum};

use self::bucket::Site;
use self::load::Load;
use super::{Failure, Server};
use crate::bench::http::{Connection, HttpClient};
use crate::bench::{Pace, Plan, Progress, Report};

pub(super) const EXAMPLES: &str = "\
Examples:
  kvdb bench                                   writes, as fast as 64 clients can, for 10 s
  kvdb bench --rate 2000                       2000 a second: what a user would wait
  kvdb bench --work mixed --reads 95 --json    95 reads in 100 calls; JSON for a program
  kvdb bench --script transfer                 money between accounts; their sum is checked
  kvdb bench --script counter --keys 1         all clients count at one key
  kvdb bench --bucket shop --script sell --arg item={key} --arg n={number}
                                               a script of your own

Without --rate a client calls again when it is answered (closed loop): that finds the peak, and
hides how long a stall was. With --rate calls are due at a steady pace and latency counts from when
a call was due (open loop): measure latency so, at a rate below the peak.

Exit codes are as ever; 1 also where a call failed or a sum is wrong.";

/// Longest value that is written.
const VALUE_MAX: u64 = 1024 * 1024;
/// Most keys.
const KEYS_MAX: u64 = 100_000_000;

/// Options of `kvdb bench`.
#[derive(Clone, Debug, Args)]
pub(super) struct Bench {
    /// A bucket that is there; its keys `bench:…` are overwritten, and stay. Else one of its own.
    #[arg(long)]
    bucket: Option<String>,
    /// What calls do.
    #[arg(long, value_enum, default_value = "put")]
    work: Work,
    /// Runs a script: one of the bucket, or, without --bucket, `transfer` or `counter`.
    #[arg(long, value_name = "NAME", conflicts_with = "work")]
    script: Option<String>,
    /// What the script gets; {key}, {key2} (another), {number} (1 to 10), {serial} are filled in.
    #[arg(long = "arg", value_name = "NAME=VALUE", requires = "script")]
    args: Vec<String>,
    /// Clients at once, a connection each.
    #[arg(long, default_value = "64")]
    clients: usize,
    /// Calls that are due in a second; without it, each client calls when it is answered.
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,
    /// How long calls are counted, in seconds.
    #[arg(long, default_value = "10", value_name = "SECONDS")]
    duration: f64,
    /// How long calls are made before that, in seconds.
    #[arg(long, default_value = "1", value_name = "SECONDS")]
    warmup: f64,
    /// Different keys; each call takes any of them.
    #[arg(long, default_value = "10000", value_parser = clap::value_parser!(u64).range(1..=KEYS_MAX))]
    keys: u64,
    /// Bytes of a value.
    #[arg(
        long, default_value = "256", value_name = "BYTES",
        value_parser = clap::value_parser!(u64).range(1..=VALUE_MAX)
    )]
    value_size: u64,
    /// Reads in 100 calls of --work mixed.
    #[arg(long, default_value = "50", value_name = "PERCENT", value_parser = clap::value_parser!(u64).range(0..=100))]
    reads: u64,
    /// Who is asked; --url may name several nodes, with commas.
    #[arg(long, value_enum, default_value = "given")]
    nodes: Nodes,
    /// Threads that share the clients; one does where the database is on the same machine.
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u64).range(1..=64))]
    threads: u64,
    /// The same seed draws the same keys.
    #[arg(long, default_value = "1")]
    seed: u64,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
    /// Prints the distribution of latencies as HdrHistogram's tools do.
    #[arg(long, conflicts_with = "json")]
    histogram: bool,
}

/// What calls do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Work {
    /// Sets a key.
    Put,
    /// Reads a key, linearizably.
    Get,
    /// Reads a key from the node's own state.
    StaleGet,
    /// Reads and sets keys.
    Mixed,
    /// Counts at a key.
    Incr,
}

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Nodes {
    /// The nodes of --url, each by its share of the clients.
    Given,
    /// The node that leads at the beginning.
    Leader,
    /// All members, each by its share of the clients.
    All,
}

/// Runs it.
pub(super) fn run(server: &Server, bench: &Bench) -> Result<ExitCode, Failure> {
    let plans = bench.plans()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Other(format!("the runtime: {error}")))?;
    let site = runtime.block_on(Site::prepare(server, bench))?;
    let _guard = site.delete_when_interrupted();
    let result = measure(bench, &site, &plans, &runtime);
    let deleted = runtime.block_on(site.delete());
    let code = result?;
    deleted?;
    Ok(code)
}

/// Fills the bucket, makes the calls, prints the report, and checks what is in the bucket then.
fn measure(
    bench: &Bench,
    site: &Site,
    plans: &[Plan],
    runtime: &tokio::runtime::Runtime,
) -> Result<ExitCode, Failure> {
    runtime.block_on(site.fill(bench))?;
    let report = drive(site, plans).map_err(Failure::Other)?;
    super::ask::print(show::report(bench, site, &report).as_bytes())?;
    runtime.block_on(site.check(&report))?;
    Ok(ExitCode::from(u8::from(report.failed > 0 || report.done == 0)))
}

/// Each thread drives its share of the clients; the first tells how all stand.
fn drive(site: &Site, plans: &[Plan]) -> Result<Report, String> {
    let standing = Mutex::new(vec![Progress::default(); plans.len()]);
    let mut line = show::Line::new(&site.note());
    let (first, others) = plans.split_first().ok_or("no clients")?;
    std::thread::scope(|scope| {
        let mut before = first.clients;
        let mut threads = Vec::new();
        for (thread, plan) in (1..).zip(others) {
            let (base, standing) = (before, &standing);
            before += plan.clients;
            threads.push(scope.spawn(move || {
                let connect = async |index| connect(site, base + index).await;
                crate::bench::run(plan, connect, |progress| note(standing, thread, progress))
            }));
        }
        let connect = async |index| connect(site, index).await;
        let own = crate::bench::run(first, connect, |progress| {
            note(&standing, 0, progress);
            line.show(&standing.lock().map(|all| all.clone()).unwrap_or_default());
        });
        let mut report = own?;
        for thread in threads {
            report.merge(&thread.join().map_err(|_| "a thread has failed")??);
        }
        Ok(report)
    })
}

/// Notes how one thread's clients stand.
fn note(standing: &Mutex<Vec<Progress>>, thread: usize, progress: Progress) {
    let Ok(mut standing) = standing.lock() else { return };
    if let Some(own) = standing.get_mut(thread) {
        *own = progress;
    }
}

async fn connect(site: &Site, client: usize) -> Result<HttpClient<Load>, String> {
    let headers: Vec<_> =
        site.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let connection = Connection::new(&site.urls, client, &headers).await?;
    Ok(HttpClient::new(connection, Load::new(&site.calls, client)))
}

impl Bench {
    /// A plan for each thread: together they are the run that was asked for.
    fn plans(&self) -> Result<Vec<Plan>, Failure> {
        let seconds = |name: &str, seconds: f64| {
            Duration::try_from_secs_f64(seconds)
                .map_err(|_| Failure::Usage(format!("--{name} {seconds}: write seconds")))
        };
        let (warmup, duration) =
            (seconds("warmup", self.warmup)?, seconds("duration", self.duration)?);
        let threads = usize::try_from(self.threads).unwrap_or(1);
        if self.clients < threads {
            return Err(Failure::Usage(format!("{threads} threads for {} clients", self.clients)));
        }
        let mut plans = Vec::new();
        for thread in 0..threads {
            let clients = self.clients / threads + usize::from(thread < self.clients % threads);
            let share = clients as f64 / self.clients as f64;
            let pace = match self.rate {
                None => Pace::Closed,
                Some(rate) => Pace::Open { per_second: rate * share },
            };
            let plan = Plan { clients, pace, warmup, duration };
            plan.check().map_err(Failure::Usage)?;
            plans.push(plan);
        }
        Ok(plans)
    }

    /// What calls are called in a report.
    fn name(&self) -> String {
        match (&self.script, self.work) {
            (Some(script), _) => format!("script {script}"),
            (None, Work::Put) => "put".to_owned(),
            (None, Work::Get) => "get".to_owned(),
            (None, Work::StaleGet) => "stale-get".to_owned(),
            (None, Work::Mixed) => format!("mixed ({} % reads)", self.reads),
            (None, Work::Incr) => "incr".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn parse(line: &str) -> Result<Bench, clap::Error> {
        match Cli::try_parse_from(line.split(' '))?.command {
            Command::Bench(bench) => Ok(*bench),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn clients_and_rate_are_shared_among_threads() {
        let bench = parse("kvdb bench --clients 5 --threads 2 --rate 100").unwrap();
        let plans = bench.plans().unwrap();
        assert_eq!((plans[0].clients, plans[1].clients), (3, 2));
        assert_eq!(plans[0].pace, Pace::Open { per_second: 60.0 });
        assert_eq!(plans[1].pace, Pace::Open { per_second: 40.0 });
        assert_eq!(plans[0].duration, Duration::from_secs(10));
    }

    /// clap takes some words in braces for its own.
    #[test]
    fn help_names_every_placeholder() {
        let help = parse("kvdb bench --help").unwrap_err().to_string();
        for placeholder in ["{key}", "{key2}", "{number}", "{serial}", "n={number}"] {
            assert!(help.contains(placeholder), "{placeholder}: {help}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "kvdb bench --clients 2 --threads 3",
            "kvdb bench --duration=-1",
            "kvdb bench --duration 0",
            "kvdb bench --rate 0",
            "kvdb bench --clients 0 --threads 1",
        ] {
            assert!(matches!(parse(line).unwrap().plans(), Err(Failure::Usage(_))), "{line}");
        }
        for line in [
            "kvdb bench --work put --script transfer",
            "kvdb bench --arg a=b",
            "kvdb bench --json --histogram",
            "kvdb bench --keys 0",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
