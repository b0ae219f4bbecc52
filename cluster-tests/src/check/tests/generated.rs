//! Generated histories: no false alarm on a right database, and no bug that stays unseen.

use std::time::Duration;

use super::simulator::{Bug, Setup, simulate};
use super::*;

const WORKLOADS: &[&str] = crate::workload::NAMES;

fn setup(workload: &'static str, seed: u64) -> Setup {
    Setup {
        workload,
        seed,
        operations: 300,
        clients: 5,
        unknown: 4,
        refused: 4,
        resolves: !matches!(
            workload,
            "register" | "list" | "set" | "conditional" | "stale" | "expiry"
        ),
        bug: Bug::None,
    }
}

/// No checker objects; if everything can be known, each says that it holds.
fn must_hold(setup: &Setup, all_known: bool) {
    let run = simulate(setup);
    for verdict in judge(&run.operations, &run.dumps, &[]) {
        let right = match verdict.finding {
            Finding::Holds => true,
            Finding::Unknown { .. } => !all_known,
            Finding::Violated { .. } => false,
        };
        assert!(right, "{setup:?}: {verdict:#?}");
    }
}

#[test]
fn a_right_database_holds() {
    for workload in WORKLOADS.iter().copied() {
        for seed in 0..60 {
            must_hold(&setup(workload, seed), true);
        }
    }
}

#[test]
fn many_unknown_outcomes_are_no_false_alarm() {
    for workload in WORKLOADS.iter().copied() {
        for seed in 100..160 {
            let few = Setup { operations: 60, ..setup(workload, seed) };
            must_hold(&Setup { unknown: 20, ..few.clone() }, true);
            must_hold(&Setup { unknown: 30, resolves: false, ..few }, false);
        }
    }
}

#[test]
fn unknown_outcomes_that_nobody_resolved_are_no_false_alarm() {
    for workload in WORKLOADS.iter().copied() {
        for seed in 200..260 {
            must_hold(&Setup { resolves: false, ..setup(workload, seed) }, false);
        }
    }
}

/// A bug is found by that checker in at least so many of ten histories that have it.
fn must_find(workload: &'static str, bug: Bug, checkers: &[(&str, usize)]) {
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    let mut runs = 0;
    for seed in 1000..1100 {
        // A call of unknown outcome may have the revision that a refused one took.
        let unknown = if bug == Bug::RefusedApplied { 0 } else { 4 };
        let run = simulate(&Setup { bug, unknown, ..setup(workload, seed) });
        if run.planted == 0 {
            continue;
        }
        for (checker, _) in violations(&judge(&run.operations, &run.dumps, &[])) {
            *found.entry(checker.to_owned()).or_default() += 1;
        }
        runs += 1;
        if runs == 10 {
            break;
        }
    }
    assert_eq!(runs, 10, "{workload}: {bug:?} was never met");
    for (checker, least) in checkers {
        let times = found.get(*checker).copied().unwrap_or(0);
        assert!(times >= *least, "{workload}, {bug:?}: {checker} {times} of 10; all: {found:?}");
    }
}

#[test]
fn stale_reads_are_found() {
    must_find("register", Bug::StaleRead, &[("certificate", 10), ("linearizable", 9)]);
    must_find("register", Bug::MislabelledRead, &[("certificate", 10), ("linearizable", 9)]);
    must_find("counter", Bug::StaleRead, &[("certificate", 10), ("counter", 9)]);
    must_find("list", Bug::StaleRead, &[("certificate", 10)]);
    must_find("bank", Bug::StaleRead, &[("certificate", 10)]);
    must_find("half", Bug::StaleRead, &[("certificate", 10)]);
    let all = [("certificate", 9), ("append", 8), ("serializable", 8)];
    must_find("append", Bug::StaleRead, &all);
}

#[test]
fn lost_writes_are_found() {
    must_find("register", Bug::LostWrite, &[("certificate", 10), ("linearizable", 10)]);
    must_find("counter", Bug::LostWrite, &[("certificate", 10), ("counter", 10)]);
    must_find("list", Bug::LostWrite, &[("certificate", 10)]);
    must_find("set", Bug::LostWrite, &[("set", 10)]);
    must_find("bank", Bug::LostWrite, &[("certificate", 10)]);
    must_find("lock", Bug::LostWrite, &[("certificate", 10), ("lock", 10)]);
    must_find("half", Bug::LostWrite, &[("certificate", 10)]);
    let all = [("certificate", 10), ("append", 10), ("serializable", 9), ("durability", 10)];
    must_find("append", Bug::LostWrite, &all);
}

