//! What a follower that comes back by a snapshot costs the leader.

use std::time::{Duration, Instant};

use cluster_tests::launch::{BENCH_KEEP_ENTRIES, Launch};
use cluster_tests::status::Status;
use cluster_tests::wait::holds;
use kvdb::bench::{Pace, Plan};

use super::Measured;
use crate::clients::Work;
use crate::clients::ours::VALUES;
use crate::drive::drive_kvdb;
use crate::lab::{CLIENTS, Lab};
use crate::peers::load::{Content, Load};
use crate::peers::ours::Ours;
use crate::peers::{READY, System, until};
use crate::say::say;
use crate::stats::{Round, short};

/// Bytes of a value of the snapshot.
const BYTES: usize = 1024;
/// How long load goes on before it is looked whether the follower is there.
const SLICE: Duration = Duration::from_millis(500);
/// The longest that a follower may take.
const REJOIN_MAX: Duration = Duration::from_secs(600);
/// Keys that the load goes to.
const KEYS: u64 = 10_000;
pub(super) fn rejoin(lab: &mut Lab) -> Result<Measured, String> {
    lab.clear();
    let keys = lab.settings.scaled(1 << 20, 1 << 16);
    // Few entries stay in the log, or the follower would catch up from it.
    let mut ours = lab.start_ours("rejoin", &Launch::of(3).keep_entries(BENCH_KEEP_ENTRIES))?;
    let leader = ours.leader_id()?;
    let away = ours.cluster.others(leader).pop().ok_or("no follower")?;
    let known = status(lab, &ours, away)?.last_log_index.unwrap_or(0);
    ours.cluster.kill(away);
    ours.load(&Load { bucket: VALUES, keys: 0..keys, content: Content::Values(BYTES) })?;
    purge(lab, &ours, leader, known)?;
    let least = lab.settings.duration;
    let (before, noise) =
        lab.watched(&mut |lab| slices(lab, &ours, leader, least, |_| Ok(true)))?;
    // Whoever has applied this has the snapshot: the log does not reach back to what it knows.
    let target = status(lab, &ours, leader)?.last_log_index.unwrap_or(0);
    let begun = Instant::now();
    ours.cluster.restart(away);
    let (meanwhile, noise_too) = lab.watched(&mut |lab| {
        slices(lab, &ours, leader, Duration::ZERO, |lab| {
            // It may be starting, and not answer.
            let applied = status(lab, &ours, away).ok().and_then(|status| status.applied_index);
            Ok(applied >= Some(target))
        })
    })?;
    let note = format!(
        "{} MiB of values; the follower was back within {} s",
        (keys * BYTES as u64) >> 20,
        short(begun.elapsed().as_secs_f64())
    );
    let round = Round { ours: meanwhile, peer: before, noise: noise.with(noise_too) };
    Ok(Measured { rounds: vec![round], note })
}

fn status(lab: &Lab, ours: &Ours, id: u64) -> Result<Status, String> {
    lab.control.block_on(ours.cluster.try_status(id))
}

/// Takes snapshots and waits until the leader's log begins behind what the absent follower knows.
fn purge(lab: &Lab, ours: &Ours, leader: u64, known: u64) -> Result<(), String> {
    say("   taking a snapshot");
    lab.control.block_on(ours.cluster.admin("POST", leader, "/-/cluster/snapshot", ""));
    until("the leader to purge its log", READY, || {
        let purged = status(lab, ours, leader)?.purged_index;
        holds(purged > Some(known), || format!("purged to {purged:?}, not beyond {known}"))
    })
}

/// Puts on the leader in a second, in slices, until the time is over and something is so.
fn slices(
    lab: &mut Lab,
    ours: &Ours,
    leader: u64,
    least: Duration,
    mut over: impl FnMut(&mut Lab) -> Result<bool, String>,
) -> Result<f64, String> {
    let plan =
        Plan { clients: CLIENTS, pace: Pace::Closed, warmup: Duration::ZERO, duration: SLICE };
    let urls = ours.cluster.urls(&[leader]);
    let begun = Instant::now();
    let (mut done, mut seconds) = (0, 0.0);
    loop {
        let report = drive_kvdb(&plan, &urls, lab.seed(), Work::Put(KEYS), None)?;
        done += report.done;
        seconds += report.elapsed.as_secs_f64();
        let elapsed = begun.elapsed();
        if elapsed >= least && over(lab)? {
            return Ok(done as f64 / seconds);
        }
        holds(elapsed < REJOIN_MAX, || format!("the follower is not back after {elapsed:?}"))?;
    }
}
