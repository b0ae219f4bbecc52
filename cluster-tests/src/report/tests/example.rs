//! A made-up run with something of everything: for the tests, and to look at.

use crate::history::{
    Action, Answer, Dump, FaultRecord, Finding, Micro, Micros, Operation, Outcome, Resolution, Run,
    Verdict,
};

const SECOND: Micros = 1_000_000;

/// Faults: kind, what, from and to in seconds.
const FAULTS: &[(&str, &str, u64, u64)] = &[
    ("kill-leader", "kill 2", 8, 11),
    ("partition-leader", "cut 1 | 2 3", 16, 26),
    ("pause-follower", "stop 3", 22, 27),
    ("power-cut-all", "power 1 2 3", 35, 41),
    ("clock-jump", "1 by -600 s", 44, 52),
    ("packet-loss", "3 loses 20 %", 48, 60),
    ("disk-full", "fill 2", 63, 70),
    ("member-replace", "4 for 1", 72, 76),
    ("kill-follower", "kill 3", 80, 82),
    ("partition-ring", "cut 1 | 3", 84, 90),
    ("kill-leader", "kill 4", 92, 94),
    ("cpu-starved", "5 % for 2", 97, 104),
];

/// The run: two violations, a doubt, a fault that was not there, one that was not undone, a trouble.
pub(in crate::report) fn run() -> Run {
    let mut run = quiet(5_000);
    run.operations.extend(stale_read());
    run.operations.extend(lost_append());
    run.faults = FAULTS.iter().map(fault).collect();
    run.faults.push(FaultRecord {
        kind: "slow-fsync".into(),
        what: "300 ms for 1".into(),
        began: 106 * SECOND,
        ended: 108 * SECOND,
        confirmed: Err("strace saw no fdatasync".into()),
        undo_failed: Some("strace <4711> did not end in 5 s".into()),
    });
    run.troubles =
        vec!["node 3 exited unasked with status 101: \"assertion failed\" & more".into()];
    run.verdicts = verdicts();
    run
}

/// A run of so many operations, without a fault, in which everything held.
pub(in crate::report) fn quiet(operations: u64) -> Run {
    let verdict = Verdict {
        checker: "linearizable".into(),
        workload: "register".into(),
        checked: operations as usize,
        finding: Finding::Holds,
    };
    let dump = |node| Dump {
        node,
        applied_index: 41_207,
        digest: "9f2c5e01d4b7a833".into(),
        buckets: vec![("register".into(), vec![("k1".into(), "17".into())])],
    };
    Run {
        name: "mixed-0017".into(),
        seed: 17_361_641_481_138_401_520,
        build: "kvdb 0.1.0 sha256:5b7e…".into(),
        knobs: vec!["--snapshot-every 100".into(), "--log-keep 50".into()],
        nodes: 3,
        isolation: "namespaces".into(),
        started: 1_795_500_362,
        took: 118 * SECOND,
        operations: (0..operations).map(|id| operation(id, operations)).collect(),
        faults: Vec::new(),
        dumps: [1, 2, 3].map(dump).into(),
        verdicts: vec![verdict],
        troubles: Vec::new(),
        replay: "cluster-tests campaign --seed 17361641481138401520 --histories 1".into(),
    }
}

fn fault((kind, what, from, to): &(&str, &str, u64, u64)) -> FaultRecord {
    FaultRecord {
        kind: (*kind).into(),
        what: (*what).into(),
        began: from * SECOND + 137_000,
        ended: to * SECOND,
        confirmed: Ok("probe from 3 to 1 failed 5 of 5 times".into()),
        undo_failed: None,
    }
}

/// A call like those of a real run: slow or not done where a fault is.
fn operation(id: u64, operations: u64) -> Operation {
    let mut rng = fastrand::Rng::with_seed(id);
    let began = id * 115 * SECOND / operations.max(1);
    let second = began / SECOND;
    let struck = FAULTS.iter().any(|(.., from, to)| (*from..(from + to) / 2).contains(&second));
    let took = 800 + rng.u64(0..1_500) + if rng.u64(0..50) == 0 { 25_000 } else { 0 };
    let (outcome, took) = match (struck, rng.u64(0..20)) {
        (true, 0..8) => (refused(), took),
        (true, 8) => (unknown(id), 2 * SECOND),
        (true, _) => (done(id), took * rng.u64(10..300)),
        (false, 0) => (Outcome::Done { answer: Answer::Denied, revision: Some(id) }, took),
        (false, _) => (done(id), took),
    };
    let workloads = ["append", "bank", "counter", "register"];
    let workload = workloads.get(rng.usize(0..workloads.len())).copied().unwrap();
    Operation {
        id,
        workload: workload.into(),
        client: id % 10,
        node: 1 + id % 3,
        action: Action::Set { key: format!("k{}", id % 5), value: id.to_string() },
        began,
        ended: began + took,
        outcome,
    }
}

