//! Small histories by hand, of what speaks of time or of another call: keys that die, stale reads, repeats,
//! conditions and checks.

use super::story::*;
use super::*;
use crate::history::{Step, StepAnswer};
use Answer::{Denied, Number, Unchanged, Written};

/// A second of the run.
const S: u64 = 1_000_000;

fn set_for(value: &str, seconds: u64) -> Action {
    Action::SetFor { key: "x/a".to_owned(), value: value.to_owned(), seconds }
}

fn list() -> Action {
    Action::List { prefix: "x/".to_owned() }
}

fn rows(values: &[&str]) -> Answer {
    Answer::Rows(values.iter().map(|value| ("x/a".to_owned(), (*value).to_owned())).collect())
}

fn until(value: &str, expires_at: u64) -> Answer {
    let (value, version) = (Some(value.to_owned()), Some(1));
    Answer::Dated { value, version, age_ms: None, expires_at: Some(expires_at) }
}

/// A key that lives for two seconds, read and listed on the way.
fn life() -> Story {
    Story::of("expiry")
        .done(0, S / 10, set_for("1", 2), Written, 5)
        .done(S, S + 1, get("x/a"), until("1", 7000), 5)
        .done(S, S + 1, list(), rows(&["1"]), 5)
        .done(3 * S, 3 * S + 1, get("x/a"), none(), 6)
        .done(3 * S, 3 * S + 1, list(), rows(&[]), 6)
        .dump(&[])
}

#[test]
fn a_key_that_dies_in_time_is_right() {
    life().holds("linearizable");
    life().holds("expiry");
    // It is seen right before its time, and is gone right after.
    let edge = life().done(2 * S, 2 * S + 1, get("x/a"), until("1", 7000), 5);
    edge.holds("linearizable");
    edge.holds("expiry");
    // It may be set again, and be overwritten before it dies.
    let again = life()
        .done(4 * S, 4 * S + 1, set_for("2", 1), Written, 7)
        .done(4 * S + 2, 4 * S + 3, get("x/a"), until("2", 9000), 7)
        .done(4 * S + 4, 4 * S + 5, set_for("3", 3), Written, 8)
        .done(6 * S, 6 * S + 1, list(), rows(&["3"]), 8)
        .done(8 * S, 8 * S + 1, list(), rows(&[]), 9);
    again.holds("linearizable");
    again.holds("expiry");
}

#[test]
fn a_key_that_is_back_is_found() {
    life()
        .done(4 * S, 4 * S + 1, get("x/a"), until("1", 7000), 6)
        .finds("linearizable", &[1, 4, 6]);
    // Also where the clocks may have been wrong, and the list was the only one to see it.
    let back = Story::of("expiry")
        .done(0, 1, set_for("1", 2), Written, 5)
        .done(2, 3, list(), rows(&[]), 6)
        .done(4, 5, get("x/a"), until("1", 7000), 6)
        .fault("clock-jump", 0, 1);
    back.finds("linearizable", &[1, 2, 3]);
    back.holds("expiry");
}

#[test]
fn a_key_that_dies_early_is_found_unless_a_clock_was_moved() {
    let early = || {
        Story::of("expiry").done(0, 1, set_for("1", 2), Written, 5).done(
            S,
            S + 1,
            get("x/a"),
            none(),
            6,
        )
    };
    early().finds("linearizable", &[1, 2]);
    early().fault("kill-one", 0, S).finds("linearizable", &[1, 2]);
    early().fault("clock-jump", S / 2, S).holds("linearizable");
    // An old life's time must not end the new one.
    let old = Story::of("expiry")
        .done(0, 1, set_for("1", 1), Written, 5)
        .done(S / 2, S / 2 + 1, set_for("2", 3), Written, 6)
        .done(2 * S, 2 * S + 1, get("x/a"), none(), 7);
    old.finds("linearizable", &[1, 2, 3]);
}

