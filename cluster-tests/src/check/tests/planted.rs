//! Small histories by hand: what is found, by whom, and with which operations as evidence.

use super::story::*;
use super::*;
use crate::history::Micro;

use Answer::{Denied, Number, Written};
use Micro::{Append, Read};

#[test]
fn a_stale_read_names_the_write_and_the_read() {
    let story = Story::of("register")
        .done(0, 1, set("a", "1"), Written, 5)
        .done(2, 3, get("a"), is("1", 5), 5)
        .done(4, 5, set("a", "2"), Written, 6)
        .done(6, 7, get("a"), is("2", 6), 6)
        .done(8, 9, get("a"), is("1", 5), 6)
        .done(10, 11, set("a", "3"), Written, 7)
        .done(12, 13, get("a"), is("3", 7), 7);
    story.finds("linearizable", &[1, 3, 5]);
    story.finds("certificate", &[1, 3, 5]);
}

#[test]
fn a_read_may_see_either_side_of_a_write_that_it_overlaps() {
    for answer in [none(), is("1", 5)] {
        let revision = if answer == none() { 4 } else { 5 };
        let story = Story::of("register").done(0, 10, set("a", "1"), Written, 5).done(
            10,
            12,
            get("a"),
            answer,
            revision,
        );
        story.holds("linearizable");
        story.holds("certificate");
    }
}

#[test]
fn a_lost_update_is_found() {
    // Both swaps say that they replaced the same value.
    let story = Story::of("register")
        .done(0, 1, set("a", "1"), Written, 5)
        .done(2, 9, cas("a", "1", "2"), Written, 6)
        .done(2, 9, cas("a", "1", "3"), Written, 7);
    story.finds("linearizable", &[1, 2, 3]);
    story.finds("certificate", &[2, 3]);
}

#[test]
fn a_denied_swap_that_had_to_succeed_is_found() {
    let story = Story::of("register").done(0, 1, set("a", "1"), Written, 5).done(
        2,
        3,
        cas("a", "1", "2"),
        Denied,
        5,
    );
    story.finds("linearizable", &[1, 2]);
    story.finds("certificate", &[1, 2]);
}

#[test]
fn a_refused_value_that_is_read_is_found() {
    let story = Story::of("register")
        .done(0, 1, set("a", "1"), Written, 5)
        .refused(2, 3, set("a", "2"))
        .done(4, 5, get("a"), is("2", 6), 6)
        .dump(&[("a", "2")]);
    story.finds("linearizable", &[3]);
    story.finds("certificate", &[1, 3]);
    story.finds("durability", &[1, 2]);
}

#[test]
fn an_unknown_write_may_come_late_but_not_twice() {
    let story = Story::of("register")
        .unknown(0, 1, set("a", "1"))
        .done(2, 3, set("a", "2"), Written, 5)
        .done(4, 5, get("a"), is("2", 5), 5)
        .done(6, 7, get("a"), is("1", 6), 6)
        .done(8, 9, set("a", "3"), Written, 7);
    story.holds("linearizable");
    story.holds("certificate");
    let twice = story.done(10, 11, get("a"), is("1", 8), 8);
    assert!(violations(&twice.judge()).contains_key("linearizable"));
    assert!(violations(&twice.judge()).contains_key("certificate"));
}

#[test]
fn an_unknown_deletion_excuses_an_empty_read_once() {
    let story = Story::of("register")
        .done(0, 1, set("a", "1"), Written, 5)
        .unknown(2, 3, delete("a"))
        .done(4, 5, get("a"), none(), 6)
        .done(6, 7, set("b", "2"), Written, 7);
    story.holds("linearizable");
    story.holds("certificate");
    let back = story.done(8, 9, get("a"), is("1", 5), 7);
    assert!(violations(&back.judge()).contains_key("linearizable"));
    assert!(violations(&back.judge()).contains_key("certificate"));
}

#[test]
fn an_unknown_write_excuses_nothing_where_no_revision_is_missing() {
    let story = Story::of("register")
        .done(0, 1, set("a", "1"), Written, 5)
        .unknown(2, 3, delete("a"))
        .done(4, 5, set("b", "2"), Written, 6)
        .done(6, 7, get("a"), none(), 6);
    story.holds("linearizable");
    story.finds("certificate", &[1, 4]);
}

