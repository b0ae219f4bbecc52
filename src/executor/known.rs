//! Which scripts are known to compute for long.
//!
//! Only those are kept. What counts is the time on a core, not by the clock: a script that a busy machine stretches is
//! not slow, and if it counted as slow, a lower priority would stretch it more and keep it so.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::lock;
use crate::kv::{BucketId, ScriptName};

/// Scripts that are kept; beyond, the one that ran least recently is forgotten, and found out again.
const SCRIPTS_MAX: usize = 1024;
/// Of how many runs a script's time is about the mean.
const RUNS: u32 = 4;

pub(super) struct Known {
    /// A script that computes longer is slow, until its time is less than half of this.
    slow_after: Duration,
    /// Makes a key of bucket and name, which differs by process: nobody can have his script taken for another.
    hasher: RandomState,
    scripts: Mutex<Scripts>,
    /// How many there are. Mostly none, and then nobody takes the lock.
    count: AtomicUsize,
}

#[derive(Default)]
struct Scripts {
    slow: HashMap<u64, Slow>,
    runs: u64,
}

struct Slow {
    /// Decayed mean of its runs.
    time: Duration,
    /// The number of its last run.
    run: u64,
}

impl Known {
    pub(super) fn new(slow_after: Duration) -> Self {
        let (hasher, scripts) = (RandomState::new(), Mutex::default());
        Known { slow_after, hasher, scripts, count: AtomicUsize::new(0) }
    }

    pub(super) fn is_slow(&self, bucket: BucketId, name: &ScriptName) -> bool {
        // A run that is just being noted may be missed: then it is found out once more.
        self.count.load(Ordering::Relaxed) > 0
            && lock(&self.scripts).slow.contains_key(&self.key(bucket, name))
    }

    /// Notes for how long a script has computed.
    pub(super) fn note(&self, bucket: BucketId, name: &ScriptName, computed: Duration) {
        let key = self.key(bucket, name);
        let scripts = &mut *lock(&self.scripts);
        scripts.runs += 1;
        let run = scripts.runs;
        if let Some(slow) = scripts.slow.get_mut(&key) {
            *slow = Slow { time: (slow.time * (RUNS - 1) + computed) / RUNS, run };
            if slow.time < self.slow_after / 2 {
                scripts.slow.remove(&key);
            }
        } else if computed > self.slow_after {
            if scripts.slow.len() >= SCRIPTS_MAX {
                scripts.forget_one();
            }
            scripts.slow.insert(key, Slow { time: computed, run });
        }
        self.count.store(scripts.slow.len(), Ordering::Relaxed);
    }

    fn key(&self, bucket: BucketId, name: &ScriptName) -> u64 {
        self.hasher.hash_one((bucket, name))
    }
}

impl Scripts {
    fn forget_one(&mut self) {
        let oldest = self.slow.iter().min_by_key(|(_, slow)| slow.run).map(|(key, _)| *key);
        if let Some(key) = oldest {
            self.slow.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn name(name: &str) -> ScriptName {
        ScriptName::parse(name).unwrap()
    }

    #[test]
    fn a_script_is_slow_from_its_first_long_run_until_it_has_been_quick_for_long() {
        let (known, one, a) = (Known::new(5 * MS), BucketId(1), name("a"));
        known.note(one, &a, 5 * MS);
        assert!(!known.is_slow(one, &a));
        known.note(one, &a, 50 * MS);
        assert!(known.is_slow(one, &a));
        assert!(!known.is_slow(BucketId(2), &a) && !known.is_slow(one, &name("b")));
        known.note(one, &a, MS / 10);
        assert!(known.is_slow(one, &a), "a quick run between long ones");
        let quick = (0..100).take_while(|_| {
            known.note(one, &a, MS / 10);
            known.is_slow(one, &a)
        });
        assert!((5..20).contains(&quick.count()));
        known.note(one, &a, 4 * MS);
        assert!(!known.is_slow(one, &a), "not long enough to be slow again");
    }

    #[test]
    fn no_more_are_kept_than_fit_and_those_that_run_stay() {
        let (known, one) = (Known::new(5 * MS), BucketId(1));
        let number = |number: usize| name(&format!("s{number}"));
        for script in 0..SCRIPTS_MAX {
            known.note(one, &number(script), 6 * MS);
        }
        known.note(one, &number(0), 6 * MS);
        known.note(one, &name("another"), 6 * MS);
        assert_eq!(lock(&known.scripts).slow.len(), SCRIPTS_MAX);
        assert!(known.is_slow(one, &name("another")) && known.is_slow(one, &number(0)));
        assert!(!known.is_slow(one, &number(1)));
    }
}
