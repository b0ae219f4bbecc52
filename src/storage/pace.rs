//! A pace: so many bytes a second, for what must not keep others from their work.

use std::time::{Duration, Instant};

/// Bytes between two looks at the clock; a rest is never longer than they take.
const STRIDE_BYTES: u64 = 1 << 20;

/// Bytes a second; 0: no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace(pub u64);

impl Pace {
    /// Begins something that keeps the pace.
    #[must_use]
    pub fn begin(self) -> Paced {
        Paced { pace: self.0, stride: 0, begun: Instant::now() }
    }
}

/// Something that keeps a pace.
#[derive(Debug)]
pub struct Paced {
    pace: u64,
    /// Bytes since the last look.
    stride: u64,
    begun: Instant,
}

impl Paced {
    /// How long to rest after so many bytes more. What was slower than the pace is not made up for: that
    /// would be a burst.
    #[must_use]
    pub fn rest(&mut self, bytes: usize) -> Duration {
        self.stride += bytes as u64;
        if self.pace == 0 || self.stride < STRIDE_BYTES {
            return Duration::ZERO;
        }
        let due = Duration::from_secs_f64(self.stride as f64 / self.pace as f64);
        let rest = due.saturating_sub(self.begun.elapsed());
        (self.stride, self.begun) = (0, Instant::now() + rest);
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_once_a_stride_and_only_for_what_was_too_fast() {
        let mut paced = Pace(STRIDE_BYTES).begin();
        assert_eq!(paced.rest(STRIDE_BYTES as usize - 1), Duration::ZERO);
        let rest = paced.rest(1);
        assert!(rest > Duration::from_millis(500) && rest <= Duration::from_secs(1), "{rest:?}");
        paced.begun -= Duration::from_secs(60);
        assert_eq!(paced.rest(STRIDE_BYTES as usize), Duration::ZERO, "slow by itself");
        let rest = paced.rest(STRIDE_BYTES as usize);
        assert!(rest > Duration::from_millis(500), "and nothing is made up for: {rest:?}");
    }

    #[test]
    fn without_a_pace_nothing_rests() {
        let mut paced = Pace(0).begin();
        assert_eq!(paced.rest(usize::MAX / 2), Duration::ZERO);
    }
}