#[test]
fn what_is_applied_twice_is_found() {
    must_find("register", Bug::AppliedTwice, &[("certificate", 10)]);
    must_find("counter", Bug::AppliedTwice, &[("certificate", 10), ("counter", 10)]);
    must_find("list", Bug::AppliedTwice, &[("certificate", 10)]);
    must_find("bank", Bug::AppliedTwice, &[("certificate", 10)]);
    must_find("lock", Bug::AppliedTwice, &[("certificate", 10)]);
    must_find("half", Bug::AppliedTwice, &[("certificate", 10)]);
    let all = [("certificate", 10), ("append", 10), ("serializable", 10)];
    must_find("append", Bug::AppliedTwice, &all);
}

#[test]
fn refused_calls_that_are_applied_are_found() {
    must_find("register", Bug::RefusedApplied, &[("certificate", 9), ("linearizable", 5)]);
    must_find("counter", Bug::RefusedApplied, &[("certificate", 9), ("counter", 9)]);
    must_find("set", Bug::RefusedApplied, &[("set", 10)]);
    must_find("bank", Bug::RefusedApplied, &[("certificate", 10)]);
    must_find("append", Bug::RefusedApplied, &[("append", 6), ("serializable", 6)]);
}

#[test]
fn half_applied_scripts_are_found() {
    must_find("bank", Bug::HalfApplied, &[("certificate", 10), ("bank", 10)]);
    must_find("append", Bug::HalfApplied, &[("certificate", 10), ("append", 10)]);
    must_find("half", Bug::FailedApplied, &[("half", 9), ("certificate", 9)]);
}

#[test]
fn revisions_that_are_wrong_are_found() {
    for workload in ["register", "counter", "append", "bank", "lock", "list", "half"] {
        must_find(workload, Bug::RevisionBack, &[("certificate", 10)]);
    }
}

#[test]
fn transactions_on_old_reads_are_found() {
    let all = [("certificate", 10), ("append", 9), ("serializable", 9)];
    must_find("append", Bug::OldReads, &all);
}

#[test]
fn a_node_that_lacks_a_row_is_found() {
    must_find("set", Bug::NodeLacksRow, &[("set", 9), ("replicas", 10)]);
    must_find("append", Bug::NodeLacksRow, &[("append", 10), ("durability", 10)]);
    must_find("bank", Bug::NodeLacksRow, &[("bank", 10)]);
    must_find("counter", Bug::NodeLacksRow, &[("counter", 10)]);
    must_find("register", Bug::NodeLacksRow, &[("durability", 8), ("replicas", 10)]);
    must_find("half", Bug::NodeLacksRow, &[("half", 10), ("durability", 8)]);
}

#[test]
fn what_is_done_again_is_found() {
    must_find("idempotent", Bug::DoneAgain, &[("certificate", 9), ("counter", 9)]);
    must_find("idempotent", Bug::AppliedTwice, &[("certificate", 10), ("counter", 10)]);
    must_find("idempotent", Bug::LostWrite, &[("counter", 10), ("linearizable", 9)]);
}

#[test]
fn conditions_that_are_not_looked_at_are_found() {
    must_find("transactions", Bug::NoCheck, &[("certificate", 10), ("versions", 10), ("bank", 8)]);
    must_find("transactions", Bug::LostWrite, &[("certificate", 10)]);
    must_find("transactions", Bug::StaleRead, &[("certificate", 10)]);
    let both = [("certificate", 10), ("linearizable", 9)];
    must_find("conditional", Bug::NoCondition, &both);
    must_find("conditional", Bug::LostWrite, &both);
    must_find("conditional", Bug::StaleRead, &both);
}

#[test]
fn sessions_that_go_back_are_found() {
    must_find("stale", Bug::Behind, &[("stale", 10)]);
    must_find("stale", Bug::StaleRead, &[("certificate", 9)]);
    must_find("stale", Bug::LostWrite, &[("certificate", 10)]);
}

#[test]
fn keys_that_die_at_the_wrong_time_are_found() {
    must_find("expiry", Bug::DiesEarly, &[("linearizable", 10)]);
    must_find("expiry", Bug::DiesLate, &[("expiry", 10)]);
    must_find("expiry", Bug::Undead, &[("linearizable", 10)]);
    must_find("expiry", Bug::LostWrite, &[("linearizable", 10)]);
}

/// What this thread has worked so far; a busy machine does not count.
fn worked() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

#[test]
fn long_histories_are_judged_in_seconds() {
    for workload in WORKLOADS.iter().copied() {
        let run = simulate(&Setup { operations: 20_000, clients: 10, ..setup(workload, 7) });
        let began = worked();
        let verdicts = judge(&run.operations, &run.dumps, &[]);
        let took = worked() - began;
        assert!(violations(&verdicts).is_empty(), "{verdicts:#?}");
        assert!(took < Duration::from_secs(30), "{workload} took {took:?}");
        println!("{workload}: {took:?}");
    }
}