#[test]
fn a_key_that_lives_too_long_is_found_unless_a_clock_was_moved() {
    let late = |read: Action, answer: Answer| {
        let story = Story::of("expiry").done(0, S / 10, set_for("1", 2), Written, 5);
        story.done(3 * S, 3 * S + 1, read, answer, 5)
    };
    late(get("x/a"), until("1", 7000)).finds("expiry", &[1, 2]);
    late(list(), rows(&["1"])).finds("expiry", &[1, 2]);
    late(list(), rows(&["1"])).fault("clock-strobe", S, 2 * S).holds("expiry");
    // Of a write that is under way nobody knows when its time began.
    let unknown = Story::of("expiry").unknown(0, S / 10, set_for("1", 2)).done(
        3 * S,
        3 * S + 1,
        get("x/a"),
        until("1", 7000),
        5,
    );
    unknown.holds("expiry");
    life().dump(&[("x/a", "1")]).finds("expiry", &[1]);
}

#[test]
fn two_times_of_one_death_are_found() {
    life().done(S + 5, S + 6, get("x/a"), until("1", 7001), 5).finds("expiry", &[2, 6]);
}

fn at(stale: bool, min_revision: Option<u64>) -> Action {
    Action::GetAt { key: "a".to_owned(), stale, min_revision }
}

fn aged(value: Option<&str>, version: Option<u64>, age_ms: u64) -> Answer {
    let value = value.map(str::to_owned);
    Answer::Dated { value, version, age_ms: Some(age_ms), expires_at: None }
}

/// Two writes, the second at ten seconds.
fn two_writes() -> Story {
    Story::of("stale").done(0, 1, set("a", "1"), Written, 5).done(
        10 * S,
        10 * S + 1,
        set("a", "2"),
        Written,
        6,
    )
}

#[test]
fn stale_reads_show_what_was_there_at_their_revision() {
    let story =
        two_writes().done(11 * S, 11 * S + 1, at(true, None), aged(Some("1"), Some(5), 0), 5);
    for checker in ["certificate", "linearizable", "stale"] {
        story.holds(checker);
    }
    let wrong =
        two_writes().done(11 * S, 11 * S + 1, at(true, None), aged(Some("1"), Some(5), 0), 6);
    wrong.finds("certificate", &[1, 2, 3]);
    // One that is not stale is the newest.
    let old = two_writes().done(11 * S, 11 * S + 1, at(false, Some(5)), is("1", 5), 5);
    old.finds("certificate", &[2, 3]);
    old.finds("linearizable", &[1, 2, 3]);
}

#[test]
fn a_read_behind_what_it_asked_for_is_found() {
    let read = |least| {
        let answer = aged(Some("1"), Some(5), 9000);
        two_writes().done(11 * S, 11 * S + 1, at(true, least), answer, 5)
    };
    read(Some(5)).holds("stale");
    read(Some(6)).finds("stale", &[3]);
}

#[test]
fn an_age_that_lies_is_found_unless_words_were_held_up() {
    let read = |age| {
        let answer = aged(Some("1"), Some(5), age);
        two_writes().done(20 * S, 20 * S + 1, at(true, None), answer, 5)
    };
    read(10_000).holds("stale");
    read(5_000).finds("stale", &[2, 3]);
    // A cut drops them: a follower that hears nothing knows that it does not.
    read(5_000).fault("partition-minority", 9 * S, 30 * S).finds("stale", &[2, 3]);
    read(5_000).fault("partition-minority", 9 * S, 18 * S).holds("stale");
    read(5_000).fault("pause-one", 9 * S, 19 * S).holds("stale");
    read(5_000).fault("pause-one", 0, 9 * S).finds("stale", &[2, 3]);
    let silent = two_writes().done(20 * S, 20 * S + 1, at(true, None), is("2", 6), 6);
    silent.finds("stale", &[3]);
}

#[test]
fn an_answer_that_is_given_again_is_the_same() {
    let asked_again = |number, replayed, revision| {
        let again = Action::Repeat { of: 1, key: "c".to_owned(), by: 1 };
        Story::of("idempotent")
            .done(0, 1, add(), Number(1), 5)
            .done(2, 3, add(), Number(2), 6)
            .done(4, 5, again, Answer::Again { number, replayed }, revision)
            .dump(&[("c", "2")])
    };
    let right = asked_again(1, true, 5);
    for checker in ["idempotent", "certificate", "counter", "linearizable"] {
        right.holds(checker);
    }
    asked_again(1, false, 5).finds("idempotent", &[1, 3]);
    asked_again(2, true, 5).finds("idempotent", &[1, 3]);
    asked_again(1, true, 6).finds("idempotent", &[1, 3]);
    asked_again(3, true, 7).finds("certificate", &[2, 3]);
}

