//! What a reader must find on the pages, and that nothing of a run is lost on disk.

pub(super) mod example;

use std::fs;

use crate::history::{Answer, Finding, Micros, Operation, Outcome, Run};

use super::html::Html;
use super::stats::{Bins, Tally, percentile};
use super::*;

const SECOND: Micros = 1_000_000;

/// The page of a run.
fn page(run: &Run) -> String {
    super::page::html(run)
}

#[test]
fn a_run_is_read_back_as_it_was_written() {
    let run = example::run();
    let dir = tempfile::tempdir().unwrap();
    let path = write_run(dir.path(), &run).unwrap();
    assert_eq!(path, dir.path().join("mixed-0017/index.html"));
    let again = read_run(&dir.path().join("mixed-0017")).unwrap();
    assert_eq!(again.operations, run.operations);
    let json = |run: &Run| serde_json::to_value(run).unwrap();
    assert_eq!(json(&again), json(&run));
    let lines = fs::read_to_string(dir.path().join("mixed-0017/history.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), run.operations.len());
    let rest = fs::read_to_string(dir.path().join("mixed-0017/run.json")).unwrap();
    assert!(rest.contains("\"operations\": []"));
}

#[test]
fn a_damaged_history_is_refused_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    write_run(dir.path(), &example::quiet(3)).unwrap();
    let path = dir.path().join("mixed-0017/history.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.trim_end().strip_suffix('}').unwrap()).unwrap();
    let error = read_run(&dir.path().join("mixed-0017")).unwrap_err().to_string();
    assert!(error.contains("line 3"), "{error}");
}

#[test]
fn a_name_stays_in_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["", "..", "../up", "a/b", ".hidden", "a b", "a\"b"] {
        let run = Run { name: name.into(), ..example::quiet(0) };
        assert!(write_run(dir.path(), &run).is_err(), "{name:?}");
        assert!(write_index(dir.path(), &[Summary::of(&run)]).is_err(), "{name:?}");
    }
}

#[test]
fn the_headline_says_the_result() {
    let mut run = example::quiet(10);
    assert_eq!(Summary::of(&run).headline(), "Everything held");
    assert!(page(&run).contains("<h1 class=\"good\">Everything held</h1>"));
    run.troubles.push("node 1 exited".into());
    assert_eq!(Summary::of(&run).headline(), "No violation, but 1 unknown");
    assert!(!Summary::of(&run).passed());
    run.troubles.clear();
    run.verdicts.clear();
    assert_eq!(Summary::of(&run).headline(), "Nothing was judged");
    assert!(!Summary::of(&run).passed());
    let run = example::run();
    assert_eq!(Summary::of(&run).headline(), "2 violations, 3 unknown");
    assert!(page(&run).contains("<h1 class=\"bad\">2 violations, 3 unknown</h1>"));
}

#[test]
fn the_totals_are_one_line() {
    assert_eq!(
        Totals::default().to_string(),
        "operations 0, faults 0 of 0 kinds, violations 0, unknown 0"
    );
    let runs = [Summary::of(&example::run()), Summary::of(&example::quiet(100))];
    let totals = Totals::of(&runs);
    assert_eq!(
        totals.to_string(),
        "operations 5108, faults 12 of 11 kinds, violations 2, unknown 3",
        "the fault that was not confirmed does not count"
    );
    assert_eq!((totals.runs, totals.took), (2, 236 * SECOND));
}

#[test]
fn a_summary_survives_its_file() {
    let summary = Summary::of(&example::run());
    let text = serde_json::to_string(&summary).unwrap();
    assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), summary);
}

