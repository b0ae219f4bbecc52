//! Random numbers that a replay draws again.
//!
//! `math.random` is SplitMix64, and whoever sees a few of its numbers can compute the others. So it does
//! not begin at the call's seed but at a hash of it: what `kvdb.uuid` makes of the seed stays unknown to
//! them, and no `math.randomseed` lets two calls draw the same UUID.

use std::cell::Cell;

use sha2::{Digest, Sha256};

/// The randomness of a call.
#[derive(Default)]
pub(super) struct Random {
    seed: Cell<u64>,
    /// Of SplitMix64, once a number was drawn.
    state: Cell<Option<u64>>,
    uuids: Cell<u64>,
}

impl Random {
    /// Begins a call.
    pub(super) fn begin(&self, seed: u64) {
        self.seed.set(seed);
        self.state.set(None);
        self.uuids.set(0);
    }

    /// `math.randomseed`.
    pub(super) fn reseed(&self, seed: u64) {
        self.state.set(Some(seed));
    }

    /// The first half of a hash of the seed, of what it is for, and of two numbers.
    fn derive(&self, purpose: &[u8], a: u64, b: u64) -> u128 {
        let mut hash = Sha256::new();
        hash.update(purpose);
        for number in [self.seed.get(), a, b] {
            hash.update(number.to_be_bytes());
        }
        hash.finalize().iter().take(16).fold(0, |bits, byte| bits << 8 | u128::from(*byte))
    }

    fn bits(&self) -> u64 {
        let first = || self.derive(b"math.random", 0, 0) as u64;
        let state = self.state.get().unwrap_or_else(first).wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(Some(state));
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

    /// The next UUID, in the form of version 4. The time goes in too: seeds are only 64 bits.
    pub(super) fn uuid(&self, now: u64) -> String {
        let count = self.uuids.get();
        self.uuids.set(count + 1);
        let bits = self.derive(b"kvdb.uuid", now, count);
        let bits = bits & !(0xf << 76) | 4 << 76;
        let bits = bits & !(3 << 62) | 2 << 62;
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            bits >> 96,
            bits >> 80 & 0xffff,
            bits >> 64 & 0xffff,
            bits >> 48 & 0xffff,
            bits & 0xffff_ffff_ffff
        )
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

    #[test]
    fn a_uuid_depends_on_seed_time_and_count_only() {
        let uuids = |seed, now| {
            let random = Random::default();
            random.begin(seed);
            let first = random.uuid(now);
            random.reseed(7);
            random.float();
            (first, random.uuid(now))
        };
        assert_eq!(uuids(1, 2), uuids(1, 2));
        let mut all = [uuids(1, 2), uuids(1, 3), uuids(2, 2)].map(|(a, b)| [a, b]).concat();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 6);
        for uuid in all {
            let form: Vec<usize> = uuid.split('-').map(str::len).collect();
            assert_eq!(form, [8, 4, 4, 4, 12], "{uuid}");
            assert_eq!(uuid.get(14..15), Some("4"), "{uuid}");
            assert!(uuid.get(19..20).is_some_and(|digit| "89ab".contains(digit)), "{uuid}");
        }
    }
}
