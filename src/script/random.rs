//! Random numbers that a replay draws again: SplitMix64 from the call's seed.

use std::cell::Cell;

/// A generator; its whole state is one number.
#[derive(Default)]
pub(super) struct Random(Cell<u64>);

impl Random {
    /// Begins anew.
    pub(super) fn seed(&self, seed: u64) {
        self.0.set(seed);
    }

    fn bits(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A float in `[0, 1)`.
    pub(super) fn float(&self) -> f64 {
        const SCALE: f64 = 1.0 / (1u64 << 53) as f64;
        #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
        let bits = (self.bits() >> 11) as f64;
        bits * SCALE
    }

    /// An integer in `[low, high]`.
    pub(super) fn between(&self, low: i64, high: i64) -> i64 {
        let span = u128::from(high.abs_diff(low)) + 1;
        // The product's upper half is below the span.
        let offset = ((u128::from(self.bits()) * span) >> 64) as u64;
        low.wrapping_add_unsigned(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_in_its_range_and_reaches_both_ends() {
        let random = Random::default();
        let draws: Vec<i64> = (0..1000).map(|_| random.between(-1, 1)).collect();
        assert!(draws.iter().all(|n| (-1..=1).contains(n)));
        assert!((-1..=1).all(|n| draws.contains(&n)));
        assert!((0..1000).map(|_| random.float()).all(|f| (0.0..1.0).contains(&f)));
        let whole = random.between(i64::MIN, i64::MAX);
        assert_ne!(whole, random.between(i64::MIN, i64::MAX));
    }
}