#[test]
fn every_violation_is_on_both_pages_in_full() {
    let mut run = example::run();
    let long = format!("what is wrong: <{}> \"at last\"", "x".repeat(20_000));
    let finding = Finding::Violated { what: long, operations: vec![] };
    run.verdicts.push(crate::history::Verdict {
        checker: "acknowledged".into(),
        workload: "set".into(),
        checked: 1,
        finding,
    });
    let page = page(&run);
    let dir = tempfile::tempdir().unwrap();
    let summary = Summary::of(&run);
    assert_eq!(summary.violations.len(), 3);
    let path = write_index(dir.path(), std::slice::from_ref(&summary)).unwrap();
    let index = fs::read_to_string(path).unwrap();
    for (number, violation) in (1..).zip(&summary.violations) {
        let what = Html::text(&violation.what).to_string();
        assert!(page.contains(&what) && index.contains(&what), "{what}");
        assert!(page.contains(&format!("id=\"violation-{number}\"")));
        let marks = page.matches(&format!(">✗ {number}</text>")).count();
        assert_eq!(
            marks,
            usize::from(number < 3),
            "one that names no operation has no place in time"
        );
        assert!(index.contains(&format!("mixed-0017/index.html#violation-{number}")));
    }
}

#[test]
fn what_keeps_a_run_from_passing_is_on_both_pages() {
    let run = example::run();
    let summary = Summary::of(&run);
    let dir = tempfile::tempdir().unwrap();
    let path = write_index(dir.path(), std::slice::from_ref(&summary)).unwrap();
    for page in [page(&run), fs::read_to_string(path).unwrap()] {
        for text in
            ["states at key k1", "strace &lt;4711&gt; did not end", "failed&quot; &amp; more"]
        {
            assert!(page.contains(text), "{text}");
        }
    }
}

#[test]
fn no_text_is_taken_for_markup() {
    let evil = "<script>alert('x')</script>\"&";
    let mut run = example::run();
    run.build = evil.into();
    run.isolation = evil.into();
    run.replay = evil.into();
    run.knobs = vec![evil.into()];
    run.troubles = vec![evil.into()];
    for fault in &mut run.faults {
        fault.kind = format!("kill {evil}");
        fault.what = evil.into();
        fault.confirmed = Ok(evil.into());
        fault.undo_failed = Some(evil.into());
    }
    for verdict in &mut run.verdicts {
        verdict.checker = evil.into();
        verdict.workload = evil.into();
    }
    for operation in &mut run.operations {
        operation.workload = evil.into();
        if let Outcome::Refused { reason } | Outcome::Unknown { reason, .. } =
            &mut operation.outcome
        {
            *reason = evil.into();
        }
    }
    for dump in &mut run.dumps {
        dump.digest = evil.into();
        dump.buckets = vec![(evil.into(), vec![])];
    }
    let dir = tempfile::tempdir().unwrap();
    let index = write_index(dir.path(), &[Summary::of(&run)]).unwrap();
    for page in [page(&run), fs::read_to_string(index).unwrap()] {
        assert!(!page.contains("<script"));
        assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)"));
        assert!(!page.contains("http"), "nothing from elsewhere");
    }
}

#[test]
fn a_page_does_not_grow_with_its_history() {
    let mut run = example::run();
    let small = page(&run).len();
    run.operations.extend(example::quiet(100_000).operations);
    let large = page(&run).len();
    assert!(large < small + 50_000, "{small} bytes became {large}");
    run.took = 100_000 * SECOND;
    run.faults = run.faults.iter().cycle().take(20_000).cloned().collect();
    let page = page(&run);
    assert!(page.len() < 2_000_000, "{} bytes", page.len());
    assert!(page.contains("19,000 more in run.json"));
}

#[test]
fn a_run_without_anything_has_a_page() {
    let run = Run { verdicts: vec![], dumps: vec![], took: 0, ..example::quiet(0) };
    let page = page(&run);
    for text in ["Nothing was judged", "No call was made.", "No fault.", "No node was read"] {
        assert!(page.contains(text), "{text}");
    }
    assert!(!page.contains("NaN") && !page.contains("inf\""));
}

#[test]
fn replicas_that_differ_are_said_to() {
    let mut run = example::quiet(1);
    assert!(page(&run).contains("with the same digest."));
    run.dumps.last_mut().unwrap().digest = "else".into();
    assert!(page(&run).contains("have different digests."));
    run.dumps.last_mut().unwrap().applied_index += 1;
    assert!(page(&run).contains("not all can be compared."));
}

