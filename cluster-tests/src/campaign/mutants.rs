//! The tests' own test: bugs planted in the product must be found, each by a checker that is named here.
//!
//! The bugs are in the product behind the cargo feature `mutants` and are chosen by `KVDB_MUTANT`; one is
//! planted from outside: a library that makes every fsync a lie. A mutant is hunted with the workloads
//! and faults that should show it, one short history after the other, until a checker finds it or the
//! time is over. What is not found is listed as not found.

use std::fmt;
use std::time::{Duration, Instant};

use super::history::{self, Plan};
use super::members::STALE;
use super::{Knobs, Orders, say, swarm};
use crate::history::{Finding, Run};
use crate::lab::{Isolation, Place};
use crate::nemesis;

/// The mutant that needs no source: `libeatmydata` makes fsync do nothing.
const LYING_FSYNC: &str = "lying-fsync";
const EATMYDATA: &str = "libeatmydata.so";

/// Clients of each workload.
const CLIENTS: usize = 8;

/// A mutant; the workloads and faults that should show it; the checkers of which one must find it.
type Prey = (&'static str, &'static str, &'static str, &'static str);

/// Every mutant. Not more workloads and faults than it needs: that it is found in a mixture is luck.
#[rustfmt::skip]
const PREY: &[Prey] = &[
    ("local-read", "register counter", "pause-leader partition-leader", "linearizable certificate counter"),
    ("follower-read", "register counter", "partition-minority pause-one delay", "linearizable certificate counter"),
    ("ack-before-fsync", "set append list", "power-all", "set durability append serializable certificate"),
    ("unsynced-vote", "append counter", "kill-all kill-one partition-leader", "append serializable certificate counter replicas"),
    ("no-rollback", "half", "", "half certificate"),
    ("applied-index-apart", "set append", "kill-one kill-all", "replicas set durability append certificate"),
    ("blind-retry", "counter append", "kill-leader pause-leader", "counter certificate linearizable append serializable"),
    ("snapshot-drops-a-key", "set list", "kill-one pause-one partition-minority", "replicas set durability"),
    ("no-head-check", "counter append", "kill-leader partition-leader pause-leader", "counter certificate linearizable append serializable"),
    ("answer-before-apply", "register set", "kill-leader partition-leader", "linearizable certificate set durability"),
    ("apply-skips-one", "set counter", "kill-one", "replicas set durability counter"),
    ("cas-ignores-version", "register", "", "linearizable certificate"),
    ("dirty-read", "bank append counter", "partition-leader pause-leader kill-leader", "serializable append certificate linearizable bank"),
    ("overlay-not-read", "counter append bank", "", "counter certificate serializable append bank linearizable"),
    ("redirect-denied", "set counter", "", "certificate set counter linearizable"),
    ("nondeterministic-apply", "set register", "", "replicas"),
    ("lying-digest", "set register", "", "replicas"),
    ("lost-delete", "register list", "", "linearizable certificate replicas"),
    ("membership-stale", "counter", "shrink replace", "members"),
    ("skip-corrupt", "set append", "flip-log kill-all", "set durability replicas append certificate"),
    ("list-stops-early", "list", "", "certificate"),
    ("error-not-confirmed", "register lock", "partition-leader pause-leader", "linearizable certificate lock"),
    ("record-forgotten", "idempotent", "kill-leader", "idempotent counter certificate linearizable"),
    ("check-ignored", "transactions", "", "versions bank certificate"),
    ("absent-ignored", "conditional", "", "linearizable certificate"),
    ("dies-late", "expiry", "", "expiry linearizable"),
    ("no-tick", "expiry", "kill-leader", "expiry linearizable certificate"),
    ("min-revision-ignored", "stale", "partition-minority kill-one", "stale"),
    ("age-zero", "stale", "partition-minority partition-leader", "stale"),
    ("lying-fsync", "set append list", "power-all", "set durability append serializable certificate start"),
];

/// Gives a node the bug.
pub(super) fn infect(place: &mut Place, mutant: &str) {
    if mutant != LYING_FSYNC {
        place.env.push(("KVDB_MUTANT".to_owned(), mutant.to_owned()));
        return;
    }
    match place.env.iter_mut().find(|(name, _)| name == "LD_PRELOAD") {
        Some((_, libraries)) => libraries.push_str(&format!(":{EATMYDATA}")),
        None => place.env.push(("LD_PRELOAD".to_owned(), EATMYDATA.to_owned())),
    }
}

/// How the hunt for one mutant ended.
pub struct Hunt {
    /// The mutant.
    pub mutant: &'static str,
    /// Which checker found it.
    pub caught_by: Option<String>,
    /// How long that took, under load.
    pub took: Duration,
    /// Histories that were run.
    pub histories: u64,
}

impl fmt::Display for Hunt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hunt { mutant, took, histories, .. } = self;
        match &self.caught_by {
            Some(checker) => write!(f, "{mutant:24} caught by {checker} after {took:.0?}"),
            None => write!(f, "{mutant:24} NOT CAUGHT in {histories} histories, {took:.0?}"),
        }
    }
}

