//! Numbers that look random and come the same for the same seed.

/// A generator (SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator of one client of a run: clients draw different numbers.
    #[must_use]
    pub fn new(seed: u64, client: u64) -> Self {
        let mut random = Random(seed);
        Random(random.next() ^ Random(client).next())
    }

    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "numbers do not end")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below another, all equally often but for an unmeasurable rest; 0 below 0.
    pub fn below(&mut self, end: u64) -> u64 {
        let product = u128::from(self.next()) * u128::from(end);
        // The upper half of a product of 64 bits each.
        u64::try_from(product >> 64).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_numbers_and_clients_differ() {
        let draw = |seed, client| {
            let mut random = Random::new(seed, client);
            [random.next(), random.next(), random.next()]
        };
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
    }

    #[test]
    fn the_published_numbers() {
        // The first numbers of the reference implementation for the seed 1234567.
        let mut random = Random(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn all_numbers_below_are_drawn_about_as_often() {
        let mut random = Random::new(7, 0);
        let mut drawn = [0; 10];
        for _ in 0..10_000 {
            drawn[usize::try_from(random.below(10)).unwrap()] += 1;
        }
        assert!(drawn.iter().all(|times| (800..1200).contains(times)), "{drawn:?}");
        assert_eq!(random.below(1), 0);
        assert_eq!(random.below(0), 0);
    }
}
