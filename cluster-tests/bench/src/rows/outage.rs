//! How long nobody can write after the leader was killed.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use kvdb::bench::http::Work as Asks;
use kvdb::bench::{Pace, Plan, run};

use super::Measured;
use crate::clients::gateway::Puts;
use crate::clients::ours::Asker;
use crate::clients::writers::{Log, Writer};
use crate::clients::{Draw, Work};
use crate::drive::show;
use crate::lab::{KEYS, Lab};
use crate::peers::System;
use crate::supervise::kill_now;

/// Writers, spread over the nodes.
const WRITERS: usize = 16;
/// From the start of a run to the kill.
const BEFORE: Duration = Duration::from_secs(2);
/// From the kill to the end: longer than any outage that is to be seen whole.
const AFTER: Duration = Duration::from_secs(5);
/// The grain of the plot.
const SLOT: Duration = Duration::from_millis(50);
/// How long the plot shows.
const SHOWN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(4));

pub(super) fn outage(lab: &mut Lab) -> Result<Measured, String> {
    let rounds = lab.settings.rounds;
    let rounds = lab.rounds(
        rounds,
        |lab| {
            let seed = lab.seed();
            let put = |index| Asker::new(Work::Put(KEYS), Draw::new(seed, index));
            let seen = kill_leader(lab.ours()?, put)?;
            lab.series.failover.set("KVdb", seen.timeline());
            Ok(seen.outage().as_secs_f64())
        },
        |lab| {
            let seed = lab.seed();
            let put = |index| Puts::new(KEYS, Draw::new(seed, index));
            let seen = kill_leader(lab.etcd()?, put)?;
            lab.series.failover.set("etcd", seen.timeline());
            Ok(seen.outage().as_secs_f64())
        },
    )?;
    Ok(rounds.into())
}

/// When writes were done, in order, and when the leader was killed and all ended.
struct Seen {
    writes: Vec<Instant>,
    killed: Instant,
    ended: Instant,
}

/// Writes, kills the leader in the middle, and starts it again afterwards.
fn kill_leader<W: Asks + 'static>(
    system: &mut dyn System,
    work: impl Fn(usize) -> W,
) -> Result<Seen, String> {
    let leader = system.leader()?;
    let pid = system.pids().get(leader).copied().ok_or("the leader does not run")?;
    let urls = system.urls();
    let log: Log = Rc::new(RefCell::new(Vec::new()));
    let plan = Plan {
        clients: WRITERS,
        pace: Pace::Closed,
        warmup: Duration::ZERO,
        duration: BEFORE + AFTER,
    };
    let killer = std::thread::spawn(move || {
        std::thread::sleep(BEFORE);
        kill_now(pid);
        Instant::now()
    });
    let connect = async |index| Ok(Writer::new(urls.clone(), index, work(index), log.clone()));
    let ran = run(&plan, connect, show);
    let killed = killer.join().map_err(|_| "nobody killed the leader".to_owned())?;
    let ended = Instant::now();
    system.revive()?;
    ran?;
    let writes = log.take();
    Ok(Seen { writes, killed, ended })
}

impl Seen {
    /// The longest time without a write, of those that end after the kill.
    fn outage(&self) -> Duration {
        let ends = self.writes.iter().copied().chain([self.ended]);
        let begins = self.writes.iter().copied();
        let gaps = begins.zip(ends.skip(1)).filter(|(_, end)| *end > self.killed);
        gaps.map(|(begin, end)| end - begin).max().unwrap_or(self.ended - self.killed)
    }

    /// Writes in a second, in slots around the kill, which is at 0 s.
    fn timeline(&self) -> Vec<(f64, f64)> {
        let (before, after) = SHOWN;
        let slots = (before + after).as_millis() / SLOT.as_millis();
        let mut counts = vec![0.0; usize::try_from(slots).unwrap_or_default()];
        for write in &self.writes {
            let since = (*write + before).saturating_duration_since(self.killed);
            let slot = usize::try_from(since.as_millis() / SLOT.as_millis()).unwrap_or(usize::MAX);
            if !since.is_zero()
                && let Some(count) = counts.get_mut(slot)
            {
                *count += 1.0 / SLOT.as_secs_f64();
            }
        }
        let time = |slot: usize| slot as f64 * SLOT.as_secs_f64() - before.as_secs_f64();
        counts.into_iter().enumerate().map(|(slot, count)| (time(slot), count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(writes: &[u64], killed: u64) -> Seen {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let writes = writes.iter().map(|ms| at(*ms)).collect();
        Seen { writes, killed: at(killed), ended: at(7000) }
    }

    #[test]
    fn outage_is_the_longest_gap_that_ends_after_the_kill() {
        // A stall before the kill, one across it, a shorter one after it.
        let seen = seen(&[0, 1500, 1990, 2600, 2700, 3000, 6999], 2000);
        assert_eq!(seen.outage(), Duration::from_millis(3999));
        let seen = super::tests::seen(&[0, 1500, 1990, 2600, 6900], 2000);
        assert_eq!(seen.outage(), Duration::from_millis(4300));
    }

    #[test]
    fn outage_that_never_ends_lasts_until_the_end() {
        assert_eq!(seen(&[100, 1990], 2000).outage(), Duration::from_millis(5010));
        assert_eq!(seen(&[], 2000).outage(), Duration::from_millis(5000));
    }

    #[test]
    fn timeline_counts_around_the_kill() {
        let timeline = seen(&[900, 1010, 1020, 2500, 6900], 2000).timeline();
        assert_eq!(timeline.len(), 100);
        assert_eq!(timeline[0], (-1.0, 40.0));
        let sum: f64 = timeline.iter().map(|(_, rate)| rate * SLOT.as_secs_f64()).sum();
        assert!((sum - 3.0).abs() < 1e-9, "two before, one after: {sum}");
    }
}
