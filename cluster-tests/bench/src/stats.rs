//! From rounds to a verdict.
//!
//! Absolute figures of a shared machine are noise, so a row is judged by ratios: each round measures ours and the
//! peer back to back, its ratio is taken from that pair, and the median of the rounds' ratios is the row's.

use serde::{Deserialize, Serialize};

/// Which side of its target a ratio has to be on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Ours ÷ peer is to be the target or more: rates.
    AtLeast,
    /// Ours ÷ peer is to be the target or less: times, bytes.
    AtMost,
    /// There is no target: a figure to know.
    Reported,
}

impl Direction {
    /// How it is written before a target.
    #[must_use]
    pub fn sign(self) -> char {
        match self {
            Direction::AtLeast => '≥',
            Direction::AtMost => '≤',
            Direction::Reported => '-',
        }
    }

    /// Whether a ratio meets a target.
    #[must_use]
    pub fn met(self, ratio: f64, target: f64) -> bool {
        match self {
            Direction::AtLeast => ratio >= target,
            Direction::AtMost => ratio <= target,
            Direction::Reported => true,
        }
    }
}

/// One round: the two figures, and what else went on meanwhile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Our figure.
    pub ours: f64,
    /// The other one.
    pub peer: f64,
    /// What the machine did beside, while either was measured.
    pub noise: Noise,
}

impl Round {
    /// Ours ÷ peer; not a number where there is none.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        if self.peer > 0.0 { self.ours / self.peer } else { f64::NAN }
    }
}

/// What was not under test, while something was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    /// Cores that other processes used.
    pub other_cores: f64,
    /// The least and the most of the raw rates of append + fdatasync, probed around each measurement.
    pub fdatasync: (f64, f64),
}

/// Cores used by others that make a round noisy.
const NOISY_CORES: f64 = 0.25;

impl Noise {
    /// Both, as one.
    #[must_use]
    pub fn with(self, other: Noise) -> Noise {
        let (a, b) = (self.fdatasync, other.fdatasync);
        Noise {
            other_cores: self.other_cores.max(other.other_cores),
            fdatasync: (a.0.min(b.0), a.1.max(b.1)),
        }
    }

    /// Whether somebody else used the machine.
    #[must_use]
    pub fn is_noisy(&self) -> bool {
        self.other_cores > NOISY_CORES
    }
}

/// The middle one; of an even number, the mean of the two in the middle. Not a number for none.
#[must_use]
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().filter(|value| !value.is_nan()).collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = sorted.get(middle).copied().unwrap_or(f64::NAN);
    if sorted.len() % 2 == 1 {
        return upper;
    }
    let lower = middle.checked_sub(1).and_then(|lower| sorted.get(lower)).copied();
    lower.map_or(f64::NAN, |lower| f64::midpoint(lower, upper))
}

/// The rounds of a row in three figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Median of ours.
    pub ours: f64,
    /// Median of the peer's.
    pub peer: f64,
    /// Median of the rounds' ratios: not the ratio of the medians.
    pub ratio: f64,
}

impl Summary {
    /// Of some rounds.
    #[must_use]
    pub fn of(rounds: &[Round]) -> Self {
        Summary {
            ours: median(rounds.iter().map(|round| round.ours)),
            peer: median(rounds.iter().map(|round| round.peer)),
            ratio: median(rounds.iter().map(Round::ratio)),
        }
    }
}

/// A figure with about three digits: `0.0123`, `1.23`, `123`, `12,345`.
#[must_use]
pub fn short(value: f64) -> String {
    match value.abs() {
        _ if value.is_nan() => "-".to_owned(),
        0.0 => "0".to_owned(),
        size if size >= 100.0 => grouped(value),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// A whole number with a comma before each three digits.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(ours: f64, peer: f64) -> Round {
        Round { ours, peer, noise: Noise::default() }
    }

    #[test]
    fn median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median([7.0, f64::NAN]), 7.0);
        assert!(median([]).is_nan());
    }

    #[test]
    fn ratio_is_taken_within_a_round() {
        // A slow minute halves both figures of the second round: its ratio says nothing else.
        let summary = Summary::of(&[round(10.0, 2.0), round(5.0, 1.0), round(12.0, 2.0)]);
        assert_eq!(summary.ratio, 5.0);
        assert_eq!((summary.ours, summary.peer), (10.0, 2.0));
        assert!(round(1.0, 0.0).ratio().is_nan());
    }

    #[test]
    fn target_is_met_on_its_side_only() {
        assert!(Direction::AtLeast.met(4.0, 4.0) && !Direction::AtLeast.met(3.9, 4.0));
        assert!(Direction::AtMost.met(0.7, 0.7) && !Direction::AtMost.met(0.71, 0.7));
        assert!(!Direction::AtLeast.met(f64::NAN, 1.0) && !Direction::AtMost.met(f64::NAN, 1.0));
    }

    #[test]
    fn noise_of_both_sides_is_the_worse() {
        let quiet = Noise { other_cores: 0.1, fdatasync: (900.0, 1000.0) };
        let loud = Noise { other_cores: 0.6, fdatasync: (700.0, 950.0) };
        let both = quiet.with(loud);
        assert_eq!(both, Noise { other_cores: 0.6, fdatasync: (700.0, 1000.0) });
        assert!(both.is_noisy() && !quiet.is_noisy());
    }

    #[test]
    fn figures_are_short() {
        let texts: Vec<_> =
            [0.0, 0.0123, 1.234, 12.34, 999.6, 1_234_567.0, f64::NAN].map(short).into();
        assert_eq!(texts, ["0", "0.0123", "1.23", "12.3", "1,000", "1,234,567", "-"]);
    }
}