fn done(id: u64) -> Outcome {
    Outcome::Done { answer: Answer::Written, revision: Some(id) }
}

fn refused() -> Outcome {
    Outcome::Refused { reason: "503 no_leader: no leader is known".into() }
}

fn unknown(id: u64) -> Outcome {
    let resolution = match id % 3 {
        0 => Resolution::Applied(id),
        1 => Resolution::NotApplied,
        _ => Resolution::None,
    };
    Outcome::Unknown { reason: "no answer in 2 s".into(), resolution }
}

fn call(
    id: u64,
    client: u64,
    action: Action,
    times: (Micros, Micros),
    outcome: Outcome,
) -> Operation {
    let (began, ended) = (16 * SECOND + times.0, 16 * SECOND + times.1);
    let workload = if id < 900_100 { "register" } else { "append" };
    Operation {
        id,
        workload: workload.into(),
        client,
        node: 1 + id % 3,
        action,
        began,
        ended,
        outcome,
    }
}

fn answered(answer: Answer, revision: u64) -> Outcome {
    Outcome::Done { answer, revision: Some(revision) }
}

fn stale_read() -> Vec<Operation> {
    let set = |value: &str| Action::Set { key: "k3".into(), value: value.into() };
    let get = || Action::Get { key: "k3".into() };
    let value =
        |value: &str, version| Answer::Value { value: Some(value.into()), version: Some(version) };
    let lost = Outcome::Unknown {
        reason: "connection reset by peer".into(),
        resolution: Resolution::Applied(20_118),
    };
    vec![
        call(900_001, 4, set("<b>4</b>"), (10, 1_310), answered(Answer::Written, 20_101)),
        call(900_002, 7, set("8101"), (900, 2_450), answered(Answer::Written, 20_113)),
        call(900_003, 2, set("8107"), (1_100, 901_000), lost),
        call(900_004, 4, get(), (2_600, 3_900), answered(value("8101", 20_113), 20_115)),
        call(900_005, 9, get(), (4_200, 5_050), answered(value("<b>4</b>", 20_101), 20_102)),
    ]
}

fn lost_append() -> Vec<Operation> {
    let append = |steps: Vec<Micro>| Action::Append { steps };
    let lists = |lists: Vec<Vec<u64>>| Answer::Lists(lists);
    let both = vec![Micro::Append(2, 411), Micro::Read(5)];
    let reads = vec![Micro::Read(2), Micro::Read(5)];
    vec![
        call(900_101, 12, append(both), (50_000, 52_300), answered(lists(vec![vec![3]]), 20_500)),
        call(
            900_102,
            14,
            append(vec![Micro::Append(2, 412)]),
            (52_400, 53_300),
            answered(lists(vec![]), 20_504),
        ),
        call(
            900_103,
            15,
            append(reads),
            (53_900, 54_700),
            answered(lists(vec![vec![412], vec![3]]), 20_505),
        ),
    ]
}

fn verdicts() -> Vec<Verdict> {
    let verdict = |checker: &str, workload: &str, finding| Verdict {
        checker: checker.into(),
        workload: workload.into(),
        checked: 1_234,
        finding,
    };
    let stale = Finding::Violated {
        what: "key k3: client 9 read \"<b>4</b>\" of version 20101 after client 4 had read \"8101\" of \
               version 20113: a stale read.\nNo order of these calls explains it."
            .into(),
        operations: vec![900_001, 900_002, 900_003, 900_004, 900_005],
    };
    let lost = Finding::Violated {
        what: "list 2: element 411 was acknowledged @20500 and is in no later read: a lost append"
            .into(),
        operations: vec![900_101, 900_102, 900_103],
    };
    let doubt = Finding::Unknown { why: "more than 2,000,000 states at key k1".into() };
    vec![
        verdict("replicas", "all", Finding::Holds),
        verdict("linearizable", "register", stale),
        verdict("index", "counter", Finding::Holds),
        verdict("elle", "append", lost),
        verdict("totals", "bank", Finding::Holds),
        verdict("linearizable", "counter", doubt),
    ]
}