/// Whether there is such a mutant.
#[must_use]
pub fn is_known(name: &str) -> bool {
    PREY.iter().any(|prey| prey.0 == name)
}

/// Hunts each mutant named, or all, for at most `limit` each.
pub async fn hunt(
    orders: &Orders,
    isolation: &Isolation,
    names: &[String],
    limit: Duration,
) -> Vec<Hunt> {
    let mut hunts = Vec::new();
    let wanted = |mutant| names.is_empty() || names.iter().any(|name| name == mutant);
    for prey in PREY.iter().filter(|prey| wanted(prey.0)) {
        let hunt = hunt_one(orders, isolation, prey, limit).await;
        say(&hunt.to_string());
        hunts.push(hunt);
    }
    hunts
}

async fn hunt_one(orders: &Orders, isolation: &Isolation, prey: &Prey, limit: Duration) -> Hunt {
    let began = Instant::now();
    let mut hunt = Hunt { mutant: prey.0, caught_by: None, took: Duration::ZERO, histories: 0 };
    while hunt.caught_by.is_none() && began.elapsed() < limit {
        let run =
            history::run(&plan(orders, prey, hunt.histories), isolation, &orders.scratch).await;
        hunt.caught_by = catcher(prey, &run);
        hunt.histories += 1;
        if let Err(why) = crate::report::write_run(&orders.reports, &run) {
            say(&format!("the report of {} was not written: {why}", run.name));
        }
    }
    hunt.took = began.elapsed();
    hunt
}

fn plan(orders: &Orders, &(mutant, workloads, faults, _): &Prey, number: u64) -> Plan {
    let seed = orders.seed.wrapping_add(number);
    let mut rng = fastrand::Rng::with_seed(seed);
    let named = |kind: &&'static nemesis::Kind| among(faults, kind.name);
    Plan {
        name: format!("{mutant}-{:02}", number + 1),
        seed,
        nodes: 3,
        time: orders.history,
        workloads: workloads.split(' ').map(str::to_owned).collect(),
        clients: CLIENTS,
        rate: orders.rate,
        kinds: nemesis::kinds().into_iter().filter(named).collect(),
        knobs: Knobs::Tiny,
        flags: swarm::knobs(&mut rng),
        mutant: Some(mutant.to_owned()),
    }
}

/// Whether a word is one of those in a line.
fn among(words: &str, word: &str) -> bool {
    words.split(' ').any(|other| other == word)
}

/// The checker that found it, one of those that should; or a node that panicked over it, or, where that is
/// what it should do (`start`), refused to start on what was left.
fn catcher((_, _, _, checkers): &Prey, run: &Run) -> Option<String> {
    let found = run.verdicts.iter().find(|verdict| {
        matches!(verdict.finding, Finding::Violated { .. }) && among(checkers, &verdict.checker)
    });
    let trouble = |words: &str| run.troubles.iter().any(|trouble| trouble.contains(words));
    let panicked = trouble(" panicked: ");
    let refused = among(checkers, "start") && trouble(" had ended by itself");
    found
        .map(|verdict| format!("{} ({})", verdict.checker, verdict.workload))
        .or_else(|| panicked.then(|| "a panic of the node".to_owned()))
        .or_else(|| trouble(STALE).then(|| "members".to_owned()))
        .or_else(|| refused.then(|| "nodes that refuse to start".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload;

    /// The product's table, what is hunted, and what is documented.
    #[test]
    fn every_mutant_is_hunted_and_documented() {
        let checkout = crate::scenario::Scenario::checkout();
        let read = |path| std::fs::read_to_string(checkout.join(path)).unwrap();
        let (source, docs) = (read("src/mutant.rs"), read("docs/testing.md"));
        let arm =
            |line: &str| Some(line.trim().split_once(" = \"")?.1.strip_suffix("\",")?.to_owned());
        let planted: Vec<String> = source.lines().filter_map(arm).collect();
        assert!(planted.len() > 20, "{planted:?}");
        for mutant in planted.iter().map(String::as_str).chain([LYING_FSYNC]) {
            assert!(PREY.iter().any(|prey| prey.0 == mutant), "`{mutant}` is not hunted");
            assert!(docs.contains(&format!("| `{mutant}` |")), "`{mutant}` is not documented");
        }
        assert_eq!(PREY.len(), planted.len() + 1, "one is hunted that is not planted");
    }

    #[test]
    fn what_is_hunted_with_exists() {
        for (mutant, workloads, faults, checkers) in PREY {
            for name in workloads.split(' ') {
                assert!(workload::NAMES.contains(&name), "{mutant}: {name}");
            }
            let names: Vec<String> = faults.split_whitespace().map(str::to_owned).collect();
            assert!(names.is_empty() || nemesis::named(&names).is_ok(), "{mutant}: {faults}");
            assert!(!checkers.is_empty(), "{mutant}");
        }
    }
}
