//! Which faults, when: drawn from a seed, in rounds of a few faults at a time, with quiet in between.
//!
//! A history draws a handful of kinds and keeps to them (swarm testing, Groce et al., ISSTA 2012): a
//! run in which everything happens at once meets fewer deep states than many runs in which few things
//! happen often.

use std::time::Duration;

use crate::nemesis::Kind;

/// Kinds that one history draws from.
const SWARM: usize = 6;
/// Faults that may be there at the same time.
const AT_ONCE_MAX: usize = 3;
/// How long a round lasts, in milliseconds.
const HOLD_MS: std::ops::Range<u64> = 500..4_000;
/// How long nothing happens, in milliseconds.
const QUIET_MS: std::ops::Range<u64> = 500..3_000;

/// What happens next.
pub(super) enum Round {
    /// Nothing.
    Quiet(Duration),
    /// These kinds, together, for a while.
    Faults(Vec<&'static Kind>, Duration),
}

/// Draws rounds.
pub(super) struct Schedule {
    rng: fastrand::Rng,
    kinds: Vec<&'static Kind>,
}

impl Schedule {
    /// A schedule of some of these kinds, all of them where they are few.
    pub(super) fn new(seed: u64, kinds: &[&'static Kind]) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut kinds = kinds.to_vec();
        rng.shuffle(&mut kinds);
        kinds.truncate(SWARM);
        Schedule { rng, kinds }
    }

    /// The next round.
    pub(super) fn next(&mut self) -> Round {
        if self.kinds.is_empty() || self.rng.u8(0..4) == 0 {
            return Round::Quiet(Duration::from_millis(self.rng.u64(QUIET_MS)));
        }
        self.rng.shuffle(&mut self.kinds);
        let hold = Duration::from_millis(self.rng.u64(HOLD_MS));
        let together = self.rng.usize(1..=AT_ONCE_MAX);
        match self.kinds.as_slice() {
            [first, ..] if first.alone => Round::Faults(vec![first], hold),
            kinds => {
                let kinds = kinds.iter().filter(|kind| !kind.alone).take(together);
                Round::Faults(kinds.copied().collect(), hold)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nemesis::Needs;

    const fn kind(name: &'static str, alone: bool) -> Kind {
        Kind { name, about: "", needs: Needs::Processes, alone, draw: |_| None }
    }

    static KINDS: [Kind; 3] = [kind("a", false), kind("b", false), kind("alone", true)];

    fn rounds(seed: u64) -> Vec<String> {
        let mut schedule = Schedule::new(seed, &KINDS.iter().collect::<Vec<_>>());
        let shown = |round| match round {
            Round::Quiet(time) => format!("quiet {time:?}"),
            Round::Faults(kinds, time) => {
                let names: Vec<_> = kinds.iter().map(|kind| kind.name).collect();
                format!("{} {time:?}", names.join("+"))
            }
        };
        (0..200).map(|_| shown(schedule.next())).collect()
    }

    #[test]
    fn a_seed_is_a_schedule() {
        assert_eq!(rounds(1), rounds(1));
        assert_ne!(rounds(1), rounds(2));
    }

    #[test]
    fn a_quarter_is_quiet_and_some_faults_are_alone() {
        let rounds = rounds(3);
        let quiet = rounds.iter().filter(|round| round.starts_with("quiet")).count();
        assert!((20..80).contains(&quiet), "{quiet}");
        assert!(rounds.iter().any(|round| round.starts_with("a+b") || round.starts_with("b+a")));
        assert!(rounds.iter().any(|round| round.starts_with("alone ")));
        assert!(!rounds.iter().any(|round| round.contains("+alone") || round.contains("alone+")));
    }
}