#[test]
fn a_revision_of_nobody_is_found() {
    let story = Story::of("register").done(0, 1, set("a", "1"), Written, 5).done(
        2,
        3,
        set("b", "2"),
        Written,
        7,
    );
    story.finds("certificate", &[1, 2]);
    let excused = Story::of("register")
        .done(0, 1, set("a", "1"), Written, 5)
        .unknown(0, 1, set("c", "3"))
        .done(2, 3, set("b", "2"), Written, 7);
    excused.holds("certificate");
}

#[test]
fn deleting_nothing_needs_no_revision() {
    let story = Story::of("register")
        .done(0, 1, set("a", "1"), Written, 5)
        .done(2, 3, delete("a"), Written, 6)
        .done(4, 5, delete("a"), Written, 6)
        .done(6, 7, set("b", "2"), Written, 7);
    story.holds("certificate");
    let story = Story::of("register")
        .done(0, 1, set("a", "1"), Written, 5)
        .done(2, 3, delete("b"), Written, 6)
        .done(4, 5, set("c", "2"), Written, 7);
    story.finds("certificate", &[2]);
}

#[test]
fn revisions_that_go_back_or_repeat_are_found() {
    let back = Story::of("register").done(0, 1, set("a", "1"), Written, 6).done(
        2,
        3,
        set("b", "2"),
        Written,
        5,
    );
    back.finds("certificate", &[1, 2]);
    let same = Story::of("register").done(0, 9, set("a", "1"), Written, 6).done(
        0,
        9,
        set("b", "2"),
        Written,
        6,
    );
    same.finds("certificate", &[1, 2]);
    let unread =
        Story::of("register").done(0, 1, set("a", "1"), Written, 6).done(2, 3, get("b"), none(), 5);
    unread.finds("certificate", &[1, 2]);
}

#[test]
fn a_wrong_version_is_found() {
    let story = Story::of("register")
        .done(0, 1, set("a", "1"), Written, 5)
        .done(2, 3, set("b", "2"), Written, 6)
        .done(4, 5, get("a"), is("1", 6), 6);
    story.holds("linearizable");
    story.finds("certificate", &[1, 2, 3]);
}

#[test]
fn a_counter_that_counts_twice_or_not_is_found() {
    let story = Story::of("counter")
        .done(0, 1, add(), Number(1), 5)
        .done(2, 3, add(), Number(3), 6)
        .dump(&[("c", "3")]);
    story.finds("counter", &[2]);
    story.finds("linearizable", &[1, 2]);
    story.finds("certificate", &[1, 2]);
    let lost = Story::of("counter")
        .done(0, 1, add(), Number(1), 5)
        .done(2, 3, add(), Number(1), 6)
        .dump(&[("c", "1")]);
    lost.finds("counter", &[1, 2]);
}

#[test]
fn an_unknown_addition_counts_once_or_not_at_all() {
    for (last, right) in [(2, true), (3, true), (4, false)] {
        let text = last.to_string();
        let story = Story::of("counter")
            .done(0, 1, add(), Number(1), 5)
            .unknown(2, 3, add())
            .done(4, 5, add(), Number(last), if last == 2 { 6 } else { 7 })
            .dump(&[("c", &text)]);
        for checker in ["linearizable", "certificate", "counter"] {
            assert_eq!(story.finding(checker) == Finding::Holds, right, "{checker} at {last}");
        }
    }
}

#[test]
fn a_resolved_addition_counts_exactly() {
    let story = |last: &str| {
        Story::of("counter")
            .done(0, 1, add(), Number(1), 5)
            .resolved(2, 3, add(), 6)
            .dump(&[("c", last)])
    };
    story("2").holds("counter");
    story("2").holds("certificate");
    story("1").finds("counter", &[1]);
    story("1").finds("certificate", &[2]);
}

#[test]
fn write_skew_is_found() {
    // Each read both lists as empty and appended to the other.
    let story = Story::of("append")
        .done(0, 9, txn(&[Read(1), Append(2, 20)]), lists(&[&[]]), 5)
        .done(0, 9, txn(&[Read(2), Append(1, 10)]), lists(&[&[]]), 6)
        .done(10, 11, txn(&[Read(1), Read(2)]), lists(&[&[10], &[20]]), 6);
    story.finds("append", &[1, 2]);
    story.finds("serializable", &[1, 2]);
    story.finds("certificate", &[1, 2]);
}

