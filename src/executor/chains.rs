//! The chains of all buckets that have something to do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::chain::Chain;
use super::lock;
use crate::kv::BucketId;

/// One chain for each bucket that has jobs, and none for others. A chain says itself that it is retired, under its lock:
/// whoever has it in hand by then cannot put a job into one that nobody knows any more, and need not be counted.
#[derive(Default)]
pub(super) struct Chains(Mutex<HashMap<BucketId, Arc<Chain>>>);

impl Chains {
    /// The chain of a bucket, made where there is none. Who lets nothing enter must retire it.
    pub(super) fn of(&self, bucket: BucketId) -> Arc<Chain> {
        Arc::clone(lock(&self.0).entry(bucket).or_insert_with(|| Arc::new(Chain::new(bucket))))
    }

    /// Forgets a chain that holds nothing. Its next job starts from the state as applied.
    pub(super) fn retire(&self, chain: &Arc<Chain>) {
        let mut chains = lock(&self.0);
        // Under both locks: who finds a retired chain does not find it in the map again.
        if chain.retire() && chains.get(&chain.bucket).is_some_and(|own| Arc::ptr_eq(own, chain)) {
            chains.remove(&chain.bucket);
        }
    }

    pub(super) fn all(&self) -> Vec<Arc<Chain>> {
        lock(&self.0).values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::chain::{Entered, Taken};
    use crate::executor::job::{Job, Request, Upkeep};
    use crate::kv::Overlay;

    #[test]
    fn a_chain_that_others_have_in_hand_is_forgotten_all_the_same() {
        let (chains, bucket) = (Chains::default(), BucketId(1));
        let job = || Job::of(Request::Upkeep(Upkeep::Sweep));
        let chain = chains.of(bucket);
        let ((first, _answer), (second, _other)) = (job(), job());
        assert!(matches!(chain.enqueue(first), Ok(Entered::Queued { schedule: true })));
        // Two tasks have it, and both find it idle before either lets go: nobody is left to look again.
        let other = chains.of(bucket);
        chains.retire(&chain);
        assert_eq!(chains.all().len(), 1, "it has a job");
        let Taken::Job(..) = chain.take(1, |_| true) else { panic!("no job") };
        chain.put_back(Overlay::default());
        assert!(chain.end_turn().retire);
        chains.retire(&chain);
        chains.retire(&other);
        assert!(chains.all().is_empty());
        // Whoever is late finds the door shut, and asks again.
        let Ok(Entered::Retired(second)) = other.enqueue(second) else { panic!("it entered") };
        let new = chains.of(bucket);
        assert!(matches!(new.enqueue(second), Ok(Entered::Queued { schedule: true })));
        chains.retire(&chain);
        assert_eq!(chains.all().len(), 1, "the new one stays");
    }
}
