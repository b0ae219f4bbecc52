use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use proptest::prelude::*;

use super::*;

const START: i64 = 1_700_000_000_000;
const HOUR: i64 = 3_600_000;
const BOUND: i64 = 5_000;

/// Two clocks that a test moves.
#[derive(Clone, Default)]
struct Hands(Arc<(AtomicI64, AtomicI64)>);

impl Hands {
    fn clock() -> (Self, Clock) {
        let hands = Hands::default();
        hands.step(START);
        let clock = Clock::new(hands.clone());
        (hands, clock)
    }

    /// Time passes.
    fn pass(&self, ms: i64) {
        self.0.0.fetch_add(ms, Ordering::Relaxed);
        self.0.1.fetch_add(ms, Ordering::Relaxed);
    }

    /// Somebody sets the wall clock.
    fn step(&self, ms: i64) {
        self.0.0.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Source for Hands {
    fn wall_ms(&self) -> i64 {
        self.0.0.load(Ordering::Relaxed)
    }

    fn monotonic_ms(&self) -> i64 {
        self.0.1.load(Ordering::Relaxed)
    }
}

fn since_start(clock: &Clock) -> i64 {
    i64::try_from(clock.now_ms()).unwrap() - START
}

#[test]
fn small_differences_are_followed_and_time_stands_still_meanwhile() {
    let (hands, clock) = Hands::clock();
    hands.pass(1000);
    hands.step(STEP_MS - 1);
    assert_eq!(since_start(&clock), 1000 + STEP_MS - 1, "ahead, at once");
    hands.step(1 - STEP_MS);
    assert_eq!(since_start(&clock), 1000 + STEP_MS - 1, "back: it stands still");
    hands.pass(STEP_MS);
    assert_eq!(since_start(&clock), 1000 + STEP_MS, "and is the wall clock's again");
}

#[test]
fn a_step_is_followed_when_told_and_not_before() {
    for step in [STEP_MS, HOUR, -STEP_MS, -HOUR] {
        let (hands, clock) = Hands::clock();
        hands.step(step);
        hands.pass(10);
        assert_eq!(since_start(&clock), 10, "{step}");
        assert!(clock.read().0.stepped(), "{step}");
        clock.follow();
        assert_eq!(since_start(&clock), 10 + step, "{step}");
        hands.pass(5);
        assert_eq!(since_start(&clock), 15 + step, "{step}: goes on from there");
        assert!(!clock.read().0.stepped(), "{step}");
    }
}

#[test]
fn a_wall_clock_that_comes_back_was_never_away() {
    let (hands, clock) = Hands::clock();
    hands.step(HOUR);
    hands.pass(1000);
    assert_eq!(since_start(&clock), 1000);
    hands.step(-HOUR);
    assert_eq!(since_start(&clock), 1000);
    hands.step(100);
    assert_eq!(since_start(&clock), 1100, "and is followed as before");
}

#[test]
fn a_machine_in_1970_has_a_time_too() {
    let hands = Hands::default();
    let clock = Clock::new(hands.clone());
    hands.step(-10);
    assert_eq!(clock.now_ms(), 0);
}

#[derive(Clone, Debug)]
enum Event {
    Pass(i64),
    Step(i64),
    Read,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        (0..2_000_i64).prop_map(Event::Pass),
        (-STEP_MS * 3..STEP_MS * 3).prop_map(Event::Step),
        (-HOUR..HOUR).prop_map(Event::Step),
        Just(Event::Read),
    ];
    proptest::collection::vec(event, 0..60)
}

proptest! {
    #[test]
    fn time_never_goes_back_and_never_steps(events in events()) {
        let (hands, clock) = Hands::clock();
        let (mut last, mut passed) = (clock.read().0.time, 0);
        for event in events {
            match event {
                Event::Pass(ms) => {
                    hands.pass(ms);
                    passed += ms;
                }
                Event::Step(ms) => hands.step(ms),
                Event::Read => {
                    let time = clock.read().0.time;
                    prop_assert!(time >= last, "{last} then {time}");
                    prop_assert!(time - last < passed + STEP_MS, "{last}, {passed} later {time}");
                    (last, passed) = (time, 0);
                }
            }
        }
    }

    #[test]
    fn a_slewed_clock_is_followed(slews in proptest::collection::vec(-400..400_i64, 1..50)) {
        let (hands, clock) = Hands::clock();
        for slew in slews {
            hands.step(slew);
            hands.pass(1000);
            prop_assert_eq!(clock.read().0.time, hands.wall_ms());
        }
    }
}

/// A clock whose time is its wall clock.
fn at(ms: i64) -> Clocks {
    Clocks { time: ms, wall: ms }
}

fn compare(own: Clocks, others: &[Clocks], voters: usize) -> Verdict {
    Comparison { own, votes: voters > 0, others, voters, bound_ms: BOUND }.verdict()
}

#[test]
fn medians() {
    for (clocks, expected) in [
        (&[7][..], 7),
        (&[9, 1], 1),
        (&[5, 1, 9], 5),
        (&[4, 3, 2, 1], 2),
        (&[0, 0, HOUR, HOUR, 1], 1),
    ] {
        assert_eq!(median(clocks.iter().copied()), expected, "{clocks:?}");
    }
}

#[test]
fn who_is_skewed() {
    // Own time, the others', how many vote; the offset, and whether it is too much.
    for (own, others, voters, offset, skewed) in [
        (0, &[0, 0][..], 3, 0, Some(false)),
        (BOUND, &[0, 0], 3, BOUND, Some(false)),
        (BOUND + 1, &[0, 0], 3, BOUND + 1, Some(true)),
        (-BOUND - 1, &[0, 0], 3, -BOUND - 1, Some(true)),
        (0, &[0, HOUR], 3, 0, Some(false)),
        (0, &[HOUR, HOUR], 3, -HOUR, Some(true)),
        (HOUR, &[0, 0, HOUR, 0], 5, HOUR, Some(true)),
        // One of three is silent, and the two differ: the earlier is believed.
        (HOUR, &[0], 3, HOUR, Some(true)),
        (0, &[HOUR], 3, 0, Some(false)),
        (HOUR, &[0], 2, HOUR, Some(true)),
        // No majority is known.
        (HOUR, &[], 3, 0, None),
        (HOUR, &[0], 5, 0, None),
        (HOUR, &[], 2, 0, None),
        // Nobody else votes.
        (HOUR, &[], 1, 0, Some(false)),
        // Not founded.
        (HOUR, &[], 0, 0, None),
    ] {
        let others: Vec<_> = others.iter().copied().map(at).collect();
        let expected = skewed.map(|is_skewed| Skew { offset_ms: offset, is_skewed });
        assert_eq!(compare(at(own), &others, voters).skew, expected, "{own} {others:?} {voters}");
    }
}

#[test]
fn a_learner_is_judged_and_does_not_count() {
    let learner = |others: &[Clocks], voters| {
        Comparison { own: at(HOUR), votes: false, others, voters, bound_ms: BOUND }
            .verdict()
            .skew
            .unwrap_or_default()
    };
    assert!(learner(&[at(0), at(0)], 3).is_skewed);
    assert!(!learner(&[at(0)], 3).is_skewed, "one of three is no majority");
    assert!(learner(&[at(0)], 1).is_skewed);
}

#[test]
fn whose_step_is_followed() {
    let moved = |time, wall| Clocks { time, wall };
    // What happened; the own clocks, the others', how many vote; whether to follow.
    for (what, own, others, voters, follow) in [
        ("none", at(0), &[at(0), at(0)][..], 3, false),
        ("one alone", moved(0, HOUR), &[at(0), at(0)], 3, false),
        ("one alone, within the bound", moved(0, 3000), &[at(0), at(0)], 3, false),
        ("all", moved(0, HOUR), &[moved(0, HOUR), moved(0, HOUR)], 3, true),
        ("all, back", moved(0, -HOUR), &[moved(0, -HOUR), at(-HOUR)], 3, true),
        ("set right", moved(HOUR, 0), &[at(0), at(0)], 3, true),
        ("set right, roughly", moved(HOUR, 3000), &[at(0), at(100)], 3, true),
        ("slept", moved(-HOUR, 0), &[at(0), at(0)], 3, true),
        ("a small difference", moved(STEP_MS - 1, 0), &[at(0), at(0)], 3, false),
        ("back, and one of the others is silent", moved(0, -HOUR), &[at(0)], 3, false),
        ("set right, and one is silent", moved(HOUR, 0), &[at(0)], 3, true),
        ("the others are silent", moved(0, HOUR), &[], 3, false),
        ("there are no others", moved(0, HOUR), &[], 1, true),
        ("there are no others, back", moved(0, -HOUR), &[], 1, true),
        ("not founded", moved(0, HOUR), &[], 0, true),
    ] {
        assert_eq!(compare(own, others, voters).follow, follow, "{what}");
    }
}

/// All clocks are set at once, and this node follows a moment before the others.
#[test]
fn the_first_to_follow_is_not_skewed() {
    let late = Clocks { time: 0, wall: HOUR };
    let verdict = compare(at(HOUR), &[late, late], 3);
    assert_eq!(verdict.skew, Some(Skew { offset_ms: HOUR, is_skewed: false }));
    assert!(compare(late, &[at(HOUR), at(HOUR)], 3).follow, "nor is the last, which then follows");
}

#[test]
fn distances_do_not_age() {
    let clocks = Clocks { time: START, wall: START + 7 };
    let later = Clocks { time: START + 900, wall: START + 907 };
    assert_eq!(clocks.from(100), later.from(1000));
}

#[test]
fn what_was_said_long_ago_is_forgotten() {
    let voter = |id| MemberInfo { id, peer: crate::raft::Peer::default(), voter: true };
    let mut known = Known::default();
    known.note(&[(2, at(1)), (3, at(2))], 1000);
    known.note(&[(3, at(5))], 2000);
    known.forget(&[voter(2), voter(3)], 1000 + REMEMBERED_MS);
    assert_eq!(known.clocks(), [at(1), at(5)]);
    known.forget(&[voter(2), voter(3)], 1001 + REMEMBERED_MS);
    assert_eq!(known.clocks(), [at(5)]);
    known.forget(&[voter(2)], 2000);
    assert!(known.clocks().is_empty(), "no voter any more");
}