#[test]
fn a_stale_list_is_found_by_real_time_alone() {
    let story = Story::of("append")
        .done(0, 1, txn(&[Append(1, 10)]), lists(&[]), 5)
        .done(2, 3, txn(&[Read(1)]), lists(&[&[]]), 5)
        .done(4, 5, txn(&[Read(1)]), lists(&[&[10]]), 5);
    story.finds("append", &[1, 2]);
    story.finds("serializable", &[1, 2]);
    story.finds("certificate", &[1, 2]);
}

#[test]
fn a_transaction_seen_half_is_found() {
    let both = txn(&[Append(1, 10), Append(1, 11)]);
    let story = Story::of("append")
        .done(0, 9, both, lists(&[]), 5)
        .done(0, 9, txn(&[Read(1)]), lists(&[&[10]]), 5)
        .done(10, 11, txn(&[Read(1)]), lists(&[&[10, 11]]), 5);
    story.finds("append", &[1, 2]);
    story.finds("serializable", &[1, 2]);
    let two_lists = txn(&[Append(1, 10), Append(2, 20)]);
    let story = Story::of("append")
        .done(0, 9, two_lists, lists(&[]), 5)
        .done(0, 9, txn(&[Read(1), Read(2)]), lists(&[&[10], &[]]), 5)
        .done(10, 11, txn(&[Read(2)]), lists(&[&[20]]), 5);
    story.finds("append", &[1, 2]);
    story.finds("certificate", &[1, 2]);
}

#[test]
fn a_lost_element_is_found_at_the_end() {
    let story = Story::of("append")
        .done(0, 1, txn(&[Append(1, 10)]), lists(&[]), 5)
        .done(2, 3, txn(&[Append(1, 11)]), lists(&[]), 6)
        .dump(&[("list/1", "10,11")])
        .dump(&[("list/1", "10")]);
    story.finds("append", &[2]);
    story.finds("durability", &[2]);
    story.finds("certificate", &[2]);
    assert!(violations(&story.judge()).contains_key("replicas"));
}

#[test]
fn elements_twice_or_of_nobody_are_found() {
    let read = |list: &[u64]| {
        Story::of("append")
            .done(0, 1, txn(&[Append(1, 10)]), lists(&[]), 5)
            .refused(2, 3, txn(&[Append(1, 11)]))
            .done(4, 5, txn(&[Read(1)]), lists(&[list]), 6)
    };
    read(&[10, 10]).finds("append", &[1, 3]);
    read(&[10, 11]).finds("append", &[2, 3]);
    read(&[10, 12]).finds("append", &[3]);
    read(&[10, 11]).finds("serializable", &[2, 3]);
}

#[test]
fn unread_appends_of_the_reader_itself_are_no_cycle() {
    let story = Story::of("append")
        .done(0, 1, txn(&[Read(1), Append(1, 10)]), lists(&[&[]]), 5)
        .done(2, 3, txn(&[Append(1, 11)]), lists(&[]), 6)
        .with(4, 5, txn(&[Append(1, 12)]), Outcome::Done { answer: Denied, revision: Some(6) });
    let found = violations(&story.judge()).into_keys().map(str::to_owned).collect::<Vec<_>>();
    assert!(!found.contains(&"append".to_owned()), "{found:?}");
}

#[test]
fn money_that_is_made_or_lost_is_found() {
    let mut balances = vec![100; 8];
    let story =
        Story::of("bank").done(0, 1, Action::Balances, Answer::Balances(balances.clone()), 5);
    story.holds("bank");
    balances[3] = 99;
    story.done(2, 3, Action::Balances, Answer::Balances(balances.clone()), 5).finds("bank", &[2]);
    (balances[3], balances[4]) = (-1, 201);
    let story = Story::of("bank").done(0, 1, Action::Balances, Answer::Balances(balances), 5);
    story.finds("bank", &[1]);
}

