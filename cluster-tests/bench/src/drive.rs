//! Load on a database: a plan, clients of a kind, and answers that must all be right.

use std::io::IsTerminal;

use kvdb::bench::{Client, Plan, Progress, Report, run};

use crate::clients::etcd::{Caller as EtcdCaller, Channels};
use crate::clients::ours::{self, Asker};
use crate::clients::{Draw, Work};

/// The share of calls that an open loop may not have come to at its end.
const MISSED_MAX: f64 = 0.01;

/// Load on some nodes of ours; on another bucket than the work's own where one is named.
///
/// # Errors
/// When an answer was wrong.
pub fn drive_kvdb(
    plan: &Plan,
    urls: &[String],
    seed: u64,
    work: Work,
    bucket: Option<&'static str>,
) -> Result<Report, String> {
    drive(plan, async |index| {
        let asker = Asker::new(work, Draw::new(seed, index));
        let asker = if let Some(bucket) = bucket { asker.of(bucket) } else { asker };
        ours::connect(urls, index, asker).await
    })
}

/// Load on some members of etcd, over gRPC.
///
/// # Errors
/// When an answer was wrong.
pub fn drive_etcd(plan: &Plan, urls: Vec<String>, seed: u64, work: Work) -> Result<Report, String> {
    let channels = Channels::new(urls, plan.clients);
    drive(plan, async |index| {
        Ok(EtcdCaller::new(channels.of(index)?, work, Draw::new(seed, index)))
    })
}

/// Runs a plan whose answers must all be right.
///
/// # Errors
/// When one was not.
pub fn drive<C: Client + 'static>(
    plan: &Plan,
    connect: impl AsyncFn(usize) -> Result<C, String>,
) -> Result<Report, String> {
    let report = run(plan, connect, show)?;
    match (report.failed, &report.first_failure) {
        (0, _) if report.done == 0 => Err("not one call was done".to_owned()),
        (0, _) if report.missed as f64 > report.done as f64 * MISSED_MAX => {
            Err(format!("the rate was not kept up: {} calls were never made", report.missed))
        }
        (0, _) => Ok(report),
        (failed, why) => {
            Err(format!("{failed} calls failed, the first: {}", why.as_deref().unwrap_or("-")))
        }
    }
}

/// A line that rewrites itself, where somebody looks at it.
pub fn show(progress: Progress) {
    if std::io::stderr().is_terminal() {
        let seconds = progress.elapsed.as_secs();
        eprint!("\r   {seconds} s, {} calls, {} failed \r", progress.done, progress.failed);
    }
}