#[test]
fn what_was_asked_twice_and_done_twice_is_found() {
    let twice = Story::of("idempotent")
        .done(0, 9, add(), Number(2), 6)
        .done(10, 11, add(), Number(3), 7)
        .dump(&[("c", "3")]);
    twice.finds("counter", &[2]);
    twice.finds("linearizable", &[1]);
}

fn transfer(version: Option<u64>, value: &str) -> Action {
    let key = || "account/0".to_owned();
    let set = Step::Set { key: key(), value: value.to_owned() };
    Action::Txn { steps: vec![Step::Check { key: key(), version }, set] }
}

fn checked(version: u64) -> Answer {
    Answer::Results(vec![StepAnswer::Holds, StepAnswer::Set { version }])
}

#[test]
fn two_transactions_on_one_version_are_found() {
    let story = |second: Answer| {
        Story::of("transactions")
            .done(0, 9, transfer(None, "90"), checked(5), 5)
            .done(0, 9, transfer(None, "80"), second.clone(), if second == Denied { 5 } else { 6 })
            .dump(&[("account/0", "90"), ("account/1", "110")])
    };
    story(Denied).holds("versions");
    story(checked(6)).finds("versions", &[1, 2]);
    story(checked(6)).finds("certificate", &[1, 2]);
}

#[test]
fn money_that_transactions_make_is_found() {
    let accounts = || (0..crate::model::ACCOUNTS).map(crate::model::account_key);
    let read = Action::Txn { steps: accounts().map(|key| Step::Get { key }).collect() };
    let told = |first: &str| {
        let none = || StepAnswer::Value { value: None, version: None };
        let first = StepAnswer::Value { value: Some(first.to_owned()), version: Some(5) };
        Answer::Results([first].into_iter().chain(accounts().skip(1).map(|_| none())).collect())
    };
    Story::of("transactions").done(0, 1, read.clone(), told("100"), 5).holds("bank");
    Story::of("transactions").done(0, 1, read, told("99"), 5).finds("bank", &[1]);
    let story = Story::of("transactions").done(0, 1, transfer(None, "90"), checked(5), 5);
    story.dump(&[("account/0", "90")]).finds("bank", &[]);
}

fn create(value: &str) -> Action {
    Action::Create { key: "a".to_owned(), value: value.to_owned() }
}

fn remove(from: &str) -> Action {
    Action::Remove { key: "a".to_owned(), from: from.to_owned() }
}

fn revisit(from: &str) -> Action {
    Action::Revisit { key: "a".to_owned(), from: from.to_owned() }
}

#[test]
fn conditions_are_right_or_found() {
    let story = || {
        Story::of("conditional")
            .done(0, 1, create("1"), Written, 5)
            .done(2, 3, create("2"), Denied, 5)
            .done(4, 5, revisit("1"), Unchanged, 5)
            .done(6, 7, remove("1"), Written, 6)
    };
    let right = story().done(8, 9, create("3"), Written, 7).dump(&[("a", "3")]);
    for checker in ["linearizable", "certificate", "durability"] {
        right.holds(checker);
    }
    let both = |story: Story, evidence: &[&[u64]; 2]| {
        story.finds("linearizable", evidence[0]);
        story.finds("certificate", evidence[1]);
    };
    both(story().done(8, 9, remove("1"), Written, 7), &[&[1, 4, 5], &[5]]);
    both(story().done(8, 9, revisit("1"), Unchanged, 6), &[&[1, 4, 5], &[5]]);
    both(story().done(8, 9, create("3"), Denied, 6), &[&[1, 4, 5], &[5]]);
    let twice = Story::of("conditional").done(0, 9, create("1"), Written, 5);
    both(twice.done(0, 9, create("2"), Written, 6), &[&[1, 2], &[1, 2]]);
    story().dump(&[("a", "1")]).finds("durability", &[1, 4]);
}

#[test]
fn an_unknown_removal_may_come_late() {
    let story = Story::of("conditional")
        .done(0, 1, create("1"), Written, 5)
        .unknown(2, 3, remove("1"))
        .done(4, 5, get("a"), is("1", 5), 5)
        .done(6, 7, create("2"), Written, 7);
    story.holds("linearizable");
    story.holds("certificate");
    let back = story.done(8, 9, get("a"), is("1", 5), 7);
    back.finds("linearizable", &[1, 2, 4, 5]);
}