#[test]
fn tokens_that_fall_are_found() {
    let take = || Action::Acquire { owner: "o".to_owned(), steal: true };
    let using = |token| Action::Use { token, value: "v".to_owned() };
    let story = Story::of("lock").done(0, 1, take(), Number(2), 5).done(2, 3, take(), Number(1), 6);
    story.finds("lock", &[1, 2]);
    let story = Story::of("lock")
        .done(0, 1, take(), Number(1), 5)
        .done(2, 3, take(), Number(2), 6)
        .done(4, 5, using(2), Written, 7)
        .done(6, 7, using(1), Written, 8);
    story.finds("lock", &[3, 4]);
    story.finds("certificate", &[3, 4]);
}

#[test]
fn halves_that_differ_or_failed_are_found() {
    let pair = |value: &str, ending| Action::Pair { pair: 1, value: value.to_owned(), ending };
    let read = |a: Option<&str>, b: Option<&str>| {
        let answer = Answer::Halves(a.map(str::to_owned), b.map(str::to_owned));
        Story::of("half")
            .done(0, 1, pair("x", Ending::Well), Written, 5)
            .done(2, 3, pair("y", Ending::Memory), Answer::Failed, 5)
            .done(4, 5, Action::ReadPair { pair: 1 }, answer, 5)
    };
    read(Some("x"), Some("x")).holds("half");
    read(Some("x"), Some("x")).holds("certificate");
    read(Some("y"), Some("x")).finds("half", &[1, 2, 3]);
    read(Some("y"), Some("y")).finds("half", &[2, 3]);
    read(Some("z"), Some("z")).finds("half", &[3]);
}

#[test]
fn a_script_that_nobody_resolved_hides_what_comes_after_the_gap() {
    let story = Story::of("append")
        .done(0, 1, txn(&[Append(1, 10)]), lists(&[]), 5)
        .unknown(2, 3, txn(&[Append(2, 20)]))
        .done(4, 5, txn(&[Append(1, 11)]), lists(&[]), 7);
    assert!(matches!(story.finding("certificate"), Finding::Unknown { .. }));
    let broken = story.done(6, 7, txn(&[Append(1, 12)]), lists(&[]), 9);
    assert!(matches!(broken.finding("certificate"), Finding::Violated { .. }));
}

#[test]
fn inserts_that_are_lost_or_invented_are_found() {
    let story = |rows: &[(&str, &str)]| {
        Story::of("set")
            .done(0, 1, set("a", "1"), Written, 5)
            .refused(0, 1, set("b", "2"))
            .unknown(0, 1, set("c", "3"))
            .dump(rows)
    };
    story(&[("a", "1")]).holds("set");
    story(&[("a", "1"), ("c", "3")]).holds("set");
    story(&[]).finds("set", &[1]);
    story(&[("a", "9")]).finds("set", &[1]);
    story(&[("a", "1"), ("b", "2")]).finds("set", &[2]);
    story(&[("a", "1"), ("d", "4")]).finds("set", &[]);
}

#[test]
fn a_value_that_was_overwritten_is_not_the_last() {
    let story = |held: &str| {
        Story::of("register")
            .done(0, 1, set("a", "1"), Written, 5)
            .done(2, 9, set("a", "2"), Written, 6)
            .done(3, 9, set("a", "3"), Written, 7)
            .dump(&[("a", held)])
    };
    story("3").holds("durability");
    story("2").holds("durability");
    story("2").finds("certificate", &[3]);
    story("1").finds("durability", &[1, 3]);
}

#[test]
fn replicas_that_differ_are_found() {
    let story = Story::of("set").done(0, 1, set("a", "1"), Written, 5);
    assert!(matches!(story.finding("replicas"), Finding::Unknown { .. }));
    assert!(matches!(story.finding("set"), Finding::Unknown { .. }));
    let mut story = story.dump(&[("a", "1")]).dump(&[("a", "1")]);
    story.holds("replicas");
    story.dumps[1].digest = "e".to_owned();
    story.finds("replicas", &[]);
    story.dumps[1].applied_index = 51;
    story.holds("replicas");
    let story = story.dump(&[("a", "1"), ("b", "1")]);
    story.finds("replicas", &[]);
}

#[test]
fn nothing_to_judge_is_no_pass() {
    let story = Story::of("bank").refused(0, 1, Action::Balances);
    assert!(story.judge().iter().all(|verdict| verdict.finding != Finding::Holds));
    let story = Story::of("other").done(0, 1, get("a"), none(), 5);
    assert!(story.judge().iter().all(|verdict| verdict.finding != Finding::Holds));
}
