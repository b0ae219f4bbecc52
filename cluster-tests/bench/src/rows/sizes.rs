//! Rows about how much data there is: memory, restart, throughput.

use std::time::Instant;

use cluster_tests::launch::Launch;
use kvdb::bench::Report;

use super::Measured;
use crate::clients::Work;
use crate::clients::ours::VALUES;
use crate::drive::{drive_etcd, drive_kvdb};
use crate::lab::{CLIENTS, Lab};
use crate::machine::resident_bytes;
use crate::peers::load::Load;
use crate::peers::ours::Ours;
use crate::peers::{READY, System, until};
use crate::say::say;
use crate::stats::short;

/// Most rounds of what takes a restart.
const RESTARTS_MAX: usize = 5;

/// Mean over the nodes, in MiB.
fn memory_per_node(system: &dyn System) -> f64 {
    let pids = system.pids();
    let all: f64 = pids.iter().copied().map(resident_bytes).sum();
    all / pids.len() as f64 / f64::from(1 << 20)
}

fn million(lab: &Lab) -> u64 {
    lab.settings.scaled(1_000_000, 100_000)
}

/// Starts both and fills them step by step, for the plot, where no row has done so.
fn fill(lab: &mut Lab) -> Result<(), String> {
    if lab.million.is_some() {
        return Ok(());
    }
    lab.clear();
    let keys = million(lab);
    let mut ours = lab.start_ours("million", &Launch::of(3))?;
    let mut etcd = lab.start_etcd("million")?;
    let mut loaded = 0;
    for part in [20, 5, 1] {
        let until = keys / part;
        grow(lab, &mut ours, loaded..until, "KVdb", put_ours)?;
        grow(lab, &mut etcd, loaded..until, "etcd", |lab, etcd, keys| {
            let plan = lab.settings.closed(CLIENTS);
            drive_etcd(&plan, etcd.leader_url()?, lab.seed(), Work::Put(keys))
        })?;
        loaded = until;
    }
    lab.million = Some((ours, etcd));
    Ok(())
}

fn put_ours(lab: &mut Lab, ours: &mut Ours, keys: u64) -> Result<Report, String> {
    let plan = lab.settings.closed(CLIENTS);
    drive_kvdb(&plan, &ours.leader_url()?, lab.seed(), Work::Put(keys), None)
}

/// Loads more keys, and keeps memory and throughput for the plot.
fn grow<S: System>(
    lab: &mut Lab,
    system: &mut S,
    keys: std::ops::Range<u64>,
    name: &str,
    put: impl Fn(&mut Lab, &mut S, u64) -> Result<Report, String>,
) -> Result<(), String> {
    say(&format!("   {}: keys {} to {}", system.name(), keys.start, keys.end));
    let all = keys.end;
    system.load(&Load::values(VALUES, keys))?;
    let count = all as f64;
    lab.series.memory.add(name, (count, memory_per_node(system)));
    let rate = put(lab, system, all)?.per_second();
    lab.series.size.add(name, (count, rate));
    Ok(())
}

pub(super) fn memory(lab: &mut Lab) -> Result<Measured, String> {
    fill(lab)?;
    let rounds = lab.rounds(
        1,
        |lab| Ok(memory_per_node(&lab.million.as_ref().ok_or("not loaded")?.0)),
        |lab| Ok(memory_per_node(&lab.million.as_ref().ok_or("not loaded")?.1)),
    )?;
    let note = format!("{} keys, after loading and some writes", short(million(lab) as f64));
    Ok(Measured { rounds, note })
}

pub(super) fn restart(lab: &mut Lab) -> Result<Measured, String> {
    fill(lab)?;
    let rounds = lab.settings.rounds.min(RESTARTS_MAX);
    let rounds = lab.rounds(
        rounds,
        |lab| restarted(&mut lab.million.as_mut().ok_or("not loaded")?.0),
        |lab| restarted(&mut lab.million.as_mut().ok_or("not loaded")?.1),
    );
    lab.million = None;
    let note = format!("{} keys", short(million(lab) as f64));
    Ok(Measured { rounds: rounds?, note })
}

/// Seconds from the start of all nodes, after kill -9 of all, to the first write that is taken.
fn restarted(system: &mut dyn System) -> Result<f64, String> {
    system.kill_all();
    let begun = Instant::now();
    system.start()?;
    until("a write", READY, || system.write_once())?;
    let seconds = begun.elapsed().as_secs_f64();
    system.leader()?;
    Ok(seconds)
}

/// Two clusters of ours, one full, one nearly empty; both are up, one is loaded.
pub(super) fn five_million(lab: &mut Lab) -> Result<Measured, String> {
    lab.clear();
    let (many, few) = lab.settings.scaled((5_000_000, 50_000), (200_000, 20_000));
    let mut small = lab.start_ours("few", &Launch::of(3))?;
    small.load(&Load::values(VALUES, 0..few))?;
    let mut full = lab.start_ours("many", &Launch::of(3))?;
    let begin = million(lab);
    full.load(&Load::values(VALUES, 0..begin))?;
    grow(lab, &mut full, begin..many, "KVdb", put_ours)?;
    let rounds = lab.settings.rounds;
    let rounds = lab.rounds(
        rounds,
        |lab| Ok(put_ours(lab, &mut full, many)?.per_second()),
        |lab| Ok(put_ours(lab, &mut small, few)?.per_second()),
    )?;
    let note = format!("{} against {} keys", short(many as f64), short(few as f64));
    Ok(Measured { rounds, note })
}
