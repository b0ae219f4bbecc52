//! What each script of this node was called for, and cost. Asked for by a bucket's owner; not among the node's
//! metrics, where a name of each script would fill the memory of whoever collects them.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use super::lock;
use crate::kv::{BucketId, ScriptName};
use crate::script::Cost;

/// Scripts that are counted; what comes later is not.
const SCRIPTS_MAX: usize = 10_000;

/// What one script was called for, and cost, since the node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScriptStats {
    /// Runs, those included that were run again.
    pub calls: u64,
    /// Runs that failed.
    pub errors: u64,
    /// Runs that had to be run again, because what they stood on was lost.
    pub conflicts: u64,
    /// Fuel of all runs.
    pub fuel: u64,
    /// Time of all runs.
    pub total: Duration,
    /// Time of the longest run.
    pub longest: Duration,
}

/// One run.
pub(super) struct Run {
    pub(super) failed: bool,
    pub(super) again: bool,
    pub(super) cost: Cost,
    pub(super) took: Duration,
}

/// The counts of all scripts.
pub struct Stats {
    counted: Mutex<Counted>,
    slow: Duration,
}

#[derive(Default)]
struct Counted {
    scripts: HashMap<BucketId, HashMap<ScriptName, ScriptStats>>,
    /// How many there are in all.
    count: usize,
}

impl Stats {
    /// Counts; runs that take this long are logged.
    #[must_use]
    pub fn new(slow: Duration) -> Self {
        Stats { counted: Mutex::default(), slow }
    }

    /// What a script was called for.
    #[must_use]
    pub fn of(&self, bucket: BucketId, name: &ScriptName) -> ScriptStats {
        let counted = lock(&self.counted);
        counted.scripts.get(&bucket).and_then(|own| own.get(name)).copied().unwrap_or_default()
    }

    pub(super) fn count(&self, bucket: BucketId, name: &ScriptName, run: &Run) {
        if run.took >= self.slow {
            let (ms, fuel) = (run.took.as_millis(), run.cost.fuel);
            // A bucket's name may be all that protects it.
            tracing::warn!(bucket = bucket.0, script = %name, ms, fuel, "a slow script");
        }
        let counted = &mut *lock(&self.counted);
        let known = counted.scripts.get_mut(&bucket).and_then(|own| own.get_mut(name));
        if let Some(stats) = known {
            stats.add(run);
        } else if counted.count < SCRIPTS_MAX {
            counted.count += 1;
            let own = counted.scripts.entry(bucket).or_default();
            own.entry(name.clone()).or_default().add(run);
        }
    }
}

impl ScriptStats {
    fn add(&mut self, run: &Run) {
        self.calls += 1;
        self.errors += u64::from(run.failed);
        self.conflicts += u64::from(run.again);
        self.fuel += run.cost.fuel;
        self.total += run.took;
        self.longest = self.longest.max(run.took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_counted_by_bucket_and_name_and_no_more_than_fit() {
        let stats = Stats::new(Duration::MAX);
        let name = |name: &str| ScriptName::parse(name).unwrap();
        let run = |failed, fuel, ms| Run {
            failed,
            again: failed,
            cost: Cost { fuel, memory_bytes: 0 },
            took: Duration::from_millis(ms),
        };
        stats.count(BucketId(1), &name("a"), &run(false, 3, 5));
        stats.count(BucketId(1), &name("a"), &run(true, 4, 2));
        stats.count(BucketId(2), &name("a"), &run(false, 1, 1));
        let expected = ScriptStats {
            calls: 2,
            errors: 1,
            conflicts: 1,
            fuel: 7,
            total: Duration::from_millis(7),
            longest: Duration::from_millis(5),
        };
        assert_eq!(stats.of(BucketId(1), &name("a")), expected);
        assert_eq!(stats.of(BucketId(2), &name("a")).calls, 1);
        for number in 0..SCRIPTS_MAX + 1 {
            stats.count(BucketId(3), &name(&format!("s{number}")), &run(false, 1, 1));
        }
        assert_eq!(stats.of(BucketId(3), &name(&format!("s{SCRIPTS_MAX}"))).calls, 0);
        stats.count(BucketId(1), &name("a"), &run(false, 0, 0));
        assert_eq!(stats.of(BucketId(1), &name("a")).calls, 3, "known ones go on");
    }
}