#[test]
fn calls_are_counted_by_what_came_of_them() {
    let run = example::run();
    let tally = Tally::of(&run.operations);
    assert_eq!(tally.all(), run.operations.len() as u64);
    let is = |pick: fn(&Outcome) -> bool| {
        run.operations.iter().filter(|operation| pick(&operation.outcome)).count() as u64
    };
    assert_eq!(tally.refused, is(|outcome| matches!(outcome, Outcome::Refused { .. })));
    assert_eq!(tally.unknown(), is(|outcome| matches!(outcome, Outcome::Unknown { .. })));
    let denied = |outcome: &Outcome| {
        matches!(outcome, Outcome::Done { answer: Answer::Denied | Answer::Failed, .. })
    };
    assert_eq!(tally.denied, is(denied));
    assert!(tally.applied > 0 && tally.not_applied > 0 && tally.untold > 0);
}

#[test]
fn percentiles_are_of_the_nearest_rank() {
    let times: Vec<Micros> = (1..=200).collect();
    let of = |per_mille| percentile(&times, per_mille);
    assert_eq!([500, 990, 1000].map(of), [Some(100), Some(198), Some(200)]);
    assert_eq!(percentile(&[7], 500), Some(7));
    assert_eq!(percentile(&[], 500), None);
}

/// A run in which calls ended so.
fn ended(times: &[(Micros, Micros)], took: Micros) -> Run {
    let mut run = example::quiet(0);
    run.took = took;
    let call = |(began, ended): &(Micros, Micros)| Operation {
        began: *began,
        ended: *ended,
        outcome: Outcome::Done { answer: Answer::Written, revision: None },
        ..example::quiet(1).operations.remove(0)
    };
    run.operations = times.iter().map(call).collect();
    run
}

#[test]
fn a_call_is_in_the_bin_in_which_it_ended() {
    let run = ended(&[(0, 10), (SECOND - 20, SECOND), (0, 3 * SECOND)], 3 * SECOND);
    let bins = Bins::of(&run);
    assert_eq!(bins.width, SECOND);
    let done: Vec<u64> = bins.bins.iter().map(|bin| bin.done).collect();
    assert_eq!(done, [1, 1, 1], "the end of the run is in the last bin");
    let p99: Vec<_> = bins.bins.iter().map(|bin| bin.p99).collect();
    assert_eq!(p99, [Some(10), Some(20), Some(3 * SECOND)]);
}

#[test]
fn bins_are_wider_in_a_longer_run_and_lose_nothing() {
    for (seconds, width) in [(1, 1), (360, 1), (361, 2), (7_200, 30), (10_000_000, 27_778)] {
        let end = seconds * SECOND;
        let bins = Bins::of(&ended(&[(0, 5), (5, end / 2), (5, end)], end));
        assert_eq!(bins.width, width * SECOND, "{seconds} s");
        assert!(bins.bins.len() <= 360);
        assert_eq!(bins.bins.iter().map(|bin| bin.done).sum::<u64>(), 3);
    }
}

#[test]
fn the_index_names_every_run_and_kind() {
    let mut runs: Vec<Summary> = Vec::new();
    for number in 0..3 {
        let name = format!("run-{number}");
        runs.push(Summary::of(&Run { name, ..example::run() }));
    }
    let dir = tempfile::tempdir().unwrap();
    let index = fs::read_to_string(write_index(dir.path(), &runs).unwrap()).unwrap();
    let totals = "operations 15024, faults 36 of 11 kinds, violations 6, unknown 9";
    assert!(index.contains(totals));
    for run in &runs {
        assert!(index.contains(&format!("<a href=\"{0}/index.html\">{0}</a>", run.name)));
    }
    for kind in runs.iter().flat_map(|run| run.faults.keys()) {
        assert!(index.contains(&format!("</i>{kind}</span>")), "{kind}");
        assert!(index.contains(&format!("<th><span>{kind}</span></th>")), "{kind}");
    }
    assert_eq!(index.matches("<td class=\"cell process\">2</td>").count(), 3, "kill-leader");
    assert_eq!(index.matches("<td class=\"nil\">0</td>").count(), 3, "slow-fsync");
    let empty = fs::read_to_string(write_index(dir.path(), &[]).unwrap()).unwrap();
    assert!(empty.contains("No run yet"));
}
