//! Bytes that reach the disk for each byte that a user wrote.

use std::time::{Duration, Instant};

use cluster_tests::launch::Launch;
use kvdb::bench::{Pace, Plan, Report};

use super::Measured;
use crate::clients::{KEY_BYTES, VALUE_BYTES, Work};
use crate::drive::{drive_etcd, drive_kvdb};
use crate::lab::{CLIENTS, Lab};
use crate::machine::written_bytes;
use crate::peers::System;
use crate::stats::short;

/// How long load goes on before the count is looked at.
const SLICE: Duration = Duration::from_secs(2);
/// The longest that all of it may take.
const ALL_MAX: Duration = Duration::from_secs(1800);

/// One round on new databases: a million writes are enough for a mean.
pub(super) fn disk_bytes(lab: &mut Lab) -> Result<Measured, String> {
    lab.clear();
    let writes = lab.settings.scaled(1_000_000, 20_000);
    let rounds = lab.rounds(
        1,
        |lab| {
            let mut ours = lab.start_ours("disk", &Launch::of(3))?;
            let seed = lab.seed();
            amplification(&mut ours, writes, |plan, urls, slice| {
                drive_kvdb(plan, &urls, seed ^ (slice << 32), Work::Put(writes), None)
            })
        },
        |lab| {
            let mut etcd = lab.start_etcd("disk")?;
            let seed = lab.seed();
            amplification(&mut etcd, writes, |plan, urls, slice| {
                drive_etcd(plan, urls, seed ^ (slice << 32), Work::Put(writes))
            })
        },
    )?;
    let note = format!("{} PUTs, uniform over as many keys", short(writes as f64));
    Ok(Measured { rounds, note })
}

fn amplification(
    system: &mut dyn System,
    writes: u64,
    mut drive: impl FnMut(&Plan, Vec<String>, u64) -> Result<Report, String>,
) -> Result<f64, String> {
    let plan =
        Plan { clients: CLIENTS, pace: Pace::Closed, warmup: Duration::ZERO, duration: SLICE };
    let pids = system.pids();
    let written = || pids.iter().copied().map(written_bytes).sum::<f64>();
    let (before, begun) = (written(), Instant::now());
    let (mut done, mut slice) = (0, 0);
    while done < writes {
        if begun.elapsed() > ALL_MAX {
            return Err(format!("only {done} writes in {ALL_MAX:?}"));
        }
        slice += 1;
        done += drive(&plan, system.leader_url()?, slice)?.done;
    }
    let user = done as f64 * (KEY_BYTES + VALUE_BYTES) as f64 * pids.len() as f64;
    Ok((written() - before) / user)
}
