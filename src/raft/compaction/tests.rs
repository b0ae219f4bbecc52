use super::*;

/// The indexes at which a node takes its snapshots, of so many entries of a byte each.
fn snapshots(rules: Rules, from: u64, to: u64) -> Vec<u64> {
    let mut plan = Plan::new(rules, 0, 0, 0);
    plan.snapshot(from);
    let mut taken = Vec::new();
    for index in from + 1..=to {
        plan.applied(index, 1);
        if plan.is_due() {
            taken.push(index);
            plan.snapshot(index);
        }
    }
    taken
}

#[test]
fn replicas_take_their_snapshots_at_different_indexes_and_none_later_than_allowed() {
    let entries = 1_000;
    for (ids, apart) in [(1..=3, 230), (1..=5, 140), (4..=6, 230)] {
        let taken = ids.clone().map(|id| snapshots(Rules::new(id, entries, 0), 0, 10 * entries));
        let mut all = Vec::new();
        for taken in taken {
            assert!(taken[0] <= entries && taken.len() == 10, "{taken:?}");
            assert!(taken.windows(2).all(|pair| pair[1] - pair[0] == entries), "{taken:?}");
            all.extend(taken);
        }
        all.sort_unstable();
        assert!(all.windows(2).all(|pair| pair[1] - pair[0] >= apart), "{ids:?}: {all:?}");
    }
}

/// A start takes one as well, at whatever index the node stopped at.
#[test]
fn a_restart_changes_no_turn() {
    let rules = Rules::new(2, 1_000, 0);
    let expected = snapshots(rules, 0, 10_000);
    for stopped_at in [1, 235, 236, 237, 999, 4_444] {
        let after: Vec<_> = expected.iter().copied().filter(|index| *index > stopped_at).collect();
        assert_eq!(snapshots(rules, stopped_at, 10_000), after, "{stopped_at}");
    }
}

#[test]
fn extreme_intervals() {
    assert_eq!(snapshots(Rules::new(7, 1, 0), 0, 3), [1, 2, 3]);
    let never = Rules::new(7, u64::MAX, 0);
    assert!(never.next_index(0) > 1 << 60);
    assert!(never.next_index(u64::MAX - 1) == u64::MAX);
}

const MAX: u64 = 1 << 20;

/// Applies entries until the log is due for its bytes; the next index.
fn fill(plan: &mut Plan, mut index: u64, bytes: u64) -> u64 {
    for _ in 0..MAX {
        if plan.is_due() {
            return index;
        }
        plan.applied(index, bytes);
        index += 1;
    }
    panic!("never due");
}

#[test]
fn a_log_beyond_its_bytes_is_purged_to_half_of_them() {
    let mut plan = Plan::new(Rules::new(2, u64::MAX, MAX), 0, 0, 0);
    let (mut next, mut held) = (1, VecDeque::new());
    for size in [100, 5_000, 70_000, 100] {
        let last = next;
        next = fill(&mut plan, next, size);
        held.extend((last..next).map(|index| (index, size)));
        let bytes = |held: &VecDeque<(u64, u64)>| held.iter().map(|(_, size)| size).sum::<u64>();
        assert_eq!(plan.bytes, bytes(&held), "counted");
        assert!(plan.bytes <= MAX + size, "{}", plan.bytes);
        assert!(plan.parts.len() < 3 * PARTS as usize, "{}", plan.parts.len());
        let upto = plan.purge_to().unwrap();
        held.retain(|(index, _)| *index > upto);
        let (least, most) = (MAX / 2 - MAX / 16 - size, MAX / 2 + MAX / 16 + size);
        assert!((least..=most).contains(&bytes(&held)), "{size}: {} left", bytes(&held));
        plan.purged(upto);
        assert_eq!(plan.purge_to(), None, "once");
        let (counted, real) = (plan.bytes, bytes(&held));
        assert!(counted.abs_diff(real) <= MAX / 16 + size, "{size}: {counted} for {real}");
        plan.bytes = real;
    }
}

#[test]
fn what_is_purged_for_its_number_is_no_reason_for_a_snapshot() {
    let mut plan = Plan::new(Rules::new(2, u64::MAX, MAX), 0, 0, 0);
    for index in 1..=1_000_000 {
        plan.applied(index, 100);
        plan.purged(index.saturating_sub(5_000));
        assert!(!plan.is_due(), "{index}: {} bytes", plan.bytes);
        assert!(plan.bytes >= 5_000.min(index) * 100, "{index}: {} bytes", plan.bytes);
    }
}

#[test]
fn what_the_log_held_at_the_start_is_counted_once_and_by_the_entry() {
    let mut plan = Plan::new(Rules::new(2, u64::MAX, MAX), 1_000, 2_000, MAX / 2);
    (1_500..=2_000).for_each(|index| plan.applied(index, 100));
    assert_eq!(plan.bytes, MAX / 2, "replayed");
    plan.purged(500);
    assert_eq!(plan.bytes, MAX / 2, "older than all that is there");
    plan.purged(1_500);
    assert_eq!(plan.bytes, MAX / 4);
    fill(&mut plan, 2_001, 1_000);
    let upto = plan.purge_to().unwrap();
    assert!(upto >= 2_000, "the older go first: {upto}");

    let mut plan = Plan::new(Rules::new(2, u64::MAX, MAX), 0, 1_000, 4 * MAX);
    plan.applied(1_000, 100);
    assert!(plan.is_due(), "the bound was lowered");
    assert_eq!(plan.purge_to(), Some(875));
}

#[test]
fn an_installed_snapshot_takes_the_place_of_the_log() {
    let mut plan = Plan::new(Rules::new(2, 1_000, MAX), 0, 0, 0);
    fill(&mut plan, 1, 5_000);
    plan.installed(5_500);
    assert!(!plan.is_due() && plan.bytes == 0);
    assert!((5_501..=6_500).contains(&plan.next_index), "{}", plan.next_index);
    plan.applied(5_510, 300);
    assert_eq!(plan.parts.front().map(|part| part.first), Some(5_501));
}
